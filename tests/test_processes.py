# SPDX-License-Identifier: Apache-2.0
"""Jobs in several processes: results in order, one progress for all, the first error, and nothing left when stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

from retake.core import processes
from retake.core.errors import Cancelled, InputError, VerdictError
from retake.core.processes import map_in_processes
from retake.core.progress import Progress

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows removes no folder that a process is in")


def counted(number: int, folder: str, progress: Progress) -> int:
    """Tells of more than it stands for, and is slower the earlier it is."""
    for k in range(6):
        progress(k, 6, "")
    time.sleep(0.3 / (number + 1))
    return 10 * number


def failing(number: int, folder: str, progress: Progress) -> int:
    if number == 0:
        raise InputError("the first is wrong")
    (Path(folder) / str(number)).write_text("")
    time.sleep(60)
    return 0


def dying(number: int, folder: str, progress: Progress) -> int:
    os._exit(9)


def test_results_come_in_the_order_of_the_jobs_and_progress_adds_up() -> None:
    steps: list[tuple[int, int, str]] = []
    jobs, units = [(k, "") for k in range(3)], [4, 2, 3]
    found = map_in_processes(counted, jobs, units, workers=2, progress=lambda *step: steps.append(step))
    assert found == [0, 10, 20]
    done = [step[0] for step in steps]
    assert done == sorted(done)
    assert {step[1] for step in steps} == {9}
    assert steps[-1] == (9, 9, "")
    assert all(d < 9 for d in done[:-2]), "the end is told at the end"


def test_of_no_jobs_nothing_comes() -> None:
    assert map_in_processes(counted, [], []) == []


def test_the_first_error_stops_the_others(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match="the first is wrong"):
        map_in_processes(failing, [(k, str(tmp_path)) for k in range(4)], [1] * 4, workers=1)
    assert time.monotonic() - began < 50
    assert not (tmp_path / "3").exists()


def test_a_process_that_dies_is_told_in_the_callers_words() -> None:
    with pytest.raises(VerdictError, match="a process of verdicts ended without a word"):
        map_in_processes(dying, [(0, "")], [1], what="verdicts", failure=VerdictError)


def test_who_asks_to_stop_is_not_kept_waiting(tmp_path: Path) -> None:
    def stop() -> None:
        if any(tmp_path.iterdir()):
            raise Cancelled("stop")

    began = time.monotonic()
    with pytest.raises(Cancelled):
        map_in_processes(failing, [(1, str(tmp_path))], [1], check_cancel=stop)
    assert time.monotonic() - began < 50


SCRIPT = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_processes import counted
from retake.core.processes import map_in_processes

with Path("ran").open("a") as file:
    file.write("once\\n")
print(map_in_processes(counted, [(0, ""), (1, "")], [1, 1], workers=2))
"""


def test_a_users_script_is_run_once_though_it_guards_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 10]\n"), done.stderr
    assert (tmp_path / "ran").read_text() == "once\n"


def test_the_script_is_there_again_after_its_processes(tmp_path: Path) -> None:
    script = sys.modules["__main__"]
    with pytest.raises(InputError):
        map_in_processes(failing, [(0, str(tmp_path))], [1], workers=1)
    assert sys.modules["__main__"] is script


def gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is removed."""
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()


def daemonic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of a pool."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]


def embedded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application without an interpreter."""
    monkeypatch.setattr("multiprocessing.spawn._python_exe", None)


def unargued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that gave its interpreter no arguments."""
    monkeypatch.delattr(sys, "argv")


@pytest.mark.parametrize("hinder", [daemonic, embedded, unargued, pytest.param(gone, marks=POSIX)])
def test_where_no_process_can_be_started_the_jobs_are_done_tell_and_stop_all_the_same(
    hinder: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hinder(tmp_path, monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    test_results_come_in_the_order_of_the_jobs_and_progress_adds_up()
    test_of_no_jobs_nothing_comes()

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        map_in_processes(counted, [(1, "")], [1], check_cancel=stop)


def surroundings(number: int, folder: str, progress: Progress) -> tuple[int, bool, int]:
    time.sleep(0.2)
    return cv2.getNumThreads(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN, os.getpid()


def test_each_process_is_one_thread_of_opencv_and_leaves_ctrl_c_to_its_parent() -> None:
    """As many processes share the cores; who presses Ctrl-C stops all of them through the one that waits."""
    found = map_in_processes(surroundings, [(0, ""), (1, "")], [1, 1], workers=2)
    assert {(threads, ignored) for threads, ignored, _ in found} == {(1, True)}
    assert len({pid for *_, pid in found} - {os.getpid()}) == 2


def test_jobs_that_are_done_here_tell_the_same_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job counts for no more than its units, and the whole is told once, at the end."""
    daemonic(tmp_path, monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    steps: list[tuple[int, int, str]] = []
    asked: list[int] = []
    map_in_processes(
        counted, [(k, "") for k in range(3)], [4, 2, 3],
        progress=lambda *step: steps.append(step), check_cancel=lambda: asked.append(1),
    )  # fmt: skip
    assert [step[0] for step in steps] == [0, 1, 2, 3, 4, 4, 4, 5, 6, 6, 6, 6, 6, 7, 8, 8, 8, 8, 9]
    assert len(asked) == 3 + 18
    with pytest.raises(ValueError, match="shorter"):
        map_in_processes(counted, [(0, ""), (1, "")], [1])


def test_a_job_counts_its_units_and_all_of_them_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = [SimpleNamespace(value=0) for _ in range(2)]
    monkeypatch.setattr(processes, "_counters", counters)
    seen: list[int] = []

    def job(number: int, progress: Progress) -> int:
        for k in (0, 2, 7):
            progress(k, 9, "")
            seen.append(counters[1].value)
        progress(1, 9, "")
        return number + 1

    assert processes._one(job, (4,), 1, 5) == 5
    assert seen == [0, 2, 5]
    assert [counter.value for counter in counters] == [0, 5]
