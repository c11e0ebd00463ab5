# SPDX-License-Identifier: Apache-2.0
"""What users already recorded -> Episode: Isaac Lab's HDF5 demonstrations and Isaac Sim's episode-recorder sessions.

Neither format holds everything an Episode needs (joint names, lens, pictures …). What a file has is used, what it lacks
is taken from arguments, and what is still missing is listed, all at once, with the argument that supplies it; nothing is
guessed. Both come in metres; quaternions are (w, x, y, z) unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64, UInt8
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
from retake.core.errors import EpisodeError, InputError, MissingDependencyError, install_hint
from retake.core.files import read_json
from retake.core.geometry import CV_FROM_USD, inverse, pose_from_wxyz, wxyz_from_xyzw
from retake.core.robot import WORLD, RobotSpec
from retake.core.urdf import read_urdf
from retake.core.video import read_video


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


def import_isaaclab(source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()) -> Episode:
    """One demonstration of an Isaac Lab HDF5 file (data/demo_N with `states/articulation/<robot>/…`) as an Episode.

    `arguments`: --demo, --robot, --joints, --fps, --camera NAME=FILE.json, --task, --quaternion. Raises EpisodeError listing
    everything that is missing, MissingDependencyError without h5py.
    """
    options = _isaaclab_options(arguments)
    with _open_hdf5(source) as file:
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
        robot = _robot(urdf, missing)
        fps, dt = _rate(arguments_of_env, options.fps, missing)
        if robot is not None and joints and (unknown := [j for j in joints if j not in robot.dof_names]):
            missing.add(
                f"joints {', '.join(unknown)} of the URDF", f"names from {', '.join(robot.dof_names)} in file order"
            )
        missing.check()
        assert robot is not None
        q = _reorder(np.asarray(state["joint_position"], np.float64), joints, robot, source)
        base = _poses(np.asarray(state["root_pose"], np.float64), options.quaternion)
        links = robot.forward_kinematics(q, base)
        velocity = state.get("joint_velocity")
        dq = None if velocity is None else _reorder(np.asarray(velocity, np.float64), joints, robot, source)
        objects = tuple(
            (
                ObjectSpec(_clean(key), f"/{key}", key, (0.0, 0.0, 0.0)),
                _poses(np.asarray(group["root_pose"], np.float64), options.quaternion),
            )
            for key, group in (demo.get("states/rigid_object") or {}).items()
        )
        cameras = tuple(_observed_camera(demo, given, len(q), source) for given in options.camera)
        task = options.task or str(arguments_of_env.get("env_name", ""))
        recorded = Recorded(robot, fps, dt, q, links, objects, dq, None, cameras, task, "isaac-lab")
        return write(recorded, out, {"source": source.name, "demo": demo.name.rsplit("/", 1)[-1]})


def import_episode_recorder(
    source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()
) -> Episode:
    """One episode of an Isaac Sim episode-recorder session (HDF5, schema 2) as an Episode.

    The session holds link poses, not joints: joint positions are computed back from them, exactly. It holds no pictures:
    --images CAMERA=VIDEO supplies them. `arguments`: --episode, --robot, --fps, --images, --size, --task. Raises EpisodeError
    listing everything that is missing.
    """
    options = _recorder_options(arguments)
    with _open_hdf5(source) as file:
        missing = Missing(source, "Isaac Sim episode recorder")
        version = int(file.attrs.get("schema_version", 0))
        if version != 2 or "manifest" not in file:
            raise EpisodeError(
                f"{source} has schema {version}; expected an episode-recorder session with schema_version 2"
            )
        tracks = json.loads(_text(file["manifest/tracks"][()]))
        group = _recorder_episode(file, options.episode, source)
        arms = [t for t in tracks if t["type"] == "articulation"]
        arm = next((t for t in arms if options.robot in (t["prim_path"], t["group"], "")), None)
        if arm is None:
            missing.add(
                "an articulation track",
                f"--robot with one of {', '.join(t['prim_path'] for t in arms) or '(none recorded)'}",
            )
        robot = _robot(urdf, missing)
        times = next(
            (group[t["group"]]["sim_time"] for t in tracks if t["type"] == "sim_time" and t["group"] in group), None
        )
        fps = options.fps
        if times is None and not fps:
            missing.add("frame times", "--fps (the session has no sim_time track)")
        elif times is not None and not fps:
            fps = 1.0 / float(np.median(np.diff(np.asarray(times, np.float64))))
        missing.check()
        assert arm is not None
        assert robot is not None
        poses = _link_poses(group, arm, robot, source)
        q = joints_from_links(robot, poses)
        objects = tuple(
            (
                ObjectSpec(
                    _clean(t["prim_path"].rsplit("/", 1)[-1]),
                    t["prim_path"],
                    t["prim_path"].rsplit("/", 1)[-1],
                    (0.0, 0.0, 0.0),
                ),
                pose_from_wxyz(
                    np.asarray(group[t["group"]]["position"], np.float64),
                    np.asarray(group[t["group"]]["orientation"], np.float64),
                ),
            )
            for t in tracks
            if t["type"] == "rigid_body"
        )
        cameras = tuple(
            _recorded_camera(group, tracks, given, options.size, len(q), source) for given in options.images
        )
        recorded = Recorded(robot, fps, 1.0 / fps, q, poses, objects, None, None, cameras, options.task, "isaac-sim")
        return write(recorded, out, {"source": source.name, "episode": group.name.rsplit("/", 1)[-1]})


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
            CameraSpec(name, f"/{name}", views[0].size, _is_static(views), ("rgb",))
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
                CameraFrame(cameras[t].K, cameras[t].T_camera_world, np.ascontiguousarray(images[t]))
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


# -- Isaac Lab ------------------------------------------------------------------------------------------------------------


def _isaaclab_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="retake import isaaclab")
    parser.add_argument("--demo", default="demo_0", help="which demonstration")
    parser.add_argument("--robot", default="", help="name of the articulation, where there are several")
    parser.add_argument("--joints", type=_names, default=(), help="joint names in file order, comma-separated")
    parser.add_argument("--fps", type=float, default=0.0, help="recorded steps per second, where the file does not say")
    parser.add_argument(
        "--camera", action="append", type=_pair, default=[], help="observation=FILE.json with K and T_camera_world"
    )
    parser.add_argument("--task", default="")
    parser.add_argument(
        "--quaternion", choices=("wxyz", "xyzw"), default="wxyz", help="order in the file (Isaac Lab 3: xyzw)"
    )
    return parser.parse_args(list(arguments))


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
        return tuple(_text(name) for name in stored)
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected JSON with K (3x3, px) and T_camera_world (4x4, OpenCV axes, m): {error}"
        ) from error
    camera = Camera(K, T, (int(images.shape[2]), int(images.shape[1])))
    return _clean(name), [camera] * frames, [np.asarray(images[t])[..., :3] for t in range(frames)]


# -- episode recorder -----------------------------------------------------------------------------------------------------


def _recorder_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="retake import episode-recorder")
    parser.add_argument("--episode", default="episode_00000", help="which episode of the session")
    parser.add_argument("--robot", default="", help="prim path of the articulation, where there are several")
    parser.add_argument("--fps", type=float, default=0.0, help="where the session has no sim_time track")
    parser.add_argument(
        "--images", action="append", type=_pair, default=[], help="camera prim path or group = video file"
    )
    parser.add_argument("--size", type=_size, default=None, help="WIDTHxHEIGHT, where the manifest has no resolution")
    parser.add_argument("--task", default="")
    return parser.parse_args(list(arguments))


def _recorder_episode(file: Any, name: str, source: Path) -> Any:
    episodes = list(file.get("episodes") or ())
    if name not in episodes:
        raise EpisodeError(f"{source} has no {name!r}; it has: {', '.join(episodes[:8]) or 'no episodes'}")
    return file["episodes"][name]


def _link_poses(group: Any, arm: dict[str, Any], robot: RobotSpec, source: Path) -> Float64[np.ndarray, "T L 4 4"]:
    names = [path.rsplit("/", 1)[-1] for path in arm["link_paths"]]
    if absent := [link.name for link in robot.links if link.name not in names]:
        raise EpisodeError(f"{source}: no poses of the links {', '.join(absent)}; it recorded {', '.join(names)}")
    order = [names.index(link.name) for link in robot.links]
    data = group[arm["group"]]
    return pose_from_wxyz(
        np.asarray(data["positions"], np.float64)[:, order], np.asarray(data["orientations"], np.float64)[:, order]
    )


def _recorded_camera(
    group: Any,
    tracks: list[dict[str, Any]],
    given: tuple[str, Path],
    size: tuple[int, int] | None,
    frames: int,
    source: Path,
) -> tuple[str, list[Camera], list[UInt8[np.ndarray, "H W 3"]]]:
    name, path = given
    cameras = [t for t in tracks if t["type"] == "camera"]
    track = next((t for t in cameras if name in (t["prim_path"], t["group"])), None)
    if track is None:
        raise EpisodeError(
            f"{source} recorded no camera {name!r}; it has: {', '.join(t['prim_path'] for t in cameras) or 'none'}"
        )
    images = list(read_video(path))
    if len(images) < frames:
        raise EpisodeError(f"{path} has {len(images)} frames for {frames} recorded states")
    height, width = images[0].shape[:2]
    wanted = size or tuple(track.get("resolution") or (width, height))
    if tuple(wanted) != (width, height):
        raise EpisodeError(f"{path} is {width}x{height}; the session's camera {name} renders {wanted[0]}x{wanted[1]}")
    data = group[track["group"]]
    poses = (
        pose_from_wxyz(np.asarray(data["position"], np.float64), np.asarray(data["orientation"], np.float64))
        @ CV_FROM_USD
    )
    out = []
    for t in range(frames):
        # Omniverse renders square pixels: the vertical aperture does not enter.
        f = float(data["focal_length"][t]) / float(data["horizontal_aperture"][t]) * width
        K = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1.0]])
        out.append(Camera(K, inverse(poses[t]), (width, height)))
    return _clean(track["prim_path"].rsplit("/", 1)[-1]), out, images[:frames]


# -- small things ---------------------------------------------------------------------------------------------------------


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"reading HDF5 needs h5py: {install_hint('export')}") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise EpisodeError(f"{path} is not a readable HDF5 file: {error}") from error


def _robot(urdf: Path | None, missing: Missing) -> RobotSpec | None:
    if urdf is None:
        missing.add("the robot's links and joints", "--urdf robot.urdf")
        return None
    return replace(read_urdf(urdf))


def _poses(rows: np.ndarray[Any, Any], order: str) -> Float64[np.ndarray, "T 4 4"]:
    quaternion = rows[:, 3:7] if order == "wxyz" else wxyz_from_xyzw(rows[:, 3:7])
    return pose_from_wxyz(rows[:, :3], quaternion)


def _is_static(views: Sequence[Camera]) -> bool:
    return all(np.array_equal(view.T_camera_world, views[0].T_camera_world) for view in views)


def _clean(name: str) -> str:
    """A name that may be a folder."""
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name).strip("_.-") or "unnamed"


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pair(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FILE")
    return name, Path(path)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT") from None
