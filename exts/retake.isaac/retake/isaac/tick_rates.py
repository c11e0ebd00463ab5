# SPDX-License-Identifier: Apache-2.0
"""Camera tick rates set to 0 while a recording runs: every frame shows every camera, whatever the sensor asset asks for.

Isaac Sim 6 renders a camera at its own `omni:sensor:tickRate`; 0 is "every frame", which NVIDIA's writers also set. The
values go into the recordings' own layer (`overlay`), which is removed afterwards: the user's layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from pxr import Sdf, Usd

from retake.isaac.overlay import Overlay

TICK_RATE = "omni:sensor:tickRate"


class TickRates:
    """Tick rates of some cameras, 0 while open."""

    def __init__(self, stage: Usd.Stage, cameras: Sequence[str]) -> None:
        self._stage, self._cameras = stage, tuple(cameras)
        self._overlay: Overlay | None = None
        self.changed: dict[str, float] = {}
        """Prim path -> the rate it had, Hz."""

    def open(self) -> None:
        """Set them, where a camera has a rate of its own."""
        self._overlay = overlay = Overlay(self._stage)
        rates = {path: overlay.before(path, TICK_RATE) for path in self._cameras}
        self.changed = {path: float(rate) for path, rate in rates.items() if rate}
        overlay.say(self.changed, TICK_RATE, 0.0, Sdf.ValueTypeNames.Double)

    @property
    def note(self) -> str:
        """What was changed, as a sentence; empty where nothing was."""
        if not self.changed:
            return ""
        rates = ", ".join(f"{path} ({rate:g} Hz)" for path, rate in self.changed.items())
        return f"tick rates are 0 (every frame) while recording: {rates}"

    def close(self) -> None:
        """The rates are the stage's again, where no other recording rests on them."""
        if self._overlay is not None:
            self._overlay.close()
