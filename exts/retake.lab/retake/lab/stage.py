# SPDX-License-Identifier: Apache-2.0
"""The part of a stage that one clone of an environment is: its own prims and what all clones share."""

from __future__ import annotations

from typing import Any

from pxr import Sdf, Usd

from retake.core.errors import StageError
from retake.core.files import sha256_bytes


def source_of(scene: Any, stage: Usd.Stage, env_id: int) -> str:
    """Prim path of the clone that describes clone `env_id`: its own prims where the stage has them, else those of the
    first clone of its kind (Newton clones in its model only). Raises StageError where the stage has none."""
    root = str(getattr(scene, "env_ns", "/World/envs"))
    kinds = getattr(getattr(getattr(scene, "clone_plan", None), "topology", None), "world_prototype_layout", None)
    same = [env_id]
    if kinds is not None:
        same += [i for i, kind in enumerate(kinds) if int(kind) == int(kinds[env_id])]
    else:
        same.append(0)
    for candidate in same:
        prim = stage.GetPrimAtPath(f"{root}/env_{candidate}")
        if prim and prim.GetChildren():
            return str(prim.GetPath())
    raise StageError(f"the stage has no prims under {root}/env_{env_id}; expected a scene that Isaac Lab has cloned")


def view_of(scene: Any, stage: Usd.Stage, source: str) -> Usd.Stage:
    """The stage without the other clones: reading it takes as long for a thousand clones as for one."""
    root = Sdf.Path(str(getattr(scene, "env_ns", "/World/envs")))
    mask = Usd.StagePopulationMask([Sdf.Path(source)])

    def add(prim: Usd.Prim) -> None:
        for child in prim.GetChildren():
            path = child.GetPath()
            if path == root:
                continue
            if root.HasPrefix(path):
                add(child)
            else:
                mask.Add(path)

    add(stage.GetPseudoRoot())
    view = Usd.Stage.OpenMasked(stage.GetRootLayer(), stage.GetSessionLayer(), mask)
    clone = view.GetPrimAtPath(source)
    if not clone:
        raise StageError(f"the stage has no prim {source}; it holds the clone that is recorded")
    return view


def stage_hash(stage: Usd.Stage) -> str:
    """Content hash of the stage as it is in memory: the text of its root layer."""
    return sha256_bytes(stage.GetRootLayer().ExportToString().encode())
