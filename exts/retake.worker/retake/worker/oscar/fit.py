# SPDX-License-Identifier: Apache-2.0
"""Pictures of any size into the model's size, by a stated rule that can be undone and that moves the intrinsics along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from retake.core.codec import encode
from retake.core.errors import InputError

FITS = ("squeeze", "crop", "letterbox", "error")
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class FitRecord:
    """What was done to pictures: source window `crop` (x, y, w, h) scaled onto target window `paste` (x, y, w, h).

    Pixels; `source` and `target` are (width, height). Everything outside `paste` is black.
    """

    mode: str
    source: Size
    target: Size
    crop: tuple[int, int, int, int]
    paste: tuple[int, int, int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Target pixels per source pixel, along x and y."""
        return self.paste[2] / self.crop[2], self.paste[3] / self.crop[3]

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) of the source size -> the target size, bilinear (OpenCV INTER_LINEAR, as OSCAR does)."""
        x, y, w, h = self.crop
        left, top, width, height = self.paste
        result = np.zeros((len(frames), self.target[1], self.target[0], 3), np.uint8)
        for index, frame in enumerate(frames):
            part = frame[y : y + h, x : x + w]
            same = part.shape[:2] == (height, width)
            result[index, top : top + height, left : left + width] = part if same else _resize(part, (width, height))
        return result

    def undo(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) of the target size -> the source size; what cropping removed stays black."""
        x, y, w, h = self.crop
        left, top, width, height = self.paste
        result = np.zeros((len(frames), self.source[1], self.source[0], 3), np.uint8)
        for index, frame in enumerate(frames):
            part = frame[top : top + height, left : left + width]
            result[index, y : y + h, x : x + w] = part if part.shape[:2] == (h, w) else _resize(part, (w, h))
        return result

    def intrinsics(self, K: np.ndarray) -> np.ndarray:
        """Intrinsics (3, 3) or (T, 3, 3) in source pixels -> target pixels (pixel centres at integers + 0.5)."""
        (sx, sy), (x, y, _, _), (left, top, _, _) = self.scale, self.crop, self.paste
        shift = np.array([[sx, 0, left - sx * x], [0, sy, top - sy * y], [0, 0, 1]], np.float64)
        return shift @ np.asarray(K, np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a sidecar."""
        return encode(self)


def plan_fit(source: Size, target: Size, mode: str, what: str = "the picture") -> FitRecord:
    """How pictures of size `source` (width, height) come to size `target`. Raises InputError."""
    if mode not in FITS:
        raise InputError(f"unknown fit {mode!r}; valid: {', '.join(FITS)}")
    (w, h), (width, height) = source, target
    if min(w, h) < 1:
        raise InputError(f"{what} has no pixels ({w}x{h})")
    full = (0, 0, w, h)
    onto = (0, 0, width, height)
    if mode == "squeeze":
        return FitRecord(mode, source, target, full, onto)
    if mode == "error":
        # half a pixel of rounding is no change of aspect
        if abs(w * height - h * width) > 0.5 * max(width, height, w, h):
            raise InputError(
                f"{what} is {w}x{h} ({w / h:.4g}:1) and the model runs at {width}x{height} ({width / height:.4g}:1); "
                "fit='error' forbids changing the aspect ratio (squeeze, crop or letterbox allow it)"
            )
        return FitRecord(mode, source, target, full, onto)
    if mode == "crop":
        scale = max(width / w, height / h)
        cw, ch = min(w, max(1, round(width / scale))), min(h, max(1, round(height / scale)))
        return FitRecord(mode, source, target, ((w - cw) // 2, (h - ch) // 2, cw, ch), onto)
    scale = min(width / w, height / h)
    pw, ph = min(width, max(1, round(w * scale))), min(height, max(1, round(h * scale)))
    return FitRecord(mode, source, target, full, ((width - pw) // 2, (height - ph) // 2, pw, ph))


def _resize(frame: np.ndarray, size: Size) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_LINEAR)
