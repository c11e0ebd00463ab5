# SPDX-License-Identifier: Apache-2.0
"""What a recording waits for, and when waiting is over: steps or frames that never come, and updates that take seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

STEP_PATIENCE = 60
"""Updates of a running timeline without a physics step before another hook is tried."""
FRAME_PATIENCE = 300
"""Updates of a running recording without a frame before it ends."""
SLOW_S = 5.0
"""Seconds an update takes when something is wrong; a heavy scene takes tenths of one."""
SLOW_ADVICE = (
    "headless Isaac Sim 6.0.0 falls to 10 s a frame when its viewport window has no surface to present to (IsaacSim#701): "
    "start it with a display (xvfb-run), without the viewport window, or use 6.0.1 or newer"
)


class Watch:
    """Counts updates since the last step and the last frame, and times them. Main thread only."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._without_step = self._without_frame = 0
        self._durations: deque[float] = deque(maxlen=5)
        self._last: float | None = None
        self._told = False

    def step(self) -> None:
        """A physics step was announced."""
        self._without_step = 0

    def frame(self) -> None:
        """A frame was delivered."""
        self._without_frame = 0

    def update(self, *, playing: bool) -> None:
        """An application update has passed."""
        now = self._now()
        if playing:
            self._without_step += 1
            self._without_frame += 1
            if self._last is not None:
                self._durations.append(now - self._last)
        self._last = now if playing else None

    def again(self) -> None:
        """Wait anew (another hook is tried, a recording begins)."""
        self._without_step = self._without_frame = 0

    @property
    def no_steps(self) -> bool:
        """Whether steps should have come by now."""
        return self._without_step >= STEP_PATIENCE

    @property
    def no_frames(self) -> bool:
        """Whether frames should have come by now."""
        return self._without_frame >= FRAME_PATIENCE

    def slow(self) -> str:
        """Once, when updates take seconds: how long, and what helps. Empty otherwise."""
        if self._told or len(self._durations) < 5 or median(self._durations) < SLOW_S:
            return ""
        self._told = True
        return f"an update takes {median(self._durations):.1f} s: {SLOW_ADVICE}"
