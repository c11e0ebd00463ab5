# SPDX-License-Identifier: Apache-2.0
"""Canvas: the size a model works at, and the way there and back.

Models want sides that are multiples of 16 or 32 and a certain number of pixels; the camera has its own size. The
picture is scaled (one factor per axis, which differ by less than a pixel's worth), then padded at the right and the
bottom where no exact size is near. `restore` undoes both, so the result has the camera's size and pixel grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.errors import VariantError

SHRINK = 0.8
"""An exact size down to this share of the wanted width goes before padding."""
ENLARGE = 2.0
"""Captures are enlarged at most so much: a model gains nothing from more, and time grows with the square."""


@dataclass(frozen=True)
class Canvas:
    """Sizes are (width, height)."""

    capture: tuple[int, int]
    inner: tuple[int, int]
    """The picture's size on the canvas."""
    size: tuple[int, int]
    """The model's size: `inner`, padded."""

    @staticmethod
    def fit(capture: tuple[int, int], pixels: int, multiple: int) -> Canvas:
        """The largest canvas of about `pixels` pixels whose sides are multiples. Raises VariantError for no size."""
        width, height = capture
        if min(width, height) < 8:
            raise VariantError(f"a camera of {width}x{height} is too small for an image model")
        scale = min(math.sqrt(pixels / (width * height)), ENLARGE)
        widest = int(width * scale) // multiple * multiple
        for w in range(widest, max(multiple, int(SHRINK * width * scale)) - 1, -multiple):
            h = round(w * height / width / multiple) * multiple
            if h > 0 and abs(w * height / width - h) < 0.5:
                return Canvas(capture, (w, h), (w, h))
        inner = (max(multiple, round(width * scale)), max(multiple, round(height * scale)))
        padded = tuple(-(-side // multiple) * multiple for side in inner)
        return Canvas(capture, inner, (padded[0], padded[1]))

    @staticmethod
    def stretched(capture: tuple[int, int], size: tuple[int, int]) -> Canvas:
        """Exactly the model's own size, for pipelines that resize to it anyway: then both grids are the same."""
        return Canvas(capture, size, size)

    @property
    def squeeze(self) -> tuple[float, float]:
        """Scale of x and y from capture to canvas; K and pixel positions follow it."""
        return self.inner[0] / self.capture[0], self.inner[1] / self.capture[1]

    def place(self, image: np.ndarray, *, hard: bool = False) -> np.ndarray:
        """An image (H, W) or (H, W, C) on the canvas. `hard` keeps values (ids, edges, masks), else they are blended."""
        if image.shape[1::-1] != self.capture:
            raise VariantError(
                f"a map of {image.shape[1]}x{image.shape[0]} meets a camera of {self.capture[0]}x{self.capture[1]}"
            )
        smaller = self.inner[0] * self.inner[1] < self.capture[0] * self.capture[1]
        kind = cv2.INTER_NEAREST if hard else cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        flag = image.dtype == bool
        scaled = cv2.resize(image.astype(np.uint8) if flag else image, self.inner, interpolation=kind)
        right, bottom = self.size[0] - self.inner[0], self.size[1] - self.inner[1]
        if right or bottom:
            scaled = cv2.copyMakeBorder(scaled, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return scaled.astype(bool) if flag else scaled

    def restore(self, image: np.ndarray) -> np.ndarray:
        """A picture of the model back at the camera's size. Raises VariantError for another size than the canvas."""
        if image.shape[1::-1] != self.size:
            raise VariantError(
                f"the model returned {image.shape[1]}x{image.shape[0]}; asked for {self.size[0]}x{self.size[1]}"
            )
        inner = image[: self.inner[1], : self.inner[0]]
        if self.inner == self.capture:
            return np.ascontiguousarray(inner)
        smaller = self.inner[0] * self.inner[1] > self.capture[0] * self.capture[1]
        return cv2.resize(inner, self.capture, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)

    def to_json(self) -> dict[str, list[float]]:
        """For the sidecar."""
        return {
            "capture": list(self.capture), "inner": list(self.inner), "size": list(self.size),
            "squeeze": [round(s, 6) for s in self.squeeze],
        }  # fmt: skip
