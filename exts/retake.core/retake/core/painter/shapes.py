# SPDX-License-Identifier: Apache-2.0
"""Shapes of subjects: small meshes within the unit box -1 … 1, made of profiles and rings, fitted into an object's own box.

A shape touches the middle of the sides that a gripper holds, and stands on the box's lower side; what it leaves free of
the box is scenery again (`restage`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from retake.core.array_types import Float32
from retake.core.errors import VariantError, unknown_name

AROUND, ALONG = 36, 22
"""Points of a ring, and rings of a shape."""
Rings = tuple[Float32[np.ndarray, "R"], Float32[np.ndarray, "R A"], Float32[np.ndarray, "R A"]]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface in the unit box: x across, y through, z up."""

    vertices: Float32[np.ndarray, "V 3"]
    normals: Float32[np.ndarray, "V 3"]
    """Unit, outward; of the unit box (a box's own extents bend them further)."""
    faces: np.ndarray[Any, Any]


def _lathe(profile: list[tuple[float, float]], smooth: bool = True) -> Rings:
    """Rings of a body of revolution from (height, radius) pairs, bottom to top."""
    z, r = (np.array([p[k] for p in profile], np.float32) for k in (0, 1))
    if smooth:
        t = np.concatenate([[0], np.cumsum(np.hypot(np.diff(z), np.diff(r)))])
        s = np.linspace(0, t[-1], ALONG)
        z, r = np.interp(s, t, z).astype(np.float32), np.interp(s, t, r).astype(np.float32)
    a = np.linspace(0, 2 * np.pi, AROUND, endpoint=False, dtype=np.float32)
    return z, r[:, None] * np.cos(a), r[:, None] * np.sin(a)


def _ball(flat: float = 0.0, power: float = 2.0) -> list[tuple[float, float]]:
    """Profile of a superellipsoid; `flat` is the share of the lower half that is cut away (the rest fills the box)."""
    u = np.linspace(-np.pi / 2, np.pi / 2, 3 * ALONG)
    z = np.sign(np.sin(u)) * np.abs(np.sin(u)) ** (2 / power)
    r = np.abs(np.cos(u)) ** (2 / power)
    keep = z >= -1 + flat
    low = -1 + flat
    z, r = z[keep], r[keep]
    z = (z - low) / (1 - low) * 2 - 1
    return [(-1.0, 0.0), *zip(z.tolist(), r.tolist(), strict=True), (1.0, 0.0)]


def _bun() -> Rings:
    return _lathe(_ball(flat=0.45, power=2.3))


def _fruit() -> Rings:
    """Round, with a hollow at the stem and a small one below."""
    z, x, y = _lathe(_ball(power=2.15))
    dent = 0.2 * np.exp(-((np.hypot(x, y).mean(1) / 0.3) ** 2))
    return (z - np.sign(z) * dent * np.where(z > 0, 1.0, 0.5)).astype(np.float32), x, y


def _lobed(count: int, depth: float, flat: float = 0.0) -> Rings:
    """Round with lobes that run from pole to pole: a pepper, a pumpkin."""
    z, x, y = _lathe(_ball(flat=flat, power=2.6))
    a = np.arctan2(y[len(y) // 2], x[len(x) // 2])
    wave = 1 - depth * (0.5 - 0.5 * np.cos(count * a)) ** 0.7
    dent = 0.22 * np.exp(-((np.hypot(x, y).mean(1) / 0.35) ** 2)) * (z > 0)
    return (z - dent).astype(np.float32), x * wave, y * wave


def _bottle() -> Rings:
    return _lathe([
        (-1, 0), (-1, 0.86), (-0.97, 0.96), (-0.9, 1), (0.12, 1), (0.3, 0.93), (0.45, 0.72), (0.56, 0.48), (0.62, 0.38),
        (0.82, 0.36), (0.83, 0.42), (0.99, 0.42), (1, 0.38), (1, 0),
    ], smooth=False)  # fmt: skip


def _can() -> Rings:
    return _lathe([
        (-1, 0), (-0.97, 0.86), (-1, 0.93), (-0.95, 0.97), (-0.9, 1), (0.9, 1), (0.95, 0.97), (1, 0.93), (0.96, 0.88),
        (0.95, 0),
    ], smooth=False)  # fmt: skip


def _carrot() -> Rings:
    return _lathe(
        [(-1, 0), (-0.9, 0.14), (-0.4, 0.42), (0.2, 0.72), (0.62, 0.95), (0.8, 1), (0.93, 0.86), (1, 0.4), (1, 0)]
    )


def _eggplant() -> Rings:
    return _lathe(
        [(-1, 0), (-0.94, 0.5), (-0.72, 0.88), (-0.4, 1), (0.1, 0.88), (0.5, 0.62), (0.8, 0.46), (0.97, 0.28), (1, 0)]
    )


def _lemon() -> Rings:
    return _lathe([
        (-1, 0), (-0.96, 0.16), (-0.86, 0.26), (-0.72, 0.55), (-0.4, 0.9), (0, 1), (0.4, 0.9), (0.72, 0.55), (0.86, 0.26),
        (0.96, 0.16), (1, 0),
    ])  # fmt: skip


def _bag() -> Rings:
    """A pillow: thick in the middle, pinched flat at both ends, its sides drawn in a little."""
    z = np.linspace(-1, 1, ALONG, dtype=np.float32)
    a = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
    full = (1 - np.abs(z[:, None]) ** 3.2) ** 0.55
    across = 0.9 + 0.1 * np.abs(z[:, None]) ** 2
    c, s = np.cos(a)[None], np.sin(a)[None]
    x = across * np.sign(c) * np.abs(c) ** 0.55
    y = np.maximum(full, 0.06) * np.sign(s) * np.abs(s) ** 0.8
    z = np.concatenate([[-1], z, [1]]).astype(np.float32)
    pad = np.zeros((1, AROUND))
    return z, np.concatenate([pad, x, pad]).astype(np.float32), np.concatenate([pad, y, pad]).astype(np.float32)


def _rounded_box(radius: float, soft: float = 0.0) -> Rings:
    """A box with rounded edges; `soft` lets its sides bulge less in the middle of the height (a folded cloth)."""
    a = np.linspace(0, 2 * np.pi, AROUND, endpoint=False) + np.pi / AROUND
    power = 2 / max(2 / (1 - radius) * 2.2, 2.2)
    c, s = np.cos(a), np.sin(a)
    x, y = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    edge = np.linspace(0, np.pi / 2, 5)
    z = np.concatenate([-1 + radius * (1 - np.sin(edge)), 1 - radius * (1 - np.sin(edge))])
    r = np.concatenate([1 - radius * (1 - np.cos(edge)), 1 - radius * (1 - np.cos(edge))])
    order = np.argsort(z, kind="stable")
    z, r = z[order], r[order]
    if soft:
        layers = np.linspace(-1 + radius, 1 - radius, 13)
        z = np.concatenate([z[z <= -1 + radius], layers, z[z >= 1 - radius]])
        r = np.concatenate([r[:5], 1 - soft * (0.5 - 0.5 * np.cos(layers * 3 * np.pi)), r[-5:]])
    z, r = np.concatenate([[-1], z, [1]]), np.concatenate([[0], r, [0]])
    return z.astype(np.float32), (r[:, None] * x).astype(np.float32), (r[:, None] * y).astype(np.float32)


def _wedge() -> Rings:
    """A piece of cheese: a prism whose section narrows to one side."""
    corners = np.array([[-1, -0.9], [1, -0.32], [1, 0.32], [-1, 0.9]])
    t = np.linspace(0, 4, AROUND, endpoint=False)
    k = t.astype(int)
    p = corners[k] + (corners[(k + 1) % 4] - corners[k]) * (t - k)[:, None]
    z, r = np.array([-1, -1, 1, 1], np.float32), np.array([0, 1, 1, 0], np.float32)
    return z, (r[:, None] * p[:, 0]).astype(np.float32), (r[:, None] * p[:, 1] / 0.9).astype(np.float32)


SHAPES: dict[str, Callable[[], Rings]] = {
    "bun": _bun,
    "loaf": lambda: _lathe(_ball(flat=0.35, power=3.2)),
    "fruit": _fruit,
    "pepper": lambda: _lobed(4, 0.22),
    "pumpkin": lambda: _lobed(9, 0.12, 0.12),
    "lettuce": lambda: _lobed(13, 0.1),
    "ball": lambda: _lathe(_ball()),
    "bottle": _bottle,
    "can": _can,
    "carrot": _carrot,
    "eggplant": _eggplant,
    "lemon": _lemon,
    "bag": _bag,
    "box": lambda: _rounded_box(0.04),
    "soap": lambda: _rounded_box(0.35),
    "sponge": lambda: _rounded_box(0.12),
    "cloth": lambda: _rounded_box(0.22, 0.07),
    "wedge": _wedge,
}
"""Name → rings. `shape: box` of a subject keeps sharp simulated edges almost as they are."""


FLAT = ("bun", "loaf", "soap", "sponge", "cloth", "wedge")
"""Shapes whose own axis is the box's shortest side: discs and slabs, whichever side they stand on."""


def axes_of(shape: str, size_m: tuple[float, float, float]) -> tuple[int, int, int]:
    """Axes of the object that a shape's x (across), y (through) and z (its own axis) lie along."""
    order = [int(axis) for axis in np.argsort(np.array(size_m), kind="stable")]
    up = order[0] if shape in FLAT else order[2]
    across, through = sorted((axis for axis in order if axis != up), key=lambda axis: -size_m[axis])
    return across, through, up


@lru_cache(maxsize=64)
def mesh_of(shape: str) -> Mesh:
    """The mesh of a shape, filling the unit box. Raises VariantError listing the valid names."""
    if shape not in SHAPES:
        raise VariantError(unknown_name("subject shape", shape, SHAPES))
    z, x, y = SHAPES[shape]()
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], -1).astype(np.float32)
    low, high = points.reshape(-1, 3).min(0), points.reshape(-1, 3).max(0)
    points = (points - (low + high) / 2) / ((high - low) / 2)
    rings, around = points.shape[:2]
    k, a = np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij")
    b = (a + 1) % around
    p, q, r, s = k * around + a, k * around + b, (k + 1) * around + b, (k + 1) * around + a
    faces = np.concatenate([np.stack([p, q, r], -1).reshape(-1, 3), np.stack([p, r, s], -1).reshape(-1, 3)])
    vertices = points.reshape(-1, 3)
    area = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    faces, area = faces[np.linalg.norm(area, axis=1) > 1e-9], area[np.linalg.norm(area, axis=1) > 1e-9]
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], area)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    # Poles are one point per direction around: their triangles alone say nothing of a normal.
    poles = np.linalg.norm(vertices[:, :2], axis=1) < 1e-6
    normals[poles] = np.sign(vertices[poles, 2:]) * np.array([0, 0, 1], np.float32)
    return Mesh(vertices, normals.astype(np.float32), faces.astype(np.int32))
