# SPDX-License-Identifier: Apache-2.0
"""The composite backend's own takes, judged: motion pixels of the simulation over other worlds are right by construction,
so every failed verdict is a false alarm. Resumable: one row per episode, camera and preset.

    python scripts/prove/composite_takes.py --cache DIR --minutes 20

Both demo robots (81 frames) and three converted robots (`zoo_episodes`, 49 frames), two episodes each, front and wrist,
all presets, 320x240: a verdict looks at 320 px anyway. Takes are encoded and read back as users' are, and not kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from film_episodes import film_episode
from painter_bench import CACHE, read_rows
from zoo_episodes import ROBOTS, zoo_episode

from retake.core.episode import open_episode
from retake.core.painter.composite import CompositeBackend
from retake.core.takes.base import TakeRequest
from retake.core.variants.make import make_variants
from retake.core.variants.worlds import load_catalogue
from retake.core.verdicts.judge import examine
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.run import read_picture
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.video import write_video

CAMERAS = ("front", "wrist")
DEMO = (("panda", 51), ("sixaxis", 51), ("panda", 52), ("sixaxis", 52))
ZOO_SEEDS = (1, 2)


@dataclass(frozen=True)
class Composite:
    """One take: which episode and camera, in which preset's world."""

    episode: Path
    camera: str
    world: str

    @property
    def key(self) -> str:
        """Identity in the rows."""
        return f"{self.episode.name}/{self.camera}/{self.world}"


def every(cache: Path) -> list[Composite]:
    """All takes, camera by camera: an episode's geometry is read once for all its presets."""
    episodes = [film_episode(cache / "episodes", *demo).path for demo in DEMO]
    for seed in ZOO_SEEDS:
        made = [zoo_episode(cache / "zoo_episodes", robot, seed) for robot in ROBOTS]
        episodes += [episode.path for episode in made if episode is not None]
    known = {path: [c.name for c in open_episode(path).header.cameras] for path in episodes}
    presets = list(load_catalogue().sections["presets"])
    return [Composite(p, c, w) for p in episodes for c in CAMERAS if c in known[p] for w in presets]


def row(take: Composite, settings: VerdictSettings) -> dict[str, Any]:
    """Dress the first frame, let the composite backend make the take, judge it."""
    episode = open_episode(take.episode)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        world = load_catalogue().preset(take.world)
        variant = make_variants(episode, take.camera, Path(temporary), worlds=[world])[0]
        folder, video = Path(temporary) / variant.id, Path(temporary) / "take.mp4"
        request = TakeRequest(take.episode, take.camera, folder, folder, variant.prompt, frames=len(episode))
        write_video(video, CompositeBackend().generate(request), episode.header.fps)
        first = read_picture(folder / "frame.png")
        made = time.process_time()
        verdict = examine(video, episode, take.camera, first_frame=first, frames=len(episode), config=settings).verdict
    return {
        "key": take.key, "episode": take.episode.name, "robot": episode.header.robots[0].name, "camera": take.camera,
        "world": take.world, "overall": verdict.overall,
        "failed": [c.name for c in verdict.checks if c.status == "fail"],
        "unsure": [c.name for c in verdict.checks if c.status == "unsure"],
        "values": {c.name: None if c.value is None else round(c.value, 4) for c in verdict.checks},
        "make_s": round(made - began, 2), "cpu_s": round(time.process_time() - made, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long; the next call goes on")
    parser.add_argument("--part", default="0/1", help="K/N: only every N-th take, beginning with the K-th")
    parser.add_argument("--first", type=int, default=0, help="only so many presets of every episode and camera")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    cache, deadline, settings = options.cache, time.monotonic() + 60 * options.minutes, load_settings()
    part, parts = map(int, options.part.split("/"))
    rows = cache / f"composite-{VERSION}.jsonl"
    presets = list(load_catalogue().sections["presets"])
    for take in every(cache)[part::parts]:
        if time.monotonic() > deadline:
            return
        if options.first and presets.index(take.world) >= options.first:
            continue
        if take.key in read_rows(rows):
            continue
        found = row(take, settings)
        with rows.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found) + "\n")
        print(take.key, found["overall"], found["failed"], found["unsure"], found["make_s"], found["cpu_s"], flush=True)


if __name__ == "__main__":
    main()
