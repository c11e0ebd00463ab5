# SPDX-License-Identifier: Apache-2.0
"""Laws of rigid transforms and their conversions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from strategies import random_poses, seeds

from retake.core import geometry as g
from retake.core.errors import InputError


@given(seeds)
def test_inverse_composes_to_identity(seed):
    T = random_poses(np.random.default_rng(seed), 5)
    assert np.allclose(g.inverse(T) @ T, np.eye(4), atol=1e-12)
    assert g.is_rigid(g.inverse(T), 1e-9)


@given(seeds)
def test_quaternions_round_trip_at_every_angle(seed):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(20, 4))
    q[:5, 0] *= 1e-9  # half turns, where the naive formula divides by zero
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    R = g.rotation_from_wxyz(q)
    again = g.wxyz_from_rotation(R)
    assert np.allclose(np.abs((again * q).sum(-1)), 1, atol=1e-9)
    assert np.allclose(g.rotation_from_wxyz(again), R, atol=1e-9)


@given(seeds)
def test_xyzw_and_wxyz_name_the_same_rotation(seed):
    q = np.random.default_rng(seed).normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    angle, axis = 2 * np.arctan2(np.linalg.norm([x, y, z]), w), np.array([x, y, z]) / np.linalg.norm([x, y, z])
    expected = g.axis_angle(axis, np.array(angle))
    assert np.allclose(g.rotation_from_wxyz(g.wxyz_from_xyzw(np.array([x, y, z, w]))), expected, atol=1e-9)
    assert not np.allclose(g.rotation_from_wxyz(np.array([x, y, z, w])), expected, atol=1e-6)


@given(seeds)
def test_row_vector_matrices_act_like_their_column_form(seed):
    rng = np.random.default_rng(seed)
    T, p = random_poses(rng), rng.normal(size=3)
    row = T.T
    assert np.allclose((np.append(p, 1) @ row)[:3], g.transform(g.column_from_row_matrix(row), p))


@given(seeds)
def test_transforms_cancel_by_name(seed):
    rng = np.random.default_rng(seed)
    T_a_b, T_b_c, p_c = random_poses(rng), random_poses(rng), rng.normal(size=(7, 3))
    assert np.allclose(g.transform(T_a_b, g.transform(T_b_c, p_c)), g.transform(T_a_b @ T_b_c, p_c))


@pytest.mark.parametrize("fault", ["scale", "mirror", "nan", "row", "shear"])
def test_is_rigid_notices(fault):
    T = random_poses(np.random.default_rng(0))
    if fault == "scale":
        T[:3, :3] *= 1.01
    elif fault == "mirror":
        T[:3, 0] *= -1
    elif fault == "nan":
        T[0, 3] = np.nan
    elif fault == "row":
        T = T.T
    else:
        T[0, 1] += 0.01
    assert not g.is_rigid(T)


def test_zero_quaternion_is_refused():
    with pytest.raises(InputError, match="zero or non-finite"):
        g.rotation_from_wxyz(np.zeros(4))
