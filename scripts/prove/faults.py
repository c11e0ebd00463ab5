# SPDX-License-Identifier: Apache-2.0
"""Planted faults of graded size. Motion faults re-time, re-pose and re-render the simulation's geometry, object faults
re-simulate the object's path; only faults of the picture itself (drift, flicker, colour, freezing) touch pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from rematerialise import Look, Maps, Painter
from rerender import Rerenderer

from retake.core.episode import Episode
from retake.core.episode.events import object_events
from retake.core.geometry import inverse

FAULTS: dict[str, tuple[str, tuple[float, ...]]] = {
    "other_episode": ("", (1,)),
    "lag": ("frames", (1, 2, 3, 6)),
    "arm_offset": ("px", (2, 4, 6, 10, 20)),
    "gripper_inverted": ("", (1,)),
    "joint_frozen": ("joint", (1, 2, 4, 6)),
    "object_frozen": ("", (1,)),
    "object_floating": ("cm", (2, 4, 8)),
    "object_teleport": ("cm", (3, 6, 12)),
    "object_vanishing": ("", (1,)),
    "object_sticking": ("", (1,)),
    "object_duplicate": ("", (1,)),
    "object_fall_slow": ("× speed", (0.7, 0.5)),
    "object_fall_fast": ("× speed", (1.5, 2)),
    "background_drift": ("px", (2, 4, 8)),
    "flicker": ("%", (2, 5, 10)),
    "colour_shift": ("%", (5, 10, 20)),
    "frozen_video": ("frames", (8, 16, 40)),
}
"""Kind -> (unit, levels)."""


@dataclass(frozen=True)
class View:
    """One episode seen by one camera, with what is needed to change it."""

    episode: Episode
    camera: str
    maps: Maps
    make_other: Callable[[], Maps]
    """Another episode of the same robot and camera."""
    make_rerenderer: Callable[[], Rerenderer]

    @cached_property
    def other(self) -> Maps:
        """Maps of the other episode, read on first use."""
        return self.make_other()

    @cached_property
    def rerenderer(self) -> Rerenderer:
        """Built on first use: clean videos need none."""
        return self.make_rerenderer()

    @property
    def release(self) -> int:
        """Release frame of the task object."""
        found = object_events(self.episode)[0].release
        return found if found is not None else len(self.maps.ids) // 2


def plant(view: View, kind: str, level: float, seed: int) -> Maps | None:
    """Maps that show the fault; None for faults of the picture and where the fault cannot exist."""
    rng = np.random.default_rng([seed, 3])
    maps, obj = view.maps, view.maps.object_ids[0]
    pose, release = maps.bodies[obj].copy(), view.release
    frames = len(pose)
    if kind == "other_episode":
        return view.other
    if kind == "lag":
        return retime(maps, np.clip(np.arange(frames) - int(level), 0, None))
    if kind == "arm_offset":
        return view.rerenderer.change(maps, _moved_robot(view, level, rng))
    if kind == "gripper_inverted":
        return view.rerenderer.change(maps, _reposed(view, _invert_gripper))
    if kind == "joint_frozen":
        return view.rerenderer.change(maps, _reposed(view, lambda q, robot: _freeze(q, int(level))))
    if kind == "object_frozen":
        pose[release:] = pose[release]
    elif kind == "object_floating":
        pose[release:, 2, 3] = np.maximum(pose[release:, 2, 3], pose[-1, 2, 3] + level / 100)
    elif kind == "object_teleport":
        angle = rng.uniform(0, 2 * np.pi)
        pose[min(release + 2, frames - 1) :, :2, 3] += level / 100 * np.array([np.cos(angle), np.sin(angle)])
    elif kind == "object_vanishing":
        pose[release + 1 :, 2, 3] = -50.0
    elif kind == "object_sticking":
        robot = view.episode.header.robots[0]
        hand = view.episode.link_poses(robot.name)[:frames, robot.link_index(robot.grippers[0].ee_link)]
        pose[release:] = hand[release:] @ inverse(hand[release]) @ pose[release]
    elif kind == "object_duplicate":
        return _duplicate(view, obj, rng)
    elif kind in ("object_fall_slow", "object_fall_fast"):
        pose = _fall(view, pose, level)
    else:
        return None
    return view.rerenderer.change(maps, {obj: pose})


def retime(maps: Maps, index: np.ndarray) -> Maps:
    """Frame t shows frame index[t]."""
    return replace(
        maps, ids=maps.ids[index], normals=maps.normals[index], depth_m=maps.depth_m[index],
        bodies={i: pose[index] for i, pose in maps.bodies.items()},
    )  # fmt: skip


def _moved_robot(view: View, pixels: float, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """The whole robot moved parallel to the image plane, by `pixels` at its hand's mean depth."""
    robot = view.episode.header.robots[0]
    frames = len(view.maps.ids)
    hand = view.episode.link_poses(robot.name)[:frames, robot.link_index(robot.grippers[0].ee_link), :3, 3]
    T = view.maps.T_camera_world[0]
    depth = float((hand @ T[:3, :3].T + T[:3, 3])[:, 2].mean())
    angle = rng.uniform(0, 2 * np.pi)
    in_camera = np.array([np.cos(angle), np.sin(angle), 0.0]) * pixels * depth / view.maps.K[0, 0, 0]
    shift = np.eye(4)
    shift[:3, 3] = T[:3, :3].T @ in_camera
    return {i: shift @ view.maps.bodies[i] for i in view.maps.robot_ids}


def _reposed(view: View, change: Callable[[np.ndarray, object], np.ndarray]) -> dict[int, np.ndarray]:
    """Robot poses by forward kinematics of changed joint positions."""
    robot, frames = view.episode.header.robots[0], len(view.maps.ids)
    q = change(view.episode.joint(robot.name, "position")[:frames].copy(), robot)
    poses = robot.forward_kinematics(q, view.episode.link_poses(robot.name)[:frames, robot.root])
    paths = {i.id: i.prim_path for i in view.episode.header.instances}
    index = {link.prim_path: k for k, link in enumerate(robot.links)}
    return {i: poses[:, index[paths[i]]] for i in view.maps.robot_ids if paths[i] in index}


def _invert_gripper(q: np.ndarray, robot: object) -> np.ndarray:
    for gripper in robot.grippers:  # type: ignore[attr-defined]
        for name, opened, closed in zip(
            gripper.finger_joints, gripper.open_position, gripper.closed_position, strict=True
        ):
            dof = robot.dof_index(name)  # type: ignore[attr-defined]
            q[:, dof] = opened + closed - q[:, dof]
    return q


def _freeze(q: np.ndarray, joint: int) -> np.ndarray:
    q[:, joint - 1] = q[0, joint - 1]
    return q


def _fall(view: View, pose: np.ndarray, speed: float) -> np.ndarray:
    """The path after release played at another speed, from the poses at physics rate."""
    release, frames = view.release, len(pose)
    index = view.episode.header.objects.index(
        next(o for o in view.episode.header.objects if o.movable)
    )  # fmt: skip
    time_s = view.episode.time_s
    times, poses = [], []
    for t in range(release, frames):
        samples = view.episode.physics(t)
        if samples is not None:
            times.append(samples.time_s)
            poses.append(samples.T_world_object[:, index])
    if not times:
        return pose
    fine_time, fine_pose = np.concatenate(times), np.concatenate(poses)
    for t in range(release, frames):
        wanted = time_s[release - 1] + (time_s[t] - time_s[release - 1]) * speed
        pose[t] = fine_pose[min(int(np.searchsorted(fine_time, wanted)), len(fine_pose) - 1)]
    return pose


def _duplicate(view: View, obj: int, rng: np.random.Generator) -> Maps:
    """A second object that appears on the table after release."""
    maps, pose = view.maps, view.maps.bodies[obj].copy()
    pose[view.release :] = pose[0]
    copy = view.rerenderer.change(maps, {obj: pose})
    take = (copy.ids == obj) & (maps.ids != obj)
    take[: view.release] = False
    ids, normals, depth = maps.ids.copy(), maps.normals.copy(), maps.depth_m.copy()
    ids[take], normals[take], depth[take] = copy.ids[take], copy.normals[take], copy.depth_m[take]
    return replace(maps, ids=ids, normals=normals, depth_m=depth)


class Faulty(Painter):
    """A painter whose picture itself is at fault."""

    def __init__(self, look: Look, maps: Maps, kind: str = "", level: float = 0.0) -> None:
        super().__init__(look, maps)
        self.kind, self.level = kind, level
        self.steady = self.scenery
        angle = np.random.default_rng([look.seed, 9]).uniform(0, 2 * np.pi)
        self.direction = np.array([np.cos(angle), np.sin(angle)])
        self.jitter = np.random.default_rng([look.seed, 10]).choice([-1.0, 1.0], len(maps.ids))
        self.cast = np.random.default_rng([look.seed, 11]).permutation([1.0, 0.0, -1.0])

    def frame(self, t: int) -> np.ndarray:
        count = len(self.maps.ids)
        if self.kind == "frozen_video":
            begin = count // 3
            if begin <= t < begin + self.level:
                t = begin
        if self.kind == "background_drift":
            dx, dy = self.direction * self.level * t / (count - 1)
            M = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            size = (self.width, self.height)
            self.scenery = cv2.warpAffine(self.steady, M, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        image = super().frame(t)
        if self.kind == "flicker":
            image = np.clip(image * (1 + self.level / 100 * self.jitter[t]), 0, 255).astype(np.uint8)
        if self.kind == "colour_shift":
            gain = 1 + self.level / 100 * t / (count - 1) * self.cast
            image = np.clip(image * gain, 0, 255).astype(np.uint8)
        return image
