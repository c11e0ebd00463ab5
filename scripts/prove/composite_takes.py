# SPDX-License-Identifier: Apache-2.0
"""The composite backend's own takes, judged: motion pixels of the simulation over other worlds are right by construction,
so every failed verdict is a false alarm. Resumable: one row per episode, camera and preset.

    python scripts/prove/composite_takes.py make --cache DIR --minutes 20
    python scripts/prove/composite_takes.py judge --cache DIR
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from painter_bench import CACHE, read_rows

from retake.core.episode import open_episode
from retake.core.painter.composite import CompositeBackend
from retake.core.takes.base import TakeRequest
from retake.core.variants.make import make_variants
from retake.core.variants.worlds import load_catalogue
from retake.core.verdicts.judge import examine
from retake.core.verdicts.run import read_picture
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.video import write_video

CAMERAS = ("front", "wrist")


@dataclass(frozen=True)
class Composite:
    """One take: which episode and camera, in which preset's world."""

    episode: Path
    camera: str
    world: str

    @property
    def key(self) -> str:
        """Identity in the cache."""
        return f"{self.episode.name}/{self.camera}/{self.world}"

    def video(self, cache: Path) -> Path:
        """Its file; the variant's frame lies beside it as .png."""
        return cache / "composite" / f"{self.key.replace('/', '-')}.mp4"


def every(cache: Path) -> list[Composite]:
    """All takes, preset by preset, so that a run cut short has seen every robot and camera."""
    episodes = [p.parent for p in sorted((cache / "episodes").glob("*/complete.json"))]
    known = {path: [c.name for c in open_episode(path).header.cameras] for path in episodes}
    presets = list(load_catalogue().sections["presets"])
    return [Composite(p, c, w) for w in presets for p in episodes for c in CAMERAS if c in known[p]]


def make(cache: Path, take: Composite) -> None:
    """Dress the first frame and let the composite backend make the take."""
    video, episode = take.video(cache), open_episode(take.episode)
    with tempfile.TemporaryDirectory() as temporary:
        world = load_catalogue().preset(take.world)
        variant = make_variants(episode, take.camera, Path(temporary), worlds=[world])[0]
        folder = Path(temporary) / variant.id
        request = TakeRequest(take.episode, take.camera, folder, folder, variant.prompt)
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "frame.png", video.with_suffix(".png"))
        write_video(video, CompositeBackend().generate(request), episode.header.fps)


def judge(cache: Path, take: Composite, settings: VerdictSettings) -> dict[str, Any]:
    """The row of a take."""
    episode, video = open_episode(take.episode), take.video(cache)
    began = time.process_time()
    first = read_picture(video.with_suffix(".png"))
    verdict = examine(video, episode, take.camera, first_frame=first, frames=len(episode), config=settings).verdict
    return {
        "key": take.key, "episode": take.episode.name, "robot": episode.header.robots[0].name, "camera": take.camera,
        "world": take.world, "overall": verdict.overall,
        "failed": [c.name for c in verdict.checks if c.status == "fail"],
        "unsure": [c.name for c in verdict.checks if c.status == "unsure"], "cpu_s": round(time.process_time() - began, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "judge"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long; the next call goes on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    cache, deadline, settings = options.cache, time.monotonic() + 60 * options.minutes, load_settings()
    done = read_rows(cache / "composite.jsonl")
    for take in every(cache):
        if time.monotonic() > deadline:
            return
        if options.what == "make" and not take.video(cache).exists():
            make(cache, take)
        elif options.what == "judge" and take.video(cache).exists() and take.key not in done:
            row = judge(cache, take, settings)
            with (cache / "composite.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(take.key, row["overall"], row["failed"], flush=True)


if __name__ == "__main__":
    main()
