# SPDX-License-Identifier: Apache-2.0
"""Prompt text -> raw prompt embeddings, through the Qwen2.5-VL language model as OSCAR uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retake.core.errors import InputError, TakeError

PROMPT_LENGTH = 512
SYSTEM_PROMPT = "You are a helpful assistant who will provide prompts to an image generator."
_STD_EPS = 1e-8


def tokenize(tokenizer: Any, prompt: str, length: int = PROMPT_LENGTH) -> Tensor:
    """Prompt -> int64 token ids (1, length): chat template, right-padded with the pad id or truncated.

    The pad tokens reach the diffusion transformer unmasked, so padding side and pad id are part of the convention.
    Raises InputError.
    """
    if not isinstance(prompt, str):
        raise InputError(f"a prompt is text, not {type(prompt).__name__}")
    ids = list(tokenizer(chat(prompt), add_special_tokens=False)["input_ids"])
    pad = tokenizer.pad_token_id
    if pad is None:
        raise TakeError("the tokenizer has no pad token; OSCAR pads every prompt to 512 tokens with it")
    ids = ids[:length] + [pad] * (length - len(ids))
    return torch.tensor([ids], dtype=torch.long)


def chat(prompt: str) -> str:
    """The prompt inside Qwen's chat format, without a generation prompt.

    Written out rather than taken from the tokenizer's template, which a checkpoint folder may lack or change.
    """
    turns = (("system", SYSTEM_PROMPT), ("user", prompt))
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


@torch.no_grad()
def embed(text_encoder: Any, input_ids: Tensor) -> Tensor:
    """Token ids (1, L) -> raw embeddings (1, L, layers * hidden) in the encoder's dtype.

    Every layer's hidden states (the last after the final norm, the token embedding left out), each token normalised
    over its hidden dimension with the unbiased deviation, side by side. Causal attention only, no padding mask.
    """
    output = text_encoder(
        input_ids=input_ids if input_ids.is_meta else input_ids.to(text_encoder.device),
        output_hidden_states=True,
        use_cache=False,
    )
    layers = [normalise(state) for state in output.hidden_states[1:]]
    return torch.cat(layers, dim=-1)


def normalise(state: Tensor) -> Tensor:
    """(h - mean) / (unbiased std + 1e-8) over the last axis; statistics in float32, result in the input's dtype."""
    wide = state.float()
    std = wide.std(dim=-1, keepdim=True, correction=1)
    return ((wide - wide.mean(dim=-1, keepdim=True)) / (std + _STD_EPS)).to(state.dtype)


def default_negative_prompt() -> str:
    """OSCAR's negative prompt, which is the one diffusers ships for Cosmos-Predict2.5."""
    from diffusers.pipelines.cosmos.pipeline_cosmos2_5_predict import DEFAULT_NEGATIVE_PROMPT

    return DEFAULT_NEGATIVE_PROMPT
