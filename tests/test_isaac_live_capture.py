# SPDX-License-Identifier: Apache-2.0
"""One recording from its start to its files: its parts by themselves, with what they hand to each other, and the whole of it in a
fake application. Of retake.isaac.live_capture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.kit import FakeKit
from isaac_support import check_exact, finished, motion, request

from retake.core.capture import PairingCounts
from retake.core.errors import InputError, StageError
from retake.core.joint_motion import RobotJoints
from retake.isaac import live_capture
from retake.isaac.clock import Held
from retake.isaac.live_capture import RUNNING, LiveCapture
from retake.isaac.request import CaptureRequest, Phase

# -- its parts ---------------------------------------------------------------------------------------------------------


def recording(tmp_path: Path, **changes: Any) -> LiveCapture:
    return LiveCapture(CaptureRequest(output=str(tmp_path / "e"), **changes))


def frames(*indices: int) -> list[Any]:
    return [SimpleNamespace(index=index) for index in indices]


class Pairer:
    """What is filed and offered; hands on what a test says."""

    def __init__(self) -> None:
        self.filed: list[Any] = []
        self.offered: list[Any] = []
        self.paused, self.waiting, self.counts = 0, 0, PairingCounts()
        self.paired: list[Any] = []

    def file(self, sample: Any) -> list[Any]:
        self.filed.append(sample)
        return self.paired

    def offer(self, key: Any, views: Any) -> list[Any]:
        self.offered.append((key, views))
        return self.paired

    def pause(self) -> None:
        self.paused += 1

    def finish(self) -> list[Any]:
        return frames(7, 8)


class Recorder:
    """What is written."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.waited_s = 0.25
        self.status = SimpleNamespace(
            submitted=5, written=4, queued=1, bytes_written=99, waited_s=0.25, error=""
        )  # fmt: skip

    def submit(self, frame: Any) -> None:
        self.submitted.append(frame.index)

    def finish(self, **told: Any) -> Any:
        self.told = told
        return [1, 2, 3]


class Clock:
    """Live: tells the time of a state itself, and a frame's key is its time in tenths."""

    name = "a clock"

    def __init__(self, now: float | None = 2.5) -> None:
        self._now = now

    def now(self) -> float | None:
        return self._now

    def state_key(self, time_s: float, step: int) -> tuple[int, int]:
        return (round(10 * time_s), 10)

    def frame_key(self, numerator: int, denominator: int) -> tuple[int, int]:
        return (10 * numerator // denominator, 10)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiveCapture:
    """A recording of two cameras in mid-run, all of whose neighbours are stand-ins."""
    capture = recording(tmp_path)
    capture._clock, capture._phase, capture._dt_s = Clock(), Phase.RECORDING, 0.5
    capture._pairer, capture._recorder = Pairer(), Recorder()  # type: ignore[assignment]
    told: list[str] = []
    capture.told = told  # type: ignore[attr-defined]
    contacts = SimpleNamespace(read=lambda: ("touching",))
    capture._hooks = SimpleNamespace(  # type: ignore[assignment]
        rendering=SimpleNamespace(ready=True), contacts=contacts, close=lambda: told.append("unhooked"), all_notes=["odd"],
        tensors=SimpleNamespace(read=lambda *touching: ("state", *touching), is_open=True, command=lambda *at: told.append(at)),
    )  # fmt: skip
    capture._conditions = SimpleNamespace(  # type: ignore[assignment]
        step=lambda: told.append("step"), frame=lambda: told.append("frame"), updates=3, hint=lambda fps: "",
        look=lambda **at: told.append(at) or "",
    )  # fmt: skip
    spec = SimpleNamespace(channels=("rgb",))
    capture._views = {"rp0": ("front", spec), "rp1": ("side", spec)}  # type: ignore[dict-item]
    monkeypatch.setattr(
        live_capture.payload, "raw_view", lambda entries, channels, product: (entries, channels, product)
    )
    monkeypatch.setattr(live_capture.STOPS, "updates", 8)
    return capture


def payload(at: int = 4, **products: Any) -> dict[str, Any]:
    return {"reference_time": (at, 1), "renderProducts": products}


@pytest.mark.parametrize(("now", "times"), [(2.5, [2.5, 2.5]), (None, [0.5, 1.0])])
def test_a_state_is_filed_under_the_time_that_the_clock_tells_or_that_steps_add_up_to(
    running: Any, now: float | None, times: list[float]
) -> None:
    running._clock = Clock(now)
    running._on_step(0.5)
    running._hooks.contacts = None
    running._on_step(0.5)
    first, second = running._pairer.filed
    assert (first.time_s, second.time_s) == tuple(times)
    assert (running.time_s, running.steps) == (times[1], 2)
    assert (first.step, second.step) == (1, 2)
    assert first.key == (round(10 * times[0]), 10)
    assert (first.payload, second.payload) == (("state", ("touching",)), ("state", ()))
    assert running.told == ["step", "step"]
    assert len(running.costs.steps) == 2


@pytest.mark.parametrize(("phase", "ready", "quiet", "filed"), [
    (Phase.RECORDING, True, True, 1), (Phase.RECORDING, False, True, 1), (Phase.WAITING, False, True, 0),
    (Phase.RECORDING, True, False, 0), (Phase.FINISHING, True, True, 0), (Phase.DONE, True, True, 0),
    (Phase.WAITING, True, True, 1),
])  # fmt: skip
def test_a_step_counts_once_frames_of_before_are_out_of_the_way(
    running: Any, monkeypatch: pytest.MonkeyPatch, phase: Phase, ready: bool, quiet: bool, filed: int
) -> None:
    running._phase, running._hooks.rendering.ready = phase, ready
    monkeypatch.setattr(live_capture.STOPS, "updates", 8 if quiet else 7)
    assert running.ready == (ready and quiet)
    running._on_step(0.5)
    assert (len(running._pairer.filed), running.steps, len(running.costs.steps)) == (filed,) * 3
    heard = phase in (Phase.WAITING, Phase.RECORDING)
    assert running.told == ["step"] * heard, "that it was announced is heard all the same"


def test_a_payload_becomes_the_views_of_the_cameras_that_are_recorded(running: Any) -> None:
    running._pairer.paired = frames(0, 1)
    running.deliver(payload(rp0={"rgb": 1}, other={"rgb": 2}, rp1={"rgb": 3}))
    ((key, views),) = running._pairer.offered
    assert key == (40, 10)
    assert views == {"front": ({"rgb": 1}, ("rgb",), "rp0"), "side": ({"rgb": 3}, ("rgb",), "rp1")}
    assert running._recorder.submitted == [0, 1]
    assert running.told == ["frame"]
    running._phase = Phase.FINISHING  # frames in flight are still taken
    running.deliver(payload())
    assert len(running._pairer.offered) == len(running.costs.frames) == 2
    running._error = StageError("x")
    running.deliver(payload())
    running._error, running._phase = None, Phase.DONE
    running.deliver(payload())
    assert len(running._pairer.offered) == 2
    running._phase = Phase.RECORDING
    running.deliver({"reference_time": (1, 1)})
    assert "expected 'renderProducts'" in str(running.failure)
    assert running._phase is Phase.FINISHING


def test_a_frame_of_a_held_state_is_taken_while_it_is_held_and_not_an_older_one(running: Any) -> None:
    running._clock = Held(Clock())
    assert running.stepped
    running._on_step(0.5)  # filed at 25 tenths by its witness
    running.deliver(payload(4))
    assert running._pairer.offered == [], "the simulation moves"
    running.hold(True)
    running.deliver(payload(2))
    assert (running.stale, running._pairer.offered, running.told) == (1, [], ["step"])
    running.deliver(payload(4))
    assert [key for key, _ in running._pairer.offered] == [(1, 1)]
    running.hold(False)
    running.deliver(payload(4))
    assert (len(running._pairer.offered), running.stale, len(running.costs.frames)) == (1, 1, 2)


def test_pause_and_stop_of_the_timeline_are_heard(running: Any) -> None:
    running._on_pause()
    assert running._pairer.paused == 1
    running._phase = Phase.WAITING
    running._on_stop()
    assert running._phase is Phase.WAITING, "nothing was recorded yet"
    running._phase = Phase.RECORDING
    running._on_stop()
    assert (running._phase, running.status.message) == (
        Phase.FINISHING,
        "the simulation was stopped; the episode ends here",
    )
    assert running._pairer.paused == 2


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RECORDING])
def test_an_update_looks_whether_all_is_as_it_must_be(running: Any, phase: Phase) -> None:
    running._phase = phase
    running._on_update()
    assert running.told == [{"recording": phase is Phase.RECORDING, "stepped": False, "ready": True}]
    running._conditions.look = lambda **at: "the timeline ended"
    running._pairer.waiting = 2
    running._on_update()
    assert (running._phase, running._ending, running._finisher) == (Phase.FINISHING, "the timeline ended", None)

    def gone(**at: bool) -> str:
        raise StageError("the camera was deleted")

    running._phase, running._ending, running._conditions.look = phase, "", gone
    running._on_update()
    assert str(running.failure) == "the camera was deleted"
    assert running._finisher is not None, "with an error nothing is awaited"
    running._finisher.join(20)
    assert running.status.phase is Phase.FAILED
    assert running.status.message == "the camera was deleted 3 complete frames are kept."


def test_at_its_end_everything_is_given_back_once_and_the_episode_told(running: Any) -> None:
    running._pairer.waiting = 2
    assert running.close("enough", 20.0) == [1, 2, 3]
    assert running.told == ["unhooked"]
    told = running._recorder.told
    assert running._recorder.submitted == [7, 8], "what was paired at the very end"
    assert (told["reason"], told["frames_in_flight_at_end"], told["clock"], told["callback_ms"]) == (
        "enough",
        2,
        "a clock",
        (0, 0),
    )
    assert running.close("again", 20.0) == [1, 2, 3]
    assert running.told == ["unhooked"]
    assert (running.status.phase, running.status.message, running.episode) == (Phase.DONE, "enough", [1, 2, 3])


def test_a_recording_that_recorded_nothing_says_so(tmp_path: Path) -> None:
    capture = recording(tmp_path)
    assert capture.close("closed", 20.0) is None
    with pytest.raises(StageError, match=r"e: nothing was recorded \(finished\)"):
        _ = capture.episode
    assert capture.status.phase is Phase.FAILED
    assert capture.status.message.endswith("nothing was recorded (finished)")


def test_its_standing_is_the_writer_s_and_the_pairing_s(running: Any) -> None:
    running._pairer.counts = SimpleNamespace(frames=3, lag_steps=6)
    running._pairer.waiting = 4
    robots = [SimpleNamespace(named_joints=RobotJoints(n, f"/{n}", (f"j{n}",), (f"/{n}/j",))) for n in ("A", "B")]
    running.content = SimpleNamespace(
        notes=("of the stage",), units=SimpleNamespace(metres_per_unit=0.01), robots=robots
    )
    status = running.status
    assert (status.frames, status.written, status.queued, status.bytes_written, status.waited_s) == (5, 4, 1, 99, 0.25)
    assert (status.lag_steps, running.in_flight, status.notes) == (6, 4, ("of the stage", "odd"))
    assert running.waits_for == "the next frame"
    running._pairer.counts.frames = 0
    assert running.waits_for == "the first frame"
    running._phase = Phase.FINISHING
    assert running.waits_for == "the episode's files"
    running.command(["jB"], [0.5])
    running.command(["/A/j", "B/jB"], [0.1, 0.2])
    with pytest.raises(InputError, match="unknown joint in <Python> 'a'; valid: A/jA, B/jB"):
        running.command(["a"], [0.5])
    running._hooks.tensors.is_open = False
    running.command(["jB"], [0.5])
    running.command(["a"], [0.5])
    commands = [([(1, 0)], [0.5], 0.01), ([(0, 0), (1, 0)], [0.1, 0.2], 0.01)]
    assert running.told == commands, "only while there is something to command"
    running.limit(9)
    assert running.request.frames == 9


# -- the whole of it ---------------------------------------------------------------------------------------------------


def test_a_recording_says_at_every_moment_where_it_stands(tmp_path: Path) -> None:
    source = motion()
    with FakeKit("6.x", source, lag=3) as kit:
        capture = LiveCapture(request(tmp_path / "e", fps=15), settings={"mine": 5})
        capture.start()
        assert capture in RUNNING
        assert (capture.status.phase, capture.status.message, capture.waits_for) == (
            Phase.WAITING,
            "press Play",
            "Play",
        )
        with pytest.raises(StageError, match="was started before"):
            capture.start()
        kit.update(5)
        assert (capture.steps, capture.stride, capture.status.phase) == (0, 0, Phase.WAITING)
        kit.play()
        assert capture.waits_for == "the first physics step"
        kit.update(1)
        assert (capture.steps, capture.stride, capture.status.message, capture.waits_for) == (
            1,
            4,
            "",
            "the first frame",
        )
        assert (capture.header.settings["mine"], capture.header.physics_dt_s) == (5, pytest.approx(1 / 60, rel=1e-12))
        kit.update(5)
        assert (capture.counts.frames, capture.waits_for, capture.in_flight > 0) == (1, "the next frame", True)
        kit.update(20)
        capture.stop("enough")
        assert (capture.status.phase, capture.status.message) == (Phase.FINISHING, "enough")
        episode = finished(capture, kit)
        assert check_exact(episode, source, 4)
        assert (capture.status.phase, capture.waits_for, capture.status.written) == (
            Phase.DONE,
            "nothing",
            len(episode),
        )
        assert capture.steps_per_update == {1}
        assert not capture.status.active
