# SPDX-License-Identifier: Apache-2.0
"""What moves, as seen by the light: robot points, link bones and object boxes, added to a ShadowField."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from retake.core.array_types import Float32, Float64
from retake.core.painter.restage import Body
from retake.core.painter.shadows import ShadowField
from retake.core.variants.base import SourceFrame


def add_movers(
    field: ShadowField, source: SourceFrame, robot_points: Float32[np.ndarray, "N 3"], objects: Iterable[int],
    bodies: Mapping[int, Body] | None = None,
) -> None:  # fmt: skip
    """Add robots (points, and bones for what no camera sees) and the objects' shapes, or boxes, to a field."""
    field.add_points(robot_points, 1)
    field.add_points(bones(source), 3)
    for index in objects:
        spec, T = source.header.objects[index], source.T_world_object[index]
        own = bodies[index].vertices if bodies and index in bodies else box_corners(spec.size_m, spec.center_m)
        corners = own @ T[:3, :3].T + T[:3, 3]
        field.add_box(corners.astype(np.float32))


def posed(
    clouds: tuple[tuple[tuple[int, Float32[np.ndarray, "N 3"]], ...], ...], source: SourceFrame
) -> Float32[np.ndarray, "N 3"]:
    """World points of robots whose shape is known link by link (`scene.robot_clouds`), at the frame's link poses."""
    out = [np.zeros((0, 3), np.float32)]
    for links, T_world_link in zip(clouds, source.T_world_link, strict=False):
        for link, points in links:
            T = T_world_link[link].astype(np.float32)
            out.append(points @ T[:3, :3].T + T[:3, 3])
    return np.concatenate(out)


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
