# SPDX-License-Identifier: Apache-2.0
"""`--layout`: the gripper once, or end-effector steps; the same for every variant, and what a policy can act on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from export_runs import make_run

from retake.core.cli import main
from retake.core.episode import open_episode
from retake.core.errors import ExportError, InputError
from retake.core.export import ExportOptions, Selection, VideoOptions, export, gr00t
from retake.core.export.reader import Dataset
from retake.core.geometry import inverse

pytest.importorskip("pyarrow")
H264 = ExportOptions(video=VideoOptions.of("h264"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("layouts") / "run", takes=2, frames=6)


def test_arm_and_openness_are_the_full_vectors_without_fingers(run: Path, tmp_path: Path) -> None:
    export([run], tmp_path / "full", H264)
    assert (
        main(
            ["export", str(run), "--layout", "arm+openness", "--codec", "h264", "--quiet", "--out", str(tmp_path / "d")]
        )
        == 0
    )
    data, full = Dataset(tmp_path / "d"), Dataset(tmp_path / "full")
    names = full.schema.vectors["observation.state"].names
    kept = [i for i, name in enumerate(names) if "finger" not in name]
    assert (
        data.schema.vectors["observation.state"].names
        == tuple(names[i] for i in kept)
        == data.schema.vectors["action"].names
    )
    assert [s.kind for s in data.schema.slices] == ["arm", "gripper"]
    for ours, theirs in zip(data.episodes(), full.episodes(), strict=True):
        for key in ("observation.state", "action"):
            assert np.array_equal(data.columns(ours)[key], full.columns(theirs)[key][:, kept])
    first, second = (data.columns(row) for row in data.episodes())
    assert all(np.array_equal(first[key], second[key]) for key in ("observation.state", "action"))


@pytest.mark.parametrize("source", ["commanded", "next-state"])
def test_steps_of_the_end_effector_lead_from_the_measured_pose_to_the_goal(
    run: Path, tmp_path: Path, source: str
) -> None:
    export([run], tmp_path / "d", ExportOptions("lerobot-v2.1"), Selection(layout="deltas-ee", action_source=source))
    data, episode = Dataset(tmp_path / "d"), open_episode(run / "episode")
    (robot,) = episode.header.robots
    (gripper,) = robot.grippers
    assert data.schema.vectors["observation.state"].names == tuple(
        f"hand.{x}" for x in ("x", "y", "z", "rx", "ry", "rz", "open")
    )
    assert data.schema.vectors["action"].names[0] == "hand.dx"
    link = robot.link_index(gripper.ee_link)
    poses = episode.link_poses(robot.name)
    base = poses[:, robot.root]
    goals = robot.forward_kinematics(episode.joint(robot.name, "target"), base)
    if source == "next-state":
        goals = poses[[1, 2, 3, 4, 5, 5]]
    rows = [data.columns(row) for row in data.episodes()]
    for columns in rows:
        state, action = columns["observation.state"].astype(float), columns["action"].astype(float)
        for k in range(6):
            R = cv2.Rodrigues(state[k, 3:6])[0]
            moved = np.eye(4)
            moved[:3, 3] = state[k, :3] + action[k, :3]
            moved[:3, :3] = cv2.Rodrigues(action[k, 3:6])[0] @ R
            wanted = inverse(base[k]) @ goals[k, link] @ gripper.T_link_ee
            assert np.abs(moved - wanted).max() < 1e-5
    assert all(np.array_equal(rows[0][key], rows[1][key]) for key in ("observation.state", "action"))
    assert gr00t.problems(tmp_path / "d") == []
    modality = gr00t.modality(data.schema)
    assert modality["action"]["ee_rotation"] == {"start": 3, "end": 6, "absolute": False, "rotation_type": "axis_angle"}
    assert modality["action"]["gripper"]["absolute"]


def test_layouts_are_refused_where_they_have_no_meaning(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is for LeRobot's formats; oscar has its own vectors"):
        export([run], tmp_path / "o", ExportOptions("oscar"), Selection(layout="arm+openness"))
    with pytest.raises(ExportError, match=r"unknown layout of state and action 'half'; valid: arm\+openness"):
        export([run], tmp_path / "o", H264, Selection(layout="half"))
    export([run], tmp_path / "d", H264)
    with pytest.raises(ExportError, match=r"feature action: the dataset has"):
        export([run], tmp_path / "d", ExportOptions(video=H264.video, append=True), Selection(layout="arm+openness"))
    assert not (tmp_path / "o").exists()
