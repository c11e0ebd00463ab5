# SPDX-License-Identifier: Apache-2.0
"""Isaac Lab's HDF5 demonstrations as Episodes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.camera import Camera
from retake.core.episode import (
    Episode,
    ObjectSpec,
)
from retake.core.errors import EpisodeError, InputError
from retake.core.files import read_json
from retake.core.importers.recorded import (
    Missing,
    Recorded,
    folder_name,
    name_and_path,
    open_hdf5,
    poses_of,
    robot_of,
    text_of,
    write,
)
from retake.core.lens import Lens
from retake.core.robot import RobotSpec


def import_isaaclab(source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()) -> Episode:
    """One demonstration of an Isaac Lab HDF5 file (data/demo_N with `states/articulation/<robot>/…`) as an Episode.

    `arguments`: --demo, --robot, --joints, --fps, --camera NAME=FILE.json, --task, --quaternion. Raises EpisodeError listing
    everything that is missing, MissingDependencyError without h5py.
    """
    options = parser().parse_args(list(arguments))
    with open_hdf5(source) as file:
        missing = Missing(source, "Isaac Lab demonstrations")
        demo = _isaaclab_demo(file, options.demo, source)
        arguments_of_env = json.loads(file["data"].attrs.get("env_args", "{}"))
        articulations = demo.get("states/articulation")
        names = list(articulations or ())
        name = options.robot or (names[0] if len(names) == 1 else "")
        if not articulations:
            missing.add(
                "robot states", "record with Isaac Lab's state recorder (`states/articulation/<robot>/joint_position`)"
            )
        elif name not in names:
            missing.add("which robot", f"--robot with one of {', '.join(names)}")
        state = articulations[name] if articulations and name in names else {}
        joints = _joint_names(state, options.joints, missing)
        robot = robot_of(urdf, missing)
        fps, dt = _rate(arguments_of_env, options.fps, missing)
        if robot is not None and joints and (unknown := [j for j in joints if j not in robot.dof_names]):
            missing.add(
                f"joints {', '.join(unknown)} of the URDF", f"names from {', '.join(robot.dof_names)} in file order"
            )
        missing.check()
        assert robot is not None
        q = _reorder(np.asarray(state["joint_position"], np.float64), joints, robot, source)
        base = poses_of(np.asarray(state["root_pose"], np.float64), options.quaternion)
        links = robot.forward_kinematics(q, base)
        velocity = state.get("joint_velocity")
        dq = None if velocity is None else _reorder(np.asarray(velocity, np.float64), joints, robot, source)
        objects = tuple(
            (
                ObjectSpec(folder_name(key), f"/{key}", key, (0.0, 0.0, 0.0)),
                poses_of(np.asarray(group["root_pose"], np.float64), options.quaternion),
            )
            for key, group in (demo.get("states/rigid_object") or {}).items()
        )
        cameras = tuple(_observed_camera(demo, given, len(q), source) for given in options.camera)
        task = options.task or str(arguments_of_env.get("env_name", ""))
        recorded = Recorded(robot, fps, dt, q, links, objects, dq, None, cameras, task, "isaac-lab")
        return write(recorded, out, {"source": source.name, "demo": demo.name.rsplit("/", 1)[-1]})


def parser() -> argparse.ArgumentParser:
    """Arguments of the Isaac Lab import."""
    out = argparse.ArgumentParser(prog="retake import isaaclab")
    out.add_argument("--demo", default="demo_0", help="which demonstration")
    out.add_argument("--robot", default="", help="name of the articulation, where there are several")
    out.add_argument("--joints", type=_names, default=(), help="joint names in file order, comma-separated")
    out.add_argument("--fps", type=float, default=0.0, help="recorded steps per second, where the file does not say")
    out.add_argument(
        "--camera",
        action="append",
        type=name_and_path,
        default=[],
        help="observation=FILE.json with K and T_camera_world",
    )
    out.add_argument("--task", default="")
    out.add_argument(
        "--quaternion", choices=("wxyz", "xyzw"), default="wxyz", help="order in the file (Isaac Lab 3: xyzw)"
    )
    return out


def _isaaclab_demo(file: Any, name: str, source: Path) -> Any:
    demos = list(file.get("data") or ())
    if name not in demos:
        raise EpisodeError(
            f"{source} has no demonstration {name!r}; it has: {', '.join(demos[:8]) or 'none (no group `data`)'}"
        )
    return file["data"][name]


def _joint_names(state: Any, given: tuple[str, ...], missing: Missing) -> tuple[str, ...]:
    if given:
        return given
    stored = getattr(state, "attrs", {}).get("joint_names")
    if stored is not None:
        return tuple(text_of(name) for name in stored)
    if state:
        count = state["joint_position"].shape[1] if "joint_position" in state else 0
        missing.add(
            f"names of the {count} joints",
            "--joints a,b,c in the order of joint_position (Isaac Lab does not store them)",
        )
    return ()


def _rate(env: dict[str, Any], fps: float, missing: Missing) -> tuple[float, float]:
    timing = env.get("sim_args", {})
    dt, decimation = float(timing.get("dt", 0.0) or 0.0), int(timing.get("decimation", 0) or 0)
    if fps > 0:
        return fps, dt or 1.0 / fps
    if dt > 0 and decimation > 0:
        return 1.0 / (dt * decimation), dt
    missing.add("steps per second", "--fps (env_args has no sim_args with dt and decimation)")
    return 0.0, 0.0


def _reorder(
    values: np.ndarray[Any, Any], joints: tuple[str, ...], robot: RobotSpec, source: Path
) -> Float64[np.ndarray, "T D"]:
    if values.shape[1] != len(joints):
        raise InputError(f"{source} has {values.shape[1]} joints per step; --joints names {len(joints)}")
    if absent := [name for name in robot.dof_names if name not in joints]:
        raise InputError(f"--joints lacks {', '.join(absent)} of robot {robot.name!r}")
    return values[:, [joints.index(name) for name in robot.dof_names]]


def _observed_camera(demo: Any, given: tuple[str, Path], frames: int, source: Path) -> tuple[str, list[Camera], Any]:
    name, path = given
    images = demo.get(f"obs/{name}")
    if images is None or images.ndim != 4 or images.shape[3] < 3 or images.dtype != np.uint8:
        pictures = [key for key, item in (demo.get("obs") or {}).items() if getattr(item, "ndim", 0) == 4]
        raise EpisodeError(
            f"{source} has no uint8 images obs/{name}; it has: {', '.join(pictures) or 'no images at all'}"
        )
    if len(images) < frames:
        raise EpisodeError(f"{source}: obs/{name} has {len(images)} images for {frames} states")
    try:
        data = read_json(path)
        K, T = np.array(data["K"], np.float64), np.array(data["T_camera_world"], np.float64)
        lens = Lens.from_json(data.get("lens"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected JSON with K (3x3, px) and T_camera_world (4x4, OpenCV axes, m): {error}"
        ) from error
    camera = Camera(K, T, (int(images.shape[2]), int(images.shape[1])), lens)
    return folder_name(name), [camera] * frames, [np.asarray(images[t])[..., :3] for t in range(frames)]


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
