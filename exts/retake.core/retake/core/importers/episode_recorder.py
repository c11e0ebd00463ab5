# SPDX-License-Identifier: Apache-2.0
"""Isaac Sim's episode-recorder sessions (HDF5) as Episodes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.camera import Camera, require_size
from retake.core.episode import (
    Episode,
    ObjectSpec,
)
from retake.core.errors import EpisodeError
from retake.core.geometry import CV_FROM_USD, inverse, pose_from_wxyz
from retake.core.importers.footage import TOLERANCE_S
from retake.core.importers.recorded import (
    Missing,
    Recorded,
    folder_name,
    hdf5_recording,
    joints_from_links,
    name_and_path,
    robot_of,
    text_of,
    write,
)
from retake.core.robot import RobotSpec
from retake.core.video import read_video


def import_episode_recorder(
    source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()
) -> Episode:
    """One episode of an Isaac Sim episode-recorder session (HDF5, schema 2) as an Episode.

    The session holds link poses, not joints: joint positions are computed back from them, exactly. It holds no pictures:
    --images CAMERA=VIDEO supplies them. `arguments`: --episode, --robot, --fps, --images, --size, --task. Raises EpisodeError
    listing everything that is missing.
    """
    options = parser().parse_args(list(arguments))
    with hdf5_recording(source, "Isaac Sim's episode recorder") as file:
        missing = Missing(source, "Isaac Sim episode recorder")
        version = int(file.attrs.get("schema_version", 0))
        if version != 2 or "manifest" not in file:
            raise EpisodeError(
                f"{source} has schema {version}; expected an episode-recorder session with schema_version 2"
            )
        tracks = json.loads(text_of(file["manifest/tracks"][()]))
        group = _recorder_episode(file, options.episode, source)
        arms = [t for t in tracks if t["type"] == "articulation"]
        arm = next((t for t in arms if options.robot in (t["prim_path"], t["group"], "")), None)
        if arm is None:
            missing.add(
                "an articulation track",
                f"--robot with one of {', '.join(t['prim_path'] for t in arms) or '(none recorded)'}",
            )
        robot = robot_of(urdf, missing)
        times = next(
            (group[t["group"]]["sim_time"] for t in tracks if t["type"] == "sim_time" and t["group"] in group), None
        )
        fps = options.fps
        if times is None and not fps:
            missing.add("frame times", "--fps (the session has no sim_time track)")
        missing.check()
        assert arm is not None
        assert robot is not None
        poses = _link_poses(group, arm, robot, source)
        if times is not None and not fps:
            fps = _rate(np.asarray(times, np.float64).reshape(-1), len(poses), source)
        q = joints_from_links(robot, poses)
        objects = tuple(
            (
                ObjectSpec(
                    folder_name(t["prim_path"].rsplit("/", 1)[-1]),
                    t["prim_path"],
                    t["prim_path"].rsplit("/", 1)[-1],
                    (0.0, 0.0, 0.0),
                ),
                _poses(group[t["group"]], ("position", "orientation"), 2, source),
            )
            for t in tracks
            if t["type"] == "rigid_body"
        )
        cameras = tuple(
            _recorded_camera(group, tracks, given, options.size, len(q), source) for given in options.images
        )
        origin = {"source": source.name, "episode": group.name.rsplit("/", 1)[-1]}
        if short := [spec.name for spec, rows in objects if len(rows) != len(q)]:
            raise EpisodeError(
                f"{source} has another number of poses of {', '.join(short)} than of the robot ({len(q)})"
            )
    recorded = Recorded(robot, fps, 1.0 / fps, q, poses, objects, None, None, cameras, options.task, "isaac-sim")
    return write(recorded, out, origin)


def parser() -> argparse.ArgumentParser:
    """Arguments of the episode-recorder import."""
    out = argparse.ArgumentParser(prog="retake import episode-recorder")
    out.add_argument("--episode", default="episode_00000", help="which episode of the session")
    out.add_argument("--robot", default="", help="prim path of the articulation, where there are several")
    out.add_argument("--fps", type=float, default=0.0, help="where the session has no sim_time track")
    out.add_argument(
        "--images", action="append", type=name_and_path, default=[], help="camera prim path or group = video file"
    )
    out.add_argument("--size", type=_size, default=None, help="WIDTHxHEIGHT, where the manifest has no resolution")
    out.add_argument("--task", default="")
    return out


def _recorder_episode(file: Any, name: str, source: Path) -> Any:
    episodes = list(file.get("episodes") or ())
    if name not in episodes:
        raise EpisodeError(f"{source} has no {name!r}; it has: {', '.join(episodes[:8]) or 'no episodes'}")
    return file["episodes"][name]


def _rate(times: Float64[np.ndarray, "N"], frames: int, source: Path) -> float:
    """Frames per second of recorded times. Raises EpisodeError by number where they are no even clock of all frames."""
    hint = "; --fps RATE takes the frames as evenly spaced"
    if len(times) != frames or frames < 2:
        raise EpisodeError(f"{source} has {len(times)} times for {frames} frames{hint}")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        row = int(np.argmax(~(np.diff(times) > 0))) + 1
        raise EpisodeError(
            f"{source}: the time of frame {row} is {times[row]:g} s, not after that of the one before it{hint}"
        )
    away = np.abs(times - np.linspace(times[0], times[-1], frames))
    # float32 seconds are coarser the longer an episode lasts.
    if (away > TOLERANCE_S + np.abs(times) * 2.0**-22).any():
        row = int(np.argmax(away))
        raise EpisodeError(
            f"{source}: the clock is uneven: frame {row} is {away[row]:.4f} s from its place among {frames} frames at "
            f"{(frames - 1) / (times[-1] - times[0]):.3f} per second{hint}"
        )
    return float((frames - 1) / (times[-1] - times[0]))


def _link_poses(group: Any, arm: dict[str, Any], robot: RobotSpec, source: Path) -> Float64[np.ndarray, "T L 4 4"]:
    names = [path.rsplit("/", 1)[-1] for path in arm["link_paths"]]
    if absent := [link.name for link in robot.links if link.name not in names]:
        raise EpisodeError(f"{source}: no poses of the links {', '.join(absent)}; it recorded {', '.join(names)}")
    order = [names.index(link.name) for link in robot.links]
    return _poses(group[arm["group"]], ("positions", "orientations"), 3, source)[:, order]


def _poses(data: Any, names: tuple[str, str], axes: int, source: Path) -> Float64[np.ndarray, "*n 4 4"]:
    """Poses of a track's positions (m) and quaternions (w, x, y, z). Raises EpisodeError where the two do not fit."""
    p, q = (np.asarray(data[name], np.float64) for name in names)
    if p.ndim != axes or p.shape[:-1] != q.shape[:-1] or (p.shape[-1], q.shape[-1]) != (3, 4):
        raise EpisodeError(f"{source}: {data.name} has {names[0]} {p.shape} and {names[1]} {q.shape}; they do not fit")
    return pose_from_wxyz(p, q)


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
        asked = "x".join(map(str, wanted))
        raise EpisodeError(f"{path} is {width}x{height}; the session's camera {name} renders {asked}")
    data = group[track["group"]]
    poses = _poses(data, ("position", "orientation"), 2, source) @ CV_FROM_USD
    out = []
    for t in range(frames):
        # Omniverse renders square pixels: the vertical aperture does not enter.
        f = float(data["focal_length"][t]) / float(data["horizontal_aperture"][t]) * width
        K = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1.0]])
        out.append(Camera(K, inverse(poses[t]), (width, height)))
    return folder_name(track["prim_path"].rsplit("/", 1)[-1]), out, images[:frames]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT")
    return require_size((int(width), int(height)), f"--size {text!r}")
