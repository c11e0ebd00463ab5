# SPDX-License-Identifier: Apache-2.0
"""What each stage of a take costs, at any size, from the modules themselves (see `meter`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from . import vae as vae_stage
from .keymap import transformer_shapes
from .meter import Cost, measure, traffic
from .text import PROMPT_LENGTH, embed
from .transformer import OscarTransformer3DModel

FULL_TRANSFORMER: dict[str, Any] = {
    "in_channels": 16, "control_channels": 16, "out_channels": 16, "num_attention_heads": 16,
    "attention_head_dim": 128, "num_layers": 28, "mlp_ratio": 4.0, "text_embed_dim": 1024,
    "crossattn_proj_in_channels": 100352, "adaln_lora_dim": 256,
}  # fmt: skip
FULL_VAE: dict[str, Any] = {"base_dim": 96}
# Qwen2.5-VL-7B's language model, the architecture of Cosmos-Reason1-7B
FULL_TEXT: dict[str, Any] = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
TILE = 256  # AutoencoderKLWan's default tile, stride 192
TILE_STRIDE = 192
_FIRST = "transformer_blocks.0."


@dataclass(frozen=True)
class StageCosts:
    """Costs of one take's stages at a size. Weights in bytes. `text` is one prompt; `forward` one network evaluation."""

    frames: int
    height: int
    width: int
    dtype: str
    transformer_bytes: int
    streamed_bytes: int
    """On the device while blocks are streamed: two blocks, and everything outside the blocks."""
    vae_bytes: int
    text_bytes: int
    text: Cost
    project: Cost
    first_frame: Cost
    skeleton: Cost
    skeleton_tiled: Cost
    forward: Cost
    forward_batched: Cost
    decode: Cost
    decode_tiled: Cost

    def take_flops(self, steps: int, takes: int = 1, cold_prompts: int = 0) -> float:
        """FLOPs per take when `takes` takes share a skeleton and `cold_prompts` prompts had to be encoded."""
        shared = self.skeleton.flops + cold_prompts * (self.text.flops + self.project.flops)
        return shared / takes + self.first_frame.flops + 2 * (steps + 1) * self.forward.flops + self.decode.flops


def stage_costs(
    transformer: Mapping[str, Any] | None = None,
    vae: Mapping[str, Any] | None = None,
    *,
    frames: int = 81,
    height: int = 480,
    width: int = 640,
    dtype: torch.dtype = torch.bfloat16,
    with_text: bool = True,
) -> StageCosts:
    """Costs of all stages; full-size OSCAR by default. Kept for the process once computed."""
    key = json.dumps([dict(transformer or FULL_TRANSFORMER), dict(vae or FULL_VAE)], sort_keys=True)
    return _stage_costs(key, frames, height, width, dtype, with_text)


@lru_cache(maxsize=16)
def _stage_costs(key: str, frames: int, height: int, width: int, dtype: torch.dtype, with_text: bool) -> StageCosts:
    transformer, vae = json.loads(key)
    latent = vae_stage.latent_frames(frames)
    model = meta_transformer(transformer, dtype)
    coder = meta_vae(vae, dtype)
    tile_h, tile_w = min(TILE, height), min(TILE, width)
    tiles = _tiles(height) * _tiles(width)
    plain = vae_costs(coder, latent, height, width)
    tiled = plain if (tile_h, tile_w) == (height, width) else vae_costs(coder, latent, tile_h, tile_w)
    forward = forward_cost(model, latent, height // 8, width // 8, 1)
    both = forward_cost(model, latent, height // 8, width // 8, 2)
    video_bytes = 3 * frames * height * width * dtype.itemsize
    tile_video = 3 * frames * tile_h * tile_w * dtype.itemsize
    text_cost, text_bytes = _text_cost(dtype) if with_text else (Cost(0, 0), 0)
    itemsize, shapes = dtype.itemsize, transformer_shapes(transformer)
    outside = sum(_numel(shape) for name, shape in shapes.items() if not name.startswith("transformer_blocks."))
    raw = torch.empty(1, PROMPT_LENGTH, transformer["crossattn_proj_in_channels"], device="meta", dtype=dtype)
    return StageCosts(
        frames=frames,
        height=height,
        width=width,
        dtype=str(dtype).removeprefix("torch."),
        transformer_bytes=itemsize * sum(_numel(s) for s in shapes.values()),
        streamed_bytes=itemsize * (outside + 2 * sum(_numel(s) for n, s in shapes.items() if n.startswith(_FIRST))),
        vae_bytes=itemsize * sum(p.numel() for p in coder.parameters()),
        text_bytes=text_bytes,
        text=text_cost,
        project=measure(lambda: model.project_text(raw)),
        first_frame=measure(lambda: coder.encode(_pixels(1, height, width, dtype))),
        skeleton=plain[0],
        # the input video lives beside the tile at work; FLOPs without the overlaps, which come on top
        skeleton_tiled=Cost(plain[0].flops, tiled[0].peak_bytes + video_bytes),
        forward=forward,
        forward_batched=Cost(2 * forward.flops, both.peak_bytes),
        decode=plain[1],
        # every decoded tile is kept until all are blended, then joined
        decode_tiled=Cost(plain[1].flops, tiled[1].peak_bytes + tiles * tile_video + 2 * video_bytes),
    )


def forward_cost(model: Any, frames: int, height: int, width: int, batch: int) -> Cost:
    """One evaluation of our forward, given control tokens and projected text (what the sampling loop calls)."""
    run, kept = _forward(model, frames, height, width, batch)
    cost = measure(run)
    return Cost(cost.flops, cost.peak_bytes + kept)


def forward_traffic(model: Any, frames: int, height: int, width: int) -> dict[str, int]:
    """Bytes that one evaluation's elementwise work moves, by operation (see `meter.Traffic`)."""
    return traffic(_forward(model, frames, height, width, 1)[0])


def _forward(model: Any, frames: int, height: int, width: int, batch: int) -> tuple[Any, int]:
    """The call, and the bytes of what is kept between calls."""
    config, dtype = model.config, model.dtype
    latents = torch.empty(batch, config["in_channels"], frames, height, width, device="meta")
    mask = torch.empty(batch, 1, frames, height, width, device="meta")
    control = torch.empty(1, frames * height * width // 4, _width(config), device="meta", dtype=dtype)
    text = torch.empty(batch, PROMPT_LENGTH, config["text_embed_dim"], device="meta", dtype=dtype)
    times = torch.empty(batch, frames, device="meta")
    rope_first = model.rope_tables(frames, height, width, latents.device)  # kept between calls, counted once below
    kept = sum(t.numel() * t.element_size() for t in (*rope_first, control))
    run = lambda: model(  # noqa: E731
        latents, times, text, condition_mask=mask, control_tokens=control, text_is_projected=True
    )
    return run, kept


def vae_costs(coder: Any, latent: int, height: int, width: int) -> tuple[Cost, Cost]:
    """Encode and decode of a whole video: run at 3 and 4 latent frames, then linear (each latent frame is one pass)."""
    low, high = min(latent, 3), min(latent, 4)
    encode, decode = _vae_cost(coder, low, height, width)
    if high == low:
        return encode, decode
    more, steps = _vae_cost(coder, high, height, width), latent - low
    return encode.extrapolate(more[0], steps), decode.extrapolate(more[1], steps)


def _vae_cost(coder: Any, latent: int, height: int, width: int) -> tuple[Cost, Cost]:
    """Encode and decode of so many latent frames; kept for the process, as tiles have one size and videos many lengths."""
    key = json.dumps(dict(coder.config), sort_keys=True, default=str), coder.dtype, latent, height, width
    if key not in _VAE_COSTS:
        z = torch.empty(1, coder.config["z_dim"], latent, height // 8, width // 8, device="meta", dtype=coder.dtype)
        _VAE_COSTS[key] = (
            measure(lambda: coder.encode(_pixels(4 * latent - 3, height, width, coder.dtype))),
            measure(lambda: coder.decode(z, return_dict=False)),
        )
    return _VAE_COSTS[key]


_VAE_COSTS: dict[Any, tuple[Cost, Cost]] = {}


def meta_transformer(config: Mapping[str, Any], dtype: torch.dtype) -> OscarTransformer3DModel:
    """The transformer with shapes and no bytes."""
    with torch.device("meta"):
        model = OscarTransformer3DModel(**config)
    return _as_dtype(model, dtype)


def meta_vae(config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKLWan:
    """The VAE with shapes and no bytes."""
    with torch.device("meta"):
        return _as_dtype(AutoencoderKLWan(**config), dtype)


def _as_dtype(module: Any, dtype: torch.dtype) -> Any:
    # nn.Module.to, not ModelMixin's: the latter warns about modules we handle ourselves
    return torch.nn.Module.to(module, dtype).eval()


@lru_cache(maxsize=4)
def _text_cost(dtype: torch.dtype) -> tuple[Cost, int]:
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    config = Qwen2_5_VLTextConfig(**FULL_TEXT)
    config._attn_implementation = "eager"  # the S x S form at S = 512 is the upper bound
    with torch.device("meta"):
        model = _as_dtype(Qwen2_5_VLTextModel(config), dtype)
    ids = torch.empty(1, PROMPT_LENGTH, device="meta", dtype=torch.long)
    return measure(lambda: embed(model, ids)), dtype.itemsize * sum(p.numel() for p in model.parameters())


def _pixels(frames: int, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(1, 3, frames, height, width, device="meta", dtype=dtype)


def _tiles(extent: int) -> int:
    return 1 if extent <= TILE else -(-extent // TILE_STRIDE)


def _width(config: Mapping[str, Any]) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
