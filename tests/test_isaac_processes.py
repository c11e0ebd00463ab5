# SPDX-License-Identifier: Apache-2.0
"""Processes beside Kit: progress is read, cancelling works, Kit's environment stays out."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from retake.core.errors import InputError
from retake.isaac import processes

TALK = (
    "import os, time\n"
    "print('Takes: 3/10 bun', flush=True)\n"
    "print('hello', os.environ.get('PYTHONPATH'), os.environ.get('CARB_APP_PATH'), flush=True)\n"
    "time.sleep({0})\n"
)


def wait(process: processes.Process, seconds: float = 60.0) -> int:
    deadline = time.monotonic() + seconds
    while process.exit_code is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process._thread.join(10)
    assert process.exit_code is not None
    return process.exit_code


def test_progress_and_last_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/kit/python")
    monkeypatch.setenv("CARB_APP_PATH", "/kit")
    process = processes.Process([sys.executable, "-c", TALK.format(0)])
    assert wait(process) == 0
    assert process.advance == processes.Advance("Takes", 3, 10, "bun")
    assert process.last_words == "hello None None"


def test_cancelling_ends_it() -> None:
    process = processes.Process([sys.executable, "-c", TALK.format(600)])
    process.close(10)
    assert process.exit_code != 0


def test_no_python_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "repository", lambda: tmp_path)
    with pytest.raises(InputError, match="make sync-worker"):
        processes.find_python(worker=True)
    with pytest.raises(InputError, match="/nowhere/python"):
        processes.find_python("/nowhere/python")
    assert processes.find_python(sys.executable) == Path(sys.executable)


def test_the_command_is_the_command_line_s_own() -> None:
    command = processes.arrow_command(Path("py"), Path("runs/x"), ["cameras=[Camera]", "takes.seed=3"])
    assert command[1:] == [
        "-m",
        "retake.core.cli",
        "run",
        "--run",
        "runs/x",
        "--set",
        "cameras=[Camera]",
        "--set",
        "takes.seed=3",
    ]
