# SPDX-License-Identifier: Apache-2.0
"""Video files, streamed: frames in, a file out, and back, a few frames in memory at a time.

PyAV writes H.264 (libx264; its wheel bundles GPL codecs, docs/licences.md) that every browser plays. Without PyAV, or
inside Kit, OpenCV's built-in Motion-JPEG `.avi` is the fallback: `codec_available()` says which one a file will get.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import InputError, MissingDependencyError, install_hint
from retake.core.files import atomic_path

X264_SAME_BYTES = "mbtree=0"
"""Parameters of libx264 under which equal frames give equal bytes, whatever else the process did before.

Its macroblock tree (on by default) reads memory that it never wrote in its hand-written SIMD: seen with the library of
PyAV 18.1, where up to one file of fifteen differed (frames up to 320x240; none with the tree off, or without SIMD).
"""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds."""

    size: tuple[int, int]
    """(width, height), px."""
    frames: int
    fps: float
    codec: str


def open_av() -> Any:
    """PyAV, or None where it is absent or disabled (RETAKE_NO_PYAV=1, for tests of the fallback)."""
    if os.environ.get("RETAKE_NO_PYAV") == "1":
        return None
    try:
        import av
    except ImportError:
        return None
    return av


def codec_available() -> str:
    """`h264` where PyAV has libx264, else `mpeg4` through PyAV, else `mjpeg` through OpenCV."""
    av = open_av()
    if av is None:
        return "mjpeg"
    return "h264" if "libx264" in av.codecs_available else "mpeg4"


def write_video(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: float,
    *,
    crf: int = 18,
    gop: int = 15,
    lossless: bool = False,
) -> VideoInfo:
    """Encode RGB uint8 frames at a constant rate; the file appears under `path` only when it is whole.

    Odd sizes are padded by one repeated row or column (4:2:0 needs even sizes) and the true size is kept in the
    container's cropping-free metadata `retake_size`. With `lossless=True` (PyAV only) pixels survive exactly.
    Conversion and encoding are single-threaded, and what libx264 leaves to chance is off (X264_SAME_BYTES), hence the
    same bytes for the same frames. Raises InputError for no frames or mixed sizes, MissingDependencyError when
    `lossless` is asked without PyAV.
    """
    av = open_av()
    if av is None and lossless:
        raise MissingDependencyError(f"lossless video needs PyAV: {install_hint('video')}")
    if av is None:
        return _write_mjpeg(path, frames, fps)
    codec = "libx264rgb" if lossless else ("libx264" if codec_available() == "h264" else "mpeg4")
    count, size = 0, (0, 0)
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            stream: Any = None
            for frame in frames:
                if stream is None:
                    size = (frame.shape[1], frame.shape[0])
                    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
                    container.metadata["comment"] = f"retake_size={size[0]}x{size[1]}"
                    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                    stream.width, stream.height = even
                    stream.pix_fmt = "rgb24" if lossless else "yuv420p"
                    stream.thread_count = 1
                    state_colour(stream)
                    stream.options = (
                        {"crf": "0", "preset": "veryfast"}
                        if lossless
                        else {
                            "crf": str(crf),
                            "preset": "veryfast",
                            "g": str(gop),
                            "bf": "0",
                            "x264-params": X264_SAME_BYTES,
                        }
                        if codec == "libx264"
                        else {"q": "3", "g": str(gop)}
                    )
                _check_frame(frame, size, count)
                if even != size:
                    frame = np.pad(frame, ((0, even[1] - size[1]), (0, even[0] - size[0]), (0, 0)), mode="edge")
                picture = coded_picture(av, frame, stream.pix_fmt)
                picture.pts = count
                for packet in stream.encode(picture):
                    container.mux(packet)
                count += 1
            if stream is None:
                raise InputError(f"no frames to write to {path}; a video needs at least one")
            for packet in stream.encode(None):
                container.mux(packet)
    return VideoInfo(size, count, float(fps), codec)


def read_video(path: Path) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """RGB frames of a video file, in order, one at a time. Raises InputError when it is missing or not decodable."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a video file")
    av = open_av()
    if av is None:
        yield from _read_opencv(path)
        return
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} holds no video stream")
            width, height = true_size(container)
            for picture in container.decode(video=0):
                yield shown_picture(av, picture)[:height, :width]
    except av.FFmpegError as error:
        raise InputError(f"{path} is not a readable video: {error}") from error


def video_info(path: Path) -> VideoInfo:
    """Size, number of frames (decoded and counted), rate and codec. Raises InputError as `read_video` does."""
    path = Path(path)
    av = open_av()
    if av is None:
        size, count = (0, 0), 0
        for count, frame in enumerate(read_video(path), 1):  # noqa: B007
            size = (frame.shape[1], frame.shape[0])
        if not count:
            raise InputError(f"{path} holds no frame")
        return VideoInfo(size, count, video_fps(path), "mjpeg")
    count = sum(1 for _ in read_video(path))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        return VideoInfo(true_size(container), count, float(rate) if rate else 0.0, stream.codec_context.name)


def video_stated(path: Path) -> VideoInfo | None:
    """What a file's header states, without decoding a frame; None where it states no number of frames (or no PyAV).

    Good enough for files that this project wrote and hashes; `video_info` counts.
    """
    av = open_av()
    if av is None:
        return None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        if not stream.frames:
            return None
        return VideoInfo(true_size(container), stream.frames, float(rate) if rate else 0.0, stream.codec_context.name)


def video_fps(path: Path) -> float:
    """Frame rate a file states, without decoding it; 0 where it states none. Raises InputError as `read_video` does."""
    path, av = Path(path), open_av()
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a video file")
    if av is None:
        capture = cv2.VideoCapture(str(path))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        return fps
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate if container.streams.video else None
            return float(rate) if rate else 0.0
    except av.FFmpegError as error:
        raise InputError(f"{path} is not a readable video: {error}") from error


def true_size(container: Any) -> tuple[int, int]:
    """Size without the padding of odd frames."""
    context, comment = container.streams.video[0].codec_context, container.metadata.get("comment", "")
    if comment.startswith("retake_size="):
        width, _, height = comment.removeprefix("retake_size=").partition("x")
        if width.isdigit() and height.isdigit():
            return min(int(width), context.width), min(int(height), context.height)
    return context.width, context.height


_BT601, _RGB, _BT709, _SRGB = 6, 0, 1, 13
_LIMITED, _FULL = 1, 2
"""Numbers of ITU-T H.273: matrix, primaries, transfer; and FFmpeg's two ranges."""


def state_colour(stream: Any) -> None:
    """State range, matrix, primaries and transfer in a stream to be encoded (its `pix_fmt` is set): sRGB pictures.

    The matrix is BT.601, not BT.709: readers that ignore what a file states (OpenCV, PyAV before 16) take that one, and
    those that look find it stated; both give the same pixels. RGB video keeps the full range.
    """
    rgb = stream.pix_fmt in ("rgb24", "gbrp")
    context = stream.codec_context
    context.color_range, context.colorspace = (_FULL, _RGB) if rgb else (_LIMITED, _BT601)
    context.color_primaries, context.color_trc = _BT709, _SRGB


def shown_picture(av: Any, picture: Any) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded frame as RGB, padding of odd sizes included."""
    return np.asarray(picture.to_ndarray(format="rgb24", **_one_thread(av)))


def _one_thread(av: Any) -> dict[str, int]:
    """Option of a conversion between pixel formats that keeps it in the calling thread. PyAV from 17 on shares each picture
    among a pool as large as the machine, for no gain at these sizes and with results that then hang on other people's threads;
    before 17 it has no such option and no such pool."""
    major = av.__version__.partition(".")[0]
    return {"threads": 1} if major.isdigit() and int(major) >= 17 else {}


def coded_picture(av: Any, frame: UInt8[np.ndarray, "H W 3"], pix_fmt: str) -> Any:
    """A frame in the pixel format of its stream, converted as `state_colour` states."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    if pix_fmt == "yuv420p":
        picture = picture.reformat(format=pix_fmt, dst_colorspace="ITU601", dst_color_range="MPEG", **_one_thread(av))
        picture.colorspace, picture.color_range = _BT601, _LIMITED
    return picture


def require_uint8(frame: np.ndarray, index: int) -> None:
    """Raises InputError for a frame of other numbers than bytes, saying how to make them."""
    if frame.dtype == np.uint8:
        return
    hint = "bytes are wanted"
    if frame.dtype.kind == "f":
        low, high = (float(frame.min()), float(frame.max())) if frame.size else (0.0, 0.0)
        unit = "0..1: (255 * frame).round()" if high <= 1.0 and low >= 0.0 else "0..255: frame.round()"
        hint = f"its numbers are {low:.3g} … {high:.3g}; if they mean {unit}.astype(numpy.uint8) makes the bytes"
    raise InputError(f"video frame {index} is {frame.dtype}; expected uint8 RGB: {hint}")


def _check_frame(frame: np.ndarray, size: tuple[int, int], index: int) -> None:
    require_uint8(frame, index)
    if frame.dtype != np.uint8 or frame.shape != (size[1], size[0], 3):
        raise InputError(
            f"video frame {index} is {frame.shape} {frame.dtype}; expected {(size[1], size[0], 3)} uint8 RGB"
        )


def _write_mjpeg(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float) -> VideoInfo:
    """Motion-JPEG in AVI through OpenCV's own writer, which needs no ffmpeg. The content is AVI whatever the suffix."""
    count, size, writer = 0, (0, 0), None
    with atomic_path(path) as temporary:
        avi = temporary.with_suffix(".avi")
        try:
            for frame in frames:
                if writer is None:
                    size = (frame.shape[1], frame.shape[0])
                    writer = cv2.VideoWriter(str(avi), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter_fourcc(*"MJPG"), fps, size)  # type: ignore[attr-defined]
                    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
                _check_frame(frame, size, count)
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
                count += 1
            if writer is None:
                raise InputError(f"no frames to write to {path}; a video needs at least one")
            writer.release()
            _require_whole(avi, count)
            os.replace(avi, temporary)
        finally:
            avi.unlink(missing_ok=True) if avi != temporary else None
    return VideoInfo(size, count, float(fps), "mjpeg")


def _require_whole(avi: Path, count: int) -> None:
    """OpenCV's writer keeps silent when the disk is full; the index at the file's end tells. Raises OSError."""
    capture = cv2.VideoCapture(str(avi), cv2.CAP_OPENCV_MJPEG) if avi.exists() else None
    try:
        if capture is not None and capture.isOpened() and round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == count:
            return
    finally:
        if capture is not None:
            capture.release()
    code = errno.ENOSPC if shutil.disk_usage(avi.parent).free < 1 << 20 else errno.EIO
    raise OSError(code, f"{os.strerror(code)} (the video could not be written whole)", str(avi))


def _read_opencv(path: Path) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_OPENCV_MJPEG)
    if not capture.isOpened():
        capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise InputError(f"{path} is not a readable video (without PyAV only Motion-JPEG is certain to be)")
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
