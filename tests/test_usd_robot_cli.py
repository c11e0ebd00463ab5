# SPDX-License-Identifier: Apache-2.0
"""What `retake robot` prints of robots, line by line, and the order in which it looks, refuses and writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.errors import InputError
from retake.core.robot import GripperSpec, JointSpec, LinkSpec, Mimic, RobotSpec
from retake.usd import robot_cli
from retake.usd.robot_cli import _axis, _joints, _lines, main

STAGES = Path(__file__).parent / "stages"
ONE, TWO, NONE = (
    next(STAGES.glob(f"{name}_*.usda")) for name in ("r03", "r26", "r05")
)  # one robot, two of them, one without an end
DEGREE = np.pi / 180


def joint(
    name: str, child: int, kind: Any = "revolute", lower: float = -np.inf, upper: float = np.inf, **more: Any
) -> JointSpec:
    return JointSpec(name, kind, child - 1, child, (0.0, 0.0, 1.0), np.eye(4), np.eye(4), lower, upper, **more)


def spec(*joints: JointSpec, ends: tuple[GripperSpec, ...] = (), name: str = "Arm") -> RobotSpec:
    links = tuple(LinkSpec(f"link{k}", f"/World/{name}/link{k}") for k in range(len(joints) + 1))
    return RobotSpec(name, f"/World/{name}", links, joints, ends)


def lines(*specs: RobotSpec, fixed: bool = True, declared: Path | None = None) -> list[str]:
    robots: list[Any] = [SimpleNamespace(spec=one, fixed_base=fixed) for one in specs]
    return _lines(robots, declared)


MOVED = (
    joint("turn", 1, lower=-90 * DEGREE, upper=45 * DEGREE),
    joint("slide", 2, "prismatic", 0.0, 0.25),
    joint("spin", 3),
    joint("half", 4, lower=0.0),
    joint("idle", 5, driven=False),
    joint("other", 6, "prismatic", -0.001, np.inf, driven=False, mimic=Mimic("slide")),
    joint("weld", 7, "fixed"),
)


def test_a_joint_is_told_with_what_it_does_how_far_and_who_moves_it() -> None:
    assert _joints(spec(*MOVED)) == [
        "  joints",
        "    turn: turns -90° to 45°",
        "    slide: slides 0 mm to 250 mm",
        "    spin: turns without limits",
        "    half: turns 0° to any",
        "    idle: turns without limits, passive",
        "    other: slides -1 mm to any, follows slide",
    ]


@pytest.mark.parametrize(
    ("joints", "counted"),
    [
        ((), "1 links, 0 joints,"),
        (MOVED[:1], "2 links, 1 joints,"),
        (MOVED, "8 links, 6 joints (1 follow others, 1 passive),"),
        (MOVED[:5], "6 links, 5 joints (1 passive),"),
        ((*MOVED[:2], joint("other", 3, driven=False, mimic=Mimic("turn"))), "4 links, 3 joints (1 follow others),"),
    ],
)
@pytest.mark.parametrize(("fixed", "held"), [(True, "held by the world"), (False, "free")])
def test_a_robot_is_told_in_one_line_then_its_joints_then_that_it_has_no_end(
    joints: tuple[JointSpec, ...], counted: str, fixed: bool, held: str
) -> None:
    robot = spec(*joints)
    assert lines(robot, fixed=fixed) == [
        f"Arm  /World/Arm  {counted} base link0 {held}",
        *(_joints(robot) if joints else []),
        "  no end effector: declare one (--write gives the form)",
    ]


def end(**change: Any) -> GripperSpec:
    T = np.eye(4)
    T[:3, :3] = [[0, 0, -1], [1, 0, 0], [0, -1, 0]]
    made = GripperSpec("grip", "link2", T, ("turn", "slide"), (45 * DEGREE, 0.25), (0.0, 0.1), "gripper", "two fingers")
    return replace(made, **change)


def test_an_end_is_told_with_its_axes_its_chain_its_fingers_and_why() -> None:
    told = [
        "  gripper 'grip' on link link2",
        "    approach -x, opening -z in the link's axes",
        "    chain link2 - link1 - link0",
        "    turn: open 45°, closed 0°",
        "    slide: open 250 mm, closed 100 mm",
        "    why: two fingers",
    ]
    assert lines(spec(*MOVED[:2], ends=(end(),)))[4:] == told
    tool = end(
        kind="tool", name="tip", ee_link="link1", finger_joints=(), open_position=(), closed_position=(), note=""
    )
    assert lines(spec(*MOVED[:2], ends=(end(note=""), tool)))[4:] == [
        *told[:5],
        "  tool 'tip' on link link1",
        told[1],
        "    chain link1 - link0",
    ]


def test_every_robot_is_told_in_turn_below_what_declares_them() -> None:
    one, two = spec(*MOVED[:1]), spec(*MOVED, name="Other", ends=(end(),))
    assert lines() == []
    assert lines(one, two) == [*lines(one), *lines(two)]
    assert lines(one, two, declared=Path("a.yaml")) == ["declared in a.yaml", *lines(one), *lines(two)]


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        *(((np.eye(3) * sign)[k], f"{'+' if sign > 0 else '-'}{'xyz'[k]}") for k in range(3) for sign in (1, -1)),
        ((1e-5, 1 - 5e-11, 0), "+y"),
        ((0.0, -0.6, 0.8), "(0.000, -0.600, 0.800)"),
        ((1e-4, 0, 1 - 5e-9), "(0.000, 0.000, 1.000)"),
    ],
)
def test_a_direction_along_an_axis_has_its_name(direction: Any, said: str) -> None:
    assert _axis(np.array(direction, float)) == said


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "robots"), [(ONE, 1), (TWO, 2), (NONE, 1)])
def test_the_same_robots_are_printed_in_words_and_as_json(stage: Path, robots: int, capsys: Any) -> None:
    assert main([str(stage), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main([str(stage)]) == 0
    words = capsys.readouterr().out
    assert len(told["robots"]) == robots
    for robot in told["robots"]:
        found = RobotSpec.from_json(robot)
        assert f"{found.name}  {found.prim_path}  {len(found.links)} links, {len(found.dof_names)} joints" in words
    assert [line.removeprefix("note: ") for line in words.splitlines() if line.startswith("note: ")] == told["notes"]


def test_only_the_robots_asked_for_are_printed(capsys: Any) -> None:
    assert main([str(TWO), "--json"]) == 0
    first, second = (robot["prim_path"] for robot in json.loads(capsys.readouterr().out)["robots"])
    for asked, left in ((second, first), (first, second)):
        assert main([str(TWO), "--prim", asked]) == 0
        words = capsys.readouterr().out
        assert f"  {asked}  " in words
        assert f"  {left}  " not in words


@pytest.mark.parametrize("there", ["robot.yaml", "robot.png"])
def test_nothing_is_written_where_one_of_the_files_exists(
    there: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        robot_cli, "draw_robots", lambda stage, robots: np.full((4 * len(robots), 6, 3), (250, 10, 0), np.uint8)
    )
    (tmp_path / there).write_text("mine")
    asked = [str(ONE), "--write", str(tmp_path / "robot.yaml"), "--picture", str(tmp_path / "robot.png")]
    with pytest.raises(InputError, match=f"{there} exists; choose another name, or replace it with --overwrite"):
        main(asked)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert main([*asked, "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"declaration: {tmp_path / 'robot.yaml'}", f"picture: {tmp_path / 'robot.png'}",
    ]  # fmt: skip
    picture = robot_cli.cv2.imread(str(tmp_path / "robot.png"))
    assert (picture == (0, 10, 250)).all(), "red stays red"
    assert "hand" in (tmp_path / "robot.yaml").read_text()


def test_a_declaration_given_wins_over_the_one_beside_the_stage(tmp_path: Path, capsys: Any) -> None:
    stage, own = tmp_path / "scene.usda", tmp_path / "own.yaml"
    stage.write_bytes(ONE.read_bytes())
    for file, name in ((tmp_path / "scene.robot.yaml", "beside"), (own, "given")):
        file.write_text(f"ends: [{{link: hand, name: {name}}}]\n")
    for argv, name, file in (([], "beside", "scene.robot.yaml"), (["--robot", str(own)], "given", "own.yaml")):
        assert main([str(stage), *argv]) == 0
        words = capsys.readouterr().out
        assert words.startswith(f"declared in {tmp_path / file}\n")
        assert f"jaw {name!r} on link hand" in words


def test_json_stays_json_beside_what_is_written(tmp_path: Path, capsys: Any) -> None:
    written, picture = tmp_path / "own.robot.yaml", tmp_path / "own.png"
    main([str(TWO), "--json", "--write", str(written), "--picture", str(picture)])
    out, err = capsys.readouterr()
    assert set(json.loads(out)) == {"robots", "notes"}
    assert err.splitlines() == [f"declaration: {written}", f"picture: {picture}"]
