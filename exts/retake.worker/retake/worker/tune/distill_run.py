# SPDX-License-Identifier: Apache-2.0
"""`retake tune distil`, experimental: from folders on disk to a few-step student, with checkpoints that go on bit for bit.

The loop, its data, curves and checkpoints are those of `retake tune run`; a checkpoint holds student and critic. One process.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from retake.core.errors import InputError
from retake.core.export.found import Selection
from retake.core.files import read_json, sha256_file, write_json
from retake.core.progress import CheckCancel, Progress

from ..memory import CONTEXT_BYTES, FRAGMENTATION, GIB, free_device_bytes, usable_device
from ..oscar.few_step import Student
from ..oscar.object_control import object_control_of
from ..oscar.pipeline import OscarPipeline
from ..oscar.text import default_negative_prompt
from . import checkpoints
from .clips import find_clips, objects_in_control
from .config import TuneConfig
from .distill import DistillConfig, Distiller, DistillResult
from .folder import COMMAND, MODEL
from .latents import LatentCache
from .planning import TunePlan, plan_training
from .settings import RunSettings
from .step import Batch
from .trainer import Progressed, Trainer

WHO = ("student", "critic")


@dataclass(frozen=True)
class DistilSettings(RunSettings):
    """A distillation. `step`: the student's optimiser (no average); `critic_lr`: the critic's rate. Others: `DistillConfig`."""

    student: Student = field(default_factory=lambda: Student(4))
    guidance: float = 6.0
    critic_steps: int = 5
    critic_lr: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate != 1:
            raise InputError(
                f"accumulate is {self.accumulate}; a distillation step takes one forward pass: give --batch"
            )
        if self.step.lora is not None or self.step.objects.control != "none" or self.step.objects.weight:
            raise InputError("distillation trains all weights of a plain model: no adapters, no object supervision")
        if not 0 <= self.guidance < float("inf"):
            raise InputError(f"guidance is {self.guidance}; valid: 0 (off) or more, 6 is OSCAR's")
        self.config()

    def config(self) -> DistillConfig:
        """What the steps are made of. Raises InputError."""
        return DistillConfig(
            student=self.student, guidance=self.guidance, critic_steps=self.critic_steps, optimiser=self.step,
            critic_optimiser=replace(self.step, lr=self.critic_lr), seed=self.step.seed,
        )  # fmt: skip


class DistilTrainer(Trainer):
    """`Trainer` over a `Distiller`: `negative` is the teacher's negative prompt (1, L, D), None without guidance."""

    def __init__(
        self, distiller: Distiller, negative: Tensor | None, settings: DistilSettings, folder: Path, **data: Any
    ) -> None:
        super().__init__(distiller, settings, folder, **data)
        self.distiller, self.negative = distiller, negative

    def _step(self, step: int) -> DistillResult:
        made, s = self.distiller, self.settings
        made.generator.manual_seed(s.step.seed * 1_000_003 + step)
        device = next(made.student.parameters()).device
        batch = self.batch(self.sampler.draw(step, s.batch), step)
        moved = {f.name: value.to(device) for f in fields(Batch) if (value := getattr(batch, f.name)) is not None}
        return made.step(Batch(**moved), None if self.negative is None else self.negative.to(device))

    def _curve(self, result: DistillResult, loss: float) -> dict[str, float | None]:
        return {"loss": loss, "critic": result.critic, "matching": result.matching, "rung": float(result.rung)}

    def _capture(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        parts = {f"{who}.{name}": part for who in WHO for name, part in checkpoints.capture(self._one(who)).items()}
        return parts, {"iterations": {who: self._one(who).optimizer.iteration for who in WHO}}

    def _restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        for who in WHO:
            state = {**checkpoint.state, "iteration": checkpoint.state["iterations"][who]}
            checkpoints.restore(self._one(who), replace(checkpoint, state=state), f"{who}.")
        self.distiller.iteration = checkpoint.step

    def _one(self, who: str) -> Any:
        made = self.distiller
        optimizer = made.optimizer if who == "student" else made.critic_optimizer
        return SimpleNamespace(optimizer=optimizer, generator=made.generator)


def distil(
    model: Path, data: Sequence[Path], out: Path, settings: DistilSettings, *, device: str | None = None,
    dtype: str | None = None, include_sim: bool = False, unverified: bool = False, only_commercial: bool = False,
    command: str = "", progress: Progress | None = None, cancel: CheckCancel | None = None,
) -> Progressed:  # fmt: skip
    """Distil the model of a converted folder, the teacher, on the first frames, skeletons and captions of these clips.

    Raises InputError before any work where data, settings, the teacher or the device's memory do not allow it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("distillation runs in one process as yet; start it without torchrun")
    target = usable_device(device)
    wanted = dtype or ("bf16" if target.type == "cuda" else "fp32")
    kind = torch.bfloat16 if wanted == "bf16" else torch.float32
    selection = Selection(include_sim=include_sim, unverified=unverified, only_commercial=only_commercial)
    clips = find_clips(data, selection)
    objects_in_control(clips, "none", "run folders")
    if object_control_of(model) != "none":
        raise InputError(
            f"{model} was tuned to read objects from a control video, which distillation does not draw; give a model without"
        )
    config = model / "transformer" / "config.json"
    if target.type == "cuda" and config.is_file():
        architecture = {key: value for key, value in read_json(config).items() if not key.startswith("_")}
        plan = plan_training(settings.step, transformer=architecture, dtype=kind, frames=settings.frames, size=settings.size,
                             batch=settings.batch)  # fmt: skip
        check_distil_fits(plan, free_device_bytes(target), str(target))
    pipe = OscarPipeline.from_pretrained(model, torch_dtype=kind, lazy_text_encoder=True)
    if pipe.student is not None:
        raise InputError(
            f"{model} is a student already ({pipe.student.label}); the teacher is a model that was not distilled"
        )
    if pipe.transformer.config["object_channels"]:
        raise InputError(f"{model} has an object embedding, which distillation does not train; give a model without")
    pipe.enable_prompt_cache(out / "prompts")
    negative = [default_negative_prompt()] if settings.guidance else []
    prompts = pipe.encode_prompts([*negative, *(clip.caption for clip in clips)])
    pipe.vae.to(target)
    vae_file = next((model / "vae").glob("*.safetensors"))
    cache = LatentCache(pipe.vae, sha256_file(vae_file)[:16], out / "latents", settings.size, settings.fit)
    teacher = pipe.transformer
    student, critic = copy.deepcopy(teacher), copy.deepcopy(teacher)
    if settings.step.gradient_checkpointing:
        for made in (student, critic):
            made.enable_gradient_checkpointing()
    for made in (teacher, student, critic):
        made.to(target)
    trainer = DistilTrainer(
        Distiller(student, critic, teacher, settings.config()), prompts[negative[0]].embeds if negative else None, settings, out,
        cache=cache, text_of=lambda caption: prompts[caption].embeds, train=clips, base=pipe.model_revision,
    )  # fmt: skip
    write_json(out / MODEL, {"base": pipe.model_revision, "terms": trainer.terms, "settings": settings.to_json()})
    write_json(out / COMMAND, {"command": command})
    cache.prepare(trainer.sampler.choices, progress, cancel)
    pipe.vae.to("cpu")  # every window is on disk
    return trainer.run(progress, cancel)


def distil_peak(plan: TunePlan) -> int:
    """Bytes of student, critic and teacher from the plan of a training step of one of them."""
    trained = plan.peak - CONTEXT_BYTES
    once = int((plan.activations + plan.gradients) * FRAGMENTATION)  # student and critic take turns
    return 2 * trained - once + int(plan.weights * FRAGMENTATION) + CONTEXT_BYTES


def check_distil_fits(plan: TunePlan, free: int, where: str) -> None:
    """Raises InputError with what would help, where the three models need more than `free` bytes."""
    if (need := distil_peak(plan)) > free:
        raise InputError(
            f"distillation needs {need / GIB:.1f} GiB (student, critic and teacher) and {where} has {free / GIB:.1f} GiB free; "
            "what helps: gradient checkpointing (leave --no-checkpointing out), a smaller --size, fewer --frames"
        )


def student_of(state: dict[str, Any]) -> Student | None:
    """The student that a checkpoint's state describes; None for the checkpoint of a tuning."""
    told = state["settings"].get("student")
    return None if told is None else Student(**{**told, "sigmas": tuple(told["sigmas"])})


def student_weights(transformer: Any, checkpoint: checkpoints.Checkpoint) -> dict[str, Tensor]:
    """The student's weights in a checkpoint. Raises InputError where it is damaged or of another model."""
    transformer.requires_grad_(True)
    from .optimise import MasterOptimizer, trained_parameters

    optimizer = MasterOptimizer(trained_parameters(transformer).items(), TuneConfig(ema_rate=None))
    one = SimpleNamespace(optimizer=optimizer, generator=torch.Generator())
    state = {**checkpoint.state, "iteration": checkpoint.state["iterations"]["student"]}
    checkpoints.restore(one, replace(checkpoint, state=state), "student.")
    return dict(optimizer.masters)
