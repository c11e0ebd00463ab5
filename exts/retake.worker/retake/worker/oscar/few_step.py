# SPDX-License-Identifier: Apache-2.0
"""Few-step students: a model folder whose `student.json` says how its distilled transformer wants to be sampled.

    {"steps": 4, "sampler": "consistency", "guidance": 0.0, "sigmas": [0.995, 0.94, 0.82, 0.55]}

`sigmas` may be left out: then they are spaced evenly over OSCAR's own schedule. Guidance is off unless the file says
otherwise, because distillation bakes it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retake.core.codec import decode
from retake.core.errors import InputError, unknown_name
from retake.core.files import read_json

FILE = "student.json"
SAMPLERS = ("consistency", "ode")


@dataclass(frozen=True)
class Student:
    """How a distilled transformer is sampled; `steps` evaluations per guidance branch. Raises InputError."""

    steps: int
    sampler: Literal["consistency", "ode"] = "consistency"
    guidance: float = 0.0
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 32:
            raise InputError(f"a student has 1 to 32 steps; found {self.steps}")
        if self.sampler not in SAMPLERS:
            raise InputError(unknown_name("sampler of a student", self.sampler, SAMPLERS))
        if not self.sigmas:
            object.__setattr__(self, "sigmas", even_sigmas(self.steps))
        falling = all(a > b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False))
        if len(self.sigmas) != self.steps or not falling or not 0 < self.sigmas[-1] <= self.sigmas[0] < 1:
            raise InputError(
                f"a student of {self.steps} steps needs {self.steps} falling sigmas between 0 and 1; found {list(self.sigmas)}"
            )

    @property
    def label(self) -> str:
        """For outputs."""
        return f"student:{self.steps}:{self.sampler}"


def even_sigmas(steps: int) -> tuple[float, ...]:
    """`steps` sigmas taken evenly from OSCAR's schedule of 35 steps, beginning at its first."""
    from .schedule import DEFAULT_STEPS, make_scheduler, start_schedule

    scheduler = make_scheduler()
    start_schedule(scheduler, DEFAULT_STEPS, "cpu")
    whole = scheduler.sigmas.tolist()[:-1]
    return tuple(whole[round(index * len(whole) / steps)] for index in range(steps))


def read_student(folder: Path) -> Student | None:
    """The student of a model folder; None where it is no student. Raises InputError for a file that makes no sense."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return decode(Student, read_json(path), str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is unusable: {error}") from None


def renoise_seed(seed: int, step: int) -> int:
    """The seed of the noise that a consistency sampler adds after a step: far from those of takes and windows."""
    return (seed + 104_729 * (step + 1)) % 2**32
