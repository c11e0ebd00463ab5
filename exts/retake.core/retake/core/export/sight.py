# SPDX-License-Identifier: Apache-2.0
"""What a camera's instance ids say of every frame: pixels per id, and box and a point of every object."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64, Int
from retake.core.episode import Episode, open_episode


@dataclass(frozen=True)
class Sight:
    """One camera of one episode, px of the captured picture."""

    pixels: Int[np.ndarray, "T I"]
    """Pixels per frame and instance id."""
    boxes: Float64[np.ndarray, "T O 4"]
    """x0, y0, x1, y1 of every object's pixels, x1 and y1 exclusive; -1 where it has none."""
    points: Float64[np.ndarray, "T O 2"]
    """Centre of the object's own pixel that is nearest to the middle of all of them; -1 where it has none."""

    def of(self, ids: tuple[int, ...]) -> Int[np.ndarray, "T"]:
        """Pixels per frame of several ids together."""
        known = [i for i in ids if i < self.pixels.shape[1]]
        return self.pixels[:, known].sum(axis=1)


def sight_of(episode: Episode, camera: str) -> Sight | None:
    """Of a camera that recorded instance ids; None for others. Read once per episode and camera."""
    if "instances" not in episode.header.camera(camera).channels:
        return None
    return _sight(episode.path, episode.content_sha256, camera)


@functools.lru_cache(maxsize=16)
def _sight(path: Path, content: str, camera: str) -> Sight:
    episode = open_episode(path)
    header = episode.header
    ids = [[i.id for i in header.instances if i.owner == f"object:{o.name}"] for o in header.objects]
    largest = max((i.id for i in header.instances), default=0)
    pixels = np.zeros((len(episode), largest + 1), np.int64)
    boxes = np.full((len(episode), len(ids), 4), -1.0)
    points = np.full((len(episode), len(ids), 2), -1.0)
    for k in range(len(episode)):
        image = episode.image(camera, "instances", k)
        pixels[k] = np.bincount(np.minimum(image, largest + 1).ravel(), minlength=largest + 2)[: largest + 1]
        for o, mine in enumerate(ids):
            if not pixels[k, mine].any():
                continue
            y, x = np.nonzero(np.isin(image, mine))
            boxes[k, o] = x.min(), y.min(), x.max() + 1, y.max() + 1
            middle = int(np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2))
            points[k, o] = x[middle] + 0.5, y[middle] + 0.5
    return Sight(pixels, boxes, points)
