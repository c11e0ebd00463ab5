# SPDX-License-Identifier: Apache-2.0
"""Stability by hand: what a change of light, detail or hue amounts to, which cells and frames count, and who votes on drift."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.verdicts import stability
from retake.core.verdicts.settings import load_settings
from retake.core.verdicts.stability import drift_votes

SETTINGS = load_settings().stability
WIDTH, HEIGHT = 320, 240
CELL = 32
"""At least a cell of the votes, working px: a cell may be cut by what is left out."""


def picture(seed: int, shift: tuple[int, int]) -> np.ndarray:
    """Texture in every cell, moved, (H, W, 3)."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (HEIGHT // 8 + 8, WIDTH // 8 + 8)).astype(np.float32)
    whole = cv2.resize(coarse, (WIDTH + 64, HEIGHT + 64), interpolation=cv2.INTER_CUBIC)
    x, y = 32 - shift[0], 32 - shift[1]
    cut = np.clip(whole[y : y + HEIGHT, x : x + WIDTH], 0, 255).astype(np.uint8)
    return np.repeat(cut[..., None], 3, axis=2)


def votes(seed: int, shift: tuple[int, int], *movers: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Of two frames, each with its mover (rows, columns)."""
    labels = np.zeros((2, HEIGHT, WIDTH), np.int16)
    for label, mover in zip(labels, movers, strict=True):
        label[mover] = 1
    footage: Any = SimpleNamespace(frames=[picture(seed, (0, 0)), picture(seed, shift)])
    truth: Any = SimpleNamespace(size=(WIDTH, HEIGHT), labels=labels)
    return drift_votes(footage, truth, 1, SETTINGS)


NOTHING = (slice(0, 0), slice(0, 0))


@given(seed=st.integers(0, 2**16), dx=st.integers(-4, 4), dy=st.integers(-4, 4))
def test_scenery_says_how_far_it_went(seed: int, dx: int, dy: int) -> None:
    place, moved = votes(seed, (dx, dy), NOTHING, NOTHING)
    assert len(place) >= 12
    assert np.median(moved, axis=0) == pytest.approx([dx, dy], abs=0.6)
    assert ((place >= 0) & (place <= [WIDTH + CELL, HEIGHT + CELL])).all()


@given(seed=st.integers(0, 2**16), first=st.booleans(), grown=st.integers(60, 200))
def test_what_a_mover_covers_in_either_frame_has_no_vote(seed: int, first: bool, grown: int) -> None:
    """Its margin (shadow and warp) included; everything else keeps it."""
    mover = (slice(0, HEIGHT), slice(0, grown))
    place, _ = votes(seed, (2, 0), *((mover, NOTHING) if first else (NOTHING, mover)))
    assert len(place)
    assert place[:, 0].min() >= grown + SETTINGS.margin_px - CELL
    assert place[:, 0].max() >= WIDTH - 2 * CELL


@pytest.mark.parametrize(("apart", "told"), [(3, False), (4, True)])
def test_a_margin_is_so_many_pixels_on_either_side(apart: int, told: bool) -> None:
    """Thin movers with room for two margins between them leave nothing; with a pixel more every such pixel votes."""
    labels = np.zeros((2, HEIGHT, WIDTH), np.int16)
    labels[1, :, ::apart] = 1
    footage: Any = SimpleNamespace(frames=[picture(7, (0, 0)), picture(7, (1, 0))])
    truth: Any = SimpleNamespace(size=(WIDTH, HEIGHT), labels=labels)
    settings = replace(SETTINGS, margin_px=1)
    assert bool(len(drift_votes(footage, truth, 1, settings)[0])) is told
    free = stability._scenery_masks(truth, settings)
    assert free[0].all()
    assert free[1].any() == told
    assert free[1, :, 2:-2].sum() == (HEIGHT * len(range(2, WIDTH - 2, 4)) if told else 0)


def test_where_all_is_covered_nobody_votes() -> None:
    place, moved = votes(0, (2, 0), (slice(0, HEIGHT), slice(0, WIDTH)), NOTHING)
    assert place.shape == moved.shape == (0, 2)


def cells(grey: list[tuple[float, float, float]], seen: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Cells of so many frames, each of one colour, of which the first `seen` show scenery."""
    weight = np.zeros((len(grey), 15, 20))
    weight.reshape(len(grey), -1)[:, :seen] = 1
    return np.tile(np.array(grey, float)[:, None, None], (1, 15, 20, 1)), weight


def flashed(frames: int = 6, at: int = 2, by: float = 10.0) -> list[tuple[float, float, float]]:
    return [(100.0 + by * (t == at),) * 3 for t in range(frames)]


def test_a_jump_that_is_undone_is_a_share_of_the_level() -> None:
    """By 10 of 100: the frame differs by a tenth from its neighbours, each of these by a twentieth from theirs."""
    found = stability._flicker(*cells(flashed()), 100.0)
    assert found.series is not None
    assert found.series == pytest.approx([np.nan, 0.05, 0.1, 0.05, 0.0, np.nan], nan_ok=True)
    assert found.value == pytest.approx(np.quantile([0.05, 0.1, 0.05, 0], 0.8))
    assert found.worst_frame == 2
    assert stability._flicker(*cells(flashed()), 50.0).value == pytest.approx(2 * found.value)


@pytest.mark.parametrize(("hidden", "told"), [(0, [2, 3, 4]), (1, [3, 4]), (2, [4]), (4, [1, 2]), (5, [1, 2, 3])])
def test_a_frame_flickers_by_three_views_of_its_cells(hidden: int, told: list[int]) -> None:
    images, weight = cells(flashed())
    weight[hidden] = 0.7
    found = stability._flicker(images, weight, 100.0)
    assert found.series is not None
    assert np.flatnonzero(np.isfinite(found.series)).tolist() == told


@pytest.mark.parametrize("part", [stability._flicker, stability._colour, stability._seams])
def test_scenery_shows_in_thirteen_cells_at_least(part: Any) -> None:
    images = [(100.0, 100.0, 100.0)] * 4 + [(100.0, 80.0, 105.0)] * 4
    assert part(*cells(images, 12), 100.0).value is None
    assert part(*cells(images, 12), 100.0).applies
    assert (part(*cells(images, 13), 100.0).value or 0) > 0


def test_a_lasting_change_of_one_channel_is_a_change_of_colour() -> None:
    """The median of five frames: half of them at the step, all from the next but one on."""
    images = [(100.0, 100.0, 100.0)] * 3 + [(100.0, 80.0, 105.0)] * 2
    found = stability._colour(*cells(images), 100.0)
    assert found.series == pytest.approx([0, 0, 0, 0.2, 0.2])
    assert (found.value, found.worst_frame) == (pytest.approx(0.2), 4)
    alone = stability._colour(*cells([*images[:3], images[3], *images[:3]]), 100.0)
    assert alone.value == 0
    hidden, weight = cells(images)
    weight[0, :, 1:] = 0.7  # of the first frame alone, which all others are compared with
    assert stability._colour(hidden, weight, 100.0).value == pytest.approx(0.2)
    weight[0] = 0.7
    assert stability._colour(hidden, weight, 100.0).value is None


def test_a_seam_is_a_step_between_three_frames_and_the_next_three() -> None:
    images = [(100.0, 100.0, 100.0)] * 5 + [(88.0, 103.0, 100.0)] * 5
    found = stability._seams(*cells(images), 100.0)
    assert found.series == pytest.approx([np.nan] * 3 + [0, 0.12, 0.12, 0.12] + [np.nan] * 3, nan_ok=True)
    assert (found.value, found.worst_frame) == (pytest.approx(0.12), 4)
    for hidden, told in ((0, [4, 5, 6]), (2, [6]), (6, [3]), (9, [3, 4, 5, 6])):
        one, weight = cells(images)
        weight[hidden] = 0.7
        series = stability._seams(one, weight, 100.0).series
        assert series is not None
        assert np.flatnonzero(np.isfinite(series)).tolist() == told


@pytest.mark.parametrize(
    ("sharp", "value", "frame"),
    [
        ([10, 10, 10, 5, 5, 5], 0.5, 3),
        ([10, 10, 10, 5, 10, 10], 0.0, 0),
        ([10, 10, 10, 20, 20], 0.0, 0),
        ([np.nan, np.nan, np.nan, 8, 4], 0.0, 3),
        ([np.nan, 6, 8, 12, 7, 3, 3], 4 / 7, 5),
    ],
)
def test_detail_that_is_lost_is_told_against_the_first_frames(sharp: list[float], value: float, frame: int) -> None:
    found = stability._sharpness(np.array(sharp, float))
    assert (found.value, found.worst_frame) == (pytest.approx(value), frame)


def still(frames: int = 7) -> tuple[list[np.ndarray], Any]:
    """Grey pictures and a robot in the middle of all but the last two."""
    labels = np.zeros((frames, 40, 40), np.uint8)
    labels[:-2, 15:25, 15:25] = 1
    return [np.full((40, 40), 100, np.uint8) for _ in range(frames)], SimpleNamespace(labels=labels, static_camera=True)


MOTION = np.array([9.0, 2, SETTINGS.frozen_motion_px, SETTINGS.frozen_motion_px - 0.1, 2, 2, 2])


def test_a_picture_is_frozen_where_the_robot_should_move_and_nothing_changes_there() -> None:
    """Three px around the robot of this frame or the one before; unlike what changes elsewhere, in units of the contrast (4 at
    least); a robot that rests breaks no row of such frames."""
    greys, truth = still()
    for t in (1, 3, 5):
        greys[t][12:28, 12:28] = 108
    greys[2][12:28, 12:28] = 108
    found = stability._measure_frozen(greys, truth, MOTION, SETTINGS)
    assert found.series == pytest.approx([np.nan, 2, 0, np.nan, 2, 2, np.nan], nan_ok=True)
    assert (found.value, found.worst_frame) == (1.0, 2)
    greys[4] = greys[3]
    found = stability._measure_frozen(greys, truth, MOTION, SETTINGS)
    assert (found.value, found.worst_frame) == (3.0, 5)


def test_a_robot_that_moves_again_begins_another_row() -> None:
    greys, truth = still(9)
    for t in (4, 5, 6):
        greys[t][:] = 100 + 20 * (t - 3)
    greys[4:7] = [np.where(truth.labels[0] > 0, g, 100).astype(np.uint8) for g in greys[4:7]]
    found = stability._measure_frozen(greys, truth, np.full(9, 9.0), SETTINGS)
    assert (found.value, found.worst_frame) == (3.0, 3)


def test_a_picture_that_sways_as_a_whole_is_frozen_unless_the_camera_moves() -> None:
    greys, truth = still()
    greys = [(grey + 8 * (t % 2)).astype(np.uint8) for t, grey in enumerate(greys)]
    found = stability._measure_frozen(greys, truth, MOTION, SETTINGS)
    assert found.series == pytest.approx([np.nan, 0, 0, np.nan, 0, 0, np.nan], nan_ok=True)
    truth.static_camera = False
    greys[1][:20] = 100
    moving = stability._measure_frozen(greys, truth, MOTION, SETTINGS)
    assert moving.series == pytest.approx([np.nan, 1, 1, np.nan, 2, 2, np.nan], nan_ok=True)
    assert not stability._measure_frozen(greys, truth, 0 * MOTION, SETTINGS).applies


def test_the_contrast_of_the_first_picture_is_the_unit_of_what_changes() -> None:
    greys, truth = still()
    greys[0][::2] = 140  # deviation 20
    greys[1:] = [greys[0].copy() for _ in greys[1:]]
    greys[1][12:28, 12:28] += 10
    found = stability._measure_frozen(greys, truth, MOTION, SETTINGS)
    assert found.series is not None
    assert found.series[1] == pytest.approx(10 / 20)


def links(*areas: float, frames: int = 12) -> Any:
    """Two square links on a grey ground, with the areas that are recorded of them."""
    labels = np.zeros((frames, 40, 60), np.uint8)
    labels[:, 10:22, 10:22], labels[:, 10:22, 40:52] = 1, 2
    return SimpleNamespace(labels=labels, robot_parts=[0, 1], area=np.tile(np.array(areas), (frames, 1)))


def dressed(truth: Any, second: tuple[int, int, int], begin: int = 4) -> Any:
    """Grey links, the first of which has another colour from a frame on; odd frames, which nobody looks at, are black."""
    frames = np.full((*truth.labels.shape, 3), 100, np.uint8)
    frames[truth.labels > 0] = 60
    frames[begin:][truth.labels[begin:] == 1] = second
    frames[1::2] = 0
    return type("Footage", (), {"frames": frames, "__len__": lambda self: len(self.frames)})()


IDENTITY = replace(SETTINGS, identity_min_area=40.0)


@pytest.mark.parametrize(("first", "second", "share"), [(100, 300, 1 / 4), (40, 120, 1 / 4), (100, 39.9, 1)])
def test_a_link_of_another_hue_counts_by_its_area(first: float, second: float, share: float) -> None:
    """From greys to shares of 1/2, 1/3, 1/6: 1/3 in all, less what three levels of 180 may be."""
    truth = links(first, second)
    found = stability._identity(dressed(truth, (90, 60, 30)), truth, IDENTITY)
    assert found.value == pytest.approx(share * (1 / 3 - 3 / 180))
    assert found.series is not None
    assert np.flatnonzero(np.isfinite(found.series)).tolist() == [2, 4, 6, 8, 10]
    assert (found.series[2], found.worst_frame) == (0, 4)


def test_links_that_are_never_large_enough_are_not_compared() -> None:
    truth = links(39.0, 12.0)
    found = stability._identity(dressed(truth, (90, 60, 30)), truth, IDENTITY)
    assert (found.value, found.applies) == (None, False)


def test_a_dark_link_may_be_off_by_more_and_has_no_hue_below_twelve_levels() -> None:
    truth = links(100.0, 0.0)
    for colour, grey, apart in (((9, 6, 3), 6, 1 / 3 - 3 / 18), ((4, 1, 1), 2, 4 / 12 - 3 / 12), ((4, 2, 2), 2, 0)):
        film = dressed(truth, colour)
        film.frames[truth.labels == 0] = grey
        film.frames[:4][truth.labels[:4] == 1] = grey
        film.frames[1::2] = 0
        assert stability._identity(film, truth, IDENTITY).value == pytest.approx(apart)


def test_what_spills_over_an_outline_is_taken_off_by_what_of_it_may_be_mixed() -> None:
    """A part of 5 x 5 px has 16 on its rim, of which half of each may show what is around; hue spills over two px: 24."""
    part, ground = np.array([90.0, 60, 30]), np.array([100.0, 120, 200])
    frame = np.tile(ground, (20, 20, 1)).astype(np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[7:12, 8:13] = True
    frame[mask] = part
    hue = ground - ground.mean()
    wanted = [part, part - 0.24 * hue, part - 0.48 * hue]
    wanted += [(part - share * ground) / (1 - share) for share in (0.16, 0.32)]
    found = stability.part_colours(frame, mask)
    assert found is not None
    assert found == pytest.approx(np.clip(wanted, 0, 255))
    assert stability.part_colours(frame, mask & False) is None
    whole = stability.part_colours(frame, mask | True)
    assert whole == pytest.approx(np.repeat(frame.reshape(-1, 3).mean(0)[None], 5, 0))


def test_a_part_at_the_corner_has_its_surroundings_inside_the_picture() -> None:
    frame = np.full((12, 12, 3), 50, np.uint8)
    mask = np.zeros((12, 12), bool)
    mask[:3, 1:4] = True
    frame[mask] = 200
    # 9 px, of which a core of 1 x 2 lies inside of the picture's border; deep inside of that none but the border's.
    found = stability.part_colours(frame, mask)
    assert found is not None
    assert found[0] == pytest.approx([200] * 3)
    share = (9 - 2) / 18
    assert found[3] == pytest.approx([min((200 - share / 2 * 50) / (1 - share / 2), 255)] * 3)


@pytest.mark.parametrize(("textured", "told"), [(52, True), (51, False)])
def test_a_cell_votes_with_a_fifth_of_its_pixels(textured: int, told: bool) -> None:
    flow = np.zeros((16, 32, 2), np.float32)
    flow[..., 0] = np.arange(32)
    mask = np.zeros((16, 32), bool)
    mask[np.unravel_index(np.arange(textured), (16, 16))[0], 16 + np.arange(textured) % 16] = True
    place, moved = stability._votes(flow, mask)
    assert len(place) == int(told)
    if told:
        columns = 16 + np.arange(textured) % 16
        assert place.tolist() == [[24.0, 8.0]]
        assert moved.tolist() == [[np.median(columns), 0.0]]


def test_no_drift_is_told_before_a_moving_camera_or_of_a_black_picture() -> None:
    frames = [np.zeros((HEIGHT, WIDTH), np.uint8)] * 4
    truth: Any = SimpleNamespace(size=(WIDTH, HEIGHT), static_camera=True, px=2.0)
    none = stability._drift(frames, truth, np.ones((4, HEIGHT, WIDTH), bool), SETTINGS)
    assert (none.value, none.applies, none.note) == (None, True, "too little scenery in view")
    truth.static_camera = False
    assert not stability._drift(frames, truth, np.ones((4, HEIGHT, WIDTH), bool), SETTINGS).applies


@given(seed=st.integers(0, 99), dx=st.integers(2, 5), stays=st.booleans())
@settings(deadline=None)
def test_what_moves_behind_the_ground_of_work_is_no_drift(seed: int, dx: int, stays: bool) -> None:
    """A curtain is most of what has edges, and the ground, whose texture is fainter, stays or goes along."""
    first, moved = picture(seed, (0, 0)), picture(seed, (dx, 0))
    ground = np.zeros((HEIGHT, WIDTH), bool)
    ground[2 * HEIGHT // 3 :] = True
    rows = []
    for image, still in ((first, False), (moved, stays), (moved, stays), (moved, stays)):
        shown = np.where(ground[..., None], 96 + (first if still else image) // 4, image)
        rows.append(cv2.cvtColor(shown.astype(np.uint8), cv2.COLOR_RGB2GRAY))
    truth: Any = SimpleNamespace(size=(WIDTH, HEIGHT), static_camera=True, px=2.0)
    work = cv2.resize(ground.astype(np.uint8), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_NEAREST) > 0
    everywhere = np.ones((4, HEIGHT, WIDTH), bool)
    found = stability._drift(rows, truth, everywhere, replace(SETTINGS, drift_step=1), work)
    assert found.value is not None
    assert (found.value > 1.5 * dx) == (not stays)
    if stays:
        assert found.value <= 0.5


@pytest.mark.parametrize(("side", "told"), [(28, "0 cells"), (40, "too little"), (26, "too little")])
def test_a_small_window_of_scenery_has_too_few_cells(side: int, told: str) -> None:
    """Of 400 small pixels no cell need be full, of fewer none is asked."""
    greys = [cv2.cvtColor(picture(1, (0, 0)), cv2.COLOR_RGB2GRAY)] * 2
    scenery = np.zeros((2, HEIGHT, WIDTH), bool)
    scenery[:, 64 : 64 + 2 * side, 64 : 64 + 2 * side] = True
    truth: Any = SimpleNamespace(size=(WIDTH, HEIGHT), static_camera=True, px=2.0)
    found = stability._drift(greys, truth, scenery, replace(SETTINGS, drift_step=1))
    assert found.value is None
    assert "12 needed" in found.note


def test_a_cell_shows_scenery_from_more_than_seven_tenths_on() -> None:
    grey = flashed(12)
    shown, weight = cells(grey)
    parts = (stability._flicker, stability._colour, stability._seams)
    for share, told in ((0.7, False), (0.71, True)):
        seen = np.full_like(weight, np.float32(share))
        assert [part(shown, seen, 100.0).value is not None for part in parts] == [told] * 3
        assert (stability._level(shown[0], seen[0]) != 128) == told
