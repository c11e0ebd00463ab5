# SPDX-License-Identifier: Apache-2.0
"""The episode check passes a lawful episode and catches one planted violation of each kind; events are found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import hand_episode
import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.episode import Contact, Episode, EpisodeHeader, EpisodeWriter, Frame, open_episode
from retake.core.episode.check import EpisodeCheck, check_episode
from retake.core.episode.events import object_events
from retake.core.errors import EpisodeCheckError
from retake.core.geometry import axis_angle

Change = Callable[[EpisodeHeader, list[Frame]], tuple[EpisodeHeader, list[Frame]]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Episode:
    path = tmp_path_factory.mktemp("scene") / "episode"
    make_scene_episode(path, frames=40, size=(80, 60))
    return open_episode(path)


def rewrite(episode: Episode, path: Path, change: Change) -> Episode:
    """A copy of an episode with something changed."""
    header, frames = change(episode.header, list(episode.frames()))
    with EpisodeWriter(path, header) as writer:
        for frame in frames:
            writer.append(frame)
        return writer.finish()


def edit(frame: Frame, **robot: np.ndarray) -> Frame:
    return dataclasses.replace(frame, robots=(dataclasses.replace(frame.robots[0], **robot), *frame.robots[1:]))


def with_joint(k: int, field: str, joint: int, value: float) -> Change:
    def change(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
        array = getattr(frames[k].robots[0], field).copy()
        array[joint] = value
        frames[k] = edit(frames[k], **{field: array})
        return header, frames

    return change


def bound_velocity(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    robot = header.robots[0]
    joints = tuple(dataclasses.replace(j, velocity_limit=5.0, effort_limit=50.0) for j in robot.joints)
    return dataclasses.replace(header, robots=(dataclasses.replace(robot, joints=joints),)), frames


def both(first: Change, second: Change) -> Change:
    return lambda header, frames: second(*first(header, frames))


def moved_link(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    poses = frames[7].robots[0].T_world_link.copy()
    poses[-1, 0, 3] += 0.002
    frames[7] = edit(frames[7], T_world_link=poses)
    return header, frames


def turned_link(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    poses = frames[7].robots[0].T_world_link.copy()
    c, s = np.cos(0.01), np.sin(0.01)
    poses[-1, :3, :3] = poses[-1, :3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    frames[7] = edit(frames[7], T_world_link=poses)
    return header, frames


def deep_contact(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    contact = Contact("/World/A", "/World/B", (0.0, 0, 0), (0.0, 0, 1), (0.0, 0, 1), 0.02)
    frames[3] = dataclasses.replace(frames[3], contacts=(*frames[3].contacts, contact))
    return header, frames


def late_frame(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    frames[5] = dataclasses.replace(frames[5], time_s=frames[5].time_s + 0.01)
    return header, frames


def missed_goal(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    goal = {"object": header.objects[0].name, "center_m": [9.0, 9, 9], "size_m": [0.1, 0.1, 0.1]}
    return dataclasses.replace(header, settings={**header.settings, "goal": goal}), frames


def blind_camera(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    robot_ids = [i.id for i in header.instances if i.owner.startswith("robot:")]
    out = []
    for frame in frames:
        views = tuple(
            dataclasses.replace(
                v, instance_ids=np.where(np.isin(v.instance_ids, robot_ids), 0, v.instance_ids).astype(np.uint16)
            )
            for v in frame.cameras
        )
        out.append(dataclasses.replace(frame, cameras=views))
    return header, out


def failures(check: EpisodeCheck) -> list[str]:
    return [item.name for item in check.items if item.status == "fail"]


def test_a_lawful_episode_passes(scene):
    check = check_episode(scene)
    assert failures(check) == []
    assert {item.status for item in check.items} >= {"pass"}
    assert EpisodeCheck.from_json(check.to_json()) == check
    check.require()


@pytest.mark.parametrize(
    ("change", "name", "detail"),
    [
        (with_joint(4, "joint_position", 0, 40.0), "joint position limits", "at frame 4"),
        (with_joint(6, "joint_target", 0, -40.0), "joint target limits", "at frame 6"),
        (both(bound_velocity, with_joint(5, "joint_velocity", 1, 6.0)), "joint velocity", "its limit is 5.000"),
        (both(bound_velocity, with_joint(5, "joint_effort", 1, -60.0)), "joint effort", "-60.000 at frame 5"),
        (moved_link, "link position against kinematics", "2.00e-03 m"),
        (turned_link, "link rotation against kinematics", "1.00e-02 rad"),
        (deep_contact, "penetration", "20.0 mm at frame 3"),
        (late_frame, "frame times", "frame 5"),
        (missed_goal, "task outcome", "outside the goal region"),
        (blind_camera, "sees the robot", "never sees the robot"),
    ],
)
def test_every_planted_violation_is_caught(scene, tmp_path, change, name, detail):
    check = check_episode(rewrite(scene, tmp_path / "e", change))
    failed = [item for item in check.items if item.status == "fail" and name in item.name]
    assert failed, failures(check)
    assert detail in failed[0].detail
    with pytest.raises(EpisodeCheckError, match="go on with --force"):
        check.require()
    check.require(force=True)


def test_events_are_found_from_contacts_and_from_motion_alone(scene, tmp_path):
    (by_contact,) = object_events(scene)
    assert by_contact.grasp is not None
    assert by_contact.release is not None
    assert by_contact.grasp < by_contact.release
    silent = rewrite(scene, tmp_path / "e", lambda h, f: (h, [dataclasses.replace(x, contacts=()) for x in f]))
    (by_motion,) = object_events(silent)
    assert by_motion.grasp is not None
    assert abs((by_motion.release or 0) - by_contact.release) <= 2
    phases = [by_contact.phase(k) for k in range(len(scene))]
    assert phases[0] == "before"
    assert "held" in phases
    assert phases[-1] in ("released", "settled")


def without_limits(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    robot = header.robots[0]
    endless = {"lower": -np.inf, "upper": np.inf, "velocity_limit": np.inf, "effort_limit": np.inf}
    joints = tuple(dataclasses.replace(j, **endless) for j in robot.joints)
    return dataclasses.replace(header, robots=(dataclasses.replace(robot, joints=joints),)), frames


def motionless_limits(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    """Velocity and effort limits of zero, which many robot descriptions state; the first frame is at rest."""
    robot = header.robots[0]
    joints = tuple(dataclasses.replace(j, velocity_limit=0.0, effort_limit=0.0) for j in robot.joints)
    return dataclasses.replace(header, robots=(dataclasses.replace(robot, joints=joints),)), frames


def vague_goal(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
    return dataclasses.replace(
        header, settings={"goal": {"object": header.objects[0].name, "center_m": [0, 1]}}
    ), frames


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        (without_limits, "joint position limits (arm)", "not applicable"),
        (without_limits, "joint velocity (arm)", "not applicable"),
        (motionless_limits, "joint velocity (arm)", "fail"),
        (vague_goal, "task outcome", "fail"),
    ],
)
def test_odd_limits_and_goals_give_a_result_that_json_holds(scene, tmp_path, change, name, status):
    check = check_episode(rewrite(scene, tmp_path / "e", change))
    assert [item.status for item in check.items if item.name == name] == [status]
    assert EpisodeCheck.from_json(json.loads(json.dumps(check.to_json(), allow_nan=False))) == check


def test_rest_within_a_limit_of_zero_passes(scene, tmp_path):
    def still(header: EpisodeHeader, frames: list[Frame]) -> tuple[EpisodeHeader, list[Frame]]:
        nothing = np.zeros(len(header.robots[0].dof_names))
        return motionless_limits(header, [edit(f, joint_velocity=nothing, joint_effort=nothing) for f in frames])

    check = check_episode(rewrite(scene, tmp_path / "e", still))
    assert not [name for name in failures(check) if "velocity" in name or "effort" in name]


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("angle", "status"), [(9e-4, "pass"), (1.1e-3, "fail"), (-1.1e-3, "fail"), (3.0, "fail")])
def test_a_link_that_is_turned_about_any_axis_is_noticed_from_a_milliradian_on(tmp_path, axis, angle, status):
    turn = np.eye(4)
    turn[:3, :3] = axis_angle(np.eye(3)[axis], angle)

    def bend(poses, t):
        out = poses.copy()
        out[-1] = out[-1] @ turn if t == 2 else out[-1]
        return out

    result = check_episode(hand_episode.write(tmp_path / "e", [0, 0, 0, 0], bend=bend))
    (item,) = [item for item in result.items if item.name.startswith("link rotation against kinematics")]
    assert (item.status, item.frame) == (status, 2)
    assert item.value == pytest.approx(abs(angle), rel=1e-6)
    if status == "fail":
        assert f"at frame 2 is {abs(angle):.2e} rad from forward kinematics" in item.detail
