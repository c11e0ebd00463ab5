# SPDX-License-Identifier: Apache-2.0
"""Stills: what a world's cameras show each other. A painted world's takes agree, and what does not belong to it stays out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.files import read_json, write_json
from retake.core.painter.composite import CompositeBackend
from retake.core.painter.matting import Matte
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.stills import Still, beside, look_up, stills_beside
from retake.core.takes import TakeRequest, make_take
from retake.core.variants import load_catalogue, make_variants, source_frame
from retake.core.variants.carry import complete_by_rendering
from retake.core.variants.correspond import correspond, view_of
from retake.core.variants.gated import make_gated_variants
from retake.core.variants.make import read_frame
from retake.core.variants.roles import ROBOT, find_roles

WORLD = "garden"


class Completing(ProceduralBackend):
    """The painter as a model: it paints one camera, and of others what is missing."""

    name = "completing"
    parallel = False

    def complete(self, source, world, seed, known, missing, check_cancel=lambda: None):
        return complete_by_rendering(self, source, world, seed, known, missing, check_cancel)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(episode, folder of worlds): one world, both cameras, carried."""
    root = tmp_path_factory.mktemp("stills")
    episode = make_scene_episode(root / "e", frames=14, size=(320, 240), wrist=True)
    world = replace(load_catalogue().preset(WORLD), parameters={"subject": {"shape": ""}})
    make_gated_variants(episode, ("front", "wrist"), root / "w", worlds=(world,), backend=Completing(), gate=False)
    write_json(root / "skeleton" / "skeleton.json", {"sha256": "ab" * 32})
    return episode, root


def asked(made, camera: str, variant: Path | None = None) -> TakeRequest:
    episode, root = made
    return TakeRequest(episode.path, camera, root / "skeleton", variant or root / "w" / WORLD / camera, "p", frames=0)


def apart(made, frame: np.ndarray, index: int) -> float:
    """Median difference of the hand's frame from the front's first frame where both show one point of the scenery that the
    hand's own first frame does not show, bytes."""
    episode, root = made
    now, own, front = (source_frame(episode, c, k) for c, k in (("wrist", index), ("wrist", 0), ("front", 0)))
    found = correspond(view_of(now), view_of(front))
    new = found.seen & ~correspond(view_of(now), view_of(own)).seen
    new &= find_roles(now).role[now.instance_ids] < ROBOT
    assert new.sum() > 200
    painted = read_frame(root / "w" / WORLD / "front" / "frame.png")
    x, y = (np.round(found.place[..., k][new]).astype(int) for k in (0, 1))
    return float(np.median(np.abs(frame[new].astype(int) - painted[y, x]).mean(-1)))


def test_what_the_hand_comes_to_see_is_what_another_camera_shows_of_the_world(made):
    frames = list(CompositeBackend().generate(asked(made, "wrist")))
    episode, root = made
    first = source_frame(episode, "wrist", 0)
    alone = Matte(first, read_frame(root / "w" / WORLD / "wrist" / "frame.png"))
    last = len(frames) - 1
    near = apart(made, frames[last], last)
    assert near < 6
    # The control: by itself the camera fills with toned simulation.
    assert apart(made, alone.render(source_frame(episode, "wrist", last)), last) > 2 * near + 1, near


def test_a_first_frame_stays_as_it_was_painted_and_lone_cameras_need_no_other(made):
    _, root = made
    for camera in ("front", "wrist"):
        frames = list(CompositeBackend().generate(asked(made, camera)))
        assert np.array_equal(frames[0], read_frame(root / "w" / WORLD / camera / "frame.png"))


def test_pixels_of_a_still_are_found_at_their_own_points(made):
    episode, root = made
    source = source_frame(episode, "front", 3)
    painted = read_frame(root / "w" / WORLD / "front" / "frame.png")
    where = np.nonzero(source.depth_m > 0)
    uv = np.stack([where[1] + 0.5, where[0] + 0.5], -1)
    world = source.camera.unproject(uv, source.depth_m[where].astype(np.float64)).T.astype(np.float32)
    ids = source.instance_ids[where]
    own = Still(source, painted, whole=True)
    colours, seen = look_up([own], world, ids)
    assert seen.all()
    assert np.abs(colours.astype(int) - painted[where]).max() <= 1
    # Another instance's points, and points behind the camera, are not shown.
    assert not look_up([own], world, ids + 1)[1].any()
    behind = source.camera.unproject(uv, -source.depth_m[where].astype(np.float64)).T.astype(np.float32)
    assert not look_up([own], behind, ids)[1].any()
    # The first still that shows a point has the word; a brighter camera's still is darkened for the other.
    dark = Still(source, painted, gain=0.5)
    mixed, _ = look_up([dark, own], world, ids)
    solid = own.solid[where]
    assert 0 < solid.mean() < 1
    assert np.abs(mixed[solid] - 0.5 * painted[where][solid]).max() <= 1
    assert np.abs(mixed[~solid].astype(int) - painted[where][~solid]).max() <= 1
    assert len(look_up([], world, ids)[0]) == len(ids)


def test_only_frames_of_the_same_world_count(made, tmp_path):
    def record(**changes):
        folder = tmp_path / "w" / WORLD / "front"
        if folder.parent.exists():
            shutil.rmtree(folder.parent)
        shutil.copytree(made[1] / "w" / WORLD, folder.parent)
        found = read_json(folder / "variant.json")
        write_json(folder / "variant.json", {**found, **changes})
        return [v.source["camera"] for v, _ in beside(tmp_path / "w" / WORLD / "wrist")]

    assert record() == ["front"]
    assert record(seed=99) == []
    assert record(backend="another") == []
    assert (
        record(world={**read_json(made[1] / "w" / WORLD / "front" / "variant.json")["world"], "prompt": "else"}) == []
    )
    assert record(origin={"kind": "carried", "anchor": "third"}) == []
    assert record(source={"episode_sha256": "0" * 64, "camera": "front", "frame": 0}) == []
    assert record(schema="another") == []
    record()
    (tmp_path / "w" / WORLD / "front" / "frame.png").write_bytes(b"changed")
    assert not list(beside(tmp_path / "w" / WORLD / "wrist"))
    shutil.rmtree(tmp_path / "w" / WORLD / "front")
    assert not list(beside(tmp_path / "w" / WORLD / "wrist"))


def test_frames_that_were_painted_apart_are_not_one_world(made, tmp_path):
    episode, _ = made
    for camera in ("front", "wrist"):
        make_variants(episode, camera, tmp_path, worlds=[load_catalogue().preset(WORLD)], seed=2, backend=Completing())
    assert not list(beside(tmp_path / WORLD / "wrist"))
    assert stills_beside(tmp_path / WORLD / "front", episode, source_frame(episode, "front", 0)) == []


def test_a_take_is_made_again_when_another_camera_s_frame_of_its_world_changes(made, tmp_path):
    shutil.copytree(made[1] / "w", tmp_path / "w")
    request = replace(asked(made, "wrist", tmp_path / "w" / WORLD / "wrist"), frames=3)
    first = make_take(request, CompositeBackend(), tmp_path / "t")
    assert make_take(request, CompositeBackend(), tmp_path / "t") == first
    shutil.rmtree(tmp_path / "w" / WORLD / "front")
    assert make_take(request, CompositeBackend(), tmp_path / "t").inputs["matte"] != first.inputs["matte"]


def test_takes_of_worlds_that_the_painter_draws_depend_on_no_other_camera(made, tmp_path):
    episode, _ = made
    [variant] = make_variants(episode, "front", tmp_path, worlds=[load_catalogue().preset(WORLD)], seed=2)
    assert CompositeBackend().further_inputs(asked(made, "front", tmp_path / variant.id)) == {}
