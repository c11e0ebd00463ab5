# SPDX-License-Identifier: Apache-2.0
"""Planted unit mistakes of recordings: what a careless import would take for radians, metres or an open gripper.

Each has the numbers as recorded, the options given, and what must come out: the true positions, or a refusal that names
`likely`. `scripts/prove/units.py` writes the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot_plain import LIMITS, PANDA, SO101, panda_motion, shares, so101_motion, so101_urdf, write_plain

from retake.core.errors import RetakeError
from retake.core.importers.lerobot import Calibration, ImportOptions, import_lerobot
from retake.core.urdf import read_urdf

URDF = Path(__file__).parent / "cases/data/panda.urdf"
DEG = 180 / np.pi
Q, S = panda_motion(), so101_motion()
FINGER = ((0.0, 0.04),)


@dataclass(frozen=True)
class Mistake:
    """One planted mistake."""

    name: str
    recorded: np.ndarray
    """(T, n) numbers as the dataset holds them."""
    likely: str = ""
    """What a refusal must name; empty: it must come out right."""
    options: dict[str, Any] = field(default_factory=dict)
    truth: np.ndarray = field(default_factory=lambda: Q)
    names: Sequence[str] = PANDA
    robot: str = "panda"
    action: np.ndarray | None = None


def _with(q: np.ndarray, **columns: np.ndarray) -> np.ndarray:
    out = q.copy()
    for name, values in columns.items():
        out[:, int(name[1:])] = values
    return out


_DEGREES = np.concatenate([Q[:, :7] * DEG, Q[:, 7:]], 1)
_SO_DEG = np.concatenate([S[:, :5] * DEG, shares(S[:, 5:], 0, 100, LIMITS[5:])], 1)
_SO_100 = np.concatenate([shares(S[:, :5], -100, 100, LIMITS[:5]), shares(S[:, 5:], 0, 100, LIMITS[5:])], 1)
_DEG_ACTION = np.concatenate([np.roll(_DEGREES[:, :7], -1, 0), Q[:, 7:]], 1)
_SO_NAMES = tuple(f"{n}.pos" for n in SO101)

MISTAKES: tuple[Mistake, ...] = (
    Mistake("all angles in degrees, nothing stated", _DEGREES),
    Mistake("degrees stated as rad", _DEGREES, "deg", {"units": {"revolute": "rad"}}),
    Mistake("degrees stated as degrees", _DEGREES, options={"degrees": True}),
    Mistake("rad stated as -100..100", Q * 80, "rad", {"units": {"revolute": "-100..100", "prismatic": "m"}}),
    Mistake("one joint in degrees among radians", _with(Q, c4=Q[:, 3] * DEG, c3=Q[:, 3] * DEG), "panda_joint4=deg"),
    Mistake("angles as milliradians", np.concatenate([Q[:, :7] * 1e3, Q[:, 7:]], 1), "likely: none"),
    Mistake("finger joints in millimetres, nothing stated", _with(Q, c7=Q[:, 7] * 1e3, c8=Q[:, 8] * 1e3), "0..100"),
    Mistake(
        "finger joints in millimetres, stated", _with(Q, c7=Q[:, 7] * 1e3, c8=Q[:, 8] * 1e3),
        options={"units": {"prismatic": "mm"}},
    ),
    Mistake("finger joints as share of travel", _with(Q, c7=Q[:, 7] / 0.04, c8=Q[:, 8] / 0.04), "0..1"),
    Mistake(
        "finger joints as share of travel, stated", _with(Q, c7=Q[:, 7] / 0.04, c8=Q[:, 8] / 0.04),
        options={"units": {"prismatic": "0..1"}},
    ),
    Mistake("fingers hold the width between them", _with(Q, c7=Q[:, 7] * 2, c8=Q[:, 8] * 2), "width"),
    Mistake("a metre unit for an angle", Q, "is no unit of it", {"units": {"panda_joint1": "m"}}),
    Mistake("SO-101 in -100..100, nothing stated", _SO_100, "-100..100", names=_SO_NAMES, robot="so101", truth=S),
    Mistake(
        "SO-101 in -100..100, stated", _SO_100, names=_SO_NAMES, robot="so101", truth=S,
        options={"units": {"revolute": "-100..100", "gripper": "0..100"}},
    ),
    Mistake(
        "SO-101 in -100..100, stated for all: the jaw is 0..100", _SO_100, names=_SO_NAMES, robot="so101", truth=S,
        options={"units": {"all": "-100..100"}},
    ),
    Mistake(
        "SO-101 in degrees stated as -100..100", _SO_DEG, "deg", names=_SO_NAMES, robot="so101", truth=S,
        options={"units": {"revolute": "-100..100", "gripper": "0..100"}},
    ),
    Mistake("SO-101 in degrees beyond ±100, nothing stated", _SO_DEG, names=_SO_NAMES, robot="so101", truth=S),
    Mistake(
        "SO-101 of the old calibration", np.concatenate([S[:, :5] * DEG, _SO_DEG[:, 5:]], 1), "--flip shoulder_lift",
        names=tuple(f"main_{n}" for n in SO101), robot="so101", truth=S,
    ),
    Mistake("an action in degrees beside a state in radians", Q, "--action-unit", action=_DEG_ACTION),
    Mistake(
        "the same, stated", Q, options={"action_units": {"revolute": "deg"}},
        action=_DEG_ACTION,
    ),
    Mistake(
        "an action of deltas under the state's names", Q, "deltas", action=np.diff(Q, axis=0, append=Q[-1:]),
    ),
)  # fmt: skip


def outcome(mistake: Mistake, folder: Path) -> tuple[str, str]:
    """("right", how the units were known) or ("refused", the sentence) or ("WRONG", largest error)."""
    data = write_plain(folder / "data", mistake.recorded, list(mistake.names), action=mistake.action)
    urdf = URDF if mistake.robot == "panda" else so101_urdf(folder / "so101.urdf")
    camera = {"front": Calibration(np.diag([60.0, 60.0, 1.0]), np.eye(4))}
    said: list[str] = []
    try:
        (episode,) = import_lerobot(
            data, folder / "out", read_urdf(urdf), camera, ImportOptions(**mistake.options), say=said.append
        )
    except RetakeError as error:
        return "refused", str(error)
    robot = episode.header.robots[0]
    order = [robot.dof_names.index(n.removesuffix(".pos").removeprefix("main_")) for n in mistake.names]
    error = float(np.abs(episode.joint(robot.name, "position")[:, order] - mistake.truth).max())
    return ("right" if error < 1e-4 else "WRONG"), "; ".join(said) if error < 1e-4 else f"off by {error:.3g}"
