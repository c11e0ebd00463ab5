# SPDX-License-Identifier: Apache-2.0
"""What the robots are told to do: joint targets over time, with named phases. Tasks make one; other stages hold or replay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.joint_motion import match_joints, read_motion
from retake.newton.drives import Drives
from retake.newton.planner import JointPath
from retake.usd.articulation import Articulation


@dataclass(frozen=True)
class Phase:
    """A named stretch of the motion, s."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Motion:
    """Joint paths of all robots, and what they mean."""

    paths: tuple[JointPath, ...]
    """Per robot."""
    phases: tuple[Phase, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON, recorded in the episode's settings."""
    named: tuple[frozenset[str] | None, ...] | None = None
    """Joints that it commands by name, per robot; None = it says where every joint shall be."""

    def targets(self, time_s: float) -> tuple[Float64[np.ndarray, "D"], ...]:
        """Drive targets of every robot at a time, rad or m."""
        return tuple(path.at(time_s) for path in self.paths)


def hold(robots: tuple[Articulation, ...]) -> Motion:
    """Every robot stays where the stage puts it."""
    paths = tuple(JointPath(np.zeros(1), robot.initial_position[None]) for robot in robots)
    return Motion(paths, settings={"scenario": "hold"})


def replay(robots: tuple[Articulation, ...], file: Path, robot: str = "") -> Motion:
    """Follow a recorded joint trajectory (`retake.core.joint_motion`); `robot` is whose joints bare names mean.

    Joints that it does not name keep their start position. Raises InputError for a missing or malformed file, for names
    no robot has and for bare names that several robots have.
    """
    recorded = read_motion(file)
    where = match_joints(recorded.names, [one.named_joints for one in robots], file, robot)
    paths, named = [], []
    for index, one in enumerate(robots):
        q = np.repeat(one.initial_position[None], len(recorded.time_s), 0)
        mine = [(column, dof) for column, (r, dof) in enumerate(where) if r == index]
        for column, dof in mine:
            q[:, dof] = recorded.position[:, column]
        paths.append(JointPath(recorded.time_s, q, monotone=True))
        named.append(frozenset(one.spec.dof_names[dof] for _, dof in mine))
    settings = {"scenario": "replay", "joints": list(recorded.names)}
    return Motion(tuple(paths), settings=settings, named=tuple(named))


def obeyed(motion: Motion, drives: Drives) -> Motion:
    """The motion as the drives can follow it (`Drives.fit`). Raises InputError by name where it contradicts them."""
    named = motion.named or (None,) * len(motion.paths)
    paths = tuple(replace(path, q=drives.fit(robot, path.q, named[robot])) for robot, path in enumerate(motion.paths))
    return replace(motion, paths=paths)
