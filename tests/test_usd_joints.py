# SPDX-License-Identifier: Apache-2.0
"""Joints of no kind of their own: what their locks leave free is what they are."""

from __future__ import annotations

import numpy as np
import pytest
import usd_stages
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.core.errors import StageError
from retake.usd.articulation import find_articulations, read_articulations
from retake.usd.joints import (
    GENERIC_AXES,
    actuated_joints,
    follows,
    joint_values,
    loose_joints,
    read_edges,
    scaled_slide,
    unstated_speeds,
)
from retake.usd.units import StageUnits


def edge_of(limits: dict[str, tuple[float, float]]):
    stage = usd_stages.empty()
    for name in ("a", "b"):
        usd_stages.add_body(stage, f"/World/{name}", (0, 0, 0), 0.1, 1.0)
    joint = UsdPhysics.Joint.Define(stage, "/World/joint")
    joint.CreateBody0Rel().SetTargets(["/World/a"])
    joint.CreateBody1Rel().SetTargets(["/World/b"])
    for axis, (low, high) in limits.items():
        limit = UsdPhysics.LimitAPI.Apply(joint.GetPrim(), axis)
        limit.CreateLowAttr(low)
        limit.CreateHighAttr(high)
    (edge,) = read_edges(stage, StageUnits.of(stage))
    return edge, stage


LOCKED = (1.0, -1.0)


@pytest.mark.parametrize("free", GENERIC_AXES)
@pytest.mark.parametrize("limits", [None, (-1.0, 1.0), (0.0, 0.0), (2.0, 2.0)])
def test_the_axis_that_is_not_locked_is_the_joint_s(free, limits):
    """Equal limits lock nothing: they hold a joint where it is, and it stays one."""
    given = {axis: LOCKED for axis in GENERIC_AXES if axis != free}
    edge, _ = edge_of(given if limits is None else {**given, free: limits})
    assert edge.problem == ""
    assert (edge.kind, edge.axis, edge.drive) == ("revolute" if free.startswith("rot") else "prismatic", free[-1], free)


def test_all_locked_is_fixed_and_two_free_are_refused_by_name():
    edge, _ = edge_of(dict.fromkeys(GENERIC_AXES, LOCKED))
    assert (edge.kind, edge.problem) == ("fixed", "")
    edge, _ = edge_of(dict.fromkeys(GENERIC_AXES[2:], LOCKED))
    assert f"with the free axes {GENERIC_AXES[0]}, {GENERIC_AXES[1]} is not supported" in edge.problem


def hinge(stage, path: str, parent: str, child: str):
    joint = UsdPhysics.RevoluteJoint.Define(stage, path)
    joint.CreateBody0Rel().SetTargets([parent] if parent else [])
    joint.CreateBody1Rel().SetTargets([child])
    return joint


@pytest.mark.parametrize("how", ["disabled", "excluded", "loose"])
def test_a_joint_that_does_not_count_hides_none_after_it(how):
    stage = usd_stages.empty()
    for name in ("a", "b", "c"):
        usd_stages.add_body(stage, f"/World/{name}", (0, 0, 0), 0.1, 1.0)
    first = hinge(stage, "/World/first", "/World/a", "/World/gone" if how == "loose" else "/World/b")
    if how == "disabled":
        first.CreateJointEnabledAttr(False)
    if how == "excluded":
        first.CreateExcludeFromArticulationAttr(True)
    hinge(stage, "/World/second", "/World/a", "/World/c")
    assert [edge.path for edge in read_edges(stage, StageUnits.of(stage))] == ["/World/second"]


def test_a_model_that_holds_another_robot_s_root_is_nobody_s_name():
    def names(inside: str) -> set[str]:
        stage = usd_stages.empty()
        UsdGeom.Xform.Define(stage, "/World/pair")
        UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, "/World/pair/links").GetPrim())
        for path in ("/World/pair/links/one", "/World/pair/links/two", "/World/Other/one", "/World/Other/two"):
            usd_stages.add_body(stage, path, (0, 0, 0), 0.1, 1.0)
        hinge(stage, "/World/pair/links/turn", "/World/pair/links/one", "/World/pair/links/two")
        hook = UsdPhysics.FixedJoint.Define(stage, f"{inside}/hook")
        hook.CreateBody1Rel().SetTargets(["/World/Other/one"])
        UsdPhysics.ArticulationRootAPI.Apply(hook.GetPrim())
        hinge(stage, "/World/Other/turn", "/World/Other/one", "/World/Other/two")
        found = find_articulations(stage)
        return {robot.spec.name for robot in found.robots if robot.spec.prim_path == "/World/pair/links"}

    assert names("/World/Other") == {"pair"}
    assert names("/World/pair") == {"links"}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("apart", "one"), [((0.0, 0.0, 0.3), True), ((0.2, 0.0, 0.3), False)])
def test_two_hinges_of_a_door_are_one_joint_whichever_way_they_are_written(reverse, apart, one):
    """The second is authored from the door to its frame; only on the line of the first (z) are the two one."""
    stage = usd_stages.empty()
    UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, "/World/Door").GetPrim())
    for name, at in (("frame", 0.0), ("leaf", 0.5)):
        usd_stages.add_body(stage, f"/World/Door/{name}", (at, 0, 0), 0.1, 1.0)
    for number, place in enumerate(((0.0, 0.0, 0.0), apart)):
        ends = ("/World/Door/frame", "/World/Door/leaf")
        joint = hinge(stage, f"/World/Door/hinge{number}", *(ends[::-1] if reverse and number else ends))
        joint.CreateAxisAttr("Z")
        in_leaf = (place[0] - 0.5, *place[1:])
        joint.CreateLocalPos0Attr(in_leaf if reverse and number else place)
        joint.CreateLocalPos1Attr(place if reverse and number else in_leaf)
    (robot,) = find_articulations(stage).robots
    assert len(robot.spec.dof_names) == (1 if one else 2)
    assert any("two hinges of one door are one joint" in note for note in robot.notes) == one


def edges_of(stage: Usd.Stage) -> dict:
    return {edge.path.rpartition("/")[2]: edge for edge in read_edges(stage, StageUnits.of(stage))}


def test_joints_that_hold_nothing_are_told_and_those_that_are_off_are_not():
    stage = usd_stages.empty()
    for name in ("a", "b", "off"):
        usd_stages.add_body(stage, f"/World/{name}", (0, 0, 0), 0.1, 1.0)
    stage.GetPrimAtPath("/World/off").SetActive(False)
    hinge(stage, "/World/j0", "/World/a", "/World/gone").CreateJointEnabledAttr(False)
    hinge(stage, "/World/j1", "/World/off", "/World/a")
    hinge(stage, "/World/j2", "/World/a", "/World/a/shape")
    hinge(stage, "/World/j3", "", "/World/a")
    hinge(stage, "/World/j4", "/World/a", "/World/b")
    assert loose_joints(stage) == {
        "/World/j1": "names /World/off, which is not on the stage",
        "/World/j2": "joins /World/a to itself",
    }


def test_a_joint_s_side_may_be_a_part_of_a_body_or_a_thing_that_stands():
    stage = usd_stages.empty(0.01)
    stand = UsdGeom.Xform.Define(stage, "/World/table")
    stand.AddTranslateOp().Set(Gf.Vec3d(0, 0, 50))
    usd_stages.add_body(stage, "/World/arm", (0, 10, 0), 0.1, 1.0)
    part = UsdGeom.Xform.Define(stage, "/World/arm/part")
    part.AddTranslateOp().Set(Gf.Vec3d(0, 0, 20))
    part.AddScaleOp().Set(Gf.Vec3f(2, 2, 2))
    joint = hinge(stage, "/World/joint", "/World/table", "/World/arm/part")
    joint.CreateLocalPos0Attr((1, 2, 3))
    joint.CreateLocalPos1Attr((1, 2, 3))
    joint.CreateLocalRot1Attr(Gf.Quatf(0, 0, 0, 0))
    edge = edges_of(stage)["joint"]
    assert edge.bodies == ("", "/World/arm")
    assert np.allclose(edge.frames[0][:3, 3], (0.01, 0.02, 0.53))
    assert np.allclose(edge.frames[1][:3, 3], (0.02, 0.04, 0.26))
    assert np.allclose(edge.frames[1][:3, :3], np.eye(3))


def test_what_a_joint_states_counts_and_what_it_only_has_does_not():
    stage = usd_stages.pendulum()
    prim = stage.GetPrimAtPath("/World/Arm/joints/hinge")
    real = Sdf.ValueTypeNames.Float
    prim.CreateAttribute("state:angular:physics:position", real)
    prim.CreateAttribute("newton:velocityLimit", real)
    units = StageUnits.of(stage)

    def values():
        return joint_values(edges_of(stage)["hinge"], units)

    assert values().start == pytest.approx(np.radians(30))
    assert values().velocity == pytest.approx(2)
    prim.GetAttribute("newton:velocityLimit").Set(90.0)
    assert values().velocity == pytest.approx(np.pi / 2), "the lower of two limits"
    prim.GetAttribute("state:angular:physics:position").Set(-15.0)
    assert values().start == pytest.approx(np.radians(-15))
    prim.GetAttribute("newton:velocityLimit").Set(0.0)
    assert values().velocity == pytest.approx(2)
    told = unstated_speeds(edges_of(stage).values())
    assert told == [
        "joint /World/Arm/joints/hinge states a speed limit of 0, which nothing that moves keeps: it is taken for not stated"
    ]
    stage.GetPrimAtPath("/World/Arm/joints/slide").GetAttribute("physxJoint:maxJointVelocity").Set(0.0)
    assert "keeps (and 1 others): it is taken" in unstated_speeds(edges_of(stage).values())[0]


@pytest.mark.parametrize(
    ("lower", "upper", "told"), [(0.0, 0.2, True), (-0.2, 0.0, True), (-np.inf, np.inf, False), (0.0, 0.0, False)]
)
def test_a_rail_below_a_scaled_body_is_noted_where_it_has_a_length(lower, upper, told):
    stage = usd_stages.empty()
    usd_stages.add_body(stage, "/World/cart", (0, 0, 0), 0.1, 1.0)
    UsdGeom.Xformable(stage.GetPrimAtPath("/World/cart")).AddScaleOp().Set(Gf.Vec3f(3, 3, 3))
    rail = UsdPhysics.PrismaticJoint.Define(stage, "/World/rail")
    rail.CreateBody1Rel().SetTargets(["/World/cart"])
    rail.CreateLowerLimitAttr(lower)
    rail.CreateUpperLimitAttr(upper)
    assert bool(scaled_slide(edges_of(stage)["rail"])) == told


@pytest.mark.parametrize("schema", ["NewtonMimicAPI", "PhysxMimicJointAPI:rotX"])
@pytest.mark.parametrize("follower", ["hinge", "slide"])
def test_a_follower_s_offset_is_in_its_own_unit_and_one_that_is_off_leads(schema, follower):
    stage = usd_stages.pendulum(0.01)
    prim = stage.GetPrimAtPath(f"/World/Arm/joints/{follower}")
    prim.AddAppliedSchema(schema)
    real, units = Sdf.ValueTypeNames.Float, StageUnits.of(stage)
    edge = edges_of(stage)[follower]
    newton = schema == "NewtonMimicAPI"
    assert follows(edge, units) is None, "it names nobody"
    other = "/World/Arm/joints/other"
    target = "newton:mimicJoint" if newton else "physxMimicJoint:rotX:referenceJoint"
    prim.CreateRelationship(target).SetTargets([other])
    per_leader = 1.0 if follower == "hinge" else 0.01
    found = follows(edge, units)
    assert (found.leader, found.factor, found.offset) == (other, pytest.approx(per_leader * (1 if newton else -1)), 0)
    prim.CreateAttribute("newton:mimicCoef0" if newton else "physxMimicJoint:rotX:offset", real).Set(12.0)
    prim.CreateAttribute("newton:mimicCoef1" if newton else "physxMimicJoint:rotX:gearing", real).Set(-2.0)
    found = follows(edge, units)
    assert found.factor == pytest.approx(-2 * per_leader * (1 if newton else -1))
    own = np.radians(12) if follower == "hinge" else 0.12
    assert found.offset == pytest.approx(own if newton else -own)
    if newton:
        prim.CreateAttribute("newton:mimicEnabled", Sdf.ValueTypeNames.Bool).Set(False)
        assert follows(edge, units) is None
    else:
        prim.RemoveProperty("physxMimicJoint:rotX:referenceJoint")
        prim.AddAppliedSchema("PhysxMimicJointAPI:rotY")
        prim.CreateRelationship("physxMimicJoint:rotY:referenceJoint").SetTargets([other])
        assert follows(edge, units).factor == pytest.approx(-per_leader)


def test_actuators_act_on_what_they_name_and_on_what_their_tendons_pull():
    stage = usd_stages.pendulum()
    stage.DefinePrim("/World/silent", "NewtonActuator")
    stage.DefinePrim("/World/motor", "NewtonActuator").CreateRelationship("newton:targets").SetTargets(["/World/j1"])
    tendon = stage.DefinePrim("/World/tendon", "MjcTendon")
    tendon.CreateRelationship("mjc:path").SetTargets(["/World/j2", "/World/j3"])
    stage.DefinePrim("/World/pull", "MjcActuator").CreateRelationship("mjc:target").SetTargets(["/World/tendon"])
    assert actuated_joints(stage) == {"/World/j1", "/World/j2", "/World/j3"}


@pytest.mark.parametrize("reverse", [False, True])
def test_hinges_of_one_body_follow_each_other_from_the_base(reverse):
    """Authored from the body to the base, the first of them is the one next to the body."""
    pair = ("hand", "base") if reverse else ("base", "hand")
    stage = usd_stages.star([(name, *pair) for name in "xyz"])
    (robot,) = read_articulations(stage)
    assert robot.spec.dof_names == (("z", "y", "x") if reverse else ("x", "y", "z"))


def robot_of(stage: Usd.Stage, name: str, *, moves: bool = True, at: float = 0.0) -> None:
    UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, f"/World/{name}").GetPrim())
    for part in ("base", "tip"):
        usd_stages.add_body(stage, f"/World/{name}/{part}", (at, 0, 0), 0.1, 1.0)
    kind = UsdPhysics.RevoluteJoint if moves else UsdPhysics.FixedJoint
    joint = kind.Define(stage, f"/World/{name}/joint")
    joint.CreateBody0Rel().SetTargets([f"/World/{name}/base"])
    joint.CreateBody1Rel().SetTargets([f"/World/{name}/tip"])


def test_what_cannot_move_is_scenery_beside_what_can():
    stage = usd_stages.empty()
    robot_of(stage, "Shelf", moves=False)
    robot_of(stage, "Arm")
    found = find_articulations(stage)
    assert [robot.spec.name for robot in found.robots] == ["Arm"]
    assert found.notes == ("articulation /World/Shelf has no movable joint: it is scenery",)
    alone = usd_stages.empty()
    robot_of(alone, "Shelf", moves=False)
    assert [robot.spec.name for robot in find_articulations(alone).robots] == ["Shelf"]


def test_of_chosen_prims_the_readable_robots_count_and_one_part_is_of_one_robot():
    stage = usd_stages.empty()
    for path in ("/World/Arm", "/World/Arm/tool"):  # a robot that stands on a link of another
        UsdPhysics.ArticulationRootAPI.Apply(usd_stages.add_body(stage, path, (0, 0, 0), 0.1, 1.0))
        usd_stages.add_body(stage, f"{path}/tip", (0, 0, 0), 0.1, 1.0)
        hinge(stage, f"{path}/joint", path, f"{path}/tip")
    robot_of(stage, "Broken")
    ball = UsdPhysics.SphericalJoint.Define(stage, "/World/Broken/ball")
    ball.CreateBody1Rel().SetTargets(["/World/Broken/tip"])

    def chosen(*paths: str) -> list[str]:
        return [robot.spec.prim_path for robot in read_articulations(stage, paths)]

    assert chosen("/World") == chosen() == ["/World/Arm", "/World/Arm/tool"]
    assert chosen("/World/Arm/tool") == ["/World/Arm/tool"]
    assert len(chosen("/World/Arm/tool/tip")) == 1
    assert chosen("/World/Arm/tip") == ["/World/Arm"]
    for path in ("/World/Broken", "/World/Broken/tip"):
        with pytest.raises(StageError, match="/World/Broken/ball"):
            chosen(path)
    with pytest.raises(StageError, match="unknown robot prim '/World/Ar'; valid: /World/Arm, /World/Arm/tool"):
        chosen("/World/Ar")


@pytest.mark.parametrize(
    ("joints", "ignored"),
    [
        ([("fixed", "base")], []),
        ([("fixed", "base"), ("fixed", "base")], []),
        ([("fixed", "base"), ("fixed", "tip")], [1]),
        ([("fixed", "base"), ("turns", "base")], [1]),
        ([("turns", "tip"), ("fixed", "base")], [0]),
        ([("turns", "base"), ("turns", "tip")], [1]),
    ],
)
def test_the_world_holds_one_link_and_other_joints_to_it_are_told(joints, ignored):
    stage = usd_stages.empty()
    robot_of(stage, "Arm")
    for number, (kind, link) in enumerate(joints):
        schema = UsdPhysics.FixedJoint if kind == "fixed" else UsdPhysics.RevoluteJoint
        schema.Define(stage, f"/World/Arm/w{number}").CreateBody1Rel().SetTargets([f"/World/Arm/{link}"])
    (robot,) = find_articulations(stage).robots
    assert robot.fixed_base
    assert robot.spec.links[0].name == "base"
    said = [note for note in robot.notes if "closes a loop through the world" in note]
    assert said == [f"/World/Arm/w{n} closes a loop through the world and is left out of the tree" for n in ignored]
    hangs = all(kind == "turns" for kind, _ in joints)
    assert robot.spec.dof_names == (("w0", "joint") if hangs else ("joint",))


def test_a_ring_is_refused_where_it_closes():
    stage = usd_stages.empty()
    UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, "/World/Ring").GetPrim())
    for name in "abc":
        usd_stages.add_body(stage, f"/World/Ring/{name}", (0, 0, 0), 0.1, 1.0)
    for one, other in ("ab", "bc", "ca"):
        hinge(stage, f"/World/Ring/{one}{other}", f"/World/Ring/{one}", f"/World/Ring/{other}")
    with pytest.raises(StageError, match="/World/Ring/ca closes a loop at /World/Ring/a;"):
        read_articulations(stage)


def test_robots_at_the_top_of_a_stage_hang_on_nothing_together():
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    for name in ("one", "two"):
        usd_stages.add_body(stage, f"/{name}", (0, 0, 0), 0.1, 1.0)
        UsdPhysics.ArticulationRootAPI.Apply(stage.GetPrimAtPath(f"/{name}"))
        UsdPhysics.PrismaticJoint.Define(stage, f"/{name}_rail").CreateBody1Rel().SetTargets([f"/{name}"])
    found = find_articulations(stage)
    assert [robot.spec.name for robot in found.robots] == ["one", "two"]
    assert not any("no rigid body" in note for note in found.notes)


def test_a_joint_turned_by_no_quaternion_is_not_turned():
    """All zeros, as some exporters write where nothing is turned."""
    stage = usd_stages.pendulum()
    before = find_articulations(stage).robots[0].spec.joints
    for name in ("hinge", "slide"):
        UsdPhysics.Joint(stage.GetPrimAtPath(f"/World/Arm/joints/{name}")).CreateLocalRot0Attr(Gf.Quatf(0, 0, 0, 0))
    found = find_articulations(stage)
    assert not found.refused
    for a, b in zip(before, found.robots[0].spec.joints, strict=True):
        np.testing.assert_array_equal(a.T_parent_joint, b.T_parent_joint)


def test_a_generic_joint_that_slides_leads_as_a_slide_does():
    """A factor between a hinge and a slide counts lengths in the stage's unit, however the slide is written."""
    factors = []
    for generic in (False, True):
        stage = usd_stages.pendulum(metres=0.01)
        hinge, slide = (stage.GetPrimAtPath(f"/World/Arm/joints/{name}") for name in ("hinge", "slide"))
        if generic:
            slide.SetTypeName("PhysicsJoint")
            for axis in ("transY", "transZ", "rotX", "rotY", "rotZ"):
                limit = UsdPhysics.LimitAPI.Apply(slide, axis)
                limit.CreateLowAttr(1.0)
                limit.CreateHighAttr(-1.0)
        hinge.AddAppliedSchema("NewtonMimicAPI")
        hinge.CreateRelationship("newton:mimicJoint").SetTargets([slide.GetPath()])
        hinge.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(2.0)
        mimics = [joint.mimic for joint in read_articulations(stage)[0].spec.dof_joints if joint.mimic]
        factors += [mimic.factor for mimic in mimics]
    assert factors == [pytest.approx(200.0)] * 2
