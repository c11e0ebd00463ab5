# SPDX-License-Identifier: Apache-2.0
"""Base against tuned: every figure of the comparison against its own definition. Of retake.worker.tune.evaluate."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.worker.tune.evaluate import interval, page, sign_flip_p, summarise


def exact_p(gains: list[float]) -> float:
    signs = itertools.product((-1, 1), repeat=len(gains))
    return float(np.mean([abs(np.dot(one, gains)) >= abs(sum(gains)) - 1e-12 for one in signs]))


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_a_chance_is_counted_over_all_signs(values):
    moved = [float(value) for value in values if value]
    assert sign_flip_p(np.array(values, float)) == pytest.approx(exact_p(moved) if moved else 1)


def test_beyond_twelve_pairs_signs_are_drawn():
    gains = np.random.default_rng(3).normal(0.4, 1, 13)
    assert sign_flip_p(gains[:12]) == pytest.approx(exact_p(gains[:12].tolist()))
    assert sign_flip_p(gains) == pytest.approx(exact_p(gains.tolist()), abs=0.03)
    assert 0 < sign_flip_p(np.ones(40)) < 1e-3
    assert sign_flip_p(np.array([*np.ones(20), *-np.ones(20)])) == 1
    few = sign_flip_p(np.ones(40), draws=9)
    assert few == pytest.approx(0.1), "with nine draws nothing is rarer than one in ten"


def test_an_interval_holds_the_middle_ninety_five_of_a_hundred():
    assert interval(np.array([2.0])) == (-math.inf, math.inf)
    assert interval(np.array([2.0, 2.0])) == (2, 2)
    gains = np.random.default_rng(0).normal(1, 1, 400)
    low, high = interval(gains)
    sure = 1.96 * gains.std() / 20
    assert gains.mean() - low == pytest.approx(sure, rel=0.12)
    assert high - gains.mean() == pytest.approx(sure, rel=0.12)
    assert interval(gains) == (low, high)


def pairs(base: list[Any], tuned: list[Any], name: str = "lag", **more: Any) -> list[dict[str, Any]]:
    return [
        {"run": "r", "variant": "v<1>", "seed": k, "object": "box", "band": "no drop", "seen": False,
         "base": {"video": "b.mp4", "probability": 0.5, "failed": 0.0, name: a},
         "tuned": {"video": "t.mp4", "probability": 0.75, "failed": 1.0, name: b}, **more}
        for k, (a, b) in enumerate(zip(base, tuned, strict=True))
    ]  # fmt: skip


def rows(found: dict[str, Any], group: str = "all") -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["rows"] if row["group"] == group}


@pytest.mark.parametrize(
    ("name", "sign"), [("lag", -1), ("object_l2", -1), ("object_iou", 1), ("probability", 1), ("failed", -1)]
)
def test_a_gain_is_positive_where_the_tuned_model_is_better(name, sign):
    row = rows(summarise(pairs([1.0, 2.0, 3.0], [2.0, 4.0, 3.0], name)))[name]
    assert (row["base"], row["tuned"], row["gain"], row["pairs"]) == (2.0, 3.0, sign * 1.0, 3)


def test_a_pair_counts_where_both_videos_gave_a_number():
    found = rows(summarise(pairs([1.0, None, 3.0], [2.0, 4.0, None])))
    assert (found["lag"]["pairs"], found["lag"]["base"], found["lag"]["tuned"]) == (1, 1.0, 2.0)
    assert found["probability"]["pairs"] == 3
    assert "lag" not in rows(summarise(pairs([None], [1.0])))
    assert not any("video" in row["name"] for row in summarise(pairs([1.0], [1.0]))["rows"])


def test_an_arm_is_blamed_for_what_is_surely_worse_of_the_arm():
    sure = [1.0 + 0.01 * k for k in range(8)]
    assert summarise(pairs(sure, [value + 1 for value in sure]))["arm_follows_worse"] == ["lag"]
    assert summarise(pairs(sure, [value - 1 for value in sure]))["arm_follows_worse"] == [], "better"
    assert summarise(pairs(sure, [value + 1 for value in sure], "object_l2"))["arm_follows_worse"] == [], "not the arm"
    few = summarise(pairs(sure[:3], [value + 1 for value in sure[:3]]))
    assert rows(few)["lag"]["high"] < 0
    assert few["arm_follows_worse"] == [], "three pairs may be chance"
    mixed = pairs(sure, [1.0] * 8) + pairs(
        sure, [value + 1 for value in sure], object="cup", band="drop of 10 cm or more"
    )
    found = summarise(mixed)
    assert [rows(found, group)["lag"]["pairs"] for group in ("all", "box", "cup", "no drop")] == [16, 8, 8, 8]


def test_a_page_shows_every_pair_and_says_what_is_sure():
    made = pairs([1.0, 1.0, 2.0], [3.0, 3.0, 4.0])
    made[0]["seen"], made[0]["base"]["arm_offset"] = True, 1.234
    found = summarise(made)
    text = page({**found, "arm_follows_worse": ["lag"]})
    assert text.count("<video") == 6
    assert text.count("v&lt;1&gt;") == 3
    assert "v<1>" not in text
    assert "seed 0 · box, no drop, seen in training" in text
    assert "seed 1 · box, no drop, new motion" in text
    assert "base: arm 1.23 px, p = 0.50<" in text
    assert "tuned: p = 0.75, failed<" in text
    assert "The arm follows worse: lag" in text
    assert "The arm does not follow worse" in page({**found, "arm_follows_worse": []})
    cell = {
        low: page({**found, "rows": [{**found["rows"][0], "low": low, "high": high}]})
        for low, high in ((1, 2), (-2, -1), (-1, 1))
    }
    assert [("'n good'" in cell[low], "'n bad'" in cell[low], "'n soft'" in cell[low]) for low in (1, -2, -1)] == [
        (True, False, False), (False, True, False), (False, False, True),
    ]  # fmt: skip
    zero = page({**found, "rows": [{**found["rows"][0], "low": 0, "high": 0}]})
    assert "'n soft'" in zero
