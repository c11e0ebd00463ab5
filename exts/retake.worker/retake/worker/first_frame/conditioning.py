# SPDX-License-Identifier: Apache-2.0
"""Conditioning: everything of one source frame that a model sees, on the canvas and as bytes of the stated polarity."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import cv2
import numpy as np

from retake.core.array_types import Bool, UInt8
from retake.core.errors import VariantError
from retake.core.painter.light import Light, robot_gain
from retake.core.variants.base import SourceFrame, World
from retake.core.variants.controls import ControlMaps
from retake.core.variants.lock import GAIN_BOUNDS
from retake.core.variants.worlds import Catalogue, lighting_of
from retake.worker.first_frame.canvas import Canvas

MIN_REPAINT = 0.02
"""Share of the picture that must be free to paint; below it a model has nothing to tell its world with."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Arrays of the canvas size."""

    canvas: Canvas
    picture: UInt8[np.ndarray, "H W 3"]
    """The simulated picture with the robot already in the world's light."""
    depth: UInt8[np.ndarray, "H W"]
    """Inverse depth, near is bright, 0 where nothing was hit."""
    edges: UInt8[np.ndarray, "H W"]
    """0 or 255: geometry alone where the model paints, the picture's own edges where pixels are kept."""
    segments: UInt8[np.ndarray, "H W 3"]
    normals: UInt8[np.ndarray, "H W 3"]
    repaint: Bool[np.ndarray, "H W"]
    """True where the model paints. Robot and held object are False."""

    @staticmethod
    def of(
        source: SourceFrame, maps: ControlMaps, canvas: Canvas, world: World, seed: int, catalogue: Catalogue | None = None
    ) -> Conditioning:  # fmt: skip
        """From a source frame's control maps. Raises VariantError when less than 2 % would be painted."""
        if maps.keep.mean() > 1 - MIN_REPAINT:
            raise VariantError(
                f"frame {source.index}: {maps.keep.mean():.0%} of the picture is kept; nothing is left to repaint"
            )
        edges = np.where(maps.keep, maps.canny, maps.geometry)
        # A line one pixel wide would become dashes where the canvas is smaller than the capture.
        wide = math.ceil(1 / min(1.0, *canvas.squeeze))
        edges = cv2.dilate(edges, np.ones((wide, wide), np.uint8))
        repaint = canvas.place(~maps.keep, hard=True)
        repaint[canvas.inner[1] :] = True
        repaint[:, canvas.inner[0] :] = True
        return Conditioning(
            canvas,
            canvas.place(relit(source, maps, world, seed, catalogue)),
            canvas.place(maps.depth, hard=True),
            canvas.place(edges, hard=True),
            canvas.place(maps.segments, hard=True),
            canvas.place(maps.normals, hard=True),
            repaint,
        )

    def around(
        self, known: UInt8[np.ndarray, "h w 3"], missing: Bool[np.ndarray, "h w"], keep: Bool[np.ndarray, "h w"]
    ) -> Conditioning:
        """To paint only what is missing of a picture of the camera's size; kept pixels stay the simulated ones, relit."""
        canvas = self.canvas
        shown = canvas.place(~missing & ~keep, hard=True)
        # A pixel further: where grids differ, a rim of the simulated picture would stay. What is known comes back anyway.
        repaint = canvas.place(cv2.dilate(missing.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, hard=True)
        repaint[canvas.inner[1] :] = True
        repaint[:, canvas.inner[0] :] = True
        picture = np.where(shown[..., None], canvas.place(known), self.picture)
        return replace(self, picture=picture, repaint=repaint)

    def control(self, name: str) -> UInt8[np.ndarray, "H W 3"]:
        """A control map by name, as the three-channel picture control models read. Raises VariantError."""
        maps = {"depth": self.depth, "edge": self.edges, "seg": self.segments, "normal": self.normals}
        if name not in maps:
            raise VariantError(f"unknown control {name!r}; valid: {', '.join(maps)}")
        found = maps[name]
        return found if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2)

    def mask(self, cell: int = 1) -> UInt8[np.ndarray, "H W"]:
        """255 where the model paints, 0 where it keeps. With `cell` > 1 a whole cell is painted when any pixel of it is.

        Models that blend latents keep or replace whole cells: without this a rim of the simulated background would
        stay around the robot. The robot's own pixels in those cells come back with the lock.
        """
        if cell == 1:
            return self.repaint.astype(np.uint8) * 255
        height, width = self.repaint.shape
        coarse = self.repaint.reshape(height // cell, cell, width // cell, cell).any((1, 3))
        return np.kron(coarse, np.ones((cell, cell), bool)).astype(np.uint8) * 255


def relit(
    source: SourceFrame, maps: ControlMaps, world: World, seed: int, catalogue: Catalogue | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """The simulated picture with its kept pixels under the world's light: a smooth bounded gain from the normals.

    An inpainting model leaves these pixels alone, so their light must be right before it paints around them. The same
    light as the `procedural` backend's for this world and seed.
    """
    rng = np.random.default_rng(zlib.crc32(world.name.encode()) + (seed << 32))
    light = Light.of(lighting_of(world, catalogue), rng)
    # Bytes are gamma-coded, the gain is not. A photograph is exposed to its scene: only night stays darker.
    gain = (robot_gain(light, source.normals, maps.keep) * np.float32(light.exposure)) ** np.float32(1 / 2.2)
    gain = cv2.GaussianBlur(np.clip(gain, *GAIN_BOUNDS), (0, 0), max(1.0, 0.01 * source.rgb.shape[1]))
    out = source.rgb.copy()
    out[maps.keep] = np.clip(source.rgb * gain + np.float32(0.5), 0, 255).astype(np.uint8)[maps.keep]
    return out
