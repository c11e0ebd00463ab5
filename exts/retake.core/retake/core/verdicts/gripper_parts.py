# SPDX-License-Identifier: Apache-2.0
"""The moving parts of grippers: which links they are, how far they travel in the picture, and when they open and close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.episode import Episode
from retake.core.geometry import inverse
from retake.core.robot import GripperSpec, RobotSpec
from retake.core.verdicts.truth import Truth

_SMALL = 0.1
"""Change of openness (0..1) from which on a gripper opens or closes."""
_STILL_M = 1e-4
"""What a link moves by at most that is no finger."""


@dataclass(frozen=True, eq=False)
class Fingers:
    """The moving parts of one gripper."""

    parts: tuple[int, ...]
    """Indices into `Truth.parts`; empty where the recording has no ids of its fingers."""
    travel: Float64[np.ndarray, "T F 2"]
    """Image motion of each finger from closed to open, working px."""
    openness: Float64[np.ndarray, "T"]


def find_fingers(episode: Episode, truth: Truth) -> list[Fingers]:
    """Every gripper with fingers that move. Works for sliding and for turning fingers."""
    out, column = [], 0
    span = slice(truth.start, truth.start + len(truth))
    for robot in episode.header.robots:
        q = episode.joint(robot.name, "position")[span]
        poses = episode.link_poses(robot.name)[span]
        for gripper in robot.grippers:
            openness = truth.openness[:, column]
            column += 1
            if not gripper.finger_joints:
                continue
            T_shut, T_wide = ends(robot, gripper, q, poses[:, robot.root])
            moved = moving_links(T_shut, T_wide)
            if not moved:
                continue
            parts = [i for i, p in enumerate(truth.parts) if p.robot == robot.name and p.link in moved]
            travel = np.zeros((len(truth), len(parts), 2))
            for k, i in enumerate(parts):
                travel[:, k] = _travel(truth, i, poses, T_shut, T_wide, truth.parts[i].link)
            out.append(Fingers(tuple(parts), travel, openness))
    return out


def ends(
    robot: RobotSpec, gripper: GripperSpec, q: Float64[np.ndarray, "T D"], T_world_base: Float64[np.ndarray, "T 4 4"]
) -> tuple[Float64[np.ndarray, "T L 4 4"], Float64[np.ndarray, "T L 4 4"]]:
    """T_world_link with the gripper closed, and open."""
    dofs = [robot.dof_index(name) for name in gripper.finger_joints]
    shut, wide = q.copy(), q.copy()
    shut[:, dofs], wide[:, dofs] = gripper.closed_position, gripper.open_position
    return robot.forward_kinematics(shut, T_world_base), robot.forward_kinematics(wide, T_world_base)


def moving_links(T_shut: Float64[np.ndarray, "T L 4 4"], T_wide: Float64[np.ndarray, "T L 4 4"]) -> set[int]:
    """Links that a gripper moves, by their poses closed and open."""
    return set(np.flatnonzero(np.abs(T_wide - T_shut).max((0, 2, 3)) > _STILL_M).tolist())


def _travel(
    truth: Truth, part: int, poses: np.ndarray, T_shut: np.ndarray, T_wide: np.ndarray, link: int
) -> Float64[np.ndarray, "T 2"]:
    """Image motion of the finger's visible middle, at the depth of its link origin."""
    out = np.full((len(truth), 2), np.nan)
    for t in range(len(truth)):
        uv = truth.centroid[t, part] + 0.5
        T_camera_link = truth.T_camera_world[t] @ poses[t, link]
        depth = T_camera_link[2, 3]
        if np.isnan(uv).any() or depth <= 0.02:
            continue
        K, uv = truth.K[t], truth.ideal(t, uv[None] - 0.5)[0] + 0.5
        p_camera = np.array([(uv[0] - K[0, 2]) / K[0, 0], (uv[1] - K[1, 2]) / K[1, 1], 1.0]) * depth
        p_link = (inverse(T_camera_link) @ np.append(p_camera, 1.0))[:3]
        shown = []
        for T in (T_shut[t, link], T_wide[t, link]):
            p = truth.T_camera_world[t] @ T @ np.append(p_link, 1.0)
            at = np.array([K[0, 0] * p[0] / p[2], K[1, 1] * p[1] / p[2]]) if p[2] > 0.02 else np.full(2, np.nan)
            shown.append(at if truth.lens is None else truth.seen(t, (at + K[:2, 2] - 0.5)[None])[0])
        out[t] = shown[1] - shown[0]
    return out


def changes(openness: Float64[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """First and last frame of every opening or closing by at least _SMALL."""
    step = np.diff(openness)
    out, begin = [], None
    for t in range(len(step) + 1):
        active = t < len(step) and abs(step[t]) > 0.02
        if active and begin is not None and np.sign(step[t]) != np.sign(step[begin]):
            active = False
        if active and begin is None:
            begin = t
        elif not active and begin is not None:
            if abs(openness[t] - openness[begin]) >= _SMALL:
                out.append((begin, t))
            begin = t if t < len(step) and abs(step[t]) > 0.02 else None
    return out
