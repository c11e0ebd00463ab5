# SPDX-License-Identifier: Apache-2.0
"""Parts of the ways in: which rows, rates, orders and names are taken from recordings of a few numbers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
from strategies import random_robot

from retake.core.camera import Camera
from retake.core.errors import EpisodeError, InputError
from retake.core.export.reader import Dataset, Row
from retake.core.export.records import Vector
from retake.core.geometry import axis_angle
from retake.core.importers import episode_recorder, isaaclab, judged
from retake.core.importers.isaaclab import before_each_step, choose_demo, env_args, quaternion_order
from retake.core.importers.lerobot_vectors import _named
from retake.core.importers.recorded import (
    Missing,
    folder_name,
    hdf5_recording,
    is_static,
    joints_from_links,
    name_and_path,
    poses_of,
    text_of,
)
from retake.core.takes.base import Take

FILE = Path("demos.hdf5")


class Group(dict):
    """A group of an HDF5 file, as far as it is asked."""

    def __init__(self, name: str = "/data/demo_0", attrs=(), **items) -> None:
        super().__init__(items)
        self.name, self.attrs = name, dict(attrs)


def demos(**success) -> Group:
    return Group(data=Group(**{n: Group(n, {} if s is None else {"success": s}) for n, s in success.items()}))


def test_of_several_demonstrations_the_first_that_did_not_fail_is_taken():
    file = demos(demo_10=True, demo_2=None, demo_1=False, other=True)
    assert choose_demo(file, "", FILE).name == "demo_2"
    assert choose_demo(file, "", FILE, failed=True).name == "demo_1"
    assert choose_demo(file, "demo_1", FILE, failed=True).name == "demo_1"
    assert choose_demo(file, "other", FILE).name == "other"
    assert choose_demo(demos(zeta=True, demo_3=True), "", FILE).name == "demo_3", "what has a number comes first"
    with pytest.raises(
        EpisodeError, match=r"demo_1 failed .*imports it all the same, demo_2, demo_10, other did not fail"
    ):
        choose_demo(file, "demo_1", FILE)
    with pytest.raises(EpisodeError, match=r"demo_0, demo_1 failed .*imports them all the same$"):
        choose_demo(demos(demo_0=False, demo_1=False), "", FILE)
    with pytest.raises(EpisodeError, match="has no demonstration 'demo_7'; it has: demo_1, demo_2, demo_10, other"):
        choose_demo(file, "demo_7", FILE)
    with pytest.raises(EpisodeError, match=r"none .no group"):
        choose_demo(Group(), "", FILE)


def test_what_a_file_says_of_itself_is_believed_unless_told_otherwise():
    for attrs, order in (({}, "wxyz"), ({"format_version": 0}, "wxyz"), ({"format_version": 1}, "xyzw")):
        assert quaternion_order(Group(attrs=attrs)) == order
        assert quaternion_order(Group(attrs=attrs), "wxyz") == "wxyz"
    assert env_args(Group(data=Group(attrs={"env_args": b'{"a": 1}'})), FILE) == {"a": 1}
    assert env_args(Group(data=Group()), FILE) == {}
    for text, words in (("[1]", "is a list"), ("{", "is no JSON")):
        with pytest.raises(EpisodeError, match=words):
            env_args(Group(data=Group(attrs={"env_args": text})), FILE)


def demo(after, actions=3, initial=None, **more) -> Group:
    first = {} if initial is None else {"initial_state/q": np.array(initial)}
    return Group(**{"states/q": np.array(after), "actions": np.zeros((actions, 2)), **first, **more})


def test_the_state_before_a_step_is_the_one_after_the_last():
    rows, first = before_each_step(demo([[1], [2], [3]], initial=[[7], [8]]), "q", FILE)
    assert (rows.tolist(), first) == ([[7], [1], [2]], 0)
    rows, first = before_each_step(demo([[1], [2], [3]]), "q", FILE)
    assert (rows.tolist(), first) == ([[1], [2]], 1), "nothing is known of the first"
    assert before_each_step(demo([[1]], 1, [[7]]), "q", FILE)[0].tolist() == [[7]]
    assert before_each_step(Group(**{"states/q": np.array([[1], [2]])}), "q", FILE)[0].tolist() == [[1]]
    with pytest.raises(EpisodeError, match="no initial_state and one step only"):
        before_each_step(demo([[1]], 1), "q", FILE)
    with pytest.raises(EpisodeError, match="has 3 states/q for 4 actions"):
        before_each_step(demo([[1], [2], [3]], 4), "q", FILE)
    with pytest.raises(EpisodeError, match="has no states/x"):
        before_each_step(demo([[1]]), "x", FILE)


def test_actions_and_bodies_go_along_from_the_first_frame_on():
    pose = np.array([[0, 0, 0, 1, 2, 3, 4.0], [0, 0, 0, 5, 6, 7, 8], [0, 0, 0, 9, 9, 9, 9]])
    actions = np.arange(6.0).reshape(3, 2)
    velocity = {"initial_state/b/root_velocity": np.ones((1, 6)), "states/b/root_velocity": np.ones((3, 6))}
    made = Group(actions=actions, **{"states/b/root_pose": pose}, **velocity)
    for order, wanted in (("xyzw", [1, 2, 3, 4]), ("wxyz", [2, 3, 4, 1])):
        found = isaaclab._extra(made, {"cube": "b"}, 1, 2, FILE, order)
        names, rows = found[isaaclab.ACTION]
        assert (names, rows.tolist()) == (("action_0", "action_1"), [[2, 3], [4, 5]])
        assert found[isaaclab.ROOT_QUATERNION + "cube"][1][0].tolist() == wanted
        assert isaaclab.ROOT_VELOCITY + "cube" not in found, "its rows begin with another step"
    assert isaaclab.ROOT_VELOCITY + "cube" in isaaclab._extra(made, {"cube": "b"}, 0, 2, FILE, "xyzw")
    assert isaaclab._extra(Group(actions=np.zeros((3, 0))), {}, 0, 3, FILE, "xyzw") == {}
    assert isaaclab._extra(Group(actions=np.zeros(3)), {}, 0, 3, FILE, "xyzw") == {}


ARM = random_robot(np.random.default_rng(0), "arm", 2)
JOINTS = ("joint0", "joint1", "finger_left", "finger_right")


def test_targets_are_the_columns_that_are_named():
    q = np.arange(8.0).reshape(2, 4)
    extra = {isaaclab.ACTION: (("a", "b", "c"), np.array([[10, 20, 30], [40, 50, 60]], np.float32))}
    found = isaaclab._targets(extra, q, ("joint1", "-", "joint0"), ARM, FILE)
    assert found.tolist() == [[30, 10, 2, 3], [60, 40, 6, 7]]
    assert isaaclab._targets(extra, q, (), ARM, FILE) is None
    for named, words in (
        (("nobody",), "joint in --targets"),
        (("-",) * 4, "names 4 columns; demos.hdf5 has 3 numbers"),
    ):
        with pytest.raises(InputError, match=words):
            isaaclab._targets(extra, q, named, ARM, FILE)
    with pytest.raises(InputError, match="has 0 numbers per action"):
        isaaclab._targets({}, q, ("joint0",), ARM, FILE)
    back = isaaclab._reorder(np.array([[1, 2, 3, 4.0]]), JOINTS[::-1], ARM, FILE)
    assert back.tolist() == [[4, 3, 2, 1]]
    with pytest.raises(InputError, match="has 4 joints per step; --joints names 3"):
        isaaclab._reorder(np.zeros((1, 4)), JOINTS[:3], ARM, FILE)
    with pytest.raises(InputError, match="--joints lacks finger_right of robot 'arm'"):
        isaaclab._reorder(np.zeros((1, 3)), JOINTS[:3], ARM, FILE)


def test_the_rate_is_asked_for_where_the_file_does_not_say():
    def rate(fps=0.0, **timing):
        missing = Missing(FILE, "x")
        return (*isaaclab._rate({"sim_args": timing} if timing else {}, fps, missing), len(missing.items))

    assert rate(dt=0.005, decimation=4) == (pytest.approx(50), 0.005, 0)
    assert rate(25.0, dt=0.005, decimation=4) == (25, 0.005, 0)
    assert rate(25.0) == (25, 0.04, 0)
    for timing in ({}, {"dt": 0.005}, {"decimation": 4}, {"dt": None, "decimation": None}):
        assert rate(**timing) == (0, 0, 1)
    missing = Missing(FILE, "x")
    state = Group(attrs={"joint_names": [b"a", "b"]})
    assert isaaclab._joint_names(state, (), missing) == ("a", "b")
    assert isaaclab._joint_names(state, ("c",), missing) == ("c",)
    assert isaaclab._joint_names({}, (), missing) == ()
    missing.check()
    assert isaaclab._joint_names(Group(joint_position=np.zeros((5, 3))), (), missing) == ()
    with pytest.raises(EpisodeError, match=r"Missing:\n  - names of the 3 joints: --joints"):
        missing.check()
    assert isaaclab._joint_names(Group(other=np.zeros(3)), (), missing) == ()
    assert missing.items[-1].startswith("names of the 0 joints"), "positions that are not there name none"
    assert isaaclab._names(" a, b,,c ") == ("a", "b", "c")


def test_pictures_are_those_of_the_frames_that_have_a_state(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(
        '{"K": [[5, 0, 2], [0, 5, 1], [0, 0, 1]], "T_camera_world": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}'
    )
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 4, 4), np.uint8)
    made = Group(**{"obs/cam": images, "obs": {"cam": images, "q": np.zeros(3)}})
    name, views, pictures = isaaclab._observed_camera(made, ("cam", path), 1, 2, FILE)
    assert (name, len(views), views[0].size) == ("cam", 2, (4, 2))
    assert [p.shape for p in pictures] == [(2, 4, 3)] * 2
    assert [int(p.max()) for p in pictures] == [1, 2]
    with pytest.raises(EpisodeError, match="has 3 images for 4 steps"):
        isaaclab._observed_camera(made, ("cam", path), 1, 3, FILE)
    for wrong in (images.astype(np.float32), images[..., :2], images[0], None):
        made["obs/cam"] = wrong
        with pytest.raises(EpisodeError, match="no uint8 images obs/cam; it has: cam"):
            isaaclab._observed_camera(made, ("cam", path), 1, 2, FILE)


def test_a_session_s_clock_is_even_to_a_millisecond():
    def rate(times, frames=None):
        return episode_recorder._rate(np.array(times, float), len(times) if frames is None else frames, FILE)

    assert rate([5, 5.1, 5.2, 5.3]) == pytest.approx(10)
    assert rate([0, 0.1009, 0.2, 0.3]) == pytest.approx(10)
    assert rate([0, 0.5]) == 2
    with pytest.raises(EpisodeError, match=r"frame 1 is 0\.0011 s from its place among 4 frames at 10\.000 per second"):
        rate([0, 0.1011, 0.2, 0.3])
    with pytest.raises(EpisodeError, match=r"the time of frame 2 is 0\.1 s, not after"):
        rate([0, 0.1, 0.1, 0.3])
    with pytest.raises(EpisodeError, match="the time of frame 2 is nan s"):
        rate([0, 0.1, np.nan, 0.3])
    for times, frames in (([0, 1], 3), ([0], 1)):
        with pytest.raises(EpisodeError, match=f"has {len(times)} times for {frames} frames"):
            rate(times, frames)


def test_poses_are_positions_and_quaternions_of_one_shape():
    data = Group("t", p=np.array([[1, 2, 3.0]]), q=np.array([[np.sqrt(0.5), 0, 0, np.sqrt(0.5)]]))
    found = episode_recorder._poses(data, ("p", "q"), 2, FILE)
    assert found[0] == pytest.approx(np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1.0]]))
    for change in ({"p": np.zeros((2, 3))}, {"p": np.zeros((1, 2))}, {"q": np.zeros((1, 3))}, {"p": np.zeros(3)}):
        with pytest.raises(EpisodeError, match="they do not fit"):
            episode_recorder._poses(Group("t", **{**data, **change}), ("p", "q"), 2, FILE)
    rows = np.array([[1, 2, 3, np.sqrt(0.5), 0, 0, np.sqrt(0.5), 99]])
    assert poses_of(rows, "wxyz")[0] == pytest.approx(found[0])
    assert poses_of(rows[:, [0, 1, 2, 4, 5, 6, 3]], "xyzw")[0] == pytest.approx(found[0])
    assert episode_recorder._size("640x480") == (640, 480)
    for text in ("640", "x480", "640x-1", "ax4"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected WIDTHxHEIGHT"):
            episode_recorder._size(text)


def test_a_joint_that_turns_on_and_on_is_unwound():
    q = np.zeros((60, 4))
    q[:, 0], q[:, 2] = np.linspace(0, 9, 60), np.linspace(0, 0.03, 60)
    base = np.tile(np.eye(4), (60, 1, 1))
    base[:, :3, :3] = axis_angle(np.array([0, 0, 1.0]), np.linspace(0, 2, 60))
    assert joints_from_links(ARM, ARM.forward_kinematics(q, base)) == pytest.approx(q, abs=1e-9)


def test_small_words_of_recordings(tmp_path):
    assert [folder_name(n) for n in ("/World/Cube 1", "a.b-c_d", "_.x.-", "//", "é")] == [
        "World_Cube_1", "a.b-c_d", "x", "unnamed", "é",
    ]  # fmt: skip
    assert (text_of(b"\xc3\xa9"), text_of(3)) == ("é", "3")
    assert name_and_path("a=b=c") == ("a", Path("b=c"))
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=FILE"):
        name_and_path("a")
    still, moved = (Camera(np.diag([5.0, 5, 1]), T, (4, 4)) for T in (np.eye(4), np.diag([-1.0, -1, 1, 1])))
    assert is_static([still])
    assert is_static([still, still])
    assert not is_static([still, still, moved])
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        file["a"] = 1
    for ask, words in ((lambda f: f["b"], "damaged, or no recording of X: "), (lambda f: {}["k"], "of X: it has no k$"),
                       (lambda f: int("x"), "of X: invalid literal")):  # fmt: skip
        with pytest.raises(EpisodeError, match=words), hdf5_recording(tmp_path / "f.hdf5", "X") as file:
            ask(file)


def test_entries_of_several_features_bear_their_feature_where_they_are_numbered():
    data = Dataset.__new__(Dataset)
    data.root = Path("d")
    a, b = ("observation.arm", Vector("float32", ("0", "1"))), ("observation.hand", Vector("float32", ("open",)))
    one = ("observation.height", Vector("float32"))
    assert _named([a], (), data) == ("0", "1")
    assert _named([a, b, one], (), data) == ("arm.0", "arm.1", "open", "observation.height")
    assert _named([a, b], ("x", "-", "-"), data) == ("x", "unused.1", "unused.2")
    with pytest.raises(
        InputError, match=r"--entries names 1 entries; observation\.arm \+ observation\.hand of d has 3: arm\.0"
    ):
        _named([a, b], ("x",), data)
    with pytest.raises(InputError, match=r"two entries of the state share a name \(x, x\)"):
        _named([a], ("x", "x"), data)


def test_pictures_of_another_rate_are_the_nearest_in_time():
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert judged._at_rate(frames, 30.0, 30.0, "d") is frames
    assert judged._at_rate(frames, 30.0, 15.0, "d")[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8, 10]
    assert judged._at_rate(frames[:3], 9.0, 15.0, "d")[:, 0, 0, 0].tolist() == [0, 1, 1, 2, 2]
    with pytest.raises(InputError, match=r"d has 8 pictures per second, the episode 15: .*valid: 9 or more"):
        judged._at_rate(frames, 8.0, 15.0, "d")


def test_a_take_is_found_by_its_name_and_camera():
    takes = [
        Take(i, FILE, "", "v", "b", "1", "generated", 0, "", 1, 15.0, (4, 4), {}, camera=c)
        for i, c in (("t1", "front"), ("t2", "hand"), ("t1", "hand"))
    ]

    def of(camera: str, **provenance: str) -> Take | None:
        return judged._take_of(takes, Row(0, 1, "", FILE, 0, {}, provenance, None), camera)

    assert of("hand", take_id="t1+t2") is takes[1]
    assert of("front", take_id="t1+t2") is takes[0]
    assert of("front", take_id="t2") is of("front") is None


def test_what_of_a_copy_may_be_written_to_is_no_link(tmp_path):
    for folder in ("meta", "data"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text("x")
        judged._link(str(tmp_path / folder / "a"), str(tmp_path / folder / "b"))
        assert (tmp_path / folder / "b").read_text() == "x"
        assert os.path.samefile(tmp_path / folder / "a", tmp_path / folder / "b") == (folder == "data")
