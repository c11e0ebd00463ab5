# SPDX-License-Identifier: Apache-2.0
"""Which attention kernel to use: measured on the device at the size that will run, among the exact ones.

Kernels of other packages (FlashAttention 2 and 3, SageAttention) take part where they are installed; `obstacle` says in
words why one does not.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from retake.core.errors import InputError, unknown_name

# No quantised attention here: all of these compute softmax(QK)V in the input's precision.
EXACT_BACKENDS = ("native", "_native_cudnn", "_native_flash", "_native_efficient", "flash", "_flash_3")
QUANTISED_BACKENDS = (
    "sage", "_sage_qk_int8_pv_fp16_triton", "_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp8_cuda",
    "_sage_qk_int8_pv_fp8_cuda_sm90", "sage_blackwell_hub",
)  # fmt: skip
"""Q and K in int8 (of the last one in 4 bits), P and V in fp16 or fp8: approximate, never chosen by timing."""
PACKAGES = {
    "flash": "flash-attn (FlashAttention 2)", "_flash_3": "flash_attn_interface (FlashAttention 3)",
    "sage_blackwell_hub": "kernels (it fetches SageAttention 3, for Blackwell cards, from the Hub)",
}  # fmt: skip


def obstacle(name: str) -> str:
    """Why this kernel cannot run here, in words; empty when nothing is known to be in the way."""
    from diffusers.models import attention_dispatch

    try:
        attention_dispatch._check_attention_backend_requirements(attention_dispatch.AttentionBackendName(name))
    except (RuntimeError, ValueError):
        package = PACKAGES.get(name, "sageattention (SageAttention 2)" if "sage" in name else name)
        return f"attention {name!r} needs the package {package}, which is not installed here; works now: attention 'native'"
    return ""


def check_backend(name: str) -> None:
    """Raises InputError for a kernel that is unknown, approximate or not installed."""
    if name in QUANTISED_BACKENDS:
        raise InputError(
            f"attention {name!r} is quantised: turn it on as the approximate mode 'sage', which labels takes"
        )
    if name not in EXACT_BACKENDS:
        raise InputError(unknown_name("attention", name, ("auto", *EXACT_BACKENDS)))
    if reason := obstacle(name):
        raise InputError(reason)


def time_backends(device: torch.device, tokens: int, heads: int, head_dim: int, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of one self-attention per exact backend that runs on this device."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    query = torch.randn(1, tokens, heads, head_dim, device=device, dtype=dtype)
    seconds: dict[str, float] = {}
    for name in EXACT_BACKENDS:
        if obstacle(name):
            continue
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
    """Use this backend in every attention of the transformer; one of the Hub is fetched where it is not there yet.

    Raises InputError for a kernel that cannot be fetched; nothing is changed then.
    """
    from diffusers.models import attention_dispatch
    from diffusers.models.attention_processor import Attention

    backend = attention_dispatch.AttentionBackendName(name)
    try:
        attention_dispatch._maybe_download_kernel_for_backend(backend)
    except Exception as error:  # whatever the Hub, the network or a kernel's build says
        raise InputError(f"attention {name!r} cannot be fetched: {error}; works here: attention 'native'") from error
    for module in transformer.modules():
        if isinstance(module, Attention):
            module.processor._attention_backend = backend  # pyright: ignore


def attention_of(transformer: Any) -> str:
    """The kernel that `set_backend` chose; "native" where none was."""
    from diffusers.models.attention_processor import Attention

    found = {
        getattr(m.processor, "_attention_backend", None) for m in transformer.modules() if isinstance(m, Attention)
    }
    return " ".join(sorted(str(getattr(one, "value", one)) for one in found if one is not None)) or "native"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
