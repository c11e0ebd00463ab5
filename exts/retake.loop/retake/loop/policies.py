# SPDX-License-Identifier: Apache-2.0
"""Policies of a closed loop: those that `retake robustness` opens, controls, and how a chunk of actions is played."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, RetakeError
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


class Caller:
    """Calls on one thread of its own, so that an answer that never comes ends in a sentence instead of a standstill."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, function: Callable[[], Any], name: str) -> Any:
        """What the function returns. Raises InputError when it takes too long, or with what a callable raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="retake-policy", daemon=True)
            self._thread.start()
        self._asked.put(function)
        try:
            value, error = self._said.get(timeout=self._timeout_s)
        except queue.Empty:
            self._thread = None  # it still waits for its answer; nobody will ask it again
            raise InputError(
                f"policy {name} gave no answer within {self._timeout_s:g} s; make it faster, or allow more with --timeout"
            ) from None
        if isinstance(error, RetakeError):
            raise error
        if isinstance(error, Exception | SystemExit):
            raise InputError(f"policy {name} failed: {type(error).__name__}: {error}") from error
        if error is not None:
            raise error
        return value

    def _serve(self) -> None:
        while (function := self._asked.get()) is not None:
            try:
                self._said.put((function(), None))
            except BaseException as error:
                self._said.put((None, error))

    def close(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(5)
            self._thread = None


def control(name: str, environment: Environment) -> Policy:
    """`expert` or `hold`."""
    return Expert(environment) if name == "expert" else Hold(environment)
