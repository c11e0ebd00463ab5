# SPDX-License-Identifier: Apache-2.0
"""Articulation -> RobotSpec: kinematics against the stage, units and axes, grippers of two robots, refusals."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import usd_stages
from hypothesis import given
from hypothesis import strategies as st
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics
from strategies import seeds

from retake.core.errors import StageError
from retake.core.robot import RobotSpec
from retake.usd.articulation import find_articulations, read_articulations, read_robots
from retake.usd.bodies import read_object, read_objects
from retake.usd.joints import read_edges, scaled_slide
from retake.usd.si import si_stage
from retake.usd.stage import label_of, missing_assets, open_stage, stage_sha256
from retake.usd.units import StageUnits

UNITS = st.tuples(st.sampled_from([1.0, 0.01, 0.1]), st.sampled_from([1.0, 0.001]), st.sampled_from(["Y", "Z"]))


@pytest.mark.parametrize("file", [usd_stages.PICK_PLACE, usd_stages.SIXAXIS])
def test_kinematics_reproduce_the_authored_poses(file):
    """Forward kinematics at the stage's own joint state gives every link's authored pose within 1e-6 m."""
    for robot in read_articulations(open_stage(file)):
        assert robot.fixed_base
        assert all(robot.driven)
        poses = robot.spec.forward_kinematics(robot.initial_position, robot.T_world_link[robot.spec.root])
        assert np.abs(poses - robot.T_world_link).max() < 1e-6


def test_panda():
    (panda,) = read_robots(open_stage(usd_stages.PICK_PLACE))
    assert panda.name == "Panda"
    assert len(panda.dof_names) == 9
    (gripper,) = panda.grippers
    assert gripper.ee_link == "panda_hand"
    np.testing.assert_array_equal(gripper.T_link_ee, np.eye(4))
    np.testing.assert_allclose(gripper.open_position, 0.04, atol=1e-6)
    assert gripper.closed_position == (0.0, 0.0)
    chain = [panda.links[i].name for i in panda.chain(gripper)]
    assert chain == ["panda_hand", *[f"panda_link{i}" for i in range(7, -1, -1)]]
    first = next(j for j in panda.joints if j.name == "panda_joint1")
    assert first.effort_limit == 87
    assert first.velocity_limit == pytest.approx(2.175, rel=1e-6)
    assert first.upper == pytest.approx(2.8973, abs=1e-5)


def test_six_axis_robot_has_another_convention():
    """Approach along the palm's +X, fingers along its Z, finger joints 0 when open: all found from geometry."""
    (robot,) = read_robots(open_stage(usd_stages.SIXAXIS))
    assert len(robot.dof_names) == 8
    (gripper,) = robot.grippers
    assert gripper.ee_link == "palm"
    np.testing.assert_array_equal(gripper.T_link_ee[:3, 2], [1, 0, 0])
    np.testing.assert_array_equal(gripper.T_link_ee[:3, 1], [0, 0, 1])
    assert np.linalg.det(gripper.T_link_ee[:3, :3]) == pytest.approx(1)
    assert gripper.open_position == (0.0, 0.0)
    np.testing.assert_allclose(gripper.closed_position, 0.045, rtol=1e-6)
    q = np.zeros(8)
    assert robot.gripper_openness(q)[0] == 1
    q[-2:] = 0.045
    assert robot.gripper_openness(q)[0] == pytest.approx(0, abs=1e-6)


@given(UNITS, seeds)
def test_units_and_axes_describe_one_robot(units, seed):
    """The same arm in cm, grams or Y-up reads as the same joints and the same motion."""
    metres, kilograms, up = units
    (reference,) = read_articulations(usd_stages.pendulum())
    (robot,) = read_articulations(usd_stages.pendulum(metres, kilograms, up))
    for a, b in zip(reference.spec.joints, robot.spec.joints, strict=True):
        np.testing.assert_allclose(
            [b.lower, b.upper, b.velocity_limit, b.effort_limit],
            [a.lower, a.upper, a.velocity_limit, a.effort_limit],
            rtol=1e-5,
        )
    np.testing.assert_allclose(robot.initial_position, [math.radians(30), 0.05], rtol=1e-6)
    q = np.random.default_rng(seed).uniform(-1, 1, 2)
    poses = [r.spec.forward_kinematics(q, r.T_world_link[0])[:, :3, 3] for r in (reference, robot)]
    # X stays X when Y-up becomes Z-up, so the hinge about X swings the same way.
    np.testing.assert_allclose(poses[1], poses[0], atol=1e-6)


@given(UNITS)
def test_converted_stage_reads_the_same(units):
    """Two routes to SI agree: the reader on the original stage, and on the converted copy."""
    stage = usd_stages.pendulum(*units)
    metric = si_stage(stage)
    assert StageUnits.of(metric).metres_per_unit == 1
    assert StageUnits.of(metric).kilograms_per_unit == 1
    (a,), (b,) = read_articulations(stage), read_articulations(metric)
    np.testing.assert_allclose(a.T_world_link, b.T_world_link, atol=1e-7)
    for first, second in zip(a.spec.joints, b.spec.joints, strict=True):
        np.testing.assert_allclose(first.T_parent_joint, second.T_parent_joint, atol=1e-7)
        np.testing.assert_allclose(
            [first.lower, first.upper, first.velocity_limit, first.effort_limit],
            [second.lower, second.upper, second.velocity_limit, second.effort_limit],
            rtol=1e-5,
        )
    masses = [UsdPhysics.MassAPI(metric.GetPrimAtPath(f"/World/Arm/{n}")).GetMassAttr().Get() for n in ("base", "tip")]
    np.testing.assert_allclose(masses, [2.0, 0.5], rtol=1e-6)


def test_metric_stage_is_not_copied():
    stage = usd_stages.pendulum()
    assert si_stage(stage) is stage


@given(st.floats(-1, 1))
def test_joint_authored_towards_the_base_is_turned(q):
    """body0 and body1 exchanged: the same joint, positive the other way."""
    (a,) = read_articulations(usd_stages.pendulum())
    (b,) = read_articulations(usd_stages.pendulum(reverse=True))
    forward = a.spec.forward_kinematics(np.array([q, 0.0]), a.T_world_link[0])
    backward = b.spec.forward_kinematics(np.array([-q, 0.0]), b.T_world_link[0])
    np.testing.assert_allclose(forward[1], backward[1], atol=1e-6)


def test_spec_survives_json():
    for file in (usd_stages.PICK_PLACE, usd_stages.SIXAXIS):
        (robot,) = read_robots(open_stage(file))
        assert RobotSpec.from_json(robot.to_json()).to_json() == robot.to_json()


def test_fixed_scale_on_a_body_moves_its_joint():
    """A joint's local position is in its body's own scaled units."""
    stage = usd_stages.pendulum()
    UsdGeom.Xform.Get(stage, "/World/Arm/base").AddScaleOp().Set(Gf.Vec3f(2, 2, 2))
    (robot,) = read_articulations(stage)
    assert robot.spec.joints[0].T_parent_joint[2, 3] == pytest.approx(0.8)


def test_objects_and_labels():
    stage = open_stage(usd_stages.PICK_PLACE)
    (packet,) = read_objects(stage, read_articulations(stage))
    assert (packet.spec.name, packet.spec.label) == ("Packet", "packet")
    np.testing.assert_allclose(packet.spec.size_m, [0.12, 0.05, 0.14], atol=1e-6)
    assert packet.spec.mass_kg == pytest.approx(0.1)
    tray = read_object(stage.GetPrimAtPath("/World/Tray"), StageUnits.of(stage), movable=False)
    np.testing.assert_allclose(tray.spec.size_m, [0.25, 0.25, 0.05], atol=1e-6)
    np.testing.assert_allclose(tray.spec.center_m, [0.45, 0.35, 0.025], atol=1e-6)
    prim = stage.GetPrimAtPath("/World/Sun")
    assert label_of(prim) == "sun"
    # Layers are shared by all stages of a process: the file's own stays as it is.
    stage.SetEditTarget(stage.GetSessionLayer())
    prim.CreateAttribute("semantic:Semantics:params:semanticData", Sdf.ValueTypeNames.String).Set("lamp")
    assert label_of(prim) == "lamp"


@given(UNITS)
def test_object_sizes_are_metric(units):
    metres, kilograms, up = units
    stage = usd_stages.pendulum(metres, kilograms, up)
    usd_stages.add_body(stage, "/World/Box", (0, 0, 0), 0.2 / metres, 0.3 / kilograms)
    (box,) = read_objects(stage, read_articulations(stage))
    np.testing.assert_allclose(box.spec.size_m, 0.2, rtol=1e-6)
    assert box.spec.mass_kg == pytest.approx(0.3)


def test_stage_hash_names_content_not_place(tmp_path):
    copy = tmp_path / "päth with space"
    shutil.copytree(usd_stages.SIXAXIS.parent, copy)
    assert stage_sha256(copy / "scene.usda") == stage_sha256(usd_stages.SIXAXIS)
    (copy / "packet.png").write_bytes((copy / "packet.png").read_bytes() + b"\0")
    assert stage_sha256(copy / "scene.usda") != stage_sha256(usd_stages.SIXAXIS)


def two_robots() -> Usd.Stage:
    stage = usd_stages.pendulum()
    other = usd_stages.pendulum()
    UsdGeom.Xform.Define(stage, "/World/Cell")
    Sdf.CopySpec(other.GetRootLayer(), "/World/Arm", stage.GetRootLayer(), "/World/Cell/Arm")
    return stage


def test_two_robots():
    stage = two_robots()
    assert [r.name for r in read_robots(stage)] == ["Arm", "Cell_Arm"]
    ball = UsdPhysics.SphericalJoint.Define(stage, "/World/Cell/Arm/joints/ball")
    ball.CreateBody0Rel().SetTargets([Sdf.Path("/World/Cell/Arm/tip")])
    found = find_articulations(stage)
    assert [r.spec.prim_path for r in found.robots] == ["/World/Arm"]
    assert "/World/Cell/Arm/joints/ball" in found.refused["/World/Cell/Arm"]
    assert any("/World/Cell/Arm left out" in note for note in found.notes)
    assert len(read_articulations(stage, ["/World/Arm"])) == 1
    with pytest.raises(StageError, match=r"/World/Cell/Arm: .*ball: joint type PhysicsSphericalJoint"):
        read_articulations(stage, ["/World/Cell"])
    with pytest.raises(StageError, match=r"unknown robot prim '/World/Nobody'; valid: /World/Arm"):
        read_articulations(stage, ["/World/Nobody"])
    stage.RemovePrim(ball.GetPath())
    for name in ("hinge", "slide", "fix"):
        joint = UsdPhysics.Joint.Get(stage, f"/World/Cell/Arm/joints/{name}")
        for relation in (joint.GetBody0Rel(), joint.GetBody1Rel()):
            relation.SetTargets([t.ReplacePrefix("/World/Arm", "/World/Cell/Arm") for t in relation.GetTargets()])
    edit = Sdf.NamespaceEdit.Rename("/World/Cell/Arm", "Other")
    batch = Sdf.BatchNamespaceEdit()
    batch.Add(edit)
    assert stage.GetRootLayer().Apply(batch)
    for name in ("hinge", "slide", "fix"):
        joint = UsdPhysics.Joint.Get(stage, f"/World/Cell/Other/joints/{name}")
        for relation in (joint.GetBody0Rel(), joint.GetBody1Rel()):
            relation.SetTargets(
                [t.ReplacePrefix("/World/Cell/Arm", "/World/Cell/Other") for t in relation.GetTargets()]
            )
    assert [r.name for r in read_robots(stage)] == ["Arm", "Other"]


def test_copies_of_one_environment_are_told_apart():
    """Clones with the articulation root on the fixed joint: named after their models and environments."""
    stage, source = usd_stages.empty(), usd_stages.pendulum(name="Robot")
    for i in range(3):
        UsdGeom.Xform.Define(stage, f"/World/envs/env_{i}")
        Sdf.CopySpec(source.GetRootLayer(), "/World/Robot", stage.GetRootLayer(), f"/World/envs/env_{i}/Robot")
        stage.GetPrimAtPath(f"/World/envs/env_{i}/Robot").RemoveAPI(UsdPhysics.ArticulationRootAPI)
        UsdPhysics.ArticulationRootAPI.Apply(stage.GetPrimAtPath(f"/World/envs/env_{i}/Robot/joints/fix"))
        usd_stages.add_body(stage, f"/World/envs/env_{i}/Cube", (1, 0, 0), 0.1, 0.1)
    assert [r.name for r in read_robots(stage)] == ["env_0_Robot", "env_1_Robot", "env_2_Robot"]
    assert [o.spec.name for o in read_objects(stage)] == ["env_0_Cube", "env_1_Cube", "env_2_Cube"]
    (only,) = read_articulations(stage, ["/World/envs/env_1"])
    assert only.spec.prim_path == "/World/envs/env_1/Robot/joints/fix"


def test_names_in_any_script_are_usable():
    assert read_robots(usd_stages.pendulum(name="Ärm"))[0].name == "Arm"
    stage = usd_stages.pendulum(name="Arm")
    stage.GetPrimAtPath("/World/Arm").SetDisplayName("左 / left")
    assert read_robots(stage)[0].name == "left"


def test_refusals(tmp_path):
    with pytest.raises(StageError, match=r"does not exist; expected a .usd"):
        open_stage(tmp_path / "none.usda")
    broken = tmp_path / "broken.usda"
    broken.write_text("this is no stage")
    with pytest.raises(StageError, match="cannot be opened as USD"):
        open_stage(broken)
    dangling = tmp_path / "dangling.usda"
    dangling.write_text('#usda 1.0\ndef Xform "A" (references = @./gone.usda@)\n{\n}\n')
    with pytest.raises(StageError, match=r"needs files that are not there: .*gone.usda"):
        open_stage(dangling)
    with pytest.raises(StageError, match=r"has no articulation .0 rigid bodies"):
        read_robots(usd_stages.empty())


def test_textures_and_shaders_that_are_not_there_refuse_nothing_and_are_said(tmp_path, capfd):
    """Every stage of Isaac Sim names MDL materials that lie inside Isaac Sim."""
    stage = usd_stages.pendulum()
    shader = stage.DefinePrim("/World/Looks/Steel/Shader", "Shader")
    for name, file in (("info:mdl:sourceAsset", "OmniPBR.mdl"), ("inputs:diffuse_texture", "./gone.png")):
        shader.CreateAttribute(name, Sdf.ValueTypeNames.Asset).Set(file)
    file = tmp_path / "scene.usda"
    stage.Export(str(file))
    assert [robot.name for robot in read_robots(open_stage(file))] == ["Arm"]
    (note,) = missing_assets(file)
    assert "OmniPBR.mdl" in note
    assert "gone.png" in note
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("metres", [1.0, 0.01])
@pytest.mark.parametrize("schema", ["newton", "physx"])
@pytest.mark.parametrize("slides", [True, False])
def test_a_factor_between_a_hinge_and_a_slide_counts_lengths_in_the_stages_unit(metres, schema, slides):
    """2 cm per radian are 0.02 m per radian, read from the stage as it is and from the stage in metres."""
    stage = usd_stages.pendulum(metres)
    leader, follower = ("hinge", "slide") if slides else ("slide", "hinge")
    factor = 0.02 / metres if slides else 50.0 * metres
    prim = stage.GetPrimAtPath(f"/World/Arm/joints/{follower}")
    newton = schema == "newton"
    prim.AddAppliedSchema("NewtonMimicAPI" if newton else "PhysxMimicJointAPI:rotX")
    target = "newton:mimicJoint" if newton else "physxMimicJoint:rotX:referenceJoint"
    prim.CreateRelationship(target).SetTargets([f"/World/Arm/joints/{leader}"])
    name = "newton:mimicCoef1" if newton else "physxMimicJoint:rotX:gearing"
    prim.CreateAttribute(name, Sdf.ValueTypeNames.Float).Set(factor if newton else -factor)
    for one in (stage, si_stage(stage)):
        (robot,) = read_robots(one)
        mimic = robot.dof_joints[robot.dof_index(follower)].mimic
        assert mimic is not None
        assert mimic.factor == pytest.approx(0.02 if slides else 50.0)


def test_refuses_joints_it_cannot_express():
    stage = usd_stages.pendulum()
    ball = UsdPhysics.SphericalJoint.Define(stage, "/World/Arm/joints/ball")
    ball.CreateBody0Rel().SetTargets([Sdf.Path("/World/Arm/tip")])
    with pytest.raises(StageError, match=r"/World/Arm/joints/ball: joint type PhysicsSphericalJoint is not supported"):
        read_robots(stage)


def test_refuses_loops_unless_marked():
    stage = usd_stages.pendulum()
    loop = UsdPhysics.FixedJoint.Define(stage, "/World/Arm/joints/loop")
    loop.CreateBody0Rel().SetTargets([Sdf.Path("/World/Arm/base")])
    loop.CreateBody1Rel().SetTargets([Sdf.Path("/World/Arm/tip")])
    with pytest.raises(StageError, match=r"closes a loop at .*; mark loop closures physics:excludeFromArticulation"):
        read_robots(stage)
    loop.CreateExcludeFromArticulationAttr(True)
    assert len(read_robots(stage)[0].joints) == 2


def test_bad_units():
    stage = usd_stages.pendulum()
    UsdGeom.SetStageMetersPerUnit(stage, 0.0)
    with pytest.raises(StageError, match=r"metersPerUnit is 0.0; expected a positive number"):
        read_robots(stage)


@given(seeds)
def test_revolute_gripper_opens_where_its_fingers_part(seed):
    """Fingers that turn: open is the end of travel with the fingers farther apart, whichever limit that is."""
    rng = np.random.default_rng(seed)
    sign = float(rng.choice([-1.0, 1.0]))
    stage = usd_stages.pendulum()
    for side, y in (("left", 0.03), ("right", -0.03)):
        path = f"/World/Arm/{side}"
        finger = UsdGeom.Xform.Define(stage, path)
        finger.AddTranslateOp().Set(Gf.Vec3d(0, y, 0.75))
        UsdPhysics.RigidBodyAPI.Apply(finger.GetPrim())
        cube = UsdGeom.Cube.Define(stage, f"{path}/pad")
        cube.CreateSizeAttr(0.02)
        cube.AddTranslateOp().Set(Gf.Vec3d(0, 0, 0.06))
        UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
        joint = UsdPhysics.RevoluteJoint.Define(stage, f"/World/Arm/joints/{side}")
        joint.CreateAxisAttr("X")
        joint.CreateBody0Rel().SetTargets([Sdf.Path("/World/Arm/tip")])
        joint.CreateBody1Rel().SetTargets([Sdf.Path(path)])
        joint.CreateLocalPos0Attr(Gf.Vec3f(0, y, 0.05))
        # Turning about +X moves the tips towards -Y.
        outward = -np.sign(y) * sign
        joint.CreateLocalRot0Attr(Gf.Quatf(1) if sign > 0 else Gf.Quatf(0, 0, 0, 1))
        joint.CreateLocalRot1Attr(Gf.Quatf(1) if sign > 0 else Gf.Quatf(0, 0, 0, 1))
        low, high = sorted((0.0, outward * 40.0))
        joint.CreateLowerLimitAttr(low)
        joint.CreateUpperLimitAttr(high)
    (robot,) = read_robots(stage)
    (gripper,) = robot.grippers
    assert gripper.ee_link == "tip"
    np.testing.assert_array_equal(gripper.T_link_ee[:3, 2], [0, 0, 1])
    assert abs(gripper.T_link_ee[1, 1]) == 1
    np.testing.assert_allclose(np.abs(gripper.open_position), math.radians(40), rtol=1e-6)
    np.testing.assert_allclose(gripper.closed_position, 0, atol=1e-9)


def author(folder, *options):
    script = usd_stages.STAGES.parent.parent / "scripts" / "author_stage.py"
    command = [sys.executable, str(script), "--out", str(folder), *options]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "pick_place" / "scene.usda"


def test_committed_stages_are_what_the_script_writes(tmp_path):
    author(tmp_path)
    for name in ("pick_place/scene.usda", "sixaxis/scene.usda", "sixaxis/sixaxis.usda"):
        assert (tmp_path / name).read_bytes() == (usd_stages.STAGES / name).read_bytes(), name


def test_script_varies_the_scene(tmp_path):
    options = "--object-size 0.1 0.06 0.12 --object-mass 0.2 --object-place 0.55 -0.1 --object-yaw 20 --tray 0.5 0.3"
    stage = open_stage(author(tmp_path, *options.split()))
    (packet,) = read_objects(stage, read_articulations(stage))
    np.testing.assert_allclose(packet.spec.size_m, [0.1, 0.06, 0.12], atol=1e-6)
    assert packet.spec.mass_kg == pytest.approx(0.2)
    np.testing.assert_allclose(packet.T_world_object[:3, 3], [0.55, -0.1, 0.0601], atol=1e-6)
    assert np.degrees(np.arctan2(*packet.T_world_object[[1, 0], 0])) == pytest.approx(20, abs=1e-4)
    tray = read_object(stage.GetPrimAtPath("/World/Tray"), StageUnits.of(stage), movable=False)
    np.testing.assert_allclose(tray.spec.center_m, [0.5, 0.3, 0.025], atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "said"), [((1, 1, 1), ""), ((2, 2, 2), "scaled by 2;"), ((1, 2, 1), "scaled by [1.0, 2.0, 1.0];")]
)
def test_a_slide_between_scaled_bodies_is_noted_and_no_other_joint(scale: tuple[float, ...], said: str) -> None:
    stage = usd_stages.pendulum()
    UsdGeom.Xformable(stage.GetPrimAtPath("/World/Arm/tip")).AddScaleOp().Set(Gf.Vec3f(*scale))
    notes = {edge.path.rsplit("/", 1)[-1]: scaled_slide(edge) for edge in read_edges(stage, StageUnits.of(stage))}
    slide = notes.pop("slide")
    assert bool(slide) == bool(said)
    assert said in slide
    assert not any(notes.values())


@pytest.mark.parametrize("solid", [True, False])
def test_fingers_on_a_palm_that_is_no_body_are_named_together(solid):
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    palm = UsdGeom.Xform.Define(stage, "/Hand/palm").GetPrim()
    for name in ("left", "right"):
        finger = UsdGeom.Xform.Define(stage, f"/Hand/palm/{name}").GetPrim()
        UsdPhysics.RigidBodyAPI.Apply(finger)
        joint = UsdPhysics.PrismaticJoint.Define(stage, f"/Hand/joints/{name}")
        joint.CreateBody0Rel().SetTargets([palm.GetPath()])
        joint.CreateBody1Rel().SetTargets([finger.GetPath()])
        joint.CreateLowerLimitAttr(0.0)
        joint.CreateUpperLimitAttr(0.04)
        if not solid:
            UsdPhysics.ArticulationRootAPI.Apply(finger)
    if solid:
        UsdPhysics.RigidBodyAPI.Apply(palm)
        UsdPhysics.ArticulationRootAPI.Apply(palm)
    found = find_articulations(stage)
    said = [note for note in found.notes if "which is no rigid body" in note]
    assert len(found.robots) == (1 if solid else 2)
    assert len(said) == (not solid)
    assert all("robots left, right are jointed to /Hand/palm" in note and "<inertial>" in note for note in said)


@pytest.mark.parametrize("attribute", ["physxJoint:maxJointVelocity", "newton:velocityLimit"])
def test_a_speed_limit_of_zero_is_none(attribute):
    """What SolidWorks' exporter writes into a URDF (`velocity="0"`) forbids no motion."""
    stage = usd_stages.pendulum()
    joints = [e.prim for e in read_edges(stage, StageUnits.of(stage)) if e.kind != "fixed"]
    for speed, joint in enumerate(joints):
        joint.CreateAttribute(attribute, Sdf.ValueTypeNames.Float).Set(float(max(speed - 1, 0)))
    found = find_articulations(stage)
    limits = [j.velocity_limit for r in found.robots for j in r.spec.joints if j.kind != "fixed"]
    assert len(limits) >= 2
    assert all(limit > 0 for limit in limits)
    assert sum("speed limit of 0" in note for note in found.notes) == 1
