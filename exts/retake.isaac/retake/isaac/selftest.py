# SPDX-License-Identifier: Apache-2.0
"""`retake kit-selftest`: what only a real Isaac Sim can confirm, measured once on the user's machine.

    ./python.sh -m retake.isaac.selftest              (headless; PYTHONPATH as in docs/isaac_sim.md)
    Script Editor: from retake.isaac import selftest; selftest.start()

Prints one line per item of docs/isaac_sim_checklist.md: pass, fail or unknown, with what was measured, and writes two files to
attach to a report: retake-selftest.json and retake-selftest.md. Nothing of USD or Kit is imported before the application exists.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retake.core.files import atomic_path, write_json
from retake.isaac import kit, processes
from retake.isaac.assumptions import ASSUMPTIONS, Item
from retake.isaac.leaving import write_line
from retake.isaac.standalone import exit_code_of_command, options_of, run_in_app

FRAMES = 20
JSON, REPORT = "retake-selftest.json", "retake-selftest.md"


def line(item: Item) -> str:
    """One item in a line."""
    mark = {"pass": "PASS", "fail": "FAIL"}.get(item.status, "----")
    return f"{mark}  {item.name}: {item.detail}"


def show(item: Item) -> None:
    """One line on stdout."""
    write_line(line(item))


def report(versions: dict[str, str], items: Sequence[Item]) -> str:
    """The page to attach: what was found, then one row per item, failures first."""
    counts = Counter(item.status for item in items)
    if_false = {a.key: a.if_false for a in ASSUMPTIONS}
    order = {"fail": 0, "unknown": 1, "pass": 2}
    rows = [
        f"| {item.status} | {item.name} | {item.detail} | {if_false.get(item.key, '')} |".replace("\n", " ")
        for item in sorted(items, key=lambda item: order.get(item.status, 0))
    ]
    application = ", ".join(f"{name} {value}" for name, value in versions.items() if value) or "unknown application"
    summary = f"{counts['pass']} pass, {counts['fail']} fail, {counts['unknown']} cannot be told here."
    head = [
        "# Retake self-test",
        "",
        f"{application}; {sys.platform}, Python {sys.version.split()[0]}.",
        "",
        summary,
        "",
    ]
    table = ["| | item | measured | what Retake does when it does not hold |", "|---|---|---|---|", *rows]
    return "\n".join([*head, *table]) + "\n"


async def whole(stage: Path | None, out: Path | None = None, on_item: Callable[[Item], None] = show) -> int:
    """All items; exit code 0 when none failed. `out`: folder for the two files. `on_item` is told each item as it comes."""
    from retake.isaac.selftest_items import SelfTest  # Kit and USD exist only now

    with tempfile.TemporaryDirectory(prefix="retake-selftest-") as folder:
        items = await SelfTest(Path(folder), stage, FRAMES).run(on_item)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / JSON, {"versions": kit.versions(), "items": [asdict(item) for item in items]})
        with atomic_path(out / REPORT) as path:
            path.write_text(report(kit.versions(), items), encoding="utf-8")
        write_line(f"written: {out / JSON}, {out / REPORT}")
    failed = sum(item.status == "fail" for item in items)
    write_line(f"{len(items) - failed} of {len(items)} items without a failure")
    return 1 if failed else 0


def start(stage: Path | None = None, out: Path | None = None, on_item: Callable[[Item], None] = show) -> Any:
    """Inside a running Isaac Sim (a panel's button, the Script Editor): begin, and tell each item as it comes.

    `stage`: None measures the stage that is open. Returns the task; its result is the exit code.
    """
    return asyncio.ensure_future(whole(stage, out, on_item))


def main(argv: list[str]) -> int:
    """Headless, with a SimulationApp of its own."""
    parser = argparse.ArgumentParser(
        prog="retake kit-selftest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", type=Path, default=processes.repository() / "data/stages/pick_place/scene.usda")
    parser.add_argument("--out", type=Path, default=Path("retake-selftest"), help="folder for the two files to attach")
    options, arguments = options_of(parser, argv)
    return run_in_app(
        lambda: whole(options.stage.expanduser().absolute(), options.out.expanduser().absolute()), arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(exit_code_of_command(main))
