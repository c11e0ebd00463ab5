# SPDX-License-Identifier: Apache-2.0
"""LeRobot v2.1: one parquet and one video per episode and camera, plus GR00T's modality.json and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from retake.core.errors import ExportError
from retake.core.export import encode, gr00t, tables
from retake.core.export.reader import Dataset
from retake.core.export.records import SUBTASK, DatasetEpisode, LanguageRows, Schema, VideoOptions
from retake.core.export.staging import Entry, Staging
from retake.core.export.stats import QUANTILES, merge
from retake.core.export.writer import (
    PROVENANCE,
    episode_stats,
    numeric_columns,
    video_info,
    write_episode_video,
    write_marker,
)

VERSION = "v2.1"
CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
NO_COUNT = ("min", "max", "mean", "std", *QUANTILES)
"""Statistics of the global file: GR00T N1.5 slices every statistic of a vector, and `count` is one number alone."""


class LeRobotV21Writer:
    """Every episode is its own files, so nothing is joined later."""

    replaced: tuple[str, ...] = ()

    def __init__(self, staging: Staging, schema: Schema, options: VideoOptions, split: str = "train") -> None:
        self.staging, self.schema, self.options, self.split = staging, schema, options, split
        self.base = Dataset(staging.base) if staging.base else None
        self.tasks: dict[str, int] = {task: i for i, task in enumerate(self.base.tasks)} if self.base else {}
        self.episodes = len(self.base) if self.base else 0
        self.frames = self.base.total_frames if self.base else 0
        probe = staging.path / "probe.mp4"
        self._template = {
            k: encode.codec_header(probe, size, schema.fps, options) for k, size in schema.cameras.items()
        }

    def write(self, index: int, episode: DatasetEpisode) -> Entry:
        """Write one episode's final files."""
        where = {"episode_chunk": self.episodes // CHUNKS_SIZE, "episode_index": self.episodes}
        columns = numeric_columns(episode, self.schema)
        task = self.tasks.get(episode.task, len(self.tasks))
        subtasks: list[str] = []
        if SUBTASK in self.schema.vectors:
            subtasks, columns[SUBTASK] = self._subtasks(episode)
        table = tables.data_table(self.schema, columns, episode=self.episodes, first_index=self.frames, task_index=task)
        if len(table) != episode.length:
            raise ExportError(f"an episode of {episode.length} frames has {len(table)} rows of state")
        root, images = self.staging.dataset, {}
        for key in self.schema.cameras:
            path = root / VIDEO_PATH.format(video_key=key, **where)
            _, images[key] = write_episode_video(path, key, episode, self.schema, self.options, self._template[key])
        tables.write_tables(root / DATA_PATH.format(**where), [table], table.schema)
        return {
            "uid": episode.uid,
            "length": episode.length,
            "task": episode.task,
            "subtasks": subtasks,
            "stats": episode_stats(columns, images, table),
            "provenance": dict(episode.provenance),
        }

    def advance(self, entry: Entry) -> None:
        """Count the episode."""
        for text in (entry["task"], *entry.get("subtasks", ())):
            self.tasks.setdefault(text, len(self.tasks))
        self.episodes += 1
        self.frames += entry["length"]

    def _subtasks(self, episode: DatasetEpisode) -> tuple[list[str], Any]:
        """(texts in order of appearance, (T,) index into tasks.jsonl); a frame of which nothing is said has the task."""
        rows = episode.language() if episode.language is not None else LanguageRows()
        said = sorted(
            (round(r["timestamp"] * self.schema.fps), r["content"]) for r in rows.persistent if r["style"] == "subtask"
        )
        known = dict(self.tasks)
        known.setdefault(episode.task, len(known))
        out = np.full(episode.length, known[episode.task], np.int64)
        for frame, text in said:
            out[frame:] = known.setdefault(text, len(known))
        return [text for _, text in said], out

    def finish(self) -> None:
        """Write meta/."""
        meta, schema = self.staging.dataset / "meta", self.schema
        tables.write_jsonl(meta / "tasks.jsonl", ({"task_index": i, "task": task} for task, i in self.tasks.items()))
        tables.write_jsonl(meta / "episodes.jsonl", self._lines("episodes.jsonl", _episode))
        tables.write_jsonl(meta / "episodes_stats.jsonl", self._lines("episodes_stats.jsonl", _episode_stats))
        tables.write_jsonl(self.staging.dataset / PROVENANCE, self._lines("retake_provenance.jsonl", _provenance))
        # GR00T normalises with the quantiles of the global file; LeRobot's converter to v3.0 carries the episodes' own.
        merged = merge(lambda: (row["stats"] for row in tables.read_jsonl(meta / "episodes_stats.jsonl")))
        whole = {key: {name: stats[name] for name in NO_COUNT} for key, stats in merged.items()}
        tables.write_json_plain(meta / "stats.json", whole)
        tables.write_json_plain(meta / "modality.json", gr00t.modality(schema))
        write_marker(self.staging, schema, "lerobot-v2.1", self.options)
        if self.base:
            info = {key: self.base.info["features"][key]["info"] for key in schema.cameras}
        else:
            first = {"episode_chunk": 0, "episode_index": 0}
            paths = {key: self.staging.dataset / VIDEO_PATH.format(video_key=key, **first) for key in schema.cameras}
            info = {key: video_info(path, schema, self.options) for key, path in paths.items()}
        content = {
            "codebase_version": VERSION,
            "robot_type": schema.robot_type,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "total_videos": self.episodes * len(schema.cameras),
            "total_chunks": -(-self.episodes // CHUNKS_SIZE),
            "chunks_size": CHUNKS_SIZE,
            "fps": schema.fps,
            "splits": {self.split: f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if schema.cameras else None,
            "features": tables.features(schema, info),
        }
        tables.write_json_plain(meta / "info.json", content)

    def _lines(self, name: str, make: Any) -> Iterator[Any]:
        """The base's lines of a metadata file, then one per new episode."""
        index = 0
        if self.base:
            for row in tables.read_jsonl(self.base.root / "meta" / name):
                yield row
                index += 1
        for entry in self.staging.entries():
            line = make(entry)
            yield {"episode_index": index, **line}
            index += 1


def _episode(entry: Entry) -> dict[str, Any]:
    return {"tasks": [entry["task"]], "length": entry["length"]}


def _episode_stats(entry: Entry) -> dict[str, Any]:
    return {"stats": entry["stats"]}


def _provenance(entry: Entry) -> dict[str, Any]:
    return entry["provenance"]
