# SPDX-License-Identifier: Apache-2.0
"""From an Episode's link poses to the arms that are drawn: which links, in which order, and the end-effector frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.episode import Episode
from retake.core.errors import SkeletonError
from retake.core.robot import RobotSpec
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


def arms_of(episode: Episode, overrides: tuple[RobotOverride, ...] | None = None) -> tuple[Arm, ...]:
    """Every arm of the episode: robots in the header's order, grippers in the robot's order.

    `overrides` None reads config/robots. Raises SkeletonError when the episode carries no robot state (a skeleton is
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
    for spec in episode.header.robots:
        robot = apply_overrides(spec, overrides)
        if not robot.grippers:
            continue
        poses, openness = episode.link_poses(spec.name), episode.gripper_openness(spec.name)
        for g, gripper in enumerate(robot.grippers):
            chain = robot.chain(gripper)
            ee_pose = poses[:, robot.link_index(gripper.ee_link)] @ gripper.T_link_ee
            points = poses[:, list(chain)][..., :3, 3]
            if np.any(gripper.T_link_ee[:3, 3]):
                # A fixed offset moves the end effector off its link: it becomes the first point of the chain.
                points = np.concatenate([ee_pose[:, None, :3, 3], points], 1)
            names = tuple(robot.links[i].name for i in chain)
            arms.append(Arm(robot.name, gripper.name, names, ArmTrack(points, ee_pose, openness[:, g])))
    if not arms:
        raise SkeletonError(
            f"{episode.path}: no robot has a gripper ({_inventory(episode.header.robots)}); a skeleton starts at "
            "an end effector: use an articulation whose end effector carries finger joints"
        )
    return tuple(arms)


def camera_track(episode: Episode, camera: str) -> CameraTrack:
    """K, pose and lens of one camera over the episode, at capture size. Raises EpisodeError for an unknown name."""
    spec = episode.header.camera(camera)
    K, T_camera_world = episode.camera_matrices(camera)
    return CameraTrack(K, T_camera_world, spec.size, spec.lens)


def _inventory(robots: tuple[RobotSpec, ...]) -> str:
    return ", ".join(f"{robot.name!r} with {len(robot.links)} links" for robot in robots)
