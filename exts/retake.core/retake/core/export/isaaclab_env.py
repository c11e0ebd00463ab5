# SPDX-License-Identifier: Apache-2.0
"""What an environment of Isaac Lab calls things: which names and orders an exported HDF5 must have to be replayed there.

An Episode that retake.lab recorded, or that was imported from Isaac Lab, says so itself; for others a YAML file states it:

env_name: My-Task-v0
articulations: {robot: {robot: panda, joints: [panda_joint1, …]}}   # scene name: robot of the Episode, joints in its order
rigid_objects: {cube: packet}                                       # scene name: object of the Episode
observations: {joint_pos: joint_position, cube_pos: "object_position:packet"}
actions: [{name: arm, joints: [panda_joint1, …], scale: 1.0, offset: 0.0}]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64
from retake.core.config import load_yaml
from retake.core.episode import Episode
from retake.core.episode.extra import ACTION, ROOT_QUATERNION, ROOT_VELOCITY, extra_of
from retake.core.errors import ExportError, InputError, unknown_name
from retake.core.geometry import wxyz_from_rotation

SOURCES = (
    "joint_position",
    "joint_velocity",
    "object_position",
    "object_pose",
    "ee_position",
    "ee_pose",
    "gripper",
    "last_action",
)
SAME_TURN = 1e-6
"""A recorded quaternion is of the recorded pose if |q·p| is this close to 1 (within 0.2°)."""
KEYS = ("env_name", "articulations", "rigid_objects", "observations", "actions")


@dataclass(frozen=True)
class LabTarget:
    """Which Isaac Lab a file is for."""

    version: int = 3
    """3: quaternions x y z w, stamped format_version 1. 2: w x y z, unstamped, as its own files are."""
    env_name: str = ""
    """As `env_args` shall name it; empty = what the environment file or the Episode says."""
    environment: Path | None = None
    """YAML that states an environment."""

    def __post_init__(self) -> None:
        if self.version not in (2, 3):
            raise InputError(f"--isaaclab is {self.version}; expected 2 or 3")

    @property
    def order(self) -> str:
        """Of quaternions in the file."""
        return "xyzw" if self.version == 3 else "wxyz"


@dataclass(frozen=True)
class ActionTerm:
    """Absolute joint positions of an environment's action term: target = offset + scale · action."""

    name: str
    joints: tuple[str, ...]
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class StatedEnvironment:
    """Names and orders of one environment."""

    env_name: str = ""
    articulations: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Scene name → robot of the Episode, joints in the scene's order."""
    rigid_objects: dict[str, str] = field(default_factory=dict)
    """Scene name → object of the Episode."""
    observations: dict[str, str] = field(default_factory=dict)
    actions: tuple[ActionTerm, ...] = ()


def environment_of(episode: Episode, target: LabTarget) -> StatedEnvironment:
    """The environment of an Episode's export. Raises InputError or ExportError naming what does not fit."""
    header = episode.header
    robots = {robot.name: robot for robot in header.robots}
    told = header.settings.get("isaac_lab") or header.settings.get("imported")
    told = told if isinstance(told, dict) else {}
    stated = read_environment(target.environment) if target.environment else StatedEnvironment()
    arms = dict(stated.articulations)
    if not arms:
        named = told.get("articulations")
        named = named if isinstance(named, dict) else {}
        for name, robot in robots.items():
            found = named.get(name, {})
            joints = tuple(str(j) for j in found.get("joints", ()))
            arms[str(found.get("key") or name)] = (name, joints or robot.dof_names)
    objects = dict(stated.rigid_objects)
    if not objects:
        named = told.get("rigid_objects")
        named = named if isinstance(named, dict) else {}
        objects = {str(named.get(o.name) or o.name): o.name for o in header.objects if o.movable}
    for key, (name, joints) in arms.items():
        if name not in robots:
            raise InputError(unknown_name(f"robot of articulation {key!r}", name, robots))
        if set(joints) != set(robots[name].dof_names):
            lacking = sorted(set(robots[name].dof_names) ^ set(joints))
            raise ExportError(
                f"articulation {key!r} has the joints {', '.join(joints)}; robot {name!r} differs in {', '.join(lacking)}"
            )
    known = {o.name for o in header.objects}
    for key, name in objects.items():
        if name not in known:
            raise InputError(unknown_name(f"object of rigid object {key!r}", name, known))
    env_name = target.env_name or stated.env_name or str(told.get("env_name") or "")
    return StatedEnvironment(env_name, arms, objects, stated.observations, stated.actions)


def require_environment(episode: Episode, target: LabTarget) -> None:
    """Raise InputError or ExportError for an environment that the Episode does not fit: its names, orders, observations."""
    environment = environment_of(episode, target)
    for source in environment.observations.values():
        observation(episode, environment, source, np.zeros((len(episode), 1)))
    _joints_of_terms(episode, environment)


def _joints_of_terms(episode: Episode, environment: StatedEnvironment) -> list[tuple[ActionTerm, str, int]]:
    """(term, robot, joint) of every number of the stated action. Raises InputError."""
    known = {
        joint: (robot.name, robot.dof_index(joint)) for robot in episode.header.robots for joint in robot.dof_names
    }
    for term in environment.actions:
        if lacking := [joint for joint in term.joints if joint not in known]:
            raise InputError(unknown_name(f"joint of action term {term.name!r}", lacking[0], known))
    return [(term, *known[joint]) for term in environment.actions for joint in term.joints]


def read_environment(path: Path) -> StatedEnvironment:
    """A YAML file that states an environment. Raises InputError naming the key that is wrong."""
    if not path.is_file():
        raise InputError(f"environment file {path} does not exist; expected YAML with {', '.join(KEYS)}")
    data = load_yaml(path) or {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping with {', '.join(KEYS)}")
    if unknown := [key for key in data if key not in KEYS]:
        raise InputError(f"{path}: {unknown_name('key', str(unknown[0]), KEYS)}")
    try:
        arms = {
            str(key): (str(value["robot"]), tuple(map(str, value["joints"])))
            for key, value in (data.get("articulations") or {}).items()
        }
        terms = tuple(
            ActionTerm(
                str(t["name"]), tuple(map(str, t["joints"])), float(t.get("scale", 1)), float(t.get("offset", 0))
            )
            for t in data.get("actions") or ()
        )
        objects = {str(k): str(v) for k, v in (data.get("rigid_objects") or {}).items()}
        seen = {str(k): str(v) for k, v in (data.get("observations") or {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error!r}; articulations have robot and joints, actions name and joints") from error
    for source in seen.values():
        if source.partition(":")[0] not in SOURCES:
            raise InputError(f"{path}: {unknown_name('observation', source, SOURCES)}")
    if any(term.scale == 0 for term in terms):
        raise InputError(f"{path}: an action term has scale 0; its actions could not be told")
    return StatedEnvironment(str(data.get("env_name") or ""), arms, objects, seen, terms)


def root_velocity(episode: Episode, name: str, poses: Float64[np.ndarray, "T 4 4"]) -> Float64[np.ndarray, "T 6"]:
    """Linear (m/s) and angular (rad/s) velocity of a body, world frame: recorded, else differences of its poses."""
    recorded = extra_of(episode).get(ROOT_VELOCITY + name)
    return velocity_of(poses, episode.header.fps) if recorded is None else recorded[1].astype(np.float64)


def root_quaternion(episode: Episode, name: str, poses: Float64[np.ndarray, "T 4 4"]) -> Float64[np.ndarray, "T 4"]:
    """Orientations (x y z w) of a body, with the signs that the simulator had where they were recorded; else without jumps
    of the sign from frame to frame, and w ≥ 0 in the first."""
    q = wxyz_from_rotation(poses[:, :3, :3])[:, [1, 2, 3, 0]]
    recorded = extra_of(episode).get(ROOT_QUATERNION + name)
    if recorded is not None:
        held = recorded[1].astype(np.float64)
        same = np.abs((held * q).sum(1)) > 1 - SAME_TURN
        return np.where(same[:, None], held, q)
    turned = np.sign((q[1:] * q[:-1]).sum(1))
    signs = np.cumprod(np.concatenate([[1.0], np.where(turned < 0, -1.0, 1.0)]))
    return q * signs[:, None]


def velocity_of(poses: Float64[np.ndarray, "T 4 4"], fps: float) -> Float64[np.ndarray, "T 6"]:
    """Central differences of poses (one-sided at the ends), linear m/s over angular rad/s, world frame."""
    if len(poses) < 2:
        return np.zeros((len(poses), 6))
    before, after = np.maximum(np.arange(len(poses)) - 1, 0), np.minimum(np.arange(len(poses)) + 1, len(poses) - 1)
    dt = (after - before)[:, None] / fps
    R = poses[after, :3, :3] @ np.swapaxes(poses[before, :3, :3], -1, -2)
    vee = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], -1) / 2
    sine, cosine = np.linalg.norm(vee, axis=-1), (np.trace(R, axis1=-2, axis2=-1) - 1) / 2
    angle = np.arctan2(sine, cosine)
    scale = np.divide(angle, sine, out=np.ones_like(sine), where=sine > 1e-12)[:, None]
    return np.concatenate([(poses[after, :3, 3] - poses[before, :3, 3]) / dt, vee * scale / dt], axis=1)


def observation(episode: Episode, environment: StatedEnvironment, source: str, actions: np.ndarray) -> np.ndarray:
    """(T, n) of one observation before each step, all frames of the Episode; `actions` (T, A). Raises InputError."""
    kind, _, name = source.partition(":")
    header = episode.header
    if kind == "last_action":
        return np.concatenate([np.zeros_like(actions[:1]), actions[:-1]])
    if kind.startswith("object"):
        names = [o.name for o in header.objects]
        if name not in names:
            raise InputError(unknown_name(f"object of observation {source!r}", name, names))
        poses = episode.object_poses[:, names.index(name)]
        return poses[:, :3, 3] if kind == "object_position" else _rows(poses)
    key = name or next(iter(environment.articulations))
    if key not in environment.articulations:
        raise InputError(unknown_name(f"articulation of observation {source!r}", key, environment.articulations))
    robot_name, joints = environment.articulations[key]
    robot = next(r for r in header.robots if r.name == robot_name)
    order = [robot.dof_index(joint) for joint in joints]
    if kind == "joint_position":
        return episode.joint(robot_name, "position")[:, order]
    if kind == "joint_velocity":
        return joint_velocity(episode, robot_name)[:, order]
    if kind == "gripper":
        return episode.gripper_openness(robot_name)
    if not robot.grippers:
        raise InputError(f"observation {source!r} needs an end effector; robot {robot_name!r} has none")
    gripper = robot.grippers[0]
    poses = episode.link_poses(robot_name)[:, robot.link_index(gripper.ee_link)] @ gripper.T_link_ee
    return poses[:, :3, 3] if kind == "ee_position" else _rows(poses)


def joint_velocity(episode: Episode, robot: str) -> Float64[np.ndarray, "T D"]:
    """Joint velocities (rad/s, m/s): recorded, else differences of the positions."""
    if "velocity" in episode.header.joint_channels:
        return episode.joint(robot, "velocity")
    q = episode.joint(robot, "position")
    return np.gradient(q, 1 / episode.header.fps, axis=0) if len(q) > 1 else np.zeros_like(q)


def issued_actions(episode: Episode, environment: StatedEnvironment, columns: np.ndarray, start: int) -> np.ndarray:
    """(T, A) actions of an exported window: of the stated terms, else as they were issued, else joint targets and openness."""
    if environment.actions:
        window = slice(start, start + len(columns))
        return np.stack(
            [
                (episode.joint(robot, "target")[window, joint] - term.offset) / term.scale
                for term, robot, joint in _joints_of_terms(episode, environment)
            ],
            axis=1,
        )
    issued = extra_of(episode).get(ACTION)
    return columns if issued is None else issued[1][start : start + len(columns)]


def _rows(poses: Float64[np.ndarray, "T 4 4"]) -> Float64[np.ndarray, "T 7"]:
    return np.concatenate([poses[:, :3, 3], wxyz_from_rotation(poses[:, :3, :3])], axis=1)
