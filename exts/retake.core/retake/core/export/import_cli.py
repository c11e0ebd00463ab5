# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset becomes Episodes, from the command line."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from retake.core.episode import Episode, open_episode
from retake.core.errors import InputError, MissingDependencyError
from retake.core.export.import_lerobot import ImportOptions, import_lerobot, load_calibration
from retake.core.files import read_json
from retake.core.progress import Bar, silent
from retake.core.robot import RobotSpec
from retake.core.urdf import read_urdf


def load_robot(path: Path, ee_link: str | None = None) -> RobotSpec:
    """The robot of a .urdf, of a USD stage (needs the extra `usd`), or of a RobotSpec's JSON. Raises InputError."""
    if path.suffix == ".urdf":
        return read_urdf(path, ee_link)
    if path.suffix == ".json":
        try:
            return RobotSpec.from_json(read_json(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no robot description: {type(error).__name__}: {error}") from error
    if path.suffix not in (".usd", ".usda", ".usdc", ".usdz"):
        raise InputError(f"{path}: expected a .urdf, a .usd stage or a RobotSpec's .json")
    try:  # by name: core imports no USD
        stage = importlib.import_module("retake.usd.stage").open_stage(path)
        robots = importlib.import_module("retake.usd.articulation").read_robots(stage)
    except ImportError as error:
        raise MissingDependencyError("reading USD needs pxr: pip install 'isaac-retake[usd]'") from error
    if len(robots) != 1:
        raise InputError(f"{path} has {len(robots)} robots; a dataset is imported for one")
    return robots[0]


def parser() -> argparse.ArgumentParser:
    """Arguments of the LeRobot import."""
    out = argparse.ArgumentParser(
        prog="retake import",
        description="Demonstrations of a LeRobot dataset become Episodes (motion_source 'recorded'), one folder each.",
        epilog='cameras.json: {"front": {"K": 3x3, "T_camera_world": 4x4, "link": ""}}, world = the robot\'s base frame',
    )
    add = out.add_argument
    add("dataset", type=Path, help="LeRobot dataset (v3.0, v2.1 or v2.0)")
    add("--out", type=Path, required=True)
    add("--robot", type=Path, required=True, help=".urdf, .usd stage, or a RobotSpec's .json")
    add("--ee-link", help="end-effector link, where the URDF shows no gripper")
    add("--cameras", type=Path, required=True, help="calibration (JSON)")
    add("--episodes", type=int, nargs="+", help="default: all")
    add("--joint", nargs="+", default=(), metavar="JOINT=ENTRY", help="entry of observation.state for a joint")
    add("--gripper", nargs="+", default=(), metavar="GRIPPER=ENTRY", help="entry that holds a gripper's openness")
    add("--gripper-range", nargs=2, type=float, default=(0.0, 1.0), metavar=("CLOSED", "OPEN"))
    add("--degrees", action="store_true", help="revolute joints are in degrees")
    add("--licence", default="", help="terms of the recording")
    add("--quiet", action="store_true")
    return out


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    parts = [text.partition("=") for text in texts]
    if bad := [text for text, (a, _, b) in zip(texts, parts, strict=True) if not (a and b)]:
        raise InputError(f"{option} {bad[0]!r}: expected NAME=ENTRY")
    return {a: b for a, _, b in parts}


def _options(args: argparse.Namespace) -> ImportOptions:
    return ImportOptions(
        _pairs(list(args.joint), "--joint"),
        _pairs(list(args.gripper), "--gripper"),
        (args.gripper_range[0], args.gripper_range[1]),
        args.degrees,
        licence=args.licence,
    )


def main(argv: list[str]) -> int:
    """`DATASET --robot FILE --cameras FILE --out DIR`: every episode; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)
    made = import_lerobot(
        args.dataset,
        args.out,
        load_robot(args.robot, args.ee_link),
        load_calibration(args.cameras),
        _options(args),
        episodes=args.episodes,
        progress=silent if args.quiet else Bar("import"),
    )
    for episode in made:
        print(f"{episode.path}: {len(episode)} frames, {episode.header.task!r}")
    return 0


def import_command(source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()) -> Episode:
    """One episode (`--episodes N`, default 0) at exactly `out`; `urdf` stands for --robot. Raises RetakeError."""
    given = ["--robot", str(urdf)] if urdf else []
    args = parser().parse_args([str(source), "--out", str(out), *given, *arguments])
    chosen = args.episodes or [0]
    if len(chosen) != 1:
        raise InputError(f"a run holds one episode; --episodes names {len(chosen)}")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".import.") as folder:
        robot, cameras = load_robot(args.robot, args.ee_link), load_calibration(args.cameras)
        (made,) = import_lerobot(
            source,
            folder,
            robot,
            cameras,
            _options(args),
            episodes=chosen,
            progress=silent if args.quiet else Bar("import"),
        )
        if out.exists():
            raise InputError(f"{out} exists; choose another folder (nothing was changed)")
        made.path.rename(out)
    return open_episode(out)
