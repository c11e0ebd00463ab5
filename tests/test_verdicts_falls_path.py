# SPDX-License-Identifier: Apache-2.0
"""An object in free fall is wrong for a frame alone only on its way; anywhere else it must be seen twice in a row."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.verdicts.objects import _distance, _phase, on_path
from retake.core.verdicts.settings import ObjectSettings
from retake.core.verdicts.tracking import Track

N = 12
FALLING = np.isin(np.arange(N), (4, 5, 6, 7))
WAY = np.array([[100.0, 40.0]] * 4 + [[100, 45], [101, 60], [103, 85], [104, 110]] + [[104, 112.0]] * 4)


def seen(found: dict[int, tuple[float, float]]) -> Track:
    """A track along WAY, elsewhere in some frames."""
    places = WAY.copy()
    for t, place in found.items():
        places[t] = place
    score, nowhere = np.full(N, 0.8), np.full((N, 2), np.nan)
    return Track(0, places, WAY, score, score, score * 0, nowhere, 0.8, np.zeros((N, 2, 2), np.float32))


def released(found: dict[int, tuple[float, float]]) -> float | None:
    track = seen(found)
    error = np.linalg.norm(track.found - track.expected, axis=1)
    falls = on_path(track, FALLING, 12.0)
    return _phase("object_released", error, FALLING, np.ones(N, bool), falls, ObjectSettings()).value


def test_a_look_alike_beside_the_way_for_one_frame_is_no_flight() -> None:
    assert released({5: (140.0, 50.0)}) == 0.0


@pytest.mark.parametrize("t", [4, 5, 6, 7])
def test_one_frame_too_early_or_too_late_on_the_way_counts(t: int) -> None:
    late = tuple(WAY[t - 1]) if t > 4 else (104.0, 110.0)
    assert released({t: late}) == pytest.approx(np.hypot(*(WAY[t] - late)))


@pytest.mark.parametrize("t", [4, 5, 6])
def test_two_frames_beside_the_way_count(t: int) -> None:
    beside = {t: (140.0, 50.0), t + 1: (150.0, 50.0)}
    assert released(beside) == pytest.approx(min(np.hypot(*(WAY[k] - place)) for k, place in beside.items()))


def test_where_nothing_is_found_nothing_lies_on_the_way() -> None:
    track = seen({5: (np.nan, np.nan)})
    assert on_path(track, FALLING, 12.0)[[4, 5, 6]].tolist() == [True, False, True]
    hidden = replace(track, expected=np.full((N, 2), np.nan))
    assert not on_path(hidden, FALLING, 12.0).any()
    assert not on_path(track, np.zeros(N, bool), 12.0).any()


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=6),
    st.tuples(st.floats(-80, 80), st.floats(-80, 80)),
)
def test_the_distance_to_a_way_is_that_to_its_nearest_point(
    way: list[tuple[float, float]], point: tuple[float, float]
) -> None:
    corners, at = np.array(way), np.array(point)
    dense = [a + (b - a) * k / 400 for a, b in pairwise(corners) for k in range(401)]
    nearest = min(float(np.hypot(*(p - at))) for p in (*corners, *dense))
    found = _distance(at, corners)
    assert found <= nearest + 1e-6
    assert found >= nearest - 0.3, "no nearer than the densely drawn way"
