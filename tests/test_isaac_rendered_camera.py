# SPDX-License-Identifier: Apache-2.0
"""A calibrated lens: what a frame tells of it is the prim's, at the size of the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import StageError
from retake.isaac.rendered_camera import calibrated_intrinsics
from retake.usd.lens import Calibration


@given(st.floats(0.25, 3), st.floats(300, 900), st.floats(300, 900), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_what_a_frame_tells_of_its_lens_is_scaled_to_the_picture(
    scale: float, fx: float, fy: float, cx: float, cy: float
) -> None:
    """A calibration of the nominal size and a frame that tells the same agree at every size; another one is refused."""
    nominal, size = (1280, 960), (round(1280 * scale), round(960 * scale))
    told = np.array([[fx, 0, cx * 1280], [0, fy, cy * 960], [0, 0, 1.0]])
    K = np.diag([size[0] / 1280, size[1] / 960, 1.0]) @ told
    params = {
        "cameraOpenCVFx": fx, "cameraOpenCVFy": fy, "cameraFisheyeOpticalCentre": [told[0, 2], told[1, 2]],
        "cameraFisheyeNominalWidth": nominal[0], "cameraFisheyeNominalHeight": nominal[1],
    }  # fmt: skip
    assert np.allclose(calibrated_intrinsics(params, size, "/C", Calibration(K, None)), K)
    unsaid = {name: 0 for name in params if "Nominal" in name}
    assert np.allclose(calibrated_intrinsics({**params, **unsaid}, size, "/C", Calibration(told, None)), told)
    other = Calibration(K * np.array([[1.2, 1, 1], [1, 1, 1], [1, 1, 1]]), None)
    with pytest.raises(StageError, match="they must agree"):
        calibrated_intrinsics(params, size, "/C", other)
    for name in ("cameraOpenCVFx", "cameraOpenCVFy"):
        assert calibrated_intrinsics({**params, name: 0.0}, size, "/C", other) is other.K


def test_a_frame_and_a_prim_that_differ_are_both_told_in_figures() -> None:
    params = {"cameraOpenCVFx": 500, "cameraOpenCVFy": 510, "cameraFisheyeOpticalCentre": [320, 240]}
    prim = Calibration(np.array([[520.0, 0, 321], [0, 530, 242], [0, 0, 1]]), None)
    with pytest.raises(StageError) as refused:
        calibrated_intrinsics(params, (640, 480), "/C", prim)
    assert "[500.0, 510.0, 320.0, 240.0] px, the prim's calibration [520.0, 530.0, 321.0, 242.0] px" in str(
        refused.value
    )
