# SPDX-License-Identifier: Apache-2.0
"""Where a body's geometry is: its box, and points of it, in the body's own frame."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64, Int
from retake.core.geometry import inverse, transform
from retake.usd.stage import body_of, prims_under, start_time
from retake.usd.units import StageUnits, world_pose

POINTS_PER_SHAPE = 1500
"""Vertices looked at of one mesh; of larger ones every n-th."""
FEW = 200
"""A mesh of at most so many vertices is drawn by its edges."""
PER_EDGE = 48
BOX_EDGES = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit])
"""Of the corners in the order of `Gf.Range3d.GetCorner`."""


def link_box(
    stage: Usd.Stage, path: str, units: StageUnits, *, colliders_only: bool = False
) -> Float64[np.ndarray, "2 3"]:
    """Corners (min, max) of the box around a body's geometry, in the body's frame, m; infinite where it has none."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for points in _shapes(stage, path, units, colliders_only=colliders_only, boxes=True):
        low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
    return np.stack([low, high])


def link_points(stage: Usd.Stage, path: str, units: StageUnits) -> Float64[np.ndarray, "N 3"]:
    """Points of a body's surface in the body's frame, m: mesh vertices, and corners of other shapes' boxes."""
    found = list(_shapes(stage, path, units, colliders_only=False, boxes=False))
    return np.concatenate(found) if found else np.zeros((0, 3))


def link_outline(stage: Usd.Stage, path: str, units: StageUnits) -> Float64[np.ndarray, "N 3"]:
    """Points to draw of a body, in its frame, m: as `link_points`, and along the edges of shapes that have few vertices."""
    found = list(_shapes(stage, path, units, colliders_only=False, boxes=False, edges=True))
    return np.concatenate(found) if found else np.zeros((0, 3))


def _shapes(
    stage: Usd.Stage, path: str, units: StageUnits, *, colliders_only: bool, boxes: bool, edges: bool = False
) -> Iterator[Float64[np.ndarray, "N 3"]]:
    body = stage.GetPrimAtPath(path)
    T_body_world = inverse(world_pose(body, units))
    time = start_time(stage)
    cache = UsdGeom.XformCache(time)
    for prim in prims_under(body):
        if not prim.IsA(UsdGeom.Gprim) or body_of(prim) != body:
            continue
        if colliders_only and not prim.HasAPI(UsdPhysics.CollisionAPI):
            continue
        points = None if boxes else _vertices(prim, time)
        if points is None:
            extent = UsdGeom.Boundable.ComputeExtentFromPlugins(UsdGeom.Boundable(prim), time)
            box = Gf.Range3d(Gf.Vec3d(extent[0]), Gf.Vec3d(extent[1])) if extent else Gf.Range3d()
            if box.IsEmpty():  # no points, too, have an extent: the largest numbers, turned inside out
                continue
            points = np.array([box.GetCorner(i) for i in range(8)])
            points = _along(points, BOX_EDGES) if edges else points
        elif edges and len(points) <= FEW:
            points = _along(points, _mesh_edges(UsdGeom.Mesh(prim), time, len(points)))
        M = np.array(cache.GetLocalToWorldTransform(prim))
        world = (points @ M[:3, :3] + M[3, :3]) * units.metres_per_unit
        if np.isfinite(world).all():
            yield transform(T_body_world, world @ units.R_world_stage.T)


def _along(points: Float64[np.ndarray, "N 3"], edges: Int[np.ndarray, "E 2"]) -> Float64[np.ndarray, "M 3"]:
    """The points, and points between the ends of every edge."""
    share = np.linspace(0, 1, PER_EDGE)[:, None, None]
    between = points[edges[:, 0]] * (1 - share) + points[edges[:, 1]] * share
    return np.concatenate([points, between.reshape(-1, 3)])


def _mesh_edges(mesh: UsdGeom.Mesh, time: Usd.TimeCode, points: int) -> Int[np.ndarray, "E 2"]:
    """The edges of a mesh's faces; none where its faces do not fit its points."""
    counts = mesh.GetFaceVertexCountsAttr().Get(time) or ()
    indices = np.asarray(mesh.GetFaceVertexIndicesAttr().Get(time) or (), np.int64)
    if sum(counts) != len(indices) or not len(indices) or indices.min() < 0 or indices.max() >= points:
        return np.zeros((0, 2), np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    faces = [indices[a:b] for a, b in pairwise(starts) if b > a]
    return np.concatenate([np.stack([face, np.roll(face, -1)], axis=1) for face in faces])


def _vertices(prim: Usd.Prim, time: Usd.TimeCode) -> Float64[np.ndarray, "N 3"] | None:
    points = UsdGeom.Mesh(prim).GetPointsAttr().Get(time) if prim.IsA(UsdGeom.Mesh) else None
    if points is None or len(points) == 0:
        return None
    points = np.asarray(points, np.float64)
    return points[:: -(-len(points) // POINTS_PER_SHAPE)]
