# SPDX-License-Identifier: Apache-2.0
"""A Kit stage as Retake records: the header before the first frame, and raw arrays -> `Frame` on the writer's thread.

What the stage *is* (robots, cameras, objects, units) is read by `retake.usd`; this file knows only how the simulator's
arrays are laid out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pxr import Usd

from retake.core.array_types import Float64
from retake.core.capture import PairedFrame, StateSample
from retake.core.ends import beside, declare, load_declarations
from retake.core.episode import (
    CHANNELS,
    CameraFrame,
    CameraSpec,
    EpisodeHeader,
    Frame,
    Instance,
    PhysicsSamples,
    RobotState,
    encode_normals,
)
from retake.core.episode.records import JOINT_CHANNELS, Channel
from retake.core.episode.straight import SETTING, straighten, straightened
from retake.core.errors import StageError
from retake.core.files import sha256_bytes
from retake.core.geometry import pose_from_wxyz, wxyz_from_xyzw
from retake.core.robot import RobotSpec
from retake.isaac.contacts import decode_contact
from retake.isaac.payload import RawView
from retake.isaac.rendered_camera import rendered_camera
from retake.isaac.tensors import RawRobot, RawState
from retake.usd.articulation import Articulation, choose_articulations, find_articulations
from retake.usd.bodies import StageObject, choose_objects, find_objects
from retake.usd.camera import camera_prim, is_animated, read_camera, usable_cameras
from retake.usd.instances import InstanceLookup, instance_table
from retake.usd.lens import Calibration, read_calibration
from retake.usd.names import distinct
from retake.usd.stage import body_of, one_pass, stage_sha256, start_time
from retake.usd.units import StageUnits


@dataclass(frozen=True)
class CameraChoice:
    """A camera to record."""

    prim_path: str
    """Empty = the stage's first camera."""
    size: tuple[int, int] = (640, 480)
    """(width, height), px."""
    name: str = ""
    """Name in the episode; empty = the prim's own."""
    channels: tuple[Channel, ...] = CHANNELS


@dataclass(frozen=True)
class StageContent:
    """What of a stage is recorded."""

    units: StageUnits
    robots: tuple[Articulation, ...]
    cameras: tuple[CameraSpec, ...]
    objects: tuple[StageObject, ...]
    notes: tuple[str, ...] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """Camera name -> calibration, of the cameras that have one."""


def read_content(
    stage: Usd.Stage,
    *,
    robots: Sequence[str] = (),
    cameras: Sequence[CameraChoice] = (),
    objects: Sequence[str] | None = None,
    robot_file: str = "",
) -> StageContent:
    """Robots, cameras and objects of a stage by prim path; empty = all robots, the first usable camera, all objects.

    Raises StageError naming what is missing or unusable among what was asked for, and what the stage has instead; what was
    not asked for leaves a note. `robot_file`: a declaration of end effectors; empty = the one beside the stage.
    """
    with one_pass(stage):
        return _read_content(stage, robots, cameras, objects, robot_file)


def _read_content(
    stage: Usd.Stage,
    robots: Sequence[str],
    cameras: Sequence[CameraChoice],
    objects: Sequence[str] | None,
    robot_file: str,
) -> StageContent:
    units = StageUnits.of(stage)
    found, bodies = find_articulations(stage), find_objects(stage)
    chosen = choose_articulations(stage, found, robots)
    where = stage.GetRootLayer().realPath
    if declared := Path(robot_file) if robot_file else beside(Path(where)) if where else None:
        specs = declare([robot.spec for robot in chosen], load_declarations(declared))
        chosen = tuple(replace(robot, spec=spec) for robot, spec in zip(chosen, specs, strict=True))
    notes = [*found.notes, *bodies.notes]
    if all(choice.prim_path for choice in cameras) and cameras:
        choices = list(cameras)
    else:
        usable, more = usable_cameras(stage)
        notes += more
        first = str(usable[0].GetPath())
        choices = [
            choice if choice.prim_path else replace(choice, prim_path=first)
            for choice in cameras or (CameraChoice(""),)
        ]
    specs = [_camera_spec(stage, choice) for choice in choices]
    unnamed = [i for i, choice in enumerate(choices) if not choice.name]
    names = distinct([stage.GetPrimAtPath(choices[i].prim_path) for i in unnamed], plain=True)
    for i, name in zip(unnamed, names, strict=True):
        specs[i] = replace(specs[i], name=name)
    lenses = {s.name: read_calibration(stage.GetPrimAtPath(s.prim_path), s.size, start_time(stage)) for s in specs}
    calibrations = {name: calibration for name, calibration in lenses.items() if calibration is not None}
    return StageContent(
        units, chosen, tuple(specs), choose_objects(bodies, objects), tuple(notes), calibrations=calibrations
    )


def _camera_spec(stage: Usd.Stage, choice: CameraChoice) -> CameraSpec:
    prim = camera_prim(stage, choice.prim_path)
    camera = read_camera(prim, choice.size)
    moves = body_of(prim) is not None or is_animated(prim)
    channels: tuple[Channel, ...] = tuple(c for c in CHANNELS if c == "rgb" or c in choice.channels)
    return CameraSpec(
        choice.name or prim.GetName(),
        choice.prim_path,
        camera.size,
        not moves,
        channels,
        camera.near_far_m,
        camera.lens,
    )


def stage_hash(stage: Usd.Stage) -> str:
    """Content hash of the stage: its files where it is saved, else the root layer's text (unsaved edits, other URLs)."""
    layer = stage.GetRootLayer()
    if layer.realPath and not layer.dirty and Path(layer.realPath).is_file():
        return stage_sha256(Path(layer.realPath))
    return sha256_bytes(layer.ExportToString().encode())


class IsaacStageReader:
    """Implements core's StageReader for Isaac Sim. `decode` is pure: it touches neither the stage nor Kit."""

    def __init__(
        self, header: EpisodeHeader, units: StageUnits, movable: Sequence[bool], poses: Any,
        calibrations: Mapping[str, Calibration] | None = None,
    ) -> None:  # fmt: skip
        """`movable`: per object, whether its pose comes with the state; `poses` (O, 4, 4): T_world_object of the others.
        `calibrations` by camera name: what the header says has no lens is recorded without its own."""
        self._calibrations = dict(calibrations or {})
        self._header, self._units = header, units
        self._movable = np.array(movable, bool)
        self._static = np.asarray(poses, np.float64)
        self._lookup = InstanceLookup(header.instances)

    @property
    def header(self) -> EpisodeHeader:
        """What holds for the whole episode."""
        return self._header

    def decode(self, paired: PairedFrame) -> Frame:
        """Raw arrays to records. Raises StageError naming the camera for a frame that cannot be understood."""
        raw: RawState = paired.state.payload
        following: RawState = raw if paired.following is None else paired.following.payload
        robots = tuple(
            self._robot(spec, now, after)
            for spec, now, after in zip(self._header.robots, raw.robots, following.robots, strict=True)
        )
        cameras = tuple(self._camera(spec, paired.views[spec.name]) for spec in self._header.cameras)
        dt = self._header.physics_dt_s
        contacts = tuple(
            decode_contact(c, self._units.metres_per_unit, lambda v: self._units.R_world_stage @ np.asarray(v), dt)
            for c in raw.contacts
        )
        return Frame(paired.state.time_s, robots, self._objects(raw), cameras, contacts, self._track(paired.track))

    def poses(self, rows: np.ndarray) -> Float64[np.ndarray, "*n 4 4"]:
        """(…, 7) x, y, z, qx, qy, qz, qw in stage units to T_world (…, 4, 4), m, Z up."""
        rows = np.asarray(rows, np.float64)
        T = pose_from_wxyz(rows[..., :3] * self._units.metres_per_unit, wxyz_from_xyzw(rows[..., 3:]))
        if self._units.up_axis == "Y":
            R = np.eye(4)
            R[:3, :3] = self._units.R_world_stage
            T = R @ T
        return T

    def _robot(self, spec: RobotSpec, raw: RawRobot, after: RawRobot) -> RobotState:
        """rad, m, N·m and N from PhysX's stage units (prismatic length and effort scale, angles do not)."""
        scale, effort = self._scales(spec)
        position = np.asarray(raw.position, np.float64) * scale
        return RobotState(
            position,
            self.poses(raw.links),
            spec.gripper_openness(position),
            np.asarray(raw.velocity, np.float64) * scale,
            None if raw.effort is None else np.asarray(raw.effort, np.float64) * effort,
            np.asarray(after.target, np.float64) * scale,
        )

    def _scales(self, spec: RobotSpec) -> tuple[np.ndarray, np.ndarray]:
        m, kg = self._units.metres_per_unit, self._units.kilograms_per_unit
        kinds = [joint.kind for joint in spec.joints if joint.kind != "fixed"]
        length = np.array([1.0 if kind == "revolute" else m for kind in kinds])
        return length, np.array([kg * m * m if kind == "revolute" else kg * m for kind in kinds])

    def _objects(self, raw: RawState) -> Float64[np.ndarray, "O 4 4"]:
        out = self._static.copy()
        if self._movable.any():
            out[self._movable] = self.poses(raw.objects)
        return out

    def _track(self, track: tuple[StateSample, ...]) -> PhysicsSamples | None:
        if not track:
            return None
        T = np.broadcast_to(self._static, (len(track), *self._static.shape)).copy()
        if self._movable.any():
            T[:, self._movable] = self.poses(np.stack([sample.payload.objects for sample in track]))
        return PhysicsSamples(np.array([sample.time_s for sample in track]), T)

    def _camera(self, spec: CameraSpec, view: RawView) -> CameraFrame:
        camera = rendered_camera(
            view.camera, spec.size, self._units.metres_per_unit, self._units.R_world_stage, spec.prim_path,
            self._calibrations.get(spec.name),
        )  # fmt: skip
        width, height = spec.size
        images = dict(view.images)
        for channel, image in images.items():
            if image.shape[:2] != (height, width):
                raise StageError(
                    f"camera {spec.name!r}: {channel} is {image.shape[1]}x{image.shape[0]}; expected {width}x{height}"
                )
        depth = normals = ids = None
        if "depth" in spec.channels:
            depth = np.array(images["depth"], np.float32).reshape(height, width)
            depth[~np.isfinite(depth)] = 0.0
            depth *= np.float32(self._units.metres_per_unit)
        if "normals" in spec.channels:
            normal = np.asarray(images["normals"], np.float32)[..., :3]
            if self._units.up_axis == "Y":
                normal = normal @ self._units.R_world_stage.T.astype(np.float32)
            normals = encode_normals(normal)
        if "instances" in spec.channels:
            ids = self._lookup.remap(images["instances"], view.id_to_path)
            if depth is not None:
                ids = np.where(depth > 0, ids, 0).astype(np.uint16)
        rgb = np.ascontiguousarray(np.asarray(images["rgb"], np.uint8)[..., :3])
        frame = CameraFrame(camera.K, camera.T_camera_world, rgb, depth, normals, ids, camera.lens)
        return straighten(frame) if spec.lens is None else frame


@dataclass(frozen=True)
class StageIdentity:
    """What takes long to read of a stage: read before the simulation runs, not in its callbacks."""

    instances: tuple[Instance, ...]
    sha256: str

    @staticmethod
    def of(stage: Usd.Stage, content: StageContent) -> StageIdentity:
        """Of a stage as it is now."""
        specs = [robot.spec for robot in content.robots]
        return StageIdentity(instance_table(stage, specs, [item.spec for item in content.objects]), stage_hash(stage))


def make_reader(
    identity: StageIdentity, content: StageContent, *, task: str, fps: float, physics_dt_s: float, seed: int = 0,
    efforts: bool = True, simulator_version: str = "", settings: dict[str, Any] | None = None, undistort: bool = False,
) -> IsaacStageReader:  # fmt: skip
    """The reader for one recording of a stage. `efforts`: whether the engine measures joint efforts; `undistort` records
    calibrated lenses as pinholes and says so."""
    cameras, changed = straightened(content.cameras) if undistort else (content.cameras, {})
    specs = tuple(robot.spec for robot in content.robots)
    objects = tuple(item.spec for item in content.objects)
    header = EpisodeHeader(
        task=task,
        fps=fps,
        physics_dt_s=physics_dt_s,
        robots=specs,
        cameras=cameras,
        objects=objects,
        instances=identity.instances,
        joint_channels=JOINT_CHANNELS if efforts else tuple(c for c in JOINT_CHANNELS if c != "effort"),
        simulator="isaac-sim",
        simulator_version=simulator_version,
        stage_sha256=identity.sha256,
        seed=seed,
        settings={**(settings or {}), **({SETTING: changed} if changed else {})},
    )
    poses = [item.T_world_object for item in content.objects]
    return IsaacStageReader(
        header,
        content.units,
        [o.movable for o in objects],
        np.array(poses).reshape(len(poses), 4, 4),
        content.calibrations,
    )
