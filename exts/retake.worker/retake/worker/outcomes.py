# SPDX-License-Identifier: Apache-2.0
"""What became of jobs that have ended: written to the queue in order, and kept for as long as the disk does not take it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from retake.worker.store import ConflictError, QueueUnwritableError, Store

log = logging.getLogger(__name__)


class Outcomes:
    """Not written yet: a disk that refuses the queue's file loses no decision. `published` is told of every job written."""

    def __init__(self, store: Store, published: Callable[[str], None]) -> None:
        self._store, self._published = store, published
        self._owed: deque[tuple[str, Callable[[], None]]] = deque()

    @property
    def owed(self) -> bool:
        """Whether something is not written yet; nothing new is to begin meanwhile."""
        return bool(self._owed)

    def finish(self, job_id: str, state: str, error: str = "", result: dict[str, Any] | None = None) -> None:
        """A job is done, failed, cancelled or quarantined."""

        def write() -> None:
            for last_try in (False, True):
                try:
                    self._store.finish(job_id, state, error=error, result=result)
                    self.log(job_id, state + (f": {error}" if error else ""))
                    break
                except ConflictError:  # the database was damaged and has just been replaced
                    if last_try:
                        raise

        self._settle(job_id, write)

    def back(self, job_id: str, error: str = "", *, count_attempt: bool = True) -> None:
        """A job is in the queue again."""
        self._settle(job_id, lambda: self._store.back(job_id, error=error, count_attempt=count_attempt))

    def log(self, job_id: str, line: str) -> None:
        """A line of a job's log, which is not worth the job itself."""
        try:
            self._store.add_log(job_id, line)
        except QueueUnwritableError as error:
            log.warning("job %s: %s (%s)", job_id, line, error)

    def write(self) -> None:
        """Everything that is owed, as far as the disk takes it."""
        while self._owed:
            job_id, write = self._owed[0]
            try:
                write()
            except QueueUnwritableError as error:
                log.warning("job %s: %s", job_id, error)
                return
            except BaseException:
                self._owed.popleft()
                raise
            self._owed.popleft()
            self._published(job_id)

    def _settle(self, job_id: str, write: Callable[[], None]) -> None:
        self._owed.append((job_id, write))
        self.write()


__all__ = ["Outcomes"]
