# SPDX-License-Identifier: Apache-2.0
"""What is read from an episode of a few frames in which every position, contact and pixel was put by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hand_episode import EYE, FINGERS, FPS, HIGH, MOVES, THINGS, WIDE, at, picture, sliding, write

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
    RobotState,
)
from retake.core.episode.check import EpisodeCheck, check_episode
from retake.core.episode.events import ObjectEvents, _longest, holders, object_events
from retake.core.episode.parts import RigidPart, rigid_parts
from retake.core.export.truth import story_of
from retake.core.robot import LinkSpec, RobotSpec


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
