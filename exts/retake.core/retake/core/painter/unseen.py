# SPDX-License-Identifier: Apache-2.0
"""What no first frame shows of a thing, drawn after what they show of it.

A thing is known side by side: the colours that first frames show of one are laid out over the world's own metres. Beyond what
was seen its tone goes on, fading to the side's mean, with the side's own texture mirrored over it; the simulation says how much
darker or lighter a place is than what was seen. All of it is fixed to the world, so that nothing swims, and it is told alike
whichever camera asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8, UInt16
from retake.core.painter.planes import largest, view_rays
from retake.core.painter.stills import Still
from retake.core.painter.textures import lookup
from retake.core.variants.base import LUMA

LEAST_PIXELS = 200
"""Of a thing in the first frames, from which on what they do not show of it is drawn after them."""
LEAST_OF_SIDE = 64
"""Of one side of it; a side that shows less looks as the one that shows most."""
LARGEST, COARSEST = 256, 3.0
"""Cells of a layout along a side, at most, and how much larger than a pixel they become for more to be laid out."""
LEAST_TILE = 6
"""Cells along a tile's shorter side: of a smaller one only the tone is taken."""
TONE = (1.5, 24.0)
"""Cells over which tones are spread: a quarter of the tile, within these bounds."""
SHADE = (0.4, 1.6)
"""How dark or light the simulation may make what was not seen, over what was."""
DARK = 16.0
"""Grey value that is added before brightnesses are compared: noise in the dark is no light."""
LEAST_WEIGHT = 0.1
"""Pixels that a cell must have been given to count as seen."""
PRIOR = 0.02
"""Weight of a side's mean against what was seen about a place."""
RIM = 2.0
"""Cells over which colours at the edge of what was seen go over into the side's own texture."""


AXES = ((1, 2), (0, 2), (0, 1))
"""The two axes over which a side is laid out, by the axis of its normals."""


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a thing: its colours over two of the world's axes."""

    axes: tuple[int, int]
    corner: Float32[np.ndarray, "2"]
    """Where the layout begins, m."""
    cell: float
    """m."""
    tone: Float32[np.ndarray, "h w 4"]
    """Colour without texture, and how much of the texture there is."""
    tile: Float32[np.ndarray, "th tw 3"]
    """Texture: what a piece of it adds to the tone."""
    tile_at: tuple[int, int]
    """Column and row of the layout where the tile lies."""
    mean: Float32[np.ndarray, "3"]
    grey: float
    """Of the simulation where this side was seen."""

    def at(self, world: Float32[np.ndarray, "3 N"], own: bool) -> Float32[np.ndarray, "N 3"]:
        """Colours at world points, m. `own`: whether they lie on this side; those of another one have its texture alone."""
        x, y = (
            (world[axis] - low) / self.cell - np.float32(0.5) for axis, low in zip(self.axes, self.corner, strict=True)
        )
        height, width = self.tile.shape[:2]
        texture = lookup(
            self.tile, mirrored(x - self.tile_at[0], width), mirrored(y - self.tile_at[1], height), cv2.BORDER_REPLICATE
        )
        if not own:
            return texture + self.mean
        tone = lookup(self.tone, x, y, cv2.BORDER_REPLICATE)
        return tone[:, :3] + tone[:, 3:] * texture


def mirrored(x: Float32[np.ndarray, "N"], length: int) -> Float32[np.ndarray, "N"]:
    """Index coordinates in a row of so many cells that is mirrored at both of its ends, over and over."""
    t = np.mod(x + np.float32(0.5), np.float32(2 * length))
    return length - np.abs(t - length) - np.float32(0.5)


class Unseen:
    """What no still shows of the things that stills show. `counts`: ids of these things."""

    def __init__(self, stills: Sequence[Still], counts: Bool[np.ndarray, "65536"]) -> None:
        self.sides: dict[int, dict[int, Side]] = {}
        """Instance → axis of its normals → side; an axis that shows little has the side that shows most."""
        shown = [_shown(still, counts) for still in stills]
        ids, axis, points, pixel_m, painted, grey = (np.concatenate(each, -1) for each in zip(*shown, strict=True))
        for instance, count in zip(*np.unique(ids, return_counts=True), strict=True):
            if count < LEAST_PIXELS:
                continue
            parts = [np.flatnonzero((ids == instance) & (axis == k)) for k in range(3)]
            most = int(np.argmax([len(part) for part in parts]))
            sides = {
                k: _side(AXES[k], points[:, part], pixel_m[part], painted[:, part], grey[part])
                for k, part in enumerate(parts)
                if len(part) >= LEAST_OF_SIDE or k == most
            }
            self.sides[int(instance)] = {k: sides.get(k, sides[most]) for k in range(3)}

    def colours(
        self, world: Float32[np.ndarray, "3 N"], normals: Float32[np.ndarray, "3 N"], ids: UInt16[np.ndarray, "N"],
        simulated: UInt8[np.ndarray, "N 3"],
    ) -> tuple[UInt8[np.ndarray, "N 3"], Bool[np.ndarray, "N"]]:  # fmt: skip
        """Colours of world points (m) of instances, and of which of them anything is known. Normals may have any length."""
        out, known = np.zeros((len(ids), 3), np.uint8), np.zeros(len(ids), bool)
        axis, grey = _axis(normals), simulated @ LUMA
        for instance in np.unique(ids):
            for k, side in self.sides.get(int(instance), {}).items():
                at = np.flatnonzero((ids == instance) & (axis == k))
                if len(at):
                    colours = side.at(world.take(at, 1), own=side.axes == AXES[k])
                    colours *= np.clip((grey[at] + DARK) / (side.grey + DARK), *SHADE)[:, None]
                    out[at], known[at] = np.clip(colours + 0.5, 0, 255), True
        return out, known


def _axis(normals: np.ndarray) -> np.ndarray:
    """The axis that each normal (3, N) is nearest to; of equal ones the upright one."""
    x, y, z = np.abs(normals.astype(np.float32))
    return 2 - largest(z, y, x)


def _shown(still: Still, counts: Bool[np.ndarray, "65536"]) -> tuple[np.ndarray, ...]:
    """(ids, axes, world points, m per pixel, painted colours, simulated grey) of what a still shows of these things."""
    source, (rays, eye) = still.source, view_rays(still.source.camera)
    at = np.flatnonzero(still.solid & counts[source.instance_ids] & (source.depth_m > 0))
    depth = source.depth_m.reshape(-1)[at]
    points = rays.reshape(3, -1).take(at, 1) * depth + eye[:, None]
    normals, painted, simulated = (each.reshape(-1, 3)[at] for each in (source.normals, still.painted, source.rgb))
    colours = np.clip(painted.T * np.float32(still.gain), 0, 255)
    pixel_m = depth / np.float32(source.camera.K[0, 0])
    return source.instance_ids.reshape(-1)[at], _axis(normals.T), points, pixel_m, colours, simulated @ LUMA


def _side(
    axes: tuple[int, int], points: Float32[np.ndarray, "3 N"], pixel_m: Float32[np.ndarray, "N"],
    painted: Float32[np.ndarray, "3 N"], grey: Float32[np.ndarray, "N"],
) -> Side:  # fmt: skip
    """A side as these pixels show it."""
    at, pixel = points[list(axes)], max(float(np.median(pixel_m)), 1e-4)
    cell = 1.25 * min(max(pixel, float(np.ptp(at, axis=1).max()) / LARGEST), COARSEST * pixel)
    # Of a floor that reaches to the horizon, what lies about the middle of the picture.
    low = np.maximum(at.min(1), np.median(at, axis=1) - np.float32(LARGEST / 2 * cell))
    size = np.minimum(np.ceil((at.max(1) - low) / cell).astype(int) + 1, LARGEST)
    total, weight = _laid_out((at - low[:, None]) / np.float32(cell) - np.float32(0.5), painted, size[0], size[1])
    mean = painted.mean(1)
    seen = cv2.morphologyEx((weight > LEAST_WEIGHT).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    own = total / np.maximum(weight, LEAST_WEIGHT)[..., None]
    colours = np.where((weight > LEAST_WEIGHT)[..., None], own, _spread(total, weight, mean, 0.7))
    x0, y0, x1, y1 = largest_rectangle(seen)
    tile = colours[y0:y1, x0:x1].copy()
    reach = float(np.clip(min(tile.shape[:2]) / 4, *TONE))
    if min(tile.shape[:2]) >= LEAST_TILE:
        tile -= cv2.GaussianBlur(tile, (0, 0), max(reach / 2, TONE[0]), borderType=cv2.BORDER_REFLECT)
    else:
        tile = np.zeros((1, 1, 3), np.float32)
    # At the end of a margin the tone is the mean, and goes on as that.
    pad = int(np.ceil(3 * reach)) + 1
    on = np.pad(seen.astype(np.float32), pad)
    colours = np.pad(colours * seen[..., None], ((pad, pad), (pad, pad), (0, 0)))
    share = np.exp(-cv2.distanceTransform((on == 0).astype(np.uint8), cv2.DIST_L2, 5) / RIM)[..., None]
    tone = share * _spread(colours, on, mean, RIM / 2) + (1 - share) * _spread(colours, on, mean, reach)
    corner = (low - pad * cell).astype(np.float32)
    tone = np.concatenate([tone, 1 - share], -1)
    return Side(axes, corner, cell, tone, tile, (x0 + pad, y0 + pad), mean, float(np.median(grey)))


def _laid_out(
    at: Float32[np.ndarray, "2 N"], colours: Float32[np.ndarray, "3 N"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """(weighted colours, weights) of cells, every pixel shared out between the four about its place (index coordinates)."""
    planes = np.zeros((4, height * width))
    left = np.floor(at).astype(int)
    beyond = at - left
    for right in (0, 1):
        for down in (0, 1):
            column, row = left[0] + right, left[1] + down
            share = np.abs(1 - right - beyond[0]) * np.abs(1 - down - beyond[1])
            on = np.flatnonzero((column >= 0) & (row >= 0) & (column < width) & (row < height))
            into = row[on] * width + column[on]
            for plane, values in zip(planes, (*colours, None), strict=True):
                plane += np.bincount(into, (share if values is None else share * values)[on], len(plane))
    image = planes.astype(np.float32).reshape(4, height, width)
    return np.ascontiguousarray(image[:3].transpose(1, 2, 0)), image[3]


def _spread(
    total: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], mean: Float32[np.ndarray, "3"], sigma: float
) -> Float32[np.ndarray, "h w 3"]:  # fmt: skip
    """Weighted colours, spread over this many cells and beyond them fading to the mean."""
    around = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)[..., None]
    out = cv2.GaussianBlur(total, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) + np.float32(PRIOR) * mean
    return (out / (around + np.float32(PRIOR))).astype(np.float32)


def largest_rectangle(on: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the largest rectangle that is true everywhere."""
    best, found = 0, (0, 0, 1, 1)
    heights = np.zeros(on.shape[1] + 1, int)
    for row in range(on.shape[0]):
        heights[:-1] = np.where(on[row], heights[:-1] + 1, 0)
        # Bars in growing order, each with where it begins: one that ends leaves its start to what comes after.
        bars: list[tuple[int, int]] = []
        for column, height in enumerate(heights.tolist()):
            start = column
            while bars and bars[-1][1] >= height:
                start, tall = bars.pop()
                if tall * (column - start) > best:
                    best, found = tall * (column - start), (start, row + 1 - tall, column, row + 1)
            bars.append((start, height))
    return found
