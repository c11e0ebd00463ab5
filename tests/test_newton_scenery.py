# SPDX-License-Identifier: Apache-2.0
"""What stands beside a robot, or is wrong with it, neither stops the simulation nor changes the robot in silence."""

from __future__ import annotations

import numpy as np
import pytest
from pxr import Gf, Sdf, UsdGeom, UsdPhysics
from usd_stages import add_body, pendulum

from retake.core.errors import InputError, StageError
from retake.newton.importing import import_stage
from retake.newton.motion import obeyed, replay
from retake.newton.simulator import Simulator
from retake.usd.articulation import find_articulations
from retake.usd.bodies import find_objects

mujoco, newton = pytest.importorskip("mujoco"), pytest.importorskip("newton")
ARM, SIDE = "/World/Arm", "/World/Side"
TARGET = np.array([0.4, 0.1])


def joint(stage, kind, name, first, second, at=(0.0, 0.0, 0.0), axis="Y"):
    made = kind.Define(stage, f"{SIDE}/{name}")
    for relation, path in ((made.CreateBody0Rel(), first), (made.CreateBody1Rel(), second)):
        if path:
            relation.SetTargets([Sdf.Path(path)])
    made.CreateLocalPos0Attr(Gf.Vec3f(*at))
    if kind in (UsdPhysics.RevoluteJoint, UsdPhysics.PrismaticJoint):
        made.CreateAxisAttr(axis)
    return made


def side(stage, *names):
    """Bodies beside the robot, one above the other."""
    for number, name in enumerate(names):
        add_body(stage, f"{SIDE}/{name}", (1.0, 0.0, 0.2 + 0.2 * number), 0.05, 0.5)
    return [f"{SIDE}/{name}" for name in names]


def drawer(stage):
    cabinet, inside = side(stage, "cabinet", "inside")
    joint(stage, UsdPhysics.FixedJoint, "bolt", "", cabinet, (1, 0, 0.2))
    joint(stage, UsdPhysics.PrismaticJoint, "slide", cabinet, inside, (0, 0, 0.2), "X")


def lid(stage):
    box, top = side(stage, "box", "top")
    joint(stage, UsdPhysics.RevoluteJoint, "hinge", box, top, (0, 0, 0.2))


def door(stage):
    frame, leaf = side(stage, "frame", "leaf")
    joint(stage, UsdPhysics.FixedJoint, "bolt", "", frame, (1, 0, 0.2))
    for number, height in enumerate((0.1, 0.3)):
        hinge = joint(stage, UsdPhysics.RevoluteJoint, f"hinge{number}", frame, leaf, (0, 0, height), "Z")
        hinge.CreateLocalPos1Attr(Gf.Vec3f(0, 0, height - 0.2))


def ball_lamp(stage):
    foot, head = side(stage, "foot", "head")
    joint(stage, UsdPhysics.FixedJoint, "bolt", "", foot, (1, 0, 0.2))
    joint(stage, UsdPhysics.SphericalJoint, "ball", foot, head, (0, 0, 0.2))


def loop(stage):
    a, b, c, d = side(stage, "a", "b", "c", "d")
    for name, first, second, at in (("ab", a, b, 0.2), ("bc", b, c, 0.2), ("cd", c, d, 0.2), ("da", d, a, -0.6)):
        joint(stage, UsdPhysics.RevoluteJoint, name, first, second, (0, 0, at))


def loop_with_a_root(stage):
    loop(stage)
    UsdPhysics.ArticulationRootAPI.Apply(stage.GetPrimAtPath(SIDE))


def rope(stage):
    hook, weight = side(stage, "hook", "weight")
    joint(stage, UsdPhysics.DistanceJoint, "rope", hook, weight)


def written_from_the_child(stage):
    foot, head = side(stage, "foot", "head")
    joint(stage, UsdPhysics.FixedJoint, "bolt", "", foot, (1, 0, 0.2))
    joint(stage, UsdPhysics.RevoluteJoint, "hinge", head, foot, (0, 0, -0.2))


def scaled_to_nothing(stage):
    (flat,) = side(stage, "flat")
    UsdGeom.Xformable(stage.GetPrimAtPath(flat)).AddScaleOp().Set(Gf.Vec3f(1, 0, 1))


def second_roots(stage):
    for path in (f"{ARM}/base", f"{ARM}/joints/fix"):
        UsdPhysics.ArticulationRootAPI.Apply(stage.GetPrimAtPath(path))


def joint_to_nowhere(stage):
    joint(stage, UsdPhysics.RevoluteJoint, "mount", f"{ARM}/tip", f"{ARM}/camera")


def joint_to_a_body_taken_off(stage):
    (tool,) = side(stage, "tool")
    joint(stage, UsdPhysics.RevoluteJoint, "mount", f"{ARM}/tip", tool)
    stage.GetPrimAtPath(tool).SetActive(False)


def joint_to_itself(stage):
    joint(stage, UsdPhysics.RevoluteJoint, "self", f"{ARM}/tip", f"{ARM}/tip")


def robot_without_travel(stage):
    """A robot that cannot be read beside the one that can."""
    UsdPhysics.ArticulationRootAPI.Apply(UsdGeom.Xform.Define(stage, SIDE).GetPrim())
    foot, head = side(stage, "foot", "head")
    joint(stage, UsdPhysics.FixedJoint, "bolt", "", foot, (1, 0, 0.2))
    hinge = joint(stage, UsdPhysics.RevoluteJoint, "hinge", foot, head, (0, 0, 0.2))
    hinge.CreateLowerLimitAttr(10.0)
    hinge.CreateUpperLimitAttr(-10.0)


def mesh(points, counts, indices):
    def change(stage):
        for path in (f"{ARM}/swing/mesh", "/World/mesh"):
            made = UsdGeom.Mesh.Define(stage, path)
            if points is not None:
                made.CreatePointsAttr(points)
                made.CreateFaceVertexCountsAttr(counts)
                made.CreateFaceVertexIndicesAttr(indices)
            if path.startswith(ARM):
                UsdPhysics.CollisionAPI.Apply(made.GetPrim())

    return change


CORNERS, FACES = [(0, 0, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1)], [0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3]
SCENERY = {
    f.__name__: (f, said)
    for f, said in (
        (drawer, "counts as scenery"),
        (lid, ""),
        (door, "counts as scenery"),
        (ball_lamp, "counts as scenery"),
        (loop, "closes a loop and holds"),
        (loop_with_a_root, "closes a loop and holds"),
        (rope, "is a distance joint"),
        (written_from_the_child, "counts as scenery"),
        (scaled_to_nothing, "scaled to nothing"),
        (second_roots, "the two are one robot"),
        (joint_to_nowhere, "not on the stage"),
        (joint_to_a_body_taken_off, "not on the stage"),
        (joint_to_itself, "to itself"),
        (robot_without_travel, "limits without travel"),
    )
} | {
    "mesh without points": (mesh(None, [], []), "has no points"),
    "mesh without faces": (mesh(CORNERS, [], []), "has no faces"),
    "mesh in one place": (mesh([(0, 0, 0)] * 3, [3], [0, 1, 2]), "all its points in one place"),
    "mesh not finite": (mesh([*CORNERS[:3], (0, 0, float("nan"))], [3] * 4, FACES), "not finite"),
    "mesh beyond its points": (mesh(CORNERS, [3] * 4, [*FACES[:-1], 9]), "a face names point 9"),
    "mesh of other faces": (mesh(CORNERS, [3] * 3, FACES), "for faces of 9 corners"),
}


@pytest.mark.parametrize("name", SCENERY)
def test_a_robot_moves_the_same_whatever_stands_beside_it(name, tmp_path, monkeypatch):
    """Nothing refuses, every body is there once, the robot does what it does alone, and what was changed is said."""
    monkeypatch.chdir(tmp_path)
    change, said = SCENERY[name]
    stage, alone = pendulum(), pendulum()
    change(stage)
    ends, notes = [], []
    for one in (stage, alone):
        found = find_articulations(one)
        objects = find_objects(one)
        notes += [*found.notes, *objects.notes]
        (robot,) = found.robots
        simulator = Simulator(one, (robot,), 1 / 500)
        notes += simulator.notes
        assert len(set(simulator.body_paths)) == len(simulator.body_paths)
        for _ in range(150):
            simulator.command(0, TARGET)
            simulator.step()
        state = simulator.measure()
        (q,) = state.joint_position
        links = [simulator.body_index(link.prim_path) for link in robot.spec.links]
        np.testing.assert_allclose(
            robot.spec.forward_kinematics(q, robot.T_world_link[0]), state.T_world_body[links], atol=1e-6
        )
        for item in objects.objects:
            assert np.isfinite(simulator.pose(simulator.body_index(item.spec.prim_path))).all()
        ends.append(q)
    np.testing.assert_allclose(ends[0], ends[1], atol=5e-3)
    assert not said or any(said in note for note in notes)
    assert not list(tmp_path.iterdir()), "the engine writes a log of its own"


def test_a_thing_glued_to_the_robot_outside_its_articulation_moves_with_it():
    """The simulator alone glues the robot to the world instead, and the thing is nowhere."""
    stage = pendulum()
    add_body(stage, f"{SIDE}/cup", (0, 0, 0.9), 0.03, 0.05)
    joint(
        stage, UsdPhysics.FixedJoint, "glue", f"{ARM}/tip", f"{SIDE}/cup", (0, 0, 0.2)
    ).CreateExcludeFromArticulationAttr(True)
    (robot,) = find_articulations(stage).robots
    assert [link.name for link in robot.spec.links] == ["base", "swing", "tip"]
    (cup,) = find_objects(stage).objects
    simulator = Simulator(stage, (robot,), 1 / 500)
    for _ in range(250):
        simulator.command(0, TARGET)
        simulator.step()
    state = simulator.measure()
    assert abs(state.joint_position[0][0] - TARGET[0]) < 0.1
    T = np.linalg.inv(state.T_world_body[simulator.body_index(f"{ARM}/tip")]) @ simulator.pose(
        simulator.body_index(cup.spec.prim_path)
    )
    np.testing.assert_allclose(T[:3, 3], (0, 0, 0.2), atol=1e-5)


@pytest.mark.parametrize("kind", ["hinge", "slide", "fix"])
def test_a_joint_written_from_child_to_parent_counts_the_same_way(kind):
    """Limits, targets and positions mean what they mean to the stage's reader."""
    stage = pendulum()
    made = UsdPhysics.Joint(stage.GetPrimAtPath(f"{ARM}/joints/{kind}"))
    bodies = made.GetBody0Rel().GetTargets(), made.GetBody1Rel().GetTargets()
    places = made.GetLocalPos0Attr().Get(), made.GetLocalPos1Attr().Get()
    made.GetBody0Rel().SetTargets(bodies[1])
    made.GetBody1Rel().SetTargets(bodies[0])
    made.GetLocalPos0Attr().Set(places[1] or Gf.Vec3f(0))
    made.GetLocalPos1Attr().Set(places[0] or Gf.Vec3f(0))
    (robot,) = find_articulations(stage).robots
    simulator = Simulator(stage, (robot,), 1 / 500)
    for _ in range(400):
        simulator.command(0, TARGET)
        simulator.step()
    state = simulator.measure()
    (q,) = state.joint_position
    np.testing.assert_allclose(q, TARGET, atol=0.05)
    links = [simulator.body_index(link.prim_path) for link in robot.spec.links]
    np.testing.assert_allclose(
        robot.spec.forward_kinematics(q, robot.T_world_link[0]), state.T_world_body[links], atol=1e-6
    )


@pytest.mark.parametrize("factor", [1.0, -0.5])
def test_a_follower_follows_a_leader_whose_drive_damps_more_than_a_step_resolves(factor):
    """Without that the constraint sees a far lighter leader than the one that moves, and the follower swings by radians."""
    stage = pendulum()
    add_body(stage, f"{ARM}/spin", (0, 0, 0.8), 0.02, 0.05)
    follower = joint(
        stage, UsdPhysics.RevoluteJoint, "follower", f"{ARM}/tip", f"{ARM}/spin", (0, 0, 0.1), "X"
    ).GetPrim()
    follower.AddAppliedSchema("NewtonMimicAPI")
    follower.CreateRelationship("newton:mimicJoint").SetTargets([f"{ARM}/joints/hinge"])
    follower.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(factor)
    drive = UsdPhysics.DriveAPI(stage.GetPrimAtPath(f"{ARM}/joints/hinge"), "angular")
    drive.GetDampingAttr().Set(np.radians(400.0))
    drive.GetStiffnessAttr().Set(np.radians(4000.0))
    drive.GetMaxForceAttr().Set(1e6)
    (robot,) = find_articulations(stage).robots
    simulator = Simulator(stage, (robot,), 1 / 500)
    worst = 0.0
    for step in range(400):
        simulator.command(0, np.array([0.5 * min(1.0, step / 300), 0.05, 0.0]))
        simulator.step()
        q = simulator.measure().joint_position[0]
        worst = max(worst, abs(q[2] - factor * q[0]))
    assert q[0] > 0.4
    assert worst < 0.1 * abs(factor), worst
    assert any("rotor inertia" in note for note in simulator.notes)


def test_followers_of_followers_inside_instances_are_mended(tmp_path):
    inside = pendulum()
    for name, leader in (("slide", "hinge"),):
        prim = inside.GetPrimAtPath(f"{ARM}/joints/{name}")
        prim.AddAppliedSchema("NewtonMimicAPI")
        prim.CreateRelationship("newton:mimicJoint").SetTargets([f"{ARM}/joints/{leader}"])
        prim.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(0.2)
    add_body(inside, f"{ARM}/spin", (0, 0, 0.8), 0.02, 0.05)
    last = UsdPhysics.RevoluteJoint.Define(inside, f"{ARM}/joints/last")
    last.CreateBody0Rel().SetTargets([f"{ARM}/tip"])
    last.CreateBody1Rel().SetTargets([f"{ARM}/spin"])
    last.CreateLocalPos0Attr(Gf.Vec3f(0, 0, 0.1))
    last.GetPrim().AddAppliedSchema("NewtonMimicAPI")
    last.GetPrim().CreateRelationship("newton:mimicJoint").SetTargets([f"{ARM}/joints/slide"])
    inside.SetDefaultPrim(inside.GetPrimAtPath(ARM))
    inside.Export(str(tmp_path / "arm.usda"))
    stage = pendulum()
    copy = UsdGeom.Xform.Define(stage, "/World/Copy")
    copy.AddTranslateOp().Set(Gf.Vec3d(0, 1, 0))
    copy.GetPrim().GetReferences().AddReference(str(tmp_path / "arm.usda"))
    copy.GetPrim().SetInstanceable(True)
    robots = find_articulations(stage).robots
    simulator = Simulator(stage, robots, 1 / 500)
    assert any("/World/Copy/joints/last follows a follower" in note for note in simulator.notes)
    assert [r.spec.name for r in robots] == ["Arm", "Copy"]


@pytest.mark.parametrize("scale", [(-1, 1, 1), (1, -1, 1), (-1, -1, 1), (-0.5, 2, -3)])
def test_a_mirrored_mesh_is_where_the_stage_puts_it(scale):
    """With its faces outwards; the importer's negative sizes are none that the engine takes."""
    stage = pendulum()
    made = UsdGeom.Mesh.Define(stage, f"{ARM}/swing/mesh")
    made.CreatePointsAttr(CORNERS)
    made.CreateFaceVertexCountsAttr([3] * 4)
    made.CreateFaceVertexIndicesAttr(FACES)
    made.AddScaleOp().Set(Gf.Vec3f(*map(float, scale)))
    UsdPhysics.CollisionAPI.Apply(made.GetPrim())
    builder, notes = import_stage(stage)
    shape = builder.shape_label.index(f"{ARM}/swing/mesh")
    size = np.array(builder.shape_scale[shape])
    assert (size > 0).all()
    points = np.array(builder.shape_source[shape].vertices) * size
    x, y, z, *q = builder.shape_transform[shape]
    turn = np.array(Gf.Matrix3d(Gf.Quatd(float(q[3]), *map(float, q[:3])))).T
    placed = points @ turn.T + [x, y, z]
    expected = np.array(CORNERS) * scale
    assert {tuple(np.round(p, 5) + 0.0) for p in placed} == {tuple(np.round(p, 5) + 0.0) for p in expected}
    a, b, c = placed[np.array(builder.shape_source[shape].indices).reshape(-1, 3)].transpose(1, 0, 2)
    assert ((np.cross(b - a, c - a) * (a - placed.mean(0))).sum(1) > 0).all()
    assert not any("mesh" in note for note in notes)


@pytest.mark.parametrize(
    ("column", "value", "wrong"),
    [("hinge", 3.0, True), ("hinge", 2.12, False), ("slide", 0.4, True), ("slide", -0.103, False)],
)
def test_a_motion_beyond_the_limits_is_refused_by_name(tmp_path, column, value, wrong):
    """A joint that leans on its stop is not."""
    stage = pendulum()
    (robot,) = find_articulations(stage).robots
    named = (frozenset([column]),)
    simulator = Simulator(stage, (robot,), 1 / 500, named=named)
    file = tmp_path / "motion.csv"
    file.write_text(f"time_s,{column}\n0,0\n1,{value}\n")
    motion = replay((robot,), file)
    if wrong:
        with pytest.raises(
            InputError, match=rf"asks joint '{column}' of 'Arm' to be at {value:g} (rad|m); its limits are"
        ):
            obeyed(motion, simulator.drives)
    else:
        obeyed(motion, simulator.drives)


def links_are_where_kinematics_says(simulator, robot, q):
    """Raises AssertionError where a link is elsewhere than our forward kinematics of positions q puts it."""
    simulator.set_joint_position(0, q)
    links = [simulator.body_index(link.prim_path) for link in robot.spec.links]
    expected = robot.spec.forward_kinematics(q, robot.T_world_link[0])
    np.testing.assert_allclose(simulator.measure().T_world_body[links], expected, atol=1e-6)


def second_joint(stage, kind, name):
    """Another joint from the arm's base to its swing."""
    joint = kind.Define(stage, f"{ARM}/joints/{name}")
    joint.CreateBody0Rel().SetTargets([f"{ARM}/base"])
    joint.CreateBody1Rel().SetTargets([f"{ARM}/swing"])
    return joint


@pytest.mark.parametrize("skew", [0.0, 25.0])
def test_several_joints_of_one_body_turn_about_places_of_their_own(skew):
    """The importer alone lets all of them turn about the first one's place, and links are metres from where they belong."""
    stage = pendulum()
    second = second_joint(stage, UsdPhysics.RevoluteJoint, "second")
    second.CreateAxisAttr("Y")
    turn = Gf.Quatf(Gf.Rotation(Gf.Vec3d(0, 0, 1), skew).GetQuat())
    second.CreateLocalPos0Attr(Gf.Vec3f(0.1, 0.05, 0.55))
    second.CreateLocalPos1Attr(Gf.Vec3f(0.1, 0.05, 0.15))
    second.CreateLocalRot0Attr(turn)
    second.CreateLocalRot1Attr(turn)
    (robot,) = find_articulations(stage).robots
    simulator = Simulator(stage, (robot,), 1 / 500)
    for seed in range(5):
        q = np.random.default_rng(seed).uniform([-1, -1, -0.1], [1, 1, 0.1])
        q = q[[["hinge", "second", "slide"].index(name) for name in robot.spec.dof_names]]
        links_are_where_kinematics_says(simulator, robot, q)


@pytest.mark.parametrize("first", [True, False])
def test_a_slide_along_a_hinges_own_axis_is_not_taken_for_it(first):
    """Where the simulator would move the body in another order than the stage, it says so."""
    stage = pendulum()
    second = second_joint(stage, UsdPhysics.PrismaticJoint, "along")
    second.CreateAxisAttr("X")
    second.CreateLocalPos0Attr(Gf.Vec3f(0, 0, 0.4))
    if not first:
        (robot,) = find_articulations(stage).robots
        with pytest.raises(StageError, match="in another order than the stage's"):
            Simulator(stage, (robot,), 1 / 500)
        return
    stage.GetPrimAtPath(f"{ARM}/joints").SetChildrenReorder(["along", "fix", "hinge", "slide"])
    (robot,) = find_articulations(stage).robots
    simulator = Simulator(stage, (robot,), 1 / 500)
    q = np.array([{"hinge": 0.5, "along": 0.1, "slide": 0.05}[name] for name in robot.spec.dof_names])
    links_are_where_kinematics_says(simulator, robot, q)


def test_what_has_values_at_times_only_is_where_the_stage_starts():
    """A prop, a link and a mesh; the importer alone puts the prop at the origin and refuses the mesh."""
    stage = pendulum()
    stage.SetStartTimeCode(5)
    (prop,) = side(stage, "prop")
    mesh(CORNERS, [3] * 4, FACES)(stage)
    for path, name in (
        (prop, "xformOp:translate"),
        (f"{ARM}/swing", "xformOp:translate"),
        (f"{ARM}/swing/mesh", "points"),
    ):
        attribute = stage.GetPrimAtPath(path).GetAttribute(name)
        value = attribute.Get()
        attribute.Clear()
        attribute.Set(value, 5)
        attribute.Set(type(value)([x * 2 for x in value]), 9)
    (robot,) = find_articulations(stage).robots
    (item,) = find_objects(stage).objects
    simulator = Simulator(stage, (robot,), 1 / 500)
    np.testing.assert_allclose(simulator.pose(simulator.body_index(prop)), item.T_world_object, atol=1e-6)
    builder = simulator.builder
    shape = builder.shape_label.index(f"{ARM}/swing/mesh")
    np.testing.assert_allclose(np.ptp(builder.shape_source[shape].vertices, axis=0), [0.1] * 3, atol=1e-6)
    simulator.set_joint_position(0, np.zeros(2))
    at = simulator.measure().T_world_body[simulator.body_index(f"{ARM}/swing")]
    np.testing.assert_allclose(at[:3, 3], [0, 0, 0.4], atol=1e-6)


def test_a_drive_without_force_drives_nothing_and_a_joint_without_travel_stays():
    stage = pendulum()
    UsdPhysics.DriveAPI(stage.GetPrimAtPath(f"{ARM}/joints/slide"), "linear").GetMaxForceAttr().Set(0.0)
    hinge = UsdPhysics.RevoluteJoint(stage.GetPrimAtPath(f"{ARM}/joints/hinge"))
    hinge.GetLowerLimitAttr().Set(20.0)
    hinge.GetUpperLimitAttr().Set(20.0)
    (robot,) = find_articulations(stage).robots
    simulator = Simulator(stage, (robot,), 1 / 500)
    assert simulator.drives.driven == ((True, False),)
    assert sum("without force" in n or "without travel" in n for n in simulator.notes) == 2
