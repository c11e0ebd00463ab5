# SPDX-License-Identifier: Apache-2.0
"""FramePairer: for any schedule, a frame is paired with the state of its own time, or capture stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.capture import FramePairer, PairedFrame, PairingError, StateSample, stride_of, time_key
from retake.core.capture.pairing import SAME_TIME_US, is_before, key_of_seconds
from retake.core.errors import InputError

DT = 1 / 60


def state(step: int, key: tuple[int, int] | None = None) -> StateSample:
    return StateSample(key or time_key(step, 60), step * DT, step, f"state {step}")


def shifted(key: tuple[int, int], us: int) -> tuple[int, int]:
    """A time on a clock that is some microseconds beside."""
    return time_key(key[0] * 1_000_000 + us * key[1], key[1] * 1_000_000)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(1, 10**4))
def test_a_key_does_not_depend_on_how_the_fraction_is_written(numerator: int, denominator: int, factor: int) -> None:
    assert time_key(numerator, denominator) == time_key(numerator * factor, denominator * factor)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_order_of_keys_is_the_order_of_times(a: int, b: int) -> None:
    assert is_before(time_key(a, 495), time_key(b, 495)) == (a < b)
    assert key_of_seconds(a / 1000) == time_key(a, 1000)


@given(
    seed=st.integers(0, 2**32 - 1), stride=st.integers(1, 9), substeps=st.integers(1, 3), cameras=st.integers(1, 3),
    frames=st.integers(1, 25), pauses=st.booleans(), shared_key=st.booleans(), beside_us=st.integers(0, SAME_TIME_US),
)  # fmt: skip
def test_every_frame_is_paired_with_the_state_of_its_own_time(
    seed: int,
    stride: int,
    substeps: int,
    cameras: int,
    frames: int,
    pauses: bool,
    shared_key: bool,
    beside_us: int,
) -> None:
    """Random lag, camera order, sub-steps, repeats, early and idle frames, ticks of every camera, a second clock."""
    rng = np.random.default_rng(seed)
    stride *= substeps
    names = [f"cam{i}" for i in range(cameras)]
    pairer = FramePairer(names, 60 / stride, DT)
    out: list[PairedFrame] = []
    pipeline: list[tuple[tuple[int, int], int, list[str]]] = []
    step = 0
    ticks = {
        name: int(rng.choice([n for n in range(1, stride // substeps + 1) if stride // substeps % n == 0]))
        for name in names
    }
    for update in range(1, frames * stride // substeps + 13):
        if pauses and rng.random() < 0.1:
            pairer.pause()
            out += pairer.offer(time_key(step * 1000 + 1, 60_000) if step else time_key(0, 1), {names[0]: "idle"})
        key = time_key(step + substeps, 60)
        for _ in range(substeps):
            step += 1
            out += pairer.file(state(step, key if shared_key else None))
        shown = [name for name in names if update % ticks[name] == 0]
        pipeline.append((key, step, shown))
        if rng.random() < 0.8:
            for _ in range(int(rng.integers(0, 3))):
                if pipeline:
                    key_shown, shown_step, who = pipeline.pop(0)
                    rng.shuffle(who)
                    for part in [who] if rng.random() < 0.5 else [[w] for w in who]:
                        views = {w: (w, shown_step) for w in part}
                        out += pairer.offer(shifted(key_shown, int(rng.integers(-beside_us, beside_us + 1))), views)
                        if rng.random() < 0.1:
                            out += pairer.offer(key_shown, views)
    for key_shown, shown_step, who in pipeline:
        out += pairer.offer(key_shown, {w: (w, shown_step) for w in who})
    out += pairer.finish()
    assert [frame.index for frame in out] == list(range(len(out)))
    for frame in out:
        assert {name: view[1] for name, view in frame.views.items()} == dict.fromkeys(names, frame.state.step)
        assert frame.following is None or frame.following.step == frame.state.step + 1
    steps = [frame.state.step for frame in out]
    assert np.all(np.diff(steps) == stride)
    tracked = [sample.step for frame in out for sample in frame.track]
    assert tracked == list(range(steps[0], steps[-1] + 1)) if out else True
    # Nothing that was rendered on the grid is missing.
    assert len(out) >= frames - 2


def fed(*steps: int, **options: object) -> FramePairer:
    pairer = FramePairer(["a"], 60, DT, **options)  # type: ignore[arg-type]
    for step in steps:
        pairer.file(state(step))
    return pairer


def file_many(pairer: FramePairer, steps: range, *, offer: bool = False) -> None:
    for step in steps:
        pairer.file(state(step))
        if offer:
            pairer.offer(time_key(step, 60), {"a": 0})


def test_a_frame_between_two_states_is_refused_not_rounded() -> None:
    with pytest.raises(PairingError, match="no physics state has the time"):
        fed(1, 2, 3).offer(time_key(5, 120), {"a": 0})


@given(us=st.integers(-6, 6), step=st.integers(1, 5))
def test_a_second_clock_may_be_two_microseconds_beside_and_no_more(us: int, step: int) -> None:
    pairer = FramePairer(["a"], 60, DT)
    for number in range(1, 6):
        pairer.file(state(number))
    key = shifted(time_key(step, 60), us)
    if abs(us) <= SAME_TIME_US:
        out = pairer.offer(key, {"a": "x"}) + pairer.finish()
        assert [frame.state.step for frame in out] == [step]
    elif us < 0 and step == 1:
        assert pairer.offer(key, {"a": "x"}) == []  # of before the first state
    else:
        with pytest.raises(PairingError, match="no physics state has the time"):
            pairer.offer(key, {"a": "x"})


@given(apart_us=st.integers(1, 9), at_us=st.integers(-4, 13))
def test_a_frame_that_two_states_lie_beside_is_refused_not_guessed(apart_us: int, at_us: int) -> None:
    dt = apart_us / 1e6
    pairer = FramePairer(["a"], 1e6 / apart_us, dt)
    for number in (0, 1):
        pairer.file(StateSample(time_key(number * apart_us, 1_000_000), number * dt, number, number))
    near = [n for n in (0, 1) if abs(at_us - n * apart_us) <= SAME_TIME_US]
    if len(near) == 2:
        with pytest.raises(PairingError, match="may show the states of"):
            pairer.offer(time_key(at_us, 1_000_000), {"a": "x"})
    elif len(near) == 1:
        (frame,) = pairer.offer(time_key(at_us, 1_000_000), {"a": "x"}) + pairer.finish()
        assert frame.state.payload == near[0]


def test_a_frame_of_the_future_is_refused() -> None:
    with pytest.raises(PairingError, match="none yet"):
        fed(1, 2, 3).offer(time_key(9, 60), {"a": 0})


def test_a_frame_from_before_the_first_state_is_ignored_and_counted() -> None:
    pairer = fed(5, 6)
    assert pairer.offer(time_key(1, 60), {"a": 0}) == []
    assert pairer.counts.early == 1


def test_a_skipped_frame_names_camera_and_time() -> None:
    pairer = fed(1, 2, 3, 4)
    pairer.offer(time_key(1, 60), {"a": 0})
    with pytest.raises(PairingError, match=r"camera 'a' never delivered the frame of t=0\.0333"):
        pairer.offer(time_key(3, 60), {"a": 0})


def test_going_back_in_time_ends_the_capture() -> None:
    with pytest.raises(PairingError, match="reset or a stop ends an episode"):
        fed(1, 2, 3).file(state(1))
    pairer = fed(1, 2, 3, 4)
    for step in (1, 2):
        pairer.offer(time_key(step, 60), {"a": 0})
    with pytest.raises(PairingError, match="after a later frame"):
        pairer.offer(time_key(1, 60), {"a": 0})


def test_a_changed_step_size_ends_the_capture() -> None:
    with pytest.raises(PairingError, match="keep the physics rate fixed"):
        fed(1, 2).file(StateSample(time_key(3, 50), 0.06, 3, None))


def test_a_camera_that_stops_rendering_is_noticed() -> None:
    pairer = FramePairer(["a"], 60, DT, ring=16)
    pairer.file(state(1))
    pairer.offer(time_key(1, 60), {"a": 0})
    with pytest.raises(PairingError, match="still rendering"):
        file_many(pairer, range(2, 60))


def test_a_camera_that_never_renders_is_noticed() -> None:
    pairer = FramePairer(["a", "b"], 60, DT, ring=16)
    with pytest.raises(PairingError, match="are their render products updating"):
        file_many(pairer, range(1, 90), offer=True)


def test_a_frame_that_lags_beyond_the_ring_is_refused() -> None:
    pairer = FramePairer(["a"], 60, DT, ring=16)
    for step in range(1, 25):
        pairer.file(state(step))
    with pytest.raises(PairingError, match="forgotten"):
        pairer.offer(time_key(2, 60), {"a": 0})


def test_frame_rates_that_do_not_divide_the_physics_rate_list_the_valid_ones() -> None:
    assert (stride_of(15, 1 / 495), stride_of(60, 1 / 60), stride_of(12, 1 / 60)) == (33, 1, 5)
    with pytest.raises(InputError, match=r"valid: 60, 30, 20, 15"):
        stride_of(25, 1 / 60)
    with pytest.raises(InputError, match="do not divide"):
        stride_of(120, 1 / 60)


def test_a_zero_denominator_is_no_time() -> None:
    with pytest.raises(InputError, match="positive denominator"):
        time_key(1, 0)


def test_no_camera_and_two_cameras_of_one_name_are_refused() -> None:
    for cameras in ([], ["a", "a"]):
        with pytest.raises(InputError, match="distinct names"):
            FramePairer(cameras, 15, DT)


@given(ahead=st.integers(1, 12), lag=st.integers(1, 6), stride=st.integers(1, 4))
def test_a_camera_that_is_ahead_waits_for_the_other_and_its_earlier_frames_are_left_out(ahead, lag, stride) -> None:
    """One camera delivers `ahead` frames before the other begins: the first frame is the first that both show."""
    pairer = FramePairer(["early", "late"], 60 / stride, DT)
    out: list[PairedFrame] = []
    total = ahead + lag + 4 * stride + 2
    for step in range(1, total + 1):
        out += pairer.file(state(step))
        out += pairer.offer(time_key(step, 60), {"early": ("early", step)})
    for step in range(ahead + 1, total + 1):
        out += pairer.offer(time_key(step, 60), {"late": ("late", step)})
    out += pairer.finish()
    steps = [frame.state.step for frame in out]
    assert steps == list(range(ahead + 1, total + 1, stride))
    for frame in out:
        assert frame.views == {name: (name, frame.state.step) for name in ("early", "late")}
        assert frame.state.step > ahead
    counts = pairer.counts
    assert counts.frames == len(out)
    assert counts.early + counts.between >= ahead


def test_what_happened_to_every_frame_is_counted() -> None:
    """Frames that are early, between, repeated or idle are told apart, and how late and how far beside frames came."""
    pairer = FramePairer(["a"], 30, DT)
    pairer.file(state(5))
    pairer.offer(time_key(1, 60), {"a": 0, "b": 0})
    assert pairer.counts.early == 2
    pairer.offer(time_key(5, 60), {"a": 0})
    for step in (6, 7, 8):
        pairer.file(state(step))
    assert (pairer.counts.lag_steps, pairer.counts.beside_ns) == (0, 0)
    pairer.offer(shifted(time_key(6, 60), 1), {"a": 0})
    pairer.offer(time_key(6, 60), {"a": 0})
    pairer.offer(time_key(7, 60), {"a": 0})
    counts = pairer.counts
    assert (counts.states, counts.frames, counts.between, counts.repeated) == (4, 2, 1, 1)
    assert (counts.lag_steps, counts.beside_ns, counts.idle) == (2, 1000, 0)
    pairer.pause()
    pairer.offer(time_key(8 * 1000 + 1, 60_000), {"a": 0, "b": 0})
    pairer.offer(shifted(time_key(8, 60), -2), {"a": 0})
    counts = pairer.counts
    assert (counts.idle, counts.between, counts.beside_ns, counts.early) == (2, 2, 2000, 2)


def test_frames_in_flight_are_those_of_the_grid_that_were_simulated_and_not_delivered() -> None:
    pairer, found = FramePairer(["a"], 20, DT), []
    for step in range(1, 9):
        pairer.file(state(step))
        if step == 2:
            assert pairer.waiting == 0
            pairer.offer(time_key(2, 60), {"a": 0})
        found.append(pairer.waiting)
    assert found == [0, 0, 0, 0, 1, 1, 1, 2]


def test_as_many_states_are_kept_as_the_ring_holds_and_no_more() -> None:
    assert FramePairer(["a"], 60, DT).ring == 8192
    assert FramePairer(["a"], 60, DT / 10_000, ring=4).ring == 20_000, "two captured frames at least"
    pairer = fed(1, ring=4)
    pairer.offer(time_key(1, 60), {"a": 0})
    file_many(pairer, range(2, 6))
    with pytest.raises(PairingError, match=r"no frame arrived for t=0\.033333 s within 4 physics steps"):
        pairer.file(state(6))
    oldest = fed(*range(1, 8), ring=4)
    assert [f.state.step for f in oldest.offer(time_key(4, 60), {"a": 0})] == [4]
    with pytest.raises(PairingError, match=r"oldest kept: 0\.066667 s\); raise the ring of 4"):
        fed(*range(1, 8), ring=4).offer(time_key(3, 60), {"a": 0})


def test_a_camera_that_never_renders_is_noticed_after_two_rings() -> None:
    pairer = FramePairer(["a", "b"], 60, DT, ring=4)
    file_many(pairer, range(1, 9), offer=True)
    assert pairer.counts.early == 4, "what waited for the other camera left with its state"
    with pytest.raises(PairingError, match="9 physics steps passed"):
        pairer.file(state(9))


def test_a_long_recording_keeps_no_more_than_a_short_one() -> None:
    pairer = FramePairer(["a"], 60, DT, ring=8)
    for step in range(1, 101):
        pairer.file(state(step))
        pairer.pause()
        pairer.offer(time_key(step, 60), {"a": 0})
    assert len(pairer._states) == len(pairer._keys_in_us) == len(pairer._gaps) == 8
    assert len(pairer._by_step) <= 16
    assert not pairer._pending
    assert len(pairer._track) <= 1


def test_of_a_camera_that_is_ahead_sixty_four_frames_wait_for_the_other() -> None:
    pairer = FramePairer(["a", "b"], 60, DT)
    file_many(pairer, range(1, 65), offer=True)
    assert pairer.counts.early == 0
    file_many(pairer, range(65, 67), offer=True)
    assert pairer.counts.early == 2
    out = pairer.offer(time_key(3, 60), {"b": 0}) + pairer.finish()
    assert [frame.state.step for frame in out] == [3]
    assert pairer.counts.early == 2


def test_a_step_may_be_a_hundredth_longer_and_no_number_is_left_out() -> None:
    pairer = fed(1)
    pairer.file(StateSample(time_key(2, 60), 2 * DT + 0.009 * DT, 2, None))
    with pytest.raises(PairingError, match="keep the physics rate fixed"):
        pairer.file(StateSample(time_key(3, 60), 3 * DT + 0.025 * DT, 3, None))
    with pytest.raises(PairingError, match=r"\(step 1\) to .* \(step 3\)"):
        fed(1).file(state(3))


def test_a_frame_shows_the_last_step_of_its_time_and_must_not_come_before_it() -> None:
    key = time_key(2, 60)
    pairer = FramePairer(["a"], 30, DT)
    pairer.file(state(1, key))
    pairer.file(state(2, key))
    assert [f.state.step for f in pairer.offer(key, {"a": 0}) + pairer.finish()] == [2]
    pairer = FramePairer(["a"], 30, DT)
    pairer.file(state(1, key))
    pairer.offer(key, {"a": 0})
    with pytest.raises(PairingError, match="arrived before the last physics step of that time"):
        pairer.file(state(2, key))


def test_a_camera_that_is_not_captured_is_refused() -> None:
    with pytest.raises(PairingError, match="unknown camera 'z'; capturing a"):
        fed(1).offer(time_key(1, 60), {"z": 0})


def test_frame_rates_are_nearly_divisors_and_twelve_of_them_are_listed() -> None:
    assert stride_of(15.0001, 1 / 495) == 33
    for fps, dt in ((15.01, 1 / 495), (0, 1 / 60), (15, 0), (-15, 1 / 60)):
        with pytest.raises(InputError, match="do not divide"):
            stride_of(fps, dt)
    with pytest.raises(InputError, match=r"valid: 120, 60, 40, 30, 24, 20, 15, 12, 10, 8, 6, 5$"):
        stride_of(50, 1 / 120)
    with pytest.raises(InputError, match=r"valid: 121, 11$"):
        stride_of(50, 1 / 121)
