# SPDX-License-Identifier: Apache-2.0
"""From metres to integer strokes: projection, clamping, rounding and clipping for a whole chunk of frames at once.

Everything that can be vectorised over frames happens here; what is left per frame is OpenCV's own rasteriser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from retake.core.array_types import Bool, Float64, Int
from retake.core.errors import SkeletonError
from retake.core.lens import Lens
from retake.core.skeleton import convention as c
from retake.core.skeleton.inputs import ArmTrack, CameraTrack

FARTHEST_XY = 1e6
"""Normalised coordinates of points beside the camera are cut here before a lens bends them."""
Pixel = Sequence[int]
"""(x, y), image-index coordinates."""
Segment = tuple[Pixel, Pixel]


@dataclass(frozen=True)
class ArmStrokes:
    """What one arm leaves on one frame, in image-index pixels, already clipped to the canvas."""

    segments: list[Segment]
    dots: list[Pixel]
    arrows: list[Segment | None]
    """X, Y, Z, left finger, right finger; None where nothing of it is inside."""
    box: tuple[int, int, int, int]
    """(x0, y0, x1, y1), end exclusive: a rectangle on the canvas outside of which nothing is touched."""


def kept_links(points: Float64[np.ndarray, "T L 3"]) -> Bool[np.ndarray, "T L"]:
    """Which origins are drawn: the first, then each at least 1e-4 m away from the last kept one."""
    keep = np.ones(points.shape[:2], bool)
    last = points[:, 0].copy()
    for i in range(1, points.shape[1]):
        with np.errstate(over="ignore"):
            step = points[:, i] - last
            keep[:, i] = np.sqrt((step * step).sum(-1)) >= c.COINCIDENT_M
        last[keep[:, i]] = points[keep[:, i], i]
    return keep


def gripper_points(
    ee_pose: Float64[np.ndarray, "T 4 4"], openness: Float64[np.ndarray, "T"]
) -> Float64[np.ndarray, "T 6 3"]:
    """World points, m, of the gripper: origin, tips of X, Y, Z, left and right finger."""
    theta = c.FINGER_ANGLE_RAD * openness
    side, ahead = c.ARROW_LENGTH_M * np.sin(theta), c.ARROW_LENGTH_M * np.cos(theta)
    x, y, z = (ee_pose[:, :3, i] for i in range(3))
    tips = (
        x * c.ARROW_LENGTH_M,
        y * c.ARROW_LENGTH_M,
        z * c.ARROW_LENGTH_M,
        y * side[:, None] + z * ahead[:, None],
        y * -side[:, None] + z * ahead[:, None],
    )
    origin = ee_pose[:, :3, 3]
    return np.stack([origin, *(origin + tip for tip in tips)], 1)


def project(
    points: Float64[np.ndarray, "T N 3"],
    K: Float64[np.ndarray, ...],
    T_camera_world: Float64[np.ndarray, ...],
    lens: Lens | None = None,
) -> Float64[np.ndarray, "T N 2"]:
    """Image-index coordinates, px, under the convention's depth rule (no point is ever dropped).

    `K` is (3, 3) or (T, 3, 3), `T_camera_world` (4, 4) or (T, 4, 4), OpenCV axes. A `lens` bends the points, not the
    lines between them.
    """
    # Sums written out instead of a matrix product: BLAS kernels may differ in the last bit between batch sizes, and
    # then one frame drawn alone could round differently from the same frame inside a batch.
    E, K = T_camera_world[..., None, :, :], K[..., None, :, :]
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are clamped later, NaN is refused below
        x, y, z = (
            E[..., i, 0] * points[..., 0] + E[..., i, 1] * points[..., 1] + E[..., i, 2] * points[..., 2] + E[..., i, 3]
            for i in range(3)
        )
        z = np.maximum(z, c.NEAREST_DEPTH_M)
        if lens is not None:
            # Beyond the limit of the convention's pixels nothing is drawn: finite numbers for the polynomial.
            bent = lens.distort(np.clip(np.stack([x / z, y / z], -1), -FARTHEST_XY, FARTHEST_XY))
            x, y, z = bent[..., 0], bent[..., 1], np.ones_like(z)
        u = K[..., 0, 0] * x / z + K[..., 0, 2]
        v = K[..., 1, 1] * y / z + K[..., 1, 2]
    uv = np.stack([u, v], -1)
    if np.isnan(uv).any():
        raise SkeletonError(
            "positions or camera matrices are so large that their projection overflows; check the units"
        )
    return uv


def plan(arm: ArmTrack, camera: CameraTrack, start: int, stop: int) -> list[ArmStrokes]:
    """The strokes of frames start..stop-1 of one arm."""
    K, E = (m[start:stop] if m.ndim == 3 else m for m in (camera.camera_intrinsic, camera.camera_extrinsic))
    links = arm.link_positions[start:stop]
    keep = kept_links(links)
    count = links.shape[1]
    world = np.concatenate([links, gripper_points(arm.ee_pose[start:stop], arm.gripper_openness[start:stop])], 1)
    uv = project(world, K, E, camera.lens)
    pixels = np.rint(np.clip(uv, -c.PIXEL_LIMIT, c.PIXEL_LIMIT)).astype(np.int32)  # rint: halves to even

    width, height = camera.size
    inside = np.all((pixels >= 0) & (pixels < (width, height)), axis=-1)
    reach = c.JOINT_RADIUS_PX + 1
    at = pixels[:, :count]
    near = np.all((at >= -reach) & (at < (width + reach, height + reach)), axis=-1)
    dotted = keep & near & np.all(np.abs(uv[:, :count]) < c.PIXEL_LIMIT, axis=-1)

    boxes = _boxes(pixels, width, height)
    out = []
    for kept, dot, ins, px, box in zip(
        keep.tolist(), dotted.tolist(), inside.tolist(), pixels.tolist(), boxes.tolist(), strict=True
    ):
        order = [i for i in range(count) if kept[i]]
        segments, dots = [], []
        if len(order) >= 2:
            for a, b in pairwise(order):
                segment = _clip(px[a], px[b], ins[a] and ins[b], width, height)
                if segment is not None:
                    segments.append(segment)
            dots = [px[i] for i in order if dot[i]]
        root, root_in = px[count], ins[count]
        arrows = [_clip(root, px[i], root_in and ins[i], width, height) for i in range(count + 1, count + 6)]
        out.append(ArmStrokes(segments, dots, arrows, box))
    return out


def _boxes(pixels: Int[np.ndarray, "T N 2"], width: int, height: int) -> Int[np.ndarray, "T 4"]:
    """Per frame a rectangle (x0, y0, x1, y1) around every stroke between these points, thickness and barbs included."""
    size = np.array([width, height])
    low = np.clip(pixels.min(1), 0, size)
    high = np.clip(pixels.max(1), 0, size)
    # A clipped line stays within its clamped ends; a barb leaves its shaft by at most the head's length.
    margin = (
        np.ceil(c.ARROW_HEAD_SHARE * (high - low).sum(-1, keepdims=True)).astype(np.int32) + c.ARROW_THICKNESS_PX + 1
    )
    return np.concatenate([np.maximum(low - margin, 0), np.minimum(high + margin + 1, size)], 1)


def _clip(a: list[int], b: list[int], both_inside: bool, width: int, height: int) -> Segment | None:
    """The part of a centre line on the canvas, or None when nothing or a single point is left."""
    if both_inside:
        return None if a == b else (a, b)
    hit, start, end = cv2.clipLine((0, 0, width, height), a, b)
    return (start, end) if hit and start != end else None
