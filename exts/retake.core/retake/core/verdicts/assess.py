# SPDX-License-Identifier: Apache-2.0
"""From measurements to checks, an overall word and a probability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from retake.core.verdicts.records import Check, Measurement, Status
from retake.core.verdicts.settings import VerdictSettings


def assess(measured: Iterable[Measurement], settings: VerdictSettings) -> dict[str, Any]:
    """What of a verdict follows from its measurements: `checks`, `overall`, `probability`, `calibration`."""
    measured = tuple(measured)
    checks = tuple(check_of(m, settings) for m in measured)
    severities = [
        settings.threshold(m.name).severity(m.value)
        for m in measured
        if m.value is not None and np.isfinite(m.value)
    ]  # fmt: skip
    return {
        "checks": checks, "overall": overall_of(checks), "calibration": settings.calibrated_on,
        "probability": probability_of(checks, max(severities, default=1.0), settings),
    }  # fmt: skip


def check_of(measurement: Measurement, settings: VerdictSettings) -> Check:
    """A measurement against its threshold. What these pictures cannot show is skipped, and unsure where it is required."""
    threshold = settings.threshold(measurement.name)
    value, status = measurement.value, "unsure"
    if value is None or not np.isfinite(value):
        asked = measurement.applies or measurement.name in settings.required
        value, status = None, "unsure" if asked and not measurement.absent else "skipped"
    else:
        status = "fail" if threshold.fails(value) else "unsure" if threshold.doubtful(value) else "pass"
    return Check(
        measurement.name, status, value, threshold.limit, threshold.unit, threshold.source, measurement.note,
        measurement.worst_frame, absent=status == "skipped" and measurement.absent,
    )  # fmt: skip


def probability_of(checks: tuple[Check, ...], severity: float, settings: VerdictSettings) -> float:
    """The calibrated one; where something could not be told, no more than an even chance.

    The calibration weighs faultless and faulty takes alike, so one half is what is known about an unjudged property.
    """
    known = settings.calibration.probability(severity)
    return min(known, 0.5) if any(check.status == "unsure" for check in checks) else known


def overall_of(checks: tuple[Check, ...]) -> Status:
    """fail if any check fails, else unsure if any is unsure, else pass."""
    found = {check.status for check in checks}
    return "fail" if "fail" in found else "unsure" if "unsure" in found else "pass"


def series_of(values: np.ndarray) -> tuple[float | None, ...]:
    """Values over time as JSON knows them."""
    return tuple(None if not np.isfinite(v) else float(v) for v in values)
