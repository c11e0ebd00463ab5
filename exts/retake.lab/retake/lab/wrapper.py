# SPDX-License-Identifier: Apache-2.0
"""A gymnasium wrapper for Direct environments, which have no recorder manager. Manager-based ones may use it, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from retake.lab import host
from retake.lab.recorder import LabRecorder
from retake.lab.request import RecordRequest


class RetakeWrapper(gymnasium.Wrapper):
    """Records what happens in `step` and `reset`. Put it next to the environment, below wrappers that change actions.

    `success(env)` → (N,) tells whether each clone's task is done, asked just before a clone is reset.
    """

    def __init__(self, env: Any, request: RecordRequest, success: Callable[[Any], Any] | None = None) -> None:
        """Raises as LabRecorder."""
        super().__init__(env)
        self._host = env.unwrapped
        self.recorder = LabRecorder(self._host, request)
        self._success = success
        self._inside, self._reset_now = False, set[int]()
        self._inner_reset = self._host._reset_idx
        self._host._reset_idx = self._on_reset

    def step(self, action: Any) -> Any:
        """The environment's step."""
        self.recorder.before_step(action)
        self._inside, self._reset_now = True, set()
        try:
            result = self.env.step(action)
        finally:
            self._inside = False
        self.recorder.after_step(skip=self._reset_now)
        return result

    def finish(self, reason: str = "the recording was ended") -> None:
        """Finishes the recording; the environment goes on without it."""
        if self._host._reset_idx == self._on_reset:
            self._host._reset_idx = self._inner_reset
        self.recorder.close(reason)

    def close(self) -> Any:
        """Finishes the recording, then closes the environment."""
        self.finish("the environment was closed while recording")
        return self.env.close()

    def _on_reset(self, env_ids: Any, *more: Any, **named: Any) -> Any:
        """Stands before the environment's own `_reset_idx`: the last state is still there."""
        ids = host.clones_of(env_ids, self._host.num_envs)
        self.recorder.before_reset(ids, stepped=not self._inside)
        if self._success is not None:
            values = self._success(self._host)
            self.recorder.set_success(ids, [bool(values[i]) for i in ids])
        if self._inside:
            self._reset_now |= set(ids)
        result = self._inner_reset(env_ids, *more, **named)
        self.recorder.after_reset(ids)
        return result
