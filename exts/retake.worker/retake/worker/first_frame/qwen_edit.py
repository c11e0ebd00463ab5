# SPDX-License-Identifier: Apache-2.0
"""Backend `qwen-edit`: Qwen-Image-Edit 2509 or 2511, an instruction edit with the depth map as a second picture.

The model was trained with depth and edge maps as further input pictures, so the simulator's depth is one. It repaints
everything; the lock brings the robot back.

transformers' Qwen2-VL processor needs torchvision for video. `PictureProcessor` does its part for pictures with the
same tokenizer and the PIL image processor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from retake.core.errors import InputError
from retake.core.variants.prompts import Prompts
from retake.worker.first_frame.backend import DiffusionBackend
from retake.worker.first_frame.canvas import Canvas
from retake.worker.first_frame.conditioning import Conditioning
from retake.worker.first_frame.parts import ModelPart

IMAGE_TOKEN = "<|image_pad|>"
EXPLAIN = {
    "depth": "Picture {} is the depth map of picture 1: near is bright. Keep this geometry.",
    "edge": "Picture {} shows the edges of picture 1. Keep them where they are.",
    "seg": "Picture {} shows the parts of picture 1, one colour each. Keep their outlines.",
}


class QwenEditBackend(DiffusionBackend):
    """Instruction edit of the whole picture; up to two control maps as further pictures (strengths are not used)."""

    name = "qwen-edit"
    part = ModelPart("Qwen/Qwen-Image-Edit-2509", "Apache-2.0")
    multiple = 32
    default_steps = 40
    least_steps = 2
    """Its scheduler stretches the steps to a last one that is not zero: of a single step it makes 0/0, and a picture of NaN."""
    default_guidance = 4.0
    masked = False
    known_controls = tuple(EXPLAIN)
    default_controls = {"depth": 1.0}  # noqa: RUF012 - read only

    def load(self) -> Any:
        """QwenImageEditPlusPipeline with our picture processor."""
        import torch
        from diffusers import QwenImageEditPlusPipeline

        model = self.found["model"]
        pinned = {"revision": model.revision} if model.is_hub else {}
        pipe = QwenImageEditPlusPipeline.from_pretrained(
            model.source, processor=None, torch_dtype=getattr(torch, self.dtype), **pinned
        )
        pipe.processor = PictureProcessor.from_pretrained(model.source, pipe.tokenizer, **pinned)
        return pipe

    def canvas(self, capture: tuple[int, int]) -> Canvas:
        """The size the pipeline resizes its references to: with another output size the picture would drift."""
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

        width, height = plus.calculate_dimensions(plus.VAE_IMAGE_SIZE, capture[0] / capture[1])
        return Canvas.stretched(capture, (int(width), int(height)))

    def arguments(self, pipe: Any, inputs: Conditioning, prompts: Prompts) -> dict[str, Any]:
        """The picture first, then each control map with a sentence that says what it is."""
        names = list(self.controls)
        explanations = " ".join(EXPLAIN[name].format(k) for k, name in enumerate(names, start=2))
        return {
            "image": [Image.fromarray(inputs.picture), *(Image.fromarray(inputs.control(name)) for name in names)],
            "prompt": f"{prompts.image} {explanations}".strip(),
            "negative_prompt": prompts.negative,
            "true_cfg_scale": self.guidance,
        }

    def context(self, pipe: Any, inputs: Conditioning) -> contextlib.AbstractContextManager[Any]:
        """The text encoder is told which tokens are picture tokens."""
        return marked_picture_tokens(pipe.text_encoder, pipe.processor.image_token_id)


@contextlib.contextmanager
def marked_picture_tokens(text_encoder: Any, image_token_id: int) -> Iterator[None]:
    """transformers 5 gives picture tokens their two-dimensional positions only when it is told which they are, and
    diffusers 0.42 does not pass that on: without this hook they would be numbered like words."""

    def mark(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if kwargs.get("mm_token_type_ids") is None and kwargs.get("image_grid_thw") is not None:
            kwargs["mm_token_type_ids"] = (kwargs["input_ids"] == image_token_id).int()
        return args, kwargs

    handle = text_encoder.register_forward_pre_hook(mark, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class PictureProcessor:
    """Text and pictures → tensors, as Qwen2-VL's own processor makes them: one place-holder token per merged patch."""

    def __init__(self, tokenizer: Any, image_processor: Any) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))

    @staticmethod
    def from_pretrained(source: str, tokenizer: Any, **pinned: Any) -> PictureProcessor:
        """From a model's `processor` folder. Raises InputError when it is missing."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        if Path(source).is_dir() and not (Path(source) / "processor").is_dir():
            raise InputError(f"{source} has no folder 'processor'; is it Qwen-Image-Edit-2509 or -2511?")
        return PictureProcessor(
            tokenizer, Qwen2VLImageProcessorPil.from_pretrained(source, subfolder="processor", **pinned)
        )

    def __call__(
        self, text: list[str], images: Any = None, padding: bool = True, return_tensors: str = "pt", **unused: Any
    ) -> Any:
        """input_ids, attention_mask, and with pictures pixel_values and image_grid_thw."""
        from transformers.feature_extraction_utils import BatchFeature

        pictures = {}
        if images is not None:
            pictures = dict(self.image_processor(images=images, return_tensors=return_tensors))
            merged = self.image_processor.merge_size**2
            counts = iter([int(grid.prod()) // merged for grid in pictures["image_grid_thw"]])
            text = ["".join(_expand(line, counts)) for line in text]
        words = self.tokenizer(text, padding=padding, return_tensors=return_tensors)
        return BatchFeature({**words, **pictures})


def _expand(line: str, counts: Iterator[int]) -> Iterator[str]:
    first, *rest = line.split(IMAGE_TOKEN)
    yield first
    for piece in rest:
        yield IMAGE_TOKEN * next(counts)
        yield piece
