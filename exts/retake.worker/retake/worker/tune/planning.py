# SPDX-License-Identifier: Apache-2.0
"""What training will need, before it starts: counted by running one step on tensors that have shapes but no bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from retake.core.errors import InputError

from ..memory import CONTEXT_BYTES, FRAGMENTATION, GIB
from ..oscar.costs import FULL_TRANSFORMER, meta_transformer
from ..oscar.meter import Meter
from ..oscar.text import PROMPT_LENGTH
from ..oscar.vae import SPACE_STRIDE, latent_frames
from .config import TuneConfig
from .lora import add_adapter


@dataclass(frozen=True)
class TunePlan:
    """Bytes on the device. `peak` is their sum with allocator overhead; `flops` of one step of one sample."""

    weights: int
    trained: int
    gradients: int
    masters: int
    optimizer: int
    average: int
    activations: int
    flops: int
    parameters_trained: int

    @property
    def peak(self) -> int:
        """Bytes needed at the worst instant, with the allocator's fragmentation and the CUDA context."""
        parts = (self.weights, self.gradients, self.masters, self.optimizer, self.average, self.activations)
        return int(sum(parts) * FRAGMENTATION) + CONTEXT_BYTES

    def lines(self) -> list[str]:
        """A table to print."""
        rows = {
            "weights": self.weights, "gradients": self.gradients, "float32 masters": self.masters,
            "AdamW moments": self.optimizer, "average (EMA)": self.average, "activations": self.activations,
        }  # fmt: skip
        table = [f"{name:<18}{value / GIB:8.2f} GiB" for name, value in rows.items()]
        note = f"{self.parameters_trained / 1e6:.1f} M parameters trained, {self.flops / 1e12:.1f} TFLOP per sample and step"
        return [
            *table,
            f"{'needed in all':<18}{self.peak / GIB:8.2f} GiB (with allocator overhead and CUDA context)",
            note,
        ]


def plan_training(
    config: TuneConfig,
    *,
    transformer: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    frames: int = 81,
    size: tuple[int, int] = (640, 480),
    batch: int = 1,
) -> TunePlan:
    """Count a step of this model (default: full-size OSCAR-2B) at this window, size and batch."""
    model = meta_transformer(transformer or FULL_TRANSFORMER, dtype)
    if config.objects.control == "embed":
        model.add_object_embed(model.config["in_channels"])
    if config.lora is not None:
        add_adapter(model, config.lora)
    else:
        model.requires_grad_(True)
        model.crossattn_proj.requires_grad_(False)  # prompts come projected
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    count = sum(p.numel() for p in trained)
    low = sum(p.numel() for p in trained if p.dtype != torch.float32)
    cells = (latent_frames(frames), size[1] // SPACE_STRIDE, size[0] // SPACE_STRIDE)
    channels = model.config["in_channels"] + model.config["control_channels"]
    inputs = torch.empty(batch, channels, *cells, device="meta", dtype=dtype)
    times = torch.empty(batch, cells[0], device="meta")
    text = torch.empty(batch, PROMPT_LENGTH, model.config["text_embed_dim"], device="meta", dtype=dtype)
    mask = torch.empty(batch, 1, *cells, device="meta")
    with torch.enable_grad(), Meter() as meter:
        velocity = model(inputs, times, text, condition_mask=mask, text_is_projected=True, return_dict=False)[0]
        velocity.float().square().mean().backward()
    gradients = sum(p.numel() * p.element_size() for p in trained)
    return TunePlan(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        trained=sum(p.numel() * p.element_size() for p in trained),
        gradients=gradients + 4 * low,  # a low-precision gradient is widened for its master
        masters=4 * low,
        optimizer=8 * count,
        average=4 * count if config.ema_rate is not None else 0,
        activations=max(0, meter.peak - gradients),
        flops=meter.flops // batch,
        parameters_trained=count,
    )  # fmt: skip


def check_fits(plan: TunePlan, free: int, where: str) -> None:
    """Raises InputError with what would help, where the plan needs more than `free` bytes."""
    if plan.peak > free:
        raise InputError(
            f"training needs {plan.peak / GIB:.1f} GiB and {where} has {free / GIB:.1f} GiB free; what helps, in this order: "
            "--lora, --checkpointing, a smaller --size, fewer --frames, several cards"
        )
