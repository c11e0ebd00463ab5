# SPDX-License-Identifier: Apache-2.0
"""Places of one camera's pixels in another, and what is carried there, of flat scenes whose parallax is a whole number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flat_stills import BOX, FLOOR, ROBOT, TABLE, still

from retake.core.camera import Camera
from retake.core.errors import VariantError
from retake.core.variants.base import World
from retake.core.variants.carry import (
    CarryingBackend,
    _gain,
    _joined,
    _minified,
    anchor_of,
    carry,
    complete_by_rendering,
    exposure_over,
)
from retake.core.variants.correspond import Correspondence, View, _facing, _inner, correspond, view_of

W, H = 40, 30


def camera(right_m: float = 0.0, focal: float = 100.0) -> Camera:
    """Looks along the world's z, moved to the right."""
    T = np.eye(4)
    T[0, 3] = -right_m
    return Camera(np.array([[focal, 0, W / 2], [0, focal, H / 2], [0, 0, 1.0]]), T, (W, H))


def view(own: Camera, depth_m=2.0, ids=TABLE, facing=1.0) -> View:
    ids = np.array(np.broadcast_to(ids, (H, W)), np.uint16)
    depth, facing = (np.array(np.broadcast_to(value, (H, W)), np.float32) for value in (depth_m, facing))
    return View(own, depth, ids, facing, _inner(ids))


OWN, OTHER = view(camera()), view(camera(0.1))
"""At 2 m and 100 px of focal length a tenth of a metre is five pixels."""


def test_a_wall_before_two_cameras_is_seen_five_pixels_aside():
    found = correspond(OWN, OTHER)
    rows, columns = np.indices((H, W))
    assert found.place == pytest.approx(np.stack([columns - 5, rows], -1), abs=1e-4)
    # A pixel of the other picture's rim says nothing.
    wanted = (columns - 5 >= 1) & (columns - 5 <= W - 2) & (rows >= 1) & (rows <= H - 2)
    assert np.array_equal(found.seen, wanted)
    assert found.scale == pytest.approx(np.ones((H, W)))
    back = correspond(OTHER, OWN)
    assert np.array_equal(back.seen, (columns + 5 <= W - 2) & (columns >= 0) & (rows >= 1) & (rows <= H - 2))


@pytest.mark.parametrize(("off", "seen"), [(0.023, True), (0.025, False), (-0.023, True), (-0.025, False)])
def test_a_point_is_the_same_where_its_depths_agree(off, seen):
    """To 4 mm and a hundredth of the depth: 24 mm at 2 m."""
    assert correspond(OWN, view(camera(0.1), 2 + off)).seen.any() == seen


def test_a_thing_before_the_wall_hides_it():
    near = np.full((H, W), 2.0)
    near[:, 10:20] = 1.0
    found = correspond(OWN, view(camera(0.1), near))
    assert not found.seen[:, 15:25].any()
    assert found.seen[1:-1, 27:].all()


def test_nothing_background_borders_and_grazing_surfaces_correspond_to_nothing():
    assert not correspond(view(camera(), 0.0), OTHER).seen.any()
    assert not correspond(view(camera(), ids=0), view(camera(0.1), ids=0)).seen.any()
    assert not correspond(OWN, view(camera(0.1), ids=BOX)).seen.any()
    for cosine, seen in ((0.19, False), (0.21, True)):
        assert correspond(view(camera(), facing=cosine), OTHER).seen.any() == seen
        assert correspond(OWN, view(camera(0.1), facing=cosine)).seen.any() == seen
    behind = Camera(OWN.camera.K, np.diag([-1.0, 1, -1, 1]), (W, H))
    nowhere = correspond(OWN, view(behind))
    assert not nowhere.seen.any()
    assert (nowhere.place < -1).all(), "far outside of the picture"
    # Two pixels on either side of another instance are blends; of one camera's picture and of the other's.
    halves = np.where(np.arange(W) < 20, TABLE, BOX)
    row = correspond(view(camera(), ids=halves), view(camera(0.1), ids=np.where(np.arange(W) < 15, TABLE, BOX))).seen[9]
    assert np.nonzero(row)[0].tolist() == [*range(6, 18), *range(22, W)]
    row = correspond(OWN, view(camera(0.1), ids=np.where(np.arange(W) < 15, TABLE, BOX))).seen[9]
    assert np.nonzero(row)[0].tolist() == [*range(6, 18)]


@pytest.mark.parametrize(
    ("focal", "own", "other", "scale"),
    [(100, 1, 1, 1), (200, 1, 1, 0.5), (50, 1, 1, 2), (100, 0.25, 1, 0.5), (100, 1, 0.25, 2), (50, 0.25, 0.25, 2)],
)
def test_the_scale_is_one_pixels_footprint_over_the_other(focal, own, other, scale):
    """Twice the focal length sees half as much per pixel; a slant spreads a footprint by the root of its cosine."""
    found = correspond(view(camera(), facing=own), view(camera(0.1, focal), facing=other))
    assert found.seen.any()
    assert found.scale[found.seen] == pytest.approx(scale, rel=1e-5)
    assert (found.scale[~found.seen] == 1).all()


def test_a_surface_faces_the_camera_by_the_angle_to_the_ray():
    own = Camera(np.array([[10.0, 0, 0.5], [0, 10, 0.5], [0, 0, 1]]), np.eye(4), (11, 1))
    normals = np.tile(np.array([0, 0, -32767], np.int16), (1, 11, 1))
    assert _facing(own, normals)[0, [0, 10]] == pytest.approx([1, np.sqrt(0.5)], abs=1e-4)
    slanted = np.tile(np.round(np.array([0, np.sqrt(0.75), 0.5]) * 32767).astype(np.int16), (1, 11, 1))
    assert _facing(own, slanted)[0, 0] == pytest.approx(0.5, abs=1e-4)
    turned = np.eye(4)
    turned[:3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # the world's x lies along the camera's view
    along = np.tile(np.array([32767, 0, 0], np.int16), (1, 11, 1))
    assert _facing(Camera(own.K, turned, own.size), along)[0, 0] == pytest.approx(1, abs=1e-4)


def corresponding(place=None, scale=1.0, seen=True, shape=(H, W)) -> Correspondence:
    rows, columns = np.indices(shape)
    place = np.stack([columns, rows], -1).astype(np.float32) if place is None else place
    return Correspondence(
        place, np.full(shape, seen), np.array(np.broadcast_to(scale, shape), np.float32)
    )  # fmt: skip


def test_a_picture_is_softened_only_where_the_other_cameras_pixels_are_larger():
    painted = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    for scale in (0.8, 1.0, 3.0):
        assert _minified(painted, corresponding(scale=scale)) is painted
    assert _minified(painted, corresponding(scale=0.01, seen=False)) is painted, "nothing corresponds"
    spreads = [_minified(painted, corresponding(scale=s)).std() for s in (0.78, 0.5, 0.2, 0.08, 0.01)]
    assert spreads == sorted(spreads, reverse=True)
    # A step spreads by half the root of 1/scale² - 1, and by six pixels at most.
    edge = np.zeros((61, 61, 3), np.uint8)
    edge[:, 30:] = 255
    k = np.arange(-30, 31)
    for scale, sigma in ((0.5, 0.5 * np.sqrt(3)), (0.01, 6.0)):
        soft = _minified(edge, corresponding(scale=scale, shape=(61, 61)))[30, :, 0] / 255
        weights = np.exp(-(k**2) / (2 * sigma**2))
        for away in (0, 1, 4):
            assert soft[30 + away] == pytest.approx(weights[k >= -away].sum() / weights.sum(), abs=0.02)


DIM, DARK, LIGHT, BURNT = (12, 13, 12), (11, 12, 11), (242, 243, 243), (244, 245, 244)
"""Of luminance 12.7, 11.7, 242.8 and 244.7: between 12 and 244 a pixel tells the light."""


def flat(grey, ids=TABLE, **more):
    return still(np.array(np.broadcast_to(ids, (H, W))), rgb=grey, camera=camera(), **more)


@pytest.mark.parametrize(
    ("anchor", "target", "gain"),
    [(100, 150, 1.5), (150, 100, 2 / 3), (40, 200, 2.5), (200, 30, 0.4), (DIM, (24, 26, 24), 2), (DARK, (22, 24, 22), 1),
     ((24, 26, 24), DIM, 0.5), ((22, 24, 22), DARK, 1), (200, LIGHT, 1.214), (200, BURNT, 1), (LIGHT, 200, 0.824),
     (BURNT, 200, 1)],
)  # fmt: skip
def test_exposure_is_told_by_what_both_see_neither_dark_nor_burnt_out(anchor, target, gain):
    known = np.ones((H, W), bool)
    assert _gain(flat(anchor), flat(target), corresponding(), known) == pytest.approx(gain, abs=1e-3)
    assert exposure_over(flat(anchor), flat(target)) == pytest.approx(gain, abs=1e-3)


@pytest.mark.parametrize(("count", "gain"), [(199, 1.0), (200, 1.5)])
def test_exposure_needs_two_hundred_pixels(count, gain):
    known = (np.arange(H * W) < count).reshape(H, W)
    assert _gain(flat(100), flat(150), corresponding(), known) == pytest.approx(gain)
    dark = flat(np.where(known, 100, 5)[..., None] * np.ones(3))
    assert _gain(dark, flat(150), corresponding(), np.ones((H, W), bool)) == pytest.approx(gain)


def test_a_painting_is_carried_to_where_the_other_camera_sees_it():
    """A ramp of five levels a pixel stands five pixels aside, brightened as the simulated pictures are: by a half."""
    anchor, target = (still(np.full((H, W), TABLE), 2.0, rgb=g, camera=camera(x)) for g, x in ((100, 0.1), (150, 0.0)))
    painted = np.array(np.broadcast_to((4 * np.arange(W))[:, None], (H, W, 3)), np.uint8)
    found = carry(anchor, painted, target)
    assert found.gain == pytest.approx(1.5)
    rows, columns = np.indices((H, W))
    assert np.array_equal(found.known, (columns >= 6) & (rows >= 1) & (rows <= H - 2))
    assert np.array_equal(found.frame[..., 0], np.where(found.known, 6 * (columns - 5), 0))
    assert found.share == pytest.approx(34 * 28 / (H * W))
    with pytest.raises(VariantError, match="the painted frame is"):
        carry(anchor, painted[:-1], target)
    coarse = replace(anchor, camera=camera(0.1, 24.0))  # its pixels are more than four of the other's
    assert not carry(coarse, painted, target).known.any()


def test_the_anchor_is_the_camera_that_sees_the_largest_area_not_the_most_pixels():
    """Area of a pixel is (depth / focal length)²; the robot and the background count for nothing."""
    near, far = (
        flat(100, np.where(np.arange(W) < 30, TABLE, FLOOR)),
        flat(100, np.where(np.arange(W) < 10, TABLE, FLOOR)),
    )
    far = replace(far, depth_m=far.depth_m * 2)
    assert anchor_of([near, far]) == 1, "10 columns at 2 m are 40, against 30 at 1 m"
    assert anchor_of([far, near]) == 0
    wide = replace(near, camera=camera(0, 50.0))
    assert anchor_of([far, wide]) == 1, "30 columns of twice the width are 120"
    robots = flat(100, np.where(np.arange(W) < 39, ROBOT, TABLE))
    assert anchor_of([robots, near]) == 1
    assert anchor_of([near, near]) == 0


def test_a_seam_is_softened_by_a_pixel_on_the_painted_side():
    frame = np.zeros((H, W, 3), np.uint8)
    frame[:, 20:] = 200
    known = np.arange(W)[None].repeat(H, 0) >= 20
    found = _joined(frame, known)[10, :, 0]
    assert (found[:19] == 0).all()
    assert 20 < found[19] < 80
    assert (found[20:] == 200).all()


class Painter:
    name, version, licence, revision, settings = "paints", "3", "MIT", "r1", {"steps": 4}

    def render(self, source, world, seed, check_cancel=None):
        return np.full_like(source.rgb, 77)

    def complete(self, source, world, seed, known, missing, check_cancel=None):
        self.asked = missing
        return complete_by_rendering(self, source, world, seed, known, missing)


def test_a_carried_frame_says_how_it_came_to_be():
    ids = np.full((H, W), TABLE)
    ids[10:20, 15:25] = ROBOT
    anchor, target = (still(ids, 2.0, rgb=g, camera=camera(x)) for g, x in ((100, 0.1), (150, 0.0)))
    painted = np.full((H, W, 3), 80, np.uint8)
    backend = CarryingBackend(Painter(), anchor, painted)
    assert (backend.name, backend.version, backend.licence, backend.model, backend.revision) == (
        "paints", "3+carry1", "MIT", "", "r1",
    )  # fmt: skip
    assert (backend.reads_prompts, backend.parallel, backend.origin) == (True, False, {})
    known = carry(anchor, painted, target).known
    frame = backend.render(target, World("w", "", "", "", "", prompt="a wall"), 0)
    missing = ~known & (ids != ROBOT)
    assert np.array_equal(backend.backend.asked, missing)
    assert backend.origin == {
        "kind": "carried", "anchor": "front", "carried": round(known.mean(), 4), "inpainted": round(missing.mean(), 4),
        "gain": 1.5,
    }  # fmt: skip
    assert (frame[2:6, 30:38] == 120).all(), "carried, and brighter by a half"
    assert (frame[2:6, :4] == 77).all(), "painted"
    first = backend.settings
    assert first["steps"] == 4
    assert first["anchor"][0] == "front"
    painted[0, 0] = 1
    assert backend.settings["anchor"] != first["anchor"]
    with pytest.raises(VariantError, match="it has no `complete`"):
        CarryingBackend(type("Plain", (), {"name": "plain"})(), anchor, painted)


def test_a_whole_frame_is_all_inner_but_near_its_instances():
    ids = np.full((H, W), TABLE)
    ids[:, 20:] = BOX
    found = view_of(still(ids, camera=camera(), normal=(0, 0, 32767)))
    assert np.nonzero(~found.inner[4])[0].tolist() == [18, 19, 20, 21]
    assert found.facing[H // 2, W // 2] == pytest.approx(1, abs=1e-3)
