# SPDX-License-Identifier: Apache-2.0
"""Small stages as real tools write them: each reads, and what must come out of it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pxr import Usd, UsdPhysics

from retake.core.errors import StageError
from retake.core.geometry import CV_FROM_USD
from retake.core.robot import WORLD, RobotSpec
from retake.usd.articulation import Articulation, find_articulations, read_articulations
from retake.usd.bodies import choose_objects, find_objects
from retake.usd.camera import camera_prim, read_camera, usable_cameras
from retake.usd.stage import ensure_physics_scene, open_stage, time_at

FOLDER = Path(__file__).parent / "stages"
STAGES = {path.stem.split("_", 1)[0] + ("_" + path.stem.split("_")[-1] if "mimic" in path.stem else ""): path
          for path in sorted(FOLDER.glob("*.usda"))}  # fmt: skip


def stage(key: str) -> Usd.Stage:
    return open_stage(STAGES[key])


def only(key: str) -> Articulation:
    (robot,) = read_articulations(stage(key))
    return robot


@pytest.mark.parametrize("key", STAGES)
def test_every_stage_reads_and_kinematics_give_its_poses(key):
    """No stage refuses; forward kinematics at the stage's own state gives the authored poses; names and paths are distinct."""
    found = find_articulations(stage(key))
    assert found.robots
    assert not found.refused
    assert len({r.spec.name for r in found.robots}) == len(found.robots)
    for robot in found.robots:
        spec = robot.spec
        assert len({link.prim_path for link in spec.links}) == len(spec.links)
        assert len(set(robot.dof_paths)) == len(spec.dof_names) == len(set(spec.dof_names))
        assert [j.prim_path for j in spec.dof_joints] == list(robot.dof_paths)
        poses = spec.forward_kinematics(robot.initial_position, robot.T_world_link[spec.root])
        assert np.abs(poses - robot.T_world_link).max() < 1e-6
        assert RobotSpec.from_json(spec.to_json()).to_json() == spec.to_json()
    find_objects(stage(key))
    usable_cameras(stage(key))


def test_joints_of_one_prim_name_are_told_apart():
    spec = only("r01").spec
    fixed = [joint for joint in spec.joints if joint.kind == "fixed"]
    assert [joint.name for joint in fixed] == ["link2_PhysicsFixedJoint", "tcp_PhysicsFixedJoint"]
    assert spec.dof_names == ("joint1", "joint2", "left_joint", "right_joint")


@pytest.mark.parametrize("key", ["r02", "r26"])
def test_two_robots_of_one_model_are_named_after_their_models(key):
    left, right = read_articulations(stage(key))
    assert (left.spec.name, right.spec.name) == ("LeftArm", "RightArm")
    assert left.spec.dof_names == right.spec.dof_names
    assert not set(left.dof_paths) & set(right.dof_paths)


def test_a_rail_is_a_degree_of_freedom():
    robot = only("r10")
    assert robot.fixed_base
    rail = robot.spec.joints[0]
    assert (rail.name, rail.kind, rail.parent_link, rail.lower, rail.upper) == ("rail", "prismatic", WORLD, -1.0, 1.0)
    q = np.array([0.4, 0.1, 0.2, 0.01, -0.01])
    moved = robot.spec.forward_kinematics(q)
    still = robot.spec.forward_kinematics(q, np.eye(4))
    np.testing.assert_allclose(moved[:, :3, 3] - still[:, :3, 3], [[0.4, 0, 0]] * len(moved), atol=1e-9)


def test_a_hanging_lamp_is_scenery():
    found = find_objects(stage("r11"))
    assert not found.objects
    assert "/World/Lamp hangs on joint /World/Lamp/ball and counts as scenery" in found.notes[0]
    with pytest.raises(StageError, match="/World/Lamp hangs on joint"):
        choose_objects(found, ["/World/Lamp"])


def test_instances_read_as_if_they_were_not():
    (mug,) = find_objects(stage("r13")).objects
    np.testing.assert_allclose(mug.spec.size_m, 0.06, atol=1e-6)
    (gripper,) = only("r14").spec.grippers
    np.testing.assert_array_equal(gripper.T_link_ee[:3, 2], [1, 0, 0])


def test_two_props_of_one_prim_name():
    mugs = find_objects(stage("r15")).objects
    assert [(m.spec.name, m.spec.label) for m in mugs] == [("mug_0", "mug_0"), ("mug_1", "mug_1")]


def test_a_camera_with_time_samples_has_its_pose_at_a_time():
    opened = stage("r16")
    prim = camera_prim(opened, "/World/Camera")
    first, last = read_camera(prim, (640, 480)), read_camera(prim, (640, 480), time_at(opened, 1.0))
    np.testing.assert_allclose(first.T_world_camera[:3, 3], [1.6, -1.3, 1.0])
    np.testing.assert_allclose(last.T_world_camera[:3, 3], [1.6, 1.3, 1.0])
    np.testing.assert_allclose([first.K[0, 0], last.K[0, 0]], [640 * 18 / 20.955, 640 * 30 / 20.955])
    assert np.abs(first.T_world_camera[:3, :3] - CV_FROM_USD[:3, :3]).max() > 0.1


def test_an_unusable_camera_is_left_out_and_refuses_when_chosen():
    opened = stage("r17")
    usable, notes = usable_cameras(opened)
    assert [str(prim.GetPath()) for prim in usable] == ["/World/Camera"]
    assert "/World/ATopView" in notes[0]
    with pytest.raises(StageError, match="/World/ATopView: projection 'orthographic'"):
        read_camera(camera_prim(opened, "/World/ATopView"), (640, 480))


def test_a_mirrored_prop_is_left_out():
    found = find_objects(stage("r19"))
    assert not found.objects
    assert "/World/Mug: a prim's transform mirrors" in found.notes[0]
    with pytest.raises(StageError, match="/World/Mug"):
        choose_objects(found, ["/World/Mug"])


@pytest.mark.parametrize(
    ("key", "ends"),
    [
        ("r03", [("hand", "jaw", ("jaw_joint",), (1, 0, 0))]),
        ("r04", [("hand", "tool", (), (1, 0, 0))]),
        ("r05", []),
        ("r06", [("arm2", "gripper", ("left_joint", "right_joint"), (1, 0, 0))]),
        ("r08", [("hand", "gripper", tuple(f"{s}_{p}_joint" for s in ("left", "right") for p in ("outer", "inner")), (1, 0, 0))]),
        ("r09", [("hand", "hand", tuple(f"f{i}_j{j}" for i in range(4) for j in (1, 2, 3)), (1, 0, 0))]),
        ("r14", [("hand", "gripper", ("left_joint", "right_joint"), (1, 0, 0))]),
        ("r23_physx", [("hand", "gripper", ("left_joint",), (1, 0, 0))]),
        ("r25", [("hand", "gripper", (), (1, 0, 0))]),
        ("r27", [("hand", "gripper", ("left_joint", "right_joint"), (1, 0, 0))]),
    ],
)  # fmt: skip
def test_ends_are_found(key, ends):
    spec = only(key).spec
    assert [(g.ee_link, g.kind, g.finger_joints, tuple(g.T_link_ee[:3, 2])) for g in spec.grippers] == ends
    for gripper in spec.grippers:
        assert gripper.note
        np.testing.assert_allclose(gripper.T_link_ee[:3, :3] @ gripper.T_link_ee[:3, :3].T, np.eye(3), atol=1e-12)
        q = np.zeros(len(spec.dof_names))
        for positions, openness in ((gripper.open_position, 1.0), (gripper.closed_position, 0.0)):
            if gripper.finger_joints:
                q[[spec.dof_index(n) for n in gripper.finger_joints]] = positions
                assert spec.gripper_openness(q)[spec.grippers.index(gripper)] == pytest.approx(openness)
        if not gripper.finger_joints:
            assert "openness is 1 throughout" in gripper.note


def test_a_jaw_opens_at_the_limit_away_from_the_approach():
    (jaw,) = only("r03").spec.grippers
    np.testing.assert_allclose(np.degrees([*jaw.closed_position, *jaw.open_position]), [-10, 100], atol=1e-4)
    assert tuple(jaw.T_link_ee[:3, 1]) == (0, 1, 0)


def test_a_quadruped_says_that_an_end_has_to_be_declared():
    assert any("no end effector was found" in note for note in only("r05").notes)


@pytest.mark.parametrize("key", ["r23_newton", "r23_physx"])
def test_a_follower_follows_and_leads_nothing(key):
    spec = only(key).spec
    right = spec.dof_joints[spec.dof_index("right_joint")]
    assert right.mimic is not None
    assert (right.mimic.leader, right.mimic.factor, right.mimic.offset) == ("left_joint", -1.0, 0.0)
    assert spec.driven == (True, True, True, False)
    assert [spec.dof_names[i] for i in spec.leading_dofs] == ["joint1", "joint2", "left_joint"]
    np.testing.assert_allclose(spec.followed(np.array([0, 0, 0.02, 0.0])), [0, 0, 0.02, -0.02])


def test_a_stage_without_a_physics_scene_gets_earths_gravity():
    opened = stage("r18")
    (note,) = ensure_physics_scene(opened)
    assert "9.81" in note
    assert not ensure_physics_scene(opened)
    assert not opened.GetRootLayer().GetPrimAtPath("/RetakePhysicsScene")
    centimetres = stage("r21")
    for prim in [p for p in centimetres.Traverse() if p.IsA(UsdPhysics.Scene)]:
        centimetres.GetRootLayer().GetPrimAtPath(prim.GetPath()).active = False
    ensure_physics_scene(centimetres)
    scene = UsdPhysics.Scene.Get(centimetres, "/RetakePhysicsScene")
    assert scene.GetGravityMagnitudeAttr().Get() == pytest.approx(981)
    assert scene.GetGravityDirectionAttr().Get() == (0, -1, 0)


def test_one_robot_in_three_ways_of_writing():
    """Centimetres and Y up, a metre robot scaled by 100, variants and payloads: the same robot as the plain one."""
    plain = only("r18")
    for key in ("r21", "r22", "r24"):
        other = only(key)
        np.testing.assert_allclose(other.T_world_link, plain.T_world_link, atol=1e-6)
        for a, b in zip(plain.spec.joints, other.spec.joints, strict=True):
            assert (a.name, a.kind) == (b.name, b.kind)
            if a.kind == "revolute":
                np.testing.assert_allclose([a.lower, a.upper], [b.lower, b.upper], rtol=1e-5)
