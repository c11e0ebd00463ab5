# SPDX-License-Identifier: Apache-2.0
"""Every video says what its numbers mean, and decoders that look at it agree with those that do not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retake.core.errors import InputError
from retake.core.export import encode
from retake.core.export.records import VideoOptions
from retake.core.video import read_video, write_video

av = pytest.importorskip("av")
COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 30, 120), (20, 180, 90), (128, 128, 128)]
)
PICTURE = np.repeat(np.repeat(COLOURS.astype(np.uint8)[None], 64, 0), 32, 1)
LIMITED_601, FULL_RGB = (1, 6, 1, 13), (2, 0, 1, 13)


def write(path: Path, codec: str, frames: list[np.ndarray]) -> Path:
    if codec == "take":
        write_video(path, frames, 10, crf=4)
    else:
        options = VideoOptions.of(codec, 0 if codec == "lossless" else 5)
        encode.encode(path, frames, 10, len(frames), options)
    return path


def written(path: Path, codec: str) -> Path:
    return write(path, codec, [PICTURE] * 3)


def largest_error(frame: np.ndarray) -> int:
    return int(np.abs(frame[32, 16::32].astype(int) - COLOURS).max())


@pytest.mark.parametrize("codec", ["av1", "h264", "hevc", "lossless", "take"])
def test_range_matrix_primaries_and_transfer_are_stated_and_true(codec: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", codec)
    assert encode.stream_facts(path)["colour"] == (FULL_RGB if codec == "lossless" else LIMITED_601)
    assert largest_error(next(read_video(path))) <= (0 if codec == "lossless" else 2)
    if codec == "lossless":
        return
    with av.open(str(path)) as container:
        yuv = next(container.decode(video=0)).to_ndarray(format="yuv420p")
    y, u, v = yuv[32, 16:256:32], yuv[64 + 4, 8:128:16], yuv[64 + 16 + 4, 8:128:16]
    assert (int(y[3]), int(y[4])) == (235, 16), "limited range: white 235, black 16"
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    wanted = np.array([16, 128, 128]) + COLOURS @ matrix.T  # ITU-R BT.601
    assert np.abs(np.stack([y, u, v], 1) - wanted).max() <= 3


@pytest.mark.parametrize("codec", ["h264", "hevc", "take"])
def test_a_decoder_that_ignores_what_is_stated_gives_the_same(codec: str, tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(written(tmp_path / "v.mp4", codec)))
    ok, frame = capture.read()
    capture.release()
    if not ok:
        pytest.skip(f"this OpenCV decodes no {codec}")
    assert largest_error(frame[..., ::-1]) <= 2


@pytest.mark.parametrize("codec", ["h264", "lossless", "take"])
def test_float_frames_are_refused_with_the_way_to_make_bytes(codec: str, tmp_path: Path) -> None:
    for frame, hint in (
        (PICTURE / 255, r"\(255 \* frame\).round\(\)"), (PICTURE.astype(np.float32), r"0..255: frame.round\(\)"),
        (PICTURE.astype(np.int32), "bytes are wanted"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=hint):
            write(tmp_path / "v.mp4", codec, [frame])
    assert not list(tmp_path.iterdir())
