# SPDX-License-Identifier: Apache-2.0
"""What the simulator knows of every frame: phase, contact, distance, and where in the picture the object is.

Features of their own (`truth.…`), outside `observation.`, so that no policy takes them for an observation unasked. They
are about the task's object: the goal's, else the first movable one that was grasped, else the first movable one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import Float64, Int
from retake.core.episode import Episode, EpisodeHeader, ObjectSpec, open_episode
from retake.core.episode.events import ObjectEvents, object_events
from retake.core.export.records import IMAGE, Columns, Vector
from retake.core.export.sight import sight_of
from retake.core.geometry import inverse

TRUTH = "truth."
PHASES = ("approach", "grasp", "carried", "released", "settled")
"""Before the grasp; held, not yet moved; held and moved; let go; at rest. A number in `truth.phase`."""
LIFTED_M = 5e-3
"""A held object that is further than this from where it was taken is carried."""
NOT_RECORDED = -1


@dataclass(frozen=True)
class Story:
    """When what happened to the task's object; frames of the whole episode, None where it did not happen."""

    object: int
    """Index into `header.objects`."""
    grasp: int | None
    lift: int | None
    release: int | None
    settled: int | None

    def phase(self, frame: int) -> int:
        """Index into PHASES."""
        if self.grasp is None or frame < self.grasp:
            return 0
        if self.release is not None and frame >= self.release:
            return 4 if self.settled is not None and frame >= self.settled else 3
        return 2 if self.lift is not None and frame >= self.lift else 1


def has_truth(header: EpisodeHeader) -> bool:
    """Whether there is an object to speak of."""
    return any(o.movable for o in header.objects)


def story_of(episode: Episode) -> Story | None:
    """The task's object and its events; None where nothing movable was recorded."""
    return _story(episode.path, episode.content_sha256)


@functools.lru_cache(maxsize=8)
def _story(path: Path, content: str) -> Story | None:
    episode = open_episode(path)
    events = {event.object: event for event in object_events(episode)}
    if not events:
        return None
    index = task_object(episode.header, events)
    event = events[episode.header.objects[index].name]
    lift = None
    if event.grasp is not None:
        held = episode.object_poses[event.grasp : event.release, index, :3, 3]
        moved = np.flatnonzero(np.linalg.norm(held - held[0], axis=-1) > LIFTED_M)
        lift = event.grasp + int(moved[0]) if len(moved) else None
    return Story(index, event.grasp, lift, event.release, event.settled)


def task_object(header: EpisodeHeader, events: Mapping[str, ObjectEvents]) -> int:
    """Index of the object the task is about."""
    goal = header.settings.get("goal")
    wanted = goal.get("object") if isinstance(goal, dict) else None
    movable = [i for i, o in enumerate(header.objects) if o.movable]
    for i in movable:
        if header.objects[i].name == wanted:
            return i
    return next((i for i in movable if events[header.objects[i].name].grasp is not None), movable[0])


def truth_vectors(
    header: EpisodeHeader, cameras: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Vector], dict[str, str]]:
    """(features, units) that `truth_columns` gives for episodes like this one; none without a movable object."""
    if not has_truth(header):
        return {}, {}
    vectors = {
        f"{TRUTH}phase": Vector("int64"),
        f"{TRUTH}contact": Vector("int64"),
        f"{TRUTH}gripper_object_m": Vector("float32"),
    }
    units = {
        f"{TRUTH}phase": ", ".join(f"{i} {name}" for i, name in enumerate(PHASES)),
        f"{TRUTH}contact": "1 a robot body touches the object, 0 none does, -1 contacts were not recorded",
        f"{TRUTH}gripper_object_m": "m, nearest of the gripper's links to the object's box; 0 inside",
    }
    for key in cameras:
        name = key.removeprefix(IMAGE)
        if "instances" in header.camera(name).channels:
            vectors[f"{TRUTH}box.{name}"] = Vector("float32", ("x0", "y0", "x1", "y1"))
            vectors[f"{TRUTH}visible_px.{name}"] = Vector("float32")
            units[f"{TRUTH}box.{name}"] = (
                "px of the dataset's picture, edges, x1 and y1 exclusive; -1 where nothing is seen"
            )
            units[f"{TRUTH}visible_px.{name}"] = "px² of the dataset's picture that show the object"
    return vectors, units


def truth_columns(episode: Episode, cameras: Mapping[str, tuple[int, int]], start: int, length: int) -> Columns:
    """The features of `truth_vectors` over a window; `cameras`: feature key → (width, height) of the dataset's pictures."""
    story = story_of(episode)
    if story is None:
        return {}
    window = slice(start, start + length)
    out: Columns = {
        f"{TRUTH}phase": np.array([story.phase(k) for k in range(start, start + length)], np.int64),
        f"{TRUTH}contact": _contact(episode, story.object)[window],
        f"{TRUTH}gripper_object_m": _distance(episode, story.object)[window].astype(np.float32),
    }
    for key, size in cameras.items():
        name = key.removeprefix(IMAGE)
        if "instances" in episode.header.camera(name).channels:
            boxes, area = boxes_of(episode, name, story.object, size)
            out[f"{TRUTH}box.{name}"] = boxes[window].astype(np.float32)
            out[f"{TRUTH}visible_px.{name}"] = area[window].astype(np.float32)
    return out


def boxes_of(
    episode: Episode, camera: str, index: int, size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "T 4"], Float64[np.ndarray, "T"]]:
    """(x0, y0, x1, y1) and visible area of an object from the instance ids, in px of pictures of `size`; -1 unseen.

    The camera recorded instance ids.
    """
    sight = sight_of(episode, camera)
    assert sight is not None
    width, height = episode.header.camera(camera).size
    sx, sy = size[0] / width, size[1] / height
    found = sight.boxes[:, index]
    owner = f"object:{episode.header.objects[index].name}"
    area = sight.of(tuple(i.id for i in episode.header.instances if i.owner == owner))
    return np.where(found >= 0, found * np.array([sx, sy, sx, sy]), -1.0), area * sx * sy


def _contact(episode: Episode, index: int) -> Int[np.ndarray, "T"]:
    """1 where a robot body touches the object."""
    mine = episode.header.objects[index].prim_path
    links = [link.prim_path for robot in episode.header.robots for link in robot.links]

    def inside(path: str, root: str) -> bool:
        return path == root or path.startswith(root + "/")

    out, recorded = np.zeros(len(episode), np.int64), False
    for k in range(len(episode)):
        for contact in episode.contacts(k):
            recorded = True
            for a, b in ((contact.body_a, contact.body_b), (contact.body_b, contact.body_a)):
                if inside(a, mine) and any(inside(b, link) for link in links):
                    out[k] = 1
    return out if recorded else np.full(len(episode), NOT_RECORDED, np.int64)


def _distance(episode: Episode, index: int) -> Float64[np.ndarray, "T"]:
    """From the nearest of the grippers' links (end effector, fingers) to the object's box, m; 0 inside."""
    spec: ObjectSpec = episode.header.objects[index]
    to_object = inverse(episode.object_poses[:, index])
    best = np.full(len(episode), np.inf)
    for robot in episode.header.robots:
        poses = episode.link_poses(robot.name)
        links = {robot.link_index(g.ee_link) for g in robot.grippers}
        fingers = {name for g in robot.grippers for name in g.finger_joints}
        links |= {joint.child_link for joint in robot.joints if joint.name in fingers}
        for link in links or {len(robot.links) - 1}:
            local = (to_object @ poses[:, link])[:, :3, 3] - np.array(spec.center_m)
            outside = np.maximum(np.abs(local) - np.array(spec.size_m) / 2, 0)
            best = np.minimum(best, np.linalg.norm(outside, axis=-1))
    return np.where(np.isfinite(best), best, 0.0)
