# SPDX-License-Identifier: Apache-2.0
"""What the gate measures of a frame. Everything that follows from the source frame alone is computed once."""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.variants.base import SourceFrame
from retake.core.variants.controls import geometry_edges
from retake.core.variants.edges import instance_border
from retake.core.variants.roles import BACKGROUND, ROBOT, SUBJECT, SURFACE, find_roles

TONE_WIDTH = 160
"""The robot's tone is compared at this width: the gain is smooth over 3 % of the picture."""
SAME_PLACE = 0.94
"""The true outline counts as found when it fits this well compared with the best place (tuning part: clean frames 0.97
and more, objects enlarged by 15 % 0.93 and less: strong edges of small shapes stay strong two pixels away)."""
PEAK = 2.4
"""A work surface has moved only when the place where it fits best stands out from all places by this many standard
deviations: a moved edge 3.2 and more, mere texture 1.7."""
SAME_SURFACE = 0.89
"""The true place of the work surface counts as found when it fits this well compared with the best one (clean frames whose
best place is elsewhere 0.94 and more, a moved edge 0.85 and less)."""
OUTLINE = 160
"""Pixels of a work surface's outline that are needed: fewer fit by chance where the surface hardly differs from the floor."""
SMALLEST = 200
"""Pixels of a task object below which an outline 15 % larger is less than a pixel away and cannot be told."""
SCALES = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25)
"""Sizes at which the task object's outline is looked for. None smaller: a box's own edges lie there."""


class Reference:
    """The simulated frame as the gate sees it."""

    def __init__(self, source: SourceFrame) -> None:
        self.source = source
        self.robot: Bool[np.ndarray, "H W"] = source.robot_mask
        roles = find_roles(source)
        self.role: UInt8[np.ndarray, "H W"] = roles.role[source.instance_ids]
        self.unit = source.rgb.shape[1] / 640
        """Pixels of this picture per pixel at 640 px width, in which limits are stated."""
        index = roles.object_index[source.instance_ids]
        self.task: Bool[np.ndarray, "H W"] = (self.role == SUBJECT) & (index == max(roles.task_object, 0))
        self.small_robot = _shrink(_eroded(self.robot, 3).astype(np.float32))
        self.small_rgb = _shrink(source.rgb)
        borders = instance_border(source.instance_ids) & (self.role != BACKGROUND)
        self.near = _dilated(borders, 5)
        """Pixels about the borders of robot, objects and work surface: sharp in every world, whatever the robot's paint."""
        self.detail = _detail(source.rgb, self.near)
        self.surface = self._surface_outline()
        self.outline = self._object_outline()

    def _surface_outline(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Rows and columns of the work surface's edges away from whatever moves, and the margin kept to the border."""
        # Creases as well: a table's two parallel edges would otherwise fit each other when it moves by its own thickness.
        outline = (geometry_edges(self.source) > 0) & (self.role == SURFACE)
        outline &= ~_dilated(self.role >= ROBOT, 15)
        margin = max(6, round(14 * self.unit))
        outline[:margin], outline[-margin:], outline[:, :margin], outline[:, -margin:] = False, False, False, False
        rows, columns = np.nonzero(outline)
        return rows, columns, margin

    def _object_outline(self) -> Float32[np.ndarray, "N 2"]:
        """Outline of the task object; empty when too little of it is to be seen, or the robot touches it."""
        none = np.zeros((0, 2), np.float32)
        if self.task.sum() < SMALLEST or (_dilated(self.task, 9) & self.robot).any():
            return none
        contours, _ = cv2.findContours(self.task.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(contours, key=len)[:, 0]
        height, width = self.task.shape
        x, y = outline.T
        inside = (x > 1) & (y > 1) & (x < width - 2) & (y < height - 2)
        return outline[inside].astype(np.float32) if inside.sum() >= max(24, 0.9 * len(outline)) else none


def tone(frame: UInt8[np.ndarray, "H W 3"], reference: Reference) -> tuple[float, float]:
    """(error after the best smooth gain, colour cast): relighting is smooth and nearly grey, repainting is not.

    The cast is the part of the robot's mean colour that no grey gain explains, as a share of that colour.
    """
    inside = reference.small_robot[..., None]
    a, b = _shrink(frame) + 1, reference.small_rgb + 1
    low_a, low_b = (cv2.GaussianBlur(x * inside, (0, 0), 0.03 * TONE_WIDTH) for x in (a, b))
    gain = low_a / np.maximum(low_b, 1e-3)
    on = inside[..., 0] > 0.99
    if not on.any():
        return 0.0, 0.0
    error = float(np.abs(a - b * gain)[on].mean() / np.maximum(a[on].mean(), 8.0))
    colour, own = a[on].mean(0).astype(float), b[on].mean(0).astype(float)
    rest = colour - own * (colour @ own) / max(float(own @ own), 1e-9)
    return error, float(np.linalg.norm(rest) / max(float(np.linalg.norm(colour)), 1e-9))


def sharpness(frame: UInt8[np.ndarray, "H W 3"], reference: Reference) -> float:
    """Second derivatives about the borders of the simulated things, at equal contrast, over the source's."""
    return _detail(frame, reference.near) / max(reference.detail, 1e-3)


def elsewhere(grey: UInt8[np.ndarray, "H W"], reference: Reference) -> float:
    """Best correlation of the frame's robot (inside its mask, and mirrored) with any place but its own."""
    scale = 160 / grey.shape[1]
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    share = cv2.resize(
        reference.robot.astype(np.float32), (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA
    )
    mask = (share > 0.9).astype(np.float32)
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    if w < 8 or h < 8 or w > 0.7 * small.shape[1] or h > 0.95 * small.shape[0]:
        return 0.0
    # Room around the picture, so that a copy that is cut off by the border still counts.
    pad = max(4, w // 4)
    wide = cv2.copyMakeBorder(small, 0, 0, pad, pad, cv2.BORDER_REPLICATE)
    pattern, inside = small[y : y + h, x : x + w], mask[y : y + h, x : x + w]
    best = 0.0
    for step in (1, -1):
        score = cv2.matchTemplate(
            wide,
            np.ascontiguousarray(pattern[:, ::step]),
            cv2.TM_CCOEFF_NORMED,
            mask=np.ascontiguousarray(inside[:, ::step]),
        )
        rows, columns = np.indices(score.shape)
        near = (np.abs(rows - y) < 0.3 * h) & (np.abs(columns - pad - x) < 0.5 * w)
        score[near | ~np.isfinite(score) | (np.abs(score) > 1.001)] = 0
        best = max(best, float(score.max()))
    return best


def scene_shift(gradient: Float32[np.ndarray, "H W"], reference: Reference) -> float:
    """Offset (px at 640) at which the work surface's edges fit the picture best; 0 when the true place fits as well.

    0 also where too little of an edge is to be seen, and in pictures under 128 px wide, whose pixels are twice the limit.
    """
    rows, columns, margin = reference.surface
    if len(rows) < OUTLINE or reference.unit < 128 / 640:
        return 0.0
    reach = range(-margin + 1, margin)
    width = gradient.shape[1]
    flat, at = gradient.ravel(), rows * width + columns
    scores = {(dx, dy): float(flat.take(at + (dy * width + dx)).mean()) for dx in reach for dy in reach}
    best = max(scores, key=scores.__getitem__)
    every = np.array(list(scores.values()))
    if scores[(0, 0)] >= SAME_SURFACE * scores[best] or scores[best] - np.median(every) < PEAK * every.std():
        return 0.0
    return float(np.hypot(*best)) / reference.unit


def object_iou(gradient: Float32[np.ndarray, "H W"], reference: Reference) -> float:
    """Overlap (IoU) of the task object's mask with the same mask at the size and place where its outline fits best.

    1 when the true outline fits as well, or when too little of the object is to be seen.
    """
    outline = reference.outline
    if not len(outline):
        return 1.0
    rows, columns = np.nonzero(reference.task)
    center = np.array([columns.mean(), rows.mean()], np.float32)
    height, width = gradient.shape
    step = max(1, round(2 * reference.unit))
    scores: dict[tuple[float, int, int], float] = {}
    for scale in SCALES:
        shifts = (0,) if scale == 1 else (-2 * step, -step, 0, step, 2 * step)
        for dx in shifts:
            for dy in shifts:
                p = np.round(center + (outline - center) * scale + (dx, dy)).astype(int)
                x, y = np.clip(p[:, 0], 0, width - 1), np.clip(p[:, 1], 0, height - 1)
                scores[scale, dx, dy] = float(gradient[y, x].mean())
    best = max(scores, key=scores.__getitem__)
    if scores[1.0, 0, 0] >= SAME_PLACE * scores[best]:
        return 1.0
    scale, dx, dy = best
    M = np.array([[scale, 0, center[0] * (1 - scale) + dx], [0, scale, center[1] * (1 - scale) + dy]], np.float32)
    moved = cv2.warpAffine(reference.task.astype(np.uint8), M, (width, height), flags=cv2.INTER_NEAREST) > 0
    return float((moved & reference.task).sum() / max((moved | reference.task).sum(), 1))


def gradient_of(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
    """Largest gradient over the channels, so that edges between equally bright colours count."""
    smooth = cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32)
    parts = [cv2.magnitude(cv2.Sobel(c, cv2.CV_32F, 1, 0), cv2.Sobel(c, cv2.CV_32F, 0, 1)) for c in cv2.split(smooth)]
    return np.minimum(np.max(parts, axis=0), 120)


def _detail(rgb: UInt8[np.ndarray, "H W 3"], inside: Bool[np.ndarray, "H W"]) -> float:
    if not inside.any():
        return 0.0
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    steps = np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inside]
    return float(np.percentile(steps, 95)) / max(float(grey[inside].std()), 2.0)


def _shrink(image: np.ndarray) -> Float32[np.ndarray, "h w c"]:
    size = (TONE_WIDTH, max(1, round(TONE_WIDTH * image.shape[0] / image.shape[1])))
    return cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _eroded(mask: Bool[np.ndarray, "H W"], size: int) -> Bool[np.ndarray, "H W"]:
    return cv2.erode(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0


def _dilated(mask: Bool[np.ndarray, "H W"], size: int) -> Bool[np.ndarray, "H W"]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
