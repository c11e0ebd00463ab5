# SPDX-License-Identifier: Apache-2.0
"""Settings of the application that all its recordings rest on: decided by the first, put back by the last.

Of a recording that needs another value than one that runs, one would spoil the other: frames at other moments, pictures that
change in mid-episode. It is refused before anything is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from retake.core.errors import InputError
from retake.isaac import picture_quality
from retake.isaac.kit import require
from retake.isaac.request import Antialiasing
from retake.isaac.settings_guard import SettingsGuard
from retake.isaac.sharing import Shared

CAPTURE_ON_PLAY = "/omni/replicator/captureOnPlay"


@dataclass(eq=False)
class _Decided:
    values: dict[str, Any]
    guard: SettingsGuard = field(default_factory=SettingsGuard)


_decided: Shared[_Decided] = Shared()


class HostSettings:
    """One recording's hold on them."""

    def __init__(self) -> None:
        self._host = require("carb.settings")

    def get(self, path: str) -> Any:
        """Current value of any setting, None where unset."""
        return self._host.get_settings().get(path)

    def hold(self, *, live: bool, antialiasing: Antialiasing) -> None:
        """Set what a recording needs. Raises InputError, and changes nothing, where one that runs needs another value."""
        pictures = picture_quality.needed(antialiasing)
        needed = {CAPTURE_ON_PLAY: live, **pictures}
        found = {path: self.get(path) for path in picture_quality.CHOSEN}  # pictures as they are now shall stay so, too
        decided = _decided.take(self, self._host, lambda: _Decided({**found, **needed}))
        for path, value in needed.items():
            if decided.values[path] != value:
                _decided.leave(self)
                raise InputError(
                    f"{path} is {decided.values[path]} for a recording that has not ended, and this one needs {value}: one "
                    f"would spoil the other; let that one end first, or give both the same mode and antialiasing"
                )
        for path, value in pictures.items():
            decided.guard.set(path, value)
        decided.guard.remember(CAPTURE_ON_PLAY)
        require("omni.replicator.core").orchestrator.set_capture_on_play(live)

    def close(self) -> None:
        """Put everything back, where no other recording needs it."""
        decided = _decided.leave(self)
        if decided is None:
            return
        try:
            before = decided.guard.before(CAPTURE_ON_PLAY)
            if before is not None:
                require("omni.replicator.core").orchestrator.set_capture_on_play(bool(before))
        finally:
            decided.guard.restore()
