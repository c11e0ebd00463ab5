# SPDX-License-Identifier: Apache-2.0
"""Many takes: a CPU backend runs one process per core, a GPU backend one take after the other in this process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from retake.core import plugins
from retake.core.errors import TakeError
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.takes.base import Take, TakeRequest, VideoBackend
from retake.core.takes.make import kept_take, make_take

BACKENDS = {
    "composite": "retake.core.takes.composite:CompositeBackend",
    "oscar": "retake.worker.backends.oscar:OscarBackend",
}
EXTRAS = {"oscar": "oscar"}


def video_backend(name: str) -> VideoBackend:
    """The backend of that name. Raises InputError listing the valid names, MissingDependencyError naming the extra."""
    return plugins.pick("video backend", name, "retake.video_backends", BACKENDS, EXTRAS)()


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
    workers = min(kept.count(None), os.cpu_count() or 1) if getattr(maker, "parallel", False) else 1
    if workers > 1:
        return _in_processes(jobs, backend, extra, workers, total, progress, check_cancel)
    done, takes = 0, []
    for out, request in jobs:
        start = done

        def advance(frame: int, frames: int, note: str = "", start: int = start, name: str = out.name) -> None:
            progress(start + frame, total, note or name)

        takes.append(make_take(request, maker, out, extra=extra, progress=advance, check_cancel=check_cancel))
        done += request.frames
        progress(done, total, out.name)
    return takes


def _in_processes(
    jobs: Sequence[tuple[Path, TakeRequest]],
    backend: str,
    extra: dict[str, Any],
    workers: int,
    total: int,
    progress: Progress,
    check_cancel: CheckCancel,
) -> list[Take]:
    """The same in `workers` processes (spawned: a fork of a threaded parent can deadlock)."""
    context = multiprocessing.get_context("spawn")
    counters = [context.Value("q", 0, lock=False) for _ in jobs]
    with _pool(workers, context, counters) as pool:
        futures: list[Future[Take]] = [
            pool.submit(_one, backend, request, out, extra, k) for k, (out, request) in enumerate(jobs)
        ]
        try:
            left = set(futures)
            while left:
                done, left = wait(left, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress(min(sum(c.value for c in counters), total - bool(left)), total, "")
                check_cancel()
        except BaseException as error:
            # Before shutdown, which forgets them: a take under way would otherwise be waited for to its end.
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise TakeError(
                    "a process that made takes ended without a word (out of memory?); the same command makes what is missing"
                ) from error
            raise
    progress(total, total, "")
    return [future.result() for future in futures]


_counters: list[Any] = []


def _pool(workers: int, context: Any, counters: list[Any]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_enter, initargs=(counters,))


def _enter(counters: list[Any]) -> None:
    """In the child: leave Ctrl-C to the parent, which stops us, and end with it even when it is killed."""
    import signal
    import threading
    from multiprocessing.connection import wait as wait_for

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait_for([sentinel]), os._exit(1)), daemon=True).start()
    cv2.setNumThreads(1)
    _counters[:] = counters


def _one(backend: str, request: TakeRequest, out: Path, extra: dict[str, Any], index: int) -> Take:
    def count(frame: int, frames: int, note: str = "") -> None:
        _counters[index].value = min(frame, request.frames)

    take = make_take(request, video_backend(backend), out, extra=extra, progress=count)
    _counters[index].value = request.frames
    return take
