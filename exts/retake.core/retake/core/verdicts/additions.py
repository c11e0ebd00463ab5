# SPDX-License-Identifier: Apache-2.0
"""What a take adds that was not simulated: things that appear where the robot works, textures that run on its links.

Both are told from the take's own first frames. Only geometry of the simulation is read: poses, masks and K.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.verdicts.footage import DARK, Footage
from retake.core.verdicts.intruders import measure_companions, measure_intruders
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.scene import Scene
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth

NAME = "link_texture"
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
    if scene is None:
        added = measure_intruders(footage, truth, settings)
    else:
        added = measure_companions(footage, truth, settings, scene)
    return [added, _texture(footage, truth, settings, episode, camera)]


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
        return Measurement(NAME, None, "no link shows enough of its surface", applies=False)
    return Measurement(NAME, worst, where, frame, series=series)


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
    return np.log(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) + DARK)


def _angle(a: Float64[np.ndarray, "4 4"], b: Float64[np.ndarray, "4 4"]) -> float:
    """Angle between two poses, rad."""
    return float(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))
