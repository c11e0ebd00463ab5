# SPDX-License-Identifier: Apache-2.0
"""Bad input and bad luck: a clear error, nothing half-written, and the work that is done is kept."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from export_runs import make_run, tree, write_take

from retake.core.episode import open_episode
from retake.core.errors import EpisodeError, ExportError, InputError, MissingDependencyError
from retake.core.export import ExportOptions, Selection, VideoOptions, cli, encode, export
from retake.core.export import staging as staging_module
from retake.core.export.collect import plan
from retake.core.export.reader import Dataset
from retake.core.export.split import parse_split
from retake.core.files import write_json

pytest.importorskip("pyarrow")
H264 = VideoOptions.of("h264")
TESTS = Path(__file__).parent
FULL = os.environ.get("RETAKE_FULL") == "1"


def attempt(runs, out, match, *, selection=None, error=ExportError, **options):
    before = tree(out) if out.exists() else None
    with pytest.raises(error, match=match):
        export(runs, out, ExportOptions(video=H264, **options), selection)
    assert (tree(out) if out.exists() else None) == before, "nothing half-written"


def test_mixed_fps(tmp_path):
    runs = [make_run(tmp_path / "a", takes=1), make_run(tmp_path / "b", takes=1, fps=15, seed=1)]
    attempt(runs, tmp_path / "d", "runs a and b cannot share a dataset: fps: a has 10, b 15")


def test_fractional_fps(tmp_path):
    attempt(
        [make_run(tmp_path / "a", takes=1, fps=14.9254)],
        tmp_path / "d",
        "14.9254 fps; LeRobot's formats need an integer",
    )


def test_a_camera_that_one_take_lacks(tmp_path):
    run = make_run(tmp_path / "a", takes=2, cameras=("front", "wrist"))
    for path in (run / "takes/v001/wrist").iterdir():
        path.unlink()
    (report,) = export([run], tmp_path / "w", ExportOptions(video=H264))
    assert (report.episodes, [r.take for r in report.rejected]) == (1, ["v001/front", "v001/wrist"])
    (report,) = export([run], tmp_path / "d", ExportOptions(video=H264), Selection(cameras=("front",)))
    assert report.episodes == 2


@pytest.mark.parametrize("torn", ["{", "[]", '{"camera": 3}'])
def test_an_unreadable_take_is_named_once_whatever_its_world_lacks_by_it(tmp_path, torn):
    run = make_run(tmp_path / "a", takes=2, cameras=("front", "wrist"))
    (run / "takes/v001/wrist/take.json").write_text(torn, "utf-8")
    found = plan([run])
    assert [item.provenance["take_id"] for item in found.items] == ["v000/front+v000/wrist"]
    assert sorted(one.take for one in found.rejected) == ["v001/front", "v001/wrist"]
    (own,) = [one.reason for one in found.rejected if one.take == "v001/wrist"]
    assert own in next(one.reason for one in found.rejected if one.take == "v001/front")


def test_other_cameras_in_another_run(tmp_path):
    runs = [make_run(tmp_path / "a", takes=1), make_run(tmp_path / "b", takes=1, cameras=("side",), seed=1)]
    attempt(runs, tmp_path / "d", "nothing to export.*camera side: .*2 cameras were asked for .front, side.; --camera")


def test_rejected_takes_only(tmp_path):
    attempt(
        [make_run(tmp_path / "a", takes=2, status="fail")], tmp_path / "d", "nothing to export: 2 takes were rejected"
    )


def test_unicode_and_quotes_survive(tmp_path):
    run = make_run(tmp_path / "ünï “run”", takes=1)
    export([run], tmp_path / "dåta set", ExportOptions(video=H264))
    row = next(Dataset(tmp_path / "dåta set").episodes())
    assert row.task == 'pick up the “päckchen” — and say "done"'
    assert row.provenance["first_frame_prompt"] == 'a bun in a warehouse, "sharp"'
    assert row.provenance["run"] == "ünï “run”"


def test_an_existing_folder_with_another_schema(tmp_path):
    out = tmp_path / "d"
    export([make_run(tmp_path / "a", takes=1)], out, ExportOptions(video=H264))
    other = make_run(tmp_path / "b", takes=1, seed=1, size=(96, 64))
    attempt([other], out, "front: the dataset has 64x64, the new episodes 96x64", append=True)
    third = make_run(tmp_path / "c", takes=1, seed=2)
    with pytest.raises(ExportError, match="video crf: it has 23, asked is 30"):
        export([third], out, ExportOptions(video=VideoOptions.of("h264", 30), append=True))
    with pytest.raises(ExportError, match=r"format: it is lerobot-v3, asked is lerobot-v2\.1"):
        export([third], out, ExportOptions("lerobot-v2.1", H264, append=True))


def test_foreign_folders_and_files_are_never_touched(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    attempt([run], tmp_path / "mine", "is not empty and no dataset of Retake's", append=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="is a file"):
        export([run], tmp_path / "file", ExportOptions(video=H264))
    write_json(tmp_path / "new/meta/retake.json", {"schema": "retake.dataset/9"})
    attempt([run], tmp_path / "new", "retake.dataset/9", append=True)


def test_no_run(tmp_path):
    attempt([tmp_path / "nothing"], tmp_path / "d", "does not exist; expected a run folder", error=InputError)
    (tmp_path / "empty").mkdir()
    attempt([tmp_path / "empty"], tmp_path / "d", "holds no episode/", error=InputError)
    attempt([], tmp_path / "d", "no run folder was given", error=InputError)


def test_a_changed_take_is_noticed(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    video = run / "takes/v000/front/take.mp4"
    data = bytearray(video.read_bytes())
    data[-20] ^= 1
    video.write_bytes(data)
    attempt([run], tmp_path / "d", "was changed after it was made")
    video.unlink()
    attempt([run], tmp_path / "d", "take.mp4 is missing")


def test_a_damaged_episode_is_noticed(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    state = run / "episode/state.bin"
    state.write_bytes(state.read_bytes()[:-8])
    attempt([run], tmp_path / "d", "state.bin", error=EpisodeError)


def test_a_take_of_another_episode_is_rejected(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    path = run / "takes/v000/front/take.json"
    data = json.loads(path.read_text("utf-8"))
    write_json(path, {**data, "inputs": {**data["inputs"], "episode": "0" * 64}})
    attempt([run], tmp_path / "d", "made from another episode")


def test_a_take_with_too_few_frames(tmp_path):
    run = make_run(tmp_path / "a", takes=0)
    identity = write_take(run, open_episode(run / "episode"), 0, frames=5)
    path = run / "takes" / identity / "take.json"
    write_json(path, {**json.loads(path.read_text("utf-8")), "frames": 8})
    attempt([run], tmp_path / "d", "ends after 5 frames|gave 5 frames")


def test_recordings_without_targets_need_a_word(tmp_path):
    run = make_run(tmp_path / "a", takes=1, header={"joint_channels": ()})
    attempt([run], tmp_path / "d", "no true actions; `--action next-state`")
    export([run], tmp_path / "d", ExportOptions(video=H264), Selection(action_source="next-state"))
    data = Dataset(tmp_path / "d")
    row = next(data.episodes())
    found = data.columns(row)
    assert (found["action"][:-1] == found["observation.state"][1:]).all()
    assert row.provenance["action_source"] == "next-state"


def test_sizes(tmp_path):
    run = make_run(tmp_path / "a", takes=1, size=(65, 47))
    attempt([run], tmp_path / "d", "65x47 is odd.*--size 66x48", error=InputError)
    tiny = make_run(tmp_path / "b", takes=1, size=(32, 32))
    with pytest.raises(InputError, match="too small for AV1"):
        export([tiny], tmp_path / "d")
    export([run], tmp_path / "d", ExportOptions(video=H264), Selection(size=(66, 48)))
    write_take(tiny, open_episode(tiny / "episode"), 1, size=(48, 32))
    attempt([tiny], tmp_path / "e", r"several sizes: 32x32 .*48x32 .*--size WxH")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / f"r{i}", takes=2, seed=i) for i in range(2)]
    export(runs, tmp_path / "undisturbed", ExportOptions(video=H264))
    export(runs[:1], tmp_path / "d", ExportOptions(video=H264))
    before = tree(tmp_path / "d")
    real, calls = os.replace, iter(range(1000))

    def full(source, target):
        if next(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ExportError, match=r"the disk is full .*d is as it was; the same command continues"):
        export(runs, tmp_path / "d", ExportOptions(video=H264, append=True))
    assert tree(tmp_path / "d") == before
    export(runs, tmp_path / "d", ExportOptions(video=H264, append=True))
    assert tree(tmp_path / "d") == tree(tmp_path / "undisturbed")


def test_an_interrupted_export_of_something_else_is_not_mixed_in(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / f"r{i}", takes=1, seed=i) for i in range(2)]
    monkeypatch.setattr(
        staging_module.Staging, "finish", lambda *a: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error"))
    )
    with pytest.raises(ExportError, match="I/O error"):
        export(runs[:1], tmp_path / "d", ExportOptions(video=H264))
    monkeypatch.undo()
    attempt(runs, tmp_path / "d", "another export to .* was interrupted.*--restart")
    (report,) = export(runs, tmp_path / "d", ExportOptions(video=H264, restart=True))
    assert report.episodes == 2


def test_two_exports_into_one_folder(tmp_path):
    run = make_run(tmp_path / "r", takes=1)
    with staging_module._locked(tmp_path / "d"):
        attempt([run], tmp_path / "d", "another process is exporting")


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[export\]' in Retake's checkout"):
        encode.require("pyarrow")


def test_every_crash_point_of_the_replacement_recovers(tmp_path, monkeypatch):
    """Killed before, between or after the two renames, the next call ends with the new dataset."""
    runs = [make_run(tmp_path / f"r{i}", takes=1, seed=i) for i in range(2)]
    export(runs, tmp_path / "whole", ExportOptions(video=H264))
    wanted = tree(tmp_path / "whole")
    for crash in range(3):
        out = tmp_path / f"d{crash}"
        export(runs[:1], out, ExportOptions(video=H264))
        real, calls = os.rename, iter(range(10))

        def killed(a, b, real=real, calls=calls, crash=crash):
            if Path(a).name != "sample" and next(calls) == crash:
                raise KeyboardInterrupt
            return real(a, b)

        monkeypatch.setattr(os, "rename", killed)
        try:
            export(runs, out, ExportOptions(video=H264, append=True))
        except BaseException:
            monkeypatch.undo()
        monkeypatch.undo()
        (report,) = export(runs, out, ExportOptions(video=H264, append=True))
        assert report.episodes == 2
        assert tree(out) == wanted


KILLS = 30 if os.environ.get("RETAKE_FULL") == "1" else 3


def test_kill_9_anywhere_and_resume_gives_the_same_bytes(tmp_path):
    runs = [make_run(tmp_path / f"r{i}", takes=2, seed=i) for i in range(3)]
    export(runs, tmp_path / "whole", ExportOptions(video=H264))
    wanted = tree(tmp_path / "whole")
    out = tmp_path / "d"
    command = [
        sys.executable,
        "-c",
        "import sys; from retake.core.export.cli import main; sys.exit(main(sys.argv[1:]))",
    ]
    command += [*map(str, runs), "--out", str(out), "--codec", "h264", "--quiet"]
    draw = random.Random(1)
    started = time.monotonic()
    kills = 0
    while kills < KILLS:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if kills == 0:
            while not staging_module.staging_path(out).exists() and process.poll() is None:
                time.sleep(0.01)
            warm_s = time.monotonic() - started
        time.sleep(warm_s * draw.uniform(0.0, 0.3) if kills == 0 else warm_s * draw.uniform(0.6, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        if out.exists():
            assert tree(out) == wanted
            for path in sorted(out.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            out.rmdir()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert tree(out) == wanted


def test_cli(tmp_path, capsys):
    run = make_run(tmp_path / "r", takes=2)
    write_take(run, open_episode(run / "episode"), 2, status="fail")
    assert cli.main([str(run), "--out", str(tmp_path / "d"), "--codec", "h264", "--include-sim", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "3 episodes, 24 frames (2 composite, 1 sim)" in text
    assert "r/v002/front: the verdict is fail (action)" in text
    for bad in (["--size", "12"], ["--split", "x"]):
        with pytest.raises(InputError, match="expected"):
            cli.main([str(run), "--out", str(tmp_path / "e"), *bad])


@pytest.mark.parametrize(
    "wrong", [{"min_verdict": float("nan")}, {"min_verdict": 95.0}, {"min_verdict": -0.1}, {"window": -5}]
)
def test_numbers_that_would_let_everything_through_are_refused(wrong):
    with pytest.raises(InputError, match="expected a"):
        Selection(**wrong)


def test_a_camera_nobody_has_and_runs_without_takes(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    typo = Selection(cameras=("frnt",))
    attempt(
        [run], tmp_path / "d", "unknown camera of these runs 'frnt'; valid: front", selection=typo, error=InputError
    )
    attempt(
        [make_run(tmp_path / "b", takes=0)], tmp_path / "d", "the runs hold no takes; `retake takes RUN` makes them"
    )


def changed(path, **values):
    data = json.loads(path.read_text("utf-8"))
    write_json(path, {k: v for k, v in {**data, **values}.items() if v is not ...})


def test_what_nothing_vouches_for_is_no_training_data(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    sidecar, verdict = run / "takes/v000/front/take.json", run / "verdicts/v000/front/verdict.json"
    variant = run / "variants/000/front/variant.json"
    for path, change, message in (
        (verdict, {"video_sha256": "f" * 64}, "its verdict is of another video"),
        (verdict, {"video_sha256": ...}, "its verdict cannot be read.*video_sha256 is missing"),
        (verdict, {"episode_sha256": "f" * 64}, "its verdict is against another episode"),
        (sidecar, {"video_sha256": ...}, "video_sha256 is missing"),
        (variant, {"frame_sha256": "f" * 64}, "its first frame is not the one its variant holds now"),
        (variant, {"frame_sha256": ...}, "its variant cannot be read.*frame_sha256 is missing"),
    ):
        before = path.read_bytes()
        changed(path, **change)
        attempt([run], tmp_path / "d", message)
        path.write_bytes(before)
    # A first frame of unknown origin has no licence either.
    shutil.rmtree(variant.parent)
    export([run], tmp_path / "d", ExportOptions(video=H264))
    attempt([run], tmp_path / "e", "its variant is gone", selection=Selection(only_commercial=True))


def test_a_verdict_of_another_video_lends_its_numbers_to_nothing(tmp_path):
    run = make_run(tmp_path / "a", takes=1)
    changed(run / "verdicts/v000/front/verdict.json", video_sha256="0" * 64)
    wanted = Selection(unverified=True, min_verdict=0.5)
    attempt([run], tmp_path / "d", "verdict probability None is below", selection=wanted)
    export([run], tmp_path / "d", ExportOptions(video=H264), Selection(unverified=True))
    (row,) = Dataset(tmp_path / "d").episodes()
    assert (row.provenance["accepted"], row.provenance["verdict_status"]) == (False, "none")
    assert row.provenance["verdict_probability"] is None


def test_only_commercial_does_not_add_to_what_is_not(tmp_path):
    terms = ("CC-BY-NC-4.0", "MIT")
    runs = [make_run(tmp_path / "ab"[i], takes=1, seed=i, licence=terms[i]) for i in range(2)]
    export(runs[:1], tmp_path / "d", ExportOptions(video=H264))
    only = Selection(only_commercial=True)
    attempt(runs[1:], tmp_path / "d", "already holds a/v000/front, whose licence_model", selection=only, append=True)
    export(runs[1:], tmp_path / "e", ExportOptions(video=H264), only)
    third = make_run(tmp_path / "c", takes=1, seed=2)
    (report,) = export([third], tmp_path / "e", ExportOptions(video=H264, append=True), only)
    assert report.episodes == 2


WRONG = (None, 3, -1, 1e400, "x", [], [1], {}, {"a": 1}, True, "\ud800")


def test_json_of_any_kind_is_explained_and_never_a_traceback(tmp_path):
    """Every value of every sidecar replaced by values of every kind: the export works or says which file is wrong."""
    run, draw = make_run(tmp_path / "a", takes=1), random.Random(5)
    sidecars = [
        *run.glob("takes/*/*/take.json"),
        *run.glob("variants/*/*/variant.json"),
        *run.glob("verdicts/*/*/verdict.json"),
    ]
    cases = [(p, key, value) for p in sidecars for key in json.loads(p.read_text("utf-8")) for value in WRONG]
    refused = exported = 0
    for path, key, value in cases if FULL else draw.sample(cases, 120):
        before = path.read_bytes()
        path.write_text(json.dumps({**json.loads(before), key: value}), "utf-8")
        selection = Selection(only_commercial=draw.random() < 0.5, unverified=draw.random() < 0.5)
        try:
            found = plan([run], selection)
        except (ExportError, InputError):
            refused += 1
        else:
            exported += 1
            for item in found.items:
                json.dumps([item.task, item.provenance], ensure_ascii=False, allow_nan=False).encode()
        finally:
            path.write_bytes(before)
    assert exported > 20
    assert refused > 20
    for path in sidecars:
        before = path.read_bytes()
        for text in ("[]", "3", "null", "{", ""):
            path.write_text(text, "utf-8")
            attempt([run], tmp_path / "d", path.name)
        path.write_bytes(before)


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    runs = [make_run(tmp_path / name, takes=1, seed=i) for i, name in enumerate("ab")]
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk/d")
    export(runs[:1], tmp_path / "link", ExportOptions(video=H264))
    export(runs, tmp_path / "link", ExportOptions(video=H264, append=True))
    assert (tmp_path / "link").is_symlink()
    assert len(Dataset(tmp_path / "disk/d")) == 2


def test_sigterm_stops_between_frames_and_the_same_command_goes_on(tmp_path):
    """What the panel's Cancel sends."""
    run = make_run(tmp_path / "r", takes=2, frames=60)
    command = [sys.executable, "-m", "retake.core.cli", "export", str(run), "--out", str(tmp_path / "d")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline().startswith("Export: 0/2")
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on from here" in said
    assert not (tmp_path / "d").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(Dataset(tmp_path / "d")) == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_split_of_one_trajectory_is_refused_before_anything_is_encoded(tmp_path, monkeypatch):
    from export_runs import make_run

    from retake.core.export import api

    make_run(tmp_path / "one", takes=3)
    monkeypatch.setattr(api, "write_dataset", lambda *a, **k: pytest.fail("it was encoded"))
    for text in ("val=0.1", "val=0.9", "val=@one"):
        with pytest.raises(InputError, match="needs two trajectories at least"):
            api.export([tmp_path / "one"], tmp_path / "d", api.ExportOptions(split=parse_split(text)))
    make_run(tmp_path / "two", takes=1, seed=1)
    with pytest.raises(ExportError, match=r"the split leaves (train|val) empty"):
        api.export(
            [tmp_path / "one", tmp_path / "two"], tmp_path / "d", api.ExportOptions(split=parse_split("val=0.000001"))
        )
    assert not (tmp_path / "d").exists()


def test_one_trajectory_may_join_a_split_that_is_there(tmp_path):
    from export_runs import make_run

    from retake.core.export import api

    for seed, name in enumerate(("one", "two", "three")):
        make_run(tmp_path / name, takes=1, seed=seed, frames=4)
    held = api.ExportOptions(split=parse_split("val=@two"))
    api.export([tmp_path / "one", tmp_path / "two"], tmp_path / "d", held)
    more = api.ExportOptions(split=parse_split("val=@three"), append=True)
    (report,) = api.export([tmp_path / "three"], tmp_path / "d", more)
    assert (report.out.name, report.added) == ("val", 1)


@pytest.mark.parametrize(
    "said", [{"frames": 0}, {"frames": -1}, {"start": -1}, {"size": [0, 0]}, {"size": [64, -2]}, {"fps": 0}]
)
def test_a_take_with_impossible_numbers_is_rejected_and_holds_up_no_other(tmp_path, said):
    run = make_run(tmp_path / "r", takes=2, frames=3)
    record = run / "takes/v000/front/take.json"
    write_json(record, {**json.loads(record.read_text()), **said})
    made = plan([run])
    assert [item.provenance["take_id"] for item in made.items] == ["v001/front"]
    assert [(one.take, "no video is like that" in one.reason) for one in made.rejected] == [("v000/front", True)]


def test_a_take_beyond_the_end_of_its_episode_is_rejected_and_holds_up_no_other(tmp_path):
    run = make_run(tmp_path / "r", takes=2, frames=3)
    record = run / "takes/v000/front/take.json"
    write_json(record, {**json.loads(record.read_text()), "start": 3})
    made = plan([run], Selection(include_sim=True))
    assert [item.provenance.get("take_id") for item in made.items] == [None, "v001/front"]
    assert [(one.take, one.reason) for one in made.rejected] == [
        ("v000/front", "it starts at frame 3; its episode has 3 frames")
    ]


@pytest.mark.parametrize(("words", "told"), [
    ("--camera front front", "--camera front front: a camera is named twice"),
    ("--format oscar --codec lossless", "for LeRobot's formats; oscar stores"),
    ("--format hdf5-isaaclab --gop 4", "for LeRobot's formats; hdf5-isaaclab stores"),
    ("--format oscar --crf 0", "for LeRobot's formats"), ("--isaaclab 2", "for --format hdf5-isaaclab; asked is lerobot-v3"),
    ("--env-name Lift", "for --format hdf5-isaaclab"), ("--env-file e.yaml --format oscar", "asked is oscar"),
])  # fmt: skip
def test_options_that_would_change_nothing_are_refused(tmp_path, words, told):
    run = make_run(tmp_path / "r", takes=1, frames=3)
    with pytest.raises(InputError, match=told):
        cli.main([str(run), "--out", str(tmp_path / "d"), *words.split()])
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
