# SPDX-License-Identifier: Apache-2.0
"""Opening a USD stage, naming its content by hash, and finding what owns a prim."""

from __future__ import annotations

from pathlib import Path

from pxr import Tf, Usd, UsdPhysics, UsdUtils

from retake.core.errors import StageError
from retake.core.files import sha256_file, sha256_json


def open_stage(path: Path) -> Usd.Stage:
    """Open a stage file. Raises StageError when it is missing, is no USD, or references files that do not exist."""
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


def label_of(prim: Usd.Prim) -> str:
    """Semantic label of a prim: authored labels (UsdSemantics, or Isaac Sim's older Semantics schema) or its name."""
    for attribute in prim.GetAttributes():
        name = attribute.GetName()
        if name.startswith("semantics:labels:") and (labels := attribute.Get()):
            return str(labels[0])
        if name.startswith("semantic:") and name.endswith(":params:semanticData") and (data := attribute.Get()):
            return str(data)
    return prim.GetName().lower()
