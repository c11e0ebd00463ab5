# SPDX-License-Identifier: Apache-2.0
"""Your own place: photographs as materials, and an equirectangular panorama as what stands behind and as the light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Float32
from retake.core.errors import VariantError
from retake.core.painter.textures import LINEAR_OF_BYTE, Texture
from retake.core.variants.base import LUMA

MAX_SIDE = 2048
SUN_SHARE = 0.003
"""Share of a panorama's upper half that is taken for its strongest light."""


@lru_cache(maxsize=16)
def photograph(path: str, sha256: str) -> Float32[np.ndarray, "H W 3"]:
    """Linear RGB of a photograph, at most MAX_SIDE px a side. Raises VariantError when it cannot be read."""
    data = Path(path).read_bytes() if Path(path).is_file() else b""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise VariantError(f"{path} is missing or no readable image; a world names it as a photograph")
    scale = MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return LINEAR_OF_BYTE[np.asarray(image, np.uint8)[..., ::-1]]


def photo_texture(spec: Mapping[str, Any]) -> Texture:
    """A photograph laid over a plane, `tile_m` wide: repeated as it is where it is `tileable`, else mirrored, so that no
    seam shows."""
    image = photograph(str(spec["photo"]), str(spec.get("sha256", "")))
    width = float(spec.get("tile_m", 1.0))
    height = width * image.shape[0] / image.shape[1]
    if not spec.get("tileable", False):
        image = np.concatenate([image, image[:, ::-1]], 1)
        image = np.concatenate([image, image[::-1]], 0)
        width, height = 2 * width, 2 * height
    return Texture.of(np.ascontiguousarray(image), (width, height))


@dataclass(frozen=True, eq=False)
class Panorama:
    """What is to be seen in every direction from the middle of the scene."""

    texture: Texture
    heading_rad: float
    """Turns the panorama about the vertical."""

    @staticmethod
    def of(spec: Mapping[str, Any]) -> Panorama:
        """From `{photo, heading_deg}`. Raises VariantError for a picture that is not twice as wide as high."""
        image = photograph(str(spec["photo"]), str(spec.get("sha256", "")))
        height, width = image.shape[:2]
        if abs(width - 2 * height) > 0.02 * width:
            raise VariantError(
                f"{spec['photo']} is {width}x{height}; an equirectangular panorama is twice as wide as it is high: crop or "
                "stretch it to that, or use it as the photograph of a wall"
            )
        return Panorama(Texture.of(image, (2 * np.pi, np.pi)), float(np.radians(float(spec.get("heading_deg", 0.0)))))

    def colours(
        self, d: Float32[np.ndarray, "N 3"], footprint_rad: Float32[np.ndarray, "N"]
    ) -> Float32[np.ndarray, "N 3"]:
        """Linear colours in unit world directions: azimuth grows to the left, the horizon is in the middle."""
        azimuth = np.arctan2(d[:, 1], d[:, 0]) + self.heading_rad
        u = np.mod(np.pi - azimuth, 2 * np.pi).astype(np.float32)
        v = (np.pi / 2 - np.arcsin(np.clip(d[:, 2], -1, 1))).astype(np.float32)
        return self.texture.sample(u, np.clip(v, 1e-3, np.pi - 1e-3), footprint_rad)

    def lighting(self) -> dict[str, Any]:
        """A lighting mapping (config/worlds) that the panorama stands for: its strongest light as the sun, the rest of the
        upper half as the sky, the lower half as the ground."""
        image = self.texture.levels[min(2, len(self.texture.levels) - 1)]
        height, width = image.shape[:2]
        polar = (np.arange(height) + 0.5) / height * np.pi
        weight = np.sin(polar)[:, None] * np.ones((1, width))
        luma = image @ LUMA
        upper = np.arange(height)[:, None] < height // 2
        bright = np.quantile(luma[: height // 2], 1 - SUN_SHARE)
        on = (luma >= bright) & upper
        azimuth = np.pi - (np.arange(width) + 0.5) / width * 2 * np.pi - self.heading_rad
        ray = np.stack([
            np.sin(polar)[:, None] * np.cos(azimuth), np.sin(polar)[:, None] * np.sin(azimuth),
            np.cos(polar)[:, None] * np.ones((1, width)),
        ], -1)  # fmt: skip
        to_sun = (ray * (luma * weight * on)[..., None]).sum((0, 1))
        to_sun /= max(float(np.linalg.norm(to_sun)), 1e-9)
        sky, ground = (
            (image * (weight * part)[..., None]).sum((0, 1)) / max(float((weight * part).sum()), 1e-9)
            for part in (upper & ~on, ~upper)
        )
        sun = (image * (weight * on)[..., None]).sum((0, 1)) / max(float((weight * on).sum()), 1e-9)
        # How much of the light comes from the strongest place decides how hard its shadows are.
        ratio = float(sun @ LUMA) / max(float(sky @ LUMA), 1e-3)
        strength = float(np.clip(0.12 * ratio, 0.1, 1.0))
        return {
            "azimuth_deg": float(np.degrees(np.arctan2(to_sun[1], to_sun[0]))), "jitter_deg": 0.0,
            "elevation_deg": float(np.degrees(np.arcsin(np.clip(to_sun[2], -1, 1)))),
            "sun": {"colour": _hex(sun), "strength": strength}, "sky": {"colour": _hex(sky), "strength": 0.6},
            "ground": {"colour": _hex(ground), "strength": 0.3}, "softness": float(np.clip(1.2 - strength, 0.2, 1.0)),
        }  # fmt: skip


def _hex(linear: np.ndarray) -> str:
    """'#rrggbb' of a linear colour brought to full brightness."""
    c = np.clip(linear / max(float(linear.max()), 1e-6), 0, 1)
    srgb = np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * float(v)):02x}" for v in srgb)
