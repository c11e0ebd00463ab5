# SPDX-License-Identifier: Apache-2.0
"""The omni.ui side against a fake: widgets follow the state, buttons reach the model, the extension leaves no trace."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit
from fakes.stage import make_stage, planned_motion, random_motion, session_is_clean
from fakes.ui import FakeUi
from isaac_support import products
from pxr import Usd

from retake.core.episode import open_episode
from retake.ui.state import Phase


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[FakeKit, FakeUi]]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RETAKE_WORKER_STATE", str(tmp_path / "state"))
    fake_ui = FakeUi()
    with FakeKit("6.x", random_motion(make_stage(cameras=2), 300), lag=2) as fake:
        fake_ui.install()
        names = ("retake.ui.extension", "retake.ui.panel", "retake.ui.kit_ports", "retake.isaac.extension")
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
    assert [item.name for item in fake_ui.menu] == ["Retake"]
    fake_ui.menu[0].onclick_fn()
    window = fake_ui.windows[0]
    window.frame.rebuild()
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
    assert fake_ui.windows == []
    assert fake.notifications


def test_typing_and_ticking_reach_the_model(kit: tuple[FakeKit, FakeUi]) -> None:
    _, fake_ui = kit
    extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
    extension.on_startup("x")
    extension.show()
    window = fake_ui.windows[0]
    window.frame.rebuild()
    field = window.frame.all("StringField")[0]
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
    extension.show()
    fake_ui.windows[0].frame.rebuild()
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
    extension.show()
    window = fake_ui.windows[0]
    window.frame.rebuild()
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
    (run / "takes/v003-front").mkdir()
    starter = ports.KitStarter(None)
    assert [row for row in starter.takes(run) if row.state != "waiting"] == [
        TakeRow("v000-front", "done", 1.0, "composite", "pass"), TakeRow("v001-front", "done", 1.0, "composite", "fail"),
        TakeRow("v002-front", "done", 1.0, "composite", "not judged"), TakeRow("v003-front", "running"),
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
    fake, _ = kit
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
    extension.show()
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
