# SPDX-License-Identifier: Apache-2.0
"""The process that holds the model: what it hears, what it says and how often, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from worker_support import Place, environment, make_place

from retake.core.wire import job_to_json
from retake.worker import executor
from retake.worker.backends import spec_to_json
from retake.worker.settings import BackendSpec

SPEC = BackendSpec("sleepy", "take", "worker_fakes:SleepyBackend", {"sleep_s": 0.0})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("executor"), frames=3)


def order(place: Place, name: str, **more: Any) -> dict[str, Any]:
    """A message about a job; `about` are fields of the message, other keywords settings of the job."""
    about = more.pop("about", {})
    job = place.job(more.pop("seed", 1), name, frames=3, **more)
    return {
        "op": "run", "id": name, "job": job_to_json(job), "backend": spec_to_json(SPEC), "content": name, "tier": "", "card": "",
        "margin_bytes": 0, "attempt": 1, "reuse": "", "roots": [str(place.root)], "preview": str(place.root / f"{name}.jpg"),
        **about,
    }  # fmt: skip


# -- in this process --------------------------------------------------------------------------------------------------


class Said:
    """What the parent hears of one job whose execution a test writes itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, execute: Any) -> None:
        self.out, self.now = io.StringIO(), 100.0
        monkeypatch.setattr(executor, "execute", execute)
        monkeypatch.setattr(executor, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.it = executor.Executor(self.out, io.StringIO())

    def run(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        self.it._run(message)
        lines = self.out.getvalue().splitlines()
        self.out.truncate(self.out.seek(0))
        return [json.loads(line) for line in lines]


def test_progress_is_told_twenty_times_a_second_and_at_both_ends(place, monkeypatch):
    times: list[float] = []

    def execute(job: Any, spec: Any, loaded: Any, context: Any, progress: Any, *rest: Any) -> dict[str, Any]:
        for done, said.now in enumerate(times, start=first):
            progress(done, 12, "n" * 300)
        return {}

    def told() -> list[dict[str, Any]]:
        return [one for one in said.run(order(place, "x")) if one["event"] == "progress"]

    said, first = Said(monkeypatch, execute), 0
    times[:] = [100 + 0.03 * k for k in range(13)]
    found = told()
    assert [one["done"] for one in found] == [0, 2, 4, 6, 8, 10, 12]
    assert {(one["id"], one["total"], len(one["note"])) for one in found} == {("x", 12, 200)}
    first = 1
    times[:] = [0.9 * executor.PROGRESS_EVERY_S, executor.PROGRESS_EVERY_S]
    assert [one["done"] for one in told()] == [2]


def test_a_job_is_executed_as_the_message_says(place, monkeypatch):
    given: list[Any] = []

    def execute(job: Any, spec: Any, loaded: Any, context: Any, *rest: Any) -> dict[str, Any]:
        given[:] = [job, spec, context]
        loaded.instance = instance
        return {"a": 1}

    said, instance = Said(monkeypatch, execute), SimpleNamespace()
    about = {"content": "c", "tier": "big", "card": "GPU-1", "margin_bytes": 7, "attempt": 2, "reuse": "/r/x"}
    (done,) = said.run(order(place, "x", about=about))
    job, spec, context = given
    assert (job.output.parent.name, spec) == ("x", SPEC)
    assert (context.job_id, context.content, context.tier, context.card) == ("x", "c", "big", "GPU-1")
    assert (context.margin_bytes, context.attempt, context.reuse, context.inputs) == (7, 2, Path("/r/x"), {})
    assert done == {"event": "done", "id": "x", "result": {"a": 1}, "tier": "big", "held": 0}
    instance = SimpleNamespace(tier="small")
    (done,) = said.run(order(place, "y", about={"tier": "big"}))
    assert done["tier"] == "small", "the tier that really ran"
    assert given[2].reuse is None


@pytest.mark.parametrize("what", ["episode", "skeleton", "variant", "output", ""])
def test_paths_are_checked_again_before_anything_is_touched(place, tmp_path, monkeypatch, what):
    said, message = Said(monkeypatch, lambda *given: {}), order(place, "x")
    if what:
        (message["job"] if what == "output" else message["job"]["request"])[what] = str(tmp_path / "x")
    (answer,) = said.run(message)
    if what:
        assert (answer["event"], answer["again"], answer["disk_full"]) == ("failed", False, False)
        assert f"{what} " in answer["error"]
        assert "outside the worker's roots" in answer["error"]
    else:
        assert answer["event"] == "done"


def test_a_full_disk_is_said(place, monkeypatch):
    codes: list[int] = []

    def execute(*given: Any) -> dict[str, Any]:
        raise OSError(codes[-1], os.strerror(codes[-1]))

    said = Said(monkeypatch, execute)
    for code, full in ((28, True), (5, False)):
        codes.append(code)
        (answer,) = said.run(order(place, "x"))
        assert (answer["disk_full"], answer["again"], answer["out_of_memory"], answer["broken"]) == (
            full,
            True,
            False,
            False,
        )


def test_what_is_cancelled_stops_and_is_not_remembered(place, monkeypatch):
    def execute(job: Any, spec: Any, loaded: Any, context: Any, progress: Any, check_cancel: Any, *rest: Any) -> Any:
        check_cancel()
        return {}

    said = Said(monkeypatch, execute)
    said.it._cancelled.add("x")
    assert [one["event"] for one in said.run(order(place, "y"))] == ["done"]
    assert [one["event"] for one in said.run(order(place, "x"))] == ["cancelled"]
    assert [one["event"] for one in said.run(order(place, "x"))] == ["done"]


@pytest.mark.parametrize(("size", "shown"), [((640, 480), (320, 240)), ((64, 48), (320, 240)), ((4000, 2), (320, 1))])
def test_a_preview_is_a_small_picture_of_the_right_colours(place, monkeypatch, size, shown):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[..., 0] = 200

    def execute(*given: Any) -> dict[str, Any]:
        given[6](picture)
        return {}

    said = Said(monkeypatch, execute)
    events = said.run(order(place, "x", about={"preview": str(place.root / "p.jpg")}))
    assert events[0] == {"event": "preview", "id": "x"}
    found = cv2.imread(str(place.root / "p.jpg"))
    assert found is not None
    assert found.shape == (shown[1], shown[0], 3)
    assert np.abs(found.astype(int) - [0, 0, 200]).max() < 12
    assert not list(place.root.glob("p*.tmp"))
    events = said.run(order(place, "x", about={"preview": str(place.root / "no folder" / "p.jpg")}))
    assert [one["event"] for one in events] == ["done"], "a picture that cannot be written costs nothing"


# -- a process of its own ---------------------------------------------------------------------------------------------


class Child:
    """The executor as the service starts it."""

    def __init__(self, log: Path, parent: int) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "retake.worker.executor", str(parent)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment(),
            )  # fmt: skip

    def tell(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self, *events: str) -> dict[str, Any]:
        """The next message of one of these kinds."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message["event"] in events:
                return message
        raise AssertionError(f"it ended ({self.process.wait()}): {self.log.read_text()[-2000:]}")

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(60)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    made = Child(tmp_path / "log", os.getpid())
    yield made
    made.process.kill()
    made.end()


def test_a_process_makes_takes_hears_cancel_while_it_works_and_ends_with_its_parent(place, child):
    assert child.hear("ready", "failed")["pid"] == child.process.pid
    child.process.send_signal(signal.SIGINT)  # Ctrl-C in a shell reaches the group; the service decides
    for name in ("one", "two", "three"):
        child.tell(**order(place, name, seed=5, say="chatter of a library"))
    child.tell(op="cancel", job="two")
    progress = child.hear("progress", "done", "failed")
    assert (progress["id"], progress["done"], progress["total"]) == ("one", 1, 3)
    done = child.hear("done", "failed")
    assert (done["id"], done["result"]["seed"]) == ("one", 5)
    assert place.takes()["one"] == done["result"]["video_sha256"]
    assert child.hear("done", "cancelled", "failed") == {"event": "cancelled", "id": "two", "held": 0}
    assert child.hear("done", "failed")["id"] == "three"
    picture = cv2.imread(str(place.root / "one.jpg"))
    assert picture is not None
    assert picture.shape == (240, 320, 3)
    assert child.end() == 0
    assert "chatter of a library" in child.log.read_text()


def test_a_process_that_dies_says_where(place, child):
    child.tell(**order(place, "dies", die="SIGSEGV"))
    assert child.process.wait(60) == -signal.SIGSEGV
    text = child.log.read_text()
    assert "Fatal Python error" in text
    assert "worker_fakes.py" in text


@pytest.mark.skipif(sys.platform != "linux", reason="what a parent is, is asked here")
def test_a_process_of_another_parent_ends_at_once(tmp_path):
    stranger = Child(tmp_path / "log", os.getppid())
    assert stranger.process.wait(30) not in (0, 1)
    stranger.end()
