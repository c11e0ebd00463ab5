# SPDX-License-Identifier: Apache-2.0
"""How an application of Isaac Sim starts and behaves: profile_facts.json, each entry with its public source and line.

`base` is the smallest application, `full` what isaac-sim.sh starts, `python` a SimulationApp, `newton` isaac-sim.newton.sh, `lab`
Isaac Lab on top of python. Written by scripts/kit_profiles.py from the sources that a user fetches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parent / "profile_facts.json"
DEFAULT = "base"


@dataclass(frozen=True)
class Profile:
    """One application of one version."""

    version: str
    application: str
    settings: Mapping[str, Any]
    """Carb settings at start."""
    behaviours: Mapping[str, Any]

    def behaviour(self, name: str, otherwise: Any = None) -> Any:
        """What the application does; `otherwise` where it does not."""
        return self.behaviours.get(name, otherwise)


@cache
def profiles() -> dict[tuple[str, str], Profile]:
    """(version, application) -> profile."""
    out = {}
    for name, entry in json.loads(FACTS.read_text())["profiles"].items():
        version, application = name.split(" ")
        parts = ({key: fact["value"] for key, fact in entry[part].items()} for part in ("settings", "behaviours"))
        out[version, application] = Profile(version, application, *parts)
    return out


@cache
def names() -> tuple[tuple[str, str], ...]:
    """Every (version, application)."""
    return tuple(profiles())


def profile(version: str, application: str) -> Profile:
    """That application, or the version's smallest where it has no such."""
    return profiles().get((version, application)) or profiles()[version, DEFAULT]
