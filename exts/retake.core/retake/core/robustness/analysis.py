# SPDX-License-Identifier: Apache-2.0
"""From actions to a score and its causes: pure numpy.

All action differences are divided, per entry, by the standard deviation of the true actions over the evaluated frames: 1
means "the pixels moved this action as much as the whole task does". Entries the demonstrations never move are left out.

Score = 100 · max(0, 1 − mean divergence), with a cluster bootstrap over runs and worlds. Causes: each visual axis is
tested by how much of the variance between worlds its values explain, against permutations of its labels within runs; the
strongest significant axis is taken out and the rest tested again, so an axis that only rides on another is not named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retake.core.array_types import Float64
from retake.core.export.collect import AXES

FLOORS = {"arm": 0.01, "fingers": 0.002, "gripper": 0.02}
"""Least standard deviation (rad or m; openness) of a true action entry that counts as moving."""
SIGNIFICANCE = 0.05
MEANINGFUL = 0.02
"""Least normalised action change that an axis must cause to be called a weakness: 2 % of the task's own motion."""
LEAST_SHARE = 0.01
"""Least share of the variance between worlds that it must explain: less is a side effect of a stronger axis (8-bit
rounding of a darker picture gave 0.06 to 0.2 % with planted weaknesses)."""


@dataclass(frozen=True)
class WorldResult:
    """A policy on one take: actions against those on the simulator's frames and against the truth."""

    run: str
    world: str
    take: str
    axes: dict[str, str]
    deviation: Float64[np.ndarray, "F H A"]
    """Action on the take − action on the simulator's frame, normalised."""
    truth_error: float
    """Root mean square of action − true action, normalised."""

    @property
    def per_frame(self) -> Float64[np.ndarray, "F"]:
        """Divergence of each frame: root mean square over entries, mean over the horizon."""
        return np.sqrt((self.deviation**2).mean(-1)).mean(-1)

    @property
    def divergence(self) -> float:
        """Mean divergence."""
        return float(self.per_frame.mean())


@dataclass(frozen=True)
class Score:
    """100 = the pixels change nothing, 0 = they change actions as much as the whole task does."""

    value: float
    low: float
    high: float
    """95 % confidence interval."""


@dataclass(frozen=True)
class Attribution:
    """What one visual axis does to the policy's actions."""

    axis: str
    values: int
    """Distinct values among the worlds."""
    explained: float
    """Share of the variance between worlds that its values explain, corrected for chance; 0 … 1."""
    effect: float
    """Normalised action change it causes (root mean square)."""
    p_value: float
    """Of the permutation test, with what stronger axes explain taken out; 1 where it cannot be tested."""
    weakness: bool
    confounded_with: tuple[str, ...] = ()
    """Axes whose values go hand in hand with it in these worlds: they cannot be told apart."""
    worst_value: str = ""
    per_value: dict[str, float] = field(default_factory=dict)
    """Mean divergence of the worlds with each value."""


@dataclass(frozen=True)
class Analysis:
    """The numbers of the report."""

    score: Score
    axes: tuple[Attribution, ...]
    sim_error: float
    """Error against the truth on the simulator's own frames, normalised."""
    noise: float
    """Divergence of the policy from itself on the same frames (0 for a deterministic policy)."""
    verdict: str
    """One sentence."""


def moving_entries(truth: Float64[np.ndarray, "N A"], kinds: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(which entries move, scale of each): the normalisation. `kinds`: arm, fingers or gripper per entry."""
    scale = truth.std(0)
    floor = np.array([FLOORS.get(kind, 0.01) for kind in kinds])
    moving = scale >= floor
    if not moving.any():
        return np.ones(len(scale), bool), floor
    return moving, np.maximum(scale, floor)


def bootstrap_score(worlds: Sequence[WorldResult], seed: int = 0, samples: int = 2000) -> Score:
    """The score and its interval: runs are drawn with repetition, then worlds within each (worlds alone for one run)."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[float]] = {}
    for world in worlds:
        groups.setdefault(world.run, []).append(world.divergence)
    values = [np.array(v) for v in groups.values()]

    def score(divergence: float) -> float:
        return 100.0 * max(0.0, 1.0 - divergence)

    drawn = np.empty(samples)
    for i in range(samples):
        chosen = [values[k] for k in rng.integers(0, len(values), len(values))] if len(values) > 1 else values
        drawn[i] = np.concatenate([v[rng.integers(0, len(v), len(v))] for v in chosen]).mean()
    low, high = np.quantile(drawn, [0.975, 0.025])
    centre = score(float(np.concatenate(values).mean()))
    return Score(centre, min(score(float(low)), centre), max(score(float(high)), centre))


def attribute(worlds: Sequence[WorldResult], seed: int = 0, permutations: int = 2000) -> tuple[Attribution, ...]:
    """Every axis's share, strongest first."""
    rng = np.random.default_rng(seed)
    runs = np.array([w.run for w in worlds])
    signed = np.stack([w.deviation.mean((0, 1)) for w in worlds])
    size = np.stack([np.abs(w.deviation).mean((0, 1)) for w in worlds])
    response = np.concatenate([signed, size], axis=1)
    for run in np.unique(runs):
        response[runs == run] -= response[runs == run].mean(0)
    labels = {axis: np.array([w.axes.get(axis, "") for w in worlds]) for axis in AXES}
    varied = [axis for axis in AXES if len(set(labels[axis])) > 1]
    divergence = np.array([w.divergence for w in worlds])
    total = float((response**2).sum())
    typical = float(np.sqrt((divergence**2).mean()))
    found: dict[str, tuple[float, float, float]] = {}
    residual, left = response.copy(), list(varied)
    named: list[str] = []
    while left:
        tested = {axis: _test(residual, labels[axis], runs, rng, permutations) for axis in left}
        best = max(left, key=lambda axis: tested[axis][0])
        explained, p = tested[best]
        p = min(1.0, p * len(left))  # Bonferroni over the axes still in question
        share = explained * float((residual**2).sum()) / total if total > 1e-18 else 0.0
        effect = float(np.sqrt(max(share, 0.0))) * typical
        if p >= SIGNIFICANCE or effect < MEANINGFUL or share < LEAST_SHARE:
            for axis in left:
                e, q = tested[axis]
                part = e * float((residual**2).sum()) / total if total > 1e-18 else 0.0
                found[axis] = (max(part, 0.0), float(np.sqrt(max(part, 0.0))) * typical, min(1.0, q * len(left)))
            break
        named.append(best)
        found[best] = (share, effect, p)
        residual = residual - _group_means(residual, labels[best])
        left.remove(best)
    out = []
    for axis in AXES:
        values = sorted({str(value) for value in labels[axis]})
        per_value = {v: float(divergence[labels[axis] == v].mean()) for v in values if v or len(values) > 1}
        explained, effect, p = found.get(axis, (0.0, 0.0, 1.0))
        twins = tuple(o for o in varied if o != axis and axis in varied and _same_partition(labels[axis], labels[o]))
        worst = max(per_value, key=lambda v: per_value[v]) if per_value else ""
        out.append(Attribution(axis, len(values), explained, effect, p, axis in named, twins, worst, per_value))
    return tuple(sorted(out, key=lambda a: (-a.weakness, -a.effect)))


def _group_means(response: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For every row the mean of its group."""
    _, index = np.unique(labels, return_inverse=True)
    sums = np.zeros((index.max() + 1, response.shape[1]))
    np.add.at(sums, index, response)
    return (sums / np.bincount(index)[:, None])[index]


def _test(
    response: np.ndarray, labels: np.ndarray, runs: np.ndarray, rng: np.random.Generator, permutations: int
) -> tuple[float, float]:
    """(share explained beyond chance, p-value) of a partition of the rows; labels are permuted within runs."""
    total = float((response**2).sum())
    if total < 1e-18:
        return 0.0, 1.0
    _, index = np.unique(labels, return_inverse=True)
    groups = index.max() + 1

    def share(permuted: np.ndarray) -> float:
        one_hot = np.zeros((groups, len(permuted)))
        one_hot[permuted, np.arange(len(permuted))] = 1.0
        means = one_hot @ response
        return float(((means**2).sum(1) / one_hot.sum(1)).sum()) / total

    observed = share(index)
    rows = [np.flatnonzero(runs == run) for run in np.unique(runs)]
    chance = np.empty(permutations)
    for i in range(permutations):
        permuted = index.copy()
        for part in rows:
            permuted[part] = index[rng.permutation(part)]
        chance[i] = share(permuted)
    p = (1 + int((chance >= observed - 1e-12).sum())) / (permutations + 1)
    mean = float(chance.mean())
    return (max(0.0, (observed - mean) / (1 - mean)) if mean < 1 - 1e-9 else 0.0), p


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two axes split the worlds the same way, so that no analysis of them can tell the axes apart."""
    pairs = len(set(zip(a, b, strict=True)))
    return pairs == len(set(a)) == len(set(b))


def sentence(score: Score, axes: Sequence[Attribution], noise: float) -> str:
    """The verdict in words."""
    weak = [a for a in axes if a.weakness]
    if score.value > 99.5 and not weak:
        return "Invariant: changing only the pixels does not change the actions."
    if not weak:
        reason = "no single visual axis explains it with these worlds"
        noisy = f" (the policy differs from itself by {noise:.3f} on identical pixels)" if noise > 1e-6 else ""
        return f"The actions change with the pixels, and {reason}{noisy}."
    parts = []
    for axis in weak:
        twins = f" (or {', '.join(axis.confounded_with)}: same worlds)" if axis.confounded_with else ""
        parts.append(
            f"{axis.axis}{twins}, which explains {axis.explained:.0%} of the change (worst: {axis.worst_value!r})"
        )
    return "Weak to " + "; ".join(parts) + "."


def analyse(worlds: Sequence[WorldResult], sim_error: float, noise: float, seed: int = 0) -> Analysis:
    """Score, causes and the sentence."""
    score, axes = bootstrap_score(worlds, seed), attribute(worlds, seed)
    return Analysis(score, axes, sim_error, noise, sentence(score, axes, noise))
