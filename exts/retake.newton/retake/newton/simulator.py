# SPDX-License-Identifier: Apache-2.0
"""A UsdPhysics stage as a running simulation: Newton imports it, MuJoCo integrates it.

Newton's own `step` copies state through Warp arrays (1.1 ms each on a CPU against 0.03 ms for the step itself), so the
loop drives the MuJoCo model that Newton's solver made. Everything leaves this file as plain numpy, float64, metres,
world frame; poses and forces of a measurement all belong to the same instant.
"""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from pxr import Usd

from retake.core.array_types import Float32, Float64
from retake.core.episode import Contact
from retake.core.errors import InputError, StageError
from retake.core.geometry import pose_from_wxyz
from retake.core.robot import JointSpec
from retake.newton.actuators import mass_matrix_diagonal
from retake.newton.drives import DriveRequest, Drives, placeholders
from retake.newton.engine import load
from retake.newton.importing import import_stage
from retake.usd.articulation import Articulation
from retake.usd.stage import body_of, stage_name

CONTACT_TIME_S = 0.005
"""Time constant of contacts. MuJoCo's default of 0.02 s lets light fingers sink up to 11 mm into the packet and the
packet turn 29° in the hand; 5 ms keeps it below 1.5 mm and 12° with both robots."""


@dataclass(frozen=True)
class Measurement:
    """The simulation at one instant."""

    time_s: float
    joint_position: tuple[Float64[np.ndarray, "D"], ...]
    """Per robot, rad or m, order of `dof_names`."""
    joint_velocity: tuple[Float64[np.ndarray, "D"], ...]
    joint_effort: tuple[Float64[np.ndarray, "D"], ...]
    """Drive effort, N·m or N (gravity compensation is not part of it)."""
    T_world_body: Float64[np.ndarray, "B 4 4"]
    """All bodies, order of `Simulator.body_paths`."""
    body_q: Float32[np.ndarray, "B 7"]
    """The same as x y z qx qy qz qw, for the renderer."""
    contacts: tuple[Contact, ...]


class Simulator:
    """One simulation run. The stage must be in metres and kilograms (`retake.usd.si.si_stage`).

    `friction` overrides the friction of every shape; `drives` says what moves joints that the stage does not drive;
    `named` which joints a motion commands by name, per robot (None = none in particular).
    Raises StageError, in one sentence, when the stage cannot be imported or simulated, InputError naming joints that are
    commanded and that nothing can move.
    """

    def __init__(
        self,
        stage: Usd.Stage,
        robots: tuple[Articulation, ...],
        dt_s: float,
        *,
        friction: float | None = None,
        drives: DriveRequest | None = None,
        named: tuple[frozenset[str] | None, ...] | None = None,
    ) -> None:
        newton, _ = load()
        import mujoco

        # Without a listener MuJoCo writes its warnings into a file in whatever folder this runs; `step` sees what matters.
        mujoco.set_mju_user_warning(_unheard)
        self._mujoco, self.stage, self.robots, self.dt_s = mujoco, stage, robots, dt_s
        self.builder, self.notes = import_stage(stage, friction)
        placeholders(newton, self.builder)
        self.body_paths: tuple[str, ...] = tuple(self.builder.body_label)
        self.shape_paths: tuple[str, ...] = tuple(self.builder.shape_label)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = self.builder.finalize(device="cpu")
                self._solver = newton.solvers.SolverMuJoCo(
                    model,
                    use_mujoco_cpu=True,
                    # Elliptic cones with a stiff friction constraint: a grasp must not creep (docs/embedded_simulator.md).
                    cone="elliptic",
                    impratio=10,
                    integrator="implicitfast",
                    enable_multiccd=True,
                )
        except Exception as error:
            raise StageError(refusal(stage, error, (*self.body_paths, *self.shape_paths))) from error
        self._model, self._data = self._solver.mj_model, self._solver.mj_data
        self._model.opt.timestep = dt_s
        # Below two steps MuJoCo's contacts turn unstable.
        self._model.geom_solref[:] = (max(CONTACT_TIME_S, 2.5 * dt_s), 1.0)
        self._steps = 0
        joints = self._map(model)
        for robot, articulation in enumerate(robots):
            self.set_joint_position(robot, articulation.initial_position)
        mujoco.mj_forward(self._model, self._data)
        self.drives = Drives(
            mujoco, self._model, self._data, robots, joints, drives or DriveRequest(), named or (None,) * len(robots)
        )
        self.notes += self._resolve_leaders()
        for robot, articulation in enumerate(robots):
            start = self.drives.follow(robot, articulation.initial_position)
            self.set_joint_position(robot, start)
            self.command(robot, start)
        mujoco.mj_forward(self._model, self._data)
        self._begun = (copy(self._data), self.drives.targets)

    def rewind(self) -> None:
        """Back to the state in which it was made, to the last bit: what follows is what would follow in a new one."""
        data, targets = self._begun
        self._mujoco.mj_copyData(self._data, self._model, data)
        self.drives.targets = targets
        self._steps = 0

    def _resolve_leaders(self) -> tuple[str, ...]:
        """Give leading joints whose drives damp more than one step resolves as much rotor inertia as the step adds anyway.

        The integrator is implicit in the drives' damping and the constraints are not: without it a constraint sees a lighter
        joint than the one that moves, and followers swing by radians.
        """
        model, notes = self._model, []
        inertia = mass_matrix_diagonal(self._mujoco, model, self._data)
        for joint in sorted({f.leader for f in self.drives.followers}):
            dof = int(model.jnt_dofadr[joint])
            wanted = self.dt_s * self.drives.damping(joint)
            if wanted > max(inertia[dof], float(model.dof_armature[dof])):
                model.dof_armature[dof] = wanted
                notes.append(
                    f"joint {self._joint_path[joint]} leads others and its drive damps more than a physics step resolves: it "
                    f"counts with {wanted:.3g} kg·m² or kg of rotor inertia (lower its damping to choose less)"
                )
        return tuple(notes)

    @property
    def time_s(self) -> float:
        """Simulation time."""
        return self._steps * self.dt_s

    def set_joint_position(self, robot: int, q: Float64[np.ndarray, "D"]) -> None:
        """Place a robot at joint positions (rad or m), at rest."""
        self._data.qpos[self._qpos[robot]] = q
        self._data.qvel[self._qvel[robot]] = 0.0

    def command(self, robot: int, target: Float64[np.ndarray, "D"]) -> None:
        """Set drive targets (rad or m). Followers go where their leader does; joints that nothing drives ignore theirs."""
        self.drives.command(self._data, robot, target)

    def step(self) -> None:
        """Advance by dt_s. Raises InputError when the simulation has become unstable."""
        self._mujoco.mj_step(self._model, self._data)
        self._steps += 1
        if not np.isfinite(self._data.qacc).all() or self._data.warning[self._bad_qacc].number:
            raise InputError(
                f"the simulation became unstable at {self.time_s:.3f} s (non-finite accelerations); "
                "take a smaller physics step or softer drives"
            )

    def body_index(self, path: str) -> int:
        """Index of a body by prim path. Raises StageError naming the valid ones."""
        if path not in self.body_paths:
            raise StageError(f"no rigid body at {path}; bodies: {', '.join(self.body_paths)}")
        return self.body_paths.index(path)

    def pose(self, body: int) -> Float64[np.ndarray, "4 4"]:
        """T_world_body of an object right after a step, m (no other quantity is brought up to date)."""
        if body not in self._free_qpos:  # a lid on its box, a thing that a joint holds to a hand
            self._mujoco.mj_kinematics(self._model, self._data)
            number = self._body_id[body]
            return pose_from_wxyz(self._data.xpos[number], self._data.xquat[number])
        address = self._free_qpos[body]
        q = self._data.qpos[address : address + 7]
        return pose_from_wxyz(q[:3], q[3:])

    def measure(self) -> Measurement:
        """Everything about this instant, consistent: kinematics, contacts and forces are evaluated at the present state."""
        data = self._data
        self._mujoco.mj_forward(self._model, data)
        position, wxyz = data.xpos[self._body_id], data.xquat[self._body_id]
        return Measurement(
            time_s=self.time_s,
            joint_position=tuple(data.qpos[a].copy() for a in self._qpos),
            joint_velocity=tuple(data.qvel[a].copy() for a in self._qvel),
            joint_effort=tuple(data.qfrc_actuator[a].copy() for a in self._qvel),
            T_world_body=pose_from_wxyz(position, wxyz),
            body_q=np.concatenate([position, wxyz[:, [1, 2, 3, 0]]], 1).astype(np.float32),
            contacts=self._contacts(),
        )

    def contact_force(self, body: int) -> Float64[np.ndarray, "3"]:
        """Sum of all contact forces on a body in the step just taken, world frame, N."""
        total, wrench = np.zeros(3), np.zeros(6)
        mine = self._body_id[body]
        for i in range(self._data.ncon):
            contact = self._data.contact[i]
            first, second = self._model.geom_bodyid[contact.geom1], self._model.geom_bodyid[contact.geom2]
            if mine in (first, second):
                self._mujoco.mj_contactForce(self._model, self._data, i, wrench)
                force = contact.frame.reshape(3, 3).T @ wrench[:3]
                total += force if second == mine else -force
        return total

    def _contacts(self) -> tuple[Contact, ...]:
        out, wrench = [], np.zeros(6)
        for i in range(self._data.ncon):
            contact = self._data.contact[i]
            self._mujoco.mj_contactForce(self._model, self._data, i, wrench)
            # The collision margin lists pairs that do not touch.
            if contact.dist >= 0 and wrench[0] <= 0:
                continue
            axes = contact.frame.reshape(3, 3)
            force = axes.T @ wrench[:3]
            out.append(
                Contact(
                    self._geom_owner[contact.geom1],
                    self._geom_owner[contact.geom2],
                    _triple(contact.pos),
                    _triple(axes[0]),
                    _triple(force),
                    float(max(-contact.dist, 0.0)),
                )
            )
        return tuple(out)

    def _map(self, model: Any) -> list[list[int]]:
        """Index arrays between prim paths and MuJoCo's bodies, joints and geoms; returns each robot's MuJoCo joints."""
        mj, solver = self._model, self._solver
        self._bad_qacc = int(self._mujoco.mjtWarning.mjWARN_BADQACC)
        to_newton = solver.mjc_body_to_newton.numpy().ravel()
        body_id = {int(newton): i for i, newton in enumerate(to_newton) if i > 0 and newton >= 0}
        self._body_id = np.array([body_id[i] for i in range(len(self.body_paths))])
        joint_of = solver.mjc_jnt_to_newton_jnt.numpy().ravel()
        by_label: dict[str, list[int]] = {}
        for i, newton in enumerate(joint_of):
            if newton >= 0:
                by_label.setdefault(model.joint_label[int(newton)], []).append(i)
        self._qpos, self._qvel, joints = [], [], []
        self._joint_path: dict[int, str] = {}
        for robot in self.robots:
            slides = mj.jnt_type == int(self._mujoco.mjtJoint.mjJNT_SLIDE)
            joint_id = _joints_of(robot, by_label, mj.jnt_axis, slides)
            if missing := [path for path in robot.dof_paths if path not in joint_id]:
                raise StageError(
                    f"the simulator did not import {', '.join(missing)}; put a link of its own behind each joint"
                )
            ids = [joint_id[path] for path in robot.dof_paths]
            self._place_joints(robot, joint_id)
            self._joint_path |= dict(zip(ids, robot.dof_paths, strict=True))
            self._qpos.append(np.array([mj.jnt_qposadr[i] for i in ids], int))
            self._qvel.append(np.array([mj.jnt_dofadr[i] for i in ids], int))
            joints.append(ids)
        free = self._mujoco.mjtJoint.mjJNT_FREE
        self._free_qpos = {
            self.body_paths.index(model.body_label[int(to_newton[mj.jnt_bodyid[j]])]): int(mj.jnt_qposadr[j])
            for j in range(mj.njnt)
            if mj.jnt_type[j] == free
        }
        shape_of = solver.mjc_geom_to_newton_shape.numpy().ravel()
        self._geom_owner = [self._owner(int(shape_of[g])) for g in range(mj.ngeom)]
        return joints

    def _place_joints(self, robot: Articulation, joint_id: dict[str, int]) -> None:
        """Several joints of one body turn about places of their own; the importer gives all of them the first one's."""
        mj, moved = self._model, False
        for joint in robot.spec.dof_joints:
            number = joint_id[joint.prim_path]
            if mj.body_jntnum[mj.jnt_bodyid[number]] < 2:
                continue
            axis = joint.T_child_joint[:3, :3] @ np.array(joint.axis)
            if axis @ mj.jnt_axis[number] > 0.99:
                mj.jnt_axis[number], mj.jnt_pos[number], moved = axis, joint.T_child_joint[:3, 3], True
        if moved:
            self._mujoco.mj_setConst(mj, self._data)

    def _owner(self, shape: int) -> str:
        """Prim path that stands for a shape in contacts: its rigid body, or the static prim itself."""
        path = self.shape_paths[shape]
        prim = self.stage.GetPrimAtPath(path)
        body = body_of(prim) if prim else None
        return path if body is None else str(body.GetPath())


def _unheard(_text: str) -> None:
    """A listener of MuJoCo's warnings."""


def _joints_of(robot: Articulation, by_label: dict[str, list[int]], axes: Any, slides: Any) -> dict[str, int]:
    """Joint prim path -> MuJoCo joint. Of several joints of one body the importer makes one, labelled as the first of them,
    with an axis each: they are told apart by what they do and by their axes in the body's frame. It turns the body in the
    order of their paths; where that is another order than the stage's, rotations come out differently: StageError."""
    out: dict[str, int] = {}
    groups: dict[int, list[JointSpec]] = {}
    for joint in robot.spec.dof_joints:
        groups.setdefault(joint.child_link, []).append(joint)
    for group in groups.values():
        ids = next((by_label[joint.prim_path] for joint in group if joint.prim_path in by_label), [])
        if len(group) == 1 or len(ids) != len(group):
            out |= {joint.prim_path: by_label[joint.prim_path][0] for joint in group if joint.prim_path in by_label}
            continue
        left = list(ids)
        for joint in group:
            axis = joint.T_child_joint[:3, :3] @ np.array(joint.axis)
            alike = [i for i in left if bool(slides[i]) == (joint.kind == "prismatic")] or left
            best = max(alike, key=lambda i: abs(float(axes[i] @ axis)))
            out[joint.prim_path] = best
            left.remove(best)
        order = [out[joint.prim_path] for joint in group]
        if order != sorted(order) and any(joint.kind == "revolute" for joint in group):
            paths = ", ".join(joint.prim_path for joint in group)
            raise StageError(
                f"{paths} move one body, and the simulator would turn it in another order than the stage's; "
                "rename them so that their paths sort in that order, slides first"
            )
    return out


def refusal(stage: Usd.Stage, error: Exception, paths: tuple[str, ...]) -> str:
    """Why a stage cannot be simulated, in one sentence that names prims instead of the simulator's own names."""
    reason = " ".join(str(error).split()) or type(error).__name__
    # Newton names MuJoCo's elements after prim paths, with underscores for slashes.
    by_name = {path.replace("/", "_"): path for path in paths}
    for name in sorted(by_name, key=len, reverse=True):
        reason = reason.replace(name, by_name[name])
    return (
        f"{stage_name(stage)} cannot be simulated: {reason} "
        "(correct that prim, or leave it out of the stage that is captured)"
    )


def _triple(v: Float64[np.ndarray, "3"]) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])
