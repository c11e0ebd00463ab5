# SPDX-License-Identifier: Apache-2.0
"""Instance ids: the renderer numbers prims as it likes, frame by frame; an Episode has one fixed table.

Every robot link, object and piece of scenery gets an id before recording; a rendered id becomes the id of the nearest
table entry above its prim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics

from retake.core.array_types import UInt16
from retake.core.episode import Instance, ObjectSpec
from retake.core.robot import RobotSpec
from retake.usd.bodies import scenery_group
from retake.usd.stage import body_of, label_of, one_pass, prims

OTHER = "/"
"""Entry for prims that appeared after recording began."""


def instance_table(
    stage: Usd.Stage, robots: Sequence[RobotSpec], objects: Sequence[ObjectSpec]
) -> tuple[Instance, ...]:
    """Ids 1.. for links, objects and scenery of a stage, in that order; the last one is for everything else."""
    owners: dict[str, tuple[str, str]] = {}
    for robot in robots:
        for link in robot.links:
            owners[link.prim_path] = (link.name, f"robot:{robot.name}")
    for item in objects:
        owners[item.prim_path] = (item.label, f"object:{item.name}")
    shared: dict[Usd.Prim, Usd.Prim | None] = {}
    """Parent -> what its shapes belong to, where they belong to more than themselves: thousands of shapes, few parents."""
    with one_pass(stage):
        for prim in prims(stage):
            if not UsdGeom.Gprim(prim):
                continue
            parent = prim.GetParent()
            group = prim if prim.HasAPI(UsdPhysics.RigidBodyAPI) else shared.get(parent)
            if group is None:
                group = body_of(prim) or scenery_group(prim)
                shared[parent] = None if group == prim else group
            path = str(group.GetPath())
            if path not in owners:
                owners[path] = (label_of(group), "")
    owners[OTHER] = ("other", "")
    return tuple(
        Instance(number, path, label, owner) for number, (path, (label, owner)) in enumerate(owners.items(), start=1)
    )


class InstanceLookup:
    """Rendered ids (any uint32) to table ids (uint16). Remembers prims, so a frame costs one table look-up."""

    def __init__(self, table: Sequence[Instance]) -> None:
        self._by_path = {instance.prim_path: instance.id for instance in table}
        self._known: dict[str, int] = {}

    def id_of(self, prim_path: str) -> int:
        """Table id of the entry at or above a prim; 0 for background and unlabelled."""
        if not prim_path.startswith("/"):
            return 0
        if prim_path not in self._known:
            path = prim_path
            while path not in self._by_path and path:
                path = path.rpartition("/")[0]
            self._known[prim_path] = self._by_path.get(path, self._by_path.get(OTHER, 0))
        return self._known[prim_path]

    def remap(self, ids: np.ndarray, id_to_path: Mapping[int, str]) -> UInt16[np.ndarray, "H W"]:
        """A rendered id image (H, W) in table ids; ids without a prim are 0."""
        flat = np.ascontiguousarray(ids).reshape(ids.shape[0], ids.shape[1]).view(np.uint32)
        highest = max(id_to_path, default=0)
        if highest < 1 << 20:
            table = np.zeros(highest + 2, np.uint16)
            for key, path in id_to_path.items():
                table[key] = self.id_of(path)
            return table[np.minimum(flat, highest + 1)]
        keys = np.array(sorted(id_to_path), np.uint32)
        values = np.array([self.id_of(id_to_path[int(key)]) for key in keys], np.uint16)
        where = np.minimum(np.searchsorted(keys, flat), len(keys) - 1)
        return np.where(keys[where] == flat, values[where], 0).astype(np.uint16)
