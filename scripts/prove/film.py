# SPDX-License-Identifier: Apache-2.0
"""A film: a stage's meshes, where each of them is in every frame, and the camera. What any renderer needs and no more.

Nothing of the old painter is used here: no id, normal or depth map of the episode, only its poses and the stage's meshes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import trimesh
from pxr import Usd, UsdGeom, UsdShade

from retake.core.episode import Episode
from retake.core.geometry import inverse
from retake.usd.bodies import scenery_group
from retake.usd.stage import body_of
from retake.usd.units import StageUnits, world_pose

HIDDEN_M = -50.0
"""Height at which props wait that a frame does not show."""
PROPS = ("prop:second", "prop:shape", "prop:colour", "prop:finger")
"""Owners that planted faults use: a second packet, one of another shape, one of another colour, an extra finger."""


@dataclass(frozen=True)
class Item:
    """One mesh of one colour or texture."""

    owner: str
    """Prim path of the body or group of scenery it moves with; `set` and `prop:…` for what the bench adds."""
    name: str
    vertices: np.ndarray
    """(V, 3) float32, m, owner frame."""
    faces: np.ndarray
    """(F, 3) int32."""
    uv: np.ndarray
    """(V, 2) float32, m on the surface (planar)."""
    colour: tuple[float, float, float]
    """Linear RGB."""
    texture: np.ndarray | None = None
    """(h, w, 3) uint8 sRGB, repeating; replaces the colour."""
    repeat_m: float = 0.5
    """Length of one repetition."""
    gloss: float = 0.0
    """0 matt … 1 polished, for renderers that can."""
    metallic: float = 0.0
    """0 paint or plastic … 1 bare metal, for renderers that can."""


@dataclass(frozen=True, eq=False)
class Lamp:
    """A light that casts shadows, for renderers that take several."""

    at: tuple[float, float, float]
    """Where it hangs, m, world."""
    towards: tuple[float, float, float]
    """The point it looks at."""
    colour: tuple[float, float, float]
    """Linear RGB; the irradiance at the point it looks at, before the angle of incidence, is pi times this."""
    cone_deg: float = 0.0
    """Half its opening; 0 is parallel light."""
    soft: float = 0.0
    """Share of the cone over which it fades out."""
    gobo: np.ndarray | None = None
    """(h, w, 3) uint8 sRGB that it projects; white lets all light through."""


@dataclass(frozen=True)
class Film:
    """T frames. Poses are T_world_owner (T, 4, 4); owners without one stand still at the identity."""

    items: tuple[Item, ...]
    poses: dict[str, np.ndarray]
    K: np.ndarray
    """(T, 3, 3) px, corner convention."""
    T_camera_world: np.ndarray
    """(T, 4, 4)."""
    size: tuple[int, int]
    robots: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Robot name -> owners of its links."""
    task_object: str = ""
    target: str = ""
    """Owners of the object that is carried and of the tray."""
    sun: tuple[float, float, float] = (-0.4, 0.5, -0.77)
    """Direction in which the light shines."""
    sun_colour: tuple[float, float, float] = (0.7, 0.7, 0.7)
    sky: tuple[float, float, float] = (0.3, 0.3, 0.32)
    sway_deg: float = 0.0
    """How far the light swings about the vertical during the film, for renderers that can."""
    lamps: tuple[Lamp, ...] = ()
    """In place of the sun, for renderers that take several lights."""
    tone: str = ""
    """How radiance becomes a picture, for renderers that know several curves."""

    def __len__(self) -> int:
        return len(self.K)

    @property
    def owners(self) -> tuple[str, ...]:
        """All owners in order; a pixel's id is the index + 1."""
        return tuple(dict.fromkeys(item.owner for item in self.items))

    @property
    def arm(self) -> str:
        """Name of the robot that works: the one with most links."""
        return max(self.robots, key=lambda name: len(self.robots[name]))

    def pose(self, owner: str, t: int) -> np.ndarray:
        """T_world_owner at a frame."""
        return self.poses[owner][t] if owner in self.poses else np.eye(4)

    def moved(self, poses: dict[str, np.ndarray]) -> Film:
        """The same film with some owners elsewhere."""
        return replace(self, poses={**self.poses, **poses})

    def points(self, owner: str) -> np.ndarray:
        """Corners (8, 3) of an owner's own box, m."""
        every = np.concatenate([item.vertices for item in self.items if item.owner == owner])
        return np.stack(np.meshgrid(*np.stack([every.min(0), every.max(0)]).T, indexing="ij"), -1).reshape(8, 3)


def box(size: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a box around the origin, every side with its own vertices."""
    mesh = trimesh.creation.box(extents=size)
    return mesh.vertices[mesh.faces.ravel()].astype(np.float32), np.arange(len(mesh.faces) * 3, dtype=np.int32).reshape(
        -1, 3
    )


def flat_uv(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Planar coordinates (V, 2) in m: along the two axes that the surface at a vertex mostly spans."""
    normal = np.zeros_like(vertices)
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for k in range(3):
        np.add.at(normal, faces[:, k], across)
    axis = np.abs(normal).argmax(1)
    pick = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    return np.take_along_axis(vertices, pick, 1).astype(np.float32)


def item(owner: str, name: str, vertices: np.ndarray, faces: np.ndarray, colour: tuple) -> Item:
    """An Item with planar texture coordinates."""
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
    return Item(owner, name, vertices, faces, flat_uv(vertices, faces), colour)


def read_items(stage: Usd.Stage) -> tuple[list[Item], dict[str, np.ndarray]]:
    """Every visible gprim of a stage (metres), and the poses of the owners of scenery as authored."""
    units = StageUnits.of(stage)
    cache = UsdGeom.XformCache(Usd.TimeCode.Default())
    items, fixed = [], {}
    for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()):
        if not prim.IsA(UsdGeom.Gprim):
            continue
        image = UsdGeom.Imageable(prim)
        if image.ComputePurpose() not in ("default", "render") or image.ComputeVisibility() == "invisible":
            continue
        shape = _triangles(prim)
        if shape is None:
            continue
        body = body_of(prim)
        owner = scenery_group(prim) if body is None else body
        T_owner = world_pose(owner, units)
        M = np.array(cache.GetLocalToWorldTransform(prim)).T
        world = (shape[0] @ M[:3, :3].T + M[:3, 3]) @ units.R_world_stage.T * units.metres_per_unit
        local = (world - T_owner[:3, 3]) @ T_owner[:3, :3]
        faces = shape[1] if np.linalg.det(M[:3, :3]) > 0 else shape[1][:, ::-1]
        path = str(owner.GetPath())
        items.append(item(path, str(prim.GetPath()), local, faces, _colour(prim)))
        if body is None:
            fixed[path] = T_owner
    return items, fixed


def _triangles(prim: Usd.Prim) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices in the prim's own frame and outward triangles; None for what is no surface."""
    turn = {"X": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), "Y": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])}
    if prim.IsA(UsdGeom.Mesh):
        mesh = UsdGeom.Mesh(prim)
        points, counts = mesh.GetPointsAttr().Get(), np.array(mesh.GetFaceVertexCountsAttr().Get())
        index = np.array(mesh.GetFaceVertexIndicesAttr().Get())
        if points is None or not len(counts):
            return None
        faces, start = [], 0
        for count in counts:
            corner = index[start : start + count]
            faces += [[corner[0], corner[k], corner[k + 1]] for k in range(1, count - 1)]
            start += count
        triangles = np.array(faces, np.int32)
        left = mesh.GetOrientationAttr().Get() == "leftHanded"
        return np.array(points, np.float64), triangles[:, ::-1] if left else triangles
    if prim.IsA(UsdGeom.Cube):
        edge = float(UsdGeom.Cube(prim).GetSizeAttr().Get())
        vertices, faces = box((edge, edge, edge))
        return vertices.astype(np.float64), faces
    made = None
    if prim.IsA(UsdGeom.Cylinder):
        shape = UsdGeom.Cylinder(prim)
        made = trimesh.creation.cylinder(radius=shape.GetRadiusAttr().Get(), height=shape.GetHeightAttr().Get())
    elif prim.IsA(UsdGeom.Capsule):
        shape = UsdGeom.Capsule(prim)
        made = trimesh.creation.capsule(radius=shape.GetRadiusAttr().Get(), height=shape.GetHeightAttr().Get())
        made.apply_translation([0, 0, -made.bounds.mean(0)[2]])
    elif prim.IsA(UsdGeom.Sphere):
        made = trimesh.creation.icosphere(radius=UsdGeom.Sphere(prim).GetRadiusAttr().Get())
    if made is None:
        return None
    vertices = np.array(made.vertices)
    axis = shape.GetAxisAttr().Get() if not prim.IsA(UsdGeom.Sphere) else "Z"
    return (vertices @ turn[axis].T if axis in turn else vertices), np.array(made.faces, np.int32)


def _colour(prim: Usd.Prim) -> tuple[float, float, float]:
    """Diffuse colour of the bound preview surface, else the display colour, else grey."""
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    surface = material.ComputeSurfaceSource()[0] if material else None
    if surface and (value := surface.GetInput("diffuseColor")) and value.Get() is not None:
        red, green, blue = (float(x) for x in value.Get())
        return red, green, blue
    shown = UsdGeom.Gprim(prim).GetDisplayColorAttr().Get()
    red, green, blue = (float(x) for x in shown[0]) if shown else (0.5, 0.5, 0.5)
    return red, green, blue


def film_of(episode: Episode, stage: Usd.Stage, camera: str, frames: int | None = None) -> Film:
    """The film of an episode's camera. `stage` is the stage as it was varied for the recording, in metres."""
    count = len(episode) if frames is None else frames
    items, fixed = read_items(stage)
    poses = {path: np.broadcast_to(T, (count, 4, 4)) for path, T in fixed.items()}
    robots = {}
    for robot in episode.header.robots:
        every = episode.link_poses(robot.name)[:count]
        robots[robot.name] = tuple(link.prim_path for link in robot.links)
        poses |= {link.prim_path: every[:, k] for k, link in enumerate(robot.links)}
    objects = episode.header.objects
    for k, spec in enumerate(objects):
        if spec.movable:
            poses[spec.prim_path] = episode.object_poses[:count, k]
    task = episode.header.settings.get("task", {})
    by_name = {o.name: o.prim_path for o in objects}
    K, T = episode.camera_matrices(camera)
    film = Film(
        tuple(items), poses, K[:count], T[:count], episode.header.camera(camera).size, robots,
        by_name.get(task.get("object", ""), next((o.prim_path for o in objects if o.movable), "")),
        by_name.get(task.get("target", ""), next((o.prim_path for o in objects if not o.movable), by_name.get("Tray", ""))),
    )  # fmt: skip
    return _with_props(film)


def _with_props(film: Film) -> Film:
    """Adds the owners that planted faults show, out of sight."""
    mine = [i for i in film.items if i.owner == film.task_object]
    extra: list[Item] = []
    if mine:
        size = np.ptp(film.points(film.task_object), axis=0)
        radius = float(max(size[:2]) / 2)
        can = trimesh.creation.cylinder(radius=radius, height=float(size[2]))
        middle = film.points(film.task_object).mean(0)
        extra += [replace(i, owner="prop:second", name=f"second{k}") for k, i in enumerate(mine)]
        extra += [replace(i, owner="prop:colour", name=f"colour{k}") for k, i in enumerate(mine)]
        extra.append(item("prop:shape", "shape", can.vertices + middle, can.faces, mine[0].colour))
    fingers = [o for o in film.robots[film.arm] if any(i.owner == o for i in film.items)][-1:]
    extra += [
        replace(i, owner="prop:finger", name=f"finger{k}") for k, i in enumerate(film.items) if i.owner in fingers
    ]
    away = np.eye(4)
    away[2, 3] = HIDDEN_M
    hidden = np.broadcast_to(away, (len(film), 4, 4))
    names = dict.fromkeys(i.owner for i in extra)
    return replace(film, items=(*film.items, *extra), poses={**film.poses, **dict.fromkeys(names, hidden)})


Window = tuple[int, int, int, int]
"""x0, y0, x1, y1, px."""
Picture = tuple[np.ndarray, np.ndarray]
"""Colours (h, w, 3) uint8 and ids (h, w) uint8, or those of many frames."""


def project(film: Film, points: np.ndarray, t: int) -> np.ndarray:
    """World points (N, 3) to pixels (M, 2) at a frame; those behind the camera are left out."""
    T = film.T_camera_world[t]
    p = points @ T[:3, :3].T + T[:3, 3]
    p = p[p[:, 2] > 0.02]
    uv = p @ film.K[t].T
    return uv[:, :2] / uv[:, 2:]


def changed_window(old: Film, new: Film, t: int, since: int | None = None, ground_z: float = 0.0) -> Window | None:
    """(x0, y0, x1, y1) around all that looks different at frame t of `new` from frame `since` (default t) of `old`: moved
    owners where they were and are, and the shadows they cast on the table. None where nothing moved."""
    before = t if since is None else since
    width, height = new.size
    found = []
    sun = np.array(new.sun) / np.linalg.norm(new.sun)
    for owner in new.owners:
        if np.abs(old.pose(owner, before) - new.pose(owner, t)).max() < 1e-6:
            continue
        for film, when in ((old, before), (new, t)):
            T = film.pose(owner, when)
            if T[2, 3] < HIDDEN_M / 2:
                continue
            corners = film.points(owner) @ T[:3, :3].T + T[:3, 3]
            drop = np.clip(corners[:, 2] - ground_z, 0, None) / max(-sun[2], 0.2)
            found.append(project(film, np.concatenate([corners, corners + drop[:, None] * sun]), t))
    found = [f for f in found if len(f)]
    if not found:
        return None
    every = np.concatenate(found)
    x0, y0 = np.maximum(np.floor(every.min(0)).astype(int) - 8, 0)
    x1, y1 = np.minimum(np.ceil(every.max(0)).astype(int) + 9, [width, height])
    return (int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else None


def drawn_in_windows(
    film: Film, render: Callable[[Film, int, Window | None], Picture], window_of: Callable[..., Window | None]
) -> Picture:
    """All frames of a film by a renderer of windows; of a fixed camera only what differs from the first frame.
    `window_of` is called as `changed_window` is."""
    still = np.abs(film.T_camera_world - film.T_camera_world[:1]).max() < 1e-6
    first = render(film, 0, None)
    rgb, ids = (np.repeat(part[None], len(film), axis=0) for part in first)
    for t in range(1, len(film)):
        if window := window_of(film, film, t, 0) if still else (0, 0, *film.size):
            x0, y0, x1, y1 = window
            rgb[t, y0:y1, x0:x1], ids[t, y0:y1, x0:x1] = render(film, t, window)
    return rgb, ids


def redrawn_in_windows(
    picture: Picture, old: Film, new: Film, render: Callable[[Film, int, Window | None], Picture],
    window_of: Callable[..., Window | None],
) -> Picture:  # fmt: skip
    """All frames of `old` with the windows drawn anew in which `new` looks other."""
    rgb, ids = (part.copy() for part in picture)
    for t in range(len(new)):
        if window := window_of(old, new, t):
            x0, y0, x1, y1 = window
            rgb[t, y0:y1, x0:x1], ids[t, y0:y1, x0:x1] = render(new, t, window)
    return rgb, ids


def camera_centre(film: Film, t: int) -> np.ndarray:
    """World position of the camera."""
    return inverse(film.T_camera_world[t])[:3, 3]
