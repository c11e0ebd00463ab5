# SPDX-License-Identifier: Apache-2.0
"""One run of N takes over all windows of one Skeleton, on the stages of a pipeline.

Windows are the outer loop: a window's skeleton is encoded once for all takes, and a take's next window starts from
its own last frame, which by then is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retake.core.errors import TakeError
from retake.core.files import sha256_bytes
from retake.worker.memory import is_out_of_memory

from . import sampler
from . import vae as vae_stage
from .decoding import DecodeQueue
from .prompts import ProjectedPrompt
from .request import Request
from .schedule import make_noise, window_seed
from .stages import Stages
from .windows import Seam, Window, check_seam

KEPT_WINDOWS = 8
"""Windows of control latents in host memory, 6.5 MB each at full size."""


class TakeRun:
    """The state of one run: what every take has so far, and the seams found."""

    def __init__(
        self,
        pipe: Stages,
        request: Request,
        texts: tuple[ProjectedPrompt, ...],
        negative: ProjectedPrompt | None,
        on_step: sampler.StepHook,
    ) -> None:
        self.pipe, self.request = pipe, request
        self.texts, self.negative = texts, negative
        self.on_step = on_step
        self.tick: Callable[[], Any] = lambda: None
        # (window, take) -> its frames: what a run that ran out of memory need not do again
        self._finished: dict[tuple[int, int], _Piece] = {}
        # and the steps of takes that are not decoded yet
        self._loops: dict[tuple[int, int], sampler.Loop] = {}
        self.seams: list[list[Seam]] = [[] for _ in range(request.takes)]
        # per take: frame index of a chained frame, and what the next window made of it
        self._chained: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(request.takes)]

    def generate(self) -> np.ndarray | Tensor:
        """All windows of all takes; the frames in the request's output type."""
        request = self.request
        total = len(request.skeleton)
        if request.output_type == "latent":
            latents = self._denoise_window(0, request.windows[0], list(request.first_frames), None)
            return torch.stack(latents)[:, :, : vae_stage.covering_latent_frames(total)].cpu()

        takes: list[list[_Piece]] = [[] for _ in range(request.takes)]
        tails = list(request.first_frames)
        self._chained = [[] for _ in range(request.takes)]
        for index, window in enumerate(request.windows):
            for take, piece in enumerate(self._window_pieces(index, window, tails)):
                if index > 0:
                    self._chained[take].append((window.start, piece.frames[0]))
                takes[take].append(piece if index == 0 else piece.without_first())
                tails[take] = piece.frames[-1]
        return self._assemble(takes)

    def _assemble(self, takes: list[list[_Piece]]) -> np.ndarray | Tensor:
        request = self.request
        pixels, floats = [], []
        for take, pieces in enumerate(takes):
            frames = np.concatenate([piece.frames for piece in pieces])
            if request.exact_first_frame:
                frames[0] = request.first_frames[take]
            self.seams[take] = [check_seam(frames, index, copy) for index, copy in self._chained[take]]
            self._check_safe(frames)
            if request.output_type == "pt":
                unit = torch.cat([piece.unit for piece in pieces if piece.unit is not None])
                if request.exact_first_frame:
                    unit[0] = torch.from_numpy(request.first_frames[take]).permute(2, 0, 1).float() / 255
                floats.append(unit)
            pixels.append(frames)
        return torch.stack(floats) if floats else np.stack(pixels)

    def _check_safe(self, frames: np.ndarray) -> None:
        checker = self.pipe.safety_checker
        reason = checker.check_frames(frames) if checker is not None else None
        if reason is not None:
            raise TakeError(f"the safety checker refused the take: {reason}")

    def _window_pieces(self, index: int, window: Window, first_frames: list[np.ndarray]) -> list[_Piece]:
        """Decoded frames of one window, padding cut off, one piece per take."""
        pipe = self.pipe
        overlap = pipe.tier.overlap_decode and self.request.takes > 1

        def decode(latents: Tensor) -> _Piece:
            with pipe.stage("decode", pipe.vae):
                pipe.stats.decoded_latent_frames += latents.shape[2]
                video = vae_stage.decode(pipe.vae, latents)[:, :, : window.stop - window.start]
                if not bool(torch.isfinite(video).all()):
                    raise TakeError(
                        f"decoding gave NaN or infinite pixels; the VAE's precision ({pipe.vae.dtype}) is not usable"
                    )
                # leaves the device at once: N decoded videos would not fit beside the next take
                unit = ((video + 1) / 2)[0].permute(1, 0, 2, 3).cpu() if self.request.output_type == "pt" else None
                return _Piece(vae_stage.to_uint8(video), unit)

        todo = [take for take in range(self.request.takes) if (index, take) not in self._finished]
        needed = vae_stage.covering_latent_frames(window.stop - window.start)  # the VAE is causal
        queue = DecodeQueue(decode, pipe.run_device, overlap)
        stopped: BaseException | None = None
        try:
            if todo:
                then = lambda latents: queue.submit(latents[None, :, :needed])  # noqa: E731
                self._denoise_window(index, window, first_frames, then, todo)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                queue.close()
                raise
            stopped = error
        except BaseException:
            queue.close()
            raise
        pieces, failed = queue.finished()
        queue.close()
        self._finished.update({(index, take): piece for take, piece in zip(todo, pieces, strict=False)})
        for key in [key for key in self._loops if key in self._finished]:
            del self._loops[key]
        if (reason := stopped or failed) is not None:
            for loop in self._loops.values():
                loop.to_host()
            raise reason
        return [self._finished[index, take] for take in range(self.request.takes)]

    def _denoise_window(
        self, index: int, window: Window, first_frames: list[np.ndarray], then: Callable[[Tensor], None] | None,
        todo: Sequence[int] | None = None,
    ) -> list[Tensor]:  # fmt: skip
        """Final latents (16, t, h, w) of one window, one per take (of `todo`); `then` gets each as soon as it is done."""
        pipe, request = self.pipe, self.request
        device = pipe.run_device
        with pipe.stage("encode", pipe.vae):
            skeleton = self._control_latents(window, request.skeleton).to(device)
            objects = None
            if request.objects is not None:
                objects = self._control_latents(window, request.objects).to(device)
            keys = [frame.tobytes() for frame in first_frames]
            unique = dict(zip(keys, first_frames, strict=True))
            given = {key: vae_stage.encode(pipe.vae, frame[None]).to(device) for key, frame in unique.items()}
            pipe.stats.first_frame_frames += len(unique)

        finished = []
        control: Tensor | None = None
        for take in range(request.takes) if todo is None else todo:
            seed = request.seeds[take]
            with pipe.stage("denoise", pipe.transformer):
                if control is None:
                    control = pipe.transformer.embed_control(skeleton)
                    if objects is not None:
                        control = control + pipe.transformer.embed_objects(objects)
                latents = self._denoise(index, take, skeleton.shape, given[keys[take]], control)
            if not bool(torch.isfinite(latents).all()):
                raise TakeError(
                    f"take {take} (seed {seed}) became NaN or infinite while denoising; the weights or the "
                    f"precision ({pipe.transformer.dtype}) are not usable"
                )
            if request.exact_first_frame:
                latents = torch.cat([given[keys[take]], latents[:, :, 1:]], dim=2)
            finished.append(latents[0])
            if then is not None:
                then(latents[0])
        return finished

    def _denoise(self, index: int, take: int, shape: Any, given: Tensor, control: Tensor) -> Tensor:
        """Final latents of one take's window; steps that an earlier try of it finished are not done again."""
        pipe, request = self.pipe, self.request
        device, seed = pipe.run_device, window_seed(request.seeds[take], index)
        loop = self._loops.setdefault((index, take), sampler.Loop())
        conditions = sampler.Conditions(
            noise=make_noise(seed, tuple(shape)).to(device),
            given=given,
            control=control,
            text=self.texts[take].embeds.to(device),
            negative=None if self.negative is None else self.negative.embeds.to(device),
        )
        common: dict[str, Any] = {"batched": pipe.tier.batched_guidance, "loop": loop}
        common["on_step"] = lambda *step: self._step(loop, *step)
        pipe.stats.resumed_steps += loop.index
        try:
            if request.student is not None:
                latents = sampler.denoise_few(
                    pipe.transformer, conditions, request.student, seed, request.guidance, **common
                )
            else:
                latents = sampler.denoise(
                    pipe.transformer,
                    type(pipe.scheduler).from_config(pipe.scheduler.config),  # pyright: ignore
                    conditions,
                    request.steps,
                    request.guidance,
                    interval=pipe.guidance_interval,
                    **common,
                )
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                loop.to_host()
            raise
        loop.solver = {}  # its latents are enough to decode again
        return latents

    def _control_latents(self, window: Window, video: np.ndarray) -> Tensor:
        """Latents of a control video's window, in host memory; those of the last few windows are kept between runs, so
        that the takes of one episode share them also when each is a job of its own."""
        pipe, frames = self.pipe, window.take(video)
        key = (sha256_bytes(np.ascontiguousarray(frames).data), frames.shape, pipe.vae.use_tiling, pipe.vae.dtype)
        if key not in pipe.control_latents:
            while len(pipe.control_latents) >= KEPT_WINDOWS:
                pipe.control_latents.pop(next(iter(pipe.control_latents)))
            pipe.control_latents[key] = vae_stage.encode(pipe.vae, frames).cpu()
            pipe.stats.skeleton_frames += window.length
        return pipe.control_latents[key]

    def _step(self, loop: sampler.Loop, index: int, timestep: int, tensors: dict[str, Tensor]) -> Tensor | None:
        self.pipe.stats.evaluations += loop.evaluated
        self.tick()
        return self.on_step(index, timestep, tensors)


@dataclass(frozen=True)
class _Piece:
    """One window's frames of one take: uint8 RGB (T, H, W, 3); and for "pt" float32 (T, 3, H, W) in [0, 1]."""

    frames: np.ndarray
    unit: Tensor | None

    def without_first(self) -> _Piece:
        return _Piece(self.frames[1:], None if self.unit is None else self.unit[1:])
