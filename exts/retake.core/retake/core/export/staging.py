# SPDX-License-Identifier: Apache-2.0
"""The workshop of an export: `.<name>.export/` beside the dataset, so that a kill at any instant loses one episode.

plan.json      what is being written; another plan refuses to continue it
journal.jsonl  one line per finished episode (the commit log; a torn last line is dropped)
parts/         encoded episodes that are not yet in a file of the dataset
dataset/       finished files of the new dataset; renamed to the dataset's name when all is done
commit         exists from the moment dataset/ is whole

The dataset folder itself is only ever replaced by a whole one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retake.core.errors import ExportError
from retake.core.files import canonical_json, read_json, sha256_bytes, write_json
from retake.core.host import is_windows, lock

Entry = dict[str, Any]


class Staging:
    """One export under way. Made by `staged`."""

    def __init__(self, out: Path, path: Path, base: Path | None) -> None:
        self.out, self.path, self.base = out, path, base
        """`base`: the existing dataset that is being appended to, or None."""
        self.parts, self.dataset, self._journal = path / "parts", path / "dataset", path / "journal.jsonl"
        self.parts.mkdir(parents=True, exist_ok=True)
        self.dataset.mkdir(parents=True, exist_ok=True)
        for leftover in [*self.dataset.rglob(".*.tmp*"), *self.parts.rglob(".*.tmp*")]:
            leftover.unlink(missing_ok=True)  # what a killed process had begun to write
        self._trim()
        self.count = sum(1 for _ in self.entries())

    def entries(self) -> Iterator[Entry]:
        """The finished episodes, in order, one in memory at a time."""
        if self._journal.exists():
            with self._journal.open("rb") as stream:
                for line in stream:
                    yield json.loads(line)["entry"]

    def commit_entry(self, entry: Entry) -> None:
        """Note a finished episode; from here on it is never made again."""
        line = {"entry": entry, "hash": sha256_bytes(canonical_json(entry))}
        with self._journal.open("ab") as stream:
            stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.count += 1

    def _trim(self) -> None:
        """Cut a torn last line off the journal."""
        if not self._journal.exists():
            return
        good = 0
        with self._journal.open("rb") as stream:
            for line in stream:
                try:
                    data = json.loads(line)
                    if not line.endswith(b"\n") or data["hash"] != sha256_bytes(canonical_json(data["entry"])):
                        break
                except (ValueError, KeyError, TypeError):
                    break
                good += len(line)
        if good != self._journal.stat().st_size:
            with self._journal.open("r+b") as stream:
                stream.truncate(good)

    def finish(self, replaced: tuple[str, ...] = ()) -> None:
        """Put the finished dataset in place. Files of the base that were not written anew are linked in.

        `replaced`: glob patterns of base files that must not survive.
        """
        if self.base is not None:
            dropped = {path for pattern in replaced for path in self.base.glob(pattern)}
            for source in sorted(self.base.rglob("*")):
                target = self.dataset / source.relative_to(self.base)
                if source.is_file() and source not in dropped and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(source, target)
        write_json(self.path / "commit", {"out": self.out.name})
        _swap(self.out, self.path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copy2(source, temporary)
        os.replace(temporary, target)


def _swap(out: Path, path: Path) -> None:
    """dataset/ becomes `out`. Idempotent: killed anywhere in here, calling it again ends in the same state."""
    new, old = path / "dataset", path / "previous"
    if new.exists():
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(out, old)
        os.rename(new, out)
    shutil.rmtree(path, ignore_errors=True)


def staging_path(out: Path) -> Path:
    """The workshop folder of a dataset folder."""
    return out.parent / f".{out.name}.export"


def recover(out: Path) -> None:
    """Finish a replacement that was killed between its two renames."""
    path = staging_path(out)
    if (path / "commit").exists():
        _swap(out, path)


@contextlib.contextmanager
def staged(out: Path, identity: Mapping[str, Any], base: Path | None, *, restart: bool = False) -> Iterator[Staging]:
    """Open or continue the workshop for `out`, holding its lock.

    Raises ExportError when another process exports to the same folder, or when another export was interrupted there.
    System errors (disk full, no permission) become ExportError; what is finished stays for the next attempt.
    """
    path = staging_path(out)
    try:
        with _locked(out):
            if restart:
                shutil.rmtree(path, ignore_errors=True)
            plan = path / "plan.json"
            if plan.exists():
                if read_json(plan) != json.loads(json.dumps(identity)):
                    raise ExportError(
                        f"another export to {out} was interrupted: repeat it with the same command, or discard it with "
                        f"--restart (its work is in {path})"
                    )
            else:
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir(parents=True)
                write_json(plan, identity)
            yield Staging(out, path, base)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and error.filename is None:
            raise
        full = error.errno == errno.ENOSPC
        what = "the disk is full" if full else f"{error.strerror or error}"
        raise ExportError(
            f"export to {out} stopped: {what} ({error.filename or path}). {out.name} is as it was; the same command "
            f"continues where it stopped" + (" once there is room" if full else "")
        ) from error


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.parent / f".{out.name}.export.lock"
    handle, ours = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), False
    try:
        try:
            lock(handle)
        except OSError as error:
            raise ExportError(f"another process is exporting to {out}; wait for it, or choose another --out") from error
        if not path.exists() or os.fstat(handle).st_ino != path.stat().st_ino:
            raise ExportError(f"another process just exported to {out}; run the command again")
        ours = True
        try:
            yield
        finally:
            if not is_windows():  # where no file is removed that is open
                path.unlink(missing_ok=True)
    finally:
        os.close(handle)
        if ours and is_windows():
            with contextlib.suppress(OSError):  # the next writer has it open
                path.unlink(missing_ok=True)
