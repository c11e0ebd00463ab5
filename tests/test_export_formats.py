# SPDX-License-Identifier: Apache-2.0
"""v2.1 under GR00T's rules, OSCAR samples and their way back, Isaac Lab HDF5, physics beside the pixels."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from export_runs import make_header, make_run, write_take

from retake.core.episode import open_episode
from retake.core.episode.extra import QUATERNION_NAMES, write_extra
from retake.core.errors import ExportError, RetakeError
from retake.core.export import ExportOptions, Selection, VideoOptions, export, gr00t, isaaclab, isaaclab_env, oscar
from retake.core.export.encode import encode, read_segment
from retake.core.export.isaaclab_env import LabTarget
from retake.core.export.lerobot_v3 import Limits
from retake.core.export.physics import NEVER, physics_arrays, unpack_masks
from retake.core.export.reader import Dataset
from retake.core.export.records import ACTION, STATE, Schema
from retake.core.export.urdf_out import robot_urdf
from retake.core.export.vectors import actions, build_schema, states
from retake.core.files import read_json, write_json
from retake.core.geometry import axis_angle, wxyz_from_rotation
from retake.core.importers.oscar import import_oscar
from retake.core.robot import RobotSpec
from retake.core.skeleton import skeleton_frames
from retake.core.urdf import read_urdf
from retake.core.video import read_video

pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")
DROID = Path(__file__).resolve().parents[2] / "shared/golden/droid"


def test_v21_loads_under_gr00ts_rules(tmp_path):
    runs = [make_run(tmp_path / f"r{i}", seed=i, cameras=("front", "wrist")) for i in range(2)]
    export(runs, tmp_path / "d", ExportOptions("lerobot-v2.1", H264), Selection(include_sim=True))
    assert gr00t.problems(tmp_path / "d") == []
    modality = json.loads((tmp_path / "d/meta/modality.json").read_text("utf-8"))
    parts = list(modality["state"].values())
    assert parts[0]["start"] == 0
    assert all(a["end"] == b["start"] for a, b in itertools.pairwise(parts))
    info = json.loads((tmp_path / "d/meta/info.json").read_text("utf-8"))
    assert (info["codebase_version"], info["total_videos"], info["total_chunks"]) == ("v2.1", 12, 1)
    stats = [json.loads(x) for x in (tmp_path / "d/meta/episodes_stats.jsonl").read_text("utf-8").splitlines()]
    assert set(stats[0]["stats"]["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    data = Dataset(tmp_path / "d")
    for row in data.episodes():
        assert len(list(read_segment(row.videos["observation.images.wrist"]))) == row.length
        assert data.columns(row)["index"][0] == row.index * 8


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: m["state"]["arm"].update(end=99), "slice 0:99 does not lie"),
        (lambda m: m["video"].update(side={"original_key": "observation.images.side"}), "is no video feature"),
        (lambda m: m["annotation"].update({"human.note": {}}), "there is no column 'annotation.human.note'"),
        (lambda m: m.pop("action"), "no section 'action'"),
        (lambda m: m["state"]["arm"].update(rotation_type="degrees"), "rotation_type 'degrees' is unknown"),
    ],
)
def test_the_gr00t_validator_finds_planted_faults(tmp_path, change, found):
    export([make_run(tmp_path / "r", takes=1)], tmp_path / "d", ExportOptions("lerobot-v2.1", H264))
    modality = json.loads((tmp_path / "d/meta/modality.json").read_text("utf-8"))
    change(modality)
    write_json(tmp_path / "d/meta/modality.json", modality)
    assert any(found in problem for problem in gr00t.problems(tmp_path / "d"))


def test_v21_names_missing_files(tmp_path):
    export([make_run(tmp_path / "r", takes=1)], tmp_path / "d", ExportOptions("lerobot-v2.1", H264))
    (tmp_path / "d/videos/chunk-000/observation.images.front/episode_000000.mp4").unlink()
    assert any("episode_000000.mp4 is missing" in p for p in gr00t.problems(tmp_path / "d"))


def test_oscar_samples_are_accepted_and_come_back_as_episodes(tmp_path):
    run = make_run(tmp_path / "r", takes=2, frames=72, size=(48, 32))
    export([run], tmp_path / "d", ExportOptions("oscar"))
    samples = oscar.samples(tmp_path / "d")
    assert len(samples) == 2
    source = open_episode(run / "episode")
    for sample in samples:
        assert oscar.problems(sample) == []
        assert oscar.read_caption(sample / "caption.pickle").endswith('"quoted"')
        assert pickle.loads((sample / "caption.pickle").read_bytes())["caption"].endswith('"quoted"')  # our own bytes
        back = import_oscar(sample, tmp_path / "back" / sample.name)
        arm = [n for n in source.header.robots[0].dof_names if not n.startswith("finger")]
        mine = source.joint("arm0", "position")[:, [source.header.robots[0].dof_index(n) for n in arm]]
        assert np.array_equal(oscar.joint_angles(sample), mine)
        theirs = back.joint(back.header.robots[0].name, "position")
        assert np.abs(theirs[:, : len(arm)] - mine).max() == 0
        assert len(back) == 72


def test_oscar_export_import_export_is_identical(tmp_path):
    """A recorded episode: its arrays survive any number of trips, byte for byte."""
    run = make_run(tmp_path / "r", takes=1, frames=70, size=(48, 32))
    export([run], tmp_path / "d", ExportOptions("oscar"))
    first = oscar.samples(tmp_path / "d")[0]
    for trip in ("a", "b"):
        back = tmp_path / trip
        import_oscar(first, back / "episode", ee_link=read_json(first / "provenance.json")["ee_link"])
        export(
            [back],
            tmp_path / f"d{trip}",
            ExportOptions("oscar"),
            Selection(include_sim=True, action_source="next-state"),
        )
        second = oscar.samples(tmp_path / f"d{trip}")[0]
        with np.load(first / "episode_meta.npz") as a, np.load(second / "episode_meta.npz") as b:
            for key in ("joint_angles", "gripper_openness", "camera_intrinsic"):
                assert np.array_equal(a[key], b[key]), key
            if trip == "b":
                for key in a.files:
                    np.testing.assert_allclose(a[key], b[key], atol=1e-9)
        first = second


def test_long_episodes_become_windows_of_81():
    assert oscar.windows(81) == [(0, 81)]
    assert oscar.windows(50) == [(0, 50)]
    assert oscar.windows(200) == [(0, 81), (81, 81), (119, 81)]
    assert oscar.windows(162) == [(0, 81), (81, 81)]


def test_the_caption_reader_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("boo",))

    (tmp_path / "e").write_bytes(pickle.dumps(Evil()))
    assert oscar.read_caption(tmp_path / "e") is None
    (tmp_path / "s").write_bytes(pickle.dumps("plain text"))
    assert oscar.read_caption(tmp_path / "s") == "plain text"
    (tmp_path / "n").write_bytes(b"\x80\x04not a pickle")
    assert oscar.read_caption(tmp_path / "n") is None


@pytest.mark.skipif(not DROID.exists(), reason="golden/droid is third-party data, read in place; it is not here")
def test_the_droid_sample_comes_in_redraws_and_goes_out(tmp_path):
    run = tmp_path / "droid"
    episode = import_oscar(
        DROID, run / "episode", DROID / "panda_robotiq.urdf", ee_link="robotiq_arg2f_base_link", task="pick"
    )
    with np.load(DROID / "skeleton_reference.npz") as reference:
        wanted = reference["frames"][::30]
        for frame, drawn in zip(wanted, list(skeleton_frames(episode, "camera"))[::30], strict=True):
            assert np.array_equal(frame, drawn)
    selection = Selection(include_sim=True, action_source="next-state", window=81)
    (report,) = export([run], tmp_path / "d", ExportOptions("oscar"), selection)
    assert report.domains == {"recorded": 2}
    first, second = oscar.samples(tmp_path / "d")
    assert oscar.problems(first) == []
    assert oscar.problems(second) == ["9 frames; training keeps samples of 70 or more"]
    with np.load(DROID / "episode_meta.npz") as a, np.load(first / "episode_meta.npz") as b:
        assert np.array_equal(a["joint_angles"][:81], b["joint_angles"])
        assert np.array_equal(a["gripper_openness"][:81], b["gripper_openness"])
        np.testing.assert_allclose(a["camera_extrinsic"], b["camera_extrinsic"], atol=1e-12)
    shown = next(iter(read_video(first / "gripper_scenario.mp4")))
    assert np.abs(shown.astype(float) - wanted[0]).mean() < 2
    assert "Recorded, not simulated" in (tmp_path / "d/README.md").read_text("utf-8")


def test_physics_stands_beside_the_pixels(tmp_path):
    scenes = pytest.importorskip("scenes")
    episode = scenes.make_scene_episode(tmp_path / "r/episode", frames=30, size=(64, 48))
    write_take(tmp_path / "r", episode, 0, camera=episode.header.cameras[0].name, size=(64, 48), start=5, frames=24)
    export([tmp_path / "r"], tmp_path / "d", ExportOptions("oscar"))
    with np.load(oscar.samples(tmp_path / "d")[0] / "physics.npz", allow_pickle=False) as data:
        physics = {k: data[k] for k in data.files}
    camera = episode.header.cameras[0].name
    masks = unpack_masks(physics)
    ids = [i.id for i in episode.header.instances if i.owner == f"object:{episode.header.objects[0].name}"]
    for k in (0, 12, 23):
        assert np.array_equal(masks[k, 0], np.isin(episode.image(camera, "instances", k + 5), ids))
    assert np.array_equal(physics["T_world_object"], episode.object_poses[5:29])
    assert len(physics["contact_frame"]) == sum(len(episode.contacts(k)) for k in range(5, 29))
    samples = [s for k in range(5, 29) if (s := episode.physics(k)) is not None]
    assert np.array_equal(physics["track_time_s"], np.concatenate([s.time_s for s in samples]))
    release, first = int(physics["release_frame"][0]), int(physics["release_sample"][0])
    assert release != NEVER
    assert first >= 0
    assert physics["track_time_s"][first] > episode.time_s[5 + release] >= physics["track_time_s"][first - 1]
    height = physics["track_T_world_object"][first:, 0, 2, 3]
    assert height[-1] < height[0], "the object falls after its release"


def test_physics_of_nothing_is_empty_not_wrong(tmp_path):
    run = make_run(tmp_path / "r", takes=0)
    arrays = physics_arrays(open_episode(run / "episode"), None, 0, 4)
    assert arrays["T_world_object"].shape == (4, 1, 4, 4)
    assert "object_masks" not in arrays


@pytest.mark.parametrize("version", [2, 3])
def test_isaaclab_hdf5(tmp_path, version):
    """Samples are steps: observations and action before each, the state after it; 3 stamps its quaternions' order."""
    h5py = pytest.importorskip("h5py")
    run = make_run(tmp_path / "r", takes=2, cameras=("front", "wrist"))
    export([run], tmp_path / "d", ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(version, "My-Task-v0")))
    path = tmp_path / "d/dataset.hdf5"
    assert isaaclab.problems(path) == []
    episode = open_episode(run / "episode")
    steps = len(episode) - 1
    q = episode.joint("arm0", "position").astype(np.float32)
    with h5py.File(path) as file:
        assert list(file["mask/train"].asstr()) == ["demo_0", "demo_1"]
        assert file.attrs.get("format_version") == (1 if version == 3 else None)
        assert file["data"].attrs["quaternion_order"] == ("xyzw" if version == 3 else "wxyz")
        demo = file["data/demo_1"]
        assert demo.attrs["num_samples"] == len(demo["actions"]) == steps
        assert "success" not in demo.attrs, "nothing says whether the task was done"
        assert np.array_equal(demo["initial_state/articulation/arm0/joint_position"][()], q[:1])
        assert np.array_equal(demo["states/articulation/arm0/joint_position"][()], q[1:])
        assert np.array_equal(
            demo["joint_targets/articulation/arm0"][()], episode.joint("arm0", "target")[:-1].astype("f4")
        )
        wxyz = wxyz_from_rotation(episode.object_poses[1:, 0, :3, :3]).astype(np.float32)
        turns = wxyz[:, [1, 2, 3, 0]] if version == 3 else wxyz
        assert np.allclose(np.abs((demo["states/rigid_object/obj0/root_pose"][:, 3:] * turns).sum(1)), 1, atol=1e-6)
        for group in ("initial_state", "states"):
            for part in ("articulation/arm0", "rigid_object/obj0"):
                assert demo[f"{group}/{part}/root_velocity"].shape == (1 if group == "initial_state" else steps, 6)
            assert "joint_velocity" in demo[f"{group}/articulation/arm0"]
        assert demo["obs/front_rgb"].shape == (steps, 64, 64, 3)
        first = next(iter(read_video(run / "takes/v001/front/take.mp4")))
        assert np.array_equal(demo["obs/front_rgb"][0], first)
        assert np.array_equal(demo["obs/actions"][1:], demo["actions"][:-1])
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "My-Task-v0"
        assert demo["initial_state/rigid_object/obj0/root_pose"].shape == (1, 7)


def test_isaaclab_quaternions_keep_the_signs_that_the_simulator_had(tmp_path):
    """Isaac Lab's replay compares numbers, and q and -q are one turn: recorded signs are kept bit for bit; a recorded
    quaternion of another turn is not believed; without any the sign never jumps from frame to frame."""
    h5py = pytest.importorskip("h5py")
    run = make_run(tmp_path / "r", takes=1)
    episode = open_episode(run / "episode")
    rng = np.random.default_rng(0)
    q = wxyz_from_rotation(episode.object_poses[:, 0, :3, :3])[:, [1, 2, 3, 0]]
    held = (q * rng.choice([-1, 1], (len(q), 1))).astype(np.float32)
    write_extra(episode.path, {"root_quaternion/obj0": (QUATERNION_NAMES, held)})

    def exported(name):
        export([run], tmp_path / name, ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(3)))
        with h5py.File(tmp_path / name / "dataset.hdf5") as file:
            parts = [
                file[f"data/demo_0/{part}/rigid_object/obj0/root_pose"][:, 3:] for part in ("initial_state", "states")
            ]
        return np.concatenate(parts)

    assert np.array_equal(exported("held"), held)
    wrong = held.copy()
    wrong[3] = (0.6, 0.0, 0.8, 0.0)
    write_extra(episode.path, {"root_quaternion/obj0": (QUATERNION_NAMES, wrong)})
    mended = exported("wrong")
    assert np.allclose(mended[3], q[3], atol=1e-6)
    assert np.array_equal(np.delete(mended, 3, 0), np.delete(held, 3, 0))
    (episode.path / "extra.json").unlink()
    turn = np.linspace(0, 4 * np.pi, len(episode) * 8)
    poses = np.tile(np.eye(4), (len(turn), 1, 1))
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = (
        np.cos(turn),
        -np.sin(turn),
        np.sin(turn),
        np.cos(turn),
    )
    spun = isaaclab_env.root_quaternion(episode, "obj0", poses)
    assert np.allclose(spun[:, [2, 3]], np.stack([np.sin(turn / 2), np.cos(turn / 2)], 1), atol=1e-9)


def test_isaaclab_hdf5_of_a_stated_environment(tmp_path):
    h5py = pytest.importorskip("h5py")
    run = make_run(tmp_path / "r", takes=1)
    episode = open_episode(run / "episode")
    joints = list(reversed(episode.header.robots[0].dof_names))
    stated = {
        "env_name": "Stated-v0",
        "articulations": {"robot": {"robot": "arm0", "joints": joints}},
        "rigid_objects": {"cube": "obj0"},
        "observations": {
            "joint_pos": "joint_position",
            "cube_pos": "object_position:obj0",
            "eef": "ee_pose",
            "a": "last_action",
        },
        "actions": [{"name": "arm", "joints": joints[:2], "scale": 0.5, "offset": 0.1}],
    }
    file = tmp_path / "env.yaml"
    file.write_text(yaml.safe_dump(stated), "utf-8")
    export([run], tmp_path / "d", ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(3, "", file)))
    target = episode.joint("arm0", "target")[:-1]
    order = [episode.header.robots[0].dof_index(j) for j in joints]
    with h5py.File(tmp_path / "d/dataset.hdf5") as data:
        demo = data["data/demo_0"]
        assert json.loads(data["data"].attrs["env_args"])["env_name"] == "Stated-v0"
        assert {name for name in demo["obs"] if not name.endswith("_rgb")} == {"joint_pos", "cube_pos", "eef", "a"}
        assert np.allclose(demo["actions"][()], (target[:, order[:2]] - 0.1) / 0.5, atol=1e-6)
        assert np.array_equal(demo["obs/a"][1:], demo["actions"][:-1])
        q = episode.joint("arm0", "position").astype(np.float32)
        assert np.array_equal(demo["states/articulation/robot/joint_position"][()], q[1:, order])
        assert np.allclose(demo["obs/cube_pos"][()], episode.object_poses[:-1, 0, :3, 3], atol=1e-6)
        assert list(demo["states/rigid_object"]) == ["cube"]
    for change, message in (
        ({"rigid_objects": {"cube": "brick"}}, "unknown object of rigid object 'cube' 'brick'"),
        ({"articulations": {"robot": {"robot": "arm0", "joints": joints[1:]}}}, "differs in"),
        ({"observations": {"x": "smell"}}, "unknown observation 'smell'"),
        ({"actions": [{"name": "arm", "joints": ["nose"]}]}, "unknown joint of action term 'arm' 'nose'"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ):
        file.write_text(yaml.safe_dump({**stated, **change}), "utf-8")
        with pytest.raises(RetakeError, match=re.escape(message)):
            export([run], tmp_path / "no", ExportOptions("hdf5-isaaclab", isaaclab=LabTarget(3, "", file)))
        assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("speed", [0.0, 0.3, 2.0])
def test_velocities_that_were_not_recorded_are_differences_of_poses(speed):
    """A body that turns about a fixed axis and moves along a line: the differences are the velocities it had."""
    t = np.arange(20) / 20
    axis = np.array([0.6, 0.0, 0.8])
    poses = np.zeros((20, 4, 4))
    poses[:, :3, :3] = axis_angle(axis, speed * t)
    poses[:, :3, 3] = t[:, None] * [0.1, -0.2, 0.3]
    poses[:, 3, 3] = 1
    found = isaaclab_env.velocity_of(poses, 20.0)
    assert np.allclose(found[:, :3], [0.1, -0.2, 0.3], atol=1e-9)
    assert np.allclose(found[:, 3:], axis * speed, atol=1e-6)


def test_urdf_gives_back_the_same_kinematics(tmp_path):
    rng = np.random.default_rng(3)
    episode = open_episode(make_run(tmp_path / "r", takes=0) / "episode")
    robot = episode.header.robots[0]
    (tmp_path / "robot.urdf").write_text(robot_urdf(robot), "utf-8")
    back = read_urdf(tmp_path / "robot.urdf", ee_link=robot.grippers[0].ee_link)
    q = rng.normal(size=(5, len(robot.dof_names)))
    ours = robot.forward_kinematics(q, np.eye(4))
    theirs = back.forward_kinematics(q[:, [robot.dof_index(n) for n in back.dof_names]], np.eye(4))
    for link in robot.links:
        np.testing.assert_allclose(
            ours[:, robot.link_index(link.name)], theirs[:, back.link_index(link.name)], atol=1e-9
        )


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux's scheduling policies")
def test_encoding_leaves_the_process_its_scheduling(tmp_path):
    """SVT-AV1 makes its caller and its threads real-time as root: they would starve the simulator beside them."""

    def policies() -> set[int]:
        return {os.sched_getscheduler(int(t.name)) for t in Path("/proc/self/task").iterdir()}

    seen, before = [], policies()

    def frames():
        for level in range(4):
            seen.append(policies())
            yield np.full((64, 64, 3), 50 * level, np.uint8)

    encode(tmp_path / "v.mp4", frames(), 10, 4, VideoOptions())
    assert all(found <= before for found in (*seen, policies()))


def test_what_nothing_commands_is_state_and_no_action(tmp_path):
    h5py = pytest.importorskip("h5py")
    header = make_header(0)
    (robot,) = header.robots
    passive = robot.dof_names[1]
    joints = tuple(replace(j, driven=j.name != passive) for j in robot.joints)
    header = replace(header, robots=(replace(robot, joints=joints),))
    assert RobotSpec.from_json(header.robots[0].to_json()).driven == header.robots[0].driven
    schema = build_schema(header, {})
    state, action = schema.vectors[STATE].names, schema.vectors[ACTION].names
    assert f"{passive}.pos" in state
    assert action == tuple(name for name in state if name != f"{passive}.pos")
    for part in schema.action_slices:
        assert set(action[part.start : part.end]) <= {n for s in schema.slices for n in state[s.start : s.end]}
    assert Schema.from_json(json.loads(json.dumps(schema.to_json())), "here") == schema
    for change, message in (
        ({"fps": "15"}, "fps needs a whole number; found '15'"),
        ({"slices": [{}]}, "name is missing"),
    ):
        with pytest.raises(ExportError, match=rf"^here: .*{message}"):
            Schema.from_json({**schema.to_json(), **change}, "here")
    parts = gr00t.modality(schema)
    assert max(p["end"] for p in parts["action"].values()) == len(action) == len(state) - 1

    run = make_run(tmp_path / "r", takes=1, header={"robots": header.robots})
    episode = open_episode(run / "episode")
    kept = [state.index(name) for name in action]
    assert np.array_equal(actions(episode, "next-state")[:-1], states(episode)[1:, kept])
    export([run], tmp_path / "d", ExportOptions("hdf5-isaaclab"))
    assert isaaclab.problems(tmp_path / "d/dataset.hdf5") == []
    with h5py.File(tmp_path / "d/dataset.hdf5") as file:
        assert np.array_equal(file["data/demo_0/actions"][()], actions(episode)[:-1].astype(np.float32))
        assert np.array_equal(file["data/demo_0/obs/actions"][0], states(episode)[0, kept].astype(np.float32))


def test_files_end_where_lerobot_s_own_do() -> None:
    """DEFAULT_DATA_FILE_SIZE_IN_MB and DEFAULT_VIDEO_FILE_SIZE_IN_MB of lerobot's dataset utilities, v3.0."""
    assert Limits() == Limits(data=100 << 20, video=200 << 20)
