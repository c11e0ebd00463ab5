# SPDX-License-Identifier: Apache-2.0
"""A shipped data set as the probe reads it: sizes, order, chunks, phases, masks, and whose pack it is."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest
from export_runs import make_run

from retake.core.errors import Cancelled, InputError
from retake.core.export import ExportOptions, Selection, export
from retake.core.export.reader import Dataset
from retake.worker.probe import data
from retake.worker.probe.data import facts_of, open_pack, pack, scaled

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two runs of six frames with two cameras, simulated pictures and one take each."""
    root = tmp_path_factory.mktemp("probe")
    runs = [
        make_run(root / f"r{i}", seed=i, takes=1, frames=6, size=(128, 64), cameras=("wrist", "front"))
        for i in range(2)
    ]
    export(runs, root / "d", ExportOptions("lerobot-v3"), Selection(include_sim=True, language=False))
    return root / "d"


def test_a_pack_holds_what_was_exported(dataset, tmp_path):
    made = pack(dataset, tmp_path / "pack")
    data = Dataset(dataset)
    assert list(made.facts.cameras.items()) == [("front", (112, 56)), ("wrist", (80, 40))]
    assert made.images["front"].shape == (24, 56, 112, 3)
    assert made.facts.lengths == (6, 6, 6, 6)
    for row, start in zip(data.episodes(), made.facts.starts, strict=True):
        found = data.columns(row)
        assert np.array_equal(made.state[start : start + 6], found["observation.state"])
        assert np.array_equal(made.action[start : start + 6], found["action"])
        first = next(iter(data.frames(row, "observation.images.front")))
        assert abs(float(made.images["front"][start].mean()) - float(first.mean())) < 2
    assert made.facts.phases == 5
    assert set(np.unique(made.phase)) <= set(range(5))
    assert made.chunk_rows(np.array([5, 6]), 3).tolist() == [[5, 5, 5], [6, 7, 8]]


def test_a_pack_is_opened_again_and_another_data_set_s_is_refused(dataset, tmp_path):
    first = pack(dataset, tmp_path / "pack")
    again = pack(dataset, tmp_path / "pack")
    assert again.facts == first.facts == open_pack(tmp_path / "pack").facts
    with pytest.raises(InputError, match="pack of another data set"):
        pack(dataset, tmp_path / "pack", masks=lambda row, camera: np.zeros((row.length, 64, 128), bool))


def test_a_data_set_that_changed_under_the_same_metadata_is_another(dataset, tmp_path):
    """Rows, and pictures that another program encoded anew in their place."""
    pack(dataset, tmp_path / "pack")
    moved = changed(dataset, tmp_path / "moved", "action", lambda rows: [[x + 1 for x in row] for row in rows])
    with pytest.raises(InputError, match="or of this one before it changed"):
        pack(moved, tmp_path / "pack")
    shutil.copytree(dataset, tmp_path / "again")
    assert facts_of(Dataset(tmp_path / "again")) == facts_of(Dataset(dataset)), "a copy is the same"
    video = min((tmp_path / "again").rglob("*.mp4"))
    video.write_bytes(video.read_bytes() + b"0")
    assert facts_of(Dataset(tmp_path / "again")).source != facts_of(Dataset(dataset)).source
    video.unlink()
    assert facts_of(Dataset(tmp_path / "again")).lengths == (6, 6, 6, 6), "what is missing, its reader tells"


def test_a_data_set_whose_folders_are_links_is_known_by_what_lies_behind_them(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "linked")
    camera = next((tmp_path / "linked" / "videos").iterdir())
    behind = camera.rename(tmp_path / "behind")
    camera.symlink_to(behind)
    assert facts_of(Dataset(tmp_path / "linked")) == facts_of(Dataset(dataset))
    with min(behind.rglob("*.mp4")).open("ab") as stream:
        stream.write(b"0")
    assert facts_of(Dataset(tmp_path / "linked")).source != facts_of(Dataset(dataset)).source


def test_reading_a_large_data_set_is_shown_and_can_be_stopped(dataset, monkeypatch):
    told = []
    facts_of(Dataset(dataset), progress=lambda *said: told.append(said))
    assert not told, "of a small one nothing is said"
    monkeypatch.setattr(data, "TOLD_BYTES", 0)
    facts_of(Dataset(dataset), progress=lambda *said: told.append(said))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)

    def stop():
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        facts_of(Dataset(dataset), check_cancel=stop)


def test_masks_are_made_small_like_the_pictures(dataset, tmp_path):
    def left(row, camera):
        mask = np.zeros((row.length, 64, 128), bool)
        mask[:, :, :64] = True
        return mask

    made = pack(dataset, tmp_path / "pack", masks=left)
    assert made.masks["front"][:, :, :55].all()
    assert not made.masks["front"][:, :, 57:].any()


def test_a_stopped_packing_leaves_nothing(dataset, tmp_path):
    def stop():
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        pack(dataset, tmp_path / "pack", check_cancel=stop)
    assert not list(tmp_path.iterdir())


def test_sides_are_never_too_small():
    assert scaled((640, 480), 112) == (112, 84)
    assert scaled((1000, 20), 112) == (112, 8)


def test_facts_are_known_before_anything_is_packed(dataset, tmp_path):
    assert facts_of(Dataset(dataset)) == pack(dataset, tmp_path / "pack").facts


def changed(dataset, folder, column, change):
    """A copy of the data set whose column was changed, row by row."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    shutil.copytree(dataset, folder)
    (file,) = folder.glob("data/*/*.parquet")
    table = pq.read_table(file)
    rows = change(table.column(column).to_pylist())
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(rows)), file)
    return folder


@pytest.mark.parametrize(("column", "value", "words"), [
    ("observation.state", float("nan"), "observation.state of episode 1 is not finite in row 2"),
    ("action", float("inf"), "action of episode 1 is not finite in row 2"),
    ("truth.phase", 5, "truth.phase of episode 1 leaves 0 … 4"), ("truth.phase", -1, "truth.phase of episode 1 leaves 0 … 4"),
])  # fmt: skip
def test_numbers_that_nothing_can_be_learnt_from_are_refused_and_leave_nothing(dataset, tmp_path, column, value, words):
    def change(rows):
        if column == "truth.phase":
            rows[8] = value
        else:
            rows[8][1] = value
        return rows

    wrong = changed(dataset, tmp_path / "d", column, change)
    with pytest.raises(InputError, match=words):
        pack(wrong, tmp_path / "packs" / "pack")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_numbers_without_names_and_cameras_with_other_names(dataset, tmp_path):
    one = changed(dataset, tmp_path / "one", "action", lambda rows: [row[0] for row in rows])
    (one / "meta/retake.json").unlink()
    info = json.loads((one / "meta/info.json").read_text())
    info["features"]["action"] |= {"shape": [1], "names": None}
    (one / "meta/info.json").write_text(json.dumps(info))
    made = pack(one, tmp_path / "pack")
    assert made.facts.action_names == ("action",)
    assert made.action.shape == (24, 1)
    info["features"]["observation.image"] = info["features"].pop("observation.images.front")
    (one / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"--rename observation\.image=observation\.images\.NAME"):
        pack(one, tmp_path / "other")


def test_a_pack_takes_no_place_of_other_files_and_is_asked_whether_it_is_whole(dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no pack of the probe's, and holds something"):
        pack(dataset, tmp_path / "mine")
    pack(dataset, tmp_path / "pack")
    for name in ("front.npy", "vectors.npz"):
        file = tmp_path / "pack" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:200])
        with pytest.raises(InputError, match=r"damaged pack .* delete it"):
            pack(dataset, tmp_path / "pack")
        file.write_bytes(whole)
    state = {key: np.zeros((3, 2), np.float32) for key in ("state", "action", "phase")}
    np.savez(tmp_path / "pack" / "vectors.npz", **state)
    with pytest.raises(InputError, match="different lengths"):
        open_pack(tmp_path / "pack")


def test_two_processes_that_pack_one_data_set_end_with_one_pack(dataset, tmp_path):
    def meanwhile():
        if not (tmp_path / "pack").exists():
            pack(dataset, tmp_path / "pack")

    made = pack(dataset, tmp_path / "pack", check_cancel=meanwhile)
    assert len(made) == 24
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


def test_what_a_failed_or_a_killed_packing_left_goes(dataset, tmp_path, monkeypatch):
    (tmp_path / ".pack.tmp").mkdir()
    (tmp_path / ".other.tmp").mkdir()
    left = tmp_path / ".pack.abc.tmp"
    left.mkdir()

    def full(image, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(data, "small", full)
        with pytest.raises(OSError, match="No space"):
            pack(dataset, tmp_path / "pack")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.tmp", ".pack.tmp"]


def test_a_pack_that_is_there_is_opened_without_reading_tables(dataset, tmp_path, monkeypatch):
    """Where models are trained there may be nothing that reads tables (the extra `export`)."""
    made = pack(dataset, tmp_path / "pack")

    def no_tables(data):
        raise AssertionError("tables were read")

    monkeypatch.setattr(Dataset, "episodes", no_tables)
    assert pack(dataset, tmp_path / "pack").facts == made.facts
