# SPDX-License-Identifier: Apache-2.0
"""Self-attention over some pairs of tokens only: near ones, and the given frame. Approximate, and labelled so.

Two patterns over a grid of (t, h, w) tokens in the order of the grid. "radial" (after Radial Attention, arXiv 2506.19852):
frames next to each other see each other whole; the band of positions that two frames share halves with every doubling of
their distance. "tile" (after sliding tile attention, arXiv 2502.04507, with tiles of whole rows so that tokens need no new
order): tiles near in time and height. Latent frame 0, the given one, is seen by every token in both.

On a card the pattern is a block mask of PyTorch's flex attention, elsewhere a dense mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from retake.core.errors import InputError, unknown_name

KINDS = ("radial", "tile")
ROWS_PER_TILE = 6
DENSE_LIMIT = 8192
"""Most tokens of a dense mask (64 MiB)."""


@dataclass(frozen=True)
class Pattern:
    """One pattern on one grid. `reach`: frames (and, for tiles, tiles of rows) to each side that are seen."""

    kind: str
    reach: int
    grid: tuple[int, int, int]

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether token `query` sees token `key` (integer tensors that broadcast)."""
        _, h, w = self.grid
        plane = h * w
        apart = (query // plane - key // plane).abs()
        if self.kind == "radial":
            doublings = torch.floor(torch.log2((apart.float() / self.reach).clamp(min=1.0)))
            band = plane / torch.exp2(doublings + (apart > self.reach).float())
            near = (apart <= self.reach) | ((query % plane - key % plane).abs() <= band)
        else:
            rows = ((query % plane) // (w * ROWS_PER_TILE) - (key % plane) // (w * ROWS_PER_TILE)).abs()
            near = (apart <= self.reach) & (rows <= self.reach)
        return near | (key < plane)

    def density(self) -> float:
        """Share of all pairs that are computed."""
        return _density(self)


@lru_cache(maxsize=16)
def _density(pattern: Pattern) -> float:
    t, h, w = pattern.grid
    plane = h * w
    places = torch.arange(plane)
    pairs = 0
    for apart in range(t):
        # two frames so far apart, neither of them the given one
        query, key = places[:, None] + plane * (apart + 1), places[None, :] + plane
        seen = int(pattern.allowed(query, key).sum())
        inner = (1 if apart == 0 else 2) * max(0, t - apart - 1) * seen  # both in 1 … t-1
        pairs += inner + plane * plane + (seen if apart else 0)  # onto the given frame, and from it
    return pairs / (t * plane) ** 2


def attention(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern) -> Tensor:
    """Attention over the pattern's pairs; (B, S, heads, D) each. Raises InputError where neither mask is possible."""
    tokens = query.shape[1]
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if query.is_meta:  # FLOPs in proportion
        some = max(1, round(tokens * pattern.density()))
        found = torch.ops.aten._scaled_dot_product_efficient_attention(q, k[:, :, :some], v[:, :, :some], None, False)
        return found[0].transpose(1, 2)
    if query.device.type == "cuda":
        return _flex()(q, k, v, block_mask=_block_mask(pattern, query.device)).transpose(1, 2)
    if tokens > DENSE_LIMIT:
        raise InputError(
            f"sparse attention of {tokens} tokens needs a CUDA device; elsewhere up to {DENSE_LIMIT} tokens"
        )
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=_dense(pattern)).transpose(1, 2)


@lru_cache(maxsize=4)
def _dense(pattern: Pattern) -> Tensor:
    t, h, w = pattern.grid
    places = torch.arange(t * h * w)
    return pattern.allowed(places[:, None], places[None, :])


@lru_cache(maxsize=4)
def _block_mask(pattern: Pattern, device: Any) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    t, h, w = pattern.grid
    return create_block_mask(
        lambda b, head, q, k: pattern.allowed(q, k), None, None, t * h * w, t * h * w, device=str(device)
    )


@lru_cache(maxsize=1)
def _flex() -> Any:
    from torch.nn.attention import flex_attention

    compiled: Any = torch.compile(flex_attention.flex_attention, dynamic=False)
    return compiled


def check(kind: str, reach: int) -> None:
    """Raises InputError for settings that mean nothing."""
    if kind not in KINDS:
        raise InputError(unknown_name("sparse pattern", kind, KINDS))
    if isinstance(reach, bool) or not isinstance(reach, int) or reach < 1:
        raise InputError(f"reach is {reach!r}; give 1 or more (frames, and tiles of rows, to each side)")


def fit(transformer: Any, grid: tuple[int, int, int]) -> None:
    """Bring the pattern chosen on the transformer (kind, reach; None: none) to the size of what comes now."""
    chosen = transformer.sparse
    pattern = None if chosen is None else Pattern(chosen[0], chosen[1], grid)
    for block in transformer.transformer_blocks:
        block.attn1.processor.pattern = pattern
