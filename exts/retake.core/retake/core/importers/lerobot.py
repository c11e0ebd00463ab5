# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets as Episodes: recorded demonstrations enter the arrow and get takes too.

Needed beside the dataset: the robot (URDF or RobotSpec) and, per camera, its calibration. Link poses follow from the
recorded joint positions by forward kinematics; nothing that was not recorded is invented (no objects, no contacts).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64
from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    RobotState,
    open_episode,
)
from retake.core.errors import InputError
from retake.core.export import encode
from retake.core.export.collect import IMAGE
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import ACTION, SOURCE_TIME, STATE
from retake.core.files import atomic_directory, read_json, sha256_json
from retake.core.geometry import is_rigid
from retake.core.lens import Lens
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robot import RobotSpec


@dataclass(frozen=True)
class Calibration:
    """A camera: matrices at the dataset's picture size."""

    K: Float64[np.ndarray, "3 3"]
    T_camera_world: Float64[np.ndarray, "4 4"]
    """World (robot base) → camera, OpenCV axes, m; for a camera on a link: link → camera, with `link` set."""
    link: str = ""
    """Link that carries the camera; empty for a fixed one."""
    lens: Lens | None = None
    """Distortion of its pictures; None = a pinhole."""

    def __post_init__(self) -> None:
        if self.K.shape != (3, 3) or not is_rigid(self.T_camera_world):
            raise InputError("a calibration needs K (3, 3) in px and a rigid T_camera_world (4, 4), world to camera")


@dataclass(frozen=True)
class ImportOptions:
    """How the vectors are to be read."""

    joints: Mapping[str, str] = field(default_factory=dict)
    """Joint of the robot → entry of observation.state; empty = by name (`<joint>.pos`, `<joint>`)."""
    gripper: Mapping[str, str] = field(default_factory=dict)
    """Gripper of the robot → entry that holds its openness; empty = `<gripper>.open` or from its finger joints."""
    gripper_range: tuple[float, float] = (0.0, 1.0)
    """Values of that entry when closed and when open."""
    degrees: bool = False
    """The revolute joints are in degrees."""
    T_world_base: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    licence: str = ""
    """Terms of the recording, for `--only-commercial`."""


def load_calibration(path: Path | str) -> dict[str, Calibration]:
    """Cameras of a JSON file: {name: {"K": 3x3, "T_camera_world": 4x4, "link": "", "lens": null}}. Raises InputError."""
    try:
        data = read_json(Path(path))
        return {
            name: Calibration(
                np.array(c["K"], np.float64),
                np.array(c["T_camera_world"], np.float64),
                str(c.get("link", "")),
                Lens.from_json(c.get("lens")),
            )
            for name, c in data.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: expected {{"camera": {{"K": 3x3, "T_camera_world": 4x4}}}}; {type(error).__name__}: {error}'
        ) from error


def import_lerobot(
    dataset: Path | str,
    out: Path | str,
    robot: RobotSpec,
    cameras: Mapping[str, Calibration],
    options: ImportOptions | None = None,
    *,
    episodes: Sequence[int] | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> list[Episode]:
    """Episodes of a dataset as `out`/episode_<index>, motion_source 'recorded'. Those that are there already are kept.

    Raises ExportError for an unreadable dataset, InputError when joints, cameras or episodes do not fit.
    """
    data, options = Dataset(dataset), options or ImportOptions()
    missing = [name for name in cameras if IMAGE + name not in data.schema.cameras]
    if missing or not cameras:
        have = ", ".join(k.removeprefix(IMAGE) for k in data.schema.cameras) or "none"
        raise InputError(f"calibration names cameras {missing or 'none'}; the dataset has: {have}")
    for camera in cameras.values():
        if camera.link:
            robot.link_index(camera.link)
    read = _Vectors(data, robot, options)
    rows = [row for row in data.episodes() if episodes is None or row.index in episodes]
    if not rows:
        raise InputError(f"{data.root} has episodes 0 … {len(data) - 1}; asked were {list(episodes or [])}")
    made, done, total = [], 0, sum(row.length for row in rows)
    for row in rows:

        def advance(frame: int, done: int = done, index: int = row.index) -> None:
            check_cancel()
            progress(done + frame, total, f"episode {index}")

        folder = Path(out) / f"episode_{row.index:06d}"
        made.append(_import_one(data, row, folder, robot, cameras, options, read, advance))
        done += row.length
    progress(total, total, "")
    return made


class _Vectors:
    """Where in the state and action vectors the robot's joints and grippers are."""

    def __init__(self, data: Dataset, robot: RobotSpec, options: ImportOptions) -> None:
        self.robot, self.options = robot, options
        names = data.schema.vectors[STATE].names if STATE in data.schema.vectors else ()
        if not names:
            raise InputError(f"{data.root} has no {STATE} with named entries; joints cannot be found")
        self.joints, unknown = [], []
        for joint in robot.dof_names:
            candidates = (
                [options.joints[joint]]
                if joint in options.joints
                else [f"{joint}.pos", joint, f"{robot.name}.{joint}.pos"]
            )
            found = [names.index(c) for c in candidates if c in names]
            if found:
                self.joints.append(found[0])
            else:
                unknown.append(joint)
        if unknown:
            raise InputError(
                f"joints {', '.join(unknown)} of robot {robot.name!r} have no entry in {STATE} ({', '.join(names)}); "
                "name them with `joints`"
            )
        self.grippers = []
        for gripper in robot.grippers:
            entry = options.gripper.get(gripper.name, f"{gripper.name}.open")
            if entry not in names and gripper.name in options.gripper:
                raise InputError(f"gripper entry {entry!r} is not in {STATE}: {', '.join(names)}")
            self.grippers.append(names.index(entry) if entry in names else None)
        revolute = {j.name for j in robot.joints if j.kind == "revolute"}
        self.scale = np.array([math.pi / 180 if options.degrees and n in revolute else 1.0 for n in robot.dof_names])

    def positions(self, vectors: np.ndarray) -> np.ndarray:
        """(T, D) float64 joint positions or targets, rad or m."""
        return vectors[:, self.joints].astype(np.float64) * self.scale

    def openness(self, vectors: np.ndarray) -> np.ndarray:
        """(T, G) float64 openness."""
        closed, opened = self.options.gripper_range
        out = self.robot.gripper_openness(self.positions(vectors))
        for g, entry in enumerate(self.grippers):
            if entry is not None:
                out[:, g] = np.clip((vectors[:, entry].astype(np.float64) - closed) / (opened - closed), 0, 1)
        return out


def _import_one(
    data: Dataset,
    row: Row,
    out: Path,
    robot: RobotSpec,
    cameras: Mapping[str, Calibration],
    options: ImportOptions,
    read: _Vectors,
    advance: Callable[[int], None],
) -> Episode:
    columns = data.columns(row)
    state, action = columns[STATE], columns.get(ACTION)
    # Only an action vector that names the same joints is a joint target; anything else (deltas, poses) is not one.
    # What it does not name nothing commands: the state stands there.
    names = data.schema.vectors[STATE].names
    wanted = data.schema.vectors[ACTION].names if action is not None else ()
    targets = bool(wanted) and set(wanted) <= set(names)
    if targets and action is not None:
        state_like = state.copy()
        state_like[:, [names.index(name) for name in wanted]] = action
        action = state_like
    header = EpisodeHeader(
        task=row.task,
        fps=data.schema.fps,
        physics_dt_s=1 / data.schema.fps,
        robots=(robot,),
        cameras=tuple(
            CameraSpec(name, "", data.schema.cameras[IMAGE + name], not c.link, ("rgb",), lens=c.lens)
            for name, c in cameras.items()
        ),
        simulator="recorded",
        motion_source="recorded",
        joint_channels=("target",) if targets else (),
        settings={
            "import": {
                "layout": data.version,
                "dataset": data.root.name,
                "episode": row.index,
                "source_uid": row.provenance.get("uid"),
                "rows_sha256": sha256_json([state.tolist(), [] if action is None else action.tolist()]),
            },
            **({"licence": options.licence} if options.licence else {}),
        },
    )
    if out.exists():
        existing = open_episode(out)
        if existing.header.settings.get("import") != header.settings["import"]:
            raise InputError(f"{out} holds another episode; choose another folder (nothing was changed)")
        return existing
    q, openness = read.positions(state), read.openness(state)
    poses = robot.forward_kinematics(q, options.T_world_base)
    target = read.positions(action) if targets and action is not None else None
    time = columns[SOURCE_TIME] if SOURCE_TIME in columns else np.arange(row.length) / data.schema.fps
    streams = {name: encode.read_segment(row.videos[IMAGE + name]) for name in cameras}
    with atomic_directory(out) as temporary, EpisodeWriter(temporary, header) as writer:
        for k in range(row.length):
            advance(k)
            views = []
            for name, camera in cameras.items():
                T = camera.T_camera_world
                if camera.link:
                    T = T @ np.linalg.inv(poses[k, robot.link_index(camera.link)])
                views.append(CameraFrame(camera.K, T, np.ascontiguousarray(next(streams[name])), lens=camera.lens))
            joint_target = None if target is None else target[k]
            robots = (RobotState(q[k], poses[k], openness[k], joint_target=joint_target),)
            writer.append(Frame(float(time[k]), robots, np.zeros((0, 4, 4)), tuple(views)))
        writer.finish()
    return open_episode(out)
