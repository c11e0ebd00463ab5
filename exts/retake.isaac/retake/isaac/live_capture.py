# SPDX-License-Identifier: Apache-2.0
"""One recording in a running Isaac Sim: hooks → states and frames → exact pairs → an Episode, off the main thread.

Threads: physics hooks, Replicator's `write` and `update` run on Kit's main thread; only the recorder's own thread
decodes and writes. Subscriptions and render products are dropped from an update, never inside a physics callback.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake.core.capture import FramePairer, PairedFrame, PairingCounts, Recorder, StateSample, stride_of
from retake.core.episode import Episode, Frame
from retake.core.errors import InputError, RetakeError, StageError
from retake.isaac import kit, payload, ticks
from retake.isaac.clock import Clock, Held, find_clock
from retake.isaac.contacts import ContactReports
from retake.isaac.products import Products, camera_choices
from retake.isaac.request import CaptureRequest, CaptureStatus, Phase, percentiles
from retake.isaac.settings_guard import SettingsGuard
from retake.isaac.stage_reader import IsaacStageReader, StageContent, make_reader, read_content
from retake.isaac.tensors import RawState, TensorReader

SETTLE_UPDATES = 8
"""Updates granted to frames still in the renderer when a recording ends, and before the next one may begin after a
Stop. Isaac Sim keeps three frames in flight (fabricDefaultStageFrameHistoryCount = 3)."""
ASYNC = ("/app/asyncRendering", "/app/asyncRenderingLowLatency", "/omni/replicator/asyncRendering")
CAPTURE_ON_PLAY = "/omni/replicator/captureOnPlay"
THROTTLING = "/exts/isaacsim.core.throttling/enable_async"


class StopWatch:
    """Counts updates since the last Stop, also between recordings: frames of an earlier run must have left the renderer
    before a new one begins, since simulation time starts again."""

    def __init__(self) -> None:
        self.updates = SETTLE_UPDATES
        self._subscriptions: list[ticks.Subscription] = []

    def install(self) -> None:
        """Begin counting (once; the extension does it on start-up)."""
        if not self._subscriptions:
            self._subscriptions = [
                *ticks.on_timeline(lambda: None, lambda: None, self._on_stop),
                ticks.on_update(self._on_update),
            ]

    def uninstall(self) -> None:
        """Stop counting."""
        for subscription in self._subscriptions:
            subscription.release()
        self._subscriptions, self.updates = [], SETTLE_UPDATES

    @property
    def quiet(self) -> bool:
        """Whether no frame of an earlier run can be in flight."""
        return self.updates >= SETTLE_UPDATES

    def _on_stop(self) -> None:
        self.updates = 0

    def _on_update(self) -> None:
        self.updates += 1


STOPS = StopWatch()


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
        self.products = Products()
        self.steps = 0
        """Physics steps recorded so far."""
        self.stride = 0
        """Physics steps per frame; 0 until the first step has told the physics rate."""
        self._on_frame, self._clock, self._header_settings = on_frame, clock, dict(settings or {})
        self._phase, self._message = Phase.IDLE, ""
        self._lock = threading.RLock()
        self._guard: SettingsGuard | None = None
        self._subscriptions: list[ticks.Subscription] = []
        self._tensors: TensorReader | None = None
        self._contacts: ContactReports | None = None
        self._pairer: FramePairer | None = None
        self._recorder: Recorder | None = None
        self._reader: IsaacStageReader | None = None
        self._costs: list[int] = []
        self._ending = ""
        self._settle = 0
        self._held = False
        self._time_s = 0.0
        self._finisher: threading.Thread | None = None
        self._episode: Episode | None = None
        self._error: BaseException | None = None
        self._on_play_before: Any = None
        self._writer: Any = None
        self.notes: list[str] = []

    # -- beginning and end ------------------------------------------------------------------------------------------

    def start(self, products: Sequence[Any] | None = None) -> None:
        """Read the stage, hook into the simulation and wait for steps. Raises RetakeError, and then nothing is hooked.

        `products`: render products of a Replicator script; None makes one per chosen camera.
        """
        stage = kit.require("omni.usd").get_context().get_stage()
        if stage is None:
            raise StageError("no stage is open; open one with a robot and a camera first")
        _check_writable(Path(self.request.output))
        choices = self.request.camera_choices() if products is None else camera_choices(stage, products)
        objects = self.request.objects or None
        self.content = read_content(stage, robots=self.request.robots, cameras=choices, objects=objects)
        self._choose_clock()
        STOPS.install()
        try:
            self._guard = SettingsGuard()
            self._prepare_settings(self._guard)
            specs = [robot.spec for robot in self.content.robots]
            movable = [o.spec.prim_path for o in self.content.objects if o.spec.movable]
            self._tensors = TensorReader(specs, movable)
            if self.request.contacts:
                bodies = [link.prim_path for spec in specs for link in spec.links] + movable
                self._contacts = ContactReports(stage, bodies)
                self._contacts.open()
            if products is None:
                self.products.create(self.content.cameras)
                self._attach()
            else:
                self.products.adopt(products, self.content.cameras)
            self._subscriptions = [
                ticks.on_post_step(self._on_step),
                *ticks.on_timeline(lambda: None, self._on_pause, self._on_stop),
                ticks.on_update(self._on_update),
            ]
        except BaseException:
            self._unhook()
            raise
        self._phase, self._message = Phase.WAITING, "press Play"

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
            lag_steps=counts.lag_steps,
            callback_ms=percentiles(self._costs[-20_000:]),
            notes=tuple(self.notes),
        )

    @property
    def stepped(self) -> bool:
        """Whether the timeline has to be driven frame by frame (`drive_stepped`)."""
        return isinstance(self._clock, Held)

    @property
    def time_s(self) -> float:
        """Simulated time of the recording so far, s."""
        return self._time_s

    @property
    def failure(self) -> BaseException:
        """What ended a failed recording."""
        return self._error or StageError(self._message or "the recording did not fail")

    @property
    def header(self) -> Any:
        """The episode's header once the first step told the physics rate; None before."""
        return None if self._reader is None else self._reader.header

    def command(self, joints: Sequence[str], targets: Any) -> None:
        """Set position targets (rad, m) of the named joints of the first robot, for the next physics steps."""
        if self._tensors is not None and self._tensors.is_open and self.content is not None:
            self._tensors.command(joints, targets, self.content.units.metres_per_unit)

    @property
    def counts(self) -> PairingCounts:
        """What the pairing saw so far."""
        return self._pairer.counts if self._pairer is not None else PairingCounts()

    # -- what the simulator calls -----------------------------------------------------------------------------------

    def _on_step(self, dt_s: float) -> None:
        """After a physics step: copy the state, file it under its key."""
        if self._phase not in (Phase.WAITING, Phase.RECORDING) or not STOPS.quiet:
            return
        started, waited = time.perf_counter_ns(), self._waited_ns()
        try:
            assert self._tensors is not None
            if self._pairer is None:
                self._begin(dt_s)
            raw = self._tensors.read()
            if self._contacts is not None and self._contacts.available:
                raw = RawState(raw.robots, raw.objects, self._contacts.read())
            assert self._clock is not None
            told = self._clock.now()
            self.steps += 1
            self._time_s = self.steps * self._reader_header().physics_dt_s if told is None else told
            key = self._clock.state_key(self._time_s, self.steps)
            with self._lock:
                assert self._pairer is not None
                self._submit(self._pairer.file(StateSample(key, self._time_s, self.steps, raw)))
        except Exception as error:
            self._fail(error)
        finally:
            self._costs.append(time.perf_counter_ns() - started - (self._waited_ns() - waited))

    def deliver(self, data: Mapping[str, Any]) -> None:
        """One Replicator payload: join every camera's view with the state of its time. Called by RetakeWriter."""
        if self._pairer is None or self._phase not in (Phase.RECORDING, Phase.FINISHING) or self._error is not None:
            return
        if isinstance(self._clock, Held) and not self._held:
            return  # stepped mode: the simulation is moving, so this frame's state is not the held one
        started, waited = time.perf_counter_ns(), self._waited_ns()
        try:
            assert self._clock is not None
            key = self._clock.frame_key(*payload.reference_time(data))
            views = {}
            for product, entries in payload.render_products(data).items():
                camera = self.products.camera_of.get(product)
                if camera is not None:
                    spec = next(c for c in self._reader_header().cameras if c.name == camera)
                    views[camera] = payload.raw_view(entries, spec.channels, product)
            with self._lock:
                self._submit(self._pairer.offer(key, views))
        except Exception as error:
            self._fail(error)
        finally:
            self._costs.append(time.perf_counter_ns() - started - (self._waited_ns() - waited))

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
        """Once per update: end what is ending, outside of any physics callback."""
        if self._phase is not Phase.FINISHING or self._finisher is not None:
            return
        self._settle -= 1
        if self._settle <= 0 or self._error is not None or (self._pairer is not None and not self._pairer.waiting):
            self._finish()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self, dt_s: float) -> None:
        """The first step tells the physics rate: now the header is complete."""
        assert self.content is not None
        assert self._tensors is not None
        rate = round(1.0 / dt_s)
        dt_s = 1.0 / rate if rate > 0 and abs(rate * dt_s - 1.0) < 1e-4 else dt_s
        self.stride = stride_of(self.request.fps, dt_s)
        if any(self._guard.get(path) for path in ASYNC if self._guard is not None) and not isinstance(
            self._clock, Held
        ):
            raise InputError(
                f"asynchronous rendering is on ({', '.join(ASYNC)}); a frame's state cannot be known then: "
                "switch it off, or record in stepped mode"
            )
        self._tensors.open()
        stage = kit.require("omni.usd").get_context().get_stage()
        self._reader = make_reader(
            stage,
            self.content,
            task=self.request.task,
            fps=self.request.fps,
            physics_dt_s=dt_s,
            seed=self.request.seed,
            simulator_version=kit.versions()["isaac_sim"] or kit.versions()["app"],
            settings=self._header_settings,
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
            self._error = error if isinstance(error, RetakeError) else StageError(f"{type(error).__name__}: {error}")
            self._ending = self._ending or str(self._error)
            self._phase = Phase.FINISHING

    def _finish(self) -> None:
        """Unhook on the main thread, complete the episode on another one."""
        if self._finisher is not None:
            return
        self._unhook()
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
                callback_ms=percentiles(self._costs),
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

    def _unhook(self) -> None:
        for subscription in self._subscriptions:
            subscription.release()
        self._subscriptions = []
        for part in (self._tensors, self._contacts):
            if part is not None:
                part.close()
        self._detach()
        self.products.close()
        if self._on_play_before is not None:
            kit.require("omni.replicator.core").orchestrator.set_capture_on_play(bool(self._on_play_before))
            self._on_play_before = None
        if self._guard is not None:
            self._guard.restore()

    def _attach(self) -> None:
        """A writer of our own on our own products."""
        from retake.isaac.writer import delivering  # writer builds on this module

        self._writer = delivering(self)
        self._writer.attach(list(self.products.paths))

    def _detach(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.detach()

    def _choose_clock(self) -> None:
        if self._clock is not None:
            return
        found = None if self.request.mode == "stepped" else find_clock()
        if found is None and self.request.mode == "live":
            raise InputError(
                "this Isaac Sim cannot tell which state a live frame shows (no frame-time lookup); use mode 'stepped'"
            )
        self._clock = found or Held()

    def _prepare_settings(self, guard: SettingsGuard) -> None:
        self._on_play_before = guard.get(CAPTURE_ON_PLAY)
        kit.require("omni.replicator.core").orchestrator.set_capture_on_play(not isinstance(self._clock, Held))
        if guard.get(THROTTLING):
            guard.set(THROTTLING, False)
        history = guard.get("/app/settings/fabricDefaultStageFrameHistoryCount")
        if history is not None and int(history) < 3:
            self.notes.append(
                f"/app/settings/fabricDefaultStageFrameHistoryCount is {history}; Replicator needs 3 for exact frame data"
            )

    def _reader_header(self) -> Any:
        assert self._reader is not None
        return self._reader.header


def _check_writable(folder: Path) -> None:
    """Whether an episode can be written there. Raises InputError naming the folder and the reason, before anything starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".retake-probe"
        probe.write_bytes(b"0")
        os.remove(probe)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another output folder") from error
