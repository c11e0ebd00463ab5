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
from retake.core.episode import Episode, ObjectSpec
from retake.core.episode.extra import (
    ACTION,
    QUATERNION_NAMES,
    ROOT_QUATERNION,
    ROOT_VELOCITY,
    VELOCITY_NAMES,
    write_extra,
)
from retake.core.errors import EpisodeError, InputError, unknown_name
from retake.core.files import read_json
from retake.core.importers.recorded import (
    Missing,
    Recorded,
    folder_name,
    hdf5_recording,
    name_and_path,
    poses_of,
    robot_of,
    text_of,
    write,
)
from retake.core.lens import Lens
from retake.core.robot import RobotSpec


def import_isaaclab(source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()) -> Episode:
    """One demonstration of an Isaac Lab HDF5 file (data/demo_N with `states/articulation/<robot>/…`) as an Episode.

    Isaac Lab records `obs/*` and `actions` before a step and `states/*` after it, so frame k holds obs[k], actions[k] and
    the state before it: `initial_state` for k = 0, states[k - 1] after. Frames end with the last action.
    `arguments`: as in `parser`. Raises EpisodeError listing everything that is missing, and for a demonstration that failed
    unless --failed asks for it; MissingDependencyError without h5py.
    """
    options = parser().parse_args(list(arguments))
    with hdf5_recording(source, "Isaac Lab") as file:
        missing = Missing(source, "Isaac Lab demonstrations")
        demo = choose_demo(file, options.demo, source, failed=options.failed)
        order = quaternion_order(file, options.quaternion)
        arguments_of_env = env_args(file, source)
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
        part = f"articulation/{name}"
        positions, first = before_each_step(demo, f"{part}/joint_position", source)
        length, cameras = len(positions), options.camera
        q = _reorder(positions, joints, robot, source)
        base = poses_of(before_each_step(demo, f"{part}/root_pose", source)[0], order)
        links = robot.forward_kinematics(q, base)
        has_velocity = "joint_velocity" in state
        dq = (
            _reorder(before_each_step(demo, f"{part}/joint_velocity", source)[0], joints, robot, source)
            if has_velocity
            else None
        )
        rigid = {key: f"rigid_object/{key}" for key in demo.get("states/rigid_object") or ()}
        objects = tuple(
            (
                ObjectSpec(folder_name(key), f"/{key}", key, (0.0, 0.0, 0.0)),
                poses_of(before_each_step(demo, f"{path}/root_pose", source)[0], order),
            )
            for key, path in rigid.items()
        )
        pictures = tuple(_observed_camera(demo, given, first, length, source) for given in cameras)
        bodies = {robot.name: part, **{folder_name(k): p for k, p in rigid.items()}}
        extra = _extra(demo, bodies, first, length, source, order)
        targets = _targets(extra, q, options.targets, robot, source)
        task = options.task or str(arguments_of_env.get("env_name", ""))
        recorded = Recorded(robot, fps, dt, q, links, objects, dq, targets, pictures, task, "isaac-lab")
        origin = {
            "source": source.name,
            "demo": demo.name.rsplit("/", 1)[-1],
            "env_name": str(arguments_of_env.get("env_name", "")),
            "quaternions": order,
            "articulations": {robot.name: {"key": name, "joints": list(joints)}},
            "rigid_objects": {folder_name(key): key for key in rigid},
            **({} if (success := success_in(demo)) is None else {"success": success}),
            **({"without_first_observation": True} if first else {}),
        }
    episode = write(recorded, out, origin)
    if extra:
        write_extra(out, extra)
    return episode


def parser() -> argparse.ArgumentParser:
    """Arguments of the Isaac Lab import."""
    out = argparse.ArgumentParser(prog="retake import isaaclab")
    out.add_argument("--demo", default="", help="which demonstration (default: the first that did not fail)")
    out.add_argument("--failed", action="store_true", help="import a demonstration that says success = False, too")
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
        "--targets",
        type=_names,
        default=(),
        metavar="JOINTS",
        help="joints whose positions the first columns of `actions` command absolutely, comma-separated ('-': skip a column)",
    )
    out.add_argument(
        "--quaternion",
        choices=("auto", "wxyz", "xyzw"),
        default="auto",
        help="order in the file (default: by its format_version, as Isaac Lab 3 does: 1 = xyzw, none = wxyz)",
    )
    return out


def choose_demo(file: Any, name: str, source: Path, *, failed: bool = False) -> Any:
    """A demonstration by name; of several unnamed ones the first that did not fail. Raises EpisodeError naming those that
    did, unless `failed` asks for them, and for a name that is not there."""
    demos = sorted(file.get("data") or (), key=_number)
    if (name and name not in demos) or not demos:
        raise EpisodeError(
            f"{source} has no demonstration {name!r}; it has: {', '.join(demos[:8]) or 'none (no group `data`)'}"
        )
    bad = [demo for demo in demos if success_in(file["data"][demo]) is False]
    wanted = [name] if name else demos
    if usable := [demo for demo in wanted if failed or demo not in bad]:
        return file["data"][usable[0]]
    raise EpisodeError(
        f"{source}: {', '.join(bad[:8])} failed (success = False) and would teach that; "
        f"--failed imports {'it' if len(wanted) == 1 else 'them'} all the same"
        + (f", {', '.join(good[:8])} did not fail" if (good := [d for d in demos if d not in bad]) else "")
    )


def success_in(demo: Any) -> bool | None:
    """What a demonstration's attribute `success` says; None where it has none."""
    found = demo.attrs.get("success")
    return None if found is None else bool(found)


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else 1 << 30, name)


def quaternion_order(file: Any, asked: str = "auto") -> str:
    """`wxyz` or `xyzw`: Isaac Lab 3 stamps its files with format_version 1, which means x y z w; older ones are w x y z."""
    if asked != "auto":
        return asked
    return "xyzw" if int(file.attrs.get("format_version", 0)) >= 1 else "wxyz"


def env_args(file: Any, source: Path) -> dict[str, Any]:
    """The environment's arguments. Raises EpisodeError where they are no JSON object."""
    try:
        found = json.loads(text_of(file["data"].attrs.get("env_args", "{}")))
    except (KeyError, ValueError) as error:
        raise EpisodeError(f"{source}: data.env_args is no JSON ({error}); expected what Isaac Lab writes") from error
    if not isinstance(found, dict):
        raise EpisodeError(f"{source}: data.env_args is a {type(found).__name__}; expected a JSON object")
    return found


def before_each_step(demo: Any, path: str, source: Path) -> tuple[np.ndarray[Any, Any], int]:
    """(rows, first): `path` of the state before each step, float64, and the step that row 0 belongs to.

    Row k is initial_state for step 0 and states[k - 1] after; without an initial state the first step has none, and rows
    begin with step 1. Raises EpisodeError where the file has another number of states than of actions.
    """
    try:
        after = np.asarray(demo[f"states/{path}"], np.float64)
        steps = len(demo["actions"]) if "actions" in demo else len(after)
    except KeyError as error:
        raise EpisodeError(f"{source}: {demo.name} has no states/{path}; expected what Isaac Lab records") from error
    if len(after) != steps:
        raise EpisodeError(
            f"{source}: {demo.name} has {len(after)} states/{path} for {steps} actions; Isaac Lab records one after each step"
        )
    start = demo.get(f"initial_state/{path}")
    if start is None:
        if steps < 2:
            raise EpisodeError(f"{source}: {demo.name} has no initial_state and one step only: no picture has a state")
        return after[:-1], 1
    initial = np.asarray(start, np.float64).reshape(-1, *after.shape[1:])[:1]
    return np.concatenate([initial, after[:-1]]), 0


def _extra(demo: Any, bodies: dict[str, str], first: int, length: int, source: Path, order: str) -> dict[str, Any]:
    """Actions, root velocities and orientations of the imported frames, as extra rows of the Episode."""
    out: dict[str, Any] = {}
    if "actions" in demo and demo["actions"].ndim == 2 and demo["actions"].shape[1]:
        rows = np.asarray(demo["actions"], np.float32)[first : first + length]
        out[ACTION] = (tuple(f"action_{i}" for i in range(rows.shape[1])), rows)
    for name, path in bodies.items():
        if f"states/{path}/root_velocity" in demo:
            velocity, start = before_each_step(demo, f"{path}/root_velocity", source)
            if start == first:
                out[ROOT_VELOCITY + name] = (VELOCITY_NAMES, velocity)
        if f"states/{path}/root_pose" in demo:
            q = before_each_step(demo, f"{path}/root_pose", source)[0][:, 3:7]
            out[ROOT_QUATERNION + name] = (QUATERNION_NAMES, q if order == "xyzw" else q[:, [1, 2, 3, 0]])
    return out


def _targets(
    extra: dict[str, Any], q: Float64[np.ndarray, "T D"], named: tuple[str, ...], robot: RobotSpec, source: Path
) -> Float64[np.ndarray, "T D"] | None:
    """Joint targets (rad or m) of actions that are absolute joint positions; other joints keep what was measured."""
    if not named:
        return None
    if unknown := [name for name in named if name != "-" and name not in robot.dof_names]:
        raise InputError(unknown_name("joint in --targets", unknown[0], (*robot.dof_names, "-")))
    width = extra[ACTION][1].shape[1] if ACTION in extra else 0
    if len(named) > width:
        raise InputError(f"--targets names {len(named)} columns; {source} has {width} numbers per action")
    out = q.copy()
    for column, name in enumerate(named):
        if name != "-":
            out[:, robot.dof_index(name)] = extra[ACTION][1][:, column]
    return out


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


def _observed_camera(
    demo: Any, given: tuple[str, Path], first: int, frames: int, source: Path
) -> tuple[str, list[Camera], Any]:
    name, path = given
    images = demo.get(f"obs/{name}")
    if images is None or images.ndim != 4 or images.shape[3] < 3 or images.dtype != np.uint8:
        pictures = [key for key, item in (demo.get("obs") or {}).items() if getattr(item, "ndim", 0) == 4]
        raise EpisodeError(
            f"{source} has no uint8 images obs/{name}; it has: {', '.join(pictures) or 'no images at all'}"
        )
    if len(images) != first + frames:
        raise EpisodeError(f"{source}: obs/{name} has {len(images)} images for {first + frames} steps")
    try:
        data = read_json(path)
        K, T = np.array(data["K"], np.float64), np.array(data["T_camera_world"], np.float64)
        lens = Lens.from_json(data.get("lens"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected JSON with K (3x3, px) and T_camera_world (4x4, OpenCV axes, m): {error}"
        ) from error
    camera = Camera(K, T, (int(images.shape[2]), int(images.shape[1])), lens)
    return folder_name(name), [camera] * frames, [np.asarray(images[t])[..., :3] for t in range(first, first + frames)]


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
