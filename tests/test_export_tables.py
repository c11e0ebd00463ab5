# SPDX-License-Identifier: Apache-2.0
"""Parquet and JSON files of LeRobot's formats: how they are stored, and what is said of a damaged one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retake.core.errors import ExportError
from retake.core.export import tables
from retake.core.export.records import LanguageRows, Schema, Vector

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
SCHEMA = Schema(10, "r", {"action": Vector("float32", ("a", "b")), "source.frame_index": Vector("int64")}, {})


def rows(start: int, length: int):
    columns = {
        "action": np.arange(2 * length, dtype=np.float32).reshape(length, 2) + start,
        "source.frame_index": np.arange(start, start + length),
    }
    return tables.data_table(SCHEMA, columns, episode=3, first_index=start, task_index=2)


def test_every_episode_is_a_row_group_of_its_own_packed_with_a_dictionary(tmp_path):
    parts = [rows(0, 3), rows(3, 5)]
    tables.write_tables(tmp_path / "d.parquet", parts, tables.data_schema(SCHEMA))
    with pq.ParquetFile(tmp_path / "d.parquet") as file:
        meta = file.metadata
        assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [3, 5]
        column = meta.row_group(1).column(0)
        assert column.compression == "SNAPPY"
        assert column.has_dictionary_page
    assert [table.equals(part) for table, part in zip(tables.row_groups(tmp_path / "d.parquet"), parts, strict=True)] == [
        True, True,
    ]  # fmt: skip
    tables.write_tables(tmp_path / "e.parquet", [parts[0].slice(0, 0)], tables.data_schema(SCHEMA))
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 0
    tables.write_tasks_parquet(tmp_path / "t.parquet", ["lift", "drop"])
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
        assert file.read().to_pydict() == {"task_index": [0, 1], "task": ["lift", "drop"]}


def test_a_row_says_when_it_is_and_where_it_stands():
    table = rows(7, 3).to_pydict()
    assert table["timestamp"] == [0.0, pytest.approx(0.1), pytest.approx(0.2)]
    assert (table["frame_index"], table["index"]) == ([0, 1, 2], [7, 8, 9])
    assert (table["episode_index"], table["task_index"]) == ([3] * 3, [2] * 3)
    assert table["source.frame_index"] == [7, 8, 9]
    assert table["action"][1] == [9.0, 10.0]
    assert tables.row_bytes(SCHEMA) == 2 * 4 + 8 + 4 + 4 * 8


def test_words_of_all_frames_and_words_of_one_stand_where_they_belong():
    said = LanguageRows(
        ({"role": "user", "content": "lift", "timestamp": 0.0},), {1: ({"role": "user", "content": "now"},)}
    )
    persistent, events = (column.to_pylist() for column in tables.language_arrays(said, 3))
    assert [[row["content"] for row in frame] for frame in persistent] == [["lift"]] * 3
    assert [[row["content"] for row in frame] for frame in events] == [[], ["now"], []]
    assert [column.to_pylist() for column in tables.language_arrays(None, 2)] == [[[], []], [[], []]]


def test_lines_of_json_are_read_one_by_one_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    tables.write_jsonl(path, [{"a": "ü"}, [1, 2]])
    assert path.read_bytes() == '{"a": "ü"}\n[1, 2]\n'.encode()
    path.write_text('{"a": 1}\n\n  \n3\nnull\n', "utf-8")
    assert list(tables.read_jsonl(path)) == [{"a": 1}, 3, None]
    path.write_text('{"a": 1}\n\n{"b"\n', "utf-8")
    with pytest.raises(ExportError, match="line 3 is not JSON"):
        list(tables.read_jsonl(path))
    assert list(tables.read_jsonl(tmp_path / "none.jsonl")) == []
    for write, value in ((tables.write_jsonl, [float("nan")]), (tables.write_json_plain, float("nan"))):
        with pytest.raises(ValueError, match="JSON"):
            write(tmp_path / "nan.json", value)
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


def test_json_looks_as_lerobot_writes_it(tmp_path):
    tables.write_json_plain(tmp_path / "i.json", {"fps": 10, "robot_type": "ü", "shape": [1]})
    assert (tmp_path / "i.json").read_text("utf-8") == json.dumps(
        {"fps": 10, "robot_type": "ü", "shape": [1]}, indent=4, ensure_ascii=False
    ) + "\n"  # fmt: skip
