# SPDX-License-Identifier: Apache-2.0
"""Bytes on disk: whole or not at all, of the mode that the user's umask gives, hashed in one form, and read again only when
they changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from left_open import open_under

from retake.core import files
from retake.core.errors import InputError
from retake.core.files import (
    SETTLED_S,
    atomic_directory,
    atomic_path,
    canonical_json,
    is_abandoned,
    known_sha256,
    mark_of,
    owner_tag,
    read_json,
    remembered,
    sha256_bytes,
    sha256_file,
    sha256_json,
    user_path,
    write_bytes,
    write_json,
)

LOADED: list[Path] = []


def load(path: Path) -> str:
    LOADED.append(path)
    return path.read_text("utf-8")


def load_otherwise(path: Path) -> str:
    return f"otherwise {load(path)}"


def full() -> int:
    raise ValueError("full")


def fill(folder: Path) -> None:
    assert not is_abandoned(folder.name)
    (folder / "deep").mkdir()
    (folder / "deep" / "f").write_bytes(b"half")
    full()


def aged(path: Path, seconds: float = 60) -> Path:
    """The file as if it had been written that long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_the_form_that_hashes_are_taken_over_is_stated() -> None:
    """Hashes in run folders stay valid only while it stays this."""
    value = {"b": 1, "a": [1.5, None, "ü"], "c": {"y": True, "x": ""}}
    form = '{"a":[1.5,null,"ü"],"b":1,"c":{"x":"","y":true}}'.encode()
    assert canonical_json(value) == form
    assert sha256_json(value) == hashlib.sha256(form).hexdigest()
    for bad in (float("nan"), [float("inf")]):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json(bad)


@given(st.lists(st.binary(max_size=9), max_size=4))
def test_parts_hash_as_the_whole(parts: list[bytes]) -> None:
    assert sha256_bytes(*parts) == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 5])
def test_a_file_hashes_as_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "f").write_bytes(data[:size])
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data[:size]).hexdigest()


def test_json_is_readable_text(tmp_path: Path) -> None:
    place = tmp_path / "new" / "deep" / "a.json"
    write_json(place, {"b": "küche", "a": [1, 2]})
    assert place.read_text("utf-8") == '{\n  "b": "küche",\n  "a": [\n    1,\n    2\n  ]\n}\n'
    assert read_json(place) == {"b": "küche", "a": [1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(place, {"a": float("nan")})
    assert read_json(place)["b"] == "küche"
    assert [p.name for p in place.parent.iterdir()] == ["a.json"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "take.mp4"
    write_bytes(place, b"old")
    with atomic_path(place) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".mp4")
        assert temporary.name.startswith(".take.")
        assert not is_abandoned(temporary.name), "its writer lives"
        temporary.write_bytes(b"new")
        assert place.read_bytes() == b"old"
    assert place.read_bytes() == b"new"
    with pytest.raises(ValueError, match="full"), atomic_path(place) as temporary:
        temporary.write_bytes(bytes([*b"half", full()]))
    assert place.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_and_folders_have_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "f", b"")
        with atomic_directory(tmp_path / "above" / "d") as temporary:
            (temporary / "inside").write_bytes(b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "above" / "d").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "run"
    with pytest.raises(ValueError, match="full"), atomic_directory(place) as temporary:
        fill(temporary)
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(place) as temporary:
        (temporary / "f").write_bytes(b"whole")
        assert not place.exists()
    with pytest.raises(OSError, match="run"), atomic_directory(place) as temporary:
        (temporary / "g").write_bytes(b"other")
    assert [p.name for p in tmp_path.rglob("*")] == ["run", "f"]


def test_only_remains_of_a_writer_of_this_machine_that_is_gone_are_abandoned() -> None:
    machine, process, started = owner_tag().split("-")
    for name, gone in {
        f".take.{machine}-{process}-{started}.x.tmp.mp4": False,
        f".take.{machine}-{process}-{int(started) + 1}.x.tmp.mp4": True,
        f".take.{machine}-{2**22 + 7}-{started}.x.tmp": True,
        f".take.{'0' * 6}-{2**22 + 7}-1.x.tmp": False,
        ".take.x.tmp": True, ".take.mp4": False, f"take.{machine}-1-1.x.tmp": False, "take.tmp": False,
    }.items():  # fmt: skip
        assert is_abandoned(name) == gone, name


def test_what_is_settled_is_read_once_and_again_when_it_changed(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_text("one", "utf-8")
    aged(place)
    LOADED.clear()
    assert [remembered(place, load) for _ in range(3)] == ["one"] * 3
    assert remembered(place, load_otherwise) == "otherwise one"
    assert len(LOADED) == 2
    place.write_text("two", "utf-8")
    aged(place, 50)
    assert remembered(place, load) == "two"
    (tmp_path / "g").write_text("six", "utf-8")
    os.utime(tmp_path / "g", ns=(place.stat().st_atime_ns, place.stat().st_mtime_ns))
    assert remembered(tmp_path / "g", load) == "six"
    os.replace(tmp_path / "g", place)
    assert remembered(place, load) == "six", "another file under the name"
    assert (mark_of(place) or (0,))[0] == 3
    assert known_sha256(place) == sha256_file(place)


def test_what_was_written_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_text("one", "utf-8")
    aged(place, SETTLED_S / 2)
    LOADED.clear()
    assert mark_of(place) is None
    remembered(place, load), remembered(place, load)
    assert len(LOADED) == 2
    aged(place, SETTLED_S + 1)
    assert mark_of(place) == (3, place.stat().st_mtime_ns, place.stat().st_ino)
    with pytest.raises(OSError, match="none"):
        mark_of(tmp_path / "none")


def test_a_file_that_is_no_json_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b'{"a": 1')
    with pytest.raises(json.JSONDecodeError):
        read_json(tmp_path / "f")


def test_what_gets_its_final_name_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a file is whole or not there: its bytes are flushed to the disk, and then it is renamed."""
    done: list[tuple[str, object]] = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        done.append(("flushed", os.fstat(handle).st_ino))
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        done.append(("renamed", Path(source).stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    write_bytes(tmp_path / "f", b"content")
    number = (tmp_path / "f").stat().st_ino
    assert done == [("flushed", number), ("renamed", number)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which files are open")
def test_writing_leaves_no_file_open(tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"first")
    for _ in range(3):
        write_bytes(tmp_path / "f", b"next")
    with (tmp_path / "f").open("rb"):
        assert open_under(tmp_path) == [str((tmp_path / "f").resolve())]
    assert open_under(tmp_path) == []


def test_a_folder_that_fails_is_removed_though_some_of_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong is told, not that its remains could not be removed."""
    real = os.unlink

    def stuck(path: object, *args: object, **options: object) -> None:
        if str(path).endswith("f"):
            raise PermissionError("in use")
        real(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", stuck)
    with pytest.raises(ValueError, match="full"), atomic_directory(tmp_path / "run") as temporary:
        fill(temporary)
    assert not (tmp_path / "run").exists()


def test_a_path_is_what_a_person_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert user_path("  ~/a b  ") == tmp_path / "a b"
    assert user_path(tmp_path) == tmp_path
    with pytest.raises(InputError, match="~nobody-of-that-name"):
        user_path("~nobody-of-that-name/x")


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[object, object] = dict.fromkeys(range(50_000))
    monkeypatch.setattr(files, "_remembered", known)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name, "utf-8")
        aged(tmp_path / name)
    remembered(tmp_path / "a", load)
    assert len(known) == 50_001
    remembered(tmp_path / "b", load)
    assert len(known) == 1
