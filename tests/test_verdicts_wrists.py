# SPDX-License-Identifier: Apache-2.0
"""Turned wrists by hand: which joint is a wrist's and what hangs on it, what a window of frames prefers, and how clearly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.verdicts import wrists
from retake.core.verdicts.settings import FollowingSettings
from retake.core.verdicts.wrists import ANGLES, _Row

SETTINGS = FollowingSettings(min_gain=0.03, link_share=0.13)


def robot(**given: Any) -> Any:
    """Base, upper arm, lower arm, hand and two fingers; a camera hangs on the lower arm."""

    def joint(name: str, kind: str, child: int) -> Any:
        return SimpleNamespace(name=name, kind=kind, child_link=child)

    joints = [
        joint("grip", "revolute", 4),
        joint("wrist", "revolute", 3),
        joint("shoulder", "revolute", 1),
        joint("slide", "prismatic", 2),
    ]
    known = {
        "name": "arm", "links": range(7), "parents": (-1, 0, 1, 2, 3, 3, 2), "dof_joints": joints, "root": 0,
        "grippers": [SimpleNamespace(finger_joints=("grip",))], "chain": lambda gripper: [0, 1, 2, 3, 4],
    }  # fmt: skip
    return SimpleNamespace(**{**known, **given})


def parts(*of: tuple[str, int]) -> Any:
    return SimpleNamespace(parts=[SimpleNamespace(robot=name, link=link) for name, link in of])


def test_links_are_as_deep_as_there_are_links_above_them_and_carry_all_below() -> None:
    one = robot()
    assert [wrists._depth(one, link) for link in range(7)] == [1, 2, 3, 4, 5, 5, 4]
    assert wrists._carried(one, 3) == {3, 4, 5}
    assert wrists._carried(one, 2) == {2, 3, 4, 5, 6}
    assert wrists._carried(one, 5) == {5}
    assert wrists._depth(robot(parents=(1, 0, 1, 2, 3, 3, 2)), 4) == 7  # a circle ends


def test_a_wrist_is_the_last_turning_joint_before_a_gripper_with_what_hangs_on_it() -> None:
    episode: Any = SimpleNamespace(header=SimpleNamespace(robots=[robot()]))
    seen = parts(("arm", 2), ("arm", 3), ("other", 4), ("arm", 5))
    found = wrists.wrists(episode, seen)
    assert [(one.dof, one.parts) for one in found] == [(1, (1, 3))]
    assert wrists.wrists(episode, parts(("arm", 2), ("other", 3))) == []
    straight = robot(chain=lambda gripper: [0, 1, 2])
    episode.header.robots = [robot(dof_joints=[]), straight]
    assert [(one.dof, one.parts) for one in wrists.wrists(episode, seen)] == [(2, (0, 1, 3))]


def rows(prefers: float, falls: float = 0.5, gain: float = 0.4, count: int = 2) -> list[_Row]:
    """Responses that are 0.5 lower by `gain` at 20° from what is preferred, and a silhouette that loses `falls` by them."""
    seen = 0.5 - gain * np.minimum(np.abs(ANGLES - prefers) / 20, 1) ** 2
    expected = 0.6 * (1 - falls * np.minimum(np.abs(ANGLES) / 20, 1))
    return [_Row(seen, expected, 100.0) for _ in range(count)]


@pytest.mark.parametrize("angle", [-30.0, -10.0, -5.0, 0.0, 5.0, 20.0, 40.0])
def test_a_window_prefers_the_angle_whose_outline_explains_its_pixels(angle: float) -> None:
    found = wrists._read(rows(angle), 7, SETTINGS)
    assert found is not None
    assert found.frame == 7
    assert found.angle == pytest.approx(angle, abs=0.6)
    score = 0.5 - 1e-5 * angle**2
    start = 0.5 - 0.4 * min(abs(angle) / 20, 1) ** 2
    apart = 0.5 * min(abs(angle) / 20, 1)
    if angle:
        assert found.gain == pytest.approx((score - start) / score)
        assert found.needed == pytest.approx(max(0.03 / score, 0.13, 0.15 * apart))
    assert found.untold == (abs(angle) >= 10)  # nothing is said of outlines before scenery here


@pytest.mark.parametrize(
    ("angle", "falls", "told"),
    [(20, 0.29, False), (20, 0.31, True), (5, 0.39, False), (5, 0.41, True), (45, 0.5, False), (-45, 0.5, False)],
)
def test_a_round_hand_tells_nothing_and_an_angle_that_its_silhouette_does_not_tell_is_none(
    angle: float, falls: float, told: bool
) -> None:
    """It must lose three tenths by 20°, and a tenth by the very angle."""
    found = wrists._read(rows(angle, falls), 7, SETTINGS)
    if falls < 0.3:
        assert found is None
        return
    assert found is not None
    assert (found.angle != 0) == told
    assert (found.needed > 0) == told


def test_frames_count_by_their_points_and_the_silhouette_by_the_opposite_angle() -> None:
    one, two = rows(20, count=1)[0], rows(-10, count=1)[0]
    light = _Row(two.seen, two.expected, 10.0)
    found = wrists._read([one, light], 3, SETTINGS)
    assert found is not None
    assert found.angle == pytest.approx(20, abs=2.5)
    heavy = wrists._read([one, _Row(two.seen, two.expected, 900.0)], 3, SETTINGS)
    assert heavy is not None
    assert heavy.angle == pytest.approx(-10, abs=2.5)
    lopsided = 0.6 * np.where(ANGLES < 0, 1 - np.abs(ANGLES) / 45, 1 - 0.02 * (ANGLES > 0))
    plus = wrists._read([_Row(one.seen, lopsided, 100.0)] * 2, 3, SETTINGS)
    minus = wrists._read([_Row(one.seen[::-1], lopsided, 100.0)] * 2, 3, SETTINGS)
    assert plus is None or minus is None or (plus.angle != 0) != (minus.angle != 0)


@given(u=st.floats(0, 63), v=st.floats(0, 47), depth=st.floats(0.1, 5))
@settings(max_examples=8)
def test_a_pixel_at_a_depth_is_seen_where_it_is(u: float, v: float, depth: float) -> None:
    T = np.array([[0, -1.0, 0, 0.2], [0, 0, -1, 0.1], [1, 0, 0, 0.3], [0, 0, 0, 1]])
    one: Any = SimpleNamespace(
        K=np.array([[[50.0, 0, 32], [0, 60, 24], [0, 0, 1]]]),
        T_camera_world=T[None],
        ideal=lambda t, xy: xy,
        seen=lambda t, xy: xy,
    )
    world = wrists._lifted(one, 0, np.array([[u, v]]), np.array([depth]))
    camera = T[:3, :3] @ world[0] + T[:3, 3]
    assert camera == pytest.approx([(u + 0.5 - 32) / 50 * depth, (v + 0.5 - 24) / 60 * depth, depth])
    assert wrists._seen(one, 0, world[None])[0, 0] == pytest.approx([u, v], abs=1e-6)


def test_what_is_behind_a_camera_is_taken_to_be_two_centimetres_before_it() -> None:
    one: Any = SimpleNamespace(
        K=np.array([[[50.0, 0, 32], [0, 60, 24], [0, 0, 1]]]), T_camera_world=np.eye(4)[None], seen=lambda t, xy: xy
    )
    for z in (-1.0, 0.01, 0.02):
        assert wrists._seen(one, 0, np.array([[[0.02, 0.01, z]]]))[0, 0] == pytest.approx([50 + 31.5, 30 + 23.5])


def test_pixels_are_the_nearest_inside_the_picture_and_lie_in_one_window() -> None:
    columns, lines = wrists._pixels(np.array([[[-3.0, 4.4], [7.6, 99.0]], [[11.5, 0.0], [20, 6]]]), (12, 9))
    assert columns.tolist() == [[0, 8], [11, 11]]
    assert lines.tolist() == [[4, 8], [0, 6]]
    window = wrists._window((columns + 2, lines + 1))
    assert window == (slice(1, 10), slice(2, 14))
    field = np.arange(8 * 9 * 12, dtype=np.float32).reshape(8, 9, 12)
    bins = np.array([[0, 7], [3, 1]], np.uint8)
    sampled = wrists._sampled(field, (columns + 2, lines + 1), window, bins)
    assert sampled.tolist() == field[bins, lines, columns].tolist()


def scene(known: bool = True) -> tuple[Any, np.ndarray]:
    """A dark hand left of column 20 before a light table; the take shows it left of column 14 from row 20 on."""
    frame = np.full((40, 60, 3), 200, np.uint8)
    frame[:, :20] = 40
    frame[20:, 14:20] = 200
    film: Any = SimpleNamespace(
        frames=frame[None], scenery=np.full((40, 60, 3), 200.0, np.float32), known=np.full((40, 60), known)
    )
    return film, np.stack([np.full(36, 19.5), np.arange(2, 38.0)], 1)


@pytest.mark.parametrize(("moved", "left", "kept"), [(-6.0, 18, 18), (-2.6, 0, 18), (-2.4, 0, 0), (6.0, 0, 0)])
def test_where_a_hand_recedes_its_place_shows_the_scenery_or_the_hand(moved: float, left: int, kept: int) -> None:
    """By 2.5 px at least, and as the colours inside the turned outline say: just beyond that the table's rows show the table
    there as well, and neither is told from the other."""
    film, out = scene()
    normal = np.tile([1.0, 0.0], (36, 1))
    places, way = (out + np.array([moved, 0]))[None], normal[None] * 3
    found = wrists._receded(film, 0, out, normal, places, way)
    assert (found[0][0], found[1][0]) == (left, kept)
    unknown = wrists._receded(scene(False)[0], 0, out, normal, places, way)
    assert (unknown[0][0], unknown[1][0]) == (0, 0)
