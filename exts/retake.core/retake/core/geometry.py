# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms. `T_a_b` (…, 4, 4) float64 takes column vectors in frame b to frame a, so names cancel by eye:
`T_world_ee = T_world_link @ T_link_ee`. Metres; quaternions wxyz inside Retake.

Conversions from other conventions (xyzw, row vectors, USD camera axes) are here and are called once, at the edge.
"""

from __future__ import annotations

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError

CV_FROM_USD = np.diag([1.0, -1.0, -1.0, 1.0])
"""USD/OpenGL camera axes (+X right, +Y up, looks along -Z) to OpenCV axes (+X right, +Y down, +Z forward)."""


def inverse(T: Float64[np.ndarray, "*n 4 4"]) -> Float64[np.ndarray, "*n 4 4"]:
    """Inverse of rigid transforms (transposes the rotation: exact for orthonormal input, no general solve)."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    out = np.zeros_like(T)
    out[..., :3, :3] = R_t
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", R_t, T[..., :3, 3])
    out[..., 3, 3] = 1.0
    return out


def transform(T_a_b: Float64[np.ndarray, "4 4"], p_b: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    """Points (…, 3) of frame b expressed in frame a, metres."""
    return p_b @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def rotation_from_wxyz(q: Float64[np.ndarray, "*n 4"]) -> Float64[np.ndarray, "*n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), normalised first. Raises InputError on a zero quaternion."""
    q = np.asarray(q, np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if not np.all(norm > 1e-12):
        raise InputError("a quaternion has zero or non-finite length; a rotation needs a unit quaternion (w, x, y, z)")
    w, x, y, z = np.moveaxis(q / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def wxyz_from_rotation(R: Float64[np.ndarray, "*n 3 3"]) -> Float64[np.ndarray, "*n 4"]:
    """Unit quaternions (w, x, y, z), w >= 0, of rotation matrices (Shepperd's method: stable at every angle)."""
    R = np.asarray(R, np.float64)
    m = R.reshape(-1, 3, 3)
    d = np.stack([m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]], -1)
    trace = d.sum(-1)
    # The four squared components times four; the largest one is the safe divisor.
    four = np.stack([1 + trace, 1 + 2 * d[:, 0] - trace, 1 + 2 * d[:, 1] - trace, 1 + 2 * d[:, 2] - trace], -1)
    pick = four.argmax(-1)
    zy, xz, yx = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    yx_s, zx_s, zy_s = m[:, 1, 0] + m[:, 0, 1], m[:, 2, 0] + m[:, 0, 2], m[:, 2, 1] + m[:, 1, 2]
    rows = np.stack(
        [
            np.stack([four[:, 0], zy, xz, yx], -1),
            np.stack([zy, four[:, 1], yx_s, zx_s], -1),
            np.stack([xz, yx_s, four[:, 2], zy_s], -1),
            np.stack([yx, zx_s, zy_s, four[:, 3]], -1),
        ],
        1,
    )
    q = rows[np.arange(len(m)), pick]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[:, :1] < 0, -q, q)
    return q.reshape(*R.shape[:-2], 4)


def pose_from_wxyz(
    p: Float64[np.ndarray, "*n 3"], q_wxyz: Float64[np.ndarray, "*n 4"]
) -> Float64[np.ndarray, "*n 4 4"]:
    """Poses (…, 4, 4) from positions (m) and quaternions (w, x, y, z)."""
    p = np.asarray(p, np.float64)
    T = np.zeros((*p.shape[:-1], 4, 4))
    T[..., :3, :3] = rotation_from_wxyz(q_wxyz)
    T[..., :3, 3] = p
    T[..., 3, 3] = 1.0
    return T


def wxyz_from_xyzw(q: Float64[np.ndarray, "*n 4"]) -> Float64[np.ndarray, "*n 4"]:
    """Simulators' tensors (PhysX, Newton) are (x, y, z, w); Retake is (w, x, y, z)."""
    return np.asarray(q)[..., [3, 0, 1, 2]]


def column_from_row_matrix(M: Float64[np.ndarray, "*n 4 4"]) -> Float64[np.ndarray, "*n 4 4"]:
    """USD and Replicator matrices act on row vectors from the right; Retake's act on column vectors."""
    return np.swapaxes(np.asarray(M, np.float64), -1, -2)


def axis_angle(
    axis: Float64[np.ndarray, "3"], angle_rad: Float64[np.ndarray, "*n"] | float
) -> Float64[np.ndarray, "*n 3 3"]:
    """Rotations about one unit axis by angles in radians (Rodrigues)."""
    x, y, z = np.asarray(axis, np.float64)
    S = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = np.asarray(angle_rad, np.float64)[..., None, None]
    return np.eye(3) + np.sin(a) * S + (1 - np.cos(a)) * (S @ S)


def is_rigid(T: Float64[np.ndarray, "*n 4 4"], tolerance: float = 1e-4) -> bool:
    """Whether every matrix is finite, orthonormal and right-handed with last row (0, 0, 0, 1).

    The default tolerance admits float32 simulators (Newton's link poses are orthonormal to 1e-6) and refuses a scale
    or an axis swap.
    """
    if not np.isfinite(T).all():
        return False
    R = T[..., :3, :3]
    gram = np.einsum("...ij,...kj->...ik", R, R)
    return bool(
        np.abs(gram - np.eye(3)).max(initial=0.0) <= tolerance
        and (np.linalg.det(R) > 0).all()
        and np.abs(T[..., 3, :] - [0.0, 0.0, 0.0, 1.0]).max(initial=0.0) <= tolerance
    )
