# SPDX-License-Identifier: Apache-2.0
"""What the places of fingers weigh, and how far pixels went along with a drift, against what they gave before: the laws beside it
ask for the moment alone.

`python tests/test_verdicts_finger_moments_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from test_verdicts_finger_moments import BEGIN, END, FINGER, FRAMES, GROUND, scene

from retake.core.verdicts import drift, finger_moments

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "finger_moments.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
SCENES: dict[str, dict[str, Any]] = {
    "plain": {"noise": 0.0}, "early": {"early": 3.0, "seed": 4}, "late": {"early": -2.5, "noise": 8.0, "seed": 5},
    "wide": {"wider": 2.0, "moves": 0.4}, "narrow": {"wider": -1.5, "shadow": 0.4, "seed": 6},
    "faint": {"colour": tuple(c - 25 for c in GROUND), "noise": 4.0}, "short": {"length": 4.0},
    "tiny": {"length": 2.0}, "moving": {"static": False},
}  # fmt: skip


Asked = list[tuple[int, int, float]]
"""(part, frame, span) of every finger that was looked at."""


def looked_at(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked: Asked = []
    near = finger_moments._near

    def heard(footage: Any, truth: Any, part: int, along: Any, t: int, colour: Any, span: float, grid: Any) -> Any:
        asked.append((part, t, span))
        return near(footage, truth, part, along, t, colour, span, grid)

    monkeypatch.setattr(finger_moments, "_near", heard)
    return asked


def test_a_finger_is_looked_at_where_it_shows_and_travels_as_far_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its whole travel, 12 px here, times what opens, and 2 px by which it may be drawn further out; 8 at most."""
    footage, truth, travel, opening = scene()
    truth.area[:, 1] = 7.9
    truth.area[BEGIN, 1] = 8.0
    travel[6, 0], travel[7, 0] = (0.8, 0.6), (0.59, 0.8)  # a pixel long, and a little less
    asked = looked_at(monkeypatch)
    finger_moments.early_by(footage, truth, (0, 1), travel, opening, BEGIN, END, 7)
    around = [t for t in range(BEGIN - 8, END + 9) if t != 7]
    assert [(part, t) for part, t, _ in asked] == [*((0, t) for t in around), (1, BEGIN)]
    assert {span for *_, span in asked} == {8.0}
    asked.clear()
    finger_moments.early_by(footage, truth, (0,), travel / 3, opening, BEGIN, END, 7)
    assert {span for *_, span in asked} == {4.0}
    asked.clear()
    finger_moments.early_by(footage, truth, (0,), travel, opening, 2, FRAMES - 3, 7)
    assert [t for _, t, _ in asked] == [t for t in range(FRAMES) if t != 7]
    for far, span in ((1.0, 8.0), (0.25, 5.0)):
        asked.clear()
        finger_moments.own_place(footage, truth, (0, 1), travel * far, np.array([0.2]), [5, 6, BEGIN, 20])
        frames = [5, 6, BEGIN, 20] if far == 1 else [5, BEGIN, 20]
        assert asked == [*((0, t, span) for t in frames), (1, BEGIN, span)]


def test_both_early_and_late_must_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three frames either way would have cost a likelihood of 8 at least."""
    footage, truth, travel, opening = scene()
    flat = np.zeros(len(finger_moments._GRID))
    for way in (3, -3):
        assert sum(abs(np.interp(t + way, range(FRAMES), opening) - opening[t]) > 0.05 for t in range(FRAMES)) == 6

    def told(low: float, high: float) -> float | None:
        telling = np.where(finger_moments._GRID < 0, low, high) * (np.abs(finger_moments._GRID) > 0.5)
        monkeypatch.setattr(finger_moments, "_near", lambda *asked: finger_moments._Near(flat, telling))
        return finger_moments.early_by(footage, truth, (0,), travel, opening, BEGIN, END, 7)

    assert told(1.4, 1.4) == 0.0
    assert told(1.4, 0.9) is None
    assert told(0.9, 1.4) is None


@pytest.mark.parametrize(
    ("gain", "far", "near"),
    [(2.9, 0.0, 0.0), (3.1, float("nan"), 0.0), (3.9, float("nan"), 0.0), (14.1, 6.43, 1.0)],
)
def test_another_moment_is_believed_doubted_or_nothing(
    gain: float, far: float, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By likelihood, and by how far it is: what is a frame away is no doubt."""
    footage, truth, travel, opening = scene()
    monkeypatch.setattr(finger_moments, "_CONSTANTS", np.zeros(1))
    grid, telling = finger_moments._GRID, np.full(len(finger_moments._GRID), 9.0)

    def told(better: np.ndarray, frames: int) -> float | None:
        cost = np.where(better, 0.0, gain / frames)
        monkeypatch.setattr(finger_moments, "_near", lambda *asked: finger_moments._Near(cost, telling))
        return finger_moments.early_by(footage, truth, (0,), travel, opening, BEGIN, END, 7)

    # 6.5 and 7 frames early ten frames have opened further; one frame early four of them by 1.5 px.
    np.testing.assert_allclose(told(grid >= 0.5, 10), far, atol=0.02)
    np.testing.assert_allclose(told(np.abs(grid - 1.5) < 0.3, 4), near, atol=0.02)


@pytest.mark.parametrize(("side", "told"), [(3, False), (4, True)])
def test_a_finger_has_a_colour_from_four_pixels_of_its_inside_on(side: int, told: bool) -> None:
    footage, truth, _, _ = scene()
    truth.labels[2][:] = 0
    truth.labels[2][5 : 5 + side, 5:9] = 1
    assert (finger_moments._colour(footage, truth, 0, [2]) is not None) is told


def of_scene(name: str) -> dict[str, Any]:
    footage, truth, travel, opening = scene(**SCENES[name])
    if name == "wide":  # beside another part, and scenery that is known in a part of the picture alone
        truth.labels[:, 40:44, 52:60] = 9
        footage.known[:, 70:] = False
    out: dict[str, Any] = {"near": {}, "colour": {}, "early": {}, "own": {}}
    for part in (0, 1):
        out["colour"][part] = [
            finger_moments._colour(footage, truth, part, frames) for frames in (range(3), range(BEGIN, END + 4))
        ]
        for t in (1, 13, 17, FRAMES - 1):
            along, colour = travel[t, part] / np.hypot(*travel[t, part]), np.array(FINGER, float) + 7 * part
            for span in (2.0, 8.0):
                near = finger_moments._near(footage, truth, part, along, t, colour, span, finger_moments._GRID)
                out["near"][f"{part} {t} {span}"] = [near.cost, near.telling]
    for begin, end, reach in ((BEGIN, END, 7), (BEGIN, END, 4), (0, END, 7), (BEGIN, FRAMES - 1, 7)):
        out["early"][f"{begin} {end} {reach}"] = finger_moments.early_by(
            footage, truth, (0, 1), travel, opening, begin, end, reach
        )
    slow = travel.copy()
    slow[:12] *= 0.05  # of these frames nothing can be asked
    out["early"]["slow"] = finger_moments.early_by(footage, truth, (1, 0), slow, opening, BEGIN, END, 7)
    errors = np.linspace(-0.6, 0.6, 9)
    for frames in (range(2, 11, 2), range(18, 28, 2), range(20, 22)):
        for way in (travel, slow):
            found = finger_moments.own_place(footage, truth, (0, 1), way, errors, frames)
            out["own"][f"{frames} {way is slow}"] = found.astype(int)
    return summed_up(out)


def of_drift() -> dict[str, Any]:
    rng = np.random.default_rng(11)
    place = rng.uniform(0, 150, (40, 2))
    place[:, 1] *= 0.7
    out: dict[str, Any] = {}
    for name, (dx, dy, zoom, turn, odd) in {
        "still": (0, 0, 0, 0, 0), "slides": (2, -1, 0, 0, 0), "zooms": (0.5, 0, 4, 0, 6), "turns": (0, 1, 1, 3, 12),
    }.items():  # fmt: skip
        x, y = place.T / 166 - 0.5
        moved = np.stack([dx + zoom * x - turn * y, dy + zoom * y + turn * x], 1) + rng.normal(0, 0.05, (40, 2))
        moved[:odd] += (9, 4)
        fit = drift.fitted_to(place, moved)
        field = cv2.GaussianBlur(rng.normal(0, 400, (120, 160)).astype(np.float32), (0, 0), 2) + 120
        first = np.clip(field, 0, 255).astype(np.uint8)
        v, u = np.mgrid[0:120, 0:160].astype(np.float32)
        went = drift.motion_of(fit, u, v).astype(np.float32)
        taken = cv2.remap(first, u - went[0], v - went[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros(first.shape, bool)
        mask[10:90, 20:140] = True
        half = cv2.addWeighted(first, 0.5, taken, 0.5, 0)
        told = [drift.explained(first, image, mask, fit) for image in (first, taken, half, 255 - first)]
        out[name] = [fit.solution, fit.width, went, told]
    return summed_up(out)


CASES = {**{name: lambda name=name: of_scene(name) for name in SCENES}, "drift": of_drift}


@pytest.mark.parametrize("case", CASES)
def test_fingers_and_drifts_weigh_what_they_weighed(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
