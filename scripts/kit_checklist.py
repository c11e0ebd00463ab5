# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/isaac_sim_checklist.md from the list that the self-test measures (retake.isaac.assumptions).

python scripts/kit_checklist.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from retake.isaac.assumptions import ASSUMPTIONS, MEASUREMENTS

PAGE = Path(__file__).resolve().parents[1] / "docs/isaac_sim_checklist.md"
BEGIN, END = "<!-- written by scripts/kit_checklist.py -->", "<!-- end -->"


def tables() -> str:
    """Both tables as Markdown."""
    measured = [f"| {m.name} | {m.what} | {m.good} | {m.why} |" for m in MEASUREMENTS]
    assumed = [f"| {n} | {a.assumed} | {a.if_false} | {a.measured} |" for n, a in enumerate(ASSUMPTIONS, start=1)]
    return "\n".join(
        [
            "| item | what is measured | good | why it needs the real thing |",
            "|---|---|---|---|",
            *measured,
            "",
            "## What is taken for granted",
            "",
            "Each of these rests on public sources and on the fakes of the test suite. A test turns each one over "
            "(`tests/test_isaac_assumptions.py`): the recording then ends with a message and the frames so far, never with a "
            "wrong pair. The self-test measures them on your machine.",
            "",
            "| | assumed | what happens when it does not hold | what the self-test measures |",
            "|---|---|---|---|",
            *assumed,
        ]
    )


def written(page: str) -> str:
    """The page with the tables in their place. Raises ValueError where the page has no place for them."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
