# SPDX-License-Identifier: Apache-2.0
"""How an object would look turned, sunk, lying, larger or smaller: silhouettes of its body.

The body is the convex hull of its own recorded depth; every posture is drawn at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.geometry import axis_angle, inverse
from retake.core.verdicts.colours import views_of
from retake.core.verdicts.posture_evidence import MIN_AREA
from retake.core.verdicts.truth import Truth

_PAD = 14
"""Working px around the silhouette."""


@dataclass(frozen=True)
class Posture:
    """One way in which a body may stand other than simulated, in world axes about its middle."""

    name: str
    turn: Float64[np.ndarray, "3 3"]
    scale: tuple[float, float] = (1.0, 1.0)
    """Across and upwards."""
    sink_m: float = 0.0


def _turned(axis: tuple[float, ...], degrees: float) -> Float64[np.ndarray, "3 3"]:
    return axis_angle(np.array(axis, np.float64), np.float64(np.radians(degrees)))


POSTURES = (
    *(Posture(f"turned by {abs(a)}°", _turned((0, 0, 1), a)) for a in (30, -30, 45, -45, 60, -60, 75, -75, 90)),
    *(Posture("lying", _turned(axis, 90)) for axis in ((1, 0, 0), (0, 1, 0))),
    *(Posture(f"sunk by {100 * d:g} cm", np.eye(3), sink_m=d) for d in (0.02, 0.03, 0.045)),
    Posture("wider", np.eye(3), (1.4, 1.0)), Posture("narrower", np.eye(3), (0.65, 1.0)),
    Posture("taller", np.eye(3), (1.0, 1.35)), Posture("lower", np.eye(3), (1.0, 0.7)),
)  # fmt: skip


def body_hull(truth: Truth, episode: Episode, camera: str, part: int) -> Float64[np.ndarray, "N 3"] | None:
    """Corners of the convex hull of what depth shows of an object, m, object frame; None where it shows too little."""
    seen = shows_body(truth.area[:, part], views_of(truth, part)[1])
    points = []
    for t in seen[np.unique(np.linspace(0, len(seen) - 1, 5).astype(int))] if len(seen) else ():
        depth = cv2.resize(
            np.asarray(episode.image(camera, "depth", truth.start + int(t)), np.float32), truth.size,
            interpolation=cv2.INTER_NEAREST,
        )  # fmt: skip
        rows, columns = np.nonzero((truth.labels[t] == part + 1) & (depth > 0))
        if len(rows) < 0.5 * MIN_AREA:
            continue
        K, z = truth.K[t], depth[rows, columns].astype(np.float64)
        uv = truth.ideal(int(t), np.stack([columns, rows], 1).astype(np.float64)) + 0.5
        p = np.stack([(uv[:, 0] - K[0, 2]) / K[0, 0] * z, (uv[:, 1] - K[1, 2]) / K[1, 1] * z, z], 1)
        T = inverse(truth.T_camera_world[t] @ truth.T_world_part[t, part])
        body = p @ T[:3, :3].T + T[:3, 3]
        away = np.linalg.norm(body - np.median(body, axis=0), axis=1)
        body = body[away < 3 * np.median(away)]
        points.append(body[:: max(1, len(body) // 1500)])
    if not points:
        return None
    every = np.concatenate(points)
    # The extreme points in many directions are the hull, near enough.
    k = np.arange(200) + 0.5
    polar, round_ = np.arccos(1 - 2 * k / 200), np.pi * (1 + 5**0.5) * k
    ways = np.stack([np.cos(round_) * np.sin(polar), np.sin(round_) * np.sin(polar), np.cos(polar)], 1)
    return every[np.unique(np.ascontiguousarray(ways @ every.T).argmax(1))]


def shows_body(area: Float64[np.ndarray, "T"], distance: Float64[np.ndarray, "T"]) -> np.ndarray:
    """Frames that show most of a body: as seen from one distance, for a near view that the border cuts is larger than a
    whole one from afar. area: visible working px²; distance: m."""
    size, enough = area * np.square(distance), area >= MIN_AREA
    return np.flatnonzero(enough & (size >= 0.5 * size.max(where=enough, initial=0.0)))


def silhouettes(
    truth: Truth, t: int, part: int, hull: Float64[np.ndarray, "N 3"]
) -> tuple[tuple[slice, slice], UInt8[np.ndarray, "h w"], list[UInt8[np.ndarray, "h w"]]] | None:
    """A window, the body as simulated, and in every other posture."""
    T = truth.T_world_part[t, part]
    world = hull @ T[:3, :3].T + T[:3, 3]
    low, high = world.min(0), world.max(0)
    middle = (low + high) / 2
    outlines: list[Float64[np.ndarray, "N 2"] | None] = [projected(truth, t, world)]
    for posture in POSTURES:
        moved = (world - middle) @ posture.turn.T
        moved[:, :2] *= posture.scale[0]
        # What stands stays on its ground.
        moved[:, 2] = (moved[:, 2] - moved[:, 2].min()) * posture.scale[1] + (low - middle)[2] - posture.sink_m
        outlines.append(projected(truth, t, moved + middle))
    seen = [o for o in outlines if o is not None]
    if len(seen) < len(outlines):
        return None
    shown = np.concatenate(seen)
    x0, y0 = np.maximum(np.floor(shown.min(0)).astype(int) - _PAD, 0)
    x1, y1 = np.minimum(np.ceil(shown.max(0)).astype(int) + _PAD, truth.size)
    if x1 - x0 < 8 or y1 - y0 < 8 or max(x1 - x0, y1 - y0) > 200:
        return None
    drawn = []
    fine = 4 if max(x1 - x0, y1 - y0) < 100 else 2
    for outline in seen:
        # Drawn finer and counted by half pixels: drawn at this size, a polygon would own all pixels that its edge touches.
        left, top = np.maximum(np.floor(outline.min(0)).astype(int) - 1, (x0, y0))
        right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, (x1, y1))
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        drawn.append(mask)
        if right <= left or bottom <= top:
            continue
        image = np.zeros((fine * (bottom - top), fine * (right - left)), np.uint8)
        place = fine * (cv2.convexHull(outline.astype(np.float32))[:, 0] - [left, top] + 0.5) - 0.5
        cv2.fillConvexPoly(image, np.round(place * 16).astype(np.int32), 255, shift=4)
        coarse = cv2.resize(image, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_AREA)
        mask[top - y0 : bottom - y0, left - x0 : right - x0] = coarse > 127
    whole = drawn[0]
    # The part below its ground is hidden by it.
    return np.s_[y0:y1, x0:x1], whole, [
        image & whole if posture.sink_m else image for image, posture in zip(drawn[1:], POSTURES, strict=True)
    ]  # fmt: skip


def outline_of(
    truth: Truth, episode: Episode, camera: str, part: int, t: int, name: str
) -> Float32[np.ndarray, "N 2"] | None:
    """Outline (working px) of the first posture of that name at frame t, for pictures; None where it cannot be drawn."""
    hull = body_hull(truth, episode, camera, part)
    number = next((k for k, posture in enumerate(POSTURES) if posture.name == name), None)
    drawn = None if hull is None or number is None else silhouettes(truth, t, part, hull)
    if drawn is None or number is None:
        return None
    box, _, others = drawn
    contours, _ = cv2.findContours(others[number], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    return max(contours, key=len)[:, 0].astype(np.float32) + np.array([box[1].start, box[0].start], np.float32)


def projected(truth: Truth, t: int, world: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N 2"] | None:
    """Working pixels (index coordinates) of points; None behind the camera."""
    T, K = truth.T_camera_world[t], truth.K[t]
    p = world @ T[:3, :3].T + T[:3, 3]
    if (p[:, 2] < 0.02).any():
        return None
    uv = np.stack([K[0, 0] * p[:, 0] / p[:, 2] + K[0, 2], K[1, 1] * p[:, 1] / p[:, 2] + K[1, 2]], 1) - 0.5
    return truth.seen(t, uv)
