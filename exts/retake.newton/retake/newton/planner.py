# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics and timed joint paths, in numpy alone, for any RobotSpec.

Damped least squares with joint limits; a redundant arm's spare freedom pulls towards a posture. `mink` would be the
library for this, but it solves on a MuJoCo model with a QP solver, and a scripted pick needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import StageError
from retake.core.geometry import axis_angle, inverse
from retake.core.robot import GripperSpec, JointSpec, RobotSpec

POSITION_TOLERANCE_M, ROTATION_TOLERANCE_RAD = 1e-4, 1e-3
LIMIT_MARGIN = 0.02
"""rad or m kept clear of every joint limit, so that tracking error does not run into it."""


@dataclass(frozen=True)
class Arm:
    """The movable joints between a robot's base and one gripper, and the tool frame at its end."""

    spec: RobotSpec
    gripper: GripperSpec
    T_link_tool: Float64[np.ndarray, "4 4"]
    """Tool frame (+Z approach, ±Y opening, origin between the finger tips) in the end-effector link, m."""

    @property
    def dofs(self) -> tuple[int, ...]:
        """Indices of the arm's joints in joint arrays, base first."""
        links = set(self.spec.chain(self.gripper)) - {self.spec.root}
        return tuple(i for i, joint in self.spec.joints_in_order if i >= 0 and joint.child_link in links)

    def tool(
        self, q: Float64[np.ndarray, "D"], T_world_base: Float64[np.ndarray, "4 4"]
    ) -> tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "6 N"]]:
        """T_world_tool and the geometric Jacobian (linear over angular, world frame) for the arm's joints."""
        chain = list(reversed(self.spec.chain(self.gripper)))
        by_child: dict[int, list[tuple[int, JointSpec]]] = {}
        for dof, joint in self.spec.joints_in_order:
            by_child.setdefault(joint.child_link, []).append((dof, joint))
        T, axes = T_world_base, []
        for dof, joint, first in ((*item, n == 0) for link in chain[1:] for n, item in enumerate(by_child[link])):
            T = T @ (joint.T_parent_joint if first else joint.T_child_joint)
            if joint.kind != "fixed":
                direction = T[:3, :3] @ np.array(joint.axis)
                axes.append((joint.kind, direction, T[:3, 3]))
                motion = np.eye(4)
                if joint.kind == "revolute":
                    motion[:3, :3] = axis_angle(np.array(joint.axis), q[dof])
                else:
                    motion[:3, 3] = q[dof] * np.array(joint.axis)
                T = T @ motion
            T = T @ inverse(joint.T_child_joint)
        T = T @ self.T_link_tool
        columns = [
            np.concatenate([np.cross(axis, T[:3, 3] - origin), axis])
            if kind == "revolute"
            else np.concatenate([axis, np.zeros(3)])
            for kind, axis, origin in axes
        ]
        return T, np.stack(columns, 1)

    def solve(
        self,
        T_world_tool: Float64[np.ndarray, "4 4"],
        q_start: Float64[np.ndarray, "D"],
        T_world_base: Float64[np.ndarray, "4 4"],
        posture: Float64[np.ndarray, "D"] | None = None,
        iterations: int = 100,
    ) -> Float64[np.ndarray, "D"]:
        """Joint positions (rad or m) that bring the tool to a pose; other joints keep `q_start`.

        Raises StageError naming the pose and the remaining error when it is out of reach.
        """
        dofs = list(self.dofs)
        joints = [self.spec.joints[self._joint(i)] for i in dofs]
        low = np.array([j.lower + LIMIT_MARGIN for j in joints])
        high = np.array([j.upper - LIMIT_MARGIN for j in joints])
        q = np.array(q_start, np.float64)
        rest = q_start if posture is None else posture
        error = np.full(6, np.inf)
        for _ in range(iterations):
            T, J = self.tool(q, T_world_base)
            error = np.concatenate(
                [T_world_tool[:3, 3] - T[:3, 3], rotation_vector(T_world_tool[:3, :3] @ T[:3, :3].T)]
            )
            if np.abs(error[:3]).max() < POSITION_TOLERANCE_M / 10 and np.abs(error[3:]).max() < 1e-4:
                break
            damping = 1e-4 + 0.05 * min(float(error @ error), 1.0)
            pinv = J.T @ np.linalg.inv(J @ J.T + damping * np.eye(6))
            step = pinv @ error
            if len(dofs) > 6:
                step += (np.eye(len(dofs)) - np.linalg.pinv(J) @ J) @ (0.05 * (rest[dofs] - q[dofs]))
            q[dofs] = np.clip(q[dofs] + np.clip(step, -0.3, 0.3), low, high)
        distance, angle = np.abs(error[:3]).max(), np.abs(error[3:]).max()
        if distance > POSITION_TOLERANCE_M or angle > ROTATION_TOLERANCE_RAD:
            raise StageError(
                f"robot {self.spec.name!r} cannot reach {np.round(T_world_tool[:3, 3], 3).tolist()} m pointing "
                f"{np.round(T_world_tool[:3, 2], 2).tolist()}: {distance * 1000:.1f} mm and {np.degrees(angle):.1f}° short; "
                "move the object or the target closer to the middle of its workspace"
            )
        return q

    def _joint(self, dof: int) -> int:
        return [i for i, j in enumerate(self.spec.joints) if j.kind != "fixed"][dof]


@dataclass(frozen=True)
class JointPath:
    """A timed joint path: cubic Hermite through knots, continuous in velocity; held before and after."""

    time_s: Float64[np.ndarray, "K"]
    q: Float64[np.ndarray, "K D"]
    """rad or m."""
    monotone: bool = False
    """Between two knots never beyond them, as a path of few knots must be whose ends are a joint's limits."""

    def at(self, t: float) -> Float64[np.ndarray, "D"]:
        """Joint targets at a time, rad or m."""
        if len(self.time_s) == 1 or t <= self.time_s[0]:
            return self.q[0]
        if t >= self.time_s[-1]:
            return self.q[-1]
        i = int(np.searchsorted(self.time_s, t, side="right")) - 1
        h = self.time_s[i + 1] - self.time_s[i]
        s = (t - self.time_s[i]) / h
        m0, m1 = self._slope(i), self._slope(i + 1)
        return (
            (2 * s**3 - 3 * s**2 + 1) * self.q[i]
            + (s**3 - 2 * s**2 + s) * h * m0
            + (-2 * s**3 + 3 * s**2) * self.q[i + 1]
            + (s**3 - s**2) * h * m1
        )

    def _slope(self, i: int) -> Float64[np.ndarray, "D"]:
        if i in (0, len(self.time_s) - 1):
            return np.zeros(self.q.shape[1])
        middle = (self.q[i + 1] - self.q[i - 1]) / (self.time_s[i + 1] - self.time_s[i - 1])
        if not self.monotone:
            return middle
        # Fritsch and Carlson (1980): at rest where the path turns, at most three times the gentler side elsewhere.
        before = (self.q[i] - self.q[i - 1]) / (self.time_s[i] - self.time_s[i - 1])
        after = (self.q[i + 1] - self.q[i]) / (self.time_s[i + 1] - self.time_s[i])
        most = 3.0 * np.minimum(np.abs(before), np.abs(after))
        return np.where(before * after > 0, np.clip(middle, -most, most), 0.0)

    def peak_velocity(self) -> Float64[np.ndarray, "D"]:
        """Largest speed of each joint between knots, rad/s or m/s."""
        return np.abs(np.diff(self.q, axis=0) / np.diff(self.time_s)[:, None]).max(0, initial=0.0)


def minimum_jerk(s: float) -> float:
    """Share of a movement done at share s of its time, at rest at both ends."""
    s = min(max(s, 0.0), 1.0)
    return s**3 * (10 - 15 * s + 6 * s * s)


def constant_middle(s: float, ramp: float = 0.2) -> float:
    """Share of a movement done at share s of its time: smooth ramps and constant velocity between them."""
    s = min(max(s, 0.0), 1.0)
    if s > 0.5:
        return 1.0 - constant_middle(1.0 - s, ramp)
    speed = 1.0 / (1.0 - ramp)
    if s >= ramp:
        return speed * (s - ramp / 2)
    x = s / ramp
    # Integral of smoothstep: velocity and acceleration are continuous at both ends of the ramp.
    return speed * ramp * (x**3 - x**4 / 2)


def rotation_vector(R: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3"]:
    """Axis times angle (rad) of a rotation, angle in [0, π]."""
    cosine = np.clip((np.trace(R) - 1) / 2, -1.0, 1.0)
    angle = np.arccos(cosine)
    v = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    if angle < 1e-7:
        return v / 2
    if np.pi - angle < 1e-4:
        # sin(angle) vanishes: the axis is the largest column of R + I.
        columns = R + np.eye(3)
        axis = columns[:, int(np.linalg.norm(columns, axis=0).argmax())]
        return axis / np.linalg.norm(axis) * angle
    return v * angle / (2 * np.sin(angle))
