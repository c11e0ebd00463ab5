# SPDX-License-Identifier: Apache-2.0
"""What a judge says: one `Check` per property, one `Verdict` per take. Plain JSON on disk (docs/verdicts.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from retake.core.array_types import Float64
from retake.core.run_reader import VERDICT_SCHEMA

Status = Literal["pass", "fail", "unsure", "skipped"]
EXIT_CODES: dict[str, int] = {"pass": 0, "fail": 3, "unsure": 4}
SCHEMA = VERDICT_SCHEMA
VERSION = "43"
"""Of the estimators: raised whenever the same take may get another value."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """One measured property of a take, before any threshold."""

    name: str
    value: float | None
    """In the unit of its threshold (config/verdicts.yaml); None when it could not be measured."""
    note: str = ""
    """Why there is no value, or what the value is about."""
    worst_frame: int | None = None
    """Frame of the take where it is worst."""
    applies: bool = True
    """False where a value is not expected here (fingers too small, a camera that moves, `absent`): skipped, not unsure."""
    series: Float64[np.ndarray, "T"] | None = None
    """The value over time, for plots; NaN where it was not measured."""
    absent: bool = False
    """The property does not exist in these frames (no object in the task, nothing falls): there is nothing to tell. Where it
    exists and these pictures or recordings cannot show it, `applies` alone is False."""


@dataclass(frozen=True)
class Check:
    """One property, judged."""

    name: str
    status: Status
    value: float | None
    threshold: float | None
    unit: str
    source: str
    """Where the threshold comes from."""
    note: str = ""
    worst_frame: int | None = None
    picture: str | None = None
    """File name of the worst frame's picture, beside verdict.json."""
    absent: bool = False
    """Skipped because the property does not exist in these frames: there was nothing to tell."""


@dataclass(frozen=True)
class Verdict:
    """One take, judged against its episode."""

    overall: Status
    """fail if any check fails, else unsure if any is unsure, else pass."""
    probability: float
    """Calibrated probability that the take is faultless, given the worst check (see `calibration`)."""
    calibration: str
    """Name of the data behind `probability` and the thresholds."""
    checks: tuple[Check, ...]
    camera: str
    start: int
    frames: int
    fps: float
    size: tuple[int, int]
    episode_sha256: str
    video_sha256: str = ""
    series: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Errors over time, one value per frame; null where not measured."""
    events: dict[str, int | None] = field(default_factory=dict)
    """grasp, release and settled frames of the task object, counted in the take."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Figures without a threshold: PISA L2, CD, IoU per phase, reprojection error, lag."""
    take: str = ""
    schema: str = SCHEMA

    @property
    def exit_code(self) -> int:
        """0 pass, 3 fail, 4 unsure."""
        return EXIT_CODES[self.overall]

    def check(self, name: str) -> Check:
        """A check by name. Raises KeyError naming the valid ones."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; valid: {', '.join(c.name for c in self.checks)}")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the take did not pass, worst status first."""
        order = {"fail": 0, "unsure": 1}
        bad = sorted((c for c in self.checks if c.status in order), key=lambda c: order[c.status])
        return tuple(reason_of(c) for c in bad)

    @property
    def untold(self) -> tuple[str, ...]:
        """What exists in these frames and was not judged, for the pictures or recordings cannot show it; each with its reason.
        Such a check is skipped, or `unsure` where the settings require it (`VerdictSettings.required`)."""
        return tuple(reason_of(c) for c in self.checks if c.status == "skipped" and not c.absent)

    def to_json(self) -> dict[str, Any]:
        """JSON of the whole verdict: no NaN, numbers rounded to 1e-4."""
        return {
            "schema": self.schema,
            "take": self.take,
            "overall": self.overall,
            "status": self.overall,
            "version": VERSION,
            "probability": round(self.probability, 4),
            "calibration": self.calibration,
            "reasons": list(self.reasons),
            "untold": list(self.untold),
            "camera": self.camera,
            "start": self.start,
            "frames": self.frames,
            "fps": self.fps,
            "size": list(self.size),
            "episode_sha256": self.episode_sha256,
            "video_sha256": self.video_sha256,
            "events": self.events,
            "checks": [check_to_json(c) for c in self.checks],
            "metrics": {k: _number(v) for k, v in self.metrics.items()},
            "series": {k: [_number(x) for x in v] for k, v in self.series.items()},
        }  # fmt: skip


def worst_of(statuses: Iterable[str]) -> Status:
    """Fail before unsure before pass; unsure where nothing was judged."""
    found = set(statuses)
    return "fail" if "fail" in found else "pass" if found == {"pass"} else "unsure"


def row_text(what: str, status: str, about: float | str, reasons: Iterable[str]) -> str:
    """A line of what was judged for a terminal: its name, its status, the probability that it is faultless or what else
    is to be known, and why it did not pass."""
    said = about if isinstance(about, str) else f"p={about:.3f}"
    return f"{what:<32} {status:<7} {said}  {'; '.join(reasons)}".rstrip()


def check_to_json(check: Check) -> dict[str, Any]:
    """JSON of one judged property."""
    return {
        "name": check.name, "status": check.status, "value": _number(check.value), "threshold": _number(check.threshold),
        "unit": check.unit, "source": check.source, "detail": check.note, "worst_frame": check.worst_frame,
        "picture": check.picture, "absent": check.absent,
    }  # fmt: skip


def reason_of(check: Check) -> str:
    """Why a check did not pass, in one line."""
    if check.value is None or check.threshold is None:
        return f"{check.name}: {check.note}"
    note = f" ({check.note})" if check.note else ""
    return f"{check.name}: {check.value:.3g} {check.unit}, limit {check.threshold:.3g}{note}".replace(" , ", ", ")


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)
