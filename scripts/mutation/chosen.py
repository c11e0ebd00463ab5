# SPDX-License-Identifier: Apache-2.0
"""Run chosen tests in the given order, ending at the first that fails.

usage: chosen.py LIST [PYTEST OPTION …]      LIST: a JSON list of node ids
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest


class Choice:
    """A pytest plugin: of what is collected, only these tests, in their order."""

    def __init__(self, wanted: list[str]) -> None:
        self.place = {name: number for number, name in enumerate(wanted)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda item: self.place[item.nodeid])


def main() -> int:
    wanted = json.loads(Path(sys.argv[1]).read_text())
    files = list(dict.fromkeys(name.partition("::")[0] for name in wanted))
    return int(pytest.main([*files, "-q", "-x", *sys.argv[2:]], plugins=[Choice(wanted)]))


if __name__ == "__main__":
    sys.exit(main())
