# SPDX-License-Identifier: Apache-2.0
"""A binary glTF mesh as Wavefront OBJ, for converters that do not read glTF. Standard library only (see converter_host).

Triangles with float positions, node transforms, and each material's base colour; positions stay in the file's own axes, as
robot descriptions mean them. What is compressed or refers to other files is refused with ValueError.
"""

from __future__ import annotations

import array
import json
import struct
from pathlib import Path
from typing import Any

MAGIC, JSON, BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
INDEX = {5121: "B", 5123: "H", 5125: "I"}
FLOAT, TRIANGLES = 5126, 4
Matrix = list[list[float]]


def write_obj(glb: Path, obj: Path) -> None:
    """Write `obj` and, beside it, its .mtl. Raises ValueError naming what the file has that is not read."""
    scene, binary = _chunks(glb.read_bytes())
    colours = [_colour(m) for m in scene.get("materials", [])] or [(0.8, 0.8, 0.8)]
    lines, first = [f"mtllib {obj.stem}.mtl"], 1
    roots = scene.get("scenes", [{}])[scene.get("scene", 0)].get("nodes", range(len(scene.get("nodes", []))))
    for mesh, matrix in _placed(scene, list(roots), _identity()):
        for part in scene["meshes"][mesh]["primitives"]:
            if part.get("mode", TRIANGLES) != TRIANGLES:
                continue
            points = _vectors(scene, binary, part["attributes"]["POSITION"])
            faces = (
                _indices(scene, binary, part["indices"]) if "indices" in part else array.array("I", range(len(points)))
            )
            lines.append(f"usemtl m{part.get('material', 0)}")
            for p in points:
                x, y, z = (sum(row[i] * p[i] for i in range(3)) + row[3] for row in matrix[:3])
                lines.append(f"v {x:.7g} {y:.7g} {z:.7g}")
            for a, b, c in zip(faces[::3], faces[1::3], faces[2::3], strict=False):
                lines.append(f"f {a + first} {b + first} {c + first}")
            first += len(points)
    if first == 1:
        raise ValueError(f"{glb} has no triangles")
    obj.write_text("\n".join(lines) + "\n", encoding="utf-8")
    materials = (f"newmtl m{i}\nKd {r:.6g} {g:.6g} {b:.6g}\n" for i, (r, g, b) in enumerate(colours))
    obj.with_suffix(".mtl").write_text("".join(materials), encoding="utf-8")


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < 20 or struct.unpack_from("<I", data)[0] != MAGIC:
        raise ValueError("not a binary glTF file")
    found, at = {}, 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, at)
        found[kind] = data[at + 8 : at + 8 + length]
        at += 8 + length
    scene = json.loads(found[JSON])
    if needed := scene.get("extensionsRequired"):
        raise ValueError(f"needs {', '.join(needed)}")
    return scene, found.get(BINARY, b"")


def _placed(scene: dict[str, Any], nodes: list[int], above: Matrix) -> list[tuple[int, Matrix]]:
    """(mesh, its pose) of every node at and below the given ones."""
    out = []
    for index in nodes:
        node = scene["nodes"][index]
        matrix = _product(above, _local(node))
        if "mesh" in node:
            out.append((node["mesh"], matrix))
        out += _placed(scene, node.get("children", []), matrix)
    return out


def _local(node: dict[str, Any]) -> Matrix:
    if "matrix" in node:  # column by column
        return [[node["matrix"][4 * column + row] for column in range(4)] for row in range(4)]
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    s, t = node.get("scale", (1, 1, 1)), node.get("translation", (0, 0, 0))
    turn = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return [[turn[i][k] * s[k] for k in range(3)] + [t[i]] for i in range(3)] + [[0.0, 0.0, 0.0, 1.0]]


def _identity() -> Matrix:
    return [[float(i == k) for k in range(4)] for i in range(4)]


def _product(a: Matrix, b: Matrix) -> Matrix:
    return [[sum(a[i][j] * b[j][k] for j in range(4)) for k in range(4)] for i in range(4)]


def _view(scene: dict[str, Any], binary: bytes, accessor: dict[str, Any]) -> tuple[bytes, int]:
    if "bufferView" not in accessor or "sparse" in accessor:
        raise ValueError("sparse accessors are not read")
    view = scene["bufferViews"][accessor["bufferView"]]
    if "uri" in scene["buffers"][view["buffer"]]:
        raise ValueError("its geometry lies in another file")
    start = view.get("byteOffset", 0)
    return binary[start + accessor.get("byteOffset", 0) : start + view["byteLength"]], view.get("byteStride", 0)


def _vectors(scene: dict[str, Any], binary: bytes, index: int) -> list[tuple[float, float, float]]:
    accessor = scene["accessors"][index]
    if (accessor["componentType"], accessor["type"]) != (FLOAT, "VEC3"):
        raise ValueError("its positions are no floats")
    data, stride = _view(scene, binary, accessor)
    return [struct.unpack_from("<3f", data, i * (stride or 12)) for i in range(accessor["count"])]


def _indices(scene: dict[str, Any], binary: bytes, index: int) -> array.array[int]:
    accessor = scene["accessors"][index]
    data, _ = _view(scene, binary, accessor)
    values = array.array(INDEX[accessor["componentType"]])
    values.frombytes(data[: accessor["count"] * values.itemsize])
    return values


def _colour(material: dict[str, Any]) -> tuple[float, float, float]:
    """Linear base colour."""
    r, g, b = material.get("pbrMetallicRoughness", {}).get("baseColorFactor", (1, 1, 1, 1))[:3]
    return r, g, b
