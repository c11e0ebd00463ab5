# SPDX-License-Identifier: Apache-2.0
"""Layouts of the state and action vectors: the gripper once, or end-effector deltas, as policies of other projects want it.

full          arm joints, finger joints, openness (what the simulation has)
arm+openness  arm joints, openness per gripper: DROID and openpi count eight for a Panda
deltas-ee     state: end-effector position and rotation in the robot's base frame, openness; action: what moves the measured
              pose to the commanded one (p_target - p, rotation vector of R_target R^T, base frame), openness
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from retake.core.array_types import Float64
from retake.core.episode import Episode, EpisodeHeader
from retake.core.errors import ExportError, unknown_name
from retake.core.export.records import ACTION, STATE, Columns, Schema, Slice, Vector
from retake.core.geometry import inverse

LAYOUTS = ("full", "arm+openness", "deltas-ee")
_KEPT = ("arm", "gripper")


def require_layout(layout: str, header: EpisodeHeader) -> None:
    """Raises ExportError for an unknown layout, or one that a robot without a gripper cannot have."""
    if layout not in LAYOUTS:
        raise ExportError(unknown_name("layout of state and action", layout, LAYOUTS))
    bare = [robot.name for robot in header.robots if not header.recorded_grippers(robot)]
    if layout == "deltas-ee" and (bare or not header.robots):
        raise ExportError(
            f"--layout deltas-ee: robot {', '.join(bare) or '(none)'} has no recorded gripper whose frame could move"
        )


def laid_out(schema: Schema, header: EpisodeHeader, layout: str) -> Schema:
    """The full schema with its state and action in another layout. Raises ExportError as `require_layout`."""
    require_layout(layout, header)
    if layout == "full":
        return schema
    if layout == "arm+openness":
        parts = {STATE: _kept(schema, STATE), ACTION: _kept(schema, ACTION)}
        names = {
            key: tuple(schema.vectors[key].names[i] for s in found for i in range(s.start, s.end))
            for key, found in parts.items()
        }
        slices = {key: _packed(found) for key, found in parts.items()}
        units = {}
    else:
        names, slices = {}, {}
        for key, d in ((STATE, ""), (ACTION, "d")):
            names[key], slices[key] = _end_effectors(header, d)
        units = {
            STATE: "m, rotation vector rad in the base frame, openness 0..1",
            ACTION: "m, rad: steps of the pose; openness 0..1",
        }
    vectors = {k: Vector(v.dtype, names[k]) if k in names else v for k, v in schema.vectors.items()}
    own = slices[ACTION] if layout == "deltas-ee" or names[ACTION] != names[STATE] else ()
    return replace(
        schema, vectors=vectors, slices=slices[STATE], own_action_slices=own, units={**schema.units, **units}
    )


def lay_out(
    columns: Columns, schema: Schema, episode: Episode, start: int, length: int, layout: str, source: str
) -> Columns:
    """Columns of the full layout (`schema`: the full one) in another. `source`: where actions come from (vectors.ACTIONS)."""
    if layout == "full":
        return columns
    if layout == "arm+openness":
        kept = {key: [i for s in _kept(schema, key) for i in range(s.start, s.end)] for key in (STATE, ACTION)}
        return {**columns, **{key: np.ascontiguousarray(columns[key][:, places]) for key, places in kept.items()}}
    window = slice(start, start + length)
    state, action = [], []
    full = {key: _gripper_columns(schema, key, columns[key]) for key in (STATE, ACTION)}
    used = 0
    for robot in episode.header.robots:
        links = episode.link_poses(robot.name)
        base = links[:, robot.root]
        goals = links[np.minimum(np.arange(len(episode)) + 1, len(episode) - 1)]
        to_base = inverse(base)
        if source == "commanded":
            goals = robot.forward_kinematics(episode.joint(robot.name, "target"), base)
        for index in episode.header.recorded_grippers(robot):
            gripper = robot.grippers[index]
            link = robot.link_index(gripper.ee_link)
            now = (to_base @ links[:, link] @ gripper.T_link_ee)[window]
            goal = (to_base @ goals[:, link] @ gripper.T_link_ee)[window]
            state += [now[:, :3, 3], rotation_vectors(now[:, :3, :3]), full[STATE][:, used : used + 1]]
            step = goal[:, :3, :3] @ np.swapaxes(now[:, :3, :3], -1, -2)
            action += [goal[:, :3, 3] - now[:, :3, 3], rotation_vectors(step), full[ACTION][:, used : used + 1]]
            used += 1
    return {
        **columns,
        STATE: np.concatenate(state, axis=1).astype(np.float32),
        ACTION: np.concatenate(action, axis=1).astype(np.float32),
    }


def rotation_vectors(R: Float64[np.ndarray, "T 3 3"]) -> Float64[np.ndarray, "T 3"]:
    """Axis times angle (rad) of rotations."""
    return np.stack([cv2.Rodrigues(np.ascontiguousarray(one))[0][:, 0] for one in R])


def _kept(schema: Schema, key: str) -> list[Slice]:
    return [s for s in (schema.slices if key == STATE else schema.action_slices) if s.kind in _KEPT]


def _packed(slices: list[Slice]) -> tuple[Slice, ...]:
    out, at = [], 0
    for one in slices:
        width = one.end - one.start
        out.append(replace(one, start=at, end=at + width))
        at += width
    return tuple(out)


def _end_effectors(header: EpisodeHeader, d: str) -> tuple[tuple[str, ...], tuple[Slice, ...]]:
    """Names and slices of poses (`d` = "") or of steps (`d` = "d")."""
    names: list[str] = []
    slices: list[Slice] = []
    several = sum(len(header.recorded_grippers(robot)) for robot in header.robots) > 1
    for robot in header.robots:
        for index in header.recorded_grippers(robot):
            gripper = robot.grippers[index].name
            prefix = gripper if len(header.robots) == 1 else f"{robot.name}.{gripper}"
            label = f"{prefix.replace('.', '_')}_" if several else ""
            for part, kind, unit in (
                ([f"{d}x", f"{d}y", f"{d}z"], "ee_position", "m"), ([f"{d}rx", f"{d}ry", f"{d}rz"], "ee_rotation", "rad"),
                (["open"], "gripper", "0..1, 1 = open"),
            ):  # fmt: skip
                end = len(names) + len(part)
                slices.append(Slice(label + kind, len(names), end, kind, unit, robot.name))  # type: ignore[arg-type]
                names += [f"{prefix}.{x}" for x in part]
    return tuple(names), tuple(slices)


def _gripper_columns(schema: Schema, key: str, values: np.ndarray) -> np.ndarray:
    """(T, G) openness entries of the full layout."""
    slices = schema.slices if key == STATE else schema.action_slices
    return values[:, [i for s in slices if s.kind == "gripper" for i in range(s.start, s.end)]]
