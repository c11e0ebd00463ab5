# SPDX-License-Identifier: Apache-2.0
"""The golden training set (outputs of the reference's own classes), and fresh models made from it."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from retake.worker.oscar import keymap
from retake.worker.oscar.transformer import OscarTransformer3DModel
from retake.worker.tune import Batch

GOLDEN = Path(__file__).parent.parent / "golden" / "oscar2b_training"
STEPS = 3
torch.set_num_threads(1)


@lru_cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def config() -> dict[str, Any]:
    return json.loads((GOLDEN / "config.json").read_text())


@lru_cache
def key_map() -> keymap.KeyMap:
    return keymap.key_map({name: tuple(value.shape) for name, value in tensors("base_net").items()})


def source(name: str) -> str:
    """The reference's name of a parameter of ours."""
    return key_map().source_of[name].removeprefix("net.")


def model(**changes: Any) -> OscarTransformer3DModel:
    """A fresh float32 transformer with the golden weights."""
    made = OscarTransformer3DModel(**{**key_map().config, **changes})
    weights = {target: tensors("base_net")[name] for target, name in key_map().source_of.items()}
    missing, unexpected = made.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("object_embed" in name for name in missing)
    return made


def batch(step: int = 0, name: str = "full_uniform", **changes: Any) -> Batch:
    """The reference's own inputs of a step, its noise and draw included."""
    golden = tensors(name)
    parts = {key: golden[f"s{step}.{key}"] for key in ("x0", "control", "text", "valid", "epsilon", "u")}
    return Batch(**{**parts, **changes})


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).abs().max())


def lora_source(name: str) -> str:
    """The reference's (peft) name of an adapter weight of ours."""
    stem, which = re.fullmatch(r"(.+)\.(lora_[AB])\.default\.weight", name).groups()  # pyright: ignore
    return f"base_model.model.{source(stem + '.weight').removesuffix('.weight')}.{which}.default.weight"
