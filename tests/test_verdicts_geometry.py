# SPDX-License-Identifier: Apache-2.0
"""Scenery before a moving camera of which the recording has no depth: walls that a world puts behind the stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.geometry import axis_angle
from retake.core.verdicts import geometry
from retake.core.verdicts.settings import load_settings

SIZE, FRAMES = (320, 240), 14
K = np.array([[220.0, 0, 160], [0, 220, 120], [0, 0, 1]])
WALL_M, STEP_M = 1.5, 0.006


def poses(degrees: float, axis: tuple[float, float, float], step: tuple[float, float, float]) -> np.ndarray:
    """(T, 4, 4) of a camera that turns by so much per frame, and goes a small step each."""
    out = np.tile(np.eye(4), (FRAMES, 1, 1))
    for t in range(FRAMES):
        direction = np.array(axis) / np.linalg.norm(axis)
        out[t, :3, :3] = axis_angle(direction, np.float64(np.radians(degrees * t)))
        out[t, :3, 3] = np.array(step) * t
    return out


def truth_of(T_camera_world: np.ndarray) -> Any:
    class Truth(SimpleNamespace):
        def __len__(self) -> int:
            return FRAMES

        def ideal(self, _: int, points: np.ndarray) -> np.ndarray:
            return points

        def seen(self, _: int, points: np.ndarray) -> np.ndarray:
            return points

    labels = np.zeros((FRAMES, SIZE[1], SIZE[0]), np.uint8)
    return Truth(
        K=np.tile(K, (FRAMES, 1, 1)), T_camera_world=T_camera_world, scale=1.0, size=SIZE, px=1.0, start=0, lens=None,
        static_camera=False, labels=labels,
    )  # fmt: skip


def wall(T_camera_world: np.ndarray, seed: int) -> np.ndarray:
    """(T, H, W, 3): a wall of like bricks at WALL_M before the first camera, as every frame sees it."""
    rng, y, x = np.random.default_rng(seed), *np.indices((720, 960))
    brick = np.where((y % 10 < 2) | ((x + 8 * (y // 10 % 2)) % 16 < 2), 60.0, 120.0)
    big = np.clip(brick + rng.normal(0, 1, brick.shape), 0, 255).astype(np.uint8)
    offset, out = np.array([[1, 0, 320], [0, 1, 240], [0, 0, 1.0]]), []
    plane = np.array([0, 0, 1 / WALL_M])
    for T in T_camera_world:
        H = K @ (T[:3, :3] + np.outer(T[:3, 3], plane)) @ np.linalg.inv(K)
        out.append(cv2.warpPerspective(big, H @ np.linalg.inv(offset), SIZE, flags=cv2.INTER_LINEAR))
    return np.repeat(np.stack(out)[..., None], 3, axis=3)


def episode_of(depth: np.ndarray) -> Any:
    """Of which every frame has this depth."""
    camera = SimpleNamespace(channels=("rgb", "depth"))
    return SimpleNamespace(header=SimpleNamespace(camera=lambda _: camera), image=lambda *_: depth)


@given(
    degrees=st.floats(-3, 3), axis=st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 2)]),
    x=st.floats(20, 300), y=st.floats(20, 220), u=st.integers(1, 5),
)  # fmt: skip
@settings(deadline=None)
def test_far_away_is_where_depth_without_end_leads(
    degrees: float, axis: tuple[float, float, float], x: float, y: float, u: int
) -> None:
    truth, points = truth_of(poses(degrees, axis, (0.01, -0.02, 0.005))), np.array([[x, y]])
    depth = np.full(SIZE[::-1], 1e7, np.float32)
    assert geometry.far_away(truth, points, 0, u) == pytest.approx(
        geometry.predicted(truth, depth, points, 0, u), abs=1e-2
    )


def measured(seed: int) -> float:
    """temporal_geometry of a camera that turns before a wall of which nothing is recorded but a strip."""
    T = poses(2.6, (0.3, 1, 0.4), (STEP_M, 0, 0.002))
    depth = np.zeros(SIZE[::-1], np.float32)
    depth[:, 140:165] = WALL_M
    footage: Any = SimpleNamespace(frames=wall(T, seed))
    found = geometry.measure_geometry(footage, truth_of(T), episode_of(depth), "hand", load_settings().stability)
    value = found[0].value
    assert value is not None
    return value


def test_a_wall_that_repeats_and_has_no_depth_goes_where_the_camera_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = measured(0)
    assert followed < 0.1
    # The control: followed from their own places, bricks are taken for their neighbours.
    monkeypatch.setattr(geometry, "far_away", lambda truth, points, t, u: np.full(points.shape, np.nan))
    assert measured(0) > 10 * followed
