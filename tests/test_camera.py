# SPDX-License-Identifier: Apache-2.0
"""Laws of the pinhole camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_poses, seeds

from retake.core.camera import Camera
from retake.core.errors import InputError
from retake.core.export.cli import parse_size
from retake.isaac.camera_text import camera_parts
from retake.isaac.request import request_from
from retake.lab.cli import _cameras as lab_cameras
from retake.newton.preset import load_preset


def random_camera(rng: np.random.Generator) -> Camera:
    size = (int(rng.integers(8, 800)), int(rng.integers(8, 600)))
    K = np.array(
        [
            [rng.uniform(50, 900), 0, rng.uniform(0, size[0])],
            [0, rng.uniform(50, 900), rng.uniform(0, size[1])],
            [0, 0, 1],
        ]
    )
    return Camera(K, random_poses(rng), size)


@given(seeds)
def test_unproject_inverts_project(seed):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng)
    uv, depth = rng.uniform(-100, 900, (50, 2)), rng.uniform(0.01, 30, 50)
    back, z = camera.project(camera.unproject(uv, depth))
    assert np.allclose(back, uv, atol=1e-6)
    assert np.allclose(z, depth)


@given(seeds)
def test_points_behind_have_no_image(seed):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng)
    uv, z = camera.project(camera.unproject(rng.uniform(0, 100, (9, 2)), -rng.uniform(0.01, 5, 9)))
    assert np.isnan(uv).all()
    assert (z < 0).all()


@given(seeds, st.integers(4, 900), st.integers(4, 900))
def test_resize_scales_every_projection(seed, width, height):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng)
    points = camera.unproject(rng.uniform(0, 100, (20, 2)), rng.uniform(0.1, 5, 20))
    small, _ = camera.resized((width, height)).project(points)
    large, _ = camera.project(points)
    assert np.allclose(small, large * [width / camera.size[0], height / camera.size[1]], atol=1e-6)
    back, _ = camera.resized((width, height)).resized(camera.size).project(points)
    assert np.allclose(back, large, atol=1e-6)


@given(seeds, st.integers(-50, 50), st.integers(-50, 50))
def test_crop_shifts_every_projection(seed, x, y):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng)
    points = camera.unproject(rng.uniform(0, 100, (20, 2)), rng.uniform(0.1, 5, 20))
    cut, _ = camera.cropped(x, y, (5, 5)).project(points)
    assert np.allclose(cut, camera.project(points)[0] - [x, y], atol=1e-6)


@given(seeds)
def test_moving_world_and_camera_together_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    camera, T_new_old = random_camera(rng), random_poses(rng)
    points = camera.unproject(rng.uniform(0, 100, (20, 2)), rng.uniform(0.1, 5, 20))
    moved = Camera(camera.K, camera.T_camera_world @ np.linalg.inv(T_new_old), camera.size)
    moved_points = points @ T_new_old[:3, :3].T + T_new_old[:3, 3]
    assert np.allclose(moved.project(moved_points)[0], camera.project(points)[0], atol=1e-5)


@pytest.mark.parametrize("fault", ["focal", "nan", "pose", "size"])
def test_impossible_cameras_are_refused(fault):
    K, T, size = np.diag([100.0, 100, 1]), np.eye(4), (64, 48)
    if fault == "focal":
        K[0, 0] = 0
    elif fault == "nan":
        K[0, 2] = np.nan
    elif fault == "pose":
        T[0, 0] = 2
    else:
        size = (0, 48)
    with pytest.raises(InputError):
        Camera(K, T, size)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: load_preset("short", {"cameras": [{"name": "front", "size": [99999, 99999]}]}),
        lambda: camera_parts("/World/Camera@99999x99999"),
        lambda: request_from({"output": "x", "width": 99999}).checked(),
        lambda: parse_size("99999x99999"),
        lambda: lab_cameras(["front:99999x99999"]),
    ],
    ids=["preset", "isaac camera", "isaac settings", "export", "lab"],
)
def test_a_picture_that_no_memory_holds_is_refused_where_it_is_asked_for(ask):
    with pytest.raises(InputError, match=r"size 99999x\d+; expected 1 to 8192 pixels a side"):
        ask()
