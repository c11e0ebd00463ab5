# SPDX-License-Identifier: Apache-2.0
"""Names, orders and small parts of what goes to Isaac Lab and into vectors, on robots of a few joints."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_runs import make_run, write_take
from strategies import random_frame, random_header, random_robot

from retake.core.episode import EpisodeWriter, open_episode
from retake.core.episode.extra import QUATERNION_NAMES, ROOT_QUATERNION, ROOT_VELOCITY, VELOCITY_NAMES, write_extra
from retake.core.errors import ExportError, InputError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.encode import require
from retake.core.export.isaaclab import _last_action, _padded, _pose, _timing, problems
from retake.core.export.isaaclab_env import (
    ActionTerm,
    LabTarget,
    StatedEnvironment,
    _rows,
    environment_of,
    issued_actions,
    joint_velocity,
    observation,
    read_environment,
    root_quaternion,
    root_velocity,
    velocity_of,
)
from retake.core.export.layouts import LAYOUTS, laid_out, require_layout, rotation_vectors
from retake.core.export.records import ACTION, SOURCE_FRAME, SOURCE_TIME, SOURCE_UID, STATE
from retake.core.export.vectors import EXTRAS, build_schema, joint_targets, state_vector
from retake.core.video import read_video


def stated(tmp_path: Path, text: str) -> StatedEnvironment:
    (tmp_path / "e.yaml").write_text(text)
    return read_environment(tmp_path / "e.yaml")


def test_an_environment_is_what_its_file_says(tmp_path):
    found = stated(
        tmp_path,
        "env_name: E\narticulations: {robot: {robot: panda, joints: [a, b]}}\nrigid_objects: {cube: 7}\n"
        "observations: {pos: 'object_position:x', seen: gripper}\n"
        "actions: [{name: arm, joints: [a], scale: 0.5, offset: 2}, {name: hand, joints: [b]}]\n",
    )
    assert found == StatedEnvironment(
        "E", {"robot": ("panda", ("a", "b"))}, {"cube": "7"}, {"pos": "object_position:x", "seen": "gripper"},
        (ActionTerm("arm", ("a",), 0.5, 2.0), ActionTerm("hand", ("b",), 1.0, 0.0)),
    )  # fmt: skip
    assert stated(tmp_path, "") == StatedEnvironment()
    assert stated(tmp_path, "articulations:\nactions:\n") == StatedEnvironment()


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1]", "expected a mapping with env_name"), ("name: x", "key 'name'"),
     ("observations: {a: colour}", "observation 'colour'"),
     ("actions: [{name: a, joints: [x], scale: 0}]", "has scale 0"), ("actions: [{name: a}]", "KeyError"),
     ("articulations: {robot: panda}", "articulations have robot and joints"),
     ("actions: [{name: a, joints: [x], scale: much}]", "ValueError")],
)  # fmt: skip
def test_an_environment_that_is_wrong_is_told_by_its_key(tmp_path, text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        stated(tmp_path, text)
    with pytest.raises(InputError, match="does not exist"):
        read_environment(tmp_path / "none.yaml")


def test_quaternions_stand_in_the_order_of_the_asked_version():
    assert [LabTarget(v).order for v in (2, 3)] == ["wxyz", "xyzw"]
    for version in (1, 4):
        with pytest.raises(InputError, match="expected 2 or 3"):
            LabTarget(version)
    T = np.eye(4)[None].copy()
    T[0, :3, 3] = (7, 8, 9)
    q = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert _rows(T)[0] == pytest.approx([7, 8, 9, 1, 0, 0, 0]), "observations have w first"
    assert _pose(T, q, "xyzw")[0] == pytest.approx([7, 8, 9, 0.1, 0.2, 0.3, 0.4])
    assert _pose(T, q, "wxyz")[0] == pytest.approx([7, 8, 9, 0.4, 0.1, 0.2, 0.3])


def test_the_action_before_a_frame_is_the_last_ones_and_the_state_before_the_first():
    actions, states = np.array([[1.0], [2], [3]]), np.array([[7.0], [8], [9]])
    assert _last_action(actions, states).ravel().tolist() == [7, 1, 2]
    assert _padded(actions, 2, 6).ravel().tolist() == [0, 0, 1, 2, 3, 0]


def test_a_body_that_is_seen_once_has_no_velocity_and_one_that_speeds_up_its_mean():
    poses = np.tile(np.eye(4), (4, 1, 1))
    assert velocity_of(poses[:1], 10.0).tolist() == [[0] * 6]
    poses[:, 0, 3] = [0, 1, 4, 9]
    assert velocity_of(poses, 10.0)[:, 0] == pytest.approx([10, 20, 40, 50])
    assert velocity_of(poses[:2], 10.0)[:, 0] == pytest.approx([10, 10])


def test_rotation_vectors_are_axis_times_angle():
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert rotation_vectors(np.stack([quarter, np.eye(3)])) == pytest.approx(np.array([[0, 0, np.pi / 2], [0, 0, 0]]))


def hdf5(path: Path, change=lambda file: None) -> list[str]:
    with require("h5py").File(path, "w") as file:
        data = file.create_group("data")
        for i, count in enumerate((2, 3)):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = count
            demo["actions"] = np.zeros((count, 2))
            demo["obs/a"] = np.zeros((count, 1))
        data.attrs["total"], data.attrs["env_args"] = 5, "{}"
        file.create_dataset(
            "mask/train", data=np.array(["demo_0", "demo_1"], object), dtype=require("h5py").string_dtype()
        )
        change(file)
    return problems(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda f: None, []), (lambda f: f.move("data", "other"), ["group data with attributes total and env_args is missing"]),
     (lambda f: f["data"].attrs.__delitem__("total"), ["group data with attributes total and env_args is missing"]),
     (lambda f: f["data"].attrs.__delitem__("env_args"), ["group data with attributes total and env_args is missing"]),
     (lambda f: f["data"].move("demo_0", "demo_7"), ["data/demo_0 is missing: demos must count from 0",
      "data.total is 5, the demos add up to 3", "mask names 'demo_0', which does not exist"][:2]),
     (lambda f: f["data/demo_1"].attrs.__setitem__("num_samples", 2), ["demo_1: actions do not have num_samples = 2 rows",
      "demo_1/obs/a has 3 rows, expected 2", "data.total is 5, the demos add up to 4"]),
     (lambda f: f["data/demo_1"].__delitem__("actions"), ["demo_1: actions do not have num_samples = 3 rows"]),
     (lambda f: f["data"].attrs.__setitem__("total", 6), ["data.total is 6, the demos add up to 5"]),
     (lambda f: f["mask/train"].__setitem__(1, "demo_2"), ["mask names 'demo_2', which does not exist"])],
)  # fmt: skip
def test_what_keeps_others_from_reading_a_file_is_named(tmp_path, change, told):
    assert hdf5(tmp_path / "d.hdf5", change) == told


def arm(name: str, joints: int, *, passive: str = ""):
    robot = random_robot(np.random.default_rng(0), name, joints)
    return replace(robot, joints=tuple(replace(j, driven=j.name != passive) for j in robot.joints))


def of(*robots, **settings):
    made = random_header(np.random.default_rng(0))
    return replace(made, robots=robots, settings=settings, fps=15)


FINGERS = ("finger_left.pos", "finger_right.pos")


def test_the_entries_of_one_robot_are_its_arm_its_fingers_and_its_openness():
    found = build_schema(of(arm("arm", 2)), {})
    names = ("joint0.pos", "joint1.pos", *FINGERS, "hand.open")
    assert found.vectors[STATE].names == found.vectors[ACTION].names == names
    assert [(s.name, s.start, s.end, s.robot) for s in found.slices] == [
        ("arm", 0, 2, "arm"), ("fingers", 2, 4, "arm"), ("gripper", 4, 5, "arm"),
    ]  # fmt: skip
    assert found.own_action_slices == ()
    assert found.action_slices == found.slices
    assert (found.fps, found.robot_type) == (15, "arm")
    assert [*found.vectors] == [STATE, ACTION, SOURCE_TIME, SOURCE_FRAME, SOURCE_UID]
    assert [found.vectors[k].dtype for k in found.vectors] == ["float32", "float32", "float64", "int64", "int64"]


def test_what_nothing_commands_is_no_action_and_what_was_not_recorded_no_entry():
    follows = build_schema(of(arm("arm", 2, passive="finger_right")), {})
    assert follows.vectors[STATE].names == ("joint0.pos", "joint1.pos", *FINGERS, "hand.open")
    assert follows.vectors[ACTION].names == ("joint0.pos", "joint1.pos", "finger_left.pos", "hand.open")
    assert [(s.name, s.start, s.end) for s in follows.own_action_slices] == [
        ("arm", 0, 2), ("fingers", 2, 3), ("gripper", 3, 4),
    ]  # fmt: skip
    unknown = build_schema(of(arm("arm", 2), missing_grippers=["arm/hand"]), {})
    assert unknown.vectors[STATE].names == ("joint0.pos", "joint1.pos")


def test_entries_of_two_robots_have_their_names():
    two = of(arm("left", 1), arm("right", 2, passive="joint1"))
    found = build_schema(two, {}, EXTRAS)
    hands = [
        f"{r}.{j}"
        for r, n in (("left", 1), ("right", 2))
        for j in (*(f"joint{k}" for k in range(n)), "finger_left", "finger_right")
    ]
    assert found.vectors[STATE].names == (
        "left.joint0.pos", *(f"left.{f}" for f in FINGERS), "left.hand.open",
        "right.joint0.pos", "right.joint1.pos", *(f"right.{f}" for f in FINGERS), "right.hand.open",
    )  # fmt: skip
    assert [s.name for s in found.slices] == [
        f"{r}_{k}" for r in ("left", "right") for k in ("arm", "fingers", "gripper")
    ]
    assert found.vectors["observation.velocity"].names == tuple(f"{n}.velocity" for n in hands)
    assert found.vectors["observation.effort"].names == tuple(f"{n}.effort" for n in hands)
    assert found.vectors["observation.ee_pose"].names[5:9] == (
        "left.hand.qy",
        "left.hand.qz",
        "right.hand.x",
        "right.hand.y",
    )
    assert found.vectors["privileged.object_pose"].names == tuple(
        f"obj0.{p}" for p in ("x", "y", "z", "qw", "qx", "qy", "qz")
    )
    assert found.robot_type == "left+right"
    q = [np.array([1.0, 2, 3]), np.array([4.0, 5, 6, 7])]
    openness = [np.array([0.5]), np.array([0.25])]
    assert state_vector(two, q, openness).tolist() == [1, 2, 3, 0.5, 4, 5, 6, 7, 0.25]
    action = state_vector(two, q, openness, commanded=True)
    assert action.tolist() == [1, 2, 3, 0.5, 4, 6, 7, 0.25]
    back = joint_targets(two, action * 10, q)
    assert [b.tolist() for b in back] == [[10, 20, 30], [40, 5, 60, 70]]
    assert q[0].tolist() == [1, 2, 3], "what was held is as it was"
    for wrong in (action[:-1], np.append(action, 0)):
        with pytest.raises(ExportError, match=f"an action has 8 entries here; found {len(wrong)}"):
            joint_targets(two, wrong, q)
    with pytest.raises(ExportError, match=r"15\.5 fps"):
        build_schema(replace(two, fps=15.5), {})
    with pytest.raises(ExportError, match="extra feature"):
        build_schema(two, {}, ["weight"])


def test_layouts_keep_the_arm_and_the_openness_or_the_end_effector_alone():
    one, two = of(arm("arm", 2, passive="finger_right")), of(arm("left", 1), arm("right", 1))
    full = build_schema(one, {})
    assert laid_out(full, one, "full") is full
    kept = laid_out(full, one, "arm+openness")
    assert kept.vectors[STATE].names == kept.vectors[ACTION].names == ("joint0.pos", "joint1.pos", "hand.open")
    assert [(s.name, s.start, s.end) for s in kept.slices] == [("arm", 0, 2), ("gripper", 2, 3)]
    assert kept.own_action_slices == ()
    passive = of(arm("arm", 2, passive="joint0"))
    kept = laid_out(build_schema(passive, {}), passive, "arm+openness")
    assert kept.vectors[ACTION].names == ("joint1.pos", "hand.open")
    assert [(s.name, s.start, s.end) for s in kept.own_action_slices] == [("arm", 0, 1), ("gripper", 1, 2)]
    steps = laid_out(full, one, "deltas-ee")
    assert steps.vectors[STATE].names == tuple(f"hand.{x}" for x in ("x", "y", "z", "rx", "ry", "rz", "open"))
    assert steps.vectors[ACTION].names == tuple(f"hand.{x}" for x in ("dx", "dy", "dz", "drx", "dry", "drz", "open"))
    assert [(s.name, s.start, s.end) for s in steps.slices] == [
        ("ee_position", 0, 3),
        ("ee_rotation", 3, 6),
        ("gripper", 6, 7),
    ]
    assert [s.start for s in steps.own_action_slices] == [0, 3, 6]
    both = laid_out(build_schema(two, {}), two, "deltas-ee")
    assert both.vectors[STATE].names[6:8] == ("left.hand.open", "right.hand.x")
    assert [(s.name, s.start) for s in both.slices][2:4] == [("left_hand_gripper", 6), ("right_hand_ee_position", 7)]
    assert "steps of the pose" in both.units[ACTION]
    for layout in LAYOUTS[:2]:
        require_layout(layout, of())
    for header in (of(), of(arm("arm", 1), missing_grippers=["arm/hand"])):
        with pytest.raises(ExportError, match="has no recorded gripper"):
            require_layout("deltas-ee", header)
    with pytest.raises(ExportError, match="layout of state and action"):
        require_layout("half", one)


def demos(tmp_path: Path, *, include_sim: bool = False, **take):
    """The demonstrations of a run of six frames with one take, and the file's own attributes."""
    run = make_run(tmp_path / "run", frames=6, takes=0, fps=15)
    write_take(run, open_episode(run / "episode"), 0, **take)
    export([run], tmp_path / "d", ExportOptions("hdf5-isaaclab"), Selection(include_sim=include_sim))
    assert problems(tmp_path / "d" / "dataset.hdf5") == []
    return require("h5py").File(tmp_path / "d" / "dataset.hdf5")


def test_pictures_are_stored_one_by_one_and_packed(tmp_path):
    """A reader of one step reads one picture: one chunk each; gzip, quickest, bytes of a channel side by side."""
    with demos(tmp_path) as file:
        pixels = file["data/demo_0/obs/front_rgb"]
        assert (pixels.shape, pixels.dtype, pixels.chunks) == ((5, 64, 64, 3), np.uint8, (1, 64, 64, 3))
        assert (pixels.compression, pixels.compression_opts, pixels.shuffle) == ("gzip", 1, True)
        means = [float(picture.mean()) for picture in pixels]
    shown = [float(frame.mean()) for frame in read_video(next((tmp_path / "run" / "takes").rglob("take.mp4")))]
    assert means == pytest.approx(shown[:5], abs=0.01)


@pytest.mark.parametrize(("start", "frames", "steps"), [(0, 6, 5), (1, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 1)])
def test_a_step_has_a_state_after_it(tmp_path, start, frames, steps):
    episode = open_episode(make_run(tmp_path / "run", frames=6, takes=0, fps=15) / "episode")
    write_take(tmp_path / "run", episode, 0, start=start, frames=frames)
    export([tmp_path / "run"], tmp_path / "d", ExportOptions("hdf5-isaaclab"))
    with require("h5py").File(tmp_path / "d" / "dataset.hdf5") as file:
        demo = file["data/demo_0"]
        assert demo.attrs["num_samples"] == file["data"].attrs["total"] == len(demo["actions"]) == steps
        (robot,) = demo["states/articulation"]
        joints = demo[f"states/articulation/{robot}/joint_position"][:]
        first = demo[f"initial_state/articulation/{robot}/joint_position"][:]
    q = episode.joint(episode.header.robots[0].name, "position").astype(np.float32)
    assert np.array_equal(np.concatenate([first, joints]), q[start : start + steps + 1])


def test_a_window_that_ends_with_its_first_frame_is_no_demonstration(tmp_path):
    with pytest.raises(ExportError, match="frame 5 has none after it; a demonstration of Isaac Lab needs a step"):
        demos(tmp_path, start=5, frames=1)


def test_a_demonstration_says_its_seed_its_timing_and_what_kind_of_environment_it_is_of(tmp_path):
    """robomimic's type 2 is Isaac Lab's (a gym environment); physics at 495 Hz makes a frame of 33 steps."""
    with demos(tmp_path, include_sim=True) as file:
        assert [file[f"data/demo_{i}"].attrs["seed"] for i in range(2)] == [0, 42]
        said = json.loads(file["data"].attrs["env_args"])
        assert (said["type"], said["env_kwargs"]["fps"]) == (2, 15)
        assert said["sim_args"] == {"dt": pytest.approx(1 / 495), "decimation": 33}
        assert [name for name in file["mask"]] == ["train"]
        assert file["mask/train"].asstr()[:].tolist() == ["demo_0", "demo_1"]


@pytest.mark.parametrize(
    ("dt", "fps", "told"),
    [(1 / 120, 30, {"dt": 1 / 120, "decimation": 4}), (0.01, 15, {}), (0.02, 50, {"dt": 0.02, "decimation": 1})],
)  # fmt: skip
def test_a_control_step_is_told_where_physics_steps_make_it(dt, fps, told):
    header = replace(of(arm("arm", 1)), physics_dt_s=dt, fps=fps)
    assert _timing(type("E", (), {"header": header})) == told


def test_every_demonstration_is_looked_at_after_one_that_is_missing(tmp_path):
    def change(file):
        file["data"].move("demo_0", "demo_7")
        file["data/demo_1"].attrs.__delitem__("num_samples")

    assert hdf5(tmp_path / "d.hdf5", change) == [
        "data/demo_0 is missing: demos must count from 0", "demo_1: actions do not have num_samples = -1 rows",
        "demo_1/obs/a has 3 rows, expected -1", "data.total is 5, the demos add up to -1",
    ]  # fmt: skip


def recorded(tmp_path: Path, *, velocity: bool = True, objects: int = 1):
    """An episode of five frames at 10 per second: a robot of two arm joints that turns by 0.9 rad a frame about z."""
    header = replace(of(arm("arm", 2)), fps=10.0, joint_channels=("velocity", "target") if velocity else ("target",))
    header = replace(header, objects=header.objects[:objects])
    rng, made = np.random.default_rng(3), []
    with EpisodeWriter(tmp_path / "e", header) as writer:
        for k in range(5):
            frame = random_frame(rng, header, k)
            turn = np.eye(4)
            turn[:2, :2] = [[np.cos(0.9 * k), -np.sin(0.9 * k)], [np.sin(0.9 * k), np.cos(0.9 * k)]]
            turn[:3, 3] = (k * k, 0, 1)
            made.append(replace(frame, T_world_object=np.stack([turn] * objects)))
            writer.append(made[-1])
        return writer.finish()


def test_velocities_are_what_was_recorded_or_differences(tmp_path):
    episode = recorded(tmp_path / "a")
    assert np.array_equal(joint_velocity(episode, "arm"), episode.joint("arm", "velocity"))
    bare = recorded(tmp_path / "b", velocity=False)
    q = bare.joint("arm", "position")
    assert joint_velocity(bare, "arm")[2] == pytest.approx((q[3] - q[1]) * 5)
    assert joint_velocity(bare, "arm")[0] == pytest.approx((q[1] - q[0]) * 10)
    found = velocity_of(bare.object_poses[:, 0], 10.0)
    assert found[:, 5] == pytest.approx([9.0] * 5), "rad/s about z"
    assert found[:, 0] == pytest.approx([10, 20, 40, 60, 70])
    assert found[:, [1, 2, 3, 4]] == pytest.approx(np.zeros((5, 4)), abs=1e-9)
    assert np.array_equal(root_velocity(bare, "obj0", bare.object_poses[:, 0]), found)
    rows = np.arange(30, dtype=np.float32).reshape(5, 6)
    write_extra(bare.path, {ROOT_VELOCITY + "obj0": (VELOCITY_NAMES, rows)})
    assert np.array_equal(root_velocity(bare, "obj0", bare.object_poses[:, 0]), rows)


def test_quaternions_do_not_jump_and_have_the_recorded_signs_where_they_are_of_the_pose(tmp_path):
    episode = recorded(tmp_path)
    poses = episode.object_poses[:, 0]
    q = root_quaternion(episode, "obj0", poses)
    assert q[:, 2] == pytest.approx(np.sin(0.45 * np.arange(5)), abs=1e-6)
    assert q[:, 3] == pytest.approx(np.cos(0.45 * np.arange(5)), abs=1e-6)
    held = -q.astype(np.float32)
    held[2] = [1, 0, 0, 0]
    write_extra(episode.path, {ROOT_QUATERNION + "obj0": (QUATERNION_NAMES, held)})
    told = root_quaternion(episode, "obj0", poses)
    assert told[[0, 1, 3, 4]] == pytest.approx(-q[[0, 1, 3, 4]], abs=1e-6)
    assert np.abs(told[2] @ q[2]) == pytest.approx(1), "of another pose: its own"


def test_an_observation_is_what_its_name_says_in_the_scene_s_order(tmp_path):
    episode = recorded(tmp_path)
    names = ("joint1", "finger_right", "joint0", "finger_left")
    environment = StatedEnvironment("E", {"robot": ("arm", names)}, {"cube": "obj0"})
    order = [episode.header.robots[0].dof_index(name) for name in names]
    actions = np.arange(10.0).reshape(5, 2)

    def seen(source: str) -> np.ndarray:
        return observation(episode, environment, source, actions)

    for source in ("joint_position", "joint_position:robot"):
        assert np.array_equal(seen(source), episode.joint("arm", "position")[:, order])
    assert np.array_equal(seen("joint_velocity"), episode.joint("arm", "velocity")[:, order])
    assert np.array_equal(seen("gripper"), episode.gripper_openness("arm"))
    assert np.array_equal(seen("last_action"), np.concatenate([np.zeros((1, 2)), actions[:-1]]))
    assert np.array_equal(seen("object_position:obj0"), episode.object_poses[:, 0, :3, 3])
    pose = seen("object_pose:obj0")
    assert pose[:, :3] == pytest.approx(episode.object_poses[:, 0, :3, 3])
    assert np.abs(pose[:, 3]) == pytest.approx(np.abs(np.cos(0.45 * np.arange(5))), abs=1e-6)
    robot = episode.header.robots[0]
    hand = episode.link_poses("arm")[:, robot.link_index(robot.grippers[0].ee_link)]
    assert seen("ee_position") == pytest.approx(hand[:, :3, 3])
    assert seen("ee_pose")[:, :3] == pytest.approx(hand[:, :3, 3])
    for source, told in (
        ("object_pose:cup", "object of observation"),
        ("joint_position:x", "articulation of observation"),
    ):
        with pytest.raises(InputError, match=told):
            seen(source)


def test_actions_are_those_of_the_terms_else_as_issued_else_targets(tmp_path):
    episode = recorded(tmp_path)
    target, columns = episode.joint("arm", "target"), np.full((3, 4), 7.0)
    assert issued_actions(episode, StatedEnvironment(), columns, 1) is columns
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    write_extra(episode.path, {"action": (("a", "b"), rows)})
    assert np.array_equal(issued_actions(episode, StatedEnvironment(), columns, 1), rows[1:4])
    terms = (ActionTerm("arm", ("joint1", "joint0"), 0.5, 2.0), ActionTerm("hand", ("finger_left",)))
    environment = StatedEnvironment("E", {"robot": ("arm", ())}, {}, {}, terms)
    found = issued_actions(episode, environment, columns, 1)
    robot = episode.header.robots[0]
    index = [robot.dof_index(name) for name in ("joint1", "joint0", "finger_left")]
    assert found[:, :2] == pytest.approx((target[1:4, index[:2]] - 2) / 0.5)
    assert found[:, 2] == pytest.approx(target[1:4, index[2]])
    wrong = StatedEnvironment("E", {}, {}, {}, (ActionTerm("arm", ("elbow",)),))
    with pytest.raises(InputError, match="joint of action term 'arm'"):
        issued_actions(episode, wrong, columns, 1)


def test_an_environment_is_stated_told_by_the_recording_or_that_of_the_episode(tmp_path):
    episode = recorded(tmp_path)
    dofs = episode.header.robots[0].dof_names
    found = environment_of(episode, LabTarget())
    assert (found.env_name, found.articulations, found.rigid_objects) == ("", {"arm": ("arm", dofs)}, {"obj0": "obj0"})
    told = {
        "env_name": "Lift", "articulations": {"arm": {"key": "robot", "joints": list(reversed(dofs))}},
        "rigid_objects": {"obj0": "cube"},
    }  # fmt: skip
    for key in ("isaac_lab", "imported"):
        header = replace(episode.header, settings={key: told})
        found = environment_of(replace(episode, header=header), LabTarget())
        assert found.env_name == "Lift"
        assert found.articulations == {"robot": ("arm", tuple(reversed(dofs)))}
        assert found.rigid_objects == {"cube": "obj0"}
    assert environment_of(replace(episode, header=header), LabTarget(3, "Mine")).env_name == "Mine"
    fixed = replace(header, objects=tuple(replace(o, movable=False) for o in header.objects))
    assert environment_of(replace(episode, header=fixed), LabTarget()).rigid_objects == {}
    for text, words in (
        ("articulations: {robot: {robot: leg, joints: []}}", "robot of articulation 'robot'"),
        ("articulations: {robot: {robot: arm, joints: [joint0]}}", "differs in finger_left, finger_right, joint1"),
        ("rigid_objects: {cube: cup}", "object of rigid object 'cube'"),
    ):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises((InputError, ExportError), match=words):
            environment_of(episode, LabTarget(3, "", tmp_path / "s.yaml"))
