# SPDX-License-Identifier: Apache-2.0
"""Datasets that were written by hand, row group by row group, are read as they are meant; what is wrong is told by its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retake.core.errors import ExportError
from retake.core.export import tables
from retake.core.export.mix import _unit_doubts, align, suggestions
from retake.core.export.reader import Dataset, _flat_names, _provenance
from retake.core.export.records import IMAGE, LanguageRows, Schema, Segment, Vector

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FEATURES = {
    "observation.state": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
    "height": {"dtype": "float64", "shape": [1], "names": None},
    "observation.images.top": {"dtype": "video", "shape": [4, 6, 3], "names": None},
    **{key: {"dtype": kind, "shape": [1]} for key, kind in tables.DEFAULTS.items()},
    "note": {"dtype": "string", "shape": [1]},
}
INFO = {
    "codebase_version": "v3.0", "fps": 10, "robot_type": "arm", "total_episodes": 3, "total_frames": 9, "features": FEATURES,
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}  # fmt: skip
LENGTHS = (2, 4, 3)
"""The first two episodes lie in one file, in row groups that do not end with them; the third in another file."""


def rows_of(first: int, count: int) -> Any:
    k = np.arange(first, first + count)
    state = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(k, 2).astype(np.float32)), 2)
    return pa.table(
        {"observation.state": state, "height": pa.array(k * 0.5), "index": pa.array(k), "note": ["x"] * count}
    )


def dataset(root: Path, *, groups=((0, 3), (3, 3)), **info: Any) -> Path:
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps({**INFO, **info}))
    (root / "data/chunk-000").mkdir(parents=True)
    with pq.ParquetWriter(root / "data/chunk-000/file-000.parquet", rows_of(0, 1).schema) as out:
        for first, count in groups:
            out.write_table(rows_of(first, count))
    pq.write_table(rows_of(6, 3), root / "data/chunk-000/file-001.parquet")
    tasks = pa.table({"task_index": [1, 0], "__index_level_0__": ["second", "first"]})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    episodes = [
        {
            "episode_index": k, "length": n, "tasks": [f"task {k}"] if k else [], "data/chunk_index": 0,
            "data/file_index": int(k == 2), "videos/observation.images.top/chunk_index": 0,
            "videos/observation.images.top/file_index": int(k == 2),
            "videos/observation.images.top/from_timestamp": (0.0, 0.2, 0.0)[k], "stats/height/max": [float(k)],
            "stats/height/mean": [k / 2], "retake/run": f"r{k}", "retake/verdict/tone": None if k else 0.5, "retake/odd": "x",
        }
        for k, n in enumerate(LENGTHS)
    ]  # fmt: skip
    with pq.ParquetWriter(
        root / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(episodes).schema
    ) as out:
        for part in (episodes[:1], episodes[1:]):
            out.write_table(pa.Table.from_pylist(part, pa.Table.from_pylist(episodes).schema))
    return root


def test_every_episode_is_where_the_metadata_says(tmp_path):
    data = Dataset(dataset(tmp_path / "d"))
    assert (len(data), data.total_frames, data.tasks) == (3, 9, ("first", "second"))
    found = list(data.episodes())
    assert [(r.index, r.length, r.task, r.data.name, r.first_row) for r in found] == [
        (0, 2, "", "file-000.parquet", 0), (1, 4, "task 1", "file-000.parquet", 2), (2, 3, "task 2", "file-001.parquet", 0),
    ]  # fmt: skip
    videos = [r.videos["observation.images.top"] for r in found]
    assert [(v.path.name, v.start, v.length) for v in videos] == [
        ("file-000.mp4", 0, 2), ("file-000.mp4", 2, 4), ("file-001.mp4", 0, 3),
    ]  # fmt: skip
    assert [r.provenance for r in found] == [{"run": "r0", "verdict/tone": 0.5}, {"run": "r1"}, {"run": "r2"}]
    assert found[2].stats == {"height": {"max": [2.0], "mean": [1.0]}}
    assert not data.units_stated
    assert data.options is None
    assert all("stats/height/max" not in row for row in data.rows())


@pytest.mark.parametrize("groups", [((0, 3), (3, 3)), ((0, 2), (2, 4)), ((0, 6),), ((0, 1), (1, 1), (2, 2), (4, 2))])
def test_rows_of_an_episode_are_found_in_any_row_groups(tmp_path, groups):
    data = Dataset(dataset(tmp_path / "d", groups=groups))
    for row, start in zip(data.episodes(), (0, 2, 6), strict=True):
        found = data.columns(row)
        assert found["observation.state"].tolist() == [[k, k] for k in range(start, start + row.length)]
        assert found["height"].tolist() == [k * 0.5 for k in range(start, start + row.length)]
        assert found["index"].tolist() == list(range(start, start + row.length))
        assert {k: v.dtype.name for k, v in found.items()} == {
            "observation.state": "float32", "height": "float64", "index": "int64",
        }  # fmt: skip


def test_what_a_table_lacks_or_holds_otherwise_is_named(tmp_path):
    data = Dataset(dataset(tmp_path / "d"))
    first, last = (list(data.episodes())[k] for k in (0, 2))
    with pytest.raises(ExportError, match=r"episode 2 has 3 rows; expected 4"):
        data.columns(replace(last, length=4))
    data.schema = replace(data.schema, vectors={**data.schema.vectors, "speed": Vector("float32")})
    with pytest.raises(ExportError, match="has no column speed"):
        data.columns(first)
    data.schema = replace(data.schema, vectors={"observation.state": Vector("float32", ("a", "b", "c"))})
    with pytest.raises(ExportError, match=r"row 0 of observation.state in episode 0 has 2 numbers; info.json says 3"):
        data.columns(first)
    data.schema = replace(data.schema, vectors={"note": Vector("float32")})
    with pytest.raises(ExportError, match="note of episode 0 is no float32"):
        data.columns(first)
    ragged = pa.table({"observation.state": [[1.0, 2], [3.0]], "height": [[1.0], [2.0]]})
    pq.write_table(ragged, last.data)
    whole = Dataset(tmp_path / "d")
    with pytest.raises(ExportError, match=r"row 1 of observation\.state in episode 2 has 1 numbers"):
        whole.columns(replace(last, length=2))
    pq.write_table(pa.table({"observation.state": [[1.0, 2], [3.0, 4]], "height": [[1.0], [2.0]]}), last.data)
    assert whole.columns(replace(last, length=2))["height"].tolist() == [1, 2], "a list of one is one number"
    last.data.write_bytes(b"x")
    with pytest.raises(ExportError, match="is no readable parquet file"):
        whole.columns(last)
    last.data.unlink()
    with pytest.raises(ExportError, match="episode 2 has no data"):
        whole.columns(last)


def test_words_of_a_frame_stand_at_that_frame(tmp_path):
    data = Dataset(dataset(tmp_path / "d"))
    row = list(data.episodes())[2]
    assert data.language(row) == LanguageRows()
    said = LanguageRows(({"role": "user", "content": "go", "style": "plan", "timestamp": 0.0},), {1: ({"role": "a"},)})
    arrays = tables.language_arrays(said, 3)
    pq.write_table(pa.table(arrays, names=list(tables.LANGUAGE)), row.data)
    found = data.language(row)
    assert [r["content"] for r in found.persistent] == ["go"]
    assert {k: [r["role"] for r in v] for k, v in found.events.items()} == {1: ["a"]}


def test_pictures_in_the_table_are_decoded(tmp_path):
    data = Dataset(dataset(tmp_path / "d", features={**FEATURES, IMAGE + "in": {"dtype": "image", "shape": [2, 3, 3]}}))
    assert data.schema.cameras == {IMAGE + "top": (6, 4), IMAGE + "in": (3, 2)}
    row = list(data.episodes())[2]
    assert [*row.videos] == [IMAGE + "top"]
    png = cv2.imencode(".png", np.full((2, 3, 3), (10, 20, 30), np.uint8))[1].tobytes()
    pq.write_table(pa.table({IMAGE + "in": [{"bytes": png}, {"bytes": png}, {"bytes": None}]}), row.data)
    frames = data.frames(row, IMAGE + "in")
    assert next(frames)[0, 0].tolist() == [30, 20, 10]
    next(frames)
    with pytest.raises(ExportError, match="has no readable picture in row 2"):
        next(frames)


def test_files_of_an_older_layout_are_found_by_their_number(tmp_path):
    root, info = tmp_path / "d", {**INFO, "codebase_version": "v2.1", "chunks_size": 2}
    info["data_path"] = "data/{episode_chunk}/{episode_index}.parquet"
    info["video_path"] = "v/{episode_chunk}/{video_key}/{episode_index}.mp4"
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    tables.write_jsonl(
        root / "meta/episodes.jsonl", [{"episode_index": k, "length": 5 + k, "tasks": ["t"]} for k in (1, 2)]
    )
    tables.write_jsonl(root / "meta/tasks.jsonl", [{"task_index": 1, "task": "b"}, {"task_index": 0, "task": "a"}])
    tables.write_jsonl(root / "meta/retake_provenance.jsonl", [{"episode_index": 2, "run": "r"}])
    data = Dataset(root)
    first, second = data.episodes()
    assert [str(r.data.relative_to(root)) for r in (first, second)] == ["data/0/1.parquet", "data/1/2.parquet"]
    assert second.videos[IMAGE + "top"] == Segment(root / f"v/1/{IMAGE}top/2.mp4", 0, 7)
    assert (first.provenance, second.provenance) == ({}, {"run": "r"})
    assert data.tasks == ("a", "b")
    for length in (-1, 1.5, "3"):
        tables.write_jsonl(root / "meta/episodes.jsonl", [{"episode_index": 0, "length": length}])
        with pytest.raises(ExportError, match="expected a whole number, zero or more"):
            list(data.episodes())
    (root / "meta/tasks.jsonl").write_text('{"a": 1}\n\n{\n')
    with pytest.raises(ExportError, match="line 3 is not JSON"):
        list(tables.read_jsonl(root / "meta/tasks.jsonl"))


@pytest.mark.parametrize("fps", [True, 0, -1, 10.5, "10", None, 10_001])
def test_a_rate_is_a_whole_number(tmp_path, fps):
    with pytest.raises(ExportError, match="expected an integer from 1 to 10000"):
        Dataset(dataset(tmp_path / "d", fps=fps))
    assert Dataset(dataset(tmp_path / "e", fps=10.0)).schema.fps == 10
    assert [Dataset(dataset(tmp_path / f"f{n}", fps=n)).schema.fps for n in (1, 10_000)] == [1, 10_000]


@pytest.mark.parametrize(
    ("names", "shape", "found"),
    [(["a", "b"], [2], ("a", "b")), ({"motors": ["a", "b"]}, [2], ("a", "b")), ({"b": 1, "a": 0}, [2], ("a", "b")),
     ([["a"], {"x": ["b"]}], [2], ("a", "b")), (None, [2], ("0", "1")), (["a"], [2], ("0", "1")), (["a", "a"], [2], ("0", "1")),
     (None, [1], ()), (["a"], [1], ("a",)), (None, [], ()), (["a", "b", "c", "d"], [2, 2], ("a", "b", "c", "d")),
     ({"axes": None}, [2], ("0", "1"))],
)  # fmt: skip
def test_names_of_entries_are_flat(names, shape, found):
    assert _flat_names(names, shape) == found


@pytest.mark.parametrize(
    ("shape", "size"), [([4, 6, 3], (6, 4)), ([3, 4, 6], (6, 4)), ([4, 6, 1], (6, 4)), ([4, 6], None)]
)
def test_a_camera_s_size_is_told_by_where_its_channels_are(tmp_path, shape, size):
    made = dataset(tmp_path / "d", features={IMAGE + "top": {"dtype": "video", "shape": shape}})
    if size is None:
        with pytest.raises(ExportError, match=r"expected .height, width, channels"):
            Dataset(made)
    else:
        assert Dataset(made).schema.cameras == {IMAGE + "top": size}


def test_tables_have_the_columns_of_their_schema():
    schema = Schema(10, "r", {"a": Vector("float32", ("x", "y", "z")), "n": Vector("int64")}, {IMAGE + "top": (6, 4)})
    assert tables.row_bytes(schema) == 3 * 4 + 8 + 4 + 4 * 8
    described = tables.features(schema, {IMAGE + "top": {"codec": "av1"}})
    assert described["a"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    assert described["n"] == {"dtype": "int64", "shape": [1], "names": None}
    assert (described[IMAGE + "top"]["shape"], described[IMAGE + "top"]["info"]) == ([4, 6, 3], {"codec": "av1"})
    assert "language_events" not in described
    columns = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([5, 6])}
    made = tables.data_table(schema, columns, episode=4, first_index=7, task_index=2).to_pydict()
    assert made["timestamp"] == [0, pytest.approx(0.1)]
    assert (made["frame_index"], made["episode_index"], made["index"], made["task_index"]) == (
        [0, 1],
        [4] * 2,
        [7, 8],
        [2] * 2,
    )
    assert made["a"] == [[0, 1, 2], [3, 4, 5]]
    for change, words in (
        ({"a": columns["a"][:, :2]}, r"feature a is \(2, 2\) float32; expected \(2, 3\) float32"),
        ({"n": np.array([5.0, 6])}, r"feature n is \(2,\) float64; expected \(2,\) int64"),
        ({"a": columns["a"] * np.float32(np.nan)}, "feature a holds non-finite numbers"),
    ):
        with pytest.raises(ExportError, match=words):
            tables.data_table(schema, {**columns, **change}, episode=0, first_index=0, task_index=0)


def test_what_keeps_two_datasets_apart_is_listed(tmp_path):
    one = Dataset(dataset(tmp_path / "one"))
    two = Dataset(dataset(tmp_path / "two", fps=20, features={
        **FEATURES, "observation.state": {"dtype": "float32", "shape": [2], "names": ["b", "c"]},
        IMAGE + "side": {"dtype": "video", "shape": [8, 6, 3]}, IMAGE + "top": {"dtype": "video", "shape": [8, 6, 3]},
    }))  # fmt: skip
    assert one.schema.differences(two.schema, "one", "two") == [
        "fps: one has 10, two 20 (resample states and video together)", f"camera {IMAGE}side: only in two",
        f"camera {IMAGE}top: one has 6x4, two 6x8",
        "feature observation.state: entries differ in name (one / two): 'a' / 'b', 'b' / 'c'",
    ]  # fmt: skip
    assert one.schema.differences(one.schema) == []
    steps = suggestions({"one": one, "two": two})
    assert steps == [
        f"retake convert-dataset {one.root} --out {one.root}_for_mix --select b --units all=UNIT ENTRY=UNIT",
        f"retake convert-dataset {two.root} --out {two.root}_for_mix --fps 10 --size 6x4 --select b --units all=UNIT ENTRY=UNIT",
    ]
    with pytest.raises(
        ExportError, match=r"cannot be mixed as they are: fps: one has 10.*commands that would help:\n  retake"
    ):
        align({"one": one, "two": two})
    schema, notes = align({"one": one, "again": one})
    assert schema.vectors["source.uid"] == Vector("int64")
    assert next(n for n in notes if "states no units" in n).startswith("one states no units")
    wide = Dataset(dataset(tmp_path / "wide"))
    wide.full_rows = lambda: iter(
        [{"stats": {"action": {"min": [-7, 0], "max": [1, 2]}}}, {"stats": {"action": {"min": [-6.9], "max": [0]}}}]
    )
    assert _unit_doubts("wide", wide)[0].startswith("wide: action reaches 7.0 and states no unit")
    wide.full_rows = lambda: iter([{"stats": {"action": {"min": [-6.7, 0], "max": [6.7, 2]}}}])
    assert _unit_doubts("wide", wide) == []
    assert _provenance({"run": "r", "verdict/a": None, "verdict/b": 0.0, "other": 1}) == {"run": "r", "verdict/b": 0.0}
