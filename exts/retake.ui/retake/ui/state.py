# SPDX-License-Identifier: Apache-2.0
"""What the panel shows, as frozen records: phases, what each allows, and the rows of its lists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from retake.core.episode import CHANNELS


class Phase(str, Enum):
    """Where the user is on the way from a stage to takes."""

    EMPTY = "no stage"
    READY = "ready"
    ARMED = "waiting for Play"
    RECORDING = "recording"
    PAUSED = "paused"
    SAVING = "saving"
    RECORDED = "recorded"
    GENERATING = "generating"
    GENERATED = "done"
    EXPORTING = "exporting"


_READY = frozenset({"refresh", "open_demo", "add_selected", "declare", "self_test", "record", "pick_folder"})
_RECORDED = _READY | {"generate", "export", "open_folder"}
ACTIONS: dict[Phase, frozenset[str]] = {
    Phase.EMPTY: frozenset({"refresh", "open_demo", "pick_folder"}),
    Phase.READY: _READY,
    Phase.ARMED: frozenset({"stop"}),
    Phase.RECORDING: frozenset({"pause", "stop"}),
    Phase.PAUSED: frozenset({"resume", "stop"}),
    Phase.SAVING: frozenset(),
    Phase.RECORDED: _RECORDED,
    Phase.GENERATING: frozenset({"cancel", "open_folder"}),
    Phase.GENERATED: _RECORDED | {"open_report"},
    Phase.EXPORTING: frozenset({"cancel_export", "open_folder"}),
}
"""Which buttons do something, per phase. The worker's buttons depend on the worker alone, `open_dataset` on a dataset."""

NEXT = {
    Phase.EMPTY: "Open a stage with a robot and a camera, or press Open demo.",
    Phase.READY: "Press Record, then Play.",
    Phase.ARMED: "Press Play: recording begins with the first physics step.",
    Phase.RECORDING: "Recording. Press Stop when the task is done.",
    Phase.PAUSED: "Paused: the simulation stands still. Resume goes on with the same episode.",
    Phase.SAVING: "Writing the last frames.",
    Phase.RECORDED: "Recorded. Press Generate to make takes.",
    Phase.GENERATING: "Making takes.",
    Phase.GENERATED: "Done. Open the report to compare the takes, or export them.",
    Phase.EXPORTING: "Writing the dataset.",
}
"""What happens now, or what to do next."""

FORMATS = ("lerobot-v3", "lerobot-v2.1", "oscar", "oscar-canvas", "hdf5-isaaclab")
"""Dataset formats, as `retake export --format` names them."""


class Level(str, Enum):
    """How loud a notice is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Notice:
    """Something to tell the user, with what to do about it."""

    level: Level
    text: str


@dataclass(frozen=True)
class Choice:
    """One robot, camera, object or world that can be picked."""

    key: str
    """Prim path, or preset name."""
    name: str
    chosen: bool = False
    detail: str = ""
    problem: str = ""
    """Why it cannot be recorded; empty = it can."""
    ends: bool = True
    """Of a robot: whether it has an end effector that the skeleton can show."""
    size: tuple[int, int] | None = None
    """Of a camera: (width, height), px; None = the recording's."""
    channels: tuple[str, ...] | None = None
    """Of a camera: what it records; None = the recording's."""


@dataclass(frozen=True)
class TakeRow:
    """One take of the current run."""

    name: str
    state: str
    """waiting, running, done, failed."""
    share: float = 0.0
    """0..1 of its frames."""
    note: str = ""
    verdict: str = ""
    """pass, fail, unsure; empty = not judged yet."""


@dataclass(frozen=True)
class ExportRow:
    """What a dataset is to hold. Field names are those of `PanelState.set`, prefixed with `export_`."""

    format: str = "lerobot-v3"
    folder: str = ""
    """Empty = a folder of the run's name beside the runs."""
    only_commercial: bool = False
    min_verdict: float = 0.0
    """Least calibrated probability of a verdict, 0..1."""
    include_sim: bool = False
    append: bool = False


@dataclass(frozen=True)
class WorkerRow:
    """The GPU worker."""

    state: str = "stopped"
    """stopped, starting, idle, busy, paused, unreachable."""
    detail: str = ""
    vram: str = ""
    actions: frozenset[str] = frozenset({"start_worker"})


@dataclass(frozen=True)
class PanelState:
    """Everything on the panel. The widgets show this and nothing else."""

    phase: Phase = Phase.EMPTY
    robots: tuple[Choice, ...] = ()
    cameras: tuple[Choice, ...] = ()
    objects: tuple[Choice, ...] = ()
    robot_file: str = ""
    """YAML that declares end effectors; empty = the one beside the stage, else what is found."""
    task: str = ""
    folder: str = ""
    fps: float = 15.0
    seconds: float = 0.0
    """0 = until stopped."""
    mode: str = "auto"
    width: int = 640
    height: int = 480
    """Of cameras that have no size of their own."""
    channels: tuple[str, ...] = CHANNELS
    """Of cameras that have none of their own."""
    contacts: str = "auto"
    antialiasing: str = "as-is"
    frames: int = 0
    queued: int = 0
    dropped: int = 0
    disk: str = ""
    """Disk used by the recording, and what is left."""
    message: str = ""
    """One line: what happens now, or what to do next."""
    worlds: tuple[Choice, ...] = ()
    count: int = 0
    """Further worlds beyond the presets."""
    prompts: str = ""
    """Worlds in the user's own words, separated by semicolons."""
    frames_by: str = "procedural"
    """First-frame backend."""
    seed: int = 0
    backend: str = "composite"
    stage_line: str = ""
    """Progress of the arrow: 'Takes 12/81'."""
    share: float = 0.0
    takes: tuple[TakeRow, ...] = ()
    export: ExportRow = ExportRow()
    export_folder: str = ""
    """Where the dataset goes: as typed, or the default of the run and format."""
    export_line: str = ""
    """Progress of the export: 'Export 3/12'."""
    export_share: float = 0.0
    dataset: str = ""
    """The folder of the newest finished dataset."""
    worker: WorkerRow = WorkerRow()
    notices: tuple[Notice, ...] = ()
    """The last few, newest first."""
    picture: int = -1
    """Index of the frame in the live picture; -1 = none yet."""
    suspicious: bool = False
    """Whether the skeleton misses the robot in the picture."""

    def can(self, action: str) -> bool:
        """Whether an action does something now."""
        if action == "record":
            return (
                "record" in ACTIONS[self.phase]
                and any(c.chosen and not c.problem for c in self.robots)
                and any(c.chosen for c in self.cameras)
            )
        if action == "declare":
            return "declare" in ACTIONS[self.phase] and any(c.chosen and not c.problem for c in self.robots)
        if action == "open_dataset":
            return bool(self.dataset)
        return action in ACTIONS[self.phase] or action in self.worker.actions


def prompts_of(state: PanelState) -> list[str]:
    """The worlds in the user's own words, one each."""
    return [text.strip() for text in state.prompts.split(";") if text.strip()]


def with_share(rows: tuple[TakeRow, ...], stage: str, done: int, total: int) -> tuple[TakeRow, ...]:
    """The rows with how much of its frames the running take has: the stage counts the frames of all takes in turn."""
    if stage != "Takes" or not rows or not total:
        return rows
    finished, each = sum(row.state == "done" for row in rows), total / len(rows)
    share = min(1.0, max(0.0, done / each - finished))
    return tuple(replace(row, share=share) if row.state == "running" else row for row in rows)
