# SPDX-License-Identifier: Apache-2.0
"""A take before what it shows: how many frames it may have, of which shape and rate, and which of them are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retake.core.errors import VerdictError
from retake.core.verdicts import load_settings
from retake.core.verdicts.clip import COARSEST, Clip
from retake.core.verdicts.form import length, rate_of, size_of, take_frames

SETTINGS = load_settings()
STEADY, TIMED = (Clip(Path("take.mp4"), 30.0, timed, "") for timed in (False, True))


@given(
    total=st.integers(SETTINGS.min_frames, 120), offered=st.integers(1, 120), asked=st.none() | st.integers(1, 120),
    clip=st.sampled_from([None, STEADY, TIMED]),
)  # fmt: skip
def test_a_take_has_the_frames_that_were_asked_for(
    total: int, offered: int, asked: int | None, clip: Clip | None
) -> None:
    """Unasked, it may have as many as the episode offers, and must have those of one window; stamps may slip by one."""
    least, most = (min(asked, offered),) * 2 if asked else (min(offered, SETTINGS.window), offered)
    slack = int(clip is TIMED)
    found = length(total, offered, asked, clip, SETTINGS)
    beyond, short = max(total - slack - most, 0), max(least - slack - total, 0)
    assert (found.name, found.value, found.applies) == ("length", float(beyond or short), True)
    assert found.worst_frame == (least - 1 if beyond else total - 1 if short else None)
    assert found.note.startswith(f"{total} frames; the episode offers {offered} from there on")
    assert (f", a take has {least}" in found.note) == bool(asked or short)


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_of_too_few_frames_only_those_that_are_missing_are_told(missing: int) -> None:
    total = SETTINGS.min_frames - 1
    found = length(total, 200, total + missing, None, SETTINGS)
    assert found.value == (missing or None)
    assert found.worst_frame is None
    assert f"at least {SETTINGS.min_frames} are needed" in found.note
    assert "are needed" not in length(total + 1, 200, total + 1, None, SETTINGS).note


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 5))
def test_only_the_shape_of_the_picture_counts_and_wide_is_as_bad_as_high(width: int, height: int, times: int) -> None:
    assert size_of((times * width, times * height), (width, height)).value == pytest.approx(0, abs=1e-12)
    wide, high = (size_of(one, (width, height)).value for one in ((width * times, height), (width, height * times)))
    assert wide == pytest.approx(np.log(times))
    assert high == pytest.approx(np.log(times))
    assert size_of((640, 480), (320, 180)).note == "640x480, camera 320x180"


@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
@pytest.mark.parametrize("clip", [None, STEADY, TIMED])
def test_a_take_without_a_rate_is_not_judged_by_it(rate: float | None, clip: Clip | None) -> None:
    found = rate_of(rate, 15.0, clip, asked=False)
    assert (found.value, found.applies) == (None, False)


@pytest.mark.parametrize(("fps", "off"), [(15.0, 0.0), (30.0, 1.0), (7.5, 0.5), (3.0, 0.8)])
@pytest.mark.parametrize(("clip", "asked"), [(None, False), (STEADY, False), (TIMED, True), (None, True)])
def test_frames_that_are_compared_one_by_one_have_the_episodes_rate(
    fps: float, off: float, clip: Clip | None, asked: bool
) -> None:
    found = rate_of(fps, 15.0, clip, asked)
    assert found.value == pytest.approx(off)
    assert found.note == f"{fps:.3g} per second, episode 15"


@pytest.mark.parametrize(("fps", "told"), [(60.0, True), (COARSEST * 15, True), (COARSEST * 15 - 0.01, False)])
def test_stamps_may_be_of_any_rate_that_is_dense_enough(fps: float, told: bool) -> None:
    found = rate_of(fps, 15.0, TIMED, asked=False)
    assert (found.value, found.applies) == (0.0 if told else None, True)
    assert ("by presentation times" in found.note) == told


@given(st.integers(1, 40), st.integers(1, 40))
def test_frames_beyond_the_episode_are_counted_and_not_kept(count: int, offered: int) -> None:
    asked: list[int] = []
    frames = (np.full((12, 16, 3), k, np.uint8) for k in range(count))
    kept, total, size = take_frames(frames, (8, 6), offered, lambda: asked.append(1), None, {})
    assert (total, size) == (count, (16, 12))
    assert kept[:, 0, 0, 0].tolist() == list(range(min(count, offered)))
    assert kept.shape[1:] == (6, 8, 3)
    assert len(asked) == min(count, offered) // 16


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_what_is_no_picture_is_refused_by_its_number(bad: Any) -> None:
    good = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(VerdictError, match=r"take frame 2 is .*expected \(H, W, 3\) uint8 RGB"):
        take_frames([good, good, bad], (4, 4), 9, lambda: None, None, {})
    with pytest.raises(VerdictError, match="no frames"):
        take_frames([], (4, 4), 9, lambda: None, None, {})
