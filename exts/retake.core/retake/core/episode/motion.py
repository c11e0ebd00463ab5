# SPDX-License-Identifier: Apache-2.0
"""Motion vectors of an episode's pictures, from simulated state alone: no renderer need tell them.

A renderer's own motion vectors span two *rendered* frames, in a unit that its documentation leaves open; these span two
frames of the episode, in pixels, and exist for every camera that records depth and instances.
"""

from __future__ import annotations

import numpy as np

from retake.core.array_types import Float32
from retake.core.episode.parts import rigid_parts
from retake.core.episode.reader import Episode
from retake.core.errors import EpisodeError, unknown_name
from retake.core.geometry import inverse


def motion_px(episode: Episode, camera: str, index: int, to: int | None = None) -> Float32[np.ndarray, "H W 2"]:
    """Where each pixel's surface goes from frame `index` to frame `to` (the next one if None): (x right, y down), px.

    NaN where nothing was hit, where the surface comes to lie behind the camera, and beyond a lens's calibration. A pixel
    whose surface is hidden in frame `to`, or leaves the picture, has its motion all the same. Raises EpisodeError for a
    camera without depth or instances, and IndexError for a frame that the episode does not have.
    """
    spec = episode.header.camera(camera)
    for channel in ("depth", "instances"):
        if channel not in spec.channels:
            raise EpisodeError(
                unknown_name(f"motion needs a channel that camera {camera!r} records", channel, spec.channels)
            )
    begin = range(len(episode))[index]
    end = range(len(episode))[begin + 1 if to is None else to]
    depth = episode.image(camera, "depth", begin).astype(np.float64)
    _, table, poses = rigid_parts(episode)
    part = table[episode.image(camera, "instances", begin)]
    # Of scenery nothing moves; of part p what its pose did between the two frames.
    moved = np.concatenate([np.eye(4)[None], poses[end] @ inverse(poses[begin])])
    before, after = episode.camera(camera, begin), episode.camera(camera, end)
    at = before.pixel_grid()
    hit = (depth > 0) & before.covered()
    world = before.unproject(at[hit], depth[hit])
    carried = np.einsum("nij,nj->ni", moved[part[hit]], np.concatenate([world, np.ones((len(world), 1))], 1))[:, :3]
    out = np.full((*depth.shape, 2), np.nan, np.float32)
    out[hit] = after.project(carried)[0] - at[hit]
    return out
