# SPDX-License-Identifier: Apache-2.0
"""Units of recorded joints: stated, or inferred from the robot's limits with the evidence said; never assumed.

A recording of another tool says nothing about its numbers. What fits the joints' limits in exactly one way is taken that
way and said; what fits in no way, or in several, is refused with the likely units named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, unknown_name
from retake.core.robot import JointSpec, RobotSpec

ANGLES = ("rad", "deg")
LENGTHS = ("m", "mm", "width")
"""`width`: metres between two fingers that move alike, so half of it per finger."""
RANGES: dict[str, tuple[float, float]] = {
    "-100..100": (-100.0, 100.0), "0..100": (0.0, 100.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0),
}  # fmt: skip
"""Shares of the joint's travel: lower limit … upper limit; of a finger, closed … open."""
UNITS = (*ANGLES, *LENGTHS, *RANGES)
GROUPS = ("revolute", "prismatic", "all")
"""Names that stand for several joints where a unit is stated."""
_OFFERED = {"revolute": ("deg", "-100..100", "0..100"), "prismatic": ("mm", "width", "0..100", "0..1")}
"""What numbers that do not fit their joints may be, where nothing is stated."""
_WORDS = {
    "rad": "rad", "radian": "rad", "radians": "rad", "deg": "deg", "degree": "deg", "degrees": "deg", "m": "m",
    "meter": "m", "meters": "m", "metre": "m", "metres": "m", "mm": "mm", "millimeters": "mm", "millimetres": "mm",
    "range_m100_100": "-100..100", "range_0_100": "0..100", **{u: u for u in UNITS},
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How the numbers of one joint become rad or m: `scale` * (± number + `offset`) + `shift`."""

    joint: str
    entry: str
    unit: str
    scale: float
    shift: float
    why: str
    """`stated`, or the evidence it was inferred from."""
    sign: float = 1.0
    offset: float = 0.0
    """In the entry's own unit, added after the sign."""

    def __call__(self, numbers: np.ndarray) -> Float64[np.ndarray, "T"]:
        """(T,) joint positions, rad or m."""
        return self.scale * (self.sign * np.asarray(numbers, np.float64) + self.offset) + self.shift


def unit_of_word(text: object) -> str | None:
    """A unit as some dataset's metadata may spell it; None where it is none."""
    return _WORDS.get(str(text).strip().lower())


def stated_units(given: Mapping[str, str], robot: RobotSpec, entries: Mapping[str, str]) -> dict[str, str]:
    """Joint → unit from what a user stated by joint, by entry, or for `revolute`, `prismatic`, `all`.

    `entries`: joint → entry. A joint's own statement wins over its kind's. Raises InputError for an unknown name or unit.
    """
    joints = {j.name: j for j in robot.dof_joints}
    by_entry = {entry: joint for joint, entry in entries.items()}
    out: dict[str, str] = {}
    for kind in ("all", "revolute", "prismatic"):
        if kind in given:
            out |= {name: given[kind] for name, j in joints.items() if kind in ("all", j.kind)}
    for name, unit in given.items():
        if name not in GROUPS:
            joint = name if name in joints else by_entry.get(name)
            if joint is None:
                raise InputError(
                    unknown_name("joint or entry whose unit is stated", name, (*GROUPS, *joints, *by_entry))
                )
            out[joint] = unit
    for name, unit in out.items():
        if unit not in UNITS:
            raise InputError(unknown_name("unit", unit, UNITS))
        wrong = LENGTHS if joints[name].kind == "revolute" else ANGLES
        if unit in wrong and "all" in given and given["all"] == unit:
            out[name] = "rad" if joints[name].kind == "revolute" else "m"
        elif unit in wrong:
            raise InputError(
                f"joint {name} is {joints[name].kind}; {unit} is no unit of it: {', '.join(u for u in UNITS if u not in wrong)}"
            )
    return out


def read_units(
    robot: RobotSpec,
    numbers: Mapping[str, np.ndarray],
    entries: Mapping[str, str],
    stated: Mapping[str, str],
    *,
    named: Mapping[str, str] | None = None,
    sign: Mapping[str, float] | None = None,
    offset: Mapping[str, float] | None = None,
    beyond_limits: bool = False,
) -> tuple[Reading, ...]:
    """A Reading per joint of `numbers` (joint → (T,) recorded numbers).

    `stated`: joint → unit the user gave; `named`: joint → unit that the dataset itself states; `sign`, `offset`: joint →
    calibration, in the entry's unit. Raises InputError naming the joint, its numbers, its limits and the likely units.
    """
    named, sign, offset = named or {}, sign or {}, offset or {}
    joints = {j.name: j for j in robot.dof_joints}
    out: dict[str, Reading] = {}

    def reading(joint: str, unit: str, why: str) -> Reading:
        scale, shift = _affine(unit, *_travel(robot, joints[joint]), joint)
        return Reading(
            joint, entries[joint], unit, scale, shift, why, float(sign.get(joint, 1.0)), float(offset.get(joint, 0.0))
        )

    def covered(joint: str, unit: str) -> float:
        """Share of its travel that a joint would go through."""
        low, high = _travel(robot, joints[joint])
        raw = np.asarray(numbers[joint], np.float64)
        return float(np.ptp(reading(joint, unit, "")(raw)) / max(abs(high - low), 1e-9))

    def fits(joint: str, unit: str) -> bool:
        low, high = RANGES.get(unit, (-math.inf, math.inf))
        raw = np.asarray(numbers[joint], np.float64)
        if raw.min() < low - 0.01 * (high - low) or raw.max() > high + 0.01 * (high - low):
            return False
        try:
            return _beyond(reading(joint, unit, "")(raw), joints[joint]) is None
        except InputError:  # no limits to share out
            return False

    for kind in ("revolute", "prismatic"):
        group = [name for name in numbers if joints[name].kind == kind]
        for name in group:
            if name in stated and name in named and stated[name] != named[name]:
                raise InputError(
                    f"joint {name}: the dataset itself states {named[name]} for entry {entries[name]!r}, and {stated[name]} was "
                    "given; leave one out"
                )
            for source, why in ((stated, "stated"), (named, "stated by the dataset")):
                if name in source and name not in out:
                    out[name] = reading(name, source[name], why)
        open_ones = [name for name in group if name not in out]
        if open_ones:
            unit, why = _infer(kind, open_ones, numbers, joints, fits, covered, entries, beyond_limits)
            out |= {name: reading(name, unit, why) for name in open_ones}
    if not beyond_limits:
        for name, one in out.items():
            _require(one, numbers[name], joints[name], fits)
    return tuple(out[name] for name in numbers)


def _infer(
    kind: str,
    names: Sequence[str],
    numbers: Mapping[str, np.ndarray],
    joints: Mapping[str, JointSpec],
    fits: Callable[[str, str], bool],
    covered: Callable[[str, str], float],
    entries: Mapping[str, str],
    beyond_limits: bool,
) -> tuple[str, str]:
    """The one unit of joints about which nothing is stated, and why. Raises InputError where there is none, or several."""
    native = "rad" if kind == "revolute" else "m"
    if beyond_limits:
        return native, "nothing else was stated, and limits are not looked at"
    outside = [name for name in names if not fits(name, native)]
    if not outside:
        return native, f"inferred: every number lies within its joint's limits in {native}"
    offered = [unit for unit in _OFFERED[kind] if all(fits(name, unit) for name in names)]
    if "-100..100" in offered and len(offered) > 1 and _saturates(names, numbers):
        offered = ["-100..100"]
    offered.sort(key=lambda unit: -sum(covered(name, unit) for name in names))
    moving = [name for name in names if np.ptp(numbers[name]) > 1e-6] or list(names)
    worst = max(outside, key=lambda name: float(np.abs(numbers[name]).max()))
    what = _described(worst, entries[worst], numbers[worst], joints[worst])
    if len(offered) == 1 and 2 * len(outside) >= len(moving):
        return offered[0], (
            f"inferred: {len(outside)} of {len(names)} {kind} joints leave their limits in {native} ({what}), and "
            f"{offered[0]} alone fits all of them"
        )
    if offered and 2 * len(outside) >= len(moving):
        raise InputError(
            f"no unit is stated, and {what} is beyond its limits in {native}; {_listed(offered)} would fit: state it, "
            f"for example --unit {kind}={offered[0]}"
        )
    likely = [f"--unit {name}={unit}" for name in outside[:3] for unit in _OFFERED[kind] if fits(name, unit)]
    rest = f"; the other {len(names) - len(outside)} {kind} joints fit {native}" if len(outside) < len(names) else ""
    raise InputError(
        f"no unit is stated, and {what} is beyond its limits in {native}{rest}; likely: "
        f"{', '.join(likely) or 'none of the known units; is it the right robot and entry?'}"
    )


def _require(one: Reading, numbers: np.ndarray, joint: JointSpec, fits: Callable[[str, str], bool]) -> None:
    """Raises InputError when the numbers leave the joint's limits as read."""
    low, high = RANGES.get(one.unit, (-math.inf, math.inf))
    raw = np.asarray(numbers, np.float64)
    slack = 0.01 * (high - low) if np.isfinite(low) else 0.0
    if raw.min() >= low - slack and raw.max() <= high + slack and _beyond(one(raw), joint) is None:
        return
    native = "rad" if joint.kind == "revolute" else "m"
    likely = [unit for unit in (native, *_OFFERED[joint.kind]) if unit != one.unit and fits(joint.name, unit)]
    advice = f"likely {' or '.join(likely)} (--unit {joint.name}={likely[0]})" if likely else "no known unit fits"
    raise InputError(
        f"{_described(joint.name, one.entry, raw, joint)}; that is beyond them in {one.unit} ({one.why.partition(':')[0]}): "
        f"{advice}; --beyond-limits takes the numbers as they are"
    )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _described(name: str, entry: str, numbers: np.ndarray, joint: JointSpec) -> str:
    unit = "rad" if joint.kind == "revolute" else "m"
    return (
        f"joint {name} (entry {entry!r}: {numbers.min():.4g} … {numbers.max():.4g}, limits {joint.lower:.4g} … "
        f"{joint.upper:.4g} {unit})"
    )


def _saturates(names: Sequence[str], numbers: Mapping[str, np.ndarray]) -> bool:
    """Whether some joint stands at exactly ±100: the mark of a range that was clipped to its ends."""
    return any(int((np.abs(numbers[name]) == 100.0).sum()) >= 2 for name in names)


def _beyond(q: np.ndarray, joint: JointSpec) -> float | None:
    """The position that leaves the limits furthest, or None. Real joints stop a little beyond what their model says.

    A joint without limits counts as one of two turns each way.
    """
    lower = joint.lower if np.isfinite(joint.lower) else (-4 * math.pi if joint.kind == "revolute" else -10.0)
    upper = joint.upper if np.isfinite(joint.upper) else (4 * math.pi if joint.kind == "revolute" else 10.0)
    slack = max(0.1, 0.05 * (upper - lower)) if joint.kind == "revolute" else max(0.003, 0.05 * (upper - lower))
    out = np.maximum(lower - slack - q, q - upper - slack)
    worst = int(out.argmax())
    return float(q[worst]) if out[worst] > 0 else None


def _travel(robot: RobotSpec, joint: JointSpec) -> tuple[float, float]:
    """Positions at the two ends of a range unit: a finger's closed and open ones, else the limits."""
    for gripper in robot.grippers:
        if joint.name in gripper.finger_joints:
            finger = gripper.finger_joints.index(joint.name)
            return gripper.closed_position[finger], gripper.open_position[finger]
    return joint.lower, joint.upper


def _affine(unit: str, low: float, high: float, joint: str) -> tuple[float, float]:
    """(scale, shift) from a unit's numbers to rad or m."""
    fixed = {"rad": 1.0, "deg": math.pi / 180, "m": 1.0, "mm": 1e-3, "width": 0.5}
    if unit in fixed:
        return fixed[unit], 0.0
    first, last = RANGES[unit]
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"joint {joint} has no limits, so a share of its travel ({unit}) is no position: state rad or deg"
        )
    scale = (high - low) / (last - first)
    return scale, low - scale * first


def units_said(readings: Sequence[Reading]) -> list[str]:
    """One line per unit and reason: which joints."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in readings:
        groups.setdefault((one.unit, one.why), []).append(one.joint)
    return [f"{', '.join(joints)}: {unit} ({why})" for (unit, why), joints in groups.items()]
