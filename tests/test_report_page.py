# SPDX-License-Identifier: Apache-2.0
"""What the page of a run is told: the episode's own numbers, every world with its takes, and pictures that it can play."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from export_runs import write_take
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import Episode, open_episode
from retake.core.episode.events import object_events
from retake.core.errors import RunError
from retake.core.files import read_json, write_json
from retake.core.report.clips import SPRITE_WIDTH, playable, simulation_clip
from retake.core.report.page import make_report
from retake.core.run_layout import SKELETON_OVERLAY, SKELETON_RECORD, SKELETON_VIDEO
from retake.core.run_store import RunDirectory, create_run
from retake.core.video import write_video

FRAMES, SIZE = 9, (64, 48)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A front and a wrist camera; a skeleton of one; takes that passed, failed, were changed, and lost their variant."""
    run = create_run(tmp_path_factory.mktemp("page") / "run", {"takes": {"seed": 1}})
    episode = make_scene_episode(run.path / "episode", frames=FRAMES, size=SIZE, wrist=True, shadows=False)
    for world, status in ((0, "pass"), (1, "fail"), (2, "pass")):
        write_take(run.path, episode, world, status=status, frames=4)
    write_take(run.path, episode, 0, name="v000-s2/front", status=None, frames=4)
    for variant in ("000", "001", "002"):
        folder = run.variants_folder / variant / "front"
        (folder / "frame.png").write_bytes(b"")
        record = read_json(folder / "variant.json")
        write_json(folder / "variant.json", {**record, "recipe": {"own": variant}})
    (run.variants_folder / "002" / "front" / "variant.json").unlink()
    with (run.take_folder("v001/front") / "take.mp4").open("ab") as stream:
        stream.write(b"changed")
    skeleton = run.skeleton("front")
    for name in (SKELETON_VIDEO, SKELETON_OVERLAY):
        write_video(skeleton / name, (np.full((48, 64, 3), 9 * k, np.uint8) for k in range(FRAMES)), 15)
    write_json(skeleton / SKELETON_RECORD, {"sha256": "ab" * 32})
    return run


def told(run: RunDirectory, **more: Any) -> dict[str, Any]:
    text = make_report(run, **more).read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page(run: RunDirectory) -> dict[str, Any]:
    return told(run)


@pytest.fixture(scope="module")
def episode(run: RunDirectory) -> Episode:
    return open_episode(run.episode)


def test_the_episode_is_described_by_its_header(page: dict[str, Any], episode: Episode) -> None:
    said, header = page["episode"], episode.header
    assert (said["frames"], said["fps"], said["seconds"]) == (FRAMES, 15, 0.6)
    assert said["physics_dt_ms"] == pytest.approx(1e3 * header.physics_dt_s, abs=1e-4)
    assert said["simulator"] == "analytic 1"
    assert said["robots"] == ["arm"]
    assert (said["sha256"], said["seed"], said["task"]) == (episode.content_sha256, header.seed, header.task)
    assert page["config"] == {"takes": {"seed": 1}}
    assert page["check"] is None


def test_charts_are_the_recorded_series(page: dict[str, Any], episode: Episode) -> None:
    plots = page["plots"]
    assert plots["time_s"] == pytest.approx(episode.time_s, abs=1e-4)
    joints, gripper, height = plots["charts"]
    robot = episode.header.robots[0]
    arm = [n for n in robot.dof_names if not n.startswith("finger")]
    assert [line["name"] for line in joints["lines"]] == [*arm, *(f"{n} commanded" for n in arm)]
    assert [bool(line.get("dashed")) for line in joints["lines"]] == [False] * len(arm) + [True] * len(arm)
    for channel, lines in (("position", joints["lines"][: len(arm)]), ("target", joints["lines"][len(arm) :])):
        for name, line in zip(arm, lines, strict=True):
            known = episode.joint("arm", channel)[:, robot.dof_index(name)]
            assert line["y"] == pytest.approx(known, abs=6e-5)
            assert all(len(f"{v:.10g}".partition(".")[2]) <= 4 for v in line["y"])
    assert gripper["lines"][0]["y"] == pytest.approx(episode.gripper_openness("arm")[:, 0], abs=6e-5)
    (line,) = height["lines"]
    assert line["name"] == "packet", "the tray never moves"
    assert line["y"] == pytest.approx(episode.object_poses[:, 0, 2, 3], abs=6e-5)
    (event,) = [e for e in object_events(episode) if e.object == "packet"]
    moments = {"grasp": event.grasp, "release": event.release, "settled": event.settled}
    assert {e["name"]: e["frame"] for e in plots["events"]} == {
        f"{name} packet": frame for name, frame in moments.items() if frame is not None
    }


def test_cameras_have_their_clip_and_the_skeleton_that_was_drawn(page: dict[str, Any], run: RunDirectory) -> None:
    front, wrist = page["cameras"]
    assert (front["name"], wrist["name"], wrist["skeleton"]) == ("front", "wrist", None)
    assert front["skeleton"]["sha256"] == "ab" * 32
    for clip in (front["clip"], wrist["clip"], front["skeleton"]["control"], front["skeleton"]["overlay"]):
        assert clip["frames"] == FRAMES
        assert (run.report.parent / clip["src"]).is_file()
    assert (
        len(
            {front["clip"]["src"], wrist["clip"]["src"], *(front["skeleton"][k]["src"] for k in ("control", "overlay"))}
        )
        == 4
    )


def test_takes_stand_below_their_variant_and_without_one_apart(page: dict[str, Any]) -> None:
    first, second = page["variants"]
    assert [first["id"], second["id"]] == ["000/front", "001/front"]
    assert (first["recipe"], first["frame"]) == ({"own": "000"}, "variants/000/front/frame.png")
    assert {t["id"] for t in first["takes"]} == {"v000/front", "v000-s2/front"}
    takes = {t["id"]: t for t in (*first["takes"], *second["takes"], *page["orphans"])}
    assert [t["id"] for t in page["orphans"]] == ["v002/front"]
    assert (takes["v000/front"]["verdict"]["status"], takes["v000-s2/front"]["verdict"]) == ("pass", None)
    changed = takes["v001/front"]
    assert (changed["status"], changed["clip"]) == ("damaged", None)
    assert "was changed" in changed["reason"]
    assert takes["v000/front"]["clip"]["frames"] == 4
    assert takes["v000/front"]["video"] == "takes/v000/front/take.mp4"


def test_progress_goes_over_every_camera_to_the_end(run: RunDirectory) -> None:
    steps: list[tuple[int, int, str]] = []
    told(run, progress=lambda *step: steps.append(step))
    assert steps == [(0, 4, "front"), (1, 4, "wrist"), (2, 4, "takes"), (4, 4, "")]


def test_a_simulation_is_encoded_once(run: RunDirectory, episode: Episode, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    simulation_clip(episode, "front", tmp_path, page)
    video = tmp_path / "simulation_front.mp4"
    before = video.stat().st_mtime_ns
    simulation_clip(episode, "front", tmp_path, page)
    assert video.stat().st_mtime_ns == before
    stamp = read_json(tmp_path / "simulation_front.json")
    for change in ({"source": "another"}, {"codec": "none"}):
        write_json(tmp_path / "simulation_front.json", {**stamp, **change})
        simulation_clip(episode, "front", tmp_path, page)
        assert video.stat().st_mtime_ns > before
        before = video.stat().st_mtime_ns
    video.unlink()
    assert simulation_clip(episode, "front", tmp_path, page)["frames"] == FRAMES


def test_without_an_episode_there_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to report yet"):
        make_report(create_run(tmp_path / "run", {}))


@settings(max_examples=8)
@given(count=st.integers(1, 12), width=st.integers(20, 400))
def test_what_no_browser_plays_is_one_picture_of_all_frames(
    tmp_path_factory: pytest.TempPathFactory, count: int, width: int
) -> None:
    """Row by row in a square that is just large enough, no frame wider than allowed."""
    folder = tmp_path_factory.mktemp("sprite")
    video, width = folder / "world" / "front" / "take.mp4", width // 2 * 2
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETAKE_NO_PYAV", "1")
        write_video(video, (np.full((32, width, 3), 20 * k, np.uint8) for k in range(count)), 10)
        found = playable(video, folder, folder / "report.html")
    assert found["kind"] == "sprite"
    wide = min(width, SPRITE_WIDTH)
    assert found["size"] == [found["width"], found["height"]] == [wide, round(32 * wide / width)]
    columns, rows = found["columns"], -(-count // found["columns"])
    assert (columns - 1) ** 2 < count <= columns**2
    sheet = cv2.imread(str(folder / found["src"]))
    assert sheet.shape[:2] == (rows * found["height"], columns * wide)
    for k in range(rows * columns):
        y, x = k // columns * found["height"], k % columns * wide
        level = sheet[y + found["height"] // 2, x + wide // 2].mean()
        assert abs(level - (20 * k if k < count else 0)) < 8


def test_a_simulator_is_named_once(run: RunDirectory, episode: Episode, monkeypatch: pytest.MonkeyPatch) -> None:
    from retake.core.report import page as module

    for simulator, version, said in (
        ("newton", "newton 1.2", "newton 1.2"),
        ("isaac", "6.0", "isaac 6.0"),
        ("x", "", "x"),
    ):
        header = replace(episode.header, simulator=simulator, simulator_version=version)
        monkeypatch.setattr(module, "open_episode", lambda path, header=header: replace(episode, header=header))
        assert told(run)["episode"]["simulator"] == said
