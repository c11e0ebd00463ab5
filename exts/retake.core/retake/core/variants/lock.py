# SPDX-License-Identifier: Apache-2.0
"""Lock: whatever an image model painted, the robot in the delivered frame is the simulated one.

Kept pixels are the source's times a smooth, bounded gain (the painted picture's light), so that no edge can move; a
soft matte joins them to the painting, and a contact shadow grounds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, UInt8
from retake.core.errors import VariantError
from retake.core.variants.base import LUMA, SourceFrame
from retake.core.variants.controls import ControlMaps, control_maps

GAIN_BOUNDS = (0.5, 1.8)
"""Per channel. Below, the robot's own contrast drowns; above, its whites clip."""
CAST = 0.6
"""Share of the painting's colour cast that the robot takes on."""


@dataclass(frozen=True, eq=False)
class Locked:
    """A painted frame with the robot carried over."""

    frame: UInt8[np.ndarray, "H W 3"]
    gain: Float32[np.ndarray, "H W 3"]
    """What the kept pixels were multiplied with."""


def lock_robot(
    painted: UInt8[np.ndarray, "H W 3"], source: SourceFrame, maps: ControlMaps | None = None, *, relight: bool = True
) -> Locked:
    """Carry the kept pixels of the source into a painted frame of the same size.

    With `relight=False` kept pixels are bit-equal to the source. Raises VariantError for another size.
    """
    if painted.shape != source.rgb.shape or painted.dtype != np.uint8:
        raise VariantError(
            f"the painted frame is {painted.shape} {painted.dtype}; the source is {source.rgb.shape} uint8"
        )
    maps = maps or control_maps(source)
    gain = light_gain(painted, source.rgb, maps.keep) if relight else np.ones(painted.shape, np.float32)
    kept = np.clip(source.rgb * gain + np.float32(0.5), 0, 255).astype(np.uint8)
    out = painted.copy()
    out[maps.keep] = kept[maps.keep]
    if relight:
        # Outside the mask only: a one-pixel veil of the robot's colour takes the cut-out look away.
        rim = (cv2.dilate(maps.keep.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~maps.keep
        spread = cv2.blur(np.where(maps.keep[..., None], kept, 0).astype(np.float32), (3, 3))
        weight = cv2.blur(maps.keep.astype(np.float32), (3, 3))[..., None]
        veil = 0.5 * spread / np.maximum(weight, 1e-6) + 0.5 * painted
        out[rim] = np.clip(veil[rim] + 0.5, 0, 255).astype(np.uint8)
    return Locked(out, gain)


def light_gain(
    painted: UInt8[np.ndarray, "H W 3"], rgb: UInt8[np.ndarray, "H W 3"], keep: np.ndarray
) -> Float32[np.ndarray, "H W 3"]:
    """Smooth gain that brings the source's kept pixels to the painted picture's light, within `GAIN_BOUNDS`.

    Inside the mask a structure-locked model paints the robot it sees, so the ratio of the low-passed pictures is its
    light; the low pass is 4 % of the width.
    """
    sigma = 0.04 * rgb.shape[1]
    scale = max(1, rgb.shape[1] // 160)
    size = (rgb.shape[1] // scale, rgb.shape[0] // scale)
    m = cv2.resize(keep.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]

    def low(image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small * m, (0, 0), sigma / scale)

    a, b = low(painted), low(rgb)
    ratio = (a + 2) / (b + 2)
    level = (ratio @ LUMA)[..., None]
    toned = level * (ratio / np.maximum(level, 1e-3)) ** CAST
    return cv2.resize(
        np.clip(toned, *GAIN_BOUNDS).astype(np.float32), (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR
    )
