# SPDX-License-Identifier: Apache-2.0
"""Kit's entry: registers RetakeWriter, watches Stops, starts an autorun. Everything is undone on shutdown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import omni.ext  # type: ignore[import-not-found]

from retake.core.errors import InputError, RetakeError
from retake.isaac import autorun, live_capture, options, stops, writer

log = logging.getLogger(__name__)


class RetakeExtension(omni.ext.IExt):
    """Capture for Retake."""

    def on_startup(self, ext_id: str) -> None:
        """Register what scripts and the panel use."""
        self._undo: list[Callable[[], None]] = []
        try:
            self._undo.append(writer.register())
            stops.STOPS.install()
            self._undo.append(stops.STOPS.uninstall)
        except RetakeError as error:
            log.error("Retake is incomplete: %s", error)
        path = str(options.read("autorun", ""))
        self._autorun = autorun.start(_located(path)) if path else None

    def on_shutdown(self) -> None:
        """Complete running recordings, then take everything back."""
        if self._autorun is not None:
            self._autorun.cancel()
        for capture in [c for c in live_capture.RUNNING if c.status.active]:
            try:
                capture.close("the extension was disabled")
            except Exception as error:  # the next one must be completed all the same
                log.warning("Retake shutdown: %s", error)
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:
                log.warning("Retake shutdown: %s", error)
        self._undo = []


def _located(text: str) -> Path:
    """The autorun's file. What is wrong with its name is said by the autorun, with an exit code."""
    try:
        return options.locate(text)
    except InputError:
        return Path(text)
