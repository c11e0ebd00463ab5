# SPDX-License-Identifier: Apache-2.0
"""An episode whose images of geometry are decoded once for all checks of a take: several of them ask about the same frames."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from retake.core.episode import CameraFrame, Episode

_KEPT = ("depth", "instances")
_MOST_BYTES = 128 * 2**20
"""Of images that are kept; of larger ones those that are asked for first."""


@dataclass(frozen=True, eq=False)
class _ReadOnce(Episode):
    """See the module. Made by `read_once`."""

    original: Episode
    kept: dict[tuple[str, str, int], np.ndarray]

    @property
    def staging(self) -> str:
        """The original's."""
        return self.original.staging

    def image(self, camera: str, channel: str, index: int) -> np.ndarray:
        """As the original's. Whoever asks for one of `_KEPT` gets what others get: it cannot be written to."""
        key = (camera, channel, range(len(self))[index])
        if key in self.kept:
            return self.kept[key]
        image = self.original.image(camera, channel, index)
        if channel in _KEPT and sum(known.nbytes for known in self.kept.values()) + image.nbytes <= _MOST_BYTES:
            image.flags.writeable = False
            self.kept[key] = image
        return image

    def camera_frame(self, camera: str, index: int) -> CameraFrame:
        """The original's."""
        return self.original.camera_frame(camera, index)


def read_once(episode: Episode) -> Episode:
    """The same episode; what it keeps goes with it."""
    return _ReadOnce(**{f.name: getattr(episode, f.name) for f in fields(Episode)}, original=episode, kept={})
