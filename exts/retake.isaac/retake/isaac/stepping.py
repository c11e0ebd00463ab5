# SPDX-License-Identifier: Apache-2.0
"""`record`: episodes of a loop that a script steps itself, without a timeline or an autorun of ours.

    from retake.isaac import record                     # after SimulationApp(...) exists

    with record(world, output="runs/mine", robots=[arm], cameras=[camera], task="pick up the packet") as recording:
        for _ in range(episodes):
            world.reset()                               # ends an episode, begins the next
            for _ in range(300):
                arm.apply_action(...)
                world.step(render=True)
    print(recording.episodes)

`world` is a World or SimulationContext of omni.isaac.core (4.2) or isaacsim.core.api (4.5 to 6.x), or None where a script steps
with SimulationManager, `simulation_app.update()` or the timeline: a Stop then ends an episode, and `recording.reset()` does.
Each episode is a run folder, `output/000` and so on: `retake run --run output/000` goes on from there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from retake.core.capture import PairingError
from retake.core.config import RunConfig
from retake.core.episode import Episode
from retake.core.errors import InputError
from retake.core.files import user_path
from retake.core.run_layout import RunLayout
from retake.core.run_store import create_run
from retake.isaac import kit, timeline
from retake.isaac.live_capture import LiveCapture
from retake.isaac.options import request_from_settings
from retake.isaac.request import Phase
from retake.isaac.stops import SETTLE_UPDATES

PHYSICS = "/app/player/playSimulations"
"""Off: an update renders and physics stands still (World.render does the same)."""


def record(
    world: Any = None, *, output: str | Path, robots: Any = (), cameras: Any = (), objects: Any = (), **settings: Any
) -> Recording:
    """Record what a script simulates between `with` and its end.

    `robots`, `cameras`, `objects`: prim paths, prims, or the objects of Isaac Sim's core and sensor packages; empty as in the
    settings (every robot, the first camera, every movable body). `settings`: those of /exts/retake.isaac by name (`task`, `fps`,
    `frames`, `width`, `mode`, …). Raises InputError for a thing that has no prim path, or an unknown setting.
    """
    options = {"robots": _paths(robots), "cameras": _cameras(cameras), "objects": _paths(objects), **settings}
    return Recording(
        world,
        user_path(output).absolute(),
        {name: value for name, value in options.items() if value not in ((), None)},
    )


class Recording:
    """Episodes of a script's own loop. Use it with `with`; what stopped a recording is raised by the script's next step."""

    def __init__(self, world: Any, output: Path, settings: dict[str, Any]) -> None:
        self._world, self._output, self._settings = world, output, dict(settings)
        self._capture: LiveCapture | None = None
        self._wrapped: dict[str, tuple[Callable[..., Any], Any]] = {}
        """Method of the World -> (our wrapper, what the object itself had there before; None = the class's)."""
        self._number, self._new = 0, False
        """Of the episode's folder; whether this recording made it. A failed episode keeps its folder and its number."""
        self._target = 1
        self._stopped = False
        """Whether the last episode ended with a Stop: the next begins with Play."""
        self.episodes: list[Episode] = []
        """Finished episodes, oldest first."""

    def __enter__(self) -> Recording:
        request_from_settings(
            output=str(self._output), **self._settings
        )  # wrong settings are told before anything starts
        self._wrap("reset", self._reset_world)
        self._wrap("step", self._step_world)
        try:
            self._begin()
        except BaseException:
            self._unwrap()
            if self._capture is not None:
                self._capture.close("the recording could not begin")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._unwrap()
        try:
            self._end("the script's recording ended")
        except BaseException:
            if error is None:  # the script's own error counts for more
                raise

    @property
    def capture(self) -> LiveCapture | None:
        """The recording of the current episode."""
        return self._capture

    def reset(self) -> None:
        """End the episode and begin the next with the following step. A World's own `reset` does this by itself."""
        self._end("reset")
        self._begin()

    def frame(self) -> None:
        """After a step of a script without a World: raise what stopped the recording, render a frame where one is due
        (stepped mode), begin anew after a Stop."""
        playing = timeline.interface().is_playing()
        if self._stopped and playing:
            self._end("stopped")  # the script stopped, and plays again
            self._begin()
        capture = self._capture
        if capture is None:
            return
        phase = capture.status.phase
        if phase is Phase.FAILED:
            self._end("failed")  # raises what stopped it
            raise capture.failure
        if phase not in (Phase.WAITING, Phase.RECORDING):
            self._stopped = not playing  # else as many frames as asked for: the next reset begins anew
            return
        if capture.stepped and capture.status.phase is Phase.RECORDING:
            self._held_frame(capture)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        folder = self._folder
        self._new = not folder.exists()
        try:
            self._capture = self._started(folder)
        except BaseException:
            self._forget_folder()  # what is refused leaves no trace
            raise
        self._target, self._stopped = 1, False
        self._settle(self._capture)

    @property
    def _folder(self) -> Path:
        return self._output / f"{self._number:03d}"

    def _forget_folder(self) -> None:
        """Remove a run folder in which nothing was recorded, where this recording made it."""
        if not self._new:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # there are other episodes, or files of the user
            self._output.rmdir()

    def _started(self, folder: Path) -> LiveCapture:
        create_run(folder, RunConfig().to_json())
        options = dict(self._settings)
        if self._world is not None and self._world.get_rendering_dt() == 0:
            options.setdefault("mode", "stepped")  # renders come after physics, in updates of their own
        capture = LiveCapture(
            request_from_settings(output=str(RunLayout(folder).captured_episode), **options).checked()
        )
        capture.start()
        return capture

    def _settle(self, capture: LiveCapture) -> None:
        """Frames of before leave the renderer, and no step of this episode is lost."""
        for _ in range(SETTLE_UPDATES + 1):
            if capture.ready:
                return
            self._render_only()

    def _end(self, reason: str) -> None:
        capture, self._capture = self._capture, None
        if capture is None:
            return
        for _ in range(SETTLE_UPDATES):
            if capture.status.phase is not Phase.RECORDING or (capture.counts.frames and not capture.in_flight):
                break
            self._render_only()  # the last frames, and the first of a short episode, are still on their way
        begun = capture.header is not None
        capture.close(reason)
        if begun:
            self._number += 1
        else:
            self._forget_folder()
        if begun and capture.status.phase is Phase.FAILED:
            raise capture.failure  # its frames so far are in its folder
        if begun:
            self.episodes.append(capture.episode)

    def _held_frame(self, capture: LiveCapture) -> None:
        if capture.steps < self._target:
            return
        if self._target > 1 and capture.steps > self._target:
            raise PairingError(
                f"{capture.steps - self._target + capture.stride} physics steps between two calls, frames are due every "
                f"{capture.stride}: step the world once per call, or choose a lower frame rate"
            )
        before = capture.counts.frames
        orchestrator = kit.require("omni.replicator.core").orchestrator
        capture.hold(True)
        try:
            orchestrator.step(
                rt_subframes=capture.request.rt_subframes, pause_timeline=False, delta_time=0.0, wait_for_render=True
            )
        finally:
            capture.hold(False)
        if capture.counts.frames == before and capture.status.phase is Phase.RECORDING:
            raise PairingError(f"the renderer delivered no frame of the held state t={capture.time_s:.6f} s")
        self._target = capture.steps + capture.stride

    def _render_only(self) -> None:
        settings = kit.require("carb.settings").get_settings()
        before = settings.get(PHYSICS)
        settings.set(PHYSICS, False)
        try:
            kit.require("omni.kit.app").get_app().update()
        finally:
            settings.set(PHYSICS, before)

    def _reset_world(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = self._capture is None or self._capture.header is not None or not self._capture.status.active
        if begun:
            self._end("reset")
        answer = plain(*args, **kwargs)
        if begun:
            self._begin()
        elif self._capture is not None:
            self._settle(self._capture)  # the reset stopped and played: its first steps are this episode's
        return answer

    def _step_world(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        answer = plain(*args, **kwargs)
        self.frame()
        return answer

    def _wrap(self, name: str, around: Callable[..., Any]) -> None:
        plain = getattr(self._world, name, None)
        if plain is None:
            return

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return around(plain, *args, **kwargs) if name in self._wrapped else plain(*args, **kwargs)

        self._wrapped[name] = (wrapper, vars(self._world).get(name))
        setattr(self._world, name, wrapper)

    def _unwrap(self) -> None:
        for name, (wrapper, before) in self._wrapped.items():
            if vars(self._world).get(name) is not wrapper:
                continue  # somebody wrapped ours and ends later: ours only passes on from now on
            if before is None:
                delattr(self._world, name)  # the class's own method is behind it
            else:
                setattr(self._world, name, before)
        self._wrapped.clear()


def _many(things: Any) -> list[Any]:
    if things is None:
        return []
    if isinstance(things, str) or not isinstance(things, Iterable):
        return [things]
    return list(things)


def _paths(things: Any) -> tuple[str, ...]:
    return tuple(path for thing in _many(things) for path in prim_paths(thing))


def _cameras(things: Any) -> tuple[str, ...]:
    """Cameras as the setting has them: PRIM_PATH[@WIDTHxHEIGHT]; a camera object's own resolution counts."""
    out = []
    for thing in _many(things):
        ask = getattr(thing, "get_resolution", None)
        size = ask() if ask is not None else None
        known = "" if size is None else f"@{int(size[0])}x{int(size[1])}"
        out += [path + known for path in prim_paths(thing)]
    return tuple(out)


def prim_paths(thing: Any) -> list[str]:
    """Prim paths of a path, a prim, or an object of Isaac Sim: `prim_path` and `prim_paths` up to 5.1, `paths` in the
    experimental packages. Raises InputError for anything else."""
    if isinstance(thing, str):
        return [thing]
    if hasattr(thing, "GetPath"):
        return [str(thing.GetPath())]
    for name in ("prim_path", "prim_paths", "paths"):
        found = getattr(thing, name, None)
        if isinstance(found, str):
            return [found]
        if found is not None and not callable(found):
            return [str(path) for path in found]
    raise InputError(
        f"{type(thing).__name__} has no prim path; expected a prim path, a prim, or an object with prim_path, prim_paths or paths"
    )
