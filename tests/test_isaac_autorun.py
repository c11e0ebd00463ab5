# SPDX-License-Identifier: Apache-2.0
"""A motion file in the autorun: every robot that it names is commanded, and what it may say is what the embedded simulator
takes, in the same words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from fakes.kit import FakeKit
from fakes.stage import Motion, make_stage, random_motion
from pxr import Sdf

from retake.core.errors import InputError
from retake.core.joint_motion import read_motion
from retake.isaac import autorun
from retake.newton.motion import replay

SHOULDER, ELBOW, LEFT, RIGHT = range(4)


def two_arms(kinds: str = "same") -> Motion:
    """Arm0 and Arm1 in centimetres, equal or with an elbow that is a knee of the second."""
    stage = make_stage(robots=2, metres_per_unit=0.01)
    if kinds == "different":
        edit = Sdf.BatchNamespaceEdit()
        edit.Add("/World/Arm1/joints/elbow", "/World/Arm1/joints/knee")
        assert stage.GetRootLayer().Apply(edit)
    return random_motion(stage, 200)


def motion_file(folder: Path, **columns: float) -> Path:
    """Every joint goes to its place and stays there."""
    rows = [",".join(["time_s", *columns]), *(",".join(map(str, [t, *columns.values()])) for t in (0.0, 0.3))]
    (folder / "motion.csv").write_text("\n".join(rows))
    return folder / "motion.csv"


def recorded(folder: Path, source: Motion, file: Path, **changes: Any) -> tuple[int, FakeKit]:
    """Exit code of an autorun with that motion, and the application afterwards."""
    values = {"output": str(folder / "run"), "width": 32, "height": 24, "generate": False, "mode": "stepped"}
    path = folder / "autorun.yaml"
    path.write_text(yaml.safe_dump({**values, "trajectory": str(file), **changes}))
    with FakeKit("6.x", source) as kit:
        return asyncio.run(autorun.run_file(path)), kit


def last_commands(kit: FakeKit) -> dict[str, Any]:
    """Targets of every robot that was commanded, by prim path."""
    out: dict[str, Any] = {}
    for command in kit.commanded:
        out.update(command)
    return out


def kept(source: Motion, robot: int, targets: Any, *joints: int) -> bool:
    """Whether these joints were sent the targets that they had at some step."""
    return any(np.array_equal(row[list(joints)], targets[list(joints)]) for row in source.target[robot])


@pytest.mark.parametrize("kinds", ["same", "different"])
def test_every_robot_that_the_file_names_is_commanded_and_other_joints_keep_their_targets(
    tmp_path: Path, kinds: str
) -> None:
    """Robots of one kind are one view of the physics, others have views of their own."""
    source = two_arms(kinds)
    file = motion_file(
        tmp_path, **{"Arm1/shoulder": 0.7, "/World/Arm0/joints/elbow": -0.4, "/World/Arm1/joints/finger_left": 0.02}
    )
    code, kit = recorded(tmp_path, source, file)
    assert code == 0
    sent = last_commands(kit)
    assert sent["/World/Arm0"][ELBOW] == np.float32(-0.4)
    assert kept(source, 0, sent["/World/Arm0"], SHOULDER, LEFT, RIGHT)
    assert sent["/World/Arm1"][SHOULDER] == np.float32(0.7)
    assert sent["/World/Arm1"][LEFT] == np.float32(2.0), "m in the file, cm on the stage"
    assert kept(source, 1, sent["/World/Arm1"], ELBOW, RIGHT)


def test_a_bare_name_means_the_only_robot_that_has_it(tmp_path: Path) -> None:
    code, kit = recorded(tmp_path, two_arms("different"), motion_file(tmp_path, knee=0.3, elbow=0.1))
    assert code == 0
    sent = last_commands(kit)
    assert (sent["/World/Arm1"][ELBOW], sent["/World/Arm0"][ELBOW]) == (np.float32(0.3), np.float32(0.1))


def test_a_robot_that_the_file_does_not_name_is_left_alone(tmp_path: Path) -> None:
    source = two_arms("different")
    code, kit = recorded(tmp_path, source, motion_file(tmp_path, knee=0.3))
    assert code == 0
    assert list(last_commands(kit)) == ["/World/Arm1"]


def test_among_the_robots_to_record_a_bare_name_may_be_the_only_one(tmp_path: Path) -> None:
    code, kit = recorded(tmp_path, two_arms(), motion_file(tmp_path, shoulder=0.3), robots="/World/Arm1")
    assert code == 0
    sent = last_commands(kit)
    assert list(sent) == ["/World/Arm1"]
    assert sent["/World/Arm1"][SHOULDER] == np.float32(0.3)


WRONG = [
    ({"shoulder": 0.0}, "2 robots have a joint 'shoulder'; write Arm0/shoulder, Arm1/shoulder"),
    ({"Arm2/shoulder": 0.0}, "'Arm2/shoulder'; valid: Arm0/elbow, Arm0/finger_left"),
    ({"/World/Arm1/joints/knee": 0.0}, "'/World/Arm1/joints/knee'; valid: Arm0/elbow"),
    ({"Arm0/elbow": 0.0, "/World/Arm0/joints/elbow": 0.0}, "'/World/Arm0/joints/elbow' has two columns"),
]


@pytest.mark.parametrize(("columns", "text"), WRONG)
def test_a_name_that_is_nobodys_or_anybodys_is_refused_before_anything_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, float], text: str
) -> None:
    code, kit = recorded(tmp_path, two_arms(), motion_file(tmp_path, **columns))
    assert code == 2
    said = capsys.readouterr().out
    assert text in said
    assert str(tmp_path / "motion.csv") in said
    assert (kit.step, kit.commanded) == (0, [])
    assert not (tmp_path / "run/episode").exists()


@pytest.mark.parametrize(("columns", "text"), WRONG)
def test_what_is_wrong_is_said_in_the_embedded_simulators_words(
    tmp_path: Path, columns: dict[str, float], text: str
) -> None:
    source, file = two_arms(), motion_file(tmp_path, **columns)
    ended: list[Exception] = []
    capture = autorun.LiveCapture(autorun.CaptureRequest(output=str(tmp_path / "e")))
    capture.content = SimpleNamespace(robots=source.robots)  # type: ignore[assignment]
    capture.fail = ended.append  # type: ignore[method-assign]
    with pytest.raises(InputError) as here:
        autorun.Trajectory.load(file, capture).check()
    with pytest.raises(InputError) as there:
        replay(source.robots, file)
    assert text in str(here.value)
    assert str(here.value) == str(there.value)
    assert ended == [here.value], "the recording's status tells the reason"


def test_what_is_named_goes_where_the_embedded_simulator_would_have_it(tmp_path: Path) -> None:
    """Both hosts read the same joints off one file with all three forms."""
    source = two_arms("different")
    file = motion_file(tmp_path, **{"knee": 0.1, "Arm0/shoulder": 0.2, "/World/Arm1/joints/shoulder": 0.3})
    capture = autorun.LiveCapture(autorun.CaptureRequest(output=str(tmp_path / "e")))
    capture.content = SimpleNamespace(robots=source.robots)  # type: ignore[assignment]
    found = capture.find_joints(read_motion(file).names, file)
    assert found == [(1, ELBOW), (0, SHOULDER), (1, SHOULDER)]
    targets = replay(source.robots, file).targets(0.3)
    assert [targets[robot][dof] for robot, dof in found] == [0.1, 0.2, 0.3]
