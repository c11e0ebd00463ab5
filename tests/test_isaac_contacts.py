# SPDX-License-Identifier: Apache-2.0
"""A contact as the simulator reports it, in the units and axes of an Episode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.isaac.contacts import decode_contact

Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@given(st.sampled_from([1.0, 0.01, 0.001, 2.54]), st.sampled_from([1 / 60, 1 / 240]), st.booleans())
def test_lengths_become_metres_and_impulses_become_forces_on_the_second_body(
    unit: float, dt_s: float, y_up: bool
) -> None:
    """Of a body of 3 N at rest at (1, 2, 3) m, 4 mm deep, whatever the stage counts in."""
    R = Y_UP_TO_Z_UP if y_up else np.eye(3)
    at, normal, force = np.array([1.0, 2, 3]), np.array([0.0, 0.6, 0.8]), np.array([0.0, 0, 3])
    raw = (
        "/World/Table",
        "/World/Box",
        tuple(R.T @ at / unit),
        tuple(R.T @ -normal),
        tuple(R.T @ -force * dt_s / unit),
        -0.004 / unit,
    )
    found = decode_contact(raw, unit, lambda values: R @ np.asarray(values), dt_s)
    assert (found.body_a, found.body_b) == ("/World/Table", "/World/Box")
    assert found.position_m == pytest.approx(tuple(at))
    assert found.normal == pytest.approx(tuple(normal))
    assert found.force_n == pytest.approx(tuple(force))
    assert found.penetration_m == pytest.approx(0.004)


def test_bodies_that_are_apart_are_no_depth_in_each_other() -> None:
    raw = ("/A", "/B", (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), 0.02)
    assert decode_contact(raw, 1.0, np.asarray, 0.01).penetration_m == 0
