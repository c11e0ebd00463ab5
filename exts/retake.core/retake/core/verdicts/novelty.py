# SPDX-License-Identifier: Apache-2.0
"""Whether a take was dressed at all, and whether its light flashes: two things that no geometry shows."""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Float32, UInt8
from retake.core.episode import Episode
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.truth import Truth

NAMES = ("redressed", "flash")
_SMALL = (160, 120)
_GRID = (20, 15)
_NEXT = (2, 5)
"""Frames away with which a frame's light is compared: a flash is shorter, a change lasts longer."""


def measure_novelty(footage: Footage, truth: Truth, episode: Episode, camera: str) -> list[Measurement]:
    """redressed (1 − correlation with the simulator's own pictures) and flash (share of the level)."""
    return [_redressed(footage, truth, episode, camera), _flash(footage)]


def _redressed(footage: Footage, truth: Truth, episode: Episode, camera: str) -> Measurement:
    """How little the take's colours follow the simulator's: 0 is the simulator's own picture, whatever its gain.

    The only place where the simulator's colours are read; being like them can make a take fail, never pass.
    """
    name = NAMES[0]
    if "rgb" not in episode.header.camera(camera).channels:
        why, recorded = "the simulator's own pictures were not recorded", episode.header.motion_source == "recorded"
        return Measurement(name, None, why, applies=False, absent=recorded)
    if episode.header.motion_source == "recorded":
        why = "a recording is no simulation: its own video is a faithful one"
        return Measurement(name, None, why, applies=False, absent=True)
    apart = []
    for t in np.unique(np.linspace(0, len(footage) - 1, 3).astype(int)):
        known = episode.image(camera, "rgb", truth.start + int(t))
        pair = [_soft(known), _soft(footage.frames[t])]
        a, b = (p - p.mean(0) for p in pair)
        spread = np.sqrt((a * a).sum(0) * (b * b).sum(0))
        if (spread < 1e-3).any():
            continue
        apart.append(1 - float(((a * b).sum(0) / spread).mean()))
    if not apart:
        return Measurement(name, None, "pictures without any contrast", applies=False)
    return Measurement(name, float(np.median(apart)), "against the simulator's own pictures")


def _soft(image: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "N 3"]:
    small = cv2.resize(image, _SMALL, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1.5).astype(np.float32).reshape(-1, 3)


def _flash(footage: Footage) -> Measurement:
    """Largest excursion of most of the picture's light that is over within a few frames, or with which the take begins.

    Per cell of the picture, as a share of the cell's own light: what eight cells in ten share. What moves through some of
    them is no flash.
    """
    name, (near, far) = NAMES[1], _NEXT
    if len(footage) < 2 * far + 1:
        return Measurement(name, None, "too few frames to tell a flash", applies=False)
    cells = np.stack([cv2.resize(f, _GRID, interpolation=cv2.INTER_AREA).mean(-1) for f in footage.frames])
    series = np.zeros(len(cells))
    for t in range(len(cells)):
        sides = []
        for side in (cells[max(t - far, 0) : max(t - near + 1, 0)], cells[t + near : t + far + 1]):
            if len(side) >= 2:
                sides.append(_shared(cells[t], np.median(side, axis=0)))
        if t < near:
            # A take that fades in slowly goes on doing so; a flash is over.
            later = _shared(cells[t + far], cells[min(t + 2 * far, len(cells) - 1)])
            series[t] = max(abs(sides[-1]) - 2 * abs(later), 0.0)
        elif len(sides) == 2 and sides[0] * sides[1] > 0:
            series[t] = min(abs(s) for s in sides)
    return Measurement(name, float(series.max()), "", int(series.argmax()), series=series)


def _shared(now: Float32[np.ndarray, "h w"], then: Float32[np.ndarray, "h w"]) -> float:
    """Change of light that eight cells in ten go along with, share of each cell's own; 0 where they do not agree."""
    change = (now - then) / np.maximum(then, 16.0)
    # As np.quantile, which is mostly preparation for so few.
    ordered = np.sort(change, axis=None).astype(np.float64)
    low, high = np.interp(np.array([0.2, 0.8]) * (len(ordered) - 1), np.arange(len(ordered)), ordered)
    return float(low) if low > 0 else float(high) if high < 0 else 0.0
