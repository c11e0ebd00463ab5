# SPDX-License-Identifier: Apache-2.0
"""A VAE in shape only: sixteen cosine coefficients per block of 8 x 8 pixels and four frames. Nothing is learnt or random.

The golden VAE has random weights: what it decodes shows nothing, and an object hardly differs from its background in its
latents. Where a picture or an object must be seen in latents, this one stands in: it keeps brightness, its slopes and colour.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

SPACE, TIME, CHANNELS = 8, 4, 16
# brightness and two colour differences of RGB, orthonormal
_COLOURS = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / torch.tensor([[3.0], [2.0], [6.0]]).sqrt()
# colour, then frequency down, across and in time
_KEPT = [
    (0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0), (0, 0, 2, 0), (0, 2, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1),
    (0, 1, 0, 1), (0, 0, 0, 2), (1, 0, 0, 0), (1, 0, 1, 0), (1, 1, 0, 0), (2, 0, 0, 0), (2, 0, 1, 0), (2, 1, 0, 0),
]  # fmt: skip


def _cosines(n: int) -> Tensor:
    """(n, n), rows are frequencies; orthonormal."""
    place = (torch.arange(n) + 0.5) / n
    rows = torch.cos(torch.pi * torch.arange(n)[:, None] * place[None])
    return rows / rows.norm(dim=1, keepdim=True)


def _basis(frames: int) -> Tensor:
    """(16, 3, frames, 8, 8); for a single frame what changes in time is zero, and the rest as strong as in four."""
    down, across = _cosines(SPACE), _cosines(SPACE)
    time = _cosines(TIME) if frames == TIME else torch.eye(TIME)[:, :1] * TIME**0.5
    return torch.stack(
        [torch.einsum("c,t,y,x->ctyx", _COLOURS[c], time[kt], down[ky], across[kx]) for c, ky, kx, kt in _KEPT]
    )


class BlockVae:
    """What of an `AutoencoderKLWan` the VAE stage uses. `fit` chooses mean and std of the latents, 0 and 1 before."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"latents_mean": [0.0] * CHANNELS, "latents_std": [1.0] * CHANNELS}
        self._one, self._four = _basis(1), _basis(TIME)

    def fit(self, latents: Tensor) -> BlockVae:
        """Take mean and std per channel from raw latents (N, 16, T, h, w)."""
        self.config["latents_mean"] = latents.mean(dim=(0, 2, 3, 4)).tolist()
        self.config["latents_std"] = latents.std(dim=(0, 2, 3, 4)).clamp(min=1e-3).tolist()
        return self

    def encode(self, video: Tensor) -> Any:
        """(B, 3, 1 + 4k, 8h, 8w) -> (B, 16, 1 + k, h, w)."""
        blocks = video.unflatten(4, (-1, SPACE)).unflatten(3, (-1, SPACE))  # b c t h y w x
        first = torch.einsum("bchywx,kcyx->bkhw", blocks[:, :, 0], self._one[:, :, 0])[:, :, None]
        rest = torch.einsum("bcnthywx,kctyx->bknhw", blocks[:, :, 1:].unflatten(2, (-1, TIME)), self._four)
        latents = torch.cat([first, rest], dim=2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """The reverse, clamped to [-1, 1]."""
        first = torch.einsum("bkhw,kcyx->bchywx", latents[:, :, 0], self._one[:, :, 0] / TIME)[:, :, None]
        rest = torch.einsum("bknhw,kctyx->bcnthywx", latents[:, :, 1:], self._four).flatten(2, 3)
        return (torch.cat([first, rest], dim=2).flatten(5, 6).flatten(3, 4).clamp(-1, 1),)

    def to(self, *_: Any, **__: Any) -> BlockVae:
        """Stays on the CPU."""
        return self

    def requires_grad_(self, _: bool) -> BlockVae:
        """Has no weights."""
        return self
