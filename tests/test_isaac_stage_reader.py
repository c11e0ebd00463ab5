# SPDX-License-Identifier: Apache-2.0
"""What of a stage is recorded, and what an episode's header says of it. Of retake.isaac.stage_reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.stage import make_stage
from pxr import Sdf, Usd, UsdGeom

from retake.core.camera import Lens
from retake.core.episode import CHANNELS
from retake.core.errors import StageError
from retake.core.files import sha256_bytes
from retake.isaac.stage_reader import CameraChoice, StageIdentity, make_reader, read_content, stage_hash
from retake.usd.stage import stage_sha256

FRONT, SIDE, WRIST = "/World/Camera0", "/World/Camera1", "/World/Arm0/hand/Wrist"


@pytest.fixture(scope="module")
def stage() -> Usd.Stage:
    return make_stage(robots=2, cameras=2, wrist=True, metres_per_unit=0.01, up_axis="Y")


def test_where_nothing_is_chosen_every_robot_the_first_camera_and_every_body_are_recorded(stage: Usd.Stage) -> None:
    content = read_content(stage)
    assert [robot.spec.prim_path for robot in content.robots] == ["/World/Arm0", "/World/Arm1"]
    (camera,) = content.cameras
    assert (camera.size, camera.channels, camera.static) == ((640, 480), CHANNELS, camera.prim_path != WRIST)
    assert camera.name == camera.prim_path.rsplit("/", 1)[-1]
    assert camera.near_far_m == pytest.approx((0.01, 100))
    assert [item.spec.prim_path for item in content.objects] == ["/World/Packet"]
    assert (content.units.metres_per_unit, content.units.up_axis) == (0.01, "Y")
    assert (content.calibrations, content.notes) == ({}, ())


def test_chosen_cameras_are_recorded_in_their_order_each_as_it_was_asked_for(stage: Usd.Stage) -> None:
    choices = [
        CameraChoice(WRIST, (16, 12), channels=("instances", "depth")), CameraChoice(SIDE, name="mine", channels=()),
        CameraChoice("", (8, 9)), CameraChoice(FRONT, (20, 10), channels=("rgb",)),
    ]  # fmt: skip
    first = read_content(stage).cameras[0].prim_path
    specs = read_content(stage, cameras=choices).cameras
    assert [(spec.prim_path, spec.size) for spec in specs] == [
        (WRIST, (16, 12)), (SIDE, (640, 480)), (first, (8, 9)), (FRONT, (20, 10)),
    ]  # fmt: skip
    assert [spec.channels for spec in specs] == [("rgb", "depth", "instances"), ("rgb",), CHANNELS, ("rgb",)]
    assert [spec.static for spec in specs] == [spec.prim_path != WRIST for spec in specs], "a wrist moves with its link"
    assert specs[1].name == "mine"
    plain = read_content(stage, cameras=[CameraChoice(FRONT), CameraChoice(WRIST)])
    assert [spec.name for spec in plain.cameras] == ["Camera0", "Wrist"]


def test_a_camera_whose_prim_moves_over_time_is_not_static() -> None:
    stage = make_stage()
    assert read_content(stage, cameras=[CameraChoice(FRONT)]).cameras[0].static
    move = UsdGeom.Xformable(stage.GetPrimAtPath(FRONT)).AddTranslateOp(opSuffix="drive")
    move.Set((0, 0, 0), 0.0)
    move.Set((1, 0, 0), 10.0)
    assert not read_content(stage, cameras=[CameraChoice(FRONT)]).cameras[0].static


def test_what_is_unusable_leaves_a_note_where_it_was_not_asked_for() -> None:
    stage = make_stage(cameras=2)
    stage.GetPrimAtPath(FRONT).GetAttribute("focalLength").Set(0.0)
    content = read_content(stage)
    assert [camera.prim_path for camera in content.cameras] == [SIDE]
    (note,) = content.notes
    assert "camera left out" in note
    assert "Camera0" in note
    assert read_content(stage, cameras=[CameraChoice(SIDE)]).notes == (), "nobody looked for another"
    mixed = read_content(stage, cameras=[CameraChoice(SIDE, name="a"), CameraChoice("", name="b")])
    assert [camera.prim_path for camera in mixed.cameras] == [SIDE, SIDE]
    assert len(mixed.notes) == 1
    with pytest.raises(StageError, match="focalLength is 0"):
        read_content(stage, cameras=[CameraChoice(FRONT)])


def test_a_saved_stage_is_known_by_its_files_and_any_other_by_its_text(tmp_path: Path) -> None:
    path = tmp_path / "s.usda"
    stage = make_stage(path=str(path))
    assert stage_hash(stage) == sha256_bytes(stage.GetRootLayer().ExportToString().encode()), "unsaved"
    stage.GetRootLayer().Save()
    saved = stage_hash(stage)
    assert saved == stage_sha256(path)
    stage.GetPrimAtPath("/World/Table").GetAttribute("size").Set(3.0)
    edited = stage_hash(stage)
    assert edited == sha256_bytes(stage.GetRootLayer().ExportToString().encode()) != saved
    stage.GetRootLayer().Reload()
    assert stage_hash(stage) == saved
    path.unlink()
    assert stage_hash(stage) == sha256_bytes(stage.GetRootLayer().ExportToString().encode())
    memory = make_stage()
    assert stage_hash(memory) == sha256_bytes(memory.GetRootLayer().ExportToString().encode())


def made(stage: Usd.Stage, **changes: Any) -> Any:
    content = changes.pop("content", None) or read_content(stage, cameras=[CameraChoice(FRONT, (32, 24))])
    told = {"task": "pick", "fps": 15.0, "physics_dt_s": 1 / 60, **changes}
    return make_reader(StageIdentity.of(stage, content), content, **told)


def test_a_header_says_what_holds_for_the_whole_episode(stage: Usd.Stage) -> None:
    reader = made(stage)
    header = reader.header
    assert (header.task, header.fps, header.physics_dt_s, header.seed) == ("pick", 15.0, 1 / 60, 0)
    assert (header.simulator, header.simulator_version, header.settings) == ("isaac-sim", "", {})
    assert header.joint_channels == ("velocity", "effort", "target")
    assert header.stage_sha256 == stage_hash(stage)
    owners = {instance.owner for instance in header.instances}
    assert {"robot:Arm0", "robot:Arm1"} <= owners
    assert any(owner.startswith("object:") for owner in owners)
    assert [robot.prim_path for robot in header.robots] == ["/World/Arm0", "/World/Arm1"]
    told = made(stage, seed=7, simulator_version="6.0", efforts=False, settings={"a": 1}).header
    assert (told.seed, told.simulator_version, told.settings) == (7, "6.0", {"a": 1})
    assert told.joint_channels == ("velocity", "target"), "an engine that measures no efforts"


@pytest.mark.parametrize("undistort", [False, True])
def test_a_lens_is_recorded_or_straightened_and_said(stage: Usd.Stage, undistort: bool) -> None:
    content = read_content(stage, cameras=[CameraChoice(FRONT, (32, 24)), CameraChoice(SIDE, (32, 24))])
    lens = Lens("opencv-pinhole", (0.1, 0.0, 0.0, 0.0))
    front, side = content.cameras
    content = replace(content, cameras=(replace(front, lens=lens), side))
    header = made(stage, content=content, undistort=undistort, settings={"a": 1}).header
    assert [camera.lens for camera in header.cameras] == [None if undistort else lens, None]
    assert header.settings == {"a": 1, **({"undistorted": {"Camera0": lens.to_json()}} if undistort else {})}
    assert made(stage, content=content).header.cameras[0].lens == lens, "nobody asked for a pinhole"


def test_objects_that_stand_keep_the_pose_of_the_stage(stage: Usd.Stage) -> None:
    reader = made(stage)
    (packet,) = read_content(stage).objects
    assert reader._static.shape == (1, 4, 4)
    assert np.allclose(reader._static[0], packet.T_world_object)
    assert np.allclose(packet.T_world_object[:3, 3], [0.5, -0.05, 0.1])
    assert reader._movable.tolist() == [True]
    empty = Usd.Stage.CreateInMemory()
    empty.GetRootLayer().TransferContent(stage.GetRootLayer())
    empty.RemovePrim(Sdf.Path("/World/Packet"))
    assert made(empty)._static.shape == (0, 4, 4)
