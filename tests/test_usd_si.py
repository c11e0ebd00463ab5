# SPDX-License-Identifier: Apache-2.0
"""A stage in other units becomes the same one in metres and kilograms: every quantity by its dimension."""

from __future__ import annotations

import pytest
import usd_stages
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.core.errors import StageError
from retake.newton.simulator import refusal
from retake.usd.articulation import read_articulations
from retake.usd.camera import camera_prims, usable_cameras
from retake.usd.si import si_stage
from retake.usd.stage import name_stage, open_stage, stage_name

METRES, KILOGRAMS = 0.01, 0.001
FLOAT = Sdf.ValueTypeNames.Float
STIFFNESS = {"linear": (1, 0), "angular": (1, 2), "transX": (1, 0), "rotZ": (1, 2)}
"""kg/s² of a force per length; kg·m²/s² of a torque per angle. A damping has the same but a second more."""
DIMENSIONS: dict[str, tuple[int, int]] = {
    "physics:mass": (1, 0), "physics:density": (1, -3),
    **{f"drive:{axis}:physics:{value}": powers for axis, powers in STIFFNESS.items() for value in ("stiffness", "damping")},
    **{f"drive:{axis}:physics:maxForce": (1, 1 if powers == (1, 0) else 2) for axis, powers in STIFFNESS.items()},
    **{f"drive:{axis}:physics:target{value}": (0, int(axis in ("linear", "transY")))
       for axis in ("linear", "transY", "angular", "rotY") for value in ("Position", "Velocity")},
    "limit:transX:physics:low": (0, 1), "limit:transX:physics:high": (0, 1), "limit:rotX:physics:low": (0, 0),
    "state:linear:physics:position": (0, 1), "state:angular:physics:position": (0, 0), "limit:distance:physics:high": (0, 1),
    "radius": (0, 1), "size": (0, 1), "focalLength": (0, 0), "horizontalAperture": (0, 0), "focusDistance": (0, 1),
    "physxCollision:contactOffset": (0, 1), "physics:breakForce": (0, 0), "physics:staticFriction": (0, 0),
}  # fmt: skip
"""Attribute → powers of mass and length, from what it is."""
OF_JOINTS = {name: 1 for name in ("physics:lowerLimit", "physics:upperLimit", "physxJoint:maxJointVelocity",
                                  "newton:mimicCoef0", "physxMimicJoint:rotX:offset")}  # fmt: skip


def stage() -> Usd.Stage:
    return usd_stages.empty(METRES, KILOGRAMS)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_quantity_is_converted_by_its_dimension(name):
    made = stage()
    attribute = made.DefinePrim("/World/thing", "Xform").CreateAttribute(name, FLOAT)
    attribute.Set(3.0)
    attribute.Set(5.0, 2.0)
    mass, length = DIMENSIONS[name]
    factor = KILOGRAMS**mass * METRES**length
    done = si_stage(made)
    found = done.GetAttributeAtPath(f"/World/thing.{name}")
    assert found.Get() == pytest.approx(3 * factor)
    assert found.Get(2.0) == pytest.approx(5 * factor)


@pytest.mark.parametrize("name", OF_JOINTS)
@pytest.mark.parametrize(("kind", "power"), [("PhysicsPrismaticJoint", 1), ("PhysicsRevoluteJoint", 0)])
def test_what_a_joint_travels_is_a_length_or_an_angle(name, kind, power):
    made = stage()
    made.DefinePrim("/World/joint", kind).CreateAttribute(name, FLOAT).Set(3.0)
    done = si_stage(made)
    assert done.GetAttributeAtPath(f"/World/joint.{name}").Get() == pytest.approx(3 * METRES**power)


@pytest.mark.parametrize("schema", ["newton:mimicCoef1", "physxMimicJoint:rotX:gearing"])
@pytest.mark.parametrize("slides", [(False, False), (True, False), (False, True), (True, True)])
def test_a_gearing_is_the_follower_s_unit_over_the_leader_s(schema, slides):
    made, (own, leads) = stage(), slides
    kinds = ["PhysicsPrismaticJoint" if s else "PhysicsRevoluteJoint" for s in (own, leads)]
    follower, leader = made.DefinePrim("/World/own", kinds[0]), made.DefinePrim("/World/lead", kinds[1])
    follower.CreateAttribute(schema, FLOAT).Set(3.0)
    relation = "newton:mimicJoint" if schema.startswith("newton") else "physxMimicJoint:rotX:referenceJoint"
    follower.CreateRelationship(relation).SetTargets([leader.GetPath()])
    lonely = made.DefinePrim("/World/lonely", kinds[0])
    lonely.CreateAttribute(schema, FLOAT).Set(3.0)
    done = si_stage(made)
    assert done.GetAttributeAtPath(f"/World/own.{schema}").Get() == pytest.approx(3 * METRES ** (own - leads))
    assert done.GetAttributeAtPath(f"/World/lonely.{schema}").Get() == pytest.approx(3 * METRES**own)


def test_places_shapes_and_gravity_are_the_same_in_metres():
    made = stage()
    body = UsdGeom.Xform.Define(made, "/World/body")
    body.AddTranslateOp().Set(Gf.Vec3d(100, 200, -50))
    body.AddRotateXYZOp().Set(Gf.Vec3f(10, 20, 30))
    other = UsdGeom.Xform.Define(made, "/World/other")
    turn = Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(0, 0, 1), 30)) * Gf.Matrix4d().SetTranslate(Gf.Vec3d(100, 0, 0))
    other.AddTransformOp().Set(turn)
    mesh = UsdGeom.Mesh.Define(made, "/World/body/mesh")
    mesh.CreatePointsAttr([(1, 2, 3), (4, 5, 6)])
    UsdPhysics.MassAPI.Apply(body.GetPrim()).CreateDiagonalInertiaAttr(Gf.Vec3f(1, 2, 3))
    done = si_stage(made)
    assert UsdGeom.GetStageMetersPerUnit(done) == UsdPhysics.GetStageKilogramsPerUnit(done) == 1
    assert Gf.IsClose(done.GetAttributeAtPath("/World/body.xformOp:translate").Get(), Gf.Vec3d(1, 2, -0.5), 1e-9)
    assert done.GetAttributeAtPath("/World/body.xformOp:rotateXYZ").Get() == Gf.Vec3f(10, 20, 30)
    moved = done.GetAttributeAtPath("/World/other.xformOp:transform").Get()
    assert Gf.IsClose(moved.ExtractTranslation(), Gf.Vec3d(1, 0, 0), 1e-9)
    assert Gf.IsClose(moved.ExtractRotationMatrix(), turn.ExtractRotationMatrix(), 1e-9)
    points = done.GetAttributeAtPath("/World/body/mesh.points").Get()
    assert [tuple(round(x, 6) for x in p) for p in points] == [(0.01, 0.02, 0.03), (0.04, 0.05, 0.06)]
    inertia = done.GetAttributeAtPath("/World/body.physics:diagonalInertia").Get()
    assert Gf.IsClose(inertia / (KILOGRAMS * METRES**2), Gf.Vec3f(1, 2, 3), 1e-5)
    assert done.GetAttributeAtPath("/World/Physics.physics:gravityMagnitude").Get() == pytest.approx(9.81)


@pytest.mark.parametrize("units", [(1.0, 1.0), (1.0, 0.001), (0.01, 1.0)])
def test_a_stage_is_copied_only_where_a_unit_differs(units):
    made = usd_stages.empty(*units)
    assert (si_stage(made) is made) == (units == (1.0, 1.0))


def test_a_converted_stage_is_called_by_its_user_s_file(tmp_path):
    """No message names the copy: one in other units, and one that was made of a robot description."""
    file = tmp_path / "mine.usda"
    made = usd_stages.empty(0.01)
    made.GetRootLayer().Export(str(file))
    for stage in (si_stage(open_stage(file)), si_stage(name_stage(open_stage(file), tmp_path / "mine.urdf"))):
        for read in (camera_prims, usable_cameras, read_articulations):
            with pytest.raises(StageError, match=r"mine\.(usda|urdf) has no"):
                read(stage)
    assert stage_name(made) == "the stage"
    assert refusal(stage, ValueError("bad"), ()).startswith(f"{tmp_path / 'mine.urdf'} cannot be simulated: bad")


def test_what_is_blocked_stays_blocked():
    """`= None` takes a value away, of an attribute or from a time on."""
    stage = usd_stages.empty(METRES)
    UsdGeom.Cube.Define(stage, "/World/Cube").GetSizeAttr().Block()
    move = UsdGeom.Xform.Define(stage, "/World/Thing").AddTranslateOp()
    move.Set(Gf.Vec3d(100, 0, 0), 1.0)
    move.GetAttr().Set(Sdf.ValueBlock(), 5.0)
    converted = si_stage(stage)
    assert not converted.GetAttributeAtPath("/World/Cube.size").HasAuthoredValue()
    moved = converted.GetAttributeAtPath("/World/Thing.xformOp:translate")
    assert (moved.Get(1.0), moved.Get(6.0)) == (Gf.Vec3d(1, 0, 0), None)
