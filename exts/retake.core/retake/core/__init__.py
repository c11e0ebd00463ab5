# SPDX-License-Identifier: Apache-2.0
"""Retake's pure core: Episode → Skeleton → Variants → Takes → Verdicts → Dataset.

Each arrow is a module of that name. `from retake.core import run` is the whole arrow in one call, `retake.core.stages` has
every stage by itself. This file imports nothing, so that Kit pays only for what it uses.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`run` and `RunResult`, imported when they are asked for (PEP 562)."""
    if name in ("run", "RunResult"):
        from retake.core import stages

        return getattr(stages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
