# SPDX-License-Identifier: Apache-2.0
"""LeRobot v3.0: many episodes per file (docs/datasets.md has the layout).

Each episode is encoded into parts/; when the open file of a camera would exceed its size, the parts become that file
(copied, not decoded) and are deleted, so a running export needs the dataset's size plus one open file per camera. Which
episode goes into which file follows from payload sizes alone: appending re-opens the last file and gives the same bytes
as exporting everything at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from retake.core.errors import ExportError
from retake.core.export import encode, gr00t, tables
from retake.core.export.provenance import column_kinds
from retake.core.export.reader import Dataset
from retake.core.export.records import DatasetEpisode, Schema, Segment, VideoOptions
from retake.core.export.staging import Entry, Staging
from retake.core.export.stats import QUANTILES, merge
from retake.core.export.writer import (
    PROVENANCE,
    clear,
    episode_stats,
    numeric_columns,
    video_info,
    write_episode_video,
    write_marker,
)

VERSION = "v3.0"
CHUNKS_SIZE = 1000
EPISODES_PER_META_FILE = 10_000
META_ROW_GROUP = 500
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)


@dataclass(frozen=True)
class Limits:
    """Where files end, bytes. LeRobot's defaults."""

    data: int = 100 * 1024**2
    video: int = 200 * 1024**2


@dataclass
class _OpenFile:
    """The file of one key (a camera, or "data") that still takes episodes."""

    chunk: int = 0
    file: int = 0
    size: int = 0
    frames: int = 0
    members: list[tuple[Path, int]] = field(default_factory=list)
    """(file, frames), in order."""

    def next(self) -> None:
        """Begin the next file."""
        rolls = self.file == CHUNKS_SIZE - 1
        self.chunk, self.file = (self.chunk + 1, 0) if rolls else (self.chunk, self.file + 1)
        self.size, self.frames, self.members = 0, 0, []


class LeRobotV3Writer:
    """See the module's text. `base` in the staging is a dataset of the same schema, or None."""

    replaced: tuple[str, ...] = ("meta/episodes/**/*.parquet",)

    def __init__(
        self,
        staging: Staging,
        schema: Schema,
        options: VideoOptions,
        split: str = "train",
        limits: Limits | None = None,
    ):
        self.staging, self.schema, self.options, self.split = staging, schema, options, split
        self.limits = limits or Limits()
        self.base = Dataset(staging.base) if staging.base else None
        self.tasks: dict[str, int] = {}
        self.open = {key: _OpenFile() for key in (*schema.cameras, "data")}
        self.episodes = self.frames = 0
        self._template = {
            key: encode.codec_header(staging.path / "probe.mp4", size, schema.fps, options)
            for key, size in schema.cameras.items()
        }
        self._info: dict[str, dict[str, Any]] = {}
        if self.base:
            self._take_over(self.base)

    def write(self, index: int, episode: DatasetEpisode) -> Entry:
        """Encode one episode into parts/."""
        part = self.staging.parts / f"{index:06d}"
        clear(part)
        columns = numeric_columns(episode, self.schema)
        task = self.tasks.get(episode.task, len(self.tasks))
        said = episode.language() if episode.language is not None and self.schema.language else None
        table = tables.data_table(
            self.schema, columns, episode=self.episodes, first_index=self.frames, task_index=task, language=said
        )
        if len(table) != episode.length:
            raise ExportError(f"an episode of {episode.length} frames has {len(table)} rows of state")
        tables.write_tables(part / "data.parquet", [table], table.schema)
        sizes, images = {"data": episode.length * tables.row_bytes(self.schema)}, {}
        for key in self.schema.cameras:
            sizes[key], images[key] = write_episode_video(
                part / f"{key}.mp4", key, episode, self.schema, self.options, self._template[key]
            )
        return {
            "part": part.name,
            "uid": episode.uid,
            "length": episode.length,
            "task": episode.task,
            "sizes": sizes,
            "stats": episode_stats(columns, images, table),
            "provenance": dict(episode.provenance),
        }

    def advance(self, entry: Entry) -> None:
        """Give the episode its place; close files that are full."""
        part = self.staging.parts / entry["part"]
        for key, open_file in self.open.items():
            limit = self.limits.data if key == "data" else self.limits.video
            if open_file.members and open_file.size + entry["sizes"][key] > limit:
                self._close(key, open_file)
                open_file.next()
            member = part / ("data.parquet" if key == "data" else f"{key}.mp4")
            open_file.members.append((member, entry["length"]))
            open_file.size += entry["sizes"][key]
            open_file.frames += entry["length"]
        self.tasks.setdefault(entry["task"], len(self.tasks))
        self.episodes += 1
        self.frames += entry["length"]

    def finish(self) -> None:
        """Close all files and write the metadata."""
        for key, open_file in self.open.items():
            self._close(key, open_file)
        root = self.staging.dataset
        meta = root / "meta"
        tables.write_tasks_parquet(meta / "tasks.parquet", list(self.tasks))
        tables.write_json_plain(meta / "stats.json", merge(lambda: (row["stats"] for row in self._rows())))
        self._write_episodes()
        tables.write_jsonl(
            root / PROVENANCE, ({"episode_index": i, **r["provenance"]} for i, r in enumerate(self._rows()))
        )
        tables.write_json_plain(meta / "modality.json", gr00t.modality(self.schema))
        write_marker(self.staging, self.schema, "lerobot-v3", self.options)
        info = {
            "codebase_version": VERSION,
            "robot_type": self.schema.robot_type,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.schema.fps,
            "splits": {self.split: f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.schema.cameras else None,
            "features": tables.features(self.schema, {key: self._video_info(key) for key in self.schema.cameras}),
        }
        tables.write_json_plain(meta / "info.json", info)

    def _take_over(self, base: Dataset) -> None:
        """Continue the base: its tasks, and its last files with what they hold."""
        self.tasks = {task: i for i, task in enumerate(base.tasks)}
        self.episodes, self.frames = len(base), base.total_frames
        last: dict[str, tuple[int, int]] = {}
        for row in base.rows():
            last["data"] = (row["data/chunk_index"], row["data/file_index"])
            for key in self.schema.cameras:
                last[key] = (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        frames = dict.fromkeys(last, 0)
        for row in base.rows():
            for key, place in last.items():
                prefix = "data" if key == "data" else f"videos/{key}"
                if (row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]) == place:
                    frames[key] += row["length"]
        for key, (chunk, file) in last.items():
            path = self._path(key, chunk, file, base.root)
            size = frames[key] * tables.row_bytes(self.schema)
            if key != "data":
                size = sum(packet.size for _, packet in encode.packets(path, self.schema.fps))
                self._info[key] = base.info["features"][key]["info"]
            self.open[key] = _OpenFile(chunk, file, size, frames[key], [(path, frames[key])])
            if key != "data" and encode.stream_facts(path)["extradata"] != self._template[key]:
                # Written by another encoder version: its packets cannot share a file with ours.
                self.open[key].next()

    def _path(self, key: str, chunk: int, file: int, root: Path | None = None) -> Path:
        pattern = DATA_PATH if key == "data" else VIDEO_PATH
        return (root or self.staging.dataset) / pattern.format(video_key=key, chunk_index=chunk, file_index=file)

    def _close(self, key: str, open_file: _OpenFile) -> None:
        """Make the file of its members, then delete them. Nothing to do where an interrupted attempt did it."""
        if not open_file.members:
            return
        target, members = self._path(key, open_file.chunk, open_file.file), open_file.members
        ours = [path for path, _ in members if path.is_relative_to(self.staging.parts)]
        if not target.exists() and ours:
            if key == "data":
                tables.write_tables(target, _groups(members), tables.data_schema(self.schema))
            else:
                encode.copy(target, (Segment(path, 0, frames) for path, frames in members), self.schema.fps)
                encode.check_video(target, self.schema.fps, open_file.frames)
        for path in ours:
            path.unlink(missing_ok=True)
            if path.parent.exists() and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """length, task, sizes, stats, provenance of every episode of the finished dataset, in order."""
        if self.base:
            yield from self.base.full_rows()
        yield from self.staging.entries()

    def _video_info(self, key: str) -> dict[str, Any]:
        if key not in self._info:
            self._info[key] = video_info(self._path(key, 0, 0), self.schema, self.options)
        return self._info[key]

    def _places(self) -> Iterator[dict[str, Any]]:
        """Where every episode is: base episodes as recorded, new ones by repeating `advance`'s arithmetic."""
        place = {key: _OpenFile() for key in self.open}
        index = frames = 0
        if self.base:
            for row in self.base.rows():
                yield {k: v for k, v in row.items() if not k.startswith(("meta/", "retake/", "stats/"))}
                index, frames = index + 1, frames + row["length"]
            again = LeRobotV3Writer(self.staging, self.schema, self.options, self.split, self.limits)
            place = again.open
        for entry in self.staging.entries():
            length = entry["length"]
            row: dict[str, Any] = {"episode_index": index, "length": length, "tasks": [entry["task"]]}
            row |= {"dataset_from_index": frames, "dataset_to_index": frames + length}
            for key, where in place.items():
                limit = self.limits.data if key == "data" else self.limits.video
                if where.frames and where.size + entry["sizes"][key] > limit:
                    where.next()
                prefix = "data" if key == "data" else f"videos/{key}"
                row |= {f"{prefix}/chunk_index": where.chunk, f"{prefix}/file_index": where.file}
                if key != "data":
                    row[f"{prefix}/from_timestamp"] = where.frames / self.schema.fps
                    row[f"{prefix}/to_timestamp"] = (where.frames + length) / self.schema.fps
                where.size += entry["sizes"][key]
                where.frames += length
            yield row
            index, frames = index + 1, frames + length

    def _write_episodes(self) -> None:
        """meta/episodes: places, provenance and statistics, a few hundred rows in memory at a time."""
        pa = encode.require("pyarrow")
        kinds = column_kinds(row["provenance"] for row in self._rows())
        schema = episodes_schema(self.schema, kinds)
        rows = zip(self._places(), self._rows(), strict=True)
        for file in range(-(-self.episodes // EPISODES_PER_META_FILE)):
            chunk, number = divmod(file, CHUNKS_SIZE)
            numbers = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": number}

            def groups(numbers: dict[str, int] = numbers) -> Iterator[Any]:
                left = EPISODES_PER_META_FILE
                while left and (block := list(islice(rows, min(META_ROW_GROUP, left)))):
                    left -= len(block)
                    yield pa.Table.from_pylist([_flat(place, row, numbers, kinds) for place, row in block], schema)

            path = self.staging.dataset / EPISODES_PATH.format(chunk_index=chunk, file_index=number)
            tables.write_tables(path, groups(), schema)


def _flat(place: dict[str, Any], row: dict[str, Any], numbers: dict[str, int], kinds: dict[str, str]) -> dict[str, Any]:
    """One row of meta/episodes."""
    out = {**place, **numbers, **{f"retake/{key}": row["provenance"].get(key) for key in kinds}}
    for key, statistics in row["stats"].items():
        out |= {f"stats/{key}/{name}": statistics[name] for name in STATISTICS}
    return out


def _groups(members: list[tuple[Path, int]]) -> Iterator[Any]:
    for path, _ in members:
        yield from tables.row_groups(path)


def episodes_schema(schema: Schema, provenance_kinds: dict[str, str]) -> Any:
    """Arrow schema of meta/episodes."""
    pa = encode.require("pyarrow")
    fields = [("episode_index", pa.int64()), ("tasks", pa.list_(pa.string())), ("length", pa.int64())]
    fields += [("data/chunk_index", pa.int64()), ("data/file_index", pa.int64())]
    fields += [("dataset_from_index", pa.int64()), ("dataset_to_index", pa.int64())]
    for key in schema.cameras:
        fields += [(f"videos/{key}/chunk_index", pa.int64()), (f"videos/{key}/file_index", pa.int64())]
        fields += [(f"videos/{key}/from_timestamp", pa.float64()), (f"videos/{key}/to_timestamp", pa.float64())]
    fields += [("meta/episodes/chunk_index", pa.int64()), ("meta/episodes/file_index", pa.int64())]
    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    fields += [(f"retake/{key}", types[kind]) for key, kind in provenance_kinds.items()]
    for key in (*schema.vectors, *schema.cameras, *tables.DEFAULTS):
        number = pa.list_(pa.float64())
        for name in STATISTICS:
            kind = pa.list_(pa.int64()) if name == "count" else number
            if key in schema.cameras and name != "count":
                kind = pa.list_(pa.list_(pa.list_(pa.float64())))
            fields.append((f"stats/{key}/{name}", kind))
    return pa.schema([pa.field(name, kind) for name, kind in fields])
