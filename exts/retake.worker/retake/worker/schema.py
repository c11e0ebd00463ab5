# SPDX-License-Identifier: Apache-2.0
"""The queue's file: its tables, whether it is sound, and what happens when it is not.

SQLite in WAL mode with `synchronous=FULL`: a committed job survives the plug being pulled. Pages carry no checksum of
their own, so every row keeps the hash of what it asks for; a page overwritten with plausible bytes is noticed, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path

from retake.core.errors import WorkerError
from retake.core.files import sha256_bytes

VERSION = 1
NAME, BACKUP = "queue.sqlite", "queue.backup.sqlite"
TABLES = """
CREATE TABLE jobs(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, kind TEXT NOT NULL, backend TEXT NOT NULL, output TEXT NOT NULL,
  spec TEXT NOT NULL, seal TEXT NOT NULL,
  state TEXT NOT NULL, priority INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL,
  crashes INTEGER NOT NULL DEFAULT 0, interruptions INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL, started REAL NOT NULL DEFAULT 0, finished REAL NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT '{}');
CREATE INDEX by_turn ON jobs(state, priority DESC, seq);
CREATE INDEX by_content ON jobs(content, state);
CREATE INDEX by_output ON jobs(output);
CREATE TABLE log(job TEXT NOT NULL, at REAL NOT NULL, line TEXT NOT NULL);
CREATE INDEX log_by_job ON log(job);
CREATE TABLE counts(state TEXT PRIMARY KEY, n INTEGER NOT NULL);
CREATE TRIGGER count_new AFTER INSERT ON jobs BEGIN
  INSERT INTO counts VALUES(NEW.state, 1) ON CONFLICT(state) DO UPDATE SET n = n + 1; END;
CREATE TRIGGER count_gone AFTER DELETE ON jobs BEGIN
  UPDATE counts SET n = n - 1 WHERE state = OLD.state; END;
CREATE TRIGGER count_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
  UPDATE counts SET n = n - 1 WHERE state = OLD.state;
  INSERT INTO counts VALUES(NEW.state, 1) ON CONFLICT(state) DO UPDATE SET n = n + 1; END;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def seal(job_id: str, content: str, output: str, spec: str) -> str:
    """What a row's request must hash to."""
    return sha256_bytes(*(part.encode() + b"\0" for part in (job_id, content, output, spec)))[:32]


def connect(path: Path) -> sqlite3.Connection:
    """Open, creating tables in a new file. Raises sqlite3.DatabaseError for damage, WorkerError for another version."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
    try:
        connection.row_factory = sqlite3.Row
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            raise WorkerError(
                f"{path} is a queue of version {found}; this worker reads version {VERSION}. Move it away to start anew"
            )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        if found == 0:
            connection.executescript(f"BEGIN IMMEDIATE;{TABLES}PRAGMA user_version={VERSION};COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def damage(connection: sqlite3.Connection) -> str:
    """What is wrong with the file, in a few words; empty when it is sound."""
    try:
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            return str(verdict)
        for row in connection.execute("SELECT id, content, output, spec, seal FROM jobs"):
            if seal(row["id"], row["content"], row["output"], row["spec"]) != row["seal"]:
                return f"the request of job {row['id']} was changed"
    except (sqlite3.DatabaseError, UnicodeError, AttributeError) as error:
        return str(error)
    return ""


def open_sound(folder: Path) -> tuple[sqlite3.Connection, str]:
    """The queue of a folder and a notice for the user; damage leads to the backup, or else to an empty queue.

    The damaged files are kept aside. Outputs are never touched: jobs that run again find their finished results.
    """
    path = folder / NAME
    problem = ""
    try:
        connection = connect(path)
        problem = damage(connection)
        if not problem:
            return connection, ""
        connection.close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise WorkerError(f"the queue {path} cannot be opened: {error}") from error
        problem = str(error)
    aside = folder / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    aside.mkdir(exist_ok=True)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", aside / f"{NAME}{suffix}")
    notice = f"The queue's database was damaged ({problem}) and is kept in {aside.name}/. "
    if (folder / BACKUP).exists():
        shutil.copyfile(folder / BACKUP, path)
        try:
            connection = connect(path)
            if not damage(connection):
                return (
                    connection,
                    notice + "It was restored from the last backup; takes already made are found, not made again.",
                )
            connection.close()
        except (sqlite3.DatabaseError, WorkerError):
            pass
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", aside / f"{BACKUP}{suffix}")
    return connect(
        path
    ), notice + "There was no sound backup, so the queue starts empty. Takes already made are untouched."


def backup(connection: sqlite3.Connection, folder: Path) -> None:
    """A consistent copy under the backup's name; appears only when whole."""
    temporary = folder / f".{BACKUP}.tmp"
    temporary.unlink(missing_ok=True)
    target = sqlite3.connect(temporary)
    try:
        connection.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")
    finally:
        target.close()
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, folder / BACKUP)
