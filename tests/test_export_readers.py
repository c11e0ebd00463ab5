# SPDX-License-Identifier: Apache-2.0
"""How readers that cannot be had here go through our files, replayed from their public sources; and what edits drop.

GR00T N1.5: NVIDIA/Isaac-GR00T, gr00t/data/dataset.py at 16d0dae, `LeRobotSingleDataset._get_metadata` (statistics),
`get_video` and `get_trajectory_data`. GR00T N1.6 and N1.7: gr00t/data/dataset/lerobot_episode_loader.py at 0035a8b,
`LeRobotEpisodeLoader._load_metadata`, `_extract_joint_groups`, `_load_parquet_data`. openpi at 15a9616 pins lerobot
0cf8648 (pyproject.toml, line 70) and reads through it (src/openpi/training/data_loader.py, lines 140-150).
`make readers` runs the readers that a package index gives.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from export_runs import make_run, tree

from retake.core.cli import main
from retake.core.errors import ExportError
from retake.core.export import ExportOptions, Selection, VideoOptions, export
from retake.core.export.reader import Dataset
from retake.core.export.restore import restore

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")


@pytest.fixture(scope="module")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("v21")
    runs = [make_run(root / f"r{i}", seed=i, takes=2, cameras=("front", "wrist")) for i in range(2)]
    export(runs, root / "d", ExportOptions("lerobot-v2.1"), Selection(include_sim=True))
    return root / "d"


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_gr00t_n15_slices_every_statistic_of_a_vector(v21: Path) -> None:
    modality, stats = read(v21 / "meta/modality.json"), read(v21 / "meta/stats.json")
    for section, feature in (("state", "observation.state"), ("action", "action")):
        for part in modality[section].values():
            assert {"max", "min", "mean", "std", "q01", "q99"} <= set(stats[feature])
            for statistic in stats[feature].values():
                sliced = np.array(statistic)[np.arange(part["start"], part["end"])]  # IndexError with `count` beside it
                assert len(sliced) == part["end"] - part["start"]
    for values in stats.values():  # its model wants these six of every feature, as numbers
        assert all(np.asarray(values[name]).dtype.kind == "f" for name in ("max", "min", "mean", "std", "q01", "q99"))
    info = read(v21 / "meta/info.json")
    for video in modality["video"].values():
        feature = info["features"][video["original_key"]]
        assert feature["shape"][feature["names"].index("height")] == 64
        assert feature["info"]["video.fps"] == 10
    with pytest.raises(ValueError, match="'channel' is not in list"):
        feature["names"].index("channel")  # its first guess; the second is `channels`
    assert feature["names"].index("channels") == 2


def test_gr00t_n16_groups_rows_and_task_texts(v21: Path) -> None:
    info, modality = read(v21 / "meta/info.json"), read(v21 / "meta/modality.json")
    tasks = {
        row["task_index"]: row["task"]
        for row in map(json.loads, (v21 / "meta/tasks.jsonl").read_text("utf-8").splitlines())
    }
    for line in (v21 / "meta/episodes.jsonl").read_text("utf-8").splitlines():
        index = json.loads(line)["episode_index"]
        frame = pq.read_table(v21 / info["data_path"].format(episode_chunk=index // 1000, episode_index=index))
        assert len(frame) == json.loads(line)["length"]
        for section, default in (("state", "observation.state"), ("action", "action")):
            for part in modality[section].values():
                first = frame.column(part.get("original_key", default))[0].as_py()
                assert isinstance(first, list)  # pandas gives it as an array, which is what the loader slices
                assert len(first[part["start"] : part["end"]]) == part["end"] - part["start"]
        for name, part in modality["annotation"].items():
            indices = frame.column(part.get("original_key", f"annotation.{name}")).to_pylist()
            assert all(tasks[i] for i in indices)


def test_v21_videos_open_in_opencv_by_default(v21: Path) -> None:
    """decord and OpenCV from PyPI decode no AV1; v2.1's readers use them."""
    data = Dataset(v21)
    assert data.info["features"]["observation.images.front"]["info"]["video.codec"] == "h264"
    row = next(data.episodes())
    ours = list(data.frames(row, "observation.images.front"))
    capture = cv2.VideoCapture(str(row.videos["observation.images.front"].path))
    theirs = []
    while (got := capture.read())[0]:
        theirs.append(got[1][..., ::-1])
    capture.release()
    assert len(theirs) == len(ours) == row.length
    assert np.abs(np.stack(theirs).astype(int) - np.stack(ours)).max() <= 6


def edited(root: Path, out: Path, keep: list[int]) -> Path:
    """What LeRobot's delete leaves of a dataset (dataset_tools.py, `_copy_and_reindex_episodes_metadata` of 0.6.1): the
    features of frames; of meta/episodes the place, tasks, length and statistics; none of the files it does not know."""
    shutil.copytree(root, out)
    for name in ("retake.json", "retake_provenance.jsonl", "retake_rejected.jsonl", "modality.json"):
        (out / "meta" / name).unlink(missing_ok=True)
    rows = pq.read_table(out / "data/chunk-000/file-000.parquet")
    index = np.asarray(rows.column("episode_index"))
    kept = rows.filter(pa.array(np.isin(index, keep)))
    number = np.searchsorted(keep, np.asarray(kept.column("episode_index")))
    kept = kept.set_column(kept.column_names.index("episode_index"), "episode_index", pa.array(number))
    pq.write_table(kept, out / "data/chunk-000/file-000.parquet")
    path = out / "meta/episodes/chunk-000/file-000.parquet"
    episodes = pq.read_table(path)
    names = [n for n in episodes.column_names if not n.startswith("retake/")]
    episodes = episodes.select(names).take(keep)
    pq.write_table(episodes.set_column(0, "episode_index", pa.array(range(len(keep)))), path)
    info = read(out / "meta/info.json")
    info |= {"total_episodes": len(keep), "total_frames": len(kept)}
    (out / "meta/info.json").write_text(json.dumps(info), "utf-8")
    return out


def test_provenance_comes_back_after_an_edit_that_dropped_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / f"r{i}", seed=i) for i in range(2)]
    export(runs, tmp_path / "d", ExportOptions(video=H264), Selection(include_sim=True))
    before = [row.provenance for row in Dataset(tmp_path / "d").episodes()]
    part = edited(tmp_path / "d", tmp_path / "e", [1, 4, 5])
    assert not any(row.provenance for row in Dataset(part).episodes())
    untouched = {k: v for k, v in tree(part).items() if not k.startswith("meta/")}
    assert main(["provenance", str(part), "--from", str(tmp_path / "d")]) == 0
    assert "provenance of 3 of 3 episodes" in capsys.readouterr().out
    after = [row.provenance for row in Dataset(part).episodes()]
    assert after == [before[i] for i in (1, 4, 5)]
    assert {k: v for k, v in tree(part).items() if not k.startswith("meta/")} == untouched
    assert [r["uid"] for r in Dataset(part).provenance()] == [before[i]["uid"] for i in (1, 4, 5)]
    assert Dataset(part).units_stated
    export([make_run(tmp_path / "other", seed=7)], tmp_path / "o", ExportOptions(video=H264))
    with pytest.raises(ExportError, match=r"no record of .* 3 episodes is in"):
        restore(part, [tmp_path / "o"])


def test_include_sim_without_a_camera_is_refused_in_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", takes=0, cameras=())
    with pytest.raises(ExportError, match=r"its episode has no camera; record it with one, or leave --include-sim out"):
        export([run], tmp_path / "d", ExportOptions(), Selection(include_sim=True))
    assert not (tmp_path / "d").exists()
