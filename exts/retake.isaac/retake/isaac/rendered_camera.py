# SPDX-License-Identifier: Apache-2.0
"""The camera a frame was rendered with: `camera_params` -> K and T_camera_world.

| Omniverse                                             | Retake                                 |
|-------------------------------------------------------|----------------------------------------|
| cameraViewTransform: row vectors, p' = p M            | column vectors, T = Mᵀ                 |
| camera looks along −Z, +Y up                          | OpenCV: +Z forward, +Y down            |
| stage units, Y or Z up                                | metres, Z up                           |
| cameraProjection P: u = (x P₀₀/−z − P₂₀ + 1) W/2      | fx = P₀₀ W/2, cx = (1 − P₂₀) W/2       |
| pixels are square: vertical aperture does not matter  | fy = fx                                |

The view transform travels with the frame, so a moving camera is exact; the prim on the stage is already elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.camera import Camera
from retake.core.errors import StageError
from retake.core.geometry import CV_FROM_USD, column_from_row_matrix, inverse
from retake.usd.lens import Calibration

AGREE_PX = 0.5
"""Projection matrix and lens attributes must give the same K to half a pixel, or one of the two is not understood."""


def rendered_camera(
    params: Mapping[str, Any], size: tuple[int, int], metres_per_unit: float, R_world_stage: Float64[np.ndarray, "3 3"],
    prim_path: str, calibration: Calibration | None = None,
) -> Camera:  # fmt: skip
    """The camera of one frame; `calibration` is what the prim says of its lens.

    Raises StageError for a lens that the prim does not describe (or describes and the renderer does not draw), another
    image size, a transposed or scaled view transform, non-square pixels, and units that disagree with the stage.
    """
    check_model(str(params.get("cameraModel", "pinhole")), calibration, prim_path)
    rendered = tuple(np.asarray(params["renderProductResolution"]).astype(int).reshape(-1).tolist())
    if rendered != tuple(size):
        raise StageError(f"{prim_path} was rendered at {rendered}, its images are {size}; sizes must agree")
    reported = params.get("metersPerSceneUnit")
    if reported is not None and abs(float(reported) - metres_per_unit) > 1e-6 * metres_per_unit:
        raise StageError(
            f"{prim_path}: the renderer counts {float(reported)} m per unit, the stage {metres_per_unit}; reload the stage"
        )
    if calibration is None:
        K = intrinsics(params, size, prim_path)
    else:
        K = calibrated_intrinsics(params, size, prim_path, calibration)
    view = _matrix(params["cameraViewTransform"], "cameraViewTransform", prim_path)
    if np.abs(view[:, 3] - [0, 0, 0, 1]).max() > 1e-5:
        raise StageError(
            f"{prim_path}: cameraViewTransform does not end in the column (0, 0, 0, 1) but in {view[:, 3].tolist()}; it must "
            "act on row vectors (is it transposed?)"
        )
    T_usd_stage = column_from_row_matrix(view)
    gram = T_usd_stage[:3, :3] @ T_usd_stage[:3, :3].T
    if np.abs(gram - np.eye(3)).max() > 1e-3:
        raise StageError(f"{prim_path}: its view transform is scaled or sheared; a camera's transform must be rigid")
    T = CV_FROM_USD @ T_usd_stage
    T[:3, 3] *= metres_per_unit
    T_stage_world = np.eye(4)
    T_stage_world[:3, :3] = R_world_stage.T
    return Camera(K, _orthonormal(T @ T_stage_world), size, None if calibration is None else calibration.lens)


def check_model(model: str, calibration: Calibration | None, prim_path: str) -> None:
    """Whether the renderer draws the lens that the prim describes. Raises StageError naming both."""
    drawn = model.lower()
    if calibration is None:
        if "pinhole" not in drawn or "opencv" in drawn:
            raise StageError(
                f"{prim_path} renders with lens model {model!r}, and the prim has no calibration that says what it does; "
                "expected 'pinhole', or opencvPinhole or opencvFisheye authored on the prim"
            )
        return
    wanted = "fisheye" if calibration.lens is not None and calibration.lens.model == "opencv-fisheye" else "pinhole"
    if "opencv" not in drawn or wanted not in drawn:
        raise StageError(
            f"{prim_path} has an OpenCV {wanted} calibration, and the renderer draws it with lens model {model!r}; expected "
            f"'{wanted}OpenCV': use a renderer that knows the lens, or remove its schema from the prim"
        )


def calibrated_intrinsics(
    params: Mapping[str, Any], size: tuple[int, int], prim_path: str, calibration: Calibration
) -> Float64[np.ndarray, "3 3"]:
    """K of a calibrated lens, px: the frame's own where it tells one, which must be the prim's to half a pixel.

    The annotator calls the principal point `cameraFisheyeOpticalCentre` and its picture `cameraFisheyeNominal…` for every
    model (isaacsim.replicator.writers 6.0.1, `project_pinhole_opencv`); 0 means that it does not tell.
    """
    fx, fy = (float(params.get(f"cameraOpenCVF{axis}", 0.0)) for axis in "xy")
    centre = np.asarray(params.get("cameraFisheyeOpticalCentre", (0.0, 0.0)), np.float64).reshape(-1)
    nominal = [float(params.get(f"cameraFisheyeNominal{side}", 0.0)) for side in ("Width", "Height")]
    if not (fx > 0 and fy > 0 and len(centre) == 2 and centre.all()):
        return calibration.K
    sx, sy = (size[i] / nominal[i] if nominal[i] > 0 else 1.0 for i in (0, 1))
    K = np.array([[fx * sx, 0, centre[0] * sx], [0, fy * sy, centre[1] * sy], [0, 0, 1.0]])
    if np.abs(K - calibration.K).max() > AGREE_PX + 1e-3 * fx * sx:
        reported, prim = K[[0, 1, 0, 1], [0, 1, 2, 2]].round(2), calibration.K[[0, 1, 0, 1], [0, 1, 2, 2]].round(2)
        raise StageError(
            f"{prim_path}: the frame says (fx, fy, cx, cy) = {reported.tolist()} px, the prim's calibration {prim.tolist()} px; "
            "they must agree: is imageSize the size that the calibration was made for?"
        )
    return K


def intrinsics(params: Mapping[str, Any], size: tuple[int, int], prim_path: str) -> Float64[np.ndarray, "3 3"]:
    """K in pixels from the projection matrix, cross-checked against focal length, aperture and offsets."""
    width, height = size
    P = _matrix(params["cameraProjection"], "cameraProjection", prim_path)
    fx, fy = P[0, 0] * width / 2, P[1, 1] * height / 2
    if not (np.isfinite([fx, fy]).all() and fx > 0 and fy > 0):
        raise StageError(
            f"{prim_path} has a focal length of zero or less (fx {fx}, fy {fy} px); expected a positive one"
        )
    if abs(fx - fy) > AGREE_PX + 1e-3 * fx:
        raise StageError(
            f"{prim_path}: fx {fx:.2f} and fy {fy:.2f} px differ, but Omniverse renders square pixels: the vertical aperture "
            "was used where the horizontal one counts; set the aperture ratio to the image's or update Isaac Sim"
        )
    K = np.array([[fx, 0, (1 - P[2, 0]) * width / 2], [0, fy, (1 + P[2, 1]) * height / 2], [0, 0, 1.0]])
    focal, aperture = float(params["cameraFocalLength"]), np.asarray(params["cameraAperture"], float).reshape(-1)
    offset = np.asarray(params.get("cameraApertureOffset", (0.0, 0.0)), float).reshape(-1)
    if not (focal > 0 and aperture[0] > 0):
        raise StageError(
            f"{prim_path}: focal length {focal} and horizontal aperture {aperture[0]} must both be positive"
        )
    per_unit = width / aperture[0]
    lens = np.array([focal * per_unit, width / 2 - offset[0] * per_unit, height / 2 + offset[1] * per_unit])
    found = np.array([fx, K[0, 2], K[1, 2]])
    if np.abs(lens - found).max() > AGREE_PX + 1e-3 * fx:
        raise StageError(
            f"{prim_path}: the projection matrix says (f, cx, cy) = {found.round(2).tolist()} px, the lens attributes "
            f"{lens.round(2).tolist()} px; the camera cannot be trusted (aperture offsets, or a lens Retake does not know)"
        )
    return K


def _matrix(value: Any, name: str, prim_path: str) -> Float64[np.ndarray, "4 4"]:
    matrix = np.asarray(value, np.float64).reshape(-1)
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise StageError(f"{prim_path}: {name} has {matrix.size} finite numbers at most; expected 16")
    return matrix.reshape(4, 4)


def _orthonormal(T: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """The nearest rigid transform (float32 view matrices are orthonormal to 1e-6)."""
    u, _, vt = np.linalg.svd(T[:3, :3])
    out = T.copy()
    out[:3, :3] = u @ vt
    return out


def view_transform(camera: Camera, metres_per_unit: float, R_world_stage: Float64[np.ndarray, "3 3"]) -> np.ndarray:
    """The inverse of `rendered_camera` for its pose: the (16,) cameraViewTransform that gives this camera."""
    T_world_stage = np.eye(4)
    T_world_stage[:3, :3] = R_world_stage
    T = inverse(CV_FROM_USD) @ camera.T_camera_world @ T_world_stage
    T[:3, 3] /= metres_per_unit
    return T.T.reshape(16).copy()
