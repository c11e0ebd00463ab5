# SPDX-License-Identifier: Apache-2.0
"""Skeletons from every kind of path, files that were cut short, and pictures whose aspects differ."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest
from oscar_golden import golden_call, pipeline
from PIL import Image

from retake.core.errors import InputError
from retake.core.video import write_video
from retake.worker.oscar import request as request_module
from retake.worker.oscar import take_file
from retake.worker.oscar.frames import read_skeleton


@pytest.fixture
def frames():
    return golden_call()["skeleton"][:12]


def write_pictures(folder, frames, pattern="frame_{}.png"):
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / pattern.format(index))
    return folder


def test_a_folder_of_pictures_is_read_in_the_order_of_its_numbers(tmp_path, frames):
    folder = write_pictures(tmp_path / "frames", frames)  # frame_10 sorts before frame_2 by letters
    (folder / "notes.txt").write_text("no picture")
    assert np.array_equal(read_skeleton(folder), frames)
    assert np.array_equal(read_skeleton(str(folder)), frames)
    (folder / "frame_3.png").write_text("damaged")
    with pytest.raises(InputError, match=r"cannot read the skeleton frame .*frame_3.png"):
        read_skeleton(folder)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds neither skeleton.json nor pictures"):
        read_skeleton(tmp_path)


def test_a_skeleton_folder_is_read_through_its_record(tmp_path, frames):
    folder = tmp_path / "skeleton"
    folder.mkdir()
    (folder / "skeleton.json").write_text(json.dumps({"schema": "another/9"}))
    write_pictures(folder / "frames", frames)
    with pytest.raises(InputError, match="has schema 'another/9'"):
        read_skeleton(folder)


def test_videos_of_the_project_keep_their_odd_size(tmp_path):
    """Encoders pad odd frames; the size of the source is in the file and comes back."""
    picture = np.zeros((45, 63, 3), np.uint8)
    picture[20:30, 20:40] = (200, 30, 30)
    write_video(tmp_path / "odd.mp4", [picture] * 3, 15.0)
    read = read_skeleton(tmp_path / "odd.mp4")
    assert read.shape == (3, 45, 63, 3)
    assert np.abs(read[0].astype(int) - picture).mean() < 6


@pytest.mark.parametrize("keep", [0.5, 0.7, 0.9])
def test_a_video_that_was_cut_short_is_refused_and_not_shortened(tmp_path, frames, keep):
    whole = tmp_path / "whole.mp4"  # its index comes first, so a cut file still opens and states all frames
    noise = np.random.default_rng(0).integers(0, 256, frames.shape, dtype=np.uint8)
    write_video(whole, noise, 15.0)
    assert len(read_skeleton(whole)) == len(frames)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * keep)])
    capture = cv2.VideoCapture(str(cut))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)
    capture.release()
    with pytest.raises(InputError, match="cut short"):
        read_skeleton(cut)


def test_damaged_arrays_are_one_clear_error(tmp_path, frames):
    np.savez(tmp_path / "whole.npz", skeleton=frames)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:1000])
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("cut.npz", "object.npy", "empty.npy"):
        with pytest.raises(InputError, match=f"cannot read .*{name}"):
            read_skeleton(tmp_path / name)


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_differing_aspects_are_sized_recorded_and_warned_of(fit, caplog):
    pipe = pipeline()
    call = golden_call(
        num_frames=1, num_inference_steps=1, skeleton=golden_call()["skeleton"][:1], fit=fit, output_type="latent"
    )
    with caplog.at_level(logging.WARNING, logger=request_module.__name__):
        pipe(**call)
        assert not caplog.records
        out = pipe(**{**call, "first_frame": np.zeros((64, 96, 3), np.uint8)})
    assert "first_frame is 96x64 and skeleton 64x64" in caplog.text
    assert out.first_frame_fits[0].source == (96, 64)
    assert out.skeleton_fit is not None
    assert out.skeleton_fit.source == (64, 64)


def test_a_take_never_overwrites_a_json_of_the_same_name(tmp_path):
    (tmp_path / "take.json").write_text("mine")
    with pytest.raises(InputError, match=r"take.json exists already"):
        take_file.check_target(tmp_path / "take.mp4")
    take_file.check_target(tmp_path / "other.mp4")


def test_a_folders_hash_knows_names_and_contents(tmp_path, frames):
    one = write_pictures(tmp_path / "one", frames[:2])
    same = write_pictures(tmp_path / "same", frames[:2])
    renamed = write_pictures(tmp_path / "renamed", frames[:2], "f{}.png")
    other = write_pictures(tmp_path / "other", frames[1:3])
    hashes = [take_file._sha256(folder) for folder in (one, same, renamed, other)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
