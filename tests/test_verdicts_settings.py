# SPDX-License-Identifier: Apache-2.0
"""Limits of both senses, what is doubtful beside them, how bad a value is, and what follows for a take as a whole."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.verdicts.assess import assess, check_of, overall_of, series_of
from retake.core.verdicts.records import Check, Measurement
from retake.core.verdicts.settings import (
    GENERATED,
    Calibration,
    Family,
    OperatingPoint,
    Threshold,
    VerdictSettings,
    load_settings,
)

ABOVE = Threshold(2.0, "px", "measured", unsure=1.5)
BELOW = Threshold(1.3, "× chance", "measured", unsure=1.6, worse="below", base=1.0)
VALUE = st.floats(-3, 5)


@pytest.mark.parametrize(
    ("limit", "value", "fails", "doubtful"),
    [(ABOVE, 1.5, False, False), (ABOVE, 1.51, False, True), (ABOVE, 2.0, False, True), (ABOVE, 2.01, True, False),
     (BELOW, 1.6, False, False), (BELOW, 1.59, False, True), (BELOW, 1.3, False, True), (BELOW, 1.29, True, False),
     (replace(ABOVE, unsure=None), 2.0, False, False)],
)  # fmt: skip
def test_the_limit_itself_passes_on_either_side(limit: Threshold, value: float, fails: bool, doubtful: bool) -> None:
    assert (limit.fails(value), limit.doubtful(value)) == (fails, doubtful)
    status = "fail" if fails else "unsure" if doubtful else "pass"
    settings = VerdictSettings(thresholds={"x": limit})
    found = check_of(Measurement("x", value, "why", 3), settings)
    assert (found.status, found.value, found.note, found.worst_frame) == (status, value, "why", 3)
    assert (found.threshold, found.unit, found.source) == (limit.limit, limit.unit, limit.source)


@given(VALUE, VALUE, st.sampled_from([ABOVE, BELOW]))
def test_the_worse_value_is_the_more_severe_and_the_limit_is_one(a: float, b: float, limit: Threshold) -> None:
    assert limit.severity(limit.limit) == pytest.approx(1)
    worse, better = (max(a, b), min(a, b)) if limit.worse == "above" else (min(a, b), max(a, b))
    assert limit.severity(worse) >= limit.severity(better) >= 0
    assert limit.severity(a) == pytest.approx(1) or (limit.severity(a) > 1) == limit.fails(a)
    assert BELOW.severity(BELOW.base) == BELOW.severity(-9) == 50
    assert ABOVE.severity(-1) == 0
    assert Threshold(0.0).severity(1.0) == pytest.approx(1e9)


@given(VALUE, st.floats(0.3, 3), st.sampled_from([ABOVE, BELOW]))
def test_a_sharper_point_scales_severity_and_definitions_stay(value: float, factor: float, limit: Threshold) -> None:
    scaled = limit.scaled(factor)
    before, after = limit.severity(value), scaled.severity(value)
    assume(max(before, after) < 49)
    assert after == pytest.approx(before / factor, rel=1e-6)
    assert (scaled.unsure or 0) - limit.base == pytest.approx(
        ((limit.unsure or 0) - limit.base) * (factor if limit.worse == "above" else 1 / factor)
    )
    assert replace(limit, exact=True).scaled(factor) == replace(limit, exact=True)
    assert replace(limit, unsure=None).scaled(factor).unsure is None
    assert limit.scaled(1) == limit


@given(st.floats(0, 60), st.floats(0.5, 9), st.floats(-2, 2))
def test_a_probability_falls_with_the_worst_severity(severity: float, slope: float, bias: float) -> None:
    found = Calibration("x", slope, bias).probability(severity)
    assert found == pytest.approx(1 / (1 + math.exp(bias) * max(severity, 1e-3) ** slope), rel=1e-6, abs=1e-9)
    assert Calibration("x", 60, 0).probability(1e9) == pytest.approx(math.exp(-60))
    assert Calibration("x", 60, 0).probability(0) == pytest.approx(1)


def settings(**more: object) -> VerdictSettings:
    known = {"a": ABOVE, "b": BELOW, "c": replace(ABOVE, exact=True)}
    return replace(VerdictSettings(thresholds=known, calibration=Calibration("bench", 4.0, 0.0)), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "overall", "probability"),
    [([("a", 0.2, True)], "pass", 0.9999), ([("a", 0.2, True), ("b", 1.4, True)], "unsure", 0.5),
     ([("a", 1.0, True), ("b", None, True)], "unsure", 0.5), ([("a", 1.0, True), ("b", None, False)], "pass", 0.9412),
     ([("a", 4.0, True), ("b", None, True)], "fail", 0.0588), ([("a", float("nan"), False)], "pass", 0.5), ([], "pass", 0.5)],
)  # fmt: skip
def test_the_worst_check_decides_and_what_cannot_be_told_is_an_even_chance(
    measured: list[tuple[str, float | None, bool]], overall: str, probability: float
) -> None:
    found = assess([Measurement(n, v, applies=applies) for n, v, applies in measured], settings())
    assert (found["overall"], found["calibration"]) == (overall, "bench")
    assert found["probability"] == pytest.approx(probability, abs=2e-4)
    untold = [c.status for c in found["checks"] if c.value is None]
    assert untold == ["unsure" if a else "skipped" for _, v, a in measured if v is None or math.isnan(v)]


def test_a_failure_outweighs_a_doubt() -> None:
    def checks(*statuses: str) -> tuple[Check, ...]:
        return tuple(Check("x", status, None, None, "", "") for status in statuses)  # type: ignore[arg-type]

    assert overall_of(checks("pass", "unsure", "fail", "skipped")) == "fail"
    assert overall_of(checks("pass", "unsure", "skipped")) == "unsure"
    assert overall_of(checks("pass", "skipped")) == "pass"
    assert series_of(np.array([1.5, np.nan, np.inf, 0])) == (1.5, None, None, 0.0)


def test_families_have_limits_of_their_own_whose_doubt_keeps_its_share() -> None:
    point = {"balanced": OperatingPoint(1.0), "strict": OperatingPoint(0.5)}
    known = settings(
        operating_points=point, families={GENERATED: Family("films"), "composite": Family("takes", {"a": 4.0})}
    )
    own = known.of_domain("composite")
    assert (own.threshold("a").limit, own.threshold("a").unsure, own.threshold("b")) == (4.0, 3.0, BELOW)
    assert own.calibrated_on == "bench; limits of composite takes: takes"
    assert settings().calibrated_on == "bench"
    assert known.of_domain("nobody") is known.of(GENERATED) is known
    assert own.of("composite") is own
    strict = known.at("strict")
    assert (strict.threshold("a").limit, strict.threshold("c").limit, strict.operating_point) == (1.0, 2.0, "strict")
    assert strict.of("composite").threshold("a") == replace(ABOVE, limit=2.0, unsure=1.5)
    assert strict.at("balanced").threshold("b").limit == pytest.approx(BELOW.limit)
    for wrong in (
        lambda: own.of(GENERATED),
        lambda: known.of("x"),
        lambda: known.at("x"),
        lambda: known.threshold("x"),
    ):
        with pytest.raises(InputError):
            wrong()
    assert settings().of(GENERATED).family == GENERATED


def test_a_file_of_ones_own_changes_what_it_states(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("thresholds: {lag: {limit: 3.0}}\noperating_point: strict\nmin_frames: 4\n")
    found, known = load_settings(own), load_settings()
    factor = known.operating_points["strict"].scale
    assert found.threshold("lag").limit == pytest.approx(3.0 * factor)
    assert found.threshold("arm_offset").limit == pytest.approx(known.threshold("arm_offset").limit * factor)
    assert (found.min_frames, found.operating_point, known.operating_point) == (4, "strict", "balanced")
    assert found.threshold("recording_lag").limit == pytest.approx(known.threshold("recording_lag").limit * factor)
    own.write_text("- 1\n")
    with pytest.raises(InputError, match="expected a mapping of settings, found list"):
        load_settings(own)
