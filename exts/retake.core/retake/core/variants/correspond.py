# SPDX-License-Identifier: Apache-2.0
"""Exact correspondences between two cameras of one moment, from the simulator's depth, ids and poses.

Nothing is estimated from pixels: a pixel of one camera is a point of the world, and that point has a place in the other
camera, or is hidden there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Int16, UInt16
from retake.core.camera import Camera
from retake.core.episode import Episode
from retake.core.variants.base import SourceFrame

DEPTH_SHARE, DEPTH_M = 0.01, 0.004
"""How far the depths of one point, told by two cameras, may be apart: interpolation at slanted surfaces."""
GRAZING = 0.2
"""Least cosine between a surface and the view on it: below it a pixel covers five times its width."""
BORDER_PX = 2
"""Pixels next to another instance are blends of both."""


@dataclass(frozen=True, eq=False)
class View:
    """What is known of one camera's picture at one moment, at working size."""

    camera: Camera
    depth_m: Float32[np.ndarray, "H W"]
    """Forward depth; 0 where nothing was hit."""
    ids: UInt16[np.ndarray, "H W"]
    facing: Float32[np.ndarray, "H W"]
    """Cosine between the surface's normal and the direction to the camera; 1 where normals were not recorded."""
    inner: Bool[np.ndarray, "H W"]
    """Pixels away from the borders of instances."""


@dataclass(frozen=True, eq=False)
class Correspondence:
    """For every pixel of one view its place in another."""

    place: Float32[np.ndarray, "H W 2"]
    """Image-index coordinates (x, y) in the other view, where it is seen; far outside of it where nothing can be said."""
    seen: Bool[np.ndarray, "H W"]
    """The same point of the world is visible in both, well inside its surface."""
    scale: Float32[np.ndarray, "H W"]
    """Footprint of a pixel of the other view over the footprint of the own one, at that point."""


def view_at(episode: Episode, camera: str, index: int, size: tuple[int, int]) -> View:
    """A camera's view of a frame at working size (width, height). Raises EpisodeError without depth or instances."""
    view = episode.camera_frame(camera, index)
    full = view.camera
    own = full.resized(size)
    columns = np.minimum(((np.arange(size[0]) + 0.5) * full.size[0] / size[0]).astype(int), full.size[0] - 1)
    rows = np.minimum(((np.arange(size[1]) + 0.5) * full.size[1] / size[1]).astype(int), full.size[1] - 1)
    at = np.ix_(rows, columns)
    # The picked pixel's own ray is not the working pixel's: the camera is told where they were picked.
    pick = np.array([(columns + 0.5).mean() - (np.arange(size[0]) + 0.5).mean() * full.size[0] / size[0],
                     (rows + 0.5).mean() - (np.arange(size[1]) + 0.5).mean() * full.size[1] / size[1]])  # fmt: skip
    shift = np.eye(3)
    shift[:2, 2] = -pick * [size[0] / full.size[0], size[1] / full.size[1]]
    assert view.depth_m is not None
    assert view.instance_ids is not None
    depth, ids = view.depth_m[at], view.instance_ids[at]
    facing = np.ones(ids.shape, np.float32) if view.normals is None else _facing(own, view.normals[at])
    return View(replace(own, K=shift @ own.K), depth, ids, facing, _inner(ids))


def correspond(own: View, other: View) -> Correspondence:
    """Where each pixel of `own` is in `other`."""
    height, width = own.ids.shape
    camera = own.camera
    # Only pixels that could correspond are projected: background, borders and grazing surfaces are most of a picture.
    good = (own.depth_m > 0) & (own.ids > 0) & own.inner & (own.facing > GRAZING)
    at = np.nonzero(good)
    pixels = np.stack([at[1] + 0.5, at[0] + 0.5], -1)
    with np.errstate(invalid="ignore"):
        uv, z = other.camera.project(camera.unproject(pixels, own.depth_m[at].astype(np.float64)))
    where = np.nan_to_num(uv - 0.5, nan=-9.0).astype(np.float32)
    columns, rows = (np.rint(np.clip(where[:, k], -9, 1e5)).astype(int) for k in (0, 1))
    size = other.ids.shape
    inside = (columns >= 1) & (rows >= 1) & (columns < size[1] - 1) & (rows < size[0] - 1) & (z > 0)
    rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
    place = np.full((height, width, 2), -9, np.float32)
    place[at] = where
    there = cv2.remap(other.depth_m, place[..., 0], place[..., 1], cv2.INTER_LINEAR)[at]
    gap = np.minimum(np.abs(there - z), np.abs(other.depth_m[rows, columns] - z))
    facing = other.facing[rows, columns]
    same = (other.ids[rows, columns] == own.ids[at]) & (gap < DEPTH_M + DEPTH_SHARE * np.abs(z))
    seen = inside & same & other.inner[rows, columns] & (facing > GRAZING)
    good[at] = seen
    mine = own.depth_m[at] / np.float32(camera.K[0, 0]) / np.sqrt(own.facing[at])
    theirs = (z / other.camera.K[0, 0]).astype(np.float32) / np.sqrt(np.maximum(facing, GRAZING))
    scale = np.ones((height, width), np.float32)
    scale[at] = np.where(seen, theirs / np.maximum(mine, 1e-6), 1)
    return Correspondence(place, good, scale)


def _inner(ids: UInt16[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    size = 2 * BORDER_PX + 1
    kernel = np.ones((size, size), np.uint8)
    return cv2.erode(ids, kernel) == cv2.dilate(ids, kernel)


def view_of(source: SourceFrame) -> View:
    """A whole source frame as a view."""
    facing = _facing(source.camera, source.normals)
    return View(source.camera, source.depth_m, source.instance_ids, facing, _inner(source.instance_ids))


def _facing(camera: Camera, normals: Int16[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
    """Cosine between each pixel's recorded normal (world frame, of length 32767) and its direction to the camera."""
    rays = np.concatenate([camera.rays(), np.ones((*normals.shape[:2], 1))], -1)
    normal = normals.astype(np.float32) / 32767 @ camera.T_camera_world[:3, :3].T.astype(np.float32)
    return np.abs((normal * rays).sum(-1) / np.linalg.norm(rays, axis=-1)).astype(np.float32)
