# SPDX-License-Identifier: Apache-2.0
"""What of one clone is recorded: robots, objects, cameras as records, and where their numbers lie in the host's tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pxr import Usd, UsdGeom

from retake.core.array_types import Float64
from retake.core.episode import CameraSpec, Instance, ObjectSpec
from retake.core.episode.records import Channel
from retake.core.errors import InputError, StageError, unknown_name
from retake.core.importers.recorded import folder_name as plain_name
from retake.core.robot import RobotSpec
from retake.lab import host
from retake.lab.request import RecordRequest
from retake.lab.stage import source_of, stage_hash, view_of
from retake.usd.articulation import read_articulations
from retake.usd.bodies import read_object
from retake.usd.camera import camera_prim, read_camera
from retake.usd.instances import OTHER
from retake.usd.stage import body_of, label_of, prims_under
from retake.usd.units import StageUnits, world_pose

OUTPUTS: dict[Channel, tuple[str, ...]] = {
    "rgb": ("rgb", "rgba"),
    "depth": ("distance_to_image_plane", "depth"),
    "normals": ("normals",),
    "instances": (
        "instance_id_segmentation_fast", "instance_segmentation", "instance_segmentation_fast", "instance_id_segmentation",
    ),
}  # fmt: skip
"""Episode channel → data types of a camera that hold it, the best first."""


@dataclass(frozen=True)
class LabRobot:
    """An articulation of the scene."""

    key: str
    """Its name in the scene."""
    spec: RobotSpec
    dofs: tuple[int, ...]
    """Per joint of `spec.dof_names`, its column in the host's joint tensors."""
    links: tuple[int, ...]
    """Per link of the spec, its row in the host's body tensors."""
    efforts: bool
    """Whether the host measures joint efforts."""


@dataclass(frozen=True)
class LabObject:
    """A rigid object of the scene (`index` in a collection of them, else -1), or scenery that never moves (key "")."""

    key: str
    spec: ObjectSpec
    index: int = -1
    T_env_object: Float64[np.ndarray, "4 4"] | None = None
    """Of scenery, in the clone's coordinates, m."""


@dataclass(frozen=True)
class LabCamera:
    """A camera of the scene."""

    key: str
    spec: CameraSpec
    outputs: dict[Channel, str]
    """Channel → the data type it is read from."""
    mount: tuple[str, int] | None
    """What carries it: ("robot 0", row of the link) or ("object 1", 0); None = fixed."""
    far_m: float


@dataclass(frozen=True)
class LabContent:
    """One clone."""

    env_id: int
    source: str
    """Prim path of the clone that was read for it."""
    prefix: str
    """Prim path of the clone itself."""
    origin: Float64[np.ndarray, "3"]
    """World position of the clone's origin, m: what poses are relative to."""
    order: str
    """Of the host's quaternions."""
    robots: tuple[LabRobot, ...]
    objects: tuple[LabObject, ...]
    cameras: tuple[LabCamera, ...]
    instances: tuple[Instance, ...]
    stage_sha256: str
    notes: tuple[str, ...] = ()


def read_content(env: Any, request: RecordRequest, env_id: int) -> LabContent:
    """What is recorded of clone `env_id`. Raises StageError or InputError naming what is missing and what there is."""
    scene, stage = env.scene, env.sim.stage
    order = host.quaternion_order(scene)
    source = source_of(scene, stage, env_id)
    view = view_of(scene, stage, source)
    units = StageUnits.of(view)
    robots, notes = _robots(scene, view, source, request)
    objects = (*_objects(scene, view, source, units), *_scenery(view, source, units, request.scenery))
    mounts = {link.prim_path: (f"robot {r}", row) for r, item in enumerate(robots)
              for link, row in zip(item.spec.links, item.links, strict=True)}  # fmt: skip
    mounts |= {item.spec.prim_path: (f"object {o}", 0) for o, item in enumerate(objects) if item.key}
    cameras = _cameras(scene, view, source, request, mounts)
    root = str(getattr(scene, "env_ns", "/World/envs"))
    return LabContent(
        env_id, source, f"{root}/env_{env_id}", host.array(scene.env_origins)[env_id].astype(np.float64), order, robots,
        objects, cameras, _instances(view, source, robots, objects), stage_hash(stage), notes,
    )  # fmt: skip


def _robots(
    scene: Any, view: Usd.Stage, source: str, request: RecordRequest
) -> tuple[tuple[LabRobot, ...], tuple[str, ...]]:
    known = scene.articulations
    for name in request.robots:
        if name not in known:
            raise InputError(unknown_name("robot of the scene", name, known))
    out, notes = [], []
    for key in request.robots or known:
        asset = known[key]
        try:
            path = host.source_path(scene, asset.cfg.prim_path, source)
            found = read_articulations(view, [path])
            if len(found) != 1:
                raise StageError(f"{path} holds {len(found)} articulations; expected one")
            out.append(_robot(key, asset, found[0].spec))
        except StageError as error:
            if key in request.robots:
                raise
            notes.append(f"articulation {key!r} left out: {error}")
    if not out:
        raise StageError("; ".join(notes) or "the environment's scene has no articulation; there is no robot to record")
    return tuple(out), tuple(notes)


def _robot(key: str, asset: Any, spec: RobotSpec) -> LabRobot:
    """A robot with its joints and links found in the host's tensors by name: their order is the host's own."""
    joints, bodies = list(asset.joint_names), list(asset.body_names)
    leaf = {joint.name: joint.prim_path.rpartition("/")[2] for joint in spec.dof_joints}
    dofs = [_index(joints, (name, leaf[name])) for name in spec.dof_names]
    links = [_index(bodies, (link.prim_path.rpartition("/")[2], link.name)) for link in spec.links]
    lost = [n for n, i in zip(spec.dof_names, dofs, strict=True) if i < 0]
    lost += [link.name for link, i in zip(spec.links, links, strict=True) if i < 0]
    if lost:
        raise StageError(
            f"robot {key!r}: the stage has {', '.join(lost[:6])}, which the simulation does not know; it has the joints "
            f"{', '.join(joints[:12])} and the bodies {', '.join(bodies[:12])}"
        )
    groups = getattr(asset.cfg, "actuators", None)
    patterns = [p for group in groups.values() for p in group.joint_names_expr] if isinstance(groups, dict) else []
    moved = {name for name in joints if any(re.fullmatch(pattern, name) for pattern in patterns)}
    if moved:
        by_name = {name: joints[i] in moved for name, i in zip(spec.dof_names, dofs, strict=True)}
        spec = replace(
            spec, joints=tuple(replace(j, driven=by_name.get(j.name, True) and j.mimic is None) for j in spec.joints)
        )
    efforts = host.joint_efforts(asset) is not None
    return LabRobot(key, replace(spec, name=plain_name(key)), tuple(dofs), tuple(links), efforts)


def _index(names: list[str], wanted: Iterable[str]) -> int:
    return next((names.index(name) for name in wanted if name in names), -1)


def _objects(scene: Any, view: Usd.Stage, source: str, units: StageUnits) -> tuple[LabObject, ...]:
    paths: list[tuple[str, str, int]] = [(key, asset.cfg.prim_path, -1) for key, asset in scene.rigid_objects.items()]
    for key, collection in getattr(scene, "rigid_object_collections", {}).items():
        members = collection.cfg.rigid_objects
        paths += [(f"{key}.{name}", members[name].prim_path, i) for i, name in enumerate(members)]
    out = []
    for key, pattern, index in paths:
        prim = view.GetPrimAtPath(host.source_path(scene, pattern, source))
        body = next((p for p in prims_under(prim) if body_of(p) == p), None) if prim else None
        if body is None:
            continue  # of another kind of clone, or no rigid body in USD
        item = read_object(body, units, movable=True)
        out.append(LabObject(key, replace(item.spec, name=plain_name(key)), index))
    return tuple(out)


def _scenery(view: Usd.Stage, source: str, units: StageUnits, names: tuple[str, ...]) -> tuple[LabObject, ...]:
    clone = view.GetPrimAtPath(source)
    origin = world_pose(clone, units)[:3, 3]
    known = {child.GetName(): child for child in clone.GetChildren()}
    lower = {name.lower(): prim for name, prim in known.items()}
    out = []
    for name in names:
        prim = known.get(name) or lower.get(name.lower())
        if prim is None:
            raise InputError(unknown_name("scenery of the scene", name, known))
        item = read_object(prim, units, movable=False)
        T = item.T_world_object.copy()
        T[:3, 3] -= origin
        out.append(LabObject("", replace(item.spec, name=plain_name(name)), -1, T))
    return tuple(out)


def _cameras(
    scene: Any, view: Usd.Stage, source: str, request: RecordRequest, mounts: dict[str, tuple[str, int]]
) -> tuple[LabCamera, ...]:
    known = host.cameras_of(scene)
    if not known:
        raise InputError(
            "the environment's scene has no camera; add a CameraCfg to it, or let `--look NAME=EYE:TARGET` add one"
        )
    out = []
    for name in request.cameras or known:
        if name not in known:
            raise InputError(unknown_name("camera of the scene", name, known))
        sensor = known[name]
        types = list(sensor.cfg.data_types)
        outputs: dict[Channel, str] = {}
        for channel in request.channels:
            kind = next((t for t in OUTPUTS[channel] if t in types), None)
            if kind is None:
                raise InputError(
                    f"camera {name!r} delivers {', '.join(types)}; {channel} needs data_types with one of "
                    f"{', '.join(OUTPUTS[channel])} (retake.lab.prepare(cfg) adds them), or record without {channel}"
                )
            outputs[channel] = kind
        path = host.source_path(scene, sensor.cfg.prim_path, source)
        height, width = (int(n) for n in sensor.image_shape)
        prim = camera_prim(view, path)
        read = read_camera(prim, (width, height))
        spec = CameraSpec(
            plain_name(name), path, (width, height), read.body_path is None,
            tuple(outputs), read.near_far_m, read.lens,
        )  # fmt: skip
        mount = mounts.get(read.body_path) if read.body_path else None
        out.append(LabCamera(name, spec, outputs, mount, read.near_far_m[1]))
    return tuple(out)


def _instances(
    view: Usd.Stage, source: str, robots: tuple[LabRobot, ...], objects: tuple[LabObject, ...]
) -> tuple[Instance, ...]:
    """Ids for links, objects, everything else that stands in the clone or beside the clones, and for what is unknown."""
    owners: dict[str, tuple[str, str]] = {}
    for robot in robots:
        for link in robot.spec.links:
            owners[link.prim_path] = (link.name, f"robot:{robot.spec.name}")
    for item in objects:
        owners[item.spec.prim_path] = (item.spec.label, f"object:{item.spec.name}")
    clone = view.GetPrimAtPath(source)
    for child in clone.GetChildren():
        path = str(child.GetPath())
        inside = sorted({owner for at, (_, owner) in owners.items() if at.startswith(f"{path}/") and owner})
        # An asset that only its root names in a segmentation is its robot's or object's as a whole.
        owners.setdefault(path, (label_of(child), inside[0] if len(inside) == 1 else ""))
    root = source.rpartition("/")[0]
    for prim in view.Traverse():
        path = str(prim.GetPath())
        if path.startswith(f"{root}/") or root.startswith(f"{path}/") or path == root:
            continue
        if UsdGeom.Gprim(prim):
            above = prim
            while str(above.GetParent().GetPath()) not in ("/", "/World"):
                above = above.GetParent()
            owners.setdefault(str(above.GetPath()), (label_of(above), ""))
    owners[OTHER] = ("other", "")
    return tuple(Instance(i, path, label, owner) for i, (path, (label, owner)) in enumerate(owners.items(), start=1))
