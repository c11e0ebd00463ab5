# SPDX-License-Identifier: Apache-2.0
"""The probe: small convolutions with spatial softmax per camera, the state, a chunk of joint targets, a phase head.

Targets are said relative to the present state where it has an entry of the same name, so that a small error of the picture
is a small error of the arm. Everything that turns numbers into the network's units is part of its folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

CHUNK = 8
"""Joint targets said at once."""
HIDDEN = 256
CHANNELS = (24, 32, 32, 32)


@dataclass(frozen=True)
class Shape:
    """What a network is built for; JSON, kept in config.json."""

    cameras: dict[str, tuple[int, int]]
    """Name → (width, height), px."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    phases: int = 0
    chunk: int = CHUNK

    @property
    def reference(self) -> list[int]:
        """State entry that each action entry is said relative to; -1 = none."""
        return [self.state_names.index(name) if name in self.state_names else -1 for name in self.action_names]


class SpatialSoftmax(nn.Module):
    """(B, C, H, W) features to (B, 2 C): the expected place of each, x and y from -1 to 1."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Softmax over places, then the mean place."""
        b, c, h, w = features.shape
        weight = torch.softmax(features.reshape(b, c, h * w), -1).reshape(b, c, h, w)
        x = torch.linspace(-1, 1, w, dtype=features.dtype, device=features.device)
        y = torch.linspace(-1, 1, h, dtype=features.dtype, device=features.device)
        return torch.cat([(weight.sum(2) * x).sum(-1), (weight.sum(3) * y).sum(-1)], 1)


def encoder() -> nn.Sequential:
    """Four convolutions, a quarter of the picture's size at the end."""
    layers: list[nn.Module] = []
    before = 3
    for k, channels in enumerate(CHANNELS):
        size, stride = (5, 2) if k == 0 else (3, 2) if k == 1 else (3, 1)
        layers += [nn.Conv2d(before, channels, size, stride, size // 2), nn.ReLU()]
        before = channels
    layers[-1] = SpatialSoftmax()  # softmax over what the last convolution says, negative or not
    return nn.Sequential(*layers)


class Probe(nn.Module):
    """See the module's text. `forward` speaks the network's units, `act` the data set's."""

    state_mean: torch.Tensor
    state_std: torch.Tensor
    target_std: torch.Tensor
    target_mean: torch.Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoders = nn.ModuleList([encoder() for _ in shape.cameras])
        width = 2 * CHANNELS[-1] * len(shape.cameras) + len(shape.state_names)
        self.body = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        self.targets = nn.Linear(HIDDEN, shape.chunk * len(shape.action_names))
        self.phase = nn.Linear(HIDDEN, shape.phases) if shape.phases else None
        self.register_buffer("state_mean", torch.zeros(len(shape.state_names)))
        self.register_buffer("state_std", torch.ones(len(shape.state_names)))
        self.register_buffer("target_mean", torch.zeros(shape.chunk, len(shape.action_names)))
        self.register_buffer("target_std", torch.ones(shape.chunk, len(shape.action_names)))

    def forward(self, images: list[torch.Tensor], state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images (B, 3, H, W) from -1 to 1 per camera, state (B, S) as recorded → (targets (B, chunk, A) in network units,
        phase logits (B, P) or None)."""
        seen = [encode(image) for encode, image in zip(self.encoders, images, strict=True)]
        inner = self.body(torch.cat([*seen, (state - self.state_mean) / self.state_std], 1))
        said = self.targets(inner).reshape(-1, self.shape.chunk, len(self.shape.action_names))
        return said, None if self.phase is None else self.phase(inner)

    def base(self, state: torch.Tensor) -> torch.Tensor:
        """(B, 1, A): what targets are said relative to."""
        index = torch.tensor(self.shape.reference)
        known = state[:, index.clamp(min=0)]
        return torch.where(index >= 0, known, torch.zeros_like(known))[:, None]

    def normal(self, targets: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Targets (B, chunk, A) as recorded, in network units."""
        return (targets - self.base(state) - self.target_mean) / self.target_std

    @torch.no_grad()
    def act(self, images: list[np.ndarray], state: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) per camera at the packed sizes, state (S,) → targets (chunk, A), float32, as recorded."""
        given = torch.from_numpy(np.asarray(state, np.float32))[None]
        said, _ = self([pixels(image[None]) for image in images], given)
        return (said * self.target_std + self.target_mean + self.base(given))[0].numpy()


def pixels(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 from -1 to 1."""
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def parameters(model: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in model.parameters())
