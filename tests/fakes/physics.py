# SPDX-License-Identifier: Apache-2.0
"""Tensor views as PhysX and Newton hand them out: reused buffers, an order of their own, dead after Stop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from fakes.strict import Strict

if TYPE_CHECKING:
    from fakes.kit import FakeKit


class _Tensor:
    """A warp or torch array as far as Retake may use it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def numpy(self) -> np.ndarray:
        """Host copy."""
        return self._array.copy()

    @property
    def dtype(self) -> Any:
        """Warp's type, where warp is installed."""
        try:
            import warp
        except ImportError:
            return self._array.dtype
        return {"float32": warp.float32, "int32": warp.int32}[str(self._array.dtype)]

    @property
    def device(self) -> str:
        """Where it lives."""
        return "cpu"


class _Articulation:
    """PhysX's view of some robots. The same buffers every call."""

    def __init__(self, kit: FakeKit, indices: list[int]) -> None:
        self._kit, self._indices, self._generation = kit, indices, kit.generation
        spec = kit.motion.robots[indices[0]].spec
        self.count = len(indices)
        self.is_homogeneous = len({kit.motion.robots[i].spec.dof_names for i in indices}) == 1
        # PhysX has its own link and joint order: breadth first here, which differs from the spec's.
        self.link_order = list(reversed(range(len(spec.links))))
        self.dof_order = list(range(len(spec.dof_names)))[::-1]
        self.shared_metatype = Strict(
            kit.version,
            "omni.physics.tensors.ArticulationMetatype",
            SimpleNamespace(
                # The prims' own names, whatever a specification shows to people.
                link_names=[spec.links[i].prim_path.rsplit("/", 1)[-1] for i in self.link_order],
                dof_names=[spec.dof_joints[i].prim_path.rsplit("/", 1)[-1] for i in self.dof_order],
            ),
        )
        self.prim_paths = [kit.motion.robots[i].spec.prim_path for i in indices]
        self.link_paths = [[kit.motion.robots[i].spec.links[j].prim_path for j in self.link_order] for i in indices]
        self._buffers: dict[str, np.ndarray] = {}
        self._tables: dict[str, np.ndarray] = {}

    def check(self) -> bool:
        """Whether the prims are still there."""
        return self._alive()

    def _alive(self) -> bool:
        gone = self._kit.deleted and any(p.startswith(d) for d in self._kit.deleted for p in self.prim_paths)
        return self._generation == self._kit.generation and not gone

    def _read(self, name: str, table: list[np.ndarray], order: list[int], getter: str) -> Any:
        if not self._alive() or getter in self._kit.missing_getters:
            raise Exception(f"Failed to get {name} from backend")
        kit = self._kit
        row = kit.row if kit.options.state_filter is None else kit.options.state_filter(kit.row)
        if name not in self._tables:
            self._tables[name] = np.stack([table[i][:, order] for i in self._indices], 1)
            self._buffers[name] = np.empty_like(self._tables[name][0])
        buffer = self._buffers[name]
        buffer[...] = self._tables[name][row]
        return _Tensor(buffer) if kit.version == "6.x" else buffer

    def get_link_transforms(self) -> Any:
        """(count, links, 7) xyzw."""
        return self._read("link transforms", self._kit.motion.links, self.link_order, "get_link_transforms")

    def get_dof_positions(self) -> Any:
        """(count, dofs)."""
        return self._read("dof positions", self._kit.motion.q, self.dof_order, "get_dof_positions")

    def get_dof_velocities(self) -> Any:
        """(count, dofs)."""
        return self._read("dof velocities", self._kit.motion.dq, self.dof_order, "get_dof_velocities")

    def get_dof_projected_joint_forces(self) -> Any:
        """(count, dofs)."""
        return self._read("joint forces", self._kit.motion.effort, self.dof_order, "get_dof_projected_joint_forces")

    def get_dof_position_targets(self) -> Any:
        """(count, dofs)."""
        return self._read("dof targets", self._kit.motion.target, self.dof_order, "get_dof_position_targets")

    def set_dof_position_targets(self, data: Any, indices: Any) -> None:
        """Remembered for tests, in PhysX's own order."""
        rows = indices.numpy() if hasattr(indices, "numpy") else np.asarray(indices)
        assert rows.tolist() == list(range(self.count))
        assert rows.dtype == np.int32
        targets = data.numpy() if hasattr(data, "numpy") else np.asarray(data)
        assert targets.shape == (self.count, len(self.dof_order))
        assert targets.dtype == np.float32
        self._kit.settings["commanded"] = targets
        self._kit.commanded.append(
            {path: row[np.argsort(self.dof_order)] for path, row in zip(self.prim_paths, targets, strict=True)}
        )


class _Bodies:
    def __init__(self, kit: FakeKit, rows: list[int]) -> None:
        self._kit, self._rows, self._generation = kit, rows, kit.generation
        self.prim_paths = [kit.motion.object_paths[i] for i in rows]
        self.count = len(rows)
        self._poses = kit.motion.objects[:, rows]

    def get_transforms(self) -> Any:
        """(count, 7) xyzw."""
        gone = any(path.startswith(d) for d in self._kit.deleted for path in self.prim_paths)
        if gone or self._generation != self._kit.generation:
            raise Exception("Failed to get rigid body transforms from backend")
        kit = self._kit
        row = kit.row if kit.options.state_filter is None else kit.options.state_filter(kit.row)
        array = self._poses[row].copy()
        return _Tensor(array) if kit.version == "6.x" else array


class View:
    """A simulation view: articulations and rigid bodies by exact paths."""

    def __init__(self, kit: FakeKit) -> None:
        self._kit = kit

    def set_subspace_roots(self, pattern: str) -> None:
        """Nothing to do."""

    def create_articulation_view(self, pattern: Any) -> Any:
        """By exact paths."""
        paths = [pattern] if isinstance(pattern, str) else list(pattern)
        known = [robot.spec.prim_path for robot in self._kit.motion.robots]
        if any(p not in known or any(p.startswith(d) for d in self._kit.deleted) for p in paths):
            return None
        view = _Articulation(self._kit, [known.index(p) for p in paths])
        return Strict(self._kit.version, "omni.physics.tensors.ArticulationView", view)

    def create_rigid_body_view(self, pattern: Any) -> Any:
        """By exact paths."""
        paths = [p for p in ([pattern] if isinstance(pattern, str) else pattern) if p in self._kit.motion.object_paths]
        view = _Bodies(self._kit, [self._kit.motion.object_paths.index(p) for p in paths])
        return Strict(self._kit.version, "omni.physics.tensors.RigidBodyView", view)
