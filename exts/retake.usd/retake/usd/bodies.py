# SPDX-License-Identifier: Apache-2.0
"""Free rigid bodies and scenery of a stage: names, labels, boxes, masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.episode import ObjectSpec
from retake.core.errors import StageError, unknown_name
from retake.usd.articulation import Articulation, articulation_bodies
from retake.usd.joints import Edge, read_edges
from retake.usd.names import WORLD, distinct, model_prim, shown
from retake.usd.shapes import link_box
from retake.usd.stage import body_of, has_label, label_of, notable_prims, one_pass, prims_under, remembered, start_time
from retake.usd.units import StageUnits, rigid_and_scale, world_pose


@dataclass(frozen=True)
class StageObject:
    """A rigid object, or a fixed piece of scenery that a task names."""

    spec: ObjectSpec
    T_world_object: Float64[np.ndarray, "4 4"]
    """Authored pose, m."""


@dataclass(frozen=True)
class StageObjects:
    """The rigid objects of a stage, and why other bodies are none."""

    objects: tuple[StageObject, ...]
    refused: dict[str, str]
    """Prim path -> reason: no geometry, mirrored, held by a joint."""
    notes: tuple[str, ...]


def find_objects(stage: Usd.Stage) -> StageObjects:
    """Every free rigid body that is no part of an articulation, in stage order. Never raises because of one body."""
    with one_pass(stage):
        return _find_objects(stage)


def _find_objects(stage: Usd.Stage) -> StageObjects:
    units = StageUnits.of(stage)
    edges = read_edges(stage, units)
    links, held = articulation_bodies(stage), _fixed_to_world(edges)
    out: list[StageObject] = []
    refused: dict[str, str] = {}
    for prim in notable_prims(stage):
        if not prim.HasAPI(UsdPhysics.RigidBodyAPI):
            continue
        path = str(prim.GetPath())
        if path in links:
            continue
        if path in held:
            refused[path] = f"{path} hangs on joint {held[path]} and counts as scenery"
            continue
        try:
            out.append(read_object(prim, units, movable=True))
        except StageError as error:
            refused[path] = str(error)
    names = distinct([model_prim(stage.GetPrimAtPath(o.spec.prim_path)) for o in out], plain=True)
    objects = tuple(replace(o, spec=replace(o.spec, name=n)) for o, n in zip(out, names, strict=True))
    return StageObjects(objects, refused, tuple(f"object left out: {why}" for why in refused.values()))


def read_objects(stage: Usd.Stage, robots: Sequence[Articulation] = ()) -> tuple[StageObject, ...]:
    """Every usable object of a stage; bodies of articulations, and links of `robots`, are none."""
    links = {link.prim_path for robot in robots for link in robot.spec.links}
    return tuple(item for item in find_objects(stage).objects if item.spec.prim_path not in links)


def choose_objects(found: StageObjects, chosen: Sequence[str] | None) -> tuple[StageObject, ...]:
    """Of what was found the objects at some prim paths, in that order (all if None).

    Raises StageError with the reason for a path that is no usable object.
    """
    if chosen is None:
        return found.objects
    by_path = {item.spec.prim_path: item for item in found.objects}
    for path in chosen:
        if path in found.refused:
            raise StageError(found.refused[path])
        if path not in by_path:
            raise StageError(unknown_name("object prim", path, by_path))
    return tuple(by_path[path] for path in chosen)


def _fixed_to_world(edges: Sequence[Edge]) -> dict[str, str]:
    """Bodies that joints tie to the world, directly or through others -> the joint."""
    held: dict[str, str] = {}
    grown = True
    while grown:
        grown = False
        for edge in edges:
            for body, other in (edge.bodies, edge.bodies[::-1]):
                if body and body not in held and (not other or other in held):
                    held[body], grown = edge.path, True
    return held


def read_object(prim: Usd.Prim, units: StageUnits, *, movable: bool) -> StageObject:
    """One prim as an object: box of its geometry in its own frame, label, mass (None where the stage states none)."""
    path = str(prim.GetPath())
    box = link_box(prim.GetStage(), path, units) if movable else _group_box(prim, units)
    if not np.isfinite(box).all():
        raise StageError(f"object {path} has no geometry; expected at least one visible or collision shape under it")
    mass = UsdPhysics.MassAPI(prim).GetMassAttr().Get() if prim.HasAPI(UsdPhysics.MassAPI) else None
    size, centre = box[1] - box[0], box.mean(0)
    return StageObject(
        ObjectSpec(
            name=distinct([model_prim(prim)], plain=True)[0],
            prim_path=path,
            label=label_of(prim) if has_label(prim) else shown(model_prim(prim)).lower(),
            size_m=(float(size[0]), float(size[1]), float(size[2])),
            center_m=(float(centre[0]), float(centre[1]), float(centre[2])),
            movable=movable,
            mass_kg=float(mass) * units.kilograms_per_unit if mass else None,
        ),
        world_pose(prim, units),
    )


def _group_box(prim: Usd.Prim, units: StageUnits) -> Float64[np.ndarray, "2 3"]:
    """Box around everything under a static prim, in the prim's rigid frame, m."""
    time = start_time(prim.GetStage())
    cache = UsdGeom.BBoxCache(time, [UsdGeom.Tokens.default_, UsdGeom.Tokens.render, UsdGeom.Tokens.proxy])
    bound = cache.ComputeRelativeBound(prim, prim).ComputeAlignedRange()
    if bound.IsEmpty():
        return np.array([[np.inf] * 3, [-np.inf] * 3])
    _, scale = rigid_and_scale(UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(time))
    return np.array([bound.GetMin(), bound.GetMax()]) * scale * units.metres_per_unit


def scenery_group(prim: Usd.Prim) -> Usd.Prim:
    """The prim that stands for a static shape in the instance image: its ancestor just below the world's prim."""
    stage = prim.GetStage()
    world = remembered(stage, "the world's prim", lambda: _world(stage))
    while body_of(prim) is None and (parent := prim.GetParent()) and not parent.IsPseudoRoot() and parent != world:
        prim = parent
    return prim


def _world(stage: Usd.Stage) -> Usd.Prim:
    """The default prim. Where a stage names none, the one prim at its top that holds all shapes, or of several the one that is
    called a world: floor, table and bin below it are three things, also with a robot beside it. Else, or where it is a thing
    itself, no prim (an invalid one): each at the top is a thing, as a bin beside a robot is."""
    if default := stage.GetDefaultPrim():
        return default
    holders = []
    for top in stage.GetPseudoRoot().GetChildren():
        if any(UsdGeom.Gprim(prim) for prim in prims_under(top)):
            holders.append(top)
    if len(holders) > 1:
        holders = [top for top in holders if WORLD.fullmatch(shown(top))]
    if len(holders) == 1 and not UsdGeom.Gprim(holders[0]) and body_of(holders[0]) is None:
        return holders[0]
    return Usd.Prim()
