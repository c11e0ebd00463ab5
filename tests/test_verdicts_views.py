# SPDX-License-Identifier: Apache-2.0
"""Cameras compared, by hand: which moments agree, how far pictures lie apart, which instance is unlike, which lag fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.verdicts import view_instances, views
from retake.core.verdicts.view_colours import LINEAR, lab
from retake.core.verdicts.views import ViewGeometry, ViewSettings


@pytest.mark.parametrize(
    ("series", "value", "frame"),
    [
        ([], None, None),
        ([np.nan, np.nan], None, None),
        ([np.nan, 3, 5], 4.0, 2),
        ([7.0], 7.0, 0),
        ([1, 1, 9, 2, 3, 3], 3.0, 3),
        ([1, 9, np.nan, 8, 2, 7, 1], 8.0, 1),
        ([6, 4, 1, 1], 5.0, 0),
        ([1, 1, 4, 6], 5.0, 3),
    ],
)
def test_the_worst_moment_is_one_that_its_neighbours_agree_on(
    series: list[float], value: float | None, frame: int | None
) -> None:
    assert views._worst(np.array(series, float)) == (value, frame)


@given(st.floats(-0.45, 0.45), st.integers(1, 5))
@settings(max_examples=8)
def test_a_peak_lies_at_the_vertex_of_its_parabola(at: float, k: int) -> None:
    line = 5 - 0.3 * (np.arange(7) - k - at) ** 2
    assert views._peak(line, k) == pytest.approx(at, abs=1e-6)
    for end in (0, 6):
        assert views._peak(line, end) == 0
    assert views._peak(np.ones(7), k) == 0


def geometry(**given: Any) -> ViewGeometry:
    camera = SimpleNamespace(size=(640, 480), channels=("rgb",), name="front")
    header = SimpleNamespace(camera=lambda name: camera, cameras=[camera])
    episode: Any = type("Episode", (), {"header": header, "__len__": lambda self: 20})()
    return ViewGeometry(episode, **{"start": 5, "width": 320, **given})


def test_a_camera_is_compared_at_a_width_and_in_frames_of_its_episode() -> None:
    assert geometry().size("front") == (320, 240)
    assert geometry(width=640).size("front") == geometry(width=900).size("front") == (640, 480)
    assert [geometry().holds(t) for t in (-6, -5, 0, 14, 15)] == [False, True, True, True, False]


def texture(seed: int = 0, width: int = 120, height: int = 90) -> np.ndarray:
    grey = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 90, (height, width)), (0, 0), 1.5)
    return np.repeat(np.clip(120 + grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def same(height: int = 90, width: int = 120, dx: float = 0.0) -> Any:
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    return SimpleNamespace(
        seen=np.ones((height, width), bool), place=np.dstack([u + np.float32(dx), v]), scale=np.ones((height, width))
    )


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (2, 2)])
def test_a_picture_lies_as_far_beside_another_as_it_was_moved(shift: tuple[int, int]) -> None:
    one = texture()
    other = np.roll(one, shift, (1, 0))
    found = views.displacement(one, other, same())
    assert (
        len(found) == 8 * 5
    )  # windows of 24 px every 12 px, from three px beside the border to three before the other
    assert np.median(found) == pytest.approx(np.hypot(*shift), abs=0.15)


def test_where_nothing_is_seen_or_nothing_shows_no_place_is_told() -> None:
    hidden = same()
    hidden.seen[:] = False
    assert views.displacement(texture(), texture(), hidden).shape == (0,)
    plain = np.full((90, 120, 3), 100, np.uint8)
    assert views.displacement(plain, plain, same()).shape == (0,)
    half = same()
    half.seen[:, 60:] = False
    assert (
        0 < len(views.displacement(texture(), texture(), half)) < len(views.displacement(texture(), texture(), same()))
    )
    assert views.displacement(texture(), texture(9), same()).shape == (0,)  # nothing alike


def light(seed: int) -> np.ndarray:
    return LINEAR[texture(seed)]


def test_likeness_is_the_correlation_of_the_less_alike_quarter_where_both_have_texture() -> None:
    seen = np.ones((90, 120), bool)
    chosen = ViewSettings(min_textured=250)
    one, other = light(1), light(2)
    assert views.likeness(one, one, seen, chosen) == pytest.approx(1, abs=0.01)
    assert (views.likeness(one, other, seen, chosen) or 0) < 0.2
    mixed = one.copy()
    mixed[:, 40:] = other[:, 40:]
    assert (views.likeness(one, mixed, seen, chosen) or 0) < 0.2
    mixed = one.copy()
    mixed[:, 110:] = other[:, 110:]
    assert (views.likeness(one, mixed, seen, chosen) or 0) > 0.95
    flat = np.full_like(one, 0.2)
    assert views.likeness(one, flat, seen, chosen) is None
    assert views.likeness(one, flat, seen, chosen, either=True) == pytest.approx(0, abs=0.05)
    some = np.zeros_like(seen)
    some[20:45, 20:30] = True  # 250 px, but less than 0.6 of most windows around them
    assert views.likeness(one, one, some, chosen) is None
    assert views.likeness(one, one, some, ViewSettings(min_textured=20)) is not None


def pair(**given: Any) -> views._Pair:
    out = views._Pair("front", "hand", False, True, ViewSettings(), [7])
    for name, value in given.items():
        setattr(out, name, value)
    return out


def test_the_moving_camera_is_the_one_whose_frame_may_be_another() -> None:
    moves = [
        [(mover, still) for mover, still, _ in views._Pair("a", "b", one, two, ViewSettings(), []).moves]
        for one, two in ((False, False), (True, False), (False, True), (True, True))
    ]
    assert moves == [[], [("a", "b")], [("b", "a")], [("a", "b"), ("b", "a")]]


@pytest.mark.parametrize(
    ("lags", "value", "note"),
    [
        ({0: [0.9, 0.8, 0.7], -1: [0.5, 0.5, 0.5], 1: [0.6, 0.4, 0.2]}, -0.3, ""),
        ({0: [0.4, 0.4, 0.4], -1: [0.5, 0.5, 0.5], 1: [0.9, 0.8, 0.7]}, 0.4, "hand fits frame +1 best"),
        ({0: [0.4, 0.4, 0.4], -1: [0.6, 0.5, 0.7], 1: [0.3, 0.3, 0.3]}, 0.2, "hand fits frame -1 best"),
        ({0: [0.4, 0.4], -1: [0.6, 0.5], 1: [0.3, 0.3]}, None, "too few moments show the moving camera's way"),
    ],
)
def test_a_lag_is_what_another_frame_fits_better(lags: Any, value: float | None, note: str) -> None:
    found = pair(lags=lags)._lag()
    assert found.value == (None if value is None else pytest.approx(value))
    assert (found.note, found.applies) == (note, value is not None)
    assert not found.absent
    still = pair(lags=lags, moves=[])._lag()
    assert (still.applies, still.absent) == (False, True), "neither camera moves"


def test_structure_is_told_of_three_moments() -> None:
    found = pair(structure=[(2, 0.1), (5, 0.6), (9, 0.4)])._structure(12)
    assert (found.value, found.worst_frame) == (pytest.approx(0.5), 9)
    assert found.series is not None
    assert np.flatnonzero(np.isfinite(found.series)).tolist() == [2, 5, 9]
    assert not pair(structure=[(2, 0.1), (5, 0.6)])._structure(12).applies


def samples(count: int = 3, gain: float = 2.0, other: float = 1.0) -> list[Any]:
    """A grey wall (id 1) and a thing (id 2) of 100 px each, and a link (id 7); the second camera has half of the light, and shows
    the thing in another colour."""
    rng = np.random.default_rng(0)
    out = []
    for t in range(count):
        b = np.tile(np.array([0.1, 0.1, 0.1], np.float32), (300, 1)) * rng.uniform(0.9, 1.1, (300, 1)).astype(
            np.float32
        )
        a = gain * b
        a[100:200] *= np.array([1, other, other], np.float32)
        a[200:] *= np.array([0.2, 1, 3], np.float32)
        ids = np.repeat([1, 2, 7], 100)
        out.append((3 * t, a, b, ids, np.ones(300, bool)))
    return out


def test_a_gain_of_one_camera_is_no_colour_and_another_instance_is_told() -> None:
    found = pair(samples=samples())
    figures = found.figures(9)
    assert (figures.first, figures.second) == ("front", "hand")
    assert figures.gain == pytest.approx(2, abs=0.01)
    colour, instances = figures.measurements[:2]
    assert colour.value == pytest.approx(0, abs=0.2)
    assert instances.value == pytest.approx(0, abs=0.2)  # links are not asked
    worse = pair(samples=samples(other=0.5)).figures(9)
    assert worse.measurements[1].note.startswith("instance 2,")
    assert (worse.measurements[1].value or 0) > 5
    assert worse.measurements[1].series is not None
    assert np.flatnonzero(np.isfinite(worse.measurements[1].series)).tolist() == [0, 3, 6]
    few = pair(samples=samples(2)).figures(9)
    assert few.gain == 1.0
    assert not any(m.applies for m in few.measurements)
    assert {m.name for m in few.measurements} == set(views.NAMES)


def test_of_many_pixels_four_hundred_are_looked_at_evenly() -> None:
    for count, kept in ((1, 1), (400, 400), (401, 201), (800, 400), (801, 267)):
        found = view_instances.sight(3, np.arange(count * 3.0).reshape(-1, 3), np.zeros((count, 3)))
        assert len(found.first) == len(found.second) == kept
        assert found.first[0, 0] == 0
        assert found.t == 3


def seen(*unlike: float, pixels: int = 40) -> list[Any]:
    """Moments whose second picture has more of red by so much."""
    rng = np.random.default_rng(1)
    out = []
    for t, more in enumerate(unlike):
        first = rng.uniform(0.1, 0.3, (pixels, 3)).astype(np.float32)
        out.append(view_instances.Sight(2 * t, first, (first * [1 + more, 1, 1]).astype(np.float32)))
    return out


def test_an_instance_is_judged_by_its_worst_moments_in_a_row() -> None:
    asked = {"together": 2, "least": 60, "moments": 3}
    assert view_instances.compare_instance(seen(0, 0), **asked) is None
    same_ = view_instances.compare_instance(seen(0, 0, 0), **asked)
    assert same_ is not None
    assert same_.value == 0
    found = view_instances.compare_instance(seen(0, 0, 1, 2, 0), **asked)
    assert found is not None
    assert found.frame == 6
    assert [t for t, _ in found.series] == [0, 2, 4, 6, 8]
    assert found.value == pytest.approx(view_instances.unlike(seen(0, 0, 1, 2, 0)[2:4]))
    # Where two moments show too few pixels, more are taken together; of all together as well.
    thin = view_instances.compare_instance(seen(0, 0, 1, 2, 0, pixels=25), **asked)
    assert thin is not None
    assert thin.value == pytest.approx(view_instances.unlike(seen(0, 0, 1, 2, 0, pixels=25)[1:4]), rel=0.5)
    assert view_instances.compare_instance(seen(0, 0, 1, pixels=19), **asked) is None
    assert view_instances.compare_instance(seen(0, 0, 1, pixels=20), **asked) is not None


def test_colours_are_as_far_apart_as_they_must_be_moved_with_lightness_by_half() -> None:
    a = np.array([[50.0, 0, 0], [60, 10, 0], [70, 20, 0]], np.float32)
    assert view_instances.distance(a, a[::-1] + np.array([6, 0, 0], np.float32)) == pytest.approx(3)
    assert view_instances.distance(a, a + np.array([0, 3, -4], np.float32)) == pytest.approx(5)
    assert lab(np.array([[0.2, 0.2, 0.2]], np.float32))[0, 1:] == pytest.approx([0, 0], abs=0.1)


def test_bytes_are_linear_light_as_srgb_defines_it() -> None:
    """IEC 61966-2-1: straight up to 0.04045, a power beyond."""
    for byte in range(256):
        share = byte / 255
        light = share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        assert LINEAR[byte] == np.float32(light)
