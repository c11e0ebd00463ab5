# SPDX-License-Identifier: Apache-2.0
"""A step cache calibrated by what it costs: steps whose blocks change the tokens as the step before did reuse that change.

The idea is that of TeaCache and MagCache (arXiv 2411.19108, 2506.09045): what the blocks add to the tokens moves slowly
between neighbouring steps. Theirs decide by thresholds fitted to other models. Ours measures: exact runs give the relative
change per step (`profile`), a budget of accumulated change decides which steps reuse (`plan_skips`), and the largest budget
whose final latents stay within the error asked for, on the same seeds, is kept (`calibrate`). The schedule is fixed
afterwards: nothing is compared while a take runs, so the card never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from retake.core.codec import decode, encode
from retake.core.errors import InputError
from retake.core.files import read_json, write_json

FIRST_STEPS, LAST_STEPS = 2, 1
"""Steps at both ends that always compute: the first decide the picture, the last its detail."""
BISECTIONS = 6


@dataclass(frozen=True)
class Calibration:
    """Which of a run's evaluations reuse the blocks' last change, and what that was measured to cost.

    evaluations: per guidance branch, OSCAR's N + 1. error: relative RMS difference of the final latents, the worst seed.
    changes: per evaluation, the mean relative change of what the blocks add, against the evaluation before (first: 1).
    """

    revision: str
    evaluations: int
    guidance: float
    skips: tuple[int, ...]
    target: float
    error: float
    changes: tuple[float, ...]
    seeds: tuple[int, ...]

    def save(self, path: Path) -> None:
        """As JSON."""
        write_json(path, encode(self))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """From JSON. Raises InputError."""
        try:
            found: Calibration = decode(cls, read_json(path), str(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} is no step-cache calibration: {error}; `retake bench oscar --calibrate` makes one"
            ) from None
        return found


class Residuals:
    """What the blocks added to the tokens in the last computed evaluation, per guidance branch."""

    def __init__(self, skips: Sequence[int] = (), record: bool = False) -> None:
        self.skips, self._record = frozenset(skips), record
        self._kept: dict[str, Tensor] = {}
        self._index, self._branch = 0, ""
        self.changes: dict[int, list[float]] = {}
        """Per evaluation, one relative change per branch; filled while recording."""
        self.reuses = 0

    def begin(self, index: int, branch: str) -> None:
        """The next forward is this evaluation of this branch."""
        if index == 0:
            self._kept.pop(branch, None)
        self._index, self._branch = index, branch

    def reset(self) -> None:
        """Another take, or one that goes on elsewhere: what was kept belongs to the past."""
        self._kept.clear()

    def reused(self) -> Tensor | None:
        """What to add instead of running the blocks; None: run them."""
        kept = self._kept.get(self._branch)
        if self._index not in self.skips or kept is None:
            return None
        self.reuses += 1
        return kept

    def keep(self, after: Tensor, before: Tensor) -> None:
        """The blocks ran: remember what they added."""
        added = after - before
        last = self._kept.get(self._branch)
        if self._record and last is not None:
            change = float((added - last).float().norm() / last.float().norm().clamp(min=1e-20))
            self.changes.setdefault(self._index, []).append(change)
        self._kept[self._branch] = added


def plan_skips(changes: Sequence[float], budget: float) -> tuple[int, ...]:
    """Evaluations that reuse: as long as the change that would be missed adds up to no more than the budget."""
    skips, missed = [], 0.0
    for index in range(FIRST_STEPS, len(changes) - LAST_STEPS):
        if missed + changes[index] <= budget:
            missed += changes[index]
            skips.append(index)
        else:
            missed = 0.0
    return tuple(skips)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """RMS difference over RMS, of final latents."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def calibrate(
    pipe: Any, run: Callable[[int], Tensor], seeds: Sequence[int], target: float, evaluations: int, guidance: float
) -> Calibration:
    """The schedule with most reuse whose final latents stay within `target` of exact ones on these seeds.

    `run(seed)` gives final latents through `pipe`. Raises InputError for a target that means nothing.
    """
    if not 0 < target < 1 or not seeds:
        raise InputError(
            f"target {target} with {len(seeds)} seeds; give a relative error above 0 and below 1, and a seed or more"
        )
    recorder = pipe.transformer.residuals = Residuals(record=True)
    try:
        exact = []
        for seed in seeds:
            recorder.reset()
            exact.append(run(seed))
        changes = tuple(
            sum(found) / len(found) if (found := recorder.changes.get(index)) else 1.0 for index in range(evaluations)
        )
        kept: tuple[tuple[int, ...], float] = ((), 0.0)
        tried: dict[tuple[int, ...], float] = {(): 0.0}
        low, high = 0.0, sum(changes)
        for _ in range(BISECTIONS):
            budget = (low + high) / 2
            skips = plan_skips(changes, budget)
            if skips not in tried:
                pipe.transformer.residuals = Residuals(skips)
                tried[skips] = max(
                    relative_error(run(seed), reference) for seed, reference in zip(seeds, exact, strict=True)
                )
            if tried[skips] <= target:
                low = budget
                if len(skips) > len(kept[0]):
                    kept = skips, tried[skips]
            else:
                high = budget
    finally:
        pipe.transformer.residuals = None
    return Calibration(
        pipe.model_revision,
        evaluations,
        float(guidance),
        kept[0],
        target,
        kept[1],
        changes,
        tuple(int(s) for s in seeds),
    )


def check_calibration(found: Calibration, revision: str, evaluations: int, guidance: float) -> None:
    """Raises InputError where a calibration was made for something else than what runs now."""
    differs = {
        "model revision": (found.revision, revision), "evaluations": (found.evaluations, evaluations),
        "guidance": (found.guidance, float(guidance)),
    }  # fmt: skip
    for what, (made, now) in differs.items():
        if made != now:
            raise InputError(
                f"the step cache was calibrated for {what} {made}, this run has {now}; calibrate it again "
                "(`retake bench oscar --calibrate`)"
            )
