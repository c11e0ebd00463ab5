# SPDX-License-Identifier: Apache-2.0
"""Clips of the report: when a simulation is encoded anew, what the fallback picture is called; and what the page rounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from export_runs import make_header, write_episode

from retake.core.errors import Cancelled
from retake.core.files import read_json, write_json
from retake.core.report import clips, page
from retake.core.run_store import create_run
from retake.core.video import write_video


class Episode:
    """Three pictures of a camera."""

    content_sha256, header = "ab" * 32, SimpleNamespace(fps=12)

    def __len__(self) -> int:
        return 3

    def image(self, camera: str, channel: str, index: int) -> tuple[str, str, int]:
        return camera, channel, index


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was encoded: the file's name, the pictures, the rate."""
    made: list[Any] = []

    def write(path: Path, frames: Iterable[Any], fps: float) -> None:
        made.append((path.name, [*frames], fps))
        path.write_bytes(b"video")

    monkeypatch.setattr(clips, "write_video", write)
    monkeypatch.setattr(clips, "playable", lambda video, folder, page: {"src": video.name})
    return made


def test_a_simulation_is_encoded_again_only_where_that_would_be_better(
    tmp_path: Path, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where H.264 came to be, and never because it is gone; and where the file or its note is lost."""
    note = tmp_path / "simulation_front.json"

    def encoded(codec: str) -> bool:
        monkeypatch.setattr(clips, "codec_available", lambda: codec)
        made.clear()
        assert clips.simulation_clip(Episode(), "front", tmp_path, tmp_path / "r.html") == {
            "src": "simulation_front.mp4"
        }  # type: ignore[arg-type]
        return bool(made)

    assert encoded("mjpeg")
    assert made == [("simulation_front.mp4", [("front", "rgb", k) for k in range(3)], 12)]
    assert not encoded("mjpeg")
    assert encoded("h264")
    assert read_json(note)["codec"] == "h264"
    assert not encoded("h264")
    assert not encoded("mjpeg")
    note.unlink()
    assert encoded("h264")
    (tmp_path / "simulation_front.mp4").unlink()
    assert encoded("h264")


def test_a_simulation_whose_encoding_is_cancelled_leaves_no_note(tmp_path: Path, made: list[Any]) -> None:
    calls = iter([None])

    def check() -> None:
        if next(calls, "over") == "over":
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        clips.simulation_clip(Episode(), "front", tmp_path, tmp_path / "r.html", check)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_fallback_picture_is_named_by_its_take_and_its_frames_are_as_wide_as_the_page_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETAKE_NO_PYAV", "1")
    video = tmp_path / "takes" / "my_world-s1" / "front" / "take.mp4"
    write_video(video, (np.full((32, 640, 3), 90, np.uint8) for _ in range(2)), 10)
    found = clips.playable(video, tmp_path / "report", tmp_path / "report.html")
    assert found["src"] == "report/my_world-s1_front_take.jpg"
    assert (tmp_path / found["src"]).is_file()
    assert (found["kind"], found["size"], found["frames"], found["columns"]) == ("sprite", [320, 16], 2, 2)


def test_numbers_of_the_page_are_rounded_as_far_as_anybody_reads_them(tmp_path: Path) -> None:
    """Curves and times to a ten-thousandth, the length to a hundredth of a second, the step to a tenth of a microsecond."""
    episode = write_episode(tmp_path / "e", make_header(3, fps=7), 4)
    said, plots = page._episode(episode), page._plots(episode)
    assert (said["seconds"], said["physics_dt_ms"], said["frames"]) == (0.57, 2.0202, 4)
    assert plots["time_s"] == [0.0, 0.1429, 0.2857, 0.4286]
    robot = episode.header.robots[0]
    known = {name: episode.joint(robot.name, "position")[:, i] for i, name in enumerate(robot.dof_names)}
    known |= {f"{n} commanded": episode.joint(robot.name, "target")[:, i] for i, n in enumerate(robot.dof_names)}
    known |= {g.name: episode.gripper_openness(robot.name)[:, i] for i, g in enumerate(robot.grippers)}
    known |= {o.name: episode.object_poses[:, k, 2, 3] for k, o in enumerate(episode.header.objects)}
    lines = [line for chart in plots["charts"] for line in chart["lines"]]
    arm = [name for name in robot.dof_names if name.startswith("joint")]
    assert len(lines) == 2 * len(arm) + 1 + 1
    for line in lines:
        assert line["y"] == [round(float(value), 4) for value in known[line["name"]]]
    bare = write_episode(tmp_path / "bare", make_header(3, joint_channels=()), 2)
    assert [line["name"] for line in page._plots(bare)["charts"][0]["lines"]] == arm


def test_a_report_that_is_cancelled_leaves_the_page_and_clears_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "simulation_clip", lambda *given: None)
    run = create_run(tmp_path / "run", {})
    write_episode(run.path / "episode", make_header(3), 1)
    run.report_folder.mkdir()
    (run.report_folder / ".simulation_front.tmp.mp4").write_bytes(b"half")
    kept = page.make_report(run).read_text("utf-8")
    assert not list(run.report_folder.iterdir())
    assert "“päckchen”" in kept, "words are written as they are"
    write_json(run.check, {"ok": "☑"})

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        page.make_report(run, check_cancel=stop)
    assert run.report.read_text("utf-8") == kept
    found = re.search(r'id="data">(.*?)</script>', page.make_report(run).read_text("utf-8"), re.S)
    assert found
    assert json.loads(found[1])["check"] == {"ok": "☑"}


def test_a_number_that_is_none_never_reaches_the_page() -> None:
    """NaN is no JSON: a browser would show nothing at all."""
    with pytest.raises(ValueError, match="JSON"):
        page.render({"name": "r", "episode": {"task": "t"}, "value": float("nan")})
