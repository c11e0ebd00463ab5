# SPDX-License-Identifier: Apache-2.0
"""Units of recorded joints: what was written in a unit is read back, stated or not, up to the ends of what a joint can do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.importers.units import (
    RANGES,
    UNITS,
    _beyond,
    read_units,
    stated_units,
    unit_of_word,
    units_said,
)
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec

TURN = {"turn": (-1.5, 2.5), "bend": (-0.5, 1.9), "endless": (-np.inf, np.inf)}
SLIDE = {"left": (0.0, 0.04), "lift": (-0.2, 0.6)}
KIND = {**dict.fromkeys(TURN, "revolute"), **dict.fromkeys(SLIDE, "prismatic")}
ENTRIES = {name: f"state.{name}" for name in KIND}
PER_UNIT = {"rad": 1.0, "deg": 180 / math.pi, "m": 1.0, "mm": 1000.0, "width": 2.0}


def robot() -> RobotSpec:
    joints = tuple(
        JointSpec(name, KIND[name], k, k + 1, (0.0, 0.0, 1.0), np.eye(4), np.eye(4), *limits)  # type: ignore[arg-type]
        for k, (name, limits) in enumerate((TURN | SLIDE).items())
    )
    links = tuple(LinkSpec(f"l{k}", f"/r/l{k}") for k in range(len(joints) + 1))
    # The finger is open at 0.01 and closed at 0.035: a share of its travel is one between these.
    return RobotSpec("r", "/r", links, joints, (GripperSpec("g", "l5", np.eye(4), ("left",), (0.01,), (0.035,)),))


def ends(name: str) -> tuple[float, float]:
    return (0.035, 0.01) if name == "left" else (TURN | SLIDE)[name]


def written(name: str, unit: str, q: np.ndarray) -> np.ndarray:
    """Positions as numbers of a unit."""
    if unit in PER_UNIT:
        return q * PER_UNIT[unit]
    (low, high), (first, last) = ends(name), RANGES[unit]
    return first + (q - low) / (high - low) * (last - first)


def moved(name: str, count: int = 21) -> np.ndarray:
    low, high = ends(name) if np.isfinite(ends(name)[0]) else (-3.0, 3.0)
    return np.linspace(low, high, count)


def units_of(name: str) -> list[str]:
    own = ("rad", "deg") if KIND[name] == "revolute" else ("m", "mm", "width")
    return [*own, *(RANGES if name != "endless" else ())]


CASES = [(name, unit) for name in KIND for unit in units_of(name)]


@pytest.mark.parametrize(("name", "unit"), CASES)
@pytest.mark.parametrize("source", ["stated", "stated by the dataset"])
def test_what_was_written_in_a_unit_is_read_back(name, unit, source):
    q = moved(name)
    known = {name: unit}
    stated, named = (known, {}) if source == "stated" else ({}, known)
    (reading,) = read_units(robot(), {name: written(name, unit, q)}, ENTRIES, stated, named=named)
    assert np.allclose(reading(written(name, unit, q)), q, atol=1e-12)
    assert (reading.joint, reading.entry, reading.unit, reading.why) == (name, ENTRIES[name], unit, source)


@pytest.mark.parametrize(("name", "unit"), CASES)
def test_a_calibration_turns_the_numbers_before_the_unit_does(name, unit):
    q = moved(name)
    raw = (written(name, unit, q) - 7.0) / -1.0
    options = {"sign": {name: -1.0}, "offset": {name: 7.0}, "beyond_limits": True}
    (reading,) = read_units(robot(), {name: raw}, ENTRIES, {name: unit}, **options)
    assert np.allclose(reading(raw), q, atol=1e-9)


@given(st.sampled_from(sorted(KIND)), st.floats(-0.02, 0.02))
def test_a_joint_may_stop_a_little_beyond_its_limits(name, more):
    joint = next(j for j in robot().joints if j.name == name)
    low, high = (TURN | SLIDE)[name]
    if name == "endless":
        low, high = -4 * math.pi, 4 * math.pi
    slack = max(0.1 if KIND[name] == "revolute" else 0.003, 0.05 * (high - low))
    middle = (low + high) / 2
    for q in (low - slack * (1 + more), high + slack * (1 + more)):
        found = _beyond(np.array([middle, q, middle]), joint)
        if abs(more) > 1e-9:
            assert found == (q if more > 0 else None)


def test_a_range_may_be_left_by_a_hundredth():
    for unit, (low, high) in RANGES.items():
        for share, fine in ((0.009, True), (0.011, False)):
            for edge in (low - share * (high - low), high + share * (high - low)):
                numbers = {"turn": np.array([low, edge, high])}
                if fine:
                    read_units(robot(), numbers, ENTRIES, {"turn": unit})
                else:
                    with pytest.raises(InputError, match=f"beyond them in {unit}"):
                        read_units(robot(), numbers, ENTRIES, {"turn": unit})


def inferred(**numbers: np.ndarray) -> dict[str, tuple[str, str]]:
    return {r.joint: (r.unit, r.why) for r in read_units(robot(), numbers, ENTRIES, {})}


def test_numbers_within_the_limits_are_rad_and_m():
    found = inferred(turn=moved("turn"), lift=moved("lift"))
    assert {name: unit for name, (unit, _) in found.items()} == {"turn": "rad", "lift": "m"}
    assert "every number lies within its joint's limits in rad" in found["turn"][1]


def test_what_fits_in_one_way_alone_is_taken_that_way():
    found = inferred(turn=written("turn", "deg", moved("turn")), bend=written("bend", "deg", moved("bend")))
    assert {unit for unit, _ in found.values()} == {"deg"}
    assert "2 of 2 revolute joints leave their limits in rad" in found["turn"][1]
    assert "deg alone fits all of them" in found["turn"][1]
    # A range that was clipped at its ends says what it is; degrees would fit, too.
    clipped = np.array([-80.0, 0, 100, 100, 60])
    assert inferred(turn=clipped, bend=np.linspace(-20, 90, 5))["turn"][0] == "-100..100"
    assert inferred(lift=written("lift", "mm", moved("lift")))["lift"][0] == "mm"


def test_what_fits_in_several_ways_is_refused_with_the_one_that_moves_most_first():
    with pytest.raises(InputError, match=r"0\.\.100, -100\.\.100 and deg would fit.*--unit revolute=") as error:
        inferred(turn=np.linspace(0.0, 90, 9))
    assert str(error.value).endswith("--unit revolute=0..100")  # 0 … 90 of 100 is most of the travel
    with pytest.raises(InputError, match="beyond its limits in rad"):
        inferred(turn=np.array([-80.0, 0, 40, 60, 100]))  # once is no clipping


def test_what_fits_in_no_way_is_refused_with_what_would_fit_each_joint():
    with pytest.raises(InputError, match=r"likely: none of the known units"):
        inferred(turn=np.array([0.0, 5000]))
    with pytest.raises(InputError, match=r"the other 2 revolute joints fit rad; likely: --unit bend=deg") as error:
        inferred(turn=moved("turn"), bend=written("bend", "deg", moved("bend")), endless=moved("endless"))
    assert "joint bend (entry 'state.bend': -28.65 … 108.9, limits -0.5 … 1.9 rad)" in str(error.value)


def test_joints_that_never_move_do_not_outvote_those_that_do():
    still = {"turn": np.zeros(9), "endless": np.zeros(9)}
    found = inferred(bend=np.linspace(-28, 105, 9), **still)
    assert found["bend"][0] == found["turn"][0] == "deg"


def test_limits_are_not_looked_at_when_that_was_said():
    wild = {"turn": np.array([0.0, 1e4]), "lift": np.array([0.0, 1e4])}
    readings = read_units(robot(), wild, ENTRIES, {}, beyond_limits=True)
    assert [(r.unit, r.scale, r.shift) for r in readings] == [("rad", 1, 0), ("m", 1, 0)]
    with pytest.raises(InputError, match=r"likely deg|no known unit fits"):
        read_units(robot(), {"turn": wild["turn"]}, ENTRIES, {"turn": "rad"})
    with pytest.raises(InputError, match=r"likely deg or -100\.\.100 .--unit turn=deg."):
        read_units(robot(), {"turn": np.array([-60.0, 90])}, ENTRIES, {"turn": "rad"})


def test_two_statements_that_differ_are_refused_and_equal_ones_are_one():
    numbers = {"turn": np.array([0.0, 30])}
    with pytest.raises(InputError, match=r"itself states deg .* rad was given"):
        read_units(robot(), numbers, ENTRIES, {"turn": "rad"}, named={"turn": "deg"})
    (reading,) = read_units(robot(), numbers, ENTRIES, {"turn": "deg"}, named={"turn": "deg"})
    assert reading.why == "stated"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"all": "0..100"}, dict.fromkeys(KIND, "0..100")),
        ({"all": "deg"}, {**dict.fromkeys(TURN, "deg"), **dict.fromkeys(SLIDE, "m")}),
        ({"all": "mm"}, {**dict.fromkeys(TURN, "rad"), **dict.fromkeys(SLIDE, "mm")}),
        ({"revolute": "deg"}, dict.fromkeys(TURN, "deg")),
        ({"prismatic": "mm"}, dict.fromkeys(SLIDE, "mm")),
        ({"turn": "deg", "revolute": "rad"}, {**dict.fromkeys(TURN, "rad"), "turn": "deg"}),
        ({"state.left": "width", "all": "0..1"}, {**dict.fromkeys(KIND, "0..1"), "left": "width"}),
    ],
)
def test_a_joint_s_own_word_wins_over_its_kind_s(given, wanted):
    assert stated_units(given, robot(), ENTRIES) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nobody": "rad"}, "nobody"),
        ({"turn": "furlong"}, "furlong"),
        ({"turn": "mm"}, "turn is revolute; mm is no unit of it: rad, deg, -100..100"),
        ({"lift": "deg"}, "lift is prismatic; deg is no unit of it: m, mm, width, -100..100"),
        ({"revolute": "m", "all": "0..1"}, "revolute; m is no unit"),
    ],
)
def test_a_unit_that_a_joint_cannot_have_is_refused(given, words):
    with pytest.raises(InputError) as error:
        stated_units(given, robot(), ENTRIES)
    assert words in str(error.value)


def test_a_share_of_no_travel_is_no_position():
    with pytest.raises(InputError, match="endless has no limits"):
        read_units(robot(), {"endless": np.zeros(2)}, ENTRIES, {"endless": "0..1"})


def test_words_for_units():
    assert {unit_of_word(text) for text in (" Radians ", "rad")} == {"rad"}
    assert [unit_of_word(text) for text in ("range_m100_100", "DEGREES", "inch", None)] == [
        "-100..100",
        "deg",
        None,
        None,
    ]
    assert [unit_of_word(u) for u in UNITS] == list(UNITS)
    readings = read_units(robot(), {"turn": np.zeros(2), "lift": np.zeros(2), "bend": np.zeros(2)}, ENTRIES, {})
    said = units_said(readings)
    assert said == [f"turn, bend: rad ({readings[0].why})", f"lift: m ({readings[1].why})"]
