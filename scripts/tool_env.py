# SPDX-License-Identifier: Apache-2.0
"""Environments of the painter bench's tools: each a folder at the root of the checkout, made once, never imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make(name: str, packages: tuple[str, ...], check: str, advice: str) -> None:
    """A Python environment `name` with pinned packages; exits with `advice` where the program `check` fails in it."""
    python = ROOT / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / name)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    if subprocess.run([str(python), "-c", check], check=False).returncode:
        sys.exit(advice)
