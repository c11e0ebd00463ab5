# SPDX-License-Identifier: Apache-2.0
"""RobotSpec: forward kinematics, topology, openness, JSON."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_poses, random_robot, seeds

from retake.core.errors import InputError
from retake.core.geometry import inverse, is_rigid
from retake.core.robot import JointSpec, RobotSpec


@given(seeds, st.integers(1, 8))
def test_forward_kinematics_is_rigid_batched_and_base_equivariant(seed, joints):
    rng = np.random.default_rng(seed)
    robot = random_robot(rng, arm_joints=joints)
    q, base, move = rng.normal(size=(4, len(robot.dof_names))), random_poses(rng, 4), random_poses(rng)
    T = robot.forward_kinematics(q, base)
    assert T.shape == (4, len(robot.links), 4, 4)
    assert is_rigid(T, 1e-9)
    assert np.allclose(T[2], robot.forward_kinematics(q[2], base[2]))
    assert np.allclose(robot.forward_kinematics(q, move @ base), move @ T)


@given(seeds)
def test_joints_constrain_what_they_say(seed):
    """Between parent and child a revolute joint only turns about its axis, a prismatic one only slides along it."""
    rng = np.random.default_rng(seed)
    robot = random_robot(rng)
    q = rng.normal(size=len(robot.dof_names))
    T = robot.forward_kinematics(q, random_poses(rng))
    for dof, joint in robot.joints_in_order:
        parent, child = T[joint.parent_link] @ joint.T_parent_joint, T[joint.child_link] @ joint.T_child_joint
        motion, axis = inverse(parent) @ child, np.array(joint.axis)
        if joint.kind == "revolute":
            assert np.allclose(motion[:3, 3], 0, atol=1e-9)
            assert np.allclose(motion[:3, :3] @ axis, axis)
            assert np.isclose(np.trace(motion[:3, :3]), 1 + 2 * np.cos(q[dof]))
        else:
            assert np.allclose(motion[:3, 3], axis * q[dof])
            assert np.allclose(motion[:3, :3], np.eye(3), atol=1e-9)


@given(seeds)
def test_json_round_trip(seed):
    robot = random_robot(np.random.default_rng(seed))
    robot = dataclasses.replace(robot, joints=(dataclasses.replace(robot.joints[0], upper=np.inf), *robot.joints[1:]))
    again = RobotSpec.from_json(robot.to_json())
    assert again.to_json() == robot.to_json()
    q, base = np.ones(len(robot.dof_names)), np.eye(4)
    assert np.array_equal(again.forward_kinematics(q, base), robot.forward_kinematics(q, base))
    assert np.isinf(again.joints[0].upper)


def test_a_described_robot_that_makes_no_sense_is_told_in_words():
    good = random_robot(np.random.default_rng(1)).to_json()
    joint = good["joints"][0]
    assert RobotSpec.from_json({**good, "invented_later": 1}).to_json() == good
    for change, message in (
        ({"links": 3}, "links needs a list; found 3"),
        (
            {"joints": [{**joint, "parent_link": "elbow"}]},
            r"joints\[0\]\.parent_link: unknown link 'elbow'; valid: '' \(the world\), .*link0",
        ),
        ({"joints": [{**joint, "child_link": ""}]}, r"joints\[0\]\.child_link: unknown link ''; valid: left, link0"),
        ({"joints": [{**joint, "axis": [0, 1]}]}, r"joints\[0\]\.axis needs a list of 3; found"),
        ({"joints": [{**joint, "kind": "ball"}]}, r"unknown joints\[0\]\.kind 'ball'; valid: fixed, prismatic"),
        ({"joints": [{**joint, "T_child_joint": [1.0]}]}, "two frames must be rigid"),
    ):
        with pytest.raises(InputError, match=rf"^r\.json: .*{message}"):
            RobotSpec.from_json({**good, **change}, "r.json")


def test_openness_follows_the_fingers():
    robot = random_robot(np.random.default_rng(1))
    q = np.zeros((3, len(robot.dof_names)))
    q[1, -2:], q[2, -2:] = 0.04, 0.02
    assert np.allclose(robot.gripper_openness(q)[:, 0], [0, 1, 0.5])


def test_chain_runs_from_end_effector_to_base():
    robot = random_robot(np.random.default_rng(1), arm_joints=3)
    assert [robot.links[i].name for i in robot.chain(robot.grippers[0])] == ["link3", "link2", "link1", "link0"]


def test_loops_and_bad_names_are_refused():
    robot = random_robot(np.random.default_rng(1))
    loop = JointSpec("loop", "fixed", 3, 0, (1.0, 0, 0), np.eye(4), np.eye(4))
    with pytest.raises(InputError, match="form a loop"):
        _ = dataclasses.replace(robot, joints=(*robot.joints, loop)).joints_in_order
    with pytest.raises(InputError, match="two parent joints"):
        dataclasses.replace(robot, joints=(*robot.joints, dataclasses.replace(loop, child_link=2)))
    with pytest.raises(InputError, match=r"valid: .*link0"):
        robot.link_index("lnk0")


def test_loops_empty_trees_and_broken_frames_are_refused_in_words():
    robot = random_robot(np.random.default_rng(3))
    first = robot.joints[0]
    loop = dataclasses.replace(first, name="back", parent_link=first.child_link, child_link=first.parent_link)
    with pytest.raises(InputError, match="form a loop"):
        dataclasses.replace(robot, joints=(*robot.joints, loop))
    with pytest.raises(InputError, match="no links"):
        RobotSpec("ghost", "/ghost", (), ())
    for broken in (np.full((4, 4), np.nan), np.diag([2.0, 2.0, 2.0, 1.0])):
        with pytest.raises(InputError, match="must be rigid"):
            dataclasses.replace(robot, joints=(dataclasses.replace(first, T_parent_joint=broken), *robot.joints[1:]))
        with pytest.raises(InputError, match="T_link_ee must be"):
            dataclasses.replace(robot, grippers=(dataclasses.replace(robot.grippers[0], T_link_ee=broken),))
