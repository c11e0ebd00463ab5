# SPDX-License-Identifier: Apache-2.0
"""A UsdPhysics stage as a Newton ModelBuilder, with what no simulator can integrate mended by a stated default.

Real robots have links without mass behind movable joints, colliders of no size or no thickness, tendons and inertias that
MuJoCo refuses. Each gets the smallest default that lets the rest move right, and a note that names the prim, the default
and the remedy; the notes are recorded in the episode's settings.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from pxr import Usd, UsdPhysics

from retake.core.array_types import Float64, Int
from retake.core.errors import StageError
from retake.core.geometry import wxyz_from_rotation
from retake.newton.engine import load
from retake.newton.stage_mends import mend_stage
from retake.usd.stage import applied_schemas, stage_name

DEFAULT_FRICTION = 1.0
"""For shapes without a physics material; UsdPhysics itself defaults to 0, which lets everything slide off tables."""
SMALL_MASS_KG = 0.01
"""Of a moving link that states none."""
SMALL_RADIUS_M = 0.02
"""A mended link's inertia is that of a solid ball of this radius."""
LEAST_TRAVEL = 1e-4
"""rad or m; MuJoCo refuses a joint whose two limits are one."""
LEAST_MASS_KG = 1e-8
LEAST_INERTIA = 1e-9
"""kg·m²; MuJoCo refuses moving bodies below about 1e-15, and integrates nothing sensible long before."""
ROUNDING = 1e-5
"""Share of an inertia that single precision may have lost."""
POINT_M = 1e-4
"""Size of a collider that has none."""
SLAB = (0.001, 0.01, 0.01)
"""Thickness of a flat mesh collider: at least (m), as a share of its extent, at most (m)."""
FLAT = 1e-5
"""A mesh thinner than this share of its extent has no thickness; MuJoCo refuses it as a collider."""


def import_stage(stage: Usd.Stage, friction: float | None = None) -> tuple[Any, tuple[str, ...]]:
    """A Newton ModelBuilder of the stage (Z up), and notes on every default that was taken.

    Raises StageError with Newton's reason, in one sentence, when it cannot import.
    """
    newton, _ = load()
    logging.getLogger("newton").setLevel(logging.ERROR)
    builder = newton.ModelBuilder(up_axis=newton.Axis.Z)
    builder.default_shape_cfg.mu = DEFAULT_FRICTION
    # MuJoCo-only attributes (mjc:gravcomp) are read only if declared before the import.
    newton.solvers.SolverMuJoCo.register_custom_attributes(builder)
    resolvers = [
        newton.usd.SchemaResolverNewton(),
        newton.usd.SchemaResolverPhysx(),
        newton.usd.SchemaResolverMjc(),
    ]
    notes: list[str] = []
    if not any(prim.IsA(UsdPhysics.Scene) for prim in stage.Traverse()):
        notes.append("the stage has no PhysicsScene: gravity is 9.81 m/s² downwards (define one to choose another)")
    notes += mend_stage(stage)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder.add_usd(
                stage, schema_resolvers=resolvers, enable_self_collisions=False, skip_mesh_approximation=True
            )
    except Exception as error:
        raise StageError(
            f"{stage_name(stage)} cannot be simulated: {type(error).__name__}: {error} "
            "(correct that prim, or leave it out of the stage that is captured)"
        ) from error
    if friction is not None:
        # The larger friction of a pair wins in MuJoCo, so an override must reach every shape.
        builder.shape_material_mu = [float(friction)] * len(builder.shape_material_mu)
    notes += mend_limits(newton, builder) + mend_masses(newton, builder) + mend_shapes(newton, builder)
    hide_sites(newton, builder, stage)
    return builder, tuple(notes)


def hide_sites(newton: Any, builder: Any, stage: Usd.Stage) -> None:
    """Sites mark places; some are metres long. No camera sees them."""
    for shape, label in enumerate(builder.shape_label):
        prim = stage.GetPrimAtPath(label) if label.startswith("/") else None
        if prim and {"NewtonSiteAPI", "MjcSiteAPI"} & set(applied_schemas(prim)):
            builder.shape_flags[shape] = int(builder.shape_flags[shape]) & ~int(newton.ShapeFlags.VISIBLE)


def moving_bodies(newton: Any, builder: Any) -> dict[int, list[int]]:
    """Body that a movable joint carries → the bodies that move with it rigidly (itself first)."""
    fixed, welded, movable = int(newton.JointType.FIXED), {}, []
    for joint, kind in enumerate(builder.joint_type):
        child, parent = int(builder.joint_child[joint]), int(builder.joint_parent[joint])
        if int(kind) == fixed and parent >= 0:
            welded.setdefault(parent, []).append(child)
        elif int(kind) != fixed:
            movable.append(child)
    out = {}
    for body in movable:
        group, waiting = [], [body]
        while waiting:
            group.append(waiting.pop())
            waiting += [b for b in welded.get(group[-1], []) if b not in group]
        out[body] = group
    return out


def mend_masses(newton: Any, builder: Any) -> list[str]:
    """Give a small mass or inertia to every moving group of links that has none; notes that name them."""
    notes = []
    for body, group in moving_bodies(newton, builder).items():
        label = builder.body_label[body]
        mass = sum(float(builder.body_mass[b]) for b in group)
        if not mass > LEAST_MASS_KG:
            _set_mass(builder, body, SMALL_MASS_KG, _ball(SMALL_MASS_KG))
            notes.append(
                f"{label} moves and has no mass: {SMALL_MASS_KG} kg are taken "
                "(give it physics:mass, or colliders to weigh, to choose another)"
            )
            continue
        for b in group:
            inertia = np.array(builder.body_inertia[b], np.float64).reshape(3, 3)
            m = float(builder.body_mass[b])
            if m <= LEAST_MASS_KG:
                continue
            mended = _possible(inertia, m)
            if mended is not None:
                _set_mass(builder, b, m, mended)
            if mended is not None and not np.abs(mended - inertia).max() < 1e-4 * np.abs(mended).max():
                notes.append(
                    f"{builder.body_label[b]} has an inertia that no body of {m:.3g} kg can have: the nearest possible one "
                    "is taken (correct physics:diagonalInertia to choose another)"
                )
    return notes


def _ball(mass: float) -> Float64[np.ndarray, "3 3"]:
    return np.eye(3) * 0.4 * mass * SMALL_RADIUS_M**2


def _possible(inertia: Float64[np.ndarray, "3 3"], mass: float) -> Float64[np.ndarray, "3 3"] | None:
    """The nearest inertia that a body can have; None where this one is."""
    if not np.isfinite(inertia).all():
        return _ball(mass)
    values, axes = np.linalg.eigh((inertia + inertia.T) / 2)
    least = max(LEAST_INERTIA * min(mass, 1.0), 1e-12)
    wanted = np.maximum(values, least)
    if values.max() <= least:
        return _ball(mass)
    # A flat body has A + B = C; single precision may leave a little less, which MuJoCo refuses.
    lacking = max(wanted[2] * (1 + ROUNDING) - wanted[0] - wanted[1], 0.0)
    wanted = wanted + lacking / 2 * np.array([1.0, 1.0, 0.0])
    return None if np.array_equal(wanted, values) else (axes * wanted) @ axes.T


def _set_mass(builder: Any, body: int, mass: float, inertia: Float64[np.ndarray, "3 3"]) -> None:
    _, wp = load()
    builder.body_mass[body] = mass
    builder.body_inv_mass[body] = 1.0 / mass
    builder.body_inertia[body] = wp.mat33(*inertia.ravel().tolist())
    builder.body_inv_inertia[body] = wp.mat33(*np.linalg.inv(inertia).ravel().tolist())


def mend_limits(newton: Any, builder: Any) -> list[str]:
    """A joint whose limits leave no travel stays where they are, a drive without force drives nothing; notes that name them."""
    notes = []
    kinds = (int(newton.JointType.REVOLUTE), int(newton.JointType.PRISMATIC), int(newton.JointType.D6))
    starts = [*builder.joint_qd_start, len(builder.joint_limit_lower)]
    for joint, kind in enumerate(builder.joint_type):
        if int(kind) not in kinds:
            continue
        for dof in range(starts[joint], starts[joint + 1]):
            label, low, high = (
                builder.joint_label[joint],
                builder.joint_limit_lower[dof],
                builder.joint_limit_upper[dof],
            )
            if not high - low > LEAST_TRAVEL:
                builder.joint_limit_lower[dof] = min(low, high) - LEAST_TRAVEL
                builder.joint_limit_upper[dof] = min(low, high) + LEAST_TRAVEL
                notes.append(
                    f"joint {label} has limits without travel: it stays at {min(low, high):.4g} rad or m "
                    "(give it a lower limit below the upper one to let it move)"
                )
            if not builder.joint_effort_limit[dof] > 0:
                builder.joint_effort_limit[dof] = float("inf")
                builder.joint_target_ke[dof] = builder.joint_target_kd[dof] = 0.0
                notes.append(f"joint {label} has a drive without force: it drives nothing (give it a physics:maxForce)")
    return notes


def mend_shapes(newton: Any, builder: Any) -> list[str]:
    """Give a size to shapes without one and a thickness to flat mesh colliders; notes that name them."""
    notes = []
    collide = int(newton.ShapeFlags.COLLIDE_SHAPES)
    meshes = (int(newton.GeoType.MESH), int(newton.GeoType.CONVEX_MESH))
    for shape in range(len(builder.shape_type)):
        kind, label = int(builder.shape_type[shape]), builder.shape_label[shape]
        if kind == int(newton.GeoType.PLANE):
            continue
        size = np.array(builder.shape_scale[shape], np.float64)
        if kind in meshes and np.any(size < 0):
            # A mirrored mesh: MuJoCo takes no negative sizes.
            source = builder.shape_source[shape]
            faces = np.array(source.indices).reshape(-1, 3)
            faces = faces[:, ::-1] if np.prod(size) < 0 else faces
            points = np.array(source.vertices, np.float32) * size.astype(np.float32)
            builder.shape_source[shape] = source.copy(points, np.ascontiguousarray(faces.reshape(-1)))
            builder.shape_scale[shape] = (1.0, 1.0, 1.0)
            size = np.ones(3)
        if not np.any(size):
            builder.shape_scale[shape] = (POINT_M, POINT_M, POINT_M)
            notes.append(f"{label} has no size: {POINT_M * 1000:.1g} mm are taken (give it one, or remove it)")
        elif kind in meshes and int(builder.shape_flags[shape]) & collide:
            source = builder.shape_source[shape]
            slab = flat_slab(np.array(source.vertices, np.float64) * size, np.array(source.indices).reshape(-1, 3))
            if slab is not None:
                _collide_as_box(newton, builder, shape, *slab)
                notes.append(
                    f"{label} is a flat collider: it collides as a slab {2000 * slab[1].min():.3g} mm thick "
                    "(use a box, a plane or a mesh with thickness to choose another)"
                )
    return notes


def flat_slab(
    points: Float64[np.ndarray, "P 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "3"]] | None:
    """The box behind a flat mesh: its pose in the mesh's frame and half sizes, m. None where the mesh is not flat.

    The mesh's front (by its faces' winding) stays the surface; the box lies behind it.
    """
    if len(points) < 3:
        return None
    centre = points.mean(0)
    axes = np.linalg.eigh((points - centre).T @ (points - centre))[1].T[::-1].copy()
    extent = np.ptp((points - centre) @ axes.T, axis=0)
    if extent[0] <= 0 or extent[2] > FLAT * extent[0]:
        return None
    corner = points[faces]
    front = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).sum(0)
    if axes[2] @ front < 0:
        axes[2] = -axes[2]
    axes[0] = np.cross(axes[1], axes[2])
    local = (points - centre) @ axes.T
    low, high = local.min(0), local.max(0)
    depth = float(np.clip(SLAB[1] * extent[0], SLAB[0], SLAB[2]))
    low[2], high[2] = high[2] - depth, high[2]
    half = np.maximum((high - low) / 2, SLAB[0] / 2)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes.T, centre + axes.T @ ((low + high) / 2)
    return pose, half


def _collide_as_box(
    newton: Any, builder: Any, shape: int, pose: Float64[np.ndarray, "4 4"], half: Float64[np.ndarray, "3"]
) -> None:
    """The shape stays to be seen; an unseen box of the same body, material and filters collides in its place."""
    _, wp = load()
    w, x, y, z = wxyz_from_rotation(pose[:3, :3])
    local = wp.transform(wp.vec3(*pose[:3, 3].tolist()), wp.quat(float(x), float(y), float(z), float(w)))
    config = newton.ModelBuilder.ShapeConfig(
        density=0.0,
        mu=float(builder.shape_material_mu[shape]),
        collision_group=int(builder.shape_collision_group[shape]),
        is_visible=False,
    )
    box = builder.add_shape_box(
        int(builder.shape_body[shape]),
        xform=wp.transform(*builder.shape_transform[shape]) * local,
        hx=float(half[0]),
        hy=float(half[1]),
        hz=float(half[2]),
        cfg=config,
        label=builder.shape_label[shape],
    )
    for first, second in list(builder.shape_collision_filter_pairs):
        if shape in (first, second):
            builder.add_shape_collision_filter_pair(box, second if first == shape else first)
    builder.add_shape_collision_filter_pair(shape, box)
    builder.shape_flags[shape] = int(builder.shape_flags[shape]) & ~int(newton.ShapeFlags.COLLIDE_SHAPES)
