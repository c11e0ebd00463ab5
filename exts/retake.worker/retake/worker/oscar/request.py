# SPDX-License-Identifier: Apache-2.0
"""A call's arguments, checked once and made one record per run. Every complaint about input is made here, up front."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retake.core.errors import InputError, unknown_name

from .few_step import Student
from .fit import FitRecord, plan_fit
from .frames import first_frame_list, fit_first_frame, read_skeleton
from .prompts import ProjectedPrompt, check_embeddings
from .schedule import check_seed
from .windows import Window, plan_windows, window_length

OUTPUT_TYPES = ("np", "pt", "latent")
SIZE_STEP = 16  # VAE stride 8, patch 2

_LOG = logging.getLogger(__name__)

Prompt = str | Tensor | ProjectedPrompt


@dataclass(frozen=True)
class Request:
    """One run of N takes. Frames uint8 RGB at the model's size; `prompts` one per take; `negative` None = no guidance."""

    first_frames: tuple[np.ndarray, ...]
    first_frame_fits: tuple[FitRecord, ...]
    skeleton: np.ndarray
    skeleton_fit: FitRecord
    windows: tuple[Window, ...]
    prompts: tuple[Prompt, ...]
    negative: Prompt | None
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    output_type: str
    exact_first_frame: bool
    objects: np.ndarray | None = None
    """uint8 RGB (T, H, W, 3) at the model's size: the object control video, for a model with an object embedding."""
    student: Student | None = None
    """How a few-step student is sampled; None: OSCAR's own sampler."""

    @property
    def evaluations(self) -> int:
        """Of each guidance branch, per window."""
        return self.steps + 1 if self.student is None else self.student.steps

    @property
    def takes(self) -> int:
        return len(self.seeds)


def make_request(
    *,
    first_frame: Any,
    skeleton: Any,
    prompt: str | Sequence[str] | None,
    negative_prompt: str | None,
    prompt_embeds: Any,
    negative_prompt_embeds: Any,
    num_frames: int,
    height: int,
    width: int,
    num_inference_steps: int,
    guidance_scale: float,
    seed: int | Sequence[int],
    output_type: str,
    exact_first_frame: bool,
    fit: str,
    embed_width: int,
    max_latent: tuple[int, int, int],
    default_negative: Callable[[], str],
    object_video: Any = None,
    object_channels: int = 0,
    student: Student | None = None,
) -> Request:
    """Check everything a call was given. Raises InputError; touches no model."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(unknown_name("output_type", str(output_type), OUTPUT_TYPES))
    for name, value in (("height", height), ("width", width)):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, np.integer))
            or value < SIZE_STEP
            or value % SIZE_STEP
        ):
            raise InputError(f"{name} is {value!r}; give a positive multiple of {SIZE_STEP} (OSCAR runs at 480x640)")
    if student is not None and num_inference_steps != student.steps:
        raise InputError(
            f"num_inference_steps is {num_inference_steps}; this model is a student of {student.steps} steps, leave it out"
        )
    if isinstance(num_inference_steps, bool) or not isinstance(num_inference_steps, (int, np.integer)):
        raise InputError(f"num_inference_steps is {num_inference_steps!r}; give a whole number")
    if not 1 <= num_inference_steps <= 999:
        raise InputError(f"num_inference_steps is {num_inference_steps}; valid: 1 to 999 (OSCAR's default is 35)")
    try:
        guidance = float(guidance_scale)
    except (TypeError, ValueError):
        guidance = math.nan
    if not math.isfinite(guidance):
        raise InputError(
            f"guidance_scale is {guidance_scale!r}; give a finite number (OSCAR's default is 6; 0 turns it off)"
        )

    size = (int(width), int(height))
    images = first_frame_list(first_frame)
    frames = read_skeleton(skeleton)
    windows = plan_windows(len(frames), num_frames)
    length = window_length(num_frames)
    if output_type == "latent" and len(windows) > 1:
        raise InputError(
            f"output_type='latent' exists for one window only; {len(frames)} skeleton frames need {len(windows)} "
            f"windows of {length} (use 'np' or 'pt')"
        )
    t_max, h_max, w_max = max_latent
    if (length - 1) // 4 + 1 > t_max or height // 8 > h_max or width // 8 > w_max:
        raise InputError(
            f"{length} frames of {width}x{height} exceed the model's largest latent {t_max}x{h_max}x{w_max} "
            "(frames / 4, height / 8, width / 8)"
        )
    fitted = [fit_first_frame(image, size, fit) for image in images]
    skeleton_fit = plan_fit((frames.shape[2], frames.shape[1]), size, fit, "skeleton")
    if fit in ("crop", "letterbox"):
        _warn_of_other_aspect([record for _, record in fitted], skeleton_fit, fit)

    objects = _objects(object_video, object_channels, frames, size, fit)
    prompts = _prompts(prompt, prompt_embeds, embed_width)
    seeds = _seeds(seed)
    takes = max(len(images), len(seeds), len(prompts))
    for name, count in (("first_frame", len(images)), ("seed", len(seeds)), ("prompt", len(prompts))):
        if count not in (1, takes):
            raise InputError(f"{name} has {count} entries for {takes} takes; give one, or one per take")

    def per_take(items: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(items) * takes if len(items) == 1 else tuple(items)

    negative = (
        None if guidance == 0 else _negative(negative_prompt, negative_prompt_embeds, embed_width, default_negative)
    )
    return Request(
        first_frames=per_take([frame for frame, _ in fitted]),
        first_frame_fits=per_take([record for _, record in fitted]),
        skeleton=skeleton_fit.apply(frames),
        skeleton_fit=skeleton_fit,
        windows=windows,
        prompts=per_take(prompts),
        negative=negative,
        seeds=per_take(seeds),
        steps=int(num_inference_steps),
        guidance=guidance,
        output_type=output_type,
        exact_first_frame=bool(exact_first_frame),
        objects=objects,
        student=student,
    )


def _objects(value: Any, channels: int, skeleton: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray | None:
    """The object control video at the model's size; None for a model that has no object embedding."""
    if value is None and not channels:
        return None
    if value is None:
        raise InputError("this model was tuned with an object control video; give object_video (docs/tune.md)")
    if not channels:
        raise InputError("object_video was given, but this model has no object embedding: it would be ignored")
    frames = read_skeleton(value)
    if len(frames) != len(skeleton):
        raise InputError(f"object_video has {len(frames)} frames and the skeleton {len(skeleton)}; they must agree")
    return plan_fit((frames.shape[2], frames.shape[1]), size, fit, "object_video").apply(frames)


def _warn_of_other_aspect(first: Sequence[FitRecord], skeleton: FitRecord, fit: str) -> None:
    for record in first:
        (w, h), (sw, sh) = record.source, skeleton.source
        if abs(w * sh - h * sw) > max(w, h, sw, sh):
            _LOG.warning(
                "first_frame is %dx%d and skeleton %dx%d: under fit=%r they keep different parts of the view, so the "
                "robot may not stand where the skeleton is drawn; both records are in the output",
                w, h, sw, sh, fit,
            )  # fmt: skip


def _seeds(seed: Any) -> list[int]:
    values = list(seed) if isinstance(seed, (list, tuple, np.ndarray)) else [seed]
    if not values:
        raise InputError("seed is an empty list; give one seed or one per take")
    return [check_seed(value) for value in values]


def _embeds(value: Any, what: str, width: int) -> list[Prompt]:
    if isinstance(value, ProjectedPrompt):
        return [value]
    if isinstance(value, (list, tuple)):
        if not value:
            raise InputError(f"{what} is an empty list; give one or one per take")
        return [item for part in value for item in _embeds(part, what, width)]
    if not isinstance(value, (Tensor, np.ndarray)):
        raise InputError(
            f"{what} is a {type(value).__name__}; give raw embeddings (1, L, {width}) or a ProjectedPrompt"
        )
    tensor = torch.as_tensor(value)
    if tensor.ndim != 3 or tensor.shape[0] == 0:
        raise InputError(f"{what} has shape {tuple(tensor.shape)}; expected (1, L, {width})")
    parts = [tensor] if tensor.shape[0] == 1 else list(tensor.split(1))
    for part in parts:
        check_embeddings(part, what, width)
    return list(parts)


def _prompts(prompt: Any, embeds: Any, width: int) -> list[Prompt]:
    if (prompt is None) == (embeds is None):
        found = "neither" if prompt is None else "both"
        raise InputError(f"give either prompt or prompt_embeds; found {found}")
    if embeds is not None:
        return _embeds(embeds, "prompt_embeds", width)
    texts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError("prompt must be a text, or a list of texts, one per take")
    return list(texts)


def _negative(prompt: Any, embeds: Any, width: int, default: Callable[[], str]) -> Prompt:
    if prompt is not None and embeds is not None:
        raise InputError("give either negative_prompt or negative_prompt_embeds; found both")
    if embeds is not None:
        parts = _embeds(embeds, "negative_prompt_embeds", width)
        if len(parts) != 1:
            raise InputError(f"negative_prompt_embeds has {len(parts)} entries; all takes share one")
        return parts[0]
    if prompt is not None and not isinstance(prompt, str):
        raise InputError("negative_prompt must be one text, shared by all takes")
    return default() if prompt is None else prompt
