# SPDX-License-Identifier: Apache-2.0
"""Episodes of a few frames in which every position, contact and pixel was put by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Contact,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    Instance,
    ObjectSpec,
    PhysicsSamples,
    RobotState,
)
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec

FPS, WIDE, HIGH = 10, 11, 6
EYE = np.eye(4)


def at(x: float, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = (x, y, z)
    return T


def sliding(**limits) -> RobotSpec:
    """A hand on a rail along x, with two fingers along y."""
    X, Y = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    rail = JointSpec("rail", "prismatic", 0, 1, X, EYE, EYE, **limits)
    fingers = [JointSpec(n, "prismatic", 1, k, Y, EYE, EYE, -0.1, 0.1) for n, k in (("left", 2), ("right", 3))]
    links = ("/A/base", "/A/hand", "/A/hand/left", "/A/hand/right", "/A/mark")
    mark = JointSpec("stays", "fixed", 1, 4, X, at(0, 0, 0.5), EYE)
    end = GripperSpec("hand", "hand", EYE, ("left", "right"), (0.1, -0.1), (0.0, 0.0))
    return RobotSpec(
        "arm", "/A", tuple(LinkSpec(p.rsplit("/", 1)[-1], p) for p in links), (rail, *fingers, mark), (end,)
    )


BOX = ObjectSpec("box", "/Box", "red box", (0.2, 0.4, 0.6), (0.0, 0.0, 0.1))
POST = ObjectSpec("post", "/Post", "post", (1, 1, 1), movable=False)
THINGS = (
    Instance(3, "/A/hand/left/pad", "arm", "robot:arm"), Instance(4, "/A/mark", "arm", "robot:arm"),
    Instance(5, "/Box/lid", "box", "object:box"), Instance(6, "/Box", "box", "object:box"), Instance(9, "/Floor", "floor"),
    Instance(7, "/Post", "post", "object:post"), Instance(8, "/A/handle", "arm", "robot:arm"),
)  # fmt: skip


def write(
    path: Path, box_x, rail=None, touching=(), *, robot: RobotSpec | None = None, objects=(BOX, POST), ids=None,
    times=None, penetration: float = 0.0, effort=None, samples: bool = False, bend=lambda poses, t: poses, **settings,
) -> Episode:  # fmt: skip
    """One frame per number of `box_x` (m); `touching`: frame → links that touch the box."""
    robot, count = robot or sliding(), len(box_x)
    touching, rail = dict(touching), np.zeros(count) if rail is None else np.asarray(rail, float)
    cameras = () if ids is None else (CameraSpec("front", "/C", (WIDE, HIGH), True, ("rgb", "instances")),)
    channels = ("effort",) if effort is not None else ()
    header = EpisodeHeader(
        "t",
        FPS,
        0.02,
        (robot,) if robot.joints else (),
        cameras,
        objects,
        THINGS,
        joint_channels=channels,
        settings=settings,
    )
    with EpisodeWriter(path, header) as writer:
        for t, x in enumerate(box_x):
            q = np.array([rail[t], 0.0, 0.0])
            poses = bend(robot.forward_kinematics(q), t) if header.robots else EYE[None]
            state = RobotState(
                q, poses, np.ones(1), joint_effort=None if effort is None else np.array([effort[t], 0.0, 0.0])
            )
            contacts = tuple(
                Contact("/Box/lid", link, (t, 0, 0), (0, 0, 1), (0, 0, 2), penetration) for link in touching.get(t, ())
            )
            things = np.stack([at(x), at(5)])[: len(objects)]
            K = np.array([[10.0, 0, 5], [0, 10.0, 3], [0, 0, 1]])
            views = (
                () if ids is None else (CameraFrame(K, EYE, np.zeros((HIGH, WIDE, 3), np.uint8), instance_ids=ids(t)),)
            )
            time = t / FPS if times is None else times[t]
            own = PhysicsSamples(np.array([time - 0.05, time]), np.stack([things, things])) if samples else None
            writer.append(Frame(time, (state,) if header.robots else (), things, views, contacts, own))
        return writer.finish()


FINGERS = ("/A/hand/left", "/A/hand/right")
MOVES = [0, 0, 0, 0.004, 0.1, 0.2, 0.3, 0.35, 0.35, 0.35]
"""Held by two fingers from frame 2 to 5, let go at 6, at rest from 7 on."""


def picture(t: int) -> np.ndarray:
    """The box's two parts, seven pixels of it, one column to the right with every frame; not seen in frame 3."""
    ids = np.full((HIGH, WIDE), 9, np.uint16)
    if t != 3:
        ids[1, 1 + t : 4 + t], ids[2, 1 + t : 5 + t] = 5, 6
    ids[5, :2], ids[5, 4:6], ids[0, 0] = 3, 7, 0
    return ids


def rolling(t: int) -> np.ndarray:
    """The same five pictures again and again."""
    return picture(t % 5)
