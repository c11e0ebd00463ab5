# SPDX-License-Identifier: Apache-2.0
"""Kit's entry: registers RetakeWriter, watches Stops, starts an autorun. Everything is undone on shutdown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omni.ext  # type: ignore[import-not-found]

from retake.core.errors import RetakeError
from retake.isaac import autorun, live_capture, options, writer

log = logging.getLogger(__name__)

_recordings: list[Any] = []


def track(capture: Any) -> None:
    """Remember a running recording, so that disabling the extension completes its episode."""
    _recordings[:] = [c for c in _recordings if c.status.active]
    _recordings.append(capture)


class RetakeExtension(omni.ext.IExt):
    """Capture for Retake."""

    def on_startup(self, ext_id: str) -> None:
        """Register what scripts and the panel use."""
        self._undo: list[Callable[[], None]] = []
        try:
            self._undo.append(writer.register())
            live_capture.STOPS.install()
            self._undo.append(live_capture.STOPS.uninstall)
        except RetakeError as error:
            log.error("Retake is incomplete: %s", error)
        path = str(options.read("autorun", ""))
        self._autorun = autorun.start(Path(path), quit_after=bool(options.read("quit", True))) if path else None

    def on_shutdown(self) -> None:
        """Complete running recordings, then take everything back."""
        if self._autorun is not None:
            self._autorun.cancel()
        for capture in _recordings:
            capture.close("the extension was disabled")
        _recordings.clear()
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:
                log.warning("Retake shutdown: %s", error)
        self._undo = []
