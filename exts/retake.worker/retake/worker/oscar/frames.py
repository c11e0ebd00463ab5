# SPDX-License-Identifier: Apache-2.0
"""First frames and Skeletons as users hand them over -> checked uint8 RGB arrays. Pictures' sizes change in `fit` only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.errors import InputError

from .fit import FitRecord, plan_fit

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")


def read_first_frame(value: Any) -> Any:
    """A path becomes a PIL image; arrays and PIL images pass. Raises InputError."""
    if isinstance(value, (str, os.PathLike)):
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(value) as image:
                return image.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"cannot read the first frame {value}: {error}") from None
    return value


def first_frame_list(value: Any) -> list[Any]:
    """One image or a list of N -> a list of PIL images or uint8 arrays (H, W, 3). Raises InputError."""
    if isinstance(value, (list, tuple)):
        images = [read_first_frame(item) for item in value]
    elif isinstance(value, np.ndarray) and value.ndim == 4:
        images = list(value)
    else:
        images = [read_first_frame(value)]
    if not images:
        raise InputError("first_frame is an empty list; give one image or one per take")
    for image in images:
        if not _is_pil(image):
            _check_rgb(np.asarray(image), 3, "first_frame", "(H, W, 3)")
    return images


def fit_first_frame(image: Any, size: tuple[int, int], mode: str) -> tuple[np.ndarray, "FitRecord"]:
    """One first frame -> uint8 (H, W, 3) at `size` = (width, height), and the record of how.

    OSCAR resizes image files with PIL's bilinear filter and arrays with OpenCV's; so do we, by type.
    """
    if not _is_pil(image):
        array = np.asarray(image)
        record = plan_fit((array.shape[1], array.shape[0]), size, mode, "first_frame")
        return record.apply(array[None])[0], record
    from PIL import Image

    image = image.convert("RGB")
    record = plan_fit(image.size, size, mode, "first_frame")
    x, y, w, h = record.crop
    left, top, width, height = record.paste
    part = image.crop((x, y, x + w, y + h))
    if part.size != (width, height):
        part = part.resize((width, height), Image.Resampling.BILINEAR)
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[top : top + height, left : left + width] = np.asarray(part)
    return canvas, record


def read_skeleton(value: Any) -> np.ndarray:
    """uint8 RGB (T, H, W, 3) from an array, a list of frames, or a path (.npy, .npz or a video). Raises InputError."""
    if isinstance(value, (str, os.PathLike)):
        value = read_video(Path(value))
    elif isinstance(value, Sequence):
        if not value:
            raise InputError("the skeleton is empty; give at least one frame")
        shapes = {np.asarray(frame).shape for frame in value}
        if len(shapes) != 1:
            raise InputError(f"the skeleton's frames differ in shape: {sorted(shapes)}")
        value = np.stack([np.asarray(frame) for frame in value])
    array = np.asarray(value)
    if array.size == 0:
        raise InputError(f"the skeleton is empty (shape {array.shape}); give at least one frame (T, H, W, 3)")
    _check_rgb(array, 4, "skeleton", "(T, H, W, 3)")
    return array


def read_video(path: Path) -> np.ndarray:
    """Frames of a file as uint8 RGB (T, H, W, 3). `.npz` needs one array, or one named `skeleton`. Raises InputError."""
    if not path.is_file():
        raise InputError(f"no skeleton at {path}")
    if path.suffix in (".npy", ".npz"):
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from None
        if isinstance(loaded, np.ndarray):
            return loaded
        name = "skeleton" if "skeleton" in loaded.files else loaded.files[0] if len(loaded.files) == 1 else None
        if name is None:
            raise InputError(f"{path} holds {', '.join(loaded.files)}; it needs an array named skeleton")
        return loaded[name]
    capture = cv2.VideoCapture(str(path))
    frames = []
    try:
        while True:
            more, frame = capture.read()
            if not more:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not frames:
        raise InputError(f"{path} is no readable video (tried .npy, .npz and OpenCV's formats)")
    return np.stack(frames)


def _is_pil(image: Any) -> bool:
    return hasattr(image, "convert") and hasattr(image, "resize")


def _check_rgb(array: np.ndarray, rank: int, what: str, wanted: str) -> None:
    if array.dtype != np.uint8:
        raise InputError(f"{what} holds {array.dtype}; give uint8 RGB {wanted}, 0 to 255")
    if array.ndim != rank or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"{what} has shape {array.shape}; expected {wanted}")
