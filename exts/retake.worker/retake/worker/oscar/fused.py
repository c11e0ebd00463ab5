# SPDX-License-Identifier: Apache-2.0
"""The transformer's elementwise work in single passes, and Q, K, V in one matrix product.

Each operation reads its inputs once and writes its outputs once, in float32 inside: the policy of `layers`, which remains
the definition. Results differ from it in the last bits (products of a joined matrix, order of sums): within 1e-5 in
float32, so a model that runs so is not in the reference's class of arithmetic and says so (`Kernels`).

The bodies are Triton kernels on a card with Triton, else the same formulas through torch.compile, or plain on the CPU.
`disagreement` runs all of them once on the device at hand: what fails there is not used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from retake.core.errors import InputError, unknown_name

NORM_EPS = 1e-6
Kernels = Literal["reference", "fused"]
KERNELS = ("reference", "fused")
BODIES = ("triton", "compiled", "plain")
_chosen: dict[str, str] = {}


def use_bodies(device_type: str, name: str) -> None:
    """What the operations run on this kind of device ("triton", "compiled", "plain"). Raises InputError."""
    if name not in BODIES:
        raise InputError(unknown_name("body of the fused operations", name, BODIES))
    if name == "triton" and importlib.util.find_spec("triton") is None:
        raise InputError("the fused operations as Triton kernels need the package triton, which is not installed here")
    _chosen[device_type] = name


def bodies(device_type: str) -> str:
    """What the operations run on this kind of device."""
    usual = "plain" if device_type == "cpu" else "triton" if importlib.util.find_spec("triton") else "compiled"
    return _chosen.get(device_type, usual)


# -- the formulas --------------------------------------------------------------------------------------------------------


def _by_frame(tokens: Tensor, vectors: Tensor) -> Tensor:
    return tokens.unflatten(1, (vectors.shape[1], -1))


def _norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = functional.layer_norm(_by_frame(x, shift).float(), x.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(shift.unsqueeze(2), normed, 1 + scale.unsqueeze(2)).to(x.dtype).flatten(1, 2)


def _gate(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    wide = torch.addcmul(_by_frame(x, gate).float(), gate.unsqueeze(2), _by_frame(update, gate).float())
    return wide.to(x.dtype).flatten(1, 2)


def _norm_rope(x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    normed = functional.rms_norm(x, x.shape[-1:], weight, NORM_EPS)
    if cos is None or sin is None:
        return normed
    wide = normed.float()
    first, second = wide.chunk(2, dim=-1)
    return torch.addcmul(wide * cos, torch.cat([-second, first], dim=-1), sin).to(x.dtype)


@lru_cache(maxsize=8)
def _compiled(formula: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(formula, dynamic=False)


def _run(formula: Callable[..., Any], *arguments: Any) -> Any:
    return (_compiled(formula) if bodies(arguments[0].device.type) == "compiled" else formula)(*arguments)


def _has_triton(x: Tensor) -> bool:
    return bodies(x.device.type) == "triton"


# -- as operations of PyTorch: one dispatch each, with shapes known to the compiler and to the meter --------------------


@torch.library.custom_op("retake::norm_modulate", mutates_args=())
def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift. Tokens (B, T*HW, C); float32 vectors (B, T, C) per latent frame."""
    if _has_triton(x):
        from . import triton_kernels

        return triton_kernels.gate_norm_modulate(x, None, None, shift, scale, NORM_EPS)[1]
    return _run(_norm_modulate, x, shift, scale).contiguous()


@norm_modulate.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("retake::gate", mutates_args=())
def gate(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + gate * update; shapes as in `norm_modulate`."""
    if _has_triton(x):
        from . import triton_kernels

        return triton_kernels.gate_norm_modulate(x, update, gate, None, None, NORM_EPS)[0]
    return _run(_gate, x, update, gate).contiguous()


@gate.register_fake
def _(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("retake::gate_norm_modulate", mutates_args=())
def gate_norm_modulate(x: Tensor, update: Tensor, gate: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gated residual and, of its result, the next modulated norm."""
    if _has_triton(x):
        from . import triton_kernels

        return triton_kernels.gate_norm_modulate(x, update, gate, shift, scale, NORM_EPS)
    total = _run(_gate, x, update, gate).contiguous()
    return total, _run(_norm_modulate, total, shift, scale).contiguous()


@gate_norm_modulate.register_fake
def _(x: Tensor, update: Tensor, gate: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@torch.library.custom_op("retake::norm_rope", mutates_args=())
def norm_rope(x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    """RMSNorm over head dim, then the rotary embedding (float32 tables (S, 1, D); None: none). x (B, S, heads, D)."""
    if _has_triton(x):
        from . import triton_kernels

        return triton_kernels.norm_rope(x, weight, cos, sin, NORM_EPS)
    return _run(_norm_rope, x, weight, cos, sin).contiguous()


@norm_rope.register_fake
def _(x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


# -- one matrix product ---------------------------------------------------------------------------------------------------

JOINED = {"attn1": ("to_qkv", ("to_q", "to_k", "to_v")), "attn2": ("to_kv", ("to_k", "to_v"))}
"""Attention of a block → name of the joined layer, the layers it stands for."""


def unjoinable(transformer: Any) -> str:
    """Why the projections cannot be joined; empty if they can."""
    for block in transformer.transformer_blocks:
        for attention, (joined, parts) in JOINED.items():
            module: Any = getattr(block, attention)
            layers = [] if hasattr(module, joined) else [getattr(module, name) for name in parts]
            if odd := next((layer for layer in layers if type(layer) is not nn.Linear), None):
                return (
                    f"kernels 'fused' join Q, K and V, which are {type(odd).__name__} layers here: fuse the adapter into the "
                    "weights first (pipe.fuse_lora, pipe.unload_lora_weights), choose approximate modes after the kernels, "
                    "or use kernels 'reference'"
                )
    return ""


def join_projections(block: nn.Module) -> None:
    """Q, K, V of self-attention, and K, V of cross-attention, become one linear layer each."""
    for attention, (joined, parts) in JOINED.items():
        module: Any = getattr(block, attention)
        if hasattr(module, joined):
            continue
        layers = [getattr(module, name) for name in parts]
        with torch.no_grad():
            weight = torch.cat([layer.weight for layer in layers])
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=layers[0].weight.requires_grad)
        for name in parts:
            delattr(module, name)
        setattr(module, joined, layer)


def split_projections(block: nn.Module) -> None:
    """Undo `join_projections`."""
    for attention, (joined, parts) in JOINED.items():
        module: Any = getattr(block, attention)
        whole = getattr(module, joined, None)
        if whole is None:
            continue
        if type(whole) is not nn.Linear:
            raise InputError("the joined projections were changed by an approximate mode; load the pipeline again")
        for name, weight in zip(parts, whole.weight.data.chunk(len(parts)), strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            layer.weight = nn.Parameter(weight.clone(), requires_grad=whole.weight.requires_grad)
            setattr(module, name, layer)
        delattr(module, joined)


def set_kernels(transformer: Any, kernels: str) -> None:
    """Run every block in this way. Raises InputError for an unknown one, and where projections cannot be joined."""
    if kernels not in KERNELS:
        raise InputError(unknown_name("kernels", kernels, KERNELS))
    if kernels == "fused" and (reason := unjoinable(transformer)):
        raise InputError(reason)
    for block in transformer.transformer_blocks:
        (join_projections if kernels == "fused" else split_projections)(block)
        block.fused = kernels == "fused"


@torch.no_grad()
def disagreement(device: torch.device, dtype: torch.dtype) -> str:
    """Why the operations must not be used on this device; empty when all agree with their formulas there."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x, update = (draw(2, 24, 96).to(device, dtype) for _ in range(2))
    gate_by, shift, scale = (part.contiguous() for part in draw(2, 3, 288).to(device).chunk(3, dim=-1))
    heads = draw(2, 24, 96).to(device, dtype)[..., :64].unflatten(-1, (2, 32))
    weight, cos, sin = draw(32).to(device, dtype), draw(24, 1, 32).to(device), draw(24, 1, 32).to(device)
    total = _gate(x, update, gate_by)
    checks: dict[str, tuple[Callable[[], Any], Tensor]] = {
        "norm_modulate": (lambda: norm_modulate(x, shift, scale), _norm_modulate(x, shift, scale)),
        "gate": (lambda: gate(x, update, gate_by), total),
        "gate_norm_modulate": (
            lambda: gate_norm_modulate(x, update, gate_by, shift, scale)[1], _norm_modulate(total, shift, scale)),
        "norm_rope": (lambda: norm_rope(heads, weight, cos, sin), _norm_rope(heads, weight, cos, sin)),
        "norm": (lambda: norm_rope(heads, weight, None, None), _norm_rope(heads, weight, None, None)),
    }  # fmt: skip
    tolerance = 4 * torch.finfo(dtype).eps * 8  # values reach about 8; four units of the last place
    for name, (run, expected) in checks.items():
        try:
            off = float((run().float() - expected.float()).abs().max())
        except Exception as error:  # a compiler that is not there, a driver that refuses: all mean "not here"
            return f"{name} does not run on {device}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if not off <= tolerance:
            return f"{name} is off by {off:.2g} on {device}"
    return ""
