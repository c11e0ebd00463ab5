# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset becomes Episodes, from the command line."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.errors import InputError, MissingDependencyError, install_hint, unknown_name
from retake.core.export.reader import Dataset
from retake.core.files import owner_tag, read_json
from retake.core.geometry import inverse
from retake.core.importers.entries import MISSING
from retake.core.importers.lerobot import camera_name, import_lerobot
from retake.core.importers.lerobot_records import Calibration, ImportOptions, load_calibration
from retake.core.importers.lerobot_vectors import NO_ACTION
from retake.core.importers.units import UNITS
from retake.core.masks.meshes import read_robot
from retake.core.progress import Bar, Stop, silent
from retake.core.robot import RobotSpec

USD = (".usd", ".usda", ".usdc", ".usdz")


def load_robot(path: Path, ee_link: str | None = None) -> RobotSpec:
    """The robot of a .urdf, of a USD stage (needs the extra `usd`), or of a RobotSpec's JSON. Raises InputError."""
    if path.suffix == ".urdf":
        return read_robot(path, ee_link)
    if path.suffix == ".json":
        try:
            data = read_json(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no robot description: {type(error).__name__}: {error}") from error
        return RobotSpec.from_json(data, str(path))
    if path.suffix not in USD:
        raise InputError(f"{path}: expected a .urdf, a .usd stage or a RobotSpec's .json")
    return _articulation(path).spec


def load_cameras(
    path: Path, sizes: Mapping[str, tuple[int, int]], prims: Mapping[str, str]
) -> tuple[dict[str, Calibration], np.ndarray]:
    """(camera name → calibration, T_world_base) from a calibration's JSON, or from a USD stage's own cameras.

    `sizes`: (width, height) of the dataset's cameras; `prims`: camera name → prim path on the stage; empty = the
    cameras whose prims bear the names. In JSON the world is the robot's base, on a stage it is the stage's. Raises InputError.
    """
    if path.suffix not in USD:
        return load_calibration(path), np.eye(4)
    articulation, stage = _articulation(path), _usd("stage").open_stage(path)
    found = {str(prim.GetPath()): prim for prim in _usd("camera").camera_prims(stage)}
    named = {Path(prim).name: prim for prim in found}
    chosen = dict(prims) or {name: named[name] for name in sizes if name in named}
    if not chosen:
        raise InputError(
            f"no camera of {path} is named like one of the dataset ({', '.join(sizes)}); say which is which with "
            f"--camera NAME=PRIM: {', '.join(found)}"
        )
    out = {}
    for name, prim in chosen.items():
        if name not in sizes:
            raise InputError(unknown_name("camera of the dataset", name, sizes))
        if prim not in found:
            raise InputError(unknown_name(f"camera of {path}", prim, found))
        camera = _usd("camera").read_camera(found[prim], sizes[name])
        link = Path(camera.body_path).name if camera.body_path else ""
        out[name] = Calibration(camera.K, inverse(camera.T_body_camera), link, camera.lens)
    return out, articulation.T_world_link[articulation.spec.root]


def _articulation(path: Path) -> Any:
    """The only robot of a stage. Raises InputError, MissingDependencyError."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a USD stage")
    robots = _usd("articulation").read_articulations(_usd("stage").open_stage(path))
    if len(robots) != 1:
        raise InputError(f"{path} has {len(robots)} robots; a dataset is imported for one")
    return robots[0]


def _usd(module: str) -> Any:
    """By name: core imports no USD."""
    try:
        return importlib.import_module(f"retake.usd.{module}")
    except ImportError as error:
        raise MissingDependencyError(f"reading USD needs pxr: {install_hint('usd')}") from error


def parser(*, required: bool = True) -> argparse.ArgumentParser:
    """Arguments of the LeRobot import; `required`: whether output, robot and cameras must be named."""
    out = argparse.ArgumentParser(
        prog="retake import",
        description="Demonstrations of a LeRobot dataset become Episodes (motion_source 'recorded'), one folder each.",
        allow_abbrev=False,
        epilog='cameras.json: {"front": {"K": 3x3, "T_camera_world": 4x4, "link": ""}}, world = the robot\'s base frame; '
        "of a USD stage the cameras themselves are read",
    )
    add = out.add_argument
    add("dataset", type=Path, help="LeRobot dataset (v3.0, v2.1 or v2.0)")
    add("--out", type=Path, required=required)
    add("--robot", type=Path, required=required, help=".urdf, .usd stage, or a RobotSpec's .json")
    add("--ee-link", help="end-effector link, where the URDF shows no gripper")
    add("--cameras", type=Path, required=required, help="calibration (.json), or the .usd stage with the cameras")
    add("--camera", nargs="+", default=(), metavar="NAME=PRIM", help="camera of the dataset = its prim on the stage")
    add("--episodes", type=int, nargs="+", help="default: all")
    add("--state-key", nargs="+", default=(), metavar="FEATURE", help="the state, joined in order (observation.state)")
    add("--action-key", default="", metavar="FEATURE", help=f"the action (default: action); '{NO_ACTION}' = no targets")
    add("--image-key", nargs="+", default=(), metavar="CAMERA=FEATURE", help="pictures of a camera of the calibration")
    add("--entries", default="", metavar="A,B,…", help="names of the state's entries in order, '-' for none")
    add("--joint", nargs="+", default=(), metavar="JOINT=ENTRY", help="entry of the state for a joint")
    add("--unit", nargs="+", default=(), metavar="JOINT=UNIT", help=f"{_UNIT_HELP} {', '.join(UNITS)}")
    add("--action-unit", nargs="+", default=(), metavar="JOINT=UNIT", help="where the action's units are others")
    add("--degrees", action="store_true", help="the same as --unit revolute=deg")
    add("--flip", nargs="+", default=(), metavar="JOINT", help="joints that count the other way round")
    add(
        "--offset",
        nargs="+",
        default=(),
        metavar="JOINT=X",
        help="another zero: added in the entry's unit, after --flip",
    )
    add("--gripper", nargs="+", default=(), metavar="GRIPPER=ENTRY", help=f"entry of its openness, or '{MISSING}'")
    add("--gripper-range", nargs=2, type=float, metavar=("CLOSED", "OPEN"), help="numbers of that entry")
    add("--resample", action="store_true", help="bring an episode whose clock drifts to the frame rate")
    add("--beyond-limits", action="store_true", help="take positions outside the robot's limits as they are")
    add("--licence", default="", help="terms of the recording")
    add("--quiet", action="store_true")
    return out


_PAIRS = ("joint", "gripper", "unit", "action_unit", "offset", "image_key")
_UNIT_HELP = "unit of a joint, an entry, or of all that are 'revolute', 'prismatic' or 'all':"


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    parts = [text.partition("=") for text in texts]
    if bad := [text for text, (a, _, b) in zip(texts, parts, strict=True) if not (a and b)]:
        raise InputError(f"{option} {bad[0]!r}: expected NAME=ENTRY")
    return {a: b for a, _, b in parts}


def options_of(args: argparse.Namespace) -> tuple[RobotSpec, dict[str, Calibration], ImportOptions]:
    """Robot, calibrations and options that parsed arguments name. Raises InputError."""
    robot = load_robot(args.robot, args.ee_link)
    sizes = {camera_name(key): size for key, size in Dataset(args.dataset).schema.cameras.items()}
    cameras, T_world_base = load_cameras(args.cameras, sizes, _pairs(list(args.camera), "--camera"))
    given = {name: _pairs(list(getattr(args, name)), f"--{name.replace('_', '-')}") for name in _PAIRS}
    try:
        offset = {name: float(text) for name, text in given["offset"].items()}
    except ValueError as error:
        raise InputError(f"--offset: expected JOINT=NUMBER; {error}") from error
    options = ImportOptions(
        joints=given["joint"],
        gripper=given["gripper"],
        gripper_range=None if args.gripper_range is None else (args.gripper_range[0], args.gripper_range[1]),
        degrees=args.degrees,
        T_world_base=T_world_base,
        licence=args.licence,
        units=given["unit"],
        action_units=given["action_unit"],
        flip=tuple(args.flip),
        offset=offset,
        entries=tuple(part.strip() for part in args.entries.split(",")) if args.entries else (),
        state_keys=tuple(args.state_key),
        action_key=args.action_key,
        image_keys=given["image_key"],
        resample=args.resample,
        beyond_limits=args.beyond_limits,
    )
    return robot, cameras, options


def _note(text: str) -> None:
    print(f"note: {text}")


def main(argv: list[str]) -> int:
    """`DATASET --robot FILE --cameras FILE --out DIR`: every episode; returns the exit code. Raises RetakeError."""
    args = parser().parse_args(argv)
    made = import_lerobot(
        args.dataset, args.out, *options_of(args), episodes=args.episodes,
        progress=silent if args.quiet else Bar("Import"), check_cancel=Stop().check, say=_note,
    )  # fmt: skip
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
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".import.{owner_tag()}.", suffix=".tmp") as folder:
        (made,) = import_lerobot(
            source, folder, *options_of(args), episodes=chosen,
            progress=silent if args.quiet else Bar("Import"), check_cancel=Stop().check, say=_note,
        )  # fmt: skip
        if out.exists():
            raise InputError(f"{out} exists; choose another folder (nothing was changed)")
        made.path.rename(out)
    return open_episode(out)
