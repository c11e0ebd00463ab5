# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics, timed paths and scene variations: laws on both demo robots."""

from __future__ import annotations

import numpy as np
import pytest
import usd_stages
from hypothesis import given, settings
from hypothesis import strategies as st
from pxr import Usd, UsdGeom, UsdPhysics
from strategies import random_poses, seeds

from retake.core.errors import InputError, StageError
from retake.core.geometry import axis_angle, transform
from retake.newton.pick_place import find_hand
from retake.newton.planner import Arm, JointPath, constant_middle, minimum_jerk, rotation_vector
from retake.newton.variation import Variation, apply, sample
from retake.usd.articulation import read_articulations
from retake.usd.bodies import read_object, read_objects
from retake.usd.shapes import link_box
from retake.usd.stage import open_stage
from retake.usd.units import StageUnits

ROBOTS = {}
for _file in (usd_stages.PICK_PLACE, usd_stages.SIXAXIS):
    _stage = open_stage(_file)
    (_robot,) = read_articulations(_stage)
    ROBOTS[_robot.spec.name] = (_stage, _robot)


def arm_of(name):
    stage, robot = ROBOTS[name]
    hand = find_hand(stage, robot.spec)
    T = hand.gripper.T_link_ee.copy()
    T[:3, 3] += T[:3, :3] @ [0, 0, hand.reach]
    return Arm(robot.spec, hand.gripper, T), robot


@pytest.mark.parametrize("name", list(ROBOTS))
@given(seed=seeds)
def test_tool_pose_is_core_kinematics(name, seed):
    """The planner's chain and RobotSpec's tree give one tool pose; its Jacobian is the derivative."""
    arm, robot = arm_of(name)
    rng = np.random.default_rng(seed)
    q = robot.initial_position + rng.normal(scale=0.3, size=len(robot.initial_position))
    base = random_poses(rng, 1)[0]
    T, J = arm.tool(q, base)
    link = robot.spec.link_index(arm.gripper.ee_link)
    np.testing.assert_allclose(T, robot.spec.forward_kinematics(q, base)[link] @ arm.T_link_tool, atol=1e-9)
    for column, dof in enumerate(arm.dofs):
        step = np.zeros_like(q)
        step[dof] = 1e-6
        moved, _ = arm.tool(q + step, base)
        np.testing.assert_allclose((moved[:3, 3] - T[:3, 3]) / 1e-6, J[:3, column], atol=1e-5)
        np.testing.assert_allclose(rotation_vector(moved[:3, :3] @ T[:3, :3].T) / 1e-6, J[3:, column], atol=1e-4)


@pytest.mark.parametrize("name", list(ROBOTS))
@given(seed=seeds)
def test_solution_reaches_and_respects_limits(name, seed):
    """A pose that the arm can take nearby is reached, inside every limit, fingers untouched."""
    arm, robot = arm_of(name)
    rng = np.random.default_rng(seed)
    base, home = robot.T_world_link[0], robot.initial_position
    near = home.copy()
    near[list(arm.dofs)] += rng.uniform(-0.25, 0.25, len(arm.dofs))
    goal, _ = arm.tool(near, base)
    q = arm.solve(goal, home, base, posture=home)
    T, _ = arm.tool(q, base)
    assert np.abs(T[:3, 3] - goal[:3, 3]).max() < 1e-4
    assert np.abs(rotation_vector(T[:3, :3] @ goal[:3, :3].T)).max() < 1e-3
    movable = [j for j in robot.spec.joints if j.kind != "fixed"]
    assert all(j.lower <= v <= j.upper for j, v in zip(movable, q, strict=True))
    fingers = [robot.spec.dof_index(n) for n in arm.gripper.finger_joints]
    np.testing.assert_array_equal(q[fingers], home[fingers])


def test_out_of_reach_is_said():
    arm, robot = arm_of("SixAxis")
    goal = np.eye(4)
    goal[:3, 3] = (3, 0, 0)
    with pytest.raises(StageError, match=r"robot 'SixAxis' cannot reach \[3.0, 0.0, 0.0\] m"):
        arm.solve(goal, robot.initial_position, np.eye(4))


@pytest.mark.parametrize("name", list(ROBOTS))
@given(width=st.floats(0.0, 0.075))
def test_finger_targets_put_the_pads_where_asked(name, width):
    """The gap between the finger pads (their colliders' inner faces) is the asked width."""
    stage, robot = ROBOTS[name]
    hand = find_hand(stage, robot.spec)
    assert hand.width_open == pytest.approx({"Panda": 0.08, "SixAxis": 0.09}[name], abs=1e-4)
    targets = hand.finger_targets(width / 2)
    q = robot.initial_position.copy()
    for joint, target in zip(hand.gripper.finger_joints, targets, strict=True):
        q[robot.spec.dof_index(joint)] = target
    links = robot.spec.forward_kinematics(q, np.eye(4))
    T_ee = links[robot.spec.link_index(hand.gripper.ee_link)] @ hand.gripper.T_link_ee
    faces = []
    for joint in robot.spec.joints:
        if joint.name in hand.gripper.finger_joints:
            box = link_box(
                stage, robot.spec.links[joint.child_link].prim_path, StageUnits.of(stage), colliders_only=True
            )
            corners = np.stack(np.meshgrid(*box.T, indexing="ij"), -1).reshape(8, 3)
            y = transform(np.linalg.inv(T_ee) @ links[joint.child_link], corners)[:, 1]
            faces.append(min(y, key=abs))
    assert abs(abs(faces[0] - faces[1]) - width) < 1e-5


@given(st.floats(0, 1), st.floats(0, 1))
def test_timings_rise_from_rest_to_rest(a, b):
    for timing in (minimum_jerk, constant_middle):
        low, high = sorted((a, b))
        assert timing(low) <= timing(high) + 1e-12
        assert timing(0) == 0
        assert timing(1) == 1
        assert timing(1 - a) == pytest.approx(1 - timing(a), abs=1e-9)
        assert timing(1e-4) < 1e-6


@given(st.floats(0.21, 0.78))
def test_middle_has_constant_velocity(s):
    assert (constant_middle(s + 0.01) - constant_middle(s)) / 0.01 == pytest.approx(1.25, abs=1e-9)


@given(seeds)
def test_path_passes_its_knots_smoothly(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.2, 6))
    path = JointPath(times, rng.normal(size=(6, 3)))
    for t, q in zip(times, path.q, strict=True):
        np.testing.assert_allclose(path.at(float(t)), q, atol=1e-12)
    np.testing.assert_array_equal(path.at(-1.0), path.q[0])
    np.testing.assert_array_equal(path.at(99.0), path.q[-1])
    for t in times[1:-1]:
        before = (path.at(t) - path.at(t - 1e-6)) / 1e-6
        after = (path.at(t + 1e-6) - path.at(t)) / 1e-6
        np.testing.assert_allclose(before, after, rtol=0.02, atol=0.05)


@given(seeds, st.floats(0, np.pi - 1e-3))
def test_rotation_vector_inverts_axis_angle(seed, angle):
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    v = rotation_vector(axis_angle(axis, np.float64(angle)))
    np.testing.assert_allclose(v, axis * angle, atol=1e-5)


def test_rotation_vector_at_half_a_turn():
    for axis in np.eye(3):
        v = rotation_vector(axis_angle(axis, np.float64(np.pi)))
        np.testing.assert_allclose(np.abs(v), axis * np.pi, atol=1e-6)


RANGES = {
    "object_offset_m": [[-0.05, 0.05], [0.0, 0.1]],
    "object_yaw_deg": [-30, 30],
    "object_scale": [[0.8, 1.2], [1.0, 1.0], [0.9, 1.1]],
    "object_mass_kg": [0.05, 0.2],
    "target_offset_m": [[-0.1, 0.0], [0.0, 0.0]],
    "drop_height_m": 0.04,
}


@given(seeds)
def test_draws_stay_in_range_and_repeat(seed):
    v = sample(RANGES, seed)
    assert v == sample(dict(reversed(RANGES.items())), seed)
    assert -0.05 <= v.object_offset_m[0] <= 0.05
    assert 0 <= v.object_offset_m[1] <= 0.1
    assert v.object_scale[1] == 1.0
    assert 0.05 <= v.object_mass_kg <= 0.2
    assert v.drop_height_m == 0.04
    assert v.friction is None
    # One quantity fixed: the others keep their draw.
    fixed = sample({**RANGES, "object_yaw_deg": 3.0}, seed)
    assert fixed.object_yaw_deg == 3.0
    assert fixed.object_mass_kg == v.object_mass_kg


def test_bad_ranges():
    for value in ("wide", [1, 2, 3], [float("nan"), 1.0]):
        with pytest.raises(InputError, match=r"randomise.object_mass_kg is"):
            sample({"object_mass_kg": value}, 0)


@settings(max_examples=10)
@given(seeds)
def test_variation_is_what_the_reader_then_reads(seed):
    """Physics and pixels see the stage, so the stage itself must hold the varied size, mass, place and tray."""
    v = sample(RANGES, seed)
    stage = Usd.Stage.Open(str(usd_stages.PICK_PLACE))
    stage.SetEditTarget(stage.GetSessionLayer())  # layers are shared by all stages of a process
    robots = read_articulations(stage)
    (before,) = read_objects(stage, robots)
    tray = stage.GetPrimAtPath("/World/Tray")
    units = StageUnits.of(stage)
    tray_before = read_object(tray, units, movable=False)
    apply(stage, v, before, tray)
    (after,) = read_objects(stage, robots)
    np.testing.assert_allclose(after.spec.size_m, np.array(before.spec.size_m) * v.object_scale, rtol=1e-5)
    assert after.spec.mass_kg == pytest.approx(v.object_mass_kg, rel=1e-6)
    moved = after.T_world_object[:3, 3] - before.T_world_object[:3, 3]
    np.testing.assert_allclose(moved[:2], v.object_offset_m, atol=1e-6)
    bottoms = [o.T_world_object[2, 3] - o.spec.size_m[2] / 2 for o in (before, after)]
    assert bottoms[0] == pytest.approx(bottoms[1], abs=1e-6)
    yaw = np.degrees(np.arctan2(after.T_world_object[1, 0], after.T_world_object[0, 0]))
    assert yaw == pytest.approx(v.object_yaw_deg, abs=1e-4)
    tray_after = read_object(tray, units, movable=False)
    shift = (
        transform(tray_after.T_world_object, np.array(tray_after.spec.center_m))
        - transform(tray_before.T_world_object, np.array(tray_before.spec.center_m))
    )[:2]
    np.testing.assert_allclose(shift, v.target_offset_m, atol=1e-6)
    # Nothing reaches the file.
    assert "variation" not in stage.GetRootLayer().ExportToString()


def test_default_variation_changes_nothing():
    stage = Usd.Stage.Open(str(usd_stages.PICK_PLACE))
    (before,) = read_objects(stage, read_articulations(stage))
    apply(stage, Variation(), before, stage.GetPrimAtPath("/World/Tray"))
    (after,) = read_objects(stage, read_articulations(stage))
    np.testing.assert_allclose(after.T_world_object, before.T_world_object, atol=1e-7)
    assert after.spec == before.spec


@given(seeds)
def test_variation_on_a_y_up_stage(seed):
    rng = np.random.default_rng(seed)
    offset = (float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)))
    stage = usd_stages.pendulum(up="Y")
    usd_stages.add_body(stage, "/World/Box", (0.3, 0.5, 0.1), 0.2, 1.0)
    target = UsdGeom.Xform.Define(stage, "/World/Bin")
    UsdPhysics.CollisionAPI.Apply(UsdGeom.Cube.Define(stage, "/World/Bin/c").GetPrim())
    robots = read_articulations(stage)
    (before,) = read_objects(stage, robots)
    apply(stage, Variation(object_offset_m=offset, target_offset_m=offset), before, target.GetPrim())
    (after,) = read_objects(stage, robots)
    np.testing.assert_allclose(after.T_world_object[:3, 3] - before.T_world_object[:3, 3], [*offset, 0], atol=1e-6)
    moved = read_object(target.GetPrim(), StageUnits.of(stage), movable=False)
    np.testing.assert_allclose(transform(moved.T_world_object, np.array(moved.spec.center_m)), [*offset, 0], atol=1e-6)
