# SPDX-License-Identifier: Apache-2.0
"""Stepped recording against a stand-in for Kit: play, hold, render, play on, and a word where one of them does not happen."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.capture import PairingError
from retake.isaac import stepped
from retake.isaac.request import Phase


class Capture:
    """What the driver asks of a recording."""

    def __init__(self, frames: int, stride: int = 4) -> None:
        self.wanted, self.stride, self.steps, self.ready, self.stale, self.hint = (
            frames,
            stride,
            0,
            True,
            0,
            "; see the docs",
        )
        self.status, self.counts = SimpleNamespace(phase=Phase.RECORDING), SimpleNamespace(frames=0)
        self.request, self.held, self.stopped, self.time_s = SimpleNamespace(rt_subframes=7), [], "", 0.5

    def hold(self, on: bool) -> None:
        self.held.append(on)

    def stop(self, why: str) -> None:
        self.stopped, self.status.phase = why, Phase.FAILED

    def fail(self, error: Exception) -> None:
        if self.status.phase in (Phase.WAITING, Phase.RECORDING):
            self.stop(f"failed: {error}")


class Kit:
    """An application whose updates make physics steps while the timeline plays, and an orchestrator that renders."""

    def __init__(self, capture: Capture, per_update: int = 1, late: int = 0, renders: bool = True) -> None:
        self.capture, self.per_update, self.late, self.renders = capture, per_update, late, renders
        self.playing, self.updates, self.asked, self.due = False, 0, [], -1

    async def next_update_async(self) -> None:
        self.updates += 1
        if self.playing:
            self.capture.steps += self.per_update
        elif self.due >= 0:
            self.due -= 1
            if self.due < 0:
                self.deliver()

    def deliver(self) -> None:
        self.capture.counts.frames += 1
        if self.capture.counts.frames == self.capture.wanted:
            self.capture.status.phase = Phase.DONE

    async def step_async(self, **how: Any) -> None:
        assert not self.playing
        self.asked.append((self.capture.steps, how))
        if self.renders:
            self.due = self.late - 1
            if self.late == 0:
                self.deliver()


def drive(monkeypatch: pytest.MonkeyPatch, kit: Kit, **how: Any) -> None:
    modules = {
        "omni.kit.app": SimpleNamespace(get_app=lambda: kit),
        "omni.replicator.core": SimpleNamespace(orchestrator=kit),
    }
    monkeypatch.setattr(stepped, "require", modules.__getitem__)
    monkeypatch.setattr(stepped.timeline, "play", lambda: setattr(kit, "playing", True))
    monkeypatch.setattr(stepped.timeline, "pause", lambda: setattr(kit, "playing", False))
    asyncio.run(stepped.drive_stepped(kit.capture, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stride", "per_update", "late"), [(4, 1, 0), (4, 1, 3), (1, 1, 0), (1, 1, stepped.SETTLE_UPDATES - 1)]
)
def test_a_frame_is_rendered_of_every_held_state_on_the_grid(monkeypatch, stride, per_update, late):
    capture = Capture(5, stride)
    kit, before = Kit(capture, per_update, late), []
    drive(monkeypatch, kit, before_update=lambda: before.append(kit.capture.steps))
    assert [steps for steps, _ in kit.asked] == [1 + stride * k for k in range(5)]
    wanted = {"rt_subframes": 7, "pause_timeline": True, "delta_time": 0.0, "wait_for_render": True}
    assert all(how == wanted for _, how in kit.asked)
    assert capture.held == [True, False] * 5
    assert before == list(range(1 + stride * 4))
    assert not capture.stopped


def test_it_waits_until_the_recording_is_ready(monkeypatch):
    capture = Capture(1)
    capture.ready, capture.status.phase = False, Phase.WAITING
    kit = Kit(capture)
    update, started = kit.next_update_async, []

    async def later() -> None:
        await update()
        capture.ready = capture.ready or kit.updates == 3
        if kit.playing and not started:
            started.append(kit.updates)
            capture.status.phase = Phase.RECORDING

    monkeypatch.setattr(kit, "next_update_async", later)
    drive(monkeypatch, kit)
    assert started == [4]
    assert len(kit.asked) == 1


def test_updates_that_overstep_the_grid_are_told(monkeypatch):
    capture = Capture(5, 3)
    with pytest.raises(
        PairingError, match=r"an update makes 2 or more physics steps, frames are due every 3; .*; see the docs"
    ):
        drive(monkeypatch, Kit(capture, 2))
    assert capture.stopped == "physics oversteps the frame grid"


def test_physics_that_stands_still_is_told(monkeypatch):
    capture, limit = Capture(5), 12
    monkeypatch.setattr(stepped, "MAX_IDLE_UPDATES", limit)
    kit = Kit(capture, 0)
    with pytest.raises(PairingError, match=f"no physics step in {limit} updates"):
        drive(monkeypatch, kit)
    assert kit.updates == limit + 1
    assert capture.stopped == "physics does not move"


@pytest.mark.parametrize(
    ("stale", "words"), [(0, "t=0.500000 s; are the"), (3, r"s \(3 frames of earlier states\); are the")]
)
def test_a_renderer_that_delivers_nothing_is_told(monkeypatch, stale, words):
    for late, renders in ((0, False), (stepped.SETTLE_UPDATES, True)):
        capture = Capture(5)
        capture.stale = stale
        with pytest.raises(PairingError, match=words):
            drive(monkeypatch, Kit(capture, late=late, renders=renders))
        assert capture.stopped == "the held state was not rendered"
        assert capture.held == [True, False]


def test_a_recording_that_ends_while_it_renders_is_no_fault(monkeypatch):
    capture = Capture(5)
    kit = Kit(capture, renders=False)
    step = kit.step_async

    async def ends(**how: Any) -> None:
        await step(**how)
        capture.status.phase = Phase.DONE

    monkeypatch.setattr(kit, "step_async", ends)
    drive(monkeypatch, kit)
    assert (capture.stopped, capture.held, len(kit.asked)) == ("", [True, False], 1)


def test_an_error_that_is_not_its_own_ends_the_recording_too(monkeypatch):
    """A panel's driver is a task that nobody awaits: the recording would wait for it for ever."""
    capture = Capture(5)
    kit = Kit(capture)

    async def broken(**how: Any) -> None:
        raise RuntimeError("the orchestrator's own")

    monkeypatch.setattr(kit, "step_async", broken)
    with pytest.raises(RuntimeError, match="orchestrator"):
        drive(monkeypatch, kit)
    assert capture.stopped == "failed: the orchestrator's own"
    assert capture.held == [True, False]
