# SPDX-License-Identifier: Apache-2.0
"""Create or refresh one of the two environments: `.venv` (no torch) or `.venv-worker` (torch, diffusers).

Needs only the standard library. Uses `uv` where it is on the PATH, plain venv + pip otherwise. torch is always
installed by pip and pinned first: any looser request lets a resolver replace a CPU build by several GB of CUDA.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = ["pytest", "hypothesis", "jaxtyping", "beartype", "pytest-timeout", "pytest-xdist"]
# The service's tests: HTTP client, API fuzzer, a driver for the system's Chromium (no browser is downloaded).
SERVICE = ["httpx", "schemathesis", "playwright"]
CHECK = ["ruff", "pyright[nodejs]", "import-linter", "types-PyYAML", "yourdfpy"]
ENVIRONMENTS = {
    ".venv": {"first": [], "project": ".[video,newton,export,worker]", "tools": []},
    # The same environment with what tests and checks need on top, so that the demo need not wait for it.
    ".venv-test": {
        "first": [],
        "project": ".[video,newton,export,worker,policy,ray]",
        "tools": [*TEST, *SERVICE, *CHECK],
    },
    ".venv-worker": {"first": ["torch==2.13.0"], "project": ".[video,oscar,tune,worker]", "tools": TEST},
}
FOLDERS = {".venv-test": ".venv"}
MARKS = {".venv-test": ".synced-test"}


def run(*command: str | Path) -> None:
    result = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if result.returncode:
        sys.exit(f"make_env: `{' '.join(map(str, command))}` failed with exit code {result.returncode}")


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in ENVIRONMENTS:
        sys.exit(f"usage: make_env.py {{{'|'.join(ENVIRONMENTS)}}}")
    name = sys.argv[1]
    spec, target, started = ENVIRONMENTS[name], ROOT / FOLDERS.get(name, name), time.monotonic()
    minimum = (3, 11) if name == ".venv-worker" else (3, 10)
    if sys.version_info < minimum:
        have = ".".join(map(str, sys.version_info[:2]))
        sys.exit(
            f"make_env: {name} needs Python {minimum[0]}.{minimum[1]} or newer, this is {have}; set PYTHON=python3.11"
        )
    python = target / "bin" / "python"
    if not python.exists():
        print(f"creating {name} …", flush=True)
        run(sys.executable, "-m", "venv", target)
    uv = shutil.which("uv")
    pip = [python, "-m", "pip", "install", "-qq", "-c", "constraints.txt"]
    fast = [uv, "pip", "install", "--quiet", "--python", python, "-c", "constraints.txt"] if uv else pip
    if uv and "PIP_FIND_LINKS" in os.environ:
        os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    print(f"installing into {name} with {'uv' if uv else 'pip'} …", flush=True)
    if spec["first"]:
        run(*pip, *spec["first"])
    run(*fast, "-e", spec["project"], *spec["tools"])
    (target / MARKS.get(name, ".synced")).touch()
    print(f"{name} is ready ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
