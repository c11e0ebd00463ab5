# SPDX-License-Identifier: Apache-2.0
"""From an Episode's link poses to the arms that are drawn: which links, in which order, and the end-effector frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.ends import RobotDeclaration, declare
from retake.core.episode import Episode
from retake.core.errors import SkeletonError
from retake.core.robot import GripperSpec, RobotSpec
from retake.core.skeleton.inputs import ArmTrack, CameraTrack
from retake.core.skeleton.overrides import RobotOverride, apply_overrides, load_overrides


@dataclass(frozen=True)
class Arm:
    """One drawn arm of an episode: its place in the kinematic tree and its motion."""

    robot: str
    gripper: str
    chain: tuple[str, ...]
    """Link names, end effector first, base last."""
    track: ArmTrack
    note: str = ""
    """What a person should know about it: openness that never changes, axes of a hand."""


def arms_of(
    episode: Episode,
    overrides: tuple[RobotOverride, ...] | None = None,
    declared: tuple[RobotDeclaration, ...] = (),
) -> tuple[Arm, ...]:
    """Every arm of the episode: robots in the header's order, grippers in the robot's order.

    `overrides` None reads config/robots; `declared` end effectors replace the episode's.
    Raises SkeletonError when the episode carries no robot state (a skeleton is
    never guessed from pixels) or no robot has a gripper.
    """
    if not episode.header.robots:
        raise SkeletonError(
            f"{episode.path} ({episode.header.motion_source}) carries no robot state: no links, no joints. A skeleton "
            "is drawn from recorded link poses and is never guessed from pixels; import the episode with its state "
            "(episode_meta.npz and a URDF), or capture it in a simulator"
        )
    overrides = load_overrides() if overrides is None else overrides
    arms: list[Arm] = []
    robots = declare([apply_overrides(spec, overrides) for spec in episode.header.robots], declared)
    for spec, robot in zip(episode.header.robots, robots, strict=True):
        if not robot.grippers:
            continue
        poses = episode.link_poses(spec.name)
        recorded = [(g.finger_joints, g.open_position, g.closed_position) for g in spec.grippers]
        if recorded == [(g.finger_joints, g.open_position, g.closed_position) for g in robot.grippers]:
            openness = episode.gripper_openness(spec.name)
        else:
            openness = robot.gripper_openness(episode.joint(spec.name, "position"))
        for g, gripper in enumerate(robot.grippers):
            chain = robot.chain(gripper)
            ee_pose = poses[:, robot.link_index(gripper.ee_link)] @ gripper.T_link_ee
            points = poses[:, list(chain)][..., :3, 3]
            if np.any(gripper.T_link_ee[:3, 3]):
                # A fixed offset moves the end effector off its link: it becomes the first point of the chain.
                points = np.concatenate([ee_pose[:, None, :3, 3], points], 1)
            names = tuple(robot.links[i].name for i in chain)
            track = ArmTrack(points, ee_pose, openness[:, g])
            arms.append(Arm(robot.name, gripper.name, names, track, _note(gripper)))
    if not arms:
        raise SkeletonError(
            f"{episode.path}: no robot has a gripper or other end effector ({_inventory(episode.header.robots)}); a skeleton "
            "starts at one: declare it (docs/robots.md) and give the file with --robot"
        )
    return tuple(arms)


def camera_track(episode: Episode, camera: str) -> CameraTrack:
    """K, pose and lens of one camera over the episode, at capture size. Raises EpisodeError for an unknown name."""
    spec = episode.header.camera(camera)
    K, T_camera_world = episode.camera_matrices(camera)
    return CameraTrack(K, T_camera_world, spec.size, spec.lens)


def _note(gripper: GripperSpec) -> str:
    """What of an end effector is not measured."""
    if not gripper.finger_joints:
        return f"end effector {gripper.name!r} has no finger joints: its openness is 1 throughout"
    return f"end effector {gripper.name!r}: {gripper.note}" if gripper.kind == "hand" and gripper.note else ""


def _inventory(robots: tuple[RobotSpec, ...]) -> str:
    return ", ".join(f"{robot.name!r} with {len(robot.links)} links" for robot in robots)
