# SPDX-License-Identifier: Apache-2.0
"""What of the pixels that have an object's colours may be the object elsewhere, or a copy of it.

Not what stood there before, in the same hue and some light; not a thing much larger than the object (somebody's coat); and
not what is behind the scene of work (somebody who walks by). To a camera that moves a copy is as large as it is near: where
earlier frames showed another colour, what has the object's is measured against that size.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.footage import Footage, tone_of, tone_of_level
from retake.core.verdicts.intruders import workspace
from retake.core.verdicts.scene import Scene
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
_SAME_HUE_FROM_ELSEWHERE = 0.2
"""The same as `_SAME_HUE` for a place seen from two sides: gloss has the light's hue."""
_SHADED_HUE, _SHADED, _LOOKS = 0.2, -0.3, 8
"""The same within a patch that a deep shadow darkens, the log brightness below which it does (what a shadow leaves is the light
of other lamps), and frames that are looked at for such patches."""
_OWN, _ROBOT = np.ones((9, 9), np.uint8), np.ones((5, 5), np.uint8)
"""Half working px around the object, and around whatever else moves, in which nothing is a copy."""
_PIECE = np.ones((3, 3), np.uint8)
"""Half working px that a copy is at least wide and high."""
_ENOUGH = 0.5
"""Share of the object's area, at the copy's distance, from which on a copy is as large as it: the rest may be turned away or
cut off by the border of the picture."""
_DARK, _LITTLE = 12.0, 0.05
"""Level that is added before ratios are taken; news below which nothing is asked."""


class Copies:
    """News of one object's colours, frame by frame, in images of half working size."""

    def __init__(self, footage: Footage, truth: Truth, part: int, size: tuple[int, int]) -> None:
        self._footage, self._truth, self._size = footage, truth, size
        self._reach = scene_of_work(truth, part, size)
        self._largest = LARGEST * float(truth.area[:, part].max()) / 4
        away = (truth.T_camera_world @ truth.T_world_part[:, part])[:, 2, 3]
        self._area_at_1m = max(float((truth.area[:, part] * np.square(away)).max()), 1e-6)
        """Of its largest silhouette if it were 1 m away, working px²."""
        self._before: list[tuple[Float32[np.ndarray, "N 3"], Bool[np.ndarray, "N"]]] = []
        if truth.static_camera:
            mine = cv2.dilate((truth.labels[0] == part + 1).astype(np.uint8), np.ones((5, 5), np.uint8))
            scenery = np.clip(footage.scenery, 0, 255).astype(np.uint8)
            self._before = [
                (self._colours(footage.frames[0]), self._small(mine).ravel() == 0),
                (self._colours(scenery), self._small(footage.known).ravel() == 1),
            ]
        self._shade: list[Float32[np.ndarray, "3"]] | None = None

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
            hue = _hue_of(change)
            seen |= known[asked] & (hue < _SAME_HUE) & (lit > _SAME_LIGHT[0]) & (lit < _SAME_LIGHT[1])
            left = np.flatnonzero(known[asked] & ~seen)
            for shade in self._shades() if len(left) else []:
                # In its soft rim a shadow takes a part of it.
                part = np.clip(change[left] @ shade / (shade @ shade), 0, 1)
                seen[left] |= np.abs(change[left] - part[:, None] * shade).max(1) < _SAME_HUE
        out.ravel()[asked[seen]] = 0
        return out

    def _shades(self) -> list[Float32[np.ndarray, "3"]]:
        """What deep shadows do to the log levels of scenery: the changes of patches of one hue that got darker and are larger
        than anything that is a copy, in some frames."""
        if self._shade is not None:
            return self._shade
        self._shade = []
        for t in range(0, len(self._footage.frames), max(1, len(self._footage.frames) // _LOOKS)):
            taken = cv2.dilate((self._truth.labels[t] > 0).astype(np.uint8), _OWN)
            free = self._small(taken).ravel() == 0
            now = np.log(self._colours(self._footage.frames[t]))
            for colours, known in self._before:
                change = now - np.log(colours)
                dark = known & free & (_hue_of(change) < _SHADED_HUE) & (change.mean(1) < _SHADED)
                _, pieces, stats, _ = cv2.connectedComponentsWithStats(dark.reshape(self._size[::-1]).astype(np.uint8))
                large = np.flatnonzero(np.asarray(stats)[:, cv2.CC_STAT_AREA] > self._largest)
                self._shade += [np.median(change[pieces.ravel() == k], axis=0) for k in large if k]
        return self._shade

    def on_the_way(
        self,
        t: int,
        news: Float32[np.ndarray, "h w"],
        mask: Float32[np.ndarray, "h w"],
        others: Float32[np.ndarray, "h w"],
        scene: Scene,
    ) -> tuple[float, Float64[np.ndarray, "2"]]:
        """How much of the news of a moving camera's frame t is a copy, 0..1, and where, half working px. mask, others: the object
        and all else that is no scenery, 0..1."""
        depth = scene.depth(t)
        beside = (cv2.dilate(mask, _OWN) == 0) & (cv2.dilate(others, _ROBOT) == 0)
        pieces = cv2.morphologyEx(((news > 0.5) & beside).astype(np.uint8), cv2.MORPH_OPEN, _PIECE)
        count, numbers, stats, centres = cv2.connectedComponentsWithStats(pieces)
        strength, where = 0.0, np.zeros(2)
        for k in range(1, count):
            piece = np.asarray(numbers == k)
            far = depth[piece & (depth > 0)]
            if not len(far):
                continue
            share = 4 * float(stats[k, cv2.CC_STAT_AREA]) * float(np.median(far)) ** 2 / self._area_at_1m
            found = float(news[piece].mean()) * min(share / _ENOUGH, 1.0) if share < LARGEST else 0.0
            if found > strength:
                strength, where = found, centres[k]
        return strength, where

    def as_before(self, t: int, earlier: list[int], scene: Scene) -> Bool[np.ndarray, "h w"]:
        """Where a moving camera's frame t shows what one of some earlier frames showed there, in the same hue and any light."""
        out = np.zeros(self._size[::-1], bool)
        now = self._hues(t)
        for r in earlier:
            x, y, same = scene.same_place(t, r)
            then = cv2.remap(self._hues(r), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            out |= same & (np.abs(now - then).max(-1) < _SAME_HUE_FROM_ELSEWHERE)
        return cv2.dilate(out.astype(np.uint8), _PIECE) > 0

    def _hues(self, t: int) -> Float32[np.ndarray, "h w 2"]:
        """Log colour ratios of a frame."""
        return np.ascontiguousarray(tone_of(self._half(self._footage.frames[t])))

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
        return self._half(frame).reshape(-1, 3) + _DARK

    def _half(self, frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "h w 3"]:
        """A frame at half working size, without its grain."""
        return cv2.GaussianBlur(cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA), (3, 3), 0).astype(
            np.float32
        )

    def _small(self, mask: np.ndarray) -> Float32[np.ndarray, "h w"]:
        return cv2.resize(mask.astype(np.float32), self._size, interpolation=cv2.INTER_AREA)


def _hue_of(change: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N"]:
    """By how much log levels change their ratios."""
    return np.abs(tone_of_level(change)).max(-1)


def scene_of_work(truth: Truth, part: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where in a picture of `size` a copy of an object may be: on the ground within the robot's reach, and near all places
    of the object. Everywhere for a moving camera, and where no ground is known."""
    ground = workspace(truth, size, GROUND_M) if truth.static_camera else None
    if ground is None:
        return np.ones((size[1], size[0]), bool)
    places = (truth.labels == part + 1).any(0).astype(np.uint8)
    near = cv2.resize(cv2.dilate(places, np.ones((2 * BESIDE + 1,) * 2, np.uint8)), size)
    return ground | (near > 0)
