# SPDX-License-Identifier: Apache-2.0
"""Gate: is a first frame still the simulated scene? Small measured checks against the simulator's exact maps.

Thresholds were set on some sampled worlds and planted faults; false alarms are counted on others
(docs/proof/variants.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, UInt8
from retake.core.variants.base import SourceFrame
from retake.core.variants.controls import geometry_edges
from retake.core.variants.edges import structure_f1
from retake.core.variants.roles import ROBOT, SUBJECT, SURFACE, find_roles


@dataclass(frozen=True)
class GateLimits:
    """Bounds of the checks."""

    robot_edges: float = 0.90
    """Least structure F1 inside the robot mask."""
    robot_tone: float = 0.16
    """Largest mean error of the robot after the best smooth gain, as a share of its brightness."""
    robot_cast: float = 0.75
    """Largest log ratio between the robot's channel gains: beyond it the robot was repainted, not relit."""
    second_robot: float = 0.85
    """Largest correlation of the robot's picture with any other place."""
    scene_shift_px: float = 2.5
    """Largest offset (at 640 px width) at which the work surface's outline fits best."""
    object_growth: float = 1.0
    """Largest ratio of the gradient along the enlarged outline to that along the true one."""
    luma: tuple[float, float] = (14.0, 238.0)
    """Mean grey value."""
    sharpness: float = 0.35
    """Least gradient energy inside the robot, relative to the source's at equal contrast."""
    duplicate: float = 3.0
    """Least mean difference (8-bit) between thumbnails of two worlds."""


@dataclass(frozen=True)
class GateCheck:
    """One measured property."""

    name: str
    value: float
    limit: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class GateReport:
    """All checks of one frame."""

    checks: tuple[GateCheck, ...]

    @property
    def passed(self) -> bool:
        """Every check holds."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What failed, in words."""
        return tuple(
            f"{c.name} {c.value:.3g} (limit {c.limit}){': ' + c.detail if c.detail else ''}"
            for c in self.checks
            if not c.passed
        )


def check_variant(
    frame: UInt8[np.ndarray, "H W 3"], source: SourceFrame, limits: GateLimits | None = None
) -> GateReport:
    """Measure a first frame against the simulated one. A frame of another size fails without further checks."""
    limit = limits or GateLimits()
    height, width = source.instance_ids.shape
    if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
        return GateReport((GateCheck("size", frame.shape[1] / max(frame.shape[0], 1), f"{width}x{height}", False,
                                     f"found {frame.shape[1]}x{frame.shape[0]}"),))  # fmt: skip
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    robot = source.robot_mask
    checks = [
        _between("exposure", float(grey.mean()), *limit.luma, "black or burnt out"),
        _at_least("robot_edges", structure_f1(frame, source.rgb, robot), limit.robot_edges, "the robot's edges moved"),
    ]
    if robot.sum() >= 64:
        error, cast = _robot_tone(frame, source.rgb, robot)
        checks += [
            _at_most("robot_tone", error, limit.robot_tone, "the robot is not the simulated one relit"),
            _at_most("robot_cast", cast, limit.robot_cast, "the robot has another colour"),
            _at_least("sharpness", _sharpness(frame, source.rgb, robot), limit.sharpness, "blurred"),
            _at_most("second_robot", _elsewhere(grey, source, robot), limit.second_robot, "a second robot"),
        ]
    roles = find_roles(source)
    role = roles.role[source.instance_ids]
    shift = _scene_shift(frame, source, role)
    checks.append(_at_most("scene_shift", shift * 640 / width, limit.scene_shift_px, "the work surface's edge moved"))
    task = (role == SUBJECT) & (roles.object_index[source.instance_ids] == max(roles.task_object, 0))
    checks.append(
        _at_most("object_growth", _growth(frame, task, role == ROBOT), limit.object_growth, "the object grew")
    )
    return GateReport(tuple(checks))


def thumbnail(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "N 3"]:
    """A small picture to compare worlds by: 32x24, Lab-like luma and chroma, bytes."""
    small = cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)


def distances(frames: list[UInt8[np.ndarray, "H W 3"]]) -> Float32[np.ndarray, "N N"]:
    """Mean thumbnail difference of every pair (8-bit steps)."""
    marks = [thumbnail(frame) for frame in frames]
    out = np.zeros((len(marks), len(marks)), np.float32)
    for i, a in enumerate(marks):
        for j in range(i):
            out[i, j] = out[j, i] = float(np.abs(a - marks[j]).mean())
    return out


def duplicate_of(
    frame: UInt8[np.ndarray, "H W 3"], others: dict[str, np.ndarray], limit: float = GateLimits.duplicate
) -> str:
    """Name of a world whose thumbnail (`thumbnail`) is closer than the limit; empty when there is none."""
    mark = thumbnail(frame)
    close = {name: float(np.abs(mark - other).mean()) for name, other in others.items()}
    name = min(close, key=lambda k: close[k], default="")
    return name if name and close[name] < limit else ""


def _at_least(name: str, value: float, limit: float, detail: str) -> GateCheck:
    return GateCheck(name, value, f">= {limit:g}", value >= limit, detail)


def _at_most(name: str, value: float, limit: float, detail: str) -> GateCheck:
    return GateCheck(name, value, f"<= {limit:g}", value <= limit, detail)


def _between(name: str, value: float, low: float, high: float, detail: str) -> GateCheck:
    return GateCheck(name, value, f"{low:g} .. {high:g}", low <= value <= high, detail)


def _robot_tone(frame: np.ndarray, rgb: np.ndarray, robot: np.ndarray) -> tuple[float, float]:
    """(error after the best smooth grey gain, colour cast): relighting is smooth and nearly grey, repainting is not."""
    inside = (cv2.erode(robot.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)[..., None].astype(np.float32)
    sigma = 0.03 * rgb.shape[1]
    a, b = frame.astype(np.float32) + 1, rgb.astype(np.float32) + 1
    low_a, low_b = (cv2.GaussianBlur(x * inside, (0, 0), sigma) for x in (a, b))
    gain = low_a / np.maximum(low_b, 1e-3)
    on = inside[..., 0] > 0
    if not on.any():
        return 0.0, 0.0
    error = float(np.abs(a - b * gain)[on].mean() / np.maximum(a[on].mean(), 8.0))
    mean = np.maximum((a * inside)[on].mean(0) / np.maximum((b * inside)[on].mean(0), 1e-3), 1e-3)
    return error, float(np.log(mean.max() / mean.min()))


def _sharpness(frame: np.ndarray, rgb: np.ndarray, robot: np.ndarray) -> float:
    """Gradient energy inside the robot over the source's, both divided by their contrast there."""
    inside = cv2.erode(robot.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if inside.sum() < 32:
        return 1.0

    def energy(image: np.ndarray) -> float:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        steps = np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inside]
        return float(np.percentile(steps, 95)) / max(float(grey[inside].std()), 2.0)

    return energy(frame) / max(energy(rgb), 1e-3)


def _elsewhere(grey: np.ndarray, source: SourceFrame, robot: np.ndarray) -> float:
    """Best correlation of the frame's robot (inside its mask, and mirrored) with any place but its own."""
    scale = 160 / grey.shape[1]
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    share = cv2.resize(robot.astype(np.float32), (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA)
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


def _gradient(frame: np.ndarray) -> Float32[np.ndarray, "H W"]:
    """Largest gradient over the channels, so that edges between equally bright colours count."""
    smooth = cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32)
    parts = [cv2.magnitude(cv2.Sobel(c, cv2.CV_32F, 1, 0), cv2.Sobel(c, cv2.CV_32F, 0, 1)) for c in cv2.split(smooth)]
    return np.minimum(np.max(parts, axis=0), 120)


def _scene_shift(frame: np.ndarray, source: SourceFrame, role: np.ndarray) -> float:
    """Offset in pixels at which the work surface's outline fits the picture best; 0 when the true place fits as well."""
    # Creases as well: a table's two parallel edges would otherwise fit each other when it moves by its own thickness.
    outline = (geometry_edges(source) > 0) & (role == SURFACE)
    moving = cv2.dilate((role >= ROBOT).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    margin = max(6, round(14 * frame.shape[1] / 640))
    outline &= ~moving
    outline[:margin], outline[-margin:], outline[:, :margin], outline[:, -margin:] = False, False, False, False
    rows, columns = np.nonzero(outline)
    if len(rows) < 80:
        return 0.0
    gradient = _gradient(frame)

    def fit(dx: int, dy: int) -> float:
        return float(gradient[rows + dy, columns + dx].mean())

    offsets = [(dx, dy) for dx in range(-margin + 1, margin) for dy in range(-margin + 1, margin)]
    scores = {o: fit(*o) for o in offsets}
    best = max(scores, key=lambda o: scores[o])
    if scores[(0, 0)] >= 0.85 * scores[best]:
        return 0.0
    return float(np.hypot(*best))


def _growth(frame: np.ndarray, task: np.ndarray, robot: np.ndarray) -> float:
    """Gradient along the object's outline enlarged by 10 to 20 %, over that along the true outline."""
    if (
        task.sum() < 60
        or (cv2.dilate(task.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0)[robot].sum() > 0.2 * task.sum()
    ):
        return 0.0
    contours, _ = cv2.findContours(task.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)[:, 0].astype(np.float32)
    center = outline.mean(0)
    gradient = _gradient(frame)

    def along(scale: float) -> float:
        p = center + (outline - center) * scale
        x, y = np.round(p[:, 0]).astype(int), np.round(p[:, 1]).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < frame.shape[1]) & (y < frame.shape[0])
        return float(gradient[y[inside], x[inside]].mean()) if inside.any() else 0.0

    true = max(along(s) for s in (0.97, 1.0, 1.03))
    return max(along(s) for s in (1.11, 1.15, 1.19)) / max(true, 4.0)
