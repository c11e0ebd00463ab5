# SPDX-License-Identifier: Apache-2.0
"""`retake tune reward`, experimental: `retake tune run` with a step that follows a reward. One process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retake.core.errors import InputError

from ..oscar.windows import Window
from .clips import Clip
from .latents import collate
from .objects import free_fall
from .reward import RewardConfig, RewardResult, RewardTuner
from .sampling import Choice
from .settings import RunSettings
from .step import Tuner
from .trainer import Trainer


@dataclass(frozen=True)
class RewardSettings(RunSettings):
    """A reward stage: `RunSettings` and what `RewardConfig` says."""

    reward: str = "overlap"
    sample_steps: int = 8
    gradient_steps: int = 1
    anchor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate != 1:
            raise InputError(f"accumulate is {self.accumulate}; a reward step takes one forward pass: give --batch")
        self.config()

    def config(self) -> RewardConfig:
        """What the steps are made of. Raises InputError."""
        return RewardConfig(self.reward, self.sample_steps, self.gradient_steps, self.anchor)


class RewardTrainer(Trainer):
    """`Trainer` whose step samples, decodes and follows a reward; the VAE must be where the model is."""

    def __init__(self, tuner: Tuner, vae: Any, settings: RewardSettings, folder: Path, **data: Any) -> None:
        super().__init__(tuner, settings, folder, **data)
        if self.world.size > 1:
            raise InputError("reward tuning runs in one process as yet; start it without torchrun")
        self.rewarded = RewardTuner(tuner, vae, settings.config())
        self._falls: dict[str, np.ndarray] = {}

    def _step(self, step: int) -> RewardResult:
        s = self.settings
        choices = self.sampler.draw(step, s.batch)
        self.tuner.generator.manual_seed(s.step.seed * 1_000_003 + step)
        parts = collate([self.cache.read(choice) for choice in choices])
        if parts.cells is None or parts.falling is None:
            raise InputError("a reward looks at simulated objects, and these clips have none; leave them out")
        falls = torch.from_numpy(np.stack([self._falling(choice) for choice in choices]))
        return self.rewarded.step(self.batch(choices, step), parts.cells, parts.falling, falls)

    def _curve(self, result: RewardResult, loss: float) -> dict[str, float | None]:
        return {"loss": loss, "reward": result.reward, "grad_norm": result.grad_norm, "lr": result.lr}

    def _falling(self, choice: Choice) -> np.ndarray:
        """Bool (frames of the window): something movable falls."""
        clip = choice.clip
        if clip.uid not in self._falls:
            self._falls[clip.uid] = falling_frames(clip)
        return in_window(self._falls[clip.uid], choice.window)


def falling_frames(clip: Clip) -> np.ndarray:
    """Bool (T,) of a clip: a movable object is between release and settling. Raises InputError without physics."""
    arrays = clip.physics()
    if arrays is None:
        raise InputError(f"a reward looks at simulated objects, and {clip.caption!r} ({clip.domain}) has no physics")
    falls = free_fall(arrays, clip.frames)[:, np.asarray(arrays["object_movable"], bool)]
    return np.asarray(falls.any(axis=1))


def in_window(values: np.ndarray, window: Window) -> np.ndarray:
    """Values (T,) of a clip's frames -> those of a window, the last one repeated where it is padded."""
    found = values[window.start : window.stop]
    return np.concatenate([found, np.repeat(found[-1:], window.length - len(found))])
