# SPDX-License-Identifier: Apache-2.0
"""Meshes that describe no surface are left out of the simulation, in the session layer, and named.

The importer refuses a whole stage for a mesh without points, and the physics engine ends the process for one without faces.
"""

from __future__ import annotations

import numpy as np
from pxr import Usd, UsdGeom

from retake.usd.stage import editable, prims, start_time


def mend_meshes(stage: Usd.Stage) -> list[str]:
    """Leave out meshes without a surface; notes that name them."""
    time = start_time(stage)
    cache, wrong = UsdGeom.XformCache(time), {}
    for prim in prims(stage):
        if prim.IsA(UsdGeom.Mesh):
            flat = np.array(cache.GetLocalToWorldTransform(prim))[:3, :3]
            why = _fault(UsdGeom.Mesh(prim), time) if np.any(flat) else "is scaled to nothing"
            wrong |= {str(prim.GetPath()): why} if why else {}
    for path in wrong:
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            editable(stage, path).SetActive(False)
    return [f"mesh {path} {why}: it is left out (correct or remove it)" for path, why in wrong.items()]


def _fault(mesh: UsdGeom.Mesh, time: Usd.TimeCode) -> str:
    """What keeps a mesh from being a surface; empty where it is one."""
    points = np.asarray(mesh.GetPointsAttr().Get(time) or (), np.float64).reshape(-1, 3)
    counts = np.asarray(mesh.GetFaceVertexCountsAttr().Get(time) or (), np.int64)
    indices = np.asarray(mesh.GetFaceVertexIndicesAttr().Get(time) or (), np.int64)
    if not len(points):
        return "has no points"
    if not len(counts) or not len(indices):
        return "has no faces"
    if not np.isfinite(points).all():
        return "has points that are not finite"
    if counts.min() < 0 or counts.sum() != len(indices):
        return f"has {len(indices)} face indices for faces of {counts.sum()} corners"
    if indices.min() < 0 or indices.max() >= len(points):
        return f"has {len(points)} points, and a face names point {indices.max()}"
    if not np.ptp(points, axis=0).max() > 0:
        return "has all its points in one place"
    return ""
