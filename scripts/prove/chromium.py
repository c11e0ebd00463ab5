# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium with software WebGL, spoken to over its debugging pipe (JSON messages that end with a zero byte)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from typing import Any

PROGRAM = os.environ.get("RETAKE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
"""The browser, or None where there is none."""
FLAGS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--allow-file-access-from-files", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
    "--no-first-run", "--renderer-process-limit=1",
)  # fmt: skip


class Browser:
    """One page."""

    def __init__(self, address: str) -> None:
        """Raises RuntimeError where there is no browser."""
        if PROGRAM is None:
            raise RuntimeError("Chromium is missing (Debian: `apt install chromium`); or name it by RETAKE_CHROMIUM")
        self._profile = tempfile.TemporaryDirectory(prefix="retake-chromium-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The browser reads from descriptor 3 and writes to 4; a shell puts ours there.
        wired = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", wired, PROGRAM, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._count, self._rest, self._session = 0, b"", ""
        target = self._ask("Target.createTarget", url=address)["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result; events in between are dropped."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"Chromium refused {method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The next message."""
        parts = [self._rest]
        while b"\0" not in parts[-1]:
            got = os.read(self._in, 1 << 20)
            if not got:
                raise RuntimeError("Chromium has gone")
            parts.append(got)
        head, _, self._rest = b"".join(parts).partition(b"\0")
        return json.loads(head)

    def call(self, expression: str) -> Any:
        """The value of a script, awaited."""
        got = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise RuntimeError(f"in the page: {got['exceptionDetails'].get('exception', got['exceptionDetails'])}")
        return got["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60.0) -> None:
        """Until a script is true."""
        deadline = time.monotonic() + seconds
        while not self.call(expression):
            if time.monotonic() > deadline:
                raise RuntimeError(f"`{expression}` was not true within {seconds:g} s")
            time.sleep(0.05)

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self._ask("Browser.close")
        self._process.wait(timeout=60)
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()
