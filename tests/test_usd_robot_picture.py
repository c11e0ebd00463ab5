# SPDX-License-Identifier: Apache-2.0
"""The picture of what was found: the camera looks where it should, every view shows the robot, open differs from closed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import usd_stages
from hypothesis import given
from hypothesis import strategies as st
from pxr import Gf, UsdGeom, UsdPhysics

from retake.core.geometry import is_rigid, transform
from retake.usd import robot_picture
from retake.usd.articulation import read_articulations
from retake.usd.robot_picture import BACKGROUND, DOT, TILE, _dots, _look_at, _view, draw_robots
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


def test_a_view_of_nothing_is_its_title_on_the_ground() -> None:
    title = "a robot whose name is longer than what one line of a picture can hold"
    expected = np.full((420, 420, 3), (38, 42, 48), np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(expected, title[:52], (10, 22), font, 0.45, (240, 240, 240), 1, cv2.LINE_AA)
    nothing: Any = SimpleNamespace()
    seen = _view(nothing, [np.zeros((0, 3))], np.eye(4)[None], None, 1.0, title, whole=True)
    assert np.array_equal(seen, expected)


def test_dots_are_drawn_up_to_the_border_and_not_behind_the_camera() -> None:
    K = np.array([[620.0, 0, 210], [0, 620, 210], [0, 0, 1]])
    pixels = [(0, 0), (419, 419), (0, 419), (7, 300), (420, 5), (5, 420), (-1, 5), (5, -1)]
    points = [
        ((u - 210) / 620 * z, (v - 210) / 620 * z, z)
        for (u, v), z in zip(pixels, (1, 2, 0.5, 3, 1, 1, 1, 1), strict=True)
    ]
    behind = [(0, 0, 0.009), (0.1, 0.1, -1), (0, 0, 0)]
    canvas = np.zeros((420, 420, 3), np.uint8)
    _dots(canvas, np.array([*points, *behind], float), K, np.eye(4))
    drawn = {(int(u), int(v)) for v, u in np.argwhere(canvas.any(-1))}
    assert drawn == set(pixels[:4])
    assert canvas[300, 7].tolist() == [150, 158, 168]


def looks(monkeypatch: pytest.MonkeyPatch, stage: Any) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """What each view of a stage's robots is taken at: middle, direction, what is up, distance."""
    seen = []
    monkeypatch.setattr(robot_picture, "_look_at", lambda *at: seen.append(at) or _look_at(*at))
    draw_robots(stage, read_articulations(stage))
    return seen


def test_the_whole_robot_is_seen_and_its_end_from_near(monkeypatch) -> None:
    stage = open_stage(usd_stages.SIXAXIS)
    (robot,) = read_articulations(stage)
    spec, (end,) = robot.spec, robot.spec.grippers
    looked = looks(monkeypatch, stage)
    assert len(looked) == 3
    units = robot_picture.StageUnits.of(stage)
    clouds = [robot_picture.link_outline(stage, link.prim_path, units) for link in spec.links]
    points = np.concatenate([transform(T, c) for T, c in zip(robot.T_world_link, clouds, strict=True) if len(c)])
    ends = np.percentile(np.concatenate([points, robot.T_world_link[:, :3, 3]]), (1, 99), axis=0)
    middle, direction, up, distance = looked[0]
    assert np.allclose(middle, ends.mean(0), atol=1e-4)
    assert np.allclose(direction, (1, -0.75, 0.45))
    assert np.allclose(up, (0, 0, 1))
    assert distance == pytest.approx(np.linalg.norm(ends[1] - ends[0]) * 620 / 420 * 1.15, rel=1e-4)
    for (middle, direction, up, distance), positions in zip(
        looked[1:], (end.open_position, end.closed_position), strict=True
    ):
        at = robot.initial_position.copy()
        at[[spec.dof_index(name) for name in end.finger_joints]] = positions
        T = spec.forward_kinematics(spec.followed(at), robot.T_world_link[spec.root])[spec.link_index(end.ee_link)]
        x, y, z, place = (T @ end.T_link_ee)[:3].T
        assert np.allclose(middle, place + 0.08 * z)
        assert np.allclose(direction, x + 0.25 * y - 0.2 * z)
        assert np.allclose(up, -z)
        assert distance == pytest.approx(0.2 * 2 * 620 / 420 * 1.15)


def test_a_small_free_robot_is_seen_where_it_is_and_not_from_too_near(monkeypatch) -> None:
    stage = usd_stages.empty()
    root = UsdGeom.Xform.Define(stage, "/World/Mite")
    root.AddTranslateOp().Set(Gf.Vec3d(3, 2, 1))
    UsdPhysics.ArticulationRootAPI.Apply(root.GetPrim())
    for name in ("one", "two", "three"):
        usd_stages.add_body(stage, f"/World/Mite/{name}", (0, 0, 0), 0.01, 1.0)
    for one, other in (("one", "two"), ("two", "three")):
        joint = UsdPhysics.RevoluteJoint.Define(stage, f"/World/Mite/{other}_turns")
        joint.CreateBody0Rel().SetTargets([f"/World/Mite/{one}"])
        joint.CreateBody1Rel().SetTargets([f"/World/Mite/{other}"])
    for middle, _, _, distance in looks(monkeypatch, stage)[:1]:
        assert np.allclose(middle, (3, 2, 1), atol=1e-6)
        assert distance == pytest.approx(0.05 * 2 * 620 / 420 * 1.15)


def test_rows_of_fewer_views_are_filled_up_at_the_right(monkeypatch) -> None:
    rows = iter([np.full((420, 420 * n, 3), 9, np.uint8) for n in (1, 3, 2)])
    monkeypatch.setattr(robot_picture, "_row", lambda *told: next(rows))
    robots: Any = [SimpleNamespace(spec=SimpleNamespace(links=(), grippers=ends)) for ends in ((), ("a", "b"))]
    picture = draw_robots(usd_stages.empty(), robots)
    assert picture.shape == (1260, 1260, 3)
    for row, n in enumerate((1, 3, 2)):
        band = picture[420 * row : 420 * row + 420]
        assert (band[:, : 420 * n] == 9).all()
        assert (band[:, 420 * n :] == (38, 42, 48)).all()
