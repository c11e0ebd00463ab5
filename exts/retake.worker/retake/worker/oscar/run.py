# SPDX-License-Identifier: Apache-2.0
"""One run of N takes over all windows of one Skeleton, on the stages of a pipeline.

Windows are the outer loop: a window's skeleton is encoded once for all takes, and a take's next window starts from
its own last frame, which by then is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from retake.core.errors import TakeError

from . import sampler
from . import vae as vae_stage
from .decoding import DecodeQueue
from .prompts import ProjectedPrompt
from .request import Request
from .schedule import make_noise, window_seed
from .tiers import is_group_offloaded
from .windows import Seam, Window, check_seam

if TYPE_CHECKING:
    from .pipeline import OscarPipeline


class TakeRun:
    """The state of one run: what every take has so far, and the seams found."""

    def __init__(
        self,
        pipe: OscarPipeline,
        request: Request,
        texts: tuple[ProjectedPrompt, ...],
        negative: ProjectedPrompt | None,
        on_step: sampler.StepHook,
        tick: Callable[[], Any],
    ) -> None:
        self.pipe, self.request = pipe, request
        self.texts, self.negative = texts, negative
        self.on_step, self.tick = on_step, tick
        self.seams: list[list[Seam]] = [[] for _ in range(request.takes)]

    def generate(self) -> np.ndarray | Tensor:
        """All windows of all takes; the frames in the request's output type."""
        request = self.request
        total = len(request.skeleton)
        if request.output_type == "latent":
            latents = self._denoise_window(0, request.windows[0], list(request.first_frames), None)
            return torch.stack(latents)[:, :, : vae_stage.covering_latent_frames(total)].cpu()

        videos: list[list[Tensor]] = [[] for _ in range(request.takes)]  # float32 (3, T, H, W), [-1, 1]
        tails = list(request.first_frames)
        for index, window in enumerate(request.windows):
            decoded = self._window_videos(index, window, tails)
            for take, video in enumerate(decoded):
                real = video[0, :, : window.stop - window.start].cpu()
                videos[take].append(real if index == 0 else real[:, 1:])
                if index > 0:
                    regenerated = vae_stage.to_uint8(real[None, :, :1])[0]
                    self.seams[take].append(_pending_seam(window.start, regenerated))
                tails[take] = vae_stage.to_uint8(real[None, :, -1:])[0]
        return self._assemble(videos)

    def _assemble(self, videos: list[list[Tensor]]) -> np.ndarray | Tensor:
        request = self.request
        pixels, floats = [], []
        for take, parts in enumerate(videos):
            video = torch.cat(parts, dim=1)
            frames = vae_stage.to_uint8(video[None])
            if request.exact_first_frame:
                frames[0] = request.first_frames[take]
            self.seams[take] = [check_seam(frames, seam.frame, seam.regenerated) for seam in self.seams[take]]  # pyright: ignore
            self._check_safe(frames)
            if request.output_type == "pt":
                unit = (video.clamp(-1, 1) + 1) / 2
                if request.exact_first_frame:
                    unit[:, 0] = torch.from_numpy(request.first_frames[take]).permute(2, 0, 1).float() / 255
                floats.append(unit.permute(1, 0, 2, 3))
            pixels.append(frames)
        return torch.stack(floats) if floats else np.stack(pixels)

    def _check_safe(self, frames: np.ndarray) -> None:
        checker = self.pipe.safety_checker
        reason = checker.check_frames(frames) if checker is not None else None
        if reason is not None:
            raise TakeError(f"the safety checker refused the take: {reason}")

    def _window_videos(self, index: int, window: Window, first_frames: list[np.ndarray]) -> list[Tensor]:
        """Decoded float videos (1, 3, length, H, W) of one window, one per take."""
        pipe = self.pipe
        overlap = pipe.tier.overlap_decode and self.request.takes > 1

        def decode(latents: Tensor) -> Tensor:
            with pipe.stage("decode", pipe.vae):
                pipe.stats.decoded_latent_frames += latents.shape[2]
                return vae_stage.decode(pipe.vae, latents)

        queue = DecodeQueue(decode, pipe.run_device, overlap)
        try:
            needed = vae_stage.covering_latent_frames(window.stop - window.start)  # the VAE is causal
            self._denoise_window(index, window, first_frames, lambda latents: queue.submit(latents[None, :, :needed]))
            return queue.results()
        finally:
            queue.close()

    def _denoise_window(
        self, index: int, window: Window, first_frames: list[np.ndarray], then: Callable[[Tensor], None] | None
    ) -> list[Tensor]:
        """Final latents (16, t, h, w) of one window, one per take; `then` gets each as soon as it is done."""
        pipe, request = self.pipe, self.request
        device = pipe.run_device
        with pipe.stage("encode", pipe.vae):
            skeleton = vae_stage.encode(pipe.vae, window.take(request.skeleton)).to(device)
            pipe.stats.skeleton_frames += window.length
            keys = [frame.tobytes() for frame in first_frames]
            unique = dict(zip(keys, first_frames, strict=True))
            given = {key: vae_stage.encode(pipe.vae, frame[None]).to(device) for key, frame in unique.items()}
            pipe.stats.first_frame_frames += len(unique)

        finished = []
        control: Tensor | None = None
        for take, seed in enumerate(request.seeds):
            with pipe.stage("denoise", pipe.transformer):
                if control is None:
                    offloaded = is_group_offloaded(pipe.transformer)
                    control = skeleton if offloaded else pipe.transformer.embed_control(skeleton)
                noise = make_noise(window_seed(seed, index), tuple(skeleton.shape)).to(device)
                first = given[keys[take]]
                conditions = sampler.Conditions(
                    noise=noise,
                    given=first,
                    control=control,
                    text=self.texts[take].embeds.to(device),
                    negative=None if self.negative is None else self.negative.embeds.to(device),
                )
                latents = sampler.denoise(
                    pipe.transformer,
                    type(pipe.scheduler).from_config(pipe.scheduler.config),  # pyright: ignore
                    conditions,
                    request.steps,
                    request.guidance,
                    batched=pipe.tier.batched_guidance,
                    on_step=self._step,
                )
            if not bool(torch.isfinite(latents).all()):
                raise TakeError(
                    f"take {take} (seed {seed}) became NaN or infinite while denoising; the weights or the "
                    f"precision ({pipe.transformer.dtype}) are not usable"
                )
            if request.exact_first_frame:
                latents = torch.cat([first, latents[:, :, 1:]], dim=2)
            finished.append(latents[0])
            if then is not None:
                then(latents[0])
        return finished

    def _step(self, index: int, timestep: int, tensors: dict[str, Tensor]) -> Tensor | None:
        branches = 1 if self.negative is None else 2
        self.pipe.stats.evaluations += branches
        self.tick()
        return self.on_step(index, timestep, tensors)


class _pending_seam:  # noqa: N801 - a seam whose take is not yet whole
    def __init__(self, frame: int, regenerated: np.ndarray) -> None:
        self.frame, self.regenerated = frame, regenerated
