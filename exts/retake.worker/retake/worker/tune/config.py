# SPDX-License-Identifier: Apache-2.0
"""What a training step is made of: every hyper-parameter with its default and where the default comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from retake.core.errors import InputError, unknown_name

from .flow import TIME_WEIGHTS

# The reference's LoRA targets in diffusers' names: self- and cross-attention and the MLP of every block.
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
_REFERENCE_TARGETS = {
    "q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "output_proj": "to_out.0",
    "mlp.layer1": "ff.net.0.proj", "mlp.layer2": "ff.net.2",
}  # fmt: skip


@dataclass(frozen=True)
class LinearSchedule:
    """Learning-rate factor per step: `f_start` to `f_max` over `warm_up` steps, then linearly to `f_min` at `cycle`.

    Defaults: NVIDIA's Cosmos-Predict2.5 2B recipe. Past `cycle` the factor stays `f_min`.
    """

    warm_up: int = 100
    f_start: float = 1e-6
    f_max: float = 0.99
    f_min: float = 0.4
    cycle: int = 400_000

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up < self.cycle:
            raise InputError(f"warm_up is {self.warm_up} and cycle {self.cycle}; valid: 0 <= warm_up < cycle")

    def factor(self, step: int) -> float:
        """The factor of a step (from 0)."""
        if step < self.warm_up:
            return (self.f_max - self.f_start) / self.warm_up * step + self.f_start
        left = max(0, self.cycle - step)
        return self.f_min + (self.f_max - self.f_min) * left / (self.cycle - self.warm_up)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (peft): float32, no dropout, base frozen. Defaults are the reference's."""

    rank: int = 32
    alpha: float = 32
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise InputError(f"LoRA rank is {self.rank} and alpha {self.alpha}; valid: rank >= 1, alpha > 0")
        unknown = set(self.targets) - set(LORA_TARGETS)
        if unknown or not self.targets:
            raise InputError(unknown_name("LoRA target", ", ".join(sorted(unknown)) or "(none)", LORA_TARGETS))


@dataclass(frozen=True)
class ObjectSupervision:
    """What tells the model about simulated objects. Everything off by default; nothing changes the model before step 1.

    Attributes:
        weight: added to the loss weight of latent cells that an object covers fully (0: off), pooled by area.
        release_boost: factor on `weight` between release and settling, where physics decides alone.
        control: "none"; "drawn": objects are drawn into the Skeleton video; "embed": a zero-initialised object embedding
            beside the skeleton's reads a video of the objects.
    """

    weight: float = 0.0
    release_boost: float = 1.0
    control: str = "none"

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and self.release_boost >= 0):
            raise InputError(f"object weight is {self.weight} and release boost {self.release_boost}; valid: 0 or more")
        if self.control not in ("none", "drawn", "embed"):
            raise InputError(unknown_name("object control", self.control, ("none", "drawn", "embed")))


@dataclass(frozen=True)
class TuneConfig:
    """One training step of OSCAR.

    Defaults follow the reference where it says (shift, logit-normal time, uniform weight) and NVIDIA's 2B recipe where
    it does not (AdamW 3e-5, one group with decay on everything, clip 0.1, power EMA 0.1). `clip_norm` or `ema_rate`
    None turn that part off. Dropouts replace the input by zeros per sample.
    """

    lr: float = 3e-5
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: LinearSchedule = field(default_factory=LinearSchedule)
    clip_norm: float | None = 0.1
    ema_rate: float | None = 0.1
    shift: float = 5.0
    time_weight: str = "uniform"
    text_dropout: float = 0.0
    skeleton_dropout: float = 0.0
    lora: LoraSettings | None = None
    objects: ObjectSupervision = field(default_factory=ObjectSupervision)
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "shift"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}; valid: above 0")
        if self.time_weight not in TIME_WEIGHTS:
            raise InputError(unknown_name("time weight", self.time_weight, TIME_WEIGHTS))
        for name in ("text_dropout", "skeleton_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; valid: 0 (off) to below 1")
        for name in ("clip_norm", "ema_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; valid: above 0, or null to turn it off")


def golden_config(config: Mapping[str, Any], **changes: Any) -> TuneConfig:
    """The `TuneConfig` of a golden set's `config.json`.

    A set lists its LoRA settings always; they are used where it says `"add_lora": true` or `lora=True` is given here.
    `time_weight="reweighting"` (or the set's `train_time_weight`) chooses the loss weight. Raises InputError naming the
    key that is missing or not understood.
    """

    def need(key: str) -> Any:
        if key not in config:
            raise InputError(f"the golden configuration has no {key!r}; it has {', '.join(sorted(config))}")
        return config[key]

    lora = changes.pop("lora", config.get("add_lora", False))
    settings: LoraSettings | None = None
    if lora:
        stated = need("lora")
        names = [name.strip() for name in stated["targets"].split(",")]
        unknown = [name for name in names if name not in _REFERENCE_TARGETS]
        if unknown:
            raise InputError(unknown_name("LoRA target", unknown[0], _REFERENCE_TARGETS))
        settings = LoraSettings(stated["rank"], stated["alpha"], tuple(_REFERENCE_TARGETS[name] for name in names))
    made = TuneConfig(
        lr=need("lr"),
        weight_decay=need("weight_decay"),
        betas=tuple(need("betas")),
        eps=need("eps"),
        schedule=_schedule(need("scheduler")),
        clip_norm=need("clip_norm"),
        ema_rate=config.get("ema_rate"),
        shift=float(config.get("shift", 5.0)),
        time_weight=config.get("train_time_weight", "uniform"),
        lora=settings,
    )
    return replace(made, **changes)


def _schedule(text: Any) -> LinearSchedule:
    """`LambdaLinear warm_up 2, f_start 1e-6, …` as the golden sets write it."""
    values = dict(re.findall(r"(warm_up|f_start|f_max|f_min|cycle)\s+([-+.\de]+)", str(text)))
    if not str(text).startswith("LambdaLinear") or len(values) != 5:
        raise InputError(
            f"scheduler is {text!r}; expected 'LambdaLinear warm_up N, f_start X, f_max X, f_min X, cycle N'"
        )
    return LinearSchedule(
        warm_up=int(values["warm_up"]), f_start=float(values["f_start"]), f_max=float(values["f_max"]),
        f_min=float(values["f_min"]), cycle=int(values["cycle"]),
    )  # fmt: skip
