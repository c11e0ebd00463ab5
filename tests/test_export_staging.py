# SPDX-License-Identifier: Apache-2.0
"""The workshop of an export: what is noted is on the disk, what is torn is dropped, and a dataset is replaced whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from retake.core.errors import ExportError
from retake.core.export import staging as module
from retake.core.export.staging import Staging, recover, staged, staging_path


def begin(out: Path, base: Path | None = None) -> Staging:
    return Staging(out, staging_path(out), base)


def test_a_finished_episode_is_on_the_disk_when_it_is_noted(tmp_path, monkeypatch):
    done: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_size))
    work = begin(tmp_path / "d")
    work.commit_entry({"uid": "ü", "length": 3})
    work.commit_entry({"uid": "b", "length": 4})
    size = (work.path / "journal.jsonl").stat().st_size
    assert len(done) == 2
    assert done[1] == size > done[0]
    assert work.count == 2
    assert [entry["uid"] for entry in begin(tmp_path / "d").entries()] == ["ü", "b"]


@pytest.mark.parametrize(
    "tail",
    [b"{", b'{"entry": {}, "hash": "0"}\n', b"[1]\n", b"null\n", b'{"entry": 1}\n', b"\xff\n", b"\n"],
)  # fmt: skip
def test_a_torn_line_and_all_after_it_is_cut_off_the_journal(tmp_path, tail):
    work = begin(tmp_path / "d")
    work.commit_entry({"uid": "a"})
    journal = work.path / "journal.jsonl"
    good = journal.read_bytes()
    journal.write_bytes(good + tail + good)
    again = begin(tmp_path / "d")
    assert again.count == 1
    assert journal.read_bytes() == good
    journal.write_bytes(good + good[:-1])
    assert begin(tmp_path / "d").count == 1, "a line without its end was not written whole"
    again.commit_entry({"uid": "c"})
    assert [entry["uid"] for entry in begin(tmp_path / "d").entries()] == ["a", "c"]


def test_what_a_killed_process_had_begun_is_removed_and_what_it_finished_stays(tmp_path):
    work = begin(tmp_path / "d")
    for place in (work.parts, work.dataset):
        (place / "sub").mkdir()
        (place / "sub" / ".x.tmp.mp4").write_text("")
        (place / "sub" / "x.mp4").write_text("")
    begin(tmp_path / "d")
    assert sorted(p.name for p in work.path.rglob("*") if p.is_file()) == ["x.mp4", "x.mp4"]


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        place = path / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return path


def test_files_of_the_base_live_on_unless_they_are_written_anew_or_dropped(tmp_path):
    base = folder(tmp_path / "d", meta__a="old", data__x="kept", episodes__1="dropped", episodes__2="dropped")
    work = begin(base, base)
    folder(work.dataset, meta__a="new", data__y="added", episodes__1="rewritten")
    work.finish(("episodes/*",))
    found = {p.relative_to(base).as_posix(): p.read_text() for p in base.rglob("*") if p.is_file()}
    assert found == {"meta/a": "new", "data/x": "kept", "data/y": "added", "episodes/1": "rewritten"}
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    base = folder(tmp_path / "d", data__x="kept")
    work = begin(base, base)
    monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError(errno.EXDEV, "other disk")))
    before = (base / "data/x").stat()
    work.finish()
    after = (base / "data/x").stat()
    assert (base / "data/x").read_text() == "kept"
    assert after.st_mtime_ns == before.st_mtime_ns
    assert sorted(p.name for p in base.rglob("*")) == ["data", "x"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_replacement_that_was_killed_is_finished(tmp_path, monkeypatch, there, killed_at):
    out = tmp_path / "d"
    if there:
        folder(out, a="old")
    work = begin(out)
    folder(work.dataset, a="new")
    real, calls = os.rename, []

    def rename(*places):
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        calls.append(places)
        real(*places)

    monkeypatch.setattr(os, "rename", rename)
    try:
        work.finish()
    except KeyboardInterrupt:
        monkeypatch.undo()
        recover(out)
    monkeypatch.undo()
    recover(out)
    assert (out / "a").read_text() == "new"
    assert not staging_path(out).exists()


def test_without_a_note_that_all_is_whole_nothing_is_replaced(tmp_path):
    out = folder(tmp_path / "d", a="old")
    folder(begin(out).dataset, a="half")
    recover(out)
    assert (out / "a").read_text() == "old"
    assert staging_path(out).exists()


def test_another_export_goes_on_only_where_it_is_the_same(tmp_path):
    out = tmp_path / "d"
    with staged(out, {"a": (1, 2)}, None) as work:
        work.commit_entry({"uid": "a"})
    with staged(out, {"a": [1, 2]}, None) as work:
        assert work.count == 1, "a tuple is a list in JSON"
    with pytest.raises(ExportError, match="another export to"), staged(out, {"a": [1]}, None):
        pass
    with staged(out, {"a": [1]}, None, restart=True) as work:
        assert work.count == 0
    assert json.loads((staging_path(out) / "plan.json").read_text()) == {"a": [1]}


def test_remains_without_a_plan_are_no_export(tmp_path):
    out = tmp_path / "d"
    folder(staging_path(out), journal__x="", parts__y="")
    with staged(out, {}, None) as work:
        assert work.count == 0
        assert list(work.parts.iterdir()) == []


def test_one_export_at_a_time_and_a_full_disk_is_one_sentence(tmp_path):
    out = tmp_path / "d"
    with staged(out, {}, None), pytest.raises(ExportError, match="export"), module._locked(out):
        pass
    with module._locked(out):
        pass

    def fail(error):
        with staged(out, {}, None):
            raise error

    with pytest.raises(ExportError, match=r"stopped: the disk is full \(x\.mp4\)\. d is as it was"):
        fail(OSError(errno.ENOSPC, "No space left on device", "x.mp4"))
    with pytest.raises(ExportError, match=r"stopped: Input/output error \(y\)"):
        fail(OSError(errno.EIO, "Input/output error", "y"))
    with pytest.raises(FileNotFoundError):
        fail(FileNotFoundError("a program's own"))


def lock_of(out: Path) -> Path:
    return out.parent / f".{out.name}.export.lock"


def test_the_lock_of_who_exports_next_is_not_removed(tmp_path, monkeypatch):
    out, close = tmp_path / "d", os.close

    def end_and_begin_another(handle: int) -> None:
        close(handle)
        if not lock_of(out).exists():
            lock_of(out).write_text("the next one's")

    with module._locked(out):
        assert lock_of(out).exists()
        monkeypatch.setattr(os, "close", end_and_begin_another)
    monkeypatch.undo()
    assert lock_of(out).read_text() == "the next one's"


def test_a_lock_that_is_another_s_stays_where_open_files_cannot_be_removed(tmp_path, monkeypatch):
    out = tmp_path / "d"
    monkeypatch.setattr(module, "is_windows", lambda: True)
    with module._locked(out):
        with pytest.raises(ExportError, match="another process is exporting"), module._locked(out):
            pass
        assert lock_of(out).exists(), "who was refused leaves it"
    assert not lock_of(out).exists(), "who held it removes it once it is closed"
