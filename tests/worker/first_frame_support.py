# SPDX-License-Identifier: Apache-2.0
"""Shared by the first-frame tests: one source frame, tiny models of the real classes, and what a pipeline was given."""

from __future__ import annotations

import atexit
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.variants import SourceFrame, image_backend, load_catalogue, source_frame
from retake.core.variants.base import World
from retake.core.variants.controls import ControlMaps, control_maps
from retake.worker.first_frame.random_models import write_tiny

SIZE = (160, 120)
PIXELS = 160 * 128
NAMES = ("z-image", "flux2-klein", "qwen-edit", "sdxl", "cosmos-transfer")
MASKED = ("z-image", "flux2-klein", "sdxl")
torch.set_num_threads(1)


class Guardrail:
    """A double of the safety checker: records, and refuses on request."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse, self.texts, self.clips = refuse, [], []

    def to(self, *args: Any, **kwargs: Any) -> Guardrail:
        return self

    def check_text_safety(self, text: str) -> bool:
        self.texts.append(text)
        return self.refuse != "text"

    def check_video_safety(self, clip: np.ndarray) -> np.ndarray | None:
        self.clips.append(clip.shape)
        return None if self.refuse == "video" else clip


@cache
def scratch() -> Path:
    made = Path(mkdtemp(prefix="retake-first-frame-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def episode() -> Episode:
    return make_scene_episode(scratch() / "episode", frames=12, size=SIZE, only=range(1))


@cache
def source() -> SourceFrame:
    return source_frame(episode(), "front", 0)


@cache
def maps() -> ControlMaps:
    return control_maps(source())


@cache
def world(name: str = "kitchen") -> World:
    return load_catalogue().preset(name)


@cache
def model(name: str) -> dict[str, str]:
    """Options that load the backend's tiny model."""
    return write_tiny(name, scratch() / name)


def make(name: str, **options: Any) -> Any:
    """The backend on its tiny model, through the table that the command line uses."""
    given: dict[str, Any] = {"safety_checker": Guardrail()} if name == "cosmos-transfer" else {}
    # FLUX.2's cells of 16 px need a robot that fills some of them; Cosmos' video coder is slow on a CPU.
    pixels = {"flux2-klein": 4 * PIXELS, "cosmos-transfer": PIXELS // 4}.get(name, PIXELS)
    return image_backend(name, **{**model(name), "steps": 2, "pixels": pixels, "device": "cpu", **given, **options})


@cache
def shared(name: str) -> Any:
    """One loaded backend per name, for tests that leave it as it was."""
    return make(name)


@dataclass
class Seen:
    """What reached the pipeline (`call`), its control network and its text encoder, and what was encoded to latents."""

    call: dict[str, Any] = field(default_factory=dict)
    control: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    text: list[dict[str, Any]] = field(default_factory=list)
    encoded: list[torch.Tensor] = field(default_factory=list)
    mask_latents: list[torch.Tensor] = field(default_factory=list)


@contextlib.contextmanager
def spied(backend: Any) -> Iterator[Seen]:
    """The backend's real pipeline, with everything that goes in recorded on the way."""
    seen, pipe = Seen(), backend.ready_pipeline()
    kind = type(pipe)
    call = kind.__call__

    def recorded(self: Any, **kwargs: Any) -> Any:
        seen.call = kwargs
        return call(self, **kwargs)

    encode = pipe.vae.encode

    def encoded(pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.encoded.append(pixels.detach().clone())
        return encode(pixels, *args, **kwargs)

    with contextlib.ExitStack() as stack:
        kind.__call__ = recorded
        stack.callback(setattr, kind, "__call__", call)
        pipe.vae.encode = encoded
        stack.callback(delattr, pipe.vae, "encode")
        if network := getattr(pipe, "controlnet", None):
            forward = network.forward

            def steered(*args: Any, **kwargs: Any) -> Any:
                seen.control.append((args, kwargs))
                return forward(*args, **kwargs)

            network.forward = steered
            stack.callback(delattr, network, "forward")
        hook = pipe.text_encoder.register_forward_hook(lambda m, a, k, out: seen.text.append(k), with_kwargs=True)
        stack.callback(hook.remove)
        if hasattr(pipe, "prepare_mask_latents"):
            prepare = pipe.prepare_mask_latents

            def masked(*args: Any, **kwargs: Any) -> Any:
                result = prepare(*args, **kwargs)
                seen.mask_latents.append(result[0] if isinstance(result, tuple) else result)
                return result

            pipe.prepare_mask_latents = masked
            stack.callback(delattr, pipe, "prepare_mask_latents")
        yield seen
