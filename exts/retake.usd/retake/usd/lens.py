# SPDX-License-Identifier: Apache-2.0
"""Lens distortion of a camera prim, as Isaac Sim and Isaac Lab author it: OpenCV's pinhole and fisheye models.

| model          | applied schema                       | attributes `omni:lensdistortion:<model>:…`                        |
|----------------|--------------------------------------|-------------------------------------------------------------------|
| opencvPinhole  | OmniLensDistortionOpenCvPinholeAPI   | imageSize, fx, fy, cx, cy, k1 … k6, p1, p2, s1 … s4               |
| opencvFisheye  | OmniLensDistortionOpenCvFisheyeAPI   | imageSize, fx, fy, cx, cy, k1 … k4                                |

`omni:lensdistortion:model` selects the model. Its numbers are pixels of `imageSize` and scale with the rendered size;
focal length and apertures of the prim do not enter the picture then. Sources: isaacsim.sensors.camera 5.1 and 6.0.1
(`set_opencv_pinhole_properties`), isaacsim.sensors.experimental.rtx 6.0.1 (example camera_opencv_fisheye.py),
isaacsim.replicator.writers (`project_pinhole_opencv`: the scaling). Every other model is refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pxr import Usd

from retake.core.array_types import Float64
from retake.core.errors import InputError, StageError
from retake.core.lens import COEFFICIENTS, Lens, lens_of
from retake.usd.stage import applied_schemas

PREFIX = "omni:lensdistortion:"
MODELS = {"opencvPinhole": "opencv-pinhole", "opencvFisheye": "opencv-fisheye"}
SCHEMAS = {
    "OmniLensDistortionOpenCvPinholeAPI": "opencvPinhole",
    "OmniLensDistortionOpenCvFisheyeAPI": "opencvFisheye",
}
PLAIN = ("", "none", "pinhole")
"""Names of a lens that bends nothing."""


@dataclass(frozen=True)
class Calibration:
    """A calibrated camera at one image size."""

    K: Float64[np.ndarray, "3 3"]
    """px; pixel centres at +0.5, a centred camera has cx = W/2."""
    lens: Lens | None
    """None where the calibration holds no distortion (K is the calibration's all the same)."""


def read_calibration(prim: Usd.Prim, size: tuple[int, int], time: Usd.TimeCode) -> Calibration | None:
    """The calibration of a camera prim for images of `size`; None for a camera without one (a plain pinhole).

    Raises StageError naming the prim for a model that is not supported, two models at once, and numbers that are missing.
    """
    model = _model(prim, time)
    if model is None:
        return None
    nominal = _value(prim, f"{model}:imageSize", time)
    if nominal is None or min(nominal[0], nominal[1]) < 1:
        raise StageError(
            f"{prim.GetPath()}: {PREFIX}{model}:imageSize is {nominal}; expected the (width, height) that fx, fy, cx and cy "
            "are pixels of"
        )
    sx, sy = size[0] / nominal[0], size[1] / nominal[1]
    fx, fy, cx, cy = (_number(prim, f"{model}:{name}", time) for name in ("fx", "fy", "cx", "cy"))
    if not (fx > 0 and fy > 0):
        raise StageError(f"{prim.GetPath()}: {model} has fx {fx} and fy {fy} px; expected positive numbers")
    K = np.array([[fx * sx, 0, cx * sx], [0, fy * sy, cy * sy], [0, 0, 1.0]])
    # An unauthored coefficient is the schema's fallback, 0; the schema's plugin is not loaded outside Kit.
    values = [_value(prim, f"{model}:{name}", time) or 0.0 for name in COEFFICIENTS[MODELS[model]]]
    try:
        return Calibration(K, lens_of(MODELS[model], [float(v) for v in values]))
    except InputError as error:
        raise StageError(f"{prim.GetPath()}: {error}") from error


def _model(prim: Usd.Prim, time: Usd.TimeCode) -> str | None:
    """The model in force, a key of MODELS; None for a pinhole."""
    schemas = [name for name in applied_schemas(prim) if name.startswith("OmniLensDistortion")]
    old = _value(prim, "cameraProjectionType", time, prefix="")
    if old is not None and str(old).lower() not in PLAIN:
        raise _unsupported_lens(prim, f"cameraProjectionType = {old}")
    chosen = _value(prim, "model", time)
    if chosen is not None:
        if str(chosen).lower() in PLAIN:
            return None
        if str(chosen) not in MODELS:
            raise _unsupported_lens(prim, f"{PREFIX}model = {chosen}")
        return str(chosen)
    if len(schemas) > 1:
        raise StageError(
            f"{prim.GetPath()} has {len(schemas)} lens schemas ({', '.join(schemas)}) and no {PREFIX}model that chooses one; "
            "set it, or remove the others"
        )
    if schemas and schemas[0] not in SCHEMAS:
        raise _unsupported_lens(prim, schemas[0])
    return SCHEMAS[schemas[0]] if schemas else None


def _unsupported_lens(prim: Usd.Prim, what: str) -> StageError:
    return StageError(
        f"{prim.GetPath()}: lens model {what} is not supported; expected a pinhole, {' or '.join(MODELS)} "
        "(OmniLensDistortionOpenCvPinholeAPI, OmniLensDistortionOpenCvFisheyeAPI)"
    )


def _value(prim: Usd.Prim, name: str, time: Usd.TimeCode, prefix: str = PREFIX) -> Any:
    attribute = prim.GetAttribute(f"{prefix}{name}")
    if not attribute or not attribute.HasValue():
        return None
    # An unauthored `model` is the fallback of whichever schema Kit has loaded: the applied schema decides then.
    if name in ("model", "cameraProjectionType") and not attribute.HasAuthoredValue():
        return None
    return attribute.Get(time)


def _number(prim: Usd.Prim, name: str, time: Usd.TimeCode) -> float:
    value = _value(prim, name, time)
    if value is None or not np.isfinite(value):
        raise StageError(f"{prim.GetPath()}: {PREFIX}{name} is {value}; expected a number of pixels")
    return float(value)
