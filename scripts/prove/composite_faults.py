# SPDX-License-Identifier: Apache-2.0
"""What of planted faults the estimators find in composite takes: the object stands turned, lies sunk in its ground, or becomes
another shape or colour, in worlds of every kind. Resumable: one row per take.

    python scripts/prove/composite_faults.py --cache DIR --rows NAME.jsonl

A turned or sunk object is recorded by a twin of the demo episode that is the same up to the release; a take of the twin's
pixels is judged against the episode. Another shape or colour is drawn by the take's own painter from the release on. The
faithful takes of the same worlds are those of `composite_takes.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from composite_takes import CACHE, DEMO, FRAMES, VIDEO, Composite, film, first_frame
from film_episodes import film_episode, scenario_of
from film_faults import ramp
from painter_bench import read_rows

from retake.core.episode import Episode, EpisodeWriter, open_episode
from retake.core.episode.events import ObjectEvents, object_events
from retake.core.files import atomic_directory, read_json
from retake.core.geometry import axis_angle, wxyz_from_rotation
from retake.core.painter.procedural import ProceduralBackend
from retake.core.painter.staged import staged
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD
from retake.core.variants.base import source_frame
from retake.core.variants.worlds import load_catalogue
from retake.core.verdicts.judge import examine
from retake.core.verdicts.records import VERSION
from retake.core.verdicts.run import read_picture
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.video import write_video
from retake.newton.renderer import Renderer, instance_map, sun_direction
from retake.newton.run import make_header, simulate
from retake.newton.simulator import Simulator

MOVED: dict[str, tuple[float, float]] = {
    "turned_45": (45, 0), "turned_75": (-75, 0), "sunk_2": (0, 0.02), "sunk_3": (0, 0.03),
}  # fmt: skip
"""Fault -> degrees about the vertical, metres of sinking."""
DRAWN = {"shape": "shape", "colour": "colours"}
"""Fault -> what of the subject's recipe is replaced."""
BRIGHT = ("vegetable_kitchen", "warehouse_open", "supermarket", "courtyard", "beach", "living_room")
DARK = ("night_warehouse", "night_terrace", "office", "greenhouse")
ALIKE = ("conveyor_blue", "laboratory", "bakery", "workshop", "library", "garden")
WORLDS = {**dict.fromkeys(BRIGHT, "ordinary"), **dict.fromkeys(DARK, "dark"), **dict.fromkeys(ALIKE, "alike")}
"""World -> its kind: dark ones, and those where some of what surrounds the object has its colours."""


@dataclass(frozen=True)
class Fault:
    """One faulty take: a faithful one and what goes wrong in it."""

    take: Composite
    kind: str

    @property
    def key(self) -> str:
        """Identity in the rows."""
        return f"{self.take.key}/{self.kind}"


def faults(cache: Path, options: argparse.Namespace) -> list[Fault]:
    """The faults that were asked for, world by world."""
    cameras, worlds, kinds, names = (
        tuple(asked.split(",")) for asked in (options.cameras, options.worlds, options.kinds, options.episodes)
    )
    episodes = [film_episode(cache / "episodes", r, s).path for r, s in DEMO if f"{r}_{s}" in names]
    return [
        Fault(Composite(path, camera, world), kind)
        for world in worlds for kind in kinds for camera in cameras for path in episodes
    ]  # fmt: skip


def carried(episode: Episode) -> ObjectEvents:
    """Events of the object that is let go."""
    return next(e for e in object_events(episode) if e.release is not None)


def twin(cache: Path, number: int, kind: str) -> Episode:
    """The demo episode whose object stands otherwise from its release (turned) or its rest (sunk) on."""
    robot, seed = DEMO[number]
    path = cache / "twins" / f"{robot}_{seed}_{kind}"
    if not (path / "complete.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        true = film_episode(cache / "episodes", robot, seed)
        with tempfile.TemporaryDirectory() as temporary:
            preset, scenario = scenario_of(robot, seed, Path(temporary))
            simulator = Simulator(scenario.stage, scenario.robots, preset.dt_s, friction=scenario.variation.friction)
            objects = tuple(o.spec for o in scenario.objects)
            instances = instance_map(scenario.stage, simulator.shape_paths, scenario.robots, objects)
            index = [o.name for o in objects].index(carried(true).object)
            body = simulator.body_index(objects[index].prim_path)
            poses = misplaced(true, index, *MOVED[kind])
            renderer = Renderer(
                simulator.builder, tuple(scenario.cameras.values()), instances, preset.lighting,
                sun_direction(scenario.stage),
            )  # fmt: skip
            with EpisodeWriter(path, make_header(preset, scenario, instances, seed)) as writer:
                for number_of, (measurement, frame) in enumerate(simulate(simulator, scenario, preset)):
                    pose, q = poses[number_of], measurement.body_q.copy()
                    wxyz = wxyz_from_rotation(pose[:3, :3])
                    q[body] = [*pose[:3, 3], *wxyz[1:], wxyz[0]]
                    made = frame(renderer.render(q))
                    shown = made.T_world_object.copy()
                    shown[index] = pose
                    writer.append(replace(made, T_world_object=shown, physics=None))
                writer.finish()
    return open_episode(path)


def misplaced(episode: Episode, index: int, degrees: float, sink_m: float) -> np.ndarray:
    """Poses (T, 4, 4) of an object that is turned about its own vertical while it falls, or sinks as it comes to rest."""
    events, poses = carried(episode), episode.object_poses[:, index].copy()
    release, count = events.release or 0, len(episode)
    turn = np.radians(degrees) * ramp(count, release + 1, 4)
    low = sink_m * ramp(count, (events.settled or count) - 2, 3)
    middle = np.array(episode.header.objects[index].center_m)
    for t in range(release, count):
        centre = poses[t, :3, :3] @ middle + poses[t, :3, 3]
        poses[t, :3, :3] = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(turn[t])) @ poses[t, :3, :3]
        poses[t, :3, 3] = centre - poses[t, :3, :3] @ middle - [0, 0, low[t]]
    return poses


def changed(recipe: dict[str, Any], kind: str) -> dict[str, Any]:
    """The recipe with another shape, or with the colours of another subject, for what is carried."""
    subject, known = dict(recipe["subject"]), load_catalogue()
    if kind == "shape":
        subject["shape"] = "box" if subject["shape"] != "box" else "ball"
    else:
        other = "tea_box" if subject["kind"] != "carton" else "cereal_box"
        colours = list(known.value("subject", other)["colours"])
        subject["colours"] = (colours * 2)[: len(subject["colours"])]
    return {**recipe, "subject": subject}


def faulty(cache: Path, fault: Fault) -> Path:
    """Folder with the take's video, first frame and variant record, drawn on first use."""
    episode = open_episode(fault.take.episode)
    start = first_frame(episode)
    clean = film(cache, fault.take, episode, start)
    folder = cache / "composite_faults" / fault.key.replace("/", "-") / clean.name
    if folder.is_dir():
        return folder
    number = [f"{robot}_{seed}" for robot, seed in DEMO].index(episode.path.name)
    recipe = read_json(clean / VARIANT_RECORD)["recipe"]
    seed, world = read_json(clean / VARIANT_RECORD)["seed"], load_catalogue().preset(fault.take.world)
    shown = twin(cache, number, fault.kind) if fault.kind in MOVED else episode
    reference = source_frame(episode, fault.take.camera, start)
    faithful = ProceduralBackend().dresser(reference, world, seed, recipe)
    other = faithful if fault.kind in MOVED else ProceduralBackend().dresser(
        reference, world, seed, changed(recipe, fault.kind)
    )  # fmt: skip
    release = carried(episode).release or 0
    frames = (
        (faithful if k <= release else other).render(source_frame(shown if k > release else episode, fault.take.camera, k))
        for k in range(start, start + FRAMES)
    )  # fmt: skip
    with atomic_directory(folder) as out:
        write_video(out / VIDEO, frames, episode.header.fps)
        for name in (VARIANT_FRAME, VARIANT_RECORD):
            shutil.copyfile(clean / name, out / name)
    return folder


def row(cache: Path, fault: Fault, settings: VerdictSettings) -> dict[str, Any]:
    """Judge one faulty take against the faithful episode."""
    folder, episode = faulty(cache, fault), open_episode(fault.take.episode)
    verdict = examine(
        folder / VIDEO, staged(episode, read_json(folder / VARIANT_RECORD).get("recipe")), fault.take.camera,
        first_frame=read_picture(folder / VARIANT_FRAME), start=first_frame(episode), frames=FRAMES, config=settings,
    ).verdict  # fmt: skip
    posture = verdict.check("object_posture")
    return {
        "key": fault.key, "world": fault.take.world, "camera": fault.take.camera, "of": WORLDS.get(fault.take.world, "ordinary"),
        "kind": fault.kind,
        "overall": verdict.overall, "version": VERSION,
        "failed": [c.name for c in verdict.checks if c.status == "fail"],
        "unsure": [c.name for c in verdict.checks if c.status == "unsure"],
        "posture": [posture.status, posture.value, posture.note],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--rows", default=f"composite-faults-{VERSION}.jsonl", help="file of results, in the cache")
    parser.add_argument("--cameras", default="front", help="front, wrist or both, by commas")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="presets, by commas")
    parser.add_argument("--kinds", default=",".join((*MOVED, *DRAWN)), help="faults, by commas")
    parser.add_argument("--episodes", default="panda_51,sixaxis_52", help="demo episodes, by commas")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long; the next call goes on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    deadline, settings, rows = time.monotonic() + 60 * options.minutes, load_settings(), options.cache / options.rows
    done = read_rows(rows)
    for fault in faults(options.cache, options):
        if time.monotonic() > deadline or fault.key in done:
            continue
        found = row(options.cache, fault, settings)
        with rows.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found) + "\n")
        print(fault.key, found["overall"], found["failed"], found["unsure"], found["posture"], flush=True)


if __name__ == "__main__":
    main()
