# SPDX-License-Identifier: Apache-2.0
"""What moves, as seen by the light: robot points, link bones and object boxes, added to a ShadowField."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from retake.core.array_types import Float32, Float64
from retake.core.painter.shadows import ShadowField
from retake.core.variants.base import SourceFrame


def add_movers(
    field: ShadowField, source: SourceFrame, robot_points: Float32[np.ndarray, "N 3"], objects: Iterable[int]
) -> None:
    """Add robots (visible points, and bones for what the camera cannot see) and the objects' boxes to a field."""
    field.add_points(robot_points, 1)
    field.add_points(bones(source), 3)
    for index in objects:
        spec, T = source.header.objects[index], source.T_world_object[index]
        corners = box_corners(spec.size_m, spec.center_m) @ T[:3, :3].T + T[:3, 3]
        field.add_box(corners.astype(np.float32))


def box_corners(size_m: tuple[float, float, float], center_m: tuple[float, float, float]) -> Float64[np.ndarray, "8 3"]:
    """The corners of an object's box in its own frame, m."""
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return signs * np.array(size_m) + np.array(center_m)


def bones(source: SourceFrame) -> Float32[np.ndarray, "N 3"]:
    """World points along the robots' links, m."""
    out = [np.zeros((0, 3), np.float32)]
    t = np.linspace(0, 1, 24, dtype=np.float32)[:, None]
    for robot, poses in zip(source.header.robots, source.T_world_link, strict=False):
        for child, parent in enumerate(robot.parents):
            if parent >= 0:
                a, b = poses[parent][:3, 3].astype(np.float32), poses[child][:3, 3].astype(np.float32)
                out.append(a + (b - a) * t)
    return np.concatenate(out)
