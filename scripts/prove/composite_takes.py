# SPDX-License-Identifier: Apache-2.0
"""The composite backend's own takes, judged: motion pixels of the simulation over other worlds are right by construction,
so every failed verdict is a false alarm. Resumable: one row per episode, camera and preset.

    python scripts/prove/composite_takes.py --cache DIR --minutes 20
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import cv2
from painter_bench import CACHE, read_rows

from retake.core.episode import open_episode
from retake.core.painter.composite import CompositeBackend
from retake.core.takes.base import TakeRequest
from retake.core.variants.make import make_variants, read_frame
from retake.core.variants.worlds import load_catalogue
from retake.core.verdicts.judge import examine
from retake.core.verdicts.settings import load_settings
from retake.core.video import write_video

CAMERAS = ("front", "wrist", "side")


def rows_of(cache: Path, deadline: float) -> None:
    """Make and judge what is missing, preset by preset over all episodes and cameras."""
    settings, done = load_settings(), read_rows(cache / "composite.jsonl")
    episodes = [p.parent for p in sorted((cache / "episodes").glob("*/complete.json"))]
    for world in (load_catalogue().preset(name) for name in load_catalogue().sections["presets"]):
        for camera in CAMERAS:
            for path in episodes:
                key = f"{path.name}/{camera}/{world.name}"
                if key in done or time.monotonic() > deadline:
                    continue
                episode = open_episode(path)
                if camera not in [c.name for c in episode.header.cameras]:
                    continue
                folder = cache / "composite" / path.name
                variant = make_variants(episode, camera, folder, worlds=[world])[0]
                request = TakeRequest(path, camera, folder / "none", folder / variant.id, variant.prompt)
                video = folder / f"{camera}-{world.name}.mp4"
                write_video(video, CompositeBackend().generate(request), episode.header.fps)
                began = time.process_time()
                first = read_frame(folder / variant.id / "frame.png")
                verdict = examine(
                    video, episode, camera, first_frame=first, frames=len(episode), config=settings
                ).verdict
                row = {
                    "key": key, "episode": path.name, "robot": episode.header.robots[0].name, "camera": camera,
                    "world": world.name, "overall": verdict.overall,
                    "failed": [c.name for c in verdict.checks if c.status == "fail"],
                    "unsure": [c.name for c in verdict.checks if c.status == "unsure"],
                    "cpu_s": round(time.process_time() - began, 2),
                }  # fmt: skip
                with (cache / "composite.jsonl").open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                if verdict.overall != "fail":
                    video.unlink()
                shutil.rmtree(folder / variant.id, ignore_errors=True)
                print(key, verdict.overall, row["failed"], flush=True)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--minutes", type=float, default=1e9)
    chosen = parser.parse_args()
    rows_of(chosen.cache, time.monotonic() + 60 * chosen.minutes)
