# SPDX-License-Identifier: Apache-2.0
"""A stage in other units becomes the same one in metres and kilograms: every quantity by its dimension."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
import usd_stages
from pxr import Gf, Plug, Sdf, Tf, Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade, UsdSkel

from retake.core.errors import StageError
from retake.newton.simulator import refusal
from retake.usd.articulation import read_articulations
from retake.usd.camera import camera_prims, usable_cameras
from retake.usd.si import si_stage
from retake.usd.stage import name_stage, open_stage, stage_name

METRES, KILOGRAMS = 0.01, 0.001
FLOAT, DEFAULT = Sdf.ValueTypeNames.Float, Usd.TimeCode.Default()
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
    "physxCollision:contactOffset": (0, 1), "physics:breakForce": (1, 1), "physics:breakTorque": (1, 2),
    "physics:staticFriction": (0, 0), "physxRigidBody:maxLinearVelocity": (0, 1), "physxRigidBody:sleepThreshold": (0, 2),
    "physxArticulation:stabilizationThreshold": (0, 2), "physxScene:bounceThreshold": (0, 1), "newton:shellThickness": (0, 1),
    "newton:linear:position": (0, 1), "newton:angular:position": (0, 0), "thresholds": (0, 0), "inputs:radius": (0, 0),
}  # fmt: skip
"""Attribute → powers of mass and length, from what it is."""
OF_JOINTS = {name: 1 for name in ("physics:lowerLimit", "physics:upperLimit", "physxJoint:maxJointVelocity",
                                  "newton:mimicCoef0", "physxMimicJoint:rotX:offset")}  # fmt: skip


NUMBERS_WITHOUT_LENGTH = """
    angularVelocities blendShapeWeights blendThresholds cornerSharpnesses creaseSharpnesses dataWindowNDC exposure exposure:*
    drive:*:physics:* fStop focalLength gain horizontalAperture* verticalAperture* inputs:angle inputs:colorTemperature
    inputs:color inputs:diffuse inputs:specular inputs:exposure inputs:intensity inputs:shaping:* inputs:shadow:color
    inputs:shadow:falloffGamma knots limit:*:physics:* lod:* mediaOffset model:* motion:* normalOffsets normals opacities*
    physics:angularVelocity physics:coneAngle?Limit physics:dynamicFriction physics:staticFriction physics:restitution
    physics:gravityDirection pixelAspectRatio pointWeights primvars:display* primvars:skel:jointWeights radiance:* ranges
    shutter:* trimCurve:* uKnots vKnots uRange vRange ui:* colorSpaceDefinition:* backPlate:* orientations* rotations
    physics:localRot? physics:principalAxes
"""
"""Attributes of USD's schemas that no length changes; a drive's and a limit's depend on their axis, and are tested by name. Back
plates (USD 26) are pictures behind a camera, in its own terms."""


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


def schema_numbers() -> list[tuple[str, str, Sdf.ValueTypeName]]:
    """(prim type, name, value type) of every attribute of USD's own schemas that holds numbers with a fraction."""
    registry, found = Usd.SchemaRegistry(), {}
    for schema in Tf.Type.FindByName("UsdSchemaBase").GetAllDerivedTypes():
        if not Plug.Registry().GetPluginForType(schema).name.startswith("usd"):
            continue  # of Newton, MuJoCo
        name = registry.GetSchemaTypeName(schema)
        concrete = registry.FindConcretePrimDefinition(name)
        definition = concrete or registry.FindAppliedAPIPrimDefinition(name)
        for own in definition.GetPropertyNames() if definition else ():
            attribute = definition.GetAttributeDefinition(own)
            if attribute and any(kind in str(attribute.GetTypeName()) for kind in FRACTIONS):
                prim_type = name if concrete else {"PhysicsMassAPI": "Xform"}.get(name, "")
                found[own, prim_type] = (prim_type, own, attribute.GetTypeName())
    return list(found.values())


def some_value(kind: Sdf.ValueTypeName) -> Any:
    one = kind.scalarType.defaultValue
    if isinstance(one, Gf.Matrix4d):
        one = Gf.Matrix4d().SetTranslate(Gf.Vec3d(1, 2, 3))
    elif hasattr(one, "dimension"):
        one = type(one)(*[3.0] * one.dimension)
    elif isinstance(one, float):
        one = 3.0
    return type(kind.defaultValue)([one]) if kind.isArray else one


FRACTIONS = ("float", "double", "half", "point", "vector", "normal", "matrix", "quat", "color", "texCoord")
LIKE = {"inputs:shadow:distance": "SphereLight", "positions": "ParticleField", "positionsh": "ParticleField",
        "scales": "ParticleField", "scalesh": "ParticleField"}  # fmt: skip
"""Attributes of schemas that are applied: a type of prim that they are applied to."""
OTHERWISE = [
    ("scales", "PointInstancer"), ("scales", "SkelAnimation"), ("thresholds", "LODScreenSizeHeuristic"),
    *((f"physics:{end}Limit", "PhysicsRevoluteJoint") for end in ("lower", "upper")),
]  # fmt: skip
"""Names that are lengths on prims of other types only."""


def test_every_number_of_usd_s_schemas_is_converted_or_holds_no_length() -> None:
    """Complete, also for a USD to come: what its schemas add must be put into one of the two lists."""
    numbers = schema_numbers()
    assert len(numbers) > 150, "the schemas were found"
    made = stage()
    for index, (prim_type, name, kind) in enumerate(numbers):
        prim = made.DefinePrim(f"/World/p{index}", prim_type or LIKE.get(name, "Xform"))
        prim.CreateAttribute(name, kind).Set(some_value(kind))
    done = si_stage(made)
    wrong = []
    for index, (prim_type, name, _) in enumerate(numbers):
        before, after = (s.GetPrimAtPath(f"/World/p{index}").GetAttribute(name).Get() for s in (made, done))
        plain = any(fnmatchcase(name, pattern) for pattern in NUMBERS_WITHOUT_LENGTH.split())
        plain |= (name, prim_type) in OTHERWISE
        if (before == after) != plain:
            wrong.append(f"{name} of {prim_type}: {before} -> {after}")
    assert wrong == []


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


def test_points_planes_skins_and_instances_are_the_same_in_metres():
    """Of a matrix only the translation is a length, of a plane only its distance, of an instance not its scale."""
    made = stage()
    instancer = UsdGeom.PointInstancer.Define(made, "/World/many")
    instancer.CreatePositionsAttr([(100, 0, 0), (0, 200, 0)])
    instancer.GetPositionsAttr().Set([(300, 0, 0)], 2.0)
    instancer.CreateVelocitiesAttr([(1, 2, 3)])
    instancer.CreateAccelerationsAttr([(10, 0, 0)])
    instancer.CreateScalesAttr([(2, 2, 2)])
    instancer.CreateAngularVelocitiesAttr([(90, 0, 0)])
    UsdGeom.Camera.Define(made, "/World/camera").CreateClippingPlanesAttr([(0, 0, 1, -50)])
    turn = Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(0, 0, 1), 30))
    skeleton = UsdSkel.Skeleton.Define(made, "/World/skeleton")
    skeleton.CreateBindTransformsAttr([turn * Gf.Matrix4d().SetTranslate(Gf.Vec3d(0, 0, 100))])
    skin = UsdSkel.BindingAPI.Apply(UsdGeom.Mesh.Define(made, "/World/skin").GetPrim())
    skin.CreateGeomBindTransformAttr(Gf.Matrix4d().SetTranslate(Gf.Vec3d(5, 0, 0)))
    blend = UsdSkel.BlendShape.Define(made, "/World/blend")
    blend.CreateOffsetsAttr([(1, 0, 0)])
    half = blend.CreateInbetween("half")
    half.SetOffsets([(2, 0, 0)])
    half.CreateNormalOffsetsAttr([(0, 1, 0)])
    for kind in (UsdLux.SphereLight, UsdShade.Shader):
        prim = kind.Define(made, f"/World/{kind.__name__}").GetPrim()
        prim.CreateAttribute("inputs:radius", FLOAT).Set(50.0)
    done = si_stage(made)

    def value(path: str, time: Usd.TimeCode | float = DEFAULT) -> Any:
        return done.GetAttributeAtPath(f"/World/{path}").Get(time)

    def near(found: Any, expected: Any) -> bool:
        return len(found) == 1 and Gf.IsClose(found[0], expected, 1e-6)

    assert [tuple(round(x, 6) for x in p) for p in value("many.positions")] == [(1, 0, 0), (0, 2, 0)]
    assert near(value("many.positions", 2.0), Gf.Vec3f(3, 0, 0))
    assert near(value("many.velocities"), Gf.Vec3f(0.01, 0.02, 0.03))
    assert near(value("many.accelerations"), Gf.Vec3f(0.1, 0, 0))
    assert near(value("many.scales"), Gf.Vec3f(2))
    assert near(value("many.angularVelocities"), Gf.Vec3f(90, 0, 0))
    assert near(value("camera.clippingPlanes"), Gf.Vec4f(0, 0, 1, -0.5))
    assert near(value("skeleton.bindTransforms"), turn * Gf.Matrix4d().SetTranslate(Gf.Vec3d(0, 0, 1)))
    assert value("skin.primvars:skel:geomBindTransform").ExtractTranslation() == Gf.Vec3d(0.05, 0, 0)
    assert near(value("blend.offsets"), Gf.Vec3f(0.01, 0, 0))
    assert near(value("blend.inbetweens:half"), Gf.Vec3f(0.02, 0, 0))
    assert near(value("blend.inbetweens:half:normalOffsets"), Gf.Vec3f(0, 1, 0))
    assert (value("SphereLight.inputs:radius"), value("Shader.inputs:radius")) == (0.5, 50.0)


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
