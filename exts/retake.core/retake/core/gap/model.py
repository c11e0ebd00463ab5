# SPDX-License-Identifier: Apache-2.0
"""A model of a real joint: it hears a command late, follows with a lag, and does not move for less than its friction.

    e = u(t - delay) - y;   dy/dt = sign(e) * max(|e| - friction, 0) / lag

Fitted to what a log says it was told and what it did, by a search over all three that is refined twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.errors import InputError
from retake.core.files import read_json, write_json
from retake.core.gap.measure import STEP_S
from retake.core.importers.sage import JointLog

SCHEMA = "retake.actuators/1"


@dataclass(frozen=True)
class Actuator:
    """One joint's model."""

    lag_s: float
    delay_s: float
    friction: float
    """rad or m that a command must be away for the joint to move."""
    rmse: float = 0.0
    """Of the model against the log it was fitted to, rad or m."""
    rmse_ideal: float = 0.0
    """Of a joint that is where it is told to be, on the same log."""


def response(
    told: Float64[np.ndarray, "T"], lag_s: Any, delay_s: Any, friction: Any, start: float, step_s: float = STEP_S
) -> Float64[np.ndarray, "T *P"]:
    """Positions of joints (parameters broadcast to P) that are told `told` every `step_s`."""
    lag_s, delay_s, friction = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (lag_s, delay_s, friction)))
    late = np.round(delay_s / step_s).astype(int)
    gain = 1 - np.exp(-step_s / np.maximum(lag_s, 1e-9))
    y, out = np.full(lag_s.shape, float(start)), np.empty((len(told), *lag_s.shape))
    for k in range(len(told)):
        heard = np.where(k - late >= 0, told[np.maximum(k - late, 0)], start)
        e = heard - y
        y = y + gain * np.sign(e) * np.maximum(np.abs(e) - friction, 0)
        out[k] = y
    return out


def fit(log: JointLog) -> dict[str, Actuator]:
    """A model of every joint of a log. Raises InputError for a log of less than a second."""
    end = min(log.state_time_s[-1], log.control_time_s[-1])
    time = np.arange(0.0, end, STEP_S)
    if len(time) < 1 / STEP_S:
        raise InputError(f"the log covers {end:.3g} s; a fit needs a second at least")
    told, did = log.at(time)
    return {joint: _fit_one(told[:, i], did[:, i]) for i, joint in enumerate(log.joints)}


def _fit_one(told: np.ndarray, did: np.ndarray) -> Actuator:
    travel = float(max(np.ptp(told), 1e-9))
    ideal = float(np.sqrt(np.mean((told - did) ** 2)))
    if np.ptp(told) < 1e-4:
        return Actuator(0.0, 0.0, 0.0, ideal, ideal)  # nothing was asked of it: nothing can be told
    lags, delays = np.geomspace(STEP_S, 0.8, 14), np.arange(0, 0.31, 0.02)
    frictions = np.concatenate([[0.0], travel * np.geomspace(2e-3, 0.2, 7)])
    best = (0.0, 0.0, 0.0)
    for refine in range(3):
        grid = np.meshgrid(lags, delays, frictions, indexing="ij")
        flat = [g.ravel() for g in grid]
        error = np.sqrt(np.mean((response(told, *flat, start=float(did[0])) - did[:, None]) ** 2, axis=0))
        i = int(error.argmin())
        best = (float(flat[0][i]), float(flat[1][i]), float(flat[2][i]))
        near = 1.5 ** (2 - refine) if refine < 2 else 1.0
        lags = np.unique(best[0] * np.linspace(1 / near / 1.2, near * 1.2, 11))
        delays = np.unique(np.clip(best[1] + STEP_S * np.arange(-4, 5), 0, None))
        width = max(best[2] * 0.6, travel * 1e-3) / (refine + 1)
        frictions = np.unique(np.clip(best[2] + width * np.linspace(-1, 1, 9), 0, None))
    found = float(error.min())
    return Actuator(*best, rmse=found, rmse_ideal=ideal)


def through(log: JointLog, model: Mapping[str, Actuator]) -> JointLog:
    """The log's commands as the modelled joints would follow them: a log whose positions and commands are what they do.

    Joints without a model follow exactly. Raises InputError where no joint has one.
    """
    if not set(model) & set(log.joints):
        raise InputError(f"the model knows {', '.join(model)}; the motion has {', '.join(log.joints)}")
    time = np.arange(0.0, log.control_time_s[-1] + STEP_S / 2, STEP_S)
    told = log.at(time)[0]
    out = told.copy()
    for i, joint in enumerate(log.joints):
        if joint in model:
            one = model[joint]
            out[:, i] = response(told[:, i], one.lag_s, one.delay_s, one.friction, start=float(told[0, i]))
    return JointLog(log.joints, time, out, time, out, None, None, log.real)


def write_model(path: Path, model: Mapping[str, Actuator]) -> None:
    """JSON of a model."""
    write_json(path, {"schema": SCHEMA, "joints": {name: vars(one) for name, one in model.items()}})


def read_model(path: Path) -> dict[str, Actuator]:
    """The model of a file. Raises InputError for one that is none."""
    try:
        data = read_json(path)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}")
        return {name: Actuator(**one) for name, one in data["joints"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no actuator model ({SCHEMA}): {type(error).__name__}: {error}") from error
