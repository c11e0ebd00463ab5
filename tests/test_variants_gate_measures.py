# SPDX-License-Identifier: Apache-2.0
"""What the gate measures, on pictures drawn by hand: how far a thing is moved, enlarged, repainted or blurred is known."""

from __future__ import annotations

import numpy as np
import pytest
from flat_stills import BOX, FLOOR, ROBOT, TABLE, still
from scenes import make_robot

from retake.core.variants import gate_skeleton
from retake.core.variants.gate import (
    GateCheck,
    GateLimits,
    GateReport,
    _at_least,
    _at_most,
    _between,
    depth_agreement,
    distances,
    duplicate_of,
    gate_identity,
    thumbnail,
)
from retake.core.variants.gate_measures import (
    Reference,
    _detail,
    _dilated,
    _eroded,
    _shrink,
    elsewhere,
    gradient_of,
    object_iou,
    scene_shift,
    sharpness,
    tone,
)
from retake.core.variants.gate_skeleton import Patch, skeleton_fit


def known(**fields) -> Reference:
    """A reference of which only these fields are looked at."""
    out = Reference.__new__(Reference)
    vars(out).update(fields)
    return out


def toned(frame, own, robot=1.0) -> tuple[float, float]:
    shape = (120, 160)
    inside = np.array(np.broadcast_to(robot, shape), np.float32)
    own = np.array(np.broadcast_to(own, (*shape, 3)), np.float32)
    return tone(np.array(np.broadcast_to(frame, (*shape, 3)), np.uint8), known(small_robot=inside, small_rgb=own))


def test_a_robot_that_is_relit_is_the_same_and_a_repainted_one_is_not():
    assert toned(49, 99) == pytest.approx((0, 0), abs=1e-4), "half as bright"
    # Colours are told from 1 on: 201, 1, 1 instead of grey leaves what lies across the grey line, √(201² - 203²/3).
    error, cast = toned((200, 0, 0), 100)
    assert error == pytest.approx(0, abs=1e-4)
    assert cast == pytest.approx(np.sqrt(201**2 + 2 - 203**2 / 3) / np.sqrt(201**2 + 2), abs=1e-4)
    assert toned((200, 0, 0), 100, robot=0.5) == (0, 0), "no pixel is the robot's alone"


def test_stripes_that_the_robot_did_not_have_are_an_error_of_their_height():
    stripes = np.where(np.arange(160) % 2, 119, 79)[None, :, None]
    assert toned(stripes, 99)[0] == pytest.approx(20 / 100, abs=0.003)
    dark = np.where(np.arange(160) % 2, 5, 1)[None, :, None]
    assert toned(dark, 99)[0] == pytest.approx(2 / 8, abs=0.01), "below a brightness of 8 it counts by 8"


def noise(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("size", "seen"), [((8, 8), True), ((7, 12), False), ((12, 7), False), ((20, 30), True)])
def test_a_second_robot_is_found_wherever_it_stands(size, seen, mirrored):
    height, width = size
    robot = np.zeros((120, 160), bool)
    robot[50 : 50 + height, 40 : 40 + width] = True
    grey = noise(1, (120, 160))
    reference = known(robot=robot)
    alone = elsewhere(grey, reference)
    own = grey[50 : 50 + height, 40 : 40 + width]
    grey[80 : 80 + height, 100 : 100 + width] = own[:, ::-1] if mirrored else own
    twice = elsewhere(grey, reference)
    if seen:
        assert alone < 0.7
        assert twice > 0.99
    else:
        assert alone == twice == 0


def test_a_robot_that_fills_the_picture_has_no_second():
    for rows, columns, told in ((60, 113, False), (60, 110, True), (115, 40, False), (113, 40, True)):
        robot = np.zeros((120, 160), bool)
        robot[:rows, :columns] = True
        found = elsewhere(np.tile(noise(2, (120, 20)), (1, 8)), known(robot=robot))
        assert (found > 0.8) == told, "the same every twenty columns"


def surface_of(arm: int = 100, margin: int = 6) -> dict:
    """The outline of a work surface: a corner of two lines, 2 · arm points."""
    rows = np.r_[np.full(arm, 60), np.arange(61 - arm // 2 - 1, 61 - arm // 2 - 1 + arm)]
    columns = np.r_[np.arange(30, 30 + arm), np.full(arm, 140)]
    return {"surface": (np.clip(rows, 8, 110), columns, margin)}


def drawn(surface, dx: int, dy: int) -> np.ndarray:
    out = np.zeros((120, 160), np.float32)
    out[surface[0] + dy, surface[1] + dx] = 100
    return out


@pytest.mark.parametrize(("dx", "dy"), [(3, -2), (-5, 5), (5, -5), (0, 4), (-4, 0)])
def test_a_work_surface_is_found_where_it_was_moved_to(dx, dy):
    own = surface_of()
    assert scene_shift(drawn(own["surface"], dx, dy), known(unit=1.0, **own)) == pytest.approx(np.hypot(dx, dy))
    assert scene_shift(drawn(own["surface"], dx, dy), known(unit=0.25, **own)) == pytest.approx(4 * np.hypot(dx, dy))


def test_a_work_surface_that_is_there_or_cannot_be_told_is_not_moved():
    own = surface_of()
    both = drawn(own["surface"], 0, 0) + drawn(own["surface"], 3, -2)
    assert scene_shift(drawn(own["surface"], 0, 0), known(unit=1.0, **own)) == 0
    assert scene_shift(both, known(unit=1.0, **own)) == 0
    moved = drawn(own["surface"], 3, -2)
    assert scene_shift(moved, known(unit=0.2, **own)) > 0
    assert scene_shift(moved, known(unit=0.199, **own)) == 0, "a picture of less than 128 pixels"
    for arm, found in ((80, True), (79, False)):  # 160 points are needed
        own = surface_of(arm)
        assert (scene_shift(drawn(own["surface"], 3, -2), known(unit=1.0, **own)) > 0) == found
    level = np.full((120, 160), 50, np.float32)
    assert scene_shift(level, known(unit=1.0, **surface_of())) == 0


def square(side: int, dx: int = 0, dy: int = 0) -> np.ndarray:
    """The outline (x, y) of a square about (80, 60)."""
    k = np.arange(-side, side + 1)
    ends = np.full(len(k), side)
    points = np.concatenate([np.c_[k, ends], np.c_[k, -ends], np.c_[ends, k], np.c_[-ends, k]])
    return np.unique(points, axis=0) + np.array([80 + dx, 60 + dy])


@pytest.mark.parametrize(
    ("side", "dx", "dy", "overlap"),
    [(20, 0, 0, 1), (22, 0, 0, 41**2 / 45**2), (25, 0, 0, 41**2 / 51**2), (24, 4, -2, 41**2 / 49**2),
     (21, -4, 4, (41 - 3) ** 2 / (41**2 + 43**2 - 38**2)), (21, 2, 0, 40 * 41 / (41**2 + 43**2 - 40 * 41))],
)  # fmt: skip
def test_an_object_is_found_at_the_size_and_place_of_its_outline(side, dx, dy, overlap):
    task = np.zeros((120, 160), bool)
    task[40:81, 60:101] = True
    gradient = np.zeros((120, 160), np.float32)
    x, y = square(side, dx, dy).T
    gradient[y, x] = 100
    reference = known(task=task, outline=square(20).astype(np.float32), unit=1.0)
    assert object_iou(gradient, reference) == pytest.approx(overlap, abs=0.03)
    assert object_iou(gradient, known(task=task, outline=np.zeros((0, 2), np.float32), unit=1.0)) == 1


@pytest.mark.parametrize(("channel", "axis"), [(0, 0), (1, 1), (2, 1)])
def test_a_gradient_is_that_of_the_strongest_channel_and_at_most_120(channel, axis):
    """Three times a step's height beside it: three quarters of it remain after the blur, times Sobel's four."""
    for height, told in ((20, 60), (80, 120)):
        frame = np.full((20, 20, 3), 50, np.uint8)
        half = frame[10:] if axis == 0 else frame[:, 10:]
        half[..., channel] += np.uint8(height)
        found = gradient_of(frame)
        found = found.T if axis == 0 else found
        wanted = [0, 0, height, told, told, height, 0, 0]
        assert found[5, 6:14] == pytest.approx(np.array(wanted), abs=1e-4)


def test_detail_is_the_second_derivative_at_equal_contrast():
    """A chequered pattern of ±d has second derivatives of 8 d and a spread of d."""
    board = np.indices((20, 20)).sum(0) % 2 * 2 - 1
    inside = np.zeros((20, 20), bool)
    inside[2:-2, 2:-2] = True
    for d, told in ((40, 8), (4, 8), (1, 4)):
        rgb = np.repeat((100 + d * board)[..., None], 3, -1).astype(np.uint8)
        assert _detail(rgb, inside) == pytest.approx(told, rel=1e-3)
        assert sharpness(rgb, known(near=inside, detail=4.0)) == pytest.approx(told / 4, rel=1e-3)
        assert _detail(rgb, np.zeros_like(inside)) == 0


def test_masks_grow_and_shrink_by_half_a_window():
    mask = np.zeros((30, 30), bool)
    mask[10:20, 12:18] = True
    for size in (3, 5, 9):
        r = size // 2
        grown = np.zeros_like(mask)
        grown[10 - r : 20 + r, 12 - r : 18 + r] = True
        assert np.array_equal(_dilated(mask, size), grown)
        assert np.array_equal(_eroded(grown, size), mask)
    assert _shrink(np.zeros((60, 80, 3), np.uint8)).shape == (120, 160, 3)
    assert _shrink(np.zeros((2, 800), np.float32)).shape == (1, 160)


def table(width: int = 640, height: int = 480) -> np.ndarray:
    ids = np.full((height, width), FLOOR)
    ids[100:300, 200:400] = TABLE
    return ids


def test_a_work_surface_has_an_outline_away_from_what_moves_and_from_the_border():
    ids = table()
    reference = Reference(still(ids))
    assert reference.unit == 1
    rows, columns, margin = reference.surface
    wanted = {(299, c) for c in range(200, 400)} | {(r, 399) for r in range(100, 300)}
    assert margin == 14
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == wanted
    ids[280:310, 300:320] = ROBOT
    ids[200:210, 405:420] = BOX
    rows, columns, _ = Reference(still(ids)).surface
    hidden = {(r, c) for r, c in wanted if 300 - 7 <= c < 320 + 7 and r >= 280 - 7}
    hidden |= {(r, c) for r, c in wanted if c >= 405 - 7 and 200 - 7 <= r < 210 + 7}
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == wanted - hidden
    filled = np.full((480, 640), TABLE)
    filled[:, :10] = filled[:, -10:] = filled[:10] = filled[-10:] = FLOOR
    assert len(Reference(still(filled)).surface[0]) == 0, "within 14 pixels of the border"
    assert Reference(still(table(320, 400))).surface[2] == 7
    assert Reference(still(table(210, 400))).surface[2] == 6


@pytest.mark.parametrize(
    ("rows", "columns", "robot", "points"),
    [((200, 220), (250, 270), None, 76), ((200, 214), (250, 264), None, 0), ((200, 220), (250, 260), None, 56),
     ((200, 220), (250, 270), 274, 76), ((200, 220), (250, 270), 273, 0), ((0, 60), (250, 270), None, 0),
     ((0, 20), (100, 310), None, 0), ((0, 200), (100, 300), None, 0)],
)  # fmt: skip
def test_the_outline_of_an_object_is_whole_and_free(rows, columns, robot, points):
    """200 pixels are needed, no robot within four, and nine tenths of the outline off the picture's border."""
    ids = table()
    ids[slice(*rows), slice(*columns)] = BOX
    if robot:
        ids[205:215, robot : robot + 10] = ROBOT
    assert len(Reference(still(ids)).outline) == points


def test_borders_of_the_simulated_things_are_looked_at_by_two_pixels():
    ids = table()
    near = Reference(still(ids)).near
    rows, columns = np.indices(ids.shape)
    # The table's own border pixels, and two about them.
    outer = (rows >= 98) & (rows < 302) & (columns >= 198) & (columns < 402)
    inner = (rows >= 103) & (rows < 297) & (columns >= 203) & (columns < 397)
    assert np.array_equal(near, outer & ~inner)


@pytest.mark.parametrize(("dx", "dy"), [(3, -2), (-4, 4), (0, 4), (1, 0)])
def test_a_part_of_the_robot_is_found_where_it_was_moved_to(dx, dy):
    grey = np.kron(noise(4, (40, 40)), np.ones((3, 3), np.uint8))
    wide = np.zeros((120, 320), np.uint8)
    wide[:, 100:220] = grey
    edges = gate_skeleton._edges(wide)
    radius = 9
    patches = tuple(
        Patch(name, u, v, edges[v - radius : v + radius + 1, u - radius : u + radius + 1].copy(), np.ones((19, 19), np.float32))
        for name, u, v in (("a", 140, 40), ("b", 180, 70))
    )  # fmt: skip
    assert skeleton_fit(wide, patches) == gate_skeleton.SkeletonFit(2, 0.0, "")
    moved = skeleton_fit(np.roll(wide, (dy, dx), (0, 1)), patches)
    assert (moved.points, moved.worst_px) == (2, pytest.approx(2 * np.hypot(dx, dy)))
    assert moved.worst in ("a", "b")
    # One that correlates surely counts by itself.
    assert skeleton_fit(np.roll(wide, (dy, dx), (0, 1)), patches[:1]).worst == "a"
    assert skeleton_fit(wide, ()) == gate_skeleton.SkeletonFit(0, 0.0, "")


def test_one_part_that_is_hardly_found_elsewhere_is_none_and_two_are(monkeypatch):
    def scores(edges, patch, reach):
        out = np.full((2 * reach + 1, 2 * reach + 1), 0.1, np.float32)
        out[reach, reach], out[reach, reach + 2] = patch.u / 100, patch.v / 100
        return out

    monkeypatch.setattr(gate_skeleton, "_scores", scores)
    empty = np.zeros((1, 1), np.float32)

    def told(*pairs: tuple[int, int]) -> float:
        return skeleton_fit(
            np.zeros((9, 640), np.uint8), tuple(Patch(f"{u}", u, v, empty, empty) for u, v in pairs)
        ).worst_px

    assert told((40, 65)) == 0
    assert told((40, 65), (45, 60)) == 2
    assert told((40, 65), (45, 50)) == 0
    assert told((40, 71)) == 2
    assert told((40, 71), (45, 60)) == 2
    assert told((65, 71)) == 0


def test_points_of_a_skeleton_lie_on_joints_and_a_quarter_apart_between_links():
    robot = make_robot()
    poses = np.tile(np.eye(4), (len(robot.links), 1, 1))
    poses[:, 0, 3] = 4 * np.arange(len(robot.links))
    source = still(table())
    head = type(source.header)("t", 15, 1 / 495, (robot,), source.header.cameras)
    points = gate_skeleton._points(type(source)(**{**vars(source), "header": head, "T_world_link": (poses,)}))
    assert len(points) == 5 * len(robot.joints)
    assert [name for name, _ in points[::5]] == [
        "base – turret", "turret – carriage", "carriage – hand", "hand – left", "hand – right",
    ]  # fmt: skip
    # The first joint stands 0.1 m above its parent, whose origin is 4 m from the child's.
    assert [p.tolist() for _, p in points[:5]] == [[0, 0, 0.1], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]
    assert points[20][1].tolist() == [12, 0, 0.05]
    assert points[24][1].tolist() == [20, 0, 0]


def test_depth_agrees_by_rank_where_something_was_hit():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 3, (16, 20)).astype(np.float32)
    inverse = (1 / depth).astype(np.float32)
    assert depth_agreement(inverse**3 * 5 - 2, depth) == pytest.approx(1)
    assert depth_agreement(depth, depth) == pytest.approx(-1)
    assert depth_agreement(np.ones_like(depth), depth) == 0
    few, more = depth.copy(), depth.copy()
    few.ravel()[15 * 7 :] = 0  # 15 places of every seventh
    more.ravel()[15 * 7 + 1 :] = 0
    assert depth_agreement(depth, few) == 1, "too few to tell"
    assert depth_agreement(depth, more) == pytest.approx(-1)
    unknown = inverse.copy()
    unknown[:, :10] = np.nan
    assert depth_agreement(unknown, depth) == pytest.approx(1)


def report(*checks: GateCheck) -> GateReport:
    return GateReport(checks)


def test_bounds_hold_their_own_value():
    assert [_at_least("a", v, 0.5, "d").passed for v in (0.49, 0.5, 0.51)] == [False, True, True]
    assert [_at_most("a", v, 0.5, "d").passed for v in (0.49, 0.5, 0.51)] == [True, True, False]
    assert [_between("a", v, 1, 2, "d").passed for v in (0.9, 1, 2, 2.1)] == [False, True, True, False]
    assert (_at_least("a", 1, 0.5, "d").limit, _at_most("a", 1, 2, "d").limit, _between("a", 1, 0, 2, "").limit) == (
        ">= 0.5", "<= 2", "0 .. 2",
    )  # fmt: skip
    mixed = report(_at_least("a", 1, 0.5, "x"), _at_least("b", 0.12345, 0.5, "dim"), _at_most("c", 3, 2, ""))
    assert not mixed.passed
    assert mixed.reasons == ("b 0.123 (limit >= 0.5): dim", "c 3 (limit <= 2)")
    assert report().passed


def test_worlds_are_compared_by_small_pictures():
    shades = [np.full((48, 64, 3), v, np.uint8) for v in (100, 104, 150)]
    table = distances(shades)
    assert table[0, 1] == table[1, 0] < table[1, 2] < table[0, 2]
    assert not np.diag(table).any()
    marks = {"near": thumbnail(shades[1]), "far": thumbnail(shades[2])}
    assert marks["near"].shape == (32 * 24, 3)
    away = float(table[0, 1])
    assert duplicate_of(shades[0], marks, away + 0.01) == "near"
    assert duplicate_of(shades[0], marks, away) == ""
    assert duplicate_of(shades[0], {}, 99.0) == ""
    assert gate_identity(GateLimits(), "d") != gate_identity(GateLimits()) != gate_identity(GateLimits(duplicate=3.0))
