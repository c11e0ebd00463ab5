# SPDX-License-Identifier: Apache-2.0
"""The exported dataset in lerobot itself (`make lerobot-env`), and in a reader written from the format's description."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export_runs import make_run

from retake.core.episode import open_episode
from retake.core.export import ExportOptions, Selection, VideoOptions, export
from retake.core.export.encode import read_segment
from retake.core.export.reader import Dataset
from retake.core.export.stats import ImageStats, merge, vector_stats
from retake.core.video import read_video

pytest.importorskip("pyarrow")
ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".lerobot-env" / "bin" / "python"


def lerobot_reads(root: Path, out: Path, *deltas: float) -> tuple[dict, dict[str, np.ndarray]]:
    """Metadata and every frame as lerobot's LeRobotDataset gives them."""
    command = [str(PYTHON), str(ROOT / "tests/lerobot_reader.py"), str(root), str(out), *map(str, deltas)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(out.parent),
        "HF_HOME": str(out.parent / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as data:
        return json.loads(done.stdout.splitlines()[-1]), {k.replace("|", "/"): data[k] for k in data.files}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


@pytest.mark.skipif(not PYTHON.exists(), reason="no .lerobot-env; `make lerobot-env` makes it")
@pytest.mark.parametrize("codec", ["av1", "h264"] if os.environ.get("RETAKE_FULL") == "1" else ["av1"])
def test_lerobot_reads_every_frame_action_window_and_statistic(tmp_path, codec):
    frames = 9
    runs = [
        make_run(tmp_path / f"r{i}", seed=i, takes=2, frames=frames, size=(96, 64), cameras=("front", "wrist"))
        for i in range(2)
    ]
    export(
        runs,
        tmp_path / "d",
        ExportOptions("lerobot-v3", VideoOptions.of(codec, 20)),
        Selection(include_sim=True, language=False),
    )
    meta, got = lerobot_reads(tmp_path / "d", tmp_path / "got.npz", -0.1, 0.0, 0.2)
    data = Dataset(tmp_path / "d")
    rows = list(data.episodes())
    assert (meta["version"], meta["fps"], meta["episodes"]) == ("3.0", 10, 6)
    assert meta["frames"] == 6 * frames == len(got["action"])
    assert set(meta["tasks"]) == {'pick up the “päckchen” — and say "done"'}
    assert {"retake/source_episode_id", "retake/domain", "retake/world", "retake/verdict_probability"} <= set(
        meta["columns"]
    )
    worst = np.inf
    for row in rows:
        part = slice(row.index * frames, (row.index + 1) * frames)
        run = next(r for r in runs if r.name == row.provenance["run"])
        episode = open_episode(run / "episode")
        # lerobot hands every number over as float32; the parquet column itself is float64.
        assert np.array_equal(got["source.time_s"][part], episode.time_s.astype(np.float32))
        assert np.array_equal(data.columns(row)["source.time_s"], episode.time_s)
        for key in ("observation.state", "action"):
            assert np.array_equal(got[key][part], data.columns(row)[key])
        assert np.array_equal(got["timestamp"][part], (np.arange(frames) / 10).astype(np.float32))
        assert got["episode_index"][part].tolist() == [row.index] * frames
        for camera in ("front", "wrist"):
            key = f"observation.images.{camera}"
            seen = np.round(got[key][part].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
            if row.provenance["domain"] == "sim":
                source = [episode.image(camera, "rgb", k) for k in range(frames)]
            else:
                take = next(t for t in row.provenance["take_id"].split("+") if t.endswith(camera))
                source = list(read_video(run / "takes" / take / "take.mp4"))
            worst = min(worst, *(psnr(a, b) for a, b in zip(source, seen, strict=True)))
            # Frame k is frame k: no neighbour explains it better.
            for k in range(frames):
                nearest = max(range(frames), key=lambda j: psnr(source[j], seen[k]))
                assert nearest == k
    assert worst > 30
    check_statistics(meta, data)
    check_windows(tmp_path, frames, got)


def check_statistics(meta: dict, data: Dataset) -> None:
    """Ours against lerobot's own computation on the same rows."""
    full = list(data.full_rows())
    for key, episodes in meta["stats"].items():
        for ours, theirs in zip((row["stats"][key] for row in full), episodes, strict=True):
            span = np.asarray(theirs["max"]) - np.asarray(theirs["min"])
            for name in ("min", "max", "mean", "std", "count"):
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=2e-6)
            for name in ("q01", "q10", "q50", "q90", "q99"):  # theirs is a histogram of 5000 bins
                assert (np.abs(np.asarray(ours[name]) - theirs[name]) <= span / 5000 + 1e-6).all()
    for key, theirs in meta["dataset_stats"].items():
        ours = json.loads((data.root / "meta/stats.json").read_text("utf-8"))[key]
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name])


def check_windows(tmp_path: Path, frames: int, plain: dict[str, np.ndarray]) -> None:
    """`delta_timestamps` gives neighbours inside the episode and repeats its ends."""
    with np.load(tmp_path / "got.windows.npz") as data:
        windows = {k: data[k] for k in data.files}
    key = "observation.images.front"
    for i in range(len(plain["action"])):
        first, last = i - i % frames, i - i % frames + frames - 1
        expected = [max(i - 1, first), i, min(i + 2, last)]
        assert np.array_equal(windows["action"][i], plain["action"][expected])
        assert np.array_equal(windows[key][i], plain[key][expected])
        assert windows["action_is_pad"][i].tolist() == [i == first, False, i + 2 > last]


def test_merged_statistics_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 3)) for n in (1, 5, 40)]
    merged = merge(lambda: ({"x": vector_stats(p)} for p in parts))["x"]
    whole = np.concatenate(parts)
    np.testing.assert_allclose(merged["mean"], whole.mean(0))
    np.testing.assert_allclose(merged["std"], whole.std(0))
    np.testing.assert_allclose(merged["min"], whole.min(0))
    assert merged["count"] == [46]
    assert (np.asarray(merged["q01"]) <= np.quantile(whole, 0.01, axis=0)).all()
    assert (np.asarray(merged["q99"]) >= np.quantile(whole, 0.99, axis=0)).all()


def test_image_statistics_are_those_of_the_pixels():
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (130, 20, 30, 3), dtype=np.uint8)
    stats = ImageStats(len(frames))
    for frame in frames:
        stats.add(frame)
    got = stats.result()
    used = frames[np.round(np.linspace(0, 129, 100)).astype(int)] / 255
    np.testing.assert_allclose(np.ravel(got["mean"]), used.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(got["std"]), used.std((0, 1, 2)))
    for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(used.reshape(-1, 3), q, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(np.ravel(got[name]), expected)
    assert got["count"] == [100]
    assert np.shape(got["mean"]) == (3, 1, 1)


def test_tasks_parquet_carries_its_text_as_the_index(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    export([make_run(tmp_path / "r", takes=1)], tmp_path / "d", ExportOptions(video=VideoOptions.of("h264")))
    table = pq.read_table(tmp_path / "d/meta/tasks.parquet")
    pandas = json.loads(table.schema.metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    assert table.column("task").to_pylist() == ['pick up the “päckchen” — and say "done"']
    groups = pq.ParquetFile(tmp_path / "d/data/chunk-000/file-000.parquet")
    assert groups.num_row_groups == 1
    assert groups.metadata.row_group(0).column(0).compression == "SNAPPY"
    groups.close()


def test_defaults_are_the_ecosystems(tmp_path):
    export([make_run(tmp_path / "r", takes=1, size=(64, 64))], tmp_path / "d")
    info = json.loads((tmp_path / "d/meta/info.json").read_text("utf-8"))
    video = info["features"]["observation.images.front"]["info"]
    assert (video["video.codec"], video["video.pix_fmt"], video["video.g"], video["video.crf"]) == (
        "av1",
        "yuv420p",
        2,
        30,
    )
    assert (info["chunks_size"], info["data_files_size_in_mb"], info["video_files_size_in_mb"]) == (1000, 100, 200)
    row = next(Dataset(tmp_path / "d").episodes())
    assert len(list(read_segment(row.videos["observation.images.front"]))) == row.length
