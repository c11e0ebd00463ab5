# SPDX-License-Identifier: Apache-2.0
"""Where points of the scenery go before a moving camera, by hand; and walls that a world puts behind the stage, of which the
recording has no depth."""

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


def going(*step: float) -> Any:
    """A camera that goes so far per frame, m, in its own axes."""
    return truth_of(poses(0, (0, 1, 0), tuple(-s for s in step)))  # type: ignore[arg-type]


def test_points_go_by_their_depth_and_those_without_one_nowhere() -> None:
    """At 2 m, with 220 px of focal length, 0.1 m are 11 px; half as far away twice as many."""
    depth = np.full((240, 320), 2.0, np.float32)
    depth[100:, :], depth[:, 200:], depth[:20, :20] = 1.0, 0.0, 0.1
    points = np.array([[50.0, 50], [50, 150], [250, 50], [159.5, 119.5], [10, 10]])
    right = geometry.predicted(going(0.1, 0, 0), depth, points, 2, 3)
    assert right == pytest.approx(
        np.array([[39, 50], [28, 150], [np.nan] * 2, [137.5, 119.5], [-210, 10]]), nan_ok=True
    )
    down = geometry.predicted(going(0, 0.05, 0), depth, points, 2, 4)
    assert down[:2] == pytest.approx(np.array([[50, 39], [50, 128]]))
    # Half of the way to what is 2 m away makes it twice as large about the middle, half a px before pixel 160.
    ahead = geometry.predicted(going(0, 0, 0.5), depth, points, 1, 3)
    assert ahead[0] == pytest.approx([2 * (50 - 159.5) + 159.5, 2 * (50 - 119.5) + 119.5])
    assert np.isnan(ahead[[1, 2, 3, 4]]).all()  # reached, without depth, reached, behind
    assert geometry.far_away(going(0.1, 0, 0), points, 2, 3) == pytest.approx(points)


def test_depth_is_read_where_the_recording_has_the_point() -> None:
    """Of a working picture of half its size pixel 10 is between pixels 20 and 21 of the recording."""
    truth = going(0.1, 0, 0)
    truth.scale = 0.5
    depth = np.full((480, 640), 2.0, np.float32)
    depth[:, 302:306] = 1.0
    points = np.array([[149.0, 50], [151.0, 50], [152.2, 50], [153, 50], [400, 300]])
    shift = points[:, 0] - geometry.predicted(truth, depth, points, 0, 1)[:, 0]
    assert shift == pytest.approx([11, 22, 22, 11, 11])


@pytest.mark.parametrize(
    ("step", "told"), [((0.008, 0, 0), True), ((0.0, 0.0079, 0), False), ((0.0, 0.006, 0.006), True)]
)
def test_pixels_of_one_point_obey_the_camera_s_way(step: tuple[float, float, float], told: bool) -> None:
    truth = truth_of(poses(4, (0.2, 1, 0.1), step))
    if not told:
        truth = going(*step)
    F = geometry.fundamental(truth, 0, 1, 0.008)
    assert (F is not None) == told
    if F is None:
        return
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 3, (240, 320)).astype(np.float32)
    points = np.stack([rng.integers(20, 300, 30), rng.integers(20, 220, 30)], 1).astype(float)
    there = geometry.predicted(truth, depth, points, 0, 1)
    assert np.linalg.norm(F) == pytest.approx(1)
    assert geometry.sampson(points, there, F) == pytest.approx(np.zeros(30), abs=1e-6)
    assert geometry.sampson(points, there + np.array([0, 3]), F).max() > 0.5


def test_a_median_is_told_of_five_pairs_of_frames() -> None:
    series = np.full(FRAMES, np.nan)
    series[[0, 2, 4, 6, 8]] = 1, 5, 3, 2, 4
    settings = load_settings().stability
    found = geometry._upper("temporal_geometry", series, settings)
    assert (found.value, found.worst_frame, found.note) == (3.0, 2, "5 pairs of frames")
    series[0] = np.nan
    few = geometry._upper("temporal_geometry", series, settings)
    assert (few.value, few.applies) == (None, False)


def test_what_all_pictures_show_in_one_place_is_taken_off() -> None:
    stands = np.zeros((30, 40, 40), np.uint8) + 100
    stands[:, 10:20] = 180
    for t in range(30):
        stands[t, 30:, t] = 250
    rest = geometry.without_standing(list(stands))
    assert len(rest) == 30
    for t, picture in enumerate(rest):
        wanted = np.full((40, 40), 128)
        wanted[30:, t] = 255
        assert picture.tolist() == wanted.tolist()
    assert geometry.without_standing(list(stands[:2] - 100))[0].max() == 128 + 75  # the median of two is their mean


@pytest.mark.parametrize("level", [20, 100, 240])
def test_detail_is_what_differs_from_the_light_around_by_its_share(level: int) -> None:
    frame = np.full((60, 60, 3), level, np.uint8)
    assert set(np.unique(geometry.detail(frame))) <= {127, 128}
    frame[30, 30] = level + 8
    weight = 1 / (2 * np.pi * 9)  # of a pixel itself in the mean around it, three px wide
    share = 8 * (1 - weight) / (level + 8 + 8 * weight)
    assert geometry.detail(frame)[30, 30] == pytest.approx(128 + 400 * share, abs=1.5)
    assert geometry.detail(frame)[30, 36] <= 128


def test_what_opencv_leaves_unwritten_is_never_read(monkeypatch):
    """Signalling NaNs in the memory that it would have taken, as a program at work has them at times."""
    real = cv2.calcOpticalFlowPyrLK

    def on_used_memory(*pictures, err=None, **options):
        count = len(pictures[2])
        used = np.full((count, 1), 0x7FA00001, np.uint32).view(np.float32) if err is None else err
        return real(*pictures, err=used, **options)

    monkeypatch.setattr(cv2, "calcOpticalFlowPyrLK", on_used_memory)
    flat = np.full((64, 64), 90, np.uint8)
    points = np.array([[20.0, 20.0], [40.0, 30.0]])
    _, found, error = geometry._follow(flat, flat, points, points)
    assert not found.any()
    assert np.isfinite(error).all()
