# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets as Episodes: recorded demonstrations enter the arrow and get takes too.

Needed beside the dataset: the robot (URDF or RobotSpec) and, per camera, its calibration. Link poses follow from the
recorded joint positions by forward kinematics; nothing that was not recorded is invented (no objects, no contacts, no
units, no gripper).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from retake.core.episode import (
    MISSING_GRIPPERS,
    CameraFrame,
    CameraSpec,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    RobotState,
    open_episode,
)
from retake.core.errors import InputError, unknown_name
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import SOURCE_TIME
from retake.core.files import atomic_directory, sha256_json
from retake.core.importers.footage import StillWatch, check_clock, grid
from retake.core.importers.lerobot_records import Calibration, ImportOptions, load_calibration
from retake.core.importers.lerobot_vectors import StateVectors
from retake.core.importers.recorded import folder_name
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robot import RobotSpec

Say = Callable[[str], None]


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
    say: Say = lambda text: None,
) -> list[Episode]:
    """Episodes of a dataset as `out`/episode_<index>, motion_source 'recorded'. Those that are there already are kept.

    `say` is told how each unit is known, and what of the recording a user should know. Raises ExportError for an
    unreadable dataset, InputError when joints, units, cameras, times or episodes do not fit.
    """
    data, options = Dataset(dataset), options or ImportOptions()
    keys = camera_keys(data, tuple(cameras), options.image_keys)
    for camera in cameras.values():
        if camera.link:
            robot.link_index(camera.link)
    read = StateVectors(data, robot, options)
    rows = [row for row in data.episodes() if episodes is None or row.index in episodes]
    if not rows and not any(True for _ in data.episodes()):
        raise InputError(
            f"{data.root} lists no episode (meta/episodes.jsonl, or meta/episodes/ of v3.0, is missing or empty)"
        )
    if not rows:
        raise InputError(f"{data.root} has episodes 0 … {len(data) - 1}; asked were {list(episodes or [])}")
    made, done, total, said = [], 0, sum(row.length for row in rows), set[str]()

    def say_once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    for row in rows:

        def advance(frame: int, done: int = done, index: int = row.index) -> None:
            check_cancel()
            progress(done + frame, total, f"episode {index}")

        folder = Path(out) / f"episode_{row.index:06d}"
        made.append(_import_one(data, row, folder, robot, cameras, keys, options, read, advance, say_once))
        done += row.length
    progress(total, total, "")
    return made


def camera_keys(data: Dataset, cameras: Sequence[str], stated: Mapping[str, str]) -> dict[str, str]:
    """Camera of the calibration → feature of its pictures: as stated, or the feature of that name, whole or last part.

    Raises InputError listing the dataset's cameras.
    """
    features = tuple(data.schema.cameras)
    for name, key in stated.items():
        if name not in cameras:
            raise InputError(unknown_name("camera of --image-key (the calibration's names)", name, cameras))
        if key not in features:
            raise InputError(unknown_name("picture feature of --image-key", key, features))
    out = dict(stated)
    names = {camera_name(key): key for key in features}
    for name in cameras:
        ends = [key for key in features if name in (key, camera_name(key), folder_name(key))]
        ends = ends or [key for key in features if key.replace("/", ".").rsplit(".", 1)[-1] == name]
        if name not in out and len(ends) == 1:
            out[name] = ends[0]
    missing = [name for name in cameras if name not in out]
    if missing or not cameras:
        have = ", ".join(f"{n} ({k})" if n != k else n for n, k in names.items()) or "none"
        raise InputError(
            f"no picture feature is called {', '.join(missing) or '(the calibration names no camera)'}; the dataset has: {have}. "
            f"Rename the calibration's camera, or say which is which: --image-key {missing[0] if missing else 'CAMERA'}=FEATURE"
        )
    return out


def camera_name(key: str) -> str:
    """A picture feature's short name: `observation.images.front` → `front`, `image` → `image`."""
    for prefix in ("observation.images.", "observation.image.", "observation."):
        if key.startswith(prefix) and len(key) > len(prefix):
            return folder_name(key.removeprefix(prefix))
    return folder_name(key)


def _import_one(
    data: Dataset,
    row: Row,
    out: Path,
    robot: RobotSpec,
    cameras: Mapping[str, Calibration],
    keys: Mapping[str, str],
    options: ImportOptions,
    read: StateVectors,
    advance: Callable[[int], None],
    say: Say,
) -> Episode:
    columns, fps = data.columns(row), data.schema.fps
    where = f"episode {row.index} of {data.root.name}"
    at = grid(columns.get("timestamp"), row.length, fps, resample=options.resample, where=where)
    motion = read.read(columns, where, at)
    for key in (keys[name] for name in cameras):
        if key in row.videos:
            check_clock(row.videos[key], fps, f"{where}, {key}")
    missing = [f"{robot.name}/{gripper}" for gripper in read.entries.missing]
    resampled = len(at.time_s) != row.length or bool((at.place != np.arange(row.length)).any())
    header = EpisodeHeader(
        task=row.task,
        fps=fps,
        physics_dt_s=1 / fps,
        robots=(robot,),
        cameras=tuple(
            CameraSpec(name, "", data.schema.cameras[keys[name]], not c.link, ("rgb",), lens=c.lens)
            for name, c in cameras.items()
        ),
        simulator="recorded",
        motion_source="recorded",
        joint_channels=("target",) if motion.target is not None else (),
        settings={
            "import": {
                "layout": data.version,
                "dataset": data.root.name,
                "episode": row.index,
                "source_uid": row.provenance.get("uid"),
                "rows_sha256": sha256_json(
                    [motion.position.tolist(), [] if motion.target is None else motion.target.tolist()]
                ),
                "units": dict(motion.units),
                **({"resampled": True} if resampled else {}),
            },
            **({MISSING_GRIPPERS: missing} if missing else {}),
            **({"licence": options.licence} if options.licence else {}),
        },
    )
    for note in motion.notes:
        say(note)
    if out.exists():
        existing = open_episode(out)
        if existing.header.settings.get("import") != header.settings["import"]:
            raise InputError(f"{out} holds another episode; choose another folder (nothing was changed)")
        return existing
    poses = robot.forward_kinematics(motion.position, options.T_world_base)
    own_time = SOURCE_TIME in columns and not resampled
    time = columns[SOURCE_TIME] if own_time else at.time_s
    scale = np.array([1.0 if joint.kind == "revolute" else 10.0 for joint in robot.dof_joints])
    still = StillWatch(motion.position * scale)
    streams = {name: _Pictures(data, row, keys[name]) for name in cameras}
    with atomic_directory(out) as temporary, EpisodeWriter(temporary, header) as writer:
        for k, source in enumerate(at.row):
            advance(min(k, row.length))
            views = []
            for name, camera in cameras.items():
                T = camera.T_camera_world
                if camera.link:
                    T = T @ np.linalg.inv(poses[k, robot.link_index(camera.link)])
                picture = streams[name].at(int(source))
                still.see(name, k, picture)
                views.append(CameraFrame(camera.K, T, picture, lens=camera.lens))
            joint_target = None if motion.target is None else motion.target[k]
            robots = (RobotState(motion.position[k], poses[k], motion.openness[k], joint_target=joint_target),)
            writer.append(Frame(float(time[k]), robots, np.zeros((0, 4, 4)), tuple(views)))
        for stream in streams.values():
            stream.end()
        writer.finish()
    for note in still.notes():
        say(f"{where}: {note}")
    return open_episode(out)


class _Pictures:
    """Pictures of one camera by row, asked for in order: one in memory at a time."""

    def __init__(self, data: Dataset, row: Row, key: str) -> None:
        self._frames, self._row, self._picture = data.frames(row, key), -1, np.zeros((0, 0, 3), np.uint8)

    def at(self, row: int) -> np.ndarray:
        """(H, W, 3) RGB uint8 of a row at or after the last one asked for."""
        while self._row < row:
            self._picture, self._row = np.ascontiguousarray(next(self._frames)), self._row + 1
        return self._picture

    def end(self) -> None:
        """Read what is left, so that a stream that ends early is found out."""
        for _ in self._frames:
            pass


__all__ = ["Calibration", "ImportOptions", "camera_keys", "camera_name", "import_lerobot", "load_calibration"]
