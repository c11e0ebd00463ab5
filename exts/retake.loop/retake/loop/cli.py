# SPDX-License-Identifier: Apache-2.0
"""`retake closed-loop`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from retake.core.camera import require_size
from retake.core.errors import InputError
from retake.core.files import sha256_file, sha256_json
from retake.core.progress import Bar, Stop, silent
from retake.core.robustness.options import FORMS, add_policy_options, policy_of
from retake.core.robustness.own_code import files_of
from retake.core.robustness.policy import Policy
from retake.loop.looks import choose_looks, load_looks
from retake.loop.policies import CONTROLS, Blinded, control
from retake.loop.study import Asked, closed_loop
from retake.loop.tasks import open_task

_EXAMPLES = f"""{FORMS}  expert, hold                   controls: the script itself; staying where one is

tasks: pick_place, reach (the hand ends above the object), or file.py:function (moments, goal) -> bool of your own

examples:
  retake closed-loop --policy expert --seeds 2 --out loop/expert
  retake closed-loop --policy policy.py:act --looks dim_warm table_planks everything --seeds 50 --out loop/act
  retake closed-loop --stage my.usd --object cube --target bin --policy policy.py:act --out loop/mine
"""


def parser() -> argparse.ArgumentParser:
    """Arguments of `retake closed-loop`."""
    out = argparse.ArgumentParser(
        prog="retake closed-loop",
        description="A policy acts in the embedded simulator while only the world's look changes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = out.add_argument
    add_policy_options(out)
    add("--out", required=True, type=Path, help="folder of the study; the same command goes on in it")
    add("--task", default="pick_place", help="see below (default pick_place)")
    add(
        "--looks",
        nargs="+",
        default=(),
        metavar="NAME",
        help="looks to see the scene in (default: all); also world:NAME",
    )
    add("--look-file", nargs="+", default=(), type=Path, metavar="FILE", help="YAML with looks of your own")
    add("--worlds", nargs="+", default=(), metavar="NAME", help="Retake worlds, drawn by the painter")
    add("--seeds", type=int, default=20, metavar="N", help="rollouts per look (default 20)")
    add("--first-seed", type=int, default=0, metavar="N")
    add("--preset", default="short", help="capture preset (default short)")
    add("--stage", type=Path, help="USD stage (or robot description) instead of the preset's")
    add("--object", default="", help="object of the task, on a stage of your own")
    add("--target", default="", help="where it shall end")
    add("--robot-name", default="", help="robot that works")
    add("--instruction", default="", help="the text that the policy reads")
    add("--set", nargs="+", default=(), metavar="KEY=VALUE", help="settings of the capture preset, e.g. fps=30")
    add("--camera", nargs="+", default=(), metavar="NAME=WxH", help="cameras and their sizes (default: the preset's)")
    add("--layout", default="full", help="of state and action, as in `retake export`: full or arm+openness")
    add("--frames", type=int, default=0, help="actions per rollout (default: as many as the script has)")
    add("--execute", type=int, default=4, metavar="N", help="actions played of each chunk (default 4)")
    add("--ensemble", action="store_true", help="ask at every frame and average overlapping chunks")
    add("--blind", action="store_true", help="control: grey pictures instead of what is seen")
    add("--films", type=int, default=2, metavar="N", help="failures kept as videos, per look (default 2)")
    add(
        "--min-success",
        type=float,
        default=None,
        metavar="X",
        help="exit with 3 when the worst axis succeeds less (0..1)",
    )
    add("--quiet", action="store_true")
    return out


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Capture settings from the options. Raises InputError for a malformed one."""
    out: dict[str, Any] = {}
    for text in args.set:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InputError(f"--set {text!r}: expected KEY=VALUE")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text!r}: the value is no YAML: {error}") from error
        place = out
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {text!r}: {parent} was given a value of its own before; say one of the two")
        place[last] = parsed
    named = {"object": args.object, "target": args.target, "robot": args.robot_name, "task": args.instruction}
    out |= {key: value for key, value in named.items() if value}
    if args.stage is not None and args.object and "scenario" not in out:
        out["scenario"] = "pick_place"
    if args.camera:
        out["cameras"] = [_camera(text) for text in args.camera]
        names = [camera["name"] for camera in out["cameras"]]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"--camera names {twice[0]!r} twice; each camera has one size")
    return out


def _camera(text: str) -> dict[str, Any]:
    name, _, size = text.partition("=")
    width, _, height = size.partition("x")
    if not (name and width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
        raise InputError(f"--camera {text!r}: expected NAME=WIDTHxHEIGHT, e.g. front=128x96")
    mount = "body" if name == "wrist" else "fixed"
    size = require_size((int(width), int(height)), f"--camera {text!r}")
    return {"name": name, "size": list(size), "mount": mount}


def identity_of(*specs: str) -> str:
    """Content hash of the files behind `file.py:name`, `module:name` and policy folders: a study never mixes two versions of
    a policy. Of what is named in Python, once it is opened: its file, and what that imported from beside it.

    What has a name alone (a policy or task of Retake's own) has no files.
    """
    found = []
    for spec in specs:
        if spec and Path(spec).is_dir():
            files = sorted(Path(spec).rglob("*"))
        else:
            files = files_of(spec.rpartition(":")[0]) if ":" in spec and "://" not in spec else []
        found.append([sha256_file(file) for file in files if file.is_file()])
    return sha256_json(found)


def main(argv: list[str]) -> int:
    """`retake closed-loop --policy P --out DIR`; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)
    if args.seeds < 1 or args.first_seed < 0:
        raise InputError(f"--seeds {args.seeds} from {args.first_seed}: expected one or more, from zero or more")
    for name, value, least in (("execute", args.execute, 1), ("frames", args.frames, 0), ("films", args.films, 0)):
        if value < least:
            raise InputError(f"--{name} is {value}; expected {least} or more")
    if args.min_success is not None and not 0 <= args.min_success <= 1:
        raise InputError(f"--min-success is {args.min_success}; expected a rate from 0 to 1")
    task = open_task(args.task)
    looks = choose_looks(args.looks, load_looks(args.look_file), args.worlds)
    overrides = overrides_of(args)
    from retake.loop.embedded import EmbeddedEnvironment

    environment = EmbeddedEnvironment(args.preset, overrides, args.stage, ends=task.ends, layout=args.layout)
    policy: Policy = control(args.policy, environment) if args.policy in CONTROLS else policy_of(args)
    if args.blind:
        policy = Blinded(policy)
    asked = Asked(
        looks, tuple(range(args.first_seed, args.first_seed + args.seeds)), args.frames or environment.facts.frames,
        args.execute, args.ensemble, args.timeout, args.films, identity_of(args.policy, args.task),
    )  # fmt: skip
    study = closed_loop(
        environment, policy, task, args.out, asked, progress=silent if args.quiet else Bar("closed loop"),
        check_cancel=Stop().check,
    )  # fmt: skip
    for row in study.looks:
        print(f"{row.name:<20} {row.successes:>4} / {row.count:<4} (95 % {row.low:.0%} … {row.high:.0%})")
    if study.no_change:
        print(f"nothing to see in: {', '.join(study.no_change)} (the stage has nothing there that the look changes)")
    print(study.html)
    if args.min_success is None:
        return 0
    return (
        3
        if min((row.successes / row.count for row in study.axes or study.looks), default=0.0) < args.min_success
        else 0
    )
