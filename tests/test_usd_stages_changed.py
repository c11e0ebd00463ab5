# SPDX-License-Identifier: Apache-2.0
"""The small stages written otherwise: other names, mirrored and scaled parts, no limits, nested instances, reversed joints."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.usd.articulation import Articulation, find_articulations
from retake.usd.stage import open_stage

FOLDER = Path(__file__).parent / "stages"


def source(key: str) -> Path:
    return next(FOLDER.glob(f"{key}_*.usda"))


def changed(key: str, tmp_path: Path, change: Callable[[Usd.Stage], None]) -> Path:
    """A copy of a stage, changed."""
    # Anonymous: the file's own layer is shared by every test of the process.
    stage = Usd.Stage.Open(Sdf.Layer.OpenAsAnonymous(str(source(key))))
    change(stage)
    stage.Export(str(tmp_path / "stage.usda"))
    return tmp_path / "stage.usda"


def only(file: Path) -> Articulation:
    (robot,) = find_articulations(open_stage(file)).robots
    poses = robot.spec.forward_kinematics(robot.initial_position, robot.T_world_link[robot.spec.root])
    assert np.abs(poses - robot.T_world_link).max() < 1e-6
    return robot


def ends(robot: Articulation) -> list[tuple[str, int, int, list[float]]]:
    """(kind, link by number, finger joints, axes): what does not depend on names."""
    spec = robot.spec
    return [
        (e.kind, spec.link_index(e.ee_link), len(e.finger_joints), e.T_link_ee[:3, :3].round(4).ravel().tolist())
        for e in spec.grippers
    ]


@pytest.mark.parametrize("key", ["r03", "r04", "r06", "r08", "r09", "r14"])
def test_names_say_nothing_that_joints_and_geometry_do_not_say(key, tmp_path):
    """All prims under neutral names: the same end effectors."""
    text = source(key).read_text("utf-8")
    names = sorted(set(re.findall(r'def (?:\w+ )?"(\w+)"', text)) - {"World", "PhysicsScene", "Camera"})
    table = {name: f"q{number}" for number, name in enumerate(names)}

    def renamed(path: str) -> str:
        parts = (part.partition(".") for part in path.split("/"))
        return "/".join(table.get(name, name) + dot + rest for name, dot, rest in parts)

    text = re.sub(r'(def (?:\w+ )?")(\w+)"', lambda m: f'{m[1]}{table.get(m[2], m[2])}"', text)
    text = re.sub(r"<(/[^>]*)>", lambda m: f"<{renamed(m[1])}>", text)
    (tmp_path / "stage.usda").write_text(text, encoding="utf-8")
    assert ends(only(tmp_path / "stage.usda")) == ends(only(source(key)))


def without_limits(stage: Usd.Stage) -> None:
    for prim in stage.Traverse():
        for name in ("physics:lowerLimit", "physics:upperLimit"):
            if prim.HasAttribute(name):
                prim.RemoveProperty(name)


def with_infinite_limits(stage: Usd.Stage) -> None:
    for prim in stage.Traverse():
        for name, value in (("physics:lowerLimit", -np.inf), ("physics:upperLimit", np.inf)):
            if prim.HasAttribute(name):
                prim.GetAttribute(name).Set(value)


@pytest.mark.parametrize("change", [without_limits, with_infinite_limits])
@pytest.mark.parametrize(("key", "kind"), [("r08", "gripper"), ("r09", "hand"), ("r18", "gripper")])
def test_fingers_without_limits_are_found_and_open_nowhere(key, kind, change, tmp_path):
    """Where they are and how they reach is known; where they are open has to be declared."""
    robot = only(changed(key, tmp_path, change))
    (end,) = robot.spec.grippers
    (limited,) = only(source(key)).spec.grippers
    assert (end.kind, end.ee_link, end.finger_joints) == (kind, limited.ee_link, ())
    assert np.abs(end.T_link_ee[:3, 2] - limited.T_link_ee[:3, 2]).max() < 1e-6
    assert "declared" in end.note


def test_fingers_whose_limits_leave_no_travel_open_nowhere(tmp_path):
    def locked(stage: Usd.Stage) -> None:
        for prim in stage.Traverse():
            if prim.GetName() in ("left_joint", "right_joint"):
                prim.GetAttribute("physics:lowerLimit").Set(0.01)
                prim.GetAttribute("physics:upperLimit").Set(0.01)

    (end,) = only(changed("r18", tmp_path, locked)).spec.grippers
    assert end.finger_joints == ()


def test_a_limit_that_is_no_number_refuses_its_robot_by_name(tmp_path):
    def unlimited(stage: Usd.Stage) -> None:
        next(p for p in stage.Traverse() if p.GetName() == "joint2").GetAttribute("physics:upperLimit").Set(np.nan)

    found = find_articulations(open_stage(changed("r18", tmp_path, unlimited)))
    assert not found.robots
    assert "joint2: limits -90.0 to nan leave no position" in next(iter(found.refused.values()))


def test_mirrored_geometry_and_reversed_joints_change_nothing(tmp_path):
    def written_otherwise(stage: Usd.Stage) -> None:
        for prim in stage.Traverse():
            if prim.GetName() == "geom":
                UsdGeom.Xformable(prim).AddScaleOp(opSuffix="mirror").Set(Gf.Vec3f(-1, 1, 1))
            if not prim.IsA(UsdPhysics.RevoluteJoint):
                continue
            joint = UsdPhysics.Joint(prim)
            for one, other in (
                (joint.GetBody0Rel(), joint.GetBody1Rel()),
                (joint.GetLocalPos0Attr(), joint.GetLocalPos1Attr()),
                (joint.GetLocalRot0Attr(), joint.GetLocalRot1Attr()),
            ):
                if isinstance(one, Usd.Relationship):
                    targets = one.GetTargets(), other.GetTargets()
                    one.SetTargets(targets[1])
                    other.SetTargets(targets[0])
                else:
                    values = one.Get(), other.Get()
                    one.Set(values[1])
                    other.Set(values[0])

    robot, plain = only(changed("r09", tmp_path, written_otherwise)), only(source("r09"))
    assert [(e[0], e[2], e[3]) for e in ends(robot)] == [(e[0], e[2], e[3]) for e in ends(plain)]


@pytest.mark.parametrize("nested", [False, True])
def test_two_instances_of_one_robot_are_two_robots(nested, tmp_path):
    """One prim name, instanced, within another instance as well: told apart by where they are."""
    Usd.Stage.Open(str(source("r08"))).Export(str(tmp_path / "arm.usda"))
    cell = Usd.Stage.CreateNew(str(tmp_path / "cell.usda"))
    UsdGeom.SetStageMetersPerUnit(cell, 1.0)
    cell.SetDefaultPrim(UsdGeom.Xform.Define(cell, "/Cell").GetPrim())
    arm = UsdGeom.Xform.Define(cell, "/Cell/arm").GetPrim()
    arm.GetReferences().AddReference("./arm.usda", "/World/Robot")
    arm.SetInstanceable(nested)
    cell.GetRootLayer().Save()
    stage = Usd.Stage.CreateNew(str(tmp_path / "stage.usda"))
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, "Z")
    for number, side in enumerate(("left", "right")):
        place = UsdGeom.Xform.Define(stage, f"/World/{side}")
        place.AddTranslateOp().Set(Gf.Vec3d(2.0 * number, 0, 0))
        robot = UsdGeom.Xform.Define(stage, f"/World/{side}/robot").GetPrim()
        robot.GetReferences().AddReference("./cell.usda")
        robot.SetInstanceable(True)
    stage.GetRootLayer().Save()
    left, right = find_articulations(open_stage(tmp_path / "stage.usda")).robots
    assert left.spec.name != right.spec.name
    assert "left" in left.spec.name
    assert ends(left) == ends(right) == ends(only(source("r08")))
    assert np.abs(right.T_world_link[0, :3, 3] - left.T_world_link[0, :3, 3] - [2, 0, 0]).max() < 1e-6
