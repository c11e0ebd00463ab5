# SPDX-License-Identifier: Apache-2.0
"""How long is waited, how often is tried, and what an older Isaac Sim that lacks a function is taken for."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pxr import Sdf, Usd

from retake.core.capture import PairingError
from retake.core.errors import InputError, MissingDependencyError
from retake.isaac import (
    async_rendering,
    hooks,
    kit,
    selftest_items,
    settings_guard,
    stage_open,
    stepped,
    ticks,
    timeline,
)
from retake.isaac.async_rendering import PATHS, THROTTLING, AsyncRendering
from retake.isaac.autorun import Trajectory
from retake.isaac.clock import Held, StepKeys
from retake.isaac.request import CaptureRequest, CaptureStatus, Phase, check_writable
from retake.isaac.selftest_items import SelfTest


def modules(monkeypatch: pytest.MonkeyPatch, user: Any, **found: Any) -> None:
    """What a module of ours gets for the modules of Kit that it asks for (dots written as `__`)."""
    known = {name.replace("__", "."): module for name, module in found.items()}
    for name in ("optional", "require"):
        if hasattr(user, name):
            monkeypatch.setattr(user, name, known.get)


# -- asynchronous rendering --------------------------------------------------------------------------------------------


class Settings(dict):
    def set(self, path: str, value: Any) -> None:
        self[path] = value


@pytest.fixture
def carb(monkeypatch: pytest.MonkeyPatch) -> Settings:
    found = Settings(dict.fromkeys((THROTTLING, *PATHS), False))
    module = SimpleNamespace(get_settings=lambda: found)
    for user in (settings_guard, async_rendering):
        monkeypatch.setattr(user, "require", lambda name: module)
    return found


def held(*, playing: bool = False) -> AsyncRendering:
    rendering = AsyncRendering()
    rendering.remember(playing=playing)
    rendering.hold()
    return rendering


def test_rendering_that_was_never_asynchronous_is_ready_at_once(carb: Settings) -> None:
    rendering = held()
    assert rendering.ready
    rendering.restore(playing=False)
    assert not any(carb.values())


def test_three_updates_pass_after_it_was_switched_off_and_sixty_tries_are_made(carb: Settings) -> None:
    carb[PATHS[1]] = True
    rendering = held()
    for ready in (False, False, False, True, True):
        assert rendering.ready == ready
        rendering.update(recording=False)
    for _ in range(60):
        carb[PATHS[1]] = True
        rendering.update(recording=False)
        assert not carb[PATHS[1]]
    carb[PATHS[1]] = True
    with pytest.raises(InputError):
        rendering.update(recording=False)
    rendering.restore(playing=False)
    assert carb[PATHS[1]]


def test_a_second_recording_of_a_running_simulation_does_not_disturb_the_first(carb: Settings) -> None:
    carb[THROTTLING] = True
    first = held(playing=True)
    for _ in range(3):
        first.update(recording=False)
    second = AsyncRendering()
    second.remember(playing=True)
    assert not any(carb[path] for path in PATHS)
    second.hold()
    assert first.ready
    assert second.ready, "off for as long as the first has seen it off"
    first.restore(playing=True)
    second.restore(playing=True)
    assert not any(carb[path] for path in PATHS)


@pytest.mark.parametrize(("before", "after"), [((False, False), False), ((True, False), True), ((False, True), True)])
def test_where_throttling_works_it_is_on_afterwards_if_it_was_at_all(carb: Settings, before: Any, after: bool) -> None:
    carb.update({THROTTLING: True, **dict(zip(PATHS, before, strict=False))})
    rendering = held()
    rendering.restore(playing=False)
    assert carb[PATHS[0]] == carb[PATHS[1]] == after
    assert carb[THROTTLING]


# -- clocks and the timeline -------------------------------------------------------------------------------------------


def test_times_that_no_frame_has_lie_ten_microseconds_apart() -> None:
    keys = StepKeys()
    assert keys.key((7, 60), 1) == (7, 60)
    for number in (1, 2):
        assert Fraction(*keys.key((7, 60), 1 + number)) == Fraction(7, 60) + Fraction(10 * number, 10**6)
    assert Held().frame_key(3, 60) == (0, 1), "nothing was held yet"


def test_a_timeline_that_tells_little_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    plain = SimpleNamespace(is_playing=lambda: False, play=lambda: done.append("play"))
    monkeypatch.setattr(timeline, "interface", lambda: plain)
    end = timeline.TimelineEnd()
    end.close()
    assert (end.end_s, end.now_s, end.reached, end.warning(1e9)) == (float("inf"), 0.0, False, "")
    timeline.play()
    assert done == ["play"]
    looping = SimpleNamespace(is_looping=lambda: True, set_looping=done.append)
    monkeypatch.setattr(timeline, "interface", lambda: looping)
    timeline.TimelineEnd().close()
    assert done == ["play", False, True]


@pytest.mark.parametrize(
    ("fps", "codes", "said"),
    [
        (20.0, 30.0, "or record at 30 or 15 or 10 or 6 or 5 or 3 frames per second"),
        (2.0, 1.0, "makes 1 updates a second"),
        (1.0, 1.5, "makes 1.5 updates a second"),
        (0.5, 60.0, ""),
        (0.0, 60.0, ""),
        (15.0, 0.0, ""),
    ],
)
def test_updates_and_frames_at_their_limits(
    monkeypatch: pytest.MonkeyPatch, fps: float, codes: float, said: str
) -> None:
    stage = Usd.Stage.CreateInMemory()
    stage.DefinePrim("/Scene", "PhysicsScene").CreateAttribute(
        "physxScene:timeStepsPerSecond", Sdf.ValueTypeNames.UInt
    ).Set(60)
    stage.SetTimeCodesPerSecond(codes or 1.0)
    told = {"get_time_codes_per_seconds": lambda: codes}
    for answers in (told, {} if codes else told):  # else the stage's own
        monkeypatch.setattr(timeline, "interface", lambda answers=answers: SimpleNamespace(**answers))
        if said:
            with pytest.raises(InputError, match=said):
                timeline.check_steps(stage, fps, lambda name: True)
        else:
            timeline.check_steps(stage, fps, lambda name: True)


@pytest.mark.parametrize(
    ("frames", "history", "notes"),
    [(0, None, []), (31, 3, ["needs 3.0 s"]), (31, 2, ["needs 3.0 s", "HISTORY is 2"]), (0, "4", []), (0, 0, ["HISTORY is 0"])],
)  # fmt: skip
def test_what_is_too_little_for_exact_frames_is_noted(
    monkeypatch: pytest.MonkeyPatch, frames: int, history: Any, notes: list[str]
) -> None:
    made = object.__new__(hooks.Hooks)
    asked, held = [], []
    made.stage, made.notes = None, []
    made.settings = SimpleNamespace(get=lambda path: history, hold=lambda **needs: held.append(needs))  # type: ignore[assignment]
    made.rendering = SimpleNamespace(remember=lambda *, playing: asked.append(playing))  # type: ignore[assignment]
    monkeypatch.setattr(hooks, "_playing", lambda: True)
    monkeypatch.setattr(timeline, "check_steps", lambda stage, fps, get: asked.append(fps))
    monkeypatch.setattr(timeline, "TimelineEnd", lambda: SimpleNamespace(warning=lambda s: f"needs {s} s"))
    made.prepare_settings(CaptureRequest(output="x", fps=10.0, frames=frames, antialiasing="dlaa"), live=True)
    assert [note.replace(hooks.HISTORY, "HISTORY").split(";")[0] for note in made.notes] == notes
    assert asked == [10.0, True]
    assert held == [{"live": True, "antialiasing": "dlaa"}]


# -- hooks into the loop -----------------------------------------------------------------------------------------------


class Physics:
    """Whatever subscribes: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.left: list[Any] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.told.append((args, options))
        return SimpleNamespace(unsubscribe=lambda: self.left.append("unsubscribed"))

    def deregister_callback(self, uid: Any) -> None:
        self.left.append(uid)


def test_steps_are_heard_after_physics_by_the_surest_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    physics, steps = Physics(), []
    manager = SimpleNamespace(
        SimulationManager=SimpleNamespace(register_callback=physics, deregister_callback=physics.deregister_callback),
        SimulationEvent=SimpleNamespace(PHYSICS_POST_STEP="new"), IsaacEvents=SimpleNamespace(POST_PHYSICS_STEP="old"),
    )  # fmt: skip
    core = SimpleNamespace(
        get_physics_simulation_interface=lambda: SimpleNamespace(subscribe_physics_on_step_events=physics)
    )
    newer = {"subscribe_physics_on_step_events": physics, "subscribe_physics_step_events": None}
    physx = SimpleNamespace(get_physx_interface=lambda: SimpleNamespace(**newer))
    modules(monkeypatch, ticks, isaacsim__core__simulation_manager=manager, omni__physics__core=core, omni__physx=physx)
    held = [hook() for hook in ticks.post_step_hooks(steps.append)]
    assert [one.kind for one in held] == [
        "new", "old", "omni.physics.core on-step events (post)", "omni.physx step events",
    ]  # fmt: skip
    (a, b), options = physics.told[0]
    a(0.5, "context")
    a(0.25)
    assert steps == [0.5, 0.25]
    assert (b, options, physics.told[1][0][1]) == ("new", {"order": 1}, "old")
    engine = physics.told[2][1]
    assert (engine.pop("on_update"), engine) == (a, {"pre_step": False, "order": 1})
    assert physics.told[3] == ((a,), {"pre_step": False, "order": 1})
    for one in (*held, *held):
        one.release()
    assert len(physics.left) == 4, "each ends once"
    manager.SimulationManager.__module__ = "isaaclab.sim"
    assert [hook().kind for hook in ticks.post_step_hooks(steps.append)][:2] == ["old", "new"]


def test_older_ways_to_hear_steps_are_taken_where_there_is_no_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    physics = Physics()
    older = SimpleNamespace(subscribe_physics_step_events=physics)
    modules(
        monkeypatch, ticks, omni__physics__core=SimpleNamespace(),
        omni__physx=SimpleNamespace(get_physx_interface=lambda: older),
    )  # fmt: skip
    (hook,) = ticks.post_step_hooks(lambda dt: None)
    assert hook().kind == "omni.physx step events"
    assert physics.told[0][1] == {}
    modules(monkeypatch, ticks)
    with pytest.raises(MissingDependencyError, match="no hook after a physics step"):
        ticks.post_step_hooks(lambda dt: None)


def test_updates_are_heard_by_the_dispatcher_where_the_application_posts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    events = Physics()
    stream = SimpleNamespace(create_subscription_to_pop=events)
    app = SimpleNamespace(get_app=lambda: SimpleNamespace(get_post_update_event_stream=lambda: stream))
    dispatcher = SimpleNamespace(get_eventdispatcher=lambda: SimpleNamespace(observe_event=events))
    seen: list[int] = []
    for newer, with_dispatcher, kind in (
        (True, True, "eventdispatcher post-update"),
        (False, True, "post-update stream"),
        (True, False, "post-update stream"),
    ):
        posted = SimpleNamespace(**vars(app), **({"GLOBAL_EVENT_POST_UPDATE": "post"} if newer else {}))
        found = {"carb__eventdispatcher": dispatcher} if with_dispatcher else {}
        modules(monkeypatch, ticks, omni__kit__app=posted, **found)
        assert ticks.on_update(lambda: seen.append(1)).kind == kind
        args, options = events.told[-1]
        assert options["order"] == 1
        options.get("on_event", *args)("event")
    assert seen == [1, 1, 1]


def test_each_change_of_the_timeline_calls_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    events, seen = Physics(), []
    stream = SimpleNamespace(create_subscription_to_pop_by_type=events)
    found = SimpleNamespace(
        get_timeline_interface=lambda: SimpleNamespace(get_timeline_event_stream=lambda: stream),
        TimelineEventType=SimpleNamespace(PLAY=0, PAUSE=1, STOP=2),
    )
    modules(monkeypatch, ticks, omni__timeline=found)
    held = ticks.on_timeline(*(lambda name=name: seen.append(name) for name in ("play", "pause", "stop")))
    for args, options in events.told:
        args[1]("event")
        assert options["order"] == 1
    assert [args[0] for args, _ in events.told] == [0, 1, 2]
    assert seen == ["play", "pause", "stop"]
    assert [one.kind for one in held] == ["timeline PLAY", "timeline PAUSE", "timeline STOP"]


# -- opening a stage ---------------------------------------------------------------------------------------------------


class Application:
    """Counts updates; at each of them something may happen."""

    def __init__(self, **happens: Any) -> None:
        self.updates, self.stage, self.ready, self.loading, self.opened = 0, "empty", True, 0, []
        self.happens = happens

    async def next_update_async(self) -> None:
        self.updates += 1
        for name, values in self.happens.items():
            setattr(self, name, values.get(self.updates, getattr(self, name)))

    def open_stage(self, url: str) -> bool:
        self.opened.append(url)
        self.stage = f"opened {len(self.opened)}"
        return True


def application(monkeypatch: pytest.MonkeyPatch, *, plain: bool = False, to_come: bool = False, **happens: Any) -> Any:
    made = Application(**happens)
    app = {"next_update_async": made.next_update_async, "is_app_ready": lambda: made.ready}
    context = {
        "get_stage": lambda: made.stage, "open_stage": made.open_stage,
        "get_stage_loading_status": lambda: ("", 9, made.loading),
    }  # fmt: skip
    if plain:
        del app["is_app_ready"], context["get_stage_loading_status"]
    modules(
        monkeypatch, stage_open,
        omni__kit__app=SimpleNamespace(get_app=lambda: SimpleNamespace(**app)),
        omni__usd=SimpleNamespace(get_context=lambda: SimpleNamespace(**context)),
        carb__settings=SimpleNamespace(get_settings=lambda: {stage_open.CREATES_STAGE: to_come}),
    )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("options", "updates"),
    [
        ({}, 10), ({"plain": True}, 10), ({"stage": {4: "another"}}, 14), ({"ready": {1: False, 4: True}}, 13),
        ({"stage": {1: None, 5: "new"}, "to_come": True}, 15), ({"stage": {1: None}}, 11),
    ],
)  # fmt: skip
def test_an_application_is_ready_after_ten_calm_updates(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], updates: int
) -> None:
    made = application(monkeypatch, **options)
    asyncio.run(stage_open.application_ready())
    assert made.updates == updates


@pytest.mark.parametrize(
    ("options", "updates", "opened"),
    [
        ({}, 20, 1), ({"plain": True}, 20, 1), ({"loading": {11: 2, 14: 0}}, 23, 1), ({"stage": {12: "x"}}, 22, 2),
        ({"stage": {12: "x", 13: "y"}}, 23, 3),
    ],
)  # fmt: skip
def test_a_stage_is_open_when_it_has_stayed_for_ten_updates(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], updates: int, opened: int
) -> None:
    made = application(monkeypatch, **options)
    asyncio.run(stage_open.open_stage("omniverse://server/x.usd"))
    assert (made.updates, made.opened) == (updates, ["omniverse://server/x.usd"] * opened)


def test_a_stage_that_is_replaced_three_times_or_never_loads_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = application(monkeypatch, stage={11: "x", 12: "y", 13: "z"})
    with pytest.raises(InputError, match="was opened 3 times"):
        asyncio.run(stage_open.open_stage("a://b"))
    assert len(made.opened) == 3
    clock = iter(range(10**6))
    monkeypatch.setattr(stage_open.time, "monotonic", lambda: float(next(clock)))
    application(monkeypatch, loading={11: 7})
    with pytest.raises(InputError, match=r"not loaded within 30 s \(waiting for 7 files"):
        asyncio.run(stage_open.open_stage("a://b", 30.0))
    application(monkeypatch, ready={1: False})
    with pytest.raises(InputError, match="not ready within 30 s"):
        asyncio.run(stage_open.application_ready(30.0))
    with pytest.raises(InputError, match="does not exist"):
        asyncio.run(stage_open.open_stage(tmp_path / "none.usd"))
    made = application(monkeypatch)
    (tmp_path / "some.usd").write_text("")
    asyncio.run(stage_open.open_stage(tmp_path / "some.usd"))
    assert made.opened == [str(tmp_path / "some.usd")]


# -- stepped capture ---------------------------------------------------------------------------------------------------


def stepped_run(monkeypatch: pytest.MonkeyPatch, steps: dict[int, int]) -> int:
    """Updates until physics counts as standing still; `steps`: update -> steps made so far."""
    updates = 0
    capture = SimpleNamespace(
        status=SimpleNamespace(phase=Phase.WAITING),
        ready=True,
        steps=0,
        stride=1,
        stop=lambda reason: None,
        fail=lambda error: None,
    )

    async def update() -> None:
        nonlocal updates
        updates += 1
        capture.steps = steps.get(updates, capture.steps)

    modules(
        monkeypatch, stepped, omni__kit__app=SimpleNamespace(get_app=lambda: SimpleNamespace(next_update_async=update)),
        omni__replicator__core=SimpleNamespace(orchestrator=None),
    )  # fmt: skip
    monkeypatch.setattr(timeline, "play", lambda: None)
    with pytest.raises(PairingError, match="no physics step in 600 updates"):
        asyncio.run(stepped.drive_stepped(capture))  # type: ignore[arg-type]
    return updates


def test_physics_may_stand_still_for_six_hundred_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stepped_run(monkeypatch, {}) == 601
    assert stepped_run(monkeypatch, {1: -2, 400: -1}) == 400 + 601


# -- requests and trajectories -----------------------------------------------------------------------------------------


def test_what_a_recording_is_where_nothing_is_asked_for() -> None:
    request = CaptureRequest(output="x")
    assert (request.width, request.height, request.frames, request.rt_subframes) == (640, 480, 0, 1)
    assert (request.queue_frames, request.seed, request.undistort) == (8, 0, False)
    status = CaptureStatus(Phase.WAITING)
    counts = (status.frames, status.written, status.dropped, status.queued, status.bytes_written, status.lag_steps)
    assert counts == (0,) * 6


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    check_writable(tmp_path / "a")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_a_trajectory_is_followed_from_its_beginning_and_held_at_its_end() -> None:
    commands: list[Any] = []
    capture: Any = SimpleNamespace(elapsed_s=0.75, command=lambda *told: commands.append(told))
    path = Trajectory(["a", "b"], [0.5, 1.5, 2.5], [[0, 10], [1, 20], [3, 0]], capture)
    assert path.frames(10.0) == 21
    assert path.frames(2.4) == 6
    for time_s, target in ((0, (0, 10)), (0.5, (0.5, 15)), (1.5, (2, 10)), (2, (3, 0)), (9, (3, 0)), (-1, (0, 10))):
        assert np.allclose(path.target(time_s), target)
    path.command()
    assert commands[0][0] == ("a", "b")
    assert np.allclose(commands[0][1], (0.75, 17.5))
    assert commands[0][2] == "<Python>", "no file names its joints"


# -- self-test ---------------------------------------------------------------------------------------------------------


def selftest_application(monkeypatch: pytest.MonkeyPatch, made: Application) -> None:
    found = {
        "omni.kit.app": SimpleNamespace(get_app=lambda: made),
        "omni.usd": SimpleNamespace(get_context=lambda: SimpleNamespace(get_stage=lambda: made.stage)),
    }
    monkeypatch.setattr(kit, "require", found.get)


@pytest.mark.parametrize(("at", "same"), [(30, False), (31, True)])
def test_a_stage_that_is_opened_within_thirty_updates_is_noticed(
    monkeypatch: pytest.MonkeyPatch, at: int, same: bool
) -> None:
    selftest_application(monkeypatch, Application(stage={at: "another"}))
    good, text, _ = asyncio.run(SelfTest(Path("/nowhere"), None, 5).nobody_opens_a_stage())
    assert good == same
    assert text == ("the same stage after 30 updates" if same else "another stage was opened")


@pytest.mark.parametrize("mode", ["live", "stepped"])
@pytest.mark.parametrize(("ends", "looks"), [(0, 0), (7, 7), (10**6, 3000)])
def test_a_recording_of_the_self_test_is_looked_at_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, mode: str, ends: int, looks: int
) -> None:
    made, log = Application(), []
    selftest_application(monkeypatch, made)
    capture = SimpleNamespace(
        stepped=mode == "stepped", start=lambda: log.append("start"), close=lambda why: log.append(f"close: {why}"),
        episode="episode",
    )  # fmt: skip

    class Status:
        @property
        def active(self) -> bool:
            return made.updates < ends

    async def driven(found: Any) -> None:
        log.append("stepped")

    def probe(found: Any) -> Any:
        return SimpleNamespace(of=found, look=lambda: log.append("look"))

    requests: list[CaptureRequest] = []
    capture.status = Status()
    monkeypatch.setattr(selftest_items, "LiveCapture", lambda request: requests.append(request) or capture)
    monkeypatch.setattr(selftest_items, "Probe", probe)
    monkeypatch.setattr(selftest_items, "drive_stepped", driven)
    for change in ("play", "stop"):
        monkeypatch.setattr(timeline, change, lambda change=change: log.append(change))
    test = SelfTest(Path("/folder"), None, 5)
    assert asyncio.run(test._record(mode)) is capture
    begun = ["start", "stepped" if mode == "stepped" else "play"]
    ended = ["stop", *(["close: the recording did not end"] if ends == 10**6 else [])]
    assert log == [*begun, *["look"] * looks, *ended]
    assert made.updates == looks + 10
    assert (test.probe is not None) == (mode == "live")
    (request,) = requests
    assert (request.output, request.frames, request.mode) == (str(Path("/folder") / mode), 5, mode)


def test_the_first_frame_s_camera_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from retake.usd import camera

    def episode(first: float, second: float) -> Any:
        K, T = np.stack([np.eye(3) * first, np.eye(3) * second]), np.stack([np.eye(4) * first, np.eye(4) * second])
        header = SimpleNamespace(cameras=[SimpleNamespace(name="c", prim_path="/C", size=(4, 3))])
        return SimpleNamespace(episode=SimpleNamespace(header=header, camera_matrices=lambda name: (K, T)))

    test = SelfTest(Path("/nowhere"), None, 5)
    test.live, test.stepped = episode(1, 5), episode(1, 9)
    assert asyncio.run(test.same_camera())[0] is True
    test.stepped = episode(3, 1)
    good, _, value = asyncio.run(test.same_camera())
    assert (good, value) == (False, [2, 2])
    monkeypatch.setattr(camera, "camera_prim", lambda stage, path: (stage, path))
    monkeypatch.setattr(camera, "read_camera", lambda prim, size: SimpleNamespace(K=np.eye(3), prim=prim, size=size))
    selftest_application(monkeypatch, Application())
    test.live = episode(1.25, 9)
    assert asyncio.run(test.intrinsics()) == (True, "largest difference 0.250 px", 0.25)
    test.live = episode(2, 1)
    assert asyncio.run(test.intrinsics())[0] is False
