# SPDX-License-Identifier: Apache-2.0
"""What a take adds, by hand: where robot and objects work, how large a thing is that appears there, and a surface that runs."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from retake.core.geometry import axis_angle
from retake.core.verdicts import additions, intruders
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.intruders import measure_intruders
from retake.core.verdicts.settings import StabilitySettings

WIDTH, HEIGHT, FRAMES = 120, 80, 37
SETTINGS = StabilitySettings()
GROUND = (120, 115, 110)
ABOVE = np.diag([1.0, -1.0, -1.0, 1.0])
"""Looks down."""


def truth(**given: Any) -> Any:
    """A camera 2 m above a table on which an object (part 1) lies; a hand (part 0) is over it. 100 px of focal length: 2 cm of
    the table are a pixel."""
    T = ABOVE.copy()
    T[2, 3] = 2.0
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, 0, :3, 3] = (0.1, 0.2, 0.3)
    K = np.array([[100.0, 0, 60], [0, 100, 40], [0, 0, 1]])
    known = {
        "labels": np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), "size": (WIDTH, HEIGHT), "static_camera": True, "px": 2.0,
        "scale": 0.5, "object_parts": [1], "robot_parts": [0], "T_world_part": poses, "start": 0,
        "T_camera_world": np.tile(T, (FRAMES, 1, 1)), "K": np.tile(K, (FRAMES, 1, 1)), "area": np.zeros((FRAMES, 2)),
        "parts": (SimpleNamespace(name="hand"), SimpleNamespace(name="box")),
        "seen": lambda t, points: points, "ideal": lambda t, points: points,
    }  # fmt: skip
    return type("Truth", (SimpleNamespace,), {"__len__": lambda self: FRAMES})(**{**known, **given})


def footage(frames: np.ndarray) -> Footage:
    return Footage(frames, frames[0].astype(np.float32), np.ones(frames.shape[1:3], bool), 1.0)


def plain() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.clip(np.array(GROUND) + rng.normal(0, 1, (FRAMES, HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)


def bounds(mask: np.ndarray | None) -> tuple[int, int, int, int]:
    assert mask is not None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_the_scene_of_work_is_the_ground_within_twelve_cm_of_object_and_low_hand() -> None:
    """From −0.12 to 0.22 m across and −0.12 to 0.32 m away from the middle: 6 px left to 11 right, 16 up to 6 down."""
    assert bounds(intruders.workspace(truth(), (WIDTH, HEIGHT))) == (24, 45, 54, 70)
    assert bounds(intruders.workspace(truth(), (WIDTH // 2, HEIGHT // 2))) == (12, 22, 27, 34)
    assert bounds(intruders.workspace(truth(), (WIDTH, HEIGHT), 0.02)) == (29, 40, 59, 65)
    poses = truth().T_world_part
    poses[:, 0, 2, 3] = 0.41  # too high above the ground to work there
    assert bounds(intruders.workspace(truth(T_world_part=poses), (WIDTH, HEIGHT))) == (34, 45, 54, 65)
    poses[:, 1, 2, 3] = 0.02
    poses[5, 1, 2, 3] = 0.0  # ground is the lowest place of an object
    poses[9, 1, 0, 3] = -0.2
    assert bounds(intruders.workspace(truth(T_world_part=poses), (WIDTH, HEIGHT))) == (34, 45, 44, 65)
    assert intruders.workspace(truth(object_parts=[]), (WIDTH, HEIGHT)) is None
    # One that falls off the table, far away, is not where the work is.
    still = bounds(intruders.workspace(truth(), (WIDTH, HEIGHT)))
    fallen = np.repeat(truth().T_world_part[:, :1], 1, 1).copy()
    fallen[:, 0, :3, 3] = np.linspace([0, 0, 0.1], [-30, 5, -100], FRAMES)
    with_it = np.concatenate([truth().T_world_part, truth().T_world_part[:, 1:2], fallen], 1)
    three = truth(T_world_part=with_it, object_parts=[1, 2, 3])
    assert bounds(intruders.workspace(three, (WIDTH, HEIGHT))) == still
    up = np.diag([1.0, 1, 1, 1])
    nowhere = intruders.workspace(truth(T_camera_world=np.tile(up, (FRAMES, 1, 1))), (WIDTH, HEIGHT))
    assert nowhere is not None
    assert not nowhere.any()


def near(**given: Any) -> Any:
    """The same from 0.5 m: the scene of work fills most of the picture."""
    T = ABOVE.copy()
    T[2, 3] = 0.5
    return truth(T_camera_world=np.tile(T, (FRAMES, 1, 1)), **given)


def place_of(found: Any) -> tuple[float, ...]:
    """Column and row, recorded px, that a note says."""
    return tuple(map(float, re.findall(r"\d+", found.note)))


@pytest.mark.parametrize("corner", [(0, 0), (11, 7), (20, 28), (0, 13), (33, 0)])
@pytest.mark.parametrize("size", [(2, 2), (7, 4), (5, 12)])
def test_the_largest_part_is_where_the_mask_shows_it(corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Also at the picture's edges, where its size may be a pixel more or less; of lines a pixel wide nothing is told."""
    (x, y), (width, height) = corner, size
    mask = np.zeros((40, 45), bool)
    mask[y : y + height, x : x + width] = True
    side, place = intruders._largest(mask)
    assert place.tolist() == [x + (width - 1) / 2, y + (height - 1) / 2]
    if x > 0 and 0 < y < 40 - height:
        assert side == pytest.approx(np.sqrt(width * height))
    line = np.zeros((40, 45), bool)
    line[12, 1:] = line[1:, 31] = True
    assert intruders._largest(line)[0] == 0


def test_a_thing_at_the_lower_right_edge_is_told_where_it_is() -> None:
    mask = np.zeros((40, 45), bool)
    mask[30:, 35:] = True
    assert intruders._largest(mask)[1].tolist() == [39.5, 34.5]
    mask[33:36, 35:38] = False
    rows, columns = np.nonzero(mask)
    assert np.allclose(intruders._largest(mask)[1], [columns.mean(), rows.mean()])


def test_the_size_of_the_largest_part_is_that_of_an_opening_by_a_square_of_two() -> None:
    rng = np.random.default_rng(7)
    for share in (0.5, 0.7, 0.85):
        mask = rng.random((30, 41)) < share
        opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        areas = cv2.connectedComponentsWithStats(opened)[2][1:, cv2.CC_STAT_AREA]
        assert intruders._largest(mask)[0] == float(np.sqrt(areas.max()))


@pytest.mark.parametrize(
    ("shown", "side"), [(slice(13, 37), 16.0), (slice(13, 25), 0.0), (slice(12, 25), 16.0), (slice(0, 37), 0.0)]
)
def test_a_thing_that_appears_for_three_looks_is_as_large_as_its_root(shown: slice, side: float) -> None:
    """A square of 8 px, of 2 px of the recording each; looks are six frames apart."""
    frames = plain()
    frames[shown, 30:38, 60:68] = (60, 160, 90)
    found = measure_intruders(footage(frames), near(), SETTINGS)
    assert found.value == pytest.approx(side, rel=0.3)
    if side:
        # Columns 120 to 135 and rows 60 to 75 of the recording.
        assert place_of(found) == pytest.approx((127.5, 67.5), abs=1)
        assert found.worst_frame in (18, 24, 30)
    assert found.series is not None
    assert np.flatnonzero(np.isfinite(found.series)).tolist() == [6, 12, 18, 24, 30, 36]


def test_shade_is_no_thing_and_what_robot_and_object_cover_is_not_asked() -> None:
    frames = plain()
    frames[13:, 30:38, 60:68] //= 2
    assert measure_intruders(footage(frames), near(), SETTINGS).value == 0
    frames = plain()
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    labels[13:, 26:34, 60:68] = 1
    frames[13:, 22:38, 60:68] = (60, 160, 90)  # four px around it belong to it
    assert measure_intruders(footage(frames), near(labels=labels), SETTINGS).value == 0
    frames[13:, 22:46, 60:68] = (60, 160, 90)
    beyond = measure_intruders(footage(frames), near(labels=labels), SETTINGS)
    assert beyond.value == pytest.approx(16, rel=0.3)
    # What is free of the robot begins four px below it: rows 76 to 91.
    assert place_of(beyond) == pytest.approx((127.5, 83.5), abs=1)


BLUISH = np.array([0.45, 0.7, 0.95])
"""What the shadow of a warm lamp leaves where a cold one shines as well."""
PLACE = (slice(28, 44), slice(52, 72))


def shade(frames: np.ndarray) -> None:
    """Cast it on a place of these frames."""
    where = (slice(None), *PLACE)
    frames[where] = frames[where] * BLUISH


def textured() -> np.ndarray:
    """A table of chips 4 px large."""
    rng = np.random.default_rng(5)
    chips = rng.uniform(0.6, 1.4, (HEIGHT // 4, WIDTH // 4, 1)).repeat(4, 0).repeat(4, 1)
    return np.clip(plain() * chips, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("table", [plain, textured])
def test_a_coloured_shadow_that_leaves_a_place_was_no_thing_there(table: Any) -> None:
    """The place looks like its surroundings since; a thing that comes to such a place does not."""
    frames = table()
    shade(frames[:13])
    assert measure_intruders(footage(frames), near(), SETTINGS).value == 0
    frames[(slice(13, None), *PLACE)] = (60, 160, 90)
    assert measure_intruders(footage(frames), near(), SETTINGS).value > 24  # type: ignore[operator]


def test_a_coloured_shadow_that_comes_shows_the_texture_that_was_there() -> None:
    shaded, covered = textured(), textured()
    shade(shaded[13:])
    assert measure_intruders(footage(shaded), near(), SETTINGS).value == 0
    # A thing of that colour, and of a texture of its own.
    covered[(slice(13, None), *PLACE)] = shaded[(slice(13, None), *PLACE)][:, ::-1]
    assert measure_intruders(footage(covered), near(), SETTINGS).value > 24  # type: ignore[operator]


def test_a_shadow_that_moves_over_a_plain_table_is_known_by_the_light_it_left() -> None:
    """It takes from one place what it had given back to another; a thing of other colours takes more, or less."""
    frames, thing = plain(), plain()
    there, beside = ((slice(28, 40), slice(x, x + 16)) for x in (52, 78))
    for film, colour in ((frames, BLUISH), (thing, BLUISH[::-1])):
        film[(slice(0, 13), *there)] = film[(slice(0, 13), *there)] * BLUISH
        film[(slice(13, None), *beside)] = film[(slice(13, None), *beside)] * colour
    assert measure_intruders(footage(frames), near(), SETTINGS).value == 0
    assert measure_intruders(footage(thing), near(), SETTINGS).value == pytest.approx(24, rel=0.2)


def test_a_coloured_shadow_on_a_plain_table_cannot_be_told_from_a_thing() -> None:
    frames = plain()
    shade(frames[13:])
    assert measure_intruders(footage(frames), near(), SETTINGS).value > 24  # type: ignore[operator]


def test_a_place_looks_as_its_first_two_views_together() -> None:
    """A thing that shows in the second view of a place is half of what it looks like: neither it nor what was there before is
    as far from that as two things are from each other."""
    frames = plain()
    frames[6:, 30:38, 60:68] = (60, 160, 90)
    later = frames.copy()
    later[12:] = plain()[12:]
    tone = [intruders.tone_of(np.full((1, 1, 3), c, np.float32)) for c in (GROUND, (60, 160, 90))]
    apart = float(np.abs(tone[0] - tone[1]).max())
    for film in (frames, later):
        for limit, told in ((apart / 2 - 0.05, True), (apart / 2 + 0.05, False)):
            found = measure_intruders(footage(film), near(), StabilitySettings(new_tone=limit))
            assert ((found.value or 0) > 0) == told


@pytest.mark.parametrize("pixels", [0, 1])
def test_enough_ground_must_show(pixels: int) -> None:
    seen = intruders.workspace(near(), (WIDTH // 2, HEIGHT // 2))
    assert seen is not None
    limit = StabilitySettings(work_pixels=int(seen.sum()) + pixels)
    found = measure_intruders(footage(plain()), near(), limit)
    assert (found.value is None) == bool(pixels)
    assert found.applies == (not pixels)
    short = measure_intruders(footage(plain()[: 24 + pixels]), near(), SETTINGS)
    assert (short.value is not None) == bool(pixels)  # five looks, the first of which has nothing to be compared with
    for without in ({"static_camera": False}, {"object_parts": []}):
        assert not measure_intruders(footage(plain()), near(**without), SETTINGS).applies


def link(runs: int = 0, turn: float = 0.0, turned: int = FRAMES) -> tuple[Footage, Any]:
    """A link of 30 x 40 px with a pattern of its own on a grey ground, whose surface slides by so many px from frame 13 on; it
    turns about the line of sight by so much from some frame on, while its picture stays."""
    rng = np.random.default_rng(5)
    pattern = cv2.GaussianBlur(rng.normal(0, 160, (40, 90)), (0, 0), 1.2)
    frames = plain()
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    labels[:, 20:60, 45:75] = 1
    for t in range(FRAMES):
        x = runs if t >= 13 else 0
        frames[t, 20:60, 45:75] = np.clip(120 + pattern[:, x : x + 30], 0, 255)[..., None]
    area = np.tile([1200.0, 0.0], (FRAMES, 1))
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[turned:, 0, :3, :3] = axis_angle(np.array([0, 0, 1.0]), np.float64(turn))
    return footage(frames), truth(labels=labels, area=area, T_world_part=poses)


@pytest.mark.parametrize(("runs", "told"), [(0, False), (2, False), (20, True)])
def test_a_surface_that_slides_further_than_a_warp_is_told(runs: int, told: bool) -> None:
    found = additions._texture(*link(runs), SETTINGS, None, "")
    assert found.value is not None
    assert (found.value > 0.1) == told
    assert found.series is not None
    assert np.flatnonzero(np.isfinite(found.series)).tolist() == list(range(4, FRAMES, 4))
    if told:
        assert found.note == "hand"
        assert found.worst_frame in (20, 24, 28, 32)


@pytest.mark.parametrize(("turn", "asked"), [(0.11, True), (0.13, False)])
def test_a_link_that_turned_is_compared_with_views_of_that_side(turn: float, asked: bool) -> None:
    """Without depth within 0.12 rad; the first view of another side is what it looks like."""
    found = additions._texture(*link(20, turn, 13), SETTINGS, None, "")
    assert found.series is not None
    assert np.isfinite(found.series[16]) == asked
    assert ((found.value or 0) > 0.1) == asked


def test_a_link_must_show_enough_of_itself_three_times() -> None:
    film, one = link()
    for area, told in ((150.0, True), (149.9, False)):
        one.area[:, 0] = area
        assert (additions._texture(film, one, SETTINGS, None, "").value is not None) == told
    one.area[:, 0] = 0
    one.area[:13, 0] = 1200  # frames 0, 4, 8 and 12: three differences
    assert additions._texture(film, one, SETTINGS, None, "").value is not None
    one.area[12] = 0
    assert additions._texture(film, one, SETTINGS, None, "").value is None
    inner = 36 * 26  # well inside: two px from the outline
    one.area[:, 0] = 1200
    for least, told in ((inner, False), (150, True), (151, False)):
        # Of which 150 points are carried.
        found = additions._texture(film, one, StabilitySettings(texture_points=least), None, "")
        assert (found.value is not None) == told


def test_a_surface_is_what_a_link_shows_beside_its_mean_nearby() -> None:
    film, one = link()
    seen = additions._Surfaces(film, one, SETTINGS, None, "")
    assert sorted(seen.logs) == list(range(0, FRAMES, 4))
    found = seen._surface(0, 0)
    assert found is not None
    assert found.corner == (45, 20)
    assert found.structure.shape == found.inner.shape == (40, 30)
    assert found.inner.sum() == 36 * 26
    assert np.abs(found.structure.mean()) < 0.02
    pattern = seen._pattern(0, 0, found)
    assert pattern is not None
    assert len(pattern.points) == 150
    # The link's origin is 2 m away; a pixel is 2 cm there, and y points away from the picture's rows.
    assert pattern.points.min(0) == pytest.approx([(47.5 - 60) / 50, (40 - 57.5) / 50, 0], abs=0.011)
    assert pattern.points.max(0) == pytest.approx([(72.5 - 60) / 50, (40 - 22.5) / 50, 0], abs=0.011)
    assert seen._difference(pattern, 0, found) == 0
    assert seen._difference(None, 0, found) is None
