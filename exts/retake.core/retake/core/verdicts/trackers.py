# SPDX-License-Identifier: Apache-2.0
"""A second opinion from a point tracker: points on links and objects are followed and compared with where they must go.

No tracker is needed (the default is none). One is named by `tracker:` in the settings: `lucas_kanade` is built in, other
packages add theirs under the entry-point group `retake.point_trackers` (a class without constructor arguments).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from retake.core import plugins
from retake.core.array_types import Bool, Float64, UInt8
from retake.core.episode import Episode
from retake.core.errors import VerdictError
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import TrackerSettings
from retake.core.verdicts.truth import Truth

GROUP = "retake.point_trackers"
TRACKERS = {"lucas_kanade": "retake.core.verdicts.trackers:LucasKanade"}
NAME = "tracked_points"


class PointTracker(Protocol):
    """Follows points through a clip."""

    def track(
        self, frames: UInt8[np.ndarray, "T H W 3"], points: Float64[np.ndarray, "N 2"]
    ) -> tuple[Float64[np.ndarray, "T N 2"], Bool[np.ndarray, "T N"]]:
        """Where points (x, y; image-index px) of the first frame are in every frame, and whether they are seen.

        `frames` is RGB. Row 0 is the points themselves.
        """
        ...


class LucasKanade:
    """Pyramidal Lucas-Kanade with a check backwards: exact on texture, lost on plain surfaces."""

    def track(
        self, frames: UInt8[np.ndarray, "T H W 3"], points: Float64[np.ndarray, "N 2"]
    ) -> tuple[Float64[np.ndarray, "T N 2"], Bool[np.ndarray, "T N"]]:
        """See PointTracker."""
        return follow([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames], points)


def follow(
    greys: Sequence[UInt8[np.ndarray, "H W"]], points: Float64[np.ndarray, "N 2"]
) -> tuple[Float64[np.ndarray, "T N 2"], Bool[np.ndarray, "T N"]]:
    """What `LucasKanade` answers, of grey pictures."""
    out = np.repeat(points[None].astype(np.float64), len(greys), 0)
    seen = np.ones(out.shape[:2], bool)
    options = {"winSize": (11, 11), "maxLevel": 2}
    here = points.astype(np.float32).reshape(-1, 1, 2)
    for t in range(1, len(greys) if len(points) else 0):
        there, found, _ = cv2.calcOpticalFlowPyrLK(greys[t - 1], greys[t], here, None, **options)  # type: ignore[call-overload]
        back, _, _ = cv2.calcOpticalFlowPyrLK(greys[t], greys[t - 1], there, None, **options)  # type: ignore[call-overload]
        same = np.linalg.norm((back - here).reshape(-1, 2), axis=1) < 0.5
        seen[t] = seen[t - 1] & (found.ravel() > 0) & same
        out[t], here = there.reshape(-1, 2), there
    return out, seen


def point_tracker(name: str) -> PointTracker:
    """The tracker of that name. Raises InputError listing the valid names."""
    return plugins.pick("point tracker", name, GROUP, TRACKERS, {})()


def measure_tracked(
    footage: Footage, truth: Truth, episode: Episode, camera: str, settings: TrackerSettings
) -> Measurement:
    """tracked_points: distance of followed points from where their link or object takes them, px.

    Points are picked on every visible part every `horizon` frames and followed that long. The value is the worst part's
    median in any such span. Needs recorded depth (a pixel's place on its body). Raises VerdictError when a tracker
    answers in another shape.
    """
    if not settings.name:
        return Measurement(NAME, None, "no point tracker is named in the settings", applies=False, absent=True)
    if "depth" not in episode.header.camera(camera).channels:
        return Measurement(NAME, None, "the camera recorded no depth", applies=False)
    tracker = point_tracker(settings.name)
    series = np.full(len(truth), np.nan)
    worst, where, frame, judged = 0.0, "", None, 0
    for begin in range(0, len(truth) - 2, settings.horizon):
        end = min(begin + settings.horizon + 1, len(truth))
        depth = episode.image(camera, "depth", truth.start + begin)
        points, part = _pick(truth, begin, settings.points)
        expected, shown = _expected(truth, depth, points, part, begin, end)
        tracks, seen = tracker.track(footage.frames[begin:end], points)
        if tracks.shape != expected.shape or seen.shape != shown.shape:
            raise VerdictError(
                f"point tracker {settings.name!r} answered {tracks.shape} and {seen.shape} for {len(points)} points in "
                f"{end - begin} frames; expected {expected.shape} and {shown.shape}"
            )
        error = np.where(seen & shown, np.linalg.norm(tracks - expected, axis=-1), np.nan)[1:] * truth.px
        for one in np.unique(part):
            mine = error[:, part == one]
            if (~np.isnan(mine)).sum() < settings.min_samples:
                continue
            judged += 1
            value = float(np.nanmedian(mine))
            if value > worst:
                worst, where, frame = value, truth.parts[one].name, begin + 1
        for k in range(len(error)):
            if not np.isnan(error[k]).all():
                series[begin + 1 + k] = float(np.nanmedian(error[k]))
    if not judged:
        return Measurement(NAME, None, f"{settings.name} could follow no point on robot or objects", applies=False)
    return Measurement(NAME, worst, f"{where}, by {settings.name}", frame, series=series)


def _pick(truth: Truth, t: int, count: int) -> tuple[Float64[np.ndarray, "N 2"], np.ndarray]:
    """Up to `count` pixels well inside each visible part, spread evenly over its mask, and their parts."""
    points, parts = [], []
    for part in range(len(truth.parts)):
        inner = cv2.erode((truth.labels[t] == part + 1).astype(np.uint8), np.ones((5, 5), np.uint8))
        rows, columns = np.nonzero(inner)
        pick = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
        points.append(np.stack([columns[pick], rows[pick]], 1).astype(np.float64).reshape(-1, 2))
        parts.append(np.full(len(pick), part))
    return np.concatenate(points), np.concatenate(parts)


def _expected(
    truth: Truth, depth: np.ndarray, points: np.ndarray, part: np.ndarray, begin: int, end: int
) -> tuple[Float64[np.ndarray, "T N 2"], Bool[np.ndarray, "T N"]]:
    """Where the points of frame `begin` must be in frames begin..end-1, and whether their part is what shows there."""
    height, width = truth.labels.shape[1:]
    at = np.clip(np.round((points + 0.5) / truth.scale - 0.5).astype(int), 0, np.array(depth.shape[::-1]) - 1)
    z = depth[at[:, 1], at[:, 0]].astype(np.float64)
    K = truth.K[begin]
    straight = truth.ideal(begin, points)
    ray = np.concatenate([straight + 0.5, np.ones((len(points), 1))], 1) @ np.linalg.inv(K).T
    camera = np.concatenate([ray * z[:, None], np.ones((len(points), 1))], 1)
    body = np.linalg.inv(truth.T_camera_world[begin] @ truth.T_world_part[begin])[part] @ camera[..., None]
    expected = np.zeros((end - begin, len(points), 2))
    shown = np.zeros((end - begin, len(points)), bool)
    for t in range(begin, end):
        p = ((truth.T_camera_world[t] @ truth.T_world_part[t])[part] @ body)[:, :3, 0]
        uvw = p @ truth.K[t].T
        expected[t - begin] = truth.seen(t, uvw[:, :2] / np.maximum(uvw[:, 2:], 1e-6) - 0.5)
        column, row = np.round(expected[t - begin]).astype(int).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (p[:, 2] > 0.02) & (z > 0)
        label = truth.labels[t][np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        shown[t - begin] = inside & (label == part + 1)
    return expected, shown
