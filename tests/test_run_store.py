# SPDX-License-Identifier: Apache-2.0
"""Run folders: one writer, no foreign files touched, manifests checked; atomic files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import InputError, RunError
from retake.core.files import atomic_directory, canonical_json, read_json, sha256_json, write_bytes, write_json
from retake.core.run_store import (
    LOCK,
    create_run,
    episode_at,
    held_out,
    locate,
    open_run,
    remove_leftovers,
    tidy,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(json_values)
def test_canonical_json_is_one_form_per_value(value):
    import json

    assert json.loads(canonical_json(value)) == value
    assert sha256_json(json.loads(json.dumps(value))) == sha256_json(value)


def test_paths_with_spaces_and_unicode(tmp_path):
    run = create_run(tmp_path / "läufe und so" / "run №1 — 走", {"a": 1})
    assert open_run(run.path).manifest()["config"] == {"a": 1}
    run.finish_stage("capture", inputs="x")
    assert run.stage("capture") == {"inputs": "x"}


def test_foreign_folders_are_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run's"):
        create_run(tmp_path, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run.json is missing"),
        ("{", "not readable JSON"),
        ('{"schema": "retake.run/9"}', "retake.run/9"),
        ("[]", "'list'"),
    ],
)
def test_bad_manifests_are_refused_in_words(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        open_run(tmp_path)


def test_two_runs_into_one_folder_and_a_crash_releases_it(tmp_path):
    run = create_run(tmp_path / "r", {})
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from retake.core.run_store import open_run\n"
            "with open_run(sys.argv[1]).locked(): print('held', flush=True); time.sleep(60)",
            str(run.path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(RunError, match="written by another process"), run.locked():
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with run.locked():
        pass


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(target, b"new")
    assert read_json(target) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_atomic_directories_appear_whole_or_not_at_all(tmp_path):
    def fail() -> None:
        with atomic_directory(tmp_path / "d") as folder:
            (folder / "x").write_text("1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "d" / "x").read_text() == "1"


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    for name in (".episode.tmp", ".x.abc.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".take.1.tmp.mp4").write_text("")
    (tmp_path / ".keep").write_text("")
    (tmp_path / "tmp.txt").write_text("")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == [".keep", "tmp.txt"]


def test_what_belonged_to_a_replaced_episode_is_set_aside_and_kept(tmp_path):
    run = create_run(tmp_path / "r", {})
    for _ in range(2):
        run.take_folder("a").mkdir(parents=True)
        (run.take_folder("a") / "take.mp4").write_bytes(b"x")
        run.set_aside("0123")
    run.set_aside("0123")
    kept = sorted(p.relative_to(run.path).as_posix() for p in run.path.rglob("take.mp4"))
    assert kept == ["superseded/0123-2/takes/a/take.mp4", "superseded/0123/takes/a/take.mp4"]


def test_a_run_of_another_episode_is_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    run = create_run(tmp_path / "r", {}, tmp_path / "one")
    assert run.episode_is_elsewhere
    with pytest.raises(RunError, match="is the run of"):
        create_run(tmp_path / "r", {}, tmp_path / "two")
    assert create_run(tmp_path / "r", {}, tmp_path / "one").episode == tmp_path / "one"
    (tmp_path / "one" / "episode.json").touch()
    assert episode_at(tmp_path / "r") == episode_at(tmp_path / "one") == tmp_path / "one"
    own = create_run(tmp_path / "own", {})
    assert episode_at(own.path) == own.captured_episode
    assert not own.episode_is_elsewhere


@pytest.mark.parametrize("key", ["config", "stages"])
def test_a_manifest_with_a_list_for_a_mapping_is_refused(tmp_path, key):
    run = create_run(tmp_path / "r", {})
    run.update(**{key: [1]})
    with pytest.raises(RunError, match=f"'{key}' is"):
        run.manifest()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_killed_writer_that_nobody_reaps_is_gone_and_a_later_process_with_its_number_is_not_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; from retake.core.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'take.mp4') as t: print(t.name, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    remove_leftovers(tmp_path)
    assert (tmp_path / name).exists()  # its writer lives
    _, pid, start = name.split(".")[2].split("-")
    assert int(pid) == process.pid
    reused = tmp_path / name.replace(f"{pid}-{start}", f"{pid}-{int(start) - 1}")
    reused.write_text("")
    remove_leftovers(tmp_path)
    assert not reused.exists()
    assert (tmp_path / name).exists()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
    process.communicate()


def failing_in(folder, *made):
    """A request that makes files in its folder and fails."""
    with held_out(folder):
        for name in (LOCK, *made):
            (folder / name).touch()
        raise InputError("nothing came of it")


@pytest.mark.parametrize("theirs", [(), ("thesis.txt",)])
def test_a_request_that_fails_leaves_a_users_folder_as_it_was(tmp_path, theirs):
    mine = tmp_path / "documents"
    mine.mkdir()
    for name in theirs:
        (mine / name).write_text("mine")
    with pytest.raises(InputError):
        failing_in(mine)
    assert [entry.name for entry in mine.iterdir()] == list(theirs)


def test_a_request_that_fails_takes_the_folders_that_it_made_with_it(tmp_path):
    with pytest.raises(InputError):
        failing_in(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError):
        failing_in(tmp_path / "a" / "b", "rollout.json")
    assert [entry.name for entry in (tmp_path / "a" / "b").iterdir()] == ["rollout.json"]


def test_a_leftover_that_cannot_be_removed_hinders_nobody(tmp_path, monkeypatch):
    for name in (".a.tmp", ".b.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".c.tmp").write_text("")
    real = os.rmdir

    def stuck(path, *args, **options):
        if str(path).endswith(".a.tmp"):
            raise PermissionError("in use")
        real(path, *args, **options)

    monkeypatch.setattr(os, "rmdir", stuck)
    remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".a.tmp"]
    remove_leftovers(tmp_path / "none")


def test_leftovers_are_cleared_in_every_folder_of_a_run(tmp_path):
    run = create_run(tmp_path / "r", {})
    places = [run.path, run.report_folder, run.skeletons_folder]
    for stage in (run.variants_folder, run.takes_folder, run.verdicts_folder):
        places += [stage, stage / "w", stage / "w" / "front"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / ".x.tmp").write_text("")
        (place / "kept").write_text("")
    tidy(run)
    assert [p for place in places for p in place.glob(".x.tmp")] == []
    assert all((place / "kept").exists() for place in places)


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_a_lock_is_for_everybody_who_may_write_to_the_folder(tmp_path):
    before = os.umask(0o002)
    try:
        with create_run(tmp_path / "r", {}).locked():
            assert (tmp_path / "r" / LOCK).stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_a_path_that_cannot_be_a_run_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for path, told in (
        (tmp_path / "file", "is a file; a run is a folder"), (tmp_path / "file" / "r", "cannot be made: .*file is a file"),
        (tmp_path / "link", "is a link to .*gone, which does not exist"),
    ):  # fmt: skip
        with pytest.raises(RunError, match=told):
            create_run(path, {})
    with pytest.raises(RunError, match="null character"):
        locate(str(tmp_path) + "/a\0b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".run.json.x.tmp").write_text("")
    (tmp_path / "mine" / LOCK).write_text("")
    assert create_run(tmp_path / "mine", {}).manifest()["name"] == "mine", (
        "what a killed process left of a manifest is ours"
    )
