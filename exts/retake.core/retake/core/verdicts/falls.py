# SPDX-License-Identifier: Apache-2.0
"""Free falls obey gravity whatever the simulation did: the acceleration of the take's own object, no reference needed.

Only the scale comes from outside: how many metres a pixel upwards is at the object's depth.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from retake.core.array_types import Bool, Float64
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.tracking import Track
from retake.core.verdicts.truth import Truth

NAME = "fall_acceleration"
GRAVITY = 9.81
"""m/s²."""
_FALLING = 0.35
"""Share of gravity by which the simulated object's acceleration may differ in a frame that counts as free fall."""
_MIN_FRAMES = 5
"""Frames in flight that are needed: with four, half a working px is a fifth of gravity."""

_TRIED, _AGREE, _SCATTER, _SCATTER_M = 14, 0.6, 4.0, 0.03
"""Frames of a flight that parabolas are drawn through, at most; share of its frames that must lie on one; and how far from it one
may lie: so many times as far as half of them do, or so many m."""
_FALLEN_M = 0.01
"""m; what sinks by less has not fallen: it is put down, or the hand that holds it moves up and slows down as fast."""


def measure_fall(track: Track | None, truth: Truth, part: int, phases: list[str]) -> Measurement:
    """fall_acceleration: 1 − acceleration over gravity of the take's object (a part of the truth) in free flight, absolute.
    Skipped where too little of the flight is measured; a wrong fall is wrong along its way as well (`object_released`)."""
    if track is None:
        return Measurement(
            NAME, None, "no object that could fall", applies=False, absent=not falls(truth, part, phases)
        )
    rows = _flight(truth.T_world_part[:, part, 2, 3], truth.fps)
    if len(rows) < _MIN_FRAMES:
        why = f"{len(rows)} frames of free flight, {_MIN_FRAMES} needed to tell an acceleration"
        return Measurement(NAME, None, why, applies=False, absent=not falls(truth, part, phases))
    heights = np.array([_height(track, truth, int(t)) for t in rows])
    seen = np.isfinite(heights)
    if seen.sum() < _MIN_FRAMES:
        # Hidden, out of the picture or towards the camera: whether it shows, and where, others judge.
        why = f"the falling object is measured in {int(seen.sum())} frames, {_MIN_FRAMES} needed"
        return Measurement(NAME, None, why, applies=False)
    times, heights = rows[seen] / truth.fps, heights[seen]
    agree = _agreeing(times, heights)
    if agree.sum() < max(_MIN_FRAMES, _AGREE * len(times)):
        # Something else was taken for it here and there: a small thing that flies fast is lost for moments.
        why = f"the places of the falling object are on no one parabola: {int(agree.sum())} of {len(times)} agree"
        return Measurement(NAME, None, why, applies=False)
    fit = np.polyfit(times[agree], heights[agree], 2)
    acceleration = -2 * float(fit[0])
    note = f"{acceleration:.1f} m/s² over {int(agree.sum())} frames"
    return Measurement(NAME, abs(1 - acceleration / GRAVITY), note, int(rows[len(rows) // 2]))


def _agreeing(times: Float64[np.ndarray, "N"], heights: Float64[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
    """Frames on the parabola through three of them that lies nearest to most. times: s; heights: m."""
    best, least = np.zeros(len(times), bool), np.inf
    chosen = np.unique(np.linspace(0, len(times) - 1, _TRIED).astype(int))
    for three in combinations(chosen, 3):
        away = np.abs(np.polyval(np.polyfit(times[list(three)], heights[list(three)], 2), times) - heights)
        middle = float(np.median(away))
        if middle < least:
            least, best = middle, away <= max(_SCATTER * middle, _SCATTER_M)
    return best


def falls(truth: Truth, part: int, phases: list[str]) -> bool:
    """Whether the simulated object falls in these frames, however short: freely, or from being let go until it rests."""
    height = truth.T_world_part[:, part, 2, 3]
    flight, released = _flight(height, truth.fps), np.flatnonzero([phase == "released" for phase in phases])
    ways = [(flight[0], flight[-1])] if len(flight) else []
    if len(released):
        ways.append((max(released[0] - 1, 0), min(released[-1] + 1, len(height) - 1)))
    return any(bool(height[begin] - height[end] > _FALLEN_M) for begin, end in ways)


def _flight(z: Float64[np.ndarray, "T"], fps: float) -> np.ndarray:
    """The longest run of frames in which the simulated object falls freely."""
    if len(z) < 3:
        return np.zeros(0, int)
    acceleration = np.diff(z, 2) * fps**2
    free = np.concatenate([[False], np.abs(acceleration / -GRAVITY - 1) < _FALLING, [False]])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], free.astype(int), [0]])))
    runs = [np.arange(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if not runs:
        return np.zeros(0, int)
    run = max(runs, key=len)
    # The frames before and after belong to the same parabola.
    return np.arange(max(run[0] - 1, 0), min(run[-1] + 2, len(z)))


def _height(track: Track, truth: Truth, t: int) -> float:
    """World height at which the take shows the object, m: the simulated one moved by what the picture says."""
    if not (np.isfinite(track.found[t]).all() and np.isfinite(track.expected[t]).all()):
        return float("nan")
    T, K = truth.T_camera_world[t], truth.K[t]
    origin = truth.T_world_part[t, track.part, :3, 3]
    p = T[:3, :3] @ origin + T[:3, 3]
    if p[2] < 0.02:
        return float("nan")
    # Image motion of one metre upwards at that place, working px.
    up = T[:3, :3] @ np.array([0.0, 0.0, 1.0])
    moved = np.array([K[0, 0] * (up[0] - p[0] / p[2] * up[2]), K[1, 1] * (up[1] - p[1] / p[2] * up[2])]) / p[2]
    length = float(moved @ moved)
    if length < 50.0**2:  # the camera looks along the fall
        return float("nan")
    return float(origin[2] + (track.found[t] - track.expected[t]) @ moved / length)
