# SPDX-License-Identifier: Apache-2.0
"""RobotSpec: what an articulation is (links, joints, limits, grippers), whoever simulates it.

Readers (USD, URDF) make it once per episode; the skeleton's topology, forward kinematics and the episode check follow
from it. Link order is the reader's and is the order of every `T_world_link` array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError, choose
from retake.core.geometry import axis_angle, inverse, is_rigid

JointType = Literal["revolute", "prismatic", "fixed"]


@dataclass(frozen=True)
class LinkSpec:
    """A rigid body of the articulation."""

    name: str
    prim_path: str


@dataclass(frozen=True)
class JointSpec:
    """A joint: T_world_child = T_world_parent @ T_parent_joint @ motion(q) @ inverse(T_child_joint)."""

    name: str
    kind: JointType
    parent_link: int
    child_link: int
    axis: tuple[float, float, float]
    """Unit axis in the joint frame."""
    T_parent_joint: Float64[np.ndarray, "4 4"]
    T_child_joint: Float64[np.ndarray, "4 4"]
    lower: float = -np.inf
    """Lower limit, rad or m."""
    upper: float = np.inf
    velocity_limit: float = np.inf
    """rad/s or m/s; infinite where the source states none."""
    effort_limit: float = np.inf
    """N·m or N; infinite where the source states none."""
    driven: bool = True
    """Whether something commands it. False for mimic followers and passive linkage joints: they are state, not action."""


@dataclass(frozen=True)
class GripperSpec:
    """A parallel gripper and the end-effector frame the skeleton draws: +Z approach, fingers open along ±Y."""

    name: str
    ee_link: str
    """The link that carries the finger joints (never a tool-centre helper)."""
    T_link_ee: Float64[np.ndarray, "4 4"]
    """End-effector frame in the link frame: a fixed rotation where the robot's own axes differ; identity otherwise."""
    finger_joints: tuple[str, ...] = ()
    open_position: tuple[float, ...] = ()
    """Finger joint positions when open, rad or m."""
    closed_position: tuple[float, ...] = ()


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
        children = [joint.child_link for joint in self.joints]
        if len(set(children)) != len(children):
            raise InputError(f"robot {self.name!r}: a link has two parent joints; a kinematic tree is needed")
        for joint in self.joints:
            for index in (joint.parent_link, joint.child_link):
                if not 0 <= index < len(self.links):
                    raise InputError(
                        f"joint {joint.name!r} names link {index}; robot {self.name!r} has {len(self.links)}"
                    )
            if not (is_rigid(joint.T_parent_joint) and is_rigid(joint.T_child_joint)):
                raise InputError(
                    f"joint {joint.name!r} of robot {self.name!r}: its two frames must be rigid transforms"
                )
        _ = self.joints_in_order  # raises on a loop
        for gripper in self.grippers:
            if not is_rigid(gripper.T_link_ee):
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

    def link_index(self, name: str) -> int:
        """Index of a link. Raises InputError naming the valid links."""
        for index, link in enumerate(self.links):
            if link.name == name:
                return index
        raise InputError(choose(f"link of robot {self.name!r}", name, (link.name for link in self.links)))

    def dof_index(self, name: str) -> int:
        """Index of a movable joint in joint arrays. Raises InputError naming the valid joints."""
        if name not in self.dof_names:
            raise InputError(choose(f"joint of robot {self.name!r}", name, self.dof_names))
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
        dof = {name: index for index, name in enumerate(self.dof_names)}
        placed = {index for index, parent in enumerate(self.parents) if parent < 0}
        waiting, ordered = list(self.joints), []
        while waiting:
            ready = [joint for joint in waiting if joint.parent_link in placed]
            if not ready:
                raise InputError(
                    f"robot {self.name!r}: joints {[j.name for j in waiting]} form a loop; a tree is needed"
                )
            for joint in ready:
                placed.add(joint.child_link)
                ordered.append((dof.get(joint.name, -1), joint))
            waiting = [joint for joint in waiting if joint.child_link not in placed]
        return tuple(ordered)

    @property
    def root(self) -> int:
        """Index of the base link (the first link without a parent)."""
        return self.parents.index(-1)

    def chain(self, gripper: GripperSpec) -> tuple[int, ...]:
        """Link indices from the gripper's end effector to its base."""
        position = self.grippers.index(gripper)
        if self.chains:
            return tuple(self.link_index(name) for name in self.chains[position])
        chain = [self.link_index(gripper.ee_link)]
        while (parent := self.parents[chain[-1]]) >= 0:
            chain.append(parent)
        return tuple(chain)

    def forward_kinematics(
        self, q: Float64[np.ndarray, "*n D"], T_world_base: Float64[np.ndarray, "*n 4 4"]
    ) -> Float64[np.ndarray, "*n L 4 4"]:
        """World poses of all links for joint positions q (rad or m), given the base link's world pose."""
        q = np.asarray(q, np.float64)
        if q.shape[-1] != len(self.dof_names):
            raise InputError(f"robot {self.name!r} has {len(self.dof_names)} joints, got positions {q.shape}")
        T = np.broadcast_to(np.eye(4), (*q.shape[:-1], len(self.links), 4, 4)).copy()
        T[..., self.root, :, :] = T_world_base
        for dof, joint in self.joints_in_order:
            motion = np.broadcast_to(np.eye(4), (*q.shape[:-1], 4, 4)).copy()
            if joint.kind == "revolute":
                motion[..., :3, :3] = axis_angle(np.array(joint.axis, np.float64), q[..., dof])
            elif joint.kind == "prismatic":
                motion[..., :3, 3] = q[..., dof, None] * np.array(joint.axis, np.float64)
            local = joint.T_parent_joint @ motion @ inverse(joint.T_child_joint)
            T[..., joint.child_link, :, :] = T[..., joint.parent_link, :, :] @ local
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
        """JSON form (docs/episode.md); an infinite limit is null."""

        def number(x: float) -> float | None:
            return float(x) if np.isfinite(x) else None

        return {
            "name": self.name,
            "prim_path": self.prim_path,
            "links": [{"name": link.name, "prim_path": link.prim_path} for link in self.links],
            "joints": [
                {
                    "name": j.name,
                    "kind": j.kind,
                    "parent_link": self.links[j.parent_link].name,
                    "child_link": self.links[j.child_link].name,
                    "axis": [float(x) for x in j.axis],
                    "T_parent_joint": j.T_parent_joint.tolist(),
                    "T_child_joint": j.T_child_joint.tolist(),
                    "lower": number(j.lower),
                    "upper": number(j.upper),
                    "velocity_limit": number(j.velocity_limit),
                    "effort_limit": number(j.effort_limit),
                    **({} if j.driven else {"driven": False}),
                }
                for j in self.joints
            ],
            "grippers": [
                {
                    "name": g.name,
                    "ee_link": g.ee_link,
                    "T_link_ee": g.T_link_ee.tolist(),
                    "finger_joints": list(g.finger_joints),
                    "open_position": [float(x) for x in g.open_position],
                    "closed_position": [float(x) for x in g.closed_position],
                }
                for g in self.grippers
            ],
            "chains": [list(chain) for chain in self.chains],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> RobotSpec:
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError or InputError on malformed data."""
        links = tuple(LinkSpec(x["name"], x["prim_path"]) for x in data["links"])
        index = {link.name: i for i, link in enumerate(links)}

        def limit(value: float | None, sign: float = 1.0) -> float:
            return sign * np.inf if value is None else float(value)

        joints = tuple(
            JointSpec(
                x["name"],
                x["kind"],
                index[x["parent_link"]],
                index[x["child_link"]],
                (float(x["axis"][0]), float(x["axis"][1]), float(x["axis"][2])),
                np.array(x["T_parent_joint"], np.float64),
                np.array(x["T_child_joint"], np.float64),
                limit(x["lower"], -1.0),
                limit(x["upper"]),
                limit(x["velocity_limit"]),
                limit(x["effort_limit"]),
                bool(x.get("driven", True)),
            )
            for x in data["joints"]
        )
        grippers = tuple(
            GripperSpec(
                x["name"],
                x["ee_link"],
                np.array(x["T_link_ee"], np.float64),
                tuple(x["finger_joints"]),
                tuple(map(float, x["open_position"])),
                tuple(map(float, x["closed_position"])),
            )
            for x in data["grippers"]
        )
        chains = tuple(tuple(chain) for chain in data["chains"])
        return RobotSpec(data["name"], data["prim_path"], links, joints, grippers, chains)
