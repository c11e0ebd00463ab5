# SPDX-License-Identifier: Apache-2.0
"""Which queued job is next, when loading a model costs more than a job: those of the loaded one first, within bounds."""

from __future__ import annotations

from collections.abc import Sequence

from retake.core.wire import JobRecord

MOST_PASSES = 8
"""A job is passed over at most so often; then it is next, whatever is loaded."""


class Batch:
    """Remembers which backend is loaded and how often the job in front was passed over."""

    def __init__(self) -> None:
        self._loaded, self._front, self._passes = "", "", 0

    def order(self, queued: Sequence[JobRecord]) -> list[JobRecord]:
        """The jobs in the order to try: within the first one's priority, those of the loaded backend come first."""
        if not queued:
            return []
        front = queued[0]
        if front.id != self._front:
            self._front, self._passes = front.id, 0
        if front.backend == self._loaded or self._passes >= MOST_PASSES:
            return list(queued)
        alike = [r for r in queued if r.priority == front.priority and r.backend == self._loaded]
        return [*alike, *(r for r in queued if r not in alike)]

    def started(self, record: JobRecord) -> None:
        """A job was handed to the executor, which now holds its backend."""
        if record.id != self._front:
            self._passes += 1
        self._loaded = record.backend

    def unloaded(self) -> None:
        """The executor is gone, and the model with it."""
        self._loaded = ""
