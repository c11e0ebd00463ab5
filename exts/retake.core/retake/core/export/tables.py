# SPDX-License-Identifier: Apache-2.0
"""Parquet and JSON files of LeRobot's formats, written with pyarrow alone."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import ExportError
from retake.core.export.encode import require
from retake.core.export.records import Columns, LanguageRows, Schema
from retake.core.files import atomic_path, write_bytes

DEFAULTS: dict[str, str] = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Features every LeRobot dataset has, each of shape [1]."""


LANGUAGE = ("language_persistent", "language_events")
"""Columns that LeRobot 0.6 knows by name (language.py)."""


def features(schema: Schema, video_info: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The `features` of info.json. `video_info`: camera key → its `info` block."""
    out: dict[str, Any] = {}
    for key, vector in schema.vectors.items():
        names = list(vector.names) or None
        out[key] = {"dtype": vector.dtype, "shape": [vector.width], "names": names}
    for key, (width, height) in schema.cameras.items():
        out[key] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": dict(video_info[key]),
        }
    kinds = {**DEFAULTS, **(dict.fromkeys(LANGUAGE, "language") if schema.language else {})}
    return {**out, **{key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in kinds.items()}}


def data_schema(schema: Schema) -> Any:
    """Arrow schema of the data files: vectors as fixed-size lists, scalars plain; no column for videos."""
    pa = require("pyarrow")
    fields = []
    for key, vector in schema.vectors.items():
        kind = pa.from_numpy_dtype(np.dtype(vector.dtype))
        fields.append(pa.field(key, pa.list_(kind, vector.width) if vector.names else kind))
    fields += [pa.field(k, pa.from_numpy_dtype(np.dtype(d))) for k, d in DEFAULTS.items()]
    fields += [pa.field(name, kind) for name, kind in language_types().items()] if schema.language else []
    return pa.schema(fields)


@functools.cache
def language_types() -> dict[str, Any]:
    """Arrow types of LeRobot's two language columns (lerobot/datasets/language.py of 0.6: fields in its order)."""
    pa = require("pyarrow")
    kinds = {"timestamp": pa.float32(), "tool_calls": pa.list_(pa.string())}
    fields = {
        "language_persistent": ("role", "content", "style", "timestamp", "camera", "tool_calls"),
        "language_events": ("role", "content", "style", "camera", "tool_calls"),
    }
    return {
        column: pa.list_(pa.struct([pa.field(name, kinds.get(name, pa.string())) for name in names]))
        for column, names in fields.items()
    }


def language_arrays(rows: LanguageRows | None, length: int) -> list[Any]:
    """The two language columns of an episode: what holds on every frame, what is said of one on that one."""
    pa, (persistent, events) = require("pyarrow"), language_types().values()
    rows = rows or LanguageRows()
    return [
        pa.array([list(rows.persistent)] * length, persistent),
        pa.array([list(rows.events.get(k, ())) for k in range(length)], events),
    ]


def data_table(
    schema: Schema,
    columns: Columns,
    *,
    episode: int,
    first_index: int,
    task_index: int,
    language: LanguageRows | None = None,
) -> Any:
    """The rows of one episode. Raises ExportError when a column does not fit the schema."""
    pa = require("pyarrow")
    length = len(next(iter(columns.values())))
    # The timestamp is frame / fps in float64, rounded once to float32: what LeRobot's own writer stores.
    frame = np.arange(length, dtype=np.int64)
    default = {
        "timestamp": (frame / schema.fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(length, episode, np.int64),
        "index": frame + first_index,
        "task_index": np.full(length, task_index, np.int64),
    }
    arrays = []
    for key, vector in schema.vectors.items():
        values = np.asarray(columns[key])
        expected = (length, vector.width) if vector.names else (length,)
        if values.shape != expected or values.dtype != np.dtype(vector.dtype):
            raise ExportError(f"feature {key} is {values.shape} {values.dtype}; expected {expected} {vector.dtype}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ExportError(f"feature {key} holds non-finite numbers; training data must be finite")
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, vector.width) if vector.names else flat)
    arrays += [pa.array(default[key]) for key in DEFAULTS]
    arrays += language_arrays(language, length) if schema.language else []
    return pa.table(arrays, schema=data_schema(schema))


def row_bytes(schema: Schema) -> int:
    """Bytes of one data row before compression: what file sizes are planned with."""
    vectors = sum(v.width * np.dtype(v.dtype).itemsize for v in schema.vectors.values())
    return vectors + sum(np.dtype(d).itemsize for d in DEFAULTS.values())


def write_tables(path: Path, tables: Iterable[Any], schema: Any) -> None:
    """A parquet file with one row group per table: snappy, dictionary encoding. Atomic."""
    pq = require("pyarrow.parquet")
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="snappy", use_dictionary=True) as out,
    ):
        for table in tables:
            out.write_table(table, row_group_size=max(len(table), 1))


def row_groups(path: Path) -> Iterator[Any]:
    """The row groups of a parquet file as tables, one in memory at a time."""
    pq = require("pyarrow.parquet")
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def write_tasks_parquet(path: Path, tasks: Sequence[str]) -> None:
    """tasks.parquet: the text is the pandas *index* named `task`, so its name goes into the pandas metadata."""
    pa, pq = require("pyarrow"), require("pyarrow.parquet")
    table = pa.table(
        [pa.array(range(len(tasks)), pa.int64()), pa.array(list(tasks), pa.string())], names=["task_index", "task"]
    )

    def column(name: str, pandas: str, numpy: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": None}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), temporary, compression="snappy")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """One JSON value per line, UTF-8, atomic, streamed."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read_jsonl(path: Path) -> Iterator[Any]:
    """The values of a JSON-lines file; nothing when it is absent."""
    if path.exists():
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    value = json.loads(line) if line.strip() else None
                except ValueError as error:
                    raise ExportError(f"{path} line {number} is not JSON: {error}") from error
                if line.strip():
                    yield value


def write_json_plain(path: Path, value: Any) -> None:
    """JSON with an indent of four, as LeRobot writes it."""
    write_bytes(path, (json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n").encode())
