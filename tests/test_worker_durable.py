# SPDX-License-Identifier: Apache-2.0
"""What must be on disk when the plug is pulled, what nobody else may read, and what is said where something failed. Of
retake.worker.schema, .store, .execute, .security, .executor, .media, .gallery, .content, .admission and .batching."""

from __future__ import annotations

import io
import os
import runpy
import sqlite3
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from left_open import open_under
from test_worker_memory import Turns, record
from test_worker_store import prepared

from retake.core.errors import InputError, WorkerError
from retake.core.video import read_video, write_video
from retake.worker import content, execute, executor, gallery, schema, security
from retake.worker.batching import Batch
from retake.worker.gallery import Gallery
from retake.worker.roots import Roots
from retake.worker.store import Store


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(inode, size) of everything that was brought to the disk, in order."""
    found: list[tuple[int, int]] = []
    plain = os.fsync

    def fsync(handle: int) -> None:
        stat = os.fstat(handle)
        found.append((stat.st_ino, stat.st_size))
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


# -- the queue --------------------------------------------------------------------------------------------------------


def test_a_committed_job_survives_the_plug_and_a_damaged_page_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    told = {name: store._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "cell_size_check", "trusted_schema", "user_version")}  # fmt: skip
    assert told == {
        "journal_mode": "wal", "synchronous": 2, "cell_size_check": 1, "trusted_schema": 0, "user_version": 1
    }  # fmt: skip
    store.close()


def test_a_copy_of_the_queue_is_one_whole_file_that_is_on_the_disk(tmp_path: Path, synced: Any) -> None:
    store = Store(tmp_path)
    store.submit([prepared(1)])
    leftover = tmp_path / f".{schema.BACKUP}.tmp"
    leftover.write_bytes(b"of a service that died while it copied")
    assert store.backup()
    copy = tmp_path / schema.BACKUP
    assert not leftover.exists()
    assert copy.read_bytes()[18:20] == b"\x01\x01", "readable by itself, without a log beside it"
    assert (copy.stat().st_ino, copy.stat().st_size) in synced
    assert [p.name for p in tmp_path.glob("*backup*")] == [schema.BACKUP]
    with sqlite3.connect(copy) as db:
        assert db.execute("SELECT count(*) FROM jobs").fetchone()[0] == 1
    db.close()
    store.close()


def test_two_damages_in_one_second_are_kept_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = time.localtime(0)
    monkeypatch.setattr(schema, "time", SimpleNamespace(strftime=lambda form: time.strftime(form, moment)))
    for _ in range(2):
        (tmp_path / schema.NAME).write_bytes(b"noise" * 1000)
        connection, notice = schema.open_sound(tmp_path)
        assert "the queue starts empty" in notice
        connection.close()
    assert len(list(tmp_path.glob("damaged-*"))) == 1


def test_a_queue_that_is_refused_is_let_go_of(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / schema.NAME) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    held = open_under(tmp_path)
    for _ in range(3):
        with pytest.raises(WorkerError, match="a queue of version 2; this worker reads version 1"):
            schema.connect(tmp_path / schema.NAME)
    assert open_under(tmp_path) == held
    (tmp_path / schema.NAME).unlink()
    Store(tmp_path).close()
    held = open_under(tmp_path)
    for _ in range(3):
        (tmp_path / schema.BACKUP).write_bytes(b"noise" * 1000)
        (tmp_path / schema.NAME).write_bytes(b"noise" * 1000)
        connection, _ = schema.open_sound(tmp_path)
        connection.close()
    assert open_under(tmp_path) == held


# -- results and tokens -----------------------------------------------------------------------------------------------


def test_a_finished_folder_and_its_name_are_on_the_disk(tmp_path: Path, synced: Any) -> None:
    folder = tmp_path / "takes" / "front"
    folder.mkdir(parents=True)
    held = open_under(tmp_path)
    execute._sync_folder(folder)
    assert [inode for inode, _ in synced] == [folder.stat().st_ino, folder.parent.stat().st_ino]
    assert open_under(tmp_path) == held
    execute._sync_folder(tmp_path / "gone" / "front")  # not every system lets folders be synced


def test_a_token_is_long_and_on_the_disk_before_it_is_used(tmp_path: Path, synced: Any) -> None:
    token = security.read_or_make_token(tmp_path / "token")
    assert len(token) == 43, "256 bits"
    assert synced == [((tmp_path / "token").stat().st_ino, 44)]
    security.read_or_make_token(tmp_path / "token")
    assert len(synced) == 1


# -- what is said -----------------------------------------------------------------------------------------------------


def test_the_log_has_the_place_where_a_job_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fails(*given: Any) -> Any:
        raise InputError("so it is")

    monkeypatch.setattr(executor, "execute", fails)
    monkeypatch.setattr(executor, "job_from_json", lambda _: SimpleNamespace(request=None, output=tmp_path))
    monkeypatch.setattr(executor, "spec_from_json", lambda _: None)
    one = executor.Executor(io.StringIO(), io.StringIO())
    one._run({"id": "a", "job": {}, "backend": {}, "content": "", "tier": "", "card": "", "margin_bytes": 0, "attempt": 1,
              "reuse": "", "roots": [str(tmp_path)], "preview": "p.jpg"})  # fmt: skip
    told = capsys.readouterr()
    assert "in fails" in told.err
    assert told.err.rstrip().endswith("InputError: so it is")
    assert told.out == ""


@pytest.mark.parametrize(("fine", "code"), [(True, 0), (False, 2)])
def test_a_film_is_encoded_by_a_process_that_says_how_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, fine: bool, code: int
) -> None:
    write_video(tmp_path / "in.mp4", [np.full((48, 64, 3), 40 * k, np.uint8) for k in range(4)], 10.0)
    source = tmp_path / ("in.mp4" if fine else "none.mp4")
    monkeypatch.setattr(sys, "argv", ["media", str(source), str(tmp_path / "out.mp4"), "1", "2", "5"])
    monkeypatch.delitem(sys.modules, "retake.worker.media", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("retake.worker.media", run_name="__main__")
    assert ended.value.code == code
    assert (capsys.readouterr().err == "") == fine
    assert len(list(read_video(tmp_path / "out.mp4"))) == 2 if fine else not (tmp_path / "out.mp4").exists()
    monkeypatch.delitem(sys.modules, "retake.worker.media", raising=False)
    assert "main" in runpy.run_module("retake.worker.media")  # what is imported encodes nothing


@pytest.mark.skipif(os.name != "posix", reason="a shell stands in for Python")
def test_a_film_that_cannot_be_encoded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last words of the process that encodes: a shell here, which knows no such script."""
    monkeypatch.setattr(gallery, "sys", SimpleNamespace(executable="/bin/sh"))
    it = Gallery(Roots.of([tmp_path]), tmp_path / "cache", 9)
    shown: Any = SimpleNamespace(take=SimpleNamespace(start=0, frames=1, fps=5.0))
    with pytest.raises(WorkerError, match=r"the skeleton video cannot be shown: .*retake\.worker\.media"):
        it._video(shown, "skeleton", tmp_path)

    def hangs(command: list[str], *, timeout: float, **more: Any) -> Any:
        raise gallery.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gallery.subprocess, "run", hangs)
    with pytest.raises(WorkerError, match="took longer than 300 s"):
        it._video(shown, "skeleton", tmp_path)


# -- what is remembered, and whose turn it is -------------------------------------------------------------------------


def test_hashes_are_remembered_of_twenty_thousand_files_at_most(tmp_path: Path, monkeypatch: Any) -> None:
    hasher, read = content.Hasher(), []
    monkeypatch.setattr(content, "sha256_file", lambda path: read.append(path.name) or "hash")
    for name in "abc":
        (tmp_path / name).touch()
    hasher._files = {tmp_path / str(k): (0, 0, 0, "x") for k in range(20_000)}
    hasher.file(tmp_path / "a")
    assert len(hasher._files) == 20_001
    hasher.file(tmp_path / "b")
    assert set(hasher._files) == {tmp_path / "b"}
    for name in "bab":
        hasher.file(tmp_path / name)
    assert read == ["a", "b", "a"]


def test_a_record_is_read_once_for_all_jobs_that_share_it(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "complete.json").write_text('{"content_sha256": "abc"}')
    read: list[Path] = []
    monkeypatch.setattr(content, "read_json", lambda path: read.append(path) or {"content_sha256": "abc"})
    hasher = content.Hasher()
    assert [hasher.stated(tmp_path / "complete.json", "content_sha256") for _ in range(3)] == ["abc"] * 3
    assert len(read) == 1


def test_twenty_jobs_are_looked_at_for_one_that_may_start() -> None:
    for blocked, starts in ((19, True), (20, False)):
        turns = Turns(*(record(k, "plain") for k in range(blocked)), record(99, "plain"))
        for k in range(blocked):
            turns.admission.put_off(f"job{k}", 50.0)
        assert (turns.next(10).start is not None) == starts


def test_a_job_lets_eight_others_pass() -> None:
    batch = Batch()
    batch.started(record(0, "loaded"))
    queue = [record(1, "other"), *(record(k, "loaded") for k in range(2, 20))]
    for passed in range(9):
        first = batch.order(queue)[0]
        assert (first.id == "job1") == (passed == 8)
        batch.started(first)
        queue.remove(first)
