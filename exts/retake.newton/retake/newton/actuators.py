# SPDX-License-Identifier: Apache-2.0
"""What moves the joints of a compiled simulation, and how a position target reaches it.

An actuator is known by what it is, never by its number alone: its transmission (a joint, a fixed tendon over several
joints, or something else), its gain and its bias. MuJoCo's force is `gain · ctrl + b0 + b1 · length + b2 · velocity`; only
where b1 opposes the gain does it follow a position, and then the control that holds a length L is `−(b0 + b1 · L) / gain`.
Equality constraints between joints make one of them a follower: it is told what its leader is told, and is no action.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np

from retake.core.array_types import Float64

Kind = Literal["position", "velocity", "motor", "other"]

NATURAL_RAD_S = 80.0
"""Natural frequency that stated gains give a joint moving alone (critically damped)."""
HIGHEST_RAD_S = 300.0
"""Above it a 2 ms step no longer resolves the drive."""
SAG = {"revolute": 0.01, "prismatic": 0.001}
"""How far gravity may pull a joint with stated gains from its target, rad or m."""


@dataclass(frozen=True)
class Actuator:
    """One actuator of the compiled model."""

    index: int
    kind: Kind
    joints: tuple[int, ...]
    """Joints it acts on (MuJoCo ids); empty where it acts on something else (a site, a body, a spatial tendon)."""
    lever: tuple[float, ...]
    """Length per unit of each joint's position: gear, times the tendon's coefficient."""
    gain: float
    bias: tuple[float, float, float]

    def control(self, length: float) -> float:
        """The control at which a position actuator holds this length."""
        return -(self.bias[0] + self.bias[1] * length) / self.gain


@dataclass(frozen=True)
class Follower:
    """A joint held to another by an equality constraint: q = q0 + Σ c_k · (leader − leader0)^k."""

    joint: int
    leader: int
    coefficients: tuple[float, ...]
    start: float
    leader_start: float

    def position(self, leader: float) -> float:
        """Where the follower is when its leader is there, rad or m."""
        x = leader - self.leader_start
        return self.start + sum(c * x**k for k, c in enumerate(self.coefficients))

    def leader_position(self, position: float) -> float | None:
        """Where the leader must be for the follower to be there; None where the relation is not a straight line."""
        if any(self.coefficients[2:]) or not self.coefficients[1]:
            return None
        return self.leader_start + (position - self.start - self.coefficients[0]) / self.coefficients[1]


def read_actuators(mujoco: ModuleType, model: Any) -> tuple[Actuator, ...]:
    """Every actuator of a compiled model."""
    hinge_or_slide = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
    affine, out = int(mujoco.mjtBias.mjBIAS_AFFINE), []
    for a in range(model.nu):
        joints, lever = _transmission(mujoco, model, a)
        if any(int(model.jnt_type[j]) not in hinge_or_slide for j in joints):
            joints, lever = (), ()
        gain, bias = float(model.actuator_gainprm[a, 0]), tuple(map(float, model.actuator_biasprm[a, :3]))
        simple = (
            int(model.actuator_gaintype[a]) == int(mujoco.mjtGain.mjGAIN_FIXED)
            and int(model.actuator_biastype[a]) in (int(mujoco.mjtBias.mjBIAS_NONE), affine)
            and int(model.actuator_dyntype[a]) == int(mujoco.mjtDyn.mjDYN_NONE)
        )
        if int(model.actuator_biastype[a]) != affine:
            bias = (0.0, 0.0, 0.0)
        kind: Kind = "other"
        if simple and joints:
            kind = "position" if gain * bias[1] < 0 else "velocity" if gain * bias[2] < 0 else "motor"
        out.append(Actuator(a, kind, joints, lever, gain, (bias[0], bias[1], bias[2])))
    return tuple(out)


def _transmission(mujoco: ModuleType, model: Any, actuator: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    gear = float(model.actuator_gear[actuator, 0])
    if kind in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)):
        return (target,), (gear,)
    if kind == int(mujoco.mjtTrn.mjTRN_TENDON):
        wraps = range(model.tendon_adr[target], model.tendon_adr[target] + model.tendon_num[target])
        if all(int(model.wrap_type[w]) == int(mujoco.mjtWrap.mjWRAP_JOINT) for w in wraps):
            return tuple(int(model.wrap_objid[w]) for w in wraps), tuple(gear * float(model.wrap_prm[w]) for w in wraps)
    return (), ()


def read_followers(mujoco: ModuleType, model: Any, moved: frozenset[int]) -> tuple[Follower, ...]:
    """Joints that an active equality constraint holds to another, leaders first.

    `moved` are joints that an actuator of their own moves: where only one of a pair is, it leads, whichever the
    constraint names first.
    """
    found: list[Follower] = []
    taken: set[int] = set()
    for e in range(model.neq):
        if int(model.eq_type[e]) != int(mujoco.mjtEq.mjEQ_JOINT) or not model.eq_active0[e]:
            continue
        joint, leader = int(model.eq_obj1id[e]), int(model.eq_obj2id[e])
        if leader < 0:
            continue
        q0 = [float(model.qpos0[model.jnt_qposadr[j]]) for j in (joint, leader)]
        one = Follower(joint, leader, tuple(map(float, model.eq_data[e, :5])), q0[0], q0[1])
        if joint in moved and leader not in moved and one.leader_position(0.0) is not None:
            c0, c1 = one.coefficients[:2]
            one = Follower(leader, joint, (-c0 / c1, 1 / c1), q0[1], q0[0])
        if one.joint not in taken and one.leader != one.joint:
            taken.add(one.joint)
            found.append(one)
    ordered: list[Follower] = []
    waiting = found
    while waiting:
        left = {f.joint for f in waiting}
        ready = [f for f in waiting if f.leader not in left]
        if not ready:  # two constraints that name each other: the first stands
            left.discard(waiting[0].joint)
            ready = [waiting[0]]
        ordered += ready
        waiting = [f for f in waiting if f not in ready]
    return tuple(ordered)


def stated_gains(
    inertia: float, gravity: float, kind: str, stiffness: float = 0.0, damping: float = 0.0
) -> tuple[float, float]:
    """Stiffness and damping of a drive that the stage does not give: N·m/rad and N·m·s/rad, or N/m and N·s/m.

    `inertia` is the joint's own (kg·m² or kg), `gravity` the largest effort that gravity can ask of it (N·m or N).
    Given numbers above zero are taken as they are.
    """
    inertia = max(inertia, 1e-9)
    rate = np.sqrt(gravity / (inertia * SAG[kind]))
    rate = float(np.clip(rate, NATURAL_RAD_S, HIGHEST_RAD_S))
    k = stiffness or inertia * rate**2
    return float(k), float(damping or 2.0 * np.sqrt(k * inertia))


def gravity_effort(model: Any, data: Any, joint: int, kind: str) -> float:
    """The largest effort that gravity can ask of a joint for the pose of what it carries, N·m or N."""
    body = int(model.jnt_bodyid[joint])
    mass, g = float(model.body_subtreemass[body]), float(np.linalg.norm(model.opt.gravity))
    if kind == "prismatic":
        return mass * g
    arm = data.subtree_com[body] - data.xanchor[joint]
    axis = data.xaxis[joint]
    return mass * g * float(np.linalg.norm(arm - axis * (axis @ arm)))


def mass_matrix_diagonal(mujoco: ModuleType, model: Any, data: Any) -> Float64[np.ndarray, "V"]:
    """Inertia of every degree of freedom in the present pose, kg·m² or kg."""
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, full)
    return np.diag(full).copy()
