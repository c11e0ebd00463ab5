# SPDX-License-Identifier: Apache-2.0
"""Opening a stage in an application that may still be starting.

The full application opens a new, empty stage one update after its start (isaacsim.app.setup, v5.1.0 extension.py and v6.0.1
startup.py), so a stage that is opened before is lost without a word. `open_stage` waits until the application is ready, opens,
waits until everything is loaded, and looks whether the stage is still the one it opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retake.core.errors import InputError
from retake.isaac.kit import require

CREATES_STAGE = "/isaac/startup/create_new_stage"
STEADY_UPDATES = 10
"""Updates for which nothing may change before a stage counts as open."""
TRIES = 3
TIMEOUT_S = 600.0
"""For start-up and for loading, each; scenes from a server take minutes."""


async def application_ready(timeout_s: float = TIMEOUT_S) -> None:
    """Wait until the application has started and has stopped changing its stage. Raises InputError naming what it waited for."""
    app, context = require("omni.kit.app").get_app(), require("omni.usd").get_context()
    is_ready: Callable[[], bool] = getattr(app, "is_app_ready", lambda: True)
    # Only the application's own setup, which may be absent, says that a stage is to come.
    to_come = bool(require("carb.settings").get_settings().get(CREATES_STAGE))
    deadline, steady, seen = time.monotonic() + timeout_s, 0, context.get_stage()
    while steady < STEADY_UPDATES:
        await app.next_update_async()
        now = context.get_stage()
        calm = now is seen or now == seen
        steady = steady + 1 if calm and is_ready() and (now is not None or not to_come) else 0
        seen = now
        if time.monotonic() > deadline:
            raise InputError(
                f"the application was not ready within {timeout_s:g} s (waiting for the application to start)"
            )


def is_url(text: str) -> bool:
    """Whether a stage is named by an address that the application resolves (omniverse://…, https://…), not by a path."""
    return "://" in text


async def open_stage(path: Path | str, timeout_s: float = TIMEOUT_S) -> None:
    """Open a USD file, or an address that Kit resolves, and wait until it is there. Raises InputError naming what went wrong or
    what it waited for."""
    url = path if isinstance(path, str) and is_url(path) else str(Path(path).absolute())
    if not is_url(url) and not Path(url).is_file():
        raise InputError(
            f"stage {path} does not exist; expected a USD file, or an address like omniverse://server/x.usd"
        )
    await application_ready(timeout_s)
    context = require("omni.usd").get_context()
    for _ in range(TRIES):
        if not context.open_stage(url):
            raise InputError(f"{path} could not be opened; see the log above")
        if await _stays(context, time.monotonic() + timeout_s, path, timeout_s):
            return
    raise InputError(
        f"{path} was opened {TRIES} times and something replaced it by another stage each time; is another extension or script "
        "opening stages?"
    )


async def _stays(context: Any, deadline: float, path: Path | str, timeout_s: float) -> bool:
    """Whether the stage just opened is still there once everything is loaded."""
    app, opened, steady = require("omni.kit.app").get_app(), context.get_stage(), 0
    status = getattr(context, "get_stage_loading_status", lambda: ("", 0, 0))
    while steady < STEADY_UPDATES:
        await app.next_update_async()
        if context.get_stage() != opened:
            return False
        loading = int(status()[2])
        steady = 0 if loading else steady + 1
        if time.monotonic() > deadline:
            raise InputError(f"{path} was not loaded within {timeout_s:g} s (waiting for {loading} files of the stage)")
    return True
