# SPDX-License-Identifier: Apache-2.0
"""Every number that a robustness analysis and an actuator gap give for fixed signals, against what they gave before.

`python tests/test_analysis_golden.py` writes the numbers anew where an analysis was changed on purpose.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.export.collect import AXES
from retake.core.gap.measure import gaps, lag
from retake.core.gap.model import Actuator, fit, response, through
from retake.core.gap.page import page
from retake.core.importers.sage import JointLog
from retake.core.robustness.analysis import WorldResult, attribute, bootstrap_score, moving_entries, sentence

GOLDEN = Path(__file__).parent / "golden" / "analysis" / "numbers.json"
SHARE = 1e-5
WEAK = {"nothing": {}, "light": {AXES[0]: 0.6}, "two": {AXES[0]: 0.5, AXES[2]: 0.25}, "little": {AXES[1]: 0.02}}


def worlds(kind: str, runs: int, count: int, noise: float) -> list[WorldResult]:
    """A policy that is weak to some axes: each value of one shifts all actions by its own amount."""
    rng = np.random.default_rng(len(kind) + 10 * runs + count)
    out = []
    for run in range(runs):
        for k in range(count):
            axes = {axis: "abc"[int(rng.integers(3))] for axis in AXES}
            axes[AXES[-1]] = axes[AXES[0]].upper() if kind == "two" else axes[AXES[-1]]
            deviation = rng.normal(0, noise, (5, 2, 3))
            for axis, size in WEAK[kind].items():
                deviation = deviation + size * (ord(axes[axis].lower()) - ord("a")) * np.array([1.0, -0.5, 0.2])
            out.append(WorldResult(f"run{run}", f"w{k}", f"t{k}", axes, deviation, float(np.abs(deviation).mean())))
    return out


def robustness(kind: str) -> dict[str, Any]:
    found = {}
    for runs, count in ((1, 9), (3, 6)):
        given = worlds(kind, runs, count, 0.03)
        found[f"{runs} runs"] = {
            "score": bootstrap_score(given, seed=2, samples=60), "axes": attribute(given, seed=4, permutations=80),
            "each": [[w.divergence, w.per_frame] for w in given[:2]],
        }  # fmt: skip
    return summed_up(found)


def log(phase: float, slow: float, real: bool) -> JointLog:
    time = np.arange(0, 3, 1 / 50)
    told = np.stack([np.sin(2 * time), 0.5 * np.sign(np.sin(3 * time)), np.full_like(time, 0.2), 0.04 * time], -1)
    late = np.clip(time - phase, 0, None)
    did = np.stack(
        [slow * np.sin(2 * late), 0.5 * np.tanh(4 * np.sin(3 * late)), np.full_like(time, 0.21), 0.04 * late], -1
    )
    return JointLog(("a", "b", "still", "d"), time, told, time + 0.004, did, None, None, real)


def actuators() -> dict[str, Any]:
    sim, real = log(0.0, 1.0, False), log(0.12, 0.9, True)
    found = gaps(sim, real)
    model = {"a": Actuator(0.08, 0.04, 0.02), "d": Actuator(0.2, 0.0, 0.0)}
    text = page(sim, real, found, model)
    numbers = [float(x) for x in re.findall(r"-?\d+\.\d+|-?\d+", text.partition("<table>")[2])]
    told = np.sin(np.linspace(0, 6, 120))
    return summed_up({
        "gaps": list(found), "fit": fit(real), "page": np.array(numbers), "words": re.sub(r"[-\d.]+", "#", text)[:1500],
        "through": vars(through(real, model)),
        "responses": response(told, np.array([0.01, 0.1, 0.5]), np.array([0.0, 0.05, 0.2]), np.array([0.0, 0.01, 0.1]), 0.3),
        "lags": [lag(told, np.roll(told, k)) for k in (-9, -1, 0, 2, 30)],
    })  # fmt: skip


CASES = {**{kind: lambda kind=kind: robustness(kind) for kind in WEAK}, "actuators": actuators}


@pytest.mark.parametrize("case", CASES)
def test_an_analysis_says_what_it_said(case: str) -> None:
    assert not compare(CASES[case](), load(GOLDEN)[case], SHARE)


def test_the_sentence_follows_from_what_was_found() -> None:
    said = {}
    for kind in WEAK:
        given = worlds(kind, 3, 6, 0.0 if kind == "nothing" else 0.03)
        score, axes = bootstrap_score(given, samples=60), attribute(given, permutations=400)
        said[kind] = sentence(score, axes, 0.2)
    assert said["nothing"] == "Invariant: changing only the pixels does not change the actions."
    assert said["light"].startswith(f"Weak to {AXES[0]}, which explains ")
    assert f"Weak to {AXES[0]} (or {AXES[-1]}: same worlds)" in said["two"]
    assert said["little"] == (
        "The actions change with the pixels, and no single visual axis explains it with these worlds "
        "(the policy differs from itself by 0.200 on identical pixels)."
    )


def test_entries_move_from_their_floor_on() -> None:
    truth = np.outer([-1.0, 1.0], [0.0099, 0.0101, 0.0019, 0.0021, 0.019, 0.021])
    moving, scale = moving_entries(truth, ("arm", "arm", "fingers", "fingers", "gripper", "gripper"))
    assert moving.tolist() == [False, True] * 3
    assert np.allclose(scale, [0.01, 0.0101, 0.002, 0.0021, 0.02, 0.021])
    still = moving_entries(truth * 0, ("arm", "arm", "fingers", "fingers", "gripper", "other"))
    assert still[0].all()
    assert np.allclose(still[1], [0.01, 0.01, 0.002, 0.002, 0.02, 0.01])


if __name__ == "__main__":
    store(GOLDEN, {case: measure() for case, measure in CASES.items()})
    sys.exit(0)
