# SPDX-License-Identifier: Apache-2.0
"""The pieces of OSCAR's diffusion transformer, with the reference's precision policy built in.

Parameter names follow diffusers' Cosmos transformer, so a converted checkpoint reads like any other Cosmos one. What
differs, and why: modulation is computed per latent frame and broadcast over its tokens (the stock port expands it to
every token: 8.9 TFLOP a forward at full size against 0.007); timestep embedding, modulation and final layer compute
in float32 whatever the weights' dtype; q/k norms use eps 1e-6.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch.nn import functional

from . import fused, sparse

NORM_EPS = fused.NORM_EPS  # q/k RMSNorm and LayerNorm of the reference; diffusers' Attention defaults to 1e-5


class Fp32Linear(nn.Linear):
    """A linear layer that computes in float32 from weights of any dtype (a module of its own, so offload hooks see it)."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(input.float(), self.weight.float(), bias)


class Fp32RMSNorm(nn.RMSNorm):
    """RMSNorm in float32 from a weight of any dtype."""

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.float()
        return functional.rms_norm(x.float(), self.normalized_shape, weight, self.eps)


class TimestepEmbedding(nn.Module):
    """Linear-SiLU-Linear of the raw sinusoid: the AdaLN-LoRA vector of 3 * width values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = Fp32Linear(width, width, bias=False)
        self.linear_2 = Fp32Linear(width, 3 * width, bias=False)

    def forward(self, sinusoid: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(sinusoid)))


class TimeEmbed(nn.Module):
    """(B, T) timesteps on the 0..1 scale -> float32 LoRA vector (B, T, 3 * width) and block embedding (B, T, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0.0)
        self.t_embedder = TimestepEmbedding(width)
        self.norm = Fp32RMSNorm(width, eps=NORM_EPS)

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        sinusoid = self.time_proj(timestep.flatten().float()).unflatten(0, timestep.shape)
        return self.t_embedder(sinusoid), self.norm(sinusoid)


class FrameModulation(nn.Module):
    """`parts` vectors per latent frame (shift, scale[, gate]): W2 W1 SiLU(embedding) + the first values of the LoRA vector."""

    def __init__(self, width: int, rank: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear_1 = Fp32Linear(width, rank, bias=False)
        self.linear_2 = Fp32Linear(rank, parts * width, bias=False)

    def forward(self, embedding: Tensor, lora: Tensor) -> tuple[Tensor, ...]:
        """Float32 (B, T, width), (B, T, 3 * width) -> `parts` float32 tensors (B, T, 1, width), ready to broadcast."""
        vectors = self.linear_2(self.linear_1(functional.silu(embedding)))
        vectors = vectors + lora[..., : vectors.shape[-1]]
        return tuple(part.unsqueeze(2) for part in vectors.chunk(self.parts, dim=-1))


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm(tokens) * (1 + scale) + shift in float32, back in the tokens' dtype. Tokens are (B, T, HW, C)."""
    normed = functional.layer_norm(tokens.float(), tokens.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(shift, normed, 1 + scale).to(tokens.dtype)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding in float32, rotate-half. `x` (B, S, heads, D); `rope` cosine and sine, (S, 1, D) each."""
    cos, sin = rope
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return torch.addcmul(wide * cos, torch.cat([-second, first], dim=-1), sin).to(x.dtype)


class OscarAttnProcessor:
    """Self- or cross-attention of tokens (B, S, C), through the attention backend chosen on the model."""

    _attention_backend: Any = None
    _parallel_config: Any = None
    pattern: sparse.Pattern | None = None
    """Which pairs of tokens self-attention computes; None: all."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if hasattr(attn, "to_qkv") or hasattr(attn, "to_kv"):
            query, key, value = _joined(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        else:
            source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            query = attn.norm_q(attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)))
            key = attn.norm_k(attn.to_k(source).unflatten(-1, (attn.heads, -1)))
            value = attn.to_v(source).unflatten(-1, (attn.heads, -1))
            if image_rotary_emb is not None:
                query, key = rotate(query, image_rotary_emb), rotate(key, image_rotary_emb)
        if self.pattern is not None and encoder_hidden_states is None:
            mixed = sparse.attention(query, key, value, self.pattern)
        elif query.is_meta:
            mixed = _meta_attention(query, key, value)
        else:
            mixed = dispatch_attention_fn(query, key, value, attn_mask=attention_mask, backend=self._attention_backend)
        return attn.to_out[0](mixed.flatten(2, 3).to(query.dtype))


def _joined(
    attn: Any, tokens: Tensor, text: Tensor | None, rope: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key, value of joined projections (see `fused`), each (B, S, heads, D)."""
    if text is None:
        parts = attn.to_qkv(tokens).chunk(3, dim=-1)
    else:
        parts = (attn.to_q(tokens), *attn.to_kv(text).chunk(2, dim=-1))
    query, key, value = (part.unflatten(-1, (attn.heads, -1)) for part in parts)
    cos, sin = rope if rope is not None else (None, None)
    return (
        fused.norm_rope(query, attn.norm_q.weight, cos, sin),
        fused.norm_rope(key, attn.norm_k.weight, cos, sin),
        value,
    )


def _meta_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Shape-only attention. On the meta device PyTorch would pick the S x S form, which no real run uses here."""
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(*heads_first, None, False)[0].transpose(1, 2)


def make_attention(width: int, context_width: int | None, heads: int) -> Attention:
    """diffusers' Attention module (names, LoRA, quantisation, backends) with our processor and the reference's norms."""
    head_dim = width // heads
    attention = Attention(
        query_dim=width,
        cross_attention_dim=context_width,
        heads=heads,
        dim_head=head_dim,
        qk_norm="rms_norm",
        elementwise_affine=True,
        out_bias=False,
        eps=NORM_EPS,
        processor=OscarAttnProcessor(),  # pyright: ignore[reportArgumentType] - diffusers lists its own processors only
    )
    attention.norm_q = nn.RMSNorm(head_dim, eps=NORM_EPS)  # one fused kernel, float32 inside
    attention.norm_k = nn.RMSNorm(head_dim, eps=NORM_EPS)
    return attention


class OscarBlock(nn.Module):
    """Self-attention, cross-attention, MLP; each modulated per latent frame, each with a gated residual."""

    def __init__(self, width: int, heads: int, context_width: int, mlp_ratio: float, rank: int) -> None:
        super().__init__()
        self.norm1 = FrameModulation(width, rank, 3)
        self.attn1 = make_attention(width, None, heads)
        self.norm2 = FrameModulation(width, rank, 3)
        self.attn2 = make_attention(width, context_width, heads)
        self.norm3 = FrameModulation(width, rank, 3)
        self.ff = FeedForward(width, mult=mlp_ratio, activation_fn="gelu", bias=False)  # pyright: ignore
        self.fused = False
        """Whether elementwise work runs in single passes (see `fused`); inference only."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        embedded_timestep: Tensor,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Tokens (B, T*HW, C), text (B, L, D), float32 time (B, T, C) and (B, T, 3C), rope -> tokens."""
        if self.fused and not torch.is_grad_enabled():
            return self._in_single_passes(
                hidden_states, encoder_hidden_states, embedded_timestep, temb, image_rotary_emb
            )
        batch, _, width = hidden_states.shape
        frames = (batch, embedded_timestep.shape[1], -1, width)

        def residual(norm: FrameModulation, branch: Any, tokens: Tensor) -> Tensor:
            shift, scale, gate = norm(embedded_timestep, temb)
            by_frame = tokens.reshape(frames)
            update = branch(modulate(by_frame, shift, scale).flatten(1, 2)).reshape(frames)
            return torch.addcmul(by_frame.float(), gate, update.float()).to(tokens.dtype).flatten(1, 2)

        hidden_states = residual(self.norm1, lambda x: self.attn1(x, image_rotary_emb=image_rotary_emb), hidden_states)
        hidden_states = residual(
            self.norm2, lambda x: self.attn2(x, encoder_hidden_states=encoder_hidden_states), hidden_states
        )
        return residual(self.norm3, self.ff, hidden_states)

    def _in_single_passes(
        self, tokens: Tensor, text: Tensor, embedding: Tensor, lora: Tensor, rope: tuple[Tensor, Tensor]
    ) -> Tensor:
        first, second, third = (
            tuple(part.squeeze(2).contiguous() for part in norm(embedding, lora))
            for norm in (self.norm1, self.norm2, self.norm3)
        )
        update = self.attn1(fused.norm_modulate(tokens, *first[:2]), image_rotary_emb=rope)
        tokens, normed = fused.gate_norm_modulate(tokens, update, first[2], *second[:2])
        tokens, normed = fused.gate_norm_modulate(
            tokens, self.attn2(normed, encoder_hidden_states=text), second[2], *third[:2]
        )
        return fused.gate(tokens, self.ff(normed), third[2])
