# SPDX-License-Identifier: Apache-2.0
"""Gate: is a first frame still the simulated scene? Small measured checks against the simulator's exact maps.

Limits were set on one part of a corpus of frames and planted faults; false alarms are counted on the other part
(docs/proof/variants.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from retake.core import plugins
from retake.core.array_types import Float32, UInt8
from retake.core.files import sha256_json
from retake.core.variants.base import SourceFrame
from retake.core.variants.edges import structure_f1
from retake.core.variants.gate_measures import (
    Reference,
    elsewhere,
    gradient_of,
    object_iou,
    scene_shift,
    sharpness,
    tone,
)
from retake.core.variants.gate_skeleton import patches, skeleton_fit

VERSION = "7"
"""Of the measures: frames that an older gate passed are measured again."""

DepthEstimator = Callable[[UInt8[np.ndarray, "H W 3"]], Float32[np.ndarray, "H W"]]
"""A monocular depth model: relative inverse depth, larger is nearer, in any unit."""


@dataclass(frozen=True)
class GateLimits:
    """Bounds of the checks."""

    robot_edges: float = 0.85
    """Least structure F1 inside the robot mask (clean frames 0.896 and more, a robot shifted by 3 px 0.79 and less)."""
    robot_tone: float = 0.18
    """Largest mean error of the robot after the best smooth gain, as a share of its brightness."""
    robot_cast: float = 0.30
    """Largest share of the robot's colour that no grey gain explains: beyond it the robot was repainted, not relit."""
    skeleton_px: float = 2.0
    """Largest distance (px at 640 px width) of a skeleton point from its projection."""
    second_robot: float = 0.89
    """Largest correlation of the robot's picture with any other place (clean frames 0.83 and less, second robots 0.96)."""
    scene_shift_px: float = 2.5
    """Largest offset (px at 640 px width) at which the work surface's outline fits best."""
    object_iou: float = 0.85
    """Least overlap of the object's mask with the place and size where its outline fits best."""
    luma: tuple[float, float] = (14.0, 215.0)
    """Mean grey value (the brightest of 1,400 clean frames has 160, a burnt-out night 232)."""
    sharpness: float = 0.15
    """Least sharpness about the borders of the simulated things, relative to the source's at equal contrast."""
    depth_agreement: float = 0.8
    """Least rank correlation with the simulator's depth, where an estimator is plugged in."""
    duplicate: float = 2.0
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


class Gate:
    """The checks for frames of one source frame.

    `depth` names a plug-in of the entry-point group `retake.depth_estimators` (a DepthEstimator, or a class whose
    instances are one); none is needed. Raises InputError for an unknown name.
    """

    def __init__(self, source: SourceFrame, limits: GateLimits | None = None, depth: str | DepthEstimator = "") -> None:
        self.limits = limits or GateLimits()
        self.reference = Reference(source)
        self.patches = patches(source)
        self.depth = depth_estimator(depth) if isinstance(depth, str) else depth

    def check(self, frame: UInt8[np.ndarray, "H W 3"]) -> GateReport:
        """Measure a frame. One of another size fails without further checks."""
        limit, reference = self.limits, self.reference
        height, width = reference.robot.shape
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            aspect = frame.shape[1] / max(frame.shape[0], 1)
            found = f"found {frame.shape[1]}x{frame.shape[0]}"
            return GateReport((GateCheck("size", aspect, f"{width}x{height}", False, found),))
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        edges = structure_f1(frame, reference.source.rgb, reference.robot)
        checks = [
            _between("exposure", float(grey.mean()), *limit.luma, "black or burnt out"),
            _at_least("robot_edges", edges, limit.robot_edges, "the robot's edges moved"),
        ]
        if reference.robot.sum() >= 64:
            error, cast = tone(frame, reference)
            checks += [
                _at_most("robot_tone", error, limit.robot_tone, "the robot is not the simulated one relit"),
                _at_most("robot_cast", cast, limit.robot_cast, "the robot has another colour"),
                _at_least("sharpness", sharpness(frame, reference), limit.sharpness, "blurred"),
                _at_most("second_robot", elsewhere(grey, reference), limit.second_robot, "a second robot"),
            ]
        if self.patches:
            fit = skeleton_fit(grey, self.patches)
            where = f"the robot is not where its joints project: {fit.worst}"
            checks.append(_at_most("skeleton", fit.worst_px, limit.skeleton_px, where))
        gradient = gradient_of(frame)
        checks += [
            _at_most("scene_shift", scene_shift(gradient, reference), limit.scene_shift_px,
                     "the work surface's edge moved"),
            _at_least("object_iou", object_iou(gradient, reference), limit.object_iou,
                      "the object has another outline"),
        ]  # fmt: skip
        if self.depth is not None:
            value = depth_agreement(self.depth(frame), reference.source.depth_m)
            checks.append(_at_least("depth", value, limit.depth_agreement, "the scene has another shape"))
        return GateReport(tuple(checks))


def check_variant(
    frame: UInt8[np.ndarray, "H W 3"], source: SourceFrame, limits: GateLimits | None = None
) -> GateReport:
    """Measure one first frame against the simulated one (`Gate` for several of one source)."""
    return Gate(source, limits).check(frame)


def gate_identity(limits: GateLimits, depth: str = "") -> str:
    """Hash of what a report follows from besides the frame and its source."""
    return sha256_json({"version": VERSION, "limits": asdict(limits), "depth": depth})


def depth_estimator(name: str) -> DepthEstimator | None:
    """The depth model registered under a name; None for no name. Raises InputError listing the valid names."""
    if not name:
        return None
    made = plugins.pick("depth estimator", name, "retake.depth_estimators", {}, {})
    return made() if isinstance(made, type) else made


def depth_agreement(inverse_depth: Float32[np.ndarray, "H W"], depth_m: Float32[np.ndarray, "H W"]) -> float:
    """Rank correlation of an estimate with the simulator's inverse depth where something was hit, -1 to 1.

    Ranks, because estimators know neither scale nor offset. The estimate may have another size.
    """
    estimate = cv2.resize(np.asarray(inverse_depth, np.float32), depth_m.shape[::-1], interpolation=cv2.INTER_LINEAR)
    hit = (depth_m > 0) & np.isfinite(estimate)
    a, b = estimate[hit][::7], 1 / depth_m[hit][::7]
    if len(a) < 16:
        return 1.0
    rank_a, rank_b = (np.argsort(np.argsort(x)).astype(np.float64) for x in (a, b))
    return float(np.corrcoef(rank_a, rank_b)[0, 1]) if np.ptp(a) > 0 else 0.0


def thumbnail(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "N 3"]:
    """A small picture to compare worlds by: 32x24, Lab-like luma and chroma, bytes."""
    small = cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)


def distances(frames: list[UInt8[np.ndarray, "H W 3"]]) -> Float32[np.ndarray, "N N"]:
    """Mean thumbnail difference of every pair (8-bit steps)."""
    marks = np.stack([thumbnail(frame) for frame in frames])
    out = np.zeros((len(marks), len(marks)), np.float32)
    for i, mark in enumerate(marks):
        out[i, :i] = out[:i, i] = np.abs(marks[:i] - mark).mean((1, 2))
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
    return GateCheck(name, value, f">= {limit:g}", bool(value >= limit), detail)


def _at_most(name: str, value: float, limit: float, detail: str) -> GateCheck:
    return GateCheck(name, value, f"<= {limit:g}", bool(value <= limit), detail)


def _between(name: str, value: float, low: float, high: float, detail: str) -> GateCheck:
    return GateCheck(name, value, f"{low:g} .. {high:g}", bool(low <= value <= high), detail)
