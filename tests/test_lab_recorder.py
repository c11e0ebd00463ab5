# SPDX-License-Identifier: Apache-2.0
"""retake.lab without Isaac Lab: schedules of rendering and resets, both versions, planted faults, bad input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lab_fakes import CHANNELS, SIZE, FakeEnv, drive, mispaired, newton

pytest.importorskip("pxr")

from retake.core.capture import PairingError
from retake.core.episode import open_episode
from retake.core.episode.check import check_episode
from retake.core.episode.extra import extra_of, success_of
from retake.core.errors import EpisodeError
from retake.core.files import read_json
from retake.lab import host, pictures
from retake.lab import recorder as recorder_module
from retake.lab.recorder import LabRecorder
from retake.lab.request import RecordRequest

SCHEDULES = int(os.environ.get("RETAKE_SCHEDULES", "10"))


def schedule(seed: int) -> tuple[FakeEnv, RecordRequest, int]:
    """A random environment: decimation, render_interval, reset times, clones, version, renderer."""
    rng = np.random.default_rng(seed)
    clones = int(rng.integers(1, 4))
    length = rng.integers(2, 9, (clones, 64))
    env = FakeEnv(
        clones, version=int(rng.choice([2, 3])), kind=str(rng.choice(["newton_warp", "isaac_rtx"])),
        decimation=int(rng.integers(1, 5)), render_interval=int(rng.integers(1, 7)),
        period=float(rng.choice([0.0, 0.0, 0.03])), lengths=lambda i, e: int(length[i, e % 64]),
        cameras=("front",) if rng.random() < 0.5 else ("front", "hand"),
    )  # fmt: skip
    env.cfg.num_rerenders_on_reset = int(rng.integers(0, 2))
    return env, RecordRequest(Path(), env_ids=None, channels=CHANNELS), int(rng.integers(12, 30))


def run_schedule(seed: int, out: Path) -> tuple[int, int]:
    """(frames, mispaired) of one schedule. A camera's own period beside a renderer's may give pictures at no even rate:
    that is refused."""
    env, request, steps = schedule(seed)
    try:
        recorder = drive(env, RecordRequest(out, env_ids=None, channels=request.channels), steps)
    except PairingError:
        assert env.kind == "isaac_rtx"
        assert env.scene.sensors["front"].cfg.update_period > 0
        return 0, 0
    episodes = [open_episode(run.episode) for run in recorder.kept]
    for episode in episodes:
        assert len(set(np.round(np.diff(episode.time_s), 9))) <= 1, "frames lie on one grid"
    return sum(map(len, episodes)), sum(map(mispaired, episodes))


def test_pictures_have_their_own_states_over_random_schedules(tmp_path: Path) -> None:
    frames = 0
    for seed in range(SCHEDULES):
        some, wrong = run_schedule(seed, tmp_path / str(seed))
        assert wrong == 0, f"seed {seed}"
        frames += some
    assert frames > 2 * SCHEDULES


@pytest.mark.parametrize("version", [2, 3])
def test_an_episode_is_what_the_environment_was(tmp_path: Path, version: int) -> None:
    env = newton(version=version)
    recorder = drive(env, RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS, task="turn"), 13)
    first = open_episode(recorder.kept[0].episode)
    assert [run.path.name for run in recorder.kept] == ["env001_0000", "env001_0001", "env001_0002"]
    assert (len(first), first.header.fps, first.header.task) == (7, pytest.approx(50), "turn")
    assert mispaired(first) == 0
    # Links and cameras in the clone's own coordinates; the robot's names are those of the scene.
    assert np.allclose(first.link_poses("robot")[0, :, :3, 3], [[0, 0, 0], [0, 0, 0.4]], atol=1e-6)
    assert np.allclose(first.camera_matrices("front")[1][0], np.eye(4), atol=1e-6)
    hand = first.camera_matrices("hand")[1] @ first.link_poses("robot")[:, first.header.robots[0].link_index("arm")]
    assert np.allclose(hand, np.eye(4), atol=1e-5), "the camera is carried by its link"
    assert [c.static for c in first.header.cameras] == [True, False]
    # What was commanded after each frame, and the action as issued; the last frame has none.
    names, actions = extra_of(first)["action"]
    assert names == ("action_0", "action_1")
    assert np.array_equal(actions[:6, 0], 100.0 + 2 * np.arange(6))
    assert np.isnan(actions[6]).all()
    assert np.array_equal(first.joint("robot", "target")[:6, 0], 100.0 + 2 * np.arange(6))
    assert np.array_equal(extra_of(first)["root_velocity/cube"][1][0], np.arange(6))
    # Masks by link and object, unlabelled things are something, the background is nothing.
    ids = first.image("front", "instances", 2)
    owner = {i.id: i.owner for i in first.header.instances}
    path = {i.id: i.prim_path for i in first.header.instances}
    assert (ids[0] == 0).all()
    assert owner[int(ids[1, 0])] == "object:cube"
    assert path[int(ids[5, 0])].endswith("/Robot/arm")
    assert path[int(ids[3, 0])] == "/"
    assert (first.image("front", "depth", 0)[0] == 0).all()
    assert first.header.settings["isaac_lab"]["quaternions"] == ("xyzw" if version == 3 else "wxyz")
    assert success_of(first) is True
    assert success_of(open_episode(recorder.kept[1].episode)) is False
    failed = [item.name for item in check_episode(first).items if item.status == "fail"]
    assert all("velocity" in name or "target" in name for name in failed), "the fake's numbers, not the geometry"


def test_the_first_picture_after_a_reset_is_of_the_new_episode(tmp_path: Path) -> None:
    """A renderer that has not drawn since the reset still shows the old episode: that picture is never recorded."""
    env = newton(kind="isaac_rtx")
    recorder = drive(env, RecordRequest(tmp_path, channels=CHANNELS), 13)
    episodes = [open_episode(run.episode) for run in recorder.kept]
    assert [mispaired(e) for e in episodes] == [0, 0]
    assert [round(e.object_poses[0, 0, 0, 3] / 0.001) for e in episodes[:2]] == [2, 2], (
        "the reset's own frame is left out"
    )
    again = newton(kind="isaac_rtx")
    again.cfg.num_rerenders_on_reset = 1
    drawn = drive(again, RecordRequest(tmp_path / "drawn", channels=CHANNELS), 13)
    first = open_episode(drawn.kept[1].episode)
    assert round(first.object_poses[0, 0, 0, 3] / 0.001) == 0


def test_a_lower_picture_rate_becomes_the_episodes_rate(tmp_path: Path) -> None:
    env = newton(kind="isaac_rtx", render_interval=4)
    recorder = drive(env, RecordRequest(tmp_path, channels=CHANNELS), 12)
    episode = open_episode(recorder.kept[0].episode)
    assert episode.header.fps == pytest.approx(25)
    assert mispaired(episode) == 0
    assert read_json(episode.path / "capture.json")["between"] > 0


@pytest.mark.parametrize(("kind", "interval"), [("newton_warp", 3), ("isaac_rtx", 6)])
def test_objects_are_recorded_at_every_physics_step_on_demand(tmp_path: Path, kind: str, interval: int) -> None:
    """Three physics steps to a control step, one or two control steps to a frame; a reset ends the track with its episode."""
    env = FakeEnv(2, kind=kind, decimation=3, render_interval=interval, lengths=lambda i, e: 6)
    before = env.scene.update
    request = RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS, physics_rate=True)
    recorder = drive(env, request, 14)
    assert env.scene.update == before, "the scene is left as it was"
    assert len(recorder.kept) >= 2
    for run in recorder.kept:
        episode = open_episode(run.episode)
        parts = [episode.physics(k) for k in range(len(episode))]
        times, poses = np.concatenate([p.time_s for p in parts]), np.concatenate([p.T_world_object for p in parts])
        assert [len(p.time_s) for p in parts] == [1] + [interval] * (len(episode) - 1)
        assert np.allclose(times, 0.01 * np.arange(len(times)), atol=1e-9)
        steps = np.round(poses[:, 0, 0, 3] / 0.001).astype(int)
        assert np.array_equal(steps - steps[0], np.arange(len(steps)))
        assert np.array_equal(poses[::interval], episode.object_poses)


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "off by one": lambda patch: _delay(patch),
    "quaternions swapped": lambda patch: patch.setattr(host, "quaternion_order", lambda scene: "wxyz"),
    "origin left out": lambda patch: _no_origin(patch),
    "stale picture after a reset": lambda patch: patch.setattr(recorder_module, "is_fresh", lambda *a: True),
    "pictures of another clone": lambda patch: _other_clone(patch),
}


def _delay(patch: pytest.MonkeyPatch) -> None:
    last: dict[tuple[str, int], Any] = {}
    real = pictures.read_view

    def read(sensor: Any, camera: Any, env_id: int) -> Any:
        view = real(sensor, camera, env_id)
        old, last[camera.key, env_id] = last.get((camera.key, env_id), view), view
        return pictures.RawView(old.images, old.labels, view.K, view.pose, view.count)

    patch.setattr(recorder_module, "read_view", read)


def _no_origin(patch: pytest.MonkeyPatch) -> None:
    real = host.local_poses
    patch.setattr(host, "local_poses", lambda rows, origin, order: real(rows, np.zeros(3), order))


def _other_clone(patch: pytest.MonkeyPatch) -> None:
    real = pictures.read_view
    patch.setattr(recorder_module, "read_view", lambda sensor, camera, env_id: real(sensor, camera, 1 - env_id))


@pytest.mark.parametrize("fault", sorted(PLANTED))
def test_a_planted_fault_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    PLANTED[fault](monkeypatch)
    env = newton(kind="isaac_rtx" if "stale" in fault else "newton_warp")
    request = RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS)
    if fault == "quaternions swapped":
        with pytest.raises(EpisodeError, match="from where its joints put it"):
            drive(env, request, 13)
        return
    recorder = drive(env, request, 13)
    assert sum(mispaired(open_episode(run.episode)) for run in recorder.kept) > 0


def test_only_successes_are_kept_on_demand_and_episodes_are_counted(tmp_path: Path) -> None:
    recorder = drive(
        newton(), RecordRequest(tmp_path, env_ids=None, channels=CHANNELS, success_only=True, episodes=2), 26
    )
    assert len(recorder.kept) == 2
    assert all(success_of(open_episode(run.episode)) for run in recorder.kept)
    kept = {p.parent.name for p in tmp_path.glob("*/episode")}
    assert kept == {run.path.name for run in recorder.kept}, "what is left out leaves no trace"
    summary = read_json(tmp_path / "session.json")
    assert (len(summary["episodes"]), summary["control_steps"]) == (2, 26)
    assert 0 <= summary["recorder_share"] <= 1


def test_success_that_is_said_after_the_episode_counts(tmp_path: Path) -> None:
    """record_demos and Mimic: the manager says `no` at the end of an episode, the script `yes` after it, and the reset that
    follows has the manager say `no` again."""
    env = FakeEnv(2)
    recorder = LabRecorder(env, RecordRequest(tmp_path, env_ids=(0, 1), channels=CHANNELS, success_only=True))
    env.reset()
    recorder.after_reset(None)
    for _ in range(3):
        action = np.zeros((2, 2), np.float32)
        recorder.before_step(action)
        env.step(action)
        recorder.after_step()
    recorder.before_reset([0])
    recorder.set_success([0, 1], [False, False])
    recorder.set_success([0], [True])
    recorder.before_step(np.zeros((2, 2), np.float32))  # the other clone goes on meanwhile
    env.step(np.zeros((2, 2), np.float32))
    recorder.after_step()
    recorder.before_reset([0, 1])
    recorder.set_success([0, 1], [False, False])
    env.reset()
    recorder.after_reset([0, 1])
    recorder.close()
    (kept,) = recorder.kept
    assert (kept.path.name, len(open_episode(kept.episode)), success_of(open_episode(kept.episode))) == (
        "env000_0000",
        4,
        True,
    )
    assert any("clone 1" in reason and "was not done" in reason for reason in recorder.left_out)


def test_contacts_of_a_sensor_are_forces_between_bodies(tmp_path: Path) -> None:
    env = newton()
    forces = np.zeros((2, 1, 1, 3), np.float32)
    forces[1, 0, 0] = (0, 0, 5)
    env.scene.sensors["touch"] = SimpleNamespace(
        cfg=SimpleNamespace(prim_path="/World/envs/env_.*/Cube", filter_prim_paths_expr=["/World/envs/env_.*/Robot/arm"]),
        body_names=["Cube"], data=SimpleNamespace(force_matrix_w=env.wrapped(forces), contact_pos_w=None, net_forces_w=None),
    )  # fmt: skip
    env.observe = lambda: None  # type: ignore[method-assign]
    real = env._reset_idx
    cameras = {k: v for k, v in env.scene.sensors.items() if k != "touch"}

    def reset(ids: list[int]) -> None:
        env.scene.sensors, touch = dict(cameras), env.scene.sensors["touch"]
        real(ids)
        env.scene.sensors = {**cameras, "touch": touch}

    env._reset_idx = reset  # type: ignore[method-assign]
    env.reset()
    recorder = LabRecorder(env, RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS))
    recorder.after_reset(None)
    recorder.before_step(np.zeros((2, 2), np.float32))
    recorder.close()
    (contact,) = open_episode(recorder.kept[0].episode).contacts(0)
    assert contact.body_a.endswith("/Robot/arm")
    assert contact.body_b.endswith("/Cube")
    assert (contact.force_n, contact.normal) == ((0, 0, 5), (0, 0, 1))
    assert np.allclose(contact.position_m, [0, 0.01 * env.episode[1], 0.2], atol=1e-6), "where the body is"


def test_colours_stand_for_ids_where_a_renderer_colours_instances() -> None:
    image = np.zeros((2, 3, 4), np.uint8)
    image[0, 1] = (25, 200, 7, 255)
    assert (
        pictures.packed(image)[0, 1] == pictures.number_of((25, 200, 7, 255)) == pictures.number_of("(25, 200, 7, 255)")
    )
    assert pictures.number_of("12") == 12
    assert SIZE == (16, 12)
