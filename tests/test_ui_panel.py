# SPDX-License-Identifier: Apache-2.0
"""The omni.ui side against a fake: widgets follow the state, buttons reach the model, the extension leaves no trace."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit
from fakes.stage import make_stage, random_motion, session_is_clean
from fakes.ui import FakeUi

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
    module.track(capture)
    fake.play()
    fake.update(30)
    extension.on_shutdown()
    assert fake.registry == {}
    assert len(capture.episode) > 3
    assert fake.post_step == {}
