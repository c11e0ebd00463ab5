# SPDX-License-Identifier: Apache-2.0
"""Skeleton: the frozen record of a finished skeleton folder, and how one is opened and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.codec import decode
from retake.core.errors import SkeletonError
from retake.core.files import read_json, sha256_file
from retake.core.run_layout import SKELETON_OVERLAY, SKELETON_RECORD, SKELETON_VIDEO
from retake.core.skeleton.squeeze import Squeeze

SCHEMA = "retake.skeleton/1"
FRAMES, SCENARIO, OVERLAY, RECORD = "frames", SKELETON_VIDEO, SKELETON_OVERLAY, SKELETON_RECORD


@dataclass(frozen=True)
class Skeleton:
    """One camera's control video on disk (docs/skeleton.md)."""

    path: Path
    camera: str
    fps: float
    frame_count: int
    squeeze: Squeeze
    """Capture size, model size and both scales; `frames()` are at model size, the two videos at capture size."""
    arms: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(robot, gripper, link names end effector first) in drawing order."""
    motion_source: str
    episode_sha256: str
    inputs_sha256: str
    """Over episode, poses, camera, sizes and convention: what the pixels follow from."""
    pixels_sha256: str
    """Over the model-size RGB bytes of all frames in order."""
    sha256: str
    """Over inputs and pixels: the identity that every take names."""
    drawn_frames: int
    """Frames in which at least one pixel is drawn."""
    notes: tuple[str, ...] = ()
    """What a user should know, e.g. that the camera never sees the robot."""
    files: tuple[tuple[str, str], ...] = ()
    """(name, SHA-256 of the bytes) of frames/ (all files in order) and of both videos, for damage checks."""

    def __len__(self) -> int:
        return self.frame_count

    @property
    def scenario(self) -> Path:
        """The control video under OSCAR's name."""
        return self.path / SCENARIO

    @property
    def overlay(self) -> Path:
        """The strokes over the RGB."""
        return self.path / OVERLAY

    def frame(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One lossless frame, RGB uint8 at model size. Raises SkeletonError when it is missing or damaged."""
        path = self.path / FRAMES / f"{range(self.frame_count)[index]:06d}.png"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.exists() else None
        width, height = self.squeeze.model_size
        if image is None or image.shape != (height, width, 3):
            raise SkeletonError(f"{path} is missing or no readable {width}x{height} image; make the skeleton again")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def frames(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """All frames in order, one in memory at a time."""
        return (self.frame(index) for index in range(self.frame_count))

    def verify(self) -> None:
        """Whether the frames still show the recorded pixels. Raises SkeletonError otherwise."""
        digest = hashlib.sha256()
        for frame in self.frames():
            digest.update(frame.data)
        if digest.hexdigest() != self.pixels_sha256:
            raise SkeletonError(f"{self.path / FRAMES}: pixels were changed; make the skeleton again")

    def to_json(self) -> dict[str, Any]:
        """The content of skeleton.json."""
        return {
            "schema": SCHEMA,
            "sha256": self.sha256,
            "camera": self.camera,
            "fps": self.fps,
            "frame_count": self.frame_count,
            "squeeze": self.squeeze.to_json(),
            "arms": [{"robot": r, "gripper": g, "chain": list(chain)} for r, g, chain in self.arms],
            "motion_source": self.motion_source,
            "episode_sha256": self.episode_sha256,
            "inputs_sha256": self.inputs_sha256,
            "pixels_sha256": self.pixels_sha256,
            "drawn_frames": self.drawn_frames,
            "notes": list(self.notes),
            "files": dict(self.files),
        }


def open_skeleton(path: Path | str) -> Skeleton:
    """Open a finished skeleton folder. Raises SkeletonError naming the file and what was expected."""
    path = Path(path)
    record = path / RECORD
    try:
        data = read_json(record)
    except FileNotFoundError as error:
        raise SkeletonError(f"{record} is missing; {path} is no finished skeleton folder") from error
    except (OSError, ValueError) as error:
        raise SkeletonError(f"{record} is not readable JSON: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise SkeletonError(f"{record} has schema {found!r}; this version of Retake reads {SCHEMA!r}")
    try:
        arms = [[arm["robot"], arm["gripper"], arm["chain"]] for arm in data["arms"]]
        files = sorted(data["files"].items())
    except (KeyError, TypeError, AttributeError) as error:
        raise SkeletonError(f"{record} is damaged: {type(error).__name__}: {error}") from error
    known = {**data, "path": path, "arms": arms, "files": files}
    skeleton = decode(Skeleton, known, str(record), error=SkeletonError, ignore_unknown=True)
    actual = dict(hash_files(path, skeleton.frame_count))
    for name, expected in skeleton.files:
        if actual.get(name) != expected:
            raise SkeletonError(f"{path / name} was changed, cut short or removed since the skeleton was made")
    return skeleton


def hash_files(path: Path, frame_count: int) -> tuple[tuple[str, str], ...]:
    """(name, SHA-256) of the frames (one hash over all files in order) and of each video; missing files are ''."""
    digest, whole = hashlib.sha256(), True
    for index in range(frame_count):
        try:
            digest.update((path / FRAMES / f"{index:06d}.png").read_bytes())
        except OSError:
            whole = False
            break
    videos = [(name, sha256_file(path / name) if (path / name).is_file() else "") for name in (SCENARIO, OVERLAY)]
    return tuple(sorted([(FRAMES, digest.hexdigest() if whole else ""), *videos]))
