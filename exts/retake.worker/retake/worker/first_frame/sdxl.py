# SPDX-License-Identifier: Apache-2.0
"""Backend `sdxl`: Stable Diffusion XL with ControlNet-Union, inpainting under depth and edges. The small fallback."""

from __future__ import annotations

from typing import Any

from PIL import Image

from retake.core.variants.prompts import Prompts
from retake.worker.first_frame.backend import DiffusionBackend
from retake.worker.first_frame.conditioning import Conditioning
from retake.worker.first_frame.parts import ModelPart

MODES = {"depth": 1, "edge": 3, "normal": 4, "seg": 5}
"""Index of each kind of map in the union network's control types."""
LATENT_CELL = 8


class SdxlBackend(DiffusionBackend):
    """Structure-locked inpainting; the pipeline blends latents, so masks are whole latent cells."""

    name = "sdxl"
    part = ModelPart("stabilityai/stable-diffusion-xl-base-1.0", "OpenRAIL++")
    control_part = ModelPart("xinsir/controlnet-union-sdxl-1.0", "Apache-2.0")
    multiple = 16
    default_steps = 30
    default_guidance = 6.0
    known_controls = tuple(MODES)
    default_controls = {"depth": 0.6, "edge": 0.6}  # noqa: RUF012 - read only

    def load(self) -> Any:
        """StableDiffusionXLControlNetUnionInpaintPipeline; its invisible watermark stays as the library has it."""
        import torch
        from diffusers import ControlNetUnionModel, StableDiffusionXLControlNetUnionInpaintPipeline

        dtype = getattr(torch, self.dtype)
        model, control = self.found["model"], self.found["controlnet"]
        network = ControlNetUnionModel.from_pretrained(
            control.source, torch_dtype=dtype, **({"revision": control.revision} if control.is_hub else {})
        )
        return StableDiffusionXLControlNetUnionInpaintPipeline.from_pretrained(
            model.source,
            controlnet=network,
            torch_dtype=dtype,
            **({"revision": model.revision} if model.is_hub else {}),
        )

    def arguments(self, pipe: Any, inputs: Conditioning, prompts: Prompts) -> dict[str, Any]:
        """Control maps in the order of their modes, strength 1: what is painted starts from noise alone."""
        return {
            "prompt": prompts.scene,
            "negative_prompt": prompts.negative,
            "guidance_scale": self.guidance,
            "strength": 1.0,
            "image": Image.fromarray(inputs.picture),
            "mask_image": Image.fromarray(inputs.mask(LATENT_CELL)),
            "control_image": [Image.fromarray(inputs.control(name)) for name in self.controls],
            "control_mode": [MODES[name] for name in self.controls],
            "controlnet_conditioning_scale": list(self.controls.values()),
        }
