# SPDX-License-Identifier: Apache-2.0
"""Restaging: the simulated frame as it would have been recorded had the movable objects the shapes that a world gives them.

Each shape is drawn at the object's simulated pose, behind everything that the simulation shows in front of the object.
What the object's box covered and the shape does not is scenery again: the surface next to it goes on below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, Int16, UInt16
from retake.core.camera import Camera
from retake.core.episode import EpisodeHeader
from retake.core.geometry import inverse
from retake.core.painter.planes import blocks, by_id, dot_of, turned
from retake.core.painter.shapes import axes_of, mesh_of
from retake.core.variants.base import SourceFrame
from retake.core.variants.roles import ROBOT, Roles

NEAR_M = 0.02
_SUBPIXEL = 4


@dataclass(frozen=True, eq=False)
class Body:
    """A shape in an object's frame, m."""

    vertices: Float32[np.ndarray, "V 3"]
    normals: Float32[np.ndarray, "V 3"]
    faces: np.ndarray

    @staticmethod
    def of(shape: str, size_m: tuple[float, float, float], center_m: tuple[float, float, float]) -> Body:
        """A shape that fills an object's box. Raises VariantError for an unknown shape."""
        mesh = mesh_of(shape)
        axes = axes_of(shape, size_m)
        half = np.maximum(np.array(size_m, np.float32), 1e-4) / 2
        vertices, normals = np.empty_like(mesh.vertices), np.empty_like(mesh.normals)
        for own, axis in enumerate(axes):
            vertices[:, axis] = mesh.vertices[:, own] * half[axis]
            normals[:, axis] = mesh.normals[:, own] / half[axis]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        # A permutation of the axes may mirror the mesh; both sides of its triangles are drawn, so only normals matter.
        return Body(vertices + np.array(center_m, np.float32), normals, mesh.faces)


def looks_of(header: EpisodeHeader, task_object: int, recipe: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Movable object → the subject of the recipe that it is shown as."""
    others = list(recipe.get("others", [])) or [recipe["subject"]]
    return {
        index: recipe["subject"] if index == task_object else others[index % len(others)]
        for index, spec in enumerate(header.objects)
        if spec.movable
    }


def bodies_of(header: EpisodeHeader, task_object: int, recipe: Mapping[str, Any]) -> dict[int, Body]:
    """Movable object → its shape; objects whose subject names none keep the simulated one. Raises VariantError for an
    unknown shape."""
    return {
        index: Body.of(str(look["shape"]), header.objects[index].size_m, header.objects[index].center_m)
        for index, look in looks_of(header, task_object, recipe).items()
        if look.get("shape")
    }


@dataclass(frozen=True, eq=False)
class Placement:
    """Where one frame shows shapes in place of their boxes, and where scenery goes on that a box had covered.

    Its methods take an image as it was recorded and return another one, with the shapes.
    """

    camera: Camera
    shown: tuple[tuple[_Drawn, Bool[np.ndarray, "h w"]], ...]
    """Each body that is seen, and where in its window."""
    taken: tuple[np.ndarray, np.ndarray] | None
    """(flat indices of pixels that are scenery again, those of the pixels that they are taken from)."""

    def carried(self, own: np.ndarray) -> np.ndarray:
        """Ids or a picture: a shape has those of its box, scenery goes on (H, W) or (H, W, C)."""
        out = own.copy()
        if self.taken is not None:
            pixels(out)[self.taken[0]] = pixels(own).take(self.taken[1])
        return out

    def normals(self, own: Int16[np.ndarray, "H W 3"]) -> Int16[np.ndarray, "H W 3"]:
        """World normals × 32767."""
        out = self.carried(own)
        for at, _, normals in self._surfaces:
            out.reshape(-1, 3)[at] = normals
        return out

    def depth(
        self, own: Float32[np.ndarray, "H W"], normals: Callable[[], Int16[np.ndarray, "H W 3"]]
    ) -> Float32[np.ndarray, "H W"]:
        """Forward depth, m. The recorded normals are asked for where scenery goes on alone."""
        out = own.copy()
        for at, z, _ in self._surfaces:
            out.reshape(-1)[at] = z
        if self.taken is not None:
            out.reshape(-1)[self.taken[0]] = _planes(self.camera, own, normals(), *self.taken)
        return out

    @cached_property
    def _surfaces(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(flat indices, forward depths, normals × 32767) of each body that is seen."""
        out = []
        for drawn, mask in self.shown:
            z, normal = drawn.surface(mask)
            out.append((drawn.flat(mask), z, np.round(normal * 32767).astype(np.int16)))
        return out


def placed(
    header: EpisodeHeader, roles: Roles, bodies: Mapping[int, Body], ids: UInt16[np.ndarray, "H W"], camera: Camera,
    T_world_object: Float64[np.ndarray, "O 4 4"],
) -> Placement | None:  # fmt: skip
    """Where a frame shows the bodies (object index → shape), from its instance ids; None where it shows none of them."""
    owner = owners(header, bodies)
    freed = by_id(owner >= 0, ids)
    if not freed.any():
        return None
    shown = []
    for index, body in bodies.items():
        mine = by_id(owner == index, ids)
        if mine.any():
            drawn = _draw(body, T_world_object[index], camera)
            # Seen where the simulation shows the object; a shape never reaches beyond its box.
            shown.append((drawn, mine[drawn.window] & (drawn.faces >= 0)))
            freed[drawn.window][shown[-1][1]] = False
    known = by_id(_scenery(header, roles) & (owner < 0), ids)
    return Placement(camera, tuple(shown), _beside(freed, known) if freed.any() else None)


def restaged(source: SourceFrame, roles: Roles, bodies: Mapping[int, Body]) -> SourceFrame:
    """The frame with the bodies (object index → shape) in place of the objects' boxes; `source` itself where none is seen."""
    at = placed(source.header, roles, bodies, source.instance_ids, source.camera, source.T_world_object)
    if at is None:
        return source
    return replace(
        source,
        rgb=at.carried(source.rgb),
        instance_ids=at.carried(source.instance_ids),
        depth_m=at.depth(source.depth_m, lambda: source.normals),
        normals=at.normals(source.normals),
    )


def owners(header: EpisodeHeader, bodies: Mapping[int, Body]) -> np.ndarray[Any, Any]:
    """Index of the object with a shape that an instance id belongs to, -1 for all others."""
    table = np.full(65536, -1, np.int32)
    of = {f"object:{header.objects[index].name}": index for index in bodies}
    for instance in header.instances:
        table[instance.id] = of.get(instance.owner, -1)
    return table


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A body in a window of the picture: which of its faces each pixel shows, -1 none."""

    body: Body
    T_world_object: np.ndarray
    width: int
    """Of the picture, px."""
    window: tuple[slice, slice]
    faces: np.ndarray[Any, Any]
    corners: np.ndarray
    """Vertex indices of the drawn faces (F, 3)."""
    uv: np.ndarray
    z: np.ndarray

    def flat(self, shown: Bool[np.ndarray, "h w"]) -> np.ndarray:
        """Flat indices into the picture of those pixels of the window."""
        rows, columns = np.nonzero(shown)
        return (rows + self.window[0].start) * self.width + (columns + self.window[1].start)

    def surface(self, shown: Bool[np.ndarray, "h w"]) -> tuple[Float32[np.ndarray, "N"], Float32[np.ndarray, "N 3"]]:
        """(forward depth, world normals) of those pixels of the window, all of which show the body."""
        at = np.flatnonzero(shown)
        rows, columns = np.unravel_index(at, shown.shape)
        depth, normals = np.empty(len(at), np.float32), np.empty((3, len(at)), np.float32)
        for part in blocks(len(at)):
            depth[part], normals[:, part] = self._surface(rows[part], columns[part])
        return depth, normals.T

    def _surface(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(depth, normals as planes) of a block of pixels."""
        of = self.faces[rows, columns]
        corner = [own.take(of) for own in self.planes["corners"]]
        u, v = self.planes["uv"]
        x, y = columns + (0.5 + self.window[1].start), rows + (0.5 + self.window[0].start)
        (ax, ay), (bx, by), (cx, cy) = ((u.take(own) - x, v.take(own) - y) for own in corner)
        weight = np.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx])
        weight /= self.planes["area"].take(of)
        np.clip(weight, 0, 1, out=weight)
        weight /= np.maximum(weight[0] + weight[1] + weight[2], 1e-9)
        # Depth is linear in the picture as its inverse.
        for share, vertex in zip(weight, corner, strict=True):
            share /= self.z.take(vertex)
        inverse_depth = weight[0] + weight[1] + weight[2]
        weight /= inverse_depth
        own = np.zeros((3, len(of)))
        for share, vertex in zip(weight, corner, strict=True):
            for plane, values in zip(own, self.planes["normals"], strict=True):
                plane += share * values.take(vertex)
        n = turned(self.T_world_object[:3, :3], own)
        n /= np.maximum(np.sqrt(dot_of(n, n)), 1e-9)
        return 1 / inverse_depth, n

    @cached_property
    def planes(self) -> dict[str, np.ndarray]:
        """What is looked up for every pixel, axis by axis: corners, places of vertices, areas of faces, normals."""
        a, b, c = (self.uv[self.corners[:, k]] for k in range(3))
        return {
            "corners": np.ascontiguousarray(self.corners.T), "uv": np.ascontiguousarray(self.uv.T),
            "area": _cross(b - a, c - a), "normals": np.ascontiguousarray(self.body.normals.T),
        }  # fmt: skip


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _draw(body: Body, T_world_object: np.ndarray, camera: Camera) -> _Drawn:
    """Which face of a body each pixel shows. Only sides that face the camera are drawn, from far to near."""
    width, height = camera.size
    world = body.vertices @ T_world_object[:3, :3].T + T_world_object[:3, 3]
    uv, z = camera.project(world)
    corners = body.faces[(z[body.faces] > NEAR_M).all(1)]
    view = world[corners].mean(1) - inverse(camera.T_camera_world)[:3, 3]
    outward = (body.normals @ T_world_object[:3, :3].T)[corners].mean(1)
    area = _cross(uv[corners[:, 1]] - uv[corners[:, 0]], uv[corners[:, 2]] - uv[corners[:, 0]])
    corners = corners[((view * outward).sum(1) < 0) & (np.abs(area) > 1e-9)]
    nothing = _Drawn(
        body, T_world_object, width, (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.int32), corners, uv, z
    )
    if not len(corners):
        return nothing
    low, high = uv[corners.ravel()].min(0), uv[corners.ravel()].max(0)
    x0, y0 = max(0, int(low[0]) - 1), max(0, int(low[1]) - 1)
    x1, y1 = min(width, int(high[0]) + 2), min(height, int(high[1]) + 2)
    if x0 >= x1 or y0 >= y1:
        return nothing
    corners = corners[np.argsort(-z[corners].mean(1), kind="stable")]
    faces = np.full((y1 - y0, x1 - x0), -1, np.int32)
    limit = 8 * max(width, height)
    fixed = np.rint((np.clip(uv[corners], -limit, limit) - 0.5 - [x0, y0]) * (1 << _SUBPIXEL)).astype(np.int32)
    for k in range(len(corners)):
        cv2.fillConvexPoly(faces, fixed[k], k, cv2.LINE_8, _SUBPIXEL)
    return _Drawn(body, T_world_object, width, (slice(y0, y1), slice(x0, x1)), faces, corners, uv, z)


def pixels(image: np.ndarray) -> np.ndarray:
    """A contiguous image, flat, one item per pixel whatever its channels: taken and put in one piece, several times as fast."""
    return image.reshape(-1) if image.ndim == 2 else image.reshape(-1).view(f"V{image.shape[2] * image.itemsize}")


def _beside(freed: Bool[np.ndarray, "H W"], known: Bool[np.ndarray, "H W"]) -> tuple[np.ndarray, np.ndarray] | None:
    """(flat indices of freed pixels, those of the nearest known pixel of each); None where nothing is known."""
    rows, columns = np.nonzero(freed)
    y0, x0 = max(0, rows.min() - 24), max(0, columns.min() - 24)
    box = np.s_[y0 : rows.max() + 25, x0 : columns.max() + 25]
    if not known[box].any():
        y0, x0, box = 0, 0, np.s_[:, :]
        if not known.any():
            return None
    _, label = cv2.distanceTransformWithLabels(
        (~known[box]).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Labels count the known pixels in scan order, from 1.
    nearest = np.flatnonzero(known[box])[np.asarray(label, np.int64)[rows - y0, columns - x0] - 1]
    from_rows, from_columns = np.divmod(nearest, known[box].shape[1])
    width = known.shape[1]
    return rows * width + columns, (from_rows + y0) * width + (from_columns + x0)


def _planes(
    camera: Camera, depth_m: np.ndarray, normals: np.ndarray, where: np.ndarray, origin: np.ndarray
) -> Float32[np.ndarray, "N"]:
    """Forward depths at freed pixels of the planes that the pixels next to them lie in; 0 behind everything."""
    n_camera = turned(camera.T_camera_world[:3, :3], normals.reshape(-1, 3)[origin].T / 32767)
    far = depth_m.reshape(-1)[origin].astype(np.float64)
    there, here = (camera.rays_at(*np.divmod(at, camera.size[0])).T for at in (origin, where))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = far * (there[0] * n_camera[0] + there[1] * n_camera[1] + n_camera[2])
        t /= here[0] * n_camera[0] + here[1] * n_camera[1] + n_camera[2]
    good = np.isfinite(t) & (t > 0.3 * far) & (t < 3 * far)
    return np.where(far > 0, np.where(good, t, far), 0).astype(np.float32)


def _scenery(header: EpisodeHeader, roles: Roles) -> Bool[np.ndarray, "65536"]:
    """Ids of what may go on behind an object: scenery, and articulations without fingers (cabinets); never a gripper."""
    still = [robot.name for robot in header.robots if not any(gripper.finger_joints for gripper in robot.grippers)]
    table = roles.role < ROBOT
    table[[i.id for i in header.instances if i.owner in {f"robot:{name}" for name in still}]] = True
    return table
