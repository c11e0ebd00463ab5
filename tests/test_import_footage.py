# SPDX-License-Identifier: Apache-2.0
"""What recorded clocks, pictures and actions say about themselves, up to the last value that passes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.export.records import Segment
from retake.core.importers.footage import (
    TOLERANCE_S,
    Grid,
    StillWatch,
    _period,
    _ranges,
    action_notes,
    check_actions,
    check_clock,
    grid,
)


@given(st.integers(1, 40), st.integers(5, 60), st.floats(-5, 5), st.booleans())
def test_rows_on_the_clock_are_the_frames(length, fps, start, stamped):
    stamps = start + np.arange(length) / fps if stamped else None
    found = grid(stamps, length, fps, resample=False, where="x")
    assert np.array_equal(found.time_s, np.arange(length) / fps)
    assert np.array_equal(found.row, np.arange(length))
    rows = np.random.default_rng(length).normal(size=(length, 3))
    assert np.array_equal(found.vectors(rows), rows)


@pytest.mark.parametrize("start", [0.0, 100.0])
def test_a_row_may_be_off_by_a_millisecond(start):
    for share, fine in ((0.9, True), (1.2, False)):
        for row in (1, 4):
            stamps = start + np.arange(6) / 30
            stamps[row] += share * (TOLERANCE_S + start * 2.0**-22)
            if fine:
                grid(stamps, 6, 30, resample=False, where="x")
            else:
                with pytest.raises(InputError, match=f"row {row} is at .*, where {row} / 30 is"):
                    grid(stamps, 6, 30, resample=False, where="x")


def test_a_clock_of_another_rate_is_named_and_brought_to_the_wanted_one():
    stamps = 3.0 + np.arange(31) / 15
    with pytest.raises(InputError, match=r"the rows run at 15\.000 per second, info\.json says 30"):
        grid(stamps, 31, 30, resample=False, where="x")
    found = grid(stamps, 31, 30, resample=True, where="x")
    assert np.allclose(found.time_s, np.arange(61) / 30)
    assert np.allclose(found.place, np.arange(61) / 2)
    assert np.abs(found.row - np.arange(61) / 2).max() < 0.5 + 1e-9
    rows = np.stack([np.arange(31.0) ** 2, -np.arange(31.0)], -1)
    between = found.vectors(rows)
    assert np.allclose(between[::2], rows)
    assert np.allclose(between[1::2], (rows[1:] + rows[:-1]) / 2)


def test_a_grid_that_is_shifted_reads_between_rows():
    rows = np.array([[0.0], [10.0], [20.0]])
    assert Grid(np.zeros(3), np.zeros(3, int), np.array([0.0, 1.0, 2.0])).vectors(rows).ravel().tolist() == [0, 10, 20]
    assert Grid(np.zeros(2), np.zeros(2, int), np.array([0.5, 1.25])).vectors(rows).ravel().tolist() == [5, 12.5]


@pytest.mark.parametrize(
    ("stamps", "bad"),
    [([0, 1, 1, 2], 2), ([0, 1, 0.5, 2], 2), ([0, np.nan, 2, 3], 1), ([0, 1, 2, np.inf], 3), ([0, 0], 1)],
)
def test_times_that_do_not_grow_are_refused_by_number(stamps, bad):
    for resample in (True, False):
        with pytest.raises(InputError, match=f"timestamp of row {bad} is {np.asarray(stamps, float)[bad]:g} s"):
            grid(np.array(stamps, float), len(stamps), 1, resample=resample, where="x")


def test_one_row_is_a_recording():
    assert grid(np.array([7.0]), 1, 30, resample=True, where="x").time_s.tolist() == [0.0]


def told(pictures: list[np.ndarray], moves: np.ndarray) -> list[str]:
    stills = StillWatch(moves)
    for k, picture in enumerate(pictures):
        stills.see("front", k, picture)
    return list(stills.notes())


def test_pictures_that_stand_still_while_joints_move_are_told():
    def picture(at: int) -> np.ndarray:
        out = np.full((60, 80, 3), 90, np.uint8)
        out[20:40, 10 + at : 30 + at] = 200
        return out

    count = 20
    joints = np.stack([np.linspace(0, 2, count), np.zeros(count)], -1)
    assert told([picture(k) for k in range(count)], joints) == []
    (note,) = told([picture(k // 4 * 4) for k in range(count)], joints)
    assert "front stand still while joints move in 15 of 19 moving frames (1-3, 5-7, 9-11, 13-15, 17-19)" in note
    assert "about 4 rows share a picture" in note
    (note,) = told([picture(min(k, 10)) for k in range(count)], joints)
    assert "in 9 of 19 moving frames (11-19)" in note
    assert "share" not in note
    assert told([picture(k - (k == 7)) for k in range(count)], joints) == []  # once is nothing
    assert told([picture(0)] * count, np.zeros((count, 2))) == []  # who stands still shows one picture


def test_frames_in_words_are_ranges_five_at_most():
    assert _ranges([3]) == "3"
    assert _ranges([3, 4, 5, 9, 11, 12]) == "3-5, 9, 11-12"
    assert _ranges([1, 3, 5, 7, 9]) == "1, 3, 5, 7, 9"
    assert _ranges([1, 3, 5, 7, 9, 11]) == "1, 3, 5, 7, 9, …"


def test_a_period_is_told_where_it_is_regular():
    moving = np.arange(40)
    assert _period([k for k in moving if k % 3], moving) == 3
    assert _period([], moving) == 0
    assert _period(list(moving), moving) == 0
    assert _period([k for k in moving if k not in (0, 2, 9, 11, 25)], moving) == 0
    assert _period([k for k in moving if k % 5 or k == 20], moving) == 5  # five gaps of six
    assert _period([k for k in moving if k % 5 or k in (10, 25)], moving) == 0


RNG = np.random.default_rng(3)
STATE = np.cumsum(RNG.normal(0, 0.05, (60, 2)), axis=0)


def actions(change=lambda a: a) -> np.ndarray:
    target = np.concatenate([STATE[1:], STATE[-1:]])
    out = target.copy()
    out[:, 0] = change(target[:, 0])
    return out


def test_a_constant_offset_of_the_action_is_told():
    assert action_notes(("a", "b"), STATE, actions()) == []
    (note,) = action_notes(("a", "b"), STATE, actions(lambda a: a + 0.03))
    assert "joint a: the action is +0.030 from the state that follows it throughout (spread 0.000)" in note
    assert len(action_notes(("a", "b"), STATE, actions(lambda a: a - 0.021))) == 1
    assert action_notes(("a", "b"), STATE, actions(lambda a: a + 0.019)) == []
    noise = np.tile([-0.02, -0.01, 0.0, 0.01, 0.02], 12)
    assert len(action_notes(("a", "b"), STATE, actions(lambda a: a + 0.065 + noise))) == 1
    assert action_notes(("a", "b"), STATE, actions(lambda a: a + 0.055 + noise)) == []  # not six times its spread
    assert action_notes(("a", "b"), STATE[:5], actions(lambda a: a + 1)[:5]) != []
    assert action_notes(("a", "b"), STATE[:4], actions(lambda a: a + 1)[:4]) == []


def test_an_action_in_another_unit_or_of_changes_is_refused():
    check_actions(("a", "b"), STATE, actions(), "x")
    check_actions(("a", "b"), STATE, actions(lambda a: a + 0.3), "x")
    for scale, unit in ((180 / np.pi, "deg"), (np.pi / 180, "rad")):
        with pytest.raises(
            InputError, match=f"joint a is off the state by .* and fits it as {unit}: .*--action-unit a={unit}"
        ):
            check_actions(("a", "b"), STATE, actions(lambda a, s=scale: a * s), "x")
    step = np.concatenate([np.diff(STATE[:, 0]), [0.0]])
    with pytest.raises(InputError, match="joint a follows the state's changes"):
        check_actions(("a", "b"), STATE, actions(lambda a: step), "x")
    check_actions(("a", "b"), STATE[:4], actions(lambda a: step)[:4], "x")
    with pytest.raises(InputError, match="joint a follows"):
        check_actions(("a", "b"), STATE[:5], actions(lambda a: step)[:5], "x")
    still = STATE * [0.0, 1.0]
    target = np.concatenate([still[1:], still[-1:]])
    target[:, 0] += 3.0
    check_actions(("a", "b"), still, target, "x")  # a joint that never moves says nothing


@pytest.mark.parametrize(("late_us", "fine"), [(0, True), (1900, True), (-1900, True), (2100, False), (-2100, False)])
def test_a_picture_may_be_off_its_row_by_a_hundredth_of_a_frame_and_a_millisecond(tmp_path, late_us, fine):
    """2 ms at 10 per second; told by the picture's number in the episode, whose first is the file's third."""
    av = pytest.importorskip("av")
    path, clock = tmp_path / "a.mp4", Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 10)
        number = 0
        for k in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * k, np.uint8), format="rgb24")
            picture.pts, picture.time_base = k, Fraction(1, 10)
            for packet in (*stream.encode(picture), *(stream.encode(None) if k == 4 else ())):
                at = 9000 * number + (90 * late_us // 1000 if number == 3 else 0)
                packet.pts, packet.dts, packet.time_base, number = at, at, clock, number + 1
                stream.time_base = clock
                container.mux(packet)
    segment = Segment(path, 2, 3)
    if fine:
        check_clock(segment, 10, "x")
    else:
        with pytest.raises(
            InputError, match=r"x: picture 1 of a\.mp4 is at 0\.(302|297)\d s, where row 1 is at 0\.3000 s"
        ):
            check_clock(segment, 10, "x")
    with pytest.raises(InputError, match="has 3 pictures from frame 2; the episode has 4 rows"):
        check_clock(Segment(path, 2, 4), 10, "x")
