# SPDX-License-Identifier: Apache-2.0
"""Carb settings that a capture changes, and puts back whatever happens."""

from __future__ import annotations

from typing import Any

from retake.isaac.kit import require


class SettingsGuard:
    """Remembers the first value of each setting it touches; `restore()` writes all of them back.

    Two guards of one setting would put back each other's value: what several recordings set belongs to one guard of theirs
    (`host_settings`, `async_rendering`).
    """

    def __init__(self) -> None:
        self._settings = require("carb.settings").get_settings()
        self._before: dict[str, Any] = {}

    def get(self, path: str) -> Any:
        """Current value, None where unset."""
        return self._settings.get(path)

    def remember(self, path: str) -> Any:
        """Current value of a setting that somebody else is about to change; `restore` puts it back."""
        if path not in self._before:
            self._before[path] = self._settings.get(path)
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
            if value is None and hasattr(self._settings, "destroy_item"):
                self._settings.destroy_item(path)
            else:
                self._settings.set(path, value)
        self._before.clear()
