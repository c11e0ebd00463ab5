# SPDX-License-Identifier: Apache-2.0
"""Store: the durable queue. Every change is one committed transaction; what is running in memory only is progress.

`seq`, not the clock, decides order, so a clock that jumps reorders nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake.core.errors import InputError, WorkerError
from retake.core.files import sha256_bytes
from retake.core.run_layout import RECORD
from retake.core.wire import STATES, JobRecord, TakeJob, VariantJob, job_from_json, job_to_json
from retake.worker import schema

log = logging.getLogger(__name__)
LOG_LINES = 400
MAX_PAGE = 1000


class ConflictError(WorkerError):
    """The request contradicts what the queue holds."""


class UnknownJobError(WorkerError):
    """There is no such job."""


@dataclass(frozen=True)
class Prepared:
    """A checked job with its identity."""

    job: TakeJob | VariantJob
    content: str

    @property
    def id(self) -> str:
        """Content and place: the same work for the same place is the same job."""
        return sha256_bytes(self.content.encode(), b"\0", str(self.job.output).encode())[:20]


class Store:
    """The queue of one state folder. Thread-safe; one process at a time (the service holds a lock file)."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._lock = threading.RLock()
        self._changed = True
        self.recovered = 0
        """Times the file was replaced while the service ran."""
        self._db, self.notice = schema.open_sound(folder)
        if self.notice:
            log.error(self.notice)

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, prepared: Sequence[Prepared]) -> list[tuple[str, bool]]:
        """(id, newly queued) per job; all of them or none. Known jobs are recognised.

        Failed and cancelled ones are queued again (asking again is asking); quarantined ones stay. Raises ConflictError
        when another job writes to the same output.
        """
        results = []
        with self._transaction() as db:
            now = self._clock()
            for item in prepared:
                job, output = item.job, str(item.job.output)
                row = db.execute("SELECT state, output FROM jobs WHERE id = ?", (item.id,)).fetchone()
                if row is not None:
                    again = row["state"] in ("failed", "cancelled") or (row["state"] == "done" and not _whole(job))
                    if again:
                        _refuse_shared_output(db, item.id, output)
                        self._requeue(db, item.id, job.priority, job.max_attempts)
                    results.append((item.id, again))
                    continue
                _refuse_shared_output(db, item.id, output)
                spec = json.dumps(job_to_json(job), ensure_ascii=False, allow_nan=False)
                db.execute(
                    "INSERT INTO jobs(id, content, kind, backend, output, spec, seal, state, priority, max_attempts, created)"
                    " VALUES(?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)",
                    (item.id, item.content, job.kind, job.backend, output, spec,
                     schema.seal(item.id, item.content, output, spec), job.priority, job.max_attempts, now),
                )  # fmt: skip
                results.append((item.id, True))
        return results

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> JobRecord:
        """One job. Raises UnknownJobError."""
        with self._reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise UnknownJobError(f"no job {job_id[:40]!r}; GET /api/jobs lists them")
            return _record(row)

    def many(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Several jobs, in the order given; unknown ones are left out."""
        found: dict[str, JobRecord] = {}
        with self._reading() as db:
            for start in range(0, len(job_ids), 500):
                part = job_ids[start : start + 500]
                rows = db.execute(
                    f"SELECT * FROM jobs WHERE id IN ({', '.join('?' * len(part))})", tuple(part)
                ).fetchall()
                found.update((row["id"], _record(row)) for row in rows)
        return [found[job_id] for job_id in job_ids if job_id in found]

    def page(self, states: Sequence[str] = (), limit: int = 100, offset: int = 0, kind: str = "") -> list[JobRecord]:
        """Running, then queued in the order of their turn, then the rest, newest first."""
        wanted = tuple(states) or ("running", "queued", "quarantined", "failed", "cancelled", "done")
        found: list[sqlite3.Row] = []
        left, skip = min(limit, MAX_PAGE), offset
        with self._reading() as db:
            for group in (("running",), ("queued",), tuple(s for s in wanted if s not in ("running", "queued"))):
                chosen = tuple(s for s in group if s in wanted)
                if not chosen or left <= 0:
                    continue
                marks = ", ".join("?" * len(chosen))
                where = f"state IN ({marks})" + (" AND kind = ?" if kind else "")
                order = "priority DESC, seq" if group == ("queued",) else "seq DESC"
                values = (*chosen, *((kind,) if kind else ()))
                rows = db.execute(
                    f"SELECT * FROM jobs WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?", (*values, left, skip)
                ).fetchall()
                if skip and not rows:
                    skip -= db.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()[0]
                else:
                    skip = 0
                found += rows
                left -= len(rows)
            return [_record(row) for row in found]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._reading() as db:
            have = {row["state"]: row["n"] for row in db.execute("SELECT state, n FROM counts")}
        return {state: have.get(state, 0) for state in STATES}

    def queued(self, limit: int = 50, without: Sequence[str] = ()) -> list[JobRecord]:
        """The next queued jobs in the order of their turn, but for those of some backends."""
        marks = ", ".join("?" * len(without))
        with self._reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs WHERE state = 'queued' AND backend NOT IN ({marks}) ORDER BY priority DESC, seq LIMIT ?",
                (*without, limit),
            ).fetchall()
            return [_record(row) for row in rows]

    def job(self, job_id: str) -> TakeJob | VariantJob:
        """What was asked. Raises UnknownJobError; a row that does not match its seal leads to recovery."""
        with self._reading() as db:
            row = db.execute("SELECT id, content, output, spec, seal FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise UnknownJobError(f"no job {job_id[:40]!r}; GET /api/jobs lists them")
            if schema.seal(row["id"], row["content"], row["output"], row["spec"]) != row["seal"]:
                raise sqlite3.DatabaseError("malformed: a request does not match its seal")
        return job_from_json(json.loads(row["spec"]))

    def done_elsewhere(self, content: str, job_id: str) -> Path | None:
        """Output of a finished job with the same content, to copy instead of computing."""
        with self._reading() as db:
            row = db.execute(
                "SELECT output FROM jobs WHERE content = ? AND state = 'done' AND id <> ? LIMIT 1", (content, job_id)
            ).fetchone()
        return None if row is None else Path(row["output"])

    def log_of(self, job_id: str) -> str:
        """The job's log as text."""
        self.get(job_id)
        with self._reading() as db:
            rows = db.execute("SELECT at, line FROM log WHERE job = ? ORDER BY rowid", (job_id,)).fetchall()
        return "".join(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(r['at']))}  {r['line']}\n" for r in rows)

    # -- changing -----------------------------------------------------------------------------------------------------

    def start(self, job_id: str) -> None:
        """queued → running; counts the attempt before it begins, so that a crash cannot hide it."""
        self._set(job_id, "running", "attempts = attempts + 1, started = ?, finished = 0, error = ''", (self._clock(),))

    def finish(self, job_id: str, state: str, *, error: str = "", result: dict[str, Any] | None = None) -> None:
        """To a final state."""
        text = json.dumps(result or {}, ensure_ascii=False, allow_nan=False)
        self._set(job_id, state, "finished = ?, error = ?, result = ?", (self._clock(), error[:4000], text))

    def back(self, job_id: str, *, error: str = "", count_attempt: bool = True) -> None:
        """running → queued: to be tried again, or interrupted by the user (then the attempt does not count)."""
        change = "error = ?" + ("" if count_attempt else ", attempts = max(0, attempts - 1)")
        self._set(job_id, "queued", change, (error[:4000],))

    def crashed(self, job_id: str) -> int:
        """The executor died during this job: its number of crashes now."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET crashes = crashes + 1 WHERE id = ?", (job_id,))
        return self.get(job_id).crashes

    def retry(self, job_id: str) -> None:
        """Queue a final job again with fresh counters. Raises ConflictError for one that is not final, or whose output
        another job has got meanwhile."""
        record = self.get(job_id)
        if record.state in ("queued", "running"):
            raise ConflictError(
                f"job {job_id} is {record.state}; only failed, cancelled and quarantined jobs can be retried"
            )
        if record.state == "done":
            raise ConflictError(f"job {job_id} is done; remove {record.output} first to have it made again")
        with self._transaction() as db:
            _refuse_shared_output(db, job_id, str(record.output))
            self._requeue(db, job_id, record.priority, record.max_attempts)

    def set_priority(self, job_id: str, priority: int) -> None:
        """Change a queued job's priority. Raises ConflictError for another state."""
        if (record := self.get(job_id)).state != "queued":
            raise ConflictError(f"job {job_id} is {record.state}; only a queued job's priority matters")
        with self._transaction() as db:
            db.execute("UPDATE jobs SET priority = ? WHERE id = ?", (priority, job_id))

    def forget(self, job_id: str) -> None:
        """Remove a final job from the list; its output stays. Raises ConflictError for one that is not final."""
        if not (record := self.get(job_id)).final:
            raise ConflictError(f"job {job_id} is {record.state}; cancel it first")
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            db.execute("DELETE FROM log WHERE job = ?", (job_id,))

    def add_log(self, job_id: str, line: str) -> None:
        """Append a line to a job's log (the oldest go when there are too many)."""
        with self._transaction() as db:
            db.execute("INSERT INTO log VALUES(?, ?, ?)", (job_id, self._clock(), line[:2000]))
            db.execute(
                "DELETE FROM log WHERE job = ? AND rowid <="
                " (SELECT rowid FROM log WHERE job = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
                (job_id, job_id, LOG_LINES),
            )

    def recover_interrupted(self, max_interruptions: int, but: str = "") -> list[str]:
        """Jobs that were running when service or machine went down are queued again (bounded), except `but`."""
        with self._transaction() as db:
            ids = [
                row["id"]
                for row in db.execute("SELECT id FROM jobs WHERE state = 'running' AND id <> ? ORDER BY seq", (but,))
            ]
            for job_id in ids:
                db.execute(
                    "UPDATE jobs SET interruptions = interruptions + 1, attempts = max(0, attempts - 1), state = CASE WHEN"
                    " interruptions + 1 >= ? THEN 'quarantined' ELSE 'queued' END, error = 'interrupted: the service or the"
                    " machine went down while this job ran' WHERE id = ?",
                    (max_interruptions, job_id),
                )
        return ids

    def meta(self, key: str, default: str = "") -> str:
        """A remembered value."""
        with self._reading() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row["value"]

    def set_meta(self, key: str, value: str) -> None:
        """Remember a value."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
            )

    def backup(self) -> bool:
        """Copy the queue beside itself if it changed since the last copy."""
        with self._lock:
            if not self._changed:
                return False
            self._changed = False
            schema.backup(self._db, self.folder)
            return True

    def close(self) -> None:
        """Back up and close."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error, OSError):
                self.backup()
            self._db.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _set(self, job_id: str, state: str, change: str, values: tuple[Any, ...]) -> None:
        with self._transaction() as db:
            db.execute(f"UPDATE jobs SET state = ?, {change} WHERE id = ?", (state, *values, job_id))

    def _requeue(self, db: sqlite3.Connection, job_id: str, priority: int, max_attempts: int) -> None:
        db.execute(
            "UPDATE jobs SET state = 'queued', attempts = 0, crashes = 0, interruptions = 0, started = 0, finished = 0,"
            " error = '', result = '{}', priority = ?, max_attempts = ? WHERE id = ?",
            (priority, max_attempts, job_id),
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._watching():
            yield self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._watching():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            self._changed = True

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Damage met at run time: go to the backup at once and say so; the caller's request fails with that text."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            if (
                isinstance(error, sqlite3.OperationalError)
                and "malformed" not in str(error)
                and "disk I/O" not in str(error)
            ):
                raise QueueUnwritableError(f"the queue cannot be written ({error}); free some disk space") from error
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db, notice = schema.open_sound(self.folder)
            self.notice = notice or self.notice
            self._changed = True
            self.recovered += 1
            log.error("queue database: %s; %s", error, notice)
            raise ConflictError(
                f"the queue's database was damaged and has been replaced; look at the queue and ask again. {notice}"
            ) from error


class QueueUnwritableError(WorkerError):
    """The disk refuses the queue's file."""


def _refuse_shared_output(db: sqlite3.Connection, job_id: str, output: str) -> None:
    other = db.execute(
        "SELECT id FROM jobs WHERE output = ? AND id <> ? AND state IN ('queued', 'running', 'done', 'quarantined')",
        (output, job_id),
    ).fetchone()
    if other is not None:
        raise ConflictError(
            f"output {output} belongs to job {other['id']}, which asks for something else; choose another folder"
        )


def _whole(job: TakeJob | VariantJob) -> bool:
    return (job.output / RECORD[job.kind]).is_file()


def _record(row: sqlite3.Row) -> JobRecord:
    try:
        request, result = json.loads(row["spec"])["request"], json.loads(row["result"])
    except (ValueError, KeyError, TypeError) as error:
        raise sqlite3.DatabaseError("malformed: a request or result is no JSON") from error
    return JobRecord(
        id=row["id"], kind=row["kind"], backend=row["backend"], state=row["state"], output=Path(row["output"]),
        request=request, content=row["content"], priority=row["priority"], attempts=row["attempts"],
        max_attempts=row["max_attempts"], crashes=row["crashes"], created_s=row["created"], started_s=row["started"],
        finished_s=row["finished"], error=row["error"], result=result,
    )  # fmt: skip


def check_states(states: str) -> tuple[str, ...]:
    """States from a comma-separated text. Raises InputError listing the valid ones."""
    chosen = tuple(s for s in states.split(",") if s)
    for state in chosen:
        if state not in STATES:
            raise InputError(f"unknown state {state[:40]!r}; valid: {', '.join(STATES)}")
    return chosen
