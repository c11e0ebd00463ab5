# SPDX-License-Identifier: Apache-2.0
"""The guided sampling loop of one take: float32 state, network in its own dtype, OSCAR's first-frame rule.

Rules, all of them the reference's: the given frame replaces latent frame 0 in the network's input only; frame 0 is
shown timestep 0.1; its predicted velocity is replaced by (noise - given); guidance is v_c + g * (v_c - v_u).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from .few_step import Student, renoise_seed
from .schedule import make_noise, net_timesteps, start_schedule
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
    transformer: OscarTransformer3DModel, conditions: Conditions, state: Tensor, timesteps: Tensor, batched: bool,
    index: int = 0,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Float32 velocities (1, 16, T, h, w) of the two branches in evaluation `index`, as the network gives them."""
    shown = torch.cat([conditions.given, state[:, :, 1:]], dim=2)
    mask = torch.zeros_like(shown[:, :1])
    mask[:, :, 0] = 1
    common: dict[str, Any] = {"text_is_projected": True, "control_tokens": conditions.control}
    same_length = conditions.negative is not None and conditions.negative.shape == conditions.text.shape

    residuals = transformer.residuals
    cached = transformer.is_cache_enabled or residuals is not None  # a cache keeps one state per branch
    if batched and conditions.negative is not None and same_length and not cached:
        both = transformer(
            hidden_states=shown.expand(2, -1, -1, -1, -1),
            timestep=timesteps.expand(2, -1),
            encoder_hidden_states=torch.cat([conditions.text, conditions.negative]),
            condition_mask=mask.expand(2, -1, -1, -1, -1),
            **common,
        ).sample.float()
        return both[:1], both[1:]

    def branch(name: str, text: Tensor) -> Tensor:
        if residuals is not None:
            residuals.begin(index, name)
        # without a cache the context is a no-op
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


@dataclass
class Loop:
    """How far a take is: what a run that was interrupted between two steps goes on from.

    index: the evaluation that comes next. state: latents after the one before (None: the noise). solver: what the
    scheduler remembers. evaluated: forwards of the step that just ended.
    """

    index: int = 0
    state: Tensor | None = None
    solver: dict[str, Any] = field(default_factory=dict)
    evaluated: int = 0

    def to_host(self) -> None:
        """Keep it in host memory, off a card that is full."""
        move = lambda value: value.cpu() if isinstance(value, Tensor) else value  # noqa: E731
        self.state = move(self.state)
        self.solver = {
            name: [move(item) for item in value] if isinstance(value, list) else move(value)
            for name, value in self.solver.items()
        }  # fmt: skip


_SOLVER = ("model_outputs", "timestep_list", "last_sample", "lower_order_nums", "this_order", "_step_index")


def _remember(scheduler: UniPCMultistepScheduler) -> dict[str, Any]:
    # lists are shifted in place by the next step, the tensors in them are not changed
    return {
        name: list(value) if isinstance(value, list) else value
        for name in _SOLVER
        if (value := getattr(scheduler, name, None)) is not None
    }


def _restore(scheduler: UniPCMultistepScheduler, solver: dict[str, Any], device: torch.device) -> None:
    move = lambda value: value.to(device) if isinstance(value, Tensor) else value  # noqa: E731
    for name, value in solver.items():
        setattr(scheduler, name, [move(item) for item in value] if isinstance(value, list) else move(value))


def _forget(transformer: OscarTransformer3DModel) -> None:
    """Empty its caches, or the last take's features would leak into this one."""
    if transformer.is_cache_enabled:
        transformer._reset_stateful_cache()
    if transformer.residuals is not None:
        transformer.residuals.reset()


@torch.no_grad()
def denoise(
    transformer: OscarTransformer3DModel,
    scheduler: UniPCMultistepScheduler,
    conditions: Conditions,
    steps: int,
    guidance: float,
    batched: bool = False,
    on_step: StepHook | None = None,
    loop: Loop | None = None,
    interval: tuple[float, float] | None = None,
) -> Tensor:
    """Final float32 latents (1, 16, T, h, w). `on_step(i, timestep, tensors)` may return replaced latents, or raise.

    `loop`: kept up to date after every step; one that has an index goes on from there, to the same bits. `interval`:
    sigmas between which guidance is on (None: always).
    """
    loop = Loop() if loop is None else loop
    noise, given = conditions.noise, conditions.given
    state = noise if loop.state is None else loop.state.to(noise.device)
    pinned_velocity = noise[:, :, :1] - given
    _forget(transformer)
    # Timesteps stay on the host: the loop reads each as a number, which would wait for the card. Sigmas go to the card
    # once: the solver would copy the same ones in every step, and wait for each.
    timesteps = start_schedule(scheduler, steps, "cpu").tolist()
    sigmas = scheduler.sigmas.tolist()
    scheduler.sigmas = scheduler.sigmas.to(noise.device)
    _restore(scheduler, loop.solver, noise.device)
    unguided = replace(conditions, negative=None)
    for index in range(loop.index, len(timesteps)):
        timestep = timesteps[index]
        times = net_timesteps(timestep, state.shape[2], state.device)
        guided = interval is None or interval[0] <= sigmas[index] <= interval[1]
        conditional, unconditional = evaluate(
            transformer, conditions if guided else unguided, state, times, batched, index
        )
        velocity = conditional if unconditional is None else guide(conditional, unconditional, guidance)
        velocity = torch.cat([pinned_velocity, velocity[:, :, 1:]], dim=2)
        state = scheduler.step(velocity, timestep, state, return_dict=False)[0]
        loop.evaluated = 1 if unconditional is None else 2
        if on_step is not None:
            replaced = on_step(index, timestep, {"latents": state, "velocity": velocity})
            state = state if replaced is None else replaced
        loop.index, loop.state, loop.solver = index + 1, state, _remember(scheduler)
    return state


@torch.no_grad()
def denoise_few(
    transformer: OscarTransformer3DModel,
    conditions: Conditions,
    student: Student,
    seed: int,
    guidance: float = 0.0,
    batched: bool = False,
    on_step: StepHook | None = None,
    loop: Loop | None = None,
) -> Tensor:
    """Final latents of a few-step student: one evaluation per step, from its own sigmas (see `few_step`).

    "ode" follows the velocity from sigma to sigma; "consistency" goes to the clean latents and noises them again.
    """
    loop = Loop() if loop is None else loop
    noise, given = conditions.noise, conditions.given
    state = noise if loop.state is None else loop.state.to(noise.device)
    sigmas = (*student.sigmas, 0.0)
    _forget(transformer)
    for index in range(loop.index, student.steps):
        sigma, following = sigmas[index], sigmas[index + 1]
        times = net_timesteps(int(1000 * sigma), state.shape[2], state.device)
        conditional, unconditional = evaluate(transformer, conditions, state, times, batched, index)
        velocity = conditional if unconditional is None else guide(conditional, unconditional, guidance)
        # towards the given frame from wherever the state is: fresh noise would leave the first noise's path
        velocity = torch.cat([(state[:, :, :1] - given) / sigma, velocity[:, :, 1:]], dim=2)
        if student.sampler == "ode":
            state = state + (following - sigma) * velocity
        else:
            clean = state - sigma * velocity
            fresh = make_noise(renoise_seed(seed, index), tuple(state.shape)).to(state.device) if following else 0.0
            state = (1 - following) * clean + following * fresh
        loop.evaluated = 1 if unconditional is None else 2
        if on_step is not None:
            replaced = on_step(index, int(1000 * sigma), {"latents": state, "velocity": velocity})
            state = state if replaced is None else replaced
        loop.index, loop.state = index + 1, state
    return state
