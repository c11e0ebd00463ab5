# SPDX-License-Identifier: Apache-2.0
"""Motion of a take against its recording's, and a fall's against gravity, at their limits: from which frames and shares on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import falls, motion
from retake.core.verdicts.motion import MotionMaps
from retake.core.verdicts.settings import RecordedSettings

SETTINGS = RecordedSettings()
COUNT = 41
"""Frames; one motion map less."""


@pytest.mark.parametrize(
    ("still", "longest", "end"),
    [((), 0, None), ((3,), 1, 4), ((0, 1, 2, 8, 9, 10), 3, 3), ((5, 6, 8, 9, 10), 3, 11), ((5, 6, 7, 8), 4, 9)],
)
def test_a_freeze_is_the_first_of_the_longest_rows_of_still_frames(
    still: tuple[int, ...], longest: int, end: int | None
) -> None:
    theirs, mine, moving = np.full(20, 8.0), np.full(20, 8.0), np.ones(20, bool)
    mine[list(still)] = 0.9  # less than 0.12 of 8
    assert motion._longest_freeze(mine, theirs, moving, SETTINGS) == (longest, end)
    mine[list(still)] = 0.97
    assert motion._longest_freeze(mine, theirs, moving, SETTINGS) == (0, None)
    mine[list(still)], moving[list(still)] = 0.9, False  # the recording does not move there
    assert motion._longest_freeze(mine, theirs, moving, SETTINGS) == (0, None)


@pytest.mark.parametrize(("share", "limit"), [(1.0, 0.5), (3.0, 0.5), (0.5, 0.25), (0.25, 0.15), (0.1, 0.15)])
def test_a_take_that_moves_less_on_the_whole_stands_still_at_less_down_to_three_tenths(
    share: float, limit: float
) -> None:
    settings = RecordedSettings(still=0.5)
    theirs = np.full(21, 4.0)
    for factor, run in ((0.99, 2), (1.01, 0)):
        mine = share * theirs
        mine[[7, 8]] = 4 * limit * factor
        if mine[7] < mine[0]:
            assert motion._longest_freeze(mine, theirs, np.ones(21, bool), settings)[0] == run


def test_the_worst_window_is_one_of_those_every_five_frames_in_which_the_recording_moves_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = RecordedSettings(window=10, min_moving=3)
    numbers = np.arange(30.0)[:, None, None]
    asked: list[tuple[int, int]] = []

    def agreement(a: np.ndarray, b: np.ndarray) -> float:
        assert a.tolist() == b.tolist()
        asked.append((int(a[0, 0, 0]), int(a[-1, 0, 0])))
        return {0: 0.9, 5: 0.2, 10: np.nan, 15: 0.2, 20: 0.5}[asked[-1][0]]

    monkeypatch.setattr(motion, "agreement", agreement)
    moving = np.ones(30, bool)
    assert motion._worst_window(numbers, numbers, moving, settings) == (0.0, 15)
    assert asked == [(0, 9), (5, 14), (10, 19), (15, 24), (20, 29)]
    moving[10:20] = False  # but for two of the ten of (10, 19)
    moving[[12, 14]] = True
    asked.clear()
    assert motion._worst_window(numbers, numbers, moving, settings) == (0.2, 10)
    moving[13] = True
    assert motion._worst_window(numbers, numbers, moving, settings) == (0.0, 15)
    asked.clear()
    assert motion._worst_window(numbers, numbers, moving & False, settings) == (0.9, None)
    assert asked == [(0, 29)]
    short = motion._worst_window(numbers[:5], numbers[:5], np.array([1, 1, 0, 0, 0], bool), settings)
    assert short == (0.9, 2)  # of five frames two are half


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({0: 1.0}, 0.0), ({2: 1.0}, 2.0), ({-4: 1.0}, -4.0), ({4: 1.0}, 4.0), ({3: 1.0}, 3.0), ({0: 1.0, 1: 0.5}, 1 / 6),
        ({0: 1.0, 1: 1.0}, 0.5), ({-3: 0.9, -4: 0.5, 2: 0.8}, -3 - 0.25 / 1.3),
    ],
)  # fmt: skip
def test_a_lag_is_where_patterns_agree_best_to_a_fraction(
    monkeypatch: pytest.MonkeyPatch, scores: dict[int, float], told: float
) -> None:
    """A frame late is the recording's frame one earlier. Up to a third of the frames either way."""
    numbers = np.arange(12.0)
    asked: list[int] = []

    def agreement(a: np.ndarray, b: np.ndarray) -> float:
        asked.append(round(a[0] - b[0]))
        return scores.get(asked[-1], 0.0)

    monkeypatch.setattr(motion, "agreement", agreement)
    assert motion._lag(numbers, numbers, SETTINGS) == (pytest.approx(told), max(scores.values()))
    assert asked == list(range(-4, 5))
    asked.clear()
    motion._lag(numbers, numbers, RecordedSettings(max_lag=1))
    assert asked == [-1, 0, 1]


def test_where_nothing_moves_patterns_agree_in_nothing() -> None:
    nothing = np.zeros((12, 3, 3), np.float32)
    assert motion._lag(nothing, nothing, SETTINGS) == (-4.0, -1.0)


def maps(amounts: np.ndarray) -> MotionMaps:
    out = np.zeros((len(amounts), 4, 4), np.float32)
    out[:, 1, 2] = amounts
    return MotionMaps(out, np.zeros((len(amounts), 8, 8), np.float32))


@pytest.mark.parametrize(
    ("moves", "amount", "frames", "told"),
    [
        (12, 1.0, COUNT, True),
        (11, 1.0, COUNT, False),
        (40, 0.5, COUNT, True),
        (40, 0.49, COUNT, False),
        (12, 1.0, 13, True),
    ],
)
def test_motion_is_compared_where_the_recording_moves_in_twelve_frames(
    monkeypatch: pytest.MonkeyPatch, moves: int, amount: float, frames: int, told: bool
) -> None:
    amounts = np.zeros(frames - 1)
    amounts[: min(moves, frames - 1)] = amount
    pictures = np.zeros((frames, 16, 16, 3), np.uint8)
    monkeypatch.setattr(motion, "motion_maps", lambda *_: maps(amounts))
    found = motion.measure_recorded(pictures, pictures, SETTINGS)
    assert tuple(m.name for m in found) == motion.NAMES
    if told:
        assert found[4].value == 0
    else:
        assert {m.value for m in found} == {None}
        assert found[0].note.endswith(f"in {min(moves, frames - 1)} frames; 12 are needed to compare motion")


def test_a_frame_moves_from_a_quarter_of_the_typical_motion_on(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = np.full(COUNT - 1, 4.0)
    amounts[:10], amounts[10:20] = 1.0, 1.001
    asked: list[Any] = []
    monkeypatch.setattr(motion, "motion_maps", lambda *_: maps(amounts))
    monkeypatch.setattr(motion, "_longest_freeze", lambda mine, theirs, moving, _: asked.append(moving) or (0, None))
    motion.measure_recorded(
        np.zeros((COUNT, 16, 16, 3), np.uint8), np.zeros((COUNT + 3, 16, 16, 3), np.uint8), SETTINGS
    )
    assert np.flatnonzero(~asked[0]).tolist() == list(range(10))


def fall(accelerations: list[float], fps: float = 10.0) -> np.ndarray:
    """Heights whose second differences are these shares of gravity."""
    speed = np.cumsum(np.concatenate([[0.0], -9.81 * np.array(accelerations) / fps**2]))
    return 5 + np.concatenate([[0.0], np.cumsum(speed)])


@pytest.mark.parametrize(
    ("shares", "flight"),
    [
        ([0, 0, 0], []), ([0, 1, 1, 1, 0], [1, 2, 3, 4, 5]), ([1, 1, 1], [0, 1, 2, 3, 4]), ([0, 0.66, 1.34, 0], [1, 2, 3, 4]),
        ([0, 0.64, 1, 1.36, 0], [2, 3, 4]), ([1, 0, 1, 1, 0, 1, 1], [2, 3, 4, 5]), ([-1, 0], []), ([0, 0, 1], [2, 3, 4]),
    ],
)  # fmt: skip
def test_a_flight_is_the_longest_row_of_frames_that_fall_by_gravity_and_those_beside(
    shares: list[float], flight: list[int]
) -> None:
    assert falls._flight(fall(shares), 10.0).tolist() == flight
    assert falls._flight(fall(shares)[:2], 10.0).tolist() == []


def dropped(frames: int, scale: float, hidden: int = 0, focal: float = 100.0, lost: tuple[int, ...] = ()) -> Any:
    """What `measure_fall` says of an object that falls before a camera that looks along y, with z up, from 2 m away; in the take
    it falls by so many times as much."""
    z = fall([1.0] * (frames - 2))
    poses = np.tile(np.eye(4), (frames, 1, 1, 1))
    poses[:, 0, 1, 3], poses[:, 0, 2, 3] = 2.0, z
    sideways = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    expected = np.stack([np.zeros(frames), -focal * z / 2], 1)
    found = np.stack([np.zeros(frames), -focal * (z[0] + scale * (z - z[0])) / 2], 1)
    found[:hidden] = np.nan
    found[list(lost), 1] += 40 + 7 * np.arange(len(lost))  # something else looks like it there
    truth: Any = SimpleNamespace(
        T_world_part=poses, fps=10.0, T_camera_world=np.tile(sideways, (frames, 1, 1)),
        K=np.tile(np.diag([focal, focal, 1.0]), (frames, 1, 1)),
    )  # fmt: skip
    track: Any = SimpleNamespace(part=0, found=found, expected=expected)
    return falls.measure_fall(track, truth, 0, ["released"] * frames)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(("frames", "hidden", "told"), [(5, 0, True), (4, 0, False), (7, 2, True), (7, 3, False)])
def test_an_acceleration_is_told_of_five_frames_in_flight(frames: int, hidden: int, told: bool, scale: float) -> None:
    found = dropped(frames, scale, hidden)
    assert (found.name, found.applies) == ("fall_acceleration", told)
    if not told:
        assert found.value is None
        assert f"{frames - hidden} frames" in found.note
        return
    assert found.value == pytest.approx(abs(1 - scale), abs=1e-6)
    assert found.note == f"{9.81 * scale:.1f} m/s² over {frames - hidden} frames"
    assert found.worst_frame == frames // 2


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(
    ("lost", "told"), [((4,), True), ((2, 3, 8), True), ((1, 4, 5, 6), True), ((1, 3, 5, 6, 8), False)]
)
def test_what_is_lost_for_moments_of_its_flight_is_judged_by_the_others(
    lost: tuple[int, ...], told: bool, scale: float
) -> None:
    found = dropped(12, scale, lost=lost)
    assert found.applies == told
    if told:
        assert found.value == pytest.approx(abs(1 - scale), abs=1e-6)
        assert found.note == f"{9.81 * scale:.1f} m/s² over {12 - len(lost)} frames"
    else:
        assert "of 12 agree" in found.note


@pytest.mark.parametrize(("focal", "told"), [(101.0, True), (99.0, False)])
def test_a_metre_of_a_fall_is_fifty_px_at_least(focal: float, told: bool) -> None:
    assert (dropped(6, 1.0, focal=focal).value is not None) == told


def test_without_an_object_or_a_flight_nothing_falls() -> None:
    still: Any = SimpleNamespace(T_world_part=np.tile(np.eye(4), (8, 1, 1, 1)), fps=10.0)
    none = falls.measure_fall(None, still, 0, ["before"] * 8)
    assert none.absent
    assert (none.name, none.value, none.note, none.applies) == (falls.NAME, None, "no object that could fall", False)
