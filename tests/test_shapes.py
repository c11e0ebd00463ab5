# SPDX-License-Identifier: Apache-2.0
"""Subjects have shapes: within the object's box, at its simulated pose, and known to gate and judge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.camera import Camera
from retake.core.errors import VariantError
from retake.core.painter.materials import make_material
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.restage import Body, _beside, _draw, bodies_of, placed, restaged
from retake.core.painter.shadows import ShadowField
from retake.core.painter.shapes import SHAPES, axes_of, mesh_of
from retake.core.painter.silhouettes import add_movers, bones
from retake.core.painter.staged import staged
from retake.core.painter.subjects import CONTRAST_LAB, colour_distance, make_subject
from retake.core.painter.surface import legs_of
from retake.core.variants import load_catalogue
from retake.core.variants.base import source_frame
from retake.core.variants.roles import ROBOT, find_roles
from retake.core.variants.worlds import recipe_of
from retake.core.verdicts.truth import read_truth


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    return make_scene_episode(tmp_path_factory.mktemp("shapes") / "e", frames=9, size=(320, 240), wrist=True)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_is_closed_and_fills_its_box(shape):
    mesh = mesh_of(shape)
    assert np.allclose(mesh.vertices.min(0), -1, atol=1e-5)
    assert np.allclose(mesh.vertices.max(0), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    volume = float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
    assert 1.0 < abs(volume) < 8.01, "a shape holds a good part of its box, and no more"
    for axis in (0, 1):  # a gripper that closes on the middle of the box touches the shape
        near = (np.abs(mesh.vertices[:, 1 - axis]) < 0.6) & (np.abs(mesh.vertices[:, axis]) > 0.75)
        assert near.any() or (shape, axis) == ("wedge", 1), (shape, axis)


def test_a_body_stands_in_the_object_s_box_whatever_its_proportions():
    for size in ((0.1, 0.05, 0.14), (0.2, 0.2, 0.02), (0.03, 0.12, 0.05)):
        for shape in SHAPES:
            body = Body.of(shape, size, (0.01, 0, -0.02))
            assert np.allclose(np.ptp(body.vertices, axis=0), size, rtol=1e-4)
            assert np.allclose((body.vertices.min(0) + body.vertices.max(0)) / 2, (0.01, 0, -0.02), atol=1e-6)
            assert sorted(axes_of(shape, size)) == [0, 1, 2]
    with pytest.raises(VariantError, match=r"'cloud'.*valid: .*bottle"):
        mesh_of("cloud")


@pytest.mark.parametrize("preset", ["bun_warehouse", "chips_conveyor", "vegetable_kitchen"])
def test_a_restaged_frame_keeps_everything_but_the_object(episode, preset):
    recipe = recipe_of(load_catalogue().preset(preset))
    for camera in (c.name for c in episode.header.cameras):
        for index in (0, 4, 8):
            source = source_frame(episode, camera, index)
            roles = find_roles(source)
            bodies = bodies_of(source.header, roles.task_object, recipe)
            shown = restaged(source, roles, bodies)
            before, after = source.mask("object:packet"), shown.mask("object:packet")
            assert not (after & ~before).any(), "no shape reaches beyond its box"
            if before.sum() > 150:
                assert 0.3 < after.sum() / before.sum() < 1
            assert np.array_equal(shown.instance_ids[~before], source.instance_ids[~before])
            assert np.array_equal(shown.depth_m[~before], source.depth_m[~before])
            rows, columns = np.nonzero(after)
            z = shown.depth_m[after].astype(np.float64)
            points = source.camera.unproject(np.stack([columns + 0.5, rows + 0.5], -1), z)
            T, half = source.T_world_object[0], np.array(source.header.objects[0].size_m) / 2
            beyond = np.abs((points - T[:3, 3]) @ T[:3, :3]) - half
            away = beyond.max(1, initial=-1) < 1.7 * z / source.camera.K[0, 0]
            assert away.size == 0 or away.mean() > 0.95, "within a pixel of its box, where a face is not seen edge-on"
            gripper = roles.role[source.instance_ids] == ROBOT
            assert np.array_equal(shown.robot_mask, gripper), "the robot is where it was, and nowhere else"
            at = placed(source.header, roles, bodies, source.instance_ids, source.camera, source.T_world_object)
            assert at is not None
            assert np.array_equal(at.carried(source.instance_ids), shown.instance_ids), (
                "the judge's masks are the painter's"
            )


def test_without_a_shape_nothing_changes(episode):
    recipe = recipe_of(load_catalogue().preset("bun_warehouse"))
    bare = {**recipe, "subject": {k: v for k, v in recipe["subject"].items() if k != "shape"}, "others": []}
    source = source_frame(episode, "front", 0)
    assert bodies_of(source.header, 0, bare) == {}
    assert restaged(source, find_roles(source), {}) is source
    assert staged(episode, bare) is episode
    assert staged(episode, None) is episode


def test_the_judge_knows_the_new_silhouette(episode):
    world = load_catalogue().preset("bun_warehouse")
    shown = staged(episode, recipe_of(world))
    plain, truth = (read_truth(e, "front", 0, 3) for e in (episode, shown))
    part = next(i for i, p in enumerate(plain.parts) if p.name == "packet")
    assert shown.content_sha256 == episode.content_sha256
    assert truth.area[0, part] < plain.area[0, part]
    frame = shown.camera_frame("front", 0)
    assert np.array_equal(frame.instance_ids, shown.image("front", "instances", 0))
    assert np.array_equal(frame.rgb.shape, episode.image("front", "rgb", 0).shape)
    # What is painted as the object is what the masks say: its colours end where the mask ends.
    painted = ProceduralBackend().render(source_frame(episode, "front", 0), world, 0).astype(int)
    mask = ProceduralBackend().shown(source_frame(episode, "front", 0), world).mask("object:packet")
    box = source_frame(episode, "front", 0).mask("object:packet")
    inside, freed = painted[mask].mean(0), painted[box & ~mask].mean(0)
    assert np.abs(inside - freed).max() > 15


@pytest.mark.parametrize("first", ["instances", "depth", "normals"])
def test_it_is_the_same_frame_whatever_is_asked_for_first(episode, first):
    shown = staged(episode, recipe_of(load_catalogue().preset("chips_conveyor")))
    for camera in (c.name for c in episode.header.cameras):
        for index in (0, 5, -1):
            images = {
                channel: shown.image(camera, channel, index) for channel in (first, "depth", "instances", "normals")
            }
            frame = shown.camera_frame(camera, index)
            assert np.array_equal(images["instances"], frame.instance_ids)
            assert np.array_equal(images["depth"], frame.depth_m)
            assert np.array_equal(images["normals"], frame.normals)
            assert np.array_equal(shown.image(camera, "rgb", index), episode.image(camera, "rgb", index))


def test_every_subject_of_the_catalogue_has_a_shape_that_exists():
    for name, spec in load_catalogue().sections["subjects"].items():
        assert spec.get("shape") in SHAPES, name
    assert dataclasses.is_dataclass(Body)


def test_nothing_of_a_subject_vanishes_into_its_surface():
    known = load_catalogue()
    subjects = {n: make_subject(s, (0.12, 0.05, 0.14), (0, 0, 0), 5) for n, s in known.sections["subjects"].items()}
    for name, spec in known.sections["surfaces"].items():
        ground = make_material(spec, 3)
        for what, subject in subjects.items():
            shown = subject.apart_from(ground)
            mean = np.mean([t.levels[-1].mean((0, 1)) for t in (shown.front, shown.side, shown.top)], axis=0)
            assert colour_distance(mean, ground.levels[-1].mean((0, 1))) >= 0.9 * CONTRAST_LAB, (what, name)


def test_tables_stand_on_legs_that_stay_under_them():
    low, high = np.array([-0.4, 0.1], np.float32), np.array([0.6, 0.9], np.float32)
    legs = legs_of(low, high, 0.75, 0.0)
    assert len(legs) == 4
    for first, last in legs:
        assert (first[:2] >= low).all()
        assert (last[:2] <= high).all()
        assert (first[2], round(float(last[2]), 2)) == (0.0, 0.73)
    assert legs_of(low, high, 0.2, 0.0) == []
    assert legs_of(low, low + 9, 0.75, 0.0) == []


@pytest.mark.parametrize("shape", ["box", "bottle"])
@pytest.mark.parametrize("cut", [(0, 0), (31, 0), (0, 27), (43, 33), (-37, -30)])
def test_a_body_at_the_edge_of_the_picture_is_drawn_as_the_part_of_a_larger_one(shape, cut):
    """A picture that begins `cut` pixels later (or ends earlier: less than 0) shows the same up to its first and last pixels."""
    body, T = Body.of(shape, (0.1, 0.06, 0.14), (0, 0, 0)), np.eye(4)
    T[2, 3] = 0.6
    K = np.array([[220.0, 0, 40.0], [0, 220.0, 36.0], [0, 0, 1]])
    cropped = K.copy()
    first = tuple(max(0, by) for by in cut)
    cropped[:2, 2] -= first
    planes = []
    for matrix, size in ((K, (80, 72)), (cropped, (80 - abs(cut[0]), 72 - abs(cut[1])))):
        camera = Camera(matrix, np.eye(4), size)
        drawn = _draw(body, T, camera)
        faces, depth = np.full(size[::-1], -1), np.zeros(size[::-1])
        faces[drawn.window] = drawn.faces
        depth[drawn.window][drawn.faces >= 0] = drawn.surface(drawn.faces >= 0)[0]
        planes.append((faces, depth))
    (whole, far), (part, near) = planes
    seen = np.stack(np.nonzero(whole >= 0)[::-1])
    uv, _ = Camera(K, np.eye(4), (80, 72)).project(body.vertices + np.array([0, 0, 0.6]))
    assert seen.shape[1] > 300
    assert np.abs(seen.min(1) - uv.min(0)).max() < 1.5
    assert np.abs(seen.max(1) + 1 - uv.max(0)).max() < 1.5
    part_of = np.s_[first[1] : first[1] + len(part), first[0] : first[0] + part.shape[1]]
    whole, far = whole[part_of], far[part_of]
    assert ((part >= 0) != (whole >= 0)).sum() <= 2  # a polygon's edge is rounded anew where it is clipped
    both = (part >= 0) & (whole >= 0)
    assert np.abs(near[both] - far[both]).max() < 2e-3
    if cut[0] and cut[1]:
        edge = 0 if cut[0] > 0 else -1
        assert (part[edge] >= 0).any()
        assert (part[:, edge] >= 0).any()


@given(st.integers(0, 2**31 - 1), st.booleans())
def test_the_nearest_known_pixel_is_the_nearest(seed, far):
    rng = np.random.default_rng(seed)
    freed, known = np.zeros((60, 70), bool), np.zeros((60, 70), bool)
    y, x = rng.integers(0, 30, 2)
    freed[y : y + 6, x : x + 5] = True
    if far:  # nothing within reach of the first look
        known[58:, 66:] = True
    else:
        known = (rng.random(known.shape) < 0.05) & ~freed
    known &= ~freed
    assert _beside(freed, np.zeros_like(known)) is None
    (rows, columns), (from_rows, from_columns) = (np.divmod(at, freed.shape[1]) for at in _beside(freed, known))
    assert np.array_equal(np.stack([rows, columns]), np.stack(np.nonzero(freed)))
    assert known[from_rows, from_columns].all()
    places = np.argwhere(known)
    for row, column, *found in zip(rows, columns, from_rows, from_columns, strict=True):
        least = np.hypot(*(places - [row, column]).T).min()
        assert np.hypot(found[0] - row, found[1] - column) <= 1.08 * least + 1e-9  # the distance transform's own error


def test_what_shades_is_the_object_s_shape_where_it_has_one_and_else_its_box(episode, monkeypatch):
    source = source_frame(episode, "front", 0)
    count = len(source.header.objects)
    assert count >= 1
    added: list[np.ndarray] = []
    monkeypatch.setattr(ShadowField, "add_box", lambda self, corners: added.append(corners))
    field, none = ShadowField(np.array([0, 0, 1.0], np.float32), np.zeros(3)), np.zeros((0, 3), np.float32)
    shape = Body.of("bottle", (0.1, 0.1, 0.2), (0, 0, 0))
    for bodies, own in ((None, None), ({}, None), ({0: shape}, shape), ({5: shape}, None)):
        added.clear()
        add_movers(field, source, none, [0], bodies)
        spec, T = source.header.objects[0], source.T_world_object[0]
        local = (added[0] - T[:3, 3]) @ T[:3, :3]
        if own is not None:
            assert np.allclose(local, own.vertices, atol=1e-5)
        else:
            assert np.allclose(np.ptp(local, axis=0), spec.size_m, atol=1e-5)
            assert np.allclose(local.mean(0), spec.center_m, atol=1e-5)
            assert len(np.unique(local.round(5), axis=0)) == 8


def test_bones_run_from_every_link_to_its_parent(episode):
    source = source_frame(episode, "front", 0)
    points = bones(source)
    robot, poses = source.header.robots[0], source.T_world_link[0]
    pairs = [(parent, child) for child, parent in enumerate(robot.parents) if parent >= 0]
    assert points.shape == (24 * len(pairs), 3)
    for k, (parent, child) in enumerate(pairs):
        bone = points[24 * k : 24 * k + 24]
        assert np.allclose(bone[[0, -1]], [poses[parent][:3, 3], poses[child][:3, 3]], atol=1e-5)
        assert np.allclose(np.diff(bone, n=2, axis=0), 0, atol=1e-5)
