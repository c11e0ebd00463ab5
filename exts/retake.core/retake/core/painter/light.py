# SPDX-License-Identifier: Apache-2.0
"""Light and camera look of a world: one sun, a sky and a bounce; then exposure, white balance, curve, vignette, grain.

Linear RGB until `Look.develop`, which makes sRGB bytes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Float32, UInt8
from retake.core.painter.planes import blocks, dot
from retake.core.painter.textures import gamma, linear
from retake.core.variants.base import LUMA

MIDDLE_GREY = 0.24


@dataclass(frozen=True, eq=False)
class Light:
    """Lambertian light: ambient between ground and sky by the normal's z, and one directional sun."""

    to_sun: Float32[np.ndarray, "3"]
    """Unit, world frame, from the scene to the sun."""
    sun: Float32[np.ndarray, "3"]
    """Linear RGB of a surface facing the sun."""
    sky: Float32[np.ndarray, "3"]
    ground: Float32[np.ndarray, "3"]
    exposure: float
    """Brightness the picture is exposed to: 1 daylight, less at night."""
    softness: float
    """Penumbra per metre between caster and receiver, 0 sharp … 1 overcast."""

    @staticmethod
    def of(spec: dict[str, Any], rng: np.random.Generator) -> Light:
        """From a lighting mapping (config/worlds): angles in degrees, jittered by ± `jitter_deg`."""
        jitter = float(spec.get("jitter_deg", 12))
        azimuth = np.radians(float(spec.get("azimuth_deg", -40)) + rng.uniform(-jitter, jitter))
        elevation = np.radians(np.clip(float(spec.get("elevation_deg", 50)) + rng.uniform(-0.4, 0.4) * jitter, 8, 88))
        flat = np.cos(elevation)
        to_sun = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], np.float32)

        def part(name: str, colour: str, strength: float) -> np.ndarray:
            value = spec.get(name, {})
            return linear(value.get("colour", colour)) * np.float32(value.get("strength", strength))

        return Light(
            to_sun, part("sun", "#fff3df", 0.8), part("sky", "#dfe8f2", 0.5), part("ground", "#b9ada0", 0.25),
            float(spec.get("exposure", 1.0)), float(spec.get("softness", 0.35)),
        )  # fmt: skip

    def ambient(self, n_z: Float32[np.ndarray, " *n"]) -> Float32[np.ndarray, "*n 3"]:
        """Ambient light on surfaces with these normal z components."""
        return self.ground + (self.sky - self.ground) * (0.5 + 0.5 * n_z)[..., None]

    def facing(self, normal: Float32[np.ndarray, "*n 3"]) -> Float32[np.ndarray, " *n"]:
        """Cosine to the sun, 0 when turned away."""
        return np.maximum(normal @ self.to_sun, 0)

    def ambient_on(self, n_z: Float32[np.ndarray, "N"]) -> Float32[np.ndarray, "3 N"]:
        """`ambient`, colour by colour."""
        share = 0.5 + 0.5 * n_z
        return np.stack([g + (s - g) * share for g, s in zip(self.ground, self.sky, strict=True)])

    def facing_on(self, normal: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "N"]:
        """`facing`, of normals axis by axis."""
        out = dot(self.to_sun, normal)
        return np.maximum(out, 0, out=out)

    @property
    def mean(self) -> float:
        """Luminance on a surface halfway between facing up and facing the sun; robots are exposed against it."""
        return float((0.5 * (self.sky + self.ground) + 0.25 * (self.sky - self.ground) + 0.6 * self.sun) @ LUMA)


ROBOT_GAIN = (0.35, 2.0)
"""Bounds of the relighting gain on robot pixels: outside them edges drown in black or burn out."""


def robot_gain(
    light: Light, normals: np.ndarray, mask: np.ndarray, exposure: float = 1.0
) -> Float32[np.ndarray, "H W 3"]:
    """`robot_gain_planes` as an image."""
    return cv2.merge(list(robot_gain_planes(light, normals, mask, exposure)))


def robot_gain_planes(
    light: Light, normals: np.ndarray, mask: np.ndarray, exposure: float = 1.0
) -> Float32[np.ndarray, "3 H W"]:
    """Smooth per-pixel gain, colour by colour, that carries the world's light onto robot pixels without moving an edge.

    The gain follows the normals, low-passed over about 1.5 % of the width, within `ROBOT_GAIN`.
    """
    height, width = mask.shape
    step = max(1, width // 160)
    n = np.stack([plane.astype(np.float32) / 32767 for plane in cv2.split(normals[::step, ::step])])
    m = mask[::step, ::step].astype(np.float32)
    if m.any():
        # A robot thinner than the step would vanish from the sub-sampled mask.
        m = np.maximum(m, 1e-6)
    facing = light.facing_on(n)
    mean = np.float32(max(light.mean, 1e-3))
    raw = light.ambient_on(n[2])
    for plane, sun in zip(raw, light.sun, strict=True):
        plane += facing * sun * 0.8
        plane /= mean
    luma = dot(LUMA, raw)
    floor = np.maximum(luma, 1e-4)
    sigma = 0.015 * width / step
    weight = cv2.GaussianBlur(m, (0, 0), sigma)
    known, low = weight > 0, np.maximum(weight, 1e-6)
    out = np.empty((3, height, width), np.float32)
    for gain, plane in zip(out, raw, strict=True):
        # Colour casts at 70 %: a white arm in red light still reads as the white arm.
        cast = luma * (plane / floor) ** 0.7
        spread = cv2.GaussianBlur(cast * m, (0, 0), sigma) / low
        smooth = np.clip(np.where(known, spread, 1.0) * np.float32(exposure), *ROBOT_GAIN).astype(np.float32)
        cv2.resize(smooth, (width, height), gain, interpolation=cv2.INTER_LINEAR)
    return out


class Look:
    """How the camera sees: develops linear light into sRGB bytes, pixel by pixel (so parts can be developed alone)."""

    def __init__(self, spec: dict[str, Any], size: tuple[int, int], rng: np.random.Generator) -> None:
        width, height = size
        self.background_blur = float(spec.get("background_blur", 1.0))
        gain = linear(spec.get("white", "#ffffff"))
        self.gain = (gain / max(float(gain @ LUMA), 1e-3) * float(spec.get("exposure", 1.0))).astype(np.float32)
        self.saturation = np.float32(spec.get("saturation", 1.0))
        x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
        self.vignette = (1 - float(spec.get("vignette", 0.25)) * ((x * x + y * y) / 2) ** 1.3).astype(np.float32)
        grain = rng.standard_normal((height, width), dtype=np.float32)
        self.grain = (cv2.GaussianBlur(grain, (0, 0), 0.6) * float(spec.get("grain", 1.2))).astype(np.float32)
        self.table = _curve(float(spec.get("contrast", 1.0)), float(spec.get("lift", 0.0)))

    def resized(self, size: tuple[int, int]) -> Look:
        """The same camera at another size, for metering."""
        other = copy.copy(self)
        other.vignette = cv2.resize(self.vignette, size, interpolation=cv2.INTER_AREA)
        other.grain = np.zeros(size[::-1], np.float32)
        return other

    def expose(self, light: Float32[np.ndarray, "3 N"], brightness: float) -> None:
        """Meter a picture once: move its log-average most of the way to middle grey times `brightness`."""
        average = float(np.exp(np.mean(np.log(np.maximum(dot(LUMA, light), 1e-3)))))
        # The whole way would make snow and coal alike.
        self.gain = self.gain * np.float32(np.clip((MIDDLE_GREY * brightness / average) ** 0.6, 0.5, 2.5))

    def develop(
        self, light: Float32[np.ndarray, "3 N"], at: np.ndarray | slice = slice(None)
    ) -> UInt8[np.ndarray, "3 N"]:
        """sRGB bytes of linear light, colour by colour, at flat pixel indices."""
        out = np.empty(light.shape, np.uint8)
        vignette, grain = self.vignette.reshape(-1)[at], self.grain.reshape(-1)[at]
        for part in blocks(light.shape[1]):
            x = light[:, part] * self.gain[:, None]
            x *= vignette[part]
            if self.saturation != 1:
                luma = dot(LUMA, x)
                x -= luma
                x *= self.saturation
                x += luma
            np.clip(x, 0, 4, out=x)
            np.sqrt(x, out=x)
            x *= np.float32(2047.5)
            shown = self.table.take(x.astype(np.intp), mode="clip")
            shown += grain[part]
            np.clip(shown, 0, 255, out=shown)
            out[:, part] = shown
        return out


def _curve(contrast: float, lift: float) -> Float32[np.ndarray, "4096"]:
    """Display value 0..255 over the square root of linear light 0..4: soft shoulder, contrast, lifted blacks."""
    x = (np.arange(4096, dtype=np.float32) / 2047.5) ** 2
    knee = 0.55
    x = np.where(x < knee, x, knee + (1 - knee) * (1 - np.exp(-(x - knee) / (1 - knee))))
    y = gamma(x)
    # A smooth S around middle grey; contrast 1 leaves the curve alone.
    t = np.clip(y, 0, 1)
    s = t * t * (3 - 2 * t)
    y = y + (s - t) * (contrast - 1) * 1.5
    return ((lift + (1 - lift) * y) * 255 + 0.5).astype(np.float32)
