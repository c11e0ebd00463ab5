# SPDX-License-Identifier: Apache-2.0
"""Processes beside Kit: the arrow after the Episode (`retake run`), and the GPU worker. Neither runs inside Kit.

Kit's environment must not leak into them: its PYTHONPATH and library paths would load Kit's numpy and Qt into another
Python. They run in the environments that `make sync` and `make sync-worker` create, or in the one that the setting
`python` names.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retake.core.errors import InputError
from retake.core.files import user_path
from retake.core.host import ask_to_stop, own_group, python_of, sync_command

LEAKS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONEXECUTABLE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "CARB_APP_PATH",
    "EXP_PATH",
    "ISAAC_PATH",
)
LINE = re.compile(r"(?P<stage>[A-Z]\w+): (?P<done>\d+)/(?P<total>\d+)(?: (?P<note>.*))?")


def repository() -> Path:
    """The checkout that this extension lives in."""
    return Path(__file__).resolve().parents[4]


def find_python(setting: str = "", *, worker: bool = False) -> Path:
    """A Python outside Kit that has Retake. Raises InputError saying how to get one."""
    environments = [".venv-worker"] if worker else [".venv", ".venv-worker"]
    candidates = [user_path(setting)] if setting else [python_of(repository() / name) for name in environments]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    command = sync_command(environments[0])
    raise InputError(
        f"no Python for Retake outside Kit ({', '.join(map(str, candidates))}); run `{command}` in {repository()}, "
        "or set /exts/retake.isaac/python to a Python that has isaac-retake"
    )


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what Kit put into it."""
    kept = {
        key: value for key, value in os.environ.items() if key not in LEAKS and not key.startswith(("OMNI_", "CARB_"))
    }
    return {**kept, "PYTHONUTF8": "1", **(extra or {})}


@dataclass(frozen=True)
class Advance:
    """Progress of a process, from its own lines."""

    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""


class Process:
    """A running command whose progress lines are read on a thread; cancelling asks first, then insists."""

    def __init__(
        self, command: Sequence[str | Path], *, on_exit: Callable[[int], None] | None = None, cwd: Path | None = None
    ) -> None:
        self._advance = Advance()
        self._tail: deque[str] = deque(maxlen=40)
        self._on_exit = on_exit
        # A group of its own: Ctrl-C in Kit's terminal must not end it, cancel() must reach its children.
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=clean_environment(),
            cwd=cwd,
            **own_group(),
        )
        self._thread = threading.Thread(target=self._read, name="retake-process", daemon=True)
        self._thread.start()

    @property
    def advance(self) -> Advance:
        """The newest progress."""
        return self._advance

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def last_words(self) -> str:
        """The last lines it printed: what to show when it failed."""
        return "\n".join(list(self._tail)[-6:])

    def cancel(self) -> None:
        """Ask to stop; whatever is finished stays."""
        ask_to_stop(self._process)

    def close(self, timeout_s: float = 5.0) -> None:
        """Cancel and wait; end it if it does not."""
        self.cancel()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout_s)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                text = line.rstrip()
                found = LINE.search(text)
                if found is not None:
                    self._advance = Advance(
                        found["stage"], int(found["done"]), int(found["total"]), found["note"] or ""
                    )
                elif text:
                    self._tail.append(text)
        code = self._process.wait()
        if self._on_exit is not None:
            self._on_exit(code)


def arrow_command(python: Path, run: Path, settings: Sequence[str]) -> list[str]:
    """`retake run` on a run folder that already holds its Episode."""
    options = [part for item in settings for part in ("--set", item)]
    return [str(python), "-m", "retake.core.cli", "run", "--run", str(run), *options]


def export_command(python: Path, run: Path, out: Path, arguments: Sequence[str]) -> list[str]:
    """`retake export` of a run folder."""
    return [str(python), "-m", "retake.core.cli", "export", str(run), "--out", str(out), *arguments]


def worker_command(python: Path, roots: Sequence[Path]) -> list[str]:
    """`retake worker` for some folders of runs."""
    return [str(python), "-m", "retake.worker", *(part for root in roots for part in ("--root", str(root)))]
