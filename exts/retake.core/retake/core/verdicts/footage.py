# SPDX-License-Identifier: Apache-2.0
"""The take's pixels as the estimators use them: small frames, their structure tensors, and the still scenery behind.

Everything here is invariant to a constant gain and offset of brightness: gradients are divided by the clip's own
contrast before they are compared with anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.verdicts.truth import BINS, Truth

_ANGLES = np.arange(BINS) * np.pi / BINS
_COS2 = (np.cos(_ANGLES) ** 2).astype(np.float32)
_SIN2 = (np.sin(_ANGLES) ** 2).astype(np.float32)
_SINCOS = (2 * np.sin(_ANGLES) * np.cos(_ANGLES)).astype(np.float32)
_ALONG = np.stack([_COS2, _SIN2, _SINCOS], 1)


Window = tuple[slice, slice]
"""Rows and columns of a picture."""
_MARGIN = 8
"""Working px beyond a window that its edges depend on, and some."""


@dataclass(frozen=True, eq=False)
class Footage:
    """A take at working size."""

    frames: UInt8[np.ndarray, "T H W 3"]
    """RGB, working size, resized by area."""
    scenery: Float32[np.ndarray, "H W 3"]
    """Mean of each pixel over the frames in which the simulator says it shows scenery (static camera)."""
    known: Bool[np.ndarray, "H W"]
    """Where at least three such frames exist; all False for a moving camera."""
    contrast: float
    """Typical strength of the clip's edges (squared gradient), the unit of `edges`."""

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)


def shrink(frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """A frame at working size."""
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def make_footage(frames: UInt8[np.ndarray, "T H W 3"], truth: Truth) -> Footage:
    """Footage of working-size frames. The scenery model needs a static camera."""
    scenery, known = still_scenery(frames, truth.labels, range(0, len(frames), 3) if truth.static_camera else ())
    sample = [float(_trace(tensor(frames[t])).mean()) for t in range(0, len(frames), max(1, len(frames) // 6))]
    return Footage(frames, scenery, known, max(float(np.median(sample)), 1e-3))


def still_scenery(
    frames: UInt8[np.ndarray, "T H W 3"], labels: UInt8[np.ndarray, "T H W"], asked: Iterable[int]
) -> tuple[Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """Mean RGB of each pixel over those of the `asked` frames in which nothing that moves is near it, and where there
    are three of them at least."""
    height, width = frames.shape[1:3]
    total = np.zeros((height, width, 3), np.float32)
    count = np.zeros((height, width), np.float32)
    grow = np.ones((9, 9), np.uint8)
    for t in asked:
        mask = (cv2.dilate((labels[t] > 0).astype(np.uint8), grow) == 0).astype(np.uint8)
        cv2.accumulate(frames[t], total, mask=mask)
        count += mask
    return total / np.maximum(count, 1)[..., None], count >= 3


_FIRST = 0.2
"""Share of a take whose frames say what a place looked like before anything was added to it."""
_OTHER_HUE = 0.07
"""Log colour ratio from which on a place took another colour for good."""
DARK = 12.0
"""Grey value that is added before ratios are taken: noise in the dark is no colour."""


def first_scenery(footage: Footage, truth: Truth) -> tuple[Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """The scenery (RGB) of a camera that stands still, with what the first frames showed where it has another hue since; and
    where that is: nowhere before a camera that moves. A thing that appears early is in most frames: their mean would know it
    as scenery."""
    if not truth.static_camera:
        return footage.scenery, np.zeros_like(footage.known)
    total, count = np.zeros_like(footage.scenery), np.zeros(footage.known.shape, np.float32)
    grow = np.ones((9, 9), np.uint8)
    for t in range(0, max(int(_FIRST * len(footage)), 3), 2):
        mask = (cv2.dilate((truth.labels[t] > 0).astype(np.uint8), grow) == 0).astype(np.uint8)
        cv2.accumulate(footage.frames[t], total, mask=mask)
        count += mask
    early = total / np.maximum(count, 1)[..., None]
    hues = [tone_of(cv2.GaussianBlur(image, (5, 5), 0)) for image in (early, footage.scenery)]
    other = (count >= 2) & footage.known & (np.abs(hues[0] - hues[1]).max(-1) > _OTHER_HUE)
    return np.where(other[..., None], early, footage.scenery), other


def tone_of(image: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
    """Two log ratios of the channels of an RGB image (0..255): the same in light and shade."""
    return tone_of_level(np.log(image + DARK))


def tone_of_level(level: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
    """`tone_of`, by the logarithms of an image (with DARK added)."""
    return level[..., ::2] - level[..., 1:2]


def tensor(frame: UInt8[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "3 H W"]:
    """Structure tensor (Jxx, Jyy, Jxy) summed over the colour channels: edges between equal greys count too."""
    soft = cv2.GaussianBlur(frame, (0, 0), 0.8)
    # Differences of bytes are whole numbers: half as wide, and exact.
    kind = cv2.CV_16S if soft.dtype == np.uint8 else cv2.CV_32F
    gx, gy = cv2.Sobel(soft, kind, 1, 0, ksize=3), cv2.Sobel(soft, kind, 0, 1, ksize=3)
    out = np.empty((3, *soft.shape[:2]), np.float32)
    for k, (a, b) in enumerate(((gx, gx), (gy, gy), (gx, gy))):
        out[k] = cv2.transform(cv2.multiply(a, b, scale=1 / 64, dtype=cv2.CV_32F), np.ones((1, 3), np.float32))
    return out


def _trace(J: Float32[np.ndarray, "3 H W"]) -> Float32[np.ndarray, "H W"]:
    return J[0] + J[1]


def edges(
    footage: Footage, t: int, scenery_tensor: Float32[np.ndarray, "3 H W"], window: Window | None = None
) -> Float32[np.ndarray, "B h w"]:
    """Edge response 0..1 per direction bin: squared gradient along the bin, less the scenery's own, saturated.

    Saturation at the clip's contrast keeps one bright edge from outvoting a faint contour. window: the part of the picture
    that is wanted; what is computed is the same.
    """
    rows, columns = window or (slice(0, footage.frames.shape[1]), slice(0, footage.frames.shape[2]))
    top, left = max(rows.start - _MARGIN, 0), max(columns.start - _MARGIN, 0)
    frame = footage.frames[t][top : rows.stop + _MARGIN, left : columns.stop + _MARGIN]
    inner = np.s_[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return responses(tensor(frame)[inner] - scenery_tensor[:, rows, columns], footage.contrast)


def responses(J: Float32[np.ndarray, "3 H W"], contrast: float) -> Float32[np.ndarray, "B H W"]:
    """Edge response 0..1 per direction bin of a structure tensor; 0.5 where the squared gradient equals `contrast`."""
    out = _ALONG @ J.reshape(3, -1)
    # x / (x + c) = 1 - c / (x + c), in place; bin by bin, for all of them do not fit into a processor's cache.
    for one in out:
        np.maximum(one, 0, out=one)
        one += contrast
        np.divide(contrast, one, out=one)
        np.subtract(1, one, out=one)
    return out.reshape(BINS, *J.shape[1:])


def scenery_tensor(footage: Footage) -> Float32[np.ndarray, "3 H W"]:
    """Structure tensor of the still scenery, 0 where it is not known.

    Grown by a 3x3 maximum: a scenery edge displaced by a fraction of a pixel must not survive the subtraction.
    """
    J = tensor(footage.scenery)
    J[:, ~footage.known] = 0
    return J
