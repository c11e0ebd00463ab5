# SPDX-License-Identifier: Apache-2.0
"""LeRobot data sets of others whose metadata, tables or marker are damaged or of another kind: refused in words, by file."""

from __future__ import annotations

import json
import shutil

import pytest
from export_runs import make_run

from retake.core.errors import ExportError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.reader import Dataset
from retake.core.export.records import VideoOptions

pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """One run of four frames in both of LeRobot's layouts, as others write them: nothing of Retake's tells the schema."""
    root = tmp_path_factory.mktemp("foreign")
    run = make_run(root / "r", takes=1, frames=4)
    for name in ("lerobot-v3", "lerobot-v2.1"):
        export([run], root / name, ExportOptions(name, H264), Selection(language=False))
        (root / name / "meta/retake.json").unlink()
    return root


def _rows(folder, change):
    """Change the rows of meta/episodes, whatever the layout."""
    if (file := folder / "meta/episodes.jsonl").exists():
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        file.write_text("".join(json.dumps(change(row)) + "\n" for row in rows), "utf-8")
        return
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (file,) = folder.glob("meta/episodes/*/*.parquet")
    pq.write_table(pa.Table.from_pylist([change(row) for row in pq.read_table(file).to_pylist()]), file)


def _info(folder, change):
    file = folder / "meta/info.json"
    file.write_text(json.dumps(change(json.loads(file.read_text("utf-8")))), "utf-8")


def _feature(key, **said):
    return lambda info: {**info, "features": {**info["features"], key: {**info["features"][key], **said}}}


def _without(name):
    return lambda found: {k: v for k, v in found.items() if k != name}


PICTURES = "observation.images.front"
WRONG_METADATA = [
    (_info, lambda info: [info], r"info\.json does not read as metadata .*: a part of it is of another kind"),
    (_info, _without("data_path"), r"info\.json does not read .*: it has no 'data_path'"),
    (_info, _without("video_path"), r"info\.json does not read .*: it has no 'video_path'"),
    (_info, lambda info: {**info, "features": []}, r"info\.json does not read"),
    (_info, lambda info: {**info, "fps": float("inf")}, "fps is inf; expected an integer from 1 to 10000"),
    (_info, lambda info: {**info, "fps": 10**400}, r"fps is 10+; expected an integer from 1 to 10000"),
    (_info, lambda info: {**info, "fps": 10001}, "fps is 10001; expected"),
    (_info, lambda info: {**info, "fps": True}, "fps is True; expected"),
    (_info, lambda info: {**info, "fps": 0.5}, "fps is 0.5; expected"),
    (_info, _feature("action", dtype="quaternion"), "quaternion"),
    (_info, _feature(PICTURES, shape=[64, 64]), r"front has shape \[64, 64\]; expected \[height, width, channels\]"),
    (_info, _feature(PICTURES, shape=[0, 64, 3]), r"front has shape \[0, 64, 3\]"),
    (_rows, _without("length"), "meta/episodes.* it has no 'length'"),
    (_rows, _without("episode_index"), "meta/episodes.* it has no 'episode_index'"),
    (_rows, lambda row: {**row, "length": -1}, "length is -1; expected a whole number, zero or more"),
    (_rows, lambda row: {**row, "length": "four"}, "length is 'four'; expected a whole number"),
]


@pytest.mark.parametrize("layout", ["lerobot-v3", "lerobot-v2.1"])
@pytest.mark.parametrize(("part", "change", "words"), WRONG_METADATA)
def test_metadata_of_others_that_is_wrong_is_refused_in_words(datasets, tmp_path, layout, part, change, words):
    shutil.copytree(datasets / layout, tmp_path / "d")
    assert [row.length for row in Dataset(tmp_path / "d").episodes()] == [4]
    part(tmp_path / "d", change)
    with pytest.raises(ExportError, match=words):
        list(Dataset(tmp_path / "d").episodes())


@pytest.mark.parametrize("layout", ["lerobot-v3", "lerobot-v2.1"])
def test_columns_that_are_missing_or_no_numbers_are_refused_in_words(datasets, tmp_path, layout):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    shutil.copytree(datasets / layout, tmp_path / "d")
    data = Dataset(tmp_path / "d")
    (row,) = data.episodes()
    table = pq.read_table(row.data)
    texts = pa.array([["a"] * len(cell) for cell in table.column("action").to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("action"), "action", texts), row.data)
    with pytest.raises(ExportError, match="action of episode 0 is no float32"):
        data.columns(row)
    pq.write_table(table.drop_columns(["action", "truth.phase"]), row.data)
    with pytest.raises(ExportError, match=r"has no column action, truth\.phase; info\.json says that it has"):
        data.columns(row)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_marker_is_refused_in_words(datasets, tmp_path, text):
    shutil.copytree(datasets / "lerobot-v3", tmp_path / "d")
    (tmp_path / "d/meta/retake.json").write_text(text, "latin-1")
    for ask in (lambda: Dataset(tmp_path / "d"), lambda: export([datasets / "r"], tmp_path / "d")):
        with pytest.raises(ExportError, match=r"meta/retake\.json (is not readable JSON|holds a list)"):
            ask()
