# SPDX-License-Identifier: Apache-2.0
"""URDF → RobotSpec, with the standard library's XML parser. Geometry, inertia and transmissions are ignored.

Format: https://wiki.ros.org/urdf/XML. Angles rad, lengths m; `rpy` are fixed-axis roll, pitch, yaw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

import numpy as np

from retake.core.array_types import Float64
from retake.core.ends import find_ends
from retake.core.errors import InputError, unknown_name
from retake.core.geometry import axis_angle
from retake.core.robot import GripperSpec, JointSpec, JointType, LinkSpec, Mimic, RobotSpec

_KINDS: dict[str, JointType] = {
    "revolute": "revolute",
    "continuous": "revolute",
    "prismatic": "prismatic",
    "fixed": "fixed",
}
Mimics = dict[str, tuple[str, float, float]]
"""Joint name → (leading joint, multiplier, offset)."""


def read_urdf(
    path: Path | str,
    ee_link: str | None = None,
    points: Mapping[str, Float64[np.ndarray, "N 3"]] = MappingProxyType({}),
) -> RobotSpec:
    """The robot of a URDF file; joint and link order are the file's.

    End effectors are found as on a stage (`retake.core.ends`), from joints, names, and `points`: of the surface of a link by its
    name, m, in its frame (`retake.core.masks.read_robot` gives those of the description's meshes). `ee_link` names the end
    effector instead; its axes are then the link's own. Joints that mimic another count as joints of their own. Raises
    InputError naming the file, the element and what is valid.
    """
    path = Path(path)
    root = _parse(path)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", root.get("name", "")) or "robot"
    links = tuple(LinkSpec(_attribute(e, "name", path), f"/{name}/{e.get('name')}") for e in root.findall("link"))
    index = {link.name: i for i, link in enumerate(links)}
    if not links:
        raise InputError(f"{path}: the robot has no <link>; expected a URDF with links and joints")
    joints = tuple(_joint(element, index, path) for element in root.findall("joint"))
    names = [joint.name for joint in joints]
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two joints share a name: {sorted(n for n in set(names) if names.count(n) > 1)}")
    robot = RobotSpec(name, f"/{name}", links, joints)
    roots = [links[i].name for i, parent in enumerate(robot.parents) if parent < 0]
    if len(roots) != 1:
        raise InputError(
            f"{path}: a robot needs exactly one root link; found {roots or 'none (the joints form a loop)'}"
        )
    _ = robot.joints_in_order  # raises on a loop beside the root
    if ee_link is not None:
        return replace(robot, grippers=(GripperSpec(ee_link, ee_link, np.eye(4)),))
    return replace(robot, grippers=_ends(robot, _mimics(root, path), points))


def keep_links(robot: RobotSpec, names: Iterable[str], root: str | None = None) -> RobotSpec:
    """The robot without all other links and the joints between them; fingers that are cut off leave their gripper.

    `root` may name a kept link that becomes the base although it has a parent. Raises InputError when a kept link would
    lose its parent or a name is unknown.
    """
    kept = sorted({robot.link_index(name) for name in names})
    place = {old: new for new, old in enumerate(kept)}
    base = robot.root if root is None else robot.link_index(root)
    for old in kept:
        if old != base and robot.parents[old] not in place:
            raise InputError(
                f"robot {robot.name!r}: link {robot.links[old].name!r} needs its parent, "
                f"{robot.links[robot.parents[old]].name!r}"
            )
    joints = tuple(
        replace(j, parent_link=place[j.parent_link], child_link=place[j.child_link])
        for j in robot.joints
        if j.child_link in place and j.child_link != base
    )
    left = {j.name for j in joints}
    links = tuple(robot.links[old] for old in kept)
    grippers = tuple(
        g if set(g.finger_joints) <= left else replace(g, finger_joints=(), open_position=(), closed_position=())
        for g in robot.grippers
        if robot.link_index(g.ee_link) in place
    )
    return replace(robot, links=links, joints=joints, grippers=grippers, chains=())


def _parse(path: Path) -> ElementTree.Element:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a URDF file") from error
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(f"{path} declares a DOCTYPE or entities; a URDF needs neither, and they are not expanded")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not well-formed XML: {error}") from error
    if root.tag != "robot":
        raise InputError(f"{path}: the root element is <{root.tag}>; a URDF starts with <robot>")
    return root


def _joint(element: ElementTree.Element, index: dict[str, int], path: Path) -> JointSpec:
    name = _attribute(element, "name", path)
    kind = element.get("type", "")
    if kind not in _KINDS:
        raise InputError(f"{path}: joint {name!r}: " + unknown_name("type", kind, _KINDS))
    ends = []
    for tag in ("parent", "child"):
        end = element.find(tag)
        link = "" if end is None else end.get("link", "")
        if link not in index:
            raise InputError(f"{path}: joint {name!r}: " + unknown_name(f"{tag} link", link, index))
        ends.append(index[link])
    origin, axis, limit = element.find("origin"), element.find("axis"), element.find("limit")
    T = np.eye(4)
    if origin is not None:
        where = f"{path}: joint {name!r} origin"
        roll, pitch, yaw = _numbers(origin.get("rpy", "0 0 0"), where)
        x, y, z = np.eye(3)
        T[:3, :3] = axis_angle(z, yaw) @ axis_angle(y, pitch) @ axis_angle(x, roll)
        T[:3, 3] = _numbers(origin.get("xyz", "0 0 0"), where)
    direction = _numbers("1 0 0" if axis is None else axis.get("xyz", "1 0 0"), f"{path}: joint {name!r} axis")
    length = float(np.linalg.norm(direction))
    if kind != "fixed" and length < 1e-9:
        raise InputError(f"{path}: joint {name!r} has the zero axis {direction.tolist()}; a direction is needed")
    ux, uy, uz = (float(v) for v in direction / (length or 1.0))

    def bound(key: str, default: float) -> float:
        text = None if limit is None else limit.get(key)
        try:
            return default if text is None else float(text)
        except ValueError:
            raise InputError(f"{path}: joint {name!r} limit {key}={text!r} is no number") from None

    free = kind in ("continuous", "fixed")
    return JointSpec(
        name,
        _KINDS[kind],
        ends[0],
        ends[1],
        (ux, uy, uz),
        T,
        np.eye(4),
        -np.inf if free else bound("lower", 0.0),  # the format's defaults
        np.inf if free else bound("upper", 0.0),
        bound("velocity", np.inf) or np.inf,  # exporters write 0 where nobody stated a limit
        bound("effort", np.inf),
    )


def _mimics(root: ElementTree.Element, path: Path) -> Mimics:
    out: Mimics = {}
    for element in root.findall("joint"):
        mimic = element.find("mimic")
        if mimic is not None:
            try:
                factor, offset = float(mimic.get("multiplier", "1")), float(mimic.get("offset", "0"))
            except ValueError as error:
                raise InputError(f"{path}: joint {element.get('name')!r} mimic: {error}") from None
            out[element.get("name", "")] = (_attribute(mimic, "joint", path), factor, offset)
    return out


def _ends(
    robot: RobotSpec, mimics: Mimics, points: Mapping[str, Float64[np.ndarray, "N 3"]]
) -> tuple[GripperSpec, ...]:
    """What the search finds on a stage, too: the same robot has the same skeleton, simulated and recorded.

    It is told which joints follow others; in the recording they are joints of their own.
    """
    names = {joint.name for joint in robot.joints if joint.kind != "fixed"}
    told = {name: Mimic(*mimic) for name, mimic in mimics.items() if mimic[0] in names}
    joints = tuple(replace(joint, mimic=told.get(joint.name)) for joint in robot.joints)
    nothing = np.zeros((0, 3))
    shapes = [points.get(link.name, nothing) for link in robot.links]
    return find_ends(replace(robot, joints=joints), shapes.__getitem__)[0]


def _attribute(element: ElementTree.Element, key: str, path: Path) -> str:
    value = element.get(key)
    if not value:
        raise InputError(f"{path}: a <{element.tag}> has no {key!r}")
    return value


def _numbers(text: str, where: str) -> Float64[np.ndarray, "3"]:
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise InputError(f"{where}: expected three finite numbers, found {text!r}")
    return values
