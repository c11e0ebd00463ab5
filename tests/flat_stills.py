# SPDX-License-Identifier: Apache-2.0
"""Source frames drawn by hand: ids, depth, normals and colours as plain arrays, before a camera that looks straight down."""

from __future__ import annotations

import numpy as np

from retake.core.camera import Camera
from retake.core.episode import CameraSpec, EpisodeHeader, Instance, ObjectSpec
from retake.core.variants.base import SourceFrame

NOTHING, FLOOR, TABLE, ROBOT, BOX, TIN = 0, 1, 2, 3, 4, 5
INSTANCES = (
    Instance(FLOOR, "/World/Floor", "floor"),
    Instance(TABLE, "/World/Table", "table"),
    Instance(ROBOT, "/World/Arm/hand", "robot", "robot:arm"),
    Instance(BOX, "/World/Box", "box", "object:box"),
    Instance(TIN, "/World/Tin", "tin", "object:tin"),
)
OBJECTS = (
    ObjectSpec("box", "/World/Box", "box", (0.1, 0.1, 0.1)),
    ObjectSpec("tin", "/World/Tin", "tin", (0.1, 0.1, 0.1)),
)


def header(instances=INSTANCES, objects=OBJECTS, **settings) -> EpisodeHeader:
    cameras = (CameraSpec("front", "/World/Front", (8, 8), True),)
    return EpisodeHeader("pick it up", 15, 1 / 495, (), cameras, objects, instances, settings=settings)


def down(size: tuple[int, int], height_m: float = 2.0, focal: float = 100.0) -> Camera:
    """A camera (width, height) above the world's origin that looks down: +x to the right, +y up in the picture."""
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[2, 3] = height_m
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])
    return Camera(K, T, size)


def still(
    ids, depth_m=1.0, normal=(0, 0, 32767), rgb=100, camera: Camera | None = None, head: EpisodeHeader | None = None
) -> SourceFrame:
    """A source frame of these ids; depth, normal and colour may be one for all pixels."""
    ids = np.asarray(ids, np.uint16)
    head = head or header()
    full = np.broadcast_to
    return SourceFrame(
        head, "front", 0, camera or down(ids.shape[::-1]),
        np.array(full(rgb, (*ids.shape, 3)), np.uint8) if np.ndim(rgb) < 2 else np.asarray(rgb, np.uint8),
        np.array(full(depth_m, ids.shape), np.float32), np.array(full(normal, (*ids.shape, 3)), np.int16), ids,
        np.tile(np.eye(4), (len(head.objects), 1, 1)),
    )  # fmt: skip
