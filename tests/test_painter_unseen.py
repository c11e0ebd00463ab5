# SPDX-License-Identifier: Apache-2.0
"""What no first frame shows of a thing: drawn after what they show of it, fixed to the world, alike for all cameras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overhead import PACKET, TABLE, overhead, points

from retake.core.episode import Instance
from retake.core.painter import matting, unseen
from retake.core.painter.matting import Matte
from retake.core.painter.stills import Still
from retake.core.painter.unseen import Unseen, largest_rectangle, mirrored
from retake.core.variants.base import SourceFrame

SHELF = Instance(5, "/World/Shelf", "shelf")
WOOD, GROOVE = np.array([180, 130, 80]), np.array([110, 70, 40])
ALL = np.ones(65536, bool)
UP = np.array([[0.0], [0], [1]], np.float32)


@pytest.fixture(autouse=True)
def without_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting, "add_movers", lambda *given: None)


def boards(source: SourceFrame, period: int = 8) -> np.ndarray:
    """A first frame: boards along the rows, two columns of each a groove."""
    frame = np.tile(WOOD, (*source.instance_ids.shape, 1))
    frame[:, np.arange(frame.shape[1]) % period < 2] = GROOVE
    return frame.astype(np.uint8)


def grey(value: int = 120) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def moved(by: int, **given: object) -> SourceFrame:
    """The camera so many pixels of the table further right."""
    return overhead(static=False, eye=(0.02 * by, 0.0), **{"rgb": grey(), **given})  # type: ignore[arg-type]


def seen_by_none(by: int = 20) -> np.ndarray:
    """Its last columns after that move."""
    return Matte(moved(0), boards(moved(0))).render(moved(by))[:, -by:]


def test_a_surface_goes_on_with_its_own_tone_and_texture() -> None:
    fill = seen_by_none().astype(float)
    share = 0.75 * WOOD + 0.25 * GROOVE
    assert np.abs(fill.mean((0, 1)) - share).max() < 12
    # Grooves of the same period, about as deep.
    profile = fill[4:-4].mean((0, 2))
    assert np.ptp(profile[4:]) > 0.6 * np.ptp([WOOD.mean(), GROOVE.mean()])
    strength = np.abs(np.fft.rfft(profile[4:] - profile[4:].mean(), 64))
    assert abs(int(strength[2:].argmax()) + 2 - 8) <= 1  # of 64: a period of 8
    assert np.ptp(fill[4:-4], axis=0).max() < 8, "nothing runs across the boards"


def test_beyond_its_edge_a_texture_is_mirrored() -> None:
    """To a cell or two: bands of many widths, of which no place is like another."""
    bands = np.cumsum(np.random.default_rng(3).integers(3, 9, 20))
    frame = np.full((48, 64, 3), 90, np.uint8)
    frame[:, np.searchsorted(bands, np.arange(64), "right") % 2 == 0] = 160
    out = Matte(moved(0), frame).render(moved(20))[8:-8].astype(float).mean((0, 2))
    before = out[:44][::-1]
    alike = [np.corrcoef(out[44 + 5 : 44 + 19], before[5 + lag : 19 + lag])[0, 1] for lag in range(-3, 4)]
    assert max(alike) > 0.85, alike


def test_what_was_filled_in_stays_where_it_is_in_the_world() -> None:
    matte = Matte(moved(0), boards(moved(0)))
    near, far = (matte.render(moved(by)).astype(int) for by in (12, 17))
    assert np.abs(near[:, -12:] - far[:, -17:-5]).max() <= 1
    again = Matte(moved(0), boards(moved(0))).render(moved(12))
    assert np.array_equal(near, again)


def test_what_the_simulation_shows_darker_or_lighter_is_so_within_bounds() -> None:
    plain = seen_by_none().astype(float)
    for value, share in ((60, 76 / 136), (150, 166 / 136), (5, 0.4), (255, 1.6)):
        rgb = grey()
        rgb[:, -20:] = value
        fill = Matte(moved(0), boards(moved(0))).render(moved(20, rgb=rgb))[:, -20:]
        assert np.abs(fill - np.clip(plain * share, 0, 255)).max() <= 2


def test_where_a_thing_stood_nothing_of_its_outline_is_left() -> None:
    """Painted outlines are a pixel wider than the simulated ones."""
    packet = np.s_[12:28, 20:36]
    first = moved(0, plates=((PACKET, packet, 0.0),))
    frame = boards(first)
    frame[11:29, 19:37] = (250, 20, 20)
    gone = moved(0, packet=(9.0, 0.0, 0.1))
    out = Matte(first, frame).render(gone)
    assert out[..., 0].max() <= 190
    assert np.abs(out[12:28, 20:36].mean((0, 1)) - (0.75 * WOOD + 0.25 * GROOVE)).max() < 15
    away = np.ones(out.shape[:2], bool)
    away[9:31, 17:39] = False
    assert np.array_equal(out[away], frame[away])


@pytest.mark.parametrize("columns", [9, 10, 11])
def test_a_thing_is_known_from_enough_pixels_of_all_cameras_on(columns: int) -> None:
    """Two pixels at its border are blends: of 14 rows 10 count. What the other camera shows is first brought to the one's
    brightness."""
    scene = [overhead(plates=((5, np.s_[20:34, 20 : 24 + width], 0.0),), rgb=grey()) for width in (10, columns)]
    stills = [Still(s, np.full((48, 64, 3), 100 * (k + 1), np.uint8), (1, 0.5)[k]) for k, s in enumerate(scene)]
    known_of = Unseen(stills, ALL)
    assert known_of.sides.keys() == ({TABLE, 5} if columns >= 10 else {TABLE})
    at = np.array([[7.0], [7], [0]], np.float32)
    for instance, known in ((5, columns >= 10), (TABLE, True), (9, False)):
        found, told = known_of.colours(at, UP, np.array([instance], np.uint16), grey()[0, :1])
        assert told.tolist() == [known]
        assert not known or np.abs(found.astype(int) - 100).max() <= 1
    assert Unseen(stills, np.arange(65536) == 5).sides.keys() == ({5} if columns >= 10 else set())


def test_it_is_told_alike_whichever_camera_asks() -> None:
    one, two = moved(0), replace(moved(40), camera_name="hand")
    stills = [Still(one, boards(one)), Still(two, np.roll(boards(two), 3, 1))]
    at = points(moved(90)).reshape(-1, 3).T.astype(np.float32)
    ids, rgb = np.full(at.shape[1], TABLE, np.uint16), grey().reshape(-1, 3)
    normals = np.repeat(UP, at.shape[1], 1)
    found, other = (Unseen(order, ALL).colours(at, normals, ids, rgb)[0] for order in (stills, stills[::-1]))
    assert np.abs(found.astype(int) - other).max() <= 1
    assert len(np.unique(found)) > 8


def test_a_side_that_was_not_seen_looks_as_the_one_that_was() -> None:
    source = moved(0)
    known_of = Unseen([Still(source, boards(source))], ALL)
    rng = np.random.default_rng(0)
    at = rng.uniform(-0.5, 0.5, (3, 4000)).astype(np.float32)
    ids, rgb = np.full(4000, TABLE, np.uint16), grey()[0, :1].repeat(4000, 0)
    below = np.repeat(np.array([[1.0], [0.2], [0.4]], np.float32), 4000, 1)
    found, known = known_of.colours(at, below, ids, rgb)
    assert known.all()
    assert np.abs(found.mean(0) - (0.75 * WOOD + 0.25 * GROOVE)).max() < 6
    assert found[:, 0].std() > 10
    far = known_of.colours(1e5 * at, np.repeat(UP, 4000, 1), ids, rgb)[0]
    assert np.abs(far.mean(0) - (0.75 * WOOD + 0.25 * GROOVE)).max() < 10


def test_sides_are_told_apart_by_their_normals() -> None:
    source = moved(0)
    normals = source.normals.copy()
    normals[:, 40:] = (-23200, 0, 23100)
    frame = np.full((48, 64, 3), 60, np.uint8)
    frame[:, 40:] = 180
    known_of = Unseen([Still(replace(source, normals=normals), frame)], ALL)
    sides = known_of.sides[TABLE]
    assert [side.axes for side in sides.values()] == [(1, 2), (0, 1), (0, 1)]
    assert [round(float(side.mean[0])) for side in sides.values()] == [180, 60, 60]


def test_of_a_floor_that_reaches_to_the_horizon_what_is_near_is_laid_out() -> None:
    """Cells stay near the size of most pixels: 1 cm here, the floor's end is 900 m away."""
    x, y = (np.arange(-40, 40) * 0.01 for _ in "xy")
    near = np.stack([*np.meshgrid(x, y), np.zeros((80, 80))]).reshape(3, -1)
    far = np.stack([np.geomspace(1, 900, 400), np.geomspace(1, 300, 400), np.zeros(400)])
    at = np.concatenate([near, far], 1).astype(np.float32)
    painted = np.where(np.floor(at[0] / 0.08) % 2 == 0, 60, 180).astype(np.float32) * np.ones((3, 1), np.float32)
    pixel_m = np.where(np.arange(at.shape[1]) < 6400, 0.01, 5).astype(np.float32)
    side = unseen._side((0, 1), at, pixel_m, painted, painted[0])
    assert side.cell <= 0.0376
    assert max(side.tone.shape) <= unseen.LARGEST + 2 * (3 * unseen.TONE[1] + 1)
    found = side.at(near.astype(np.float32), True)[:, 0]
    assert np.corrcoef(found, painted[0, :6400])[0, 1] > 0.7


# -- parts --------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.floats(-60, 60))
def test_a_row_is_mirrored_at_both_ends_over_and_over(length: int, x: float) -> None:
    at = np.array([x, x + 2 * length, -1 - x], np.float32)
    found = mirrored(at, length)
    assert np.allclose(found, found[0], atol=1e-4)
    assert (found >= -0.5 - 1e-4).all()
    assert (found <= length - 0.5 + 1e-4).all()
    inside = np.arange(length, dtype=np.float32)
    assert np.array_equal(mirrored(inside, length), inside)


@settings(max_examples=60)
@given(st.integers(0, 2**31 - 1), st.integers(1, 7), st.integers(1, 7), st.floats(0.3, 1.0))
def test_the_largest_rectangle_is_what_trying_all_of_them_finds(seed: int, h: int, w: int, share: float) -> None:
    on = np.random.default_rng(seed).random((h, w)) < share
    sizes = [
        (y1 - y0) * (x1 - x0)
        for y0 in range(h) for y1 in range(y0 + 1, h + 1) for x0 in range(w) for x1 in range(x0 + 1, w + 1)
        if on[y0:y1, x0:x1].all()
    ]  # fmt: skip
    x0, y0, x1, y1 = largest_rectangle(on)
    if on.any():
        assert on[y0:y1, x0:x1].all()
        assert (y1 - y0) * (x1 - x0) == max(sizes)
    else:
        assert (x0, y0, x1, y1) == (0, 0, 1, 1)
