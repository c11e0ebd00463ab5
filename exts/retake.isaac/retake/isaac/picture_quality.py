# SPDX-License-Identifier: Apache-2.0
"""How the renderer makes a picture: recorded in the episode, and one switch for what its upscaler does to small pictures.

Isaac Sim starts with DLSS in Performance mode (`rtx.post.dlss.execMode = 0` in isaacsim.exp.base.kit): a picture of
640x480 is rendered with about half its lines and enlarged. NVIDIA's own generation examples set Quality (2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from retake.isaac.request import Antialiasing

DLSS_MODE = "/rtx/post/dlss/execMode"
ANTIALIASING = "/rtx/post/aa/op"
CHOSEN = (ANTIALIASING, DLSS_MODE)
"""Settings that a recording may choose."""
DLSS, DLAA, PERFORMANCE, QUALITY = 3, 4, 0, 2
"""Values of these two settings: simulation_app.py and isaacsim.exp.base.kit of Isaac Sim 6.0.1."""
SMALL_LINES = 600
"""NVIDIA's data collection guide: below about 600x600 Performance mode leaves artefacts at edges."""
RECORDED = (
    "/rtx/rendermode",
    ANTIALIASING,
    DLSS_MODE,
    "/rtx/pathtracing/spp",
    "/rtx/pathtracing/totalSpp",
    "/rtx/post/motionblur/enabled",
    "/rtx/post/tonemap/op",
    "/rtx/hydra/supportMultiTickRate",
    "/rtx-transient/dlssg/enabled",
    "/app/renderer/resolution/multiplier",
)
"""What a picture depends on beside stage and camera; written into the episode's settings under `renderer`."""


def needed(wanted: Antialiasing) -> dict[str, int]:
    """Settings and values of what was asked for."""
    if wanted == "dlss-quality":
        return {ANTIALIASING: DLSS, DLSS_MODE: QUALITY}
    return {ANTIALIASING: DLAA} if wanted == "dlaa" else {}


def recorded(setting: Callable[[str], Any]) -> dict[str, Any]:
    """The renderer's settings as they are now, read by `setting`; what is unset is left out."""
    found = {path: setting(path) for path in RECORDED}
    return {path: value for path, value in found.items() if isinstance(value, bool | int | float | str)}


def advice(setting: Callable[[str], Any], sizes: Sequence[tuple[int, int]]) -> str:
    """What to change for sharper pictures, as a sentence; empty where nothing is to be gained (or nothing is known)."""
    mode, operation = setting(DLSS_MODE), setting(ANTIALIASING)
    small = [size for size in sizes if size[1] < SMALL_LINES]
    if not small or mode != PERFORMANCE or operation not in (None, DLSS):
        return ""
    width, height = small[0]
    return (
        f"DLSS renders {width}x{height} with about {height // 2} lines and enlarges it (Performance mode); "
        "set /exts/retake.isaac/antialiasing to dlaa or dlss-quality for edges as sharp as the picture"
    )
