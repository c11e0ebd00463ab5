# SPDX-License-Identifier: Apache-2.0
"""From planned items to dataset episodes: the take's video (checked against its hash) or the simulator's own pictures."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode, open_episode
from retake.core.errors import ExportError
from retake.core.export.collect import IMAGE, Item, Selection
from retake.core.export.language import language_rows
from retake.core.export.layouts import lay_out
from retake.core.export.provenance import uid_number
from retake.core.export.records import SUBTASK, Columns, DatasetEpisode, LanguageRows, Schema, Segment
from retake.core.export.truth import TRUTH, truth_columns
from retake.core.export.vectors import build_schema, columns
from retake.core.files import sha256_file
from retake.core.video import read_video


class EpisodeCache:
    """The episode opened last: items of one run follow each other, and an open episode holds its log in memory."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._episode: Episode | None = None

    def __call__(self, path: Path) -> Episode:
        """The episode at `path`."""
        if self._path != path or self._episode is None:
            self._path, self._episode = path, open_episode(path)
        return self._episode


def dataset_episode(item: Item, schema: Schema, selection: Selection, opened: EpisodeCache) -> DatasetEpisode:
    """The item as every writer takes it. Raises ExportError when a take's video is missing, changed or too short."""
    videos = {IMAGE + name: (name, path) for name, path in item.videos}

    def rows() -> Columns:
        episode = opened(item.episode)
        found = columns(episode, item.start, item.length, selection.action_source, selection.extras)
        if selection.layout != "full":
            full = build_schema(episode.header, {})
            found = lay_out(found, full, episode, item.start, item.length, selection.layout, selection.action_source)
        if any(key.startswith(TRUTH) for key in schema.vectors):
            found |= truth_columns(episode, schema.cameras, item.start, item.length)
        return found

    def language() -> LanguageRows:
        return language_rows(
            opened(item.episode), schema.cameras, item.start, item.length, words=item.words, seed=uid_number(item.uid)
        )

    def frames(key: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        name, path = videos[key]
        source = (
            simulated(opened(item.episode), name, item.start, item.length) if path is None else take_frames(item, path)
        )
        return (resized(frame, schema.cameras[key]) for frame in source)

    def segment(key: str) -> Segment | None:
        path = videos[key][1]
        if path is None or not path.is_file():
            return None
        check_take(item, path)
        return Segment(path, 0, item.length)

    extra = {"episode": item.episode, "start": item.start, "videos": item.videos, "run": item.run.name}
    said = language if schema.language or SUBTASK in schema.vectors else None
    return DatasetEpisode(item.uid, item.task, item.length, rows, frames, segment, item.provenance, said, extra)


def simulated(episode: Episode, camera: str, start: int, length: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The simulator's own pictures."""
    return (episode.image(camera, "rgb", index) for index in range(start, start + length))


def take_frames(item: Item, path: Path) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Exactly the item's frames of a take; frames after them only repeat the last one (padding) and are left out."""
    check_take(item, path)
    count = 0
    for frame in read_video(path):
        if count == item.length:
            return
        yield np.ascontiguousarray(frame)
        count += 1
    if count < item.length:
        raise ExportError(f"{path} ends after {count} frames; take.json promises {item.length}: make the take again")


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def check_take(item: Item, path: Path) -> None:
    """Whether the video is the one that was judged. Raises ExportError when it is missing or was changed."""
    if not path.is_file():
        raise ExportError(f"{path} is missing; its take.json is there: make the take again, or remove its folder")
    recorded = dict(
        zip([name for name, _ in item.videos], str(item.provenance.get("video_sha256") or "").split(","), strict=False)
    )
    expected = next((recorded.get(name, "") for name, video in item.videos if video == path), "")
    stat = path.stat()
    found = _sha256(path, stat.st_size, stat.st_mtime_ns) if expected else ""
    if found != expected:
        raise ExportError(
            f"{path} was changed after it was made: its SHA-256 is {found[:12]}…, take.json recorded {expected[:12]}…"
        )


def resized(frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The frame at the dataset's size (width, height): area average when shrinking, linear when growing (un-squeezing)."""
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    shrinks = size[0] <= frame.shape[1] and size[1] <= frame.shape[0]
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
