# SPDX-License-Identifier: Apache-2.0
"""One still: where points of the world are in it, which of them it shows, and in which colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overhead import PACKET, ROBOT, TABLE, overhead, points
from strategies import random_poses

from retake.core.camera import Camera
from retake.core.lens import Lens
from retake.core.painter.stills import Still, look_up

LENSES = (None, Lens("opencv-pinhole", (-0.1, 0.02, 0.001, -0.001, 0.0)))
SOURCE = overhead()


def flat(world: np.ndarray) -> np.ndarray:
    """World points (…, 3) as planes (3, N)."""
    return np.ascontiguousarray(world.reshape(-1, 3).T, np.float32)


@given(st.integers(0, 2**31 - 1), st.sampled_from(LENSES))
def test_points_are_where_the_camera_projects_them_and_nowhere_where_it_does_not(seed: int, lens: Lens | None) -> None:
    rng = np.random.default_rng(seed)
    K = np.array([[rng.uniform(50, 90), 0, 31.0], [0, rng.uniform(50, 90), 22.0], [0, 0, 1]])
    camera = Camera(K, random_poses(rng), (64, 48), lens)
    still = Still(replace(SOURCE, camera=camera), SOURCE.rgb)
    own = rng.uniform(-0.3, 0.3, (60, 3))
    own[:, 2] += 1
    own[::3] *= -1  # behind the camera
    world = np.linalg.inv(camera.T_camera_world) @ np.concatenate([own, np.ones((60, 1))], 1).T
    x, y, z = still._seen_at(world[:3].astype(np.float32))
    uv, depth = camera.project(world[:3].T)
    assert np.allclose(z, depth, atol=1e-4)
    front = depth > 0
    assert np.allclose(np.stack([x, y], -1)[front], uv[front] - 0.5, atol=0.02)
    assert (x[~front] == -9).all()
    assert (y[~front] == -9).all()


def test_what_is_beside_the_picture_or_at_another_depth_or_of_another_thing_is_not_shown() -> None:
    """A point counts up to half a pixel beyond the outer pixels' centres, and within one part in a hundred of its distance."""
    source = overhead(plates=((PACKET, np.s_[10:20, 10:20], 0.1),))
    still = Still(source, source.rgb, whole=True)
    world, ids = points(source), source.instance_ids.reshape(-1)
    assert still.look(flat(world), ids)[1].all()
    shift = np.array([0.02, 0, 0])
    rows, columns = np.indices(source.depth_m.shape)
    for by, shown in ((0.4, True), (-0.4, True), (0.6, False), (-0.6, False)):
        seen = still.look(flat(world + by * shift), ids)[1].reshape(rows.shape)
        edge = columns == (63 if by > 0 else 0)
        assert (seen[edge] == shown).all(), by
        seen = still.look(flat(world + by * np.array([0, 0.02, 0])), ids)[1].reshape(rows.shape)
        edge = rows == (0 if by > 0 else 47)
        assert (seen[edge] == shown).all(), by
    for up, shown in ((0.019, True), (-0.019, True), (0.021, False), (-0.021, False)):
        # Along the ray of the middle of the picture: the point stays within its pixel.
        at = np.array([[0.01, 0.01, up]])
        assert still.look(flat(at), np.array([TABLE], np.uint16))[1].tolist() == [shown]
        assert not still.look(flat(at), np.array([ROBOT], np.uint16))[1].any()


def test_a_slanted_surface_is_shown_between_pixels_as_well() -> None:
    """A wall whose depth grows by 4 % from row to row: half a row on, the nearest pixel is 2 % nearer or farther."""
    source = overhead()
    depth = np.repeat(1.04 ** np.arange(48, dtype=np.float64)[:, None], 64, 1)
    still = Still(replace(source, depth_m=depth.astype(np.float32)), source.rgb, whole=True)
    rows, columns = (i.reshape(-1) for i in np.indices((47, 63)))
    for down in (0.0, 0.25, 0.5, 0.75):
        between = (1 - down) * depth[rows, columns] + down * depth[rows + 1, columns]
        uv = np.stack([columns + 0.5, rows + down + 0.5], -1)
        world = source.camera.unproject(uv, between)
        ids = np.full(len(rows), TABLE, np.uint16)
        assert still.look(flat(world), ids)[1].all(), down
        beyond = source.camera.unproject(uv, 1.04 * between)
        assert not still.look(flat(beyond), ids)[1].any(), down


def test_pixels_that_show_something_else_as_well_do_not_count() -> None:
    source = overhead()
    blends = np.zeros((48, 64), bool)
    blends[10:14, 20:30] = True
    still = Still(source, source.rgb, whole=True, blends=blends)
    seen = still.look(flat(points(source)), source.instance_ids.reshape(-1))[1]
    assert np.array_equal(seen.reshape(48, 64) == 0, blends)


@pytest.mark.parametrize(("streak", "share"), [(1.0, 1.0), (2.5, 1.0), (3.75, 0.5), (5.1, 0.0)])
def test_a_surface_that_was_seen_far_more_slanted_is_hardly_shown(streak: float, share: float) -> None:
    """Drawn 2.5 times as wide it still counts, 5 times as wide no more, and another still may show it."""
    source = overhead()
    normals = np.zeros_like(source.normals)
    away = points(source) - [0, 0, 2]
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    side = np.cross(away, [0.0, 1, 0])
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    normals[:] = np.round(32767 * (0.15 * away + np.sqrt(1 - 0.15**2) * side))
    slanted = Still(replace(source, normals=normals), np.full((48, 64, 3), 50, np.uint8), whole=True)
    world, ids = flat(points(source)), source.instance_ids.reshape(-1)
    asked = np.full(len(ids), 0.15 * streak, np.float32)
    assert np.allclose(slanted.look(world, ids, asked)[1], share, atol=0.01)
    assert (slanted.look(world, ids)[1] == 1).all()
    inner = Still(source, np.full((48, 64, 3), 100, np.uint8))
    colours, shown = look_up([slanted, inner], world, ids, asked)
    assert np.allclose(shown, share or 1.0, atol=0.01)
    assert (colours == (50 if share else 100)).all()


def test_another_camera_s_still_shows_no_border_and_nothing_that_it_sees_from_the_side() -> None:
    source = overhead(plates=((PACKET, np.s_[10:20, 10:20], 0.1),))
    normals = source.normals.copy()
    normals[30:, :20] = (32767, 0, 0)
    still = Still(replace(source, normals=normals), source.rgb)
    seen = still.look(flat(points(source)), source.instance_ids.reshape(-1))[1].reshape(48, 64)
    wanted = np.ones((48, 64), bool)
    wanted[8:22, 8:22] = False
    wanted[12:18, 12:18] = True
    slanted, away = np.zeros((48, 64), bool), points(source) - [0, 0, 2]
    cosine = np.abs(away[..., 0]) / np.linalg.norm(away, axis=-1)
    slanted[30:, :20] = (cosine <= 0.2)[30:, :20]
    assert slanted.any()
    assert np.array_equal(seen, wanted & ~slanted)
    assert np.array_equal(still.solid, seen)


@pytest.mark.parametrize(("gain", "wanted"), [(1.0, [0, 7, 200]), (0.5, [0, 4, 100]), (2.0, [0, 14, 255])])
def test_colours_are_brought_to_the_other_camera_s_brightness(gain: float, wanted: list[int]) -> None:
    source = overhead()
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[..., 1], frame[..., 2] = 7, 200
    colours, seen = Still(source, frame, gain).look(flat(points(source)), source.instance_ids.reshape(-1))
    assert seen.all()
    assert (colours == wanted).all()


def test_colours_between_pixels_are_between_their_colours() -> None:
    source = overhead()
    frame = np.repeat(np.arange(0, 192, 3, dtype=np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    world = points(source)[:, :-1] + [0.005, 0, 0]  # a quarter of a pixel to the right
    colours, _ = Still(source, frame).look(flat(world), np.full(48 * 63, TABLE, np.uint16))
    assert np.abs(colours.reshape(48, 63, 3) - (frame[:, :-1] + 0.75)).max() <= 1


@settings(max_examples=5)
@given(st.integers(0, 2**31 - 1))
def test_the_first_still_that_shows_a_point_has_the_word(seed: int) -> None:
    """Of three stills that each show a random part; what none shows is told as such, and is black."""
    rng = np.random.default_rng(seed)
    source = SOURCE
    shown = [rng.random((48, 64)) < 0.4 for _ in range(3)]
    own = [replace(source, instance_ids=np.where(on, TABLE, ROBOT).astype(np.uint16)) for on in shown]
    several = [Still(s, np.full((48, 64, 3), 50 * (k + 1), np.uint8), whole=True) for k, s in enumerate(own)]
    colours, seen = look_up(several, flat(points(source)), source.instance_ids.reshape(-1))
    first = np.select(shown, [50, 100, 150], 0).reshape(-1)
    assert np.array_equal(seen, first > 0)
    assert np.array_equal(colours, np.repeat(first[:, None], 3, 1))
