# SPDX-License-Identifier: Apache-2.0
"""What can go wrong around a worker, as functions of how often. Tests run them with small counts, `make prove` with the
full ones. Each ends with the same check: every take is there exactly once and equals an undisturbed run.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from worker_support import (
    Place,
    ServiceProcess,
    all_done,
    make_place,
    settings_for,
    specs,
    wait_for,
)

from retake.core.run_layout import name_of
from retake.core.wire import JobRecord, TakeJob
from retake.core.worker_client import WorkerClient
from retake.worker.execute import LocalRunner


def undisturbed(tmp: Path, seeds: range, frames: int) -> dict[str, str]:
    """The same takes made in this process, one after the other: name → hash."""
    place = make_place(tmp / "undisturbed", frames)
    runner = LocalRunner(specs())
    for seed in seeds:
        runner.run(place.job(seed))
    return place.takes()


def check(place: Place, expected: dict[str, str]) -> None:
    """Every take exactly once, equal to the undisturbed run, nothing beside them."""
    found = place.takes()
    assert found == expected, {name: (found.get(name), expected.get(name)) for name in {*found, *expected}}
    assert place.leftovers() == []


def service(tmp: Path, place: Place, **sections: dict[str, Any]) -> ServiceProcess:
    """A service process over a place."""
    _, config = settings_for(tmp, **sections)
    return ServiceProcess(place, tmp / "state", config)


def finish(client: WorkerClient, ids: list[str], timeout_s: float) -> list[JobRecord]:
    """Wait for all; what was quarantined or failed because of the killing is retried, as a person would."""
    end = time.monotonic() + timeout_s
    while True:
        status = client.status()
        if status.paused:
            client.resume()
        stopped = client.jobs("quarantined,failed", limit=1000)
        for record in stopped:
            client.retry(record.id)
        if not stopped and status.counts["queued"] + status.counts["running"] == 0:
            break
        assert time.monotonic() < end, (status.counts, status.notice)
        time.sleep(0.2)
    records = [client.job(job_id) for job_id in ids]
    assert all(r.state == "done" for r in records)
    return records


def executor_kills(tmp: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """SIGKILL the executor again and again at random points of a run."""
    rng, frames = random.Random(seed), 8
    seeds = range(max(4, kills // 2))
    expected = undisturbed(tmp, seeds, frames)
    place = make_place(tmp / "root", frames)
    process = service(tmp, place)
    client = process.start()
    done, quarantined, resumed = 0, 0, 0
    try:
        ids = [r.id for r in client.submit([place.job(s) for s in seeds])]

        def victim() -> psutil.Process | None:
            """The executor, with work to do: a person retries, resumes and asks for more meanwhile."""
            nonlocal quarantined, resumed, ids, expected
            status = client.status()
            for record in client.jobs("quarantined", limit=1000):
                quarantined += 1
                client.retry(record.id)
            if status.paused:  # killed three times while starting: it says so and waits for a person
                client.resume()
                resumed += 1
            if status.counts["queued"] + status.counts["running"] < 2:
                more = [place.job(s, name=f"more-{done}-{s}") for s in seeds]
                ids += [r.id for r in client.submit(more)]
                expected |= {job.output.parent.name: expected[f"v0-s{job.request.seed}"] for job in more}
            return process.executor()

        def in_mid_job() -> bool:
            """It works, is gone, or has done all there was: on a quick machine, what was asked for last is done at once."""
            status = client.status()
            waiting = status.counts["queued"] + status.counts["running"]
            return status.executor in ("busy", "absent") or status.paused or not waiting

        while done < kills:
            target = wait_for(victim, 60, "an executor to kill")
            if rng.random() < 0.7:  # mostly in mid-job, sometimes while it is starting
                wait_for(in_mid_job, 60, "a job to kill the executor in")
            time.sleep(rng.random() * 0.3)
            if target.is_running():
                target.kill()
                target.wait(10)
                done += 1
        if client.status().paused:
            client.resume()
        finish(client, ids, 120 + 2 * len(ids))
    finally:
        process.stop()
    check(place, expected)
    return {"kills": done, "takes": len(expected), "quarantined_and_retried": quarantined, "resumed": resumed}


POISONS = (
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: no CUDA-capable device is detected",  # the card disappeared
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
)


def poisoned_contexts(tmp: Path, count: int, seed: int = 3) -> dict[str, Any]:
    """Some jobs break their process's CUDA context, some run out of memory: others are not failed for it."""
    rng, frames = random.Random(seed), 4
    expected = undisturbed(tmp, range(count), frames)
    place = make_place(tmp / "root", frames)
    guilty = rng.sample(range(count), max(1, count // 3))
    jobs = []
    for number in range(count):
        fault: dict[str, Any] = {}
        if number in guilty:
            marker, kind = str(tmp / f"once-{number}"), guilty.index(number) % (len(POISONS) + 1)
            fault = {"oom_once": marker} if kind == len(POISONS) else {"poison_once": marker, "poison": POISONS[kind]}
        jobs.append(place.job(number, **fault))
    process = service(tmp, place)
    client = process.start()
    try:
        records = finish(client, [record.id for record in client.submit(jobs)], 120 + 2 * count)
    finally:
        process.stop()
    check(place, expected)
    attempts = [record.attempts for record in records]
    assert attempts == [2 if number in guilty else 1 for number in range(count)]
    assert all(record.crashes == 0 for record in records)
    return {"jobs": count, "faults": len(guilty), "attempts": sum(attempts), "failed_for_another": 0}


def service_kills(tmp: Path, kills: int, everything: bool = False, seed: int = 1) -> dict[str, Any]:
    """SIGKILL the service (or service and executor at once) in mid-job, restart it, and go on."""
    rng, frames = random.Random(seed), 8
    seeds = range(max(3, 2 * kills // 3))
    expected = undisturbed(tmp, seeds, frames)
    place = make_place(tmp / "root", frames)
    process = service(tmp, place)
    client = process.start()
    orphans, mid_job = 0, 0
    try:
        # The pause is no part of the request's pixels here, but of its identity: all runs use the same.
        ids = [r.id for r in client.submit([place.job(s) for s in seeds])]
        for kill in range(kills):
            if client.status().counts["queued"] == 0:
                again = [place.job(s, name=f"again-{kill}-{s}") for s in seeds]
                ids += [r.id for r in client.submit(again)]
                expected |= {job.output.parent.name: expected[f"v0-s{job.request.seed}"] for job in again}
            wait_for(lambda c=client: c.status().running or c.status().counts["queued"] == 0, 30)
            time.sleep(rng.random() * 0.15)
            executor = process.executor()
            mid_job += bool(client.status().running)
            (process.kill_everything if everything else process.kill)()
            if executor is not None:
                try:
                    executor.wait(10)
                except psutil.TimeoutExpired:
                    orphans += 1
            client = process.start()
        finish(client, ids, 120 + 2 * len(ids))
    finally:
        process.stop()
    assert orphans == 0, f"{orphans} executors outlived their service"
    check(place, expected)
    return {"kills": kills, "in_mid_job": mid_job, "takes": len(expected), "orphans": orphans}


def disk_full(tmp: Path) -> dict[str, Any]:
    """The disk is full while outputs are written, and later it is not."""
    frames, seeds = 8, range(4)
    expected = undisturbed(tmp, seeds, frames)
    place = make_place(tmp / "root", frames)
    marker = tmp / "disk-is-full"
    marker.touch()
    process = service(tmp, place, queue={"retry_delay_s": 0.05, "max_attempts": 3, "backup_s": 0.2})
    client = process.start()
    try:
        ids = [r.id for r in client.submit([place.job(s, disk_full=str(marker), max_attempts=100) for s in seeds])]
        wait_for(lambda: any("No space left" in r.error for r in client.jobs()), 30, "a refused write")
        assert place.takes() == {}, "nothing may look finished while the disk is full"
        marker.unlink()
        records = all_done(client, ids, 60)
        log = client.log(records[0].id)
    finally:
        process.stop()
    check(place, expected)
    assert "No space left" in log
    return {"takes": len(expected), "said": "No space left on device"}


def corrupted(tmp: Path, rounds: int, seed: int = 2, with_backup: bool = True) -> dict[str, Any]:
    """Pages of the queue's file are overwritten with noise while the service is down."""
    rng, frames, seeds = random.Random(seed), 4, range(5)
    expected = undisturbed(tmp, seeds, frames)
    place = make_place(tmp / "root", frames)
    process = service(tmp, place)
    client = process.start()
    noticed = 0
    try:
        jobs = [place.job(s) for s in seeds]
        all_done(client, [r.id for r in client.submit(jobs)])
        for _ in range(rounds):
            before = {p: p.stat().st_mtime_ns for p in place.run.rglob("*") if p.is_file()}
            process.stop()
            database = process.state / "queue.sqlite"
            if not with_backup:
                (process.state / "queue.backup.sqlite").unlink()
            data = bytearray(database.read_bytes())
            page = rng.randrange(len(data) // 4096)
            data[4096 * page : 4096 * (page + 1)] = rng.randbytes(4096)
            database.write_bytes(data)
            client = process.start()
            status = client.status()
            noticed += "damaged" in status.notice
            assert {p: p.stat().st_mtime_ns for p in before} == before, "outputs were touched"
            all_done(client, [r.id for r in client.submit(jobs)])
    finally:
        process.stop()
    check(place, expected)
    return {"rounds": rounds, "noticed": noticed, "takes": len(expected)}


def two_clients(tmp: Path, count: int) -> dict[str, Any]:
    """Two clients submit the same jobs at once, in different orders and batches."""
    frames, seeds = 2, range(count)
    expected = undisturbed(tmp, seeds, frames)
    place = make_place(tmp / "root", frames)
    process = service(tmp, place)
    client = process.start()
    try:
        jobs = [place.job(s) for s in seeds]
        answers: list[tuple[JobRecord, ...]] = []

        def send(order: list[TakeJob], batch: int) -> None:
            mine = WorkerClient(client.url, client._token, timeout_s=60)
            answers.append(tuple(r for k in range(0, len(order), batch) for r in mine.submit(order[k : k + batch])))

        threads = [threading.Thread(target=send, args=(jobs, 17)), threading.Thread(target=send, args=(jobs[::-1], 23))]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {r.id for r in answers[0]} == {r.id for r in answers[1]}
        wait_for(lambda: client.status().counts["done"] == count, 60 + count, "all jobs")
        took = time.monotonic() - began
        assert sum(client.status().counts.values()) == count
        records = [r for k in range(0, count, 1000) for r in client.jobs("done", limit=1000, after=k)]
        assert len({r.id for r in records}) == count
        assert all(r.attempts == 1 for r in records), "a job was computed twice"
    finally:
        process.stop()
    check(place, expected)
    return {"jobs": count, "clients": 2, "computed": len(records), "seconds": round(took, 1)}


def big_queue(tmp: Path, count: int) -> dict[str, Any]:
    """Many queued jobs: how fast they are taken, listed, and how much memory that needs."""
    place = make_place(tmp / "root", 2)
    process = service(tmp, place)
    client = process.start()
    try:
        client.pause()
        jobs = [place.job(seed, priority=seed % 7) for seed in range(count)]
        server = psutil.Process(process.process.pid)
        before, cpu = server.memory_info().rss, sum(server.cpu_times()[:2])
        began = time.monotonic()
        client.submit(jobs)
        submit_s = time.monotonic() - began
        cpu_s = sum(server.cpu_times()[:2]) - cpu
        listing = []
        for _ in range(20):
            began = time.monotonic()
            page = client.jobs("running,queued", limit=100)
            listing.append(time.monotonic() - began)
            assert len(page) == 100
            assert page[0].priority == 6
        singles = []
        for seed in range(count, count + 30):
            began = time.monotonic()
            client.submit([place.job(seed)])
            singles.append(time.monotonic() - began)
        assert client.status().counts["queued"] == count + 30
        memory = server.memory_info().rss
    finally:
        process.stop()
    return {
        "jobs": count, "submit_per_s": round(count / submit_s), "submit_per_cpu_s": round(count / cpu_s),
         "single_submit_ms_median": round(1000 * statistics.median(singles), 1),
        "first_page_ms_median": round(1000 * statistics.median(listing), 1), "first_page_ms_worst": round(1000 * max(listing), 1),
        "service_memory_mb": round(memory / 1e6, 1), "service_memory_mb_before": round(before / 1e6, 1),
    }  # fmt: skip


def cancel_times(tmp: Path, rounds: int) -> dict[str, Any]:
    """Cancel jobs that listen, and jobs that do not."""
    place = make_place(tmp / "root", 8)
    process = service(tmp, place, executor={"cancel_grace_s": 2.5})
    client = process.start()
    times: dict[str, list[float]] = {"listening": [], "deaf": []}
    try:
        for k in range(rounds):
            for kind, wish in (("listening", {"sleep_s": 0.05}), ("deaf", {"deaf": True, "hang_s": 60, "at": 1})):
                [record] = client.submit([place.job(1000 + k, name=f"{kind}-{k}", frames=8, max_attempts=1, **wish)])
                wait_for(lambda record=record: client.job(record.id).done >= 1, 30)
                began = time.monotonic()
                client.cancel(record.id)
                wait_for(lambda record=record: client.job(record.id).state == "cancelled", 10)
                times[kind].append(time.monotonic() - began)
    finally:
        process.stop()
    assert place.takes() == {}
    assert place.leftovers() == []
    return {"rounds": rounds, **{f"{kind}_worst_s": round(max(t), 2) for kind, t in times.items()}}


def release_memory(tmp: Path) -> dict[str, Any]:
    """`release` ends the executor; its memory is back, its job is not lost."""
    place = make_place(tmp / "root", 8)
    process = service(tmp, place)
    client = process.start()
    try:
        [record] = client.submit([place.job(1, backend="heavy", sleep_s=0.3)])
        wait_for(lambda: client.job(record.id).done >= 1, 30)
        status = client.status()
        held, pid = status.executor_rss_bytes, status.executor_pid
        assert held > 200e6
        began = time.monotonic()
        status = client.release()
        took = time.monotonic() - began
        assert not psutil.pid_exists(pid), "the executor is still there"
        assert status.executor == "absent"
        assert status.executor_rss_bytes == 0
        assert status.paused
        job = client.job(record.id)
        assert (job.state, job.attempts) == ("queued", 0)
        client.resume()
        all_done(client, [record.id])
    finally:
        process.stop()
    return {"held_mb": round(held / 1e6), "held_after_mb": 0, "seconds": round(took, 2)}


def fuzz(tmp: Path, cases: int, seed: int = 0) -> dict[str, Any]:
    """Requests made from the API's own description, valid and broken ones; none may be answered with 5xx.

    The endless event stream is left out (its own test covers it).
    """
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis import GenerationMode

    place = make_place(tmp / "root", 2)
    process = service(tmp, place)
    client = process.start()
    codes: dict[int, int] = {}
    try:
        all_done(client, [client.submit([place.job(1)])[0].id])
        headers = {"Authorization": f"Bearer {client._token}"}
        schema = schemathesis.openapi.from_url(f"{client.url}/api/openapi.json", headers=headers)
        operations = [r.ok() for r in schema.get_all_operations() if r.ok().path != "/api/events"]
        with requests.Session() as session:
            for number, operation in enumerate(operations):
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                    @seeded(seed + number)
                    @settings(
                        max_examples=-(-cases // (2 * len(operations))), database=None, deadline=None, phases=[Phase.generate],
                        suppress_health_check=list(HealthCheck),
                    )  # fmt: skip
                    @given(case=operation.as_strategy(generation_mode=mode))
                    def attack(case: Any) -> None:
                        answer = case.call(base_url=client.url, session=session, headers=headers, timeout=30)
                        codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
                        assert answer.status_code < 500, (answer.status_code, answer.text[:500], case.as_curl_command())
                        if answer.status_code >= 400:
                            assert answer.json()["error"]

                    try:
                        attack()
                    except Exception as error:
                        if (
                            "Unsatisfiable" not in type(error).__name__
                        ):  # nothing can be wrong about a call without arguments
                            raise
        assert process.process.poll() is None, "the service died"
        assert client.status().event >= 0
    finally:
        process.stop()
    return {
        "cases": sum(codes.values()),
        "operations": len(operations),
        "status_codes": dict(sorted(codes.items())),
        "errors_5xx": 0,
    }


def ray_lost_node(tmp: Path, count: int) -> dict[str, Any]:
    """A cluster of two nodes, one of which dies in mid-run."""
    import ray
    from ray.cluster_utils import Cluster

    from retake.worker.content import Hasher, content_hash
    from retake.worker.ray_run import Fleet

    frames, seeds = 6, range(count)
    expected = undisturbed(tmp, seeds, frames)
    place = make_place(tmp / "root", frames)
    spec, hasher = specs()["sleepy"], Hasher()
    jobs = [(job, content_hash(job, spec, hasher)) for job in (place.job(s, sleep_s=0.1) for s in seeds)]

    def naps(name: str) -> list[Any]:
        """Bound by sleeping: what is measured is the fan-out, not this machine's cores."""
        few = count < 20  # nobody asks how fast
        made = (
            place.job(1000 + s, name=f"{name}-{s}", sleep_s=0.2 if few else 1.0, frames=2)
            for s in range(1 if few else 10)
        )
        return [(j, content_hash(j, spec, hasher)) for j in made]

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20},
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    made: list[str] = []
    try:
        environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            runtime_env=environment,
        )
        with Fleet("running", spec, size=2) as fleet:
            assert fleet.settle() == 2
            fleet.run([(place.job(900 + k, name=f"warm-{k}"), "") for k in range(4)])
            began = time.monotonic()
            assert fleet.run(naps("two")) == {}
            two_s = time.monotonic() - began
            killer = threading.Timer(0.9, lambda: cluster.remove_node(nodes[1], allow_graceful=False))
            killer.start()
            assert fleet.run(jobs, lambda job: made.append(name_of(job.output))) == {}
            killer.join()
            lost_after = fleet.lost
            began = time.monotonic()
            assert fleet.run(naps("one")) == {}
            one_s = time.monotonic() - began
    finally:
        ray.shutdown()
        cluster.shutdown()
    takes = {name: video for name, video in place.takes().items() if name.startswith("v0-")}
    assert takes == expected
    assert place.leftovers() == []
    assert len(made) == len(set(made)) == count, "a take was made twice"
    return {
        "takes": count,
        "actors_lost": lost_after,
        "speed_up_2_workers": round(one_s / two_s, 2),
        "one_s": round(one_s, 2),
        "two_s": round(two_s, 2),
    }
