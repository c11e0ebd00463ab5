# SPDX-License-Identifier: Apache-2.0
"""How a probe is trained. Without torch: the command line explains itself anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retake.core.errors import InputError, unknown_name
from retake.worker.probe.augment import AUGMENTATIONS

PACKS = "packs"
"""Where packed data sets lie in a policy's folder, unless --packs names another."""
LARGEST = {"batch": 1 << 16, "threads": 1024}
"""More is a slip, which would end in a MemoryError, or in a system without threads to give."""


@dataclass(frozen=True)
class Settings:
    """How the probe is trained; the same for every data set that is compared."""

    steps: int = 6000
    batch: int = 64
    rate: float = 1e-3
    seed: int = 0
    augment: str = "none"
    threads: int = 1
    shuffle_actions: bool = False
    """Control: targets of other frames. What is learnt from them must fail."""
    shares: tuple[float, ...] = ()
    """Share of each batch from each pack; empty = by their numbers of frames."""

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTATIONS:
            raise InputError(unknown_name("augmentation", self.augment, AUGMENTATIONS))
        for name in ("steps", "batch", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected one or more")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"rate is {self.rate}; expected a number above zero")
        for name, most in LARGEST.items():
            if getattr(self, name) > most:
                raise InputError(f"{name} is {getattr(self, name)}; expected {most} at most")
        if not 0 <= self.seed < 1 << 64:
            raise InputError(f"seed is {self.seed}; expected zero or more, and below 2**64")
        if self.shares and (min(self.shares) < 0 or not 0 < sum(self.shares) < math.inf):
            raise InputError(f"shares are {list(self.shares)}; expected numbers, zero or more, not all zero")
