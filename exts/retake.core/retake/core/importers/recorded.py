# SPDX-License-Identifier: Apache-2.0
"""A recording of another tool's as an Episode: what the importers of HDF5 recordings share.

No such format holds everything an Episode needs (joint names, lens, pictures …). What a file has is used, what it lacks
is taken from arguments, and what is still missing is listed, all at once, with the argument that supplies it; nothing is
guessed. Lengths are metres; quaternions are (w, x, y, z) unless told otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.camera import Camera
from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    ObjectSpec,
    RobotState,
)
from retake.core.errors import EpisodeError, MissingDependencyError, install_hint
from retake.core.geometry import inverse, pose_from_wxyz, wxyz_from_xyzw
from retake.core.masks.meshes import read_robot
from retake.core.robot import WORLD, RobotSpec


@dataclass(frozen=True)
class Recorded:
    """The motion of one recording, in Retake's units, whatever file it came from."""

    robot: RobotSpec
    fps: float
    physics_dt_s: float
    joint_position: Float64[np.ndarray, "T D"]
    T_world_link: Float64[np.ndarray, "T L 4 4"]
    objects: tuple[tuple[ObjectSpec, Float64[np.ndarray, "T 4 4"]], ...] = ()
    joint_velocity: Float64[np.ndarray, "T D"] | None = None
    joint_target: Float64[np.ndarray, "T D"] | None = None
    cameras: tuple[tuple[str, Sequence[Camera], Sequence[Any]], ...] = ()
    """Name, camera per frame, RGB image per frame."""
    task: str = ""
    simulator: str = ""


class Missing:
    """Collects everything that is missing, to be said in one message."""

    def __init__(self, source: Path, format_name: str) -> None:
        self.source, self.format_name, self.items = source, format_name, list[str]()

    def add(self, what: str, how: str) -> None:
        """Something is missing; `how` supplies it."""
        self.items.append(f"{what}: {how}")

    def check(self) -> None:
        """Raise EpisodeError when anything is missing."""
        if self.items:
            lines = "\n".join(f"  - {item}" for item in self.items)
            raise EpisodeError(
                f"{self.source} ({self.format_name}) does not hold enough for an Episode. Missing:\n{lines}"
            )


def write(recorded: Recorded, out: Path, origin: dict[str, Any]) -> Episode:
    """A recording as an Episode with motion_source `recorded`."""
    channels = tuple(
        name
        for name, given in (("velocity", recorded.joint_velocity), ("target", recorded.joint_target))
        if given is not None
    )
    header = EpisodeHeader(
        task=recorded.task,
        fps=recorded.fps,
        physics_dt_s=recorded.physics_dt_s,
        robots=(recorded.robot,),
        cameras=tuple(
            CameraSpec(name, f"/{name}", views[0].size, is_static(views), ("rgb",), lens=views[0].lens)
            for name, views, _ in recorded.cameras
        ),
        objects=tuple(spec for spec, _ in recorded.objects),
        simulator=recorded.simulator,
        motion_source="recorded",
        joint_channels=channels,
        settings={"imported": origin},
    )
    with EpisodeWriter(out, header) as writer:
        for t, q in enumerate(recorded.joint_position):
            state = RobotState(
                q,
                recorded.T_world_link[t],
                recorded.robot.gripper_openness(q),
                None if recorded.joint_velocity is None else recorded.joint_velocity[t],
                None,
                None if recorded.joint_target is None else recorded.joint_target[t],
            )
            objects = np.array([poses[t] for _, poses in recorded.objects]).reshape(-1, 4, 4)
            views = tuple(
                CameraFrame(
                    cameras[t].K, cameras[t].T_camera_world, np.ascontiguousarray(images[t]), lens=cameras[t].lens
                )
                for _, cameras, images in recorded.cameras
            )
            writer.append(Frame(t / recorded.fps, (state,), objects, views))
        return writer.finish()


def joints_from_links(robot: RobotSpec, T_world_link: Float64[np.ndarray, "T L 4 4"]) -> Float64[np.ndarray, "T D"]:
    """Joint positions (rad, m) that give these link poses: the inverse of forward kinematics, joint by joint."""
    q = np.zeros((len(T_world_link), len(robot.dof_names)))
    for dof, joint in robot.joints_in_order:
        if dof < 0:
            continue
        parent = np.eye(4) if joint.parent_link == WORLD else T_world_link[:, joint.parent_link]
        child = T_world_link[:, joint.child_link]
        motion = inverse(parent @ joint.T_parent_joint) @ child @ joint.T_child_joint
        axis = np.array(joint.axis)
        if joint.kind == "prismatic":
            q[:, dof] = motion[:, :3, 3] @ axis
            continue
        R = motion[:, :3, :3]
        sine = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], -1) @ axis
        angle = np.arctan2(sine / 2, (np.trace(R, axis1=1, axis2=2) - 1) / 2)
        q[:, dof] = np.unwrap(angle)
    return q


@contextlib.contextmanager
def hdf5_recording(path: Path, format_name: str) -> Iterator[Any]:
    """An HDF5 file while it is read. Raises EpisodeError where it lacks what its format has, or has it in another form;
    otherwise as `open_hdf5`."""
    with open_hdf5(path) as file:
        try:
            yield file
        except (KeyError, IndexError, AttributeError, TypeError, ValueError, ArithmeticError, OSError) as error:
            said = str(error.args[0]) if isinstance(error, KeyError) else str(error)
            said = (
                f"it has no {said}" if isinstance(error, KeyError) and " " not in said else said
            )  # h5py says a sentence
            raise EpisodeError(f"{path} is damaged, or no recording of {format_name}: {said}") from error


def open_hdf5(path: Path) -> Any:
    """An HDF5 file. Raises MissingDependencyError without h5py, EpisodeError for what is none."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"reading HDF5 needs h5py: {install_hint('export')}") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise EpisodeError(f"{path} is not a readable HDF5 file: {error}") from error


def robot_of(urdf: Path | None, missing: Missing) -> RobotSpec | None:
    """The robot of a URDF; without one it is noted as missing."""
    if urdf is None:
        missing.add("the robot's links and joints", "--urdf robot.urdf")
        return None
    return read_robot(urdf)


def poses_of(rows: np.ndarray[Any, Any], order: str) -> Float64[np.ndarray, "T 4 4"]:
    """Poses of rows of position (m) and quaternion in the given order."""
    quaternion = rows[:, 3:7] if order == "wxyz" else wxyz_from_xyzw(rows[:, 3:7])
    return pose_from_wxyz(rows[:, :3], quaternion)


def is_static(views: Sequence[Camera]) -> bool:
    """Whether a camera never moves."""
    return all(np.array_equal(view.T_camera_world, views[0].T_camera_world) for view in views)


def folder_name(name: str) -> str:
    """A name that may be a folder."""
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name).strip("_.-") or "unnamed"


def text_of(value: Any) -> str:
    """Text that HDF5 may hand over as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def name_and_path(text: str) -> tuple[str, Path]:
    """An argument NAME=FILE."""
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FILE")
    return name, Path(path)
