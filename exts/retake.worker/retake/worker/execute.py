# SPDX-License-Identifier: Apache-2.0
"""One job, from request to finished folder. The executor process, a Ray actor and a script all run exactly this.

The folder appears piece by piece under temporary names; its JSON sidecar is written last, fsynced and renamed. Running
a job whose folder is finished does nothing, so running it again is always safe.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import (
    EpisodeError,
    InputError,
    MissingDependencyError,
    RetakeError,
    SkeletonError,
    TakeError,
    VariantError,
)
from retake.core.files import atomic_path, read_json, sha256_file, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import PIXELS, PIXELS_SHA256, RECORD, name_of
from retake.core.run_store import remove_leftovers
from retake.core.takes.base import TakeRequest
from retake.core.wire import TakeJob, VariantJob
from retake.worker.backends import create, find
from retake.worker.leftovers import sweep
from retake.worker.settings import BackendSpec, load_settings

Preview = Callable[[UInt8[np.ndarray, "h w 3"]], None]
PREVIEW_EVERY_S = 0.5
FINAL_ERRORS = (InputError, EpisodeError, SkeletonError, VariantError, MissingDependencyError)
"""What trying again does not change."""


def no_preview(image: UInt8[np.ndarray, "h w 3"]) -> None:
    """A picture nobody looks at."""


@dataclass
class Loaded:
    """The backend in memory: at most one, because a model fills the card."""

    spec: BackendSpec | None = None
    instance: Any = None

    def get(self, spec: BackendSpec) -> Any:
        """The instance for a spec; another one that is loaded is closed first."""
        if self.spec != spec:
            self.close()
            self.instance, self.spec = create(spec), spec
        return self.instance

    def close(self) -> None:
        """Let go of the model."""
        if callable(close := getattr(self.instance, "close", None)):
            close()
        self.instance = self.spec = None


@dataclass(frozen=True)
class Context:
    """What surrounds a job."""

    job_id: str = ""
    content: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    tier: str = ""
    card: str = ""
    """UUID of the card that was chosen; empty: any."""
    margin_bytes: int | None = None
    """What a backend that plans for itself leaves free; None: its own default."""
    attempt: int = 1
    reuse: Path | None = None
    """Folder of a finished job with the same content: copied instead of computed."""


def execute(
    job: TakeJob | VariantJob,
    spec: BackendSpec,
    loaded: Loaded,
    context: Context = Context(),
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
    preview: Preview = no_preview,
) -> dict[str, Any]:
    """Make a take or a first frame in `job.output`; returns the sidecar's content.

    Raises what the backend raises (RetakeError for things to act on), Cancelled, OSError (disk full …). After an error
    the folder holds nothing new.
    """
    output, sidecar = job.output, job.output / RECORD[job.kind]
    started = time.monotonic()
    existed = output.is_dir()
    try:
        if (done := _existing_result(job, context)) is not None:
            return done
        remove_leftovers(output)
        if context.reuse is not None and _copy(context.reuse, job, context):
            return read_json(sidecar)
        backend = loaded.get(spec)
        load_s = time.monotonic() - started
        if context.card and callable(use_card := getattr(backend, "use_card", None)):
            use_card(context.card)
        if context.margin_bytes is not None and hasattr(backend, "margin_bytes"):
            backend.margin_bytes = context.margin_bytes
        if context.tier and callable(use_tier := getattr(backend, "use_tier", None)):
            use_tier(context.tier)
        if isinstance(job, VariantJob) and hasattr(backend, "progress"):
            backend.progress = progress  # denoising steps; `render` itself has no such argument
        watched = _Watched(backend, preview)
        extra = {"job": context.job_id, "content": context.content, "code": code_revision()}
        check_cancel()
        make = _make_take if isinstance(job, TakeJob) else _make_variant
        make(job, watched, extra, progress, check_cancel)
        record = {
            **read_json(sidecar),
            "run": {
                "tier": getattr(backend, "tier", "") or context.tier,
                "attempt": context.attempt,
                "load_s": round(load_s, 3),
                "total_s": round(time.monotonic() - started, 3),
                "settings": dict(job.request.settings),
                "options": dict(spec.options),
                **(dict(report) if isinstance(report := getattr(backend, "report", None), Mapping) else {}),
            },
        }
        write_json(sidecar, record)
        _sync_folder(output)
        return record
    finally:
        sweep(output, remove_empty=not existed)


def _existing_result(job: TakeJob | VariantJob, context: Context) -> dict[str, Any] | None:
    """The sidecar when the folder holds this very result. Raises TakeError when it holds another one."""
    sidecar = job.output / RECORD[job.kind]
    if not sidecar.exists():
        return None
    try:
        record = read_json(sidecar)
        made = content_of(record)
        pixels = job.output / PIXELS[job.kind]
        stated = record.get(PIXELS_SHA256[job.kind])
        whole = pixels.is_file() and sha256_file(pixels) == stated
    except (OSError, ValueError, AttributeError) as error:
        raise TakeError(
            f"{sidecar} is not readable JSON ({error}); move the folder away to have it made again"
        ) from error
    if context.content and made == context.content:
        if whole:
            return record
        sidecar.unlink()  # ours, and damaged: make it again
        return None
    if context.content and made is not None:
        raise TakeError(
            f"{job.output} holds a {job.kind} of another request (content {str(made)[:12]}…, asked {context.content[:12]}…); "
            "choose another folder or remove it"
        )
    if job.kind == "take" and made is None and whole:
        _require_same(record, job)
    return None  # made without the worker: its maker keeps it when its own input hashes agree


def content_of(record: Mapping[str, Any]) -> str | None:
    """The content hash a sidecar states, if the worker made it."""
    extra = record.get("extra")
    found = record.get("content") or (extra.get("content") if isinstance(extra, dict) else None)
    return found if isinstance(found, str) else None


def _require_same(record: Mapping[str, Any], job: Any) -> None:
    """A take made by hand is never replaced by another one. Raises TakeError."""
    request = job.request
    asked = {
        "seed": request.seed, "prompt": request.prompt, "camera": request.camera, "start": request.start,
        "settings": request.settings, "backend": job.backend,
    }  # fmt: skip
    for name, value in asked.items():
        if name in record and record[name] != value:
            raise TakeError(
                f"{job.output} holds another take ({name} {record[name]!r}, asked {value!r}); choose another folder or remove it"
            )


def _copy(source: Path, job: TakeJob | VariantJob, context: Context) -> bool:
    """Take over a finished result of the same content. False when it is not there any more."""
    name = RECORD[job.kind]
    pixels = PIXELS[job.kind]
    try:
        record = read_json(source / name)
        if content_of(record) != context.content:
            return False
        with atomic_path(job.output / pixels) as temporary:
            shutil.copyfile(source / pixels, temporary)
            if sha256_file(temporary) != record[PIXELS_SHA256[job.kind]]:
                raise ValueError(f"{source / pixels} is damaged")
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    record.update(id=name_of(job.output), copied_from=name_of(source))
    write_json(job.output / name, record)
    _sync_folder(job.output)
    return True


class _Watched:
    """A backend whose frames are shown while they are made. Everything else is the backend's own."""

    def __init__(self, backend: Any, preview: Preview) -> None:
        self._backend, self._preview = backend, preview
        self._own = hasattr(backend, "preview")
        if self._own:
            backend.preview = preview

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The backend's frames; one now and then also goes to the preview."""
        shown = -PREVIEW_EVERY_S
        for frame in self._backend.generate(request, progress, check_cancel):
            if not self._own and time.monotonic() - shown >= PREVIEW_EVERY_S:
                shown = time.monotonic()
                self._preview(frame)
            yield frame


def _make_take(job: Any, backend: Any, extra: dict[str, Any], progress: Progress, check_cancel: CheckCancel) -> None:
    from retake.core.takes import make_take

    make_take(job.request, backend, job.output, extra=extra, progress=progress, check_cancel=check_cancel)


def _make_variant(job: Any, backend: Any, extra: dict[str, Any], progress: Progress, check_cancel: CheckCancel) -> None:
    from retake.core.episode import open_episode
    from retake.core.variants.attempts import Attempts, Rules
    from retake.core.variants.base import source_for
    from retake.core.variants.gated import make_checked_variant

    request = job.request
    episode = open_episode(request.episode)
    if request.index >= len(episode):
        raise InputError(f"frame {request.index} of {request.episode}: the episode has {len(episode)} frames")
    progress(0, 1, "rendering")
    source = source_for(backend, episode, request.camera, request.index)
    attempts = Attempts(
        source, backend, request.seed, Rules(request.gate, request.rerolls),
        episode_sha256=episode.content_sha256, only_commercial=request.only_commercial, extra=extra,
    )  # fmt: skip
    make_checked_variant(attempts, _world(request.world), job.output, check_cancel)
    progress(1, 1, "")


def _world(data: dict[str, Any]) -> Any:
    """A World from its fields, or a preset by name alone."""
    from retake.core.variants import World, select_worlds

    if set(data) == {"name"}:
        return select_worlds((data["name"],), 0, 0)[0]
    fields = World.__dataclass_fields__
    if unknown := set(data) - set(fields):
        raise InputError(f"world: unknown field {sorted(unknown)[0]!r}; valid: {', '.join(fields)}")
    try:
        return World(**data)
    except TypeError as error:
        raise InputError(f"world: {error}; give all of {', '.join(fields)}, or a preset's name alone") from error


@cache
def code_revision() -> str:
    """Version of the installed code, with the commit where it is a checkout."""
    try:
        version = importlib.metadata.version("isaac-retake")
    except importlib.metadata.PackageNotFoundError:
        version = "uninstalled"
    git = Path(__file__).resolve().parents[4] / ".git"
    with contextlib.suppress(OSError):
        head = (git / "HEAD").read_text("utf-8").strip()
        if head.startswith("ref: "):
            head = (git / head[5:]).read_text("utf-8").strip()
        return f"{version}+{head[:12]}"
    return version


def _sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut (not every system lets folders be synced)."""
    for folder in (path, path.parent):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class LocalRunner:
    """The worker's jobs without a service: `LocalRunner().run(job)` in a script or test."""

    def __init__(self, backends: Mapping[str, BackendSpec] | None = None) -> None:
        from retake.worker.backends import registry

        self.backends = registry(load_settings().backend_specs() if backends is None else backends)
        self._loaded = Loaded()

    def run(
        self, job: TakeJob | VariantJob, progress: Progress = silent, check_cancel: CheckCancel = never,
        preview: Preview = no_preview,
    ) -> dict[str, Any]:  # fmt: skip
        """Make one job's result; returns the sidecar's content. Raises as `execute`."""
        from retake.worker.content import Hasher, content_hash

        spec, hasher = find(self.backends, job.backend, job.kind), Hasher()
        content = content_hash(job, spec, hasher)
        return execute(job, spec, self._loaded, Context("local", content), progress, check_cancel, preview)

    def close(self) -> None:
        """Let go of the loaded model."""
        self._loaded.close()


def describe(error: BaseException) -> tuple[str, bool]:
    """(reason in words, worth another try). Wrong input stays wrong; everything else may pass."""
    if isinstance(error, RetakeError):
        return str(error), not isinstance(error, FINAL_ERRORS)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}", True
    return f"{type(error).__name__}: {error}", True
