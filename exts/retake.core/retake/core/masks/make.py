# SPDX-License-Identifier: Apache-2.0
"""A recorded episode with masks: the robot's meshes drawn at the recorded states over a calibration fitted to its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retake.core.array_types import Float64
from retake.core.episode import CameraFrame, Episode, EpisodeWriter, Frame, Instance, RobotState, open_episode
from retake.core.errors import InputError
from retake.core.files import atomic_directory, sha256_file
from retake.core.masks.fit import Calibrated, fit_calibration
from retake.core.masks.meshes import RobotMeshes, read_meshes
from retake.core.masks.raster import paint
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.robot import RobotSpec
from retake.core.urdf import read_urdf

FIT_WIDTH = 160
LINK_TOLERANCE_M = 5e-3
_POINTS = 220


def mask_episode(
    episode: Episode,
    out: Path,
    urdf: Path,
    meshes: Path | None = None,
    *,
    camera: str | None = None,
    fit: bool = True,
    progress: Progress | None = None,
    cancel: CheckCancel | None = None,
) -> Episode:
    """Write a copy of an episode with instance ids and depth of the robot for one camera, and open it.

    The copy has that camera alone, the URDF's whole robot (fingers placed by the recorded openness), the fitted pose, and
    states taken at each picture's own time (`settings.masks` says what was fitted and how sure it is). The scenery and
    objects have no masks: nothing recorded says where they are. A camera that moves keeps its calibration.

    Raises InputError for an episode with several robots or no pictures, a URDF of another robot, or meshes that cannot be
    found; EpisodeError when `out` holds anything.
    """
    progress, cancel = progress or silent, cancel or never
    name = camera or episode.header.cameras[0].name
    spec = episode.header.camera(name)
    if "rgb" not in spec.channels:
        raise InputError(f"camera {name!r} of {episode.path} has no pictures; the calibration is fitted to them")
    if len(episode.header.robots) != 1:
        raise InputError(
            f"{episode.path} has {len(episode.header.robots)} robots; masks are made for episodes with one"
        )
    surfaces = read_meshes(urdf, meshes)
    robot, q, root = _states(episode, read_urdf(urdf), urdf)
    K, T = episode.camera_matrices(name)
    still = float(np.abs(T - T[:1]).max()) < 1e-4
    found = _fit(episode, name, robot, q, root, surfaces, cancel) if fit and still else None
    offset = found.time_offset_frames if found else 0.0
    q = _at(q, offset)
    poses = robot.forward_kinematics(q, root)
    links = [i for i, link in enumerate(robot.links) if link.name in surfaces.surfaces]
    shapes = [surfaces.surfaces[robot.links[i].name] for i in links]
    instances = tuple(
        Instance(k + 1, robot.links[i].prim_path, robot.links[i].name, f"robot:{robot.name}")
        for k, i in enumerate(links)
    )
    mask_record = {
        "urdf_sha256": sha256_file(urdf), "links_without_surface": list(surfaces.missing),
        "calibration": found.to_json() if found else "as recorded: the camera moves" if fit else "as recorded",
    }  # fmt: skip
    header = replace(
        episode.header, robots=(robot,), cameras=(replace(spec, channels=("rgb", "depth", "instances")),),
        instances=instances, joint_channels=(), settings={**episode.header.settings, "masks": mask_record},
    )  # fmt: skip
    with atomic_directory(out) as temporary, EpisodeWriter(temporary, header) as writer:
        for t in range(len(episode)):
            cancel()
            pose = found.T_camera_world if found else T[t]
            ids, depth = paint(shapes, poses[t, links], [i.id for i in instances], K[t], pose, spec.size, spec.lens)
            view = CameraFrame(K[t], pose, episode.image(name, "rgb", t), depth, None, ids, spec.lens)
            state = RobotState(q[t], poses[t], robot.gripper_openness(q[t]))
            writer.append(Frame(float(episode.time_s[t]), (state,), episode.object_poses[t], (view,)))
            progress(t + 1, len(episode), "masks")
        writer.finish()
    return open_episode(out)


def _states(episode: Episode, full: RobotSpec, urdf: Path) -> tuple[RobotSpec, np.ndarray, np.ndarray]:
    """The URDF's robot under the episode's name, its joint positions (T, D), its root's poses (T, 4, 4)."""
    recorded = episode.header.robots[0]
    absent = [n for n in recorded.dof_names if n not in full.dof_names]
    if absent:
        raise InputError(
            f"{urdf} lacks joints that the episode recorded: {', '.join(absent)}; it has {', '.join(full.dof_names)}"
        )
    q = np.zeros((len(episode), len(full.dof_names)))
    for column, joint in enumerate(recorded.dof_names):
        q[:, full.dof_index(joint)] = episode.joint(recorded.name, "position")[:, column]
    openness = episode.gripper_openness(recorded.name)
    for number, gripper in enumerate(full.grippers[: openness.shape[1]]):
        ends = zip(gripper.finger_joints, gripper.open_position, gripper.closed_position, strict=True)
        for joint, opened, closed in ends:
            if joint not in recorded.dof_names:
                q[:, full.dof_index(joint)] = closed + (opened - closed) * openness[:, number]
    q = full.followed(q)
    poses = episode.link_poses(recorded.name)
    root_name = full.links[full.root].name
    names = [link.name for link in recorded.links]
    if root_name not in names:
        raise InputError(f"{urdf}: its root link {root_name!r} is none of the episode's links: {', '.join(names)}")
    root = poses[:, names.index(root_name)]
    own = full.forward_kinematics(q, root)
    shared = [(i, names.index(link.name)) for i, link in enumerate(full.links) if link.name in names]
    gap = max(float(np.linalg.norm(own[:, a, :3, 3] - poses[:, b, :3, 3], axis=-1).max()) for a, b in shared)
    if gap > LINK_TOLERANCE_M:
        raise InputError(
            f"{urdf} is another robot: its links lie up to {gap * 1000:.0f} mm from the recorded ones; "
            f"at most {LINK_TOLERANCE_M * 1000:.0f} mm are allowed"
        )
    return replace(full, name=recorded.name), q, root


def _at(values: Float64[np.ndarray, "T D"], offset: float) -> Float64[np.ndarray, "T D"]:
    """Rows at t + offset, between the recorded ones; the ends repeat."""
    at = np.clip(np.arange(len(values)) + offset, 0, len(values) - 1)
    low = np.minimum(np.floor(at).astype(int), max(len(values) - 2, 0))
    share = (at - low)[:, None]
    return values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share


def _fit(
    episode: Episode,
    camera: str,
    robot: RobotSpec,
    q: np.ndarray,
    root: np.ndarray,
    meshes: RobotMeshes,
    cancel: CheckCancel,
) -> Calibrated:
    """The calibration of a camera that stands still, from its own pictures."""
    spec = episode.header.camera(camera)
    size = (FIT_WIDTH, max(round(spec.size[1] * FIT_WIDTH / spec.size[0]), 2))
    frames = []
    for t in range(len(episode)):
        cancel()
        frames.append(cv2.resize(episode.image(camera, "rgb", t), size, interpolation=cv2.INTER_AREA))
    poses, rng = robot.forward_kinematics(q, root), np.random.default_rng(0)
    clouds = []
    for index, link in enumerate(robot.links):
        if (surface := meshes.surfaces.get(link.name)) is not None:
            T = poses[:, index]
            clouds.append(surface.points(_POINTS, rng) @ T[:, :3, :3].transpose(0, 2, 1) + T[:, None, :3, 3])
    K, T = episode.camera_matrices(camera)
    return fit_calibration(np.stack(frames), np.concatenate(clouds, 1), K[0], T[0], spec.size, cancel, spec.lens)
