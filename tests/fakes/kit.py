# SPDX-License-Identifier: Apache-2.0
"""A fake Isaac Sim: it plays a recorded motion under a chosen version's API and timing, through strict modules.

    with FakeKit("6.x", motion, lag=3, substeps=2) as kit:
        ...start a capture...
        kit.play(); kit.update(60)

What it imitates: post-step events with the state of that step; a renderer that delivers frames late and in order; the
rational frame times of each version (app update in 5.1, simulation time in 6.x, a look-up in 4.5 and 4.2); tensor
buffers reused by every call; views that die at Stop; cameras with tick rates of their own; capture on play.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from fakes.stage import Motion, camera_params
from fakes.strict import Strict, StrictModule, facts

PREFIXES = ("omni", "carb", "isaacsim", "pxr.PhysicsSchemaTools")


@dataclass
class Frame:
    """A rendered frame on its way."""

    due: int
    """Update number at which it is delivered."""
    reference: tuple[int, int]
    row: int
    """Row of the motion that it shows."""
    update: int
    cameras: tuple[str, ...]


@dataclass
class Options:
    """How this Isaac Sim behaves."""

    physics_dt_s: float = 1 / 60
    substeps: int = 1
    lag: int | Callable[[int], int] = 2
    """Updates between rendering and delivery; a function of the update number for a varying lag (order is kept)."""
    ticks: dict[str, int] = field(default_factory=dict)
    """Camera prim -> renders every n-th update of simulated time (multi-tick)."""
    gpu: bool = False
    size: tuple[int, int] = (32, 24)
    contacts: bool = False
    on_open: Callable[[str], Motion | None] | None = None
    """What a stage file moves like when it is opened; None = nothing can be opened."""
    payload_filter: Callable[[dict[str, Any], Frame], dict[str, Any] | None] | None = None
    """Faults: what Replicator hands over instead."""
    state_filter: Callable[[int], int] | None = None
    """Faults: which row the tensors show after a step."""


class FakeKit:
    """One application with one stage."""

    def __init__(self, version: str, motion: Motion, **options: Any) -> None:
        self.version, self.motion, self.options = version, motion, Options(**options)
        self.settings: dict[str, Any] = {
            "/omni/replicator/captureOnPlay": True,
            "/app/asyncRendering": False,
            "/app/settings/fabricDefaultStageFrameHistoryCount": 3,
            "/exts/isaacsim.core.throttling/enable_async": True,
        }
        self.update_number = 0
        self.step = 0
        self.time_s = 0.0
        self.playing = self.stopped = False
        self.stopped = True
        self.generation = 0
        self.pipeline: deque[Frame] = deque()
        self.post_step: dict[int, Any] = {}
        self.timeline_callbacks: list[tuple[int, Any, Any]] = []
        self.update_callbacks: list[Any] = []
        self.writers: list[tuple[Any, list[Any]]] = []
        self.products: list[Any] = []
        self.registry: dict[str, Any] = {}
        self.notifications: list[tuple[str, Any]] = []
        self.extensions: list[str] = []
        self.deleted: set[str] = set()
        self.events: list[tuple[str, Any]] = []
        """What a script asked of Replicator's randomisers, in order."""
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.exit_code: int | None = None
        """What the application closed with."""
        self.in_step = False
        self.sim_time_of: dict[tuple[int, int], float] = {}
        self.wanted: set[int] = set()
        self._next_id = 0
        self._saved: dict[str, Any] = {}

    # -- the application --------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeKit:
        self._saved = {n: m for n, m in sys.modules.items() if _ours(n)}
        for name in self._saved:
            del sys.modules[name]
        sys.modules.update(build_modules(self))
        return self

    def __exit__(self, *unused: object) -> None:
        from retake.isaac import delivery, stops, writer

        for loop in self.loops:
            loop.close()
        if self.loops:
            asyncio.set_event_loop(None)
        stops.STOPS.uninstall()
        writer.writer_class.cache_clear()
        delivery.delivery_class.cache_clear()
        for name in [n for n in sys.modules if _ours(n)]:
            del sys.modules[name]
        sys.modules.update(self._saved)

    def update(self, times: int = 1) -> None:
        """Application updates: physics, rendering, delivery, callbacks."""
        for _ in range(times):
            self.update_number += 1
            if self.playing:
                for _ in range(self.options.substeps):
                    self._physics_step()
            self._render()
            self._deliver()
            for callback in list(self.update_callbacks):
                callback(SimpleNamespace(payload={}))

    def play(self) -> None:
        """Press Play."""
        if self.stopped:
            self.generation += 1
        self.playing, self.stopped = True, False
        self._timeline(0)

    def pause(self) -> None:
        """Press Pause."""
        if self.playing:
            self.playing = False
            self._timeline(1)

    def stop(self) -> None:
        """Press Stop: time starts again, views die; frames in the renderer stay there."""
        if self.stopped:
            return
        self.playing, self.stopped = False, True
        self.step, self.time_s = 0, 0.0
        self.generation += 1
        self._timeline(2)

    @property
    def row(self) -> int:
        """Row of the motion that the current state is."""
        return self.step % self.motion.steps

    def _physics_step(self) -> None:
        self.step += 1
        # 6.x derives time from the step count; 5.x adds float steps.
        if self.version == "6.x":
            self.time_s = self.step * self.options.physics_dt_s
        else:
            self.time_s += float(np.float32(self.options.physics_dt_s))
        if self.options.gpu is False:
            pass
        self.in_step = True
        try:
            for _, callback in sorted(self.post_step.items(), key=lambda item: item[1][0]):
                arguments = (float(np.float32(self.options.physics_dt_s)),)
                callback[1](*arguments, *((SimpleNamespace(),) if self.version == "6.x" else ()))
        finally:
            self.in_step = False

    def frame_time(self) -> tuple[int, int]:
        """Rational time of the frame of this update, not reduced (Replicator reduces it)."""
        if self.version == "6.x":
            return (int(self.time_s * 1e6 + 1e-4) * 2, 2_000_000)
        return (self.update_number * 500, 30_000)

    def _render(self) -> None:
        reference = self.frame_time()
        self.sim_time_of[reference] = self.time_s
        stage = self.motion.stage
        cameras = [str(p.camera) for p in self.products if stage.GetPrimAtPath(str(p.camera))]
        frame = self.step // self.options.substeps
        rendered = tuple(c for c in cameras if frame % self.options.ticks.get(c, 1) == 0)
        lag = self.options.lag(self.update_number) if callable(self.options.lag) else self.options.lag
        due = max(self.update_number + lag, self.pipeline[-1].due if self.pipeline else 0)
        self.pipeline.append(Frame(due, reference, self.row, self.update_number, rendered))

    def _deliver(self) -> None:
        while self.pipeline and self.pipeline[0].due <= self.update_number:
            frame = self.pipeline.popleft()
            live = bool(self.settings["/omni/replicator/captureOnPlay"]) and not self.stopped
            asked = frame.update in self.wanted
            if not frame.cameras or not (live or asked):
                continue
            for writer, products in list(self.writers):
                data: dict[str, Any] | None = self.payload(frame, products)
                if self.options.payload_filter is not None and data is not None:
                    data = self.options.payload_filter(data, frame)
                if data is not None:
                    writer.write(data)

    def payload(self, frame: Frame, products: list[Any]) -> dict[str, Any]:
        """A writer's payload in the renderProduct layout."""
        out = {}
        for product in products:
            camera = str(product.camera)
            if camera not in frame.cameras or not self.motion.stage.GetPrimAtPath(camera):
                continue
            images = images_of(self.motion, camera, frame.row, tuple(product.resolution))
            out[product.path.rsplit("/", 1)[-1]] = {
                "camera": camera,
                "resolution": tuple(product.resolution),
                "rgb": {"data": images["rgb"]},
                "distance_to_image_plane": {"data": images["depth"]},
                "normals": {"data": images["normals"]},
                "instance_id_segmentation": {"data": images["ids"], "idToLabels": images["labels"]},
                "camera_params": camera_params(self.motion, camera, frame.row, tuple(product.resolution)),
            }
        return {"renderProducts": out, "reference_time": frame.reference, "trigger_outputs": {}}

    def _timeline(self, kind: int) -> None:
        for wanted, _, callback in sorted(self.timeline_callbacks, key=lambda item: item[1]):
            if wanted == kind:
                callback(SimpleNamespace(type=kind))

    def new_id(self) -> int:
        """Ids for callbacks."""
        self._next_id += 1
        return self._next_id


def images_of(motion: Motion, camera: str, row: int, size: tuple[int, int]) -> dict[str, Any]:
    """Images that say which row they show: the first pixels of every one encode it."""
    width, height = size
    rng = np.random.default_rng(row % 7)
    rgb = np.full((height, width, 4), 255, np.uint8)
    rgb[..., :3] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rgb[0, 0, :3] = (row >> 16 & 255, row >> 8 & 255, row & 255)
    depth = np.full((height, width), 1.0 + row / 1000, np.float32)
    depth[-1, -1] = np.inf
    normals = np.zeros((height, width, 4), np.float32)
    normals[..., 2] = 1.0
    ids = np.full((height, width), 3, np.uint32)
    ids[0, :] = 100_000  # the renderer's numbers are large and change
    labels = {"3": "/World/Table", "100000": motion.robots[0].spec.links[-1].prim_path + "/shape", "0": "BACKGROUND"}
    return {"rgb": rgb, "depth": depth, "normals": normals, "ids": ids, "labels": labels}


def row_in(rgb: np.ndarray) -> int:
    """The row that an image shows."""
    r, g, b = (int(v) for v in rgb[0, 0])
    return r << 16 | g << 8 | b


def _ours(name: str) -> bool:
    return any(name == p or name.startswith(p + ".") for p in PREFIXES)


# -- the modules ------------------------------------------------------------------------------------------------------


class _Tensor:
    """A warp or torch array as far as Retake may use it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def numpy(self) -> np.ndarray:
        """Host copy."""
        return self._array.copy()

    @property
    def dtype(self) -> Any:
        """Warp's type, where warp is installed."""
        try:
            import warp
        except ImportError:
            return self._array.dtype
        return {"float32": warp.float32, "int32": warp.int32}[str(self._array.dtype)]

    @property
    def device(self) -> str:
        """Where it lives."""
        return "cpu"


class _Articulation:
    """PhysX's view of some robots. The same buffers every call."""

    def __init__(self, kit: FakeKit, indices: list[int]) -> None:
        self._kit, self._indices, self._generation = kit, indices, kit.generation
        spec = kit.motion.robots[indices[0]].spec
        self.count = len(indices)
        self.is_homogeneous = len({kit.motion.robots[i].spec.dof_names for i in indices}) == 1
        # PhysX has its own link and joint order: breadth first here, which differs from the spec's.
        self.link_order = list(reversed(range(len(spec.links))))
        self.dof_order = list(range(len(spec.dof_names)))[::-1]
        self.shared_metatype = Strict(
            kit.version,
            "omni.physics.tensors.ArticulationMetatype",
            SimpleNamespace(
                link_names=[spec.links[i].name for i in self.link_order],
                dof_names=[spec.dof_names[i] for i in self.dof_order],
            ),
        )
        self.prim_paths = [kit.motion.robots[i].spec.prim_path for i in indices]
        self.link_paths = [[kit.motion.robots[i].spec.links[j].prim_path for j in self.link_order] for i in indices]
        self._buffers: dict[str, np.ndarray] = {}
        self._tables: dict[str, np.ndarray] = {}

    def check(self) -> bool:
        """Whether the prims are still there."""
        return self._alive()

    def _alive(self) -> bool:
        gone = self._kit.deleted and any(p.startswith(d) for d in self._kit.deleted for p in self.prim_paths)
        return self._generation == self._kit.generation and not gone

    def _read(self, name: str, table: list[np.ndarray], order: list[int]) -> Any:
        if not self._alive():
            raise Exception(f"Failed to get {name} from backend")
        kit = self._kit
        row = kit.row if kit.options.state_filter is None else kit.options.state_filter(kit.row)
        if name not in self._tables:
            self._tables[name] = np.stack([table[i][:, order] for i in self._indices], 1)
            self._buffers[name] = np.empty_like(self._tables[name][0])
        buffer = self._buffers[name]
        buffer[...] = self._tables[name][row]
        return _Tensor(buffer) if kit.version == "6.x" else buffer

    def get_link_transforms(self) -> Any:
        """(count, links, 7) xyzw."""
        return self._read("link transforms", self._kit.motion.links, self.link_order)

    def get_dof_positions(self) -> Any:
        """(count, dofs)."""
        return self._read("dof positions", self._kit.motion.q, self.dof_order)

    def get_dof_velocities(self) -> Any:
        """(count, dofs)."""
        return self._read("dof velocities", self._kit.motion.dq, self.dof_order)

    def get_dof_projected_joint_forces(self) -> Any:
        """(count, dofs)."""
        return self._read("joint forces", self._kit.motion.effort, self.dof_order)

    def get_dof_position_targets(self) -> Any:
        """(count, dofs)."""
        return self._read("dof targets", self._kit.motion.target, self.dof_order)

    def set_dof_position_targets(self, data: Any, indices: Any) -> None:
        """Remembered for tests, in PhysX's own order."""
        rows = indices.numpy() if hasattr(indices, "numpy") else np.asarray(indices)
        assert rows.tolist() == list(range(self.count))
        assert rows.dtype == np.int32
        targets = data.numpy() if hasattr(data, "numpy") else np.asarray(data)
        assert targets.shape == (self.count, len(self.dof_order))
        assert targets.dtype == np.float32
        self._kit.settings["commanded"] = targets


class _Bodies:
    def __init__(self, kit: FakeKit, rows: list[int]) -> None:
        self._kit, self._rows, self._generation = kit, rows, kit.generation
        self.prim_paths = [kit.motion.object_paths[i] for i in rows]
        self.count = len(rows)
        self._poses = kit.motion.objects[:, rows]

    def get_transforms(self) -> Any:
        """(count, 7) xyzw."""
        gone = any(path.startswith(d) for d in self._kit.deleted for path in self.prim_paths)
        if gone or self._generation != self._kit.generation:
            raise Exception("Failed to get rigid body transforms from backend")
        kit = self._kit
        row = kit.row if kit.options.state_filter is None else kit.options.state_filter(kit.row)
        array = self._poses[row].copy()
        return _Tensor(array) if kit.version == "6.x" else array


class _View:
    def __init__(self, kit: FakeKit) -> None:
        self._kit = kit

    def set_subspace_roots(self, pattern: str) -> None:
        """Nothing to do."""

    def create_articulation_view(self, pattern: Any) -> Any:
        """By exact paths."""
        paths = [pattern] if isinstance(pattern, str) else list(pattern)
        known = [robot.spec.prim_path for robot in self._kit.motion.robots]
        if any(p not in known or any(p.startswith(d) for d in self._kit.deleted) for p in paths):
            return None
        view = _Articulation(self._kit, [known.index(p) for p in paths])
        return Strict(self._kit.version, "omni.physics.tensors.ArticulationView", view)

    def create_rigid_body_view(self, pattern: Any) -> Any:
        """By exact paths."""
        paths = [p for p in ([pattern] if isinstance(pattern, str) else pattern) if p in self._kit.motion.object_paths]
        view = _Bodies(self._kit, [self._kit.motion.object_paths.index(p) for p in paths])
        return Strict(self._kit.version, "omni.physics.tensors.RigidBodyView", view)


def build_modules(kit: FakeKit) -> dict[str, Any]:
    """Every module of this version, ready for sys.modules."""
    version = kit.version
    known = facts(version)

    def strict(prefix: str, implementation: Any) -> Strict:
        return Strict(version, prefix, implementation)

    def simulation_view(*unused: Any) -> Any:
        return None if kit.stopped else strict("omni.physics.tensors.SimulationView", _View(kit))

    def drop(table: dict[int, Any], uid: int) -> None:
        if kit.in_step:
            raise RuntimeError("Subscription cannot be changed in the onUpdate callback")
        table.pop(uid, None)

    def add_step(callback: Any, order: int) -> int:
        uid = kit.new_id()
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
            if not _ours(parent):
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
            return add_step(callback, order)

        manager = SimpleNamespace(
            register_callback=register,
            deregister_callback=lambda uid: drop(kit.post_step, uid),
            get_physics_sim_view=simulation_view,
            get_physics_simulation_view=simulation_view,
            get_simulation_time=lambda: kit.time_s,
            get_num_physics_steps=lambda: kit.step,
            get_active_physics_engine=lambda: "physx",
        )
        extra: dict[str, Any] = {
            "SimulationManager": strict("isaacsim.core.simulation_manager.SimulationManager", manager)
        }
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

    def on_step(fn: Any, pre_step: bool = False, order: int = 0) -> Any:
        assert pre_step is False
        uid = add_step(fn, order)
        return subscription(lambda: drop(kit.post_step, uid))

    physx = strict(
        "omni.physx.PhysX",
        SimpleNamespace(subscribe_physics_on_step_events=on_step, subscribe_physics_step_events=on_step),
    )

    def report() -> Any:
        if not kit.options.contacts:
            return ((), ())
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
            play=kit.play,
            pause=kit.pause,
            stop=kit.stop,
            is_playing=lambda: kit.playing,
            is_stopped=lambda: kit.stopped,
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
            post_quit=lambda return_code=0: kit.settings.__setitem__("quit", return_code),
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
        kit.stop()
        kit.motion = opened
        kit.generation += 1
        return True

    context = strict(
        "omni.usd.UsdContext",
        SimpleNamespace(get_stage=lambda: kit.motion.stage if kit.motion else None, open_stage=open_stage),
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

    _replicator(kit, module, strict)
    _simulation_app(kit, out, module, strict)
    return out


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


def _replicator(kit: FakeKit, module: Any, strict: Any) -> None:
    """omni.replicator.core: writers, render products, the orchestrator."""

    class Product:
        """A HydraTexture."""

        def __init__(self, camera: str, resolution: tuple[int, int], name: str) -> None:
            self.camera, self.resolution = camera, resolution
            self.path = f"/Render/OmniverseKit/HydraTextures/{name}"
            kit.products.append(self)

        def destroy(self) -> None:
            """Gone."""
            kit.products.remove(self)

    handles: dict[int, Any] = {}

    def render_product(
        camera: str,
        resolution: tuple[int, int],
        force_new: bool = False,
        name: str | None = None,
        render_vars: Any = None,
    ) -> Any:
        assert isinstance(camera, str)
        product = Product(camera, resolution, name or f"Replicator_{len(kit.products)}")
        handle = strict("omni.replicator.core.HydraTexture", product)
        handles[id(handle)] = handle
        return handle

    class Writer:
        """The base class of writers."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            instance = super().__new__(cls)
            instance.annotators, instance.num_written = [], 0
            return instance

        def initialize(self, **kwargs: Any) -> None:
            """Run __init__ again."""
            self.__init__(**kwargs)

        def attach(self, render_products: Any, trigger: Any = "omni.replicator.core.OgnOnFrame") -> None:
            """Find the products by path."""
            assert self.data_structure == "renderProduct"
            many = render_products if isinstance(render_products, list) else [render_products]
            paths = [p if isinstance(p, str) else p.path for p in many]
            kit.writers.append((self, [p for p in kit.products if p.path in paths]))

        def detach(self) -> None:
            """No more frames."""
            kit.writers[:] = [entry for entry in kit.writers if entry[0] is not self]

        def on_final_frame(self) -> None:
            """Nothing."""

        def write_metadata(self) -> None:
            """Nothing."""

    def register(writer: Any, category: str | None = None) -> None:
        kit.registry[writer.__name__] = writer

    def unregister(writer_name: str) -> None:
        del kit.registry[writer_name]

    def get(name: str, init_params: Any = None, render_products: Any = None, trigger: Any = None) -> Any:
        cls = kit.registry[name]
        return cls.__new__(cls)  # as Replicator does: __init__ has not run

    async def step_async(
        rt_subframes: int = -1, pause_timeline: bool = True, delta_time: Any = None, wait_for_render: bool = True
    ) -> None:
        was_playing = kit.playing
        if pause_timeline and delta_time == 0.0:
            kit.pause()
        kit.update_number += 1
        kit._render()
        kit.wanted.add(kit.update_number)
        marked = kit.pipeline[-1]
        while marked in kit.pipeline:
            kit.update()
        assert not (was_playing and kit.playing and pause_timeline)

    def set_capture_on_play(value: bool) -> None:
        kit.settings["/omni/replicator/captureOnPlay"] = value

    async def wait_until_complete_async() -> None:
        while kit.pipeline:
            kit.update()

    class Node:
        """A node of a randomisation graph."""

        def __enter__(self) -> None:
            """Inside it, randomisers act on its prims."""

        def __exit__(self, *unused: object) -> None:
            """Done."""

    def noted(what: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            kit.events.append((what, (args, kwargs)))
            return Node()

        return call

    graph = {
        group: strict(f"omni.replicator.core.{group}", SimpleNamespace(**{name: noted(f"{group}.{name}")}))
        for group, name in (
            ("get", "prims"), ("trigger", "on_custom_event"), ("randomizer", "color"), ("distribution", "uniform"),
            ("utils", "send_og_event"),
        )
    }  # fmt: skip
    annotators = SimpleNamespace(
        get_annotator=lambda name, init_params=None, render_product_idxs=None, device=None, do_array_copy=True: name
    )
    registry = SimpleNamespace(register=register, unregister=unregister, get=get)
    module(
        "omni.replicator.core",
        SimpleNamespace(),
        **graph,
        Writer=Writer,
        WriterRegistry=strict("omni.replicator.core.WriterRegistry", registry),
        AnnotatorRegistry=strict("omni.replicator.core.AnnotatorRegistry", annotators),
        create=strict("omni.replicator.core.create", SimpleNamespace(render_product=render_product)),
        orchestrator=strict(
            "omni.replicator.core.orchestrator",
            SimpleNamespace(
                step_async=step_async,
                set_capture_on_play=set_capture_on_play,
                wait_until_complete_async=wait_until_complete_async,
            ),
        ),
    )
