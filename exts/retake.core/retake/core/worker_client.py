# SPDX-License-Identifier: Apache-2.0
"""WorkerClient: talk to the worker service with the standard library alone (it runs inside Kit's Python).

Every call is one short HTTP exchange with a time-out; nothing waits for a job. Whoever wants to watch calls `changes`
from time to time (a UI's update tick), or `wait` in a thread of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import Cancelled, InputError, TakeError, WorkerError
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import TAKE_VIDEO
from retake.core.takes.base import TakeRequest
from retake.core.wire import (
    JobRecord,
    TakeJob,
    VariantJob,
    WorkerStatus,
    job_to_json,
    record_from_json,
    status_from_json,
)

MAX_ANSWER = 64 << 20
BATCH = 500
"""Jobs per request of `submit`; keeps each exchange short."""


def state_folder() -> Path:
    """Where the worker keeps queue, token and address: $RETAKE_WORKER_STATE, else the user's state folder."""
    if given := os.environ.get("RETAKE_WORKER_STATE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "retake" / "worker"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "retake" / "worker"


class Transport(Protocol):
    """The network, as a constructor argument: tests pass one that opens no socket."""

    def __call__(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, timeout_s: float
    ) -> tuple[int, bytes]:
        """One exchange: (status, body). Raises OSError or http.client.HTTPException."""
        ...


@dataclass(frozen=True)
class HttpTransport:
    """One connection per exchange to a plain-HTTP address on this machine."""

    host: str
    port: int

    def __call__(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, timeout_s: float
    ) -> tuple[int, bytes]:
        """See Transport."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(MAX_ANSWER)
        finally:
            connection.close()


@dataclass(frozen=True)
class Changes:
    """What happened since the last look."""

    next: int
    """Pass it to the next `changes`."""
    epoch: str
    reset: bool
    """Events were missed (the service restarted, or a long pause): read lists anew."""
    jobs: tuple[JobRecord, ...] = ()
    """Newest record of every job that changed."""
    counts: dict[str, int] = field(default_factory=dict)


class WorkerClient:
    """A connection to one worker. Cheap to make; holds no socket. Raises WorkerError for everything that goes wrong."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 5.0, transport: Transport | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise InputError(f"worker url {url!r}: expected http://127.0.0.1:<port>")
        self.url, self.timeout_s = f"http://{parts.hostname}:{parts.port or 80}", timeout_s
        self._token = token
        self._transport: Transport = transport or HttpTransport(parts.hostname, parts.port or 80)

    @staticmethod
    def discover(state: Path | None = None, *, timeout_s: float = 5.0) -> WorkerClient:
        """The client of the worker that runs on this machine. Raises WorkerError when none does."""
        folder = state or state_folder()
        try:
            endpoint = json.loads((folder / "endpoint.json").read_text("utf-8"))
            token = Path(endpoint["token_file"]).read_text("ascii").strip()
            return WorkerClient(endpoint["url"], token, timeout_s=timeout_s)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkerError(
                f"no worker has been started for {folder}; start one with `retake worker --root DIR`"
            ) from error

    # -- asking -------------------------------------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether the service answers (at most one second)."""
        try:
            return self._exchange("GET", "/api/health", None, min(1.0, self.timeout_s))[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def status(self) -> WorkerStatus:
        """State of queue, executor and GPU memory."""
        return status_from_json(self._call("GET", "/api/status"))

    def job(self, job_id: str) -> JobRecord:
        """One job."""
        return record_from_json(self._call("GET", f"/api/jobs/{quote(job_id, safe='')}"))

    def log(self, job_id: str) -> str:
        """The job's log."""
        return str(self._call("GET", f"/api/jobs/{quote(job_id, safe='')}/log")["log"])

    def jobs(self, state: str = "", *, limit: int = 100, after: int = 0) -> tuple[JobRecord, ...]:
        """One page of jobs: active ones first, then the newest."""
        query = urlencode({k: v for k, v in {"state": state, "limit": limit, "offset": after}.items() if v != ""})
        return tuple(record_from_json(item) for item in self._call("GET", f"/api/jobs?{query}")["jobs"])

    def changes(self, since: int = 0, epoch: str = "") -> Changes:
        """What changed since event `since` of `epoch`; answers at once."""
        data = self._call("GET", f"/api/changes?{urlencode({'since': since, 'epoch': epoch})}")
        return Changes(
            int(data["next"]), str(data["epoch"]), bool(data["reset"]),
            tuple(record_from_json(item) for item in data["jobs"]), dict(data["counts"]),
        )  # fmt: skip

    # -- telling ------------------------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[TakeJob | VariantJob]) -> tuple[JobRecord, ...]:
        """Queue jobs; work that is queued, running or done already is recognised and not queued twice."""
        records: list[JobRecord] = []
        for start in range(0, len(jobs), BATCH):
            body = {"jobs": [job_to_json(job) for job in jobs[start : start + BATCH]]}
            answer = self._call("POST", "/api/jobs", body, timeout_s=max(self.timeout_s, 30.0))
            records += [record_from_json(item) for item in answer["jobs"]]
        return tuple(records)

    def cancel(self, job_id: str) -> JobRecord:
        """Ask a job to stop; a running one stops within 5 s."""
        return self._job_call(job_id, "cancel")

    def retry(self, job_id: str) -> JobRecord:
        """Queue a failed, cancelled or quarantined job again, with fresh attempts."""
        return self._job_call(job_id, "retry")

    def set_priority(self, job_id: str, priority: int) -> JobRecord:
        """Change a queued job's priority."""
        return self._job_call(job_id, "priority", {"priority": priority})

    def pause(self) -> WorkerStatus:
        """Start no further job; the running one goes on."""
        return status_from_json(self._call("POST", "/api/queue/pause", {}))

    def resume(self) -> WorkerStatus:
        """Go on after `pause` or `release`."""
        return status_from_json(self._call("POST", "/api/queue/resume", {}))

    def release(self) -> WorkerStatus:
        """Free all GPU memory now: the running job goes back to the queue, the queue pauses, the executor ends."""
        return status_from_json(self._call("POST", "/api/release", {}, timeout_s=max(self.timeout_s, 15.0)))

    # -- waiting (not on a UI thread) -----------------------------------------------------------------------------------

    def wait(
        self,
        ids: Sequence[str],
        progress: Callable[[JobRecord], None] = lambda record: None,
        check_cancel: CheckCancel = never,
        *,
        poll_s: float = 0.2,
        timeout_s: float | None = None,
        patience_s: float = 30.0,
    ) -> tuple[JobRecord, ...]:
        """Poll until every job is final. Survives a restart of the service of up to `patience_s`.

        Raises Cancelled (after cancelling the jobs) when `check_cancel` asks, WorkerError after `timeout_s`.
        """
        records: dict[str, JobRecord] = {}
        started = silent_since = time.monotonic()
        while True:
            try:
                check_cancel()
            except Cancelled:
                for job_id in ids:
                    if job_id not in records or not records[job_id].final:
                        self.cancel(job_id)
                raise
            try:
                for job_id in ids:
                    if job_id not in records or not records[job_id].final:
                        records[job_id] = self.job(job_id)
                        progress(records[job_id])
                silent_since = time.monotonic()
            except WorkerUnreachableError:
                if time.monotonic() - silent_since > patience_s:
                    raise
            if all(job_id in records and records[job_id].final for job_id in ids):
                return tuple(records[job_id] for job_id in ids)
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                left = [job_id for job_id in ids if job_id not in records or not records[job_id].final]
                raise WorkerError(
                    f"{len(left)} of {len(ids)} jobs are not finished after {timeout_s:.0f} s; first: {left[0]}"
                )
            time.sleep(poll_s)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _job_call(self, job_id: str, verb: str, body: dict[str, Any] | None = None) -> JobRecord:
        return record_from_json(self._call("POST", f"/api/jobs/{quote(job_id, safe='')}/{verb}", body or {}))

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._transport(method, path, headers, body, timeout_s)

    def _call(self, method: str, path: str, body: Any = None, *, timeout_s: float | None = None) -> Any:
        payload = None if body is None else json.dumps(body, allow_nan=False).encode()
        limit = self.timeout_s if timeout_s is None else timeout_s
        try:
            status, answer = self._exchange(method, path, payload, limit)
        except TimeoutError as error:
            raise WorkerUnreachableError(f"the worker at {self.url} did not answer within {limit:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise WorkerUnreachableError(
                f"no worker answers at {self.url} ({error or type(error).__name__}); start one with `retake worker --root DIR`"
            ) from error
        try:
            data = json.loads(answer.decode("utf-8")) if answer else {}
        except ValueError as error:
            raise WorkerError(
                f"{self.url}{path} answered {status} with something that is not JSON; is it a Retake worker?"
            ) from error
        if status >= 400:
            detail = data.get("error") if isinstance(data, dict) else None
            raise WorkerError(f"the worker refused {method} {path.partition('?')[0]} ({status}): {detail or data}")
        return data


class WorkerUnreachableError(WorkerError):
    """Nothing answers at the worker's address (it may be restarting)."""


class WorkerVideoBackend:
    """A VideoBackend whose work happens in the worker: the pipeline cannot tell it from one in its own process.

    `scratch` is a folder inside one of the worker's roots; takes made through it are kept there by content.
    """

    def __init__(
        self, client: WorkerClient, backend: str, scratch: Path, *, domain: str = "generated", licence: str = ""
    ) -> None:
        self.name, self.version, self.domain, self.licence = backend, "worker", domain, licence
        self._client, self._scratch = client, Path(scratch)

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB frames of the finished take, in order. Raises TakeError with the worker's reason, WorkerError, Cancelled."""
        from retake.core.files import sha256_json
        from retake.core.video import read_video

        name = sha256_json({**job_to_json(TakeJob(request, Path("x"), self.name))["request"], "backend": self.name})[
            :16
        ]
        [record] = self._client.submit([TakeJob(request, self._scratch / name, self.name)])

        def show(current: JobRecord) -> None:
            progress(current.done, max(current.total, 1), current.note)

        [record] = self._client.wait([record.id], show, check_cancel)
        if record.state != "done":
            raise TakeError(f"the worker's job {record.id} is {record.state}: {record.error or 'no reason given'}")
        yield from read_video(record.output / TAKE_VIDEO)
