# SPDX-License-Identifier: Apache-2.0
"""A pytest session that collects test files once and then runs orders, each in a process forked from it.

An order is a line of JSON on descriptor ORDERS, answered by one on ANSWERS. {"trace": FILE}: which lines of the packages each
test of the file executes. {"module", "source", "number", "span", "tests", "cpu_s"}: these tests, up to the first that fails or
to the end of that processor time, against the module with that fault (null: with none); its functions get the changed code. A
fault that importing executes is not for it ("fresh").

usage: session.py EXTS ORDERS ANSWERS FILE … [PYTEST OPTION …]
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import coverage
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from mutation.faults import planted

FIXTURE = "fixture "
SLACK_S, ASLEEP_S = 30, 60
"""Processor time beyond what an order may take, and time without any, that tell one that hangs."""
TEST_CPU_S, FILE_CPU_S = 10, 40
"""Processor time after which a measured test is given up, and after which no further test of a file is measured."""
OPTIMIZED = 1
"""Flag of code that is a function's, not a module's or a class's."""


class TooLong(BaseException):
    """A test took more processor time than a measurement gives it."""


class Patience:
    """Whether a process and what it started hang: they computed for too long, or have slept for long after their time was over.
    A machine that others use gives a process less than its time, so the clock alone says nothing."""

    def __init__(self, group: int, limit_s: float, cpu_s: float) -> None:
        self.group, self.until, self.cpu_s = group, time.monotonic() + limit_s, cpu_s
        self.looked = time.monotonic()
        self.used, self.worked = 0.0, time.monotonic()

    def over(self) -> bool:
        """To be asked often; looks every two seconds."""
        now = time.monotonic()
        if now < self.looked + 2:
            return False
        self.looked, used = now, group_cpu_s(self.group)
        if used is None:  # no /proc here
            return now > self.until
        if used > self.used + 0.05:
            self.used, self.worked = used, now
        return used > self.cpu_s or (now > self.until and now > self.worked + ASLEEP_S)


def group_cpu_s(group: int) -> float | None:
    """Processor time of a process group and of its ended children, s; None where the system does not tell."""
    total, told = 0, False
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            told = True
            if int(fields[2]) == group:
                total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK") if told else None


class Tracer:
    """A pytest plugin: contexts of the measurement are tests, and fixtures that several tests share."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.now = measured, ""
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        names = [FIXTURE + name for name in getattr(item, "fixturenames", ())]
        row = self.tests[item.nodeid] = {"outcome": "passed", "seconds": 0.0, "fixtures": names}
        self._switch(item.nodeid)
        begun, clock = _cpu_s(), time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, TEST_CPU_S)
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)
        row["seconds"] = round(max(_cpu_s() - begun, (time.monotonic() - clock) / 8), 3)
        self._switch("")

    def _switch(self, context: str) -> None:
        self.now = os.environ["RETAKE_TRACE_TEST"] = context
        self.measured.switch_context(context)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            yield
            return
        before = self.now
        self._switch(FIXTURE + fixturedef.argname)
        yield
        self._switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.tests[report.nodeid]["outcome"] = report.outcome


class FirstFailure:
    """A pytest plugin: the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


class Orders:
    """A pytest plugin: obeys orders in place of running what was collected."""

    def __init__(self, exts: Path, orders: int, answers: int, importing: coverage.Coverage) -> None:
        self.exts, self.importing = exts, importing
        self.orders, self.answers = os.fdopen(orders, "r"), os.fdopen(answers, "w", buffering=1)

    def pytest_sessionstart(self) -> None:
        """A failing example of one mutant is not shown to the next."""
        from hypothesis import settings  # not before pytest, which rewrites its assertions

        settings.register_profile("forgetful", parent=settings.default, database=None)
        settings.load_profile("forgetful")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.importing.stop()
        gc.collect()
        gc.freeze()
        names = [item.nodeid for item in session.items]
        print(json.dumps({"collected": names, "failed": session.testsfailed}), file=self.answers)
        session.testsfailed = 0
        for line in self.orders:
            print(json.dumps(self._in_a_fork(session, json.loads(line))), file=self.answers)
        return True

    def _in_a_fork(self, session: pytest.Session, order: dict[str, Any]) -> dict[str, Any]:
        if order.get("number") is not None and self._imported(order):
            return {"fresh": True}
        folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = self._obey(session, order, folder)
            finally:
                os._exit(code)
        patience, status = Patience(child, order["limit_s"], order.get("cpu_s", order["limit_s"]) + SLACK_S), None
        while status is None and not patience.over():
            pid, found = os.waitpid(child, os.WNOHANG)
            status = found if pid else status
            time.sleep(0 if pid else 0.02)
        _kill_group(child)
        if status is None:
            os.waitpid(child, 0)
        answer = folder / "answer.json"
        found = json.loads(answer.read_text()) if answer.is_file() else {"crashed": status is not None}
        shutil.rmtree(folder, ignore_errors=True)
        return {**found, "hangs": status is None}

    def _imported(self, order: dict[str, Any]) -> bool:
        """Whether importing the packages and the tests executed the fault's statement."""
        first, last = order["span"]
        lines = self.importing.get_data().lines(str(self.exts / order["module"])) or ()
        return any(first <= line <= last for line in lines)

    def _obey(self, session: pytest.Session, order: dict[str, Any], folder: Path) -> int:
        os.setsid()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
        if "trace" in order:
            found = self._trace([i for i in session.items if i.nodeid.startswith(order["trace"] + "::")], folder)
        elif order["number"] is not None and (why := self._planted(order)):
            found = why
        else:
            by_name = {item.nodeid: item for item in session.items}
            first, until = FirstFailure(), _cpu_s() + order["cpu_s"]
            session.config.pluginmanager.register(first)
            items = [by_name[name] for name in order["tests"] if name in by_name]
            run_items(items, lambda: bool(first.name) or _cpu_s() > until)
            found = {"failed": first.name}
        (folder / "answer.json").write_text(json.dumps(found, default=sorted))
        return 0

    def _planted(self, order: dict[str, Any]) -> dict[str, Any]:
        """Nothing where the fault is planted, else the answer that says why not."""
        try:
            done = patch(str(self.exts / order["module"]), order["source"], order["number"])
        except Exception:  # a fault of this tool, not of the module: it must not look like a test that fails
            return {"broken": traceback.format_exc()}
        return {} if done else {"fresh": True}

    def _trace(self, items: list[pytest.Item], folder: Path) -> dict[str, Any]:
        data = folder / "data"
        data.mkdir()
        os.environ |= {"RETAKE_TRACE_FOLDER": str(data), "RETAKE_TRACE_SOURCES": f"{self.exts}/*"}
        signal.signal(signal.SIGPROF, _too_long)
        measured = coverage.Coverage(data_file=None, include=[f"{self.exts}/*"], messages=False, config_file=False)
        measured.start()
        tracer, until = Tracer(measured), _cpu_s() + FILE_CPU_S
        items[0].config.pluginmanager.register(tracer)
        run_items(items, lambda: _cpu_s() > until)
        measured.stop()
        lines: dict[str, dict[str, set[str]]] = {}
        for found in (measured.get_data(), *map(_read, data.iterdir())):
            for name in found.measured_files():
                own = lines.setdefault(str(Path(name).relative_to(self.exts)), {})
                for line, contexts in found.contexts_by_lineno(name).items():
                    own.setdefault(str(line), set()).update(contexts)
        return {"tests": tracer.tests, "lines": lines}


def run_items(items: list[pytest.Item], enough: Any) -> None:
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if following is not None and enough():
            item.session._setupstate.teardown_exact(None)
            return


def patch(path: str, source: str, number: int) -> bool:
    """Give every function of the module the code it has with the fault; False when more than functions change."""
    changed = list(_changed(compile(source, path, "exec"), compile(planted(ast.parse(source), number), path, "exec")))
    gc.unfreeze()
    functions = [f for f in gc.get_objects() if type(f) is FunctionType]  # isinstance asks proxies, which may warn
    done = False
    for old, new in changed:
        if old is None or new is None:
            return False
        own = [f for f in functions if f.__code__.co_filename == path and _qualname(f.__code__) == _qualname(old)]
        own = [f for f in own if f.__code__.co_firstlineno == old.co_firstlineno] or own
        if not own or any(len(f.__code__.co_freevars) != len(new.co_freevars) for f in own):
            return False
        for function in own:
            function.__code__ = new
        done = True
    return done


def _changed(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType | None, CodeType | None]]:
    """(old, new) of every outermost function that differs; (None, None) for a module's or a class's own code."""
    if old.co_flags & OPTIMIZED:
        if old != new:
            yield old, new
        return
    own = [[c for c in code.co_consts if not isinstance(c, CodeType)] for code in (old, new)]
    inner = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (old, new)]
    if (old.co_code, old.co_names, repr(own[0])) != (new.co_code, new.co_names, repr(own[1])) or len(inner[0]) != len(
        inner[1]
    ):
        yield None, None
        return
    for pair in zip(*inner, strict=True):
        yield from _changed(*pair)


def _qualname(code: CodeType) -> str:
    return getattr(code, "co_qualname", code.co_name)  # Python 3.10 has the name alone


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


def _cpu_s() -> float:
    """Processor time of this process and of those it started that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _read(path: Path) -> coverage.CoverageData:
    data = coverage.CoverageData(str(path))
    data.read()
    return data


def main() -> int:
    exts, orders, answers, *rest = sys.argv[1:]
    importing = coverage.Coverage(data_file=None, include=[f"{exts}/*"], messages=False, config_file=False)
    importing.start()
    return int(pytest.main([*rest, "-q"], plugins=[Orders(Path(exts), int(orders), int(answers), importing)]))


if __name__ == "__main__":
    sys.exit(main())
