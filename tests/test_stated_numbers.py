# SPDX-License-Identifier: Apache-2.0
"""Constants and defaults against what they were: one that changes by accident is seen.

`python tests/test_stated_numbers.py` writes them anew where they were changed on purpose; so does `.venv-worker/bin/python
tests/worker/test_stated_numbers_of_models.py` for the modules that need torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from stated_numbers import modules_of, stated

FOLDER = Path(__file__).parent / "golden" / "stated"
NEEDING_TORCH = ("oscar", "probe", "tune", "first_frame")
PACKAGES = {"core": (), "usd": (), "isaac": ("tests", "extension"), "worker": NEEDING_TORCH}
"""Package → parts that are left out: what only Kit can import, and what needs torch."""


def found(package: str) -> dict[str, dict[str, str]]:
    values = {name: stated(name) for name in modules_of(package, without=PACKAGES[package])}
    assert None not in values.values(), [name for name, value in values.items() if value is None]
    return {name: value for name, value in values.items() if value}


@pytest.mark.parametrize("package", PACKAGES)
def test_constants_and_defaults_are_what_they_were(package: str) -> None:
    if package in ("usd", "isaac"):
        pytest.importorskip("pxr")
    known, now = json.loads((FOLDER / f"{package}.json").read_text("utf-8")), found(package)
    changed = {
        name: {
            key: (known.get(name, {}).get(key), now.get(name, {}).get(key)) for key in sorted(_differ(known, now, name))
        }
        for name in sorted(known.keys() | now.keys())
        if known.get(name) != now.get(name)
    }
    assert not changed, "place: (was, is); where that is on purpose, run this file as a program"


def _differ(known: dict[str, dict[str, str]], now: dict[str, dict[str, str]], name: str) -> set[str]:
    return {key for key, _ in known.get(name, {}).items() ^ now.get(name, {}).items()}


def write(file: Path, values: dict[str, dict[str, str]]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=0, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    for one in PACKAGES:
        write(FOLDER / f"{one}.json", found(one))
    sys.exit(0)
