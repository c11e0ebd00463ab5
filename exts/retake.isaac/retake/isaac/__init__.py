# SPDX-License-Identifier: Apache-2.0
"""Retake in Isaac Sim. `from retake.isaac import record` records a loop that a script steps itself (`stepping`)."""

from __future__ import annotations

from typing import Any

try:
    import retake.core.errors  # noqa: F401 - here only to say in words what is missing
except ModuleNotFoundError as error:
    if not str(error.name).startswith("retake"):
        raise
    raise ImportError(
        "retake.core is not on the path: retake.isaac needs the folders exts/retake.core, exts/retake.usd and exts/retake.isaac "
        "together, by --ext-folder exts, on PYTHONPATH, or from an installed isaac-retake"
    ) from error


def __getattr__(name: str) -> Any:
    """`record`, loaded on use: before a SimulationApp exists nothing of USD or Kit may be imported."""
    if name == "record":
        from retake.isaac.stepping import record

        return record
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
