# SPDX-License-Identifier: Apache-2.0
"""A robot as rigid groups joined by movable joints, with what is known of their geometry: what the search looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retake.core.array_types import Float64
from retake.core.geometry import transform
from retake.core.robot import WORLD, JointSpec, RobotSpec

Shapes = Callable[[int], Float64[np.ndarray, "N 3"]]
"""Link index -> points of its geometry in the link's own frame, m; (0, 3) where it has none."""

HAND_WORDS = frozenset((
    "finger", "fingers", "fingertip", "thumb", "gripper", "grip", "grasp", "grasping", "hand", "palm", "jaw", "claw", "knuckle",
    "pincer", "tool", "tcp", "eef", "ee", "suction", "flange", "effector", "index", "pinky",
))  # fmt: skip
JAW_WORDS = frozenset(("finger", "gripper", "grip", "jaw", "claw", "pincer", "gripping"))
LEG_WORDS = frozenset((
    "leg", "foot", "feet", "ankle", "knee", "hip", "thigh", "shank", "calf", "toe", "wheel", "wheels", "caster", "steer",
    "steering", "suspension", "track",
))  # fmt: skip
HEAD_WORDS = frozenset((
    "head", "neck", "camera", "laser", "lidar", "eye", "eyes", "screen", "sensor", "scan", "scanner", "kinect", "antenna", "imu",
))  # fmt: skip
BODY_WORDS = HAND_WORDS | LEG_WORDS | HEAD_WORDS
HELPER_WORDS = frozenset((
    "frame", "eef", "ee", "tcp", "tool", "target", "grasptarget", "center", "centre", "focus", "camera", "optical", "imu",
    "aruco", "sensor", "virtual", "mount", "inertia", "marker", "site", "box", "effector",
))  # fmt: skip
"""Names of links that mark a place and are no part of a body."""


def no_shapes(_: int) -> Float64[np.ndarray, "N 3"]:
    """For sources without geometry."""
    return np.zeros((0, 3))


def words(name: str) -> frozenset[str]:
    """The words of a name, in lower case: `LeftGripperYaw`, `left_gripper-yaw`, `left/gripper/yaw2`; `lfoot` is a foot."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    found = {part.lower() for part in re.split(r"[^A-Za-z]+", spaced) if part}
    found |= {part.lower() for part in re.split(r"[^A-Za-z0-9]+", name) if part}
    return frozenset(
        found | {part[1:] for part in found if part[0] in "lr" and len(part) > 3 and part[1:] in BODY_WORDS}
    )


@dataclass(frozen=True)
class Branch:
    """A movable joint that leaves a group, and everything after it."""

    joint: int
    """Index of that joint."""
    group: int
    """The group it leaves."""
    groups: tuple[int, ...]
    """Groups after it, nearest first."""
    joints: tuple[int, ...]
    """Movable joints of the branch, itself first."""


class Tree:
    """Groups of links without movable joints between them. Poses are at rest: zero, or the limit nearest to it."""

    def __init__(self, spec: RobotSpec, shapes: Shapes, T_world_base: Float64[np.ndarray, "4 4"] | None = None) -> None:
        self.spec, self._shapes = spec, shapes
        joints = spec.dof_joints
        self.rest = np.array([float(np.clip(0.0, j.lower, j.upper)) for j in joints], np.float64)
        self.T = spec.forward_kinematics(self.rest, np.eye(4) if T_world_base is None else T_world_base)
        """World poses of the links at rest."""
        group = list(range(len(spec.links)))
        for _, joint in spec.joints_in_order:
            if joint.kind == "fixed" and joint.parent_link != WORLD:
                group[joint.child_link] = group[joint.parent_link]
        self.group_of = tuple(group)
        """Group of each link; a group's number is its first link."""
        self._points: dict[int, np.ndarray] = {}

    @cached_property
    def seen(self) -> bool:
        """Whether any link's geometry is known."""
        return any(len(self.points(link)) for link in range(len(self.group_of)))

    @cached_property
    def dof_of(self) -> dict[int, int]:
        """Joint index -> index in joint arrays, of movable joints."""
        movable = [i for i, joint in enumerate(self.spec.joints) if joint.kind != "fixed"]
        return {joint: dof for dof, joint in enumerate(movable)}

    def links(self, group: int) -> list[int]:
        """Links of a group, nearest to the base first."""
        return [link for link, g in enumerate(self.group_of) if g == group]

    @cached_property
    def _leaving(self) -> dict[int, list[int]]:
        """Group -> movable joints that leave it; of several joints of one link the first."""
        out: dict[int, list[int]] = {}
        seen: set[int] = set()
        for index, joint in enumerate(self.spec.joints):
            if joint.kind == "fixed" or joint.parent_link == WORLD or joint.child_link in seen:
                continue
            seen.add(joint.child_link)
            out.setdefault(self.group_of[joint.parent_link], []).append(index)
        return out

    def branches(self, group: int) -> tuple[Branch, ...]:
        """Every branch that leaves a group."""
        return tuple(self._branch(group, index) for index in self._leaving.get(group, ()))

    def _branch(self, group: int, index: int) -> Branch:
        first = self.group_of[self.spec.joints[index].child_link]
        groups = [first]
        for g in groups:
            groups += [self.group_of[self.spec.joints[i].child_link] for i in self._leaving.get(g, ())]
        inside = set(groups)
        joints = [
            i for i, j in enumerate(self.spec.joints)
            if j.kind != "fixed" and j.parent_link != WORLD and self.group_of[j.child_link] in inside
        ]  # fmt: skip
        joints.sort(key=lambda i: i != index)
        return Branch(index, group, tuple(groups), tuple(joints))

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """All groups, parents before children."""
        return tuple(dict.fromkeys(self.group_of[i] for i in [self.spec.root, *self._below_root()]))

    def _below_root(self) -> Iterator[int]:
        for _, joint in self.spec.joints_in_order:
            yield joint.child_link

    def parent_joint(self, group: int) -> int | None:
        """Index of the last movable joint that moves a group; None for the base's group."""
        found = [
            i for i, j in enumerate(self.spec.joints)
            if j.kind != "fixed" and j.parent_link != WORLD and self.group_of[j.child_link] == group
        ]  # fmt: skip
        return found[-1] if found else None

    def above(self, group: int) -> list[int]:
        """Movable joints between the base and a group, nearest to the group first."""
        out = []
        while (index := self.parent_joint(group)) is not None:
            child = self.spec.joints[index].child_link
            out += [i for i in reversed(range(len(self.spec.joints)))
                    if self.spec.joints[i].kind != "fixed" and self.spec.joints[i].child_link == child]  # fmt: skip
            group = self.group_of[self.spec.joints[index].parent_link]
        return out

    def points(self, link: int) -> Float64[np.ndarray, "N 3"]:
        """Geometry of a link in the world at rest, m. Shapes that are metres large are markers and left out."""
        if link not in self._points:
            local = np.asarray(self._shapes(link), np.float64)
            self._points[link] = transform(self.T[link], local) if len(local) else np.zeros((0, 3))
        return self._points[link]

    def group_points(self, group: int) -> Float64[np.ndarray, "N 3"]:
        """Geometry of a group in the world at rest, m, without that of links that only mark places."""
        parts = [self.points(link) for link in self.links(group) if not self.is_helper(link)]
        return np.concatenate(parts) if parts else np.zeros((0, 3))

    def is_helper(self, link: int) -> bool:
        """Whether a link only marks a place: a tool centre, a camera frame."""
        return bool(words(self.spec.links[link].name) & HELPER_WORDS) and self.group_of[link] != link

    def origin(self, joint: JointSpec) -> Float64[np.ndarray, "3"]:
        """Where a joint is in the world at rest, m."""
        return (self.T[joint.parent_link] @ joint.T_parent_joint)[:3, 3]

    def axis(self, joint: JointSpec) -> Float64[np.ndarray, "3"]:
        """Direction of a joint's axis in the world at rest."""
        return (self.T[joint.parent_link] @ joint.T_parent_joint)[:3, :3] @ np.array(joint.axis)

    def names(self, branch: Branch) -> frozenset[str]:
        """Words of all names in a branch."""
        found: set[str] = set()
        for g in branch.groups:
            for link in self.links(g):
                found |= words(self.spec.links[link].name)
        for i in branch.joints:
            found |= words(self.spec.joints[i].name)
        return frozenset(found)

    def extent(self, branch: Branch) -> Float64[np.ndarray, "N 3"]:
        """Where a branch is at rest, m: its geometry, and the origins of its links."""
        links = [link for g in branch.groups for link in self.links(g)]
        origins = np.stack([self.T[link][:3, 3] for link in links])
        return np.concatenate([*(self.points(link) for link in links if not self.is_helper(link)), origins])

    def reach(self, branch: Branch) -> float:
        """How far a branch extends from its joint at rest, m."""
        return float(np.linalg.norm(self.extent(branch) - self.origin(self.spec.joints[branch.joint]), axis=1).max())

    def depth(self, branch: Branch) -> int:
        """The largest number of independent joints in a row within a branch."""

        def count(group: int) -> int:
            further = self._leaving.get(group, ())
            return max((self._free(i) + count(self._after(i)) for i in further), default=0)

        return self._free(branch.joint) + count(branch.groups[0])

    def _after(self, index: int) -> int:
        return self.group_of[self.spec.joints[index].child_link]

    def _free(self, index: int) -> int:
        """Independent joints of the link that a joint moves."""
        child = self.spec.joints[index].child_link
        return sum(j.mimic is None for j in self.spec.joints if j.kind != "fixed" and j.child_link == child)
