# SPDX-License-Identifier: Apache-2.0
"""Pixels as planes, one contiguous row per axis or colour, worked through in blocks.

numpy handles an array of shape (N, 3) in runs of three numbers; the same arithmetic on (3, N) is several times as fast, and to
the bit the same. Blocks stay in the processor's cache, and below the size from which BLAS calls in further threads, which for
a handful of numbers per pixel cost more than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from retake.core.array_types import Float32, UInt16
from retake.core.camera import Camera
from retake.core.geometry import inverse

BLOCK = 24 << 10
"""Pixels of a block: a plane of it is 96 KiB, and 9 products per pixel stay below the size from which BLAS uses threads."""


def blocks(count: int) -> Iterator[slice]:
    """Slices that cover 0 … count."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


def in_blocks(
    function: Callable[[Float32[np.ndarray, "3 1 N"]], Float32[np.ndarray, "1 N"]], at: Float32[np.ndarray, "3 H W"]
) -> Float32[np.ndarray, "H W"]:
    """A function of single pixels, block by block."""
    flat = at.reshape(3, 1, -1)
    return np.concatenate([function(flat[:, :, part])[0] for part in blocks(flat.shape[2])]).reshape(at.shape[1:])


def turned(M: Float32[np.ndarray, "3 3"], planes: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "3 N"]:
    """M times every column."""
    if planes.shape[1] <= BLOCK:
        return M @ planes
    out = np.empty_like(planes)
    for part in blocks(planes.shape[1]):
        out[:, part] = M @ planes[:, part]
    return out


def dot(row: Float32[np.ndarray, "3"], planes: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "N"]:
    """The sum of the planes, each times its weight."""
    out = planes[0] * row[0]
    out += planes[1] * row[1]
    out += planes[2] * row[2]
    return out


def planes_of(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) as planes (3, H·W)."""
    out = np.empty((3, *image.shape[:2]), image.dtype)
    cv2.split(np.ascontiguousarray(image), list(out))
    return out.reshape(3, -1)


def channels_of(image: Float32[np.ndarray, "h w C"], first: int, count: int) -> Float32[np.ndarray, "count h w"]:
    """Some of an image's channels, each a plane of its own."""
    out = np.empty((count, *image.shape[:2]), image.dtype)
    cv2.mixChannels([image], list(out), [k for j in range(count) for k in (first + j, j)])
    return out


def by_id(table: np.ndarray, ids: UInt16[np.ndarray, "H W"]) -> np.ndarray:
    """`table[ids]` of a table of bytes or truth values: where ids are small, five times as fast."""
    if table.itemsize > 1 or ids.max(initial=0) > 255:
        return table[ids]
    return cv2.LUT(ids.astype(np.uint8), table[:256].view(np.uint8)).view(table.dtype)


def largest(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Which of three arrays is the largest, the first of equal ones: argmax over an axis of three is slower by far."""
    return np.where((a >= b) & (a >= c), 0, np.where(b >= c, 1, 2))


def dot_of(a: Float32[np.ndarray, "3 N"], b: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "N"]:
    """Scalar product of every pair of columns."""
    out = a[0] * b[0]
    out += a[1] * b[1]
    out += a[2] * b[2]
    return out


def normalised(planes: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "3 N"]:
    """Every column at unit length."""
    return planes / np.sqrt(dot_of(planes, planes))


def view_rays(camera: Camera) -> tuple[Float32[np.ndarray, "3 H W"], Float32[np.ndarray, " 3"]]:
    """World directions of every pixel, at unit forward depth, and the eye."""
    K, T = camera.K.astype(np.float32), camera.T_camera_world
    R = T[:3, :3].astype(np.float32)
    if camera.lens is not None:
        x, y = np.moveaxis(camera.rays().astype(np.float32), -1, 0)
    else:
        x = ((np.arange(camera.size[0], dtype=np.float32) + 0.5 - K[0, 2]) / K[0, 0])[None]
        y = ((np.arange(camera.size[1], dtype=np.float32) + 0.5 - K[1, 2]) / K[1, 1])[:, None]
    d = np.empty((3, *camera.size[::-1]), np.float32)
    for k, plane in enumerate(d):
        np.add(x * R[0, k], y * R[1, k], out=plane)
        plane += R[2, k]
    return d, inverse(T)[:3, 3].astype(np.float32)


def put(out: np.ndarray, at: np.ndarray | slice, found: np.ndarray) -> None:
    """Planes (3, M) into planes (3, N), at flat pixel indices."""
    for plane, values in zip(out, found, strict=True):
        plane[at] = values


def keep(plane: np.ndarray, at: np.ndarray | slice, values: np.ndarray, on: np.ndarray | None) -> None:
    """Values into a plane at flat pixel indices; where `on` is given, at a slice's pixels that it names."""
    if on is None:
        plane[at] = values
    else:
        np.copyto(plane[at], values, where=on)
