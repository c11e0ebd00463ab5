# SPDX-License-Identifier: Apache-2.0
"""From a stage's units and axes to Retake's: metres, kilograms, Z up, column vectors, rigid poses.

| USD stage                                   | Retake            | where it happens      |
|---------------------------------------------|-------------------|-----------------------|
| metersPerUnit (0.01 unless authored)        | metres            | `StageUnits.pose`     |
| kilogramsPerUnit (1 unless authored)        | kilograms         | `StageUnits`          |
| upAxis Y (X→X, Y→Z, Z→−Y)                   | Z up              | `StageUnits.pose`     |
| matrices for row vectors (p' = p M)         | p' = T p          | `StageUnits.pose`     |
| scale inside local-to-world matrices        | rigid pose        | `rigid_and_scale`     |
| revolute limits, velocities: degrees        | radians           | `articulation`        |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.array_types import Float64
from retake.core.errors import StageError
from retake.core.geometry import column_from_row_matrix
from retake.usd.stage import stage_name, start_time

Z_FROM_Y_UP = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
"""Rotation of a Y-up world into a Z-up world (a quarter turn about X)."""


@dataclass(frozen=True)
class StageUnits:
    """What one unit of a stage means."""

    metres_per_unit: float
    kilograms_per_unit: float
    up_axis: str
    """"Y" or "Z"."""

    @staticmethod
    def of(stage: Usd.Stage) -> StageUnits:
        """Units of a stage. Raises StageError when metersPerUnit or kilogramsPerUnit is not a positive number."""
        metres, kilograms = UsdGeom.GetStageMetersPerUnit(stage), UsdPhysics.GetStageKilogramsPerUnit(stage)
        for name, value in (("metersPerUnit", metres), ("kilogramsPerUnit", kilograms)):
            if not (np.isfinite(value) and value > 0):
                raise StageError(f"{stage_name(stage)}: {name} is {value}; expected a positive number")
        return StageUnits(float(metres), float(kilograms), str(UsdGeom.GetStageUpAxis(stage)))

    @property
    def R_world_stage(self) -> Float64[np.ndarray, "3 3"]:
        """Stage axes to Retake's Z-up world."""
        return Z_FROM_Y_UP if self.up_axis == "Y" else np.eye(3)

    def pose(self, local_to_world: Gf.Matrix4d) -> Float64[np.ndarray, "4 4"]:
        """T_world_prim (metres, Z up, rigid) of a USD local-to-world matrix. Raises StageError on a mirroring matrix."""
        T, _ = rigid_and_scale(local_to_world)
        T[:3, 3] *= self.metres_per_unit
        out = np.eye(4)
        out[:3, :3] = self.R_world_stage @ T[:3, :3]
        out[:3, 3] = self.R_world_stage @ T[:3, 3]
        return out


def rigid_and_scale(matrix: Gf.Matrix4d) -> tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "3"]]:
    """Split a USD matrix into a rigid pose (column vectors, stage units) and the scale (3,) along the prim's own axes.

    Raises StageError when the matrix is singular, mirrors or shears.
    """
    M = column_from_row_matrix(np.array(matrix))
    scale = np.linalg.norm(M[:3, :3], axis=0)
    if not (np.isfinite(M).all() and scale.min() > 1e-12):
        raise StageError(f"a prim's transform is not finite or has zero scale: {M.tolist()}")
    R = M[:3, :3] / scale
    if np.abs(R.T @ R - np.eye(3)).max() > 1e-5 or np.linalg.det(R) < 0:
        raise StageError(f"a prim's transform mirrors or shears; expected rotation, translation, scale: {M.tolist()}")
    # Orthonormal to the last bit, so that rigid inverses are exact.
    u, _, vt = np.linalg.svd(R)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = u @ vt, M[:3, 3]
    return T, scale


def world_pose(
    prim: Usd.Prim, units: StageUnits | None = None, time: Usd.TimeCode | None = None, *, between: bool = False
) -> Float64[np.ndarray, "4 4"]:
    """T_world_prim of any prim at a USD time (the stage's start if None), metres, Z up. Raises StageError by name.

    `between`: the time may lie between samples of a matrix, which USD interpolates entry by entry: the nearest rotation counts.
    """
    units = units or StageUnits.of(prim.GetStage())
    cache = UsdGeom.XformCache(start_time(prim.GetStage()) if time is None else time)
    matrix = cache.GetLocalToWorldTransform(prim)
    M = np.array(matrix)[:3, :3]
    # However large: below a model in millimetres a scale of 0.001 is nothing odd.
    if between and np.isfinite(M).all() and np.linalg.det(M) > 1e-9 * np.linalg.norm(M) ** 3:
        u, _, vt = np.linalg.svd(M)
        matrix = (
            Gf.Matrix4d()
            .SetRotate(Gf.Matrix3d(*(u @ vt).reshape(-1).tolist()))
            .SetTranslateOnly(matrix.ExtractTranslation())
        )
    try:
        return units.pose(matrix)
    except StageError as error:
        raise StageError(f"{prim.GetPath()}: {error}") from error
