# SPDX-License-Identifier: Apache-2.0
"""Joints of no kind of their own: what their locks leave free is what they are."""

from __future__ import annotations

import pytest
import usd_stages
from pxr import UsdGeom, UsdPhysics

from retake.usd.articulation import find_articulations
from retake.usd.joints import GENERIC_AXES, read_edges
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
    for name in ("frame", "leaf"):
        usd_stages.add_body(stage, f"/World/Door/{name}", (0, 0, 0), 0.1, 1.0)
    for number, place in enumerate(((0.0, 0.0, 0.0), apart)):
        ends = ("/World/Door/frame", "/World/Door/leaf")
        joint = hinge(stage, f"/World/Door/hinge{number}", *(ends[::-1] if reverse and number else ends))
        joint.CreateAxisAttr("Z")
        joint.CreateLocalPos0Attr(place)
        joint.CreateLocalPos1Attr(place)
    (robot,) = find_articulations(stage).robots
    assert len(robot.spec.dof_names) == (1 if one else 2)
    assert any("two hinges of one door are one joint" in note for note in robot.notes) == one
