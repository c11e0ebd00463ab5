# SPDX-License-Identifier: Apache-2.0
"""Binary glTF meshes of robot descriptions become OBJ, in the file's own axes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from retake.newton.gltf import write_obj

POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], np.float32)


def glb(scene: dict, binary: bytes = b"") -> bytes:
    """A binary glTF file."""
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def triangle(node: dict, **more) -> bytes:
    """One triangle under a node, indexed by bytes, its positions 16 bytes apart."""
    rows = np.zeros((3, 4), np.float32)
    rows[:, :3] = POINTS
    binary = rows.tobytes() + bytes([0, 2, 1, 0])
    scene = {
        "scenes": [{"nodes": [0]}],
        "nodes": [{**node, "children": [1]}, {"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.1, 0.2, 0.3, 1]}}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5121, "count": 3, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 48, "byteStride": 16},
            {"buffer": 0, "byteOffset": 48, "byteLength": 3},
        ],
        "buffers": [{"byteLength": len(binary)}],
        **more,
    }
    return glb(scene, binary)


def vertices(text: str) -> np.ndarray:
    return np.array([[float(x) for x in line.split()[1:]] for line in text.splitlines() if line.startswith("v ")])


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({}, POINTS),
        ({"translation": [1, 2, 3]}, POINTS + np.array([1, 2, 3])),
        ({"scale": [2, 2, 2], "translation": [0, 0, 1]}, 2 * POINTS + [0, 0, 1]),
        ({"rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)]}, POINTS @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
        ({"matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 6, 7, 1]}, POINTS + np.array([5, 6, 7])),
    ],
)
def test_positions_are_where_the_nodes_put_them(tmp_path, node, expected):
    (tmp_path / "a.glb").write_bytes(triangle(node))
    write_obj(tmp_path / "a.glb", tmp_path / "a.obj")
    text = (tmp_path / "a.obj").read_text("utf-8")
    np.testing.assert_allclose(vertices(text), expected, atol=1e-6)
    assert "f 1 3 2" in text
    assert "Kd 0.1 0.2 0.3" in (tmp_path / "a.mtl").read_text("utf-8")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"glTF", "not a binary glTF"),
        (triangle({}, extensionsRequired=["KHR_draco_mesh_compression"]), "needs KHR_draco"),
        (triangle({}, buffers=[{"uri": "a.bin", "byteLength": 51}]), "in another file"),
        (glb({"nodes": [], "scenes": [{"nodes": []}]}), "no triangles"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, data, why):
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(ValueError, match=why):
        write_obj(tmp_path / "a.glb", tmp_path / "a.obj")
    assert not (tmp_path / "a.obj").exists()


def test_meshes_are_found_by_package_path_and_in_the_format_that_is_there(tmp_path):
    import xml.etree.ElementTree as ET

    from retake.newton.converter_host import mended, packages_of

    robot = tmp_path / "robots" / "arm" / "urdf"
    (tmp_path / "robots" / "arm" / "meshes").mkdir(parents=True)
    robot.mkdir()
    for name in ("base.stl", "link.obj"):
        (tmp_path / "robots" / "arm" / "meshes" / name).write_text("mesh", encoding="utf-8")
    (tmp_path / "robots" / "arm" / "meshes" / "hand.glb").write_bytes(triangle({}))
    names = ("package:///robots/arm/meshes/base.stl", "../meshes/link.dae", "../meshes/hand.dae", "../meshes/gone.stl")
    visuals = "".join(f'<visual><geometry><mesh filename="{name}"/></geometry></visual>' for name in names)
    file = robot / "arm.urdf"
    file.write_text(f'<robot name="a"><link name="l">{visuals}</link></robot>', encoding="utf-8")
    copy, done = mended(file, packages_of(file), tmp_path / "meshes")
    found = [str(m.get("filename")) for m in ET.parse(copy).getroot().iter("mesh")]
    assert [name.rsplit("/", 1)[-1].split("_")[0] for name in found] == ["base.stl", "link.obj", "hand"]
    assert found[2].endswith(".obj")
    assert done == [
        "../meshes/gone.stl",
        "1 glTF meshes read as OBJ",
        "2 meshes found elsewhere or in another format",
    ]
