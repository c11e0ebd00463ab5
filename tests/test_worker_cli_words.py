# SPDX-License-Identifier: Apache-2.0
"""What `retake worker` prints and returns, word by word: a client that a test plays, no service."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.errors import InputError, WorkerError
from retake.core.takes.base import TakeRequest
from retake.core.wire import GpuDevice, GpuProcess, JobRecord, TakeJob, WorkerStatus, job_to_json
from retake.worker import cli
from retake.worker.memory import GIB
from retake.worker.settings import WorkerSettings

COUNTS = {"queued": 2, "running": 1, "done": 0, "failed": 0, "cancelled": 0, "quarantined": 0}


def record(number: int, state: str = "done", **more: Any) -> JobRecord:
    return JobRecord(f"job{number}", "take", "sleepy", state, Path(f"/r/takes/w-s{number}/front"), {}, **more)


class Client:
    """The worker that answers."""

    url = "http://127.0.0.1:5"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.records: list[JobRecord] = []
        self.answers, self.state = 10**6, WorkerStatus("1", False, COUNTS, "absent")
        self.told: list[JobRecord] = []

    def alive(self) -> bool:
        self.answers -= 1
        return self.answers >= 0

    def status(self) -> WorkerStatus:
        return self.state

    def jobs(self, states: str, limit: int) -> list[JobRecord]:
        self.asked.append((states, limit))
        return self.records

    def submit(self, jobs: list[TakeJob]) -> list[JobRecord]:
        self.asked.append(jobs)
        return self.records

    def wait(self, ids: list[str], show: Any) -> list[JobRecord]:
        self.asked.append(ids)
        for one in self.told:
            show(one)
        return self.records

    def __getattr__(self, verb: str) -> Any:
        """A call about one job, or one about the queue."""
        if verb.startswith("_"):
            raise AttributeError(verb)
        return lambda *given: self.asked.append((verb, *given)) or self._answer(verb)

    def _answer(self, verb: str) -> Any:
        if verb == "log":
            return "a line\n"
        return self.state if verb in ("pause", "resume", "release") else record(1, f"after {verb}")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(cli.WorkerClient, "discover", lambda state: made)
    return made


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    return cli.main(list(words)), capsys.readouterr().out.splitlines()


def test_a_status_in_words(client, capsys):
    assert told(capsys, "status") == (
        0, ["queue     2 queued, 1 running", "executor  absent", "GPU       none visible to NVML"],
    )  # fmt: skip
    cards = (
        GpuDevice(
            0, "Big", 48 * GIB, 0, 12 * GIB, (GpuProcess(7, "sim", 3 * GIB, False), GpuProcess(8, "python", GIB, True))
        ),
        GpuDevice(1, "Small", 8 * GIB, 0, 2 * GIB),
    )
    client.state = WorkerStatus(
        "1", True, dict.fromkeys(COUNTS, 0), "busy", 8, 3 * GIB // 2, tier="staged", waiting="waiting for x", notice="odd",
        gpus=cards,
    )  # fmt: skip
    wanted = [
        "queue     empty (paused)", "executor  busy, process 8, 1.50 GiB RAM", "tier      staged",
        "GPU 0     Big: 12.0 of 48.0 GiB free", "            sim (7): 3.0 GiB", "            python (8): 1.0 GiB (ours)",
        "GPU 1     Small: 2.0 of 8.0 GiB free", "note      waiting for x", "note      odd",
    ]  # fmt: skip
    for word in ("status", "pause", "resume", "release"):
        assert told(capsys, word) == (0, wanted)
    assert client.asked == [("pause",), ("resume",), ("release",)]
    code, lines = told(capsys, "status", "--json")
    assert (code, json.loads("\n".join(lines))["executor_pid"]) == (0, 8)


def test_a_list_has_a_line_for_each_job(client, capsys):
    client.records = [
        record(1, "running", done=2, total=3, note="painting"), record(2, "queued", note="n", total=9),
        record(3, "failed", error="e" * 100 + "\nsecond line", note="unseen"), record(4, "running"),
    ]  # fmt: skip
    code, lines = told(capsys, "list", "--only", "failed,done")
    assert code == 0
    assert [line.split() for line in lines] == [
        ["job1", "running", "66", "%", "sleepy", "w-s1/front", "painting"], ["job2", "queued", "sleepy", "w-s2/front", "n"],
        ["job3", "failed", "sleepy", "w-s3/front", "e" * 80], ["job4", "running", "sleepy", "w-s4/front"],
    ]  # fmt: skip
    assert len({line.index("sleepy") for line in lines}) == 1, "columns stand below each other"
    for limit, asked in (("0", 1), ("7", 7), ("5000", 1000), ("-3", 1)):
        told(capsys, "list", "--limit", limit)
        assert client.asked[-1] == ("", asked)
    assert client.asked[0] == ("failed,done", 50)
    assert len(json.loads("\n".join(told(capsys, "list", "--json")[1]))) == 4


def test_jobs_are_read_from_a_file_or_from_standard_input(client, capsys, tmp_path, monkeypatch):
    job = TakeJob(TakeRequest(Path("/e"), "front", Path("/s"), Path("/v"), "p"), Path("/o"), "sleepy")
    client.records = [record(1, "queued"), record(2, "done")]
    client.told = [record(1, "queued"), record(1, "running"), record(1, "failed", error="odd"), record(1, "failed", error="odd"),
                   record(2, "done")]  # fmt: skip
    file = tmp_path / "jobs.json"
    for data in ({"jobs": [job_to_json(job)] * 2}, [job_to_json(job)]):
        file.write_text(json.dumps(data))
        code, lines = told(capsys, "submit", str(file))
        assert code == 0
        assert [line.split() for line in lines] == [
            ["job1", "queued", "/r/takes/w-s1/front"], ["job2", "done", "/r/takes/w-s2/front"],
        ]  # fmt: skip
        assert client.asked[-1] == [job] * (2 if isinstance(data, dict) else 1)
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(data)))
        code, lines = told(capsys, "submit", "-", "--wait")
        assert (code, lines[2:]) == (1, ["job1  failed  odd", "job2  done"])
        assert client.asked[-1] == ["job1", "job2"]
    client.records = [record(1), record(2)]
    assert told(capsys, "wait", "job1", "job2")[0] == 0
    client.records = [record(1), record(2, "cancelled")]
    assert told(capsys, "wait", "job1", "job2")[0] == 1
    for text in ("[]", "3", "{}"):
        file.write_text(text)
        with pytest.raises(InputError, match="at least one job"):
            cli.main(["submit", str(file)])


def test_one_job_is_told_what_to_do(client, capsys):
    assert told(capsys, "cancel", "job1") == (0, ["job1  after cancel"])
    assert told(capsys, "retry", "job1") == (0, ["job1  after retry"])
    assert told(capsys, "log", "job1") == (0, ["a line"])
    assert client.asked == [("cancel", "job1"), ("retry", "job1"), ("log", "job1")]


def test_the_page_is_opened_or_its_address_printed(client, capsys, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret\n")
    address, opened, works = "http://127.0.0.1:5/#token=secret", [], True
    monkeypatch.setattr(cli.webbrowser, "open", lambda where: opened.append(where) or works)
    assert told(capsys, "open", "--state", str(tmp_path)) == (0, [])
    assert opened == [address]
    assert told(capsys, "open", "--no-browser", "--state", str(tmp_path)) == (0, [address])
    assert len(opened) == 1
    works = False
    assert told(capsys, "open", "--state", str(tmp_path)) == (0, [address])
    client.answers = 0
    with pytest.raises(WorkerError, match="no worker answers at http://127"):
        cli.main(["open", "--state", str(tmp_path)])


@pytest.mark.parametrize(
    ("answers", "says"), [(0, "no worker is running"), (1, "stopped"), (100, "stopped"), (1000, "")]
)
def test_a_worker_is_stopped_and_waited_for(client, capsys, tmp_path, monkeypatch, answers, says):
    (tmp_path / "endpoint.json").write_text('{"pid": 4711}')
    asked, slept = [], []

    def stop(pid: int) -> None:
        asked.append(pid)
        raise ProcessLookupError

    monkeypatch.setattr(cli, "ask_pid_to_stop", stop)
    monkeypatch.setattr(cli, "time", SimpleNamespace(sleep=slept.append))
    client.answers = answers
    words = ["stop", "--state", str(tmp_path)]
    if says:
        code, lines = told(capsys, *words)
        assert code == 0
        assert lines[0].startswith(says)
    else:
        with pytest.raises(WorkerError, match=r"process 4711\) does not stop"):
            cli.main(words)
        assert 10 < sum(slept) < 30
    assert asked == ([4711] if answers else [])


def test_without_a_word_the_service_is_started(monkeypatch, tmp_path, capsys):
    begun: list[Any] = []

    def serve(port: int, state: Path, roots: list[Path], settings: WorkerSettings) -> int:
        begun.append((port, state, roots, settings))
        return 3

    monkeypatch.setattr("retake.worker.serve.serve", serve)
    monkeypatch.setenv("RETAKE_WORKER_STATE", str(tmp_path))
    (tmp_path / "c.yaml").write_text("queue: {max_attempts: 9}")
    assert cli.main([]) == 3
    assert cli.main(["--port", "0", "--root", "a", "--root", "b", "--config", str(tmp_path / "c.yaml")]) == 3
    assert cli.main(["serve", "--port", "65535", "--state", "x"]) == 3
    assert [(port, state, roots) for port, state, roots, _ in begun] == [
        (8765, tmp_path, []), (0, tmp_path, [Path("a"), Path("b")]), (65535, Path("x"), []),
    ]  # fmt: skip
    assert [settings.queue.max_attempts for *_, settings in begun] == [3, 9, 3]
    for port in ("-1", "65536"):
        with pytest.raises(InputError, match="not within 0"):
            cli.main(["serve", "--port", port])
    for words, code in ((["-h"], 0), (["--help"], 0), (["dance"], 2), (["serve", "dance"], 2)):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == code
    assert "retake worker pause | resume | release" in capsys.readouterr().out
