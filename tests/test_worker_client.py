# SPDX-License-Identifier: Apache-2.0
"""Wire records and the client, against a network that is a function."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import Cancelled, InputError, TakeError, WorkerError
from retake.core.takes.base import TakeRequest
from retake.core.video import write_video
from retake.core.wire import (
    STATES,
    JobRecord,
    TakeJob,
    VariantJob,
    VariantRequest,
    WorkerStatus,
    job_from_json,
    job_to_json,
    record_from_json,
    record_to_json,
    status_from_json,
    status_to_json,
)
from retake.core.worker_client import (
    HttpTransport,
    WorkerClient,
    WorkerUnreachableError,
    WorkerVideoBackend,
    state_folder,
)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
paths = st.text("abcXYZ 09._-ü", min_size=1, max_size=12).map(lambda s: Path("/r") / s)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
settings_ = st.dictionaries(texts, values, max_size=3)
takes = st.builds(
    TakeJob,
    st.builds(
        TakeRequest, paths, texts, paths, paths, texts, texts, st.integers(0, 2**63 - 1), st.integers(0, 999),
        st.integers(0, 99), settings_,
    ),
    paths, texts, st.integers(-9, 9), st.integers(1, 9),
)  # fmt: skip
variants = st.builds(
    VariantJob,
    st.builds(VariantRequest, paths, texts, settings_, st.integers(0, 99), st.integers(0, 9), settings_),
    paths,
    texts,
)


@given(job=takes | variants)
def test_jobs_survive_the_wire(job: Any) -> None:
    assert job_from_json(json.loads(json.dumps(job_to_json(job)))) == job


@given(data=st.data())
def test_records_and_status_survive_the_wire_and_ignore_what_is_newer(data: st.DataObject) -> None:
    record = JobRecord(
        "i",
        "take",
        "b",
        data.draw(st.sampled_from(["queued", "done"])),
        Path("/o"),
        data.draw(settings_),
        eta_s=data.draw(st.none() | st.floats(0, 9)),
    )
    assert record_from_json({**json.loads(json.dumps(record_to_json(record))), "invented_later": 1}) == record
    status = WorkerStatus("1", True, {"queued": 3}, "idle", backends=("a",), roots=("/r",))
    assert status_from_json({**json.loads(json.dumps(status_to_json(status))), "invented_later": 1}) == status


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "film"}, "valid: take, variant"),
        ({"output": 3}, "output needs a path; found 3"),
        ({"output": ""}, "output needs a path; found ''"),
        ({"request": []}, "request needs a mapping of fields"),
        ({"priority": "high"}, "priority needs a whole number; found 'high'"),
        ({"priority": True}, "priority needs a whole number"),
        ({"colour": 1}, "unknown field 'colour'"),
    ],
)
def test_a_wrong_job_is_refused_in_words(change: dict[str, Any], says: str) -> None:
    good = job_to_json(TakeJob(TakeRequest(Path("/e"), "c", Path("/s"), Path("/v"), "p"), Path("/o")))
    with pytest.raises(InputError, match=says):
        job_from_json({**good, **change})


def test_a_missing_or_unknown_request_field_is_named() -> None:
    good = job_to_json(TakeJob(TakeRequest(Path("/e"), "c", Path("/s"), Path("/v"), "p"), Path("/o")))
    with pytest.raises(InputError, match="prompt"):
        job_from_json({**good, "request": {k: v for k, v in good["request"].items() if k != "prompt"}})
    with pytest.raises(InputError, match="unknown field 'sed'"):
        job_from_json({**good, "request": {**good["request"], "sed": 1}})
    with pytest.raises(InputError, match="JSON object"):
        job_from_json([])


class Net:
    """A worker's answers, in order; notes what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, timeout_s: float
    ) -> tuple[int, bytes]:
        self.asked.append((method, path, headers, body, timeout_s))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(*answers: Any) -> tuple[WorkerClient, Net]:
    net = Net(*answers)
    return WorkerClient("http://127.0.0.1:1", "secret", timeout_s=0.5, transport=net), net


def record(state: str = "running", **values: Any) -> bytes:
    return json.dumps(record_to_json(replace(JobRecord("j1", "take", "b", state, Path("/o"), {}), **values))).encode()


def test_every_call_carries_the_token_and_a_time_out() -> None:
    worker, net = client((200, record()))
    assert worker.job("j/1?x").state == "running"
    method, path, headers, body, timeout_s = net.asked[0]
    assert (method, path, body) == ("GET", "/api/jobs/j%2F1%3Fx", None)
    assert headers["Authorization"] == "Bearer secret"
    assert 0 < timeout_s <= 0.5


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (TimeoutError("timed out"), "did not answer"),
        (ConnectionRefusedError("refused"), "no worker answers"),
        ((500, b"<html>"), "not JSON"),
        ((403, b'{"error": "outside the roots"}'), "outside the roots"),
        ((200, b"[]"), "needs a mapping of fields"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_said(answer: Any, says: str) -> None:
    worker, _ = client(answer)
    with pytest.raises((WorkerError, InputError), match=says):
        worker.status()
    if not isinstance(answer, tuple):
        assert not worker.alive()


def test_submit_goes_in_batches() -> None:
    worker, net = client((200, json.dumps({"jobs": [json.loads(record())], "created": 1}).encode()))
    jobs = [
        TakeJob(TakeRequest(Path("/e"), "c", Path("/s"), Path("/v"), "p", seed=k), Path(f"/o/{k}")) for k in range(1201)
    ]
    worker.submit(jobs)
    assert [len(json.loads(body)["jobs"]) for _, _, _, body, _ in net.asked] == [500, 500, 201]


def test_wait_survives_a_restart_and_gives_up_when_asked() -> None:
    worker, _ = client((200, record()), ConnectionRefusedError(), ConnectionRefusedError(), (200, record("done")))
    assert worker.wait(["j1"], poll_s=0.001)[0].state == "done"
    worker, _ = client((200, record()), ConnectionRefusedError())
    with pytest.raises(WorkerUnreachableError):
        worker.wait(["j1"], poll_s=0.001, patience_s=0.01)
    worker, _ = client((200, record()))
    with pytest.raises(WorkerError, match="not finished after"):
        worker.wait(["j1"], poll_s=0.001, timeout_s=0.01)


def test_wait_cancels_the_jobs_when_the_user_cancels() -> None:
    worker, net = client((200, record()))
    calls = iter([None, None, Cancelled("stop")])

    def check() -> None:
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(Cancelled):
        worker.wait(["j1"], check_cancel=check, poll_s=0.001)
    assert net.asked[-1][:2] == ("POST", "/api/jobs/j1/cancel")


def test_a_silent_server_costs_no_more_than_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        worker = WorkerClient(f"http://127.0.0.1:{server.getsockname()[1]}", "t", timeout_s=0.3)
        with pytest.raises(WorkerUnreachableError, match="did not answer"):
            worker.status()
    assert isinstance(worker._transport, HttpTransport)


def test_no_worker_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="retake worker --root DIR"):
        WorkerClient.discover(tmp_path)
    (tmp_path / "endpoint.json").write_text("[1")
    with pytest.raises(WorkerError, match="retake worker --root DIR"):
        WorkerClient.discover(tmp_path)
    with pytest.raises(InputError, match="expected http"):
        WorkerClient("https://example.org", "t")


@pytest.mark.parametrize(
    ("platform", "told", "where"),
    [
        ("linux", {"RETAKE_WORKER_STATE": "/given", "XDG_STATE_HOME": "/xdg"}, "/given"),
        ("linux", {"XDG_STATE_HOME": "/xdg", "LOCALAPPDATA": "/local"}, "/xdg/retake/worker"),
        ("linux", {"XDG_STATE_HOME": "", "LOCALAPPDATA": "/local"}, "/home/me/.local/state/retake/worker"),
        ("win32", {"RETAKE_WORKER_STATE": "/given", "LOCALAPPDATA": "/local"}, "/given"),
        ("win32", {"XDG_STATE_HOME": "/xdg", "LOCALAPPDATA": "/local"}, "/local/retake/worker"),
        ("win32", {"LOCALAPPDATA": ""}, "/home/me/AppData/Local/retake/worker"),
        ("win32", {}, "/home/me/AppData/Local/retake/worker"),
    ],
)
def test_the_state_folder_is_the_user_s_own_or_the_one_that_is_given(
    platform: str, told: dict[str, str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RETAKE_WORKER_STATE", "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert state_folder() == Path(where)


def test_the_client_imports_nothing_that_kit_lacks() -> None:
    heavy = ("fastapi", "starlette", "uvicorn", "pydantic", "psutil", "torch", "av", "requests", "httpx")
    code = f"import sys, retake.core.worker_client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_job_that_says_no_more_than_it_must_is_the_usual_one() -> None:
    """What a client of an older version leaves out has one meaning, whoever reads it."""
    least = {"episode": "/e", "camera": "c", "skeleton": "/s", "variant": "/v", "prompt": "p"}
    take = job_to_json(job_from_json({"kind": "take", "request": least, "output": "/o"}))
    assert {k: v for k, v in take.items() if k != "request"} == {
        "output": "/o", "backend": "composite", "priority": 0, "max_attempts": 3, "kind": "take",
    }  # fmt: skip
    assert take["request"]["frames"] == 81
    assert (take["request"]["seed"], take["request"]["start"], take["request"]["settings"]) == (42, 0, {})
    wanted = {"episode": "/e", "camera": "c", "world": {"name": "w"}}
    variant = job_to_json(job_from_json({"kind": "variant", "request": wanted, "output": "/o"}))
    assert variant == {
        "request": {
            **wanted, "seed": 0, "index": 0, "settings": {}, "gate": True, "rerolls": 2, "only_commercial": False,
        },
        "output": "/o", "backend": "procedural", "priority": 0, "max_attempts": 3, "kind": "variant",
    }  # fmt: skip


def test_what_an_older_worker_does_not_tell_of_a_job_and_of_itself_is_nothing() -> None:
    told = {"id": "i", "kind": "take", "backend": "b", "state": "queued", "output": "/o", "request": {}}
    record = record_to_json(record_from_json(told))
    assert record.pop("max_attempts") == 3
    assert {k: v for k, v in record.items() if v and k not in told} == {}
    assert {type(record[k]) for k in ("attempts", "crashes", "done", "total", "preview", "priority")} == {int}
    status = status_to_json(status_from_json({"version": "1", "paused": False, "counts": {}, "executor": "absent"}))
    assert {k: v for k, v in status.items() if v} == {"version": "1", "executor": "absent"}
    assert (status["event"], status["executor_pid"], status["executor_rss_bytes"]) == (0, 0, 0)


def test_a_job_is_final_when_only_a_person_can_change_it() -> None:
    final = {state for state in STATES if JobRecord("i", "take", "b", state, Path("/o"), {}).final}
    assert final == {"done", "failed", "cancelled", "quarantined"}


def answers(**values: Any) -> bytes:
    return json.dumps(values).encode()


def test_pages_and_changes_are_asked_for_by_where_they_begin() -> None:
    worker, net = client((200, answers(jobs=[json.loads(record())])))
    assert [job.id for job in worker.jobs()] == ["j1"]
    worker.jobs("failed", limit=7, after=3)
    assert [path for _, path, *_ in net.asked] == [
        "/api/jobs?limit=100&offset=0", "/api/jobs?state=failed&limit=7&offset=3",
    ]  # fmt: skip
    worker, net = client(
        (200, answers(next=9, epoch="e", reset=True, jobs=[json.loads(record("done"))], counts={"done": 1}))
    )
    found = worker.changes()
    assert (found.next, found.epoch, found.reset, found.counts) == (9, "e", True, {"done": 1})
    assert [job.state for job in found.jobs] == ["done"]
    worker.changes(9, "e")
    assert [path for _, path, *_ in net.asked] == ["/api/changes?since=0&epoch=", "/api/changes?since=9&epoch=e"]


def test_what_is_told_to_the_worker_goes_to_its_own_address() -> None:
    worker, net = client((200, record("queued")))
    worker.cancel("j/1")
    worker.retry("j1")
    worker.set_priority("j1", 4)
    assert [(method, path, json.loads(body)) for method, path, _, body, _ in net.asked] == [
        ("POST", "/api/jobs/j%2F1/cancel", {}), ("POST", "/api/jobs/j1/retry", {}),
        ("POST", "/api/jobs/j1/priority", {"priority": 4}),
    ]  # fmt: skip
    assert {headers["Content-Type"] for _, _, headers, _, _ in net.asked} == {"application/json"}
    worker, net = client((200, answers(version="1", paused=True, counts={}, executor="idle")))
    assert worker.pause().paused
    worker.resume(), worker.release(), worker.status()
    assert [(method, path, body) for method, path, _, body, _ in net.asked] == [
        ("POST", "/api/queue/pause", b"{}"), ("POST", "/api/queue/resume", b"{}"), ("POST", "/api/release", b"{}"),
        ("GET", "/api/status", None),
    ]  # fmt: skip
    assert "Content-Type" not in net.asked[-1][2]
    worker, net = client((200, answers(log="one line")))
    assert worker.log("a b") == "one line"
    assert net.asked[0][:2] == ("GET", "/api/jobs/a%20b/log")


def test_time_outs_are_as_long_as_the_work_behind_the_answer() -> None:
    """Health at most a second; queueing many jobs and freeing a card take longer than a look."""
    worker, net = client((200, answers(version="1", paused=True, counts={}, executor="idle", jobs=[])))
    job = TakeJob(TakeRequest(Path("/e"), "c", Path("/s"), Path("/v"), "p"), Path("/o"))
    worker.alive(), worker.status(), worker.release(), worker.submit([job])
    assert [timeout for *_, timeout in net.asked] == [0.5, 0.5, 15.0, 30.0]
    worker, net = client((200, answers(version="1", paused=True, counts={}, executor="idle", jobs=[])))
    worker.timeout_s = 60.0
    worker.alive(), worker.status(), worker.release(), worker.submit([job])
    assert [timeout for *_, timeout in net.asked] == [1.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize(("status", "alive", "refused"), [(200, True, False), (399, False, False), (400, False, True)])
def test_an_answer_from_400_on_is_a_refusal_and_only_200_is_health(status: int, alive: bool, refused: bool) -> None:
    worker, _ = client((status, record()))
    assert worker.alive() == alive
    if refused:
        with pytest.raises(WorkerError, match=rf"refused GET /api/jobs/x \({status}\)"):
            worker.job("x")
    else:
        assert worker.job("x").id == "j1"


def test_an_address_without_a_port_is_that_of_http() -> None:
    assert WorkerClient("http://127.0.0.1", "t").url == "http://127.0.0.1:80"
    assert WorkerClient("http://localhost:8123/x", "t").url == "http://localhost:8123"


MADE: list[Connection] = []


class Connection:
    """An HTTP connection that notes what becomes of it."""

    status = 207

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.did: list[Any] = [(host, port, timeout)]
        MADE.append(self)

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        self.did.append((method, path, body, headers))
        if path == "/fails":
            raise ConnectionResetError("reset")

    def getresponse(self) -> Connection:
        return self

    def read(self, most: int) -> bytes:
        self.did.append(most)
        return b"answer"

    def close(self) -> None:
        self.did.append("closed")


def test_an_exchange_is_one_connection_that_is_closed_and_reads_64_mib_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http.client.HTTPConnection", Connection)
    MADE.clear()
    transport = HttpTransport("127.0.0.1", 81)
    assert transport("POST", "/p", {"h": "1"}, b"body", 2.5) == (207, b"answer")
    with pytest.raises(ConnectionResetError):
        transport("GET", "/fails", {}, None, 2.5)
    assert [connection.did for connection in MADE] == [
        [("127.0.0.1", 81, 2.5), ("POST", "/p", b"body", {"h": "1"}), 64 * 1024 * 1024, "closed"],
        [("127.0.0.1", 81, 2.5), ("GET", "/fails", None, {}), "closed"],
    ]


def test_waiting_tells_of_unfinished_jobs_alone_and_counts_those_that_are_left() -> None:
    done = json.loads(record("done"))
    states = {"a": iter(["running", "done"]), "b": iter(["done"])}

    def net(method: str, path: str, headers: Any, body: Any, timeout_s: float) -> tuple[int, bytes]:
        name = path.rpartition("/")[2]
        return 200, json.dumps({**done, "id": name, "state": next(states[name])}).encode()

    seen: list[tuple[str, str]] = []
    worker = WorkerClient("http://127.0.0.1:1", "t", transport=net)
    found = worker.wait(["a", "b"], lambda job: seen.append((job.id, job.state)), poll_s=0)
    assert [job.id for job in found] == ["a", "b"]
    assert seen == [("a", "running"), ("b", "done"), ("a", "done")]
    states = {"a": iter(["done"]), "b": iter(["running"] * 10**6), "c": iter(["running"] * 10**6)}
    with pytest.raises(WorkerError, match="2 of 3 jobs are not finished after 0 s; first: b"):
        worker.wait(["a", "b", "c"], poll_s=0, timeout_s=0.0)


def test_cancelling_leaves_finished_jobs_as_they_are() -> None:
    asked: list[str] = []

    def net(method: str, path: str, headers: Any, body: Any, timeout_s: float) -> tuple[int, bytes]:
        asked.append(path)
        return 200, record("done" if path.endswith("/a") else "running")

    calls = iter([None, Cancelled("stop")])

    def check() -> None:
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(Cancelled):
        WorkerClient("http://127.0.0.1:1", "t", transport=net).wait(["a", "b"], check_cancel=check, poll_s=0)
    assert asked == ["/api/jobs/a", "/api/jobs/b", "/api/jobs/b/cancel"]


def test_a_take_of_the_worker_is_a_take_like_any_other(tmp_path: Path) -> None:
    """Its progress is the job's; the same request is the same folder; a failure says what the worker said."""
    write_video(tmp_path / "take.mp4", [np.zeros((16, 24, 3), np.uint8)] * 2, 15)
    request = TakeRequest(Path("/e"), "c", Path("/s"), Path("/v"), "p")
    asked: list[Any] = []
    states = iter(["running", "done"])

    def net(method: str, path: str, headers: Any, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        if method == "POST":
            asked.append(json.loads(body or b""))
            return 200, answers(jobs=[json.loads(record("queued"))])
        return 200, record(next(states), output=tmp_path, done=1, total=4, note="half")

    steps: list[Any] = []
    backend = WorkerVideoBackend(WorkerClient("http://127.0.0.1:1", "t", transport=net), "oscar", tmp_path / "scratch")
    frames = list(backend.generate(request, lambda *step: steps.append(step)))
    assert [frame.shape for frame in frames] == [(16, 24, 3)] * 2
    assert steps == [(1, 4, "half")] * 2
    assert (backend.name, backend.domain, backend.version) == ("oscar", "generated", "worker")
    (job,) = asked[0]["jobs"]
    folder = Path(job["output"])
    assert (folder.parent, len(folder.name), job["backend"]) == (tmp_path / "scratch", 16, "oscar")
    states = iter(["failed"])
    with pytest.raises(TakeError, match="job j1 is failed: no reason given"):
        list(backend.generate(request))
    assert asked[1] == asked[0]
