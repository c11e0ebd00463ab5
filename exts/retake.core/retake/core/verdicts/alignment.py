# SPDX-License-Identifier: Apache-2.0
"""Which small change of the known motion explains these pixels best: contours against edges, over shifts and lags.

For every frame t, part p and shift d: S[t, p, d] = mean edge response along p's contour moved by d, measured across
the contour. A(t, τ) is the same for the contours of frame t + τ, unmoved. Both say how well a hypothesis explains the
pixels, in 0..1; all estimates are maxima of their sums over time, and the gap to the next best says how sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float32, Float64
from retake.core.verdicts.footage import Footage, Window, edges, scenery_tensor
from retake.core.verdicts.truth import BINS, Contour, Truth


@dataclass(frozen=True, eq=False)
class Alignment:
    """Scores of all hypotheses, working pixels and frames."""

    step: int
    """Every step-th frame was scored; the rows of the others are empty (no points, NaN lags)."""
    shift_scores: Float32[np.ndarray, "T P S S"]
    """[.., dy + R, dx + R]: mean response of the contour moved by (dx, dy); 0 where the part has no contour."""
    points: Float64[np.ndarray, "T P"]
    """Contour points behind each score."""
    lag_scores: Float64[np.ndarray, "T L P"]
    """Sum of responses of the contour of frame t + lag, per part; NaN where that frame is outside the take."""
    lag_points: Float64[np.ndarray, "T L P"]
    radius: int
    """Largest shift searched, working px."""
    max_lag: int
    swelling: Float64[np.ndarray, "P"]
    """By how much the take's robot is wider at its end than at its beginning, working px."""
    girth: Float64[np.ndarray, "P"]
    """How much wider the take's robot is than the simulator's on every side, working px; the contours were moved out by it."""


def align(footage: Footage, truth: Truth, radius: int = 12, max_lag: int = 8, step: int = 2) -> Alignment:
    """Scores of shifts within ±radius working px and lags within ±max_lag frames, of every step-th frame."""
    frames, parts = len(footage), len(truth.parts)
    span = 2 * radius + 1
    height, width = truth.labels.shape[1:]
    pad = radius + 2
    wide = width + 2 * pad
    plane = (height + 2 * pad) * wide
    still = scenery_tensor(footage)
    third = max(frames // 3, 1)
    ends = ((0, third - 1), (frames - third, frames - 1), (0, frames - 1))
    early, late, girth = _girths(footage, truth, still, ends)
    flat = [_flat_index(contour, girth, pad, wide, plane, height, width) for contour in truth.contours]
    shift = np.zeros((frames, parts, span, span), np.float32)
    points = np.zeros((frames, parts))
    lag = np.full((frames, 2 * max_lag + 1, parts), np.nan)
    lag_points = np.zeros((frames, 2 * max_lag + 1, parts))
    number = np.stack([np.bincount(contour.part, minlength=parts) for contour in truth.contours])
    # Outside the window nothing is looked up.
    window = _reached(truth, radius + math.ceil(np.abs(girth).max(initial=0.0)) + 2)
    padded = np.zeros((BINS, height + 2 * pad, wide), np.float32)
    inner = _inner(padded, pad, window)
    for t in range(0, frames, step):
        inner[:] = edges(footage, t, still, window)
        field = padded.ravel()
        contour = truth.contours[t]
        if len(contour.xy):
            values = _squares(padded, flat[t], radius)
            present, first = np.unique(contour.part, return_index=True)
            counts = np.diff(np.append(first, len(contour.part)))
            shift[t, present] = (np.add.reduceat(values, first, axis=0) / counts[:, None]).reshape(-1, span, span)
            points[t, present] = counts
        for k in range(2 * max_lag + 1):
            other = t + k - max_lag
            if 0 <= other < frames:
                lag[t, k] = np.bincount(truth.contours[other].part, np.take(field, flat[other], mode="clip"), parts)
                lag_points[t, k] = number[other]
    return Alignment(step, shift, points, lag, lag_points, radius, max_lag, late - early, girth)


_GIRTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
_GIRTH_FRAMES, _GIRTH_REACH, _GIRTH_PRIOR = 8, 4, 0.004


def _girths(
    footage: Footage, truth: Truth, still: Float32[np.ndarray, "3 H W"], spans: tuple[tuple[int, int], ...]
) -> list[Float64[np.ndarray, "P"]]:
    """Width of every part in each span of frames (first, last), working px: one figure per robot, 0 for objects.

    A painter whose arms are a little thicker than the simulator's is no arm in another place. Width and shift are searched
    together, so that a displaced arm is not mistaken for a wide one.
    """
    robots = dict.fromkeys(truth.parts[p].robot for p in truth.robot_parts)
    member = {name: np.array([part.robot == name for part in truth.parts]) for name in robots}
    asked = [np.unique(np.linspace(*span, _GIRTH_FRAMES).astype(int)) if robots else () for span in spans]
    seen = _girth_sums(footage, truth, still, member, sorted({t for times in asked for t in times}))
    widths = []
    for times in asked:
        out = np.zeros(len(truth.parts))
        for name in robots:
            count = sum(seen[t][name][0] for t in times)
            if count:
                score = (sum((seen[t][name][1] for t in times), np.zeros(1)) / count).max(1) - _GIRTH_PRIOR * np.square(
                    _GIRTHS
                )
                best = int(np.argmax(score))
                out[member[name]] = _GIRTHS[best] + vertex(score, best)
        widths.append(out)
    return widths


def _girth_sums(
    footage: Footage, truth: Truth, still: Float32[np.ndarray, "3 H W"], member: dict[str, np.ndarray], times: list[int]
) -> dict[int, dict[str, tuple[int, Float64[np.ndarray, "G S"]]]]:
    """Frame -> robot -> number of its contour points, and the sums of their responses per width and shift."""
    height, width = truth.labels.shape[1:]
    pad = _GIRTH_REACH + 2
    wide = width + 2 * pad
    window = _reached(truth, _GIRTH_REACH + math.ceil(max(_GIRTHS)) + 2)
    padded = np.zeros((BINS, height + 2 * pad, wide), np.float32)
    inner = _inner(padded, pad, window)
    out: dict[int, dict[str, tuple[int, np.ndarray]]] = {}
    for t in times:
        contour = truth.contours[t]
        inner[:] = edges(footage, t, still, window)
        places = [
            _flat_index(contour, np.full(len(truth.parts), girth), pad, wide, (height + 2 * pad) * wide, height, width)
            for girth in _GIRTHS
        ]
        out[t] = {}
        for name, of_robot in member.items():
            mine = of_robot[contour.part]
            sums = [_squares(padded, flat[mine], _GIRTH_REACH).sum(0) for flat in places]
            out[t][name] = int(mine.sum()), np.stack(sums).astype(np.float64)
    return out


def _squares(padded: Float32[np.ndarray, "B H W"], places: np.ndarray, reach: int) -> Float32[np.ndarray, "N S"]:
    """What lies within `reach` of places of a padded picture (flat indices), row by row.

    Rows of a picture that are copied whole cost a fraction of as many pixels that are looked up.
    """
    wide, (_, line, step), span = padded.shape[2], padded.strides, 2 * reach + 1
    count = padded.size - 2 * reach * (wide + 1)
    every = np.lib.stride_tricks.as_strided(padded, (count, span, span), (step, line, step), writeable=False)
    return every[places - reach * (wide + 1)].reshape(len(places), span * span)


def _reached(truth: Truth, reach: int) -> Window:
    """The part of the picture within `reach` working px of any contour of the take."""
    places = np.concatenate([contour.xy for contour in truth.contours])
    if not len(places):
        return slice(0, 1), slice(0, 1)
    low = np.maximum(np.floor(places.min(0)).astype(int) - reach, 0)
    high = np.ceil(places.max(0)).astype(int) + reach + 1
    return slice(int(low[1]), min(int(high[1]), truth.size[1])), slice(int(low[0]), min(int(high[0]), truth.size[0]))


def _inner(padded: Float32[np.ndarray, "B H W"], pad: int, window: Window) -> Float32[np.ndarray, "B h w"]:
    """The window's part of a padded picture, as a view."""
    rows, columns = window
    return padded[:, rows.start + pad : rows.stop + pad, columns.start + pad : columns.stop + pad]


def _flat_index(
    contour: Contour, girth: Float64[np.ndarray, "P"], pad: int, wide: int, plane: int, height: int, width: int
) -> np.ndarray:
    out = girth[contour.part]
    column = np.clip(np.round(contour.xy[:, 0] + out * contour.normal[:, 0]).astype(np.int64), 0, width - 1) + pad
    row = np.clip(np.round(contour.xy[:, 1] + out * contour.normal[:, 1]).astype(np.int64), 0, height - 1) + pad
    return contour.bin.astype(np.int64) * plane + row * wide + column


def peak(score: Float64[np.ndarray, "S S"], prior: float = 0.0) -> tuple[float, float, float]:
    """(dx, dy, gain) of the best shift, by a parabola through its neighbours; gain over no shift.

    `prior` is subtracted per squared pixel of shift: along a straight contour every shift is as good, and the
    smallest is the honest answer.
    """
    span = score.shape[0]
    radius = span // 2
    grid = np.arange(span) - radius
    judged = score - prior * (grid[:, None] ** 2 + grid[None, :] ** 2)
    row, column = np.unravel_index(int(np.argmax(judged)), judged.shape)
    gain = float(judged[row, column] - judged[radius, radius])
    return (
        float(column - radius + vertex(judged[row], int(column))),
        float(row - radius + vertex(judged[:, column], int(row))),
        gain,
    )


def vertex(line: Float64[np.ndarray, "S"], index: int) -> float:
    """Sub-sample position of a maximum, −0.5..0.5."""
    if not 0 < index < len(line) - 1:
        return 0.0
    left, middle, right = float(line[index - 1]), float(line[index]), float(line[index + 1])
    curve = left - 2 * middle + right
    return 0.0 if curve >= -1e-9 else float(np.clip(0.5 * (left - right) / curve, -0.5, 0.5))


def best_lag(alignment: Alignment, parts: list[int]) -> tuple[float, Float64[np.ndarray, "L"]]:
    """(lag, score per candidate). Positive: the take is late, its frame t shows the simulator's frame t − lag.

    Only frames in which every candidate exists count, so that all candidates are compared on the same pixels.
    """
    inside = slice(alignment.max_lag, len(alignment.lag_scores) - alignment.max_lag)
    score = alignment.lag_scores[inside][:, :, parts].sum(-1)
    count = alignment.lag_points[inside][:, :, parts].sum(-1)
    rows = ~np.isnan(score).any(1)
    score, count = score[rows], count[rows]
    if not len(score):
        return 0.0, np.zeros(2 * alignment.max_lag + 1)
    curve = score.sum(0) / np.maximum(count.sum(0), 1)
    index = int(np.argmax(curve))
    return -(index - alignment.max_lag + vertex(curve, index)), curve
