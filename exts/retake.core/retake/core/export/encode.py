# SPDX-License-Identifier: Apache-2.0
"""Video files of a dataset: encode one episode, copy encoded frames without decoding, concatenate, count.

Frame k is shown at exactly k / fps. One encoder thread and fixed settings: the same frames give the same bytes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import ExportError, InputError, MissingDependencyError, install_hint
from retake.core.export.records import Segment, VideoOptions
from retake.core.files import atomic_path
from retake.core.video import X264_SAME_BYTES, coded_picture, require_uint8, shown_picture, state_colour

_MP4 = {"write_btrt": "0"}
"""No bit-rate box: it is an estimate that depends on how a file was joined, and would make its bytes do so."""


def require(package: str, extra: str = "export") -> Any:
    """An optional package. Raises MissingDependencyError naming the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"this needs {package.split('.')[0]}, which is not installed: {install_hint(extra)}"
        ) from error


def check_size(size: tuple[int, int], options: VideoOptions) -> None:
    """Whether a codec can hold frames of (width, height). Raises InputError with a size that works."""
    width, height = size
    even = (width + width % 2, height + height % 2)
    if options.pix_fmt == "yuv420p" and even != (width, height):
        raise InputError(
            f"{width}x{height} is odd; {options.pix_fmt} video needs even sizes: give --size {even[0]}x{even[1]}"
        )
    if options.codec == "libsvtav1" and min(size) < 64:
        raise InputError(
            f"{width}x{height} is too small for AV1 (64x64 at least): use --codec h264, or a larger --size"
        )


def encode(
    path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: int, length: int, options: VideoOptions
) -> int:
    """Write `length` RGB frames; returns the payload (sum of packet sizes), bytes.

    Raises ExportError when there are fewer or more frames. Disk errors come as OSError.
    """
    os.environ.setdefault("SVT_LOG", "1")  # the encoder's banner goes to the process's own stderr
    av = require("av")
    if options.codec not in av.codecs_available:
        raise MissingDependencyError(f"this PyAV has no encoder {options.codec!r}; choose another with --codec")
    settings = {"g": str(options.gop), "crf": str(options.crf)}
    if options.preset:
        settings["preset"] = options.preset
    if options.codec == "libsvtav1":
        settings["svtav1-params"] = "lp=1:fast-decode=0"
    else:
        settings["bf"] = "0"  # presentation order = stored order, so episodes join without a gap
        if options.codec == "libx265":
            settings["x265-params"] = "log-level=error:pools=1:frame-threads=1"
        elif options.codec == "libx264":
            settings["x264-params"] = X264_SAME_BYTES
    count = 0
    with atomic_path(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options=_MP4) as container:
            stream: Any = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream(options.codec, rate=fps)
                    stream.width, stream.height, stream.pix_fmt = frame.shape[1], frame.shape[0], options.pix_fmt
                    stream.options, stream.thread_count = settings, 1
                    state_colour(stream)
                    with usual_scheduling():
                        stream.codec_context.open()
                require_uint8(frame, count)
                picture = coded_picture(av, frame, options.pix_fmt)
                picture.pts, picture.time_base = count, Fraction(1, fps)
                for packet in stream.encode(picture):
                    container.mux(packet)
                count += 1
            if stream is not None:
                for packet in stream.encode(None):
                    container.mux(packet)
        if count != length:
            raise ExportError(f"a video gave {count} frames where the episode has {length}; nothing was written")
        return check_video(temporary, fps, length)


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """Takes back real-time scheduling that a thread of this process was given inside.

    SVT-AV1 puts its caller and its own threads under SCHED_FIFO where it may (as root, or with CAP_SYS_NICE; seen
    with PyAV 18.1). Such a process, and every process it starts, starves the simulator beside it, and a
    spinning BLAS thread never ends. Other platforms: nothing to do.
    """
    threads = Path("/proc/self/task")
    if not hasattr(os, "sched_getscheduler") or not threads.is_dir():
        yield
        return
    before = {int(t.name): _policy(int(t.name)) for t in threads.iterdir()}
    usual = _policy(0)
    try:
        yield
    finally:
        for thread in (int(t.name) for t in threads.iterdir()):
            wanted = before.get(thread, usual)
            if wanted is not None and _policy(thread) not in (wanted, None):
                with suppress(ProcessLookupError):  # it has just ended
                    os.sched_setscheduler(thread, *wanted)


def _policy(thread: int) -> tuple[int, os.sched_param] | None:
    """Scheduling of a thread (0: the calling one); None when it has just ended."""
    try:
        return os.sched_getscheduler(thread), os.sched_getparam(thread)
    except ProcessLookupError:
        return None


def codec_header(scratch: Path, size: tuple[int, int], fps: int, options: VideoOptions) -> str:
    """The codec header (hex) that this encoder gives every video of that size: what files to be joined must share."""
    encode(scratch, [np.zeros((size[1], size[0], 3), np.uint8)], fps, 1, options)
    header = stream_facts(scratch)["extradata"]
    scratch.unlink()
    return header


def packets(path: Path, fps: int) -> Iterator[tuple[int, Any]]:
    """(frame number, packet) of a video in stored order. Raises ExportError when a frame is not at k / fps."""
    av = require("av")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue
                time = packet.pts * packet.time_base * fps
                if abs(time - round(time)) > Fraction(1, 1000):
                    raise ExportError(
                        f"{path}: a frame is at {float(time / fps):.6f} s, which is no multiple of 1/{fps} s"
                    )
                yield round(time), packet
    except av.FFmpegError as error:
        raise ExportError(f"{path} is not a readable video: {error}") from error


def check_video(path: Path, fps: int, frames: int) -> int:
    """Payload bytes of a video that must hold frames 0 … frames-1 once each. Raises ExportError when it does not."""
    seen, payload = set(), 0
    for number, packet in packets(path, fps):
        seen.add(number)
        payload += packet.size
    if seen != set(range(frames)):
        raise ExportError(f"{path} holds {len(seen)} distinct frames; expected 0 … {frames - 1} at {fps} fps")
    return payload


def copy(path: Path, segments: Iterable[Segment], fps: int) -> int:
    """Join encoded segments into one file without decoding; returns the payload, bytes.

    Every segment must begin with a key frame and share codec, size and settings. Raises ExportError otherwise.
    """
    av = require("av")
    offset, payload = 0, 0
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4", options=_MP4) as out:
        stream: Any = None
        for segment in segments:
            first = True
            with av.open(str(segment.path)) as source:
                template = source.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(template, opaque=True)
            for number, packet in packets(segment.path, fps):
                shift = number - segment.start
                if not 0 <= shift < segment.length:
                    continue
                if first and not packet.is_keyframe:
                    raise ExportError(
                        f"{segment.path}: frame {segment.start} is no key frame; it cannot be copied alone"
                    )
                first = False
                order = packet.dts if packet.dts is not None else packet.pts
                decode = round(order * packet.time_base * fps) - segment.start
                packet.stream, packet.time_base = stream, Fraction(1, fps)
                packet.pts, packet.dts, packet.duration = offset + shift, offset + decode, 1
                payload += packet.size
                out.mux(packet)
            offset += segment.length
    return payload


def stream_facts(path: Path) -> dict[str, Any]:
    """codec (canonical name), width, height, pix_fmt and extradata hash of a file's video stream."""
    av = require("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return {
            "codec": getattr(stream.codec, "canonical_name", None) or context.name,
            "width": context.width,
            "height": context.height,
            "pix_fmt": context.pix_fmt or "",
            "colour": (context.color_range, context.colorspace, context.color_primaries, context.color_trc),
            "extradata": (context.extradata or b"").hex(),
        }


def read_segment(segment: Segment) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Decoded RGB frames of a segment. Raises ExportError when it ends early, is missing or cannot be decoded."""
    av = require("av")
    try:
        yield from _decoded(av, segment)
    except av.FFmpegError as error:
        what = "is missing" if not segment.path.exists() else f"is no readable video: {error}"
        raise ExportError(f"{segment.path} {what}") from error


def _decoded(av: Any, segment: Segment) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    done = 0
    with av.open(str(segment.path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        if segment.start and rate:
            target = int(Fraction(segment.start) / rate / stream.time_base)
            container.seek(target, stream=stream, backward=True)
        for picture in container.decode(stream):
            number = round(picture.pts * stream.time_base * rate) if rate and picture.pts is not None else done
            if number < segment.start:
                continue
            if done == segment.length:
                break
            yield shown_picture(av, picture)
            done += 1
    if done != segment.length:
        raise ExportError(f"{segment.path} ends after {done} of {segment.length} frames from frame {segment.start}")
