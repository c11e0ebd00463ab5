# SPDX-License-Identifier: Apache-2.0
"""A fake Isaac Sim: it plays a recorded motion under a chosen version's API and timing, through strict modules.

    with FakeKit("6.x", motion, lag=3, substeps=2) as kit:
        ...start a capture...
        kit.play(); kit.update(60)

What it imitates: post-step events with the state of that step; a renderer that delivers frames late and in order; the
rational frame times of each version (app update in 5.1, simulation time in 6.x, a look-up in 4.5 and 4.2); tensor
buffers reused by every call; views that die at Stop; cameras with tick rates of their own; capture on play. How an
application starts and what its other extensions do is its profile (profiles.py): asynchronous rendering that throttling and
Replicator switch, a timeline that is changed with the next update or at `commit`, steps by the stage's time codes, a second
clock, a new stage after start, an engine that lacks getters.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from pxr import Usd

from fakes.modules import build_modules
from fakes.profiles import DEFAULT, profile
from fakes.stage import Motion, camera_params
from fakes.strict import ours

ASYNC = ("/app/asyncRendering", "/app/asyncRenderingLowLatency")
APPLICATION = DEFAULT
"""The application that FakeKit is unless told otherwise; a test runs for one after another (conftest.py)."""


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
    """Physics steps per update where the application does not step by the stage's time codes."""
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
    time_codes_per_second: float = 0.0
    """Of the stage; 0 = as many as give `substeps` physics steps per update."""
    end_time_s: float = float("inf")
    """Of the timeline."""
    starting: bool = False
    """Whether the application has just been started: a full one opens a new stage after an update."""
    loading_updates: int = 0
    """Updates for which an opened stage is still loading."""
    unsaved: bool = False
    """Whether the open stage has unsaved changes."""
    replicator_owns_async: bool = True
    """Whether Replicator switches asynchronous rendering off while a writer is attached (not to be seen from outside)."""
    held_shows: Callable[[int], int] | None = None
    """Faults: which row `step` renders while the simulation stands still."""
    refuses_detach_in_update: bool = False
    """Faults: a writer cannot be detached inside an update."""
    capture_needs_play: bool = False
    """Faults: capture on play is looked at when Play is pressed, not at every frame."""
    thread_per_frame: bool = False
    """Faults: `write` is called on another thread."""
    silent_steps: tuple[str, ...] = ()
    """Faults: post-step hooks ("manager", "core", "physx") that take a callback and never call it."""


class Nothing:
    """What a new, empty stage moves like."""

    def __init__(self) -> None:
        self.stage = Usd.Stage.CreateInMemory()
        self.robots: tuple[Any, ...] = ()
        self.object_paths: tuple[str, ...] = ()
        self.steps = 1 << 30


class FakeKit:
    """One application with one stage."""

    def __init__(self, version: str, motion: Any, application: str | None = None, **options: Any) -> None:
        """`application`: one of fakes.profiles; None = the one that the test is run for."""
        self.version, self.motion, self.options = version, motion, Options(**options)
        self.profile = profile(version, application or APPLICATION)
        self.settings: dict[str, Any] = {
            "/omni/replicator/captureOnPlay": True,
            "/app/player/playSimulations": True,
            **self.profile.settings,
        }
        self.missing_getters = set(self.profile.behaviour("missing_getters", ()))
        if not self.profile.behaviour("contacts_processed", True):
            self.settings["/physics/disableContactProcessing"] = True
        self.update_number = 0
        self.step = 0
        self.time_s = 0.0
        self.timeline_s = 0.0
        self.looping = True
        self.playing = False
        self.stopped = True
        self.generation = 0
        self.stage_url = ""
        self.loading = 0
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
        self.selected: list[str] = []
        """Prim paths that the user selected on the stage."""
        self.events: list[tuple[str, Any]] = []
        """What a script asked of Replicator's randomisers, in order."""
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.commanded: list[dict[str, Any]] = []
        """Every command of drive targets: robot's prim path -> targets in its specification's order, stage units."""
        self.exit_code: int | None = None
        """What the application closed with."""
        self.vetoed = 0
        """How often an unsaved stage kept the application from quitting."""
        self.watchdogs: list[int] = []
        """Exit codes that a watchdog was told to end this process with; none does while this is a fake."""
        self._arm: Any = None
        self._end: Any = None
        self.in_step = self.in_update = False
        self.sim_time_of: dict[tuple[int, int], float] = {}
        self.wanted: set[int] = set()
        self._next_id = 0
        self._saved: dict[str, Any] = {}
        self._requests: list[Callable[[], None]] = []
        self._steps_due = 0.0
        self._captures = False
        self._async_now = False
        """Whether the renderer runs asynchronously; it follows the settings an update later."""
        self._later: list[tuple[int, Callable[[], None]]] = []
        self._replicator_before: dict[str, Any] = {}
        if self.throttles:
            self._set_async(True)
            self._async_now = True
        self._settings_at_start = dict(self.settings)
        if self.options.starting and (after := self.profile.behaviour("new_stage_after_updates")):
            self.at(after, lambda: self.show(Nothing(), ""))

    # -- the application --------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeKit:
        from retake.isaac import leaving

        self._arm, leaving.arm = leaving.arm, lambda code, *unused: self.watchdogs.append(code)
        self._end, leaving.end_process = leaving.end_process, self._would_end
        self._saved = {n: m for n, m in sys.modules.items() if ours(n)}
        for name in self._saved:
            del sys.modules[name]
        sys.modules.update(build_modules(self))
        return self

    def __exit__(self, *unused: object) -> None:
        from retake.isaac import delivery, leaving, stops, writer

        leaving.arm, leaving.end_process = self._arm, self._end
        for loop in self.loops:
            loop.close()
        if self.loops:
            asyncio.set_event_loop(None)
        stops.STOPS.uninstall()
        writer.writer_class.cache_clear()
        delivery.delivery_class.cache_clear()
        for name in [n for n in sys.modules if ours(n)]:
            del sys.modules[name]
        sys.modules.update(self._saved)

    @staticmethod
    def _would_end(code: int) -> None:
        raise AssertionError(f"the process would have been ended with exit code {code}; its last lines say why")

    def update(self, times: int = 1) -> None:
        """Application updates: the timeline's requests, physics, rendering, delivery, callbacks."""
        for _ in range(times):
            self._update(physics=bool(self.settings["/app/player/playSimulations"]))

    def update_without_physics(self) -> None:
        """An update in which the simulation stands still."""
        self._update(physics=False)

    def _update(self, physics: bool) -> None:
        self.update_number += 1
        self.commit()
        self.in_update = True
        try:
            if self.playing and physics:
                self._advance()
            self.render()
            self._deliver()
            for callback in list(self.update_callbacks):
                callback(SimpleNamespace(payload={}))
        finally:
            self.in_update = False
        self._async_now = bool(self.settings.get("/app/asyncRendering"))
        self.loading = max(0, self.loading - 1)
        due = [call for number, call in self._later if number <= self.update_number]
        self._later = [entry for entry in self._later if entry[0] > self.update_number]
        for call in due:
            call()

    def at(self, updates: int, call: Callable[[], None]) -> None:
        """Do something after so many updates."""
        self._later.append((self.update_number + updates, call))

    def show(self, motion: Any, url: str) -> None:
        """Another stage is open from now on."""
        self.stop()
        self.motion, self.stage_url = motion, url
        self.generation += 1
        self.loading = self.options.loading_updates

    @property
    def ready(self) -> bool:
        """Whether the application says that it has started."""
        return not self.options.starting or self.update_number > 5

    def post_quit(self, return_code: int = 0) -> None:
        """Leave, unless an unsaved stage asks first."""
        asks = any(
            self.settings.get(f"/app/file/{name}") is False for name in ("ignoreUnsavedStage", "ignoreUnsavedOnExit")
        )
        if self.options.unsaved and asks and self.profile.behaviour("unsaved_stage_vetoes_quit"):
            self.vetoed += 1
            return
        self.settings["quit"] = return_code

    def changed_settings(self) -> dict[str, Any]:
        """Settings that are not as the application would have them now; its own switching of asynchronous rendering apart."""
        wanted = dict(self._settings_at_start)
        if self.throttles:
            wanted |= dict.fromkeys(ASYNC, not self.playing)
        changed = {k: v for k, v in self.settings.items() if k.startswith("/") and v != wanted.get(k)}
        if self.playing and self.profile.behaviour("throttling_leaves_async_to_replicator"):
            return {k: v for k, v in changed.items() if k not in ASYNC}  # Replicator's timer and throttling disagree
        return changed

    # -- the timeline -----------------------------------------------------------------------------------------------

    def request(self, change: Callable[[], None]) -> None:
        """A script's play, pause or stop: done with the next update, or at `commit`."""
        if self.profile.behaviour("timeline_is_deferred"):
            self._requests.append(change)
        else:
            change()

    def commit(self) -> None:
        """Do what was requested."""
        requests, self._requests = self._requests, []
        for change in requests:
            change()

    def play(self) -> None:
        """Press Play."""
        if self.playing:
            return
        if self.stopped:
            self.generation += 1
        self.playing, self.stopped = True, False
        self._captures = bool(self.settings["/omni/replicator/captureOnPlay"])
        if self.throttles:
            off = lambda: self._set_async(False) if self.playing and self.throttles else None  # noqa: E731
            if self.profile.behaviour("throttling") == "at once":
                off()
            else:
                self.at(1, off)
        self._timeline(0)

    def pause(self) -> None:
        """Press Pause."""
        if self.playing:
            self.playing = False
            self._async_back()
            self._timeline(1)

    def stop(self) -> None:
        """Press Stop: time starts again, views die; frames in the renderer stay there."""
        if self.stopped:
            return
        self.playing, self.stopped = False, True
        self.step, self.time_s, self.timeline_s = 0, 0.0, 0.0
        self._steps_due = 0.0
        self.generation += 1
        self._async_back()
        self._timeline(2)

    @property
    def time_codes_per_second(self) -> float:
        """Of the stage."""
        own = 1 / (self.options.physics_dt_s * self.options.substeps)
        return self.options.time_codes_per_second or own

    @property
    def row(self) -> int:
        """Row of the motion that the current state is."""
        return self.step % self.motion.steps

    def _advance(self) -> None:
        """One update of a running timeline."""
        if self.settings.get("/app/player/useFixedTimeStepping"):
            self._steps_due += 1 / (self.time_codes_per_second * self.options.physics_dt_s) + 1e-9
            steps = int(self._steps_due)
            self._steps_due -= steps
            self.timeline_s += 1 / self.time_codes_per_second
        else:
            steps = self.options.substeps
            self.timeline_s += steps * self.options.physics_dt_s
        if self.timeline_s > self.options.end_time_s + 1e-9:
            if not self.looping:
                self.timeline_s = self.options.end_time_s
                self.pause()
                return
            self.timeline_s, self.step, self.time_s = 0.0, 0, 0.0
        for _ in range(steps):
            self.physics_step()

    def physics_step(self) -> None:
        """One physics step and what listens to it."""
        self.step += 1
        # 6.x derives time from the step count; 5.x adds float steps.
        if self.version == "6.x":
            self.time_s = self.step * self.options.physics_dt_s
        else:
            self.time_s += float(np.float32(self.options.physics_dt_s))
        self.in_step = True
        try:
            for _, callback in sorted(self.post_step.values(), key=lambda item: item[0]):
                arguments = (float(np.float32(self.options.physics_dt_s)),)
                callback(*arguments, *((SimpleNamespace(),) if self.version == "6.x" else ()))
        finally:
            self.in_step = False

    # -- asynchronous rendering -------------------------------------------------------------------------------------

    @property
    def throttles(self) -> bool:
        """Whether isaacsim.core.throttling switches asynchronous rendering with the timeline."""
        wanted = self.settings.get("/exts/isaacsim.core.throttling/enable_async")
        return bool(wanted) and self.profile.behaviour("throttling") is not None

    def _set_async(self, on: bool) -> None:
        self.settings["/app/asyncRendering"] = self.settings["/app/asyncRenderingLowLatency"] = on

    def _async_back(self) -> None:
        """Throttling switches it on again some updates after Pause or Stop, unless Replicator owns it (6.0.1)."""

        def back() -> None:
            owned = self.profile.behaviour("throttling_leaves_async_to_replicator") and self.writers
            if self.throttles and not self.playing and not owned:
                self._set_async(True)

        if self.throttles:
            self.at(self.profile.behaviour("throttling_back_after_updates", 10), back)

    def replicator_owns(self, owns: bool) -> None:
        """Replicator switches it off while a writer is attached, and puts it back on a timer (v6.0.1 throttling says so)."""
        if (
            not self.options.replicator_owns_async
            or self.profile.behaviour("throttling_leaves_async_to_replicator") is None
        ):
            return
        if owns and not self._replicator_before:
            self._replicator_before = {path: self.settings.get(path) for path in ASYNC}
            self._set_async(False)
        elif not owns and self._replicator_before:
            before, self._replicator_before = self._replicator_before, {}
            self.at(5, lambda: None if self._replicator_before else self.settings.update(before))

    # -- the renderer -----------------------------------------------------------------------------------------------

    def frame_time(self) -> tuple[int, int]:
        """Rational time of the frame of this update as the simulation manager says it, not reduced."""
        if self.version == "6.x":
            return (int(self.time_s * 1e6 + 1e-4) * 2, 2_000_000)
        return (self.update_number * 500, 30_000)

    def reference(self) -> tuple[int, int]:
        """The same time on the renderer's own clock: on 6.x up to a microsecond beside (test_frame_delay.py allows that)."""
        numerator, denominator = self.frame_time()
        off = self.profile.behaviour("renderer_clock_off_us", 0)
        beside = (self.update_number * 7 % 3 - 1) * off if numerator else 0
        return (numerator + 2 * beside, denominator)

    def render(self, row: int | None = None) -> None:
        """Send a frame of the current state (`row`: of another one, a fault) into the pipeline."""
        reference = self.reference()
        self.sim_time_of[reference] = self.time_s
        stage = self.motion.stage
        cameras = [str(p.camera) for p in self.products if stage.GetPrimAtPath(str(p.camera))]
        frame = self.step // self.options.substeps
        rendered = tuple(c for c in cameras if frame % self.options.ticks.get(c, 1) == 0)
        lag = self.options.lag(self.update_number) if callable(self.options.lag) else self.options.lag
        due = max(self.update_number + lag, self.pipeline[-1].due if self.pipeline else 0)
        # Rendering beside the simulation shows whatever is there when it comes to it.
        now = (self.row + 1) % self.motion.steps if self._async_now and self.playing else self.row
        shown = now if row is None else row
        self.pipeline.append(Frame(due, reference, shown, self.update_number, rendered))

    def _deliver(self) -> None:
        while self.pipeline and self.pipeline[0].due <= self.update_number:
            frame = self.pipeline.popleft()
            on_play = (
                self._captures if self.options.capture_needs_play else self.settings["/omni/replicator/captureOnPlay"]
            )
            live = bool(on_play) and not self.stopped
            asked = frame.update in self.wanted
            if not frame.cameras or not (live or asked):
                continue
            for writer, products in list(self.writers):
                data: dict[str, Any] | None = self.payload(frame, products)
                fast = "instance_id_segmentation_fast"
                if fast in writer.annotators:  # an annotator's data comes under its own name
                    for entries in data["renderProducts"].values() if data is not None else ():
                        entries[fast] = entries.pop("instance_id_segmentation")
                if self.options.payload_filter is not None and data is not None:
                    data = self.options.payload_filter(data, frame)
                if data is not None:
                    self._write(writer, data)

    def _write(self, writer: Any, data: dict[str, Any]) -> None:
        if self.options.thread_per_frame:
            thread = threading.Thread(target=writer.write, args=(data,))
            thread.start()
            thread.join()
        else:
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
