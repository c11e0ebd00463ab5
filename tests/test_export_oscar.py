# SPDX-License-Identifier: Apache-2.0
"""Samples of OSCAR's layout: what keeps its loaders from reading one, the windows of a long episode, and names of folders."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.export.oscar import joint_angles, problems, read_caption, safe_name, samples, window_of, windows
from retake.core.oscar_episode import write_oscar, write_oscar_meta
from retake.core.video import write_video

SIZE, FRAMES = (32, 32), 70


def pictures(count: int = FRAMES, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return [np.full((size[1], size[0], 3), 40 + k, np.uint8) for k in range(count)]


def arrays(count: int = FRAMES, **changes: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "joint_angles": np.arange(count * 2, dtype=float).reshape(count, 2), "ee_pose": np.stack([np.eye(4)] * count),
        "gripper_openness": np.linspace(0, 1, count), "camera_intrinsic": np.eye(3), "camera_extrinsic": np.eye(4),
        "camera_is_per_frame": np.array(False), **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("oscar") / "sample"
    folder.mkdir()
    write_oscar(
        folder,
        arrays(),
        pictures(),
        pictures(),
        size=SIZE,
        length=FRAMES,
        fps=15,
        caption="lift “it”",
        said={"camera": "c"},
    )
    return folder


@pytest.fixture
def sample(whole, tmp_path) -> Path:
    """A copy to damage."""
    for file in whole.iterdir():
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "s"


def test_a_whole_sample_has_no_problem_and_is_found_by_its_arrays(whole, sample):
    assert problems(whole) == problems(sample) == []
    assert samples(sample.parent) == [sample]
    assert joint_angles(sample)[1].tolist() == [2.0, 3.0]
    assert read_caption(sample / "caption.pickle") == "lift “it”"
    assert json.loads((sample / "caption.json").read_text("utf-8")) == {"caption": "lift “it”", "camera": "c"}


@pytest.mark.parametrize("name", ["rgb.mp4", "gripper_scenario.mp4", "caption.pickle", "episode_meta.npz"])
def test_a_file_that_is_missing_is_named_alone(sample, name):
    (sample / name).unlink()
    assert problems(sample) == [f"{name} is missing"]


def test_a_caption_for_people_may_be_missing_and_must_not_differ(sample):
    (sample / "caption.json").write_text('{"caption": "other"}', "utf-8")
    assert problems(sample) == ["caption.json and caption.pickle differ"]
    (sample / "caption.json").unlink()
    assert problems(sample) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda s: write_video(s / "rgb.mp4", pictures(69), 15),
      ["rgb.mp4 is (32, 32) x 69 at 15.0, gripper_scenario.mp4 (32, 32) x 70 at 15.0",
       "69 frames; training keeps samples of 70 or more"]),
     (lambda s: write_video(s / "rgb.mp4", pictures(size=(48, 32)), 15), ["rgb.mp4 is (48, 32) x 70 at 15.0, gripper_scenario"]),
     (lambda s: write_video(s / "rgb.mp4", pictures(), 16), ["rgb.mp4 is (32, 32) x 70 at 16.0, gripper_scenario"]),
     (lambda s: write_video(s / "rgb.mp4", pictures(), 15, lossless=True), []),
     (lambda s: [write_video(s / n, pictures(71), 15) for n in ("rgb.mp4", "gripper_scenario.mp4")],
      ["rgb.mp4 has 71 frames, episode_meta.npz only 70"]),
     (lambda s: [write_video(s / n, pictures(69), 15) for n in ("rgb.mp4", "gripper_scenario.mp4")],
      ["69 frames; training keeps samples of 70 or more"]),
     (lambda s: write_oscar_meta(s / "episode_meta.npz", arrays(gripper_openness=np.linspace(0, 1.001, FRAMES))),
      ["gripper_openness leaves 0..1"]),
     (lambda s: write_oscar_meta(s / "episode_meta.npz", arrays(gripper_openness=np.linspace(-0.001, 1, FRAMES))),
      ["gripper_openness leaves 0..1"]),
     (lambda s: write_oscar_meta(s / "episode_meta.npz", arrays(gripper_openness=np.linspace(0.2, 0.8, FRAMES))), []),
     (lambda s: (s / "caption.pickle").write_bytes(pickle.dumps({"text": "a"})),
      ["caption.pickle holds more than one dictionary"]),
     (lambda s: (s / "episode_meta.npz").write_bytes(b"x"), ["is no readable npz of plain arrays"])],
)  # fmt: skip
def test_what_keeps_a_loader_from_reading_a_sample_is_named(sample, change, told):
    change(sample)
    found = problems(sample)
    assert len(found) == len(told)
    assert all(words in text for words, text in zip(told, found, strict=True)), found


def test_other_codecs_and_failed_sessions_are_no_samples(sample, monkeypatch):
    monkeypatch.setenv("RETAKE_NO_PYAV", "1")
    write_video(sample / "rgb.mp4", pictures(), 15)
    monkeypatch.delenv("RETAKE_NO_PYAV")
    assert problems(sample)[0] == "videos are mjpeg and h264; expected H.264"
    failed = sample.parent / "__failure__" / "s"
    failed.parent.mkdir()
    sample.rename(failed)
    assert "the path marks a failed session" in problems(failed)


@pytest.mark.parametrize(
    ("value", "caption"),
    [("plain", "plain"), ({"caption": "told"}, "told"), ({"caption": "x" * 300}, "x" * 300), ({"text": "told"}, None), ([], None),
     ({"caption": "a", "more": "b"}, None), ({"caption": 3}, None), (["a", "b"], None), (b"bytes", None), ({}, None)],
)  # fmt: skip
def test_a_caption_is_one_text_alone_or_under_its_name(tmp_path, value, caption):
    for protocol in (2, 4):
        (tmp_path / "c").write_bytes(pickle.dumps(value, protocol=protocol))
        assert read_caption(tmp_path / "c") == caption


@given(st.integers(1, 400), st.integers(1, 90))
def test_windows_cover_every_frame_and_end_with_the_episode(length, size):
    found = windows(length, size)
    assert {k for start, count in found for k in range(start, start + count)} == set(range(length))
    assert [count for _, count in found] == [min(size, length)] * len(found)
    starts = [start for start, _ in found]
    assert starts == sorted(set(starts))
    assert all(b - a == size for a, b in pairwise(starts[:-1]))
    assert len(found) == -(-length // size)


def test_a_window_of_a_stream_takes_no_more_than_it_needs():
    taken = []

    def stream():
        for k in range(9):
            taken.append(k)
            yield k

    assert list(window_of(stream(), 2, 3)) == [2, 3, 4]
    assert taken == [0, 1, 2, 3, 4, 5]
    assert list(window_of(iter(range(4)), 0, 9)) == [0, 1, 2, 3]


def test_a_folder_is_called_as_every_system_can():
    assert safe_name("r 1/ä__t:x+y-z.0") == "r_1___t_x+y-z.0"
