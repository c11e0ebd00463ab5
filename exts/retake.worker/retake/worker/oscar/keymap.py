# SPDX-License-Identifier: Apache-2.0
"""OSCAR's checkpoint names and shapes -> this package's transformer: one pure function, no tensors, no torch.

`key_map` reads the architecture off the shapes, renames every key and proves that nothing is missing, unexpected or
mis-shaped. The tiny test checkpoint and the released model take the same path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retake.core.errors import InputError

Shape = tuple[int, ...]

PREFIX = "net."
PATCH = 4  # 1 x 2 x 2: the reference's only patch size; the patch is not recoverable from shapes alone
_DROPPED = re.compile(r"accum_|pos_embedder\.|.*_extra_state$")
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"t_embedder\.1\.(linear_[12]\.weight)", r"time_embed.t_embedder.\1"),
    (r"t_embedding_norm\.weight", r"time_embed.norm.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_self_attn\.([12])\.weight", r"transformer_blocks.\1.norm1.linear_\2.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_cross_attn\.([12])\.weight", r"transformer_blocks.\1.norm2.linear_\2.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_mlp\.([12])\.weight", r"transformer_blocks.\1.norm3.linear_\2.weight"),
    (r"blocks\.(\d+)\.self_attn\.([qkv])_proj\.weight", r"transformer_blocks.\1.attn1.to_\2.weight"),
    (r"blocks\.(\d+)\.cross_attn\.([qkv])_proj\.weight", r"transformer_blocks.\1.attn2.to_\2.weight"),
    (r"blocks\.(\d+)\.self_attn\.output_proj\.weight", r"transformer_blocks.\1.attn1.to_out.0.weight"),
    (r"blocks\.(\d+)\.cross_attn\.output_proj\.weight", r"transformer_blocks.\1.attn2.to_out.0.weight"),
    (r"blocks\.(\d+)\.self_attn\.([qk])_norm\.weight", r"transformer_blocks.\1.attn1.norm_\2.weight"),
    (r"blocks\.(\d+)\.cross_attn\.([qk])_norm\.weight", r"transformer_blocks.\1.attn2.norm_\2.weight"),
    (r"blocks\.(\d+)\.mlp\.layer1\.weight", r"transformer_blocks.\1.ff.net.0.proj.weight"),
    (r"blocks\.(\d+)\.mlp\.layer2\.weight", r"transformer_blocks.\1.ff.net.2.weight"),
    (r"final_layer\.adaln_modulation\.([12])\.weight", r"norm_out.linear_\1.weight"),
    (r"final_layer\.linear\.weight", r"proj_out.weight"),
    (r"crossattn_proj\.0\.(weight|bias)", r"crossattn_proj.0.\1"),
    (r"x_embedder\.proj\.1\.weight", r"patch_embed.proj.weight"),
    (r"additional_x_embedder\.proj\.1\.weight", r"control_embed.proj.weight"),
)
_COMPILED = tuple((re.compile(pattern), target) for pattern, target in _RENAMES)


@dataclass(frozen=True)
class KeyMap:
    """What a checkpoint is: transformer settings, target name -> source name, and the source names left out."""

    config: dict[str, Any]
    source_of: dict[str, str]
    dropped: tuple[str, ...]


def rename(name: str) -> str | None:
    """A source name without its `net.` prefix -> the transformer's name, or None if it is not known."""
    for pattern, target in _COMPILED:
        if match := pattern.fullmatch(name):
            return match.expand(target)
    return None


def architecture(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Transformer settings read off source shapes (names with `net.`). Raises InputError naming the key it needs."""

    def shape(name: str, rank: int) -> Shape:
        found = shapes.get(PREFIX + name)
        if found is None:
            raise InputError(
                f"this is not an OSCAR checkpoint: it has no {PREFIX + name!r} "
                f"(it has {len(shapes)} tensors, e.g. {', '.join(sorted(shapes)[:3]) or 'none'})"
            )
        if len(found) != rank or 0 in found:
            raise InputError(f"{PREFIX + name} has shape {list(found)}; expected {rank} non-empty dimensions")
        return found

    width, main_features = shape("x_embedder.proj.1.weight", 2)
    _, control_features = shape("additional_x_embedder.proj.1.weight", 2)
    (head_dim,) = shape("blocks.0.self_attn.q_norm.weight", 1)
    rank, _ = shape("blocks.0.adaln_modulation_self_attn.1.weight", 2)
    hidden, _ = shape("blocks.0.mlp.layer1.weight", 2)
    text_width, raw_text_width = shape("crossattn_proj.0.weight", 2)
    out_features, _ = shape("final_layer.linear.weight", 2)
    for what, value, divisor in (
        ("width", width, head_dim),
        ("x_embedder features", main_features, PATCH),
        ("additional_x_embedder features", control_features, PATCH),
        ("final layer features", out_features, PATCH),
    ):
        if value % divisor:
            raise InputError(f"this is not an OSCAR checkpoint: its {what} ({value}) is no multiple of {divisor}")
    numbers = [int(m[1]) for name in shapes if (m := re.match(rf"{re.escape(PREFIX)}blocks\.(\d+)\.", name))]
    return {
        "in_channels": main_features // PATCH - 2,  # condition mask and padding mask ride along
        "control_channels": control_features // PATCH,
        "out_channels": out_features // PATCH,
        "num_attention_heads": width // head_dim,
        "attention_head_dim": head_dim,
        "num_layers": max(numbers) + 1,
        "mlp_ratio": hidden / width,
        "text_embed_dim": text_width,
        "crossattn_proj_in_channels": raw_text_width,
        "adaln_lora_dim": rank,
    }


def transformer_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Every parameter name and shape of the transformer with these settings."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    rank, text, head_dim = config["adaln_lora_dim"], config["text_embed_dim"], config["attention_head_dim"]
    hidden = int(width * config["mlp_ratio"])
    shapes: dict[str, Shape] = {
        "patch_embed.proj.weight": (width, PATCH * (config["in_channels"] + 2)),
        "control_embed.proj.weight": (width, PATCH * config["control_channels"]),
        "time_embed.t_embedder.linear_1.weight": (width, width),
        "time_embed.t_embedder.linear_2.weight": (3 * width, width),
        "time_embed.norm.weight": (width,),
        "crossattn_proj.0.weight": (text, config["crossattn_proj_in_channels"]),
        "crossattn_proj.0.bias": (text,),
        "norm_out.linear_1.weight": (rank, width),
        "norm_out.linear_2.weight": (2 * width, rank),
        "proj_out.weight": (PATCH * config["out_channels"], width),
    }
    for index in range(config["num_layers"]):
        block = f"transformer_blocks.{index}"
        for norm in ("norm1", "norm2", "norm3"):
            shapes[f"{block}.{norm}.linear_1.weight"] = (rank, width)
            shapes[f"{block}.{norm}.linear_2.weight"] = (3 * width, rank)
        for attention, context in (("attn1", width), ("attn2", text)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, context)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, context)
            shapes[f"{block}.{attention}.to_out.0.weight"] = (width, width)
            shapes[f"{block}.{attention}.norm_q.weight"] = (head_dim,)
            shapes[f"{block}.{attention}.norm_k.weight"] = (head_dim,)
        shapes[f"{block}.ff.net.0.proj.weight"] = (hidden, width)
        shapes[f"{block}.ff.net.2.weight"] = (width, hidden)
    return shapes


def key_map(shapes: Mapping[str, Shape]) -> KeyMap:
    """Names and shapes of a checkpoint's tensors -> its KeyMap.

    Raises InputError unless every transformer parameter is there with its shape and nothing unknown remains.
    """
    config = architecture(shapes)
    expected = transformer_shapes(config)
    source_of: dict[str, str] = {}
    dropped: list[str] = []
    unexpected: list[str] = []
    misshaped: list[str] = []
    for name in sorted(shapes):
        if name.startswith("net_ema."):  # the reference never reads it
            dropped.append(name)
            continue
        bare = name.removeprefix(PREFIX)
        if bare != name and _DROPPED.match(bare):
            dropped.append(name)
            continue
        target = rename(bare) if bare != name else None
        if target is None or target not in expected:
            unexpected.append(name)
        elif tuple(shapes[name]) != expected[target]:
            misshaped.append(f"{name} is {list(shapes[name])}, expected {list(expected[target])}")
        else:
            source_of[target] = name
    found_or_named = set(source_of) | {rename(text.split(" ")[0].removeprefix(PREFIX)) for text in misshaped}
    missing = sorted(set(expected) - found_or_named)
    problems = [
        f"{title}: {', '.join(items[:4])}{f' and {len(items) - 4} more' if len(items) > 4 else ''}"
        for title, items in (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshaped))
        if items
    ]
    if problems:
        raise InputError(f"the checkpoint does not match OSCAR's architecture; {'; '.join(problems)}")
    return KeyMap(config=config, source_of=source_of, dropped=tuple(dropped))
