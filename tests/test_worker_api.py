# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: who is refused and how, what jobs may name, events; and the whole API fuzzed from its own description."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from worker_support import Place, environment, make_place, settings_for, specs, wait_for

from retake.core.files import read_json, write_json
from retake.core.wire import GpuDevice, GpuProcess, job_to_json
from retake.worker.app import create_app
from retake.worker.service import Service


class FakeGpu:
    """A card whose memory a test decides."""

    def __init__(self, free_gib: float = 40.0) -> None:
        self.free_gib = free_gib

    def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
        free = int(self.free_gib * 2**30)
        held = 48 * 2**30 - free
        return (GpuDevice(0, "Pretend 48", 48 * 2**30, held, free, (GpuProcess(42, "isaac-sim", held, False),)),)


class Api:
    """A service in this process, asked without sockets."""

    def __init__(self, tmp: Path, place: Place, **sections: dict[str, Any]) -> None:
        config, _ = settings_for(tmp, **sections)
        self.place, self.gpu = place, FakeGpu()
        self.service = Service(tmp / "state", [place.root], config, backends=specs(), gpu=self.gpu)
        self.app = create_app(self.service)
        self.headers = {"Authorization": f"Bearer {self.service.token}"}

    def __enter__(self) -> Api:
        self.service.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.service.stop()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        import asyncio

        headers = {**self.headers, **options.pop("headers", {})}

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(go())

    def submit(self, *jobs: Any) -> httpx.Response:
        return self.ask(
            "POST", "/api/jobs", json={"jobs": [j if isinstance(j, dict) else job_to_json(j) for j in jobs]}
        )

    def state(self, job_id: str) -> str:
        return self.service.store.get(job_id).state


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
        (("request", "variant"), str(api.place.root / "link" / "variants" / "v0"), 403),
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


def test_the_state_of_a_job_is_told_from_submission_to_result(api: Api) -> None:
    assert api.submit(api.place.job(1)).json()["created"] == 1
    job = api.submit(api.place.job(1)).json()
    assert job["created"] == 0
    job_id = job["jobs"][0]["id"]
    wait_for(lambda: api.state(job_id) == "done")
    record = api.ask("GET", f"/api/jobs/{job_id}").json()
    side = record["result"]
    assert side["video_sha256"] == api.place.takes()["v0-s1"]
    assert side["extra"]["code"]
    assert side["extra"]["content"] == record["content"]
    assert side["run"]["attempt"] == 1
    assert side["run"]["total_s"] >= 0
    assert set(side["inputs"]) >= {"episode", "skeleton", "first_frame"}
    assert (side["seed"], side["prompt"], side["model"], side["revision"]) == (
        1,
        "a packet, seed 1",
        "sleepy-model",
        "r1",
    )
    assert "done" in api.ask("GET", f"/api/jobs/{job_id}/log").json()["log"]
    assert api.ask("GET", "/api/jobs/none/log").status_code == 404
    takes = api.ask("GET", "/api/takes").json()
    assert takes["total"] == 1
    [take] = takes["takes"]
    for part, kind in (
        ("take", "video/mp4"),
        ("simulation", "video/mp4"),
        ("skeleton", "video/mp4"),
        ("frame", "image/png"),
        ("sidecar", "application/json"),
    ):
        answer = api.ask("GET", f"/api/takes/{take['key']}/{part}")
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind), part
        assert len(answer.content) > 100
    assert api.ask("GET", f"/api/takes/{take['key']}/take", headers={"Range": "bytes=0-9"}).status_code == 206
    assert api.ask("GET", f"/api/takes/{take['key']}/secrets").status_code == 422
    assert api.ask("GET", "/api/takes/00/take").status_code == 404
    assert api.ask("GET", "/api/takes?verdict=pass").json()["total"] == 0


def test_every_event_says_its_kind_and_what_happened(api: Api) -> None:
    job_id = api.submit(api.place.job(1)).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(job_id) == "done")
    api.ask("POST", "/api/queue/pause")
    hub = api.service.hub
    missed, events = hub.since(0, hub.epoch)
    assert not missed
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    by_kind = {kind: [data for _, k, data in events if k == kind] for _, kind, _ in events}
    assert {"job", "progress", "queue", "status"} <= set(by_kind) <= {"job", "progress", "preview", "queue", "status"}
    assert [data["job"]["id"] for data in by_kind["job"]].count(job_id) >= 2
    assert by_kind["job"][-1]["job"]["state"] == "done"
    for data in by_kind["progress"]:
        assert data["id"] == job_id
        assert 0 <= data["done"] <= data["total"] == api.place.frames
    done = [data["done"] for data in by_kind["progress"]]
    assert done == sorted(done)
    assert sum(by_kind["job"][-1]["counts"].values()) == 1


def test_the_gallery_knows_verdicts(api: Api) -> None:
    job_id = api.submit(api.place.job(1)).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(job_id) == "done")
    folder = api.place.run / "verdicts" / "v0-s1"
    folder.mkdir(parents=True)
    stated = {"schema": "retake.verdict/1", "status": "pass", "probability": 0.9, "video_sha256": "0" * 64}
    write_json(folder / "verdict.json", stated)
    assert api.ask("GET", "/api/takes?verdict=pass").json()["total"] == 0  # of another video
    video = read_json(api.place.run / "takes" / "v0-s1" / "take.json")["video_sha256"]
    write_json(folder / "verdict.json", {**stated, "video_sha256": video})
    answer = api.ask("GET", "/api/takes?verdict=pass").json()
    assert (answer["total"], answer["verdicts"]) == (1, ["pass"])


def test_a_take_that_is_not_ours_is_never_replaced(api: Api) -> None:
    foreign = api.place.run / "takes" / "mine"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("keep me")
    assert api.submit(api.place.job(1, name="mine")).status_code == 400
    job_id = api.submit(api.place.job(1, name="one")).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(job_id) == "done")
    before = api.place.takes()
    api.ask("DELETE", f"/api/jobs/{job_id}")
    other = api.submit(api.place.job(2, name="one")).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(other) == "failed")
    assert "another request" in api.service.store.get(other).error
    assert api.place.takes() == before
    assert (foreign / "notes.txt").read_text() == "keep me"


def test_equal_content_elsewhere_is_copied_not_computed(api: Api) -> None:
    first = api.submit(api.place.job(1, sleep_s=0.1)).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(first) == "done")
    began = time.monotonic()
    second = api.submit(api.place.job(1, name="copy", sleep_s=0.1)).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(second) == "done")
    takes = api.place.takes()
    assert takes["copy"] == takes["v0-s1"]
    assert api.service.store.get(second).result["copied_from"] == "v0-s1"
    assert time.monotonic() - began < 5


def test_failures_are_tried_again_wrong_input_is_not(api: Api, tmp_path: Path) -> None:
    marker = str(tmp_path / "first")
    flaky, wrong, broken, nowhere, hopeless = (
        answer["id"]
        for answer in api.submit(
            api.place.job(1, error_once=marker), api.place.job(2, wrong_input="no such camera"),
            api.place.job(3, backend="broken"),
            api.place.job(4, backend="nowhere"), api.place.job(5, error="it rains", max_attempts=2),
        ).json()["jobs"]
    )  # fmt: skip
    wait_for(lambda: api.service.store.counts()["queued"] + api.service.store.counts()["running"] == 0)
    get = api.service.store.get
    assert (get(flaky).state, get(flaky).attempts) == ("done", 2)
    assert (get(wrong).state, get(wrong).attempts, get(wrong).error) == ("failed", 1, "no such camera")
    assert (get(broken).state, get(broken).attempts) == ("failed", 3)
    assert (get(nowhere).state, get(nowhere).attempts) == ("failed", 1)
    assert "no_such_module" in get(nowhere).error
    assert (get(hopeless).state, get(hopeless).attempts, get(hopeless).error) == ("failed", 2, "it rains")
    assert set(api.place.takes()) == {"v0-s1"}
    assert api.place.leftovers() == []


def test_a_job_that_kills_the_executor_twice_is_quarantined_and_others_go_on(api: Api) -> None:
    poison, well = (
        r["id"] for r in api.submit(api.place.job(1, die="SIGSEGV", priority=5), api.place.job(2)).json()["jobs"]
    )
    wait_for(lambda: api.state(poison) == "quarantined" and api.state(well) == "done", 60)
    record = api.service.store.get(poison)
    assert record.crashes == 2
    assert "SIGSEGV" in record.error
    log = api.service.store.log_of(poison)
    assert "Segmentation fault" in log, "what the process last said belongs to the job's log"
    assert api.submit(api.place.job(1, die="SIGSEGV", priority=5)).json()["jobs"][0]["state"] == "quarantined"
    assert api.ask("POST", f"/api/jobs/{poison}/retry").json()["state"] in ("queued", "running")
    wait_for(lambda: api.state(poison) == "quarantined", 60)


def test_out_of_memory_restarts_the_executor(api: Api, tmp_path: Path) -> None:
    first = api.submit(api.place.job(1)).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(first) == "done")
    before = api.service.dispatcher.executor_state()[1]
    job_id = api.submit(api.place.job(2, oom_once=str(tmp_path / "oom"))).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(job_id) == "done")
    assert api.service.dispatcher.executor_state()[1] != before
    assert api.service.store.get(job_id).crashes == 0


def test_a_hanging_job_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root"), executor={"no_progress_s": 1.0}) as api:
        job_id = api.submit(api.place.job(1, hang_s=60, max_attempts=1)).json()["jobs"][0]["id"]
        wait_for(lambda: api.state(job_id) in ("failed", "quarantined"), 60)
        assert "no sign of life" in api.service.store.log_of(job_id)


def test_a_job_waits_visibly_for_gpu_memory_and_others_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root")) as api:
        api.gpu.free_gib = 3.0
        big, cpu = (r["id"] for r in api.submit(api.place.job(1, backend="gpu"), api.place.job(2)).json()["jobs"])
        wait_for(lambda: api.state(cpu) == "done")
        status = wait_for(lambda: (s := api.service.status()).waiting and s)
        assert api.state(big) == "queued"
        assert "isaac-sim (process 42, 45.0 GiB)" in status.waiting
        assert "needs 4.0 GiB + 1.0 GiB margin" in status.waiting
        assert status.gpus[0].processes[0].name == "isaac-sim"
        api.gpu.free_gib = 6.0
        wait_for(lambda: api.state(big) == "done")
        assert api.service.store.get(big).result["run"]["tier"] == "small"
        api.gpu.free_gib = 40.0
        other = api.submit(api.place.job(3, backend="gpu")).json()["jobs"][0]["id"]
        wait_for(lambda: api.state(other) == "done")
        assert api.service.store.get(other).result["run"]["tier"] == "big"
        assert api.service.status().tier == "big"


def test_waiting_for_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root"), waiting={"memory_wait_s": 0.5, "disk_floor_gib": 0.0}) as api:
        api.gpu.free_gib = 3.0
        job_id = api.submit(api.place.job(1, backend="gpu")).json()["jobs"][0]["id"]
        wait_for(lambda: api.state(job_id) == "failed")
        assert "gave up after" in api.service.store.get(job_id).error
        assert "isaac-sim" in api.service.store.get(job_id).error


def test_a_full_disk_holds_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root"), waiting={"disk_floor_gib": 1e6}) as api:
        job_id = api.submit(api.place.job(1)).json()["jobs"][0]["id"]
        status = wait_for(lambda: (s := api.service.status()).waiting and s)
        assert "disk space" in status.waiting
        assert api.state(job_id) == "queued"


def test_pause_resume_priority_cancel(api: Api) -> None:
    api.ask("POST", "/api/queue/pause")
    a, b, c = (r["id"] for r in api.submit(*(api.place.job(k) for k in (1, 2, 3))).json()["jobs"])
    assert api.ask("POST", f"/api/jobs/{c}/priority", json={"priority": 9}).json()["priority"] == 9
    assert api.ask("POST", f"/api/jobs/{b}/cancel").json()["state"] == "cancelled"
    time.sleep(0.3)
    assert api.service.store.counts()["queued"] == 2
    api.ask("POST", "/api/queue/resume")
    wait_for(lambda: api.service.store.counts()["done"] == 2)
    assert api.service.store.get(c).started_s <= api.service.store.get(a).started_s
    assert api.ask("POST", f"/api/jobs/{a}/cancel").json()["state"] == "done"
    assert api.ask("POST", f"/api/jobs/{a}/retry").status_code == 409
    assert api.ask("POST", f"/api/jobs/{a}/priority", json={"priority": 1}).status_code == 409
    assert api.ask("POST", f"/api/jobs/{b}/retry").json()["state"] in ("queued", "running")


def test_changes_tell_only_what_is_new(api: Api) -> None:
    first = api.ask("GET", "/api/changes").json()
    assert first["reset"], "without an epoch everything must be read"
    job_id = api.submit(api.place.job(1)).json()["jobs"][0]["id"]
    wait_for(lambda: api.state(job_id) == "done")
    news = api.ask("GET", f"/api/changes?since={first['next']}&epoch={first['epoch']}").json()
    assert not news["reset"]
    assert [r["id"] for r in news["jobs"]] == [job_id]
    later = api.ask("GET", f"/api/changes?since={news['next']}&epoch={news['epoch']}").json()
    assert later["jobs"] == []
    assert api.ask("GET", "/api/changes?since=-1").status_code == 422


def test_a_jumping_clock_disturbs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    place, config = make_place(tmp_path / "root"), settings_for(tmp_path)[0]
    times = iter([1e9, 4e9, 5.0, 0.0, 2e9, 1e8] * 500)
    with Service(
        tmp_path / "state", [place.root], config, backends=specs(), gpu=FakeGpu(), clock=lambda: next(times)
    ) as service:
        records, _ = service.submit([job_to_json(place.job(k)) for k in range(6)])
        wait_for(lambda: service.store.counts()["done"] == 6, 60)
        assert all(r.eta_s is None or r.eta_s >= 0 for r in records)
        assert len(place.takes()) == 6


def test_one_state_folder_has_one_service(api: Api) -> None:
    from retake.core.errors import WorkerError

    with pytest.raises(WorkerError, match="another worker uses"):
        Service(api.service.state, [api.place.root], api.service.settings, backends=specs())


def test_the_description_is_complete(api: Api) -> None:
    schema = api.ask("GET", "/api/openapi.json").json()
    assert len(schema["paths"]) >= 15
    for path, methods in schema["paths"].items():
        assert path.startswith("/api/")
        for operation in methods.values():
            assert "422" in operation["responses"] or not operation.get("parameters")
