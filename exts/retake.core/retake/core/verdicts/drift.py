# SPDX-License-Identifier: Apache-2.0
"""Does the scenery drift, or does something slide over it? A motion fitted to flow, and how far the pixels went along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float64, UInt8

CELL = 16
"""Side of the cells that vote on drift, half working px."""


@dataclass(frozen=True)
class Fit:
    """A zoom + rotation + translation of the scenery."""

    solution: Float64[np.ndarray, "4"]
    width: float


def motion_of(fit: Fit, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Motion (2, …) of places, half working px."""
    dx, dy, zoom, turn = fit.solution
    x, y = x / fit.width - 0.5, y / fit.width - 0.5
    return np.stack([dx + zoom * x - turn * y, dy + zoom * y + turn * x])


def fitted_to(place: Float64[np.ndarray, "N 2"], moved: Float64[np.ndarray, "N 2"]) -> Fit:
    """The one that fits the cells robustly."""
    width = float(place[:, 0].max()) + CELL
    x, y = (place[:, 0] / width - 0.5), (place[:, 1] / width - 0.5)
    zero, one = np.zeros_like(x), np.ones_like(x)
    A = np.concatenate([np.stack([one, zero, x, -y], 1), np.stack([zero, one, y, x], 1)])
    b = np.concatenate([moved[:, 0], moved[:, 1]])
    weight = np.ones(len(b))
    solution = np.zeros(4)
    for _ in range(6):
        solution = np.linalg.lstsq(A * weight[:, None], b * weight, rcond=None)[0]
        residual = np.abs(A @ solution - b)
        weight = 1 / np.sqrt(1 + (residual / (0.15 + np.median(residual))) ** 2)
    return Fit(solution, width)


def explained(
    first: UInt8[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], fit: Fit
) -> float:
    """How far the pixels themselves went along with a motion: 1 all the way, 0 they stayed.

    They are compared with the first frame's where they were and where the motion takes these; what lies over the
    scenery and differs anew in every frame differs from both alike. Strong edges, which are the scenery's, count most.
    """
    v, u = np.mgrid[0 : first.shape[0], 0 : first.shape[1]].astype(np.float32)
    moved = motion_of(fit, u, v).astype(np.float32)
    before, now = first.astype(np.float32), image.astype(np.float32)
    taken = cv2.remap(before, u - moved[0], v - moved[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    stayed, went, way = (np.square(a - b)[mask].sum() for a, b in ((now, before), (now, taken), (before, taken)))
    return float(np.clip(0.5 + (stayed - went) / (2 * max(float(way), 1e-6)), 0, 1))
