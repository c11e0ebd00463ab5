# SPDX-License-Identifier: Apache-2.0
"""A user's word on a robot: base and end effectors, from a YAML file beside the stage (docs/robots.md).

    robots:
      - robot: so101                    # name or prim path of the robot, * and ? allowed; left out = every robot
        base: base_link                 # last link of the drawn chain; left out = the robot's own base
        ends:
          - link: gripper_link
            approach: -z                # axis of the link, or three numbers in its axes; drawn as +Z
            opening: +x                 # drawn as +Y
            joints:                     # rad or m; {} = none: openness is 1 throughout
              gripper: {open: 1.745, closed: -0.175}

A file that speaks of one robot may leave `robots:` and its dash out. Instead of `approach` and `opening`, `frame` names a link
whose axes and origin are the tool frame (+Z approach, ±Y opening). What is left out of an end that was found on the same link
stays as it was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.config import known_mapping, load_yaml
from retake.core.errors import InputError, unknown_name
from retake.core.geometry import inverse
from retake.core.robot import EndKind, GripperSpec, JointSpec, RobotSpec

ROBOT_KEYS = ("robot", "base", "ends")
END_KEYS = ("link", "name", "frame", "approach", "opening", "translation_m", "joints")
AXES = {
    f"{sign}{name}": tuple(s * float(i == k) for k in range(3))
    for i, name in enumerate("xyz")
    for sign, s in (("+", 1), ("-", -1), ("", 1))
}
SUFFIX = ".robot.yaml"
FARTHEST = {"revolute": 4 * np.pi, "prismatic": 2.0}
"""rad or m: where a joint without limits may be declared open or closed."""
LEAST_MARGIN = {"revolute": 0.05, "prismatic": 0.005}
"""rad or m by which a declared position may pass the joint's limits, where that is more than a quarter of its travel."""
FARTHEST_FRAME_M = 3.0
"""A drawn frame farther from its link was meant in another unit."""


@dataclass(frozen=True)
class EndDeclaration:
    """One end effector; None = as it was found on that link, or the link's own axes and no joints."""

    link: str
    name: str = ""
    frame: str | None = None
    """Link whose frame is the tool frame."""
    approach: tuple[float, float, float] | None = None
    """In the link's axes."""
    opening: tuple[float, float, float] | None = None
    translation_m: tuple[float, float, float] | None = None
    """Of the drawn frame, in the link's axes."""
    joints: tuple[tuple[str, float, float], ...] | None = None
    """(joint name, open, closed), rad or m."""


@dataclass(frozen=True)
class RobotDeclaration:
    """What a file says about the robots of one name."""

    robot: str = "*"
    base: str = ""
    ends: tuple[EndDeclaration, ...] | None = None
    """None = the ends that were found; empty = none."""
    source: str = ""

    def matches(self, robot: RobotSpec) -> bool:
        """Whether it speaks of that robot: by its name (case does not count) or prim path."""
        pattern = self.robot
        return fnmatchcase(robot.name.lower(), pattern.lower()) or fnmatchcase(robot.prim_path, pattern)


def beside(stage: Path) -> Path | None:
    """The declaration that lies beside a stage: scene.robot.yaml for scene.usda; None where there is none."""
    file = Path(stage).with_suffix(SUFFIX)
    return file if file.is_file() else None


def load_declarations(path: Path) -> tuple[RobotDeclaration, ...]:
    """The declarations of a file. Raises InputError naming file, key and valid keys."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"robot declaration {path} does not exist; write one with: retake robot STAGE --write {path.name}"
        )
    data = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping with 'robots', or with {', '.join(ROBOT_KEYS)}; found {data!r}")
    entries: Any = data["robots"] if set(data) == {"robots"} else [data]
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: 'robots' must list robots; found {entries!r}")
    return tuple(_robot(entry, path) for entry in entries)


def declare(robots: Sequence[RobotSpec], declarations: Iterable[RobotDeclaration]) -> tuple[RobotSpec, ...]:
    """The robots with what was declared. Raises InputError where a declaration speaks of no robot, or of an unknown link."""
    out = list(robots)
    for declaration in declarations:
        named = [i for i, robot in enumerate(out) if declaration.matches(robot)]
        if not named:
            known = [f"{robot.name} ({robot.prim_path})" for robot in out]
            raise InputError(f"{declaration.source}: " + unknown_name("robot", declaration.robot, known))
        for i in named:
            out[i] = declared(out[i], declaration)
    return tuple(out)


def declared(robot: RobotSpec, declaration: RobotDeclaration) -> RobotSpec:
    """One robot with what was declared of it. Raises InputError naming the file and the valid links or joints."""
    ends = robot.grippers
    try:
        if declaration.ends is not None:
            ends = tuple(_end(robot, end, declaration.source) for end in declaration.ends)
        names = [end.name for end in ends]
        if len(set(names)) != len(names):
            raise InputError(f"two end effectors are named alike: {sorted(names)}; give each a 'name' of its own")
        changed = replace(robot, grippers=ends, chains=robot.chains if declaration.ends is None else ())
        if declaration.base:
            changed = replace(changed, chains=tuple(_chain(changed, end, declaration.base) for end in ends))
    except InputError as error:
        raise InputError(f"{declaration.source}: {error}") from error
    return changed


def _chain(robot: RobotSpec, end: GripperSpec, base: str) -> tuple[str, ...]:
    whole = tuple(robot.links[i].name for i in replace(robot, chains=()).chain(end))
    robot.link_index(base)
    if base not in whole:
        raise InputError(
            unknown_name(f"base of end effector {end.name!r} (a link between it and the robot's base)", base, whole)
        )
    return whole[: whole.index(base) + 1]


def _end(robot: RobotSpec, end: EndDeclaration, source: str) -> GripperSpec:
    robot.link_index(end.link)
    found = next((g for g in robot.grippers if g.ee_link == end.link), None)
    base = found or GripperSpec(end.link, end.link, np.eye(4), kind="tool")
    T = base.T_link_ee.copy()
    if end.frame is not None:
        T = _relative(robot, end.link, end.frame)
    elif end.approach is not None or end.opening is not None:
        T[:3, :3] = _axes(end, T[:3, :3])
    if end.translation_m is not None:
        T[:3, 3] = end.translation_m
    kind, joints = base.kind, (base.finger_joints, base.open_position, base.closed_position)
    if end.joints is not None:
        for name, opened, closed in end.joints:
            _reachable(robot.dof_joints[robot.dof_index(name)], opened, closed)
            if opened == closed:
                raise InputError(f"joint {name!r}: open and closed are both {opened}; openness needs two positions")
        joints = (tuple(j[0] for j in end.joints), tuple(j[1] for j in end.joints), tuple(j[2] for j in end.joints))
        kind = _kind(base.kind, len(end.joints))
    return GripperSpec(end.name or end.link, end.link, T, *joints, kind, f"declared in {Path(source).name}")


def _reachable(joint: JointSpec, opened: float, closed: float) -> None:
    """Raises InputError for positions that the joint's limits forbid, as degrees and millimetres are."""
    low, high = joint.lower, joint.upper
    if not np.isfinite([low, high]).all():
        low, high = -FARTHEST[joint.kind], FARTHEST[joint.kind]
    margin = max(LEAST_MARGIN[joint.kind], 0.25 * (high - low))
    for what, value in (("open", opened), ("closed", closed)):
        if not low - margin <= value <= high + margin:
            unit = "rad" if joint.kind == "revolute" else "m"
            limits = f"its limits are {joint.lower:.4g} to {joint.upper:.4g} {unit}"
            raise InputError(f"joint {joint.name!r}: {what} is {value:g} {unit}; {limits} (positions are in rad and m)")


def _kind(found: EndKind, joints: int) -> EndKind:
    if joints == 0:
        return "tool"
    return found if found != "tool" else ("jaw" if joints == 1 else "gripper" if joints == 2 else "hand")


def _relative(robot: RobotSpec, link: str, frame: str) -> Float64[np.ndarray, "4 4"]:
    """T_link_frame. Raises InputError where a movable joint lies between the two."""
    a, b = robot.link_index(link), robot.link_index(frame)
    rng = np.random.default_rng(0)
    poses = robot.forward_kinematics(
        rng.uniform(-1, 1, (2, len(robot.dof_names))), np.broadcast_to(np.eye(4), (2, 4, 4))
    )
    T = inverse(poses[:, a]) @ poses[:, b]
    if np.abs(T[0] - T[1]).max() > 1e-9:
        raise InputError(f"frame {frame!r} moves against link {link!r}; name a link that is fixed to it")
    return T[0]


def _axes(end: EndDeclaration, found: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    Z = np.array(end.approach, np.float64) if end.approach is not None else found[:, 2]
    Z = Z / np.linalg.norm(Z)
    if end.opening is None:
        # The found opening, or of the link's axes the first one across the approach.
        choices = [found[:, 1], found[:, 0], np.array([0.0, 1, 0]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])]
        Y = next(v for v in choices if abs(v @ Z) < 0.5)
    else:
        Y = np.array(end.opening, np.float64)
        Y = Y / np.linalg.norm(Y)
        if abs(Y @ Z) > 0.5:
            raise InputError(
                f"approach {np.round(Z, 3).tolist()} and opening {np.round(Y, 3).tolist()} of {end.link!r} are nearly parallel; "
                "the fingers open across the approach"
            )
    Y = Y - Z * (Y @ Z)
    Y = Y / np.linalg.norm(Y)
    return np.stack([np.cross(Y, Z), Y, Z], axis=1) + 0.0


def _robot(entry: Any, path: Path) -> RobotDeclaration:
    data = known_mapping(entry, path, "a robot", ROBOT_KEYS)
    ends: Any = data.get("ends")
    if ends is not None and not isinstance(ends, list):
        raise InputError(f"{path}: 'ends' must list end effectors ([] = none); found {ends!r}")
    read = None if ends is None else tuple(_read_end(end, path) for end in ends)
    return RobotDeclaration(str(data.get("robot", "*")), str(data.get("base") or ""), read, str(path))


def _read_end(entry: Any, path: Path) -> EndDeclaration:
    data = known_mapping(entry, path, "an end effector", END_KEYS)
    link = data.get("link")
    if not isinstance(link, str) or not link:
        raise InputError(f"{path}: an end effector needs 'link', the name of the link it is on; found {link!r}")
    frame = data.get("frame")
    if frame is not None and ("approach" in data or "opening" in data):
        raise InputError(f"{path}: end effector {link!r} has a 'frame' and axes of its own; give one of the two")
    return EndDeclaration(
        link,
        str(data.get("name") or ""),
        None if frame is None else str(frame),
        _direction(data.get("approach"), path, link, "approach"),
        _direction(data.get("opening"), path, link, "opening"),
        None if data.get("translation_m") is None else _three(data["translation_m"], path, link, "translation_m"),
        _joints(data["joints"], path, link) if "joints" in data else None,
    )


def _joints(value: Any, path: Path, link: str) -> tuple[tuple[str, float, float], ...]:
    if value in (None, "none", {}):
        return ()
    out = []
    for name, ends in value.items() if isinstance(value, dict) else [("", value)]:
        if isinstance(ends, list | tuple) and len(ends) == 2:
            ends = {"open": ends[0], "closed": ends[1]}
        if not isinstance(ends, dict) or set(ends) != {"open", "closed"}:
            raise InputError(
                f"{path}: joints of {link!r}: expected NAME: {{open: …, closed: …}} (rad or m); found {value!r}"
            )
        try:
            if any(isinstance(ends[end], bool) for end in ("open", "closed")):
                raise ValueError("a truth value")
            out.append((str(name), float(ends["open"]), float(ends["closed"])))
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: joint {name!r} of {link!r}: open and closed are numbers; found {ends!r}"
            ) from None
    if not all(np.isfinite(x) for _, a, b in out for x in (a, b)):
        raise InputError(f"{path}: joints of {link!r}: open and closed must be finite")
    return tuple(out)


def _direction(value: Any, path: Path, link: str, key: str) -> tuple[float, float, float] | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in AXES:
        x, y, z = AXES[value.strip().lower()]
        return x, y, z
    direction = _three(value, path, link, key)
    if np.linalg.norm(direction) < 1e-9:
        raise InputError(f"{path}: '{key}' of {link!r} has no length")
    return direction


def _three(value: Any, path: Path, link: str, key: str) -> tuple[float, float, float]:
    try:
        if isinstance(value, str):
            raise ValueError("text")
        x, y, z = (float(v) for v in value)
    except (TypeError, ValueError):
        x = y = z = float("nan")
    if not np.isfinite([x, y, z]).all():
        raise InputError(
            f"{path}: '{key}' of {link!r} must be {'' if key == 'translation_m' else 'an axis such as -z or '}three finite "
            f"numbers; found {value!r}"
        )
    if key == "translation_m" and np.linalg.norm([x, y, z]) > FARTHEST_FRAME_M:
        raise InputError(
            f"{path}: 'translation_m' of {link!r} is {np.linalg.norm([x, y, z]):.4g} m; expected metres from the link, "
            f"{FARTHEST_FRAME_M:g} at most"
        )
    return x, y, z


def declaration_text(robots: Sequence[RobotSpec], stage: str) -> str:
    """What was found as a file to edit."""
    lines = [f"# End effectors of the robots of {stage}, to edit (docs/robots.md). In force with --robot THIS_FILE."]
    lines += ["robots:"]
    for robot in robots:
        lines += [
            f"  - robot: {_yaml_name(robot.name)}  # {robot.prim_path}",
            f"    base: {_yaml_name(robot.links[robot.root].name)}",
        ]
        lines += ["    ends:" if robot.grippers else "    ends: []"]
        for end in robot.grippers:
            lines += [f"      - link: {_yaml_name(end.ee_link)}  # {end.kind}: {end.note}"]
            lines += [
                f"        approach: {_axis(end.T_link_ee[:3, 2])}",
                f"        opening: {_axis(end.T_link_ee[:3, 1])}",
            ]
            if np.any(end.T_link_ee[:3, 3]):
                lines += [f"        translation_m: {[round(float(x), 6) for x in end.T_link_ee[:3, 3]]}"]
            lines += ["        joints:" if end.finger_joints else "        joints: {}"]
            for name, opened, closed in zip(end.finger_joints, end.open_position, end.closed_position, strict=True):
                lines += [f"          {_yaml_name(name)}: {{open: {opened:.6g}, closed: {closed:.6g}}}"]
    return "\n".join([*lines, ""])


def _yaml_name(name: str) -> str:
    plain = name.replace("_", "").replace("-", "").replace(".", "").isalnum() and not name[0].isdigit()
    return (
        name
        if plain and name.lower() not in ("on", "off", "yes", "no", "true", "false", "null")
        else '"' + name.replace('"', '\\"') + '"'
    )


def _axis(direction: Float64[np.ndarray, "3"]) -> str:
    for text, axis in AXES.items():
        if text[0] in "+-" and np.abs(direction - axis).max() < 1e-6:
            return f'"{text}"' if text[0] == "-" else text
    return str([round(float(x), 5) for x in direction])
