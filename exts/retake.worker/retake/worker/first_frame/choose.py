# SPDX-License-Identifier: Apache-2.0
"""Backend `auto`: the best openly licensed first-frame model that is here and fits the free memory, else `procedural`.

Cosmos-Transfer is never chosen by itself: its licence has conditions that are yours to accept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from retake.core import plugins
from retake.core.errors import InputError, MissingDependencyError
from retake.core.licences import commercial_obstacle
from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants.base import ImageBackend
from retake.core.variants.worlds import Catalogue
from retake.worker.first_frame.memory import TIERS
from retake.worker.gpu import roomiest_device
from retake.worker.memory import GIB, MARGIN_BYTES, first_fitting, free_device_bytes
from retake.worker.settings import load_settings

ORDER = ("z-image", "flux2-klein", "qwen-edit", "sdxl")
"""Strongest hold on the geometry first among the openly licensed; the OpenRAIL one, which restricts uses, last."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why each better one was not."""

    backend: ImageBackend
    tier: str
    passed_over: dict[str, str]
    """Backend name → reason, in the order in which they were tried."""


def choose(
    free_bytes: int,
    *,
    order: Sequence[str] = ORDER,
    margin_bytes: int = MARGIN_BYTES,
    catalogue: Catalogue | None = None,
) -> Choice:
    """The first backend of `order` whose model is here, under open terms, and whose smallest tier fits `free_bytes`.

    Its tier is the fastest one that fits. `procedural` needs no memory of a card and is always left.
    """
    passed: dict[str, str] = {}
    specs = load_settings().backend_specs()
    for name in order:
        spec = specs[name]
        try:
            made = plugins.load(spec.target, extra="oscar")(**spec.options, catalogue=catalogue)
        except (MissingDependencyError, InputError) as error:
            passed[name] = str(error)
            continue
        if reason := commercial_obstacle(made.licence):
            passed[name] = f"its terms: {reason}"
            continue
        plan = made.plan() or dict(spec.tiers)
        fitting = first_fitting({tier: plan[tier] for tier in TIERS if tier in plan}, free_bytes, margin_bytes)
        if fitting is None:
            least = min(plan.values(), default=0)
            passed[name] = (
                f"needs {least / GIB:.1f} GiB of GPU memory in its smallest tier (and {margin_bytes / GIB:.0f} "
                f"GiB to spare), {free_bytes / GIB:.1f} are free"
            )
            continue
        made.use_tier(fitting)
        return Choice(made, fitting, passed)
    return Choice(ProceduralBackend(catalogue), "", passed)


def auto_backend(only_commercial: bool = False, catalogue: Catalogue | None = None) -> ImageBackend:
    """The chosen backend; the log says what was passed over. All candidates allow commercial use, so `only_commercial`
    changes nothing here (it is checked again where variants are made)."""
    choice = choose(_free_bytes(), catalogue=catalogue)
    for name, reason in choice.passed_over.items():
        log.info("first-frame backend %s: %s", name, reason)
    log.info("first-frame backend: %s %s", choice.backend.name, choice.tier)
    return choice.backend


def _free_bytes() -> int:
    """Free memory of the best card; 0 without torch or a card."""
    try:
        import torch
    except ImportError:
        return 0
    if not torch.cuda.is_available():
        return 0
    return free_device_bytes(roomiest_device())  # where a backend without a device of its own will run


def report(choice: Choice) -> list[str]:
    """The choice as lines of text."""
    lines = [f"{name}: {reason}" for name, reason in choice.passed_over.items()]
    return [*lines, f"chosen: {choice.backend.name}{f' ({choice.tier})' if choice.tier else ''}"]
