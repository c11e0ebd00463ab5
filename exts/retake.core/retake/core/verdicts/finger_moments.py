# SPDX-License-Identifier: Apache-2.0
"""When a gripper opens or closes, told by how far its fingers reach over the scenery beside them.

A finger that is early by some frames reaches further than simulated, by as much as it travels in them. In every frame around
an opening or closing each pixel near a finger lies somewhere between the scenery that is known there and the finger's own
colour; the finger's mask is moved along its travel, and the moment is believed whose places explain these pixels best. What
stays the same all the time (a painter's wider outline, a shadow) is taken out as a constant per finger. Contours (`gripper`)
tell the same from edges, which the held object and the other finger have as well; this asks nothing of them. It needs a camera
that stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.truth import Truth

AROUND = 8
"""Frames before and after a change that tell its moment and what stays the same."""
_GRID = np.arange(-8, 8.01, 0.25)
"""Working px by which a finger is moved along its travel."""
_CONSTANTS = np.linspace(-2, 2, 17)
"""Working px by which a finger may be drawn further out (or in) all the time."""
_LEAST_TRAVEL, _LEAST_AREA, _CORE = 1.0, 8, 4
"""Working px from closed to open, visible working px² of a finger in a frame, and of its inside that its colour is taken from."""
_CONTRAST = 60.0
"""Distance of two RGB colours from which on a pixel counts in full."""
_NOISE = 0.12
"""Mean squared share of finger in a pixel that codecs and soft outlines leave unexplained."""
_LEAST_EDGE = 0.5
"""Whole pixels that a finger covers anew when it moves by a pixel, below which it tells nothing."""
TOLD_FRAMES = 3
"""Frames by which a change early or late must be told, for its moment to count as judged."""
_TELLING = 8.0
"""Likelihood (log) that a change early or late by so many frames would cost, for its moment to be asked."""
_GAIN = 4.0
"""Likelihood (log) by which another moment must explain the pixels better: of the faithful films it was made with half a frame
reaches 3.1, and more than a frame 2.2."""
_DOUBT, _APART = 3.0, 1.5
"""Likelihood (log) by which a moment at least so many frames off must explain them better for the simulated one to be doubted."""


@dataclass(frozen=True)
class _Near:
    """One finger in one frame."""

    cost: Float64[np.ndarray, "D"]
    """Log likelihood that its mask, moved along its travel, lacks to the best place; how noisy the frame is, is not known."""
    telling: Float64[np.ndarray, "D"]
    """What it would lack if the finger were in its own place."""


def early_by(
    footage: Footage, truth: Truth, parts: tuple[int, ...], travel: Float64[np.ndarray, "T F 2"],
    openness: Float64[np.ndarray, "T"], begin: int, end: int, reach: int, px: float = 1.0,
) -> float | None:  # fmt: skip
    """Frames, up to `reach`, by which the change from frame `begin` to `end` comes early (negative: late), 0 where nothing speaks
    against its moment; NaN where another moment fits better, but not so much that it is believed; None where so little of the
    fingers shows before known scenery that the moment cannot be told. px: pixels of these pictures per working pixel."""
    if not truth.static_camera or not footage.known.any():
        return None
    shifts = np.linspace(-reach, reach, 4 * reach + 1)
    frames = range(max(begin - AROUND, 0), min(end + AROUND, len(truth) - 1) + 1)
    times = np.arange(len(truth), dtype=np.float64)
    grid, constants = px * _GRID, px * _CONSTANTS
    cost, telling = np.zeros(len(shifts)), np.zeros(len(shifts))
    for k, part in enumerate(parts):
        colour, lengths = _colour(footage, truth, part, frames), np.hypot(*travel[:, k].T)
        asked = _asked(truth, part, lengths, frames, px)
        if colour is None or not asked:
            continue
        span = min(lengths[asked].max() * abs(openness[end] - openness[begin]) + constants[-1], grid[-1])
        mine = np.zeros((len(shifts), len(constants)))
        for t in asked:
            near = _near(footage, truth, part, travel[t, k] / lengths[t], t, colour, span, grid)
            moved = (np.interp(t + shifts, times, openness) - openness[t]) * lengths[t]
            mine += np.interp(moved[:, None] + constants, grid, near.cost)
            telling += np.interp(moved, grid, near.telling)
        cost += mine.min(1)
    middle, best = len(shifts) // 2, int(np.argmin(cost))
    told = 2 * TOLD_FRAMES
    if min(telling[middle - told], telling[middle + told]) < _TELLING:
        return None
    gain = cost[middle] - cost[best]
    if gain >= _GAIN:
        # Fingers that are open before the simulated ones open may have opened at any time since they last showed.
        likely = np.exp(cost[best] - cost)
        return float((likely * shifts).sum() / likely.sum())
    return float("nan") if gain >= _DOUBT and abs(shifts[best]) >= _APART else 0.0


def own_place(
    footage: Footage, truth: Truth, parts: tuple[int, ...], travel: Float64[np.ndarray, "T F 2"],
    errors: Float64[np.ndarray, "E"], frames: Sequence[int],
) -> Bool[np.ndarray, "E"]:  # fmt: skip
    """Of each openness error (0..1, signed) whether in these frames known scenery shows where its fingers would be, and fingers
    where they belong: the pixels themselves speak against it, however well its contours lie on edges. False where so little
    of the fingers shows that nothing can be said, and beyond what is looked at (_GRID)."""
    if not truth.static_camera or not footage.known.any():
        return np.zeros(len(errors), bool)
    lacking, within = np.zeros(len(errors)), np.ones(len(errors), bool)
    for k, part in enumerate(parts):
        colour, lengths = _colour(footage, truth, part, frames), np.hypot(*travel[:, k].T)
        asked = _asked(truth, part, lengths, frames)
        if colour is None or not asked:
            continue
        elsewhere, here = np.zeros((len(errors), len(_CONSTANTS))), np.zeros(len(_CONSTANTS))
        span = min(lengths[asked].max() + _CONSTANTS[-1], _GRID[-1])
        for t in asked:
            near = _near(footage, truth, part, travel[t, k] / lengths[t], t, colour, span, _GRID)
            elsewhere += np.interp(errors[:, None] * lengths[t] + _CONSTANTS, _GRID, near.cost)
            here += np.interp(_CONSTANTS, _GRID, near.cost)
            within &= np.abs(errors) * lengths[t] <= _GRID[-1] - _CONSTANTS[-1]
        lacking += elsewhere.min(1) - here.min()
    return within & (lacking >= _GAIN)


def _asked(
    truth: Truth, part: int, lengths: Float64[np.ndarray, "T"], frames: Sequence[int], px: float = 1.0
) -> list[int]:
    """Frames in which a finger shows and travels far enough."""
    return [t for t in frames if lengths[t] >= _LEAST_TRAVEL * px and truth.area[t, part] >= _LEAST_AREA * px**2]


def _colour(footage: Footage, truth: Truth, part: int, frames: Sequence[int]) -> Float64[np.ndarray, "3"] | None:
    """RGB of a finger's inside around a change."""
    found = []
    for t in frames:
        mask = (truth.labels[t] == part + 1).astype(np.uint8)
        core = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        if core.sum() >= _CORE:
            found.append(footage.frames[t][core])
    return np.median(np.concatenate(found), axis=0) if found else None


def _near(
    footage: Footage, truth: Truth, part: int, along: Float64[np.ndarray, "2"], t: int, colour: Float64[np.ndarray, "3"],
    span: float, grid: Float64[np.ndarray, "D"],
) -> _Near:  # fmt: skip
    """grid: px by which the finger is moved. span: those by which it can be elsewhere; beyond is not looked at."""
    whole = truth.labels[t]
    x, y, width, height = cv2.boundingRect((whole == part + 1).astype(np.uint8))
    pad = int(grid[-1]) + 3
    box = np.s_[max(y - pad, 0) : y + height + pad, max(x - pad, 0) : x + width + pad]
    mask, labels = whole[box] == part + 1, whole[box]
    scenery = footage.scenery[box].astype(np.float32)
    apart = colour.astype(np.float32) - scenery
    size = (apart**2).sum(-1)
    share = ((footage.frames[t][box] - scenery) * apart).sum(-1) / np.maximum(size, 1)
    # Beside another part its outline, drawn elsewhere, would be taken for the finger's.
    others = cv2.dilate(((labels > 0) & ~mask).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    moved, reached = _moved(mask, along, grid), np.abs(grid) <= span
    free = footage.known[box] & ~others & (np.ptp(moved[reached], axis=0) > 0.05)
    weight = np.where(free, np.minimum(size / _CONTRAST**2, 1.0), 0.0)
    misfit = (weight * (np.clip(share, -0.5, 1.5) - moved) ** 2).sum((1, 2)).astype(np.float64)
    apart_from_own = (weight * (moved - moved[len(grid) // 2]) ** 2).sum((1, 2)).astype(np.float64)
    edge = float(np.interp([-1, 1], grid, apart_from_own).mean())
    if edge < _LEAST_EDGE:
        return _Near(np.zeros(len(grid)), np.zeros(len(grid)))
    least = misfit[reached].min() + _NOISE * edge
    return _Near(
        edge * np.log(np.maximum(misfit + _NOISE * edge, least) / least), edge * np.log1p(apart_from_own / least)
    )


def _moved(
    mask: np.ndarray, along: Float64[np.ndarray, "2"], grid: Float64[np.ndarray, "D"]
) -> Float32[np.ndarray, "D h w"]:
    """A mask at every place of a grid, 0..1."""
    image, size = mask.astype(np.float32), (mask.shape[1], mask.shape[0])
    return np.stack(
        [cv2.warpAffine(image, np.array([[1, 0, d * along[0]], [0, 1, d * along[1]]], np.float32), size) for d in grid]
    )
