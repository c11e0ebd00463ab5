# SPDX-License-Identifier: Apache-2.0
"""The surfaces of a URDF's links: STL and OBJ meshes, boxes, cylinders, spheres (https://wiki.ros.org/urdf/XML/link).

A link's visual geometry is taken, or its collision geometry where no visual mesh can be read (COLLADA is not).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from retake.core.array_types import Float64, Int
from retake.core.errors import InputError
from retake.core.geometry import axis_angle, transform
from retake.core.robot import RobotSpec
from retake.core.urdf import read_urdf

READABLE = (".obj", ".stl")


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of one link, in its frame."""

    vertices: Float64[np.ndarray, "V 3"]
    """m."""
    faces: Int[np.ndarray, "F 3"]

    def points(self, count: int, rng: np.random.Generator) -> Float64[np.ndarray, "N 3"]:
        """Points spread evenly over the surface, m."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        if area.sum() <= 0:
            return self.vertices[:count]
        pick = rng.choice(len(area), count, p=area / area.sum())
        u, v = rng.random((2, count, 1))
        flip = u + v > 1
        u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
        return a[pick] + u * (b - a)[pick] + v * (c - a)[pick]


@dataclass(frozen=True, eq=False)
class RobotMeshes:
    """What was found for a robot's links."""

    surfaces: dict[str, Surface]
    """Link name -> surface; links without any geometry are not in it."""
    missing: tuple[str, ...]
    """Links whose geometry is named by the URDF and was not found or cannot be read."""


def read_meshes(urdf: Path, meshes: Path | None = None) -> RobotMeshes:
    """Surfaces of a URDF's links. Mesh files are looked for where the URDF names them, then by name under `meshes` (any
    folder depth, .obj or .stl whatever the URDF's own suffix). Raises InputError when no link has a surface, naming what
    was looked for."""
    root = ElementTree.parse(urdf).getroot()
    known = {} if meshes is None else _by_stem(meshes)
    surfaces: dict[str, Surface] = {}
    missing: list[str] = []
    wanted: list[str] = []
    for link in root.findall("link"):
        name, named = link.get("name", ""), False
        for kind in ("visual", "collision"):
            parts = [_surface(element, urdf, known, wanted) for element in link.findall(kind)]
            named |= bool(parts)
            found = [part for part in parts if part is not None]
            if found:
                surfaces[name] = _joined(found)
                break
        if named and name not in surfaces:
            missing.append(name)
    if not surfaces:
        where = urdf.parent if meshes is None else meshes
        raise InputError(
            f"{urdf} gives no link a surface that can be read: looked for {', '.join(sorted(set(wanted))[:6]) or 'meshes'} "
            f"under {where}; give a folder with these as .obj or .stl (--meshes DIR)"
        )
    return RobotMeshes(surfaces, tuple(missing))


def read_robot(urdf: Path | str, ee_link: str | None = None) -> RobotSpec:
    """The robot of a URDF with its end effectors found from joints and as much of its geometry as can be read, as on a stage.

    Raises InputError as `read_urdf`; meshes that cannot be read are done without.
    """
    path, points = Path(urdf), {}
    if ee_link is None:
        with suppress(InputError, OSError, ValueError, ElementTree.ParseError):
            points = {name: surface.vertices for name, surface in read_meshes(path).surfaces.items()}
    return read_urdf(path, ee_link, points)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected one with the robot's meshes as .obj or .stl")
    return {p.stem.lower(): p for p in sorted(folder.rglob("*"), reverse=True) if p.suffix.lower() in READABLE}


def _surface(element: ElementTree.Element, urdf: Path, known: dict[str, Path], wanted: list[str]) -> Surface | None:
    """One <visual> or <collision>, in the link's frame; None where its mesh cannot be had."""
    origin, shape = element.find("origin"), element.find("geometry")
    if shape is None or not len(shape):
        return None
    body = shape[0]
    if body.tag == "mesh":
        name = body.get("filename", "")
        wanted.append(Path(name).name)
        file = _locate(name, urdf, known)
        if file is None:
            return None
        vertices, faces = read_mesh(file)
        vertices = vertices * _numbers(body.get("scale", "1 1 1"))
        # A mesh found under another suffix may be in other units than the one that the scale was written for.
        if file.suffix.lower() != Path(name).suffix.lower() and np.ptp(vertices, axis=0).max() < 2e-3:
            vertices = vertices / _numbers(body.get("scale", "1 1 1"))
    elif body.tag == "box":
        vertices, faces = _box(_numbers(body.get("size", "0 0 0")))
    elif body.tag in ("cylinder", "sphere"):
        radius = float(body.get("radius", "0"))
        vertices, faces = _round(radius, float(body.get("length", "0")) if body.tag == "cylinder" else None)
    else:
        return None
    T = np.eye(4)
    if origin is not None:
        roll, pitch, yaw = _numbers(origin.get("rpy", "0 0 0"))
        x, y, z = np.eye(3)
        T[:3, :3] = axis_angle(z, yaw) @ axis_angle(y, pitch) @ axis_angle(x, roll)
        T[:3, 3] = _numbers(origin.get("xyz", "0 0 0"))
    return Surface(transform(T, vertices), faces)


def _locate(name: str, urdf: Path, known: dict[str, Path]) -> Path | None:
    """The file a mesh name means: beside the URDF or one of its parents, else by its stem among `known`."""
    relative = name.split("://", 1)[-1]
    if Path(relative).suffix.lower() in READABLE:
        for folder in (urdf.parent, *urdf.resolve().parents):
            if (folder / relative).is_file():
                return folder / relative
    return known.get(Path(relative).stem.lower())


def _numbers(text: str) -> Float64[np.ndarray, "3"]:
    return np.array([float(part) for part in text.split()])


def _joined(parts: list[Surface]) -> Surface:
    start = np.cumsum([0, *(len(p.vertices) for p in parts)])
    faces = [p.faces + begin for p, begin in zip(parts, start, strict=False)]
    return Surface(np.concatenate([p.vertices for p in parts]), np.concatenate(faces).astype(np.int64))


def _box(size: Float64[np.ndarray, "3"]) -> tuple[np.ndarray, np.ndarray]:
    corners = np.stack(np.meshgrid(*[[-s / 2, s / 2] for s in size], indexing="ij"), -1).reshape(8, 3)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int64)


def _round(radius: float, length: float | None, sides: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A cylinder along Z, or a sphere (no length)."""
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    if length is None:
        rings = [(radius * np.sin(p), radius * np.cos(p)) for p in np.linspace(0, np.pi, sides // 2 + 1)]
    else:
        rings = [(0.0, -length / 2), (radius, -length / 2), (radius, length / 2), (0.0, length / 2)]
    points = np.concatenate([np.c_[r * np.cos(angle), r * np.sin(angle), np.full(sides, z)] for r, z in rings])
    faces = []
    for ring in range(len(rings) - 1):
        for k in range(sides):
            a, b = ring * sides + k, ring * sides + (k + 1) % sides
            faces += [(a, b, b + sides), (a, b + sides, a + sides)]
    return points, np.array(faces, np.int64)


def read_mesh(path: Path) -> tuple[Float64[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Vertices (the file's unit) and triangles of an .obj or .stl file. Raises InputError for anything else."""
    data = path.read_bytes()
    try:
        vertices, faces = _obj(data) if path.suffix.lower() == ".obj" else _stl(data)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} cannot be read as a mesh: {error}") from error
    if not len(faces) or not np.isfinite(vertices).all():
        raise InputError(f"{path} holds {len(faces)} triangles; expected a surface of finite points")
    return vertices, faces


def _obj(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = [], []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(w) for w in words[1:4]])
        elif words[:1] == ["f"]:
            corner = [int(w.split("/")[0]) for w in words[1:]]
            corner = [c - 1 if c > 0 else len(vertices) + c for c in corner]
            faces += [(corner[0], corner[k], corner[k + 1]) for k in range(1, len(corner) - 1)]
    out = np.array(faces, np.int64).reshape(-1, 3)
    if len(out) and not 0 <= out.min() <= out.max() < len(vertices):
        raise ValueError("a face names a vertex that is not there")
    return np.array(vertices, np.float64).reshape(-1, 3), out


def _stl(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if len(data) == 84 + 50 * count:
        kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        corners = np.frombuffer(data, kind, count, 84)["corners"].reshape(-1, 3).astype(np.float64)
    else:
        words = data.decode("ascii", "replace").split()
        at = [i for i, w in enumerate(words) if w == "vertex"]
        corners = np.array([[float(words[i + k]) for k in (1, 2, 3)] for i in at], np.float64).reshape(-1, 3)
    return corners, np.arange(len(corners) // 3 * 3, dtype=np.int64).reshape(-1, 3)
