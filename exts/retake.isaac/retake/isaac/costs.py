# SPDX-License-Identifier: Apache-2.0
"""What a recording costs inside the simulation's callbacks, kept in bounded memory.

Waiting for a full queue is no cost of capturing but the slowing-down that was asked for: it is left out here and told
apart (`waited_s` in the status, in capture.json and in the bench).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

KEPT = 20_000
"""Newest calls that count: some minutes of a recording."""
FRESH_S = 0.5
"""A panel asks for the percentiles at every update; sorting that many numbers each time would cost milliseconds."""


class CallbackCosts:
    """Nanoseconds of the newest calls, by kind of callback."""

    def __init__(self) -> None:
        self.steps: deque[int] = deque(maxlen=KEPT)
        """After a physics step."""
        self.frames: deque[int] = deque(maxlen=KEPT)
        """On a rendered frame."""
        self._known: tuple[float, float] = (0.0, 0.0)
        self._known_at = float("-inf")

    def percentiles(self) -> tuple[float, float]:
        """Median and 99th percentile over both kinds, ms; at most half a second old."""
        now = time.monotonic()
        if now - self._known_at > FRESH_S:
            self._known, self._known_at = self.now(), now
        return self._known

    def now(self) -> tuple[float, float]:
        """Median and 99th percentile over both kinds, ms, computed anew."""
        return percentiles([*self.steps, *self.frames])


def percentiles(nanoseconds: Sequence[int]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    if not nanoseconds:
        return (0.0, 0.0)
    ordered = sorted(nanoseconds)
    return ordered[len(ordered) // 2] / 1e6, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] / 1e6
