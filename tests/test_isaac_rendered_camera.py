# SPDX-License-Identifier: Apache-2.0
"""What a frame tells of its camera: a calibrated lens is the prim's, at the size of the picture; a pinhole camera is the one
that rendered it, and what does not agree is refused just beyond what rounding may do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.camera import Camera
from retake.core.errors import StageError
from retake.core.geometry import is_rigid
from retake.core.lens import Lens
from retake.isaac.rendered_camera import (
    calibrated_intrinsics,
    check_model,
    intrinsics,
    rendered_camera,
    view_transform,
)
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


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("entry", [(0, 0), (1, 1), (0, 2), (1, 2)])
def test_half_a_pixel_and_a_thousandth_of_the_focal_length_may_differ(scale: float, entry: tuple[int, int]) -> None:
    """In px of the picture, whatever the nominal size of the frame's figures."""
    told = np.array([[800.0, 0, 300], [0, 810, 200], [0, 0, 1]])
    params = {
        "cameraOpenCVFx": 800, "cameraOpenCVFy": 810, "cameraFisheyeOpticalCentre": [300, 200],
        "cameraFisheyeNominalWidth": 600, "cameraFisheyeNominalHeight": 400,
    }  # fmt: skip
    size, K = (round(600 * scale), round(400 * scale)), np.diag([scale, scale, 1]) @ told
    bound = 0.5 + 1e-3 * 800 * scale
    for sign in (-1, 1):
        near, far = K.copy(), K.copy()
        near[entry] += sign * (bound - 0.01)
        far[entry] += sign * (bound + 0.01)
        assert np.allclose(calibrated_intrinsics(params, size, "/C", Calibration(near, None)), K)
        with pytest.raises(StageError, match="they must agree"):
            calibrated_intrinsics(params, size, "/C", Calibration(far, None))


def test_a_frame_and_a_prim_that_differ_are_both_told_in_figures() -> None:
    params = {"cameraOpenCVFx": 500, "cameraOpenCVFy": 510, "cameraFisheyeOpticalCentre": [320, 240]}
    prim = Calibration(np.array([[520.0, 0, 321], [0, 530, 242], [0, 0, 1]]), None)
    with pytest.raises(StageError) as refused:
        calibrated_intrinsics(params, (640, 480), "/C", prim)
    assert "[500.0, 510.0, 320.0, 240.0] px, the prim's calibration [520.0, 530.0, 321.0, 242.0] px" in str(
        refused.value
    )


# -- of a pinhole camera -----------------------------------------------------------------------------------------------

SIZE = (640, 480)
Z_UP, Y_UP = np.eye(3), np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def seen_by(seed: int = 1) -> Camera:
    """A camera somewhere, turned somehow."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = turn * np.sign(np.linalg.det(turn)), (0.4, -1.7, 2.1)
    return Camera(np.array([[600.0, 0, 310], [0, 600, 250], [0, 0, 1]]), T, SIZE)


def told_of(
    camera: Camera, metres_per_unit: float = 1.0, R: np.ndarray = Z_UP, lens: np.ndarray | None = None, **change: object
) -> dict[str, object]:
    """What a frame tells of a camera; `lens`: (focal length, cx, cy) in px that the attributes say instead of the matrix's."""
    (width, height), K = SIZE, camera.K
    focal, cx, cy = (K[0, 0], K[0, 2], K[1, 2]) if lens is None else lens
    P = np.zeros((4, 4))
    P[0, 0], P[1, 1], P[2, 3] = 2 * K[0, 0] / width, 2 * K[1, 1] / height, -1
    P[2, 0], P[2, 1] = 1 - 2 * K[0, 2] / width, 2 * K[1, 2] / height - 1
    return {
        "cameraModel": "pinhole", "renderProductResolution": np.array(SIZE), "metersPerSceneUnit": metres_per_unit,
        "cameraProjection": P, "cameraViewTransform": view_transform(camera, metres_per_unit, R),
        "cameraFocalLength": focal * 20 / width, "cameraAperture": [20.0, 15.0],
        "cameraApertureOffset": [(width / 2 - cx) * 20 / width, (cy - height / 2) * 20 / width], **change,
    }  # fmt: skip


@given(st.sampled_from([1e-3, 0.01, 0.0254, 1.0, 100.0]), st.sampled_from([Z_UP, Y_UP]), st.integers(0, 99))
def test_a_camera_is_read_as_it_was_told(metres_per_unit: float, R: np.ndarray, seed: int) -> None:
    camera = seen_by(seed)
    found = rendered_camera(told_of(camera, metres_per_unit, R), SIZE, metres_per_unit, R, "/C")
    np.testing.assert_allclose(found.K, camera.K, atol=1e-9)
    np.testing.assert_allclose(found.T_camera_world, camera.T_camera_world, atol=1e-9)
    assert found.size == SIZE


@pytest.mark.parametrize("metres_per_unit", [1e-3, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_renderer_and_stage_agree_to_a_millionth_of_their_unit_whatever_it_is(
    metres_per_unit: float, sign: int
) -> None:
    told = told_of(seen_by(), metres_per_unit)
    for off, good in ((0.9e-6, True), (1.1e-6, False), (1e-3, False), (0.5, False)):
        told["metersPerSceneUnit"] = metres_per_unit * (1 + sign * off)
        if good:
            rendered_camera(told, SIZE, metres_per_unit, Z_UP, "/C")
            continue
        with pytest.raises(StageError, match=r"m per unit, the stage .*; reload the stage"):
            rendered_camera(told, SIZE, metres_per_unit, Z_UP, "/C")
    del told["metersPerSceneUnit"]  # an older renderer does not say
    rendered_camera(told, SIZE, metres_per_unit, Z_UP, "/C")


@pytest.mark.parametrize("size", [(641, 480), (640, 479), (480, 640)])
def test_a_picture_of_another_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(StageError, match=r"was rendered at \(640, 480\), its images are"):
        rendered_camera(told_of(seen_by()), size, 1.0, Z_UP, "/C")


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_view_transform_ends_in_its_column_to_a_hundred_thousandth(row: int, sign: int) -> None:
    told = told_of(seen_by())
    for off, good in ((0.9e-5, True), (1.1e-5, False)):
        view = view_transform(seen_by(), 1.0, Z_UP).reshape(4, 4)
        view[row, 3] += sign * off
        told["cameraViewTransform"] = view.reshape(16)
        if good:
            rendered_camera(told, SIZE, 1.0, Z_UP, "/C")
            continue
        with pytest.raises(StageError, match=r"does not end in the column \(0, 0, 0, 1\)"):
            rendered_camera(told, SIZE, 1.0, Z_UP, "/C")


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_view_transform_is_scaled_by_no_more_than_rounding_and_the_pose_by_nothing(axis: int, sign: int) -> None:
    """Lengths of its axes may be off by half a thousandth: what is read is rigid then."""
    told = told_of(seen_by())
    for off, good in ((4.5e-4, True), (5.5e-4, False)):
        view = view_transform(seen_by(), 1.0, Z_UP).reshape(4, 4)
        view[:3, axis] *= 1 + sign * off
        told["cameraViewTransform"] = view.reshape(16)
        if good:
            assert is_rigid(rendered_camera(told, SIZE, 1.0, Z_UP, "/C").T_camera_world, 1e-12)
            continue
        with pytest.raises(StageError, match="scaled or sheared"):
            rendered_camera(told, SIZE, 1.0, Z_UP, "/C")


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_matrix_and_lens_agree_to_half_a_pixel_and_a_thousandth_of_the_focal_length(which: int, sign: int) -> None:
    camera = seen_by()
    said = np.array([camera.K[0, 0], camera.K[0, 2], camera.K[1, 2]])
    for off, good in ((1.09, True), (1.11, False)):  # 0.5 + 600 / 1000
        lens = said + sign * off * np.eye(3)[which]
        if good:
            assert np.allclose(intrinsics(told_of(camera, lens=lens), SIZE, "/C"), camera.K)
            continue
        with pytest.raises(StageError, match="the camera cannot be trusted"):
            intrinsics(told_of(camera, lens=lens), SIZE, "/C")


@pytest.mark.parametrize("sign", [-1, 1])
def test_pixels_are_square_to_half_a_pixel_and_a_thousandth_of_the_focal_length(sign: int) -> None:
    for off, good in ((1.09, True), (1.11, False)):
        camera = Camera(seen_by().K + np.diag([0, sign * off, 0]), np.eye(4), SIZE)
        if good:
            intrinsics(told_of(camera), SIZE, "/C")
            continue
        with pytest.raises(StageError, match="but Omniverse renders square pixels"):
            intrinsics(told_of(camera), SIZE, "/C")


@pytest.mark.parametrize(
    "change", [{"cameraFocalLength": 0.0}, {"cameraAperture": [0.0, 15.0]}, {"cameraFocalLength": -1}]
)
def test_a_lens_without_a_length_or_an_aperture_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(StageError, match="must both be positive"):
        intrinsics(told_of(seen_by(), **change), SIZE, "/C")


@pytest.mark.parametrize("element", [(0, 0), (1, 1)])
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_a_matrix_without_a_focal_length_is_refused(element: tuple[int, int], value: float) -> None:
    told = told_of(seen_by())
    told["cameraProjection"][element] = value  # type: ignore[index]
    with pytest.raises(StageError, match="focal length of zero or less" if np.isfinite(value) else "expected 16"):
        intrinsics(told, SIZE, "/C")


PLAIN, FISHEYE = Calibration(np.eye(3), None), Calibration(np.eye(3), Lens("opencv-fisheye", (0.1, 0, 0, 0)))
BENT = Calibration(np.eye(3), Lens("opencv-pinhole", (0.1,) + (0.0,) * 11))


@pytest.mark.parametrize(
    ("calibration", "drawn"),
    [(None, "pinhole"), (PLAIN, "pinholeOpenCV"), (BENT, "pinholeOpenCV"), (FISHEYE, "fisheyeOpenCV")],
)
@pytest.mark.parametrize(
    "model", ["pinhole", "Pinhole", "pinholeOpenCV", "fisheyeOpenCV", "fisheyePolynomial", "ortho"]
)
def test_a_lens_is_drawn_by_its_own_model_alone(calibration: Calibration | None, drawn: str, model: str) -> None:
    if model.lower() == drawn.lower():
        check_model(model, calibration, "/C")
        return
    with pytest.raises(StageError, match=f"lens model '{model}'"):
        check_model(model, calibration, "/C")


def test_a_frame_of_a_lens_that_nothing_describes_is_refused() -> None:
    with pytest.raises(StageError, match="the prim has no calibration that says what it does"):
        rendered_camera(told_of(seen_by(), cameraModel="fisheyePolynomial"), SIZE, 1.0, Z_UP, "/C")


@pytest.mark.parametrize("calibration", [PLAIN, BENT, FISHEYE])
def test_a_calibrated_camera_has_the_prim_s_lens_and_the_frame_s_pose(calibration: Calibration) -> None:
    camera, drawn = seen_by(), "fisheyeOpenCV" if calibration is FISHEYE else "pinholeOpenCV"
    found = rendered_camera(told_of(camera, 0.01, cameraModel=drawn), SIZE, 0.01, Z_UP, "/C", calibration)
    assert (found.K is calibration.K, found.lens) == (True, calibration.lens)
    np.testing.assert_allclose(found.T_camera_world, camera.T_camera_world, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1000.0])
def test_a_lens_may_be_told_in_any_unit_of_length(scale: float) -> None:
    told = told_of(seen_by())
    for name in ("cameraFocalLength", "cameraAperture", "cameraApertureOffset"):
        told[name] = np.array(told[name]) * scale
    np.testing.assert_allclose(intrinsics(told, SIZE, "/C"), seen_by().K)


def test_a_focal_length_below_a_pixel_is_one() -> None:
    wide = Camera(np.array([[0.9, 0, 310], [0, 0.8, 250], [0, 0, 1]]), np.eye(4), SIZE)
    np.testing.assert_allclose(intrinsics(told_of(wide), SIZE, "/C"), wide.K)
