# SPDX-License-Identifier: Apache-2.0
"""The re-roll loop: make a take, judge it, make it again with the next seed (or setting) until it passes or the budget
is spent; deliver only what passed, and say what that cost and why the rest was rejected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.files import write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import take_id
from retake.core.run_store import open_run
from retake.core.takes import Take, TakeRequest, VideoBackend, make_take
from retake.core.verdicts.run import SUMMARY, summary, verify_run, verify_take
from retake.core.verdicts.settings import VerdictSettings

Made = TypeVar("Made")


class Judgement(Protocol):
    """What the loop needs of a verdict."""

    @property
    def overall(self) -> str:
        """pass, fail or unsure."""
        ...

    @property
    def probability(self) -> float:
        """Calibrated probability that the take is faultless."""
        ...

    @property
    def reasons(self) -> Sequence[str]:
        """Why it did not pass, each beginning with the check's name and a colon."""
        ...


@dataclass(frozen=True)
class Budget:
    """When to stop."""

    attempts: int
    """Attempts per slot (K of best-of-K)."""
    total_attempts: int | None = None
    """Attempts over all slots."""
    seconds: float | None = None
    """Wall time over all slots; checked before an attempt begins."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or (self.total_attempts is not None and self.total_attempts < 1):
            raise InputError(f"a re-roll budget needs at least one attempt; found {self}")


@dataclass(frozen=True)
class Attempt(Generic[Made]):
    """One take that was made and judged."""

    slot: int
    number: int
    """0 is the first attempt of its slot."""
    take: Made
    status: str
    probability: float
    reasons: tuple[str, ...]
    cost_s: float


@dataclass(frozen=True)
class RerollReport(Generic[Made]):
    """Everything that was made, and what is delivered."""

    delivered: dict[int, Attempt[Made]]
    """Slot -> its best passing attempt."""
    attempts: tuple[Attempt[Made], ...]
    slots: int
    stopped: str = ""
    """Why slots were left over: the budget, in words; empty when every slot was tried to its end."""
    rejected_for: dict[str, int] = field(default_factory=dict)
    """Check name -> attempts it rejected."""

    @property
    def slot_yield(self) -> float:
        """Delivered slots over slots."""
        return len(self.delivered) / self.slots if self.slots else 0.0

    @property
    def attempt_yield(self) -> float:
        """Passing attempts over attempts."""
        return sum(a.status == "pass" for a in self.attempts) / len(self.attempts) if self.attempts else 0.0

    @property
    def cost_s(self) -> float:
        """Seconds spent on all attempts."""
        return sum(a.cost_s for a in self.attempts)

    @property
    def cost_per_accepted_s(self) -> float | None:
        """All seconds over delivered takes; None when nothing was delivered."""
        return self.cost_s / len(self.delivered) if self.delivered else None

    def to_json(self) -> dict[str, Any]:
        """Counts and costs, without the takes themselves."""
        return {
            "slots": self.slots,
            "delivered": len(self.delivered),
            "attempts": len(self.attempts),
            "slot_yield": self.slot_yield,
            "attempt_yield": self.attempt_yield,
            "cost_s": self.cost_s,
            "cost_per_accepted_s": self.cost_per_accepted_s,
            "rejected_for": self.rejected_for,
            "stopped": self.stopped,
        }


def reroll(
    make: Callable[[int, int], Made],
    judge: Callable[[Made], Judgement],
    slots: int,
    budget: Budget,
    *,
    best_of: bool = False,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> RerollReport[Made]:
    """Fill `slots`: `make(slot, number)` makes attempt `number` of a slot (its own seed or setting), `judge` judges it.

    A slot ends at its first pass, or, with `best_of`, after `budget.attempts` attempts, when its most probable pass is
    delivered. What is not a pass is never delivered. Slots are served round by round, so a budget that runs out has
    given every slot the same number of chances.
    """
    attempts: list[Attempt[Made]] = []
    delivered: dict[int, Attempt[Made]] = {}
    rejected: dict[str, int] = {}
    began, stopped = clock(), ""
    limit = slots * budget.attempts if budget.total_attempts is None else budget.total_attempts
    for number in range(budget.attempts):
        for slot in range(slots):
            if slot in delivered and not best_of:
                continue
            if len(attempts) >= limit and limit < slots * budget.attempts:
                stopped = f"{limit} attempts were allowed in all"
            elif budget.seconds is not None and clock() - began >= budget.seconds:
                stopped = f"{budget.seconds:g} s were allowed"
            if stopped:
                return RerollReport(delivered, tuple(attempts), slots, stopped, rejected)
            check_cancel()
            start = clock()
            take = make(slot, number)
            verdict = judge(take)
            attempt = Attempt(
                slot, number, take, verdict.overall, verdict.probability, tuple(verdict.reasons), clock() - start
            )
            attempts.append(attempt)
            if attempt.status == "pass":
                if slot not in delivered or attempt.probability > delivered[slot].probability:
                    delivered[slot] = attempt
            else:
                for reason in attempt.reasons:
                    name = reason.split(":", 1)[0]
                    rejected[name] = rejected.get(name, 0) + 1
            progress(len(delivered), slots, f"{len(attempts)} attempts")
    return RerollReport(delivered, tuple(attempts), slots, "", rejected)


@dataclass(frozen=True)
class _Row:
    """A verdict read from disk."""

    data: Mapping[str, Any]

    @property
    def overall(self) -> str:
        return str(self.data["overall"])

    @property
    def probability(self) -> float:
        return float(self.data["probability"])

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(self.data["reasons"])


def reroll_run(
    run_dir: Path,
    backend: VideoBackend,
    attempts: int,
    *,
    settings: Sequence[Mapping[str, Any]] = (),
    config: VerdictSettings | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> RerollReport[Take]:
    """Make every take of a run that did not pass again, `attempts` more times at most, each with the next seed.

    `settings[k]` overrides the backend's settings in the k-th further attempt. New takes lie beside the failed one
    (takes/<variant>-s<seed>); verdicts/reroll.json reports yield, cost and reasons. Takes that are there are kept.
    """
    run = open_run(run_dir)
    rows = verify_run(run_dir, silent, check_cancel, config)
    failed = [row for row in rows if row["overall"] != "pass"]
    episode = open_episode(run.episode)

    def make(slot: int, number: int) -> Take:
        before = run.take(failed[slot]["take"])
        extra = dict(settings[number]) if number < len(settings) else {}
        request = TakeRequest(
            episode=run.episode,
            camera=before.camera,
            skeleton=run.skeleton(before.camera),
            variant=run.variant_folder(before.variant),
            prompt=before.prompt,
            negative_prompt=before.negative_prompt,
            seed=before.seed + number + 1,
            frames=before.frames,
            start=before.start,
            settings={**before.settings, **extra},
        )
        out = run.take_folder(take_id(before.variant, backend.name, request.seed, request.start))
        return make_take(request, backend, out, extra=before.extra, check_cancel=check_cancel)

    def judge(take: Take) -> _Row:
        return _Row(verify_take(run, take, episode, config, check_cancel))

    report = reroll(make, judge, len(failed), Budget(max(attempts, 1)), progress=progress, check_cancel=check_cancel)
    made = {attempt.take.id: attempt.take for attempt in report.attempts}
    every = rows + [verify_take(run, take, episode, config, check_cancel) for take in made.values()]
    write_json(run.verdicts_folder / SUMMARY, summary(every))
    write_json(run.verdicts_folder / "reroll.json", report.to_json())
    return report
