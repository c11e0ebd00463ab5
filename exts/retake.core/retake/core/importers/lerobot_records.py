# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot import is told: calibrations of its cameras, and how its vectors are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError
from retake.core.files import read_json
from retake.core.geometry import is_rigid
from retake.core.lens import Lens


@dataclass(frozen=True)
class Calibration:
    """A camera: matrices at the dataset's picture size."""

    K: Float64[np.ndarray, "3 3"]
    T_camera_world: Float64[np.ndarray, "4 4"]
    """World (robot base) → camera, OpenCV axes, m; for a camera on a link: link → camera, with `link` set."""
    link: str = ""
    """Link that carries the camera; empty for a fixed one."""
    lens: Lens | None = None
    """Distortion of its pictures; None = a pinhole."""

    def __post_init__(self) -> None:
        if self.K.shape != (3, 3) or not is_rigid(self.T_camera_world):
            raise InputError("a calibration needs K (3, 3) in px and a rigid T_camera_world (4, 4), world to camera")


@dataclass(frozen=True)
class ImportOptions:
    """How the dataset is to be read."""

    joints: Mapping[str, str] = field(default_factory=dict)
    """Joint of the robot → entry of the state; what is not named is found by name (`<joint>.pos`, `<joint>` …)."""
    gripper: Mapping[str, str] = field(default_factory=dict)
    """Gripper of the robot → entry that holds its openness, or `missing`; else `<gripper>.open`, or its finger joints."""
    gripper_range: tuple[float, float] | None = None
    """Values of that entry when closed and when open; None: 0 and 1, and only for an entry called `….open`."""
    degrees: bool = False
    """The revolute joints are in degrees: the same as units={"revolute": "deg"}."""
    T_world_base: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    licence: str = ""
    """Terms of the recording, for `--only-commercial`."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Joint, entry, `revolute`, `prismatic` or `all` → unit (`retake.core.importers.units.UNITS`)."""
    action_units: Mapping[str, str] = field(default_factory=dict)
    """The same for the action, where it has other units than the state."""
    flip: tuple[str, ...] = ()
    """Joints or entries that count the other way round than the robot's description."""
    offset: Mapping[str, float] = field(default_factory=dict)
    """Joint or entry → number added to it (after `flip`), in its own unit: another zero than the robot's description."""
    entries: tuple[str, ...] = ()
    """Names of the state's entries in order, where the dataset has none; `-` for one that is not wanted."""
    state_keys: tuple[str, ...] = ()
    """Features that make up the state, joined in order; empty = `observation.state`."""
    action_key: str = ""
    """Feature that holds the action; empty = `action`; `none` = import without targets."""
    image_keys: Mapping[str, str] = field(default_factory=dict)
    """Camera of the calibration → feature of its pictures; else the feature of that name."""
    resample: bool = False
    """Bring an episode whose clock drifts to the frame rate, instead of refusing it."""
    beyond_limits: bool = False
    """Take joint positions outside the robot's limits as they are."""


def load_calibration(path: Path | str) -> dict[str, Calibration]:
    """Cameras of a JSON file: {name: {"K": 3x3, "T_camera_world": 4x4, "link": "", "lens": null}}. Raises InputError."""
    try:
        data = read_json(Path(path))
        return {
            name: Calibration(
                np.array(c["K"], np.float64),
                np.array(c["T_camera_world"], np.float64),
                str(c.get("link", "")),
                Lens.from_json(c.get("lens")),
            )
            for name, c in data.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: expected {{"camera": {{"K": 3x3, "T_camera_world": 4x4}}}}; {type(error).__name__}: {error}'
        ) from error
