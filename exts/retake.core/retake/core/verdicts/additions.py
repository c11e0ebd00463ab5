# SPDX-License-Identifier: Apache-2.0
"""What a take adds that was not simulated: things that appear where the robot works, textures that run on its links.

Both are told from the take's own first frames. Only geometry of the simulation is read: poses, masks and K.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.verdicts.footage import Footage, tone_of
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.scene import Scene
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth

NAMES = ("intruders", "link_texture")
_ASIDE_M = 0.12
"""How far beyond the places of robot and objects the scene of work reaches, m."""
_BELOW_M = 0.05
"""How far below the ground an object's origin still is at work, m."""
_DARK = 12.0
"""Grey value that is added before ratios are taken: noise in the dark is no colour."""
_NEARBY = 13
"""Working px across which the mean is taken that is no structure."""
_VIEWS = 13
"""Frames of a take that are looked at, at most."""
_VIEW = 0.35
"""rad by which a link may turn between views that are compared where depth tells the place of every point: its shading changes
with it, and what it hides. Without depth it is `texture_turn`."""
_POINTS = 150
"""Points of a link that are carried to another frame, at most."""
_WARP = 2
"""Working px by which a link may be warped as a whole (4 px of 640)."""
_STAYS, _LOOKS = 0.6, 4
"""Share of the looks in which a pixel of a moving camera must differ from what its place was, and looks that it needs."""
_COVERED = 0.9
"""Share of a frame's scenery that has been seen before from which on no further frame is asked."""
_BEFORE = 2
"""Looks between those that are compared, at least."""
_LASTING = 3
"""Views in a row in which a surface must differ."""
_OWN = 0.5
"""Share of a link's own structure that may differ: points are carried to a fraction of a pixel, and edges wander with light."""


def measure_additions(
    footage: Footage, truth: Truth, settings: StabilitySettings, episode: Episode | None = None, camera: str = "",
    scene: Scene | None = None,
) -> list[Measurement]:  # fmt: skip
    """intruders (side of the largest thing that appears, px) and link_texture (change of surface, log units). scene: of a camera
    that moves."""
    added = _intruders(footage, truth, settings) if scene is None else _companions(footage, truth, settings, scene)
    return [added, _texture(footage, truth, settings, episode, camera)]


def _intruders(footage: Footage, truth: Truth, settings: StabilitySettings) -> Measurement:
    """Side (root of the area) of the largest thing of another colour that stays where robot and objects work.

    A shadow or a highlight changes brightness, not hue, and a person behind the table is not on it.
    """
    name = NAMES[0]
    if not truth.static_camera:
        return Measurement(name, None, "the camera moves", applies=False)
    half = (truth.size[0] // 2, truth.size[1] // 2)
    work = workspace(truth, half)
    if work is None or work.sum() < settings.work_pixels:
        return Measurement(name, None, "this camera hardly sees where robot and objects work", applies=False)
    times = list(range(0, len(footage), settings.still_step))
    tones, free = [], []
    grow = np.ones((2 * settings.near_robot_px + 1,) * 2, np.uint8)
    for t in times:
        small = cv2.resize(footage.frames[t], half, interpolation=cv2.INTER_AREA).astype(np.float32)
        tones.append(tone_of(cv2.GaussianBlur(small, (3, 3), 0)))
        taken = cv2.dilate((truth.labels[t] > 0).astype(np.uint8), grow)
        free.append(cv2.resize(taken, half, interpolation=cv2.INTER_AREA) == 0)
    known = np.zeros(free[0].shape, int)
    reference = np.zeros_like(tones[0])
    series, places = np.full(len(footage), np.nan), {}
    for t, tone, clear in zip(times, tones, free, strict=True):
        old = clear & (known > 0)
        if (old & work).sum() >= settings.work_pixels:
            change = _most(tone - reference / np.maximum(known, 1)[..., None])
            limit = settings.new_tone + _at(np.sort(change[old]), 0.95 * (int(old.sum()) - 1))
            side, places[t] = _largest((change > limit) & old & work)
            series[t] = 2 * side * truth.px
        # The first two views of a place are what it looks like.
        fresh = clear & (known < 2)
        reference[fresh] += tone[fresh]
        known[fresh] += 1
    seen = np.flatnonzero(~np.isnan(series))
    if len(seen) < 4:
        return Measurement(name, None, "robot or objects cover where they work", applies=False)
    lasting = np.min([series[seen[:-2]], series[seen[1:-1]], series[seen[2:]]], axis=0)
    k = int(np.argmax(lasting))
    frame = int(seen[k + 1])
    note = f"near {_recorded(places[frame], truth)}" if lasting[k] else ""
    return Measurement(name, float(lasting[k]), note, frame, series=series)


def _companions(footage: Footage, truth: Truth, settings: StabilitySettings, scene: Scene) -> Measurement:
    """intruders of a camera that moves: side of the largest thing that goes with it, in place of the scenery that passes.

    What earlier frames showed at a place of the scenery, its hue tells in whatever light. A thing that stays behind with the
    scenery is another matter (`object_unique`).
    """
    name = NAMES[0]
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
        return Measurement(name, None, "this camera sees too few places twice", applies=False)
    side, place = _largest(asked & (other > _STAYS * known))
    note = f"goes with the camera at {_recorded(place, truth)}" if side else ""
    return Measurement(name, 2 * side * truth.px, note)


def _most(change: np.ndarray) -> np.ndarray:
    """The larger of both changes of tone (h, w, 2); numpy's own maximum over an axis of two takes several times as long."""
    return np.maximum(np.abs(change[..., 0]), np.abs(change[..., 1]))


def _largest(mask: Bool[np.ndarray, "h w"]) -> tuple[float, Float64[np.ndarray, "2"]]:
    """Root of the area of the largest connected part, and its centre (x, y), index coordinates."""
    square = np.ones((2, 2), np.uint8)
    core = cv2.erode(mask.astype(np.uint8), square)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(core, square))
    if count <= 1:
        return 0.0, np.zeros(2)
    k = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    # A square of two has no middle: what was labelled lies a pixel to the lower right of what the mask shows.
    shown = cv2.dilate(core * (labels == k).astype(np.uint8), square, anchor=(0, 0))
    return float(np.sqrt(stats[k, cv2.CC_STAT_AREA])), np.argwhere(shown)[:, ::-1].mean(0)


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


@dataclass(frozen=True, eq=False)
class _Surface:
    """One link in one frame."""

    corner: tuple[int, int]
    """Column and row of the upper left pixel of `structure`, working px."""
    structure: Float32[np.ndarray, "h w"]
    inner: UInt8[np.ndarray, "h w"]
    """1 well inside the link."""
    T_camera_link: Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, eq=False)
class _Pattern:
    """What a frame shows of a link, to be found again."""

    surface: _Surface
    points: Float64[np.ndarray, "N 3"]
    """m, link frame."""
    shown: Float32[np.ndarray, "N"]
    """Structure there, log units."""


def _texture(
    footage: Footage, truth: Truth, settings: StabilitySettings, episode: Episode | None, camera: str
) -> Measurement:
    """By how much most points of a link differ from its first views, log units, beyond a share of the link's own
    structure; worst link, three views in a row.

    Without an episode that recorded depth a link is taken to be as far away as its origin, and compared only where it hardly
    turned.
    """
    name = NAMES[1]
    seen = _Surfaces(footage, truth, settings, episode, camera)
    worst, where, frame = None, "", None
    series = np.full(len(footage), np.nan)
    for part in truth.robot_parts:
        told = seen.differences(part)
        if len(told) < _LASTING:
            continue
        times, values = list(told), np.array(list(told.values()))
        for t, value in told.items():
            series[t] = np.nanmax([series[t], value])
        lasting = np.min([values[k : len(values) - _LASTING + 1 + k] for k in range(_LASTING)], axis=0)
        k = int(np.argmax(lasting))
        if worst is None or lasting[k] > worst:
            worst, where, frame = float(lasting[k]), truth.parts[part].name, times[k + 1]
    if worst is None:
        return Measurement(name, None, "no link shows enough of its surface", applies=False)
    return Measurement(name, worst, where, frame, series=series)


class _Surfaces:
    """The links' surfaces in a take's views, made once."""

    def __init__(
        self, footage: Footage, truth: Truth, settings: StabilitySettings, episode: Episode | None, camera: str
    ) -> None:
        self.truth, self.settings = truth, settings
        known = episode is not None and "depth" in episode.header.camera(camera).channels
        self.episode, self.camera = (episode if known else None), camera
        self.turn = settings.texture_turn if self.episode is None else _VIEW
        step = max(settings.texture_frames, len(footage) // _VIEWS)
        self.logs = {t: _log(footage.frames[t]) for t in range(0, len(footage), step)}
        self.depths: dict[int, Float32[np.ndarray, "H W"]] = {}

    def differences(self, part: int) -> dict[int, float]:
        """Frame -> how much the link differs from the earliest view of nearly the same side."""
        views: dict[int, _Surface] = {}
        patterns: dict[int, _Pattern | None] = {}
        out = {}
        for t in self.logs:
            now = self._surface(part, t)
            if now is None:
                continue
            for r, then in views.items():
                if _angle(then.T_camera_link, now.T_camera_link) > self.turn:
                    continue
                if r not in patterns:
                    patterns[r] = self._pattern(part, r, then)
                found = self._difference(patterns[r], t, now)
                if found is not None:
                    out[t] = found
                    break
            views[t] = now
        return out

    def _surface(self, part: int, t: int) -> _Surface | None:
        """None where the link shows too little of itself."""
        truth = self.truth
        if truth.area[t, part] < self.settings.texture_area:
            return None
        whole = cv2.inRange(truth.labels[t], part + 1, part + 1) & 1  # type: ignore[call-overload]
        x, y, width, height = cv2.boundingRect(whole)
        box = np.s_[y : y + height, x : x + width]
        mask = np.ascontiguousarray(whole[box])
        inner = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        if int(inner.sum()) < self.settings.texture_points:
            return None
        weight = mask.astype(np.float32)
        size, border = (_NEARBY, _NEARBY), cv2.BORDER_CONSTANT
        total = cv2.blur(self.logs[t][box] * weight, size, borderType=border)
        mean = total / np.maximum(cv2.blur(weight, size, borderType=border), 1e-6)
        structure = (self.logs[t][box] - mean) * weight
        return _Surface((x, y), structure, inner, truth.T_camera_world[t] @ truth.T_world_part[t, part])

    def _pattern(self, part: int, t: int, surface: _Surface) -> _Pattern | None:
        """None where the recorded depth does not show enough of it."""
        truth, (x, y) = self.truth, surface.corner
        rows, columns = np.nonzero(surface.inner)
        pick = np.linspace(0, len(rows) - 1, min(len(rows), _POINTS)).astype(int)
        rows, columns = rows[pick], columns[pick]
        T, K = surface.T_camera_link, truth.K[t]
        if self.episode is None:
            z = np.full(len(rows), T[2, 3])
        else:
            if t not in self.depths:
                recorded = np.asarray(self.episode.image(self.camera, "depth", truth.start + t), np.float32)
                self.depths[t] = cv2.resize(recorded, truth.size, interpolation=cv2.INTER_NEAREST)
            z = self.depths[t][rows + y, columns + x].astype(np.float64)
        good = np.isfinite(z) & (z > 0.02)
        rows, columns, z = rows[good], columns[good], z[good]
        if len(rows) < self.settings.texture_points:
            return None
        uv = truth.ideal(t, np.stack([columns + x, rows + y], 1).astype(np.float64)) + 0.5
        p = np.stack([(uv[:, 0] - K[0, 2]) / K[0, 0] * z, (uv[:, 1] - K[1, 2]) / K[1, 1] * z, z], 1)
        return _Pattern(surface, (p - T[:3, 3]) @ T[:3, :3], surface.structure[rows, columns])

    def _difference(self, pattern: _Pattern | None, t: int, now: _Surface) -> float | None:
        """Median difference of the pattern's points in another view, at the shift of the whole link that fits best."""
        if pattern is None:
            return None
        truth, T = self.truth, now.T_camera_link
        q = pattern.points @ T[:3, :3].T + T[:3, 3]
        uvw = q @ truth.K[t].T
        place = truth.seen(t, uvw[:, :2] / np.maximum(uvw[:, 2:], 1e-6) - 0.5) - now.corner
        place = place.astype(np.float32)
        shows = cv2.remap(
            now.inner, place[None, :, 0], place[None, :, 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )[0] > 0  # fmt: skip
        if shows.sum() < self.settings.texture_points:
            return None
        at, known = place[shows], pattern.shown[shows]
        x, y = (np.ascontiguousarray(at[None, :, k] + _SHIFTS[:, None, k]) for k in (0, 1))
        there = cv2.remap(now.structure, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        apart = float(np.median(np.abs(there - known), axis=1).min())
        return max(apart - _OWN * float(np.median(np.abs(known))), 0.0)


_SHIFTS = np.stack(np.meshgrid(*(np.arange(-_WARP, _WARP + 1),) * 2), -1).reshape(-1, 2).astype(np.float32)


def _log(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
    return np.log(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) + _DARK)


def _angle(a: Float64[np.ndarray, "4 4"], b: Float64[np.ndarray, "4 4"]) -> float:
    """Angle between two poses, rad."""
    return float(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))


def _at(ordered: Float32[np.ndarray, "N"], place: float) -> float:
    """Value between two neighbours: a quantile of so few takes `numpy.quantile` mostly preparation."""
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
