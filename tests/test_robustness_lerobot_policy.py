# SPDX-License-Identifier: Apache-2.0
"""A policy in another interpreter, by the protocol of its host: what goes over, what comes back, and how it ends."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retake.core.errors import InputError, WorkerError
from retake.core.robustness import lerobot_host, lerobot_policy
from retake.core.robustness.lerobot_policy import LeRobotPolicy
from retake.core.robustness.policy import Observation

FOLDER = Path(lerobot_host.__file__).parent
SEEN = Observation({"front": np.full((4, 6, 3), 9, np.uint8)}, np.array([1.0, 2.0]), "pick “it”")


def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, **options) -> LeRobotPolicy:
    """A policy whose host runs this code with `infer` given to the host's own loop."""
    (tmp_path / "p").mkdir(exist_ok=True)
    (tmp_path / "p" / "config.json").write_text(json.dumps({"type": "act"}))
    host = tmp_path / "host.py"
    host.write_text(
        f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\nimport lerobot_host\nimport numpy as np\n"
        + textwrap.dedent(body)
    )
    monkeypatch.setattr(lerobot_policy, "HOST", host)
    return LeRobotPolicy(tmp_path / "p", sys.executable, **options)


def test_an_observation_goes_over_as_it_is_and_actions_come_back(tmp_path, monkeypatch):
    made = policy(
        tmp_path, monkeypatch,
        """
        def infer(data):
            print("a library that prints")
            if str(data["task"]) == "fail":
                raise ValueError("no such task")
            assert data["observation.state"].dtype == np.float32
            picture = data["observation.images.front"]
            return np.stack([data["observation.state"], [picture.mean(), len(str(data["task"]))]])
        lerobot_host.serve(lambda: infer)
        """,
    )  # fmt: skip
    try:
        assert made.name == "act (p)"
        for _ in range(2):
            assert made.infer(SEEN).tolist() == [[1.0, 2.0], [9.0, 9.0]]
        with pytest.raises(WorkerError, match=r"policy act \(p\) refused the observation: ValueError: no such task"):
            made.infer(Observation(SEEN.images, SEEN.state, "fail"))
        assert made.infer(SEEN).shape == (2, 2), "a refusal ends nothing"
    finally:
        made.close()
    assert made._process.returncode is not None
    assert made._process.stdin is not None
    assert made._process.stdin.closed
    assert made._errors.closed


@pytest.mark.parametrize(
    ("body", "told"),
    [("sys.exit('first line\\nModuleNotFoundError: No module named lerobot')", "lerobot; give an interpreter that has lerobot"),
     ("sys.exit('torch\\nsecond\\nlast words')", "ended: last words; give an interpreter that has torch with --policy-python"),
     ("sys.exit('torch\\na\\nb\\nlast words')", "ended: last words$"), ("sys.exit(0)", "ended: no message$")],
)  # fmt: skip
def test_a_host_that_ends_says_its_last_line_and_what_it_lacks_and_leaves_nothing_open(
    tmp_path, monkeypatch, body, told
):
    made: list[subprocess.Popen] = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    with pytest.raises(WorkerError, match=told):
        policy(tmp_path, monkeypatch, body)
    (process,) = made
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdin.closed
    assert process.stdout.closed


def test_a_host_that_is_silent_is_ended(tmp_path, monkeypatch):
    made = policy(
        tmp_path, monkeypatch,
        """
        import time
        lerobot_host.serve(lambda: lambda data: time.sleep(60))
        """,
        timeout_s=0.2,
    )  # fmt: skip
    began = time.monotonic()
    with pytest.raises(WorkerError, match="gave no answer in time"):
        made.infer(SEEN)
    assert time.monotonic() - began < 20
    assert made._process.poll() is not None


def test_a_folder_that_is_no_policy_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no LeRobot policy folder: config\.json is missing"):
        LeRobotPolicy(tmp_path, sys.executable)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not readable JSON"):
        LeRobotPolicy(tmp_path, sys.executable)


class Streams:
    """Standard streams of a host, in memory."""

    def __init__(self, asked: bytes) -> None:
        self.stdin, self.stdout = SimpleNamespace(buffer=io.BytesIO(asked)), SimpleNamespace(buffer=io.BytesIO())
        self.stderr = io.StringIO()


def message(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return struct.pack("<q", len(buffer.getvalue())) + buffer.getvalue()


def test_a_host_answers_message_by_message_until_the_input_ends(monkeypatch):
    """Length (8 bytes, little endian), then an .npz; what is cut off at the end is no message."""
    streams = Streams(message(x=[1.0]) + message(y=[2.0]) + message(x=[3.0]) + b"\x01\x02")
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(streams, name))
    lerobot_host.serve(lambda: lambda data: data["x"] * 2)
    monkeypatch.undo()
    data, answers = streams.stdout.buffer.getvalue(), []
    while data:
        (length,) = struct.unpack("<q", data[:8])
        with np.load(io.BytesIO(data[8 : 8 + length])) as found:
            answers.append({key: found[key].tolist() for key in found.files})
        data = data[8 + length :]
    assert answers[0] == {"ready": True}
    assert answers[1] == {"actions": [2.0]}
    assert "KeyError" in answers[2]["error"]
    assert answers[3:] == [{"actions": [6.0]}]
