# SPDX-License-Identifier: Apache-2.0
"""Commands reach their joints or are refused by name; what no simulator can integrate is mended by a stated default."""

from __future__ import annotations

import csv
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.core.errors import InputError
from retake.core.export.records import ACTION, STATE
from retake.core.export.vectors import build_schema
from retake.core.geometry import axis_angle
from retake.core.joint_motion import read_motion
from retake.newton.actuators import read_actuators, stated_gains
from retake.newton.importing import _possible, flat_slab
from retake.newton.planner import JointPath
from retake.newton.run import capture

mujoco = pytest.importorskip("mujoco")
STAGES = Path(__file__).parent / "stages"
FEW = settings(max_examples=25, deadline=None)
GOAL = {"joint1": 0.4, "joint2": -0.3}


def stage_of(name: str, tmp_path: Path, change=None) -> Path:
    """A copy of a stage of tests/stages, changed."""
    (source,) = STAGES.glob(f"{name}*.usda")
    stage = Usd.Stage.Open(str(source))
    if change is not None:
        change(stage)
    stage.Export(str(tmp_path / "stage.usda"))
    return tmp_path / "stage.usda"


def motion_of(tmp_path: Path, **joints: float) -> str:
    """A motion that takes joints from 0 to a position in half a second and stays."""
    file = tmp_path / "motion.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["time_s", *joints])
        rows.writerow([0.0, *(0.0 for _ in joints)])
        rows.writerows([t, *joints.values()] for t in (0.5, 1.0))
    return str(file)


def play(tmp_path: Path, stage: Path, joints: dict[str, float] | None = None, **overrides):
    """Simulate a second without pictures."""
    more = {"motion_file": motion_of(tmp_path, **joints)} if joints else {"frames": 4}
    return capture(tmp_path / "episode", stage=stage, overrides={"fps": 10, **more, **overrides}, render=False)


def end(episode, joint: str, robot: int = 0) -> float:
    """Position of a joint in the last frame."""
    spec = episode.header.robots[robot]
    return float(episode.joint(spec.name, "position")[-1, spec.dof_index(joint)])


def turned(rng: np.random.Generator) -> np.ndarray:
    """A random rotation."""
    axis = rng.normal(size=3)
    return axis_angle(axis / np.linalg.norm(axis), np.float64(rng.uniform(-3, 3)))


def notes(episode) -> str:
    """All notes of an episode."""
    return " | ".join(episode.header.settings.get("notes", ()))


def test_a_stage_without_a_physics_scene_has_gravity_and_a_note(tmp_path):
    episode = play(tmp_path, stage_of("r18", tmp_path), GOAL)
    assert "has no PhysicsScene" in notes(episode)
    assert end(episode, "joint1") == pytest.approx(0.4, abs=0.02)
    # A second motion of one's own is as long as the motion.
    assert len(episode) == 11


@pytest.mark.parametrize("schema", ["r23_mimic_newton", "r23_mimic_physx"])
def test_a_follower_follows_and_is_no_action(schema, tmp_path):
    episode = play(tmp_path, stage_of(schema, tmp_path), {"left_joint": 0.02})
    left, right = end(episode, "left_joint"), end(episode, "right_joint")
    assert left == pytest.approx(0.02, abs=2e-3)
    assert right == pytest.approx(-left, abs=1e-3)
    (spec,) = episode.header.robots
    assert dict(zip(spec.dof_names, spec.driven, strict=True))["right_joint"] is False
    schema = build_schema(episode.header, {})
    assert "right_joint.pos" in schema.vectors[STATE].names
    assert "right_joint.pos" not in schema.vectors[ACTION].names
    target = episode.joint(spec.name, "target")
    np.testing.assert_allclose(
        target[:, spec.dof_index("right_joint")], -target[:, spec.dof_index("left_joint")], atol=1e-9
    )


def test_a_follower_moves_its_leader_and_may_not_contradict_it(tmp_path):
    stage = stage_of("r23_mimic_newton", tmp_path)
    episode = play(tmp_path, stage, {"right_joint": -0.02})
    assert end(episode, "left_joint") == pytest.approx(0.02, abs=2e-3)
    with pytest.raises(InputError, match=r"'right_joint' of .* follows 'left_joint' and cannot be commanded by itself"):
        capture(
            tmp_path / "b",
            stage=stage,
            overrides={"motion_file": motion_of(tmp_path, left_joint=0.02, right_joint=0.02)},
            render=False,
        )
    assert not (tmp_path / "b").exists()


def test_a_motion_addresses_one_robot(tmp_path):
    stage = stage_of("r26", tmp_path)
    with pytest.raises(InputError, match=r"2 robots have a joint 'joint1'; write \S+/joint1, \S+/joint1"):
        play(tmp_path, stage, {"joint1": 0.4})
    held = capture(tmp_path / "held", stage=stage, overrides={"frames": 1}, render=False)
    first, second = (robot.name for robot in held.header.robots)
    episode = play(tmp_path, stage, {f"{second}/joint1": 0.4})
    assert end(episode, "joint1", 1) == pytest.approx(0.4, abs=0.02)
    assert end(episode, "joint1", 0) == pytest.approx(0.0, abs=0.02)
    other = capture(
        tmp_path / "by_setting",
        stage=stage,
        overrides={"fps": 10, "robot": first, "motion_file": motion_of(tmp_path, joint1=0.4)},
        render=False,
    )
    assert end(other, "joint1", 0) == pytest.approx(0.4, abs=0.02)


def test_a_moving_link_without_mass_gets_a_small_one_and_a_note(tmp_path):
    episode = play(tmp_path, stage_of("r27", tmp_path), {"joint1": 0.4})
    assert "/World/Robot/virtual moves and has no mass: 0.01 kg are taken" in notes(episode)
    assert end(episode, "joint1") == pytest.approx(0.4, abs=0.02)


def test_a_tendon_actuator_does_not_take_the_place_of_a_joints(tmp_path):
    episode = play(tmp_path, stage_of("r30", tmp_path), {**GOAL, "left_joint": 0.02, "right_joint": -0.02})
    for joint, goal in {**GOAL, "left_joint": 0.02, "right_joint": -0.02}.items():
        assert end(episode, joint) == pytest.approx(goal, abs=0.02 if "joint" in joint[:5] else 3e-3), joint


def test_joints_on_one_tendon_move_together(tmp_path):
    def undriven_fingers(stage: Usd.Stage) -> None:
        for side in ("left", "right"):
            stage.GetPrimAtPath(f"/World/Robot/hand/{side}_joint").RemoveAPI(UsdPhysics.DriveAPI, "linear")

    stage = stage_of("r30", tmp_path, undriven_fingers)
    episode = play(tmp_path, stage, {"left_joint": 0.02})
    # The tendon holds their distance; nothing but their limits holds their middle.
    assert end(episode, "left_joint") - end(episode, "right_joint") == pytest.approx(0.04, abs=4e-3)
    with pytest.raises(InputError, match=r"left_joint, right_joint of .* are pulled by one tendon"):
        capture(
            tmp_path / "b",
            stage=stage,
            overrides={"motion_file": motion_of(tmp_path, left_joint=0.02, right_joint=0.02)},
            render=False,
        )


def test_undriven_joints_are_driven_with_stated_gains_or_refused_by_name(tmp_path):
    stage = stage_of("r32", tmp_path)
    episode = play(tmp_path, stage, GOAL)
    for joint, goal in GOAL.items():
        assert end(episode, joint) == pytest.approx(goal, abs=0.02)
    (spec,) = episode.header.robots
    stated = episode.header.settings["stated_drives"][spec.name]
    assert set(stated) == set(spec.dof_names)
    assert all(gains["stiffness"] > 0 and gains["damping"] > 0 for gains in stated.values())
    assert "drives with stated gains move them" in notes(episode)
    given = capture(
        tmp_path / "given", stage=stage, overrides={"frames": 1, "stiffness": 500, "damping": 50}, render=False
    )
    assert given.header.settings["stated_drives"][spec.name]["joint1"] == {"stiffness": 500.0, "damping": 50.0}
    with pytest.raises(InputError, match=r"joint 'joint1' of .* has no drive; joint 'joint2' of .* has no drive"):
        capture(
            tmp_path / "b",
            stage=stage,
            overrides={"drives": "authored", "motion_file": motion_of(tmp_path, **GOAL)},
            render=False,
        )
    assert not (tmp_path / "b").exists()


def test_a_robot_with_drives_of_its_own_keeps_them(tmp_path):
    def only_joint1(stage: Usd.Stage) -> None:
        UsdPhysics.DriveAPI.Apply(stage.GetPrimAtPath("/World/Robot/base_link/joint1"), "angular")

    stage = stage_of("r32", tmp_path, only_joint1)
    with pytest.raises(InputError, match=r"joint 'joint2' of .* has no drive.*drives=fill"):
        play(tmp_path, stage, GOAL)
    filled = play(tmp_path, stage, GOAL, drives="fill")
    assert end(filled, "joint2") == pytest.approx(-0.3, abs=0.02)
    assert "joint1" not in filled.header.settings["stated_drives"][filled.header.robots[0].name]


def test_a_torque_motor_is_no_position_drive(tmp_path):
    def motors(stage: Usd.Stage) -> None:
        for joint, link in (("joint1", "base_link"), ("joint2", "link1")):
            prim = stage.DefinePrim(f"/World/Robot/motor_{joint}", "MjcActuator")
            prim.CreateRelationship("mjc:target").SetTargets([Sdf.Path(f"/World/Robot/{link}/{joint}")])

    stage = stage_of("r32", tmp_path, motors)
    episode = play(tmp_path, stage, GOAL)
    assert end(episode, "joint1") == pytest.approx(0.4, abs=0.02)
    with pytest.raises(InputError, match=r"joint 'joint1' of .* has a torque motor, and a motion gives positions"):
        capture(
            tmp_path / "b",
            stage=stage,
            overrides={"drives": "authored", "motion_file": motion_of(tmp_path, joint1=0.4)},
            render=False,
        )


def test_passive_joints_are_state_and_no_action(tmp_path):
    def one_passive(stage: Usd.Stage) -> None:
        for path in ("base_link/joint1", "link1/joint2"):
            UsdPhysics.DriveAPI.Apply(stage.GetPrimAtPath(f"/World/Robot/{path}"), "angular")

    episode = play(tmp_path, stage_of("r32", tmp_path, one_passive))
    (spec,) = episode.header.robots
    assert dict(zip(spec.dof_names, spec.driven, strict=True)) == {
        "joint1": True, "joint2": True, "left_joint": False, "right_joint": False,
    }  # fmt: skip
    finger = spec.dof_index("left_joint")
    target, position = episode.joint(spec.name, "target"), episode.joint(spec.name, "position")
    assert np.array_equal(target[:, finger], position[:, finger])
    assert "nothing commands left_joint, right_joint" in notes(episode)


def test_chains_of_followers_and_followers_that_cannot_move(tmp_path):
    def chain(stage: Usd.Stage) -> None:
        joint2 = stage.GetPrimAtPath("/World/Robot/link1/joint2")
        joint2.RemoveAPI(UsdPhysics.DriveAPI, "angular")
        third = UsdPhysics.RevoluteJoint.Define(stage, "/World/Robot/extra")
        third.CreateBody0Rel().SetTargets(["/World/Robot/link2"])
        third.CreateBody1Rel().SetTargets(["/World/Robot/tip"])
        third.CreateAxisAttr("Y")
        third.CreateLowerLimitAttr(-90)
        third.CreateUpperLimitAttr(90)
        tip = UsdGeom.Cube.Define(stage, "/World/Robot/tip")
        tip.CreateSizeAttr(0.02)
        tip.AddTranslateOp().Set(Gf.Vec3d(0.0, 0.0, 0.4))
        for api in (UsdPhysics.RigidBodyAPI, UsdPhysics.CollisionAPI):
            api.Apply(tip.GetPrim())
        for prim, leader, slope in (
            (joint2, "base_link/joint1", -0.5),
            (third.GetPrim(), "link1/joint2", -0.5),
            (stage.GetPrimAtPath("/World/Robot/link2/flange"), "base_link/joint1", 1.0),
        ):
            prim.AddAppliedSchema("NewtonMimicAPI")
            prim.CreateRelationship("newton:mimicJoint").SetTargets([Sdf.Path(f"/World/Robot/{leader}")])
            prim.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(slope)

    episode = play(tmp_path, stage_of("r18", tmp_path, chain), {"joint1": 0.4})
    assert "extra follows a follower: it follows /World/Robot/base_link/joint1" in notes(episode)
    assert "flange follows /World/Robot/base_link/joint1, and one of the two cannot move" in notes(episode)
    assert end(episode, "joint2") == pytest.approx(-0.2, abs=0.02)
    assert end(episode, "extra") == pytest.approx(0.1, abs=0.02)


def test_colliders_of_no_size_and_no_thickness_are_mended(tmp_path):
    def odd(stage: Usd.Stage) -> None:
        ball = UsdGeom.Sphere.Define(stage, "/World/Robot/link1/dot")
        ball.CreateRadiusAttr(0.0)
        card = UsdGeom.Mesh.Define(stage, "/World/Robot/link2/card")
        card.CreatePointsAttr([(0, 0, 0), (0.1, 0, 0), (0.1, 0.1, 0), (0, 0.1, 0)])
        card.CreateFaceVertexCountsAttr([4])
        card.CreateFaceVertexIndicesAttr([0, 1, 2, 3])
        for prim in (ball.GetPrim(), card.GetPrim()):
            UsdPhysics.CollisionAPI.Apply(prim)

    episode = play(tmp_path, stage_of("r18", tmp_path, odd), {"joint1": 0.4})
    assert "/World/Robot/link1/dot has no size" in notes(episode)
    assert "/World/Robot/link2/card is a flat collider: it collides as a slab 1 mm thick" in notes(episode)
    assert end(episode, "joint1") == pytest.approx(0.4, abs=0.02)


def test_things_rest_on_a_flat_floor(tmp_path):
    def flat_floor(stage: Usd.Stage) -> None:
        stage.RemovePrim("/World/Ground")
        floor = UsdGeom.Mesh.Define(stage, "/World/Floor")
        floor.CreatePointsAttr([(-3, -3, 0), (3, -3, 0), (3, 3, 0), (-3, 3, 0)])
        floor.CreateFaceVertexCountsAttr([4])
        floor.CreateFaceVertexIndicesAttr([0, 1, 2, 3])
        UsdPhysics.CollisionAPI.Apply(floor.GetPrim())
        box = UsdGeom.Cube.Define(stage, "/World/Box")
        box.CreateSizeAttr(0.1)
        box.AddTranslateOp().Set(Gf.Vec3d(1.0, 1.0, 0.055))
        for api in (UsdPhysics.RigidBodyAPI, UsdPhysics.CollisionAPI):
            api.Apply(box.GetPrim())

    episode = play(tmp_path, stage_of("r18", tmp_path, flat_floor), {"joint1": 0.0})
    assert episode.object_poses[-1, 0, 2, 3] == pytest.approx(0.05, abs=2e-3)


@FEW
@given(
    kp=st.floats(1, 1e4), kb=st.floats(1, 1e4), b0=st.floats(-10, 10), gear=st.floats(0.2, 50), a=st.floats(-2, 2),
    b=st.floats(-2, 2), q=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), tendon=st.booleans(),
)  # fmt: skip
def test_the_control_of_a_position_actuator_asks_no_force_where_it_leads(kp, kb, b0, gear, a, b, q, tendon):
    target = 'tendon="t"' if tendon else 'joint="one"'
    model = mujoco.MjModel.from_xml_string(f"""
        <mujoco><compiler angle="radian"/><worldbody>
          <body><joint name="one" axis="0 0 1"/><geom size="0.1"/>
            <body pos="0 0 1"><joint name="two" type="slide" axis="1 0 0"/><geom size="0.1"/></body></body>
        </worldbody>
        <tendon><fixed name="t"><joint joint="one" coef="{a:.6f}"/><joint joint="two" coef="{b:.6f}"/></fixed></tendon>
        <actuator><general {target} gear="{gear}" gainprm="{kp}" biastype="affine" biasprm="{b0:.6f} {-kb} -1"/>
          <motor joint="one"/><velocity joint="two" kv="3"/></actuator></mujoco>""")
    first, motor, velocity = read_actuators(mujoco, model)
    assert (first.kind, motor.kind, velocity.kind) == ("position", "motor", "velocity")
    assert first.joints == ((0, 1) if tendon else (0,))
    data = mujoco.MjData(model)
    data.qpos[:] = q
    data.ctrl[0] = first.control(sum(lever * q[j] for j, lever in zip(first.joints, first.lever, strict=True)))
    mujoco.mj_forward(model, data)
    assert abs(data.actuator_force[0]) < 1e-9 * (kp * abs(data.ctrl[0]) + kb * gear * 4 + 20)


@FEW
@given(inertia=st.floats(0, 100), gravity=st.floats(0, 1000), kind=st.sampled_from(["revolute", "prismatic"]))
def test_stated_gains_are_critical_and_resolved_by_the_step(inertia, gravity, kind):
    stiffness, damping = stated_gains(inertia, gravity, kind)
    inertia = max(inertia, 1e-9)
    assert 80.0 * 0.999 <= np.sqrt(stiffness / inertia) <= 300.0 * 1.001
    assert damping == pytest.approx(2 * np.sqrt(stiffness * inertia))


@FEW
@given(st.integers(0, 2**32 - 1))
def test_a_flat_mesh_becomes_the_box_behind_it(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.05, 5, 2)
    points = np.array([[0, 0, 0], [x, 0, 0], [x, y, 0], [0, y, 0], [x / 3, y / 3, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    R = turned(rng)
    place = rng.normal(size=3)
    pose, half = flat_slab(points @ R.T + place, faces)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert pose[:3, 2] @ R[:, 2] == pytest.approx(1, abs=1e-6)
    corners = np.array([[sx, sy, 1] for sx in (-1, 1) for sy in (-1, 1)]) * half
    front = (corners @ pose[:3, :3].T + pose[:3, 3] - place) @ R
    assert np.abs(front[:, 2]).max() < 1e-6
    assert (front[:, :2].min(0) <= 1e-6).all()
    assert (front[:, :2].max(0) >= np.array([x, y]) - 1e-6).all()
    assert 0.001 <= 2 * half[2] <= 0.01
    bumped = points + [0, 0, 0] + np.eye(5, 3, -2) * 0.01
    assert flat_slab(bumped @ R.T + place, faces) is None


@FEW
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 50))
def test_a_mended_inertia_is_one_that_a_body_can_have(seed, mass):
    rng = np.random.default_rng(seed)
    R = turned(rng)
    values = rng.choice([0.0, 1e-12, 1e-4, 0.1, 5.0, -1.0], 3)
    given_inertia = (R * values) @ R.T
    mended = _possible(given_inertia, mass)
    result = np.linalg.eigvalsh(given_inertia if mended is None else mended)
    assert result.min() > 0
    assert result[0] + result[1] >= result[2] * (1 - 1e-5)
    squares = rng.uniform(0.1, 1, 3) ** 2
    box = (R * (mass / 12 * (squares.sum() - squares))) @ R.T
    assert _possible(box, mass) is None
    flat = (R * (mass / 12 * np.array([squares[0], squares[1], squares[0] + squares[1]]))) @ R.T
    rounded = _possible(flat.astype(np.float32).astype(np.float64), mass)
    assert rounded is None or np.abs(rounded - flat).max() < 1e-4 * np.abs(flat).max()


@FEW
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_csv_and_npz_say_the_same(tmp_path_factory, joints, times, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("motion")
    names = [f"robot/joint {k}" for k in range(joints)]
    time_s, q = np.cumsum(rng.uniform(0.01, 1, times)), rng.normal(size=(times, joints))
    np.savez(folder / "m.npz", joint_names=names, time_s=time_s, joint_position=q)
    with (folder / "m.csv").open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["time_s", *names])
        rows.writerows([repr(float(t)), *map(repr, map(float, row))] for t, row in zip(time_s, q, strict=True))
    a, b = read_motion(folder / "m.npz"), read_motion(folder / "m.csv")
    assert a.names == b.names == tuple(names)
    assert np.array_equal(a.position, b.position)
    assert np.array_equal(a.time_s, b.time_s)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with time_s"),
        ("joint1\n0\n", "must begin with time_s, found 'joint1'"),
        ("time_s,joint1\n0,1,2\n", "row 2 has 3 values, the header names 2"),
        ("time_s,joint1\n0,x\n", "could not convert"),
        ("time_s,joint1\n0,nan\n", "not a finite number"),
        ("time_s,joint1\n1,0\n0,0\n", "must increase"),
        ("time_s,joint1,joint1\n0,0,0\n", "has two columns"),
        ("time_s\n0\n", "0 joints"),
    ],
)
def test_a_motion_file_that_is_none_is_said(tmp_path, text, reason):
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=reason):
        read_motion(tmp_path / "m.csv")


def test_a_robot_description_becomes_a_stage_to_capture(tmp_path, monkeypatch):
    """The converter is another interpreter; here one that hands over a stage of ours, or refuses."""
    from retake.core.errors import MissingDependencyError, StageError
    from retake.newton import describe

    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path / "cache" / "warp"))
    monkeypatch.setenv("RETAKE_CONVERTERS", sys.executable)
    host = tmp_path / "host.py"
    (source,) = STAGES.glob("r32*")
    host.write_text(
        "import json, pathlib, shutil, sys\n"
        "if 'bad' in sys.argv[2]: sys.exit('Element 3: no such mesh')\n"
        "out = pathlib.Path(sys.argv[3]); (out / 'stage').mkdir()\n"
        f"shutil.copy({str(source)!r}, out / 'stage' / 'arm.usda')\n"
        "(out / 'converted.json').write_text(json.dumps({'stage': 'arm.usda', 'mended': []}))\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(describe, "HOST", host)
    for name in ("arm.urdf", "bad.xml"):
        (tmp_path / "robot" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "robot" / name).write_text("<robot/>", encoding="utf-8")
    before = sorted((tmp_path / "robot").iterdir())
    episode = play(tmp_path, tmp_path / "robot" / "arm.urdf", GOAL)
    assert end(episode, "joint1") == pytest.approx(0.4, abs=0.02)
    assert describe.described(tmp_path / "robot" / "arm.urdf") == describe.described(tmp_path / "robot" / "arm.urdf")
    assert sorted((tmp_path / "robot").iterdir()) == before
    with pytest.raises(StageError, match=r"bad.xml cannot be converted: Element 3: no such mesh"):
        play(tmp_path / "bad", tmp_path / "robot" / "bad.xml")
    assert len(list((tmp_path / "cache" / "robots").iterdir())) == 1
    monkeypatch.delenv("RETAKE_CONVERTERS")
    monkeypatch.setattr(describe.Path, "is_file", lambda self: self.name != "python" and os.path.isfile(self))
    with pytest.raises(MissingDependencyError, match=r"-m pip install urdf-usd-converter==0.3.4"):
        describe.converter_python()


@pytest.mark.parametrize(("up", "metres"), [("Z", 1.0), ("Y", 0.01)])
def test_the_scene_around_a_robot_holds_and_shows_it_whatever_its_units(tmp_path, up, metres):
    from retake.newton.describe import scene_around

    def floating(stage: Usd.Stage) -> None:
        stage.RemovePrim("/World/Robot/base_link/fix_base")
        stage.RemovePrim("/World/Ground")
        UsdGeom.SetStageUpAxis(stage, up)
        UsdGeom.SetStageMetersPerUnit(stage, metres)
        if metres != 1.0:
            UsdGeom.Xformable(stage.GetPrimAtPath("/World/Robot")).AddScaleOp().Set(Gf.Vec3f(1 / metres))

    robot = stage_of("r32", tmp_path, floating)
    scene = scene_around(robot, tmp_path / "scene.usda", model="my robot-1")
    episode = capture(
        tmp_path / "episode", stage=scene, overrides={"frames": 3, "cameras": [{"name": "front", "size": [80, 60]}]}
    )
    ids = {i.id for i in episode.header.instances if i.owner.startswith("robot:")}
    mask = np.isin(episode.image("front", "instances", 2), list(ids))
    assert mask.sum() > 50
    assert not mask[[0, -1]].any()
    assert not mask[:, [0, -1]].any()
    poses = episode.link_poses(episode.header.robots[0].name)
    assert np.abs(poses[-1, 0] - poses[0, 0]).max() < 1e-6


def test_meshes_the_converter_does_not_read_give_way_to_collision_shapes(tmp_path):
    from retake.newton.converter_host import mended, packages_of

    (tmp_path / "pkg" / "urdf").mkdir(parents=True)
    (tmp_path / "pkg" / "arm.obj").write_text("o", encoding="utf-8")
    (tmp_path / "pkg" / "arm.glb").write_text("g", encoding="utf-8")
    file = tmp_path / "pkg" / "urdf" / "arm.urdf"
    file.write_text(
        '<robot name="a"><link name="l"><visual><geometry><mesh filename="package://pkg/arm.glb"/></geometry></visual>'
        '<collision><geometry><mesh filename="../arm.obj"/></geometry></collision></link>'
        '<link name="m"><visual><geometry><box size="1 1 1"/></geometry></visual>'
        '<visual><geometry><mesh filename="package://pkg/gone.stl"/></geometry></visual></link>'
        '<joint name="j" type="fixed"><parent link="l"/><child link="m"/><mimic joint="nobody"/></joint></robot>',
        encoding="utf-8",
    )
    copy, done = mended(file, packages_of(file), tmp_path / "meshes")
    assert done == ["mimic of nobody", "package://pkg/arm.glb", "package://pkg/gone.stl"]
    first, second = ET.parse(copy).getroot().findall("link")
    assert [m.get("filename") for m in first.findall("visual/geometry/mesh")] == ["../arm.obj"]
    assert len(second.findall("visual")) == 1
    file.write_text('<robot name="a"><link name="l"/></robot>', encoding="utf-8")
    assert mended(file, {}, tmp_path / "meshes") == (file, [])


@pytest.mark.parametrize(
    ("masses", "joints", "given"),
    [
        ((), (("palm", "one", "revolute"), ("palm", "two", "revolute")), ["palm"]),  # robotiq_c2_model.urdf
        (("pad",), (("palm", "one", "revolute"), ("palm", "pad", "fixed"), ("pad", "two", "revolute")), ["palm"]),  # 3F
        (("palm",), (("palm", "one", "revolute"), ("palm", "two", "revolute")), []),
        ((), (("palm", "one", "revolute"), ("one", "two", "revolute")), []),  # an arm on a base without mass
    ],
)
def test_a_palm_without_mass_does_not_tear_a_hand_apart(tmp_path, masses, joints, given):
    from retake.newton.converter_host import mended

    heavy = {*masses, "one", "two"}
    names = dict.fromkeys(["palm", *(end for a, b, _ in joints for end in (a, b))])
    mass = {name: '<inertial><mass value="1"/></inertial>' if name in heavy else "" for name in names}
    links = "".join(f'<link name="{name}">{mass[name]}</link>' for name in names)
    text = "".join(
        f'<joint name="j{b}" type="{kind}"><parent link="{a}"/><child link="{b}"/></joint>' for a, b, kind in joints
    )
    file = tmp_path / "hand.urdf"
    file.write_text(f'<robot name="hand">{links}{text}</robot>')
    copy, said = mended(file, {}, tmp_path / "meshes")
    assert [name for name in ("palm", "pad", "one", "two") if any(f" {name}," in word for word in said)] == given
    found = ET.parse(copy).getroot()
    with_mass = {e.get("name") for e in found.iter("link") if e.find("inertial/mass") is not None}
    assert with_mass == {*heavy, *given} & set(names)


@FEW
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_a_replayed_path_stays_between_its_rows(values, seed):
    gaps = np.random.default_rng(seed).uniform(0.05, 2, len(values))
    path = JointPath(np.cumsum(gaps), np.array(values)[:, None], monotone=True)
    for i, (low, high) in enumerate(zip(path.q[:-1, 0], path.q[1:, 0], strict=True)):
        for s in np.linspace(0, 1, 9):
            at = path.at(path.time_s[i] + s * (path.time_s[i + 1] - path.time_s[i]))[0]
            assert min(low, high) - 1e-9 <= at <= max(low, high) + 1e-9
