# SPDX-License-Identifier: Apache-2.0
"""Colours in which cameras are compared: linear light of bytes, CIE Lab of linear light, lightness."""

from __future__ import annotations

import numpy as np

from retake.core.array_types import Bool, Float32, UInt8

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_BYTES = np.arange(256) / 255
LINEAR = np.where(np.arange(256) <= 10, _BYTES / 12.92, ((_BYTES + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""Linear light of each sRGB byte."""
DARK, BRIGHT = 12, 244
"""Bytes beyond which a pixel has lost its colour."""


def graded(linear: Float32[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Pixels that are neither black nor clipped."""
    # numpy's own maximum over an axis of three takes five times as long.
    brightest = np.maximum(np.maximum(linear[..., 0], linear[..., 1]), linear[..., 2])
    return (brightest < LINEAR[BRIGHT]) & (brightest > LINEAR[DARK])


def lightness(linear: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """CIE L* of linear light."""
    return np.asarray(116 * np.cbrt(np.clip(linear @ LUMA, 0.0088, 4.0)) - 16, np.float32)


def lab(linear: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    """CIE Lab (D65) of linear RGB."""
    M = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = np.maximum(linear @ (M / M.sum(1, keepdims=True)).T.astype(np.float32), 0)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1).astype(np.float32)


def lab_of_bytes(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
    """CIE Lab (D65) of sRGB bytes."""
    return lab(LINEAR[frame].reshape(-1, 3)).reshape(frame.shape)
