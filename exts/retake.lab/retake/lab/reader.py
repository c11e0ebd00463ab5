# SPDX-License-Identifier: Apache-2.0
"""Numbers of one clone to records, on the writer's thread: it touches neither the simulation nor the stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.capture import PairedFrame
from retake.core.episode import Contact, EpisodeHeader, Frame, PhysicsSamples, RobotState
from retake.core.episode.extra import (
    ACTION,
    QUATERNION_NAMES,
    ROOT_QUATERNION,
    ROOT_VELOCITY,
    VELOCITY_NAMES,
    ExtraWriter,
)
from retake.core.episode.records import JOINT_CHANNELS
from retake.core.errors import EpisodeError
from retake.lab import host
from retake.lab.content import LabContent, LabRobot
from retake.lab.pictures import MountCheck, ViewDecoder
from retake.lab.request import RecordRequest

KINEMATICS_M, KINEMATICS_RAD = 1e-3, 5e-3
"""A link further than this from forward kinematics of the joints means that frames, orders or origins are mixed up."""


@dataclass(frozen=True)
class RawContact:
    """A contact as a sensor of the host gives it: world frame."""

    body_a: str
    body_b: str
    position: np.ndarray
    force: np.ndarray


@dataclass
class RawState:
    """Copies of one clone's numbers at the end of a control step."""

    joints: dict[str, dict[str, np.ndarray]]
    """Robot key → position, velocity, effort (host's joint order), links (B, 7), root (7,), root_velocity (6,)."""
    objects: dict[str, np.ndarray]
    """Object key → (7,) pose, or (M, 7) of a collection."""
    velocities: dict[str, np.ndarray]
    """Object key → (6,) root velocity, or (M, 6)."""
    contacts: tuple[RawContact, ...] = ()
    targets: dict[str, np.ndarray] | None = None
    """Robot key → joint targets commanded after this state, host's joint order; None until they are."""
    action: np.ndarray | None = None
    """As issued after this state, float32; None until it is."""


def make_header(
    content: LabContent, request: RecordRequest, env: Any, stride: int, action_names: tuple[str, ...]
) -> EpisodeHeader:
    """What holds for a whole episode of one clone."""
    step_s, decimation, dt = host.rate_of(env)
    efforts = all(robot.efforts for robot in content.robots)
    lab = {
        "host": host.host_version(),
        "quaternions": content.order,
        "env_name": host.env_name(env),
        "env_id": content.env_id,
        "decimation": decimation,
        "render_interval": int(getattr(env.cfg.sim, "render_interval", 1)),
        "control_step_s": step_s,
        "env_origin_m": content.origin.tolist(),
        "articulations": {
            robot.spec.name: {"key": robot.key, "joints": _joint_order(robot)} for robot in content.robots
        },
        "rigid_objects": {item.spec.name: item.key for item in content.objects if item.key},
        **({"action_names": list(action_names)} if action_names else {}),
        **({"notes": list(content.notes)} if content.notes else {}),
    }
    return EpisodeHeader(
        task=request.task or host.env_name(env),
        fps=1.0 / (step_s * stride),
        physics_dt_s=dt,
        robots=tuple(robot.spec for robot in content.robots),
        cameras=tuple(camera.spec for camera in content.cameras),
        objects=tuple(item.spec for item in content.objects),
        instances=content.instances,
        joint_channels=JOINT_CHANNELS if efforts else tuple(c for c in JOINT_CHANNELS if c != "effort"),
        simulator="isaac-lab",
        simulator_version=host.host_version(),
        stage_sha256=content.stage_sha256,
        seed=request.seed,
        settings={**request.settings, "isaac_lab": lab},
    )


def _joint_order(robot: LabRobot) -> list[str]:
    """Joint names in the host's order; joints of the host that the robot does not have keep their place as numbers."""
    by_column = dict(zip(robot.dofs, robot.spec.dof_names, strict=True))
    return [by_column.get(i, f"#{i}") for i in range(max(robot.dofs, default=-1) + 1)]


class LabStageReader:
    """Implements core's StageReader for one clone; writes the extra rows beside the Episode as well."""

    def __init__(self, header: EpisodeHeader, content: LabContent) -> None:
        self._header, self._content = header, content
        self._views, self._mounts = ViewDecoder(content), MountCheck(content)
        self.extra: ExtraWriter | None = None
        self.action_names: tuple[str, ...] = ()

    @property
    def header(self) -> EpisodeHeader:
        """What holds for the whole episode."""
        return self._header

    def extra_groups(self) -> dict[str, tuple[str, ...]]:
        """Groups of the extra rows: actions as issued, root velocities and orientations."""
        groups = {ACTION: self.action_names} if self.action_names else {}
        bodies = [robot.spec.name for robot in self._content.robots]
        bodies += [item.spec.name for item in self._content.objects if item.key]
        roots = {ROOT_VELOCITY: VELOCITY_NAMES, ROOT_QUATERNION: QUATERNION_NAMES}
        return {**groups, **{prefix + name: columns for name in bodies for prefix, columns in roots.items()}}

    def poses(self, rows: np.ndarray) -> Float64[np.ndarray, "*n 4 4"]:
        """World rows of the host as poses in the clone's own coordinates."""
        return host.local_poses(rows, self._content.origin, self._content.order)

    def decode(self, paired: PairedFrame) -> Frame:
        """One frame. Raises EpisodeError where the host's numbers contradict each other."""
        raw: RawState = paired.state.payload
        states = tuple(self._robot(robot, raw) for robot in self._content.robots)
        objects = self._objects(raw)
        frames = []
        for camera in self._content.cameras:
            view = paired.views[camera.key]
            frames.append(self._views.frame(camera, view))
            if camera.mount is not None:
                kind, _, number = camera.mount[0].partition(" ")
                if kind == "robot":
                    robot = self._content.robots[int(number)]
                    link = robot.links.index(camera.mount[1])
                    pose, name = states[int(number)].T_world_link[link], robot.spec.links[link].name
                else:
                    pose, name = objects[int(number)], self._content.objects[int(number)].spec.name
                self._mounts.check(camera.key, self._views.camera_pose(view), pose, name)
        contacts = tuple(self._contact(contact) for contact in raw.contacts)
        track = None
        if len(objects):
            before = [self._objects(sample.payload) for sample in paired.track[:-1]]
            track = PhysicsSamples(np.array([sample.time_s for sample in paired.track]), np.stack([*before, objects]))
        if self.extra is not None:
            self.extra.append(self._extra_row(raw))
        return Frame(paired.state.time_s, states, objects, tuple(frames), contacts, track)

    def _robot(self, robot: LabRobot, raw: RawState) -> RobotState:
        numbers, dofs = raw.joints[robot.key], list(robot.dofs)
        position = numbers["position"][dofs].astype(np.float64)
        links = self.poses(numbers["links"])[list(robot.links)]
        expected = robot.spec.forward_kinematics(position[None], links[None, robot.spec.root])[0]
        off = np.linalg.norm(links[:, :3, 3] - expected[:, :3, 3], axis=1)
        turned = np.linalg.norm(links[:, :3, :3] - expected[:, :3, :3], axis=(1, 2)) / np.sqrt(2)  # ≈ angle, rad
        worst = int((off / KINEMATICS_M + turned / KINEMATICS_RAD).argmax())
        if off[worst] > KINEMATICS_M or turned[worst] > KINEMATICS_RAD:
            raise EpisodeError(
                f"robot {robot.key!r}: link {robot.spec.links[worst].name!r} lies {off[worst] * 1000:.1f} mm and "
                f"{np.degrees(turned[worst]):.1f}° from where its joints put it (quaternions read as {self._content.order}); "
                "the stage and the simulation describe two robots"
            )
        target = position if raw.targets is None else raw.targets[robot.key][dofs].astype(np.float64)
        # What nothing commands has no target: where it is stands for it.
        driven = np.array(robot.spec.driven, bool)
        effort = numbers["effort"][dofs].astype(np.float64) if "effort" in self._header.joint_channels else None
        return RobotState(
            position, links, robot.spec.gripper_openness(position), numbers["velocity"][dofs].astype(np.float64),
            effort, np.where(driven, target, position),
        )  # fmt: skip

    def _objects(self, raw: RawState) -> Float64[np.ndarray, "O 4 4"]:
        out = np.zeros((len(self._content.objects), 4, 4))
        for i, item in enumerate(self._content.objects):
            out[i] = item.T_env_object if not item.key else self.poses(_row(raw.objects, item.key, item.index))
        return out

    def _contact(self, contact: RawContact) -> Contact:
        position = np.asarray(contact.position, np.float64) - self._content.origin
        force = np.asarray(contact.force, np.float64)
        size = float(np.linalg.norm(force))
        normal = force / size if size > 0 else np.array([0.0, 0.0, 1.0])
        return Contact(contact.body_a, contact.body_b, _triple(position), _triple(normal), _triple(force))

    def _extra_row(self, raw: RawState) -> Mapping[str, np.ndarray]:
        row: dict[str, np.ndarray] = {}
        if self.action_names:
            row[ACTION] = np.full(len(self.action_names), np.nan, np.float32) if raw.action is None else raw.action
        for robot in self._content.robots:
            row[ROOT_VELOCITY + robot.spec.name] = raw.joints[robot.key]["root_velocity"]
            root = raw.joints[robot.key]["links"][robot.links[robot.spec.root]]
            row[ROOT_QUATERNION + robot.spec.name] = self._quaternion(root)
        for item in self._content.objects:
            if item.key:
                row[ROOT_VELOCITY + item.spec.name] = _row(raw.velocities, item.key, item.index)
                row[ROOT_QUATERNION + item.spec.name] = self._quaternion(_row(raw.objects, item.key, item.index))
        return row

    def _quaternion(self, row: np.ndarray) -> np.ndarray:
        """x y z w of a host's pose (7,)."""
        return row[3:7] if self._content.order == host.XYZW else row[[4, 5, 6, 3]]


def _row(rows: Mapping[str, np.ndarray], key: str, index: int) -> np.ndarray:
    return rows[key] if index < 0 else rows[key.partition(".")[0]][index]


def _triple(v: np.ndarray) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])
