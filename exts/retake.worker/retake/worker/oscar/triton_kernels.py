# SPDX-License-Identifier: Apache-2.0
"""The transformer's elementwise work as Triton kernels: one row per program, float32 inside, one read and one write.

Imported only where `triton` is installed (see `fused`). Each kernel is the formula that stands beside it in `fused`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOptionalMemberAccess=false


@triton.jit
def _gate_norm_modulate(
    x_ptr, update_ptr, gate_ptr, shift_ptr, scale_ptr, sum_ptr, out_ptr, width, per_frame, vector_stride, eps,
    GATED: tl.constexpr, NORMED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    vector = (row // per_frame) * vector_stride
    x = tl.load(x_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        update = tl.load(update_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        gate = tl.load(gate_ptr + vector + columns, mask=inside, other=0.0)
        rounded = (x + gate * update).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + row * width + columns, rounded, mask=inside)
        x = rounded.to(tl.float32)  # the norm sees what the next residual sees
    if NORMED:
        mean = tl.sum(x, axis=0) / width
        centred = tl.where(inside, x - mean, 0.0)
        normed = centred / tl.sqrt(tl.sum(centred * centred, axis=0) / width + eps)
        shift = tl.load(shift_ptr + vector + columns, mask=inside, other=0.0)
        scale = tl.load(scale_ptr + vector + columns, mask=inside, other=0.0)
        out = normed * (1.0 + scale) + shift
        tl.store(out_ptr + row * width + columns, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _norm_rope(
    x_ptr, weight_ptr, cos_ptr, sin_ptr, out_ptr, heads, dim, tokens, token_stride, eps,
    ROTATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # one head of one token
    token, head = row // heads, row % heads
    half = dim // 2
    columns = tl.arange(0, BLOCK)
    inside = columns < half
    start = x_ptr + token * token_stride + head * dim
    first = tl.load(start + columns, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(start + half + columns, mask=inside, other=0.0).to(tl.float32)
    root = tl.sqrt((tl.sum(first * first, axis=0) + tl.sum(second * second, axis=0)) / dim + eps)
    kind = x_ptr.dtype.element_ty  # the norm rounds to the tokens' type before the rotation, as two passes do
    first = (
        (first / root * tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)).to(kind).to(tl.float32)
    )
    second = (
        (second / root * tl.load(weight_ptr + half + columns, mask=inside, other=0.0).to(tl.float32))
        .to(kind)
        .to(tl.float32)
    )
    target = out_ptr + row * dim
    if ROTATED:
        at = (token % tokens) * dim
        cos_a = tl.load(cos_ptr + at + columns, mask=inside, other=0.0)
        cos_b = tl.load(cos_ptr + at + half + columns, mask=inside, other=0.0)
        sin_a = tl.load(sin_ptr + at + columns, mask=inside, other=0.0)
        sin_b = tl.load(sin_ptr + at + half + columns, mask=inside, other=0.0)
        first, second = first * cos_a - second * sin_a, second * cos_b + first * sin_b
    tl.store(target + columns, first.to(kind), mask=inside)
    tl.store(target + half + columns, second.to(kind), mask=inside)


def gate_norm_modulate(
    x: Tensor, update: Tensor | None, gate: Tensor | None, shift: Tensor | None, scale: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """See fused.gate_norm_modulate: (x + gate * update, its modulated norm); x itself and an empty tensor for what is off."""
    batch, tokens, width = x.shape
    vectors: Any = gate if gate is not None else shift
    total = torch.empty_like(x) if update is not None else x
    out = torch.empty_like(x) if shift is not None else x.new_empty(0)
    _gate_norm_modulate[(batch * tokens,)](
        x, update if update is not None else x, gate if gate is not None else x, shift if shift is not None else x,
        scale if scale is not None else x, total, out, width, tokens // vectors.shape[1], vectors.stride(1), eps,
        update is not None, shift is not None, triton.next_power_of_2(width),
    )  # fmt: skip
    return total, out


def norm_rope(x: Tensor, weight: Tensor, cos: Tensor | None, sin: Tensor | None, eps: float) -> Tensor:
    """See fused.norm_rope. `x` (B, S, heads, D): any stride between tokens, heads dense."""
    batch, tokens, heads, dim = x.shape
    out = torch.empty((batch, tokens, heads, dim), dtype=x.dtype, device=x.device)
    _norm_rope[(batch * tokens * heads,)](
        x, weight, cos if cos is not None else x, sin if sin is not None else x, out, heads, dim, tokens, x.stride(1), eps,
        cos is not None, triton.next_power_of_2(dim // 2),
    )  # fmt: skip
    return out
