# SPDX-License-Identifier: Apache-2.0
"""Retake in Isaac Sim."""

from __future__ import annotations

try:
    import retake.core.errors  # noqa: F401 - here only to say in words what is missing
except ModuleNotFoundError as error:
    if not str(error.name).startswith("retake"):
        raise
    raise ImportError(
        "retake.core is not on the path: retake.isaac needs the folders exts/retake.core, exts/retake.usd and exts/retake.isaac "
        "together, by --ext-folder exts, on PYTHONPATH, or from an installed isaac-retake"
    ) from error
