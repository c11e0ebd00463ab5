# SPDX-License-Identifier: Apache-2.0
"""Surfaces, their pixels and the parts of a calibration's fit, by volumes, areas and places worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from retake.core.errors import InputError
from retake.core.geometry import transform
from retake.core.masks import make
from retake.core.masks.fit import _STEPS, _Fit, foreground
from retake.core.masks.meshes import Surface, _box, _by_stem, _round, _surface, read_mesh, read_meshes
from retake.core.masks.raster import paint


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Of a closed surface whose triangles turn outwards; of one with a hole or a turned triangle another number."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def test_a_box_is_closed_and_faces_outwards():
    vertices, faces = _box(np.array([0.2, 0.3, 0.5]))
    assert (len(vertices), len(faces)) == (8, 12)
    assert volume(vertices, faces) == pytest.approx(0.2 * 0.3 * 0.5)
    assert np.abs(vertices).max(0) == pytest.approx([0.1, 0.15, 0.25])


def test_a_cylinder_and_a_sphere_are_closed_with_24_sides():
    area = 12 * np.sin(np.pi / 12)  # of the 24-sided polygon in a circle of radius 1
    vertices, faces = _round(0.3, 0.8)
    assert volume(vertices, faces) == pytest.approx(area * 0.09 * 0.8)
    assert np.ptp(vertices, axis=0) == pytest.approx([0.6, 0.6, 0.8])
    vertices, faces = _round(0.3, None)
    rings = [(0.3 * np.sin(p), 0.3 * np.cos(p)) for p in np.arange(13) * np.pi / 12]
    frusta = sum((a - b) * (r * r + r * s + s * s) / 3 for (r, a), (s, b) in pairwise(rings))
    assert abs(volume(vertices, faces)) == pytest.approx(area * frusta)
    assert np.linalg.norm(vertices, axis=1) == pytest.approx(np.full(len(vertices), 0.3))


def test_points_lie_evenly_on_the_triangles():
    """Two triangles of areas ½ and 3/2: a quarter and three quarters of the points, about their middles."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5.0]])
    surface = Surface(corners, np.array([[0, 1, 2], [3, 4, 5]]))
    points = surface.points(6000, np.random.default_rng(0))
    low, high = points[points[:, 2] == 0], points[points[:, 2] == 5]
    assert len(low) + len(high) == 6000
    assert len(low) == pytest.approx(1500, abs=120)
    assert low.mean(0) == pytest.approx([1 / 3, 1 / 3, 0], abs=0.02)
    assert high.mean(0) == pytest.approx([1, 1 / 3, 5], abs=0.04)
    for part, width in ((low, 1), (high, 3)):
        assert part[:, :2].min() >= 0
        assert (part[:, 0] / width + part[:, 1]).max() <= 1 + 1e-9
        # As many beyond the middle line as a quarter of the area.
        assert (part[:, 0] / width + part[:, 1] < 0.5).mean() == pytest.approx(0.25, abs=0.04)
    flat = Surface(np.zeros((4, 3)), np.array([[0, 1, 2]]))
    assert flat.points(3, np.random.default_rng(0)).shape == (3, 3)


def stl(*triangles) -> bytes:
    record = np.zeros(len(triangles), np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")]))
    record["c"] = triangles
    return b"solid".ljust(80) + len(triangles).to_bytes(4, "little") + record.tobytes()


ONE, TWO = [[0, 0, 0], [1, 0, 0], [0, 2, 0]], [[0, 0, 3], [4, 0, 3], [0, 5, 3]]


def test_files_of_meshes_word_by_word(tmp_path):
    path = tmp_path / "a.stl"
    path.write_bytes(stl(ONE, TWO))
    vertices, faces = read_mesh(path)
    assert vertices.tolist() == [*ONE, *TWO]
    assert faces.tolist() == [[0, 1, 2], [3, 4, 5]]
    lines = " ".join(f"vertex {x} {y} {z}" for x, y, z in (*ONE, *TWO, (9, 9, 9)))
    path.write_text(f"solid x {lines} endsolid x")
    assert read_mesh(path)[1].tolist() == [[0, 1, 2], [3, 4, 5]], "what is left over makes no triangle"
    path.write_text("vertex 0 0 0 vertex 1 0 0 vertex 0 1 0")
    assert len(read_mesh(path)[1]) == 1, "as short as a text can be"
    obj = tmp_path / "a.obj"
    vs = "".join(f"v {k} {k * k} 0 0.5 0.5 0.5\n" for k in range(5))
    obj.write_text(f"{vs}vn 0 0 1\nf 1/1/1 2//1 3 4 5\nf -5 -4 -1\n")
    vertices, faces = read_mesh(obj)
    assert vertices.tolist() == [[k, k * k, 0] for k in range(5)]
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 4]]
    for wrong in ("f 1 2 6", "f 0 1 2", "f -6 1 2", ""):
        obj.write_text(f"{vs}{wrong}\n")
        with pytest.raises(InputError, match=r"cannot be read as a mesh|holds 0 triangles"):
            read_mesh(obj)
    obj.write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match="finite"):
        read_mesh(obj)


def part(inner: str, origin: str = "", urdf: Path = Path("x.urdf"), known=None) -> Surface | None:
    element = ElementTree.fromstring(f"<visual>{origin}<geometry>{inner}</geometry></visual>")
    return _surface(element, urdf, known or {}, [])


def test_a_shape_stands_where_its_origin_says():
    found = part('<cylinder radius="0.1" length="2"/>', '<origin xyz="1 2 3" rpy="1.5707963268 0 1.5707963268"/>')
    # Rolled by a quarter turn its axis is -y, yawed by another it is +x.
    assert found.vertices.mean(0) == pytest.approx([1, 2, 3])
    assert np.ptp(found.vertices, axis=0) == pytest.approx([2, 0.2, 0.2])
    tip = part('<box size="0 0 2"/>', '<origin rpy="1.5707963268 0 1.5707963268"/>').vertices
    assert tip[1] == pytest.approx([1, 0, 0], abs=1e-9)
    pitched = part('<box size="0 0 2"/>', '<origin xyz="0 0 0" rpy="0 1.5707963268 0"/>').vertices
    assert pitched[1] == pytest.approx([1, 0, 0], abs=1e-9)
    assert np.ptp(part('<sphere radius="0.5" length="9"/>').vertices, axis=0) == pytest.approx([1, 1, 1], rel=0.02)
    assert part('<capsule radius="1"/>') is None
    assert part("") is None
    assert _surface(ElementTree.fromstring("<visual/>"), Path("x"), {}, []) is None


@pytest.mark.parametrize(
    ("named", "size", "reach"),
    [("a.obj", 260, 0.26), ("a.obj", 0.26, 0.00026), ("a.dae", 260, 0.26), ("a.dae", 0.26, 0.26), ("a.dae", 3, 0.003)],
)
def test_a_mesh_under_another_suffix_may_be_in_metres_already(tmp_path, named, size, reach):
    """The scale is for the file that the URDF names; one that would be smaller than 2 mm by it was not in millimetres."""
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv {size} 0 0\nv 0 {size / 2} 0\nf 1 2 3\n")
    known = _by_stem(tmp_path)
    found = part(f'<mesh filename="package://p/{named}" scale="0.001 0.001 0.001"/>', known=known)
    assert np.ptp(found.vertices, axis=0) == pytest.approx([reach, reach / 2, 0])


def test_every_link_gets_what_can_be_read_of_it(tmp_path):
    (tmp_path / "urdf").mkdir()
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "hand.stl").write_bytes(stl(ONE))
    box, gone = '<geometry><box size="1 1 1"/></geometry>', '<geometry><mesh filename="gone.dae"/></geometry>'
    hand = '<geometry><mesh filename="package://meshes/hand.stl"/></geometry>'
    urdf = tmp_path / "urdf" / "r.urdf"
    urdf.write_text(
        f'<robot name="r"><link name="lost"><visual>{gone}</visual></link><link name="frame"/>'
        f'<link name="both"><visual>{box}</visual><visual>{gone}</visual><visual>{hand}</visual></link>'
        f'<link name="rough"><visual>{gone}</visual><collision>{hand}</collision></link>'
        f'<link name="fine"><visual>{hand}</visual><collision>{box}</collision></link></robot>'
    )
    found = read_meshes(urdf)
    assert found.missing == ("lost",)
    assert {name: len(s.faces) for name, s in found.surfaces.items()} == {"both": 13, "rough": 1, "fine": 1}
    assert found.surfaces["both"].faces[-1].tolist() == [8, 9, 10]
    assert found.surfaces["both"].vertices[8:].tolist() == ONE
    urdf.write_text(f'<robot name="r"><link name="lost"><visual>{gone}</visual></link></robot>')
    with pytest.raises(InputError, match=r"looked for gone\.dae under .*urdf; give a folder"):
        read_meshes(urdf)


K = np.array([[100.0, 0, 40], [0, 100.0, 30], [0, 0, 1]])


def test_a_square_in_the_middle_is_drawn_in_the_middle():
    corners = np.array([[-0.102, -0.052, 1], [0.102, -0.052, 1], [0.102, 0.052, 1.2], [-0.102, 0.052, 1.2]])
    corners *= corners[:, 2:]  # the lower side is farther
    square = Surface(corners, np.array([[0, 1, 2], [0, 2, 3]]))
    ids, depth = paint([square], np.eye(4)[None], [7], K, np.eye(4), (80, 60))
    rows, columns = (np.nonzero((ids == 7).any(axis))[0] for axis in (1, 0))
    assert columns.tolist() == [*range(29, 51)], "from 29.8 to 50.2"
    assert (rows[0], rows[-1]) == (24, 34), "from 24.8 to 35.2"
    assert np.unique(depth[ids == 7]) == pytest.approx([(1 + 1 + 1.44) / 3, (1 + 1.44 + 1.44) / 3]), (
        "one depth a triangle"
    )
    assert (depth[ids == 0] == 0).all()
    half_behind = Surface(square.vertices * [1, 1, -1] + [0, 0, 1.1], square.faces)
    assert not paint([half_behind], np.eye(4)[None], [7], K, np.eye(4), (80, 60))[0].any()
    assert paint([], np.zeros((0, 4, 4)), [], K, np.eye(4), (80, 60))[0].shape == (60, 80)


def test_what_moves_stands_out_and_what_flickers_does_not():
    frames = np.full((9, 40, 60, 3), 100, np.uint8)
    frames[2, 10:30, 10:30] = 121
    frames[3, 10:30, 10:30, 1] = 20
    frames[4] = 103
    frames[5] = 110
    frames[5, 10:30, 10:30] = 140
    found = foreground(frames)
    assert found[:, 20, 20].tolist() == pytest.approx(
        [0, 0, (21 - 6) / 30, 1, 0, (40 - 20 - 6) / 30, 0, 0, 0], abs=1e-5
    )
    assert found[:, 35, 50].max() == 0
    assert found.dtype == np.float32


def fit(points: np.ndarray, T: np.ndarray | None = None) -> _Fit:
    return _Fit(np.zeros((len(points), 60, 80), np.float32), points, K, np.eye(4) if T is None else T)


CLOUD = np.array([[[0, 0, 2.0], [0.2, 0, 2.0]], [[0.4, 0, 2.0], [0.6, 0, 2.0]], [[0.4, 0.2, 2.0], [0.6, 0.2, 2.0]]])


X, Z = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])


def test_a_correction_shifts_and_turns_about_the_middle_of_what_moves():
    own, zero = fit(CLOUD), np.zeros(7)
    middle = CLOUD.reshape(-1, 3).mean(0)
    assert own.centre == pytest.approx(middle)
    assert own.pose(zero) == pytest.approx(np.eye(4))
    shifted = own.pose(np.array([0.1, 0.2, 0.3, 0, 0, 0, 5]))
    assert shifted[:3, 3] == pytest.approx([0.1, 0.2, 0.3])
    turned = own.pose(np.array([0, 0, 0, np.pi / 2, 0, np.pi / 2, 0]))
    assert transform(turned, middle) == pytest.approx(middle)
    assert transform(turned, middle + X) == pytest.approx(middle + Z), "first about z, then about x"
    about_y = own.pose(np.array([0, 0, 0, 0, np.pi / 2, 0, 0]))
    assert transform(about_y, middle + Z) == pytest.approx(middle + X)
    away = np.eye(4)
    away[:3, 3] = [0, 0, -3]  # everything is behind the camera
    assert fit(CLOUD, away).centre.tolist() == [0, 0, 1]
    half = CLOUD.copy()
    half[:, 1, 2] = -1
    assert fit(half).centre == pytest.approx(half[:, 0].mean(0)), "what is behind does not count"


def test_points_between_two_states_are_between_their_pixels():
    own, x = fit(CLOUD), np.zeros(7)
    pixels, front = own.pixels(x, np.array([0, 2]))
    assert pixels == pytest.approx(np.array([[[40, 30], [50, 30]], [[60, 40], [70, 40]]]))
    assert front.all()
    x[6] = 0.25
    pixels, _ = own.pixels(x, np.array([0, 1, 2]))
    assert pixels[:, 0] == pytest.approx(np.array([[45, 30], [60, 32.5], [60, 40]])), "the last state repeats"
    x[6] = -0.5
    assert own.pixels(x, np.array([0, 1]))[0][:, 0] == pytest.approx(np.array([[40, 30], [50, 30]]))


def test_cover_agrees_with_itself_and_not_with_what_lies_elsewhere():
    seen, grid = np.zeros((6, 60, 80), np.float32), np.stack(np.meshgrid(np.arange(-5, 6), np.arange(-5, 6)), -1)
    points = []
    for t in range(6):
        at = grid.reshape(-1, 2) + np.array([10 + 10 * t, 30])
        seen[t, 24:37, 4 + 10 * t : 17 + 10 * t] = 1
        points.append(np.c_[(at - [40, 30]) / 50, np.full(len(at), 2.0)])
    own = _Fit(seen, np.stack(points), K, np.eye(4))
    t, zero = np.arange(6), np.zeros(7)
    assert own.score(zero, t) > 0.9
    aside = zero.copy()
    aside[1] = 0.2
    assert own.score(aside, t) < 0.4
    late = zero.copy()
    late[6] = 1
    assert own.score(late, t) < 0.5
    assert _Fit(np.ones((6, 60, 80), np.float32), np.stack(points), K, np.eye(4)).score(zero, t) == 0


def test_the_climb_ends_near_the_top():
    goal = np.array([0.11, -0.07, 0.2, 0.03, -0.1, 0.05, -3.3])

    class Hill(_Fit):
        def __init__(self) -> None:
            self.asked = 0

        def score(self, x, t):
            self.asked += 1
            return 1 - 0.01 * float((((x - goal) / _STEPS) ** 2).sum())

    hill = Hill()
    x, best = hill.climb(np.zeros(7), np.arange(3), 1.0, lambda: None)
    assert np.abs((x - goal) / _STEPS).max() < 0.2
    assert best == hill.score(x, np.arange(3)) > 0.998
    assert hill.asked < 400


def test_states_at_another_time_lie_between_the_recorded_ones():
    values = np.array([[0.0, 10], [2, 20], [6, 40]])
    assert make._at(values, 0.0).tolist() == values.tolist()
    assert make._at(values, 0.5).tolist() == [[1, 15], [4, 30], [6, 40]]
    assert make._at(values, -1.25).tolist() == [[0, 10], [0, 10], [1.5, 17.5]]
    assert make._at(values[:1], 0.75).tolist() == [[0, 10]]
