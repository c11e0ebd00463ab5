# SPDX-License-Identifier: Apache-2.0
"""Control maps of frames drawn by hand: what near, steep, touching and kept mean, in numbers that follow from geometry."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from flat_stills import BOX, FLOOR, OBJECTS, ROBOT, TABLE, TIN, down, header, still

from retake.core.camera import Camera
from retake.core.variants.controls import (
    _camera_normals,
    _inverse_depth,
    control_maps,
    feather,
    geometry_edges,
    segment_colours,
)


@pytest.mark.parametrize(("width", "sigma"), [(640, 1.5), (1280, 3.0), (64, 0.5)])
def test_a_soft_mask_is_as_soft_as_a_lens_at_every_width(width, sigma):
    mask = np.zeros((5, width), bool)
    mask[:, width // 2 :] = True
    soft = feather(mask)[2]
    k = np.arange(-20, 21)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    for away in range(3):  # the pixel so far inside sees its own side and as many columns of the other
        inside = weights[k >= -away].sum() / weights.sum()
        assert soft[width // 2 + away] == pytest.approx(inside, abs=0.01)
        assert soft[width // 2 - 1 - away] == pytest.approx(1 - inside, abs=0.01)


def test_a_soft_mask_is_as_soft_across_as_it_is_along():
    mask = np.random.default_rng(0).random((40, 40)) > 0.7
    assert np.allclose(feather(mask).T, feather(mask.T), atol=1e-6)
    point = np.zeros((9, 9), bool)
    point[4, 4] = True
    soft = feather(point)
    assert soft[4, 5] == pytest.approx(soft[5, 4], abs=1e-6)
    assert soft[4, 5] > 0.01


def test_a_normal_that_leans_is_told_by_how_much():
    leaning = np.array([[[19660, 0, -26214], [0, 19660, -26214], [-19660, 0, -26214]]], np.int16)
    told = _camera_normals(still([[2] * 3], normal=leaning, camera=Camera(np.diag([10.0, 10, 1]), np.eye(4), (3, 1))))
    assert told.tolist() == [[[204, 128, 230], [128, 51, 230], [51, 128, 230]]]


def test_near_is_bright_and_far_is_dark():
    """Inverse depths 1, ½ and ¼; the first percentile lies a fiftieth of the way from ¼ to ½: 0.255."""
    found = _inverse_depth(np.array([[1, 2, 4, 0]], np.float32))
    assert found.tolist() == [[255, int(1 + 254 * (0.5 - 0.255) / (1 - 0.255)), 1, 0]]
    assert _inverse_depth(np.array([[3, 3, 0]], np.float32)).tolist() == [[1, 1, 0]]
    assert _inverse_depth(np.zeros((2, 3), np.float32)).tolist() == [[0] * 3] * 2


NORMALS = np.array([[[32767, 0, 0], [0, 32767, 0], [0, 0, -32767], [0, 0, 0]]], np.int16)


def test_normals_are_told_in_the_cameras_axes():
    straight = Camera(np.diag([10.0, 10, 1]), np.eye(4), (4, 1))
    told = _camera_normals(still([[2] * 4], normal=NORMALS, camera=straight))
    assert told.tolist() == [[[255, 128, 128], [128, 0, 128], [128, 128, 255], [128, 128, 255]]]
    turned = np.eye(4)
    turned[:3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # the world's x is the camera's z, its y the x, its z the y
    told = _camera_normals(still([[2] * 4], normal=NORMALS, camera=Camera(np.diag([10.0, 10, 1]), turned, (4, 1))))
    assert told.tolist() == [[[128, 128, 0], [255, 128, 128], [128, 255, 128], [128, 128, 255]]]


def test_an_id_has_a_colour_of_its_own():
    table = segment_colours()
    for number in (*range(1, 30), 300, 9_999, 65_535):
        hue, value = int(number * 0.61803398875 % 1.0 * 179), 255 - number % 5 * 28
        wanted = np.array(colorsys.hsv_to_rgb(hue / 180, 190 / 255, value / 255)) * 255
        assert table[number].max() == value
        assert table[number] == pytest.approx(wanted, abs=1.5)
    assert table[0].tolist() == [0, 0, 0]


def edges(ids, depth_m=1.0, normal=(0, 0, 32767)) -> list[list[int]]:
    return (geometry_edges(still(ids, depth_m, normal)) // 255).tolist()


def tilted(*degrees: float) -> np.ndarray:
    turn = np.radians(degrees)
    return np.round(np.stack([np.sin(turn), 0 * turn, np.cos(turn)], -1) * 32767).astype(np.int16)


def test_an_edge_of_the_geometry_is_on_its_upper_or_left_side():
    one = [[2, 2, 2], [2, 4, 2], [2, 2, 2]]
    assert edges(one) == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert edges([[2] * 3] * 3) == [[0] * 3] * 3
    across, along = tilted(0, 24.5, 50)[None], tilted(0, 25.5, 25.5)[None]
    assert edges([[2] * 3], normal=across) == [[0, 1, 0]], "24.5° and 25.5° apart"
    assert edges([[2] * 3], normal=along) == [[1, 0, 0]]
    assert edges([[2], [2], [2]], normal=np.swapaxes(along, 0, 1)) == [[1], [0], [0]]


def test_a_depth_step_is_two_percent_of_the_nearer():
    assert edges([[2] * 4], depth_m=[[1.0, 1.019, 1.0, 1.021]]) == [[0, 0, 1, 0]]
    assert edges([[2] * 2], depth_m=[[4.0, 4.079]]) == [[0, 0]]
    assert edges([[2] * 2], depth_m=[[4.081, 4.0]]) == [[1, 0]]
    assert edges([[2] * 3], depth_m=[[0.0, 0.0, 1.0]]) == [[0, 1, 0]], "beside nothing there is an edge"
    assert edges([[2, 4, 2]], depth_m=[[0.0, 0.0, 0.0]]) == [[0, 0, 0]], "where nothing was hit there is none"


def touching(width: int, gap: int, subject: int = BOX) -> np.ndarray:
    """The robot left of column 30, an object from `gap` columns beside it on, twenty wide, on a table."""
    ids = np.full((24, width), TABLE)
    ids[:, :30] = ROBOT
    ids[:, 30 + gap : 50 + gap] = subject
    return ids


@pytest.mark.parametrize(("width", "gap", "kept"), [(160, 0, 1), (640, 0, 4), (640, 2, 2), (640, 4, 0), (160, 1, 0)])
def test_of_an_object_that_the_robot_touches_the_contact_is_kept(width, gap, kept):
    """At 640 pixels of width contact reaches four pixels, at 160 one."""
    source = still(touching(width, gap))
    maps = control_maps(source)
    columns = np.nonzero(maps.keep.all(0))[0]
    assert columns.tolist() == [*range(30), *range(30 + gap, 30 + gap + kept)]
    assert (maps.keep.any(0) == maps.keep.all(0)).all()
    assert (maps.contact.max() > 0.3) == (kept > 0)
    if kept:  # as much of the robot as of the object
        middle = maps.contact[12].astype(float)
        assert middle[:30].sum() == pytest.approx(max(0, 4 - gap) if width == 640 else 1, abs=0.6)
    everything = control_maps(source, keep_object=True).keep
    assert np.array_equal(everything, np.isin(source.instance_ids, [ROBOT, BOX]))
    assert np.array_equal(maps.robot > 0.5, source.instance_ids == ROBOT)


def test_the_task_object_is_the_one_that_the_goal_names():
    ids = np.full((24, 60), TABLE)
    ids[:, :10], ids[2:12, 20:34], ids[2:12, 40:54] = ROBOT, BOX, TIN
    for goal, wanted in (({"object": "tin"}, TIN), ({"object": "box"}, BOX), ({"object": "cup"}, BOX), (None, BOX)):
        source = still(ids, head=header(goal=goal))
        assert np.array_equal(control_maps(source).task_object > 0.5, ids == wanted)
    fixed = tuple(type(o)(o.name, o.prim_path, o.label, o.size_m, movable=False) for o in OBJECTS)
    assert control_maps(still(ids, head=header(objects=fixed))).task_object.max() == 0


@pytest.mark.parametrize(("height", "seen"), [(38, False), (41, True)])
def test_a_step_of_the_picture_is_an_edge_above_a_third_of_120(height, seen):
    ids = np.full((20, 20), FLOOR)
    ids[0, 0] = ROBOT
    rgb = np.full((20, 20, 3), 50)
    rgb[:, 10:] += height
    maps = control_maps(still(ids, rgb=rgb, camera=down((20, 20))))
    assert sorted(set(maps.canny.ravel().tolist())) == ([0, 255] if seen else [0])
