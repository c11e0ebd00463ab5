# SPDX-License-Identifier: Apache-2.0
"""Hooks into the simulation loop: after a physics step, on timeline changes, once per application update.

| hook      | 6.x                               | 5.x                             | 4.5, 4.2                                |
|-----------|-----------------------------------|---------------------------------|-----------------------------------------|
| post-step | SimulationEvent.PHYSICS_POST_STEP | IsaacEvents.POST_PHYSICS_STEP   | omni.physx on-step events, post         |
|           | else IsaacEvents, else the steps of omni.physics.core, else omni.physx (`post_step_hooks`)                    |
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


def post_step_hooks(callback: Callable[[float], None]) -> list[Callable[[], Subscription]]:
    """Ways to have `callback(dt_s)` called after every physics step, the surest first; each subscribes when called.

    Isaac Lab puts a manager of its own in the place of SimulationManager: it takes an event that it does not know and never
    calls, without a word. So whoever hears no step goes on to the next way. Raises MissingDependencyError where there is none.
    """

    def step(dt: float, context: Any = None) -> None:  # 6.x passes a context, 5.x does not
        callback(float(dt))

    out: list[Callable[[], Subscription]] = []
    manager = optional("isaacsim.core.simulation_manager")
    for event in [] if manager is None else _post_step_events(manager):
        out.append(lambda event=event: _by_manager(manager, step, event))
    core = optional("omni.physics.core")
    if core is not None and hasattr(core, "get_physics_simulation_interface"):
        out.append(lambda: _by_engine(core.get_physics_simulation_interface(), step))
    physx = optional("omni.physx")
    interface = None if physx is None else physx.get_physx_interface()
    newer = getattr(interface, "subscribe_physics_on_step_events", None)
    older = getattr(interface, "subscribe_physics_step_events", None)
    if newer is not None:
        out.append(lambda: _by_physx(newer, step, pre_step=False, order=ORDER))
    elif older is not None:
        out.append(lambda: _by_physx(older, step))
    if not out:
        raise MissingDependencyError(
            "this Isaac Sim offers no hook after a physics step: neither SimulationManager events nor steps of omni.physics.core "
            "or omni.physx"
        )
    return out


def _by_manager(manager: Any, step: Callable[..., None], event: Any) -> Subscription:
    uid = manager.SimulationManager.register_callback(step, event, order=ORDER)
    return Subscription(str(event), (uid,), lambda held: _deregister(manager, held[0]))


def _by_engine(interface: Any, step: Callable[..., None]) -> Subscription:
    held = interface.subscribe_physics_on_step_events(pre_step=False, order=ORDER, on_update=step)
    return Subscription("omni.physics.core on-step events (post)", held, _drop)


def _by_physx(subscribe: Callable[..., Any], step: Callable[..., None], **options: Any) -> Subscription:
    return Subscription("omni.physx step events", subscribe(step, **options), _drop)


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


def _post_step_events(manager: Any) -> list[Any]:
    """The manager's post-step events, newest enumeration first; Isaac Lab's own manager knows the older one only."""
    names = [("SimulationEvent", "PHYSICS_POST_STEP"), ("IsaacEvents", "POST_PHYSICS_STEP")]
    if str(getattr(manager.SimulationManager, "__module__", "")).startswith("isaaclab"):
        names.reverse()
    events = [getattr(getattr(manager, enumeration, None), member, None) for enumeration, member in names]
    return [event for event in events if event is not None]


def _deregister(manager: Any, uid: int) -> None:
    manager.SimulationManager.deregister_callback(uid)


def _drop(held: Any) -> None:
    """Carb subscriptions end when unsubscribed or dropped; some kinds have no method for it."""
    if hasattr(held, "unsubscribe"):
        held.unsubscribe()
