# SPDX-License-Identifier: Apache-2.0
"""The painter bench: films of several renderers, with appearance on top and faults in their geometry, painted once and
judged. Resumable: every film, video and row is kept.

    python scripts/prove/painter_bench.py paint --split tune --cache DIR
    python scripts/prove/painter_bench.py judge --split tune --cache DIR --part 0/2

Limits may come from `tune`, `newton` and `mitsuba`; nothing comes from `blind_newton`, `blind_mitsuba` and `three` (a fourth
renderer, with sets of its own); `vtk`, judged blind by version 23, has been looked at since.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import film_sets
import numpy as np
import three_sets
import vtk_sets
from appearance import LOOKS, SUFFIX, Appearance, draw, encode
from film import Film, film_of
from film_episodes import film_episode, stage_of
from film_faults import FAULTS, MIN_PIXELS, NOT_WRIST, PICTURE, REORDERED, Story, plant, spoil, still_thing, story_of
from film_splits import OTHER, OTHER_AT, SPLITS
from newton_painter import NewtonPainter, Shot
from three_painter import ThreePainter
from vtk_painter import VtkPainter

from retake.core.episode import Episode
from retake.core.files import atomic_path, write_json
from retake.core.verdicts.judge import examine
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.run import read_picture
from retake.core.verdicts.settings import VerdictSettings, load_settings

CACHE = Path(os.environ.get("RETAKE_PAINTER_BENCH", ".cache/painters"))


@dataclass(frozen=True)
class Job:
    """One video."""

    split: str
    film: tuple[str, int, str, str]
    kind: str
    level: float
    look: str
    number: int

    @property
    def key(self) -> str:
        """Identity in the cache."""
        robot, seed, camera, family = self.film
        return f"{self.split}/{robot}_{seed}-{camera}-{family}/{self.kind}_{self.level:g}-{self.look}-{self.number}"

    @property
    def seed(self) -> int:
        """Of the look: nothing but the job's own name."""
        return zlib.crc32(self.key.encode())

    @property
    def fault_seed(self) -> int:
        """Of the fault: the same for all looks of it."""
        return zlib.crc32(f"{self.film}{self.kind}{self.level}".encode())


def jobs(split: str) -> Iterator[Job]:
    """All videos of a split, film by film and in rounds: every look once and every fault once, then again."""
    made = SPLITS[split]
    for place, film in enumerate(made.films):
        for number in range(max(-(-made.clean // len(LOOKS)), made.faulty)):
            looks = range(number * len(LOOKS), min((number + 1) * len(LOOKS), made.clean))
            turned = [(k + made.turned * place) % len(LOOKS) for k in looks]
            clean = [Job(split, film, "clean", 0, LOOKS[k], number) for k in turned]
            yield from clean[:4]
            yield from _faulty(split, film, number)
            yield from clean[4:]


def _faulty(split: str, film: tuple[str, int, str, str], number: int) -> Iterator[Job]:
    """One round of faults of a film."""
    made = SPLITS[split]
    for kind, (_, levels, _) in FAULTS.items():
        if kind not in made.kinds or number >= made.faulty or (film[2] == "wrist" and kind in NOT_WRIST):
            continue
        for level in levels[:1] if made.first_level else levels:
            turn = zlib.crc32(f"{film}{kind}{level}{number}".encode())
            look = "base" if turn % 2 else LOOKS[turn // 2 % len(LOOKS)]
            yield Job(split, film, kind, level, look, number)


PAINTERS = {"newton": NewtonPainter, "vtk": VtkPainter, "three": ThreePainter}
DRESS = {"newton": film_sets.dress, "mitsuba": film_sets.dress, "vtk": vtk_sets.dress, "three": three_sets.dress}
"""Painter -> how its sets are made."""


def painter_of(name: str, film: Film):
    """The renderer of a split, ready for a film."""
    if name in PAINTERS:
        return PAINTERS[name](film)
    from mitsuba_painter import MitsubaPainter

    return MitsubaPainter(film)


class View:
    """One film of a split: rendered on first use, kept as plain arrays."""

    def __init__(self, cache: Path, split: str, entry: tuple[str, int, str, str]) -> None:
        robot, seed, camera, family = entry
        self.episode: Episode = film_episode(cache / "episodes", robot, seed)
        self.camera, self.painter_name = camera, SPLITS[split].painter
        with tempfile.TemporaryDirectory() as temporary:
            film = film_of(self.episode, stage_of(robot, seed, Path(temporary)), camera)
        self.film = DRESS[self.painter_name](film, family, zlib.crc32(f"{robot}{seed}{camera}".encode()) % 100_000)
        self.story: Story = story_of(self.episode, self.film)
        self.folder = cache / "shots" / f"{split}-{robot}_{seed}-{camera}-{family}"
        self._painter = None

    @property
    def painter(self):
        """Built when something must be rendered."""
        if self._painter is None:
            self._painter = painter_of(self.painter_name, self.film)
        return self._painter

    def close(self) -> None:
        """End the renderer, where it is a process."""
        painter, self._painter = self._painter, None
        if painter is not None and not isinstance(painter, NewtonPainter):
            painter.close()

    def shot(self) -> Shot:
        """The clean shot."""
        if not (self.folder / "ids.npy").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            made = self.painter.shoot(self.film)
            for name, array in (("rgb", made.rgb), ("ids", made.ids)):
                with atomic_path(self.folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
                    np.save(stream, array)
        rgb, ids = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("rgb", "ids"))
        return Shot(rgb, ids, self.film.owners)

    def faulty(self, job: Job) -> tuple[Shot, Film] | None:
        """The shot with the job's fault, and its film; None where the fault cannot be seen or planted."""
        clean = self.shot()
        robot = next(r for r in self.episode.header.robots if r.name == self.film.arm)
        positions = self.episode.joint(robot.name, "position")[: len(self.film)]
        planted = plant(self.film, self.story, job.kind, job.level, job.fault_seed, positions)
        if planted is None:
            return None
        if job.kind in REORDERED:
            return clean.at(planted.index), self.film
        if job.kind == "repainted" and not still_thing(np.asarray(clean.ids[::6]), self.film, clean.owners, job.seed):
            return None
        if job.kind in PICTURE or job.kind == "other_episode":
            return clean, self.film
        if job.kind == "gripper_early" and self.finger_px() < 12:
            return None
        made = self._reshot(job, clean, planted.film)
        least = MIN_PIXELS * (self.film.size[0] / 640) ** 2
        return (made, planted.film) if (changed_px(clean, made) or 0.0) >= least else None

    def _reshot(self, job: Job, clean: Shot, film: Film) -> Shot:
        """The faulty shot, kept on disk as the frames that differ: other looks use it again."""
        kept = self.folder / f"{job.kind}_{job.level:g}.npz"
        if not kept.exists():
            made = self.painter.reshoot(clean, self.film, film)
            frames = np.flatnonzero((made.rgb != clean.rgb).any((1, 2, 3)))
            with atomic_path(kept) as temporary, temporary.open("wb") as stream:
                np.savez(stream, frames=frames, rgb=made.rgb[frames], ids=made.ids[frames])
            return made
        with np.load(kept) as data:
            rgb, ids = np.array(clean.rgb), np.array(clean.ids)
            rgb[data["frames"]], ids[data["frames"]] = data["rgb"], data["ids"]
        return Shot(rgb, ids, clean.owners)

    def finger_px(self) -> float:
        """Longest side of the visible fingers around release, px at 640 wide."""
        robot = self.story.robot
        fingers = {
            robot.joints[[j.name for j in robot.joints].index(n)].child_link for n in robot.grippers[0].finger_joints
        }
        table = self.shot().mask({self.film.robots[self.film.arm][k] for k in fingers})
        rows, columns = np.nonzero(table[self.shot().ids[self.story.release]])
        return 0.0 if not len(rows) else float(max(np.ptp(rows), np.ptp(columns)) + 1) * 640 / self.film.size[0]


def changed_px(clean: Shot, other: Shot) -> float | None:
    """Pixels that show another part than in the clean film, mean over the frames that differ; None where none does."""
    if len(other.ids) != len(clean.ids):
        return None
    differs = np.array([np.count_nonzero(a != b) for a, b in zip(clean.ids, other.ids, strict=True)])
    return float(differs[differs > 0].mean()) if differs.any() else None


def video_of(cache: Path, job: Job) -> Path:
    """Where a job's video lies, without the suffix that its codec gives it."""
    return cache / "videos" / (job.key + SUFFIX[draw(job.look, job.seed).codec])


def paint(cache: Path, view: View, job: Job) -> None:
    """Paint and encode one video, with its first frame and its card beside it; a fault that cannot be seen leaves a
    card alone."""
    video = video_of(cache, job)
    video.parent.mkdir(parents=True, exist_ok=True)
    robot, seed, camera, family = job.film
    shown = OTHER_AT.get((seed, camera), OTHER[seed]) if job.kind == "other_episode" else seed
    card = {
        "key": job.key, "split": job.split, "painter": view.painter_name, "robot": robot, "camera": camera,
        "family": family, "episode": f"episodes/{robot}_{shown}", "kind": job.kind, "level": job.level, "look": job.look,
        "video": video.name,
    }  # fmt: skip
    began = time.process_time()
    made = (view.shot(), view.film) if job.kind == "clean" else view.faulty(job)
    if made is None:
        write_json(video.with_suffix(".json"), {**card, "video": None})
        return
    shot, film = made
    clean = Appearance(view.shot(), view.film, job.look, job.seed)
    with atomic_path(video.with_suffix(".png")) as temporary:
        cv2.imwrite(str(temporary), clean.frame(0)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if (px := changed_px(view.shot(), shot)) is not None:
        card["changed_px"] = round(px * (640 / film.size[0]) ** 2, 1)
    appearance = Appearance(shot, film, job.look, job.seed)
    frames = appearance.frames()
    if job.kind in PICTURE:
        frames = iter(spoil(list(frames), shot.ids, film, shot.owners, job.kind, job.level, job.seed))
    encode(video, frames, view.episode.header.fps, appearance.drawn)
    write_json(video.with_suffix(".json"), {**card, "paint_cpu_s": round(time.process_time() - began, 2)})


def judge_job(cache: Path, card: dict, folder: Path, settings: VerdictSettings) -> dict:
    """Judge one painted video as `retake verify` would; returns the row."""
    video, (robot, seed) = folder / card["video"], Path(card["episode"]).name.rsplit("_", 1)
    episode = film_episode(cache / "episodes", robot, int(seed))
    began = time.process_time()
    judged = examine(
        video, episode, card["camera"],
        first_frame=read_picture(video.with_suffix(".png")), config=settings,
    )  # fmt: skip
    verdict = judged.verdict
    return {
        **card, "version": VERSION, "overall": verdict.overall, "probability": round(verdict.probability, 5),
        "values": {c.name: None if c.value is None else round(c.value, 5) for c in verdict.checks},
        "status": {c.name: c.status for c in verdict.checks},
        "limits": {c.name: c.threshold for c in verdict.checks},
        "cpu_s": round(time.process_time() - began, 3),
    }  # fmt: skip


def read_rows(path: Path) -> dict[str, dict]:
    """Rows by key; a torn last line is ignored, the last row of a key counts."""
    rows = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows[row["key"]] = row
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["paint", "judge"])
    parser.add_argument("--split", choices=[*SPLITS], required=True)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument(
        "--rows", default=f"rows-{VERSION}.jsonl", help="name of the file of results (another for other estimators)"
    )
    parser.add_argument("--part", default="0/1", help="K/N: only every N-th film, beginning with the K-th")
    parser.add_argument("--kinds", default="", help="only these kinds, comma separated")
    parser.add_argument("--films", type=int, default=99, help="only the first films of the split")
    parser.add_argument("--rounds", type=int, default=99, help="only the first rounds of looks of every film")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long; the next call goes on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    part, parts = map(int, options.part.split("/"))
    films = SPLITS[options.split].films[: options.films][part::parts]
    kinds = set(filter(None, options.kinds.split(",")))
    todo = [
        j
        for j in jobs(options.split)
        if j.film in films and (not kinds or j.kind in kinds) and j.number < options.rounds
    ]
    if options.what == "judge":
        # Film by film in turn: a run cut short has seen all of them.
        place = {film: [j for j in todo if j.film == film] for film in films}
        todo = sorted(todo, key=lambda job: place[job.film].index(job))
    deadline = time.monotonic() + 60 * options.minutes
    (paint_all if options.what == "paint" else judge_all)(options.cache, todo, deadline, options.rows)


def paint_all(cache: Path, todo: list[Job], deadline: float, _rows: str) -> None:
    """Paint what is missing, film by film; the next film is rendered while this one's looks are painted."""
    missing = [j for j in todo if not video_of(cache, j).with_suffix(".json").exists()]
    films = [(film, list(group)) for film, group in itertools.groupby(missing, key=lambda j: j.film)]
    number = 0
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(rendered, cache, films[0][1][0]) if films else None
        for k, (_, mine) in enumerate(films):
            assert coming is not None
            view = coming.result()
            coming = pool.submit(rendered, cache, films[k + 1][1][0]) if k + 1 < len(films) else None
            for job in mine:
                if time.monotonic() > deadline:
                    view.close()
                    if coming is not None and not coming.cancel():
                        coming.result().close()
                    return
                paint(cache, view, job)
                if number % 8 == 0:
                    print(f"painted {number}/{len(missing)} {job.key}", flush=True)
                number += 1
            view.close()


def rendered(cache: Path, job: Job) -> View:
    """A job's film with its clean shot made."""
    view = View(cache, job.split, job.film)
    view.shot()
    return view


def judge_all(cache: Path, todo: list[Job], deadline: float, rows: str) -> None:
    """Judge what is painted and has no row yet."""
    settings, done = load_settings(), read_rows(cache / rows)
    for number, job in enumerate(todo):
        card = video_of(cache, job).with_suffix(".json")
        if time.monotonic() > deadline:
            return
        if job.key in done or not card.exists():
            continue
        told = json.loads(card.read_text("utf-8"))
        if told["video"] is None:
            continue
        row = judge_job(cache, told, card.parent, settings)
        with (cache / rows).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        if number % 8 == 0:
            print(f"judged {number}/{len(todo)} {job.key} {row['overall']}", flush=True)


if __name__ == "__main__":
    main()
