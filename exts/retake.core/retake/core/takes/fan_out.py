# SPDX-License-Identifier: Apache-2.0
"""Many takes: a CPU backend runs one process per core where that pays, a GPU backend one take after the other here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retake.core import plugins
from retake.core.episode import open_episode
from retake.core.errors import MissingDependencyError, TakeError
from retake.core.processes import map_in_processes
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.takes.base import Take, TakeRequest, VideoBackend
from retake.core.takes.make import kept_take, make_take

BACKENDS = {
    "composite": "retake.core.painter.composite:CompositeBackend",
    "reproject": "retake.core.painter.reproject:ReprojectBackend",
    "oscar": "retake.worker.backends.oscar:OscarBackend",
    "cosmos-sim": "retake.worker.backends.cosmos_sim:CosmosSimBackend",
}
EXTRAS = {"oscar": "oscar", "cosmos-sim": "oscar"}
WORTH_PROCESSES_PX = 30 * 640 * 480
"""Pixels to make from which starting processes (a second) pays: thirty frames of 640x480 take two seconds."""


def video_backend_class(name: str) -> type[VideoBackend]:
    """The backend of that name, unmade: no model is loaded. Raises InputError listing the valid names,
    MissingDependencyError naming the extra."""
    return plugins.pick("video backend", name, "retake.video_backends", BACKENDS, EXTRAS)


def backend_obstacle(name: str) -> str:
    """Why a video backend cannot work on this machine, with the remedy; empty when nothing is known to be in the way."""
    try:
        obstacle = getattr(video_backend_class(name), "obstacle", None)
    except MissingDependencyError as error:
        return str(error)
    return str(obstacle()) if callable(obstacle) else ""


def video_backend(name: str) -> VideoBackend:
    """The backend of that name. Raises as `video_backend_class`, and what it raises while it loads its model."""
    return plugins.construct(video_backend_class(name), f"video backend {name!r}", EXTRAS.get(name, ""))


def produce_takes(
    jobs: Sequence[tuple[Path, TakeRequest]],
    backend: str,
    *,
    extra: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> list[Take]:
    """One take per (folder, request), in the order given; takes that are there already are not made again."""
    maker, extra = video_backend(backend), dict(extra or {})
    total = sum(request.frames for _, request in jobs)
    kept = [kept_take(request, maker, out, extra) for out, request in jobs]
    if all(kept):
        progress(total, total, "unchanged")
        return [take for take in kept if take is not None]
    missing = [request for (_, request), take in zip(jobs, kept, strict=True) if take is None]
    workers = min(len(missing), os.cpu_count() or 1) if getattr(maker, "parallel", False) else 1
    if workers > 1 and _worth_processes(missing):
        return map_in_processes(
            _one, [(backend, request, out, extra) for out, request in jobs], [request.frames for _, request in jobs],
            workers=workers, what="takes", failure=TakeError, progress=progress, check_cancel=check_cancel,
        )  # fmt: skip
    done, takes = 0, []
    for out, request in jobs:
        start = done

        def advance(frame: int, frames: int, note: str = "", start: int = start, name: str = out.name) -> None:
            progress(start + frame, total, note or name)

        takes.append(make_take(request, maker, out, extra=extra, progress=advance, check_cancel=check_cancel))
        done += request.frames
        progress(done, total, out.name)
    return takes


def _worth_processes(missing: list[TakeRequest]) -> bool:
    """Whether the takes that are missing are as many pixels; no further episode is opened once they are."""
    pixels = 0
    for request in missing:
        episode = open_episode(request.episode)
        width, height = episode.header.camera(request.camera).size
        pixels += (request.frames or len(episode)) * width * height
        if pixels >= WORTH_PROCESSES_PX:
            return True
    return False


def _one(backend: str, request: TakeRequest, out: Path, extra: dict[str, Any], progress: Progress) -> Take:
    return make_take(request, video_backend(backend), out, extra=extra, progress=progress)
