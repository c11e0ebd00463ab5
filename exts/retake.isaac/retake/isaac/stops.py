# SPDX-License-Identifier: Apache-2.0
"""Counting updates since the last Stop: simulation time starts again there, and frames of the earlier run must be gone."""

from __future__ import annotations

from retake.isaac import ticks

SETTLE_UPDATES = 8
"""Updates granted to frames still in the renderer when a recording ends, and before the next one may begin after a
Stop. Isaac Sim keeps three frames in flight (fabricDefaultStageFrameHistoryCount = 3)."""


class StopWatch:
    """Counts updates since the last Stop, also between recordings: frames of an earlier run must have left the renderer
    before a new one begins."""

    def __init__(self) -> None:
        self.updates = SETTLE_UPDATES
        self._subscriptions: list[ticks.Subscription] = []

    def install(self) -> None:
        """Begin counting (once; the extension does it on start-up)."""
        if not self._subscriptions:
            self._subscriptions = [
                *ticks.on_timeline(lambda: None, lambda: None, self._on_stop),
                ticks.on_update(self._on_update),
            ]

    def uninstall(self) -> None:
        """Stop counting."""
        for subscription in self._subscriptions:
            subscription.release()
        self._subscriptions, self.updates = [], SETTLE_UPDATES

    @property
    def quiet(self) -> bool:
        """Whether no frame of an earlier run can be in flight."""
        return self.updates >= SETTLE_UPDATES

    def _on_stop(self) -> None:
        self.updates = 0

    def _on_update(self) -> None:
        self.updates += 1


STOPS = StopWatch()
