# SPDX-License-Identifier: Apache-2.0
"""First frames and Skeletons as users hand them over -> checked uint8 RGB arrays. Pictures' sizes change in `fit` only."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core import video
from retake.core.errors import InputError, SkeletonError
from retake.core.skeleton import open_skeleton
from retake.core.skeleton.record import RECORD

from .fit import FitRecord, plan_fit

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_first_frame(value: Any, what: str = "the first frame") -> Any:
    """A path becomes a PIL image; arrays and PIL images pass. Raises InputError."""
    if isinstance(value, (str, os.PathLike)):
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(value) as image:
                return image.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"cannot read {what} {value}: {error}") from None
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
    """uint8 RGB (T, H, W, 3) from an array, a list of frames, or a path (see `read_video`). Raises InputError."""
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
    """Frames at a path as uint8 RGB (T, H, W, 3): a video, `.npy`, `.npz`, a Skeleton folder, or a folder of pictures.

    `.npz` needs one array, or one named `skeleton`. Pictures are taken in the order of the numbers in their names.
    Raises InputError, also for a file that holds fewer frames than it states.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise InputError(f"no skeleton at {path}; give a video, .npy, .npz, or a folder of frames")
    if path.suffix in (".npy", ".npz"):
        return _read_numpy(path)
    try:
        frames = list(video.read_video(path))
    except InputError as error:
        raise InputError(f"{path} is no readable video, or was cut short ({error})") from None
    if not frames:
        raise InputError(f"{path} is no readable video: it holds no frame")
    capture = cv2.VideoCapture(str(path))
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # from the header; in some containers off by one
    capture.release()
    if len(frames) < stated - 1:
        raise InputError(f"{path} was cut short: it states {stated} frames and holds {len(frames)}")
    return np.stack(frames)


def _read_numpy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            name = "skeleton" if "skeleton" in loaded.files else loaded.files[0] if len(loaded.files) == 1 else None
            if name is None:
                raise InputError(f"{path} holds {', '.join(loaded.files)}; it needs an array named skeleton")
            return loaded[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _read_folder(path: Path) -> np.ndarray:
    if (path / RECORD).is_file():
        try:
            return np.stack(list(open_skeleton(path).frames()))
        except SkeletonError as error:
            raise InputError(str(error)) from None
    pictures = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES), key=_by_number)
    if not pictures:
        raise InputError(f"{path} holds neither {RECORD} nor pictures ({', '.join(PICTURE_SUFFIXES)})")
    return read_skeleton([np.asarray(read_first_frame(picture, "the skeleton frame")) for picture in pictures])


def _by_number(path: Path) -> list[Any]:
    """Sort key in which frame_9 comes before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _is_pil(image: Any) -> bool:
    return hasattr(image, "convert") and hasattr(image, "resize")


def _check_rgb(array: np.ndarray, rank: int, what: str, wanted: str) -> None:
    if array.dtype != np.uint8:
        raise InputError(f"{what} holds {array.dtype}; give uint8 RGB {wanted}, 0 to 255")
    if array.ndim != rank or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"{what} has shape {array.shape}; expected {wanted}")
