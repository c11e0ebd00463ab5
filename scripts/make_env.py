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
TEST = ["pytest", "hypothesis", "jaxtyping", "beartype", "pytest-timeout", "pytest-xdist", "coverage"]
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
WORKER_PYTHON = (3, 11)
"""diffusers needs it. Where `make` is called with an older one, the newest on the PATH is taken for .venv-worker."""
FOLDERS = {".venv-test": ".venv"}
MARKS = {".venv-test": ".synced-test"}


def run(*command: str | Path) -> None:
    result = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if result.returncode:
        sys.exit(f"make_env: `{' '.join(map(str, command))}` failed with exit code {result.returncode}")


def interpreter(name: str) -> str:
    """The Python that environment is made with. Exits with a sentence where there is none."""
    minimum = WORKER_PYTHON if name == ".venv-worker" else (3, 10)
    if sys.version_info >= minimum:
        return sys.executable
    for minor in range(14, minimum[1] - 1, -1):
        found = shutil.which(f"python3.{minor}") if name == ".venv-worker" else None
        # A version manager may leave a command that only says the version is not chosen.
        if (
            found
            and subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
            == 0
        ):
            return found
    have, wanted = (".".join(map(str, version[:2])) for version in (sys.version_info, minimum))
    sys.exit(f"make_env: {name} needs Python {wanted} or newer, this is {have}; set PYTHON=python{wanted}")


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--can"]
    if len(arguments) != 1 or arguments[0] not in ENVIRONMENTS:
        sys.exit(
            f"usage: make_env.py [--can] {{{'|'.join(ENVIRONMENTS)}}}      --can: only say whether a Python for it is here"
        )
    name = arguments[0]
    spec, target, started = ENVIRONMENTS[name], ROOT / FOLDERS.get(name, name), time.monotonic()
    chosen = interpreter(name)
    if len(sys.argv) > 2:
        return
    python = target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"creating {name} …", flush=True)
        run(chosen, "-m", "venv", target)
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
