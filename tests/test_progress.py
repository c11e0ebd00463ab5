# SPDX-License-Identifier: Apache-2.0
"""What a long command shows of itself: how much is done, how long it took and takes, and how it is stopped."""

from __future__ import annotations

import io
import signal
import threading

import pytest

from retake.core.errors import Cancelled
from retake.core.progress import Bar, Stop, clock, signals_restored


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (7, "7 s"), (59.4, "59 s"), (59.6, "1:00 min"), (60, "1:00 min"), (185, "3:05 min"),
     (3599.4, "59:59 min"), (3600, "1:00 h"), (7800, "2:10 h"), (7859, "2:10 h"), (7860, "2:11 h"), (90_000, "25:00 h")],
)  # fmt: skip
def test_a_time_is_told_as_a_person_would(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def shown(stream: io.StringIO) -> str:
    """What a stream got since the last look."""
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text


def test_a_terminal_has_one_line_that_says_how_long_the_rest_takes() -> None:
    stream, time = Terminal(), Time()
    bar = Bar("Takes", stream, time)
    bar(0, 8)
    assert shown(stream) == "\r\x1b[2KTakes        ························ 0/8  0 s  "
    time.now += 10
    bar(2, 8, "kitchen")
    assert shown(stream) == "\r\x1b[2KTakes        ██████·················· 2/8  10 s, about 30 s left  kitchen"
    time.now += 0.09
    bar(3, 8)
    assert shown(stream) == "", "at most ten times a second"
    time.now += 0.011
    bar(3, 8)
    assert "3/8" in shown(stream)
    bar(8, 8)
    assert shown(stream) == "\r\x1b[2KTakes        ████████████████████████ 8/8  10 s  \n", "the end always"


def test_what_was_there_already_does_not_make_the_rest_look_fast() -> None:
    stream, time = Terminal(), Time()
    bar = Bar("x", stream, time)
    time.now += 2
    bar(90, 100)
    assert "left" not in shown(stream)
    time.now += 4
    bar(92, 100)
    assert "6 s, about 16 s left" in shown(stream)


def test_a_file_has_a_line_per_tenth() -> None:
    stream, time = io.StringIO(), Time()
    bar = Bar("Verdicts", stream, time)
    for done in range(31):
        bar(done, 30, "a" if done % 2 else "")
    lines = shown(stream).splitlines()
    assert [line.split()[1] for line in lines] == [f"{3 * k}/30" for k in range(11)]
    assert lines[0] == "Verdicts: 0/30 (0 s)"
    assert lines[1] == "Verdicts: 3/30 (0 s, about 0 s left) a"
    assert lines[-1] == "Verdicts: 30/30 (0 s)"
    Bar("Nothing", stream, time)(0, 0)
    assert shown(stream) == "Nothing: 0/0 (0 s)\n"


class Broken(io.StringIO):
    """A stream whose reader left."""

    asked = 0

    def write(self, text: str) -> int:
        self.asked += 1
        raise BrokenPipeError("gone")


def test_a_stream_that_is_gone_ends_the_display_and_not_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken()
    bar = Bar("x", stream)
    for done in range(11):
        bar(done, 10)
    assert stream.asked == 1
    closed = io.StringIO()
    closed.close()
    Bar("x", closed)(0, 1)
    monkeypatch.setattr("sys.stderr", None)
    Bar("x")(0, 1)
    flushed: list[int] = []
    stream = io.StringIO()
    stream.flush = lambda: flushed.append(1)  # type: ignore[method-assign]
    Bar("x", stream)(0, 1)
    assert flushed == [1], "seen at once"


def test_the_first_signal_asks_and_the_second_stops() -> None:
    with signals_restored():
        stop = Stop()
        stop.check()
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Cancelled, match="the same command goes on from here"):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_are_the_programs_own_again_after_a_command() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with signals_restored():
        Stop()
        assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]
    assert {number: signal.getsignal(number) for number in before} == before
    found: list[object] = []

    def elsewhere() -> None:
        with signals_restored():
            found.append(Stop().asked)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False], "another thread hears no signals, and needs none"
    assert {number: signal.getsignal(number) for number in before} == before
