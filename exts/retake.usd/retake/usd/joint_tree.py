# SPDX-License-Identifier: Apache-2.0
"""Joints as a tree: which bodies belong to an articulation, what its base is, and in which order joints lead away from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pxr import Usd, UsdPhysics

from retake.core.errors import StageError
from retake.core.geometry import transform
from retake.usd.joints import AXES, Edge
from retake.usd.stage import notable_prims, prims_under


def members_of(root: Usd.Prim, edges: list[Edge]) -> set[str]:
    """Bodies of the articulation at a root. Raises StageError where it stands for none."""
    seeds = root_bodies(root, edges)
    if not seeds:
        raise StageError(f"articulation {root.GetPath()} has no rigid body; expected links with PhysicsRigidBodyAPI")
    return component(seeds, edges)


def root_bodies(root: Usd.Prim, edges: list[Edge]) -> set[str]:
    """Prim paths of the jointed bodies that an articulation root stands for: those of its joint, its own, or those under it."""
    if root.IsA(UsdPhysics.Joint):
        return {body for e in edges if e.prim == root for body in e.bodies if body}
    if root.HasAPI(UsdPhysics.RigidBodyAPI):
        return {str(root.GetPath())}
    jointed = {body for e in edges for body in e.bodies if body}
    return {str(p.GetPath()) for p in prims_under(root) if p.HasAPI(UsdPhysics.RigidBodyAPI)} & jointed


def component(seeds: set[str], edges: list[Edge]) -> set[str]:
    """Bodies connected to the seeds by joints (the world connects nothing)."""
    near: dict[str, list[str]] = {}
    for edge in edges:
        if all(edge.bodies):
            for a, b in (edge.bodies, edge.bodies[::-1]):
                near.setdefault(a, []).append(b)
    members, waiting = set(seeds), list(seeds)
    while waiting:
        for other in near.get(waiting.pop(), ()):
            if other not in members:
                members.add(other)
                waiting.append(other)
    return members


def base_of(root: Usd.Prim, members: set[str], edges: list[Edge]) -> tuple[str, bool, list[Edge], list[str]]:
    """Base link, whether the world holds it, the movable joints between the two, and notes."""
    world = [(edge, next(b for b in edge.bodies if b)) for edge in edges if not all(edge.bodies)]
    fixed = [body for edge, body in world if edge.kind == "fixed"]
    if world:
        base = fixed[0] if fixed else world[0][1]
        movable = [] if fixed else [edge for edge, body in world if body == base]
        ignored = [e.path for e, body in world if (e.kind != "fixed" and e not in movable) or body != base]
        notes = [f"{path} closes a loop through the world and is left out of the tree" for path in ignored]
        return base, True, movable, notes
    if str(root.GetPath()) in members:
        return str(root.GetPath()), False, [], []
    children = {edge.bodies[1] for edge in edges if all(edge.bodies)}
    order = [str(p.GetPath()) for p in notable_prims(root.GetStage()) if str(p.GetPath()) in members]
    return next((path for path in order if path not in children), order[0]), False, [], []


def walk(base: str, edges: list[Edge]) -> tuple[list[str], list[tuple[Edge, bool]], list[str]]:
    """Links and joints depth first from the base; True marks a joint authored towards the base. And notes."""
    near: dict[str, list[int]] = {}
    for number, edge in enumerate(edges):
        for body in edge.bodies:
            near.setdefault(body, []).append(number)
    links, walked, used, notes = [base], [], set(), []

    def visit(body: str) -> None:
        for number in near.get(body, ()):
            edge = edges[number]
            if number in used:
                continue
            child = edge.bodies[0] if edge.bodies[1] == body else edge.bodies[1]
            used.add(number)
            if child in links:
                raise StageError(
                    f"{edge.path} closes a loop at {child}; mark loop closures physics:excludeFromArticulation"
                )
            links.append(child)
            # Several hinges or slides between the same two bodies are degrees of freedom of one body, in stage order.
            group = [edge]
            for more in near[body]:
                other = edges[more]
                if more in used or set(other.bodies) != {body, child} or "fixed" in (edge.kind, other.kind):
                    continue
                used.add(more)
                if same_hinge(edge, other):
                    notes.append(f"{other.path} lies on the axis of {edge.path}: two hinges of one door are one joint")
                else:
                    group.append(other)
            # Seen from the other body the last of them comes first.
            group = group[::-1] if edge.bodies[1] == body else group
            walked.extend((e, e.bodies[1] == body) for e in group)
            visit(child)

    visit(base)
    return links, walked, notes


def same_hinge(a: Edge, b: Edge) -> bool:
    """Whether two hinges turn about one line, as the hinges of a door do."""
    if (a.kind, b.kind) != ("revolute", "revolute"):
        return False
    if a.bodies != b.bodies:
        b = replace(b, bodies=b.bodies[::-1], frames=b.frames[::-1])
    (axis, origin), (other, place) = (
        (e.frames[0][:3, :3] @ np.array(AXES[e.axis]), transform(e.frames[0], np.zeros(3))) for e in (a, b)
    )
    return bool(abs(axis @ other) > 1 - 1e-6 and np.linalg.norm(np.cross(place - origin, axis)) < 1e-4)
