# SPDX-License-Identifier: Apache-2.0
"""Backend `flux2-klein`: FLUX.2 klein 4B, an instruction edit inside the mask.

No control network: the picture itself is the reference for the geometry, so the gate decides whether it held.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from retake.core.variants.prompts import Prompts
from retake.worker.first_frame.backend import DiffusionBackend
from retake.worker.first_frame.conditioning import Conditioning
from retake.worker.first_frame.parts import ModelPart

LATENT_CELL = 16


class Flux2KleinBackend(DiffusionBackend):
    """Instruction edit with a mask; four steps, distilled (guidance has no effect)."""

    name = "flux2-klein"
    part = ModelPart("black-forest-labs/FLUX.2-klein-4B", "Apache-2.0", "not the 9B models: those are non-commercial")
    multiple = 16
    default_steps = 4
    default_guidance = 1.0

    def load(self) -> Any:
        """Flux2KleinInpaintPipeline, from the files of Flux2KleinPipeline."""
        import torch
        from diffusers import Flux2KleinInpaintPipeline

        model = self.found["model"]
        return Flux2KleinInpaintPipeline.from_pretrained(
            model.source,
            torch_dtype=getattr(torch, self.dtype),
            **({"revision": model.revision} if model.is_hub else {}),
        )

    def arguments(self, pipe: Any, inputs: Conditioning, prompts: Prompts) -> dict[str, Any]:
        """Strength 1: the painted part starts from noise; the reference tokens tell where things are."""
        return {
            "prompt": prompts.image,
            "guidance_scale": self.guidance,
            "strength": 1.0,
            "image": Image.fromarray(inputs.picture),
            "mask_image": Image.fromarray(inputs.mask(LATENT_CELL)),
        }
