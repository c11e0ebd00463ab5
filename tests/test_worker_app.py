# SPDX-License-Identifier: Apache-2.0
"""What the HTTP side answers: limits of questions, what is filtered and paged, changes and events, and errors by their kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from worker_api_support import Api
from worker_support import make_place

from retake.core.errors import InputError, RetakeError, WorkerError
from retake.core.wire import API, job_to_json
from retake.worker import app as application
from retake.worker.roots import OutsideRootsError
from retake.worker.store import ConflictError, QueueUnwritableError, UnknownJobError


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service whose queue is paused, with three jobs."""
    tmp = tmp_path_factory.mktemp("app")
    with Api(tmp, make_place(tmp / "root", frames=2)) as made:
        made.ask("POST", "/api/queue/pause")
        made.ids = [job["id"] for job in made.submit(*map(made.place.job, range(3))).json()["jobs"]]  # type: ignore[attr-defined]
        yield made


def get(api: Api, path: str, status: int = 200) -> Any:
    answer = api.ask("GET", path)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_questions_have_limits(api):
    for fine, wrong in (
        ("/api/jobs?limit=1", "/api/jobs?limit=0"), ("/api/jobs?limit=1000", "/api/jobs?limit=1001"),
        ("/api/jobs?offset=0", "/api/jobs?offset=-1"), ("/api/jobs?offset=10000000", "/api/jobs?offset=10000001"),
        ("/api/takes?limit=1", "/api/takes?limit=0"), ("/api/takes?limit=1000", "/api/takes?limit=1001"),
        ("/api/takes?offset=0", "/api/takes?offset=-1"), ("/api/takes?offset=10000000", "/api/takes?offset=10000001"),
        (f"/api/changes?since={2**62}", f"/api/changes?since={2**62 + 1}"), ("/api/changes?since=0", "/api/changes?since=-1"),
        (f"/api/changes?epoch={'e' * 64}", f"/api/changes?epoch={'e' * 65}"),
        (f"/api/takes?episode={'e' * 300}", f"/api/takes?episode={'e' * 301}"),
    ):  # fmt: skip
        get(api, fine)
        assert get(api, wrong, 422)["error"]
    assert "no job" in get(api, f"/api/jobs/{'j' * 64}", 404)["error"]
    get(api, f"/api/jobs/{'j' * 65}", 422)


def test_what_is_wrong_with_a_body_is_said_of_its_first_five_faults(api):
    answer = api.ask(
        "POST", "/api/jobs", json={"jobs": [{**job_to_json(api.place.job(9)), f"odd{k}": 1} for k in range(9)]}
    )
    said = answer.json()["error"].split("; ")
    assert (answer.status_code, len(said)) == (422, 5)
    assert all(one.startswith(f"body.jobs.{k}.take.odd{k}: ") for k, one in enumerate(said))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutsideRootsError("x"), 403), (UnknownJobError("x"), 404), (ConflictError("x"), 409), (QueueUnwritableError("x"), 507),
        (InputError("x"), 400), (WorkerError("x"), 409), (RetakeError("x"), 409), (RecursionError("x"), 400),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), 400),
    ],
)  # fmt: skip
def test_every_kind_of_error_has_its_status(api, monkeypatch, error, status):
    def raises() -> Any:
        raise error

    monkeypatch.setattr(api.service, "status", raises)
    assert get(api, "/api/status", status)["error"] == str(error)
    if type(error) is RetakeError:
        error.args = ("",)
        assert get(api, "/api/status", status)["error"] == "RetakeError", "never nothing"


def test_answers_are_plain_ascii_and_numbers_are_numbers():
    assert json.loads(application.Answer({"x": "ü\ud800"}).body) == {"x": "ü\ud800"}
    assert application.Answer({"a": [1, "ü"]}).body == b'{"a":[1,"\\u00fc"]}'
    with pytest.raises(ValueError, match="JSON"):
        application.Answer({"x": float("nan")})


def test_changes_name_each_job_once_and_go_on_from_the_last_event(api):
    hub, (one, two, three) = api.service.hub, api.ids
    before = get(api, "/api/changes")
    assert before["reset"] is True
    since = f"/api/changes?since={before['next']}&epoch={before['epoch']}"
    assert get(api, since) == {**before, "reset": False, "jobs": []}
    for kind, data in (
        ("progress", {"id": two}), ("queue", {"id": three}), ("job", {"job": {"id": one}}), ("status", {}),
        ("preview", {"id": two}),
        ("progress", {"id": "of an unknown job"}),
    ):  # fmt: skip
        hub.publish(kind, data)
    after = get(api, since)
    assert [job["id"] for job in after["jobs"]] == [two, one]
    assert (after["next"], after["reset"], after["counts"]["queued"]) == (before["next"] + 6, False, 3)
    assert get(api, f"/api/changes?since={after['next']}&epoch={before['epoch']}")["jobs"] == []
    assert get(api, f"/api/changes?since={after['next'] - 1}&epoch={before['epoch']}")["next"] == after["next"]


def test_events_are_streamed_with_a_sign_of_life_until_the_service_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(application, "HEARTBEAT_S", 0.02)

    async def story(own: Api) -> str:
        hub = own.service.hub
        transport = httpx.ASGITransport(app=own.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            task = asyncio.create_task(client.get("/api/events", headers=own.headers, timeout=60))
            for kind in ("job", "queue"):
                while not hub._listeners:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.1)
                hub.publish(kind, {"of": kind})
            await asyncio.sleep(0.1)
            hub.close()
            return (await task).text

    with Api(tmp_path, make_place(tmp_path / "root", frames=2)) as own:
        own.service.hub.publish("early", {})
        first = own.service.hub.last
        parts = asyncio.run(story(own)).strip().split("\n\n")
    assert parts[0].startswith("event: hello\ndata: ")
    assert json.loads(parts[0].partition("data: ")[2]) == {"epoch": own.service.hub.epoch, "event": first}
    assert [part for part in parts[1:] if part != ": still here"] == [
        f'id: {first + 1}\nevent: job\ndata: {{"of": "job"}}', f'id: {first + 2}\nevent: queue\ndata: {{"of": "queue"}}',
    ]  # fmt: skip
    assert parts[1] == ": still here", "before the first event"
    assert parts.count(": still here") >= 3


def test_takes_are_chosen_by_what_they_are_and_given_a_page_at_a_time(api, monkeypatch):
    every = [
        {"key": str(k), "episode": f"e{k % 2}", "variant": f"v{k % 3}", "verdict": ("pass", "fail")[k % 5 == 0]}
        for k in range(70)
    ]
    shown = [SimpleNamespace(to_json=lambda one=one: one) for one in every]
    monkeypatch.setattr(api.service, "gallery", SimpleNamespace(takes=lambda: shown))

    def keys(query: str = "") -> list[int]:
        return [int(one["key"]) for one in get(api, f"/api/takes?{query}")["takes"]]

    assert keys() == list(range(60))
    assert keys("limit=7&offset=65") == list(range(65, 70))
    assert keys("episode=e1&limit=100") == list(range(1, 70, 2))
    assert keys("variant=v2&limit=100") == list(range(2, 70, 3))
    assert keys("verdict=fail&limit=100") == list(range(0, 70, 5))
    assert keys("episode=e1&variant=v2&verdict=fail") == [5, 35, 65]
    assert keys("episode=e1&variant=v2&verdict=fail&offset=1&limit=1") == [35]
    answer = get(api, "/api/takes?episode=e1&variant=v2&verdict=fail&limit=1")
    assert answer["total"] == 3
    assert (answer["episodes"], answer["variants"], answer["verdicts"]) == (
        ["e0", "e1"],
        ["v0", "v1", "v2"],
        ["fail", "pass"],
    )


def test_runs_name_the_backends_that_can_work_here_and_why_others_cannot(api, monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(
        api.service, "gallery", SimpleNamespace(runs=lambda names: asked.append(names) or [{"name": "r"}])
    )
    answer = get(api, "/api/runs")
    assert answer["runs"] == [{"name": "r"}]
    assert asked == [answer["take_backends"]] == [["broken", "gpu", "heavy", "sleepy"]]
    assert list(answer["unavailable"]) == ["nowhere"]
    assert "no_such_module" in answer["unavailable"]["nowhere"]


def test_a_part_of_a_take_is_there_or_said_to_be_missing(api, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"picture")
    found = {"known": SimpleNamespace()}
    media = lambda shown, part: (tmp_path / "x.png", "image/png") if part == "frame" else None  # noqa: E731
    monkeypatch.setattr(api.service, "gallery", SimpleNamespace(find=found.get, media=media))
    answer = api.ask("GET", "/api/takes/known/frame")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"picture", "image/png")
    assert "no take of a take 'known'" in get(api, "/api/takes/known/take", 404)["error"]
    assert "no frame of a take 'other'" in get(api, "/api/takes/other/frame", 404)["error"]


def test_a_preview_is_the_picture_of_a_running_job(api):
    job_id = api.ids[0]
    assert "has no preview now" in get(api, f"/api/jobs/{job_id}/preview", 404)["error"]
    picture = api.service.dispatcher.previews / f"{job_id}.jpg"
    picture.write_bytes(b"jpeg")
    answer = api.ask("GET", f"/api/jobs/{job_id}/preview")
    assert (answer.content, answer.headers["content-type"]) == (b"jpeg", "image/jpeg")
    picture.unlink()
    get(api, "/api/jobs/none/preview", 404)


def test_what_is_asked_of_a_job_or_the_queue_is_done_and_its_new_state_told(api):
    hub = api.service.hub
    job_id = api.submit(api.place.job(50)).json()["jobs"][0]["id"]
    assert api.ask("POST", f"/api/jobs/{job_id}/priority", json={"priority": 4}).json()["priority"] == 4
    assert api.ask("DELETE", f"/api/jobs/{job_id}").status_code == 409
    assert api.ask("POST", f"/api/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    assert api.ask("POST", f"/api/jobs/{job_id}/retry").json()["state"] == "queued"
    api.ask("POST", f"/api/jobs/{job_id}/cancel")
    before = hub.last
    gone = api.ask("DELETE", f"/api/jobs/{job_id}").json()
    assert (gone["id"], gone["state"]) == (job_id, "cancelled")
    assert [(kind, data["counts"]["cancelled"]) for _, kind, data in hub.since(before, hub.epoch)[1]] == [("queue", 0)]
    get(api, f"/api/jobs/{job_id}", 404)
    get(api, f"/api/jobs/{job_id}/log", 404)
    assert "queued" in get(api, f"/api/jobs/{api.ids[0]}")["state"]
    assert api.ask("POST", "/api/release").json()["executor"] == "absent"
    assert get(api, "/api/status")["paused"] is True


def test_pausing_and_going_on_are_told_at_once(tmp_path):
    with Api(tmp_path, make_place(tmp_path / "root", frames=2)) as own:
        assert own.ask("POST", "/api/queue/pause").json()["paused"] is True
        assert own.ask("POST", "/api/queue/resume").json()["paused"] is False
        assert own.ask("POST", "/api/release").json()["paused"] is False, "nothing waits"
        health = own.ask("GET", "/api/health", headers={"Authorization": ""}).json()
        assert health == {"ok": True, "api": API}
        assert own.ask("GET", "/").status_code == own.ask("GET", "/index.html").status_code == 200
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert own.ask("GET", path).status_code == 404, "their pages load scripts from the web"
        assert own.ask("GET", "/api/openapi.json").json()["info"]["version"] == API
