# SPDX-License-Identifier: Apache-2.0
"""Pixels <-> latents through the Wan 2.1 VAE, with OSCAR's normalisation and rounding.

The stock `AutoencoderKLWan` drops frames that do not fill a group of four without a word; everything here refuses them.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor

from retake.core.errors import InputError

TIME_STRIDE, SPACE_STRIDE = 4, 8


def latent_frames(frames: int) -> int:
    """Latent frames of a video of `frames` = 1 + 4k pixel frames. Raises InputError otherwise."""
    if frames < 1 or (frames - 1) % TIME_STRIDE:
        raise InputError(f"{frames} frames do not fit the VAE: the count must be 1 + 4k (…, 77, 81, 85, …)")
    return 1 + (frames - 1) // TIME_STRIDE


def covering_latent_frames(frames: int) -> int:
    """Fewest latent frames whose decode covers `frames` pixel frames."""
    return 1 + -(-(frames - 1) // TIME_STRIDE)


def to_unit(frames: np.ndarray) -> Tensor:
    """uint8 RGB (T, H, W, 3) -> float32 (1, 3, T, H, W) in [-1, 1], by OSCAR's (x / 255 - 0.5) / 0.5."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None]
    return (video.float() / 255 - 0.5) / 0.5


def to_uint8(video: Tensor) -> np.ndarray:
    """Float (1, 3, T, H, W) in [-1, 1] -> uint8 RGB (T, H, W, 3); clamped, then truncated as in OSCAR's wrapper."""
    levels = (video.float().clamp(-1, 1) + 1) / 2 * 255
    return levels.to(torch.uint8)[0].permute(1, 2, 3, 0).cpu().numpy()


def statistics(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Latent mean and 1/std, (1, 16, 1, 1, 1), in the VAE's dtype and on its device.

    The reference holds the two constants in the VAE's own dtype; in bfloat16 both std and its inverse round, which
    moves 1/std by up to 4.1e-3 relative. Parity in bfloat16 needs the same rounding.
    """
    mean, std = (
        torch.tensor(vae.config[name], dtype=torch.float32).to(vae.device, vae.dtype).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    return mean, 1.0 / std


@torch.no_grad()
def encode(vae: AutoencoderKLWan, frames: np.ndarray) -> Tensor:
    """uint8 RGB (1 + 4k, H, W, 3) -> float32 normalised latents (1, 16, 1 + k, H/8, W/8). Raises InputError."""
    latent_frames(frames.shape[0])
    mean, inverse_std = statistics(vae)
    mode = vae.encode(to_unit(frames).to(vae.device, vae.dtype)).latent_dist.mode()  # pyright: ignore
    return ((mode - mean) * inverse_std).float()


@torch.no_grad()
def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Normalised latents (1, 16, t, h, w) -> float32 video (1, 3, 4t - 3, 8h, 8w), clamped to [-1, 1]."""
    return decode_with_gradient(vae, latents)


def decode_with_gradient(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """As `decode`, for what learns through the decoder (rewards); values that are clamped pass no gradient."""
    mean, inverse_std = statistics(vae)
    raw = latents.to(vae.device, vae.dtype) / inverse_std + mean
    return vae.decode(raw, return_dict=False)[0].float()
