# SPDX-License-Identifier: Apache-2.0
"""The omni.ui side against a fake: widgets follow the state, buttons reach the model, the extension leaves no trace."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.kit import FakeKit
from fakes.stage import make_stage, planned_motion, random_motion, session_is_clean
from fakes.ui import FakeUi
from isaac_support import products
from pxr import Usd, UsdGeom

from retake.core.episode import open_episode
from retake.ui.state import Phase


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[FakeKit, FakeUi]]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RETAKE_WORKER_STATE", str(tmp_path / "state"))
    fake_ui = FakeUi()
    with FakeKit("6.x", random_motion(make_stage(cameras=2), 300), lag=2) as fake:
        fake_ui.install()
        names = (
            "retake.ui.extension", "retake.ui.panel", "retake.ui.kit_ports", "retake.ui.kit_scene", "retake.isaac.extension",
        )  # fmt: skip
        for name in names:
            sys.modules.pop(name, None)
        yield fake, fake_ui
        for name in names:
            sys.modules.pop(name, None)


def texts(window: Any) -> list[str]:
    return [label.args[0] for label in window.frame.all("Label")]


def test_the_panel_records_in_a_fake_isaac_sim(kit: tuple[FakeKit, FakeUi], monkeypatch: pytest.MonkeyPatch) -> None:
    fake, fake_ui = kit
    module = importlib.import_module("retake.ui.extension")
    extension = module.RetakeUiExtension()
    extension.on_startup("retake.ui-0.1.0")
    assert [item.name for item in fake_ui.menu] == ["Tools/Replicator/Retake"]
    fake_ui.menu[0].toggle()
    window = fake_ui.windows[0]
    assert window.docked_in == ("Property", "do nothing")
    assert "Arm0" in texts(window)
    buttons = {b.args[0]: b for b in window.frame.all("Button")}
    assert buttons["Record"].kwargs["enabled"]
    assert not buttons["Stop"].kwargs["enabled"]
    buttons["Record"].clicked()
    model = extension._model
    assert model.state.phase is Phase.ARMED, model.state.notices
    fake.play()
    import time

    for _ in range(40):
        fake.update()
        time.sleep(0.005)
    assert model.state.phase is Phase.RECORDING
    assert fake_ui.providers[-1].bytes is not None
    next(b for b in window.frame.all("Button") if b.args[0] == "Stop").clicked()
    deadline = time.monotonic() + 20
    while model.state.phase is not Phase.RECORDED and time.monotonic() < deadline:
        fake.update()
        time.sleep(0.01)
    assert model.state.phase is Phase.RECORDED, model.state
    assert session_is_clean(fake.motion.stage)
    extension.on_shutdown()
    assert fake_ui.menu == []
    assert fake_ui.show == {}
    assert fake_ui.windows == []
    assert fake.notifications


def test_typing_and_ticking_reach_the_model(kit: tuple[FakeKit, FakeUi]) -> None:
    _, fake_ui = kit
    extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
    extension.on_startup("x")
    fake_ui.show["Retake"](True)
    window = fake_ui.windows[0]
    field = window.frame.all("StringField")[1]
    field.model.value = "stack the cups"
    for call in field.model.changed:
        call(field.model)
    combo = window.frame.all("ComboBox")[0]
    combo.model.value = 2
    for call in combo.model.changed:
        call(combo.model)
    box = window.frame.all("CheckBox")[0]
    box.model.value = False
    for call in box.model.changed:
        call(box.model)
    state = extension._model.state
    assert (state.task, state.mode) == ("stack the cups", "stepped")
    assert not state.robots[0].chosen
    extension.on_shutdown()


def test_nothing_is_rebuilt_while_nothing_changes(kit: tuple[FakeKit, FakeUi]) -> None:
    fake, fake_ui = kit
    extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
    extension.on_startup("x")
    fake_ui.show["Retake"](True)
    fake.update(3)
    before = fake_ui.rebuilds
    fake.update(30)
    assert fake_ui.rebuilds == before
    extension.on_shutdown()


def test_disabling_the_capture_extension_completes_a_recording(kit: tuple[FakeKit, FakeUi], tmp_path: Path) -> None:
    from retake.isaac.live_capture import LiveCapture
    from retake.isaac.request import CaptureRequest

    fake, _ = kit
    module = importlib.import_module("retake.isaac.extension")
    extension = module.RetakeExtension()
    extension.on_startup("retake.isaac-0.1.0")
    assert "RetakeWriter" in fake.registry
    capture = LiveCapture(CaptureRequest(output=str(tmp_path / "e"), width=32, height=24))
    capture.start()
    script = sys.modules["omni.replicator.core"].WriterRegistry.get("RetakeWriter")  # a user's own script, beside it
    script.initialize(output_dir=str(tmp_path / "s"))
    script.attach(products(fake, 1))
    fake.play()
    fake.update(30)
    extension.on_shutdown()
    assert fake.registry == {}
    assert len(capture.episode) > 3
    assert len(open_episode(tmp_path / "s")) > 3
    assert fake.post_step == {}


def test_the_dataset_section_reaches_the_model(kit: tuple[FakeKit, FakeUi]) -> None:
    _, fake_ui = kit
    extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
    extension.on_startup("x")
    fake_ui.show["Retake"](True)
    window = fake_ui.windows[0]
    box = next(b for b in window.frame.all("CheckBox") if "--only-commercial" in b.kwargs["tooltip"])
    box.model.value = True
    for call in box.model.changed:
        call(box.model)
    combo = window.frame.all("ComboBox")[-1]
    combo.model.value = 2
    for call in combo.model.changed:
        call(combo.model)
    state = extension._model.state
    assert (state.export.only_commercial, state.export.format) == (True, "oscar")
    extension.on_shutdown()


def test_a_run_becomes_a_dataset_in_a_process_of_its_own(
    kit: tuple[FakeKit, FakeUi], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command line: verdicts are listed, progress and the end are reported, a refusal says what to do."""
    import json
    import time

    from export_runs import make_run, write_take

    from retake.core.episode import open_episode
    from retake.ui.state import ExportRow, TakeRow

    ports = importlib.import_module("retake.ui.kit_ports")
    run = make_run(tmp_path / "r", takes=1)
    write_take(run, open_episode(run / "episode"), 1, status="fail")
    stale = run / "verdicts" / write_take(run, open_episode(run / "episode"), 2) / "verdict.json"
    stale.write_text(json.dumps({**json.loads(stale.read_text("utf-8")), "video_sha256": "0"}), "utf-8")
    (run / "takes/v003/front").mkdir(parents=True)
    starter = ports.KitStarter(None)
    assert [row for row in starter.takes(run) if row.state != "waiting"] == [
        TakeRow("v000/front", "done", 1.0, "composite", "pass"), TakeRow("v001/front", "done", 1.0, "composite", "fail"),
        TakeRow("v002/front", "done", 1.0, "composite", "not judged"), TakeRow("v003/front", "running"),
    ]  # fmt: skip
    monkeypatch.setattr(ports.processes, "find_python", lambda setting: Path(sys.executable))
    wanted = ExportRow("hdf5-isaaclab", only_commercial=True, min_verdict=0.9)
    for code, words in ((0, "1 episodes, 8 frames"), (2, "--append adds to it")):
        export = starter.export(run, tmp_path / "d", wanted)
        deadline = time.monotonic() + 60
        while export.exit_code() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        export._process._thread.join(10)
        assert export.exit_code() == code, export.last_words()
        assert words in export.last_words()
        assert export.advance()[:3] == (("Export", 1, 1) if code == 0 else ("", 0, 0))
    assert (tmp_path / "d/dataset.hdf5").is_file()


def test_the_worlds_on_the_panel_are_presets_that_generate_accepts(kit: tuple[FakeKit, FakeUi]) -> None:
    from retake.core.variants.make import select_worlds

    module = importlib.import_module("retake.ui.extension")
    worlds = module.worlds()
    assert len(select_worlds([w.key for w in worlds])) == len(worlds) > 3
    assert [w.name for w in worlds if w.chosen] == ["bun warehouse", "chips conveyor", "vegetable kitchen"]
    assert all(len(w.detail) > 20 and "{" not in w.detail for w in worlds)  # the prompt of its scene


def test_open_demo_and_record_are_all_it_takes(
    kit: tuple[FakeKit, FakeUi], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clicks: the demo's robot follows the planned trajectory, is recorded, and its takes are begun."""
    fake, fake_ui = kit
    root = Path(__file__).resolve().parents[1]

    def opened(url: str) -> Any:
        return planned_motion(Usd.Stage.Open(url), root / "data/trajectories/pick_place.npz", steps=80)

    fake.options.on_open = opened
    module = importlib.import_module("retake.ui.extension")
    ports = importlib.import_module("retake.ui.kit_ports")
    begun: list[list[str]] = []
    monkeypatch.setattr(ports.processes, "find_python", lambda setting: Path(sys.executable))
    monkeypatch.setattr(
        ports.processes,
        "arrow_command",
        lambda *a: begun.append([str(p) for p in a]) or [sys.executable, "-c", "import time; time.sleep(60)"],
    )
    extension = module.RetakeUiExtension()
    extension.on_startup("x")
    fake_ui.show["Retake"](True)
    model = extension._model

    async def clicks() -> None:
        model.act("open_demo")
        for _ in range(5):
            fake.update()
            await asyncio.sleep(0)
        model.act("refresh")
        assert model.state.task == "pick up the packet and drop it into the tray"
        assert "Press Record" in model.state.message
        model.set("seconds", 0.4)
        model.set("mode", "stepped")
        assert [c.key for c in model.state.cameras if c.chosen] == ["/World/Camera"]
        model.act("record")
        for _ in range(2000):
            fake.update()
            await asyncio.sleep(0.001)
            if begun:
                break

    asyncio.run(clicks())
    assert len(begun) == 1, model.state.notices
    assert "commanded" in fake.settings
    assert model.state.phase is Phase.GENERATING
    assert len(open_episode(Path(model.state.folder) / "episode")) == 6
    assert fake.stopped
    model.act("cancel")
    extension.on_shutdown()


class TestAsItsNeighbours:
    """Menu, docking, layouts, dialogs and what they cost, as NVIDIA's recorders have them."""

    def shown(self, fake_ui: FakeUi) -> Any:
        extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
        extension.on_startup("x")
        fake_ui.show["Retake"](True)
        return extension

    def test_a_layout_shows_and_hides_it_and_what_was_typed_is_still_there(self, kit: tuple[FakeKit, FakeUi]) -> None:
        _, fake_ui = kit
        extension = self.shown(fake_ui)
        extension._model.set("task", "fold the towel")
        fake_ui.show["Retake"](False)
        assert fake_ui.windows == []
        fake_ui.show["Retake"](True)
        assert fake_ui.windows[0].frame.all("StringField")[1].model.value == "fold the towel"
        extension.on_shutdown()

    def test_open_at_start_is_a_setting(self, kit: tuple[FakeKit, FakeUi]) -> None:
        fake, fake_ui = kit
        fake.settings["/exts/retake.ui/open"] = True
        extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
        extension.on_startup("x")
        assert fake_ui.windows[0].visible
        extension.on_shutdown()

    def test_settings_are_what_the_fields_start_from(self, kit: tuple[FakeKit, FakeUi], tmp_path: Path) -> None:
        fake, fake_ui = kit
        given = {"fps": 30.0, "width": 320, "contacts": "off", "cameras": "/World/Camera1@64x48:rgb+depth"}
        for name, value in {**given, "output": str(tmp_path / "night")}.items():
            fake.settings[f"/exts/retake.isaac/{name}"] = value
        extension = self.shown(fake_ui)
        state = extension._model.state
        assert (state.fps, state.width, state.contacts, state.folder) == (30.0, 320, "off", str(tmp_path / "night"))
        assert [(c.key, c.size) for c in state.cameras if c.chosen] == [("/World/Camera1", (64, 48))]
        extension.on_shutdown()

    def test_a_wrong_setting_is_said_and_the_panel_opens(self, kit: tuple[FakeKit, FakeUi]) -> None:
        fake, fake_ui = kit
        fake.settings["/exts/retake.isaac/fps"] = "often"
        extension = self.shown(fake_ui)
        assert "/exts/retake.isaac/fps" in fake.notifications[0][0]
        assert extension._model.state.fps == 15.0
        extension.on_shutdown()

    def test_a_changed_stage_is_seen_by_notice_and_nothing_is_traversed_for_an_unchanged_one(
        self, kit: tuple[FakeKit, FakeUi], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake, fake_ui = kit
        scenes = importlib.import_module("retake.ui.kit_scene")
        read: list[Any] = []
        original = scenes.scene_content
        monkeypatch.setattr(scenes, "PAUSE", 0)
        monkeypatch.setattr(scenes, "scene_content", lambda stage: read.append(stage) or original(stage))
        extension = self.shown(fake_ui)
        assert len(read) == 1
        stage, model = fake.motion.stage, extension._model

        def second() -> None:
            model._looked = -10.0
            fake.update()

        for _ in range(20):
            second()
        stage.GetPrimAtPath("/World/Packet").GetAttribute("xformOp:translate").Set((0.0, 0.0, 1.0))
        second()
        assert len(read) == 1, "a value that changes is no new prim"
        UsdGeom.Camera.Define(stage, "/World/Late")
        second()
        assert len(read) == 2
        assert "Late" in [c.name for c in model.state.cameras]
        UsdGeom.Xform.Define(stage, "/World/Again")
        fake_ui.show["Retake"](False)
        for _ in range(5):
            second()
        assert len(read) == 2, "nothing is read for a hidden panel"
        fake_ui.show["Retake"](True)
        second()
        assert len(read) == 3
        extension.on_shutdown()
        UsdGeom.Xform.Define(stage, "/World/After")
        assert len(read) == 3

    def test_a_stage_that_keeps_changing_is_read_for_a_tenth_of_the_time(
        self, kit: tuple[FakeKit, FakeUi], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake, _ = kit
        scenes = importlib.import_module("retake.ui.kit_scene")
        clock, read = [0.0], []
        original = scenes.scene_content

        def slow(stage: Any) -> Any:
            clock[0] += 2.0
            read.append(clock[0])
            return original(stage)

        monkeypatch.setattr(scenes, "scene_content", slow)
        scene = scenes.StageScene(now=lambda: clock[0])
        scene.look()
        for number in range(100):
            UsdGeom.Xform.Define(fake.motion.stage, f"/World/Spawned{number}")
            clock[0] += 1.0
            scene.look()
        assert 4 <= len(read) <= 6, read
        scene.look(again=True)
        assert "Spawned99" in [p.GetName() for p in fake.motion.stage.GetPrimAtPath("/World").GetChildren()]
        before = len(read)
        clock[0] += 30.0
        scene.look()
        assert len(read) == before, "nothing changed since it was asked for"
        scene.close()

    def test_a_hidden_panel_does_nothing_but_follow_a_recording(self, kit: tuple[FakeKit, FakeUi]) -> None:
        fake, fake_ui = kit
        extension = self.shown(fake_ui)
        fake_ui.show["Retake"](False)
        ticks: list[int] = []
        model = extension._model
        original = model.tick
        model.tick = lambda: ticks.append(1) or original()
        fake.update(10)
        assert ticks == []
        assert not extension._link.watched
        model.act("record")
        fake.play()
        fake.update(10)
        assert len(ticks) == 10
        assert model.state.phase in (Phase.ARMED, Phase.RECORDING)
        extension.on_shutdown()

    def test_a_tab_behind_another_one_is_not_seen(self, kit: tuple[FakeKit, FakeUi]) -> None:
        module = importlib.import_module("retake.ui.extension")
        from types import SimpleNamespace

        assert module.is_on_screen(SimpleNamespace(visible=True))
        assert module.is_on_screen(SimpleNamespace(visible=True, docked=True, selected_in_dock=True))
        assert not module.is_on_screen(SimpleNamespace(visible=True, docked=True, selected_in_dock=False))
        assert module.is_on_screen(SimpleNamespace(visible=True, docked=False, selected_in_dock=False))
        assert not module.is_on_screen(SimpleNamespace(visible=False))
        assert not module.is_on_screen(None)

    def test_a_half_edited_field_survives_a_rebuild(self, kit: tuple[FakeKit, FakeUi]) -> None:
        fake, fake_ui = kit
        extension = self.shown(fake_ui)
        window, model = fake_ui.windows[0], extension._model
        fake.update()
        field = window.frame.all("StringField")[1]
        field.model.type("fold the to")
        model.set("seconds", 3)  # the same section changes
        fake.update(3)
        assert window.frame.all("StringField")[1] is field, "the field that is edited is not replaced"
        panel = extension._panel
        panel._frames["2  Record"].rebuild()  # Kit rebuilds it all the same
        again = window.frame.all("StringField")[1]
        assert again is not field
        assert again.model.value == "fold the to"
        again.model.type("fold the towel")
        again.model.leave()
        fake.update()
        assert model.state.task == "fold the towel"
        assert window.frame.all("StringField")[1].model.value == "fold the towel"
        model.set("seconds", 4)
        before = fake_ui.rebuilds
        fake.update()
        assert fake_ui.rebuilds == before + 1, "after the edit the section follows again"
        extension.on_shutdown()

    def test_sizes_and_channels_are_fields_of_each_camera(self, kit: tuple[FakeKit, FakeUi]) -> None:
        fake, fake_ui = kit
        extension = self.shown(fake_ui)
        window, model = fake_ui.windows[0], extension._model
        width = window.frame.all("FloatField")[0].model
        width.type(320.0)
        width.leave()
        box = next(b for b in window.frame.all("CheckBox") if "no structure-locked" in b.kwargs["tooltip"])
        box.model.value = False
        for call in box.model.changed:
            call(box.model)
        camera = next(c for c in model.state.cameras if c.chosen)
        assert camera.size == (320, 480)
        assert camera.channels == ("rgb", "normals", "instances")
        fake.update()
        assert any("records no depth" in text for text in texts(window))
        extension.on_shutdown()

    def test_the_selection_is_added(self, kit: tuple[FakeKit, FakeUi]) -> None:
        fake, fake_ui = kit
        extension = self.shown(fake_ui)
        fake.selected = ["/World/Camera1"]
        next(b for b in fake_ui.windows[0].frame.all("Button") if b.args[0] == "Add selected").clicked()
        assert {c.key for c in extension._model.state.cameras if c.chosen} == {"/World/Camera0", "/World/Camera1"}
        extension.on_shutdown()

    def test_the_folder_is_picked_in_kit_s_own_dialog(self, kit: tuple[FakeKit, FakeUi], tmp_path: Path) -> None:
        _, fake_ui = kit
        extension = self.shown(fake_ui)
        next(b for b in fake_ui.windows[0].frame.all("Button") if b.args[0] == "…").clicked()
        (dialog,) = fake_ui.dialogs
        assert dialog.kwargs["current_directory"] == str(Path(extension._model.state.folder).parent)
        dialog.kwargs["click_apply_handler"]("tonight", str(tmp_path))
        assert dialog.hidden
        assert extension._model.state.folder == str(tmp_path / "tonight")
        extension.on_shutdown()

    def test_pause_and_resume_go_on_with_one_episode(self, kit: tuple[FakeKit, FakeUi]) -> None:
        import time

        fake, fake_ui = kit
        extension = self.shown(fake_ui)
        model = extension._model
        model.act("record")
        fake.play()
        fake.update(30)
        model.act("pause")
        fake.update(5)
        assert model.state.phase is Phase.PAUSED
        assert not fake.playing
        model.act("resume")
        fake.update(30)
        assert model.state.phase is Phase.RECORDING, model.state.notices
        model.act("stop")
        deadline = time.monotonic() + 20
        while model.state.phase is not Phase.RECORDED and time.monotonic() < deadline:
            fake.update()
            time.sleep(0.01)
        episode = open_episode(Path(model.state.folder) / "episode")
        assert len(episode) > 10
        assert np.allclose(np.diff(episode.time_s), 1 / 15), "a pause is no gap in simulated time"
        extension.on_shutdown()


class TestPicture:
    """A live picture costs the main thread 2 ms at most."""

    def panel(self, fake_ui: FakeUi, per_byte_s: float) -> tuple[Any, Any]:
        from types import SimpleNamespace

        module = importlib.import_module("retake.ui.panel")
        fake_ui.picture_s = per_byte_s
        picture = SimpleNamespace(newest=None)
        panel = module.Panel(None, picture, now=lambda: fake_ui.spent)
        panel._provider = sys.modules["omni.ui"].ByteImageProvider()
        return panel, picture

    def show(self, panel: Any, picture: Any, index: int) -> None:
        from types import SimpleNamespace

        rgba = np.full((360, 480, 4), (1, 2, 3, 255), np.uint8)
        picture.newest = SimpleNamespace(index=index, rgba=rgba)
        panel._show_picture()

    def test_a_buffer_is_handed_over_as_it_is(self, kit: tuple[FakeKit, FakeUi]) -> None:
        _, fake_ui = kit
        panel, picture = self.panel(fake_ui, 0.0)
        self.show(panel, picture, 0)
        assert fake_ui.providers[-1].bytes == (480, [1, 2, 3, 255])

    @pytest.mark.parametrize(("buffers", "per_byte_s"), [(True, 20e-9), (False, 20e-9), (True, 100e-9)])
    def test_what_costs_more_is_shown_smaller(
        self, kit: tuple[FakeKit, FakeUi], buffers: bool, per_byte_s: float
    ) -> None:
        _, fake_ui = kit
        fake_ui.takes_buffers = buffers
        panel, picture = self.panel(fake_ui, per_byte_s)
        spent = []
        for index in range(6):
            before = fake_ui.spent
            self.show(panel, picture, index)
            spent.append(fake_ui.spent - before)
        assert spent[-1] <= 2e-3
        assert fake_ui.providers[-1].bytes is not None
        assert (spent[0] <= 2e-3) == (not buffers), "a list of ints starts small"


def test_the_self_test_is_a_button_and_leaves_two_files_to_attach(
    kit: tuple[FakeKit, FakeUi], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retake.isaac import selftest

    monkeypatch.setattr(selftest, "FRAMES", 4)
    fake, fake_ui = kit
    extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
    extension.on_startup("x")
    fake_ui.menu[0].toggle()
    model = extension._model
    model.set("folder", str(tmp_path / "runs/mine"))
    seen: list[str] = []

    async def click() -> None:
        model.act("self_test")
        for _ in range(3000):
            await asyncio.sleep(0.001)
            seen.append(model.state.message)
            if "to attach" in model.state.message:
                return

    asyncio.run(click())
    assert "is the page to attach" in seen[-1]
    assert (tmp_path / "runs/retake-selftest" / selftest.JSON).is_file()
    assert (tmp_path / "runs/retake-selftest" / selftest.REPORT).read_text().startswith("# Retake self-test")
    extension.on_shutdown()
    assert fake.writers == []
