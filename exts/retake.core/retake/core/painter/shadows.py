# SPDX-License-Identifier: Apache-2.0
"""Shadows from geometry: what is seen of the casters is splatted onto a plane across the light; receivers look up.

Two fields are used per frame: along the sun (cast shadow, softer with distance) and along the vertical (contact shadow).
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Float32
from retake.core.painter.planes import BLOCK, channels_of, in_blocks, turned

HALF_M, CELLS = 1.4, 288
"""Extent and resolution of a field: about 1 cm a cell over 2.8 m."""
MOST = 0.5
"""Share of a block from which on all of it is looked up: runs are faster than single pixels."""
_NONE = -1e3


class ShadowField:
    """Occluders seen along one direction, around a centre. Lengths in metres, world frame."""

    def __init__(self, direction: Float32[np.ndarray, "3"], center: np.ndarray) -> None:
        z = np.asarray(direction, np.float32) / np.linalg.norm(direction)
        helper = np.array([1.0, 0, 0], np.float32) if abs(z[0]) < 0.9 else np.array([0, 1.0, 0], np.float32)
        x = np.cross(helper, z)
        x /= np.linalg.norm(x)
        self.axes = np.stack([x, np.cross(z, x), z]).astype(np.float32)
        self.center = np.asarray(center, np.float32)
        self.height = np.full((CELLS, CELLS), _NONE, np.float32)
        self._map: np.ndarray | None = None
        self._edges: tuple[int, int, int, int] | None = None
        """See `_bounds`."""

    def coordinates(self, points: Float32[np.ndarray, "*n 3"]) -> Float32[np.ndarray, "*n 3"]:
        """(map x, map y, metres towards the light) of world points."""
        return np.moveaxis(self.planes(np.moveaxis(points, -1, 0)), 0, -1)

    def planes(self, points: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "3 N"]:
        """`coordinates`, axis by axis."""
        flat = (points.reshape(3, -1) - self.center[:, None]).astype(np.float32, copy=False)
        c = turned(self.axes, flat)
        c[:2] += np.float32(HALF_M)
        c[:2] *= np.float32(CELLS / (2 * HALF_M))
        c[:2] -= np.float32(0.5)
        return c.reshape(points.shape)

    def add_points(self, points: Float32[np.ndarray, "N 3"], grow: int = 1) -> None:
        """Splat a cloud of surface points, each grown by `grow` cells to close the gaps between samples."""
        if not len(points):
            return
        c = self.coordinates(points)
        order = np.argsort(c[:, 2], kind="stable")
        x, y = np.round(c[order, 0]).astype(int), np.round(c[order, 1]).astype(int)
        inside = (x >= 0) & (x < CELLS) & (y >= 0) & (y < CELLS)
        layer = np.full((CELLS, CELLS), _NONE, np.float32)
        layer[y[inside], x[inside]] = c[order, 2][inside]  # ascending, so the one nearest the light stays
        if grow:
            layer = cv2.dilate(layer, np.ones((2 * grow + 1, 2 * grow + 1), np.uint8))
        np.maximum(self.height, layer, out=self.height)
        self._map = self._edges = None

    def add_box(self, corners: Float32[np.ndarray, "N 3"]) -> None:
        """A solid convex body by its corners, or by points of its surface."""
        c = self.coordinates(corners)
        layer = np.full((CELLS, CELLS), _NONE, np.float32)
        hull = cv2.convexHull((c[:, :2] * 16).round().astype(np.int32))
        cv2.fillConvexPoly(layer, hull, float(c[:, 2].mean()), cv2.LINE_8, 4)
        np.maximum(self.height, layer, out=self.height)
        self._map = self._edges = None

    def clear(self) -> None:
        """Forget all occluders."""
        self.height[:] = _NONE
        self._map = self._edges = None

    def _levels(self) -> np.ndarray:
        """(cells, cells, 4): coverage at three softnesses, and mean height of what covers."""
        if self._map is None:
            on = (self.height > _NONE / 2).astype(np.float32)
            tops = np.where(on > 0, self.height, 0)
            near, mid = cv2.GaussianBlur(on, (0, 0), 0.8), cv2.GaussianBlur(on, (0, 0), 2.2)
            # Wide blurs hold no detail: a quarter of the resolution is enough for them.
            small = cv2.resize(cv2.merge([on, tops]), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            small = cv2.GaussianBlur(small, (0, 0), 1.75)
            far, tops = cv2.split(cv2.resize(small, (CELLS, CELLS), interpolation=cv2.INTER_LINEAR))
            mean = np.where(far > 1e-4, tops / np.maximum(far, 1e-4), _NONE)
            self._map = cv2.merge([near, mid, far, mean.astype(np.float32, copy=False)])
        return self._map

    def cast(
        self, at: Float32[np.ndarray, "H W 3"], softness: float, bias_m: float = 0.012
    ) -> Float32[np.ndarray, "H W"]:
        """Share of the light that is blocked at receivers (given by `coordinates`), 0..1; penumbra by distance."""
        return self.cast_on(np.moveaxis(at, -1, 0), softness, bias_m)

    def cast_on(
        self, at: Float32[np.ndarray, "3 H W"], softness: float, bias_m: float = 0.012
    ) -> Float32[np.ndarray, "H W"]:
        """`cast` at receivers given axis by axis (`planes`)."""
        if at[0].size > BLOCK:
            return in_blocks(lambda part: self.cast_on(part, softness, bias_m), at)
        near, mid, far, height = self._lookup(at, 0)
        gap = height - at[2]
        t = np.clip(gap * (6 * softness) + 1.2 * softness, 0, 2)
        soft = np.where(t < 1, near + (mid - near) * t, mid + (far - mid) * (t - 1))
        return soft * np.clip(gap / bias_m - 0.5, 0, 1)

    def contact(self, at: Float32[np.ndarray, "H W 3"], reach_m: float = 0.07) -> Float32[np.ndarray, "H W"]:
        """Share of the sky that nearby occluders hide (for a vertical field), 0..1, fading over `reach_m`."""
        return self.contact_on(np.moveaxis(at, -1, 0), reach_m)

    def contact_on(self, at: Float32[np.ndarray, "3 H W"], reach_m: float = 0.07) -> Float32[np.ndarray, "H W"]:
        """`contact` at receivers given axis by axis (`planes`)."""
        if at[0].size > BLOCK:
            return in_blocks(lambda part: self.contact_on(part, reach_m), at)
        mid, far, height = self._lookup(at, 1)
        gap = height - at[2]
        near = np.exp(-np.maximum(gap, 0) / reach_m)
        return (0.65 * far + 0.35 * mid) * near * np.clip(gap / 0.01, 0, 1)

    def _lookup(self, at: Float32[np.ndarray, "3 H W"], first: int) -> np.ndarray:
        """The map's levels from the `first` on, at receivers."""
        found = cv2.remap(
            self._levels(), np.ascontiguousarray(at[0]), np.ascontiguousarray(at[1]), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, _NONE),
        )  # fmt: skip
        return channels_of(found, first, 4 - first)

    def reach(self, at: Float32[np.ndarray, "3 N"]) -> np.ndarray:
        """Which of the receivers (flat indices) a shadow may fall on: the map is empty around all others."""
        if not self.reaches(at):
            return np.zeros(0, np.intp)
        x0, x1, y0, y1 = self._bounds()
        return np.flatnonzero((at[0] > x0) & (at[0] < x1) & (at[1] > y0) & (at[1] < y1))

    def worth(self, at: Float32[np.ndarray, "3 N"]) -> np.ndarray | slice | None:
        """`reach`, or everything where that is most of a block; None where no shadow falls."""
        near = self.reach(at)
        return (slice(None) if len(near) > MOST * at.shape[1] else near) if len(near) else None

    def reaches(self, at: Float32[np.ndarray, "3 N"]) -> bool:
        """Whether a shadow may fall on any of the receivers, by their extent alone."""
        x0, x1, y0, y1 = self._bounds()
        return bool(at[0].max() > x0 and at[0].min() < x1 and at[1].max() > y0 and at[1].min() < y1)

    def _bounds(self) -> tuple[int, int, int, int]:
        """Columns and rows of the map between which anything is covered; the first beyond the last when nothing is."""
        if self._edges is None:
            covered = channels_of(self._levels(), 0, 3).max(0) > 0
            rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
            empty = (CELLS, -CELLS, CELLS, -CELLS)
            self._edges = (columns[0] - 1, columns[-1] + 1, rows[0] - 1, rows[-1] + 1) if len(rows) else empty
        return self._edges
