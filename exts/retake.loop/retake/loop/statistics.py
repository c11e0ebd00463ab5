# SPDX-License-Identifier: Apache-2.0
"""Counts with their uncertainty: Wilson intervals, paired differences, McNemar's exact test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson, 1927), 0..1; (0, 1) for no trials."""
    if count == 0:
        return 0.0, 1.0
    z2 = Z95 * Z95
    rate, scale = successes / count, 1 + z2 / count
    middle = (rate + z2 / (2 * count)) / scale
    half = Z95 / scale * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count * count))
    # At 0 and at all the formula gives the end itself, up to rounding.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == count else min(1.0, middle + half)


@dataclass(frozen=True)
class Difference:
    """Second minus first, over pairs."""

    value: float
    low: float
    high: float
    """95 %: bootstrap over pairs, and at least as wide as Agresti and Min's (2005) interval, which does not shrink to a point
    where all pairs agree."""
    lost: int
    """Pairs that only the first won."""
    won: int
    p_value: float
    """McNemar's exact test, two-sided: that lost and won differ by chance alone."""
    pairs: int


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p of `lost` against `won` discordant pairs; 1 where there are none."""
    count = lost + won
    tail = sum(math.comb(count, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**count)


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0, samples: int = 5000) -> Difference:
    """Difference of two rates over the same seeds; entries 0..1 (a share, where several looks make one axis)."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(a) != len(b):
        raise ValueError(f"pairs need equal lengths; found {len(a)} and {len(b)}")
    if not len(a):
        return Difference(0.0, -1.0, 1.0, 0, 0, 1.0, 0)
    gain = b - a
    drawn = np.random.default_rng(seed).integers(0, len(gain), (samples, len(gain)))
    low, high = np.quantile(gain[drawn].mean(1), [0.025, 0.975])
    count = len(gain) + 2  # half a pair more in each of the four cells
    mean = float(gain.sum()) / count
    half = Z95 * math.sqrt(max((float((gain**2).sum()) + 1) / count - mean**2, 0.0) / count)
    low, high = max(-1.0, min(float(low), mean - half)), min(1.0, max(float(high), mean + half))
    lost, won = int((gain < -1e-12).sum()), int((gain > 1e-12).sum())
    value = float(gain.mean())
    return Difference(value, min(low, value), max(high, value), lost, won, mcnemar(lost, won), len(gain))
