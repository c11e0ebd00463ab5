# SPDX-License-Identifier: Apache-2.0
"""The running job as the dispatcher sees it: progress, estimate, deadlines. Durations use the monotonic clock only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from retake.core.wire import JobRecord, TakeJob, VariantJob
from retake.worker.settings import BackendSpec

PUBLISH_EVERY_S = 0.1


@dataclass
class Running:
    """One attempt at one job."""

    record: JobRecord
    job: TakeJob | VariantJob
    backend: BackendSpec
    tier: str
    began: float
    """Monotonic s."""
    card: str = ""
    """UUID of the card it was placed on; empty: any."""
    sent: bool = False
    """The executor has it."""
    ending: str = ""
    """Why it is being ended: `cancel`, `release`, `stop`; empty while it may run."""
    kill_at: float | None = None
    done: int = 0
    total: int = 0
    note: str = ""
    preview: int = 0
    heard: float = 0.0
    """When it last gave a sign of life, monotonic s."""
    _first: tuple[float, int] | None = None
    _eta: float | None = None
    _published: float = -1.0

    def advance(self, now: float, done: int, total: int, note: str) -> bool:
        """Take in progress; whether it is time to tell listeners."""
        if total != self.total or done < self.done or self._first is None:
            self._first = (now, done)  # another stage counts anew
        self.done, self.total, self.note, self.heard = done, total, note, now
        since, base = self._first
        self._eta = (now - since) / (done - base) * (total - done) if done > base else None
        if now - self._published < PUBLISH_EVERY_S and done not in (0, total):
            return False
        self._published = now
        return True

    def live(self, record: JobRecord) -> JobRecord:
        """The stored record with what only memory knows."""
        return replace(
            record, done=self.done, total=self.total, note=self.note, preview=self.preview,
            eta_s=None if self._eta is None else round(self._eta, 2),
        )  # fmt: skip
