# SPDX-License-Identifier: Apache-2.0
"""A LeRobot policy folder, run in its own interpreter: torch never enters this process.

`lerobot_host.py` runs under `python` (an environment that has lerobot) and answers over its standard streams: a length
(8 bytes, little endian) and an .npz without pickles, both ways.
"""

from __future__ import annotations

import contextlib
import io
import json
import queue
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.errors import InputError, WorkerError
from retake.core.export.records import STATE
from retake.core.robustness.policy import Observation, as_actions

HOST = Path(__file__).with_name("lerobot_host.py")
MODULES = {"retake_probe": "retake.worker.probe.host"}
"""Kinds of policy folder that another module answers for, by the same protocol; every other kind is LeRobot's."""


class LeRobotPolicy:
    """See the module's text. Raises InputError for a folder that is none, WorkerError when the host fails."""

    def __init__(self, folder: Path, python: str, timeout_s: float = 60.0) -> None:
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} is no LeRobot policy folder: config.json is missing")
        try:
            kind = json.loads((folder / "config.json").read_text("utf-8")).get("type", "?")
        except ValueError as error:
            raise InputError(f"{folder / 'config.json'} is not readable JSON: {error}") from error
        self.name, self._timeout_s = f"{kind} ({folder.name})", timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open while the host runs; a full pipe would stop it
        self._process = subprocess.Popen(
            [python, *(["-m", module] if (module := MODULES.get(str(kind))) else [str(HOST)]), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        self._blocks: queue.Queue[bytes] = queue.Queue()
        self._left = b""
        threading.Thread(target=self._listen, name="retake-policy", daemon=True).start()
        try:
            # Loading weights and importing torch take longer than one inference.
            self._receive(max(timeout_s, 300.0))
        except BaseException:
            self.close()
            raise

    def infer(self, observation: Observation) -> np.ndarray:
        """One request."""
        arrays: dict[str, Any] = {f"observation.images.{name}": image for name, image in observation.images.items()}
        arrays[STATE] = np.asarray(observation.state, np.float32)
        arrays["task"] = np.array(observation.task)
        self._send(arrays)
        return as_actions(self._receive(self._timeout_s)["actions"], self.name)

    def reset(self) -> None:
        """The host resets the policy before every observation."""

    def close(self) -> None:
        """End the host."""
        self._process.terminate()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    def _send(self, arrays: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        data = buffer.getvalue()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<q", len(data)) + data)
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError(self._failure()) from error

    def _receive(self, timeout_s: float) -> dict[str, np.ndarray]:
        deadline = time.monotonic() + timeout_s
        (length,) = struct.unpack("<q", self._read(8, deadline))
        with np.load(io.BytesIO(self._read(length, deadline)), allow_pickle=False) as data:
            out = {key: data[key] for key in data.files}
        if "error" in out:
            raise WorkerError(f"policy {self.name} refused the observation: {out['error']}")
        return out

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        data = b""
        while len(data) < count:
            if not self._left:
                try:
                    self._left = self._blocks.get(timeout=max(deadline - time.monotonic(), 0.001))
                except queue.Empty:
                    self.close()
                    raise WorkerError(f"policy {self.name} gave no answer in time") from None
                if not self._left:
                    raise WorkerError(self._failure())
            data, self._left = data + self._left[: count - len(data)], self._left[count - len(data) :]
        return data

    def _listen(self) -> None:
        """Blocks of the host's answers, empty at its end. A thread: no system call waits for a pipe on Windows."""
        assert self._process.stdout is not None
        try:
            while block := self._process.stdout.read(1 << 20):
                self._blocks.put(block)
        except (OSError, ValueError):  # closed meanwhile
            pass
        self._blocks.put(b"")

    def _failure(self) -> str:
        self._process.wait(10)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        lacks = next((name for name in ("lerobot", "torch") if name in " ".join(lines[-3:])), "")
        hint = f"; give an interpreter that has {lacks} with --policy-python" if lacks else ""
        return f"policy {self.name} ended: {lines[-1] if lines else 'no message'}{hint}"
