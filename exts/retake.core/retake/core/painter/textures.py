# SPDX-License-Identifier: Apache-2.0
"""Tileable noise and texture lookup: the raw material of procedural surfaces.

Colours are linear RGB float32 in 0..1 unless a name says sRGB. Everything is a function of its numpy Generator, so the
same seed gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from retake.core.array_types import Float32
from retake.core.painter.planes import channels_of

Colour = tuple[float, float, float]


def linear(srgb: np.ndarray | tuple[float, ...] | str) -> Float32[np.ndarray, "*n 3"]:
    """Linear RGB of sRGB values in 0..1, or of a '#rrggbb' string (IEC 61966-2-1)."""
    if isinstance(srgb, str):
        text = srgb.lstrip("#")
        srgb = tuple(int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))
    c = np.asarray(srgb, np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((np.maximum(c, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def gamma(lin: Float32[np.ndarray, " *n"]) -> Float32[np.ndarray, " *n"]:
    """sRGB values in 0..1 of linear ones."""
    c = np.maximum(np.asarray(lin, np.float32), 0)
    return np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055).astype(np.float32)


LINEAR_OF_BYTE = linear(np.arange(256) / 255.0)
"""Linear value of each sRGB byte, float32 (256,)."""


def noise(size: int, rng: np.random.Generator, cells: tuple[int, int], octaves: int = 4) -> Float32[np.ndarray, "N N"]:
    """Tileable smooth noise with zero mean and unit deviation; `cells` = (across, down) lumps of the first octave."""
    total, amplitude = np.zeros((size, size), np.float32), 1.0
    across, down = cells
    for _ in range(octaves):
        across, down = min(across, size), min(down, size)
        grid = rng.standard_normal((down, across), dtype=np.float32)
        # Broad lumps are drawn on a coarse grid and enlarged: a quarter of the resolution holds all of them.
        coarse = size // 4 if max(across, down) <= size // 16 else size
        x = (np.arange(coarse, dtype=np.float32) + 0.5) * (across / coarse) + 1.5
        y = (np.arange(coarse, dtype=np.float32) + 0.5) * (down / coarse) + 1.5
        layer = cv2.remap(np.pad(grid, 2, mode="wrap"), *np.meshgrid(x, y), cv2.INTER_CUBIC)
        if coarse < size:
            wide = cv2.resize(np.pad(layer, 2, mode="wrap"), None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
            layer = wide[8:-8, 8:-8]
        total += np.float32(amplitude) * layer
        amplitude, across, down = amplitude * 0.5, across * 2, down * 2
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def mix(a: np.ndarray | Colour, b: np.ndarray | Colour, t: np.ndarray) -> Float32[np.ndarray, "N N 3"]:
    """Between colours a and b (or images of colours) by t in 0..1 (H, W), clipped."""
    t = np.clip(t, 0, 1)[..., None]
    return (np.asarray(a, np.float32) * (1 - t) + np.asarray(b, np.float32) * t).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Texture:
    """An image laid over a plane, with its mip pyramid."""

    levels: tuple[Float32[np.ndarray, "H W 3"], ...]
    """Linear RGB, each half the size of the one before."""
    size_m: tuple[float, float]
    """(width, height) that the whole image covers, m."""
    repeat: bool = True

    @staticmethod
    def of(image: np.ndarray, size_m: tuple[float, float], repeat: bool = True) -> Texture:
        """With its pyramid. `image` is linear float32, or sRGB uint8."""
        if image.dtype == np.uint8:
            image = LINEAR_OF_BYTE[image]
        levels = [np.ascontiguousarray(image, np.float32)]
        while min(levels[-1].shape[:2]) > 8:
            h, w = levels[-1].shape[:2]
            smaller = cv2.resize(levels[-1], (max(w // 2, 1), max(h // 2, 1)), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(smaller, np.float32))
        return Texture(tuple(levels), size_m, repeat)

    def sample(
        self, u_m: Float32[np.ndarray, "N"], v_m: Float32[np.ndarray, "N"], footprint_m: Float32[np.ndarray, "N"]
    ) -> Float32[np.ndarray, "N 3"]:
        """Linear colours (N, 3) at surface coordinates u, v (m), averaged over a footprint (m): no aliasing far away."""
        return np.ascontiguousarray(self.planes(u_m, v_m, footprint_m).T)

    def planes(
        self, u_m: Float32[np.ndarray, "N"], v_m: Float32[np.ndarray, "N"], footprint_m: Float32[np.ndarray, "N"]
    ) -> Float32[np.ndarray, "3 N"]:
        """`sample`, colour by colour."""
        height, width = self.levels[0].shape[:2]
        u, v = u_m * (width / self.size_m[0]), v_m * (height / self.size_m[1])
        if self.repeat:
            u, v = wrapped(u, width), wrapped(v, height)
        texel = max(self.size_m[0] / width, self.size_m[1] / height)
        level = np.clip(np.log2(np.maximum(footprint_m / texel, 1e-6)), 0, len(self.levels) - 1).astype(np.float32)
        low = level.astype(np.int32)
        first, last = int(low.min(initial=99)), int(low.max(initial=-1))
        if first == last:
            return self._between(first, level, u, v)
        out = np.empty((3, len(u)), np.float32)
        for k in range(first, last + 1):
            on = np.flatnonzero(low == k)
            if len(on):
                for plane, found in zip(out, self._between(k, level[on], u[on], v[on]), strict=True):
                    plane[on] = found
        return out

    def _between(self, k: int, level: np.ndarray, u: np.ndarray, v: np.ndarray) -> Float32[np.ndarray, "3 N"]:
        """Colours between level k of the pyramid and the next one."""
        near = self._lookup(k, u, v)
        share = level - k
        if k + 1 < len(self.levels) and share.any():  # near the camera all of it is the finest level
            for plane, far in zip(near, self._lookup(k + 1, u, v), strict=True):
                far -= plane
                far *= share
                plane += far
        return near

    def _lookup(self, k: int, u: np.ndarray, v: np.ndarray) -> Float32[np.ndarray, "3 N"]:
        image = self._fours.get(k)
        if image is None:
            image = self._fours.setdefault(k, cv2.cvtColor(self.levels[k], cv2.COLOR_RGB2RGBA))
        sy, sx = image.shape[0] / self.levels[0].shape[0], image.shape[1] / self.levels[0].shape[1]
        border = cv2.BORDER_WRAP if self.repeat else cv2.BORDER_REPLICATE
        return looked_up(image, u * sx - 0.5, v * sy - 0.5, border, 3)

    @cached_property
    def _fours(self) -> dict[int, np.ndarray]:
        """Levels that were looked up, in four channels: cv2.remap takes a third of the time for them."""
        return {}


def wrapped(x: Float32[np.ndarray, "N"], period: int) -> Float32[np.ndarray, "N"]:
    """x modulo a whole period."""
    if period & (period - 1):
        return np.mod(x, period)
    # Of a power of two quotient and product are exact, so this is the remainder to the bit, six times as fast.
    return x - np.floor(x * np.float32(1 / period)) * np.float32(period)


def lookup(image: np.ndarray, x: np.ndarray, y: np.ndarray, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Bilinear values of an image at index coordinates x, y (N,): (N,), or (N, channels)."""
    out = _remapped(image, x, y, border)
    return out.reshape(-1, image.shape[2])[: len(x)] if image.ndim == 3 else out.reshape(-1)[: len(x)]


def looked_up(
    image: Float32[np.ndarray, "h w C"], x: np.ndarray, y: np.ndarray, border: int, count: int
) -> Float32[np.ndarray, "count N"]:
    """`lookup` of the first `count` channels, channel by channel."""
    return channels_of(_remapped(image, x, y, border), 0, count).reshape(count, -1)[:, : len(x)]


def _remapped(image: np.ndarray, x: np.ndarray, y: np.ndarray, border: int) -> np.ndarray:
    """cv2.remap wants 2-D maps below 32767 a side: rows of 1024, the last one filled up."""
    count, width = len(x), 1024
    rows = max(1, -(-count // width))
    if count == rows * width:
        grid = (np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.float32))
    else:
        grid = np.zeros((2, rows * width), np.float32)
        grid[0, :count], grid[1, :count] = x, y
    return cv2.remap(
        image, grid[0].reshape(rows, width), grid[1].reshape(rows, width), cv2.INTER_LINEAR, borderMode=border
    )
