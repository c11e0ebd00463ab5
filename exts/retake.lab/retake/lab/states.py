# SPDX-License-Identifier: Apache-2.0
"""Copies of one clone's numbers out of the host's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from retake.lab import host
from retake.lab.content import LabContent
from retake.lab.reader import RawContact, RawState

LEAST_FORCE_N = 1e-6


def read_state(scene: Any, content: LabContent) -> RawState:
    """The state of one clone now. Raises nothing of its own; the reader checks what it gets."""
    env = content.env_id
    joints: dict[str, dict[str, np.ndarray]] = {}
    for robot in content.robots:
        data = scene.articulations[robot.key].data
        one = {
            "position": host.row(data.joint_pos, env),
            "velocity": host.row(data.joint_vel, env),
            "links": _pose(data, "link", env),
            "root_velocity": _root_velocity(data, env),
        }
        if robot.efforts:
            one["effort"] = host.row(host.joint_efforts(scene.articulations[robot.key]), env)
        joints[robot.key] = one
    objects, velocities = read_objects(scene, content)
    return RawState(joints, objects, velocities, read_contacts(scene, content))


def read_objects(scene: Any, content: LabContent) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(poses, root velocities) of the objects of one clone now."""
    env = content.env_id
    objects: dict[str, np.ndarray] = {}
    velocities: dict[str, np.ndarray] = {}
    for item in content.objects:
        if not item.key:
            continue
        if item.index < 0:
            data = scene.rigid_objects[item.key].data
            objects[item.key] = _pose(data, "root", env)
            velocities[item.key] = _root_velocity(data, env)
        else:
            name = item.key.partition(".")[0]
            if name not in objects:
                data = scene.rigid_object_collections[name].data
                objects[name], velocities[name] = _collection(data, env)
    return objects, velocities


def read_targets(scene: Any, content: LabContent) -> dict[str, np.ndarray]:
    """Joint position targets of each robot as the drives have them now, the host's joint order."""
    return {
        robot.key: host.row(host.joint_targets(scene.articulations[robot.key]), content.env_id)
        for robot in content.robots
    }


def read_contacts(scene: Any, content: LabContent) -> tuple[RawContact, ...]:
    """Forces of the scene's contact sensors on their bodies: per partner where a sensor filters, else their sum."""
    out: list[RawContact] = []
    env = content.env_id
    for sensor in scene.sensors.values():
        if not host.is_contact_sensor(sensor):
            continue
        data, names = sensor.data, list(sensor.body_names)
        parent = host.source_path(scene, sensor.cfg.prim_path, content.source).rpartition("/")[0]
        partners = [host.source_path(scene, p, content.source) for p in sensor.cfg.filter_prim_paths_expr]
        matrix = getattr(data, "force_matrix_w", None) if partners else None
        points = getattr(data, "contact_pos_w", None)
        forces = host.row(matrix if matrix is not None else data.net_forces_w, env)
        forces = forces if matrix is not None else forces[:, None]
        places = None if points is None or matrix is None else host.row(points, env)
        for body, row in enumerate(forces):
            path = _body_path(content, names[body], parent)
            for partner, force in enumerate(row):
                if not np.isfinite(force).all() or np.linalg.norm(force) < LEAST_FORCE_N:
                    continue
                place = None if places is None else places[body, partner]
                if place is None or not np.isfinite(place).all():
                    place = _place_of(scene, content, path)
                other = partners[partner] if matrix is not None and partner < len(partners) else "/"
                out.append(RawContact(other, path, place, force))
    return tuple(out)


def _pose(data: Any, kind: str, env: int) -> np.ndarray:
    """(B, 7) or (7,)."""
    return host.row(host.pose_tensor(data, kind), env)[..., :7]


def _root_velocity(data: Any, env: int) -> np.ndarray:
    """As InteractiveScene.get_state gives it: linear and angular velocity of the root, world frame."""
    for name in ("root_vel_w", "root_com_vel_w", "root_link_vel_w"):
        found = getattr(data, name, None)
        if found is not None:
            return host.row(found, env)
    return np.zeros(6, np.float32)


def _collection(data: Any, env: int) -> tuple[np.ndarray, np.ndarray]:
    poses = getattr(data, "body_link_pose_w", None)
    poses = poses if poses is not None else getattr(data, "object_link_pose_w", None)
    speeds = getattr(data, "body_com_vel_w", None)
    speeds = speeds if speeds is not None else getattr(data, "object_com_vel_w", None)
    return host.row(poses, env), host.row(speeds, env)


def _body_path(content: LabContent, name: str, parent: str) -> str:
    """Prim path of a sensor's body, which has the name of its prim: several robots have links of one name, so what lies where the
    sensor does comes first."""
    leaf = name.rpartition("/")[2]
    known = [link.prim_path for robot in content.robots for link in robot.spec.links]
    known += [item.spec.prim_path for item in content.objects]
    named = [path for path in known if path.rpartition("/")[2] == leaf]
    near = [path for path in named if path.startswith(f"{parent}/")]
    return next(iter(near or named), f"{parent}/{leaf}")


def _place_of(scene: Any, content: LabContent, path: str) -> np.ndarray:
    """World position of a body, where a sensor does not say where it is touched."""
    for robot in content.robots:
        for link, row in zip(robot.spec.links, robot.links, strict=True):
            if link.prim_path == path:
                return _pose(scene.articulations[robot.key].data, "link", content.env_id)[row, :3]
    for item in content.objects:
        if item.spec.prim_path != path:
            continue
        if not item.key and item.T_env_object is not None:
            return item.T_env_object[:3, 3] + content.origin
        if item.index < 0:
            return _pose(scene.rigid_objects[item.key].data, "root", content.env_id)[:3]
        data = scene.rigid_object_collections[item.key.partition(".")[0]].data
        return _collection(data, content.env_id)[0][item.index, :3]
    return content.origin
