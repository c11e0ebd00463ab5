# SPDX-License-Identifier: Apache-2.0
"""Fingers as large as the take shows them: what is kept of its frames, and what a gripper's moment gains by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_scene_episode

from retake.core.episode import Episode
from retake.core.episode.parts import rigid_parts
from retake.core.verdicts import gripper, load_settings
from retake.core.verdicts.closeups import CloseUp, Watch, close_up, watch_fingers
from retake.core.verdicts.finger_moments import AROUND
from retake.core.verdicts.footage import make_footage, shrink
from retake.core.verdicts.form import take_frames
from retake.core.verdicts.gripper_parts import changes, find_fingers
from retake.core.verdicts.truth import Truth, read_truth, renumbered

FRAMES, SIZE, WORKING = 16, (160, 120), 80
SETTINGS = load_settings()


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return make_scene_episode(tmp_path_factory.mktemp("close") / "episode", frames=FRAMES, wrist=True, shadows=False)


@pytest.fixture(scope="module")
def watch(episode: Episode) -> Watch:
    found = watch_fingers(episode, "front", 0, WORKING)
    assert found is not None
    return found


def film(size: tuple[int, int] = SIZE, count: int = FRAMES) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(count)]


def kept_of(frames: list[np.ndarray], watch: Watch | None) -> dict[int, np.ndarray]:
    kept: dict[int, np.ndarray] = {}
    take_frames(frames, (WORKING, WORKING * 3 // 4), FRAMES, lambda: None, watch, kept)
    return kept


def seen(episode: Episode, watch: Watch, frames: list[np.ndarray]) -> tuple[CloseUp | None, Truth]:
    truth = read_truth(episode, "front", 0, len(frames), WORKING)
    return close_up(watch, kept_of(frames, watch), truth), truth


def test_every_frame_around_a_change_shows_what_the_take_and_the_episode_show_there(
    episode: Episode, watch: Watch
) -> None:
    frames = film()
    close, truth = seen(episode, watch, frames)
    assert close is not None
    assert (close.px, watch.size) == (2.0, SIZE)
    parts, table, _ = rigid_parts(episode)
    fingers = {part for hand in find_fingers(episode, truth) for part in hand.parts}
    around = {
        t for begin, end in changes(truth.openness[:, 0])
        for t in range(max(begin - AROUND, 0), min(end + AROUND, FRAMES - 1) + 1)
    }  # fmt: skip
    assert around
    assert around <= set(watch.labels)
    for t in around:
        ids = renumbered(episode.image("front", "instances", t), table)
        assert np.array_equal(close.footage.frames[t], frames[t][watch.window])
        assert np.array_equal(close.truth.labels[t], ids[watch.window])
        for part in fingers:
            # No finger is cut off: its whole area lies in the window.
            assert close.truth.area[t, part] == (ids == part + 1).sum() == (close.truth.labels[t] == part + 1).sum()
    assert len(close.truth.parts) == len(parts)


def test_scenery_is_known_where_nothing_was_near(episode: Episode, watch: Watch) -> None:
    plain = [np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)] * FRAMES
    close, _ = seen(episode, watch, plain)
    assert close is not None
    covered = np.array([close.truth.labels[t] > 0 for t in watch.labels]).sum(0)
    assert not close.footage.known[covered > len(watch.labels) - 3].any()
    assert close.footage.known.any()
    assert (close.footage.scenery[close.footage.known] == 90).all()


@settings(deadline=None, max_examples=8)
@given(count=st.integers(1, FRAMES), wide=st.sampled_from([80, 120, 159, 160, 240, 320]))
def test_takes_of_any_length_and_size(episode: Episode, watch: Watch, count: int, wide: int) -> None:
    """A smaller one is no larger for being blown up; of a larger one the close-up is what it shows there."""
    frames = film((wide, wide * 3 // 4), count)
    close, truth = seen(episode, watch, frames)
    if wide < SIZE[0]:
        assert close is None
        return
    assert close is not None
    assert len(close.footage) == len(close.truth) == len(truth) == count
    t = max(t for t in watch.labels if t < count)
    assert np.array_equal(close.footage.frames[t], shrink(frames[t], SIZE)[watch.window])


def test_nothing_is_kept_where_a_close_up_tells_no_more(episode: Episode, tmp_path: Path) -> None:
    assert watch_fingers(episode, "wrist", 0, WORKING) is None  # it moves
    assert watch_fingers(episode, "front", 0, SIZE[0]) is None  # it is judged as large as it is
    assert watch_fingers(episode, "front", FRAMES, WORKING) is None  # the take is refused elsewhere, in words
    blind = make_scene_episode(tmp_path / "blind", frames=2, channels=("rgb",), shadows=False)
    assert watch_fingers(blind, "front", 0, WORKING) is None
    assert kept_of(film(), None) == {}


def test_what_is_planned_is_kept_for_the_next_take(episode: Episode) -> None:
    watch = watch_fingers(episode, "front", 0, WORKING)
    assert watch_fingers(episode, "front", 0, WORKING) is watch
    later = watch_fingers(episode, "front", 4, WORKING)
    assert later is not None
    assert later is not watch
    assert max(later.labels) < FRAMES - 4


def test_a_moment_is_asked_of_the_close_up(episode: Episode, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = film()
    close, truth = seen(episode, watch, frames)
    hands = find_fingers(episode, truth)
    footage = make_footage(np.stack([shrink(f, truth.size) for f in frames]), truth)
    asked: list[Any] = []

    def told(footage: Any, truth: Any, parts: Any, travel: Any, *rest: Any) -> float:
        asked.append((footage, truth, np.array(travel), rest[-1]))
        return 2.0

    monkeypatch.setattr(gripper, "early_by", told)
    for wanted, of, px in ((close, close, 2.0), (None, None, 1.0)):
        asked.clear()
        found = gripper.measure_events(footage, None, truth, hands, SETTINGS.following, wanted)  # type: ignore[arg-type]
        assert found.value == 2.0
        assert asked
        for shown, geometry, travel, larger in asked:
            assert shown is (footage if of is None else of.footage)
            assert geometry is (truth if of is None else of.truth)
            assert larger == px
            np.testing.assert_allclose(travel, px * hands[0].travel)
