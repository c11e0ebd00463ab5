# SPDX-License-Identifier: Apache-2.0
"""What the simulator would read otherwise than the stage means is said before it is imported, and noted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics
from usd_stages import pendulum

from retake.core.cli import _parser
from retake.core.errors import StageError
from retake.newton.describe import kind_of
from retake.newton.importing import import_stage
from retake.newton.run import capture
from retake.newton.stage_mends import mend_mimics, mend_ranges, mend_times
from retake.usd.articulation import find_articulations
from retake.usd.stage import open_stage

mujoco, newton = pytest.importorskip("mujoco"), pytest.importorskip("newton")
STAGES = Path(__file__).parent / "stages"


def stage_of(name: str, tmp_path: Path, change) -> Path:
    """A copy of a stage of tests/stages, changed."""
    (source,) = STAGES.glob(f"{name}*.usda")
    # Anonymous: the file's own layer is shared by every test of the process.
    stage = Usd.Stage.Open(Sdf.Layer.OpenAsAnonymous(str(source)))
    change(stage)
    stage.Export(str(tmp_path / "stage.usda"))
    return tmp_path / "stage.usda"


def limited(**ends: float):
    """A change that limits r30's tendon with the given ends of its range."""

    def change(stage: Usd.Stage) -> None:
        tendon = next(p for p in stage.Traverse() if p.GetTypeName() == "MjcTendon")
        tendon.CreateAttribute("mjc:limited", Sdf.ValueTypeNames.Token).Set("true")
        for end, value in ends.items():
            tendon.CreateAttribute(f"mjc:range:{end}", Sdf.ValueTypeNames.Double).Set(value)

    return change


@pytest.mark.parametrize(("ends", "expected"), [({"max": 0.05}, (0.0, 0.05)), ({"min": -0.02}, (-0.02, 0.0))])
def test_a_tendons_range_with_one_end_ends_at_zero(tmp_path, ends, expected):
    """As in MuJoCo; the importer alone takes it for no range, and MuJoCo then refuses the stage."""
    stage = open_stage(stage_of("r30", tmp_path, limited(**ends)))
    builder, notes = import_stage(stage)
    assert tuple(builder.custom_attributes["mujoco:tendon_range"].values[0]) == pytest.approx(expected)
    assert not any("tendon" in note for note in notes)


@pytest.mark.parametrize("ends", [{}, {"min": 0.04, "max": 0.01}, {"max": float("inf")}, {"max": 0.0}])
def test_a_limited_tendon_without_travel_is_taken_without_limits_and_said(tmp_path, ends):
    stage = stage_of("r30", tmp_path, limited(**ends))
    episode = capture(tmp_path / "episode", stage=stage, overrides={"frames": 2, "fps": 10}, render=False)
    (note,) = [n for n in episode.header.settings["notes"] if "tendon" in n]
    assert "leaves no travel" in note
    assert "mjc:range:min below mjc:range:max" in note


def test_ranges_of_tendons_that_are_complete_stay(tmp_path):
    stage = open_stage(stage_of("r30", tmp_path, limited(min=-0.01, max=0.06)))
    assert mend_ranges(stage) == []
    assert not stage.GetSessionLayer().rootPrims


@pytest.mark.parametrize(("key", "joint"), [("r18", "joint2"), ("r18", "left_joint")])
def test_joints_count_from_the_authored_pose_whatever_mujocos_reference_is(tmp_path, key, joint):
    """Kinematics and simulator agree, and the pose at rest is the authored one, with a reference as without."""

    def change(stage: Usd.Stage) -> None:
        prim = next(p for p in stage.Traverse() if p.GetName() == joint)
        prim.CreateAttribute("mjc:ref", Sdf.ValueTypeNames.Double).Set(0.06 if joint == "joint2" else 0.01)

    stage = stage_of(key, tmp_path, change)
    episode = capture(tmp_path / "episode", stage=stage, overrides={"frames": 2, "fps": 10}, render=False)
    (robot,) = episode.header.robots
    q, poses = episode.joint(robot.name, "position"), episode.link_poses(robot.name)
    np.testing.assert_allclose(robot.forward_kinematics(q, poses[:, robot.root]), poses, atol=1e-9)
    (authored,) = find_articulations(open_stage(stage)).robots
    np.testing.assert_allclose(poses[0], authored.T_world_link, atol=1e-6)
    (note,) = [n for n in episode.header.settings["notes"] if "mjc:ref" in n]
    assert f"/{joint} " in note
    assert "subtract it" in note


def test_travel_of_slides_between_scaled_bodies_is_the_engines_and_said():
    """PhysX and Newton scale where a joint is and not how far it goes; a person is told so."""
    found = find_articulations(open_stage(next(STAGES.glob("r22*.usda"))))
    (robot,) = found.robots
    slides = [j for j in robot.spec.dof_joints if j.kind == "prismatic"]
    assert [round(j.upper - j.lower, 7) for j in slides] == [0.0003, 0.0003]
    said = [n for n in found.notes if "scaled by 100" in n]
    assert len(said) == len(slides)
    assert all("stage units" in n for n in said)
    plain = find_articulations(open_stage(next(STAGES.glob("r18*.usda"))))
    assert not any("scaled" in n for n in plain.notes)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.urdf", "<robot name='a'/>", "urdf"),
        ("a.xml", "<?xml version='1.0'?><!-- arm --><robot/>", "urdf"),
        ("a.xml", "<mujoco/>", "mjcf"),
        ("a.mjcf", "<mujocoinclude/>", "mjcf"),
        ("a.xml", "<sdf/>", "its root is <sdf>; expected <robot>"),
        ("a.urdf", "no xml", "is no robot description"),
    ],
)
def test_a_description_is_what_its_root_element_says(tmp_path, name, text, kind):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    if kind in ("urdf", "mjcf"):
        assert kind_of(file) == kind
    else:
        with pytest.raises(StageError, match=kind):
            kind_of(file)


def test_the_command_line_names_descriptions_by_kind(capsys):
    for words in (["--urdf", "a.urdf"], ["--urdf", "a.xml"], ["--mjcf", "a.xml"], ["--stage", "a.urdf"]):
        assert _parser().parse_args(["run", *words]).stage.name == words[1]
    assert _parser().parse_args(["run"]).stage is None
    for words, said in (
        (["--urdf", "a.urdf.xacro"], "xacro FILE > robot.urdf"),
        (["--mjcf", "a.urdf"], "expected a .xml or .mjcf file"),
        (["--urdf", "a.urdf", "--stage", "b.usda"], "not allowed with"),
    ):
        with pytest.raises(SystemExit):
            _parser().parse_args(["run", *words])
        assert said in capsys.readouterr().err


def test_sites_are_no_part_of_any_picture(tmp_path):
    """MuJoCo's markers, some of them metres long, come with converted robots."""

    def marked(stage: Usd.Stage) -> None:
        site = UsdGeom.Sphere.Define(stage, "/World/Robot/base_link/marker")
        site.CreateRadiusAttr(0.5)
        site.GetPrim().AddAppliedSchema("NewtonSiteAPI")

    stage = open_stage(stage_of("r18", tmp_path, marked))
    builder, _ = import_stage(stage)
    visible = int(newton.ShapeFlags.VISIBLE)
    seen = {
        label: bool(int(flags) & visible) for label, flags in zip(builder.shape_label, builder.shape_flags, strict=True)
    }
    assert not seen.get("/World/Robot/base_link/marker", False)
    assert any(seen.values())


def following(*pairs: tuple[str, str], slope: float = 0.5, offset: float = 10.0) -> Usd.Stage:
    """Hinges of which each follows another."""
    stage = Usd.Stage.CreateInMemory()
    for name in sorted({name for pair in pairs for name in pair}):
        UsdPhysics.RevoluteJoint.Define(stage, f"/{name}")
    for name, leader in pairs:
        prim = stage.GetPrimAtPath(f"/{name}")
        prim.CreateRelationship("newton:mimicJoint").SetTargets([Sdf.Path(f"/{leader}")])
        prim.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(slope)
        prim.CreateAttribute("newton:mimicCoef0", Sdf.ValueTypeNames.Float).Set(offset)
    return stage


def told(stage: Usd.Stage, name: str) -> tuple[str, float, float] | None:
    """(leader, slope, offset) of a joint as the importer reads it; None where it follows nothing."""
    prim = stage.GetPrimAtPath(f"/{name}")
    enabled = prim.GetAttribute("newton:mimicEnabled")
    if not prim.HasRelationship("newton:mimicJoint") or (enabled and enabled.Get() is False):
        return None
    slope, offset = (prim.GetAttribute(f"newton:mimicCoef{k}").Get() for k in (1, 0))
    return str(prim.GetRelationship("newton:mimicJoint").GetTargets()[0]), slope, offset


@pytest.mark.parametrize("names", ["abcdef", "fedcba", "cafebd"])
def test_a_row_of_followers_multiplies_out_whatever_their_order(names):
    """b = 0.5 a + 10, c = 0.5 b + 10, …"""
    stage = following(*zip(names[1:], names[:-1], strict=True))
    mend_mimics(stage)
    slope, offset = 1.0, 0.0
    for name in names[1:]:
        slope, offset = 0.5 * slope, 0.5 * offset + 10.0
        assert told(stage, name) == (f"/{names[0]}", pytest.approx(slope), pytest.approx(offset))


@pytest.mark.parametrize("ring", ["a", "ab", "bca"])
def test_of_joints_that_follow_each_other_in_a_ring_the_first_leads(ring):
    """The importer would refuse the whole stage."""
    stage = following(*zip(ring, ring[1:] + ring[0], strict=True), ("z", ring[0]))
    notes = mend_mimics(stage)
    assert told(stage, "a") is None
    assert {(told(stage, name) or ("",))[0] for name in {*ring, "z"} - {"a"}} == {"/a"}
    assert "/a follows itself: it follows nothing" in notes


def test_who_follows_a_follower_of_what_cannot_move_follows_that_follower():
    stage = following(("b", "fixed"), ("c", "b"), ("d", "c"))
    UsdPhysics.FixedJoint.Define(stage, "/fixed")
    mend_mimics(stage)
    assert told(stage, "b") is None
    assert (told(stage, "c"), told(stage, "d")) == (("/b", 0.5, 10.0), ("/b", 0.25, 15.0))


def test_a_ring_of_followers_is_simulated_and_said():
    stage = pendulum()
    for name, leader in (("hinge", "slide"), ("slide", "hinge")):
        prim = stage.GetPrimAtPath(f"/World/Arm/joints/{name}")
        prim.AddAppliedSchema("NewtonMimicAPI")
        prim.CreateRelationship("newton:mimicJoint").SetTargets([Sdf.Path(f"/World/Arm/joints/{leader}")])
    found = find_articulations(stage)
    assert [joint.mimic and joint.mimic.leader for joint in found.robots[0].spec.dof_joints] == [None, "hinge"]
    assert any("hinge follows itself through /World/Arm/joints/slide" in note for note in found.notes)
    import_stage(stage)


def test_what_is_blocked_at_the_start_is_as_if_not_authored():
    stage = Usd.Stage.CreateInMemory()
    move = UsdGeom.Xform.Define(stage, "/Thing").AddTranslateOp()
    move.GetAttr().Set(Sdf.ValueBlock(), 0.0)
    move.Set(Gf.Vec3d(1, 2, 3), 5.0)
    mend_times(stage)
    assert move.Get() is None
