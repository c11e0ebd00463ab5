# SPDX-License-Identifier: Apache-2.0
"""Episode on disk: round trip, crash safety, tampering, refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from left_open import threads_begun
from strategies import random_frame, random_header, random_poses, seeds

from retake.core.episode import Contact, Episode, EpisodeWriter, Frame, PhysicsSamples, open_episode
from retake.core.errors import EpisodeError

FULL = os.environ.get("RETAKE_FULL") == "1"


def equal(a: object, b: object) -> bool:
    """Deep equality of records, arrays compared bit for bit with their dtypes."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def write(path: Path, seed: int, frames: int = 3, **kinds: int) -> tuple[Episode, list[Frame]]:
    rng = np.random.default_rng(seed)
    header = random_header(rng, **kinds)
    made = [random_frame(rng, header, i) for i in range(frames)]
    with EpisodeWriter(path, header) as writer:
        for frame in made:
            writer.append(frame)
        return writer.finish(), made


@given(seeds, st.integers(1, 4), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_round_trip_is_identity(tmp_path_factory, seed, frames, robots, cameras, objects):
    path = tmp_path_factory.mktemp("ep") / "episode with ünïcode"
    rng = np.random.default_rng(seed)
    header = random_header(rng, robots=robots, cameras=cameras, objects=objects)
    made = [random_frame(rng, header, i) for i in range(frames)]
    with EpisodeWriter(path, header) as writer:
        for frame in made:
            writer.append(frame)
        episode = writer.finish()
    again = open_episode(path)
    assert equal(again.header, header)
    assert len(again) == frames
    assert all(equal(a, b) for a, b in zip(again.frames(), made, strict=True))
    assert again.content_sha256 == episode.content_sha256
    again.verify()


def test_same_content_has_the_same_hash_and_other_content_another(tmp_path):
    one, _ = write(tmp_path / "a", 1)
    two, _ = write(tmp_path / "b", 1)
    other, _ = write(tmp_path / "c", 2)
    assert one.content_sha256 == two.content_sha256 != other.content_sha256


def test_is_readable_without_retake(tmp_path):
    """numpy, OpenCV and json alone, following docs/episode.md."""
    episode, made = write(tmp_path / "e", 5, frames=4)
    content = json.loads((tmp_path / "e" / "episode.json").read_text("utf-8"))
    dtype = np.dtype([(n, d, tuple(s)) for n, d, s in content["state_dtype"]])
    table = np.fromfile(tmp_path / "e" / "state.bin", dtype)
    assert len(table) == 4
    robot = content["robots"][0]["name"]
    assert np.array_equal(table[2][f"robot/{robot}/T_world_link"], made[2].robots[0].T_world_link)
    image = cv2.imread(str(tmp_path / "e/cameras/cam0/rgb/000002.png"))[..., ::-1]
    assert np.array_equal(image, made[2].cameras[0].rgb)
    for channel, attribute in (("depth", "depth_m"), ("instances", "instance_ids")):
        if channel in episode.header.cameras[0].channels:
            suffix = "tiff" if channel == "depth" else "png"
            stored = cv2.imread(str(tmp_path / f"e/cameras/cam0/{channel}/000001.{suffix}"), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(stored, getattr(made[1].cameras[0], attribute))


WRITER = """
import sys, time
import numpy as np
sys.path.insert(0, {tests!r})
from pathlib import Path
from strategies import random_frame, random_header
from retake.core.episode import EpisodeWriter
rng = np.random.default_rng(11)
header = random_header(rng, cameras=2)
frames = [random_frame(rng, header, i) for i in range(40)]
print("go", flush=True)
with EpisodeWriter(Path(sys.argv[1]), header) as writer:
    for frame in frames:
        writer.append(frame)
    writer.finish()
"""


def test_killed_at_any_instant_it_opens_up_to_the_last_complete_frame(tmp_path, rng):
    written = np.random.default_rng(11)
    header = random_header(written, cameras=2)
    made = [random_frame(written, header, i) for i in range(40)]
    script = tmp_path / "writer.py"
    script.write_text(WRITER.format(tests=str(Path(__file__).parent)))
    delays = rng.uniform(0.0, 0.12, 30 if FULL else 5)
    counts = []
    for k, delay in enumerate(delays):
        path = tmp_path / f"run{k}"
        process = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if not (path / "episode.json").exists():
            counts.append(0)
            continue
        try:
            episode = open_episode(path, allow_incomplete=True)
        except EpisodeError as error:
            if "no complete frame" not in str(error):
                raise
            counts.append(0)
            continue
        counts.append(len(episode))
        episode.verify()
        assert all(equal(a, b) for a, b in zip(episode.frames(), made[: len(episode)], strict=True))
    assert len(counts) == len(delays)


def test_every_corrupted_byte_is_noticed_or_harmless(tmp_path, rng):
    episode, made = write(tmp_path / "e", 7, frames=3, cameras=2, objects=2)
    files = sorted(p for p in (tmp_path / "e").rglob("*") if p.is_file())
    noticed = 0
    for _ in range(2000 if FULL else 250):
        path = files[rng.integers(len(files))]
        original = path.read_bytes()
        if not original:
            continue
        start = int(rng.integers(len(original)))
        length = int(rng.integers(1, 9))
        damaged = bytearray(original)
        for position in range(start, min(start + length, len(original))):
            damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(damaged) if rng.random() < 0.8 else original[:start])
        try:
            again = open_episode(tmp_path / "e")
            again.verify()
            assert equal(again.header, episode.header), path
            assert all(equal(a, b) for a, b in zip(again.frames(), made, strict=True)), path
        except EpisodeError:
            noticed += 1
        path.write_bytes(original)
    assert noticed > 0
    open_episode(tmp_path / "e").verify()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "episode.json").unlink(), "episode.json is missing"),
        (lambda p: (p / "episode.json").write_text("{}"), "no episode header"),
        (lambda p: (p / "episode.json").write_text('{"schema": "retake.episode/99"}'), "retake.episode/99"),
        (lambda p: (p / "complete.json").unlink(), "interrupted capture"),
        (lambda p: (p / "frames.jsonl").unlink(), "frames.jsonl cannot be read"),
        (lambda p: (p / "state.bin").write_bytes(b"short"), "state.bin has 5 bytes"),
        (lambda p: (p / "frames.jsonl").write_bytes(b""), "no complete frame"),
    ],
)
def test_broken_folders_are_refused_in_words(tmp_path, damage, message):
    write(tmp_path / "e", 3)
    damage(tmp_path / "e")
    with pytest.raises(EpisodeError, match=message):
        open_episode(tmp_path / "e")


def test_missing_and_changed_images_are_named(tmp_path):
    episode, _ = write(tmp_path / "e", 3)
    target = tmp_path / "e/cameras/cam0/rgb/000001.png"
    target.write_bytes(target.read_bytes() + b"x")
    with pytest.raises(EpisodeError, match=r"000001.png was changed"):
        episode.image("cam0", "rgb", 1)
    target.unlink()
    with pytest.raises(EpisodeError, match=r"000001.png cannot be read"):
        episode.verify()


def test_writer_refuses_bad_frames_and_keeps_the_good_ones(tmp_path):
    rng = np.random.default_rng(0)
    header = random_header(rng)
    good = random_frame(rng, header, 0)
    writer = EpisodeWriter(tmp_path / "e", header)
    writer.append(good)
    poses = good.robots[0].T_world_link.copy()
    poses[1, 0, 3] = np.nan
    bad = dataclasses.replace(good, time_s=1.0, robots=(dataclasses.replace(good.robots[0], T_world_link=poses),))
    with pytest.raises(EpisodeError, match=r"frame 1: robot 'arm0' pose of link 'link1'"):
        writer.append(bad)
    with pytest.raises(EpisodeError, match="time must advance"):
        writer.append(good)
    assert len(writer.finish()) == 1
    assert equal(open_episode(tmp_path / "e").frame(0), good)


def test_zero_length_and_occupied_folders_are_refused(tmp_path):
    header = random_header(np.random.default_rng(0))
    with EpisodeWriter(tmp_path / "e", header) as writer, pytest.raises(EpisodeError, match="no frame"):
        writer.finish()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(EpisodeError, match="not empty"):
        EpisodeWriter(tmp_path / "mine", header)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seed": ', '"seed": NaN, "_": '),
        ('"seed": ', '"seed": 1e999, "_": '),
        ('"near_far_m": [', '"near_far_m": ["near", "far"], "_": ['),
        ('"fps": ', '"fps": "quick", "_": '),
    ],
)
def test_a_header_that_json_or_numpy_cannot_hold_is_refused_in_words(tmp_path, old, new):
    write(tmp_path / "e", 3)
    path = tmp_path / "e/episode.json"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(EpisodeError, match=r"episode\.json( is damaged|: cameras\[0\])"):
        open_episode(tmp_path / "e")


def test_headers_and_contacts_that_cannot_be_written_are_refused_before_anything_is(tmp_path):
    rng = np.random.default_rng(0)
    header = random_header(rng)
    for settings in ({"friction": float("nan")}, {"who": object()}):
        with pytest.raises(EpisodeError, match="cannot be written as JSON"):
            EpisodeWriter(tmp_path / "e", dataclasses.replace(header, settings=settings))
    assert not (tmp_path / "e").exists()
    with pytest.raises(EpisodeError, match="physics_dt_s"):
        dataclasses.replace(header, physics_dt_s=float("nan"))
    good = random_frame(rng, header, 0)
    push = Contact("/World/A", "/World/B", (0.0, 0, 0), (0.0, 0, 1), (0.0, np.nan, 1))
    soft = Contact("/World/A", "/World/B", (0.0, 0, 0), (0.0, 0, 1), tuple(np.float32([1, 2, 3])), np.float32(0.5))
    with EpisodeWriter(tmp_path / "e", header) as writer:
        with pytest.raises(EpisodeError, match="frame 0: contact of /World/A and /World/B"):
            writer.append(dataclasses.replace(good, contacts=(push,)))
        writer.append(dataclasses.replace(good, contacts=(soft,)))
        assert writer.finish().contacts(0)[0].force_n == (1.0, 2.0, 3.0)


def test_what_cannot_be_written_at_the_end_is_told_unless_something_else_went_wrong(tmp_path, rng, monkeypatch):
    def full(self):
        raise OSError("disk full")

    header = random_header(rng)

    def end(writer, wrong):
        with writer:
            if wrong is not None:
                raise wrong("first")

    for wrong, found in ((None, OSError), (KeyError, KeyError)):
        writer = EpisodeWriter(tmp_path / str(wrong), header)
        monkeypatch.setattr(type(writer), "flush", full)
        with pytest.raises(found):
            end(writer, wrong)
        monkeypatch.undo()
        assert writer._log.closed


@pytest.mark.parametrize(
    "wrong", [{"size": (0, 48)}, {"size": (64, 0)}, {"channels": ("depth",)}, {"channels": ("rgb", "thermal")}], ids=str
)
def test_each_mistake_of_a_camera_is_refused_by_itself(wrong: dict[str, Any]) -> None:
    header = random_header(np.random.default_rng(0))
    camera = dataclasses.replace(header.cameras[0], **wrong)
    with pytest.raises(EpisodeError, match="must be positive and channels"):
        dataclasses.replace(header, cameras=(camera, *header.cameras[1:]))


def test_four_frames_are_under_way_two_pictures_at_a_time_and_the_fifth_waits(tmp_path, rng, monkeypatch):
    """Memory is bounded: who hands over frames faster than they are encoded waits."""
    header = random_header(rng, cameras=2)
    made = [random_frame(rng, header, i) for i in range(5)]
    gate, at_work, most = threading.Event(), [0], [0]
    original, lock = EpisodeWriter._write_image, threading.Lock()

    def slow(self, path, channel, image):
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        assert gate.wait(10)
        with lock:
            at_work[0] -= 1
        return original(self, path, channel, image)

    monkeypatch.setattr(EpisodeWriter, "_write_image", slow)
    with EpisodeWriter(tmp_path / "e", header) as writer:
        for frame in made[:4]:
            writer.append(frame)
        assert len(writer) == 4
        fifth = threading.Thread(target=writer.append, args=(made[4],))
        fifth.start()
        fifth.join(0.15)
        assert fifth.is_alive()
        gate.set()
        fifth.join(10)
        assert most == [2]
        assert len(writer.finish()) == 5


def test_a_frame_counts_from_the_moment_it_is_flushed(tmp_path, rng):
    """Another process reads it then: log, states and physics are with the system, not in this one's buffers."""
    header = random_header(rng)
    made = [random_frame(rng, header, i) for i in range(3)]
    made = [dataclasses.replace(f, physics=PhysicsSamples(np.arange(2.0), random_poses(rng, 2, 1))) for f in made]
    with EpisodeWriter(tmp_path / "e", header) as writer:
        for count, frame in enumerate(made, 1):
            writer.append(frame)
            writer.flush()
            read = open_episode(tmp_path / "e", allow_incomplete=True)
            assert len(read) == count
            assert equal(read.frame(count - 1), frame)


def test_a_frame_after_one_that_could_not_be_written_is_not_kept(tmp_path, rng, monkeypatch):
    """The log would break in its middle; what was committed before stays good, and nothing more is taken."""
    header = random_header(rng)
    made = [random_frame(rng, header, i) for i in range(5)]
    original = EpisodeWriter._write_image

    def full(self, path, channel, image):
        if "000001" in path:
            raise OSError("disk full")
        return original(self, path, channel, image)

    monkeypatch.setattr(EpisodeWriter, "_write_image", full)
    writer = EpisodeWriter(tmp_path / "e", header)
    for frame in made[:4]:
        writer.append(frame)
    with pytest.raises(OSError, match="disk full"):
        writer.flush()
    writer.flush()
    with pytest.raises(EpisodeError, match="writing failed before; the frames committed until then are kept"):
        writer.append(made[4])
    writer.__exit__(None, None, None)
    kept = open_episode(tmp_path / "e", allow_incomplete=True)
    assert len((tmp_path / "e" / "frames.jsonl").read_bytes().splitlines()) == len(kept) == 1
    assert (tmp_path / "e" / "state.bin").stat().st_size == kept._state.dtype.itemsize
    assert equal(kept.frame(0), made[0])


def test_an_episode_is_on_the_disk_before_it_is_called_complete(tmp_path, rng, monkeypatch):
    header = random_header(rng)
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(Path(b).name), replace(a, b))[1])
    with EpisodeWriter(tmp_path / "e", header) as writer:
        writer.append(random_frame(rng, header, 0))
        writer.finish()
    until = done[: done.index("complete.json")]
    numbers = {(tmp_path / "e" / name).stat().st_ino for name in ("state.bin", "physics.bin", "frames.jsonl")}
    assert numbers <= {number for number in until if isinstance(number, int)}


def test_a_folder_that_was_left_open_is_closed_and_stops_its_threads(tmp_path, rng):
    header, own_threads = random_header(rng), threads_begun("episode-writer")
    with EpisodeWriter(tmp_path / "e", header) as writer:
        writer.append(random_frame(rng, header, 0))
    assert writer._state.closed
    assert writer._physics.closed
    assert writer._log.closed
    assert own_threads() == []
    assert len(open_episode(tmp_path / "e", allow_incomplete=True)) == 1
