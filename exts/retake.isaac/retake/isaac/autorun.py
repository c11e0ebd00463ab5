# SPDX-License-Identifier: Apache-2.0
"""Headless recording inside a running Kit: open the stage, play, record, generate, quit with an exit code.

    isaac-sim.sh --no-window --ext-folder exts --enable retake.isaac --/exts/retake.isaac/autorun=config/autorun.yaml

Exit codes are those of the command line (docs/cli.md): 0 good, 1 a defect (with its traceback), 2 wrong input, 5 the
episode's motion fails its check, 6 the system refused to write.
Progress goes to stdout, one line per step, so a farm's log shows it; the code is also in run.json and in the last line
(python.sh turns every failure into 1: `leaving`).
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.config import RunConfig
from retake.core.errors import InputError, RetakeError
from retake.core.files import user_path
from retake.core.joint_motion import read_motion
from retake.core.run_layout import RunLayout
from retake.core.run_store import create_run
from retake.isaac import kit, processes, timeline
from retake.isaac.leaving import note_exit, quit_application, say
from retake.isaac.live_capture import IN_PYTHON, LiveCapture
from retake.isaac.options import EXTRA, load_autorun, quits
from retake.isaac.request import SETTINGS, CaptureRequest, Phase
from retake.isaac.stage_open import open_stage
from retake.isaac.stepped import drive_stepped


async def run_file(path: Path) -> int:
    """Run an autorun YAML; returns the exit code. Never raises: a farm needs a code, not a stack."""
    folder: list[Path] = []

    async def whole() -> int:
        request, options = load_autorun(path)
        if request.output:
            folder.append(user_path(request.output).absolute())
        return await run(request, options)

    code, message = await _run_and_explain(whole())
    if folder:
        note_exit(folder[0], code, message)
    return code


async def exit_code_of(work: Awaitable[int]) -> int:
    """The exit code of some work, whatever it raises; the reason goes to stdout."""
    return (await _run_and_explain(work))[0]


async def _run_and_explain(work: Awaitable[int]) -> tuple[int, str]:
    """(exit code, reason) of some work; the reason of a failure goes to stdout, too."""
    try:
        code = await work
        return code, "" if code == 0 else "see the lines above"
    except RetakeError as error:
        say(f"error: {error}")
        return error.exit_code, str(error)
    except OSError as error:
        say(f"error: {error}")
        return 6, str(error)
    except Exception as error:  # without a code the application would never quit
        say(f"defect: {traceback.format_exc()}")
        return 1, f"{type(error).__name__}: {error}"


async def run(request: CaptureRequest, options: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> int:
    """Record one episode and, if asked, make its variants and takes; returns the exit code.

    `request.output` is the run folder; `options` are those of options.EXTRA; `settings` go into the episode's header.
    """
    options = {**EXTRA, **options}
    if not request.output:
        raise InputError(f"{SETTINGS}/output is empty; give the run folder that the recording goes to")
    run_folder = user_path(request.output).absolute()
    request = replace(request, output=str(RunLayout(run_folder).captured_episode))
    create_run(run_folder, RunConfig().to_json())
    if options["stage"]:
        await open_stage(options["stage"], float(options["timeout_s"]))
    capture = LiveCapture(request, settings=settings)
    controller = Trajectory.load(Path(options["trajectory"]), capture) if options["trajectory"] else None
    if controller is not None and not request.frames:
        capture.limit(controller.frames(request.fps))
    capture.start()
    say(f"recording {len(capture.content.robots) if capture.content else 0} robots to {request.output}")
    await record(capture, controller, float(options["timeout_s"]))
    episode, (p50, p99) = capture.episode, capture.costs.now()
    say(
        f"episode: {len(episode)} frames, dropped 0, callback p50 {p50:.2f} ms p99 {p99:.2f} ms, slowed by the disk for "
        f"{capture.status.waited_s:.1f} s"
    )
    if not options["generate"]:
        return 0
    return await generate(run_folder, options)


async def record(capture: LiveCapture, controller: Trajectory | None, timeout_s: float) -> None:
    """Play until the recording ends. Raises what ended it badly, InputError when it never ends."""
    app = kit.require("omni.kit.app").get_app()
    deadline, reported, late, noted = time.monotonic() + timeout_s, 0, "", set[str]()

    def before_update() -> None:
        nonlocal reported, late
        if controller is not None and capture.status.phase in (Phase.WAITING, Phase.RECORDING):
            controller.command()
        written = capture.status.written
        if written >= reported + 15:
            reported = written
            say(f"recorded {written}/{capture.request.frames or '?'} frames")
        for note in capture.notes:  # as they come: an update that takes seconds is told while it does
            if note not in noted:
                noted.add(note)
                say(f"note: {note}")
        if time.monotonic() > deadline and not late:
            late = capture.waits_for
            capture.stop("time limit")

    try:
        if controller is not None:
            controller.check()  # before anything moves
        if capture.stepped:
            await drive_stepped(capture, before_update=before_update)
        else:
            timeline.play()
        while capture.status.active:
            before_update()
            await app.next_update_async()
    finally:
        timeline.stop()
        if capture.status.active:  # a driver that failed, or an autorun that was cancelled
            capture.close("ended early")
        before_update()
    if late:
        raise InputError(
            f"the recording did not end within {timeout_s:g} s (waiting for {late}); set `frames`, or raise `timeout_s`"
        )
    if capture.status.phase is Phase.FAILED:
        raise capture.failure


async def generate(run_folder: Path, options: Mapping[str, Any]) -> int:
    """The rest of the arrow, over every recorded camera, in its own process; progress on stdout, its exit code as result."""
    app = kit.require("omni.kit.app").get_app()
    command = processes.arrow_command(processes.find_python(options["python"]), run_folder, [])
    if options["config"]:
        command += ["--config", str(Path(options["config"]).absolute())]
    process, reported = processes.Process(command), ""
    while process.exit_code is None:
        await app.next_update_async()
        await asyncio.sleep(0.05)
        now = process.advance
        line = f"{now.stage} {now.done}/{now.total} {now.note}".strip()
        if now.stage and line != reported:
            reported = line
            say(line)
    code = process.exit_code or 0
    say(f"report: {run_folder / 'report.html'}" if code == 0 else process.last_words)
    return code


class Trajectory:
    """Joint positions over time of any of the recorded robots, commanded as drive targets while the timeline runs.

    File: a motion file (docs/motion.md), .npz or .csv, as the embedded simulator takes it.
    """

    def __init__(
        self, joints: Sequence[str], time_s: Any, position: Any, capture: LiveCapture, file: Path | str = IN_PYTHON
    ) -> None:
        """`file` is what errors call the source of the names."""
        self.joints, self.file = tuple(joints), file
        self.at, self.position = np.asarray(time_s, np.float64), np.asarray(position, np.float64)
        self._capture = capture

    @staticmethod
    def load(path: Path, capture: LiveCapture) -> Trajectory:
        """Of a motion file. Raises InputError as `read_motion` does."""
        motion = read_motion(path)
        return Trajectory(motion.names, motion.time_s, motion.position, capture, path)

    def frames(self, fps: float) -> int:
        """Frames of an episode that covers it."""
        return round(float(self.at[-1] - self.at[0]) * fps) + 1

    def target(self, time_s: float) -> np.ndarray[Any, Any]:
        """Joint positions (J,) at a time after its beginning, linearly between samples."""
        t = np.clip(time_s + self.at[0], self.at[0], self.at[-1])
        return np.array([np.interp(t, self.at, column) for column in self.position.T])

    def check(self) -> None:
        """Look for its joints among the robots of a started recording. Raises InputError, and the recording ends with it."""
        try:
            self._capture.find_joints(self.joints, self.file)
        except RetakeError as error:
            self._capture.fail(error)
            raise

    def command(self) -> None:
        """Set the targets of the recording's time; called before an update."""
        self._capture.command(self.joints, self.target(self._capture.elapsed_s), self.file)


def start(path: Path, *, post_quit: Callable[[int], None] | None = None) -> Any:
    """Schedule an autorun on Kit's loop and quit with its exit code (the extension's start-up calls this), unless the
    file or the settings say `quit: false`."""

    async def whole() -> None:
        code = await run_file(path)
        if quits(path):
            (post_quit or quit_application)(code)
        else:
            say(f"exit code {code}")

    return asyncio.ensure_future(whole())
