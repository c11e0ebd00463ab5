# SPDX-License-Identifier: Apache-2.0
"""Subjects have shapes: within the object's box, at its simulated pose, and known to gate and judge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.errors import VariantError
from retake.core.painter.materials import make_material
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.restage import Body, bodies_of, restaged, restaged_ids
from retake.core.painter.shapes import SHAPES, axes_of, mesh_of
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
            ids = restaged_ids(source.header, roles, bodies, source.instance_ids, source.camera, source.T_world_object)
            assert np.array_equal(ids, shown.instance_ids), "the judge's masks are the painter's"


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
