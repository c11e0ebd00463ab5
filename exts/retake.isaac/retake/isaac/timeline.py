# SPDX-License-Identifier: Apache-2.0
"""The application's timeline: changes that take effect at once, its end, and the steps that it takes.

`play`, `pause` and `stop` of omni.timeline wait for the next update unless `commit` follows; NVIDIA's own recorder commits each
time (isaacsim.replicator.synthetic_recorder), and so does Retake: a script that goes on before the change has happened would
act on the old state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retake.core.errors import InputError
from retake.isaac.kit import optional, require
from retake.isaac.sharing import Shared

FIXED_STEPS = "/app/player/useFixedTimeStepping"
AT_END_S = 1e-4

_looped: Shared[bool] = Shared()
"""Whether an application's timeline looped before the first recording."""


def interface() -> Any:
    """omni.timeline's interface."""
    return require("omni.timeline").get_timeline_interface()


def play() -> None:
    """Play, now."""
    _change_and_commit(interface(), "play")


def pause() -> None:
    """Pause, now."""
    _change_and_commit(interface(), "pause")


def stop() -> None:
    """Stop, now."""
    _change_and_commit(interface(), "stop")


def _change_and_commit(timeline: Any, change: str) -> None:
    getattr(timeline, change)()
    commit = getattr(timeline, "commit", None)
    if commit is not None:
        commit()


class TimelineEnd:
    """Where the timeline ends. A looping timeline would throw the simulation back in mid-episode, so it does not loop while a
    recording holds this; the last one to `close` puts looping back."""

    def __init__(self) -> None:
        self._timeline = interface()
        looping = getattr(self._timeline, "is_looping", bool)
        _looped.take(self, optional("omni.timeline"), lambda: bool(looping()))
        if looping():
            self._set_looping(False)

    @property
    def end_s(self) -> float:
        """Time of the end, s; infinite where this version does not tell."""
        ask = getattr(self._timeline, "get_end_time", None)
        return float("inf") if ask is None else float(ask())

    @property
    def now_s(self) -> float:
        """The timeline's time, s."""
        ask = getattr(self._timeline, "get_current_time", None)
        return 0.0 if ask is None else float(ask())

    @property
    def reached(self) -> bool:
        """Whether the timeline stands at its end."""
        return not self._timeline.is_playing() and self.now_s >= self.end_s - AT_END_S

    def warning(self, duration_s: float) -> str:
        """A sentence when an episode of that length does not fit before the end; empty where it does."""
        left = self.end_s - self.now_s
        if not duration_s > left:
            return ""
        return (
            f"the timeline ends {left:.2f} s from here and the episode needs {duration_s:.2f} s: it will end there; raise the "
            "stage's end time code (Layer > Stage > End Time Code) for a longer one"
        )

    def close(self) -> None:
        """Loop again if the timeline did."""
        if _looped.leave(self):
            self._set_looping(True)

    def _set_looping(self, looping: bool) -> None:
        self._timeline.set_looping(looping)
        commit = getattr(self._timeline, "commit", None)
        if commit is not None:
            commit()


def physics_rate(stage: Any) -> float:
    """Physics steps per second that the stage's first physics scene asks for; 60 where it asks for none."""
    for prim in stage.Traverse():
        if prim.GetTypeName() == "PhysicsScene":
            attribute = prim.GetAttribute("physxScene:timeStepsPerSecond")
            return float(attribute.Get() or 60) if attribute else 60.0
    return 60.0


def fitting_codes(fps: float, rate: float) -> float:
    """Time codes per second that put frames on updates: the first multiple of the frame rate that is no slower than physics."""
    return next(n * fps for n in range(1, 1 << 20) if n * fps >= rate)


def check_steps(stage: Any, fps: float, setting: Callable[[str], Any]) -> None:
    """Whether frames fall on updates of a timeline that steps by the stage's time codes (isaac-sim.sh does).

    Each update is then 1/timeCodesPerSecond long, and only the state at its end is rendered. Raises InputError with the rates
    and the stage setting that fit. `setting` reads a carb setting; where stepping is not fixed nothing is known, and a grid that
    does not fit ends the recording with its first frames.
    """
    if not setting(FIXED_STEPS):
        return
    ask = getattr(interface(), "get_time_codes_per_seconds", None)
    codes = float(ask()) if ask is not None else float(stage.GetTimeCodesPerSecond())
    per_frame = codes / fps if fps > 0 else 0.0
    rate = physics_rate(stage)
    if codes <= 0 or fps <= 0 or (abs(per_frame - round(per_frame)) < 1e-6 and per_frame > 0.5):
        return
    if rate / fps % 1:
        return  # the physics rate itself does not fit, which the first step tells
    valid = [f"{codes / n:g}" for n in range(1, 61) if codes / n % 1 == 0 and rate / (codes / n) % 1 == 0][:6]
    raise InputError(
        f"the timeline makes {codes:g} updates a second (the stage's timeCodesPerSecond; 24 where none is authored), so "
        f"frames at {fps:g} per second fall between them: set the stage's Time Codes Per Second to "
        f"{fitting_codes(fps, rate):g} (Layer > Stage), or record at {' or '.join(valid) or 'another number of'} frames per "
        "second"
    )
