# SPDX-License-Identifier: Apache-2.0
"""What is read from an episode of a few frames in which every position, contact and pixel was put by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retake.core.camera import Camera
from retake.core.config import CheckConfig
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
from retake.core.episode.check import EpisodeCheck, check_episode
from retake.core.episode.events import ObjectEvents, _longest, holders, object_events
from retake.core.episode.parts import RigidPart, rigid_parts
from retake.core.export.physics import NEVER, physics_arrays, unpack_masks
from retake.core.export.sight import sight_of
from retake.core.export.truth import story_of, task_object, truth_columns
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


def test_the_longest_spell_is_the_one_that_counts():
    for held, told in (
        ([0, 0, 0], (None, None)), ([1, 0, 1, 1, 0], (2, 4)), ([1, 1, 0, 1, 1], (0, 2)), ([0, 1, 1], (1, None)),
        ([1], (0, None)), ([], (None, None)),
    ):  # fmt: skip
        assert _longest(np.array(held, bool)) == told


def test_two_links_hold_a_thing_whichever_body_is_named_first():
    def touch(a: str, b: str) -> Contact:
        return Contact(a, b, (0, 0, 0), (0, 0, 1), (0, 0, 0))

    links = ["/A/hand", "/A/hand/left", "/A/handle"]
    assert holders([touch("/Box/lid", "/A/hand/left/pad")], "/Box", links) == {"/A/hand/left"}, (
        "a finger below the hand is one body"
    )
    assert holders([touch("/A/handle", "/Box"), touch("/Box", "/Floor")], "/Box", links) == {"/A/handle"}
    assert holders([touch("/Box2", "/A/handle"), touch("/Floor", "/A/hand")], "/Box", links) == set()


def test_a_story_has_its_phases_in_order():
    story = ObjectEvents("box", 2, 4, 6)
    assert [story.phase(k) for k in range(8)] == ["before"] * 2 + ["held"] * 2 + ["released"] * 2 + ["settled"] * 2
    assert ObjectEvents("box", None, None, 0).phase(5) == "before"
    assert ObjectEvents("box", 2, None, None).phase(5) == "held"
    assert ObjectEvents("box", 2, 4, None).phase(9) == "released"


FINGERS = ("/A/hand/left", "/A/hand/right")
MOVES = [0, 0, 0, 0.004, 0.1, 0.2, 0.3, 0.35, 0.35, 0.35]
"""Held by two fingers from frame 2 to 5, let go at 6, at rest from 7 on."""


def test_events_follow_from_contacts(tmp_path):
    held = write(
        tmp_path / "a", MOVES, touching={1: FINGERS[:1], **dict.fromkeys(range(2, 6), FINGERS), 6: FINGERS[1:]}
    )
    assert object_events(held) == (ObjectEvents("box", 2, 6, 7),)
    story = story_of(held)
    assert (story.object, story.grasp, story.lift, story.release, story.settled) == (0, 2, 4, 6, 7)
    assert [story.phase(k) for k in range(10)] == [0, 0, 1, 1, 2, 2, 3, 4, 4, 4]
    still = write(tmp_path / "b", [0.0] * 4, touching={1: FINGERS, 2: FINGERS, 3: FINGERS})
    assert object_events(still) == (ObjectEvents("box", 1, None, 0),)
    assert story_of(still).lift is None
    late = write(tmp_path / "c", [0, 0, 0, 0, 0.01], touching={0: ("/Floor",)})
    assert object_events(late) == (ObjectEvents("box", None, None, None),), "it moves until the end"
    one = write(tmp_path / "d", [0.0])
    assert object_events(one) == (ObjectEvents("box", None, None, 0),)
    rests = write(tmp_path / "e", [0, 0.0004, 0.0008, 0.0012], touching={0: FINGERS, 1: FINGERS, 2: ()})
    assert object_events(rests)[0] == ObjectEvents("box", 0, 2, 2), "less than half a millimetre a frame is rest"


def test_events_follow_from_motion_where_no_contact_was_recorded(tmp_path):
    carried = write(tmp_path / "a", [0, 0, 0.1, 0.2, 0.2, 0.2], rail=[0, 0, 0.1, 0.2, 0.3, 0.4])
    assert object_events(carried) == (ObjectEvents("box", 2, 4, 4),)
    pushed = write(tmp_path / "b", [0, 0.1, 0.2, 0.2], rail=[0, 0, 0, 0])
    assert object_events(pushed)[0].grasp is None


def test_the_task_is_about_the_goal_s_object_or_the_first_that_was_grasped(tmp_path):
    cup, jar = replace(BOX, name="cup", prim_path="/Cup"), replace(BOX, name="jar", prim_path="/Jar")
    events = {n: ObjectEvents(n, g, None, None) for n, g in (("box", None), ("cup", 3), ("jar", 1))}

    def asked(**settings) -> int:
        return task_object(EpisodeHeader("t", 10, 0.1, (), (), (POST, BOX, cup, jar), settings=settings), events)

    assert asked(goal={"object": "jar"}) == 3
    assert asked(goal={"object": "post"}) == asked(goal="jar") == asked() == 2
    events["cup"] = events["jar"] = events["box"]
    assert asked() == 1


def picture(t: int) -> np.ndarray:
    """The box's two parts, seven pixels of it, one column to the right with every frame; not seen in frame 3."""
    ids = np.full((HIGH, WIDE), 9, np.uint16)
    if t != 3:
        ids[1, 1 + t : 4 + t], ids[2, 1 + t : 5 + t] = 5, 6
    ids[5, :2], ids[5, 4:6], ids[0, 0] = 3, 7, 0
    return ids


def test_what_a_camera_shows_of_a_thing_is_counted_in_pixels(tmp_path):
    episode = write(tmp_path / "a", [0.0] * 5, ids=picture, touching={1: FINGERS, 2: ("/Floor",)})
    sight = sight_of(episode, "front")
    assert sight.of((5, 6)).tolist() == [7, 7, 7, 0, 7]
    assert sight.of((6, 60_000)).tolist() == [4, 4, 4, 0, 4]
    assert sight.of((3,)).tolist() == [2] * 5
    assert sight.boxes[2, 0].tolist() == [3, 1, 7, 3]
    assert sight.boxes[3, 0].tolist() == [-1] * 4
    # The middle of (1, 2, 3) of row 1 and (1, 2, 3, 4) of row 2 is (16/7, 11/7): nearest is (2, 2).
    assert sight.points[0, 0].tolist() == [2.5, 2.5]
    assert sight.points[0, 1].tolist() == [4.5, 5.5]
    found = truth_columns(episode, {"observation.images.front": (22, 3)}, 1, 3)
    assert found["truth.phase"].tolist() == [1, 4, 4], "let go of at rest"
    assert found["truth.contact"].tolist() == [1, 0, 0]
    assert found["truth.box.front"].tolist() == [[4, 0.5, 12, 1.5], [6, 0.5, 14, 1.5], [-1] * 4]
    assert found["truth.visible_px.front"].tolist() == [7, 7, 0], "twice as wide, half as high"
    unknown = write(tmp_path / "b", [0.0] * 3, ids=picture)
    assert truth_columns(unknown, {}, 0, 3)["truth.contact"].tolist() == [-1] * 3


def test_the_gripper_is_as_far_as_its_nearest_link_is_from_the_box(tmp_path):
    """The box is 0.2 x 0.4 x 0.6 m about a point 0.1 m above its origin; the hand slides along x on its middle line."""
    episode = write(tmp_path / "a", [1, 1, 1, 0.5], rail=[0, 0.7, 0.95, 1.2])
    found = truth_columns(episode, {}, 0, 4)["truth.gripper_object_m"]
    assert found == pytest.approx([0.9, 0.2, 0, 0.6], abs=1e-6)
    high = write(tmp_path / "b", [1.0], rail=[0.5], objects=(replace(BOX, center_m=(0, 0, 0.6)), POST))
    assert truth_columns(high, {}, 0, 1)["truth.gripper_object_m"] == pytest.approx([np.hypot(0.4, 0.3)], abs=1e-6)


def test_physics_stands_in_frames_of_the_window(tmp_path):
    touching = {1: FINGERS[:1], **dict.fromkeys(range(2, 6), FINGERS), 6: FINGERS[1:]}
    episode = write(tmp_path / "a", MOVES, touching=touching, ids=picture_of(10), samples=True, penetration=0.001)
    found = physics_arrays(episode, "front", 3, 5)
    assert (found["grasp_frame"].tolist(), found["release_frame"].tolist()) == ([-1, NEVER], [3, NEVER])
    assert found["settled_frame"].tolist() == [4, NEVER]
    assert found["contact_frame"].tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert found["contact_bodies"][:2].tolist() == [["/Box/lid", FINGERS[0]], ["/Box/lid", FINGERS[1]]]
    assert found["contact_position_m"][-1].tolist() == [6, 0, 0]
    assert found["contact_force_n"][0].tolist() == [0, 0, 2]
    assert found["time_s"] == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    assert found["track_time_s"] == pytest.approx([0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7])
    assert found["release_sample"].tolist() == [8, -1], "the first after the release at 0.6 s"
    assert physics_arrays(episode, "front", 1, 2)["camera_intrinsic"].shape == (2, 3, 3)
    assert physics_arrays(episode, "front", 1, 2)["T_camera_world"].shape == (2, 4, 4)
    assert physics_arrays(episode, None, 0, 3)["release_sample"].tolist() == [-1, -1], "beyond the window"
    assert physics_arrays(episode, None, 6, 1)["release_sample"].tolist() == [-1, -1], "no sample after it"
    assert found["object_masks"].shape == (5, 2, HIGH, 2)
    masks = unpack_masks(found)
    assert masks.shape == (5, 2, HIGH, WIDE)
    for k in range(5):
        ids = picture_of(10)(3 + k)
        assert np.array_equal(masks[k], np.stack([np.isin(ids, (5, 6)), ids == 7]))


def picture_of(count: int):
    return lambda t: picture(t % 5)


def test_parts_that_move_as_one_know_what_carries_them(tmp_path):
    parts, table, poses = rigid_parts(write(tmp_path / "a", [0.5, 0.6], rail=[0.1, 0.2], ids=picture))
    assert parts == (RigidPart("left", "arm", 2), RigidPart("mark", "arm", 4), RigidPart("box", "", 0))
    assert {k: int(table[k]) for k in (3, 4, 5, 6, 7, 8, 9)} == {3: 1, 4: 2, 5: 3, 6: 3, 7: 0, 8: 0, 9: 0}
    assert poses[1, :, 0, 3] == pytest.approx([0.2, 0.2, 0.6])
    robot = sliding()
    hand = Instance(8, "/A/hand/palm", "arm", "robot:arm")
    header = EpisodeHeader("t", 10, 0.1, (robot,), (), (), (*THINGS[:2], hand), joint_channels=())
    with EpisodeWriter(tmp_path / "b", header) as writer:
        state = RobotState(np.zeros(3), robot.forward_kinematics(np.zeros(3)), np.ones(1))
        writer.append(Frame(0.0, (state,), np.zeros((0, 4, 4)), ()))
        parts, _, _ = rigid_parts(writer.finish())
    assert [(p.name, p.carrier) for p in parts] == [("hand", -1), ("left", 0), ("mark", 0)]


def items(episode: Episode, **limits) -> dict[str, tuple]:
    found = check_episode(episode, CheckConfig(**limits))
    assert EpisodeCheck.from_json(found.to_json()) == found
    return {i.name: (i.status, None if i.value is None else round(i.value, 6), i.frame) for i in found.items}


def test_every_check_tells_its_worst_number_and_frame(tmp_path):
    robot = sliding(lower=0.0, upper=0.5, velocity_limit=2.0, effort_limit=10.0)
    robot = replace(
        robot, joints=(robot.joints[0], *(replace(j, velocity_limit=1.0, effort_limit=1.0) for j in robot.joints[1:]))
    )

    def bend(poses, t):
        poses = poses.copy()
        if t == 3:
            poses[4, 1, 3] += 0.25
            poses[2, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        return poses

    episode = write(
        tmp_path / "a", [0.0] * 5, rail=[0, 0.1, 0.4, 0.7, 0.7], robot=robot, effort=[1, -12, 3, 0, 0], bend=bend,
        times=[2, 2.1, 2.23, 2.3, 2.4], touching={1: FINGERS[:1], 4: FINGERS}, penetration=0.02, ids=picture,
        goal={"object": "box", "center_m": [0.3, 0, 0.1], "size_m": [0.4, 1, 1]},
    )  # fmt: skip
    found = items(episode, coverage_pixels=2)
    assert found == {
        "frame times": ("fail", 0.03, 2), "joint position limits (arm)": ("fail", 0.2, 3),
        # Central differences: (0.7 - 0.1) m in 0.2 s are 3 m/s of 2.
        "joint velocity (arm)": ("fail", 1.5, 2), "joint effort (arm)": ("fail", 1.2, 1),
        "link position against kinematics (arm)": ("fail", 0.25, 3),
        "link rotation against kinematics (arm)": ("fail", round(np.pi / 2, 6), 3), "penetration": ("fail", 0.02, 1),
        "task outcome": ("fail", 0.1, 4), "camera front sees the robot": ("pass", 1.0, None),
    }  # fmt: skip
    assert items(episode, coverage_pixels=3)["camera front sees the robot"] == ("fail", 0.0, 0)
    check = check_episode(episode)
    assert not check.passed
    details = {i.name: i.detail for i in check.items}
    assert "position of joint 'rail' is 0.7000 at frame 3; its limits are 0.0000 … 0.5000" in details.values()
    assert "effort of joint 'rail' is -12.000 at frame 1; its limit is 10.000" in details.values()
    assert "position of link 'mark' at frame 3 is 2.50e-01 m from forward kinematics" in details.values()
    assert "rotation of link 'left' at frame 3 is 1.57e+00 rad from forward kinematics" in details.values()
    assert f"/Box/lid and {FINGERS[0]} overlap by 20.0 mm at frame 1" in details.values()
    assert details["frame times"].startswith("frame 2 lies 0.030000 s from its place on the 10")


@pytest.mark.parametrize(
    ("x", "status", "value"), [(0.5, "pass", 0.0), (0.51, "fail", 0.01), (0.1, "pass", 0.0), (0.35, "pass", -0.15)]
)
def test_a_goal_is_a_box_of_the_world_that_the_things_centre_ends_in(tmp_path, x, status, value):
    goal = {"object": "box", "center_m": [0.3, 0, 0.4], "size_m": [0.4, 1, 1]}
    episode = write(tmp_path / "a", [9, x], goal=goal)
    assert items(episode)["task outcome"] == (status, pytest.approx(value, abs=1e-6), 1)


def test_what_nothing_was_stated_or_recorded_of_cannot_fail(tmp_path):
    free = replace(sliding(), joints=tuple(replace(j, lower=-np.inf, upper=np.inf) for j in sliding().joints))
    found = items(write(tmp_path / "a", [0.0, 0.0], robot=free))
    none = ("joint position limits (arm)", "joint velocity (arm)", "penetration", "task outcome")
    assert {n: found[n][0] for n in none} == dict.fromkeys(none, "not applicable")
    nobody = RobotSpec("stand", "/S", (LinkSpec("s", "/S/s"),), ())
    blind = items(write(tmp_path / "b", [0.0], robot=nobody, ids=picture))
    assert blind["camera front sees the robot"] == ("not applicable", None, None)
    assert items(write(tmp_path / "c", [0.0], goal={"object": "cup"}))["task outcome"][0] == "fail"
    for number, goal in enumerate(({"object": "box"}, {"object": "box", "center_m": [1, 2], "size_m": [1, 1, 1]})):
        assert items(write(tmp_path / f"d{number}", [0.0], goal=goal))["task outcome"][0] == "fail"


def test_a_camera_without_masks_sees_the_robot_where_a_link_is_in_its_picture(tmp_path):
    robot = sliding()
    header = EpisodeHeader(
        "t", FPS, 0.02, (robot,), (CameraSpec("c", "/C", (WIDE, HIGH), True, ("rgb",)),), joint_channels=()
    )
    K = np.array([[10.0, 0, 5], [0, 10.0, 3], [0, 0, 1]])
    with EpisodeWriter(tmp_path / "a", header) as writer:
        for t, x in enumerate((0.0, 0.55, 0.65, -0.45, -0.55)):
            q = np.array([x, 0, 0])
            # Base and mark stay behind the camera, the hand slides before it, a metre away.
            poses = robot.forward_kinematics(q, at(0, 0, 1))
            poses[[0, 4]] = at(0, 0, -1)
            view = CameraFrame(K, EYE, np.zeros((HIGH, WIDE, 3), np.uint8))
            writer.append(Frame(t / FPS, (RobotState(q, poses, np.ones(1)),), np.zeros((0, 4, 4)), (view,)))
        episode = writer.finish()
    # Half a metre is five pixels at 1 m: 5 + 5.5 and 5 - 4.5 lie within 0 … 11.
    (item,) = [i for i in check_episode(episode).items if i.name.startswith("camera")]
    assert (item.status, item.value, item.frame) == ("fail", pytest.approx(0.6), 2)
    assert Camera(K, EYE, (WIDE, HIGH)).project(np.array([0.55, 0, 1.0]))[0] == pytest.approx([10.5, 3])
