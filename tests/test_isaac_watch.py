# SPDX-License-Identifier: Apache-2.0
"""How long a recording waits for steps and frames, and when it says that updates are slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from retake.isaac.watch import FRAME_PATIENCE, SLOW_ADVICE, SLOW_S, STEP_PATIENCE, Watch


def pass_by(watch: Watch, updates: int, *, playing: bool = True) -> None:
    for _ in range(updates):
        watch.update(playing=playing)


@pytest.mark.parametrize(
    ("patience", "missing", "arrives"),
    [
        (STEP_PATIENCE, lambda w: w.no_steps, Watch.step),
        (FRAME_PATIENCE, lambda w: w.no_frames, Watch.frame),
        (STEP_PATIENCE, lambda w: w.no_steps, Watch.again),
        (FRAME_PATIENCE, lambda w: w.no_frames, Watch.again),
    ],
)
def test_what_does_not_come_is_missed_after_as_many_updates_as_its_patience(
    patience: int, missing: Callable[[Watch], bool], arrives: Callable[[Watch], None]
) -> None:
    watch = Watch()
    pass_by(watch, patience - 1)
    assert not missing(watch)
    pass_by(watch, 50, playing=False)
    assert not missing(watch), "nothing is to come while the simulation stands"
    pass_by(watch, 1)
    assert missing(watch)
    arrives(watch)
    assert not missing(watch)
    pass_by(watch, patience - 1)
    assert not missing(watch), "it is waited for anew"


def test_a_step_is_no_frame() -> None:
    watch = Watch()
    for _ in range(FRAME_PATIENCE):
        watch.step()
        pass_by(watch, 1)
    assert (watch.no_steps, watch.no_frames) == (False, True)
    watch.frame()
    pass_by(watch, STEP_PATIENCE)
    watch.frame()
    assert (watch.no_steps, watch.no_frames) == (True, False)


def clocked(*seconds: float) -> Watch:
    """A watch whose updates take these times, s."""
    times = [100.0]
    for each in seconds:
        times.append(times[-1] + each)
    return Watch(iter(times).__next__)


def test_slow_updates_are_said_once_by_their_middle_time() -> None:
    watch = clocked(*[SLOW_S - 4, SLOW_S + 1, SLOW_S + 90, SLOW_S, SLOW_S + 2], 1)
    pass_by(watch, 5)
    assert watch.slow() == "", "four times are too few"
    pass_by(watch, 1)
    assert watch.slow() == f"an update takes {SLOW_S + 1:.1f} s: {SLOW_ADVICE}"
    pass_by(watch, 1)
    assert watch.slow() == ""


def test_updates_just_fast_enough_and_pauses_are_not_slow() -> None:
    watch = clocked(*[SLOW_S - 0.01] * 5)
    pass_by(watch, 6)
    assert watch.slow() == ""
    paused = clocked(*[1.0, 500.0] * 8)
    for _ in range(8):
        pass_by(paused, 1)
        pass_by(paused, 1, playing=False)
    assert paused.slow() == "", "the time of a pause is nobody's"
