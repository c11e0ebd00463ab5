# SPDX-License-Identifier: Apache-2.0
"""UsdPhysics articulation -> RobotSpec: links, joints with their frames, limits, end effectors.

The kinematic tree is found from the joints themselves, not from prim nesting: starting at the base link every joint is
walked away from the base, and a joint authored the other way round is turned (its axis changes sign). Joints to the
world and joints marked `excludeFromArticulation` (loop closures) are no tree edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.errors import InputError, StageError
from retake.core.geometry import inverse
from retake.core.robot import JointSpec, JointType, LinkSpec, RobotSpec
from retake.usd.gripper import find_grippers
from retake.usd.stage import body_of
from retake.usd.units import StageUnits, rigid_and_scale, world_pose

AXES = {"X": (1.0, 0.0, 0.0), "Y": (0.0, 1.0, 0.0), "Z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Articulation:
    """A robot as the stage describes it: what it is, and where its parts are on the stage."""

    spec: RobotSpec
    dof_paths: tuple[str, ...]
    """Joint prim path of each movable joint, order of `spec.dof_names`."""
    T_world_link: Float64[np.ndarray, "L 4 4"]
    """Authored world poses of the links, m."""
    initial_position: Float64[np.ndarray, "D"]
    """Joint positions the stage starts with (authored joint state, else drive target, else 0), rad or m."""
    driven: tuple[bool, ...]
    """Whether each movable joint has a drive."""
    fixed_base: bool


@dataclass(frozen=True)
class _Edge:
    """A joint between two bodies (prim paths; empty = world), frames in the bodies' own frames, metres."""

    prim: Usd.Prim
    kind: JointType
    bodies: tuple[str, str]
    frames: tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "4 4"]]


def read_articulations(stage: Usd.Stage) -> tuple[Articulation, ...]:
    """Every articulation of a stage, in stage order.

    Raises StageError when there is none, when two robots share a name, or when a joint cannot be expressed (spherical,
    distance, free D6), naming the prim.
    """
    where = stage.GetRootLayer().identifier
    roots = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.ArticulationRootAPI)]
    if not roots:
        bodies = sum(prim.HasAPI(UsdPhysics.RigidBodyAPI) for prim in stage.Traverse())
        raise StageError(
            f"{where} has no articulation ({bodies} rigid bodies, none under a PhysicsArticulationRootAPI); "
            "apply UsdPhysics.ArticulationRootAPI to the robot's root prim"
        )
    units = StageUnits.of(stage)
    edges = _edges(stage, units)
    robots = tuple(_read_one(root, edges, units) for root in roots)
    names = [robot.spec.name for robot in robots]
    for name in names:
        if names.count(name) > 1:
            paths = [r.spec.prim_path for r in robots if r.spec.name == name]
            raise StageError(f"{where}: {len(paths)} robots are named {name!r} ({', '.join(paths)}); names must differ")
    return robots


def read_robots(stage: Usd.Stage) -> tuple[RobotSpec, ...]:
    """The RobotSpec of every articulation. Raises StageError as `read_articulations` does."""
    return tuple(articulation.spec for articulation in read_articulations(stage))


def _edges(stage: Usd.Stage, units: StageUnits) -> list[_Edge]:
    edges = []
    for prim in stage.Traverse():
        if not prim.IsA(UsdPhysics.Joint):
            continue
        joint = UsdPhysics.Joint(prim)
        if joint.GetJointEnabledAttr().Get() is False or joint.GetExcludeFromArticulationAttr().Get():
            continue
        sides = [_side(joint, index, units) for index in (0, 1)]
        edges.append(_Edge(prim, _kind(prim), (sides[0][0], sides[1][0]), (sides[0][1], sides[1][1])))
    return edges


def _kind(prim: Usd.Prim) -> JointType:
    if prim.IsA(UsdPhysics.RevoluteJoint):
        return "revolute"
    if prim.IsA(UsdPhysics.PrismaticJoint):
        return "prismatic"
    if prim.IsA(UsdPhysics.FixedJoint):
        return "fixed"
    # A generic joint with every axis locked (low > high) is fixed; anything freer has no single position.
    locked = [UsdPhysics.LimitAPI(prim, t) for t in ("transX", "transY", "transZ", "rotX", "rotY", "rotZ")]
    if all(limit and limit.GetLowAttr().Get() > limit.GetHighAttr().Get() for limit in locked):
        return "fixed"
    raise StageError(
        f"{prim.GetPath()}: joint type {prim.GetTypeName()} is not supported; "
        "expected PhysicsRevoluteJoint, PhysicsPrismaticJoint or PhysicsFixedJoint"
    )


def _side(joint: UsdPhysics.Joint, index: int, units: StageUnits) -> tuple[str, Float64[np.ndarray, "4 4"]]:
    """Body path ("" = world) and T_body_joint of one side of a joint."""
    prim = joint.GetPrim()
    relation = (joint.GetBody0Rel(), joint.GetBody1Rel())[index]
    position = (joint.GetLocalPos0Attr(), joint.GetLocalPos1Attr())[index].Get() or Gf.Vec3f(0)
    rotation = (joint.GetLocalRot0Attr(), joint.GetLocalRot1Attr())[index].Get() or Gf.Quatf(1)
    targets = relation.GetTargets()
    target = prim.GetStage().GetPrimAtPath(targets[0]) if targets else None
    if targets and not target:
        raise StageError(f"{prim.GetPath()}: body{index} names {targets[0]}, which is not on the stage")
    body = body_of(target) if target else None
    local = Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Quatd(rotation))) * Gf.Matrix4d().SetTranslate(Gf.Vec3d(position))
    T_target_joint, _ = rigid_and_scale(local)
    scale = np.ones(3)
    if target:
        # A joint's local position is in the prim's own, possibly scaled, units.
        _, scale = rigid_and_scale(UsdGeom.Xformable(target).ComputeLocalToWorldTransform(Usd.TimeCode.Default()))
    T_target_joint[:3, 3] *= scale * units.metres_per_unit
    if target is None or body is None or body == target:
        return ("" if body is None else str(body.GetPath())), T_target_joint
    return str(body.GetPath()), inverse(world_pose(body, units)) @ world_pose(target, units) @ T_target_joint


def _read_one(root: Usd.Prim, edges: list[_Edge], units: StageUnits) -> Articulation:
    stage = root.GetStage()
    name = root.GetParent().GetName() if root.IsA(UsdPhysics.Joint) else root.GetName()
    seeds = _seeds(root, edges)
    if not seeds:
        raise StageError(f"articulation {root.GetPath()} has no rigid body; expected links with PhysicsRigidBodyAPI")
    members = _component(seeds, edges)
    mine = [e for e in edges if set(e.bodies) & members]
    base, fixed = _base(root, members, mine)
    links, walked = _walk(base, [e for e in mine if all(e.bodies)])
    if missing := members - set(links):
        raise StageError(f"articulation {root.GetPath()}: links {sorted(missing)} are not reached from base {base}")
    index = {path: i for i, path in enumerate(links)}
    joints, paths = [], []
    for edge, reverse in walked:
        joints.append(_joint(edge, reverse, index, units))
        if edge.kind != "fixed":
            paths.append(str(edge.prim.GetPath()))
    link_specs = tuple(LinkSpec(path.rsplit("/", 1)[-1], path) for path in links)
    for kind, names in (("joints", [j.name for j in joints]), ("links", [link.name for link in link_specs])):
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise StageError(f"articulation {root.GetPath()} has two {kind} of one name: {twice}; names must differ")
    try:
        spec = RobotSpec(name, str(root.GetPath()), link_specs, tuple(joints))
        grippers = find_grippers(stage, spec, units)
        spec = RobotSpec(name, str(root.GetPath()), link_specs, tuple(joints), grippers)
    except InputError as error:
        raise StageError(f"articulation {root.GetPath()}: {error}") from error
    states = [_initial(stage.GetPrimAtPath(path), units) for path in paths]
    return Articulation(
        spec=spec,
        dof_paths=tuple(paths),
        T_world_link=np.stack([world_pose(stage.GetPrimAtPath(path), units) for path in links]),
        initial_position=np.array([position for position, _ in states], np.float64),
        driven=tuple(driven for _, driven in states),
        fixed_base=fixed,
    )


def _seeds(root: Usd.Prim, edges: list[_Edge]) -> set[str]:
    if root.IsA(UsdPhysics.Joint):
        return {body for e in edges if e.prim == root for body in e.bodies if body}
    if root.HasAPI(UsdPhysics.RigidBodyAPI):
        return {str(root.GetPath())}
    jointed = {body for e in edges for body in e.bodies if body}
    return {str(p.GetPath()) for p in Usd.PrimRange(root) if p.HasAPI(UsdPhysics.RigidBodyAPI)} & jointed


def _component(seeds: set[str], edges: list[_Edge]) -> set[str]:
    """Bodies connected to the seeds by joints (the world connects nothing)."""
    members, grown = set(seeds), True
    while grown:
        grown = False
        for edge in edges:
            if all(edge.bodies) and len(members & set(edge.bodies)) == 1:
                members |= set(edge.bodies)
                grown = True
    return members


def _base(root: Usd.Prim, members: set[str], edges: list[_Edge]) -> tuple[str, bool]:
    """Base link and whether it is fixed to the world."""
    for edge in edges:
        if edge.kind == "fixed" and not all(edge.bodies):
            return next(body for body in edge.bodies if body), True
    if str(root.GetPath()) in members:
        return str(root.GetPath()), False
    children = {edge.bodies[1] for edge in edges if all(edge.bodies)}
    stage = root.GetStage()
    order = [str(p.GetPath()) for p in stage.Traverse() if str(p.GetPath()) in members]
    return next((path for path in order if path not in children), order[0]), False


def _walk(base: str, edges: list[_Edge]) -> tuple[list[str], list[tuple[_Edge, bool]]]:
    """Links and joints depth first from the base; True marks a joint authored towards the base."""
    links, walked, used = [base], [], set()

    def visit(body: str) -> None:
        for number, edge in enumerate(edges):
            if number in used or body not in edge.bodies:
                continue
            reverse = edge.bodies[1] == body
            child = edge.bodies[0] if reverse else edge.bodies[1]
            used.add(number)
            if child in links:
                raise StageError(
                    f"{edge.prim.GetPath()} closes a loop at {child}; mark loop closures physics:excludeFromArticulation"
                )
            links.append(child)
            walked.append((edge, reverse))
            visit(child)

    visit(base)
    return links, walked


def _joint(edge: _Edge, reverse: bool, index: dict[str, int], units: StageUnits) -> JointSpec:
    prim = edge.prim
    (parent, child), (T_parent, T_child) = edge.bodies, edge.frames
    sign = 1.0
    if reverse:
        parent, child, T_parent, T_child, sign = child, parent, T_child, T_parent, -1.0
    common = (prim.GetName(), edge.kind, index[parent], index[child])
    if edge.kind == "fixed":
        return JointSpec(*common, (0.0, 0.0, 1.0), T_parent, T_child)
    revolute = edge.kind == "revolute"
    typed = UsdPhysics.RevoluteJoint(prim) if revolute else UsdPhysics.PrismaticJoint(prim)
    axis = AXES[str(typed.GetAxisAttr().Get())]
    to_si = np.pi / 180 if revolute else units.metres_per_unit
    lower, upper = typed.GetLowerLimitAttr().Get(), typed.GetUpperLimitAttr().Get()
    if lower > upper:
        raise StageError(f"{prim.GetPath()}: lower limit {lower} is above upper limit {upper}")
    drive = UsdPhysics.DriveAPI(prim, "angular" if revolute else "linear")
    # N·m = kg·m²/s² and N = kg·m/s², each in stage units.
    to_effort = units.kilograms_per_unit * units.metres_per_unit ** (2 if revolute else 1)
    effort = drive.GetMaxForceAttr().Get() * to_effort if drive and drive.GetMaxForceAttr() else np.inf
    attribute = prim.GetAttribute("physxJoint:maxJointVelocity")
    velocity = attribute.Get() * to_si if attribute and attribute.HasAuthoredValue() else np.inf
    return JointSpec(
        *common,
        (sign * axis[0], sign * axis[1], sign * axis[2]),
        T_parent,
        T_child,
        lower=float(lower) * to_si,
        upper=float(upper) * to_si,
        velocity_limit=float(velocity),
        effort_limit=float(effort),
    )


def _initial(prim: Usd.Prim, units: StageUnits) -> tuple[float, bool]:
    """Start position (rad or m) of a movable joint, and whether it is driven."""
    revolute = prim.IsA(UsdPhysics.RevoluteJoint)
    kind, to_si = ("angular", np.pi / 180) if revolute else ("linear", units.metres_per_unit)
    drive = UsdPhysics.DriveAPI(prim, kind) if prim.HasAPI(UsdPhysics.DriveAPI, kind) else None
    state = prim.GetAttribute(f"state:{kind}:physics:position")
    if state and state.HasAuthoredValue():
        position = state.Get()
    elif drive and drive.GetTargetPositionAttr().HasAuthoredValue():
        position = drive.GetTargetPositionAttr().Get()
    else:
        position = 0.0
    return float(position) * to_si, drive is not None
