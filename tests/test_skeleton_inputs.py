# SPDX-License-Identifier: Apache-2.0
"""What a skeleton is drawn from is checked once, and the squeeze to the model's size is that of the training data."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from retake.core.errors import SkeletonError
from retake.core.skeleton.inputs import ArmTrack, CameraTrack, check_size
from retake.core.skeleton.squeeze import MODEL_SIZE, Squeeze

POSE = np.tile(np.eye(4), (2, 1, 1))
K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])


def test_one_link_and_one_frame_are_enough():
    arm = ArmTrack(np.zeros((1, 1, 3)), POSE[:1], [1])
    assert len(arm) == 1
    assert arm.gripper_openness.dtype == np.float64


@pytest.mark.parametrize(
    ("points", "pose", "openness", "told"),
    [((2, 3), POSE, [1, 1], "must be (T, L, 3) m"), ((2, 1, 2), POSE, [1, 1], "must be (T, L, 3) m"),
     ((2, 0, 3), POSE, [1, 1], "at least one link"), ((0, 2, 3), POSE[:0], [], "holds no frame"),
     ((2, 1, 3), POSE[:1], [1, 1], "ee_pose must have shape (2, 4, 4)"), ((2, 1, 3), POSE, [1], "must have shape (2,)"),
     ((2, 1, 3), POSE, ["a", "b"], "must be an array of real numbers"), ((2, 1, 3), POSE, [True, False], "dtype bool")],
)  # fmt: skip
def test_an_arm_that_does_not_fit_is_told_by_its_shape(points, pose, openness, told):
    with pytest.raises(SkeletonError, match=re.escape(told)):
        ArmTrack(np.zeros(points), pose, openness)


def test_the_number_that_is_not_finite_is_named_by_its_place():
    points = np.zeros((2, 3, 3))
    points[1, 2, 0] = np.inf
    with pytest.raises(SkeletonError, match=re.escape("link_positions[1, 2, 0] is inf")):
        ArmTrack(points, POSE, [1, 1])


def test_a_matrix_of_row_vectors_is_noticed_by_its_last_row():
    bad = POSE.copy()
    bad[1, 3, 0] = 2e-6
    with pytest.raises(SkeletonError, match="ee_pose must end in the row"):
        ArmTrack(np.zeros((2, 1, 3)), bad, [1, 1])
    bad[1, 3, 0] = 5e-7
    ArmTrack(np.zeros((2, 1, 3)), bad, [1, 1])
    T = np.eye(4)
    T[3, :3] = (1, 2, 3)
    with pytest.raises(SkeletonError, match=re.escape("found [1.0, 2.0, 3.0, 1.0]")):
        CameraTrack(K, T, (64, 48))


def test_a_camera_is_one_for_all_or_one_per_frame():
    for intrinsic, extrinsic in (
        (K, np.eye(4)),
        (np.stack([K] * 3), POSE[:1].repeat(3, 0)),
        (K, POSE[:1].repeat(3, 0)),
    ):
        camera = CameraTrack(intrinsic, extrinsic, (64, 48))
        camera.check_length(3)
        if intrinsic.ndim == extrinsic.ndim == 2:
            camera.check_length(7)
        else:
            with pytest.raises(SkeletonError, match="has 3 frames, the motion has 2"):
                camera.check_length(2)
    for intrinsic, extrinsic, told in ((np.eye(4), np.eye(4), "camera_intrinsic must be (3, 3)"),
                                       (K, np.eye(3), "camera_extrinsic must be (4, 4)"),
                                       (K[None, None], np.eye(4), "camera_intrinsic must be (3, 3)")):  # fmt: skip
        with pytest.raises(SkeletonError, match=re.escape(told)):
            CameraTrack(intrinsic, extrinsic, (64, 48))


@pytest.mark.parametrize(
    ("size", "fine"),
    [((1, 1), True), ((64.0, 48), True), ((0, 5), False), ((5, 0), False), ((5.5, 5), False), ((5,), False),
     ((5, 5, 5), False), ("no", False), (None, False), ((np.inf, 4), False), ((-3, 4), False)],
)  # fmt: skip
def test_a_size_is_two_positive_whole_numbers(size, fine):
    if fine:
        assert check_size(size) == (int(size[0]), int(size[1]))
    else:
        with pytest.raises(SkeletonError, match="both positive"):
            check_size(size)


def test_the_squeeze_is_linear_interpolation_of_the_whole_picture():
    squeeze = Squeeze((96, 54), (64, 48))
    frame = np.random.default_rng(0).integers(0, 256, (54, 96, 3), dtype=np.uint8)
    small = squeeze.squeeze(frame)
    x = np.clip((np.arange(64) + 0.5) * 96 / 64 - 0.5, 0, 95)
    y = np.clip((np.arange(48) + 0.5) * 54 / 48 - 0.5, 0, 53)
    left, top = np.minimum(x.astype(int), 94), np.minimum(y.astype(int), 52)
    u, v = (x - left)[None, :, None], (y - top)[:, None, None]
    f = frame.astype(float)
    by_hand = (
        f[top][:, left] * (1 - u) * (1 - v) + f[top][:, left + 1] * u * (1 - v)
        + f[top + 1][:, left] * (1 - u) * v + f[top + 1][:, left + 1] * u * v
    )  # fmt: skip
    assert np.abs(small - by_hand).max() <= 1
    assert squeeze.unsqueeze(small).shape == frame.shape
    assert np.array_equal(squeeze.unsqueeze(small), cv2.resize(small, (96, 54), interpolation=cv2.INTER_LINEAR))
    assert (squeeze.sx, squeeze.sy) == (64 / 96, 48 / 54)
    assert not squeeze.identity
    for wrong in (small, frame.astype(float), frame[..., :2]):
        with pytest.raises(SkeletonError, match=r"expected \(54, 96, 3\) uint8 RGB"):
            squeeze.squeeze(wrong)
    assert squeeze.to_json() == {
        "capture_size": [96, 54], "model_size": [64, 48], "sx": 64 / 96, "sy": 48 / 54, "interpolation": "INTER_LINEAR",
    }  # fmt: skip


def test_a_capture_of_the_models_size_is_left_as_it_is():
    assert MODEL_SIZE == (640, 480)
    same = Squeeze((640, 480))
    frame = np.zeros((480, 640, 3), np.uint8)
    assert same.identity
    assert same.squeeze(frame) is frame
    assert not Squeeze((480, 640)).identity
