# SPDX-License-Identifier: Apache-2.0
"""retake.lab without Isaac Lab: mistakes, cameras that do not fit, and what an environment may do to its recorder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lab_fakes import CHANNELS, FakeCamera, FakeEnv, drive, mispaired, newton

pytest.importorskip("pxr")

from retake.core.episode import open_episode
from retake.core.episode.extra import extra_of
from retake.core.errors import EpisodeError, InputError, RetakeError, RunError
from retake.lab import host
from retake.lab.preparation import prepare
from retake.lab.recorder import LabRecorder
from retake.lab.request import RecordRequest


def test_a_neighbour_in_a_picture_is_nothing_of_the_clones_own(tmp_path: Path) -> None:
    """Renderers that show all clones name a neighbour's arm by its own path, which may be the path of the prims that
    describe every clone."""
    env = newton()

    class Wide(FakeCamera):
        @property
        def data(self) -> Any:
            found = super().data
            found.output["instance_segmentation"].torch[1, 4] = 2  # the arm of clone 0, in the picture of clone 1
            return found

    env.scene.sensors["front"] = Wide(env, "front", "front", 0.0)
    recorder = drive(env, RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS, cameras=("front",)), 3)
    episode = open_episode(recorder.kept[0].episode)
    ids = episode.image("front", "instances", 1)
    named = {i.id: (i.prim_path, i.owner) for i in episode.header.instances}
    assert named[int(ids[4, 0])] == ("/", "")
    assert named[int(ids[6, 0])][0].endswith("/Robot/arm")


def test_a_camera_of_the_world_has_one_picture_for_all_clones(tmp_path: Path) -> None:
    env = newton()
    env.scene.sensors["front"].only(1, path="/World/outside")
    recorder = drive(env, RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS, cameras=("front",)), 4)
    episode = open_episode(recorder.kept[0].episode)
    assert (len(episode), mispaired(episode)) == (4, 0)
    assert episode.header.cameras[0].static
    assert episode.header.cameras[0].prim_path == "/World/outside"
    odd = FakeEnv(3)
    odd.scene.sensors["front"].only(1, 2)
    with pytest.raises(RetakeError, match="has 2 pictures, clone 2 is not among them"):
        drive(odd, RecordRequest(tmp_path / "odd", env_ids=(2,), channels=CHANNELS, cameras=("front",)), 2)


def test_a_camera_that_stands_still_while_its_link_moves_is_an_error(tmp_path: Path) -> None:
    env = newton()
    env.scene.sensors["hand"].follows = False
    with pytest.raises(
        EpisodeError, match=r"camera 'hand' reports the same pose while its link 'arm'.*update_latest_camera_pose"
    ):
        drive(env, RecordRequest(tmp_path, channels=CHANNELS), 5)
    kept = open_episode(tmp_path / "env000_0000/episode", allow_incomplete=True)
    assert len(kept) >= 1


def test_actions_are_those_that_were_issued_also_where_the_environment_clips_them_in_place(tmp_path: Path) -> None:
    env = FakeEnv(2)
    real = env.step

    def step(action: np.ndarray) -> Any:
        np.clip(action, -1, 1, out=action)
        return real(action)

    env.step = step  # type: ignore[method-assign]
    recorder = drive(env, RecordRequest(tmp_path, env_ids=(1,), channels=CHANNELS), 4)
    episode = open_episode(recorder.kept[0].episode)
    assert np.array_equal(extra_of(episode)["action"][1][:, 0], 100 + 2 * np.arange(4))
    assert np.array_equal(episode.joint("robot", "target")[:, 0], np.ones(4)), "what the drives were told"


def test_after_its_end_a_recorder_hears_nothing_more(tmp_path: Path) -> None:
    env = FakeEnv(1)
    recorder = drive(env, RecordRequest(tmp_path, channels=CHANNELS), 3)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        recorder.before_step(np.zeros((1, 2), np.float32))
        env.step(np.zeros((1, 2), np.float32))
        recorder.after_step()
    recorder.before_reset(None)
    recorder.after_reset(None)
    recorder.close()
    assert (sorted(tmp_path.rglob("*")), recorder.steps, len(recorder.kept)) == (before, 3, 1)
    # What was not done when the end came is no success.
    only = drive(FakeEnv(1), RecordRequest(tmp_path / "only", channels=CHANNELS, success_only=True), 3)
    assert only.kept == []
    assert "closed while recording after 3 frames, and the task was not done" in only.left_out[0]
    assert not list((tmp_path / "only").glob("env*"))


def test_clones_are_named_by_numbers_slices_or_nothing() -> None:
    assert host.clones_of(None, 3) == host.clones_of(slice(None), 3) == [0, 1, 2]
    assert host.clones_of(slice(1, 9), 3) == host.clones_of(np.array([1, 2]), 3) == host.clones_of((1, 2), 3) == [1, 2]


@pytest.mark.parametrize(("rot", "instances"), [((0.0, 0.0, 0.0, 1.0), ""), ((1.0, 0.0, 0.0, 0.0), "_fast")])
def test_cameras_are_asked_for_what_their_version_calls_it(rot: tuple[float, ...], instances: str) -> None:
    class Offset:
        def __init__(self) -> None:
            self.rot = rot

    class Camera(SimpleNamespace):
        OffsetCfg = Offset

    front = Camera(
        data_types=["rgb"], prim_path="{ENV_REGEX_NS}/front", colorize_instance_segmentation=True, width=64, height=48
    )
    cfg = SimpleNamespace(scene=SimpleNamespace(front=front, num_envs=4))
    assert prepare(cfg, sizes={"front": (32, 24)}) == ("front",)
    assert front.data_types == ["rgb", "distance_to_image_plane", "normals", f"instance_segmentation{instances}"]
    assert (front.width, front.height, front.colorize_instance_segmentation) == (32, 24, False)
    assert front.update_latest_camera_pose
    prepare(cfg)
    assert len(front.data_types) == 4, "nothing twice"
    front.prim_path = "/World/outside"
    if instances:
        prepare(cfg)  # 2.x has one picture of it
    else:
        with pytest.raises(InputError, match=r"stands at /World/outside, outside the clones.*make one clone"):
            prepare(cfg)


def test_what_goes_wrong_is_one_sentence_and_frames_so_far_are_kept(tmp_path: Path, caplog: Any) -> None:
    open_ended = FakeEnv(1)
    with caplog.at_level("WARNING", "retake.lab"):
        closed = drive(open_ended, RecordRequest(tmp_path / "closed", channels=CHANNELS), 4)
    assert "closed while recording; its 4 frames so far are kept" in caplog.text
    assert len(open_episode(closed.kept[0].episode)) == 4
    env = FakeEnv(1)
    with caplog.at_level("WARNING", "retake.lab"):
        cut = drive(
            env,
            RecordRequest(tmp_path / "cut", channels=CHANNELS),
            5,
            lambda k: env._reset_idx([0]) if k == 2 else None,
        )
    assert "reset in mid-episode; its 4 frames so far are kept" in caplog.text
    assert [len(open_episode(run.episode)) for run in cut.kept] == [4, 2]

    first = LabRecorder(FakeEnv(1), RecordRequest(tmp_path / "two", channels=CHANNELS))
    with pytest.raises(RunError, match="is being recorded to by another recorder"):
        LabRecorder(FakeEnv(1), RecordRequest(tmp_path / "two", channels=CHANNELS))
    first.close()
    for change, request, message in (
        (lambda e: e.scene.sensors.clear(), {}, "has no camera"),
        (lambda e: None, {"cameras": ("side",)}, "unknown camera of the scene 'side'; valid: front, hand"),
        (lambda e: None, {"channels": ("rgb", "normals")}, "normals needs data_types"),
        (lambda e: e.scene.sensors["front"].cfg.data_types.remove("instance_segmentation"), {}, "instances needs data_types"),
        (lambda e: None, {"robots": ("dog",)}, "unknown robot of the scene 'dog'; valid: robot"),
        (lambda e: None, {"scenery": ("Moon",)}, "unknown scenery of the scene 'Moon'"),
        (lambda e: e.scene.articulations["robot"].joint_names.clear(), {}, "which the simulation does not know"),
    ):  # fmt: skip
        env = FakeEnv(1)
        change(env)
        name = message[:12].replace(" ", "_")
        with pytest.raises(RetakeError, match=message):
            drive(env, RecordRequest(tmp_path / name, **{"channels": CHANNELS, **request}), 2)
        assert not list((tmp_path / name).glob("env*"))
    with pytest.raises(InputError, match="clone 3; the environment has 1"):
        LabRecorder(FakeEnv(1), RecordRequest(tmp_path / "n", env_ids=(3,)))
    with pytest.raises(EpisodeError, match="no environment of Isaac Lab"):
        LabRecorder(object(), RecordRequest(tmp_path / "n"))


def test_a_camera_whose_pictures_come_unevenly_is_refused(tmp_path: Path) -> None:
    """Eager drawing in the middle of control steps: no picture is of a step's end where one is due."""
    env = newton(decimation=3, period=0.02)
    real = env.step

    def eager(action: Any) -> Any:
        result = real(action)
        for camera in env.scene.sensors.values():
            camera._timestamp += 0.005
        return result

    env.step = eager  # type: ignore[method-assign]
    with pytest.raises(RetakeError, match="has no picture of control step"):
        drive(env, RecordRequest(tmp_path, channels=CHANNELS), 6)
