# SPDX-License-Identifier: Apache-2.0
"""Video files of a dataset: every frame at k / fps, key frames where they were asked for, joined and cut without decoding."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from retake.core.errors import ExportError, InputError, MissingDependencyError
from retake.core.export import encode
from retake.core.export.records import DatasetEpisode, Schema, Segment, VideoOptions
from retake.core.export.writer import copyable, picture, write_episode_video

av = pytest.importorskip("av")
SIZE = (64, 48)
FPS = 10


def grey(value: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def values(frames: Iterator[np.ndarray]) -> list[int]:
    """The number that each frame shows, to ten."""
    return [round(float(frame.mean()) / 10) * 10 for frame in frames]


def film(path: Path, count: int = 8, *, gop: int = 2, first: int = 20, codec: str = "h264", fps: int = FPS) -> int:
    """Frame k is grey of first + 20 k."""
    frames = [grey(first + 20 * k) for k in range(count)]
    return encode.encode(path, frames, fps, count, VideoOptions.of(codec, gop=gop))


def keys(path: Path, fps: int = FPS) -> list[int]:
    return [number for number, packet in encode.packets(path, fps) if packet.is_keyframe]


@pytest.mark.parametrize(
    ("size", "codec", "told"),
    [((64, 64), "av1", ""), ((64, 62), "av1", "too small for AV1 (64x64 at least)"), ((62, 64), "av1", "too small"),
     ((62, 62), "h264", ""), ((63, 48), "h264", "give --size 64x48"), ((64, 47), "h264", "give --size 64x48"),
     ((63, 47), "h264", "give --size 64x48"), ((63, 47), "lossless", "")],
)  # fmt: skip
def test_a_size_that_a_codec_cannot_hold_is_refused_with_one_that_it_can(size, codec, told):
    options = VideoOptions.of(codec)
    if not told:
        assert encode.check_size(size, options) is None
    else:
        with pytest.raises(InputError) as error:
            encode.check_size(size, options)
        assert told in str(error.value)


@pytest.mark.parametrize("gop", [1, 3])
@pytest.mark.parametrize("codec", ["h264", "hevc", "lossless"])
def test_a_key_frame_comes_as_often_as_asked(tmp_path, codec, gop):
    payload = film(tmp_path / "a.mp4", 7, gop=gop, codec=codec)
    found = list(encode.packets(tmp_path / "a.mp4", FPS))
    assert [number for number, _ in found] == list(range(7))
    assert keys(tmp_path / "a.mp4") == list(range(0, 7, gop))
    assert payload == sum(packet.size for _, packet in found) == encode.check_video(tmp_path / "a.mp4", FPS, 7)
    assert all(packet.pts == packet.dts for _, packet in found), "no frame waits for a later one"


def test_how_a_video_is_encoded_is_as_stated(tmp_path):
    """x264 writes its settings into the stream. A dataset has no bit-rate box, whose estimate hangs on how it was joined."""
    film(tmp_path / "a.mp4")
    tall = [grey(20 * k, (64, 512)) for k in range(8)]  # x264 takes one thread of its own accord for low pictures
    encode.encode(tmp_path / "t.mp4", tall, FPS, 8, VideoOptions.of("h264"))
    data = (tmp_path / "t.mp4").read_bytes()
    stated = set(data.partition(b"options: ")[2].split(b"\0")[0].split(b" "))
    assert {b"crf=23.0", b"keyint=2", b"bframes=0", b"threads=1", b"mbtree=0"} <= stated
    assert b"btrt" not in data
    encode.copy(tmp_path / "b.mp4", [Segment(tmp_path / "a.mp4", 0, 8)], FPS)
    assert b"btrt" not in (tmp_path / "b.mp4").read_bytes()


def test_the_encoder_is_quiet_unless_its_user_wants_to_hear_it(tmp_path, monkeypatch):
    monkeypatch.delenv("SVT_LOG", raising=False)
    film(tmp_path / "a.mp4", 1)
    assert os.environ["SVT_LOG"] == "1"
    monkeypatch.setenv("SVT_LOG", "3")
    film(tmp_path / "a.mp4", 1)
    assert os.environ["SVT_LOG"] == "3"


def test_a_video_of_another_length_is_not_written(tmp_path):
    for count in (2, 4):
        with pytest.raises(ExportError, match=f"gave {count} frames where the episode has 3; nothing was written"):
            encode.encode(tmp_path / "a.mp4", [grey(9)] * count, FPS, 3, VideoOptions.of("h264"))
    with pytest.raises(ExportError, match="gave 0 frames"):
        encode.encode(tmp_path / "a.mp4", [], FPS, 3, VideoOptions.of("h264"))
    with pytest.raises(InputError, match="video frame 1 is float64"):
        encode.encode(tmp_path / "a.mp4", [grey(9), grey(9) / 1.0], FPS, 2, VideoOptions.of("h264"))
    assert list(tmp_path.iterdir()) == []


def test_frames_that_are_not_at_their_place_are_told(tmp_path):
    film(tmp_path / "a.mp4", 3, fps=15)
    with pytest.raises(ExportError, match=r"a frame is at 0\.066667 s, which is no multiple of 1/10 s"):
        list(encode.packets(tmp_path / "a.mp4", 10))
    assert [number for number, _ in encode.packets(tmp_path / "a.mp4", 30)] == [0, 2, 4]
    for fps, frames in ((15, 4), (15, 2), (30, 3)):
        with pytest.raises(ExportError, match=rf"holds 3 distinct frames; expected 0 … {frames - 1} at {fps} fps"):
            encode.check_video(tmp_path / "a.mp4", fps, frames)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(ExportError, match="not a readable video"):
        encode.check_video(tmp_path / "no.mp4", 15, 1)


def test_parts_are_joined_one_after_the_other(tmp_path):
    film(tmp_path / "a.mp4", 6, first=20)
    film(tmp_path / "b.mp4", 5, first=100)
    parts = [Segment(tmp_path / "a.mp4", 2, 3), Segment(tmp_path / "b.mp4", 0, 5), Segment(tmp_path / "a.mp4", 4, 2)]
    payload = encode.copy(tmp_path / "c.mp4", parts, FPS)
    assert payload == encode.check_video(tmp_path / "c.mp4", FPS, 10)
    shown = [60, 80, 100, 100, 120, 140, 160, 180, 100, 120]
    assert values(encode.read_segment(Segment(tmp_path / "c.mp4", 0, 10))) == shown
    with av.open(str(tmp_path / "c.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(10, FPS)
        assert stream.average_rate == FPS
    assert all(
        packet.duration * packet.time_base == Fraction(1, FPS) for _, packet in encode.packets(tmp_path / "c.mp4", FPS)
    )
    with pytest.raises(ExportError, match="frame 3 is no key frame; it cannot be copied alone"):
        encode.copy(tmp_path / "d.mp4", [Segment(tmp_path / "a.mp4", 3, 2)], FPS)
    assert not (tmp_path / "d.mp4").exists()


@pytest.mark.parametrize("start", [0, 1, 5, 7])
@pytest.mark.parametrize("gop", [2, 30])
def test_a_segment_is_read_from_its_first_frame_to_its_last(tmp_path, start, gop):
    film(tmp_path / "a.mp4", 8, gop=gop)
    for length in range(9 - start):
        found = values(encode.read_segment(Segment(tmp_path / "a.mp4", start, length)))
        assert found == [20 + 20 * (start + k) for k in range(length)]
    with pytest.raises(ExportError, match=rf"ends after {8 - start} of {9 - start} frames from frame {start}"):
        list(encode.read_segment(Segment(tmp_path / "a.mp4", start, 9 - start)))


def test_a_segment_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    for name, told in (("none.mp4", "is missing"), ("no.mp4", "is no readable video")):
        with pytest.raises(ExportError, match=told):
            list(encode.read_segment(Segment(tmp_path / name, 0, 1)))


def test_the_header_that_videos_share_is_known_before_any_is_made(tmp_path):
    options = VideoOptions.of("h264")
    header = encode.codec_header(tmp_path / "probe.mp4", SIZE, FPS, options)
    assert list(tmp_path.iterdir()) == []
    film(tmp_path / "a.mp4", 3)
    facts = encode.stream_facts(tmp_path / "a.mp4")
    assert facts["extradata"] == header != ""
    assert (facts["codec"], facts["width"], facts["height"], facts["pix_fmt"]) == ("h264", *SIZE, "yuv420p")
    assert facts["colour"] == (1, 6, 1, 13)
    assert encode.codec_header(tmp_path / "probe.mp4", (96, 48), FPS, options) != header


def test_an_encoder_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", set(av.codecs_available) - {"libx264"})
    with pytest.raises(MissingDependencyError, match="no encoder 'libx264'; choose another with --codec"):
        film(tmp_path / "a.mp4")
    with pytest.raises(MissingDependencyError, match="this needs nothing_of_that_name, which is not installed"):
        encode.require("nothing_of_that_name.part")


def test_what_is_copied_has_the_codec_the_size_and_the_key_frames_that_were_asked_for(tmp_path):
    film(tmp_path / "a.mp4", 8, gop=3)
    template = encode.stream_facts(tmp_path / "a.mp4")["extradata"]

    def fits(start=0, length=8, *, size=SIZE, gop=3, codec="h264", header=template, fps=FPS):
        return copyable(Segment(tmp_path / "a.mp4", start, length), size, fps, VideoOptions.of(codec, gop=gop), header)

    assert fits()
    assert fits(3, 2)
    assert fits(gop=4)
    assert not fits(gop=2), "key frames are too far apart"
    assert not fits(1, 2), "it begins between key frames"
    assert not fits(0, 9), "it ends too soon"
    assert not fits(size=(64, 50))
    assert not fits(codec="hevc")
    assert not fits(codec="lossless")
    assert not fits(header="00")
    assert not fits(fps=7), "its frames are not at k / fps"


@pytest.mark.parametrize("copied", [True, False])
def test_an_episodes_video_is_copied_where_it_can_be_and_encoded_where_not(tmp_path, copied):
    """Either way its statistics are those of the frames that the dataset shows."""
    film(tmp_path / "a.mp4", 6)
    options, key = VideoOptions.of("h264"), "observation.images.front"
    template = encode.codec_header(tmp_path / "probe.mp4", SIZE, FPS, options)
    episode = DatasetEpisode(
        "u", "t", 4, dict, lambda key: iter([grey(200)] * 4),
        lambda key: Segment(tmp_path / "a.mp4", 2 if copied else 1, 4), {},
    )  # fmt: skip
    schema = Schema(FPS, "r", {}, {key: SIZE})
    payload, stats = write_episode_video(tmp_path / "b.mp4", key, episode, schema, options, template)
    shown = [60, 80, 100, 120] if copied else [200] * 4
    assert values(encode.read_segment(Segment(tmp_path / "b.mp4", 0, 4))) == shown
    assert payload == encode.check_video(tmp_path / "b.mp4", FPS, 4)
    assert np.ravel(stats["mean"]) * 255 == pytest.approx([np.mean(shown)] * 3, abs=3)
    assert np.ravel(stats["count"]).tolist() == [4]


@pytest.mark.parametrize(("size", "wanted"), [((320, 360), (160, 180)), ((4, 900), (1, 180)), ((90, 90), (180, 180))])
def test_a_picture_of_the_card_is_180_high_and_has_its_own_shape(tmp_path, size, wanted):
    import cv2

    picture(tmp_path / "p.jpg", grey(90, size))
    shown = cv2.imread(str(tmp_path / "p.jpg"))
    assert shown.shape[1::-1] == wanted
    assert shown.mean() == pytest.approx(90, abs=2)
    ok, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert ok
    stored = (tmp_path / "p.jpg").read_bytes()
    assert stored[: stored.index(b"\xff\xc0")] == data.tobytes()[: data.tobytes().index(b"\xff\xc0")], "its quality"


def in_a_thread(work) -> list:
    """What a thread of its own finds, whose scheduling nobody else has."""
    found: list = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(10)
    return found


def policies(*threads: threading.Thread) -> list[int]:
    return [os.sched_getscheduler(thread.native_id or 0) for thread in threads]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="scheduling of Linux")
@pytest.mark.parametrize("fails", [False, True])
def test_scheduling_that_an_encoder_changed_is_taken_back_and_no_other(fails):
    """Its caller has what it had, threads that it started have its caller's, and those that were there keep theirs."""
    batch, idle, usual = os.SCHED_BATCH, os.SCHED_IDLE, os.SCHED_OTHER
    end = threading.Event()

    def waiting(policy: int) -> threading.Thread:
        ready = threading.Event()

        def work() -> None:
            os.sched_setscheduler(0, policy, os.sched_param(0))
            ready.set()
            end.wait(10)

        thread = threading.Thread(target=work)
        thread.start()
        assert ready.wait(10)
        return thread

    def caller():
        os.sched_setscheduler(0, batch, os.sched_param(0))
        there = waiting(idle)
        try:
            with encode.usual_scheduling():
                os.sched_setscheduler(0, usual, os.sched_param(0))
                os.sched_setscheduler(there.native_id, usual, os.sched_param(0))
                new = waiting(idle)
                assert policies(there, new) == [usual, idle]
                if fails:
                    raise ValueError("no encoder")
        except ValueError:
            assert fails
        return [os.sched_getscheduler(0), *policies(there, new)]

    try:
        assert in_a_thread(caller) == [[batch, idle, batch]]
    finally:
        end.set()


def test_where_scheduling_cannot_be_asked_for_nothing_is_done(monkeypatch):
    monkeypatch.delattr(os, "sched_getscheduler", raising=False)
    done = []
    with encode.usual_scheduling():
        done.append(1)
    assert done == [1]
