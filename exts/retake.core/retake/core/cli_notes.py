# SPDX-License-Identifier: Apache-2.0
"""What a command says on stderr beside its result: what is missing, what failed, and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from retake.core.config import RunConfig
from retake.core.run_store import RunDirectory
from retake.core.variants.base import PAINTER


def note_missing(missing: Mapping[str, tuple[str, ...]]) -> bool:
    """Name the worlds that did not pass the gate; whether there are any."""
    for name, reasons in missing.items():
        print(f"retake: missing {name}: {'; '.join(reasons)}", file=sys.stderr)
    return bool(missing)


def note_seeds(config: RunConfig) -> None:
    """Say which seeds made no takes, and why."""
    from retake.core.pipeline import used_seeds

    asked, used = config.takes.seeds or (config.takes.seed,), used_seeds(config)
    if len(used) < len(asked):
        print(
            f"retake: note: backend {config.takes.backend!r} draws nothing from a seed; one take per variant (seed {used[0]}) "
            f"instead of {len(asked)} equal ones",
            file=sys.stderr,
        )


def note_shapes(run: RunDirectory, config: RunConfig) -> None:
    """Say whose worlds keep no shapes although that was asked for."""
    made = {found.id: found.record.backend for found in run.variants()}
    others = sorted({name for name in made.values() if name != PAINTER})
    if config.variants.keep_shapes and others:
        count = sum(name != PAINTER for name in made.values())
        print(
            f"retake: note: variants.keep_shapes is read by the {PAINTER} painter alone; the {count} of {len(made)} variants by "
            f"{', '.join(others)} show objects as that model draws them",
            file=sys.stderr,
        )


def note_failed(run: RunDirectory) -> None:
    """Why each take that does not pass does not."""
    for take in run.takes():
        standing = run.standing(take)
        if standing.status not in ("pass", "not judged"):
            print(f"retake: take {take.id}: {standing.status}: {standing.reason}", file=sys.stderr)
