# SPDX-License-Identifier: Apache-2.0
"""A loop that a script steps itself, part by part, over a recording and an application that a test plays. Of
retake.isaac.stepping."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.capture import PairingError
from retake.core.errors import InputError, StageError
from retake.isaac import stepping
from retake.isaac.request import CaptureStatus, Phase
from retake.isaac.stepping import PHYSICS, Recording, record


class Capture:
    """A recording that stands where a test puts it."""

    def __init__(self, phase: Phase = Phase.RECORDING, *, header: Any = "header", stepped: bool = False) -> None:
        self.phase, self.header, self.stepped, self.ready = phase, header, stepped, True
        self.counts, self.in_flight = SimpleNamespace(frames=1), 0
        self.steps, self.stride, self.time_s = 1, 4, 0.25
        self.request = SimpleNamespace(rt_subframes=3)
        self.story: list[Any] = []
        self.failure, self.episode = StageError("it failed"), "episode"

    @property
    def status(self) -> CaptureStatus:
        return CaptureStatus(self.phase)

    def close(self, reason: str) -> None:
        self.story.append(f"closed: {reason}")

    def hold(self, held: bool) -> None:
        self.story.append(held)


class Application:
    """Settings, updates and Replicator of one."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {PHYSICS: "before"}
        self.updates: list[Any] = []
        self.on_update: Any = lambda: None
        self.renders: list[dict[str, Any]] = []
        self.on_render: Any = lambda: None
        self.playing = True
        carb = SimpleNamespace(get=self.settings.get, set=self.settings.__setitem__)
        self.modules = {
            "carb.settings": SimpleNamespace(get_settings=lambda: carb),
            "omni.kit.app": SimpleNamespace(get_app=lambda: SimpleNamespace(update=self._update)),
            "omni.replicator.core": SimpleNamespace(orchestrator=SimpleNamespace(step=self._render)),
        }

    def _update(self) -> None:
        self.updates.append(self.settings[PHYSICS])
        self.on_update()

    def _render(self, **told: Any) -> None:
        self.renders.append(told)
        self.on_render()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Application:
    made = Application()
    monkeypatch.setattr(stepping.kit, "require", made.modules.__getitem__)
    monkeypatch.setattr(
        stepping.timeline, "interface", lambda: SimpleNamespace(is_playing=lambda: made.playing)
    )  # fmt: skip
    return made


def over(tmp_path: Path, capture: Any, monkeypatch: pytest.MonkeyPatch | None = None, world: Any = None) -> Recording:
    """A recording in mid-episode; with `monkeypatch` the next captures are counted and not started."""
    recording = Recording(world, tmp_path / "o", {})
    recording._capture = capture
    if monkeypatch is not None:
        recording.begun = 0  # type: ignore[attr-defined]

        def begin() -> None:
            recording.begun += 1  # type: ignore[attr-defined]
            recording._stopped = False

        monkeypatch.setattr(recording, "_begin", begin)
    return recording


@pytest.mark.parametrize(("phase", "frames", "in_flight", "renders"), [
    (Phase.RECORDING, 1, 0, 0), (Phase.RECORDING, 0, 0, 8), (Phase.RECORDING, 1, 2, 8), (Phase.WAITING, 0, 0, 0),
    (Phase.DONE, 0, 5, 0),
])  # fmt: skip
def test_frames_on_their_way_are_rendered_for_at_the_end(tmp_path, app, phase, frames, in_flight, renders):
    capture = Capture(phase)
    capture.counts.frames, capture.in_flight = frames, in_flight
    recording = over(tmp_path, capture)
    recording._end("enough")
    assert app.updates == [False] * renders, "physics stands still"
    assert app.settings[PHYSICS] == "before"
    assert capture.story == ["closed: enough"]
    assert (recording.episodes, recording._number, recording.capture) == (["episode"], 1, None)
    recording._end("again")
    assert capture.story == ["closed: enough"]


def test_the_last_frames_are_awaited_no_longer_than_they_take(tmp_path, app):
    capture = Capture()
    capture.in_flight = 3

    def arrives() -> None:
        capture.in_flight -= 1

    app.on_update = arrives
    over(tmp_path, capture)._end("enough")
    assert len(app.updates) == 3


@pytest.mark.parametrize(("header", "new", "kept"), [("header", True, True), (None, True, False), (None, False, True)])
def test_an_episode_that_never_began_leaves_neither_folder_nor_number(tmp_path, app, header, new, kept):
    recording = over(tmp_path, Capture(header=header))
    recording._new = new
    recording._folder.mkdir(parents=True)
    (recording._folder / "run.json").write_text("{}")
    recording._end("reset")
    assert (tmp_path / "o/000/run.json").exists() == kept
    assert (tmp_path / "o").exists() == kept, "nor the folder above it, when it is empty"
    assert (recording._number, recording.episodes) == ((1, ["episode"]) if header else (0, []))


def test_a_failed_episode_keeps_its_number_and_is_raised(tmp_path, app):
    recording = over(tmp_path, Capture(Phase.FAILED))
    with pytest.raises(StageError, match="it failed"):
        recording._end("reset")
    assert (recording._number, recording.episodes) == (1, [])


@pytest.mark.parametrize(("ready_after", "updates"), [(0, 0), (3, 3), (8, 8), (99, 9)])
def test_frames_of_before_leave_the_renderer_before_the_first_step(tmp_path, app, ready_after, updates):
    capture = Capture(Phase.WAITING)
    recording = over(tmp_path, capture)
    capture.ready = ready_after == 0
    app.on_update = lambda: setattr(capture, "ready", len(app.updates) >= ready_after)
    recording._settle(capture)  # type: ignore[arg-type]
    assert app.updates == [False] * updates


def test_physics_goes_on_whatever_an_update_raises(tmp_path, app):
    def fails() -> None:
        raise ValueError("no")

    app.on_update = fails
    with pytest.raises(ValueError, match="no"):
        over(tmp_path, Capture())._render_only()
    assert (app.updates, app.settings[PHYSICS]) == ([False], "before")


# -- stepped -----------------------------------------------------------------------------------------------------------


def test_a_render_that_fails_holds_no_state(tmp_path, app):
    """Else frames of the moving simulation would count as frames of that state."""
    capture = Capture(stepped=True)

    def fails() -> None:
        raise RuntimeError("the renderer's own")

    app.on_render = fails
    with pytest.raises(RuntimeError, match="renderer"):
        over(tmp_path, capture).frame()
    assert capture.story == [True, False]


def test_a_frame_is_rendered_of_every_held_state_on_the_grid(tmp_path, app):
    capture = Capture(stepped=True)
    recording, rendered = over(tmp_path, capture), []

    def arrives() -> None:
        assert capture.story[-1] is True, "the state is held while it is rendered"
        rendered.append(capture.steps)
        capture.counts.frames += 1

    app.on_render = arrives
    for capture.steps in range(1, 12):
        recording.frame()
    assert rendered == [1, 5, 9]
    assert capture.story == [True, False] * 3
    told = {"rt_subframes": 3, "pause_timeline": False, "delta_time": 0.0, "wait_for_render": True}
    assert app.renders == [told] * 3


def test_steps_over_the_grid_and_a_renderer_that_delivers_nothing_are_refused(tmp_path, app):
    capture = Capture(stepped=True)
    recording = over(tmp_path, capture)
    capture.steps = 3  # the first frame may be of any step
    app.on_render = lambda: setattr(capture.counts, "frames", capture.counts.frames + 1)
    recording.frame()
    capture.steps = 9
    with pytest.raises(PairingError, match=r"^6 physics steps between two calls, frames are due every 4"):
        recording.frame()
    capture.steps, app.on_render = 7, lambda: None
    with pytest.raises(PairingError, match=r"delivered no frame of the held state t=0\.250000 s"):
        recording.frame()
    assert capture.story[-1] is False
    app.on_render = lambda: setattr(capture, "phase", Phase.FINISHING)  # its last frame ended it
    recording.frame()


@pytest.mark.parametrize(("phase", "stepped"), [(Phase.WAITING, True), (Phase.RECORDING, False)])
def test_nothing_is_rendered_for_a_recording_that_waits_or_runs_live(tmp_path, app, phase, stepped):
    over(tmp_path, Capture(phase, stepped=stepped)).frame()
    assert app.renders == []


# -- between episodes --------------------------------------------------------------------------------------------------


def test_a_stop_ends_an_episode_and_play_begins_the_next(tmp_path, app, monkeypatch):
    capture = Capture(Phase.DONE)
    recording = over(tmp_path, capture, monkeypatch)
    recording.frame()
    recording.frame()
    assert (capture.story, recording.begun) == ([], 0), "as many frames as asked for: the next reset begins anew"
    app.playing = False
    recording.frame()
    recording.frame()
    assert (capture.story, recording.begun) == ([], 0), "it stands"
    app.playing = True
    recording.frame()
    assert (capture.story, recording.begun) == (["closed: stopped"], 1)
    recording.frame()
    assert recording.begun == 1, "once for each Play"


def test_what_stopped_a_recording_is_raised_by_the_next_step(tmp_path, app):
    for header in ("header", None):
        recording = over(tmp_path, Capture(Phase.FAILED, header=header))
        with pytest.raises(StageError, match="it failed"):
            recording.frame()
        assert recording.capture is None
        recording.frame()  # nothing is recorded until a reset


@pytest.mark.parametrize(("capture", "ends"), [
    (None, True), (Capture(Phase.WAITING, header=None), False), (Capture(Phase.RECORDING), True),
    (Capture(Phase.FAILED, header=None), True), (Capture(Phase.DONE), True),
])  # fmt: skip
def test_a_reset_begins_an_episode_unless_the_one_that_waits_has_not_begun(tmp_path, app, monkeypatch, capture, ends):
    recording, settled = over(tmp_path, capture, monkeypatch), []
    monkeypatch.setattr(recording, "_settle", settled.append)
    monkeypatch.setattr(recording, "_end", lambda reason: settled.append(reason))
    assert recording._reset_world(lambda *a, **k: (a, k), 1, soft=True) == ((1,), {"soft": True})
    assert recording.begun == int(ends)
    assert settled == (["reset"] if ends else [capture])


def test_a_script_s_own_error_counts_for_more_than_that_of_the_end(tmp_path, app):
    recording = over(tmp_path, Capture(Phase.FAILED))
    recording.__exit__(KeyError, KeyError("mine"), None)
    recording._capture = Capture(Phase.FAILED)  # type: ignore[assignment]
    with pytest.raises(StageError, match="it failed"):
        recording.__exit__(None, None, None)


# -- the world ---------------------------------------------------------------------------------------------------------


class World:
    """One that a script steps."""

    def __init__(self, dt_s: float = 1 / 60) -> None:
        self.dt_s, self.stepped = dt_s, 0

    def step(self, render: bool = True) -> str:
        self.stepped += 1
        return "stepped"

    def get_rendering_dt(self) -> float:
        return self.dt_s


def test_a_world_is_wrapped_while_it_is_recorded_and_the_script_s_afterwards(tmp_path, app, monkeypatch):
    world = World()
    recording, frames = over(tmp_path, None, world=world), []
    monkeypatch.setattr(recording, "frame", lambda: frames.append(world.stepped))
    recording._wrap("step", recording._step_world)
    recording._wrap("reset", recording._reset_world)  # it has none
    assert (world.step(render=False), frames) == ("stepped", [1]), "the frame is looked for after the step"
    assert list(recording._wrapped) == ["step"]
    recording._unwrap()
    assert "step" not in vars(world)
    world.step()
    assert frames == [1]
    world.step = own = lambda: "own"  # type: ignore[method-assign, assignment]
    recording._wrap("step", recording._step_world)
    kept = world.step
    assert world.step() == "own"  # type: ignore[comparison-overlap]
    recording._unwrap()
    assert world.step is own
    recording._wrap("step", recording._step_world)
    world.step = later = lambda: "of somebody who came later"  # type: ignore[method-assign, assignment]
    recording._unwrap()
    assert world.step is later
    frames.clear()
    assert kept() == "own"  # type: ignore[comparison-overlap]
    assert frames == [], "a wrapper that was kept only passes on"


@pytest.mark.parametrize(("dt_s", "settings", "mode"), [
    (0.0, {}, "stepped"), (0.0, {"mode": "live"}, "live"), (0.5, {}, None), (None, {}, None),
])  # fmt: skip
def test_renders_that_come_after_physics_are_recorded_stepped(tmp_path, app, monkeypatch, dt_s, settings, mode):
    asked: list[dict[str, Any]] = []
    started: list[str] = []
    request = SimpleNamespace(checked=lambda: "checked")
    monkeypatch.setattr(stepping, "request_from_settings", lambda **told: asked.append(told) or request)
    monkeypatch.setattr(stepping, "LiveCapture", lambda given: SimpleNamespace(start=lambda: started.append(given)))
    recording = Recording(None if dt_s is None else World(dt_s), tmp_path / "o", {"task": "t", **settings})
    recording._number = 12
    recording._started(recording._folder)
    assert (recording._folder, started) == (tmp_path / "o/012", ["checked"])
    (told,) = asked
    assert Path(told["output"]).relative_to(tmp_path / "o/012").parts[0] == "episode"
    assert (told["task"], told.get("mode")) == ("t", mode)
    assert (tmp_path / "o/012/run.json").is_file()


def test_what_is_recorded_is_named_by_paths_prims_and_objects(tmp_path, monkeypatch):
    class Prim:
        def GetPath(self) -> str:
            return "/Prim"

    sized = SimpleNamespace(prim_path="/Cam", get_resolution=lambda: (64.0, 48.0))
    unsized = SimpleNamespace(prim_paths=["/A", "/B"], get_resolution=lambda: None)
    monkeypatch.chdir(tmp_path)
    made = record(
        output="o", robots=["/R", Prim()], cameras=[sized, unsized, "/C@1x2"], objects=None, task="t", fps=None
    )
    assert made._output == tmp_path / "o"
    assert made._settings == {"robots": ("/R", "/Prim"), "cameras": ("/Cam@64x48", "/A", "/B", "/C@1x2"), "task": "t"}
    assert record(output="/x", robots=Prim())._settings == {"robots": ("/Prim",)}
    assert record(output="~/x")._output == Path.home() / "x"
    assert stepping.prim_paths(SimpleNamespace(prim_path=lambda: "/no", paths=("/yes",))) == ["/yes"]
    with pytest.raises(InputError, match="SimpleNamespace has no prim path"):
        record(output="/x", cameras=[SimpleNamespace()])
