# SPDX-License-Identifier: Apache-2.0
"""Train and validation: decided per trajectory, by a hash, so that nothing leaks, now or after later appends.

A trajectory's split follows from its own motion and the seed alone. Re-rendered copies, variants, windows and takes of it
have the same motion, hence the same split; adding runs never moves an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from retake.core.errors import InputError
from retake.core.files import sha256_bytes


@dataclass(frozen=True)
class Split:
    """Which share, or which runs, are held out for validation."""

    val: float = 0.0
    val_runs: tuple[str, ...] = ()
    seed: int = 0

    @property
    def active(self) -> bool:
        """Whether two datasets (train/, val/) are written instead of one."""
        return self.val > 0 or bool(self.val_runs)

    def of(self, trajectory: str, run: str = "") -> str:
        """`train` or `val` for a trajectory id."""
        if self.val_runs:
            return "val" if run in self.val_runs else "train"
        draw = int(sha256_bytes(f"{self.seed}:{trajectory}".encode())[:16], 16) / 2**64
        return "val" if draw < self.val else "train"


def parse_split(text: str | None, seed: int = 0) -> Split:
    """`val=0.1` (a share of the trajectories) or `val=@RUN,RUN` (those runs). Raises InputError."""
    if not text:
        return Split(seed=seed)
    name, _, value = text.partition("=")
    if name == "val" and value.startswith("@") and value[1:]:
        return Split(val_runs=tuple(v.strip() for v in value[1:].split(",") if v.strip()), seed=seed)
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if name != "val" or not 0 < share < 1:
        raise InputError(f"--split {text!r}: expected val=SHARE with 0 < SHARE < 1, or val=@RUN,RUN")
    return Split(val=share, seed=seed)


def assign(trajectories: Iterable[tuple[str, str]], split: Split) -> dict[str, str]:
    """Trajectory id → split. `trajectories`: (id, run name). A trajectory held out by one run is held out everywhere."""
    out: dict[str, str] = {}
    for trajectory, run in trajectories:
        where = split.of(trajectory, run)
        out[trajectory] = "val" if "val" in (where, out.get(trajectory)) else "train"
    return out
