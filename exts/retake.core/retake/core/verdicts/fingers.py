# SPDX-License-Identifier: Apache-2.0
"""A finger more than simulated: what has a finger's hue beside it, where the simulation shows scenery or an object of another.

Hues are log ratios of the channels, the same in light and shade, so the hand's shadow is none of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32
from retake.core.verdicts.footage import DARK, Footage, tone_of
from retake.core.verdicts.gripper_parts import Fingers
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.truth import Truth

NAME = "extra_finger"
_VIEWS, _STEP = 13, 4
"""Frames of a take that are looked at, at most, and frames from one to the next, at least."""
_LASTING = 5
"""Views in a row in which it must show: reflections and colours that bleed come and go."""
_AREA, _CORE = 12.0, 8
"""Working px² of a finger that can be asked, and of its inside that its hue is taken from."""
_CLEAR, _REACH = 2, 10
"""Working px beside robot and objects within which a painter may draw them wider, and those within which a finger more is looked
for."""
_OTHER, _ALIKE = 0.25, 0.35
"""Log ratio by which a pixel must differ from what belongs there, and the share of the finger's own difference from that by which
it may differ from the finger."""
_AS_BRIGHT = 0.5
"""Log level by which it may differ from the finger: fingers more differ by 0.3 at most; the shadow of one lamp among others
takes a table's colour, and may leave the finger's."""
_SAMPLE, _BODY = 60, 60
"""Hues of an object that are kept, and working px² from which on it shows them."""


@dataclass(frozen=True, eq=False)
class _Ground:
    """Hues that belong where no finger is."""

    scenery: Float32[np.ndarray, "H W 2"]
    known: Bool[np.ndarray, "H W"]
    objects: dict[int, Float32[np.ndarray, "N 2"]]
    robot: Bool[np.ndarray, "256"]
    """Labels of robot links."""


def measure_fingers(footage: Footage, truth: Truth, grippers: list[Fingers]) -> Measurement:
    """Side (root of the area) of the largest patch of a finger's hue within 10 working px of it that lasts, px."""
    if not truth.static_camera:
        return Measurement(NAME, None, "the camera moves", applies=False, absent=not grippers)
    ground = _ground(footage, truth)
    worst, where, frame = None, "", None
    series = np.full(len(footage), np.nan)
    for part in sorted({part for gripper in grippers for part in gripper.parts}):
        sides = {}
        for t in range(0, len(footage), max(_STEP, len(footage) // _VIEWS)):
            found = _patch(footage, truth, t, part, ground)
            if found is not None:
                sides[t] = found * truth.px
                series[t] = np.nanmax([series[t], sides[t]])
        if len(sides) < _LASTING:
            continue
        times, values = list(sides), np.array(list(sides.values()))
        lasting = np.min([values[k : len(values) - _LASTING + 1 + k] for k in range(_LASTING)], axis=0)
        k = int(np.argmax(lasting))
        if worst is None or lasting[k] > worst:
            worst, where, frame = float(lasting[k]), truth.parts[part].name, times[k + _LASTING // 2]
    if worst is None:
        return Measurement(NAME, None, "fingers hardly show", applies=False, absent=not grippers)
    return Measurement(NAME, worst, f"beside {where}" if worst else "", frame, series=series)


def _ground(footage: Footage, truth: Truth) -> _Ground:
    robot = np.zeros(256, bool)
    robot[[part + 1 for part in truth.robot_parts]] = True
    objects = {}
    for part in truth.object_parts:
        seen = np.flatnonzero(truth.area[:, part] >= _BODY)
        if len(seen):
            t = int(seen[0])
            mask = cv2.erode((truth.labels[t] == part + 1).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            hues = tone_of(_soft(footage.frames[t]))[mask]
            if len(hues):
                objects[part] = hues[np.linspace(0, len(hues) - 1, min(len(hues), _SAMPLE)).astype(int)]
    return _Ground(tone_of(footage.scenery), footage.known, objects, robot)


def _soft(frame: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    return cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32)


def _patch(footage: Footage, truth: Truth, t: int, part: int, ground: _Ground) -> float | None:
    """Root of the largest patch's area in one frame, working px; None where the finger hardly shows."""
    if truth.area[t, part] < _AREA:
        return None
    whole = cv2.inRange(truth.labels[t], part + 1, part + 1) & 1  # type: ignore[call-overload]
    x, y, width, height = cv2.boundingRect(whole)
    pad = _REACH + 2
    box = np.s_[max(y - pad, 0) : y + height + pad, max(x - pad, 0) : x + width + pad]
    finger, labels, soft = whole[box], truth.labels[t][box], _soft(footage.frames[t][box])
    core = cv2.erode(finger, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    core = core if core.sum() >= _CORE else finger > 0
    hues, level = tone_of(soft), np.log(soft.mean(-1) + DARK)
    own = np.median(hues[core], axis=0)
    near = cv2.dilate(ground.robot[labels].astype(np.uint8), _disc(_CLEAR)) > 0
    zone = (cv2.dilate(finger, _disc(_REACH)) > 0) & ~near
    apart, contrast = np.zeros(labels.shape, np.float32), np.zeros(labels.shape, np.float32)
    free = (labels == 0) & ground.known[box]
    scenery = ground.scenery[box][free]
    apart[free] = np.abs(hues[free] - scenery).max(-1)
    contrast[free] = np.abs(scenery - own).max(-1)
    for other, known in ground.objects.items():
        body = labels == other + 1
        if np.abs(known - own).max(-1).min() < _OTHER:
            # One of the finger's hue may be drawn wider.
            zone &= body | (cv2.dilate(body.astype(np.uint8), _disc(_CLEAR)) == 0)
        mask = zone & body
        if mask.any():
            apart[mask] = np.abs(hues[mask][:, None] - known[None]).max(-1).min(1)
            contrast[mask] = np.abs(known - own).max(-1).min()
    shown = zone & (apart > _OTHER) & (np.abs(hues - own).max(-1) < _ALIKE * contrast)
    shown &= np.abs(level - np.median(level[core])) < _AS_BRIGHT
    count, _, stats, _ = cv2.connectedComponentsWithStats(shown.astype(np.uint8))
    return float(np.sqrt(stats[1:, cv2.CC_STAT_AREA].max())) if count > 1 else 0.0


def _disc(reach: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
