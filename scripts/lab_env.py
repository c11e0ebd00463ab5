# SPDX-License-Identifier: Apache-2.0
"""Make `.lab-env`: Isaac Lab 3.0 without Kit, as the real host of retake.lab's tests and of `make demo-lab`.

Open packages only: Isaac Lab (BSD-3-Clause), Newton's physics and its Warp renderer, torch on the CPU. isaaclab's own pins
ask for another torch and for `omniverseclient`, which is proprietary and needed for assets on Nucleus alone: hence
`--no-deps`. isaaclab asks for Python 3.12 and runs under 3.11 as well, for which `--ignore-requires-python` is needed.
torch is installed by pip and pinned first: any looser request lets a resolver replace a CPU build by several GB of CUDA.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / ".lab-env"
TORCH = "torch==2.13.0"
STEPS: tuple[tuple[str, ...], ...] = (
    (TORCH,),
    (
        TORCH, "newton==1.6.1", "warp-lang==1.17.0", "mujoco~=3.12.0", "mujoco-warp~=3.12.0", "numpy>=2,<2.5",
        "newton-usd-schemas>=0.5.0,<0.7", "usd-exchange==3.0.1", "gymnasium", "prettytable", "psutil", "h5py",
        "hydra-core", "omegaconf", "rich", "tqdm", "lazy_loader", "filelock", "packaging", "gitpython", "requests",
        "scipy", "trimesh", "einops", "typing-extensions", "Jinja2", "pillow", "pyglet<3", "opencv-python-headless",
        "PyYAML", "license-expression",
    ),
    ("--no-deps", "--ignore-requires-python", "isaaclab==3.0.0"),
    ("pytest", "pytest-timeout", "hypothesis", "jaxtyping", "beartype", "av>=14"),
    ("--no-deps", "-e", "."),
)  # fmt: skip
"""What pip is asked for, in order. The last is this repository itself."""


def main() -> None:
    if sys.version_info[:2] < (3, 11):
        have = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"lab_env: Isaac Lab 3.0 needs Python 3.11 or newer, this is {have}; set PYTHON=python3.11")
    python, started = TARGET / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), time.monotonic()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(TARGET)], check=True)
    for step in STEPS:
        print("pip install", *step, flush=True)
        result = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *step], cwd=ROOT, check=False)
        if result.returncode:
            sys.exit(f"lab_env: pip failed with exit code {result.returncode}")
    (TARGET / ".synced").touch()
    print(f"{TARGET.name} is ready ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
