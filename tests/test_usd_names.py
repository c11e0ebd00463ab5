# SPDX-License-Identifier: Apache-2.0
"""Names of things: whose it is and not what kind of prim, as short as differs, and of plain letters where files need them."""

from __future__ import annotations

import pytest
import usd_stages
from hypothesis import given
from hypothesis import strategies as st
from pxr import Gf, UsdGeom, UsdPhysics

from retake.usd.bodies import choose_objects, find_objects, read_object, scenery_group
from retake.usd.names import distinct, model_prim, shown
from retake.usd.stage import editable
from retake.usd.units import StageUnits

KEPT = []
"""Stages whose prims are looked at: a prim does not keep its stage."""


def prims(*paths: str, default: str = "/World"):
    stage = usd_stages.empty()
    made = [UsdGeom.Xform.Define(stage, path).GetPrim() for path in paths]
    stage.SetDefaultPrim(stage.GetPrimAtPath(default))
    KEPT[:] = [*KEPT[-1:], stage]
    return made


@pytest.mark.parametrize(
    ("path", "default", "name"),
    [
        ("/World/mug", "/World", "mug"),
        ("/World/mug/link", "/World", "mug"),
        ("/World/mug/base_link/mesh_01", "/World", "mug"),
        ("/World/body", "/World", "body"),  # the world is nobody's name
        ("/mug/body", "/mug", "mug"),  # a default prim that is the model itself
        ("/base/link", "/base", "base"),
        ("/World/mug/fixed_joint", "/World", "mug"),
        ("/link", "/World", "link"),
    ],
)
def test_a_thing_is_called_by_the_nearest_name_of_its_own(path, default, name):
    (prim,) = prims(path, default=default)
    assert shown(model_prim(prim)) == name


def test_a_default_prim_with_other_things_in_it_is_no_model():
    body, *_ = prims("/Room/body", "/Room/chair", default="/Room")
    assert model_prim(body).GetName() == "body"
    deep, *_ = prims("/Room/base/body", "/Room/chair", default="/Room")
    assert model_prim(deep).GetName() == "base"
    alone, *_ = prims("/Room/base/body", default="/Room")
    assert model_prim(alone).GetName() == "Room"


def test_a_scope_and_a_joint_name_nothing():
    stage = usd_stages.empty()
    scope = stage.DefinePrim("/World/mug/parts", "Scope")
    body = UsdGeom.Xform.Define(stage, "/World/mug/parts/link").GetPrim()
    UsdGeom.Xform.Define(stage, "/World/mug")
    joint = UsdPhysics.FixedJoint.Define(stage, "/World/mug/hook").GetPrim()
    assert [model_prim(p).GetName() for p in (scope, body, joint)] == ["mug"] * 3
    top = stage.DefinePrim("/parts", "Scope")
    assert model_prim(top) == top


@given(
    st.lists(st.sampled_from(["a", "b", "link", "World", "env_1", "env_2"]), min_size=1, max_size=4), st.integers(2, 4)
)
def test_names_differ_and_are_as_short_as_that_takes(parts, count):
    paths = [f"/World/top{k}/{'/'.join(parts)}" for k in range(count)]
    found = distinct(prims(*paths))
    assert len(set(found)) == count
    told = [part for part in parts if part in ("a", "b", "env_1", "env_2")]
    for k, name in enumerate(found):
        wanted = [f"top{k}", *told] if parts[-1] in told else [f"top{k}", *told, parts[-1]]
        assert name == "_".join(wanted)


def test_equal_names_grow_from_above_and_then_by_number():
    assert distinct(prims("/World/a/x", "/World/b/x", "/World/y")) == ("a_x", "b_x", "y")
    assert distinct(prims("/World/a/p/x", "/World/a/q/x")) == ("p_x", "q_x")
    assert distinct(prims("/World/x", "/World/a/x")) == ("x", "a_x")
    assert distinct(prims("/World/link/x", "/World/body/x", "/World/frame/x")) == ("x", "x_2", "x_3")
    assert distinct(prims("/World/x", "/World/x_2", "/World/link/x")) == ("x", "x_2", "x_3")


def test_plain_names_are_of_plain_letters():
    stage = usd_stages.empty()
    made = []
    for k, name in enumerate(("Tässchen", "kop / 2", "杯", "碗", "a" * 80, "a" * 80)):
        prim = UsdGeom.Xform.Define(stage, f"/World/p{k}").GetPrim()
        prim.SetDisplayName(name)
        made.append(prim)
    found = distinct(made, plain=True)
    assert found[:4] == ("Tasschen", "kop_2", "unnamed", "unnamed_2")
    assert found[4:] == ("a" * 64, "a" * 60 + "_2")
    assert distinct(made)[:4] == ("Tässchen", "kop / 2", "杯", "碗")


def test_a_still_shape_belongs_to_what_lies_below_the_world():
    stage = usd_stages.empty()
    UsdGeom.Xform.Define(stage, "/World/shelf/board")
    shape = UsdGeom.Cube.Define(stage, "/World/shelf/board/shape").GetPrim()
    assert str(scenery_group(shape).GetPath()) == "/World/shelf"
    own = UsdGeom.Cube.Define(stage, "/other/shape").GetPrim()
    assert str(scenery_group(own).GetPath()) == "/other"
    assert scenery_group(stage.GetPrimAtPath("/World/shelf")) == stage.GetPrimAtPath("/World/shelf")
    body = usd_stages.add_body(stage, "/World/group/mug", (0, 0, 0), 0.1, 1.0)
    assert scenery_group(body) == body


def test_a_stage_that_names_no_world_has_one_where_one_prim_holds_all_shapes():
    stage = usd_stages.empty()
    stage.ClearDefaultPrim()
    UsdGeom.Xform.Define(stage, "/Looks/paint")
    floor = UsdGeom.Cube.Define(stage, "/World/floor").GetPrim()
    leg = UsdGeom.Cube.Define(stage, "/World/table/leg").GetPrim()
    assert [str(scenery_group(prim).GetPath()) for prim in (floor, leg)] == ["/World/floor", "/World/table"]
    bin_ = UsdGeom.Cube.Define(stage, "/bin/side").GetPrim()
    assert [str(scenery_group(prim).GetPath()) for prim in (leg, bin_)] == ["/World/table", "/bin"]


@pytest.mark.parametrize(
    ("shapes", "things"),
    [
        (
            ("/Environment/floor", "/Environment/table/leg", "/Props/bin/side"),
            ("/Environment/floor", "/Environment/table", "/Props"),
        ),
        (("/World/floor", "/Scene/table/leg"), ("/World", "/Scene")),  # two worlds: none
        (("/bin/left", "/bin/right"), ("/bin", "/bin")),  # a bin beside a robot stays one thing
        (("/World/table/leg", "/Robot/pedestal"), ("/World/table", "/Robot")),
    ],
)
def test_of_several_at_the_top_the_one_called_a_world_is_it(shapes, things):
    stage = usd_stages.empty()
    stage.ClearDefaultPrim()
    stage.RemovePrim("/World")
    usd_stages.add_body(stage, "/Robot/base", (0, 0, 1), 0.1, 1.0)
    made = [UsdGeom.Cube.Define(stage, path).GetPrim() for path in shapes]
    assert tuple(str(scenery_group(prim).GetPath()) for prim in made) == things


@pytest.mark.parametrize("movable", [True, False])
def test_the_box_of_a_thing_is_in_metres_and_in_its_own_frame(movable):
    stage = usd_stages.empty(0.01)
    prim = UsdGeom.Xform.Define(stage, "/World/mug")
    prim.AddTranslateOp().Set(Gf.Vec3d(500, 0, 0))
    prim.AddScaleOp().Set(Gf.Vec3f(2, 2, 2))
    UsdPhysics.RigidBodyAPI.Apply(prim.GetPrim())
    cube = UsdGeom.Cube.Define(stage, "/World/mug/shape")
    cube.CreateSizeAttr(10.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(0, 0, 5))
    spec = read_object(prim.GetPrim(), StageUnits.of(stage), movable=movable).spec
    assert spec.size_m == pytest.approx((0.2, 0.2, 0.2))
    assert spec.center_m == pytest.approx((0, 0, 0.1))
    assert (spec.mass_kg, spec.movable, spec.label, spec.name) == (None, movable, "mug", "mug")
    empty = UsdGeom.Xform.Define(stage, "/World/nothing").GetPrim()
    with pytest.raises(Exception, match="has no geometry"):
        read_object(empty, StageUnits.of(stage), movable=movable)


def test_objects_are_chosen_by_path_and_told_why_not():
    stage = usd_stages.empty()
    for name in ("a", "b", "hung"):
        usd_stages.add_body(stage, f"/World/{name}", (0, 0, 1), 0.1, 2.0)
    UsdPhysics.FixedJoint.Define(stage, "/World/hook").CreateBody1Rel().SetTargets(["/World/hung"])
    found = find_objects(stage)
    assert [o.spec.name for o in choose_objects(found, None)] == ["a", "b"]
    assert [o.spec.name for o in choose_objects(found, ["/World/b", "/World/a"])] == ["b", "a"]
    assert choose_objects(found, []) == ()
    for path, words in (("/World/hung", "hangs on joint /World/hook"), ("/World/c", "/World/a")):
        with pytest.raises(Exception, match=words):
            choose_objects(found, [path])


def test_a_body_that_hangs_on_a_hung_one_hangs_too():
    stage = usd_stages.empty()
    for name in ("c", "b", "a"):
        usd_stages.add_body(stage, f"/World/{name}", (0, 0, 1), 0.1, 1.0)
    for number, (one, other) in enumerate((("c", "b"), ("b", "a"), ("a", None))):
        joint = UsdPhysics.FixedJoint.Define(stage, f"/World/j{number}")
        joint.CreateBody0Rel().SetTargets([f"/World/{one}"])
        joint.CreateBody1Rel().SetTargets([f"/World/{other}"] if other else [])
    found = find_objects(stage)
    assert found.objects == ()
    assert set(found.refused) == {"/World/a", "/World/b", "/World/c"}
    assert "joint /World/j2" in found.refused["/World/a"]


def test_an_instance_is_opened_for_editing_and_nothing_else_is():
    stage = usd_stages.empty()
    UsdGeom.Xform.Define(stage, "/Model")
    UsdGeom.Cube.Define(stage, "/Model/part")
    for name in ("one", "two"):
        prim = UsdGeom.Xform.Define(stage, f"/World/{name}").GetPrim()
        prim.GetReferences().AddInternalReference("/Model")
        prim.SetInstanceable(True)
    before = stage.GetRootLayer().ExportToString()
    part = editable(stage, "/World/one/part")
    assert not part.IsInstanceProxy()
    assert part.GetPath() == "/World/one/part"
    assert stage.GetPrimAtPath("/World/two/part").IsInstanceProxy()
    assert stage.GetRootLayer().ExportToString() == before
