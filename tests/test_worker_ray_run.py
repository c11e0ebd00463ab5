# SPDX-License-Identifier: Apache-2.0
"""Jobs over a cluster, without one: which actor gets which job, what is tried again, what a lost process costs."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_support import Place, make_place, specs

from retake.core.errors import Cancelled, InputError, TakeError, WorkerError
from retake.core.files import read_json
from retake.core.takes.base import TakeRequest
from retake.core.wire import GpuDevice, TakeJob
from retake.worker import gpu, ray_run
from retake.worker.memory import GIB
from retake.worker.ray_run import Fleet, fan_out, producer
from retake.worker.settings import BackendSpec

PLAIN = BackendSpec("plain", "take", "m:M")
MODEL = BackendSpec("model", "take", "m:M", {}, (("resident", 10 * GIB), ("streamed", 4 * GIB)))


class LostError(Exception):
    """A process of the cluster is gone."""


class Answer:
    """What an actor was asked: `get` gives it, or raises."""

    def __init__(self, call: Callable[[], Any], ready: bool = True) -> None:
        self.call, self.ready = call, ready


class Cluster:
    """A Ray in this process. `answers(output, attempt, actor)` stands for a job's run (none: the actor really runs it);
    `starts`: how the next actors come up (True: they live, False: they die, None: no node has room)."""

    def __init__(
        self, resources: dict[str, float] | None = None, answers: Any = None, starts: Sequence[bool | None] = ()
    ) -> None:
        self.resources = {"CPU": 4.0} if resources is None else resources
        self.answers, self.starts = answers, list(starts)
        self.exceptions = SimpleNamespace(RayError=LostError)
        self.here, self.options, self.now = False, {}, 0.0
        self.made: list[Any] = []
        self.killed: list[Any] = []
        self.runs: list[tuple[str, int, int]] = []

    def is_initialized(self) -> bool:
        return self.here

    def init(self, **options: Any) -> None:
        self.options, self.here = options, True

    def shutdown(self) -> None:
        self.here = False

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(
            options=lambda **wish: SimpleNamespace(remote=lambda *given: self._hire(kind, wish, given))
        )

    def _hire(self, kind: Any, wish: dict[str, Any], given: tuple[Any, ...]) -> Any:
        number, lives = len(self.made), self.starts.pop(0) if self.starts else True
        real = kind(*given) if self.answers is None else None

        def ready() -> bool:
            if not lives:
                raise LostError("it dies while it starts")
            return real.ready() if real is not None else True

        def run(job: dict[str, Any], backend: dict[str, Any], content: str, attempt: int) -> Any:
            self.runs.append((Path(job["output"]).name, attempt, number))
            if real is not None:
                return real.run(job, backend, content, attempt)
            return self.answers(Path(job["output"]).name, attempt, number)

        actor = SimpleNamespace(
            wish=wish,
            given=given,
            ready=SimpleNamespace(remote=lambda: Answer(ready, lives is not None)),
            run=SimpleNamespace(remote=lambda *a: Answer(lambda: run(*a))),
        )
        self.made.append(actor)
        return actor

    def wait(self, asked: list[Answer], num_returns: int, timeout: float) -> tuple[list[Answer], list[Answer]]:
        if asked and not 1 <= num_returns <= len(asked):
            raise ValueError("wait for one answer or more, and for no more than there are")
        self.now += timeout
        ready = [one for one in asked if one.ready][:num_returns]
        return ready, [one for one in asked if one not in ready]

    def get(self, one: Answer) -> Any:
        assert one.ready
        return one.call()

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def make(*given: Any, **more: Any) -> Cluster:
        made = Cluster(*given, **more)
        monkeypatch.setitem(sys.modules, "ray", made)
        monkeypatch.setattr(ray_run, "time", SimpleNamespace(monotonic=lambda: made.now))
        return made

    return make


def jobs(count: int) -> list[tuple[TakeJob, str]]:
    return [
        (TakeJob(TakeRequest(Path("/e"), "front", Path("/s"), Path("/v"), "p", seed=k), Path(f"/t/{k}"), "plain"), f"c{k}")
        for k in range(count)
    ]  # fmt: skip


def done(*_: Any) -> dict[str, Any]:
    return {"result": {}}


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 5), (3, 3), (5, 2)])
def test_every_job_is_done_once_by_the_actors_there_are(cluster, size, count):
    ray, told = cluster(answers=done), []
    with Fleet("local", PLAIN, size=size) as fleet:
        assert fleet.settle() == size
        assert fleet.run(jobs(count), lambda job: told.append(job.output.name)) == {}
        assert len(ray.made) == size
        assert {actor for _, _, actor in ray.runs} == set(range(size)[-min(size, count) :])
    wanted = [str(k) for k in range(count)]
    assert sorted(told) == sorted(name for name, _, _ in ray.runs) == wanted
    assert {attempt for _, attempt, _ in ray.runs} == {1}
    assert sorted(map(id, ray.killed)) == sorted(map(id, ray.made))
    assert fleet.lost == 0
    assert not ray.here, "a cluster that was started here is ended"


@pytest.mark.parametrize(
    ("resources", "spec", "size", "wish"),
    [
        ({"GPU": 3.0, "CPU": 8.0}, MODEL, 3, {"num_gpus": 1, "num_cpus": 0}),
        ({"GPU": 1.0, "CPU": 8.0, "vram_gib": 24.0}, MODEL, 1,
         {"num_gpus": 1, "num_cpus": 0, "resources": {"vram_gib": 4.0}}),
        ({"GPU": 3.0, "CPU": 8.0, "vram_gib": 24.0}, PLAIN, 8, {"num_cpus": 1}),
        ({"CPU": 5.0, "vram_gib": 24.0}, MODEL, 5, {"num_cpus": 1}),
        ({"CPU": 0.5}, PLAIN, 1, {"num_cpus": 1}),
        ({}, MODEL, 1, {"num_cpus": 1}),
    ],
)  # fmt: skip
def test_there_is_an_actor_for_each_card_or_core(cluster, resources, spec, size, wish):
    ray = cluster(resources, done)
    fleet = Fleet("local", spec)
    assert fleet.size == size
    with fleet:
        assert [actor.wish for actor in ray.made] == [wish] * size
    assert Fleet("local", spec, size=7).size == 7


@pytest.mark.parametrize("address", ["local", "auto", "ray://127.0.0.1:1", "head:x", ":123"])
def test_a_cluster_is_joined_or_started_and_only_a_started_one_is_ended(cluster, address):
    ray = cluster(answers=done)
    Fleet(address, PLAIN, runtime_env={"env_vars": {}}).close()
    assert ray.options["address"] == (None if address == "local" else address)
    assert ray.options["include_dashboard"] is (False if address == "local" else None)
    assert not ray.options["log_to_driver"]
    assert not ray.options["configure_logging"]
    assert ray.options["runtime_env"] == {"env_vars": {}}
    ray.here, ray.options = True, {}
    with Fleet(address, PLAIN, size=1):
        pass
    assert ray.here
    assert ray.options == {}


def test_an_address_where_nothing_listens_is_told_before_ray_is_asked(cluster):
    ray = cluster(answers=done)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkerError, match="no Ray cluster at"):
            Fleet(address, PLAIN)
        assert ray.options == {}
        taken.listen()
        Fleet(address, PLAIN)
        assert ray.options["address"] == address

    def refuse(**options: Any) -> None:
        raise ConnectionError("of another version")

    ray.here, ray.init = False, refuse
    with pytest.raises(WorkerError, match="no Ray cluster at 'auto': of another version"):
        Fleet("auto", PLAIN)


@pytest.mark.parametrize(
    ("again", "good_at", "attempts", "says"),
    [(True, 2, 2, ""), (True, 3, 3, ""), (True, 9, 3, "attempt 3"), (False, 2, 1, "attempt 1"), (False, 1, 1, "")],
)
def test_what_may_pass_is_tried_again_and_nothing_else(cluster, again, good_at, attempts, says):
    def answers(name: str, attempt: int, actor: int) -> dict[str, Any]:
        if name == "1" and attempt < good_at:
            return {"error": f"attempt {attempt}", "again": again}
        return {"result": {}}

    ray, told = cluster(answers=answers), []
    with Fleet("local", PLAIN, size=2, max_attempts=3) as fleet:
        failed = fleet.run(jobs(3), told.append)
    assert failed == ({Path("/t/1"): says} if says else {})
    assert [attempt for name, attempt, _ in ray.runs if name == "1"] == list(range(1, attempts + 1))
    assert len(told) == 3 - bool(says)
    assert len(ray.made) == 2


@pytest.mark.parametrize(("deaths", "fails"), [(0, False), (2, False), (3, True), (9, True)])
def test_a_job_that_takes_three_processes_with_it_is_not_given_to_a_fourth(cluster, deaths, fails):
    left = [deaths]

    def answers(name: str, attempt: int, actor: int) -> dict[str, Any]:
        if name == "0" and left[0]:
            left[0] -= 1
            raise LostError
        return {"result": {}}

    ray = cluster(answers=answers)
    with Fleet("local", PLAIN, size=2) as fleet:
        failed = fleet.run(jobs(4))
        tried = [attempt for name, attempt, _ in ray.runs if name == "0"]
        assert fleet.settle() == 2, "for each that was lost another one is hired"
    assert tried == [1] * min(deaths + 1, 3), "a loss is no attempt"
    assert fleet.lost == min(deaths, 3)
    assert failed == ({Path("/t/0"): "3 processes died while it ran (LostError)"} if fails else {})
    assert sum(name != "0" for name, _, _ in ray.runs) == 3
    assert len(ray.made) == 2 + fleet.lost


@pytest.mark.parametrize(("dying", "fails"), [(3, False), (20, False), (21, True)])
def test_actors_that_die_while_they_start_are_replaced_for_a_while(cluster, dying, fails):
    ray = cluster(answers=done, starts=[False] * dying)
    if fails:
        with pytest.raises(WorkerError, match="keep dying while they start"), Fleet("local", PLAIN, size=1):
            pass
        assert not ray.here
    else:
        with Fleet("local", PLAIN, size=1) as fleet:
            assert fleet.run(jobs(2)) == {}
            assert fleet.lost == dying


def test_a_cluster_without_room_is_waited_for_and_then_given_up(cluster):
    ray = cluster(answers=done, starts=[None])
    with pytest.raises(WorkerError, match=r"no node of the Ray cluster has room for \{'num_cpus': 1\} within 120 s"):
        Fleet("local", PLAIN, size=1).start()
    assert 120 < ray.now <= 121
    ray = cluster(answers=done, starts=[None, True])
    with Fleet("local", PLAIN, size=2) as fleet:
        assert fleet.settle(3.0) == 1, "one that lives is enough to begin with"
        assert fleet.run(jobs(3)) == {}
        assert [actor for _, _, actor in ray.runs] == [1, 1, 1]
    assert len(ray.killed) == 2, "those that never came up are ended, too"


def test_a_fleet_that_lost_all_its_actors_hires_one(cluster):
    ray = cluster(answers=done)
    fleet = Fleet("local", PLAIN, size=1)
    assert fleet.run(jobs(2)) == {}
    assert len(ray.made) == 1
    assert fleet.settle() == 1


def test_a_request_to_stop_is_heard_between_jobs(cluster):
    ray, asked = cluster(answers=done), []

    def check() -> None:
        asked.append(len(ray.runs))
        if len(ray.runs) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled), Fleet("local", PLAIN, size=1) as fleet:
        fleet.run(jobs(5), check_cancel=check)
    assert len(ray.runs) == 2
    assert len(ray.killed) == 1


# -- real jobs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("ray"), frames=3)


def test_takes_are_made_and_told_by_backend_and_one_after_the_other(cluster, place):
    ray, told = cluster({"CPU": 2.0}), []
    wanted = [place.job(k, f"fan{k}", frames=3, backend=name) for k, name in enumerate(("sleepy", "heavy", "sleepy"))]
    table = {**specs(), "heavy": replace(specs()["heavy"], options={"ballast_mb": 1})}
    fan_out(wanted, "local", backends=table, size=5, progress=lambda *said: told.append(said))
    assert [(number, total) for number, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert {name for _, _, name in told} == {f"fan{k}/front" for k in range(3)}
    assert {"fan0", "fan1", "fan2"} <= set(place.takes())
    assert len(ray.made) == 1 + 2, "no more actors than jobs of the backend"
    record = read_json(wanted[0].output / "take.json")
    assert (record["run"]["attempt"], record["extra"]["job"]) == (1, "ray")


def test_failures_are_counted_and_the_first_is_named(cluster, place):
    cluster({"CPU": 1.0})
    wanted = [place.job(9, "well", frames=3), place.job(8, "odd", frames=3, wrong_input="no such camera")]
    with pytest.raises(TakeError, match=r"1 of 2 jobs failed; first: odd/front: no such camera\. Running again"):
        fan_out(wanted, "local", backends=specs())
    assert "well" in place.takes()
    with pytest.raises(InputError, match="same output"):
        fan_out([wanted[0], wanted[0]], "local", backends=specs())


def test_what_a_producer_leaves_says_nothing_of_the_cluster(cluster, place, monkeypatch):
    cluster({"CPU": 1.0})
    monkeypatch.chdir(place.root)
    job = place.job(21, frames=3)
    request = replace(
        job.request, **{n: getattr(job.request, n).relative_to(place.root) for n in ("episode", "skeleton", "variant")}
    )
    folder, told = Path("run/takes/produced/front"), []
    produce = producer("local", backends=specs())
    (take,) = produce([(folder, request)], "sleepy", extra={"note": 1}, progress=lambda *said: told.append(said))
    assert (take.id, take.seed, take.extra) == ("produced/front", 21, {"note": 1})
    assert told[0] == (0, 1, "")
    assert told[-1][:2] == (1, 1)
    record = read_json(folder / "take.json")
    assert "run" not in record
    assert record["extra"] == {"note": 1}


@pytest.mark.parametrize(
    ("setting", "error", "again", "kept"),
    [("wrong_input", "CUDA out of memory", True, False), ("wrong_input", "no camera", False, True),
     ("error", "it rains", True, True)],
)  # fmt: skip
def test_a_card_that_ran_full_is_emptied_before_the_next_job(cluster, place, setting, error, again, kept):
    actor = ray_run._Actor(1.0)
    job = ray_run.job_to_json(place.job(1, f"full {error}", frames=3, **{setting: error}))
    answer = actor.run(job, ray_run.spec_to_json(specs()["sleepy"]), "c" * 64, 1)
    assert answer == {"error": error, "again": again}
    assert (actor._loaded.instance is not None) == kept


def test_a_job_for_which_a_card_has_no_room_waits_unless_its_model_is_loaded(cluster, place, monkeypatch):
    free = [3]
    card = lambda: GpuDevice(0, "Card", 24 * GIB, 0, free[0] * GIB, (), "GPU-0")  # noqa: E731
    monkeypatch.setattr(gpu, "NvmlProbe", lambda: SimpleNamespace(read=lambda ours: (card(),)))
    spec = BackendSpec("gpu", "take", "worker_fakes:SleepyBackend", {}, (("big", 10 * GIB), ("small", 4 * GIB)))
    actor = ray_run._Actor(1.0)

    def run(name: str) -> Any:
        return actor.run(
            ray_run.job_to_json(place.job(1, name, frames=3)), ray_run.spec_to_json(spec), name.ljust(64), 2
        )

    assert run("room")["again"] is True
    assert "waiting for GPU memory" in run("room")["error"]
    free[0] = 5
    record = run("room")["result"]
    assert (record["run"]["tier"], record["run"]["attempt"]) == ("small", 2)
    free[0] = 3
    assert "result" in run("loaded"), "what holds the memory is the model itself"


def test_a_process_whose_card_is_broken_ends(cluster, place, monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(ray_run.os, "_exit", lambda code: ended.append(code))
    job = ray_run.job_to_json(place.job(1, "broken", frames=3, error="CUDA error: unspecified launch failure"))
    ray_run._Actor(1.0).run(job, ray_run.spec_to_json(specs()["sleepy"]), "b" * 64, 1)
    assert ended
    assert all(ended)
