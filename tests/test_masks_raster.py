# SPDX-License-Identifier: Apache-2.0
"""Triangles as pixels: what touches the picture is drawn, what reaches behind the camera is not, the nearer one is seen."""

from __future__ import annotations

import numpy as np
import pytest

from retake.core.lens import Lens
from retake.core.masks.meshes import Surface
from retake.core.masks.raster import paint

K = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
SIZE = (64, 48)


def square(x0: float, y0: float, x1: float, y1: float, z: float = 1.0) -> Surface:
    """Two triangles that cover pixels x0 … x1, y0 … y1 at depth z."""
    corners = [((x - 32) / 40 * z, (y - 24) / 40 * z, z) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    return Surface(np.array(corners), np.array([[0, 1, 2], [0, 2, 3]]))


def drawn(*surfaces: Surface, ids=None, lens=None):
    poses = np.stack([np.eye(4)] * len(surfaces)) if surfaces else np.zeros((0, 4, 4))
    return paint(surfaces, poses, ids or list(range(1, len(surfaces) + 1)), K, np.eye(4), SIZE, lens)


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_a_square_covers_its_own_pixels():
    image, depth = drawn(square(10.5, 12.5, 20.5, 30.5), ids=[7])
    assert extent(image == 7) == (10, 12, 20, 30)
    assert (depth[image == 7] == 1).all()
    assert (depth[image == 0] == 0).all()
    assert (image.dtype, depth.dtype, image.shape) == (np.uint16, np.float32, (48, 64))


@pytest.mark.parametrize(
    ("corners", "seen"),
    [((-30, -30, 200, 200), 64 * 48), ((-20, 10, -1, 20), 0), ((65, 10, 80, 20), 0), ((10, -20, 20, -1), 0),
     ((10, 49, 20, 60), 0), ((-5.5, 10.5, 3.5, 20.5), 4 * 11), ((60.5, 10.5, 70.5, 20.5), 4 * 11),
     ((-5.5, 10.5, 0.9, 20.5), 11),
     ((10.5, -5.5, 20.5, 3.5), 4 * 11), ((10.5, 44.5, 20.5, 50.5), 4 * 11)],
)  # fmt: skip
def test_what_reaches_into_the_picture_is_drawn_and_what_lies_beside_it_not(corners, seen):
    assert (drawn(square(*corners))[0] > 0).sum() == seen


def test_the_nearer_of_two_is_seen_in_whatever_order_they_come():
    near, far = square(10, 10, 30, 30, 0.5), square(20, 20, 40, 40, 2.0)
    for surfaces, ids in (((near, far), [1, 2]), ((far, near), [2, 1])):
        image, depth = drawn(*surfaces, ids=ids)
        assert image[25, 25] == 1
        assert image[35, 35] == 2
        assert (depth[25, 25], depth[35, 35]) == (0.5, 2.0)


@pytest.mark.parametrize(("z", "seen"), [(0.021, True), (0.02, False), (-1.0, False)])
def test_what_reaches_behind_the_camera_is_left_out(z, seen):
    surface = Surface(
        np.array([[0.0, 0, 1], [0.5, 0, 1], [0.002 * np.sign(z), 0.004 * np.sign(z), z]]), np.array([[0, 1, 2]])
    )
    assert (drawn(surface)[0] > 0).any() == seen


def test_a_triangle_has_the_depth_of_its_middle():
    surface = Surface(np.array([[-0.5, -0.5, 1.0], [0.5, -0.5, 2.0], [0, 0.9, 3.0]]), np.array([[0, 1, 2]]))
    _, depth = drawn(surface)
    assert set(np.unique(depth)) == {0.0, 2.0}


def test_without_surfaces_there_is_nothing_and_a_lens_bends_what_there_is():
    image, depth = drawn()
    assert not image.any()
    assert not depth.any()
    straight = extent(drawn(square(4.5, 14.5, 60.5, 34.5))[0])
    bent = extent(drawn(square(4.5, 14.5, 60.5, 34.5), lens=Lens("opencv-pinhole", (-0.2,)))[0])
    assert bent[0] > straight[0]
    assert bent[2] < straight[2]


def test_a_surface_is_seen_from_where_the_camera_stands_where_it_was_moved_to():
    moved, camera = np.eye(4), np.eye(4)
    moved[:3, 3], camera[:3, 3] = (0.1, 0.05, 0.5), (0.1, -0.1, 0.5)
    image, depth = paint([square(10.5, 12.5, 20.5, 30.5)], moved[None], [3], K, camera, SIZE)
    x0, y0, x1, y1 = (round(c + (v - c) / 2 + d) for v, c, d in ((10, 32, 4), (12, 24, -1), (20, 32, 4), (30, 24, -1)))
    assert np.abs(np.array(extent(image == 3)) - (x0, y0, x1, y1)).max() <= 1
    assert set(np.unique(depth)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("apex", "far", "column", "rows"), [(64.5, -249.5, 0, 33), (0.5, 299.5, 63, 34), (0.5, 1e9, 63, 48)]
)
def test_a_triangle_that_reaches_far_beside_the_picture_keeps_its_slope(apex, far, column, rows):
    """Corners are moved closer only where their numbers would not fit: several widths away."""
    corners = [((x - 32) / 40, (y - 24) / 40, 1.0) for x, y in ((apex, 24), (far, -56), (far, 104))]
    image, _ = drawn(Surface(np.array(corners), np.array([[0, 1, 2]])))
    assert (image[:, column] > 0).sum() == pytest.approx(rows, abs=1.5 if far < 1e6 else 48)
