# SPDX-License-Identifier: Apache-2.0
"""Make `.lerobot-env`: lerobot 0.4.4 as a *reader* beside torch 2.13.0, to check exports against the real thing.

lerobot asks for torch < 2.11 and a torchvision that decodes video; here it only reads, so both come `--no-deps` and the
check replaces its frame decoder by PyAV (tests/lerobot_reader.py, which says so). torch is installed by pip and pinned
first: any looser request lets a resolver replace a CPU build by several GB of CUDA.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / ".lerobot-env"
STEPS: tuple[tuple[str, ...], ...] = (
    ("torch==2.13.0",),
    ("--no-deps", "lerobot==0.4.4", "torchvision==0.28.0"),
    (
        "torch==2.13.0", "accelerate==1.15.0", "datasets>=4,<5", "pandas>=2,<3", "av>=14,<16", "huggingface-hub<0.36",
        "numpy>=2,<2.5", "pyarrow", "diffusers>=0.34,<0.36",
        "draccus==0.10.0", "pyserial<4", "jsonlines", "einops", "packaging", "termcolor", "tqdm", "safetensors",
        "deepdiff",
        "imageio", "opencv-python-headless", "pillow", "gymnasium", "psutil",
    ),
)  # fmt: skip


def main() -> None:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        sys.exit(
            "lerobot 0.4.4 needs Python 3.10 to 3.12; run this script with such an interpreter (PYTHON=python3.11)"
        )
    python, started = TARGET / "bin" / "python", time.monotonic()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(TARGET)], check=True)
    for step in STEPS:
        print("pip install", *step, flush=True)
        result = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *step], cwd=ROOT, check=False)
        if result.returncode:
            sys.exit(f"lerobot_env: pip failed with exit code {result.returncode}")
    subprocess.run([str(python), str(ROOT / "tests" / "lerobot_reader.py"), "--self-test"], check=True)
    (TARGET / ".synced").touch()
    print(f"{TARGET.name} is ready ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
