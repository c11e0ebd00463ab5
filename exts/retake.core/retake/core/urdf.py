# SPDX-License-Identifier: Apache-2.0
"""URDF → RobotSpec, with the standard library's XML parser. Geometry, inertia and transmissions are ignored.

Format: https://wiki.ros.org/urdf/XML. Angles rad, lengths m; `rpy` are fixed-axis roll, pitch, yaw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, unknown_name
from retake.core.geometry import axis_angle
from retake.core.robot import GripperSpec, JointSpec, JointType, LinkSpec, RobotSpec

_KINDS: dict[str, JointType] = {
    "revolute": "revolute",
    "continuous": "revolute",
    "prismatic": "prismatic",
    "fixed": "fixed",
}
Mimics = dict[str, tuple[str, float, float]]
"""Joint name → (leading joint, multiplier, offset)."""


def read_urdf(path: Path | str, ee_link: str | None = None) -> RobotSpec:
    """The robot of a URDF file; joint and link order are the file's.

    Grippers are found by shape: a link that carries two or more limited finger joints and has no such link below it.
    `ee_link` names the end effector instead, for tools without fingers; its axes are then the link's own. Joints that
    mimic another count as joints of their own. Raises InputError naming the file, the element and what is valid.
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
    return replace(robot, grippers=_find_grippers(robot, _mimics(root, path)))


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
        bound("velocity", np.inf),
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


def _find_grippers(robot: RobotSpec, mimics: Mimics) -> tuple[GripperSpec, ...]:
    """One gripper per palm: the deepest links that carry at least two limited joints."""
    fingers = [
        [j for j in robot.joints if j.parent_link == i and j.kind != "fixed" and np.isfinite([j.lower, j.upper]).all()]
        for i in range(len(robot.links))
    ]
    palms = {i for i, joints in enumerate(fingers) if len(joints) >= 2}
    for i in list(palms):
        above = robot.parents[i]
        while above >= 0:
            palms.discard(above)
            above = robot.parents[above]
    return tuple(_gripper(robot, palm, fingers[palm], mimics) for palm in sorted(palms))


def _gripper(robot: RobotSpec, palm: int, fingers: list[JointSpec], mimics: Mimics) -> GripperSpec:
    """Finger joints, which end of their travel is open, and the fixed rotation to +Z approach, ±Y opening."""
    leading = [j for j in fingers if j.name not in mimics] or fingers
    names = tuple(j.name for j in leading)
    ends = {"lower": {j.name: j.lower for j in leading}, "upper": {j.name: j.upper for j in leading}}
    tips = {end: _tips(robot, palm, fingers, mimics, values) for end, values in ends.items()}
    open_end = max(tips, key=lambda end: float(np.linalg.norm(np.ptp(tips[end], axis=0))))
    closed_end = "upper" if open_end == "lower" else "lower"
    T_link_ee = np.eye(4)
    T_link_ee[:3, :3] = _ee_rotation(tips[open_end])
    link = robot.links[palm].name
    return GripperSpec(link, link, T_link_ee, names, tuple(ends[open_end].values()), tuple(ends[closed_end].values()))


def _tips(
    robot: RobotSpec, palm: int, fingers: list[JointSpec], mimics: Mimics, values: dict[str, float]
) -> Float64[np.ndarray, "F 3"]:
    """Per finger the origin of its last link, in the palm's frame, m, for given leading joint positions."""
    q = np.zeros(len(robot.dof_names))
    for i, name in enumerate(robot.dof_names):
        leader, factor, offset = mimics.get(name, (name, 1.0, 0.0))
        q[i] = factor * values.get(leader, 0.0) + offset
    poses = robot.forward_kinematics(q, np.eye(4))
    inside = np.linalg.inv(poses[palm]) @ poses
    tips = []
    for finger in fingers:
        below, last = [finger.child_link], finger.child_link
        while below:
            last = below[-1]
            below = [j.child_link for j in robot.joints if j.parent_link in below]
        tips.append(inside[last, :3, 3])
    return np.array(tips)


def _ee_rotation(tips: Float64[np.ndarray, "F 3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation link ← end effector: Y along the spread of the open finger tips, Z towards them.

    Of the two rotations half a turn apart the one nearer to the link's own axes is taken. Identity when the tips say
    nothing (all in one place, or in the palm's own plane of opening).
    """
    centre = tips.mean(0)
    y = np.linalg.svd(tips - centre)[2][0]
    z = centre - (centre @ y) * y
    if np.ptp(tips @ y) < 1e-6 or np.linalg.norm(z) < 1e-6:
        return np.eye(3)
    z = z / np.linalg.norm(z)
    candidates = [np.stack([np.cross(side, z), side, z], -1) for side in (y, -y)]
    R = max(candidates, key=lambda c: float(np.trace(c)))
    # Model origins carry rounding; a rotation within half a degree of a signed axis permutation is meant to be one.
    snapped = np.rint(R)
    return snapped if np.abs(R - snapped).max() < 1e-2 else R


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
