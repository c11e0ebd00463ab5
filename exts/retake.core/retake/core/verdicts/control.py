# SPDX-License-Identifier: Apache-2.0
"""Whether a take shows the glyphs that its model was given in a control video (skeleton.objects).

Only takes of models that read objects there are asked. A glyph in the picture is no part of the world, and lies exactly where
the simulation has the object: it must not help a take to pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from retake.core.array_types import Float32, Float64
from retake.core.episode import Episode
from retake.core.skeleton.objects import OBJECT_RGB, ObjectTrack, draw_objects
from retake.core.verdicts.footage import Footage, shrink
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.truth import Truth

NAME = "control_leak"
_SURROUNDINGS_PX = 3.0
"""Working px over which the surroundings of a stroke are taken to be what it would lie on."""
_FREE = 0.02
"""Cover by strokes below which a pixel counts as their surroundings."""
_WINDOW = 9
"""Frames that are taken together: outlines of the scenery come and go under a moving stroke, a glyph stays."""
_LEAST_PX = 20.0
"""Working px that a glyph's strokes must cover to be asked about."""


NOT_SHOWN = Measurement(
    NAME, None, "the video model was shown no objects in its control video", applies=False, absent=True
)
"""Of all other takes."""


def measure_leak(footage: Footage, truth: Truth, episode: Episode, camera: str) -> Measurement:
    """control_leak: opacity of the most visible glyph, 0 (none) to 1 (as drawn); the highest mean over nine frames."""
    movable = [spec.name for spec in episode.header.objects if spec.movable]
    series = np.full((max(len(movable), 1), len(footage)), np.nan)
    for t, covers in enumerate(_covers(truth, episode, camera)):
        picture = footage.frames[t].astype(np.float32)
        beside = _surroundings(picture, (np.max(covers, axis=0) < _FREE).astype(np.float32))
        for k, cover in enumerate(covers):
            if cover.sum() >= _LEAST_PX:
                series[k, t] = _opacity(picture, beside, cover, OBJECT_RGB[k % len(OBJECT_RGB)])
    lasting = np.stack([_lasting(row) for row in series])
    if not np.isfinite(lasting).any():
        why = "no object is in the picture for long enough"
        return Measurement(NAME, None, why, applies=False, absent=not movable)
    k, frame = divmod(int(np.nanargmax(lasting)), lasting.shape[1])
    return Measurement(NAME, float(lasting[k, frame]), f"of {movable[k]}", frame, series=lasting[k])


def _covers(truth: Truth, episode: Episode, camera: str) -> Iterator[list[Float32[np.ndarray, "h w"]]]:
    """Per frame of the take, the share of each working pixel that each object's strokes cover."""
    spec, window = episode.header.camera(camera), slice(truth.start, truth.start + len(truth))
    K, T_camera_world = (matrix[window] for matrix in episode.camera_matrices(camera))
    black = np.zeros((spec.size[1], spec.size[0], 3), np.uint8)
    drawn = []
    for o, one in enumerate(episode.header.objects):
        if one.movable:
            track = ObjectTrack(episode.object_poses[window, o], np.array(one.size_m), np.array(one.center_m))
            drawn.append(draw_objects((black for _ in range(len(truth))), [track], K, T_camera_world, spec.lens))
    for glyphs in zip(*drawn, strict=True):
        yield [shrink(glyph, truth.size).max(-1).astype(np.float32) / 255 for glyph in glyphs]


def _surroundings(
    picture: Float32[np.ndarray, "h w 3"], free: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """What lies around each pixel, strokes left out."""
    weight = cv2.GaussianBlur(free, (0, 0), _SURROUNDINGS_PX)
    return cv2.GaussianBlur(picture * free[..., None], (0, 0), _SURROUNDINGS_PX) / np.maximum(weight, 1e-4)[..., None]


def _opacity(
    picture: Float32[np.ndarray, "h w 3"], beside: Float32[np.ndarray, "h w 3"], cover: Float32[np.ndarray, "h w"],
    colour: tuple[int, int, int],
) -> float:  # fmt: skip
    """Least-squares share of the stroke's colour in what the picture has there beyond its surroundings.

    Of a coloured glyph the hue alone counts: outlines of real things differ in brightness first.
    """
    where = cover > 0
    there = picture[where] - beside[where]
    stroke = cover[where][:, None] * (np.array(colour, np.float32) - beside[where])
    if len(set(colour)) > 1:
        there, stroke = (a - a.mean(-1, keepdims=True) for a in (there, stroke))
    return float((there * stroke).sum() / max(float((stroke * stroke).sum()), 1e-6))


def _lasting(row: Float64[np.ndarray, "T"]) -> Float64[np.ndarray, "T"]:
    """Means over nine frames (all, where there are fewer) around each frame; NaN where fewer than half have a value."""
    width = min(_WINDOW, len(row))
    known = np.isfinite(row)
    kernel = np.ones(width)
    count = np.convolve(known, kernel, "same")
    total = np.convolve(np.where(known, row, 0.0), kernel, "same")
    return np.where(count >= (width + 1) // 2, total / np.maximum(count, 1), np.nan)
