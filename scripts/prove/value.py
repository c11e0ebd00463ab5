# SPDX-License-Identifier: Apache-2.0
"""Does training on takes make a policy better? The probe in closed loop, trained on equal steps of different data, seen in looks
that no training saw. Hours; resumable at every step (one rollout, one training).

    make value     (or: python scripts/prove.py value [--quick])
    python scripts/prove/value.py --arms simulated takes32 --looks dim_warm everything --seeds 0 --rollouts 40

The second is a part of the experiment, and its page says which; the whole goes on from what a part has done. What a training did
in its looks is kept beside the page (docs/proof/value/ARM-SEED.json, value_units.py), so that the experiment also goes on in
another clone, which trains and plays what is missing there, and nothing twice.

Nothing is chosen by looking at the tests: looks, worlds, arms and steps are stated here and in config/closed_loop.yaml, and the
painter that made the takes draws none of the tests that carry the claim (its held-out worlds are told apart).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from value_arms import Arm, arms
from value_beside import PASS_ABOVE, controls, easier, easier_name, open_loop_how, open_loop_score, side_by_side
from value_cells import Cells, agreement, cell_of, comparisons, stop_rule
from value_data import (
    HELD_OUT,
    MASKED,
    OVERRIDES,
    OWN_SHAPES,
    Sizes,
    dataset,
    held_out,
    oracle,
    packed,
    shoot,
    simulate,
)
from value_page import SHEET, look_sheet, report
from value_units import Played, Unit, Units

from retake.core.files import read_json, write_bytes, write_json
from retake.core.painter.composite import CompositeBackend
from retake.core.painter.procedural import ProceduralBackend
from retake.core.robustness import open_policy
from retake.loop.embedded import EmbeddedEnvironment
from retake.loop.environment import Environment
from retake.loop.looks import Look, choose_looks, load_looks
from retake.loop.study import Asked, closed_loop
from retake.loop.tasks import TASKS, Task
from retake.newton import engine
from retake.newton.preset import fingerprint

ROOT = Path(__file__).resolve().parent.parent.parent
NOTES = "notes.md"
"""Beside the units: what the figures were read to say, by hand; part of the page."""
PYTHON = ROOT / ".venv-worker" / "bin" / "python"


@dataclass(frozen=True)
class Part:
    """What of the experiment is run; empty = all of it."""

    arms: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    """Beside the unchanged one; `world:NAME` for a world of the painter."""
    kept: bool = False
    """Whether nothing is trained or played: each arm with the trainings that are kept whole."""
    controls: bool = False
    """Whether the expert and the blinded policy are played too; the whole always has them."""
    easier: bool = False
    """Whether the easier task is played too; the whole always has it."""
    open_loop: bool = False
    """Whether open-loop scores are made too; the whole always has them."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out (sizes apart)."""
        return not self.arms and not self.looks and not self.kept


WHOLE = Part()


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """The whole experiment: run what is missing, write value.json and value.md."""
    return run_part(out_dir, Sizes.reduced() if quick else Sizes(), WHOLE, quick)


def run_part(out_dir: Path, sizes: Sizes, part: Part, quick: bool = False) -> dict[str, Any]:
    """Run what is missing of a part of the experiment, write value.json and value.md. What a part has done stays valid for the
    whole. The easier task, the open-loop comparison and the controls belong to the whole, or are asked for."""
    cache = ROOT / ".cache" / ("value-quick" if quick else "value")
    started = time.time()
    compared = tuple(arm for arm in arms(sizes) if not part.arms or arm.name in part.arms)
    if not compared or compared[0].name != "simulated":
        raise SystemExit(
            f"arms are {list(part.arms)}; expected some of {[a.name for a in arms(sizes)]}, 'simulated' first"
        )
    looks = looks_of(part, quick)
    units = Units(cache / "units" if quick else out_dir / "value")

    @functools.cache
    def prepared() -> None:
        prepare(cache, sizes, compared, quick)

    def train(arm: Arm, seed: int) -> Path:
        """Its policy folder; episodes and takes are made on the first training that needs them."""
        out = cache / "probes" / f"{arm.name.replace(' ', '-')}-{seed}"
        if not (out / "config.json").exists():
            prepared()
            folders = [str(cache / "packs" / name) for name in arm.packs]
            call = [str(PYTHON), "-m", "retake.core.cli", "train-probe", *folders, "--out", str(out)]
            call += ["--seed", str(seed), "--steps", str(sizes.steps), "--batch", str(sizes.batch), *arm.options]
            subprocess.run(call, check=True)
        return out

    def play(one: Unit, task: Task = TASKS["pick_place"]) -> Played:
        """What a training's policy does: as recorded, or trained and played now."""
        wanted = asked(sizes, looks)
        if one.missing(wanted):
            folder = train(next(a for a in compared if one.arm in (a.name, easier_name(a))), one.seed)
            policy = open_policy(str(folder), python=str(PYTHON))
            place = cache / "loops" / one.file.stem
            study = closed_loop(environment(task.ends), policy, task, place, wanted)
            one.record(study.rollouts, wanted, read_json(folder / "config.json"), commit())
        return one.played(wanted)

    def score(arm: Arm, seed: int) -> float:
        place = cache / "open" / f"{arm.name.replace(' ', '-')}-{seed}"
        return open_loop_score(
            place,
            lambda: held_out(cache, sizes, open_loop_how(sizes, quick)["episodes"]),
            lambda: open_policy(str(train(arm, seed)), python=str(PYTHON)),
        )

    def unit(arm: Arm, seed: int) -> Unit:
        return units.of(arm.name, seed, stated(sizes, arm, seed))

    def easier_unit(arm: Arm, seed: int) -> Unit:
        return units.of(easier_name(arm), seed, stated(sizes, arm, seed, PASS_ABOVE.name))

    def seeds_of(arm: Arm, unit: Callable[[Arm, int], Unit] = unit) -> list[int]:
        return [seed for seed in sizes.seeds if not part.kept or not unit(arm, seed).missing(asked(sizes, looks))]

    result = experiment(sizes, compared, looks, unit, lambda one: one, lambda one, _: play(one), quick, seeds_of)
    played = [arm for arm in compared if arm.name in result["cells"]]
    result["open_loop"] = None
    if part.whole or part.open_loop or part.kept:
        make = None if part.kept and not part.open_loop else score
        seeds = [(arm, seeds_of(arm)) for arm in played]
        result["open_loop"] = side_by_side(result, seeds, unit, open_loop_how(sizes, quick), make)
    result["easier"] = None
    if part.whole or part.easier or part.kept:
        result["easier"] = easier(
            played,
            looks,
            lambda arm: seeds_of(arm, easier_unit),
            lambda arm, seed: play(easier_unit(arm, seed), PASS_ABOVE),
        )
    told = None
    if part.whole or part.controls:
        wanted = asked(sizes, looks)
        told = controls(
            lambda name: units.of(name, 0, stated(sizes, Arm(name, ()), sizes.seeds[0])), wanted, environment,
            cache / "loops", lambda: open_policy(str(train(compared[0], sizes.seeds[0])), python=str(PYTHON)), commit(),
        )  # fmt: skip
    trainings = {f"{a.name}, seed {seed}": unit(a, seed).training() for a in compared for seed in sizes.seeds}
    look_sheet([look.name for look in looks], cache / "loops", units.folder / SHEET)
    notes = units.folder / NOTES
    result |= {
        "notes": notes.read_text("utf-8").strip() if notes.exists() and not quick else "",
        **_facts(sizes, looks, started),
        "controls": told,
        "trainings": trainings,
        "sheet": f"{units.folder.name}/{SHEET}" if (units.folder / SHEET).exists() and not quick else "",
        "reduced": quick,
        "part": asdict(part),
    }
    write_json(out_dir / "value.json", result)
    write_bytes(out_dir / "value.md", (report(result) + "\n").encode())
    return result


def environment(ends: str = "") -> Environment:
    """The demo task, narrowed."""
    return EmbeddedEnvironment("short", OVERRIDES, ends=ends)


def commit() -> str:
    """Of this clone."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def prepare(cache: Path, sizes: Sizes, compared: Sequence[Arm], quick: bool) -> None:
    """Simulated episodes and what the arms train on, as far as it is not there."""
    needed = {name for arm in compared for name in arm.packs}
    runs = simulate(cache, sizes)
    plain = dataset(cache, "simulated", runs, simulated=True)
    simulated = packed(cache, "simulated", plain)
    if "masked" in needed:
        packed(cache, "masked", plain, runs)
    for count, own_shapes in itertools.product((*sizes.worlds, *sizes.more_worlds), (False, True)):
        name = f"takes{count}{OWN_SHAPES if own_shapes else ''}"
        if wanted := needed & {name, f"{name}{MASKED}"}:
            shot = shoot(cache, runs, count, own_shapes)
            data = dataset(cache, name, shot, simulated=False)
            for each in sorted(wanted):
                packed(cache, each, data, shot if each.endswith(MASKED) else ())
    if "oracle" in needed:
        oracle(cache, simulated, sizes, [look for look in tests(quick) if not look.world])


def stated(sizes: Sizes, arm: Arm, seed: int, task: str = "pick_place") -> dict[str, Any]:
    """Everything that decides what a training's rollouts are, but for the looks: JSON."""
    return {
        "arm": arm.name, "packs": list(arm.packs), "options": list(arm.options), "seed": seed, "episodes": sizes.episodes,
        "steps": sizes.steps, "batch": sizes.batch, "frames": sizes.frames, "overrides": OVERRIDES, "task": task,
        "stage": fingerprint("short", OVERRIDES, None), "simulator": engine.versions(),
        "painters": [ProceduralBackend.version, CompositeBackend.version] if arm.with_takes else [],
    }  # fmt: skip


def tests(quick: bool) -> tuple[Look, ...]:
    """Every look of the house, drawn by Newton; the held-out worlds, drawn by the painter, apart."""
    names = ("dim_warm", "everything") if quick else ()
    return choose_looks(names, load_looks(), HELD_OUT[:1] if quick else HELD_OUT)


def looks_of(part: Part, quick: bool) -> tuple[Look, ...]:
    """The tests of a part. Raises SystemExit for a world that is not held out."""
    if not part.looks:
        return tests(quick)
    worlds = [name.removeprefix("world:") for name in part.looks if name.startswith("world:")]
    if unknown := sorted(set(worlds) - set(HELD_OUT)):
        raise SystemExit(f"worlds {unknown} are not held out; expected some of {list(HELD_OUT)}")
    return choose_looks([name for name in part.looks if not name.startswith("world:")], load_looks(), worlds)


def asked(sizes: Sizes, looks: Sequence[Look]) -> Asked:
    """The same rollouts for every policy: chunks averaged, asked at every frame."""
    seeds = tuple(range(sizes.first_test_seed, sizes.first_test_seed + sizes.rollouts))
    return Asked(tuple(looks), seeds, sizes.frames - 1, ensemble=True)


def experiment(
    sizes: Sizes, compared: Sequence[Arm], looks: Sequence[Look], train: Callable[[Arm, int], Any],
    opened: Callable[[Any], Any], play: Callable[[Any, str], Played], ignore_stop_rule: bool = False,
    seeds_of: Callable[[Arm], Sequence[int]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Stop rule first, then every arm and seed (or the seeds of each arm that `seeds_of` says). Knows no simulator and no torch:
    what trains and plays is given."""
    first = compared[0]
    cells: Cells = {}
    failures: dict[str, dict[str, int]] = {}

    def run(arm: Arm) -> None:
        mine: dict[str, dict[int, list[float]]] = {look.name: {} for look in looks}
        for seed in sizes.seeds if seeds_of is None else seeds_of(arm):
            study = play(opened(train(arm, seed)), f"{arm.name.replace(' ', '-')}-{seed}")
            for look in looks:
                mine[look.name][seed] = [float(r.outcome.success) for r in study.rollouts if r.look == look.name]
            for r in study.rollouts:
                if not r.outcome.success:
                    kinds = failures.setdefault(arm.name, {})
                    kinds[r.outcome.failure] = kinds.get(r.outcome.failure, 0) + 1
        if mine[looks[0].name]:
            cells[arm.name] = mine

    run(first)
    if first.name not in cells:
        raise SystemExit(f"no training of {first.name!r} is kept whole in these looks and rollouts; run without --kept")
    stop = stop_rule(cells[first.name], looks)
    if stop["met"] or ignore_stop_rule:
        for arm in compared[1:]:
            run(arm)
    return {
        "stop_rule": stop,
        "went_on": bool(stop["met"] or ignore_stop_rule),
        "cells": {arm: {look: cell_of(of_seed) for look, of_seed in row.items()} for arm, row in cells.items()},
        "failures": failures,
        "comparisons": comparisons(cells, compared, looks),
    }


def _facts(sizes: Sizes, looks: Sequence[Look], started: float) -> dict[str, Any]:
    return {
        "sizes": asdict(sizes),
        "looks": {look.name: look.axis for look in looks},
        "commit": commit(),
        "python": sys.version.split()[0],
        "seconds_of_the_last_call": round(time.time() - started),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> int:
    """A part of the experiment."""
    whole = Sizes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    parser.add_argument("--arms", nargs="+", default=[], help="beside 'simulated'; default: all")
    parser.add_argument("--looks", nargs="+", default=[], help="beside the unchanged one; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(whole.seeds), help="of the trainings")
    parser.add_argument(
        "--controls", action="store_true", help="play the expert and a blinded policy in these looks too"
    )
    parser.add_argument(
        "--kept", action="store_true", help="train and play nothing: the page of what is kept beside it"
    )
    parser.add_argument("--easier", action="store_true", help="play the easier task in these looks too")
    parser.add_argument("--open-loop", action="store_true", help="score the policies in open loop too")
    parser.add_argument("--rollouts", type=int, default=whole.rollouts, help="per training and look")
    asked_for = parser.parse_args()
    names = tuple(dict.fromkeys(["simulated", *asked_for.arms])) if asked_for.arms else ()
    sizes = replace(whole, seeds=tuple(asked_for.seeds), rollouts=asked_for.rollouts)
    part = Part(
        names, tuple(asked_for.looks), asked_for.kept, asked_for.controls, asked_for.easier, asked_for.open_loop
    )
    run_part(asked_for.out, sizes, part)
    return 0


__all__ = ["Arm", "Part", "agreement", "arms", "experiment", "prove", "report", "stop_rule"]

if __name__ == "__main__":
    sys.exit(main())
