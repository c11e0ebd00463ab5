# SPDX-License-Identifier: Apache-2.0
"""Every number of comparing two cameras of one world, on the analytic scene's own pictures and on changed ones, against what
was measured before; and what its colours and instances are by definition.

`python tests/test_views_golden.py` writes the numbers anew where a measure was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from golden_values import compare, load, store, summed_up
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import CameraFrame, Episode, open_episode
from retake.core.verdicts import view_colours, view_instances
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.views import ViewGeometry, ViewSettings, compare_views, displacement, likeness

GOLDEN = Path(__file__).parent / "golden" / "verdicts" / "views.json"
SHARE = 5e-3
"""Of a number: another processor rounds differently, nothing more."""
FRAMES, SIZE, WIDTH = 8, (240, 180), 200
CAMERAS = ("front", "wrist")
ASKED = ViewSettings(moments=6, min_points=60, few=5, min_instance=12, min_textured=25, window=7)
KEPT: list[Any] = []
Film = list[np.ndarray]


@lru_cache(maxsize=1)
def episode() -> Episode:
    made = tempfile.TemporaryDirectory(prefix="retake-views-")
    KEPT.append(made)
    make_scene_episode(Path(made.name) / "e", frames=FRAMES, size=SIZE, wrist=True)
    return open_episode(Path(made.name) / "e")


@lru_cache(maxsize=1)
def geometry() -> ViewGeometry:
    return ViewGeometry(episode(), 0, WIDTH)


def grained(view: CameraFrame) -> np.ndarray:
    """A picture with a grain that is fixed to the world."""
    height, width = view.rgb.shape[:2]
    v, u = np.mgrid[0:height, 0:width] + 0.5
    points = view.camera.unproject(np.stack([u, v], -1).reshape(-1, 2), view.depth_m.reshape(-1).astype(float))
    grain = np.sin(points @ np.array([70.0, 50.0, 40.0])) * np.cos(points @ np.array([-40.0, 80.0, 30.0]))
    return np.clip(view.rgb + 40 * grain.reshape(height, width, 1), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def films() -> dict[str, Film]:
    """The simulator's pictures with a grain, so that structure can be told."""
    return {name: [grained(episode().camera_frame(name, t)) for t in range(FRAMES)] for name in CAMERAS}


def changed(film: Film, change: Any) -> Film:
    return [np.clip(change(frame.astype(np.float32)), 0, 255).astype(np.uint8) for frame in film]


TINT = np.array([0.8, 1.0, 1.25], np.float32)
CHANGES = {
    "as recorded": lambda film: film,
    "darker": lambda film: changed(film, lambda f: 0.7 * f),
    "tinted": lambda film: changed(film, lambda f: f * TINT),
    "mirrored": lambda film: [np.ascontiguousarray(f[:, ::-1]) for f in film],
    "late": lambda film: [film[0], *film[:-1]],
    "bright at last": lambda film: [*film[:5], *changed(film[5:], lambda f: 1.6 * f + 30)],
}  # fmt: skip


def pairs() -> dict[str, Any]:
    front, wrist = (films()[name] for name in CAMERAS)
    out: dict[str, Any] = {}
    for name, change in CHANGES.items():
        found = compare_views(episode(), {"front": front, "wrist": change(wrist)}, settings=ASKED, geometry=geometry())
        out[name] = [(p.gain, p.first, p.second, p.measurements) for p in found]
    few = replace(ASKED, least_moments=FRAMES + 1)
    out["too few moments"] = compare_views(
        episode(), {"front": front, "wrist": wrist}, settings=few, geometry=geometry()
    )
    seen, size = geometry().between("front", 3, "wrist", 3), geometry().size("front")
    own = cv2.resize(front[3], size, interpolation=cv2.INTER_AREA)
    other = cv2.resize(wrist[3], size, interpolation=cv2.INTER_AREA)
    out["apart"] = [displacement(own, one, seen, window=8) for one in (other, np.roll(other, 2, 1))]
    out["sizes"] = [list(geometry().size(name)) for name in CAMERAS]
    out["held"] = [geometry().holds(t) for t in (-1, 0, FRAMES - 1, FRAMES)]
    return out


def smooth(seed: int) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(40, 56, 3)).astype(np.float32), (0, 0), 1.5)
    return np.clip(0.3 + 0.4 * field, 0, 1)


def alikeness() -> dict[str, Any]:
    a, b = smooth(1), smooth(2)
    b[:, :20] = 0.3
    masks = [np.indices((40, 56))[1] < width for width in (56, 30, 8)]
    return {
        f"{either} {k} {share}": likeness(a, (1 - share) * a + share * b, mask, ASKED, either=either)
        for either in (False, True) for k, mask in enumerate(masks) for share in (0.0, 0.3, 1.0)
    }  # fmt: skip


def instances() -> dict[str, Any]:
    rng, out = np.random.default_rng(3), {}
    colours = rng.uniform(0.02, 0.6, (5, 3)).astype(np.float32)

    def seen(t: int, count: int, apart: float) -> view_instances.Sight:
        part = rng.integers(0, 5, count)
        noise = rng.uniform(0.9, 1.1, (2, count, 3)).astype(np.float32)
        other = colours[(part + (rng.random(count) < apart)) % 5]
        return view_instances.sight(t, colours[part] * noise[0], other * noise[1])

    for name, counts in {"many": [30] * 9, "few": [4, 9, 3, 2, 8, 1, 7], "one long": [900, 5, 401, 400]}.items():
        for apart in (0.0, 0.4, 1.0):
            sights = [seen(2 * t, count, apart) for t, count in enumerate(counts)]
            out[f"{name} {apart}"] = [
                [len(s.first) for s in sights], view_instances.unlike(sights),
                *(view_instances.compare_instance(sights, together=k, least=n, moments=m)
                  for k, n, m in ((3, 20, 3), (1, 1, len(sights)), (2, 60, len(sights) + 1), (5, 10**6, 1))),
            ]  # fmt: skip
    a, b = (rng.uniform(0, 1, (30, 3)).astype(np.float32) for _ in range(2))
    out["matte"] = view_instances.matte(a, b)
    out["distance"] = [view_instances.distance(100 * a, 100 * b), view_instances.distance(a, a[::-1])]
    return out


CASES = {"pairs": pairs, "likeness": alikeness, "instances": instances}


@pytest.mark.parametrize("case", CASES)
def test_a_comparison_gives_what_it_gave(case: str) -> None:
    assert not compare(summed_up(CASES[case]()), load(GOLDEN)[case], SHARE)


def test_the_numbers_are_of_pairs_that_can_be_told() -> None:
    """A golden of measures that all say nothing would hold nothing."""
    found = load(GOLDEN)["pairs"]
    for number in range(4):
        assert isinstance(found[f"as recorded.0.3.{number}.value"], float), number
    limits = {name: load_settings().threshold(name).limit for name in ("view_colour", "view_structure")}
    assert found["tinted.0.3.0.value"] > found["as recorded.0.3.0.value"]
    assert found["mirrored.0.3.2.value"] > limits["view_structure"] > found["as recorded.0.3.2.value"]
    assert found["late.0.3.3.value"] > found["as recorded.0.3.3.value"]
    assert found["darker.0.0"] > 1.5 * found["as recorded.0.0"]


def test_a_byte_is_darkest_and_brightest_where_it_has_lost_its_colour() -> None:
    grey = np.repeat(view_colours.LINEAR[np.arange(256)][:, None, None], 3, 2)
    kept = np.flatnonzero(view_colours.graded(grey)[:, 0])
    assert (kept.min(), kept.max()) == (view_colours.DARK + 1, view_colours.BRIGHT - 1)
    for channel in range(3):
        lone = np.zeros((1, 1, 3), np.float32)
        lone[..., channel] = view_colours.LINEAR[128]
        assert view_colours.graded(lone).all()
        lone[..., channel] = view_colours.LINEAR[250]
        assert not view_colours.graded(lone).any()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_lab_is_the_lab_of_everybody(red: int, green: int, blue: int) -> None:
    """OpenCV's own conversion of a picture of floats, and its gamma."""
    frame = np.array([[[red, green, blue]]], np.uint8)
    found = view_colours.lab_of_bytes(frame)[0, 0]
    assert found == pytest.approx(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0, 0], abs=0.6)
    light = view_colours.LINEAR[frame]
    if (light @ view_colours.LUMA).item() > 0.009:
        assert view_colours.lightness(light).item() == pytest.approx(found[0], abs=0.05)


if __name__ == "__main__":
    store(GOLDEN, {case: summed_up(make()) for case, make in CASES.items()})
    sys.exit(0)
