# SPDX-License-Identifier: Apache-2.0
"""The live picture: what the camera saw with the skeleton over it, so that a wrong camera, robot or unit shows at once.

Drawn on the recorder's thread for each captured frame; the panel takes the newest picture when it has time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import EpisodeHeader, Frame
from retake.core.skeleton import render_into
from retake.isaac.checks import misfit_px


@dataclass(frozen=True)
class Picture:
    """One preview."""

    index: int
    camera: str
    rgba: UInt8[np.ndarray, "H W 4"]
    misfit_px: float | None
    """Median distance of the robot's projected joints from its pixels; None where the camera sees no robot."""


class Preview:
    """Newest picture of one camera. `show` runs on the recorder's thread, `newest` on any."""

    def __init__(self, camera: str = "", width: int = 480) -> None:
        self.camera, self.width = camera, width
        self.header: EpisodeHeader | None = None
        self._lock = threading.Lock()
        self._picture: Picture | None = None

    def show(self, index: int, frame: Frame) -> None:
        """Draw a captured frame."""
        header = self.header
        if header is None or not header.cameras:
            return
        names = [camera.name for camera in header.cameras]
        position = names.index(self.camera) if self.camera in names else 0
        picture = draw(index, frame, header, position, self.width)
        with self._lock:
            self._picture = picture

    def clear(self) -> None:
        """Forget the picture: it is of a recording before."""
        with self._lock:
            self._picture = None

    @property
    def newest(self) -> Picture | None:
        """The last picture drawn."""
        with self._lock:
            return self._picture


def draw(index: int, frame: Frame, header: EpisodeHeader, camera: int, width: int) -> Picture:
    """One frame of one camera with every arm's skeleton over it, `width` px wide."""
    view = frame.cameras[camera]
    canvas = np.ascontiguousarray(view.rgb.copy())
    for spec, state in zip(header.robots, frame.robots, strict=True):
        for number, gripper in enumerate(spec.grippers):
            chain = list(spec.chain(gripper))
            T_world_ee = state.T_world_link[spec.link_index(gripper.ee_link)] @ gripper.T_link_ee
            openness = float(state.gripper_openness[number])
            render_into(
                canvas, state.T_world_link[chain, :3, 3], T_world_ee, openness, view.K, view.T_camera_world, view.lens
            )
    height = max(1, round(canvas.shape[0] * width / canvas.shape[1]))
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    rgba = np.dstack([small, np.full((height, width), 255, np.uint8)])
    return Picture(index, header.cameras[camera].name, rgba, misfit_px(frame, header, camera))
