# SPDX-License-Identifier: Apache-2.0
"""Which camera of a world a video model films, and which follow from another camera's take.

A camera whose first frame was carried from an anchor's is filmed by the model too, from that frame, where enough of the
robot's skeleton is in its view to steer by; else its take is the anchor's, seen from there (`reproject`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retake.core.files import read_json
from retake.core.run_layout import VARIANT_RECORD
from retake.core.takes.base import TakeRequest

FOLLOWER = "reproject"
SAMPLES, LIT_SHARE, LIT_FRAMES = 12, 0.002, 0.5
"""Skeleton frames that are looked at; the share of pixels that must be drawn, in which share of them: an arm's thin links
across a 640x480 picture are 1 to 3 %."""

Job = tuple[Path, TakeRequest]


def split_views(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """(takes the video model makes, takes that follow from another camera's by `reproject`)."""
    own: list[Job] = []
    following: list[Job] = []
    for folder, request in jobs:
        anchor = _carried_from(request.variant)
        if not anchor or shows_skeleton(request.skeleton, request.start, request.frames):
            own.append((folder, request))
        else:
            following.append((folder, replace(request, settings={"take": str(folder.parent / anchor)})))
    return own, following


def _carried_from(variant: Path) -> str:
    """The anchor camera of a carried first frame; empty for one that was painted."""
    origin = read_json(variant / VARIANT_RECORD).get("origin")
    carried = isinstance(origin, dict) and origin.get("kind") == "carried"
    return str(origin.get("anchor", "")) if carried else ""


def shows_skeleton(folder: Path, start: int, frames: int) -> bool:
    """Whether a control video draws enough for a model to follow."""
    last = start + max(frames, 1) - 1
    lit = []
    for index in np.unique(np.linspace(start, last, SAMPLES).astype(int)):
        image = cv2.imread(str(folder / "frames" / f"{index:06d}.png"))
        if image is not None:
            lit.append(float((image.max(-1) > 16).mean()) > LIT_SHARE)
    return bool(lit) and float(np.mean(lit)) >= LIT_FRAMES
