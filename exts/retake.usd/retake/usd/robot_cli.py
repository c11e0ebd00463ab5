# SPDX-License-Identifier: Apache-2.0
"""`retake robot STAGE`: the robots of a stage as Retake reads them, the picture of them, and a declaration to edit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retake.core.ends import beside, declaration_text, declare, load_declarations
from retake.core.errors import InputError
from retake.core.files import write_bytes
from retake.core.plugins import load
from retake.core.robot import GripperSpec, RobotSpec
from retake.usd.articulation import Articulation, choose_articulations, find_articulations
from retake.usd.bodies import find_objects
from retake.usd.robot_picture import draw_robots
from retake.usd.stage import missing_assets, name_stage, open_stage

DESCRIPTIONS = (".urdf", ".xml", ".mjcf")
"""Robot descriptions, which are converted first."""
UNITS = {"revolute": ("°", 180 / np.pi), "prismatic": (" mm", 1000.0)}
"""Unit shown, and what it takes of rad or m."""


def parser() -> argparse.ArgumentParser:
    """Arguments."""
    out = argparse.ArgumentParser(
        prog="retake robot",
        description="What of a stage's robots was found: joints, end effectors with their axes and openness, and why.",
        epilog="A declaration beside the stage (scene.robot.yaml for scene.usda) is in force by itself, others with --robot.",
    )
    add = out.add_argument
    add("stage", type=Path, help="USD stage, or a URDF or MJCF (docs/motion.md)")
    add("--prim", action="append", default=[], metavar="PATH", help="only the robots at or under this prim")
    add("--robot", type=Path, metavar="FILE", help="declaration to apply")
    add(
        "--write",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE",
        help="write the declaration to edit; default beside the stage",
    )
    add("--picture", type=Path, metavar="PNG", help="draw chain, frames and openness, open and closed")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--json", action="store_true", help="print JSON")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; write what was asked for. Raises InputError, StageError."""
    args = parser().parse_args(argv)
    file = args.stage
    if file.suffix.lower() in DESCRIPTIONS:
        file = load("retake.newton.describe:described", extra="newton")(file)
    stage = name_stage(open_stage(file), args.stage)
    found = find_articulations(stage)
    robots = choose_articulations(stage, found, args.prim)
    if declared := args.robot or beside(args.stage):
        specs = declare([robot.spec for robot in robots], load_declarations(declared))
        robots = tuple(replace(robot, spec=spec) for robot, spec in zip(robots, specs, strict=True))
    notes = (*missing_assets(file), *found.notes, *find_objects(stage).notes)
    specs = tuple(robot.spec for robot in robots)
    targets = []
    if args.write is not None:
        written = args.write if args.write.name else args.stage.with_suffix(".robot.yaml")
        targets.append((written, declaration_text(specs, args.stage.name)))
    for target in (*(target for target, _ in targets), *([args.picture] if args.picture else [])):
        if target.exists() and not args.overwrite:
            raise InputError(f"{target} exists; choose another name, or replace it with --overwrite")
    if args.json:
        print(json.dumps({"robots": [spec.to_json() for spec in specs], "notes": list(notes)}, indent=2))
    else:
        print("\n".join(_lines(robots, declared)))
        for note in notes:
            print(f"note: {note}")
    told = sys.stderr if args.json else sys.stdout  # what reads JSON reads nothing else
    for target, text in targets:
        write_bytes(target, text.encode())
        print(f"declaration: {target}", file=told)
    if args.picture:
        picture = cv2.cvtColor(draw_robots(stage, robots), cv2.COLOR_RGB2BGR)
        write_bytes(args.picture, cv2.imencode(".png", picture)[1].tobytes())
        print(f"picture: {args.picture}", file=told)
    return 0


def _lines(robots: Sequence[Articulation], declared: Path | None) -> list[str]:
    out = [f"declared in {declared}"] if declared else []
    for robot in robots:
        spec = robot.spec
        followers = sum(joint.mimic is not None for joint in spec.dof_joints)
        passive = sum(not joint.driven for joint in spec.dof_joints) - followers
        extra = [f"{count} {what}" for count, what in ((followers, "follow others"), (passive, "passive")) if count > 0]
        held = "held by the world" if robot.fixed_base else "free"
        out.append(
            f"{spec.name}  {spec.prim_path}  {len(spec.links)} links, {len(spec.dof_names)} joints"
            f"{' (' + ', '.join(extra) + ')' if extra else ''}, base {spec.links[spec.root].name} {held}"
        )
        out += _joints(spec) if spec.dof_names else []
        for end in spec.grippers:
            out += _end(spec, end)
        if not spec.grippers:
            out.append("  no end effector: declare one (--write gives the form)")
    return out


def _joints(spec: RobotSpec) -> list[str]:
    """One line per movable joint, by the name that a motion calls it."""
    lines = ["  joints"]
    for joint in spec.dof_joints:
        unit, factor = UNITS[joint.kind]
        says = "turns" if joint.kind == "revolute" else "slides"
        ends = [f"{x * factor:.4g}{unit}" if np.isfinite(x) else "any" for x in (joint.lower, joint.upper)]
        limits = "without limits" if ends == ["any", "any"] else f"{ends[0]} to {ends[1]}"
        what = f", follows {joint.mimic.leader}" if joint.mimic else "" if joint.driven else ", passive"
        lines.append(f"    {joint.name}: {says} {limits}{what}")
    return lines


def _end(spec: RobotSpec, end: GripperSpec) -> list[str]:
    chain = [spec.links[i].name for i in spec.chain(end)]
    lines = [
        f"  {end.kind} {end.name!r} on link {end.ee_link}",
        f"    approach {_axis(end.T_link_ee[:3, 2])}, opening {_axis(end.T_link_ee[:3, 1])} in the link's axes",
        f"    chain {' - '.join(chain)}",
    ]
    for name, opened, closed in zip(end.finger_joints, end.open_position, end.closed_position, strict=True):
        unit, factor = UNITS[spec.dof_joints[spec.dof_index(name)].kind]
        lines.append(f"    {name}: open {opened * factor:.4g}{unit}, closed {closed * factor:.4g}{unit}")
    return [*lines, f"    why: {end.note}"] if end.note else lines


def _axis(direction: np.ndarray) -> str:
    index = int(np.abs(direction).argmax())
    if abs(direction[index]) > 1 - 1e-9:
        return f"{'+' if direction[index] > 0 else '-'}{'xyz'[index]}"
    return "(" + ", ".join(f"{x:.3f}" for x in direction) + ")"
