# SPDX-License-Identifier: Apache-2.0
"""Files around the embedded simulator: what a fingerprint follows from, damaged motions, names of robots."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import usd_stages
from pxr import Usd, UsdGeom

from retake.core.errors import InputError
from retake.core.joint_motion import read_motion
from retake.newton import describe
from retake.newton.describe import SCENERY, scene_around
from retake.newton.preset import fingerprint
from retake.usd.articulation import find_articulations
from retake.usd.camera import usable_cameras


def test_a_declaration_beside_a_description_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage is converted elsewhere; the declaration lies beside what the user named."""
    usd_stages.pendulum().Export(str(tmp_path / "kept.usda"))
    monkeypatch.setattr(describe, "described", lambda _file: tmp_path / "kept.usda")
    robot = tmp_path / "robot" / "arm.urdf"
    robot.parent.mkdir()
    robot.write_text("<robot/>", encoding="utf-8")
    seen = [fingerprint("short", {}, robot)]
    for content in ("ends: {}", "ends: []"):
        robot.with_suffix(".robot.yaml").write_text(content, encoding="utf-8")
        seen.append(fingerprint("short", {}, robot))
    assert len(set(seen)) == 3


URDF = "<robot name='arm'><link name='a'><visual><geometry><mesh filename='{}'/></geometry></visual></link></robot>"
MJCF = "<mujoco><compiler meshdir='../meshes'/><asset><mesh file='part.stl'/></asset></mujoco>"
INCLUDES = "<mujoco><include file='../more/parts.xml'/></mujoco>"


@pytest.mark.parametrize(
    "text",
    [URDF.format("package://arm robot/meshes/part.stl"), URDF.format("../meshes/part.stl"), MJCF, INCLUDES],
    ids=["package", "relative", "meshdir", "include"],
)
def test_a_mesh_outside_the_descriptions_folder_counts(tmp_path: Path, text: str) -> None:
    """Packages keep meshes beside the folder of the description; another mesh is another robot."""
    folders = {name: tmp_path / "arm robot" / name for name in ("urdf", "meshes", "more")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["more"] / "parts.xml").write_text(MJCF, encoding="utf-8")
    file = folders["urdf"] / "arm.xml"
    file.write_text(text, encoding="utf-8")
    mesh = folders["meshes"] / "part.stl"
    seen = []
    for content in (b"1", b"22"):
        mesh.write_bytes(content)
        seen += [describe._fingerprint(file), describe._fingerprint(file)]
    assert (seen[0], seen[2]) == (seen[1], seen[3])
    assert seen[0] != seen[2]


@pytest.mark.parametrize("name", [*SCENERY, "arm"])
def test_a_robot_may_be_called_as_what_it_stands_among(tmp_path: Path, name: str) -> None:
    usd_stages.pendulum().Export(str(tmp_path / "robot.usda"))
    stage = Usd.Stage.Open(str(scene_around(tmp_path / "robot.usda", tmp_path / "scene.usda", model=name)))
    assert len(find_articulations(stage).robots) == 1
    assert str(usable_cameras(stage)[0][0].GetPath()) == "/World/Camera"
    assert stage.GetPrimAtPath("/World/Floor").IsA(UsdGeom.Cube)
    assert not any(child.IsA(UsdGeom.Xform) for child in stage.GetPrimAtPath("/World/Floor").GetChildren())


def test_what_a_user_has_not_saved_of_a_robot_is_not_saved_by_a_scene_around_it(tmp_path: Path) -> None:
    """Its own stage may be open, with changes that somebody may yet throw away."""
    robot = tmp_path / "robot.usda"
    usd_stages.pendulum().Export(str(robot))
    before, opened = robot.read_bytes(), Usd.Stage.Open(str(robot))
    opened.GetPseudoRoot().GetChildren()[0].SetDocumentation("not decided yet")
    assert opened.GetRootLayer().dirty
    scene_around(robot, tmp_path / "scene.usda", model="arm")
    assert robot.read_bytes() == before
    assert opened.GetRootLayer().dirty
    assert len(find_articulations(Usd.Stage.Open(str(tmp_path / "scene.usda"))).robots) == 1


def saved(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def one_array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


WHOLE = saved(time_s=np.arange(500.0), joint_names=["a"], joint_position=np.zeros((500, 1)))
DAMAGED = {
    "empty": b"",
    "no archive": b"PK, or so",
    "cut off": WHOLE[:3000],
    "other bytes": WHOLE[:200] + b"\xff" * 200 + WHOLE[400:],
    "an array": one_array(),
    "scalars": saved(time_s=0.0, joint_names="a", joint_position=1.0),
    "times in a column": saved(time_s=np.zeros((2, 1)), joint_names=["a"], joint_position=np.zeros((2, 1))),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_motion_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "motion.npz"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"motion file .*motion.npz: .*expected a .csv with a header"):
        read_motion(file)
