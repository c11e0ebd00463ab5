# SPDX-License-Identifier: Apache-2.0
"""Which joints obey a command, and how: the stage's own drives, or drives with stated gains where it gives none.

A command reaches its joint or is refused by name before anything is simulated. What nothing commands (mimic followers,
passive linkages, joints without a drive) is state and never an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError
from retake.newton.actuators import (
    Actuator,
    Follower,
    gravity_effort,
    mass_matrix_diagonal,
    read_actuators,
    read_followers,
    stated_gains,
)
from retake.newton.preset_values import DriveRequest
from retake.usd.articulation import Articulation

BEYOND = {"revolute": 0.05, "prismatic": 0.005}
"""rad or m by which a motion may pass a joint's limit: a recorded joint leans on its stop."""
FOLLOWS = 2e-3
"""rad or m by which a commanded follower may differ from where its leader puts it."""


@dataclass(frozen=True)
class StatedDrive:
    """A drive that the stage did not give."""

    robot: int
    dof: int
    stiffness: float
    damping: float


def placeholders(newton: Any, builder: Any) -> None:
    """Give every undriven hinge and slide of an imported stage a drive without gains, which exerts nothing until told."""
    kinds = (int(newton.JointType.REVOLUTE), int(newton.JointType.PRISMATIC), int(newton.JointType.D6))
    none, position = int(newton.JointTargetMode.NONE), int(newton.JointTargetMode.POSITION)
    starts = [*builder.joint_qd_start, len(builder.joint_target_mode)]
    for joint, kind in enumerate(builder.joint_type):
        if int(kind) not in kinds:
            continue
        for dof in range(starts[joint], starts[joint + 1]):
            if int(builder.joint_target_mode[dof]) == none:
                builder.joint_target_mode[dof] = position
                builder.joint_target_ke[dof] = builder.joint_target_kd[dof] = 0.0


class Drives:
    """The drives of one compiled simulation."""

    def __init__(
        self,
        mujoco: ModuleType,
        model: Any,
        data: Any,
        robots: tuple[Articulation, ...],
        joints: Sequence[Sequence[int]],
        request: DriveRequest,
        named: Sequence[frozenset[str] | None],
    ) -> None:
        """`joints`: MuJoCo joint of every degree of freedom per robot. `named`: joints that the motion commands, per
        robot; None = it says where every joint shall be without asking for any by name.

        Raises InputError naming joints that are commanded and that nothing can move.
        """
        self._mujoco, self._model, self._robots, self._joints = mujoco, model, robots, [list(ids) for ids in joints]
        actuators = read_actuators(mujoco, model)
        empty = {a.joints[0]: a for a in actuators if a.kind == "motor" and a.gain == 0.0 and len(a.joints) == 1}
        moved = frozenset(a.joints[0] for a in actuators if a.gain != 0.0 and len(a.joints) == 1)
        servos = {a.index: a for a in actuators if a.kind == "position"}
        driven = {j for a in servos.values() for j in a.joints}
        self.followers: tuple[Follower, ...] = read_followers(mujoco, model, moved)
        following = {f.joint: f for f in self.followers}
        loops = _loop_joints(mujoco, model) | _coupled_joints(mujoco, model, actuators)
        inertia = mass_matrix_diagonal(mujoco, model, data)
        self.stated: list[StatedDrive] = []
        refused: list[str] = []
        for r, robot in enumerate(robots):
            ids, asked = self._joints[r], named[r]
            bare = not any(j in driven for j in ids)
            for d, j in enumerate(ids):
                if j in driven or j in following:
                    continue
                by_name = asked is not None and robot.spec.dof_names[d] in asked
                fill = request.policy == "fill" or (request.policy == "auto" and bare)
                if fill and (by_name or j not in loops) and j in empty:
                    kind = robot.spec.dof_joints[d].kind
                    gains = stated_gains(
                        float(inertia[model.jnt_dofadr[j]]),
                        gravity_effort(model, data, j, kind),
                        kind,
                        request.stiffness,
                        request.damping,
                    )
                    servos[empty[j].index] = self._state(mujoco, empty[j], actuators, gains)
                    self.stated.append(StatedDrive(r, d, *gains))
                    driven.add(j)
                elif by_name:
                    refused.append(self._why(r, d, actuators, loops))
        if refused:
            raise InputError(
                f"{'; '.join(refused[:6])}{f' and {len(refused) - 6} more' if len(refused) > 6 else ''}. Leave them out "
                "of the motion, give them a position drive (UsdPhysics.DriveAPI), or let stated gains move them "
                "(--set capture.overrides.drives=fill)"
            )
        self.driven = tuple(tuple(j in driven and j not in following for j in ids) for ids in self._joints)
        self.commanded = tuple(tuple(j in driven or j in following for j in ids) for ids in self._joints)
        """The driven joints and their followers: those for which a target means something."""
        self._coupled = [
            a for a in servos.values() if sum(j not in following for j in a.joints) > 1 and not (set(a.joints) & moved)
        ]
        self._rows = np.array(sorted(servos), int)
        self._lever = np.zeros((len(self._rows), model.njnt))
        self._offset = np.zeros(len(self._rows))
        for row, index in enumerate(self._rows):
            servo = servos[int(index)]
            self._offset[row] = servo.control(0.0)
            slope = servo.control(1.0) - servo.control(0.0)
            for j, lever in zip(servo.joints, servo.lever, strict=True):
                self._lever[row, j] += slope * lever
        self._target = np.zeros(model.njnt)

    @property
    def targets(self) -> Float64[np.ndarray, "J"]:
        """What was commanded last, per MuJoCo joint, rad or m; setting it sends nothing."""
        return self._target.copy()

    @targets.setter
    def targets(self, values: Float64[np.ndarray, "J"]) -> None:
        self._target = np.array(values, np.float64)

    def command(self, data: Any, robot: int, target: Float64[np.ndarray, "D"]) -> None:
        """Send a robot's joint targets (rad or m) to whatever moves its joints; followers get what their leader gets."""
        self._target[self._joints[robot]] = target
        for f in self.followers:
            self._target[f.joint] = f.position(self._target[f.leader])
        data.ctrl[self._rows] = self._offset + self._lever @ self._target

    def damping(self, joint: int) -> float:
        """Of all actuators on one joint (MuJoCo's number): N·m·s/rad or N·s/m."""
        model, total = self._model, 0.0
        for a in read_actuators(self._mujoco, model):
            for j, lever in zip(a.joints, a.lever, strict=True):
                total -= min(a.bias[2], 0.0) * lever**2 if j == joint else 0.0
        return total

    def follow(self, robot: int, q: Float64[np.ndarray, "D"]) -> Float64[np.ndarray, "D"]:
        """Joint positions with every follower where its leader puts it (same robot; rad or m)."""
        out, place = np.array(q, np.float64), {j: d for d, j in enumerate(self._joints[robot])}
        for f in self.followers:
            if f.joint in place and f.leader in place:
                out[place[f.joint]] = f.position(out[place[f.leader]])
        return out

    def fit(
        self, robot: int, q: Float64[np.ndarray, "K D"], named: frozenset[str] | None
    ) -> Float64[np.ndarray, "K D"]:
        """A motion's positions (rad or m) as the drives can obey them.

        Followers are set by their leaders, a leader that the motion does not name by its follower, joints on one tendon
        by those that are named. Raises InputError by name where the motion contradicts that.
        """
        spec, ids = self._robots[robot].spec, self._joints[robot]
        place, out = {j: d for d, j in enumerate(ids)}, np.array(q, np.float64)
        names = frozenset(spec.dof_names) if named is None else named
        for f in reversed(self.followers):
            if named is None or f.joint not in place or f.leader not in place:
                continue
            follower, leader = spec.dof_names[place[f.joint]], spec.dof_names[place[f.leader]]
            if follower in names and leader not in names:
                if f.leader_position(0.0) is None:
                    raise InputError(
                        f"joint {follower!r} of {spec.name!r} follows {leader!r}: give the motion of {leader!r}"
                    )
                out[:, place[f.leader]] = [f.leader_position(x) for x in out[:, place[f.joint]]]
                names |= {leader}
        for actuator in self._coupled if named is not None else ():
            mine = [(place[j], lever) for j, lever in zip(actuator.joints, actuator.lever, strict=True) if j in place]
            self._together(spec, out, mine, names)
        for f in self.followers:
            if f.joint not in place or f.leader not in place:
                continue
            follower, leader = spec.dof_names[place[f.joint]], spec.dof_names[place[f.leader]]
            wanted = np.array([f.position(x) for x in out[:, place[f.leader]]])
            off = np.abs(out[:, place[f.joint]] - wanted).max()
            if named is not None and follower in names and leader in names and off > FOLLOWS:
                raise InputError(
                    f"joint {follower!r} of {spec.name!r} follows {leader!r} and cannot be commanded by itself: the motion "
                    f"puts it {off:.3g} rad or m from where its leader does; leave it out or let it agree"
                )
            out[:, place[f.joint]] = wanted
        for name in sorted(names) if named is not None else ():
            self._within_limits(spec, name, out[:, spec.dof_index(name)])
        return out

    @staticmethod
    def _within_limits(spec: Any, name: str, q: Float64[np.ndarray, "K"]) -> None:
        joint = spec.dof_joints[spec.dof_index(name)]
        beyond = np.maximum(joint.lower - q, q - joint.upper)
        if beyond.max() > BEYOND[joint.kind]:
            unit = "rad" if joint.kind == "revolute" else "m"
            raise InputError(
                f"the motion asks joint {name!r} of {spec.name!r} to be at {q[beyond.argmax()]:.4g} {unit}; its limits are "
                f"{joint.lower:.4g} to {joint.upper:.4g} {unit} (a motion counts in rad and m: correct it, or the stage's limits)"
            )

    @staticmethod
    def _together(
        spec: Any, out: Float64[np.ndarray, "K D"], joints: list[tuple[int, float]], names: frozenset[str]
    ) -> None:
        """Joints that one tendon pulls: those not named move as the named ones do, each in proportion to its lever."""
        given = [(d, lever) for d, lever in joints if spec.dof_names[d] in names and lever]
        if not given:
            return
        pull = np.mean([(out[:, d] - out[0, d]) / lever for d, lever in given], axis=0)
        for d, lever in joints:
            moved = out[0, d] + lever * pull
            off = np.abs(out[:, d] - moved).max()
            if spec.dof_names[d] in names and off > FOLLOWS:
                together = ", ".join(spec.dof_names[i] for i, _ in joints)
                raise InputError(
                    f"joints {together} of {spec.name!r} are pulled by one tendon and move together; the motion asks "
                    f"{spec.dof_names[d]!r} to be {off:.3g} rad or m from there: give one of them"
                )
            out[:, d] = moved

    def settings(self) -> dict[str, Any]:
        """JSON for the episode's settings: drives that the stage did not give, by robot and joint."""
        out: dict[str, Any] = {}
        for s in self.stated:
            spec = self._robots[s.robot].spec
            out.setdefault(spec.name, {})[spec.dof_names[s.dof]] = {"stiffness": s.stiffness, "damping": s.damping}
        return out

    def notes(self) -> tuple[str, ...]:
        """What a person should know: whose drives are stated ones, and what nothing commands."""
        out = []
        for r, robot in enumerate(self._robots):
            stated = [robot.spec.dof_names[s.dof] for s in self.stated if s.robot == r]
            if stated:
                out.append(
                    f"robot {robot.spec.name!r}: the stage gives no position drive to {_some(stated)}; drives with stated "
                    "gains move them (the episode's settings, stated_drives)"
                )
            idle = [n for n, on in zip(robot.spec.dof_names, self.commanded[r], strict=True) if not on]
            if idle:
                out.append(f"robot {robot.spec.name!r}: nothing commands {_some(idle)}; they are state, not action")
        return tuple(out)

    def _state(
        self, mujoco: ModuleType, empty: Actuator, actuators: Sequence[Actuator], gains: tuple[float, float]
    ) -> Actuator:
        """Give the placeholder its gains, within the effort of the motor it stands for; other actuators rest."""
        model, (k, d), a = self._model, gains, empty.index
        model.actuator_gainprm[a, 0] = k
        model.actuator_biastype[a] = int(mujoco.mjtBias.mjBIAS_AFFINE)
        model.actuator_biasprm[a, :3] = (0.0, -k, -d)
        for other in actuators:
            if other.index == a or other.joints != empty.joints:
                continue
            if other.kind == "motor" and model.actuator_ctrllimited[other.index]:
                effort = sorted(model.actuator_ctrlrange[other.index] * other.gain * other.lever[0])
                model.actuator_forcelimited[a] = 1
                model.actuator_forcerange[a] = effort
            model.actuator_gainprm[other.index] = 0.0
            model.actuator_biasprm[other.index] = 0.0
        return Actuator(a, "position", empty.joints, empty.lever, k, (0.0, -k, -d))

    def _why(self, robot: int, dof: int, actuators: Sequence[Actuator], loops: frozenset[int]) -> str:
        spec, joint = self._robots[robot].spec, self._joints[robot][dof]
        kinds = {a.kind for a in actuators if joint in a.joints and a.gain != 0.0}
        if joint in loops and not kinds:
            what = "is a passive joint of a linkage"
        elif "velocity" in kinds:
            what = "has a velocity drive, and a motion gives positions"
        elif "motor" in kinds:
            what = "has a torque motor, and a motion gives positions"
        else:
            what = "has no drive"
        return f"joint {spec.dof_names[dof]!r} of {spec.name!r} {what}"


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more joints" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _coupled_joints(mujoco: ModuleType, model: Any, actuators: Sequence[Actuator]) -> frozenset[int]:
    """Joints that a tendon without an actuator couples to others, and that nothing moves by itself: a linkage, too."""
    moved = {j for a in actuators if a.gain != 0.0 for j in a.joints}
    out: set[int] = set()
    for tendon in range(model.ntendon):
        wraps = range(model.tendon_adr[tendon], model.tendon_adr[tendon] + model.tendon_num[tendon])
        joints = {int(model.wrap_objid[w]) for w in wraps}
        fixed = all(int(model.wrap_type[w]) == int(mujoco.mjtWrap.mjWRAP_JOINT) for w in wraps)
        holds = bool(model.tendon_limited[tendon]) or float(np.max(model.tendon_stiffness[tendon])) > 0
        if fixed and holds and len(joints) > 1 and joints & moved:
            out |= joints - moved
    return frozenset(out)


def _loop_joints(mujoco: ModuleType, model: Any) -> frozenset[int]:
    """Joints inside closed linkages: between two bodies that a connect or weld holds together, up to their fork."""
    out: set[int] = set()
    for e in range(model.neq):
        if int(model.eq_type[e]) not in (int(mujoco.mjtEq.mjEQ_CONNECT), int(mujoco.mjtEq.mjEQ_WELD)):
            continue
        ends = [int(model.eq_obj1id[e]), int(model.eq_obj2id[e])]
        if int(model.eq_objtype[e]) == int(mujoco.mjtObj.mjOBJ_SITE):
            ends = [int(model.site_bodyid[s]) for s in ends]
        lines = []
        for body in ends:
            line = []
            while body > 0:
                line.append(body)
                body = int(model.body_parentid[body])
            lines.append(line)
        if 0 in ends:  # welded to the world: nothing between is a linkage
            continue
        for line, other in (lines, lines[::-1]):
            for body in line:
                if body in other:
                    break
                first = int(model.body_jntadr[body])
                out |= set(range(first, first + int(model.body_jntnum[body])))
    return frozenset(out)
