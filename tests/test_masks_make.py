# SPDX-License-Identifier: Apache-2.0
"""The URDF's robot in the states of a recording: fingers by openness, the same links to five millimetres, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retake.core.episode import CameraFrame, CameraSpec, EpisodeHeader, EpisodeWriter, Frame, RobotState
from retake.core.errors import InputError
from retake.core.masks.make import LINK_TOLERANCE_M, _at, _states, mask_episode
from retake.core.urdf import read_urdf

URDF = """<robot name="arm">
 <link name="base"><visual><geometry><box size="0.1 0.1 0.1"/></geometry></visual></link>
 <link name="hand"><visual><geometry><box size="0.05 0.05 0.05"/></geometry></visual></link>
 <link name="left"><visual><geometry><box size="0.01 0.01 0.04"/></geometry></visual></link>
 <link name="right"><visual><geometry><box size="0.01 0.01 0.04"/></geometry></visual></link>
 <joint name="turn" type="revolute"><parent link="base"/><child link="hand"/><origin xyz="0 0 0.2"/><axis xyz="0 0 1"/>
  <limit lower="-2" upper="2" velocity="9" effort="9"/></joint>
 <joint name="l" type="prismatic"><parent link="hand"/><child link="left"/><origin xyz="0 0.01 0.05"/><axis xyz="0 1 0"/>
  <limit lower="0" upper="0.04" velocity="9" effort="9"/></joint>
 <joint name="r" type="prismatic"><parent link="hand"/><child link="right"/><origin xyz="0 -0.01 0.05"/><axis xyz="0 -1 0"/>
  <limit lower="0" upper="0.04" velocity="9" effort="9"/></joint>
</robot>"""
TURN = np.array([0.0, 0.4, 0.8])
OPEN = np.array([1.0, 0.5, 0.0])


@pytest.fixture
def urdf(tmp_path: Path) -> Path:
    (tmp_path / "arm.urdf").write_text(URDF)
    return tmp_path / "arm.urdf"


def recorded(tmp_path: Path, urdf: Path, *, fingers: bool = False, shift: float = 0.0, robots: int = 1, cameras=None):
    """An episode of the arm as a data set has it: with fingers, or with the openness of its gripper alone."""
    full = read_urdf(urdf)
    q = np.stack([TURN, *(0.04 * OPEN[None].repeat(2, 0))], -1)
    poses = full.forward_kinematics(q, np.eye(4))
    own = full
    if not fingers:
        (gripper,) = full.grippers
        bare = replace(gripper, finger_joints=(), open_position=(), closed_position=())
        own = replace(full, links=full.links[:2], joints=full.joints[:1], grippers=(bare,))
        q, poses = q[:, :1], poses[:, :2].copy()
        poses[:, 1, 0, 3] += shift
    own = replace(own, name="robot0")
    views = (CameraSpec("cam", "", (64, 48), False, ("rgb",)),) if cameras is None else cameras
    header = EpisodeHeader(
        "t", 15.0, 1 / 15, tuple(replace(own, name=f"robot{k}") for k in range(robots)), views, motion_source="recorded",
        joint_channels=(),
    )  # fmt: skip
    with EpisodeWriter(tmp_path / "e", header) as writer:
        for k in range(3):
            look = np.eye(4)
            look[2, 3] = 1 + 0.1 * k
            view = CameraFrame(np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), look, np.zeros((48, 64, 3), np.uint8))
            state = RobotState(q[k], poses[k], OPEN[k : k + 1])
            writer.append(Frame(k / 15, (state,) * robots, np.zeros((0, 4, 4)), (view,) * len(views)))
        return writer.finish()


@pytest.mark.parametrize("fingers", [True, False])
def test_fingers_are_where_they_were_recorded_or_where_the_openness_puts_them(tmp_path, urdf, fingers):
    robot, q, root = _states(recorded(tmp_path, urdf, fingers=fingers), read_urdf(urdf), urdf)
    assert robot.name == "robot0"
    columns = [robot.dof_index(name) for name in ("turn", "l", "r")]
    assert q[:, columns] == pytest.approx(np.stack([TURN, 0.04 * OPEN, 0.04 * OPEN], -1))
    assert np.array_equal(root, np.stack([np.eye(4)] * 3))


@pytest.mark.parametrize(("share", "fine"), [(0.98, True), (1.02, False)])
def test_links_may_lie_five_millimetres_off(tmp_path, urdf, share, fine):
    episode = recorded(tmp_path, urdf, shift=share * LINK_TOLERANCE_M)
    if fine:
        _states(episode, read_urdf(urdf), urdf)
    else:
        with pytest.raises(InputError, match=r"lie up to 5 mm from the recorded ones; at most 5 mm are allowed"):
            _states(episode, read_urdf(urdf), urdf)


def test_another_robot_is_refused_by_what_it_lacks(tmp_path, urdf):
    episode = recorded(tmp_path, urdf)
    for old, new, told in (
        ('name="turn"', 'name="spin"', "lacks joints that the episode recorded: turn; it has spin"),
        ('"base"', '"trunk"', "its root link 'trunk' is none of the episode's links: base, hand"),
    ):
        urdf.write_text(URDF.replace(old, new))
        with pytest.raises(InputError, match=told):
            _states(episode, read_urdf(urdf), urdf)


def test_a_moving_camera_keeps_its_calibration_and_sees_every_link(tmp_path, urdf):
    steps = []
    episode = recorded(tmp_path, urdf)
    made = mask_episode(episode, tmp_path / "m", urdf, progress=lambda *step: steps.append(step))
    assert steps == [(1, 3, "masks"), (2, 3, "masks"), (3, 3, "masks")]
    said = made.header.settings["masks"]
    assert said["calibration"] == "as recorded: the camera moves"
    assert said["links_without_surface"] == []
    assert np.array_equal(made.camera_matrices("cam")[1], episode.camera_matrices("cam")[1])
    assert [(i.id, i.label, i.owner) for i in made.header.instances] == [
        (k, name, "robot:robot0") for k, name in enumerate(("base", "hand", "left", "right"), 1)
    ]  # fmt: skip
    ids, depth = made.image("cam", "instances", 0), made.image("cam", "depth", 0)
    assert set(np.unique(ids)) >= {0, 1}
    assert np.array_equal(ids > 0, depth > 0)
    assert np.array_equal(made.time_s, episode.time_s)
    assert np.array_equal(made.object_poses, episode.object_poses)
    assert made.header.joint_channels == ()
    told = mask_episode(episode, tmp_path / "n", urdf, fit=False).header.settings["masks"]
    assert told["calibration"] == "as recorded"


def test_episodes_of_two_robots_or_without_pictures_are_refused(tmp_path, urdf):
    with pytest.raises(InputError, match="has 2 robots; masks are made for episodes with one"):
        mask_episode(recorded(tmp_path, urdf, robots=2), tmp_path / "m", urdf)


def test_states_at_another_time_lie_between_the_recorded_ones_and_end_with_them():
    rows = np.array([[0.0], [10.0], [20.0]])
    for offset, wanted in (
        (0, [0, 10, 20]),
        (0.5, [5, 15, 20]),
        (-0.25, [0, 7.5, 17.5]),
        (5, [20, 20, 20]),
        (-5, [0, 0, 0]),
    ):
        assert _at(rows, offset)[:, 0] == pytest.approx(wanted)
    assert _at(rows[:1], 0.7)[:, 0].tolist() == [0.0]
