# SPDX-License-Identifier: Apache-2.0
"""When the gripper took the object and when it let go, read from an Episode's contacts (or, without any, its motion)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Bool
from retake.core.episode.reader import Episode
from retake.core.episode.records import Contact
from retake.core.geometry import inverse

SETTLED_M = 5e-4
"""An object that moves less than this per frame has settled (the embedded simulator's resting jitter is below 1e-5 m)."""


@dataclass(frozen=True)
class ObjectEvents:
    """Frames of one object's story; None where it did not happen."""

    object: str
    grasp: int | None
    """First frame of the longest spell in which the robot holds the object."""
    release: int | None
    """First frame after it."""
    settled: int | None
    """First frame from which the object rests until the end."""

    def phase(self, frame: int) -> str:
        """`before`, `held`, `released` or `settled`."""
        if self.grasp is None or frame < self.grasp:
            return "before"
        if self.release is None or frame < self.release:
            return "held"
        return "settled" if self.settled is not None and frame >= self.settled else "released"


def object_events(episode: Episode) -> tuple[ObjectEvents, ...]:
    """Events of every movable object."""
    poses = episode.object_poses
    out = []
    for index, spec in enumerate(episode.header.objects):
        if not spec.movable:
            continue
        held = _held_by_contact(episode, spec.prim_path)
        if held is None:
            held = _held_by_motion(episode, index)
        grasp, release = _longest(held)
        step = np.linalg.norm(np.diff(poses[:, index, :3, 3], axis=0), axis=-1)
        moving = np.flatnonzero(step > SETTLED_M)
        after = int(moving[-1]) + 1 if len(moving) else 0
        settled = after if after < len(episode) - 1 or not len(step) else None
        if settled is not None and release is not None:
            settled = max(settled, release)
        out.append(ObjectEvents(spec.name, grasp, release, settled))
    return tuple(out)


def _longest(held: Bool[np.ndarray, "T"]) -> tuple[int | None, int | None]:
    """Start and end (exclusive; None when it lasts to the end) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], held.astype(np.int8), [0]])))
    if not len(edges):
        return None, None
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best]) if ends[best] < len(held) else None


def _held_by_contact(episode: Episode, prim_path: str) -> Bool[np.ndarray, "T"] | None:
    """Frames in which two or more robot bodies touch the object; None when the episode records no contact at all."""
    links = [link.prim_path for robot in episode.header.robots for link in robot.links]
    any_contact, held = False, np.zeros(len(episode), bool)
    for frame in range(len(episode)):
        contacts = episode.contacts(frame)
        any_contact |= bool(contacts)
        held[frame] = len(holders(contacts, prim_path, links)) >= 2
    return held if any_contact else None


def holders(contacts: Iterable[Contact], prim_path: str, links: Sequence[str]) -> set[str]:
    """Which of the links (prim paths) touch an object; two or more of them hold it."""
    touching: set[str] = set()
    for contact in contacts:
        for mine, other in ((contact.body_a, contact.body_b), (contact.body_b, contact.body_a)):
            if _inside(mine, prim_path):
                # A finger's prim may lie below the hand's: the touch is the finger's alone.
                touching |= set(sorted((link for link in links if _inside(other, link)), key=len)[-1:])
    return touching


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


def _held_by_motion(episode: Episode, index: int) -> Bool[np.ndarray, "T"]:
    """Frames in which the object moves and keeps its pose in some end effector's frame (1 mm per frame)."""
    pose = episode.object_poses[:, index]
    held = np.zeros(len(episode), bool)
    moved = np.linalg.norm(np.diff(pose[:, :3, 3], axis=0), axis=-1) > 1e-3
    for robot in episode.header.robots:
        links = episode.link_poses(robot.name)
        for gripper in robot.grippers:
            relative = inverse(links[:, robot.link_index(gripper.ee_link)]) @ pose
            still = np.linalg.norm(np.diff(relative[:, :3, 3], axis=0), axis=-1) < 1e-3
            held[1:] |= still & moved
    return held
