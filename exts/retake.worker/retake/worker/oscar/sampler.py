# SPDX-License-Identifier: Apache-2.0
"""The guided sampling loop of one take: float32 state, network in its own dtype, OSCAR's first-frame rule.

Rules, all of them the reference's: the given frame replaces latent frame 0 in the network's input only; frame 0 is
shown timestep 0.1; its predicted velocity is replaced by (noise - given); guidance is v_c + g * (v_c - v_u).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from .schedule import net_timesteps, start_schedule
from .transformer import OscarTransformer3DModel

StepHook = Callable[[int, int, dict[str, Tensor]], "Tensor | None"]


@dataclass(frozen=True)
class Conditions:
    """What one take is denoised from; tensors on the execution device.

    noise: float32 (1, 16, T, h, w). given: float32 (1, 16, 1, h, w), latents of the first frame.
    control: tokens (1, T*h*w/4, C) from `embed_control` (and `embed_objects`).
    text, negative: projected (1, L, D); negative None = no guidance.
    """

    noise: Tensor
    given: Tensor
    control: Tensor
    text: Tensor
    negative: Tensor | None


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """OSCAR's guidance form: g = 6 here is s = 7 in the form u + s * (c - u)."""
    return conditional + guidance * (conditional - unconditional)


def evaluate(
    transformer: OscarTransformer3DModel, conditions: Conditions, state: Tensor, timesteps: Tensor, batched: bool
) -> tuple[Tensor, Tensor | None]:
    """Float32 velocities (1, 16, T, h, w) of the two branches, as the network gives them."""
    shown = torch.cat([conditions.given, state[:, :, 1:]], dim=2)
    mask = torch.zeros_like(shown[:, :1])
    mask[:, :, 0] = 1
    common: dict[str, Any] = {"text_is_projected": True, "control_tokens": conditions.control}
    same_length = conditions.negative is not None and conditions.negative.shape == conditions.text.shape

    if batched and conditions.negative is not None and same_length and not transformer.is_cache_enabled:
        both = transformer(
            hidden_states=shown.expand(2, -1, -1, -1, -1),
            timestep=timesteps.expand(2, -1),
            encoder_hidden_states=torch.cat([conditions.text, conditions.negative]),
            condition_mask=mask.expand(2, -1, -1, -1, -1),
            **common,
        ).sample.float()
        return both[:1], both[1:]

    def branch(name: str, text: Tensor) -> Tensor:
        # a cache keeps one state per branch; without one the context is a no-op
        with transformer.cache_context(name) if transformer.is_cache_enabled else nullcontext():
            return transformer(
                hidden_states=shown,
                timestep=timesteps,
                encoder_hidden_states=text,
                condition_mask=mask,
                **common,
            ).sample.float()

    conditional = branch("cond", conditions.text)
    return conditional, None if conditions.negative is None else branch("uncond", conditions.negative)


@torch.no_grad()
def denoise(
    transformer: OscarTransformer3DModel,
    scheduler: UniPCMultistepScheduler,
    conditions: Conditions,
    steps: int,
    guidance: float,
    batched: bool = False,
    on_step: StepHook | None = None,
) -> Tensor:
    """Final float32 latents (1, 16, T, h, w). `on_step(i, timestep, tensors)` may return replaced latents, or raise."""
    state, noise, given = conditions.noise, conditions.noise, conditions.given
    pinned_velocity = noise[:, :, :1] - given
    if transformer.is_cache_enabled:
        transformer._reset_stateful_cache()  # or the last take's features would leak into this one
    for index, timestep in enumerate(start_schedule(scheduler, steps, noise.device)):
        times = net_timesteps(int(timestep), state.shape[2], state.device)
        conditional, unconditional = evaluate(transformer, conditions, state, times, batched)
        velocity = conditional if unconditional is None else guide(conditional, unconditional, guidance)
        velocity = torch.cat([pinned_velocity, velocity[:, :, 1:]], dim=2)
        state = scheduler.step(velocity, timestep, state, return_dict=False)[0]
        if on_step is not None:
            replaced = on_step(index, int(timestep), {"latents": state, "velocity": velocity})
            state = state if replaced is None else replaced
    return state
