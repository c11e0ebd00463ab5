# SPDX-License-Identifier: Apache-2.0
"""A picture of robots as they were read: the drawn chain over the links' geometry, each end effector open and closed."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pxr import Usd

from retake.core.array_types import Float64, UInt8
from retake.core.geometry import inverse, transform
from retake.core.robot import GripperSpec, RobotSpec
from retake.core.skeleton import render_into
from retake.usd.articulation import Articulation
from retake.usd.shapes import link_outline
from retake.usd.units import StageUnits

TILE = 420
"""Side of one view, px."""
FOCAL = 620.0
DOT = (150, 158, 168)
BACKGROUND = (38, 42, 48)


def draw_robots(stage: Usd.Stage, robots: Sequence[Articulation]) -> UInt8[np.ndarray, "H W 3"]:
    """One row per end effector: the whole robot, the end effector open, and closed. Robots without one: a row of one view."""
    rows = []
    for robot in robots:
        units = StageUnits.of(stage)
        clouds = [link_outline(stage, link.prim_path, units) for link in robot.spec.links]
        for end in robot.spec.grippers or (None,):
            rows.append(_row(robot, clouds, end))
    if not rows:
        return np.full((TILE, TILE, 3), BACKGROUND, np.uint8)
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_wide(row, width) for row in rows])


def _row(robot: Articulation, clouds: list[np.ndarray], end: GripperSpec | None) -> UInt8[np.ndarray, "H W 3"]:
    spec = robot.spec
    q = robot.initial_position
    base = None if robot.spec.joints and spec.joints[0].parent_link < 0 else robot.T_world_link[spec.root]
    poses = spec.forward_kinematics(spec.followed(q), base)
    views = [_view(spec, clouds, poses, end, 1.0, f"{spec.name}{'' if end is None else ': ' + end.name}", whole=True)]
    if end is not None:
        for title, positions, openness in (("open", end.open_position, 1.0), ("closed", end.closed_position, 0.0)):
            if not end.finger_joints and title == "closed":
                continue
            at = q.copy()
            for name, value in zip(end.finger_joints, positions, strict=True):
                at[spec.dof_index(name)] = value
            posed = spec.forward_kinematics(spec.followed(at), base)
            words = title if end.finger_joints else "no fingers"
            views.append(_view(spec, clouds, posed, end, openness, f"{end.kind} {words}", whole=False))
    return np.concatenate(views, axis=1)


def _view(
    spec: RobotSpec, clouds: list[np.ndarray], poses: Float64[np.ndarray, "L 4 4"], end: GripperSpec | None,
    openness: float, title: str, *, whole: bool,
) -> UInt8[np.ndarray, "H W 3"]:  # fmt: skip
    canvas = np.full((TILE, TILE, 3), BACKGROUND, np.uint8)
    points = [transform(T, cloud) for T, cloud in zip(poses, clouds, strict=True) if len(cloud)]
    everything = np.concatenate([*points, poses[:, :3, 3]])
    chain = list(spec.chain(end)) if end is not None else []
    T_world_ee = poses[spec.link_index(end.ee_link)] @ end.T_link_ee if end is not None else np.eye(4)
    if whole or end is None:
        low, high = np.percentile(everything, 1, axis=0), np.percentile(everything, 99, axis=0)
        middle, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        direction = np.array([1.0, -0.75, 0.45])
        up = np.array([0.0, 0, 1.0])
    else:
        middle, radius = T_world_ee[:3, 3] + 0.08 * T_world_ee[:3, 2], 0.2
        # Across the plane in which the fingers open, a little from the side.
        direction = T_world_ee[:3, 0] + 0.25 * T_world_ee[:3, 1] - 0.2 * T_world_ee[:3, 2]
        up = -T_world_ee[:3, 2]
    E = _look_at(middle, direction, up, max(radius, 0.05) * 2 * FOCAL / TILE * 1.15)
    K = np.array([[FOCAL, 0, TILE / 2], [0, FOCAL, TILE / 2], [0, 0, 1.0]])
    for cloud in points:
        _dots(canvas, cloud, K, E)
    if end is not None:
        render_into(canvas, poses[chain, :3, 3], T_world_ee, openness, K, E)
    cv2.putText(canvas, title[:52], (10, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (240, 240, 240), 1, cv2.LINE_AA)
    return canvas


def _look_at(
    middle: Float64[np.ndarray, "3"], direction: Float64[np.ndarray, "3"], up: Float64[np.ndarray, "3"], distance: float
) -> Float64[np.ndarray, "4 4"]:
    """T_camera_world of a camera `distance` m from a point, in a direction from it."""
    z = -direction / np.linalg.norm(direction)
    x = np.cross(z, up)
    x = x / np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    T[:3, 3] = middle - z * distance
    return inverse(T)


def _dots(canvas: UInt8[np.ndarray, "H W 3"], cloud: Float64[np.ndarray, "N 3"], K: np.ndarray, E: np.ndarray) -> None:
    seen = transform(E, cloud)
    seen = seen[seen[:, 2] > 0.01]
    uv = np.rint(seen[:, :2] / seen[:, 2:] * K[0, 0] + K[:2, 2]).astype(int)
    uv = uv[((uv >= 0) & (uv < TILE)).all(1)]
    canvas[uv[:, 1], uv[:, 0]] = DOT


def _wide(row: UInt8[np.ndarray, "H W 3"], width: int) -> UInt8[np.ndarray, "H W 3"]:
    return cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=BACKGROUND)
