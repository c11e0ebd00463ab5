# SPDX-License-Identifier: Apache-2.0
"""Roles: what each instance id is to a variant (background, work surface, container, fixture, robot, task object)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import UInt8
from retake.core.variants.base import SourceFrame

BACKGROUND, SURFACE, CONTAINER, FIXTURE, ROBOT, SUBJECT = range(6)
_BACKGROUND_WORDS = re.compile(r"floor|ground|wall|ceiling|sky|dome|backdrop|background|room", re.IGNORECASE)
_CONTAINER_WORDS = re.compile(r"tray|bin|basket|bowl|plate|crate|container|bucket|drawer", re.IGNORECASE)


@dataclass(frozen=True)
class Anchor:
    """Where the simulated scene stands, so that the set stays clear of it."""

    center: tuple[float, float]
    floor_z: float
    """World height of the floor, m."""
    eye: tuple[float, float, float]
    """Where the lead camera stands: the wall that it faces is the first one."""
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    """Box of all places a camera of the episode is at; rooms contain it."""


@dataclass(frozen=True, eq=False)
class Roles:
    """Lookup tables over instance ids."""

    role: UInt8[np.ndarray, "65536"]
    object_index: UInt8[np.ndarray, "65536"]
    """For subjects: index into `header.objects`."""
    task_object: int
    """Index of the object the task is about, -1 where none moves."""
    support_z: float
    """World height of the work surface, m."""
    anchor: Anchor


def find_roles(source: SourceFrame) -> Roles:
    """Roles of every id, from owners and labels; scenery that lies far below the objects counts as background."""
    header = source.header
    role, owner = np.full(65536, SURFACE, np.uint8), np.zeros(65536, np.uint8)
    role[0] = BACKGROUND
    names = {o.name: k for k, o in enumerate(header.objects)}
    movable = [k for k, o in enumerate(header.objects) if o.movable]
    goal = header.settings.get("goal") if isinstance(header.settings.get("goal"), dict) else {}
    wanted = goal.get("object") if isinstance(goal, dict) else None
    task = next((k for k in movable if header.objects[k].name == wanted), movable[0] if movable else -1)
    bottoms = [
        float(T[2, 3]) + o.center_m[2] - max(o.size_m) / 2
        for o, T in zip(header.objects, source.T_world_object, strict=True)
    ]
    scene = source.scene
    points = _sample(source) if scene is None or not len(scene.ids) else (scene.ids, scene.points.astype(np.float64))
    scenery = []
    for instance in header.instances:
        kind, _, name = instance.owner.partition(":")
        text = f"{instance.prim_path} {instance.label}"
        if kind == "robot":
            role[instance.id] = ROBOT
        elif kind == "object" and name in names and names[name] in movable:
            role[instance.id], owner[instance.id] = SUBJECT, names[name]
        elif kind == "object" or _CONTAINER_WORDS.search(text):
            role[instance.id] = CONTAINER
        elif _BACKGROUND_WORDS.search(instance.label) or _BACKGROUND_WORDS.search(instance.prim_path.split("/")[-1]):
            role[instance.id] = BACKGROUND
        else:
            scenery.append(instance.id)
    ids, xyz = points
    low = min(bottoms, default=float(np.median(xyz[:, 2])) if len(xyz) else 0.0)
    for i in scenery:
        z = xyz[ids == i, 2]
        if len(z) >= 8 and np.percentile(z, 95) < low - 0.25:
            role[i] = BACKGROUND
    _demote_fixtures(role, ids, xyz)
    surface = xyz[role[ids] == SURFACE]
    support = float(np.percentile(surface[:, 2], 90)) if len(surface) >= 8 else low
    below = xyz[(role[ids] == BACKGROUND) & (ids > 0)]
    floor = float(np.median(below[:, 2])) if len(below) >= 20 else support - 0.75
    if floor > support - 0.15:
        # Background at table height: the work surface is the floor itself.
        floor = support - 0.75 if len(surface) >= 8 else floor
    around = surface if len(surface) >= 8 else xyz
    center = np.median(around[:, :2], axis=0) if len(around) else np.zeros(2)
    own = np.linalg.inv(source.camera.T_camera_world)[None, :3, 3]
    eyes = own if scene is None else scene.eyes
    eye, lowest, highest = (tuple(float(v) for v in row) for row in (eyes[0], eyes.min(0), eyes.max(0)))
    anchor = Anchor((float(center[0]), float(center[1])), floor, eye, lowest, highest)  # type: ignore[arg-type]
    return Roles(role, owner, task, support, anchor)


def _demote_fixtures(role: np.ndarray, ids: np.ndarray, xyz: np.ndarray) -> None:
    """One work surface: the id that shows the largest area; pedestals and stands become fixtures."""
    present = [i for i in np.unique(ids) if role[i] == SURFACE]
    extent = {i: float(np.prod(np.ptp(xyz[ids == i, :2], axis=0))) for i in present}
    for i in present:
        if extent[i] < 0.5 * max(extent.values()):
            role[i] = FIXTURE


def _sample(source: SourceFrame) -> tuple[np.ndarray, np.ndarray]:
    """Instance ids and world points of every fourth pixel that hit something."""
    rows, columns = np.nonzero(source.depth_m[::4, ::4] > 0)
    rows, columns = rows * 4, columns * 4
    uv = np.stack([columns + 0.5, rows + 0.5], -1)
    return source.instance_ids[rows, columns], source.camera.unproject(
        uv, source.depth_m[rows, columns].astype(np.float64)
    )
