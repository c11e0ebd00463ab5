# SPDX-License-Identifier: Apache-2.0
"""Opening a USD stage, naming its content by hash, and finding what owns a prim."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdPhysics, UsdUtils

from retake.core.errors import StageError
from retake.core.files import sha256_file, sha256_json

GRAVITY_M_S2 = 9.81
Found = TypeVar("Found")


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
    if missing := [file for file in _dependencies(path)[2] if _is_layer(file)]:
        raise StageError(f"stage {path} needs files that are not there: {', '.join(missing)}")
    return stage


SOURCE = "retake:source"


def name_stage(stage: Usd.Stage, file: Path | str) -> Usd.Stage:
    """The stage, known by the file its user named: what it was converted to or copied into says nothing to anybody.

    Told to the session layer, which is the stage's own and is never saved.
    """
    if session := stage.GetSessionLayer():
        session.customLayerData = {**session.customLayerData, SOURCE: str(file)}
    return stage


def stage_name(stage: Usd.Stage) -> str:
    """What a message calls a stage: the file its user named; "the stage" where it exists in memory alone."""
    session, root = stage.GetSessionLayer(), stage.GetRootLayer()
    if session and (told := session.customLayerData.get(SOURCE)):
        return str(told)
    return "the stage" if root.anonymous else str(root.identifier)


def missing_assets(path: Path) -> tuple[str, ...]:
    """Textures and shaders that a stage names and that are not there (a simulator's own MDL materials); a note on them."""
    missing = [file for file in _dependencies(path)[2] if not _is_layer(file)]
    some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (f"textures or shaders that are not there are not seen: {some}",) if missing else ()


def _is_layer(file: str) -> bool:
    return Sdf.FileFormat.FindByExtension(file) is not None


def _dependencies(path: Path) -> tuple[list[Sdf.Layer], list[str], list[str]]:
    """Layers, other assets, and what is not there, of a stage file."""
    quiet = UsdUtils.CoalescingDiagnosticDelegate()  # what is missing is said in our own words
    layers, assets, missing = UsdUtils.ComputeAllDependencies(str(path))
    quiet.TakeUncoalescedDiagnostics()
    return list(layers), [str(a) for a in assets], sorted(map(str, missing))


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


NOTABLE_APIS = frozenset({"PhysicsRigidBodyAPI", "PhysicsArticulationRootAPI"})
NOTABLE_TYPES = (UsdPhysics.Joint, UsdPhysics.Scene, UsdGeom.Camera)
ACTUATORS = frozenset({"MjcActuator", "NewtonActuator"})
_ONE_PASS: ContextVar[tuple[Usd.Stage, dict[str, Any]] | None] = ContextVar("one_pass", default=None)


def notable_prims(stage: Usd.Stage) -> tuple[Usd.Prim, ...]:
    """The bodies, articulation roots, joints, physics scenes, actuators and cameras of a stage, in stage order.

    Of a large stage they are few, and every reader looks for some of them: within `one_pass` all share one traversal.
    """
    return remembered(stage, "notable prims", lambda: _notable_prims(stage))


def _notable_prims(stage: Usd.Stage) -> tuple[Usd.Prim, ...]:
    kinds: dict[tuple[str, tuple[str, ...]], bool] = {}
    found = []
    for prim in prims(stage):
        kind = (prim.GetTypeName(), tuple(prim.GetAppliedSchemas()))
        if kind not in kinds:
            kinds[kind] = (
                not NOTABLE_APIS.isdisjoint(kind[1])
                or kind[0] in ACTUATORS
                or any(prim.IsA(schema) for schema in NOTABLE_TYPES)
            )
        if kinds[kind]:
            found.append(prim)
    return tuple(found)


@contextlib.contextmanager
def one_pass(stage: Usd.Stage) -> Iterator[None]:
    """Readers of a stage that does not change meanwhile share what they find out about it."""
    known = _ONE_PASS.get()
    if known is not None and known[0] == stage:
        yield
        return
    before = _ONE_PASS.set((stage, {}))
    try:
        yield
    finally:
        _ONE_PASS.reset(before)


def remembered(stage: Usd.Stage, what: str, find: Callable[[], Found]) -> Found:
    """What `find` returns; within `one_pass` of this stage it is called once."""
    known = _ONE_PASS.get()
    if known is None or known[0] != stage:
        return find()
    if what not in known[1]:
        known[1][what] = find()
    return known[1][what]


def editable(stage: Usd.Stage, path: str) -> Usd.Prim:
    """The prim at a path as one that can be edited: instances around it become plain prims in the session layer."""
    prim = stage.GetPrimAtPath(path)
    while prim.IsInstanceProxy():
        above = prim
        while above.IsInstanceProxy():
            above = above.GetParent()
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            above.SetInstanceable(False)
        prim = stage.GetPrimAtPath(path)
    return prim


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
    if any(prim.IsA(UsdPhysics.Scene) for prim in notable_prims(stage)):
        return ()
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        scene = UsdPhysics.Scene.Define(stage, "/RetakePhysicsScene")
        up_is_y = UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y
        scene.CreateGravityDirectionAttr(Gf.Vec3f(0, -1, 0) if up_is_y else Gf.Vec3f(0, 0, -1))
        scene.CreateGravityMagnitudeAttr(GRAVITY_M_S2 / UsdGeom.GetStageMetersPerUnit(stage))
    return (f"the stage has no PhysicsScene: gravity is {GRAVITY_M_S2} m/s² downwards",)


def stage_sha256(path: Path) -> str:
    """Content hash of a stage: its layers and assets (textures), by name relative to the root layer's folder.

    The same files copied elsewhere hash the same; absolute paths do not enter. Files outside that folder go by their own
    names, and of several with one name each counts.
    """
    layers, assets, _ = _dependencies(path)
    files = {Path(layer.realPath) for layer in layers if layer.realPath} | {Path(a) for a in assets}
    root = Path(path).resolve().parent
    content: dict[str, list[str]] = {}
    for file in {file.resolve() for file in files}:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        content.setdefault(name, []).append(sha256_file(file))
    return sha256_json({name: own[0] if len(own) == 1 else sorted(own) for name, own in content.items()})


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
