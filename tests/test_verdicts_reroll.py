# SPDX-License-Identifier: Apache-2.0
"""The re-roll loop: delivers only what passed, counts what it cost, stops when the budget is spent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.errors import Cancelled, InputError
from retake.core.files import write_json
from retake.core.progress import never, silent
from retake.core.run_layout import take_id
from retake.core.run_store import RunDirectory, create_run
from retake.core.takes import TakeRequest, make_take
from retake.core.variants import load_catalogue, make_variants
from retake.core.verdicts import Budget, reroll
from retake.core.verdicts.reroll import reroll_run
from retake.core.verdicts.run import summary, verify_take


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


class Noise:
    """A video backend whose takes never pass."""

    name, version, domain, licence, reads_seed = "noise", "1", "generated", "Apache-2.0", True

    def __init__(self) -> None:
        self.asked: list[TakeRequest] = []

    def generate(self, request, progress=silent, check_cancel=never):
        self.asked.append(request)
        rng = np.random.default_rng(request.seed)
        for _ in range(request.frames):
            yield rng.integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)


FRAMES, SIZE = 5, (96, 72)


@pytest.fixture
def rejected(tmp_path: Path) -> tuple[RunDirectory, Noise]:
    """A run whose two takes, of seeds 5 and 9, fail."""
    episode = make_scene_episode(tmp_path / "episode", frames=FRAMES + 2, size=SIZE, shadows=False)
    run, backend = create_run(tmp_path / "run", {}, episode.path), Noise()
    write_json(run.skeleton("front") / "skeleton.json", {"sha256": "ab" * 32})
    make_variants(episode, "front", run.variants_folder, worlds=[load_catalogue().preset("kitchen")])
    for seed in (5, 9):
        request = TakeRequest(
            run.episode, "front", run.skeleton("front"), run.variant_folder("kitchen/front"), "p", "n", seed, FRAMES, 1,
            {"steps": 4, "guidance": 2.0},
        )  # fmt: skip
        folder = run.take_folder(take_id("kitchen/front", backend.name, seed, 1))
        verify_take(run, make_take(request, backend, folder, extra={"window": 1}), episode)
    backend.asked.clear()
    return run, backend


def test_takes_that_failed_are_made_again_with_the_next_seeds(rejected: tuple[RunDirectory, Noise]) -> None:
    run, backend = rejected
    done: list[tuple[int, int, str]] = []
    settings = [{"steps": 9}]
    report = reroll_run(run.path, backend, 2, settings=settings, progress=lambda *told: done.append(told))
    assert [(r.seed, r.settings["steps"]) for r in backend.asked] == [(6, 9), (10, 9), (7, 4), (11, 4)]
    assert {(r.prompt, r.negative_prompt, r.frames, r.start, r.settings["guidance"]) for r in backend.asked} == {
        ("p", "n", FRAMES, 1, 2.0)
    }
    assert sorted(take.seed for take in run.takes()) == [5, 6, 7, 9, 10, 11]
    assert {take.extra["window"] for take in run.takes()} == {1}
    assert done == [(0, 2, f"{k} attempts") for k in (1, 2, 3, 4)]
    told = json.loads((run.verdicts_folder / "reroll.json").read_text())
    assert (told["slots"], told["delivered"], told["attempts"], told["stopped"]) == (2, 0, 4, "")
    assert json.loads((run.verdicts_folder / "summary.json").read_text())["takes"] == 6
    assert report.delivered == {}
    assert sum(report.rejected_for.values()) >= 4


def test_at_least_one_further_attempt_is_made(rejected: tuple[RunDirectory, Noise]) -> None:
    run, backend = rejected
    assert len(reroll_run(run.path, backend, 0).attempts) == 2
    assert [r.seed for r in backend.asked] == [6, 10]


def test_what_rejects_most_is_told_first() -> None:
    def row(overall: str, *failed: str, unsure: tuple[str, ...] = ()) -> dict[str, object]:
        checks = [{"name": n, "status": s} for names, s in ((failed, "fail"), (unsure, "unsure")) for n in names]
        return {"overall": overall, "checks": [{"name": "size", "status": "pass"}, *checks]}

    rows = [
        row("pass"),
        row("fail", "lag"),
        row("fail", "fall", "lag", unsure=("seams",)),
        row("unsure", unsure=("fall",)),
    ]
    told = summary(rows)
    assert told == {
        "takes": 4, "pass": 1, "fail": 2, "unsure": 1, "yield": 0.25, "rejected_for": {"lag": 2, "fall": 1},
    }  # fmt: skip
    assert list(told["rejected_for"]) == ["lag", "fall"]
    assert summary([])["yield"] is None
