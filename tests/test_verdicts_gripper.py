# SPDX-License-Identifier: Apache-2.0
"""Openings of a gripper by hand: which change counts, which moment is believed, and for how long an opening must be wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import gripper
from retake.core.verdicts.gripper_parts import Fingers, changes
from retake.core.verdicts.settings import FollowingSettings

FRAMES = 40
SETTINGS = FollowingSettings()
OPENNESS = np.interp(np.arange(FRAMES), [0, 8, 12, 24, 28, 39], [1, 1, 0.2, 0.2, 0.9, 0.9])
"""It closes from frame 8 on and opens from 24 on."""


def truth(**given: Any) -> Any:
    return type("Truth", (SimpleNamespace,), {"__len__": lambda self: FRAMES})(**given)


def hand(openness: np.ndarray = OPENNESS) -> Fingers:
    return Fingers((3, 4), np.zeros((FRAMES, 2, 2)), openness)


@pytest.mark.parametrize(
    ("told", "value", "frame", "note"),
    [
        ((0.0, 0.0), 0.0, None, "2 events"),
        ((2.5, -1.0), 2.5, 8, "closes 2.5 frames early"),
        ((-1.0, -3.5), 3.5, 24, "opens 3.5 frames late"),
        ((-2.0, 2.0), 2.0, 8, "closes 2.0 frames late"),
        ((None, 1.5), 1.5, 24, "opens 1.5 frames early"),
        ((4.0, 0.0), 4.0, 8, "closes 4.0 frames early"),
        ((4.5, 0.5), 0.5, 24, "opens 0.5 frames early"),
        ((4.5, 0.0), None, 8, ""),
        ((0.0, -7.0), None, 24, ""),
    ],
)
def test_the_worst_moment_that_is_believed_counts(
    monkeypatch: pytest.MonkeyPatch, told: Any, value: float | None, frame: int | None, note: str
) -> None:
    """Up to four frames; where the fingers fit further away alone, nothing is told."""
    answers = dict(zip((8, 24), told, strict=True))
    monkeypatch.setattr(gripper, "early_by", lambda *a: answers[a[5]])
    monkeypatch.setattr(gripper, "_early", lambda *_: None)
    found = gripper.measure_events(None, None, truth(static_camera=True), [hand()], SETTINGS)  # type: ignore[arg-type]
    assert (found.value, found.worst_frame, found.applies) == (value, frame, True)
    assert found.note == note or (value is None and f"around frame {frame} " in found.note)


@pytest.mark.parametrize(
    ("change", "by", "static", "value"),
    [
        (0.29, -5.5, False, None), (0.31, -5.5, False, 5.5), (0.31, -5.5, True, None), (0.31, 1.5, True, 1.5),
        (0.31, 1.75, True, None),
    ],
)  # fmt: skip
def test_contours_are_asked_of_a_large_change_that_colours_do_not_tell(
    monkeypatch: pytest.MonkeyPatch, change: float, by: float, static: bool, value: float | None
) -> None:
    """And before a camera that stands still, where known scenery says nothing, another moment that they fit tells nothing."""
    opening = np.interp(np.arange(FRAMES), [0, 10, 13, 39], [0.5, 0.5, 0.5 + change, 0.5 + change])
    monkeypatch.setattr(gripper, "early_by", lambda *_: None)
    monkeypatch.setattr(gripper, "_early", lambda *a: by)
    of = truth(static_camera=static)
    found = gripper.measure_events(None, None, of, [hand(opening)], SETTINGS)  # type: ignore[arg-type]
    assert (found.value, found.applies) == (value, value is not None)
    if value:
        assert found.note == f"opens {value:.1f} frames {'early' if by > 0 else 'late'}"


def test_a_change_up_to_the_last_frame_is_one() -> None:
    assert changes(np.array([0.0, 0.0, 0.05, 0.1])) == [(1, 3)]
    assert changes(np.array([0.0, 0.05, 0.09, 0.09])) == []
    assert changes(np.array([0.0, 0.5, 1.0, 0.5, 0.0])) == [(0, 2), (2, 4)]
    assert changes(np.array([0.0, 0.5, 0.5, 1.0])) == [(0, 1), (2, 3)]
    assert changes(np.array([0.5, 0.52, 0.54, 0.56, 0.58, 0.6])) == []  # too slow to have a moment
    assert changes(np.array([0.5, 0.521, 0.542, 0.563, 0.584, 0.605])) == [(0, 5)]


def wrong(
    monkeypatch: pytest.MonkeyPatch, errors: dict[int, float | None], usable: set[int], refuted: tuple[float, ...] = ()
) -> Any:
    """What is said where the windows around some frames prefer another opening; some errors are refuted by known scenery."""
    weights = np.array([float(t in usable) for t in range(FRAMES)])
    scores = np.arange(FRAMES, dtype=float)[:, None] * np.ones(3)
    monkeypatch.setattr(gripper, "_scores", lambda *_: (scores, weights))
    frames = iter(sorted(usable))

    def best(seen: np.ndarray, weight: np.ndarray, settings: FollowingSettings) -> float | None:
        t = next(frames)
        assert seen[:, 0].tolist() == list(range(max(t - 10, 0), min(t + 11, FRAMES)))  # ten frames to either side
        assert len(weight) == len(seen)
        return errors.get(t, 0.0)

    monkeypatch.setattr(gripper, "_best_error", best)
    monkeypatch.setattr(gripper, "own_place", lambda *a: np.array([a[4][0] in refuted and set(a[5]) <= usable]))
    return gripper.measure_gripper(None, None, truth(), [hand()], SETTINGS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("errors", "value", "frame"),
    [
        ({5: 0.5, 6: 0.5, 7: 0.5}, 0.0, None),
        ({5: 0.5, 6: -0.4, 7: 0.5, 8: 0.6}, 0.4, 5),
        ({5: 0.5, 6: 0.5, 7: None, 8: 0.5, 9: 0.3}, 0.3, 5),
        ({36: 0.2, 37: 0.2, 38: 0.2, 39: 0.2}, 0.2, 36),
        ({5: 0.2, 6: 0.2, 7: 0.3, 8: 0.3, 9: 0.3, 10: 0.3}, 0.3, 7),
    ],
)
def test_an_opening_is_wrong_for_four_windows_in_a_row(
    monkeypatch: pytest.MonkeyPatch, errors: dict[int, float | None], value: float, frame: int | None
) -> None:
    found = wrong(monkeypatch, errors, set(range(FRAMES)))
    assert (found.value, found.worst_frame, found.note) == (pytest.approx(value), frame, f"judged in {FRAMES} frames")


def test_an_opening_that_known_scenery_refutes_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: dict[int, float | None] = dict.fromkeys(range(5, 15), -0.9) | dict.fromkeys(range(20, 30), 0.3)
    assert wrong(monkeypatch, errors, set(range(FRAMES)), (-0.9,)).value == pytest.approx(0.3)
    assert wrong(monkeypatch, errors, set(range(FRAMES)), (0.3,)).value == pytest.approx(0.9)
    assert wrong(monkeypatch, errors, set(range(FRAMES)), (0.3, -0.9)).value == 0.0


@pytest.mark.parametrize(("frames", "told"), [(0, False), (5, False), (6, True)])
def test_fingers_must_be_told_in_six_frames(monkeypatch: pytest.MonkeyPatch, frames: int, told: bool) -> None:
    found = wrong(monkeypatch, {}, set(range(frames)))
    assert (found.value is not None) == found.applies == told
    assert told or f"{frames} frames, 6 needed" in found.note


def test_no_gripper_has_no_openness() -> None:
    found = gripper.measure_gripper(None, None, truth(), [], SETTINGS)  # type: ignore[arg-type]
    assert (found.value, found.applies) == (None, False)
    found = gripper.measure_events(None, None, truth(), [], SETTINGS)  # type: ignore[arg-type]
    assert (found.value, found.applies) == (None, False)


def contours(at: float) -> Any:
    """Fingers whose contours fit best where they would be with so much more opening; 8 px from closed to open."""
    grid = np.indices((25, 25)) - 12.0
    surface = np.exp(-((grid[1] - 8 * at) ** 2 + grid[0] ** 2) / 6)
    return SimpleNamespace(
        shift_scores=np.tile(surface.astype(np.float32), (FRAMES, 5, 1, 1)),
        points=np.full((FRAMES, 5), 40.0),
        radius=12,
    )


def scored(opening: float, at: float = 0.0, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    fields = SimpleNamespace(part=np.array([3, 3, 4, 4]), silhouette=np.array([True, True, True, True]))
    known = {"area": np.full((FRAMES, 5), 12.0), "contours": [fields] * FRAMES}
    travel = given.pop("travel", np.tile([8.0, 0.0], (FRAMES, 2, 1)))
    one = Fingers((3, 4), travel, np.full(FRAMES, opening))
    return gripper._scores(contours(at), truth(**{**known, **given}), one, SETTINGS)


def test_openings_are_scored_by_where_they_would_put_the_fingers() -> None:
    scores, weights = scored(1.0, -0.5)
    assert weights.tolist() == [80.0] * FRAMES
    assert np.nanargmax(scores[0]) == 5  # half of the way from open to closed: −1, −0.9, …
    assert np.nanmax(scores[0]) == pytest.approx(1, abs=1e-4)
    assert np.flatnonzero(np.isfinite(scores[3])).tolist() == list(range(11))  # an open gripper can only be less open
    shut, _ = scored(0.05, 0.5)
    assert np.flatnonzero(np.isfinite(shut[3])).tolist() == list(range(9, 21))


@pytest.mark.parametrize(("opening", "asked"), [(0.2, True), (0.21, False), (0.5, False), (0.79, False), (0.8, True)])
def test_a_hand_that_holds_something_is_no_evidence(opening: float, asked: bool) -> None:
    _, weights = scored(opening)
    assert (weights > 0).all() == (weights > 0).any() == asked


def test_a_finger_must_show_its_outline_move_and_be_large_enough() -> None:
    half = SimpleNamespace(part=np.array([3, 3, 3, 4]), silhouette=np.array([True, False, False, True]))
    assert not scored(1.0, contours=[half] * FRAMES)[
        1
    ].any()  # one that does not show before scenery silences the other
    more = SimpleNamespace(
        part=np.array([3, 3, 3, 3, 3, 4]), silhouette=np.array([True, True, False, False, False, True])
    )
    assert scored(1.0, contours=[more] * FRAMES)[1].all()
    area = np.full((FRAMES, 5), 12.0)
    area[:, 3] = 11.9
    assert scored(1.0, area=area)[1].tolist() == [40.0] * FRAMES
    travel = np.tile([8.0, 0.0], (FRAMES, 2, 1))
    travel[:, 0], travel[:, 1] = (1.5, 2.0), (1.5, 1.9)
    assert scored(1.0, travel=travel)[1].tolist() == [40.0] * FRAMES  # 2.5 px, and less
    travel[:, 0] = np.nan
    assert not scored(1.0, travel=travel)[1].any()
    far = np.tile([20.0, 0.0], (FRAMES, 2, 1))
    scores, _ = scored(1.0, travel=far)
    assert np.flatnonzero(np.isfinite(scores[0])).tolist() == [4, 5, 6, 7, 8, 9, 10]  # up to 12 px away


def early(
    by: float, area: np.ndarray | None = None, points: float = 40.0, travel: np.ndarray | None = None
) -> float | None:
    """What contours say of the closing from frame 8 to 12 when fingers show what the simulation has `by` frames later."""
    grid, times = np.indices((25, 25)) - 12.0, np.arange(FRAMES)
    shown = np.interp(times + by, times, OPENNESS) - OPENNESS
    surface = np.exp(-((grid[1] - 8 * shown[:, None, None]) ** 2 + grid[0] ** 2) / 6).astype(np.float32)
    one: Any = SimpleNamespace(
        shift_scores=np.repeat(surface[:, None], 5, 1), points=np.full((FRAMES, 5), points), radius=12
    )
    ways = np.tile([8.0, 0.0], (FRAMES, 2, 1)) if travel is None else travel
    seen = truth(area=np.full((FRAMES, 5), 18.0) if area is None else area, px=2.0)
    return gripper._early(one, seen, Fingers((3, 4), ways, OPENNESS), 8, 12, SETTINGS)


@pytest.mark.parametrize("by", [-3.0, -1.0, 0.0, 1.5, 2.0, 4.0])
def test_contours_tell_the_moment_of_a_change(by: float) -> None:
    assert early(by) == pytest.approx(by, abs=0.5)


def fits(like: Any) -> float | None:
    """What contours say where a finger that is -12 to 12 px beside its place fits as well as that, in all rows."""
    surface = np.tile(np.asarray(like, np.float32), (25, 1))
    one: Any = SimpleNamespace(
        shift_scores=np.tile(surface, (FRAMES, 5, 1, 1)), points=np.full((FRAMES, 5), 40.0), radius=12
    )
    ways = np.tile([8.0, 0.0], (FRAMES, 2, 1))
    seen = truth(area=np.full((FRAMES, 5), 18.0), px=2.0)
    return gripper._early(one, seen, Fingers((3, 4), ways, OPENNESS), 8, 12, SETTINGS)


def test_no_better_moment_says_something_where_three_frames_would_be_told() -> None:
    """Either way: fingers of the ground's colour fit everywhere alike, and before a shelf as well on one side as in place."""
    x = np.arange(25) - 12.0
    peak = np.exp(-(x**2) / 6)
    assert fits(peak) == 0.0
    assert fits(np.full(25, 0.5)) is None
    assert fits(np.where(x > 0, 1.0, peak)) is None
    assert fits(np.where(x < 0, 1.0, peak)) is None
    # 0.03 at least is asked, and a twentieth of what the place itself has.
    told = [fits(0.2 + depth * peak) for depth in (0.02, 0.2)]
    assert told == [None, 0.0]
    told = [fits(5 + depth * peak) for depth in (0.2, 2.0)]
    assert told == [None, 0.0]


def test_a_moment_is_told_by_fingers_that_show_and_move_enough() -> None:
    area = np.full((FRAMES, 5), 17.9)
    assert early(2.0, area) is None
    area[8:13, 3] = 18  # five frames of one finger: twenty points each are the hundred that are needed
    assert early(2.0, area, 20.0) == pytest.approx(2, abs=0.5)
    assert early(2.0, area, 19.9) is None
    assert early(2.0, points=11.9) is None
    ways = np.tile([8.0, 0.0], (FRAMES, 2, 1))
    ways[:, 0] = np.nan
    assert early(2.0, travel=ways) == pytest.approx(2, abs=0.5)
    ways[:, 0], ways[:, 1] = (3.0, 3.9), (0.0, 4.9)  # of less than 10 px no moment is told
    assert early(2.0, travel=ways) is None
    assert np.isnan(early(5.5) or 0.0)  # further away than is believed


def test_three_openings_with_the_simulated_one_must_be_told() -> None:
    scores, weights = np.full((4, 21), np.nan), np.array([0.0, 1, 1, 0])
    scores[1:3, 8:11] = [0.9, 0.5, 0.4]
    assert gripper._best_error(scores, weights, SETTINGS) == pytest.approx(-0.2)
    scores[1:3, 8] = 0.4 + 0.22 * 0.5  # by less than 0.22 of its own response
    assert gripper._best_error(scores, weights, SETTINGS) == 0
    scores[2, 8] = np.nan
    assert gripper._best_error(scores, weights, SETTINGS) is None
    scores[1:3, 8:13], scores[1, 10] = 0.5, np.nan
    assert gripper._best_error(scores, weights, SETTINGS) is None
