# SPDX-License-Identifier: Apache-2.0
"""CPU backend `reproject`: another camera's take, seen from this one. Every pixel is a point of the simulated world; where
the anchor's camera shows that point, its filmed colour is taken, frame by frame; elsewhere the composite's.

For cameras that a video model cannot follow: too little of the robot's skeleton is in their view.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import open_episode
from retake.core.errors import TakeError
from retake.core.painter.composite import CompositeBackend
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.takes.base import TakeRequest
from retake.core.takes.make import open_take, window
from retake.core.variants.base import source_frame
from retake.core.variants.carry import carry
from retake.core.video import read_video


class ReprojectBackend:
    """The anchor's take by simulated geometry. The setting `take` names the anchor's take folder."""

    name = "reproject"
    version = "1"
    domain = "reprojected"
    licence = "Apache-2.0"
    model = ""
    revision = ""
    parallel = True
    reads_seed = False

    def further_inputs(self, request: TakeRequest) -> dict[str, str]:
        """The hash of the anchor's video. Raises TakeError without the anchor's take."""
        if not request.settings.get("take"):
            raise TakeError("backend 'reproject' needs the setting `take`: the folder of the take that it looks at")
        anchor = {"anchor": open_take(Path(request.settings["take"])).video_sha256}
        return {**anchor, **CompositeBackend().further_inputs(request)}

    def generate(
        self, request: TakeRequest, progress: Progress = silent, check_cancel: CheckCancel = never
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB frames at the episode's rate. Raises TakeError without the anchor's take, or for one of another window."""
        self.further_inputs(request)
        anchor = open_take(Path(request.settings["take"]))
        episode = open_episode(request.episode)
        indices = window(episode, request)
        if anchor.inputs.get("episode") != episode.content_sha256 or anchor.start != request.start:
            raise TakeError(
                f"{anchor.folder} shows another episode or window than {request.episode} from {request.start}"
            )
        if anchor.frames < len(indices):
            raise TakeError(f"{anchor.folder} has {anchor.frames} frames; {len(indices)} are asked for")
        size = episode.header.camera(anchor.camera).size
        if tuple(anchor.size) != tuple(size):
            raise TakeError(
                f"{anchor.folder} is {anchor.size[0]}x{anchor.size[1]}, its camera {size[0]}x{size[1]}: it cannot be laid over"
            )
        filmed = read_video(anchor.video)
        for index, behind in zip(indices, CompositeBackend().generate(request, progress, check_cancel), strict=True):
            check_cancel()
            found = carry(
                source_frame(episode, anchor.camera, index), np.ascontiguousarray(next(filmed)),
                source_frame(episode, request.camera, index),
            )  # fmt: skip
            yield np.where(found.known[..., None], found.frame, behind)
