# SPDX-License-Identifier: Apache-2.0
"""One world, attempt by attempt: render, measure, and render again with the next seed until the gate lets a frame pass.

Only a frame that passed is ever written, with its measurements, under the key `gate` of variant.json:
`{"identity", "checks": [...], "failed": [{"seed", "reasons", "twin"}]}`. A later call finds there what need not be done
again; another gate measures the same pixels again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import UInt8
from retake.core.errors import VariantError
from retake.core.files import read_json, write_json
from retake.core.progress import CheckCancel, never
from retake.core.run_layout import VARIANT_FRAME, VARIANT_RECORD
from retake.core.variants.base import ImageBackend, SourceFrame, Variant, World
from retake.core.variants.gate import Gate, GateLimits, gate_identity
from retake.core.variants.make import make_variant, read_frame, require_licence, unchanged, variant_inputs
from retake.core.variants.worlds import Catalogue

SEED_STEP = 1_000_003
"""Between a world's attempts: large, so that attempts never meet another world's seeds."""


@dataclass(frozen=True)
class Rules:
    """What a frame must pass and how often it may be tried."""

    gate: bool = True
    rerolls: int = 2
    """Further attempts, each with a new seed, for a world whose frame fails."""
    limits: GateLimits = field(default_factory=GateLimits)
    depth: str = ""
    """Name of a depth estimator (`retake.depth_estimators`); empty = none."""
    blind: str = "deliver"
    """What becomes of a camera that shows no robot, beside one that does: `deliver` unmeasured, or `refuse`."""

    def __post_init__(self) -> None:
        if self.rerolls < 0:
            raise VariantError(f"rerolls is {self.rerolls}; expected the number of further attempts, 0 or more")

    @property
    def identity(self) -> str:
        """Of what a frame is measured by; empty when nothing is measured."""
        return gate_identity(self.limits, self.depth) if self.gate else ""


@dataclass(frozen=True)
class Attempt:
    """One frame that was not delivered."""

    seed: int
    reasons: tuple[str, ...]
    twin: str = ""
    """The world it looked like, if that was the reason."""
    cameras: tuple[str, ...] = ()
    """The cameras whose frames failed, where a world was tried as several see it."""


@dataclass(frozen=True)
class Tried:
    """What became of one world."""

    variant: Variant | None
    """None: every attempt failed."""
    failed: tuple[Attempt, ...] = ()


class _Rejected(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons


class Attempts:
    """The attempts at worlds of one source frame by one backend. Raises VariantError when the frame shows no robot
    that could be measured, unless the gate is off."""

    def __init__(
        self,
        source: SourceFrame,
        backend: ImageBackend,
        seed: int,
        rules: Rules,
        *,
        episode_sha256: str = "",
        catalogue: Catalogue | None = None,
        only_commercial: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        from retake.core.variants.controls import require_robot

        self.source, self.backend, self.seed, self.rules = source, backend, seed, rules
        self.episode_sha256, self.catalogue, self.only_commercial = episode_sha256, catalogue, only_commercial
        self.extra = extra
        self._gates: dict[str, Gate] = {}
        if rules.gate and not source.has_maps:
            raise VariantError(
                f"camera {source.camera_name!r} recorded pictures alone: there is nothing to measure a frame against; "
                "`--set variants.gate=false` takes frames as they are"
            )
        if rules.gate:
            require_robot(source)

    def by(self, backend: ImageBackend) -> Attempts:
        """The same attempts by another backend."""
        other = copy.copy(self)
        other.backend = backend
        return other

    def gate_of(self, world: World) -> Gate:
        """What a world's frames are measured by: the source, with the shapes that the backend gives its objects."""
        shown = getattr(self.backend, "shown", None)
        key = world.name if shown is not None else ""
        if key not in self._gates:
            seen = self.source if shown is None else shown(self.source, world)
            self._gates = {key: Gate(seen, self.rules.limits, self.rules.depth)}
        return self._gates[key]

    def inputs(self, world: World, attempt: int) -> str:
        """Hash of what the pixels of an attempt follow from."""
        return variant_inputs(
            self.source, world, self.backend, self.seed_of(attempt),
            episode_sha256=self.episode_sha256, catalogue=self.catalogue,
        )  # fmt: skip

    def seed_of(self, attempt: int) -> int:
        """Seed of attempt 0, 1, …"""
        return self.seed + attempt * SEED_STEP

    def done(self, world: World, folder: Path) -> Tried | None:
        """The result that lies in the folder, if it is what `run` would give."""
        record = _record(folder)
        if record is None or self._rules_identity(record) != self.rules.identity:
            return None
        failed = _failed_attempts(record)
        if len(failed) > self.rules.rerolls or any(a.seed != self.seed_of(k) for k, a in enumerate(failed)):
            return None
        kept = unchanged(folder, self.inputs(world, len(failed)))
        if kept is None:
            return None
        require_licence(kept.backend, kept.licence, self.only_commercial)
        return Tried(kept, failed)

    def lies(self, world: World, folder: Path, number: int) -> Variant | None:
        """The variant of attempt `number` in the folder, if this gate measured it."""
        record = _record(folder)
        if record is None or self._rules_identity(record) != self.rules.identity:
            return None
        return unchanged(folder, self.inputs(world, number))

    def run(
        self, world: World, folder: Path, failed: tuple[Attempt, ...] = (), check_cancel: CheckCancel = never
    ) -> Tried:
        """Attempts from the first that is not in `failed`. Raises VariantError as `make_variant`."""
        for number in range(len(failed), self.rules.rerolls + 1):
            made = self.attempt(world, folder, number, failed, check_cancel)
            if isinstance(made, Variant):
                return Tried(made, failed)
            failed = (*failed, made)
        return Tried(None, failed)

    def attempt(
        self, world: World, folder: Path, number: int, failed: tuple[Attempt, ...], check_cancel: CheckCancel = never
    ) -> Variant | Attempt:
        """The attempt of that number alone: a variant in its folder, or why its frame failed (the folder is as it was).

        `failed` are those before it. Raises VariantError as `make_variant`.
        """
        check_cancel()
        seed = self.seed_of(number)
        try:
            kept = unchanged(folder, self.inputs(world, number))
            if kept is not None and self.rules.identity:
                found = self._examine(world, read_frame(folder / VARIANT_FRAME), failed)
                write_json(folder / VARIANT_RECORD, {**read_json(folder / VARIANT_RECORD), **found})
            return make_variant(
                self.source, world, self.backend, folder, seed, episode_sha256=self.episode_sha256,
                catalogue=self.catalogue, extra=self.extra, only_commercial=self.only_commercial,
                examine=lambda frame: self._examine(world, frame, failed), check_cancel=check_cancel,
            )  # fmt: skip
        except _Rejected as rejected:
            return Attempt(seed, rejected.reasons)

    def _examine(self, world: World, frame: UInt8[np.ndarray, "H W 3"], failed: tuple[Attempt, ...]) -> dict[str, Any]:
        if not self.rules.gate:
            return {}
        report = self.gate_of(world).check(frame)
        if not report.passed:
            raise _Rejected(report.reasons)
        checks = [{**asdict(c), "value": round(c.value, 6)} for c in report.checks]
        return {
            "gate": {"identity": self.rules.identity, "checks": checks, "failed": [_to_json(a) for a in failed]},
        }

    def _rules_identity(self, record: dict[str, Any]) -> str:
        gate = record.get("gate")
        return str(gate.get("identity", "")) if isinstance(gate, dict) else ""


def why_missing(world: World, failed: tuple[Attempt, ...]) -> str:
    """The text about a world of which no frame passed."""
    last = "; ".join(failed[-1].reasons) if failed else "nothing was tried"
    return f"{world.name}: none of {len(failed)} attempts passed the gate; the last: {last}"


def attempts_from_json(data: Any) -> tuple[Attempt, ...]:
    """Failed attempts as they stand in variant.json and gate.json. Raises what malformed data raises."""
    return tuple(
        Attempt(
            int(a["seed"]), tuple(map(str, a["reasons"])), str(a.get("twin", "")), tuple(map(str, a.get("cameras", ())))
        )
        for a in data
    )


def _to_json(attempt: Attempt) -> dict[str, Any]:
    of = {"cameras": list(attempt.cameras)} if attempt.cameras else {}
    return {"seed": attempt.seed, "reasons": list(attempt.reasons), "twin": attempt.twin, **of}


def attempts_to_json(attempts: tuple[Attempt, ...]) -> list[dict[str, Any]]:
    """Reverse of `attempts_from_json`."""
    return [_to_json(attempt) for attempt in attempts]


def _failed_attempts(record: dict[str, Any]) -> tuple[Attempt, ...]:
    try:
        return attempts_from_json(record.get("gate", {}).get("failed", []))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        data = read_json(folder / VARIANT_RECORD)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
