# SPDX-License-Identifier: Apache-2.0
"""A distorted camera's frame as a pinhole of the same K sees it: on request, and recorded in the episode's settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from retake.core.episode.records import CameraFrame, CameraSpec
from retake.core.lens import straight_maps

SETTING = "undistorted"
"""Key of the episode's settings: camera name -> the lens that was taken out (`Lens.to_json`)."""


def straighten(frame: CameraFrame) -> CameraFrame:
    """The frame without its lens: colours between pixels, maps (depth, normals, ids) from the nearest one.

    K, size and pose stay, and so does depth: it is measured along the axis. Pixels that the lens did not see are black
    with depth, normals and ids 0. A frame without a lens is returned as it is.
    """
    if frame.lens is None:
        return frame
    at = straight_maps(frame.lens, frame.K, (frame.rgb.shape[1], frame.rgb.shape[0]))

    def remap(image: np.ndarray | None, how: int) -> Any:
        return None if image is None else cv2.remap(image, *at, how, borderMode=cv2.BORDER_CONSTANT, borderValue=0)

    return replace(
        frame,
        rgb=remap(frame.rgb, cv2.INTER_LINEAR),
        depth_m=remap(frame.depth_m, cv2.INTER_NEAREST),
        normals=remap(frame.normals, cv2.INTER_NEAREST),
        instance_ids=remap(frame.instance_ids, cv2.INTER_NEAREST),
        lens=None,
    )


def straightened(cameras: tuple[CameraSpec, ...]) -> tuple[tuple[CameraSpec, ...], dict[str, Any]]:
    """(the specifications without lenses, what was changed, for the episode's settings)."""
    changed = {camera.name: camera.lens.to_json() for camera in cameras if camera.lens is not None}
    return tuple(replace(camera, lens=None) for camera in cameras), changed
