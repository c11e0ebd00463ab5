# SPDX-License-Identifier: Apache-2.0
"""Reaching Kit: modules are chosen by what imports and what they contain, never by a version string.

Outside Isaac Sim every entry point of `retake.isaac` ends here, in one sentence.
"""

from __future__ import annotations

import importlib
from typing import Any

from retake.core.errors import MissingDependencyError

WHERE = (
    "retake.isaac runs inside Isaac Sim (6.x, 5.x, 4.5 or 4.2): enable the extension there, or start a script with "
    "Isaac Sim's python.sh; everything outside Isaac Sim is the `retake` command (docs/isaac_sim.md)"
)


def require(name: str) -> Any:
    """A Kit module. Raises MissingDependencyError, one sentence, where there is no Kit (or not this part of it)."""
    module = optional(name)
    if module is None:
        raise MissingDependencyError(f"{name} cannot be imported here; {WHERE}")
    return module


def optional(name: str) -> Any | None:
    """A Kit module, or None where this Isaac Sim has none of that name (its own import errors count as 'none')."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def enable_extension(name: str) -> bool:
    """Switch on an extension that this application ships disabled. False where it does not exist."""
    manager = require("omni.kit.app").get_app().get_extension_manager()
    return bool(manager.set_extension_enabled_immediate(name, True))


def versions() -> dict[str, str]:
    """Names and versions for reports; empty strings where this application does not tell."""
    found = {"kit": "", "isaac_sim": "", "app": ""}
    app_module = optional("omni.kit.app")
    if app_module is not None:
        app = app_module.get_app()
        for key, call in (("kit", "get_kit_version"), ("app", "get_app_version"), ("name", "get_app_name")):
            if hasattr(app, call):
                found[key] = str(getattr(app, call)())
    for name in ("isaacsim.core.version", "omni.isaac.version"):
        module = optional(name)
        if module is not None and hasattr(module, "get_version"):
            parts = module.get_version()
            found["isaac_sim"] = str(parts[0] if isinstance(parts, tuple | list) else parts)
            break
    return found
