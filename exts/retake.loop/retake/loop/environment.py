# SPDX-License-Identifier: Apache-2.0
"""What a simulator offers to a closed loop. Names no simulator: `retake.newton` is one behind it, Isaac Lab may be another.

The law that every environment keeps: a look changes pictures and nothing else. The same seed and the same actions give the
same moments, bit for bit, in every look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retake.core.array_types import Float64
from retake.core.files import sha256_bytes
from retake.core.robustness.policy import Observation
from retake.loop.looks import Look


@dataclass(frozen=True)
class Facts:
    """What holds for every rollout of an environment."""

    name: str
    """Which simulator, with its versions."""
    task: str
    """The instruction a policy reads."""
    fps: int
    """Actions per second."""
    frames: int
    """Actions that the scripted expert needs, and a rollout lasts by default."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    cameras: dict[str, tuple[int, int]]
    """Name → (width, height), px."""
    settings: dict[str, object]
    """JSON: what decides a rollout beside its seed; part of what a resumed study compares."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What the scripted task asks for in this rollout, world frame, m."""

    object: int
    """Index of the task's object in `Moment.T_world_object`."""
    center_m: Float64[np.ndarray, "3"]
    size_m: Float64[np.ndarray, "3"]
    """World-aligned box in which the object's centre must end."""
    object_center_m: Float64[np.ndarray, "3"]
    """The object's centre in its own frame."""
    hover_m: Float64[np.ndarray, "3"]
    """Where the hand is above the object when the expert's approach ends (task `reach`)."""


@dataclass(frozen=True, eq=False)
class Moment:
    """The simulated state at one instant; looks never change it."""

    time_s: float
    joint_position: tuple[Float64[np.ndarray, "D"], ...]
    """Per robot, rad or m."""
    joint_velocity: tuple[Float64[np.ndarray, "D"], ...]
    T_world_object: Float64[np.ndarray, "O 4 4"]
    held: frozenset[int]
    """Objects that two or more bodies of a robot touch."""
    hand_m: Float64[np.ndarray, "3"]
    """Origin of the working hand's end-effector frame, world; zeros where no robot has a hand."""
    openness: float
    """Of the working hand, 0 closed to 1 open; 1 where there is none."""

    def bytes(self) -> bytes:
        """Everything simulated, for hashes."""
        parts = [*self.joint_position, *self.joint_velocity, self.T_world_object, self.hand_m, np.array(self.time_s)]
        return b"".join(np.ascontiguousarray(part, np.float64).tobytes() for part in parts)


class Environment(Protocol):
    """A simulation that a policy acts in."""

    @property
    def facts(self) -> Facts:
        """What holds for every rollout."""
        ...

    @property
    def goal(self) -> Goal | None:
        """Of the rollout that runs; None where the scenario has no task of its own."""
        ...

    @property
    def moment(self) -> Moment:
        """The state that the last observation shows."""
        ...

    def reset(self, seed: int, look: Look) -> Observation:
        """Start a rollout. Raises InputError for a look that this environment cannot draw."""
        ...

    def step(self, action: Float64[np.ndarray, "A"]) -> Observation:
        """Drive towards an action until the next frame. Raises InputError for another width, Unstable when the simulation
        comes apart."""
        ...

    def expert(self) -> Float64[np.ndarray, "A"]:
        """The action of the scripted expert at this instant. Raises InputError where the scenario has none."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Unstable(Exception):  # noqa: N818 - an outcome of a rollout, not a fault of the caller
    """The simulation came apart under the policy's actions: the rollout has failed, the study goes on."""


def states_sha256(moments: list[Moment]) -> str:
    """One hash of all simulated states of a rollout: equal exactly when they are bit-equal."""
    return sha256_bytes(*(moment.bytes() for moment in moments))
