# SPDX-License-Identifier: Apache-2.0
"""Rays, blocks, textures, shadow maps and canvases of the painter, each by what it is: geometry, and that how work is cut
changes nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_poses

from retake.core.camera import Camera
from retake.core.lens import Lens
from retake.core.painter import planes, shadows
from retake.core.painter.panels import Canvas
from retake.core.painter.shadows import CELLS, HALF_M, ShadowField
from retake.core.painter.textures import Texture, lookup

# -- rays and blocks ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1), st.sampled_from([None, Lens("opencv-pinhole", (-0.1, 0.02))]))
def test_rays_reach_the_points_that_the_camera_sees(seed: int, lens: Lens | None) -> None:
    rng = np.random.default_rng(seed)
    K = np.array([[rng.uniform(20, 40), 0, 9.0], [0, rng.uniform(20, 40), 5.0], [0, 0, 1]])
    camera = Camera(K, random_poses(rng), (16, 12), lens)
    d, eye = planes.view_rays(camera)
    depth = rng.uniform(0.5, 2, (12, 16))
    wanted = camera.unproject(camera.pixel_grid(), depth)
    assert np.allclose(np.moveaxis(d, 0, -1) * depth[..., None] + eye, wanted, atol=1e-4)


@given(st.integers(1, 40), st.integers(1, 50))
def test_what_is_worked_through_in_blocks_is_what_it_is_in_one(block: int, count: int) -> None:
    rng = np.random.default_rng(count)
    values, M = rng.normal(size=(3, count)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(planes, "BLOCK", block)
        parts = list(planes.blocks(count))
        assert [k for part in parts for k in range(part.start, part.stop)] == [*range(count)]
        assert all(part.stop - part.start == block for part in parts[:-1])
        assert np.allclose(planes.turned(M, values), M @ values, atol=1e-5)
        grid = values.reshape(3, 1, count)
        assert np.allclose(planes.in_blocks(lambda at: at[0] - at[2], grid), grid[0] - grid[2])


@given(st.integers(1, 2100))
def test_any_number_of_places_is_looked_up_at_once(count: int) -> None:
    ramp = np.arange(32, dtype=np.float32)[None] + 100 * np.arange(24, dtype=np.float32)[:, None]
    x, y = np.linspace(0, 31, count, dtype=np.float32), np.linspace(0, 23, count, dtype=np.float32)
    assert np.allclose(lookup(ramp, x, y), x + 100 * y, atol=2)
    both = lookup(np.dstack([ramp, -ramp]), x, y)
    assert both.shape == (count, 2)
    assert np.allclose(both, np.stack([x + 100 * y, -x - 100 * y], -1), atol=2)


def test_a_texture_that_ends_goes_on_with_its_border_and_one_that_repeats_begins_again() -> None:
    image = np.zeros((16, 16, 3), np.float32)
    image[:, :8], image[:, 8:] = 0.2, 0.8
    place = np.array([-0.3, 1.3], np.float32), np.full(2, 0.5, np.float32), np.full(2, 1e-3, np.float32)
    assert np.allclose(Texture.of(image, (1.0, 1.0), False).sample(*place)[:, 0], [0.2, 0.8])
    assert np.allclose(Texture.of(image, (1.0, 1.0)).sample(*place)[:, 0], [0.8, 0.2])


# -- shadow maps --------------------------------------------------------------------------------------------------------


def spot(x: float, y: float, grow: int = 0) -> ShadowField:
    field = ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3))
    field.add_points(np.array([[x, y, 0.2]], np.float32), grow)
    return field


def test_a_map_covers_its_extent_and_what_lies_beside_it_casts_nothing() -> None:
    """288 cells over 2.8 m, the first one's centre half a cell in."""
    cell = 2 * HALF_M / CELLS
    assert (CELLS, HALF_M) == (288, 1.4)
    corners = spot(0, 0).coordinates(np.array([[-HALF_M + cell / 2, 0, 0.3], [HALF_M - cell / 2, 0, 0.3]], np.float32))
    across = np.sort(corners[..., :2].reshape(-1))
    assert np.allclose(across, [0, 143.5, 143.5, 287], atol=1e-3)
    assert np.allclose(corners[:, 2], 0.3)
    edge = HALF_M - 0.6 * cell
    for x, y in ((edge, 0), (-edge, 0), (0, edge), (0, -edge)):
        assert (spot(x, y).height > 0).sum() == 1
        far = 1 + 1.2 * cell / edge
        assert not (spot(far * x, far * y).height > 0).any()
    assert (spot(0.1, 0.1, 2).height > 0).sum() == 25
    empty = spot(0, 0)
    empty.add_points(np.zeros((0, 3), np.float32))
    assert (empty.height > 0).sum() == 1


def test_of_points_above_each_other_the_one_nearest_the_light_casts() -> None:
    field = ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3))
    field.add_points(np.array([[0, 0, 0.5], [0, 0, 0.7], [0, 0, 0.2]], np.float32), 0)
    assert field.height.max() == np.float32(0.7)
    field.add_points(np.array([[0, 0, 0.3]], np.float32), 0)
    assert field.height.max() == np.float32(0.7)


@pytest.mark.parametrize("lean", [(0.0, 0.0, 1.0), (0.95, 0.1, 0.3), (0.2, -0.9, 0.3)])
def test_the_axes_of_a_field_are_square_to_the_light(lean: tuple[float, float, float]) -> None:
    axes = ShadowField(np.array(lean, np.float32), np.zeros(3)).axes
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-5)
    assert np.allclose(axes[2], np.array(lean) / np.linalg.norm(lean), atol=1e-6)
    assert np.linalg.det(axes) == pytest.approx(1, abs=1e-5)


def test_a_box_casts_the_shadow_of_its_outline_from_its_middle() -> None:
    field = ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3))
    corners = np.array([[x, y, z] for x in (-0.2, 0.3) for y in (-0.1, 0.1) for z in (0.1, 0.5)], np.float32)
    field.add_box(corners)
    on = field.height > -100
    assert np.allclose(field.height[on], 0.3, atol=1e-5)
    assert on.sum() * (2 * HALF_M / CELLS) ** 2 == pytest.approx(0.5 * 0.2, rel=0.12)
    middle = np.argwhere(on).mean(0)
    wanted = field.coordinates(np.array([[0.05, 0.0, 0.3]], np.float32))[0, 1::-1]
    assert np.abs(middle - wanted).max() < 0.6


@pytest.mark.parametrize("way", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_receivers_beside_all_shadows_are_known_without_a_look(way: tuple[int, int]) -> None:
    """On whichever side they lie; and where most of a block may be shaded, all of it is looked up."""
    field = spot(0.1, -0.2, 3)
    covered = np.argwhere(shadows.channels_of(field._levels(), 0, 3).max(0) > 0)
    (low_y, low_x), (high_y, high_x) = covered.min(0), covered.max(0)
    assert field._bounds() == (low_x - 1, high_x + 1, low_y - 1, high_y + 1)
    near = np.stack([np.linspace(low_x, high_x, 8), np.linspace(low_y, high_y, 8), np.zeros(8)]).astype(np.float32)
    beside = near + 300 * np.array([[way[0]], [way[1]], [0]], np.float32)
    assert field.reaches(near)
    assert not field.reaches(beside)
    assert np.array_equal(field.reach(np.concatenate([beside, near], 1)), np.arange(8, 16))
    assert field.worth(beside) is None
    assert field.worth(near) == slice(None)
    few = field.worth(np.concatenate([near[:, :3], beside], 1))
    assert isinstance(few, np.ndarray)
    assert few.tolist() == [0, 1, 2]
    assert isinstance(field.worth(np.concatenate([near, beside], 1)), np.ndarray), "a half is not most"
    field.clear()
    assert not field.reaches(near)


# -- panels -------------------------------------------------------------------------------------------------------------


def test_a_canvas_has_its_own_pixels_per_metre_and_shades_stay_bytes() -> None:
    """Less of them where it is so large that it would not fit; never less than eight."""
    assert Canvas(2.0, 1.0, "#102030").image.shape == (160, 320, 3)
    assert Canvas(14.0, 7.0, "#102030").image.shape == (700, 1400, 3)
    assert Canvas(0.01, 2.0, "#102030").image.shape == (320, 8, 3)
    assert Canvas(2.0, 0.01, "#102030").image.shape == (8, 320, 3)
    canvas = Canvas(1.0, 1.0, "#000000")
    canvas.rect(0.25, 0.5, 0.5, 0.25, "#8040ff", 1.5)
    assert canvas.image[100, 80].tolist() == [192, 96, 255]
    assert (canvas.image[100, :, 2] > 128).sum() == pytest.approx(80, abs=2)
    canvas = Canvas(1.0, 1.0, "#000000")
    canvas.disc(0.5, 0.25, 0.1, "#ffffff")
    on = cv2.moments(canvas.image[..., 0])
    assert on["m10"] / on["m00"] == pytest.approx(80, abs=0.6)
    assert on["m01"] / on["m00"] == pytest.approx(40, abs=0.6)
    assert on["m00"] / 255 == pytest.approx(np.pi * 16**2, rel=0.1)


def test_where_a_map_is_empty_no_receiver_is_reached_not_even_on_the_border_of_what_it_covers() -> None:
    """A cell between covered ones and the border counts; the border itself does not."""
    field = spot(0.1, -0.2, 2)
    x0, x1, y0, y1 = field._bounds()
    covered = np.argwhere(field._levels()[..., :3].max(2) > 0)
    assert (y0, x0) == tuple(covered.min(0) - 1)
    assert (y1, x1) == tuple(covered.max(0) + 1)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    for place, reached in (
        ((x0, y), False), ((x1, y), False), ((x, y0), False), ((x, y1), False), ((x0 + 0.5, y), True), ((x1 - 0.5, y), True),
        ((x, y0 + 0.5), True), ((x, y1 - 0.5), True), ((x0 - 9, y), False), ((x, y1 + 9), False), ((x, y), True),
    ):  # fmt: skip
        at = np.array([*place, 0], np.float32)[:, None]
        assert field.reaches(at) == reached
        assert (len(field.reach(at)) == 1) == reached
        assert (field.worth(at) is not None) == reached
    inside, outside = np.array([x, y, 0], np.float32), np.array([x0 - 9, y, 0], np.float32)
    half = np.stack([inside, outside], 1)
    assert field.reach(half).tolist() == [0]
    near = field.worth(half)
    assert isinstance(near, np.ndarray)
    assert near.tolist() == [0], "half of a block is not most of it"
    assert field.worth(np.stack([inside, outside, inside], 1)) == slice(None)
    field.clear()
    assert field.worth(half) is None
    assert not field.reaches(half)


def test_receivers_may_be_given_point_by_point_or_axis_by_axis() -> None:
    field = spot(0.0, 0.0, 4)
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 12), np.linspace(-0.1, 0.1, 7))
    at = np.stack([x, y, 0 * x], -1).astype(np.float32)
    c, flat = field.coordinates(at), field.planes(np.moveaxis(at, -1, 0))
    assert np.array_equal(np.moveaxis(c, -1, 0), flat)
    assert field.cast(c, 0.5).max() > 0.2
    assert np.array_equal(field.cast(c, 0.5), field.cast_on(flat, 0.5, 0.012))
    assert np.array_equal(field.cast(c, 0.5, 0.3), field.cast_on(flat, 0.5, 0.3))
    assert np.array_equal(field.contact(c), field.contact_on(flat, 0.07))
    assert np.array_equal(field.contact(c, 0.4), field.contact_on(flat, 0.4))
