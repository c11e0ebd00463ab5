# SPDX-License-Identifier: Apache-2.0
"""The fault bench: videos with and without planted faults, painted once and judged. Every video and every line of
results is kept, so it can be resumed, and another version of the estimators judges the same videos again.

    python scripts/prove/fault_bench.py --cache .cache/verdicts --clean 13 --faulty 2
    python scripts/prove/fault_bench.py --stage paint --part 0/2        # two processes: 0/2 and 1/2
    python scripts/prove/fault_bench.py --stage judge --part 1/2

A line holds every measured value, not only the verdict: thresholds are tuned on the tuning split afterwards
(scripts/prove/verdicts.py) and tested on the other. Episodes and worlds are split whole.
"""

from __future__ import annotations

import argparse
import copy
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

from retake.core.episode import open_episode
from retake.core.files import atomic_path, write_json
from retake.core.verdicts.judge import examine
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.run import read_picture
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.video import write_video

QUICK = {
    "lag": (1, 2), "arm_offset": (2, 4, 10), "joint_frozen": (4,), "object_floating": (4,), "object_teleport": (6,),
    "object_fall_slow": (0.5,), "object_fall_fast": (2,), "background_drift": (2, 4), "flicker": (5,),
    "colour_shift": (10,), "frozen_video": (8,),
}  # fmt: skip
"""The levels of `--quick`; kinds with one level keep it."""
CAMERAS = ("front", "side")
SPLIT = {
    "tune": ((("panda", 1), ("sixaxis", 1), ("panda", 2), ("sixaxis", 2)), ("plain", "tiles", "noise")),
    "test": ((("panda", 3), ("sixaxis", 3), ("panda", 4), ("sixaxis", 4)), ("wood", "clutter", "stripes")),
    "blind": ((("panda", 5), ("sixaxis", 5), ("panda", 6), ("sixaxis", 6)), ("bricks", "marble", "leaves")),
    "final": ((("panda", 7), ("sixaxis", 7), ("panda", 9), ("sixaxis", 9)), ("weave", "panels", "gravel")),
}
"""Split -> (episodes, worlds): no episode and no world is in two. Limits come from `tune`. `test` and
`blind` were held out until a false alarm of each led to a correction of the estimators; `final` was painted and judged
once, after the last change to them and to the limits. Half of the episodes of `blind` and one of `final` move a can."""
OTHER = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 9, 9: 7}
"""Episode -> the one of the same split that 'other_episode' shows instead."""
PAINTED = "2"
"""Of the bench's videos: raised whenever the same job may get other pixels."""


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


def aimed(kind: str, level: float) -> bool:
    """Whether a target is set for this fault: those get all the videos, the others one per view."""
    return kind.startswith("object_") or (kind == "arm_offset" and level >= 4) or (kind == "lag" and level >= 2)


def jobs(split: str, clean: int, faulty: int, quick: bool = False) -> Iterator[Job]:
    """All videos of a split: per view and world `clean` clean ones, per fault level and view up to `faulty` ones.

    Looks are dealt round by round over all views, so that a bench cut short has seen every view and fault. A level with a
    target gets every view and then, from the second look on, every second one (8 views and 2 looks: 12 videos); any other
    level, and all of them if `quick` (with fewer levels), every second view.
    """
    episodes, worlds = SPLIT[split]
    views = [(*episode, camera) for episode in episodes for camera in CAMERAS]
    for look in range(max(clean, faulty + 1)):
        for place, (robot, seed, camera) in enumerate(views):
            if look < clean:
                for world in worlds:
                    yield Job(split, robot, seed, camera, "clean", 0, world, look)
            for number, (kind, (_, levels)) in enumerate(FAULTS.items()):
                for level in QUICK.get(kind, levels) if quick else levels:
                    # A fall at another speed cannot be seen in every view.
                    often = kind.startswith("object_fall") and faulty > 1
                    looks = faulty + often if aimed(kind, level) else min(faulty, 1)
                    every_view = often or (aimed(kind, level) and not look and not quick)
                    if look >= looks or (not every_view and (number + place) % 2):
                        continue
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
        return load_maps(bench_episode(folder, robot, OTHER[seed]), camera, 0, frames)

    def rerenderer() -> Rerenderer:
        with tempfile.TemporaryDirectory() as temporary:
            return Rerenderer(bench_stage(robot, seed, Path(temporary)), episode.header)

    return View(episode, camera, load_maps(episode, camera, 0, frames), other, rerenderer)


def video_of(cache: Path, job: Job) -> Path:
    """The file of a job's video; its first frame as the world would have given it lies beside it as .png."""
    name = job.key.replace("/", "-").replace(":", "_")
    return cache / f"videos-{PAINTED}" / f"{name}.mp4"


def paint(view: View, job: Job, maps: Maps, video: Path) -> None:
    """Paint and encode one video."""
    look = draw_look(job.world, job.look_seed)
    painter = Faulty(look, maps, job.kind, job.level)
    # The same world with the robot and the objects where the episode has them.
    clean = copy.copy(painter)
    clean.maps = view.maps
    first = Painter.frame(clean, 0)
    began = time.process_time()
    with atomic_path(video.with_suffix(".png")) as temporary:
        cv2.imwrite(str(temporary), first[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with atomic_path(video) as temporary:
        write_video(
            temporary, (painter.frame(t) for t in range(len(view.maps.ids))), view.episode.header.fps, crf=look.crf
        )
    write_json(video.with_suffix(".json"), {"paint_cpu_s": round(time.process_time() - began, 3)})


def judge_job(cache: Path, job: Job, settings: VerdictSettings) -> dict:
    """Judge one painted video as `retake verify` would; returns the row."""
    video, look = video_of(cache, job), draw_look(job.world, job.look_seed)
    episode = open_episode(cache / "episodes" / f"{job.robot}_{job.seed}")
    began = time.process_time()
    judged = examine(video, episode, job.camera, first_frame=read_picture(video.with_suffix(".png")), config=settings)
    spent = time.process_time() - began
    return {
        "key": job.key, "version": VERSION, "split": job.split, "view": f"{job.robot}_{job.seed}/{job.camera}",
        "kind": job.kind, "level": job.level, "world": job.world, "warp_px": round(look.warp_px, 3), "crf": look.crf,
        "values": {m.name: None if m.value is None else round(m.value, 5) for m in judged.measurements},
        "unsure": [c.name for c in judged.verdict.checks if c.status == "unsure"],
        "notes": {m.name: m.note for m in judged.measurements},
        "metrics": {k: None if v is None else round(v, 5) for k, v in judged.verdict.metrics.items()},
        "cpu_s": round(spent, 3),
    }  # fmt: skip


def visible(planted: Maps, clean: Maps) -> bool:
    """Whether a planted fault changes what the camera sees, by 30 pixels per frame at least."""
    return float((planted.ids != clean.ids).sum((1, 2)).mean()) >= 30


def paint_all(cache: Path, todo: list[Job], deadline: float) -> None:
    """Paint what is missing, view by view (their maps are large)."""
    current, view, maps_of, maps = None, None, None, None
    for number, job in enumerate(todo):
        video = video_of(cache, job)
        if time.monotonic() > deadline:
            print(f"stopped after {number} videos", flush=True)
            return
        if video.exists():
            continue
        place = (job.robot, job.seed, job.camera)
        if current != place:
            view, current, maps_of = None, place, None
            view = open_view(cache / "episodes", *place)
        assert view is not None
        if maps_of != (job.kind, job.level):
            maps, maps_of = None, (job.kind, job.level)
            planted = None if job.kind == "clean" else plant(view, job.kind, job.level, job.look_seed)
            maps = view.maps if planted is None else planted if visible(planted, view.maps) else None
        if maps is None:
            continue  # Freezing a joint that never turns is no fault.
        paint(view, job, maps, video)
        if number % 20 == 0:
            print(f"painted {number}/{len(todo)} {job.key}", flush=True)


def judge_all(cache: Path, todo: list[Job], deadline: float) -> None:
    """Judge what is painted and has no row of this version yet."""
    settings, done = load_settings(), read_cache(cache / "rows.jsonl")
    waiting = [job for job in todo if job.key not in done]
    with (cache / "rows.jsonl").open("a") as stream:
        for number, job in enumerate(waiting):
            if time.monotonic() > deadline:
                print(f"stopped after {number} videos", flush=True)
                return
            if not video_of(cache, job).exists():
                continue
            stream.write(json.dumps(judge_job(cache, job, settings)) + "\n")
            stream.flush()
            if number % 20 == 0:
                print(f"judged {number}/{len(waiting)} {job.key}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache/verdicts"))
    parser.add_argument("--split", choices=[*SPLIT, "all"], default="all")
    parser.add_argument("--stage", choices=["paint", "judge", "both"], default="both")
    parser.add_argument("--clean", type=int, default=13, help="clean videos per view and world (13: 312 per split)")
    parser.add_argument("--faulty", type=int, default=2, help="videos per view and fault level")
    parser.add_argument("--kinds", default="", help="only these kinds, comma separated")
    parser.add_argument("--views", default="", help="only these views (panda_3/side), comma separated")
    parser.add_argument("--quick", action="store_true", help="fewer levels per fault")
    parser.add_argument("--part", default="0/1", help="K/N: only every N-th view, beginning with the K-th")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long; the next call goes on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    cache = options.cache
    (cache / f"videos-{PAINTED}").mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    part, parts = map(int, options.part.split("/"))
    chosen = set(filter(None, options.kinds.split(",")))
    for split in SPLIT if options.split == "all" else [options.split]:
        every = list(jobs(split, options.clean, options.faulty, options.quick))
        views = list(dict.fromkeys((j.robot, j.seed, j.camera) for j in every))
        wanted = set(filter(None, options.views.split(","))) or {f"{r}_{s}/{c}" for r, s, c in views}
        mine = [
            j for j in every
            if views.index((j.robot, j.seed, j.camera)) % parts == part
            and (not chosen or j.kind in chosen)
            and f"{j.robot}_{j.seed}/{j.camera}" in wanted
        ]  # fmt: skip
        if options.stage in ("paint", "both"):
            order = {kind: number for number, kind in enumerate(("clean", *FAULTS))}

            def turn(job: Job, order: dict[str, int] = order, views: list = views) -> tuple:
                """Clean videos, then what a target is set for; every fault is planted once per view."""
                late = 0 if job.kind == "clean" else 1 if aimed(job.kind, job.level) else 2
                return late, views.index((job.robot, job.seed, job.camera)), order[job.kind], job.level, job.look

            paint_all(cache, sorted(mine, key=turn), deadline)
        if options.stage in ("judge", "both"):
            judge_all(cache, mine, deadline)


if __name__ == "__main__":
    main()
