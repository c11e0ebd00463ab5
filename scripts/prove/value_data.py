# SPDX-License-Identifier: Apache-2.0
"""Data of the value experiment: simulated episodes, takes of them, and what an oracle would train on. Every step resumes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from retake.core import stages
from retake.core.export import ExportOptions, Selection
from retake.core.files import atomic_directory, sha256_json, write_bytes, write_json
from retake.core.variants.sampler import sample_worlds
from retake.loop.embedded import EmbeddedEnvironment
from retake.loop.looks import Look
from retake.worker.probe.background import backgrounds
from retake.worker.probe.data import SCHEMA, Pack, open_pack, pack, small

CAMERAS = [
    {"name": "front", "size": [128, 96], "mount": "fixed"},
    {"name": "wrist", "size": [96, 72], "mount": "body"},
]
NARROW: dict[str, Any] = {
    "object_offset_m": [[-0.04, 0.04], [-0.04, 0.04]],
    "object_yaw_deg": [-15, 15],
    "object_scale": [1.0, 1.0, 1.0],
    "object_mass_kg": 0.1,
    "target_offset_m": [0.0, 0.0],
    "drop_height_m": 0.05,
}
"""The demo task, narrowed: only the packet's place and turn differ between episodes."""
OVERRIDES: dict[str, Any] = {"cameras": CAMERAS, "randomise": NARROW}
TRAIN_ENVIRONMENTS = (
    "kitchen", "warehouse", "conveyor_hall", "laboratory", "supermarket", "living_room", "office", "garden", "night_warehouse",
)  # fmt: skip
HELD_OUT = ("workshop", "courtyard", "beach", "night_terrace", "greenhouse", "hospital")
"""Presets whose environments no training world has."""


MASKED = "-masked"
"""Ends the name of a pack of takes that knows its backgrounds."""
OWN_SHAPES = "-own-shapes"
"""Ends the name of takes whose objects keep the simulated shape: another material, no other thing."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the reduced run shows that it works, and nothing else."""

    episodes: int = 150
    worlds: tuple[int, ...] = (8, 32)
    more_worlds: tuple[int, ...] = (150,)
    """Thought of when results had been seen: a world for each episode."""
    steps: int = 6000
    batch: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)
    rollouts: int = 100
    frames: int = 81
    first_test_seed: int = 100_000

    @staticmethod
    def reduced() -> Sizes:
        """Minutes instead of hours."""
        return Sizes(2, (1, 2), (), 6, 8, (0,), 1, frames=6)


def simulate(cache: Path, sizes: Sizes) -> list[Path]:
    """Run folders with one episode each."""
    runs = [cache / "runs" / f"sim-{seed:04d}" for seed in range(sizes.episodes)]
    for seed, run in enumerate(runs):
        if not (run / "episode" / "complete.json").exists():
            stages.capture(run, preset="short", seed=seed, settings={"capture.overrides": OVERRIDES})
    return runs


def world_file(cache: Path, count: int) -> tuple[Path, list[str]]:
    """(YAML of `count` sampled worlds as presets, their names); the first k of a longer list are the k of a shorter one."""
    worlds = sample_worlds(count, 7, environments=TRAIN_ENVIRONMENTS)
    names = [f"train_{k:03d}" for k in range(count)]
    presets = {
        name: {
            axis: value for axis, value in asdict(w).items() if value and axis not in ("name", "prompt", "parameters")
        }
        for name, w in zip(names, worlds, strict=True)
    }
    file = cache / f"worlds-{count}.yaml"
    write_bytes(file, yaml.safe_dump({"presets": presets}, sort_keys=False).encode())
    return file, names


def shoot(cache: Path, runs: Sequence[Path], count: int, own_shapes: bool = False) -> list[Path]:
    """The same episodes with one composite take each, in one of `count` worlds in turn."""
    file, names = world_file(cache, count)
    out = []
    for index, run in enumerate(runs):
        mine = cache / "runs" / f"takes{count}{OWN_SHAPES if own_shapes else ''}-{index:04d}"
        out.append(mine)
        if (mine / "shot.json").exists():
            continue
        if not mine.exists():
            # The episode itself is shared: links, not copies.
            shutil.copytree(run, mine.with_name(f".{mine.name}"), copy_function=os.link, dirs_exist_ok=True)
            os.rename(mine.with_name(f".{mine.name}"), mine)
        settings = {"variants.catalogue": [str(file)], "variants.gate": False, "variants.keep_shapes": own_shapes}
        stages.skeleton(mine)
        stages.variants(mine, [names[index % count]], backend="procedural", settings=settings)
        stages.takes(mine, backend="composite")
        write_json(mine / "shot.json", {"world": names[index % count]})
    return out


def held_out(cache: Path, sizes: Sizes, count: int) -> list[Path]:
    """Episodes of test seeds with takes in the held-out worlds, for the open-loop report."""
    out = []
    for seed in range(sizes.first_test_seed, sizes.first_test_seed + count):
        run = cache / "runs" / f"held-out-{seed}"
        out.append(run)
        if (run / "shot.json").exists():
            continue
        stages.capture(run, preset="short", seed=seed, settings={"capture.overrides": OVERRIDES})
        stages.skeleton(run)
        stages.variants(run, HELD_OUT, backend="procedural", settings={"variants.gate": False})
        stages.takes(run, backend="composite")
        write_json(run / "shot.json", {"worlds": list(HELD_OUT)})
    return out


def dataset(cache: Path, name: str, runs: Sequence[Path], *, simulated: bool) -> Path:
    """A LeRobot data set of the runs: what is trained on is what is shipped."""
    out = cache / "datasets" / name
    if not (out / "meta" / "info.json").exists():
        selection = Selection(unverified=True, include_sim=simulated, language=False)
        stages.export(runs, out, options=ExportOptions(restart=True), selection=selection)
    return out


def packed(cache: Path, name: str, data: Path, masks_of: Sequence[Path] = ()) -> Pack:
    """The data set as the probe reads it; with the runs that it was exported from, what of each picture is background."""
    return pack(data, cache / "packs" / name, masks=backgrounds(masks_of) if masks_of else None)


def oracle(cache: Path, like: Pack, sizes: Sizes, looks: Sequence[Look]) -> Pack:
    """Expert rollouts in the very looks of the tests: what perfect knowledge of them would give. Never compared as an arm that
    competes: it has seen the tests."""
    out = cache / "packs" / "oracle"
    if (out / "pack.json").exists():
        return open_pack(out)
    environment = EmbeddedEnvironment("short", OVERRIDES)
    facts, total = like.facts, int(sum(like.facts.lengths))
    with atomic_directory(out) as folder:
        images = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (total, size[1], size[0], 3))
            for name, size in facts.cameras.items()
        }
        state, action = np.zeros_like(like.state), np.zeros_like(like.action)
        at = 0
        for seed, length in enumerate(facts.lengths):
            observation = environment.reset(seed, looks[seed % len(looks)])
            for k in range(length):
                state[at + k], action[at + k] = observation.state, environment.expert()
                for name, size in facts.cameras.items():
                    images[name][at + k] = small(observation.images[name], size)
                if k + 1 < length:
                    observation = environment.step(environment.expert())
            at += length
        for array in images.values():
            array.flush()
        del images
        np.savez(folder / "vectors.npz", state=state, action=action, phase=like.phase)
        source = sha256_json([facts.source, [asdict(look) for look in looks], asdict(sizes)])
        write_json(folder / "pack.json", asdict(replace(facts, schema=SCHEMA, source=source, masked=False)))
    return open_pack(out)


__all__ = [
    "HELD_OUT", "MASKED", "OVERRIDES", "OWN_SHAPES", "Sizes", "dataset", "held_out", "oracle", "packed", "shoot", "simulate",
]  # fmt: skip
