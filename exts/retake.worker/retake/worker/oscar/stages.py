# SPDX-License-Identifier: Apache-2.0
"""What a run of takes asks of the pipeline whose stages it uses; the pipeline knows the run, the run only this."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .output import RunStats
from .tiers import Tier


@runtime_checkable
class SafetyChecker(Protocol):
    """An optional hook. Each method returns None for "fine", or the reason for refusing."""

    def check_prompt(self, prompt: str) -> str | None: ...

    def check_frames(self, frames: np.ndarray) -> str | None:
        """`frames` uint8 RGB (T, H, W, 3) of one take."""
        ...


class Stages(Protocol):
    """The models of a pipeline, where they run, and what a run leaves behind for the next one."""

    transformer: Any
    vae: Any
    scheduler: Any
    safety_checker: SafetyChecker | None
    control_latents: dict[Any, Tensor]
    """Latents of the last control windows, on the CPU."""
    stats: RunStats
    guidance_interval: tuple[float, float] | None
    """Sigmas between which guidance is on; None: always."""

    @property
    def tier(self) -> Tier: ...

    @property
    def run_device(self) -> torch.device: ...

    def stage(self, name: str, *modules: Any) -> AbstractContextManager[None]:
        """Time a stage, with its modules on the device where the tier moves them."""
        ...
