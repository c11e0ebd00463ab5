# SPDX-License-Identifier: Apache-2.0
"""Run one test file and write which lines of the packages each of its tests executes.

Tests that begin after LIMIT seconds are left out.

usage: traced.py EXTS OUT LIMIT FILE [PYTEST OPTION …]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

FIXTURE = "fixture "


class Tracer:
    """A pytest plugin: contexts of the measurement are tests, and fixtures that several tests share."""

    def __init__(self, measured: coverage.Coverage, limit_s: float) -> None:
        self.measured, self.now, self.until = measured, "", time.monotonic() + limit_s
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if time.monotonic() > self.until:
            item.session.shouldstop = "the time of the measurement is over"
        self.now = item.nodeid
        names = [FIXTURE + name for name in getattr(item, "fixturenames", ())]
        self.tests[item.nodeid] = {"outcome": "passed", "seconds": 0.0, "fixtures": names}
        self.measured.switch_context(self.now)
        yield
        self.measured.switch_context("")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            yield
            return
        before, self.now = self.now, FIXTURE + fixturedef.argname
        self.measured.switch_context(self.now)
        yield
        self.now = before
        self.measured.switch_context(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.tests[report.nodeid]
        row["seconds"] += report.duration if report.when == "call" else 0
        if report.outcome != "passed":
            row["outcome"] = report.outcome


def main() -> int:
    exts, out, limit, file, *options = sys.argv[1:]
    measured = coverage.Coverage(data_file=None, include=[f"{exts}/*"], messages=False)
    measured.start()
    tracer = Tracer(measured, float(limit))
    code = pytest.main([file, "-q", *options], plugins=[tracer])
    measured.stop()
    data, lines = measured.get_data(), {}
    for name in data.measured_files():
        lines[str(Path(name).relative_to(exts))] = {
            str(line): contexts for line, contexts in data.contexts_by_lineno(name).items()
        }
    Path(out).write_text(json.dumps({"exit": int(code), "tests": tracer.tests, "lines": lines}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
