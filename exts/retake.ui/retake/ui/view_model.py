# SPDX-License-Identifier: Apache-2.0
"""The panel's decisions, without a widget: actions in, a frozen PanelState out. Runs and is tested outside Kit.

`tick()` is called once per update and never blocks: it looks at what recordings, processes and the worker have
reported by themselves. Errors become notices that say what to do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core.errors import RetakeError
from retake.core.files import user_path
from retake.core.run_layout import RunLayout
from retake.isaac.camera_text import camera_text, parse_channels
from retake.isaac.checks import is_suspicious
from retake.isaac.request import CaptureRequest
from retake.isaac.request import Phase as Capture
from retake.ui import folders
from retake.ui.choices import KINDS, as_settings_say, kept, with_camera, with_selected
from retake.ui.ports import Generation, Picture, Recording, Scene, SceneContent, Starter, Worker
from retake.ui.state import (
    ACTIONS,
    NEXT,
    Choice,
    ExportRow,
    Level,
    Notice,
    PanelState,
    Phase,
    prompts_of,
    with_share,
)

NOTICES = 4
FIELDS = (
    "task", "robot_file", "folder", "fps", "seconds", "mode", "width", "height", "contacts", "antialiasing", "count", "prompts",
    "frames_by", "seed", "backend",
)  # fmt: skip
"""What `ViewModel.set` changes, beside the fields of ExportRow."""
DEMO = "Press Record: the demo plays by itself and its takes are made at once."
TAKES_PERIOD_S = 0.5
"""Reading the run folder costs file accesses; not at every update."""


class ViewModel:
    """State and actions of the panel. Not thread-safe: it lives on Kit's main thread."""

    def __init__(
        self,
        scene: Scene,
        starter: Starter,
        worker: Worker,
        *,
        picture: Picture | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
        runs: Path = Path("runs"),
        worlds: tuple[Choice, ...] = (),
        datasets: Path | None = None,
        now: Callable[[], float] = time.time,
        settings: CaptureRequest | None = None,
    ) -> None:
        """`datasets`: where datasets go by default; None = beside the runs. `settings`: what the fields start from, and
        what has no field."""
        self._scene, self._starter, self._worker, self._picture = scene, starter, worker, picture
        self._notify, self._runs, self._now = notify, runs, now
        self._recording: Recording | None = None
        self._generation: Generation | None = None
        self._export: Generation | None = None
        self._datasets = datasets or runs.with_name("retake_datasets")
        self._run: Path | None = None
        self._exported_from = Phase.RECORDED
        self._looked = self._counted = -1.0
        self._demo = False
        self._content: SceneContent | None = None
        self._settings = settings or CaptureRequest()
        given = self._settings
        self.state = PanelState(
            worlds=worlds, message=NEXT[Phase.EMPTY], folder=given.output or self._new_folder(), task=given.task,
            fps=given.fps, seconds=given.frames / given.fps, mode=given.mode, width=given.width, height=given.height,
            channels=parse_channels(given.channels), contacts=given.contacts, antialiasing=given.antialiasing,
            seed=given.seed, robot_file=given.robot_file,
        )  # fmt: skip
        self._change(export_folder=self._export_folder())
        self._look(again=True)

    # -- actions ------------------------------------------------------------------------------------------------------

    def act(self, action: str) -> None:
        """Press a button. A press that means nothing now is a notice, not an error."""
        if not self.state.can(action):
            self.tell(
                Level.INFO,
                f"“{action.replace('_', ' ')}” does nothing while {self.state.phase.value}. {self.state.message}",
            )
            return
        try:
            getattr(self, action)()
        except RetakeError as error:
            self.tell(Level.ERROR, str(error))
        except OSError as error:
            self.tell(Level.ERROR, f"the system refused: {error}")

    def refresh(self) -> None:
        """Read the open stage again; what was chosen and is still there stays chosen."""
        self._look(again=True)

    def _look(self, again: bool = False) -> None:
        """Take over what the stage has, where it changed."""
        content = self._scene.look(again)
        if content is self._content and not again:
            return
        first = self._content is None or bool(self._content.problem)
        self._content = content
        if content.problem:
            phase = self.state.phase if self.state.phase in (Phase.RECORDED, Phase.GENERATED) else Phase.EMPTY
            self._change(phase=phase, robots=(), cameras=(), objects=(), message=content.problem)
            return
        self._demo = content.demo
        phase = self.state.phase if self.state.phase not in (Phase.EMPTY,) else Phase.READY
        self._change(
            phase=phase, **kept(self.state, {kind: getattr(content, kind) for kind in KINDS}),
            message=DEMO if content.demo and phase is Phase.READY else NEXT[phase],
            task=self.state.task or content.task,
        )  # fmt: skip
        if first:
            self._change(**as_settings_say(self.state, self._settings))

    def open_demo(self) -> None:
        """Open the demo stage; `tick` notices when it is there."""
        self._scene.open_demo()
        self._change(message="Opening the demo stage…")

    def add_selected(self) -> None:
        """Choose what is selected on the stage: prims that are a robot, camera or object, or lie inside one."""
        selected = self._scene.selected()
        lists, added = with_selected(self.state, selected)
        self._change(**lists)
        for choice in (c for kind in KINDS for c in getattr(self.state, kind) if c.problem):
            if any(path == choice.key or path.startswith(f"{choice.key}/") for path in selected):
                self.tell(Level.WARNING, f"{choice.name} cannot be recorded: {choice.problem}")
                return
        if added:
            self._change(message=f"Added: {', '.join(added)}.")
        else:
            self.tell(
                Level.INFO,
                f"Nothing that is selected can be recorded ({', '.join(selected) or 'nothing is selected'}); select a "
                "robot, a camera or a rigid object on the stage.",
            )

    def declare(self) -> None:
        """Write the declaration of the chosen robots as they were read, beside the stage or the runs, to be edited."""
        chosen = [c.key for c in self.state.robots if c.chosen and not c.problem]
        file, new = self._scene.declare(chosen, self._runs)
        self._change(robot_file=str(file))
        what = "Written" if new else "It is there already"
        self._change(message=f"{what}: {file}. Edit it; the next recording reads it.")
        self._starter.open_path(file)

    def self_test(self) -> None:
        """Measure on the open stage what Retake assumes about Isaac Sim; two files to attach lie beside the runs."""
        out = folders.typed(self.state.folder).parent / "retake-selftest"
        self._scene.self_test(out, lambda text: self._change(message=text))
        self._change(message="Self-test: it plays the stage twice and takes about a minute…")

    def set_camera(self, key: str, name: str, value: Any) -> None:
        """A camera's own `width`, `height`, or a channel (`depth`, `normals`, `instances`) on or off."""
        self._change(cameras=with_camera(self.state, key, name, value))

    def pick_folder(self) -> None:
        """Choose the run folder in a dialog."""
        self._starter.pick_folder(user_path(self.state.folder).parent, lambda path: self.set("folder", path))

    def choose(self, kind: str, key: str, chosen: bool = True) -> None:
        """Pick or drop one robot, camera, object or world (`kind` = robots, cameras, objects, worlds)."""
        choices = tuple(replace(c, chosen=chosen) if c.key == key else c for c in getattr(self.state, kind))
        self._change(**{kind: choices})

    def set(self, name: str, value: Any) -> None:
        """Change a field of FIELDS, or `export_` and a field of ExportRow. Prompts need a backend that reads them: the
        panel changes `procedural` to `auto`, and says so."""
        if name.startswith("export_"):
            self._set_export(name.removeprefix("export_"), value)
            return
        if name not in FIELDS:
            raise AttributeError(name)
        self._change(**{name: type(getattr(self.state, name))(value)})
        if self.state.prompts.strip(" ;") and self.state.frames_by == "procedural":
            self._change(frames_by="auto", message="Prompts are painted by a model: first frames by `auto` on the GPU")
        self._change(export_folder=self._export_folder())

    def record(self) -> None:
        """Begin recording; it starts with the first physics step after Play."""
        run = folders.typed(self.state.folder)
        if run == self._run and self.state.phase in (Phase.RECORDED, Phase.GENERATED):
            run = Path(self._new_folder())  # a run holds one episode: the next one gets a folder of its own
            self._change(folder=str(run))
        request = replace(
            self._settings,
            output=str(RunLayout(run).captured_episode),
            robots=tuple(c.key for c in self.state.robots if c.chosen and not c.problem),
            cameras=tuple(camera_text(c.key, c.size, c.channels) for c in self.state.cameras if c.chosen),
            objects=tuple(c.key for c in self.state.objects if c.chosen),
            robot_file=self.state.robot_file.strip(),
            task=self.state.task,
            fps=self.state.fps,
            width=self.state.width,
            height=self.state.height,
            channels=self.state.channels,
            frames=round(self.state.seconds * self.state.fps),
            mode=self.state.mode,  # type: ignore[arg-type]
            contacts=self.state.contacts,  # type: ignore[arg-type]
            antialiasing=self.state.antialiasing,  # type: ignore[arg-type]
            seed=self.state.seed,
        )
        self._recording, self._run = self._starter.record(request), run
        self._change(export_folder=self._export_folder())
        self._change(phase=Phase.ARMED, frames=0, queued=0, picture=-1, takes=(), message=NEXT[Phase.ARMED])

    def pause(self) -> None:
        """Let the simulation stand still; the episode goes on where it was."""
        if self._recording is not None:
            self._recording.pause()

    def resume(self) -> None:
        """Let it move on."""
        if self._recording is not None:
            self._recording.resume()

    def stop(self) -> None:
        """End the recording."""
        if self._recording is not None:
            self._recording.stop("stopped in the panel")
            self._change(phase=Phase.SAVING, message=NEXT[Phase.SAVING])

    def generate(self) -> None:
        """Variants, takes and verdicts of the recorded episode, in a process of their own."""
        assert self._run is not None
        worlds = [c.key for c in self.state.worlds if c.chosen]
        settings = [
            "cameras=[]",
            f"variants.presets=[{', '.join(worlds)}]", f"variants.count={self.state.count}", f"variants.seed={self.state.seed}",
            f"variants.prompts={json.dumps(prompts_of(self.state), ensure_ascii=False)}",
            f"variants.backend={self.state.frames_by}", f"takes.backend={self.state.backend}", f"takes.seed={self.state.seed}",
        ]  # fmt: skip
        self._generation = self._starter.generate(self._run, settings)
        self._counted = -1.0
        self._change(phase=Phase.GENERATING, stage_line="", share=0.0, message=NEXT[Phase.GENERATING])

    def cancel(self) -> None:
        """Stop generating; finished takes stay and Generate goes on from there."""
        if self._generation is not None:
            self._generation.cancel()
            self._change(message="Stopping after the current frame…")

    def _set_export(self, name: str, value: Any) -> None:
        if name not in ExportRow.__dataclass_fields__:
            raise AttributeError(f"export_{name}")
        if name == "folder" and value == self.state.export_folder:
            return  # an edit that changes nothing must not pin the default to today's run
        wanted = replace(self.state.export, **{name: type(getattr(self.state.export, name))(value)})
        self._change(export=wanted)
        self._change(export_folder=self._export_folder())

    def _export_folder(self) -> str:
        wanted, run = self.state.export, self._run or Path(self.state.folder)
        return wanted.folder or str(self._datasets / f"{run.name}-{wanted.format}")

    def export(self) -> None:
        """The takes of the run as a dataset, in a process of their own."""
        assert self._run is not None
        out = user_path(self.state.export_folder)
        self._export = self._starter.export(self._run, out, self.state.export)
        self._exported_from = self.state.phase
        self._change(phase=Phase.EXPORTING, export_line="", export_share=0.0, message=NEXT[Phase.EXPORTING])

    def cancel_export(self) -> None:
        """Stop exporting; Export goes on from what is finished."""
        if self._export is not None:
            self._export.cancel()
            self._change(message="Stopping after the current frame…")

    def open_dataset(self) -> None:
        """Show the dataset's folder."""
        self._starter.open_path(Path(self.state.dataset))

    def open_report(self) -> None:
        """Show the report."""
        assert self._run is not None
        self._starter.open_path(self._run / "report.html")

    def open_folder(self) -> None:
        """Show the run folder."""
        assert self._run is not None
        self._starter.open_path(self._run)

    def start_worker(self) -> None:
        """Start the GPU worker."""
        self._worker.start()

    def stop_worker(self) -> None:
        """Stop the GPU worker."""
        self._worker.stop()

    def free_vram(self) -> None:
        """Let the worker give its VRAM back to the renderer."""
        self._worker.free()

    def shut_down(self) -> None:
        """The panel goes away: a recording is completed, generation goes on by itself."""
        if self._recording is not None and self._recording.status.active:
            self._recording.stop("the panel was closed")

    # -- what happened meanwhile ----------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether something is under way that has to be looked at although nobody sees the panel."""
        return not (self._recording is None and self._generation is None and self._export is None)

    def tick(self) -> None:
        """Once per update."""
        if (row := self._worker.row()) != self.state.worker:
            self._change(worker=row)
        if self._recording is not None:
            self._tick_recording(self._recording)
        if self._generation is not None:
            self._tick_generation(self._generation)
        if self._export is not None:
            self._tick_export(self._export)
        if self.state.phase in (Phase.EMPTY, Phase.READY) and self._now() - self._looked > 1.0:
            self._looked = self._now()
            self._look()

    def _tick_recording(self, recording: Recording) -> None:
        status = recording.status
        phase = {
            Capture.IDLE: Phase.ARMED, Capture.WAITING: Phase.ARMED, Capture.RECORDING: Phase.RECORDING,
            Capture.FINISHING: Phase.SAVING, Capture.DONE: Phase.RECORDED, Capture.FAILED: Phase.READY,
        }[status.phase]  # fmt: skip
        if phase is Phase.RECORDING and recording.paused:
            phase = Phase.PAUSED
        newest = self._picture.newest if self._picture is not None else None
        changes: dict[str, Any] = {}
        if newest is not None:
            size = (newest.rgba.shape[1], newest.rgba.shape[0])
            changes = {"picture": newest.index, "suspicious": is_suspicious(newest.misfit_px, size)}
        message = status.message if status.phase is Capture.WAITING and status.message else NEXT[phase]
        self._change(
            phase=phase, frames=status.written, queued=status.queued, dropped=status.dropped, message=message,
            disk=folders.space(self._run or Path(self.state.folder), status.bytes_written), **changes,
        )  # fmt: skip
        if status.phase is Capture.FAILED:
            self._recording = None
            kept = status.written > 0
            self._change(
                phase=Phase.RECORDED if kept else Phase.READY, message=NEXT[Phase.RECORDED if kept else Phase.READY]
            )
            self.tell(Level.ERROR, status.message)
            if not kept:
                self._change(folder=self._new_folder())
        elif status.phase is Capture.DONE:
            self._recording = None
            self._change(message=f"{status.written} frames recorded, none dropped. {NEXT[Phase.RECORDED]}")
            slowed = f" The disk slowed the simulation for {status.waited_s:.1f} s." if status.waited_s > 1 else ""
            self.tell(Level.INFO, f"Recorded {status.written} frames to {status.output} ({status.message}).{slowed}")
            if self._demo:
                self.act("generate")

    def _tick_generation(self, generation: Generation) -> None:
        stage, done, total, note = generation.advance()
        if stage:
            share = done / total if total else 0.0
            self._change(stage_line=f"{stage} {done}/{total} {note}".strip(), share=share)
        assert self._run is not None
        code = generation.exit_code()
        if code is not None or self._now() - self._counted > TAKES_PERIOD_S:
            self._counted = self._now()
            self._change(takes=with_share(self._starter.takes(self._run), stage, done, total))
        if code is None:
            return
        self._generation = None
        if code == 0:
            self._change(phase=Phase.GENERATED, share=1.0, message=NEXT[Phase.GENERATED])
            self.tell(Level.INFO, f"Takes are ready in {self._run}.")
        elif code == 130:
            self._change(phase=Phase.RECORDED, message="Stopped. Generate goes on from what is finished.")
        else:
            self._change(phase=Phase.RECORDED, message=NEXT[Phase.RECORDED])
            self.tell(Level.ERROR, f"Generating ended with exit code {code}: {generation.last_words() or 'no message'}")

    def _tick_export(self, export: Generation) -> None:
        stage, done, total, _ = export.advance()
        if stage:
            self._change(export_line=f"{stage} {done}/{total}", export_share=done / total if total else 0.0)
        code = export.exit_code()
        if code is None:
            return
        self._export = None
        back = self._exported_from
        self._change(phase=back, message=NEXT[back])
        said = "\n".join(line.removeprefix("retake: ") for line in export.last_words().splitlines())
        if code == 0:
            self._change(export_share=1.0, dataset=str(user_path(self.state.export_folder)))
            self.tell(Level.INFO, said or f"The dataset is ready in {self.state.dataset}.")
        elif code == 130:
            self._change(message="Stopped. Export goes on from what is finished.")
        else:
            self.tell(Level.ERROR, f"Exporting ended with exit code {code}: {said or 'no message'}")

    # -- inside -------------------------------------------------------------------------------------------------------

    def _change(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def tell(self, level: Level, text: str) -> None:
        """A notice: in the panel, and in the corner of the window."""
        notice = Notice(level, text)
        self._change(notices=(notice, *self.state.notices)[:NOTICES])
        self._notify(notice)

    def _new_folder(self) -> str:
        return str(folders.new(self._runs, self._now(), besides=self._run))


def phases() -> tuple[Phase, ...]:
    """Every phase, in order (the layout picture and the tests walk through them)."""
    return tuple(ACTIONS)
