# SPDX-License-Identifier: Apache-2.0
"""Scores, intervals and causes of a few worlds whose divergences are round numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retake.core.robustness.analysis import (
    Attribution,
    Score,
    WorldResult,
    _group_means,
    _same_partition,
    _test,
    attribute,
    bootstrap_score,
    moving_entries,
    sentence,
)
from retake.core.robustness.run import _truth_error, _Window


def world(divergence: float, run: str = "r", **axes: str) -> WorldResult:
    return WorldResult(run, "w", "t", axes, np.full((2, 1, 3), float(divergence)), 0.0)


def test_a_frame_s_divergence_is_the_mean_over_the_horizon_of_the_root_mean_square():
    deviation = np.array([[[3.0, 4], [0, 0]], [[1, 1], [1, -1]]])
    one = WorldResult("r", "w", "t", {}, deviation, 0.0)
    assert one.per_frame == pytest.approx([np.sqrt(12.5) / 2, 1])
    assert one.divergence == pytest.approx((np.sqrt(12.5) / 2 + 1) / 2)


def test_an_entry_moves_from_its_kind_s_least_deviation_on():
    """Two values that are 2 s apart deviate by s."""
    truth = np.array([[0.0] * 6, [0.021, 0.019, 0.0041, 0.0039, 0.041, 0.039]])
    kinds = ("arm", "arm", "fingers", "fingers", "gripper", "other")
    moving, scale = moving_entries(truth, kinds)
    assert moving.tolist() == [True, False, True, False, True, True]
    assert scale == pytest.approx([0.0105, 0.01, 0.00205, 0.002, 0.0205, 0.0195])
    moving, scale = moving_entries(truth * 0.01, kinds)
    assert moving.all(), "where nothing moves everything counts"
    assert scale == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.02, 0.01])


def test_the_interval_is_that_of_worlds_drawn_again():
    assert bootstrap_score([world(0.25)] * 3) == Score(75, 75, 75)
    assert bootstrap_score([world(1.5)] * 2) == Score(0, 0, 0)
    two = bootstrap_score([world(0.2), world(0.4)])
    assert (two.value, two.low, two.high) == pytest.approx((70, 60, 80))
    runs = bootstrap_score([world(0.2, "a"), world(0.2, "a"), world(0.6, "b")])
    assert (runs.value, runs.low, runs.high) == pytest.approx((100 * 2 / 3, 40, 80)), (
        "runs are drawn, then their worlds"
    )
    assert bootstrap_score([world(0.2), world(0.4)], seed=3, samples=50) == bootstrap_score(
        [world(0.2), world(0.4)], seed=3, samples=50
    )


def test_groups_and_partitions():
    found = _group_means(np.array([[1.0, 0], [3, 2], [10, 5]]), np.array(["a", "a", "b"]))
    assert found.tolist() == [[2, 1], [2, 1], [10, 5]]
    same, other = np.array(["a", "a", "b"]), np.array(["x", "y", "y"])
    assert _same_partition(same, np.array(["y", "y", "x"]))
    assert not _same_partition(same, other)
    assert not _same_partition(same, np.array(["x", "y", "z"]))
    assert not _same_partition(np.array(["x", "y", "z"]), same)


def test_what_explains_everything_is_told_from_what_explains_nothing():
    labels, rng = np.array(["a"] * 6 + ["b"] * 6), np.random.default_rng(0)
    runs = np.array(["r"] * 12)
    response = np.where(labels == "a", 1.0, -1.0)[:, None]
    share, p = _test(response, labels, runs, rng, 199)
    assert share == pytest.approx(1)
    assert 1 / 200 <= p <= 0.03
    turned = np.tile([1.0, -1.0], 6)[:, None]
    share, p = _test(turned, labels, runs, rng, 199)
    assert share == 0
    assert p == 1, "every other order explains as much"
    assert _test(response * 0, labels, runs, rng, 9) == (0, 1)
    # Where each run has one value the labels cannot be exchanged, and nothing is proved.
    share, p = _test(response, labels, labels, rng, 99)
    assert (share, p) == (0, 1)


def test_a_share_of_chance_is_one_at_most_however_many_axes_are_asked():
    same = [world(0.2, lighting=a, surface=b, look=c) for a, b, c in zip("aabb", "abab", "abba", strict=True)]
    found = attribute(same, permutations=50)
    assert {a.axis: a.values for a in found if a.values > 1} == {"lighting": 2, "surface": 2, "look": 2}
    assert {a.p_value for a in found} == {1.0}
    assert {(a.explained, a.effect, a.weakness) for a in found} == {(0.0, 0.0, False)}
    noisy = [replace(w, deviation=np.random.default_rng(k).normal(size=(2, 3, 2))) for k, w in enumerate(same)]
    assert all(0 < a.p_value <= 1 for a in attribute(noisy, permutations=50))


def test_a_cause_is_named_with_its_worst_value_and_its_twins():
    worlds = [
        world(
            0.1 + 0.8 * (k % 2),
            lighting="dim" if k % 2 else "bright",
            look=f"l{k % 2}",
            surface=f"s{k % 3}",
            subject="bun",
        )
        for k in range(12)
    ]
    found = {one.axis: one for one in attribute(worlds, permutations=300)}
    named = [one for one in found.values() if one.weakness]
    assert len(named) == 1
    assert {named[0].axis} <= {"lighting", "look"}
    light = found["lighting"]
    assert light.per_value == {"bright": pytest.approx(0.1), "dim": pytest.approx(0.9)}
    assert (light.worst_value, light.values, light.confounded_with) == ("dim", 2, ("look",))
    assert named[0].explained == pytest.approx(1)
    assert named[0].effect == pytest.approx(np.sqrt((0.1**2 + 0.9**2) / 2))
    assert named[0].p_value < 0.05
    assert found["subject"] == Attribution(
        "subject", 1, 0, 0, 1, False, (), "bun", {"bun": pytest.approx(0.5)}
    )  # fmt: skip
    assert (found["clutter"].per_value, found["clutter"].worst_value) == ({}, "")
    assert found["surface"].explained < 0.01
    assert next(iter(attribute(worlds, permutations=300))).axis == named[0].axis, "the strongest first"
    still = attribute([world(0.0, lighting=x) for x in "abab"], permutations=20)
    assert all((one.explained, one.effect, one.weakness) == (0, 0, False) for one in still)


WEAK = Attribution("lighting", 2, 0.456, 0.3, 0.01, True, (), "dim")


@pytest.mark.parametrize(
    ("value", "axes", "noise", "words"),
    [(99.6, [], 0.0, "Invariant: changing only the pixels does not change the actions."),
     (99.5, [], 0.0, "The actions change with the pixels, and no single visual axis explains it with these worlds."),
     (50, [replace(WEAK, weakness=False)], 0.25,
      "The actions change with the pixels, and no single visual axis explains it with these worlds (the policy differs from "
      "itself by 0.250 on identical pixels)."),
     (99.9, [WEAK], 0.1, "Weak to lighting, which explains 46% of the change (worst: 'dim')."),
     (50, [replace(WEAK, confounded_with=("look", "surface")), replace(WEAK, axis="clutter")], 0.0,
      "Weak to lighting (or look, surface: same worlds), which explains 46% of the change (worst: 'dim'); clutter, which "
      "explains 46% of the change (worst: 'dim').")],
)  # fmt: skip
def test_the_verdict_in_words(value, axes, noise, words):
    assert sentence(Score(value, 0, 100), axes, noise) == words


def test_predictions_are_compared_with_the_actions_that_follow_as_far_as_there_are_any():
    """From frame 0 the actions 0 and 1 are foretold as 1 and 1; from frame 2 the action 2 as 5, and nothing follows it."""
    window = object.__new__(_Window)
    object.__setattr__(window, "frames", (0, 2))
    object.__setattr__(window, "truth", np.array([[0.0, 9], [1, 9], [2, 9]]))
    actions = np.array([[[1.0, 0], [1, 0]], [[5, 0], [9, 0]]])
    moving, scale = np.array([True, False]), np.array([2.0, 1.0])
    assert _truth_error(window, actions, moving, scale) == pytest.approx(np.sqrt((0.5**2 + 0 + 1.5**2) / 3))
