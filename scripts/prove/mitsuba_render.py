# SPDX-License-Identifier: Apache-2.0
"""The other end of `mitsuba_painter.py`, run by the path tracer's own interpreter: pickled requests in, pictures out."""

from __future__ import annotations

import os

import drjit as dr
import mitsuba as mi
import numpy as np
from painter_pipe import serve, take_answers

ANSWERS = take_answers()
mi.set_variant("llvm_ad_rgb")
dr.set_thread_count(int(os.environ.get("RETAKE_MITSUBA_THREADS", "1")))


class Stage:
    """One scene; owners' meshes are moved by writing their vertices."""

    def __init__(self, request: dict) -> None:
        self.owners = request["owners"]
        scene = {"type": "scene", "integrator": {"type": "path", "max_depth": 4}, "air": self._air(request["sky"])}
        self.names, self.local = [], []
        for k, item in enumerate(request["items"]):
            mesh = mi.Mesh(
                f"m{k}", len(item["vertices"]), len(item["faces"]), has_vertex_texcoords=True, props=self._look(item)
            )
            params = mi.traverse(mesh)
            params["vertex_positions"] = item["vertices"].ravel().astype(np.float32)
            params["faces"] = item["faces"].ravel().astype(np.uint32)
            params["vertex_texcoords"] = item["uv"].ravel().astype(np.float32)
            params.update()
            scene[f"m{k}"] = mesh
            self.names.append(f"m{k}")
            self.local.append((self.owners.index(item["owner"]), item["vertices"].astype(np.float64)))
        scene |= self._lamps(request)
        self.scene = mi.load_dict(scene)
        self.params = mi.traverse(self.scene)
        self.keys = {
            n: next(k for k, _ in self.params if k.split(".")[0] == n and k.endswith("vertex_positions"))
            for n in self.names
        }
        self.now: list = [None] * len(self.owners)
        self.ids = {}
        for shape in self.scene.shapes():
            name = shape.id()
            if name in self.names:
                self.ids[name] = shape
        pointers = mi.ShapePtr
        self.of_pointer = np.zeros(4096, np.uint8)
        for k, name in enumerate(self.names):
            register = int(np.array(dr.reinterpret_array(mi.UInt32, pointers(self.ids[name])))[0])
            self.of_pointer[register] = self.local[k][0] + 1

    @staticmethod
    def _air(sky: tuple) -> dict:
        return {"type": "constant", "radiance": {"type": "rgb", "value": [0.6 * float(c) for c in sky]}}

    @staticmethod
    def _look(item: dict) -> mi.Properties:
        if item["texture"] is None:
            colour = {"type": "rgb", "value": [float(np.clip(c, 0.01, 0.9)) for c in item["colour"]]}
        else:
            colour = {"type": "bitmap", "bitmap": mi.Bitmap(item["texture"]), "raw": False}
        if item["gloss"] > 0.15:
            bsdf = {"type": "roughplastic", "diffuse_reflectance": colour, "alpha": float(0.35 - 0.28 * item["gloss"])}
        else:
            bsdf = {"type": "diffuse", "reflectance": colour}
        props = mi.Properties()
        props["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": bsdf})
        return props

    @staticmethod
    def _lamps(request: dict) -> dict:
        """A large softbox where the sun stands, and a small warm lamp aside."""
        sun = np.array(request["sun"])
        at = np.array([0.45, 0.0, 0.1]) - 2.6 * sun / np.linalg.norm(sun)
        T = mi.ScalarTransform4f
        box = T().look_at(origin=at.tolist(), target=[0.45, 0.0, 0.1], up=[1, 0, 0.01]) @ T().scale([0.45, 0.45, 1])
        aside = T().look_at(origin=[1.8, -1.6, 1.9], target=[0.4, 0, 0], up=[0, 0, 1]) @ T().scale([0.2, 0.2, 1])
        power = [16.0 * float(c) for c in request["sun_colour"]]

        def area(to_world: mi.ScalarTransform4f, radiance: list[float]) -> dict:
            emitter = {"type": "area", "radiance": {"type": "rgb", "value": radiance}}
            return {"type": "rectangle", "to_world": to_world, "emitter": emitter}

        return {"softbox": area(box, power), "lamp": area(aside, [7.0, 6.0, 5.0])}

    def move(self, poses: list) -> None:
        """Write the vertices of owners whose pose (4, 4) changed."""
        moved = {k for k, T in enumerate(poses) if self.now[k] is None or np.abs(self.now[k] - T).max() > 1e-9}
        for name, (owner, vertices) in zip(self.names, self.local, strict=True):
            if owner in moved:
                T = poses[owner]
                self.params[self.keys[name]] = (vertices @ T[:3, :3].T + T[:3, 3]).ravel().astype(np.float32)
        if moved:
            self.params.update()
        self.now = list(poses)

    def picture(self, request: dict) -> dict:
        """Linear RGB of the crop at the traced size, ids of the window at full size."""
        self.move(request["poses"])
        K, T_camera_world, scale = request["K"], request["T_camera_world"], request["scale"]
        width, height = (n // scale for n in request["size"])
        full_w, full_h = request["size"]
        a0, b0, a1, b1 = request["crop"]
        T_world_camera = np.linalg.inv(T_camera_world) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        sensor = mi.load_dict({
            "type": "perspective", "to_world": mi.ScalarTransform4f(T_world_camera), "fov_axis": "x",
            "fov": float(np.degrees(2 * np.arctan(full_w / (2 * K[0, 0])))),
            "principal_point_offset_x": float((K[0, 2] - full_w / 2) / full_w),
            "principal_point_offset_y": float((K[1, 2] - full_h / 2) / full_h), "near_clip": 0.01, "far_clip": 50.0,
            "film": {"type": "hdrfilm", "width": width, "height": height, "crop_offset_x": a0, "crop_offset_y": b0,
                     "crop_width": a1 - a0, "crop_height": b1 - b0, "rfilter": {"type": "box"}, "component_format": "float32"},
            "sampler": {"type": "independent"},
        })  # fmt: skip
        image = np.array(mi.render(self.scene, sensor=sensor, spp=request["samples"], seed=request["seed"]))[..., :3]
        x0, y0, x1, y1 = request["ids"]
        v, u = np.mgrid[y0:y1, x0:x1]
        way = np.stack([(u.ravel() + 0.5 - K[0, 2]) / K[0, 0], (v.ravel() + 0.5 - K[1, 2]) / K[1, 1], np.ones(u.size)])
        way = np.linalg.inv(T_camera_world)[:3, :3] @ (way / np.linalg.norm(way, axis=0))
        eye = np.linalg.inv(T_camera_world)[:3, 3]
        ray = mi.Ray3f(mi.Point3f(*map(float, eye)), mi.Vector3f(*(w.astype(np.float32) for w in way)))
        # What is no literal is not compiled in: the next frame uses the same kernel.
        dr.make_opaque(ray)
        hit = self.scene.ray_intersect_preliminary(ray, coherent=True)
        pointer = np.array(dr.reinterpret_array(mi.UInt32, hit.shape))
        pointer = np.where(np.array(hit.is_valid()), pointer, 0)
        return {"rgb": image, "ids": self.of_pointer[pointer].reshape(u.shape)}


if __name__ == "__main__":
    serve(ANSWERS, Stage)
