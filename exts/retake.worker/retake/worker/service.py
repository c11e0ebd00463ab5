# SPDX-License-Identifier: Apache-2.0
"""Service: everything behind the HTTP side, wired together. One per state folder, guarded by a lock file."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from retake.core.errors import InputError, WorkerError
from retake.core.files import write_json
from retake.core.host import lock
from retake.core.wire import JobRecord, WorkerStatus, job_from_json
from retake.worker.backends import find, registry
from retake.worker.content import Hasher, Inputs, content_hash, prepare
from retake.worker.dispatcher import Dispatcher
from retake.worker.events import EventHub
from retake.worker.gallery import Gallery
from retake.worker.gpu import GpuProbe, NvmlProbe
from retake.worker.roots import Roots
from retake.worker.security import read_or_make_token
from retake.worker.settings import BackendSpec, WorkerSettings
from retake.worker.store import Prepared, Store
from retake.worker.tunings import Tunings

GPU_EVERY_S = 1.0


class Service:
    """Queue, dispatcher, events and gallery of one state folder. Use `start()` and `stop()`, or as a context manager."""

    def __init__(
        self, state: Path, roots: Sequence[Path | str], settings: WorkerSettings, *,
        backends: Mapping[str, BackendSpec] | None = None, gpu: GpuProbe | None = None,
        clock: Callable[[], float] = time.time, **bend: Any,
    ) -> None:  # fmt: skip
        self.state, self.settings, self.roots = Path(state), settings, Roots.of(roots)
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            if os.name == "posix":
                self.state.chmod(0o700)
        except OSError as error:
            raise InputError(f"state folder {self.state} cannot be used: {error.strerror}") from error
        self._lock = _hold(self.state / "lock")
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock)
            _end_orphan(self.state / "executor.json")
            self.token_file = self.state / "token"
            self.token = read_or_make_token(self.token_file)
            self.backends = registry(settings.backend_specs()) if backends is None else dict(backends)
            self.gpu = gpu or NvmlProbe()
            self.hub = EventHub()
            self.store = Store(self.state, clock)
            undo.callback(self.store.close)
            self.dispatcher = Dispatcher(self.store, settings, self.backends, self.roots, self.hub, self.gpu, **bend)
            self.gallery = Gallery(self.roots, self.state / "cache", settings.service.gallery_limit)
            self.tunings = Tunings(self.roots)
            undo.pop_all()
        self._hasher = Hasher()
        self._gpu_lock = threading.Lock()
        self._gpu_read: tuple[float, Any] = (-GPU_EVERY_S, ())

    def start(self) -> Service:
        """Begin to work."""
        self.dispatcher.start()
        return self

    def stop(self) -> None:
        """Put the running job back, end the executor, close the queue."""
        self.hub.close()
        self.dispatcher.stop()
        self.store.close()
        with contextlib.suppress(OSError):
            os.close(self._lock)
            (self.state / "endpoint.json").unlink()

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def submit(self, jobs: Sequence[Any]) -> tuple[list[JobRecord], int]:
        """Queue jobs given as JSON: (their records, how many are new). Raises InputError, ConflictError; then none is queued."""
        prepared, inputs = [], Inputs(self.roots)
        for number, data in enumerate(jobs):
            try:
                job = prepare(job_from_json(data), inputs)
                prepared.append(
                    Prepared(job, content_hash(job, find(self.backends, job.backend, job.kind), self._hasher))
                )
            except InputError as error:
                if len(jobs) == 1:
                    raise
                raise type(error)(f"job {number}: {error}") from error
        results = self.store.submit(prepared)
        created = sum(new for _, new in results)
        if created:
            self.dispatcher.wake()
            self.hub.publish("queue", {"counts": self.store.counts()})
        return [self.dispatcher.live(record) for record in self.store.many([job_id for job_id, _ in results])], created

    def status(self) -> WorkerStatus:
        """What the worker is doing now."""
        dispatcher = self.dispatcher
        executor, pid = dispatcher.executor_state()
        with self._gpu_lock:
            if time.monotonic() - self._gpu_read[0] >= GPU_EVERY_S:
                self._gpu_read = (time.monotonic(), self.gpu.read(frozenset({pid} if pid else ())))
        current = dispatcher.running
        return WorkerStatus(
            version=_version(), paused=dispatcher.paused, counts=self.store.counts(), executor=executor, executor_pid=pid,
            executor_rss_bytes=dispatcher.executor_rss(), running="" if current is None else current.record.id,
            tier=dispatcher.tier,
            waiting=dispatcher.waiting, notice=dispatcher.notice, gpus=self._gpu_read[1], backends=tuple(sorted(self.backends)),
            roots=tuple(str(root) for root in self.roots.folders), event=self.hub.last, epoch=self.hub.epoch,
        )  # fmt: skip

    def announce(self, url: str) -> dict[str, Any]:
        """Write where the service is found; returns the line a launcher reads."""
        endpoint = {"url": url, "token_file": str(self.token_file), "pid": os.getpid()}
        write_json(self.state / "endpoint.json", endpoint)
        return endpoint


def _version() -> str:
    try:
        return importlib.metadata.version("isaac-retake")
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _hold(path: Path) -> int:
    """Lock the state folder for this process; the system lets go when it dies. Raises WorkerError when another has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        lock(handle)
    except OSError as error:
        os.close(handle)
        raise WorkerError(
            f"another worker uses {path.parent}; talk to that one, or choose another folder with --state"
        ) from error
    return handle


def _end_orphan(path: Path) -> None:
    """End an executor that outlived its service (it holds the card). Identified by pid and start time, never by name."""
    with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
        noted = json.loads(path.read_text("utf-8"))
        process = psutil.Process(int(noted["pid"]))
        if abs(process.create_time() - float(noted["created"])) < 0.5:
            process.kill()
            process.wait(5)
