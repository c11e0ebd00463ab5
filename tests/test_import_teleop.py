# SPDX-License-Identifier: Apache-2.0
"""Recorded demonstrations through the command line: a LeRobot dataset comes in, and gets skeleton, variants and takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arrow_driver
import cv2
import numpy as np
import pytest
from export_runs import tree

from retake.core.episode import open_episode
from retake.core.export.reader import Dataset
from retake.core.export.urdf_out import robot_urdf
from retake.core.files import read_json, write_json
from retake.core.importers import lerobot_cli as import_cli
from retake.core.skeleton import open_skeleton
from retake.core.takes import fan_out
from retake.core.variants.make import read_frame

pytest.importorskip("pyarrow")
STAGE = Path(__file__).resolve().parents[1] / "data/stages/pick_place/scene.usda"


class StillBackend:
    """What a video model is given (first frame, skeleton), and nothing else, as a video: no maps, no objects."""

    name, version, domain, licence = "still", "1", "generated", "Apache-2.0"

    def generate(self, request: Any, progress: Any, check_cancel: Any) -> Iterator[np.ndarray]:
        first = read_frame(request.variant / "frame.png")
        skeleton = open_skeleton(request.skeleton)
        for index in range(request.frames):
            control = cv2.resize(skeleton.frame(request.start + index), first.shape[1::-1])
            yield first if index == 0 else np.maximum(first, control)


def arrow(*arguments: str | Path) -> int:
    return arrow_driver.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def teleop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset d/ with its robot.urdf and cameras.json, and the run sim/ that it came from."""
    root = tmp_path_factory.mktemp("teleop")
    small = ["--set", "capture.overrides={frames: 8}"]
    assert arrow("capture", root / "sim", *arrow_driver.SMALL, *small) == 0
    assert arrow("skeleton", root / "sim", "--force") == 0
    assert arrow("export", root / "sim", "--include-sim", "--codec", "lossless", "--out", root / "d", "--quiet") == 0
    episode = open_episode(root / "sim/episode")
    (root / "robot.urdf").write_text(robot_urdf(episode.header.robots[0]), "utf-8")
    camera = episode.camera("front", 0)
    T_camera_base = camera.T_camera_world @ episode.link_poses(episode.header.robots[0].name)[0, 0]
    write_json(root / "cameras.json", {"front": {"K": camera.K.tolist(), "T_camera_world": T_camera_base.tolist()}})
    return root


def imported(teleop: Path, run: Path, *more: str) -> int:
    given = ["--urdf", teleop / "robot.urdf", "--cameras", teleop / "cameras.json", "--episodes", "0", *more]
    return arrow("import", "lerobot", teleop / "d", "--run", run, *given)


def test_a_demonstration_gets_takes(
    teleop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(fan_out.BACKENDS, "still", "test_import_teleop:StillBackend")
    run, source = tmp_path / "run", open_episode(teleop / "sim/episode")
    assert imported(teleop, run, "--licence", "own") == 0
    assert "Import: 8/8" in capsys.readouterr().err
    episode = open_episode(run / "episode")
    name, original = episode.header.robots[0].name, source.header.robots[0].name
    assert episode.header.motion_source == "recorded"
    assert np.allclose(episode.joint(name, "position"), source.joint(original, "position"), atol=1e-6)
    assert np.allclose(episode.joint(name, "target"), source.joint(original, "target"), atol=1e-6)
    assert all(np.array_equal(episode.image("front", "rgb", k), source.image("front", "rgb", k)) for k in range(8))
    assert arrow("skeleton", run, "--force", "--set", "skeleton.size=[64, 48]") == 0
    drawn, wanted = open_skeleton(run / "skeleton/front"), open_skeleton(teleop / "sim/skeleton/front")
    difference = [np.abs(drawn.frame(k).astype(int) - wanted.frame(k)).mean() for k in range(8)]
    assert max(difference) < 1.0, "float32 in the dataset moves a line by less than a pixel"
    assert drawn.frame(0).any()

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "bun_warehouse.png"), 255 - source.image("front", "rgb", 0))
    folder = ["--backend", "folder", "--set", f"variants.settings={{folder: '{pictures}', licence: own}}"]
    assert arrow("variants", run, "--force", "--preset", "bun_warehouse") == 2
    assert "recorded no depth" in capsys.readouterr().err
    assert arrow("variants", run, "--force", "--preset", "bun_warehouse", *folder) == 2
    assert "variants.gate=false" in capsys.readouterr().err
    assert arrow("variants", run, "--force", "--preset", "bun_warehouse", *folder, "--set", "variants.gate=false") == 0
    assert arrow("takes", run, "--force") == 2
    assert "from the video model" in capsys.readouterr().err
    assert arrow("takes", run, "--force", "--backend", "still") == 0
    assert arrow("report", run) == 0
    (take,) = (read_json(path) for path in run.glob("takes/*/*/take.json"))
    assert (take["motion_source"], take["domain"], take["frames"]) == ("recorded", "generated", 8)
    export = [
        "export",
        run,
        "--unverified",
        "--only-commercial",
        "--codec",
        "h264",
        "--quiet",
        "--out",
        tmp_path / "out",
    ]
    assert arrow(*export) == 0
    (row,) = Dataset(tmp_path / "out").episodes()
    assert row.provenance["motion_source"] == "recorded"
    assert row.provenance["licence_source"] == "own"
    assert "recorded" in (tmp_path / "out/README.md").read_text("utf-8")


def test_a_refused_import_leaves_no_run_and_a_run_keeps_its_episode(
    teleop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, message in (
        (["--episodes", "7"], "episodes 0 … 0"), (["--robot", "x.obj"], "expected a .urdf"), (["--joint", "yaw"], "NAME=ENTRY"),
        (["--cameras", str(tmp_path / "none.json")], "none.json"), (["--episodes", "0", "1"], "a run holds one episode"),
    ):  # fmt: skip
        assert imported(teleop, tmp_path / "run", *wrong) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists(), "a run without an episode would be simulated by `retake run`"
    assert arrow("import", "lerobot", tmp_path / "nothing", "--run", tmp_path / "run") == 2
    assert "does not exist" in capsys.readouterr().err
    assert imported(teleop, tmp_path / "run") == 0
    before = tree(tmp_path / "run")
    assert imported(teleop, tmp_path / "run") == 2
    assert "holds an episode already" in capsys.readouterr().err
    assert tree(tmp_path / "run") == before


def test_the_cameras_of_a_usd_stage_are_read_from_it() -> None:
    pytest.importorskip("pxr")
    sizes = {"front": (640, 480), "wrist": (320, 240)}
    prims = {"front": "/World/Camera", "wrist": "/World/Panda/panda_hand/wrist_camera"}
    cameras, T_world_base = import_cli.load_cameras(STAGE, sizes, prims)
    robot = import_cli.load_robot(STAGE)
    assert (cameras["front"].link, cameras["wrist"].link) == ("", "panda_hand")
    assert robot.link_index("panda_hand") > 0
    assert np.allclose(cameras["front"].K[:2, 2], (320, 240))
    assert T_world_base.shape == (4, 4)
    for wrong in ({"front": "/World/Nothing"}, {"side": "/World/Camera"}, {}):
        with pytest.raises(import_cli.InputError, match=r"valid: |--camera NAME=PRIM"):
            import_cli.load_cameras(STAGE, sizes, wrong)
