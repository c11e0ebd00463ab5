# SPDX-License-Identifier: Apache-2.0
"""RobotSpec: what an articulation is (links, joints, limits, grippers), whoever simulates it.

Readers (USD, URDF) make it once per episode; the skeleton's topology, forward kinematics and the episode check follow
from it. Link order is the reader's and is the order of every `T_world_link` array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np

from retake.core.array_types import Float64
from retake.core.codec import OMITTED, NullIs, decode, encode
from retake.core.errors import InputError, RetakeError, unknown_name
from retake.core.geometry import axis_angle, inverse, is_rigid

JointType = Literal["revolute", "prismatic", "fixed"]
EndKind = Literal["gripper", "jaw", "hand", "tool"]
"""Fingers that part; one jaw against a fixed counterpart; fingers that flex; no fingers (openness is 1 throughout)."""
WORLD = -1
"""`parent_link` of a joint between the world and the robot's base: a rail, a planar base."""


@dataclass(frozen=True)
class LinkSpec:
    """A rigid body of the articulation."""

    name: str
    prim_path: str


@dataclass(frozen=True)
class Mimic:
    """A joint that follows another: q = factor * q_leader + offset (rad or m). It is state, never action."""

    leader: str
    """Name of the leading joint."""
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class JointSpec:
    """A joint: T_world_child = T_world_parent @ T_parent_joint @ motion(q) @ inverse(T_child_joint).

    Several joints may move one child against one parent, as several hinges of one body do: each further one turns the
    child about its own frame there, T_world_child @ T_child_joint @ motion(q) @ inverse(T_child_joint), in tuple order.
    """

    name: str
    kind: JointType
    parent_link: int
    """Index of the parent; WORLD (-1) for a joint that moves the base against the world."""
    child_link: int
    axis: tuple[float, float, float]
    """Unit axis in the joint frame."""
    T_parent_joint: Float64[np.ndarray, "4 4"]
    T_child_joint: Float64[np.ndarray, "4 4"]
    lower: Annotated[float, NullIs(-np.inf)] = -np.inf
    """Lower limit, rad or m."""
    upper: Annotated[float, NullIs(np.inf)] = np.inf
    velocity_limit: Annotated[float, NullIs(np.inf)] = np.inf
    """rad/s or m/s; infinite where the source states none."""
    effort_limit: Annotated[float, NullIs(np.inf)] = np.inf
    """N·m or N; infinite where the source states none."""
    driven: Annotated[bool, OMITTED] = True
    """Whether something commands it. False for mimic followers and passive linkage joints: they are state, not action."""
    prim_path: Annotated[str, OMITTED] = ""
    """What the joint is; names are for display. Empty where the source has no prims."""
    mimic: Annotated[Mimic | None, OMITTED] = None


@dataclass(frozen=True)
class GripperSpec:
    """An end effector and the frame the skeleton draws of it: +Z approach, fingers open along ±Y."""

    name: str
    ee_link: str
    """The link that carries the finger joints (never a tool-centre helper)."""
    T_link_ee: Float64[np.ndarray, "4 4"]
    """End-effector frame in the link frame: a fixed rotation where the robot's own axes differ; identity otherwise."""
    finger_joints: tuple[str, ...] = ()
    open_position: tuple[float, ...] = ()
    """Finger joint positions when open, rad or m."""
    closed_position: tuple[float, ...] = ()
    kind: Annotated[EndKind, OMITTED] = "gripper"
    note: Annotated[str, OMITTED] = ""
    """Why it was found and what of it is uncertain, or where it was declared."""


@dataclass(frozen=True)
class RobotSpec:
    """Kinematic tree of one robot."""

    name: str
    prim_path: str
    links: tuple[LinkSpec, ...]
    joints: tuple[JointSpec, ...]
    grippers: tuple[GripperSpec, ...] = ()
    chains: tuple[tuple[str, ...], ...] = field(default=())
    """Per gripper, link names end effector first, base last; empty = derived from the tree."""

    def __post_init__(self) -> None:
        names = [link.name for link in self.links]
        if not names:
            raise InputError(f"robot {self.name!r} has no links; a kinematic tree needs at least its base")
        if len(set(names)) != len(names):
            raise InputError(f"robot {self.name!r} has two links of one name: {sorted(names)}")
        above: dict[int, int] = {}
        for joint in self.joints:
            if above.setdefault(joint.child_link, joint.parent_link) != joint.parent_link:
                raise InputError(f"robot {self.name!r}: a link has two parent joints; a kinematic tree is needed")
            for index, lowest in ((joint.parent_link, WORLD), (joint.child_link, 0)):
                if not lowest <= index < len(self.links):
                    raise InputError(
                        f"joint {joint.name!r} names link {index}; robot {self.name!r} has {len(self.links)}"
                    )
            if not (_is_transform(joint.T_parent_joint) and _is_transform(joint.T_child_joint)):
                raise InputError(
                    f"joint {joint.name!r} of robot {self.name!r}: its two frames must be rigid transforms"
                )
        if len(set(self.dof_names)) != len(self.dof_names):
            raise InputError(f"robot {self.name!r} has two movable joints of one name: {sorted(self.dof_names)}")
        _ = self.joints_in_order  # raises on a loop
        for joint in self.joints:
            if joint.mimic is not None:
                self.dof_index(joint.mimic.leader)
        for gripper in self.grippers:
            if not _is_transform(gripper.T_link_ee):
                raise InputError(
                    f"gripper {gripper.name!r} of robot {self.name!r}: T_link_ee must be a rigid transform"
                )
            self.link_index(gripper.ee_link)
            for joint_name in gripper.finger_joints:
                self.dof_index(joint_name)
        if self.chains and len(self.chains) != len(self.grippers):
            raise InputError(f"robot {self.name!r}: {len(self.chains)} chains for {len(self.grippers)} grippers")
        for chain in self.chains:
            for link in chain:
                self.link_index(link)

    @cached_property
    def dof_names(self) -> tuple[str, ...]:
        """Names of all movable joints, in the order of every joint array (D,)."""
        return tuple(joint.name for joint in self.joints if joint.kind != "fixed")

    @cached_property
    def driven(self) -> tuple[bool, ...]:
        """Whether each movable joint is commanded, order of `dof_names`."""
        return tuple(joint.driven for joint in self.joints if joint.kind != "fixed")

    @cached_property
    def dof_joints(self) -> tuple[JointSpec, ...]:
        """All movable joints, order of `dof_names`."""
        return tuple(joint for joint in self.joints if joint.kind != "fixed")

    @cached_property
    def leading_dofs(self) -> tuple[int, ...]:
        """Indices of the movable joints that follow no other."""
        return tuple(i for i, joint in enumerate(self.dof_joints) if joint.mimic is None)

    def link_index(self, name: str) -> int:
        """Index of a link. Raises InputError naming the valid links."""
        for index, link in enumerate(self.links):
            if link.name == name:
                return index
        raise InputError(unknown_name(f"link of robot {self.name!r}", name, (link.name for link in self.links)))

    def dof_index(self, name: str) -> int:
        """Index of a movable joint in joint arrays. Raises InputError naming the valid joints."""
        if name not in self.dof_names:
            raise InputError(unknown_name(f"joint of robot {self.name!r}", name, self.dof_names))
        return self.dof_names.index(name)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Parent link of each link, -1 for roots."""
        parents = [-1] * len(self.links)
        for joint in self.joints:
            parents[joint.child_link] = joint.parent_link
        return tuple(parents)

    @cached_property
    def joints_in_order(self) -> tuple[tuple[int, JointSpec], ...]:
        """(dof index or -1, joint), parents before children. Raises InputError on a cycle."""
        dof: dict[int, int] = {}
        for number, joint in enumerate(self.joints):
            dof[number] = -1 if joint.kind == "fixed" else sum(i >= 0 for i in dof.values())
        placed = {WORLD} | {index for index, parent in enumerate(self.parents) if parent < 0}
        waiting, ordered = list(enumerate(self.joints)), []
        while waiting:
            ready = [(number, joint) for number, joint in waiting if joint.parent_link in placed]
            if not ready:
                names = [joint.name for _, joint in waiting]
                raise InputError(f"robot {self.name!r}: joints {names} form a loop; a tree is needed")
            for number, joint in ready:
                placed.add(joint.child_link)
                ordered.append((dof[number], joint))
            done = {number for number, _ in ready}
            waiting = [(number, joint) for number, joint in waiting if number not in done]
        return tuple(ordered)

    @property
    def root(self) -> int:
        """Index of the base link (the first link without a parent)."""
        return self.parents.index(-1)

    def followed(self, q: Float64[np.ndarray, "*n D"]) -> Float64[np.ndarray, "*n D"]:
        """The same positions with every mimic joint where its leader puts it."""
        out = np.array(q, np.float64)
        for _ in self.dof_joints:  # a follower may lead another one
            before = out.copy()
            for i, joint in enumerate(self.dof_joints):
                if joint.mimic is not None:
                    leader = out[..., self.dof_index(joint.mimic.leader)]
                    out[..., i] = joint.mimic.factor * leader + joint.mimic.offset
            if np.array_equal(before, out):
                break
        return out

    def base_pose(self, q: Float64[np.ndarray, "*n D"]) -> Float64[np.ndarray, "*n 4 4"]:
        """T_world_base that the joints to the world give at positions q (rad or m); identity where there are none."""
        q = np.asarray(q, np.float64)
        T = np.broadcast_to(np.eye(4), (*q.shape[:-1], 4, 4)).copy()
        first = True
        for dof, joint in self.joints_in_order:
            if joint.parent_link == WORLD:
                T, first = T @ _local(joint, q, dof, first), False
        return T

    def chain(self, gripper: GripperSpec) -> tuple[int, ...]:
        """Link indices from the gripper's end effector to its base."""
        if self.chains:
            position = next((i for i, own in enumerate(self.grippers) if own is gripper), None)
            if position is None:  # another reading of the same end; its arrays cannot be compared by ==
                position = [(g.name, g.ee_link) for g in self.grippers].index((gripper.name, gripper.ee_link))
            return tuple(self.link_index(name) for name in self.chains[position])
        chain = [self.link_index(gripper.ee_link)]
        while (parent := self.parents[chain[-1]]) >= 0:
            chain.append(parent)
        return tuple(chain)

    def forward_kinematics(
        self, q: Float64[np.ndarray, "*n D"], T_world_base: Float64[np.ndarray, "*n 4 4"] | None = None
    ) -> Float64[np.ndarray, "*n L 4 4"]:
        """World poses of all links for joint positions q (rad or m), given the base link's world pose.

        Joints to the world move the base itself: they count where no base pose is given (`base_pose`).
        """
        q = np.asarray(q, np.float64)
        if q.shape[-1] != len(self.dof_names):
            raise InputError(f"robot {self.name!r} has {len(self.dof_names)} joints, got positions {q.shape}")
        T = np.broadcast_to(np.eye(4), (*q.shape[:-1], len(self.links), 4, 4)).copy()
        T[..., self.root, :, :] = self.base_pose(q) if T_world_base is None else T_world_base
        moved: set[int] = set()
        for dof, joint in self.joints_in_order:
            if joint.parent_link == WORLD:
                continue
            first = joint.child_link not in moved
            start = joint.parent_link if first else joint.child_link
            T[..., joint.child_link, :, :] = T[..., start, :, :] @ _local(joint, q, dof, first)
            moved.add(joint.child_link)
        return T

    def gripper_openness(self, q: Float64[np.ndarray, "*n D"]) -> Float64[np.ndarray, "*n G"]:
        """Openness of each gripper, 0 closed to 1 open, clipped: mean over its fingers of the share of their travel."""
        q = np.asarray(q, np.float64)
        out = np.ones((*q.shape[:-1], len(self.grippers)))
        for g, gripper in enumerate(self.grippers):
            if gripper.finger_joints:
                dofs = [self.dof_index(name) for name in gripper.finger_joints]
                closed, opened = np.array(gripper.closed_position), np.array(gripper.open_position)
                out[..., g] = np.clip((q[..., dofs] - closed) / (opened - closed), 0, 1).mean(-1)
        return out

    def to_json(self) -> dict[str, Any]:
        """JSON form (docs/episode.md): joints name their links; an infinite limit is null."""
        out = encode(self)
        for joint in out["joints"]:
            for end in ("parent_link", "child_link"):
                joint[end] = "" if joint[end] == WORLD else self.links[joint[end]].name
        return out

    @staticmethod
    def from_json(data: Any, where: str = "robot", *, error: type[RetakeError] = InputError) -> RobotSpec:
        """The inverse of `to_json`. Raises `error` naming `where`, the field, what was found and what would be valid."""
        stored = decode(_StoredTree, data, where, error=error, ignore_unknown=True)
        number = {"": WORLD} | {link.name: i for i, link in enumerate(stored.links)}
        joints = []
        for place, joint in enumerate(stored.joints):
            ends = {}
            for end in ("parent_link", "child_link"):
                valid = {link: i for link, i in number.items() if i != WORLD or end == "parent_link"}
                name = str(joint.get(end))
                if name not in valid:
                    text = unknown_name("link", name, (link or "'' (the world)" for link in valid))
                    raise error(f"{where}: joints[{place}].{end}: {text}")
                ends[end] = valid[name]
            joints.append({**joint, **ends})
        return decode(RobotSpec, {**data, "joints": joints}, where, error=error, ignore_unknown=True)


@dataclass(frozen=True)
class _StoredTree:
    """What of a robot's JSON says which number each link has."""

    links: tuple[LinkSpec, ...]
    joints: tuple[dict[str, Any], ...]


def _is_transform(T: np.ndarray) -> bool:
    return T.shape == (4, 4) and is_rigid(T)


def _local(joint: JointSpec, q: Float64[np.ndarray, "*n D"], dof: int, first: bool) -> Float64[np.ndarray, "*n 4 4"]:
    """What a joint adds to the pose it starts from: the parent's, or the child's own after an earlier joint of it."""
    motion = np.broadcast_to(np.eye(4), (*q.shape[:-1], 4, 4)).copy()
    if joint.kind == "revolute":
        motion[..., :3, :3] = axis_angle(np.array(joint.axis, np.float64), q[..., dof])
    elif joint.kind == "prismatic":
        motion[..., :3, 3] = q[..., dof, None] * np.array(joint.axis, np.float64)
    return (joint.T_parent_joint if first else joint.T_child_joint) @ motion @ inverse(joint.T_child_joint)
