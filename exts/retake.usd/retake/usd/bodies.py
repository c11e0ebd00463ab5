# SPDX-License-Identifier: Apache-2.0
"""Free rigid bodies and scenery of a stage: names, labels, boxes, masses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.episode import ObjectSpec
from retake.core.errors import StageError
from retake.usd.articulation import Articulation
from retake.usd.gripper import link_box
from retake.usd.stage import body_of, label_of
from retake.usd.units import StageUnits, rigid_and_scale, world_pose


@dataclass(frozen=True)
class StageObject:
    """A rigid object, or a fixed piece of scenery that a task names."""

    spec: ObjectSpec
    T_world_object: Float64[np.ndarray, "4 4"]
    """Authored pose, m."""


def read_objects(stage: Usd.Stage, robots: tuple[Articulation, ...]) -> tuple[StageObject, ...]:
    """Every rigid body that is no robot link, in stage order. Raises StageError when two share a name."""
    links = {link.prim_path for robot in robots for link in robot.spec.links}
    units = StageUnits.of(stage)
    out: list[StageObject] = []
    for prim in stage.Traverse():
        if prim.HasAPI(UsdPhysics.RigidBodyAPI) and str(prim.GetPath()) not in links:
            out.append(read_object(prim, units, movable=True))
    names = [o.spec.name for o in out]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        paths = [o.spec.prim_path for o in out if o.spec.name in twice]
        raise StageError(f"two rigid objects share a name: {', '.join(paths)}; names must differ")
    return tuple(out)


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
            name=prim.GetName(),
            prim_path=path,
            label=label_of(prim),
            size_m=(float(size[0]), float(size[1]), float(size[2])),
            center_m=(float(centre[0]), float(centre[1]), float(centre[2])),
            movable=movable,
            mass_kg=float(mass) * units.kilograms_per_unit if mass else None,
        ),
        world_pose(prim, units),
    )


def _group_box(prim: Usd.Prim, units: StageUnits) -> Float64[np.ndarray, "2 3"]:
    """Box around everything under a static prim, in the prim's rigid frame, m."""
    cache = UsdGeom.BBoxCache(
        Usd.TimeCode.Default(), [UsdGeom.Tokens.default_, UsdGeom.Tokens.render, UsdGeom.Tokens.proxy]
    )
    bound = cache.ComputeRelativeBound(prim, prim).ComputeAlignedRange()
    if bound.IsEmpty():
        return np.array([[np.inf] * 3, [-np.inf] * 3])
    _, scale = rigid_and_scale(UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(Usd.TimeCode.Default()))
    return np.array([bound.GetMin(), bound.GetMax()]) * scale * units.metres_per_unit


def scenery_group(prim: Usd.Prim) -> Usd.Prim:
    """The prim that stands for a static shape in the instance image: its ancestor just below the default prim."""
    stage = prim.GetStage()
    default = stage.GetDefaultPrim()
    while body_of(prim) is None and (parent := prim.GetParent()) and not parent.IsPseudoRoot() and parent != default:
        prim = parent
    return prim
