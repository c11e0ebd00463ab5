# SPDX-License-Identifier: Apache-2.0
"""Robot and object state through PhysX tensor views: one call per quantity for all links of all robots.

Views hand out the same buffer every call, so everything is copied, and nothing more is done in the callback. Poses are
(x, y, z, qx, qy, qz, qw) in stage units; what they mean is decided later, off the simulation thread (`decode`). Views
die at Stop: `open()` again after Play.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from retake.core.errors import StageError
from retake.core.robot import RobotSpec
from retake.isaac.kit import optional, require


@dataclass(frozen=True)
class RawRobot:
    """One robot after one step, in the simulator's units and the specification's order; arrays are copies."""

    position: np.ndarray
    """(D,) rad or stage units."""
    velocity: np.ndarray
    effort: np.ndarray | None
    """(D,) measured, stage units; None where the engine measures none."""
    target: np.ndarray
    """(D,) position target the drives are following."""
    links: np.ndarray
    """(L, 7) x, y, z, qx, qy, qz, qw in the stage's world."""


@dataclass(frozen=True)
class _RobotRows:
    """Where one robot lives in a view's arrays."""

    view: int
    row: int
    dofs: np.ndarray
    links: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """One array of the simulator, kept as bytes: it is looked at on the writer's thread."""

    data: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The array (read only)."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


def snapshot(array: Any) -> Snapshot:
    """A copy of a numpy, torch or warp array as it is now.

    `tobytes` and not a copy or an index: numpy gives the interpreter lock away for those, and the simulation would wait
    up to a switch interval (5 ms) for the threads that encode pictures.
    """
    found = to_numpy(array)
    return Snapshot(found.tobytes(), found.dtype, found.shape)


class RawState:
    """Everything read after one physics step. Views are put into the specification's order when somebody asks."""

    def __init__(
        self, views: Sequence[Sequence[Snapshot]], rows: Sequence[_RobotRows], objects: Snapshot | None,
        object_rows: np.ndarray, contacts: tuple[Any, ...] = (),
    ) -> None:  # fmt: skip
        self._views, self._rows, self._objects, self._object_rows = views, rows, objects, object_rows
        self.contacts = contacts

    @cached_property
    def robots(self) -> tuple[RawRobot, ...]:
        """Per robot, in the order of its specification."""
        arrays = [[part.array() for part in view] for view in self._views]
        out = []
        for rows in self._rows:
            q, dq, target, links, *more = (array[rows.row] for array in arrays[rows.view])
            effort = more[0][rows.dofs] if more else None
            out.append(RawRobot(q[rows.dofs], dq[rows.dofs], effort, target[rows.dofs], links[rows.links]))
        return tuple(out)

    @cached_property
    def objects(self) -> np.ndarray:
        """(M, 7) movable objects."""
        return np.zeros((0, 7), np.float32) if self._objects is None else self._objects.array()[self._object_rows]


def to_numpy(array: Any) -> np.ndarray:
    """numpy, torch (any device) or warp array as numpy, without a copy where possible."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "detach"):
        return array.detach().cpu().numpy()
    return np.asarray(array.numpy())


def simulation_view() -> Any:
    """The physics simulation view of this Isaac Sim. Raises StageError while the simulation is not playing."""
    manager = getattr(optional("isaacsim.core.simulation_manager"), "SimulationManager", None)
    for call in ("get_physics_simulation_view", "get_physics_sim_view"):
        if manager is not None and hasattr(manager, call):
            view = getattr(manager, call)()
            if view is not None:
                return view
    tensors = require("omni.physics.tensors")
    try:
        view = tensors.create_simulation_view("numpy")
    except Exception:  # a GPU pipeline refuses the numpy frontend
        view = tensors.create_simulation_view("warp")
    if view is None:
        raise StageError("there is no physics simulation to read; press Play first")
    view.set_subspace_roots("/")
    return view


class TensorReader:
    """Reads the state of some robots and objects after a step. `open()` needs a playing simulation."""

    def __init__(self, robots: Sequence[RobotSpec], object_paths: Sequence[str]) -> None:
        self.robots, self.object_paths = tuple(robots), tuple(object_paths)
        self._views: list[Any] = []
        self._rows: list[_RobotRows] = []
        self._objects: Any = None
        self._getters: list[tuple[Any, ...]] = []
        self._object_rows = np.zeros(0, int)
        self.has_efforts = True
        """Whether the engine measures joint efforts (Newton in Isaac Sim 6.0.1 does not)."""
        self.notes: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether views exist."""
        return bool(self._views) or self._objects is not None

    def open(self) -> None:
        """Create the views. Raises StageError naming the prim that physics does not know."""
        self.close()
        simulation = simulation_view()
        paths = [robot.prim_path for robot in self.robots]
        together = _articulations(simulation, paths) if len(paths) > 1 else None
        places = None if together is None or not together.is_homogeneous else _places(self.robots, together)
        if places is not None:
            self._views = [together]
            self._rows = [_rows(robot, together, 0, row) for robot, row in zip(self.robots, places, strict=True)]
        else:
            for index, robot in enumerate(self.robots):
                view = _articulations(simulation, robot.prim_path)
                if view is None:
                    raise StageError(
                        f"physics has no articulation at {robot.prim_path}; is it enabled, and is the simulation playing?"
                    )
                self._views.append(view)
                self._rows.append(_rows(robot, view, index, 0))
        if self.object_paths:
            view = simulation.create_rigid_body_view(list(self.object_paths))
            known = [] if view is None else [str(path) for path in view.prim_paths]
            if missing := [path for path in self.object_paths if path not in known]:
                raise StageError(f"physics has no rigid body at {', '.join(missing)}; is it enabled and simulated?")
            self._objects, self._object_rows = view, np.array([known.index(p) for p in self.object_paths])
        missing = [reason for view in self._views if (reason := _refusal(view.get_dof_projected_joint_forces))]
        self.has_efforts = not missing
        self.notes = [f"the episode has no joint efforts: {missing[0]} (physics engine: {engine()})"] if missing else []
        self._getters = [
            (
                view.get_dof_positions, view.get_dof_velocities, view.get_dof_position_targets, view.get_link_transforms,
                *([view.get_dof_projected_joint_forces] if self.has_efforts else []),
            )
            for view in self._views
        ]  # fmt: skip

    def read(self, contacts: tuple[Any, ...] = ()) -> RawState:
        """The current state, copied. Raises StageError when a prim behind a view has gone."""
        try:
            views = [[snapshot(get()) for get in getters] for getters in self._getters]
            objects = None if self._objects is None else snapshot(self._objects.get_transforms())
        except Exception as error:
            raise StageError(
                f"the simulator no longer gives the state of {', '.join(r.prim_path for r in self.robots)} "
                f"and {len(self.object_paths)} objects ({error}); was a prim deleted, or the simulation stopped?"
            ) from error
        return RawState(views, self._rows, objects, self._object_rows, contacts)

    def command(self, joints: Sequence[tuple[int, int]], targets: Any, metres_per_unit: float) -> None:
        """Set position targets (rad, m) of some (robot, degree of freedom); all others keep theirs."""
        tables: dict[int, np.ndarray[Any, Any]] = {}
        for (robot, dof), value in zip(joints, targets, strict=True):
            rows = self._rows[robot]
            if rows.view not in tables:
                tables[rows.view] = to_numpy(self._views[rows.view].get_dof_position_targets()).copy()
            turns = self.robots[robot].dof_joints[dof].kind == "revolute"
            tables[rows.view][rows.row, rows.dofs[dof]] = value if turns else value / metres_per_unit
        for index, data in tables.items():
            view = self._views[index]
            view.set_dof_position_targets(_like(view.get_dof_position_targets(), data), _rows_like(view, data))

    def close(self) -> None:
        """Forget the views (they are invalid after Stop anyway)."""
        self._views, self._rows, self._objects, self._getters = [], [], None, []


def engine() -> str:
    """Name of the physics engine that is active: physx where nobody says otherwise."""
    manager = getattr(optional("isaacsim.core.simulation_manager"), "SimulationManager", None)
    ask = getattr(manager, "get_active_physics_engine", None)
    return "physx" if ask is None else str(ask())


def _refusal(getter: Any) -> str:
    """Why an engine does not answer a getter; empty where it does."""
    try:
        return "" if getter() is not None else "the engine answers with nothing"
    except Exception as error:
        return str(error) or type(error).__name__


def _like(sample: Any, data: np.ndarray[Any, Any]) -> Any:
    """numpy data in the array type that a view speaks (numpy, torch or warp)."""
    if isinstance(sample, np.ndarray):
        return data
    if hasattr(sample, "detach"):
        return sample.new_tensor(data)
    warp = optional("warp")
    if warp is None:
        return data
    return warp.array(data, dtype=sample.dtype, device=sample.device)


def _rows_like(view: Any, data: np.ndarray[Any, Any]) -> Any:
    """All row numbers of a view, in its array type."""
    rows = np.arange(len(data), dtype=np.int32)
    sample = view.get_dof_position_targets()
    if isinstance(sample, np.ndarray):
        return rows
    if hasattr(sample, "detach"):
        return sample.new_tensor(rows).int()
    warp = optional("warp")
    return rows if warp is None else warp.array(rows, dtype=warp.int32, device=sample.device)


def _articulations(simulation: Any, pattern: str | list[str]) -> Any | None:
    try:
        view = simulation.create_articulation_view(pattern)
    except Exception:
        return None
    if view is None or not view.check():
        return None
    return view


def _places(robots: Sequence[RobotSpec], view: Any) -> list[int] | None:
    """Row of each robot in a view of all of them; None where the view does not tell them apart.

    By the links' paths first: a view may name an articulation by the prim that carries its root, which is not always the
    robot's own.
    """
    links = [set(_paths(view.link_paths, row)) for row in range(len(view.link_paths or ()))]
    named = [str(path) for path in view.prim_paths]
    places = []
    for robot in robots:
        mine = {link.prim_path for link in robot.links}
        found = [row for row, paths in enumerate(links) if mine <= paths]
        found = found or [row for row, path in enumerate(named) if path == robot.prim_path]
        if len(found) != 1:
            return None
        places.append(found[0])
    return places


def _rows(robot: RobotSpec, view: Any, index: int, row: int) -> _RobotRows:
    """Order of a robot's links and joints inside a view, by prim path where the view knows paths, else by prim name.

    A specification's names are for people; physics has the prims' own.
    """
    meta = view.shared_metatype
    links = [link.prim_path for link in robot.links]
    joints = [joint.prim_path or joint.name for joint in robot.dof_joints]
    links = _order(robot, "link", links, _names(links), _paths(view.link_paths, row), list(meta.link_names))
    dof_paths = _paths(getattr(view, "dof_paths", None), row)
    dofs = _order(robot, "joint", joints, _names(joints), dof_paths, list(meta.dof_names))
    return _RobotRows(index, row, dofs, links)


def _names(paths: list[str]) -> list[str]:
    return [path.rsplit("/", 1)[-1] for path in paths]


def _paths(table: Any, row: int) -> list[str]:
    if not table or len(table) <= row:
        return []
    return [str(path) for path in table[row]]


def _order(
    robot: RobotSpec, kind: str, paths: list[str], names: list[str], view_paths: list[str], view_names: list[str]
) -> np.ndarray:
    wanted, found = (paths, view_paths) if set(paths) <= set(view_paths) else (names, view_names)
    if missing := [name for name in wanted if name not in found]:
        raise StageError(
            f"robot {robot.name!r}: physics knows no {kind} {', '.join(missing)}; it has {', '.join(found) or 'none'}"
        )
    if len(set(wanted)) != len(wanted):
        twice = sorted({name for name in wanted if wanted.count(name) > 1})
        raise StageError(
            f"robot {robot.name!r}: physics tells {kind}s by name, and two are named {', '.join(twice)}; rename one of the prims"
        )
    return np.array([found.index(name) for name in wanted], int)
