# SPDX-License-Identifier: Apache-2.0
"""Objects as bodies: does what shows at an object's place have its silhouette, its place to the pixel, and its colours?

In each frame two colour models are learned afresh, of what the simulator's mask covers and of what surrounds it, and every
pixel nearby is told one from the other. Light that changes, a face that turns into view or a painter's own material change
nothing; a mask that covers scenery, or an object that shows beside it, does. Pixels near the robot and other objects and
scenery of the object's own colours say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.alignment import vertex
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.truth import Truth

REACH = 9
"""Working px within which an object is looked for beside its place."""
TOLERANCE = 1.0
"""Working px by which a silhouette may be off, once it lies where it fits best: 2 px of a 640 wide picture."""
_RING, _NEAR = 3, 2
"""Working px: ring around the mask that must not be object; around the robot that says nothing."""
_MIN_AREA, _MIN_SHARE = 30.0, 0.3
_OPEN = 0.9
"""Share of mask and ring that must be free of robot and other objects for the area to be compared."""
_LUMA, _CHROMA = 16, 16
_PIXELS = 100
_DARK = 12.0
"""Level that is added before ratios are taken: noise in the dark is no colour."""
_SAME_HUE, _SHADED, _LIT = 0.1, -0.9, 0.15
"""Log ratios to the scenery behind within which a pixel may show it: of hue; of light, in a shadow and in the open."""


@dataclass(frozen=True, eq=False)
class Body:
    """One object's silhouettes through a take, working px; NaN where a frame says nothing."""

    part: int
    area: Float64[np.ndarray, "T"]
    """Of the simulated mask, working px²."""
    looked: Bool[np.ndarray, "T"]
    """Frames that were looked at."""
    offset: Float64[np.ndarray, "T 2"]
    """From the simulator's place to the best one within REACH."""
    missing: Float64[np.ndarray, "T"]
    """Share of the mask, further inside than TOLERANCE, that shows something else."""
    extra: Float64[np.ndarray, "T"]
    """Pixels further outside than TOLERANCE that look like the object, as a share of its area."""
    size: Float64[np.ndarray, "T"]
    """Area that looks like the object as a share of the mask's; NaN where something touches it."""
    contrast: Float64[np.ndarray, "T"]
    """How well inside and outside are told apart: 1 entirely, 0 not at all."""
    colour: Float64[np.ndarray, "T 3"]
    """Mean RGB well inside the mask."""
    pixels: dict[int, UInt8[np.ndarray, "N 3"]]
    """Per frame, RGB of at most _PIXELS pixels there, evenly spread."""
    behind: Float64[np.ndarray, "T"]
    """Share of what is well inside the mask that looks as the scenery behind it does in other frames; NaN where none shows it."""
    turn: Float64[np.ndarray, "T"]
    """Angle between the long axes of the simulated and the shown silhouette, rad; NaN where either is round."""

    @property
    def silhouette(self) -> Float64[np.ndarray, "T"]:
        """What is missing and what is extra together."""
        return self.missing + self.extra


def bodies(footage: Footage, truth: Truth, part: int, times: list[int]) -> Body:
    """Silhouettes of one object in the frames `times`."""
    nothing = np.full(len(footage), np.nan)
    looked = np.zeros(len(footage), bool)
    looked[times] = True
    out = Body(
        part, truth.area[:, part], looked, np.full((len(footage), 2), np.nan), nothing, nothing.copy(), nothing.copy(),
        nothing.copy(),
        np.full((len(footage), 3), np.nan), {}, nothing.copy(), nothing.copy(),
    )  # fmt: skip
    for t in times:
        if truth.area[t, part] >= _MIN_AREA:
            _look(footage, truth, t, out)
    return out


def _look(footage: Footage, truth: Truth, t: int, out: Body) -> None:
    whole = truth.labels[t]
    rows, columns = np.nonzero(whole == out.part + 1)
    if not len(rows):
        return
    pad = REACH + _RING + 1
    y0, y1 = max(rows.min() - pad, 0), min(rows.max() + pad + 1, whole.shape[0])
    x0, x1 = max(columns.min() - pad, 0), min(columns.max() + pad + 1, whole.shape[1])
    box = np.s_[y0:y1, x0:x1]
    labels, image = whole[box], footage.frames[t][box]
    mask = labels == out.part + 1
    other = ((labels > 0) & ~mask).astype(np.uint8)
    free = cv2.dilate(other, np.ones((2 * _NEAR + 1,) * 2, np.uint8)) == 0
    codes, known = _codes(image), footage.known[box]
    scenery = _codes(footage.scenery[box].astype(np.uint8)) if known.any() else None
    fitted, offset, alike = mask, np.zeros(2), np.zeros_like(mask)
    depth = own_depth = signed_distance(mask)
    for _ in range(2):
        # Models of a mask beside the object would take some scenery for it: they are learned again where it fits.
        inside, outside = fitted & free & (depth >= 1), ~fitted & free & (depth <= -1.5)
        if inside.sum() < max(0.5 * _MIN_AREA, _MIN_SHARE * mask.sum()) or outside.sum() < 2 * _MIN_AREA:
            return
        table = _table(codes[inside], codes[outside])
        likely = table[codes]
        # Scenery that has the object's colours hides an object that stands before it.
        if scenery is not None:
            alike = known & (table[scenery] > 0.5) & ~fitted
        offset = _offset((likely - 0.5) * (free & ~alike), mask, own_depth, free)
        if not np.isfinite(offset).all() or np.hypot(*offset) < 0.5:
            break
        fitted = _shift_mask(mask, offset) > 0.5
        depth = signed_distance(fitted)
    contrast = float(likely[inside].mean() - likely[outside].mean())
    out.contrast[t] = contrast
    core = mask & free & (own_depth >= TOLERANCE)
    if core.any():
        inner = image[core]
        out.colour[t] = inner.mean(0)
        out.pixels[t] = inner[np.linspace(0, len(inner) - 1, min(len(inner), _PIXELS)).astype(int)]
        if (core & known).sum() >= 0.5 * core.sum():
            out.behind[t] = _like_scenery(image[core & known], footage.scenery[box][core & known])
    out.offset[t] = offset
    if np.isfinite(offset).all():
        # A small shift is no other shape: the silhouette is judged where it fits best.
        fitted, clear = _shift_mask(mask, offset) > 0.5, free & (_shift_mask(free, offset) > 0.99)
        depth = signed_distance(fitted)
        near = free & ~alike & (depth >= -REACH)
        around = mask | (depth > -_RING)
        if (free & around).sum() >= _OPEN * around.sum():
            out.size[t] = float(max(((likely > 0.5) & near).sum(), 1) / max((fitted & near).sum(), 1))
        missing = (likely < 0.5) & fitted & clear & (depth >= TOLERANCE)
        extra = (likely > 0.5) & ~fitted & clear & ~alike & (depth <= -TOLERANCE) & (depth >= -REACH)
        out.missing[t], out.extra[t] = float(missing.sum() / mask.sum()), float(extra.sum() / mask.sum())
    out.turn[t] = _turn(mask & free, (likely > 0.5) & free & ~alike & (depth >= -REACH))


def _like_scenery(shown: UInt8[np.ndarray, "N 3"], scenery: Float32[np.ndarray, "N 3"]) -> float:
    """Share of pixels (RGB) that look as the scenery behind them, in the light or in a shadow."""
    now, then = (np.log(pixels.astype(np.float32) + _DARK) for pixels in (shown, scenery))
    change = now - then
    lit = change.mean(1)
    hue = np.abs(change - lit[:, None]).max(1)
    return float(((hue < _SAME_HUE) & (lit > _SHADED) & (lit < _LIT)).mean())


def _shift_mask(image: Bool[np.ndarray, "h w"], offset: Float64[np.ndarray, "2"]) -> Float32[np.ndarray, "h w"]:
    """A mask moved by a fraction of pixels, 0..1; what comes in from outside is the border's."""
    M = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image.astype(np.float32), M, size, borderMode=cv2.BORDER_REPLICATE)


def signed_distance(mask: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance to the outline, working px: positive inside; ±0.5 are the pixels on its two sides."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def _codes(image: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """Colour bin of every pixel: brightness and two opponent chroma axes."""
    r, g, b = (plane.astype(np.int32) for plane in cv2.split(cv2.GaussianBlur(image, (3, 3), 0)))
    luma = (r + g + b) * _LUMA // 766
    red = np.clip((r - g + 192) * _CHROMA // 384, 0, _CHROMA - 1)
    blue = np.clip(((r + g) // 2 - b + 192) * _CHROMA // 384, 0, _CHROMA - 1)
    return (luma * _CHROMA + red) * _CHROMA + blue


def _table(inside: np.ndarray, outside: np.ndarray) -> Float32[np.ndarray, "C"]:
    """Probability of 'inside' per colour bin; colours of neither are undecided."""
    a, b = _histogram(inside), _histogram(outside)
    floor = 1e-4
    return ((a + floor) / (a + b + 2 * floor)).astype(np.float32).ravel()


def _histogram(codes: np.ndarray) -> Float32[np.ndarray, "L C C"]:
    counts = np.bincount(codes, minlength=_LUMA * _CHROMA * _CHROMA).astype(np.float32) / max(len(codes), 1)
    cube = counts.reshape(_LUMA, _CHROMA, _CHROMA)
    for axis in range(3):
        flat = np.ascontiguousarray(np.moveaxis(cube, axis, 0)).reshape(cube.shape[axis], -1)
        soft = cv2.sepFilter2D(flat, cv2.CV_32F, np.ones(1), np.array([0.25, 0.5, 0.25]), borderType=cv2.BORDER_REFLECT)
        cube = np.moveaxis(soft.reshape(np.moveaxis(cube, axis, 0).shape), 0, axis)
    return cube


def _offset(
    likely: Float32[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], depth: Float32[np.ndarray, "h w"],
    free: Bool[np.ndarray, "h w"],
) -> Float64[np.ndarray, "2"]:  # fmt: skip
    """Shift of the mask that covers most of the object and least of its surroundings, working px; NaN at the border."""
    # Pixels count by their distance to the outline: what is drawn a little wider or narrower all round lies in the middle.
    signed = np.where(depth > -_RING - 0.6, np.clip(depth, -_RING, _RING), 0.0) * free
    if not (signed > 0).any():
        return np.full(2, np.nan)
    rows, columns = np.flatnonzero((signed != 0).any(1)), np.flatnonzero((signed != 0).any(0))
    kernel = signed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    field = cv2.copyMakeBorder(likely.astype(np.float32), REACH, REACH, REACH, REACH, cv2.BORDER_CONSTANT, value=0)
    top, left = rows[0], columns[0]
    window = field[top : top + kernel.shape[0] + 2 * REACH, left : left + kernel.shape[1] + 2 * REACH]
    score = cv2.matchTemplate(window, kernel, cv2.TM_CCORR) / float(signed[signed > 0].sum())
    grid = np.arange(2 * REACH + 1) - REACH
    score = score - 4e-4 * (grid[:, None] ** 2 + grid[None, :] ** 2)
    row, column = divmod(int(np.argmax(score)), score.shape[1])
    if not (0 < row < 2 * REACH and 0 < column < 2 * REACH):
        return np.full(2, np.nan)
    return np.array([column - REACH + vertex(score[row], column), row - REACH + vertex(score[:, column], row)])


def _turn(mask: Bool[np.ndarray, "h w"], shown: Bool[np.ndarray, "h w"]) -> float:
    """Angle between the long axes of two silhouettes, 0..π/2; NaN where one has none."""
    angles = []
    for silhouette in (mask, shown):
        m = cv2.moments(silhouette.astype(np.uint8), binaryImage=True)
        if m["m00"] < _MIN_AREA:
            return float("nan")
        a, b, c = m["mu20"] / m["m00"], m["mu11"] / m["m00"], m["mu02"] / m["m00"]
        spread = np.hypot(a - c, 2 * b)
        if (a + c + spread) < 1.5 * (a + c - spread):
            return float("nan")
        angles.append(0.5 * np.arctan2(2 * b, a - c))
    turn = abs(angles[0] - angles[1]) % np.pi
    return float(min(turn, np.pi - turn))
