# SPDX-License-Identifier: Apache-2.0
"""Independent CPU jobs in several processes, with one progress display, cancellation, and no child that outlives us."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.spawn import get_executable
from typing import Any, TypeVar

from retake.core.errors import RetakeError
from retake.core.progress import CheckCancel, Progress, never, silent

Made = TypeVar("Made")

_swap = threading.Lock()


@contextlib.contextmanager
def _no_script() -> Iterator[None]:
    """For as long as a child is started, there is no script that it would run again.

    A spawned child first runs the parent's script, so that what is defined there can be unpickled. Jobs are functions of
    modules, and a user's script that calls us without `if __name__ == "__main__":` would begin its work once more.
    """
    with _swap:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # the name by which multiprocessing starts a process
        with _no_script():
            return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]


class _Context(SpawnContext):
    Process = _Process  # type: ignore[assignment]


def map_in_processes(
    function: Callable[..., Made],
    jobs: Sequence[tuple[Any, ...]],
    units: Sequence[int],
    *,
    workers: int = 0,
    what: str = "work",
    failure: type[RetakeError] = RetakeError,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> list[Made]:
    """`function(*job, progress=…)` for every job, in `workers` processes (0: one per core); results in the jobs' order.

    `units[k]` is how much of `progress` job k stands for; the function's own progress (0 … units[k]) is passed on.
    The function and its arguments must pickle, and live in modules: the caller's script is not run in the processes.
    The first error of a job is raised and the others are stopped; a process that dies without an error (out of memory)
    raises `failure`. Raises Cancelled. Where no process can be started the jobs are done here, one after the other.
    """
    if not _can_start():
        return _in_this_process(function, jobs, units, progress, check_cancel)
    # Spawned: a fork of a threaded parent can deadlock.
    context = _Context()
    counters = [context.Value("q", 0, lock=False) for _ in jobs]
    total, workers = sum(units), min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_enter, initargs=(counters,)) as pool:
        futures: list[Future[Made]] = [pool.submit(_one, function, job, k, units[k]) for k, job in enumerate(jobs)]
        try:
            left = set(futures)
            while left:
                done, left = wait(left, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress(min(sum(c.value for c in counters), total - bool(left)), total, "")
                check_cancel()
        except BaseException as error:
            # Before shutdown, which forgets them: a job under way would otherwise be waited for to its end.
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise failure(
                    f"a process of {what} ended without a word (out of memory?); the same command does what is missing"
                ) from error
            raise
    progress(total, total, "")
    return [future.result() for future in futures]


def _can_start() -> bool:
    """Daemonic processes (those of `multiprocessing.Pool`) may start none; an application that embeds Python may know no
    interpreter to start, or no arguments; a process is started in the working directory, which may be gone."""
    with contextlib.suppress(OSError):
        return (
            bool(os.getcwd() and get_executable())
            and hasattr(sys, "argv")
            and not multiprocessing.current_process().daemon
        )
    return False


def _in_this_process(
    function: Callable[..., Made],
    jobs: Sequence[tuple[Any, ...]],
    units: Sequence[int],
    progress: Progress,
    check_cancel: CheckCancel,
) -> list[Made]:
    made, total, before = [], sum(units), 0
    for job, unit in zip(jobs, units, strict=True):

        def count(done: int, of: int, note: str = "", before: int = before, unit: int = unit) -> None:
            check_cancel()
            progress(min(before + min(done, unit), total - 1), total, "")

        check_cancel()
        made.append(function(*job, progress=count))
        before += unit
    progress(total, total, "")
    return made


_counters: list[Any] = []


def _enter(counters: list[Any]) -> None:
    """In the child: leave Ctrl-C to the parent, which stops us, and end with it even when it is killed."""
    import signal
    from multiprocessing.connection import wait as wait_for

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait_for([sentinel]), os._exit(1)), daemon=True).start()
    cv2.setNumThreads(1)
    _counters[:] = counters


def _one(function: Callable[..., Made], job: tuple[Any, ...], index: int, units: int) -> Made:
    def count(done: int, total: int, note: str = "") -> None:
        _counters[index].value = min(done, units)

    made = function(*job, progress=count)
    _counters[index].value = units
    return made
