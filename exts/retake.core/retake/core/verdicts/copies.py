# SPDX-License-Identifier: Apache-2.0
"""What of the pixels that have an object's colours may be the object elsewhere, or a copy of it.

Not what stood there before, in the same hue and some light; not a thing much larger than the object (somebody's coat); and
not what is behind the scene of work (somebody who walks by). From a camera that moves only the size is known.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.verdicts.additions import workspace
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.truth import Truth

BESIDE = 12
"""Working px beside an object's places up to which it, or a copy, may be."""
GROUND_M = 0.4
"""How far beyond the places of robot and objects a copy may stand on their ground, m: what is farther is the room behind."""
LARGEST = 3.0
"""How much larger than the object's largest silhouette something may be and still be a copy of it."""
_SAME_HUE, _SAME_LIGHT = 0.12, (-0.5, 0.25)
"""Log colour ratios within which, and log brightness between which, a place looks as it did: shading, a soft shadow and a
drifting hue are no news."""
_DARK, _LITTLE = 12.0, 0.05
"""Level that is added before ratios are taken; news below which nothing is asked."""


class Copies:
    """News of one object's colours, frame by frame, in images of half working size."""

    def __init__(self, footage: Footage, truth: Truth, part: int, size: tuple[int, int]) -> None:
        self._footage, self._truth, self._size = footage, truth, size
        self._reach = scene_of_work(truth, part, size)
        self._largest = LARGEST * float(truth.area[:, part].max()) / 4
        self._before: list[tuple[Float32[np.ndarray, "N 3"], Bool[np.ndarray, "N"]]] = []
        if truth.static_camera:
            mine = cv2.dilate((truth.labels[0] == part + 1).astype(np.uint8), np.ones((5, 5), np.uint8))
            scenery = np.clip(footage.scenery, 0, 255).astype(np.uint8)
            self._before = [
                (self._colours(footage.frames[0]), self._small(mine).ravel() == 0),
                (self._colours(scenery), self._small(footage.known).ravel() == 1),
            ]

    def among(
        self, t: int, news: Float32[np.ndarray, "h w"], mask: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """The news of frame t that may be the object or a copy. mask: the object in its place, 0..1."""
        out = np.where(self._reach, self._of_its_size(news, mask), 0).astype(np.float32)
        asked = np.flatnonzero(out > _LITTLE)
        if not self._before or not len(asked):
            return out
        now = np.log(self._colours(self._footage.frames[t])[asked])
        seen = np.zeros(len(asked), bool)
        for colours, known in self._before:
            change = now - np.log(colours[asked])
            lit = change.mean(1)
            hue = np.abs(change[:, [0, 2]] - change[:, 1:2]).max(1)
            seen |= known[asked] & (hue < _SAME_HUE) & (lit > _SAME_LIGHT[0]) & (lit < _SAME_LIGHT[1])
        out.ravel()[asked[seen]] = 0
        return out

    def _of_its_size(
        self, news: Float32[np.ndarray, "h w"], mask: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """Without larger pieces, but for one that touches the object's place."""
        count, numbers, stats, _ = cv2.connectedComponentsWithStats((news > 0.5).astype(np.uint8))
        pieces = np.asarray(numbers, np.int64)
        large: np.ndarray = np.asarray(stats, np.int64)[:, cv2.CC_STAT_AREA] > self._largest
        large[0] = False
        if count <= 1 or not large.any():
            return news
        large[np.unique(pieces[cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0])] = False
        return np.where(cv2.dilate(large[pieces].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, 0, news)

    def _colours(self, frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "N 3"]:
        """RGB of all pixels of a frame at half working size, plus what makes ratios of dark ones mean something."""
        small = cv2.GaussianBlur(cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA), (3, 3), 0)
        return small.reshape(-1, 3).astype(np.float32) + _DARK

    def _small(self, mask: np.ndarray) -> Float32[np.ndarray, "h w"]:
        return cv2.resize(mask.astype(np.float32), self._size, interpolation=cv2.INTER_AREA)


def scene_of_work(truth: Truth, part: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where in a picture of `size` a copy of an object may be: on the ground within the robot's reach, and near all places
    of the object. Everywhere for a moving camera, and where no ground is known."""
    ground = workspace(truth, size, GROUND_M) if truth.static_camera else None
    if ground is None:
        return np.ones((size[1], size[0]), bool)
    places = (truth.labels == part + 1).any(0).astype(np.uint8)
    near = cv2.resize(cv2.dilate(places, np.ones((2 * BESIDE + 1,) * 2, np.uint8)), size)
    return ground | (near > 0)
