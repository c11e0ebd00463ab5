# SPDX-License-Identifier: Apache-2.0
"""PanelState -> sections of plain widget descriptions. omni.ui shows them, and so does the picture in docs/images."""

from __future__ import annotations

from dataclasses import replace

from retake.core.host import sync_command
from retake.isaac.request import CHOICES
from retake.ui.layout_scene import scene_section
from retake.ui.state import FORMATS, Level, PanelState, Phase, TakeRow, prompts_of
from retake.ui.widgets import Row, Section, Widget, button

SHOWN = 12
"""Takes that have a row of their own."""


def build_layout(state: PanelState) -> tuple[Section, ...]:
    """The whole panel."""
    return (scene_section(state), _record(state), _variants(state), _takes(state), _dataset(state), _worker(state))


def _record(state: PanelState) -> Section:
    idle = state.can("pick_folder")
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
        Row(
            (
                Widget("field", "Folder", state.folder, ("set", "folder"), idle, "Run folder: episode, takes, report"),
                replace(button(state, "pick_folder", "…", "Choose a folder"), width=32),
            )
        ),
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
                Widget(
                    "combo",
                    "Contacts",
                    state.contacts,
                    ("set", "contacts"),
                    idle,
                    "auto: objects and gripper links; on: every link; off. Costs video memory on a stage that renders",
                    CHOICES["contacts"],
                ),
                Widget(
                    "combo",
                    "Antialiasing",
                    state.antialiasing,
                    ("set", "antialiasing"),
                    idle,
                    "While recording: DLSS Performance renders small pictures with about half their lines",
                    CHOICES["antialiasing"],
                ),
            )
        ),
        Row(
            (
                button(state, "record", "Record", "Begins with the first physics step after Play", "primary"),
                button(state, "pause", "Pause", "The simulation stands still; the episode goes on where it was"),
                button(state, "resume", "Resume", "The same episode goes on"),
                button(state, "stop", "Stop", "Completes the episode"),
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


FRAMES_BY = ("procedural", "auto", "z-image", "flux2-klein", "qwen-edit", "sdxl", "cosmos-transfer")
"""First-frame backends that the panel offers (docs/first_frame.md)."""


def _variants(state: PanelState) -> Section:
    chosen = sum(world.chosen for world in state.worlds)
    rows = [
        *(
            Row(
                tuple(
                    Widget("check", w.name, w.chosen, ("choose", "worlds", w.key), help=w.detail)
                    for w in state.worlds[i : i + 3]
                )
            )
            for i in range(0, len(state.worlds), 3)
        ),
        *(Row((Widget("text", f"{w.name}: {w.detail}"),)) for w in state.worlds if w.chosen and w.detail),
        Row(
            (
                Widget("number", "Further worlds", state.count, ("set", "count"), help="Sampled beyond the presets"),
                Widget("number", "Seed", state.seed, ("set", "seed"), help="Same seed, same pixels"),
            )
        ),
        Row(
            (
                Widget(
                    "combo",
                    "First frames by",
                    state.frames_by,
                    ("set", "frames_by"),
                    True,
                    "procedural: on the CPU, without a model; auto: the model that fits this GPU",
                    FRAMES_BY,
                ),
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
        Row(
            (
                Widget(
                    "field",
                    "Prompts",
                    state.prompts,
                    ("set", "prompts"),
                    True,
                    "Worlds in your own words, separated by semicolons: 'a bakery at dawn; a snowed-in yard'",
                ),
            )
        ),
        Row((Widget("text", f"{chosen + state.count + len(prompts_of(state))} variants, one take each"),)),
    ]
    return Section("3  Variants", tuple(rows))


def _takes(state: PanelState) -> Section:
    rows = [
        Row(
            (
                button(state, "generate", "Generate", "Variants, takes and verdicts", "primary"),
                button(state, "cancel", "Cancel", "Finished takes stay"),
                button(state, "open_report", "Open report", "Compare the takes"),
                button(state, "open_folder", "Open folder", "The run folder"),
            )
        ),
        Row((Widget("progress", state.stage_line or "not started", state.share),)),
        *(
            Row(
                (
                    Widget(
                        "progress",
                        " ".join(filter(None, (f"{t.name}:", t.state, t.note, t.verdict))),
                        t.share,
                        tone=_tone(t),
                    ),
                )
            )
            for t in state.takes[:SHOWN]
        ),
        *(
            [Row((Widget("text", f"… and {len(state.takes) - SHOWN} more: see the report"),))]
            if len(state.takes) > SHOWN
            else []
        ),
        *([Row((Widget("text", _verdicts(state.takes)),))] if state.takes else []),
        *(
            Row((Widget("text", n.text, tone={Level.ERROR: "error", Level.WARNING: "warning"}.get(n.level, "plain")),))
            for n in state.notices
        ),
    ]
    return Section("4  Takes", tuple(rows))


def _tone(take: TakeRow) -> str:
    tones = {"pass": "good", "fail": "error", "unsure": "warning"}
    return "error" if take.state == "failed" else tones.get(take.verdict, "plain")


def _verdicts(takes: tuple[TakeRow, ...]) -> str:
    counts = {status: sum(take.verdict == status for take in takes) for status in ("pass", "fail", "unsure")}
    waiting = len(takes) - sum(counts.values())
    return "Verdicts: " + ", ".join([*(f"{n} {status}" for status, n in counts.items()), f"{waiting} not judged"])


def _dataset(state: PanelState) -> Section:
    wanted = state.export
    idle = state.phase is not Phase.EXPORTING

    def check(name: str, label: str, value: bool, help: str) -> Widget:
        return Widget("check", label, value, ("set", name), idle, help)

    rows = [
        Row(
            (
                Widget(
                    "combo",
                    "Format",
                    wanted.format,
                    ("set", "export_format"),
                    idle,
                    "What reads it: LeRobot; GR00T and openpi; OSCAR's training; Isaac Lab",
                    FORMATS,
                ),
                Widget(
                    "number",
                    "Least verdict",
                    wanted.min_verdict,
                    ("set", "export_min_verdict"),
                    idle,
                    "Least probability of a take's verdict, 0..1; takes that failed never go",
                ),
            )
        ),
        Row(
            (Widget("field", "Dataset", state.export_folder, ("set", "export_folder"), idle, "Folder of the dataset"),)
        ),
        Row(
            (
                check(
                    "export_only_commercial",
                    "only commercial",
                    wanted.only_commercial,
                    "--only-commercial: model, first frame and assets state terms that allow it; unknown terms do not",
                ),
                check(
                    "export_include_sim",
                    "simulation renders",
                    wanted.include_sim,
                    "--include-sim: the simulator's own pictures",
                ),
                check(
                    "export_append",
                    "add to existing",
                    wanted.append,
                    "--append: what the dataset has is not added twice",
                ),
            )
        ),
        Row(
            (
                button(state, "export", "Export", "Takes that passed become training data", "primary"),
                button(state, "cancel_export", "Cancel", "Export goes on from what is finished"),
                button(state, "open_dataset", "Open dataset", "Its README.md tells what it holds"),
            )
        ),
        Row((Widget("progress", state.export_line or "not started", state.export_share),)),
    ]
    return Section("5  Dataset", tuple(rows))


def _worker(state: PanelState) -> Section:
    worker = state.worker
    rows = [
        Row((Widget("text", f"GPU worker: {worker.state} {worker.detail}".strip()), Widget("text", worker.vram))),
        Row(
            (
                button(state, "start_worker", "Start", f"Needs `{sync_command('.venv-worker')}` once"),
                button(state, "stop_worker", "Stop", "Queued takes stay queued"),
                button(
                    state,
                    "free_vram",
                    "Free VRAM",
                    "Gives the renderer its memory back; the next take loads the model again",
                ),
            )
        ),
    ]
    return Section("6  Worker", tuple(rows), open=state.backend == "oscar")
