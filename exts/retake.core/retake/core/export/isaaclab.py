# SPDX-License-Identifier: Apache-2.0
"""robomimic HDF5 as Isaac Lab reads and writes it: dataset.hdf5 with data/demo_<i>.

                     attributes: format_version = 1 in a file for Isaac Lab 3 (quaternions x y z w); none for 2 (w x y z)
data                 attributes: total (samples), env_args (JSON), quaternion_order
data/demo_<i>        attributes: num_samples, seed, success (where it is known), source_uid
  actions            (T, n) float32: as issued in each step, else joint targets and openness
  obs/…              before each step: state groups (or those of a stated environment), <camera>_rgb (T, H, W, 3) uint8
  initial_state/…    before the first step; states/… after each step:
                     articulation/<name>/{root_pose, root_velocity, joint_position, joint_velocity},
                     rigid_object/<name>/{root_pose, root_velocity}
  joint_targets/…    articulation/<name> (T, joints), commanded in each step
mask/train, mask/valid   names of the demos of a split

A window of frames has one sample less than frames where the Episode ends with it: the last frame has no step after it.
Every demo is made as its own file in parts/ and linked into the whole at the end, so an interrupted export goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.episode.extra import success_of
from retake.core.errors import ExportError
from retake.core.export.encode import require
from retake.core.export.isaaclab_env import (
    LabTarget,
    StatedEnvironment,
    environment_of,
    issued_actions,
    joint_velocity,
    observation,
    root_quaternion,
    root_velocity,
)
from retake.core.export.records import ACTION, STATE, Columns, DatasetEpisode, Schema
from retake.core.export.staging import Entry, Staging
from retake.core.export.tables import read_jsonl, write_jsonl
from retake.core.export.writer import PROVENANCE, write_marker
from retake.core.files import atomic_path

FILE = "dataset.hdf5"
FORMAT_VERSION = 1
"""What Isaac Lab 3 stamps its files with: quaternions are x y z w."""


class IsaacLabWriter:
    """Writes the one file."""

    replaced: tuple[str, ...] = (FILE,)

    def __init__(self, staging: Staging, schema: Schema, split: str = "train", target: LabTarget | None = None) -> None:
        self.staging, self.schema, self.split, self.target = staging, schema, split, target or LabTarget()
        self.h5py = require("h5py")

    def write(self, index: int, episode: DatasetEpisode) -> Entry:
        """One demo into parts/. Raises ExportError for a window without a state after its first step."""
        part = self.staging.parts / f"{index:06d}.hdf5"
        source, start = open_episode(episode.extra["episode"]), int(episode.extra["start"])
        # A sample is a step: what was seen before it, the action, and the state after it.
        steps = min(episode.length, len(source) - start - 1)
        if steps < 1:
            raise ExportError(
                f"{source.path}: frame {start} has none after it; a demonstration of Isaac Lab needs a step"
            )
        environment = environment_of(source, self.target)
        columns = {key: values[:steps] for key, values in episode.columns().items()}
        actions = np.asarray(issued_actions(source, environment, columns[ACTION], start), np.float32)[:steps]
        if not np.isfinite(actions).all():
            raise ExportError(f"{source.path}: actions of frames {start} … {start + steps - 1} were not all recorded")
        with atomic_path(part) as temporary, self.h5py.File(temporary, "w", track_order=False) as file:
            demo = file.create_group("demo")
            demo.attrs["num_samples"] = steps
            demo.attrs["seed"] = int(episode.provenance.get("seed") or 0)
            if (success := success_of(source)) is not None:
                demo.attrs["success"] = success
            demo.attrs["source_uid"] = episode.uid
            demo.attrs["task"] = episode.task
            demo.create_dataset("actions", data=actions)
            obs = demo.create_group("obs")
            if environment.observations:
                for name, of in environment.observations.items():
                    values = observation(source, environment, of, _padded(actions, start, len(source)))
                    obs.create_dataset(name, data=values[start : start + steps].astype(np.float32))
            else:
                for part_of in self.schema.slices:
                    obs.create_dataset(part_of.name, data=columns[STATE][:, part_of.start : part_of.end])
                obs.create_dataset(
                    "actions", data=_last_action(columns[ACTION], _state_of_action_joints(self.schema, columns))
                )
            before, after = slice(start, start + 1), slice(start + 1, start + steps + 1)
            _states(demo.create_group("initial_state"), source, environment, before, self.target.order)
            _states(demo.create_group("states"), source, environment, after, self.target.order)
            _targets(demo, source, environment, slice(start, start + steps))
            for key, (width, height) in self.schema.cameras.items():
                name = f"{key.rsplit('.', 1)[-1]}_rgb"
                shape = (steps, height, width, 3)
                pixels = obs.create_dataset(
                    name, shape, np.uint8, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1, shuffle=True
                )
                for k, frame in zip(range(steps), episode.frames(key), strict=False):
                    pixels[k] = frame
        return {
            "part": part.name,
            "uid": episode.uid,
            "length": episode.length,
            "task": episode.task,
            "provenance": dict(episode.provenance),
            "env_name": environment.env_name,
            "sim_args": _timing(source),
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
                data.attrs["env_args"] = json.dumps(self._env_args())
                data.attrs["quaternion_order"] = self.target.order
                if self.target.version == 3:
                    out.attrs["format_version"] = FORMAT_VERSION
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

    def _env_args(self) -> dict[str, Any]:
        """As Isaac Lab's own: name and type, timing; and what Retake adds. An append keeps those of what is there."""
        if self.staging.base:
            with self.h5py.File(self.staging.base / FILE, "r") as file:
                return json.loads(file["data"].attrs["env_args"])
        first: dict[str, Any] = next(iter(self.staging.entries()), {})
        return {
            "env_name": first.get("env_name", self.target.env_name),
            "type": 2,
            **({"sim_args": first["sim_args"]} if first.get("sim_args") else {}),
            "env_kwargs": {"fps": self.schema.fps, "units": dict(self.schema.units)},
        }

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


def _padded(actions: np.ndarray, start: int, length: int) -> np.ndarray:
    """The window's actions at their places in the whole Episode, zeros elsewhere."""
    out = np.zeros((length, actions.shape[1]), actions.dtype)
    out[start : start + len(actions)] = actions
    return out


def _states(group: Any, episode: Episode, environment: StatedEnvironment, window: slice, order: str) -> None:
    """States of the window in Isaac Lab's scene-state layout, relative to the clone's origin as an Episode is."""
    robots = {robot.name: robot for robot in episode.header.robots}
    for key, (name, joints) in environment.articulations.items():
        one, robot = group.create_group(f"articulation/{key}"), robots[name]
        columns = [robot.dof_index(joint) for joint in joints]
        base = episode.link_poses(name)[:, robot.root]
        one.create_dataset("root_pose", data=_pose(base, root_quaternion(episode, name, base), order)[window])
        one.create_dataset("root_velocity", data=root_velocity(episode, name, base)[window].astype(np.float32))
        q, dq = episode.joint(name, "position"), joint_velocity(episode, name)
        one.create_dataset("joint_position", data=q[window][:, columns].astype(np.float32))
        one.create_dataset("joint_velocity", data=dq[window][:, columns].astype(np.float32))
    names = [item.name for item in episode.header.objects]
    for key, name in environment.rigid_objects.items():
        one, poses = group.create_group(f"rigid_object/{key}"), episode.object_poses[:, names.index(name)]
        one.create_dataset("root_pose", data=_pose(poses, root_quaternion(episode, name, poses), order)[window])
        one.create_dataset("root_velocity", data=root_velocity(episode, name, poses)[window].astype(np.float32))


def _targets(demo: Any, episode: Episode, environment: StatedEnvironment, window: slice) -> None:
    """Joint targets commanded in each step, the scene's joint order, where the Episode recorded them."""
    if "target" not in episode.header.joint_channels:
        return
    robots = {robot.name: robot for robot in episode.header.robots}
    for key, (name, joints) in environment.articulations.items():
        columns = [robots[name].dof_index(joint) for joint in joints]
        data = episode.joint(name, "target")[window][:, columns].astype(np.float32)
        demo.create_dataset(f"joint_targets/articulation/{key}", data=data)


def _timing(episode: Episode) -> dict[str, Any]:
    """`sim_args` of Isaac Lab: physics step and how many of them make a control step, where they divide."""
    dt, fps = episode.header.physics_dt_s, episode.header.fps
    decimation = round(1 / (dt * fps))
    return {"dt": dt, "decimation": decimation} if abs(decimation * dt * fps - 1) < 1e-3 else {}


def _pose(T: np.ndarray, q: np.ndarray, order: str) -> np.ndarray:
    """(T, 7) float32: position m, quaternion (x y z w) in the file's order."""
    return np.concatenate([T[:, :3, 3], q if order == "xyzw" else q[:, [3, 0, 1, 2]]], axis=1).astype(np.float32)


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
