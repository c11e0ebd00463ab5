# SPDX-License-Identifier: Apache-2.0
"""The fault bench: videos with and without planted faults, judged. One JSON line per video, so it can be resumed.

    python scripts/prove/fault_bench.py --cache .cache/verdicts --clean 13 --faulty 2

A line holds every measured value, not only the verdict: thresholds are tuned on the tuning split afterwards
(scripts/prove/verdicts.py) and tested on the other. Episodes and worlds are split whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent))
from bench_episodes import bench_episode, bench_stage
from faults import FAULTS, Faulty, View, plant
from rematerialise import Maps, Painter, draw_look, load_maps
from rerender import Rerenderer

from retake.core.verdicts.judge import examine
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.settings import load_settings
from retake.core.video import write_video

QUICK = {
    "lag": (1, 2), "arm_offset": (2, 4, 10), "joint_frozen": (4,), "object_floating": (4,), "object_teleport": (6,),
    "object_fall_slow": (0.5,), "object_fall_fast": (2,), "background_drift": (2, 4), "flicker": (5,),
    "colour_shift": (10,), "frozen_video": (8,),
}  # fmt: skip
"""The levels of `--quick`; kinds with one level keep it."""
CAMERAS = ("front", "side")
SPLIT = {
    "tune": ((("panda", 1), ("sixaxis", 1)), ("plain", "tiles", "noise")),
    "test": ((("panda", 4), ("sixaxis", 4)), ("wood", "clutter", "stripes")),
}
"""Split -> (episodes, worlds): no episode and no world is in both."""
OTHER = {"panda": 3, "sixaxis": 3}
"""Episodes that 'other_episode' shows."""


@dataclass(frozen=True)
class Job:
    """One video."""

    split: str
    robot: str
    seed: int
    camera: str
    kind: str
    level: float
    world: str
    look: int

    @property
    def key(self) -> str:
        """Identity in the cache."""
        return (
            f"{self.split}/{self.robot}_{self.seed}/{self.camera}/{self.kind}:{self.level:g}/{self.world}:{self.look}"
        )

    @property
    def look_seed(self) -> int:
        """Seed of the look: nothing but the job's own name."""
        return zlib.crc32(self.key.encode())


def jobs(split: str, clean: int, faulty: int, quick: bool = False) -> Iterator[Job]:
    """All videos of a split: per view and world `clean` clean ones, per fault level `faulty` ones."""
    episodes, worlds = SPLIT[split]
    # Views alternate robot and camera, so that a bench cut short has seen both of each.
    views = [
        (*episode, camera)
        for k in range(2)
        for episode, camera in zip(episodes, CAMERAS[k:] + CAMERAS[:k], strict=True)
    ]
    for robot, seed, camera in views:
        for world in worlds:
            for look in range(clean):
                yield Job(split, robot, seed, camera, "clean", 0, world, look)
        for kind, (_, levels) in FAULTS.items():
            for level in QUICK.get(kind, levels) if quick else levels:
                for look in range(faulty):
                    world = worlds[(look + zlib.crc32(kind.encode())) % len(worlds)]
                    yield Job(split, robot, seed, camera, kind, level, world, look)


def read_cache(path: Path) -> dict[str, dict]:
    """Rows by key, of this estimator version only; a torn last line is ignored."""
    rows = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["version"] == VERSION:
                rows[row["key"]] = row
    return rows


def open_view(folder: Path, robot: str, seed: int, camera: str, frames: int = 81) -> View:
    """Episode, maps and re-renderer of one view."""
    episode = bench_episode(folder, robot, seed)

    def other() -> Maps:
        return load_maps(bench_episode(folder, robot, OTHER[robot]), camera, 0, frames)

    def rerenderer() -> Rerenderer:
        with tempfile.TemporaryDirectory() as temporary:
            return Rerenderer(bench_stage(robot, seed, Path(temporary)), episode.header)

    return View(episode, camera, load_maps(episode, camera, 0, frames), other, rerenderer)


def run_job(view: View, job: Job, maps: object, folder: Path) -> dict:
    """Paint, encode, judge; returns the row."""
    look = draw_look(job.world, job.look_seed)
    painter = Faulty(look, maps, job.kind, job.level)  # type: ignore[arg-type]
    video = folder / "take.mp4"
    began = time.process_time()
    write_video(video, (painter.frame(t) for t in range(len(view.maps.ids))), view.episode.header.fps, crf=look.crf)
    painted = time.process_time()
    first = Painter(look, view.maps).frame(0)
    judged = examine(video, view.episode, job.camera, first_frame=first, config=load_settings())
    return {
        "key": job.key, "version": VERSION, "split": job.split, "view": f"{job.robot}_{job.seed}/{job.camera}",
        "kind": job.kind, "level": job.level, "world": job.world, "warp_px": round(look.warp_px, 3),
        "values": {m.name: None if m.value is None else round(m.value, 5) for m in judged.measurements},
        "unsure": [c.name for c in judged.verdict.checks if c.status == "unsure"],
        "notes": {m.name: m.note for m in judged.measurements if m.value is None},
        "metrics": {k: None if v is None else round(v, 5) for k, v in judged.verdict.metrics.items()},
        "cpu_s": [round(painted - began, 3), round(time.process_time() - painted, 3)],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/verdicts"))
    parser.add_argument("--split", choices=[*SPLIT, "both"], default="both")
    parser.add_argument("--clean", type=int, default=26, help="clean videos per view and world (26: 312 per split)")
    parser.add_argument("--faulty", type=int, default=3, help="videos per view and fault level")
    parser.add_argument("--kinds", default="", help="only these kinds, comma separated")
    parser.add_argument("--quick", action="store_true", help="fewer levels per fault")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long; the next call goes on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    results = options.cache / "rows.jsonl"
    done, began = read_cache(results), time.monotonic()
    chosen = set(filter(None, options.kinds.split(",")))
    todo = [
        job
        for split in (SPLIT if options.split == "both" else [options.split])
        for job in jobs(split, options.clean, options.faulty, options.quick)
        if job.key not in done and (not chosen or job.kind in chosen)
    ]
    print(f"{len(done)} videos judged before, {len(todo)} to do", flush=True)
    current, view, maps_of, maps = None, None, None, None
    with results.open("a") as stream, tempfile.TemporaryDirectory() as temporary:
        for number, job in enumerate(todo):
            if time.monotonic() - began > 60 * options.minutes:
                print(f"stopped after {number} videos", flush=True)
                return
            place = (job.robot, job.seed, job.camera)
            if current != place:
                view, current, maps_of = None, place, None
                view = open_view(options.cache / "episodes", *place)
            assert view is not None
            if maps_of != (job.kind, job.level):
                maps_of = (job.kind, job.level)
                maps = None
                maps = (
                    view.maps if job.kind == "clean" else plant(view, job.kind, job.level, job.look_seed) or view.maps
                )
            stream.write(json.dumps(run_job(view, job, maps, Path(temporary))) + "\n")
            stream.flush()
            if number % 20 == 0:
                print(f"{number}/{len(todo)} {job.key}  {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
