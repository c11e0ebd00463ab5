# SPDX-License-Identifier: Apache-2.0
"""Video files: counts, rates, sizes, determinism, refusals, and the fallback without PyAV."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
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


def test_how_a_video_is_encoded_is_as_stated(tmp_path):
    """x264 writes its settings into the stream: quality, a key frame at least every second at 15 fps, no frame that waits
    for a later one, one thread, and no tree of macroblocks."""
    pytest.importorskip("av")
    video.write_video(tmp_path / "a.mp4", frames(2, 48, 512), 15)  # low pictures take one thread anyway
    stated = set((tmp_path / "a.mp4").read_bytes().partition(b"options: ")[2].split(b"\0")[0].split(b" "))
    assert {b"crf=18.0", b"keyint=15", b"bframes=0", b"threads=1", b"mbtree=0"} <= stated
    video.write_video(tmp_path / "b.mp4", frames(2, 48, 32), 15, crf=30, gop=3)
    stated = set((tmp_path / "b.mp4").read_bytes().partition(b"options: ")[2].split(b"\0")[0].split(b" "))
    assert {b"crf=30.0", b"keyint=3"} <= stated


@pytest.mark.parametrize("lossless", [False, True])
def test_what_colours_mean_is_stated_in_the_file(tmp_path, lossless):
    """H.273: sRGB transfer and primaries; YUV by BT.601 in the limited range, RGB as it is in the full one."""
    av = pytest.importorskip("av")
    video.write_video(tmp_path / "a.mp4", frames(2, 48, 32), 15, lossless=lossless)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == (1, 13)
        assert (context.color_range, context.colorspace) == ((2, 0) if lossless else (1, 6))


def test_the_rates_of_television_are_exact(tmp_path):
    for index, rate in enumerate((Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25))):
        video.write_video(tmp_path / f"{index}.mp4", frames(2, 48, 32), float(rate))
        assert video.video_fps(tmp_path / f"{index}.mp4") == float(rate)
    video.write_video(tmp_path / "odd.mp4", frames(2, 48, 32), 15 + 1 / 1002)
    assert video.video_fps(tmp_path / "odd.mp4") == pytest.approx(15 + 1 / 1001, abs=1e-9), "no finer than that"


def tables_of(jpeg: bytes) -> list[bytes]:
    """The quantisation tables (marker DQT) of a JPEG file."""
    found, at = [], jpeg.find(b"\xff\xdb")
    while at >= 0:
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append(jpeg[at + 4 : at + 2 + length])
        at = jpeg.find(b"\xff\xdb", at + 2 + length)
    return found


def test_pictures_of_the_fallback_are_of_quality_95(tmp_path, monkeypatch):
    """In OpenCV's own scale, and with red and blue in their places: its tables are those of a file made so by hand."""
    monkeypatch.setenv("RETAKE_NO_PYAV", "1")
    made = frames(2, 64, 48)
    video.write_video(tmp_path / "clip.mp4", made, 15)
    writer = cv2.VideoWriter(
        str(tmp_path / "hand.avi"), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter_fourcc(*"MJPG"), 15, (64, 48)
    )
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for frame in made:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    stored = tables_of((tmp_path / "clip.mp4").read_bytes())
    assert len(stored) >= 2
    assert stored == tables_of((tmp_path / "hand.avi").read_bytes())
    read = [*video.read_video(tmp_path / "clip.mp4")]
    assert np.abs(read[1].astype(int) - made[1]).mean() < 3


@pytest.mark.parametrize(("free", "code"), [((1 << 20) - 1, errno.ENOSPC), (1 << 20, errno.EIO)])
def test_a_video_that_is_not_whole_is_the_disks_fault_where_it_has_no_room(tmp_path, monkeypatch, free, code):
    (tmp_path / "a.avi").write_bytes(b"cut")
    monkeypatch.setattr(video.shutil, "disk_usage", lambda path: type("U", (), {"free": free}))
    with pytest.raises(OSError, match="could not be written whole") as error:
        video._require_whole(tmp_path / "a.avi", 5)
    assert error.value.errno == code


def test_what_a_header_states_is_what_counting_finds(tmp_path):
    pytest.importorskip("av")
    for name, lossless in (("a.mp4", False), ("b.mp4", True)):
        video.write_video(tmp_path / name, frames(7, 33, 25), 12.5, lossless=lossless)
        stated = video.video_stated(tmp_path / name)
        assert stated == video.video_info(tmp_path / name)
        assert stated is not None
        assert (stated.size, stated.frames, stated.fps) == ((33, 25), 7, 12.5)
    assert stated.codec.startswith("h264")
