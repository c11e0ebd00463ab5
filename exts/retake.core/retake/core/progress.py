# SPDX-License-Identifier: Apache-2.0
"""Progress and cancellation, as two plain callables that every long stage accepts.

`progress(done, total, note)` is called often and must be cheap; `check_cancel()` raises `Cancelled` when the user has
asked to stop, and is called between frames, where everything on disk can be resumed.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TextIO

from retake.core.errors import Cancelled
from retake.core.host import stop_signals

Progress = Callable[[int, int, str], None]
CheckCancel = Callable[[], None]


def silent(done: int, total: int, note: str = "") -> None:
    """Progress nobody watches."""


def never() -> None:
    """Cancellation nobody asks for."""


class Stop:
    """A command's cancellation: Ctrl-C or SIGTERM (Windows: Ctrl-Break) asks to stop between frames, a second one stops
    at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in stop_signals():
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise Cancelled once the user has asked."""
        if self.asked:
            raise Cancelled("stopped; the same command goes on from here")


def clock(seconds: float) -> str:
    """`7 s`, `3:05 min`, `2:10 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


class Bar:
    """One line on a terminal, redrawn at most ten times a second; plain lines elsewhere (one per 10 %).

    Both say how long it has taken and about how long the rest takes. What was there already ("unchanged" work that is
    counted as done at the first call) does not make the rest look faster than it is.
    """

    def __init__(self, title: str, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self.stream = sys.stderr if stream is None else stream
        self._tty = self.stream.isatty()
        self._now = now
        self._started = now()
        self._first: tuple[float, int] | None = None
        self._last = -1.0
        self._step = -1

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`."""
        now, share = self._now() - self._started, done / max(total, 1)
        finished = done >= total
        if self._first is None:
            self._first = (now, done)
        times = clock(now)
        if not finished and done > self._first[1]:
            rate = (now - self._first[0]) / (done - self._first[1])
            times += f", about {clock(rate * (total - done))} left"
        if self._tty:
            if not finished and now - self._last < 0.1:
                return
            self._last = now
            bar = "█" * round(24 * share) + "·" * (24 - round(24 * share))
            self.stream.write(f"\r\x1b[2K{self.title:<12} {bar} {done}/{total}  {times}  {note}")
            self.stream.write("\n" if finished else "")
        elif (step := int(share * 10)) != self._step:
            self._step = step
            self.stream.write(f"{self.title}: {done}/{total} ({times}) {note}".rstrip() + "\n")
        self.stream.flush()
