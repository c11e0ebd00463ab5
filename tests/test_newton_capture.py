# SPDX-License-Identifier: Apache-2.0
"""Embedded simulator, end to end: what an Episode from it holds, that it repeats, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import usd_stages
from newton_support import SMALL, TINY, brief
from pxr import Sdf, Usd, UsdPhysics

from retake.core.episode import open_episode
from retake.core.episode.check import check_episode
from retake.core.episode.events import object_events
from retake.core.errors import EpisodeError, InputError, MissingDependencyError, StageError
from retake.core.geometry import inverse, transform
from retake.newton import engine, run
from retake.newton.preset import fingerprint, load_preset, preset_names
from retake.newton.run import capture
from retake.newton.scenario import _find_target, build
from retake.usd.articulation import read_articulations
from retake.usd.bodies import read_objects
from retake.usd.camera import read_camera
from retake.usd.stage import open_stage, time_at

STAGES = {"Panda": "pick_place/scene.usda", "SixAxis": "sixaxis/scene.usda"}


@pytest.fixture(scope="module", params=list(STAGES))
def episode(request, tmp_path_factory):
    """The short preset with small images, once per robot."""
    seen = []
    folder = tmp_path_factory.mktemp("päth with space") / "episode"
    made = capture(
        folder,
        seed=1,
        overrides={"stage": STAGES[request.param], "cameras": SMALL},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i + 1, 81) for i in range(81)]
    return made


def robot_of(episode):
    return episode.header.robots[0]


def test_story_fits_one_window(episode):
    """81 frames hold grasp, drop and settling, and the episode check passes."""
    assert len(episode) == 81
    result = check_episode(episode)
    assert result.passed, [item for item in result.items if item.status == "fail"]
    (events,) = object_events(episode)
    task = episode.header.settings["task"]
    assert abs(events.grasp / 15 - task["grasp_s"]) < 0.25
    assert abs(events.release / 15 - task["release_s"]) < 0.25
    assert events.settled < 80
    names = [phase["name"] for phase in episode.header.settings["phases"]]
    assert names == ["wait", "approach", "descend", "close", "lift", "carry", "release", "retreat", "settle"]


def test_header_names_everything(episode):
    header = episode.header
    assert header.fps == 15
    # Frames fall on physics steps.
    assert 1 / header.fps / header.physics_dt_s == pytest.approx(34, abs=1e-9)
    assert "newton" in header.simulator_version
    assert "mujoco" in header.simulator_version
    assert len(header.stage_sha256) == 64
    assert header.motion_source == "simulated"
    assert header.settings["licence"] == "Apache-2.0"
    assert [(o.name, o.movable) for o in header.objects] == [("Packet", True), ("Tray", False)]
    variation = header.settings["variation"]
    packet = header.objects[0]
    np.testing.assert_allclose(packet.size_m, np.array(variation["object_scale"]) * [0.12, 0.05, 0.14], atol=1e-6)
    assert packet.mass_kg == pytest.approx(variation["object_mass_kg"])
    front, wrist = header.cameras
    assert (front.static, wrist.static) == (True, False)


def test_state_belongs_together(episode):
    spec = robot_of(episode)
    poses = episode.link_poses(spec.name)
    q = episode.joint(spec.name, "position")
    expected = spec.forward_kinematics(q, poses[:, spec.root])
    assert np.abs(expected - poses).max() < 1e-6
    np.testing.assert_allclose(episode.gripper_openness(spec.name), spec.gripper_openness(q), atol=1e-12)
    openness = episode.gripper_openness(spec.name)[:, 0]
    assert openness[0] > 0.99
    assert openness[40] < 0.8
    assert openness[-1] > 0.99
    # Velocity is the derivative of position (the arm moves smoothly between frames).
    velocity = episode.joint(spec.name, "velocity")
    slope = np.gradient(q, 1 / 15, axis=0)
    assert np.abs(velocity - slope)[:, :6].max() < 0.25


def test_target_is_the_action_after_the_frame(episode):
    """The arm at frame t+1 is where the target of frame t sent it, up to the drives' lag."""
    spec = robot_of(episode)
    q, target = episode.joint(spec.name, "position"), episode.joint(spec.name, "target")
    arm = slice(0, len(spec.dof_names) - 2)
    after = np.abs(q[1:, arm] - target[:-1, arm]).max()
    same = np.abs(q[1:, arm] - target[1:, arm]).max()
    assert after < 0.08
    assert same > after


def test_physics_track_is_gapless_and_ends_on_the_frame(episode):
    dt = episode.header.physics_dt_s
    last = 0.0
    for frame in (0, 1, 40, 80):
        track = episode.physics(frame)
        assert len(track.time_s) == (1 if frame == 0 else 34)
        np.testing.assert_allclose(np.diff(track.time_s), dt, atol=1e-9)
        assert track.time_s[-1] == pytest.approx(episode.time_s[frame], abs=1e-9)
        np.testing.assert_array_equal(track.T_world_object[-1], episode.object_poses[frame])
        last = max(last, track.time_s[-1])
    assert last == pytest.approx(80 / 15)


def test_contacts_tell_the_story(episode):
    spec = robot_of(episode)
    names = spec.grippers[0].finger_joints
    fingers = {spec.links[j.child_link].prim_path for j in spec.joints if j.name in names}

    def touching(frame: int) -> set[str]:
        pairs = [{c.body_a, c.body_b} for c in episode.contacts(frame)]
        return {other for pair in pairs if "/World/Packet" in pair for other in pair - {"/World/Packet"}}

    assert touching(0) <= {"/World/Table"}
    assert touching(45) == fingers
    assert any(path.startswith("/World/Tray") for path in touching(80))
    # At rest the ground carries the weight: forces are on b, from a to b.
    total = np.zeros(3)
    for c in episode.contacts(80):
        if "/World/Packet" in (c.body_a, c.body_b):
            total += np.array(c.force_n) * (1 if c.body_b == "/World/Packet" else -1)
    np.testing.assert_allclose(total, [0, 0, episode.header.objects[0].mass_kg * 9.81], atol=0.02)
    assert all(c.penetration_m > 0 or np.linalg.norm(c.force_n) > 0 for f in (0, 45, 80) for c in episode.contacts(f))


def test_pixels_geometry_and_ids_agree(episode):
    """Depth, ids and matrices of both cameras describe one world: the packet's pixels lie on the packet's box."""
    header = episode.header
    ids = {i.owner: i.id for i in header.instances if i.owner.startswith("object:")}
    half = np.array(header.objects[0].size_m) / 2
    for frame in (0, 45, 80):
        T = episode.object_poses[frame, 0]
        for camera in ("front", "wrist"):
            view, depth = episode.camera(camera, frame), episode.image(camera, "depth", frame)
            instances, normals = episode.image(camera, "instances", frame), episode.image(camera, "normals", frame)
            mask = instances == ids["object:Packet"]
            if camera == "front":
                assert mask.sum() > 100
            if not mask.any():
                continue
            points = transform(inverse(T), view.unproject(view.pixel_grid()[mask], depth[mask].astype(np.float64)))
            # Distance to the box's surface.
            outside = np.abs(points) - half
            assert np.abs(outside.max(-1)).max() < 1e-3
            # Normals point out of the face that the point is on.
            n = (normals[mask] / 32767) @ T[:3, :3]
            face = outside.argmax(-1)
            along = np.take_along_axis(n * np.sign(points), face[:, None], 1)[:, 0]
            assert np.median(along) > 0.999
            assert ((depth == 0) == (instances == 0)).all()
            assert (np.linalg.norm(normals[instances == 0], axis=-1) == 0).all()


def test_wrist_camera_rides_on_the_hand(episode):
    spec = robot_of(episode)
    hand = episode.link_poses(spec.name)[:, spec.link_index(spec.grippers[0].ee_link)]
    mounts = [np.linalg.inv(episode.camera("wrist", f).T_camera_world @ hand[f]) for f in (0, 30, 80)]
    np.testing.assert_allclose(mounts[1], mounts[0], atol=1e-5)
    np.testing.assert_allclose(mounts[2], mounts[0], atol=1e-5)
    assert np.abs(hand[30] - hand[0]).max() > 0.1
    np.testing.assert_array_equal(episode.camera("front", 0).T_camera_world, episode.camera("front", 80).T_camera_world)


def test_exposure_keeps_the_shading(episode):
    clipped = (episode.image("front", "rgb", 0) >= 254).any(-1).mean()
    assert clipped < 0.01


def test_instances_name_links_objects_and_scenery(episode):
    owners = {i.prim_path: i.owner for i in episode.header.instances}
    spec = robot_of(episode)
    assert all(owners[link.prim_path] == f"robot:{spec.name}" for link in spec.links)
    assert owners["/World/Packet"] == "object:Packet"
    assert owners["/World/Tray"] == "object:Tray"
    assert owners["/World/Table"] == ""


def test_same_seed_same_hash(tmp_path, monkeypatch):
    """Hashes repeat, whatever the number of render threads; another seed gives another episode."""
    overrides = {"frames": 9, "cameras": TINY, "phases": dict.fromkeys(load_preset("short", {}).phases, 0.06)}
    overrides["randomise"] = {"object_offset_m": [[-0.01, 0.01], [-0.01, 0.01]]}
    monkeypatch.setattr("retake.newton.pick_place._check_speed", lambda spec, path: None)
    first = capture(tmp_path / "a", seed=7, overrides=overrides).content_sha256
    monkeypatch.setattr(run, "RENDER_THREADS", 1)
    monkeypatch.setattr(run, "AHEAD", 0)
    assert capture(tmp_path / "b", seed=7, overrides=overrides).content_sha256 == first
    assert capture(tmp_path / "c", seed=8, overrides=overrides).content_sha256 != first


def test_quiet(tmp_path):
    """Nothing on stdout or stderr, not even from native code."""
    code = (
        "import sys; from pathlib import Path; from retake.newton.run import capture\n"
        f"capture(Path(sys.argv[1]), overrides={brief(2)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "e")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_rendering(tmp_path):
    made = capture(tmp_path / "e", overrides={"frames": 2, "scenario": "hold"}, render=False)
    assert made.header.cameras == ()
    assert len(made) == 2
    assert made.contacts(1)


@pytest.mark.parametrize("units", [(1.0, 1.0, "Y"), (0.01, 1.0, "Z"), (0.01, 0.001, "Y")])
def test_any_stage_in_any_units_moves_the_same(units, tmp_path):
    """A foreign arm holding its pose falls into its drives' equilibrium: the same in metres and in centimetres, Y up."""

    def simulate(name: str, metres: float, kilograms: float, up: str):
        stage = usd_stages.pendulum(metres, kilograms, up)
        usd_stages.add_camera(stage)
        file = tmp_path / f"{name}.usda"
        stage.Export(str(file))
        # Targets differ from the start, so the arm swings.
        motion = tmp_path / "swing.npz"
        np.savez(motion, joint_names=["hinge"], time_s=[0.0, 0.4], joint_position=[[0.0], [0.8]])
        return capture(
            tmp_path / name,
            stage=file,
            overrides={"frames": 12, "motion_file": str(motion), "cameras": TINY},
            render=False,
        )

    a, b = simulate("metric", 1.0, 1.0, "Z"), simulate("other", *units)
    assert a.joint("Arm", "position")[-1, 0] > 0.3
    np.testing.assert_allclose(b.joint("Arm", "position"), a.joint("Arm", "position"), atol=1e-4)
    np.testing.assert_allclose(b.link_poses("Arm")[..., :3, 3], a.link_poses("Arm")[..., :3, 3], atol=1e-4)
    np.testing.assert_allclose(b.joint("Arm", "effort"), a.joint("Arm", "effort"), atol=0.05)
    spec = b.header.robots[0]
    expected = spec.forward_kinematics(b.joint("Arm", "position"), b.link_poses("Arm")[:, 0])
    assert np.abs(expected - b.link_poses("Arm")).max() < 1e-6


def test_replay_refuses_bad_files(tmp_path):
    file = tmp_path / "m.npz"
    with pytest.raises(InputError, match=r"does not exist; expected a .csv with a header time_s"):
        capture(tmp_path / "a", overrides=brief(scenario="replay", motion_file=str(file)))
    np.savez(file, joint_names=["nobody"], time_s=[0.0], joint_position=[[0.0]])
    with pytest.raises(InputError, match=r"unknown joint in .*'nobody'; valid: panda_finger_joint1"):
        capture(tmp_path / "b", overrides=brief(scenario="replay", motion_file=str(file)))
    np.savez(file, joint_names=["panda_joint1"], time_s=[0.0, 0.0], joint_position=[[0.0], [0.0]])
    with pytest.raises(InputError, match="time_s must increase"):
        capture(tmp_path / "c", overrides=brief(scenario="replay", motion_file=str(file)))
    np.savez(file, joint_names=["panda_joint1"], time_s=[0.0], joint_position=[[np.nan]])
    with pytest.raises(InputError, match="is not a finite number"):
        capture(tmp_path / "d", overrides=brief(scenario="replay", motion_file=str(file)))
    with pytest.raises(InputError, match="needs motion_file"):
        capture(tmp_path / "e", overrides=brief(scenario="replay"))


def exported(tmp_path, stage, name="stage.usda"):
    file = tmp_path / name
    stage.Export(str(file))
    return file


def test_stage_faults(tmp_path):
    with pytest.raises(StageError, match="does not exist"):
        capture(tmp_path / "a", stage=tmp_path / "no.usda")
    with pytest.raises(StageError, match="has no articulation"):
        capture(tmp_path / "a", stage=exported(tmp_path, usd_stages.empty()))
    with pytest.raises(StageError, match="has no camera"):
        capture(tmp_path / "a", stage=exported(tmp_path, usd_stages.pendulum(), "b.usda"))
    seeing = usd_stages.pendulum()
    usd_stages.add_camera(seeing)
    with pytest.raises(StageError, match=r"has no rigid body|no rigid object to pick"):
        capture(tmp_path / "a", stage=exported(tmp_path, seeing, "c.usda"), overrides={"scenario": "pick_place"})
    usd_stages.add_body(seeing, "/World/Box", (0.5, 0, 0.1), 0.05, 0.1)
    file = exported(tmp_path, seeing, "d.usda")
    with pytest.raises(StageError, match="robot 'Arm' has no gripper"):
        capture(tmp_path / "a", stage=file, overrides={"scenario": "pick_place", "object": "Box", "target": "base"})
    without_scene = usd_stages.pendulum()
    usd_stages.add_camera(without_scene)
    without_scene.RemovePrim("/World/Physics")
    (note,) = build(load_preset("short", {}, own_stage=True), 0, exported(tmp_path, without_scene, "e.usda")).notes
    assert "has no PhysicsScene: gravity is 9.81" in note
    assert not (tmp_path / "a").exists()


def test_a_camera_with_time_samples_is_recorded_where_it_is(tmp_path):
    """Pose and lens of every frame are those of the stage at that time."""
    file = Path(__file__).parent / "stages" / "r16_camera_with_time_samples.usda"
    episode = capture(tmp_path / "e", stage=file, overrides={"frames": 3, "fps": 2, "steps_per_frame": 250})
    assert not episode.header.cameras[0].static
    name, stage = episode.header.cameras[0].name, open_stage(file)
    for k in range(3):
        truth = read_camera(stage.GetPrimAtPath("/World/Camera"), (640, 480), time_at(stage, k / 2)).camera()
        seen = episode.camera(name, k)
        np.testing.assert_allclose(seen.K, truth.K, rtol=1e-6)
        np.testing.assert_allclose(seen.T_camera_world, truth.T_camera_world, atol=1e-6)
    assert episode.camera(name, 0).K[0, 0] < episode.camera(name, 2).K[0, 0]


def test_two_hinges_of_one_body_move_as_they_are_told(tmp_path):
    """Several joints between two bodies are one joint to the importer; each is a degree of freedom, in its own place."""
    stage = usd_stages.pendulum()
    layer = stage.GetRootLayer()
    Sdf.CopySpec(layer, "/World/Arm/joints/hinge", layer, "/World/Arm/joints/hinge_across")
    UsdPhysics.RevoluteJoint.Get(stage, "/World/Arm/joints/hinge_across").GetAxisAttr().Set("Y")
    names, at = np.array(["hinge", "hinge_across", "slide"]), np.array([[0.3, 0.1, 0.0], [0.5, 0.4, 0.05]])
    np.savez(tmp_path / "motion.npz", joint_names=names, time_s=np.array([0, 0.3]), joint_position=at)
    motion = {"frames": 8, "motion_file": str(tmp_path / "motion.npz")}
    episode = capture(tmp_path / "e", stage=exported(tmp_path, stage, "two.usda"), overrides=motion, render=False)
    position = episode.joint("Arm", "position")
    np.testing.assert_allclose(position[0], at[0], atol=1e-6)
    assert (np.abs(position[-1] - at[0]) > 0.3 * np.abs(at[1] - at[0])).all()
    (robot,) = episode.header.robots
    poses = robot.forward_kinematics(position, episode.link_poses("Arm")[:, robot.root])
    np.testing.assert_allclose(episode.link_poses("Arm"), poses, atol=1e-6)
    Sdf.CopySpec(layer, "/World/Arm/joints/hinge_across", layer, "/World/Arm/joints/across")
    stage.RemovePrim("/World/Arm/joints/hinge_across")
    with pytest.raises(
        StageError, match=r"/World/Arm/joints/across move one body, and .* in another order than the stage's"
    ):
        capture(tmp_path / "f", stage=exported(tmp_path, stage, "f.usda"), overrides={"frames": 2}, render=False)


def test_task_faults(tmp_path):
    cases = [
        (
            {"randomise": {"object_scale": [1.0, 2.0, 1.0]}},
            "mm across its narrow side; gripper 'panda_hand' opens 80 mm",
        ),
        ({"randomise": {"target_offset_m": [0.9, 0.5]}}, "cannot reach"),
        ({"phases": {"carry": 0.2}}, "the planned motion turns joint"),
        ({"phases": {"carry": 30.0}}, "the task's phases take"),
        ({"object": "ball"}, "unknown object 'ball'; valid: Packet"),
        ({"target": "bin"}, "unknown target prim 'bin'; valid: "),
        ({"robot": "UR5"}, "unknown robot 'UR5'; valid: Panda"),
        ({"randomise": {"colour": 1}}, "unknown randomised quantity 'colour'; valid: drop_height_m"),
        ({"randomise": {"object_mass_kg": [0.2, 0.1]}}, "the low end is above the high end"),
        ({"randomise": {"object_offset_m": 3}}, r"expected 2 pairs \[low, high\] or 2 numbers"),
        ({"randomise": {"object_mass_kg": -1.0}}, "must be positive"),
        ({"phases": {"dance": 1.0}}, "unknown phase 'dance'"),
        ({"phases": {"wait": 0}}, "phase durations must be positive"),
        ({"scenario": "juggle"}, "unknown scenario 'juggle'; valid: hold, pick_place, replay"),
        ({"frame": 3}, "unknown setting 'frame'"),
        ({"frames": 0}, "frames is 0; expected a positive whole number"),
        ({"cameras": [{"name": "x", "size": [8, 6]}, {"name": "x", "size": [9, 6]}]}, "two cameras are named 'x'"),
        ({"cameras": [{"name": "x"}]}, "a camera needs at least name and size"),
        ({"cameras": [{"name": "x", "size": [0, 1]}]}, "in whole pixels"),
        ({"cameras": [{"name": "x", "size": [8, 8], "prim": "/World/None"}]}, "unknown camera prim '/World/None'"),
        ({"cameras": [{"name": "x", "size": [8, 8], "mount": "sky"}]}, "unknown mount of camera 'x' 'sky'"),
        ({"cameras": [{"name": "x", "size": [8, 8], "lens": 1}]}, "unknown camera setting 'lens'"),
    ]
    for overrides, expected in cases:
        with pytest.raises((InputError, StageError), match=expected):
            capture(tmp_path / "e", overrides=overrides)
        assert not (tmp_path / "e").exists(), overrides
    with pytest.raises(InputError, match="unknown capture preset 'tall'; valid: long, short"):
        capture(tmp_path / "e", preset="tall")
    assert preset_names() == ("long", "short")


def test_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EpisodeError, match="is not empty"):
        capture(tmp_path, overrides=brief())
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_cancelled_capture_keeps_its_frames(tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        capture(tmp_path / "e", overrides=brief(9), progress=stop)
    made = open_episode(tmp_path / "e", allow_incomplete=True)
    assert not made.complete
    assert len(made) == 3


def test_camera_that_never_sees_the_robot_is_said(tmp_path):
    stage = usd_stages.pendulum()
    T = np.eye(4)
    T[:3, 3] = (0, 0, 50)
    usd_stages.add_camera(stage, T_stage=np.diag([1.0, -1, -1, 1]) @ T)
    made = capture(tmp_path / "e", stage=exported(tmp_path, stage), overrides={"frames": 2, "cameras": TINY})
    (item,) = [i for i in check_episode(made).items if "sees the robot" in i.name]
    assert (item.status, item.detail) == ("fail", "this camera never sees the robot")


def test_unstable_simulation_is_said(tmp_path):
    stage = usd_stages.pendulum()
    usd_stages.add_camera(stage)
    drive = UsdPhysics.DriveAPI(stage.GetPrimAtPath("/World/Arm/joints/hinge"), "angular")
    drive.CreateMaxForceAttr(1e30)
    drive.CreateStiffnessAttr(1e25)
    drive.CreateDampingAttr(0.0)
    drive.CreateTargetPositionAttr(90.0)
    file = exported(tmp_path, stage)
    np.savez(tmp_path / "m.npz", joint_names=["hinge"], time_s=[0, 0.1], joint_position=[[0.0], [1.5]])
    with pytest.raises((InputError, EpisodeError), match=r"unstable|finite"):
        capture(
            tmp_path / "e", stage=file, overrides={"frames": 20, "motion_file": str(tmp_path / "m.npz")}, render=False
        )


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(MissingDependencyError, match=r"extra 'newton'.*isaac-retake\[newton\]"):
        engine.load.__wrapped__()


def test_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path / "w"))
    assert engine.cache_dir() == tmp_path / "w"
    monkeypatch.delenv("WARP_CACHE_PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine.cache_dir() == tmp_path / "retake" / "warp"


def test_target_by_name_label_or_path():
    """A target is found by name, label or path."""
    stage = Usd.Stage.Open(str(usd_stages.PICK_PLACE))
    (packet,) = read_objects(stage, read_articulations(stage))
    for name in ("tray", "Tray", "/World/Tray"):
        assert str(_find_target(stage, name, packet).GetPath()) == "/World/Tray"


def test_a_changed_texture_layer_or_motion_changes_the_fingerprint_and_a_copy_does_not(tmp_path):
    from retake.newton.preset import STAGES as FOLDER

    stages = [tmp_path / name for name in ("one", "two")]
    for folder in stages:
        shutil.copytree(FOLDER / "pick_place", folder)
    scene = stages[1] / "scene.usda"
    plain = fingerprint("short", {}, stages[0] / "scene.usda")
    assert fingerprint("short", {}, scene) == plain
    texture = stages[1] / "packet.png"
    texture.write_bytes(texture.read_bytes() + b"0")
    changed = fingerprint("short", {}, scene)
    assert changed != plain
    layer = Usd.Stage.Open(str(stages[1] / "panda.usdc"))
    layer.GetRootLayer().comment = "another"
    layer.Save()
    assert fingerprint("short", {}, scene) not in (plain, changed)
    motion = tmp_path / "motion.npz"
    seen = []
    for content in (b"1", b"2"):
        motion.write_bytes(content)
        seen.append(fingerprint("short", {"motion_file": str(motion)}, stages[0] / "scene.usda"))
    assert len({*seen, plain}) == 3
