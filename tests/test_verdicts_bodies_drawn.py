# SPDX-License-Identifier: Apache-2.0
"""A red box drawn before a grey wall: how far beside its place it shows, what of it is missing or too much, how it is turned, and
what of it looks like the wall; and what its colours amount to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from retake.core.verdicts import bodies, colours
from retake.core.verdicts.footage import Footage

HEIGHT, WIDTH = 70, 90
RED, WALL = (190, 60, 40), (110, 115, 120)


def drawn(
    shift: tuple[int, int] = (0, 0), lacks: int = 0, more: int = 0, *, static: bool = True,
    other: tuple[slice, slice] | None = None, paint: tuple[int, int, int] = RED,
) -> bodies.Body:  # fmt: skip
    """Of 24 x 20 px; beside its place by so many, without so many of its upper rows, with so many more on its right."""
    rng = np.random.default_rng(6)
    wall = np.clip(np.array(WALL) + rng.normal(0, 2, (HEIGHT, WIDTH, 1)), 0, 255)
    frames, labels = np.repeat(wall[None], 3, 0), np.zeros((3, HEIGHT, WIDTH), np.uint8)
    labels[:, 25:45, 30:54] = 2
    x, y = 30 + shift[0], 25 + shift[1]
    frames[:, y + lacks : y + 20, x : x + 24 + more] = paint
    if other is not None:
        labels[:, other[0], other[1]] = 1
        frames[:, other[0], other[1]] = 20
    area = np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float)
    truth: Any = SimpleNamespace(labels=labels, area=area)
    film = Footage(frames.astype(np.uint8), wall.astype(np.float32), np.full((HEIGHT, WIDTH), static), 1.0)
    return bodies.bodies(film, truth, 1, [0, 2])


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("shift", [(0, 0), (4, 0), (-5, 3), (0, -7)])
def test_a_body_shows_as_far_beside_its_place_as_it_is(shift: tuple[int, int], static: bool) -> None:
    found = drawn(shift, static=static)
    assert found.offset[[0, 2]] == pytest.approx(np.array([shift, shift]), abs=0.4)
    assert np.isnan(found.offset[1]).all()
    assert found.looked.tolist() == [True, False, True]
    assert (found.contrast[[0, 2]] > 0.9).all()
    assert found.silhouette[[0, 2]] == pytest.approx([0, 0], abs=0.02)
    assert found.size[[0, 2]] == pytest.approx([1, 1], abs=0.1)
    assert found.turn[0] == pytest.approx(0, abs=0.03) or np.isnan(found.turn[0])
    assert found.area.tolist() == [480.0] * 3
    if shift == (0, 0):
        assert found.colour[0] == pytest.approx(RED, abs=1.5)
        assert len(found.pixels[0]) == 100
        assert found.behind[0] == pytest.approx(0) if static else np.isnan(found.behind[0])


def test_what_is_missing_and_what_is_too_much_are_shares_of_the_area() -> None:
    """But for what a shift of all of it explains, and the last pixel of the outline on either side."""
    half = drawn(lacks=10)
    assert 0.2 < half.missing[0] + half.extra[0] < 0.5
    assert 0.4 < half.size[0] < 0.75
    wider = drawn(more=8)
    assert wider.extra[0] > 0.1
    assert wider.missing[0] == pytest.approx(0, abs=0.05)
    assert wider.size[0] > 1.05


def test_something_beside_it_leaves_its_area_untold_and_says_nothing_itself() -> None:
    beside = drawn(other=(slice(25, 45), slice(54, 70)))
    assert np.isnan(beside.size[0])
    assert beside.missing[0] == pytest.approx(0, abs=0.02)
    over = drawn(other=(slice(25, 45), slice(28, 48)))  # less than three tenths of what is left of it is free
    assert np.isfinite(over.contrast[0]) == (4 * 20 >= 0.3 * 6 * 20)
    covered = drawn(other=(slice(25, 45), slice(28, 53)))
    assert np.isnan(covered.contrast).all()
    assert covered.pixels == {}


def test_a_body_of_the_wall_s_own_colours_looks_like_it() -> None:
    shaded = drawn(paint=(80, 84, 88))
    assert shaded.behind[0] == pytest.approx(1, abs=0.05)
    brighter = drawn(paint=(150, 156, 163))
    assert brighter.behind[0] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("degrees", [0, 20, 60, 90, 135, 170])
def test_a_turn_is_the_angle_between_the_long_axes(degrees: int) -> None:
    def bar(angle: float) -> np.ndarray:
        points = cv2.boxPoints(((45.0, 35.0), (40.0, 10.0), angle))
        return cv2.fillConvexPoly(np.zeros((HEIGHT, WIDTH), np.uint8), points.astype(int), 1) > 0

    wanted = np.radians(min(degrees, 180 - degrees))
    assert bodies._turn(bar(10), bar(10 + degrees)) == pytest.approx(wanted, abs=0.06)
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[20:40, 20:40] = True
    assert np.isnan(bodies._turn(bar(0), square))
    assert np.isnan(bodies._turn(square, bar(0)))
    square[:], square[20:40, 20:45] = False, True  # 1.25 as long as wide: 1.56 in squares
    assert np.isfinite(bodies._turn(square, bar(0)))
    small = np.zeros((HEIGHT, WIDTH), bool)
    for pixels, told in ((30, True), (29, False)):
        small[5, :pixels] = True
        small[5, pixels:] = False
        assert np.isfinite(bodies._turn(bar(0), small)) == told


def test_a_distance_to_an_outline_is_half_a_px_on_both_of_its_sides() -> None:
    mask = np.zeros((9, 12), bool)
    mask[:, 4:] = True
    found = bodies.signed_distance(mask)
    assert found[4, 1:6] == pytest.approx([-2.4, -1.45, -0.45, 0.45, 1.4], abs=0.1)
    assert found[4, 11] == pytest.approx(0.45, abs=0.1)  # beyond the picture is outside


def body(second: tuple[int, int, int], begin: int, frames: int = 10, share: float = 1.0) -> Any:
    """A body that shows one colour, then in a share of its pixels another."""
    pixels = {t: np.tile(np.array(RED, np.uint8), (20, 1)) for t in range(frames)}
    for t in range(begin, frames):
        pixels[t][: round(20 * share)] = second
    colour = np.stack([pixels[t].mean(0) for t in range(frames)])
    one = np.ones(frames)
    return SimpleNamespace(part=0, colour=colour, pixels=pixels, contrast=one, missing=0 * one, area=100 * one)


def before(turned: int = 99, degrees: float = 0.0, frames: int = 10) -> Any:
    """A camera 1 m before a body that turns at some frame."""
    poses = np.tile(np.eye(4), (frames, 1, 1, 1))
    poses[:, 0, 2, 3] = 1.0
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    poses[turned:, 0, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    return SimpleNamespace(T_world_part=poses, T_camera_world=np.tile(np.eye(4), (frames, 1, 1)))


SURE = np.ones(10, bool)


def test_another_colour_of_the_same_side_is_as_far_off_as_its_shares() -> None:
    found = colours.measure_colour(body((40, 60, 190), 5), SURE, before())
    assert found.value == pytest.approx(2 * 150 / 290)
    assert found.worst_frame == 5
    assert found.series is not None
    assert found.series[:5] == pytest.approx(np.zeros(5))
    brief = colours.measure_colour(body((40, 60, 190), 9), SURE, before())
    assert brief.value == pytest.approx(0)
    darker = colours.measure_colour(body((95, 30, 20), 5), SURE, before())
    assert darker.value == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("degrees", "told"), [(24, True), (26, False)])
def test_a_side_in_new_colours_is_told_within_twenty_five_degrees_and_unsure_beyond(degrees: float, told: bool) -> None:
    found = colours.measure_colour(body((40, 60, 190), 5), SURE, before(5, degrees))
    assert (found.value is not None) == told
    assert found.applies
    same = colours.measure_colour(body(RED, 5), SURE, before(5, degrees))
    assert same.value == pytest.approx(0, abs=1e-5)


def test_colours_are_compared_where_the_object_is_in_its_place_in_four_frames() -> None:
    three = np.arange(10) >= 7
    shown = body((40, 60, 190), 5)
    shown.missing = np.where(three, 0.0, 0.3)
    few = colours.measure_colour(shown, SURE, before())
    assert (few.value, few.applies, few.note) == (None, False, "its colours can be told in 3 frames, 4 needed")
    shown.missing[6] = 0.29
    assert colours.measure_colour(shown, SURE, before()).value == pytest.approx(0)
    assert colours.measure_colour(shown, ~SURE, before()).value is None
    shown.contrast = np.where(three, 1.0, 0.0)
    assert colours.measure_colour(shown, SURE, before()).value is None
