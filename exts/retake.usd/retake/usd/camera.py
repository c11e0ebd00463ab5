# SPDX-License-Identifier: Apache-2.0
"""UsdGeom.Camera -> K and pose in OpenCV axes, for the resolution an image is rendered at.

Pixels are square, as Omniverse renders them: fx = fy = W · focalLength / horizontalAperture, and the effective vertical
aperture is horizontalAperture · H / W whatever the prim says. Aperture offsets move the principal point:
cx = W/2 − offset_x · W / hAp, cy = H/2 + offset_y · W / hAp (USD's image y points up). Only ratios of the lens
attributes enter, so their unit (tenths of a stage unit) cancels. A calibrated lens brings its own K (`retake.usd.lens`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pxr import Usd, UsdGeom

from retake.core.array_types import Float64
from retake.core.camera import Camera
from retake.core.errors import StageError, unknown_name
from retake.core.geometry import CV_FROM_USD, inverse
from retake.core.lens import Lens
from retake.usd.lens import read_calibration
from retake.usd.stage import body_of, notable_prims, stage_name, start_time, time_at
from retake.usd.units import StageUnits, world_pose


@dataclass(frozen=True)
class StageCamera:
    """A camera prim read for one image size."""

    prim_path: str
    K: Float64[np.ndarray, "3 3"]
    """px; pixel centres at +0.5."""
    size: tuple[int, int]
    """(width, height), px."""
    T_world_camera: Float64[np.ndarray, "4 4"]
    """Pose at the time it was read, OpenCV axes, m."""
    near_far_m: tuple[float, float]
    body_path: str | None
    """Prim path of the rigid body that carries the camera; None for a fixed camera."""
    T_body_camera: Float64[np.ndarray, "4 4"]
    """Camera in that body's frame (in the world frame for a fixed camera), OpenCV axes, m."""
    lens: Lens | None = None
    """Distortion of its pictures; None = a pinhole."""
    frames: tuple[StageCamera, ...] = ()
    """The camera at each frame, where pose or lens change with time; empty = they never do."""

    def at(self, frame: int) -> StageCamera:
        """The camera at a frame (the last known one after the end)."""
        return self.frames[min(frame, len(self.frames) - 1)] if self.frames else self

    def camera(self, T_world_body: Float64[np.ndarray, "4 4"] | None = None) -> Camera:
        """The camera with its carrier at a given pose (the pose it was read at if None)."""
        T = self.T_world_camera if T_world_body is None else T_world_body @ self.T_body_camera
        return Camera(self.K, inverse(T), self.size, self.lens)


def camera_prims(stage: Usd.Stage) -> tuple[Usd.Prim, ...]:
    """Every camera of a stage. Raises StageError when there is none."""
    found = [prim for prim in notable_prims(stage) if prim.IsA(UsdGeom.Camera)]
    if not found:
        raise StageError(f"{stage_name(stage)} has no camera; author a UsdGeom.Camera that sees the robot")
    return tuple(found)


def camera_prim(stage: Usd.Stage, path: str) -> Usd.Prim:
    """The camera at a prim path. Raises StageError naming the stage's cameras."""
    found = {str(prim.GetPath()): prim for prim in camera_prims(stage)}
    if path not in found:
        raise StageError(unknown_name("camera prim", path, found))
    return found[path]


def usable_cameras(stage: Usd.Stage) -> tuple[tuple[Usd.Prim, ...], tuple[str, ...]]:
    """Cameras that can be recorded, and a note for each that cannot. Raises StageError when there is none at all."""
    usable, notes = [], []
    for prim in camera_prims(stage):
        try:
            read_camera(prim, (640, 480))
            usable.append(prim)
        except StageError as error:
            notes.append(f"camera left out: {error}")
    if not usable:
        raise StageError(f"{stage_name(stage)} has no usable camera: {'; '.join(notes)}")
    return tuple(usable), tuple(notes)


def intrinsics(camera: UsdGeom.Camera, size: tuple[int, int], time: Usd.TimeCode) -> Float64[np.ndarray, "3 3"]:
    """K in pixels at an image size, by the prim's own lens attributes (square pixels). Raises StageError naming the prim."""
    prim = camera.GetPrim()
    focal = float(camera.GetFocalLengthAttr().Get(time))
    aperture = float(camera.GetHorizontalApertureAttr().Get(time))
    for name, value in (("focalLength", focal), ("horizontalAperture", aperture)):
        if not (np.isfinite(value) and value > 0):
            raise StageError(f"{prim.GetPath()}: {name} is {value}; expected a positive number")
    width, height = size
    per_unit = width / aperture
    offset_x = float(camera.GetHorizontalApertureOffsetAttr().Get(time))
    offset_y = float(camera.GetVerticalApertureOffsetAttr().Get(time))
    f = focal * per_unit
    return np.array([[f, 0, width / 2 - offset_x * per_unit], [0, f, height / 2 + offset_y * per_unit], [0, 0, 1.0]])


def is_animated(prim: Usd.Prim) -> bool:
    """Whether time samples change a camera's lens or pose (its own, or that of what it hangs on)."""
    if any(attribute.ValueMightBeTimeVarying() for attribute in prim.GetAttributes()):
        return True
    while (prim := prim.GetParent()) and not prim.IsPseudoRoot():
        if any(a.GetName().startswith("xformOp:") and a.ValueMightBeTimeVarying() for a in prim.GetAttributes()):
            return True
    return False


def read_animated_camera(prim: Usd.Prim, size: tuple[int, int], fps: float, frames: int) -> StageCamera:
    """A camera with what it is at every frame, where it changes with time. Raises StageError as `read_camera`."""
    camera = read_camera(prim, size)
    if not is_animated(prim):
        return camera
    stage = prim.GetStage()
    return replace(camera, frames=tuple(read_camera(prim, size, time_at(stage, k / fps)) for k in range(frames)))


def read_camera(prim: Usd.Prim, size: tuple[int, int], time: Usd.TimeCode | None = None) -> StageCamera:
    """Read a camera prim for images of `size` (width, height) at a USD time (the stage's start if None).

    Raises StageError naming the prim and what is wrong.
    """
    when = start_time(prim.GetStage()) if time is None else time
    camera = UsdGeom.Camera(prim)
    if not camera:
        raise StageError(f"{prim.GetPath()} is a {prim.GetTypeName() or 'typeless prim'}; expected a Camera")
    if (projection := camera.GetProjectionAttr().Get(when)) != UsdGeom.Tokens.perspective:
        raise StageError(f"{prim.GetPath()}: projection {projection!r} is not supported; expected 'perspective'")
    if min(size) < 1:
        raise StageError(f"{prim.GetPath()}: image size {size} must be positive (width, height)")
    calibration = read_calibration(prim, size, when)
    K = intrinsics(camera, size, when) if calibration is None else calibration.K
    units = StageUnits.of(prim.GetStage())
    between = time is not None or is_animated(prim)
    T_world_camera = world_pose(prim, units, when, between=between) @ CV_FROM_USD
    near, far = camera.GetClippingRangeAttr().Get(when)
    body = body_of(prim)
    T_world_body = np.eye(4) if body is None else world_pose(body, units, when, between=between)
    return StageCamera(
        prim_path=str(prim.GetPath()),
        K=K,
        size=(int(size[0]), int(size[1])),
        T_world_camera=T_world_camera,
        near_far_m=(float(near) * units.metres_per_unit, float(far) * units.metres_per_unit),
        body_path=None if body is None else str(body.GetPath()),
        T_body_camera=inverse(T_world_body) @ T_world_camera,
        lens=None if calibration is None else calibration.lens,
    )
