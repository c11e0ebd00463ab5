# SPDX-License-Identifier: Apache-2.0
"""SAGE's files (isaac-sim2real/sage): what joints were told and what they did, simulated and real.

A motion folder holds control.csv and state_motor.csv (`type,timestamp,positions,velocities,torques`, lists in quotes) and
joint_list.txt; a real one may hold event.csv. Simulated times are seconds (types CONTROL, STATE_MOTOR), real ones
microseconds (Control, StateMotor). A motion file is text: joint names, then one line of radians per step.
"""

from __future__ import annotations

import argparse
import ast
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64
from retake.core.episode import Episode
from retake.core.errors import InputError, unknown_name
from retake.core.files import atomic_directory, write_bytes
from retake.core.importers.recorded import Missing, Recorded, robot_of, write

CONTROL, STATE, JOINTS, EVENTS = "control.csv", "state_motor.csv", "joint_list.txt", "event.csv"
MICROSECONDS = 1e-6


@dataclass(frozen=True)
class JointLog:
    """What joints were told and what they did, each at its own times."""

    joints: tuple[str, ...]
    control_time_s: Float64[np.ndarray, "C"]
    control: Float64[np.ndarray, "C J"]
    """Commanded positions, rad or m."""
    state_time_s: Float64[np.ndarray, "S"]
    position: Float64[np.ndarray, "S J"]
    velocity: Float64[np.ndarray, "S J"] | None = None
    torque: Float64[np.ndarray, "S J"] | None = None
    real: bool = False

    def at(self, time_s: np.ndarray) -> tuple[Float64[np.ndarray, "T J"], Float64[np.ndarray, "T J"]]:
        """(commands, positions) at these times: the command that stood then, positions linear between measurements."""
        stood = np.clip(np.searchsorted(self.control_time_s, time_s + 1e-9, side="right") - 1, 0, None)
        measured = np.stack([np.interp(time_s, self.state_time_s, column) for column in self.position.T], axis=-1)
        return self.control[stood], measured


def read_log(folder: Path) -> JointLog:
    """A motion folder of SAGE. Times start at the first row of either file, or at MOTION_START of event.csv.

    Raises InputError naming file, row and what is expected.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected one with {CONTROL}, {STATE} and {JOINTS}")
    if not (folder / JOINTS).is_file():
        raise InputError(f"{folder / JOINTS} is missing: nothing says whose columns these are")
    joints = tuple(x.strip().split("/")[-1] for x in (folder / JOINTS).read_text("utf-8").splitlines() if x.strip())
    kinds, tables = set[bool](), {}
    for name in (CONTROL, STATE):
        real, times, values = _read_csv(folder / name, len(joints))
        kinds.add(real)
        tables[name] = (times, values)
    if len(kinds) > 1:
        raise InputError(
            f"{folder}: {CONTROL} and {STATE} are of two kinds (simulated: CONTROL, STATE_MOTOR; real: Control, StateMotor)"
        )
    real = kinds.pop()
    (control_time, control), (state_time, state) = tables[CONTROL], tables[STATE]
    zero = min(control_time[0], state_time[0])
    control_time, state_time = control_time - zero, state_time - zero
    first, last = _events(folder / EVENTS) if real and (folder / EVENTS).is_file() else (0.0, np.inf)
    keep_c, keep_s = ((t >= first) & (t <= last) for t in (control_time, state_time))
    if not keep_c.any() or not keep_s.any():
        raise InputError(
            f"{folder / EVENTS}: nothing was recorded between MOTION_START ({first:g} s) and DISABLE ({last:g} s)"
        )
    empty = {k: v is None for k, v in state.items()}
    return JointLog(
        joints, control_time[keep_c] - first, _needed(control, folder / CONTROL)[keep_c], state_time[keep_s] - first,
        _needed(state, folder / STATE)[keep_s],
        None if empty["velocities"] else state["velocities"][keep_s],  # type: ignore[index]
        None if empty["torques"] else state["torques"][keep_s],  # type: ignore[index]
        real,
    )  # fmt: skip


def _needed(values: dict[str, np.ndarray | None], file: Path) -> np.ndarray:
    found = values["positions"]
    if found is None:
        raise InputError(f"{file} has no positions")
    return found


def _read_csv(file: Path, width: int) -> tuple[bool, np.ndarray, dict[str, np.ndarray | None]]:
    """(real, times in s, column → (T, width) or None)."""
    if not file.is_file():
        raise InputError(f"{file} is missing")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"type", "timestamp", "positions"} <= set(rows[0]):
        raise InputError(
            f"{file}: expected the columns type, timestamp, positions, velocities, torques and at least one row"
        )
    real = not rows[0]["type"].isupper()
    out: dict[str, list[list[float]]] = {"positions": [], "velocities": [], "torques": []}
    times = []
    for number, row in enumerate(rows, 2):
        try:
            times.append(float(row["timestamp"]))
            for name, found in out.items():
                text = (row.get(name) or "").strip()
                found.append([float(x) for x in ast.literal_eval(text)] if text else [])
        except (ValueError, SyntaxError, TypeError) as error:
            raise InputError(
                f"{file} line {number}: {error}; expected numbers and lists of numbers in quotes"
            ) from error
        if len(out["positions"][-1]) != width:
            raise InputError(
                f"{file} line {number}: {len(out['positions'][-1])} positions; {JOINTS} names {width} joints"
            )
    time = np.array(times) * (MICROSECONDS if real else 1.0)
    if (np.diff(time) < 0).any():
        raise InputError(
            f"{file} line {int(np.argmax(np.diff(time) < 0)) + 3}: its time is before that of the line before it"
        )
    if len(time) > 1 and not 1e-5 < float(np.median(np.diff(time))) < 5:
        unit = (
            "microseconds (Control, StateMotor: a real log)"
            if real
            else "seconds (CONTROL, STATE_MOTOR: a simulated log)"
        )
        raise InputError(
            f"{file}: read as {unit}, rows are {np.median(np.diff(time)):.3g} s apart; are its types the other kind's?"
        )
    arrays = {n: np.array(v, np.float64) if all(len(x) == width for x in v) else None for n, v in out.items()}
    return real, time, arrays


def _events(file: Path) -> tuple[float, float]:
    """(MOTION_START, DISABLE) in s since the first row."""
    with file.open(newline="", encoding="utf-8") as stream:
        found = {row.get("event", ""): row.get("timestamp", "") for row in csv.DictReader(stream)}
    try:
        first = float(found["MOTION_START"]) * MICROSECONDS
        return first, float(found["DISABLE"]) * MICROSECONDS if "DISABLE" in found else np.inf
    except (KeyError, ValueError) as error:
        raise InputError(f"{file}: expected rows event,timestamp with MOTION_START (and DISABLE); {error}") from error


def write_log(log: JointLog, folder: Path) -> None:
    """A motion folder of SAGE, whole or not at all. Raises InputError where one is."""
    if folder.exists():
        raise InputError(f"{folder} exists; choose another (nothing was changed)")
    scale = 1 / MICROSECONDS if log.real else 1.0
    names = ("Control", "StateMotor") if log.real else ("CONTROL", "STATE_MOTOR")

    def lines(kind: str, times: np.ndarray, *values: np.ndarray | None) -> Iterator[str]:
        yield "type,timestamp,positions,velocities,torques"
        for i, time in enumerate(times * scale):
            cells = ['""' if v is None else '"[' + ", ".join(repr(float(x)) for x in v[i]) + ']"' for v in values]
            stamp = str(round(time)) if log.real else repr(float(time))
            yield ",".join([kind, stamp, *cells])

    with atomic_directory(folder) as temporary:
        for name, text in (
            (CONTROL, lines(names[0], log.control_time_s, log.control, None, None)),
            (STATE, lines(names[1], log.state_time_s, log.position, log.velocity, log.torque)), (JOINTS, iter(log.joints)),
        ):  # fmt: skip
            write_bytes(temporary / name, ("\n".join(text) + "\n").encode())
        if log.real:
            end = round(max(log.control_time_s[-1], log.state_time_s[-1]) * scale)
            write_bytes(temporary / EVENTS, f"event,timestamp\nMOTION_START,0\nDISABLE,{end}\n".encode())


def write_motion(log: JointLog, file: Path) -> None:
    """The commands as a motion file of SAGE: joint names, then one line of positions per step."""
    rows = [", ".join(log.joints), *(", ".join(repr(float(x)) for x in row) for row in log.control)]
    write_bytes(file, ("\n".join(rows) + "\n").encode())


def read_motion(file: Path) -> tuple[tuple[str, ...], Float64[np.ndarray, "K J"]]:
    """(joint names, positions) of a motion file. Raises InputError naming the line."""
    lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()] if file.is_file() else []
    if len(lines) < 2:
        raise InputError(f"{file}: expected a line of joint names and lines of positions (rad)")
    names = tuple(x.strip() for x in lines[0].split(","))
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            rows.append([float(x) for x in line.split(",")])
        except ValueError as error:
            raise InputError(f"{file} line {number}: {error}") from error
        if len(rows[-1]) != len(names):
            raise InputError(f"{file} line {number}: {len(rows[-1])} positions for {len(names)} joints")
    return names, np.array(rows)


def log_of(episode: Episode, robot: str = "") -> JointLog:
    """An Episode's driven joints as a log: its targets, positions, velocities and efforts. Raises InputError without targets."""
    specs = {r.name: r for r in episode.header.robots}
    if robot and robot not in specs:
        raise InputError(unknown_name("robot of the episode", robot, specs))
    if not robot and len(specs) != 1:
        raise InputError(f"{episode.path} has {len(specs)} robots; say which with --robot: {', '.join(specs)}")
    spec = specs[robot or next(iter(specs))]
    if "target" not in episode.header.joint_channels:
        raise InputError(f"{episode.path} recorded no commanded targets; a log needs what the joints were told")
    kept = [i for i, driven in enumerate(spec.driven) if driven]
    time = episode.time_s - episode.time_s[0]

    def channel(name: str) -> np.ndarray | None:
        return episode.joint(spec.name, name)[:, kept] if name in episode.header.joint_channels else None

    return JointLog(
        tuple(spec.dof_names[i] for i in kept), time, episode.joint(spec.name, "target")[:, kept], time,
        episode.joint(spec.name, "position")[:, kept], channel("velocity"), channel("effort"), False,
    )  # fmt: skip


def import_sage(source: Path, out: Path, *, urdf: Path | None = None, arguments: Sequence[str] = ()) -> Episode:
    """A log as a recorded Episode without cameras, at `--fps`. Raises InputError, EpisodeError listing what is missing."""
    options = parser().parse_args(list(arguments))
    log, missing = read_log(source), Missing(source, "SAGE's joint log")
    robot = robot_of(urdf, missing)
    missing.check()
    assert robot is not None
    if unknown := [joint for joint in log.joints if joint not in robot.dof_names]:
        raise InputError(unknown_name(f"joint of robot {robot.name!r}", unknown[0], robot.dof_names))
    follow = {j.name for j in robot.dof_joints if j.mimic is not None}
    if absent := [n for n in robot.dof_names if n not in log.joints and n not in follow]:
        raise InputError(f"{source} says nothing of joint {', '.join(absent)} of robot {robot.name!r}")
    last = min(log.state_time_s[-1], log.control_time_s[-1])
    time = np.arange(int(np.floor(last * options.fps + 1e-6)) + 1) / options.fps
    told, did = log.at(time)
    q, target = np.zeros((len(time), len(robot.dof_names))), np.zeros((len(time), len(robot.dof_names)))
    for i, joint in enumerate(log.joints):
        q[:, robot.dof_index(joint)], target[:, robot.dof_index(joint)] = did[:, i], told[:, i]
    q, target = (robot.followed(x) if follow else x for x in (q, target))
    links = robot.forward_kinematics(q)
    recorded = Recorded(
        robot, float(options.fps), 1 / options.fps, q, links, (), None, target, (), options.task, "sage"
    )
    return write(recorded, out, {"source": source.name, "real": log.real})


def parser() -> argparse.ArgumentParser:
    """Arguments of the import."""
    out = argparse.ArgumentParser(prog="retake import sage", allow_abbrev=False)
    out.add_argument("--fps", type=int, default=50, help="frames per second of the Episode (50)")
    out.add_argument("--task", default="")
    return out
