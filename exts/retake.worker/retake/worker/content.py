# SPDX-License-Identifier: Apache-2.0
"""What a job's pixels follow from, as one hash: equal requests are one job, whoever sends them and wherever they go."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core.errors import InputError
from retake.core.files import read_json, sha256_file, sha256_json
from retake.core.run_layout import PIXELS, RECORD, SKELETON_RECORD, VARIANT_FRAME, VARIANT_RECORD
from retake.core.wire import TakeJob, VariantJob, job_to_json
from retake.worker.backends import identity
from retake.worker.roots import Roots
from retake.worker.settings import BackendSpec

MAX_TEXT = 20_000


class Hasher:
    """Hashes of inputs, remembered while file time and size stay: 10,000 jobs of one episode read it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[int, int, int, str]] = {}
        self._stated: dict[str, str] = {}

    def file(self, path: Path) -> str:
        """SHA-256 of a file. Raises InputError when it cannot be read."""
        try:
            stat = path.stat()
            key = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            with self._lock:
                known = self._files.get(path)
            if known is not None and known[:3] == key:
                return known[3]
            found = sha256_file(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        with self._lock:
            if len(self._files) > 20_000:
                self._files.clear()
            self._files[path] = (*key, found)
        return found

    def stated(self, path: Path, *keys: str) -> str:
        """What a JSON record states under the keys: the text itself for one, a hash for more; else the file's own hash."""
        known = self.file(path)
        with self._lock:
            if known in self._stated:
                return self._stated[known]
        try:
            record = read_json(path)
            values = [record.get(key) for key in keys]
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is not readable JSON: {error}") from error
        found = values[0] if len(keys) == 1 else sha256_json(values)
        if not isinstance(found, str) or not found:
            found = known
        with self._lock:
            self._stated[known] = found
        return found


class Inputs:
    """Checked input folders of one request to the service, whose jobs mostly share them."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._known: dict[tuple[Path, str], Path] = {}

    def folder(self, path: Path, what: str, must_hold: str) -> Path:
        """See Roots.folder."""
        if (path, what) not in self._known:
            self._known[path, what] = self.roots.folder(path, what, must_hold)
        return self._known[path, what]


def prepare(job: TakeJob | VariantJob, inputs: Inputs) -> TakeJob | VariantJob:
    """The job with real paths, everything checked that can be without opening pictures. Raises InputError."""
    roots = inputs.roots
    request: Any = job.request
    for name in ("prompt", "negative_prompt", "camera"):
        if len(getattr(request, name, "")) > MAX_TEXT:
            raise InputError(f"request.{name} has {len(getattr(request, name))} characters; at most {MAX_TEXT}")
    if not 0 <= request.seed < 2**63:
        raise InputError(f"request.seed {request.seed} is not within 0 … 2^63-1")
    if not -1_000_000 <= job.priority <= 1_000_000:
        raise InputError(f"priority {job.priority} is not within ±1,000,000")
    if not 1 <= job.max_attempts <= 100:
        raise InputError(f"max_attempts {job.max_attempts} is not within 1 … 100")
    episode = inputs.folder(request.episode, "episode", "complete.json")
    if isinstance(job, TakeJob):
        if request.frames < 0 or request.start < 0:
            raise InputError(f"frames {request.frames} and start {request.start} must not be negative")
        skeleton = inputs.folder(request.skeleton, "skeleton", SKELETON_RECORD)
        variant = inputs.folder(request.variant, "variant", VARIANT_RECORD)
        request = replace(request, episode=episode, skeleton=skeleton, variant=variant)
    else:
        if request.index < 0:
            raise InputError(f"index {request.index} must not be negative")
        if not 0 <= request.rerolls <= 100:
            raise InputError(f"rerolls {request.rerolls} is not within 0 … 100")
        request = replace(request, episode=episode)
    output = roots.inside(job.output, "output")
    if output in roots.folders:
        raise InputError(
            f"output {str(output)[:200]!r} is a root itself; name the result's own folder, e.g. takes/<id>"
        )
    for source in (episode, getattr(request, "skeleton", episode), getattr(request, "variant", episode)):
        if output == source or str(output).startswith(f"{source}{os.sep}"):
            raise InputError(f"output {str(output)[:200]!r} lies inside its own input {source}")
    sidecar = RECORD[job.kind]
    try:
        try:
            strangers = [name for name in os.listdir(output) if not name.startswith(".")]
        except FileNotFoundError:
            strangers = []
        except NotADirectoryError as error:
            raise InputError(f"output {str(output)[:200]!r} is a file; name a folder") from error
        if strangers and not (output / sidecar).is_file() and set(strangers) - set(PIXELS.values()):
            raise InputError(
                f"output {str(output)[:200]!r} holds files that are no {job.kind} ({strangers[0]}); choose another folder"
            )
    except OSError as error:
        raise InputError(f"output {str(output)[:200]!r} cannot be used: {error.strerror}") from error
    return replace(job, request=request, output=output)


def content_hash(job: TakeJob | VariantJob, backend: BackendSpec, hasher: Hasher) -> str:
    """Hash over the *content* of all inputs, the backend's identity and the request's values (not the paths).

    `job` is a prepared one. Raises InputError for unreadable inputs and values that are not JSON.
    """
    request = job_to_json(job)["request"]
    inputs = input_hashes(job, hasher)
    values = {k: v for k, v in request.items() if k not in ("episode", "skeleton", "variant")}
    try:
        return sha256_json({"kind": job.kind, "backend": identity(backend), "inputs": inputs, "values": values})
    except (ValueError, TypeError, RecursionError) as error:  # NaN, infinity, lone surrogates, foreign objects
        raise InputError(f"request holds a value that JSON cannot carry: {error}") from error


def input_hashes(job: TakeJob | VariantJob, hasher: Hasher) -> dict[str, str]:
    """Hashes of episode (its own content hash), skeleton and first frame."""
    request: Any = job.request
    found = {"episode": hasher.stated(request.episode / "complete.json", "content_sha256")}
    if isinstance(job, TakeJob):
        found["skeleton"] = hasher.stated(request.skeleton / SKELETON_RECORD, "sha256")
        found["first_frame"] = hasher.file(request.variant / VARIANT_FRAME)
        # A backend may re-dress the whole world, not just continue its first frame.
        found["world"] = hasher.stated(request.variant / VARIANT_RECORD, "world", "seed", "backend")
    return found
