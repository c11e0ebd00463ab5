# SPDX-License-Identifier: Apache-2.0
"""Progress and cancellation, as two plain callables that every long stage accepts.

`progress(done, total, note)` is called often and must be cheap; `check_cancel()` raises `Cancelled` when the user has
asked to stop, and is called between frames, where everything on disk can be resumed.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
    at once. In another thread than the main one, which alone hears signals, nobody asks."""

    def __init__(self) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():
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


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """What a command does about signals ends with it: a program that calls one has its own Ctrl-C back."""
    before = {number: signal.getsignal(number) for number in stop_signals()}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # None: not Python's, so not ours to set
                    signal.signal(number, handler)


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
    counted as done at the first call) does not make the rest look faster than it is. A stream that is closed, or whose
    reader left, ends the display and not the work.
    """

    def __init__(self, title: str, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self.stream: TextIO | None = sys.stderr if stream is None else stream
        # Hosts put objects of their own in the place of stderr, or None (pythonw, `2>&-`).
        try:
            self._tty = bool(getattr(self.stream, "isatty", bool)())
        except ValueError:  # closed
            self._tty = False
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
            end = "\n" if finished else ""
            self._write(f"\r\x1b[2K{self.title:<12} {bar} {done}/{total}  {times}  {note}{end}")
        elif (step := int(share * 10)) != self._step:
            self._step = step
            self._write(f"{self.title}: {done}/{total} ({times}) {note}".rstrip() + "\n")

    def _write(self, text: str) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # ValueError: closed, or a character that its encoding lacks
            self.stream = None
