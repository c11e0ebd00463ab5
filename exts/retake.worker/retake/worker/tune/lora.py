# SPDX-License-Identifier: Apache-2.0
"""Adapters: added as the reference adds them, saved as diffusers reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retake.core.errors import InputError, MissingDependencyError

from .config import LoraSettings

ADAPTER = "default"  # peft's own name, so that keys read as the reference's do


def add_adapter(transformer: Any, settings: LoraSettings | None) -> None:
    """Freeze the model and give it float32 adapters; a model that has adapters keeps them. Raises MissingDependencyError."""
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise MissingDependencyError("LoRA needs peft; install the extra `tune`") from error
    transformer.requires_grad_(False)
    if not getattr(transformer, "peft_config", None):
        settings = settings or LoraSettings()
        transformer.add_adapter(
            LoraConfig(
                r=settings.rank, lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
                target_modules=list(settings.targets), lora_dropout=0.0, bias="none",
            ),
            adapter_name=ADAPTER,
        )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def is_adapter(name: str) -> bool:
    """Whether a parameter name belongs to an adapter (or to the object embedding, which is trained beside adapters)."""
    return "lora_" in name or name.startswith("object_embed")


def adapter_state(transformer: Any) -> dict[str, Tensor]:
    """The adapter's weights in diffusers' LoRA file format (without the `transformer.` prefix)."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def save_adapter(transformer: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """Write a LoRA that `OscarPipeline.load_lora_weights(folder)` reads; `weights` (the average) instead of its own.

    `weights` has the transformer's parameter names. Returns the file. Raises InputError without an adapter.
    """
    from diffusers.training_utils import _collate_lora_metadata  # rank and alpha, as diffusers' own trainers write them

    from ..oscar.pipeline import OscarPipeline

    if not getattr(transformer, "peft_config", None):
        raise InputError("this model has no adapter; train with LoRA, or save its full weights")
    state = adapter_state(transformer)
    if weights is not None:
        plain = {name.replace(f".{ADAPTER}.", "."): value for name, value in weights.items() if "lora_" in name}
        state = {name: plain[name].detach().cpu().to(torch.float32).contiguous().clone() for name in state}
    OscarPipeline.save_lora_weights(
        folder, transformer_lora_layers=state, **_collate_lora_metadata({"transformer": transformer})
    )  # fmt: skip
    return folder / "pytorch_lora_weights.safetensors"
