# SPDX-License-Identifier: Apache-2.0
"""The two ends of the pipe to the executor, without one: what is sent, kept, ended and let go of. Of retake.worker.link and of
the ends that retake.worker.executor makes of its own process."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from retake.worker import executor, link
from retake.worker.link import ExecutorLink

MIB = 1 << 20


class Pipe(io.StringIO):
    """The executor's standard input: what arrived, and how often it was pushed through."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[str] = []

    def flush(self) -> None:
        self.arrived.append(self.getvalue())


class Process:
    """A process that says its lines and ends when it is waited for."""

    def __init__(self, *lines: str, story: list[str] | None = None) -> None:
        self.pid, self.stdin, self.stdout = os.getpid(), Pipe(), io.StringIO("".join(f"{line}\n" for line in lines))
        self.story, self.code = [] if story is None else story, None

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        self.story.append("waited")
        self.code = -9
        return -9

    def kill(self) -> None:
        self.story.append("killed")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a link whose process a test gives; the options it was started with are in `options`."""
    made = SimpleNamespace(process=Process(), options={}, told=[])

    def popen(command: list[str], **options: Any) -> Process:
        made.options = options
        options["stderr"].write(b"a word\n")
        return made.process

    monkeypatch.setattr(link.subprocess, "Popen", popen)

    def start(log: Path, *lines: str) -> ExecutorLink:
        made.process = Process(*lines)
        one = ExecutorLink(log, lambda who, message: made.told.append((message, who.how_it_ended())))
        one._reader.join(20)
        return one

    made.start = start
    return made


@pytest.mark.parametrize(("size", "kept"), [(0, True), (4 * MIB, True), (4 * MIB + 1, False)])
def test_a_log_of_more_than_four_mebibytes_is_begun_anew(tmp_path, started, size, kept):
    log = tmp_path / "state" / "logs" / "executor.log"
    one = started.start(log)  # makes the folders above it
    assert one.log_tail() == "a word"
    os.truncate(log, size)
    one = started.start(log)
    assert log.with_suffix(".old.log").exists() == (not kept)
    assert log.stat().st_size == len("a word\n") + (size if kept else 0)
    assert one.log_tail() == "a word", "of this process alone"
    noted = json.loads((tmp_path / "state" / "executor.json").read_text())
    assert noted["pid"] == os.getpid()


def test_a_process_has_ended_when_that_is_told_and_its_pipes_are_closed(tmp_path, started):
    one = started.start(tmp_path / "logs" / "log", '{"event": "up"}', "[1]", "{cut", '{"event": "done"}')
    assert started.told == [
        ({"event": "up"}, "still running"), ({"event": "done"}, "still running"), ({"event": "exit"}, "ended by SIGKILL"),
    ]  # fmt: skip
    assert started.process.stdin.closed
    assert started.process.stdout.closed
    assert one._reader.daemon, "a service that stops does not wait for it"
    one.send(op="run")  # to nobody
    assert started.options["env"]["PYTHONUTF8"] == started.options["env"]["PYTHONUNBUFFERED"] == "1"


def test_a_message_is_a_line_and_is_pushed_through_at_once(tmp_path, started):
    one = started.start(tmp_path / "logs" / "log")
    started.process.stdin = pipe = Pipe()
    one.send(op="run", text="zwei\nZeilen")
    one.send(op="cancel", job="j")
    assert [json.loads(line) for line in pipe.arrived[-1].splitlines()] == [
        {"op": "run", "text": "zwei\nZeilen"}, {"op": "cancel", "job": "j"},
    ]  # fmt: skip
    assert pipe.arrived[0].count("\n") == 1


def test_a_process_is_ended_with_everything_that_it_started(tmp_path, started, monkeypatch):
    one = started.start(tmp_path / "logs" / "log")
    story = started.process.story = []

    class Child:
        def __init__(self, name: str, *, gone: bool = False) -> None:
            self.name, self.gone = name, gone

        def kill(self) -> None:
            story.append(self.name)
            if self.gone:
                raise psutil.NoSuchProcess(1)

    def children(recursive: bool) -> list[Child]:
        assert recursive
        return [Child("child", gone=True), Child("its child")]

    class Reader:
        def join(self, timeout: float) -> None:
            story.append(f"heard out for at most {timeout:g} s")

    monkeypatch.setattr(link.psutil, "Process", lambda pid: SimpleNamespace(children=children))
    one._reader = Reader()  # type: ignore[assignment]
    one.kill()
    assert story == ["killed", "child", "its child", "waited", "heard out for at most 5 s"]

    def gone(pid: int) -> Any:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(link.psutil, "Process", gone)
    assert one.rss_bytes() == 0
    one.kill()


def test_the_last_twelve_thousand_bytes_are_told(tmp_path, started):
    log = tmp_path / "logs" / "log"
    one = started.start(log)
    log.write_text("a word\n" + "abc" * 5000)
    assert one.log_tail() == ("abc" * 5000)[-12_000:]
    one._log_start = 7 + 3 * 4990
    assert one.log_tail() == "abc" * 10


# -- the other end ----------------------------------------------------------------------------------------------------


class Ended(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(executor.os, "_exit", leave)


def test_an_executor_that_nobody_hears_ends(ends, tmp_path):
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    with pytest.raises(Ended, match=r"^3$"):
        executor.Executor(Closed(), io.StringIO()).send(event="ready")
    one = executor.Executor(io.StringIO(), io.StringIO('{"op": "cancel", "job": "a"}\n{"op": "run", "id": "b"}\n'))
    with pytest.raises(Ended, match=r"^0$"):  # the service closed the pipe: as asked
        one._read()
    assert one._cancelled == {"a"}
    assert one._inbox.get_nowait() == {"op": "run", "id": "b"}
    assert one._inbox.empty()


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux does at a parent's end")
@pytest.mark.parametrize("system", ["as it is", "without prctl"])
def test_the_system_is_asked_to_end_an_executor_with_its_parent(ends, monkeypatch, system):
    import ctypes

    asked: list[Any] = []
    known = SimpleNamespace(prctl=lambda *words: asked.append(words)) if system == "as it is" else SimpleNamespace()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: known)
    executor._die_with_parent(os.getppid())
    assert asked == ([(1, signal.SIGKILL)] if system == "as it is" else [])
    with pytest.raises(Ended, match=r"^3$"):  # it ended before it could be asked
        executor._die_with_parent(os.getppid() + 1)
