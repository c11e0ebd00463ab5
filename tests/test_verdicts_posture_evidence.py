# SPDX-License-Identifier: Apache-2.0
"""What pixels say of an object and its postures, by hand: bins of colours, frames that are asked, bodies that are carried from
frame to frame, silhouettes of other postures, and how far pixels go to one of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.verdicts import posture_evidence, posture_shapes, posture_views, postures
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.posture_evidence import Evidence

FRAMES, WIDTH, HEIGHT = 15, 60, 48
RED, BLUE, GREY = (190, 60, 40), (40, 60, 190), (120, 110, 100)


def truth(**given: Any) -> Any:
    """An object (part 1) of 12 x 10 px beside a hand (part 0), before a camera that looks along its own axis."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    labels[:, 20:30, 24:36], labels[:, 20:30, 40:44] = 2, 1
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, 1, 2, 3] = 2.0
    K = np.array([[100.0, 0, 30], [0, 80, 24], [0, 0, 1]])
    known = {
        "labels": labels, "area": np.tile([40.0, 120.0], (FRAMES, 1)), "size": (WIDTH, HEIGHT), "static_camera": True,
        "T_world_part": poses, "T_camera_world": np.tile(np.eye(4), (FRAMES, 1, 1)), "K": np.tile(K, (FRAMES, 1, 1)),
        "seen": lambda t, points: points, "ideal": lambda t, points: points, "start": 0, "px": 2.0,
    }  # fmt: skip
    return type("Truth", (SimpleNamespace,), {"__len__": lambda self: FRAMES})(**{**known, **given})


def footage(one: Any, later: tuple[int, int, int] = RED, begin: int = 3, known: bool = True) -> Footage:
    """A red object that has another colour from a frame on; the hand is black."""
    frames = np.empty((*one.labels.shape, 3), np.uint8)
    frames[:] = GREY
    frames[one.labels == 1] = 0
    frames[one.labels == 2] = RED
    frames[begin:][one.labels[begin:] == 2] = later
    back = np.full((HEIGHT, WIDTH, 3), GREY, np.float32)
    return Footage(frames, back, np.full((HEIGHT, WIDTH), known), 1.0)


def test_tones_and_brightness_are_log_ratios_with_twelve_levels_more() -> None:
    tone, luma = posture_evidence.split(np.full((5, 5, 3), RED, np.uint8))
    red, green, blue = np.log(np.array(RED) + 12.0)
    assert tone[2, 2] == pytest.approx([red - green, blue - green], abs=1e-5)
    assert luma[2, 2] == pytest.approx((red + green + blue) / 3, abs=1e-5)


def test_bins_are_as_wide_as_stated_and_the_outer_ones_take_the_rest() -> None:
    tone = np.array([[0.0, -0.001], [0.281, -0.281], [9.0, -9.0], [1.599, -1.599], [1.601, -1.6]])
    a, b, c = posture_evidence._bins(tone, np.array([0.0, 0.151, -1.0, 6.61, 99.0]))
    assert a.tolist() == [20, 23, 39, 39, 39]
    assert b.tolist() == [19, 16, 0, 0, 0]
    assert c.tolist() == [0, 1, 0, 44, 44]


def test_a_shadow_darkens_to_a_point_and_light_brightens_little() -> None:
    lit = np.array([-2.0, -0.9, -0.7, -0.5, -0.1, 0.15, 0.225, 0.3, 1.0], np.float32)
    assert posture_evidence._shaded(lit) == pytest.approx([0, 0, 0.5, 1, 1, 1, 0.5, 0, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("shown", "early"),
    [
        ([0, 1, 2, 3, 9], [0, 1, 2]),
        ([2, 4, 5, 6], [2, 4, 5]),
        ([2, 4, 6, 7], []),
        ([0, 1], []),
        ([], []),
    ],
)
def test_an_object_is_learned_from_its_first_three_frames_in_the_first_third(
    shown: list[int], early: list[int]
) -> None:
    area = np.full((FRAMES, 2), 59.9)
    area[shown, 1] = 60
    assert posture_evidence.early_frames(truth(area=area), 1) == early
    assert (posture_evidence.colours_of(footage(truth()), truth(area=area), 1) is None) == (not early)


@pytest.mark.parametrize(("shown", "share"), [(15, 1 / 3), (12, 1 / 3), (11, 0.0)])
def test_later_colours_count_by_half_where_there_are_many(shown: int, share: float) -> None:
    area = np.full((FRAMES, 2), 120.0)
    area[shown:, 1] = 0
    one = truth(area=area)
    found = posture_evidence.colours_of(footage(one, BLUE), one, 1)
    assert found is not None
    assert found.tone.sum() == pytest.approx(1, abs=1e-5)
    assert found.luma.sum() == pytest.approx(1, abs=1e-5)
    (a, c), (b, d), _ = posture_evidence._bins(
        np.array([[np.log(202 / 72), np.log(52 / 72)], [np.log(52 / 72), np.log(202 / 72)]]), np.zeros(2)
    )
    red, blue = found.tone[a - 3 : a + 4, b - 3 : b + 4].sum(), found.tone[c - 3 : c + 4, d - 3 : d + 4].sum()
    assert (red, blue) == (pytest.approx(1 - share, abs=0.02), pytest.approx(share, abs=0.02))


def evidence(one: Any, film: Footage | None = None) -> Evidence:
    film = film or footage(one)
    colours = posture_evidence.colours_of(film, one, 1)
    assert colours is not None
    return Evidence(film, one, 1, colours)


def test_a_phase_is_told_by_the_first_frames_and_four_before_it() -> None:
    phases = ["before"] * 6 + ["held"] * 2 + ["released"] * 3 + ["settled"] * 4
    one = evidence(truth())
    assert one.earlier(phases, "settled") == {0: True, 2: True, 3: True, 5: True, 7: True, 10: False}
    assert one.earlier(phases, "held") == {0: True, 2: True, 3: True, 4: True, 5: True}
    assert one.earlier(phases, "before") == {0: True, 2: True}
    area = np.full((FRAMES, 2), 60.0)
    area[[4, 5, 7, 8, 9], 1] = 59.9
    assert evidence(truth(area=area)).earlier(phases, "settled") == {0: True, 2: True, 3: True, 6: True, 10: False}


def test_a_mask_s_window_has_two_pixels_to_spare_within_the_picture() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[6:9, 11:15] = 1
    assert posture_evidence._around(mask) == np.s_[4:11, 9:17]
    mask[1, 2] = 1
    assert posture_evidence._around(mask) == np.s_[0:11, 0:17]


@pytest.mark.parametrize(("degrees", "same"), [(0, True), (24, True), (26, False), (180, False)])
def test_sides_are_the_same_within_twenty_five_degrees(degrees: float, same: bool) -> None:
    poses = truth().T_world_part
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    poses[7, 1, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    assert evidence(truth(T_world_part=poses))._same_side(7, 0) == same


@pytest.mark.parametrize(("by", "counts"), [(0, True), (3, True), (12, False)])
def test_a_place_that_looks_as_it_did_elsewhere_is_no_evidence_against_the_body(by: int, counts: bool) -> None:
    """A body with a grey end: beside its red half that end reads as grey ground. It counts against the body at rest; once
    the body has moved by more than four px, it is what the body looks like."""
    one = truth()
    one.T_world_part[8:, 1, 0, 3] = by * 0.02  # 100 px at 2 m
    one.labels[8:, 20:30] = 0
    one.labels[8:, 20:30, 24 - by : 36 - by] = 2  # the world's x points left of this camera's picture
    one.T_world_part[8:, 1, 0, 3] *= -1
    film = footage(one, known=False)
    for t in range(FRAMES):
        left = np.flatnonzero((one.labels[t] == 2).any(0))[0]
        film.frames[t, 20:30, left + 6 : left + 12] = GREY
    known = evidence(one, film)
    corners = np.array([[x, y, 0.0] for x in (-0.12, 0.0, 0.12) for y in (-0.1, 0.1)])
    left = 24 - by
    box = np.s_[12:38, left - 8 : left + 20]
    whole = one.labels[10][box] == 2
    outside = cv2.dilate(whole.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    field, _ = known.field(10, box, whole, outside, np.ones(whole.shape, bool), corners, {0: True, 2: True})
    beside = field[12:14, 8 + 7]  # next to the red half: a px beside it read as the object
    assert (beside < -0.2).all() == counts, beside
    assert (field[12:14, 8 + 2] > 0.9).all()


def test_a_frame_s_window_has_four_px_around_and_shows_the_object_away_from_the_hand() -> None:
    one = evidence(truth())
    channels, mine, corner = one._frame(3)
    assert corner == (20, 16)
    assert channels.shape == (18, 20, 3)
    assert mine.shape == (18, 20)
    rows, columns = np.nonzero(mine)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 13, 4, 15)
    labels = truth().labels
    labels[:, 20:30, 36:44] = 1  # two px of the object are beside it
    labels[:, :30, :44] = np.roll(labels, (-19, -23), (1, 2))[:, :30, :44]
    moved = evidence(truth(labels=labels))
    channels, mine, corner = moved._frame(3)
    assert corner == (0, 0)
    assert np.nonzero(mine)[1].max() == 1 + 9


def test_a_body_is_carried_with_its_pose_and_its_depth() -> None:
    rng = np.random.default_rng(2)
    body = np.concatenate([rng.uniform(-0.1, 0.1, (20, 2)), np.tile([[-0.05], [0.05]], (10, 1))], 1)
    poses = truth().T_world_part
    poses[5, 1, :3, 3] += (0.195, 0.39, 0)
    poses[6, 1, 2, 3] = 1 + 0.025  # half as far away: its near side is at 0.975 m, not at 1.95 m
    poses[7, 1, 2, 3] = 0.06
    one = evidence(truth(T_world_part=poses))
    M = one._carried(body, 0, 5)
    # By 0.195 and 0.39 m at 1.95 m: a tenth and a fifth of the focal lengths.
    assert pytest.approx(np.array([[1, 0, 10], [0, 1, 16]]), abs=1e-6) == M
    near = one._carried(body, 0, 6)
    # Twice as large about the middle, which is half a px before the pixel of that number.
    assert near == pytest.approx(np.array([[2, 0, -29.5], [0, 2, -23.5]]), abs=1e-6)
    assert one._carried(body, 0, 7) is None
    assert one._carried(body, 7, 0) is None
    assert one._carried(body[:6], 0, 5) is None
    assert one._carried(body[:8], 0, 5) is not None


@pytest.mark.parametrize(("colour", "same", "other"), [(GREY, 1, 0), ((84, 77, 70), 0, 0), (RED, 0, 1)])
def test_a_pixel_shows_the_scenery_behind_it_or_that_in_a_shadow_or_something_else(
    colour: tuple[int, int, int], same: float, other: float
) -> None:
    film = footage(truth())
    film.frames[3] = colour
    box = np.s_[10:20, 10:24]
    here = posture_evidence.split(film.frames[3][box])
    behind, else_ = evidence(truth(), film)._behind(box, here)
    assert behind == pytest.approx(np.full((10, 14), same), abs=0.15)
    assert else_ == pytest.approx(np.full((10, 14), other), abs=0.15)
    unknown = evidence(truth(), footage(truth(), known=False))._behind(box, here)
    assert not unknown[0].any()
    assert not unknown[1].any()


def test_pixels_are_read_as_the_object_or_as_what_surrounds_it() -> None:
    one, box = evidence(truth()), np.s_[16:34, 20:38]
    here = posture_evidence.split(one.footage.frames[4][box])
    outside = np.ones((18, 18), bool)
    outside[3:15, 3:] = False
    for known in (True, False):
        read = evidence(truth(), footage(truth(), known=known))._reader(box, here, outside)
        said = read(*here)
        assert (said[6:12, 6:14] > 0.9).all()
        assert (said[:2, :14] < -0.9).all()
        green = posture_evidence.split(np.full((18, 18, 3), (30, 200, 60), np.uint8))
        assert np.abs(read(*green)).max() < 0.4
    nowhere = one._reader(box, here, outside & False)(*here)
    assert (nowhere[6:12, 6:14] > 0.9).all()


def gain(**given: dict[int, float]) -> posture_views.Gain:
    values = {name: np.zeros(len(posture_shapes.POSTURES)) for name in ("found", "own", "full", "changed", "strength")}
    for name, of in given.items():
        for k, value in of.items():
            values[name][k] = value
    return posture_views.Gain(**values)


WIDER = next(k for k, posture in enumerate(posture_shapes.POSTURES) if posture.name == "wider")


@given(st.floats(-0.2, 1.2), st.floats(0, 0.4))
def test_what_the_first_phase_goes_to_a_posture_is_taken_off_the_others(share: float, drawn: float) -> None:
    beyond = postures._beyond(share, drawn)
    assert beyond is not None
    assert (beyond > 0) == (share > drawn)
    assert beyond <= share or share > 1 or share < drawn
    assert postures._beyond(drawn, drawn) == 0
    assert postures._beyond(1.0, drawn) == pytest.approx(1)
    assert postures._beyond(share, 0.0) == share
    assert postures._beyond(None, drawn) is None


def test_pixels_go_a_share_of_the_way_to_a_posture() -> None:
    """From what they would gain if simulated (−50) to what they would if it stood so (50); of two ways to turn
    the farther one."""
    full = {k: 50.0 for k in (0, 1, 2, 3, WIDER)}
    told = gain(
        found={0: 10, 1: -20, 2: 49, 3: 0, WIDER: 0}, own={k: -50.0 for k in full}, full=full,
        changed={0: 100, 1: 100, 2: 39.9, 3: 100, WIDER: 100}, strength={0: 90, 1: 90, 2: 90, 3: 29, WIDER: 90},
    )  # fmt: skip
    assert posture_views.shares_of([told], 0) == {
        "turned by 30°": pytest.approx(0.6), "turned by 45°": None, "wider": pytest.approx(0.5),
    }  # fmt: skip
    assert "wider" not in posture_views.shares_of([told], None)
    swapped = gain(
        found={1: 10, 0: -20}, own={0: -50, 1: -50}, full=full, changed={0: 40, 1: 40}, strength={0: 90, 1: 90}
    )
    assert posture_views.shares_of([swapped], 0) == {"turned by 30°": pytest.approx(0.6)}
    assert posture_views.shares_of([swapped, gain()], 0) == {}  # 40 px of each frame must differ
    assert posture_views.shares_of([], 0) == {}
    assert posture_views.shares_of([told, told], 0)["turned by 30°"] == pytest.approx(0.6)
    blunt = gain(found={0: 10}, own={0: -13}, full={0: 13}, changed={0: 100}, strength={0: 90})
    assert posture_views.shares_of([blunt], 0) == {}  # 26 of 90 is no reach
    sharper = gain(found={0: 10}, own={0: -13.6}, full={0: 13.6}, changed={0: 100}, strength={0: 90})
    assert posture_views.shares_of([sharper], 0) == {"turned by 30°": pytest.approx(23.6 / 27.2)}


def half_of_it(shows: str, columns: int = 10, which: int = 0) -> posture_views.View:
    """A square of 20 x 20 px; one other posture lacks some columns of it."""
    whole = np.zeros((40, 44), np.uint8)
    whole[10:30, 12:32] = 1
    other = whole.copy()
    other[:, 12 : 12 + columns] = 0
    field = np.where((whole if shows == "whole" else other) > 0, 1.0, -1.0).astype(np.float32)
    others = [other if k == which else whole for k in range(len(posture_shapes.POSTURES))]
    return posture_views.View(field, np.ones(whole.shape, bool), whole, others, True)


def test_a_posture_gains_what_its_pixels_say_for_it() -> None:
    for shows, found in (("whole", -200), ("other", 200)):
        told = posture_views.gain_of(half_of_it(shows), 0)
        assert (told.found[0], told.own[0], told.full[0]) == (found, -200, 200)
        assert (told.changed[0], told.strength[0]) == (200, 200)
        assert not told.found[1:].any()
        assert not told.changed[1:].any()
    view = half_of_it("other")
    view.free[:, :17] = False  # half of what differs cannot be seen
    assert posture_views.gain_of(view, 0).changed[0] == 100


@pytest.mark.parametrize(
    ("columns", "which", "first", "pixels"),
    [
        (1, 0, True, 0),
        (2, 0, True, 40),
        (3, WIDER, True, 0),
        (4, WIDER, True, 0),
        (5, WIDER, True, 100),
        (3, WIDER, False, 60),
        (3, 0, True, 60),
    ],
)
def test_a_posture_is_asked_where_it_differs_by_enough_and_beyond_what_bleeds_or_is_drawn_wider(
    columns: int, which: int, first: bool, pixels: int
) -> None:
    """By a tenth of the silhouette, a fifth of which lies beyond 1.4 px from its outline; another size in the first phase beyond
    2.4 px: of the fifth column, and the fourth, but for three px at either end."""
    told = posture_views.gain_of(half_of_it("other", columns, which), 0, first)
    assert told.changed[which] == pixels
    assert (told.found[which] > 0) == (pixels > 0)


def test_frames_show_a_body_that_is_half_of_its_largest_as_seen_from_one_distance() -> None:
    area = np.array([400.0, 200, 199, 60, 59, 100, 59])
    distance = np.array([1.0, 1, 1, 2, 9, 2, 1])
    assert posture_shapes.shows_body(area, distance).tolist() == [0, 1, 3, 5]


def test_what_rests_is_where_it_mostly_is_within_two_millimetres() -> None:
    poses = truth().T_world_part
    poses[4, 1, 0, 3], poses[6, 1, 2, 3], poses[8, 1, 1, 3] = 0.0019, 2.0021, -0.0021
    assert posture_views.at_rest(truth(T_world_part=poses), 1, [2, 4, 6, 7, 8, 9]) == [2, 4, 7, 9]


SIDEWAYS = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""A camera at the origin that looks along y, with z up."""


def drawn() -> dict[str, tuple[int, int, int, int]]:
    """Silhouettes (left, top, width, height) of a flat square of 20 cm at 2 m, of which 40 px are 20 cm."""
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, 1, 1, 3] = 2.0
    K = np.array([[400.0, 0, 100], [0, 400, 75], [0, 0, 1]])
    one = truth(
        T_world_part=poses,
        T_camera_world=np.tile(SIDEWAYS, (FRAMES, 1, 1)),
        K=np.tile(K, (FRAMES, 1, 1)),
        size=(200, 150),
    )
    hull = np.array([[x, y, z] for x in (-0.1, 0.1) for y in (-0.001, 0.001) for z in (-0.1, 0.1)])
    found = posture_shapes.silhouettes(one, 3, 1, hull)
    assert found is not None
    (rows, columns), whole, others = found
    out = {}
    for name, mask in [("own", whole), *zip([p.name for p in posture_shapes.POSTURES], others, strict=True)]:
        v, u = np.nonzero(mask)
        if len(v):
            out[name] = (u.min() + columns.start, v.min() + rows.start, np.ptp(u) + 1, np.ptp(v) + 1)
    return out


def test_other_postures_stand_on_the_same_ground_at_the_same_place() -> None:
    found = drawn()
    for name, left, top, width, height in (
        ("own", 80, 55, 40, 40), ("wider", 72, 55, 56, 40), ("narrower", 87, 55, 26, 40), ("taller", 80, 41, 40, 54),
        ("lower", 80, 67, 40, 28), ("sunk by 2 cm", 80, 59, 40, 36), ("sunk by 3 cm", 80, 61, 40, 34),
        ("sunk by 4.5 cm", 80, 64, 40, 31), ("turned by 60°", 90, 55, 20, 40), ("turned by 45°", 86, 55, 28, 40),
    ):  # fmt: skip
        assert found[name] == pytest.approx((left, top, width, height), abs=2.6 if "turned" in name else 1.1), name


def test_a_point_behind_the_camera_has_no_outline() -> None:
    one = truth(T_camera_world=np.tile(np.eye(4), (FRAMES, 1, 1)))
    at = posture_shapes.projected(one, 0, np.array([[0.1, 0.2, 2.0], [0, 0, 0.02]]))
    assert at == pytest.approx(np.array([[34.5, 31.5], [29.5, 23.5]]))
    assert posture_shapes.projected(one, 0, np.array([[0.1, 0.2, 2.0], [0, 0, 0.019]])) is None


def test_a_body_is_what_its_depth_shows_about_its_own_origin() -> None:
    """12 x 10 px at 2 m and a focal length of 100 and 80 px: from −0.11 to 0.11 m, and from −0.0875 to 0.1375."""
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[22, 26] = 0.0
    depth[20, 30] = 9.0
    episode: Any = SimpleNamespace(image=lambda *_: depth)
    hull = posture_shapes.body_hull(truth(), episode, "front", 1)
    assert hull is not None
    assert hull.min(0) == pytest.approx([-0.11, -0.0875, 0], abs=1e-6)
    assert hull.max(0) == pytest.approx([0.11, 0.1375, 0], abs=1e-6)
    assert posture_shapes.body_hull(truth(area=np.full((FRAMES, 2), 59.0)), episode, "front", 1) is None
    depth[20:30, 24:36] = 0
    depth[20:22, 24:36] = 2  # 24 of the 30 px that are needed
    assert posture_shapes.body_hull(truth(), episode, "front", 1) is None
    depth[22:24, 24:27] = 2
    assert posture_shapes.body_hull(truth(), episode, "front", 1) is not None
