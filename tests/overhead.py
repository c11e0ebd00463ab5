# SPDX-License-Identifier: Apache-2.0
"""A scene whose every pixel can be worked out by hand: a table at z = 0 seen from straight above, on it a packet and a robot's
link that are level plates. The camera's rows run along -y, its columns along x."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from export_runs import make_header

from retake.core.camera import Camera
from retake.core.episode import CameraSpec, EpisodeHeader, Instance
from retake.core.geometry import pose_from_wxyz
from retake.core.variants.base import SourceFrame

EYE_M, FOCAL = 2.0, 100.0
"""Height of the camera above the table; a pixel of the table is 2 cm, and one of a plate at height h (2 - h) cm."""
TABLE, PACKET, ROBOT = 2, 7, 10
Plate = tuple[int, tuple[slice, slice], float]
"""(id, pixels, height in m)"""


@cache
def plain_header() -> EpisodeHeader:
    return make_header(0)


def overhead(
    size: tuple[int, int] = (64, 48),
    *,
    plates: tuple[Plate, ...] = (),
    eye: tuple[float, float] = (0.0, 0.0),
    packet: tuple[float, float, float] = (0.0, 0.0, 0.1),
    static: bool = True,
    rgb: np.ndarray | None = None,
) -> SourceFrame:
    """One frame of it. `eye`: where the camera stands over the table; `packet`: where the packet's frame is. Pictures are noise
    unless they are given."""
    width, height = size
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:3, 3] = [-eye[0], eye[1], EYE_M]
    camera = Camera(np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]), T, size)
    ids, z = np.full((height, width), TABLE, np.uint16), np.zeros((height, width), np.float32)
    for instance, where, at_m in plates:
        ids[where], z[where] = instance, at_m
    spec = CameraSpec("front", "/World/front", size, static)
    instances = (
        Instance(TABLE, "/World/Table", "table"), Instance(PACKET, "/World/Obj0", "packet", "object:obj0"),
        Instance(ROBOT, "/World/arm0/link1", "link", "robot:arm0"),
    )  # fmt: skip
    normals = np.zeros((height, width, 3), np.int16)
    normals[..., 2] = 32767
    if rgb is None:
        rgb = np.random.default_rng(5).integers(40, 200, (height, width, 3)).astype(np.uint8)
    header = replace(plain_header(), cameras=(spec,), instances=instances)
    T_world_packet = pose_from_wxyz(np.array([packet]), np.array([[1.0, 0, 0, 0]]))
    return SourceFrame(header, "front", 0, camera, rgb, (EYE_M - z).astype(np.float32), normals, ids, T_world_packet)


def points(source: SourceFrame) -> np.ndarray:
    """World points (H, W, 3) of its pixels, m."""
    rows, columns = np.indices(source.depth_m.shape)
    T, K = source.camera.T_camera_world, source.camera.K
    x = (columns + 0.5 - K[0, 2]) / FOCAL * source.depth_m - T[0, 3]
    y = -(rows + 0.5 - K[1, 2]) / FOCAL * source.depth_m + T[1, 3]
    return np.stack([x, y, EYE_M - source.depth_m], -1)
