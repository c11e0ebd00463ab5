# SPDX-License-Identifier: Apache-2.0
"""What a skeleton is drawn from: the motion of each arm and of the camera, checked once at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import SkeletonError
from retake.core.lens import Lens


@dataclass(frozen=True)
class ArmTrack:
    """One arm over T frames. Raises SkeletonError when shapes disagree or a number is not finite."""

    link_positions: Float64[np.ndarray, "T L 3"]
    """Origins of the chain's links, world frame, m, end effector first, base last."""
    ee_pose: Float64[np.ndarray, "T 4 4"]
    """T_world_ee, m: +Z approaches, the fingers open along ±Y."""
    gripper_openness: Float64[np.ndarray, "T"]
    """1 = open, 0 = closed; drawn as given, not clamped."""

    def __post_init__(self) -> None:
        points = _numbers("link_positions", self.link_positions)
        if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] < 1:
            raise SkeletonError(
                f"link_positions must be (T, L, 3) m with at least one link, end effector first; found {points.shape}"
            )
        frames = points.shape[0]
        if frames < 1:
            raise SkeletonError(
                f"nothing to draw: link_positions {points.shape} holds no frame; at least one is needed"
            )
        pose = _numbers("ee_pose", self.ee_pose, (frames, 4, 4))
        _check_column_convention("ee_pose", pose)
        openness = _numbers("gripper_openness", self.gripper_openness, (frames,))
        for name, value in (("link_positions", points), ("ee_pose", pose), ("gripper_openness", openness)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.gripper_openness)


@dataclass(frozen=True)
class CameraTrack:
    """The camera over T frames; either matrix may be static (2-D) or per frame (3-D)."""

    camera_intrinsic: Float64[np.ndarray, "3 3"] | Float64[np.ndarray, "T 3 3"]
    """K in px at the drawing size; only fx, fy, cx, cy are used (no skew)."""
    camera_extrinsic: Float64[np.ndarray, "4 4"] | Float64[np.ndarray, "T 4 4"]
    """T_camera_world, OpenCV axes, m."""
    size: tuple[int, int]
    """(width, height), px."""
    lens: Lens | None = None
    """Distortion of the picture; None = a pinhole, as in the public renderer."""

    def __post_init__(self) -> None:
        for name, side in (("camera_intrinsic", 3), ("camera_extrinsic", 4)):
            value = _numbers(name, getattr(self, name))
            if value.ndim not in (2, 3) or value.shape[-2:] != (side, side):
                raise SkeletonError(f"{name} must be ({side}, {side}) or (T, {side}, {side}); found {value.shape}")
            object.__setattr__(self, name, value)
        _check_column_convention("camera_extrinsic", self.camera_extrinsic)
        object.__setattr__(self, "size", check_size(self.size))

    def check_length(self, frames: int) -> None:
        """Whether per-frame arrays cover exactly `frames` frames. Raises SkeletonError otherwise."""
        for name in ("camera_intrinsic", "camera_extrinsic"):
            value = getattr(self, name)
            if value.ndim == 3 and len(value) != frames:
                raise SkeletonError(
                    f"{name} has {len(value)} frames, the motion has {frames}; give one per frame or one for all"
                )


def check_size(size: Any) -> tuple[int, int]:
    """(width, height) as two positive ints. Raises SkeletonError."""
    try:
        width, height = (int(x) if float(x) == int(x) else -1 for x in size)
    except (TypeError, ValueError, OverflowError):
        width = height = -1
    if width < 1 or height < 1:
        raise SkeletonError(f"size must be (width, height) in whole pixels, both positive; found {size!r}")
    return width, height


def _numbers(name: str, value: Any, shape: tuple[int, ...] | None = None) -> Float64[np.ndarray, ...]:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"dtype {array.dtype}")
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise SkeletonError(f"{name} must be an array of real numbers; found {error}") from None
    if shape is not None and array.shape != shape:
        raise SkeletonError(f"{name} must have shape {shape} to match link_positions; found {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise SkeletonError(f"{name}{list(where)} is {array[where]}; every number must be finite")
    return array


def _check_column_convention(name: str, T: Float64[np.ndarray, "*n 4 4"]) -> None:
    """A transposed (row-vector) matrix would draw something plausible and wrong; its last row gives it away."""
    if np.abs(T[..., 3, :] - [0.0, 0.0, 0.0, 1.0]).max() > 1e-6:
        raise SkeletonError(
            f"{name} must end in the row (0, 0, 0, 1) (column vectors); found {T.reshape(-1, 4, 4)[0, 3].tolist()}: "
            "is it transposed, or a row-vector matrix?"
        )
