# SPDX-License-Identifier: Apache-2.0
"""What every format's writer does, and the parts LeRobot v2.1 and v3.0 share: one episode's rows, videos, statistics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import ExportError
from retake.core.export import encode, tables
from retake.core.export.provenance import uid_number
from retake.core.export.records import SOURCE_UID, Columns, DatasetEpisode, Schema, Segment, VideoOptions
from retake.core.export.staging import Entry, Staging
from retake.core.export.stats import ImageStats, Stats, vector_stats
from retake.core.files import write_bytes, write_json

MARKER = "meta/retake.json"
PROVENANCE = "meta/retake_provenance.jsonl"
REJECTED = "meta/retake_rejected.jsonl"
DATASET_SCHEMA = "retake.dataset/1"


class DatasetWriter(Protocol):
    """Writes one format into a Staging. `write` for each new episode in order, then `finish`."""

    replaced: tuple[str, ...]
    """Glob patterns of files that an append writes anew."""

    def write(self, index: int, episode: DatasetEpisode) -> Entry:
        """Write episode number `index` of this export; returns its journal entry."""
        ...

    def advance(self, entry: Entry) -> None:
        """Take note of a journal entry (also of those of an earlier, interrupted attempt), in order."""
        ...

    def finish(self) -> None:
        """Write everything that needs all episodes."""
        ...


def numeric_columns(episode: DatasetEpisode, schema: Schema) -> Columns:
    """The episode's numeric features; `source.uid`, where the schema has it, follows from the episode's identity."""
    columns = episode.columns()
    if SOURCE_UID in schema.vectors:
        columns = {**columns, SOURCE_UID: np.full(episode.length, uid_number(episode.uid), np.int64)}
    return {key: columns[key] for key in schema.vectors if key in columns}


def video_info(path: Path, schema: Schema, options: VideoOptions) -> dict[str, Any]:
    """The `info` block of a video feature, read back from a written file."""
    facts = encode.stream_facts(path)
    return {
        "video.height": facts["height"],
        "video.width": facts["width"],
        "video.codec": facts["codec"],
        "video.pix_fmt": facts["pix_fmt"],
        "video.is_depth_map": False,
        "video.fps": schema.fps,
        "video.channels": 3,
        "has_audio": False,
        "is_depth_map": False,
        "video.g": options.gop,
        "video.crf": options.crf,
        "video.preset": options.preset,
        "video.fast_decode": 0,
        "video.extra_options": {},
        "video.video_backend": "pyav",
    }


def counted(
    frames: Iterator[UInt8[np.ndarray, "H W 3"]], stats: ImageStats, size: tuple[int, int], key: str
) -> Iterator[Any]:
    """The frames, checked for size and counted into the statistics."""
    for frame in frames:
        if frame.shape != (size[1], size[0], 3) or frame.dtype != np.uint8:
            raise ExportError(
                f"{key}: a frame is {frame.shape} {frame.dtype}; the dataset has {size[0]}x{size[1]} uint8 RGB"
            )
        stats.add(frame)
        yield frame


def write_episode_video(
    path: Path, key: str, episode: DatasetEpisode, schema: Schema, options: VideoOptions, template: str
) -> tuple[int, Stats]:
    """Encode (or copy) one camera of one episode; returns payload bytes and image statistics.

    An encoded source is copied when its codec, size and key-frame spacing are those asked for: no second loss.
    `template`: the codec header that all videos of a file must share.
    """
    stats = ImageStats(episode.length)
    segment = episode.segment(key)
    size = schema.cameras[key]
    if segment is not None and copyable(segment, size, schema.fps, options, template):
        payload = encode.copy(path, [segment], schema.fps)
        for _ in counted(encode.read_segment(Segment(path, 0, episode.length)), stats, size, key):
            pass
        encode.check_video(path, schema.fps, episode.length)
        return payload, stats.result()
    payload = encode.encode(path, counted(episode.frames(key), stats, size, key), schema.fps, episode.length, options)
    if encode.stream_facts(path)["extradata"] != template:
        raise ExportError(
            f"{options.codec} gave {key} of one episode another header than the others; its video cannot be joined"
        )
    return payload, stats.result()


def copyable(segment: Segment, size: tuple[int, int], fps: int, options: VideoOptions, template: str) -> bool:
    """Whether an encoded segment can enter the dataset as it is."""
    facts = encode.stream_facts(segment.path)
    wanted = {"libsvtav1": "av1", "libx264": "h264", "libx265": "hevc", "libx264rgb": "h264"}[options.codec]
    rgb = facts["pix_fmt"] in ("gbrp", "rgb24")
    if facts["codec"] != wanted or (facts["width"], facts["height"]) != size or rgb != (options.pix_fmt == "rgb24"):
        return False
    if (not rgb and facts["pix_fmt"] != options.pix_fmt) or facts["extradata"] != template:
        return False
    since, seen = 0, 0
    try:
        for number, packet in encode.packets(segment.path, fps):
            if segment.start <= number < segment.start + segment.length:
                if packet.dts is not None and packet.dts != packet.pts:
                    return False
                since = 0 if packet.is_keyframe else since + 1
                if (seen == 0 and since) or since >= options.gop:
                    return False
                seen += 1
    except ExportError:
        return False
    return seen == segment.length


def episode_stats(columns: Columns, images: dict[str, Stats], table: Any) -> dict[str, Stats]:
    """Statistics of every feature of an episode, in the order of info.json's features."""
    numeric = {key: vector_stats(values) for key, values in columns.items()}
    defaults = {key: vector_stats(table.column(key).to_numpy()) for key in tables.DEFAULTS}
    return {**numeric, **images, **defaults}


def picture(path: Path, frame: UInt8[np.ndarray, "H W 3"], height: int = 180) -> None:
    """A small JPEG for the dataset card."""
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if ok:
        write_bytes(path, data.tobytes())


def write_marker(
    staging: Staging,
    schema: Schema,
    fmt: str,
    options: VideoOptions | None = None,
    also: Mapping[str, Any] | None = None,
) -> None:
    """meta/retake.json: what this dataset is (`also`: what only this format has), for `--append`, `retake mix` and people."""
    video = {} if options is None else {"video": vars(options)}
    content = {"schema": DATASET_SCHEMA, "format": fmt, **video, **(also or {}), "dataset": schema.to_json()}
    write_json(staging.dataset / MARKER, content)


def clear(path: Path) -> None:
    """An empty folder in place of whatever an interrupted attempt left."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
