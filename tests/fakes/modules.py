# SPDX-License-Identifier: Apache-2.0
"""The modules of one Isaac Sim version, ready for sys.modules; each call is bound to its public signature first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fakes.physics import View
from fakes.replicator import add_replicator
from fakes.strict import Strict, StrictModule, facts, ours
from fakes.world import add_worlds

if TYPE_CHECKING:
    from fakes.kit import FakeKit


def build_modules(kit: FakeKit) -> dict[str, Any]:
    """Every module of this version, ready for sys.modules."""
    version = kit.version
    known = facts(version)

    def strict(prefix: str, implementation: Any) -> Strict:
        return Strict(version, prefix, implementation)

    def simulation_view(*unused: Any) -> Any:
        return None if kit.stopped else strict("omni.physics.tensors.SimulationView", View(kit))

    def drop(table: dict[int, Any], uid: int) -> None:
        if kit.in_step:
            raise RuntimeError("Subscription cannot be changed in the onUpdate callback")
        table.pop(uid, None)

    def add_step(callback: Any, order: int, by: str) -> int:
        uid = kit.new_id()
        if by not in kit.options.silent_steps:
            kit.post_step[uid] = (order, callback)
        return uid

    def subscription(release: Callable[[], None]) -> Any:
        return strict("carb.events.ISubscription", SimpleNamespace(unsubscribe=release))

    out: dict[str, Any] = {}

    def module(name: str, implementation: Any, **extra: Any) -> None:
        parts = name.split(".")
        out[name] = StrictModule(version, name, implementation, **extra)
        for end in range(len(parts) - 1, 0, -1):
            parent = ".".join(parts[:end])
            if not ours(parent):
                break  # pxr is the real one
            if parent not in out:
                out[parent] = StrictModule(version, parent, SimpleNamespace())
            out[parent].__dict__[parts[end]] = out[".".join(parts[: end + 1])]

    # isaacsim.core.simulation_manager
    if any(name.startswith("isaacsim.core.simulation_manager") for name in known):
        events = {
            enumeration: SimpleNamespace(
                **{
                    name.rsplit(".", 1)[-1]: name
                    for name in known
                    if name.startswith(f"isaacsim.core.simulation_manager.{enumeration}.")
                }
            )
            for enumeration in ("SimulationEvent", "IsaacEvents")
        }

        def register(callback: Any, event: Any, order: int = 0, *unused: Any, **ignored: Any) -> int:
            assert "STEP" in str(event)
            return add_step(callback, order, "manager")

        manager = SimpleNamespace(
            register_callback=register,
            deregister_callback=lambda uid: drop(kit.post_step, uid),
            get_physics_sim_view=simulation_view,
            get_physics_simulation_view=simulation_view,
            get_simulation_time=lambda: kit.time_s,
            get_num_physics_steps=lambda: kit.step,
            get_active_physics_engine=lambda: "newton" if kit.profile.application == "newton" else "physx",
            step=lambda *, steps=1, callback=None, update_fabric=False: [kit.physics_step() for _ in range(steps)],
        )
        extra: dict[str, Any] = {
            "SimulationManager": strict("isaacsim.core.simulation_manager.SimulationManager", manager)
        }
        if kit.profile.behaviour("manager") == "replaced":
            extra["SimulationManager"] = _lab_manager(register, manager.deregister_callback, simulation_view)
        extra.update({k: v for k, v in events.items() if vars(v)})
        module("isaacsim.core.simulation_manager", SimpleNamespace(), **extra)
        inner = "isaacsim.core.simulation_manager._simulation_manager"
        if f"{inner}.acquire_simulation_manager_interface" in known:

            def now() -> Any:
                numerator, denominator = kit.frame_time()
                return strict(f"{inner}.RationalTime", SimpleNamespace(numerator=numerator, denominator=denominator))

            interface = SimpleNamespace(
                get_current_time=now,
                get_simulation_time=lambda: kit.time_s,
                get_simulation_time_at_time=lambda t: kit.time_s,
            )
            module(
                inner,
                SimpleNamespace(acquire_simulation_manager_interface=lambda: strict(f"{inner}.Interface", interface)),
            )

    for name in (
        "isaacsim.core.nodes.bindings._isaacsim_core_nodes",
        "omni.isaac.core_nodes.bindings._omni_isaac_core_nodes",
    ):
        if f"{name}.acquire_interface" in known:
            nodes = SimpleNamespace(get_sim_time_at_time=lambda t: kit.sim_time_of[t], get_sim_time=lambda: kit.time_s)
            module(
                name,
                SimpleNamespace(acquire_interface=lambda nodes=nodes, name=name: strict(f"{name}.CoreNodes", nodes)),
            )
    for name in ("isaacsim.core.version", "omni.isaac.version"):
        if f"{name}.get_version" in known:
            module(name, SimpleNamespace(get_version=lambda: (version, "", "", "", "", "", "", "")))

    # physics
    def create_simulation_view(frontend: str, stage_id: int = -1) -> Any:
        if kit.options.gpu and frontend == "numpy":
            raise Exception("The Numpy frontend cannot be used with GPU pipelines")
        return simulation_view()

    module("omni.physics.tensors", SimpleNamespace(create_simulation_view=create_simulation_view))

    def on_step(fn: Any, pre_step: bool = False, order: int = 0, by: str = "physx") -> Any:
        assert pre_step is False
        uid = add_step(fn, order, by)
        return subscription(lambda: drop(kit.post_step, uid))

    def any_engine(pre_step: bool, order: int, on_update: Any) -> Any:
        return on_step(lambda dt, context=None: on_update(dt, context), pre_step, order, "core")

    physx = strict(
        "omni.physx.PhysX",
        SimpleNamespace(subscribe_physics_on_step_events=on_step, subscribe_physics_step_events=on_step),
    )

    def report() -> Any:
        if not kit.options.contacts or kit.settings.get("/physics/disableContactProcessing"):
            return ((), ())
        if kit.settings.get("/physics/suppressReadback"):
            raise Exception("contact reports are not available with suppressed readback")
        header = SimpleNamespace(type=0, actor0=1, actor1=2, contact_data_offset=0, num_contact_data=1)
        data = SimpleNamespace(
            position=(1.0, 2.0, 3.0), normal=(0.0, 0.0, 1.0), impulse=(0.0, 0.0, 0.5), separation=-0.001
        )
        return ([strict("omni.physx.ContactEventHeader", header)], [strict("omni.physx.ContactData", data)])

    simulation = strict("omni.physx.PhysXSimulation", SimpleNamespace(get_contact_report=report))
    module(
        "omni.physx",
        SimpleNamespace(get_physx_interface=lambda: physx, get_physx_simulation_interface=lambda: simulation),
    )
    names = {1: "/World/Arm0/left", 2: "/World/Packet"}
    module("pxr.PhysicsSchemaTools", SimpleNamespace(intToSdfPath=lambda number: names[number]))
    if "omni.physics.core.get_physics_simulation_interface" in known:
        engine = strict(
            "omni.physics.core.PhysicsSimulation", SimpleNamespace(subscribe_physics_on_step_events=any_engine)
        )
        module("omni.physics.core", SimpleNamespace(get_physics_simulation_interface=lambda: engine))

    # application
    def stream(callbacks: list[Any]) -> Any:
        def by_type(event_type: int, fn: Any, order: int = 0, name: str | None = None) -> Any:
            entry = (event_type, order, fn)
            kit.timeline_callbacks.append(entry)
            return subscription(
                lambda: kit.timeline_callbacks.remove(entry) if entry in kit.timeline_callbacks else None
            )

        def every(fn: Any, order: int = 0, name: str | None = None) -> Any:
            callbacks.append(fn)
            return subscription(lambda: callbacks.remove(fn) if fn in callbacks else None)

        return strict(
            "carb.events.IEventStream",
            SimpleNamespace(create_subscription_to_pop_by_type=by_type, create_subscription_to_pop=every),
        )

    timeline = strict(
        "omni.timeline.ITimeline",
        SimpleNamespace(
            play=lambda: kit.request(kit.play),
            pause=lambda: kit.request(kit.pause),
            stop=lambda: kit.request(kit.stop),
            commit=kit.commit,
            is_playing=lambda: kit.playing,
            is_stopped=lambda: kit.stopped,
            get_current_time=lambda: kit.timeline_s,
            get_end_time=lambda: kit.options.end_time_s,
            is_looping=lambda: kit.looping,
            set_looping=lambda looping: setattr(kit, "looping", bool(looping)),
            get_time_codes_per_seconds=lambda: kit.time_codes_per_second,
            get_timeline_event_stream=lambda: stream([]),
        ),
    )
    module(
        "omni.timeline",
        SimpleNamespace(get_timeline_interface=lambda: timeline),
        TimelineEventType=SimpleNamespace(PLAY=0, PAUSE=1, STOP=2),
    )

    async def next_update_async() -> None:
        kit.update()

    class Extensions:
        """The extension manager."""

        def set_extension_enabled_immediate(self, name: str, enabled: bool) -> bool:
            """Remembered."""
            assert isinstance(name, str), name
            assert isinstance(enabled, bool), enabled
            kit.extensions.append(name)
            return True

    app = strict(
        "omni.kit.app.IApp",
        SimpleNamespace(
            get_app_version=lambda: version,
            get_app_name=lambda: "isaac-sim.fake",
            get_kit_version=lambda: "110.0",
            get_extension_manager=Extensions,
            get_update_number=lambda: kit.update_number,
            post_quit=kit.post_quit,
            is_app_ready=lambda: kit.ready,
            is_running=lambda: kit.exit_code is None,
            update=kit.update,
            next_update_async=next_update_async,
            get_post_update_event_stream=lambda runloop_name="main": stream(kit.update_callbacks),
        ),
    )
    implementation = SimpleNamespace(get_app=lambda: app, GLOBAL_EVENT_POST_UPDATE="postUpdate")
    module("omni.kit.app", implementation)
    module("carb", SimpleNamespace())

    class Settings:
        """carb.settings."""

        def get(self, path: str) -> Any:
            """A value or None."""
            return kit.settings.get(path)

        def set(self, path: str, value: Any) -> None:
            """Store."""
            kit.settings[path] = value

        def destroy_item(self, path: str) -> None:
            """Remove."""
            kit.settings.pop(path, None)

    settings = strict("carb.settings.ISettings", Settings())
    module("carb.settings", SimpleNamespace(get_settings=lambda: settings))
    if "carb.eventdispatcher.get_eventdispatcher" in known:

        def observe(order: int = 0, event_name: str = "", on_event: Any = None, *rest: Any, **more: Any) -> Any:
            assert event_name == "postUpdate"
            kit.update_callbacks.append(on_event)
            release = lambda: kit.update_callbacks.remove(on_event) if on_event in kit.update_callbacks else None  # noqa: E731
            return strict("carb.eventdispatcher.ObserverGuard", SimpleNamespace(reset=release))

        dispatcher = strict("carb.eventdispatcher.IEventDispatcher", SimpleNamespace(observe_event=observe))
        module("carb.eventdispatcher", SimpleNamespace(get_eventdispatcher=lambda: dispatcher))

    def open_stage(url: str, on_finish_fn: Any = None, load_set: Any = None) -> bool:
        opened = kit.options.on_open(url) if kit.options.on_open is not None else None
        if opened is None:
            return False
        kit.show(opened, url)
        return True

    selection = strict("omni.usd.Selection", SimpleNamespace(get_selected_prim_paths=lambda: list(kit.selected)))
    context = strict(
        "omni.usd.UsdContext",
        SimpleNamespace(
            get_stage=lambda: kit.motion.stage if kit.motion else None,
            open_stage=open_stage,
            get_stage_url=lambda: kit.stage_url,
            get_stage_loading_status=lambda: ("", 0, kit.loading),
            can_open_stage=lambda: True,
            get_selection=lambda: selection,
        ),
    )
    module("omni.usd", SimpleNamespace(get_context=lambda name="": context))
    module(
        "omni.kit.notification_manager",
        SimpleNamespace(
            post_notification=lambda text, hide_after_timeout=True, duration=3, status=1, button_infos=(): (
                kit.notifications.append((text, status))
            ),
        ),
        NotificationStatus=SimpleNamespace(INFO=1, WARNING=2),
    )

    add_replicator(kit, module, strict)
    add_worlds(kit, module, strict)
    _simulation_app(kit, out, module, strict)
    for name in kit.profile.behaviour("missing_modules", ()):
        parent, _, last = name.rpartition(".")
        out.pop(name, None)
        if parent in out:
            out[parent].__dict__.pop(last, None)
    return out


def _lab_manager(register: Any, deregister: Any, view: Any) -> Any:
    """Isaac Lab's PhysxManager in the place of SimulationManager: it knows its own events, and takes any other in silence."""

    class PhysxManager:
        __module__ = "isaaclab_physx.physics.physx_manager"

        @staticmethod
        def register_callback(
            callback: Any, event: Any, order: int = 0, name: str | None = None, wrap_weak_ref: bool = True
        ) -> Any:
            known = str(event).startswith("isaacsim.core.simulation_manager.IsaacEvents.")
            return SimpleNamespace(id=register(lambda dt, context=None: callback(dt), event, order) if known else None)

        @staticmethod
        def deregister_callback(handle: Any) -> None:
            if handle.id is not None:
                deregister(handle.id)

        get_physics_sim_view = staticmethod(view)

    return PhysxManager


def _simulation_app(kit: FakeKit, out: dict[str, Any], module: Any, strict: Any) -> None:
    """SimulationApp, where this version keeps it."""
    name = "omni.isaac.kit" if kit.version == "4.2" else "isaacsim"

    def run_coroutine(coroutine: Any, run_until_complete: bool = True) -> Any:
        assert run_until_complete
        return asyncio.get_event_loop().run_until_complete(coroutine)

    def close(wait_for_replicator: bool = True, skip_cleanup: bool = False, exit_code: int = 0) -> None:
        kit.exit_code = exit_code  # before 6.x nobody can say anything but 0

    def make(launch_config: Any = None, experience: str = "") -> Any:
        loop = asyncio.new_event_loop()

        def update() -> None:
            kit.update()
            loop.run_until_complete(asyncio.sleep(0))  # an update turns the loop once

        asyncio.set_event_loop(loop)
        kit.loops.append(loop)
        app = SimpleNamespace(close=close, run_coroutine=run_coroutine, update=update)
        return strict(f"{name}.SimulationApp", app)

    implementation = SimpleNamespace(SimulationApp=make)
    if name in out:
        out[name].__dict__["_implementation"] = implementation
    else:
        module(name, implementation)
