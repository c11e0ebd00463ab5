# SPDX-License-Identifier: Apache-2.0
"""The golden OSCAR data, and the folders and pipelines made from it once per test process."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent.parent / "golden" / "oscar2b"
torch.set_num_threads(1)

TEXT_CONFIG: dict[str, Any] = {
    "model_type": "qwen2_5_vl", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "bos_token_id": None, "eos_token_id": 7,
}  # fmt: skip


@lru_cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


@lru_cache
def pixels() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "pixels.npz") as data:
        return {name: data[name] for name in data.files}


@lru_cache
def scratch() -> Path:
    """A folder that lives as long as the test process."""
    holder = tempfile.TemporaryDirectory(prefix="retake-oscar-")
    _HOLDERS.append(holder)
    return Path(holder.name)


_HOLDERS: list[Any] = []


@lru_cache
def converted(checkpoint: str = "dcp", dtype: str = "keep") -> Path:
    """The golden checkpoint converted without a text encoder."""
    from retake.worker.oscar.convert import convert

    out = scratch() / f"{checkpoint}-{dtype}"
    if not out.exists():
        convert(GOLDEN / checkpoint, GOLDEN / "worldsim_tiny_wanvae.safetensors", None, out, dtype=dtype)
    return out


def pipeline(checkpoint: str = "dcp", **kwargs: Any) -> Any:
    """A fresh float32 pipeline on the golden weights."""
    from retake.worker.oscar import OscarPipeline

    kwargs.setdefault("torch_dtype", torch.float32)
    pipe = OscarPipeline.from_pretrained(converted(checkpoint), **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def golden_call(**changes: Any) -> dict[str, Any]:
    """Arguments of the golden sampling run."""
    run = tensors("sampling_run")
    call: dict[str, Any] = {
        "first_frame": pixels()["first_frame"],
        "skeleton": pixels()["skeleton"],
        "prompt_embeds": run["prompt_embeds"],
        "negative_prompt_embeds": run["negative_prompt_embeds"],
        "num_frames": 17,
        "height": 64,
        "width": 64,
        "num_inference_steps": 5,
        "guidance_scale": 6.0,
        "seed": 42,
    }
    return {**call, **changes}


def text_folder(folder: Path, *, prefix: str = "model.", tokenizer: bool = False, hidden: int | None = None) -> Path:
    """A transformers folder of the golden text encoder; `hidden` = 32 makes a random one that fits the golden DiT."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(TEXT_CONFIG)
    weights = {k[2:].removeprefix("model."): v for k, v in tensors("text_encoder").items() if k.startswith("w.")}
    if hidden is not None:
        config |= {"hidden_size": hidden, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
        generator = torch.Generator().manual_seed(5)
        scale = hidden / 64
        weights = {
            name: torch.randn([int(n * scale) if n in (64, 32) else n for n in value.shape], generator=generator) * 0.1
            for name, value in weights.items()
        }
    named = {("lm_head.weight" if k == "lm_head.weight" else prefix + k): v.contiguous() for k, v in weights.items()}
    named["visual.patch_embed.proj.weight"] = torch.zeros(2, 2)  # a vision tower to be left out
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level Qwen2 tokenizer without merges, pad id 7."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 7, **{symbol: index + 20 for index, symbol in enumerate(alphabet)}}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", unk_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)


@lru_cache
def text_model() -> Path:
    """A converted folder with a text encoder and tokenizer that fit the golden transformer (3 layers x 32 = 96)."""
    from retake.worker.oscar.convert import convert

    source = text_folder(scratch() / "text32", tokenizer=True, hidden=32)
    out = scratch() / "with-text"
    convert(GOLDEN / "dcp", GOLDEN / "worldsim_tiny_wanvae.safetensors", source, out)
    return out


def text_pipeline(**kwargs: Any) -> Any:
    """A fresh float32 pipeline with a text encoder."""
    from retake.worker.oscar import OscarPipeline

    pipe = OscarPipeline.from_pretrained(text_model(), torch_dtype=torch.float32, **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def difference(a: Any, b: Any) -> float:
    """Largest absolute difference."""
    return float((torch.as_tensor(a).double() - torch.as_tensor(b).double()).abs().max())
