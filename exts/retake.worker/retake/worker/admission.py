# SPDX-License-Identifier: Apache-2.0
"""Admission: which queued job may start now and where, and what the others wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retake.core.wire import JobRecord
from retake.worker.batching import Batch
from retake.worker.gpu import GpuProbe, Placement, pick_tier
from retake.worker.memory import AUTO
from retake.worker.settings import GIB, BackendSpec, WorkerSettings
from retake.worker.store import Store

LOOK_AHEAD = 20
"""Queued jobs that are looked at for one that can start, beside those of backends that wait."""
WAITING_FOR_DISK = "waiting for disk"


@dataclass(frozen=True)
class Held:
    """What the executor process has: its id (0: there is none), GPU memory in bytes as it says itself, and on which card."""

    pid: int = 0
    gpu_bytes: int = 0
    card: str = ""


@dataclass(frozen=True)
class Turn:
    """start: the job whose turn it is, its backend and place; None where none can start. waiting: what for, empty for nothing.
    refused: (job id, reason) of jobs that will never start."""

    start: tuple[JobRecord, BackendSpec, Placement] | None = None
    waiting: str = ""
    refused: tuple[tuple[str, str], ...] = ()


class Admission:
    """Remembers which jobs were put off, and since when each waits for memory or disk."""

    def __init__(
        self, store: Store, settings: WorkerSettings, backends: Mapping[str, BackendSpec], gpu: GpuProbe,
        free_bytes: Callable[[Path], int],
    ) -> None:  # fmt: skip
        self._store, self._settings, self._backends, self._gpu = store, settings, backends, gpu
        self._free_bytes = free_bytes
        self._not_before: dict[str, float] = {}
        self._waiting_since: dict[str, float] = {}
        self._seen = 0
        """Cards that NVML has shown."""
        self.batch = Batch()

    @property
    def has_put_off(self) -> bool:
        """Whether a job waits for its time."""
        return bool(self._not_before)

    def put_off(self, job_id: str, until_s: float) -> None:
        """Not before that time (monotonic s)."""
        self._not_before[job_id] = until_s

    def wait_anew(self) -> None:
        """Time in which nothing was to start is no waiting."""
        self._waiting_since.clear()

    def put_off_no_longer(self, job_id: str) -> None:
        """It may start at once."""
        self._not_before.pop(job_id, None)

    def next(self, now: float, held: Held) -> Turn:
        """The first job in turn that nothing stands in the way of. `now`: monotonic s."""
        in_the_way: dict[str, str] = {}
        refused: list[tuple[str, str]] = []
        queued = self._store.queued(LOOK_AHEAD)
        seen, before = {record.id for record in queued}, 0
        turn = self._first(self.batch.order(queued), now, held, in_the_way, refused)
        while turn is None and len(queued) == LOOK_AHEAD and len(in_the_way) > before:
            before = len(in_the_way)
            # Others pass, however many wait in front of them.
            queued = self._store.queued(LOOK_AHEAD, tuple(in_the_way))
            seen |= {record.id for record in queued}
            turn = self._first(queued, now, held, in_the_way, refused)
        if turn is not None:
            self._waiting_since.clear()
            return Turn(turn, "", tuple(refused))
        # a job that left the queue and comes back has its time again
        self._waiting_since = {job_id: since for job_id, since in self._waiting_since.items() if job_id in seen}
        return Turn(None, next(iter(in_the_way.values()), ""), tuple(refused))

    def _first(
        self, queued: Sequence[JobRecord], now: float, held: Held, in_the_way: dict[str, str], refused: list[tuple[str, str]],
    ) -> tuple[JobRecord, BackendSpec, Placement] | None:  # fmt: skip
        """The first of these that can start. Adds what backends wait for, and the jobs that never will start."""
        for record in queued:
            if self._not_before.get(record.id, 0.0) > now or record.backend in in_the_way:
                continue
            self._not_before.pop(record.id, None)
            backend = self._backends.get(record.backend)
            if backend is None:
                valid = ", ".join(sorted(self._backends))
                refused.append((record.id, f"unknown backend {record.backend!r}; valid: {valid}"))
                continue
            place = self.place(record, backend, held)
            if not place.reason:
                return record, backend, place
            since = self._waiting_since.setdefault(record.id, now)
            if now - since > self._settings.waiting.memory_wait_s:
                self._waiting_since.pop(record.id)
                refused.append((record.id, f"gave up after {now - since:.0f} s: {place.reason}"))
                continue
            in_the_way[record.backend] = place.reason
        return None

    def place(self, record: JobRecord, backend: BackendSpec, held: Held) -> Placement:
        """Where the job may run now, or what it waits for."""
        floor = int(self._settings.waiting.disk_floor_gib * GIB)
        folder = record.output
        while not folder.exists():
            folder = folder.parent
        if (free := self._free_bytes(folder)) < floor:
            return Placement(
                reason=f"{WAITING_FOR_DISK} space: {free / GIB:.2f} GiB free where {folder} is, {floor / GIB:.2f} GiB wanted"
            )
        ours = frozenset({held.pid} if held.pid else ())
        margin = self._settings.waiting.memory_margin_gib
        gpus = self._gpu.read(ours)
        place = pick_tier(backend, gpus, margin, held.gpu_bytes, held.card)
        if place.tier == AUTO and self._seen:  # not a machine without NVML: torch would take the CPU, for days
            return Placement(reason=(
                f"waiting for the GPU: NVML showed {self._seen} before and shows none now (a driver that is being replaced, a "
                "card that was lost); see `nvidia-smi`"
            ))  # fmt: skip
        self._seen = max(self._seen, len(gpus))
        return place
