# SPDX-License-Identifier: Apache-2.0
"""A motion of joints in a file of the user's, `.npz` or `.csv` (docs/motion.md): read, checked and matched to robots, whatever
replays it."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, unknown_name

FORM = (
    "a .csv with a header time_s,JOINT,… and one row per time, or an .npz with time_s (K,), joint_names (J,) and "
    "joint_position (K, J); rad or m, JOINT or ROBOT/JOINT (docs/motion.md)"
)

UNREADABLE = (OSError, EOFError, KeyError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error)
"""What readers raise on files that are cut off, damaged or of another kind."""


@dataclass(frozen=True)
class JointMotion:
    """Joint positions over time, by name."""

    names: tuple[str, ...]
    time_s: Float64[np.ndarray, "K"]
    position: Float64[np.ndarray, "K J"]
    """rad or m."""


@dataclass(frozen=True)
class RobotJoints:
    """What a motion file may call a robot and its movable joints."""

    robot: str
    prim_path: str
    names: tuple[str, ...]
    """Movable joints, order of the robot's joint arrays."""
    paths: tuple[str, ...]
    """Prim path of each."""


def read_motion(file: Path) -> JointMotion:
    """The motion of a file. Raises InputError saying what is wrong with it and what a motion file looks like."""
    file = Path(file)
    if not file.is_file():
        raise InputError(f"motion file {file} does not exist; expected {FORM}")
    try:
        names, time_s, position = (_read_csv if file.suffix.lower() == ".csv" else _read_npz)(file)
    except UNREADABLE as error:
        raise InputError(f"motion file {file}: {type(error).__name__}: {error}; expected {FORM}") from error
    if time_s.ndim != 1 or position.shape != (len(time_s), len(names)) or len(time_s) < 1 or not names:
        raise InputError(
            f"motion file {file}: joint_position {position.shape} for time_s {time_s.shape} and {len(names)} joints; "
            f"expected {FORM}"
        )
    if not (np.isfinite(position).all() and np.isfinite(time_s).all()):
        raise InputError(f"motion file {file}: a value is not a finite number; expected {FORM}")
    if np.any(np.diff(time_s) <= 0):
        raise InputError(f"motion file {file}: time_s must increase")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"motion file {file}: joint {twice[0]!r} has two columns; each joint needs one")
    return JointMotion(tuple(names), time_s - min(time_s[0], 0.0), position)


def match_joints(
    names: Sequence[str], robots: Sequence[RobotJoints], file: Path | str, robot: str = ""
) -> list[tuple[int, int]]:
    """(robot, degree of freedom) of every name: JOINT, ROBOT/JOINT or a joint's prim path.

    A bare name means the joint of `robot` (name or prim path) where that is given, else of the only robot that has it.
    Raises InputError for names that no robot has, for names that several have and for joints that are named twice.
    """
    out: list[tuple[int, int]] = []
    for name in names:
        found = _joints_called(name, robots, robot)
        if not found:
            known = [n if len(robots) == 1 else f"{r.robot}/{n}" for r in robots for n in r.names]
            raise InputError(unknown_name(f"joint in {file}", name, known))
        if len(found) > 1:
            ways = ", ".join(f"{robots[r].robot}/{name}" for r, _ in found)
            raise InputError(f"motion file {file}: {len(found)} robots have a joint {name!r}; write {ways}")
        if found[0] in out:
            raise InputError(f"motion file {file}: joint {name!r} has two columns; each joint needs one")
        out.append(found[0])
    return out


def _joints_called(name: str, robots: Sequence[RobotJoints], robot: str) -> list[tuple[int, int]]:
    """Every joint that a name may mean: the prim path goes before the robot's name, and that before a bare name."""
    if found := [(r, one.paths.index(name)) for r, one in enumerate(robots) if name in one.paths]:
        return found
    for r, one in enumerate(robots):
        head = f"{one.robot}/"
        if name.startswith(head) and name[len(head) :] in one.names:
            return [(r, one.names.index(name[len(head) :]))]
    having = [r for r, one in enumerate(robots) if name in one.names]
    asked = [r for r in having if robot and robot in (robots[r].robot, robots[r].prim_path)]
    return [(r, robots[r].names.index(name)) for r in asked or having]


def _read_npz(file: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    # Opened here: of a file that it cannot read, numpy leaves the one it opened to the collector.
    with file.open("rb") as source:
        data = np.load(source, allow_pickle=False)
        if isinstance(data, np.ndarray):
            raise ValueError(f"one array {data.shape} without a name")
        names = [str(n) for n in np.atleast_1d(data["joint_names"])]
        return names, np.asarray(data["time_s"], np.float64), np.asarray(data["joint_position"], np.float64)


def _read_csv(file: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = [row for row in csv.reader(lines) if row and not row[0].lstrip().startswith("#")]
    if not rows or rows[0][0].strip() not in ("time_s", "time"):
        found = rows[0][0].strip() if rows else ""
        raise ValueError(f"the header must begin with time_s, found {found!r}")
    names = [name.strip() for name in rows[0][1:]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names) + 1:
            raise ValueError(f"row {number} has {len(row)} values, the header names {len(names) + 1}")
    values = np.array([[float(x) for x in row] for row in rows[1:]], np.float64).reshape(-1, len(names) + 1)
    return names, values[:, 0], values[:, 1:]


__all__ = ["FORM", "JointMotion", "RobotJoints", "match_joints", "read_motion"]
