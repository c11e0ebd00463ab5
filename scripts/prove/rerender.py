# SPDX-License-Identifier: Apache-2.0
"""Exact maps of an episode with changed poses: what a video that moves wrong would show.

Robot links and objects are placed by hand and ray-traced again (ids, normals, depth; no colours), only inside the
window of the image that the change can touch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from pxr import Usd
from rematerialise import Maps, inside

from retake.core.episode import EpisodeHeader, encode_normals
from retake.core.geometry import CV_FROM_USD, inverse, wxyz_from_rotation
from retake.newton.engine import load

_NOTHING = 0xFFFFFFFF
_COARSE = 4
"""Every 4th pixel finds what is wider than 4 px; where a moving thing was before, every pixel is rendered anyway."""


class Rerenderer:
    """Ray-traces a stage's geometry for given body poses."""

    def __init__(self, stage: Usd.Stage, header: EpisodeHeader) -> None:
        newton, self._wp = load()
        from retake.newton.importing import import_stage

        self.header = header
        builder: Any = import_stage(stage)[0]
        self._model = builder.finalize(device="cpu")
        self._state = self._model.state()
        self._bodies = list(builder.body_label)
        sensor = newton.sensors.SensorCamera
        self._sensor = sensor(self._model, load_textures=False)
        self._config = sensor.RenderConfig(enable_shadows=False, enable_textures=False)
        self._ids = np.zeros(len(builder.shape_label) + 1, np.uint16)
        for shape, path in enumerate(builder.shape_label):
            owners = [i for i in header.instances if inside(path, i.prim_path)]
            if owners:
                self._ids[shape] = max(owners, key=lambda i: len(i.prim_path)).id
        self._paths = {i.id: i.prim_path for i in header.instances}
        moving = ("robot:", *(f"object:{o.name}" for o in header.objects if o.movable))
        self._moving = {i.id for i in header.instances if i.owner.startswith(moving)}

    def change(self, maps: Maps, bodies: dict[int, np.ndarray], everywhere: bool = False) -> Maps:
        """Maps with the poses (T, 4, 4) of some instances replaced; windows follow the old and new positions."""
        ids, normals, depth = maps.ids.copy(), maps.normals.copy(), maps.depth_m.copy()
        changed = {**maps.bodies, **bodies}
        for t in range(len(ids)):
            moved = [i for i in bodies if np.abs(bodies[i][t] - maps.bodies[i][t]).max() > 1e-7]
            if not moved:
                continue
            window = (0, 0, ids.shape[2], ids.shape[1]) if everywhere else self._window(maps, changed, moved, t)
            if window is None:
                continue
            x0, y0, x1, y1 = window
            box = np.s_[t, y0:y1, x0:x1]
            poses = {self._paths[i]: pose[t] for i, pose in changed.items()}
            self._trace(poses, maps.K[t], maps.T_camera_world[t], window, ids[box], normals[box], depth[box])
        return replace(maps, ids=ids, normals=normals, depth_m=depth, bodies=changed)

    def _window(self, maps: Maps, bodies: dict[int, np.ndarray], moved: list[int], t: int) -> Any:
        height, width = maps.ids.shape[1:]
        corners = []
        rows, columns = np.nonzero(np.isin(maps.ids[t], moved))
        if len(rows):
            corners += [[columns.min(), rows.min()], [columns.max(), rows.max()]]
        for i in moved:
            T = maps.T_camera_world[t] @ bodies[i][t]
            reach = self._reach(i)
            box = np.array(np.meshgrid(*[[-r, r] for r in reach])).reshape(3, -1).T
            p = box @ T[:3, :3].T + T[:3, 3]
            p = p[p[:, 2] > 0.02]
            if len(p):
                uv = p @ maps.K[t].T
                corners += list(uv[:, :2] / uv[:, 2:])
        if not corners:
            return None
        points = np.array(corners)
        x0, y0 = np.floor(points.min(0)).astype(int) - 4
        x1, y1 = np.ceil(points.max(0)).astype(int) + 5
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _reach(self, instance: int) -> tuple[float, float, float]:
        """Half extents of a body's own box, m."""
        path = self._paths[instance]
        for spec in self.header.objects:
            if spec.prim_path == path:
                size = np.array(spec.size_m) / 2 + np.abs(spec.center_m)
                return float(size[0]), float(size[1]), float(size[2])
        return 0.35, 0.35, 0.35

    def _trace(
        self, poses: dict[str, np.ndarray], K: np.ndarray, T_camera_world: np.ndarray,
        window: tuple[int, int, int, int], ids: np.ndarray, normals: np.ndarray, depth: np.ndarray,
    ) -> None:  # fmt: skip
        """Render the window's pixels anew, in place."""
        q = self._state.body_q.numpy()
        for index, path in enumerate(self._bodies):
            if path in poses:
                w, x, y, z = wxyz_from_rotation(poses[path][:3, :3])
                q[index] = [*poses[path][:3, 3], x, y, z, w]
        self._state.body_q.assign(q)
        self._model.bvh_refit_shapes(self._state)
        # Most of the window shows what it showed before: a coarse picture finds the places that may have changed.
        x0, y0, x1, y1 = window
        v, u = np.mgrid[y0:y1:_COARSE, x0:x1:_COARSE]
        coarse, _, _ = self._rays(u.ravel(), v.ravel(), K, T_camera_world)
        moving = np.isin(coarse, list(self._moving)).reshape(u.shape).astype(np.uint8)
        near = cv2.dilate(moving, np.ones((3, 3), np.uint8))
        fine = cv2.resize(near, None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_NEAREST)[: y1 - y0, : x1 - x0]
        fine = fine.astype(bool) | np.isin(ids, list(self._moving))
        rows, columns = np.nonzero(fine)
        if len(rows):
            ids[fine], normals[fine], depth[fine] = self._rays(columns + x0, rows + y0, K, T_camera_world)

    def _rays(
        self, u: np.ndarray, v: np.ndarray, K: np.ndarray, T_camera_world: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, normals and depth of N pixels (columns u, rows v)."""
        wp, sensor = self._wp, self._sensor
        count, width = len(u), 256
        height = -(-count // width)
        rays = np.zeros((height * width, 1, 2, 3), np.float32)
        rays[:, 0, 1, 2] = -1
        direction = np.stack([(u + 0.5 - K[0, 2]) / K[0, 0], -(v + 0.5 - K[1, 2]) / K[1, 1], -np.ones(count)], -1)
        rays[:count, 0, 1] = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        rays = rays.reshape(height, width, 1, 2, 3)
        T_usd = inverse(T_camera_world) @ CV_FROM_USD
        w, x, y, z = wxyz_from_rotation(T_usd[:3, :3])
        depth = sensor.allocate_image_depth_forward(1, width, height)
        shape = sensor.allocate_image_shape_index(1, width, height)
        normal = sensor.allocate_image_normal(1, width, height)
        sensor.update(
            self._state, wp.array([[*T_usd[:3, 3], x, y, z, w]], dtype=wp.transformf, device="cpu"),
            wp.array(rays, dtype=wp.vec3f, device="cpu"), forward_depth_image=depth, shape_index_image=shape,
            normal_image=normal, render_config=self._config,
        )  # fmt: skip
        index = shape.numpy()[0].reshape(-1)[:count]
        nothing = index == _NOTHING
        ids = self._ids[np.where(nothing, len(self._ids) - 1, index)]
        metres = np.nan_to_num(depth.numpy()[0].reshape(-1)[:count], posinf=0.0, neginf=0.0).astype(np.float32)
        normals = encode_normals(normal.numpy()[0].reshape(-1, 3)[:count])
        metres[nothing], normals[nothing] = 0, 0
        return ids, normals, metres
