# SPDX-License-Identifier: Apache-2.0
"""Jobs that would be lost, wait for ever or fail at once: a disk that refuses the queue, a process that cannot be made, a
request to cancel that comes late, many jobs in front, two jobs for one folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from test_worker_dispatcher import LIMITS, House, Link, house  # noqa: F401 - a fixture
from test_worker_executor import order
from test_worker_store import prepared
from worker_support import Place, make_place

from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD
from retake.core.wire import VariantJob, VariantRequest
from retake.worker import dispatcher, execute, executor
from retake.worker.admission import LOOK_AHEAD
from retake.worker.gpu import GpuDevice
from retake.worker.settings import GIB, BackendSpec
from retake.worker.store import ConflictError, QueueUnwritableError, Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("promises"), frames=3)


class Full:
    """A disk that refuses some of the queue's writes while `full`."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.full = True
        for name in names:
            monkeypatch.setattr(store, name, self.refusing(getattr(store, name)))

    def refusing(self, write: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            if self.full:
                raise QueueUnwritableError("the queue cannot be written")
            return write(*args, **more)

        return call


# -- a disk that refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("says", "wanted", "attempts"), [
    ({"event": "done", "result": {"x": 1}}, "done", 1), ({"event": "cancelled"}, "cancelled", 1),
    ({"event": "failed", "error": "odd"}, "failed", 1), ({"event": "failed", "error": "odd", "again": True}, "queued", 1),
    ({"event": "exit"}, "queued", 1),
])  # fmt: skip
def test_what_became_of_a_job_is_written_when_the_disk_takes_it(house, monkeypatch, says, wanted, attempts):  # noqa: F811
    job_id, after = house.run(1), house.submit(2)
    disk = Full(house.store, monkeypatch, "finish", "back", "add_log", "crashed")
    house.says(says["event"], **{k: v for k, v in says.items() if k != "event"})
    for _ in range(3):
        house.tick(0.1)
    assert house.it.running is None
    assert house.record(after).state == "queued", "nothing else begins before it is written"
    disk.full = False
    house.it.set_paused(True)
    house.tick(0.1)
    record = house.record(job_id)
    assert (record.state, record.attempts) == (wanted, attempts)
    assert house.published("job")[-1]["job"]["state"] == wanted
    if wanted == "done":
        assert record.result == {"x": 1}


def test_a_job_whose_turn_the_queue_could_not_tell_is_sent_later(house, monkeypatch):  # noqa: F811
    house.submit()
    house.tick()
    disk = Full(house.store, monkeypatch, "done_elsewhere")
    with pytest.raises(QueueUnwritableError):
        house.says("ready")
    disk.full = False
    house.tick(0.1)
    assert [message["op"] for message in Link.made[-1].sent] == ["run"]
    house.tick(0.1)
    assert len(Link.made[-1].sent) == 1


# -- a process that cannot be made ----------------------------------------------------------------------------------------


def test_a_process_that_cannot_be_made_costs_no_job_anything(house, monkeypatch):  # noqa: F811
    def refused(*_: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(dispatcher, "ExecutorLink", refused)
    job_id = house.submit()
    for _ in range(dispatcher.START_FAILURES):
        house.tick(1)
        record = house.record(job_id)
        assert (record.state, record.attempts, house.it.running) == ("queued", 0, None)
    assert house.it.paused
    assert "Cannot allocate memory" in house.it.notice
    monkeypatch.setattr(dispatcher, "ExecutorLink", Link)
    house.it.set_paused(False)
    house.tick(1)
    assert house.record(job_id).state == "running"


# -- many jobs in front, and time -----------------------------------------------------------------------------------------


def waiting_house(made: House, jobs: int) -> House:
    """A house whose card is full, with jobs of a model that wait for it."""
    made.backends["plain"] = BackendSpec("plain", "take", "m:M", {}, (("only", 10 * GIB),))
    made.cards = (GpuDevice(0, "card", 24 * GIB, 23 * GIB, 1 * GIB, (), "GPU-1"),)
    for number in range(jobs):
        made.submit(number)
    return made


@pytest.mark.parametrize("waiting", [1, LOOK_AHEAD, 3 * LOOK_AHEAD])
def test_jobs_of_other_backends_pass_however_many_wait(house, waiting):  # noqa: F811
    made = waiting_house(house, waiting)
    made.backends["other"] = BackendSpec("other", "take", "m:M")
    made.store.submit([prepared(1000, output=str(made.folder / "root" / "other"))])
    made.backends["sleepy"] = made.backends["other"]
    made.tick()
    assert made.it.running is not None
    assert made.it.running.record.backend == "sleepy"


def test_a_job_that_comes_back_has_its_time_again(house):  # noqa: F811
    made = waiting_house(house, 1)
    (record,) = made.store.queued()
    made.tick()
    made.it.cancel(record.id)
    made.tick(1)
    made.tick(2 * LIMITS.waiting.memory_wait_s)
    made.it.retry(record.id)
    made.tick(1)
    assert made.record(record.id).state == "queued"
    made.it.set_paused(True)
    made.tick(2 * LIMITS.waiting.memory_wait_s)
    made.it.set_paused(False)
    made.tick(1)
    assert made.record(record.id).state == "queued", "a queue that pauses waits for no memory"
    made.tick(LIMITS.waiting.memory_wait_s + 1)
    assert made.record(record.id).state == "failed"


# -- a late request to cancel ---------------------------------------------------------------------------------------------


def test_a_request_to_cancel_that_comes_late_is_not_about_the_next_attempt(place, monkeypatch):
    def run(job: Any, spec: Any, loaded: Any, context: Any, progress: Any, check_cancel: Any, preview: Any) -> Any:
        check_cancel()
        return {}

    monkeypatch.setattr(executor, "execute", run)
    monkeypatch.setattr(executor.os, "_exit", lambda code: None)
    again, cancel = json.dumps(order(place, "x")), json.dumps({"op": "cancel", "job": "x"})
    for lines, wanted in (
        ((cancel, again), "done"),
        ((again, cancel), "cancelled"),
        ((cancel, again, cancel), "cancelled"),
    ):
        out = io.StringIO()
        it = executor.Executor(out, io.StringIO("".join(f"{line}\n" for line in lines)))
        it._read()
        it._run(it._inbox.get())
        assert json.loads(out.getvalue().splitlines()[-1])["event"] == wanted


# -- one folder, two jobs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "cancelled"])
@pytest.mark.parametrize("again", ["submit", "retry"])
def test_a_job_whose_folder_another_one_has_got_is_not_queued_again(tmp_path, state, again):
    store = Store(tmp_path)
    first, second = prepared(1, output="/r/takes/x"), prepared(2, output="/r/takes/x")
    store.submit([first])
    store.start(first.id)
    store.finish(first.id, state)
    assert store.submit([second]) == [(second.id, True)]
    with pytest.raises(ConflictError, match=f"/r/takes/x belongs to job {second.id}"):
        store.submit([prepared(3), first]) if again == "submit" else store.retry(first.id)
    assert (store.get(first.id).state, store.counts()["queued"]) == (state, 1)
    store.finish(second.id, "cancelled")
    store.retry(first.id)
    assert store.get(first.id).state == "queued"


# -- a result that was to be copied ---------------------------------------------------------------------------------------


def test_a_damaged_result_of_another_folder_leaves_nothing_here(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "world" / "front"
    source.mkdir()
    (source / VARIANT_FRAME).write_bytes(b"damaged")
    (source / VARIANT_RECORD).write_text(json.dumps({"extra": {"content": "c"}, "frame_sha256": "0" * 64}))
    job = VariantJob(VariantRequest(tmp_path, "front", {"name": "w"}, 0), output, "gone")
    with pytest.raises(Exception, match="gone"):
        execute.execute(
            job,
            BackendSpec("gone", "variant", "gone:Backend"),
            execute.Loaded(),
            execute.Context("x", "c", reuse=source),
        )
    assert not output.exists()
