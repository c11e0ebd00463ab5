# SPDX-License-Identifier: Apache-2.0
"""What the panel says of robots: their end effectors, why one cannot be recorded, and the declaration to edit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from pxr import Usd, UsdGeom, UsdPhysics
from test_ui_view_model import World, model

from retake.core.ends import declare, load_declarations
from retake.isaac.request import CaptureRequest
from retake.isaac.stage_reader import CameraChoice, read_content
from retake.ui.kit_scene import scene_content, write_declaration
from retake.ui.layout import build_layout
from retake.ui.ports import SceneContent
from retake.ui.state import Choice, Level

DEMO = Path(__file__).parents[1] / "data/stages/pick_place/scene.usda"


def saved(tmp_path: Path, *, broken: bool = False) -> Usd.Stage:
    """The demo's robot on a stage of the user's, beside which a declaration may lie; and a robot that cannot be read."""
    stage = Usd.Stage.CreateNew(str(tmp_path / "cell.usda"))
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    stage.DefinePrim("/World/Cell", "Xform").GetReferences().AddReference(str(DEMO))
    if broken:
        root = UsdGeom.Xform.Define(stage, "/World/Ball").GetPrim()
        UsdPhysics.ArticulationRootAPI.Apply(root)
        for name in ("a", "b"):
            UsdPhysics.RigidBodyAPI.Apply(UsdGeom.Cube.Define(stage, f"/World/Ball/{name}").GetPrim())
        joint = UsdPhysics.SphericalJoint.Define(stage, "/World/Ball/joint")
        joint.CreateBody0Rel().SetTargets(["/World/Ball/a"])
        joint.CreateBody1Rel().SetTargets(["/World/Ball/b"])
    stage.GetRootLayer().Save()
    return stage


def texts(vm: Any) -> list[tuple[str, str]]:
    rows = [row for section in build_layout(vm.state) for row in section.rows]
    return [(w.label, w.tone) for row in rows for w in row.widgets if w.kind == "text"]


def test_end_effectors_are_told_and_a_robot_that_cannot_be_read_is_told_with_its_reason(tmp_path: Path) -> None:
    content = scene_content(saved(tmp_path, broken=True))
    good, bad = content.robots
    assert (good.chosen, good.ends, good.problem) == (True, True, "")
    assert good.detail.startswith("9 joints; ")
    assert (bad.key, bad.chosen) == ("/World/Ball", False)
    assert "/World/Ball/joint" in bad.problem
    world = World()
    world.content = content
    vm, _, told = model(tmp_path / "runs", world)
    assert (f"Ball cannot be recorded: {bad.problem}", "warning") in texts(vm)
    assert (f"{good.name}: {good.detail}", "plain") in texts(vm)
    world.chosen_prims = ("/World/Ball/a",)
    vm.act("add_selected")
    assert not vm.state.robots[1].chosen
    assert told[-1].level is Level.WARNING
    assert bad.problem in told[-1].text


def test_a_robot_without_a_hand_is_a_warning_that_names_the_remedy(tmp_path: Path) -> None:
    world = World()
    arm = Choice("/World/Arm", "Arm", True, "6 joints; no end effector was found: declare one", ends=False)
    world.content = SceneContent((arm,), (Choice("/World/Camera", "Camera", True),))
    vm, _, _ = model(tmp_path, world)
    assert (f"Arm: {arm.detail}", "warning") in texts(vm)
    assert vm.state.can("record")


def test_only_robots_that_can_be_recorded_make_record_and_declare_possible(tmp_path: Path) -> None:
    world = World()
    ball = Choice("/World/Ball", "Ball", True, problem="/World/Ball/joint: spherical")
    world.content = SceneContent((ball,), (Choice("/World/Camera", "Camera", True),))
    vm, _, _ = model(tmp_path, world)
    assert not vm.state.can("record")
    assert not vm.state.can("declare")


def test_the_declaration_is_a_setting_a_field_and_reaches_the_recording(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path, settings=CaptureRequest(robot_file="/from/settings.yaml"))
    assert vm.state.robot_file == "/from/settings.yaml"
    vm.set("robot_file", " /typed.yaml ")
    vm.act("record")
    assert world.requests[0].robot_file == "/typed.yaml"


def test_the_form_is_written_shown_and_used(tmp_path: Path) -> None:
    vm, world, _ = model(tmp_path)
    vm.act("declare")
    assert "declare /World/Panda" in world.calls
    assert vm.state.robot_file == str(Path("/stages/cell.robot.yaml"))
    assert world.opened == [Path("/stages/cell.robot.yaml")]
    assert "Written" in vm.state.message


def test_the_form_lies_beside_the_stage_reads_back_as_found_and_is_never_replaced(tmp_path: Path) -> None:
    stage = saved(tmp_path)
    robots = [robot.key for robot in scene_content(stage).robots]
    before = read_content(stage, cameras=[CameraChoice("/World/Cell/Camera")]).robots[0].spec
    file, new = write_declaration(stage, robots, tmp_path / "runs")
    assert (file, new) == (tmp_path / "cell.robot.yaml", True)
    (after,) = declare([before], load_declarations(file))
    assert [end.ee_link for end in after.grippers] == [end.ee_link for end in before.grippers]
    file.write_text("# mine\n" + file.read_text())
    assert write_declaration(stage, robots, tmp_path / "runs") == (file, False)
    assert file.read_text().startswith("# mine\n")
    assert [r.ends for r in scene_content(stage).robots] == [True]


def test_a_declaration_beside_the_stage_that_is_wrong_is_said(tmp_path: Path) -> None:
    stage = saved(tmp_path)
    (tmp_path / "cell.robot.yaml").write_text("robots: 5\n")
    assert "cell.robot.yaml" in scene_content(stage).problem


def test_an_unsaved_stage_has_its_form_in_the_runs_folder(tmp_path: Path) -> None:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.DefinePrim("/World", "Xform").GetReferences().AddReference(str(DEMO))
    robots = [robot.key for robot in scene_content(stage).robots]
    file, new = write_declaration(stage, robots, tmp_path / "runs")
    assert (file, new) == (tmp_path / "runs/stage.robot.yaml", True)
    assert load_declarations(file)


def test_a_folder_that_refuses_the_form_is_answered_with_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = saved(tmp_path)
    scenes = importlib.import_module("retake.ui.kit_scene")  # tests of the panel import it anew
    write = scenes.write_bytes

    def refusing(path: Path, data: bytes) -> None:
        if path.parent == tmp_path:
            raise PermissionError(13, "read-only", str(path))
        write(path, data)

    monkeypatch.setattr(scenes, "write_bytes", refusing)
    file, new = scenes.write_declaration(stage, [scene_content(stage).robots[0].key], tmp_path / "runs")
    assert (file, new) == (tmp_path / "runs/cell.robot.yaml", True)
