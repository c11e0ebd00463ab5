# SPDX-License-Identifier: Apache-2.0
"""The view-model's ports, implemented with Kit, processes and the worker client."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retake.core.config import RunConfig
from retake.core.errors import RetakeError, WorkerError
from retake.core.files import read_json
from retake.core.run_store import create_run
from retake.core.worker_client import WorkerClient
from retake.isaac import kit, options, processes
from retake.isaac.extension import track
from retake.isaac.live_capture import LiveCapture
from retake.isaac.preview import Preview
from retake.isaac.request import CaptureRequest
from retake.isaac.stepped import drive_stepped
from retake.ui.ports import SceneContent
from retake.ui.state import Choice, TakeRow, WorkerRow
from retake.usd.articulation import read_articulations
from retake.usd.bodies import read_objects
from retake.usd.camera import camera_prims, read_camera


class StageScene:
    """The stage that is open in Kit."""

    def __init__(self) -> None:
        self._known: tuple[Any, SceneContent] = (None, SceneContent())
        self._demo: Any = None

    def look(self) -> SceneContent:
        """Read it again only when the stage or its number of prims changed: Traverse costs milliseconds."""
        stage = kit.require("omni.usd").get_context().get_stage()
        if stage is None:
            return SceneContent(problem="No stage is open.")
        mark = (stage.GetRootLayer().identifier, sum(1 for _ in stage.Traverse()))
        if mark != self._known[0]:
            self._known = (mark, scene_content(stage))
        return self._known[1]

    def open_demo(self) -> None:
        """Open the pick-and-place stage."""
        path = processes.repository() / "exts/retake.isaac/examples/pick_place.py"
        spec = importlib.util.spec_from_file_location("retake_demo", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._demo = asyncio.ensure_future(module.open_demo())


def scene_content(stage: Any) -> SceneContent:
    """What of a stage can be recorded; the first robot, camera and all objects chosen."""
    try:
        robots = read_articulations(stage)
    except RetakeError as error:
        return SceneContent(problem=str(error))
    try:
        prims = camera_prims(stage)
    except RetakeError as error:
        return SceneContent(problem=str(error))
    cameras, usable = [], False
    for prim in prims:
        try:
            read_camera(prim, (640, 480))
            cameras.append(Choice(str(prim.GetPath()), prim.GetName(), not usable))
            usable = True
        except RetakeError as error:
            cameras.append(Choice(str(prim.GetPath()), prim.GetName(), False, str(error)))
    try:
        objects = tuple(Choice(o.spec.prim_path, o.spec.name, True, o.spec.label) for o in read_objects(stage, robots))
    except RetakeError as error:
        return SceneContent(problem=str(error))
    chosen = tuple(Choice(r.spec.prim_path, r.spec.name, True, f"{len(r.spec.dof_names)} joints") for r in robots)
    return SceneContent(chosen, tuple(cameras), objects)


class KitStarter:
    """Recordings in this Kit, generations in a process of their own."""

    def __init__(self, preview: Preview) -> None:
        self._preview = preview
        self._driver: Any = None

    def record(self, request: CaptureRequest) -> LiveCapture:
        """A live recording, or a stepped one where live cannot be exact."""
        create_run(Path(request.output).parent, RunConfig().to_json())
        capture = LiveCapture(request, on_frame=lambda index, frame: self._show(capture, index, frame))
        capture.start()
        track(capture)
        if capture.stepped:
            self._driver = asyncio.ensure_future(drive_stepped(capture))
        return capture

    def _show(self, capture: LiveCapture, index: int, frame: Any) -> None:
        self._preview.header = capture.header
        self._preview.show(index, frame)

    def generate(self, run: Path, camera: str, settings: Sequence[str]) -> ArrowGeneration:
        """`retake run` on the run folder."""
        python = processes.find_python(str(options.read("python", "")))
        return ArrowGeneration(processes.Process(processes.arrow_command(python, run, [f"camera={camera}", *settings])))

    def takes(self, run: Path) -> tuple[TakeRow, ...]:
        """From the run folder: a variant without a take waits, a take with its take.json is done."""
        rows = []
        folder = run / "takes"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.is_dir() or path.name.startswith("."):
                continue
            if (path / "take.json").exists():
                try:
                    note = str(read_json(path / "take.json").get("backend", ""))
                except (OSError, ValueError):
                    note = ""
                rows.append(TakeRow(path.name, "done", 1.0, note))
            else:
                rows.append(TakeRow(path.name, "running"))
        return tuple(rows)

    def open_path(self, path: Path) -> None:
        """With the desktop's own program."""
        if sys.platform == "win32":
            os.startfile(path)  # type: ignore[attr-defined]
            return
        opener = "open" if sys.platform == "darwin" else "xdg-open"
        subprocess.Popen([opener, str(path)], env=processes.clean_environment(), start_new_session=True)


class ArrowGeneration:
    """A generation under way."""

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
