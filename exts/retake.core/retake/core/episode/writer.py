# SPDX-License-Identifier: Apache-2.0
"""EpisodeWriter: frames in, a crash-safe episode folder out.

A frame counts from the moment its line is in the commit log, which is written after all its bytes; so a process killed
at any instant leaves a folder that opens up to its last complete frame. Images are encoded on worker threads (OpenCV
releases the GIL); `append` waits when `queue_frames` frames are under way, so memory is bounded and nothing is dropped.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from retake.core.episode import layout
from retake.core.episode.reader import Episode, open_episode
from retake.core.episode.records import EpisodeHeader, Frame, check_frame
from retake.core.errors import EpisodeError
from retake.core.files import canonical_json, sha256_bytes, sha256_json, write_json


@dataclass(frozen=True)
class _Pending:
    """A frame under way: everything but its image hashes is known."""

    line: dict[str, Any]
    state: bytes
    physics: bytes
    images: tuple[tuple[str, Future[str]], ...]


class EpisodeWriter:
    """Writes one episode, frame by frame. Use as a context manager: leaving it without `finish()` keeps what is there.

    Raises EpisodeError when the folder already holds something, when a frame does not fit the header or is not finite,
    when two frames do not advance in time, and OSError (disk full, read-only) as the system reports it. After an error
    the frames committed before it stay readable.
    """

    def __init__(self, path: Path | str, header: EpisodeHeader, *, queue_frames: int = 4, threads: int = 2) -> None:
        self.path, self.header = Path(path), header
        if self.path.exists() and any(self.path.iterdir()):
            raise EpisodeError(f"{self.path} is not empty; an episode needs a folder of its own")
        self._dtype, self._physics_dtype = layout.state_dtype(header), layout.physics_dtype(header)
        content = layout.header_to_json(header)
        try:
            self._chain = sha256_json(content)
        except (TypeError, ValueError) as error:
            raise EpisodeError(
                f"the header cannot be written as JSON ({error}); settings and limits must be plain finite values"
            ) from error
        self.path.mkdir(parents=True, exist_ok=True)
        for camera in header.cameras:
            for channel in camera.channels:
                (self.path / "cameras" / camera.name / channel).mkdir(parents=True, exist_ok=True)
        self._count = 0
        self._last_time_s = -np.inf
        self._pending: deque[_Pending] = deque()
        self._broken = False
        self._queue_frames = queue_frames
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="episode-writer")
        self._state = (self.path / layout.STATE).open("wb")
        self._physics = (self.path / layout.PHYSICS).open("wb")
        self._log = (self.path / layout.LOG).open("wb")
        # The header comes last: a folder with a header has all its files.
        write_json(self.path / layout.HEADER, content)

    def __len__(self) -> int:
        """Frames accepted so far."""
        return self._count

    def append(self, frame: Frame) -> None:
        """Take one frame (its arrays must not change afterwards). Blocks while `queue_frames` frames are under way."""
        if self._broken:
            raise EpisodeError(f"{self.path}: writing failed before; the frames committed until then are kept")
        check_frame(frame, self.header, self._count)
        if frame.time_s <= self._last_time_s:
            raise EpisodeError(
                f"frame {self._count} has simulation time {frame.time_s} s after {self._last_time_s} s; time must advance"
            )
        while len(self._pending) >= self._queue_frames:
            self._commit()
        index, state = self._count, self._pack(frame)
        physics = b""
        if frame.physics is not None:
            block = np.zeros(len(frame.physics.time_s), self._physics_dtype)
            block["time_s"], block["T_world_object"] = frame.physics.time_s, frame.physics.T_world_object
            physics = block.tobytes()
        images = tuple(
            (
                path := layout.image_path(spec.name, channel, index),
                self._pool.submit(self._write_image, path, channel, image),
            )
            for spec, view in zip(self.header.cameras, frame.cameras, strict=True)
            for channel, image in layout.images_of(view, spec).items()
        )
        line = {
            "i": index,
            "t": float(frame.time_s),
            "state": sha256_bytes(state),
            "physics": [0 if frame.physics is None else len(frame.physics.time_s), sha256_bytes(physics)],
            "contacts": [layout.contact_to_json(c) for c in frame.contacts],
        }
        self._pending.append(_Pending(line, state, physics, images))
        self._count, self._last_time_s = index + 1, frame.time_s

    def flush(self) -> None:
        """Wait until every accepted frame is committed."""
        while self._pending:
            self._commit()

    def finish(self) -> Episode:
        """Commit everything and mark the episode complete. Raises EpisodeError for an episode without frames."""
        self.flush()
        if self._count == 0:
            raise EpisodeError(f"{self.path}: the episode has no frame; nothing was captured")
        self._close()
        for name in (layout.STATE, layout.PHYSICS, layout.LOG):
            with (self.path / name).open("rb+") as stream:
                os.fsync(stream.fileno())
        host = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "platform": platform.platform()}
        write_json(self.path / "host.json", host)
        write_json(self.path / layout.COMPLETE, {"frames": self._count, "content_sha256": self._chain})
        return open_episode(self.path)

    def _pack(self, frame: Frame) -> bytes:
        record = np.zeros((), self._dtype)
        record["index"], record["time_s"], record["T_world_object"] = self._count, frame.time_s, frame.T_world_object
        for robot, state in zip(self.header.robots, frame.robots, strict=True):
            for name in ("joint_position", *(f"joint_{c}" for c in self.header.joint_channels)):
                record[f"robot/{robot.name}/{name}"] = getattr(state, name)
            record[f"robot/{robot.name}/T_world_link"] = state.T_world_link
            record[f"robot/{robot.name}/gripper_openness"] = state.gripper_openness
        for camera, view in zip(self.header.cameras, frame.cameras, strict=True):
            record[f"camera/{camera.name}/K"] = view.K
            record[f"camera/{camera.name}/T_camera_world"] = view.T_camera_world
        return record.tobytes()

    def _write_image(self, path: str, channel: str, image: np.ndarray) -> str:
        data = layout.encode_image(channel, image)
        (self.path / path).write_bytes(data)
        return sha256_bytes(data)

    def _commit(self) -> None:
        """Write the oldest frame's record and then its log line. After a failure no later frame is committed."""
        pending = self._pending.popleft()
        try:
            self._commit_one(pending)
        except BaseException:
            # A later frame must not follow a missing one: the log would break where it is still good.
            self._pending.clear()
            self._broken = True
            raise

    def _commit_one(self, pending: _Pending) -> None:
        line = {
            **pending.line,
            "files": {path: future.result() for path, future in pending.images},
            "prev": self._chain,
        }
        self._state.write(pending.state)
        self._state.flush()
        self._physics.write(pending.physics)
        self._physics.flush()
        self._chain = sha256_bytes(canonical_json(line))
        self._log.write(json.dumps({**line, "hash": self._chain}, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._log.flush()

    def _close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for stream in (self._state, self._physics, self._log):
            stream.close()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._log.closed:
            try:
                self.flush()
            except Exception:
                if kind is None:
                    raise
            finally:
                self._close()
