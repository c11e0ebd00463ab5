# SPDX-License-Identifier: Apache-2.0
"""Objects in the control of a model tuned to read them (docs/tune.md), on the Skeleton video, or in one of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retake.core.episode import Episode
from retake.core.errors import InputError
from retake.core.export.physics import physics_arrays
from retake.core.files import read_json
from retake.core.skeleton.objects import draw_control


def object_control_of(folder: Path) -> str:
    """What the `tuned.json` of a model or LoRA folder says: "none" (also without one), "drawn" or "embed"."""
    record = folder / "tuned.json"
    return str(read_json(record)["settings"]["step"]["objects"]["control"]) if record.is_file() else "none"


def drawn_on(skeleton: np.ndarray, glyphs: np.ndarray) -> np.ndarray:
    """A Skeleton video with glyphs (from `object_video`, on black) over it; both uint8 RGB (T, H, W, 3).

    Glyphs may have been resized: every colour of theirs is 255 in one channel at least, which says how much of a pixel they
    cover. The result is what drawing on the skeleton before resizing both gives, within 1 of 255 but where strokes of both lie.
    """
    cover = glyphs.max(axis=-1, keepdims=True).astype(np.float32) / 255
    return np.minimum(np.rint(glyphs + skeleton * (1 - cover)), 255).astype(np.uint8)


def control_of_episode(episode: Episode, camera: str, start: int, frames: int) -> np.ndarray:
    """The object control video of a simulated episode as a model that was tuned with one reads it: uint8 RGB (T, H, W, 3).

    At the camera's own size, on black; masks are not needed. Raises InputError where nothing movable is there to draw.
    """
    arrays = physics_arrays(episode, camera, start, frames)
    if not np.any(arrays["object_movable"]):
        raise InputError(
            "this model reads its objects from a control video, and the episode has no movable object; use one without"
        )
    width, height = episode.header.camera(camera).size
    return np.stack(list(draw_control(np.zeros((frames, height, width, 3), np.uint8), arrays)))
