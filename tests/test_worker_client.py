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

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import Cancelled, InputError, WorkerError
from retake.core.takes.base import TakeRequest
from retake.core.wire import (
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
from retake.core.worker_client import HttpTransport, WorkerClient, WorkerUnreachableError, state_folder

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
