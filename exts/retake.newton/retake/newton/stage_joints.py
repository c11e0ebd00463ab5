# SPDX-License-Identifier: Apache-2.0
"""What of a stage's bodies and joints the simulator reads otherwise than the stage means, said in the session layer.

The simulator takes joints only as parts of articulations, refuses the whole stage for a closed loop, makes a robot again
for every articulation root on it, and holds to the world what a joint outside the articulation holds to a link. A drawer,
a lamp or a lid has joints and no articulation root; a second root or an unmarked loop of scenery must not stop or change
the robot beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.usd.joint_tree import root_bodies, same_hinge
from retake.usd.joints import Edge, loose_joints, read_edges
from retake.usd.stage import body_of, editable, notable_prims, start_time
from retake.usd.units import StageUnits

LEAST_SCALE = 1e-9
"""A body scaled by less in one direction has no extent there."""


@dataclass(frozen=True)
class Link:
    """A joint as the graph of bodies sees it."""

    path: str
    bodies: tuple[str, str]
    """Prim paths; empty = the world."""
    fixed: bool
    axis: str = ""
    """X, Y or Z of a hinge or slide; empty otherwise."""


def mend_bodies(stage: Usd.Stage) -> list[str]:
    """Bodies scaled to nothing or without a finite place are left out of the simulation; notes that name them."""
    cache, nowhere = UsdGeom.XformCache(start_time(stage)), []
    for prim in notable_prims(stage):
        if prim.HasAPI(UsdPhysics.RigidBodyAPI):
            M = np.array(cache.GetLocalToWorldTransform(prim))
            if not (np.isfinite(M).all() and np.linalg.norm(M[:3, :3], axis=1).min() > LEAST_SCALE):
                nowhere.append(str(prim.GetPath()))
    for path in nowhere:
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            editable(stage, path).SetActive(False)
    return [
        f"{path} is scaled to nothing or has no finite place: it is left out (correct its transform)"
        for path in nowhere
    ]


def mend_joints(stage: Usd.Stage) -> list[str]:
    """One articulation for every group of jointed bodies, each a tree; notes on what is taken otherwise than it is written."""
    notes = _without_bodies(stage)
    edges = _hinged_once(stage, read_edges(stage, StageUnits.of(stage)))
    joints = [Link(e.path, e.bodies, e.kind == "fixed" and not e.problem, e.axis) for e in edges if any(e.bodies)]
    joints += _attached(stage, joints)
    roots = {str(p.GetPath()): root_bodies(p, edges) for p in _roots(stage)}
    order = {str(p.GetPath()): i for i, p in enumerate(notable_prims(stage))}
    for group in _groups(joints):
        own = [j for j in joints if group & set(j.bodies)]
        mine = [path for path, bodies in roots.items() if bodies & group]
        base, closing, turned = _tree(group, own, roots[mine[0]] & group if mine else set(), order)
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            for path in mine[1:]:
                editable(stage, path).RemoveAPI(UsdPhysics.ArticulationRootAPI)
            for joint in closing:
                UsdPhysics.Joint(editable(stage, joint.path)).CreateExcludeFromArticulationAttr(True)
            for joint in turned:
                _turn(editable(stage, joint.path), joint.axis)
            if not mine:
                UsdPhysics.ArticulationRootAPI.Apply(editable(stage, base))
        notes += [f"{joint.path} closes a loop and holds its bodies together as a constraint" for joint in closing]
    return notes


def _roots(stage: Usd.Stage) -> list[Usd.Prim]:
    return [p for p in notable_prims(stage) if p.HasAPI(UsdPhysics.ArticulationRootAPI)]


def _without_bodies(stage: Usd.Stage) -> list[str]:
    """Joints that hold nothing are switched off (the reader names them), and so are those that no simulator here takes."""
    off, notes = set(loose_joints(stage)), []
    for prim in notable_prims(stage):
        if prim.IsA(UsdPhysics.DistanceJoint) and UsdPhysics.Joint(prim).GetJointEnabledAttr().Get() is not False:
            off.add(str(prim.GetPath()))
            notes.append(f"{prim.GetPath()} is a distance joint, which the simulator does not take: it holds nothing")
    for path in sorted(off):
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            UsdPhysics.Joint(editable(stage, path)).CreateJointEnabledAttr(False)
    return notes


def _hinged_once(stage: Usd.Stage, edges: list[Edge]) -> list[Edge]:
    """The joints without further hinges on the line of another between the same bodies, as a door has; those are switched off:
    together they would be joints that no force tells apart."""
    kept: list[Edge] = []
    off = []
    for edge in edges:
        alike = [e for e in kept if set(e.bodies) == set(edge.bodies) and not e.problem and not edge.problem]
        if any(same_hinge(e, edge) for e in alike):
            off.append(edge.path)
        else:
            kept.append(edge)
    for path in off:
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            UsdPhysics.Joint(editable(stage, path)).CreateJointEnabledAttr(False)
    return kept


def _attached(stage: Usd.Stage, joints: list[Link]) -> list[Link]:
    """Joints outside the articulation that alone hold a body (a thing glued to a hand) are joints of it like any other.

    They have to be: the simulator takes such a joint for one to the world, and leaves the body out.
    """
    jointed = {body for j in joints for body in j.bodies}
    taken = []
    for prim in notable_prims(stage):
        joint = UsdPhysics.Joint(prim) if prim.IsA(UsdPhysics.Joint) else None
        if (
            joint is None
            or not joint.GetExcludeFromArticulationAttr().Get()
            or joint.GetJointEnabledAttr().Get() is False
        ):
            continue
        bodies = []
        for relation in (joint.GetBody0Rel(), joint.GetBody1Rel()):
            target = stage.GetPrimAtPath(relation.GetTargets()[0]) if relation.GetTargets() else None
            body = body_of(target) if target else None
            bodies.append(str(body.GetPath()) if body else "")
        if bodies[0] != bodies[1] and any(body and body not in jointed for body in bodies):
            taken.append(Link(str(prim.GetPath()), (bodies[0], bodies[1]), prim.IsA(UsdPhysics.FixedJoint)))
            jointed |= set(bodies)
    for joint in taken:
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            UsdPhysics.Joint(editable(stage, joint.path)).CreateExcludeFromArticulationAttr(False)
    return taken


def _groups(joints: Iterable[Link]) -> list[set[str]]:
    """Bodies that joints hold to each other, group by group (the world connects nothing); single bodies are none."""
    groups: list[set[str]] = []
    for joint in joints:
        if all(joint.bodies):
            near = [g for g in groups if g & set(joint.bodies)]
            groups = [g for g in groups if g not in near] + [set(joint.bodies).union(*near)]
    return groups


def _tree(
    group: set[str], joints: list[Link], wanted: set[str], order: dict[str, int]
) -> tuple[str, list[Link], list[Link]]:
    """Where the articulation root of a group goes, the joints that close loops of it, and those authored towards it."""
    world = [j for j in joints if not all(j.bodies)]
    held = sorted(world, key=lambda j: not j.fixed)[:1]
    near: dict[str, list[Link]] = {}
    for joint in joints:
        if all(joint.bodies):
            for body in joint.bodies:
                near.setdefault(body, []).append(joint)
    start = next(b for b in held[0].bodies if b) if held else min(wanted or group, key=lambda b: order.get(b, 0))
    above, waiting, closing, turned = {start: ("", start)}, [start], [], []
    used: set[str] = set()
    while waiting:
        body = waiting.pop(0)
        for joint in near.get(body, ()):
            if joint.path in used:
                continue
            used.add(joint.path)
            other = joint.bodies[0] if joint.bodies[1] == body else joint.bodies[1]
            if other not in above:
                above[other] = (joint.path, body)
                several = sum(set(j.bodies) == set(joint.bodies) for j in joints) > 1
                turned += [joint] if joint.bodies[1] == body and not several else []
                waiting.append(other)
            elif not _with(joint, joints, above):
                closing.append(joint)
    first = [j for j in world if held and not j.fixed and not held[0].fixed and set(j.bodies) == set(held[0].bodies)]
    closing += [j for j in world if j not in held and j not in first]
    return (held[0].path if held else start), closing, turned


def _turn(prim: Usd.Prim, axis: str) -> None:
    """Write a joint from its parent to its child, meaning the same: its two sides change places, and its frames are turned
    half about an axis across its own, so that it counts the same way."""
    joint = UsdPhysics.Joint(prim)
    relations = (joint.GetBody0Rel(), joint.GetBody1Rel())
    targets = [r.GetTargets() for r in relations]
    places = [a.Get() or Gf.Vec3f(0) for a in (joint.GetLocalPos0Attr(), joint.GetLocalPos1Attr())]
    turns = [a.Get() or Gf.Quatf(1) for a in (joint.GetLocalRot0Attr(), joint.GetLocalRot1Attr())]
    half = {"X": Gf.Quatf(0, 0, 1, 0), "Y": Gf.Quatf(0, 0, 0, 1), "Z": Gf.Quatf(0, 1, 0, 0)}.get(axis, Gf.Quatf(1))
    for relation, target in zip(relations, targets[::-1], strict=True):
        relation.SetTargets(target)
    joint.CreateLocalPos0Attr(places[1])
    joint.CreateLocalPos1Attr(places[0])
    joint.CreateLocalRot0Attr(turns[1] * half)
    joint.CreateLocalRot1Attr(turns[0] * half)


def _with(joint: Link, joints: list[Link], above: dict[str, tuple[str, str]]) -> bool:
    """Whether a joint is one of several hinges or slides between the same two bodies, of which the tree holds one."""
    first = {above[body][0] for body in joint.bodies}
    return not joint.fixed and any(
        j.path in first and set(j.bodies) == set(joint.bodies) and not j.fixed for j in joints
    )
