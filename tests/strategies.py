# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies and small generated records that every test may use."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from retake.core.episode import (
    CHANNELS,
    CameraFrame,
    CameraSpec,
    Contact,
    EpisodeHeader,
    Frame,
    Instance,
    ObjectSpec,
    PhysicsSamples,
    RobotState,
)
from retake.core.geometry import pose_from_wxyz
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec

seeds = st.integers(0, 2**32 - 1)


def random_poses(rng: np.random.Generator, *shape: int, spread_m: float = 1.0) -> np.ndarray:
    """Random rigid transforms (*shape, 4, 4)."""
    return pose_from_wxyz(rng.normal(scale=spread_m, size=(*shape, 3)), rng.normal(size=(*shape, 4)))


def random_robot(rng: np.random.Generator, name: str = "arm", arm_joints: int = 3) -> RobotSpec:
    """A serial arm with a two-finger gripper and random joint frames."""
    links = [LinkSpec(f"link{i}", f"/World/{name}/link{i}") for i in range(arm_joints + 1)]
    links += [LinkSpec("left", f"/World/{name}/left"), LinkSpec("right", f"/World/{name}/right")]
    joints = []
    for i in range(arm_joints):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        frames = random_poses(rng, 2, spread_m=0.2)
        joints.append(
            JointSpec(
                f"joint{i}", "revolute", i, i + 1, tuple(map(float, axis)), frames[0], frames[1], -2.5, 2.5, 3.0, 80.0
            )
        )
    for side, sign in (("left", 1.0), ("right", -1.0)):
        joints.append(
            JointSpec(
                f"finger_{side}",
                "prismatic",
                arm_joints,
                arm_joints + (1 if side == "left" else 2),
                (0.0, sign, 0.0),
                random_poses(rng, spread_m=0.05),
                np.eye(4),
                0.0,
                0.04,
                0.2,
                20.0,
            )
        )
    gripper = GripperSpec(
        "hand", f"link{arm_joints}", np.eye(4), ("finger_left", "finger_right"), (0.04, 0.04), (0.0, 0.0)
    )
    return RobotSpec(name, f"/World/{name}", tuple(links), tuple(joints), (gripper,))


def random_header(rng: np.random.Generator, *, robots: int = 1, cameras: int = 1, objects: int = 1) -> EpisodeHeader:
    """A header with random names, sizes and subsets of channels."""
    specs = []
    for c in range(cameras):
        channels = ("rgb", *(ch for ch in CHANNELS[1:] if rng.random() < 0.7))
        size = (int(rng.integers(4, 40)), int(rng.integers(4, 30)))
        specs.append(CameraSpec(f"cam{c}", f"/World/Cam{c}", size, bool(rng.random() < 0.5), channels, (0.05, 100.0)))
    return EpisodeHeader(
        task="pick up the packet — “ünïcode” too",
        fps=15,
        physics_dt_s=1 / 495,
        robots=tuple(random_robot(rng, f"arm{r}", int(rng.integers(1, 8))) for r in range(robots)),
        cameras=tuple(specs),
        objects=tuple(ObjectSpec(f"obj{o}", f"/World/Obj{o}", "packet", (0.1, 0.05, 0.2)) for o in range(objects)),
        instances=(Instance(1, "/World/Table", "table"), Instance(7, "/World/Obj0", "packet", "object:obj0")),
        simulator="generated",
        simulator_version="1",
        stage_sha256="0" * 64,
        seed=3,
        joint_channels=tuple(c for c in ("velocity", "effort", "target") if rng.random() < 0.7),
        settings={"mass_kg": 0.1, "nested": {"list": [1, 2.5, "x", None]}},
    )


def random_frame(rng: np.random.Generator, header: EpisodeHeader, index: int) -> Frame:
    """A frame of random but valid content for a header."""
    robots = []
    for robot in header.robots:
        dofs = len(robot.dof_names)
        joints = {f"joint_{c}": rng.normal(size=dofs) for c in header.joint_channels}
        robots.append(
            RobotState(
                rng.normal(size=dofs),
                random_poses(rng, len(robot.links)),
                rng.random(len(robot.grippers)),
                **joints,
            )
        )
    cameras = []
    for camera in header.cameras:
        (w, h), has = camera.size, camera.channels
        cameras.append(
            CameraFrame(
                np.array([[50.0 + rng.random(), 0, w / 2], [0, 50.0, h / 2], [0, 0, 1]]),
                random_poses(rng),
                rng.integers(0, 256, (h, w, 3), dtype=np.uint8),
                rng.random((h, w), dtype=np.float32) if "depth" in has else None,
                rng.integers(-32767, 32768, (h, w, 3)).astype(np.int16) if "normals" in has else None,
                rng.integers(0, 65536, (h, w)).astype(np.uint16) if "instances" in has else None,
            )
        )
    contacts = tuple(
        Contact("/World/A", "/World/B", *(tuple(map(float, rng.normal(size=3))) for _ in range(3)), float(rng.random()))
        for _ in range(int(rng.integers(0, 3)))
    )
    samples = int(rng.integers(0, 4))
    physics = PhysicsSamples(
        index / header.fps + np.arange(samples) * header.physics_dt_s, random_poses(rng, samples, len(header.objects))
    )
    return Frame(
        index / header.fps,
        tuple(robots),
        random_poses(rng, len(header.objects)),
        tuple(cameras),
        contacts,
        physics if samples else None,
    )
