# SPDX-License-Identifier: Apache-2.0
"""The squeeze from capture size to the video model's size, and back.

A skeleton is drawn at capture size and then stretched to the model's 640x480 without letterbox, as in training; a
16:9 capture is thereby squeezed. Coordinates here are image-index ones: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.errors import SkeletonError
from retake.core.skeleton.inputs import check_size

MODEL_SIZE = (640, 480)
"""(width, height) that OSCAR-2B was trained on."""


@dataclass(frozen=True)
class Squeeze:
    """How a frame of `capture_size` becomes one of `model_size`; both (width, height), px."""

    capture_size: tuple[int, int]
    model_size: tuple[int, int] = MODEL_SIZE

    def __post_init__(self) -> None:
        object.__setattr__(self, "capture_size", check_size(self.capture_size))
        object.__setattr__(self, "model_size", check_size(self.model_size))

    @property
    def sx(self) -> float:
        """Model px per capture px, horizontally."""
        return self.model_size[0] / self.capture_size[0]

    @property
    def sy(self) -> float:
        """Model px per capture px, vertically."""
        return self.model_size[1] / self.capture_size[1]

    @property
    def identity(self) -> bool:
        """Whether nothing changes."""
        return self.capture_size == self.model_size

    def to_model(self, uv: Float64[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """Capture coordinates (…, 2) in the squeezed frame: u' = (u + 0.5) sx - 0.5 (OpenCV's pixel-centre rule)."""
        return (np.asarray(uv, np.float64) + 0.5) * [self.sx, self.sy] - 0.5

    def to_capture(self, uv: Float64[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """The inverse of `to_model`."""
        return (np.asarray(uv, np.float64) + 0.5) / [self.sx, self.sy] - 0.5

    def squeeze(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A capture frame at model size (INTER_LINEAR, as the training data); the frame itself when nothing changes."""
        return self._resize(frame, self.capture_size, self.model_size)

    def unsqueeze(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """A model-size frame back at capture size and aspect (detail lost in the squeeze does not return)."""
        return self._resize(frame, self.model_size, self.capture_size)

    def to_json(self) -> dict[str, Any]:
        """JSON form, scales included for readers that do not know this class."""
        return {
            "capture_size": list(self.capture_size),
            "model_size": list(self.model_size),
            "sx": self.sx,
            "sy": self.sy,
            "interpolation": "INTER_LINEAR",
        }

    def _resize(
        self, frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], target: tuple[int, int]
    ) -> UInt8[np.ndarray, "h w 3"]:
        if frame.shape != (size[1], size[0], 3) or frame.dtype != np.uint8:
            raise SkeletonError(f"frame is {frame.shape} {frame.dtype}; expected {(size[1], size[0], 3)} uint8 RGB")
        return frame if size == target else cv2.resize(frame, target, interpolation=cv2.INTER_LINEAR)
