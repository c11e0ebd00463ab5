# SPDX-License-Identifier: Apache-2.0
"""A red square on a grey table: where it is found, how clearly, what is a second one, and which scenery has its colours."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.verdicts import tracking
from retake.core.verdicts.footage import Footage, first_scenery

WIDTH, HEIGHT, FRAMES = 96, 72, 9
HALF = (WIDTH // 2, HEIGHT // 2)
RED, GREY = (200, 40, 30), (120, 125, 130)


def scene(
    apart: dict[int, tuple[int, int]] | None = None, side: int = 12, copies: dict[int, tuple[int, int]] | None = None, *,
    static: bool = True,
) -> tuple[Footage, Any]:  # fmt: skip
    """A square that goes 2 px to the right per frame, shown beside its place in some frames; copies, two rows
    less high, by their corners (x, y)."""
    rng = np.random.default_rng(4)
    ground = np.clip(np.array(GREY) + rng.normal(0, 3, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
    frames, labels = np.repeat(ground[None], FRAMES, 0), np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    centroid = np.zeros((FRAMES, 2, 2))
    for t in range(FRAMES):
        x, y = 20 + 2 * t, 30
        dx, dy = (apart or {}).get(t, (0, 0))
        labels[t, y : y + side, x : x + side] = 2
        labels[t, 60:70, 5:15] = 1
        frames[t, 60:70, 5:15] = 60
        frames[t, y + dy : y + dy + side, x + dx : x + dx + side] = RED
        if t in (copies or {}):
            cx, cy = (copies or {})[t]
            frames[t, cy : cy + side - 2, cx : cx + side] = RED
        centroid[t, 1] = x + (side - 1) / 2, y + (side - 1) / 2
    area = np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float)
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, :, 2, 3] = 1.0
    namespace = type("Truth", (SimpleNamespace,), {"__len__": lambda self: FRAMES})
    truth = namespace(
        labels=labels, size=(WIDTH, HEIGHT), area=area, centroid=centroid, static_camera=static, object_parts=[],
        T_camera_world=np.tile(np.eye(4), (FRAMES, 1, 1)), T_world_part=poses, px=2.0,
        others=lambda t, part: (labels[t] > 0) & (labels[t] != part + 1),
    )  # fmt: skip
    return Footage(frames, ground.astype(np.float32), np.full((HEIGHT, WIDTH), static), 1.0), truth


def test_an_object_in_its_place_is_found_there_as_clearly_as_in_the_first_frame() -> None:
    footage, truth = scene()
    found = tracking.track(footage, truth, 1)
    assert found is not None
    assert np.linalg.norm(found.found - truth.centroid[:, 1], axis=1).max() < 0.5
    assert found.expected is not truth.centroid
    assert (found.here > 0.9).all()
    assert (np.abs(found.best - found.here) < 0.05).all()
    assert (found.second < 0.1).all()
    assert found.reference == found.here[0]
    assert found.part == 1
    inside = found.likelihood[3, 17:19, 15:17]  # of the half-size picture: the square begins at (13, 15) there
    assert (inside > 0.9).all()
    assert (found.likelihood[3, :10] < 0.1).all()


def test_what_a_film_is_looked_through_by_may_be_worked_out_before() -> None:
    footage, truth = scene(copies={5: (66, 10), 6: (66, 10), 7: (66, 10)})
    seen = tracking.seen_in(footage, truth)
    alone, shared = (tracking.track(footage, truth, 1, None, given) for given in (None, seen))
    assert alone is not None
    assert shared is not None
    for name in ("found", "here", "best", "second", "likelihood"):
        assert np.array_equal(getattr(alone, name), getattr(shared, name))


@pytest.mark.parametrize("shift", [(8, -6), (-10, 4), (30, 10)])
def test_an_object_elsewhere_is_found_where_it_is(shift: tuple[int, int]) -> None:
    footage, truth = scene(dict.fromkeys((4, 5, 8), shift))
    found = tracking.track(footage, truth, 1)
    assert found is not None
    for t in range(FRAMES):
        away = np.array(shift) if t in (4, 5, 8) else np.zeros(2)
        assert found.found[t] - found.expected[t] == pytest.approx(away, abs=0.6)
        assert (found.here[t] > 0.6) == (t not in (4, 5, 8))
        assert found.best[t] > 0.8


def test_a_copy_is_a_second_one_where_it_stands() -> None:
    footage, truth = scene(copies={5: (66, 10), 6: (66, 10)})
    found = tracking.track(footage, truth, 1)
    assert found is not None
    assert [t for t in range(FRAMES) if found.second[t] > 0.5] == [5, 6]
    assert found.second_at[5] == pytest.approx([66 + 5.5, 10 + 4.5], abs=1.5)
    assert np.linalg.norm(found.found - found.expected, axis=1).max() < 0.5


def mean_scenery(frames: np.ndarray, truth: Any) -> np.ndarray:
    """Of each pixel over the frames that show scenery there."""
    shown = (truth.labels == 0)[..., None]
    return ((frames * shown).sum(0) / np.maximum(shown.sum(0), 1)).astype(np.float32)


@pytest.mark.parametrize("begin", [3, 4, 6])
def test_a_copy_that_stands_there_in_most_frames_is_no_scenery(begin: int) -> None:
    """The mean over all frames that show its place would know it."""
    shown = range(begin, FRAMES)
    footage, truth = scene(copies=dict.fromkeys(shown, (66, 10)))
    mean = replace(footage, scenery=mean_scenery(footage.frames, truth))
    found = tracking.track(mean, truth, 1)
    assert found is not None
    assert [t for t in range(FRAMES) if found.second[t] > 0.5] == list(shown)
    spoilt, other = first_scenery(mean, truth)
    assert other[12:18, 68:76].all()
    assert not other[40:].any()
    assert np.abs(spoilt - footage.scenery)[12:18, 68:76].max() < 1


def test_scenery_in_another_light_keeps_its_hue() -> None:
    footage, truth = scene()
    lit = footage.frames.astype(np.float32)
    lit[4:, :40, 50:] *= 0.55  # a shadow that comes and stays
    film = replace(footage, frames=lit.astype(np.uint8), scenery=mean_scenery(lit, truth))
    scenery, other = first_scenery(film, truth)
    assert not other.any()
    assert (scenery == film.scenery).all()


def test_what_the_first_frame_showed_already_is_no_second_one() -> None:
    footage, truth = scene(copies=dict.fromkeys(range(FRAMES), (66, 10)))
    found = tracking.track(footage, truth, 1)
    assert found is not None
    assert (found.second < 0.1).all()


def test_a_frame_that_hardly_shows_an_object_is_left_out_and_a_first_one_leaves_out_all() -> None:
    footage, truth = scene()
    truth.area[:, 1] = [30, 29, 30, 200, 144, 144, 144, 144, 29.9]
    found = tracking.track(footage, truth, 1)
    assert found is not None
    assert np.flatnonzero(np.isnan(found.here)).tolist() == [1, 8]
    for values in (found.best, found.second, found.found[:, 0], found.second_at[:, 1]):
        assert np.flatnonzero(np.isnan(values)).tolist() == [1, 8]
    truth.area[0, 1] = 29.9
    assert tracking.track(footage, truth, 1) is None


def test_of_a_moving_camera_every_other_frame_is_searched() -> None:
    footage, truth = scene(static=False)
    found = tracking.track(footage, truth, 1)
    assert found is not None
    assert np.flatnonzero(np.isfinite(found.best)).tolist() == [0, 2, 4, 6, 8]


def test_an_object_that_is_gone_has_nothing_like_it() -> None:
    footage, truth = scene()
    frames = footage.frames.copy()
    frames[4] = footage.scenery.astype(np.uint8)
    frames[4][truth.labels[4] == 1] = 60
    found = tracking.track(replace(footage, frames=frames), truth, 1)
    assert found is not None
    assert found.best[4] < 0.1 * found.reference
    assert found.best[5] > 0.9 * found.reference


@given(
    rows=st.tuples(st.integers(0, 35), st.integers(1, 12)), columns=st.tuples(st.integers(0, 47), st.integers(1, 12)),
    size=st.tuples(st.sampled_from([3, 7, 10]), st.sampled_from([5, 8])),
)  # fmt: skip
@settings(max_examples=8)
def test_a_window_of_a_correlation_is_that_part_of_it(rows: Any, columns: Any, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    image, kernel = rng.random((36, 48)).astype(np.float32), rng.normal(size=size).astype(np.float32)
    window = slice(rows[0], min(sum(rows), 36)), slice(columns[0], min(sum(columns), 48))
    whole = tracking._filtered(image, kernel, None)
    assert tracking._filtered(image, kernel, window) == pytest.approx(whole[window], abs=1e-4)


def test_a_mask_scores_one_where_it_is_and_minus_one_where_only_its_surroundings_are_likely() -> None:
    mask = np.zeros((36, 48), np.float32)
    mask[10:17, 20:30] = 1
    score, centre = tracking._search(mask, mask)
    assert score[centre[1], centre[0]] == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(int(score.argmax()), score.shape) == (centre[1], centre[0])
    ring = np.zeros_like(mask)
    ring[8:19, 18:32] = 1
    assert tracking._search(ring - mask, mask)[0][centre[1], centre[0]] == pytest.approx(-1, abs=1e-5)
    wider = np.zeros_like(mask)
    wider[7:20, 17:33] = 1
    assert tracking._search(wider - ring, mask)[0][centre[1], centre[0]] == pytest.approx(0, abs=1e-5)
    moved, _ = tracking._search(np.roll(mask, (3, -5), (0, 1)), mask)
    assert moved[centre[1] + 3, centre[0] - 5] == pytest.approx(1, abs=1e-5)
    # Of a pixel that the object covers by a quarter or less no kernel is as large.
    faint = mask.copy()
    faint[:, 40:] = 0.25
    assert tracking._search(mask, faint)[1].tolist() == centre.tolist()


def test_a_window_is_cut_by_the_picture_and_the_best_place_is_a_row_and_a_column() -> None:
    for centre, reach, wanted in (
        ((10, 5), 3, (2, 9, 7, 14)),
        ((1, 0), 4, (0, 5, 0, 6)),
        ((47, 35), 2, (33, 36, 45, 48)),
    ):
        rows, columns = tracking._window(centre, reach, (36, 48))
        assert (rows.start, rows.stop, columns.start, columns.stop) == wanted
    score = np.zeros((36, 48))
    score[4, 31] = 2
    assert tracking._argmax(score) == (4, 31)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_a_colour_has_the_bin_of_its_brightness_and_of_two_differences(red: int, green: int, blue: int) -> None:
    code = tracking._codes(np.full((3, 3, 3), (red, green, blue), np.uint8))[1, 1]
    luma, rest = divmod(int(code), 24 * 24)
    first, second = divmod(rest, 24)
    assert luma == (red + green + blue) * 12 // 766
    assert first == (red - green + 256) * 24 // 512
    assert second == ((red + green) // 2 - blue + 256) * 24 // 512


@pytest.mark.parametrize("step", [1, 2])
def test_scenery_of_its_colours_is_what_shows_in_three_quarters_of_the_frames_that_show_it(step: int) -> None:
    count = 10 * step + (step > 1) * 12  # 10 frames, or every other of 32
    table = np.linspace(0, 1, 33).astype(np.float32)
    rng = np.random.default_rng(11)
    codes = [np.repeat(np.repeat(rng.integers(0, 33, (6, 8)), 2, 0), 2, 1) for _ in range(count)]
    labels = np.zeros((count, 12, 16), np.uint8)
    labels[:, :, :2], labels[: count - 3 * step, :, 2:4], labels[: count - 2 * step, :, 4:6] = 1, 3, 2
    labels[::step][:5, 4:6, 8:10] = 1
    truth: Any = SimpleNamespace(static_camera=True, labels=labels)
    found = tracking._lasting(codes, table, truth, (8, 6))
    for row, column in np.ndindex(6, 8):
        rows = [t for t in range(0, count, step) if not labels[t, 2 * row, 2 * column]]
        shown = sorted(table[codes[t][2 * row, 2 * column]] for t in rows)
        assert found[row, column] == pytest.approx(shown[(len(shown) - 1) // 4] if len(shown) >= 3 else 1)
    truth.static_camera = False
    assert not tracking._lasting(codes, table, truth, (8, 6)).any()


def test_clutter_is_what_the_first_frame_and_the_scenery_have_of_the_colours_but_where_the_object_stood() -> None:
    table = np.array([0.0, 0.4, 0.9], np.float32)
    first, scenery = np.zeros((2, 12, 40), int)
    first[:, 0:2], first[:, 8:10] = 1, 2
    scenery[:, 16:18], scenery[:, 24:26], scenery[:, 32:34] = 1, 1, 2
    known = np.ones((12, 40), bool)
    known[:, 24:26] = False
    start, lasting = np.zeros((2, 6, 20), np.float32)
    start[:, 4] = 1
    start[:, 16] = 1
    lasting[:, 12] = 0.3
    found = tracking._clutter(table, lasting, first, scenery, known, start > 0, (20, 6))
    wanted = np.zeros(20)
    wanted[[0, 1]], wanted[[7, 8, 9]], wanted[[11, 12, 13]] = 0.4, 0.4, 0.3
    assert found == pytest.approx(np.tile(wanted, (6, 1)))


def test_colours_that_nobody_has_are_nobodys_and_its_own_are_likely() -> None:
    found = tracking._posterior(np.array([0.0, 0.5, 0.5, 0.0]), np.array([0.0, 0.0, 0.5, 0.5]))
    assert found == pytest.approx([0, 1, 0.5, 0], abs=1e-3)
    assert tracking._posterior(np.array([1e-4, 1.0]), np.zeros(2))[0] == pytest.approx(0.5)


def test_where_an_object_ever_is_counts_fifteen_px_around() -> None:
    labels = np.zeros((3, 60, 80), np.uint8)
    labels[0, 20, 30], labels[2, 20, 40], labels[1, 50, 70] = 2, 2, 1
    found = tracking._swept(SimpleNamespace(labels=labels), 1)  # type: ignore[arg-type]
    rows, columns = np.nonzero(found)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 35, 15, 55)
    assert found.sum() == 31 * 41


@pytest.mark.parametrize(("strength", "asked"), [(0.2, False), (0.21, True)])
def test_a_copy_on_the_way_must_not_have_stood_there_before(
    monkeypatch: pytest.MonkeyPatch, strength: float, asked: bool
) -> None:
    """What looks as it did is taken off once a copy is clear enough to be one; places are those of the working picture."""
    monkeypatch.setattr(
        tracking, "_seen_elsewhere", lambda scene, t, likely, before: np.float32(0.25) * np.ones_like(likely)
    )
    news: list[np.ndarray] = []

    def on_the_way(t: int, shown: np.ndarray, *_: Any) -> tuple[float, np.ndarray]:
        news.append(shown.copy())
        return strength / len(news), np.array([3.0, 4.0])

    before = np.zeros((4, 5), bool)
    before[1] = True
    copies: Any = SimpleNamespace(on_the_way=on_the_way, as_before=lambda t, earlier, scene: before)
    likely, mask = np.full((4, 5), 0.75, np.float32), np.zeros((4, 5), np.float32)
    likely[0] = 0.1
    found, where = tracking._copy_on_the_way(copies, None, 8, likely, {0: mask}, mask, mask)  # type: ignore[arg-type]
    assert found == pytest.approx(strength / (2 if asked else 1))
    assert where == pytest.approx([6.5, 8.5])
    assert news[0] == pytest.approx(np.tile([[0], [0.5], [0.5], [0.5]], (1, 5)))
    assert (len(news) == 2 and not news[1][1].any()) == asked
