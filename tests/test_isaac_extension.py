# SPDX-License-Identifier: Apache-2.0
"""Kit's entry by itself: what start-up puts in place, and that shutdown takes each part of it back, whatever fails."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.kit import FakeKit
from isaac_support import motion

from retake.core.errors import RetakeError
from retake.isaac import autorun, live_capture, stops, writer

NAME = "retake.isaac.extension"


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The extension inside an application, not started."""
    with FakeKit("6.x", motion()) as kit:
        sys.modules["omni.ext"] = SimpleNamespace(IExt=object)  # type: ignore[assignment]
        sys.modules["omni"].__dict__["ext"] = sys.modules["omni.ext"]
        monkeypatch.delitem(sys.modules, NAME, raising=False)
        made = importlib.import_module(NAME).RetakeExtension()
        made.kit = kit
        yield made
    sys.modules.pop(NAME, None)


class Running:
    """A recording that is going on."""

    def __init__(self, closed: list[str], *, active: bool = True, fails: bool = False) -> None:
        self.status, self.closed, self.fails = SimpleNamespace(active=active), closed, fails

    def close(self, reason: str) -> None:
        self.closed.append(reason)
        if self.fails:
            raise OSError("no space left")


def test_an_autorun_that_is_going_on_is_cancelled(
    extension: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own end (the recording completed, the timeline stopped) is in its `finally`."""
    ended: list[str] = []

    async def run_file(path: Path) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(path.name)
        return 0

    monkeypatch.setattr(autorun, "run_file", run_file)
    extension.kit.settings["/exts/retake.isaac/autorun"] = str(tmp_path / "film.yaml")

    async def whole() -> None:
        extension.on_startup("retake.isaac-0.1.0")
        await asyncio.sleep(0)
        assert ended == []
        extension.on_shutdown()
        for _ in range(5):
            await asyncio.sleep(0)
        assert extension._autorun.cancelled()

    asyncio.run(whole())
    assert ended == ["film.yaml"]


@pytest.mark.parametrize("setting", [None, ""])
def test_without_an_autorun_nothing_is_started(
    extension: Any, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(autorun, "start", started.append)
    if setting is not None:
        extension.kit.settings["/exts/retake.isaac/autorun"] = setting
    extension.on_startup("x")
    extension.on_shutdown()
    assert started == []


def test_an_autorun_s_file_is_found_from_where_the_user_stands(
    extension: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "film.yaml").write_text("output: x\n")
    monkeypatch.chdir(tmp_path)
    started: list[Path] = []
    monkeypatch.setattr(autorun, "start", lambda path: started.append(path) or SimpleNamespace(cancel=lambda: None))
    extension.kit.settings["/exts/retake.isaac/autorun"] = "film.yaml"
    extension.on_startup("x")
    assert started == [tmp_path / "film.yaml"]
    extension.on_shutdown()


def test_shutdown_takes_back_what_start_up_put_in_place_and_does_so_once(extension: Any) -> None:
    kit = extension.kit
    before = (len(kit.update_callbacks), len(kit.timeline_callbacks))
    extension.on_startup("x")
    assert "RetakeWriter" in kit.registry
    kit.play()
    kit.update(2)
    kit.stop()
    kit.update(2)
    assert not stops.STOPS.quiet, "Stops are watched"
    extension.on_shutdown()
    assert kit.registry == {}
    assert stops.STOPS.quiet
    assert (len(kit.update_callbacks), len(kit.timeline_callbacks)) == before
    kit.registry["RetakeWriter"] = "another version's"
    extension.on_shutdown()
    assert kit.registry == {"RetakeWriter": "another version's"}


def test_every_recording_that_is_going_on_is_completed(
    extension: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []
    listed = [Running(closed, fails=True), Running(closed, active=False), Running(closed, fails=True), Running(closed)]
    monkeypatch.setattr(live_capture, "RUNNING", listed)
    extension.on_startup("x")
    with caplog.at_level(logging.WARNING, NAME):
        extension.on_shutdown()
    assert closed == ["the extension was disabled"] * 3
    assert [record.getMessage() for record in caplog.records] == ["Retake shutdown: no space left"] * 2
    assert extension.kit.registry == {}


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_thing_put_in_place_is_taken_back_first_whatever_fails(
    extension: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    done: list[str] = []

    def taking_back(name: str) -> Callable[[], None]:
        def undo() -> None:
            done.append(name)
            if fails:
                raise ValueError(f"{name} is gone")

        return undo

    monkeypatch.setattr(writer, "register", lambda: done.append("+writer") or taking_back("-writer"))
    watch = SimpleNamespace(install=lambda: done.append("+stops"), uninstall=taking_back("-stops"))
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, NAME):
        patched.setattr(stops, "STOPS", watch)
        extension.on_startup("x")
        extension.on_shutdown()
    assert done == ["+writer", "+stops", "-stops", "-writer"]
    assert len(caplog.records) == (2 if fails else 0)
    extension.on_shutdown()
    assert len(done) == 4


@pytest.mark.parametrize("missing", ["writer", "stops"])
def test_a_part_that_this_version_lacks_is_told_and_the_others_are_taken_back(
    extension: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    def refused() -> Any:
        raise RetakeError("this version has none")

    done: list[str] = []
    monkeypatch.setattr(writer, "register", refused if missing == "writer" else lambda: lambda: done.append("-writer"))
    watch = SimpleNamespace(install=refused, uninstall=lambda: done.append("-stops"))
    monkeypatch.setattr(stops, "STOPS", watch)
    with caplog.at_level(logging.ERROR, NAME):
        extension.on_startup("x")
    assert [record.getMessage() for record in caplog.records] == ["Retake is incomplete: this version has none"]
    extension.on_shutdown()
    assert done == ([] if missing == "writer" else ["-writer"])
