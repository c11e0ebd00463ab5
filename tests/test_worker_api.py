# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: who is refused and how, what jobs may name; and the API described completely."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_api_support import Api
from worker_support import environment, make_place, wait_for

from retake.core.wire import job_to_json


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root")) as made:
        yield made


def test_the_token_is_needed_and_its_file_is_private(api: Api) -> None:
    assert stat.S_IMODE(os.stat(api.service.token_file).st_mode) == 0o600
    for headers in (
        {"Authorization": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {api.service.token}"},
        {"Authorization": f"Bearer {api.service.token}x"},
    ):
        for path in ("/api/status", "/api/jobs", "/api/openapi.json", "/api/events", "/api/nothing"):
            answer = api.ask("GET", path, headers=headers)
            assert answer.status_code == 401, path
            assert "token" in answer.json()["error"]
    assert api.ask("GET", "/api/health", headers={"Authorization": ""}).json()["ok"] is True
    assert api.ask("GET", "/api/status").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.5:8765", "", "localhost:80a", "[::2]:8765"]
)
def test_a_foreign_host_is_refused(api: Api, host: str) -> None:
    answer = api.ask("GET", "/api/status", headers={"Host": host})
    assert answer.status_code == 403
    assert "not this machine" in answer.json()["error"]
    assert api.ask("GET", "/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:8765", "http://127.0.0.1:9999", "http://localhost:8765"],
)
def test_a_foreign_origin_is_refused_even_with_the_token(api: Api, origin: str) -> None:
    assert api.ask("POST", "/api/queue/pause", headers={"Origin": origin}).status_code == 403
    assert not api.service.dispatcher.paused
    assert api.ask("POST", "/api/queue/pause", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert (
        api.ask(
            "GET", "/api/status", headers={"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
        ).status_code
        == 200
    )


def test_no_answer_may_be_used_by_other_pages(api: Api) -> None:
    for path in ("/", "/main.js", "/api/status"):
        headers = api.ask("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert headers["x-content-type-options"] == "nosniff"


def test_paths_outside_the_roots_are_refused(api: Api, tmp_path: Path) -> None:
    outside = make_place(tmp_path / "outside")
    good = job_to_json(api.place.job(1))
    (api.place.root / "link").symlink_to(outside.run)
    (api.place.root / "loop").symlink_to(api.place.root / "loop")
    bad = [
        (("request", "episode"), str(outside.run / "episode"), 403),
        (("request", "episode"), f"{api.place.run}/../../outside/run/episode", 403),
        (("request", "episode"), str(api.place.root / "link" / "episode"), 403),
        (("request", "skeleton"), "/etc", 403),
        (("request", "variant"), str(api.place.root / "link" / "variants" / "v0" / "front"), 403),
        (("output",), "/tmp/somewhere", 403),
        (("output",), f"{api.place.run}/takes/../../../x", 403),
        (("output",), str(api.place.root / "link" / "takes" / "x"), 403),
        (("output",), str(api.place.root / "loop" / "x"), (400, 403)),
        (("output",), str(api.place.root), 400),
        (("output",), str(api.place.run / "episode" / "x"), 400),
        (("output",), "relative/x", 400),
        (("output",), "/a\0b", 400),
        (("output",), "x" * 5000, 422),
        (("output",), str(api.place.run / ("n" * 300)), (200, 400)),
        (("request", "episode"), str(api.place.run / "nothing"), 400),
        (("request", "episode"), str(api.place.run / "skeleton"), 400),
        (("request", "seed"), -1, 422),
        (("request", "seed"), 2**70, 422),
        (("request", "prompt"), "p" * 30_000, 422),
        (("backend",), "nobody", 400),
        (("backend",), "procedural", 400),
        (("priority",), "1", 422),
        (("surprise",), 1, 422),
        (("kind",), "film", 422),
    ]
    for keys, value, status in bad:
        job = json.loads(json.dumps(good))
        place = job
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        answer = api.submit(job)
        assert answer.status_code in (status if isinstance(status, tuple) else (status,)), (keys, value, answer.text)
        if answer.status_code != 200:
            assert answer.json()["error"]
    assert api.service.store.counts()["failed"] == 0
    assert list(outside.run.glob("takes/*")) == []


def test_one_wrong_job_of_a_batch_queues_none(api: Api) -> None:
    api.ask("POST", "/api/queue/pause")
    wrong = {**job_to_json(api.place.job(2)), "output": "/etc/x"}
    answer = api.submit(api.place.job(1), wrong)
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("job 1: ")
    assert sum(api.service.store.counts().values()) == 0


def test_jobs_are_given_a_page_at_a_time(api: Api) -> None:
    api.ask("POST", "/api/queue/pause")
    ids = [api.submit(api.place.job(seed, name=f"t{seed}")).json()["jobs"][0]["id"] for seed in range(4)]

    def page(query: str) -> list[str]:
        answer = api.ask("GET", f"/api/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    assert page("state=queued&kind=take") == ids
    assert page("limit=2&offset=1&state=queued") == ids[1:3]
    assert page("limit=3&offset=3") == ids[3:]
    assert page("kind=variant") == page("state=done") == []
    assert api.ask("GET", "/api/jobs?kind=film").status_code == 400


def test_a_link_that_appears_after_the_check_is_still_refused(api: Api, tmp_path: Path) -> None:
    api.ask("POST", "/api/queue/pause")
    job_id = api.submit(api.place.job(1, name="late")).json()["jobs"][0]["id"]
    (tmp_path / "outside").mkdir()
    (api.place.run / "takes").mkdir()
    (api.place.run / "takes" / "late").symlink_to(tmp_path / "outside")
    api.ask("POST", "/api/queue/resume")
    wait_for(lambda: api.state(job_id) == "failed")
    assert "outside the worker's roots" in api.service.store.get(job_id).error
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_large_body_is_refused(api: Api) -> None:
    limit = api.service.settings.service.max_body_bytes
    assert api.ask("POST", "/api/jobs", content=b"x" * (limit + 1)).status_code == 413

    async def endless() -> Any:
        for _ in range(limit // 65536 + 2):
            yield b"[" * 65536

    assert (
        api.ask("POST", "/api/jobs", content=endless(), headers={"Content-Type": "application/json"}).status_code == 413
    )
    assert api.ask("POST", "/api/jobs", content=b"{}", headers={"Content-Length": "-1"}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"jobs": []}',
        b'{"jobs": [1]}',
        b'{"jobs": ' + b"[" * 50_000,
        b"\xff\xfe",
        b'{"jobs": [{"kind": "\\ud800"}]}',
        b'{"jobs": 1e999}',
        b"9" * 10_000,
    ],
)
def test_a_body_that_is_no_job_is_refused(api: Api, body: bytes) -> None:
    answer = api.ask("POST", "/api/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]


def test_settings_that_json_cannot_carry_are_refused(api: Api) -> None:
    good = json.dumps({"jobs": [job_to_json(api.place.job(1))]})
    for value in ("NaN", "1e999", '"\\ud800"', '{"\\udfff": 1}', "[" * 900 + "]" * 900):
        body = good.replace('"settings": {}', f'"settings": {{"x": {value}}}')
        answer = api.ask("POST", "/api/jobs", content=body.encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 422), (value, answer.text)
        assert answer.status_code == 200 or answer.json()["error"]


def test_the_description_is_complete(api: Api) -> None:
    schema = api.ask("GET", "/api/openapi.json").json()
    assert len(schema["paths"]) >= 15
    for path, methods in schema["paths"].items():
        assert path.startswith("/api/")
        for operation in methods.values():
            assert "422" in operation["responses"] or not operation.get("parameters")
