# SPDX-License-Identifier: Apache-2.0
"""Painter b: Newton's own renderer (ray-traced Lambert light, one shadow-casting sun, textures) on a film."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from film import Film, Item, Window, changed_window, drawn_in_windows, redrawn_in_windows

from retake.core.geometry import CV_FROM_USD, inverse, wxyz_from_rotation
from retake.newton.engine import load

_NOTHING = 0xFFFFFFFF
_WIDTH = 256


@dataclass(frozen=True, eq=False)
class Shot:
    """What a renderer gives of a film."""

    rgb: np.ndarray
    """(T, H, W, 3) uint8."""
    ids: np.ndarray
    """(T, H, W) uint8: 0 nothing, 1 + index into the film's owners."""
    owners: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rgb)

    def mask(self, owners: set[str] | tuple[str, ...]) -> np.ndarray:
        """(256,) bool table of ids that belong to some owners."""
        table = np.zeros(256, bool)
        table[[i + 1 for i, o in enumerate(self.owners) if o in owners]] = True
        return table

    def at(self, index: np.ndarray) -> Shot:
        """Frame k shows frame index[k]."""
        return Shot(self.rgb[index], self.ids[index], self.owners)


class NewtonPainter:
    """Renders frames of a dressed film."""

    def __init__(self, film: Film) -> None:
        newton, self._wp = load()
        self.owners = film.owners
        builder = newton.ModelBuilder()
        config = newton.ModelBuilder.ShapeConfig(has_shape_collision=False, has_particle_collision=False, density=0.0)
        ids = []
        for number, owner in enumerate(self.owners):
            body = builder.add_body(mass=1.0, label=owner, is_kinematic=True)
            for item in [i for i in film.items if i.owner == owner]:
                builder.add_shape_mesh(body, mesh=self._mesh(newton, item), cfg=config, color=item.colour)
                ids.append(number + 1)
        self._ids = np.array([*ids, 0], np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model = builder.finalize(device="cpu")
        self._state = self._model.state()
        sensor = newton.sensors.SensorCamera
        self._sensor = sensor(self._model)
        self._sensor.create_default_light(
            enable_shadows=True, direction=self._wp.vec3f(*film.sun), color=film.sun_colour
        )
        self._sensor.set_ambient_light(film.sky, tuple(0.5 * c for c in film.sky))
        r, g, b = (round(255 * c) for c in film.sky)
        self._clear = sensor.ClearData(clear_color=b << 16 | g << 8 | r)
        self._config = sensor.RenderConfig(enable_shadows=True, enable_textures=True, enable_backface_culling=False)

    @staticmethod
    def _mesh(newton: object, item: Item) -> object:
        uv = item.uv / item.repeat_m
        texture = None if item.texture is None else np.ascontiguousarray(item.texture)
        return newton.Mesh(  # type: ignore[attr-defined]
            item.vertices, item.faces.ravel(), uvs=uv, compute_inertia=False, texture=texture, color=item.colour
        )

    def render(self, film: Film, t: int, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(rgb (h, w, 3) uint8, ids (h, w) uint8) of a frame, or of its window (x0, y0, x1, y1)."""
        wp = self._wp
        q = self._state.body_q.numpy()
        for k, owner in enumerate(self.owners):
            T = film.pose(owner, t)
            w, x, y, z = wxyz_from_rotation(T[:3, :3])
            q[k] = [*T[:3, 3], x, y, z, w]
        self._state.body_q.assign(q)
        self._model.bvh_refit_shapes(self._state)
        x0, y0, x1, y1 = window or (0, 0, *film.size)
        v, u = np.mgrid[y0:y1, x0:x1]
        shape, count = u.shape, u.size
        height = -(-count // _WIDTH)
        K = film.K[t]
        rays = np.zeros((height * _WIDTH, 1, 2, 3), np.float32)
        rays[:, 0, 1, 2] = -1
        way = np.stack(
            [(u.ravel() + 0.5 - K[0, 2]) / K[0, 0], -(v.ravel() + 0.5 - K[1, 2]) / K[1, 1], -np.ones(count)], -1
        )
        rays[:count, 0, 1] = way / np.linalg.norm(way, axis=-1, keepdims=True)
        T_usd = inverse(film.T_camera_world[t]) @ CV_FROM_USD
        w, x, y, z = wxyz_from_rotation(T_usd[:3, :3])
        colour = self._sensor.allocate_image_color(1, _WIDTH, height)
        index = self._sensor.allocate_image_shape_index(1, _WIDTH, height)
        self._sensor.update(
            self._state, wp.array([[*T_usd[:3, 3], x, y, z, w]], dtype=wp.transformf, device="cpu"),
            wp.array(rays.reshape(height, _WIDTH, 1, 2, 3), dtype=wp.vec3f, device="cpu"), color_image=colour,
            shape_index_image=index, render_config=self._config, clear_data=self._clear,
        )  # fmt: skip
        seen = index.numpy()[0].reshape(-1)[:count]
        ids = self._ids[np.where(seen == _NOTHING, len(self._ids) - 1, seen)]
        rgb = colour.numpy()[0].reshape(-1)[:count].view(np.uint8).reshape(count, 4)[:, :3]
        return rgb.reshape(*shape, 3).copy(), ids.reshape(shape).copy()

    def shoot(self, film: Film) -> Shot:
        """All frames; of a fixed camera only what differs from the first."""
        return Shot(*drawn_in_windows(film, self.render, changed_window), self.owners)

    def reshoot(self, shot: Shot, old: Film, new: Film) -> Shot:
        """A shot with the windows rendered anew in which `new` looks other than `old`."""
        return Shot(*redrawn_in_windows((shot.rgb, shot.ids), old, new, self.render, changed_window), self.owners)
