# SPDX-License-Identifier: Apache-2.0
"""What a job of the worker may ask for, to the last value that is allowed, and what makes two jobs one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from worker_support import Place, make_place, specs

from retake.core.errors import InputError
from retake.core.wire import VariantJob, VariantRequest
from retake.worker.content import MAX_TEXT, Hasher, Inputs, content_hash, input_hashes, prepare
from retake.worker.roots import Roots

TAKE = {
    "seed": (0, 2**63 - 1), "frames": (0, 10**9), "start": (0, 10**9),
}  # fmt: skip
JOB = {"priority": (-1_000_000, 1_000_000), "max_attempts": (1, 100)}
VARIANT = {"index": (0, 10**9), "rerolls": (0, 100), "seed": (0, 2**63 - 1)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("content"))


def prepared(place: Place, job):
    return prepare(job, Inputs(Roots.of([place.root])))


def variant(place: Place, **change) -> VariantJob:
    request = VariantRequest(place.run / "episode", "front", {"name": "kitchen"}, **change)
    return VariantJob(request, place.run / "variants" / "new")


@pytest.mark.parametrize("name", [*TAKE, *JOB, *(f"variant.{name}" for name in VARIANT), "prompt"])
def test_a_value_is_taken_up_to_its_bounds_and_no_further(place, name):
    def made(value):
        if name in JOB:
            return replace(place.job(), **{name: value})
        if name.startswith("variant."):
            return variant(place, **{name.partition(".")[2]: value})
        job = place.job()
        return replace(job, request=replace(job.request, **{name: value}))

    if name == "prompt":
        fine, wrong = ["x" * MAX_TEXT, ""], ["x" * (MAX_TEXT + 1)]
    else:
        low, high = {**TAKE, **JOB, **{f"variant.{n}": bounds for n, bounds in VARIANT.items()}}[name]
        fine, wrong = [low, high], [low - 1, *([] if high == 10**9 else [high + 1])]
    for value in fine:
        prepared(place, made(value))
    for value in wrong:
        with pytest.raises(InputError, match=name.partition(".")[2] or name):
            prepared(place, made(value))


def test_paths_become_real_ones_of_the_right_kind(place, tmp_path):
    link = place.root / "link"
    if not link.exists():
        os.symlink(place.run, link)
    job = place.job()
    names = ("episode", "skeleton", "variant")
    linked = replace(
        job, output=link / "takes" / "x",
        request=replace(job.request, **{n: link / getattr(job.request, n).relative_to(place.run) for n in names}),
    )  # fmt: skip
    done = prepared(place, linked)
    assert {n: getattr(done.request, n) for n in names} == {n: getattr(job.request, n) for n in names}
    assert done.output == place.run / "takes" / "x"
    for one, other in (("episode", "skeleton"), ("skeleton", "variant"), ("variant", "episode")):
        with pytest.raises(InputError, match=one):
            prepared(place, replace(job, request=replace(job.request, **{one: getattr(job.request, other)})))


def test_a_result_goes_into_a_folder_of_its_own(place):
    job, run = place.job(), place.run
    for inside in (run / "episode", run / "episode" / "deep" / "er", run / "skeleton" / "front" / "x"):
        with pytest.raises(InputError, match="inside its own input"):
            prepared(place, replace(job, output=inside))
    with pytest.raises(InputError, match="is a root itself"):
        prepared(place, replace(job, output=place.root))
    assert prepared(place, replace(job, output=run / "episode2")).output == run / "episode2"
    (run / "file.txt").write_text("1")
    with pytest.raises(InputError, match="is a file"):
        prepared(place, replace(job, output=run / "file.txt"))
    folder = run / "takes" / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    for name, fine in ((".lock", True), ("take.mp4", True), ("notes.txt", False), ("take.json", True)):
        (folder / name).write_text("{}")
        if fine:
            prepared(place, replace(job, output=folder))
        else:
            with pytest.raises(InputError, match=r"holds files that are no take"):
                prepared(place, replace(job, output=folder))


def test_a_record_states_one_text_or_a_hash_of_several(tmp_path):
    path, hasher = tmp_path / "record.json", Hasher()

    def told(value, *keys):
        path.write_text(json.dumps(value))
        return Hasher().stated(path, *keys)

    assert told({"sha256": "abc"}, "sha256") == "abc"
    own = told({"sha256": ""}, "sha256")
    assert own == Hasher().file(path)
    assert told({"sha256": 5}, "sha256") == Hasher().file(path) != own
    assert told({"a": 1, "b": 2, "c": 3}, "a", "b") == told({"c": 4, "b": 2, "a": 1}, "a", "b")
    assert told({"a": 1, "b": 2}, "a", "b") != told({"a": 1, "b": 3}, "a", "b")
    for text in ("[1]", "{", ""):
        path.write_text(text)
        with pytest.raises(InputError, match="not readable JSON"):
            hasher.stated(path, "a")
    with pytest.raises(InputError, match="cannot be read"):
        hasher.file(tmp_path / "nowhere")


def test_a_file_is_read_again_when_it_changed_and_only_then(tmp_path, monkeypatch):
    path, hasher = tmp_path / "f", Hasher()
    path.write_bytes(b"one")
    first = hasher.file(path)
    monkeypatch.setattr("retake.worker.content.sha256_file", lambda p: "read again")
    assert hasher.file(path) == first
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert hasher.file(path) == "read again"
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    monkeypatch.setattr("retake.worker.content.sha256_file", lambda p: "more")
    path.write_bytes(b"longer")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hasher.file(path) == "more"


def test_jobs_are_one_by_what_they_ask_not_by_where_it_lies(tmp_path):
    places = [make_place(tmp_path / name) for name in ("a", "b")]
    jobs = [prepared(place, place.job(seed=5)) for place in places]
    spec, hasher = specs()["sleepy"], Hasher()
    one, other = (content_hash(job, spec, hasher) for job in jobs)
    assert one == other
    assert content_hash(replace(jobs[0], output=tmp_path / "a/run/takes/z", priority=4), spec, hasher) == one
    assert content_hash(jobs[0], specs()["heavy"], hasher) != one
    assert content_hash(replace(jobs[0], request=replace(jobs[0].request, seed=6)), spec, hasher) != one
    with pytest.raises(InputError, match="JSON cannot carry"):
        content_hash(replace(jobs[0], request=replace(jobs[0].request, settings={"x": float("nan")})), spec, hasher)
    for change in ("skeleton", "frame", "world"):
        run: Path = places[1].run
        if change == "skeleton":
            file = next((run / "skeleton" / "front").glob("*.json"))
            file.write_text(json.dumps({**json.loads(file.read_text()), "sha256": "other"}))
        if change == "frame":
            (run / "variants/v0/front/frame.png").write_bytes(b"picture")
        if change == "world":
            file = run / "variants/v0/front/variant.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), "seed": 77}))
        now = content_hash(jobs[1], spec, Hasher())
        assert now != other
        other = now
    assert set(input_hashes(jobs[0], hasher)) == {"episode", "skeleton", "first_frame", "world"}
    assert set(input_hashes(prepared(places[0], variant(places[0])), hasher)) == {"episode"}
