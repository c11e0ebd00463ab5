# SPDX-License-Identifier: Apache-2.0
"""Per-robot corrections of the derived topology, from `config/robots/*.yaml`.

The end effector, its axes and its chain follow from the articulation; a file here is needed only where they do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.config import config_path, known_mapping, load_yaml
from retake.core.errors import InputError, unknown_name
from retake.core.geometry import axis_angle, is_rigid
from retake.core.robot import GripperSpec, RobotSpec

_KEYS = ("robots", "links", "grippers")
_GRIPPER_KEYS = ("ee_link", "rotation_deg", "translation_m", "chain")


@dataclass(frozen=True)
class GripperOverride:
    """What a file states about one gripper; None leaves the derived value."""

    ee_link: str | None = None
    T_link_ee: Float64[np.ndarray, "4 4"] | None = None
    chain: tuple[str, ...] | None = None
    """Link names, end effector first, base last."""


@dataclass(frozen=True)
class RobotOverride:
    """One file: which robots it speaks of, and what it changes."""

    patterns: tuple[str, ...]
    """Robot names, case-insensitive, `*` and `?` allowed."""
    links: tuple[str, ...] = ()
    """Links a robot must have for this file to speak of it (one name may stand for several models)."""
    grippers: dict[str, GripperOverride] = field(default_factory=dict)
    """By gripper name; `*` stands for every gripper without an entry of its own."""
    source: str = ""

    def matches(self, robot: RobotSpec) -> bool:
        """Whether this file speaks of that robot."""
        named = any(fnmatchcase(robot.name.lower(), pattern.lower()) for pattern in self.patterns)
        return named and set(self.links) <= {link.name for link in robot.links}


def load_overrides(folder: Path | None = None) -> tuple[RobotOverride, ...]:
    """Every file of the folder, in name order. Raises InputError naming file, key and valid keys."""
    folder = config_path("robots") if folder is None else Path(folder)
    return tuple(_read(path) for path in sorted(folder.glob("*.yaml")))


def apply_overrides(robot: RobotSpec, overrides: tuple[RobotOverride, ...]) -> RobotSpec:
    """The robot with the first matching file applied. Raises InputError for a link or gripper the robot lacks."""
    found = next((o for o in overrides if o.matches(robot)), None)
    if found is None:
        return robot
    names = {gripper.name for gripper in robot.grippers}
    for name in found.grippers:
        if name != "*" and name not in names:
            raise InputError(f"{found.source}: " + unknown_name(f"gripper of robot {robot.name!r}", name, names))
    links = {link.name for link in robot.links}
    grippers: list[GripperSpec] = []
    changes: list[GripperOverride] = []
    for gripper in robot.grippers:
        change = found.grippers.get(gripper.name, found.grippers.get("*", GripperOverride()))
        for link in (*(change.chain or ()), *((change.ee_link,) if change.ee_link else ())):
            if link not in links:
                raise InputError(f"{found.source}: " + unknown_name(f"link of robot {robot.name!r}", link, links))
        grippers.append(
            replace(
                gripper,
                ee_link=change.ee_link or gripper.ee_link,
                T_link_ee=gripper.T_link_ee if change.T_link_ee is None else change.T_link_ee,
            )
        )
        changes.append(change)
    if all(change.chain is None for change in changes) and not robot.chains:
        return replace(robot, grippers=tuple(grippers))
    # A chain stated or derived before the end effector changed would start at the old one.
    derived = replace(robot, grippers=tuple(grippers), chains=())
    chains = tuple(
        change.chain
        or (
            robot.chains[i]
            if robot.chains and gripper.ee_link == robot.grippers[i].ee_link
            else tuple(derived.links[k].name for k in derived.chain(gripper))
        )
        for i, (gripper, change) in enumerate(zip(grippers, changes, strict=True))
    )
    return replace(derived, chains=chains)


def _read(path: Path) -> RobotOverride:
    data = known_mapping(load_yaml(path), path, "the file", _KEYS)
    patterns: Any = data.get("robots")
    if not _names(patterns):
        raise InputError(f"{path}: 'robots' must be a list of robot names or patterns; found {patterns!r}")
    links = data.get("links", [])
    if links and not _names(links):
        raise InputError(f"{path}: 'links' must list names of links that the robot has; found {links!r}")
    entries = data.get("grippers") or {}
    if not isinstance(entries, dict):
        raise InputError(f"{path}: 'grippers' must map gripper names (or '*') to settings; found {entries!r}")
    grippers = {str(name): _gripper(entry, path, str(name)) for name, entry in entries.items()}
    return RobotOverride(tuple(patterns), tuple(links or ()), grippers, path.name)


def _gripper(entry: Any, path: Path, name: str) -> GripperOverride:
    entry = known_mapping(entry or {}, path, f"gripper {name!r}", _GRIPPER_KEYS)
    chain: Any = entry.get("chain")
    ee_link: Any = entry.get("ee_link")
    if chain is not None and not _names(chain):
        raise InputError(f"{path}: gripper {name!r}: 'chain' must list link names, end effector first; found {chain!r}")
    if ee_link is not None and not isinstance(ee_link, str):
        raise InputError(f"{path}: gripper {name!r}: 'ee_link' must be a link name; found {ee_link!r}")
    if chain and ee_link and chain[0] != ee_link:
        raise InputError(f"{path}: gripper {name!r}: the chain starts at {chain[0]!r}, not at ee_link {ee_link!r}")
    T = None
    if "rotation_deg" in entry or "translation_m" in entry:
        T = np.eye(4)
        roll, pitch, yaw = np.deg2rad(_three(entry.get("rotation_deg", (0, 0, 0)), path, name, "rotation_deg"))
        x, y, z = np.eye(3)
        T[:3, :3] = axis_angle(z, yaw) @ axis_angle(y, pitch) @ axis_angle(x, roll)
        T[:3, 3] = _three(entry.get("translation_m", (0, 0, 0)), path, name, "translation_m")
        assert is_rigid(T)
    return GripperOverride(ee_link or (chain[0] if chain else None), T, tuple(chain) if chain else None)


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)


def _three(value: Any, path: Path, name: str, key: str) -> Float64[np.ndarray, "3"]:
    try:
        array = np.array([float(x) for x in value])
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.shape != (3,) or not np.isfinite(array).all():
        raise InputError(f"{path}: gripper {name!r}: '{key}' must be three finite numbers; found {value!r}")
    return array
