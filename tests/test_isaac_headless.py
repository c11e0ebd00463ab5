# SPDX-License-Identifier: Apache-2.0
"""Headless runs on a farm: an application that is still starting, stages that load or are replaced, exit codes that survive,
time-outs that say what they waited for, and a shutdown that hangs."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fakes.kit import FakeKit, Nothing
from isaac_support import check_exact, motion

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.isaac import autorun, leaving, stage_open, standalone, watch
from retake.isaac.request import CaptureStatus, Phase


def config(folder: Path, **changes: Any) -> Path:
    """An autorun file of a small recording with a stage of its own."""
    (folder / "s.usda").write_text("#usda 1.0\n")
    values = {
        "output": str(folder / "run"), "stage": str(folder / "s.usda"), "width": 32, "height": 24, "frames": 4,
        "generate": False, **changes,
    }  # fmt: skip
    path = folder / "autorun.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(path: Path) -> int:
    return asyncio.run(autorun.run_file(path))


@pytest.mark.parametrize("mode", ["live", "stepped"])
@pytest.mark.parametrize("version", ["5.1", "6.x"])
def test_an_autorun_waits_for_an_application_that_is_starting(version: str, mode: str, tmp_path: Path) -> None:
    """isaac-sim.sh opens an empty stage one update after its start."""
    source = motion()
    with FakeKit(version, Nothing(), starting=True, loading_updates=4, on_open=lambda url: source) as kit:
        assert run(config(tmp_path, mode=mode)) == 0
        check_exact(open_episode(tmp_path / "run/episode"), source, 4)
        kit.update(20)
        assert kit.changed_settings() == {}


@pytest.mark.parametrize(("times", "code"), [(1, 0), (2, 0), (9, 2)])
def test_a_stage_that_something_replaces_is_opened_again_and_not_for_ever(
    times: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, left = motion(), [times]
    with FakeKit("6.x", Nothing()) as kit:

        def opened(url: str) -> Any:
            if left[0]:
                left[0] -= 1
                kit.at(3, lambda: kit.show(Nothing(), ""))
            return source

        kit.options.on_open = opened
        assert run(config(tmp_path)) == code
    assert ("something replaced it" in capsys.readouterr().out) is bool(code)


def test_a_stage_that_never_loads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(stage_open.time, "monotonic", lambda: float(next(clock)))
    with (
        FakeKit("6.x", Nothing(), loading_updates=10**6, on_open=lambda url: motion()),
        pytest.raises(InputError, match=r"s\.usda was not loaded within 50 s \(waiting for \d+ files of the stage\)"),
    ):
        asyncio.run(stage_open.open_stage(Path(config(tmp_path).parent, "s.usda"), 50))


def test_an_application_that_never_gets_ready_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(stage_open.time, "monotonic", lambda: float(next(clock)))
    with FakeKit("6.x", motion()) as kit:
        kit.options.starting = True
        monkeypatch.setattr(FakeKit, "ready", False)
        with pytest.raises(InputError, match="not ready within 50 s"):
            asyncio.run(stage_open.application_ready(50))


def test_an_application_that_cannot_say_whether_it_is_ready_counts_as_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(stage_open.time, "monotonic", lambda: float(next(clock)))
    with FakeKit("6.x", motion()):
        app = stage_open.require("omni.kit.app").get_app()
        older = SimpleNamespace(next_update_async=app.next_update_async)
        monkeypatch.setattr(stage_open.require("omni.kit.app"), "get_app", lambda: older)
        asyncio.run(stage_open.application_ready(50))


class Counting:
    """A recording of 45 frames, one per look at it."""

    stepped, request, waits_for, frames = False, SimpleNamespace(frames=45), "", 0

    @property
    def status(self) -> CaptureStatus:
        return CaptureStatus(Phase.RECORDING if self.frames < 45 else Phase.DONE, written=self.frames)

    @property
    def notes(self) -> tuple[str, ...]:
        self.frames += 1
        return ()


def test_progress_is_said_every_fifteen_frames(capsys: pytest.CaptureFixture[str]) -> None:
    recording: Any = Counting()
    with FakeKit("6.x", motion()):
        asyncio.run(autorun.record(recording, None, 60))
    said = [line for line in capsys.readouterr().out.splitlines() if "recorded" in line]
    assert [line.split("recorded ")[1] for line in said] == [f"{n}/45 frames" for n in (15, 30, 45)]


class TestExit:
    """What a farm learns."""

    @pytest.mark.parametrize(("changes", "code", "text"), [({}, 0, ""), ({"fps": 25}, 2, "do not divide")])
    def test_code_and_reason_are_in_run_json(
        self, changes: dict[str, Any], code: int, text: str, tmp_path: Path
    ) -> None:
        with FakeKit("6.x", Nothing(), on_open=lambda url: motion()):
            assert run(config(tmp_path, **changes)) == code
        told = json.loads((tmp_path / "run/run.json").read_text())["exit"]
        assert told["code"] == code
        assert text in told["message"]

    def test_the_last_line_says_the_code_and_an_unsaved_stage_asks_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with FakeKit(
            "6.x", Nothing(), application="full", starting=True, unsaved=True, on_open=lambda url: motion()
        ) as kit:

            async def whole() -> None:
                await autorun.start(config(tmp_path, fps=25))

            asyncio.run(whole())
            assert kit.vetoed == 0
            assert kit.settings["quit"] == 2
            assert kit.watchdogs == [2]
        assert capsys.readouterr().out.rstrip().endswith("retake: exit code 2")

    def test_a_time_limit_says_what_it_waited_for(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = motion()
        with FakeKit("6.x", Nothing(), on_open=lambda url: source) as kit:
            kit.options.silent_steps = ("manager", "core", "physx")
            assert run(config(tmp_path, mode="live", timeout_s=1e-9)) == 2
        # nothing is waited for longer than the limit, opening the stage included
        assert "waiting for" in capsys.readouterr().out

    def test_a_shutdown_that_hangs_ends_with_the_code_all_the_same(self, tmp_path: Path) -> None:
        """In a process of its own: `close` never returns."""
        script = (
            "import time\n"
            "from retake.isaac import leaving\n"
            "arm = leaving.arm\n"
            "leaving.arm = lambda code: arm(code, 0.3)\n"
            "class App:\n"
            "    def close(self, exit_code=0): time.sleep(600)\n"
            "leaving.leave(App(), 5)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
        assert done.returncode == 5
        assert done.stdout.rstrip().endswith("retake: exit code 5")

    def test_the_watchdog_waits_its_time_and_has_a_second_clock_where_it_ends_a_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slept: list[float] = []
        ended: list[int] = []
        clocks: list[tuple[float, bool]] = []
        monkeypatch.setattr(leaving.time, "sleep", slept.append)
        monkeypatch.setattr(
            leaving.faulthandler, "dump_traceback_later", lambda seconds, exit: clocks.append((seconds, exit))
        )
        leaving.arm(5, 12.0, ended.append).join()
        assert (slept, ended, clocks) == ([12.0], [5], [])
        monkeypatch.setattr(leaving.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
        leaving.arm(5, 12.0)
        assert clocks == [(42.0, True)]

    def test_a_folder_that_was_refused_keeps_no_trace(self, tmp_path: Path) -> None:
        leaving.note_exit(tmp_path / "nothing here", 2, "refused")
        assert list(tmp_path.iterdir()) == []


def test_updates_that_take_seconds_are_told_with_what_helps_while_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Headless 6.0.0 may fall to 10 s a frame."""
    seconds = iter(range(0, 10**7, 10))
    plain = watch.Watch.__init__
    monkeypatch.setattr(watch.Watch, "__init__", lambda self: plain(self, lambda: float(next(seconds))))
    with FakeKit("6.x", Nothing(), on_open=lambda url: motion()):
        assert run(config(tmp_path, mode="live")) == 0
    out = capsys.readouterr().out
    assert out.count("an update takes 10.0 s") == 1
    assert "IsaacSim#701" in out
    assert out.index("an update takes") < out.index("retake: episode:")


def test_an_extension_folder_missing_from_the_path_is_said_in_words(tmp_path: Path) -> None:
    """The packages share the namespace `retake` over several extension folders; one of them alone is not enough."""
    isaac = Path(leaving.__file__).resolve().parents[2]
    script = f"import sys; sys.path.insert(0, {str(isaac)!r}); import retake.isaac.kit"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert "retake.core is not on the path" in done.stderr
    assert "exts" in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "closed", "none"])
def test_the_application_quits_whatever_the_log_can_hold(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console of Windows, a farm's log, a pipe that is gone, an application without a console."""
    raw = io.BytesIO()
    log = io.TextIOWrapper(raw, encoding="ascii" if encoding in ("closed", "none") else encoding)
    with FakeKit("6.x", Nothing(), on_open=lambda url: motion()) as kit:
        path = config(tmp_path, cameras="/World/\u65e5\u672c")
        monkeypatch.setattr(sys, "stdout", None if encoding == "none" else log)
        if encoding == "closed":
            log.close()

        async def whole() -> None:
            await autorun.start(path)

        asyncio.run(whole())
        monkeypatch.undo()
        assert kit.settings["quit"] == 2
    if encoding in ("cp1252", "ascii"):
        assert b"unknown camera prim '/World/\\u65e5" in raw.getvalue()
        assert raw.getvalue().rstrip().endswith(b"exit code 2")


@pytest.mark.parametrize(
    ("stage", "opened"),
    [("omniverse://server/x.usd", True), ("https://server/x.usd", True), ("omniverse:/x.usd", False)],
)
def test_a_stage_may_be_an_address_that_kit_resolves(
    stage: str, opened: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, urls = motion(), []
    with FakeKit("6.x", Nothing(), on_open=lambda url: urls.append(url) or source):
        assert run(config(tmp_path, stage=stage)) == (0 if opened else 2)
    assert urls == ([stage] if opened else [])
    assert ("does not exist" in capsys.readouterr().out) is not opened


def test_an_autorun_without_an_output_does_not_take_the_folder_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, empty = config(tmp_path, output=""), tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with FakeKit("6.x", Nothing(), on_open=lambda url: motion()):
        assert run(path) == 2
    assert "/exts/retake.isaac/output is empty" in capsys.readouterr().out
    assert list(empty.iterdir()) == []


class TestCommandLine:
    """`python.sh -m retake.isaac.standalone`: SimulationApp hands every argument of the command line on to Kit."""

    def test_kit_is_given_its_arguments_and_not_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[list[str]] = []
        plain = standalone.simulation_app

        def started(**options: Any) -> Any:
            seen.append(list(sys.argv))
            return plain(**options)

        monkeypatch.setattr(standalone, "simulation_app", started)
        own = [str(config(tmp_path, fps=25)), "--window"]
        kits = ["--/exts/retake.isaac/frames=2", "--ext-folder", "/x", "--allow-root"]
        monkeypatch.setattr(sys, "argv", ["retake", *own, *kits])
        with FakeKit("6.x", Nothing(), on_open=lambda url: motion()) as kit:
            assert standalone.main() == 2
            assert kit.exit_code == 2
        assert seen == [["retake", *kits]]
        assert sys.argv == ["retake", *own, *kits]

    @pytest.mark.parametrize("module", ["standalone", "selftest"])
    def test_outside_isaac_sim_it_is_a_sentence_and_a_word_too_many_is_usage(self, module: str, tmp_path: Path) -> None:
        arguments = [str(tmp_path / "a.yaml")] if module == "standalone" else []
        command = [sys.executable, "-m", f"retake.isaac.{module}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode not in (0, 1)
        assert "SimulationApp cannot be imported here" in done.stderr
        assert "Traceback" not in done.stderr
        done = subprocess.run([*command, "word"], capture_output=True, text=True, timeout=100)
        assert done.returncode == 2
        assert "unrecognized argument: word" in done.stderr

    def test_a_defect_before_the_work_is_told_before_the_process_ends(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from retake.isaac import writer

        def refuses() -> Any:
            raise RuntimeError("the registry is broken")

        monkeypatch.setattr(writer, "register", refuses)
        with FakeKit("6.x", Nothing()) as kit:
            assert standalone.main([str(tmp_path / "a.yaml")]) == 1
            assert kit.exit_code == 1
        out = capsys.readouterr().out
        assert out.index("RuntimeError: the registry is broken") < out.index("retake: exit code 1")
