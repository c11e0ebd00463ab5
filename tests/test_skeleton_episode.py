# SPDX-License-Identifier: Apache-2.0
"""From an Episode to a skeleton folder: topology, several arms, overrides, resume after kill, damage, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skeleton_oracle as oracle
from hypothesis import given, settings
from strategies import random_frame, random_header, seeds

from retake.core.episode import CameraSpec, Episode, EpisodeHeader, EpisodeWriter
from retake.core.errors import Cancelled, EpisodeError, InputError, SkeletonError
from retake.core.geometry import axis_angle, inverse
from retake.core.skeleton import (
    MODEL_SIZE,
    RobotOverride,
    apply_overrides,
    arms_of,
    load_overrides,
    make_skeleton,
    open_skeleton,
    render_skeleton,
    skeleton_frames,
)
from retake.core.skeleton.overrides import GripperOverride
from retake.core.video import read_video, video_info

KILLS = 30 if os.environ.get("RETAKE_FULL") == "1" else 4
NO_OVERRIDES: tuple[RobotOverride, ...] = ()


def make_episode(path: Path, *, seed: int = 0, robots: int = 1, frames: int = 4, size=(64, 48), **header) -> Episode:
    """Random robots seen by a moving camera that looks at them from 3 m; every pose is rigid and arbitrary."""
    rng = np.random.default_rng(seed)
    base = random_header(rng, robots=robots, cameras=1, objects=0)
    spec: EpisodeHeader = replace(base, cameras=(CameraSpec("cam", "/World/Cam", size, False, ("rgb",)),), **header)
    with EpisodeWriter(path, spec) as writer:
        for index in range(frames):
            frame = random_frame(rng, spec, index)
            view = frame.cameras[0]
            look = np.eye(4)
            look[2, 3] = 3 + 0.1 * index
            K = np.array([[float(size[0]), 0, size[0] / 2], [0, float(size[0]), size[1] / 2], [0, 0, 1]])
            writer.append(replace(frame, cameras=(replace(view, K=K, T_camera_world=look),)))
        return writer.finish()


@given(seed=seeds)
@settings(max_examples=5)
def test_frames_follow_from_link_poses_and_topology(seed, tmp_path_factory):
    episode = make_episode(tmp_path_factory.mktemp("e") / "episode", seed=seed % 1000, robots=1)
    robot = episode.header.robots[0]
    chain = robot.chain(robot.grippers[0])
    poses = episode.link_poses(robot.name)
    K, E = episode.camera_matrices("cam")
    expected = oracle.render(
        np.stack([poses[:, i, :3, 3] for i in chain], 1),
        poses[:, chain[0]] @ robot.grippers[0].T_link_ee,
        episode.gripper_openness(robot.name)[:, 0],
        K,
        E,
        (64, 48),
    )
    assert np.array_equal(np.stack([*skeleton_frames(episode, "cam")]), expected)


def test_several_arms_share_one_canvas(tmp_path):
    episode = make_episode(tmp_path / "e", robots=3)
    arms = arms_of(episode)
    assert [arm.robot for arm in arms] == ["arm0", "arm1", "arm2"]
    K, E = episode.camera_matrices("cam")
    canvas = np.zeros((48, 64, 3), np.uint8)
    for arm in arms:
        track = arm.track
        oracle.draw(canvas, track.link_positions[1], track.ee_pose[1], track.gripper_openness[1], K[1], E[1])
    assert np.array_equal([*skeleton_frames(episode, "cam")][1], canvas)


def test_end_effector_is_the_link_with_the_fingers_never_the_tip(tmp_path):
    episode = make_episode(tmp_path / "e")
    (arm,) = arms_of(episode)
    robot = episode.header.robots[0]
    carrier = {robot.links[j.parent_link].name for j in robot.joints if j.name.startswith("finger")}
    assert {arm.chain[0]} == carrier
    assert arm.chain[-1] == robot.links[robot.root].name
    assert not {"left", "right"} & set(arm.chain)


def test_make_writes_what_it_says(tmp_path):
    episode = make_episode(tmp_path / "e", size=(96, 54))
    seen = []
    skeleton = make_skeleton(episode, "cam", tmp_path / "run ünï" / "cam", lambda *a: seen.append(a))
    assert seen[-1][:2] == (12, 12)
    drawn = [*skeleton_frames(episode, "cam")]
    assert skeleton.squeeze.capture_size == (96, 54)
    assert skeleton.squeeze.model_size == MODEL_SIZE
    for frame, capture in zip(skeleton.frames(), drawn, strict=True):
        assert np.array_equal(frame, skeleton.squeeze.squeeze(capture))
    skeleton.verify()
    for name in ("gripper_scenario.mp4", "overlay.mp4"):
        info = video_info(skeleton.path / name)
        assert (info.size, info.frames, info.fps) == ((96, 54), 4, 15)
    overlay = next(read_video(skeleton.overlay)).astype(int)
    rgb, black = episode.image("cam", "rgb", 0), (drawn[0] == 0).all(-1)
    scene = np.where(black[..., None], rgb, drawn[0])
    assert np.abs(overlay - scene).mean() < np.abs(overlay - rgb).mean(), "the overlay shows the strokes"
    record = json.loads((skeleton.path / "skeleton.json").read_text())
    assert record["squeeze"]["sx"] == 640 / 96
    assert {p.name for p in skeleton.path.iterdir()} == {
        "frames",
        "gripper_scenario.mp4",
        "overlay.mp4",
        "skeleton.json",
    }
    assert [p.name for p in skeleton.path.parent.iterdir()] == ["cam"]


def test_second_run_touches_nothing_and_other_inputs_replace(tmp_path):
    episode, other = make_episode(tmp_path / "e"), make_episode(tmp_path / "f", seed=1)
    out = tmp_path / "cam"
    first = make_skeleton(episode, "cam", out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert make_skeleton(episode, "cam", out) == first
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times
    assert make_skeleton(episode, "cam", out, model_size=(64, 48)).sha256 != first.sha256
    assert make_skeleton(other, "cam", out).sha256 != first.sha256
    assert make_skeleton(episode, "cam", out).sha256 == first.sha256
    assert make_skeleton(episode, "cam", tmp_path / "elsewhere").sha256 == first.sha256


@pytest.mark.parametrize("victim", ["frames/000002.png", "gripper_scenario.mp4", "overlay.mp4", "skeleton.json"])
@pytest.mark.parametrize("damage", ["cut", "remove", "flip"])
def test_damage_is_noticed_and_mended(tmp_path, victim, damage):
    episode, out = make_episode(tmp_path / "e"), tmp_path / "cam"
    good = make_skeleton(episode, "cam", out)
    whole = (out / victim).read_bytes()
    if damage == "remove":
        (out / victim).unlink()
    else:
        changed = whole[: len(whole) // 2] if damage == "cut" else bytes([whole[0] ^ 255]) + whole[1:]
        (out / victim).write_bytes(changed)
    with pytest.raises(SkeletonError, match=r"skeleton|frames|mp4"):
        open_skeleton(out)
    if (victim, damage) == ("skeleton.json", "remove"):
        with pytest.raises(SkeletonError, match="no skeleton folder"):
            make_skeleton(episode, "cam", out)
        return
    assert make_skeleton(episode, "cam", out) == good
    assert (out / victim).read_bytes() == whole


def test_cancelled_work_resumes(tmp_path):
    episode = make_episode(tmp_path / "e")
    undisturbed = make_skeleton(episode, "cam", tmp_path / "good")
    for stop in range(12):
        calls = iter(range(100))

        def cancel(calls=calls, stop=stop) -> None:
            if next(calls) == stop:
                raise Cancelled("asked to stop")

        out = tmp_path / f"cam{stop}"
        with pytest.raises(Cancelled):
            make_skeleton(episode, "cam", out, cancel=cancel)
        assert not out.exists()
        assert replace(make_skeleton(episode, "cam", out), path=undisturbed.path) == undisturbed


CHILD = """
import sys
from pathlib import Path
from retake.core.episode import open_episode
from retake.core.skeleton import make_skeleton
episode = open_episode(sys.argv[1])
print("go", flush=True)
make_skeleton(episode, "cam", Path(sys.argv[2]))
"""


def test_killed_at_random_instants_then_run_again_gives_the_same_bytes(tmp_path):
    episode = make_episode(tmp_path / "e", frames=12)
    started = time.monotonic()
    make_skeleton(episode, "cam", tmp_path / "good")
    duration = time.monotonic() - started
    rng = np.random.default_rng(0)
    killed = 0
    for trial in range(KILLS):
        out = tmp_path / f"cam{trial}"
        command = [sys.executable, "-c", CHILD, str(episode.path), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.uniform(0, duration))
            child.kill()
        killed += not out.exists()
        make_skeleton(episode, "cam", out)
        assert tree(out) == tree(tmp_path / "good")
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(f".cam{trial}.")]
    assert killed > 0, "at least one kill must land before the end"


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_between_the_final_renames_loses_nothing(tmp_path, monkeypatch, at):
    """Replacing an older skeleton takes two renames; stopped at either, the next run ends with the new one."""
    episode, other, out = make_episode(tmp_path / "e"), make_episode(tmp_path / "f", seed=1), tmp_path / "cam"
    good = make_skeleton(episode, "cam", tmp_path / "good" / "cam")
    make_skeleton(other, "cam", out)
    rename, calls = Path.rename, iter(range(1, 100))

    def crash(path: Path, target: Path) -> Path:
        if next(calls) == at:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", crash)
    if at < 3:  # there are two renames
        with pytest.raises(KeyboardInterrupt):
            make_skeleton(episode, "cam", out)
    monkeypatch.undo()
    assert make_skeleton(episode, "cam", out).sha256 == good.sha256
    assert tree(out) == tree(good.path)
    assert {p.name for p in tmp_path.iterdir()} == {"e", "f", "good", "cam"}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- overrides -------------------------------------------------------------------------------------------------------


def test_override_turns_moves_and_shortens(tmp_path):
    episode = make_episode(tmp_path / "e")
    (plain,) = arms_of(episode, NO_OVERRIDES)
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "a.yaml").write_text(
        f"robots: ['ARM*']\ngrippers:\n  hand:\n    rotation_deg: [0, 0, 90]\n    chain: [{', '.join(plain.chain[:2])}]\n"
    )
    (arm,) = arms_of(episode, load_overrides(tmp_path / "robots"))
    quarter = axis_angle(np.array([0, 0, 1.0]), np.array(np.pi / 2))
    assert np.allclose(arm.track.ee_pose[:, :3, :3], plain.track.ee_pose[:, :3, :3] @ quarter)
    assert arm.chain == plain.chain[:2]
    offset = RobotOverride(("arm0",), grippers={"*": GripperOverride(T_link_ee=translation(0, 0, 0.1))})
    (moved,) = arms_of(episode, (offset,))
    assert np.allclose(moved.track.link_positions[:, 0], moved.track.ee_pose[:, :3, 3])
    assert np.allclose(moved.track.link_positions[:, 1:], plain.track.link_positions)


def translation(x: float, y: float, z: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def test_override_speaks_only_of_robots_that_have_its_links(tmp_path):
    robot = make_episode(tmp_path / "e").header.robots[0]
    change = {"*": GripperOverride(T_link_ee=translation(1, 0, 0))}
    assert apply_overrides(robot, (RobotOverride(("arm0",), ("panda_hand",), change),)) is robot
    assert apply_overrides(robot, (RobotOverride(("other*",), (), change),)) is robot
    moved = apply_overrides(robot, (RobotOverride(("arm?",), ("link0",), change),))
    assert moved.grippers[0].T_link_ee[0, 3] == 1


def test_committed_override_files_load():
    names = {override.source for override in load_overrides()}
    assert {"franka.yaml", "panda_robotiq.yaml"} <= names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "mapping"),
        ("robots: franka", "list of robot names"),
        ("robots: [a]\ncolour: red", "colour.*valid: grippers, links, robots"),
        ("robots: [a]\nlinks: [1]", "links"),
        ("robots: [a]\ngrippers: [b]", "must map"),
        ("robots: [a]\ngrippers: {g: {tcp: x}}", "tcp.*valid: chain, ee_link"),
        ("robots: [a]\ngrippers: {g: {rotation_deg: [0, 0]}}", "three finite"),
        ("robots: [a]\ngrippers: {g: {rotation_deg: [0, 0, .nan]}}", "three finite"),
        ("robots: [a]\ngrippers: {g: {chain: []}}", "chain"),
        ("robots: [a]\ngrippers: {g: {ee_link: b, chain: [c]}}", "starts at"),
        ("robots: [arm0]\ngrippers: {claw: {ee_link: link0}}", "claw.*valid: hand"),
        ("robots: [arm0]\ngrippers: {hand: {ee_link: tcp}}", "tcp.*valid: "),
        ("robots: [", "YAML"),
    ],
)
def test_bad_override_file_teaches(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    robot = random_header(np.random.default_rng(0)).robots[0]
    with pytest.raises(InputError, match=words):
        apply_overrides(robot, load_overrides(tmp_path))


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_an_episode_without_state_is_refused_not_guessed(tmp_path):
    episode = make_episode(tmp_path / "e", robots=0, motion_source="recorded", joint_channels=())
    for attempt in (lambda: skeleton_frames(episode, "cam"), lambda: make_skeleton(episode, "cam", tmp_path / "out")):
        with pytest.raises(SkeletonError, match="never guessed"):
            attempt()
    assert not (tmp_path / "out").exists()


def test_no_gripper_unknown_camera_foreign_folder(tmp_path):
    rng = np.random.default_rng(0)
    bare = replace(random_header(rng).robots[0], grippers=(), chains=())
    episode = _with_robot(tmp_path / "e", bare)
    with pytest.raises(SkeletonError, match="no robot has a gripper"):
        skeleton_frames(episode, "cam")
    good = make_episode(tmp_path / "g")
    with pytest.raises(EpisodeError, match=r"no camera 'nope'.*cam"):
        skeleton_frames(good, "nope")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(SkeletonError, match="no skeleton folder"):
        make_skeleton(good, "cam", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def _with_robot(path: Path, robot) -> Episode:
    rng = np.random.default_rng(0)
    header = replace(random_header(rng, cameras=1, objects=0), robots=(robot,))
    header = replace(header, cameras=(CameraSpec("cam", "/World/Cam", (64, 48), False, ("rgb",)),))
    with EpisodeWriter(path, header) as writer:
        writer.append(random_frame(rng, header, 0))
        return writer.finish()


def test_a_camera_that_never_sees_the_robot_says_so(tmp_path, caplog):
    rng = np.random.default_rng(0)
    header = random_header(rng, cameras=1, objects=0)
    header = replace(header, cameras=(CameraSpec("cam", "/World/Cam", (64, 48), True, ("rgb",)),))
    aside = translation(1e6, 0, 3)
    with EpisodeWriter(tmp_path / "e", header) as writer:
        frame = random_frame(rng, header, 0)
        writer.append(replace(frame, cameras=(replace(frame.cameras[0], T_camera_world=aside),)))
        episode = writer.finish()
    skeleton = make_skeleton(episode, "cam", tmp_path / "cam")
    assert skeleton.drawn_frames == 0
    assert "never sees the robot" in skeleton.notes[0]
    assert "never sees the robot" in caplog.text


def test_world_frame_does_not_matter_to_the_base_frame(tmp_path):
    """render_skeleton on base-frame positions with a base → camera extrinsic equals the world-frame drawing."""
    episode = make_episode(tmp_path / "e")
    (arm,) = arms_of(episode)
    K, E = episode.camera_matrices("cam")
    base = episode.link_poses(arm.robot)[:, episode.header.robots[0].root]
    points = np.einsum("tij,tlj->tli", inverse(base)[:, :3, :3], arm.track.link_positions - base[:, None, :3, 3])
    frames = render_skeleton(
        points, inverse(base) @ arm.track.ee_pose, arm.track.gripper_openness, K, E @ base, (64, 48)
    )
    same = [np.array_equal(a, b) for a, b in zip(frames, skeleton_frames(episode, "cam"), strict=True)]
    assert sum(same) >= len(same) - 1, "only a coordinate on a rounding boundary may differ"


def test_every_frame_of_the_three_films_is_told_in_turn(tmp_path):
    episode, seen = make_episode(tmp_path / "e"), []
    make_skeleton(episode, "cam", tmp_path / "cam", lambda *step: seen.append(step), model_size=(64, 48))
    notes = ["frames"] * 4 + ["gripper_scenario.mp4"] * 4 + ["overlay.mp4"] * 4
    assert seen == [*((k, 12, note) for k, note in enumerate(notes, 1)), (12, 12, "")]
    again = []
    make_skeleton(episode, "cam", tmp_path / "cam", lambda *step: again.append(step), model_size=(64, 48))
    assert again == [(1, 1, "up to date")]


@pytest.mark.parametrize("after", [1, 4, 6, 10])
def test_work_that_was_stopped_is_gone_on_with_and_not_done_again(tmp_path, after):
    """Frames that are there are kept as they are, damaged and half-written ones are made again."""
    episode, calls = make_episode(tmp_path / "e"), []

    def cancel():
        calls.append(1)
        if len(calls) > after:
            raise Cancelled("stop")

    out, partial = tmp_path / "cam", tmp_path / ".cam.partial"
    with pytest.raises(Cancelled):
        make_skeleton(episode, "cam", out, cancel=cancel, model_size=(64, 48))
    done = sorted((partial / "frames").iterdir())
    assert len(done) == min(after, 4)
    assert not out.exists()
    (partial / "frames" / ".000003.png.tmp").write_bytes(b"half")
    (partial / ".overlay.x.tmp.mp4").write_bytes(b"half")
    numbers = {path.name: path.stat().st_ino for path in done}
    if after > 1:
        done[1].write_bytes(b"damaged")
    whole = make_skeleton(episode, "cam", out, model_size=(64, 48))
    whole.verify()
    assert {p.name for p in out.rglob("*") if p.name.startswith(".")} == set()
    assert (out / "frames" / "000000.png").stat().st_ino == numbers["000000.png"]
    if after > 1:
        assert (out / "frames" / "000001.png").stat().st_ino != numbers["000001.png"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    fresh = make_skeleton(episode, "cam", tmp_path / "fresh" / "cam", model_size=(64, 48))
    assert (fresh.sha256, fresh.files) == (whole.sha256, whole.files)


def test_remains_of_another_request_are_not_gone_on_with(tmp_path):
    episode, calls = make_episode(tmp_path / "e"), []

    def cancel():
        calls.append(1)
        if len(calls) > 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        make_skeleton(episode, "cam", tmp_path / "cam", cancel=cancel, model_size=(32, 24))
    whole = make_skeleton(episode, "cam", tmp_path / "cam", model_size=(64, 48))
    assert whole.frame(0).shape == (48, 64, 3)
    assert whole.drawn_frames == sum(bool(frame.any()) for frame in whole.frames())


def test_a_camera_that_sees_the_robot_in_some_frames_says_in_how_many(tmp_path):
    rng = np.random.default_rng(0)
    header = replace(
        random_header(rng, robots=1, cameras=1, objects=0),
        cameras=(CameraSpec("cam", "/World/Cam", (64, 48), False, ("rgb",)),),
    )
    with EpisodeWriter(tmp_path / "e", header) as writer:
        for index in range(3):
            frame = random_frame(rng, header, index)
            look = np.eye(4)
            look[:3, 3] = (0 if index < 2 else 500, 0, 3)
            K = np.array([[64.0, 0, 32], [0, 64, 24], [0, 0, 1]])
            writer.append(replace(frame, cameras=(replace(frame.cameras[0], K=K, T_camera_world=look),)))
        episode = writer.finish()
    made = make_skeleton(episode, "cam", tmp_path / "cam", model_size=(64, 48))
    assert made.drawn_frames == 2
    assert made.notes == ("camera 'cam' sees nothing of the robot in 1 of 3 frames",)
