# SPDX-License-Identifier: Apache-2.0
"""What the simulator knows of objects, on the grid that the model learns on.

A latent cell covers 8 x 8 pixels and, after the first frame, four frames: an object's share of a cell is the mean of its
mask over those pixels and frames, as the VAE strides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from retake.core.errors import InputError
from retake.core.export.physics import NEVER, unpack_masks
from retake.core.lens import Lens, lens_of
from retake.core.skeleton.objects import ObjectTrack, draw_objects, object_tracks

from ..oscar.fit import FitRecord, plan_fit
from ..oscar.vae import SPACE_STRIDE, TIME_STRIDE, latent_frames
from .config import ObjectSupervision


@dataclass(frozen=True)
class ObjectTruth:
    """Simulated objects over the T frames of a sample, from its physics.npz.

    Attributes:
        masks: bool (T, O, H, W) at the picture's size. free: bool (T, O): between release and settling.
        tracks: boxes and poses. K: (T, 3, 3). T_camera_world: (T, 4, 4).
    """

    names: tuple[str, ...]
    masks: np.ndarray
    free: np.ndarray
    tracks: tuple[ObjectTrack, ...]
    K: np.ndarray
    T_camera_world: np.ndarray
    lens: Lens | None = None
    canvas: tuple[str, ...] = ()
    """Cameras that share one picture (`--format oscar-canvas`), the one of K and T_camera_world first; else none."""


def read_truth(arrays: Any, frames: int, size: tuple[int, int]) -> ObjectTruth:
    """Movable objects of a physics.npz (or of `physics_arrays`), for a video of `frames` frames and (width, height).

    Raises InputError where there is no movable object, no mask, or the file belongs to another sample.
    """
    movable = (
        np.flatnonzero(np.asarray(arrays["object_movable"], bool)) if "object_movable" in arrays else np.zeros(0, int)
    )
    if not len(movable):
        raise InputError(
            "this sample has no movable object; object supervision needs one (leave it out, or set weight 0)"
        )
    if "object_masks" not in arrays:
        raise InputError(
            "physics.npz holds no object_masks (the camera recorded no instance ids); capture with instances, or, to have "
            "objects drawn alone, tune on `retake export --format oscar --object-control`"
        )
    masks = unpack_masks(arrays)
    found = (len(arrays["time_s"]), (masks.shape[3], masks.shape[2]))
    if found != (frames, tuple(size)):
        raise InputError(
            f"physics.npz describes {found[0]} frames of {found[1][0]}x{found[1][1]}, the video has {frames} of "
            f"{size[0]}x{size[1]}: it belongs to another sample"
        )
    free = free_fall(arrays, frames)[:, movable]
    names = tuple(str(arrays["object_names"][o]) for o in movable)
    return ObjectTruth(
        names,
        masks[:, movable],
        free,
        object_tracks(arrays),
        np.asarray(arrays["camera_intrinsic"]),
        np.asarray(arrays["T_camera_world"]),
        lens_of(str(arrays["camera_lens_model"]), arrays["camera_distortion"])
        if "camera_lens_model" in arrays
        else None,
        tuple(map(str, arrays["canvas_cameras"])) if "canvas_cameras" in arrays else (),
    )


def free_fall(arrays: Any, frames: int) -> np.ndarray:
    """Bool (T, O): frames between an object's release and its settling (or the end), of all objects of a physics.npz."""
    index = np.arange(frames)[:, None]
    release, settled = (np.asarray(arrays[f"{name}_frame"]) for name in ("release", "settled"))
    ends = np.where(settled == NEVER, frames, settled)
    return (release != NEVER) & (index >= release) & (index <= ends)


def pool_cells(cover: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask or weight (T, H, W), T = 1 + 4k -> its mean over each latent cell, float32 (1 + k, h, w), at (width, height)."""
    width, height = size
    count = latent_frames(len(cover))
    small = np.stack(
        [
            cv2.resize(
                frame.astype(np.float32), (width // SPACE_STRIDE, height // SPACE_STRIDE), interpolation=cv2.INTER_AREA
            )
            for frame in cover
        ]
    )
    later = small[1:].reshape(count - 1, TIME_STRIDE, *small.shape[1:]).mean(axis=1)
    return np.concatenate([small[:1], later])


def object_cells(
    truth: ObjectTruth, window: slice, length: int, size: tuple[int, int], fit: str = "squeeze"
) -> tuple[np.ndarray, np.ndarray]:
    """Of frames `window`, freeze-padded to `length`: how much objects cover each cell, and how much those in free fall do.

    Masks come to `size` as the pictures do, by `fit`. Float32 (T_latent, h, w) each, 0 to 1.
    """
    masks, free = truth.masks[window], truth.free[window]
    pad = length - len(masks)
    masks, free = (np.concatenate([a, np.repeat(a[-1:], pad, axis=0)]) if pad else a for a in (masks, free))
    falling = (masks & free[:, :, None, None]).any(axis=1)
    record = plan_fit((masks.shape[3], masks.shape[2]), size, fit, "the object masks")
    cells, fallen = (pool_cells(_fitted(np.asarray(cover), record), size) for cover in (masks.any(axis=1), falling))
    return cells, fallen


def _fitted(cover: np.ndarray, record: FitRecord) -> np.ndarray:
    """Masks (T, H, W) cropped and pasted as pictures are; what they fill the whole picture with is left to be pooled."""
    x, y, w, h = record.crop
    part, (left, top, width, height) = cover[:, y : y + h, x : x + w], record.paste
    if (width, height) == record.target:
        return part
    placed = np.zeros((len(cover), record.target[1], record.target[0]), np.float32)
    for frame, canvas in zip(part, placed, strict=True):
        canvas[top : top + height, left : left + width] = cv2.resize(
            frame.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
    return placed


def loss_weight(cells: Tensor, falling: Tensor, settings: ObjectSupervision) -> Tensor | None:
    """Coverages (B, T, h, w) -> factor on the squared error (B, 1, T, h, w): 1 + weight * coverage, boosted in free fall."""
    if not settings.weight:
        return None
    boosted = cells + (settings.release_boost - 1) * falling
    return (1 + settings.weight * boosted)[:, None]


def object_video(truth: ObjectTruth, skeleton: np.ndarray | None) -> np.ndarray:
    """The objects' glyphs on the Skeleton video, or on black without one: uint8 RGB (T, H, W, 3).

    Raises InputError for a canvas of several cameras: glyphs are drawn through one.
    """
    if truth.canvas:
        raise InputError(
            f"this sample shows the cameras {', '.join(truth.canvas)} on one picture, and objects are drawn through one camera: "
            "export them drawn (--format oscar-canvas --object-control), or tune on canvases with their weight alone"
        )
    height, width = truth.masks.shape[2:]
    canvas = np.zeros((len(truth.masks), height, width, 3), np.uint8) if skeleton is None else skeleton
    return np.stack(list(draw_objects(canvas, list(truth.tracks), truth.K, truth.T_camera_world, truth.lens)))


def shuffled(cells: Tensor, generator: torch.Generator) -> Tensor:
    """Coverages with their places permuted within each frame: the control that tells supervision from mere weighting."""
    flat = cells.flatten(-2)
    order = torch.randperm(flat.shape[-1], generator=generator)
    return flat[..., order].reshape(cells.shape)
