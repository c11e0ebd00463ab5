# SPDX-License-Identifier: Apache-2.0
"""A RobotSpec as URDF (kinematics only), so that an exported sample can be read back and drawn elsewhere.

A URDF joint turns about an axis through its child link's origin. Where the child's origin is off that axis, a massless
link `<joint>_frame` is put on it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from retake.core.array_types import Float64
from retake.core.geometry import inverse
from retake.core.robot import WORLD, JointSpec, RobotSpec

WORLD_LINK = "world"
"""Link that stands for the world where a joint moves the base against it."""


def robot_urdf(robot: RobotSpec) -> str:
    """The URDF text. Links, joints, axes and limits keep names, order and numbers (17 digits)."""
    joints = []
    extra = []
    left = Counter(joint.child_link for joint in robot.joints)
    reached: dict[int, str] = {}
    for joint in robot.joints:
        parent = WORLD_LINK if joint.parent_link == WORLD else robot.links[joint.parent_link].name
        child = robot.links[joint.child_link].name
        # Of several joints of one link all but the last end in a massless link where the child is after them.
        if joint.child_link in reached:
            parent, joint = reached[joint.child_link], replace(joint, T_parent_joint=joint.T_child_joint)
        left[joint.child_link] -= 1
        if left[joint.child_link]:
            child = reached[joint.child_link] = f"{joint.name}_moved"
            extra.append(child)
        if parent == WORLD_LINK and WORLD_LINK not in extra:
            extra.append(WORLD_LINK)
        offset = joint.T_child_joint[:3, 3]
        axis = np.asarray(joint.axis)
        if joint.kind == "fixed" or np.linalg.norm(np.cross(joint.T_child_joint[:3, :3] @ axis, offset)) < 1e-9:
            moved = joint.T_child_joint[:3, :3] @ axis
            joints.append(
                _joint(
                    joint,
                    joint.name,
                    joint.kind,
                    parent,
                    child,
                    joint.T_parent_joint @ inverse(joint.T_child_joint),
                    moved,
                )
            )
        else:
            frame = f"{joint.name}_frame"
            extra.append(frame)
            joints.append(_joint(joint, joint.name, joint.kind, parent, frame, joint.T_parent_joint, axis))
            joints.append(
                _joint(joint, f"{joint.name}_offset", "fixed", frame, child, inverse(joint.T_child_joint), axis)
            )
    links = [f"  <link name={quoteattr(name)}/>" for name in (*(link.name for link in robot.links), *extra)]
    text = "\n".join([f"<robot name={quoteattr(robot.name)}>", *links, *joints, "</robot>", ""])
    ElementTree.fromstring(text)
    return text


def _joint(
    joint: JointSpec,
    name: str,
    kind: str,
    parent: str,
    child: str,
    origin: Float64[np.ndarray, "4 4"],
    axis: np.ndarray,
) -> str:
    bounded = np.isfinite(joint.lower) and np.isfinite(joint.upper)
    if kind == "revolute" and not bounded:
        kind = "continuous"
    lines = [
        f"  <joint name={quoteattr(name)} type={quoteattr(kind)}>",
        f"    <origin xyz={quoteattr(_numbers(origin[:3, 3]))} rpy={quoteattr(_numbers(rpy(origin[:3, :3])))}/>",
        f"    <parent link={quoteattr(parent)}/>",
        f"    <child link={quoteattr(child)}/>",
    ]
    if kind != "fixed":
        lines.append(f"    <axis xyz={quoteattr(_numbers(axis))}/>")
        limits = {"lower": joint.lower, "upper": joint.upper} if bounded else {}
        limits |= {"effort": joint.effort_limit, "velocity": joint.velocity_limit}
        inside = " ".join(f'{k}="{v!r}"' for k, v in limits.items() if np.isfinite(v))
        lines.append(f"    <limit {inside}/>")
    return "\n".join([*lines, "  </joint>"])


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(v)) for v in values)


def rpy(R: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3"]:
    """Fixed-axis roll, pitch, yaw (rad) with R = Rz(yaw) Ry(pitch) Rx(roll), as URDF has it."""
    pitch = float(np.arctan2(-R[2, 0], np.hypot(R[0, 0], R[1, 0])))
    if np.hypot(R[0, 0], R[1, 0]) < 1e-9:
        return np.array([np.arctan2(-R[1, 2], R[1, 1]), pitch, 0.0])
    return np.array([np.arctan2(R[2, 1], R[2, 2]), pitch, np.arctan2(R[1, 0], R[0, 0])])
