# SPDX-License-Identifier: Apache-2.0
"""Linear layers that multiply in float8 (e4m3), not merely store it: `torch._scaled_mm` with a scale per row.

Weights are rounded once, per output row; activations for every product, per token. The product accumulates in float32 and
comes back in the tokens' dtype. Cards with compute capability 8.9 or more have the instruction; CPUs have it in PyTorch,
which is how this is tested.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retake.core.errors import InputError

KIND = torch.float8_e4m3fn
LARGEST = float(torch.finfo(KIND).max)
OLDEST = (8, 9)


def quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) -> float8 of the same shape and float32 scales (rows, 1): values = float8 * scale, rounded."""
    wide = values.float()
    scale = wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (wide / scale).clamp(-LARGEST, LARGEST).to(KIND), scale


class Float8Linear(nn.Module):
    """A linear layer without bias, in place of `nn.Linear`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight, scale = quantise(layer.weight.data)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.t().contiguous(), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        rows, scale = quantise(input.flatten(0, -2))
        kind = torch.float32 if input.dtype == torch.float32 else torch.bfloat16
        # rowwise scaling gives bfloat16 on cards, and float32 on none of them
        out = torch._scaled_mm(rows, self.weight.t(), scale, self.scale, out_dtype=torch.bfloat16)
        return out.to(kind).unflatten(0, input.shape[:-1])


def obstacle(device: torch.device) -> str:
    """Why float8 products are not to be had on this device; empty if they are."""
    if device.type == "cuda" and tuple(torch.cuda.get_device_capability(device)) < OLDEST:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return (
            f"fp8 needs a card of compute capability {OLDEST[0]}.{OLDEST[1]} or more (Ada, Hopper, Blackwell); this one "
            f"has {found}. 'fp8-storage' halves the weights' memory on any card"
        )
    return ""


def multiply_in_float8(transformer: Any, device: torch.device) -> int:
    """Every large product of the blocks in float8; how many layers changed. Raises InputError where it cannot be.

    What the reference computes in float32 (timestep embedding, modulation, final layer) stays as it is.
    """
    if reason := obstacle(device):
        raise InputError(reason)
    changed = 0
    for block in transformer.transformer_blocks:
        for owner in list(block.modules()):
            for name, layer in list(owner.named_children()):
                if type(layer) is nn.Linear and layer.bias is None:
                    if layer.in_features % 16 or layer.out_features % 16:
                        raise InputError(
                            f"fp8 products need widths in multiples of 16; {name} is {layer.in_features} x {layer.out_features}"
                        )
                    setattr(owner, name, Float8Linear(layer))
                    changed += 1
    return changed
