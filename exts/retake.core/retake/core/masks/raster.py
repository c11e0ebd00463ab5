# SPDX-License-Identifier: Apache-2.0
"""Instance ids and depth of triangles: painted from far to near (no z-buffer: right except where surfaces interpenetrate)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt16
from retake.core.lens import Lens
from retake.core.masks.meshes import Surface

_NEAR_M = 0.02
_SUBPIXEL = 4
"""Bits of OpenCV's fixed-point coordinates."""


def paint(
    surfaces: Sequence[Surface],
    T_world: Float64[np.ndarray, "S 4 4"],
    ids: Sequence[int],
    K: Float64[np.ndarray, "3 3"],
    T_camera_world: Float64[np.ndarray, "4 4"],
    size: tuple[int, int],
    lens: Lens | None = None,
) -> tuple[UInt16[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    """(instance ids, forward depth in m; 0 = nothing) of surfaces at world poses, seen by a camera (OpenCV axes).

    A triangle gets one depth, its mean. A triangle that reaches behind the camera is left out. A `lens` bends corners.
    """
    corners, depths, labels = [], [], []
    for surface, T, label in zip(surfaces, T_world, ids, strict=True):
        M = T_camera_world @ T
        p = surface.vertices @ M[:3, :3].T + M[:3, 3]
        uv = p @ K.T
        with np.errstate(divide="ignore", invalid="ignore"):
            uv = uv[:, :2] / uv[:, 2:]
        if lens is not None:
            uv = lens.bend(K, uv)
        z = p[surface.faces][:, :, 2]
        seen = z.min(1) > _NEAR_M
        triangle = uv[surface.faces[seen]]
        inside = (triangle.max(1) > 0).all(1) & (triangle.min(1) < size).all(1)
        corners.append(triangle[inside])
        depths.append(z[seen][inside].mean(1))
        labels.append(np.full(int(inside.sum()), label))
    image, depth = np.zeros((size[1], size[0]), np.uint16), np.zeros((size[1], size[0]), np.float32)
    if not corners:
        return image, depth
    every, far, label = np.concatenate(corners), np.concatenate(depths), np.concatenate(labels)
    fixed = np.rint((np.clip(every, -4 * max(size), 5 * max(size)) - 0.5) * (1 << _SUBPIXEL)).astype(np.int32)
    for k in np.argsort(-far):
        cv2.fillConvexPoly(image, fixed[k], int(label[k]), cv2.LINE_8, _SUBPIXEL)
        cv2.fillConvexPoly(depth, fixed[k], float(far[k]), cv2.LINE_8, _SUBPIXEL)
    return image, depth
