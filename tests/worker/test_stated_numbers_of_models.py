# SPDX-License-Identifier: Apache-2.0
"""Constants and defaults of the modules that need torch, against what they were."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from stated_numbers import modules_of, stated
from test_stated_numbers import FOLDER, NEEDING_TORCH, write


def of(part: str) -> dict[str, dict[str, str]]:
    names = [n for n in modules_of("worker", without=("oscar.triton_kernels",)) if n.split(".")[2:3] == [part]]
    values = {name: stated(name) for name in names}
    assert None not in values.values(), [name for name, value in values.items() if value is None]
    return {name: value for name, value in values.items() if value}


@pytest.mark.parametrize("part", NEEDING_TORCH)
def test_constants_and_defaults_of_models_are_what_they_were(part: str) -> None:
    known, now = json.loads((FOLDER / f"worker.{part}.json").read_text("utf-8")), of(part)
    changed = {
        name: (known.get(name), now.get(name)) for name in known.keys() | now.keys() if known.get(name) != now.get(name)
    }
    assert not changed, "module: (was, is); where that is on purpose, run this file as a program"


if __name__ == "__main__":
    for one in NEEDING_TORCH:
        write(FOLDER / f"worker.{one}.json", of(one))
    sys.exit(0)
