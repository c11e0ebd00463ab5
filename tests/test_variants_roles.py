# SPDX-License-Identifier: Apache-2.0
"""What each thing before the camera is to a world, and the scene that all cameras see, of things whose heights are known."""

from __future__ import annotations

import numpy as np
import pytest
from flat_stills import ROBOT, down, header, still
from scenes import make_robot, make_scene_episode

from retake.core.episode import Instance, ObjectSpec
from retake.core.geometry import inverse, transform
from retake.core.variants.correspond import view_at
from retake.core.variants.roles import (
    BACKGROUND,
    CONTAINER,
    FIXTURE,
    SUBJECT,
    SURFACE,
    Roles,
    _demote_fixtures,
    _sample,
    find_roles,
)
from retake.core.variants.roles import ROBOT as IS_ROBOT
from retake.core.variants.scene import (
    CLOUD_CELL_M,
    _gather,
    _links_of,
    _points,
    _thinned,
    robot_clouds,
    scene_of,
)

FLOOR, TABLE, TRAY, BOX, CUP, PIT, LEDGE, BENCH = 1, 2, 6, 4, 7, 8, 9, 10
THINGS = (
    Instance(FLOOR, "/World/Room/Ground", "thing"),
    Instance(TABLE, "/World/Room/Table", "table"),
    Instance(ROBOT, "/World/Arm", "tray", "robot:arm"),
    Instance(TRAY, "/World/Floor/Tray_2", "thing"),
    Instance(BOX, "/World/Box", "floor", "object:box"),
    Instance(CUP, "/World/Cup", "cup", "object:cup"),
    Instance(PIT, "/World/Pit", "pit"),
    Instance(LEDGE, "/World/Ledge", "ledge"),
    Instance(BENCH, "/World/Bench", "bench", "object:nobody"),
)
OBJECTS = (
    ObjectSpec("cup", "/World/Cup", "cup", (0.1, 0.1, 0.1), movable=False),
    ObjectSpec("box", "/World/Box", "box", (0.1, 0.04, 0.05), center_m=(0, 0, 0.01)),
)
EYE_M = 2.0


def source(cells, heights, objects=OBJECTS, **settings):
    """A frame whose every fourth pixel is one cell of these ids, at these heights (m)."""
    ids = np.kron(np.asarray(cells), np.ones((4, 4), int))
    height = np.full(ids.shape, EYE_M)
    for number, z in heights.items():
        height[ids == number] = z
    head = header(THINGS, objects, **settings)
    made = still(ids, EYE_M - height, camera=down(ids.shape[::-1], EYE_M), head=head)
    for k, o in enumerate(objects):
        made.T_world_object[k][2, 3] = {"box": 1.05, "cup": 1.2}[o.name]
    return made


def scene(**more) -> Roles:
    cells = np.full((12, 16), FLOOR)
    cells[2:8, 2:10] = TABLE
    cells[3, 3], cells[3, 5], cells[4, 4], cells[5, 5:7] = BOX, CUP, ROBOT, TRAY
    cells[9, :8], cells[10, :8], cells[11, 12:14] = PIT, LEDGE, BENCH
    heights = {FLOOR: 0.0, TABLE: 1.0, BOX: 1.1, CUP: 1.1, ROBOT: 1.5, TRAY: 1.02, PIT: 0.75, LEDGE: 0.78, BENCH: 0.5}
    return find_roles(source(cells, {**heights, **more}))


def test_every_thing_has_its_role():
    """The box's lowest place is 1.05 + 0.01 - 0.05 = 1.01: what ends 25 cm below that is no place to work on."""
    found = scene()
    wanted = {
        0: BACKGROUND, FLOOR: BACKGROUND, TABLE: SURFACE, ROBOT: IS_ROBOT, TRAY: CONTAINER, BOX: SUBJECT, CUP: CONTAINER,
        PIT: BACKGROUND, LEDGE: FIXTURE, BENCH: CONTAINER, 999: SURFACE,
    }  # fmt: skip
    assert {number: int(found.role[number]) for number in wanted} == wanted
    assert found.object_index[BOX] == 1
    assert not np.delete(found.object_index, BOX).any()
    assert found.task_object == 1
    assert found.support_z == pytest.approx(1)
    assert found.anchor.floor_z == pytest.approx(0)
    assert found.anchor.eye == found.anchor.low == found.anchor.high == (0, 0, EYE_M)


def test_the_middle_of_the_work_surface_is_the_scenes():
    found = scene()
    # Columns 2 to 9 and rows 2 to 7 of cells four pixels wide, seen by their first pixel; less what stands on the table.
    cells = [
        (r, c) for r in range(2, 8) for c in range(2, 10) if (r, c) not in ((3, 3), (3, 5), (4, 4), (5, 5), (5, 6))
    ]
    rows, columns = np.array(cells).T
    x = (4 * columns + 0.5 - 32) / 100
    y = -(4 * rows + 0.5 - 24) / 100
    assert found.anchor.center == pytest.approx((np.median(x), np.median(y)), abs=1e-5)


@pytest.mark.parametrize(("floor_z", "told"), [(0.84, 0.84), (0.86, 0.25), (1.0, 0.25), (0.3, 0.3)])
def test_background_at_table_height_is_no_floor(floor_z, told):
    """Then the work surface is the floor itself, and what lies under it is 75 cm below."""
    assert scene(**{}).anchor.floor_z == pytest.approx(0)
    found = find_roles(source(np.where(np.indices((8, 8))[0] < 4, FLOOR, TABLE), {FLOOR: floor_z, TABLE: 1.0}))
    assert found.anchor.floor_z == pytest.approx(told)
    assert found.support_z == pytest.approx(1)


@pytest.mark.parametrize(
    ("floor", "table", "floor_z", "support"), [(20, 8, 0.0, 1.0), (19, 8, 0.25, 1.0), (20, 7, 0.0, 1.01)]
)
def test_a_few_pixels_say_nothing_of_a_height(floor, table, floor_z, support):
    """20 of the floor and 8 of the table are needed; else the table is where the box's lowest place is, the floor 75 cm below."""
    cells = np.zeros(36, int)
    cells[:floor], cells[floor : floor + table] = FLOOR, TABLE
    found = find_roles(source(cells.reshape(6, 6), {FLOOR: 0.0, TABLE: 1.0}))
    assert (found.anchor.floor_z, found.support_z) == (pytest.approx(floor_z), pytest.approx(support))


def test_without_objects_or_anything_to_see_there_are_roles_all_the_same():
    bare = find_roles(source(np.full((6, 6), TABLE), {TABLE: 0.4}, objects=()))
    assert bare.task_object == -1
    assert bare.support_z == pytest.approx(0.4)
    assert bare.anchor.floor_z == pytest.approx(0.4 - 0.75)
    nothing = find_roles(source(np.zeros((6, 6), int), {}, objects=()))
    assert (nothing.support_z, nothing.anchor.floor_z) == (0, -0.75)
    assert nothing.anchor.center == (0, 0)


def test_the_task_is_about_the_object_that_the_goal_names_if_it_can_be_moved():
    tin = ObjectSpec("tin", "/World/Cup", "tin", (0.1, 0.1, 0.1))
    two = (OBJECTS[1], tin)
    made = source(np.full((3, 3), TABLE), {TABLE: 1.0}, objects=OBJECTS)
    for goal, task in (({"object": "tin"}, 1), ({"object": "box"}, 0), ({}, 0), ("tin", 0)):
        head = header(THINGS, two, goal=goal)
        assert find_roles(type(made)(**{**vars(made), "header": head})).task_object == task
    head = header(THINGS, OBJECTS, goal={"object": "cup"})
    assert find_roles(type(made)(**{**vars(made), "header": head})).task_object == 1, "the cup cannot be moved"


@pytest.mark.parametrize(("depth", "role"), [(0.7, SURFACE), (0.69, FIXTURE)])
def test_a_surface_half_as_large_is_a_fixture(depth, role):
    """Areas of boxes about the points seen: 1 x 1.4, and 1 x 0.7 or a little less."""
    role_of, corners = np.full(65536, SURFACE, np.uint8), np.array([[0, 0, 0], [1, 1, 0.0]])
    ids = np.repeat([2, 5, 9], 2)
    role_of[9] = BACKGROUND
    _demote_fixtures(role_of, ids, np.concatenate([corners * [1, 1.4, 1], corners * [1, depth, 1], corners * 9]))
    assert (role_of[2], role_of[5], role_of[9]) == (SURFACE, role, BACKGROUND)


def test_samples_are_every_fourth_pixel_that_hit_something():
    made = source([[TABLE, 0], [FLOOR, BOX]], {TABLE: 1.0, FLOOR: 0.0, BOX: 1.1})
    made.depth_m[:4, 4:] = 0
    ids, points = _sample(made)
    assert ids.tolist() == [TABLE, FLOOR, BOX]
    # Of the pixel (4, 4) of an 8 x 8 picture the middle is half a pixel right of and below the axis, 0.9 m away.
    assert points[2] == pytest.approx([0.005 * 0.9, -0.005 * 0.9, 1.1], abs=1e-6)
    assert points[0] == pytest.approx([-0.035, 0.035, 1.0], abs=1e-6)


def test_points_of_the_scene_are_every_nth_pixel_that_hit_something():
    depth = np.zeros((6, 9), np.float32)
    depth[3, 6], depth[0, 0], depth[1, 1], depth[0, 3] = 1.0, 2.0, 1.0, 1.0
    ids = np.arange(54, dtype=np.uint16).reshape(6, 9)
    found, points = _points(down((9, 6)), depth, ids, 3)
    assert found.tolist() == [0, 3, 33]
    assert points[2] == pytest.approx([(6.5 - 4.5) / 100, -(3.5 - 3) / 100, 1.0], abs=1e-6)
    assert points[0] == pytest.approx([2 * -0.04, 2 * 0.025, 0], abs=1e-6)


def test_of_points_in_one_cell_the_first_is_kept():
    cell = CLOUD_CELL_M
    points = np.array([[0.3, 0, 0], [0.1, 0, 0], [0.6, 0, 0], [0, 0.6, 0], [0, 0.9, 0.1]], np.float32) * np.float32(
        cell
    )
    assert _thinned(points) / cell == pytest.approx(np.array([[0.3, 0, 0], [0, 0.6, 0], [0.6, 0, 0]]), abs=1e-3)


def test_an_id_belongs_to_the_innermost_link_on_its_path():
    robot = make_robot()
    paths = ("/World/Arm/hand", "/World/Arm/hand/mesh", "/World/Arm/handle", "/World/Arm/left/pad", "/World/Other")
    things = tuple(Instance(k + 1, path, "", "robot:arm") for k, path in enumerate(paths))
    others = (Instance(20, "/World/Arm/hand", "", "robot:other"), Instance(21, "/World/Arm/base", "", "robot:arm"))
    head = type(header())("t", 15, 1 / 495, (robot,), (), (), (*things, *others))
    table = _links_of(head, 0)
    assert table[:7].tolist() == [-1, 3, 3, -1, 4, -1, -1]
    assert (table[20], table[21]) == (-1, 0)
    links = (*robot.links, type(robot.links[0])("pad", "/World/Arm/left/pad"))
    nested = type(robot)("arm", "/World/Arm", links[::-1], ())
    assert _links_of(type(head)("t", 15, 1 / 495, (nested,), (), (), things), 0)[4] == 0, "the pad, not the finger"


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    path = tmp_path_factory.mktemp("roles") / "e"
    return make_scene_episode(path, frames=12, size=(320, 96), wrist=True, only=range(5, 7), shadows=False)


def test_the_lead_view_is_the_first_cameras_every_second_pixel_where_it_is(episode):
    """Of a camera 320 pixels wide every second pixel, and its camera sees each of them in the middle of its own."""
    found = scene_of(episode.path, episode.content_sha256, 1)
    lead, view = found.lead, episode.camera_frame("front", 1)
    assert lead.camera_name == "front"
    assert lead.camera.size == (160, 48)
    for own, whole in ((lead.rgb, view.rgb), (lead.depth_m, view.depth_m), (lead.instance_ids, view.instance_ids)):
        assert np.array_equal(own, whole[1::2, 1::2])
    mine = lead.camera.unproject(lead.camera.pixel_grid(), lead.depth_m.astype(float))
    theirs = view.camera.unproject(view.camera.pixel_grid(), view.depth_m.astype(float))[1::2, 1::2]
    assert mine == pytest.approx(theirs, abs=1e-9)
    eyes = [
        inverse(episode.camera(name, t).T_camera_world)[:3, 3] for name, t in (("front", 1), ("front", 0), ("wrist", 0))
    ]
    assert found.eyes[:3] == pytest.approx(np.array(eyes))
    assert len(found.eyes) == 2 + len(episode), "the front camera's place again, and each of the hand's"
    count = sum(int((episode.camera_frame(n, 1).depth_m > 0).sum()) for n in ("front", "wrist"))
    assert len(found.ids) == len(found.points) == count, "every pixel of a camera so small"


def test_a_view_at_the_recording_s_own_size_is_the_recording(episode):
    view, found = episode.camera_frame("front", 1), view_at(episode, "front", 1, (320, 96))
    assert np.array_equal(found.depth_m, view.depth_m)
    assert np.array_equal(found.ids, view.instance_ids)
    assert pytest.approx(view.K) == found.camera.K
    half = view_at(episode, "front", 1, (160, 48))
    # Of each pair the second pixel is picked, whose ray the camera keeps.
    assert np.array_equal(half.depth_m, view.depth_m[1::2, 1::2])
    mine = half.camera.unproject(half.camera.pixel_grid(), half.depth_m.astype(float))
    assert mine == pytest.approx(
        view.camera.unproject(view.camera.pixel_grid(), view.depth_m.astype(float))[1::2, 1::2]
    )


def test_clouds_of_links_lie_on_their_links(episode):
    (clouds,) = robot_clouds(episode.path, episode.content_sha256)
    robot = episode.header.robots[0]
    assert [link for link, _ in clouds] == sorted(link for link, _ in clouds)
    assert {robot.links[link].name for link, _ in clouds} >= {"hand", "left", "right"}
    table = _links_of(episode.header, 0)
    poses = episode.link_poses("arm")[1]
    view = episode.camera_frame("front", 1)
    gathered: dict[int, list[np.ndarray]] = {}
    ids, points = _points(view.camera, view.depth_m, view.instance_ids, 1)
    _gather(gathered, table, ids, points, episode, 0, 1)
    for link, parts in gathered.items():
        assert transform(poses[link], np.concatenate(parts).astype(float)) == pytest.approx(
            points[table[ids] == link], abs=1e-5
        )
    for link, cloud in clouds:  # both moments' points are of one shape: no link is as large as the robot
        assert np.ptp(cloud, axis=0).max() < 0.9, robot.links[link].name
        assert len(np.unique(np.round(cloud / CLOUD_CELL_M), axis=0)) == len(cloud)
