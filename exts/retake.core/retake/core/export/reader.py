# SPDX-License-Identifier: Apache-2.0
"""Reading a LeRobot dataset (v3.0, v2.1 or v2.0) without LeRobot: for appending, mixing, importing and checking."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode.records import MAX_FPS
from retake.core.errors import ExportError
from retake.core.export import encode, tables
from retake.core.export.provenance import KINDS, VERDICT
from retake.core.export.records import STATE, Columns, LanguageRows, Schema, Segment, Vector, VideoOptions
from retake.core.files import read_json

VERSIONS = ("v3.0", "v2.1", "v2.0")


@contextlib.contextmanager
def described(path: Path) -> Iterator[None]:
    """What metadata lacks or says wrongly becomes an ExportError naming the file: many tools write it, and people by hand."""
    try:
        yield
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, ArithmeticError, OSError) as error:
        said = (
            f"a part of it is of another kind ({error})"
            if isinstance(error, AttributeError | TypeError)
            else str(error)
        )
        found = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else said
        raise ExportError(f"{path} does not read as metadata of a LeRobot dataset: {found}") from error


def _whole(row: dict[str, Any], name: str) -> int:
    """A count or an index. Raises KeyError, ValueError."""
    if not isinstance(row[name], int) or row[name] < 0:
        raise ValueError(f"{name} is {row[name]!r}; expected a whole number, zero or more")
    return int(row[name])


@dataclass(frozen=True)
class Row:
    """One episode of a dataset: where it is and what it is."""

    index: int
    length: int
    task: str
    data: Path
    first_row: int
    """Its first row in the data file (v3.0); 0 in v2.x."""
    videos: dict[str, Segment]
    """Camera key → its encoded frames; a camera whose pictures lie in the parquet has none."""
    provenance: dict[str, Any]
    stats: dict[str, Any] | None


class Dataset:
    """A dataset folder, opened by reading its metadata only.

    Raises ExportError when the folder is no LeRobot dataset, or of an unknown version.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        try:
            self.info: dict[str, Any] = read_json(self.root / "meta/info.json")
        except FileNotFoundError as error:
            raise ExportError(f"{self.root} is no LeRobot dataset: meta/info.json is missing") from error
        except (OSError, ValueError) as error:
            raise ExportError(f"{self.root}/meta/info.json is not readable JSON: {error}") from error
        with described(self.root / "meta/info.json"):
            self.version = str(self.info.get("codebase_version"))
        if self.version not in VERSIONS:
            raise ExportError(f"{self.root} has codebase_version {self.version!r}; Retake reads {', '.join(VERSIONS)}")
        self.marker = dataset_json(self.root)
        with described(self.root / "meta/info.json"):
            self.embedded: frozenset[str] = frozenset(
                key for key, feature in self.info.get("features", {}).items() if feature.get("dtype") == "image"
            )
            """Cameras whose pictures lie in the parquet as PNG or JPEG, as openpi's converters write them."""
            self.schema = self._schema()

    def __len__(self) -> int:
        with described(self.root / "meta/info.json"):
            return int(self.info["total_episodes"])

    @property
    def total_frames(self) -> int:
        """Number of frames of all episodes."""
        with described(self.root / "meta/info.json"):
            return int(self.info["total_frames"])

    @property
    def units_stated(self) -> bool:
        """Whether the dataset says what its numbers mean."""
        return STATE in self.schema.units

    @property
    def options(self) -> VideoOptions | None:
        """How its videos were encoded, where Retake wrote it."""
        return VideoOptions(**self.marker["video"]) if "video" in self.marker else None

    @functools.cached_property
    def tasks(self) -> tuple[str, ...]:
        """Task texts by index."""
        if self.version == "v3.0":
            pq = encode.require("pyarrow.parquet")
            with described(self.root / "meta/tasks.parquet"):
                table = pq.read_table(self.root / "meta/tasks.parquet")
                names = [n for n in table.column_names if n != "task_index"]
                pairs = zip(table.column("task_index").to_pylist(), table.column(names[0]).to_pylist(), strict=True)
                return tuple(task for _, task in sorted(pairs))
        with described(self.root / "meta/tasks.jsonl"):
            rows = tables.read_jsonl(self.root / "meta/tasks.jsonl")
            return tuple(task for _, task in sorted((row["task_index"], row["task"]) for row in rows))

    def rows(self) -> Iterator[dict[str, Any]]:
        """meta/episodes of a v3.0 dataset without statistics, as dictionaries, in order."""
        pq = encode.require("pyarrow.parquet")
        for path in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
            with described(path), pq.ParquetFile(path) as file:
                wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group, columns=wanted).to_pylist()

    def full_rows(self) -> Iterator[dict[str, Any]]:
        """length, task, provenance, stats of every episode (v3.0), in order."""
        for path in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
            with described(path):
                for row in (row for group in tables.row_groups(path) for row in group.to_pylist()):
                    stats: dict[str, dict[str, Any]] = {}
                    for name, value in row.items():
                        if name.startswith("stats/"):
                            key, statistic = name.removeprefix("stats/").rsplit("/", 1)
                            stats.setdefault(key, {})[statistic] = value
                    yield {
                        "length": _whole(row, "length"),
                        "task": (row["tasks"] or [""])[0],
                        "stats": stats,
                        "provenance": _provenance({k[7:]: v for k, v in row.items() if k.startswith("retake/")}),
                    }

    def provenance(self) -> Iterator[dict[str, Any]]:
        """meta/retake_provenance.jsonl, one record per episode; nothing where Retake did not write the dataset."""
        yield from tables.read_jsonl(self.root / "meta/retake_provenance.jsonl")

    def episodes(self) -> Iterator[Row]:
        """Every episode, in order."""
        v3 = self.version == "v3.0"
        with described(self.root / ("meta/episodes" if v3 else "meta/episodes.jsonl")):
            yield from self._episodes_v3() if v3 else self._episodes_v2()

    def _episodes_v3(self) -> Iterator[Row]:
        starts: dict[tuple[int, int], int] = {}
        for row, full in zip(self.rows(), self.full_rows(), strict=True):
            place = (row["data/chunk_index"], row["data/file_index"])
            path = self._path("data_path", chunk_index=place[0], file_index=place[1])
            first = starts.setdefault(place, 0)
            starts[place] += row["length"]
            videos = {}
            for key in self._video_keys:
                file = self._path(
                    "video_path",
                    video_key=key,
                    chunk_index=row[f"videos/{key}/chunk_index"],
                    file_index=row[f"videos/{key}/file_index"],
                )
                start = round(row[f"videos/{key}/from_timestamp"] * self.schema.fps)
                videos[key] = Segment(file, start, row["length"])
            yield Row(
                row["episode_index"],
                row["length"],
                full["task"],
                path,
                first,
                videos,
                full["provenance"],
                full["stats"],
            )

    def _episodes_v2(self) -> Iterator[Row]:
        provenance = {row["episode_index"]: row for row in self.provenance()}
        for row in tables.read_jsonl(self.root / "meta/episodes.jsonl"):
            index, length = _whole(row, "episode_index"), _whole(row, "length")
            with described(self.root / "meta/info.json"):
                where = {"episode_chunk": index // self.info["chunks_size"], "episode_index": index}
            videos = {
                key: Segment(self._path("video_path", video_key=key, **where), 0, length) for key in self._video_keys
            }
            found = {k: v for k, v in provenance.get(index, {}).items() if k != "episode_index"}
            data = self._path("data_path", **where)
            yield Row(index, length, (row.get("tasks") or [""])[0], data, 0, videos, found, None)

    def _path(self, template: str, **where: Any) -> Path:
        """A file that info.json has a template for."""
        with described(self.root / "meta/info.json"):
            return self.root / self.info[template].format(**where)

    @property
    def _video_keys(self) -> list[str]:
        return [key for key in self.schema.cameras if key not in self.embedded]

    def frames(self, row: Row, key: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB pictures of one camera of an episode. Raises ExportError when they end early or cannot be decoded."""
        if key not in self.embedded:
            yield from encode.read_segment(row.videos[key])
            return
        for number, cell in enumerate(self._table(row).column(key).to_pylist()):
            data = (cell or {}).get("bytes") if isinstance(cell, dict) else cell
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
            if picture is None:
                raise ExportError(
                    f"{row.data}: {key} of episode {row.index} has no readable picture in row {number}; "
                    "expected PNG or JPEG bytes"
                )
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def _table(self, row: Row) -> Any:
        """The rows of one episode. Raises ExportError when there are fewer than the metadata says, or none can be read."""
        try:
            table = self._rows_of(row)
        except FileNotFoundError as error:
            raise ExportError(f"{row.data} is missing; episode {row.index} has no data") from error
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise ExportError(f"{row.data} is no readable parquet file: {error}") from error
        if len(table) != row.length:
            raise ExportError(f"{row.data}: episode {row.index} has {len(table)} rows; expected {row.length}")
        return table

    def _rows_of(self, row: Row) -> Any:
        pq = encode.require("pyarrow.parquet")
        table = None
        with pq.ParquetFile(row.data) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if first <= row.first_row and row.first_row + row.length <= first + count:
                    table = file.read_row_group(group).slice(row.first_row - first, row.length)
                    break
                first += count
            if table is None:
                table = file.read().slice(row.first_row, row.length)
        return table

    def columns(self, row: Row) -> Columns:
        """Numeric features of one episode by feature name, as the schema's dtypes; defaults included.

        Raises ExportError for missing rows or features, for what is no number, and for a vector that is shorter or longer than
        info.json says.
        """
        table = self._table(row)
        if absent := [name for name in self.schema.vectors if name not in table.column_names]:
            raise ExportError(f"{row.data} has no column {', '.join(absent)}; info.json says that it has")
        out: Columns = {}
        for name in table.column_names:
            dtype = self.schema.vectors[name].dtype if name in self.schema.vectors else tables.DEFAULTS.get(name)
            if dtype is None:
                continue
            column = table.column(name)
            listed = str(column.type).endswith("]") or "list" in str(column.type)
            values = self._rectangular(row, name, column.to_pylist()) if listed else column.to_numpy()
            try:
                out[name] = values.astype(dtype)
            except (TypeError, ValueError) as error:
                raise ExportError(f"{row.data}: {name} of episode {row.index} is no {dtype}: {error}") from error
            if name in self.schema.vectors and not self.schema.vectors[name].names and out[name].ndim == 2:
                out[name] = out[name][:, 0]
        return out

    def language(self, row: Row) -> LanguageRows:
        """The language columns of one episode; empty where the dataset has none."""
        table = self._table(row)
        if not set(tables.LANGUAGE) <= set(table.column_names):
            return LanguageRows()
        persistent, events = (table.column(name).to_pylist() for name in tables.LANGUAGE)
        return LanguageRows(tuple(persistent[0] or ()), {k: tuple(said) for k, said in enumerate(events) if said})

    def _rectangular(self, row: Row, name: str, cells: list[Any]) -> np.ndarray:
        """A column of lists as (T, n). Raises ExportError for a cell of another length, or an empty one."""
        width = self.schema.vectors[name].width if name in self.schema.vectors else 1
        for number, cell in enumerate(cells):
            flat = np.ravel(cell) if cell is not None else np.zeros(0)
            if len(flat) != width or any(x is None for x in flat):
                raise ExportError(
                    f"{row.data}: row {number} of {name} in episode {row.index} has {len(flat)} numbers; info.json says {width}"
                )
        return np.asarray(cells).reshape(len(cells), width)

    def _schema(self) -> Schema:
        """The schema, from the marker where Retake wrote it, else from info.json."""
        if "dataset" in self.marker:
            return Schema.from_json(self.marker["dataset"], f"{self.root}/meta/retake.json: dataset")
        fps, vectors, cameras = self.info.get("fps"), {}, {}
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MAX_FPS or fps != int(fps):
            raise ExportError(f"{self.root}: fps is {str(fps)[:40]}; expected an integer from 1 to {MAX_FPS}")
        for key, feature in self.info.get("features", {}).items():
            shape = feature.get("shape") or []
            if feature["dtype"] in ("video", "image"):
                if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
                    raise ValueError(f"{key} has shape {shape!r}; expected [height, width, channels]")
                cameras[key] = (shape[1], shape[0]) if shape[-1] in (1, 3) else (shape[2], shape[1])
            elif key not in tables.DEFAULTS and feature["dtype"] not in ("string", "language"):
                names = _flat_names(feature.get("names"), shape)
                vectors[key] = Vector(np.dtype(feature["dtype"]).name, names)
        language = set(tables.LANGUAGE) <= set(self.info.get("features", {}))
        return Schema(int(fps), str(self.info.get("robot_type") or ""), vectors, cameras, language=language)


def _flat_names(names: Any, shape: list[int]) -> tuple[str, ...]:
    """Names of vector entries: a list, lists within lists or dicts as converters write them, or numbers without any."""

    def flat(part: Any) -> list[str]:
        if isinstance(part, dict) and part and all(isinstance(value, int) for value in part.values()):
            part = sorted(part, key=part.__getitem__)  # entry → its place
        elif isinstance(part, dict):
            part = list(part.values())
        return [x for one in part for x in flat(one)] if isinstance(part, list) else [str(part)]

    width = int(np.prod(shape)) if shape else 1
    found = flat(names) if isinstance(names, dict | list) else []
    if len(found) == width and len(set(found)) == width:
        return tuple(found)
    return () if width == 1 else tuple(str(i) for i in range(width))


def _provenance(found: dict[str, Any]) -> dict[str, Any]:
    """A provenance record without the empty verdict columns that other episodes brought along."""
    return {k: v for k, v in found.items() if k in KINDS or (k.startswith(VERDICT) and v is not None)}


def is_dataset(path: Path) -> bool:
    """Whether a folder looks like a LeRobot dataset."""
    return (path / "meta/info.json").is_file()


def dataset_json(path: Path) -> dict[str, Any]:
    """meta/retake.json of any format's folder; empty where there is none. Raises ExportError where it is damaged."""
    file = path / "meta/retake.json"
    try:
        found = read_json(file) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise ExportError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(found, dict):
        raise ExportError(f"{file} holds a {type(found).__name__}; expected the JSON object that Retake wrote")
    return found
