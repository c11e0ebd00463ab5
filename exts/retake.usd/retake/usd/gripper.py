# SPDX-License-Identifier: Apache-2.0
"""Grippers of an articulation, from its geometry alone: which link carries the fingers, which way it reaches and opens.

The end effector is the link whose movable children are fingers: at least two short branches that carry no further end
effector. Its skeleton frame has its origin in that link, +Z towards the fingers (approach) and ±Y along the opening;
where the robot's own axes differ, `GripperSpec.T_link_ee` is the fixed rotation between them.
"""

from __future__ import annotations

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.geometry import axis_angle, inverse, transform
from retake.core.robot import GripperSpec, JointSpec, RobotSpec
from retake.usd.stage import body_of, prims_under, start_time
from retake.usd.units import StageUnits, world_pose

FINGER_JOINTS = 3
"""A branch with more movable joints than this is an arm, not a finger (a Robotiq 2F-85 finger has three)."""
SNAP_COS = np.cos(np.radians(12))
"""Measured directions closer than 12° to a link axis are that axis: finger meshes are rarely exactly symmetric."""


def find_grippers(stage: Usd.Stage, spec: RobotSpec, units: StageUnits) -> tuple[GripperSpec, ...]:
    """Every gripper of a robot, in link order; none where no link carries two fingers that reach somewhere."""
    found: list[GripperSpec | None] = []
    for index in range(len(spec.links)):
        fingers = [j for j in spec.joints if j.parent_link == index and j.kind != "fixed"]
        if len(fingers) >= 2 and all(_movable_below(spec, j) <= FINGER_JOINTS for j in fingers):
            found.append(_gripper(stage, spec, index, fingers, units))
    return tuple(gripper for gripper in found if gripper is not None)


def _below(spec: RobotSpec, link: int) -> list[int]:
    """A link and every link after it."""
    out = [link]
    for joint in spec.joints:
        if joint.parent_link == link:
            out += _below(spec, joint.child_link)
    return out


def _movable_below(spec: RobotSpec, joint: JointSpec) -> int:
    links = _below(spec, joint.child_link)
    return 1 + sum(j.kind != "fixed" and j.parent_link in links for j in spec.joints)


def _gripper(
    stage: Usd.Stage, spec: RobotSpec, ee: int, fingers: list[JointSpec], units: StageUnits
) -> GripperSpec | None:
    centres = [_geometry_centre(stage, spec, joint.child_link, units) for joint in fingers]

    def at(position: float, joint: JointSpec, centre: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
        """Finger geometry centre in the end-effector link's frame."""
        motion = np.eye(4)
        if joint.kind == "revolute":
            motion[:3, :3] = axis_angle(np.array(joint.axis), np.float64(position))
        else:
            motion[:3, 3] = position * np.array(joint.axis)
        return transform(joint.T_parent_joint @ motion @ inverse(joint.T_child_joint), centre)

    ends = [(max(j.lower, -np.pi), min(j.upper, np.pi)) for j in fingers]
    low = np.stack([at(lo, j, c) for (lo, _), j, c in zip(ends, fingers, centres, strict=True)])
    high = np.stack([at(hi, j, c) for (_, hi), j, c in zip(ends, fingers, centres, strict=True)])
    # Each finger is open at the end of its travel that is farther from the middle of the others.
    opened, closed, tips = [], [], []
    for i, (lo, hi) in enumerate(ends):
        others = np.delete((low + high) / 2, i, axis=0).mean(0)
        high_is_open = np.linalg.norm(high[i] - others) >= np.linalg.norm(low[i] - others)
        opened.append(hi if high_is_open else lo)
        closed.append(lo if high_is_open else hi)
        tips.append(high[i] if high_is_open else low[i])
    tips_open = np.stack(tips)
    first = fingers[0]
    if first.kind == "prismatic":
        Y = first.T_parent_joint[:3, :3] @ np.array(first.axis)
        Y = Y if opened[0] > closed[0] else -Y
    else:
        Y = tips_open[0] - tips_open[1:].mean(0)
    Y = _snap(Y)
    origins = np.stack([j.T_parent_joint[:3, 3] for j in fingers])
    reach = (tips_open.mean(0) + origins.mean(0)) / 2
    reach = reach - Y * (Y @ reach)
    if np.linalg.norm(reach) < 1e-4:
        return None
    Z = _snap(reach)
    Z = Z - Y * (Y @ Z)
    Z /= np.linalg.norm(Z)
    T_link_ee = np.eye(4)
    T_link_ee[:3, :3] = np.stack([np.cross(Y, Z), Y, Z], axis=1)
    name = spec.links[ee].name
    return GripperSpec(name, name, T_link_ee, tuple(j.name for j in fingers), tuple(opened), tuple(closed))


def _snap(v: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    v = v / np.linalg.norm(v)
    axis = int(np.abs(v).argmax())
    if abs(v[axis]) < SNAP_COS:
        return v
    out = np.zeros(3)
    out[axis] = np.sign(v[axis])
    return out


def _geometry_centre(stage: Usd.Stage, spec: RobotSpec, link: int, units: StageUnits) -> Float64[np.ndarray, "3"]:
    """Centre of a finger link's geometry in its own frame, m; its origin where it has none."""
    box = link_box(stage, spec.links[link].prim_path, units)
    return np.zeros(3) if not np.isfinite(box).all() else box.mean(0)


def link_box(
    stage: Usd.Stage, path: str, units: StageUnits, *, colliders_only: bool = False
) -> Float64[np.ndarray, "2 3"]:
    """Corners (min, max) of the box around a body's geometry, in the body's frame, m; infinite where it has none."""
    body = stage.GetPrimAtPath(path)
    T_body_world = inverse(world_pose(body, units))
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    time = start_time(stage)
    cache = UsdGeom.XformCache(time)
    for prim in prims_under(body):
        if not prim.IsA(UsdGeom.Gprim) or body_of(prim) != body:
            continue
        if colliders_only and not prim.HasAPI(UsdPhysics.CollisionAPI):
            continue
        extent = UsdGeom.Boundable.ComputeExtentFromPlugins(UsdGeom.Boundable(prim), time)
        if not extent:
            continue
        box = Gf.Range3d(Gf.Vec3d(extent[0]), Gf.Vec3d(extent[1]))
        matrix = cache.GetLocalToWorldTransform(prim)
        corners = np.array([matrix.Transform(box.GetCorner(i)) for i in range(8)]) * units.metres_per_unit
        points = transform(T_body_world, corners @ units.R_world_stage.T)
        low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
    return np.stack([low, high])
