# SPDX-License-Identifier: Apache-2.0
"""What the rollouts of the value experiment come to: the stop rule, cells with intervals, comparisons over pairs, agreement of
open and closed loop. Pure numbers; nothing here trains or plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from value_arms import Arm
from value_page import LEAST_AXES, LEAST_LOSS, LEAST_UNCHANGED

from retake.loop.looks import UNCHANGED, Look
from retake.loop.statistics import paired, wilson

Cells = dict[str, dict[str, dict[int, list[float]]]]
"""arm → look → training seed → success of every rollout, in one order."""


def stop_rule(row: dict[str, dict[int, list[float]]], looks: Sequence[Look]) -> dict[str, Any]:
    """Whether the task and the probe are good enough for anything to be claimed. Worlds of the painter do not count."""

    def rate(look: str) -> float:
        return float(np.mean(np.concatenate(list(row[look].values()))))

    losses: dict[str, float] = {}
    for axis in dict.fromkeys(look.axis for look in looks if look.name != UNCHANGED and not look.world):
        rates = [rate(look.name) for look in looks if look.axis == axis]
        losses[axis] = rate(UNCHANGED) - float(np.mean(rates))
    lost = [axis for axis, loss in losses.items() if loss >= LEAST_LOSS]
    met = rate(UNCHANGED) >= LEAST_UNCHANGED and len(lost) >= LEAST_AXES
    return {"met": met, "unchanged": rate(UNCHANGED), "losses": losses, "axes_lost": lost}


def cell_of(of_seed: dict[int, list[float]]) -> dict[str, Any]:
    """Counts over all trainings, and the rate of each: rollouts of one training are not independent of its luck."""
    successes, count = int(sum(map(sum, of_seed.values()))), sum(map(len, of_seed.values()))
    low, high = wilson(successes, count)
    by_training = [float(np.mean(values)) for values in of_seed.values()]
    return {"successes": successes, "count": count, "low": low, "high": high, "by_training": by_training}


def agreement(open_scores: Sequence[float], closed_rates: Sequence[float]) -> dict[str, Any]:
    """Does the open-loop score predict the closed-loop rate? Correlations over policies (None where one of them is constant),
    and whether the policy with the best score is one with the best rate (None where all rates are equal)."""
    a, b = np.asarray(open_scores, np.float64), np.asarray(closed_rates, np.float64)

    def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
        return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() > 0 and y.std() > 0 else None

    def ranks(x: np.ndarray) -> np.ndarray:
        return np.array([(x < v).sum() + ((x == v).sum() - 1) / 2 for v in x])

    return {
        "policies": len(a),
        "pearson": correlation(a, b),
        "spearman": correlation(ranks(a), ranks(b)),
        "picks_the_right_policy": bool(b[int(a.argmax())] == b.max()) if b.std() > 0 else None,
    }


def comparisons(cells: Cells, compared: Sequence[Arm], looks: Sequence[Look]) -> dict[str, Any]:
    """Takes against simulated-only and against the best cheap baseline, per axis, over pairs of (training seed, rollout) of the
    seeds that both were trained with. Where some baselines have more of an arm's seeds than others, those are its rivals."""
    seeds = {arm: set(row[looks[0].name]) for arm, row in cells.items()}
    baselines = [
        arm.name for arm in compared if arm.competes and arm.name in ("jitter", "textures") and arm.name in cells
    ]
    out: dict[str, Any] = {}
    for arm in compared:
        if not (arm.with_takes and arm.name in cells):
            continue
        simulated, rows = compared[0].name, {}
        most = max((len(seeds[name] & seeds[arm.name]) for name in baselines), default=0)
        cheap = [name for name in baselines if most and len(seeds[name] & seeds[arm.name]) == most]
        plainly = sorted(seeds[arm.name] & seeds[simulated])
        cheaply = sorted(seeds[arm.name].intersection(*(seeds[name] for name in cheap))) if cheap else []
        for axis in dict.fromkeys(look.axis for look in looks):
            names = [look.name for look in looks if look.axis == axis]

            def mean(name: str, of: Sequence[int], names: Sequence[str] = names) -> list[float]:
                """Success of each pair, over the looks of the axis."""
                rollouts = [np.concatenate([cells[name][look][seed] for seed in of]) for look in names]
                return [float(value) for value in np.mean(rollouts, 0)]

            best = max(cheap, key=lambda name: sum(mean(name, cheaply))) if cheaply else ""
            rows[axis] = {
                "over_simulated": asdict(paired(mean(simulated, plainly), mean(arm.name, plainly)))
                if plainly
                else None,
                "best_cheap": best,
                "over_best_cheap": asdict(paired(mean(best, cheaply), mean(arm.name, cheaply))) if best else None,
            }
        out[arm.name] = {
            "seeds_with_simulated": plainly, "seeds_with_cheap": cheaply, "rivals": cheap, "claimed": arm.competes,
            "axes": rows,
        }  # fmt: skip
    return out


__all__ = ["Cells", "agreement", "cell_of", "comparisons", "stop_rule"]
