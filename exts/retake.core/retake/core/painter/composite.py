# SPDX-License-Identifier: Apache-2.0
"""CPU backend `composite`: the physically exact baseline. The motion, the grasp and the fall are the simulator's own.

A variant of the procedural backend is re-dressed frame by frame with the very same function, so frame 0 is the variant
frame and the background stands still. Over any other first frame (a diffusion model's, a photograph) the simulated
robot and objects are matted (`matting`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import TakeError, VariantError
from retake.core.files import read_json, sha256_json
from retake.core.painter.matting import VERSION as MATTE_VERSION
from retake.core.painter.matting import Matte
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.stills import beside, stills_beside
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD
from retake.core.takes.base import TakeRequest
from retake.core.takes.make import window
from retake.core.variants.base import SourceFrame, source_frame
from retake.core.variants.make import open_variant, read_frame

AHEAD = 2
"""Frames decoded ahead: decoding and drawing overlap, memory stays at a few frames."""
SAME_DB = 40.0
"""A re-rendered first frame at least this close to the variant's (another CPU may round differently) is the same."""


class CompositeBackend:
    """Robot and objects from the simulation, world from the variant. Needs the episode, whose camera needs all maps."""

    name = "composite"
    version = "1"
    domain = "composite"
    licence = "Apache-2.0"
    model = ""
    revision = ""
    parallel = True
    reads_seed = False
    """The world is drawn from the variant's own seed: takes of several seeds would be one video several times."""

    def further_inputs(self, request: TakeRequest) -> dict[str, str]:
        """Over a first frame that was painted: how it is matted, and the frames of the world's other cameras."""
        if open_variant(request.variant).backend == ProceduralBackend.name:
            return {}
        return {"matte": sha256_json([MATTE_VERSION, [v.frame_sha256 for v, _ in beside(request.variant)]])}

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB frames at the episode's rate. Raises TakeError for a window outside the episode or a foreign variant."""
        episode = open_episode(request.episode)
        indices = window(episode, request)
        variant = open_variant(request.variant)
        first = read_frame(request.variant / VARIANT_FRAME)
        width, height = episode.header.camera(request.camera).size
        if first.shape != (height, width, 3):
            raise TakeError(
                f"{request.variant / 'frame.png'} is {first.shape[1]}x{first.shape[0]}; camera {request.camera!r} of "
                f"{request.episode} is {width}x{height}: a composite needs the same size"
            )
        try:
            reference = source_frame(episode, request.camera, indices[0])
        except VariantError as error:
            raise TakeError(f"a composite take is not possible: {error}") from error
        draw: Callable[[SourceFrame], np.ndarray] | None = None
        made_from = (variant.source.get("episode_sha256"), variant.source.get("camera"), variant.source.get("frame"))
        if variant.backend == "procedural" and made_from == (episode.content_sha256, request.camera, indices[0]):
            recipe = read_json(request.variant / VARIANT_RECORD).get("recipe")
            dresser = ProceduralBackend().dresser(reference, variant.world, variant.seed, recipe)
            if psnr(dresser.render(reference), first) < SAME_DB:
                raise TakeError(
                    f"{request.variant} was drawn by another version of the procedural backend (it states "
                    f"{variant.backend_version}, this is {ProceduralBackend.version}); make the variant again"
                )
            draw = dresser.render
        if draw is None:
            draw = Matte(reference, first, stills_beside(request.variant, episode, reference)).render
        total = len(indices)
        progress(0, total, "")
        for count, source in enumerate(_ahead(episode, request.camera, indices, reference)):
            check_cancel()
            yield first if count == 0 else draw(source)
            progress(count + 1, total, "")


def psnr(a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]) -> float:
    """Peak signal-to-noise ratio of two byte images, dB; infinite when equal."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _ahead(episode: Episode, camera: str, indices: range, first: SourceFrame) -> Iterator[SourceFrame]:
    """Source frames in order, decoded a little ahead on one thread (OpenCV releases the interpreter lock)."""
    yield first
    with ThreadPoolExecutor(1, thread_name_prefix="take-reader") as pool:
        waiting: deque[Future[SourceFrame]] = deque()
        rest = iter(indices[1:])
        try:
            for index in rest:
                waiting.append(pool.submit(source_frame, episode, camera, index))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
