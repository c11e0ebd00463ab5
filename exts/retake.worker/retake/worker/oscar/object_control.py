# SPDX-License-Identifier: Apache-2.0
"""Objects in the control of a model tuned to read them (docs/tune.md), on the Skeleton video, or in one of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode
from retake.core.errors import InputError
from retake.core.export.physics import physics_arrays
from retake.core.files import read_json
from retake.core.lens import lens_of
from retake.core.skeleton.objects import ObjectTrack, draw_objects


def object_control_of(folder: Path) -> str:
    """What the `tuned.json` of a model or LoRA folder says: "none" (also without one), "drawn" or "embed"."""
    record = folder / "tuned.json"
    return str(read_json(record)["settings"]["step"]["objects"]["control"]) if record.is_file() else "none"


def drawn_on(skeleton: np.ndarray, glyphs: np.ndarray) -> np.ndarray:
    """A Skeleton video with glyphs (from `object_video`, on black) over it; both uint8 RGB (T, H, W, 3)."""
    return np.where(glyphs.any(axis=-1, keepdims=True), glyphs, skeleton)


def object_tracks(arrays: Any, movable: np.ndarray) -> tuple[ObjectTrack, ...]:
    """Boxes and poses of these objects (indices) of a physics.npz."""
    return tuple(
        ObjectTrack(arrays["T_world_object"][:, o], arrays["object_sizes_m"][o], arrays["object_centers_m"][o])
        for o in movable
    )


def control_of_episode(episode: Episode, camera: str, start: int, frames: int) -> np.ndarray:
    """The object control video of a simulated episode as a model that was tuned with one reads it: uint8 RGB (T, H, W, 3).

    At the camera's own size, on black; masks are not needed. Raises InputError where nothing movable is there to draw.
    """
    arrays = physics_arrays(episode, camera, start, frames)
    movable = np.flatnonzero(arrays["object_movable"])
    if not len(movable):
        raise InputError(
            "this model reads its objects from a control video, and the episode has no movable object; use one without"
        )
    width, height = episode.header.camera(camera).size
    lens = (
        lens_of(str(arrays["camera_lens_model"]), arrays["camera_distortion"])
        if "camera_lens_model" in arrays
        else None
    )
    black = np.zeros((frames, height, width, 3), np.uint8)
    tracks = list(object_tracks(arrays, movable))
    return np.stack(list(draw_objects(black, tracks, arrays["camera_intrinsic"], arrays["T_camera_world"], lens)))
