# SPDX-License-Identifier: Apache-2.0
"""Gated making: every delivered frame passed the gate; a frame that fails is made again with another seed, and what
stays out is reported as missing instead of being delivered."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from retake.core.episode import Episode
from retake.core.errors import VariantError
from retake.core.files import read_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.variants.backends import image_backend
from retake.core.variants.base import ImageBackend, Variant, World, source_frame
from retake.core.variants.gate import GateLimits, GateReport, check_variant, duplicate_of, thumbnail
from retake.core.variants.make import make_variant, read_frame, require_licence
from retake.core.variants.sheet import diversity, write_sheet
from retake.core.variants.worlds import Catalogue

SEED_STEP = 1_000_003
"""Between a world's attempts: large, so that attempts never meet another world's seeds."""


@dataclass(frozen=True)
class Gated:
    """What a gated run delivered."""

    variants: tuple[Variant, ...]
    missing: dict[str, tuple[str, ...]]
    """World name → why its last attempt failed."""


def make_gated_variants(
    episode: Episode,
    camera: str,
    out_dir: Path,
    *,
    worlds: Sequence[World],
    backend: str | ImageBackend = "procedural",
    seed: int = 0,
    index: int = 0,
    rerolls: int = 2,
    limits: GateLimits | None = None,
    only_commercial: bool = False,
    catalogue: Catalogue | None = None,
    progress: Progress = silent,
    check_cancel: CheckCancel = never,
) -> Gated:
    """Variants that passed the gate, `contact_sheet.png` and `gate.json` (checks, coverage, distances) beside them.

    Same seeds, same result; unchanged variants are kept and only measured again. Raises VariantError as
    `make_variants` does; a world whose every attempt failed is in `missing`, not an error.
    """
    if not worlds:
        raise VariantError("no worlds were asked for; name presets or a count of sampled worlds")
    maker = image_backend(backend) if isinstance(backend, str) else backend
    require_licence(maker, only_commercial)
    source, out_dir = source_frame(episode, camera, index), Path(out_dir)
    limits = limits or GateLimits()
    made: list[Variant] = []
    missing: dict[str, tuple[str, ...]] = {}
    reports: dict[str, GateReport] = {}
    marks: dict[str, object] = {}
    for count, world in enumerate(worlds):
        check_cancel()
        progress(count, len(worlds), world.name)
        folder = out_dir / world.name
        for attempt in range(rerolls + 1):
            tried = seed + attempt * SEED_STEP
            variant = make_variant(
                source, world, maker, folder, _kept_seed(folder, seed, rerolls, tried),
                episode_sha256=episode.content_sha256, catalogue=catalogue, check_cancel=check_cancel,
            )  # fmt: skip
            frame = read_frame(folder / "frame.png")
            report = check_variant(frame, source, limits)
            twin = duplicate_of(frame, marks, limits.duplicate)  # type: ignore[arg-type]
            if report.passed and not twin:
                made.append(variant)
                reports[world.name], marks[world.name] = report, thumbnail(frame)
                missing.pop(world.name, None)
                break
            missing[world.name] = (*report.reasons, *((f"looks like {twin}",) if twin else ()))
            shutil.rmtree(folder)
    progress(len(worlds), len(worlds), f"{len(missing)} missing" if missing else "")
    if made:
        write_sheet(made, out_dir, out_dir / "contact_sheet.png")
        write_json(
            out_dir / "gate.json",
            {
                "limits": asdict(limits),
                "missing": {name: list(reasons) for name, reasons in missing.items()},
                "checks": {name: [asdict(c) for c in report.checks] for name, report in reports.items()},
                "diversity": diversity(made, out_dir, catalogue),
            },
        )
    return Gated(tuple(made), missing)


def _kept_seed(folder: Path, seed: int, rerolls: int, tried: int) -> int:
    """The seed of a frame that is there already and may be one of this run's attempts, else the one to try."""
    try:
        there = int(read_json(folder / "variant.json")["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return tried
    attempts = {seed + k * SEED_STEP for k in range(rerolls + 1)}
    return there if there in attempts and there >= tried else tried
