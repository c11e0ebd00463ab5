# SPDX-License-Identifier: Apache-2.0
"""What the robots are told to do: joint targets over time, with named phases. Tasks make one; other stages hold or replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, choose
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

    def targets(self, time_s: float) -> tuple[Float64[np.ndarray, "D"], ...]:
        """Drive targets of every robot at a time, rad or m."""
        return tuple(path.at(time_s) for path in self.paths)


def hold(robots: tuple[Articulation, ...]) -> Motion:
    """Every robot stays where the stage puts it."""
    paths = tuple(JointPath(np.zeros(1), robot.initial_position[None]) for robot in robots)
    return Motion(paths, settings={"scenario": "hold"})


def replay(robots: tuple[Articulation, ...], file: Path) -> Motion:
    """Follow a recorded joint trajectory: an .npz with `joint_names` (J,), `time_s` (K,), `joint_position` (K, J).

    Joints are matched by name (rad or m); those not named keep their start position. Raises InputError for a missing or
    malformed file and for names no robot has.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            names = [str(n) for n in data["joint_names"]]
            time_s = np.asarray(data["time_s"], np.float64)
            position = np.asarray(data["joint_position"], np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"motion file {file}: {type(error).__name__}: {error}; expected an .npz with joint_names, time_s, joint_position"
        ) from error
    if position.shape != (len(time_s), len(names)) or len(time_s) < 1 or not np.isfinite(position).all():
        raise InputError(
            f"motion file {file}: joint_position {position.shape} for {len(time_s)} times and {len(names)} joints; "
            "expected finite (times, joints)"
        )
    if np.any(np.diff(time_s) <= 0):
        raise InputError(f"motion file {file}: time_s must increase")
    known = [name for robot in robots for name in robot.spec.dof_names]
    for name in names:
        if name not in known:
            raise InputError(choose(f"joint in {file}", name, known))
    paths = []
    for robot in robots:
        q = np.repeat(robot.initial_position[None], len(time_s), 0)
        for column, name in enumerate(names):
            if name in robot.spec.dof_names:
                q[:, robot.spec.dof_index(name)] = position[:, column]
        paths.append(JointPath(time_s, q))
    return Motion(tuple(paths), settings={"scenario": "replay", "joints": names})
