# SPDX-License-Identifier: Apache-2.0
"""Per joint, how far two logs of one motion are apart: SAGE's measures (sage/analysis.py, calculate_metrics)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError
from retake.core.importers.sage import JointLog

STEP_S = 0.005
SMALL = 0.1
"""Real values below it (rad or m) say nothing in per cent."""
LONGEST_LAG_S = 0.5


@dataclass(frozen=True)
class JointGap:
    """One joint, simulated against real."""

    joint: str
    rmse: float
    """rad or m."""
    mape: float | None
    """Per cent, where the real joint is beyond SMALL; None where it never is."""
    correlation: float | None
    """Pearson; None where one of them does not move."""
    cosine: float | None
    lag_s: float
    """How much later the real joint does it; negative: earlier."""


def gaps(sim: JointLog, real: JointLog) -> tuple[JointGap, ...]:
    """Every joint that both have, over the time that both cover. Raises InputError where there is none."""
    shared = [joint for joint in sim.joints if joint in real.joints]
    if not shared:
        raise InputError(f"the logs share no joint: {', '.join(sim.joints)} / {', '.join(real.joints)}")
    time = common_time(sim, real)
    ours, theirs = sim.at(time)[1], real.at(time)[1]
    return tuple(_gap(j, ours[:, sim.joints.index(j)], theirs[:, real.joints.index(j)]) for j in shared)


def common_time(a: JointLog, b: JointLog) -> Float64[np.ndarray, "T"]:
    """Times every STEP_S that both logs cover. Raises InputError for less than ten of them."""
    end = min(a.state_time_s[-1], b.state_time_s[-1])
    time = np.arange(STEP_S, end, STEP_S)
    if len(time) < 10:
        raise InputError(f"the logs share {end:.3g} s; a comparison needs {10 * STEP_S:g} s at least")
    return time


def _gap(joint: str, ours: np.ndarray, theirs: np.ndarray) -> JointGap:
    far = np.abs(theirs) >= SMALL
    mape = float(np.mean(np.abs((ours[far] - theirs[far]) / theirs[far])) * 100) if far.any() else None
    moves = np.ptp(ours) > 1e-9 and np.ptp(theirs) > 1e-9
    size = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return JointGap(
        joint,
        float(np.sqrt(np.mean((ours - theirs) ** 2))),
        mape,
        float(np.corrcoef(ours, theirs)[0, 1]) if moves else None,
        float(ours @ theirs / size) if size > 0 else None,
        lag(ours, theirs) if moves else 0.0,
    )


def lag(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How much later (s) `theirs` follows `ours`: the shift within ±0.5 s at which their changes agree best."""
    a, b = np.diff(ours), np.diff(theirs)
    most = min(round(LONGEST_LAG_S / STEP_S), len(a) // 2)
    best, found = -np.inf, 0
    for shift in sorted(range(-most, most + 1), key=abs):
        x, y = (a[: len(a) - shift], b[shift:]) if shift >= 0 else (a[-shift:], b[: len(b) + shift])
        norm = float(np.linalg.norm(x) * np.linalg.norm(y))
        score = float(x @ y) / norm if norm > 0 else -1.0
        if score > best + 1e-9:
            best, found = score, shift
    return found * STEP_S
