# SPDX-License-Identifier: Apache-2.0
"""A service and its state folder: whose it is, who may use it, and that stopping gives everything back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from left_open import open_under
from worker_support import settings_for, specs

from retake.core.errors import InputError, WorkerError
from retake.core.wire import GpuDevice
from retake.worker import link, service
from retake.worker.service import Service, _end_orphan

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


class Cards:
    """Cards that count how often they are looked at."""

    def __init__(self) -> None:
        self.asked: list[frozenset[int]] = []

    def read(self, ours: frozenset[int] = frozenset()) -> tuple[GpuDevice, ...]:
        self.asked.append(ours)
        return ()


def made(folder: Path, state: str = "state", **more: Any) -> Service:
    settings, _ = settings_for(folder)
    return Service(folder / state, [folder], settings, **{"backends": specs(), "gpu": Cards(), **more})


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Service]:
    with made(tmp_path) as running:
        yield running


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("before", [None, 0o755, 0o777, 0o700])
def test_the_state_folder_is_its_owner_s_alone_whatever_it_was_before(before: int | None, tmp_path: Path) -> None:
    """Its token opens the worker, so nobody else may even list it."""
    if before is not None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state").chmod(before)
    mask = os.umask(0)
    try:
        with made(tmp_path) as running:
            assert mode(running.state) == 0o700
            assert mode(running.state / "lock") == mode(running.token_file) == 0o600
    finally:
        os.umask(mask)


def test_folders_above_the_state_are_made_and_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    with made(tmp_path, "a/b/state") as running:
        assert (tmp_path / "a" / "b" / "state" / "token").read_text().strip() == running.token
    (tmp_path / "file").write_text("")
    for place in ("file", "file/state"):
        with pytest.raises(InputError, match=rf"state folder .*{place} cannot be used: "):
            made(tmp_path, place)


def test_one_state_folder_serves_one_service_and_the_next_after_it(tmp_path: Path) -> None:
    with made(tmp_path) as first:
        held = open_under(tmp_path)
        for _ in range(3):
            with pytest.raises(WorkerError) as refused:
                made(tmp_path)
        assert open_under(tmp_path) == held
    words = f"another worker uses {tmp_path / 'state'}; talk to that one, or choose another folder with --state"
    assert str(refused.value) == words
    with made(tmp_path) as following:
        assert following.token == first.token


def test_backends_are_those_given_else_those_of_the_settings(tmp_path: Path) -> None:
    known = specs()
    with made(tmp_path, backends={"sleepy": known["sleepy"]}) as running:
        assert running.status().backends == ("sleepy",)
    with made(tmp_path, backends=None) as running:
        assert set(running.status().backends) == set(service.registry(running.settings.backend_specs())) > {"sleepy"}


@pytest.mark.parametrize(
    "part", ["_end_orphan", "read_or_make_token", "EventHub", "Store", "Dispatcher", "Gallery", "Tunings"]
)
def test_a_service_that_cannot_be_made_lets_go_of_its_folder(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*unused: Any, **more: Any) -> Any:
        raise WorkerError("no")

    held = open_under(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(service, part, refuse)
        with pytest.raises(WorkerError, match=r"^no$"):
            made(tmp_path)
        with pytest.raises(WorkerError, match=r"^no$"):  # not "another worker uses"
            made(tmp_path)
    assert open_under(tmp_path) == held
    with made(tmp_path):
        pass


def test_stopping_ends_each_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    running = made(tmp_path)
    for name, method in (("hub", "close"), ("dispatcher", "stop"), ("store", "close")):
        part = getattr(running, name)
        real = getattr(part, method)
        monkeypatch.setattr(part, method, lambda real=real, name=name: done.append(name) or real())
    running.start()
    assert running.announce("http://127.0.0.1:9")["url"] == "http://127.0.0.1:9"
    told = json.loads((running.state / "endpoint.json").read_text())
    assert told == {"url": "http://127.0.0.1:9", "token_file": str(running.token_file), "pid": os.getpid()}
    assert running.dispatcher.is_alive()
    running.stop()
    assert done == ["hub", "dispatcher", "store"], (
        "who listens is let go first, what writes ends before what is written to"
    )
    assert not running.dispatcher.is_alive()
    assert not (running.state / "endpoint.json").exists(), "nobody is sent to a service that is gone"
    with made(tmp_path):
        pass


def test_a_service_that_was_never_announced_stops_too(one: Service) -> None:
    assert not (one.state / "endpoint.json").exists()


@pytest.mark.parametrize(("passed", "looks"), [(0.0, 1), (0.999, 1), (1.0, 2), (60.0, 2)])
def test_cards_are_looked_at_once_a_second_at_most(
    one: Service, passed: float, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]  # a machine that has just been started
    with monkeypatch.context() as patched:
        patched.setattr(service.time, "monotonic", lambda: now[0])
        one.status()
        now[0] += passed
        one.status()
    assert one.gpu.asked == [frozenset()] * looks  # type: ignore[attr-defined]


# -- executors that outlived their service -----------------------------------------------------------------------------


@pytest.fixture
def orphan() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("off", "ends"), [(0.0, True), (0.4, True), (-0.4, True), (0.5, False), (-0.5, False), (0.6, False), (3600, False)]
)
def test_an_executor_is_ended_by_its_number_and_the_time_it_began(
    orphan: subprocess.Popen[bytes], off: float, ends: bool, tmp_path: Path
) -> None:
    """A number alone is given to another process some day."""
    noted = {"pid": orphan.pid, "created": psutil.Process(orphan.pid).create_time() + off}
    (tmp_path / "executor.json").write_text(json.dumps(noted))
    _end_orphan(tmp_path / "executor.json")
    assert (orphan.poll() is not None) == ends


@pytest.mark.parametrize(
    "text", [None, "", "{", "{}", '{"pid": 1}', '{"pid": "x", "created": 0}', '{"pid": 4194309, "created": 0}']
)
def test_a_note_that_says_nothing_ends_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "executor.json").write_text(text)
    _end_orphan(tmp_path / "executor.json")


def test_a_new_service_ends_what_the_last_one_left(orphan: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    link.note_process(tmp_path / "state" / "executor.json", orphan.pid)
    with made(tmp_path):
        assert orphan.poll() is not None


@pytest.mark.parametrize("error", [OSError("no space left"), psutil.NoSuchProcess(1), psutil.AccessDenied(1)])
@pytest.mark.parametrize("of", ["write_json", "psutil.Process"])
def test_an_executor_that_cannot_be_noted_is_started_all_the_same(
    error: Exception, of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*unused: Any) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(f"retake.worker.link.{of}", refuse)
        link.note_process(tmp_path / "executor.json", os.getpid())
    assert not (tmp_path / "executor.json").exists()
