# SPDX-License-Identifier: Apache-2.0
"""Opening a USD stage, naming its content by hash, and finding what owns a prim."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pxr import Gf, Tf, Usd, UsdGeom, UsdPhysics, UsdUtils

from retake.core.errors import StageError
from retake.core.files import sha256_file, sha256_json

GRAVITY_M_S2 = 9.81


def open_stage(path: Path) -> Usd.Stage:
    """Open a stage file. Raises StageError when it is missing, is no USD, or references files that do not exist."""
    register_schemas()
    path = Path(path)
    if not path.is_file():
        raise StageError(f"stage {path} does not exist; expected a .usd, .usda, .usdc or .usdz file")
    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as error:
        # After the place in the library's own source comes what happened.
        reason = str(error).strip().splitlines()[-1].rsplit(" : ", 1)[-1].strip().strip("'")
        raise StageError(f"stage {path} cannot be opened as USD: {reason}") from error
    _, _, missing = UsdUtils.ComputeAllDependencies(str(path))
    if missing:
        raise StageError(f"stage {path} needs files that are not there: {', '.join(sorted(map(str, missing)))}")
    return stage


def register_schemas() -> None:
    """Make the `newton:` schemas known to USD. A schema that is registered after a stage was opened is not seen on it."""
    with contextlib.suppress(ImportError):
        import newton_usd_schemas  # noqa: F401  # registers on import


def prims(stage: Usd.Stage) -> Iterator[Usd.Prim]:
    """Every prim of a stage, those inside instances too."""
    return iter(Usd.PrimRange.Stage(stage, Usd.TraverseInstanceProxies()))


def prims_under(prim: Usd.Prim) -> Iterator[Usd.Prim]:
    """A prim and everything under it, inside instances too."""
    return iter(Usd.PrimRange(prim, Usd.TraverseInstanceProxies()))


def start_time(stage: Usd.Stage) -> Usd.TimeCode:
    """The time a stage starts at. Values that have time samples only are invisible at USD's default time."""
    return Usd.TimeCode(stage.GetStartTimeCode())


def time_at(stage: Usd.Stage, time_s: float) -> Usd.TimeCode:
    """The stage's time `time_s` seconds after its start."""
    return Usd.TimeCode(stage.GetStartTimeCode() + time_s * stage.GetTimeCodesPerSecond())


def applied_schemas(prim: Usd.Prim) -> tuple[str, ...]:
    """Names of the schemas applied to a prim, whether or not their plugins are loaded."""
    listed = prim.GetMetadata("apiSchemas")
    return tuple(map(str, listed.GetAppliedItems())) if listed else ()


def ensure_physics_scene(stage: Usd.Stage) -> tuple[str, ...]:
    """Give a stage without a PhysicsScene one with earth's gravity, in its session layer; a note where that was needed."""
    if any(prim.IsA(UsdPhysics.Scene) for prim in prims(stage)):
        return ()
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        scene = UsdPhysics.Scene.Define(stage, "/RetakePhysicsScene")
        up_is_y = UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y
        scene.CreateGravityDirectionAttr(Gf.Vec3f(0, -1, 0) if up_is_y else Gf.Vec3f(0, 0, -1))
        scene.CreateGravityMagnitudeAttr(GRAVITY_M_S2 / UsdGeom.GetStageMetersPerUnit(stage))
    return (f"the stage has no PhysicsScene: gravity is {GRAVITY_M_S2} m/s² downwards",)


def stage_sha256(path: Path) -> str:
    """Content hash of a stage: its layers and assets (textures), by name relative to the root layer's folder.

    The same files copied elsewhere hash the same; absolute paths do not enter.
    """
    layers, assets, _ = UsdUtils.ComputeAllDependencies(str(path))
    files = {Path(layer.realPath) for layer in layers if layer.realPath} | {Path(str(a)) for a in assets}
    root = Path(path).resolve().parent
    content = {}
    for file in files:
        resolved = file.resolve()
        name = resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else resolved.name
        content[name] = sha256_file(resolved)
    return sha256_json(content)


def body_of(prim: Usd.Prim) -> Usd.Prim | None:
    """The rigid body a prim moves with: itself or its nearest ancestor with UsdPhysics.RigidBodyAPI; None if static."""
    while prim and not prim.IsPseudoRoot():
        if prim.HasAPI(UsdPhysics.RigidBodyAPI):
            return prim
        prim = prim.GetParent()
    return None


def has_label(prim: Usd.Prim) -> bool:
    """Whether a semantic label is authored on a prim."""
    return _authored_label(prim) is not None


def label_of(prim: Usd.Prim) -> str:
    """Semantic label of a prim: authored labels (UsdSemantics, or Isaac Sim's older Semantics schema) or its name."""
    label = _authored_label(prim)
    return prim.GetName().lower() if label is None else label


def _authored_label(prim: Usd.Prim) -> str | None:
    for attribute in prim.GetAttributes():
        name = attribute.GetName()
        if name.startswith("semantics:labels:") and (labels := attribute.Get()):
            return str(labels[0])
        if name.startswith("semantic:") and name.endswith(":params:semanticData") and (data := attribute.Get()):
            return str(data)
    return None
