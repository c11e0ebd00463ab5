# SPDX-License-Identifier: Apache-2.0
"""Camera tick rates set to 0 while a recording runs: every frame shows every camera, whatever the sensor asset asks for.

Isaac Sim 6 renders a camera at its own `omni:sensor:tickRate`; 0 is "every frame", which NVIDIA's writers also set. The
values go into a layer under the session layer, which is removed afterwards: the user's layers stay as they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from pxr import Sdf, Usd

TICK_RATE = "omni:sensor:tickRate"


class TickRates:
    """Tick rates of some cameras, 0 while open. Where another recording holds a camera at 0 already, this one does so, too: the
    other may end first."""

    def __init__(self, stage: Usd.Stage, cameras: Sequence[str]) -> None:
        self._stage, self._cameras = stage, tuple(cameras)
        self._layer: Sdf.Layer | None = None
        self.changed: dict[str, float] = {}
        """Prim path -> the rate it had, Hz."""

    def open(self) -> None:
        """Set them, where a camera has a rate of its own."""
        found = {path: self._stage.GetPrimAtPath(path).GetAttribute(TICK_RATE) for path in self._cameras}
        rates = now = {path: attribute.Get() for path, attribute in found.items() if attribute}
        for other in [ticks for ticks in _open if ticks._stage == self._stage]:
            rates = rates | {path: rate for path, rate in other.changed.items() if path in rates}
        self.changed = {path: float(rate) for path, rate in rates.items() if rate}
        if not self.changed:
            return
        layer = Sdf.Layer.CreateAnonymous("retake-tick-rates")
        self._stage.GetSessionLayer().subLayerPaths.append(layer.identifier)
        with Usd.EditContext(self._stage, Usd.EditTarget(layer)):
            for path in self.changed:
                self._stage.GetPrimAtPath(path).GetAttribute(TICK_RATE).Set(type(now[path])(0))
        self._layer = layer
        _open.add(self)

    @property
    def note(self) -> str:
        """What was changed, as a sentence; empty where nothing was."""
        if not self.changed:
            return ""
        rates = ", ".join(f"{path} ({rate:g} Hz)" for path, rate in self.changed.items())
        return f"tick rates are 0 (every frame) while recording: {rates}"

    def close(self) -> None:
        """The rates are the stage's again."""
        _open.discard(self)
        if self._layer is not None:
            paths = self._stage.GetSessionLayer().subLayerPaths
            if self._layer.identifier in paths:
                paths.remove(self._layer.identifier)
        self._layer = None


_open: weakref.WeakSet[TickRates] = weakref.WeakSet()
