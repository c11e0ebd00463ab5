# SPDX-License-Identifier: Apache-2.0
"""Pictures to look at: worlds through three cameras, and subjects before and after they had shapes."""

from __future__ import annotations

import argparse
from dataclasses import replace

import cv2
import numpy as np
from views_material import ROOT, Film, cameras_with_maps, halved, recorded

from retake.core.episode import open_episode
from retake.core.variants.base import source_frame
from retake.core.variants.worlds import load_catalogue

SHOWN = ("bun_warehouse", "kitchen", "conveyor_blue", "living_room", "workshop", "garden", "night_terrace", "hospital")
SHEET = ROOT / "docs" / "images" / "views.jpg"


def sheet(options: argparse.Namespace) -> None:
    """docs/images/views.jpg: eight worlds, two in a row, each through the first three cameras of the episode that has most."""
    episodes = [open_episode(path) for path in recorded(options.episodes)]
    episode = max(episodes, key=lambda e: len(e.header.cameras))
    cameras = cameras_with_maps(episode)[:3]
    rows = []
    for name in SHOWN:
        world = load_catalogue().preset(name)
        rows.append(np.hstack([Film(episode, camera, world)[len(episode) // 2] for camera in cameras]))
        print(name, flush=True)
    half = len(rows) // 2
    picture = np.hstack([np.vstack(rows[:half]), np.vstack(rows[half:])])
    SHEET.write_bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


SUBJECTS = ("bun", "chips_blue", "bell_pepper_red", "eggplant", "tomato_tin", "juice_bottle", "milk_carton", "towel")
APPROACH = 10
"""Frame in which the hand looks at what it is about to grasp."""
SHAPES = ROOT / "docs" / "images" / "subjects.jpg"


def subjects(options: argparse.Namespace) -> None:
    """docs/images/subjects.jpg: subjects as the wrist camera sees them before the grasp: simulated, as a picture on the sides
    of the simulated box, as a shape."""
    path = recorded(options.episodes)[0]
    episode = open_episode(path)
    source = halved(source_frame(episode, "wrist", APPROACH))
    task = next(o.name for o in episode.header.objects if o.movable)
    x, y, w, h = cv2.boundingRect(source.mask(f"object:{task}").astype(np.uint8))
    side = min(int(1.3 * max(w, h)), min(source.rgb.shape[:2]))
    top, left = (
        int(np.clip(c - side // 2, 0, n - side))
        for c, n in zip((y + h // 2, x + w // 2), source.rgb.shape, strict=False)
    )
    columns = []
    for name in SUBJECTS:
        world = replace(load_catalogue().preset("kitchen"), subject=name)
        boxed = replace(world, parameters={"subject": {"shape": ""}})
        shown = [source.rgb, *(Film(episode, "wrist", w)[APPROACH] for w in (boxed, world))]
        cut = [
            cv2.resize(f[top : top + side, left : left + side], (200, 200), interpolation=cv2.INTER_CUBIC)
            for f in shown
        ]
        columns.append(np.vstack(cut))
    SHAPES.write_bytes(cv2.imencode(".jpg", np.hstack(columns)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())
