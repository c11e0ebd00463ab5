# SPDX-License-Identifier: Apache-2.0
"""Laws over random articulations: whatever tree, joints, names, instances, units and frames, kinematics agree with pxr's own.

The truth is computed with Gf's row-vector matrices from the numbers that were authored; nothing of Retake's takes part.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics
from strategies import seeds

from retake.usd.articulation import Articulation, find_articulations, read_articulations
from retake.usd.si import si_stage
from retake.usd.units import StageUnits

AXES = {"X": Gf.Vec3d(1, 0, 0), "Y": Gf.Vec3d(0, 1, 0), "Z": Gf.Vec3d(0, 0, 1)}
NAMES = ("link", "arm_2", "Körper", "base_link", "finger_left", "a")


@dataclass
class Joint:
    """A joint as authored: stage units, degrees."""

    kind: str
    axis: str
    parent: int
    """-1 = world."""
    child: int
    A: Gf.Matrix4d
    C: Gf.Matrix4d
    q: float
    generic: bool = False
    reverse: bool = False
    path: str = ""


@dataclass
class Robot:
    """A random articulation."""

    joints: list[Joint] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    base: Gf.Matrix4d = field(default_factory=Gf.Matrix4d)

    def poses(self, q: dict[str, float]) -> list[Gf.Matrix4d]:
        """Local-to-world matrices of all bodies with joints at q (degrees or stage units, by path)."""
        world: list[Gf.Matrix4d] = [Gf.Matrix4d(self.base)]
        seen: set[int] = set()
        if any(j.parent < 0 for j in self.joints):
            world[0] = Gf.Matrix4d(1)
        for joint in self.joints:
            value = q.get(joint.path, 0.0)
            if joint.reverse:
                value = -value
            motion = Gf.Matrix4d(1)
            if joint.kind == "revolute":
                motion.SetRotate(Gf.Rotation(AXES[joint.axis], value))
            elif joint.kind == "prismatic":
                motion.SetTranslate(AXES[joint.axis] * value)
            if joint.child in seen:  # a further hinge of the same body
                world[joint.child] = joint.C.GetInverse() * motion * joint.C * world[joint.child]
                continue
            seen.add(joint.child)
            above = Gf.Matrix4d(1) if joint.parent < 0 else world[joint.parent]
            pose = joint.C.GetInverse() * motion * joint.A * above
            if joint.child == 0:
                world[0] = pose
            else:
                world.append(pose)
        return world


def random_frame(rng: np.random.Generator, spread: float) -> Gf.Matrix4d:
    q = rng.normal(size=4)
    # As single precision will have it.
    rotation = Gf.Quatd(Gf.Quatf(*map(float, q / np.linalg.norm(q))).GetNormalized())
    matrix = Gf.Matrix4d().SetRotate(Gf.Rotation(rotation))
    return matrix.SetTranslateOnly(Gf.Vec3d(Gf.Vec3f(*map(float, rng.uniform(-spread, spread, 3)))))


def random_robot(rng: np.random.Generator, size: int, spread: float, top: str) -> Robot:
    robot = Robot(base=random_frame(rng, spread))
    robot.bodies = [f"{top}/{NAMES[rng.integers(len(NAMES))]}"]
    if rng.random() < 0.3:
        kind = str(rng.choice(["revolute", "prismatic"]))
        frames = random_frame(rng, spread), random_frame(rng, spread)
        robot.joints.append(Joint(kind, str(rng.choice(list("XYZ"))), -1, 0, *frames, float(rng.uniform(-0.3, 0.3))))
    for child in range(1, size):
        parent = int(rng.integers(child))
        nested = rng.random() < 0.5
        # Nested bodies may share a name with each other; siblings of one parent may not.
        where = robot.bodies[parent] if nested else top
        name = NAMES[rng.integers(len(NAMES))]
        while f"{where}/{name}" in robot.bodies:
            name += "_"
        robot.bodies.append(f"{where}/{name}")
        kind = str(rng.choice(["revolute", "revolute", "prismatic", "fixed"]))
        A, C = random_frame(rng, spread), random_frame(rng, spread)
        joint = Joint(kind, str(rng.choice(list("XYZ"))), parent, child, A, C, 0.0)
        joint.generic, joint.reverse = kind != "fixed" and rng.random() < 0.3, bool(rng.random() < 0.3)
        joint.q = float(rng.uniform(-40, 40)) if kind == "revolute" else float(rng.uniform(-0.2, 0.2)) * spread
        robot.joints.append(joint)
        if kind != "fixed" and not joint.reverse and rng.random() < 0.2:
            # Its frame in the parent is where its frame in the child is when all joints are at zero.
            D = random_frame(rng, spread)
            robot.joints.append(
                Joint(
                    "revolute",
                    str(rng.choice(list("XYZ"))),
                    parent,
                    child,
                    D * C.GetInverse() * A,
                    D,
                    float(rng.uniform(-40, 40)),
                )
            )
    return robot


def author(stage: Usd.Stage, robot: Robot, top: str, rng: np.random.Generator) -> None:
    """Write a robot under `top` at its joint state."""
    for number, joint in enumerate(robot.joints):
        joint.path = f"{top}/joints/{'j' if rng.random() < 0.5 else 'PhysicsJoint'}{number}"
    poses = robot.poses({j.path: j.q for j in robot.joints})
    for path, pose in zip(robot.bodies, poses, strict=True):
        body = UsdGeom.Xform.Define(stage, path)
        above = UsdGeom.XformCache().GetLocalToWorldTransform(body.GetPrim().GetParent())
        body.AddTransformOp().Set(pose * above.GetInverse())
        UsdPhysics.RigidBodyAPI.Apply(body.GetPrim())
    for joint in robot.joints:
        write_joint(stage, robot, joint)
    UsdPhysics.ArticulationRootAPI.Apply(stage.GetPrimAtPath(robot.bodies[0] if rng.random() < 0.5 else top))


def write_joint(stage: Usd.Stage, robot: Robot, joint: Joint) -> None:
    revolute = joint.kind == "revolute"
    schema = (
        UsdPhysics.FixedJoint
        if joint.kind == "fixed"
        else UsdPhysics.RevoluteJoint
        if revolute
        else UsdPhysics.PrismaticJoint
    )
    prim = (UsdPhysics.Joint if joint.generic else schema).Define(stage, joint.path).GetPrim()
    typed = UsdPhysics.Joint(prim)
    sides = [(joint.parent, joint.A), (joint.child, joint.C)]
    sides = sides[::-1] if joint.reverse else sides
    for index, (body, matrix) in enumerate(sides):
        if body >= 0:
            (typed.CreateBody0Rel(), typed.CreateBody1Rel())[index].SetTargets([Sdf.Path(robot.bodies[body])])
        (typed.CreateLocalPos0Attr(), typed.CreateLocalPos1Attr())[index].Set(Gf.Vec3f(matrix.ExtractTranslation()))
        (typed.CreateLocalRot0Attr(), typed.CreateLocalRot1Attr())[index].Set(Gf.Quatf(matrix.ExtractRotationQuat()))
    if joint.kind == "fixed":
        return
    instance = ("rot" if revolute else "trans") + joint.axis if joint.generic else "angular" if revolute else "linear"
    if joint.generic:
        for axis in ("transX", "transY", "transZ", "rotX", "rotY", "rotZ"):
            limit = UsdPhysics.LimitAPI.Apply(prim, axis)
            free = axis == instance
            limit.CreateLowAttr(-90.0 if free else 1.0)
            limit.CreateHighAttr(90.0 if free else -1.0)
    else:
        schema(prim).CreateAxisAttr(joint.axis)
    prim.CreateAttribute(f"state:{instance}:physics:position", Sdf.ValueTypeNames.Float).Set(joint.q)


def stage_in(metres: float, up: str) -> Usd.Stage:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, metres)
    UsdGeom.SetStageUpAxis(stage, up)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    UsdPhysics.Scene.Define(stage, "/World/Physics")
    return stage


def metric(stage: Usd.Stage, matrices: list[Gf.Matrix4d]) -> np.ndarray:
    """Gf matrices as column-vector poses in metres, Z up, through Gf alone."""
    turn = Gf.Matrix4d(1)
    if UsdGeom.GetStageUpAxis(stage) == "Y":
        turn.SetRotate(Gf.Rotation(Gf.Vec3d(1, 0, 0), 90))
    out = []
    for matrix in matrices:
        T = np.array(matrix * turn).T
        T[:3, 3] *= UsdGeom.GetStageMetersPerUnit(stage)
        out.append(T)
    return np.stack(out)


def check(stage: Usd.Stage, robot: Robot, read: Articulation, rng: np.random.Generator) -> None:
    spec, poses = read.spec, read.T_world_link
    order = [robot.bodies.index(link.prim_path) for link in spec.links]
    truth = metric(stage, robot.poses({j.path: j.q for j in robot.joints}))[order]
    np.testing.assert_allclose(poses, truth, atol=2e-6)
    metres, joints = UsdGeom.GetStageMetersPerUnit(stage), {j.path: j for j in robot.joints}
    scale = {path: np.pi / 180 if joint.kind == "revolute" else metres for path, joint in joints.items()}
    start = [joints[j.prim_path].q * scale[j.prim_path] for j in spec.dof_joints]
    np.testing.assert_allclose(read.initial_position, start, rtol=1e-5, atol=1e-7)
    held = any(j.parent < 0 for j in robot.joints)
    for _ in range(3):
        q = rng.uniform(-1, 1, len(spec.dof_names))
        authored = {j.prim_path: float(value) / scale[j.prim_path] for j, value in zip(spec.dof_joints, q, strict=True)}
        truth = metric(stage, robot.poses(authored))[order]
        # Which end of a free chain is its base is the reader's choice; where the chain is then follows from the truth.
        ours = spec.forward_kinematics(q) if held else spec.forward_kinematics(q, truth[spec.root])
        np.testing.assert_allclose(ours, truth, atol=5e-6)


@given(seeds, st.integers(1, 9), st.sampled_from([(1.0, "Z"), (0.01, "Y"), (0.1, "Z")]))
def test_kinematics_of_any_tree(seed, size, units):
    rng = np.random.default_rng(seed)
    metres, up = units
    stage = stage_in(metres, up)
    UsdGeom.Xform.Define(stage, "/World/Robot")
    robot = random_robot(rng, size + 1, 0.4 / metres, "/World/Robot")
    author(stage, robot, "/World/Robot", rng)
    found = find_articulations(stage)
    if not any(j.kind != "fixed" for j in robot.joints):
        assert len(found.robots) == 1
    (read,) = found.robots
    assert not found.refused
    assert read.fixed_base == any(j.parent < 0 for j in robot.joints)
    names = [link.name for link in read.spec.links]
    assert len(set(names)) == len(names)
    check(stage, robot, read, rng)
    if metres != 1.0:
        (same,) = read_articulations(si_stage(stage))
        np.testing.assert_allclose(same.T_world_link, read.T_world_link, atol=2e-6)
        for a, b in zip(same.spec.joints, read.spec.joints, strict=True):
            np.testing.assert_allclose([a.lower, a.upper], [b.lower, b.upper], rtol=1e-5)
        assert StageUnits.of(stage).metres_per_unit == metres


@given(seeds, st.integers(1, 5))
def test_instances_of_one_model_are_robots_of_their_own(seed, size):
    """A model referenced as instances reads as often as it is placed, with equal joints and other paths."""
    rng = np.random.default_rng(seed)
    stage = stage_in(1.0, "Z")
    stage.CreateClassPrim("/_model")
    robot = random_robot(rng, size + 1, 0.4, "/_model")
    robot.joints = [j for j in robot.joints if j.parent >= 0]
    author(stage, robot, "/_model", rng)
    places = [random_frame(rng, 2.0) for _ in range(2)]
    for number, place in enumerate(places):
        prim = UsdGeom.Xform.Define(stage, f"/World/Arm{number}")
        prim.AddTransformOp().Set(place)
        prim.GetPrim().GetReferences().AddInternalReference("/_model")
        prim.GetPrim().SetInstanceable(True)
    found = find_articulations(stage)
    assert not found.refused
    assert len(found.robots) == 2
    assert len({r.spec.name for r in found.robots}) == 2
    for number, (read, place) in enumerate(zip(found.robots, places, strict=True)):
        here = f"/World/Arm{number}"
        placed = copy.deepcopy(robot)
        placed.bodies = [path.replace("/_model", here) for path in robot.bodies]
        placed.base = robot.base * place
        for joint in placed.joints:
            joint.path = joint.path.replace("/_model", here)
        check(stage, placed, read, rng)
