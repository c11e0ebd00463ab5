# SPDX-License-Identifier: Apache-2.0
"""A run folder of nine small frames with a skeleton and one first frame."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent.parent))
from scenes import make_scene_episode

from retake.core.files import sha256_file, write_json
from retake.core.skeleton import make_skeleton


def make_run(folder: Path) -> Path:
    """The run's folder."""
    run = folder / "run"
    episode = make_scene_episode(run / "episode", frames=12, size=(96, 64), only=range(9))
    write_json(run / "run.json", {"schema": "retake.run/2", "config": {}, "stages": {}})
    frame = run / "variants" / "kitchen" / "front" / "frame.png"
    frame.parent.mkdir(parents=True)
    cv2.imwrite(str(frame), cv2.cvtColor(episode.image("front", "rgb", 0), cv2.COLOR_RGB2BGR))
    write_json(frame.parent / "variant.json", {
        "schema": "retake.variant/1", "id": "kitchen/front", "seed": 0, "prompt": "a packet on a table", "negative_prompt": "",
        "world": {"name": "kitchen", "environment": "a kitchen", "surface": "wood", "subject": "a packet", "lighting": "day"},
        "frame_sha256": sha256_file(frame), "backend": "folder", "backend_version": "1", "licence": "Apache-2.0",
        "source": {"camera": "front"},
    })  # fmt: skip
    make_skeleton(episode, "front", run / "skeleton" / "front")
    return run
