# SPDX-License-Identifier: Apache-2.0
"""What stands beside the claim of the value experiment: an easier task, open loop against closed loop, controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from value_arms import Arm
from value_cells import agreement, cell_of
from value_data import HELD_OUT, OVERRIDES, Sizes
from value_units import NO_TRAINING, Played, Unit

from retake.core.export import Selection
from retake.core.files import read_json
from retake.core.painter.composite import CompositeBackend
from retake.core.painter.procedural import ProceduralBackend
from retake.core.robustness import robustness
from retake.loop.environment import Environment, Goal, Moment
from retake.loop.looks import UNCHANGED, Look
from retake.loop.policies import Blinded, Expert
from retake.loop.study import Asked, closed_loop
from retake.loop.tasks import NOT_REACHED, REACHED_M, TASKS, Outcome, Task


def pass_above(moments: Sequence[Moment], goal: Goal | None) -> Outcome:
    """The hand comes within 3 cm of the point above the packet, at any time: a policy of the whole task goes on from there, so
    where it ends says nothing."""
    assert goal is not None
    away = [float(np.linalg.norm(m.hand_m - goal.hover_m)) for m in moments]
    nearest = int(np.argmin(away))
    near = away[nearest] <= REACHED_M
    return Outcome(near, "" if near else NOT_REACHED, nearest, away[nearest])


PASS_ABOVE = Task("pass_above", pass_above, "approach")
"""The easier task, for the same policies."""


def easier_name(arm: Arm) -> str:
    """Of the unit that says how an arm does in the easier task."""
    return f"{arm.name} passing above"


def easier(
    played: Sequence[Arm], looks: Sequence[Look], seeds_of: Callable[[Arm], Sequence[int]], play: Callable[[Arm, int], Played]
) -> dict[str, dict[str, dict[str, Any]]]:  # fmt: skip
    """arm → look → cell of the easier task, of the arms and seeds that there are."""
    out = {}
    for arm in played:
        rows = {seed: play(arm, seed).rollouts for seed in seeds_of(arm)}
        if rows:
            out[arm.name] = {
                look.name: cell_of({
                    seed: [float(r.outcome.success) for r in of_seed if r.look == look.name] for seed, of_seed in rows.items()
                })
                for look in looks
            }  # fmt: skip
    return out


def open_loop_how(sizes: Sizes, quick: bool) -> dict[str, Any]:
    """What an open-loop score is made of, JSON."""
    return {
        "episodes": 1 if quick else 4, "first_seed": sizes.first_test_seed, "worlds": list(HELD_OUT), "overrides": OVERRIDES,
        "painters": [ProceduralBackend.version, CompositeBackend.version],
    }  # fmt: skip


def open_loop_score(out: Path, runs: Callable[[], Sequence[Path]], policy: Callable[[], Any]) -> float:
    """`retake robustness` of a policy: episodes of the test seeds, takes in the held-out worlds."""
    if not (out / "report.json").exists():
        probe = policy()
        try:
            robustness(runs(), probe, out, selection=Selection(unverified=True))
        finally:
            probe.close()
    return float(read_json(out / "report.json")["score"]["value"])


def side_by_side(
    result: dict[str, Any], seeds: Sequence[tuple[Arm, Sequence[int]]], unit: Callable[[Arm, int], Unit], how: dict[str, Any],
    make: Callable[[Arm, int], float] | None,
) -> dict[str, Any] | None:  # fmt: skip
    """`retake robustness` (open loop) and closed loop, over every policy whose score is kept, or made now; the closed-loop rate
    is the mean over every look but the unchanged one. None where there are no two scores."""
    scores, rates, names = [], [], []
    for arm, of_arm in seeds:
        row = [cell for look, cell in result["cells"][arm.name].items() if look != UNCHANGED]
        for index, seed in enumerate(of_arm):
            one = unit(arm, seed)
            score = one.open_loop(how)
            if score is None and make is not None:
                score = make(arm, seed)
                one.record_open_loop(score, how)
            if score is not None:
                scores.append(score)
                rates.append(float(np.mean([cell["by_training"][index] for cell in row])))
                names.append(f"{arm.name}, seed {seed}")
    if len(scores) < 2:
        return None
    table = {name: [score, rate] for name, score, rate in zip(names, scores, rates, strict=True)}
    return {**agreement(scores, rates), "score_and_rate": table}


def controls(
    unit: Callable[[str], Unit], wanted: Asked, environment: Callable[[], Environment], loops: Path,
    trained: Callable[[], Any], commit: str,
) -> dict[str, Any]:  # fmt: skip
    """The expert in every look, by the same states; a policy of simulated pictures alone, on grey ones."""
    task, out = TASKS["pick_place"], dict[str, Any]()
    for name, mine in (("expert", wanted), ("blinded", replace(wanted, looks=wanted.looks[:1]))):
        one = unit(name)
        if one.missing(mine):
            there = environment()
            policy = Expert(there) if name == "expert" else Blinded(trained())
            study = closed_loop(there, policy, task, loops / name, mine)
            one.record(study.rollouts, mine, NO_TRAINING, commit)
        rows = one.played(mine).rollouts
        out[name] = {
            look.name: [sum(r.outcome.success for r in rows if r.look == look.name), len(mine.seeds)]
            for look in mine.looks
        }
        if name == "expert":
            states = {seed: {r.states_sha256 for r in rows if r.seed == seed} for seed in mine.seeds}
            out["expert_states_equal_across_looks"] = all(len(found) == 1 for found in states.values())
    return out


__all__ = ["PASS_ABOVE", "controls", "easier", "easier_name", "open_loop_how", "open_loop_score", "side_by_side"]
