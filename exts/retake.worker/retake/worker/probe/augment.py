# SPDX-License-Identifier: Apache-2.0
"""Cheap baselines against which takes are measured: colour jitter with random crops, random textures on the background."""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, UInt8

AUGMENTATIONS = ("none", "jitter", "textures")
SHIFT = 0.06
"""Largest shift of a random crop, share of the width."""


def jittered(images: UInt8[np.ndarray, "B H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "B H W 3"]:
    """Each picture with its own gain per channel, contrast, saturation, brightness and shift (edges repeated)."""
    out = np.empty_like(images)
    height, width = images.shape[1:3]
    for k, image in enumerate(images):
        value = image.astype(np.float32)
        grey = value.mean(-1, keepdims=True)
        value = grey + (value - grey) * rng.uniform(0.5, 1.5)
        value = (value - 128) * rng.uniform(0.6, 1.4) + 128
        value = value * rng.uniform(0.5, 1.5) * rng.uniform(0.8, 1.2, 3).astype(np.float32) + rng.uniform(-15, 15)
        dx, dy = (rng.uniform(-SHIFT, SHIFT, 2) * width).round()
        M = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(value, M, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        out[k] = np.clip(moved, 0, 255).astype(np.uint8)
    return out


def textured(
    images: UInt8[np.ndarray, "B H W 3"], background: Bool[np.ndarray, "B H W"], rng: np.random.Generator
) -> UInt8[np.ndarray, "B H W 3"]:
    """Every second picture, on average, with a random texture in place of its background."""
    out = images.copy()
    height, width = images.shape[1:3]
    for k in np.flatnonzero(rng.random(len(images)) < 0.5):
        cells = int(rng.integers(2, 17))
        coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        way = cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_CUBIC
        texture = np.clip(cv2.resize(coarse, (width, height), interpolation=way), 0, 255).astype(np.uint8)
        out[k] = np.where(background[k][..., None], texture, images[k])
    return out


def augment(
    images: UInt8[np.ndarray, "B H W 3"],
    background: Bool[np.ndarray, "B H W"] | None,
    kind: str,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "B H W 3"]:
    """A batch as the training sees it."""
    if kind == "jitter":
        return jittered(images, rng)
    if kind == "textures":
        assert background is not None
        return textured(images, background, rng)
    return images
