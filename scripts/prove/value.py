# SPDX-License-Identifier: Apache-2.0
"""Does training on takes make a policy better? The probe in closed loop, trained on equal steps of different data, seen in looks
that no training saw. Hours; resumable at every step (one rollout, one training).

    make value     (or: python scripts/prove.py value [--quick])
    python scripts/prove/value.py --arms simulated takes32 --looks dim_warm everything --seeds 0 --rollouts 40

The second is a part of the experiment, and its page says which; the whole goes on from what a part has done.

Nothing is chosen by looking at the tests: looks, worlds, arms and steps are stated here and in config/closed_loop.yaml, and the
painter that made the takes draws none of the tests that carry the claim (its held-out worlds are told apart).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from value_data import HELD_OUT, OVERRIDES, Sizes, dataset, held_out, oracle, packed, shoot, simulate

from retake.core.export import Selection
from retake.core.files import read_json, write_bytes, write_json
from retake.core.robustness import Policy, open_policy, robustness
from retake.loop.embedded import EmbeddedEnvironment
from retake.loop.environment import Environment
from retake.loop.looks import UNCHANGED, Look, choose_looks, load_looks
from retake.loop.policies import Blinded, Expert
from retake.loop.statistics import paired, wilson
from retake.loop.study import Asked, Study, closed_loop
from retake.loop.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".venv-worker" / "bin" / "python"
LEAST_UNCHANGED, LEAST_LOSS, LEAST_AXES = 0.80, 0.25, 2
"""The stop rule: simulated-only must reach this rate unchanged, and lose this much on at least so many axes."""


@dataclass(frozen=True)
class Arm:
    """One way to train, on the same number of steps."""

    name: str
    packs: tuple[str, ...]
    options: tuple[str, ...] = ()
    competes: bool = True
    """Controls and the oracle do not."""


def arms(sizes: Sizes) -> tuple[Arm, ...]:
    """What is compared. `takes…`: half simulated, half takes."""
    return (
        Arm("simulated", ("simulated",)),
        Arm("jitter", ("simulated",), ("--augment", "jitter")),
        Arm("textures", ("masked",), ("--augment", "textures")),
        *(Arm(f"takes{n}", ("simulated", f"takes{n}"), ("--shares", "1", "1")) for n in sizes.worlds),
        Arm("oracle", ("oracle",), competes=False),
        Arm("shuffled actions", ("simulated",), ("--shuffle-actions",), competes=False),
    )


@dataclass(frozen=True)
class Part:
    """What of the experiment is run; empty = all of it."""

    arms: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    """Beside the unchanged one; `world:NAME` for a world of the painter."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out (sizes apart)."""
        return not self.arms and not self.looks


WHOLE = Part()


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """The whole experiment: run what is missing, write value.json and value.md."""
    return run_part(out_dir, Sizes.reduced() if quick else Sizes(), WHOLE, quick)


def run_part(out_dir: Path, sizes: Sizes, part: Part, quick: bool = False) -> dict[str, Any]:
    """Run what is missing of a part of the experiment, write value.json and value.md. What a part has done stays valid for the
    whole. The open-loop comparison and the controls belong to the whole alone."""
    cache = ROOT / ".cache" / ("value-quick" if quick else "value")
    started = time.time()
    compared = tuple(arm for arm in arms(sizes) if not part.arms or arm.name in part.arms)
    if not compared or compared[0].name != "simulated":
        raise SystemExit(
            f"arms are {list(part.arms)}; expected some of {[a.name for a in arms(sizes)]}, 'simulated' first"
        )
    looks = looks_of(part, quick)
    needed = {name for arm in compared for name in arm.packs}
    runs = simulate(cache, sizes)
    plain = dataset(cache, "simulated", runs, simulated=True)
    simulated = packed(cache, "simulated", plain)
    if "masked" in needed:
        packed(cache, "masked", plain, masks=True)
    for count in sizes.worlds:
        if (name := f"takes{count}") in needed:
            packed(cache, name, dataset(cache, name, shoot(cache, runs, count), simulated=False))
    if "oracle" in needed:
        oracle(cache, simulated, sizes, [look for look in tests(quick) if not look.world])

    def train(arm: Arm, seed: int) -> Path:
        out = cache / "probes" / f"{arm.name.replace(' ', '-')}-{seed}"
        if not (out / "config.json").exists():
            folders = [str(cache / "packs" / name) for name in arm.packs]
            call = [
                str(PYTHON),
                "-m",
                "retake.core.cli",
                "train-probe",
                *folders,
                "--out",
                str(out),
                "--seed",
                str(seed),
            ]
            call += ["--steps", str(sizes.steps), "--batch", str(sizes.batch), *arm.options]
            subprocess.run(call, check=True)
        return out

    def play(policy: Policy, name: str) -> Study:
        return closed_loop(
            EmbeddedEnvironment("short", OVERRIDES),
            policy,
            TASKS["pick_place"],
            cache / "loops" / name,
            asked(sizes, looks),
        )

    result = experiment(sizes, compared, looks, train, lambda p: open_policy(str(p), python=str(PYTHON)), play, quick)
    result["open_loop"] = side_by_side(cache, sizes, result, quick) if part.whole else None
    result |= {**_facts(cache, sizes, looks, started, part), "reduced": quick, "part": asdict(part)}
    write_json(out_dir / "value.json", result)
    write_bytes(out_dir / "value.md", (report(result) + "\n").encode())
    return result


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
    opened: Callable[[Any], Policy], play: Callable[[Policy, str], Study], ignore_stop_rule: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Stop rule first, then every arm and seed. Knows no simulator and no torch: what trains and plays is given."""
    first = compared[0]
    cells: dict[str, dict[str, list[float]]] = {}
    """arm → look → success of every (training seed, rollout), in one order."""
    failures: dict[str, dict[str, int]] = {}

    def run(arm: Arm) -> None:
        mine: dict[str, list[float]] = {look.name: [] for look in looks}
        for seed in sizes.seeds:
            study = play(opened(train(arm, seed)), f"{arm.name.replace(' ', '-')}-{seed}")
            for look in looks:
                mine[look.name] += [float(r.outcome.success) for r in study.rollouts if r.look == look.name]
            for r in study.rollouts:
                if not r.outcome.success:
                    kinds = failures.setdefault(arm.name, {})
                    kinds[r.outcome.failure] = kinds.get(r.outcome.failure, 0) + 1
        cells[arm.name] = mine

    run(first)
    stop = stop_rule(cells[first.name], looks)
    if stop["met"] or ignore_stop_rule:
        for arm in compared[1:]:
            run(arm)
    return {
        "stop_rule": stop,
        "went_on": bool(stop["met"] or ignore_stop_rule),
        "cells": {
            arm: {look: _cell(values, len(sizes.seeds)) for look, values in row.items()} for arm, row in cells.items()
        },
        "failures": failures,
        "comparisons": _comparisons(cells, compared, looks),
    }


def stop_rule(row: dict[str, list[float]], looks: Sequence[Look]) -> dict[str, Any]:
    """Whether the task and the probe are good enough for anything to be claimed. Worlds of the painter do not count."""
    unchanged = float(np.mean(row[UNCHANGED]))
    losses: dict[str, float] = {}
    for axis in dict.fromkeys(look.axis for look in looks if look.name != UNCHANGED and not look.world):
        rates = [np.mean(row[look.name]) for look in looks if look.axis == axis]
        losses[axis] = unchanged - float(np.mean(rates))
    lost = [axis for axis, loss in losses.items() if loss >= LEAST_LOSS]
    met = unchanged >= LEAST_UNCHANGED and len(lost) >= LEAST_AXES
    return {"met": met, "unchanged": unchanged, "losses": losses, "axes_lost": lost}


def _cell(values: Sequence[float], trainings: int) -> dict[str, Any]:
    """Counts over all trainings, and the rate of each: rollouts of one training are not independent of its luck."""
    low, high = wilson(int(sum(values)), len(values))
    by_training = [float(np.mean(part)) for part in np.array_split(np.array(values), trainings)]
    return {"successes": int(sum(values)), "count": len(values), "low": low, "high": high, "by_training": by_training}


def agreement(open_scores: Sequence[float], closed_rates: Sequence[float]) -> dict[str, Any]:
    """Does the open-loop score predict the closed-loop rate? Correlations over policies (None where one of them is constant),
    and whether the policy with the best score is one with the best rate (None where all rates are equal)."""
    a, b = np.asarray(open_scores, np.float64), np.asarray(closed_rates, np.float64)

    def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
        return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() > 0 and y.std() > 0 else None

    def ranks(x: np.ndarray) -> np.ndarray:
        return np.array([(x < v).sum() + ((x == v).sum() - 1) / 2 for v in x])

    return {
        "policies": len(a),
        "pearson": correlation(a, b),
        "spearman": correlation(ranks(a), ranks(b)),
        "picks_the_right_policy": bool(b[int(a.argmax())] == b.max()) if b.std() > 0 else None,
    }


def _comparisons(
    cells: dict[str, dict[str, list[float]]], compared: Sequence[Arm], looks: Sequence[Look]
) -> dict[str, Any]:
    """Takes against simulated-only and against the best cheap baseline, per axis, over pairs of (training seed, rollout)."""
    cheap = [arm.name for arm in compared if arm.competes and arm.name in ("jitter", "textures") and arm.name in cells]
    out: dict[str, Any] = {}
    for arm in compared:
        if not arm.name.startswith("takes") or arm.name not in cells:
            continue
        rows = {}
        for axis in dict.fromkeys(look.axis for look in looks):
            names = [look.name for look in looks if look.axis == axis]
            mean = {a: np.mean([cells[a][n] for n in names], 0) for a in (arm.name, compared[0].name, *cheap)}
            best = max(cheap, key=lambda a: float(mean[a].mean())) if cheap else ""
            rows[axis] = {
                "over_simulated": asdict(paired(mean[compared[0].name], mean[arm.name])),
                "best_cheap": best,
                "over_best_cheap": asdict(paired(mean[best], mean[arm.name])) if best else None,
            }
        out[arm.name] = rows
    return out


def side_by_side(cache: Path, sizes: Sizes, result: dict[str, Any], quick: bool) -> dict[str, Any]:
    """`retake robustness` (open loop) and closed loop, over every policy that was trained: episodes of the test seeds, takes in
    the held-out worlds; the closed-loop rate is the mean over every look but the unchanged one."""
    runs = held_out(cache, sizes, 1 if quick else 4)
    scores, rates, names = [], [], []
    for arm in arms(sizes):
        if arm.name not in result["cells"]:
            continue
        row = [cell for look, cell in result["cells"][arm.name].items() if look != UNCHANGED]
        for index, seed in enumerate(sizes.seeds):
            out = cache / "open" / f"{arm.name.replace(' ', '-')}-{seed}"
            if not (out / "report.json").exists():
                probe = open_policy(str(cache / "probes" / out.name), python=str(PYTHON))
                try:
                    robustness(runs, probe, out, selection=Selection(unverified=True))
                finally:
                    probe.close()  # type: ignore[attr-defined]
            scores.append(float(read_json(out / "report.json")["score"]["value"]))
            rates.append(float(np.mean([cell["by_training"][index] for cell in row])))
            names.append(out.name)
    table = {name: [score, rate] for name, score, rate in zip(names, scores, rates, strict=True)}
    return {**agreement(scores, rates), "score_and_rate": table}


def controls(
    environment: Environment, looks: Sequence[Look], sizes: Sizes, cache: Path, blinded: Policy | None
) -> dict[str, Any]:
    """The expert in every look, by the same states; a policy on grey pictures."""
    task = TASKS["pick_place"]
    expert = closed_loop(environment, Expert(environment), task, cache / "loops" / "expert", asked(sizes, looks))
    out: dict[str, Any] = {
        "expert": {row.name: [row.successes, row.count] for row in expert.looks},
        "expert_states_equal_across_looks": expert.same_states,
    }
    if blinded is not None:
        grey = closed_loop(environment, Blinded(blinded), task, cache / "loops" / "blinded", asked(sizes, looks[:1]))
        out["blinded"] = {row.name: [row.successes, row.count] for row in grey.looks}
    return out


def _facts(cache: Path, sizes: Sizes, looks: Sequence[Look], started: float, part: Part) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    told = None
    if part.whole:
        first = cache / "probes" / f"simulated-{sizes.seeds[0]}"
        blinded = open_policy(str(first), python=str(PYTHON))
        told = controls(EmbeddedEnvironment("short", OVERRIDES), looks, sizes, cache, blinded)
    curves = {
        folder.name: read_json(folder / "config.json")["curve"] for folder in sorted((cache / "probes").glob("*"))
        if (folder / "config.json").exists()
    }  # fmt: skip
    return {
        "controls": told,
        "sizes": asdict(sizes),
        "looks": {look.name: look.axis for look in looks},
        "curves": curves,
        "commit": commit.stdout.strip(),
        "python": sys.version.split()[0],
        "seconds_of_the_last_call": round(time.time() - started),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def report(result: dict[str, Any]) -> str:
    """value.md."""
    stop, sizes = result["stop_rule"], result["sizes"]
    lines = [
        "# Does training on takes make a policy better?",
        "",
        "In our simulator, with this probe; no claim about real robots. Terms: [closed_loop.md](../closed_loop.md).",
        "",
        *(["**A reduced run: it shows that the machinery works, and nothing else.**", ""] if result["reduced"] else []),
        *([_part_said(result["cells"], result["looks"]), ""] if result.get("open_loop") is None else []),
        f"{sizes['episodes']} simulated episodes, {sizes['steps']} optimiser steps for every arm, training seeds "
        f"{', '.join(map(str, sizes['seeds']))}, {sizes['rollouts']} paired rollouts per seed and look. "
        f"Commit `{result['commit']}`.",
        "",
        f"**Stop rule.** Simulated-only succeeds unchanged in {stop['unchanged']:.0%} (at least {LEAST_UNCHANGED:.0%} asked) and "
        f"loses {LEAST_LOSS:.0%} or more on {len(stop['axes_lost'])} axes (at least {LEAST_AXES} asked): "
        + ("met." if stop["met"] else "**not met, so nothing is claimed**; the task or the probe is at fault."),
        "",
        "| arm | " + " | ".join(result["looks"]) + " |",
        "|---" * (1 + len(result["looks"])) + "|",
    ]
    for arm, row in result["cells"].items():
        shown = [f"{c['successes']}/{c['count']} ({c['low']:.0%}–{c['high']:.0%})" for c in row.values()]
        lines.append(f"| {arm} | " + " | ".join(shown) + " |")
    for arm, rows in result["comparisons"].items():
        lines += [
            "",
            f"## {arm}",
            "",
            "| axis | over simulated, points | over the best cheap baseline, points |",
            "|---|---|---|",
        ]
        for axis, row in rows.items():
            cheap = _points(row["over_best_cheap"])
            lines.append(f"| {axis} | {_points(row['over_simulated'])} | {cheap} ({row['best_cheap'] or 'none'}) |")
    if both := result["open_loop"]:
        lines += [
            "",
            f"**Open loop and closed loop**, over {both['policies']} policies: Pearson {_two(both['pearson'])}, Spearman "
            f"{_two(both['spearman'])}; {PICKS[both['picks_the_right_policy']]}.",
        ]
    lines += [
        "",
        "**Failures** (all looks): "
        + "; ".join(
            f"{arm}: {', '.join(f'{kind} {n}' for kind, n in kinds.items()) or 'none'}"
            for arm, kinds in result["failures"].items()
        )
        + ".",
    ]
    told = result["controls"]
    if told is None:
        return "\n".join(lines)
    lines += [
        "", "## Controls", "",
        f"- The expert: {', '.join(f'{look} {s}/{n}' for look, (s, n) in told['expert'].items())}; "
        f"states bit-equal across looks: {'yes' if told['expert_states_equal_across_looks'] else '**no**'}.",
        *(f"- Blinded (grey pictures), {look}: {s}/{n}." for look, (s, n) in told.get("blinded", {}).items()),
    ]  # fmt: skip
    return "\n".join(lines)


def _part_said(cells: dict[str, Any], looks: dict[str, str]) -> str:
    return (
        f"**A part of the experiment**: {len(cells)} of its arms in {len(looks)} looks, chosen before any of them was "
        "played. The oracle, the control on shuffled actions, the blinded policy, the expert in every look and the open-loop "
        "comparison are run with the whole of it (`make value`) and missing here where no row names them."
    )


PICKS = {
    True: "the policy with the best open-loop score is one of the best in closed loop",
    False: "the policy with the best open-loop score is **not** one of the best in closed loop",
    None: "all policies do equally well in closed loop, so none is the right one",
}


def _two(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _points(d: dict[str, Any] | None) -> str:
    return "–" if d is None else f"{100 * d['value']:+.0f} ({100 * d['low']:+.0f} … {100 * d['high']:+.0f})"


def main() -> int:
    """A part of the experiment."""
    whole = Sizes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    parser.add_argument("--arms", nargs="+", default=[], help="beside 'simulated'; default: all")
    parser.add_argument("--looks", nargs="+", default=[], help="beside the unchanged one; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(whole.seeds), help="of the trainings")
    parser.add_argument("--rollouts", type=int, default=whole.rollouts, help="per training and look")
    asked_for = parser.parse_args()
    names = tuple(dict.fromkeys(["simulated", *asked_for.arms])) if asked_for.arms else ()
    sizes = replace(whole, seeds=tuple(asked_for.seeds), rollouts=asked_for.rollouts)
    run_part(asked_for.out, sizes, Part(names, tuple(asked_for.looks)))
    return 0


__all__ = ["Arm", "Part", "agreement", "arms", "experiment", "prove", "report", "stop_rule"]

if __name__ == "__main__":
    sys.exit(main())
