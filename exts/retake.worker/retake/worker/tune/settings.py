# SPDX-License-Identifier: Apache-2.0
"""A whole training run's settings: the step's own (`TuneConfig`) and everything around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retake.core.errors import InputError

from .config import TuneConfig


@dataclass(frozen=True)
class RunSettings:
    """What `retake tune run` is told.

    Attributes:
        steps: updates in all. batch: windows per process and forward. accumulate: forwards per update.
        frames: window length (1 + 4k). size: (width, height) of the model. stride: grid of window starts, frames.
        domains: share per domain (empty: by number of frames). balance: by frames^(1/3) instead.
        validation: share of source episodes kept for validation. validate_every, save_every: steps. keep: checkpoints.
        picture_steps: Euler steps of the pictures drawn at each validation (0: none).
        data_seed: which windows are drawn. shuffle_objects: the control experiment (places of objects permuted).
    """

    step: TuneConfig = field(default_factory=TuneConfig)
    steps: int = 1000
    batch: int = 1
    accumulate: int = 1
    frames: int = 81
    size: tuple[int, int] = (640, 480)
    fit: str = "squeeze"
    stride: int = 8
    domains: Mapping[str, float] = field(default_factory=dict)
    balance: bool = False
    validation: float = 0.0
    validate_every: int = 100
    save_every: int = 100
    keep: int = 3
    picture_steps: int = 8
    data_seed: int = 0
    shuffle_objects: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "stride", "validate_every", "save_every", "keep"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; valid: a whole number from 1")
        if not isinstance(self.picture_steps, int) or not 0 <= self.picture_steps <= 35:
            raise InputError(f"picture_steps is {self.picture_steps!r}; valid: 0 (no pictures) to 35")
        if any(side < 16 or side % 16 for side in self.size):
            raise InputError(f"size is {self.size[0]}x{self.size[1]}; both must be positive multiples of 16")
        if (self.frames - 1) % 4:
            raise InputError(f"frames is {self.frames}; a window has 1 + 4k frames (81 is OSCAR's)")

    def to_json(self) -> dict[str, Any]:
        """Plain values; equal settings give equal JSON."""
        return asdict(self)
