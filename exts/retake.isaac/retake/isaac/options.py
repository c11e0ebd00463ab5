# SPDX-License-Identifier: Apache-2.0
"""Kit settings below /exts/retake.isaac: every option of the panel and of headless runs has one.

Values come from config/extension.toml, the command line (`--/exts/retake.isaac/fps=30`) or an autorun YAML.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from retake.core.config import load_yaml
from retake.core.errors import InputError
from retake.isaac.kit import require
from retake.isaac.request import SETTINGS, CaptureRequest, request_from

EXTRA = {
    "autorun": "",
    "python": "",
    "stage": "",
    "trajectory": "",
    "generate": True,
    "config": "",
    "quit": True,
    "timeout_s": 3600.0,
}
"""Options beside those of CaptureRequest: see docs/isaac_sim.md."""


def read(name: str, default: Any = None) -> Any:
    """One setting, `default` where unset."""
    value = require("carb.settings").get_settings().get(f"{SETTINGS}/{name}")
    return default if value is None else value


def request_from_settings(**changes: Any) -> CaptureRequest:
    """The capture request that the settings describe; `changes` win."""
    values = {}
    for item in dataclasses.fields(CaptureRequest):
        value = read(item.name)
        if value is not None and value != "":
            values[item.name] = value
    return request_from({**values, **changes})


def load_autorun(path: Path) -> tuple[CaptureRequest, dict[str, Any]]:
    """(what to record, the other options) of an autorun YAML. Raises InputError naming file and key."""
    data = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of settings like config/autorun.yaml")
    names = {item.name for item in dataclasses.fields(CaptureRequest)}
    unknown = set(data) - names - set(EXTRA)
    if unknown:
        raise InputError(
            f"{path}: unknown setting {sorted(unknown)[0]!r}; valid: {', '.join(sorted(names | set(EXTRA)))}"
        )
    request = request_from({key: value for key, value in data.items() if key in names})
    return request, {**EXTRA, **{key: value for key, value in data.items() if key in EXTRA}}
