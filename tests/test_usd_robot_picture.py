# SPDX-License-Identifier: Apache-2.0
"""The picture of what was found: the camera looks where it should, every view shows the robot, open differs from closed."""

from __future__ import annotations

import numpy as np
import pytest
import usd_stages
from hypothesis import given
from hypothesis import strategies as st
from pxr import UsdGeom

from retake.core.geometry import is_rigid, transform
from retake.usd.articulation import read_articulations
from retake.usd.robot_picture import BACKGROUND, DOT, TILE, _look_at, draw_robots
from retake.usd.stage import open_stage

numbers = st.floats(-2, 2)


@given(st.tuples(numbers, numbers, numbers), st.floats(0, 6.2), st.floats(-1.2, 1.2), st.floats(0.1, 5))
def test_the_camera_sees_the_middle_ahead_and_up_above(middle, yaw, pitch, distance):
    direction = 3 * np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    up = np.array([0, 0, 1.0])
    T_camera_world = _look_at(np.array(middle), direction, up, distance)
    assert is_rigid(T_camera_world)
    assert np.allclose(transform(T_camera_world, np.array(middle)), [0, 0, distance], atol=1e-9)
    nearer = transform(T_camera_world, np.array(middle) + 0.01 * direction)
    assert 0 < nearer[2] < distance
    above = transform(T_camera_world, np.array(middle) + 0.01 * up)
    assert above[1] < -1e-4, "image rows grow downwards"
    assert abs(above[0]) < 1e-9


@pytest.mark.parametrize("file", [usd_stages.PICK_PLACE, usd_stages.SIXAXIS])
def test_a_row_shows_the_robot_its_end_open_and_closed(file):
    stage = open_stage(file)
    robots = read_articulations(stage)
    picture = draw_robots(stage, robots)
    assert picture.shape == (TILE * sum(len(r.spec.grippers) for r in robots), 3 * TILE, 3)
    whole, opened, closed = (picture[30:TILE, k * TILE : (k + 1) * TILE] for k in range(3))
    dots = np.argwhere((whole == DOT).all(-1))
    assert len(dots) > 50
    assert np.abs(dots.mean(0) - [TILE / 2 - 30, TILE / 2]).max() < 0.25 * TILE, "the robot is in the middle"
    assert (opened != closed).any(-1).sum() > 200
    assert (whole != opened).any(-1).sum() > 1500, "the end is seen from near"


def test_no_robots_are_an_empty_picture_and_an_end_without_fingers_has_no_closed_view():
    stage = usd_stages.pendulum()
    assert (draw_robots(stage, ()) == BACKGROUND).all()
    picture = draw_robots(stage, read_articulations(stage))
    assert picture.shape[1] == 2 * TILE
    assert (picture == DOT).all(-1).any()


def test_robots_of_plain_boxes_are_seen_by_their_edges():
    """Primitive shapes and meshes of few vertices have little more than corners."""
    boxes = usd_stages.pendulum()
    meshes = usd_stages.pendulum()
    corners = [(x, y, z) for x in (-0.05, 0.05) for y in (-0.05, 0.05) for z in (-0.05, 0.05)]
    faces = [0, 1, 3, 2, 4, 6, 7, 5, 0, 4, 5, 1, 2, 3, 7, 6, 0, 2, 6, 4, 1, 5, 7, 3]
    for link in ("base", "swing", "tip"):
        meshes.RemovePrim(f"/World/Arm/{link}/shape")
        mesh = UsdGeom.Mesh.Define(meshes, f"/World/Arm/{link}/shape")
        mesh.CreatePointsAttr(corners)
        mesh.CreateFaceVertexCountsAttr([4] * 6)
        mesh.CreateFaceVertexIndicesAttr(faces)
    seen = [(draw_robots(stage, read_articulations(stage))[:, :TILE] == DOT).all(-1) for stage in (boxes, meshes)]
    assert seen[0].sum() > 300
    assert (seen[0] == seen[1]).all()
