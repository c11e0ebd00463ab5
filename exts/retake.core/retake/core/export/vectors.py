# SPDX-License-Identifier: Apache-2.0
"""State and action vectors of an Episode, and the schema they make.

Per robot, in this order: arm joints (rad, m), finger joints, gripper openness (0 closed, 1 open). `state[t]` is the
measurement at frame t, `action[t]` the target commanded after it, in the same order, without the joints that nothing
commands (mimic followers, passive linkages). float64 → float32 is the only change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retake.core.episode import Episode, EpisodeHeader
from retake.core.errors import ExportError, unknown_name
from retake.core.export.records import (
    ACTION,
    SOURCE_FRAME,
    SOURCE_TIME,
    SOURCE_UID,
    STATE,
    Columns,
    Schema,
    Slice,
    Vector,
)
from retake.core.export.truth import truth_vectors
from retake.core.geometry import wxyz_from_rotation
from retake.core.robot import RobotSpec

EXTRAS = ("velocity", "effort", "ee_pose", "object_pose")
ACTIONS = ("commanded", "next-state")


def _groups(robot: RobotSpec, header: EpisodeHeader) -> tuple[list[int], list[int], list[int]]:
    """Indices of arm joints and of finger joints in joint arrays, and of grippers; those not recorded are in none."""
    kept = list(header.recorded_grippers(robot))
    every = [robot.dof_index(name) for gripper in robot.grippers for name in gripper.finger_joints]
    fingers = [robot.dof_index(name) for i in kept for name in robot.grippers[i].finger_joints]
    return [i for i in range(len(robot.dof_names)) if i not in every], fingers, kept


def build_schema(
    header: EpisodeHeader,
    cameras: dict[str, tuple[int, int]],
    extras: Sequence[str] = (),
    *,
    truth: bool = False,
) -> Schema:
    """The schema of episodes like this one. `cameras`: feature key → (width, height).

    Raises ExportError when fps is no integer, InputError-like text for an unknown extra.
    """
    if header.fps != int(header.fps):
        raise ExportError(
            f"the episode runs at {header.fps} fps; LeRobot's formats need an integer: record at an integer rate, or "
            "resample states and video together"
        )
    for extra in extras:
        if extra not in EXTRAS:
            raise ExportError(unknown_name("extra feature", extra, EXTRAS))
    single = len(header.robots) == 1
    slices: list[Slice] = []
    commanded: list[Slice] = []
    names: list[str] = []
    action: list[str] = []
    for robot in header.robots:
        prefix = "" if single else f"{robot.name}."
        label = "" if single else f"{robot.name}_"
        arm, fingers, grippers = _groups(robot, header)
        parts = (
            ("arm", [(f"{prefix}{robot.dof_names[i]}.pos", robot.driven[i]) for i in arm], "rad or m"),
            ("fingers", [(f"{prefix}{robot.dof_names[i]}.pos", robot.driven[i]) for i in fingers], "rad or m"),
            ("gripper", [(f"{prefix}{robot.grippers[i].name}.open", True) for i in grippers], "0..1, 1 = open"),
        )
        for kind, part, unit in parts:
            for out, all_names, chosen in (
                (slices, names, [name for name, _ in part]),
                (commanded, action, [name for name, driven in part if driven]),
            ):
                if chosen:
                    end = len(all_names) + len(chosen)
                    out.append(Slice(label + kind, len(all_names), end, kind, unit, robot.name))  # type: ignore[arg-type]
                    all_names += chosen
    vectors = {STATE: Vector("float32", tuple(names)), ACTION: Vector("float32", tuple(action))}
    dofs = [f"{'' if single else robot.name + '.'}{name}" for robot in header.robots for name in robot.dof_names]
    units = {STATE: "rad, m, openness 0..1", ACTION: "rad, m, openness 0..1"}
    for channel, unit in (("velocity", "rad/s, m/s"), ("effort", "N·m, N")):
        if channel in extras:
            vectors[f"observation.{channel}"] = Vector("float32", tuple(f"{n}.{channel}" for n in dofs))
            units[f"observation.{channel}"] = unit
    if "ee_pose" in extras:
        hands = [f"{r.name}.{g.name}" for r in header.robots for g in r.grippers]
        vectors["observation.ee_pose"] = Vector("float32", _pose_names(hands))
        units["observation.ee_pose"] = "m and unit quaternion wxyz, world frame"
    if "object_pose" in extras:
        # Not under `observation.`: no policy may take the truth for an observation unasked.
        vectors["privileged.object_pose"] = Vector("float32", _pose_names([o.name for o in header.objects]))
        units["privileged.object_pose"] = "m and unit quaternion wxyz, world frame"
    if truth:
        known, their_units = truth_vectors(header, cameras)
        vectors |= known
        units |= their_units
    vectors[SOURCE_TIME], vectors[SOURCE_FRAME] = Vector("float64"), Vector("int64")
    vectors[SOURCE_UID] = Vector("int64")
    units[SOURCE_TIME] = "s, simulation time"
    robot_type = "+".join(robot.name for robot in header.robots) or "none"
    own = tuple(commanded) if action != names else ()
    return Schema(int(header.fps), robot_type, vectors, cameras, tuple(slices), units, own)


def _pose_names(bodies: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{body}.{part}" for body in bodies for part in ("x", "y", "z", "qw", "qx", "qy", "qz"))


def _vector(
    robot: RobotSpec, header: EpisodeHeader, q: np.ndarray, openness: np.ndarray, *, commanded: bool = False
) -> np.ndarray:
    """(T, n) arm joints, finger joints, openness of one robot; with `commanded`, of its driven joints only."""
    arm, fingers, grippers = _groups(robot, header)
    joints = [i for i in (*arm, *fingers) if robot.driven[i] or not commanded]
    return np.concatenate([q[:, joints], openness[:, grippers]], axis=1)


def state_vector(
    header: EpisodeHeader, joints: Sequence[np.ndarray], openness: Sequence[np.ndarray], *, commanded: bool = False
) -> np.ndarray:
    """(n,) float64 entries of `observation.state` for one instant: joint positions (D,) and openness (G,) per robot, in the
    order of `header.robots`; with `commanded`, the entries an action has."""
    parts = [
        _vector(robot, header, np.asarray(q, np.float64)[None], np.asarray(g, np.float64)[None], commanded=commanded)[0]
        for robot, q, g in zip(header.robots, joints, openness, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def joint_targets(header: EpisodeHeader, action: np.ndarray, held: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The way back: joint targets (D,) per robot, rad or m, from one action (n,); joints without an entry keep `held`.

    An openness says what the finger joints beside it say already, so it moves nothing. Raises ExportError for another width.
    """
    out, at = [], 0
    for robot, kept in zip(header.robots, held, strict=True):
        arm, fingers, grippers = _groups(robot, header)
        joints = [i for i in (*arm, *fingers) if robot.driven[i]]
        q = np.array(kept, np.float64)
        q[joints] = action[at : at + len(joints)]
        out.append(q)
        at += len(joints) + len(grippers)
    if at != len(action):
        raise ExportError(f"an action has {at} entries here; found {len(action)}")
    return tuple(out)


def states(episode: Episode, *, commanded: bool = False) -> np.ndarray:
    """(T, n) float64 measurements of every frame of the episode; with `commanded`, the entries an action has."""
    parts = [
        _vector(
            robot,
            episode.header,
            episode.joint(robot.name, "position"),
            episode.gripper_openness(robot.name),
            commanded=commanded,
        )
        for robot in episode.header.robots
    ]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(episode), 0))


def actions(episode: Episode, source: str = "commanded") -> np.ndarray:
    """(T, n) float64 targets commanded after each frame, or the next frame's state (`next-state`, for recordings).

    A gripper without finger joints has no commanded openness; the next measured one stands for it.
    Raises ExportError when the episode recorded no targets and `commanded` was asked.
    """
    if source not in ACTIONS:
        raise ExportError(unknown_name("source of actions", source, ACTIONS))
    following = np.minimum(np.arange(len(episode)) + 1, len(episode) - 1)
    if source == "next-state":
        return states(episode, commanded=True)[following]
    if "target" not in episode.header.joint_channels:
        raise ExportError(
            f"{episode.path} recorded no commanded targets, so it has no true actions; `--action next-state` takes the "
            "next measured state instead and says so in the provenance"
        )
    parts = []
    for robot in episode.header.robots:
        target = episode.joint(robot.name, "target")
        openness = robot.gripper_openness(target)
        for g, gripper in enumerate(robot.grippers):
            if not gripper.finger_joints:
                openness[:, g] = episode.gripper_openness(robot.name)[following, g]
        parts.append(_vector(robot, episode.header, target, openness, commanded=True))
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(episode), 0))


def columns(
    episode: Episode, start: int, length: int, action_source: str = "commanded", extras: Sequence[str] = ()
) -> Columns:
    """Every numeric feature of the window, float32 (source time float64, source frame int64), one row per frame."""
    window, header = slice(start, start + length), episode.header
    out: Columns = {
        STATE: states(episode)[window].astype(np.float32),
        ACTION: actions(episode, action_source)[window].astype(np.float32),
    }
    for channel in ("velocity", "effort"):
        if channel in extras:
            parts = [episode.joint(robot.name, channel)[window] for robot in header.robots]
            out[f"observation.{channel}"] = np.concatenate(parts, axis=1).astype(np.float32)
    if "ee_pose" in extras:
        poses = [
            episode.link_poses(r.name)[window, r.link_index(g.ee_link)] @ g.T_link_ee
            for r in header.robots
            for g in r.grippers
        ]
        out["observation.ee_pose"] = _poses(np.stack(poses, 1) if poses else np.zeros((length, 0, 4, 4)))
    if "object_pose" in extras:
        out["privileged.object_pose"] = _poses(episode.object_poses[window])
    out[SOURCE_TIME] = episode.time_s[window]
    out[SOURCE_FRAME] = np.arange(start, start + length, dtype=np.int64)
    return out


def _poses(T: np.ndarray) -> np.ndarray:
    """(T, B, 4, 4) poses as (T, B*7) float32: position, quaternion wxyz."""
    q = wxyz_from_rotation(T[..., :3, :3])
    return np.concatenate([T[..., :3, 3], q], axis=-1).reshape(len(T), -1).astype(np.float32)
