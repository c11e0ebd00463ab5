# SPDX-License-Identifier: Apache-2.0
"""Re-materialised videos of the analytic scene for the verdict tests; made once per test process."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scenes import make_motion, make_scene_episode, ray_cast, scene_camera, solids_at, translation

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "prove"))
pytest.importorskip("pxr")
from faults import Faulty
from rematerialise import Maps, draw_look, load_maps

from retake.core.episode import Episode

FRAMES, SIZE = 33, (320, 240)


@lru_cache(maxsize=1)
def scene_episode() -> Episode:
    """The pick-and-drop of tests/scenes.py."""
    folder = tempfile.mkdtemp(prefix="retake-verdicts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_scene_episode(Path(folder) / "episode", frames=FRAMES, size=SIZE, shadows=False)


@lru_cache(maxsize=1)
def scene_maps() -> Maps:
    """Its exact maps."""
    return load_maps(scene_episode(), "front", 0, FRAMES)


@lru_cache(maxsize=1)
def frozen_maps() -> Maps:
    """The packet stays where it was let go (ray-cast again)."""
    motion = make_motion(FRAMES, 15.0, 0)
    poses = motion.T_world_packet.copy()
    poses[motion.release_frame :] = poses[motion.release_frame]
    return posed_maps(poses)


def posed_maps(poses: np.ndarray, links: np.ndarray | None = None) -> Maps:
    """The maps with the packet (T, 4, 4) and the links (T, L, 4, 4) at other poses, ray-cast again where they differ."""
    maps, motion = scene_maps(), make_motion(FRAMES, 15.0, 0)
    place = motion.T_world_packet[-1, :3, 3]
    tray = translation(float(place[0]), float(place[1]), 0.0)
    changed = replace(motion, T_world_packet=poses, T_world_link=motion.T_world_link if links is None else links)
    ids, normals, depth = maps.ids.copy(), maps.normals.copy(), maps.depth_m.copy()
    moved = np.abs(poses - motion.T_world_packet).max((1, 2)) + np.abs(changed.T_world_link - motion.T_world_link).max(
        (1, 2, 3)
    )
    for t in np.flatnonzero(moved > 1e-9):
        view = ray_cast(scene_camera("front", SIZE, motion, t), solids_at(changed, t, tray), shadows=False)
        ids[t], normals[t], depth[t] = view.instance_ids, view.normals, view.depth_m
    return replace(maps, ids=ids, normals=normals, depth_m=depth, bodies={**maps.bodies, maps.object_ids[0]: poses})


def paint(maps: Maps, world: str = "wood", seed: int = 1, kind: str = "", level: float = 0.0) -> np.ndarray:
    """A video (T, H, W, 3) uint8 of some maps."""
    painter = Faulty(draw_look(world, seed), maps, kind, level)
    return np.stack([painter.frame(t) for t in range(len(maps.ids))])


@lru_cache(maxsize=1)
def clean_video() -> np.ndarray:
    """A faithful take."""
    return paint(scene_maps())


@lru_cache(maxsize=1)
def faulty_video() -> np.ndarray:
    """A take whose packet does not fall."""
    return paint(frozen_maps())
