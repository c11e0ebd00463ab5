# SPDX-License-Identifier: Apache-2.0
"""Export laws: bits survive, appending equals exporting at once, a resumed export gives the same bytes, nothing leaks."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
from export_runs import WORLDS, make_run, tree, write_take
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.episode import open_episode
from retake.core.errors import Cancelled, ExportError, InputError
from retake.core.export import ExportOptions, Selection, Split, VideoOptions, export
from retake.core.export.encode import read_segment
from retake.core.export.lerobot_v3 import Limits
from retake.core.export.reader import Dataset
from retake.core.export.split import assign, parse_split
from retake.core.video import read_video

pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")
FORMATS = ("lerobot-v3", "lerobot-v2.1", "oscar", "oscar-canvas", "hdf5-isaaclab")


def opts(fmt="lerobot-v3", **more) -> ExportOptions:
    return ExportOptions(fmt, H264, **more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of two worlds, two cameras, with different motions."""
    root = tmp_path_factory.mktemp("runs")
    return [
        make_run(root / f"run{i}", seed=i, takes=2, frames=6 + i, cameras=("front", "wrist.left")) for i in range(3)
    ]


def test_states_actions_and_times_are_the_simulators_bit_for_bit(runs, tmp_path):
    (report,) = export(runs, tmp_path / "d", opts(), Selection(include_sim=True))
    data = Dataset(tmp_path / "d")
    assert report.episodes == len(data) == 9
    assert report.domains == {"sim": 3, "composite": 6}
    per_source: dict[str, list] = {}
    for row in data.episodes():
        found, p = data.columns(row), row.provenance
        run = next(r for r in runs if r.name == p["run"])
        episode = open_episode(run / "episode")
        robot = episode.header.robots[0]
        fingers = [robot.dof_index(n) for n in robot.grippers[0].finger_joints]
        order = [i for i in range(len(robot.dof_names)) if i not in fingers] + fingers
        q, target = episode.joint(robot.name, "position"), episode.joint(robot.name, "target")
        state = np.concatenate([q[:, order], episode.gripper_openness(robot.name)], 1).astype(np.float32)
        action = np.concatenate([target[:, order], robot.gripper_openness(target)], 1).astype(np.float32)
        assert found["observation.state"].tobytes() == state.tobytes()
        assert found["action"].tobytes() == action.tobytes()
        assert found["source.time_s"].tobytes() == episode.time_s.tobytes()
        assert found["timestamp"].tobytes() == (np.arange(len(episode)) / 10).astype(np.float32).tobytes()
        per_source.setdefault(p["run"], []).append(found["observation.state"].tobytes() + found["action"].tobytes())
        for key in data.schema.cameras:
            shown = list(read_segment(row.videos[key]))
            assert len(shown) == row.length
    assert all(len(set(group)) == 1 for group in per_source.values())


def test_frames_are_the_takes_within_codec_tolerance_and_in_the_right_file_place(runs, tmp_path):
    limits = Limits(data=2000, video=4000)
    export(runs, tmp_path / "d", opts(limits=limits))
    data = Dataset(tmp_path / "d")
    files = {row.videos["observation.images.front"].path for row in data.episodes()}
    assert len(files) > 1, "the limit must make several files"
    for row in data.episodes():
        for name, take in zip(("front", "wrist.left"), row.provenance["take_id"].split("+"), strict=True):
            source = list(
                read_video(next(r for r in runs if r.name == row.provenance["run"]) / "takes" / take / "take.mp4")
            )
            shown = list(read_segment(row.videos[f"observation.images.{name}"]))
            for a, b in zip(source, shown, strict=True):
                error = np.mean((a.astype(float) - b) ** 2)
                assert 10 * np.log10(255**2 / max(error, 1e-9)) > 30


@pytest.mark.parametrize("fmt", FORMATS)
def test_appending_equals_exporting_at_once(runs, tmp_path, fmt):
    limits = Limits(data=3000, video=5000)
    export(runs, tmp_path / "once", opts(fmt, limits=limits), Selection(include_sim=True))
    for k in (1, 3):
        export(runs[:k], tmp_path / "grown", opts(fmt, limits=limits, append=k > 1), Selection(include_sim=True))
    once, grown = tree(tmp_path / "once"), tree(tmp_path / "grown")
    assert once.keys() == grown.keys()
    different = [name for name in once if once[name] != grown[name]]
    if fmt == "hdf5-isaaclab":  # HDF5 lays groups out by history: equal in content
        assert different in ([], ["dataset.hdf5"])
        assert hdf5_content(tmp_path / "once/dataset.hdf5") == hdf5_content(tmp_path / "grown/dataset.hdf5")
    else:
        assert not different
    assert not list(tmp_path.glob(".*export*")), "no workshop is left behind"


def hdf5_content(path):
    h5py = pytest.importorskip("h5py")
    out = {}
    with h5py.File(path) as file:

        def visit(name, item):
            values = ""
            if isinstance(item, h5py.Dataset):
                values = str(item[()]) if item.dtype.kind == "O" else item[()].tobytes()
            out[name] = (values, sorted((k, str(v)) for k, v in item.attrs.items()))

        file.visititems(visit)
    return out


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_export_stopped_after_any_episode_resumes_to_the_same_bytes(runs, tmp_path, fmt):
    limits = Limits(data=2000, video=4000)
    export(runs, tmp_path / "d", opts(fmt, limits=limits))
    undisturbed = tree(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    for attempt in itertools.count():
        countdown = itertools.count()

        def stop_in_the_middle(countdown=countdown, allowed=5 + 7 * attempt):
            if next(countdown) >= allowed:
                raise Cancelled("stop")

        try:
            export(runs, tmp_path / "d", opts(fmt, limits=limits), check_cancel=stop_in_the_middle)
            break
        except Cancelled:
            assert not (tmp_path / "d").exists(), "nothing half-written is visible"
    assert attempt > 2, "it was stopped between episodes and between frames of one"
    assert tree(tmp_path / "d") == undisturbed


def test_exporting_again_changes_nothing_and_needs_append(runs, tmp_path):
    export(runs[:1], tmp_path / "d", opts())
    before = tree(tmp_path / "d")
    with pytest.raises(ExportError, match="--append"):
        export(runs[:1], tmp_path / "d", opts())
    (report,) = export(runs[:1], tmp_path / "d", opts(append=True))
    assert (report.added, report.already_there) == (0, 2)
    assert tree(tmp_path / "d") == before


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_a_trajectory_is_in_one_split_and_stays_there_when_runs_are_added(pairs, share, seed):
    named = [(f"t{t}", f"run{r}") for t, r in pairs]
    split = Split(val=share, seed=seed)
    whole = assign(named, split)
    for k in range(1, len(named)):
        part = assign(named[:k], split)
        assert all(whole[t] == where for t, where in part.items())


def test_split_leaks_no_trajectory_even_between_rerendered_copies(runs, tmp_path):
    copy = tmp_path / "copy_of_run0"
    shutil.copytree(runs[0], copy)
    reports = export(
        [*runs, copy], tmp_path / "d", opts(split=parse_split("val=@copy_of_run0")), Selection(include_sim=True)
    )
    seen = {}
    for name in ("train", "val"):
        data = Dataset(tmp_path / "d" / name)
        seen[name] = {r.provenance["trajectory_id"] for r in data.episodes()}
        assert data.info["splits"] == {name: f"0:{len(data)}"}
        assert {r.provenance["split"] for r in data.episodes()} == {name}
    assert not seen["train"] & seen["val"]
    assert "run0" not in {r.provenance["run"] for r in Dataset(tmp_path / "d/train").episodes()}
    assert sum(r.episodes for r in reports) == 9  # the copy's takes are the same takes


def test_provenance_names_the_world_the_seeds_the_licence_and_the_verdict(runs, tmp_path):
    export(runs[:1], tmp_path / "d", opts())
    rows = list(Dataset(tmp_path / "d").rows())
    assert {r["retake/world"] for r in rows} == {WORLDS[0][0], WORLDS[1][0]}
    first = rows[0]
    episode = open_episode(runs[0] / "episode")
    assert first["retake/source_episode_id"] == episode.content_sha256
    assert first["retake/licence_model"] == "Apache-2.0"
    assert first["retake/verdict_probability"] == 0.97
    assert first["retake/verdict/front/action"] == 0.8
    assert first["retake/steps"] == 4
    assert first["retake/seed"] == 42
    lines = [json.loads(x) for x in (tmp_path / "d/meta/retake_provenance.jsonl").read_text("utf-8").splitlines()]
    assert [x["uid"] for x in lines] == [r["retake/uid"] for r in rows]
    assert rows[0]["tasks"] == ['pick up the “päckchen” — and say "done"']


def test_the_card_says_what_was_rejected_recorded_and_licensed(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    episode = open_episode(run / "episode")
    write_take(run, episode, 1, status="fail")
    write_take(run, episode, 2, status=None)
    export([run], tmp_path / "d", opts(), Selection(include_sim=True))
    text = (tmp_path / "d/README.md").read_text("utf-8")
    assert "the verdict is fail (action)" in text
    assert "it has no verdict" in text
    assert "Apache-2.0" in text
    assert "1 composite" not in text
    assert "| composite | 1 |" in text
    assert (tmp_path / "d/card/000.jpg").exists()
    rejected = [json.loads(x) for x in (tmp_path / "d/meta/retake_rejected.jsonl").read_text("utf-8").splitlines()]
    assert {r["take"] for r in rejected} == {"v001/front", "v002/front"}


def test_only_commercial_fails_closed(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    episode = open_episode(run / "episode")
    write_take(run, episode, 1, licence="")
    write_take(run, episode, 2, licence="CC-BY-NC-SA-4.0")
    write_take(run, episode, 3, licence="some terms of ours")
    (report,) = export([run], tmp_path / "d", opts(), Selection(only_commercial=True))
    assert report.episodes == 1
    assert [r.reason for r in report.rejected] == [
        "--only-commercial: video model: no licence is stated",
        "--only-commercial: video model: 'CC-BY-NC-SA-4.0': it forbids commercial use",
        "--only-commercial: video model: 'some terms of ours' is not among the terms known to allow commercial use",
    ]


def test_only_commercial_wants_the_assets_terms_too(tmp_path):
    run = make_run(tmp_path / "r", takes=1, header={"settings": {}})
    with pytest.raises(ExportError, match="simulated assets or recording: no licence is stated"):
        export([run], tmp_path / "d", opts(), Selection(only_commercial=True))
    (report,) = export([run], tmp_path / "d", opts(), Selection(only_commercial=True, assets_licence="own"))
    assert report.episodes == 1


def test_unjudged_takes_need_a_word_and_failed_ones_never_go(tmp_path):
    run = make_run(tmp_path / "r", takes=0)
    episode = open_episode(run / "episode")
    for world, status in enumerate((None, "unsure", "fail")):
        write_take(run, episode, world, status=status)
    write_take(run, episode, 3, name="fake/front", domain="fake", backend="fake")
    with pytest.raises(ExportError, match="nothing to export"):
        export([run], tmp_path / "d", opts())
    (report,) = export([run], tmp_path / "d", opts(), Selection(unverified=True))
    assert report.episodes == 2
    assert {r.take for r in report.rejected} == {"v002/front", "fake/front"}
    states = [r.provenance["verdict_status"] for r in Dataset(tmp_path / "d").episodes()]
    assert states == ["none", "unsure"]


def test_a_verdict_of_another_video_does_not_count(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    path = run / "verdicts/v000/front/verdict.json"
    path.write_text(path.read_text("utf-8").replace('"video_sha256": "', '"video_sha256": "f'), "utf-8")
    with pytest.raises(ExportError, match="of another video"):
        export([run], tmp_path / "d", opts())


def test_min_verdict(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    write_take(run, open_episode(run / "episode"), 1, probability=0.6)
    (report,) = export([run], tmp_path / "d", opts(), Selection(min_verdict=0.9))
    assert report.episodes == 1
    assert "below --min-verdict 0.9" in report.rejected[0].reason


def test_padding_never_reaches_the_dataset(tmp_path):
    run = make_run(tmp_path / "r", takes=0, frames=6)
    write_take(run, open_episode(run / "episode"), 0, frames=9)
    export([run], tmp_path / "d", opts())
    assert [r.length for r in Dataset(tmp_path / "d").episodes()] == [6]


def test_a_window_takes_the_states_of_its_own_frames(tmp_path):
    run = make_run(tmp_path / "r", takes=0, frames=8)
    episode = open_episode(run / "episode")
    write_take(run, episode, 0, start=3, frames=4)
    export([run], tmp_path / "d", opts(), Selection(include_sim=True))
    data = Dataset(tmp_path / "d")
    for row in data.episodes():
        found = data.columns(row)
        assert found["source.frame_index"].tolist() == [3, 4, 5, 6]
        assert found["source.time_s"].tolist() == episode.time_s[3:7].tolist()


def test_split_text():
    assert parse_split("val=0.1", 3) == Split(val=0.1, seed=3)
    assert parse_split("val=@a, b") == Split(val_runs=("a", "b"))
    for text in ("val=1.5", "test=0.1", "val=", "0.1"):
        with pytest.raises(InputError, match="val=SHARE"):
            parse_split(text)
