# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that need torch are what they were.

`python tests/worker/test_worker_command_lines.py` writes them anew where they were changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from command_lines import load, parser_of, store, told

ENTRIES = ("retake.worker.oscar.cli:main", "retake.worker.oscar.cli:bench", "retake.worker.tune.cli:main")


@pytest.mark.parametrize("entry", ENTRIES)
def test_options_are_what_they_were(entry: str) -> None:
    assert told(parser_of(entry)) == load("worker")[entry]


if __name__ == "__main__":
    store("worker", ENTRIES)
