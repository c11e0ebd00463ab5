# SPDX-License-Identifier: Apache-2.0
"""Shared by the embedded simulator's tests: small captures, the proof's functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

SMALL = [
    {"name": "front", "size": [320, 240], "mount": "fixed"},
    {"name": "wrist", "size": [64, 48], "mount": "body", "optional": True},
]
"""The presets' cameras at sizes that render fast."""
TINY = [{"name": "front", "size": [32, 24]}]


def brief(frames: int = 3, **more: Any) -> dict[str, Any]:
    """Overrides for an episode of a few tiny frames in which the robot just stays."""
    return {"scenario": "hold", "frames": frames, "cameras": TINY, **more}


def physics() -> ModuleType:
    """scripts/prove/physics.py."""
    if "prove_physics" not in sys.modules:
        file = ROOT / "scripts" / "prove" / "physics.py"
        spec = importlib.util.spec_from_file_location("prove_physics", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["prove_physics"] = module
        spec.loader.exec_module(module)
    return sys.modules["prove_physics"]
