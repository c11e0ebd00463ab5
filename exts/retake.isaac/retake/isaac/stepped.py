# SPDX-License-Identifier: Apache-2.0
"""Stepped capture: the timeline stands still while each frame is rendered, so a frame's state is beyond doubt.

Exact on every version, slower than live capture: used headless, and where a running renderer cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retake.core.capture import PairingError
from retake.isaac import timeline
from retake.isaac.kit import require
from retake.isaac.live_capture import LiveCapture
from retake.isaac.request import Phase
from retake.isaac.stops import SETTLE_UPDATES

MAX_IDLE_UPDATES = 600
"""Updates without a physics step before giving up (10 s at 60 Hz): loading and warm-up take a while."""


async def drive_stepped(capture: LiveCapture, *, before_update: Callable[[], None] | None = None) -> None:
    """Play, hold, render, play on, until the recording ends. `before_update` runs before each update of the running
    timeline (a controller). Raises PairingError when physics does not move or oversteps the frame grid. Whatever is raised, the
    recording does not go on waiting for it."""
    try:
        await _drive(capture, before_update)
    except Exception as error:
        capture.fail(error)
        raise


async def _drive(capture: LiveCapture, before_update: Callable[[], None] | None) -> None:
    app, orchestrator = require("omni.kit.app").get_app(), require("omni.replicator.core").orchestrator
    target = 1
    while capture.status.phase is Phase.WAITING and not capture.ready:
        await app.next_update_async()
    while capture.status.phase in (Phase.WAITING, Phase.RECORDING):
        timeline.play()
        idle = 0
        while capture.steps < target and capture.status.phase in (Phase.WAITING, Phase.RECORDING):
            if before_update is not None:
                before_update()
            steps = capture.steps
            await app.next_update_async()
            idle = 0 if capture.steps > steps else idle + 1
            if idle > MAX_IDLE_UPDATES:
                capture.stop("physics does not move")
                raise PairingError(f"no physics step in {MAX_IDLE_UPDATES} updates; is there a physics scene?")
        if capture.status.phase is not Phase.RECORDING:
            break
        if target > 1 and capture.steps != target:
            capture.stop("physics oversteps the frame grid")
            raise PairingError(
                f"an update makes {capture.steps - target + 1} or more physics steps, frames are due every {capture.stride}; "
                f"choose a frame rate that is a whole number of updates{capture.hint}"
            )
        timeline.pause()
        await _frame_of_held_state(capture, app, orchestrator)
        target = capture.steps + capture.stride


async def _frame_of_held_state(capture: LiveCapture, app: Any, orchestrator: Any) -> None:
    """Render until every camera delivered the held state. Raises PairingError when the renderer does not."""
    before = capture.counts.frames
    capture.hold(True)
    try:
        await orchestrator.step_async(
            rt_subframes=capture.request.rt_subframes, pause_timeline=True, delta_time=0.0, wait_for_render=True
        )
        for _ in range(SETTLE_UPDATES):  # a writer may be told some updates after the render
            if capture.counts.frames > before or capture.status.phase is not Phase.RECORDING:
                return
            await app.next_update_async()
    finally:
        capture.hold(False)
    if capture.status.phase is Phase.RECORDING:
        capture.stop("the held state was not rendered")
        raise PairingError(
            f"the renderer delivered no frame of the held state t={capture.time_s:.6f} s"
            f"{f' ({capture.stale} frames of earlier states)' if capture.stale else ''}; are the cameras' render products "
            "updating? Higher rt_subframes gives the renderer more time"
        )
