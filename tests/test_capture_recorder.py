# SPDX-License-Identifier: Apache-2.0
"""Recorder: nothing is dropped, memory is bounded, a full or broken disk leaves an episode that opens."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_frame, random_header

from retake.core.capture import PairedFrame, PairingCounts, Recorder, RecorderStatus, StateSample
from retake.core.episode import EpisodeWriter, Frame, open_episode
from retake.core.errors import EpisodeError
from retake.core.files import read_json


class Reader:
    """Frames made beforehand; may be made slow."""

    def __init__(self, frames: int = 12, gate: threading.Event | None = None) -> None:
        rng = np.random.default_rng(0)
        self.header = random_header(rng)
        self.frames = [random_frame(rng, self.header, i) for i in range(frames)]
        self.gate = gate

    def decode(self, paired: PairedFrame) -> Frame:
        if self.gate is not None:
            assert self.gate.wait(10)
        return self.frames[paired.index]


def paired(index: int) -> PairedFrame:
    sample = StateSample((index, 15), index / 15, index, None)
    return PairedFrame(index, sample, None, {}, (sample,))


def record(recorder: Recorder, accepted: list[int]) -> None:
    """Twelve frames, or as many as it takes."""
    for index in range(12):
        recorder.submit(paired(index))
        accepted.append(index)


def record_all(recorder: Recorder) -> None:
    """Twelve frames and the end."""
    record(recorder, [])
    recorder.finish()


def test_every_frame_arrives_in_order(tmp_path: Path) -> None:
    reader = Reader()
    seen: list[int] = []
    recorder = Recorder(tmp_path / "e", reader, on_frame=lambda index, frame: seen.append(index))
    for index in range(12):
        recorder.submit(paired(index))
    episode = recorder.finish()
    assert len(episode) == 12
    assert seen == list(range(12))
    assert np.array_equal(episode.frame(7).cameras[0].rgb, reader.frames[7].cameras[0].rgb)
    assert recorder.status.error == ""
    assert recorder.status.bytes_written > 0


def test_a_slow_disk_slows_the_simulation_and_drops_nothing(tmp_path: Path) -> None:
    gate = threading.Event()
    recorder = Recorder(tmp_path / "e", Reader(gate=gate), queue_frames=2)
    opener = threading.Timer(0.4, gate.set)
    opener.start()
    for index in range(12):
        recorder.submit(paired(index))
        assert recorder.status.queued <= 2
    assert len(recorder.finish()) == 12
    assert recorder.status.waited_s > 0.2


def test_asked_to_refuse_it_refuses_instead_of_dropping(tmp_path: Path) -> None:
    gate = threading.Event()
    recorder = Recorder(tmp_path / "e", Reader(gate=gate), queue_frames=2, when_full="refuse")
    accepted: list[int] = []
    with pytest.raises(EpisodeError, match="the disk is slower than the simulation"):
        record(recorder, accepted)
    gate.set()
    assert len(recorder.finish()) == len(accepted)


def test_a_dead_disk_does_not_hang_the_simulator(tmp_path: Path) -> None:
    gate = threading.Event()
    recorder = Recorder(tmp_path / "e", Reader(gate=gate), queue_frames=1, patience_s=0.3)
    with pytest.raises(EpisodeError, match="is the disk still there"):
        record(recorder, [])
    gate.set()
    assert len(recorder.finish()) >= 1


def test_disk_full_keeps_every_committed_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = EpisodeWriter._write_image

    def full(self: Any, path: str, channel: str, image: Any) -> str:
        if "000005" in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, path, channel, image)

    monkeypatch.setattr(EpisodeWriter, "_write_image", full)
    recorder = Recorder(tmp_path / "e", Reader())
    with pytest.raises(EpisodeError, match=r"No space left on device.*complete frames are kept"):
        record_all(recorder)
    with pytest.raises(EpisodeError):
        recorder.finish()
    kept = open_episode(tmp_path / "e", allow_incomplete=True)
    assert 1 <= len(kept) <= 5
    kept.verify()


def test_without_a_frame_it_says_why(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "e", Reader())
    files = [value for value in vars(recorder._writer).values() if hasattr(value, "closed")]
    assert files
    with pytest.raises(EpisodeError, match="no frame was captured"):
        recorder.finish(reason="never played")
    assert all(file.closed for file in files)
    assert list((tmp_path / "e").iterdir()) == []


def test_a_broken_preview_does_not_stop_the_recording(tmp_path: Path) -> None:
    def preview(index: int, frame: Frame) -> None:
        raise ValueError("no canvas")

    recorder = Recorder(tmp_path / "e", Reader(), on_frame=preview)
    for index in range(3):
        recorder.submit(paired(index))
    assert len(recorder.finish()) == 3
    assert "no canvas" in recorder.preview_error


def test_a_folder_in_use_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "mine.txt").write_text("keep")
    with pytest.raises(EpisodeError, match="not empty"):
        Recorder(tmp_path / "e", Reader())
    assert (tmp_path / "e" / "mine.txt").read_text() == "keep"


def test_what_was_recorded_is_told_in_numbers(tmp_path: Path) -> None:
    reader = Reader()
    recorder = Recorder(tmp_path / "e", reader)
    record(recorder, [])
    recorder.finish(counts=PairingCounts(states=33, between=2), simulator="none")
    names = ("rgb", "depth_m", "normals", "instance_ids")
    images = [getattr(view, name) for frame in reader.frames for view in frame.cameras for name in names]
    size = sum(image.nbytes for image in images if image is not None)
    assert recorder.status == RecorderStatus(12, 12, 0, size, recorder.waited_s)
    report = read_json(tmp_path / "e" / "capture.json")
    assert (report["reason"], report["frames"], report["simulator"]) == ("finished", 12, "none")
    assert report["waited_s"] == pytest.approx(recorder.waited_s, abs=1e-6)
    assert {key: value for key, value in report["pairing"].items() if value} == {"states": 33, "between": 2}


def test_eight_frames_wait_beside_the_one_that_is_written(tmp_path: Path) -> None:
    gate = threading.Event()
    recorder = Recorder(tmp_path / "e", Reader(gate=gate), when_full="refuse")
    recorder.submit(paired(0))
    while recorder.status.queued:
        time.sleep(0.001)
    accepted: list[int] = []
    for index in range(1, 9):
        recorder.submit(paired(index))
        accepted.append(index)
    with pytest.raises(EpisodeError, match="8 frames are waiting"):
        recorder.submit(paired(9))
    assert (recorder.status.submitted, recorder.status.queued, recorder.status.written) == (9, 8, 0)
    gate.set()
    assert len(recorder.finish()) == 9


def test_the_end_waits_for_a_queue_that_is_full_for_a_while(tmp_path: Path) -> None:
    gate = threading.Event()
    recorder = Recorder(tmp_path / "e", Reader(gate=gate), queue_frames=1)
    assert recorder._thread.daemon, "a recording that hangs does not keep an application open"
    recorder.submit(paired(0))
    recorder.submit(paired(1))
    threading.Timer(0.35, gate.set).start()
    assert len(recorder.finish()) == 2


def test_a_disk_that_is_full_at_once_keeps_no_frame_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, path: str, channel: str, image: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EpisodeWriter, "_write_image", full)
    recorder = Recorder(tmp_path / "e", Reader())
    with pytest.raises(EpisodeError, match=r"OSError: .*No space left on device\. 0 complete frames are kept"):
        record_all(recorder)
    with pytest.raises(EpisodeError, match="0 complete frames"):
        recorder.finish()
    assert "No space left" in recorder.status.error
    assert "No space left" in read_json(tmp_path / "e" / "capture.json")["reason"]
