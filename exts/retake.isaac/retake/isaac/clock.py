# SPDX-License-Identifier: Apache-2.0
"""Which state a rendered frame shows: one key for a state after its step, the same key for the frame that shows it.

| clock         | Isaac Sim | key of a state                        | key of a frame                             |
|---------------|-----------|---------------------------------------|--------------------------------------------|
| FrameTime     | 5.1, 6.x  | simulation manager's current time     | the frame's own reference time             |
| SimulatedTime | 4.5, 4.2  | simulation time, microseconds         | core nodes' simulation time at that time   |
| Held          | all       | number of the state being held        | the same, while nothing moves; not of a    |
|               |           |                                       | frame that another clock knows to be older |

5.0 has neither `get_current_time` nor a usable lookup (both functions answer with the *current* time), so there, as on
any version without a clock, only the stepped mode with its `Held` clock is exact, and live capture is refused.
"""

from __future__ import annotations

from typing import Any, Protocol

from retake.core.capture import TimeKey, is_before, is_same_time, key_of_seconds, time_key
from retake.core.errors import InputError
from retake.isaac.kit import optional

BETWEEN_US = 10
"""Distance of times that no frame has, µs: more than two clocks may differ, far less than a physics step."""


class Clock(Protocol):
    """Gives states and frames keys that agree exactly when the frame shows the state."""

    name: str

    def now(self) -> float | None:
        """Simulation time after the step just made, s; None where only counting steps can tell."""
        ...

    def state_key(self, time_s: float, step: int) -> TimeKey:
        """Key of the state just simulated. Called after the physics step, on the simulation thread."""
        ...

    def frame_key(self, numerator: int, denominator: int) -> TimeKey:
        """Key of a rendered frame with that reference time."""
        ...


class FrameTime:
    """5.1 and 6.x: the simulation manager says under which frame time it filed the step."""

    name = "frame time"

    def __init__(self, interface: Any) -> None:
        self._interface = interface

    def now(self) -> float | None:
        """The simulation manager's time (updated at order 0 of the same event)."""
        return float(self._interface.get_simulation_time())

    def state_key(self, time_s: float, step: int) -> TimeKey:
        """The rational frame time of the current update (6.x with multi-tick: the simulation time itself)."""
        now = self._interface.get_current_time()
        return time_key(int(now.numerator), int(now.denominator))

    def frame_key(self, numerator: int, denominator: int) -> TimeKey:
        """The reference time, reduced."""
        return time_key(int(numerator), int(denominator))


class SimulatedTime:
    """4.5 and 4.2: the core nodes translate a reference time into the simulation time it was rendered at."""

    name = "simulation time"

    def __init__(self, interface: Any) -> None:
        self._interface = interface

    def now(self) -> float | None:
        """The core nodes' simulation time."""
        return float(self._interface.get_sim_time())

    def state_key(self, time_s: float, step: int) -> TimeKey:
        """Simulation time to the microsecond."""
        return key_of_seconds(time_s)

    def frame_key(self, numerator: int, denominator: int) -> TimeKey:
        """Simulation time at the frame's reference time, to the microsecond."""
        return key_of_seconds(float(self._interface.get_sim_time_at_time((int(numerator), int(denominator)))))


class Held:
    """Stepped capture: the simulation stands still until the frame of its state has arrived.

    `witness`: the clock of live capture, where this version has one. It cannot say which state a frame shows (several updates
    pass while the state is held), but it knows a frame that was begun before the state existed.
    """

    name = "held state"

    def __init__(self, witness: Clock | None = None) -> None:
        self._step = 0
        self._witness = witness
        self._filed: TimeKey | None = None

    def now(self) -> float | None:
        """Counting steps is exact here: nothing else needs this time."""
        return None

    def state_key(self, time_s: float, step: int) -> TimeKey:
        """The step number as a time of its own."""
        self._step = step
        if self._witness is not None:
            reading = self._witness.now()
            self._filed = self._witness.state_key(time_s if reading is None else reading, step)
        return (step, 1)

    def frame_key(self, numerator: int, denominator: int) -> TimeKey:
        """The step being held."""
        return (self._step, 1)

    def is_stale(self, numerator: int, denominator: int) -> bool:
        """Whether a frame was begun before the held state existed."""
        if self._witness is None or self._filed is None:
            return False
        shown = self._witness.frame_key(numerator, denominator)
        return is_before(shown, self._filed) and not is_same_time(shown, self._filed)


class StepKeys:
    """Keys to file states under, from those that a clock tells.

    A script may step physics between updates. On 5.x these steps carry the time of the update before, whose frame shows the
    state of before: no frame shows theirs, so they get times beside it that no frame has.
    """

    def __init__(self) -> None:
        self._last_reading: TimeKey | None = None
        self._update = -1
        self._between = 0

    def key(self, reading: TimeKey, update: int) -> TimeKey:
        """The key of a state that a clock gave `told`, filed in that application update."""
        if reading != self._last_reading or update == self._update:
            self._last_reading, self._update, self._between = reading, update, 0
            return reading
        self._between += 1
        return time_key(reading[0] * 1_000_000 + BETWEEN_US * self._between * reading[1], reading[1] * 1_000_000)


def find_clock() -> Clock | None:
    """The clock of this Isaac Sim for live capture; None where a frame's state cannot be known while it runs."""
    manager = optional("isaacsim.core.simulation_manager._simulation_manager")
    manager = manager or getattr(optional("isaacsim.core.simulation_manager"), "_simulation_manager", None)
    if manager is not None:
        interface = manager.acquire_simulation_manager_interface()
        if hasattr(interface, "get_current_time"):
            return FrameTime(interface)
        if hasattr(interface, "get_simulation_time_at_time"):
            return None  # 5.0: its lookups answer with the current time
    for package, module in (
        ("isaacsim.core.nodes.bindings", "_isaacsim_core_nodes"),
        ("omni.isaac.core_nodes.bindings", "_omni_isaac_core_nodes"),
    ):
        nodes = getattr(optional(package), module, None) or optional(f"{package}.{module}")
        if nodes is not None:
            interface = nodes.acquire_interface()
            if hasattr(interface, "get_sim_time_at_time"):
                return SimulatedTime(interface)
    return None


def choose_clock(mode: str) -> Clock:
    """The clock of a recording: live where that is exact, else the state is held. Raises InputError for `live` without one."""
    live = find_clock()
    if mode != "stepped" and live is not None:
        return live
    if mode == "live":
        raise InputError(
            "this Isaac Sim cannot tell which state a live frame shows (no frame-time lookup); use mode 'stepped'"
        )
    return Held(live)
