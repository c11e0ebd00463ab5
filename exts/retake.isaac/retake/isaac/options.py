# SPDX-License-Identifier: Apache-2.0
"""Kit settings below /exts/retake.isaac: every option of the panel, the writer and headless runs has one.

Values come from config/extension.toml, the command line (`--/exts/retake.isaac/fps=30`) or an autorun YAML. Panel and
writer start from the settings; an autorun starts from its file, and a setting that differs from its default wins over
the file: it was given for this one run. Kit does not tell a default from the same value on the command line.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from retake.core.config import load_yaml
from retake.core.errors import InputError
from retake.core.files import user_path
from retake.isaac.kit import optional, require
from retake.isaac.processes import repository
from retake.isaac.request import SETTINGS, CaptureRequest, convert, request_from
from retake.isaac.stage_open import is_url

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


def changed_settings() -> dict[str, Any]:
    """Settings that differ from their defaults, converted; names as in CaptureRequest and EXTRA. Raises InputError."""
    out: dict[str, Any] = {}
    for item in dataclasses.fields(CaptureRequest):
        value, default = read(item.name), getattr(CaptureRequest, item.name)
        if value is not None and value != "":
            converted = getattr(request_from({item.name: value}), item.name)
            if converted != default:
                out[item.name] = converted
    for name, default in EXTRA.items():
        value = read(name)
        if value is not None and value != "":
            converted = convert(name, value, default)
            if converted != default:
                out[name] = converted
    return out


def request_from_settings(**changes: Any) -> CaptureRequest:
    """The capture request that the settings describe; `changes` win. Raises InputError naming a wrong setting."""
    names = {item.name for item in dataclasses.fields(CaptureRequest)}
    return request_from({**{name: value for name, value in changed_settings().items() if name in names}, **changes})


def load_autorun(path: Path) -> tuple[CaptureRequest, dict[str, Any]]:
    """(what to record, the other options) of an autorun YAML and the settings given beside it.

    Raises InputError naming file and key.
    """
    path = path if path.is_file() else locate(str(path))
    data = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of settings like config/autorun.yaml")
    names = {item.name for item in dataclasses.fields(CaptureRequest)}
    unknown = set(data) - names - set(EXTRA)
    if unknown:
        raise InputError(
            f"{path}: unknown setting {sorted(unknown)[0]!r}; valid: {', '.join(sorted(names | set(EXTRA)))}"
        )
    from_settings = changed_settings() if optional("carb.settings") is not None else {}
    asked = {**data, **from_settings}
    request = request_from({key: value for key, value in asked.items() if key in names})
    if request.robot_file and "robot_file" not in from_settings:
        request = dataclasses.replace(request, robot_file=str(locate(request.robot_file, path)))
    others = {key: convert(key, value, EXTRA[key]) for key, value in asked.items() if key in EXTRA}
    for name in ("stage", "trajectory", "config"):
        if others.get(name) and not is_url(others[name]):
            others[name] = str(locate(others[name], path))
    return request, {**EXTRA, **others}


def quits(path: Path) -> bool:
    """Whether the application is left after this autorun; a file that cannot be read is left with its exit code."""
    try:
        return bool(load_autorun(path)[1]["quit"])
    except (InputError, OSError):
        return True


def locate(text: str, beside: Path | None = None) -> Path:
    """A file named in a setting: relative paths count from where the user stands, else from the autorun file's folder,
    else from the checkout. The first that exists; the user's own place where none does."""
    path = user_path(text)
    places = [Path.cwd(), *([] if beside is None else [beside.absolute().parent]), repository()]
    return next((place / path for place in places if (place / path).exists()), Path.cwd() / path)
