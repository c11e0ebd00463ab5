# SPDX-License-Identifier: Apache-2.0
"""One joint prim at a time: which bodies it connects, what it leaves free, its limits, its drive, what it follows.

Hinges and slides are PhysicsRevoluteJoint and PhysicsPrismaticJoint, or a generic joint that leaves exactly one axis
free. Whatever is wrong with a joint is kept beside it as text: it matters only to who uses that joint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.errors import StageError
from retake.core.geometry import inverse
from retake.core.robot import JointType
from retake.usd.stage import ACTUATORS, applied_schemas, body_of, notable_prims, remembered, start_time
from retake.usd.units import StageUnits, rigid_and_scale, world_pose

AXES = {"X": (1.0, 0.0, 0.0), "Y": (0.0, 1.0, 0.0), "Z": (0.0, 0.0, 1.0)}
GENERIC_AXES = ("transX", "transY", "transZ", "rotX", "rotY", "rotZ")


@dataclass(frozen=True)
class Edge:
    """A joint between two bodies (prim paths; empty = world), frames in the bodies' own frames, metres."""

    prim: Usd.Prim
    kind: JointType
    axis: str
    """X, Y or Z of the joint's frame; empty where nothing moves."""
    drive: str
    """Instance name of its drive, state and limits: angular, linear, or the free axis of a generic joint."""
    bodies: tuple[str, str]
    frames: tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "4 4"]]
    problem: str = ""
    """Why it cannot be used; empty = it can."""

    @property
    def path(self) -> str:
        """Prim path."""
        return str(self.prim.GetPath())


@dataclass(frozen=True)
class JointValues:
    """What a movable joint states, SI: rad or m and what follows from them."""

    lower: float
    upper: float
    velocity: float
    effort: float
    start: float
    """Position it starts at: authored joint state, else drive target, else 0."""
    driven: bool


@dataclass(frozen=True)
class Follows:
    """q = factor * q_leader + offset (rad or m; the factor between a hinge and a slide is in m/rad or rad/m)."""

    leader: str
    """Prim path of the leading joint."""
    factor: float
    offset: float


def read_edges(stage: Usd.Stage, units: StageUnits) -> list[Edge]:
    """Every enabled joint of a stage that may be part of an articulation, in stage order. Never raises for a joint."""
    return remembered(stage, "joints", lambda: _read_edges(stage, units))


def _read_edges(stage: Usd.Stage, units: StageUnits) -> list[Edge]:
    edges, loose = [], loose_joints(stage)
    for prim in notable_prims(stage):
        if not prim.IsA(UsdPhysics.Joint) or str(prim.GetPath()) in loose:
            continue
        joint = UsdPhysics.Joint(prim)
        if joint.GetJointEnabledAttr().Get() is False or joint.GetExcludeFromArticulationAttr().Get():
            continue
        bodies, frames, problem = ["", ""], [np.eye(4), np.eye(4)], ""
        for index in (0, 1):
            try:
                bodies[index], frames[index] = _side(joint, index, units)
            except StageError as error:
                bodies[index], problem = _named_body(joint, index), str(error)
        edge = Edge(prim, "fixed", "", "", (bodies[0], bodies[1]), (frames[0], frames[1]), problem)
        edges.append(edge if problem else _with_kind(edge))
    return edges


def loose_joints(stage: Usd.Stage) -> dict[str, str]:
    """Prim path -> why, of enabled joints that hold nothing: they name a body that is not there, or one body twice.

    That is how a stage looks whose gripper was taken off; physics engines leave such joints out as well.
    """
    return remembered(stage, "loose joints", lambda: _loose_joints(stage))


def _loose_joints(stage: Usd.Stage) -> dict[str, str]:
    loose = {}
    for prim in notable_prims(stage):
        joint = UsdPhysics.Joint(prim) if prim.IsA(UsdPhysics.Joint) else None
        if joint is None or joint.GetJointEnabledAttr().Get() is False:
            continue
        named = [targets[0] for r in (joint.GetBody0Rel(), joint.GetBody1Rel()) if (targets := r.GetTargets())]
        there = [stage.GetPrimAtPath(path) for path in named]
        if gone := [str(path) for path, p in zip(named, there, strict=True) if not p or not p.IsActive()]:
            loose[str(prim.GetPath())] = f"names {gone[0]}, which is not on the stage"
        elif len(there) == 2 and (body := body_of(there[0])) is not None and body == body_of(there[1]):
            loose[str(prim.GetPath())] = f"joins {body.GetPath()} to itself"
    return loose


def _with_kind(edge: Edge) -> Edge:
    prim = edge.prim
    if prim.IsA(UsdPhysics.RevoluteJoint):
        return replace(
            edge, kind="revolute", axis=str(UsdPhysics.RevoluteJoint(prim).GetAxisAttr().Get()), drive="angular"
        )
    if prim.IsA(UsdPhysics.PrismaticJoint):
        axis = str(UsdPhysics.PrismaticJoint(prim).GetAxisAttr().Get())
        return replace(edge, kind="prismatic", axis=axis, drive="linear")
    if prim.IsA(UsdPhysics.FixedJoint):
        return edge
    if prim.GetTypeName() != "PhysicsJoint":
        return replace(
            edge,
            problem=f"{edge.path}: joint type {prim.GetTypeName()} is not supported; expected PhysicsRevoluteJoint, "
            "PhysicsPrismaticJoint, PhysicsFixedJoint or a PhysicsJoint with one free axis",
        )
    free = [name for name in GENERIC_AXES if not _locked(prim, name)]
    if not free:
        return edge
    if len(free) > 1:
        return replace(
            edge,
            problem=f"{edge.path}: joint type PhysicsJoint with the free axes {', '.join(free)} is not supported; expected "
            "one free axis (all others locked by limits with low above high)",
        )
    return replace(edge, kind="revolute" if free[0].startswith("rot") else "prismatic", axis=free[0][-1], drive=free[0])


def _locked(prim: Usd.Prim, axis: str) -> bool:
    limit = UsdPhysics.LimitAPI(prim, axis)
    if not limit or not prim.HasAPI(UsdPhysics.LimitAPI, axis):
        return False
    low, high = limit.GetLowAttr().Get(), limit.GetHighAttr().Get()
    return low is not None and high is not None and low > high


def _named_body(joint: UsdPhysics.Joint, index: int) -> str:
    """Which body a side names, even where it cannot be used."""
    targets = (joint.GetBody0Rel(), joint.GetBody1Rel())[index].GetTargets()
    target = joint.GetPrim().GetStage().GetPrimAtPath(targets[0]) if targets else None
    body = body_of(target) if target else None
    return str(body.GetPath()) if body else ""


def _side(joint: UsdPhysics.Joint, index: int, units: StageUnits) -> tuple[str, Float64[np.ndarray, "4 4"]]:
    """Body path ("" = world) and T_body_joint of one side of a joint; in the world's frame where there is no body."""
    prim = joint.GetPrim()
    time = start_time(prim.GetStage())
    relation = (joint.GetBody0Rel(), joint.GetBody1Rel())[index]
    position = (joint.GetLocalPos0Attr(), joint.GetLocalPos1Attr())[index].Get(time) or Gf.Vec3f(0)
    rotation = (joint.GetLocalRot0Attr(), joint.GetLocalRot1Attr())[index].Get(time) or Gf.Quatf(1)
    targets = relation.GetTargets()
    target = prim.GetStage().GetPrimAtPath(targets[0]) if targets else None
    body = body_of(target) if target else None
    length = Gf.Quatd(rotation).GetLength()
    # A `Gf.Rotation()` made of nothing holds whatever lay in memory.
    turn = Gf.Rotation(Gf.Quatd(rotation).GetNormalized() if length > 1e-9 else Gf.Quatd(1))
    local = Gf.Matrix4d().SetRotate(turn) * Gf.Matrix4d().SetTranslate(Gf.Vec3d(position))
    if target is None:
        return "", units.pose(local)
    T_target_joint, _ = rigid_and_scale(local)
    # A joint's local position is in the prim's own, possibly scaled, units.
    matrix = UsdGeom.XformCache(time).GetLocalToWorldTransform(target)
    try:
        _, scale = rigid_and_scale(matrix)
    except StageError as error:
        raise StageError(f"{target.GetPath()}: {error}") from error
    T_target_joint[:3, 3] *= scale * units.metres_per_unit
    T_world_target = world_pose(target, units)
    if body is None:
        return "", T_world_target @ T_target_joint
    if body == target:
        return str(body.GetPath()), T_target_joint
    return str(body.GetPath()), inverse(world_pose(body, units)) @ T_world_target @ T_target_joint


def joint_values(edge: Edge, units: StageUnits) -> JointValues:
    """Limits, drive and start of a movable joint. Raises StageError when its lower limit is above the upper one."""
    prim, revolute = edge.prim, edge.kind == "revolute"
    time = start_time(prim.GetStage())
    to_si = np.pi / 180 if revolute else units.metres_per_unit
    if edge.drive in GENERIC_AXES:
        limit = UsdPhysics.LimitAPI(prim, edge.drive)
        stated = limit and prim.HasAPI(UsdPhysics.LimitAPI, edge.drive)
        lower, upper = (limit.GetLowAttr().Get(), limit.GetHighAttr().Get()) if stated else (None, None)
    else:
        typed = UsdPhysics.RevoluteJoint(prim) if revolute else UsdPhysics.PrismaticJoint(prim)
        lower, upper = typed.GetLowerLimitAttr().Get(), typed.GetUpperLimitAttr().Get()
    lower, upper = -np.inf if lower is None else lower, np.inf if upper is None else upper
    if not lower <= upper:
        raise StageError(
            f"{prim.GetPath()}: limits {lower} to {upper} leave no position; expected a lower limit below the upper one"
        )
    drive = UsdPhysics.DriveAPI(prim, edge.drive) if prim.HasAPI(UsdPhysics.DriveAPI, edge.drive) else None
    # N·m = kg·m²/s² and N = kg·m/s², each in stage units.
    to_effort = units.kilograms_per_unit * units.metres_per_unit ** (2 if revolute else 1)
    effort = drive.GetMaxForceAttr().Get() * to_effort if drive and drive.GetMaxForceAttr() else np.inf
    speeds = [speed * to_si for speed in _speed_limits(prim) if speed > 0]  # 0 says "not stated": see `unstated_speeds`
    state = prim.GetAttribute(f"state:{edge.drive}:physics:position")
    if state and state.HasAuthoredValue():
        start = state.Get(time)
    elif drive and drive.GetTargetPositionAttr().HasAuthoredValue():
        start = drive.GetTargetPositionAttr().Get(time)
    else:
        start = 0.0
    # A limit beyond single precision's range is how some writers say "none".
    low, high = (float(x) * to_si if abs(x) < 1e30 else float(np.sign(x)) * np.inf for x in (lower, upper))
    return JointValues(
        low, high, float(min(speeds, default=np.inf)), float(effort), float(start) * to_si, drive is not None
    )


def _speed_limits(prim: Usd.Prim) -> list[float]:
    """Speed limits that a joint states, in its stage's units."""
    attributes = [prim.GetAttribute(name) for name in ("physxJoint:maxJointVelocity", "newton:velocityLimit")]
    return [attribute.Get() for attribute in attributes if attribute and attribute.HasAuthoredValue()]


def unstated_speeds(edges: Iterable[Edge]) -> list[str]:
    """A note on speed limits of 0, which exporters of URDF write where nobody stated one; none where there is none."""
    paths = [edge.path for edge in edges if any(speed <= 0 for speed in _speed_limits(edge.prim))]
    if not paths:
        return []
    one = f"joint {paths[0]} states a speed limit of 0, which nothing that moves keeps"
    return [one + (f" (and {len(paths) - 1} others)" if len(paths) > 1 else "") + ": it is taken for not stated"]


def scaled_slide(edge: Edge) -> str:
    """A note on a slide whose bodies are scaled; empty where there is nothing to say.

    Physics engines scale where a joint is (its local positions), not how far it travels: limits stay in the stage's units.
    """
    values = [edge.prim.GetAttribute(f"physics:{end}Limit") for end in ("lower", "upper")]
    finite = any(v and v.HasAuthoredValue() and np.isfinite(v.Get()) and v.Get() for v in values)
    if edge.kind != "prismatic" or not finite:
        return ""
    cache = UsdGeom.XformCache(start_time(edge.prim.GetStage()))
    for path in edge.bodies:
        body = edge.prim.GetStage().GetPrimAtPath(path) if path else None
        if not body:
            continue
        _, scale = rigid_and_scale(cache.GetLocalToWorldTransform(body))
        if np.abs(scale - 1).max() > 1e-3:
            factor = f"{scale[0]:g}" if np.ptp(scale) < 1e-6 * scale[0] else str([float(f"{x:g}") for x in scale])
            return (
                f"joint {edge.path} slides between bodies that are scaled by {factor}; its limits are in the stage's units "
                "and not scaled, as in PhysX and Newton: author them in stage units if it should travel farther"
            )
    return ""


def follows(edge: Edge, units: StageUnits) -> Follows | None:
    """The joint that a movable joint follows, by `NewtonMimicAPI` or `PhysxMimicJointAPI`; None where it leads."""
    prim = edge.prim
    applied = applied_schemas(prim)
    to_si = np.pi / 180 if edge.kind == "revolute" else units.metres_per_unit
    if any(name in ("NewtonMimicAPI", "MjcEqualityJointAPI") for name in applied):
        if _value(prim, "newton:mimicEnabled", True) is False:
            return None
        if (leader := _target(prim, "newton:mimicJoint")) is None:
            return None
        factor, offset = _value(prim, "newton:mimicCoef1", 1.0), _value(prim, "newton:mimicCoef0", 0.0)
        return Follows(leader, float(factor) * _factor_to_si(edge, leader, units), float(offset) * to_si)
    for name in applied:
        schema, _, axis = name.partition(":")
        if schema == "PhysxMimicJointAPI" and (leader := _target(prim, f"physxMimicJoint:{axis}:referenceJoint")):
            # q + gearing * q_leader + offset = 0
            gearing, offset = (
                _value(prim, f"physxMimicJoint:{axis}:gearing", 1.0),
                _value(prim, f"physxMimicJoint:{axis}:offset", 0.0),
            )
            return Follows(leader, -float(gearing) * _factor_to_si(edge, leader, units), -float(offset) * to_si)
    return None


def ring(path: str, leaders: Mapping[str, str]) -> list[str]:
    """The joints that follow each other in a ring, from this one on; empty where it is in none."""
    out = [path]
    while (leader := leaders.get(out[-1])) is not None and leader not in out:
        out.append(leader)
    return out if leader == path else []


def _factor_to_si(edge: Edge, leader: str, units: StageUnits) -> float:
    """Of a factor between a hinge and a slide, which counts lengths in the stage's unit per radian."""
    other = edge.prim.GetStage().GetPrimAtPath(leader)
    leads_sliding = bool(other) and _slides(other)
    return units.metres_per_unit ** ((edge.kind == "prismatic") - leads_sliding)


def _slides(joint: Usd.Prim) -> bool:
    if joint.GetTypeName() != "PhysicsJoint":
        return joint.IsA(UsdPhysics.PrismaticJoint)
    free = [name for name in GENERIC_AXES if not _locked(joint, name)]
    return len(free) == 1 and free[0].startswith("trans")


def actuated_joints(stage: Usd.Stage) -> frozenset[str]:
    """Prim paths of the joints that an actuator prim acts on (`MjcActuator`, `NewtonActuator`), tendons followed."""
    found: set[str] = set()
    for prim in notable_prims(stage):
        if prim.GetTypeName() not in ACTUATORS:
            continue
        for name in ("mjc:target", "newton:targets"):
            relation = prim.GetRelationship(name)
            for target in relation.GetTargets() if relation else ():
                tendon = stage.GetPrimAtPath(target)
                path = tendon.GetRelationship("mjc:path") if tendon and tendon.GetTypeName() == "MjcTendon" else None
                found |= {str(p) for p in (path.GetTargets() if path else (target,))}
    return frozenset(found)


def _value(prim: Usd.Prim, name: str, default: float | bool) -> float | bool:
    attribute = prim.GetAttribute(name)
    value = attribute.Get() if attribute else None
    return default if value is None else value


def _target(prim: Usd.Prim, name: str) -> str | None:
    relation = prim.GetRelationship(name)
    targets = relation.GetTargets() if relation else []
    return str(targets[0]) if targets else None
