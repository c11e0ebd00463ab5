# SPDX-License-Identifier: Apache-2.0
"""A real data set at 30 fps with six entries of its own becomes what takes can be mixed with."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from export_runs import make_run
from lerobot_plain import LIMITS, SO101, picture, shares, so101_motion, write_plain
from test_export_language import SIZE, pick_and_drop

from retake.core.cli import main
from retake.core.errors import ExportError, InputError
from retake.core.export import ExportOptions, MixSource, Selection, VideoOptions, export, mix
from retake.core.export.convert import ConvertOptions, convert
from retake.core.export.convert import main as convert_main
from retake.core.export.reader import Dataset

pytest.importorskip("pyarrow")
H264 = ExportOptions(video=VideoOptions.of("h264"))
NAMES = [f"{name}.pos" for name in SO101]
TOP, FRONT = "observation.images.top", "observation.images.front"


def real(root: Path, frames: int = 31) -> tuple[Path, np.ndarray]:
    """30 fps, degrees and a jaw in 0..100, one camera `top` of 64x64."""
    truth = so101_motion(frames)
    recorded = np.concatenate([truth[:, :5] * 180 / np.pi, shares(truth[:, 5:], 0, 100, LIMITS[5:])], 1)
    return write_plain(root, recorded, NAMES, action=recorded, key=TOP, fps=30), truth


def takes(root: Path) -> Path:
    """A dataset of ours with the same six entries (renamed), 15 fps, 96x64."""
    run = make_run(root / "run", takes=1, frames=9, size=(96, 64), fps=15)
    export([run], root / "raw", H264)
    names = Dataset(root / "raw").schema.vectors["observation.state"].names
    rename = dict(zip(names, [*NAMES, "rest"], strict=False))
    convert(root / "raw", root / "takes", ConvertOptions(rename=rename), H264)
    return root / "takes"


def test_states_are_interpolated_pictures_nearest_and_units_converted(tmp_path: Path) -> None:
    source, truth = real(tmp_path / "real")
    wanted = ConvertOptions(
        fps=20, rename={TOP: FRONT}, units={"all": "deg", "gripper.pos": "0..100"}, size=(128, 96), select=tuple(reversed(NAMES)),
    )  # fmt: skip
    report = convert(source, tmp_path / "out", wanted, H264)
    data = Dataset(tmp_path / "out")
    assert (report.frames, data.schema.fps, data.schema.cameras) == (21, 20, {FRONT: (128, 96)})
    assert data.units_stated
    (row,) = data.episodes()
    state = data.columns(row)["observation.state"]
    place = np.arange(21) * 1.5
    expected = np.stack([np.interp(place, np.arange(31), c) for c in truth.T], 1)[:, ::-1]
    assert np.abs(state[:, 1:] - expected[:, 1:]).max() < 1e-5
    low, high = LIMITS[5]
    assert np.abs(state[:, 0] - (expected[:, 0] - low) / (high - low)).max() < 1e-5
    assert data.schema.vectors["action"].names == tuple(reversed(NAMES))
    nearest = np.minimum(np.floor(place + 0.5).astype(int), 30)
    for k, frame in enumerate(data.frames(row, FRONT)):
        bright = np.flatnonzero(frame[42, :, 0] > 180)
        assert abs(bright[0] / 2 - np.flatnonzero(picture(int(nearest[k]))[28, :, 0] > 180)[0]) <= 1
    again = convert(source, tmp_path / "again", wanted, H264)
    assert again.frames == 21
    table = "data/chunk-000/file-000.parquet"
    assert (tmp_path / "again" / table).read_bytes() == (tmp_path / "out" / table).read_bytes()


def test_the_refusal_of_a_mixture_prints_commands_that_make_it_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, ours = real(tmp_path / "real")[0], takes(tmp_path)
    arguments = ["mix", f"real={there}:0.5", f"takes={ours}:0.5", "--codec", "h264", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    commands = [line.strip() for line in said.splitlines() if line.strip().startswith("retake convert-dataset")]
    mine = next(line for line in commands if str(there) in line)
    assert "--fps 15" in mine
    assert f"--rename {TOP}={FRONT}" in mine
    assert "--size 96x64" in mine
    shared = [n for n in NAMES if n in Dataset(ours).schema.vectors["observation.state"].names]
    done = {}
    for line in commands:
        words = shlex.split(line)[1:]
        if "UNIT" in line:  # what the numbers are, only their owner knows
            at = words.index("--units")
            given = ["all=deg"] + (["gripper.pos=0..100"] if "gripper.pos" in shared else [])
            words[at + 1 : at + 3] = given
        assert main([*words, "--codec", "h264", "--quiet"]) == 0, line
        done[words[1]] = words[words.index("--out") + 1]
    sources = [MixSource("real", Path(done[str(there)]), 0.5), MixSource("takes", Path(done.get(str(ours), ours)), 0.5)]
    report = mix(sources, tmp_path / "m", options=H264)
    assert report.episodes == 2
    assert Dataset(tmp_path / "m").schema.vectors["observation.state"].names == tuple(shared)


def test_provenance_and_words_go_along_and_unchanged_videos_are_copied(tmp_path: Path) -> None:
    pick_and_drop(tmp_path / "run/episode")
    export([tmp_path / "run"], tmp_path / "d", H264, Selection(include_sim=True))
    before = Dataset(tmp_path / "d")
    (row,) = before.episodes()
    convert(tmp_path / "d", tmp_path / "same", ConvertOptions(drop=("truth.contact",)), H264)
    after = Dataset(tmp_path / "same")
    (copy,) = after.episodes()
    assert copy.videos[FRONT].path.read_bytes() == row.videos[FRONT].path.read_bytes()
    assert "truth.contact" not in after.schema.vectors
    assert after.language(copy) == before.language(row)
    assert after.schema.slices == before.schema.slices
    for key in ("domain", "run", "source_episode_id", "trajectory_id"):
        assert copy.provenance[key] == row.provenance[key]
    convert(tmp_path / "d", tmp_path / "half", ConvertOptions(fps=5, size=SIZE), H264)
    half = Dataset(tmp_path / "half")
    (slow,) = half.episodes()
    columns = half.columns(slow)
    assert slow.length == 15
    assert np.array_equal(columns["truth.phase"], before.columns(row)["truth.phase"][::2])
    stamps = {float(t) for t in columns["timestamp"]}
    rows = half.language(slow)
    assert {r["timestamp"] for r in rows.persistent} <= stamps
    assert len(rows.events) == len(before.language(row).events)


def test_wrong_requests_name_what_is_valid(tmp_path: Path) -> None:
    source, _ = real(tmp_path / "real", 5)
    for options, found in (
        ({"rename": {"no_such": "x"}}, "unknown feature or entry of --rename 'no_such'"),
        ({"select": ("no_such",)}, "unknown entry of --select 'no_such'"),
        ({"units": {"no_such": "deg"}}, "unknown entry of --units"),
        ({"cameras": ("no_such",)}, "unknown picture feature 'no_such'"),
        ({"drop": ("observation.state",)}, "unknown feature of --drop"),
        ({"rename": {NAMES[0]: NAMES[1]}}, "two entries of observation.state one name"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=found):
            convert(source, tmp_path / "o", ConvertOptions(**options), H264)
    with pytest.raises(InputError, match=r"`retake import lerobot` takes them from the robot"):
        ConvertOptions(units={"all": "-100..100"})
    with pytest.raises(InputError, match="--fps 0"):
        ConvertOptions(fps=0)
    with pytest.raises(ExportError, match="is the source itself"):
        convert_main([str(source), "--out", str(source)])
    assert not (tmp_path / "o").exists()


def test_pictures_in_the_table_under_any_name_become_videos(tmp_path: Path) -> None:
    truth = so101_motion(6)
    source = write_plain(tmp_path / "real", truth, NAMES, key="image", embedded=True)
    convert(source, tmp_path / "same", ConvertOptions(), H264)
    convert(source, tmp_path / "named", ConvertOptions(rename={"image": FRONT}), H264)
    for name, key in (("same", "image"), ("named", FRONT)):
        data = Dataset(tmp_path / name)
        (row,) = data.episodes()
        assert row.provenance["camera_names"] == key.removeprefix("observation.images.")
        shown = list(data.frames(row, key))
        assert len(shown) == 6
        assert np.abs(shown[3].astype(int) - picture(3)).mean() < 6
        assert len(list((tmp_path / name / "card").glob("*.jpg"))) == 1
