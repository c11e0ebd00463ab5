# SPDX-License-Identifier: Apache-2.0
"""Bytes on disk: atomic writes, canonical JSON, content hashes.

A file under its final name is complete: content goes to a temporary sibling, is flushed to the disk, then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from retake.core.errors import InputError
from retake.core.host import started

_OWNER = re.compile(r"\.([0-9a-f]{6})-(\d+)-(\d+)\.")


def user_path(text: str | Path) -> Path:
    """A path as a person types it: blanks around it are not part of it, `~` is a home folder. Raises InputError for the home
    of nobody."""
    try:
        return Path(str(text).strip()).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text} names the home folder of a user that this system does not have") from error


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value that hashes are taken over: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_bytes(*parts: bytes | memoryview) -> str:
    """Hex SHA-256 of the parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


Loaded = TypeVar("Loaded")
_remembered: dict[tuple[str, str, tuple[int, int, int] | None], Any] = {}
SETTLED_S = 2.0
"""A file changed more recently than this may change again within one tick of the clock that file times have."""


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """Size, time and inode of a file: equal while it stays as it is. None when it changed a moment ago. Raises OSError."""
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ino) if time.time() - stat.st_mtime > SETTLED_S else None


def remembered(path: Path, load: Callable[[Path], Loaded]) -> Loaded:
    """`load(path)`, called again only when the file's name, size, time or inode changed. Raises OSError and what it raises.

    What is remembered is shared: `load` is a module's function that returns something frozen and small.
    """
    mark = mark_of(path)
    key = (f"{load.__module__}.{load.__qualname__}", os.fspath(path), mark)
    if mark is not None and key in _remembered:
        return _remembered[key]
    found = load(path)
    if mark is not None:
        if len(_remembered) > 50_000:
            _remembered.clear()
        _remembered[key] = found
    return found


def known_sha256(path: Path) -> str:
    """`sha256_file`, remembered by this process while the file stays as it is. Raises OSError."""
    return remembered(path, sha256_file)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling (same suffix) to write to; renamed to `path` on success, removed on any failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.{owner_tag()}.", suffix=f".tmp{path.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:  # Windows flushes only what is open for writing
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def owner_tag() -> str:
    """Marks a temporary with its writer: machine, process and the process's start, so that only a dead writer's remains
    are cleared away, and a later process with the same number is not taken for it."""
    return f"{_machine()}-{os.getpid()}-{started(os.getpid()) or 0}"


def _machine() -> str:
    return sha256_bytes(platform.node().encode())[:6]


def is_abandoned(name: str) -> bool:
    """Whether a file name is a hidden temporary whose writer is gone: another machine's writer may live, so it is not."""
    if not (name.startswith(".") and ".tmp" in name):
        return False
    tag = _OWNER.search(name)
    if tag is None:
        return True
    return tag[1] == _machine() and started(int(tag[2])) != int(tag[3])


def _umask() -> int:
    """The process's umask (mkstemp makes files private, which would surprise users sharing a folder)."""
    current = os.umask(0o022)
    os.umask(current)
    return current


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON (indented, UTF-8, no NaN) atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError or ValueError; callers name the file and what they expected."""
    return json.loads(path.read_bytes().decode("utf-8"))


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary sibling folder, renamed to `path` on success, removed on failure. `path` must not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{owner_tag()}.", suffix=".tmp"))
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
