# SPDX-License-Identifier: Apache-2.0
"""Seeded variations of a pick-and-place scene, authored into the stage's session layer (files are never touched).

Because the stage itself changes, physics, pixels and recorded sizes cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.errors import InputError, StageError, unknown_name
from retake.core.geometry import axis_angle
from retake.usd.bodies import StageObject
from retake.usd.stage import editable, start_time
from retake.usd.units import StageUnits, rigid_and_scale


@dataclass(frozen=True)
class Variation:
    """What differs from the authored scene. The defaults change nothing."""

    object_offset_m: tuple[float, float] = (0.0, 0.0)
    """World x, y."""
    object_yaw_deg: float = 0.0
    object_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Along the object's own axes; its lower side stays where it was."""
    object_mass_kg: float | None = None
    """None keeps the authored mass."""
    target_offset_m: tuple[float, float] = (0.0, 0.0)
    drop_height_m: float = 0.05
    """Height of the object's lower side above the target's rim when it is let go."""
    friction: float | None = None
    """Friction of every shape; None keeps the authored materials."""

    def to_json(self) -> dict[str, Any]:
        """JSON form, recorded in the episode's settings."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def sample(ranges: Mapping[str, Any], seed: int) -> Variation:
    """Draw a variation: each named range is [low, high] (a list of such pairs for vectors), or a fixed value.

    Draws happen in the order of the Variation's fields whatever the mapping's order, so a seed names one scene.
    Raises InputError for unknown names, malformed ranges, and a seed below 0.
    """
    if seed < 0:
        raise InputError(f"the seed is {seed}; expected a whole number, 0 or more")
    fields = tuple(Variation.__dataclass_fields__)
    for name in ranges:
        if name not in fields:
            raise InputError(unknown_name("randomised quantity", name, fields))
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    for name in fields:
        # One draw of fixed size per field keeps later fields independent of which ranges are given.
        unit = rng.random(3)
        if name in ranges and ranges[name] is not None:
            values[name] = _draw(name, ranges[name], unit)
    return Variation(**values)


def _draw(name: str, given: Any, unit: Float64[np.ndarray, "3"]) -> Any:
    length = {"object_offset_m": 2, "object_scale": 3, "target_offset_m": 2}.get(name, 0)
    try:
        value = np.asarray(given, np.float64)
        wanted = {(length, 2), (length,)} if length else {(2,), ()}
        if value.shape not in wanted or not np.isfinite(value).all():
            raise ValueError(f"shape {value.shape}")
    except (TypeError, ValueError) as error:
        form = f"{length} pairs [low, high] or {length} numbers" if length else "[low, high] or one number"
        raise InputError(f"randomise.{name} is {given!r}; expected {form}") from error
    if value.ndim == (2 if length else 1):
        low, high = value[..., 0], value[..., 1]
        if np.any(low > high):
            raise InputError(f"randomise.{name} is {given!r}; the low end is above the high end")
        value = low + (high - low) * (unit[:length] if length else unit[0])
    # Ten micrometres of resolution: the recorded value is exactly the one used.
    return tuple(round(float(v), 5) for v in value) if length else round(float(value), 5)


def apply(stage: Usd.Stage, variation: Variation, obj: StageObject, target: Usd.Prim | None) -> None:
    """Author a variation of one object and one target prim into the session layer of a stage in metres and kilograms.

    Raises StageError when a size would be zero or negative, or the mass is not positive.
    """
    if min(variation.object_scale) <= 0 or (variation.object_mass_kg is not None and variation.object_mass_kg <= 0):
        raise StageError(f"object size and mass must be positive; asked for {variation.to_json()}")
    units = StageUnits.of(stage)
    R = units.R_world_stage
    prim = editable(stage, obj.spec.prim_path)
    target = None if target is None else editable(stage, str(target.GetPath()))
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        if prim.IsInstance():
            prim.SetInstanceable(False)
        grown = np.array(variation.object_scale)
        _, scale = rigid_and_scale(UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(start_time(stage)))
        # A body that is a shape itself grows with what is below it.
        is_shape = prim.IsA(UsdGeom.Gprim)
        _move(prim, _new_pose(obj, variation), scale * grown if is_shape else scale, R)
        ratio = Gf.Vec3f(*variation.object_scale)
        if variation.object_scale != (1.0, 1.0, 1.0):
            for child in () if is_shape else prim.GetChildren():
                if xformable := UsdGeom.Xformable(child):
                    ops = xformable.GetOrderedXformOps()
                    scale = xformable.AddScaleOp(opSuffix="variation")
                    scale.Set(ratio)
                    xformable.SetXformOpOrder([scale, *ops])
        if variation.object_mass_kg is not None:
            UsdPhysics.MassAPI.Apply(prim).CreateMassAttr(float(variation.object_mass_kg))
        if target is not None and variation.target_offset_m != (0.0, 0.0):
            xformable = UsdGeom.Xformable(target)
            ops, alone = xformable.GetOrderedXformOps(), xformable.GetResetXformStack()
            above = Gf.Matrix4d(1) if alone else xformable.ComputeParentToWorldTransform(start_time(stage))
            move = xformable.AddTranslateOp(opSuffix="variation")
            move.Set(above.GetInverse().TransformDir(Gf.Vec3d(*(R.T @ [*variation.target_offset_m, 0.0]))))
            xformable.SetXformOpOrder([move, *ops], alone)


def _new_pose(obj: StageObject, variation: Variation) -> Float64[np.ndarray, "4 4"]:
    T = obj.T_world_object.copy()
    up = T[2, :3] / np.abs(T[2, :3]).max()
    vertical = int(np.abs(up).argmax())
    # An object's origin may lie anywhere in it, often below; boxes are read in single precision.
    middle = round(float(np.sign(up[vertical])) * obj.spec.center_m[vertical], 6)
    lift = (variation.object_scale[vertical] - 1.0) * (obj.spec.size_m[vertical] / 2 - middle)
    T[:3, :3] = axis_angle(np.array([0.0, 0.0, 1.0]), np.radians(variation.object_yaw_deg)) @ T[:3, :3]
    T[:3, 3] += [*variation.object_offset_m, lift]
    return T


def _move(
    prim: Usd.Prim,
    T_world_prim: Float64[np.ndarray, "4 4"],
    scale: Float64[np.ndarray, "3"],
    R: Float64[np.ndarray, "3 3"],
) -> None:
    """Give a prim a world pose (Retake's world) and scale along its own axes in place of its authored transform stack."""
    T_stage = np.eye(4)
    T_stage[:3, :3], T_stage[:3, 3] = R.T @ T_world_prim[:3, :3], R.T @ T_world_prim[:3, 3]
    xformable = UsdGeom.Xformable(prim)
    parent = xformable.ComputeParentToWorldTransform(start_time(prim.GetStage()))
    local = Gf.Matrix4d().SetScale(Gf.Vec3d(*scale)) * Gf.Matrix4d(T_stage.T.tolist()) * parent.GetInverse()
    xformable.ClearXformOpOrder()
    turn = np.array(local)[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-6:
        whole = xformable.AddTransformOp(opSuffix="variation")
        whole.Set(local)
        xformable.SetXformOpOrder([whole])
        return
    position = xformable.AddTranslateOp(opSuffix="variation")
    rotation = xformable.AddOrientOp(UsdGeom.XformOp.PrecisionDouble, opSuffix="variation")
    position.Set(local.ExtractTranslation())
    rotation.Set(local.ExtractRotationQuat())
    xformable.SetXformOpOrder([position, rotation])
