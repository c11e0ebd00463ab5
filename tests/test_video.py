# SPDX-License-Identifier: Apache-2.0
"""Video files: counts, rates, sizes, determinism, refusals, and the fallback without PyAV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core import video
from retake.core.errors import InputError, MissingDependencyError
from retake.core.export.encode import encode
from retake.core.export.records import VideoOptions


def frames(count: int, width: int, height: int) -> list[np.ndarray]:
    """Smooth moving gradients, which survive lossy coding well."""
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    return [np.stack([x, y, np.full_like(x, 5 * k % 256)], -1).astype(np.uint8) for k in range(count)]


@given(st.integers(1, 12), st.integers(24, 70), st.integers(24, 60), st.sampled_from([5, 15, 24, 30, 14.9254]))
def test_count_size_and_rate_survive(tmp_path_factory, count, width, height, fps):
    path = tmp_path_factory.mktemp("v") / "clip.mp4"
    made = frames(count, width, height)
    written = video.write_video(path, iter(made), fps)
    info = video.video_info(path)
    assert (info.frames, info.size) == (count, (width, height)) == (written.frames, written.size)
    assert info.fps == pytest.approx(fps, rel=1e-3)
    for a, b in zip(video.read_video(path), made, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 12


def test_lossless_is_exact_and_writing_is_deterministic(tmp_path):
    made = [np.random.default_rng(k).integers(0, 256, (48, 64, 3), dtype=np.uint8) for k in range(3)]
    video.write_video(tmp_path / "a.mp4", made, 15, lossless=True)
    assert all(np.array_equal(a, b) for a, b in zip(video.read_video(tmp_path / "a.mp4"), made, strict=True))
    video.write_video(tmp_path / "b.mp4", made, 15)
    video.write_video(tmp_path / "c.mp4", made, 15)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


def test_the_same_frames_give_the_same_bytes_every_time(tmp_path):
    """Once is not enough: with PyAV's own conversion one file in twenty was another one, with the same picture."""

    def made():
        for index in range(8):
            image = np.full((48, 64, 3), (167, 52, 22), np.uint8)
            image[:, 3 * index : 3 * index + 6] = 255
            yield image

    found = set()
    for _ in range(100):
        video.write_video(tmp_path / "a.mp4", made(), 15)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1


def test_files_long_enough_for_the_encoder_to_look_ahead_are_the_same_bytes_too(tmp_path):
    """libx264's macroblock tree hung on what was in memory before: up to one file in fifteen was another picture.

    Arrays that come and go between frames give its allocations the contents and places of a program at work.
    """
    ground = cv2.resize(np.random.default_rng(0).integers(60, 200, (8, 10, 3), dtype=np.uint8), (80, 64))

    def made(rng: np.random.Generator, kept: list[np.ndarray]):
        for index in range(24):
            kept.append(np.full(int(rng.integers(1000, 300_000)), int(rng.integers(256)), np.uint8))
            del kept[: max(0, len(kept) - 20)]
            image = ground.copy()
            image[20:40, 2 * index : 2 * index + 16] = (230, 120, 40)
            yield image

    writers = {
        "write_video": lambda target, images: video.write_video(target, images, 15),
        "export": lambda target, images: encode(target, images, 15, 24, VideoOptions.of("h264", gop=15)),
    }
    for name, write in writers.items():
        found: set[bytes] = set()
        rng, kept = np.random.default_rng(1), []
        for _ in range(150):
            write(tmp_path / "a.mp4", made(rng, kept))
            found.add((tmp_path / "a.mp4").read_bytes())
        assert len(found) == 1, name


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads that Linux tells of")
def test_conversion_stays_in_the_calling_thread(tmp_path):
    """PyAV 17 shares a picture among a pool by itself; what a file holds must not hang on other people's threads."""
    av = pytest.importorskip("av")

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    coded = video.coded_picture(av, np.zeros((480, 640, 3), np.uint8), "yuv420p")
    assert threads() == before
    shown = video.shown_picture(av, coded)
    assert threads() == before
    assert shown.shape == (480, 640, 3)


def test_the_fallback_without_pyav_writes_and_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("RETAKE_NO_PYAV", "1")
    made = frames(5, 64, 48)
    assert video.write_video(tmp_path / "clip.mp4", made, 15).codec == "mjpeg" == video.codec_available()
    read = list(video.read_video(tmp_path / "clip.mp4"))
    assert len(read) == 5
    assert np.abs(read[2].astype(int) - made[2]).mean() < 6
    info = video.video_info(tmp_path / "clip.mp4")
    assert (info.frames, info.size, info.fps) == (5, (64, 48), 15.0)
    with pytest.raises(MissingDependencyError, match=r"isaac-retake\[video\]"):
        video.write_video(tmp_path / "x.mp4", made, 15, lossless=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]


def test_failures_leave_nothing_behind_and_are_explained(tmp_path):
    def broken():
        yield from frames(2, 32, 24)
        raise RuntimeError("the simulator went away")

    with pytest.raises(RuntimeError):
        video.write_video(tmp_path / "clip.mp4", broken(), 15)
    with pytest.raises(InputError, match="at least one"):
        video.write_video(tmp_path / "clip.mp4", iter([]), 15)
    with pytest.raises(InputError, match="video frame 1 is"):
        video.write_video(tmp_path / "clip.mp4", [*frames(1, 32, 24), *frames(1, 34, 24)], 15)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="not a readable video"):
        list(video.read_video(tmp_path / "text.mp4"))
    with pytest.raises(InputError, match="does not exist"):
        list(video.read_video(tmp_path / "none.mp4"))


def test_the_fallback_notices_a_video_that_was_not_written_whole(tmp_path, monkeypatch):
    """OpenCV reports nothing when the disk is full: the truncated file must not pass as a video."""
    monkeypatch.setenv("RETAKE_NO_PYAV", "1")

    real = cv2.VideoWriter

    class Full:
        def __init__(self, name: str, *rest: Any) -> None:
            self.name, self.writer = name, real(name, *rest)
            self.set, self.write = self.writer.set, self.writer.write

        def release(self) -> None:
            self.writer.release()
            with open(self.name, "rb+") as stream:
                stream.truncate(1200)

    monkeypatch.setattr(video.cv2, "VideoWriter", Full)
    with pytest.raises(OSError, match="could not be written whole"):
        video.write_video(tmp_path / "clip.mp4", frames(5, 64, 48), 15)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "one"), [("16.1.0", False), ("17.0.0", True), ("18.1", True), ("9.2", False), ("x", False)]
)
def test_conversion_is_asked_to_stay_in_its_thread_where_pyav_can_be_asked(version, one):
    av = type("av", (), {"__version__": version})
    assert video._one_thread(av) == ({"threads": 1} if one else {})


@pytest.mark.parametrize(
    ("comment", "size"),
    [("retake_size=63x47", (63, 47)), ("", (64, 48)), ("retake_size=65x49", (64, 48)), ("retake_size=63", (64, 48)),
     ("retake_size=ax47", (64, 48)), ("size=63x47", (64, 48))],
)  # fmt: skip
def test_the_true_size_is_the_stated_one_where_it_is_no_larger(comment, size):
    stream = type("S", (), {"codec_context": type("C", (), {"width": 64, "height": 48})})
    container = type("F", (), {"streams": type("V", (), {"video": [stream]}), "metadata": {"comment": comment}})
    assert video.true_size(container) == size


def test_numbers_that_are_no_bytes_are_told_with_what_makes_bytes_of_them():
    for frame, words in (
        (np.array([0.0, 1.0]), "0..1: (255 * frame).round()"), (np.array([0.0, 1.5]), "0..255: frame.round()"),
        (np.array([-0.1, 1.0]), "0..255: frame.round()"), (np.zeros(0), "0..1"), (np.zeros(2, np.int64), "bytes are wanted"),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            video.require_uint8(frame, 3)
        assert words in str(error.value)
        assert f"video frame 3 is {frame.dtype}" in str(error.value)
    video.require_uint8(np.zeros(2, np.uint8), 3)
