# SPDX-License-Identifier: Apache-2.0
"""`retake train-probe`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from retake.core.errors import InputError
from retake.core.export.reader import Dataset, is_dataset
from retake.core.files import sha256_bytes
from retake.core.plugins import load
from retake.core.progress import Bar, Stop, silent
from retake.core.run_store import LOCK, held_out, remove_leftovers
from retake.worker.probe.augment import AUGMENTATIONS
from retake.worker.probe.background import backgrounds
from retake.worker.probe.data import Masks, Pack, PackFacts, facts_of, open_pack, pack
from retake.worker.probe.settings import PACKS, Settings

_EXAMPLES = """examples:
  retake export runs/* --include-sim --out data/simulated
  retake train-probe data/simulated --out probes/simulated
  retake train-probe data/simulated data/takes --shares 1 1 --out probes/takes --seed 1
  retake train-probe data/simulated data/takes --shares 1 1 --augment textures --runs runs/* --out probes/both
  retake closed-loop --policy probes/simulated --camera front=128x96 wrist=80x60 --out loop/simulated
"""


def parser() -> argparse.ArgumentParser:
    """Arguments of `retake train-probe`."""
    out = argparse.ArgumentParser(
        prog="retake train-probe",
        description="Train a small fixed policy on LeRobot data sets: a measuring device, not a product.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = out.add_argument
    add("datasets", nargs="+", type=Path, metavar="DATASET", help="LeRobot data sets, or packs of them")
    add("--out", required=True, type=Path, help="the policy's folder; the same command goes on in it")
    add("--packs", type=Path, default=None, metavar="DIR", help="where packed data sets are kept (default: OUT/packs)")
    add("--steps", type=int, default=Settings.steps, help=f"optimiser steps (default {Settings.steps})")
    add("--batch", type=int, default=Settings.batch)
    add("--rate", type=float, default=Settings.rate, help="learning rate")
    add("--seed", type=int, default=Settings.seed)
    add("--augment", choices=AUGMENTATIONS, default="none")
    add(
        "--runs", nargs="+", type=Path, default=(), metavar="RUN",
        help="what the data sets were exported from: they tell background from robot and objects, for --augment textures",
    )  # fmt: skip
    add("--shares", nargs="+", type=float, default=(), metavar="X", help="share of each data set in a batch")
    add("--shuffle-actions", action="store_true", help="control: targets of other frames")
    add("--threads", type=int, default=1)
    add("--quiet", action="store_true")
    return out


def main(argv: list[str]) -> int:
    """`retake train-probe DATASET… --out DIR`; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)
    settings = Settings(
        args.steps,
        args.batch,
        args.rate,
        args.seed,
        args.augment,
        args.threads,
        args.shuffle_actions,
        tuple(args.shares),
    )
    train, admit = (load(f"retake.worker.probe.train:{name}", extra="oscar") for name in ("train", "admit"))
    stop = Stop()
    if args.runs and settings.augment != "textures":
        raise InputError(f"--runs is for --augment textures; asked is --augment {settings.augment}")
    masks = backgrounds(args.runs) if args.runs else None
    with held_out(args.out):
        admit([_facts(path, args, masks, stop) for path in args.datasets], args.out, settings)
        remove_leftovers(args.out)
        packs = [_packed(path, args, masks, stop) for path in args.datasets]
        bar = silent if args.quiet else Bar("probe")
        made = train(packs, args.out, settings, progress=bar, check_cancel=stop.check)
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            (args.out / LOCK).unlink()  # what lies in a policy's folder is part of its identity in a closed loop
    print(f"{made.parameters} parameters, {made.steps} steps, {made.seconds:.0f} s, loss {made.loss:.4f}")
    print(made.folder)
    return 0


def _is_pack(path: Path) -> bool:
    return not is_dataset(path) and (path / "pack.json").exists()


def _place(path: Path, args: argparse.Namespace) -> Path:
    """Where a data set's pack is kept: two data sets may have one name (a/train, b/train)."""
    place = path.resolve()
    kind = "-masked" if args.runs else ""
    return Path(args.packs or args.out / PACKS) / f"{place.name}-{sha256_bytes(str(place).encode())[:8]}{kind}"


def _facts(path: Path, args: argparse.Namespace, masks: Masks | None, stop: Stop) -> PackFacts:
    """What is learnt from, without packing it. A pack that is there is read without the extra `export`."""
    if _is_pack(path):
        return open_pack(path).facts
    if (_place(path, args) / "pack.json").exists():
        return _packed(path, args, masks, stop).facts
    bar = silent if args.quiet else Bar(path.name[:12])
    return facts_of(Dataset(path), masked=masks is not None, progress=bar, check_cancel=stop.check)


def _packed(path: Path, args: argparse.Namespace, masks: Masks | None, stop: Stop) -> Pack:
    if _is_pack(path):
        return open_pack(path)
    bar = silent if args.quiet else Bar(path.name[:12])
    return pack(path, _place(path, args), masks=masks, progress=bar, check_cancel=stop.check)
