# SPDX-License-Identifier: Apache-2.0
"""Faults planted in a film's geometry, for any renderer: other poses, other bodies, another order of frames. Only what a
picture alone can get wrong (a melting texture, a wandering background, a flash) touches pixels (`PICTURE`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from film import HIDDEN_M, Film

from retake.core.episode import Episode
from retake.core.episode.events import object_events
from retake.core.geometry import axis_angle, inverse
from retake.core.robot import RobotSpec

FAULTS: dict[str, tuple[str, tuple[float, ...], float]] = {
    "arm_offset": ("px", (4, 6), 0.98),
    "lag": ("frames", (2, 3), 0.98),
    "reversed": ("", (1,), 0.98),
    "other_episode": ("", (1,), 0.98),
    "landing_off": ("cm", (3, 5), 0.95),
    "rotated": ("deg", (45, 75), 0.95),
    "sunk": ("cm", (2, 3), 0.95),
    "other_shape": ("", (1,), 0.95),
    "other_colour": ("", (1,), 0.95),
    "second_object": ("", (1,), 0.95),
    "tray_moved": ("cm", (3, 5), 0.95),
    "held_beside": ("cm", (2, 3), 0.95),
    "drawer": ("cm", (5, 12), 0.95),
    "wrist_turned": ("deg", (15, 30), 0.95),
    "gripper_early": ("frames", (3, 5), 0.95),
    "melting": ("", (1,), 0.9),
    "extra_finger": ("", (1,), 0.9),
    "cut_short": ("frames", (60, 20), 0.98),
    "floating": ("cm", (4,), 0.95),
    "sticking": ("", (1,), 0.95),
    "fall_slow": ("x speed", (0.5,), 0.95),
    "vanishing": ("", (1,), 0.95),
    "frozen_video": ("frames", (12,), 0.95),
    "drift": ("px", (4,), 0.95),
    "repainted": ("", (1,), 0.95),
}
"""Kind -> (unit, levels, AUC to reach)."""
PICTURE = ("melting", "drift", "repainted")
REORDERED = ("lag", "reversed", "cut_short", "frozen_video")
NOT_WRIST = ("arm_offset", "wrist_turned", "drift")
"""A wrist camera rides on what these move, or drifts by itself."""
MIN_PIXELS = 30.0
"""Changed pixels per changed frame (at 640x480) from which a fault counts as visible."""


@dataclass(frozen=True)
class Story:
    """When the object of an episode is grasped, let go and at rest."""

    grasp: int
    release: int
    settled: int
    robot: RobotSpec


def story_of(episode: Episode, film: Film) -> Story:
    """Events of the carried object."""
    name = next(o.name for o in episode.header.objects if o.prim_path == film.task_object)
    found = next(e for e in object_events(episode) if e.object == name)
    robot = next(r for r in episode.header.robots if r.name == film.arm)
    count = len(film)
    release = found.release if found.release is not None else count * 2 // 3
    return Story(found.grasp or count // 3, min(release, count - 8), found.settled or count - 6, robot)


@dataclass(frozen=True)
class Planted:
    """A faulty film; `index` is the film's frame shown at each frame of the video."""

    film: Film
    index: np.ndarray


def plant(
    film: Film, story: Story, kind: str, level: float, seed: int, positions: np.ndarray | None = None
) -> Planted | None:
    """Plant one fault. `positions` (T, D) are the arm's joint positions. None where it cannot be planted."""
    rng = np.random.default_rng([seed, 33])
    count = len(film)
    same = np.arange(count)
    if kind in PICTURE or kind == "other_episode":
        return Planted(film, same)
    if kind in REORDERED:
        return Planted(film, _order(kind, level, count, story))
    poses = _robot(film, story, kind, level, rng, positions) or _object(film, story, kind, level, rng)
    return None if poses is None else Planted(film.moved(poses), same)


def _order(kind: str, level: float, count: int, story: Story) -> np.ndarray:
    same = np.arange(count)
    if kind == "lag":
        return np.clip(same - int(level), 0, None)
    if kind == "reversed":
        begin, end = max(story.grasp - 6, 1), min(story.release - 2, count - 2)
        same[begin:end] = same[begin:end][::-1]
        return same
    if kind == "cut_short":
        return same[: int(level)]
    begin = story.grasp + 4
    same[begin : begin + int(level)] = begin
    return same


def ramp(count: int, begin: int, frames: int) -> np.ndarray:
    """(T,) 0 before `begin`, 1 after `frames` more."""
    return np.clip((np.arange(count) - begin) / max(frames, 1), 0.0, 1.0)


def _robot(
    film: Film, story: Story, kind: str, level: float, rng: np.random.Generator, positions: np.ndarray | None
) -> dict[str, np.ndarray] | None:
    """Poses of the arm's links or of a drawer."""
    count = len(film)
    if kind == "arm_offset":
        hand = film.poses[film.robots[film.arm][-1]][:, :3, 3]
        T = film.T_camera_world[0]
        depth = float((hand @ T[:3, :3].T + T[:3, 3])[:, 2].mean())
        angle = rng.uniform(0, 2 * np.pi)
        pixels = level * film.size[0] / 640
        shift = np.eye(4)
        shift[:3, 3] = T[:3, :3].T @ (np.array([np.cos(angle), np.sin(angle), 0]) * pixels * depth / film.K[0, 0, 0])
        return {o: shift @ film.poses[o] for o in film.robots[film.arm]}
    if kind == "drawer":
        owner = next((o for owners in film.robots.values() for o in owners if "drawer" in o.lower()), None)
        if owner is None:
            return None
        pose = film.poses[owner].copy()
        pose[:, :3, 3] += pose[:, :3, 0] * (level / 100 * ramp(count, count // 4, count // 2))[:, None]
        return {owner: pose}
    if kind == "extra_finger":
        finger = film.robots[film.arm][-1]
        aside = np.eye(4)
        aside[:3, 3] = [0.028 * rng.choice([-1, 1]), 0.0, 0.0]
        pose = film.poses["prop:finger"].copy()
        begin = count // 5
        pose[begin:] = (film.poses[finger] @ aside)[begin:]
        return {"prop:finger": pose}
    if kind not in ("wrist_turned", "gripper_early") or positions is None:
        return None
    q, robot = positions.copy(), story.robot
    if kind == "wrist_turned":
        fingers = {name for gripper in robot.grippers for name in gripper.finger_joints}
        turning = [n for n in robot.dof_names if n not in fingers]
        column = robot.dof_index(turning[-1])
        q[:, column] += np.radians(level) * rng.choice([-1, 1]) * ramp(count, count // 6, 8)
    else:
        columns = [robot.dof_index(name) for gripper in robot.grippers for name in gripper.finger_joints]
        middle = (story.grasp + story.release) // 2
        later = np.minimum(np.arange(count) + int(level), count - 1)
        q[middle:, columns] = positions[later][middle:, columns]
    root = film.poses[film.robots[film.arm][robot.root]]
    poses = robot.forward_kinematics(q, root)
    out = {path: poses[:, k] for k, path in enumerate(film.robots[film.arm])}
    if kind == "wrist_turned":
        # What is held turns with the hand.
        hand = film.robots[film.arm][robot.link_index(robot.grippers[0].ee_link)]
        held = film.poses[film.task_object].copy()
        span = slice(story.grasp, story.release)
        held[span] = (out[hand] @ inverse(film.poses[hand]) @ held)[span]
        out[film.task_object] = held
    return out


def _object(
    film: Film, story: Story, kind: str, level: float, rng: np.random.Generator
) -> dict[str, np.ndarray] | None:
    """Poses of the carried object, of the tray, of props."""
    count, release = len(film), story.release
    pose = film.poses[film.task_object].copy()
    away = np.eye(4)
    away[2, 3] = HIDDEN_M
    angle = rng.uniform(0, 2 * np.pi)
    aside = np.array([np.cos(angle), np.sin(angle), 0.0])
    landing = ramp(count, release, max(story.settled - release, 4))
    if kind == "landing_off":
        pose[:, :3, 3] += aside * (level / 100 * landing)[:, None]
    elif kind == "rotated":
        turn = np.radians(level) * rng.choice([-1, 1]) * ramp(count, release + 1, 8)
        middle = film.points(film.task_object).mean(0)
        for t in range(release, count):
            R = axis_angle(np.array([0.0, 0.0, 1.0]), np.float64(turn[t]))
            centre = pose[t, :3, :3] @ middle + pose[t, :3, 3]
            pose[t, :3, :3] = R @ pose[t, :3, :3]
            pose[t, :3, 3] = centre - pose[t, :3, :3] @ middle
    elif kind == "sunk":
        pose[:, 2, 3] -= level / 100 * ramp(count, min(story.settled - 2, count - 8), 6)
    elif kind in ("other_shape", "other_colour"):
        prop = {"other_shape": "prop:shape", "other_colour": "prop:colour"}[kind]
        begin = rng.integers(count // 3, release)
        new = film.poses[prop].copy()
        new[begin:], pose[begin:] = pose[begin:].copy(), away
        return {prop: new, film.task_object: pose}
    elif kind == "second_object":
        new = film.poses["prop:second"].copy()
        begin = rng.integers(count // 4, release)
        start = pose[0].copy()
        for _ in range(200):
            start[:2, 3] = rng.uniform([0.3, -0.4], [0.75, 0.4])
            if np.linalg.norm(pose[:, :2, 3] - start[:2, 3], axis=1).min() > 0.1:
                break
        new[begin:] = start
        return {"prop:second": new}
    elif kind == "tray_moved":
        tray = film.poses[film.target].copy()
        tray[:, :3, 3] += aside * (level / 100 * ramp(count, count // 4, count // 2))[:, None]
        return {film.target: tray}
    elif kind == "held_beside":
        robot = story.robot
        hand = film.poses[film.robots[film.arm][robot.link_index(robot.grippers[0].ee_link)]]
        across = (hand @ robot.grippers[0].T_link_ee)[:, :3, 0]
        amount = ramp(count, story.grasp, 3) * (1 - ramp(count, release, 3)) * level / 100
        pose[:, :3, 3] += across * amount[:, None] * rng.choice([-1, 1])
    elif kind == "floating":
        pose[release:, 2, 3] = np.maximum(pose[release:, 2, 3], pose[-1, 2, 3] + level / 100)
    elif kind == "sticking":
        robot = story.robot
        hand = film.poses[film.robots[film.arm][robot.link_index(robot.grippers[0].ee_link)]]
        pose[release:] = hand[release:] @ inverse(hand[release]) @ pose[release]
    elif kind == "fall_slow":
        at = release - 1 + (np.arange(count) - release + 1) * level
        low = np.clip(np.floor(at).astype(int), 0, count - 1)
        share = (at - low)[:, None]
        slow = pose[low].copy()
        slow[:, :3, 3] = pose[low, :3, 3] * (1 - share) + pose[np.minimum(low + 1, count - 1), :3, 3] * share
        pose[release:] = slow[release:]
    elif kind == "vanishing":
        pose[release + 1 :] = away
    else:
        return None
    return {film.task_object: pose}


def spoil(
    frames: list[np.ndarray], ids: np.ndarray, film: Film, owners: tuple[str, ...], kind: str, level: float, seed: int
) -> list[np.ndarray]:
    """Faults of the picture itself: `melting` (a link's texture runs, ever more), `drift` (the scenery wanders) and `repainted`
    (a thing that nobody touches takes another colour)."""
    if kind == "repainted":
        return repainted(frames, ids, film, owners, seed)
    rng = np.random.default_rng([seed, 34])
    count, (height, width) = len(frames), frames[0].shape[:2]
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    links = film.robots[film.arm]
    sizes = [(ids == owners.index(o) + 1).sum() if o in owners else 0 for o in links]
    chosen = owners.index(links[int(np.argmax(sizes))]) + 1
    things = np.isin(ids, [owners.index(o) + 1 for o in (*links, film.task_object) if o in owners])
    noise = [
        cv2.resize(
            rng.normal(size=(height // 10, width // 10)).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in range(3)
    ]
    angle = rng.uniform(0, 2 * np.pi)
    out = []
    for t, frame in enumerate(frames):
        share = float(np.clip((t - count / 5) / (count / 2), 0, 1))
        if kind == "melting":
            mask = cv2.GaussianBlur((ids[t] == chosen).astype(np.float32), (0, 0), 1.0)[..., None]
            reach = 14 * share * width / 640
            moved = cv2.remap(
                frame, u + reach * noise[0], v + reach * (noise[1] - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
            blotch = 1 + 0.55 * share * np.clip(np.roll(noise[2], t, 0), -1, 1)[..., None]
            frame = np.clip(frame + (moved * blotch - frame) * mask, 0, 255).astype(np.uint8)
        else:
            shift = level * width / 640 * t / max(count - 1, 1)
            moved = cv2.remap(
                frame,
                u + shift * np.float32(np.cos(angle)),
                v + shift * np.float32(np.sin(angle)),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT,
            )
            frame = np.where(things[t][..., None], frame, moved)
        out.append(frame)
    return out


def still_thing(ids: np.ndarray, film: Film, owners: tuple[str, ...], seed: int) -> int:
    """Id of a thing that nobody touches (bystanders, the tray, the table), of those that show 300 px (at 640x480) all the time;
    0 where none does."""
    links = {path for paths in film.robots.values() for path in paths}
    still = [k + 1 for k, o in enumerate(owners) if o.startswith("/") and o not in links and o != film.task_object]
    least = 300 * (film.size[0] / 640) ** 2
    still = [k for k in still if float(np.median((ids == k).sum((1, 2)))) >= least]
    return int(np.random.default_rng([seed, 36]).choice(still)) if still else 0


def repainted(
    frames: list[np.ndarray], ids: np.ndarray, film: Film, owners: tuple[str, ...], seed: int
) -> list[np.ndarray]:
    """From the middle third on, one still thing has another hue at the brightness of each of its pixels."""
    rng = np.random.default_rng([seed, 35])
    thing, count = still_thing(ids[::6], film, owners, seed), len(frames)
    begin = int(rng.integers(count // 3, 2 * count // 3))
    shown = np.concatenate([f[i == thing] for f, i in zip(frames[:begin:6], ids[:begin:6], strict=True)])
    before = np.median(shown, axis=0) if len(shown) else np.full(3, 128.0)
    paints = np.eye(3) * 0.7 + 0.15
    # Most of what it had least: another colour whatever it was.
    paint = paints[int(np.argmin(before))]
    out = []
    for t, frame in enumerate(frames):
        if t >= begin:
            mask = cv2.GaussianBlur((ids[t] == thing).astype(np.float32), (0, 0), 1.0)[..., None]
            level = frame.astype(np.float32).mean(-1, keepdims=True)
            frame = np.clip(frame + (3 * level * paint - frame) * mask, 0, 255).astype(np.uint8)
        out.append(frame)
    return out
