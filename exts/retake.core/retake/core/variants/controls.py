# SPDX-License-Identifier: Apache-2.0
"""Control maps for image models, taken from the simulator instead of estimated: depth, edges, segments, normals, masks.

All maps have the source frame's size. Bytes are what published control models expect: near is bright, edges are white.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.errors import VariantError
from retake.core.variants.base import SourceFrame
from retake.core.variants.roles import ROBOT, SUBJECT, find_roles

FEATHER_PX = 1.5
"""Softness of mask edges at 640 px width: one pixel and a half either side, as a lens gives."""


@dataclass(frozen=True, eq=False)
class ControlMaps:
    """What a structure-locked image model is steered by."""

    depth: UInt8[np.ndarray, "H W"]
    """Inverse forward depth, 255 nearest, 1 farthest, 0 nothing hit."""
    canny: UInt8[np.ndarray, "H W"]
    """Canny edges of the simulated picture, 0 or 255."""
    geometry: UInt8[np.ndarray, "H W"]
    """Edges of the geometry alone (instance borders, creases, depth steps), 0 or 255: no texture, no shadow."""
    segments: UInt8[np.ndarray, "H W 3"]
    """One colour per instance id, the same in every frame."""
    normals: UInt8[np.ndarray, "H W 3"]
    """Camera-frame normals, (x right, y up, z to the viewer) mapped from -1..1 to 0..255."""
    robot: Float32[np.ndarray, "H W"]
    """Robot mask, 0..1 with soft edges."""
    contact: Float32[np.ndarray, "H W"]
    """Where gripper and a movable object touch in the picture, 0..1: neither may be repainted there."""
    task_object: Float32[np.ndarray, "H W"]
    """Mask of the task object, 0..1 with soft edges; zeros where there is none."""
    keep: Bool[np.ndarray, "H W"]
    """Pixels that are carried over from the simulation: the robot, and the contact zone."""


def control_maps(source: SourceFrame, *, keep_object: bool = False) -> ControlMaps:
    """All maps of a source frame. `keep_object` also carries the task object over instead of letting it be repainted.

    Raises VariantError when the frame shows no robot, or nothing but kept pixels.
    """
    require_robot(source)
    roles = find_roles(source)
    role = roles.role[source.instance_ids]
    robot = role == ROBOT
    movable = role == SUBJECT
    task = movable & (roles.object_index[source.instance_ids] == max(roles.task_object, 0))
    reach = max(3, round(source.rgb.shape[1] / 80)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    near_robot = cv2.dilate(robot.astype(np.uint8), kernel) > 0
    near_object = cv2.dilate(movable.astype(np.uint8), kernel) > 0
    contact = near_robot & near_object & (robot | movable)
    keep = robot | (contact & movable) | (task if keep_object else np.zeros_like(task))
    if keep.all():
        raise VariantError(f"frame {source.index}: the kept mask covers the whole picture; nothing is left to repaint")
    return ControlMaps(
        depth=_inverse_depth(source.depth_m),
        canny=cv2.Canny(cv2.GaussianBlur(cv2.cvtColor(source.rgb, cv2.COLOR_RGB2GRAY), (3, 3), 0), 50, 120),
        geometry=geometry_edges(source),
        segments=segment_colours()[source.instance_ids],
        normals=_camera_normals(source),
        robot=feather(robot),
        contact=feather(contact),
        task_object=feather(task),
        keep=keep,
    )


def require_robot(source: SourceFrame) -> None:
    """Raises VariantError for a frame in which no robot is to be seen (or marked), or nothing but the robot."""
    robot = source.robot_mask
    where = f"frame {source.index} of camera {source.camera_name!r}"
    if not robot.any():
        owners = sorted({i.owner for i in source.header.instances if i.owner})
        marked = any(owner.startswith("robot:") for owner in owners)
        why = (
            "" if marked else f"; no instance of the episode belongs to a robot (owners: {', '.join(owners) or 'none'})"
        )
        raise VariantError(f"{where} shows no robot{why}; pick a frame or a camera that does")
    if robot.all():
        raise VariantError(f"{where}: the robot's mask covers the whole picture; nothing is left to repaint")


def geometry_edges(source: SourceFrame) -> UInt8[np.ndarray, "H W"]:
    """Instance borders, creases (normals more than 25° apart) and depth steps (2 %), one pixel wide on one side."""
    ids, n, z = source.instance_ids, source.normals.astype(np.float32) / 32767, source.depth_m
    edge = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        a = tuple(slice(None, -1) if k == axis else slice(None) for k in range(2))
        b = tuple(slice(1, None) if k == axis else slice(None) for k in range(2))
        other = ids[a] != ids[b]
        crease = (n[a] * n[b]).sum(-1) < np.cos(np.radians(25))
        step = np.abs(z[a] - z[b]) > 0.02 * np.maximum(np.minimum(z[a], z[b]), 1e-3)
        hit = (z[a] > 0) | (z[b] > 0)
        edge[a] |= (other | crease | step) & hit
    return edge.astype(np.uint8) * 255


def feather(mask: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """A mask with soft edges, 0..1; the 0.5 line stays where the hard edge was."""
    sigma = max(0.5, FEATHER_PX * mask.shape[1] / 640)
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)


def _inverse_depth(depth_m: Float32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    hit = depth_m > 0
    if not hit.any():
        return np.zeros(depth_m.shape, np.uint8)
    inverse = 1.0 / np.maximum(depth_m, 1e-6)
    # The far percentile keeps one distant wall pixel from flattening everything near.
    low, high = np.percentile(inverse[hit], 1), inverse[hit].max()
    scaled = 1 + 254 * (inverse - low) / max(high - low, 1e-9)
    return np.where(hit, np.clip(scaled, 1, 255), 0).astype(np.uint8)


def _camera_normals(source: SourceFrame) -> UInt8[np.ndarray, "H W 3"]:
    n = (source.normals.astype(np.float32) / 32767) @ source.camera.T_camera_world[:3, :3].T.astype(np.float32)
    picture = n * np.array([1, -1, -1], np.float32)
    missing = (source.normals == 0).all(-1)
    picture[missing] = (0, 0, 1)
    return np.round((picture + 1) * 127.5).clip(0, 255).astype(np.uint8)


def segment_colours() -> UInt8[np.ndarray, "65536 3"]:
    """Well-spread fixed colours per id: hues by the golden ratio, black for nothing."""
    ids = np.arange(65536)
    hue = np.mod(ids * 0.61803398875, 1.0) * 179
    value = 255 - (ids % 5) * 28
    hsv = np.stack([hue, np.full(65536, 190), value], -1).astype(np.uint8)
    table = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    table[0] = 0
    return table
