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
from retake.isaac.live_capture import RUNNING
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
    with pytest.raises(StageError, match="start the recording first"):
        capture.find_joints(["a"])
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


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `start` did, in its order; a stage, hooks and their parts that do nothing."""
    done: list[str] = []

    def does(name: str, value: object = None) -> object:
        return lambda *given, **named: done.append(name) or value

    camera = SimpleNamespace(name="front", channels=("rgb",))
    hooks = SimpleNamespace(
        prepare_settings=does("settings"), prepare_pictures=does("pictures", {"a": 1, "b": 1}), open_contacts=does("contacts"),
        products=SimpleNamespace(create=does("create"), adopt=does("adopt"), camera_of={"view": "front"}), close=does("unhook"),
        attach=does("attach"), rendering=SimpleNamespace(hold=does("hold")), subscribe=does("subscribe"),
    )  # fmt: skip
    stage = SimpleNamespace(get_context=lambda: SimpleNamespace(get_stage=lambda: "stage"))
    monkeypatch.setattr(live_capture.kit, "require", lambda name: stage)
    monkeypatch.setattr(live_capture.kit, "versions", lambda: {"isaac_sim": "", "app": "6.0"})
    monkeypatch.setattr(live_capture, "check_writable", lambda folder: done.append(f"writable {folder.name}"))
    monkeypatch.setattr(live_capture, "camera_choices", does("choose"))
    monkeypatch.setattr(live_capture, "read_content", does("read", SimpleNamespace(cameras=[camera])))
    monkeypatch.setattr(live_capture, "StageIdentity", SimpleNamespace(of=does("identity")))
    monkeypatch.setattr(live_capture, "Hooks", lambda stage, content: hooks)
    monkeypatch.setattr(live_capture, "Conditions", does("conditions"))
    monkeypatch.setattr(live_capture, "choose_clock", does("clock", "a clock"))
    monkeypatch.setattr(live_capture, "STOPS", SimpleNamespace(install=does("stops"), quiet=True))
    monkeypatch.setattr(live_capture, "delivering", does("delivering"))
    return done


BEGINNING = ["identity", "clock", "stops", "conditions", "settings", "pictures", "contacts"]


@pytest.mark.parametrize(
    ("products", "made"), [(None, ["create", "delivering", "attach"]), (["p"], ["adopt", "script's"])]
)
def test_everything_is_hooked_in_order_and_rendering_held_before_a_step_is_heard(
    tmp_path, told, products, made
) -> None:
    capture = recording(tmp_path)
    capture._header_settings = {"b": 2}
    capture.start(products, lambda: told.append("script's"))
    chosen = [] if products is None else ["choose"]
    assert told == ["writable e", *chosen, "read", *BEGINNING, *made, "hold", "subscribe"]
    assert (capture._phase, capture._message, capture._version) == (Phase.WAITING, "press Play", "6.0")
    assert capture._header_settings == {"a": 1, "b": 2}, "what a script says of itself stands"
    assert {key: (name, spec.name) for key, (name, spec) in capture._views.items()} == {"view": ("front", "front")}
    assert capture in RUNNING
    RUNNING.discard(capture)
    with pytest.raises(StageError, match="was started before"):
        capture.start()


def test_a_start_that_fails_leaves_nothing_hooked_and_can_be_tried_again(tmp_path, told) -> None:
    capture = recording(tmp_path)

    def broken() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture.start(["p"], broken)
    assert told[-2:] == ["adopt", "unhook"]
    assert (capture._hooks, capture._phase, capture in RUNNING) == (None, Phase.IDLE, False)
    capture.start(["p"])
    assert told[-3:] == ["adopt", "hold", "subscribe"]
    RUNNING.discard(capture)
