# SPDX-License-Identifier: Apache-2.0
"""A recording's own rules, each by itself: what it says before it begins, the length of a step, how many frames, when it is over,
and what it costs. Of retake.isaac.live_capture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_isaac_live_capture import frames, recording

from retake.core.capture import PairingError
from retake.core.errors import StageError
from retake.isaac import live_capture
from retake.isaac.request import Phase


def test_a_recording_that_was_not_started_says_nothing_of_itself(tmp_path: Path) -> None:
    capture = recording(tmp_path)
    status = capture.status
    counts = (status.frames, status.written, status.queued, status.bytes_written, status.lag_steps)
    assert (capture.steps, capture.stride, capture.stale, capture.in_flight, *counts) == (0,) * 9
    assert (status.phase, capture.time_s, status.waited_s, status.callback_ms) == (Phase.IDLE, 0.0, 0.0, (0.0, 0.0))
    assert (capture.notes, capture.hint, capture.steps_per_update, capture.header) == ([], "", set(), None)
    assert (capture.ready, capture.stepped, capture.waits_for) == (False, False, "nothing")
    assert str(capture.failure) == "the recording did not fail"
    assert capture._waited_ns() == 0
    capture._recorder = SimpleNamespace(waited_s=1.5)  # type: ignore[assignment]
    assert capture._waited_ns() == 1_500_000_000
    capture.command(["a"], [0.0])
    with pytest.raises(StageError, match="the recording is idle"):
        _ = capture.episode
    capture._on_step(0.1)
    capture.deliver({})
    assert (len(capture.costs.steps), len(capture.costs.frames)) == (0, 0)


@pytest.mark.parametrize(
    ("told", "taken"),
    [(np.float32(1 / 60), 1 / 60), (1.00001, 1.0), (1.001, 1.001), (3.0, 3.0), (1 / 240.001, 1 / 240)],
)
def test_the_length_of_a_step_is_that_of_a_whole_rate_where_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: float, taken: float
) -> None:
    capture, made = recording(tmp_path, seed=7, task="t"), {}
    for name in ("make_reader", "Recorder", "FramePairer"):
        monkeypatch.setattr(
            live_capture, name, lambda *args, name=name, **more: made.update({name: (args, more)}) or name
        )
    monkeypatch.setattr(live_capture, "stride_of", lambda fps, dt: (fps, dt))
    capture.content = SimpleNamespace(cameras=[SimpleNamespace(name="front")])  # type: ignore[assignment]
    capture._identity = "identity"  # type: ignore[assignment]
    reader = SimpleNamespace(open=lambda: made.update(opened=True), notes=["odd"], has_efforts=False)
    capture._hooks = SimpleNamespace(tensors=reader, notes=["first"])  # type: ignore[assignment]
    capture._begin(float(told))
    assert capture.stride == (15.0, pytest.approx(taken, rel=1e-12))
    assert made["make_reader"][1]["physics_dt_s"] == pytest.approx(taken, rel=1e-12)
    assert (made["make_reader"][1]["seed"], made["make_reader"][1]["efforts"]) == (7, False)
    assert made["FramePairer"][0][0] == ["front"]
    assert made["opened"]
    assert capture._hooks.notes == ["first", "odd"]
    assert capture._phase is Phase.RECORDING


@pytest.mark.parametrize(
    ("limit", "kept", "stops"), [(0, [0, 1, 2, 3, 4], 0), (3, [0, 1, 2], 1), (5, [0, 1, 2, 3, 4], 1), (1, [0], 1)]
)
def test_as_many_frames_are_recorded_as_were_asked_for(tmp_path: Path, limit: int, kept: list[int], stops: int) -> None:
    capture, submitted, stopped = recording(tmp_path, frames=limit), [], []
    status = SimpleNamespace(error="")
    finished = SimpleNamespace(
        status=status, submit=lambda frame: submitted.append(frame.index), finish=lambda **told: told
    )
    capture._recorder = finished  # type: ignore[assignment]
    capture.stop = stopped.append  # type: ignore[method-assign, assignment]
    capture._submit(frames(0, 1))
    capture._submit(frames(2, 3, 4))
    assert submitted == kept
    assert stopped == [f"{limit} frames recorded"] * stops
    submitted.clear()
    capture._complete(frames(0, 1, 2, 3, 4), "done", 2)
    assert submitted == kept
    assert capture._phase is Phase.DONE
    assert capture._episode["frames_in_flight_at_end"] == 2  # type: ignore[index]
    submitted.clear()
    status.error = "the disk is full"
    capture._complete(frames(0), "done", 0)
    assert submitted == []


@pytest.mark.parametrize(
    ("waiting", "error", "updates"), [(3, None, 8), (0, None, 1), (3, ValueError("x"), 1), (None, None, 8)]
)
def test_frames_in_flight_are_awaited_for_eight_updates(
    tmp_path: Path, waiting: int | None, error: Exception | None, updates: int
) -> None:
    capture, ended = recording(tmp_path), []
    paused: list[bool] = []
    capture._phase = Phase.RECORDING
    if waiting is not None:
        capture._pairer = SimpleNamespace(waiting=waiting, pause=lambda: paused.append(True))  # type: ignore[assignment]
    capture._error = error
    capture._finish = lambda: ended.append(True)  # type: ignore[method-assign]
    capture.stop("enough")
    capture.stop("again")
    assert (capture._phase, capture._ending, len(paused)) == (Phase.FINISHING, "enough", int(waiting is not None))
    made = 0
    while not ended:
        capture._on_update()
        made += 1
    assert made == updates


def test_the_first_error_counts_and_says_what_helps(tmp_path: Path) -> None:
    capture = recording(tmp_path)
    capture._conditions = SimpleNamespace(hint=lambda fps: f". Try {fps:g}")  # type: ignore[assignment]
    capture._fail(PairingError("no state"))
    capture._fail(ValueError("later"))
    assert str(capture.failure) == "no state. Try 15"
    assert capture._ending == "no state. Try 15"
    other = recording(tmp_path)
    other._fail(KeyError("x"))
    assert str(other.failure) == "KeyError: 'x'"
    assert isinstance(other.failure, StageError)
    assert other._phase is Phase.FINISHING


def test_a_callback_costs_its_time_without_that_of_a_full_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = recording(tmp_path)
    capture._hooks = SimpleNamespace(rendering=SimpleNamespace(ready=True))  # type: ignore[assignment]
    capture._conditions = SimpleNamespace(step=lambda: None, hint=lambda fps: "")  # type: ignore[assignment]
    capture._pairer = SimpleNamespace()  # type: ignore[assignment]
    clock, waited = iter([1000, 5000] * 2), iter([10, 510] * 2)
    monkeypatch.setattr(live_capture.time, "perf_counter_ns", lambda: next(clock))
    capture._waited_ns = lambda: next(waited)  # type: ignore[method-assign]
    capture._phase = Phase.WAITING
    capture._on_step(0.1)  # without a clock it fails, and that costs, too
    assert list(capture.costs.steps) == [3500]
    capture._error, capture._phase = None, Phase.RECORDING
    capture.deliver({})
    assert list(capture.costs.frames) == [3500]
