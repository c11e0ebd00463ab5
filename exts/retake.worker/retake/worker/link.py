# SPDX-License-Identifier: Apache-2.0
"""The service's end of the executor process: start it, talk to it, end it. Everything it says goes to one queue."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from retake.core.files import write_json

MAX_LOG = 4 << 20


def note_process(path: Path, pid: int) -> None:
    """Remember an executor, so that the next service can end one that outlived this one."""
    with contextlib.suppress(OSError, psutil.Error):
        write_json(path, {"pid": pid, "created": psutil.Process(pid).create_time()})


class ExecutorLink:
    """One executor process. `on_message` is called from a reader thread, at last with {"event": "exit"}."""

    def __init__(self, log: Path, on_message: Callable[[ExecutorLink, dict[str, Any]], None]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > MAX_LOG:
            os.replace(log, log.with_suffix(".old.log"))
        with log.open("ab") as stream:
            self._log_start = stream.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "retake.worker.executor", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                encoding="utf-8",
                # PCI order: a card's number then means the same to CUDA as to NVML
                env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
            )
        note_process(log.parent.parent / "executor.json", self.process.pid)
        self._on_message = on_message
        self._reader = threading.Thread(target=self._read, name="executor-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def send(self, **message: Any) -> None:
        """One message; a dead process shows itself through `exit`."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            pass

    def kill(self) -> None:
        """End the process and its children now; returns when they are gone (its GPU memory with them)."""
        try:
            family = [*psutil.Process(self.pid).children(recursive=True)]
        except psutil.Error:
            family = []
        self.process.kill()
        for child in family:
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.process.wait()
        self._reader.join(timeout=5)

    def rss_bytes(self) -> int:
        """Memory it holds; 0 when it is gone."""
        try:
            return psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return 0

    def log_tail(self, lines: int = 12) -> str:
        """The end of what this process printed."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(self._log_start, self.log.stat().st_size - 12_000))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return ""
        fatal = text.rfind("Fatal Python error")  # the reason comes first there, then pages of threads
        return "\n".join(text[fatal:].splitlines()[:lines] if fatal >= 0 else text.strip().splitlines()[-lines:])

    def how_it_ended(self) -> str:
        """Exit code or signal, in words."""
        code = self.process.poll()
        if code is None:
            return "still running"
        if code < 0:
            import signal

            try:
                return f"ended by {signal.Signals(-code).name}"
            except ValueError:
                return f"ended by signal {-code}"
        return f"ended with exit code {code}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue  # cut short by the end of the process
                if isinstance(message, dict):
                    self._on_message(self, message)
        except (OSError, ValueError):
            pass
        self.process.wait()
        self._on_message(self, {"event": "exit"})
        for stream in (self.process.stdin, self.process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass
