# SPDX-License-Identifier: Apache-2.0
"""Does the geometry fit the pixels? Projected robot links must lie on the robot's own pixels.

A wrong camera, transposed matrix, swapped quaternion or wrong unit moves them far away; a right one leaves the few
pixels by which a link's origin sits beside its visible surface.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.episode import EpisodeHeader, Frame

SUSPICIOUS_SHARE = 0.05
"""Median misfit above this share of the image's diagonal is reported (a Panda's own geometry stays below 0.02)."""


def misfit_px(frame: Frame, header: EpisodeHeader, camera: int) -> float | None:
    """Median distance, px, between projected link origins inside the image and the nearest pixel of their robot.

    None where the camera has no instance ids, no robot pixel, or no link in view.
    """
    view = frame.cameras[camera]
    if view.instance_ids is None:
        return None
    distances: list[float] = []
    for spec, state in zip(header.robots, frame.robots, strict=True):
        ids = [i.id for i in header.instances if i.owner == f"robot:{spec.name}"]
        mask = np.isin(view.instance_ids, ids)
        if not mask.any():
            continue
        away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
        uv, depth = view.camera.project(state.T_world_link[:, :3, 3])
        height, width = mask.shape
        seen = (depth > 0) & np.isfinite(uv).all(-1)
        # A link outside the image still tells something when the robot is in it: clamp to the border.
        pixels = np.nan_to_num(uv[seen]).astype(int)
        outside = np.hypot(
            np.maximum(0, np.maximum(-pixels[:, 0], pixels[:, 0] - width + 1)),
            np.maximum(0, np.maximum(-pixels[:, 1], pixels[:, 1] - height + 1)),
        )
        inside = pixels.clip([0, 0], [width - 1, height - 1])
        distances += (away[inside[:, 1], inside[:, 0]] + outside).tolist()
    return float(np.median(distances)) if distances else None


def is_suspicious(misfit: float | None, size: tuple[int, int]) -> bool:
    """Whether a misfit says that camera, robot or units are wrong."""
    return misfit is not None and misfit > SUSPICIOUS_SHARE * float(np.hypot(*size))
