# SPDX-License-Identifier: Apache-2.0
"""The re-roll loop: delivers only what passed, counts what it cost, stops when the budget is spent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import Cancelled, InputError
from retake.core.verdicts import Budget, reroll


@dataclass(frozen=True)
class Answer:
    overall: str
    probability: float
    reasons: tuple[str, ...] = ()


class Machine:
    """Makes takes that are faulty with a given rate, and a clock that each attempt moves by three seconds."""

    def __init__(self, seed: int, fault_rate: float) -> None:
        self.rng, self.rate, self.now = np.random.default_rng(seed), fault_rate, 0.0

    def make(self, slot: int, number: int) -> tuple[int, int, bool, float]:
        self.now += 2.0
        return slot, number, bool(self.rng.random() < self.rate), float(self.rng.random())

    def judge(self, take: tuple[int, int, bool, float]) -> Answer:
        self.now += 1.0
        bad, probability = take[2], take[3]
        return Answer("fail", 0.1, ("lag: 3 frames",)) if bad else Answer("pass", probability)

    def clock(self) -> float:
        return self.now


@given(
    seed=st.integers(0, 10**6), rate=st.floats(0, 1), slots=st.integers(0, 8), attempts=st.integers(1, 5),
    best_of=st.booleans(), total=st.none() | st.integers(1, 20), seconds=st.none() | st.floats(0, 60),
)  # fmt: skip
def test_only_passes_are_delivered_and_the_budget_holds(
    seed: int, rate: float, slots: int, attempts: int, best_of: bool, total: int | None, seconds: float | None
) -> None:
    machine = Machine(seed, rate)
    report = reroll(
        machine.make, machine.judge, slots, Budget(attempts, total, seconds), best_of=best_of, clock=machine.clock
    )
    assert all(a.status == "pass" and not a.take[2] for a in report.delivered.values())
    assert len(report.attempts) <= min(slots * attempts, total or 10**9)
    assert report.cost_s == pytest.approx(3.0 * len(report.attempts))
    if seconds is not None:
        assert machine.now <= seconds + 3.0
    for slot in range(slots):
        mine = [a for a in report.attempts if a.slot == slot]
        assert [a.number for a in mine] == list(range(len(mine)))
        passed = [a for a in mine if a.status == "pass"]
        assert bool(passed) == (slot in report.delivered)
        if passed:
            assert report.delivered[slot].probability == max(a.probability for a in passed)
        if not best_of:
            assert len(passed) <= 1
        if not report.stopped and not passed:
            assert len(mine) == attempts
    assert report.rejected_for.get("lag", 0) == sum(a.status == "fail" for a in report.attempts)
    if report.delivered:
        assert report.cost_per_accepted_s == pytest.approx(report.cost_s / len(report.delivered))
    else:
        assert report.cost_per_accepted_s is None


def test_a_round_is_finished_before_anyone_gets_a_second_chance() -> None:
    machine = Machine(1, 1.0)
    report = reroll(machine.make, machine.judge, 3, Budget(5, total_attempts=4), clock=machine.clock)
    assert [(a.slot, a.number) for a in report.attempts] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert report.stopped == "4 attempts were allowed in all"
    assert report.to_json()["slot_yield"] == 0


def test_no_budget_is_refused_and_cancelling_stops() -> None:
    with pytest.raises(InputError, match="at least one"):
        Budget(0)

    def cancel() -> None:
        raise Cancelled("stop")

    machine = Machine(1, 0.0)
    with pytest.raises(Cancelled):
        reroll(machine.make, machine.judge, 1, Budget(1), clock=machine.clock, check_cancel=cancel)
