# SPDX-License-Identifier: Apache-2.0
"""The queue at its limits: many jobs at once, long texts, known jobs among new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_worker_store import prepared

from retake.core.run_layout import RECORD
from retake.worker.store import ConflictError, Store, _whole


def job_at(folder: Path, number: int):
    return prepared(number, output=str(folder / f"take{number}"))


def test_known_jobs_hide_no_new_one_after_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second, third = (job_at(tmp_path, k) for k in range(3))
    assert store.submit([first]) == [(first.id, True)]
    assert store.submit([first, second, third]) == [(first.id, False), (second.id, True), (third.id, True)]
    assert store.counts()["queued"] == 3


@pytest.mark.parametrize(("state", "whole", "again"), [
    ("queued", False, False), ("running", False, False), ("failed", True, True), ("cancelled", True, True),
    ("quarantined", False, False), ("done", True, False), ("done", False, True),
])  # fmt: skip
def test_asking_again_is_asking_where_nothing_is_there(tmp_path: Path, state: str, whole: bool, again: bool) -> None:
    store, job = Store(tmp_path), job_at(tmp_path, 1)
    store.submit([job])
    if state != "queued":
        store.start(job.id)
    if state not in ("queued", "running"):
        store.finish(job.id, state, error="odd")
    if whole:
        job.job.output.mkdir()
        (job.job.output / RECORD["take"]).write_text("{}")
    assert _whole(job.job) == whole
    changed = replace(job, job=replace(job.job, priority=7, max_attempts=9))
    assert store.submit([changed]) == [(job.id, again)]
    record = store.get(job.id)
    assert record.state == ("queued" if again else state)
    if again:
        assert (record.priority, record.max_attempts, record.attempts, record.error) == (7, 9, 0, "")


def test_hundreds_of_jobs_are_told_in_the_order_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [job_id for job_id, _ in store.submit([job_at(tmp_path, k) for k in range(1101)])]
    asked = [*ids[::-1], "nobody"]
    assert [record.id for record in store.many(asked)] == ids[::-1]
    assert [record.id for record in store.many(ids[:500])] == ids[:500]
    assert len(store.page(limit=5000)) == 1000
    assert len(store.page()) == 100
    assert [record.id for record in store.queued()] == ids[:50]
    assert store.many([]) == []


def test_texts_are_cut_where_they_end(tmp_path: Path) -> None:
    store, job = Store(tmp_path), job_at(tmp_path, 1)
    store.submit([job])
    store.add_log(job.id, "x" * 3000)
    assert store.log_of(job.id).count("x") == 2000
    for k in range(400):
        store.add_log(job.id, f"line {k}.")
    lines = store.log_of(job.id).splitlines()
    assert len(lines) == 400
    assert lines[0].endswith("line 0.")
    store.start(job.id)
    store.back(job.id, error="y" * 5000)
    record = store.get(job.id)
    assert (len(record.error), record.attempts, record.state) == (4000, 1, "queued")
    store.start(job.id)
    store.back(job.id, error="z", count_attempt=False)
    assert store.get(job.id).attempts == 1
    store.start(job.id)
    store.finish(job.id, "failed", error="z" * 5000)
    record = store.get(job.id)
    assert (len(record.error), record.result, record.attempts) == (4000, {}, 2)
    store.start(job.id)
    with pytest.raises(ValueError, match="JSON"):
        store.finish(job.id, "done", result={"figure": float("nan")})


def test_what_is_forgotten_leaves_no_log_and_priorities_are_of_queued_jobs(tmp_path: Path) -> None:
    store, jobs = Store(tmp_path), [job_at(tmp_path, k) for k in range(2)]
    one, two = (job.id for job in jobs)
    store.submit(jobs)
    store.set_priority(two, 5)
    assert [record.id for record in store.queued()] == [two, one]
    store.start(one)
    for refuses in (lambda: store.set_priority(one, 1), lambda: store.forget(one), lambda: store.retry(one)):
        with pytest.raises(ConflictError):
            refuses()
    store.add_log(one, "a line")
    store.finish(one, "cancelled")
    store.forget(one)
    assert [record.id for record in store.page()] == [two]
    store.submit(jobs)
    assert store.log_of(one) == ""
    assert store.recover_interrupted(9) == []
    store.start(one)
    store.start(two)
    assert store.recover_interrupted(9, but=two) == [one]
    assert (store.get(one).state, store.get(two).state) == ("queued", "running")
    assert store.done_elsewhere(jobs[1].content, one) is None
    store.finish(two, "done")
    assert store.done_elsewhere(jobs[1].content, one) == jobs[1].job.output
    assert store.done_elsewhere(jobs[1].content, two) is None
    assert store.meta("nothing", "else") == "else"
    store.set_meta("a", "1")
    store.set_meta("a", "2")
    assert store.meta("a") == "2"


def test_a_copy_is_made_when_something_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.backup()
    assert not store.backup()
    store.submit([job_at(tmp_path, 1)])
    assert store.backup()
    store.close()
    again = Store(tmp_path)
    assert (again.counts()["queued"], again.recovered, again.notice) == (1, 0, "")
