# SPDX-License-Identifier: Apache-2.0
"""Pictures of patterns for the simulator's renderer. One picture covers a square metre and repeats without a seam.

Not the painter's: what tests a policy trained on takes must not come from what drew the takes.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.loop.looks import Pattern

SIDE = 512
"""px per metre."""


def rgb(colour: str) -> tuple[int, int, int]:
    """sRGB bytes of '#rrggbb'."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def picture(pattern: Pattern) -> UInt8[np.ndarray, "H W 3"]:
    """(512, 512, 3) sRGB of a pattern; the number of tiles is rounded so that it repeats every metre."""
    palette = np.array([rgb(c) for c in pattern.colours], np.float32)
    rng = np.random.default_rng([pattern.seed, SIDE])
    tiles = max(2, 2 * round(0.5 / pattern.tile_m))
    at = (np.arange(SIDE) + 0.5) / SIDE * tiles
    u, v = np.meshgrid(at, at)
    if pattern.kind == "noise":
        field = _noise(rng, tiles)
        position = np.clip(field, 0, 1) * (len(palette) - 1)
        low = np.minimum(position.astype(int), len(palette) - 2)
        share = (position - low)[..., None]
        image = palette[low] * (1 - share) + palette[low + 1] * share
    else:
        columns, rows = u.astype(int), v.astype(int)
        which = {"checker": columns + rows, "stripes": columns, "planks": columns}[pattern.kind]
        image = palette[which % len(palette)]
        if pattern.kind == "planks":
            # Each plank has its own tone, grain along it, and dark joints.
            tone = rng.uniform(0.8, 1.1, tiles).astype(np.float32)[columns]
            grain = cv2.resize(rng.normal(0, 1, (8, SIDE)).astype(np.float32), (SIDE, SIDE))
            joint = np.where(np.abs(u - np.round(u)) < 0.04, 0.6, 1.0)
            image = image * (tone * (1 + 0.06 * grain) * joint)[..., None]
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, tiles: int) -> np.ndarray:
    """(512, 512) about 0..1, periodic: values at tiles and at twice as fine ones, smoothly between."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave, weight in ((1, 0.65), (2, 0.35)):
        count = tiles * octave
        grid = rng.uniform(0, 1, (count, count)).astype(np.float32)
        padded = np.pad(grid, 3, mode="wrap")
        scale = SIDE / count
        large = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        start = round(3 * scale)
        total += weight * large[start : start + SIDE, start : start + SIDE]
    return (total - 0.5) * 1.6 + 0.5
