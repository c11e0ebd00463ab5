# SPDX-License-Identifier: Apache-2.0
"""State and action vectors of a LeRobot dataset as joint positions, targets and gripper openness of a robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, unknown_name
from retake.core.export.reader import Dataset
from retake.core.export.records import ACTION, STATE, Columns, Vector
from retake.core.importers.entries import Entries, find_entries
from retake.core.importers.footage import Grid, action_notes, check_actions
from retake.core.importers.lerobot_records import ImportOptions
from retake.core.importers.units import Reading, read_units, stated_units, unit_of_word, units_said
from retake.core.robot import RobotSpec

NO_ACTION = "none"


@dataclass(frozen=True)
class Motion:
    """What one episode's vectors say, in Retake's units."""

    position: Float64[np.ndarray, "N D"]
    """rad or m, order of `RobotSpec.dof_names`."""
    target: Float64[np.ndarray, "N D"] | None
    openness: Float64[np.ndarray, "N G"]
    units: Mapping[str, str]
    notes: tuple[str, ...]


class StateVectors:
    """Where the robot's joints and grippers are in the dataset's vectors. Raises InputError when they cannot be found."""

    def __init__(self, data: Dataset, robot: RobotSpec, options: ImportOptions) -> None:
        self.data, self.robot, self.options = data, robot, options
        vectors = data.schema.vectors
        self.keys = options.state_keys or (STATE,)
        for key in self.keys:
            if key not in vectors:
                numeric = [k for k, v in vectors.items() if v.dtype.startswith("float")]
                raise InputError(
                    f"{data.root} has no feature {key!r} to take the robot's state from; name one with --state-key: "
                    f"{', '.join(numeric) or 'it has no numeric features'}"
                )
        self.names = _named([(key, vectors[key]) for key in self.keys], options.entries, data)
        self.where = " + ".join(self.keys)
        self.action = _action_key(data, options)
        if all(name.isdigit() for name in self.names) and not options.joints:
            raise InputError(
                f"{self.where} of {data.root} has {len(self.names)} entries without names; name them in order: --entries "
                f"A,B,… ('-' for one that is not wanted; the robot's joints: {', '.join(robot.dof_names)})"
            )
        self.entries: Entries = find_entries(robot, self.names, options.joints, options.gripper, self.where)
        self._check_names()

    def _check_names(self) -> None:
        options, known = self.options, (*self.entries.joints, *self.entries.joints.values())
        for what, name in (*(("--flip", n) for n in options.flip), *(("--offset", n) for n in options.offset)):
            if name not in known:
                raise InputError(unknown_name(f"joint or entry of {what}", name, known))
        for name, entry in self.entries.openness.items():
            if options.gripper_range is None and not entry.endswith(".open"):
                raise InputError(
                    f"entry {entry!r} holds the openness of {name}, and nothing says which of its numbers is closed and which "
                    "open (robots differ): state it with --gripper-range CLOSED OPEN"
                )
        if options.gripper_range is not None and options.gripper_range[0] == options.gripper_range[1]:
            raise InputError(f"--gripper-range {options.gripper_range}: closed and open must differ")
        if self.entries.old_so_arm and not (options.offset or options.flip or options.beyond_limits):
            raise InputError(
                f"entries {', '.join(self.names)} are of an SO-100/SO-101 recorded before LeRobot moved the zero of its joints "
                "(degrees from the extended arm; one joint counts the other way): --unit revolute=deg --flip shoulder_lift "
                "--offset shoulder_lift=90 elbow_flex=-90 reads them with today's zero, by the robot's own joint names "
                f"({', '.join(self.robot.dof_names)}); --offset of 0 says that they are as they are"
            )

    def read(self, columns: Columns, where: str, at: Grid) -> Motion:
        """One episode. Raises InputError for non-finite numbers, and for units that do not fit or are not known."""
        state = np.concatenate([_flat(columns[key]) for key in self.keys], axis=1).astype(np.float64)
        action = _flat(columns[self.action]).astype(np.float64) if self.action in columns else None
        for name, values in ((self.where, state), (self.action, action)):
            if values is not None and not np.isfinite(values).all():
                row, entry = (int(x[0]) for x in np.nonzero(~np.isfinite(values)))
                raise InputError(
                    f"{where}: row {row} of {name} holds {values[row, entry]} in entry {entry}; numbers must be finite"
                )
        options, found = self.options, self.entries
        numbers = {joint: state[:, self.names.index(entry)] for joint, entry in found.joints.items()}
        given = {**({"revolute": "deg"} if options.degrees else {}), **options.units}
        readings = self._readings(numbers, given)
        q = self._assemble({r.joint: r(numbers[r.joint]) for r in readings}, state)
        openness, notes = self._openness(q, state)
        target, units = self._target(action, state, readings, where)
        position = at.vectors(q)
        if target is not None:
            names = [r.joint for r in readings]
            columns_of = [self.robot.dof_index(name) for name in names]
            check_actions(names, q[:, columns_of], target[:, columns_of], where)
            notes += action_notes(names, q[:, columns_of], target[:, columns_of])
            target = at.vectors(target)
        elif self.action in columns:
            notes.append(
                f"{self.action} is no target of these joints (its entries are others); imported without targets"
            )
        return Motion(
            position, target, at.vectors(openness), {r.joint: r.unit for r in readings},
            (*found.notes, *(f"unit of {line}" for line in units_said(readings)), *units, *notes),
        )  # fmt: skip

    def _readings(self, numbers: Mapping[str, np.ndarray], given: Mapping[str, str]) -> tuple[Reading, ...]:
        entries = self.entries.joints
        by_name = {**{e: j for j, e in entries.items()}, **{j: j for j in entries}}
        named = dict(self.entries.units)
        jaw = self.entries.jaw
        # Its radians would look like a jaw that stays shut in 0..100: such numbers are left to the limits.
        if (
            jaw
            and jaw in numbers
            and np.ptp(numbers[jaw]) > 5
            and numbers[jaw].min() >= 0
            and numbers[jaw].max() <= 100
        ):
            named.setdefault(jaw, "0..100")
        if self.data.units_stated:
            named |= {
                j: "rad" if k == "revolute" else "m"
                for j, k in ((x.name, x.kind) for x in self.robot.dof_joints)
                if j in numbers
            }
        stated = {j: u for j, u in stated_units(given, self.robot, entries).items() if j in numbers}
        if named.get(jaw) == "0..100" and not {jaw, entries.get(jaw, "")} & set(given):
            stated.pop(jaw, None)  # what is said of all revolute joints is not meant for it
        named |= {j: u for j, u in _feature_units(self.data, self.keys, entries, self.names).items() if j not in named}
        return read_units(
            self.robot, numbers, entries, stated, named=named, sign={by_name[n]: -1.0 for n in self.options.flip},
            offset={by_name[n]: x for n, x in self.options.offset.items()},
            beyond_limits=self.options.beyond_limits or self.data.units_stated,
        )  # fmt: skip

    def _assemble(self, given: Mapping[str, np.ndarray], state: np.ndarray) -> Float64[np.ndarray, "T D"]:
        """Positions of all joints: recorded ones, fingers that an openness gives, followers, and fingers of which nothing
        is known (open, and left out of what is exported)."""
        q = np.zeros((len(state), len(self.robot.dof_names)))
        for gripper in self.robot.grippers:
            share = self._share(gripper.name, state) if gripper.name in self.entries.openness else np.ones(len(state))
            for joint, closed, opened in zip(
                gripper.finger_joints, gripper.closed_position, gripper.open_position, strict=True
            ):
                q[:, self.robot.dof_index(joint)] = closed + share * (opened - closed)
        for joint, values in given.items():
            q[:, self.robot.dof_index(joint)] = values
        followed = self.robot.followed(q)
        for i, joint in enumerate(self.robot.dof_joints):
            if joint.mimic is not None and joint.name not in given:
                q[:, i] = followed[:, i]
        return q

    def _share(self, gripper: str, state: np.ndarray) -> Float64[np.ndarray, "T"]:
        """Openness 0..1 of an entry. Raises InputError when it leaves its stated range by more than a twentieth."""
        entry = self.entries.openness[gripper]
        closed, opened = self.options.gripper_range or (0.0, 1.0)
        raw = state[:, self.names.index(entry)]
        share = (raw - closed) / (opened - closed)
        if share.min() < -0.05 or share.max() > 1.05:
            likely = next(
                (f"{a:g} {b:g}" for a, b in ((0, 1), (0, 100), (0, 255), (-1, 1)) if a <= raw.min() and raw.max() <= b),
                "",
            )
            raise InputError(
                f"gripper {gripper}: entry {entry!r} is {raw.min():.4g} … {raw.max():.4g}, beyond {closed:g} (closed) … "
                f"{opened:g} (open): state its range with --gripper-range CLOSED OPEN"
                + (f", likely {likely} or the reverse" if likely else "")
            )
        return np.clip(share, 0, 1)

    def _openness(self, q: np.ndarray, state: np.ndarray) -> tuple[Float64[np.ndarray, "T G"], list[str]]:
        out = self.robot.gripper_openness(q)
        notes: list[str] = []
        for g, gripper in enumerate(self.robot.grippers):
            if gripper.name not in self.entries.openness:
                continue
            share = self._share(gripper.name, state)
            measured = any(j in self.entries.joints for j in gripper.finger_joints)
            if (
                measured
                and np.ptp(share) > 0.2
                and np.ptp(out[:, g]) > 0.2
                and np.corrcoef(share, out[:, g])[0, 1] < -0.5
            ):
                raise InputError(
                    f"gripper {gripper.name}: its entry {self.entries.openness[gripper.name]!r} closes where its finger joints "
                    "open: it counts the other way round; give --gripper-range with the two numbers exchanged"
                )
            out[:, g] = share
        return out, notes

    def _target(
        self, action: np.ndarray | None, state: np.ndarray, readings: Sequence[Reading], where: str
    ) -> tuple[Float64[np.ndarray, "T D"] | None, list[str]]:
        """Joint targets, where the action names the state's entries; what it does not name nothing commands."""
        if action is None:
            return None, []
        own = self.data.schema.vectors[self.action].names
        if self.options.entries and len(own) == len(self.names) and not set(own) <= set(self.names):
            own = self.names
        wanted = own if own and set(own) <= set(self.names) else ()
        if not wanted:
            return None, []
        full = state.copy()
        full[:, [self.names.index(name) for name in wanted]] = action
        entries = self.entries.joints
        if self.options.action_units:
            numbers = {r.joint: full[:, self.names.index(r.entry)] for r in readings}
            other = {
                j: u
                for j, u in stated_units(self.options.action_units, self.robot, entries).items()
                if entries.get(j) in wanted
            }
            readings = read_units(
                self.robot, numbers, entries, {**{r.joint: r.unit for r in readings}, **other},
                sign={r.joint: r.sign for r in readings}, offset={r.joint: r.offset for r in readings}, beyond_limits=True,
            )  # fmt: skip
        return self._assemble({r.joint: r(full[:, self.names.index(r.entry)]) for r in readings}, full), []


def _flat(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).reshape(len(values), -1)


def _named(features: Sequence[tuple[str, Vector]], entries: Sequence[str], data: Dataset) -> tuple[str, ...]:
    """One name per entry of the joined state. Raises InputError when names that were stated are too few or too many."""
    out: list[str] = []
    for key, vector in features:
        own = vector.names or (key,)
        numbered = all(name.isdigit() for name in own)
        short = key.rsplit(".", 1)[-1]
        out += [f"{short}.{name}" for name in own] if numbered and len(features) > 1 else list(own)
    if entries:
        if len(entries) != len(out):
            raise InputError(
                f"--entries names {len(entries)} entries; {' + '.join(k for k, _ in features)} of {data.root} has {len(out)}: "
                f"{', '.join(out)}"
            )
        out = [f"unused.{i}" if name == "-" else name for i, name in enumerate(entries)]
    if len(set(out)) != len(out):
        raise InputError(f"two entries of the state share a name ({', '.join(out)}); name them with --entries")
    return tuple(out)


def _action_key(data: Dataset, options: ImportOptions) -> str:
    """The feature of the action; a name that is in no dataset where it is not wanted."""
    if options.action_key in ("", NO_ACTION):
        return ACTION if not options.action_key else ""
    if options.action_key not in data.schema.vectors:
        raise InputError(unknown_name("feature of --action-key", options.action_key, (*data.schema.vectors, NO_ACTION)))
    return options.action_key


def _feature_units(
    data: Dataset, keys: Sequence[str], entries: Mapping[str, str], names: Sequence[str]
) -> dict[str, str]:
    """Joint → unit, where info.json states units of a feature (one for all, or one per entry)."""
    stated: list[str | None] = []
    for key in keys:
        feature = data.info.get("features", {}).get(key, {})
        given = feature.get("units", feature.get("unit"))
        width = data.schema.vectors[key].width
        each = given if isinstance(given, list) and len(given) == width else [given] * width
        stated += [unit_of_word(x) for x in each]
    where = dict(zip(names, stated, strict=True))
    return {joint: unit for joint, entry in entries.items() if (unit := where.get(entry))}
