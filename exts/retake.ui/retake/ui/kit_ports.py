# SPDX-License-Identifier: Apache-2.0
"""The view-model's ports, implemented with Kit, processes and the worker client."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retake.core.config import RunConfig
from retake.core.errors import InputError, RetakeError, WorkerError
from retake.core.run_layout import is_take_of
from retake.core.run_reader import RunReader
from retake.core.run_store import create_run
from retake.core.worker_client import WorkerClient
from retake.isaac import autorun, kit, options, processes
from retake.isaac.live_capture import LiveCapture
from retake.isaac.preview import Preview
from retake.isaac.request import CaptureRequest, CaptureStatus
from retake.isaac.stepped import drive_stepped
from retake.ui.kit_scene import demo_script, is_demo, quietly
from retake.ui.state import ExportRow, TakeRow, WorkerRow

DEMO_TIMEOUT_S = 1800.0


class KitRecording:
    """A recording in this Kit, and the timeline it follows."""

    def __init__(self, capture: LiveCapture) -> None:
        self._capture = capture

    @property
    def status(self) -> CaptureStatus:
        """Where it stands."""
        return self._capture.status

    @property
    def paused(self) -> bool:
        """Whether the timeline stands still. A stepped recording stops it for every frame: that is no pause."""
        return not self._capture.stepped and not _timeline().is_playing()

    def pause(self) -> None:
        """Press Pause. Raises InputError for a stepped recording."""
        if self._capture.stepped:
            raise InputError("a stepped recording drives the timeline itself and cannot be paused; stop it instead")
        timeline = _timeline()
        timeline.pause()
        timeline.commit()

    def resume(self) -> None:
        """Press Play."""
        timeline = _timeline()
        timeline.play()
        timeline.commit()

    def stop(self, reason: str) -> None:
        """End it."""
        self._capture.stop(reason)


def _timeline() -> Any:
    return kit.require("omni.timeline").get_timeline_interface()


class KitStarter:
    """Recordings in this Kit, generations in a process of their own."""

    def __init__(self, preview: Preview) -> None:
        self._preview = preview
        self._driver: Any = None
        self._dialog: Any = None

    def record(self, request: CaptureRequest) -> KitRecording:
        """A live recording, or a stepped one where live cannot be exact. The demo's robot is driven and plays at once."""
        run = Path(request.output).parent
        new = not run.exists()
        try:
            create_run(run, RunConfig().to_json())
            return self._started(request)
        except BaseException:
            if new:
                shutil.rmtree(run, ignore_errors=True)  # what is refused leaves no trace
            raise

    def _started(self, request: CaptureRequest) -> KitRecording:
        capture = LiveCapture(request, on_frame=lambda index, frame: self._show(capture, index, frame))
        motion = None
        if is_demo(kit.require("omni.usd").get_context().get_stage()):
            motion = autorun.Trajectory.load(demo_script().TRAJECTORY, capture)
            capture.limit(request.frames or motion.frames(request.fps))
        capture.start()
        self._preview.clear()
        if motion is not None:
            self._driver = asyncio.ensure_future(quietly(autorun.record(capture, motion, DEMO_TIMEOUT_S)))
        elif capture.stepped:
            self._driver = asyncio.ensure_future(quietly(drive_stepped(capture)))
        return KitRecording(capture)

    def _show(self, capture: LiveCapture, index: int, frame: Any) -> None:
        self._preview.header = capture.header
        self._preview.show(index, frame)

    def generate(self, run: Path, settings: Sequence[str]) -> ArrowGeneration:
        """`retake run` on the run folder."""
        python = processes.find_python(str(options.read("python", "")))
        command = processes.arrow_command(python, run, settings)
        if config := str(options.read("config", "")):
            command += ["--config", str(options.locate(config))]
        return ArrowGeneration(processes.Process(command))

    def export(self, run: Path, out: Path, wanted: ExportRow) -> ArrowGeneration:
        """`retake export` of the run folder."""
        python = processes.find_python(str(options.read("python", "")))
        return ArrowGeneration(processes.Process(processes.export_command(python, run, out, export_arguments(wanted))))

    def takes(self, run: Path) -> tuple[TakeRow, ...]:
        """From the run folder: a variant without a take waits, a take with its take.json is done."""
        reader = RunReader(run)
        rows = [TakeRow(t.id, "done", 1.0, t.backend, reader.standing(t).status) for t in reader.takes()]
        rows += [TakeRow(d.id, "done", 1.0, "", "damaged") for d in reader.damaged() if d.kind == "take"]
        rows += [TakeRow(name, "running") for name in reader.unfinished_takes()]
        begun = [row.name for row in rows]
        waiting = [v.id for v in reader.variants() if not any(is_take_of(name, v.id) for name in begun)]
        return (*sorted(rows, key=lambda row: row.name), *(TakeRow(name, "waiting") for name in waiting))

    def pick_folder(self, start: Path, picked: Callable[[str], None]) -> None:
        """Kit's own file dialog, for folders. Raises MissingDependencyError where this application has none."""
        dialogs = kit.require("omni.kit.window.filepicker")

        def choose(name: str, folder: str) -> None:
            self._dialog.hide()
            picked(str(Path(folder, name)) if name else folder)

        self._dialog = dialogs.FilePickerDialog(
            "Run folder",
            allow_multi_selection=False,
            apply_button_label="Select",
            click_apply_handler=choose,
            click_cancel_handler=lambda name, folder: self._dialog.hide(),
            current_directory=str(start),
        )

    def open_path(self, path: Path) -> None:
        """With the desktop's own program."""
        if sys.platform == "win32":
            os.startfile(path)  # type: ignore[attr-defined]
            return
        opener = "open" if sys.platform == "darwin" else "xdg-open"
        subprocess.Popen([opener, str(path)], env=processes.clean_environment(), start_new_session=True)


def export_arguments(wanted: ExportRow) -> list[str]:
    """The options of `retake export`."""
    flags = {
        "--only-commercial": wanted.only_commercial,
        "--include-sim": wanted.include_sim,
        "--append": wanted.append,
    }
    least = ["--min-verdict", f"{wanted.min_verdict:g}"] if wanted.min_verdict else []
    return ["--format", wanted.format, *least, *(flag for flag, asked in flags.items() if asked)]


class ArrowGeneration:
    """A generation or an export under way."""

    def __init__(self, process: processes.Process) -> None:
        self._process = process

    def advance(self) -> tuple[str, int, int, str]:
        """Newest progress."""
        now = self._process.advance
        return now.stage, now.done, now.total, now.note

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exit_code

    def last_words(self) -> str:
        """Its last lines."""
        return self._process.last_words

    def cancel(self) -> None:
        """Ask it to stop."""
        self._process.cancel()


class WorkerLink:
    """The worker, asked on a thread of its own: an answer that is slow must not stop the picture."""

    def __init__(self, runs: Path, period_s: float = 2.0) -> None:
        self._runs, self._period_s = runs, period_s
        self.watched = True
        """Whether anybody looks; a worker is not asked for nobody."""
        self._row = WorkerRow()
        self._process: processes.Process | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="retake-worker-link", daemon=True)
        self._thread.start()

    def row(self) -> WorkerRow:
        """The newest that is known."""
        return self._row

    def start(self) -> None:
        """`retake worker` in its environment."""
        python = processes.find_python(str(options.read("python", "")), worker=True)
        self._runs.mkdir(parents=True, exist_ok=True)
        self._process = processes.Process(processes.worker_command(python, [self._runs]))
        self._row = WorkerRow("starting", actions=frozenset({"stop_worker"}))

    def stop(self) -> None:
        """End a worker started here; one that runs elsewhere is paused."""
        if self._process is not None:
            process, self._process = self._process, None
            threading.Thread(target=process.close, daemon=True).start()
        else:
            self._later(lambda client: client.pause())

    def free(self) -> None:
        """Release the model's memory."""
        self._later(lambda client: client.release())

    def close(self) -> None:
        """Stop asking; a worker keeps running."""
        self._ended.set()

    def _later(self, call: Any) -> None:
        def work() -> None:
            try:
                call(WorkerClient.discover())
            except RetakeError as error:
                self._row = WorkerRow("unreachable", str(error))

        threading.Thread(target=work, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(self._period_s):
            if not self.watched:
                continue
            try:
                status = WorkerClient.discover(timeout_s=2.0).status()
            except WorkerError:
                starting = self._process is not None and self._process.exit_code is None
                self._row = WorkerRow("starting", actions=frozenset({"stop_worker"})) if starting else WorkerRow()
                continue
            except RetakeError as error:
                self._row = WorkerRow("unreachable", str(error))
                continue
            self._row = worker_row(status)


def worker_row(status: Any) -> WorkerRow:
    """A worker's status as a row."""
    state = "paused" if status.paused else "busy" if status.running else "idle"
    queued = status.counts.get("queued", 0)
    gpu = status.gpus[0] if status.gpus else None
    vram = (
        f"{gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB VRAM free" if gpu is not None else "no GPU"
    )
    return WorkerRow(state, status.waiting or f"{queued} queued", vram, frozenset({"stop_worker", "free_vram"}))
