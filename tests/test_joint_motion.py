# SPDX-License-Identifier: Apache-2.0
"""Whose joints a motion file names: laws over robots of any names, which hold for every simulator that reads such files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.joint_motion import RobotJoints, match_joints

FILE = Path("reach.csv")
JOINTS = ("shoulder", "elbow", "wrist yaw", "Gelenk/1", "left_finger", "right_finger")
ROBOTS = ("arm", "arm_2", "Arm", "panda.left", "shoulder")


@st.composite
def cells(draw: st.DrawFn, least: int = 1) -> tuple[RobotJoints, ...]:
    """Robots whose joint names overlap. Names and prim paths of joints differ within a robot, those of robots everywhere."""
    names = draw(st.lists(st.sampled_from(ROBOTS), min_size=least, max_size=4, unique=True))
    out = []
    for index, name in enumerate(names):
        joints = tuple(draw(st.lists(st.sampled_from(JOINTS), min_size=1, max_size=4, unique=True)))
        path = f"/World/env_{index}/Robot"
        out.append(RobotJoints(name, path, joints, tuple(f"{path}/joints/j{k}" for k in range(len(joints)))))
    return tuple(out)


def every(robots: tuple[RobotJoints, ...]) -> list[tuple[int, int]]:
    """Every joint there is."""
    return [(r, d) for r, one in enumerate(robots) for d in range(len(one.names))]


def having(robots: tuple[RobotJoints, ...], name: str) -> list[int]:
    return [r for r, one in enumerate(robots) if name in one.names]


@given(cells(), st.data())
def test_the_prim_path_and_the_robots_name_before_it_mean_one_joint_each(
    robots: tuple[RobotJoints, ...], data: st.DataObject
) -> None:
    """In any order and mixed, whatever `robot` says about bare names."""
    asked = data.draw(st.permutations(every(robots)))
    names = [
        robots[r].paths[d] if data.draw(st.booleans()) else f"{robots[r].robot}/{robots[r].names[d]}" for r, d in asked
    ]
    whose = data.draw(st.sampled_from(["", *(one.robot for one in robots)]))
    assert match_joints(names, robots, FILE, whose) == list(asked)


@given(cells())
def test_a_bare_name_means_the_only_joint_of_that_name_or_is_refused_with_ways_that_work(
    robots: tuple[RobotJoints, ...],
) -> None:
    for r, d in every(robots):
        name = robots[r].names[d]
        owners = having(robots, name)
        if owners == [r]:
            assert match_joints([name], robots, FILE) == [(r, d)]
            continue
        with pytest.raises(InputError) as refused:
            match_joints([name], robots, FILE)
        said, _, ways = str(refused.value).partition("; write ")
        assert said == f"motion file reach.csv: {len(owners)} robots have a joint {name!r}"
        found = [match_joints([way], robots, FILE)[0] for way in ways.split(", ")]
        assert found == [(owner, robots[owner].names.index(name)) for owner in owners]


@given(cells())
def test_whose_joints_bare_names_mean_can_be_said_by_name_or_prim_path(robots: tuple[RobotJoints, ...]) -> None:
    for r, d in every(robots):
        for whose in (robots[r].robot, robots[r].prim_path):
            assert match_joints([robots[r].names[d]], robots, FILE, whose) == [(r, d)]


@given(cells(least=2))
def test_what_only_another_robot_has_is_found_there_whosever_joints_bare_names_mean(
    robots: tuple[RobotJoints, ...],
) -> None:
    for r, d in every(robots):
        if having(robots, robots[r].names[d]) == [r]:
            for whose in robots:
                assert match_joints([robots[r].names[d]], robots, FILE, whose.robot) == [(r, d)]


@given(
    cells(), st.sampled_from(["knee", "", "arm/knee", "nobody/elbow", "/World/env_9/Robot/joints/j0", "ELBOW", "arm/"])
)
def test_what_no_robot_has_is_refused_with_every_name_that_would_be_taken(
    robots: tuple[RobotJoints, ...], name: str
) -> None:
    with pytest.raises(InputError) as refused:
        match_joints([name], robots, FILE)
    said, _, valid = str(refused.value).partition("; valid: ")
    assert said == f"unknown joint in reach.csv {name!r}"
    listed = valid.split(", ")
    assert sorted(match_joints(listed, robots, FILE)) == every(robots)
    assert all(("/" in re.sub("Gelenk/1", "", name)) == (len(robots) > 1) for name in listed)


@given(cells(), st.data())
def test_one_joint_under_two_names_is_refused(robots: tuple[RobotJoints, ...], data: st.DataObject) -> None:
    r, d = data.draw(st.sampled_from(every(robots)))
    twice = data.draw(st.permutations([robots[r].paths[d], f"{robots[r].robot}/{robots[r].names[d]}"]))
    with pytest.raises(InputError, match=re.escape(f"reach.csv: joint {twice[1]!r} has two columns")):
        match_joints(twice, robots, FILE)


def test_a_prim_path_goes_before_a_robots_name_and_that_before_a_bare_name() -> None:
    """Names for display may hold anything; where one reads like another joint's address, the address is meant."""
    arm = RobotJoints("arm", "/arm", ("elbow", "/odd/j0"), ("/arm/j0", "/arm/j1"))
    odd = RobotJoints("odd", "/odd", ("arm/elbow",), ("/odd/j0",))
    assert match_joints(["/odd/j0", "arm/elbow"], (arm, odd), FILE) == [(1, 0), (0, 0)]
    assert match_joints(["arm//odd/j0", "odd/arm/elbow"], (arm, odd), FILE) == [(0, 1), (1, 0)]


def test_where_no_robot_is_that_is_said() -> None:
    with pytest.raises(InputError, match=r"unknown joint in reach.csv 'elbow'; valid: \(none\)"):
        match_joints(["elbow"], (), FILE)
