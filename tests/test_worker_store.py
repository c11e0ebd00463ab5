# SPDX-License-Identifier: Apache-2.0
"""The queue's own laws: identity, order, states, recovery; no process, no network."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retake.core.errors import InputError, WorkerError
from retake.core.takes.base import TakeRequest
from retake.core.wire import TakeJob
from retake.worker import schema
from retake.worker.store import ConflictError, Prepared, Store, UnknownJobError, check_states


def prepared(number: int, priority: int = 0, output: str = "") -> Prepared:
    request = TakeRequest(Path("/r/e"), "front", Path("/r/s"), Path("/r/v"), "p", seed=number)
    return Prepared(TakeJob(request, Path(output or f"/r/takes/{number}"), "sleepy", priority), f"content-{number}")


@given(priorities=st.lists(st.integers(-3, 3), min_size=1, max_size=30))
@settings(max_examples=15)
def test_the_order_is_priority_then_submission(tmp_path_factory: pytest.TempPathFactory, priorities: list[int]) -> None:
    store = Store(tmp_path_factory.mktemp("s"))
    ids = [store.submit([prepared(k, p)])[0][0] for k, p in enumerate(priorities)]
    expected = [ids[k] for k in sorted(range(len(ids)), key=lambda k: (-priorities[k], k))]
    assert [r.id for r in store.queued(100)] == expected
    assert [r.id for r in store.page(("queued",), 100)] == expected
    pages = [r.id for k in range(0, len(ids), 7) for r in store.page((), 7, k)]
    assert pages == expected
    store.close()


@given(
    states=st.lists(st.sampled_from(["queued", "running", "done", "failed", "cancelled"]), min_size=1, max_size=20),
    size=st.integers(1, 7), wanted=st.sampled_from([(), ("queued",), ("done", "failed"), ("running", "queued", "done")]),
)  # fmt: skip
@settings(max_examples=15)
def test_pages_of_any_size_put_together_are_the_whole_list(tmp_path_factory, states, size, wanted) -> None:
    """Running, then queued in the order of their turn, then the rest, newest first: at every offset, across the groups."""
    store = Store(tmp_path_factory.mktemp("s"))
    ids = [store.submit([prepared(k, k % 3)])[0][0] for k in range(len(states))]
    for job_id, state in zip(ids, states, strict=True):
        if state != "queued":
            store.start(job_id)
        if state not in ("queued", "running"):
            store.finish(job_id, state)
    chosen = [k for k in range(len(ids)) if not wanted or states[k] in wanted]
    running = [k for k in reversed(chosen) if states[k] == "running"]
    queued = sorted((k for k in chosen if states[k] == "queued"), key=lambda k: (-(k % 3), k))
    rest = [k for k in reversed(chosen) if states[k] not in ("running", "queued")]
    expected = [ids[k] for k in (*running, *queued, *rest)]
    assert [r.id for r in store.page(wanted, 100)] == expected
    for offset in range(len(expected) + 2):
        assert [r.id for r in store.page(wanted, size, offset)] == expected[offset : offset + size]
    store.close()


def test_a_clock_that_jumps_reorders_nothing(tmp_path: Path) -> None:
    times = iter([1e9, 5e9, 10.0, -3.0, 2e9, *[7.0] * 50])
    store = Store(tmp_path, lambda: next(times))
    ids = [store.submit([prepared(k)])[0][0] for k in range(4)]
    assert [r.id for r in store.queued()] == ids
    for job_id in ids:
        store.start(job_id)
        store.finish(job_id, "done")
    assert [r.id for r in store.page()] == ids[::-1]
    store.close()


def test_identical_requests_are_one_job(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [(first, new)] = store.submit([prepared(1)])
    assert new
    assert store.submit([prepared(1), prepared(1)]) == [(first, False), (first, False)]
    assert store.counts()["queued"] == 1
    store.start(first)
    assert store.submit([prepared(1)]) == [(first, False)]
    store.finish(first, "failed", error="no")
    assert store.submit([prepared(1)]) == [(first, True)], "asking again for a failed job queues it again"
    assert store.get(first).attempts == 0
    store.finish(first, "quarantined")
    assert store.submit([prepared(1)]) == [(first, False)], "a quarantined job waits for a person's retry"
    store.retry(first)
    assert store.get(first).state == "queued"
    store.close()


def test_another_job_for_the_same_output_is_refused_and_nothing_is_queued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.submit([prepared(1, output="/r/takes/x")])
    with pytest.raises(ConflictError, match="belongs to job"):
        store.submit([prepared(3), prepared(2, output="/r/takes/x")])
    assert store.counts()["queued"] == 1
    store.close()


def test_states_survive_reopening_and_running_jobs_go_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (a, _), (b, _), (c, _) = store.submit([prepared(1), prepared(2), prepared(3)])
    store.start(a)
    store.finish(a, "done", result={"x": 1})
    store.start(b)
    store.add_log(b, "half way")
    del store  # no close: the process is gone
    store = Store(tmp_path)
    assert store.get(a).result == {"x": 1}
    assert store.get(b).state == "running"
    assert store.recover_interrupted(3) == [b]
    assert (store.get(b).state, store.get(b).attempts) == ("queued", 0)
    assert "half way" in store.log_of(b)
    assert [r.id for r in store.queued()] == [b, c]
    for _ in range(2):
        store.start(b)
        store.recover_interrupted(3)
    assert store.get(b).state == "quarantined", "a job that takes the machine down again and again stops being tried"
    store.close()


def test_only_final_jobs_are_retried_or_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [(job, _)] = store.submit([prepared(1)])
    for call in (store.retry, store.forget):
        with pytest.raises(ConflictError, match="queued"):
            call(job)
    store.start(job)
    with pytest.raises(ConflictError, match="running"):
        store.set_priority(job, 5)
    store.finish(job, "done")
    with pytest.raises(ConflictError, match="remove"):
        store.retry(job)
    store.forget(job)
    with pytest.raises(UnknownJobError, match="no job"):
        store.get(job)
    assert sum(store.counts().values()) == 0
    store.close()


def test_the_log_is_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [(job, _)] = store.submit([prepared(1)])
    for number in range(450):
        store.add_log(job, f"line {number}")
    lines = store.log_of(job).splitlines()
    assert len(lines) == 400
    assert lines[-1].endswith("line 449")
    store.close()


@given(data=st.data())
@settings(max_examples=12)
def test_any_page_of_noise_leads_to_the_backup_or_an_empty_queue(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("s")
    store = Store(folder)
    ids = [job_id for job_id, _ in store.submit([prepared(k) for k in range(40)])]
    store.close()  # also writes the backup
    with_backup = data.draw(st.booleans(), "backup")
    if not with_backup:
        (folder / schema.BACKUP).unlink()
    file = folder / schema.NAME
    content = bytearray(file.read_bytes())
    page = data.draw(st.integers(0, len(content) // 4096 - 1), "page")
    content[4096 * page : 4096 * (page + 1)] = data.draw(st.randoms(use_true_random=False)).randbytes(4096)
    file.write_bytes(content)
    store = Store(folder)
    assert "damaged" in store.notice
    assert list(folder.glob("damaged-*/queue.sqlite")), "the damaged file is kept"
    assert [r.id for r in store.queued(100)] == (ids if with_backup else [])
    assert store.submit([prepared(k) for k in range(40)]) == [(i, not with_backup) for i in ids]
    store.close()


def test_a_changed_request_is_noticed_although_sqlite_is_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.submit([prepared(1)])
    store.close()
    with sqlite3.connect(tmp_path / schema.NAME) as db:
        db.execute("UPDATE jobs SET spec = replace(spec, '\"seed\": 1', '\"seed\": 2')")
    db.close()
    (tmp_path / schema.BACKUP).unlink()
    store = Store(tmp_path)
    assert "was changed" in store.notice
    assert store.counts()["queued"] == 0
    store.close()


def test_damage_met_while_running_is_said_and_repaired(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [(job, _)] = store.submit([prepared(1)])
    store.backup()
    store._db.execute("UPDATE jobs SET spec = 'noise'")
    with pytest.raises(ConflictError, match="damaged"):
        store.get(job)
    assert "restored from the last backup" in store.notice
    assert store.get(job).state == "queued"
    store.close()


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.submit([prepared(1)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(WorkerError, match="free some disk space"):
        store.submit([prepared(k) for k in range(2, 200)])
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.counts()["queued"] == 1
    assert len(store.submit([prepared(k) for k in range(2, 200)])) == 198
    store.close()


def test_another_version_of_the_file_is_refused_untouched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / schema.NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = (tmp_path / schema.NAME).read_bytes()
    with pytest.raises(WorkerError, match="version 99"):
        Store(tmp_path)
    assert (tmp_path / schema.NAME).read_bytes()[:1000] == before[:1000]


def test_the_same_content_for_another_place_is_another_job_of_the_same_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = prepared(1)
    second = Prepared(replace(first.job, output=Path("/r/takes/elsewhere")), first.content)
    (a, _), (b, _) = store.submit([first, second])
    assert a != b
    store.start(a)
    store.finish(a, "done")
    assert store.done_elsewhere(first.content, b) == first.job.output
    assert store.done_elsewhere("other", b) is None
    with pytest.raises(InputError, match="unknown state"):
        check_states("queued,lost")
    store.close()
