# SPDX-License-Identifier: Apache-2.0
"""Dispatcher: one thread that decides everything about jobs. It starts the executor, gives it one job at a time,
listens to it, ends it, and writes each decision to the store before acting on it.

Requests from the service (`cancel`, `release` …) run inside this thread, one after the other: no two decisions race.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from retake.core.errors import RetakeError
from retake.core.wire import JobRecord, job_to_json, record_to_json
from retake.worker.admission import WAITING_FOR_DISK, Admission, Held
from retake.worker.backends import spec_to_json
from retake.worker.events import EventHub
from retake.worker.gpu import GpuProbe, Placement
from retake.worker.leftovers import sweep
from retake.worker.link import ExecutorLink
from retake.worker.outcomes import Outcomes
from retake.worker.roots import Roots
from retake.worker.running import Running
from retake.worker.settings import GIB, BackendSpec, WorkerSettings
from retake.worker.store import QueueUnwritableError, Store

log = logging.getLogger(__name__)
T = TypeVar("T")
START_FAILURES = 3


class Dispatcher(threading.Thread):
    """See module docstring. `monotonic` and `free_bytes` are arguments so that tests can bend them."""

    def __init__(
        self, store: Store, settings: WorkerSettings, backends: Mapping[str, BackendSpec], roots: Roots, hub: EventHub,
        gpu: GpuProbe, *, monotonic: Callable[[], float] = time.monotonic,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:  # fmt: skip
        super().__init__(name="dispatcher", daemon=True)
        self.store, self.settings, self.backends = store, settings, backends
        self.roots, self.hub, self.gpu = roots, hub, gpu
        self.previews = store.folder / "previews"
        self.previews.mkdir(exist_ok=True)
        self._now = monotonic
        self._inbox: queue.Queue[Callable[[], None]] = queue.Queue()
        self._stopping = False
        self._link: ExecutorLink | None = None
        self._ready = False
        self._link_began = 0.0
        self._idle_since = 0.0
        self._start_failures = 0
        self._admission = Admission(store, settings, backends, gpu, free_bytes)
        self._backup_at = 0.0
        self._recovered = 0
        self._outcomes = Outcomes(store, self._publish_job)
        self.running: Running | None = None
        self.waiting = ""
        self.notice = store.notice
        self.tier = ""
        self._reported: tuple[int, str] = (0, "")
        """Bytes of GPU memory that the executor says it holds, and the card it last ran on."""
        self.paused = store.meta("paused") == "1"
        for job_id in store.recover_interrupted(settings.queue.max_interruptions):
            record = store.get(job_id)
            store.add_log(job_id, f"interrupted by a stop of service or machine; now {record.state}")
            self._sweep(record.output)

    # -- asked from other threads -------------------------------------------------------------------------------------

    def ask(self, call: Callable[[], T], timeout_s: float = 15.0) -> T:
        """Run a call in the dispatcher's thread and return its result."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        self._inbox.put(run)
        return future.result(timeout_s)

    def wake(self) -> None:
        """Look at the queue now."""
        self._inbox.put(lambda: None)

    def executor_state(self) -> tuple[str, int]:
        """(`absent`, `starting`, `idle` or `busy`; process id)."""
        link = self._link
        if link is None:
            return "absent", 0
        if not self._ready:
            return "starting", link.pid
        return ("idle" if self.running is None else "busy"), link.pid

    def executor_rss(self) -> int:
        """Memory of the executor process, bytes."""
        return 0 if (link := self._link) is None else link.rss_bytes()

    def live(self, record: JobRecord) -> JobRecord:
        """A record with the progress of the running attempt."""
        current = self.running
        return current.live(record) if current is not None and current.record.id == record.id else record

    def cancel(self, job_id: str) -> None:
        """Queued → cancelled at once; running → asked to stop, ended after the grace time. Final jobs stay."""
        record = self.store.get(job_id)
        if record.state == "queued":
            self.store.finish(job_id, "cancelled", error="cancelled before it started")
            self._publish_job(job_id)
        elif record.state == "running" and self.running is not None and self.running.record.id == job_id:
            current = self.running
            if not current.ending:
                current.ending = "cancel"
                current.kill_at = self._now() + (self.settings.executor.cancel_grace_s if current.sent else 0.0)
                if self._link is not None:
                    self._link.send(op="cancel", job=job_id)

    def retry(self, job_id: str) -> None:
        """See Store.retry."""
        self.store.retry(job_id)
        self._admission.put_off_no_longer(job_id)
        self.store.add_log(job_id, "queued again on request")
        self._publish_job(job_id)

    def set_paused(self, paused: bool) -> None:
        """Start no further job, or go on; survives a restart."""
        self.store.set_meta("paused", "1" if paused else "0")
        self.paused = paused
        if not paused:
            self._start_failures = 0
            self._admission.wait_anew()
        self._publish_status()

    def release(self) -> None:
        """End the executor now; a running job goes back to the queue and the queue pauses."""
        if self.running is not None or self.store.counts()["queued"]:
            self.set_paused(True)
        if self.running is not None:
            self.running.ending = "release"
        self._end_executor()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End for good: the running job goes back to the queue without counting the attempt."""
        self._stopping = True
        self.wake()
        self.join(timeout_s)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            try:
                busy = self.running is not None or bool(self.waiting) or self._admission.has_put_off
                try:
                    self._inbox.get(timeout=0.1 if busy else 0.5)()
                    while True:
                        self._inbox.get_nowait()()
                except queue.Empty:
                    pass
                self._tick()
            except Exception:
                log.exception("dispatcher")
                time.sleep(0.2)
        try:
            if self.running is not None:
                self.running.ending = "stop"
            self._end_executor()
        except Exception:
            log.exception("dispatcher, stopping")

    def _tick(self) -> None:
        now, limits = self._now(), self.settings.executor
        if self.store.recovered != self._recovered:
            self._recovered, self.notice = self.store.recovered, self.store.notice
            self.store.recover_interrupted(
                self.settings.queue.max_interruptions, self.running.record.id if self.running else ""
            )
            self._publish_status()
        self._outcomes.write()
        current = self.running
        if current is not None:
            if current.kill_at is not None and now >= current.kill_at:
                self._end_executor()
            elif current.sent and now - current.heard > limits.no_progress_s:
                self._outcomes.log(
                    current.record.id, f"no sign of life for {limits.no_progress_s:.0f} s; the executor is ended"
                )
                self._end_executor()
            elif not current.sent and not self._ready and now - self._link_began > limits.start_s:
                self._end_executor()
            elif not current.sent and self._ready and not current.ending:
                self._send_job()  # the queue could not be read when it was its time
        elif not self.paused and not self._outcomes.owed:
            self._start_next(now)
        idle_s = now - self._idle_since if self.running is None and self._link is not None else 0.0
        if limits.idle_release_s and idle_s > limits.idle_release_s:
            self._end_executor()
        if now >= self._backup_at:
            self._backup_at = now + self.settings.queue.backup_s
            try:
                self.store.backup()
            except OSError as error:
                log.warning("queue not backed up: %s", error)

    def _start_next(self, now: float) -> None:
        """Give the executor the first job in turn that nothing stands in the way of."""
        turn = self._admission.next(now, self._held)
        for job_id, reason in turn.refused:
            self._outcomes.finish(job_id, "failed", reason)
        self._set_waiting(turn.waiting)
        if turn.start is not None:
            self._start(*turn.start, now)

    @property
    def _held(self) -> Held:
        return Held() if self._link is None else Held(self._link.pid, *self._reported)

    def _start(self, record: JobRecord, backend: BackendSpec, place: Placement, now: float) -> None:
        job = self.store.job(record.id)
        self.store.start(record.id)
        self._admission.batch.started(record)
        self.running = Running(
            self.store.get(record.id), job, backend, place.tier, now, card=place.card, heard=now, note="starting"
        )
        self._publish_job(record.id)
        if self._link is None:
            self._ready, self._link_began = False, now
            try:
                self._link = ExecutorLink(self.store.folder / "logs" / "executor.log", self._on_message)
            except OSError as error:  # no memory or no file handle for another process, or no place for its log
                self._clear_running(now)
                self._after_failed_start(record.id, f"its process cannot be made: {error}")
            self._publish_status()
        elif self._ready:
            self._send_job()

    def _send_job(self) -> None:
        current = self.running
        assert current is not None
        assert self._link is not None
        record = current.record
        reuse = self.store.done_elsewhere(record.content, record.id)
        current.sent, current.heard = True, self._now()
        self._link.send(
            op="run", id=record.id, job=job_to_json(current.job), backend=spec_to_json(current.backend), content=record.content,
            tier=current.tier, card=current.card, margin_bytes=int(self.settings.waiting.memory_margin_gib * GIB),
            attempt=record.attempts, reuse=str(reuse or ""), roots=[str(r) for r in self.roots.folders],
            preview=str(self.previews / f"{record.id}.jpg"),
        )  # fmt: skip

    # -- what the executor says ---------------------------------------------------------------------------------------

    def _on_message(self, link: ExecutorLink, message: dict[str, Any]) -> None:
        self._inbox.put(lambda: self._handle(link, message))

    def _handle(self, link: ExecutorLink, message: dict[str, Any]) -> None:
        if link is not self._link:
            return
        event, current, now = message.get("event"), self.running, self._now()
        if "held" in message:
            self._reported = (int(message["held"]), current.card if current is not None else "")
        if event == "ready":
            self._ready, self._start_failures, self._idle_since = True, 0, now
            if current is not None and not current.sent and not current.ending:
                self._send_job()
            self._publish_status()
        elif event == "exit":
            self._link = None
            self._after_executor_end(link, link.how_it_ended())
        elif current is None or message.get("id") != current.record.id:
            return
        elif event == "progress":
            if current.advance(now, int(message["done"]), int(message["total"]), str(message["note"])):
                record = current.live(current.record)
                self.hub.publish("progress", {
                    "id": record.id, "done": record.done, "total": record.total, "note": record.note, "eta_s": record.eta_s,
                })  # fmt: skip
        elif event == "preview":
            current.preview, current.heard = current.preview + 1, now
            self.hub.publish("preview", {"id": current.record.id, "preview": current.preview})
        elif event == "done":
            self.tier = str(message.get("tier", ""))
            self._clear_running(now)
            self._outcomes.finish(current.record.id, "done", result=message["result"])
        elif event == "cancelled":
            self._clear_running(now)
            self._outcomes.finish(current.record.id, "cancelled", "cancelled while it ran")
        elif event == "failed":
            self._after_failure(current, message, now)

    def _after_failure(self, current: Running, message: dict[str, Any], now: float) -> None:
        record, error = self.store.get(current.record.id), str(message.get("error", "unknown"))
        self._clear_running(now)
        if current.ending == "cancel":
            self._outcomes.finish(record.id, "cancelled", f"cancelled while it ran ({error})")
            return
        if message.get("out_of_memory") or message.get("broken"):
            self._end_executor()  # what a failed allocation or a poisoned CUDA context leaves must not fail the next job
        if message.get("disk_full") and self._lacks_disk(record, current.backend):
            self._outcomes.log(record.id, f"{error}; it goes on when there is space")
            self._outcomes.back(record.id, error, count_attempt=False)
        elif message.get("again") and record.attempts < record.max_attempts:
            delay = self.settings.queue.retry_delay_s * 2 ** (record.attempts - 1)
            self._admission.put_off(record.id, now + delay)
            self._outcomes.log(
                record.id, f"attempt {record.attempts} of {record.max_attempts} failed: {error}; again in {delay:.0f} s"
            )
            self._outcomes.back(record.id, error)
        else:
            self._outcomes.finish(record.id, "failed", error)

    def _lacks_disk(self, record: JobRecord, backend: BackendSpec) -> bool:
        return self._admission.place(record, backend, self._held).reason.startswith(WAITING_FOR_DISK)

    def _after_executor_end(self, link: ExecutorLink, how: str) -> None:
        """The executor process is no more; decide what becomes of its job."""
        current, was_ready = self.running, self._ready
        self._ready, self.tier, self._reported = False, "", (0, "")
        self._admission.batch.unloaded()
        self._publish_status()
        if current is None:
            return
        self._clear_running(self._now())
        self._sweep(current.record.output)
        record = self.store.get(current.record.id)
        if current.ending == "cancel":
            self._outcomes.finish(record.id, "cancelled", "cancelled while it ran")
        elif current.ending:
            self._outcomes.log(record.id, f"interrupted ({current.ending}); back in the queue")
            self._outcomes.back(record.id, count_attempt=False)
        elif not was_ready:
            self._after_failed_start(record.id, how, link)
        else:
            self._after_crash(link, record, how)

    def _after_failed_start(self, job_id: str, how: str, link: ExecutorLink | None = None) -> None:
        """No executor came to be; its job costs nothing, and after some tries the queue pauses."""
        self._start_failures += 1
        self._outcomes.back(job_id, count_attempt=False)
        if self._start_failures >= START_FAILURES:
            self.set_paused(True)
            tail = "" if link is None else link.log_tail(4)
            self.notice = f"The executor cannot start ({how}), so the queue is paused. {tail}".rstrip()
            self._publish_status()

    def _after_crash(self, link: ExecutorLink, record: JobRecord, how: str) -> None:
        try:
            crashes = self.store.crashed(record.id)
        except QueueUnwritableError:
            crashes = record.crashes + 1
        tail = link.log_tail()
        self._outcomes.log(
            record.id,
            f"the executor {how} during attempt {record.attempts}" + (f"; it last said:\n{tail}" if tail else ""),
        )
        if crashes >= self.settings.queue.max_crashes:
            self._outcomes.finish(
                record.id, "quarantined",
                f"the executor {how}, {crashes} times during this job; it will not run again by itself. See its log, then retry",
            )  # fmt: skip
        elif record.attempts >= record.max_attempts:
            self._outcomes.finish(record.id, "failed", f"the executor {how}")
        else:
            self._outcomes.back(record.id, f"the executor {how}")

    # -- inside -------------------------------------------------------------------------------------------------------

    def _end_executor(self) -> None:
        if (link := self._link) is None:
            return
        link.kill()
        self._link = None
        self._after_executor_end(link, link.how_it_ended())

    def _clear_running(self, now: float) -> None:
        if self.running is not None:
            (self.previews / f"{self.running.record.id}.jpg").unlink(missing_ok=True)
        self.running, self._idle_since = None, now

    def _sweep(self, output: Path) -> None:
        """Remove what a killed process left unfinished."""
        try:
            self.roots.inside(output, "output")
            sweep(output)
        except (OSError, RetakeError):
            log.warning("unfinished files in %s could not be removed", output)

    def _set_waiting(self, reason: str) -> None:
        if reason.partition(":")[0] != self.waiting.partition(":")[0]:
            self.waiting = reason
            self._publish_status()
        self.waiting = reason

    def _publish_job(self, job_id: str) -> None:
        try:
            record = self.live(self.store.get(job_id))
        except RetakeError:
            return
        self.hub.publish("job", {"job": record_to_json(record), "counts": self.store.counts()})

    def _publish_status(self) -> None:
        state = self.executor_state()[0]
        status = {"executor": state, "paused": self.paused, "waiting": self.waiting, "notice": self.notice}
        self.hub.publish("status", status)
