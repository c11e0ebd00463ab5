# SPDX-License-Identifier: Apache-2.0
"""An episode with the shapes that a world gives its objects: every way to ask for an image tells the same, and each frame's
shapes are placed once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.painter import staged as module
from retake.core.painter.staged import StagedEpisode, staged
from retake.core.variants.roles import find_roles

RECIPE = {"subject": {"kind": "bun", "shape": "bun"}, "others": [{"kind": "tin", "shape": "bottle"}]}


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return make_scene_episode(tmp_path_factory.mktemp("staged") / "e", frames=4, size=(96, 72), wrist=True)


@pytest.fixture
def shown(episode: Episode) -> StagedEpisode:
    made = staged(episode, RECIPE)
    assert isinstance(made, StagedEpisode)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was placed."""
    asked: list[Any] = []
    place = module.placed

    def placed(*given: Any) -> Any:
        asked.append(given)
        return place(*given)

    monkeypatch.setattr(module, "placed", placed)
    return asked


@pytest.mark.parametrize("camera", ["front", "wrist"])
@pytest.mark.parametrize("index", [0, 2, -1])
def test_images_one_by_one_are_those_of_the_whole_frame(
    episode: Episode, shown: StagedEpisode, camera: str, index: int
) -> None:
    own, whole = episode.camera_frame(camera, index), shown.camera_frame(camera, index)
    for channel, found in (("depth", whole.depth_m), ("normals", whole.normals), ("instances", whole.instance_ids)):
        assert np.array_equal(shown.image(camera, channel, index), found)
        fresh = staged(episode, RECIPE)
        assert np.array_equal(fresh.image(camera, channel, index), found), "whichever is asked for first"
    assert np.array_equal(shown.image(camera, "rgb", index), own.rgb), "the picture is the episode's own"
    assert own.instance_ids is not None
    assert whole.instance_ids is not None
    changed = own.instance_ids != whole.instance_ids
    assert changed.any() or camera == "wrist"
    assert np.array_equal(whole.rgb[~changed], own.rgb[~changed])


def test_a_frame_s_shapes_are_placed_once(shown: StagedEpisode, asked: list[Any]) -> None:
    for index in (3, -1):
        for channel in ("instances", "depth", "normals", "rgb"):
            shown.image("front", channel, index)
        shown.camera_frame("front", index)
    assert len(asked) == 1
    assert shown.placements.keys() == {("front", 3)}
    shown.image("wrist", "depth", 3)
    assert len(asked) == 2
    assert np.array_equal(asked[0][3], Episode.image(shown, "front", "instances", 3))


def test_with_one_frame_more_than_are_kept_it_begins_anew(
    shown: StagedEpisode, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.MOST_PLACEMENTS == 256
    monkeypatch.setattr(module, "MOST_PLACEMENTS", 2)
    for index, kept in ((0, {0}), (1, {0, 1}), (0, {0, 1}), (2, {2}), (0, {0, 2})):
        shown.image("front", "instances", index)
        assert {k for _, k in shown.placements} == kept
    assert len(asked) == 4


def test_without_roles_nothing_is_placed(episode: Episode, shown: StagedEpisode) -> None:
    shown.image("front", "instances", 0)
    bare = replace(shown, roles=None)
    assert bare.placements == {}, "of another episode other frames are kept"
    assert "placements" not in repr(replace(shown, bodies={}))
    for channel in ("instances", "depth", "normals"):
        assert np.array_equal(bare.image("front", channel, 0), episode.image("front", channel, 0))
    assert np.array_equal(bare.camera_frame("front", 0).instance_ids, episode.camera_frame("front", 0).instance_ids)


def test_of_a_camera_without_maps_only_the_ids_are_known(episode: Episode, shown: StagedEpisode) -> None:
    cameras = tuple(
        replace(c, channels=("rgb", "depth", "instances")) if c.name == "front" else c for c in shown.header.cameras
    )
    poor = replace(shown, header=replace(shown.header, cameras=cameras))
    assert np.array_equal(poor.image("front", "instances", 0), shown.image("front", "instances", 0))
    assert np.array_equal(poor.image("front", "depth", 0), episode.image("front", "depth", 0))
    assert np.array_equal(poor.camera_frame("front", 0).instance_ids, episode.camera_frame("front", 0).instance_ids)
    assert poor.staging == shown.staging != ""
    none = replace(episode, header=replace(episode.header, cameras=cameras[:1]))
    assert staged(none, RECIPE) is none


def test_what_is_staged_is_told_by_its_shapes_alone(episode: Episode) -> None:
    def telling(**subject: str) -> str:
        return staged(episode, {"subject": subject, "others": []}).staging

    one = telling(kind="bun", shape="bun")
    assert len(one) == 16
    assert telling(kind="tin", shape="bun", colours="none") == one
    assert telling(kind="bun", shape="bottle") != one
    assert staged(episode, {"others": [{"shape": "bun"}]}) is episode
    assert staged(episode, {"subject": "bun"}) is episode
    made = staged(episode, RECIPE)
    assert isinstance(made, StagedEpisode)
    assert made.roles is not None
    assert made.roles.task_object == find_roles(module.source_frame(episode, "front", 0)).task_object
