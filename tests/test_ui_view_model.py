# SPDX-License-Identifier: Apache-2.0
"""The panel's view-model: every phase, every transition, every failure, without a widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.config import load_config
from retake.core.errors import InputError, StageError
from retake.isaac.request import CaptureRequest, CaptureStatus
from retake.isaac.request import Phase as Capture
from retake.ui.layout import build_layout
from retake.ui.ports import SceneContent
from retake.ui.state import ACTIONS, FORMATS, NEXT, Choice, ExportRow, Level, PanelState, Phase, TakeRow, WorkerRow
from retake.ui.view_model import ViewModel

FULL = SceneContent(
    (Choice("/World/Panda", "Panda", True),), (Choice("/World/Camera", "Camera", True), Choice("/World/Wrist", "Wrist")),
    (Choice("/World/Packet", "Packet", True),),
)  # fmt: skip


class World:
    """Scene, starter, worker and picture in one scripted object."""

    def __init__(self) -> None:
        self.content = FULL
        self.requests: list[CaptureRequest] = []
        self.generated: list[tuple[Path, list[str]]] = []
        self.opened: list[Path] = []
        self.status = CaptureStatus(Capture.WAITING, "press Play")
        self.stopped: list[str] = []
        self.progress = ("", 0, 0, "")
        self.code: int | None = None
        self.cancelled = 0
        self.rows: tuple[TakeRow, ...] = ()
        self.exported: list[tuple[Path, Path, ExportRow]] = []
        self.worker_row = WorkerRow()
        self.calls: list[str] = []
        self.refuse: Exception | None = None
        self.newest: Any = None
        self.paused = False
        self.chosen_prims: tuple[str, ...] = ()
        self.looked: list[bool] = []

    def look(self, again: bool = False) -> SceneContent:
        self.looked.append(again)
        return self.content

    def selected(self) -> tuple[str, ...]:
        return self.chosen_prims

    def declare(self, robots: Sequence[str], elsewhere: Path) -> tuple[Path, bool]:
        self.calls.append(f"declare {','.join(robots)}")
        return Path("/stages/cell.robot.yaml"), True

    def open_demo(self) -> None:
        self.calls.append("demo")

    def self_test(self, out: Path, told: Any) -> None:
        self.calls.append(f"self-test to {out.name}")
        told("PASS  something: measured")

    def record(self, request: CaptureRequest) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.requests.append(request)
        world = self

        class Recording:
            @property
            def status(self) -> CaptureStatus:
                return world.status

            @property
            def paused(self) -> bool:
                return world.paused

            def pause(self) -> None:
                if world.refuse is not None:
                    raise world.refuse
                world.paused = True

            def resume(self) -> None:
                world.paused = False

            def stop(self, reason: str) -> None:
                world.stopped.append(reason)

        return Recording()

    def generate(self, run: Path, settings: Sequence[str]) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.generated.append((run, list(settings)))
        self.code = None
        return SimpleNamespace(
            advance=lambda: self.progress, exit_code=lambda: self.code, last_words=lambda: "boom", cancel=self._cancel
        )

    def export(self, run: Path, out: Path, wanted: ExportRow) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.exported.append((run, out, wanted))
        self.code, self.progress = None, ("", 0, 0, "")
        return SimpleNamespace(
            advance=lambda: self.progress,
            exit_code=lambda: self.code,
            last_words=lambda: "retake: /d holds a dataset already; --append adds to it",
            cancel=self._cancel,
        )

    def _cancel(self) -> None:
        self.cancelled += 1

    def takes(self, run: Path) -> tuple[TakeRow, ...]:
        return self.rows

    def open_path(self, path: Path) -> None:
        self.opened.append(path)

    def pick_folder(self, start: Path, picked: Any) -> None:
        self.opened.append(start)
        picked("/data/tonight")

    def row(self) -> WorkerRow:
        return self.worker_row

    def start(self) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def free(self) -> None:
        self.calls.append("free")


def model(
    tmp_path: Path, world: World | None = None, settings: CaptureRequest | None = None
) -> tuple[ViewModel, World, list[Any]]:
    world, told = world or World(), []
    worlds = (Choice("bun_warehouse", "bun warehouse", True), Choice("x", "x"))
    vm = ViewModel(
        world, world, world, picture=world, notify=told.append, runs=tmp_path, worlds=worlds, settings=settings
    )
    return vm, world, told


def recorded(tmp_path: Path) -> tuple[ViewModel, World, list[Any]]:
    vm, world, told = model(tmp_path)
    vm.act("record")
    world.status = CaptureStatus(Capture.DONE, "ok", written=81)
    vm.tick()
    assert vm.state.phase is Phase.RECORDED
    return vm, world, told


def test_the_way_from_a_stage_to_takes(tmp_path: Path) -> None:
    vm, world, told = model(tmp_path)
    assert vm.state.phase is Phase.READY
    vm.set("task", "pick it up")
    vm.set("seconds", 4)
    vm.act("record")
    assert vm.state.phase is Phase.ARMED
    assert world.requests[0] == CaptureRequest(
        output=str(Path(vm.state.folder) / "episode"), robots=("/World/Panda",), cameras=("/World/Camera",),
        objects=("/World/Packet",), task="pick it up", fps=15.0, frames=60, mode="auto",
    )  # fmt: skip
    world.status = CaptureStatus(Capture.RECORDING, written=3, queued=1, bytes_written=12_000_000)
    world.newest = SimpleNamespace(index=2, rgba=np.zeros((10, 20, 4), np.uint8), misfit_px=1.0)
    vm.tick()
    assert (vm.state.phase, vm.state.frames, vm.state.queued, vm.state.dropped, vm.state.picture) == (
        Phase.RECORDING,
        3,
        1,
        0,
        2,
    )
    assert "GB free" in vm.state.disk
    assert not vm.state.suspicious
    vm.act("stop")
    assert vm.state.phase is Phase.SAVING
    assert world.stopped == ["stopped in the panel"]
    world.status = CaptureStatus(Capture.DONE, "stopped in the panel", written=60)
    vm.tick()
    assert vm.state.phase is Phase.RECORDED
    vm.set("count", 2)
    vm.set("seed", 7)
    vm.act("generate")
    assert vm.state.phase is Phase.GENERATING
    run, settings = world.generated[0]
    assert run == Path(vm.state.folder)
    assert "cameras=[]" in settings
    assert "variants.presets=[bun_warehouse]" in settings
    assert "takes.seed=7" in settings
    assert "variants.prompts=[]" in settings
    assert "variants.backend=procedural" in settings
    world.progress, world.rows = ("Takes", 30, 120, "bun"), (TakeRow("bun", "running"),)
    vm.tick()
    assert vm.state.share == 0.25
    assert vm.state.takes == (TakeRow("bun", "running", 0.25),)
    world.code = 0
    vm.tick()
    assert vm.state.phase is Phase.GENERATED
    vm.act("open_report")
    assert world.opened == [run / "report.html"]
    assert [n.level for n in told] == [Level.INFO, Level.INFO]


def test_no_stage_says_what_is_missing_and_a_stage_that_appears_is_found(tmp_path: Path) -> None:
    world = World()
    world.content = SceneContent(problem="no articulation on this stage")
    vm, _, _ = model(tmp_path, world)
    assert vm.state.phase is Phase.EMPTY
    assert vm.state.message == "no articulation on this stage"
    assert not vm.state.can("record")
    world.content = FULL
    vm.tick()
    assert vm.state.phase is Phase.READY


def test_what_was_chosen_stays_chosen_when_the_stage_is_read_again(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    vm.choose("cameras", "/World/Camera", False)
    vm.choose("cameras", "/World/Wrist")
    world.content = replace(FULL, robots=(*FULL.robots, Choice("/World/Other", "Other", True)))
    vm.refresh()
    assert [c.name for c in vm.state.cameras if c.chosen] == ["Wrist"]
    assert [c.name for c in vm.state.robots if c.chosen] == ["Panda"]


def test_without_a_camera_or_robot_record_does_nothing(tmp_path: Path) -> None:
    vm, world, told = model(tmp_path)
    for kind, key in (("cameras", "/World/Camera"), ("robots", "/World/Panda")):
        vm.choose(kind, key, False)
        assert not vm.state.can("record")
        vm.act("record")
        vm.choose(kind, key, True)
    assert world.requests == []
    assert all(n.level is Level.INFO for n in told)


@pytest.mark.parametrize(
    "error", [InputError("fps 14 does not divide"), StageError("camera gone"), OSError(28, "No space")]
)
def test_an_error_is_a_notice_and_nothing_changes(tmp_path: Path, error: Exception) -> None:
    vm, world, told = model(tmp_path)
    world.refuse = error
    vm.act("record")
    assert vm.state.phase is Phase.READY
    assert told[-1].level is Level.ERROR
    assert str(error) in told[-1].text
    vm2, world2, told2 = recorded(tmp_path)
    world2.refuse = error
    vm2.act("generate")
    vm2.act("start_worker")
    assert vm2.state.phase is Phase.RECORDED
    assert len([n for n in told2 if n.level is Level.ERROR]) == 2


def test_a_recording_that_fails_keeps_its_frames(tmp_path: Path) -> None:
    for written, phase in ((12, Phase.RECORDED), (0, Phase.READY)):
        vm, world, told = model(tmp_path)
        vm.act("record")
        world.status = CaptureStatus(Capture.FAILED, "prim /World/Packet was deleted", written=written)
        vm.tick()
        assert vm.state.phase is phase
        assert told[-1].level is Level.ERROR
        assert "was deleted" in vm.state.notices[0].text


def test_generating_can_be_cancelled_and_can_fail(tmp_path: Path) -> None:
    vm, world, told = recorded(tmp_path)
    vm.act("generate")
    vm.act("cancel")
    assert world.cancelled == 1
    world.code = 130
    vm.tick()
    assert vm.state.phase is Phase.RECORDED
    assert "goes on from" in vm.state.message
    vm.act("generate")
    world.code = 2
    vm.tick()
    assert vm.state.phase is Phase.RECORDED
    assert "boom" in told[-1].text


def test_the_running_take_shows_its_own_progress_and_the_folder_is_not_read_at_every_update(tmp_path: Path) -> None:
    vm, world, _ = recorded(tmp_path)
    clock = [0.0]
    vm._now = lambda: clock[0]
    vm.act("generate")
    reads: list[int] = []
    original = world.takes
    world.takes = lambda run: reads.append(1) or original(run)  # type: ignore[method-assign]
    world.rows = (TakeRow("a", "done", 1.0), TakeRow("b", "running"), TakeRow("c", "waiting"))
    for tick, done in enumerate((81, 100, 121, 162)):
        clock[0] = tick * 1.0
        world.progress = ("Takes", done, 243, "b")
        for _ in range(5):
            vm.tick()
        assert [round(row.share, 2) for row in vm.state.takes] == [1.0, round(done / 81 - 1, 2), 0.0]
    assert len(reads) == 4


def test_the_demo_generates_by_itself_once_it_is_recorded(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    world.content = replace(FULL, demo=True, task="pick it up")
    vm.act("refresh")
    assert (vm.state.task, "plays by itself" in vm.state.message) == ("pick it up", True)
    vm.act("record")
    world.status = CaptureStatus(Capture.DONE, "81 frames recorded", written=81, waited_s=2.5)
    vm.tick()
    assert vm.state.phase is Phase.GENERATING
    assert any("slowed the simulation for 2.5 s" in notice.text for notice in vm.state.notices)
    assert len(world.generated) == 1


def test_a_skeleton_beside_the_robot_is_shown_as_suspicious(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    vm.act("record")
    world.status = CaptureStatus(Capture.RECORDING, written=1)
    world.newest = SimpleNamespace(index=0, rgba=np.zeros((360, 480, 4), np.uint8), misfit_px=200.0)
    vm.tick()
    assert vm.state.suspicious
    texts = [w.label for s in build_layout(vm.state) for r in s.rows for w in r.widgets]
    assert any("misses the robot" in text for text in texts)


def test_the_worker_s_buttons_follow_the_worker(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    vm.act("start_worker")
    world.worker_row = WorkerRow("idle", "0 queued", "20 GiB", frozenset({"stop_worker", "free_vram"}))
    vm.tick()
    vm.act("free_vram")
    vm.act("stop_worker")
    vm.act("start_worker")
    assert world.calls == ["start", "free", "stop"]


def test_closing_the_panel_completes_a_recording(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    vm.act("record")
    vm.shut_down()
    assert world.stopped == ["the panel was closed"]


def test_takes_become_a_dataset(tmp_path: Path) -> None:
    vm, world, told = recorded(tmp_path)
    run = Path(vm.state.folder)
    assert not vm.state.can("open_dataset")
    for name, value in (("format", "oscar"), ("only_commercial", True), ("min_verdict", 0.9), ("include_sim", True)):
        vm.set(f"export_{name}", value)
    assert vm.state.export_folder == str(tmp_path.with_name("retake_datasets") / f"{run.name}-oscar")
    vm.act("export")
    wanted = ExportRow("oscar", only_commercial=True, min_verdict=0.9, include_sim=True)
    assert world.exported == [(run, Path(vm.state.export_folder), wanted)]
    assert vm.state.phase is Phase.EXPORTING
    assert not vm.state.can("generate")
    world.progress = ("Export", 3, 12, "ab")
    vm.tick()
    assert (vm.state.export_line, vm.state.export_share) == ("Export 3/12", 0.25)
    world.code = 0
    vm.tick()
    assert vm.state.phase is Phase.RECORDED
    assert told[-1].level is Level.INFO
    vm.act("open_dataset")
    assert world.opened == [Path(vm.state.export_folder)]


def test_an_export_can_be_cancelled_and_can_fail_with_what_to_do(tmp_path: Path) -> None:
    vm, world, told = recorded(tmp_path)
    vm.act("generate")
    world.code = 0
    vm.tick()
    vm.act("export")
    vm.act("cancel_export")
    assert world.cancelled == 1
    world.code = 130
    vm.tick()
    assert vm.state.phase is Phase.GENERATED
    assert "goes on from" in vm.state.message
    assert vm.state.dataset == ""
    vm.act("export")
    world.code = 2
    vm.tick()
    assert told[-1].level is Level.ERROR
    assert told[-1].text == "Exporting ended with exit code 2: /d holds a dataset already; --append adds to it"
    world.refuse = InputError("no Python for Retake outside Kit")
    vm.act("export")
    assert vm.state.phase is Phase.GENERATED
    assert "no Python" in told[-1].text


def test_a_typed_dataset_folder_stays_and_the_default_follows_run_and_format(tmp_path: Path) -> None:
    vm, _, _ = model(tmp_path)
    vm.set("folder", str(tmp_path / "mine"))
    default = vm.state.export_folder
    assert default.endswith("mine-lerobot-v3")
    vm.set("export_folder", default)  # leaving the field without a change
    vm.set("export_format", "hdf5-isaaclab")
    assert vm.state.export_folder.endswith("mine-hdf5-isaaclab")
    vm.set("export_folder", "/data/all")
    vm.set("export_format", "oscar")
    assert vm.state.export_folder == "/data/all"
    with pytest.raises(AttributeError):
        vm.set("export_colour", "red")


def test_formats_and_options_are_the_command_line_s(tmp_path: Path) -> None:
    from retake.core.export import records

    assert FORMATS == records.FORMATS


def test_takes_show_their_verdicts_and_their_number(tmp_path: Path) -> None:
    takes = (
        TakeRow("bun", "done", 1.0, "composite", "pass"), TakeRow("chips", "done", 1.0, "composite", "fail"),
        *(TakeRow(f"w{i}", "done", 1.0, "composite", "unsure") for i in range(20)), TakeRow("last", "running"),
    )  # fmt: skip
    widgets = [
        w for s in build_layout(PanelState(phase=Phase.GENERATED, takes=takes)) for r in s.rows for w in r.widgets
    ]
    tones = {w.label: w.tone for w in widgets}
    assert tones["bun: done composite pass"] == "good"
    assert tones["chips: done composite fail"] == "error"
    assert "Verdicts: 1 pass, 1 fail, 20 unsure, 1 not judged" in tones
    assert "… and 11 more: see the report" in tones


ALWAYS = {"start_worker", "stop_worker", "free_vram", "open_dataset"}
"""Buttons that do not depend on the phase."""
BUTTONS = sorted({a for actions in ACTIONS.values() for a in actions} | ALWAYS)


@given(
    st.lists(
        st.sampled_from([*BUTTONS, "tick", *(f"capture:{p.name}" for p in Capture), "exit:0", "exit:2"]), max_size=30
    )
)
def test_no_sequence_of_presses_and_events_breaks_the_panel(tmp_path_factory: Any, presses: list[str]) -> None:
    """Any order: buttons that mean nothing are notices, phases stay legal, every state has a layout."""
    vm, world, _ = model(Path("/tmp"))
    for press in presses:
        before, count = vm.state, len(world.requests) + len(world.generated) + len(world.exported)
        if press == "tick":
            vm.tick()
        elif press.startswith("capture:"):
            world.status = CaptureStatus(Capture[press.removeprefix("capture:")], written=5)
            vm.tick()
        elif press.startswith("exit:"):
            world.code = int(press.removeprefix("exit:"))
            vm.tick()
        else:
            vm.act(press)
            if not before.can(press):
                assert vm.state.phase is before.phase
                assert len(world.requests) + len(world.generated) + len(world.exported) == count
        assert vm.state.phase in ACTIONS
        assert vm.state.dropped == 0
        assert build_layout(vm.state)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_layout_whose_buttons_agree_with_it(phase: Phase) -> None:
    state = PanelState(phase=phase, robots=FULL.robots, cameras=FULL.cameras, objects=FULL.objects, message=NEXT[phase])
    buttons = {
        w.action[1]: w.enabled for s in build_layout(state) for r in s.rows for w in r.widgets if w.kind == "button"
    }
    assert {name for name, on in buttons.items() if on} == set(ACTIONS[phase]) | {"start_worker"}
    assert set(BUTTONS) == set(buttons)


def test_prompts_become_worlds_and_a_backend_that_reads_them(tmp_path: Path) -> None:
    vm, world, _ = recorded(tmp_path)
    vm.set("prompts", "A bakery, dawn: 'warm' light;; a snowed-in yard ; ")
    assert vm.state.frames_by == "auto"
    assert "Prompts are painted by a model" in vm.state.message
    assert any("3 variants" in w.label for s in build_layout(vm.state) for row in s.rows for w in row.widgets)
    vm.set("frames_by", "z-image")
    assert vm.state.frames_by == "z-image"
    vm.act("generate")
    config = load_config(None, world.generated[0][1])
    assert config.variants.prompts == ("A bakery, dawn: 'warm' light", "a snowed-in yard")
    assert config.variants.backend == "z-image"


class TestSettings:
    """The panel starts from the settings, and what has no field reaches the recording all the same."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("task", "fold the towel"), ("fps", 30.0), ("width", 320), ("height", 240), ("channels", ("rgb", "depth")),
            ("frames", 45), ("mode", "stepped"), ("rt_subframes", 4), ("contacts", "off"), ("antialiasing", "dlaa"),
            ("undistort", True), ("queue_frames", 3), ("when_full", "refuse"), ("seed", 9),
            ("cameras", ("/World/Wrist@64x48:rgb+depth",)), ("robots", ("/World/Panda",)),
            ("objects", ("/World/Packet",)),
        ],
    )  # fmt: skip
    def test_a_setting_reaches_the_recording(self, name: str, value: Any, tmp_path: Path) -> None:
        vm, world, _ = model(tmp_path, settings=CaptureRequest(**{name: value}))
        vm.act("record")
        assert getattr(world.requests[0], name) == value
        untouched, other, _ = model(tmp_path)
        untouched.act("record")
        assert name in ("robots", "objects") or getattr(other.requests[0], name) != value

    def test_the_output_setting_is_the_run_folder_and_a_prim_that_is_not_there_changes_nothing(
        self, tmp_path: Path
    ) -> None:
        given = CaptureRequest(output=str(tmp_path / "night"), cameras=("/Elsewhere/Camera",), robots=("/No",))
        vm, world, _ = model(tmp_path, settings=given)
        vm.act("record")
        assert world.requests[0].output == str(tmp_path / "night/episode")
        assert world.requests[0].cameras == ("/World/Camera",)
        assert world.requests[0].robots == ("/World/Panda",)

    def test_fields_change_what_the_settings_said(self, tmp_path: Path) -> None:
        vm, world, _ = model(tmp_path, settings=CaptureRequest(width=320, contacts="off"))
        vm.set("width", 800.0)
        vm.set("contacts", "on")
        vm.set("antialiasing", "dlss-quality")
        vm.act("record")
        asked = world.requests[0]
        assert (asked.width, asked.contacts, asked.antialiasing) == (800, "on", "dlss-quality")


class TestCameras:
    """Size and channels of each."""

    def test_each_camera_has_its_own_and_the_rest_the_recording_s(self, tmp_path: Path) -> None:
        vm, world, _ = model(tmp_path)
        vm.choose("cameras", "/World/Wrist")
        vm.set_camera("/World/Wrist", "width", 320.0)
        vm.set_camera("/World/Wrist", "height", 240.0)
        vm.set_camera("/World/Wrist", "instances", False)
        vm.act("record")
        assert world.requests[0].cameras == ("/World/Camera", "/World/Wrist@320x240:rgb+depth+normals")
        first, second = world.requests[0].camera_choices()
        assert (first.size, second.size) == ((640, 480), (320, 240))
        with pytest.raises(AttributeError):
            vm.set_camera("/World/Wrist", "colour", 1)

    def test_what_a_missing_channel_costs_is_on_the_panel(self, tmp_path: Path) -> None:
        vm, _, _ = model(tmp_path)
        vm.set_camera("/World/Camera", "instances", False)
        texts = [w.label for s in build_layout(vm.state) for row in s.rows for w in row.widgets if w.tone == "warning"]
        assert any("records no instances" in text and "verdicts" in text for text in texts)
        vm.set_camera("/World/Camera", "instances", True)
        assert vm.state.cameras[0].channels == ("rgb", "depth", "normals", "instances")

    def test_a_changed_stage_keeps_them(self, tmp_path: Path) -> None:
        vm, world, _ = model(tmp_path)
        vm.set_camera("/World/Camera", "width", 99)
        world.content = replace(FULL, objects=())
        vm.act("refresh")
        assert vm.state.cameras[0].size == (99, 480)
        assert world.looked[-1] is True


class TestSelected:
    """Add selected."""

    @pytest.mark.parametrize(
        ("selected", "chosen"),
        [
            (("/World/Wrist",), {"/World/Wrist"}),
            (("/World/Packet/mesh",), {"/World/Packet"}),
            (("/World/Panda/hand", "/World/Wrist"), {"/World/Panda", "/World/Wrist"}),
        ],
    )
    def test_what_is_selected_is_recorded(self, selected: tuple[str, ...], chosen: set[str], tmp_path: Path) -> None:
        vm, world, told = model(tmp_path)
        for kind in ("robots", "cameras", "objects"):
            for choice in getattr(vm.state, kind):
                vm.choose(kind, choice.key, False)
        world.chosen_prims = selected
        vm.act("add_selected")
        assert {c.key for k in ("robots", "cameras", "objects") for c in getattr(vm.state, k) if c.chosen} == chosen
        assert told == []

    def test_a_camera_on_a_robot_is_the_camera(self, tmp_path: Path) -> None:
        world = World()
        world.content = SceneContent((Choice("/R", "R"),), (Choice("/R/hand/cam", "cam"),))
        vm, _, _ = model(tmp_path, world)
        world.chosen_prims = ("/R/hand/cam",)
        vm.act("add_selected")
        assert [c.chosen for c in (*vm.state.robots, *vm.state.cameras)] == [False, True]

    def test_nothing_usable_says_what_to_select(self, tmp_path: Path) -> None:
        vm, world, told = model(tmp_path)
        world.chosen_prims = ("/World/Light",)
        vm.act("add_selected")
        assert "/World/Light" in told[0].text
        assert "select a robot, a camera or a rigid object" in told[0].text


class TestPause:
    """A pause by the panel or by anybody else, and going on."""

    def test_the_same_episode_goes_on(self, tmp_path: Path) -> None:
        vm, world, _ = model(tmp_path)
        vm.act("record")
        world.status = CaptureStatus(Capture.RECORDING, written=5)
        vm.tick()
        vm.act("pause")
        vm.tick()
        assert vm.state.phase is Phase.PAUSED
        assert "Resume" in [
            w.label for s in build_layout(vm.state) for r in s.rows for w in r.widgets if w.kind == "button"
        ]
        vm.act("resume")
        vm.tick()
        assert vm.state.phase is Phase.RECORDING
        assert len(world.requests) == 1
        world.paused = True  # the user pressed Kit's own Pause
        vm.tick()
        assert vm.state.phase is Phase.PAUSED
        vm.act("stop")
        assert world.stopped == ["stopped in the panel"]

    def test_a_recording_that_cannot_pause_says_why(self, tmp_path: Path) -> None:
        vm, world, told = model(tmp_path)
        vm.act("record")
        world.status = CaptureStatus(Capture.RECORDING)
        vm.tick()
        world.refuse = InputError("a stepped recording drives the timeline itself")
        vm.act("pause")
        assert "stepped" in told[0].text


def test_a_folder_is_picked_in_a_dialog(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    vm.act("pick_folder")
    assert world.opened == [tmp_path]
    assert vm.state.folder == "/data/tonight"


def test_an_unchanged_stage_costs_a_comparison(tmp_path: Path) -> None:
    """tick() takes over nothing, and changes no record, while the scene hands out what it handed out before."""
    vm, world, _ = model(tmp_path)
    before = vm.state
    for second in range(5):
        vm._looked = -10.0 - second
        vm.tick()
    assert vm.state is before
    assert world.looked.count(True) == 1
    assert not vm.busy
