# SPDX-License-Identifier: Apache-2.0
"""Only the part of each picture that contours can reach is looked at: what is found there is what the whole picture says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from verdict_scenes import clean_video, scene_episode

from retake.core.verdicts import alignment
from retake.core.verdicts.footage import make_footage
from retake.core.verdicts.truth import Truth, read_truth

HEIGHT, WIDTH = 40, 60
places = st.lists(
    st.tuples(st.floats(0, WIDTH - 1, width=32), st.floats(0, HEIGHT - 1, width=32)), min_size=1, max_size=8
)


@given(places, st.integers(0, 30))
def test_a_window_holds_all_that_contours_reach_and_nothing_beside_the_picture(at: list[Any], reach: int) -> None:
    contours = [SimpleNamespace(xy=np.array(at).reshape(-1, 2)), SimpleNamespace(xy=np.zeros((0, 2)))]
    truth = cast(Truth, SimpleNamespace(contours=contours, size=(WIDTH, HEIGHT)))
    rows, columns = alignment._reached(truth, reach)
    assert 0 <= rows.start < rows.stop <= HEIGHT
    assert 0 <= columns.start < columns.stop <= WIDTH
    held = np.zeros((HEIGHT, WIDTH), bool)
    held[rows, columns] = True
    for x, y in at:
        for dx in (-reach, 0, reach):
            for dy in (-reach, 0, reach):
                u, v = np.clip(round(x + dx), 0, WIDTH - 1), np.clip(round(y + dy), 0, HEIGHT - 1)
                assert held[v, u]
    xs, ys = np.array(at).T
    assert rows.start >= ys.min() - reach - 1
    assert columns.start >= xs.min() - reach - 1
    assert rows.stop <= ys.max() + reach + 2
    assert columns.stop <= xs.max() + reach + 2


def test_without_contours_next_to_nothing_is_looked_at() -> None:
    truth = cast(Truth, SimpleNamespace(contours=[SimpleNamespace(xy=np.zeros((0, 2)))], size=(WIDTH, HEIGHT)))
    assert alignment._reached(truth, 12) == (slice(0, 1), slice(0, 1))


@pytest.mark.parametrize("wider", [0.0, 2.4, -2.4])
def test_scores_are_those_of_the_whole_picture(wider: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise everywhere, so that a pixel that was left out would be missed; contours moved out or in as wide robots' are."""
    count = 4
    noise = np.random.default_rng(3).integers(0, 256, (count, *clean_video().shape[1:]), np.uint8)
    truth = read_truth(scene_episode(), "front", 0, count, 320)
    footage = make_footage(noise, truth)
    girths = [np.full(len(truth.parts), wider)] * 3
    monkeypatch.setattr(alignment, "_girths", lambda *asked: girths)
    found = alignment.align(footage, truth, radius=5, max_lag=2, step=1)
    monkeypatch.setattr(alignment, "_reached", lambda truth, reach: (slice(0, truth.size[1]), slice(0, truth.size[0])))
    whole = alignment.align(footage, truth, radius=5, max_lag=2, step=1)
    assert found.points.any()
    assert found.shift_scores.any()
    np.testing.assert_array_equal(found.shift_scores, whole.shift_scores)
    np.testing.assert_array_equal(found.lag_scores, whole.lag_scores)


def test_how_wide_a_robot_is_drawn_is_looked_for_in_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 4
    noise = np.random.default_rng(4).integers(0, 256, (count, *clean_video().shape[1:]), np.uint8)
    truth = read_truth(scene_episode(), "front", 0, count, 320)
    footage = make_footage(noise, truth)
    still = alignment.scenery_tensor(footage)
    member = {"arm": np.array([bool(part.robot) for part in truth.parts])}
    found = alignment._girth_sums(footage, truth, still, member, [0, 3])
    monkeypatch.setattr(alignment, "_reached", lambda truth, reach: (slice(0, truth.size[1]), slice(0, truth.size[0])))
    whole = alignment._girth_sums(footage, truth, still, member, [0, 3])
    for t in (0, 3):
        assert found[t]["arm"][0] == whole[t]["arm"][0] > 0
        np.testing.assert_array_equal(found[t]["arm"][1], whole[t]["arm"][1])
