# SPDX-License-Identifier: Apache-2.0
"""Memory tiers: how much of the model is on the device at once. From fastest to smallest; each step down is one idea."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from retake.core.errors import InputError, unknown_name

from .streaming import stream_blocks, unstream_blocks


@dataclass(frozen=True)
class Tier:
    """One way to run.

    staged: a stage's modules come to the device for the stage and leave after it (text encoder, VAE, transformer).
    batched_guidance: both guidance branches in one forward. overlap_decode: decode take i while take i + 1 denoises.
    tiled_decode: the VAE works in tiles; overlaps are blended, so pixels differ slightly from the other tiers.
    group_offload: transformer blocks visit the device one after the other (see `streaming`).
    """

    name: str
    staged: bool = False
    batched_guidance: bool = False
    overlap_decode: bool = False
    tiled_decode: bool = False
    group_offload: bool = False

    @property
    def exact(self) -> bool:
        """Same arithmetic as "resident"; tiling is not, and a batch of two may round differently in the last bit."""
        return not self.tiled_decode and not self.batched_guidance


TIERS: tuple[Tier, ...] = (
    Tier("resident-batched", batched_guidance=True, overlap_decode=True),
    Tier("resident-overlap", overlap_decode=True),
    Tier("resident"),
    Tier("staged", staged=True),
    Tier("staged-tiled", staged=True, tiled_decode=True),
    Tier("group-offload", staged=True, tiled_decode=True, group_offload=True),
)
DEFAULT_TIER = "resident"


def find_tier(name: str) -> Tier:
    """The tier of that name. Raises InputError listing the names."""
    for tier in TIERS:
        if tier.name == name:
            return tier
    raise InputError(unknown_name("memory tier", name, (tier.name for tier in TIERS)))


def next_tier(tier: Tier) -> Tier | None:
    """One tier down, or None at the bottom."""
    index = TIERS.index(tier) + 1
    return TIERS[index] if index < len(TIERS) else None


def apply_tier(tier: Tier, transformer: Any, vae: Any, device: torch.device) -> None:
    """Put the two generation modules into the tier's state. The text encoder is staged by the pipeline itself."""
    vae.use_tiling = tier.tiled_decode
    if not tier.group_offload:
        unstream_blocks(transformer)
    if tier.staged:
        vae.to("cpu")
        if tier.group_offload:
            stream_blocks(transformer, device)
        else:
            transformer.to("cpu")
    else:
        vae.to(device)
        transformer.to(device)
