# SPDX-License-Identifier: Apache-2.0
"""What the simulator's arrays mean: laws over stages of any unit and axis, robots of both kinds of joint, objects that move and
objects that stand; and how far outside a picture a link lies."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.capture import PairedFrame, StateSample
from retake.core.episode import EpisodeHeader, ObjectSpec
from retake.core.geometry import axis_angle
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, RobotSpec
from retake.isaac.checks import misfit_px
from retake.isaac.leaving import arm
from retake.isaac.stage_reader import IsaacStageReader
from retake.isaac.tensors import RawRobot
from retake.usd.units import StageUnits

HINGE, SLIDE = "revolute", "prismatic"
units = st.builds(
    StageUnits, st.sampled_from((1.0, 0.01, 0.0254)), st.sampled_from((1.0, 0.001)), st.sampled_from(("Y", "Z"))
)


def arm_of(name: str, kinds: tuple[str, ...]) -> RobotSpec:
    """A chain with a fixed joint after every moving one; its last moving joint is a finger."""
    links, joints = [LinkSpec("base", f"/{name}/base")], []
    for kind in [kind for moving in kinds for kind in (moving, "fixed")]:
        n = len(links)
        links.append(LinkSpec(f"l{n}", f"/{name}/l{n}"))
        joints.append(JointSpec(f"j{n}", kind, n - 1, n, (0, 0, 1), np.eye(4), np.eye(4), -2.0, 2.0))  # type: ignore[arg-type]
    finger = [j.name for j in joints if j.kind != "fixed"][-1]
    hand = GripperSpec("hand", links[-3].name, np.eye(4), (finger,), (0.5,), (0.1,))
    return RobotSpec(name, f"/{name}", tuple(links), tuple(joints), (hand,))


def placed(rng: np.random.Generator, told: StageUnits, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Some poses as PhysX tells them, (count, 7) position in stage units and x, y, z, w in the stage's axes, and what they are,
    (count, 4, 4) T_world, m, Z up."""
    to_world = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) if told.up_axis == "Y" else np.eye(3)
    rows, T = np.zeros((count, 7)), np.tile(np.eye(4), (count, 1, 1))
    for k in range(count):
        axis, angle = rng.normal(size=3), rng.uniform(-3, 3)
        axis /= np.linalg.norm(axis)
        rows[k] = [*rng.uniform(-200, 200, 3), *(axis * np.sin(angle / 2)), np.cos(angle / 2)]
        T[k, :3, :3] = to_world @ axis_angle(axis, angle)
        T[k, :3, 3] = told.metres_per_unit * (to_world @ rows[k, :3])
    return rows, T


@given(told=units, seed=st.integers(0, 999), efforts=st.booleans(), last=st.booleans())
def test_a_state_is_decoded_into_metres_radians_and_newtons(
    told: StageUnits, seed: int, efforts: bool, last: bool
) -> None:
    rng = np.random.default_rng(seed)
    m, kg = told.metres_per_unit, told.kilograms_per_unit
    robots = [arm_of("left", (HINGE, SLIDE)), arm_of("right", (SLIDE, HINGE, HINGE))]
    objects = [ObjectSpec(f"o{k}", f"/o{k}", "thing", (1, 1, 1), movable=k != 1) for k in range(3)]
    stands = placed(rng, told, 3)[1]
    header = EpisodeHeader("t", 30.0, 1 / 60, tuple(robots), (), tuple(objects))
    reader = IsaacStageReader(header, told, [o.movable for o in objects], stands)
    scale = {r.name: np.array([1.0 if j.kind == HINGE else m for j in r.joints if j.kind != "fixed"]) for r in robots}
    force = {r.name: np.array([kg * m * m if j.kind == HINGE else kg * m for j in r.joints if j.kind != "fixed"])
             for r in robots}  # fmt: skip
    links = {r.name: placed(rng, told, len(r.links)) for r in robots}
    moved = [placed(rng, told, 2) for _ in range(3)]
    values = {(r.name, what): rng.uniform(-1, 1, len(scale[r.name])) for r in robots
              for what in ("position", "velocity", "effort", "now", "next")}  # fmt: skip

    def payload(target: str, k: int) -> Any:
        raw = tuple(
            RawRobot(
                values[r.name, "position"] / scale[r.name], values[r.name, "velocity"] / scale[r.name],
                values[r.name, "effort"] / force[r.name] if efforts else None,
                values[r.name, target] / scale[r.name], links[r.name][0],
            )
            for r in robots
        )  # fmt: skip
        return SimpleNamespace(robots=raw, objects=moved[k][0], contacts=())

    track = tuple(StateSample((k, 60), k / 60, k, payload("now", k)) for k in range(3))
    following = None if last else StateSample((3, 60), 3 / 60, 3, payload("next", 0))
    frame = reader.decode(PairedFrame(0, track[2], following, {}, track))

    assert frame.time_s == 2 / 60
    for robot, state in zip(robots, frame.robots, strict=True):
        name = robot.name
        assert np.allclose(state.joint_position, values[name, "position"])
        assert np.allclose(state.joint_velocity, values[name, "velocity"])
        assert (state.joint_effort is None) == (not efforts)
        assert state.joint_effort is None or np.allclose(state.joint_effort, values[name, "effort"])
        assert np.allclose(state.joint_target, values[name, "now" if last else "next"]), (
            "what was commanded after the frame"
        )
        assert np.allclose(state.T_world_link, links[name][1])
        assert state.gripper_openness == pytest.approx(robot.gripper_openness(values[name, "position"]))
    assert np.allclose(frame.T_world_object, [moved[2][1][0], stands[1], moved[2][1][1]])
    assert frame.physics is not None
    assert np.allclose(frame.physics.time_s, [0, 1 / 60, 2 / 60])
    for k, T in enumerate(frame.physics.T_world_object):
        assert np.allclose(T, [moved[k][1][0], stands[1], moved[k][1][1]])


def test_objects_that_all_stand_need_no_rows_and_a_frame_may_have_no_track() -> None:
    stands = placed(np.random.default_rng(0), StageUnits(0.01, 1.0, "Y"), 2)[1]
    objects = tuple(ObjectSpec(f"o{k}", f"/o{k}", "thing", (1, 1, 1), movable=False) for k in range(2))
    header = EpisodeHeader("t", 30.0, 1 / 60, (), (), objects)
    reader = IsaacStageReader(header, StageUnits(0.01, 1.0, "Y"), [False, False], stands)
    state = StateSample((0, 60), 0.0, 0, SimpleNamespace(robots=(), objects=None, contacts=()))
    frame = reader.decode(PairedFrame(0, state, None, {}, ()))
    assert np.array_equal(frame.T_world_object, stands)
    assert frame.physics is None
    frame.T_world_object[0, 0, 3] += 1
    assert np.array_equal(reader.decode(PairedFrame(0, state, None, {}, ())).T_world_object, stands), (
        "a frame's poses are its own"
    )


@pytest.mark.parametrize(
    ("uv", "px"),
    [
        ((0, 0), 0), ((39, 29), 0), ((-1, 5), 1), ((-3, 5), 3), ((40, 5), 1), ((43, 5), 4), ((5, -2), 2), ((5, 30), 1),
        ((5, 33), 4), ((43, 32), 5), ((-3, -4), 5), ((42, 29), 3), ((39, 32), 3),
    ],
)  # fmt: skip
def test_a_link_beside_a_picture_is_as_far_off_as_the_picture_s_edge(uv: tuple[float, float], px: float) -> None:
    ids = np.ones((30, 40), np.uint16)
    camera = SimpleNamespace(project=lambda points: (np.array([uv], float), np.ones(1)))
    header = SimpleNamespace(robots=[SimpleNamespace(name="arm")], instances=[SimpleNamespace(id=1, owner="robot:arm")])
    frame = SimpleNamespace(
        cameras=[SimpleNamespace(instance_ids=ids, camera=camera)],
        robots=[SimpleNamespace(T_world_link=np.zeros((1, 4, 4)))],
    )
    assert misfit_px(frame, header, 0) == px  # type: ignore[arg-type]


def test_the_clock_of_an_exit_holds_nobody_up() -> None:
    """It waits beside the process: one that ends by itself ends at once, with its own code."""
    code = "import sys; from retake.isaac.leaving import arm; arm(7, 60.0); sys.exit(3)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 3
    ended: list[int] = []
    waiting = [arm(code, 0.05, ended.append) for code in (4, 0)]
    assert all(isinstance(thread, threading.Thread) for thread in waiting)
    assert not ended, "not before its time"
    for thread in waiting:
        thread.join(20)
    assert sorted(ended) == [0, 4]
