# SPDX-License-Identifier: Apache-2.0
"""The life of jobs as a client of the HTTP side sees it: events, results, retries, waiting, cancelling, clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_api_support import Api, FakeGpu
from worker_support import environment, make_place, settings_for, specs, wait_for

from retake.core.files import read_json, write_json
from retake.core.wire import job_to_json
from retake.worker.service import Service


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with Api(tmp_path, make_place(tmp_path / "root")) as made:
        yield made


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
    folder = api.place.run / "verdicts" / "v0-s1" / "front"
    folder.mkdir(parents=True)
    stated = {"schema": "retake.verdict/1", "status": "pass", "probability": 0.9, "video_sha256": "0" * 64}
    write_json(folder / "verdict.json", stated)
    assert api.ask("GET", "/api/takes?verdict=pass").json()["total"] == 0  # of another video
    video = read_json(api.place.run / "takes" / "v0-s1" / "front" / "take.json")["video_sha256"]
    write_json(folder / "verdict.json", {**stated, "video_sha256": video})
    answer = api.ask("GET", "/api/takes?verdict=pass").json()
    assert (answer["total"], answer["verdicts"]) == (1, ["pass"])


def test_a_take_that_is_not_ours_is_never_replaced(api: Api) -> None:
    foreign = api.place.run / "takes" / "mine" / "front"
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
    assert api.service.store.get(second).result["copied_from"] == "v0-s1/front"
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
    seen = [news]

    def nothing_new() -> bool:
        """A job that is done may still say what its card was given back for."""
        last = seen[-1]
        seen.append(api.ask("GET", f"/api/changes?since={last['next']}&epoch={last['epoch']}").json())
        assert {r["id"] for r in seen[-1]["jobs"]} <= {job_id}
        return seen[-1]["jobs"] == []

    wait_for(nothing_new)
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
