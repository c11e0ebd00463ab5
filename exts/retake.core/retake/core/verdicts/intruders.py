# SPDX-License-Identifier: Apache-2.0
"""Things that a take adds where robot and objects work, told from its own first frames by their hue.

Shadows and highlights change brightness, not hue. Where lamps have two colours they change hue as well: what light alone
changed is told from a thing by its surroundings, by what the same light did elsewhere and by the texture beneath.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.footage import DARK, Footage, tone_of, tone_of_level
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.scene import Scene
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth

NAME = "intruders"
_ASIDE_M = 0.12
"""How far beyond the places of robot and objects the scene of work reaches, m."""
_BELOW_M = 0.05
"""How far below the ground an object's origin still is at work, m."""
_ASKED_PX = 16.0
"""Side from which on it is asked whether light alone changed a place, px."""
_RING, _RING_PIXELS, _LIKE_RING = (1, 5), 12, 0.8
"""Pixels (of half the working size) around a place that begin and end its surroundings, how many of them are needed, and the
share of the difference in hue to them that it had before up to which a place looks like them now."""
_SAME_LIGHT = 0.12
"""Log level of a channel by which two changes of light may differ: those of one lamp's shadows on a table differ by 0.06."""
_INSIDE_PIXELS, _FINE_PX, _FINE_LEAST, _SAME_TEXTURE = 20, 2.0, 0.015, 0.5
"""Pixels of its inside that show a texture, those beyond which a change of level is none, the texture (log level) that tells, and
the correlation from which on it is the same."""
_STAYS, _LOOKS = 0.6, 4
"""Share of the looks in which a pixel of a moving camera must differ from what its place was, and looks that it needs."""
_COVERED = 0.9
"""Share of a frame's scenery that has been seen before from which on no further frame is asked."""
_BEFORE = 2
"""Looks between those that are compared, at least."""


def measure_intruders(footage: Footage, truth: Truth, settings: StabilitySettings) -> Measurement:
    """Side (root of the area) of the largest thing of another colour that stays where robot and objects work.

    A shadow or a highlight changes brightness, not hue, and a person behind the table is not on it. Under lamps of two colours
    shadows have hues of their own (`_Look`).
    """
    if not truth.static_camera:
        return Measurement(NAME, None, "the camera moves", applies=False)
    half = (truth.size[0] // 2, truth.size[1] // 2)
    work = workspace(truth, half)
    if work is None or work.sum() < settings.work_pixels:
        return Measurement(NAME, None, "this camera hardly sees where robot and objects work", applies=False)
    times = list(range(0, len(footage), settings.still_step))
    levels, free = [], []
    grow = np.ones((2 * settings.near_robot_px + 1,) * 2, np.uint8)
    for t in times:
        small = cv2.resize(footage.frames[t], half, interpolation=cv2.INTER_AREA).astype(np.float32)
        levels.append(np.log(cv2.GaussianBlur(small, (3, 3), 0) + DARK))
        taken = cv2.dilate((truth.labels[t] > 0).astype(np.uint8), grow)
        free.append(cv2.resize(taken, half, interpolation=cv2.INTER_AREA) == 0)
    known = np.zeros(free[0].shape, int)
    reference = np.zeros_like(levels[0])
    looks: dict[int, _Look] = {}
    for t, level, clear in zip(times, levels, free, strict=True):
        old = clear & (known > 0)
        if (old & work).sum() >= settings.work_pixels:
            before = reference / np.maximum(known, 1)[..., None]
            change = _most(tone_of_level(level) - tone_of_level(before))
            limit = settings.new_tone + _at(np.sort(change[old]), 0.95 * (int(old.sum()) - 1))
            looks[t] = _Look((change > limit) & old & work, level, before, old)
        # The first two views of a place are what it looks like.
        fresh = clear & (known < 2)
        reference[fresh] += level[fresh]
        known[fresh] += 1
    lights = [
        look.change(patch) for look in looks.values() for patch in _patches(look.changed, truth.px) if look.left(patch)
    ]
    series, places = np.full(len(footage), np.nan), {}
    for t, look in looks.items():
        things = look.changed.copy()
        for patch in _patches(look.changed, truth.px):
            if look.by_light(patch, lights):
                things &= ~patch
        side, places[t] = _largest(things)
        series[t] = 2 * side * truth.px
    seen = np.flatnonzero(~np.isnan(series))
    if len(seen) < 4:
        return Measurement(NAME, None, "robot or objects cover where they work", applies=False)
    lasting = np.min([series[seen[:-2]], series[seen[1:-1]], series[seen[2:]]], axis=0)
    k = int(np.argmax(lasting))
    frame = int(seen[k + 1])
    note = f"near {_recorded(places[frame], truth)}" if lasting[k] else ""
    return Measurement(NAME, float(lasting[k]), note, frame, series=series)


@dataclass(frozen=True, eq=False)
class _Look:
    """A frame beside what its places looked like at first, at half the working size."""

    changed: Bool[np.ndarray, "h w"]
    """Where the hue is another one."""
    now: Float32[np.ndarray, "h w 3"]
    """Log levels."""
    before: Float32[np.ndarray, "h w 3"]
    known: Bool[np.ndarray, "h w"]
    """Where both show scenery."""

    def change(self, patch: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "3"]:
        """Of a place's log levels."""
        return np.median((self.now - self.before)[patch], axis=0)

    def left(self, patch: Bool[np.ndarray, "h w"]) -> bool:
        """Whether a place is brighter and differs less in hue from its surroundings than it did: a coloured shadow left it."""
        near, far = (cv2.dilate(patch.astype(np.uint8), np.ones((2 * r + 1,) * 2, np.uint8)) > 0 for r in _RING)
        ring = far & ~near & self.known
        if ring.sum() < _RING_PIXELS or self.change(patch).min() <= 0:
            return False
        odd = [
            float(np.abs(np.median(tone[patch], 0) - np.median(tone[ring], 0)).max())
            for tone in (tone_of_level(self.now), tone_of_level(self.before))
        ]
        return odd[0] < _LIKE_RING * odd[1]

    def by_light(self, patch: Bool[np.ndarray, "h w"], lights: list[Float32[np.ndarray, "3"]]) -> bool:
        """Whether other light, and no other thing, changed the hue of a place: a coloured shadow has left it; or what changed
        it is what changed such a place, or undoes that; or its texture is what it was."""
        change = self.change(patch)
        same = any(np.abs(change - way * light).max() < _SAME_LIGHT for light in lights for way in (-1, 1))
        return same or self.left(patch) or self._same_texture(patch)

    def _same_texture(self, patch: Bool[np.ndarray, "h w"]) -> bool:
        # Its own outline is no texture.
        square = np.ones((3, 3), np.uint8)
        inside = cv2.erode(patch.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        if inside.sum() < _INSIDE_PIXELS:
            return False
        whole = inside.astype(np.float32)
        weight = cv2.GaussianBlur(whole, (0, 0), _FINE_PX)[inside]
        fine = []
        for level in (self.now, self.before):
            grey = level.mean(-1, dtype=np.float32)
            fine.append(grey[inside] - cv2.GaussianBlur(grey * whole, (0, 0), _FINE_PX)[inside] / weight)
        if min(float(one.std()) for one in fine) < _FINE_LEAST:
            return False
        return float(np.corrcoef(*fine)[0, 1]) >= _SAME_TEXTURE


def _patches(changed: Bool[np.ndarray, "h w"], px: float) -> Iterator[Bool[np.ndarray, "h w"]]:
    """The largest connected parts, one after the other, from a size on."""
    left = changed.copy()
    while True:
        area, patch = _patch(left)
        if 2 * np.sqrt(area) * px <= _ASKED_PX:
            return
        yield patch
        left &= ~patch


def measure_companions(footage: Footage, truth: Truth, settings: StabilitySettings, scene: Scene) -> Measurement:
    """intruders of a camera that moves: side of the largest thing that goes with it, in place of the scenery that passes.

    What earlier frames showed at a place of the scenery, its hue tells in whatever light. A thing that stays behind with the
    scenery is another matter (`object_unique`).
    """
    half = (truth.size[0] // 2, truth.size[1] // 2)
    grow = np.ones((2 * settings.near_robot_px + 1,) * 2, np.uint8)
    tones: list[Float32[np.ndarray, "h w 2"]] = []
    free: list[UInt8[np.ndarray, "h w"]] = []
    known, other = np.zeros(half[::-1], int), np.zeros(half[::-1], int)
    times = range(0, len(footage), settings.still_step)
    for k, t in enumerate(times):
        small = cv2.resize(footage.frames[t], half, interpolation=cv2.INTER_AREA).astype(np.float32)
        tones.append(tone_of(cv2.GaussianBlur(small, (3, 3), 0)))
        taken = cv2.dilate((truth.labels[t] > 0).astype(np.uint8), grow)
        free.append((cv2.resize(taken, half, interpolation=cv2.INTER_AREA) == 0).astype(np.uint8))
        change = np.full(half[::-1], np.inf, np.float32)
        for r in range(max(k - _BEFORE + 1, 0)):
            x, y, same = scene.same_place(t, times[r])
            there = cv2.remap(free[r], x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            both = same & (there & free[k] > 0)
            shown = cv2.remap(tones[r], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            np.minimum(change, _most(tones[k] - shown), out=change, where=both)
            if np.isfinite(change).sum() > _COVERED * int(free[k].sum()):
                break
        seen = np.isfinite(change)
        if seen.sum() >= settings.work_pixels:
            known += seen
            other += seen & (change > settings.new_tone)
    asked = known >= _LOOKS
    if asked.sum() < settings.work_pixels:
        return Measurement(NAME, None, "this camera sees too few places twice", applies=False)
    side, place = _largest(asked & (other > _STAYS * known))
    note = f"goes with the camera at {_recorded(place, truth)}" if side else ""
    return Measurement(NAME, 2 * side * truth.px, note)


def _most(change: np.ndarray) -> np.ndarray:
    """The larger of both changes of tone (h, w, 2); numpy's own maximum over an axis of two takes several times as long."""
    return np.maximum(np.abs(change[..., 0]), np.abs(change[..., 1]))


def _at(ordered: Float32[np.ndarray, "N"], place: float) -> float:
    """Value between two neighbours: a quantile of so few takes `numpy.quantile` mostly preparation."""
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _largest(mask: Bool[np.ndarray, "h w"]) -> tuple[float, Float64[np.ndarray, "2"]]:
    """Root of the area of the largest connected part, and its centre (x, y), index coordinates."""
    area, shown = _patch(mask)
    return (float(np.sqrt(area)), np.argwhere(shown)[:, ::-1].mean(0)) if area else (0.0, np.zeros(2))


def _patch(mask: Bool[np.ndarray, "h w"]) -> tuple[int, Bool[np.ndarray, "h w"]]:
    """Area and pixels of the largest connected part of what is two pixels wide at least."""
    square = np.ones((2, 2), np.uint8)
    core = cv2.erode(mask.astype(np.uint8), square)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(core, square))
    if count <= 1:
        return 0, np.zeros(mask.shape, bool)
    k = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    # A square of two has no middle: what was labelled lies a pixel to the lower right of what the mask shows.
    shown = cv2.dilate(core * (labels == k).astype(np.uint8), square, anchor=(0, 0))
    return int(stats[k, cv2.CC_STAT_AREA]), shown > 0


def _recorded(place: Float64[np.ndarray, "2"], truth: Truth) -> str:
    """A place at half the working size (index coordinates) as a pixel of the recording, in words."""
    x, y = (2 * place + 1) / truth.scale - 0.5
    return f"({x:.0f}, {y:.0f})"


def workspace(truth: Truth, size: tuple[int, int], aside_m: float = _ASIDE_M) -> Bool[np.ndarray, "h w"] | None:
    """Pixels of an image of `size` whose rays meet the objects' ground where robot and objects are during the take.

    aside_m: m around these places that count, too. The ground is level and as high as the lowest origin of most objects: one that
    falls off a table is not where the work is. None without objects.
    """
    objects = truth.object_parts
    if not objects:
        return None
    places = truth.T_world_part[:, objects][:, :, :3, 3]
    ground = float(np.sort(places[..., 2].min(0))[(len(objects) - 1) // 2])
    stays = places[..., 2].min(0) > ground - _BELOW_M
    reach = places[:, stays, :2].reshape(-1, 2)
    hands = truth.T_world_part[:, truth.robot_parts, :3, 3].reshape(-1, 3)
    low = hands[hands[:, 2] < ground + 0.4][:, :2]
    corners = np.concatenate([reach, low])
    lower, upper = corners.min(0) - aside_m, corners.max(0) + aside_m
    v, u = np.mgrid[0 : size[1], 0 : size[0]]
    K = np.diag([size[0] / truth.size[0], size[1] / truth.size[1], 1.0]) @ truth.K[0]
    ray = np.stack([(u + 0.5 - K[0, 2]) / K[0, 0], (v + 0.5 - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)
    T = np.linalg.inv(truth.T_camera_world[0])
    way, eye = ray @ T[:3, :3].T, T[:3, 3]
    down = way[..., 2]
    length = np.where(np.abs(down) > 1e-6, (ground - eye[2]) / np.where(np.abs(down) > 1e-6, down, 1.0), -1.0)
    place = eye[:2] + length[..., None] * way[..., :2]
    return (length > 0) & (place > lower).all(-1) & (place < upper).all(-1)
