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

Progress = Callable[[int, int, str], None]
CheckCancel = Callable[[], None]


def silent(done: int, total: int, note: str = "") -> None:
    """Progress nobody watches."""


def never() -> None:
    """Cancellation nobody asks for."""


class Stop:
    """A command's cancellation: Ctrl-C or SIGTERM asks to stop between frames, a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise Cancelled once the user has asked."""
        if self.asked:
            raise Cancelled("stopped; the same command goes on from here")


class Bar:
    """One line on a terminal, redrawn at most ten times a second; plain lines elsewhere (one per 10 %)."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = sys.stderr if stream is None else stream
        self._tty = self.stream.isatty()
        self._started = time.monotonic()
        self._last = -1.0
        self._step = -1

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`."""
        now, share = time.monotonic() - self._started, done / max(total, 1)
        finished = done >= total
        if self._tty:
            if not finished and now - self._last < 0.1:
                return
            self._last = now
            left = f"{now / share - now:.0f} s left" if 0 < share < 1 else f"{now:.1f} s"
            bar = "█" * round(24 * share) + "·" * (24 - round(24 * share))
            self.stream.write(f"\r\x1b[2K{self.title:<12} {bar} {done}/{total}  {left}  {note}")
            self.stream.write("\n" if finished else "")
        elif (step := int(share * 10)) != self._step:
            self._step = step
            self.stream.write(f"{self.title}: {done}/{total} {note}\n".replace(" \n", "\n"))
        self.stream.flush()
