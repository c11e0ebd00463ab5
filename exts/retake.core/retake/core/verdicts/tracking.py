# SPDX-License-Identifier: Apache-2.0
"""Where the object is: its colours are learned from the take's own first frame inside the known mask, then searched.

For every frame the simulator's visible mask is laid over the whole image and scored by how much likelier the object's
colours are inside it than around it. The best place, the simulator's place and the second-best place are reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.copies import Copies
from retake.core.verdicts.footage import Footage, first_scenery
from retake.core.verdicts.scene import Scene
from retake.core.verdicts.truth import Truth

MIN_AREA = 30.0
"""Visible working px² below which a mask says too little (an 11 x 11 px patch of a 640x480 image)."""
_LUMA_BINS, _CHROMA_BINS = 12, 24
_LUMA_FACTOR, _LUMA_SHIFT = 4107, 18
"""What takes a sum of three channels (0..765) to its bin, `sum * _LUMA_BINS // 766`, without a division or a table."""
SEARCHED = 2
"""Every so many frames of a moving camera are searched."""
_BESIDE = 2.5
"""Half working px by which a best place must be off to be another one than the object's own."""
_COPY = 0.2
"""Share of the first frame's contrast below which nothing is like a second one."""
_LOST, _SAME = 0.25, 0.3
"""A frame says nothing when the best contrast is below _LOST of the first frame's and the scenery at the object's place
is likelier than _SAME to be the object."""


@dataclass(frozen=True, eq=False)
class Track:
    """One object through a take, working px. Rows where nothing could be measured are NaN."""

    part: int
    found: Float64[np.ndarray, "T 2"]
    """Centroid where the object's colours are best, NaN where it is hidden in the simulation."""
    expected: Float64[np.ndarray, "T 2"]
    """Centroid in the simulation."""
    here: Float64[np.ndarray, "T"]
    """Likelihood contrast at the simulator's place: about 1 there, 0 not there."""
    best: Float64[np.ndarray, "T"]
    """Contrast at the best place."""
    second: Float64[np.ndarray, "T"]
    """Contrast of the best place away from the best one, less what the first frame already showed there."""
    second_at: Float64[np.ndarray, "T 2"]
    reference: float
    """Contrast in the first frame: how well the object's colours tell it from everything else."""
    likelihood: Float32[np.ndarray, "T h w"]
    """Probability 0..1 that a pixel shows the object; half working size."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What all objects of a take are looked for in."""

    codes: list[np.ndarray]
    """Per frame (H, W) int, see `_codes`."""
    still: Float32[np.ndarray, "H W 3"]
    """RGB of the scenery, see `first_scenery`."""
    changed: Bool[np.ndarray, "H W"]


def seen_in(footage: Footage, truth: Truth) -> Seen:
    """Worked out once for all objects."""
    return Seen([_codes(frame) for frame in footage.frames], *first_scenery(footage, truth))


def track(
    footage: Footage, truth: Truth, part: int, scene: Scene | None = None, seen: Seen | None = None
) -> Track | None:
    """Track one object. None when it is not visible in the take's first frame, so nothing can be learned.

    `scene` says for a moving camera which scenery other frames showed at a place; there every `SEARCHED`th frame is searched.
    `seen` is that of the same footage, where other objects are tracked in it as well.
    """
    frames, first = len(footage), truth.labels[0] == part + 1
    if truth.area[0, part] < MIN_AREA:
        return None
    seen = seen or seen_in(footage, truth)
    codes = seen.codes
    context = _swept(truth, part)
    outside = cv2.dilate(first.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    negative = _histogram(codes[0][outside])
    if (outside & context).sum() > 50:
        negative = 0.5 * negative + 0.5 * _histogram(codes[0][outside & context])
    positive = _histogram(codes[0][_core(first)])
    table = _posterior(positive, negative)
    half = (truth.size[0] // 2, truth.size[1] // 2)
    likelihood = np.zeros((frames, half[1], half[0]), np.float32)
    likelihood[0] = _half(table[codes[0]], half)
    start = cv2.dilate(_half(first.astype(np.float32), half), np.ones((5, 5), np.uint8)) > 0
    lasting = _lasting(codes, table, truth, half)
    lasting[_half(seen.changed.astype(np.float32), half) > 0] = 0
    scenery = _codes(seen.still.astype(np.uint8))
    clutter = _clutter(table, lasting, codes[0], scenery, footage.known, start, half)
    references = sorted({0, *range(0, frames, max(frames // 4, 1))}) if scene else []
    earlier = {r: _half(table[codes[r]], half) for r in references}
    copies = Copies(replace(footage, scenery=seen.still), truth, part, half)
    found, second_at = np.full((frames, 2), np.nan), np.full((frames, 2), np.nan)
    here, best, second = (np.full(frames, np.nan) for _ in range(3))
    for t in range(frames):
        likelihood[t] = _half(table[codes[t]], half)
        visible = truth.labels[t] == part + 1
        if truth.area[t, part] < MIN_AREA or (t % SEARCHED and not truth.static_camera):
            continue
        mask = _half(visible.astype(np.float32), half)
        size = max(6, int(1.3 * np.sqrt(mask.sum())))
        if not truth.static_camera:
            clutter = _seen_elsewhere(scene, t, likelihood[t], earlier)
        novel = copies.among(t, np.maximum(likelihood[t] - clutter, 0), mask)
        # Pixels of the robot and of bystanders cannot be the object, whatever their colour; far away not even close to
        # their outlines.
        robot = _half(truth.others(t, part).astype(np.float32), half)
        away, anchor = _search(novel * (1 - cv2.dilate(robot, np.ones((5, 5), np.uint8))), mask)
        near = _window(anchor, size, mask.shape)
        score, _ = _search(likelihood[t] * (1 - robot), mask, near)
        here[t] = score[anchor[1] - near[0].start, anchor[0] - near[1].start]
        news = away.copy()
        away[near] = np.maximum(score, away[near])
        row, column = _argmax(away)
        best[t] = away[row, column]
        if best[t] < _LOST * here[0] and _around(clutter, mask) > _SAME:
            # The scenery here has the object's colours: whether it is there cannot be seen.
            here[t] = best[t] = np.nan
            continue
        shift = np.array([column, row]) + _fine(away, row, column) - anchor
        found[t] = truth.centroid[t, part] + 2 * shift
        away[_window((column, row), size, away.shape)] = -1
        beside = _BESIDE < np.abs(shift).max() <= size and news[row, column] < 0.5 * best[t]
        row, column = _argmax(away)
        if beside and away[row, column] > _COPY * here[0]:
            # Scenery of its colours beside it may look more like it than it does; it is no second one of itself.
            away[near] = -1
            row, column = _argmax(away)
        second[t] = away[row, column]
        second_at[t] = truth.centroid[t, part] + 2 * (np.array([column, row]) - anchor)
        if scene is not None:
            before = {r: shown for r, shown in earlier.items() if r < t}
            second[t], second_at[t] = _copy_on_the_way(copies, scene, t, likelihood[t], before, mask, robot)
            second[t] *= here[0]
        if t % 3 == 0 and np.hypot(*shift) < 2 and here[t] > 0.5 * here[0]:
            # The object turns and its shading with it: follow its colours while it is certainly there.
            positive = 0.8 * positive + 0.2 * _histogram(codes[t][_core(visible)])
            table = _posterior(positive, negative)
            earlier = {r: _half(table[codes[r]], half) for r in references}
            if truth.static_camera:
                clutter = _clutter(table, lasting, codes[0], scenery, footage.known, start, half)
    return Track(
        part, found, truth.centroid[:, part], here, best, second, second_at, float(here[0]), likelihood
    )  # fmt: skip


def _codes(frame: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """Colour bin of every pixel: two opponent chroma axes finely, brightness coarsely (shading changes it)."""
    r, g, b = (plane.astype(np.int16) for plane in cv2.split(cv2.GaussianBlur(frame, (3, 3), 0)))
    both = r + g
    # All three lie within their bins: no colour is brighter than white, and differences are -255..255.
    luma = (both + b).astype(np.int32) * _LUMA_FACTOR >> _LUMA_SHIFT
    red = (r - g + 256) * _CHROMA_BINS >> 9
    blue = ((both >> 1) - b + 256) * _CHROMA_BINS >> 9
    return ((luma * _CHROMA_BINS + red) * _CHROMA_BINS + blue).astype(np.intp)


def _lasting(codes: list[np.ndarray], table: np.ndarray, truth: Truth, half: tuple[int, int]) -> np.ndarray:
    """Likelihood that the scenery itself has the object's colours: lower quartile over the frames that show it.

    What the robot hid in the first frame is not a second object when it comes into view; what is shown too rarely to
    tell counts as likely. Zero for a moving camera.
    """
    if not truth.static_camera:
        return np.zeros((half[1], half[0]), np.float32)
    step = max(1, len(codes) // 16)
    values, hidden = [], []
    for t in range(0, len(codes), step):
        covered = _half((truth.labels[t] > 0).astype(np.float32), half) > 0
        values.append(np.where(covered, np.inf, _half(table[codes[t]], half)))
        hidden.append(covered)
    ordered = np.sort(np.stack(values), axis=0)
    count = len(hidden) - np.sum(hidden, axis=0)
    quarter = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 4, axis=0)[0]
    return np.where(count >= 3, quarter, 1).astype(np.float32)


def _clutter(
    table: Float32[np.ndarray, "C"], lasting: Float32[np.ndarray, "h w"], first: np.ndarray, scenery: np.ndarray,
    known: Bool[np.ndarray, "H W"], start: Bool[np.ndarray, "h w"], half: tuple[int, int],
) -> Float32[np.ndarray, "h w"]:  # fmt: skip
    """What has the object's present colours without being news: the first frame outside the object, and the scenery.

    Where the object stood, only what shows in three quarters of the later frames is scenery.
    """
    likely = _half(table[first], half)
    likely[start] = 0
    behind = _half(np.where(known, table[scenery], 0).astype(np.float32), half)
    behind[start] = 0
    return cv2.dilate(np.maximum(np.maximum(likely, behind), lasting), np.ones((3, 3), np.uint8))


def _copy_on_the_way(
    copies: Copies, scene: Scene, t: int, likely: Float32[np.ndarray, "h w"],
    before: Mapping[int, Float32[np.ndarray, "h w"]], mask: Float32[np.ndarray, "h w"], robot: Float32[np.ndarray, "h w"],
) -> tuple[float, Float64[np.ndarray, "2"]]:  # fmt: skip
    """How much frame t of a moving camera shows a copy of the object where earlier frames (before: their likelihoods) showed
    another colour, 0..1, and where, working px."""
    news = np.maximum(likely - _seen_elsewhere(scene, t, likely, before), 0)
    strength, where = copies.on_the_way(t, news, mask, robot, scene)
    if strength > _COPY:
        news[copies.as_before(t, list(before), scene)] = 0
        strength, where = copies.on_the_way(t, news, mask, robot, scene)
    return strength, 2 * where + 0.5


def _seen_elsewhere(
    scene: Scene | None, t: int, now: Float32[np.ndarray, "h w"], others: Mapping[int, Float32[np.ndarray, "h w"]]
) -> Float32[np.ndarray, "h w"]:  # fmt: skip
    """How much the scenery that frame t of a moving camera shows has the object's colours in other frames: the lower median
    of those that show it. now, others: likelihoods of frame t and of these.

    A place that none of them shows may be anything, so nothing there is news; nor is anything without recorded depth.
    """
    if scene is None:
        return now
    count, rising = np.zeros(now.shape, np.uint8), list[np.ndarray]()
    for r, shown in others.items():
        if r == t:
            continue
        x, y, seen = scene.same_place(t, r)
        count += seen
        value = np.where(seen, cv2.remap(shown, x, y, cv2.INTER_LINEAR), np.float32(np.inf))
        # Sorted in by whole pictures: of so few values that takes a fraction of np.sort's time over the first axis.
        for k, lower in enumerate(rising):
            rising[k], value = np.minimum(lower, value), np.maximum(lower, value)
        rising.append(value)
    if not rising:
        return now
    chosen = np.where(count > 0, rising[0], now)
    for k in range(1, (len(rising) + 1) // 2):
        chosen = np.where(count > 2 * k, rising[k], chosen)
    return cv2.dilate(chosen, np.ones((3, 3), np.uint8))


def _around(clutter: Float32[np.ndarray, "h w"], mask: Float32[np.ndarray, "h w"]) -> float:
    """Mean clutter in and around a mask."""
    near = cv2.dilate(mask, np.ones((7, 7), np.uint8)) > 0.25
    return float(clutter[near].mean()) if near.any() else 0.0


def _core(mask: np.ndarray) -> np.ndarray:
    """The inner part of a mask, without mixed pixels; the mask itself where nothing would be left."""
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return core if core.sum() > 20 else mask


def _posterior(positive: np.ndarray, negative: np.ndarray) -> Float32[np.ndarray, "C"]:
    """Probability of 'object' per colour bin; colours seen nowhere are nobody's."""
    return (positive / (positive + negative + 1e-4 * positive.max())).astype(np.float32).ravel()


def _argmax(score: np.ndarray) -> tuple[int, int]:
    row, column = divmod(int(np.argmax(score)), score.shape[1])
    return row, column


def _window(centre: np.ndarray | tuple[int, int], reach: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x, y = int(centre[0]), int(centre[1])
    return (
        slice(max(y - reach, 0), min(y + reach + 1, shape[0])),
        slice(max(x - reach, 0), min(x + reach + 1, shape[1])),
    )


def _histogram(values: np.ndarray) -> Float64[np.ndarray, "L C C"]:
    shape = (_LUMA_BINS, _CHROMA_BINS, _CHROMA_BINS)
    counts = np.bincount(values, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    for axis, width in ((0, 1.2), (1, 0.6), (2, 0.6)):
        kernel = np.exp(-0.5 * (np.arange(-3, 4) / width) ** 2)
        flat = np.ascontiguousarray(np.moveaxis(counts, axis, 0)).reshape(shape[axis], -1)
        soft = cv2.sepFilter2D(flat, cv2.CV_64F, np.ones(1), kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
        counts = np.moveaxis(soft.reshape(np.moveaxis(counts, axis, 0).shape), 0, axis)
    return counts / max(counts.sum(), 1e-9)


def _swept(truth: Truth, part: int) -> np.ndarray:
    """Where the object ever is, grown: the scenery it must be told from."""
    seen = (truth.labels == part + 1).any(0).astype(np.uint8)
    return cv2.dilate(seen, np.ones((31, 31), np.uint8)) > 0


def _half(image: Float32[np.ndarray, "H W"], size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _search(
    likelihood: Float32[np.ndarray, "h w"], mask: Float32[np.ndarray, "h w"],
    window: tuple[slice, slice] | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Score of the mask at every place (of a window), and the place (column, row) of the kernel's anchor in the simulation."""
    rows, columns = np.flatnonzero((mask > 0.25).any(1)), np.flatnonzero((mask > 0.25).any(0))
    if not len(rows):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    pad = 3
    y0, y1, x0, x1 = rows[0] - pad, rows[-1] + pad + 1, columns[0] - pad, columns[-1] + pad + 1
    padded = cv2.copyMakeBorder(mask, pad + 1, pad + 1, pad + 1, pad + 1, cv2.BORDER_CONSTANT, value=0)
    inside = padded[y0 + pad + 1 : y1 + pad + 1, x0 + pad + 1 : x1 + pad + 1]
    ring = cv2.dilate(inside, np.ones((5, 5), np.uint8)) - inside
    kernel = inside / inside.sum() - ring / max(float(ring.sum()), 1e-6)
    anchor = np.array([kernel.shape[1] // 2, kernel.shape[0] // 2])
    centre = anchor + np.array([x0, y0])
    score = _filtered(likelihood, kernel, window)
    return score, np.clip(centre, 0, [likelihood.shape[1] - 1, likelihood.shape[0] - 1])


def _filtered(
    likelihood: Float32[np.ndarray, "h w"], kernel: Float32[np.ndarray, "k l"], window: tuple[slice, slice] | None
) -> Float32[np.ndarray, "h w"]:
    """Correlation of an image with a kernel, in a window or everywhere."""
    if window is None:
        return cv2.filter2D(likelihood, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
    rows, columns = window
    top, left = max(rows.start - kernel.shape[0], 0), max(columns.start - kernel.shape[1], 0)
    field = np.ascontiguousarray(likelihood[top : rows.stop + kernel.shape[0], left : columns.stop + kernel.shape[1]])
    score = cv2.filter2D(field, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
    return score[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _fine(score: np.ndarray, row: int, column: int) -> Float64[np.ndarray, "2"]:
    from retake.core.verdicts.alignment import vertex

    return np.array([vertex(score[row], int(column)), vertex(score[:, column], int(row))])
