# SPDX-License-Identifier: Apache-2.0
"""Which attention kernel to use: measured on the device at the size that will run, among the exact ones."""

from __future__ import annotations

import time
from typing import Any

import torch

# No quantised attention here: all of these compute softmax(QK)V in the input's precision.
EXACT_BACKENDS = ("native", "_native_cudnn", "_native_flash", "_native_efficient")


def time_backends(device: torch.device, tokens: int, heads: int, head_dim: int, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of one self-attention per exact backend that runs on this device."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    query = torch.randn(1, tokens, heads, head_dim, device=device, dtype=dtype)
    seconds: dict[str, float] = {}
    for name in EXACT_BACKENDS:
        try:
            dispatch_attention_fn(query, query, query, backend=name)  # pyright: ignore[reportArgumentType]
            _wait(device)
            started = time.perf_counter()
            for _ in range(3):
                dispatch_attention_fn(query, query, query, backend=name)  # pyright: ignore[reportArgumentType]
            _wait(device)
            seconds[name] = (time.perf_counter() - started) / 3
        except (RuntimeError, ValueError, NotImplementedError):
            continue  # not built for this device, size or dtype
    return seconds


def select_backend(transformer: Any, tokens: int, device: torch.device) -> tuple[str, dict[str, float]]:
    """Set the fastest exact backend on the transformer; its name and all timings."""
    config = transformer.config
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    seconds = time_backends(device, tokens, heads, head_dim, transformer.dtype)
    best = min(seconds, key=lambda name: seconds[name]) if seconds else "native"
    set_backend(transformer, best)
    return best, seconds


def set_backend(transformer: Any, name: str) -> None:
    """Use this backend in every attention of the transformer."""
    from diffusers.models.attention_dispatch import AttentionBackendName
    from diffusers.models.attention_processor import Attention

    for module in transformer.modules():
        if isinstance(module, Attention):
            module.processor._attention_backend = AttentionBackendName(name)  # pyright: ignore


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
