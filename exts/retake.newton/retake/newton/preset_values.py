# SPDX-License-Identifier: Apache-2.0
"""What a preset may ask for: light, drives, phases, robot descriptions. Plain values, so that reading a preset (which an
untouched run does, too) loads neither the planner nor the renderer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PHASES = ("wait", "approach", "descend", "close", "lift", "carry", "release", "retreat")
POLICIES = ("auto", "authored", "fill")
"""`auto`: a robot none of whose joints has a position drive gets stated gains on all; any other keeps its own drives.
`authored`: only what the stage drives. `fill`: stated gains wherever the stage gives no position drive."""
SUFFIXES = (".urdf", ".xml", ".mjcf")


def is_description(file: Path) -> bool:
    """Whether a file is a robot description to be converted, by its suffix."""
    return Path(file).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class DriveRequest:
    """What a capture asks of drives."""

    policy: str = "auto"
    stiffness: float = 0.0
    """Of stated drives, N·m/rad or N/m; 0 = from each joint's inertia."""
    damping: float = 0.0
    """N·m·s/rad or N·s/m; 0 = critical."""


@dataclass(frozen=True)
class Lighting:
    """One sun with shadows, an ambient sky, and what is behind everything. Colours are linear RGB, 0..1."""

    sun: tuple[float, float, float] = (0.72, 0.71, 0.68)
    """Full sun (1.0) clips the white robot; 0.72 keeps its shading."""
    sky: tuple[float, float, float] = (0.30, 0.31, 0.33)
    ground: tuple[float, float, float] = (0.16, 0.15, 0.14)
    background: tuple[int, int, int] = (58, 62, 70)
    """sRGB bytes of pixels that see nothing."""
