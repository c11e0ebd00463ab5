# SPDX-License-Identifier: Apache-2.0
"""The scripted task: pick a box-like object from above, carry it over a target, let it drop.

Everything is derived from the articulation and the scene: tool frame and finger targets from the finger colliders,
grasp direction from the object's narrow side. The grasp is friction alone; nothing is attached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pxr import Usd

from retake.core.array_types import Float64
from retake.core.errors import StageError
from retake.core.geometry import axis_angle, inverse, transform
from retake.core.robot import GripperSpec, RobotSpec
from retake.newton.motion import Motion, Phase
from retake.newton.planner import Arm, JointPath, constant_middle, minimum_jerk, rotation_vector
from retake.newton.preset_values import PHASES
from retake.usd.articulation import Articulation
from retake.usd.bodies import StageObject
from retake.usd.shapes import link_box
from retake.usd.units import StageUnits

KNOT_S = 0.025
SQUEEZE_M = 0.013
"""How far each finger is told to go into the object. Driven fully shut, both drives saturate and the object drifts
11 mm in the hand; this keeps the grip within a few mm (docs/embedded_simulator.md)."""
CLEARANCE_M = 0.01
"""Room that an open gripper must have around the object, in total."""


@dataclass(frozen=True)
class Hand:
    """Gripper geometry in the end-effector frame (+Z approach, ±Y opening), m."""

    gripper: GripperSpec
    reach: float
    """Distance from the end-effector origin to the middle of the finger pads."""
    width_open: float
    """Free width between the fingers when open."""
    inner_closed: tuple[float, ...]
    """Per finger, distance of its inner face from the middle plane when closed."""

    def finger_targets(self, half_width_m: float) -> Float64[np.ndarray, "F"]:
        """Finger joint positions (m) that put every inner face at a distance from the middle plane."""
        opened, closed = np.array(self.gripper.open_position), np.array(self.gripper.closed_position)
        travel = np.clip(half_width_m - np.array(self.inner_closed), 0.0, np.abs(opened - closed))
        return closed + np.sign(opened - closed) * travel


def find_hand(stage: Usd.Stage, spec: RobotSpec) -> Hand:
    """The first gripper of a robot, measured. Raises StageError when there is none or it is not a parallel gripper."""
    with_fingers = [gripper for gripper in spec.grippers if gripper.finger_joints]
    if not with_fingers:
        raise StageError(
            f"robot {spec.name!r} has no gripper: no link carries two finger joints; the pick-and-place task needs one "
            "(other stages: give a motion file, or let the robot hold)"
        )
    gripper = with_fingers[0]
    T_ee_link = inverse(gripper.T_link_ee)
    units = StageUnits.of(stage)
    inner, tips, heights = [], [], []
    for name, closed in zip(gripper.finger_joints, gripper.closed_position, strict=True):
        joint = next(j for j in spec.joints if j.name == name)
        if joint.kind != "prismatic":
            raise StageError(
                f"robot {spec.name!r}: finger joint {name!r} turns; the scripted task needs parallel fingers"
            )
        path = spec.links[joint.child_link].prim_path
        box = link_box(stage, path, units, colliders_only=True)
        if not np.isfinite(box).all():
            raise StageError(f"finger {path} has no collision shape; friction needs one (a box pad holds best)")
        slide = np.eye(4)
        slide[:3, 3] = closed * np.array(joint.axis)
        T_ee_finger = T_ee_link @ joint.T_parent_joint @ slide @ inverse(joint.T_child_joint)
        corners = np.stack(np.meshgrid(*box.T, indexing="ij"), -1).reshape(8, 3)
        points = transform(T_ee_finger, corners)
        opening = (T_ee_link[:3, :3] @ joint.T_parent_joint[:3, :3] @ np.array(joint.axis))[1]
        opened = gripper.open_position[gripper.finger_joints.index(name)]
        side = np.sign(opening * (opened - closed))
        inner.append(float((points[:, 1] * side).min()))
        tips.append(float(points[:, 2].max()))
        heights.append(float(np.ptp(points[:, 2])))
    travel = np.abs(np.array(gripper.open_position) - np.array(gripper.closed_position))
    return Hand(
        gripper,
        reach=min(tips) - min(min(heights) / 2, 0.012),
        width_open=float(2 * (np.array(inner) + travel).min()),
        inner_closed=tuple(inner),
    )


@dataclass(frozen=True)
class Task:
    """One pick and drop, ready to plan."""

    robots: tuple[Articulation, ...]
    robot: int
    obj: StageObject
    target: StageObject
    drop_height_m: float
    durations_s: Mapping[str, float]
    total_s: float


def plan(stage: Usd.Stage, task: Task) -> Motion:
    """Joint paths for a task. Raises StageError when it is out of reach, too wide to grasp, or too fast for a joint."""
    robot = task.robots[task.robot]
    spec = robot.spec
    hand = find_hand(stage, spec)
    tool = hand.gripper.T_link_ee.copy()
    tool[:3, 3] += tool[:3, :3] @ [0.0, 0.0, hand.reach]
    arm = Arm(spec, hand.gripper, tool)
    base = robot.T_world_link[spec.root]
    home = robot.initial_position.copy()
    fingers = [spec.dof_index(name) for name in hand.gripper.finger_joints]
    home[fingers] = hand.gripper.open_position

    top, height, width, opening_axis = _grasp_side(task.obj, hand)
    grip_depth = min(0.035, 0.45 * height)
    grasp = _tool_pose(top - [0, 0, grip_depth], opening_axis)
    grasp = _nearest_turn(arm, grasp, home, base)
    rim_z = _rim(task.target)
    lift_m = max(rim_z + task.drop_height_m - (top[2] - height), 0.02)
    above = _shift(grasp, [0, 0, max(0.08, grip_depth + 0.03)])
    lifted = _shift(grasp, [0, 0, lift_m])
    centre = transform(task.target.T_world_object, np.array(task.target.spec.center_m))
    over = lifted.copy()
    # The object hangs where it was grasped: bring its own centre over the target's.
    over[:2, 3] = centre[:2]
    start = arm.tool(home, base)[0]
    away = _shift(over, [0, 0, 0.06])

    opened = np.array(hand.gripper.open_position)
    shut = hand.finger_targets(width / 2 - SQUEEZE_M)
    legs = {
        "wait": (start, start, opened, opened, minimum_jerk),
        "approach": (start, above, opened, opened, minimum_jerk),
        "descend": (above, grasp, opened, opened, minimum_jerk),
        "close": (grasp, grasp, opened, shut, minimum_jerk),
        "lift": (grasp, lifted, shut, shut, minimum_jerk),
        "carry": (lifted, over, shut, shut, constant_middle),
        "release": (over, over, shut, opened, minimum_jerk),
        "retreat": (over, away, opened, opened, minimum_jerk),
    }
    times, knots, phases, clock, q = [0.0], [home], [], 0.0, home
    for name in PHASES:
        duration = float(task.durations_s[name])
        T0, T1, f0, f1, timing = legs[name]
        count = max(round(duration / KNOT_S), 1)
        for k in range(1, count + 1):
            s = timing(k / count)
            if name not in ("wait", "close", "release"):
                q = arm.solve(_between(T0, T1, s), q, base, posture=home)
            q = q.copy()
            q[fingers] = f0 + (f1 - f0) * s
            times.append(clock + duration * k / count)
            knots.append(q)
        phases.append(Phase(name, clock, clock + duration))
        clock += duration
    if clock > task.total_s + 1e-9:  # durations in tenths do not add up to the last bit
        raise StageError(f"the task's phases take {clock:.2f} s; the episode has {task.total_s:.2f} s")
    phases.append(Phase("settle", clock, max(clock, task.total_s)))
    path = JointPath(np.array(times), np.stack(knots))
    _check_speed(spec, path)
    paths = tuple(
        path if i == task.robot else JointPath(np.zeros(1), r.initial_position[None]) for i, r in enumerate(task.robots)
    )
    by_name = {phase.name: phase for phase in phases}
    ramp = 0.2 * task.durations_s["carry"]
    settings: dict[str, Any] = {
        "scenario": "pick_place",
        "task": {
            "kind": "pick_place",
            "robot": spec.name,
            "gripper": hand.gripper.name,
            "object": task.obj.spec.name,
            "target": task.target.spec.name,
            "grasp_s": by_name["lift"].start_s,
            "release_s": by_name["release"].start_s,
            "constant_velocity_s": [by_name["carry"].start_s + ramp, by_name["carry"].end_s - ramp],
            "lift_m": float(lift_m),
        },
        "phases": [{"name": p.name, "start_s": p.start_s, "end_s": p.end_s} for p in phases],
    }
    return Motion(paths, tuple(phases), settings)


def _grasp_side(
    obj: StageObject, hand: Hand
) -> tuple[Float64[np.ndarray, "3"], float, float, Float64[np.ndarray, "3"]]:
    """Middle of the object's upper side (world, m), its height, the width to grasp, and the axis to close along."""
    T, size = obj.T_world_object, np.array(obj.spec.size_m)
    vertical = int(np.abs(T[2, :3]).argmax())
    sides = sorted((i for i in range(3) if i != vertical), key=lambda i: size[i])
    width = float(size[sides[0]])
    if width > hand.width_open - CLEARANCE_M:
        raise StageError(
            f"object {obj.spec.name!r} is {width * 1000:.0f} mm across its narrow side; gripper {hand.gripper.name!r} opens "
            f"{hand.width_open * 1000:.0f} mm and needs {CLEARANCE_M * 1000:.0f} mm of room"
        )
    top = transform(T, np.array(obj.spec.center_m)) + np.array([0, 0, size[vertical] / 2])
    axis = T[:3, sides[0]] * [1, 1, 0]
    return top, float(size[vertical]), width, axis / np.linalg.norm(axis)


def _tool_pose(p: Float64[np.ndarray, "3"], opening_axis: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "4 4"]:
    """Tool pointing straight down at p, fingers opening along a horizontal axis."""
    down = np.array([0.0, 0.0, -1.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([np.cross(opening_axis, down), opening_axis, down], 1)
    T[:3, 3] = p
    return T


def _nearest_turn(
    arm: Arm, T: Float64[np.ndarray, "4 4"], home: Float64[np.ndarray, "D"], base: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "4 4"]:
    """A parallel gripper may grasp either way round: the turn that asks less of the joints."""
    best, best_cost, failure = None, np.inf, None
    for flip in (np.eye(3), axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(np.pi))):
        candidate = T.copy()
        candidate[:3, :3] = T[:3, :3] @ flip
        try:
            q = arm.solve(candidate, home, base, posture=home)
        except StageError as error:
            failure = error
            continue
        cost = float(np.abs(q - home)[list(arm.dofs)].max())
        if cost < best_cost:
            best, best_cost = candidate, cost
    if best is None:
        assert failure is not None
        raise failure
    return best


def _rim(target: StageObject) -> float:
    """World height of a target's upper edge, m."""
    half = np.abs(target.T_world_object[2, :3]) @ (np.array(target.spec.size_m) / 2)
    return float(transform(target.T_world_object, np.array(target.spec.center_m))[2] + half)


def _shift(T: Float64[np.ndarray, "4 4"], by: list[float]) -> Float64[np.ndarray, "4 4"]:
    out = T.copy()
    out[:3, 3] += by
    return out


def _between(T0: Float64[np.ndarray, "4 4"], T1: Float64[np.ndarray, "4 4"], s: float) -> Float64[np.ndarray, "4 4"]:
    """Pose on the straight line with the shortest turn between two poses, at share s."""
    out = T0.copy()
    out[:3, 3] = T0[:3, 3] + s * (T1[:3, 3] - T0[:3, 3])
    turn = rotation_vector(T1[:3, :3] @ T0[:3, :3].T)
    angle = float(np.linalg.norm(turn))
    if angle > 1e-9:
        out[:3, :3] = axis_angle(turn / angle, np.float64(s * angle)) @ T0[:3, :3]
    return out


def _check_speed(spec: RobotSpec, path: JointPath) -> None:
    movable = [joint for joint in spec.joints if joint.kind != "fixed"]
    for joint, speed in zip(movable, path.peak_velocity(), strict=True):
        if speed > joint.velocity_limit:
            raise StageError(
                f"the planned motion turns joint {joint.name!r} at {speed:.2f}; its limit is {joint.velocity_limit:.2f} "
                "(rad/s or m/s); give the phases more time or bring object and target closer"
            )
