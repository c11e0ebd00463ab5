# SPDX-License-Identifier: Apache-2.0
"""`retake worker`: the commands against a running service, and every kind of bad input: clear text, exit code, nothing lost."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_support import ServiceProcess, environment, make_place, settings_for

from retake.core.errors import InputError, RetakeError
from retake.core.wire import job_to_json
from retake.worker.cli import main


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    tmp = tmp_path_factory.mktemp("cli")
    process = ServiceProcess(make_place(tmp / "root"), tmp / "state", settings_for(tmp)[1])
    process.start()
    yield process
    process.stop()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().out


def test_a_job_from_file_to_result(worker: ServiceProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(worker.state)
    file = tmp_path / "jobs.json"
    place = worker.place
    file.write_text(
        json.dumps({"jobs": [job_to_json(place.job(1)), job_to_json(place.job(2, wrong_input="no such camera"))]})
    )
    code, out = run(capsys, "submit", str(file), "--state", state, "--wait")
    assert code == 1
    assert "done" in out
    assert "no such camera" in out
    failed = next(r for r in worker.client.jobs("failed"))
    assert set(place.takes()) == {"v0-s1"}
    code, out = run(capsys, "list", "--state", state, "--only", "failed")
    assert failed.id in out
    assert "no such camera" in out
    assert len(json.loads(run(capsys, "list", "--state", state, "--json")[1])) == 2
    assert "no such camera" in run(capsys, "log", failed.id, "--state", state)[1]
    assert run(capsys, "retry", failed.id, "--state", state)[0] == 0
    assert run(capsys, "wait", failed.id, "--state", state)[0] == 1
    for word in ("pause", "resume", "release"):
        assert "queue" in run(capsys, word, "--state", state)[1]
    run(capsys, "resume", "--state", state)
    assert json.loads(run(capsys, "status", "--state", state, "--json")[1])["counts"]["done"] == 1
    code, out = run(capsys, "open", "--no-browser", "--state", state)
    assert out.strip() == f"{worker.url}/#token={worker.client._token}"
    with pytest.raises(RetakeError, match="no job"):
        main(["cancel", "nothing", "--state", state])


def test_the_ready_line_and_the_files_a_launcher_reads(worker: ServiceProcess) -> None:
    endpoint = json.loads((worker.state / "endpoint.json").read_text())
    assert endpoint["url"] == worker.url
    token_file = Path(endpoint["token_file"])
    assert stat.S_IMODE(os.stat(token_file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(worker.state).st_mode) == 0o700
    assert endpoint["pid"] == worker.process.pid


def test_a_second_worker_for_the_same_state_says_so(worker: ServiceProcess) -> None:
    command = [
        sys.executable,
        "-m",
        "retake.worker",
        "--port",
        "0",
        "--state",
        str(worker.state),
        "--root",
        str(worker.place.root),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 2
    assert "another worker uses" in done.stderr
    assert "Traceback" not in done.stderr
    assert worker.client.alive()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "--port", "0"], "at least one --root"),
        (["--port", "0", "--root", "/no/such/folder"], "no such folder"),
        (["--port", "0", "--root", "/"], "whole file system"),
        (["--port", "99999", "--root", "."], "not within 0"),
        (["--port", "0", "--root", ".", "--config", "/no/such.yaml"], "does not exist"),
        (["status"], "no worker has been started"),
        (["submit", "/no/such.json"], "cannot be read"),
        (["list"], "retake worker --root DIR"),
        (["wait", "x"], "no worker has been started"),
        (["stop"], "no worker has been started"),
    ],
)
def test_bad_input_is_one_clear_sentence(words: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(RetakeError, match=says) as caught:
        main([words[0], *words[1:], "--state", str(tmp_path / "state")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"jobs": []}', '{"jobs": [3]}', '{"jobs": [{"kind": "take"}]}'])
def test_a_file_that_holds_no_jobs(worker: ServiceProcess, tmp_path: Path, text: str) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(text)
    before = worker.client.status().counts
    with pytest.raises(InputError):
        main(["submit", str(file), "--state", str(worker.state)])
    assert worker.client.status().counts == before


def test_a_taken_port_and_a_damaged_token_are_said(tmp_path: Path) -> None:
    import socket

    from retake.core.errors import WorkerError
    from retake.worker.security import read_or_make_token
    from retake.worker.serve import bind

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="choose another"):
        bind(taken.getsockname()[1])
    (tmp_path / "token").write_text("short")
    with pytest.raises(WorkerError, match="holds no token"):
        read_or_make_token(tmp_path / "token")
    (tmp_path / "other").symlink_to(tmp_path / "token")
    with pytest.raises(WorkerError, match="link"):
        read_or_make_token(tmp_path / "other")


def test_stop_ends_the_service_and_keeps_the_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = ServiceProcess(make_place(tmp_path / "root"), tmp_path / "state", settings_for(tmp_path)[1])
    client = process.start()
    client.pause()
    client.submit([process.place.job(1)])
    assert main(["stop", "--state", str(process.state)]) == 0
    assert process.process.wait(20) == 0
    process.process.stdout.close()
    assert not client.alive()
    client = process.start()
    assert client.status().paused
    assert client.status().counts["queued"] == 1
    assert process.stop() == 0


def test_bench_measures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from retake.worker.bench import main as bench

    with pytest.raises(InputError, match="not within"):
        bench(["--jobs", "0"])
    assert bench(["--jobs", "5", "--json", str(tmp_path / "b.json")]) == 0
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["submit to first progress, warm, ms (median)"] > 0
    assert "overhead, ms per job" in capsys.readouterr().out
