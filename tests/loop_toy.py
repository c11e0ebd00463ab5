# SPDX-License-Identifier: Apache-2.0
"""A toy simulation behind the closed loop's environment: a hand on a line that must come to a bright dot, and stop there."""

from __future__ import annotations

import numpy as np

from retake.core.robustness.policy import Observation
from retake.loop.environment import Facts, Goal, Moment, Unstable
from retake.loop.looks import Look

NAMES = ("hand.pos", "grip.pos")


class ToyEnvironment:
    """The picture shows the target as a bright column; `sun` scales it, `colours` paint it out."""

    def __init__(self, frames: int = 6, breaks_at: int | None = None) -> None:
        self.frames, self.breaks_at, self.resets, self.steps = frames, breaks_at, 0, 0
        self._begin(0)

    def _begin(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.place, self.at, self.time = float(rng.integers(4, 28)), 0.0, 0

    @property
    def facts(self) -> Facts:
        return Facts("toy 1", "go to the dot", 10, self.frames, NAMES, NAMES, {"front": (32, 8)}, {"toy": 1})

    @property
    def goal(self) -> Goal:
        point = np.array([self.place, 0.0, 0.0])
        return Goal(0, point, np.full(3, 2.0), np.zeros(3), point / 100)

    @property
    def moment(self) -> Moment:
        q = np.array([self.at, 0.0])
        T = np.eye(4)[None].copy()
        T[0, 0, 3] = self.place
        hand = np.array([self.at / 100, 0.0, 0.0])
        return Moment(self.time / 10, (q,), (q * 0,), T, frozenset(), hand, 1.0)

    def reset(self, seed: int, look: Look) -> Observation:
        self._begin(seed)
        self.look = look
        self.resets += 1
        return self._observe()

    def step(self, action: np.ndarray) -> Observation:
        self.time += 1
        self.steps += 1
        if self.breaks_at == self.time:
            raise Unstable("apart")
        self.at += float(np.clip(action[0] - self.at, -8, 8))
        return self._observe()

    def expert(self) -> np.ndarray:
        return np.array([self.place, 0.0])

    def close(self) -> None:
        pass

    def _observe(self) -> Observation:
        image = np.full((8, 32, 3), 20, np.uint8)
        gain = self.look.sun[0] if self.look.sun else 1.0
        if not self.look.colours:
            image[:, round(self.place)] = round(220 * gain)
        return Observation({"front": image}, np.array([self.at, 0.0], np.float32), "go to the dot", NAMES)


def seeker(observation: Observation) -> np.ndarray:
    """Goes where a column is brighter than 128; stays where none is. A chunk of three."""
    columns = observation.images["front"].mean((0, 2))
    best = int(columns.argmax())
    target = float(best) if columns[best] > 128 else float(observation.state[0])
    return np.tile([target, 0.0], (3, 1))
