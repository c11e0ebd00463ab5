# SPDX-License-Identifier: Apache-2.0
"""The work surface: one material laid over the table in perspective, with rails or a border where the world has them; legs
under it, and materials laid over other things of the scene."""

from __future__ import annotations

from typing import Any

import numpy as np

from retake.core.array_types import Bool, Float32
from retake.core.painter.materials import make_material
from retake.core.painter.planes import largest
from retake.core.painter.textures import Texture

LEG_M, MIN_LEG_M, MAX_TABLE_M = 0.06, 0.3, 4.0
"""Width of a table's leg; least height of a surface that has legs; largest side of one."""


class Surface:
    """Material of the table top and its sides. Coordinates start at the centre of what is visible of it."""

    def __init__(
        self, spec: dict[str, Any], seed: int, points: Float32[np.ndarray, "N 3"], on: Bool[np.ndarray, "N"]
    ) -> None:
        self.texture = make_material(spec, seed)
        mine = points[on] if on.any() else np.zeros((1, 3), np.float32)
        top = mine[mine[:, 2] > np.percentile(mine[:, 2], 90) - 0.01]
        self.low, self.high = np.percentile(top, 0.2, axis=0)[:2], np.percentile(top, 99.8, axis=0)[:2]
        self.center = ((self.low + self.high) / 2).astype(np.float32)
        # A belt runs along the table's longer side; its ribs cross it.
        self.lengthwise = int(np.argmax(self.high - self.low))
        self.rail = spec.get("rail")
        self.rail_texture = make_material(self.rail, seed + 1) if self.rail else None
        self.side_texture = make_material(spec["side"], seed + 2) if "side" in spec else self.texture

    def albedo(
        self,
        points: Float32[np.ndarray, "3 N"],
        normal: Float32[np.ndarray, "3 N"],
        footprint: Float32[np.ndarray, "N"],
        on: Bool[np.ndarray, "N"],
    ) -> Float32[np.ndarray, "3 N"]:
        """Linear colours of surface points (world, m); anything where `on` is not set."""
        top = np.abs(normal[2]) > 0.7
        q = points[:2] - self.center[:, None]
        across, along = q[1 - self.lengthwise], q[self.lengthwise]
        out = self.texture.planes(across, along, footprint)
        side = np.flatnonzero(~top & on)
        if len(side):
            run = np.where(np.abs(normal[0, side]) > np.abs(normal[1, side]), q[1, side], q[0, side])
            for plane, found in zip(out, self.side_texture.planes(run, -points[2, side], footprint[side]), strict=True):
                plane[side] = found * 0.92
        if self.rail is not None and self.rail_texture is not None:
            half = (self.high - self.low)[1 - self.lengthwise] / 2
            width = float(self.rail.get("width_m", 0.045))
            inside = half - np.abs(across)
            rail = np.flatnonzero(top & on & (inside < width))
            for plane, found in zip(
                out, self.rail_texture.planes(across[rail], along[rail], footprint[rail]), strict=True
            ):
                plane[rail] = found
            groove = np.flatnonzero(top & (np.abs(inside - width) < 0.006))
            out[:, groove] *= 0.35
        return out


def legs_of(
    low: Float32[np.ndarray, "2"], high: Float32[np.ndarray, "2"], top_m: float, floor_m: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (low, high) of the four legs of a work surface with those corners; none for one near the floor, or so large
    that it is one."""
    if top_m - floor_m < MIN_LEG_M or max(high - low) > MAX_TABLE_M or min(high - low) < 4 * LEG_M:
        return []
    out = []
    for x in (low[0] + LEG_M, high[0] - 2 * LEG_M):
        for y in (low[1] + LEG_M, high[1] - 2 * LEG_M):
            first = np.array([x, y, floor_m], np.float32)
            out.append((first, np.array([x + LEG_M, y + LEG_M, top_m - 0.02], np.float32)))
    return out


def planar(
    texture: Texture, points: Float32[np.ndarray, "3 N"], normal: Float32[np.ndarray, "3 N"], footprint: np.ndarray
) -> Float32[np.ndarray, "3 N"]:
    """Texture laid over world-aligned planes: each point takes the plane its normal is closest to."""
    axis = largest(*np.abs(normal))
    u = np.where(axis == 0, points[1], points[0])
    v = np.where(axis == 2, points[1], -points[2])
    return texture.planes(u, v, footprint)
