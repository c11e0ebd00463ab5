# SPDX-License-Identifier: Apache-2.0
"""A look put on the embedded simulator's renderer: a dressed copy of the scene, from which nothing is ever simulated.

The simulator's own builder stays as it was; a dressed copy makes the renderer's model, so a look cannot reach the physics.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.geometry import axis_angle, transform
from retake.core.variants.base import SourceFrame
from retake.core.variants.roles import BACKGROUND, CONTAINER, FIXTURE, ROBOT, SUBJECT, SURFACE, Roles, find_roles
from retake.loop.looks import Look, Pattern
from retake.loop.textures import picture, rgb
from retake.newton.engine import load
from retake.newton.renderer import InstanceMap, Lighting
from retake.usd.camera import StageCamera

PART_OF_ROLE = {
    BACKGROUND: "background", SURFACE: "surface", CONTAINER: "container", FIXTURE: "fixture", ROBOT: "robot",
    SUBJECT: "object",
}  # fmt: skip
WALLS_M, WALL_HEIGHT_M = 3.5, 1.8
"""Walls of a backdrop stand this far from the work surface's middle, and reach this far above it: a sun higher than 27°
casts no shadow of theirs on it."""
CLEAR_M = 0.13
"""Distractors keep this far from the task's objects and from the robots' bases."""
PALETTE = ("#c0392b", "#2471a3", "#229954", "#d4ac0d", "#7d3c98", "#ca6f1e", "#17a589", "#d7dbdd", "#212f3c")


def dressed_lighting(look: Look, lighting: Lighting) -> Lighting:
    """The preset's light with the look's changes."""
    parts = {name: getattr(look, name) for name in ("sun", "sky", "ground") if getattr(look, name)}
    return replace(lighting, **parts)


def dressed_sun(look: Look, sun: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    """Where the sun shines, unit vector."""
    if not look.sun_direction:
        return sun
    given = np.array(look.sun_direction)
    return given / np.linalg.norm(given)


def dressed_camera(look: Look, camera: StageCamera) -> StageCamera:
    """A fixed camera moved and turned about its own axes; one on a body stays, for the body's motion is the robot's."""
    if camera.body_path is not None or not (look.camera_offset_m or look.camera_turn_deg):
        return camera
    T = np.eye(4)
    for axis, degrees in zip(np.eye(3), look.camera_turn_deg or (0.0, 0.0, 0.0), strict=True):
        T[:3, :3] = T[:3, :3] @ axis_angle(axis, np.radians(np.float64(degrees)))
    T[:3, 3] = look.camera_offset_m or (0.0, 0.0, 0.0)
    return replace(
        camera,
        T_world_camera=camera.T_world_camera @ T,
        T_body_camera=camera.T_body_camera @ T,
        frames=tuple(dressed_camera(look, one) for one in camera.frames),
    )


def dressed_scene(
    builder: Any, instances: InstanceMap, look: Look, source: SourceFrame, bases_m: Sequence[np.ndarray], seed: int
) -> tuple[Any, InstanceMap]:
    """(builder, instances) to render a look from. `source`: the unchanged first picture, which says what is what.

    `bases_m`: where robots stand; `seed` places the distractors.
    """
    if not (look.colours or look.textures or look.backdrop or look.distractors):
        return builder, instances
    newton, wp = load()
    scene = _copied(builder)
    roles = find_roles(source)
    for shape, instance in enumerate(instances.of_shape[:-1]):
        part = PART_OF_ROLE[int(roles.role[instance])] if instance else ""
        if part in look.textures:
            _texture(newton, wp, scene, shape, look.textures[part])
        elif part in look.colours:
            _colour(newton, wp, scene, shape, look.colours[part], shade=part == "robot")
    config = newton.ModelBuilder.ShapeConfig(has_shape_collision=False, has_particle_collision=False, density=0.0)
    if look.backdrop is not None:
        _walls(newton, wp, scene, config, roles, look.backdrop)
    if look.distractors:
        rng = np.random.default_rng([seed, zlib.crc32(look.name.encode())])
        places = _places(roles, source, bases_m, look.distractors, rng)
        _distractors(wp, scene, config, places, roles.support_z, rng)
    added = len(scene.shape_type) - len(builder.shape_type)
    of_shape = np.concatenate([instances.of_shape[:-1], np.zeros(added + 1, np.uint16)])
    return scene, InstanceMap(instances.instances, of_shape)


def _copied(builder: Any) -> Any:
    """A builder whose lists are its own; meshes are shared, and replaced instead of changed."""
    scene = copy.copy(builder)
    for name, value in vars(builder).items():
        if isinstance(value, list):
            setattr(scene, name, list(value))
        elif isinstance(value, dict):
            setattr(scene, name, {k: list(v) if isinstance(v, list) else v for k, v in value.items()})
    return scene


def _colour(newton: Any, wp: Any, scene: Any, shape: int, colour: str, *, shade: bool) -> None:
    """One colour instead of what is there; with `shade` the shapes of a thing keep their differences in brightness."""
    values = np.array(rgb(colour)) / 255
    if shade:
        values = values * min(1.0, max(map(float, scene.shape_color[shape])))
    scene.shape_color[shape] = tuple(float(v) for v in values)
    source = scene.shape_source[shape]
    if isinstance(source, newton.Mesh) and source.texture is not None:
        scene.shape_source[shape] = _mesh(newton, source.vertices, source.indices, source.normals, None)


def _texture(newton: Any, wp: Any, scene: Any, shape: int, pattern: Pattern) -> None:
    """A pattern laid over a box or a mesh along its own axes; other shapes (spheres, capsules) take its first colour."""
    source, image = scene.shape_source[shape], picture(pattern)
    if int(scene.shape_type[shape]) == int(newton.GeoType.BOX):
        half = np.array([float(v) for v in scene.shape_scale[shape]])
        vertices, faces = _box(half)
        scene.shape_source[shape] = _mesh(newton, vertices, faces, None, image)
        scene.shape_type[shape], scene.shape_scale[shape] = newton.GeoType.MESH, wp.vec3(1.0, 1.0, 1.0)
    elif isinstance(source, newton.Mesh):
        scene.shape_source[shape] = _mesh(newton, source.vertices, source.indices, None, image)
    else:
        _colour(newton, wp, scene, shape, pattern.colours[0], shade=False)
        return
    scene.shape_color[shape] = (1.0, 1.0, 1.0)


def _mesh(newton: Any, vertices: Any, faces: Any, normals: Any, texture: np.ndarray | None) -> Any:
    """Without texture coordinates: the renderer then projects the picture along the axes, one to the metre."""
    image = None if texture is None else np.ascontiguousarray(texture)
    return newton.Mesh(
        np.asarray(vertices, np.float32), np.asarray(faces, np.int32).ravel(), normals=normals, compute_inertia=False,
        texture=image,
    )  # fmt: skip


def _box(half: Float64[np.ndarray, "3"]) -> tuple[np.ndarray, np.ndarray]:
    """Corners and triangles, outward; faces share no corners, so their edges stay sharp."""
    corners, faces = [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1.0, 1.0):
            first = len(corners)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[axis], corner[u], corner[v] = side, a, b
                corners.append(corner * half)
            quad = [first, first + 1, first + 2, first, first + 2, first + 3]
            faces += quad if side > 0 else quad[::-1]
    return np.array(corners, np.float32), np.array(faces, np.int32)


def _walls(newton: Any, wp: Any, scene: Any, config: Any, roles: Roles, pattern: Pattern) -> None:
    x, y = roles.anchor.center
    low, high = roles.anchor.floor_z, roles.support_z + WALL_HEIGHT_M
    for axis in (0, 1):
        for side in (-1, 1):
            middle, half = np.array([x, y, (low + high) / 2]), np.array([WALLS_M, WALLS_M, (high - low) / 2])
            middle[axis] += side * WALLS_M
            half[axis] = 0.01
            vertices, faces = _box(half)
            scene.add_shape_mesh(
                -1, mesh=_mesh(newton, vertices, faces, None, picture(pattern)), cfg=config, color=(1.0, 1.0, 1.0),
                xform=wp.transform(wp.vec3(*map(float, middle)), wp.quat_identity()),
            )  # fmt: skip


def _places(
    roles: Roles, source: SourceFrame, bases_m: Sequence[np.ndarray], count: int, rng: np.random.Generator
) -> list[Float64[np.ndarray, "2"]]:
    """Visible points of the work surface, apart from the task's objects, the robots' bases and each other; as many as fit."""
    rows, columns = np.nonzero((roles.role[source.instance_ids] == SURFACE) & (source.depth_m > 0))
    if not len(rows):
        return []
    uv = np.stack([columns + 0.5, rows + 0.5], -1)
    points = source.camera.unproject(uv, source.depth_m[rows, columns].astype(np.float64))[:, :2]
    taken = [
        transform(T, np.array(o.center_m))[:2]
        for o, T in zip(source.header.objects, source.T_world_object, strict=True)
    ]
    radii = [CLEAR_M / 2 + max(o.size_m[:2]) / 2 for o in source.header.objects]
    taken += [np.asarray(base)[:2] for base in bases_m]
    radii += [CLEAR_M] * len(bases_m)
    out: list[np.ndarray] = []
    for _ in range(60 * count):
        if len(out) == count:
            break
        point = points[int(rng.integers(len(points)))]
        if all(np.linalg.norm(point - t) > r + 0.03 for t, r in zip(taken, radii, strict=True)):
            out.append(point)
            taken.append(point)
            radii.append(0.05)
    return out


def _distractors(
    wp: Any, scene: Any, config: Any, places: Sequence[np.ndarray], support_z: float, rng: np.random.Generator
) -> None:
    for point in places:
        size = rng.uniform(0.018, 0.04, 3)
        colour = tuple(v / 255 for v in rgb(PALETTE[int(rng.integers(len(PALETTE)))]))
        turn = wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), float(rng.uniform(0, np.pi)))
        kind = int(rng.integers(3))
        height = float(size[2] if kind != 1 else size[0])
        at = wp.transform(wp.vec3(float(point[0]), float(point[1]), support_z + height), turn)
        if kind == 0:
            hx, hy, hz = map(float, size)
            scene.add_shape_box(-1, xform=at, hx=hx, hy=hy, hz=hz, cfg=config, color=colour)
        elif kind == 1:
            scene.add_shape_sphere(-1, xform=at, radius=height, cfg=config, color=colour)
        else:
            scene.add_shape_cylinder(-1, xform=at, radius=float(size[0]), half_height=height, cfg=config, color=colour)
