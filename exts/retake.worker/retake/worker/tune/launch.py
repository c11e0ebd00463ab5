# SPDX-License-Identifier: Apache-2.0
"""From folders on disk to a running `Trainer`, and from its checkpoints to weights that the pipeline loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retake.core.errors import InputError
from retake.core.export.found import Selection
from retake.core.files import atomic_directory, read_json, sha256_file, write_json
from retake.core.progress import CheckCancel, Progress

from ..memory import free_device_bytes, usable_device
from ..oscar import vae as vae_stage
from ..oscar.object_control import object_control_of
from ..oscar.pipeline import OscarPipeline
from . import checkpoints
from .clips import Clip, find_clips, objects_in_control, split
from .config import LoraSettings, ObjectSupervision, TuneConfig
from .distill import write_student
from .distill_run import student_of, student_weights
from .distributed import join_world, leave_world, replicate, shard
from .folder import COMMAND, MODEL
from .latents import LatentCache
from .lora import save_adapter
from .planning import check_fits, plan_training
from .reward_run import RewardSettings, RewardTrainer
from .settings import RunSettings
from .step import Tuner
from .trainer import Progressed, Trainer


def train(
    model: Path,
    data: Sequence[Path],
    out: Path,
    settings: RunSettings,
    *,
    device: str | None = None,
    dtype: str | None = None,
    shard: bool = False,
    include_sim: bool = False,
    unverified: bool = False,
    only_commercial: bool = False,
    command: str = "",
    say: Callable[[str], None] = print,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
) -> Progressed:
    """Train the model of a converted folder on these clips, in as many processes as the launcher started.

    `command`: what a user types to go on, kept beside the checkpoints for whoever finds them. `say`: what was found in the
    data and is worth a sentence.

    Raises InputError before any work where the data, the settings or the device's memory do not allow it.
    """
    target = usable_device(device)
    wanted = dtype or ("bf16" if target.type == "cuda" else "fp32")
    selection = Selection(include_sim=include_sim, unverified=unverified, only_commercial=only_commercial)
    train_clips, held = split(find_clips(data, selection), settings.validation, settings.data_seed)
    clips = [*train_clips, *held]
    found = objects_in_control(clips, settings.step.objects.control)
    if object_control_of(model) == "drawn" and settings.step.objects.control == "none":
        raise InputError(
            f"{model} was tuned to read objects from its control video; tune on with --object-control drawn, or from a model "
            "that was not"
        )
    looks = settings.step.objects.weight or isinstance(settings, RewardSettings)
    draws = settings.step.objects.control != "none"
    _need_physics(clips if looks else [clip for clip in clips if draws and not clip.objects_drawn])
    config = read_json(model / "transformer" / "config.json") if (model / "transformer").is_dir() else None
    if config is not None and target.type == "cuda":
        architecture = {key: value for key, value in config.items() if not key.startswith("_")}
        plan = plan_training(
            settings.step, transformer=architecture, dtype=torch.bfloat16 if wanted == "bf16" else torch.float32,
            frames=settings.frames, size=settings.size, batch=settings.batch,
        )  # fmt: skip
        if not shard:  # a sharded run needs less on each card, by a share that depends on the number of cards
            check_fits(plan, free_device_bytes(target), str(target))
    pipe = OscarPipeline.from_pretrained(
        model, torch_dtype=torch.bfloat16 if wanted == "bf16" else torch.float32, lazy_text_encoder=True
    )
    pipe.enable_prompt_cache(out / "prompts")
    world = join_world(target)
    if found and world.is_main:
        say(found)
    try:
        return _train(pipe, target, world, shard, out, settings, train_clips, held, command, progress, cancel)
    finally:
        leave_world()


def _train(
    pipe: OscarPipeline, target: torch.device, world: Any, sharded: bool, out: Path, settings: RunSettings,
    clips: list[Clip], held: list[Clip], command: str, progress: Progress | None, cancel: CheckCancel | None,
) -> Progressed:  # fmt: skip
    base = pipe.model_revision
    vae_file = next((pipe._folder / "vae").glob("*.safetensors")) if pipe._folder else None  # pyright: ignore
    vae_id = sha256_file(vae_file)[:16] if vae_file else base
    pipe.vae.to(target)
    cache = LatentCache(pipe.vae, vae_id, out / "latents", settings.size, settings.fit, settings.step.objects)
    prompts = pipe.encode_prompts([clip.caption for clip in (*clips, *held)])
    texts = {caption: prompt.embeds for caption, prompt in prompts.items()}
    transformer = pipe.transformer.to(target)
    torch.manual_seed(settings.step.seed)  # adapters and the object embedding start from it
    if settings.step.objects.control == "embed" and not transformer.config["object_channels"]:
        transformer.add_object_embed(transformer.config["in_channels"])
    if sharded:
        shard(transformer, world)
    tuner = Tuner(transformer, settings.step)
    if not sharded:
        replicate(tuner.optimizer.parameters, world)
    given: dict[str, Any] = {
        "cache": cache, "text_of": lambda caption: texts[caption], "train": clips, "validation": held, "base": base,
        "world": world, "decode": lambda latents: decode_on(pipe, latents, target),
    }  # fmt: skip
    rewarded = isinstance(settings, RewardSettings)
    trainer = (
        RewardTrainer(tuner, pipe.vae, settings, out, **given) if rewarded else Trainer(tuner, settings, out, **given)
    )
    if world.is_main:
        write_json(out / MODEL, {"base": base, "terms": trainer.terms, "settings": settings.to_json()})
        write_json(out / COMMAND, {"command": command})
        cache.prepare(trainer.sampler.choices, progress, cancel)
    world.wait()
    if not rewarded:
        pipe.vae.to("cpu")  # every window is on disk: the card is the transformer's
    return trainer.run(progress, cancel)


def decode_on(pipe: OscarPipeline, latents: Tensor, device: torch.device) -> np.ndarray:
    """Latents (1, C, T, h, w) -> uint8 RGB (1 + 4 (T - 1), H, W, 3), on a device; the VAE goes back to where it was.

    In tiles on a card, which the training fills. Encoding never runs so: its latents must not depend on the memory there is.
    """
    tiled, home = device.type != "cpu", pipe.vae.device
    try:
        pipe.vae.to(device)
        if tiled:
            pipe.enable_vae_tiling()
        return vae_stage.to_uint8(vae_stage.decode(pipe.vae, latents))
    finally:
        if tiled:
            pipe.disable_vae_tiling()
            pipe.vae.to(home)


def _need_physics(clips: Sequence[Clip]) -> None:
    without = [clip for clip in clips if clip.physics() is None]
    if without:
        raise InputError(
            f"objects are looked at and {len(without)} of {len(clips)} clips have no physics (the first: "
            f"{without[0].caption!r}, {without[0].domain}); leave them out, or tune without object supervision"
        )


def save_weights(folder: Path, model: Path, out: Path, step: int | None = None, *, average: bool = True) -> str:
    """A checkpoint as a LoRA folder (adapters) or as a whole model folder; one line about it.

    Raises InputError where there is no such checkpoint or the base weights are others; nothing is overwritten.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another --out")
    found = checkpoints.find(folder / "checkpoints")
    chosen = next((c for c in reversed(found) if step in (None, c.step)), None)
    if chosen is None:
        raise InputError(
            f"{folder} has checkpoints of steps {[c.step for c in found] or '(none)'}; {step} is none of them"
        )
    pipe = OscarPipeline.from_pretrained(model, lazy_text_encoder=True)
    if pipe.model_revision != chosen.state["base"]:
        raise InputError(
            f"{chosen.path} was trained from base {chosen.state['base']}, {model} is {pipe.model_revision}; give the same base"
        )
    provenance = {key: chosen.state[key] for key in ("base", "data_sha256", "terms", "settings", "step", "episodes")}
    if (student := student_of(chosen.state)) is not None:
        weights = student_weights(pipe.transformer, chosen)
        with atomic_directory(out) as temporary:
            _save_model(pipe, model, temporary, weights, fuse=False)
            write_student(temporary, student)
            write_json(temporary / "tuned.json", {**provenance, "average": False, "experimental": "distilled"})
        return f"{out}: {student.label} (experimental), step {chosen.step} of {folder}, terms: {'; '.join(chosen.state['terms'])}"
    trained = chosen.state["settings"]["step"]
    lora = (
        None
        if trained["lora"] is None
        else LoraSettings(**{**trained["lora"], "targets": tuple(trained["lora"]["targets"])})
    )
    if trained["objects"]["control"] == "embed" and not pipe.transformer.config["object_channels"]:
        pipe.transformer.add_object_embed(pipe.transformer.config["in_channels"])
    tuner = Tuner(
        pipe.transformer,
        TuneConfig(lora=lora, objects=ObjectSupervision(**trained["objects"]), ema_rate=trained["ema_rate"]),
    )
    checkpoints.restore(tuner, chosen)
    weights: dict[str, Tensor] = tuner.optimizer.ema if average and tuner.optimizer.ema else tuner.optimizer.masters  # pyright: ignore
    with atomic_directory(out) as temporary:
        if lora is not None and trained["objects"]["control"] != "embed":
            save_adapter(pipe.transformer, temporary, dict(weights))
        else:
            _save_model(pipe, model, temporary, weights, fuse=lora is not None)
        stage = {"experimental": "reward"} if "reward" in chosen.state["settings"] else {}
        write_json(temporary / "tuned.json", {**provenance, "average": bool(average and tuner.optimizer.ema), **stage})
    return f"{out}: step {chosen.step} of {folder}, terms: {'; '.join(chosen.state['terms'])}"


def _save_model(pipe: OscarPipeline, model: Path, folder: Path, weights: dict[str, Tensor], *, fuse: bool) -> None:
    """The base folder with these weights in place of its own (adapters fused in)."""
    with torch.no_grad():
        for name, parameter in pipe.transformer.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
    if fuse:
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("transformer"))
    pipe.transformer.save_pretrained(folder / "transformer")
    record = folder / "conversion.json"
    document = read_json(record) if record.is_file() else {}
    digest = sha256_file(next((folder / "transformer").glob("*.safetensors")))[:16]
    write_json(record, {**document, "revision": digest, "tuned_from": document.get("revision")})


def eval_backends(base: Path, tuned: Path, device: str = "") -> dict[str, Any]:
    """The two models as video backends; `tuned` is a LoRA folder on top of `base`, or a model folder of its own.

    Raises InputError where the LoRA was trained from other base weights.
    """
    from ..backends.oscar import OscarBackend

    first = OscarBackend(model=str(base), device=device)
    if (tuned / "model_index.json").is_file():
        return {"base": first, "tuned": OscarBackend(model=str(tuned), device=device)}
    record = tuned / "tuned.json"
    if not record.is_file():
        raise InputError(f"{tuned} is neither a model folder nor a LoRA folder written by `retake tune save`")
    document = read_json(record)
    if document["base"] != first.revision:
        raise InputError(
            f"{tuned} was trained from base {document['base']}, {base} is {first.revision}; give the same base"
        )
    weights = next(tuned.glob("*.safetensors"))
    second = OscarBackend(model=str(base), device=device, revision=f"{first.revision}+{sha256_file(weights)[:16]}")
    second.object_control = object_control_of(tuned)
    second.pipeline.load_lora_weights(tuned)
    second.pipeline.fuse_lora()
    second.pipeline.unload_lora_weights()
    return {"base": first, "tuned": second}


def training_episodes(tuned: Path) -> list[str]:
    """Source episodes that a saved LoRA or model was trained on."""
    record = tuned / "tuned.json"
    return list(read_json(record).get("episodes", [])) if record.is_file() else []
