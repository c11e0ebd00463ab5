# SPDX-License-Identifier: Apache-2.0
"""PanelState -> sections of plain widget descriptions. omni.ui shows them, and so does the picture in docs/images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from retake.ui.state import Choice, Level, PanelState

Kind = Literal["text", "field", "number", "combo", "check", "button", "progress", "picture"]


@dataclass(frozen=True)
class Widget:
    """One widget. `action`: ("act", name), ("set", field) or ("choose", kind, key)."""

    kind: Kind
    label: str
    value: Any = None
    action: tuple[str, ...] = ()
    enabled: bool = True
    help: str = ""
    options: tuple[str, ...] = ()
    """Of a combo."""
    tone: str = "plain"
    """plain, good, warning, error, primary."""


@dataclass(frozen=True)
class Row:
    """Widgets beside each other."""

    widgets: tuple[Widget, ...]


@dataclass(frozen=True)
class Section:
    """A titled, collapsible group."""

    title: str
    rows: tuple[Row, ...]
    open: bool = True


def build_layout(state: PanelState) -> tuple[Section, ...]:
    """The whole panel."""
    return (_scene(state), _record(state), _variants(state), _takes(state), _worker(state))


def _button(state: PanelState, action: str, label: str, help: str, tone: str = "plain") -> Widget:
    return Widget("button", label, action=("act", action), enabled=state.can(action), help=help, tone=tone)


def _choices(kind: str, title: str, choices: tuple[Choice, ...], none: str) -> list[Row]:
    rows = [
        Row((Widget("check", c.name, c.chosen, ("choose", kind, c.key), help=f"{c.key} {c.detail}".strip()),))
        for c in choices
    ]
    return [Row((Widget("text", title),)), *(rows or [Row((Widget("text", none, tone="warning"),))])]


def _scene(state: PanelState) -> Section:
    rows = [
        Row(
            (
                _button(state, "refresh", "Look again", "Read robots, cameras and objects of the open stage"),
                _button(
                    state, "open_demo", "Open demo", "A Panda, a packet and a tray: record and generate with two clicks"
                ),
            )
        ),
        *_choices("robots", "Robots", state.robots, "No articulation on this stage"),
        *_choices("cameras", "Cameras", state.cameras, "No camera on this stage"),
        *_choices("objects", "Objects", state.objects, "No rigid object"),
    ]
    return Section("1  Scene", tuple(rows))


def _record(state: PanelState) -> Section:
    idle = state.can("record") or state.phase.value in ("no stage", "ready")
    picture_tone = "error" if state.suspicious else "plain"
    caption = (
        "the skeleton misses the robot: wrong camera, robot or units?"
        if state.suspicious
        else "live picture with skeleton"
    )
    rows = [
        Row(
            (
                Widget(
                    "field",
                    "Task",
                    state.task,
                    ("set", "task"),
                    idle,
                    "What the robot does, in words: the prompt of every take",
                ),
            )
        ),
        Row((Widget("field", "Folder", state.folder, ("set", "folder"), idle, "Run folder: episode, takes, report"),)),
        Row(
            (
                Widget("number", "Frames/s", state.fps, ("set", "fps"), idle, "Must divide the physics rate"),
                Widget("number", "Seconds", state.seconds, ("set", "seconds"), idle, "0 = until stopped"),
                Widget(
                    "combo",
                    "Mode",
                    state.mode,
                    ("set", "mode"),
                    idle,
                    "live beside the timeline, or stepped",
                    ("auto", "live", "stepped"),
                ),
            )
        ),
        Row(
            (
                _button(state, "record", "Record", "Begins with the first physics step after Play", "primary"),
                _button(state, "stop", "Stop", "Completes the episode"),
            )
        ),
        Row(
            (
                Widget(
                    "text",
                    f"{state.frames} frames, dropped={state.dropped}, {state.queued} waiting",
                    tone="good" if state.frames else "plain",
                ),
                Widget("text", state.disk),
            )
        ),
        Row((Widget("picture", caption, state.picture, tone=picture_tone),)),
        Row((Widget("text", state.message, tone="primary"),)),
    ]
    return Section("2  Record", tuple(rows))


def _variants(state: PanelState) -> Section:
    chosen = sum(world.chosen for world in state.worlds)
    rows = [
        *(
            Row(
                tuple(
                    Widget("check", w.name, w.chosen, ("choose", "worlds", w.key), help=w.detail)
                    for w in state.worlds[i : i + 2]
                )
            )
            for i in range(0, min(len(state.worlds), 8), 2)
        ),
        Row(
            (
                Widget("number", "Further worlds", state.count, ("set", "count"), help="Sampled beyond the presets"),
                Widget("number", "Seed", state.seed, ("set", "seed"), help="Same seed, same pixels"),
                Widget(
                    "combo",
                    "Takes by",
                    state.backend,
                    ("set", "backend"),
                    True,
                    "oscar: video model on the GPU worker",
                    ("composite", "oscar"),
                ),
            )
        ),
        Row((Widget("text", f"{chosen + state.count} variants, one take each"),)),
    ]
    return Section("3  Variants", tuple(rows))


def _takes(state: PanelState) -> Section:
    rows = [
        Row(
            (
                _button(state, "generate", "Generate", "Variants, takes and verdicts", "primary"),
                _button(state, "cancel", "Cancel", "Finished takes stay"),
                _button(state, "open_report", "Open report", "Compare the takes"),
                _button(state, "open_folder", "Open folder", "The run folder"),
            )
        ),
        Row((Widget("progress", state.stage_line or "not started", state.share),)),
        *(
            Row(
                (
                    Widget(
                        "progress",
                        f"{t.name}: {t.state} {t.note}".strip(),
                        t.share,
                        tone="error" if t.state == "failed" else "plain",
                    ),
                )
            )
            for t in state.takes[:12]
        ),
        *(
            Row((Widget("text", n.text, tone={Level.ERROR: "error", Level.WARNING: "warning"}.get(n.level, "plain")),))
            for n in state.notices
        ),
    ]
    return Section("4  Takes", tuple(rows))


def _worker(state: PanelState) -> Section:
    worker = state.worker
    rows = [
        Row((Widget("text", f"GPU worker: {worker.state} {worker.detail}".strip()), Widget("text", worker.vram))),
        Row(
            (
                _button(state, "start_worker", "Start", "Needs `make sync-worker` once"),
                _button(state, "stop_worker", "Stop", "Queued takes stay queued"),
                _button(
                    state,
                    "free_vram",
                    "Free VRAM",
                    "Gives the renderer its memory back; the next take loads the model again",
                ),
            )
        ),
    ]
    return Section("5  Worker", tuple(rows), open=state.backend == "oscar")
