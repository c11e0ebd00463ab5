# SPDX-License-Identifier: Apache-2.0
"""Ray-traced images of a simulation state: RGB, forward depth, world normals and instance ids from one pass.

A Renderer owns a model (its bounding volumes move with the state) and is used by one thread at a time; several of them
render different frames in parallel, because Warp's CPU kernels release the GIL. Rays come from Retake's own K.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdLux

from retake.core.array_types import Float32, Float64, UInt16
from retake.core.episode import CameraFrame, Instance, ObjectSpec, encode_normals
from retake.core.geometry import CV_FROM_USD, inverse, pose_from_wxyz, wxyz_from_rotation
from retake.newton.engine import load
from retake.newton.preset_values import Lighting
from retake.usd.articulation import Articulation
from retake.usd.bodies import scenery_group
from retake.usd.camera import StageCamera
from retake.usd.stage import body_of, label_of, one_pass, prims, start_time
from retake.usd.units import StageUnits

NO_SHAPE = 0xFFFFFFFF


@dataclass(frozen=True)
class InstanceMap:
    """Which instance every shape belongs to."""

    instances: tuple[Instance, ...]
    of_shape: UInt16[np.ndarray, "S"]
    """Instance id per shape index; one more entry, 0, for pixels that see nothing."""


def instance_map(
    stage: Usd.Stage, shape_paths: tuple[str, ...], robots: tuple[Articulation, ...], objects: tuple[ObjectSpec, ...]
) -> InstanceMap:
    """Instances of a stage: one per robot link, one per rigid object, one per group of scenery.

    `objects` are the episode's objects; a scenery group named there belongs to it.
    """
    owners = {link.prim_path: f"robot:{r.spec.name}" for r in robots for link in r.spec.links}
    owners |= {item.prim_path: f"object:{item.name}" for item in objects}
    ids: dict[str, Instance] = {}
    lut = np.zeros(len(shape_paths) + 1, np.uint16)
    with one_pass(stage):
        for shape, shape_path in enumerate(shape_paths):
            prim = stage.GetPrimAtPath(shape_path)
            if not prim:
                continue
            body = body_of(prim)
            owner = scenery_group(prim) if body is None else body
            path = str(owner.GetPath())
            if path not in ids:
                ids[path] = Instance(len(ids) + 1, path, label_of(owner), owners.get(path, ""))
            lut[shape] = ids[path].id
    return InstanceMap(tuple(ids.values()), lut)


def sun_direction(stage: Usd.Stage) -> Float64[np.ndarray, "3"]:
    """Unit direction in which the stage's first DistantLight shines (Z-up world); a default where there is none."""
    units = StageUnits.of(stage)
    cache = UsdGeom.XformCache(start_time(stage))
    for prim in prims(stage):
        if prim.IsA(UsdLux.DistantLight):
            shines = cache.GetLocalToWorldTransform(prim).TransformDir(Gf.Vec3d(0, 0, -1))
            v = units.R_world_stage @ np.array(shines)
            return v / np.linalg.norm(v)
    return np.array([-0.4, 0.5, -0.768]) / np.linalg.norm([-0.4, 0.5, -0.768])


class Renderer:
    """Renders states of one simulation for a set of cameras."""

    def __init__(
        self, builder: Any, cameras: tuple[StageCamera, ...], instances: InstanceMap, lighting: Lighting, sun: Any
    ) -> None:
        newton, wp = load()
        self._wp, sensor = wp, newton.sensors.SensorCamera
        with warnings.catch_warnings():
            # What it has to say the simulator's model has said: both come from one builder.
            warnings.simplefilter("ignore")
            self._model = builder.finalize(device="cpu")
        self._state = self._model.state()
        self._sensor = sensor(self._model)
        self._sensor.create_default_light(enable_shadows=True, direction=wp.vec3f(*map(float, sun)), color=lighting.sun)
        self._sensor.set_ambient_light(lighting.sky, lighting.ground)
        r, g, b = lighting.background
        # Alpha stays 0: with it the packed constant exceeds 31 bits and Warp's compiler warns on the terminal.
        self._clear = sensor.ClearData(clear_color=b << 16 | g << 8 | r)
        self._config = sensor.RenderConfig(enable_shadows=True, enable_textures=True)
        self._instances = instances.of_shape
        self._bodies = {label: i for i, label in enumerate(builder.body_label)}
        self.cameras = cameras
        self._views = [self._view(camera) for camera in cameras]

    def _view(self, camera: StageCamera) -> tuple[Any, dict[str, Any]]:
        """Rays and output buffers."""
        width, height = camera.size
        s = self._sensor
        return self._rays(camera), {
            "color_image": s.allocate_image_color(1, width, height),
            "forward_depth_image": s.allocate_image_depth_forward(1, width, height),
            "shape_index_image": s.allocate_image_shape_index(1, width, height),
            "normal_image": s.allocate_image_normal(1, width, height),
        }

    def _rays(self, camera: StageCamera) -> Any:
        """Rays (in USD camera axes) through pixel centres."""
        width, height = camera.size
        seen = camera.camera().rays()
        rays = np.zeros((height, width, 1, 2, 3), np.float32)
        direction = np.stack([seen[..., 0], -seen[..., 1], -np.ones((height, width))], -1)
        rays[:, :, 0, 1] = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        return self._wp.array(rays, dtype=self._wp.vec3f, device="cpu")

    def render(self, body_q: Float32[np.ndarray, "B 7"], frame: int = 0) -> tuple[CameraFrame, ...]:
        """Images of every camera for body poses x y z qx qy qz qw (m), cameras that move by themselves as at a frame."""
        wp = self._wp
        self._state.body_q.assign(body_q)
        self._model.bvh_refit_shapes(self._state)
        frames = []
        for steady, (rays, images) in zip(self.cameras, self._views, strict=True):
            camera = steady.at(frame)
            if camera is not steady:
                rays = self._rays(camera)
            T_world_camera = camera_pose(camera, self._bodies, body_q)
            T_usd = T_world_camera @ CV_FROM_USD
            w, x, y, z = wxyz_from_rotation(T_usd[:3, :3])
            transforms = wp.array([[*T_usd[:3, 3], x, y, z, w]], dtype=wp.transformf, device="cpu")
            self._sensor.update(
                self._state, transforms, rays, render_config=self._config, clear_data=self._clear, **images
            )
            frames.append(self._frame(camera, T_world_camera, images))
        return tuple(frames)

    def _frame(
        self, camera: StageCamera, T_world_camera: Float64[np.ndarray, "4 4"], images: dict[str, Any]
    ) -> CameraFrame:
        width, height = camera.size
        packed = images["color_image"].numpy()[0]
        rgb = packed.view(np.uint8).reshape(height, width, 4)[..., :3].copy()
        depth = np.nan_to_num(images["forward_depth_image"].numpy()[0], posinf=0.0, neginf=0.0).astype(np.float32)
        shape = images["shape_index_image"].numpy()[0]
        nothing = shape == NO_SHAPE
        shape = np.where(nothing, len(self._instances) - 1, shape)
        normals = encode_normals(images["normal_image"].numpy()[0])
        depth[nothing] = 0.0
        normals[nothing] = 0
        return CameraFrame(camera.K, inverse(T_world_camera), rgb, depth, normals, self._instances[shape], camera.lens)


def camera_pose(
    camera: StageCamera, bodies: dict[str, int], body_q: Float32[np.ndarray, "B 7"]
) -> Float64[np.ndarray, "4 4"]:
    """T_world_camera (OpenCV axes, m) of a fixed or body-mounted camera for body poses x y z qx qy qz qw."""
    if camera.body_path is None:
        return camera.T_world_camera
    q = np.asarray(body_q[bodies[camera.body_path]], np.float64)
    return pose_from_wxyz(q[:3], q[[6, 3, 4, 5]]) @ camera.T_body_camera
