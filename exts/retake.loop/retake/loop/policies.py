# SPDX-License-Identifier: Apache-2.0
"""Policies of a closed loop: those that `retake robustness` opens, controls, and how a chunk of actions is played."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError
from retake.core.robustness.caller import Caller
from retake.core.robustness.policy import Observation, Policy, as_actions, own_copy
from retake.loop.environment import Environment

CONTROLS = ("expert", "hold")
GREY = 128


class Expert:
    """The script that made the demonstrations: it looks at no picture."""

    name = "expert"

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def infer(self, observation: Observation) -> np.ndarray:
        """The scripted action of this instant."""
        return self._environment.expert()

    def reset(self) -> None:
        """Nothing to forget."""


class Hold:
    """Stays where it is: what the task gives away for free."""

    name = "hold"

    def __init__(self, environment: Environment) -> None:
        self._names = environment.facts.action_names
        self._first: np.ndarray | None = None

    def infer(self, observation: Observation) -> np.ndarray:
        """The first state, as targets."""
        if self._first is None:
            state = dict(zip(observation.names, observation.state, strict=True))
            self._first = np.array([float(state[name]) for name in self._names])
        return self._first

    def reset(self) -> None:
        """Another rollout starts elsewhere."""
        self._first = None


@dataclass
class Blinded:
    """A policy that sees grey pictures: what state and task text alone achieve."""

    inner: Policy

    def __post_init__(self) -> None:
        self.name = f"{self.inner.name} (blinded)"

    def infer(self, observation: Observation) -> np.ndarray:
        """The inner policy's actions on grey."""
        grey = {name: np.full_like(image, GREY) for name, image in observation.images.items()}
        return self.inner.infer(replace(observation, images=grey))

    def reset(self) -> None:
        """The inner policy forgets."""
        self.inner.reset()


@dataclass
class Player:
    """Asks a policy and plays its chunks.

    `execute`: frames played of each chunk before the policy is asked again (the chunk's length bounds it). `ensemble`: the
    policy is asked at every frame, and an action is the mean of all chunks that speak of that frame, the older the heavier
    (weights exp(-0.1 k) from the oldest, as in ACT, Zhao et al. 2023).
    """

    policy: Policy
    width: int
    names: tuple[str, ...] = ()
    execute: int = 4
    ensemble: bool = False
    timeout_s: float = 60.0
    waits: list[float] = field(default_factory=list)
    """Seconds that each answer took."""

    def __post_init__(self) -> None:
        self._queue: list[np.ndarray] = []
        self._chunks: list[tuple[int, np.ndarray]] = []
        self._frame = 0
        self._call = Caller(self.timeout_s)

    def reset(self) -> None:
        """A rollout begins."""
        self._call(self.policy.reset, self.policy.name)
        self._queue, self._chunks, self._frame, self.waits = [], [], 0, []

    def action(self, observation: Observation) -> Float64[np.ndarray, "A"]:
        """The action of this frame. Raises InputError for an answer that is none: another width, not finite, too late."""
        if self.ensemble:
            self._chunks.append((self._frame, self._ask(observation)))
            self._chunks = [(start, chunk) for start, chunk in self._chunks if start + len(chunk) > self._frame]
            said = np.stack([chunk[self._frame - start] for start, chunk in self._chunks])
            weight = np.exp(-0.1 * np.arange(len(said)))
            out = (said * weight[:, None]).sum(0) / weight.sum()
        else:
            if not self._queue:
                self._queue = list(self._ask(observation)[: self.execute])
            out = self._queue.pop(0)
        self._frame += 1
        return out

    def _ask(self, observation: Observation) -> Float64[np.ndarray, "H A"]:
        started = time.perf_counter()
        # What is shown in the report is what was drawn, whatever a policy does to its own arrays.
        given = own_copy(observation)
        answer = self._call(lambda: self.policy.infer(given), self.policy.name)
        self.waits.append(time.perf_counter() - started)
        actions = as_actions(answer, self.policy.name)
        if actions.shape[1] != self.width:
            raise InputError(
                f"policy {self.policy.name} gives {actions.shape[1]} action entries, the environment takes {self.width}"
                + (f" ({', '.join(self.names)})" if self.names else "")
                + "; wrap it so that they are the same"
            )
        return actions

    def close(self) -> None:
        """End the thread that asks, and the policy where it can be closed."""
        self._call.close()
        inner = self.policy.inner if isinstance(self.policy, Blinded) else self.policy
        if callable(close := getattr(inner, "close", None)):
            close()


def control(name: str, environment: Environment) -> Policy:
    """`expert` or `hold`."""
    return Expert(environment) if name == "expert" else Hold(environment)
