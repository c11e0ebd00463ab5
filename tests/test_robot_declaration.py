# SPDX-License-Identifier: Apache-2.0
"""End effectors in the user's own words: the file, what it changes, `retake robot`, and the skeleton that follows from it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retake.core.cli import main
from retake.core.ends import beside, declaration_text, declare, load_declarations
from retake.core.errors import InputError
from retake.core.robot import RobotSpec
from retake.usd.articulation import read_articulations
from retake.usd.stage import open_stage

STAGES = Path(__file__).parent / "stages"


def spec(name: str) -> RobotSpec:
    (path,) = STAGES.glob(f"{name}_*.usda")
    (robot,) = read_articulations(open_stage(path))
    return robot.spec


def said(robot: RobotSpec, folder: Path, text: str) -> RobotSpec:
    file = folder / "robot.yaml"
    file.write_text(text)
    (changed,) = declare([robot], load_declarations(file))
    return changed


@pytest.mark.parametrize("name", ["r01", "r03", "r04", "r05", "r08", "r09", "r10"])
def test_what_was_found_survives_its_own_declaration(name, tmp_path):
    """Writing what was found and declaring it changes nothing that is drawn."""
    robot = spec(name)
    again = said(robot, tmp_path, declaration_text([robot], "scene.usda"))
    ends = [[(g.ee_link, g.finger_joints, g.kind) for g in r.grippers] for r in (again, robot)]
    assert ends[0] == ends[1]
    for a, b in zip(again.grippers, robot.grippers, strict=True):
        np.testing.assert_allclose(a.T_link_ee, b.T_link_ee, atol=1e-4)
        np.testing.assert_allclose(
            [*a.open_position, *a.closed_position], [*b.open_position, *b.closed_position], atol=1e-5
        )
        assert again.chain(a) == robot.chain(b)


def test_a_declaration_of_a_few_lines(tmp_path):
    robot = said(
        spec("r05"), tmp_path,
        "base: trunk\nends:\n  - link: FL_2\n    approach: -z\n    opening: [0, 1, 0]\n"
        "    joints: {FL_j2: {open: 0.5, closed: -0.5}}\n",
    )  # fmt: skip
    (end,) = robot.grippers
    assert (end.ee_link, end.kind, end.finger_joints) == ("FL_2", "jaw", ("FL_j2",))
    np.testing.assert_array_equal(end.T_link_ee[:3, :3], np.array([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]))
    assert [robot.links[i].name for i in robot.chain(end)] == ["FL_2", "FL_1", "FL_0", "trunk"]
    q = np.zeros(len(robot.dof_names))
    q[robot.dof_index("FL_j2")] = 0.25
    assert robot.gripper_openness(q)[0] == pytest.approx(0.75)


def test_what_is_left_out_stays_as_found(tmp_path):
    plain = spec("r01")
    robot = said(plain, tmp_path, "ends: [{link: hand, joints: {}}]\n")
    np.testing.assert_array_equal(robot.grippers[0].T_link_ee, plain.grippers[0].T_link_ee)
    assert (robot.grippers[0].kind, robot.grippers[0].finger_joints) == ("tool", ())
    framed = said(plain, tmp_path, "base: link1\nends: [{link: hand, frame: tcp}]\n")
    np.testing.assert_allclose(framed.grippers[0].T_link_ee[:3, 3], [0.06, 0, 0], atol=1e-6)
    assert framed.grippers[0].finger_joints == ("left_joint", "right_joint")
    assert [framed.links[i].name for i in framed.chain(framed.grippers[0])] == ["hand", "link2", "link1"]
    assert not said(plain, tmp_path, "ends: []\n").grippers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ends: [{link: palm}]", "unknown link of robot 'Robot' 'palm'; valid: base_link, hand"),
        ("ends: [{link: hand, joints: {thumb: {open: 1, closed: 0}}}]", "unknown joint .* 'thumb'; valid: joint1"),
        ("ends: [{link: hand, joints: {joint1: {open: 1, closed: 1}}}]", "open and closed are both 1.0"),
        ("ends: [{link: hand, joints: {joint1: {open: 90, closed: 0}}}]", "joint 'joint1': open is 90 rad; its limits are"),
        ("ends: [{link: hand, joints: {left_joint: {open: 0, closed: -30}}}]", "'left_joint': closed is -30 m; its limits are"),
        ("ends: [{link: hand, joints: {joint1: {open: yes, closed: no}}}]", "open and closed are numbers; found"),
        ("ends: [{link: hand, translation_m: [0, 0, 103]}]", "'translation_m' of 'hand' is 103 m; expected metres"),
        ("ends: [{link: hand, translation_m: 103}]", "'translation_m' of 'hand' must be three finite numbers"),
        ("ends: [{link: hand, approach: '123'}]", "'approach' of 'hand' must be an axis such as -z or three finite numbers"),
        ("ends: [{link: hand, joints: {joint1: 3}}]", r"expected NAME: \{open: …, closed: …\}"),
        ("ends: [{link: hand, joints: {joint1: {open: .inf, closed: 1}}}]", "must be finite"),
        ("ends: [{link: hand, approach: up}]", "'approach' of 'hand' must be an axis such as -z or three finite numbers"),
        ("ends: [{link: hand, approach: [0, 0, 0]}]", "'approach' of 'hand' has no length"),
        ("ends: [{link: hand, approach: x, opening: -x}]", "nearly parallel"),
        ("ends: [{link: hand, frame: tcp, approach: x}]", "give one of the two"),
        ("ends: [{link: hand, frame: link1}]", "frame 'link1' moves against link 'hand'"),
        ("ends: [{link: hand}, {link: hand}]", "two end effectors are named alike"),
        ("ends: [{}]", "an end effector needs 'link'"),
        ("ends: hand", "'ends' must list end effectors"),
        ("base: left_finger\nends: [{link: hand}]", "unknown base of end effector 'hand'"),
        ("robot: Other\nends: []", r"unknown robot 'Other'; valid: Robot \(/World/Robot\)"),
        ("robots: []", "'robots' must list robots"),
        ("links: [hand]", "unknown key 'links'; valid: base, ends, robot"),
        ("- 3", "expected a mapping with 'robots'"),
    ],
)  # fmt: skip
def test_refusals_teach(text, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        said(spec("r01"), tmp_path, text)
    assert "robot.yaml" in str(error.value)


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(InputError, match=r"retake robot STAGE --write none\.yaml"):
        load_declarations(tmp_path / "none.yaml")


def test_command_prints_draws_and_writes(tmp_path, capsys):
    stage = tmp_path / "scene.usda"
    stage.write_bytes((STAGES / "r03_single_jaw.usda").read_bytes())
    picture = tmp_path / "robot.png"
    assert main(["robot", str(stage), "--write", "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "jaw 'hand' on link hand" in out
    assert "jaw_joint: open 100°, closed -10°" in out
    assert "    jaw_joint: turns -10° to 100°" in out
    assert cv2.imread(str(picture)).shape[1] == 3 * 420
    file = beside(stage)
    assert file is not None
    assert file.name == "scene.robot.yaml"
    assert main(["robot", str(stage), "--write"]) == 2 or "exists" in capsys.readouterr().err
    file.write_text("ends: [{link: hand, name: tool, approach: y, joints: {}}]\n")
    capsys.readouterr()
    assert main(["robot", str(stage)]) == 0
    out = capsys.readouterr().out
    assert "tool 'tool' on link hand" in out
    assert "approach +y" in out
    assert main(["robot", str(stage), "--robot", str(tmp_path / "none.yaml")]) != 0
    assert "does not exist" in capsys.readouterr().err
