# SPDX-License-Identifier: Apache-2.0
"""What stands between light and scenery: robots by their links' points and bones, objects by their boxes, tables on legs; and
episodes whose objects have other shapes, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overhead import overhead
from scenes import make_scene_episode
from strategies import random_poses, random_robot

from retake.core.episode import Episode
from retake.core.painter.restage import Body
from retake.core.painter.shadows import ShadowField
from retake.core.painter.silhouettes import add_movers, bones, box_corners, posed
from retake.core.painter.staged import StagedEpisode, staged
from retake.core.painter.surface import LEG_M, Surface, legs_of


class Field(ShadowField):
    """Notes what is added."""

    def __init__(self) -> None:
        self.points: list[tuple[np.ndarray, int]] = []
        self.boxes: list[np.ndarray] = []

    def add_points(self, points: np.ndarray, grow: int = 1) -> None:
        self.points.append((points, grow))

    def add_box(self, corners: np.ndarray) -> None:
        self.boxes.append(corners)


@given(st.integers(0, 2**31 - 1))
def test_robots_are_where_their_links_are(seed: int) -> None:
    """Of every robot whose shape is known; a robot more or less known than recorded disturbs nobody."""
    rng = np.random.default_rng(seed)
    poses = tuple(random_poses(rng, count) for count in (3, 2))
    own = [rng.normal(size=(count, 3)).astype(np.float32) for count in (5, 4, 3)]
    clouds = (((0, own[0]), (2, own[1])), ((1, own[2]),))
    source = replace(overhead(), T_world_link=poses)
    wanted = [p @ T[:3, :3].T + T[:3, 3] for p, T in zip(own, (poses[0][0], poses[0][2], poses[1][1]), strict=True)]
    assert np.allclose(posed(clouds, source), np.concatenate(wanted), atol=1e-5)
    assert np.allclose(posed(clouds[:1], source), np.concatenate(wanted[:2]), atol=1e-5)
    assert posed((), source).shape == (0, 3)


def test_movers_are_robots_bones_and_the_objects_that_are_asked_for() -> None:
    """Points are grown by a cell; bones, which stand for whole links, by three."""
    rng = np.random.default_rng(2)
    robot = random_robot(rng, "arm")
    source = overhead(packet=(0.1, 0.2, 0.3))
    source = replace(
        source, header=replace(source.header, robots=(robot,)), T_world_link=(random_poses(rng, len(robot.links)),)
    )
    cloud = rng.normal(size=(6, 3)).astype(np.float32)
    field = Field()
    add_movers(field, source, cloud, {0})
    (points, grown), (lines, wider) = field.points
    assert points is cloud
    assert np.array_equal(lines, bones(source))
    assert len(lines) == 24 * len(robot.joints)
    assert (grown, wider) == (1, 3)
    (corners,) = field.boxes
    assert np.allclose(np.sort(corners, 0)[[0, -1]], [[0.05, 0.175, 0.2], [0.15, 0.225, 0.4]], atol=1e-6)
    field = Field()
    add_movers(field, source, cloud, ())
    assert field.boxes == []
    body = Body.of("ball", (0.2, 0.2, 0.2), (0, 0, 0))
    add_movers(field, source, cloud, [0], {0: body})
    assert np.allclose(field.boxes[0], body.vertices + np.array([0.1, 0.2, 0.3]), atol=1e-6)


def test_a_box_has_the_eight_corners_of_its_extents() -> None:
    found = {tuple(corner) for corner in box_corners((2.0, 4.0, 6.0), (10.0, 20.0, 30.0)).tolist()}
    assert found == {(x, y, z) for x in (9, 11) for y in (18, 22) for z in (27, 33)}


@pytest.mark.parametrize(("top", "floor", "side", "count"), [
    (0.0, -0.7, 0.6, 4), (-0.39, -0.7, 0.6, 4), (-0.41, -0.7, 0.6, 0), (0.75, 0.0, 0.25, 4), (0.75, 0.0, 0.23, 0),
    (0.75, 0.0, 3.9, 4), (0.75, 0.0, 4.1, 0),
])  # fmt: skip
def test_a_table_stands_on_four_legs_that_fit_under_it(top: float, floor: float, side: float, count: int) -> None:
    """Where it is high enough for legs, and neither so narrow that they touch nor so large that it is the floor."""
    low = np.array([1.0, -2.0], np.float32)
    for other in (0.7, 3.0):
        high = low + np.array([side, other], np.float32)
        legs = legs_of(low, high, top, floor)
        assert len(legs) == count
        for first, last in legs:
            assert np.allclose(last - first, [LEG_M, LEG_M, top - floor - 0.02], atol=1e-5)
            assert first[2] == np.float32(floor)
        if legs:
            outer = np.array(
                [np.min([leg[0] for leg in legs], 0)[:2] - low, high - np.max([leg[1] for leg in legs], 0)[:2]]
            )
            assert np.allclose(outer, LEG_M, atol=1e-5), "a leg's width from each edge"


def test_a_surface_that_nobody_sees_is_at_the_origin() -> None:
    spec = {"kind": "steel", "colours": ["#808080", "#606060"]}
    surface = Surface(spec, 0, np.ones((5, 3), np.float32), np.zeros(5, bool))
    assert surface.low.tolist() == surface.high.tolist() == [0, 0]
    assert surface.side_texture is surface.texture


# -- staged episodes ----------------------------------------------------------------------------------------------------

RECIPE = {"subject": {"kind": "bun", "shape": "bottle"}}


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Episode]:
    return make_scene_episode(
        tmp_path_factory.mktemp("staged") / "e", frames=2, size=(80, 60), wrist=True, shadows=False
    )


def test_every_image_of_a_staged_episode_shows_the_same_shapes(episode: Episode) -> None:
    """Pictures are the recorded ones: nobody rendered others."""
    shown = staged(episode, RECIPE)
    assert isinstance(shown, StagedEpisode)
    for camera in ("front", "wrist"):
        frame = shown.camera_frame(camera, 1)
        assert np.array_equal(frame.depth_m, shown.image(camera, "depth", 1))
        assert np.array_equal(frame.normals, shown.image(camera, "normals", 1))
        assert np.array_equal(frame.instance_ids, shown.image(camera, "instances", 1))
        assert np.array_equal(shown.image(camera, "rgb", 1), episode.image(camera, "rgb", 1))
        assert np.array_equal(frame.K, episode.camera(camera, 1).K)
        assert np.array_equal(frame.T_camera_world, episode.camera(camera, 1).T_camera_world)
    for channel in ("depth", "normals", "instances"):
        assert not np.array_equal(shown.image("front", channel, 1), episode.image("front", channel, 1))


def test_a_camera_that_lacks_maps_shows_what_was_recorded(episode: Episode) -> None:
    """Its ids can be staged; what is no map of it stays as it is."""
    front, wrist = episode.header.cameras
    part = replace(wrist, channels=("rgb", "depth", "instances"))
    shown = staged(replace(episode, header=replace(episode.header, cameras=(front, part))), RECIPE)
    assert isinstance(shown, StagedEpisode)
    assert np.array_equal(shown.image("wrist", "depth", 1), episode.image("wrist", "depth", 1))
    assert np.array_equal(shown.camera_frame("wrist", 1).depth_m, episode.image("wrist", "depth", 1))
    assert not np.array_equal(shown.image("front", "depth", 1), episode.image("front", "depth", 1))
    bare = StagedEpisode(**{f.name: getattr(episode, f.name) for f in fields(Episode)})
    for channel in ("depth", "instances"):
        assert np.array_equal(bare.image("front", channel, 1), episode.image("front", channel, 1))
    assert np.array_equal(bare.camera_frame("front", 1).depth_m, episode.image("front", "depth", 1))


@pytest.mark.parametrize("recipe", [None, {}, {"subject": "bun"}, {"subject": {"kind": "bun"}}])
def test_without_a_shape_an_episode_is_shown_as_it_is(episode: Episode, recipe: Any) -> None:
    assert staged(episode, recipe) is episode


def test_a_recording_without_maps_cannot_be_staged(episode: Episode) -> None:
    """With one camera of all maps it can."""
    front, wrist = (replace(spec, channels=("rgb", "instances")) for spec in episode.header.cameras)
    poor = replace(episode, header=replace(episode.header, cameras=(front, wrist)))
    assert staged(poor, RECIPE) is poor
    rich = replace(episode, header=replace(episode.header, cameras=(front, episode.header.cameras[1])))
    assert isinstance(staged(rich, RECIPE), StagedEpisode)


def test_episodes_staged_alike_are_told_from_others_by_their_shapes(episode: Episode, tmp_path: Path) -> None:
    shapes = {
        name: staged(episode, {"subject": {"kind": "bun", "shape": name}}).staging for name in ("bottle", "ball", "can")
    }
    assert len(set(shapes.values())) == 3
    assert all(len(shape) == 16 for shape in shapes.values())
    assert staged(episode, {"subject": {"kind": "tin", "shape": "ball"}}).staging == shapes["ball"]
