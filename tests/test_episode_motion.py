# SPDX-License-Identifier: Apache-2.0
"""Motion vectors against an analytic world: where a pixel's surface is said to go, a ray finds that very surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.episode.motion import motion_px
from retake.core.episode.parts import rigid_parts
from retake.core.errors import EpisodeError
from retake.core.lens import Lens

NEAR_M = 0.2
"""The wrist's camera stands so close to a link that rays begin inside of it, where a surface has no other side."""


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return make_scene_episode(tmp_path_factory.mktemp("motion") / "episode", frames=12, size=(160, 120), wrist=True)


def surface(episode: Episode, camera: str, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (H, W, 3) in the frame of the part they lie on, part indices (H, W), hit (H, W)."""
    _, table, poses = rigid_parts(episode)
    part = table[episode.image(camera, "instances", index)]
    depth = episode.image(camera, "depth", index)
    view = episode.camera(camera, index)
    world = view.unproject(view.pixel_grid(), depth.astype(np.float64))
    T = np.linalg.inv(np.concatenate([np.eye(4)[None], poses[index]]))[part]
    return (T[..., :3, :3] @ world[..., None])[..., 0] + T[..., :3, 3], part, depth > 0


@pytest.mark.parametrize("camera", ["front", "wrist"])
@pytest.mark.parametrize(("index", "to"), [(2, None), (8, 7), (9, 11), (6, 6)])
def test_a_surface_is_found_where_its_motion_ends(episode: Episode, camera: str, index: int, to: int | None) -> None:
    """In the picture drawn by rays at the other frame: same part, same place on it, within the pixel's footprint."""
    end = index + 1 if to is None else to
    motion = motion_px(episode, camera, index, to)
    here, part, hit = surface(episode, camera, index)
    there, part_there, hit_there = surface(episode, camera, end)
    assert np.array_equal(np.isfinite(motion[..., 0]), hit)
    near = episode.image(camera, "depth", index) < NEAR_M
    v, u = np.nonzero(hit & ~near)
    landed = np.floor(motion[v, u] + np.stack([u, v], 1) + 0.5).astype(int)
    inside = ((landed >= 0) & (landed < [hit.shape[1], hit.shape[0]])).all(1)
    v, u, landed = v[inside], u[inside], landed[inside]
    _, _, poses = rigid_parts(episode)
    moved = np.concatenate([np.eye(4)[None], poses[end]])[part[v, u]]
    world = (moved[:, :3, :3] @ here[v, u][..., None])[..., 0] + moved[:, :3, 3]
    expected = episode.camera(camera, end).project(world)[1]
    depth = episode.image(camera, "depth", end)[landed[:, 1], landed[:, 0]]
    footprint = expected / episode.camera(camera, end).K[0, 0]
    # Nearer than expected: something hides it there, perhaps the part itself. Nothing may be farther: it would be in the way.
    hidden = hit_there[landed[:, 1], landed[:, 0]] & (depth < expected - 4 * footprint)
    assert hidden.mean() < 0.4, "most surfaces stay in sight"
    seen = ~hidden
    same = part_there[landed[:, 1], landed[:, 0]] == part[v, u]
    apart = np.linalg.norm(there[landed[:, 1], landed[:, 0]] - here[v, u], axis=1)
    assert (same & (apart < 3 * footprint))[seen].mean() > 0.9, (
        "but for pixels on an outline or seen at a grazing angle"
    )
    if end == index:
        assert np.abs(motion[hit]).max() < 1e-4


def test_scenery_stands_still_before_a_fixed_camera_and_the_robot_moves(episode: Episode) -> None:
    motion = motion_px(episode, "front", 3, 6)
    _, part, hit = surface(episode, "front", 3)
    assert np.abs(motion[hit & (part == 0)]).max() < 1e-3
    assert np.linalg.norm(motion[hit & (part > 0)], axis=1).max() > 2.0


def test_a_lens_bends_the_motion(tmp_path: Path) -> None:
    lens = Lens("opencv-pinhole", (-0.2, 0.05, *(0.0,) * 10))
    bent = make_scene_episode(tmp_path / "episode", frames=6, size=(160, 120), lens=lens)
    motion = motion_px(bent, "front", 2, 4)
    here, part, hit = surface(bent, "front", 2)
    _, _, poses = rigid_parts(bent)
    moved = np.concatenate([np.eye(4)[None], poses[4]])[part]
    world = (moved[..., :3, :3] @ here[..., None])[..., 0] + moved[..., :3, 3]
    uv, _ = bent.camera("front", 4).project(world)
    assert np.abs(uv - bent.camera("front", 2).pixel_grid() - motion)[hit].max() < 1e-2


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    plain = make_scene_episode(tmp_path / "episode", frames=3, size=(32, 24), channels=("rgb", "depth"))
    with pytest.raises(EpisodeError, match="instances"):
        motion_px(plain, "front", 0)


def test_the_last_frame_has_no_next_one(episode: Episode) -> None:
    with pytest.raises(IndexError):
        motion_px(episode, "front", len(episode) - 1)
