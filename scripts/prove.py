# SPDX-License-Identifier: Apache-2.0
"""`make prove`: every proof at full counts. Each `scripts/prove/<name>.py` has `prove(out_dir, quick) -> dict`, resumes
from its own cache, and writes docs/proof/<name>.json and .md; this script runs them and writes the index.

usage: prove.py [NAME …] [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "proof"
WORKER = {"oscar", "first_frame", "tune", "gpu_path"}
"""Proofs that need torch run in .venv-worker."""
BY_NAME = {"value"}
"""Experiments of many hours: run only when they are named."""
ONE = (
    "import sys, runpy; from pathlib import Path; sys.path[:0] = [{folder!r}, {tests!r}]; "
    "runpy.run_path({file!r})['prove'](Path({out!r}), {quick!r})"
)


def main() -> int:
    folder = ROOT / "scripts" / "prove"
    names = sorted(p.stem for p in folder.glob("*.py") if "def prove(" in p.read_text("utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"any of: {', '.join(names)} (default: all but {', '.join(sorted(BY_NAME))})",
    )
    parser.add_argument("--quick", action="store_true", help="reduced counts, written to .cache/proof instead")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"unknown proof {', '.join(sorted(unknown))}; valid: {', '.join(names)}")
    out = ROOT / ".cache" / "proof" if options.quick else OUT
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or [n for n in names if n not in BY_NAME]:
        environment = ".venv-worker" if name in WORKER else ".venv"
        started = time.monotonic()
        print(f"== {name}", flush=True)
        code = ONE.format(
            folder=str(folder),
            tests=str(ROOT / "tests"),
            file=str(folder / f"{name}.py"),
            out=str(out),
            quick=options.quick,
        )
        done = subprocess.run([str(ROOT / environment / "bin" / "python"), "-c", code], cwd=ROOT, check=False)
        print(
            f"== {name}: {'done' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if done.returncode:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
