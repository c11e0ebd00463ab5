# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rendering is off while an episode is recorded, whoever else has an opinion on it.

A frame that is rendered beside the simulation shows a state that its time does not tell. The full application starts with
asynchronous rendering on; isaacsim.core.throttling switches it off on Play and on again after Pause and Stop, and Replicator
switches it off while annotators are attached (v5.1.0 and v6.0.1, throttling's extension.py). In which order they act cannot be
seen from outside, so a recording switches it off itself, keeps throttling from switching it on again, waits until it has been
off for some updates, looks again at every update, and puts everything back at its end.
"""

from __future__ import annotations

from retake.core.errors import InputError
from retake.isaac.settings_guard import SettingsGuard

APPLICATION = ("/app/asyncRendering", "/app/asyncRenderingLowLatency")
PATHS = (*APPLICATION, "/omni/replicator/asyncRendering")
THROTTLING = "/exts/isaacsim.core.throttling/enable_async"
SETTLED_UPDATES = 3
"""Updates with it off before a step counts: frames begun before are then out of the way of the first state."""
MAX_ATTEMPTS = 60
"""Updates in which somebody else switched it on again before giving up."""


class AsyncRendering:
    """Off while held. `update()` once per application update; `ready` once steps may count."""

    def __init__(self, guard: SettingsGuard) -> None:
        self._guard = guard
        self._attempts = 0
        self._updates_off = SETTLED_UPDATES
        self._was_on = False
        self._throttled = False
        self._playing_before = False

    def remember(self, *, playing: bool) -> None:
        """Before anything is attached: Replicator may switch it off as soon as a writer is. `playing`: whether the simulation
        runs already."""
        self._playing_before = playing
        self._throttled = bool(self._guard.get(THROTTLING))
        self._was_on = bool(self.on())
        for path in PATHS:
            self._guard.remember(path)

    def hold(self) -> None:
        """Switch it off and keep it off."""
        if self._throttled:
            self._guard.set(THROTTLING, False)
        if self._was_on or self._throttled or self.on():  # where throttling works, it may have been on a moment ago
            self._switch_off()

    def on(self) -> list[str]:
        """Settings that switch it on at the moment."""
        return [path for path in PATHS if self._guard.get(path)]

    @property
    def ready(self) -> bool:
        """Whether it has been off for long enough."""
        return self._updates_off >= SETTLED_UPDATES and not self.on()

    def update(self, *, recording: bool) -> None:
        """Look again. Raises InputError when somebody switches it on while recording, or again and again before."""
        on = self.on()
        if not on:
            self._updates_off += 1
            return
        if recording or self._attempts >= MAX_ATTEMPTS:
            raise InputError(
                f"something switched asynchronous rendering on {'while recording' if recording else 'again and again'} "
                f"({', '.join(on)}); a frame's state cannot be known then: switch it off in the extension or script that sets "
                "it, or record in a fresh application"
            )
        self._attempts += 1
        self._switch_off()

    def restore(self, *, playing: bool) -> None:
        """Where throttling owns the application's two settings, leave them as it would have them by now: off while playing, on
        while not. Everything else is the guard's to put back."""
        if not self._throttled:
            return
        if playing:
            on = False
        else:
            on = self._playing_before or any(self._guard.before(path) for path in APPLICATION)
        for path in APPLICATION:
            self._guard.put_back_as(path, on)

    def _switch_off(self) -> None:
        self._updates_off = 0
        for path in self.on():
            self._guard.set(path, False)
