# SPDX-License-Identifier: Apache-2.0
"""The executor: the child process that holds the model. `python -m retake.worker.executor <parent pid>`.

It reads one JSON message a line on its standard input and writes one a line on what was its standard output; whatever
libraries print goes to standard error, which is the executor's log. When its parent dies, it dies.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from retake.core.errors import Cancelled
from retake.core.host import stop_signals
from retake.core.wire import job_from_json
from retake.worker.backends import spec_from_json
from retake.worker.execute import Context, Loaded, describe, execute
from retake.worker.memory import fault_of, held_device_bytes
from retake.worker.roots import Roots

PROGRESS_EVERY_S = 0.05
PREVIEW_WIDTH = 320


class Executor:
    """Takes messages, runs one job at a time, reports."""

    def __init__(self, out: TextIO, lines: TextIO) -> None:
        self._out, self._lines = out, lines
        self._write_lock = threading.Lock()
        self._inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled: set[str] = set()
        self._loaded = Loaded()

    def serve(self) -> None:
        """Until the parent closes the pipe."""
        threading.Thread(target=self._read, daemon=True).start()
        self.send(event="ready", pid=os.getpid())
        while True:
            self._run(self._inbox.get())

    def send(self, **message: Any) -> None:
        """One message to the parent."""
        text = json.dumps(message, ensure_ascii=True) + "\n"
        with self._write_lock:
            try:
                self._out.write(text)
                self._out.flush()
            except OSError:
                os._exit(3)

    def _read(self) -> None:
        """Messages as they come; cancel must be heard while a job runs."""
        for line in self._lines:
            message = json.loads(line)
            if message["op"] == "cancel":
                self._cancelled.add(message["job"])
            else:
                # A request to cancel that came when its job had just ended is not about the next attempt at it.
                self._cancelled.discard(message["id"])
                self._inbox.put(message)
        os._exit(0)  # the service is gone; a running job is found unfinished at its next start

    def _run(self, message: dict[str, Any]) -> None:
        job_id, preview_path = message["id"], Path(message["preview"])
        last = [0.0, 0.0]

        def progress(done: int, total: int, note: str = "") -> None:
            now = time.monotonic()
            if now - last[0] >= PROGRESS_EVERY_S or done in (0, total):
                last[0] = now
                self.send(event="progress", id=job_id, done=int(done), total=int(total), note=str(note)[:200])

        def check_cancel() -> None:
            if job_id in self._cancelled:
                raise Cancelled("cancelled")

        def preview(image: np.ndarray) -> None:
            # A picture that cannot be written must not cost the take.
            with contextlib.suppress(OSError):
                _write_preview(preview_path, image)
                self.send(event="preview", id=job_id)

        try:
            job = job_from_json(message["job"])
            # Links may have changed since the request was checked.
            roots = Roots(tuple(Path(root) for root in message["roots"]))
            for what in ("episode", "skeleton", "variant"):
                if (path := getattr(job.request, what, None)) is not None:
                    roots.inside(path, what)
            roots.inside(job.output, "output")
            context = Context(
                job_id, message["content"], {}, message["tier"], message["card"], message["margin_bytes"], message["attempt"],
                Path(message["reuse"]) if message["reuse"] else None,
            )  # fmt: skip
            result = execute(
                job, spec_from_json(message["backend"]), self._loaded, context, progress, check_cancel, preview
            )
            tier = getattr(self._loaded.instance, "tier", "") or message["tier"]
            self.send(event="done", id=job_id, result=result, tier=tier, held=held_device_bytes())
        except Cancelled:
            self.send(event="cancelled", id=job_id, held=held_device_bytes())
        except Exception as error:
            traceback.print_exc()
            (reason, again), fault = describe(error), fault_of(error)
            # A process whose context is broken ends, and is asked nothing more; any other still holds its model.
            held = {} if fault == "context" else {"held": held_device_bytes()}
            self.send(
                event="failed", id=job_id, error=reason, again=again or bool(fault), out_of_memory=fault == "memory",
                broken=fault == "context", disk_full=getattr(error, "errno", None) == 28, **held,
            )  # fmt: skip
        finally:
            self._cancelled.discard(job_id)


def _write_preview(path: Path, image: np.ndarray) -> None:
    """A small JPEG, renamed into place."""
    import cv2

    height, width = image.shape[:2]
    small = cv2.resize(image, (PREVIEW_WIDTH, max(1, height * PREVIEW_WIDTH // width)), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if ok:
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)


def _die_with_parent(parent: int) -> None:
    """Linux ends us with the parent even while native code holds the interpreter; elsewhere the closed pipe does."""
    if sys.platform == "linux":
        import ctypes
        import signal

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.name == "posix" and os.getppid() != parent:
        os._exit(3)


def main() -> None:
    """Start as a child process."""
    import signal

    _die_with_parent(int(sys.argv[1]))
    for number in stop_signals():  # Ctrl-C and Ctrl-Break in a shell reach the whole group; the service decides
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # This process may end without a farewell; what a library said must be in the log by then.
        sys.stdout.reconfigure(line_buffering=True)
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    Executor(out, lines).serve()


if __name__ == "__main__":
    main()
