# SPDX-License-Identifier: Apache-2.0
"""The panel after what went wrong, and with what people type: nothing raises into Kit, nothing of before is shown as of now."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.kit import FakeKit
from fakes.stage import session_is_clean
from fakes.ui import FakeUi
from isaac_support import motion
from test_ui_view_model import FULL, model, recorded

from retake.core.config import load_config
from retake.core.errors import RetakeError
from retake.isaac.preview import Picture, Preview
from retake.isaac.request import CaptureRequest
from retake.ui.ports import SceneContent
from retake.ui.state import Choice, Level, Phase


@pytest.mark.parametrize("prompt", ["a bakery 🥐 at dawn", 'été: "tôt"', "雪の庭"])
def test_a_prompt_reaches_the_run_as_it_was_typed(tmp_path: Path, prompt: str) -> None:
    vm, world, _ = recorded(tmp_path)
    vm.set("prompts", prompt)
    vm.act("generate")
    settings = tuple(s for s in world.generated[0][1] if s.startswith("variants.prompts"))
    assert load_config(None, settings).variants.prompts == (prompt,)
    assert settings[0].encode()


@pytest.mark.parametrize("action", ["record", "self_test"])
@pytest.mark.parametrize(
    ("folder", "said"), [("", "Folder is empty"), (" ", "Folder is empty"), ("~nobody-here/x", "home")]
)
def test_a_folder_that_is_none_is_said(tmp_path: Path, action: str, folder: str, said: str) -> None:
    vm, world, told = model(tmp_path)
    vm.set("folder", folder)
    vm.act(action)
    assert (told[-1].level, said in told[-1].text) == (Level.ERROR, True)
    assert (world.requests, world.calls, vm.state.phase) == ([], [], Phase.READY)


def test_a_folder_is_meant_without_the_blanks_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    vm, world, _ = model(tmp_path)
    vm.set("folder", " ~/my runs/ä ")
    vm.act("record")
    assert world.requests[0].output == str(tmp_path / "my runs/ä/episode")
    free: list[Path] = []
    usage = sys.modules["retake.ui.folders"].shutil.disk_usage
    monkeypatch.setattr("retake.ui.folders.shutil.disk_usage", lambda path: free.append(path) or usage(path))
    vm.tick()
    assert free == [tmp_path], "the disk that is recorded to"


def test_recording_again_needs_no_other_folder_typed_in(tmp_path: Path) -> None:
    vm, world, told = recorded(tmp_path)
    vm.act("record")
    first, second = (Path(request.output).parent for request in world.requests)
    assert (first != second, second.parent, vm.state.folder) == (True, tmp_path, str(second))
    assert all(notice.level is not Level.ERROR for notice in told)
    assert Path(vm.state.export_folder).name.startswith(second.name), "the data set has its name from the new run"


def test_a_folder_that_is_typed_in_after_a_recording_is_taken(tmp_path: Path) -> None:
    vm, world, _ = recorded(tmp_path)
    vm.set("folder", str(tmp_path / "mine"))
    vm.act("record")
    assert Path(world.requests[-1].output).parent == tmp_path / "mine"


def test_a_robot_that_became_unusable_is_not_asked_for(tmp_path: Path) -> None:
    """It has no box to drop it with."""
    vm, world, _ = model(tmp_path)
    world.content = replace(
        FULL, robots=(Choice("/World/Panda", "Panda", problem="a loop"), Choice("/World/B", "B", True))
    )
    vm.act("refresh")
    vm.choose("robots", "/World/B")
    vm.act("record")
    assert world.requests[0].robots == ("/World/B",)


def test_what_was_recorded_can_be_used_after_its_stage_was_closed(tmp_path: Path) -> None:
    vm, world, _ = recorded(tmp_path)
    world.content = SceneContent(problem="No stage is open.")
    vm.act("refresh")
    assert (vm.state.phase, vm.state.message) == (Phase.RECORDED, "No stage is open.")
    assert not vm.state.can("record")
    vm.act("generate")
    assert world.generated


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKit]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RETAKE_WORKER_STATE", str(tmp_path / "state"))
    names = ("retake.ui.extension", "retake.ui.panel", "retake.ui.kit_ports", "retake.ui.kit_scene")
    with FakeKit("6.x", motion()) as fake:
        fake.ui = FakeUi()  # type: ignore[attr-defined]
        fake.ui.install()  # type: ignore[attr-defined]
        for name in names:
            sys.modules.pop(name, None)
        yield fake
        for name in names:
            sys.modules.pop(name, None)


@pytest.mark.parametrize(("name", "value"), [("fps", 0.0), ("mode", "fast"), ("output", "~nobody-here/e")])
def test_a_setting_that_makes_no_sense_does_not_keep_the_panel_from_opening(
    kit: FakeKit, name: str, value: Any
) -> None:
    kit.settings[f"/exts/retake.isaac/{name}"] = value
    extension = importlib.import_module("retake.ui.extension").RetakeUiExtension()
    extension.on_startup("x")
    kit.ui.show["Retake"](True)  # type: ignore[attr-defined]
    notice = extension._model.state.notices[0]
    assert (notice.level, "starts from the defaults" in notice.text) == (Level.ERROR, True)
    assert kit.ui.windows[0].frame.all("Button")  # type: ignore[attr-defined]
    extension.on_shutdown()


@pytest.mark.parametrize("why", ["motion", "stage"])
def test_a_recording_that_cannot_begin_leaves_nothing(
    kit: FakeKit, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = importlib.import_module("retake.ui.kit_ports")
    if why == "motion":  # the demo's
        monkeypatch.setattr(ports, "is_demo", lambda stage: True)
        demo = type("Demo", (), {"TRAJECTORY": tmp_path / "nowhere.npz"})
        monkeypatch.setattr(ports, "demo_script", lambda: demo)
    robots = ("/World/Nobody",) if why == "stage" else ()
    asked = CaptureRequest(output=str(tmp_path / "runs/one/episode"), robots=robots)
    with pytest.raises(RetakeError, match=r"nowhere\.npz does not exist|unknown robot"):
        ports.KitStarter(Preview()).record(asked)
    assert session_is_clean(kit.motion.stage)
    assert (kit.products, kit.writers, kit.post_step, kit.changed_settings()) == ([], [], {}, {})
    assert not (tmp_path / "runs/one").exists()


def test_the_picture_of_the_recording_before_is_not_this_one_s(kit: FakeKit, tmp_path: Path) -> None:
    ports = importlib.import_module("retake.ui.kit_ports")
    preview = Preview()
    preview._picture = Picture(7, "Camera0", np.zeros((2, 2, 4), np.uint8), 99.0)
    recording = ports.KitStarter(preview).record(CaptureRequest(output=str(tmp_path / "runs/one/episode")))
    assert preview.newest is None
    recording._capture.close("test")


def test_a_driver_that_fails_is_heard_of(
    kit: FakeKit, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = importlib.import_module("retake.ui.kit_scene")

    async def broken(*unused: Any) -> int:
        raise OSError("disk full")

    async def worse() -> None:
        raise ValueError("an engine's own")

    monkeypatch.setattr(scene.selftest, "whole", broken)
    lines: list[str] = []

    async def both() -> None:
        stage = scene.StageScene()
        stage.self_test(Path("x"), lines.append)
        await stage._test
        await scene.quietly(worse())

    with caplog.at_level(logging.WARNING):
        asyncio.run(both())
    assert lines == ["Self-test: ended early: disk full"]
    assert "an engine's own" in caplog.text
