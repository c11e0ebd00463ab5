# SPDX-License-Identifier: Apache-2.0
"""Mixing by weights, and LeRobot datasets that come back as Episodes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from export_runs import make_run, tree
from hypothesis import given
from hypothesis import strategies as st

from retake.core.episode import open_episode
from retake.core.errors import ExportError, InputError
from retake.core.export import ExportOptions, Selection, VideoOptions, cli, export, mix
from retake.core.export.encode import read_segment
from retake.core.export.mix import MixSource, parse_source, shares
from retake.core.export.reader import Dataset
from retake.core.files import write_json
from retake.core.importers import lerobot_cli as import_cli
from retake.core.importers.lerobot import Calibration, ImportOptions, import_lerobot, load_calibration
from retake.core.importers.lerobot_cli import import_command
from retake.core.skeleton import skeleton_frames

pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")
LOSSLESS = VideoOptions.of("lossless")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """`real` (v2.1, 9 episodes of the simulator's pictures) and `takes` (v3.0, 4 episodes)."""
    root = tmp_path_factory.mktemp("mix")
    runs = [make_run(root / f"r{i}", seed=i, takes=1, frames=5) for i in range(9)]
    for run in runs:
        shutil.rmtree(run / "takes")
    export(runs, root / "real", ExportOptions("lerobot-v2.1", H264), Selection(include_sim=True))
    more = [make_run(root / f"t{i}", seed=20 + i, takes=2, frames=5) for i in range(2)]
    export(more, root / "takes", ExportOptions(video=H264))
    return root / "real", root / "takes"


def test_the_mixture_has_the_asked_shares_and_the_sources_own_bits(datasets, tmp_path):
    real, takes = datasets
    sources = [MixSource("real", real, 0.75), MixSource("takes", takes, 0.25)]
    report = mix(sources, tmp_path / "m", seed=4, options=ExportOptions(video=H264))
    assert [s.taken for s in report.sources] == [9, 3]
    data, opened = Dataset(tmp_path / "m"), {"real": Dataset(real), "takes": Dataset(takes)}
    content = json.loads((tmp_path / "m/meta/retake_mix.json").read_text("utf-8"))
    assert sum(e["weight"] for e in content["episodes"]) == pytest.approx(1)
    assert sum(s["weight"] for s in content["rlds"]) == 1
    originals = {name: list(d.episodes()) for name, d in opened.items()}
    for row, entry in zip(data.episodes(), content["episodes"], strict=True):
        source = originals[entry["source"]][entry["source_episode"]]
        ours, theirs = data.columns(row), opened[entry["source"]].columns(source)
        for key in set(data.schema.vectors) - {"source.uid"}:  # which names the mixture's own record
            assert ours[key].tobytes() == theirs[key].tobytes()
        a = read_segment(row.videos["observation.images.front"])
        b = read_segment(source.videos["observation.images.front"])
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)), "videos are copied, not encoded again"
        assert row.provenance["domain"] == source.provenance["domain"]
    mix(sources, tmp_path / "again", seed=4, options=ExportOptions(video=H264))
    assert tree(tmp_path / "again") == tree(tmp_path / "m")


@given(st.lists(st.tuples(st.floats(0.02, 1), st.integers(1, 500)), min_size=1, max_size=5))
def test_shares_follow_the_weights_and_exhaust_no_source(pairs):
    total = sum(w for w, _ in pairs)
    weights, available = [w / total for w, _ in pairs], [n for _, n in pairs]
    try:
        counts = shares(weights, available, None)
    except ExportError:
        assert min(n / w for w, n in zip(weights, available, strict=True)) * min(weights) < 1
        return
    assert all(1 <= c <= n for c, n in zip(counts, available, strict=True))
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - weight * sum(counts)) <= len(pairs)


def test_a_source_may_repeat_when_a_number_is_asked(datasets, tmp_path):
    real, takes = datasets
    sources = [MixSource("real", real, 0.5), MixSource("takes", takes, 0.5)]
    report = mix(sources, tmp_path / "m", episodes=12, options=ExportOptions(video=H264))
    assert [s.taken for s in report.sources] == [6, 6]
    assert "takes: 2 of 6 episodes are repetitions (it has 4)" in report.notes


def test_sources_that_do_not_fit_are_explained_in_full(datasets, tmp_path):
    real, _ = datasets
    export(
        [make_run(tmp_path / "o", takes=1, fps=20, size=(96, 64), cameras=("side",))],
        tmp_path / "other",
        ExportOptions(video=H264),
    )
    with pytest.raises(ExportError) as caught:
        mix([MixSource("real", real, 0.5), MixSource("o", tmp_path / "other", 0.5)], tmp_path / "m")
    for part in (
        "fps: real has 10, o 20",
        "observation.images.front: only in real",
        "observation.images.side: only in o",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_foreign_units_are_doubted(datasets, tmp_path):
    _, takes = datasets
    foreign = tmp_path / "foreign"
    shutil.copytree(takes, foreign)
    (foreign / "meta/retake.json").unlink()
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    path = foreign / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path)
    degrees = [[90.0] * len(x) for x in rows.column("stats/action/max").to_pylist()]
    at = rows.schema.get_field_index("stats/action/max")
    pq.write_table(rows.set_column(at, "stats/action/max", pa.array(degrees)), path)
    sources = [MixSource("takes", takes, 0.5), MixSource("foreign", foreign, 0.5)]
    with pytest.raises(ExportError, match=r"foreign: action reaches 90\.0 and states no unit"):
        mix(sources, tmp_path / "m", options=ExportOptions(video=H264))
    report = mix(sources, tmp_path / "m", trust_units=True, options=ExportOptions(video=H264))
    assert report.episodes == 8


def test_weights_must_sum_to_one_and_texts_are_checked(datasets, tmp_path):
    real, takes = datasets
    with pytest.raises(InputError, match=r"weights sum to 1\.1"):
        mix([MixSource("a", real, 0.9), MixSource("b", takes, 0.2)], tmp_path / "m")
    assert parse_source("real=C:/data/x:0.9") == MixSource("real", parse_source("real=C:/data/x:0.9").path, 0.9)
    for text in ("real", "real=dir", "real=dir:2", "=dir:0.5"):
        with pytest.raises(InputError, match="NAME=DIR:WEIGHT"):
            parse_source(text)
    with pytest.raises(InputError, match="expected a positive number"):
        shares([0.5, 0.5], [3, 3], -2)


def test_cli_and_weights_only(datasets, tmp_path, capsys):
    real, takes = datasets
    args = [f"real={real}:0.75", f"takes={takes}:0.25", "--out", str(tmp_path / "w"), "--weights-only", "--quiet"]
    assert cli.mix(args) == 0
    assert "real: 9 of 9 episodes (75.0%, asked 75.0%)" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["retake_mix.json"]


def calibrate(run):
    episode = open_episode(run / "episode")
    camera = episode.camera("front", 0)
    return episode, {"front": Calibration(camera.K, camera.T_camera_world)}


def test_export_import_export_is_identical(tmp_path):
    """Rows, tasks, videos and statistics survive the way out and back, byte for byte, with a lossless codec.

    What the simulator alone knew (truth, words) does not come back: a recording has no objects."""
    run = make_run(tmp_path / "r", takes=0, frames=7)
    options = ExportOptions(video=LOSSLESS)
    export([run], tmp_path / "first", options, Selection(include_sim=True, truth=False))
    episode, cameras = calibrate(run)
    base = episode.link_poses("arm0")[0, 0]
    imported = import_lerobot(
        tmp_path / "first", tmp_path / "back", episode.header.robots[0], cameras, ImportOptions(T_world_base=base)
    )
    assert imported[0].header.motion_source == "recorded"
    np.testing.assert_allclose(imported[0].link_poses("arm0"), episode.link_poses("arm0"), atol=1e-6)
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "back/episode_000000").rename(again / "episode")
    export([again], tmp_path / "second", options, Selection(include_sim=True, truth=False))
    first, second = tree(tmp_path / "first"), tree(tmp_path / "second")
    for name in first:
        if name.startswith("videos/") or name in ("meta/tasks.parquet", "meta/info.json"):
            assert first[name] == second[name], name
    there, back = (Dataset(tmp_path / name) for name in ("first", "second"))
    for a, b in zip(there.episodes(), back.episodes(), strict=True):  # all but which record they have
        ours, theirs = there.columns(a), back.columns(b)
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in set(ours) - {"source.uid"})
    stats = [json.loads(tree_["meta/stats.json"]) for tree_ in (first, second)]
    assert all(one.pop("source.uid") for one in stats)
    assert stats[0] == stats[1]
    row = next(Dataset(tmp_path / "second").episodes())
    assert row.provenance["domain"] == "recorded"
    shown = list(read_segment(row.videos["observation.images.front"]))
    assert all(np.array_equal(a, episode.image("front", "rgb", k)) for k, a in enumerate(shown))


def test_a_v21_dataset_in_degrees_with_other_names_comes_in(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    export([run], tmp_path / "d", ExportOptions("lerobot-v2.1", H264))
    episode, cameras = calibrate(run)
    robot = episode.header.robots[0]
    with pytest.raises(InputError, match=r"the dataset itself states rad for entry .*, and deg was given"):
        import_lerobot(tmp_path / "d", tmp_path / "back", robot, cameras, ImportOptions(degrees=True))
    (tmp_path / "d/meta/retake.json").unlink()  # another tool's: nothing states units
    joints = {name: f"{name}.pos" for name in robot.dof_names}
    (back,) = import_lerobot(
        tmp_path / "d", tmp_path / "back", robot, cameras, ImportOptions(joints, degrees=True, beyond_limits=True)
    )
    arm = robot.dof_index("joint0")
    expected = np.deg2rad(episode.joint("arm0", "position")[:, arm].astype(np.float32).astype(float))
    np.testing.assert_allclose(back.joint("arm0", "position")[:, arm], expected, rtol=1e-6)
    assert len(list(skeleton_frames(back, "front"))) == 8
    same = import_lerobot(
        tmp_path / "d", tmp_path / "back", robot, cameras, ImportOptions(joints, degrees=True, beyond_limits=True)
    )
    assert same[0].content_sha256 == back.content_sha256


def test_import_refuses_what_does_not_fit(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    export([run], tmp_path / "d", ExportOptions(video=H264))
    episode, cameras = calibrate(run)
    robot = episode.header.robots[0]
    with pytest.raises(InputError, match=r"no picture feature is called top; the dataset has: front"):
        import_lerobot(tmp_path / "d", tmp_path / "b", robot, {"top": cameras["front"]})
    with pytest.raises(InputError, match=r"unknown entry of observation.state .elbow."):
        import_lerobot(tmp_path / "d", tmp_path / "b", robot, cameras, ImportOptions({"joint0": "elbow"}))
    with pytest.raises(InputError, match=r"has episodes 0 … 0; asked were \[7\]"):
        import_lerobot(tmp_path / "d", tmp_path / "b", robot, cameras, episodes=[7])
    with pytest.raises(ExportError, match=r"is no LeRobot dataset: meta/info\.json is missing"):
        import_lerobot(tmp_path, tmp_path / "b", robot, cameras)
    write_json(tmp_path / "c.json", {"front": {"K": [[1]]}})
    with pytest.raises(InputError, match="T_camera_world"):
        load_calibration(tmp_path / "c.json")
    assert not (tmp_path / "b").exists()


def test_import_from_the_command_line(tmp_path, capsys):
    run = make_run(tmp_path / "r", takes=1)
    export([run], tmp_path / "d", ExportOptions(video=H264))
    episode, cameras = calibrate(run)
    write_json(tmp_path / "robot.json", episode.header.robots[0].to_json())
    front = {"K": cameras["front"].K.tolist(), "T_camera_world": cameras["front"].T_camera_world.tolist()}
    write_json(tmp_path / "cameras.json", {"front": front})
    args = [str(tmp_path / "d"), "--robot", str(tmp_path / "robot.json"), "--cameras", str(tmp_path / "cameras.json")]
    assert import_cli.main([*args, "--out", str(tmp_path / "e"), "--quiet"]) == 0
    assert "episode_000000: 8 frames" in capsys.readouterr().out
    imported = import_command(tmp_path / "d", tmp_path / "one", urdf=tmp_path / "robot.json", arguments=args[3:])
    assert imported.path == tmp_path / "one"
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"expected a \.urdf"):
        import_cli.main([*args[:2], str(tmp_path / "x.txt"), *args[3:], "--out", str(tmp_path / "f")])
