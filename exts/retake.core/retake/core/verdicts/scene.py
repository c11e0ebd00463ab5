# SPDX-License-Identifier: Apache-2.0
"""Scene coordinates for cameras that move: which pixel of another frame shows the same place of the still scenery."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.verdicts.truth import Truth

Places = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]
"""Columns, rows and whether they are known."""
_SAME_M, _SAME_SHARE = 0.02, 0.03
"""Depths that differ by less show the same surface."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Recorded depth at half working size, and the camera's way."""

    episode: Episode
    camera: str
    truth: Truth
    known: dict[int, Float32[np.ndarray, "h w"]]
    seen: dict[int, Float64[np.ndarray, "3 h w"]]
    """Of the frame that was asked about last: what each pixel shows, m, camera axes."""
    places: dict[tuple[int, int, frozenset[int]], Places] = field(default_factory=dict)
    """Of the frame that was asked about last: answers of `same_place`."""
    rays: dict[bytes, Float64[np.ndarray, "3 h w"]] = field(default_factory=dict)
    """Of the intrinsics that were asked about last: what each pixel looks along, as far as depth 1."""
    covered: dict[tuple[int, frozenset[int]], UInt8[np.ndarray, "h w"]] = field(default_factory=dict)
    """Of a frame and parts that keep their place: 1 at and beside all that moves."""

    def depth(self, t: int) -> Float32[np.ndarray, "h w"]:
        """Depth of frame t, m, read on first use."""
        if t not in self.known:
            half = (self.truth.size[0] // 2, self.truth.size[1] // 2)
            whole = np.asarray(self.episode.image(self.camera, "depth", self.truth.start + t), np.float32)
            self.known[t] = cv2.resize(whole, half, interpolation=cv2.INTER_NEAREST)
        return self.known[t]

    def points(self, t: int) -> Float64[np.ndarray, "3 h w"]:
        """What every pixel of frame t shows, m, camera axes."""
        if t not in self.seen:
            here = self.depth(t)
            self.seen.clear()
            self.seen[t] = self._rays(t, here.shape) * here
        return self.seen[t]

    def _rays(self, t: int, shape: tuple[int, ...]) -> Float64[np.ndarray, "3 h w"]:
        K = self.truth.K[t]
        if (known := self.rays.get(K.tobytes())) is None:
            v, u = np.mgrid[0 : shape[0], 0 : shape[1]]
            whole = self.truth.ideal(t, np.stack([2 * u + 0.5, 2 * v + 0.5], -1).reshape(-1, 2)) + 0.5
            across = (whole - K[:2, 2]) / np.diag(K)[:2]
            known = np.concatenate([across.T, np.ones((1, len(across)))]).reshape(3, *shape)
            self.rays.clear()
            self.rays[K.tobytes()] = known
        return known

    def _covered(self, r: int, standing: frozenset[int]) -> UInt8[np.ndarray, "h w"]:
        if (r, standing) not in self.covered:
            moving = np.ones(256, np.uint8)
            moving[[0, *(part + 1 for part in standing)]] = 0
            size = self.depth(r).shape[::-1]
            still = cv2.resize(cv2.LUT(self.truth.labels[r], moving), size, interpolation=cv2.INTER_NEAREST)
            self.covered[r, standing] = cv2.dilate(still, np.ones((5, 5), np.uint8))
        return self.covered[r, standing]

    def same_place(self, t: int, r: int, standing: frozenset[int] = frozenset()) -> Places:
        """Column and row in frame r of what every pixel of frame t shows, and whether frame r shows that place too.

        standing: indices of parts that keep their place, and are scenery here.
        """
        asked = (t, r, standing)
        if asked not in self.places:
            if any(frame != t for frame, *_ in self.places):
                self.places.clear()
            self.places[asked] = self._same_place(t, r, standing)
        return self.places[asked]

    def _same_place(self, t: int, r: int, standing: frozenset[int]) -> Places:
        truth, here, there = self.truth, self.depth(t), self.depth(r)
        T: Float64[np.ndarray, "4 4"] = truth.T_camera_world[r] @ np.linalg.inv(truth.T_camera_world[t])
        # Axis by axis: numpy is several times as slow on columns of a table of points.
        p = (T[:3, :3] @ self.points(t).reshape(3, -1) + T[:3, 3:]).reshape(3, *here.shape)
        K = truth.K[r]
        z = np.maximum(p[2], 1e-6)
        u, v = (p[axis] * K[axis, axis] / z + K[axis, 2] - 0.5 for axis in (0, 1))
        if truth.lens is not None:
            u, v = truth.seen(r, np.stack([u.ravel(), v.ravel()], 1)).T.reshape(2, *here.shape)
        x, y = (((at + 0.5) / 2 - 0.5).astype(np.float32) for at in (u, v))
        seen = cv2.remap(there, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        free = cv2.remap(self._covered(r, standing), x, y, cv2.INTER_NEAREST, borderValue=1) == 0
        good = (here > 0) & (p[2] > 0.02) & (seen > 0) & free
        return x, y, good & (np.abs(seen - z) < _SAME_M + _SAME_SHARE * z)


def at_working_size(places: Places, size: tuple[int, int]) -> Places:
    """An answer of `same_place`, which is at half the working size, for every pixel of the working image (width, height)."""
    x, y, same = places
    X, Y = (cv2.resize(2 * half + 0.5, size, interpolation=cv2.INTER_LINEAR) for half in (x, y))
    return X, Y, cv2.resize(same.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def open_scene(episode: Episode, camera: str, truth: Truth) -> Scene | None:
    """The scene of a moving camera; None for a still one, or where no depth was recorded."""
    if truth.static_camera or "depth" not in episode.header.camera(camera).channels:
        return None
    return Scene(episode, camera, truth, {}, {})
