# SPDX-License-Identifier: Apache-2.0
"""Does what simulation keeps still (bystanders, trays, tables, floors) keep its colour? Place by place, each thing is compared
with what the take itself has shown of it first.

What lights do is no fault: a shadow changes brightness alone, a highlight mixes in white, and what the surroundings of a thing
do as well (a white balance that drifts, a coloured lamp) is no news of the thing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from statistics import median_low

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8, UInt16
from retake.core.episode import Episode
from retake.core.episode.parts import rigid_parts
from retake.core.verdicts.colours import BRIGHTER, HIGHLIGHTS
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.scene import Scene, at_working_size
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth, working_robots

NAME = "still_colour"
_AROUND = 12
"""Working px around a thing that count as its surroundings."""
_EDGE = 2
"""Working px inside its outline that say nothing: warps, and colour that video stores at half resolution."""
_NEAR = 3
"""Working px around what moves that say nothing."""
_PIXELS = 30
"""That must show, of a thing and of its surroundings."""
_SMALL = 600
"""Pixels of a thing that is too small to lose more than the rim of its outline."""
_THINGS = 40
"""Things that are asked, the largest of them: a warehouse has hundreds."""
_DARK = 48.0
"""Sum of RGB below which hue is noise."""
_WHITE = 250.0
"""Level of two channels from which on light has bleached a pixel: it has no hue, and another in a shadow."""
_ENOUGH = 500
"""Pixels of a thing, evenly spread, that are looked at."""
_REACH_M, _GRID_M, _COARSE = 0.4, 0.1, 4
"""Before a camera that moves: metres around links and objects within which things are asked, to this precision; every so many
pixels of the half-size picture."""
_MOST_OF_IT = 0.5
"""Share of what is asked of a thing that an earlier look must show,"""
_PLENTY = 1500
"""or pixels of it, of what is large."""
_SIGHTINGS = 3
"""Earlier looks of a camera that moves that a thing is compared with."""

Compared = tuple[int, int, Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]
"""A thing, a frame, what an earlier look shows of the places of that frame, and where one of the two shows nothing of them."""


def measure_still_colours(
    footage: Footage, truth: Truth, settings: StabilitySettings, episode: Episode, camera: str, scene: Scene | None
) -> Measurement:
    """still_colour: largest change of hue (L1) that lasts for two looks, of anything that the simulation keeps still. scene: of a
    camera that moves."""
    if not truth.static_camera and scene is None:
        return Measurement(NAME, None, "the camera moves, and no depth tells where things are", applies=False)
    looks = _Looks(footage, truth, settings, episode, camera)
    said: dict[tuple[int, int], list[float]] = {}
    for thing, t, before, hidden in looks.from_one_place() if scene is None else looks.on_the_way(scene):
        value = change_of_colour(footage.frames[t], before, looks.shown[t] == thing, hidden)
        if value is not None:
            said.setdefault((thing, t), []).append(value)
    found: dict[int, dict[int, float]] = {}
    for (thing, t), values in said.items():
        found.setdefault(thing, {})[t] = median_low(values)
    series, worst, where, frame = np.full(len(footage), np.nan), 0.0, "", None
    for thing, values in found.items():
        for a, b in itertools.pairwise(values):
            value = min(values[a], values[b])
            series[a] = max(value, np.nan_to_num(series[a]))
            if value > worst:
                worst, where, frame = value, looks.names[thing], a
    if np.isnan(series).all():
        why = "nothing that stands still shows enough of itself twice"
        return Measurement(NAME, None, why, applies=False, absent=not looks.names)
    return Measurement(NAME, worst, where, frame, series=series)


def things_that_stand(truth: Truth, episode: Episode) -> dict[int, str]:
    """Instance id -> name of everything but what moves: scenery, trays, bystanders, shut cabinets. The base of a robot that moves
    is `robot_identity`'s."""
    _, table, _ = rigid_parts(episode)
    still = [truth.is_still(k) for k in range(len(truth.parts))]
    working = working_robots(truth)
    out = {}
    for one in episode.header.instances:
        part, (kind, _, name) = int(table[one.id]) - 1, one.owner.partition(":")
        if (still[part] if part >= 0 else kind != "robot") and (kind != "robot" or name not in working):
            out[one.id] = name or one.prim_path.rsplit("/", 1)[-1]
    return out


class _Looks:
    """Frames in which things are looked at."""

    def __init__(
        self, footage: Footage, truth: Truth, settings: StabilitySettings, episode: Episode, camera: str
    ) -> None:
        self.footage, self.truth = footage, truth
        self.names = things_that_stand(truth, episode)
        self.times = list(range(0, len(footage), settings.still_step))
        self.standing = frozenset(k for k in range(len(truth.parts)) if truth.is_still(k))
        moving = np.zeros(256, np.uint8)
        moving[1 : len(truth.parts) + 1] = [k not in self.standing for k in range(len(truth.parts))]
        grow = np.ones((2 * _NEAR + 1,) * 2, np.uint8)
        self.shown: dict[int, UInt16[np.ndarray, "H W"]] = {}
        """Frame -> instance ids."""
        self.hidden: dict[int, UInt8[np.ndarray, "H W"]] = {}
        """Frame -> 1 where something that moves is, grown."""
        self.areas: dict[int, UInt16[np.ndarray, "N"]] = {}
        for t in self.times:
            ids = episode.image(camera, "instances", truth.start + t)
            self.shown[t] = cv2.resize(ids, truth.size, interpolation=cv2.INTER_NEAREST)
            self.hidden[t] = cv2.dilate(cv2.LUT(truth.labels[t], moving), grow)
            self.areas[t] = np.bincount(self.shown[t].ravel(), minlength=max(self.names, default=0) + 1)
        size = {k: max(self.areas[t][k] for t in self.times) for k in self.names}
        self.things = sorted((k for k in size if size[k] >= _PIXELS), key=lambda k: -size[k])[:_THINGS]

    def from_one_place(self) -> Iterator[Compared]:
        """Of a camera that stands: each place as the first look shows it that shows it at all."""
        first = np.mean(self.footage.frames[:3], axis=0).astype(np.float32)
        known = self.hidden[0] == 0
        for t in self.times[1:]:
            free = self.hidden[t] == 0
            for thing in self.things:
                yield thing, t, first, ~(free & known)
            first[free & ~known] = self.footage.frames[t][free & ~known]
            known |= free

    def on_the_way(self, scene: Scene) -> Iterator[Compared]:
        """Of a camera that moves: each thing beside those of its first looks that show most of what is asked of it; most of them
        must say so. A rim alone is where depth and a painter's own shapes differ."""
        for t in self.times:
            asked = self._within_reach(scene, t) & (self.hidden[t] == 0)
            pictures: dict[int, tuple[np.ndarray, np.ndarray]] = {}
            for thing in self.things:
                if self.areas[t][thing] < _PIXELS:
                    continue
                mine = (self.shown[t] == thing) & asked
                if not mine.any():
                    continue
                earlier = [r for r in self.times[: self.times.index(t)] if self.areas[r][thing] >= _PIXELS]
                for r in earlier[:_SIGHTINGS]:
                    if r not in pictures:
                        pictures[r] = self._as_seen(scene, r, t)
                    before, known = pictures[r]
                    if (mine & known).sum() >= min(_MOST_OF_IT * mine.sum(), _PLENTY):
                        yield thing, t, before, ~(asked & known)

    def _as_seen(self, scene: Scene, r: int, t: int) -> tuple[Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
        """What frame r shows of the places that frame t shows, and where it shows them."""
        X, Y, known = at_working_size(scene.same_place(t, r, self.standing), self.truth.size)
        before = cv2.remap(self.footage.frames[r], X, Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return before.astype(np.float32), known

    def _within_reach(self, scene: Scene, t: int) -> Bool[np.ndarray, "H W"]:
        """Pixels of frame t that show places near robot and objects. Farther away a take's own walls and
        shelves may stand before what the simulation shows, and a camera that moves sees other ones of them there."""
        looks = self.times[:: max(1, len(self.times) // 5)]
        every = self.truth.T_world_part[looks, :, :3, 3].reshape(-1, 3)
        places = np.unique((every / _GRID_M).round(), axis=0) * _GRID_M
        T = self.truth.T_camera_world[t]
        shown, there = scene.points(t)[:, ::_COARSE, ::_COARSE], places @ T[:3, :3].T + T[:3, 3]
        x, y, z = (np.square(shown[axis][..., None] - there[:, axis]) for axis in range(3))
        away = np.sqrt((x + y + z).min(-1))
        return cv2.resize((away < _REACH_M).astype(np.uint8), self.truth.size, interpolation=cv2.INTER_NEAREST) > 0


def change_of_colour(
    now: UInt8[np.ndarray, "H W 3"], before: Float32[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"],
    hidden: Bool[np.ndarray, "H W"],
) -> float | None:  # fmt: skip
    """L1 distance of a thing's hue (RGB by their sum, less a third) from what an earlier picture shows in the same places.

    mask: of the thing. hidden: places that one of the two pictures does not show. None where too little of it shows.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    y0, x0 = max(rows[0] - _AROUND, 0), max(columns[0] - _AROUND, 0)
    box = np.s_[y0 : rows[-1] + _AROUND + 1, x0 : columns[-1] + _AROUND + 1]
    now, before, whole, free = now[box], before[box], mask[box].astype(np.uint8), ~hidden[box]
    cross = np.ones((3, 3), np.uint8)
    rim = _EDGE if whole.sum() > _SMALL else 1
    inside = cv2.erode(whole, cross, iterations=rim, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    use = _some(inside & free)
    now, before = now.reshape(-1, 3), before.reshape(-1, 3)
    told = (np.median(now[use], axis=1) < _WHITE) & (np.median(before[use], axis=1) < _WHITE)
    if told.sum() < _PIXELS:
        return None
    use = use[told]
    shown, known = now[use].astype(np.float32), before[use]
    moved = _moved(shown, known)
    near, far = cv2.dilate(whole, cross, iterations=_EDGE) > 0, cv2.dilate(whole, cross, iterations=_AROUND) > 0
    around = _some(far & ~near & free)
    if len(around) >= _PIXELS:
        turned = np.median(_hues(now[around].astype(np.float32)) - _hues(before[around]), axis=0)
        moved = min(moved, _moved(shown, known, turned))
    return moved


def _some(places: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Flat indices of at most _ENOUGH places, evenly spread."""
    every = np.flatnonzero(places)
    return every[np.linspace(0, len(every) - 1, min(len(every), _ENOUGH)).astype(int)]


def _moved(
    shown: Float32[np.ndarray, "N 3"],
    known: Float32[np.ndarray, "N 3"],
    turned: Float32[np.ndarray, "3"] | float = 0.0,
) -> float:
    """Median change of hue beyond what the surroundings do (turned), or less where a highlight explains it."""
    hue, first = _hues(shown) - turned, _hues(known)
    shares = [0.0]
    if np.median(shown.sum(1)) > BRIGHTER * np.median(known.sum(1)):
        shares += HIGHLIGHTS
    return min(float(np.abs(np.median(hue - (1 - share) * first, axis=0)).sum()) for share in shares)


def _hues(rgb: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    """What brightness and shadows leave of a colour: zero for greys."""
    total = rgb.sum(1, keepdims=True)
    return (rgb - total / 3) / np.maximum(total, _DARK)
