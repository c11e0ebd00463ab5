# SPDX-License-Identifier: Apache-2.0
"""Which entry of a recorded state is which joint: by name in every usual spelling, by what the user states, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_robot

from retake.core.errors import InputError
from retake.core.importers.entries import MISSING, find_entries, so_arm
from retake.core.robot import Mimic, RobotSpec

ARM = ["joint0", "joint1"]
FINGERS = ["finger_left", "finger_right"]
SO = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


def robot(**change: Any) -> RobotSpec:
    return replace(random_robot(np.random.default_rng(1), "arm", 2), **change)


def found(names: list[str], joints: Any = (), grippers: Any = (), of: RobotSpec | None = None) -> Any:
    return find_entries(of or robot(), names, dict(joints), dict(grippers), "observation.state")


def refused(names: list[str], joints: Any = (), grippers: Any = ()) -> str:
    with pytest.raises(InputError) as error:
        found(names, joints, grippers)
    return str(error.value)


@given(
    stem=st.sampled_from(["{}", "arm.{}"]), suffix=st.sampled_from([".pos", "", ".position", "_pos", "_position", ".q"]),
    unit=st.sampled_from([("", None), (".rad", "rad"), ("_deg", "deg"), ("/degrees", "deg"), (".radians", "rad"), ("_mm", "mm")]),
    order=st.permutations([*ARM, *FINGERS]),
)  # fmt: skip
def test_a_joint_is_found_in_every_usual_spelling(stem: str, suffix: str, unit: Any, order: list[str]) -> None:
    spelt = {joint: stem.format(joint) + suffix + unit[0] for joint in order}
    read = found(list(spelt.values()))
    assert dict(read.joints) == spelt
    assert dict(read.units) == ({} if unit[1] is None else dict.fromkeys(spelt, unit[1]))
    assert (read.missing, read.notes, read.jaw, read.old_so_arm) == ((), (), "", False)


def test_of_two_entries_that_may_be_a_joint_the_usual_one_is() -> None:
    names = ["joint0", "joint0.pos", "arm.joint1", "joint1_deg", *FINGERS]
    read = found(names)
    assert (read.joints["joint0"], read.joints["joint1"]) == ("joint0.pos", "joint1_deg")
    assert read.units == {"joint1": "deg"}
    stated = found(names, {"joint0": "joint0", "joint1": "arm.joint1"})
    assert (stated.joints["joint0"], stated.joints["joint1"], dict(stated.units)) == ("joint0", "arm.joint1", {})


@pytest.mark.parametrize(
    ("joints", "grippers", "why"),
    [({"elbow": "joint0"}, {}, "unknown joint of robot 'arm' 'elbow'"),
     ({}, {"claw": "joint0"}, "unknown gripper of robot 'arm' 'claw'"),
     ({"joint0": "x"}, {}, "unknown entry of observation.state 'x'"),
     ({}, {"hand": "x"}, "unknown entry of observation.state 'x'"),
     ({"joint0": MISSING}, {}, f"unknown entry of observation.state '{MISSING}'")],
)  # fmt: skip
def test_what_is_stated_must_be_there(joints: Any, grippers: Any, why: str) -> None:
    assert why in refused([*ARM, *FINGERS], joints, grippers)


def test_a_gripper_is_known_by_its_fingers_its_openness_or_not() -> None:
    assert "nothing in observation.state gives the gripper hand" in refused(ARM)
    assert "finger joints finger_left, finger_right" in refused(ARM)
    one = refused([*ARM, "finger_left"])
    assert "(finger joints finger_right;" in one
    assert "--gripper hand=ENTRY" in one
    for names, grippers in (
        (["hand.open"], {}),
        (["grip"], {"hand": "grip"}),
        (["grip", "hand.open"], {"hand": "grip"}),
    ):
        read = found([*ARM, *names], {}, grippers)
        assert dict(read.openness) == {"hand": grippers.get("hand", "hand.open")}
        assert read.missing == ()
    read = found(ARM, {}, {"hand": MISSING})
    assert (dict(read.openness), read.missing) == ({}, ("hand",))
    assert read.notes == ("the openness of gripper hand was not recorded; it is missing, not 1.0",)


def test_a_tool_without_fingers_has_no_openness_and_needs_none() -> None:
    bare = robot()
    bare = replace(
        bare, grippers=tuple(replace(g, finger_joints=(), open_position=(), closed_position=()) for g in bare.grippers)
    )
    read = found([*ARM, *FINGERS], of=bare)
    assert read.missing == ("hand",)
    assert len(read.notes) == 1


def test_joints_that_follow_others_need_no_entry_of_their_own() -> None:
    def following(**leaders: str) -> RobotSpec:
        joints = [
            replace(j, mimic=Mimic(leaders[j.name], 1.0, 0.0)) if j.name in leaders else j for j in robot().joints
        ]
        return robot(joints=tuple(joints))

    read = found([*ARM, "finger_left"], of=following(finger_right="finger_left"))
    assert set(read.joints) == {*ARM, "finger_left"}
    read = found(ARM, of=following(finger_right="finger_left", finger_left="joint1"))
    assert set(read.joints) == set(ARM)
    assert read.missing == ()


def test_joints_without_an_entry_are_all_named() -> None:
    said = refused(["other", *FINGERS])
    assert (
        "joints joint0, joint1 of robot 'arm' have no entry in observation.state (other, finger_left, finger_right)"
        in said
    )
    assert "--joint joint0=ENTRY" in said


SPELT = {
    "plain": SO, "with suffixes": [f"{n}.pos" for n in SO], "old": [f"main_{n}" for n in SO],
    "loud": [n.replace("_", "-").upper() for n in SO], "of the description": ["1", "2", "3", "4", "5", "6"],
    "spaced": ["Shoulder Pan", "Shoulder Lift", "Elbow Flex", "Wrist Flex", "Wrist Roll", "Gripper"],
}  # fmt: skip


@pytest.mark.parametrize("spelling", [name for name in SPELT if name != "of the description"])
@given(order=st.permutations(range(6)))
def test_the_motors_of_an_so_arm_are_told_in_any_order(spelling: str, order: list[int]) -> None:
    names = [SPELT[spelling][k] for k in order]
    assert so_arm(["Rotation", "Pitch", "Elbow", "Wrist_Pitch", "Wrist_Roll", "Jaw"], names) == dict(
        zip(["Rotation", "Pitch", "Elbow", "Wrist_Pitch", "Wrist_Roll", "Jaw"], SPELT[spelling], strict=True)
    )


def test_what_is_no_so_arm_is_told_by_no_guess() -> None:
    assert so_arm(SO, SPELT["of the description"]) is None
    assert so_arm(SO[:5], SO) is None
    assert so_arm(SO, SO[1:]) is None
    assert so_arm(SO, [*SO, "jaw"]) is None, "two entries for one motor"
    assert so_arm([*SO, "base"], SO) is None
    assert so_arm(SO, [*SO, "time"]) == dict(zip(SO, SO, strict=True)), "further entries are no motors"
