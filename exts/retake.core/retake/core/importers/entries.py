# SPDX-License-Identifier: Apache-2.0
"""Which entry of a recorded vector is which joint or gripper: by name, by a known layout, or as stated; never by place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retake.core.errors import InputError, unknown_name
from retake.core.importers.units import unit_of_word
from retake.core.robot import RobotSpec

MISSING = "missing"
"""What stands in place of an entry for a gripper that was not recorded."""
SO_ARM: tuple[frozenset[str], ...] = (
    frozenset({"shoulder_pan", "rotation"}),
    frozenset({"shoulder_lift", "pitch"}),
    frozenset({"elbow_flex", "elbow"}),
    frozenset({"wrist_flex", "wrist_pitch"}),
    frozenset({"wrist_roll"}),
    frozenset({"gripper", "jaw"}),
)
"""The five joints and the jaw of SO-100 and SO-101: LeRobot's names and those of the robots' descriptions."""
_SUFFIXES = (".pos", ".position", "_pos", "_position", ".q")
_UNIT_SUFFIXES = ("rad", "deg", "degrees", "radians", "mm")


@dataclass(frozen=True)
class Entries:
    """Where things are in the state vector."""

    joints: Mapping[str, str]
    """Joint → entry; joints that were not recorded are absent."""
    openness: Mapping[str, str]
    """Gripper → entry that holds its openness."""
    missing: tuple[str, ...]
    """Grippers of which nothing was recorded."""
    units: Mapping[str, str]
    """Joint → unit that the entry's name states."""
    jaw: str = ""
    """The jaw's joint of an SO-100 or SO-101, which LeRobot records as 0..100."""
    notes: tuple[str, ...] = ()
    old_so_arm: bool = False
    """`main_*` names: recorded before LeRobot put zero in the middle of each joint's range."""


def find_entries(
    robot: RobotSpec, names: Sequence[str], joints: Mapping[str, str], grippers: Mapping[str, str], where: str
) -> Entries:
    """Entries of the robot's joints and grippers. `joints`, `grippers`: what the user stated; `where`: the vector's name.

    Raises InputError for an unknown joint, gripper or entry, and for joints that have none.
    """
    for joint in joints:
        if joint not in robot.dof_names:
            raise InputError(unknown_name(f"joint of robot {robot.name!r}", joint, robot.dof_names))
    known = [g.name for g in robot.grippers]
    for gripper in grippers:
        if gripper not in known:
            raise InputError(unknown_name(f"gripper of robot {robot.name!r}", gripper, known))
    for what, entry in (*(("joint", e) for e in joints.values()), *(("gripper", e) for e in grippers.values())):
        if entry not in names and not (what == "gripper" and entry == MISSING):
            raise InputError(unknown_name(f"entry of {where}", entry, names))
    found, units = dict(joints), dict[str, str]()
    for joint in robot.dof_names:
        if joint not in found:
            entry, unit = _named(robot, joint, names)
            if entry:
                found[joint] = entry
                units |= {joint: unit} if unit else {}
    notes: list[str] = []
    if len(found) < len(robot.dof_names) and (layout := so_arm(robot.dof_names, names)):
        found = {**layout, **joints}
        notes.append(
            "joints are those of an SO-100/SO-101 by name: " + ", ".join(f"{j} = {e}" for j, e in layout.items())
        )
    old = so_arm(robot.dof_names, names) is not None and any(entry.startswith("main_") for entry in found.values())
    openness = {g: e for g, e in grippers.items() if e != MISSING}
    for gripper in known:
        if gripper not in grippers and f"{gripper}.open" in names:
            openness[gripper] = f"{gripper}.open"
    missing = _missing(robot, found, openness, grippers, names, where, notes)
    layout = so_arm(robot.dof_names, names)
    jaw = next((j for j, e in (layout or {}).items() if j.lower() in SO_ARM[-1] and found.get(j) == e), "")
    return Entries(found, openness, missing, units, jaw, tuple(notes), old)


def _missing(
    robot: RobotSpec,
    found: Mapping[str, str],
    openness: Mapping[str, str],
    stated: Mapping[str, str],
    names: Sequence[str],
    where: str,
    notes: list[str],
) -> tuple[str, ...]:
    """Grippers of which nothing is known. Raises InputError for joints without an entry that nothing else gives."""
    follows = {j.name: j.mimic.leader for j in robot.dof_joints if j.mimic is not None}

    def given(joint: str, asked: frozenset[str] = frozenset()) -> bool:
        leader = follows.get(joint)
        return joint in found or (leader is not None and joint not in asked and given(leader, asked | {joint}))

    absent = [joint for joint in robot.dof_names if not given(joint)]
    missing = []
    for gripper in robot.grippers:
        fingers = [joint for joint in gripper.finger_joints if joint in absent]
        if gripper.name in openness:
            absent = [joint for joint in absent if joint not in gripper.finger_joints]
        elif stated.get(gripper.name) == MISSING or not gripper.finger_joints:
            missing.append(gripper.name)
            absent = [joint for joint in absent if joint not in gripper.finger_joints]
            notes.append(f"the openness of gripper {gripper.name} was not recorded; it is missing, not 1.0")
        elif fingers:
            raise InputError(
                f"nothing in {where} gives the gripper {gripper.name} (finger joints {', '.join(fingers)}; entries: "
                f"{', '.join(names)}): name its entry with --gripper {gripper.name}=ENTRY, or say --gripper "
                f"{gripper.name}={MISSING}"
            )
    if absent:
        raise InputError(
            f"joints {', '.join(absent)} of robot {robot.name!r} have no entry in {where} ({', '.join(names)}); name them: "
            f"--joint {absent[0]}=ENTRY"
        )
    return tuple(missing)


def _named(robot: RobotSpec, joint: str, names: Sequence[str]) -> tuple[str, str]:
    """(entry, unit that its name states) of a joint; empty where nothing bears its name."""
    for stem in (joint, f"{robot.name}.{joint}"):
        for suffix in (".pos", "", *_SUFFIXES):
            if stem + suffix in names:
                return stem + suffix, ""
            for word in _UNIT_SUFFIXES:
                for mark in (".", "_", "/"):
                    if (entry := f"{stem}{suffix}{mark}{word}") in names:
                        return entry, unit_of_word(word) or ""
    return "", ""


def so_arm(joints: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    """Joint → entry where both name the six motors of an SO-100 or SO-101, whatever their spelling; else None."""
    ours, theirs = (_slots(x) for x in (joints, names))
    return None if ours is None or theirs is None or len(joints) != 6 else {ours[i]: theirs[i] for i in range(6)}


def _slots(names: Iterable[str]) -> list[str] | None:
    plain = {}
    for name in names:
        stem = name.lower()
        for suffix in _SUFFIXES:
            stem = stem.removesuffix(suffix)
        plain[stem.removeprefix("main_").removesuffix("_joint").replace("-", "_").replace(" ", "_")] = name
    out = [[plain[x] for x in slot if x in plain] for slot in SO_ARM]
    return [one[0] for one in out] if all(len(one) == 1 for one in out) else None
