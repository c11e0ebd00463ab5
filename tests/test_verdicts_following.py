# SPDX-License-Identifier: Apache-2.0
"""Lags, windows and weights of following by hand: which candidates may be told, what moves, and whose figure counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import alignment, following
from retake.core.verdicts.settings import FollowingSettings

SETTINGS = FollowingSettings()
LAGS = np.arange(-4, 5)


def scored(curve: np.ndarray, frames: int = 20, points: float = 50.0, parts: int = 1) -> Any:
    """Responses per lag (of nine), alike in every frame and part; no frame before the first or after the last."""
    weight = np.full((frames, 9, parts), points)
    outside = (np.arange(frames)[:, None] + LAGS < 0) | (np.arange(frames)[:, None] + LAGS >= frames)
    weight[outside] = 0
    scores = np.where(outside[..., None], np.nan, weight * np.asarray(curve)[None, :, None])
    return SimpleNamespace(lag_scores=scores, lag_points=weight, max_lag=4)


def bump(at: float, height: float = 0.3, width: float = 3.0) -> np.ndarray:
    return 0.2 + np.maximum(height * (1 - ((LAGS - at) / width) ** 2), 0)


@pytest.mark.parametrize(("at", "lag"), [(0, 0.0), (2, -2.0), (-3, 3.0), (1.5, -1.5)])
def test_a_take_that_shows_later_frames_is_early(at: float, lag: float) -> None:
    one = scored(bump(at))
    assert following._window_lag(one, [0], slice(6, 14), SETTINGS, True) == pytest.approx(lag, abs=0.2)
    found, curve = alignment.best_lag(one, [0])
    assert found == pytest.approx(lag, abs=0.2)
    assert curve == pytest.approx(bump(at))


def test_a_whole_take_is_told_from_frames_in_which_all_candidates_exist() -> None:
    one = scored(bump(2))
    one.lag_scores[[3, 16]] = 50 * bump(-3)[:, None]
    assert alignment.best_lag(one, [0])[0] == pytest.approx(-2, abs=0.2)
    short = scored(bump(2), frames=8)
    found, curve = alignment.best_lag(short, [0])
    assert (found, curve.tolist()) == (0.0, [0.0] * 9)
    two = scored(bump(2), parts=2)
    two.lag_scores[:, :, 1], two.lag_points[:, :, 1] = 500 * bump(-2), 500
    assert alignment.best_lag(two, [0])[0] == pytest.approx(-2, abs=0.2)
    assert alignment.best_lag(two, [0, 1])[0] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(("missing", "lag"), [((5, 6, 7, 8), 3.0), ((4,), None), ((0, 5, 6, 7, 8), None), ((0,), 3.0)])
def test_a_window_asks_five_candidates_the_simulated_one_among_them(
    missing: tuple[int, ...], lag: float | None
) -> None:
    one = scored(bump(-3))
    one.lag_scores[8, missing, 0] = np.nan
    assert following._window_lag(one, [0], slice(6, 14), SETTINGS, True) == (None if lag is None else lag)


def test_a_window_without_points_says_nothing_and_a_small_gain_is_none() -> None:
    one = scored(bump(2), points=0.0)
    assert following._window_lag(one, [0], slice(6, 14), SETTINGS, True) is None
    for height, lag in ((0.069, -2.0), (0.065, 0.0)):  # of which 4/9 is gained: 0.03 must be
        small = scored(bump(2, height))
        assert following._window_lag(small, [0], slice(6, 14), SETTINGS, True) == pytest.approx(lag)
    some = scored(bump(2))
    some.lag_points[6:12], some.lag_scores[6:12] = 0, np.nan
    assert following._window_lag(some, [0], slice(6, 14), SETTINGS, True) == pytest.approx(-2)


@pytest.mark.parametrize(("curve", "told"), [
    (bump(2, width=2.0), True),
    (bump(-4), False),
    (bump(4), False),
    (np.array([2, 2, 2, 2, 2, 2, 5, 5, 5]) / 10, True),
    (np.array([2, 2, 2, 2, 2, 5, 5, 5, 5]) / 10, False),
    (np.array([2, 2, 2, 4.9, 2, 2, 2, 6, 2]) / 10, False),
    (np.array([2, 2, 2, 4.7, 2, 2, 2, 6, 2]) / 10, True),
    (np.array([2, 2, 2, 2, 2, 5, 2, 2, 6]) / 10, False),
])  # fmt: skip
def test_before_a_moving_camera_a_lag_is_one_narrow_peak_inside_the_search(curve: np.ndarray, told: bool) -> None:
    found = following._window_lag(scored(curve), [0], slice(6, 14), SETTINGS, False)
    assert (found is not None) == told
    assert following._window_lag(scored(curve), [0], slice(6, 14), SETTINGS, True) is not None


@pytest.mark.parametrize(
    ("height", "rival", "stands"), [(0.5, 0.5, True), (0.49, 0.5, False), (0.3, 0.25, True), (1.2, 0.5, True)]
)
@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_a_peak_in_place_stands_against_a_far_one(height: float, rival: float, stands: bool, floor: float) -> None:
    score = np.full((25, 25), floor)
    score[3, 20], score[12, 12] = floor + 1, floor + height
    assert following._stands(score, rival) == stands
    for away, inside in ((2, True), (3, False), (4, False)):
        moved = score.copy()
        moved[12, 12], moved[12 - away, 12] = floor, floor + height
        assert following._stands(moved, rival) == (stands and inside)
        assert following._stands(moved.T, rival) == (stands and inside)


def truth(**given: Any) -> Any:
    """Two links of one robot and an object."""
    labels = np.zeros((9, 30, 40), np.uint8)
    labels[:, 10:14, 10:13] = 1
    parts = [
        SimpleNamespace(robot="arm", name="upper"),
        SimpleNamespace(robot="arm", name="hand"),
        SimpleNamespace(robot="", name="box"),
    ]
    poses = np.tile(np.eye(4), (9, 3, 1, 1))
    poses[:, :2, 0, 3] = np.linspace(0, 0.1, 9)[:, None]
    known = {
        "labels": labels, "parts": parts, "robot_parts": [0, 1], "px": 2.0, "static_camera": True, "T_world_part": poses,
        "centroid": np.zeros((9, 3, 2)), "area": np.ones((9, 3)), "T_camera_world": np.tile(np.eye(4), (9, 1, 1)),
        "K": np.tile(np.diag([150.0, 140.0, 1]), (9, 1, 1)), "robot_mask": lambda t: np.isin(labels[t], (1, 2)),
    }  # fmt: skip
    return type("Truth", (SimpleNamespace,), {"__len__": lambda self: 9})(**{**known, **given})


def test_motion_is_the_mean_of_the_links_by_what_shows_of_them_in_both_frames() -> None:
    centroid, area = np.zeros((9, 3, 2)), np.ones((9, 3))
    centroid[3:, 0], centroid[5:, 1], centroid[6:, 2] = (3, 4), (0, 1), (99, 9)
    area[:, 0], area[:, 1], area[3, 0] = 300, 100, 200
    area[7:, 1], centroid[7:, 1] = 0, np.nan
    centroid[8, 0] += (0, 2)
    found = following.motion_px(truth(centroid=centroid, area=area))
    assert found == pytest.approx([0, 0, 0, 2 * 5 * 200 / 300, 0, 2 * 100 / 400, 0, 0, 2 * 2])


def test_a_moving_camera_moves_what_is_half_a_metre_before_it() -> None:
    T = np.tile(np.eye(4), (9, 1, 1))
    T[2:, 0, 3], T[4:, 1, 3] = 0.03, -0.04
    T[6:, 2, 3] = 0.1
    T[8, 2, 3] = -0.36  # 0.04 m before it
    one = truth(T_camera_world=T, static_camera=False)
    wanted = [0, 18, 0, 24, 0, 0, 0, 300]
    assert following._camera_motion_px(one) == pytest.approx(wanted)
    assert following.motion_px(one) == pytest.approx([0, *wanted])


def test_outlines_move_before_a_camera_on_the_hand_where_a_link_itself_does() -> None:
    centroid = np.zeros((9, 3, 2))
    centroid[:, 0, 0] = np.arange(9) * 0.5
    centroid[:, 1, 1] = np.arange(9) * 0.1
    for points, last, moves in (
        (50, 7, True),
        (49, 7, True),
        (28, 7, False),
        (29, 7, True),
        (50, 6, False),
        (30, 9, True),
    ):
        one: Any = SimpleNamespace(points=np.full((9, 3), float(points)))
        shown = truth(centroid=centroid, static_camera=False)
        assert following._moves(one, shown, slice(0, last), SETTINGS) == moves  # six steps of 0.5 px, and 200 points
    assert following._moves(one, truth(), slice(0, 2), SETTINGS)


def test_an_arm_is_as_large_as_its_box_in_every_fourth_frame() -> None:
    labels = np.zeros((9, 30, 40), np.uint8)
    labels[1], labels[3] = 1, 2
    labels[4, 5, 3:6], labels[4, 5:9, 8] = 1, 2
    labels[8, 2:14, 5:10], labels[0, 3, 7] = 2, 3
    shown = truth(labels=labels, robot_mask=lambda t: np.isin(labels[t], (1, 2)))
    assert following.arm_size(shown) == pytest.approx((np.hypot(4, 6) + 13) / 2)
    assert following.arm_size(truth(labels=labels, robot_mask=lambda t: labels[t] == 9)) == 0


def test_a_robot_that_stands_still_has_no_say_beside_one_that_moves() -> None:
    parts = [SimpleNamespace(robot=name) for name in ("cabinet", "arm", "", "arm", "cabinet")]
    poses = np.tile(np.eye(4), (9, 5, 1, 1))
    one = truth(parts=parts, robot_parts=[0, 1, 3, 4], T_world_part=poses)
    assert following.robots(one) == [[0, 4], [1, 3]]
    poses[4:, 3, 1, 3] = 0.0011
    assert following.robots(one) == [[1, 3]]
    poses[4:, 0, 1, 3] = 0.001
    assert following.robots(one) == [[1, 3]]
    poses[4:, 3, 1, 3] = 0
    assert following.robots(one) == [[0, 4], [1, 3]]


def test_support_is_the_response_in_place_over_the_mean_of_the_worst_robot() -> None:
    scores = np.full((9, 3, 5, 5), 0.1, np.float32)
    scores[:, :2, 2, 2] = 0.4
    scores[6:, 0, 2, 2], scores[:, 2, 2, 2] = 0.1, 0.0
    points = np.tile([60.0, 0.0, 500.0], (9, 1))
    one: Any = SimpleNamespace(shift_scores=scores, points=points, radius=2)
    found = following._support(one, truth(), FollowingSettings(window=3, min_points=150.0))
    high = 0.4 / ((24 * 0.1 + 0.4) / 25)
    assert found.series is not None
    # Windows of three frames, of two at either end: they have 120 points alone.
    assert np.flatnonzero(np.isnan(found.series)).tolist() == [0, 8]
    assert found.series[1:5] == pytest.approx(high)
    assert found.series[7] == pytest.approx(1)
    assert (found.value, found.worst_frame, found.note) == (pytest.approx(1), 7, "1 is chance")
    assert found.series[5] == pytest.approx(0.3 / ((24 * 0.1 + 0.3) / 25))
    parts = [SimpleNamespace(robot=name) for name in ("left", "left", "right")]
    two = truth(parts=parts, robot_parts=[0, 1, 2])
    two.T_world_part[4:, 2, 0, 3] = 0.5
    worse = following._support(one, two, FollowingSettings(window=3, min_points=150.0))
    assert (worse.value, worse.note) == (pytest.approx(0), "right; 1 is chance")
    none = following._support(one, truth(), FollowingSettings(window=3, min_points=181.0))
    assert (none.value, none.applies) == (None, True)


def test_every_contour_point_counts_once() -> None:
    scores = np.zeros((4, 2, 3, 3))
    scores[0, 0], scores[1, 0], scores[1, 1], scores[3] = 0.2, 0.4, 0.8, 9
    points = np.array([[10.0, 0], [20, 30], [0, 0], [5, 5]])
    assert following.weighted(scores, points, slice(0, 3), [0, 1]) == pytest.approx(np.full((3, 3), (2 + 8 + 24) / 60))
    assert following.weighted(scores, points, slice(0, 3), [0]) == pytest.approx(np.full((3, 3), 10 / 30))
    assert not following.weighted(scores, points, slice(2, 3), [0, 1]).any()


def test_links_are_off_over_the_whole_take_where_they_show_enough() -> None:
    grid = np.indices((13, 13)) - 6
    scores = np.zeros((9, 3, 13, 13), np.float32)
    scores[:, 0] = np.exp(-((grid[1] - 3) ** 2 + (grid[0] + 4) ** 2) / 8)
    points = np.tile([30.0, 22.0, 90.0], (9, 1))
    one: Any = SimpleNamespace(shift_scores=scores, points=points)
    found = following.link_offsets(one, truth(), SETTINGS)
    assert list(found) == ["link_px.arm.upper", "link_px.arm.hand"]
    assert found["link_px.arm.upper"] == pytest.approx(10, abs=0.3)
    assert found["link_px.arm.hand"] is None
    points[:, 1] = 23
    assert following.link_offsets(one, truth(), SETTINGS)["link_px.arm.hand"] == 0


def test_a_robot_swells_by_its_worst_part_either_way() -> None:
    one: Any = SimpleNamespace(swelling=np.array([0.5, -1.5, 9.0]))
    assert following._swelling(one, truth()).value == 3.0
