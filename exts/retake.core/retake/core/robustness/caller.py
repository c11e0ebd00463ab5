# SPDX-License-Identifier: Apache-2.0
"""A policy is code of somebody else's: whatever it does, also nothing for ever, ends in an answer or a sentence."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from retake.core.errors import InputError, RetakeError
from retake.core.robustness.policy import Observation, Policy

Asked = queue.SimpleQueue[Callable[[], Any] | None]
Said = queue.SimpleQueue[tuple[Any, BaseException | None]]


class Caller:
    """Calls on one thread of its own, so that an answer that never comes ends in a sentence instead of a standstill."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._asked: Asked = queue.SimpleQueue()
        self._said: Said = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, function: Callable[[], Any], name: str) -> Any:
        """What the function returns. Raises InputError when it takes too long, or with what a callable raised."""
        if self._thread is None:
            queues = self._asked, self._said = queue.SimpleQueue(), queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=queues, name="retake-policy", daemon=True)
            self._thread.start()
        self._asked.put(function)
        try:
            value, error = self._said.get(timeout=self._timeout_s)
        except queue.Empty:
            self._asked.put(None)  # the thread ends after its late answer, which goes to queues nobody reads any more
            self._thread = None
            raise InputError(
                f"policy {name} gave no answer within {self._timeout_s:g} s; make it faster, or allow more with --timeout"
            ) from None
        if isinstance(error, RetakeError):
            raise error
        if isinstance(error, Exception | SystemExit):
            raise InputError(f"policy {name} failed: {type(error).__name__}: {error}") from error
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(5)
            self._thread = None


def _serve(asked: Asked, said: Said) -> None:
    while (function := asked.get()) is not None:
        try:
            said.put((function(), None))
        except BaseException as error:
            said.put((None, error))


class Bounded:
    """A policy whose every word goes through a `Caller`."""

    def __init__(self, policy: Policy, timeout_s: float) -> None:
        self.name, self._policy, self._call = policy.name, policy, Caller(timeout_s)

    def infer(self, observation: Observation) -> Any:
        """The policy's answer. Raises InputError when there is none in time, or with what it raised."""
        return self._call(lambda: self._policy.infer(observation), self.name)

    def reset(self) -> None:
        """The policy forgets. Raises as `infer` does."""
        self._call(self._policy.reset, self.name)

    def end(self) -> None:
        """End the thread that asks; the policy itself stays open."""
        self._call.close()
