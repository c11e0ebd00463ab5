# SPDX-License-Identifier: Apache-2.0
"""Camera in OpenCV axes (x right, y down, z forward): a pinhole, or a calibrated lens before one.

Pixel convention of K: pixel (column i, row j) covers [i, i+1) × [j, j+1), so its centre is (i + 0.5, j + 0.5) and a
centred camera has cx = W/2. Image-index coordinates (OpenCV drawing, resize) are 0.5 less; the skeleton nevertheless
rounds K's coordinates as they are, because the public renderer does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retake.core.array_types import Bool, Float64
from retake.core.errors import InputError
from retake.core.geometry import inverse, is_rigid, transform
from retake.core.lens import Lens, pixel_rays

LARGEST_PX = 8192
"""A picture that is asked for has at most this many pixels a side: colours, depth, normals and ids of one frame are then
1.7 GB. More is a slip that would end in a MemoryError after the scene was simulated."""


def require_size(size: tuple[int, int], asked: str) -> tuple[int, int]:
    """A (width, height) that pictures can have. Raises InputError beginning with what was `asked`."""
    if not all(1 <= side <= LARGEST_PX for side in size):
        raise InputError(f"{asked}: size {size[0]}x{size[1]}; expected 1 to {LARGEST_PX} pixels a side")
    return size


@dataclass(frozen=True)
class Camera:
    """One camera at one instant."""

    K: Float64[np.ndarray, "3 3"]
    """Intrinsics, px, zero skew."""
    T_camera_world: Float64[np.ndarray, "4 4"]
    """World to camera, OpenCV axes, metres."""
    size: tuple[int, int]
    """(width, height), px."""
    lens: Lens | None = None
    """Distortion of the picture; None = a pinhole."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.K).all() and self.K[0, 0] > 0 and self.K[1, 1] > 0):
            raise InputError(f"camera matrix K needs finite entries and positive fx, fy; found {self.K.tolist()}")
        if not is_rigid(self.T_camera_world):
            raise InputError(f"T_camera_world is no rigid transform: {self.T_camera_world.tolist()}")
        if min(self.size) < 1:
            raise InputError(f"camera size must be positive (width, height); found {self.size}")

    def project(
        self, p_world: Float64[np.ndarray, "*n 3"]
    ) -> tuple[Float64[np.ndarray, "*n 2"], Float64[np.ndarray, "*n"]]:
        """Pixel coordinates (…, 2) and forward depths (…) in metres. Points with depth <= 0 have no image: NaN."""
        p_camera = transform(self.T_camera_world, np.asarray(p_world, np.float64))
        z = p_camera[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            uv = p_camera[..., :2] / np.where(z > 0, z, np.nan)[..., None]
        if self.lens is not None:
            uv = self.lens.distort(uv)
        return uv * [self.K[0, 0], self.K[1, 1]] + [self.K[0, 2], self.K[1, 2]], z

    def unproject(
        self, uv: Float64[np.ndarray, "*n 2"], depth_m: Float64[np.ndarray, "*n"]
    ) -> Float64[np.ndarray, "*n 3"]:
        """World points (…, 3), metres, of pixel coordinates (…, 2) at forward depths (…)."""
        xy = (np.asarray(uv, np.float64) - [self.K[0, 2], self.K[1, 2]]) / [self.K[0, 0], self.K[1, 1]]
        if self.lens is not None:
            xy = self.lens.undistort(xy)
        z = np.asarray(depth_m, np.float64)[..., None]
        return transform(inverse(self.T_camera_world), np.concatenate([xy * z, z], -1))

    def pixel_grid(self) -> Float64[np.ndarray, "H W 2"]:
        """Coordinates (H, W, 2) of every pixel's centre."""
        u, v = np.meshgrid(np.arange(self.size[0]) + 0.5, np.arange(self.size[1]) + 0.5)
        return np.stack([u, v], -1)

    def rays(self) -> Float64[np.ndarray, "H W 2"]:
        """(x, y) of the ray (x, y, 1) in the camera that each pixel's centre sees: times depth, the point. Read only."""
        focal, centre = (self.K[0, 0], self.K[1, 1]), (self.K[0, 2], self.K[1, 2])
        if self.lens is None:
            return (self.pixel_grid() - centre) / focal
        return pixel_rays(
            self.lens, (float(focal[0]), float(focal[1])), (float(centre[0]), float(centre[1])), self.size
        )

    def rays_at(self, rows: np.ndarray, columns: np.ndarray) -> Float64[np.ndarray, "N 2"]:
        """`rays` of some pixels alone."""
        if self.lens is not None:
            return self.rays()[rows, columns]
        return np.stack([
            (columns + 0.5 - self.K[0, 2]) / self.K[0, 0], (rows + 0.5 - self.K[1, 2]) / self.K[1, 1],
        ], -1)  # fmt: skip

    def covered(self) -> Bool[np.ndarray, "H W"]:
        """Pixels that the lens's calibration reaches: all of a pinhole's, none beyond the fold of a polynomial."""
        if self.lens is None:
            return np.ones(self.size[::-1], bool)
        seen = (self.pixel_grid() - [self.K[0, 2], self.K[1, 2]]) / [self.K[0, 0], self.K[1, 1]]
        return self.lens.covers(seen, self.rays())

    def resized(self, size: tuple[int, int]) -> Camera:
        """The same camera after its image was stretched to `size` (both axes on their own: a squeeze is allowed)."""
        scale = np.diag([size[0] / self.size[0], size[1] / self.size[1], 1.0])
        return replace(self, K=scale @ self.K, size=(int(size[0]), int(size[1])))

    def cropped(self, x: int, y: int, size: tuple[int, int]) -> Camera:
        """The same camera after cutting the rectangle of `size` whose upper left pixel is (x, y)."""
        shift = np.array([[1.0, 0, -x], [0, 1.0, -y], [0, 0, 1.0]])
        return replace(self, K=shift @ self.K, size=(int(size[0]), int(size[1])))
