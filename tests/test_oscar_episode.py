# SPDX-License-Identifier: Apache-2.0
"""OSCAR's episode layout in and out: the public sample pixel for pixel, round trips, refusals."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from retake.core.episode import Episode
from retake.core.errors import Cancelled, EpisodeError, InputError, RetakeError
from retake.core.geometry import axis_angle
from retake.core.importers.oscar import import_oscar
from retake.core.oscar_episode import export_oscar, read_oscar_meta, write_oscar
from retake.core.skeleton import arms_of, skeleton_frames
from retake.core.urdf import read_urdf
from retake.core.video import read_video, video_info, write_video

DROID = Path(__file__).parents[2] / "shared" / "golden" / "droid"
URDF = """<robot name="two"><link name="base"/><link name="upper"/><link name="lower"/><link name="flange"/><link name="hand"/>
<joint name="j1" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 0.3"/><axis xyz="0 0 1"/>
<limit lower="-3" upper="3"/></joint>
<joint name="j2" type="revolute"><parent link="upper"/><child link="lower"/><origin xyz="0.2 0 0"/><axis xyz="0 1 0"/>
<limit lower="-3" upper="3"/></joint>
<joint name="f" type="fixed"><parent link="lower"/><child link="flange"/><origin xyz="0.3 0 0" rpy="0 1.57 0"/></joint>
<joint name="g" type="fixed"><parent link="flange"/><child link="hand"/></joint></robot>"""


def make_source(folder: Path, frames: int = 5, per_frame: bool = False, **changed) -> Path:
    """A small episode of a two-joint arm in OSCAR's layout; `changed` arrays replace good ones (None removes)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "two.urdf").write_text(URDF)
    rng = np.random.default_rng(0)
    write_video(folder / "rgb.mp4", list(rng.integers(0, 255, (frames, 48, 64, 3), np.uint8)), 15)
    q = rng.uniform(-0.5, 0.5, (frames, 2))
    robot = read_urdf(folder / "two.urdf", ee_link="hand")
    ee = robot.forward_kinematics(q, np.eye(4))[:, robot.link_index("hand")]
    look = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0.3], [1, 0, 0, 1.5], [0, 0, 0, 1]])
    K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    arrays = {
        "joint_angles": q,
        "ee_pose": ee,
        "gripper_openness": rng.uniform(0, 1, frames),
        "camera_intrinsic": np.tile(K, (frames, 1, 1)) if per_frame else K,
        "camera_extrinsic": np.stack([look + 0.01 * t * np.eye(4, k=3) for t in range(frames)]) if per_frame else look,
        "camera_is_per_frame": np.array(per_frame),
    }
    arrays = {key: value for key, value in {**arrays, **changed}.items() if value is not None}
    np.savez(folder / "episode_meta.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def droid(tmp_path_factory) -> Episode:
    if not DROID.exists():
        pytest.skip("the public DROID sample is third-party data and not beside this checkout")
    return import_oscar(DROID, tmp_path_factory.mktemp("droid") / "episode", task="tidy the table")


@pytest.mark.parity
def test_the_public_sample_comes_in_and_renders_to_its_reference(droid):
    assert (len(droid), droid.header.fps, droid.header.motion_source) == (90, 15, "recorded")
    assert droid.header.cameras[0].static
    with np.load(DROID / "skeleton_reference.npz") as ref:
        frames, links = ref["frames"], ref["link_positions"]
    (arm,) = arms_of(droid)
    assert arm.track.link_positions.shape == (90, 10, 3)
    assert np.abs(arm.track.link_positions - links).max() < 1e-6
    wrong = [t for t, frame in enumerate(skeleton_frames(droid, "camera", reuse=True)) if (frame != frames[t]).any()]
    assert wrong == []


@pytest.mark.parity
def test_the_rotation_of_the_samples_ee_pose_is_not_drawn(droid):
    """Negative control: drawn from ee_pose instead of the link pose, the reference would not be met."""
    least, largest = droid.header.settings["import"]["ee_pose_rotation_gap_deg"]
    assert least > 10
    assert largest > 100
    (arm,) = arms_of(droid)
    stated = read_oscar_meta(DROID / "episode_meta.npz").ee_pose
    assert np.abs(arm.track.ee_pose[:, :3, 3] - stated[:, :3, 3]).max() < 1e-6
    assert np.abs(arm.track.ee_pose[:, :3, :3] - stated[:, :3, :3]).max() > 0.5


def test_pixels_of_the_video_are_kept_losslessly(tmp_path):
    episode = import_oscar(make_source(tmp_path / "in"), tmp_path / "out", ee_link="hand")
    for index, frame in enumerate(read_video(tmp_path / "in" / "rgb.mp4")):
        assert np.array_equal(episode.image("camera", "rgb", index), frame)


@pytest.mark.parametrize("per_frame", [False, True])
def test_in_and_out_again(tmp_path, per_frame):
    source = make_source(tmp_path / "in", per_frame=per_frame)
    (source / "caption.json").write_text(json.dumps({"caption": "wave “hello”"}), "utf-8")
    episode = import_oscar(source, tmp_path / "ep", ee_link="hand")
    assert episode.header.task == "wave “hello”"
    assert episode.header.cameras[0].static is not per_frame
    out = export_oscar(episode, "camera", tmp_path / "out")
    first, second = read_oscar_meta(source / "episode_meta.npz"), read_oscar_meta(out / "episode_meta.npz")
    for name in ("joint_angles", "ee_pose", "gripper_openness", "camera_intrinsic", "camera_extrinsic"):
        assert np.allclose(getattr(first, name), getattr(second, name), atol=1e-12), name
    assert second.camera_is_per_frame is per_frame
    assert json.loads((out / "caption.json").read_text("utf-8"))["caption"] == "wave “hello”"
    assert pickle.loads((out / "caption.pickle").read_bytes()) == {"caption": "wave “hello”"}  # our own bytes
    for name in ("rgb.mp4", "gripper_scenario.mp4"):
        assert (video_info(out / name).size, video_info(out / name).frames) == ((64, 48), 5)
    again = import_oscar(out, tmp_path / "again", source / "two.urdf", ee_link="hand")
    for a, b in zip(skeleton_frames(episode, "camera"), skeleton_frames(again, "camera"), strict=True):
        assert np.array_equal(a, b)


def test_a_window_with_other_pictures(tmp_path):
    episode = import_oscar(make_source(tmp_path / "in"), tmp_path / "ep", ee_link="hand")
    pictures = [np.full((48, 64, 3), 200, np.uint8)] * 3
    out = export_oscar(episode, "camera", tmp_path / "out", start=1, length=3, rgb=pictures, caption="a bun")
    assert len(read_oscar_meta(out / "episode_meta.npz")) == 3
    assert np.array_equal(read_oscar_meta(out / "episode_meta.npz").joint_angles, episode.joint("two", "position")[1:4])
    assert abs(int(next(read_video(out / "rgb.mp4")).mean()) - 200) < 3
    steps: list[tuple[int, int, str]] = []
    export_oscar(episode, "camera", tmp_path / "told", start=1, length=3, progress=lambda *step: steps.append(step))
    assert steps == [(k, 6, "export") for k in range(1, 7)], "pictures first, then the control video"
    with pytest.raises(EpisodeError, match="2 frames"):
        export_oscar(episode, "camera", tmp_path / "short", length=3, rgb=pictures[:2])
    for start, length in ((-1, None), (0, 6), (5, None), (2, 0)):
        with pytest.raises(EpisodeError, match="were asked"):
            export_oscar(episode, "camera", tmp_path / "x", start=start, length=length)


def test_base_link_cuts_the_chain(tmp_path):
    source = make_source(tmp_path / "in")
    with np.load(source / "episode_meta.npz") as data:
        arrays = dict(data)
    robot = read_urdf(source / "two.urdf", ee_link="hand")
    poses = robot.forward_kinematics(arrays["joint_angles"], np.eye(4))
    arrays["ee_pose"] = np.linalg.inv(poses[:, 1]) @ poses[:, -1]
    arrays["joint_angles"] = arrays["joint_angles"][:, 1:]
    np.savez(source / "episode_meta.npz", **arrays)
    episode = import_oscar(source, tmp_path / "ep", ee_link="hand", base_link="upper")
    assert arms_of(episode)[0].chain == ("hand", "flange", "lower", "upper")


def test_same_import_again_is_a_no_op_and_another_is_refused(tmp_path):
    source = make_source(tmp_path / "in")
    first = import_oscar(source, tmp_path / "ep", ee_link="hand")
    assert import_oscar(source, tmp_path / "ep", ee_link="hand").content_sha256 == first.content_sha256
    with pytest.raises(EpisodeError, match="another episode"):
        import_oscar(source, tmp_path / "ep", ee_link="flange")
    export_oscar(first, "camera", tmp_path / "out")
    with pytest.raises(EpisodeError, match="already holds"):
        export_oscar(first, "camera", tmp_path / "out")


def test_cancelled_import_leaves_nothing(tmp_path):
    def cancel() -> None:
        raise Cancelled("asked to stop")

    with pytest.raises(Cancelled):
        import_oscar(make_source(tmp_path / "in"), tmp_path / "ep", ee_link="hand", cancel=cancel)
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def nan_at(array: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    out = array.copy()
    out[place] = np.nan
    return out


POSES = np.tile(np.eye(4), (5, 1, 1))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"joint_angles": None}, "lacks joint_angles"),
        ({"camera_is_per_frame": None, "ee_pose": None}, "lacks ee_pose, camera_is_per_frame"),
        ({"joint_angles": np.zeros((0, 2))}, r"joint_angles is .*\(0, 2\).*at least one frame"),
        ({"joint_angles": np.zeros(5)}, "joint_angles is"),
        ({"joint_angles": np.zeros((5, 3))}, "joint_angles has 3 joints.*j1, j2"),
        ({"joint_angles": nan_at(np.zeros((5, 2)), (3, 1))}, r"joint_angles\[3, 1\] is nan"),
        ({"joint_angles": np.array([["a", "b"]] * 5)}, "real numbers"),
        ({"joint_angles": np.array([[None, None]] * 5)}, "npz of plain arrays"),
        ({"ee_pose": POSES[:4]}, "ee_pose is"),
        ({"ee_pose": POSES}, "up to .* m away from link 'hand'"),
        ({"gripper_openness": np.zeros((5, 1))}, "gripper_openness is"),
        ({"camera_intrinsic": np.zeros((5, 3, 3))}, r"camera_intrinsic is .*expected \(3, 3\)"),
        ({"camera_extrinsic": POSES}, r"camera_extrinsic is .*camera_is_per_frame = False"),
        ({"camera_extrinsic": np.eye(4), "camera_is_per_frame": np.array(True)}, "camera_is_per_frame = True"),
        ({"camera_extrinsic": 2 * np.eye(4)}, "no rigid transform"),
        ({"camera_is_per_frame": np.zeros(5, bool)}, "one bool"),
        ({"camera_intrinsic": np.zeros((3, 3))}, "K"),
    ],
)  # fmt: skip
def test_bad_arrays_have_one_clear_error_and_leave_nothing(tmp_path, changed, words):
    source = make_source(tmp_path / "in", **changed)
    with pytest.raises(RetakeError, match=words):
        import_oscar(source, tmp_path / "ep", ee_link="hand")
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_a_video_longer_than_the_arrays_is_refused_a_shorter_one_decides(tmp_path):
    source = make_source(tmp_path / "in", frames=5)
    frames = [np.zeros((48, 64, 3), np.uint8)] * 6
    write_video(source / "rgb.mp4", frames, 15)
    with pytest.raises(EpisodeError, match=r"6 frames.*describes 5"):
        import_oscar(source, tmp_path / "ep", ee_link="hand")
    write_video(source / "rgb.mp4", frames[:3], 15)
    assert len(import_oscar(source, tmp_path / "ep", ee_link="hand")) == 3


@pytest.mark.parametrize(
    ("victim", "words"), [("rgb.mp4", "rgb.mp4"), ("episode_meta.npz", "never guessed"), ("two.urdf", "0 URDF")]
)
def test_missing_and_foreign_files(tmp_path, victim, words):
    source = make_source(tmp_path / "in")
    content = (source / victim).read_bytes()
    (source / victim).unlink()
    with pytest.raises(EpisodeError, match=words):
        import_oscar(source, tmp_path / "ep", ee_link="hand")
    for junk in (b"", content[: len(content) // 2], b"junk" * 100):
        (source / victim).write_bytes(junk)
        with pytest.raises(RetakeError):
            import_oscar(source, tmp_path / "ep", ee_link="hand")
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_end_effector_must_be_known(tmp_path):
    source = make_source(tmp_path / "in")
    with pytest.raises(EpisodeError, match=r"one end effector with fingers is needed, found: flange \(tool\).*ee_link"):
        import_oscar(source, tmp_path / "ep")
    with pytest.raises(InputError, match=r"unknown link.*valid"):
        import_oscar(source, tmp_path / "ep", ee_link="tcp")
    with pytest.raises(EpisodeError, match=r"unknown base link.*valid"):
        import_oscar(source, tmp_path / "ep", ee_link="lower", base_link="hand")
    with pytest.raises(EpisodeError, match="not a folder"):
        import_oscar(tmp_path / "none", tmp_path / "ep")


def test_a_pickled_caption_is_never_read(tmp_path):
    source = make_source(tmp_path / "in")

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (source / "caption.pickle").write_bytes(pickle.dumps(Bomb()))
    assert import_oscar(source, tmp_path / "ep", ee_link="hand").header.task == ""
    assert not (tmp_path / "executed").exists()


def test_exported_ee_pose_is_the_drawn_one(tmp_path):
    """The trap of the public sample is not repeated: rotation included, ee_pose is what the arrows show."""
    turned = read_urdf(make_source(tmp_path / "in") / "two.urdf", ee_link="hand")
    assert np.allclose(axis_angle(np.array([0, 1.0, 0]), np.array(1.57)), turned.joints[2].T_parent_joint[:3, :3])
    episode = import_oscar(tmp_path / "in", tmp_path / "ep", ee_link="hand")
    out = export_oscar(episode, "camera", tmp_path / "out")
    assert np.allclose(read_oscar_meta(out / "episode_meta.npz").ee_pose, arms_of(episode)[0].track.ee_pose)


def test_a_folder_with_arrays_is_a_whole_one(tmp_path):
    frames = [np.zeros((48, 64, 3), np.uint8)] * 2
    with pytest.raises(EpisodeError, match=r"rgb has 2 frames of \(64, 48\); expected 3 of \(64, 48\)"):
        write_oscar(tmp_path, {}, frames, frames, size=(64, 48), length=3, fps=15, caption="c", said={})
    assert list(tmp_path.iterdir()) == []
    write_oscar(
        tmp_path, {"a": np.ones(2)}, frames, frames, size=(64, 48), length=2, fps=15, caption="c", said={"camera": "k"}
    )
    assert json.loads((tmp_path / "caption.json").read_text()) == {"caption": "c", "camera": "k"}
    # Pickle's protocol 4 is what every Python reads that OSCAR's own tools run on.
    assert (tmp_path / "caption.pickle").read_bytes()[:2] == b"\x80\x04"
    assert np.load(tmp_path / "episode_meta.npz")["a"].tolist() == [1, 1]
    assert video_info(tmp_path / "gripper_scenario.mp4").frames == 2
