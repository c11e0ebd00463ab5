# SPDX-License-Identifier: Apache-2.0
"""One rollout: a seed, a look, a player; what came of it, and what was seen."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import UInt8
from retake.core.progress import CheckCancel, never
from retake.loop.environment import Environment, Moment, Unstable, states_sha256
from retake.loop.looks import Look
from retake.loop.policies import Player
from retake.loop.tasks import UNSTABLE, Outcome, Task, judged


@dataclass(frozen=True)
class Rollout:
    """What came of one seed in one look; JSON."""

    look: str
    axis: str
    seed: int
    outcome: Outcome
    frames: int
    """Actions played."""
    states_sha256: str
    """Of every simulated state: equal for equal actions, whatever the look."""
    seconds: float
    answer_s: float
    """Median time of an answer of the policy."""
    first_sha256: str = ""
    """Of the first picture, as the report shows it; empty where an earlier version made the rollout."""


def roll(
    environment: Environment,
    player: Player,
    task: Task,
    look: Look,
    seed: int,
    frames: int,
    check_cancel: CheckCancel = never,
) -> tuple[Rollout, dict[str, list[UInt8[np.ndarray, "H W 3"]]]]:
    """(what came of it, pictures of every camera). Raises InputError for a policy's bad answer, Cancelled."""
    started = time.perf_counter()
    observation = environment.reset(seed, look)
    player.reset()
    moments: list[Moment] = [environment.moment]
    seen = {name: [image] for name, image in observation.images.items()}
    outcome: Outcome | None = None
    for k in range(frames):
        check_cancel()
        action = player.action(observation)
        try:
            observation = environment.step(action)
        except Unstable:
            outcome = Outcome(False, UNSTABLE, k)
            break
        moments.append(environment.moment)
        for name, image in observation.images.items():
            seen[name].append(image)
    if outcome is None:
        outcome = judged(task, moments, environment.goal)
    median = float(np.median(player.waits)) if player.waits else 0.0
    spent = time.perf_counter() - started
    made = Rollout(
        look.name, look.axis, seed, outcome, len(moments) - 1, states_sha256(moments), round(spent, 3), round(median, 5)
    )
    return made, seen
