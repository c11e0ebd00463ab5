# SPDX-License-Identifier: Apache-2.0
"""What differs between Windows and POSIX systems, in one place: processes, signals, file locks.

| what                         | POSIX                          | Windows                                             |
|------------------------------|--------------------------------|-----------------------------------------------------|
| ask a process to stop        | SIGTERM                        | Ctrl-Break, else it is ended                        |
| be asked                     | SIGINT, SIGTERM                | the same and SIGBREAK                               |
| a child out of Ctrl-C's reach| a session of its own           | a process group of its own                          |
| is a process alive           | /proc, else signal 0           | its handle: signal 0 would be Ctrl-C to its group   |
| one writer                   | flock                          | a locked byte                                       |

Functions look at the system when they are called, so that a test can put another one in place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

NEW_GROUP = 0x200
"""CREATE_NEW_PROCESS_GROUP of the Windows API."""
QUERY_LIMITED, STILL_ACTIVE = 0x1000, 259
"""PROCESS_QUERY_LIMITED_INFORMATION and the exit code of a process that runs."""


def is_windows() -> bool:
    """Whether this is Windows."""
    return sys.platform == "win32"


def stop_signals() -> tuple[int, ...]:
    """Signals by which a user or another program asks this process to stop."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last is Ctrl-Break, which exists on Windows only
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def own_group() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a child that Ctrl-C in this terminal does not reach, and `ask_to_stop` does."""
    return {"creationflags": NEW_GROUP} if is_windows() else {"start_new_session": True}


def ask_to_stop(process: subprocess.Popen[Any]) -> None:
    """Ask a child that was started with `own_group` to stop; what it has finished stays.

    On Windows Ctrl-Break needs a console that both share. Kit has none when it is started from the desktop: then the
    child is ended, which loses no finished file (all are renamed into place).
    """
    if process.poll() is not None:
        return
    if not is_windows():
        process.send_signal(signal.SIGTERM)
        return
    try:
        process.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined]
    except (OSError, ValueError):
        process.terminate()


def ask_pid_to_stop(pid: int) -> None:
    """Ask another process of this user to stop. Raises ProcessLookupError when there is none.

    On Windows `os.kill` ends it where Ctrl-Break cannot reach it: whatever is asked to stop so must survive that.
    """
    if is_windows():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined]
            return
        if started(pid) is None:
            raise ProcessLookupError(pid)
    os.kill(pid, signal.SIGTERM)


def lock(handle: int) -> None:
    """Lock an open file for this process: exclusive, at once, released by the system when the process ends.

    Raises OSError when another process has it.
    """
    if is_windows():
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def started(pid: int) -> int | None:
    """When a process started: clock ticks since boot on Linux, 100 ns on Windows, 0 where the system does not tell; None
    when it is gone.

    A zombie is gone: in containers whose first process reaps no orphans, killed workers stay zombies for ever.
    Sources: proc_pid_stat(5), fields 3 (state) and 22 (starttime), counted after the name in brackets; GetProcessTimes.
    """
    if is_windows():
        return _started_on_windows(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return 0
    return 0


def _started_on_windows(pid: int) -> int | None:
    """By the process's handle. `os.kill(pid, 0)` is no question there: 0 is Ctrl-C."""
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(QUERY_LIMITED, False, pid)
    if not handle:
        # Access denied (5) means that it runs under another user.
        return 0 if kernel.GetLastError() == 5 else None
    try:
        code = ctypes.c_ulong()
        if kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code)) and code.value != STILL_ACTIVE:
            return None
        times = [ctypes.c_ulonglong() for _ in range(4)]
        if not kernel.GetProcessTimes(ctypes.c_void_p(handle), *map(ctypes.byref, times)):
            return 0
        return int(times[0].value)
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if is_windows() else "bin/python")


def sync_command(environment: str) -> str:
    """How a user makes one of the checkout's environments (`.venv`, `.venv-worker`) on this system."""
    if is_windows():  # no make there
        return f"py scripts\\make_env.py {environment}"
    return f"make {'sync-worker' if environment == '.venv-worker' else 'sync'}"
