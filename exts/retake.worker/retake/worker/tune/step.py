# SPDX-License-Identifier: Apache-2.0
"""One training step of OSCAR, at parity with the reference's own classes.

Specification and figures: docs/tune.md. Batches larger than one are the mean of their samples' losses, each with its own
denominator, so that a batch equals its samples accumulated one by one (the reference's step fails for them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from retake.core.errors import InputError

from ..oscar.schedule import FIRST_FRAME_TIMESTEP, TIMESTEP_SCALE
from . import flow
from .config import TuneConfig, golden_config
from .lora import add_adapter
from .optimise import MasterOptimizer, as_tensor, trained_parameters


@dataclass(frozen=True)
class Batch:
    """What one step learns from; latents are normalised, float32.

    Attributes:
        x0: (B, C, T, h, w) latents of the whole video.
        control: (B, C, T, h, w) latents of the Skeleton video.
        text: (B, L, D), raw prompt embeddings, or projected ones (told apart by their width).
        valid: (B, T), 1 where a latent frame is real, 0 where it is freeze-padding; None: all real.
        epsilon: (B, C, T, h, w) noise to use instead of drawing it.
        u: (B,) draws in [0, 1) to use instead of drawing them.
        weight: (B, 1 or C, T, h, w) factor on the squared error (object supervision); None: 1 everywhere.
        objects: (B, C, T, h, w) latents of the object control video, for a model with an object embedding.
    """

    x0: Tensor
    control: Tensor
    text: Tensor
    valid: Tensor | None = None
    epsilon: Tensor | None = None
    u: Tensor | None = None
    weight: Tensor | None = None
    objects: Tensor | None = None


@dataclass(frozen=True)
class StepResult:
    """What a step saw and did.

    Attributes:
        loss: weighted loss. velocity: (B, C, T, h, w) float32, after the first-frame rule. xt: the noisy latents.
        timestep, sigma: (B, 1). grad_norm: before clipping. lr: of this step.
        object_error, background_error: mean squared error inside and outside the object's cells; None without objects.
    """

    loss: float
    velocity: Tensor
    xt: Tensor
    timestep: Tensor
    sigma: Tensor
    grad_norm: float
    lr: float
    object_error: float | None = None
    background_error: float | None = None


@dataclass(frozen=True)
class Prediction:
    """One forward pass: the loss as a tensor, and what it was computed from."""

    loss: Tensor
    velocity: Tensor
    xt: Tensor
    timestep: Tensor
    sigma: Tensor
    squared_error: Tensor


class Tuner:
    """Trains an `OscarTransformer3DModel` in place, one step at a time.

    Args:
        transformer: the model; with `config.lora` its weights are frozen and adapters are added (unless it has some).
        config: see `TuneConfig`.
        forward: what runs the network, where it is wrapped (DDP, FSDP, compiled); default the transformer itself.
    """

    def __init__(self, transformer: Any, config: TuneConfig, forward: Any = None) -> None:
        self.transformer = transformer
        self.config = config
        if config.lora is not None or getattr(transformer, "peft_config", None):
            add_adapter(transformer, config.lora)
        else:
            transformer.requires_grad_(True)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train()
        self.forward = forward or transformer
        self.optimizer = MasterOptimizer(trained_parameters(transformer).items(), config)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.before_update: Callable[[dict[str, Any]], None] | None = None
        """Called with the trained parameters when all gradients are there (several processes average them here)."""

    @classmethod
    def from_golden_config(cls, config: Mapping[str, Any], transformer: Any, **changes: Any) -> Tuner:
        """The run a golden set's `config.json` describes; `lora=True` for its LoRA part, or any `TuneConfig` field."""
        return cls(transformer, golden_config(config, **changes))

    # -- a step -------------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> StepResult:
        """Forward, backward, clip, AdamW, average. Raises InputError for wrong shapes or values; nothing changed then."""
        return self.step_accumulated([batch])

    def step_accumulated(self, batches: Sequence[Batch], sync: Any = None) -> StepResult:
        """One update from several batches: the mean of their losses. `sync(last)` may give a context per backward pass."""
        if not batches:
            raise InputError("a step needs at least one batch")
        lr = self.optimizer.lr
        total, last = 0.0, None
        try:
            for index, batch in enumerate(batches):
                context: AbstractContextManager[Any] = (
                    nullcontext() if sync is None else sync(index == len(batches) - 1)
                )
                with context:
                    last = self.predict(batch)
                    if not bool(torch.isfinite(last.loss)):
                        raise InputError(
                            f"the loss of step {self.optimizer.iteration} is {float(last.loss.detach())}: the weights or the "
                            f"learning rate are at fault (lr {lr:g}); nothing was changed by this step"
                        )
                    (last.loss / len(batches)).backward()
                total += float(last.loss.detach()) / len(batches)
            if self.before_update is not None:
                self.before_update(self.optimizer.parameters)
            norm = self.optimizer.step()
        finally:
            self.optimizer.zero_grad()
        assert last is not None
        inside, outside = _errors_by_place(last.squared_error.detach(), batches[-1].weight)
        return StepResult(
            loss=total, velocity=last.velocity.detach(), xt=last.xt, timestep=last.timestep, sigma=last.sigma,
            grad_norm=norm, lr=lr, object_error=inside, background_error=outside,
        )  # fmt: skip

    def predict(self, batch: Batch, *, dropout: bool = True) -> Prediction:
        """The loss of a batch, with gradients where they are enabled. Draws what the batch does not give.

        `dropout`: as the settings say; False measures what the model makes of everything it is given.
        """
        self._check(batch)
        model, config = self.transformer, self.config
        device = next(model.parameters()).device
        x0 = as_tensor(batch.x0, torch.empty(0, device=device))
        size = x0.shape[0]
        epsilon = self._noise(x0.shape, device) if batch.epsilon is None else as_tensor(batch.epsilon, x0)
        u = flow.draw_u(size, self.generator) if batch.u is None else torch.as_tensor(batch.u).float().reshape(size)
        timestep, sigma = flow.noise_levels(u.to(device), config.shift)
        xt, target = flow.interpolate(x0, epsilon, sigma)
        control, text = as_tensor(batch.control, x0), torch.as_tensor(batch.text).to(device)
        if dropout:
            control = control * self._keep(size, config.skeleton_dropout, x0)
            if config.text_dropout:
                text = text * self._keep(size, config.text_dropout, x0)[:, :, 0, 0].to(text.dtype)
        velocity = self.velocity(replace(batch, control=control, text=text), xt, timestep)
        given = x0.to(model.dtype).float()
        first = (epsilon - given)[:, :, :1]  # the given frame is not predicted: its error is rounding alone
        velocity = torch.cat([first, velocity[:, :, 1:]], dim=2)

        squared = (velocity - target) ** 2
        valid = x0.new_ones(size, x0.shape[2]) if batch.valid is None else as_tensor(batch.valid, x0)
        frames = valid[:, None, :, None, None]
        weighted = squared * frames if batch.weight is None else squared * frames * as_tensor(batch.weight, x0)
        cells = x0.shape[1] * x0.shape[3] * x0.shape[4]
        # the given frame counts in the denominator, as in the reference
        per_sample = weighted.sum(dim=(1, 2, 3, 4)) / (valid.sum(dim=1) * cells).clamp(min=1)
        loss = (flow.time_weight(timestep, config.time_weight, config.shift) * per_sample).mean()
        return Prediction(loss, velocity, xt, timestep, sigma, squared)

    def velocity(self, batch: Batch, noisy: Tensor, timestep: Tensor) -> Tensor:
        """What the network says about noisy latents (B, C, T, h, w) at timesteps (B, 1) on the 0..1000 scale: float32 velocities.

        Of the batch it sees the first latent frame, control, text and objects. Latent frame 0 of the result means nothing.
        """
        model = self.transformer
        device = next(model.parameters()).device
        noisy = noisy.to(device)
        x0, text = as_tensor(batch.x0, noisy), torch.as_tensor(batch.text).to(device)
        size = x0.shape[0]
        given = x0.to(model.dtype)  # the network sees the first frame itself, in its own precision
        latents = torch.cat([given[:, :, :1], noisy.to(model.dtype)[:, :, 1:]], dim=2)
        times = timestep.to(device).expand(size, x0.shape[2]).clone()
        times[:, 0] = FIRST_FRAME_TIMESTEP
        mask = x0.new_zeros(size, 1, *x0.shape[2:])
        mask[:, :, 0] = 1
        control = as_tensor(batch.control, x0).to(model.dtype)
        extra = {} if batch.objects is None else {"object_latents": as_tensor(batch.objects, x0)}
        return self.forward(
            hidden_states=torch.cat([latents, control], dim=1),
            timestep=times * TIMESTEP_SCALE,
            encoder_hidden_states=text,
            condition_mask=mask,
            text_is_projected=text.shape[-1] != model.config["crossattn_proj_in_channels"],
            return_dict=False,
            **extra,
        )[0].float()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _noise(self, shape: Sequence[int], device: torch.device) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator).to(device)

    def _keep(self, size: int, dropout: float, like: Tensor) -> Tensor:
        """(B, 1, 1, 1, 1) of 1 and 0; draws nothing where dropout is off, so that the noise stays the same."""
        if not dropout:
            return like.new_ones(size, 1, 1, 1, 1)
        return (torch.rand(size, generator=self.generator) >= dropout).float().to(like.device).reshape(size, 1, 1, 1, 1)

    def _check(self, batch: Batch) -> None:
        shape = tuple(batch.x0.shape)
        if len(shape) != 5:
            raise InputError(f"x0 has shape {shape}; expected (B, C, T, h, w)")
        same = {"control": batch.control, "epsilon": batch.epsilon, "objects": batch.objects}
        for name, value in same.items():
            if value is not None and tuple(value.shape) != shape:
                raise InputError(f"{name} has shape {tuple(value.shape)} and x0 {shape}; they must agree")
        for name, value, wanted in (
            ("valid", batch.valid, (shape[0], shape[2])),
            ("u", batch.u, (shape[0],)),
        ):
            if value is not None and tuple(value.shape) != wanted:
                raise InputError(f"{name} has shape {tuple(value.shape)}; expected {wanted}")
        if batch.text.ndim != 3 or batch.text.shape[0] != shape[0]:
            raise InputError(f"text has shape {tuple(batch.text.shape)}; expected ({shape[0]}, L, D)")
        for name in ("x0", "control", "text", "epsilon", "weight", "objects"):
            value = getattr(batch, name)
            if value is not None and not bool(torch.isfinite(torch.as_tensor(value)).all()):
                raise InputError(f"{name} holds NaN or infinite values; this sample cannot be learnt from")


def _errors_by_place(squared: Tensor, weight: Tensor | None) -> tuple[float | None, float | None]:
    """Mean squared error where the weight is above 1, and elsewhere; (None, None) without weights."""
    if weight is None:
        return None, None
    inside = (torch.as_tensor(weight).to(squared.device) > 1).expand_as(squared)
    inner = float(squared[inside].mean()) if bool(inside.any()) else None
    outer = float(squared[~inside].mean()) if bool((~inside).any()) else None
    return inner, outer
