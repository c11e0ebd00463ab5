# SPDX-License-Identifier: Apache-2.0
"""Headless recording inside a running Kit: open the stage, play, record, generate, quit with an exit code.

    isaac-sim.sh --no-window --ext-folder exts --enable retake.isaac --/exts/retake.isaac/autorun=config/autorun.yaml

Exit codes are those of the command line (docs/cli.md): 0 good, 2 wrong input, 5 the episode's motion fails its check.
Progress goes to stdout, one line per step, so a farm's log shows it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.config import RunConfig
from retake.core.errors import InputError, RetakeError
from retake.core.run_store import create_run
from retake.isaac import kit, processes
from retake.isaac.live_capture import LiveCapture
from retake.isaac.options import load_autorun
from retake.isaac.request import CaptureRequest, Phase
from retake.isaac.stepped import drive_stepped


def say(text: str) -> None:
    """A line of progress."""
    sys.stdout.write(f"retake: {text}\n")
    sys.stdout.flush()


async def run_file(path: Path) -> int:
    """Run an autorun YAML; returns the exit code. Never raises: a farm needs a code, not a stack."""
    try:
        request, options = load_autorun(path)
        return await run(request, options)
    except RetakeError as error:
        say(f"error: {error}")
        return error.exit_code
    except OSError as error:
        say(f"error: {error}")
        return 6


async def run(request: CaptureRequest, options: dict[str, Any]) -> int:
    """Record one episode and, if asked, make its variants and takes. `request.output` is the run folder."""
    run_folder = Path(request.output).absolute()
    request = replace(request, output=str(run_folder / "episode"))
    create_run(run_folder, RunConfig().to_json())
    if options["stage"]:
        await open_stage(Path(options["stage"]))
    capture = LiveCapture(request)
    capture.start()
    controller = Trajectory.load(Path(options["trajectory"]), capture) if options["trajectory"] else None
    if controller is not None and not request.frames:
        capture.limit(controller.frames(request.fps))
    say(f"recording {len(capture.content.robots) if capture.content else 0} robots to {request.output}")
    await record(capture, controller, float(options["timeout_s"]))
    episode = capture.episode
    status = capture.status
    say(
        f"episode: {len(episode)} frames, dropped 0, "
        f"callback p50 {status.callback_ms[0]:.2f} ms p99 {status.callback_ms[1]:.2f} ms"
    )
    if not options["generate"]:
        return 0
    return await generate(run_folder, episode.header.cameras[0].name, options)


async def record(capture: LiveCapture, controller: Trajectory | None, timeout_s: float) -> None:
    """Play until the recording ends. Raises what ended it badly, InputError when it never ends."""
    app, timeline = kit.require("omni.kit.app").get_app(), kit.require("omni.timeline").get_timeline_interface()
    before = controller.command if controller is not None else None
    deadline, told = time.monotonic() + timeout_s, 0
    if capture.stepped:
        await drive_stepped(capture, before_update=before)
    else:
        timeline.play()
    while capture.status.active:
        if before is not None and not capture.stepped:
            before()
        await app.next_update_async()
        status = capture.status
        if status.written >= told + 15:
            told = status.written
            say(f"recorded {status.written}/{capture.request.frames or '?'} frames")
        if time.monotonic() > deadline:
            capture.stop("time limit")
            capture.close("time limit")
            raise InputError(f"the recording did not end within {timeout_s:g} s; set `frames`, or raise `timeout_s`")
    timeline.stop()
    if capture.status.phase is Phase.FAILED:
        raise capture.failure


async def generate(run_folder: Path, camera: str, options: dict[str, Any]) -> int:
    """The rest of the arrow in its own process; its progress on stdout, its exit code as the result."""
    app = kit.require("omni.kit.app").get_app()
    settings = [f"camera={camera}"]
    command = processes.arrow_command(processes.find_python(options["python"]), run_folder, settings)
    if options["config"]:
        command += ["--config", str(Path(options["config"]).absolute())]
    process, told = processes.Process(command), ""
    while process.exit_code is None:
        await app.next_update_async()
        await asyncio.sleep(0.05)
        now = process.advance
        line = f"{now.stage} {now.done}/{now.total} {now.note}".strip()
        if now.stage and line != told:
            told = line
            say(line)
    code = process.exit_code or 0
    say(f"report: {run_folder / 'report.html'}" if code == 0 else process.last_words)
    return code


async def open_stage(path: Path) -> None:
    """Open a USD file and wait until it is there. Raises InputError."""
    if not path.is_file():
        raise InputError(f"stage {path} does not exist; expected a USD file")
    context = kit.require("omni.usd").get_context()
    if not context.open_stage(str(path.absolute())):
        raise InputError(f"{path} could not be opened; see the log above")
    app = kit.require("omni.kit.app").get_app()
    for _ in range(30):
        await app.next_update_async()


class Trajectory:
    """Joint positions over time, commanded as drive targets while the timeline runs.

    File: the .npz of the embedded simulator (`joint_names` (J,), `time_s` (K,), `joint_position` (K, J)), rad and m.
    """

    def __init__(self, joints: Sequence[str], time_s: Any, position: Any, capture: LiveCapture) -> None:
        self.joints = tuple(joints)
        self.at, self.position = np.asarray(time_s, np.float64), np.asarray(position, np.float64)
        self._capture = capture

    @staticmethod
    def load(path: Path, capture: LiveCapture) -> Trajectory:
        """Raises InputError naming what the file lacks."""
        try:
            with np.load(path, allow_pickle=False) as data:
                joints = [str(name) for name in data["joint_names"]]
                return Trajectory(joints, data["time_s"], data["joint_position"], capture)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} is no trajectory (.npz with joint_names, time_s, joint_position): {type(error).__name__}: {error}"
            ) from error

    def frames(self, fps: float) -> int:
        """Frames of an episode that covers it."""
        return round(float(self.at[-1] - self.at[0]) * fps) + 1

    def target(self, time_s: float) -> np.ndarray[Any, Any]:
        """Joint positions (J,) at a time after its beginning, linearly between samples."""
        t = np.clip(time_s + self.at[0], self.at[0], self.at[-1])
        return np.array([np.interp(t, self.at, column) for column in self.position.T])

    def command(self) -> None:
        """Set the targets of the simulated time; called before an update."""
        self._capture.command(self.joints, self.target(self._capture.time_s))


def start(path: Path, *, quit_after: bool = True, post_quit: Callable[[int], None] | None = None) -> Any:
    """Schedule an autorun on Kit's loop and quit with its exit code (the extension's start-up calls this)."""

    async def whole() -> None:
        code = await run_file(path)
        say(f"exit code {code}")
        if quit_after:
            (post_quit or _quit)(code)

    return asyncio.ensure_future(whole())


def _quit(code: int) -> None:
    kit.require("omni.kit.app").get_app().post_quit(code)
