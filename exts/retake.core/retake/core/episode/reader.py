# SPDX-License-Identifier: Apache-2.0
"""Episode: a frozen view of an episode folder. Opening checks the header, the commit log's hash chain and every state
record; images are checked against their hashes when they are read, or all at once by `verify()`.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.camera import Camera
from retake.core.episode import layout
from retake.core.episode.records import CameraFrame, Contact, EpisodeHeader, Frame, PhysicsSamples, RobotState
from retake.core.errors import EpisodeError, unknown_name
from retake.core.files import canonical_json, mark_of, read_json, sha256_bytes, sha256_json


@dataclass(frozen=True, eq=False)
class Episode:
    """One captured run on disk. Frames load one at a time; numeric state is a memory-mapped table.

    `==` is identity; two folders hold the same episode where their `content_sha256` is equal.
    """

    path: Path
    header: EpisodeHeader
    complete: bool
    """False when the capture was interrupted: the frames up to the last committed one are here."""
    content_sha256: str
    """Head of the commit log's hash chain over header, states and files; times of day and host data are outside."""
    _log: tuple[dict[str, Any], ...]
    _state: np.ndarray
    _physics: np.ndarray
    _physics_start: tuple[int, ...]

    def __len__(self) -> int:
        """Number of complete frames."""
        return len(self._log)

    def __repr__(self) -> str:
        """One line: the tables would fill screens of an interactive session."""
        cameras = ", ".join(camera.name for camera in self.header.cameras) or "no cameras"
        return f"<Episode {self.path}: {len(self)} frames at {self.header.fps:g} fps, {cameras}>"

    @property
    def time_s(self) -> Float64[np.ndarray, "T"]:
        """Simulation time of each frame."""
        return np.array(self._state["time_s"])

    def joint(self, robot: str, channel: str) -> Float64[np.ndarray, "T D"]:
        """Joint `position`, `velocity`, `effort` or `target` of every frame, rad or m."""
        if channel != "position" and channel not in self.header.joint_channels:
            raise EpisodeError(
                unknown_name(f"joint channel of {self.path}", channel, ("position", *self.header.joint_channels))
            )
        return np.array(self._state[f"robot/{self._robot(robot)}/joint_{channel}"])

    def link_poses(self, robot: str) -> Float64[np.ndarray, "T L 4 4"]:
        """World pose of every link at every frame."""
        return np.array(self._state[f"robot/{self._robot(robot)}/T_world_link"])

    def gripper_openness(self, robot: str) -> Float64[np.ndarray, "T G"]:
        """Openness 0..1 of every gripper at every frame."""
        return np.array(self._state[f"robot/{self._robot(robot)}/gripper_openness"])

    @property
    def object_poses(self) -> Float64[np.ndarray, "T O 4 4"]:
        """World pose of every object at every frame."""
        return np.array(self._state["T_world_object"])

    def camera_matrices(self, camera: str) -> tuple[Float64[np.ndarray, "T 3 3"], Float64[np.ndarray, "T 4 4"]]:
        """(K, T_camera_world) of every frame."""
        name = self.header.camera(camera).name
        return np.array(self._state[f"camera/{name}/K"]), np.array(self._state[f"camera/{name}/T_camera_world"])

    @property
    def staging(self) -> str:
        """Names what movable objects are shown as where that is not what was simulated (`painter.staged`); else empty."""
        return ""

    def camera(self, name: str, index: int) -> Camera:
        """K, pose, size and lens of one camera at one frame."""
        return layout.camera_of(self._state[index], self.header.camera(name))

    def contacts(self, index: int) -> tuple[Contact, ...]:
        """Contacts at one frame."""
        return tuple(layout.contact_from_json(x) for x in self._log[index]["contacts"])

    def physics(self, index: int) -> PhysicsSamples | None:
        """Object poses at physics rate between frame index-1 and index; None where none were recorded."""
        start, count = self._physics_start[index], self._log[index]["physics"][0]
        if not count:
            return None
        block = np.array(self._physics[start : start + count])
        return PhysicsSamples(block["time_s"].copy(), block["T_world_object"].copy())

    def image(self, camera: str, channel: str, index: int) -> np.ndarray:
        """One image, checked against its hash. Raises EpisodeError when it is missing, changed or not recorded."""
        spec = self.header.camera(camera)
        if channel not in spec.channels:
            raise EpisodeError(unknown_name(f"image of camera {camera!r}", channel, spec.channels))
        relative = layout.image_path(camera, channel, range(len(self))[index])
        image = layout.decode_image(
            channel, self._checked_bytes(relative, range(len(self))[index]), self.path / relative
        )
        width, height = spec.size
        if image.shape[:2] != (height, width):
            raise EpisodeError(
                f"{self.path / relative} is {image.shape[1]}x{image.shape[0]}; expected {width}x{height}"
            )
        return image

    def camera_frame(self, camera: str, index: int) -> CameraFrame:
        """All images of one camera at one frame, with its matrices."""
        spec, matrices = self.header.camera(camera), self.camera(camera, index)
        every = {channel: self.image(camera, channel, index) for channel in spec.channels}
        return CameraFrame(
            matrices.K,
            matrices.T_camera_world,
            every["rgb"],
            every.get("depth"),
            every.get("normals"),
            every.get("instances"),
            spec.lens,
        )

    def frame(self, index: int) -> Frame:
        """One whole frame."""
        index = range(len(self))[index]
        record = self._state[index]
        robots = []
        for spec in self.header.robots:
            joints = {f"joint_{c}": record[f"robot/{spec.name}/joint_{c}"].copy() for c in self.header.joint_channels}
            robots.append(
                RobotState(
                    record[f"robot/{spec.name}/joint_position"].copy(),
                    record[f"robot/{spec.name}/T_world_link"].copy(),
                    record[f"robot/{spec.name}/gripper_openness"].copy(),
                    **joints,
                )
            )
        cameras = tuple(self.camera_frame(c.name, index) for c in self.header.cameras)
        return Frame(
            float(record["time_s"]),
            tuple(robots),
            record["T_world_object"].copy(),
            cameras,
            self.contacts(index),
            self.physics(index),
        )

    def frames(self) -> Iterator[Frame]:
        """All frames, one in memory at a time."""
        return (self.frame(index) for index in range(len(self)))

    def verify(self) -> None:
        """Check every image file against its hash. Raises EpisodeError naming the first damaged file."""
        for index, line in enumerate(self._log):
            for relative in line["files"]:
                self._checked_bytes(relative, index)

    def _robot(self, name: str) -> str:
        names = [robot.name for robot in self.header.robots]
        if name not in names:
            raise EpisodeError(unknown_name(f"robot of {self.path}", name, names))
        return name

    def _checked_bytes(self, relative: str, index: int) -> bytes:
        path = self.path / relative
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EpisodeError(
                f"{path} cannot be read ({error.strerror}); the commit log lists it for frame {index}"
            ) from error
        if (found := sha256_bytes(data)) != (expected := self._log[index]["files"][relative]):
            raise EpisodeError(
                f"{path} was changed or cut short: its SHA-256 is {found[:12]}…, recorded was {expected[:12]}…"
            )
        return data


def open_episode(path: Path | str, *, allow_incomplete: bool = False) -> Episode:
    """Open an episode folder.

    An interrupted capture (no complete.json) opens only with `allow_incomplete=True`, up to its last complete frame.
    Raises EpisodeError naming the file and what was expected, for a missing, empty, foreign, truncated or tampered
    folder and for another schema version.
    """
    path = Path(path)
    key = _unchanged_since(path)
    if key is not None and (known := _open.get(key)) is not None:
        return known
    episode = _read(path, allow_incomplete)
    if key is not None and key == _unchanged_since(path):
        _open[key] = episode
    return episode


_open: weakref.WeakValueDictionary[tuple[Any, ...], Episode] = weakref.WeakValueDictionary()
"""Whole episodes that somebody in this process holds: the stages of one run share what was read and checked once."""


def _unchanged_since(path: Path) -> tuple[Any, ...] | None:
    """Equal as long as an episode's files are; None for one that is not whole, or changed a moment ago."""
    names = (layout.COMPLETE, layout.HEADER, layout.LOG, layout.STATE, layout.PHYSICS)
    try:
        marks = [mark_of(path / name) for name in names]
    except OSError:
        return None
    return None if None in marks else (os.fspath(path), *marks)


def _read(path: Path, allow_incomplete: bool) -> Episode:
    if not path.is_dir():
        raise EpisodeError(
            f"{path} is not a folder; an episode is a folder with {layout.HEADER}, {layout.LOG} and cameras/"
        )
    content = _json(path / layout.HEADER)
    header = layout.header_from_json(content, path / layout.HEADER)
    try:
        expected_dtypes, chain = layout.header_to_json(header), sha256_json(content)
    except (TypeError, ValueError, OverflowError) as error:
        raise EpisodeError(f"{path / layout.HEADER} is damaged: {type(error).__name__}: {error}") from error
    for name in ("state_dtype", "physics_dtype"):
        if content.get(name) != expected_dtypes[name]:
            raise EpisodeError(f"{path / layout.HEADER}: {name} does not follow from its robots, objects and cameras")
    finished = (path / layout.COMPLETE).exists()
    done = _json(path / layout.COMPLETE) if finished else None
    if done is None and not allow_incomplete:
        raise EpisodeError(
            f"{path} is an interrupted capture ({layout.COMPLETE} is missing); recapture, or open it as incomplete"
        )
    lines, chain = _read_log(path / layout.LOG, chain, strict=finished)
    if not lines:
        raise EpisodeError(f"{path} holds no complete frame")
    if done is not None and (
        not isinstance(done, dict) or done.get("frames") != len(lines) or done.get("content_sha256") != chain
    ):
        raise EpisodeError(
            f"{path / layout.COMPLETE} does not match {layout.LOG}: found {len(lines)} frames with hash {chain[:12]}…, "
            f"it states {done}"
        )
    state = _read_table(path / layout.STATE, layout.state_dtype(header), len(lines), strict=finished)
    counts = [line["physics"][0] for line in lines]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    physics = _read_table(path / layout.PHYSICS, layout.physics_dtype(header), int(starts[-1]), strict=finished)
    for index, line in enumerate(lines):
        if sha256_bytes(state[index].tobytes()) != line["state"] or (
            counts[index] and sha256_bytes(physics[starts[index] : starts[index + 1]].tobytes()) != line["physics"][1]
        ):
            raise EpisodeError(
                f"{path}: the recorded state of frame {index} ({layout.STATE} or {layout.PHYSICS}) was changed"
            )
    return Episode(path, header, finished, chain, tuple(lines), state, physics, tuple(int(s) for s in starts[:-1]))


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise EpisodeError(f"{path} is missing; is {path.parent} an episode folder?") from error
    except (OSError, ValueError) as error:
        raise EpisodeError(f"{path} is not readable JSON: {error}") from error


def _read_log(path: Path, chain: str, *, strict: bool) -> tuple[list[dict[str, Any]], str]:
    """Lines of the commit log whose hashes chain from the header. An interrupted log may end in a torn line."""
    try:
        rows = path.read_bytes().split(b"\n")
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read ({error.strerror}); it is the episode's list of frames") from error
    torn, lines = rows.pop(), []
    if strict and torn:
        raise EpisodeError(f"{path} ends in an incomplete line although the episode is marked complete")
    for number, row in enumerate(rows):
        try:
            line = json.loads(row)
            recorded = line.pop("hash")
            actual = sha256_bytes(canonical_json(line))
            good = line["i"] == number and line["prev"] == chain and recorded == actual
        except (ValueError, KeyError, TypeError, AttributeError):
            good, recorded = False, ""
        if not good:
            hint = "the header or the log was changed" if number == 0 else "the log was changed"
            raise EpisodeError(f"{path} line {number + 1} does not continue the hash chain: {hint}")
        lines.append(line)
        chain = recorded
    return lines, chain


def _read_table(path: Path, dtype: np.dtype[Any], rows: int, *, strict: bool) -> np.ndarray:
    expected = rows * dtype.itemsize
    try:
        size = path.stat().st_size
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read ({error.strerror})") from error
    if size < expected or (strict and size != expected):
        raise EpisodeError(f"{path} has {size} bytes; {rows} records of {dtype.itemsize} bytes need {expected}")
    if rows == 0 or dtype.itemsize == 0:
        return np.zeros(rows, dtype)
    return np.memmap(path, dtype, "r", shape=(rows,))
