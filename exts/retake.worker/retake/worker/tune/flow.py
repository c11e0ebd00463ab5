# SPDX-License-Identifier: Apache-2.0
"""Rectified flow as OSCAR trains it: which noise level a step sees, what the target is, how much the step counts.

Source: the reference's training step (wuzy2115/oscar @4dea2f6, `rectified_flow.py`, `text2world_model_rectified_flow.py`).
A step draws u in (0, 1), takes entry floor(1000 u) of the shifted schedule (u near 1 is *little* noise) and does not
truncate the timestep, unlike sampling.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from retake.core.errors import InputError, unknown_name

LEVELS = 1000  # noise levels of the training schedule
TIME_WEIGHTS = ("uniform", "reweighting")


@lru_cache(maxsize=8)
def _schedule(shift: float) -> tuple[Tensor, Tensor]:
    """Float32 timesteps (LEVELS,) on the 0..1000 scale and sigmas (LEVELS,) on 0..1, both falling."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=LEVELS, shift=shift)
    return scheduler.timesteps.clone(), scheduler.sigmas[:LEVELS].clone()


def draw_u(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """Logit-normal draws in (0, 1), float32 (B,)."""
    return torch.sigmoid(torch.randn(batch, generator=generator))


def noise_levels(u: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    """Draws u (B,) -> float32 timestep (B, 1) on the 0..1000 scale, sigma (B, 1) on 0..1. Raises InputError outside [0, 1)."""
    if not bool(((u >= 0) & (u < 1)).all()):
        raise InputError(f"u holds {u.tolist()}; a noise level is drawn from 0 (all noise) to below 1 (no noise)")
    timesteps, sigmas = _schedule(float(shift))
    index = (u.float().cpu() * LEVELS).long()
    return timesteps[index][:, None].to(u.device), sigmas[index][:, None].to(u.device)


@lru_cache(maxsize=8)
def _time_weights(shift: float) -> Tensor:
    """The reference's "reweighting": a bell around timestep 500, shifted to end at zero, with mean one. Float32 (LEVELS,)."""
    timesteps, _ = _schedule(shift)
    bell = torch.exp(-2 * ((timesteps - LEVELS / 2) / LEVELS) ** 2)
    bell = bell - bell.min()
    return bell * (LEVELS / bell.sum())


def time_weight(timestep: Tensor, kind: str, shift: float) -> Tensor:
    """How much the loss of each sample counts: timestep (B, 1) -> float32 (B,). Raises InputError for unknown kinds."""
    if kind not in TIME_WEIGHTS:
        raise InputError(unknown_name("time weight", kind, TIME_WEIGHTS))
    if kind == "uniform":
        return torch.ones(timestep.shape[0], device=timestep.device)
    timesteps, _ = _schedule(float(shift))
    # one nearest level per sample; the reference takes one index for the whole batch
    index = (timesteps[None, :] - timestep.flatten().cpu()[:, None]).abs().argmin(dim=1)
    return _time_weights(float(shift))[index].to(timestep.device)


def interpolate(x0: Tensor, epsilon: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and noise (B, C, T, h, w), sigma (B, 1) -> noisy latents and target velocity, same shape."""
    level = sigma.reshape(-1, 1, 1, 1, 1)
    return epsilon * level + x0 * (1 - level), epsilon - x0
