# SPDX-License-Identifier: Apache-2.0
"""What all cameras of an episode see of one moment, in world coordinates: a world is built around the scene, never around
one camera, so that every camera of it sees the same walls, the same grain of the table and the same shadows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from retake.core.array_types import Float32, Float64, Int16, UInt8, UInt16
from retake.core.camera import Camera
from retake.core.episode import Episode, EpisodeHeader, open_episode
from retake.core.geometry import inverse

MAPS = {"depth", "normals", "instances"}
"""Camera channels beyond rgb that a structure-locked frame is made from and measured against."""
STEP = 2
"""Every second pixel of a 640 px wide camera is a point of the scene."""
LEAD_STEP = 4
CLOUD_FRAMES = 6
CLOUD_CELL_M = 0.006
"""Of a link's points one per cell of this size is kept: half a cell of the shadow maps."""


@dataclass(frozen=True, eq=False)
class LeadView:
    """The lead camera's frame, every `LEAD_STEP`-th pixel: what a world is exposed by."""

    camera_name: str
    camera: Camera
    rgb: UInt8[np.ndarray, "h w 3"]
    depth_m: Float32[np.ndarray, "h w"]
    normals: Int16[np.ndarray, "h w 3"]
    instance_ids: UInt16[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class Scene:
    """Points and cameras of one moment, world frame, metres."""

    ids: UInt16[np.ndarray, "N"]
    """Instance id of each point."""
    points: Float32[np.ndarray, "N 3"]
    eyes: Float64[np.ndarray, "M 3"]
    """Every place a camera of the episode is at, the lead camera's at this moment first."""
    lead: LeadView | None
    """The first camera that recorded maps."""


@lru_cache(maxsize=2)
def scene_of(path: Path, content_sha256: str, index: int) -> Scene:
    """The scene of a frame of the episode at `path` with that content. Cameras without maps lend their place alone."""
    episode = open_episode(path)
    ids, points, eyes, lead = [], [], [], None
    for spec in episode.header.cameras:
        T_world_camera = inverse(episode.camera_matrices(spec.name)[1])
        eyes.append(T_world_camera[:1, :3, 3] if spec.static else T_world_camera[:, :3, 3])
        if not set(spec.channels) >= MAPS:
            continue
        view = episode.camera_frame(spec.name, index)
        assert view.depth_m is not None
        assert view.normals is not None
        assert view.instance_ids is not None
        step = max(1, round(STEP * spec.size[0] / 640))
        found, xyz = _points(view.camera, view.depth_m, view.instance_ids, step)
        ids.append(found)
        points.append(xyz)
        if lead is None:
            s = max(1, round(LEAD_STEP * spec.size[0] / 640))
            half = s // 2
            small = [
                np.ascontiguousarray(a[half::s, half::s])
                for a in (view.rgb, view.depth_m, view.normals, view.instance_ids)
            ]
            shift = np.array([[1 / s, 0, 0.5 - (half + 0.5) / s], [0, 1 / s, 0.5 - (half + 0.5) / s], [0, 0, 1]])
            size = (small[3].shape[1], small[3].shape[0])
            camera = Camera(shift @ view.camera.K, view.camera.T_camera_world, size, view.camera.lens)
            lead = LeadView(spec.name, camera, *small)
            eyes.insert(0, inverse(view.camera.T_camera_world)[None, :3, 3])
    return Scene(
        np.concatenate([*ids, np.zeros(0, np.uint16)]), np.concatenate([*points, np.zeros((0, 3), np.float32)]),
        np.concatenate([*eyes, np.zeros((0, 3))]), lead,
    )  # fmt: skip


def _points(
    camera: Camera, depth_m: Float32[np.ndarray, "H W"], instance_ids: UInt16[np.ndarray, "H W"], step: int
) -> tuple[UInt16[np.ndarray, "N"], Float32[np.ndarray, "N 3"]]:
    """Instance ids and world points of every `step`-th pixel that hit something."""
    rows, columns = np.nonzero(depth_m[::step, ::step] > 0)
    rows, columns = rows * step, columns * step
    uv = np.stack([columns + 0.5, rows + 0.5], -1)
    points = camera.unproject(uv, depth_m[rows, columns].astype(np.float64))
    return instance_ids[rows, columns], points.astype(np.float32)


@lru_cache(maxsize=2)
def robot_clouds(path: Path, content_sha256: str) -> tuple[tuple[tuple[int, Float32[np.ndarray, "N 3"]], ...], ...]:
    """Per robot (link index, surface points in the link's frame, m), gathered from all cameras over the episode: the
    robot's shape, also where the camera at hand does not see it. Empty where ids do not name links."""
    episode = open_episode(path)
    frames = np.unique(np.linspace(0, len(episode) - 1, CLOUD_FRAMES).astype(int))
    tables = [_links_of(episode.header, k) for k in range(len(episode.header.robots))]
    found: list[dict[int, list[np.ndarray]]] = [{} for _ in tables]
    cameras = [spec for spec in episode.header.cameras if set(spec.channels) >= MAPS]
    for index in frames:
        for spec in cameras:
            depth, ids = episode.image(spec.name, "depth", index), episode.image(spec.name, "instances", index)
            step = max(1, round(2 * STEP * spec.size[0] / 640))
            where, points = _points(episode.camera(spec.name, index), depth, ids, step)
            for k, table in enumerate(tables):
                _gather(found[k], table, where, points, episode, k, index)
    return tuple(
        tuple((link, _thinned(np.concatenate(parts))) for link, parts in sorted(links.items())) for links in found
    )


def _gather(
    links: dict[int, list[np.ndarray]], table: np.ndarray, ids: np.ndarray, points: np.ndarray, episode: Episode, robot: int,
    index: int,
) -> None:  # fmt: skip
    of = table[ids]
    T_world_link = episode.link_poses(episode.header.robots[robot].name)[index]
    for link in np.unique(of[of >= 0]):
        T = inverse(T_world_link[link]).astype(np.float32)
        links.setdefault(int(link), []).append(points[of == link] @ T[:3, :3].T + T[:3, 3])


def _thinned(points: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "M 3"]:
    cells = np.round(points / CLOUD_CELL_M).astype(np.int32)
    return points[np.unique(cells, axis=0, return_index=True)[1]]


def _links_of(header: EpisodeHeader, robot: int) -> np.ndarray:
    """Link index of every instance id, -1 for ids that are none of the robot's links."""
    spec, table = header.robots[robot], np.full(65536, -1, np.int32)
    for instance in header.instances:
        if instance.owner != f"robot:{spec.name}":
            continue
        best = -1
        for index, link in enumerate(spec.links):
            path = link.prim_path
            if instance.prim_path == path or instance.prim_path.startswith(path + "/"):
                best = index if best < 0 or len(path) > len(spec.links[best].prim_path) else best
        table[instance.id] = best
    return table
