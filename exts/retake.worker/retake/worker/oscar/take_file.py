# SPDX-License-Identifier: Apache-2.0
"""`retake oscar run`: one take from files to a file, with a JSON sidecar that says how it was made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.errors import InputError, TakeError, unknown_name
from retake.core.files import atomic_path, sha256_file, sha256_json, write_json

SUFFIXES = (".npz", ".mp4")


def check_target(path: Path) -> None:
    """Refuse a target that cannot be written or would overwrite something. Raises InputError."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {path} must end in {' or '.join(SUFFIXES)}")
    for target in (path, sidecar_path(path)):
        if target.exists():
            raise InputError(f"{target} exists already; choose another --out")


def sidecar_path(path: Path) -> Path:
    """The JSON beside a take."""
    return path.with_suffix(".json")


def make_take(arguments: argparse.Namespace) -> str:
    """Load the pipeline, run it, write the take and its sidecar; one line about it."""
    import torch

    from retake.worker.memory import usable_device

    from .approximate import read_mode
    from .backends import attention_of, check_backend
    from .fused import KERNELS
    from .pipeline import OscarPipeline

    device = usable_device(arguments.device)
    wanted = arguments.dtype or ("bf16" if device.type == "cuda" else "fp32")
    dtype = torch.bfloat16 if wanted == "bf16" else torch.float32
    embeds = _read_embeds(arguments.embeds) if arguments.embeds else {}
    modes = dict(read_mode(text) for text in arguments.approximate)
    if arguments.kernels not in ("auto", *KERNELS):
        raise InputError(unknown_name("kernels", arguments.kernels, ("auto", *KERNELS)))
    if arguments.attention != "auto":
        check_backend(arguments.attention)
    pipe = OscarPipeline.from_pretrained(arguments.model, torch_dtype=dtype, lazy_text_encoder=True)
    if arguments.prompt_cache is not None:
        pipe.enable_prompt_cache(arguments.prompt_cache)
    if arguments.tier is not None:
        pipe.enable_memory_tier(arguments.tier, device)
    elif device.type == "cuda":
        pipe.enable_planned_memory(device, arguments.height, arguments.width, arguments.frames)
    _use_way(pipe, arguments, device, modes)
    result = pipe(
        arguments.first_frame,
        arguments.skeleton,
        prompt=arguments.prompt,
        negative_prompt=arguments.negative_prompt,
        num_frames=arguments.frames,
        height=arguments.height,
        width=arguments.width,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance,
        seed=arguments.seed,
        exact_first_frame=not arguments.as_reference,
        fit=arguments.fit,
        **embeds,
    )
    assert not isinstance(result, tuple)
    frames = np.asarray(result.frames)[0]
    write_take(arguments.out, frames, arguments.fps)
    sidecar = {
        "model_revision": pipe.model_revision,
        "prompt": arguments.prompt,
        "steps": arguments.steps,
        "guidance": arguments.guidance,
        "dtype": wanted,
        "device": str(device),
        "attention": attention_of(pipe.transformer),
        "inputs_sha256": {
            "first_frame": _sha256(arguments.first_frame),
            "skeleton": _sha256(arguments.skeleton),
        },
        **result.report(),
    }  # fmt: skip
    write_json(sidecar_path(arguments.out), sidecar)
    return f"{arguments.out}: {len(frames)} frames, tier {result.tier}, seed {arguments.seed}"


def _use_way(pipe: Any, arguments: argparse.Namespace, device: Any, modes: dict[str, dict[str, Any]]) -> None:
    """Kernels, modes and attention as the video backend chooses them; kernels first, quantised layers cannot be joined."""
    from .backends import select_backend, set_backend
    from .vae import latent_frames
    from .windows import window_length

    pipe.use_kernels(arguments.kernels)
    for name, options in modes.items():
        pipe.enable_approximation(name, **options)
    if "sage" not in modes:
        if arguments.attention != "auto":
            set_backend(pipe.transformer, arguments.attention)
        elif device.type == "cuda":
            tokens = latent_frames(window_length(arguments.frames)) * (arguments.height // 16) * (arguments.width // 16)
            select_backend(pipe.transformer, tokens, device)
    if arguments.compile:
        pipe.enable_compile()


def _sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, over the names and hashes of the files in it."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return sha256_json({str(p.relative_to(path)): sha256_file(p) for p in files})


def write_take(path: Path, frames: np.ndarray, fps: float) -> None:
    """uint8 RGB (T, H, W, 3) -> .npz (array `frames`, lossless) or .mp4 (OpenCV's MPEG-4), atomically."""
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            np.savez_compressed(temporary, frames=frames)
            return
        size = (frames.shape[2], frames.shape[1])
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not writer.isOpened():
            raise TakeError(f"OpenCV cannot write {path}; use .npz")
        try:
            for frame in frames:
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()


def _read_embeds(path: Path) -> dict[str, Any]:
    from .sources import read_safetensors

    entries = read_safetensors(path)
    valid = ("prompt_embeds", "negative_prompt_embeds")
    found = {name: entries[name].load() for name in valid if name in entries}
    if "prompt_embeds" not in found:
        raise InputError(f"{path} holds {', '.join(entries) or 'nothing'}; expected {' and '.join(valid)}")
    return found
