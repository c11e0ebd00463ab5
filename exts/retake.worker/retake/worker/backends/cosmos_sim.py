# SPDX-License-Identifier: Apache-2.0
"""Backend `cosmos-sim`: video to video. The simulator's own edges, blur, depth or segments steer every frame, so objects
move as they were simulated; the variant's first frame and the prompt say what the world looks like.

The class is diffusers' Cosmos-Transfer2.5 pipeline: the installed diffusers has no control input for Cosmos3, whose
sim-to-real network takes the same controls. One control network per control; frame 0 is pinned to the variant's frame.
The guardrail belongs to the model's licence: without the package `cosmos_guardrail` the backend refuses to run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from retake.core.array_types import UInt8
from retake.core.episode import open_episode
from retake.core.errors import InputError, TakeError, VariantError, install_hint, unknown_name
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME
from retake.core.takes.base import TakeRequest
from retake.core.takes.make import window
from retake.core.variants.make import read_frame
from retake.worker import memory as device_memory
from retake.worker.backends.control_clip import CONTROLS, control_clip
from retake.worker.first_frame import memory
from retake.worker.first_frame.backend import quiet
from retake.worker.first_frame.cosmos_transfer import CosmosTransferBackend
from retake.worker.first_frame.parts import ModelPart

SETTINGS = ("steps", "guidance", "control", "strength", "chunk")
CHUNK = 93
"""Frames that Cosmos-Transfer2.5 makes at once; longer takes go on from the last frame."""


class CosmosSimBackend(CosmosTransferBackend):
    """A VideoBackend on Cosmos-Transfer2.5. `settings` of a request: steps, guidance, control, strength, chunk.

    Options as those of the first-frame backend `cosmos-transfer`; `controls` names the one control that the files of
    `control` were trained for (edge, blur, depth or seg) and its strength.
    """

    name = "cosmos-sim"
    version = "1"
    domain = "generated"
    parallel = False
    control_part = ModelPart(
        "nvidia/Cosmos-Transfer2.5-2B", "NVIDIA Open Model License",
        "commit of branch diffusers/controlnet/general/edge; blur, depth and seg have branches of their own",
        "Cosmos-Transfer2.5-2B-edge",
    )  # fmt: skip
    known_controls = CONTROLS
    frames_at_once = CHUNK

    @staticmethod
    def obstacle(**options: Any) -> str:
        """Why it cannot work here, and the remedy; empty when nothing is known to be in the way."""
        import importlib.util

        absent = [m for m in ("torch", "diffusers", "transformers") if importlib.util.find_spec(m) is None]
        if absent:
            return f"video backend 'cosmos-sim' needs {', '.join(absent)}: {install_hint('oscar')}"
        if options.get("safety_checker") is None and importlib.util.find_spec("cosmos_guardrail") is None:
            return "Cosmos-Transfer2.5's licence requires its guardrail: pip install cosmos_guardrail"
        return ""

    def load(self) -> Any:
        """The pipeline, able to begin with a given frame."""
        pipe = super().load()
        pipe.__class__ = first_frame_pipeline()
        return pipe

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB frames of the camera's size, in order. Raises InputError for wrong settings, TakeError, Cancelled."""
        options = self._settings(request)
        episode = open_episode(request.episode)
        indices = window(episode, request)
        if not request.prompt.strip():
            raise InputError("cosmos-sim needs a prompt: what the world looks like is in it")
        first = read_frame(request.variant / VARIANT_FRAME)
        size = episode.header.camera(request.camera).size
        if first.shape[1::-1] != size:
            raise TakeError(
                f"{request.variant / VARIANT_FRAME} is {first.shape[1]}x{first.shape[0]}; camera {request.camera!r} of "
                f"{request.episode} is {size[0]}x{size[1]}: video to video needs the same view"
            )
        progress(0, 1, "control video")
        clip = control_clip(episode, request.camera, indices, options["control"], check_cancel)
        try:
            canvas = self.canvas(size)
        except VariantError as error:
            raise TakeError(str(error)) from error
        hard = options["control"] in ("edge", "seg")
        control = [Image.fromarray(canvas.place(frame, hard=hard)) for frame in clip]
        frames = self._in_memory(request, options, control, canvas.place(first), canvas.size, progress, check_cancel)
        if len(frames) != len(indices):
            raise TakeError(f"the model returned {len(frames)} frames; {len(indices)} were asked")
        if not frames.any():
            raise TakeError("the model returned a black video (a guardrail's refusal looks like this)")
        for number, frame in enumerate(frames):
            check_cancel()
            yield first if number == 0 else canvas.restore(frame)

    def _in_memory(
        self, request: TakeRequest, options: dict[str, Any], control: list[Image.Image], first: np.ndarray,
        size: tuple[int, int], progress: Progress, check_cancel: CheckCancel,
    ) -> UInt8[np.ndarray, "T H W 3"]:  # fmt: skip
        """One run; an out-of-memory error moves one tier down, for this take and the following ones."""
        import torch

        while True:
            try:
                return self._film(self.ready_pipeline(), request, options, control, first, size, progress, check_cancel)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not device_memory.is_out_of_memory(error):
                    raise
                lower = device_memory.next_lower(memory.TIERS, self.tier or self._tier)  # see the base class
                if lower is None or self._given:
                    raise TakeError(f"cosmos-sim ran out of memory in its smallest tier: {error}") from error
                self._tier = lower
            self.close()

    def _film(
        self, pipe: Any, request: TakeRequest, options: dict[str, Any], control: list[Image.Image], first: np.ndarray,
        size: tuple[int, int], progress: Progress, check_cancel: CheckCancel,
    ) -> UInt8[np.ndarray, "T H W 3"]:  # fmt: skip
        import torch

        chunk = min(options["chunk"], -(-(len(control) - 1) // 4) * 4 + 1)
        chunks = 1 if len(control) <= chunk else -(-(len(control) - 1) // (chunk - 1))
        total, done = options["steps"] * chunks, 0

        def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            check_cancel()
            done += 1
            progress(min(done, total), total, "denoising")
            return {}

        pipe.first_frame = torch.from_numpy(first).permute(2, 0, 1).float() / 127.5 - 1
        cuda = self.device.startswith("cuda")
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            with quiet():
                result = pipe(
                    controls=control, controls_conditioning_scale=options["strength"], prompt=request.prompt,
                    height=size[1], width=size[0], num_frames=len(control), num_frames_per_chunk=chunk,
                    num_ar_conditional_frames=1, num_inference_steps=options["steps"], guidance_scale=options["guidance"],
                    generator=torch.Generator("cpu").manual_seed(request.seed & 0x7FFFFFFFFFFFFFFF), output_type="np",
                    callback_on_step_end=after_step,
                    **({"negative_prompt": request.negative_prompt} if request.negative_prompt else {}),
                )  # fmt: skip
        except ValueError as error:
            raise TakeError(f"cosmos-sim: {error}") from error
        finally:
            pipe.first_frame = None
            with contextlib.suppress(Exception):
                pipe.maybe_free_model_hooks()
        self.report = {
            "cosmos_sim": {
                **options, "tier": self.tier, "chunks": chunks, "size": list(size),
                **({"peak_device_bytes": int(torch.cuda.max_memory_allocated(self.device))} if cuda else {}),
            }
        }  # fmt: skip
        values = np.asarray(result.frames)[0]
        if not np.isfinite(values).all():
            raise TakeError("cosmos-sim returned NaN; use dtype float32 or bfloat16")
        return np.round(values * 255).clip(0, 255).astype(np.uint8)

    def _settings(self, request: TakeRequest) -> dict[str, Any]:
        for key in request.settings:
            if key not in SETTINGS:
                raise InputError(unknown_name("setting of the cosmos-sim backend", key, SETTINGS))
        [(trained, strength)] = self.controls.items()
        found = {
            "steps": self.steps, "guidance": self.guidance, "control": trained, "strength": strength, "chunk": CHUNK,
            **request.settings,
        }  # fmt: skip
        if found["control"] != trained:
            raise InputError(
                f"the control network here was trained for {trained!r}; for {found['control']!r} give its files as option "
                f"'control' and controls {{{found['control']}: 1.0}} (valid: {', '.join(CONTROLS)})"
            )
        if not isinstance(found["steps"], int) or not 1 <= found["steps"] <= 1000:
            raise InputError(f"steps is {found['steps']!r}; give 1 to 1000")
        if not isinstance(found["chunk"], int) or found["chunk"] < 5 or found["chunk"] % 4 != 1:
            raise InputError(f"chunk is {found['chunk']!r}; give 1 + 4k frames, 5 or more ({CHUNK} is the model's)")
        for name in ("guidance", "strength"):
            if (
                isinstance(found[name], bool)
                or not isinstance(found[name], (int, float))
                or not np.isfinite(found[name])
            ):
                raise InputError(f"{name} is {found[name]!r}; give a finite number")
        return found


def first_frame_pipeline() -> Any:
    """diffusers' Cosmos-Transfer2.5 pipeline, whose first chunk begins with `first_frame` (3, H, W) in -1 … 1 if it is set."""
    from diffusers import Cosmos2_5_TransferPipeline

    class FirstFrameTransfer(Cosmos2_5_TransferPipeline):
        first_frame: Any = None

        def prepare_latents(self, video: Any = None, num_cond_latent_frames: int = 0, **more: Any) -> Any:
            """The first chunk is the only one without frames to go on from."""
            if self.first_frame is not None and num_cond_latent_frames == 0 and video is not None:
                video = video.clone()
                video[:, :, 0] = self.first_frame.to(video)
                num_cond_latent_frames = 1
            return super().prepare_latents(video=video, num_cond_latent_frames=num_cond_latent_frames, **more)

    FirstFrameTransfer.__name__ = Cosmos2_5_TransferPipeline.__name__  # what is saved names diffusers' own class
    return FirstFrameTransfer
