# SPDX-License-Identifier: Apache-2.0
"""What the dispatcher decides, tick by tick: no process and no time, only a queue, a clock that a test turns, and what an
executor is told and says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.takes.base import TakeRequest
from retake.core.wire import TakeJob
from retake.worker import dispatcher
from retake.worker.dispatcher import Dispatcher
from retake.worker.gpu import GpuDevice
from retake.worker.roots import Roots
from retake.worker.settings import GIB, BackendSpec, ExecutorSettings, QueueSettings, WaitingSettings, WorkerSettings
from retake.worker.store import ConflictError, Prepared, Store

LIMITS = WorkerSettings(
    queue=QueueSettings(max_attempts=3, max_crashes=2, max_interruptions=2, retry_delay_s=4.0, backup_s=30.0),
    executor=ExecutorSettings(start_s=50.0, no_progress_s=100.0, cancel_grace_s=5.0, idle_release_s=200.0),
    waiting=WaitingSettings(memory_wait_s=60.0, memory_margin_gib=1.5, disk_floor_gib=2.0),
)


class Link:
    """An executor process that never was."""

    made: list[Link]

    def __init__(self, log: Path, on_message: Any) -> None:
        self.log, self.on_message, self.pid = log, on_message, 100 + len(Link.made)
        self.sent: list[dict[str, Any]] = []
        self.killed = False
        Link.made.append(self)

    def send(self, **message: Any) -> None:
        self.sent.append(message)

    def kill(self) -> None:
        self.killed = True

    def rss_bytes(self) -> int:
        return 77

    def how_it_ended(self) -> str:
        return "was ended"

    def log_tail(self, lines: int = 12) -> str:
        return f"last {lines} lines"


class House:
    """A dispatcher over a queue of one folder."""

    def __init__(self, folder: Path, settings: WorkerSettings = LIMITS) -> None:
        self.folder, self.now, self.disk = folder, 1000.0, 100 * GIB
        (folder / "root").mkdir(exist_ok=True, parents=True)
        (folder / "state").mkdir(exist_ok=True)
        self.store = Store(folder / "state")
        self.said: list[tuple[str, Any]] = []
        hub: Any = SimpleNamespace(publish=lambda kind, data: self.said.append((kind, data)))
        self.cards: tuple[GpuDevice, ...] = ()
        gpu: Any = SimpleNamespace(read=lambda ours=frozenset(): self.cards)
        self.roots = Roots.of([folder / "root"])
        self.backends = {"plain": BackendSpec("plain", "take", "m:M", {"a": 1})}
        self.it = Dispatcher(
            self.store, settings, self.backends, self.roots, hub, gpu,
            monotonic=lambda: self.now, free_bytes=lambda path: int(self.disk),
        )  # fmt: skip

    def submit(self, number: int = 1, content: str = "") -> str:
        """A job in the queue; its id."""
        request = TakeRequest(Path("/e"), "front", Path("/s"), Path("/v"), "p", seed=number)
        job = TakeJob(request, self.folder / "root" / "takes" / str(number), "plain", max_attempts=3)
        ((job_id, _),) = self.store.submit([Prepared(job, content or f"content {number}")])
        return job_id

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.it._tick()

    def says(self, event: str, link: Link | None = None, **more: Any) -> None:
        """The executor says something about the running job, and the dispatcher hears it."""
        if "id" not in more and self.it.running is not None:
            more["id"] = self.it.running.record.id
        self.it._handle(link or Link.made[-1], {"event": event, **more})  # type: ignore[arg-type]

    def run(self, number: int = 1) -> str:
        """A job that the executor works on."""
        job_id = self.submit(number)
        self.tick()
        if Link.made[-1].sent == [] and self.it.executor_state()[0] == "starting":
            self.says("ready")
        return job_id

    def record(self, job_id: str) -> Any:
        return self.store.get(job_id)

    def published(self, kind: str) -> list[Any]:
        return [data for what, data in self.said if what == kind]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    Link.made = []
    monkeypatch.setattr(dispatcher, "ExecutorLink", Link)
    made = House(tmp_path)
    yield made
    made.store.close()


def test_a_job_is_sent_when_the_executor_is_ready_and_its_result_is_kept(house: House) -> None:
    job_id = house.submit()
    assert house.it.executor_state() == ("absent", 0)
    assert house.it.executor_rss() == 0
    house.tick()
    (link,) = Link.made
    assert link.log == house.folder / "state" / "logs" / "executor.log"
    assert (house.it.executor_state(), house.it.executor_rss()) == (("starting", 100), 77)
    record = house.record(job_id)
    assert (record.state, record.attempts, link.sent) == ("running", 1, [])
    house.says("ready")
    (told,) = link.sent
    assert (told["op"], told["id"], told["content"], told["attempt"], told["reuse"]) == (
        "run",
        job_id,
        "content 1",
        1,
        "",
    )
    assert told["margin_bytes"] == 1.5 * GIB
    assert told["roots"] == [str(house.folder / "root")]
    assert told["backend"]["options"] == {"a": 1}
    preview = house.folder / "state" / "previews" / f"{job_id}.jpg"
    assert told["preview"] == str(preview)
    assert house.it.executor_state() == ("busy", 100)
    preview.write_text("x")
    house.says("preview")
    house.says("preview")
    assert [one["preview"] for one in house.published("preview")] == [1, 2]
    house.now += 2
    house.says("progress", done=0, total=8, note="painting")
    house.now += 3
    house.says("progress", done=2, total=8, note="painting")
    assert house.published("progress")[-1] == {"id": job_id, "done": 2, "total": 8, "note": "painting", "eta_s": 9.0}
    assert house.it.live(house.record(job_id)).done == 2
    other = replace(house.record(job_id), id="another")
    assert house.it.live(other).done == 0
    house.says("done", result={"x": 1}, tier="big")
    record = house.record(job_id)
    assert (record.state, record.result, record.error) == ("done", {"x": 1}, "")
    assert (house.it.tier, house.it.executor_state(), preview.exists()) == ("big", ("idle", 100), False)
    assert house.published("job")[-1]["job"]["state"] == "done"
    assert house.published("job")[-1]["counts"]["done"] == 1
    assert house.published("status")[-1] == {"executor": "busy", "paused": False, "waiting": "", "notice": ""}
    assert house.store.log_of(job_id).endswith("done\n")


def test_the_next_job_goes_to_the_same_executor_and_equal_content_is_told(house: House) -> None:
    house.run(1)
    house.says("done", result={})
    again = house.submit(2, "content 1")
    house.tick()
    (link,) = Link.made
    assert (link.sent[-1]["id"], link.sent[-1]["reuse"]) == (again, str(house.folder / "root" / "takes" / "1"))
    assert house.it.executor_state()[0] == "busy"


def test_what_is_not_about_the_running_job_or_of_an_older_executor_is_not_heard(house: House) -> None:
    job_id = house.run()
    house.says("done", id="another", result={})
    old = Link(Path("x"), None)
    house.says("exit", link=old)
    assert house.record(job_id).state == "running"
    assert house.it.executor_state()[0] == "busy"


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_has_its_grace(house: House) -> None:
    first, second = house.run(1), house.submit(2)
    house.it.cancel(second)
    assert (house.record(second).state, house.record(second).error) == ("cancelled", "cancelled before it started")
    assert house.published("job")[-1]["job"]["id"] == second
    house.it.cancel(first)
    house.it.cancel(first)
    link = Link.made[0]
    assert [m["op"] for m in link.sent] == ["run", "cancel"]
    assert link.sent[-1]["job"] == first
    house.tick(4.9)
    assert not link.killed
    house.tick(0.1)
    assert link.killed
    assert (house.record(first).state, house.record(first).error) == ("cancelled", "cancelled while it ran")
    assert house.it.executor_state() == ("absent", 0)
    house.it.cancel(first)
    assert house.record(first).state == "cancelled"


def test_a_job_that_the_executor_does_not_have_yet_is_cancelled_with_the_next_tick(house: House) -> None:
    job_id = house.submit()
    house.tick()
    house.it.cancel(job_id)
    house.says("ready")
    assert [m["op"] for m in Link.made[0].sent] == ["cancel"], "what is being ended is not sent"
    house.tick()
    assert house.record(job_id).state == "cancelled"


@pytest.mark.parametrize("event", ["cancelled", "failed"])
def test_a_cancelled_job_may_end_by_itself(house: House, event: str) -> None:
    job_id = house.run()
    house.it.cancel(job_id)
    house.says(event, error="so it said", again=True)
    record = house.record(job_id)
    assert record.state == "cancelled"
    assert record.error == ("cancelled while it ran" + (" (so it said)" if event == "failed" else ""))
    assert house.it.executor_state()[0] == "idle"


def test_failures_are_tried_again_later_and_later(house: House) -> None:
    job_id = house.run()
    for attempt, wait_s in ((1, 4.0), (2, 8.0)):
        house.says("failed", error="odd", again=True)
        record = house.record(job_id)
        assert (record.state, record.error, record.attempts) == ("queued", "odd", attempt)
        assert house.published("job")[-1]["job"]["state"] == "queued"
        assert f"attempt {attempt} of 3 failed: odd; again in {wait_s:.0f} s" in house.store.log_of(job_id)
        house.tick(wait_s - 0.1)
        assert house.it.running is None
        house.tick(0.2)
        assert house.it.running is not None
    house.says("failed", error="odd", again=True)
    assert (house.record(job_id).state, house.record(job_id).error) == ("failed", "odd")
    assert not Link.made[0].killed


def test_a_retry_on_request_waits_for_nothing_and_counts_anew(house: House) -> None:
    job_id = house.run()
    house.says("failed", error="wrong input")
    assert house.record(job_id).state == "failed"
    house.it._admission.put_off(job_id, house.now + 500)
    house.it.retry(job_id)
    assert (house.record(job_id).state, house.record(job_id).attempts) == ("queued", 0)
    assert house.published("job")[-1]["job"]["state"] == "queued"
    assert "queued again on request" in house.store.log_of(job_id)
    house.tick()
    assert house.record(job_id).state == "running"
    with pytest.raises(ConflictError):
        house.it.retry(job_id)


@pytest.mark.parametrize("why", ["out_of_memory", "broken"])
def test_an_executor_that_is_no_longer_sound_is_ended(house: House, why: str) -> None:
    job_id = house.run()
    house.says("failed", error="odd", again=True, **{why: True})
    assert Link.made[0].killed
    assert (house.record(job_id).state, house.record(job_id).attempts) == ("queued", 1)
    assert house.it.executor_state()[0] == "absent"


def test_a_full_disk_counts_no_attempt_where_it_is_full(house: House) -> None:
    job_id = house.run()
    house.says("failed", error="no space", disk_full=True)
    assert house.record(job_id).state == "failed", "there is space: it is the job's own failure"
    house.it.retry(job_id)
    house.tick()
    house.disk = GIB
    house.says("failed", error="no space", disk_full=True)
    record = house.record(job_id)
    assert (record.state, record.attempts, record.error) == ("queued", 0, "no space")
    assert "no space; it goes on when there is space" in house.store.log_of(job_id)
    house.tick()
    assert house.it.waiting.startswith("waiting for disk")
    assert house.published("status")[-1]["waiting"] == house.it.waiting
    told = len(house.published("status"))
    house.disk = 1.5 * GIB
    house.tick()
    assert len(house.published("status")) == told, "another figure is no other reason"
    assert "1.50 GiB" in house.it.waiting
    house.disk = 2 * GIB
    house.tick()
    assert (house.it.waiting, house.record(job_id).state) == ("", "running")


def test_an_executor_that_dies_in_a_job_twice_has_it_quarantined(house: House) -> None:
    job_id, unfinished = house.run(), house.folder / "root" / "takes" / "1"
    for crash in (1, 2):
        house.says("exit")
        record = house.record(job_id)
        assert "the executor was ended during attempt" in house.store.log_of(job_id)
        assert "it last said:\nlast 12 lines" in house.store.log_of(job_id)
        if crash == 1:
            assert (record.state, record.attempts, record.error) == ("queued", 1, "the executor was ended")
            assert house.published("job")[-1]["job"]["state"] == "queued"
            house.tick()
            house.says("ready")
    assert len(Link.made) == 2
    assert record.state == "quarantined"
    assert record.error.startswith("the executor was ended, 2 times during this job")
    assert not unfinished.exists()


def test_an_executor_that_dies_in_the_last_attempt_fails_the_job(tmp_path: Path, house: House) -> None:
    house.it.settings = replace(LIMITS, queue=replace(LIMITS.queue, max_crashes=9))
    job_id = house.run()
    for attempt in (1, 2, 3):
        assert house.record(job_id).attempts == attempt
        house.says("exit")
        house.tick()
        if attempt < 3:
            house.says("ready")
    assert (house.record(job_id).state, house.record(job_id).error) == ("failed", "the executor was ended")


def test_an_executor_that_cannot_start_three_times_pauses_the_queue(house: House) -> None:
    job_id = house.submit()
    for failure in (1, 2, 3):
        assert not house.it.paused
        house.tick()
        house.says("exit")
        assert (house.record(job_id).state, house.record(job_id).attempts) == ("queued", 0)
        assert len(Link.made) == failure
    assert house.it.paused
    assert house.it.notice == "The executor cannot start (was ended), so the queue is paused. last 4 lines"
    assert house.published("status")[-1]["notice"] == house.it.notice
    house.tick()
    assert house.it.executor_state()[0] == "absent", "a paused queue starts nothing"
    house.it.set_paused(False)
    for _ in range(2):
        house.tick()
        house.says("exit")
    assert not house.it.paused, "counted anew"
    house.tick()
    house.says("ready")
    house.says("exit")
    for _ in range(2):
        house.tick()
        house.says("exit")
    assert not house.it.paused, "and after a start that went well"


def test_limits_of_time_end_an_executor(house: House) -> None:
    job_id = house.submit()
    house.tick()
    house.tick(50.0)
    assert not Link.made[0].killed
    house.tick(0.1)
    assert Link.made[0].killed, "it never got ready"
    house.tick()
    house.says("ready")
    house.tick(100.0)
    house.says("progress", done=1, total=3, note="x")
    house.tick(100.0)
    assert not Link.made[1].killed
    house.tick(0.1)
    assert Link.made[1].killed
    assert "no sign of life for 100 s" in house.store.log_of(job_id)
    house.tick()
    house.says("ready")
    house.says("done", result={})
    house.tick(200.0)
    assert not Link.made[2].killed
    house.tick(0.1)
    assert Link.made[2].killed, "idle for so long, it gives its memory back"
    assert house.it.executor_state()[0] == "absent"


def test_an_idle_executor_may_stay_for_ever(house: House) -> None:
    house.it.settings = replace(LIMITS, executor=replace(LIMITS.executor, idle_release_s=0.0))
    house.run()
    house.says("done", result={})
    house.tick(1e6)
    assert not Link.made[0].killed


def test_release_puts_the_running_job_back_and_pauses_where_there_is_work(house: House) -> None:
    house.run()
    house.says("done", result={})
    house.it.release()
    assert Link.made[0].killed
    assert not house.it.paused
    waiting = house.submit(2)
    house.it.release()
    assert house.it.paused
    house.it.set_paused(False)
    house.tick()
    house.says("ready")
    house.it.release()
    assert house.it.paused
    assert (house.record(waiting).state, house.record(waiting).attempts) == ("queued", 0)
    assert "interrupted (release); back in the queue" in house.store.log_of(waiting)
    assert house.published("job")[-1]["job"]["state"] == "queued"
    assert House(house.folder).it.paused, "a pause outlives the service"


def test_what_ran_when_a_service_ended_goes_back_and_at_last_to_quarantine(house: House) -> None:
    job_id = house.run()
    for number, state in ((1, "queued"), (2, "quarantined")):
        again = House(house.folder)
        record = again.record(job_id)
        assert (record.state, record.attempts) == (state, 0)
        assert f"interrupted by a stop of service or machine; now {state}" in again.store.log_of(job_id)
        if number == 1:
            again.tick()
            assert again.record(job_id).state == "running"


def test_memory_that_the_executor_reports_is_remembered_with_its_card(house: House) -> None:
    house.run()
    house.says("progress", done=0, total=1, note="", held=5 * GIB)
    assert house.it._held.gpu_bytes == 5 * GIB
    assert house.it._held.pid == 100
    house.says("exit")
    assert (house.it._held.pid, house.it._held.gpu_bytes) == (0, 0)


def test_the_queue_is_copied_from_time_to_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[float] = []
    monkeypatch.setattr(house.store, "backup", lambda: copies.append(house.now))
    begun = house.now
    for _ in range(7):
        house.tick(10.0)
    assert copies == [begun + 10, begun + 40, begun + 70]

    def full() -> None:
        raise OSError("no space")

    monkeypatch.setattr(house.store, "backup", full)
    house.tick(100.0)


def test_a_queue_that_was_replaced_is_told(house: House) -> None:
    job_id = house.run()
    house.store.recovered, house.store.notice = 1, "the queue was damaged"
    told = len(house.published("status"))
    house.tick()
    house.tick()
    assert house.it.notice == "the queue was damaged"
    assert len(house.published("status")) == told + 1
    assert house.record(job_id).state == "running", "what runs here was not interrupted"


def test_a_result_is_written_to_a_queue_that_was_replaced_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, plain, tries = house.run(), house.store.finish, []

    def damaged(*args: Any, **more: Any) -> None:
        tries.append(args)
        if len(tries) < limit:
            raise ConflictError("damaged")
        plain(*args, **more)

    monkeypatch.setattr(house.store, "finish", damaged)
    limit = 2
    house.it._outcomes.finish(job_id, "failed", "odd")
    assert len(tries) == 2
    assert house.record(job_id).error == "odd"
    assert house.store.log_of(job_id).endswith("failed: odd\n")
    limit = 9
    with pytest.raises(ConflictError):
        house.it._outcomes.finish(job_id, "failed", "odd")


def test_a_thread_of_its_own_answers_and_ends(house: House) -> None:
    house.it.start()
    assert house.it.daemon
    assert house.it.name == "dispatcher"
    assert house.it.ask(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        house.it.ask(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    job_id = house.submit()
    house.it.wake()
    for _ in range(200):
        if house.it.ask(lambda: house.it.executor_state()[0]) == "starting":
            break
    house.it.ask(lambda: house.says("ready"))
    house.it.stop()
    assert not house.it.is_alive()
    assert Link.made[0].killed
    assert (house.record(job_id).state, house.record(job_id).attempts) == ("queued", 0)
    assert "interrupted (stop)" in house.store.log_of(job_id)
