# SPDX-License-Identifier: Apache-2.0
"""`OscarPipeline`: first frame + Skeleton + prompt + seed -> Take, as a diffusers pipeline.

The stages prompt -> encode -> denoise -> decode are methods of their own; N takes of one episode share the skeleton
encode, the negative prompt and every prompt embedding.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import CosmosLoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from retake.core.errors import Cancelled, InputError, TakeError
from retake.worker import memory

from . import approximate, sampler
from .approximate import fewer_steps
from .few_step import Student, read_student
from .fused import disagreement, set_kernels, unjoinable
from .output import OscarPipelineOutput, RunStats
from .prompting import PromptStage
from .prompts import ProjectedPrompt, PromptCache
from .request import Request, make_request
from .run import TakeRun
from .schedule import DEFAULT_GUIDANCE, DEFAULT_SEED, DEFAULT_STEPS
from .stages import SafetyChecker
from .stepcache import Calibration, check_calibration
from .streaming import is_streamed, unstream_blocks, visiting
from .text import default_negative_prompt
from .tiers import DEFAULT_TIER, Tier, apply_tier, find_tier, next_tier
from .transformer import OscarTransformer3DModel

StepCallback = Callable[[Any, int, int, dict[str, Any]], "dict[str, Any] | None"]


class OscarPipeline(PromptStage, CosmosLoraLoaderMixin, DiffusionPipeline):
    """OSCAR-2B: a realistic video that follows a robot skeleton, from one realistic first frame."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["text_encoder", "tokenizer", "safety_checker"]  # noqa: RUF012 - diffusers' convention
    _callback_tensor_inputs = ["latents", "velocity"]  # noqa: RUF012

    transformer: OscarTransformer3DModel
    vae: AutoencoderKLWan
    scheduler: UniPCMultistepScheduler
    text_encoder: Any
    tokenizer: Any
    safety_checker: SafetyChecker | None

    def __init__(
        self,
        transformer: OscarTransformer3DModel,
        vae: AutoencoderKLWan,
        scheduler: UniPCMultistepScheduler,
        text_encoder: Any = None,
        tokenizer: Any = None,
        safety_checker: SafetyChecker | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            safety_checker=safety_checker,
        )
        self.approximations: tuple[str, ...] = ()
        self.prompt_cache = PromptCache(None)
        self.control_latents: dict[Any, Tensor] = {}
        """Latents of the last control windows, on the CPU (see `TakeRun`)."""
        self._folder: Path | None = None
        self._revision: str | None = None
        self.student: Student | None = None
        """How a few-step student is sampled; None: this is no student."""
        self.guidance_interval: tuple[float, float] | None = None
        self.calibration: Calibration | None = None
        self._tier = find_tier(DEFAULT_TIER)
        self._tier_device: torch.device | None = None
        self._vae_tiling = False
        self.text_device: torch.device | None = None
        """Where prompts are encoded; None: on the run device where the encoder fits when it is needed, else on the CPU."""
        self.margin_bytes = 0
        """What plans leave free on the device for others (a renderer)."""
        self._released: torch.device | None = None
        self._interrupt = False
        self.stats = RunStats()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> OscarPipeline:
        """Load a folder written by `retake oscar convert`; diffusers' own arguments apply (`torch_dtype`, …).

        `lazy_text_encoder=True` leaves the text encoder (13 GiB at full size) on disk; it is read when a prompt is not
        in the cache, and freed after. Raises InputError if the folder is not there.
        """
        lazy = kwargs.pop("lazy_text_encoder", False)
        if "torch_dtype" in kwargs:  # both names are in use; diffusers warns about the older one
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        kwargs.setdefault("use_safetensors", True)  # or diffusers would fall back to pickled weights
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            raise InputError(
                f"no model folder at {folder}; `retake oscar convert` writes one from the released checkpoint"
            )
        if not (folder / "model_index.json").is_file():
            raise InputError(f"{folder} has no model_index.json; it is not a folder written by `retake oscar convert`")
        if lazy:
            kwargs["text_encoder"] = None
        pipe: OscarPipeline = super().from_pretrained(folder, **kwargs)  # pyright: ignore
        pipe._folder = folder
        pipe.student = read_student(folder)
        return pipe

    # -- memory -------------------------------------------------------------------------------------------------------

    @property
    def tier(self) -> Tier:
        """The memory tier the next call starts with."""
        return self._tier

    def enable_memory_tier(self, name: str, device: torch.device | str | None = None) -> Tier:
        """Run in this tier on this device (default: where the pipeline is). Raises InputError for unknown names."""
        self._tier = find_tier(name)
        self._tier_device = torch.device(device) if device is not None else self.run_device
        if self.text_encoder is not None and not hasattr(self.text_encoder, "_hf_hook"):
            self.text_encoder.to("cpu")  # no tier keeps it on the device: it comes for unknown prompts, and leaves
        apply_tier(self._tier, self.transformer, self.vae, self._tier_device)
        self.vae.use_tiling |= self._vae_tiling
        self._released = None
        return self._tier

    def enable_planned_memory(self, device: torch.device | str = "cuda", height: int = 480, width: int = 640,
                              num_frames: int = 81, free_bytes: int | None = None) -> Tier:  # fmt: skip
        """Pick the tier from the device's free memory beside `margin_bytes` (measured, unless `free_bytes` is given)."""
        from .planner import choose_tier, plan_for_modules

        target = memory.usable_device(device)
        self.release_memory()  # what this pipeline holds must not count against itself
        free = memory.free_device_bytes(target) if free_bytes is None else free_bytes
        plans = plan_for_modules(self.transformer, self.vae, num_frames=num_frames, height=height, width=width)
        return self.enable_memory_tier(choose_tier(plans, free, self.margin_bytes).tier, target)

    def to(self, *args: Any, **kwargs: Any) -> OscarPipeline:
        """diffusers' own `to`; a memory tier chosen before goes along to the new device."""
        super().to(*args, **kwargs)
        named = (value for value in (*args, kwargs.get("device")) if isinstance(value, (str, int, torch.device)))
        device = next(named, None)
        if device is not None and (self._tier_device is not None or self._released is not None):
            self.enable_memory_tier(self._tier.name, torch.device(device))
        return self

    def release_memory(self) -> None:
        """Send every module to the CPU and return the device's memory; the next call brings back what it needs."""
        device = self.run_device
        unstream_blocks(self.transformer)
        for module in (self.transformer, self.vae, self.text_encoder):
            if module is not None:
                module.to("cpu")
        _release(device)
        self._released = device

    def enable_vae_tiling(self) -> None:
        """Encode and decode in tiles, in every tier: less memory, pixels near tile borders blended."""
        self._vae_tiling = True
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Back to whole-frame encode and decode, except where the tier tiles."""
        self._vae_tiling = False
        self.vae.use_tiling = self._tier.tiled_decode

    def enable_prompt_cache(self, folder: str | Path | None) -> None:
        """Keep projected prompts in `folder` (None: in memory only)."""
        self.prompt_cache = PromptCache(None if folder is None else Path(folder))

    def enable_approximation(self, name: str, **options: Any) -> None:
        """Turn on an approximate mode (see `approximate.enable`); every output then names it. Raises InputError."""
        with self._unstreamed() if name in approximate.PERMANENT else nullcontext():
            self.approximations = (*self.approximations, approximate.enable(self, name, **options))

    def disable_approximations(self) -> None:
        """Back to exact. Raises InputError where that needs the weights again (fp8)."""
        approximate.disable(self, self.approximations)
        self.approximations = ()

    @property
    def kernels(self) -> str:
        """ "reference", or "fused": the same formulas in single passes, equal to 1e-5 in float32 (see `fused`)."""
        return "fused" if self.transformer.transformer_blocks[0].fused else "reference"

    def use_kernels(self, name: str) -> str:
        """Run the blocks in this way; "auto": fused on a card where a check of every operation passes, else reference.

        Returns why "auto" did not take the fused ones; empty otherwise. Raises InputError.
        """
        reason = ""
        if name == "auto":
            device = self.run_device
            reason = (
                "the reference's on the CPU" if device.type == "cpu" else disagreement(device, self.transformer.dtype)
            )
            if not reason and self.kernels == "reference":
                reason = unjoinable(self.transformer)
            name = "reference" if reason else "fused"
        if name != self.kernels:
            unstream_blocks(self.transformer)
            set_kernels(self.transformer, name)
            if self._tier_device is not None:
                self.enable_memory_tier(self._tier.name)
        return reason

    def load_lora_weights(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' own; adapters are made for separate projections, so kernels go back to the reference's."""
        self.use_kernels("reference")
        with self._unstreamed():
            super().load_lora_weights(*args, **kwargs)

    def fuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' own, in every tier."""
        with self._unstreamed():
            super().fuse_lora(*args, **kwargs)

    def unfuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' own, in every tier."""
        with self._unstreamed():
            super().unfuse_lora(*args, **kwargs)

    def unload_lora_weights(self) -> None:
        """diffusers' own, in every tier."""
        with self._unstreamed():
            super().unload_lora_weights()

    @contextmanager
    def _unstreamed(self) -> Iterator[None]:
        """Inside, blocks that are streamed are not: the streamer holds the weights that are about to change."""
        streamed = is_streamed(self.transformer)
        if streamed:
            unstream_blocks(self.transformer)
        try:
            yield
        finally:
            if streamed:
                self.enable_memory_tier(self._tier.name)

    def enable_compile(self, **kwargs: Any) -> None:
        """torch.compile of the repeated blocks (one compilation for all of them). Rounds like any fused kernel does."""
        self.transformer.compile_repeated_blocks(**kwargs)

    @property
    def run_device(self) -> torch.device:
        """Where stages run."""
        return self._tier_device or torch.device(self._execution_device)

    @contextmanager
    def stage(self, name: str, *modules: Any) -> Iterator[None]:
        """Time a stage; in staged tiers, its modules visit the device for it (nothing is copied back)."""
        moving = [m for m in modules if self._tier.staged and not is_streamed(m)]
        started = time.perf_counter()
        try:
            with visiting(moving, self.run_device):
                yield
                if self.run_device.type == "cuda":
                    torch.cuda.current_stream(self.run_device).synchronize()
        finally:
            seconds = time.perf_counter() - started
            self.stats.seconds[name] = self.stats.seconds.get(name, 0.0) + seconds
            if moving:
                _release(self.run_device)

    # -- cancelling ---------------------------------------------------------------------------------------------------

    @property
    def interrupt(self) -> bool:
        """Whether the running call has been asked to stop."""
        return self._interrupt

    def cancel(self) -> None:
        """Ask the running call to stop at its next step; it raises Cancelled. Safe from any thread."""
        self._interrupt = True

    # -- the call -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        first_frame: Any,
        skeleton: Any,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        prompt_embeds: Tensor | ProjectedPrompt | Sequence[Any] | None = None,
        negative_prompt_embeds: Tensor | ProjectedPrompt | None = None,
        num_frames: int = 81,
        height: int = 480,
        width: int = 640,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | Sequence[int] = DEFAULT_SEED,
        output_type: str = "np",
        exact_first_frame: bool = False,
        fit: str = "squeeze",
        object_video: Any = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> OscarPipelineOutput | tuple[Any, ...]:
        """Generate N takes.

        Args:
            first_frame: one RGB image (uint8 (H, W, 3), PIL, path), or a list of N.
            skeleton: uint8 RGB (T, H, W, 3), a list of frames, or a path. The takes have its T frames: shorter than the
                window it is freeze-padded and cut back, longer it is generated in chained windows.
            prompt, negative_prompt: texts (`prompt` may be a list of N); OSCAR's own negative prompt if left out.
            prompt_embeds, negative_prompt_embeds: raw embeddings (1, L, D), or a ProjectedPrompt.
            num_frames: the window, rounded up to 1 + 4k.
            height, width: multiples of 16.
            num_inference_steps: OSCAR's N, which means N + 1 evaluations of each guidance branch. Left out: 35, or what a
                few-step student was made for.
            guidance_scale: OSCAR's g in v_c + g * (v_c - v_u); 0 turns guidance off. Left out: 6, or the student's.
            seed: one for all takes (the same noise), or one per take.
            output_type: "np", "pt" or "latent" (see OscarPipelineOutput).
            exact_first_frame: return the given first frame itself. False reproduces OSCAR, where it is slightly noised.
            fit: "squeeze", "crop", "letterbox" or "error".
            object_video: uint8 RGB (T, H, W, 3) or a path, only for a model tuned with an object embedding.
            callback_on_step_end: called as f(pipe, step, timestep, tensors) after every step; may return replaced latents.
            callback_on_step_end_tensor_inputs: which of "latents", "velocity" it gets.
            return_dict: False returns `(frames,)`.

        Raises:
            InputError: wrong arguments, before any work. TakeError: the run failed. Cancelled: `cancel()` was called.
        """
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise InputError(f"unknown callback tensors {sorted(unknown)}; valid: {self._callback_tensor_inputs}")
        if self.safety_checker is not None and output_type == "latent":
            raise InputError("latents cannot be checked; with a safety_checker use output_type 'np' or 'pt'")
        if num_inference_steps is None:
            num_inference_steps = DEFAULT_STEPS if self.student is None else self.student.steps
        if guidance_scale is None:
            guidance_scale = DEFAULT_GUIDANCE if self.student is None else self.student.guidance
        if self.calibration is not None:
            check_calibration(self.calibration, self.model_revision, num_inference_steps + 1, guidance_scale)
        request = make_request(
            first_frame=first_frame, skeleton=skeleton, prompt=prompt, negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds, num_frames=num_frames,
            height=height, width=width, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            seed=seed, output_type=output_type, exact_first_frame=exact_first_frame, fit=fit,
            embed_width=self.transformer.config["crossattn_proj_in_channels"],
            max_latent=self.transformer.config["max_size"], default_negative=default_negative_prompt,
            object_video=object_video, object_channels=self.transformer.config["object_channels"],
            student=self.student,
        )  # fmt: skip
        self._interrupt = False

        def report(index: int, timestep: int, tensors: dict[str, Tensor]) -> Tensor | None:
            if self._interrupt:
                raise Cancelled("the take was cancelled; nothing was written")
            if callback_on_step_end is None:
                return None
            chosen = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
            return (callback_on_step_end(self, index, timestep, chosen) or {}).get("latents")

        result = self._run_with_retry(request, report)
        return result if return_dict else (result.frames,)

    def _run_with_retry(self, request: Request, report: sampler.StepHook) -> OscarPipelineOutput:
        """One run. Out of memory goes one tier down and on from the takes and windows that are finished."""
        self.stats = RunStats()
        run: TakeRun | None = None
        fell: list[str] = []
        while True:
            try:
                if run is None:
                    run = self._begin(request, report)
                result = self._finish(run)
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if isinstance(error, TakeError) or not memory.is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            else:
                result.retried = bool(fell)
                return result
            # outside the handler: the exception's frames would keep the failed run's tensors alive
            _release(self.run_device)
            fell.append(self._tier.name)
            lower = next_tier(self._tier)
            if lower is None:
                raise TakeError(
                    f"out of memory in the smallest tier ({fell[-1]}; tried: {', '.join(fell)}): {reason}. Free device "
                    "memory, or choose a smaller size"
                )
            self.enable_memory_tier(lower.name)

    def _begin(self, request: Request, report: sampler.StepHook) -> TakeRun:
        if self._released is not None:
            self.enable_memory_tier(self._tier.name, self._released)
        if self.run_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.run_device)
        texts, negative = self.prepare_prompts(request)
        return TakeRun(self, request, texts, negative, report)

    def _finish(self, run: TakeRun) -> OscarPipelineOutput:
        request = run.request
        with self.progress_bar(total=request.takes * len(request.windows) * request.evaluations) as bar:
            run.tick = bar.update
            frames = run.generate()
        if self.run_device.type == "cuda":
            self.stats.peak_device_bytes = torch.cuda.max_memory_allocated(self.run_device)
        stats, self.stats = self.stats, RunStats()  # what the output reports no longer changes
        return OscarPipelineOutput(
            frames=frames,
            seeds=request.seeds,
            tier=self._tier.name,
            kernels=self.kernels,
            exact_first_frame=request.exact_first_frame,
            first_frame_fits=request.first_frame_fits,
            skeleton_fit=request.skeleton_fit,
            windows=request.windows,
            seams=tuple(tuple(seams) for seams in run.seams),
            approximations=(
                *self.approximations,
                *(fewer_steps(request.steps) if request.student is None else (request.student.label,)),
            ),
            stats=stats,
        )


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
