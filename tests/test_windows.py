# SPDX-License-Identifier: Apache-2.0
"""Windows, as far as a fake of it reaches: every module imports without what only POSIX has, and each of the ways in
retake.core.host does what Windows needs. Nothing here was run on Windows."""

from __future__ import annotations

import ast
import ctypes
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core import files, host
from retake.core.errors import ExportError, InputError, RunError
from retake.core.export import staging
from retake.core.progress import Stop
from retake.core.run_store import claim_folder

ROOT = Path(__file__).resolve().parents[1]
BREAK, SIGBREAK = 1, 21
POSIX_ONLY = {
    "os": {"fork", "getuid", "geteuid", "killpg", "setsid", "getloadavg", "getppid", "nice", "mkfifo", "kill",
           "sched_setscheduler", "sched_getscheduler", "sched_getparam", "uname"},
    "signal": {"SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "alarm", "pause"},
    "select": {"poll", "select", "epoll"},
    "selectors": {"DefaultSelector"},
}  # fmt: skip
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}
GUARDED = {
    "retake.core/retake/core/host.py": "the place for it",
    "retake.core/retake/core/export/encode.py": "hasattr(os, 'sched_getscheduler')",
    "retake.worker/retake/worker/executor.py": "sys.platform == 'linux', os.name == 'posix'",
    "retake.worker/retake/worker/security.py": "os.name == 'posix'",
}
"""Files that name what only POSIX has, and what keeps Windows from getting there."""


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A fake of what Retake uses of Windows: locks, console events, process handles."""
    fake = SimpleNamespace(locked=set(), killed=[], alive={os.getpid(): 4242}, exited=set(), denied=set(), errors=[])

    def locking(handle: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        key = os.fstat(handle).st_ino
        if key in fake.locked:
            raise PermissionError(13, "Permission denied")
        fake.locked.add(key)

    class Kernel:
        """kernel32 as far as it is asked."""

        class OpenProcess:
            """A handle, 0 where there is no such process."""

            restype: Any = None

            def __new__(cls, access: int, inherit: bool, pid: int) -> int:  # type: ignore[misc]
                return pid if pid in fake.alive and pid not in fake.denied else 0

        @staticmethod
        def GetLastError() -> int:
            return 5 if fake.denied else 87

        @staticmethod
        def GetExitCodeProcess(handle: Any, code: Any) -> int:
            code._obj.value = 0 if handle.value in fake.exited else 259
            return 1

        @staticmethod
        def GetProcessTimes(handle: Any, created: Any, *others: Any) -> int:
            created._obj.value = fake.alive[handle.value]
            return 1

        @staticmethod
        def CloseHandle(handle: Any) -> int:
            return 1

    def kill(pid: int, number: int) -> None:
        assert number != 0, "0 is Ctrl-C on Windows"
        fake.killed.append((pid, number))
        if number == BREAK and fake.errors:
            raise fake.errors.pop()

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", BREAK, raising=False)
    monkeypatch.setattr(signal, "SIGBREAK", SIGBREAK, raising=False)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=Kernel), raising=False)
    monkeypatch.setattr(os, "kill", kill)
    return fake


@cache
def sources() -> tuple[tuple[Path, str, ast.Module], ...]:
    """Every module of the extensions: path, text, syntax tree."""
    texts = [(path, path.read_text("utf-8")) for path in sorted(ROOT.glob("exts/*/retake/**/*.py"))]
    return tuple((path, text, ast.parse(text)) for path, text in texts)


def test_what_only_posix_has_is_named_in_few_guarded_places() -> None:
    found: dict[str, list[str]] = {}
    for path, _, tree in sources():
        name = path.relative_to(ROOT / "exts").as_posix()
        for node in ast.walk(tree):
            hits: list[str] = []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                hits = [node.attr] if node.attr in POSIX_ONLY.get(node.value.id, ()) else []
            elif isinstance(node, ast.Import):
                hits = [a.name for a in node.names if a.name in POSIX_MODULES]
            elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
                hits = [str(node.module)]
            for hit in hits:
                found.setdefault(name, []).append(f"{hit} (line {node.lineno})")
    assert {name: where for name, where in found.items() if name not in GUARDED} == {}


def test_text_files_are_utf8_whatever_the_system_s_code_page_is() -> None:
    for path, text, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                texts = {"read_text": 0, "write_text": 1}.get(node.func.attr)
                given = any(k.arg == "encoding" for k in node.keywords)
                if texts is not None and not given and len(node.args) <= texts:
                    line = text.splitlines()[node.lineno - 1]
                    assert '"/proc/' in line or "ascii" in line or "json.dumps" in line, (
                        f"{path}:{node.lineno}: {line.strip()}"
                    )


def test_every_module_imports_without_what_only_posix_has() -> None:
    """All of core, isaac's parts outside Kit, the panel's model and the worker's service, on a fake Windows."""
    script = """
import importlib, os, pkgutil, signal, sys
sys.path[:0] = [p for p in os.environ["RETAKE_PATHS"].split(os.pathsep)]
names = ["retake.isaac.processes", "retake.isaac.options", "retake.ui.view_model", "retake.ui.layout",
         "retake.worker.cli", "retake.worker.serve", "retake.worker.service", "retake.worker.executor"]
import retake.core
names += [m.name for m in pkgutil.walk_packages(retake.core.__path__, "retake.core.") if "lerobot_host" not in m.name]
def load():
    bad = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            bad.append((name, str(error)))
    return bad
known = load()  # what this environment lacks anyway; brings every other library in before the system changes
for name in [n for n in sys.modules if n == "retake" or n.startswith("retake.")]:
    del sys.modules[name]
for module in ("fcntl", "resource", "pwd", "grp", "termios", "pty"):
    sys.modules[module] = None
for gone in ("fork", "getuid", "geteuid", "killpg", "setsid", "getloadavg", "getppid", "nice", "sched_setscheduler"):
    delattr(os, gone)
for gone in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2"):
    delattr(signal, gone)
sys.platform, os.name_before = "win32", os.name
new = [entry for entry in load() if entry not in known]
print(len(names), new)
sys.exit(bool(new))
"""
    paths = os.pathsep.join(str(path) for path in sorted(ROOT.glob("exts/retake.*")))
    environment = {**os.environ, "RETAKE_PATHS": paths}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 100


class TestLocks:
    """One writer per folder."""

    def test_a_run_folder_has_one_writer(self, windows: SimpleNamespace, tmp_path: Path) -> None:
        run = claim_folder(tmp_path / "run")
        with run.locked():
            assert windows.locked
            with pytest.raises(RunError, match="written by another process"), run.locked():
                pass

    def test_an_export_has_one_writer_and_its_lock_goes_when_it_is_closed(
        self, windows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[int] = []
        original = os.open
        monkeypatch.setattr(os, "open", lambda *a, **k: opened.append(original(*a, **k)) or opened[-1])
        unlink = Path.unlink

        def refuse_open(self: Path, missing_ok: bool = False) -> None:
            for handle in opened:
                try:
                    if self.exists() and os.fstat(handle).st_ino == self.stat().st_ino:
                        raise PermissionError(13, "the process cannot access the file")
                except OSError as error:
                    if error.errno == 13:
                        raise
            unlink(self, missing_ok)

        monkeypatch.setattr(Path, "unlink", refuse_open)
        with (
            staging._locked(tmp_path / "d"),
            pytest.raises(ExportError, match="another process is exporting"),
            staging._locked(tmp_path / "d"),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_the_worker_s_state_folder_has_one_worker(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        service = pytest.importorskip("retake.worker.service")
        request.getfixturevalue("windows")
        from retake.core.errors import WorkerError

        handle = service._hold(tmp_path / "lock")
        with pytest.raises(WorkerError, match="another worker uses"):
            service._hold(tmp_path / "lock")
        os.close(handle)


class TestProcesses:
    """Asking, being asked, being alive."""

    def test_ctrl_break_asks_a_command_to_stop(self, windows: SimpleNamespace) -> None:
        before = {number: signal.getsignal(number) for number in host.stop_signals()}
        try:
            stop = Stop()
            assert set(host.stop_signals()) == {signal.SIGINT, signal.SIGTERM, SIGBREAK}
            signal.getsignal(SIGBREAK)(SIGBREAK, None)  # type: ignore[operator, misc]
            assert stop.asked
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @pytest.mark.parametrize("console", [True, False])
    def test_a_child_is_asked_by_ctrl_break_and_ended_where_there_is_no_console(
        self, windows: SimpleNamespace, console: bool
    ) -> None:
        done: list[Any] = []

        def send_signal(number: int) -> None:
            done.append(number)
            if not console:
                raise OSError(6, "The handle is invalid")

        child: Any = SimpleNamespace(poll=lambda: None, send_signal=send_signal, terminate=lambda: done.append("ended"))
        host.ask_to_stop(child)
        assert done == ([BREAK] if console else [BREAK, "ended"])
        assert host.own_group() == {"creationflags": 0x200}

    def test_a_child_that_has_ended_is_left_alone(self, windows: SimpleNamespace) -> None:
        ended: Any = SimpleNamespace(poll=lambda: 0)
        host.ask_to_stop(ended)

    def test_another_process_is_asked_then_ended(self, windows: SimpleNamespace) -> None:
        host.ask_pid_to_stop(os.getpid())
        assert windows.killed == [(os.getpid(), BREAK)]
        windows.errors.append(OSError(87, "not in this console"))
        host.ask_pid_to_stop(os.getpid())
        assert windows.killed[-1] == (os.getpid(), signal.SIGTERM)
        windows.errors.append(OSError(87, "no such process"))
        with pytest.raises(ProcessLookupError):
            host.ask_pid_to_stop(7)

    def test_whether_a_process_lives_is_asked_of_its_handle(self, windows: SimpleNamespace) -> None:
        assert host.started(os.getpid()) == 4242
        assert host.started(7) is None
        windows.exited.add(os.getpid())
        assert host.started(os.getpid()) is None
        windows.denied.add(os.getpid())
        assert host.started(os.getpid()) == 0
        assert windows.killed == []

    def test_a_live_writer_s_temporary_is_kept_and_a_dead_one_s_is_not(self, windows: SimpleNamespace) -> None:
        name = f".take.{files.owner_tag()}.x.tmp"
        assert not files.is_abandoned(name)
        windows.alive[os.getpid()] = 4243  # the same number, another process
        assert files.is_abandoned(name)


class TestPanelAndPaths:
    """What Kit starts outside itself."""

    def test_the_environment_s_python_and_how_to_make_it(
        self, windows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from retake.isaac import processes

        monkeypatch.setattr(processes, "repository", lambda: tmp_path)
        with pytest.raises(InputError, match=r"py scripts.make_env.py \.venv`"):
            processes.find_python()
        with pytest.raises(InputError, match=r"py scripts.make_env.py \.venv-worker`"):
            processes.find_python(worker=True)
        python = tmp_path / ".venv/Scripts/python.exe"
        python.parent.mkdir(parents=True)
        python.write_bytes(b"")
        assert processes.find_python() == python

    def test_a_report_is_opened_by_the_desktop(
        self, windows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Path] = []
        monkeypatch.setattr(os, "startfile", opened.append, raising=False)
        from retake.ui import kit_ports

        kit_ports.KitStarter(None).open_path(tmp_path)  # type: ignore[arg-type]
        assert opened == [tmp_path]

    def test_the_load_is_left_out_where_the_system_does_not_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "getloadavg")
        assert host.load_average() is None
