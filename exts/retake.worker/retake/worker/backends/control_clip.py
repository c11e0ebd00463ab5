# SPDX-License-Identifier: Apache-2.0
"""Control videos for video-to-video models, from the simulator's own maps: edges, blur, depth, segments.

Bytes are what published control models expect: edges white, near bright, one colour per object. What is scaled (depth) is
scaled once over the whole clip, so that nothing breathes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.errors import InputError, TakeError, VariantError, unknown_name
from retake.core.progress import CheckCancel, never
from retake.core.variants.base import SourceFrame, source_frame
from retake.core.variants.controls import segment_colours

CONTROLS = ("edge", "blur", "depth", "seg")
BLUR_SHARE = 1 / 24
"""The blur's sigma as a share of the picture's height: shapes and colours stay, texture and light detail go."""


def control_clip(
    episode: Episode, camera: str, indices: Sequence[int], control: str, check_cancel: CheckCancel = never
) -> UInt8[np.ndarray, "T H W 3"]:
    """One control video of these frames of a camera.

    Raises InputError for an unknown control, TakeError where the episode lacks the map that it is made from.
    """
    if control not in CONTROLS:
        raise InputError(unknown_name("control", control, CONTROLS))
    if not indices:
        raise TakeError("a control video needs at least one frame")
    frames = []
    for index in indices:
        check_cancel()
        try:
            frames.append(source_frame(episode, camera, index))
        except VariantError as error:
            raise TakeError(f"control {control!r} is made from the episode's maps: {error}") from error
    if control == "depth":
        return _depth(frames)
    draw: Callable[[SourceFrame], np.ndarray] = {"edge": _edge, "blur": _blur, "seg": _segments}[control]
    return np.stack([draw(frame) for frame in frames])


def _edge(frame: SourceFrame) -> np.ndarray:
    grey = cv2.GaussianBlur(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    return np.repeat(cv2.Canny(grey, 50, 120)[..., None], 3, axis=2)


def _blur(frame: SourceFrame) -> np.ndarray:
    return cv2.GaussianBlur(frame.rgb, (0, 0), max(1.0, frame.rgb.shape[0] * BLUR_SHARE))


def _segments(frame: SourceFrame) -> np.ndarray:
    return segment_colours()[frame.instance_ids]


def _depth(frames: Sequence[SourceFrame]) -> np.ndarray:
    """Inverse forward depth, 255 nearest of the whole clip, 1 farthest, 0 nothing hit."""
    depth = np.stack([frame.depth_m for frame in frames])
    hit = depth > 0
    if not hit.any():
        raise TakeError("control 'depth': no pixel of these frames has a depth; capture the episode with depth")
    inverse = 1.0 / np.maximum(depth, 1e-6)
    low, high = np.percentile(inverse[hit], 1), inverse[hit].max()
    scaled = 1 + 254 * (inverse - low) / max(high - low, 1e-9)
    grey = np.where(hit, np.clip(scaled, 1, 255), 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)
