# SPDX-License-Identifier: Apache-2.0
"""The panel's first section: robots, cameras and objects of the open stage."""

from __future__ import annotations

from retake.core.episode import CHANNELS
from retake.isaac.camera_text import WITHOUT, what_is_lost
from retake.isaac.stage_reader import CameraChoice
from retake.ui.choices import channels_of, size_of
from retake.ui.state import Choice, PanelState
from retake.ui.widgets import Row, Section, Widget, button


def _choices(kind: str, title: str, choices: tuple[Choice, ...], none: str) -> list[Row]:
    rows = [
        Row((Widget("check", c.name, c.chosen, ("choose", kind, c.key), help=f"{c.key} {c.detail}".strip()),))
        for c in choices
    ]
    return [Row((Widget("text", title),)), *(rows or [Row((Widget("text", none, tone="warning"),))])]


def scene_section(state: PanelState) -> Section:
    rows = [
        Row(
            (
                button(state, "refresh", "Look again", "Read robots, cameras and objects of the open stage"),
                button(state, "add_selected", "Add selected", "Choose the prims that are selected on the stage"),
                button(
                    state, "open_demo", "Open demo", "A Panda, a packet and a tray: record and generate with two clicks"
                ),
                button(state, "self_test", "Self-test", "Measure on this stage what Retake assumes about Isaac Sim"),
            )
        ),
        *_robot_rows(state),
        *_camera_rows(state),
        *_choices("objects", "Objects", state.objects, "No rigid object"),
    ]
    return Section("1  Scene", tuple(rows))


def _camera_rows(state: PanelState) -> list[Row]:
    """Per camera whether it is recorded, and of what is: size and channels; then what is lost without a channel."""
    idle = state.can("pick_folder")
    rows = []
    for camera in state.cameras:
        help = f"{camera.key} {camera.detail}".strip()
        widgets = [Widget("check", camera.name, camera.chosen, ("choose", "cameras", camera.key), help=help)]
        if camera.chosen:
            (width, height), channels = size_of(state, camera), channels_of(state, camera)
            widgets += [
                Widget("number", "W", width, ("camera", camera.key, "width"), idle, "Width, px"),
                Widget("number", "H", height, ("camera", camera.key, "height"), idle, "Height, px"),
                *(
                    Widget("check", c, c in channels, ("camera", camera.key, c), idle, f"Without: no {WITHOUT[c]}")
                    for c in CHANNELS[1:]
                ),
            ]
        rows.append(Row(tuple(widgets)))
    chosen = [c for c in state.cameras if c.chosen]
    lost = what_is_lost([CameraChoice(c.name, size_of(state, c), channels=channels_of(state, c)) for c in chosen])  # type: ignore[arg-type]
    none = [] if state.cameras else ["No camera on this stage"]
    return [
        Row((Widget("text", "Cameras"),)),
        *rows,
        *(Row((Widget("text", text, tone="warning"),)) for text in [*none, *lost]),
    ]


def _robot_rows(state: PanelState) -> list[Row]:
    """Robots with the end effectors that were found, those that cannot be recorded with the reason, and the declaration."""
    idle = state.can("pick_folder")
    usable = tuple(robot for robot in state.robots if not robot.problem)
    return [
        *_choices(
            "robots",
            "Robots",
            usable,
            "No robot on this stage can be recorded" if state.robots else "No articulation on this stage",
        ),
        *(
            Row((Widget("text", f"{r.name}: {r.detail}", tone="plain" if r.ends else "warning"),))
            for r in usable
            if r.chosen
        ),
        *(
            Row((Widget("text", f"{r.name} cannot be recorded: {r.problem}", tone="warning"),))
            for r in state.robots
            if r.problem
        ),
        Row(
            (
                Widget(
                    "field",
                    "Declaration",
                    state.robot_file,
                    ("set", "robot_file"),
                    idle,
                    "YAML that says which links are hands, and how they open; empty = STAGE.robot.yaml, else what is found",
                ),
                button(
                    state, "declare", "Write form", "The declaration of the chosen robots as they were read, to edit"
                ),
            )
        ),
    ]
