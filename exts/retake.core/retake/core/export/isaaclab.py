# SPDX-License-Identifier: Apache-2.0
"""robomimic HDF5 as Isaac Lab reads and writes it: dataset.hdf5 with data/demo_<i>.

data                 attributes: total (frames), env_args (JSON)
data/demo_<i>        attributes: num_samples, seed, success, source_uid
  actions            (T, n) float32, targets after each frame
  obs/…              state groups, obs/<camera>_rgb (T, H, W, 3) uint8
  initial_state/…, states/…   articulation/<robot>/{root_pose, joint_position, joint_velocity},
                     rigid_object/<name>/root_pose: position m and quaternion wxyz
mask/train, mask/valid   names of the demos of a split

Every demo is made as its own file in parts/ and linked into the whole at the end, so an interrupted export goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.export.encode import require
from retake.core.export.records import ACTION, STATE, Columns, DatasetEpisode, Schema
from retake.core.export.staging import Entry, Staging
from retake.core.export.tables import read_jsonl, write_jsonl
from retake.core.export.writer import PROVENANCE, write_marker
from retake.core.files import atomic_path
from retake.core.geometry import wxyz_from_rotation
from retake.core.video import require_uint8

FILE = "dataset.hdf5"


class IsaacLabWriter:
    """Writes the one file."""

    replaced: tuple[str, ...] = (FILE,)

    def __init__(self, staging: Staging, schema: Schema, split: str = "train") -> None:
        self.staging, self.schema, self.split = staging, schema, split
        self.h5py = require("h5py")

    def write(self, index: int, episode: DatasetEpisode) -> Entry:
        """One demo into parts/."""
        part = self.staging.parts / f"{index:06d}.hdf5"
        columns = episode.columns()
        with atomic_path(part) as temporary, self.h5py.File(temporary, "w", track_order=False) as file:
            demo = file.create_group("demo")
            demo.attrs["num_samples"] = episode.length
            demo.attrs["seed"] = int(episode.provenance.get("seed") or 0)
            demo.attrs["success"] = True
            demo.attrs["source_uid"] = episode.uid
            demo.attrs["task"] = episode.task
            demo.create_dataset("actions", data=columns[ACTION])
            obs = demo.create_group("obs")
            for part_of in self.schema.slices:
                obs.create_dataset(part_of.name, data=columns[STATE][:, part_of.start : part_of.end])
            obs.create_dataset(
                "actions", data=_last_action(columns[ACTION], _state_of_action_joints(self.schema, columns))
            )
            if "episode" in episode.extra:
                source = open_episode(episode.extra["episode"])
                window = slice(episode.extra["start"], episode.extra["start"] + episode.length)
                _states(demo.create_group("states"), source, window)
                _states(demo.create_group("initial_state"), source, slice(window.start, window.start + 1))
            for key, (width, height) in self.schema.cameras.items():
                name = f"{key.rsplit('.', 1)[-1]}_rgb"
                shape = (episode.length, height, width, 3)
                pixels = obs.create_dataset(
                    name, shape, np.uint8, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1, shuffle=True
                )
                for k, frame in enumerate(episode.frames(key)):
                    require_uint8(frame, k)
                    pixels[k] = frame
        return {
            "part": part.name,
            "uid": episode.uid,
            "length": episode.length,
            "task": episode.task,
            "provenance": dict(episode.provenance),
        }

    def advance(self, entry: Entry) -> None:
        """Nothing to remember: demos do not depend on each other."""

    def finish(self) -> None:
        """Copy all demos into one file."""
        target = self.staging.dataset / FILE
        if not target.exists():
            with atomic_path(target) as temporary, self.h5py.File(temporary, "w") as out:
                data, total, names = out.create_group("data"), 0, []
                for source, group in self._demos():
                    name = f"demo_{len(names)}"
                    with self.h5py.File(source, "r") as file:
                        file.copy(group, data, name=name)
                    total += int(data[name].attrs["num_samples"])
                    names.append(name)
                data.attrs["total"] = total
                data.attrs["env_args"] = json.dumps(
                    {
                        "env_name": "retake",
                        "type": 2,
                        "env_kwargs": {"fps": self.schema.fps, "units": dict(self.schema.units)},
                    }
                )
                mask = out.create_group("mask")
                kind = self.h5py.string_dtype()
                mask.create_dataset(
                    "valid" if self.split == "val" else "train", data=np.array(names, object), dtype=kind
                )
        base = self.staging.base
        old = list(read_jsonl(base / PROVENANCE)) if base else []
        rows = [*old, *(e["provenance"] for e in self.staging.entries())]
        write_jsonl(self.staging.dataset / PROVENANCE, ({**row, "episode_index": i} for i, row in enumerate(rows)))
        write_marker(self.staging, self.schema, "hdf5-isaaclab")

    def _demos(self) -> Iterator[tuple[Path, str]]:
        """(file, group) of every demo, the base's first."""
        if self.staging.base:
            path = self.staging.base / FILE
            with self.h5py.File(path, "r") as file:
                count = len(file["data"])
            yield from ((path, f"data/demo_{i}") for i in range(count))
        for entry in self.staging.entries():
            yield self.staging.parts / entry["part"], "demo"


def _state_of_action_joints(schema: Schema, columns: Columns) -> np.ndarray:
    """(T, n): the state's entries that an action has, in the action's order."""
    state = schema.vectors[STATE].names
    return columns[STATE][:, [state.index(name) for name in schema.vectors[ACTION].names]]


def _last_action(actions: np.ndarray, states: np.ndarray) -> np.ndarray:
    """(T, n): the action commanded before each frame; at frame 0 the state stands for it."""
    return np.concatenate([states[:1], actions[:-1]])


def _states(group: Any, episode: Episode, window: slice) -> None:
    """Absolute states of the window in Isaac Lab's scene-state layout."""
    for robot in episode.header.robots:
        one = group.create_group(f"articulation/{robot.name}")
        base = episode.link_poses(robot.name)[window, robot.root]
        one.create_dataset("root_pose", data=_pose(base))
        one.create_dataset("root_velocity", data=np.zeros((len(base), 6), np.float32))
        one.create_dataset("joint_position", data=episode.joint(robot.name, "position")[window].astype(np.float32))
        if "velocity" in episode.header.joint_channels:
            one.create_dataset("joint_velocity", data=episode.joint(robot.name, "velocity")[window].astype(np.float32))
    for index, obj in enumerate(episode.header.objects):
        one = group.create_group(f"rigid_object/{obj.name}")
        one.create_dataset("root_pose", data=_pose(episode.object_poses[window, index]))


def _pose(T: np.ndarray) -> np.ndarray:
    """(T, 7) float32: position m, quaternion wxyz."""
    return np.concatenate([T[:, :3, 3], wxyz_from_rotation(T[:, :3, :3])], axis=1).astype(np.float32)


def problems(path: Path) -> list[str]:
    """What keeps robomimic or Isaac Lab from reading the file; empty when nothing does."""
    h5py = require("h5py")
    out: list[str] = []
    with h5py.File(path, "r") as file:
        if "data" not in file or "total" not in file["data"].attrs or "env_args" not in file["data"].attrs:
            return ["group data with attributes total and env_args is missing"]
        total = 0
        for i in range(len(file["data"])):
            demo = file["data"].get(f"demo_{i}")
            if demo is None:
                out.append(f"data/demo_{i} is missing: demos must count from 0")
                continue
            count = int(demo.attrs.get("num_samples", -1))
            total += count
            if "actions" not in demo or len(demo["actions"]) != count:
                out.append(f"demo_{i}: actions do not have num_samples = {count} rows")
            out += [
                f"demo_{i}/obs/{k} has {len(v)} rows, expected {count}"
                for k, v in demo["obs"].items()
                if len(v) != count
            ]
        if total != int(file["data"].attrs["total"]):
            out.append(f"data.total is {file['data'].attrs['total']}, the demos add up to {total}")
        names = {f"demo_{i}" for i in range(len(file["data"]))}
        for mask in file.get("mask", {}).values():
            out += [f"mask names {n!r}, which does not exist" for n in mask.asstr()[:] if n not in names]
    return out
