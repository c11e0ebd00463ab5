# SPDX-License-Identifier: Apache-2.0
"""Foliage of a set: a plant is a cluster of leafy ellipsoids within the box that its furniture entry names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retake.core.array_types import Float32

Span = tuple[Float32[np.ndarray, "3"], Float32[np.ndarray, "3"]]


def cluster(
    low: Float32[np.ndarray, "3"], high: Float32[np.ndarray, "3"], rng: np.random.Generator, count: int = 9
) -> list[Span]:
    """Boxes (low, high), each holding one ellipsoid, that together fill a box unevenly, as leaves do. World frame, m."""
    center, half = (low + high) / 2, (high - low) / 2
    out = [(center - half * 0.8, center + half * 0.8)]
    for k in range(count):
        turn, height = 2.39996 * k + rng.uniform(-0.4, 0.4), rng.uniform(-0.5, 0.62)
        radius = half * rng.uniform(0.36, 0.52)
        reach = np.sqrt(max(1 - height**2, 0.05))
        at = center + (half - radius) * np.array([np.cos(turn) * reach, np.sin(turn) * reach, height])
        out.append((at - radius, at + radius))
    return [(np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in out]


def enter_ellipsoid(low: np.ndarray, high: np.ndarray, eye: Any, d: Sequence[Any]) -> Float32[np.ndarray, "N"]:
    """Parameter at which rays eye + t·d enter the ellipsoid that fills a box; infinite where they miss it.

    `eye` and `d` are three numbers or three arrays (N,).
    """
    half = (high - low) / 2
    o = [(eye[k] - (low[k] + high[k]) / 2) / half[k] for k in range(3)]
    v = [d[k] / half[k] for k in range(3)]
    a = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
    b = o[0] * v[0] + o[1] * v[1] + o[2] * v[2]
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1
    inside = b * b - a * c
    t = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return np.where(inside > 0, t, np.inf).astype(np.float32)


def surface_of(
    low: np.ndarray, high: np.ndarray, p: Float32[np.ndarray, "N 3"]
) -> tuple[Float32[np.ndarray, "N 3"], Float32[np.ndarray, "N"], Float32[np.ndarray, "N"]]:
    """Unit normals of points on the ellipsoid, and surface coordinates in metres (around, down)."""
    center, half = (low + high) / 2, (high - low) / 2
    n = (p - center) / half**2
    n = (n / np.maximum(np.sqrt((n**2).sum(-1, keepdims=True)), 1e-9)).astype(np.float32)
    # Unrolled about the vertical; the seam does not show in leaves.
    around = np.arctan2(p[:, 1] - center[1], p[:, 0] - center[0]) * float(half[:2].mean())
    return n, around.astype(np.float32), (high[2] - p[:, 2]).astype(np.float32)
