# SPDX-License-Identifier: Apache-2.0
"""Hooks into the simulation loop: after a physics step, on timeline changes, once per application update.

| hook      | 6.x                               | 5.x                             | 4.5, 4.2                                |
|-----------|-----------------------------------|---------------------------------|-----------------------------------------|
| post-step | SimulationEvent.PHYSICS_POST_STEP | IsaacEvents.POST_PHYSICS_STEP   | omni.physx on-step events, post         |
| timeline  | event stream, popped by type      | same                            | same                                    |
| update    | carb.eventdispatcher              | carb.eventdispatcher            | update event stream                     |

The simulation manager writes its own time sample after a step at order 0, so Retake listens at order 1. Subscriptions
must not be dropped inside their own callback (PhysX refuses): `Subscription.release` is called from an update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retake.core.errors import MissingDependencyError
from retake.isaac.kit import optional, require

ORDER = 1


class Subscription:
    """Keeps a callback alive; `release()` ends it, once."""

    def __init__(self, kind: str, held: Any, release: Callable[[Any], None]) -> None:
        self.kind, self._held, self._release = kind, held, release

    def release(self) -> None:
        """End the subscription (harmless when repeated)."""
        held, self._held = self._held, None
        if held is not None:
            self._release(held)


def on_post_step(callback: Callable[[float], None]) -> Subscription:
    """Call `callback(dt_s)` after every physics step. Raises MissingDependencyError where no hook exists."""

    def step(dt: float, context: Any = None) -> None:  # 6.x passes a context, 5.x does not
        callback(float(dt))

    manager = optional("isaacsim.core.simulation_manager")
    if manager is not None:
        event = _post_step_event(manager)
        if event is not None:
            uid = manager.SimulationManager.register_callback(step, event, order=ORDER)
            return Subscription(str(event), (uid,), lambda held: _deregister(manager, held[0]))
    physx = require("omni.physx").get_physx_interface()
    if hasattr(physx, "subscribe_physics_on_step_events"):
        held = physx.subscribe_physics_on_step_events(step, pre_step=False, order=ORDER)
        return Subscription("omni.physx on-step events (post)", held, _drop)
    if hasattr(physx, "subscribe_physics_step_events"):
        return Subscription("omni.physx step events", physx.subscribe_physics_step_events(step), _drop)
    raise MissingDependencyError(
        "this Isaac Sim offers no hook after a physics step: neither SimulationManager events nor omni.physx step events"
    )


def on_timeline(
    play: Callable[[], None], pause: Callable[[], None], stop: Callable[[], None]
) -> tuple[Subscription, ...]:
    """Call back on Play, Pause and Stop."""
    timeline = require("omni.timeline")
    stream = timeline.get_timeline_interface().get_timeline_event_stream()
    subscriptions = []
    for name, callback in (("PLAY", play), ("PAUSE", pause), ("STOP", stop)):
        kind = int(getattr(timeline.TimelineEventType, name))

        def notify(event: Any, call: Callable[[], None] = callback) -> None:
            call()

        held = stream.create_subscription_to_pop_by_type(kind, notify, order=ORDER, name=f"retake.{name.lower()}")
        subscriptions.append(Subscription(f"timeline {name}", held, _drop))
    return tuple(subscriptions)


def on_update(callback: Callable[[], None]) -> Subscription:
    """Call `callback()` once per application update, on the main thread."""
    app = require("omni.kit.app")
    dispatcher = optional("carb.eventdispatcher")

    def notify(event: Any) -> None:
        callback()

    if dispatcher is not None and hasattr(app, "GLOBAL_EVENT_POST_UPDATE"):
        held = dispatcher.get_eventdispatcher().observe_event(
            event_name=app.GLOBAL_EVENT_POST_UPDATE, on_event=notify, observer_name="retake.update", order=ORDER
        )
        return Subscription("eventdispatcher post-update", held, lambda guard: guard.reset())
    stream = app.get_app().get_post_update_event_stream()
    held = stream.create_subscription_to_pop(notify, order=ORDER, name="retake.update")
    return Subscription("post-update stream", held, _drop)


def _post_step_event(manager: Any) -> Any | None:
    for enumeration, member in (("SimulationEvent", "PHYSICS_POST_STEP"), ("IsaacEvents", "POST_PHYSICS_STEP")):
        event = getattr(getattr(manager, enumeration, None), member, None)
        if event is not None:
            return event
    return None


def _deregister(manager: Any, uid: int) -> None:
    manager.SimulationManager.deregister_callback(uid)


def _drop(held: Any) -> None:
    """Carb subscriptions end when unsubscribed or dropped; some kinds have no method for it."""
    if hasattr(held, "unsubscribe"):
        held.unsubscribe()
