# SPDX-License-Identifier: Apache-2.0
"""What carries a camera: nothing (it stands still), a robot's hand, another link of a robot, or something that moves by itself.

Found from the recorded poses, so it holds for every episode, whatever its cameras are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from retake.core.episode.reader import Episode
from retake.core.geometry import inverse

Kind = Literal["fixed", "hand", "robot", "free"]
SAMPLES = 16
"""Frames that are looked at, spread over the episode."""
RIGID_M, RIGID_RAD = 2e-3, 1e-2
"""How far a camera may move against the link that carries it: rounding of recorded poses stays a hundred times below."""


@dataclass(frozen=True)
class Mount:
    """The body that a camera is fixed to."""

    kind: Kind
    robot: str = ""
    link: str = ""

    @property
    def moves(self) -> bool:
        """Whether the camera's pose changes during the episode."""
        return self.kind != "fixed"


FIXED = Mount("fixed")


def mount_of(episode: Episode, camera: str) -> Mount:
    """What carries a camera of the episode. Raises EpisodeError for an unknown one."""
    if episode.header.camera(camera).static:
        return FIXED
    frames = np.linspace(0, len(episode) - 1, SAMPLES).astype(int)  # some twice in a short episode
    T_world_camera = inverse(episode.camera_matrices(camera)[1][frames])
    found: list[Mount] = []
    for robot in episode.header.robots:
        T_world_link = episode.link_poses(robot.name)[frames]
        hands = {gripper.ee_link for gripper in robot.grippers}
        for index, link in enumerate(robot.links):
            T_link_camera = inverse(T_world_link[:, index]) @ T_world_camera
            if _rigid(T_link_camera):
                found.append(Mount("hand" if link.name in hands else "robot", robot.name, link.name))
    # Links that are fixed to each other all carry it; the hand is the one that says what the camera does.
    return next((m for m in found if m.kind == "hand"), found[-1] if found else Mount("free"))


def _rigid(T: np.ndarray) -> bool:
    """Whether poses (K, 4, 4) are one and the same."""
    moved = np.linalg.norm(T[:, :3, 3] - T[0, :3, 3], axis=1).max()
    turn = np.clip((np.einsum("kij,ij->k", T[:, :3, :3], T[0, :3, :3]) - 1) / 2, -1, 1)
    return bool(moved < RIGID_M and np.arccos(turn).max() < RIGID_RAD)
