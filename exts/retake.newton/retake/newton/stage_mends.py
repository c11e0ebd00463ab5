# SPDX-License-Identifier: Apache-2.0
"""What of a stage the simulator reads otherwise than the stage means, said in the session layer before it is imported.

The stage's own files are never touched. Each mend is a note where something of the motion changes by it.
"""

from __future__ import annotations

import numpy as np
from pxr import Sdf, Usd, UsdGeom, UsdPhysics

from retake.newton.stage_joints import mend_bodies, mend_joints
from retake.newton.stage_meshes import mend_meshes
from retake.usd.joints import ring
from retake.usd.stage import editable, prims, start_time

LIMITED_TENDON = "true"
"""Value of `mjc:limited` that asks for limits whatever the range is."""


def mend_stage(stage: Usd.Stage) -> list[str]:
    """All mends; notes that name prim, default and remedy."""
    mend_times(stage)
    notes = [*mend_bodies(stage), *mend_meshes(stage), *mend_joints(stage)]
    return [*notes, *mend_mimics(stage), *mend_references(stage), *mend_ranges(stage)]


def mend_times(stage: Usd.Stage) -> None:
    """What has values at times only has those of the stage's start, as the reader takes it; the importer sees none of them.

    Cameras keep their times.
    """
    if not any(layer.ListAllTimeSamples() for layer in stage.GetUsedLayers()):
        return
    start, found = start_time(stage), []
    for prim in prims(stage):
        if not prim.IsA(UsdGeom.Camera):
            timed = [a for a in prim.GetAuthoredAttributes() if a.GetNumTimeSamples()]
            found += [(str(prim.GetPath()), a.GetName(), a.Get(start)) for a in timed]
    for path, name, value in found:
        attribute = editable(stage, path).GetAttribute(name)
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            # A time that is blocked has no value: the attribute then is as if nobody had authored it.
            attribute.Block() if value is None else attribute.Set(value)


def mend_mimics(stage: Usd.Stage) -> list[str]:
    """Followers of followers follow the first leader, joints that cannot move follow nothing, and of several that follow each
    other in a ring the first by path leads; in the session layer.

    Newton refuses the whole stage for each of them. Returns notes that name the joints.
    """
    found = {}
    for prim in prims(stage):
        relation = prim.GetRelationship("newton:mimicJoint") if prim.IsA(UsdPhysics.Joint) else None
        targets = relation.GetTargets() if relation else []
        enabled = prim.GetAttribute("newton:mimicEnabled")
        if targets and not (enabled and enabled.Get() is False):
            found[prim.GetPath()] = targets[0]
    # As authored: what is told of one follower must not count again in the next.
    line = {path: _mimic_line(stage.GetPrimAtPath(path)) for path in found}
    leaders = {str(path): str(leader) for path, leader in found.items()}
    notes = []
    for path in [p for p in found if (others := ring(str(p), leaders)) and str(p) == min(others)]:
        del found[path]
        _lead(stage, path)
        notes.append(f"{path} follows itself: it follows nothing")
    for path, leader in list(found.items()):
        if not all(_turns_or_slides(stage.GetPrimAtPath(p)) for p in (path, leader)):
            del found[path]
            _lead(stage, path)
            notes.append(f"{path} follows {leader}, and one of the two cannot move: it follows nothing")
    for path, leader in found.items():
        offset, slope = line[path]
        seen = {path}
        while leader in found and leader not in seen:
            seen.add(leader)
            leader_offset, leader_slope = line[leader]
            offset, slope = offset + slope * leader_offset, slope * leader_slope
            leader = found[leader]
        if len(seen) > 1 and leader not in seen:
            prim = editable(stage, path)
            with Usd.EditContext(stage, stage.GetSessionLayer()):
                prim.GetRelationship("newton:mimicJoint").SetTargets([leader])
                prim.CreateAttribute("newton:mimicCoef0", Sdf.ValueTypeNames.Float).Set(offset)
                prim.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(slope)
            notes.append(f"{path} follows a follower: it follows {leader} at the same ratio")
    return notes


def _lead(stage: Usd.Stage, path: Sdf.Path) -> None:
    prim = editable(stage, str(path))
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        prim.CreateAttribute("newton:mimicEnabled", Sdf.ValueTypeNames.Bool).Set(False)


def _turns_or_slides(prim: Usd.Prim) -> bool:
    return bool(prim) and (prim.IsA(UsdPhysics.RevoluteJoint) or prim.IsA(UsdPhysics.PrismaticJoint))


def _mimic_line(prim: Usd.Prim) -> tuple[float, float]:
    """Offset (degrees or stage units) and slope of a follower."""
    values = []
    for name, default in (("newton:mimicCoef0", 0.0), ("newton:mimicCoef1", 1.0)):
        value = prim.GetAttribute(name).Get() if prim.GetAttribute(name) else None
        values.append(default if value is None else float(value))
    return values[0], values[1]


def mend_references(stage: Usd.Stage) -> list[str]:
    """Joints count from the pose that the stage authors, as UsdPhysics says.

    MuJoCo's own values are larger by `mjc:ref`; which unit that has, converter and importer do not agree on. Limits are
    the stage's. Returns notes that name the joints.
    """
    notes = []
    paths = [str(p.GetPath()) for p in prims(stage) if p.IsA(UsdPhysics.Joint) and p.HasAttribute("mjc:ref")]
    for prim in (editable(stage, path) for path in paths if stage.GetPrimAtPath(path).GetAttribute("mjc:ref").Get()):
        attribute = prim.GetAttribute("mjc:ref")
        reference = attribute.Get()
        rest = prim.GetAttribute("mjc:springref")
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            attribute.Set(0.0)
            if prim.GetAttribute("mjc:stiffness") and prim.GetAttribute("mjc:stiffness").Get():
                # A spring rests where MuJoCo's own value says.
                prim.CreateAttribute("mjc:springref", attribute.GetTypeName()).Set((rest.Get() or 0.0) - reference)
        notes.append(
            f"{prim.GetPath()} counts from the authored pose: a motion in MuJoCo's own values is larger by {reference:.6g} "
            "(mjc:ref); subtract it"
        )
    return notes


def mend_ranges(stage: Usd.Stage) -> list[str]:
    """A tendon's range of which one end is authored has the other at 0, as in MuJoCo; one without extent limits nothing.

    The importer takes the first for no range at all, and MuJoCo refuses the whole stage for a limited tendon without one.
    Returns notes that name the tendons whose limits are left out.
    """
    notes = []
    tendons = [str(p.GetPath()) for p in prims(stage) if p.GetTypeName() == "MjcTendon"]
    for prim in (editable(stage, path) for path in tendons):
        for name in ("mjc:range", "mjc:actuatorfrcrange"):
            ends = [prim.GetAttribute(f"{name}:{end}") for end in ("min", "max")]
            authored = [bool(end) and end.HasAuthoredValue() for end in ends]
            if any(authored) and not all(authored):
                missing = ("min", "max")[authored.index(False)]
                with Usd.EditContext(stage, stage.GetSessionLayer()):
                    prim.CreateAttribute(f"{name}:{missing}", Sdf.ValueTypeNames.Double).Set(0.0)
        limited = prim.GetAttribute("mjc:limited")
        if not limited or str(limited.Get()).lower() != LIMITED_TENDON:
            continue
        low, high = (_number(prim, f"mjc:range:{end}") for end in ("min", "max"))
        if not (np.isfinite([low, high]).all() and low < high):
            with Usd.EditContext(stage, stage.GetSessionLayer()):
                limited.Set("false")
            notes.append(
                f"tendon {prim.GetPath()} is limited to the range {low:g} to {high:g}, which leaves no travel: it is taken "
                "without limits (give it mjc:range:min below mjc:range:max to choose others)"
            )
    return notes


def _number(prim: Usd.Prim, name: str) -> float:
    attribute = prim.GetAttribute(name)
    value = attribute.Get() if attribute else None
    return 0.0 if value is None else float(value)
