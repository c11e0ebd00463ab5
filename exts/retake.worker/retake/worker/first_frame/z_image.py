# SPDX-License-Identifier: Apache-2.0
"""Backend `z-image`: Z-Image-Turbo with Fun-ControlNet-Union 2.1, inpainting under depth and edges. The default.

The pipeline takes one control image. Depth and edges steer together by running the control network once per map and
adding its block outputs, each with its own strength, as diffusers' MultiControlNet does for other models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError
from retake.core.variants.prompts import Prompts
from retake.worker.first_frame.backend import DiffusionBackend
from retake.worker.first_frame.conditioning import Conditioning
from retake.worker.first_frame.parts import ModelPart


class ZImageBackend(DiffusionBackend):
    """Structure-locked inpainting; the robot's pixels are masked out and the rest follows depth and edges."""

    name = "z-image"
    part = ModelPart("Tongyi-MAI/Z-Image-Turbo", "Apache-2.0")
    control_part = ModelPart(
        "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union-2.1", "Apache-2.0",
        "keep one .safetensors file of full size, for instance the newest 8-steps one: --include",
    )  # fmt: skip
    multiple = 16
    default_steps = 8
    default_guidance = 0.0
    known_controls = ("depth", "edge", "seg", "normal")
    # The publisher's range for one control is 0.65 … 0.80; the two together stay in it. Not tuned on pictures.
    default_controls = {"depth": 0.45, "edge": 0.30}  # noqa: RUF012 - read only

    def load(self) -> Any:
        """ZImageControlNetInpaintPipeline."""
        import torch
        from diffusers import ZImageControlNetInpaintPipeline

        dtype = getattr(torch, self.dtype)
        model, control = self.found["model"], self.found["controlnet"]
        network = load_control(control.source, None if not control.is_hub else control.revision, dtype)
        return ZImageControlNetInpaintPipeline.from_pretrained(
            model.source,
            controlnet=network,
            torch_dtype=dtype,
            **({"revision": model.revision} if model.is_hub else {}),
        )

    def arguments(self, pipe: Any, inputs: Conditioning, prompts: Prompts) -> dict[str, Any]:
        """First control through the pipeline's own argument; `context` adds the others."""
        first, scale = next(iter(self.controls.items()), ("depth", 0.0))
        return {
            "prompt": prompts.scene,
            "negative_prompt": prompts.negative if self.guidance > 0 else None,
            "guidance_scale": self.guidance,
            "image": _pil(inputs.picture),
            "mask_image": _pil(inputs.mask()),
            "control_image": _pil(inputs.control(first)),
            "controlnet_conditioning_scale": scale,
        }

    def context(self, pipe: Any, inputs: Conditioning) -> contextlib.AbstractContextManager[Any]:
        """The control network answers with the sum over all control maps."""
        others = list(self.controls.items())[1:]
        return added_controls(pipe, [(inputs.control(name), scale) for name, scale in others])


@contextlib.contextmanager
def added_controls(pipe: Any, controls: list[tuple[np.ndarray, float]]) -> Iterator[None]:
    """While this holds, `pipe.controlnet` also runs on these maps (RGB bytes) and adds up: one more pass per map."""
    import torch

    contexts: list[tuple[Any, float]] = []
    # Before the pipeline runs: the decoder's offloading hook would push out the network that is at work.
    for image, scale in controls:
        pixels = pipe.image_processor.preprocess(_pil(image)).to(pipe._execution_device, pipe.vae.dtype)
        with torch.no_grad():
            latents = pipe.vae.encode(pixels).latent_dist.mode()
        latents = (latents - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
        contexts.append((latents.unsqueeze(2), scale))

    def add(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: dict[int, Any]) -> dict[int, Any]:
        hidden, timestep, caption, context = args[:4]
        for latents, scale in contexts:
            # Channels: control latents, keep mask, kept picture. Only the first differ from map to map.
            own = latents.to(context.device, context.dtype).expand(len(context), -1, -1, -1, -1)
            other = torch.cat([own, context[:, latents.shape[1] :]], dim=1)
            more = module.forward(hidden, timestep, caption, other, **{**kwargs, "conditioning_scale": scale})
            output = {layer: value + more[layer] for layer, value in output.items()}
        return output

    handle = pipe.controlnet.register_forward_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def load_control(source: str, revision: str | None, dtype: Any) -> Any:
    """The control network: a diffusers folder, or a folder with the publisher's single file.

    A single file's architecture is read off its tensors, so nothing is fetched. Raises InputError for several files,
    or for one whose layers cannot be placed.
    """
    from diffusers import ZImageControlNetModel
    from safetensors.torch import load_file

    folder = Path(source)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return ZImageControlNetModel.from_pretrained(
            source, torch_dtype=dtype, **({"revision": revision} if revision else {})
        )
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise InputError(f"{folder} must hold config.json, or exactly one .safetensors file; found {names}")
    state = load_file(files[0])
    network = ZImageControlNetModel(**control_architecture(state, files[0].name))
    network.load_state_dict(state, strict=True)
    return network.to(dtype)


def control_architecture(state: dict[str, Any], name: str) -> dict[str, Any]:
    """Arguments of ZImageControlNetModel that fit a published state dict (union 2.1, all control layers).

    Raises InputError for other layouts: a lite file does not say which layers its blocks belong to.
    """
    layers = {int(key.split(".")[1]) for key in state if key.startswith("control_layers.")}
    refiners = {int(key.split(".")[1]) for key in state if key.startswith("control_noise_refiner.")}
    embed = state.get("control_all_x_embedder.2-1.weight")
    norm = state.get("control_layers.0.attention.norm_q.weight")
    refine = state.get("control_noise_refiner.0.before_proj.weight")
    # 2.0 carries that tensor too, unused and all zero.
    if embed is None or norm is None or refine is None or not bool(refine.any()) or len(layers) < 15:
        raise InputError(
            f"{name} is not the full Fun-ControlNet-Union 2.1 for Z-Image ({len(layers)} control layers, 15 expected); "
            "put the network's config.json beside it"
        )
    dim = int(embed.shape[0])
    return {
        "control_layers_places": [2 * k for k in sorted(layers)],
        "control_refiner_layers_places": sorted(refiners),
        "control_in_dim": int(embed.shape[1]) // 4,
        "add_control_noise_refiner": "control_noise_refiner",
        "dim": dim,
        "n_refiner_layers": len(refiners),
        "n_heads": dim // int(norm.shape[0]),
        "n_kv_heads": dim // int(norm.shape[0]),
    }


def _pil(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)
