# SPDX-License-Identifier: Apache-2.0
"""What scenery, robot and light do in films that sway, flash, fade and freeze, step by step, against what was measured before.

`python tests/test_verdicts_stability_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.verdicts import load_settings, stability
from retake.core.verdicts.footage import Footage

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "stability.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
SETTINGS = load_settings().stability
WIDTH, HEIGHT, FRAMES = 160, 120, 19
FILMS: dict[str, dict[str, Any]] = {
    "plain": {}, "sways": {"sway": 0.12}, "zooms": {"zoom": 0.004}, "flashes": {"flash": 0.2}, "reddens": {"red": 0.02},
    "cut": {"cut": 9}, "blurs": {"blur": 0.08}, "freezes": {"freeze": (5, 11)}, "fades": {"fade": 0.055}, "dyed": {"dyed": 7},
    "moving": {"static": False, "freeze": (4, 8)}, "covered": {"wide": 100}, "nearly covered": {"wide": 66},
}  # fmt: skip
ASKED = ("_votes", "_levelled", "_coherent", "explained", "_level", "_median", "part_colours")


def noise(seed: int, blur: float = 1.5) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), blur)
    return (field / field.std())[..., None]


def film(
    sway: float = 0, zoom: float = 0, flash: float = 0, red: float = 0, cut: int = FRAMES, blur: float = 0, wide: int = 12,
    freeze: tuple[int, int] = (0, 0), fade: float = 0, dyed: int = FRAMES, *, static: bool = True,
) -> tuple[Footage, Any]:  # fmt: skip
    """A robot of two links before textured scenery; the second is dark, the first ends at the picture's border."""
    world = (1 + 0.2 * noise(1) + 0.1 * noise(2, 6.0)) * (120, 112, 104)
    labels, frames = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), []
    for t in range(FRAMES):
        M = np.array([[1 + zoom * t, 0, -sway * t], [0, 1 + zoom * t, 0.4 * sway * t]], np.float32)
        image = cv2.warpAffine(world, M, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        if blur:
            image = cv2.GaussianBlur(image, (0, 0), 0.3 + blur * t)
        x = 10 + 3 * t
        for k, (box, colour) in enumerate(
            ((np.s_[20:90, x : x + wide], (60, 90, 170)), (np.s_[84:120, x - 4 : x + 22], (22, 30, 16)))
        ):
            labels[t][box] = k + 1
            image[box] = np.array(colour if t < dyed or k else (90, 90, 130)) * (1 + 0.1 * noise(3)[box])
        image = image * (1 + flash * (t % 3 == 1) * (t > 5)) * (1 - fade * t) * (1 + red * t, 1, 1)
        if t >= cut:
            image = image * (1.1, 0.98, 0.9)
        image = np.clip(image + np.random.default_rng(t).normal(0, 1, image.shape), 0, 255).astype(np.uint8)
        frames.append(frames[-1] if freeze[0] < t < freeze[1] else image)
    truth = SimpleNamespace(
        object_parts=[],
        labels=labels, static_camera=static, size=(WIDTH, HEIGHT), px=2.0, robot_parts=[0, 1],
        area=np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float),
    )  # fmt: skip
    return Footage(np.stack(frames), frames[0].astype(np.float32), np.ones((HEIGHT, WIDTH), bool), 1.0), truth


def of_film(name: str) -> dict[str, Any]:
    footage, truth = film(**FILMS[name])
    asked: dict[str, list[Any]] = {function: [] for function in ASKED}

    def noted(function: str) -> Any:
        plain = getattr(stability, function)

        def heard(*given: Any) -> Any:
            out = plain(*given)
            asked[function].append([given, out])
            return out

        return heard

    motion = np.where(np.arange(FRAMES) % 7 == 3, SETTINGS.frozen_motion_px * 0.99, SETTINGS.frozen_motion_px)
    with pytest.MonkeyPatch.context() as patched:
        for function in ASKED:
            patched.setattr(stability, function, noted(function))
        found = stability.measure_stability(footage, truth, motion, SETTINGS)
    steps = {function: [len(calls), *calls[1::4]] for function, calls in asked.items()}
    votes = [stability.drift_votes(footage, truth, t, SETTINGS) for t in (0, 12)]
    return summed_up({"found": {m.name: m for m in found}, "steps": steps, "votes": votes})


CASES = {name: lambda name=name: of_film(name) for name in FILMS}


@pytest.mark.parametrize("case", CASES)
def test_a_film_is_as_stable_as_it_was(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


@pytest.mark.parametrize(("drift", "went", "told"), [
    (0.5, 0.0, 0.5), (0.49, 1.0, 0.49), (4.0, 1.0, 4.0), (4.0, 0.5, 4.0), (4.0, 0.25, 0.5), (4.0, 0.375, 2.0), (0.6, 0.3, 0.5),
])  # fmt: skip
def test_a_drift_counts_as_far_as_the_pixels_went_along(
    monkeypatch: pytest.MonkeyPatch, drift: float, went: float, told: float
) -> None:
    """From half a px of the recording on; a quarter of the way is none, half the way is all."""
    footage, truth = film()
    asked: list[float] = []
    monkeypatch.setattr(stability, "_coherent", lambda place, moved: drift / 4)
    monkeypatch.setattr(stability, "explained", lambda *given: asked.append(went) or went)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in footage.frames]
    found = stability._drift(greys, truth, stability._scenery_masks(truth, SETTINGS), SETTINGS)
    assert found.value == pytest.approx(told)
    assert found.worst_frame == 0
    assert bool(asked) == (drift > 0.5)


@pytest.mark.parametrize(
    ("looks", "told"), [([6.0], 6.0), ([6.0, 2.0], 2.0), ([2.0, 6.0, 4.0], 4.0), ([1.0, 3.0, 3.0], 3.0)]
)
def test_a_drift_lasts_for_two_looks_where_there_are_two(
    monkeypatch: pytest.MonkeyPatch, looks: list[float], told: float
) -> None:
    footage, truth = film()
    values = iter(looks)
    monkeypatch.setattr(stability, "_coherent", lambda place, moved: next(values) / 4)
    monkeypatch.setattr(stability, "explained", lambda *given: 1.0)
    count = (len(looks) - 1) * SETTINGS.drift_step + 1
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in footage.frames[:count]]
    found = stability._drift(greys, truth, stability._scenery_masks(truth, SETTINGS), SETTINGS)
    assert found.value == pytest.approx(told)
    assert np.flatnonzero(np.isfinite(found.series)).tolist() == list(range(0, count, SETTINGS.drift_step))


def test_a_robot_that_hardly_shows_is_no_other_one() -> None:
    footage, truth = film()
    truth.area[:] = SETTINGS.identity_min_area - 0.01
    none = stability._identity(footage, truth, SETTINGS)
    assert (none.name, none.value, none.note, none.applies) == (
        "robot_identity", None, "robot never visible long enough", False,
    )  # fmt: skip
    truth.area[:] = SETTINGS.identity_min_area
    assert stability._identity(footage, truth, SETTINGS).value is not None


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
