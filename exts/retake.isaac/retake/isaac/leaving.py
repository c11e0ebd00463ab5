# SPDX-License-Identifier: Apache-2.0
"""Leaving an application so that a farm learns how it went, whatever the application does to its exit code.

python.sh and python.bat turn every failure into 1 (`|| error_exit`), Isaac Sim before 6 ends with 0 whatever happened, a stage
with unsaved changes may keep the application from quitting, and a shutdown may hang. So the code is also in run.json (`exit`),
it is the last line that Retake prints, unsaved-stage questions are switched off before quitting, and a watchdog ends a process
that does not end by itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retake.core.errors import RetakeError
from retake.isaac.kit import optional, require

CLOSE_TIMEOUT_S = 120.0
"""Seconds for a shutdown; Isaac Sim 6.0.1 grants itself as many."""
SAVE_QUESTIONS = ("/app/file/ignoreUnsavedStage", "/app/file/ignoreUnsavedOnExit")


end_process: Callable[[int], None] = os._exit
"""Ends this process at once; tests put something gentler here."""


def say(text: str) -> None:
    """A line of progress."""
    write_line(f"retake: {text}")


def write_line(text: str) -> None:
    """A line on stdout, whatever stdout is: letters that its encoding lacks (a console of Windows, a farm's log) are escaped,
    and one that is gone (a closed pipe, an application without a console) is no failure, for the application must quit."""
    out = sys.stdout
    if out is None:
        return
    with contextlib.suppress(OSError, ValueError):
        try:
            out.write(f"{text}\n")
        except UnicodeEncodeError:
            encoding = getattr(out, "encoding", None) or "ascii"
            out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        out.flush()


def note_exit(run_folder: Path, code: int, message: str) -> None:
    """Write exit code and reason into run.json, where a run folder was begun; a disk that refuses is no second failure."""
    from retake.core.run_store import open_run  # needs numpy, which may not exist before the application does

    with contextlib.suppress(RetakeError, OSError):
        open_run(run_folder).update(
            exit={"code": code, "message": message, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        )


def arm(code: int, seconds: float = CLOSE_TIMEOUT_S, end: Callable[[int], None] = os._exit) -> threading.Thread:
    """End the process with a code after so many seconds, should it still be there. A second clock, which needs no interpreter
    lock, writes every thread's stack and ends it some time later with 1."""

    def wait() -> None:
        time.sleep(seconds)
        say(f"the application did not close within {seconds:g} s; ended\nretake: exit code {code}")
        end(code)

    thread = threading.Thread(target=wait, name="retake-leave", daemon=True)
    thread.start()
    if end is os._exit:
        with contextlib.suppress(RuntimeError, ValueError, AttributeError, OSError):  # no stderr with a file behind it
            faulthandler.dump_traceback_later(seconds + 30.0, exit=True)
    return thread


def quit_application(code: int) -> None:
    """Ask a running Kit to quit with a code, and see to it that it does."""
    settings = optional("carb.settings")
    if settings is not None:
        for path in SAVE_QUESTIONS:
            settings.get_settings().set(path, True)
    arm(code)
    say(f"exit code {code}")
    require("omni.kit.app").get_app().post_quit(code)


def leave(app: Any, code: int) -> None:
    """Close a SimulationApp so that the process really ends with this exit code.

    `close` may end the process by itself (fast_shutdown), and before 6.x it does so with 0 whatever happened: a farm
    would take a failed recording for a good one. 6.x takes the code; before it, a failure skips the tidy shutdown.
    """
    say(f"exit code {code}")
    arm(code)
    if "exit_code" in inspect.signature(app.close).parameters:
        app.close(exit_code=code)
    elif code:
        sys.stderr.flush()
        end_process(code)
    else:
        app.close()
