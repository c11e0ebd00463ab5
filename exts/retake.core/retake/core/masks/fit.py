# SPDX-License-Identifier: Apache-2.0
"""Fitting a recording's camera pose and clock to its own pictures: K is kept, one rigid correction and one constant time
offset are found for which the robot's mesh covers, pixel by pixel over time, what stands out from the still scenery.

Needs a camera that stands still and a robot that moves. The correction turns about the middle of what moves, so that its
parameters hardly depend on each other: shift right, down, forward (m) and turns about the camera's axes (rad).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64, UInt8
from retake.core.geometry import axis_angle
from retake.core.lens import Lens
from retake.core.progress import CheckCancel, never

_STEPS = np.array([0.03, 0.03, 0.05, 0.04, 0.04, 0.04, 2.0])
"""First steps: m, m, m, rad, rad, rad, frames."""
_FINEST = 1 / 24
_NAMES = ("right_m", "down_m", "forward_m", "about_x_rad", "about_y_rad", "about_z_rad", "time_frames")


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A fitted calibration."""

    T_camera_world: Float64[np.ndarray, "4 4"]
    time_offset_frames: float
    """Picture t shows the state of t plus this."""
    correction: dict[str, float]
    """The seven fitted numbers by name."""
    spread: dict[str, float]
    """Standard error of each, from fits to three thirds of the frames."""
    agreement_before: float
    """Correlation of mesh and foreground over place and time with the calibration as recorded, −1..1."""
    agreement: float
    """The same after fitting."""
    moved_px: float
    """Mean image displacement of the robot that the correction causes, px of the recorded camera."""
    spread_px: float
    """Standard error of that, px."""

    def to_json(self) -> dict[str, object]:
        """For the episode's settings."""
        return {
            "T_camera_world": self.T_camera_world.tolist(), "time_offset_frames": self.time_offset_frames,
            "correction": self.correction, "spread": self.spread, "agreement_before": self.agreement_before,
            "agreement": self.agreement, "moved_px": self.moved_px, "spread_px": self.spread_px,
        }  # fmt: skip


def foreground(frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "T H W"]:
    """How clearly each pixel differs from what it mostly shows, 0..1."""
    usual = np.median(frames[:: max(len(frames) // 60, 1)], 0).astype(np.float32)
    out = []
    for frame in frames:
        away = np.abs(cv2.GaussianBlur(frame, (0, 0), 0.8).astype(np.float32) - usual).max(2)
        out.append(np.clip((away - 2 * np.median(away) - 6) / 30, 0, 1))
    return np.stack(out).astype(np.float32)


class _Fit:
    """Score of a correction."""

    def __init__(
        self, seen: np.ndarray, points: np.ndarray, K: np.ndarray, T: np.ndarray, lens: Lens | None = None
    ) -> None:
        self.seen, self.points, self.K, self.T, self.lens = seen, points, K, T, lens
        self.height, self.width = seen.shape[1:]
        every = points[:: max(len(points) // 20, 1)].reshape(-1, 3) @ T[:3, :3].T + T[:3, 3]
        self.centre = every[every[:, 2] > 0.05].mean(0) if (every[:, 2] > 0.05).any() else np.array([0, 0, 1.0])

    def pose(self, x: np.ndarray) -> np.ndarray:
        """T_camera_world with a correction applied."""
        R = (
            axis_angle(np.array([1.0, 0, 0]), x[3])
            @ axis_angle(np.array([0, 1.0, 0]), x[4])
            @ axis_angle(np.array([0, 0, 1.0]), x[5])
        )
        C = np.eye(4)
        C[:3, :3], C[:3, 3] = R, self.centre + x[:3] - R @ self.centre
        return C @ self.T

    def pixels(self, x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(F, N, 2) pixels and (F, N) whether they are in front, at frames t."""
        at = np.clip(t + x[6], 0, len(self.points) - 1)
        low = np.minimum(np.floor(at).astype(int), len(self.points) - 2)
        share = (at - low)[:, None, None]
        world = self.points[low] * (1 - share) + self.points[low + 1] * share
        T = self.pose(x)
        p = world @ T[:3, :3].T + T[:3, 3]
        uv = p @ self.K.T
        pixels = uv[..., :2] / np.maximum(uv[..., 2:], 1e-6)
        return pixels if self.lens is None else self.lens.bend(self.K, pixels), p[..., 2] > 0.05

    def score(self, x: np.ndarray, t: np.ndarray) -> float:
        """Agreement of the mesh's cover with the foreground over place and time."""
        uv, front = self.pixels(x, t)
        cell = np.floor(uv).astype(int)
        good = front & (cell >= 0).all(-1) & (cell[..., 0] < self.width) & (cell[..., 1] < self.height)
        size = self.height * self.width
        flat = (np.arange(len(t))[:, None] * size + cell[..., 1] * self.width + cell[..., 0])[good]
        cover = np.bincount(flat, minlength=len(t) * size).reshape(len(t), self.height, self.width)
        cover = np.stack(
            [np.minimum(cv2.GaussianBlur(np.minimum(c, 2).astype(np.float32), (0, 0), 1.6) * 3, 1) for c in cover]
        )
        a, b = cover - cover.mean(0), self.seen[t] - self.seen[t].mean(0)
        scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
        return float((a * b).sum() / scale) if scale > 1e-6 else 0.0

    def climb(self, x: np.ndarray, t: np.ndarray, step: float, check_cancel: CheckCancel) -> tuple[np.ndarray, float]:
        """Pattern search: steps are halved until they are fine."""
        best = self.score(x, t)
        while step >= _FINEST:
            check_cancel()
            before, start = best, x.copy()
            for k in range(7):
                for sign in (1.0, -1.0):
                    trial = x.copy()
                    trial[k] += sign * step * _STEPS[k]
                    value = self.score(trial, t)
                    if value > best:
                        x, best = trial, value
                        break
            if best - before < 1e-4:
                step /= 2
                continue
            leap = x + (x - start)
            if (value := self.score(leap, t)) > best:
                x, best = leap, value
        return x, best


def fit_calibration(
    frames: UInt8[np.ndarray, "T H W 3"],
    points: Float64[np.ndarray, "T N 3"],
    K: Float64[np.ndarray, "3 3"],
    T_camera_world: Float64[np.ndarray, "4 4"],
    size: tuple[int, int],
    check_cancel: CheckCancel = never,
    lens: Lens | None = None,
) -> Calibrated:
    """Fit to a recording's frames (small: 160 px wide is enough), points on the robot's surface per frame (world, m), and
    the recorded calibration (K for the camera's own `size`, and its lens)."""
    height, width = frames.shape[1:3]
    small = np.diag([width / size[0], height / size[1], 1.0]) @ K
    fit = _Fit(foreground(frames), points, small, T_camera_world, lens)
    t = np.arange(0, len(frames), max(len(frames) // 45, 1))
    zero = np.zeros(7)
    x, agreement = fit.climb(zero, t, 1.0, check_cancel)
    thirds = [fit.climb(x, part, 0.25, check_cancel)[0] for part in (t[0::3], t[1::3], t[2::3])]
    error = np.std(thirds, axis=0, ddof=1) / np.sqrt(3)
    scale = size[0] / width
    still = x * np.array([1, 1, 1, 1, 1, 1, 0])

    def mean_move(a: np.ndarray, b: np.ndarray) -> float:
        (p, f), (q, g) = fit.pixels(a, t), fit.pixels(b, t)
        both = f & g & (q >= 0).all(-1) & (q < (width, height)).all(-1)
        return float(np.linalg.norm(p - q, axis=-1)[both].mean()) * scale if both.any() else 0.0

    steady = [third * np.array([1, 1, 1, 1, 1, 1, 0]) for third in thirds]
    return Calibrated(
        fit.pose(x), float(x[6]), dict(zip(_NAMES, map(float, x), strict=True)),
        dict(zip(_NAMES, map(float, error), strict=True)), fit.score(zero, t), agreement, mean_move(zero, still),
        float(np.mean([mean_move(s, still) for s in steady])) / np.sqrt(3),
    )  # fmt: skip
