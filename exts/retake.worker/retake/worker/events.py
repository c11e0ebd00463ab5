# SPDX-License-Identifier: Apache-2.0
"""Events: what changed, numbered, kept for a while, handed to whoever listens (server-sent events) or asks (polling)."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from typing import Any

KEEP = 2000
QUEUE = 500


class EventHub:
    """A ring of numbered events. `publish` may be called from any thread."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(6)
        self._lock = threading.Lock()
        self._ring: deque[tuple[int, str, dict[str, Any]]] = deque(maxlen=KEEP)
        self._last = 0
        self._listeners: dict[asyncio.Queue[tuple[int, str, dict[str, Any]] | None], asyncio.AbstractEventLoop] = {}
        self.closed = False

    @property
    def last(self) -> int:
        """Id of the newest event."""
        return self._last

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Number an event and hand it out."""
        with self._lock:
            self._last += 1
            event = (self._last, kind, data)
            self._ring.append(event)
            listeners = list(self._listeners.items())
        for listener, loop in listeners:
            try:
                loop.call_soon_threadsafe(_put_or_drop, listener, event)
            except RuntimeError:  # its loop has ended
                self._listeners.pop(listener, None)

    def since(self, number: int, epoch: str) -> tuple[bool, list[tuple[int, str, dict[str, Any]]]]:
        """(missed some, events after `number`). Another epoch or a gap means: read lists anew."""
        with self._lock:
            oldest = self._ring[0][0] if self._ring else self._last + 1
            missed = epoch != self.epoch or number < oldest - 1 or number > self._last
            return missed, [] if missed else [e for e in self._ring if e[0] > number]

    def listen(self) -> asyncio.Queue[tuple[int, str, dict[str, Any]] | None]:
        """A queue of events from now on; None ends it (service stops, or the listener was too slow)."""
        listener: asyncio.Queue[tuple[int, str, dict[str, Any]] | None] = asyncio.Queue(QUEUE)
        with self._lock:
            self._listeners[listener] = asyncio.get_running_loop()
        return listener

    def leave(self, listener: asyncio.Queue[Any]) -> None:
        """Stop listening."""
        with self._lock:
            self._listeners.pop(listener, None)

    def close(self) -> None:
        """End all listeners."""
        self.closed = True
        with self._lock:
            listeners = list(self._listeners.items())
            self._listeners.clear()
        for listener, loop in listeners:
            try:
                loop.call_soon_threadsafe(_put_or_drop, listener, None)
            except RuntimeError:
                continue


def _put_or_drop(listener: asyncio.Queue[Any], event: Any) -> None:
    if listener.full():
        while not listener.empty():  # too slow: it must reconnect and read anew
            listener.get_nowait()
        event = None
    listener.put_nowait(event)
