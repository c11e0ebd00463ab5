# SPDX-License-Identifier: Apache-2.0
"""Small parts of the worker by themselves: what is told of a running job, pictures for browsers, the executor's last words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError
from retake.core.video import read_video, write_video
from retake.core.wire import JobRecord
from retake.worker import link, media
from retake.worker.link import ExecutorLink, note_process
from retake.worker.running import PUBLISH_EVERY_S, Running


def running() -> Running:
    return Running(None, None, None, "", 0.0)  # type: ignore[arg-type]


@given(st.integers(1, 50), st.integers(2, 100), st.floats(0.5, 20))
def test_a_steady_job_s_estimate_is_what_is_left(begun, total, each_s):
    job, total = running(), begun + total
    assert job.advance(10.0, begun, total, "")
    assert job._eta is None
    for done in range(begun + 1, total + 1):
        now = 10.0 + each_s * (done - begun)
        assert job.advance(now, done, total, "n")
        assert job._eta == pytest.approx(each_s * (total - done))
        assert (job.done, job.total, job.note, job.heard) == (done, total, "n", now)


@pytest.mark.parametrize(("done", "total"), [(3, 20), (12, 10), (0, 10)])
def test_another_stage_counts_anew(done, total):
    job = running()
    for k in range(10):
        job.advance(float(k), k, 10, "")
    job.advance(20.0, done, total, "")
    if (done, total) == (12, 10):  # more of the same stage: its first time stays
        assert job._eta == pytest.approx(20 / 12 * (10 - 12))
        return
    assert job._eta is None
    job.advance(25.0, done + 1, total, "")
    assert job._eta == pytest.approx(5.0 * (total - done - 1))


def test_listeners_are_told_ten_times_a_second_and_of_both_ends():
    job = running()
    told = [job.advance(1.001 * PUBLISH_EVERY_S * (k // 4) + 0.02 * (k % 4), k, 20, "") for k in range(21)]
    assert told == [k % 4 == 0 for k in range(21)]
    job = running()
    assert [job.advance(0.01 * k, k, 3, "") for k in range(4)] == [True, False, False, True]


def test_a_record_gets_what_only_memory_knows():
    job, known = running(), {name: None for name in JobRecord.__dataclass_fields__}
    record = JobRecord(**{**known, "id": "j"})  # type: ignore[arg-type]
    job.advance(0.0, 0, 9, "painting")
    assert job.live(record).eta_s is None
    job.advance(1.0, 3, 9, "painting")
    job.preview = 4
    live = job.live(record)
    assert (live.id, live.done, live.total, live.note, live.preview, live.eta_s) == ("j", 3, 9, "painting", 4, 2.0)


def films(tmp_path: Path, size: tuple[int, int]) -> tuple[Path, Path, list[np.ndarray]]:
    """A folder of PNGs and a video of six pictures, each of one grey."""
    frames = [np.full((size[1], size[0], 3), 30 * k + 10, np.uint8) for k in range(6)]
    frames = [np.ascontiguousarray(f * np.array([1, 1, 0], np.uint8)) for f in frames]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{k:03d}.png"), frame[..., ::-1])
    write_video(tmp_path / "film.mp4", frames, 10.0)
    return folder, tmp_path / "film.mp4", frames


@pytest.mark.parametrize(
    ("start", "count", "wanted"), [(0, 0, range(6)), (2, 0, range(2, 6)), (1, 3, range(1, 4)), (4, 9, (4, 5))]
)
def test_the_wanted_frames_are_shown_of_folder_and_film_alike(tmp_path, start, count, wanted):
    folder, film, frames = films(tmp_path, (64, 48))
    shown = list(media.frames_of(folder, start, count))
    assert [int(f[0, 0, 0]) for f in shown] == [int(frames[k][0, 0, 0]) for k in wanted]
    assert all(f[0, 0, 2] == 0 for f in shown)
    assert [round(float(f[..., 0].mean()) / 30 - 1 / 3) for f in media.frames_of(film, start, count)] == list(wanted)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((640, 30), (640, 30)), ((642, 321), (640, 320)), ((1280, 2), (640, 2)), ((320, 700), (320, 700))],
)
def test_pictures_are_at_most_640_wide(tmp_path, size, shown):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((size[1], size[0], 3), np.uint8))
    (frame,) = media.frames_of(tmp_path, 0, 0)
    assert frame.shape == (shown[1], shown[0], 3)


def test_a_film_for_browsers_is_written_or_one_line_says_why(tmp_path, capsys):
    folder, _, _ = films(tmp_path, (64, 48))
    assert media.main([str(folder), str(tmp_path / "out.mp4"), "1", "4", "5"]) == 0
    assert len(list(read_video(tmp_path / "out.mp4"))) == 4
    (folder / "003.png").write_bytes(b"x")
    assert media.main([str(folder), str(tmp_path / "bad.mp4"), "0", "0", "5"]) == 2
    assert "003.png is no readable picture" in capsys.readouterr().err
    with pytest.raises(InputError, match="no readable picture"):
        list(media.frames_of(folder, 3, 1))


def ended(code: int | None, log: Path | None = None, start: int = 0) -> ExecutorLink:
    one = ExecutorLink.__new__(ExecutorLink)
    one.process, one.log, one._log_start = SimpleNamespace(poll=lambda: code), log, start  # type: ignore[assignment]
    return one


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "still running"), (0, "ended with exit code 0"), (3, "ended with exit code 3"), (-9, "ended by SIGKILL"),
     (-1, "ended by SIGHUP"), (-250, "ended by signal 250")],
)  # fmt: skip
def test_how_a_process_ended_in_words(code, words):
    assert ended(code).how_it_ended() == words


def test_the_last_lines_are_those_of_this_process(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {k}\n" for k in range(40)))
    assert ended(1, log).log_tail().splitlines() == [f"line {k}" for k in range(28, 40)]
    assert ended(1, log).log_tail(2) == "line 38\nline 39"
    assert ended(1, log, log.read_text().index("line 39")).log_tail() == "line 39"
    log.write_text("before\nFatal Python error: Aborted\n" + "".join(f"  thread {k}\n" for k in range(40)))
    assert ended(1, log).log_tail(3) == "Fatal Python error: Aborted\n  thread 0\n  thread 1"
    log.write_text("Fatal Python error: at once\nx\n")
    assert ended(1, log).log_tail(1) == "Fatal Python error: at once"
    log.write_text("early\n" + "x" * 12_000)
    assert "early" not in ended(1, log).log_tail()
    assert ended(1, tmp_path / "none").log_tail() == ""


def test_a_process_is_noted_with_when_it_began(tmp_path):
    import os

    import psutil

    note_process(tmp_path / "p.json", os.getpid())
    assert json.loads((tmp_path / "p.json").read_text()) == {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
    }
    note_process(tmp_path / "gone.json", 2**22 + 5)
    assert not (tmp_path / "gone.json").exists()


def test_everything_a_process_says_arrives_and_at_last_that_it_ended(tmp_path, monkeypatch):
    told: list[dict[str, Any]] = []
    code = "import sys, json\nprint('no json')\nprint('[1]')\nprint(json.dumps({'event': 'up'}), flush=True)\n"
    code += "for line in sys.stdin: print(json.dumps({'got': json.loads(line)}), flush=True)\nprint('late', file=sys.stderr)"
    real, asked = subprocess.Popen, []

    def start(command, **options):
        asked.append((command, options["env"]["CUDA_DEVICE_ORDER"]))
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(link.subprocess, "Popen", start)
    monkeypatch.setattr(link, "MAX_LOG", 3)
    log = tmp_path / "logs" / "executor.log"
    log.parent.mkdir()
    log.write_text("old!")
    one = ExecutorLink(log, lambda who, message: told.append(message))
    assert asked[0][0][1:3] == ["-m", "retake.worker.executor"]
    assert asked[0][1] == "PCI_BUS_ID"
    assert (tmp_path / "executor.json").exists()
    assert one.rss_bytes() > 0
    one.send(event="run", x=[1])
    one.process.stdin.close()
    one._reader.join(20)
    assert told == [{"event": "up"}, {"got": {"event": "run", "x": [1]}}, {"event": "exit"}]
    assert (log.with_suffix(".old.log")).read_text() == "old!"
    assert one.log_tail() == "late"
    one.send(event="nobody listens")
    assert one.how_it_ended() == "ended with exit code 0"
    one.kill()
    log.write_text("abc")
    assert not log.stat().st_size > link.MAX_LOG
