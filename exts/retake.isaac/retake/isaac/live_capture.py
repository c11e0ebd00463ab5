# SPDX-License-Identifier: Apache-2.0
"""One recording in a running Isaac Sim: hooks → states and frames → exact pairs → an Episode, off the main thread.

Threads: physics hooks, Replicator's `write` and `update` run on Kit's main thread; only the recorder's own thread
decodes and writes. Subscriptions and render products are dropped from an update, never inside a physics callback.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core.capture import FramePairer, PairedFrame, PairingCounts, PairingError, Recorder, StateSample, stride_of
from retake.core.episode import CameraSpec, Episode, Frame
from retake.core.errors import RetakeError, StageError
from retake.core.joint_motion import match_joints
from retake.isaac import kit, payload, timeline
from retake.isaac.camera_text import parse_channels
from retake.isaac.clock import Clock, Held, StepKeys, choose_clock
from retake.isaac.conditions import Conditions
from retake.isaac.costs import CallbackCosts
from retake.isaac.delivery import delivering
from retake.isaac.hooks import Hooks
from retake.isaac.products import camera_choices
from retake.isaac.request import CaptureRequest, CaptureStatus, Phase, check_writable
from retake.isaac.stage_reader import IsaacStageReader, StageContent, StageIdentity, make_reader, read_content
from retake.isaac.stops import SETTLE_UPDATES, STOPS

RUNNING: weakref.WeakSet[LiveCapture] = weakref.WeakSet()
"""Every recording that was started, whoever did: the extension completes them when it is disabled."""

IN_PYTHON = "<Python>"
"""What errors call the source of joints that no file names."""


class LiveCapture:
    """A recording. `start`, `stop` and every callback belong to Kit's main thread; `status` to any thread."""

    def __init__(
        self,
        request: CaptureRequest,
        *,
        on_frame: Callable[[int, Frame], None] | None = None,
        clock: Clock | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`settings` goes into the episode's header (scenario parameters, licence of the assets, …)."""
        self.request = request.checked()
        self.content: StageContent | None = None
        self.costs = CallbackCosts()
        self.steps = 0
        """Physics steps recorded so far."""
        self.stride = 0
        """Physics steps per frame; 0 until the first step has told the physics rate."""
        self._on_frame, self._clock, self._header_settings = on_frame, clock, dict(settings or {})
        self._phase, self._message = Phase.IDLE, ""
        self._lock = threading.RLock()
        self._hooks: Hooks | None = None
        self._identity: StageIdentity | None = None
        self._version = ""
        self._pairer: FramePairer | None = None
        self._recorder: Recorder | None = None
        self._reader: IsaacStageReader | None = None
        self._ending = ""
        self._settle = 0
        self._held = False
        self._time_s, self._dt_s = 0.0, 0.0
        self._conditions: Conditions | None = None
        self._keys = StepKeys()
        self._commanded: tuple[tuple[str, ...], list[tuple[int, int]]] = ((), [])
        """Names of the joints commanded last, and where they are: a trajectory's stay the same."""
        self.stale = 0
        """Frames that were begun before the held state existed (stepped mode)."""
        self._finisher: threading.Thread | None = None
        self._episode: Episode | None = None
        self._error: BaseException | None = None
        self._views: dict[str, tuple[str, CameraSpec]] = {}
        """Last element of a render product's path -> camera name and specification."""

    # -- beginning and end ------------------------------------------------------------------------------------------

    def start(self, products: Sequence[Any] | None = None, attach: Callable[[], None] | None = None) -> None:
        """Read the stage, hook into the simulation and wait for steps. Raises RetakeError, and then nothing is hooked.

        `products`: render products of a Replicator script; None makes one per chosen camera. `attach`: attaches the script's
        writer to them, when it is its turn.
        """
        if self._hooks is not None:
            raise StageError("this recording was started before; a new one needs a LiveCapture of its own")
        stage = kit.require("omni.usd").get_context().get_stage()
        if stage is None:
            raise StageError("no stage is open; open one with a robot and a camera first")
        check_writable(Path(self.request.output))
        channels = parse_channels(self.request.channels)
        choices = self.request.camera_choices() if products is None else camera_choices(stage, products, channels)
        objects = self.request.objects or None
        self.content = read_content(
            stage, robots=self.request.robots, cameras=choices, objects=objects, robot_file=self.request.robot_file
        )
        self._identity = StageIdentity.of(stage, self.content)
        self._version = kit.versions()["isaac_sim"] or kit.versions()["app"]
        self._clock = self._clock or choose_clock(self.request.mode)
        STOPS.install()
        self._hooks = hooks = Hooks(stage, self.content)
        self._conditions = Conditions(hooks)
        try:
            hooks.prepare_settings(self.request, live=not self.stepped)
            self._header_settings = {**hooks.prepare_pictures(), **self._header_settings}
            hooks.open_contacts(self.request.contacts)
            if products is None:
                hooks.products.create(self.content.cameras)
                recorded = {channel for camera in self.content.cameras for channel in camera.channels}
                hooks.attach(delivering(self, recorded))
            else:
                hooks.products.adopt(products, self.content.cameras)
                if attach is not None:
                    attach()
            hooks.rendering.hold()
            specs = {camera.name: camera for camera in self.content.cameras}
            self._views = {key: (name, specs[name]) for key, name in hooks.products.camera_of.items()}
            hooks.subscribe(self._on_step, self._on_pause, self._on_stop, self._on_update)
        except BaseException:
            hooks.close()
            self._hooks = None
            raise
        self._phase, self._message = Phase.WAITING, "press Play"
        RUNNING.add(self)

    def limit(self, frames: int) -> None:
        """End by itself after so many frames (0 = never)."""
        self.request = replace(self.request, frames=frames)

    def stop(self, reason: str = "stopped") -> None:
        """End the recording: frames in flight are awaited for a few updates, then the episode is completed."""
        with self._lock:
            if self._phase in (Phase.WAITING, Phase.RECORDING) and not self._ending:
                self._ending, self._settle = reason, SETTLE_UPDATES
                self._phase = Phase.FINISHING
                if self._pairer is not None:
                    self._pairer.pause()  # frames of later states are not ours

    def fail(self, error: Exception) -> None:
        """End the recording because of an error of whoever drives it; the frames so far are kept."""
        with self._lock:
            if self._phase in (Phase.WAITING, Phase.RECORDING):
                self._fail(error)

    def close(self, reason: str = "closed", timeout_s: float = 120.0) -> Episode | None:
        """End at once and wait for the writer: on shutdown, at the end of a script. None where nothing was recorded."""
        self.stop(reason)
        self._finish()
        if self._finisher is not None:
            self._finisher.join(timeout_s)
        return self._episode

    @property
    def episode(self) -> Episode:
        """The finished episode. Raises what stopped the recording, or StageError while it is not finished."""
        if self._episode is not None:
            return self._episode
        if self._error is not None:
            raise self._error
        raise StageError(f"{self.request.output}: the recording is {self._phase.value}")

    @property
    def status(self) -> CaptureStatus:
        """Where it stands."""
        recorder = self._recorder.status if self._recorder is not None else None
        counts = self._pairer.counts if self._pairer is not None else PairingCounts()
        return CaptureStatus(
            phase=self._phase,
            message=self._message or self._ending,
            output=self.request.output,
            frames=recorder.submitted if recorder else 0,
            written=recorder.written if recorder else 0,
            queued=recorder.queued if recorder else 0,
            bytes_written=recorder.bytes_written if recorder else 0,
            waited_s=recorder.waited_s if recorder else 0.0,
            lag_steps=counts.lag_steps,
            callback_ms=self.costs.percentiles(),
            notes=tuple(self.notes),
        )

    @property
    def notes(self) -> list[str]:
        """What was odd but harmless."""
        if self._hooks is None or self.content is None:
            return []
        return [*self.content.notes, *self._hooks.all_notes]

    @property
    def stepped(self) -> bool:
        """Whether the timeline has to be driven frame by frame (`drive_stepped`)."""
        return isinstance(self._clock, Held)

    @property
    def ready(self) -> bool:
        """Whether a physics step would be recorded: frames of before are out of the way."""
        return self._hooks is not None and self._hooks.rendering.ready and STOPS.quiet

    @property
    def waits_for(self) -> str:
        """What it waits for, in words: time-outs name it."""
        if self._phase is Phase.WAITING:
            playing = self._hooks is not None and timeline.interface().is_playing()
            return "the first physics step" if playing else "Play"
        if self._phase is Phase.RECORDING:
            return "the next frame" if self.counts.frames else "the first frame"
        return "the episode's files" if self._phase is Phase.FINISHING else "nothing"

    @property
    def steps_per_update(self) -> set[int]:
        """Numbers of physics steps that the application's updates made."""
        return set() if self._conditions is None else set(self._conditions.steps_per_update)

    @property
    def hint(self) -> str:
        """What helps when frames miss the grid; empty where updates and frames fit."""
        return "" if self._conditions is None else self._conditions.hint(self.request.fps)

    @property
    def time_s(self) -> float:
        """Simulated time of the newest state, s: since Play where the simulator tells it."""
        return self._time_s

    @property
    def elapsed_s(self) -> float:
        """Simulated time of the recording so far, s; a simulation may have run long before it."""
        return self.steps * self._dt_s

    @property
    def failure(self) -> BaseException:
        """What ended a failed recording."""
        return self._error or StageError(self._message or "the recording did not fail")

    @property
    def header(self) -> Any:
        """The episode's header once the first step told the physics rate; None before."""
        return None if self._reader is None else self._reader.header

    def find_joints(self, joints: Sequence[str], file: Path | str = IN_PYTHON) -> list[tuple[int, int]]:
        """(robot, degree of freedom) of joints of the recorded robots, by any name that a motion file may use.

        `file` is what errors call their source. Raises InputError as `match_joints`, StageError before `start`.
        """
        if self.content is None:
            raise StageError("joints are found among the recorded robots; start the recording first")
        return match_joints(joints, [robot.named_joints for robot in self.content.robots], file)

    def command(self, joints: Sequence[str], targets: Any, file: Path | str = IN_PYTHON) -> None:
        """Set position targets (rad, m) of joints of any recorded robots (`find_joints`), for the next physics steps."""
        if self._hooks is not None and self._hooks.tensors.is_open and self.content is not None:
            if self._commanded[0] != tuple(joints):
                self._commanded = (tuple(joints), self.find_joints(joints, file))
            self._hooks.tensors.command(self._commanded[1], targets, self.content.units.metres_per_unit)

    @property
    def counts(self) -> PairingCounts:
        """What the pairing saw so far."""
        return self._pairer.counts if self._pairer is not None else PairingCounts()

    @property
    def in_flight(self) -> int:
        """Frames that were simulated and have not been delivered yet."""
        return self._pairer.waiting if self._pairer is not None else 0

    # -- what the simulator calls -----------------------------------------------------------------------------------

    def _on_step(self, dt_s: float) -> None:
        """After a physics step: copy the state, file it under its key."""
        if self._phase not in (Phase.WAITING, Phase.RECORDING) or self._hooks is None or self._conditions is None:
            return
        self._conditions.step()
        if not STOPS.quiet:
            return
        if self._phase is Phase.WAITING and not self._hooks.rendering.ready:
            return  # frames begun beside the simulation may still be on their way
        started, waited = time.perf_counter_ns(), self._waited_ns()
        try:
            assert self._clock is not None
            if self._pairer is None:
                self._begin(dt_s)
            contacts = self._hooks.contacts
            raw = self._hooks.tensors.read(() if contacts is None else contacts.read())
            clock_time_s = self._clock.now()
            self.steps += 1
            self._time_s = self.steps * self._dt_s if clock_time_s is None else clock_time_s
            key = self._keys.key(self._clock.state_key(self._time_s, self.steps), self._conditions.updates)
            with self._lock:
                assert self._pairer is not None
                self._submit(self._pairer.file(StateSample(key, self._time_s, self.steps, raw)))
        except Exception as error:
            self._fail(error)
        finally:
            self.costs.steps.append(time.perf_counter_ns() - started - (self._waited_ns() - waited))

    def deliver(self, data: Mapping[str, Any]) -> None:
        """One Replicator payload: join every camera's view with the state of its time. Called by RetakeWriter."""
        if self._pairer is None or self._phase not in (Phase.RECORDING, Phase.FINISHING) or self._error is not None:
            return
        if isinstance(self._clock, Held) and not self._held:
            return  # stepped mode: the simulation is moving, so this frame's state is not the held one
        started, waited = time.perf_counter_ns(), self._waited_ns()
        try:
            assert self._clock is not None
            reference = payload.reference_time(data)
            if isinstance(self._clock, Held) and self._clock.is_stale(*reference):
                self.stale += 1
                return
            if self._conditions is not None:
                self._conditions.frame()
            key = self._clock.frame_key(*reference)
            views = {}
            for product, entries in payload.render_products(data).items():
                if product in self._views:
                    camera, spec = self._views[product]
                    views[camera] = payload.raw_view(entries, spec.channels, product)
            with self._lock:
                self._submit(self._pairer.offer(key, views))
        except Exception as error:
            self._fail(error)
        finally:
            self.costs.frames.append(time.perf_counter_ns() - started - (self._waited_ns() - waited))

    def hold(self, held: bool) -> None:
        """Stepped mode: whether the simulation stands still for a frame of the current state."""
        self._held = held

    def _on_pause(self) -> None:
        with self._lock:
            if self._pairer is not None:
                self._pairer.pause()

    def _on_stop(self) -> None:
        if self._phase is Phase.RECORDING:
            self.stop("the simulation was stopped; the episode ends here")

    def _on_update(self) -> None:
        """Once per update: look whether all is as it must be, end what is ending, outside of any physics callback."""
        if self._phase in (Phase.WAITING, Phase.RECORDING) and self._conditions is not None:
            try:
                recording = self._phase is Phase.RECORDING
                if reason := self._conditions.look(recording=recording, stepped=self.stepped, ready=self.ready):
                    self.stop(reason)
            except RetakeError as error:
                self._fail(error)
        if self._phase is not Phase.FINISHING or self._finisher is not None:
            return
        self._settle -= 1
        if self._settle <= 0 or self._error is not None or (self._pairer is not None and not self._pairer.waiting):
            self._finish()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self, dt_s: float) -> None:
        """The first step tells the physics rate: now the header is complete."""
        assert self.content is not None
        assert self._hooks is not None
        assert self._identity is not None
        rate = round(1.0 / dt_s)
        dt_s = 1.0 / rate if rate > 0 and abs(rate * dt_s - 1.0) < 1e-4 else dt_s
        self._dt_s, self.stride = dt_s, stride_of(self.request.fps, dt_s)
        self._hooks.tensors.open()
        self._hooks.notes += self._hooks.tensors.notes
        if self._conditions is not None:
            self._conditions.begin()
        self._reader = make_reader(
            self._identity,
            self.content,
            task=self.request.task,
            fps=self.request.fps,
            physics_dt_s=dt_s,
            efforts=self._hooks.tensors.has_efforts,
            seed=self.request.seed,
            simulator_version=self._version,
            settings=self._header_settings,
            undistort=self.request.undistort,
        )
        self._recorder = Recorder(
            Path(self.request.output),
            self._reader,
            queue_frames=self.request.queue_frames,
            when_full=self.request.when_full,
            on_frame=self._on_frame,
        )
        self._pairer = FramePairer([c.name for c in self.content.cameras], self.request.fps, dt_s)
        self._phase, self._message = Phase.RECORDING, ""

    def _waited_ns(self) -> int:
        """Time spent waiting for a full queue: the slowing-down that was asked for, not a cost of capturing."""
        return 0 if self._recorder is None else int(self._recorder.waited_s * 1e9)

    def _submit(self, frames: list[PairedFrame]) -> None:
        assert self._recorder is not None
        for frame in frames:
            if self.request.frames and frame.index >= self.request.frames:
                return
            self._recorder.submit(frame)
            if self.request.frames and frame.index + 1 == self.request.frames:
                self.stop(f"{self.request.frames} frames recorded")

    def _fail(self, error: Exception) -> None:
        """Remember the first error; the next update ends the recording with the frames so far."""
        if self._error is None:
            if isinstance(error, PairingError) and self._conditions is not None:
                error = PairingError(f"{error}{self._conditions.hint(self.request.fps)}")
            self._error = error if isinstance(error, RetakeError) else StageError(f"{type(error).__name__}: {error}")
            self._ending = self._ending or str(self._error)
            self._phase = Phase.FINISHING

    def _finish(self) -> None:
        """Unhook on the main thread, complete the episode on another one."""
        if self._finisher is not None:
            return
        if self._hooks is not None:
            self._hooks.close()
        reason = self._ending or "finished"
        frames: list[PairedFrame] = []
        trailing = 0
        if self._pairer is not None:
            with self._lock:
                trailing, frames = self._pairer.waiting, self._pairer.finish()
        self._finisher = threading.Thread(target=self._complete, args=(frames, reason, trailing), name="retake-finish")
        self._finisher.start()

    def _complete(self, frames: list[PairedFrame], reason: str, trailing: int) -> None:
        try:
            if self._recorder is None:
                raise self._error or StageError(f"{self.request.output}: nothing was recorded ({reason})")
            limit = self.request.frames or (1 << 62)
            for frame in frames:
                if frame.index < limit and not self._recorder.status.error:
                    self._recorder.submit(frame)
            self._episode = self._recorder.finish(
                reason=reason,
                counts=self.counts,
                frames_in_flight_at_end=trailing,
                callback_ms=self.costs.now(),
                clock=self._clock.name if self._clock is not None else "",
                notes=self.notes,
            )
            failed = self._error is not None
        except Exception as error:
            self._error, failed = error, True
        if failed:
            kept = f" {len(self._episode)} complete frames are kept." if self._episode is not None else ""
            self._phase, self._message = Phase.FAILED, f"{self._error}{kept}"
        else:
            self._phase, self._message = Phase.DONE, reason
