# SPDX-License-Identifier: Apache-2.0
"""Numbers per frame that an Episode's records have no place for: actions as a policy issued them, root velocities, signs
of root quaternions.

extra.bin     little-endian float32, one row per frame
extra.json    written last: groups of columns in order, number of rows, SHA-256 of extra.bin

They lie beside the Episode's own files and outside its content hash; an Episode without them is as valid.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float32
from retake.core.episode.reader import Episode
from retake.core.errors import EpisodeError
from retake.core.files import read_json, write_json

DATA, INDEX = "extra.bin", "extra.json"
ACTION = "action"
"""Group of the action issued after each frame, in the environment's own units; the last frame has none: NaN."""
ROOT_VELOCITY = "root_velocity/"
"""Prefix of the groups of root velocities: linear m/s, angular rad/s, world frame; robot's or object's name follows."""
VELOCITY_NAMES = ("vx", "vy", "vz", "wx", "wy", "wz")
ROOT_QUATERNION = "root_quaternion/"
"""Prefix of the groups of root orientations as the simulator held them; robot's or object's name follows. The poses of an
Episode are matrices, which do not tell q from -q; Isaac Lab compares the numbers (`replay_demos.py --validate_states`)."""
QUATERNION_NAMES = ("x", "y", "z", "w")


class ExtraWriter:
    """Appends one row per frame; memory does not grow with their number. `groups`: group → names of its columns."""

    def __init__(self, path: Path, groups: Mapping[str, Sequence[str]]) -> None:
        self._path, self._groups = Path(path), {name: tuple(columns) for name, columns in groups.items()}
        self._width = sum(map(len, self._groups.values()))
        self._stream = (self._path / DATA).open("wb")
        self._hash, self._rows = hashlib.sha256(), 0

    def append(self, values: Mapping[str, Any]) -> None:
        """One frame: group → as many numbers as it has columns. Raises EpisodeError where the number differs."""
        parts = [np.asarray(values[name], np.float32).ravel() for name in self._groups]
        for name, part in zip(self._groups, parts, strict=True):
            if len(part) != len(self._groups[name]):
                raise EpisodeError(f"{self._path}: {name} has {len(part)} numbers; expected {len(self._groups[name])}")
        data = np.concatenate(parts).astype("<f4").tobytes() if parts else b""
        self._stream.write(data)
        self._hash.update(data)
        self._rows += 1

    def finish(self) -> None:
        """Close the file and make it count."""
        self._stream.close()
        content = {
            "groups": [[name, list(columns)] for name, columns in self._groups.items()],
            "rows": self._rows,
            "sha256": self._hash.hexdigest(),
        }
        write_json(self._path / INDEX, content)

    def abandon(self) -> None:
        """Close the file of an Episode that was interrupted."""
        self._stream.close()


def extra_of(episode: Episode) -> dict[str, tuple[tuple[str, ...], Float32[np.ndarray, "T n"]]]:
    """Group → (names of its columns, one row per frame); empty where an Episode has none.

    Raises EpisodeError when the file was changed, or has not one row per frame.
    """
    if not (episode.path / INDEX).exists():
        return {}
    try:
        index = read_json(episode.path / INDEX)
        data = (episode.path / DATA).read_bytes()
        groups = [(str(name), tuple(map(str, columns))) for name, columns in index["groups"]]
        rows, sha256 = int(index["rows"]), str(index["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EpisodeError(
            f"{episode.path / INDEX} is damaged: {error}; removing it leaves the Episode valid"
        ) from error
    width = sum(len(columns) for _, columns in groups)
    if hashlib.sha256(data).hexdigest() != sha256 or len(data) != rows * width * 4 or rows != len(episode):
        raise EpisodeError(
            f"{episode.path / DATA} does not match {INDEX} and the Episode's {len(episode)} frames: it was changed"
        )
    table = np.frombuffer(data, "<f4").reshape(rows, width).astype(np.float32)
    ends = np.cumsum([len(columns) for _, columns in groups])
    parts = np.split(table, ends[:-1], axis=1) if groups else []
    return {name: (columns, part) for (name, columns), part in zip(groups, parts, strict=True)}


def write_extra(path: Path, groups: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> None:
    """Write whole arrays, (T, n) each, beside the Episode at `path`."""
    writer = ExtraWriter(path, {name: columns for name, (columns, _) in groups.items()})
    try:
        for row in zip(*(values for _, values in groups.values()), strict=True):
            writer.append(dict(zip(groups, row, strict=True)))
    except BaseException:
        writer.abandon()
        raise
    writer.finish()


def success_of(episode: Episode) -> bool | None:
    """Whether the task was done, as the environment or the recording said; None where nothing says."""
    imported = episode.header.settings.get("imported")
    found = imported.get("success") if isinstance(imported, dict) else None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = read_json(episode.path / "capture.json").get("success", found)
    return found if isinstance(found, bool) else None
