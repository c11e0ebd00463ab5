# SPDX-License-Identifier: Apache-2.0
"""Small USD stages authored in memory for the reader's tests: other units, other axes, other robots."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

STAGES = Path(__file__).resolve().parent.parent / "data" / "stages"
PICK_PLACE, SIXAXIS = STAGES / "pick_place" / "scene.usda", STAGES / "sixaxis" / "scene.usda"


def empty(metres: float = 1.0, kilograms: float = 1.0, up: str = "Z") -> Usd.Stage:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, metres)
    UsdPhysics.SetStageKilogramsPerUnit(stage, kilograms)
    UsdGeom.SetStageUpAxis(stage, up)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    scene = UsdPhysics.Scene.Define(stage, "/World/Physics")
    scene.CreateGravityMagnitudeAttr(9.81 / metres)
    scene.CreateGravityDirectionAttr(Gf.Vec3f(0, -1, 0) if up == "Y" else Gf.Vec3f(0, 0, -1))
    return stage


def gf(T: np.ndarray) -> Gf.Matrix4d:
    """A column-vector pose as USD's row-vector matrix."""
    return Gf.Matrix4d(T.T.tolist())


def add_camera(stage: Usd.Stage, path: str = "/World/Camera", T_stage: np.ndarray | None = None) -> UsdGeom.Camera:
    camera = UsdGeom.Camera.Define(stage, path)
    camera.CreateFocalLengthAttr(24.0)
    camera.CreateHorizontalApertureAttr(26.5)
    UsdGeom.Xformable(camera).AddTransformOp().Set(gf(np.eye(4) if T_stage is None else T_stage))
    return camera


def add_body(stage: Usd.Stage, path: str, at: tuple[float, float, float], size: float, mass: float) -> Usd.Prim:
    body = UsdGeom.Xform.Define(stage, path)
    body.AddTranslateOp().Set(Gf.Vec3d(*at))
    UsdPhysics.RigidBodyAPI.Apply(body.GetPrim())
    UsdPhysics.MassAPI.Apply(body.GetPrim()).CreateMassAttr(mass)
    cube = UsdGeom.Cube.Define(stage, f"{path}/shape")
    cube.CreateSizeAttr(size)
    UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    return body.GetPrim()


def pendulum(
    metres: float = 1.0, kilograms: float = 1.0, up: str = "Z", name: str = "Arm", reverse: bool = False
) -> Usd.Stage:
    """Base, swinging link, sliding tip; authored in any units so that the physical robot is the same."""
    stage = empty(metres, kilograms, up)
    root = UsdGeom.Xform.Define(stage, f"/World/{name}").GetPrim()
    UsdPhysics.ArticulationRootAPI.Apply(root)
    height = (0.0, 1.0, 0.0) if up == "Y" else (0.0, 0.0, 1.0)
    at = [tuple((h * z) / metres for h in height) for z in (0.0, 0.4, 0.7)]
    for link, place, mass in zip(("base", "swing", "tip"), at, (2.0, 1.0, 0.5), strict=True):
        add_body(stage, f"/World/{name}/{link}", place, 0.1 / metres, mass / kilograms)
    fixed = UsdPhysics.FixedJoint.Define(stage, f"/World/{name}/joints/fix")
    fixed.CreateBody1Rel().SetTargets([Sdf.Path(f"/World/{name}/base")])
    _joint(stage, name, "hinge", "Revolute", ("base", "swing"), 0.4, metres, kilograms, height, (-120, 120), reverse)
    _joint(stage, name, "slide", "Prismatic", ("swing", "tip"), 0.3, metres, kilograms, height, (-0.1, 0.2), False)
    return stage


def _joint(
    stage: Usd.Stage, robot: str, name: str, kind: str, links: tuple[str, str], offset: float, metres: float,
    kilograms: float, height: tuple[float, float, float], limits: tuple[float, float], reverse: bool,
) -> None:  # fmt: skip
    path = f"/World/{robot}/joints/{name}"
    revolute = kind == "Revolute"
    joint = (UsdPhysics.RevoluteJoint if revolute else UsdPhysics.PrismaticJoint).Define(stage, path)
    joint.CreateAxisAttr("X")
    bodies = [Sdf.Path(f"/World/{robot}/{link}") for link in links]
    local = Gf.Vec3f(*(h * offset / metres for h in height))
    places = [local, Gf.Vec3f(0)]
    if reverse:
        bodies, places = bodies[::-1], places[::-1]
    joint.CreateBody0Rel().SetTargets(bodies[:1])
    joint.CreateBody1Rel().SetTargets(bodies[1:])
    joint.CreateLocalPos0Attr(places[0])
    joint.CreateLocalPos1Attr(places[1])
    joint.CreateLocalRot0Attr(Gf.Quatf(1))
    joint.CreateLocalRot1Attr(Gf.Quatf(1))
    scale = 1.0 if revolute else 1 / metres
    joint.CreateLowerLimitAttr(limits[0] * scale)
    joint.CreateUpperLimitAttr(limits[1] * scale)
    drive = UsdPhysics.DriveAPI.Apply(joint.GetPrim(), "angular" if revolute else "linear")
    force = 1 / kilograms
    torque = force / metres**2
    drive.CreateStiffnessAttr(math.radians(400) * torque if revolute else 3000 * force)
    drive.CreateDampingAttr(math.radians(40) * torque if revolute else 300 * force)
    drive.CreateMaxForceAttr(80 * torque if revolute else 60 * force / metres)
    drive.CreateTargetPositionAttr(30.0 if revolute else 0.05 * scale)
    limit = joint.GetPrim().CreateAttribute("physxJoint:maxJointVelocity", Sdf.ValueTypeNames.Float)
    limit.Set(math.degrees(2.0) if revolute else 0.5 * scale)


def star(joints: list[tuple[str, str, str]], mimic: dict[str, str] | None = None) -> Usd.Stage:
    """A base that stands on the world, with hinges (name, parent, child) in that order about x, y, z, x, … in turn.

    `mimic`: name of a hinge -> prim name (or path) of the joint it says it follows.
    """
    stage = empty()
    UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, "/World/Robot").GetPrim())
    links = list(dict.fromkeys(["base", *(link for _, *pair in joints for link in pair)]))
    for number, link in enumerate(links):
        add_body(stage, f"/World/Robot/{link}", (0.0, 0.0, 0.1 * number), 0.05, 1.0)
    UsdPhysics.FixedJoint.Define(stage, "/World/Robot/fix").CreateBody1Rel().SetTargets([Sdf.Path("/World/Robot/base")])
    for number, (name, parent, child) in enumerate(joints):
        joint = UsdPhysics.RevoluteJoint.Define(stage, f"/World/Robot/{name}")
        joint.CreateAxisAttr("XYZ"[number % 3])
        joint.CreateBody0Rel().SetTargets([Sdf.Path(f"/World/Robot/{parent}")])
        joint.CreateBody1Rel().SetTargets([Sdf.Path(f"/World/Robot/{child}")])
        joint.CreateLocalPos0Attr(Gf.Vec3f(0, 0, 0.1 * (links.index(child) - links.index(parent))))
        joint.CreateLocalPos1Attr(Gf.Vec3f(0))
        joint.CreateLowerLimitAttr(-90.0)
        joint.CreateUpperLimitAttr(90.0)
        if leader := (mimic or {}).get(name):
            joint.GetPrim().AddAppliedSchema("NewtonMimicAPI")
            target = Sdf.Path(leader if leader.startswith("/") else f"/World/Robot/{leader}")
            joint.GetPrim().CreateRelationship("newton:mimicJoint").SetTargets([target])
    return stage
