# SPDX-License-Identifier: Apache-2.0
"""Statistics as LeRobot keeps them: min, max, mean, std (population), count and five quantiles, per episode and overall.

Quantiles are values of the sample (the smallest x with share ≥ q): what LeRobot's own histogram estimates to 1/5000 of
the range. Image statistics come from per-channel histograms of 256 values, so they are exact and need no frames in
memory; they are scaled to [0, 1] and shaped (3, 1, 1). Merging: mean and std are weighted by count; merged quantiles are
bounds (min of the lower ones, max of the upper ones), the median is weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from retake.core.array_types import Float64, UInt8

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, Any]
"""Statistic name → nested list of floats (JSON), for one feature."""


def vector_stats(values: np.ndarray) -> Stats:
    """Statistics over axis 0 of (T, n) or (T,) values; every entry has n (or 1) numbers."""
    x = np.asarray(values, np.float64)
    x = x.reshape(len(x), -1)
    out: Stats = {
        "min": x.min(0),
        "max": x.max(0),
        "mean": x.mean(0),
        "std": x.std(0),
        "count": np.array([len(x)]),
    }
    quantiles = np.quantile(x, list(QUANTILES.values()), axis=0, method="inverted_cdf") if len(x) > 1 else None
    for i, name in enumerate(QUANTILES):
        out[name] = out["mean"] if quantiles is None else quantiles[i]
    return {k: v.tolist() for k, v in out.items()}


def sampled_frames(length: int) -> frozenset[int]:
    """Which frames of an episode enter image statistics: all up to 100, then max(100, n^0.75), at most 10,000."""
    count = max(min(length, 100), min(int(length**0.75), 10_000))
    return frozenset(int(i) for i in np.round(np.linspace(0, length - 1, count)))


class ImageStats:
    """Per-channel statistics of RGB frames, one frame at a time."""

    def __init__(self, length: int) -> None:
        self._wanted, self._next, self._used = sampled_frames(length), 0, 0
        self._histogram = np.zeros((3, 256), np.int64)

    def add(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """The next frame of the episode."""
        if self._next in self._wanted:
            height, width = frame.shape[:2]
            # Strided to about 150 px along the longer side, as LeRobot does: statistics, not pictures.
            step = 1 if max(width, height) < 300 else int((width if width > height else height) / 150)
            small = frame[::step, ::step]
            for channel in range(3):
                self._histogram[channel] += np.bincount(small[..., channel].ravel(), minlength=256)
            self._used += 1
        self._next += 1

    def result(self) -> Stats:
        """The statistics, shape (3, 1, 1), [0, 1]; `count` is the number of frames used."""
        values, h = np.arange(256, dtype=np.float64), self._histogram.astype(np.float64)
        total = h.sum(1)
        present, share = h > 0, h.cumsum(1) / total[:, None]
        mean = (h @ values) / total
        out = {
            "min": values[present.argmax(1)],
            "max": values[255 - present[:, ::-1].argmax(1)],
            "mean": mean,
            "std": np.sqrt((h * (values - mean[:, None]) ** 2).sum(1) / total),
        }
        for name, q in QUANTILES.items():
            out[name] = values[(share >= q - 1e-12).argmax(1)]
        scaled = {k: (v / 255.0).reshape(3, 1, 1).tolist() for k, v in out.items()}
        return {**scaled, "count": [self._used]}


def merge(episodes: Callable[[], Iterable[dict[str, Stats]]]) -> dict[str, Stats]:
    """Dataset statistics from per-episode ones. `episodes()` is iterated twice, so nothing is held in memory."""
    count: dict[str, float] = {}
    total: dict[str, Float64[np.ndarray, "*n"]] = {}
    out: dict[str, dict[str, Any]] = {}
    for stats in episodes():
        for key, s in stats.items():
            n, mean = s["count"][0], np.asarray(s["mean"])
            count[key] = count.get(key, 0) + n
            total[key] = total.get(key, np.zeros_like(mean)) + n * mean
            median = n * np.asarray(s["q50"])
            mine = out.setdefault(
                key, {k: np.asarray(v) for k, v in s.items() if k != "q50"} | {"q50": np.zeros_like(mean)}
            )
            mine["q50"] = mine["q50"] + median
            for name in ("min", "q01", "q10"):
                mine[name] = np.minimum(mine[name], s[name])
            for name in ("max", "q90", "q99"):
                mine[name] = np.maximum(mine[name], s[name])
    means = {key: total[key] / count[key] for key in total}
    variance = {key: np.zeros_like(means[key]) for key in means}
    for stats in episodes():
        for key, s in stats.items():
            delta = np.asarray(s["mean"]) - means[key]
            variance[key] = variance[key] + s["count"][0] * (np.asarray(s["std"]) ** 2 + delta**2)
    for key, mine in out.items():
        mine |= {
            "mean": means[key],
            "std": np.sqrt(variance[key] / count[key]),
            "q50": mine["q50"] / count[key],
            "count": np.array([count[key]]),
        }
    order = ("min", "max", "mean", "std", "count", *QUANTILES)
    return {key: {name: np.asarray(mine[name]).tolist() for name in order} for key, mine in out.items()}
