# SPDX-License-Identifier: Apache-2.0
"""Real LeRobot data comes in without guessing: units, names, keys, clocks, grippers; what is unclear is refused in words."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_plain import LIMITS, PANDA, SO101, panda_motion, picture, shares, so101_motion, so101_urdf, write_plain
from unit_mistakes import MISTAKES, Mistake, outcome

from retake.core.cli import main
from retake.core.episode import open_episode
from retake.core.errors import ExportError, InputError, RetakeError
from retake.core.export import ExportOptions, Selection, VideoOptions, export
from retake.core.export.reader import Dataset
from retake.core.importers.lerobot import Calibration, ImportOptions, camera_name, import_lerobot
from retake.core.urdf import read_urdf

CASES = Path(__file__).parent / "cases/data"
URDF = CASES / "panda.urdf"
CAMERA = {"front": Calibration(np.diag([60.0, 60.0, 1.0]), np.eye(4))}
NAMES = [f"{name}.pos" for name in PANDA]


def bring(data: Path, out: Path, *, cameras: Any = None, urdf: Path = URDF, **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    (episode,) = import_lerobot(
        data, out, read_urdf(urdf), cameras or CAMERA, ImportOptions(**options), say=said.append
    )
    return episode, said


def refused(data: Path, out: Path, **options: Any) -> str:
    with pytest.raises(RetakeError) as caught:
        bring(data, out, **options)
    assert not any(out.glob("*")) if out.exists() else True, "what is refused leaves no trace"
    return str(caught.value)


def command(case: str, run: Path, *more: str, cameras: str = "front.json") -> int:
    given = ["--run", str(run), "--urdf", str(URDF), "--cameras", str(CASES / cameras), "--quiet"]
    return main(["import", "lerobot", str(CASES / case), *given, *more])


def test_the_case_that_is_right_comes_in_and_says_its_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("lr_ok", tmp_path / "run") == 0
    assert "rad (inferred: every number lies within its joint's limits in rad)" in capsys.readouterr().out
    assert command("lr_nested_names", tmp_path / "nested") == 0
    assert command("lr_openpi_key", tmp_path / "key", cameras="image.json") == 0
    assert command("lr_openpi_key", tmp_path / "stated", "--image-key", "front=image") == 0
    ours, nested, key = (open_episode(tmp_path / run / "episode") for run in ("run", "nested", "key"))
    name = ours.header.robots[0].name
    for other in (nested, key):
        assert np.array_equal(ours.joint(name, "position"), other.joint(name, "position"))
        assert np.array_equal(ours.joint(name, "target"), other.joint(name, "target"))
    assert np.array_equal(key.image("image", "rgb", 4), ours.image("front", "rgb", 4))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--joint", "no_such=panda_joint1.pos"], "unknown joint of robot"),
        (["--joint", "panda_joint1=no_such"], "unknown entry of observation.state 'no_such'"),
        (["--gripper", "no_such=panda_joint1.pos"], "unknown gripper of robot"),
        (["--gripper", "panda_hand=no_such"], "unknown entry of observation.state"),
        (["--unit", "no_such=deg"], "unknown joint or entry whose unit is stated"),
        (["--unit", "panda_joint1=furlong"], "unknown unit 'furlong'"),
        (["--image-key", "front=no_such"], "unknown picture feature of --image-key"),
        (["--image-key", "no_such=observation.images.front"], "unknown camera of --image-key"),
        (["--state-key", "no_such"], "no feature 'no_such'"),
        (["--action-key", "no_such"], "unknown feature of --action-key"),
        (["--flip", "no_such"], "unknown joint or entry of --flip"),
        (["--offset", "no_such=1"], "unknown joint or entry of --offset"),
        (["--offset", "panda_joint1=x"], "expected JOINT=NUMBER"),
        (["--entries", "a,b"], "--entries names 2 entries"),
    ],
)
def test_a_misspelt_option_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert command("lr_ok", tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_option_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for wrong in ("--degree", "--state-keys"):
        with pytest.raises(SystemExit):
            command("lr_ok", tmp_path / "run", wrong, "x")
    assert not (tmp_path / "run").exists()


def test_eighty_is_not_eighty_radians(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("lr_range100", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "deg and -100..100 would fit: state it" in said or "-100..100" in said
    given = ["--unit", "revolute=-100..100", "prismatic=0..100", "--beyond-limits"]
    assert command("lr_range100", tmp_path / "run", *given) == 0
    episode = open_episode(tmp_path / "run/episode")
    robot = episode.header.robots[0]
    joint = robot.dof_joints[5]
    (number,) = {80.0 * 0.95}  # 76 of 100
    expected = (joint.lower + joint.upper) / 2 + number / 100 * (joint.upper - joint.lower) / 2
    assert episode.joint(robot.name, "position")[:, 5].max() == pytest.approx(expected, abs=1e-5)
    assert episode.header.settings["import"]["units"]["panda_joint1"] == "-100..100"


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_unit_mistake_is_refused_or_corrected_with_a_sentence(mistake: Mistake, tmp_path: Path) -> None:
    what, text = outcome(mistake, tmp_path)
    assert what == ("refused" if mistake.likely else "right"), text
    assert mistake.likely in text
    assert len(text) > 30


def test_so_arm_layouts_by_name_whatever_the_robot_calls_its_joints(tmp_path: Path) -> None:
    urdf = so101_urdf(tmp_path / "a.urdf", ("Rotation", "Pitch", "Elbow", "Wrist_Pitch", "Wrist_Roll", "Jaw"))
    truth = so101_motion()
    recorded = shares(truth, -100, 100, LIMITS)
    recorded[:, 5] = shares(truth[:, 5:], 0, 100, LIMITS[5:])[:, 0]
    data = write_plain(tmp_path / "d", recorded, [f"{n}.pos" for n in SO101], action=recorded)
    episode, said = bring(data, tmp_path / "o", urdf=urdf, units={"revolute": "-100..100", "Jaw": "0..100"})
    assert np.abs(episode.joint("so101", "position") - truth).max() < 1e-4
    assert any("SO-100/SO-101 by name: Rotation = shoulder_pan.pos" in line for line in said)
    ends = np.clip(recorded * 1.2, -100, 100)
    ends[:, 5] = recorded[:, 5]
    ends[-3:, :5] = 100.0
    data = write_plain(tmp_path / "ends", ends, [f"{n}.pos" for n in SO101])
    _, said = bring(data, tmp_path / "o2", urdf=urdf, units={"Jaw": "0..100"})
    assert any("-100..100 (inferred" in line for line in said), "numbers that stand at exactly 100 were clipped there"
    old = np.concatenate([truth[:, :5] * 180 / np.pi, recorded[:, 5:]], 1)
    old[:, 1], old[:, 2] = 90 - old[:, 1], old[:, 2] + 90
    data = write_plain(tmp_path / "old", old, [f"main_{n}" for n in SO101])
    given = {
        "units": {"revolute": "deg", "Jaw": "0..100"},
        "flip": ("Pitch",),
        "offset": {"Pitch": 90.0, "Elbow": -90.0},
    }
    episode, _ = bring(data, tmp_path / "o3", urdf=urdf, **given)
    assert np.abs(episode.joint("so101", "position") - truth).max() < 1e-4


def test_state_in_several_features_without_names_and_pictures_in_the_table(tmp_path: Path) -> None:
    q = panda_motion()
    data = write_plain(
        tmp_path / "d", q[:, :7], None, state_key="joint_position", key="exterior_image_1_left", embedded=True,
        extra={"gripper_position": 1 - q[:, 7] / 0.04},
    )  # fmt: skip
    cameras = {"exterior_image_1_left": CAMERA["front"]}
    keys = {"state_keys": ("joint_position", "gripper_position"), "entries": (*PANDA[:7], "grip")}
    assert "no feature 'observation.state'" in refused(data, tmp_path / "o", cameras=cameras)
    said = refused(data, tmp_path / "o", cameras=cameras, state_keys=keys["state_keys"])
    assert "joint_position.0" in said
    assert "gripper" in refused(data, tmp_path / "o", cameras=cameras, **keys), "nothing names the gripper's entry"
    grip = {"panda_hand": "grip"}
    assert "--gripper-range" in refused(data, tmp_path / "o", cameras=cameras, gripper=grip, **keys)
    episode, _ = bring(data, tmp_path / "o", cameras=cameras, gripper=grip, gripper_range=(1.0, 0.0), **keys)
    assert np.abs(episode.joint("Panda", "position") - q).max() < 1e-6, "fingers follow from the openness"
    assert np.allclose(episode.gripper_openness("Panda")[:, 0], q[:, 7] / 0.04, atol=1e-6)
    assert np.array_equal(episode.image("exterior_image_1_left", "rgb", 5), picture(5))


def test_a_gripper_of_which_nothing_is_known_is_missing_and_never_open(tmp_path: Path) -> None:
    q = panda_motion()
    data = write_plain(tmp_path / "d", q[:, :7], NAMES[:7], action=np.roll(q[:, :7], -1, 0))
    assert "say --gripper panda_hand=missing" in refused(data, tmp_path / "o")
    run = tmp_path / "run"
    given = [
        "--run",
        run,
        "--urdf",
        URDF,
        "--cameras",
        CASES / "front.json",
        "--gripper",
        "panda_hand=missing",
        "--quiet",
    ]
    assert main(["import", "lerobot", str(data), *map(str, given)]) == 0
    options = ExportOptions(video=VideoOptions.of("h264"))
    export([run], tmp_path / "x", options, Selection(include_sim=True))
    vectors = Dataset(tmp_path / "x").schema.vectors
    assert vectors["observation.state"].names == tuple(NAMES[:7]) == vectors["action"].names


def test_a_gripper_entry_is_read_by_its_stated_range(tmp_path: Path) -> None:
    q = panda_motion()
    recorded = np.concatenate([q, 100 * q[:, 7:8] / 0.04], 1)
    data = write_plain(tmp_path / "d", recorded, [*NAMES, "panda_hand.open"])
    assert "likely 0 100" in refused(data, tmp_path / "o")
    assert "counts the other way round" in refused(data, tmp_path / "o", gripper_range=(100.0, 0.0))
    episode, _ = bring(data, tmp_path / "o", gripper_range=(0.0, 100.0))
    assert np.allclose(episode.gripper_openness("Panda")[:, 0], q[:, 7] / 0.04, atol=1e-6)


def test_a_clock_that_drifts_is_refused_by_number_or_resampled(tmp_path: Path) -> None:
    q = panda_motion(41)
    stamps = np.arange(41) / 20 * 1.05 + 3.0
    data = write_plain(tmp_path / "d", q, NAMES, action=q, stamps=stamps)
    said = refused(data, tmp_path / "o")
    assert "row 1 is at 0.0525 s, where 1 / 20 is 0.0500 s" in said
    assert "19.048 per second" in said
    episode, _ = bring(data, tmp_path / "o", resample=True)
    assert len(episode) == 43
    time = np.arange(43) / 20
    wanted = np.stack([np.interp(time, stamps - 3.0, column) for column in q.astype(np.float32).T.astype(float)], 1)
    assert np.abs(episode.joint("Panda", "position") - wanted).max() < 2e-6
    assert np.allclose(episode.time_s, time)
    shown = [int(np.argmax(episode.image("front", "rgb", k)[28, :, 0] > 180)) for k in range(14)]
    assert shown == [3 * round(k / 1.05) for k in range(14)], "the nearest row's picture, never a shifted one"
    backwards = np.arange(41) / 20
    backwards[7] = 0.1
    data = write_plain(tmp_path / "b", q, NAMES, stamps=backwards)
    assert "the timestamp of row 7" in refused(data, tmp_path / "o2", resample=True)


def test_short_arrays_and_videos_are_errors_and_nothing_is_filled_in(tmp_path: Path) -> None:
    q = panda_motion()
    cells = q.tolist()
    cells[4] = cells[4][:5]
    with pytest.raises(ExportError, match=r"row 4 of observation.state in episode 0 has 5 numbers; info.json says 9"):
        bring(write_plain(tmp_path / "a", q, NAMES, cells=cells), tmp_path / "o")
    data = write_plain(tmp_path / "b", q, NAMES, pictures=[picture(k) for k in range(9)])
    assert "has 9 pictures from frame 0; the episode has 12 rows" in refused(data, tmp_path / "o")
    holes = q.copy()
    holes[3, 2] = np.nan
    data = write_plain(tmp_path / "c", holes, NAMES)
    assert "row 3 of observation.state holds nan in entry 2" in refused(data, tmp_path / "o")
    data = write_plain(tmp_path / "d", q, NAMES)
    info = data / "meta/episodes.jsonl"
    info.write_text(info.read_text("utf-8").replace('"length": 12', '"length": 15'), "utf-8")
    with pytest.raises(ExportError, match="has 12 rows; expected 15"):
        bring(data, tmp_path / "o")


def test_a_video_with_another_clock_is_refused(tmp_path: Path) -> None:
    q = panda_motion(30)
    data = write_plain(tmp_path / "d", q, NAMES)
    other = write_plain(tmp_path / "e", q, NAMES, fps=19)
    video = "videos/chunk-000/observation.images.front/episode_000000.mp4"
    shutil.copy(other / video, data / video)
    assert "the video's clock is another than the rows'" in refused(data, tmp_path / "o")


def test_pictures_that_stand_still_and_actions_with_an_offset_are_named(tmp_path: Path) -> None:
    q = panda_motion(40)
    action = np.roll(q, -1, 0)
    action[-1] = q[-1]
    action[:, 1] += 0.087
    data = write_plain(tmp_path / "d", q, NAMES, action=action, pictures=[picture(k - k % 4) for k in range(40)])
    _, said = bring(data, tmp_path / "o")
    (still,) = [line for line in said if "stand still" in line]
    assert "pictures of front stand still while joints move in 30 of 39 moving frames (1-3, 5-7" in still
    assert "about 4 rows share a picture: action chunks recorded per picture?" in still
    (offset,) = [line for line in said if "calibration offset" in line]
    assert "joint panda_joint2: the action is +0.087" in offset
    data = write_plain(tmp_path / "e", q, NAMES, action=np.roll(q, -1, 0))
    _, said = bring(data, tmp_path / "o2")
    assert not [line for line in said if "still" in line or "offset" in line]


def test_units_that_a_dataset_states_are_used(tmp_path: Path) -> None:
    q = panda_motion()
    q[:, :7] *= 180 / np.pi * 0.02  # a few degrees, which would fit as radians
    names = [f"{n}.deg" for n in PANDA[:7]] + [f"{n}.pos" for n in PANDA[7:]]
    q[:, 3], q[:, 5] = -90, 90
    episode, said = bring(write_plain(tmp_path / "d", q, names), tmp_path / "o")
    assert np.abs(episode.joint("Panda", "position")[:, :7] - q[:, :7] * np.pi / 180).max() < 1e-6
    assert any("deg (stated by the dataset)" in line for line in said)


def test_no_action_is_imported_without_targets(tmp_path: Path) -> None:
    q = panda_motion()
    episode, _ = bring(
        write_plain(tmp_path / "d", q, NAMES, action=np.diff(q, axis=0, append=q[-1:])),
        tmp_path / "o",
        action_key="none",
    )
    assert episode.header.joint_channels == ()
    with pytest.raises(InputError, match="deltas"):
        bring(tmp_path / "d", tmp_path / "p")


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    q, rows = panda_motion(), "data/chunk-000/episode_000000.parquet"
    video, episodes = "videos/chunk-000/observation.images.front/episode_000000.mp4", "meta/episodes.jsonl"
    for number, (name, damage, found) in enumerate((
        (video, None, "episode_000000.mp4 is missing"), (video, 200, "is no readable video"),
        (rows, None, "is missing; episode 0"),
        (rows, 200, "is no readable parquet file"), (episodes, None, "lists no episode"), (episodes, 5, "line 1 is not JSON"),
    )):  # fmt: skip
        data = write_plain(tmp_path / str(number), q, NAMES)
        content = (data / name).read_bytes()
        (data / name).unlink() if damage is None else (data / name).write_bytes(content[:damage])
        assert found in refused(data, tmp_path / "o")
    data = write_plain(tmp_path / "unnamed", q, None)
    assert "name them in order: --entries" in refused(data, tmp_path / "o")
    episode, _ = bring(data, tmp_path / "o", entries=PANDA)
    assert np.abs(episode.joint("Panda", "position") - q).max() < 1e-6


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("observation.images.front", "front"),
        ("observation.image.front", "front"),
        ("observation.image", "image"),
        ("observation.front_camera_of_the_left_arm", "front_camera_of_the_left_arm"),
        ("a_camera_with_a_long_name", "a_camera_with_a_long_name"),
        ("image", "image"),
    ],
)
def test_a_picture_feature_s_short_name_is_what_follows_the_longest_prefix(key: str, name: str) -> None:
    assert camera_name(key) == name
