# SPDX-License-Identifier: Apache-2.0
"""OSCAR-2B as a maker of takes: files in, frames out, with progress per denoising step, cancel, and cheap previews."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import open_episode
from retake.core.errors import Cancelled, InputError, TakeError, install_hint, unknown_name
from retake.core.files import sha256_file
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME
from retake.core.skeleton import open_skeleton
from retake.core.takes.base import TakeRequest
from retake.worker.gpu import roomiest_device
from retake.worker.memory import AUTO, CPU, MARGIN_BYTES, device_of_card, is_out_of_memory, usable_device

SETTINGS = ("steps", "guidance", "fit", "window", "height", "width", "exact_first_frame", "preview")
MODEL_VARIABLE = "RETAKE_OSCAR_MODEL"
_NO_MODEL = (
    "no OSCAR-2B model is configured: set backends.oscar.options.model in worker.yaml "
    f"or ${MODEL_VARIABLE} to a folder written by `retake oscar convert`"
)
PREVIEW_STEPS = 2
"""A preview after every second step: the map below costs about a millisecond, the transfer from the card dominates."""


def load_pipeline(folder: Path, device: str, dtype: str) -> Any:
    """The pipeline of a converted model folder. Raises InputError when there is none."""
    import torch

    from retake.worker.oscar import OscarPipeline

    return OscarPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), lazy_text_encoder=True)


class OscarBackend:
    """A VideoBackend around `OscarPipeline`; frame 0 is the given first frame itself.

    The same seed gives the same bytes on the same card in the same tier with the same kernels. `tier`, `attention` and
    `deterministic` pin these; what is pinned is part of a take's identity, what ran is in its report.

    `model`: folder written by `retake oscar convert` (empty: $RETAKE_OSCAR_MODEL). `settings` of a request: steps,
    guidance, fit, window, height, width.
    """

    name, version, domain = "oscar", "1", "generated"
    licence = "LicenseRef-OSCAR-2B"
    parallel = False

    @staticmethod
    def obstacle(model: str = "", **options: Any) -> str:
        """Why it cannot work here with these options, and the remedy; empty when nothing is in the way."""
        if importlib.util.find_spec("torch") is None:
            return f"video backend 'oscar' needs torch, which is not installed here; {install_hint('oscar')}"
        return "" if model or os.environ.get(MODEL_VARIABLE) else _NO_MODEL

    def __init__(
        self, model: str = "", revision: str = "", steps: int = 35, guidance: float = 6.0, device: str = "", dtype: str = "",
        prompt_cache: str = "", tier: str = "", attention: str = "auto", compile: bool = False, deterministic: bool = False,
        kernels: str = "auto", approximate: Sequence[str] | Mapping[str, Mapping[str, Any]] = (), licence: str = "",
        pipeline: Any = None,
    ) -> None:  # fmt: skip
        from retake.worker.oscar.backends import check_backend
        from retake.worker.oscar.fused import KERNELS
        from retake.worker.oscar.object_control import object_control_of
        from retake.worker.oscar.tiers import find_tier

        self.device = str(usable_device(device)) if device else roomiest_device()
        folder = Path(model or os.environ.get(MODEL_VARIABLE, ""))
        if pipeline is None:
            if not (model or os.environ.get(MODEL_VARIABLE)):
                raise InputError(_NO_MODEL)
            pipeline = load_pipeline(
                folder, self.device, dtype or ("bfloat16" if self.device.startswith("cuda") else "float32")
            )
        self.pipeline: Any = pipeline
        self.object_control = object_control_of(folder) if folder.name else "none"
        """How the model reads simulated objects: "none", "drawn" on the Skeleton video, or "embed" (docs/tune.md)."""
        self.model, self.revision = "OSCAR-2B", revision or str(pipeline.model_revision)
        self.licence = licence or type(self).licence
        self._steps, self._guidance = steps, guidance
        self.preview: Callable[[UInt8[np.ndarray, "h w 3"]], None] = lambda image: None
        self.report: dict[str, Any] = {}
        self.approximations: tuple[str, ...] = ()
        """Approximate modes of the newest take, for its record."""
        self.tier = ""
        self.margin_bytes = MARGIN_BYTES
        """What a plan of its own leaves free for the renderer."""
        if tier and tier not in (AUTO, CPU):
            find_tier(tier)
        if attention != "auto":
            check_backend(attention)
        if kernels not in (AUTO, *KERNELS):
            raise InputError(unknown_name("kernels", kernels, (AUTO, *KERNELS)))
        self._kernels, self._approximate = kernels, _modes(approximate)
        self._pinned_tier, self._attention, self._compile, self._deterministic = tier, attention, compile, deterministic
        self._wanted, self._placed = tier, ""
        self._compiled = False
        self.kernels_note = ""
        """Why kernels "auto" did not take the fused ones; empty: they run, or were not asked for."""
        self.arithmetic = self._pins()
        """What was pinned of tier, kernels, attention, determinism and approximate modes: part of a take's identity. Empty:
        nothing was."""
        if prompt_cache:
            self.pipeline.enable_prompt_cache(prompt_cache)
        self.pipeline.set_progress_bar_config(disable=True)

    def use_tier(self, name: str) -> None:
        """Run in exactly this memory tier; "auto": the one that fits when a take starts; "cpu": without the card."""
        from retake.worker.oscar.tiers import DEFAULT_TIER, find_tier

        if self._pinned_tier:
            return
        if name not in ("", AUTO, CPU):
            find_tier(name)
        if name == CPU and self.device != "cpu":
            self.pipeline.enable_memory_tier(DEFAULT_TIER, "cpu")
            self.device = "cpu"
        self._wanted = name if name != CPU else ""

    def use_card(self, card: str) -> None:
        """Run on the card of this UUID from the next take on."""
        device = device_of_card(card)
        if self.device.startswith("cuda") and device != self.device:
            self.pipeline.release_memory()
            self.device, self._placed = device, ""

    def _place(self, height: int, width: int, window: int) -> None:
        """Bring the model to its device before a take: in the wanted tier, or in the one that fits this take's size."""
        import torch

        if self._deterministic:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        if self.device == "cpu":
            if self._placed != "cpu":
                self._placed = "cpu"
                self._use_modes()
            return
        before = self._placed
        self.pipeline.margin_bytes = self.margin_bytes
        key = f"{self._wanted or AUTO} {self.device}"
        if self._wanted in ("", AUTO):
            key += f" {height} {width} {window}"
            if key != self._placed:
                self._enable(lambda: self.pipeline.enable_planned_memory(self.device, height, width, window))
        elif key != self._placed or self.pipeline.tier.name != self._wanted:
            self._enable(lambda: self.pipeline.enable_memory_tier(self._wanted, self.device))
        self._placed = key
        if key != before:
            self._use_kernels(height, width, window)

    def _enable(self, enable: Callable[[], Any]) -> None:
        """Bring the model into a tier; one tier down while there is no room for its weights (somebody took it since the plan)."""
        from retake.worker.oscar.tiers import next_tier

        while True:
            try:
                enable()
                return
            except (RuntimeError, MemoryError) as error:
                lower = next_tier(self.pipeline.tier) if is_out_of_memory(error) else None
                if lower is None:
                    raise
                name = lower.name
            # outside the handler: its traceback holds what was half moved
            self.pipeline.release_memory()
            enable = lambda name=name: self.pipeline.enable_memory_tier(name, self.device)  # noqa: E731

    def _check_pinned(self, ran: str) -> None:
        """Raises TakeError where lack of memory led to a tier of other arithmetic than the pinned one, which names the take."""
        from retake.worker.oscar.tiers import find_tier

        if not self._pinned_tier or self._pinned_tier in (AUTO, CPU) or ran == self._pinned_tier:
            return
        wanted, found = find_tier(self._pinned_tier), find_tier(ran)
        if (wanted.tiled_decode, wanted.batched_guidance) != (found.tiled_decode, found.batched_guidance):
            raise TakeError(
                f"the take ran out of memory in the pinned tier {self._pinned_tier!r} and could be made in {ran!r} only, whose "
                "pixels differ: free memory of the card, or pin that tier (option `tier`)"
            )

    def _use_kernels(self, height: int, width: int, window: int) -> None:
        """What `retake bench oscar` measures is what runs: the fastest exact attention at this size, compiled if asked."""
        import torch

        from retake.worker.oscar.backends import select_backend, set_backend
        from retake.worker.oscar.vae import latent_frames
        from retake.worker.oscar.windows import window_length

        tokens = latent_frames(window_length(window)) * (height // 16) * (width // 16)
        self._use_modes()
        if "sage" in self._approximate:
            return
        if self._attention != "auto":
            set_backend(self.pipeline.transformer, self._attention)
        elif not self._deterministic:  # a choice by timing may differ from run to run
            select_backend(self.pipeline.transformer, tokens, torch.device(self.device))
        if self._compile and not self._compiled and not self.pipeline.tier.group_offload:
            self.pipeline.enable_compile()
            self._compiled = True

    def _use_modes(self) -> None:
        """Kernels first: a quantised layer can no longer be joined with others."""
        from retake.worker.oscar.approximate import PERMANENT

        if not any(label in PERMANENT for label in self.pipeline.approximations):
            self.kernels_note = self.pipeline.use_kernels(self._kernels)
        for name, options in self._approximate.items():
            if not any(label.partition(":")[0] == name for label in self.pipeline.approximations):
                self.pipeline.enable_approximation(name, **options)

    def _ran(self) -> dict[str, Any]:
        """What of the way a take was computed decides its last bits, beside tier and kernels."""
        from retake.worker.oscar.backends import attention_of

        objects = {} if self.object_control == "none" else {"object_control": self.object_control}
        return {
            **objects,
            "device": self.device,
            "dtype": str(self.pipeline.transformer.dtype).removeprefix("torch."),
            "attention": attention_of(self.pipeline.transformer),
            "tiled": bool(self.pipeline.vae.use_tiling),
            "compiled": self._compiled,
            "deterministic": self._deterministic,
        }

    def _pins(self) -> str:
        told = {
            "tier": self._pinned_tier,
            "attention": "" if self._attention == "auto" else self._attention,
            "kernels": "" if self._kernels == AUTO else self._kernels,
            "approximate": " ".join(_stated(name, self._approximate[name]) for name in sorted(self._approximate)),
            "compiled": "yes" if self._compile else "",
            "deterministic": "yes" if self._deterministic else "",
        }
        return ", ".join(f"{name} {value}" for name, value in told.items() if value)

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB frames in order. Raises InputError for wrong settings, TakeError when the run fails, Cancelled."""
        options = self._options(request)
        skeleton = open_skeleton(request.skeleton)
        count = request.frames or len(skeleton) - request.start
        if not 0 <= request.start < request.start + count <= len(skeleton):
            raise InputError(
                f"frames {request.start} … {request.start + count - 1} asked; the skeleton has {len(skeleton)}"
            )
        control = np.stack([skeleton.frame(index) for index in range(request.start, request.start + count)])
        if self.object_control != "none":
            control, objects = self._with_objects(request, control, options["fit"])
            options |= {} if objects is None else {"object_video": objects}
        image = cv2.imread(str(request.variant / VARIANT_FRAME), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{request.variant / 'frame.png'} is no readable picture")
        first = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        width, height = (
            options.pop("width", skeleton.squeeze.model_size[0]),
            options.pop("height", skeleton.squeeze.model_size[1]),
        )
        painter = LatentPainter(first)
        show = bool(options.pop("preview", True))
        done = 0
        expected = [options["num_inference_steps"] + (getattr(self.pipeline, "student", None) is None)]

        def after_step(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            check_cancel()
            done += 1
            expected[0] = max(expected[0], done)
            progress(done, expected[0], f"denoising, step {step + 1}")
            if show and step % PREVIEW_STEPS == 0:
                self.preview(painter.paint(tensors["latents"]))
            return {}

        check_cancel()
        progress(0, expected[0], "encoding")
        self._place(height, width, options["num_frames"])
        try:
            result = self.pipeline(
                first, control, prompt=request.prompt, negative_prompt=request.negative_prompt or None, height=height,
                width=width,
                seed=request.seed, output_type="np", callback_on_step_end=after_step, **options,
            )  # fmt: skip
        except Cancelled:
            self.pipeline.cancel()
            raise
        self._check_pinned(result.tier)
        self.tier, self.report = result.tier, {"oscar": {**result.report(), **self._ran()}}
        self.approximations = tuple(result.approximations)
        frames = np.asarray(result.frames)[0]
        if len(frames) != count:
            raise TakeError(f"the model returned {len(frames)} frames; {count} were asked")
        undo = options["fit"] == "squeeze" and (width, height) == skeleton.squeeze.model_size
        for frame in frames:
            check_cancel()
            yield skeleton.squeeze.unsqueeze(frame) if undo else frame

    def _with_objects(
        self, request: TakeRequest, control: np.ndarray, fit: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The Skeleton video and the object video as the model was tuned to read them; the latter None where it is drawn."""
        from retake.worker.oscar.fit import plan_fit
        from retake.worker.oscar.object_control import control_of_episode, drawn_on

        glyphs = control_of_episode(open_episode(request.episode), request.camera, request.start, len(control))
        if self.object_control == "embed":
            return control, glyphs
        size = (control.shape[2], control.shape[1])
        fitted = plan_fit((glyphs.shape[2], glyphs.shape[1]), size, fit, "the object video").apply(glyphs)
        return drawn_on(control, fitted), None

    def close(self) -> None:
        """Let go of the model and the card's memory."""
        import gc

        import torch

        self.pipeline = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _options(self, request: TakeRequest) -> dict[str, Any]:
        for key in request.settings:
            if key not in SETTINGS:
                raise InputError(unknown_name("setting of the oscar backend", key, SETTINGS))
        given = dict(request.settings)
        student = getattr(self.pipeline, "student", None)  # which knows its own steps and guidance
        steps, guidance = (self._steps, self._guidance) if student is None else (student.steps, student.guidance)
        return {
            "num_inference_steps": given.pop("steps", steps),
            "guidance_scale": given.pop("guidance", guidance),
            "fit": given.pop("fit", "squeeze"),
            "num_frames": given.pop("window", 81),
            "exact_first_frame": given.pop("exact_first_frame", True),
            **given,
        }


def _modes(given: Sequence[str] | Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Approximate modes by name with their options. Raises InputError for unknown ones."""
    from retake.worker.oscar.approximate import MODES

    found = {str(name): dict(given[name] or {}) if isinstance(given, Mapping) else {} for name in given}
    if unknown := [name for name in found if name not in MODES]:
        raise InputError(unknown_name("approximate mode", unknown[0], MODES))
    return found


def _stated(name: str, options: Mapping[str, Any]) -> str:
    """A mode with its options; a file stands for what is in it."""
    told = []
    for key in sorted(options):
        path = Path(str(options[key])) if isinstance(options[key], (str, Path)) else None
        told.append(f"{key}={sha256_file(path)[:16] if path is not None and path.is_file() else options[key]}")
    return f"{name}({', '.join(told)})" if told else name


class LatentPainter:
    """Latents as a small picture without the decoder: a linear map from latent channels to colour.

    The map is fitted once per take, by least squares, to what is known for certain: latent frame 0 shows the first
    frame. Latents change little in meaning from scene to scene, so later frames come out in roughly right colours.
    """

    def __init__(self, first_frame: UInt8[np.ndarray, "H W 3"]) -> None:
        self._first = first_frame
        self._map: np.ndarray | None = None

    def paint(self, latents: Any) -> UInt8[np.ndarray, "h w 3"]:
        """The middle latent frame of (N, C, t, h, w) latents as RGB, at eight times the latent size."""
        values = (
            latents[0].detach().float().cpu().numpy()
            if hasattr(latents, "detach")
            else np.asarray(latents[0], np.float32)
        )
        channels, frames, height, width = values.shape
        features = values.reshape(channels, frames, -1).transpose(1, 2, 0)
        features = np.concatenate([features, np.ones_like(features[..., :1])], axis=2)
        target = (
            cv2.resize(self._first, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
        )
        # Ridge: early latents are mostly noise, and a plain fit would chase it.
        A = features[0]
        self._map = np.linalg.solve(A.T @ A + 0.05 * len(A) * np.eye(channels + 1), A.T @ target)
        picture = np.clip(features[frames // 2] @ self._map, 0, 255).reshape(height, width, 3).astype(np.uint8)
        return cv2.resize(picture, (8 * width, 8 * height), interpolation=cv2.INTER_LINEAR)
