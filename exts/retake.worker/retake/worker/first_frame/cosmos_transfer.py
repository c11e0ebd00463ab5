# SPDX-License-Identifier: Apache-2.0
"""Backend `cosmos-transfer`: Cosmos-Transfer2.5 in image mode, for those who have the memory and accept its licence.

One control map, shown as a still clip of the shortest length the pipeline takes (five frames); frame 0 is the picture.
The guardrail belongs to the model's licence: without the package `cosmos_guardrail` the backend refuses to run.

diffusers' Cosmos networks resize a padding mask with torchvision, which is never installed here; `resize_without_torchvision`
gives them the one function they call.
"""

from __future__ import annotations

import importlib.util
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from retake.core.errors import InputError, MissingDependencyError, unknown_name
from retake.core.variants.prompts import Prompts
from retake.worker.first_frame.backend import DiffusionBackend
from retake.worker.first_frame.conditioning import Conditioning
from retake.worker.first_frame.parts import ModelPart

STILL_FRAMES = 5


class CosmosTransferBackend(DiffusionBackend):
    """Control network over the whole picture; the robot comes back with the lock.

    `safety_checker`: an object with `to`, `check_text_safety`, `check_video_safety`; None builds the guardrail.
    """

    name = "cosmos-transfer"
    part = ModelPart("nvidia/Cosmos-Transfer2.5-2B", "NVIDIA Open Model License", "commit of branch diffusers/general")
    control_part = ModelPart(
        "nvidia/Cosmos-Transfer2.5-2B", "NVIDIA Open Model License",
        "commit of branch diffusers/controlnet/general/edge; depth and seg have branches of their own",
        "Cosmos-Transfer2.5-2B-edge",
    )  # fmt: skip
    multiple = 16
    default_steps = 36
    default_guidance = 3.0
    default_pixels = 1280 * 704
    masked = False
    frames_at_once = STILL_FRAMES
    known_controls = ("edge", "depth", "seg")
    default_controls = {"edge": 1.0}  # noqa: RUF012 - read only

    def __init__(self, safety_checker: Any = None, **options: Any) -> None:
        known = inspect.signature(DiffusionBackend.__init__).parameters
        if unknown := sorted(set(options) - set(known)):
            raise InputError(
                unknown_name(f"option of backend {self.name!r}", unknown[0], (n for n in known if n != "self"))
            )
        wanted = ("to", "check_text_safety", "check_video_safety")
        if safety_checker is not None and not all(callable(getattr(safety_checker, name, None)) for name in wanted):
            raise InputError(f"safety_checker is an object with {', '.join(wanted)}; found {safety_checker!r}")
        self._safety_checker = safety_checker
        super().__init__(**options)
        if len(self.controls) != 1:
            raise InputError(f"backend {self.name!r} takes one control, the one its network was trained for")
        if safety_checker is None and not self._given and importlib.util.find_spec("cosmos_guardrail") is None:
            raise MissingDependencyError(
                "Cosmos-Transfer2.5's licence requires its guardrail: pip install cosmos_guardrail. Retake does not run the "
                "model without it. Works now: backend 'z-image' with its model, or 'procedural' without any"
            )

    def load(self) -> Any:
        """Cosmos2_5_TransferPipeline, always with a safety checker."""
        import torch
        from diffusers import Cosmos2_5_TransferPipeline, CosmosControlNetModel

        resize_without_torchvision()
        dtype = getattr(torch, self.dtype)
        model, control = self.found["model"], self.found["controlnet"]
        network = CosmosControlNetModel.from_pretrained(
            control.source, torch_dtype=dtype, **({"revision": control.revision} if control.is_hub else {})
        )
        given = {"safety_checker": self._safety_checker} if self._safety_checker is not None else {}
        return Cosmos2_5_TransferPipeline.from_pretrained(
            model.source, controlnet=network, torch_dtype=dtype, **given,
            **({"revision": model.revision} if model.is_hub else {}),
        )  # fmt: skip

    def arguments(self, pipe: Any, inputs: Conditioning, prompts: Prompts) -> dict[str, Any]:
        """A clip of one control picture; nothing is carried over from earlier chunks, because there are none."""
        [(name, scale)] = self.controls.items()
        return {
            "controls": [Image.fromarray(inputs.control(name))],
            "controls_conditioning_scale": scale,
            "prompt": prompts.scene,
            "negative_prompt": prompts.negative,
            "guidance_scale": self.guidance,
            "num_frames": 1,
            "num_frames_per_chunk": self.frames_at_once,
            "num_ar_conditional_frames": 0,
        }

    def picture(self, result: Any) -> np.ndarray:
        """Frame 0 of the clip."""
        return np.asarray(result.frames)[0, 0]


def resize_without_torchvision() -> None:
    """Give diffusers' Cosmos modules a nearest-neighbour resize where torchvision is absent."""
    import torch
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos

    def resize(image: Any, size: list[int], interpolation: Any = None) -> Any:
        return torch.nn.functional.interpolate(image, size=size, mode="nearest")

    stand_in = SimpleNamespace(
        functional=SimpleNamespace(resize=resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
    )
    for module in (controlnet_cosmos, transformer_cosmos):
        if not hasattr(module, "transforms"):
            module.transforms = stand_in  # pyright: ignore[reportAttributeAccessIssue]
