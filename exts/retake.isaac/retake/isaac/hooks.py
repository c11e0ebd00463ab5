# SPDX-License-Identifier: Apache-2.0
"""Everything a recording attaches to Kit, in one place, so that all of it is taken back whatever happens.

Settings, subscriptions, tensor views, contact reports, render products and the writer are opened by `LiveCapture.start`
and closed here, each for itself: one that fails to close must not leave the others behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from retake.isaac import kit, picture_quality, ticks, timeline
from retake.isaac.async_rendering import AsyncRendering
from retake.isaac.camera_text import what_is_lost
from retake.isaac.contacts import ContactReports, reported_bodies
from retake.isaac.host_settings import HostSettings
from retake.isaac.products import Products
from retake.isaac.request import CaptureRequest
from retake.isaac.stage_reader import CameraChoice, StageContent
from retake.isaac.tensors import TensorReader
from retake.isaac.tick_rates import TickRates

HISTORY = "/app/settings/fabricDefaultStageFrameHistoryCount"


class Hooks:
    """What one recording holds of Kit. `close()` gives everything back, and may be called again."""

    def __init__(self, stage: Any, content: StageContent) -> None:
        self.stage, self.content = stage, content
        self.settings = HostSettings()
        self.rendering = AsyncRendering()
        self.products = Products()
        self.notes: list[str] = []
        specs = [robot.spec for robot in content.robots]
        self._movable = [item.spec.prim_path for item in content.objects if item.spec.movable]
        self._robots = specs
        self.tensors = TensorReader(specs, self._movable)
        self.contacts: ContactReports | None = None
        self._ticks = TickRates(stage, [camera.prim_path for camera in content.cameras])
        self._step_hook = ticks.Subscription("nothing", None, lambda held: None)
        self._subscriptions: list[ticks.Subscription] = []
        self._writer: Any = None
        self._end: timeline.TimelineEnd | None = None
        self._more_step_hooks: list[Callable[[], ticks.Subscription]] = []
        self._watched = {
            **{spec.prim_path: f"robot {spec.name!r}" for spec in specs},
            **{camera.prim_path: f"camera {camera.name!r}" for camera in content.cameras},
        }

    def prepare_settings(self, request: CaptureRequest, *, live: bool) -> None:
        """The application's settings as this recording needs them, a timeline that does not loop.

        What is too small for exact frames is noted. Raises InputError, before anything is changed, where frames would fall
        between updates, or another recording needs other settings.
        """
        fps, frames = request.fps, request.frames
        timeline.check_steps(self.stage, fps, self.settings.get)
        self.settings.hold(live=live, antialiasing=request.antialiasing)
        self.rendering.remember(playing=_playing())
        self._end = timeline.TimelineEnd()
        if frames and (warning := self._end.warning((frames - 1) / fps)):
            self.notes.append(warning)
        history = self.settings.get(HISTORY)
        if history is not None and int(history) < 3:
            self.notes.append(f"{HISTORY} is {history}; Replicator needs 3 for exact frame data")

    def prepare_pictures(self) -> dict[str, Any]:
        """Tick rates; returns the renderer's settings for the episode's header. Notes what is lost."""
        self._ticks.open()
        cameras = self.content.cameras
        self.notes += filter(
            None, (self._ticks.note, picture_quality.advice(self.settings.get, [c.size for c in cameras]))
        )
        self.notes += what_is_lost([CameraChoice(c.prim_path, c.size, c.name, c.channels) for c in cameras])
        return {"renderer": picture_quality.recorded(self.settings.get)}

    def open_contacts(self, wanted: str) -> None:
        """Contact reports of movable objects and gripper links (`auto`), of every link (`on`), or none (`off`)."""
        bodies = reported_bodies(self._robots, self._movable, wanted)
        if not bodies:
            return
        self.contacts = ContactReports(self.stage, bodies)
        self.contacts.open()
        if self.contacts.cost:
            self.notes.append(self.contacts.cost)

    def subscribe(
        self, step: Callable[[float], None], pause: Callable[[], None], stop: Callable[[], None],
        update: Callable[[], None],
    ) -> None:  # fmt: skip
        """The simulation loop's callbacks."""
        first, *self._more_step_hooks = ticks.post_step_hooks(step)
        self._step_hook = first()
        self._subscriptions = [*ticks.on_timeline(lambda: None, pause, stop), ticks.on_update(update)]

    def next_step_hook(self) -> bool:
        """Listen to physics steps another way: the one tried never called. False where no other way is left."""
        kind = self._step_hook.kind
        if not self._more_step_hooks:
            return False
        self._step_hook.release()
        self._step_hook = self._more_step_hooks.pop(0)()
        self.notes.append(f"no physics step was announced by {kind}; listening to {self._step_hook.kind} instead")
        return True

    @property
    def all_notes(self) -> list[str]:
        """What was noted so far, with what contacts have to say."""
        trouble = self.contacts.trouble if self.contacts is not None else ""
        return [*self.notes, *filter(None, [trouble])]

    @property
    def step_hook(self) -> str:
        """How physics steps are announced."""
        return self._step_hook.kind

    @property
    def timeline_ended(self) -> bool:
        """Whether the timeline stands at its end."""
        return self._end is not None and self._end.reached

    def attach(self, writer: Any) -> None:
        """A writer of our own on our own products."""
        self._writer = writer
        writer.attach(list(self.products.paths))

    def missing_from_stage(self) -> str:
        """What of the stage has gone since the recording began, as a sentence; empty while all is there."""
        if kit.require("omni.usd").get_context().get_stage() != self.stage:
            return "the stage was closed or replaced while recording"
        for path, what in self._watched.items():
            prim = self.stage.GetPrimAtPath(path)
            if not prim or not prim.IsDefined():  # what the session layer says of it may outlive the prim
                return f"{what} ({path}) was deleted while recording"
            if not prim.IsActive():
                return f"{what} ({path}) was deactivated while recording"
        return ""

    def close(self) -> None:
        """Give everything back; what could not be undone is noted, and the rest is undone all the same."""
        writer, self._writer = self._writer, None
        subscriptions: Sequence[ticks.Subscription] = self._subscriptions
        self._subscriptions = []
        undo: list[tuple[str, Callable[[], Any]]] = [(s.kind, s.release) for s in (self._step_hook, *subscriptions)]
        end, self._end = self._end, None
        undo.append(("physics views", self.tensors.close))
        if self.contacts is not None:
            undo.append(("contact reports", self.contacts.close))
        if writer is not None:
            undo.append(("the writer", writer.detach))
        undo.append(("render products", self.products.close))
        undo.append(("tick rates", self._ticks.close))
        if end is not None:
            undo.append(("the timeline's looping", end.close))
        undo.append(("asynchronous rendering", lambda: self.rendering.restore(playing=_playing())))
        undo.append(("settings", self.settings.close))
        for what, call in undo:
            try:
                call()
            except Exception as error:  # an expired stage, a subscription Kit dropped by itself
                self.notes.append(f"{what} could not be taken back: {type(error).__name__}: {error}")


def _playing() -> bool:
    return bool(timeline.interface().is_playing())
