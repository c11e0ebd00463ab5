# SPDX-License-Identifier: Apache-2.0
"""How far a rate may be from what was counted."""

from __future__ import annotations

import math


def upper_bound(failures: int, count: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a rate, by bisection of the binomial distribution; 1 where nothing was counted."""
    if failures >= count:
        return 1.0
    low, high = failures / count, 1.0
    for _ in range(80):
        p = (low + high) / 2
        tail = sum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(failures + 1))
        low, high = (p, high) if tail > 1 - confidence else (low, p)
    return high
