# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rendering is off while an episode is recorded, whoever else has an opinion on it.

A frame that is rendered beside the simulation shows a state that its time does not tell. The full application starts with
asynchronous rendering on; isaacsim.core.throttling switches it off on Play and on again after Pause and Stop, and Replicator
switches it off while annotators are attached (v5.1.0 and v6.0.1, throttling's extension.py). In which order they act cannot be
seen from outside, so a recording switches it off itself, keeps throttling from switching it on again, waits until it has been
off for some updates, looks again at every update, and puts everything back at its end. Of several recordings at once the first
changes the settings and the last puts them back; each waits until it has been off for long enough.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from retake.core.errors import InputError
from retake.isaac.kit import require
from retake.isaac.settings_guard import SettingsGuard
from retake.isaac.sharing import Shared

APPLICATION = ("/app/asyncRendering", "/app/asyncRenderingLowLatency")
PATHS = (*APPLICATION, "/omni/replicator/asyncRendering")
THROTTLING = "/exts/isaacsim.core.throttling/enable_async"
SETTLED_UPDATES = 3
"""Updates with it off before a step counts: frames begun before are then out of the way of the first state."""
MAX_ATTEMPTS = 60
"""Updates in which somebody else switched it on again before giving up."""


@dataclass(eq=False)
class _Held:
    """What all recordings of one application share."""

    throttled: bool
    playing_before: bool
    guard: SettingsGuard
    by: weakref.WeakSet[AsyncRendering] = field(default_factory=weakref.WeakSet)
    """Those that have switched it off."""


_held: Shared[_Held] = Shared()


class AsyncRendering:
    """Off while held. `update()` once per application update; `ready` once steps may count."""

    def __init__(self) -> None:
        self._shared: _Held | None = None
        self._settings = SettingsGuard()
        """Only asked: what is changed belongs to all recordings."""
        self._attempts = 0
        self._updates_off = SETTLED_UPDATES
        self._was_on = False

    def remember(self, *, playing: bool) -> None:
        """Before anything is attached: Replicator may switch it off as soon as a writer is. `playing`: whether the simulation
        runs already."""
        self._shared = _held.take(self, require("carb.settings"), lambda: self._found(playing))
        self._was_on = bool(self.on())
        if self._shared.throttled and playing and not self._shared.by:
            # Throttling has it off while the simulation runs, and Replicator puts back some updates after the recording what it
            # finds now: that would stay off when the simulation has stopped by then. `hold` follows in the same update.
            for path in APPLICATION:
                self._shared.guard.set(path, True)

    def hold(self) -> None:
        """Switch it off and keep it off."""
        shared = self._known()
        if shared.throttled:
            shared.guard.set(THROTTLING, False)
        if shared.by:
            self._updates_off = min(other._updates_off for other in shared.by)
        shared.by.add(self)
        if self.on() or (len(shared.by) == 1 and (self._was_on or shared.throttled)):
            # where throttling works, it may have been on a moment ago
            self._switch_off()

    def on(self) -> list[str]:
        """Settings that switch it on at the moment."""
        return [path for path in PATHS if self._settings.get(path)]

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
        """Put everything back where no other recording needs it off. Where throttling owns the application's two settings, leave
        them as it would have them by now: off while playing, on while not."""
        shared, self._shared = self._shared, None
        if shared is None:
            return
        shared.by.discard(self)
        if _held.leave(self) is None:
            return
        if shared.throttled:
            on = not playing and (shared.playing_before or any(shared.guard.before(path) for path in APPLICATION))
            for path in APPLICATION:
                shared.guard.put_back_as(path, on)
        shared.guard.restore()

    def _found(self, playing: bool) -> _Held:
        guard = SettingsGuard()
        for path in PATHS:
            guard.remember(path)
        return _Held(bool(guard.get(THROTTLING)), playing, guard)

    def _known(self) -> _Held:
        assert self._shared is not None, "`remember` comes first, and nothing after `restore`"
        return self._shared

    def _switch_off(self) -> None:
        self._updates_off = 0
        for path in self.on():
            self._known().guard.set(path, False)
