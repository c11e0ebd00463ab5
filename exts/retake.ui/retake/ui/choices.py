# SPDX-License-Identifier: Apache-2.0
"""Which robots, cameras and objects are chosen, as functions of lists: what a stage has, what settings and user say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from retake.core.episode import CHANNELS
from retake.isaac.camera_text import camera_parts, parse_channels
from retake.isaac.request import CaptureRequest
from retake.ui.state import Choice, PanelState

KINDS = ("robots", "cameras", "objects")
Lists = dict[str, tuple[Choice, ...]]
"""One of KINDS -> its choices."""


def kept(state: PanelState, found: Lists) -> Lists:
    """What a stage has now: what was there keeps its choice, what is new is chosen where the whole list is new."""
    out: Lists = {}
    for kind, choices in found.items():
        before = {c.key: c for c in getattr(state, kind)}
        known = any(c.key in before for c in choices)
        out[kind] = tuple(
            replace(c, chosen=was.chosen, size=was.size, channels=was.channels)
            if (was := before.get(c.key)) is not None
            else replace(c, chosen=c.chosen and not known)
            for c in choices
        )
    return out


def as_settings_say(state: PanelState, settings: CaptureRequest) -> Lists:
    """Robots, cameras and objects that the settings name, where the stage has one of them. Raises InputError."""
    out: Lists = {}
    for kind, wanted in (("robots", settings.robots), ("objects", settings.objects)):
        choices: tuple[Choice, ...] = getattr(state, kind)
        if set(wanted) & {c.key for c in choices}:
            out[kind] = tuple(replace(c, chosen=c.key in wanted) for c in choices)
    own = {path: (size, channels) for path, size, channels in map(camera_parts, settings.cameras)}
    if set(own) & {c.key for c in state.cameras}:
        parts = {c.key: own.get(c.key, (None, None)) for c in state.cameras}
        out["cameras"] = tuple(
            replace(c, chosen=c.key in own, size=parts[c.key][0], channels=parts[c.key][1]) for c in state.cameras
        )
    return out


def with_selected(state: PanelState, selected: Sequence[str]) -> tuple[Lists, list[str]]:
    """(the lists, names that were added): chosen is what is selected on the stage, or has something selected inside it.

    A camera or an object inside a robot is itself, not the robot. What cannot be recorded is not chosen.
    """
    smaller = {c.key for kind in ("cameras", "objects") for c in getattr(state, kind)}
    out: Lists = {}
    added: list[str] = []
    for kind in KINDS:
        choices = []
        for choice in getattr(state, kind):
            inside = [path for path in selected if path == choice.key or path.startswith(f"{choice.key}/")]
            if kind == "robots":
                inside = [p for p in inside if not any(p == s or p.startswith(f"{s}/") for s in smaller)]
            inside = [] if choice.problem else inside
            if inside:
                added.append(choice.name)
            choices.append(replace(choice, chosen=choice.chosen or bool(inside)))
        out[kind] = tuple(choices)
    return out, added


def with_camera(state: PanelState, key: str, name: str, value: Any) -> tuple[Choice, ...]:
    """The cameras with one of them changed: its `width`, `height`, or a channel (`depth`, …) on or off.

    Raises AttributeError for another name.
    """
    if name not in ("width", "height", *CHANNELS[1:]):
        raise AttributeError(name)
    out = []
    for camera in state.cameras:
        if camera.key == key:
            width, height = size_of(state, camera)
            channels = channels_of(state, camera)
            if name in ("width", "height"):
                number = max(1, int(value))
                camera = replace(camera, size=(number, height) if name == "width" else (width, number))
            else:
                wanted = [c for c in CHANNELS if (c == name and value) or (c != name and c in channels)]
                camera = replace(camera, channels=parse_channels(wanted))
        out.append(camera)
    return tuple(out)


def size_of(state: PanelState, camera: Choice) -> tuple[int, int]:
    """(width, height) that a camera records at."""
    return camera.size or (state.width, state.height)


def channels_of(state: PanelState, camera: Choice) -> tuple[str, ...]:
    """What a camera records."""
    return state.channels if camera.channels is None else camera.channels
