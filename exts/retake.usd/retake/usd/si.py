# SPDX-License-Identifier: Apache-2.0
"""A stage in other units as the same stage in metres and kilograms.

Simulators differ in which unit metadata they honour (Newton applies metersPerUnit to particles and not to rigid bodies),
so the conversion happens once, here, on a flattened copy in memory. Camera lenses keep their numbers: only ratios count.
USD's own schemas are complete (a test goes through them); of PhysX's and Newton's, those of rigid bodies and joints.
"""

from __future__ import annotations

import math
from typing import Any

from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.usd.stage import name_stage, stage_name
from retake.usd.units import StageUnits

LENGTHS = {
    "points", "extent", "extentsHint", "size", "radius", "height", "length", "width", "radiusTop", "radiusBottom", "widths",
    "velocities", "accelerations", "clippingRange", "clippingPlanes", "focusDistance", "inputs:shadow:distance",
    "inputs:shadow:falloff", "primvars:skel:geomBindTransform",
    "physics:localPos0", "physics:localPos1", "physics:centerOfMass", "physics:velocity",
    "physics:gravityMagnitude", "physics:minDistance", "physics:maxDistance", "state:linear:physics:position",
    "state:linear:physics:velocity", "drive:linear:physics:targetPosition", "drive:linear:physics:targetVelocity",
    "physxCollision:contactOffset", "physxCollision:restOffset", "physxCollision:torsionalPatchRadius",
    "physxCollision:minTorsionalPatchRadius", "physxConvexHullCollision:minThickness",
    "physxConvexDecompositionCollision:minThickness", "physxRigidBody:maxLinearVelocity",
    "physxRigidBody:maxDepenetrationVelocity", "physxSurfaceVelocity:surfaceVelocity", "physxScene:bounceThreshold",
    "physxScene:frictionOffsetThreshold", "physxScene:frictionCorrelationDistance", "newton:contactMargin",
    "newton:contactGap", "newton:shellThickness", "newton:sdfNarrowBandInner", "newton:sdfNarrowBandOuter",
    "newton:sdfTargetVoxelSize", "newton:sdfPadding", "newton:linear:position", "newton:linear:velocity",
    *(f"{kind}:trans{axis}:physics:{value}" for axis in "XYZ" for kind, value in (
        ("limit", "low"), ("limit", "high"), ("state", "position"), ("state", "velocity"), ("drive", "targetPosition"),
        ("drive", "targetVelocity"))),
    "limit:distance:physics:low", "limit:distance:physics:high",
}  # fmt: skip
"""Attributes that scale with length."""
SPLATS = ("ParticleField", "ParticleField3DGaussianSplat")
LENGTHS_OF = {
    **{name: ("PhysicsPrismaticJoint",) for name in (
        "physics:lowerLimit", "physics:upperLimit", "physxJoint:maxJointVelocity", "newton:velocityLimit", "newton:mimicCoef0",
        *(f"physxMimicJoint:{kind}{axis}:offset" for kind in ("rot", "trans") for axis in "XYZ"))},
    "positions": ("PointInstancer", *SPLATS), "positionsh": SPLATS, "scales": SPLATS, "scalesh": SPLATS,
    "tangents": ("HermiteCurves",), "offsets": ("BlendShape",), "translations": ("SkelAnimation",),
    "bindTransforms": ("Skeleton",), "restTransforms": ("Skeleton",),
    "center": ("LODDistanceHeuristic",), "thresholds": ("LODDistanceHeuristic",),
    "inputs:radius": ("SphereLight", "DiskLight", "CylinderLight"), "inputs:length": ("CylinderLight",),
    "inputs:width": ("RectLight", "PortalLight"), "inputs:height": ("RectLight", "PortalLight"),
    "guideRadius": ("DomeLight", "DomeLight_1"),
}  # fmt: skip
"""Attributes that are lengths on prims of some types, and on others something else (an angle, a factor, a shader's input)."""
POWERS = {
    "physics:mass": (1, 0), "physics:density": (1, -3), "physics:diagonalInertia": (1, 2),
    "physics:breakForce": (1, 1), "physics:breakTorque": (1, 2),
    **{f"{kind}:{value}Threshold": (0, 2) for kind in ("physxRigidBody", "physxArticulation")
       for value in ("sleep", "stabilization")},
    "drive:linear:physics:stiffness": (1, 0), "drive:linear:physics:damping": (1, 0), "drive:linear:physics:maxForce": (1, 1),
    "drive:angular:physics:stiffness": (1, 2), "drive:angular:physics:damping": (1, 2),
    "drive:angular:physics:maxForce": (1, 2),
    **{f"drive:trans{axis}:physics:{value}": (1, 1 if value == "maxForce" else 0)
       for axis in "XYZ" for value in ("stiffness", "damping", "maxForce")},
    **{f"drive:rot{axis}:physics:{value}": (1, 2) for axis in "XYZ" for value in ("stiffness", "damping", "maxForce")},
}  # fmt: skip
"""Attributes that scale with mass^a · length^b."""


def si_stage(stage: Usd.Stage) -> Usd.Stage:
    """The stage itself when it is in metres and kilograms, else a converted flattened copy. Raises as `StageUnits.of`."""
    units = StageUnits.of(stage)
    metres, kilograms = units.metres_per_unit, units.kilograms_per_unit
    if math.isclose(metres, 1.0) and math.isclose(kilograms, 1.0):
        return stage
    layer = stage.Flatten(addSourceFileComment=False)

    def visit(path: Sdf.Path) -> None:
        spec = layer.GetAttributeAtPath(path) if path.IsPropertyPath() else None
        if spec is None:
            return
        factor = _factor(spec, metres, kilograms)
        if factor == 1.0:
            return
        if spec.HasDefaultValue():
            spec.default = _scale_value(spec.default, factor)
        for time in layer.ListTimeSamplesForPath(path):
            layer.SetTimeSample(path, time, _scale_value(layer.QueryTimeSample(path, time), factor))

    layer.Traverse(Sdf.Path.absoluteRootPath, visit)
    converted = name_stage(Usd.Stage.Open(layer), stage_name(stage))
    UsdGeom.SetStageMetersPerUnit(converted, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(converted, 1.0)
    return converted


def _factor(spec: Sdf.AttributeSpec, metres: float, kilograms: float) -> float:
    name, prim_type = spec.name, spec.owner.typeName
    if name == "newton:mimicCoef1" or (name.startswith("physxMimicJoint:") and name.endswith(":gearing")):
        return metres ** ((prim_type == "PhysicsPrismaticJoint") - _follows_a_slide(spec))
    if name in LENGTHS or name.startswith(("xformOp:translate", "xformOp:transform")):
        return metres
    if prim_type in LENGTHS_OF.get(name, ()):
        return metres
    if prim_type == "BlendShape" and name.startswith("inbetweens:") and not name.endswith(":normalOffsets"):
        return metres
    if name in POWERS:
        mass, length = POWERS[name]
        return kilograms**mass * metres**length
    return 1.0


def _follows_a_slide(spec: Sdf.AttributeSpec) -> bool:
    """Whether the joint that a follower's attribute belongs to follows a sliding one."""
    leader = spec.name.removesuffix("gearing") + "referenceJoint" if "gearing" in spec.name else "newton:mimicJoint"
    relation = spec.owner.relationships.get(leader)
    targets = list(relation.targetPathList.GetAppliedItems()) if relation else []
    other = spec.layer.GetPrimAtPath(targets[0]) if targets else None
    return other is not None and other.typeName == "PhysicsPrismaticJoint"


def _scale_value(value: Any, factor: float) -> Any:
    """A USD value times a factor; of a transform only the translation, of a plane its distance. What is blocked stays so."""
    if isinstance(value, Sdf.ValueBlock):
        return value
    if isinstance(value, Gf.Matrix4d):
        out = Gf.Matrix4d(value)
        out.SetTranslateOnly(value.ExtractTranslation() * factor)
        return out
    if isinstance(value, Gf.Vec4f):
        return Gf.Vec4f(value[0], value[1], value[2], value[3] * factor)
    if isinstance(value, float | int | Gf.Vec2f | Gf.Vec3f | Gf.Vec3d | Gf.Vec2d | Gf.Vec3h):
        return value * factor
    return type(value)([_scale_value(item, factor) for item in value])
