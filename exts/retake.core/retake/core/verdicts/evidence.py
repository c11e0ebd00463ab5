# SPDX-License-Identifier: Apache-2.0
"""Whether pixels show links where the simulation has nothing: what speaks for a displaced link, and what only looks so.

A dark link before a dark body leaves no edge where it is, and its contour, moved, fits the edges of its neighbours, of its
own parts or of a seam in its housing. All of these lie where the simulation has the robot, so they are no evidence that a
link is elsewhere; edges where it has only scenery are. A displaced link that stays before its own robot gives none: it is
not told, which is neither wrong nor right.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, Int
from retake.core.verdicts.alignment import Alignment
from retake.core.verdicts.footage import Footage, edges, scenery_tensor
from retake.core.verdicts.truth import Truth

KNOWN_PX = 1
"""Working px around robots and objects within which an edge is theirs."""
LEAST_SHARE = 0.2
"""Share of the moved contour that must lie on scenery for its edges to say anything: links planted 8 px aside have 0.24 to
0.4 there, contours of a faithful humanoid that fit its own body at most 0.26."""
MARGIN = 0.12
"""By how much the mean response there must exceed that in the right place: planted links reach 0.19 to 0.4."""
REMEMBERED = 8
"""Frames whose edges are kept: those of one window."""


class SceneryEvidence:
    """Edges on scenery under moved contours. Frames are looked at only when one is asked about."""

    def __init__(self, footage: Footage, truth: Truth, alignment: Alignment) -> None:
        self._footage, self._truth, self._alignment = footage, truth, alignment
        self._still: Float32[np.ndarray, "3 H W"] | None = None
        self._fields: dict[int, tuple[Float32[np.ndarray, "B H W"], Bool[np.ndarray, "H W"]]] = {}

    def speaks(self, window: slice, parts: list[int], shift: tuple[float, float], here: float) -> bool:
        """Whether scenery shows the parts moved by a shift (working px) clearly better than `here`, their response in place."""
        seen = self.response(window, parts, shift)
        return seen is not None and seen - here > MARGIN

    def response(self, window: slice, parts: list[int], shift: tuple[float, float]) -> float | None:
        """Mean edge response (0..1) on scenery along the parts' contours moved by a shift (working px); None where too
        little of them lies on scenery to tell."""
        height, width = self._truth.labels.shape[1:]
        total, count, points = 0.0, 0, 0
        for t in range(len(self._truth))[window]:
            if t % self._alignment.step:
                continue
            contour = self._truth.contours[t]
            mine = np.isin(contour.part, parts)
            if not mine.any():
                continue
            field, free = self._frame(t)
            girth = self._alignment.girth[contour.part[mine]]
            place = contour.xy[mine] + girth[:, None] * contour.normal[mine] + np.array(shift)
            column, row = _inside(place[:, 0], width), _inside(place[:, 1], height)
            seen = free[row, column]
            total += float(field[contour.bin[mine].astype(int), row, column][seen].sum())
            count += int(seen.sum())
            points += len(seen)
        return total / count if points and count >= LEAST_SHARE * points else None

    def _frame(self, t: int) -> tuple[Float32[np.ndarray, "B H W"], Bool[np.ndarray, "H W"]]:
        """Edge responses of a frame, and where the simulation has only scenery."""
        if self._still is None:
            self._still = scenery_tensor(self._footage)
        if t not in self._fields:
            if len(self._fields) >= REMEMBERED:
                self._fields.pop(next(iter(self._fields)))
            size = 2 * KNOWN_PX + 1
            known = cv2.dilate((self._truth.labels[t] > 0).astype(np.uint8), np.ones((size, size), np.uint8))
            self._fields[t] = edges(self._footage, t, self._still), known == 0
        return self._fields[t]


def _inside(place: Float64[np.ndarray, "N"], size: int) -> Int[np.ndarray, "N"]:
    return np.clip(np.round(place).astype(np.int64), 0, size - 1)
