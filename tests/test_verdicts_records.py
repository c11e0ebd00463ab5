# SPDX-License-Identifier: Apache-2.0
"""A verdict in words: the worst status decides, a reason is one line, and JSON holds numbers that can be read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.verdicts.records import Check, Verdict, check_to_json, reason_of, row_text, worst_of


def verdict(*checks: Check) -> Verdict:
    return Verdict("unsure", 0.123456, "bench 3", checks, "front", 2, 6, 15.0, (96, 72), "0" * 64)


@given(st.lists(st.sampled_from(["pass", "fail", "unsure"]), max_size=4))
def test_the_worst_status_decides(statuses: list[str]) -> None:
    order = [name for name in ("fail", "unsure", "pass") if name in statuses]
    assert worst_of(statuses) == (order[0] if order else "unsure")


def test_what_a_check_fails_for_is_one_line() -> None:
    found = Check("lag", "fail", 2.34567, 0.5, "frames", "", "late")
    assert reason_of(found) == "lag: 2.35 frames, limit 0.5 (late)"
    assert reason_of(replace(found, note="", unit="")) == "lag: 2.35, limit 0.5"
    assert reason_of(replace(found, value=None)) == reason_of(replace(found, threshold=None)) == "lag: late"
    assert row_text("a/front", "fail", 0.12345, ["x: 1", "y"]) == f"{'a/front':<32} fail    p=0.123  x: 1; y"
    assert row_text("a", "pass", "front, wrist", []) == f"{'a':<32} pass    front, wrist"
    ranked = verdict(*(Check(n, n, 1.0, 2.0, "", "") for n in ("pass", "unsure", "fail", "skipped")))  # type: ignore[arg-type]
    assert [reason.partition(":")[0] for reason in ranked.reasons] == ["fail", "unsure"]


def test_a_check_is_found_by_its_name_or_the_valid_ones_are_told() -> None:
    found = verdict(Check("lag", "pass", 0.1, 1.0, "", ""), Check("seams", "fail", 2.0, 1.0, "", ""))
    assert found.check("seams").status == "fail"
    with pytest.raises(KeyError, match="no check 'x'; valid: lag, seams"):
        found.check("x")
    assert [replace(found, overall=overall).exit_code for overall in ("pass", "fail", "unsure")] == [0, 3, 4]  # type: ignore[arg-type]


def test_json_has_four_digits_and_no_number_that_is_none() -> None:
    odd = Check("lag", "fail", float("nan"), float("inf"), "frames", "measured", "late", 4, "worst_lag.png")
    assert check_to_json(odd) == {
        "name": "lag", "status": "fail", "value": None, "threshold": None, "unit": "frames", "source": "measured",
        "detail": "late", "worst_frame": 4, "picture": "worst_lag.png", "absent": False,
    }  # fmt: skip
    told = replace(verdict(odd), series={"lag": (1.23456, None)}, metrics={"iou": 0.98764, "none": None}).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["probability"], told["series"], told["metrics"]) == (
        0.1235,
        {"lag": [1.2346, None]},
        {"iou": 0.9876, "none": None},
    )
    assert (told["overall"], told["status"], told["size"], told["reasons"]) == (
        "unsure",
        "unsure",
        [96, 72],
        ["lag: nan frames, limit inf (late)"],
    )
