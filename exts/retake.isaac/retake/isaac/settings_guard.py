# SPDX-License-Identifier: Apache-2.0
"""Carb settings that a capture changes, and puts back whatever happens."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from retake.isaac.kit import require


class SettingsGuard:
    """Remembers the first value of each setting it touches; `restore()` writes all of them back.

    Of several recordings at once each has its guard: one that ends before another that came to a setting later leaves the
    setting to that one, with the value to put back.
    """

    def __init__(self) -> None:
        self._host = require("carb.settings")
        self._settings = self._host.get_settings()
        self._before: dict[str, Any] = {}
        self._turn: dict[str, int] = {}
        _guards.add(self)

    def get(self, path: str) -> Any:
        """Current value, None where unset."""
        return self._settings.get(path)

    def remember(self, path: str) -> Any:
        """Current value of a setting that somebody else is about to change; `restore` puts it back."""
        if path not in self._before:
            self._before[path], self._turn[path] = self._settings.get(path), next(_turns)
        return self._before[path]

    def before(self, path: str) -> Any:
        """The value that `restore` will put back; the current one where the guard holds none."""
        return self._before.get(path, self._settings.get(path))

    def put_back_as(self, path: str, value: Any) -> None:
        """Let `restore` write another value than the remembered one: somebody else's rule has changed it meanwhile."""
        if path in self._before:
            self._before[path] = value

    def set(self, path: str, value: Any) -> None:
        """Change a setting for as long as the guard holds it."""
        self.remember(path)
        self._settings.set(path, value)

    def restore(self) -> None:
        """Put everything back, newest first; settings that did not exist are removed."""
        for path, value in reversed(list(self._before.items())):
            if (later := self._later(path)) is not None:
                later._before[path] = value
            elif value is None and hasattr(self._settings, "destroy_item"):
                self._settings.destroy_item(path)
            else:
                self._settings.set(path, value)
        self._before.clear()

    def holds(self, path: str) -> bool:
        """Whether it remembers a setting."""
        return path in self._before

    def is_last(self, path: str) -> bool:
        """Whether `restore` writes a setting that the guard holds: nobody has come to it later."""
        return self._later(path) is None

    def _later(self, path: str) -> SettingsGuard | None:
        """The guard that came to a setting next."""
        turn = self._turn.get(path, 0)
        others = [g for g in _guards if g._host is self._host and path in g._before and g._turn[path] > turn]
        return min(others, key=lambda guard: guard._turn[path], default=None)


_guards: weakref.WeakSet[SettingsGuard] = weakref.WeakSet()
_turns = itertools.count(1)
