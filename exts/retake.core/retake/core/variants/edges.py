# SPDX-License-Identifier: Apache-2.0
"""Edges: anti-aliasing where instances meet, and the measure that says whether edges were kept."""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, UInt8


def instance_border(ids: np.ndarray) -> Bool[np.ndarray, "H W"]:
    """Pixels that touch (4-neighbourhood) a pixel of another id."""
    edge = np.zeros(ids.shape, bool)
    side, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= side
    edge[:, :-1] |= side
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def soften_edges(image: UInt8[np.ndarray, "H W 3"], ids: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Smooth the image (in place) where two ids meet: a renderer's masks are hard, a photograph's are not."""
    where = np.nonzero(instance_border(ids))
    if len(where[0]):
        r0, r1, c0, c1 = where[0].min(), where[0].max() + 1, where[1].min(), where[1].max() + 1
        r0, c0 = max(0, r0 - 2), max(0, c0 - 2)
        soft = cv2.GaussianBlur(image[r0 : r1 + 2, c0 : c1 + 2], (3, 3), 0.75)
        image[where] = soft[where[0] - r0, where[1] - c0]
    return image


def canny(image: UInt8[np.ndarray, "H W 3"], low: float = 40, high: float = 100) -> Bool[np.ndarray, "H W"]:
    """Canny edges of an image's grey values after a light blur (3x3, so that grain makes no edges)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return cv2.Canny(cv2.GaussianBlur(grey, (3, 3), 0), low, high) > 0


def edge_f1(
    found: Bool[np.ndarray, "H W"],
    expected: Bool[np.ndarray, "H W"],
    within: Bool[np.ndarray, "H W"] | None = None,
    tolerance_px: int = 1,
) -> float:
    """F1 of edge pixels with a tolerance: an edge counts when the other map has one within `tolerance_px` (square).

    1.0 when both are empty inside `within`.
    """
    kernel = np.ones((2 * tolerance_px + 1, 2 * tolerance_px + 1), np.uint8)
    near_expected = cv2.dilate(expected.astype(np.uint8), kernel) > 0
    near_found = cv2.dilate(found.astype(np.uint8), kernel) > 0
    if within is not None:
        found, expected = found & within, expected & within
    if not found.any() and not expected.any():
        return 1.0
    precision = float(near_expected[found].mean()) if found.any() else 0.0
    recall = float(near_found[expected].mean()) if expected.any() else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


STRONG, WEAK = (40.0, 100.0), (16.0, 40.0)
"""Canny thresholds. An edge counts when the other picture has it at the weak ones: a light that dims it keeps it."""


def structure_f1(
    image: UInt8[np.ndarray, "H W 3"], source: UInt8[np.ndarray, "H W 3"], within: Bool[np.ndarray, "H W"]
) -> float:
    """How well the edges inside a mask are kept, 0..1, whatever the light: Canny F1, tolerance 1 px.

    The silhouette itself (3 px) is left out, for its contrast belongs to what is behind. Grey values inside are brought
    to the source's mean and spread; strong edges of each picture are looked for among the weak edges of the other.
    """
    inside = cv2.erode(within.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    if not inside.any():
        return 1.0
    expected = cv2.cvtColor(source, cv2.COLOR_RGB2GRAY).astype(np.float32)
    found = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gain = np.clip(expected[inside].std() / max(float(found[inside].std()), 1.0), 0.25, 4.0)
    found = np.clip((found - found[inside].mean()) * gain + expected[inside].mean(), 0, 255).astype(np.uint8)
    expected = expected.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)

    def share(strong: np.ndarray, weak: np.ndarray) -> float:
        edges = canny(strong, *STRONG) & inside
        return (
            float((cv2.dilate(canny(weak, *WEAK).astype(np.uint8), kernel) > 0)[edges].mean()) if edges.any() else 1.0
        )

    precision, recall = share(found, expected), share(expected, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
