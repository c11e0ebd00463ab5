# SPDX-License-Identifier: Apache-2.0
"""OSCAR's diffusion transformer as a diffusers model: Cosmos-Predict2.5's layers plus a control patch embed.

Specification: OSCAR (arXiv 2606.04463); the layer table is in docs/oscar.md. No torchvision: the padding mask is
resized here. The control embed stays a linear of its own, because folding 0.1 * A into the main patch embed would
round the product in bfloat16, and because its tokens can then be computed once per take.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_cosmos import CosmosPatchEmbed, CosmosRotaryPosEmbed
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional

from . import sparse
from .layers import Fp32Linear, FrameModulation, OscarBlock, TimeEmbed, modulate
from .stepcache import Residuals

CONTROL_ALPHA = 0.1  # the skeleton's weight in the token sum (reference configuration `additional_embed_alpha`)


class OscarTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """Velocity of noisy video latents, given first-frame mask, Skeleton latents, text and one timestep per latent frame.

    Arguments are architecture sizes; `retake.worker.oscar.keymap.architecture` reads them off a checkpoint's shapes.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks = ["OscarBlock"]  # noqa: RUF012 - diffusers' own convention
    _no_split_modules = ["OscarBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = [  # noqa: RUF012 - what the reference computes in float32, and both ends
        "patch_embed", "control_embed", "time_embed", "norm", "proj_out", "crossattn_proj",
    ]  # fmt: skip

    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        control_channels: int = 16,
        out_channels: int = 16,
        num_attention_heads: int = 16,
        attention_head_dim: int = 128,
        num_layers: int = 28,
        mlp_ratio: float = 4.0,
        text_embed_dim: int = 1024,
        crossattn_proj_in_channels: int = 100352,
        adaln_lora_dim: int = 256,
        max_size: tuple[int, int, int] = (128, 240, 240),
        patch_size: tuple[int, int, int] = (1, 2, 2),
        rope_scale: tuple[float, float, float] = (1.0, 3.0, 3.0),
        control_alpha: float = CONTROL_ALPHA,
        object_channels: int = 0,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        width = num_attention_heads * attention_head_dim
        patch = patch_size[0] * patch_size[1] * patch_size[2]
        self.patch_embed = CosmosPatchEmbed(in_channels + 2, width, patch_size, bias=False)
        self.control_embed = CosmosPatchEmbed(control_channels, width, patch_size, bias=False)
        self.rope = CosmosRotaryPosEmbed(attention_head_dim, max_size, patch_size, rope_scale=rope_scale)
        self.time_embed = TimeEmbed(width)
        self.crossattn_proj = nn.Sequential(nn.Linear(crossattn_proj_in_channels, text_embed_dim), nn.GELU())
        self.transformer_blocks = nn.ModuleList(
            [
                OscarBlock(width, num_attention_heads, text_embed_dim, mlp_ratio, adaln_lora_dim)
                for _ in range(num_layers)
            ]
        )
        self.norm_out = FrameModulation(width, adaln_lora_dim, 2)
        self.proj_out = Fp32Linear(width, patch * out_channels, bias=False)
        self._rope_cache: dict[Any, tuple[Tensor, Tensor]] = {}
        self.sparse: tuple[str, int] | None = None
        """Pattern of self-attention and its reach (see `sparse`); None: every pair."""
        self.residuals: Residuals | None = None
        """Whole evaluations' worth of blocks, kept for steps that reuse them (see `stepcache`); None: none are."""
        if object_channels:
            self.add_object_embed(object_channels)

    def add_object_embed(self, channels: int) -> None:
        """Give the model a second control input, for latents of simulated objects: zero weights, so nothing changes yet."""
        width = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        embed = CosmosPatchEmbed(channels, width, self.config["patch_size"], bias=False)
        nn.init.zeros_(embed.proj.weight)
        like = self.control_embed.proj.weight
        self.object_embed = embed.to(like.device, like.dtype)
        self.register_to_config(object_channels=channels)

    def enable_cache(self, config: Any) -> None:
        """diffusers' step/feature caches. Our block must be known to them first: unknown blocks are skipped or refused."""
        from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry

        metadata = TransformerBlockMetadata(
            return_hidden_states_index=0,
            return_encoder_hidden_states_index=None,  # pyright: ignore[reportArgumentType]
        )
        TransformerBlockRegistry.register(OscarBlock, metadata)
        super().enable_cache(config)

    @apply_forward_hook
    def project_text(self, embeddings: Tensor) -> Tensor:
        """Raw prompt embeddings (B, L, crossattn_proj_in_channels) -> context (B, L, text_embed_dim), model dtype."""
        return self.crossattn_proj(embeddings.to(self.dtype))

    @apply_forward_hook
    def embed_control(self, control: Tensor) -> Tensor:
        """Skeleton latents (B, 16, T, h, w) -> their share of the tokens, (B, T*h*w/4, C), already scaled by alpha."""
        return self.control_alpha * self.control_embed(control.to(self.dtype)).flatten(1, 3)

    @apply_forward_hook
    def embed_objects(self, objects: Tensor) -> Tensor:
        """Latents of the object control video (B, C, T, h, w) -> their share of the tokens, to be added to the skeleton's."""
        if not self.config["object_channels"]:
            raise ValueError("this model has no object embedding; it was not tuned with object control 'embed'")
        return self.object_embed(objects.to(self.dtype)).flatten(1, 3)

    @property
    def control_alpha(self) -> float:
        return self.config["control_alpha"]

    def rope_tables(self, frames: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Float32 cosine and sine, (tokens, 1, head_dim), for a latent size; kept between calls."""
        key = (frames, height, width, device)
        if key not in self._rope_cache:
            probe = torch.empty((1, 1, frames, height, width), device=device)
            cos, sin = self.rope(probe, fps=None)  # fps modulation is off in OSCAR
            self._rope_cache = {key: (cos.unsqueeze(1), sin.unsqueeze(1))}
        return self._rope_cache[key]

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        condition_mask: Tensor | None = None,
        padding_mask: Tensor | None = None,
        fps: float | None = None,
        control_tokens: Tensor | None = None,
        text_is_projected: bool = False,
        object_latents: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """One network evaluation.

        Args:
            hidden_states: (B, 32, T, h, w), noisy latents then Skeleton latents; or (B, 16, T, h, w) with
                `control_tokens`.
            timestep: (B, 1, T, 1, 1), (B, T) or (B,); already multiplied by 0.001.
            encoder_hidden_states: (B, L, 100352) raw, or (B, L, 1024) with `text_is_projected`.
            condition_mask: (B, 1, T, h, w), 1 on the latent frames that are given; zeros if left out.
            padding_mask: (1 or B, 1, H, W), resized to (h, w) by nearest neighbour; zeros if left out.
            fps: accepted and unused, as in OSCAR.
            control_tokens: result of `embed_control`, batch 1 or B.
            text_is_projected: the text went through `project_text` before.
            object_latents: (B, object_channels, T, h, w), for a model with an object embedding.
            return_dict: a named output instead of a tuple.

        Returns:
            The velocity (B, 16, T, h, w), float32 (the final layer computes in float32).
        """
        batch, channels, frames, height, width = hidden_states.shape
        config = self.config
        if control_tokens is None:
            if channels != config["in_channels"] + config["control_channels"]:
                raise ValueError(
                    f"hidden_states has {channels} channels; give {config['in_channels']} latent + "
                    f"{config['control_channels']} control channels, or {config['in_channels']} and control_tokens"
                )
            hidden_states, control = hidden_states.split([config["in_channels"], config["control_channels"]], dim=1)
            control_tokens = self.embed_control(control)
        if object_latents is not None:
            control_tokens = control_tokens + self.embed_objects(object_latents)

        dtype = self.dtype
        latents = hidden_states.to(dtype)
        mask = latents.new_zeros(batch, 1, frames, height, width) if condition_mask is None else condition_mask
        padding = latents.new_zeros(1, 1, height, width)
        if padding_mask is not None:
            padding = functional.interpolate(padding_mask.to(dtype), size=(height, width), mode="nearest")
        padding = padding[:, :, None].expand(batch, 1, frames, height, width)
        tokens = self.patch_embed(torch.cat([latents, mask.to(dtype).expand_as(padding), padding], dim=1))
        tokens = tokens.flatten(1, 3) + control_tokens

        lora, embedding = self.time_embed(_frame_timesteps(timestep, batch, frames))
        text = encoder_hidden_states.to(dtype) if text_is_projected else self.project_text(encoder_hidden_states)
        rope = self.rope_tables(frames, height, width, latents.device)
        if self.sparse is not None or self.transformer_blocks[0].attn1.processor.pattern is not None:
            sparse.fit(self, (frames, height // config["patch_size"][1], width // config["patch_size"][2]))
        kept = self.residuals.reused() if self.residuals is not None else None
        if kept is not None:
            tokens = tokens + kept
        else:
            before = tokens
            for block in self.transformer_blocks:
                if torch.is_grad_enabled() and self.gradient_checkpointing:
                    tokens = self._gradient_checkpointing_func(block, tokens, text, embedding, lora, rope)
                else:
                    tokens = block(tokens, text, embedding, lora, rope)
            if self.residuals is not None:
                self.residuals.keep(tokens, before)

        shift, scale = self.norm_out(embedding, lora)
        by_frame = tokens.reshape(batch, frames, -1, tokens.shape[-1])
        velocity = self._unpatchify(self.proj_out(modulate(by_frame.float(), shift, scale)), frames, height, width)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)  # pyright: ignore

    def _unpatchify(self, features: Tensor, frames: int, height: int, width: int) -> Tensor:
        """(B, T, HW, p_h * p_w * p_t * C), in that order -> (B, C, T, H, W)."""
        p_t, p_h, p_w = self.config["patch_size"]
        grid = features.reshape(features.shape[0], frames // p_t, height // p_h, width // p_w, p_h, p_w, p_t, -1)
        grid = grid.permute(0, 7, 1, 6, 2, 4, 3, 5)
        return grid.reshape(features.shape[0], -1, frames, height, width)


def _frame_timesteps(timestep: Tensor, batch: int, frames: int) -> Tensor:
    """(B, 1, T, 1, 1), (B, T) or (B,) -> (B, T)."""
    if timestep.ndim == 5:
        timestep = timestep[:, 0, :, 0, 0]
    if timestep.ndim == 1:
        timestep = timestep[:, None]
    if timestep.ndim != 2:
        raise ValueError(f"timestep has shape {tuple(timestep.shape)}; give (B, 1, T, 1, 1), (B, T) or (B,)")
    return timestep.expand(batch, frames)
