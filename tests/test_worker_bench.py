# SPDX-License-Identifier: Apache-2.0
"""The figures of `retake bench worker`, on a clock that a test turns and against a service that it writes. Of
retake.worker.bench."""

from __future__ import annotations

import json
import subprocess
from itertools import count as counting
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from retake.core.episode import open_episode
from retake.core.errors import InputError
from retake.core.files import read_json, sha256_file
from retake.core.variants.make import read_frame
from retake.worker import bench, execute
from retake.worker.settings import BackendSpec

POPEN = subprocess.Popen


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1000, "it waits for ever"


class Service:
    """A service in this process. A job alone is at work after so many looks; those sent while paused are done one per look."""

    def __init__(self) -> None:
        self.clock, self.seen, self.jobs, self.ended = Clock(), [], [], []
        self.paused, self.left, self.looks = False, [], {}
        self.needs, self.end = iter([40, *([3, 1, 2, 5, 4] * 6)]), "done"
        self.local = iter([9.0, *([0.001, 0.002, 0.003, 0.010, 0.004] * 20)])
        self.ready, self.log = json.dumps({"url": "http://here", "token_file": "TOKEN"}) + "\n", ""

    # the process

    def start(self, command: list[str], stdout: Any = None, stderr: Any = None, text: bool = False, **more: Any) -> Any:
        if "retake.worker" not in command:
            return POPEN(command, stdout=stdout, stderr=stderr, text=text, **more)
        assert (stdout, text, command[1:5]) == (subprocess.PIPE, True, ["-m", "retake.worker", "--port", "0"])
        self.command = dict(zip(command[3::2], command[4::2], strict=True))
        self.config = yaml.safe_load(Path(self.command["--config"]).read_text("utf-8"))
        stderr.write(self.log.encode())
        stderr.flush()
        token = Path(self.command["--root"]).parent / "token"
        token.write_text("secret\n", "ascii")
        said = [self.ready.replace("TOKEN", str(token))]
        out = SimpleNamespace(readline=lambda: said.pop(), close=lambda: self.ended.append("closed"))
        return SimpleNamespace(
            stdout=out, terminate=lambda: self.ended.append("asked"), wait=lambda seconds: self.ended.append("gone")
        )

    # the client

    def connect(self, url: str, token: str, timeout_s: float) -> Service:
        assert (url, token, timeout_s) == ("http://here", "secret", 30)
        return self

    def record(self, job_id: int, done: int, state: str) -> Any:
        return SimpleNamespace(id=job_id, done=done, state=state)

    def submit(self, jobs: list[Any]) -> list[Any]:
        ids = [len(self.jobs) + k for k in range(len(jobs))]
        self.jobs += jobs
        if self.paused:
            self.left = ids
            self.batch = len(ids)
        else:
            [only] = ids
            self.looks[only] = next(self.needs)
        return [self.record(job_id, 0, "queued") for job_id in ids]

    def job(self, job_id: int) -> Any:
        if job_id not in self.looks:
            return self.record(job_id, 2, self.end if job_id == len(self.jobs) - 1 else "done")
        self.looks[job_id] -= 1
        left = self.looks[job_id]
        if job_id == 3 and left == 0:  # over before anybody saw it work
            return self.record(job_id, 0, "done")
        return self.record(job_id, int(left <= 0), "queued" if left > 2 else "running" if left > -3 else "done")

    def wait(self, ids: list[int], poll_s: float) -> None:
        [only] = ids
        self.clock.now += 50 * poll_s
        self.seen.append(("waited for", only, poll_s))

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.seen.append("resumed")

    def status(self) -> Any:
        assert not self.paused
        running, self.left = self.left[:1] if len(self.left) < self.batch else [], self.left[1:]
        return SimpleNamespace(counts={"queued": len(self.left)}, running=running)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()

    def run(job: Any) -> None:
        made.seen.append(("here", job.output.name, job.request.seed))
        made.clock.now += next(made.local)

    def runner(backends: dict[str, Any]) -> Any:
        [(name, spec)] = backends.items()
        assert (name, spec.name, spec.kind, spec.target) == (
            "bench",
            "bench",
            "take",
            "retake.worker.bench:BenchBackend",
        )
        return SimpleNamespace(run=run)

    monkeypatch.setattr(bench, "time", made.clock)
    monkeypatch.setattr(bench, "WorkerClient", made.connect)
    monkeypatch.setattr(bench, "load_average", lambda: 1.26)
    monkeypatch.setattr(subprocess, "Popen", made.start)
    monkeypatch.setattr(execute, "LocalRunner", runner)
    return made


def test_the_figures_are_what_the_clock_says(service, tmp_path):
    figures = bench.measure(tmp_path, 5)
    assert list(figures.values())[:-1] == [5, 3.0, 4.0, 16.0, 12.0, 15.0, 25.0, 200.0, 1.3]
    assert [name.partition(",")[0] for name in figures] == [
        "jobs", "in-process", "in-process", "service", "overhead", *["submit to first progress"] * 3, "load average", "cores"
    ]  # fmt: skip
    assert service.command["--state"] == str(tmp_path / "state")
    assert service.command["--root"] == str(tmp_path / "root")
    assert service.config == {
        "backends": {"bench": {"kind": "take", "target": "retake.worker.bench:BenchBackend"}},
        "waiting": {"disk_floor_gib": 0.0},
    }
    assert service.ended == ["asked", "gone", "closed"]
    here = [name for word, name, _ in (entry for entry in service.seen if entry[0] == "here")]
    assert here == ["warm", *[f"local-{k}" for k in range(5)]], "the first of all is not counted"
    assert [entry[1] for entry in service.seen if entry[0] == "waited for"] == list(range(6)), "one after another"


@pytest.mark.parametrize(("jobs", "looks"), [(5, 5), (29, 29), (30, 30), (31, 30), (40, 30)])
def test_every_job_is_another_and_first_progress_is_seen_thirty_times_at_most(service, tmp_path, jobs, looks):
    bench.measure(tmp_path, jobs)
    here = [seed for word, _, seed in (entry for entry in service.seen if entry[0] == "here")]
    seeds = here + [job.request.seed for job in service.jobs]
    assert len(service.jobs) == 1 + looks + jobs
    assert len(set(seeds)) == len(seeds) == 1 + jobs + len(service.jobs), "nothing is made already"
    assert len({job.output for job in service.jobs}) == len(service.jobs)
    assert {job.request.frames for job in service.jobs} == {2}


def test_a_machine_without_a_load_has_none(service, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "load_average", lambda: None)
    assert bench.measure(tmp_path, 5)["load average"] is None


def test_a_job_that_fails_leaves_no_figures_and_no_process(service, tmp_path):
    service.end = "failed"
    with pytest.raises(InputError, match="a bench job failed"):
        bench.measure(tmp_path, 5)
    assert service.ended == ["asked", "gone", "closed"]


def test_a_service_that_does_not_start_is_quoted_by_its_end(service, tmp_path):
    service.ready, service.log = "", "x" * 600 + "y" * 499 + "z"
    with pytest.raises(InputError, match=r": y{499}z$"):
        bench.measure(tmp_path, 5)
    assert service.ended == ["asked", "gone", "closed"]
    assert service.jobs == []


@pytest.mark.parametrize(("jobs", "taken"), [(4, False), (5, True), (100_000, True), (100_001, False)])
def test_the_command_prints_the_figures_and_writes_them_where_asked(monkeypatch, tmp_path, capsys, jobs, taken):
    asked: list[int] = []

    def measure(folder: Path, count: int) -> dict[str, Any]:
        assert folder.is_dir()
        asked.append(count)
        return {"jobs": count, "overhead": 1.5}

    monkeypatch.setattr(bench, "measure", measure)
    if not taken:
        with pytest.raises(InputError, match=f"--jobs {jobs} is not within 5 … 100000"):
            bench.main(["--jobs", str(jobs)])
        assert not asked
        return
    assert bench.main(["--jobs", str(jobs)]) == 0
    assert bench.main(["--json", str(tmp_path / "b.json")]) == 0
    assert asked == [jobs, 60]
    assert read_json(tmp_path / "b.json") == {"jobs": 60, "overhead": 1.5}
    assert [line.split() for line in capsys.readouterr().out.splitlines()][:2] == [
        ["jobs", str(jobs)],
        ["overhead", "1.5"],
    ]


def test_the_inputs_are_an_episode_a_first_frame_and_jobs_that_run(tmp_path):
    root = tmp_path / "root"
    bench.make_inputs(root)
    job = bench._job(tmp_path, 300, "one")
    episode = open_episode(job.request.episode)
    episode.verify()
    header, camera = episode.header, episode.header.cameras[0]
    assert (len(episode), header.task, header.fps, header.physics_dt_s) == (2, "bench", 15, 1 / 480)
    assert episode.time_s == pytest.approx([0, 1 / 15])
    assert (camera.name, camera.size, camera.static, camera.channels) == ("front", (64, 48), True, ("rgb",))
    K, pose = episode.camera_matrices("front")
    assert K[1].tolist() == [[60, 0, 32], [0, 60, 24], [0, 0, 1]]
    assert (pose == np.eye(4)).all()
    assert (episode.image("front", "rgb", 1) == 90).all()
    frame = job.request.variant / "frame.png"
    assert read_frame(frame).shape == (48, 64, 3)
    assert read_json(frame.parent / "variant.json")["frame_sha256"] == sha256_file(frame)
    runner = execute.LocalRunner({"bench": BackendSpec("bench", "take", "retake.worker.bench:BenchBackend")})
    runner.run(job)
    assert (job.output / "take.json").is_file()


def test_the_backend_makes_grey_frames_of_the_seed_and_says_each():
    said: list[tuple[int, int, str]] = []
    checks = counting()
    request: Any = SimpleNamespace(frames=3, seed=300)
    frames = list(bench.BenchBackend().generate(request, lambda *words: said.append(words), lambda: next(checks)))
    assert said == [(1, 3, ""), (2, 3, ""), (3, 3, "")]
    assert next(checks) == 3
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert {int(value) for frame in frames for value in np.unique(frame)} == {44}
