# SPDX-License-Identifier: Apache-2.0
"""Which pixels of an instance image move as one: the rigid parts of an episode, with their poses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retake.core.array_types import Float64, UInt8, UInt16
from retake.core.episode.reader import Episode
from retake.core.robot import RobotSpec


@dataclass(frozen=True)
class RigidPart:
    """A rigid thing that moves: a robot link or an object."""

    name: str
    robot: str
    """Name of the robot; empty for an object."""
    link: int
    """Index in the robot's links, or in the header's objects."""
    carrier: int = -1
    """Index of the part that carries it: the nearest visible link towards the robot's base; -1 for none, and for objects."""


def rigid_parts(
    episode: Episode,
) -> tuple[tuple[RigidPart, ...], UInt8[np.ndarray, "N"] | UInt16[np.ndarray, "N"], Float64[np.ndarray, "T P 4 4"]]:
    """What moves in an episode: (parts, table (65536,) instance id -> 1 + index of its part, poses T_world_part (T, P, 4, 4)).

    0 in the table is scenery; so is an instance of a robot that belongs to none of its links. The table is uint8, and
    uint16 where there are more than 255 parts.
    """
    header, parts, poses = episode.header, [], []
    table = np.zeros(65536, np.uint16)
    for robot in header.robots:
        every = episode.link_poses(robot.name)
        visible: dict[int, int] = {}
        for index, link in enumerate(robot.links):
            ids = [
                i.id
                for i in header.instances
                if i.owner == f"robot:{robot.name}" and _owner_link(robot, i.prim_path) == index
            ]
            if ids:
                visible[index] = len(parts)
                parts.append(RigidPart(link.name, robot.name, index))
                poses.append(every[:, index])
                table[ids] = len(parts)
        for index, part in visible.items():
            parts[part] = replace(parts[part], carrier=_carrier(robot, index, visible))
    objects = episode.object_poses
    for index, spec in enumerate(header.objects):
        ids = [i.id for i in header.instances if i.owner == f"object:{spec.name}"]
        if ids and spec.movable:
            parts.append(RigidPart(spec.name, "", index))
            poses.append(objects[:, index])
            table[ids] = len(parts)
    stacked = np.stack(poses, 1) if poses else np.zeros((len(episode), 0, 4, 4))
    return tuple(parts), table.astype(np.uint8) if len(parts) <= 255 else table, stacked


def _carrier(robot: RobotSpec, link: int, visible: dict[int, int]) -> int:
    """Part of the nearest visible link between a link and its base; -1 where there is none."""
    above = robot.parents[link]
    while above >= 0 and above not in visible:
        above = robot.parents[above]
    return visible.get(above, -1)


def _owner_link(robot: RobotSpec, prim_path: str) -> int:
    """Index of the link whose prim is the longest prefix of a path; -1 where none is."""
    best, length = -1, -1
    for index, link in enumerate(robot.links):
        path = link.prim_path
        if (prim_path == path or prim_path.startswith(path + "/")) and len(path) > length:
            best, length = index, len(path)
    return best
