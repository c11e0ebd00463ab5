# SPDX-License-Identifier: Apache-2.0
"""The Episode's records: what one captured run is, per episode (`EpisodeHeader`) and per frame (`Frame`).

World frame: metres, Z up, right-handed. Poses `T_a_b` (4, 4) float64, column vectors. `state[t]` is what was measured
at frame t; the commanded target of frame t is what was commanded after it (the action that leads to frame t+1).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from retake.core.array_types import Float32, Float64, Int16, UInt8, UInt16
from retake.core.camera import Camera
from retake.core.codec import OMITTED, NullIs
from retake.core.errors import EpisodeError
from retake.core.geometry import is_rigid
from retake.core.lens import Lens
from retake.core.robot import RobotSpec

SCHEMA = "retake.episode/1"
LENS_SCHEMA = "retake.episode/2"
"""Of an episode with a distorted camera: a reader that knows no lens must refuse it, not take it for a pinhole's."""
MotionSource = Literal["simulated", "recorded"]
Channel = Literal["rgb", "depth", "normals", "instances"]
CHANNELS: tuple[Channel, ...] = ("rgb", "depth", "normals", "instances")
JOINT_CHANNELS = ("velocity", "effort", "target")
NORMAL_SCALE = 32767
MAX_FPS = 10_000
"""No camera is faster; a number beyond it is a mistake that would overflow later."""
MAX_INSTANCE = 65535
"""Instance images are PNG of 16 bits, and 0 means nothing."""
MISSING_GRIPPERS = "missing_grippers"
"""Of `settings`: grippers ("robot/gripper") of which a recording says nothing. Drawn open, in no dataset."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Camera and robot names become folder and field names: letters, digits, '_', '-', '.'."""


@dataclass(frozen=True)
class CameraSpec:
    """A camera of the episode. Its K and pose are per frame; `static` says that the pose never changes."""

    name: str
    prim_path: str
    size: tuple[int, int]
    """(width, height), px."""
    static: bool
    channels: tuple[Channel, ...] = CHANNELS
    """Which images each frame carries; always includes rgb."""
    near_far_m: tuple[float, Annotated[float, NullIs(math.inf)]] = (0.0, math.inf)
    lens: Annotated[Lens | None, OMITTED] = None
    """Distortion of the recorded pictures, depth and masks; None = a pinhole."""


@dataclass(frozen=True)
class ObjectSpec:
    """A rigid object whose pose is recorded per frame."""

    name: str
    prim_path: str
    label: str
    size_m: tuple[float, float, float]
    """Full extents of its bounding box along the object's own axes, m."""
    center_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre of that box in the object frame, m."""
    movable: bool = True
    mass_kg: float | None = None


@dataclass(frozen=True)
class Instance:
    """One id of the instance image: which prim (and whose) a pixel shows. Id 0 is 'nothing'.

    Raises EpisodeError for an id that an instance image cannot hold.
    """

    id: int
    prim_path: str
    label: str
    owner: str = ""
    """`robot:<name>`, `object:<name>`, or empty for the scenery."""

    def __post_init__(self) -> None:
        if not 0 < self.id <= MAX_INSTANCE:
            raise EpisodeError(
                f"instance id {self.id} of {self.prim_path!r} does not fit an instance image, whose 16 bits hold "
                f"1..{MAX_INSTANCE} (0 means nothing): number the instances 1, 2, 3, …; where there are more of them, make "
                "things that need not be told apart one instance (scenery below one prim is one)"
            )


@dataclass(frozen=True)
class EpisodeHeader:
    """What holds for the whole episode."""

    task: str
    fps: float
    physics_dt_s: float
    robots: tuple[RobotSpec, ...]
    cameras: tuple[CameraSpec, ...]
    objects: tuple[ObjectSpec, ...] = ()
    instances: tuple[Instance, ...] = ()
    simulator: str = ""
    simulator_version: str = ""
    stage_sha256: str = ""
    seed: int = 0
    motion_source: MotionSource = "simulated"
    joint_channels: tuple[str, ...] = JOINT_CHANNELS
    """Which joint arrays beside the position are recorded."""
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON: the scenario's parameters (randomised values, preset, planned task phases). Part of the content hash."""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not 0 < self.fps <= MAX_FPS:
            raise EpisodeError(f"fps must be a positive number up to {MAX_FPS}; found {str(self.fps)[:40]}")
        if not (np.isfinite(self.physics_dt_s) and self.physics_dt_s > 0):
            raise EpisodeError(f"physics_dt_s must be a positive number of seconds; found {self.physics_dt_s}")
        if self.motion_source not in ("simulated", "recorded"):
            raise EpisodeError(f"motion_source must be 'simulated' or 'recorded'; found {self.motion_source!r}")
        for kind, items in (("robot", self.robots), ("camera", self.cameras), ("object", self.objects)):
            names = [item.name for item in items]
            if len(set(names)) != len(names):
                raise EpisodeError(f"two {kind}s share a name; names must differ: {sorted(names)}")
            for name in names:
                if not NAME_PATTERN.fullmatch(name):
                    raise EpisodeError(
                        f"{kind} name {name!r} is not usable: 1-64 letters, digits, '_', '-', '.', "
                        "starting with a letter or digit"
                    )
        for camera in self.cameras:
            if min(camera.size) < 1 or "rgb" not in camera.channels or set(camera.channels) - set(CHANNELS):
                raise EpisodeError(
                    f"camera {camera.name!r}: size {camera.size} must be positive and channels {camera.channels} "
                    f"a subset of {CHANNELS} with rgb"
                )
        if any(camera.lens is not None for camera in self.cameras):
            object.__setattr__(self, "schema", LENS_SCHEMA)
        if set(self.joint_channels) - set(JOINT_CHANNELS):
            raise EpisodeError(f"joint channels {self.joint_channels} must be a subset of {JOINT_CHANNELS}")
        ids = [instance.id for instance in self.instances]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise EpisodeError(f"two instances have the id {twice}; ids must differ")

    def recorded_grippers(self, robot: RobotSpec) -> tuple[int, ...]:
        """Indices of the robot's grippers whose openness was measured."""
        missing = self.settings.get(MISSING_GRIPPERS, ())
        return tuple(i for i, gripper in enumerate(robot.grippers) if f"{robot.name}/{gripper.name}" not in missing)

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name. Raises EpisodeError naming the valid ones."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise EpisodeError(
            f"episode has no camera {name!r}; it has: {', '.join(c.name for c in self.cameras) or 'none'}"
        )


@dataclass(frozen=True)
class RobotState:
    """One robot at one frame."""

    joint_position: Float64[np.ndarray, "D"]
    """rad or m, order of `RobotSpec.dof_names`."""
    T_world_link: Float64[np.ndarray, "L 4 4"]
    """World pose of every link, order of `RobotSpec.links`."""
    gripper_openness: Float64[np.ndarray, "G"]
    """0 closed, 1 open, per gripper."""
    joint_velocity: Float64[np.ndarray, "D"] | None = None
    joint_effort: Float64[np.ndarray, "D"] | None = None
    """Measured drive effort, N·m or N."""
    joint_target: Float64[np.ndarray, "D"] | None = None
    """Target commanded after this frame, rad or m."""


@dataclass(frozen=True)
class CameraFrame:
    """What one camera saw at one frame, with the matrices it was rendered with."""

    K: Float64[np.ndarray, "3 3"]
    T_camera_world: Float64[np.ndarray, "4 4"]
    rgb: UInt8[np.ndarray, "H W 3"]
    depth_m: Float32[np.ndarray, "H W"] | None = None
    """Forward (z) depth, m; 0 where nothing was hit."""
    normals: Int16[np.ndarray, "H W 3"] | None = None
    """World-frame unit normals × 32767; (0, 0, 0) where nothing was hit."""
    instance_ids: UInt16[np.ndarray, "H W"] | None = None
    """Ids of `EpisodeHeader.instances`; 0 where nothing was hit."""
    lens: Lens | None = None
    """The camera's lens, as in its CameraSpec."""

    @property
    def camera(self) -> Camera:
        """K, pose, size and lens as a Camera."""
        return Camera(self.K, self.T_camera_world, (self.rgb.shape[1], self.rgb.shape[0]), self.lens)


@dataclass(frozen=True)
class Contact:
    """A contact between two bodies at one frame."""

    body_a: str
    """Prim path."""
    body_b: str
    position_m: tuple[float, float, float]
    """World frame."""
    normal: tuple[float, float, float]
    """Unit, world frame, from a to b."""
    force_n: tuple[float, float, float]
    """Force that a exerts on b, world frame, N."""
    penetration_m: float = 0.0


@dataclass(frozen=True)
class PhysicsSamples:
    """Object poses at physics rate since the previous frame (the last sample belongs to this frame's own time)."""

    time_s: Float64[np.ndarray, "S"]
    T_world_object: Float64[np.ndarray, "S O 4 4"]


@dataclass(frozen=True)
class Frame:
    """Everything measured at one frame."""

    time_s: float
    """Simulation time."""
    robots: tuple[RobotState, ...]
    T_world_object: Float64[np.ndarray, "O 4 4"]
    cameras: tuple[CameraFrame, ...]
    contacts: tuple[Contact, ...] = ()
    physics: PhysicsSamples | None = None


def encode_normals(normals: Float32[np.ndarray, "H W 3"]) -> Int16[np.ndarray, "H W 3"]:
    """Float unit normals (H, W, 3) to the stored int16 form; non-finite and zero vectors become (0, 0, 0)."""
    finite = np.nan_to_num(np.asarray(normals, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.round(np.clip(finite, -1, 1) * NORMAL_SCALE).astype(np.int16)


def check_frame(frame: Frame, header: EpisodeHeader, index: int) -> None:
    """Whether a frame fits its header and is finite. Raises EpisodeError naming frame, field, found and expected."""

    def refuse(what: str, found: object, expected: object) -> None:
        raise EpisodeError(f"frame {index}: {what} is {found}; expected {expected}")

    if not np.isfinite(frame.time_s):
        refuse("time_s", frame.time_s, "a finite time")
    if len(frame.robots) != len(header.robots):
        refuse("number of robots", len(frame.robots), len(header.robots))
    for state, spec in zip(frame.robots, header.robots, strict=True):
        dofs, where = len(spec.dof_names), f"robot {spec.name!r}"
        for name in ("position", *JOINT_CHANNELS):
            value = getattr(state, f"joint_{name}")
            wanted = name == "position" or name in header.joint_channels
            if (value is not None) != wanted:
                refuse(f"{where} joint_{name}", "missing" if wanted else "given", "present" if wanted else "absent")
            if value is not None and (value.shape != (dofs,) or not np.isfinite(value).all()):
                refuse(f"{where} joint_{name}", np.array2string(value, threshold=20), f"{dofs} finite numbers")
        if state.T_world_link.shape != (len(spec.links), 4, 4):
            refuse(f"{where} T_world_link shape", state.T_world_link.shape, (len(spec.links), 4, 4))
        # All at once first: link by link would cost a millisecond per frame, and only a refusal needs the name.
        broken = () if is_rigid(state.T_world_link) else zip(spec.links, state.T_world_link, strict=True)
        for link, T in broken:
            if not is_rigid(T):
                refuse(f"{where} pose of link {link.name!r}", T.tolist(), "a finite rigid transform")
        if state.gripper_openness.shape != (len(spec.grippers),) or not np.isfinite(state.gripper_openness).all():
            refuse(f"{where} gripper_openness", state.gripper_openness, f"{len(spec.grippers)} finite numbers")
    if frame.T_world_object.shape != (len(header.objects), 4, 4):
        refuse("T_world_object shape", frame.T_world_object.shape, (len(header.objects), 4, 4))
    for obj, T in zip(header.objects, frame.T_world_object, strict=True):
        if not is_rigid(T):
            refuse(f"pose of object {obj.name!r}", T.tolist(), "a finite rigid transform")
    for contact in frame.contacts:
        numbers = (*contact.position_m, *contact.normal, *contact.force_n, contact.penetration_m)
        if len(numbers) != 10 or not np.isfinite(numbers).all():
            refuse(
                f"contact of {contact.body_a} and {contact.body_b}", numbers, "finite position, normal, force, depth"
            )
    if len(frame.cameras) != len(header.cameras):
        refuse("number of cameras", len(frame.cameras), len(header.cameras))
    for image, camera in zip(frame.cameras, header.cameras, strict=True):
        _check_camera(image, camera, refuse)
    if frame.physics is not None and (
        frame.physics.T_world_object.shape != (len(frame.physics.time_s), len(header.objects), 4, 4)
        or not np.isfinite(frame.physics.T_world_object).all()
        or not np.isfinite(frame.physics.time_s).all()
    ):
        refuse("physics track", frame.physics.T_world_object.shape, f"finite (S, {len(header.objects)}, 4, 4)")


def _check_camera(image: CameraFrame, camera: CameraSpec, refuse: Any) -> None:
    width, height = camera.size
    where = f"camera {camera.name!r}"
    expected = {
        "rgb": ("rgb", (height, width, 3), np.uint8),
        "depth": ("depth_m", (height, width), np.float32),
        "normals": ("normals", (height, width, 3), np.int16),
        "instances": ("instance_ids", (height, width), np.uint16),
    }
    for channel, (attribute, shape, dtype) in expected.items():
        value = getattr(image, attribute)
        if (value is not None) != (channel in camera.channels):
            refuse(f"{where} {channel}", "missing" if value is None else "given", f"channels {camera.channels}")
        if value is not None and (value.shape != shape or value.dtype != dtype):
            # A cast alone would wrap larger ids round to those of other things.
            table = "; number what is seen as the header's instances do" if channel == "instances" else ""
            refuse(f"{where} {channel}", f"{value.shape} {value.dtype}", f"{shape} {np.dtype(dtype)}{table}")
    if image.depth_m is not None and not np.isfinite(image.depth_m).all():
        refuse(f"{where} depth", "non-finite somewhere", "metres, 0 where nothing was hit")
    if image.K.shape != (3, 3) or not np.isfinite(image.K).all() or image.K[0, 0] <= 0 or image.K[1, 1] <= 0:
        refuse(f"{where} K", image.K.tolist(), "finite, fx > 0, fy > 0")
    if image.lens != camera.lens:
        refuse(f"{where} lens", image.lens, camera.lens)
    if not is_rigid(image.T_camera_world):
        refuse(f"{where} T_camera_world", image.T_camera_world.tolist(), "a finite rigid transform")
