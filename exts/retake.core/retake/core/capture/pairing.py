# SPDX-License-Identifier: Apache-2.0
"""Capture: physics states and rendered frames in, paired frames out, for any simulator.

A rendered frame shows a state of the past: the renderer lags, renders only some of the physics steps, and several
cameras need not deliver together. So every state is filed under the rational time of the frame it belongs to, and a
frame is joined with the one state of its own time, or capture stops with a `PairingError`: a wrong pair would be a wrong
label for every pixel. Renderer and physics may round the same time on clocks of their own, so times within
`SAME_TIME_US` are the same; where two states lie that close to a frame, none is chosen.

`FramePairer` does the joining and nothing else (no threads, no clock); `recorder` writes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Protocol

from retake.core.episode import EpisodeHeader, Frame
from retake.core.errors import EpisodeError, InputError

TimeKey = tuple[int, int]
"""A time as a reduced fraction (numerator, denominator) of seconds, denominator > 0."""


SAME_TIME_US = 2
"""Times this close are one time, µs: NVIDIA's own tests allow their renderer 1 µs beside physics; a physics step is thousands."""


class PairingError(EpisodeError):
    """A rendered frame has no physics state of exactly its own time, or a frame that was due never came."""


def time_key(numerator: int, denominator: int) -> TimeKey:
    """A rational time in lowest terms. Raises InputError for a denominator that is not positive."""
    if denominator <= 0:
        raise InputError(f"frame time {numerator}/{denominator} is no time; expected a positive denominator")
    common = gcd(numerator, denominator) or 1
    return (numerator // common, denominator // common)


def key_of_seconds(time_s: float) -> TimeKey:
    """Simulation time as a key, to the microsecond (Isaac Sim itself truncates to microseconds)."""
    return time_key(round(time_s * 1_000_000), 1_000_000)


def is_before(a: TimeKey, b: TimeKey) -> bool:
    """Whether time a is earlier than time b, in whole numbers."""
    return a[0] * b[1] < b[0] * a[1]


def is_same_time(a: TimeKey, b: TimeKey) -> bool:
    """Whether two times are at most `SAME_TIME_US` apart, in whole numbers."""
    return abs(a[0] * b[1] - b[0] * a[1]) * 1_000_000 <= SAME_TIME_US * a[1] * b[1]


def seconds(key: TimeKey) -> float:
    """A key as seconds, for messages."""
    return key[0] / key[1]


@dataclass(frozen=True)
class StateSample:
    """One physics state, as raw as the simulator gave it: decoding waits until the simulation thread is free."""

    key: TimeKey
    """Rational time of the rendered frame that will show this state."""
    time_s: float
    """Simulation time."""
    step: int
    """Physics step number, counted by one."""
    payload: Any
    """Copies of the simulator's arrays; only the simulator's `StageReader` knows what they are."""


@dataclass(frozen=True)
class PairedFrame:
    """A rendered frame with the state of its own time."""

    index: int
    state: StateSample
    following: StateSample | None
    """The next physics state: its commanded targets are what was commanded after this frame. None at the very end."""
    views: Mapping[str, Any]
    """Camera name to raw images and matrices."""
    track: tuple[StateSample, ...]
    """Every physics state after the previous captured frame, up to and including `state`."""


class StageReader(Protocol):
    """What a simulator gives: a header before the first frame, and the meaning of its raw arrays."""

    @property
    def header(self) -> EpisodeHeader:
        """What holds for the whole episode."""
        ...

    def decode(self, paired: PairedFrame) -> Frame:
        """Raw arrays to records in Retake's units and axes. Runs on the writer's thread; must not touch the stage."""
        ...


@dataclass(frozen=True)
class PairingCounts:
    """What happened so far. `missed` is never anything but 0: a missed frame raises."""

    states: int = 0
    frames: int = 0
    """Frames paired."""
    between: int = 0
    """Rendered frames that the target frame rate does not ask for."""
    early: int = 0
    """Frames of before the first filed state (in flight when capture began)."""
    idle: int = 0
    """Frames rendered while the simulation was paused."""
    repeated: int = 0
    """The same camera at the same time again."""
    lag_steps: int = 0
    """Largest number of physics steps by which a frame arrived after its state."""
    beside_ns: int = 0
    """Largest difference of a frame's time from its state's, ns: two clocks that round differently."""


class FramePairer:
    """Joins frames with states. Not thread-safe: the caller holds a lock where two threads feed it.

    `fps` must divide the physics rate: frames are kept on an exact grid of physics steps, starting with the first time
    at which every camera delivered. `ring` bounds the number of states kept; it must cover the renderer's lag.
    """

    def __init__(self, cameras: Sequence[str], fps: float, physics_dt_s: float, *, ring: int = 8192) -> None:
        if not cameras or len(set(cameras)) != len(cameras):
            raise InputError(f"capture needs at least one camera, with distinct names; found {list(cameras)}")
        self.cameras = tuple(cameras)
        self.stride = stride_of(fps, physics_dt_s)
        self.physics_dt_s = physics_dt_s
        self.ring = max(ring, 2 * self.stride)
        self._states: OrderedDict[TimeKey, StateSample] = OrderedDict()
        self._keys_in_us: dict[int, list[TimeKey]] = {}
        """Whole microsecond -> keys of the states kept that lie in it."""
        self._gaps: set[TimeKey] = set()
        self._by_step: dict[int, StateSample] = {}
        self._track: deque[StateSample] = deque()
        self._pending: dict[TimeKey, dict[str, Any]] = {}
        self._last_step_seen: dict[str, int] = {}
        self._first: StateSample | None = None
        self._last: StateSample | None = None
        self._start: StateSample | None = None
        self._next_step = 0
        self._held: PairedFrame | None = None
        self._counts = dict.fromkeys(PairingCounts.__dataclass_fields__, 0)

    @property
    def counts(self) -> PairingCounts:
        """A snapshot of the counters."""
        return PairingCounts(**self._counts)

    def file(self, sample: StateSample) -> list[PairedFrame]:
        """Take the state after a physics step; returns frames that became complete by it.

        Several states may share a key (sub-steps of one rendered frame): the last one is what the frame shows.
        Raises PairingError when time runs backwards, the step size changes, or no frame arrives for too long.
        """
        last = self._last
        if last is not None:
            if is_before(sample.key, last.key) or sample.step != last.step + 1:
                raise PairingError(
                    f"simulation time went from {last.time_s:.6f} s (step {last.step}) to {sample.time_s:.6f} s "
                    f"(step {sample.step}); a reset or a stop ends an episode: stop the capture first, record again after"
                )
            if abs(sample.time_s - last.time_s - self.physics_dt_s) > 0.01 * self.physics_dt_s:
                raise PairingError(
                    f"a physics step took {sample.time_s - last.time_s:.6f} s; the capture began with steps of "
                    f"{self.physics_dt_s:.6f} s: keep the physics rate fixed while recording"
                )
        if sample.key in self._states and sample.key in self._pending_or_emitted():
            raise PairingError(
                f"a frame for t={seconds(sample.key):.6f} s arrived before the last physics step of that time; "
                "switch asynchronous rendering off while recording"
            )
        self._first = self._first or sample
        self._last = sample
        if sample.key not in self._states:
            self._keys_in_us.setdefault(_whole_us(sample.key), []).append(sample.key)
        self._states[sample.key] = sample
        self._states.move_to_end(sample.key)
        self._by_step[sample.step] = sample
        self._by_step.pop(sample.step - 2 * self.ring, None)
        self._track.append(sample)
        self._counts["states"] += 1
        while len(self._states) > self.ring:
            self._evict()
        return self._release(sample)

    def pause(self) -> None:
        """The simulation stands still from here on: frames without a step of their own are no error until it moves."""
        if self._last is not None:
            self._gaps.add(self._last.key)

    def offer(self, key: TimeKey, views: Mapping[str, Any]) -> list[PairedFrame]:
        """Take what one or more cameras rendered at one time; returns complete frames, oldest first.

        Raises PairingError when no state was filed under this time or more than one was, when a camera's frames go back in
        time, or when a camera skipped a frame that the grid asks for.
        """
        state = self._state_at(key)
        if state is None:
            self._explain_missing(key, len(views))
            return []
        out: list[PairedFrame] = []
        for camera, view in views.items():
            if camera not in self.cameras:
                raise PairingError(f"frame of unknown camera {camera!r}; capturing {', '.join(self.cameras)}")
            out += self._take(camera, view, state)
        return out

    def finish(self) -> list[PairedFrame]:
        """No more states will come: releases the frame that was waiting for one."""
        held, self._held = self._held, None
        return [held] if held else []

    @property
    def waiting(self) -> int:
        """Steps of the grid that were simulated and not yet delivered by every camera (in flight in the renderer)."""
        if self._start is None or self._last is None:
            return 0
        return max(0, (self._last.step - self._next_step) // self.stride + 1)

    def _state_at(self, key: TimeKey) -> StateSample | None:
        """The state of a frame's time; None where there is none. Raises PairingError where several states have that time."""
        around = _whole_us(key)
        near = [
            candidate
            for us in range(around - SAME_TIME_US - 1, around + SAME_TIME_US + 2)
            for candidate in self._keys_in_us.get(us, ())
            if is_same_time(candidate, key)
        ]
        if len(near) > 1:
            raise PairingError(
                f"a frame of t={seconds(key):.7f} s may show the states of {', '.join(f'{seconds(k):.7f}' for k in near)} s, "
                f"which are within {SAME_TIME_US} µs of it; record with a longer physics step, or in stepped mode"
            )
        if not near:
            return None
        apart = abs(near[0][0] * key[1] - key[0] * near[0][1]) * 1_000_000_000 // (near[0][1] * key[1])
        self._counts["beside_ns"] = max(self._counts["beside_ns"], apart)
        return self._states[near[0]]

    def _pending_or_emitted(self) -> set[TimeKey]:
        keys = set(self._pending)
        if self._held is not None:
            keys.add(self._held.state.key)
        return keys

    def _take(self, camera: str, view: Any, state: StateSample) -> list[PairedFrame]:
        assert self._last is not None
        seen = self._last_step_seen.get(camera, -1)
        if state.step == seen:
            self._counts["repeated"] += 1
            return []
        if state.step < seen:
            raise PairingError(
                f"camera {camera!r} delivered t={state.time_s:.6f} s after a later frame; frames of an earlier run are "
                "still in the renderer: wait some frames after Stop before recording again"
            )
        self._last_step_seen[camera] = state.step
        self._counts["lag_steps"] = max(self._counts["lag_steps"], self._last.step - state.step)
        if self._start is not None:
            if state.step < self._next_step or (state.step - self._start.step) % self.stride:
                self._check_skipped(camera, state)
                self._counts["between"] += 1
                return []
            self._check_skipped(camera, state)
        self._pending.setdefault(state.key, {})[camera] = view
        if self._start is None:
            self._trim_before_start()
        if len(self._pending[state.key]) < len(self.cameras):
            return []
        return self._complete(state)

    def _check_skipped(self, camera: str, state: StateSample) -> None:
        """A camera past the next grid step that never delivered it has dropped a frame."""
        if state.step <= self._next_step:
            return
        due = self._by_step.get(self._next_step)
        if due is None or camera not in self._pending.get(due.key, {}):
            assert self._start is not None
            when = self._start.time_s + (self._next_step - self._start.step) * self.physics_dt_s
            raise PairingError(
                f"camera {camera!r} never delivered the frame of t={when:.6f} s (it came to t={state.time_s:.6f} s): the "
                f"renderer skipped it. Frames are due every {self.stride} physics steps; render every step of that "
                "grid, set the camera's tick rate to 0, or record in stepped mode"
            )

    def _trim_before_start(self) -> None:
        while len(self._pending) > 64:
            oldest = min(self._pending, key=lambda k: self._states[k].step if k in self._states else -1)
            self._counts["early"] += len(self._pending.pop(oldest))

    def _complete(self, state: StateSample) -> list[PairedFrame]:
        views = self._pending.pop(state.key)
        if self._start is None:
            self._start = state
            for key in list(self._pending):
                pending_state = self._states.get(key)
                on_grid = pending_state is not None and (pending_state.step - state.step) % self.stride == 0
                if pending_state is None or pending_state.step < state.step or not on_grid:
                    self._counts["early"] += len(self._pending.pop(key))
            while self._track[0].step < state.step:
                self._track.popleft()
        self._next_step = state.step + self.stride
        track = []
        while self._track and self._track[0].step <= state.step:
            track.append(self._track.popleft())
        frame = PairedFrame(self._counts["frames"], state, None, views, tuple(track))
        self._counts["frames"] += 1
        out, self._held = self.finish(), frame
        # The state after this frame may be filed already: the renderer lags.
        following = self._by_step.get(state.step + 1)
        return out + (self._release(following) if following is not None else [])

    def _release(self, following: StateSample) -> list[PairedFrame]:
        held = self._held
        if held is None or following.step <= held.state.step:
            return []
        self._held = None
        return [PairedFrame(held.index, held.state, following, held.views, held.track)]

    def _evict(self) -> None:
        key, oldest = self._states.popitem(last=False)
        inside = self._keys_in_us[_whole_us(key)]
        inside.remove(key)
        if not inside:
            del self._keys_in_us[_whole_us(key)]
        self._gaps.discard(key)
        self._counts["early"] += len(self._pending.pop(key, {}))
        if self._start is None:
            while self._track and self._track[0].step <= oldest.step:
                self._track.popleft()
            if self._counts["states"] > 2 * self.ring:
                raise PairingError(
                    f"{self._counts['states']} physics steps passed and not every camera of {', '.join(self.cameras)} "
                    "delivered a frame at one time; are their render products updating?"
                )
        elif oldest.step >= self._next_step:
            raise PairingError(
                f"no frame arrived for t={oldest.time_s:.6f} s within {self.ring} physics steps; is every one of "
                f"{', '.join(self.cameras)} still rendering?"
            )

    def _explain_missing(self, key: TimeKey, cameras: int) -> None:
        """Count a frame without a state where that is harmless; raise where it is not."""
        if self._first is None or is_before(key, self._first.key):
            self._counts["early"] += cameras
            return
        keys = list(self._states)
        if not keys or is_before(key, keys[0]):
            raise PairingError(
                f"a frame of t={seconds(key):.6f} s arrived after its state was forgotten (oldest kept: "
                f"{seconds(keys[0]) if keys else float('nan'):.6f} s); raise the ring of {self.ring} states"
            )
        before = next(k for k in reversed(keys) if is_before(k, key))
        if before in self._gaps:
            self._counts["idle"] += cameras
            return
        after = next((k for k in keys if is_before(key, k)), None)
        raise PairingError(
            f"no physics state has the time {key[0]}/{key[1]} s of a rendered frame; the states around it are "
            f"{seconds(before):.6f} s and {'(none yet)' if after is None else f'{seconds(after):.6f} s'}. The capture "
            "stops instead of guessing: switch asynchronous rendering off, or record in stepped mode"
        )


def _whole_us(key: TimeKey) -> int:
    return key[0] * 1_000_000 // key[1]


def stride_of(fps: float, physics_dt_s: float) -> int:
    """Physics steps per captured frame. Raises InputError naming the frame rates this physics rate allows."""
    rate = 1.0 / physics_dt_s if physics_dt_s > 0 else 0.0
    stride = rate / fps if fps > 0 else 0.0
    if stride < 0.5 or abs(stride - round(stride)) > 1e-4 * max(stride, 1.0):
        valid = [f"{rate / n:g}" for n in range(1, 121) if abs(rate / n - round(rate / n)) < 1e-3][:12]
        raise InputError(
            f"{fps:g} frames/s do not divide the physics rate of {rate:g} steps/s; valid: {', '.join(valid) or 'none'}"
        )
    return round(stride)
