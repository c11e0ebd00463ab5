# SPDX-License-Identifier: Apache-2.0
"""Objects by hand: where a phase has its error, for how long an object is gone or doubled, what it does instead, and when its
silhouette or its contours can tell."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.verdicts import objects
from retake.core.verdicts.bodies import Body
from retake.core.verdicts.settings import ObjectSettings
from retake.core.verdicts.tracking import Track

FRAMES = 12
SETTINGS = ObjectSettings()
PX = 2.0


def track(**given: Any) -> Track:
    """Of an object that is where it should be, as clear as in the first frame (contrast 0.8)."""
    place = np.tile([20.0, 15.0], (FRAMES, 1))
    known: dict[str, Any] = {
        "part": 1, "found": place.copy(), "expected": place.copy(), "here": np.full(FRAMES, 0.8),
        "best": np.full(FRAMES, 0.8), "second": np.zeros(FRAMES), "second_at": place.copy(), "reference": 0.8,
        "likelihood": np.zeros((FRAMES, 20, 30), np.float32),
    }  # fmt: skip
    return Track(**{**known, **given})


def body(**given: Any) -> Body:
    """Of an object in its place, 400 px², told well from its surroundings."""
    zero = np.zeros(FRAMES)
    known: dict[str, Any] = {
        "part": 1, "area": zero + 400, "looked": zero == 0, "offset": np.zeros((FRAMES, 2)), "missing": zero.copy(),
        "extra": zero.copy(), "size": zero + 1, "contrast": zero + 0.9, "colour": np.full((FRAMES, 3), 90.0),
        "pixels": {}, "behind": zero.copy(), "turn": zero.copy(),
    }  # fmt: skip
    return Body(**{**known, **given})


def truth(px: float = PX, **given: Any) -> Any:
    """A picture of 60 x 40 px with a hand (part 0) and an object (part 1)."""
    labels = np.zeros((FRAMES, 40, 60), np.uint8)
    labels[:, 10:21, 15:26] = 2
    poses = np.tile(np.eye(4), (FRAMES, 2, 1, 1))
    poses[:, :, 2, 3] = 1.0
    known = {
        "px": px, "labels": labels, "size": (60, 40), "robot_parts": [0], "object_parts": [1], "static_camera": True,
        "area": np.tile([50.0, 121.0], (FRAMES, 1)), "centroid": np.tile([[40.0, 30.0], [20.0, 15.0]], (FRAMES, 1, 1)),
        "T_world_part": poses, "T_camera_world": np.tile(np.eye(4), (FRAMES, 1, 1)), "parts": (),
    }  # fmt: skip
    namespace = type("Truth", (SimpleNamespace,), {"__len__": lambda self: FRAMES})
    return namespace(**{**known, **given})


def moved(frames: slice, by: tuple[float, float]) -> np.ndarray:
    out = np.tile([20.0, 15.0], (FRAMES, 1))
    out[frames] += by
    return out


def test_a_far_place_counts_by_how_much_more_it_looks_like_the_object() -> None:
    """Of a contrast of 0.8 it must gain a fifth (0.16) to count, and counts in full from a quarter (0.2) on."""
    here = np.full(FRAMES, 0.8)
    here[3:7] = 0.8 - np.array([0.15, 0.17, 0.2, 0.3])
    far = track(found=moved(slice(3, 7), (9.0, 12.0)), here=here)
    error = objects.position_error(far, truth(), SETTINGS)
    assert error == pytest.approx([0, 0, 0, 0, 30 * 0.17 / 0.2, 30, 30, 0, 0, 0, 0, 0])


def test_an_object_that_hardly_differs_from_its_scenery_must_gain_as_much_as_a_clear_one() -> None:
    """Of a contrast of 0.25 a shadow's 0.09 is a third; it must gain a fifth of what a clear one has (0.6), too."""
    best, here = np.full(FRAMES, 0.25), np.full(FRAMES, 0.25)
    best[3:6] += np.array([0.09, 0.119, 0.13])
    here[7] -= 0.2
    dull = track(found=moved(slice(3, 8), (9.0, 12.0)), best=best, here=here, reference=0.25)
    error = objects.position_error(dull, truth(), SETTINGS)
    assert error == pytest.approx([0, 0, 0, 0, 0, 30 * 0.13 / 0.15, 0, 30, 0, 0, 0, 0])


def test_a_near_place_counts_whatever_it_gains_and_a_half_seen_far_one_is_not_told() -> None:
    best, here = np.full(FRAMES, 0.8), np.full(FRAMES, 0.7)
    here[0] = 0.8
    found = moved(slice(2, 4), (3.0, 4.0))
    found[8], here[8] = [20.0, 21.0], 0.75  # 12 px are no longer near
    found[4], here[4], best[4] = [20.0, 21.0], 0.1, 0.39
    found[5:8] = [29.0, 27.0]
    here[5:8], best[5:8] = 0.1, [0.41, 0.4, 0.39]
    best[9], best[10], best[11] = 0.21, 0.2, np.nan
    error = objects.position_error(track(found=found, best=best, here=here), truth(), SETTINGS)
    assert error[2:4] == pytest.approx(10 * 0.1 / 0.2)
    assert error[5:7] == pytest.approx(30)
    assert np.isnan(error[[4, 7]]).all()
    assert error[8:10].tolist() == [0, 0]
    assert np.isnan(error[10:]).all()


def test_what_a_place_nearby_gains_in_the_first_frame_already_is_discounted() -> None:
    """Half as much again: a place near the first one that gains 0.1 there must gain 0.15 more to be one."""
    here = np.full(FRAMES, 0.65)
    here[0], here[4] = 0.7, 0.5
    near = track(found=moved(slice(0, FRAMES), (0.0, 5.0)), here=here)
    error = objects.position_error(near, truth(), SETTINGS)
    assert error == pytest.approx(np.where(np.arange(FRAMES) == 4, 10 * 0.15 / 0.2, 0.0))
    best = np.full(FRAMES, 0.8)
    best[0] = 0.65  # nothing gained: nothing to discount
    assert objects.position_error(replace(near, best=best), truth(), SETTINGS)[1] == pytest.approx(10 * 0.15 / 0.2)
    far = moved(slice(0, 1), (0.0, 6.0))  # 12 px are no longer near
    far[1:, 1] += 5
    assert objects.position_error(replace(near, found=far), truth(), SETTINGS)[1] == pytest.approx(10 * 0.15 / 0.2)


@pytest.mark.parametrize("phase", ["held", "settled"])
def test_a_phase_is_not_asked_where_it_is_not_or_the_simulation_hides_the_object(phase: str) -> None:
    error, rows, falls = np.full(FRAMES, np.nan), np.zeros(FRAMES, bool), np.zeros(FRAMES, bool)
    none = objects._phase(phase, error + 1, rows, rows | True, falls, SETTINGS)
    assert (none.value, none.applies) == (None, False)
    rows[4:8] = True
    for visible, applies in ((2, False), (3, True)):
        shown = np.zeros(FRAMES, bool)
        shown[: 4 + visible] = True
        found = objects._phase(phase, error, rows, shown, falls, SETTINGS)
        assert (found.value, found.applies) == (None, applies)


def test_one_measured_frame_stands_for_its_phase_and_two_must_agree() -> None:
    rows, falls = np.arange(FRAMES) >= 2, np.zeros(FRAMES, bool)
    error = np.full(FRAMES, np.nan)
    error[[0, 5]] = 50, 7
    one = objects._phase("held", error, rows, rows, falls, SETTINGS)
    assert (one.value, one.worst_frame, one.note) == (7.0, 5, "one frame")
    for later, value, frame in ((9, 4.0, 5), (10, 0.0, 5), (6, 4.0, 5)):
        error[5:] = np.nan
        error[[5, later]] = 7, 4
        found = objects._phase("held", error, rows, rows, falls, SETTINGS)
        assert (found.value, found.worst_frame, found.note) == (value, frame, "2 frames")
    falls[6] = True
    error[6] = 40
    assert objects._phase("held", error, rows, rows, falls, SETTINGS).value == 40


@pytest.mark.parametrize(
    ("gone", "hidden", "longest", "frame"),
    [((), (), 0, None), ((3, 4, 8), (), 2, 4), ((3, 8, 9, 11), (10,), 3, 11), ((3, 4, 8, 9), (), 2, 4)],
)
def test_an_object_is_gone_for_as_long_as_no_measured_frame_shows_it(
    gone: tuple[int, ...], hidden: tuple[int, ...], longest: int, frame: int | None
) -> None:
    best = np.full(FRAMES, 0.8)
    best[list(gone)], best[list(hidden)] = 0.2, np.nan  # a quarter of the contrast is not yet present
    found = objects._presence(track(best=best), truth(), SETTINGS)
    assert (found.value, found.worst_frame) == (longest, frame)
    assert found.note.startswith(f"visible in {FRAMES - len(hidden)} frames, weakest {0.25 if gone else 1:.2f} ")
    best[list(gone)] = 0.201
    assert objects._presence(track(best=best), truth(), SETTINGS).value == 0


def test_what_flies_farther_than_its_size_from_frame_to_frame_is_not_asked_whether_it_shows() -> None:
    """An object of 11 x 11 px: in frames 4 to 8 it is on its way, by ten pixels each or by twelve."""
    best = np.full(FRAMES, 0.8)
    best[5:8] = 0.1
    for step, gone in ((10.0, 3), (12.0, 0)):
        expected = np.tile([20.0, 15.0], (FRAMES, 1))
        expected[:, 0] += step * np.clip(np.arange(FRAMES) - 4, 0, 4)
        found = objects._presence(track(best=best, expected=expected), truth(), SETTINGS)
        assert found.value == gone
    streak = np.stack([12.0 * np.arange(FRAMES), np.zeros(FRAMES)], 1)
    never = objects._presence(track(best=best, expected=streak), truth(), SETTINGS)
    assert (never.value, never.applies) == (None, False)


@pytest.mark.parametrize("step", [1, 2])
def test_a_copy_lasts_for_three_searched_frames_and_is_measured_by_a_clear_object(step: int) -> None:
    second = np.full(FRAMES, np.nan)
    second[2 : 2 + 3 * step : step] = 0.4, 0.32, 0.36
    if step == 2:
        second[3], second[5] = 0.9, 0.9
        second[[1, 7, 9]] = 0.0
    found = objects._unique(track(second=second), SETTINGS, step)
    assert found.value == pytest.approx(0.32 / 0.8)
    assert found.worst_frame == 2 + step
    dull = objects._unique(track(second=second, reference=0.3), SETTINGS, step)
    assert dull.value == pytest.approx(0.32 / 0.6)  # of which the object itself is no measure
    few = objects._unique(track(second=second[: 2 * step]), SETTINGS, step)
    assert few.worst_frame is None
    shortest = objects._unique(track(second=np.full(1 + 2 * step, 0.4)), SETTINGS, step)
    assert (shortest.value, shortest.worst_frame) == (pytest.approx(0.5), step)
    assert objects._unique(track(second=np.full(FRAMES, -1.0)), SETTINGS, step).value == 0


def test_an_object_starts_where_its_first_three_frames_show_it_and_two_px_beside_at_most() -> None:
    sure, offset = np.ones(FRAMES, bool), np.full((FRAMES, 2), 9.0)
    sure[0] = False
    offset[1:5] = [[0.6, 0.8], [np.nan, np.nan], [0.3, 0.4], [0.9, 1.2]]
    assert objects._start(body(offset=offset), sure) == pytest.approx([0.6, 0.8])
    assert objects._start(body(offset=5 * offset), sure) == pytest.approx([1.2, 1.6])
    late = sure.copy()
    late[1] = False  # then the third is after a third of the take
    assert objects._start(body(offset=offset), late) == pytest.approx([0, 0])
    few = np.zeros(FRAMES, bool)
    few[[1, 3]] = True
    assert objects._start(body(offset=offset), few) == pytest.approx([0, 0])


def test_a_silhouette_changes_against_its_first_three_frames() -> None:
    missing, extra = np.full(FRAMES, 0.05), np.full(FRAMES, 0.05)
    missing[6:9], extra[6:9] = 0.25, 0.15
    turn = np.full(FRAMES, 0.2)
    shape = body(missing=missing, extra=extra, turn=turn)
    sure = np.ones(FRAMES, bool)
    found = objects._shape(shape, truth(), sure)
    assert (found.value, found.worst_frame) == (pytest.approx(0.3), 6)
    assert found.note == "missing 0.25, extra 0.15 of its area"
    turn[:] = 0.26
    assert "turned" not in objects._shape(shape, truth(), sure).note
    turn[:] = np.radians(30)
    assert objects._shape(shape, truth(), sure).note.endswith("turned by 30°")
    # Of a side of 10 px a pixel is twice the share, and in a picture no wider than the working image an outline as vague.
    assert objects._shape(replace(shape, area=shape.area / 4), truth(), sure).value == pytest.approx(0.15)
    assert objects._shape(replace(shape, area=shape.area * 4), truth(), sure).value == pytest.approx(0.3)
    assert objects._shape(shape, truth(1.0), sure).value == pytest.approx(0.15)
    assert objects._shape(shape, truth(4.0), sure).value == pytest.approx(0.3)
    three = np.arange(FRAMES) >= FRAMES - 3
    assert objects._shape(shape, truth(), three).value is None
    assert not objects._shape(shape, truth(), three).applies
    assert objects._shape(shape, truth(), np.arange(FRAMES) >= FRAMES - 4).value is not None


@pytest.mark.parametrize(
    ("hand", "own", "expected", "said"),
    [
        ((10, 0), (10, 0), (0, 0), "it goes on with the hand"),
        ((10, 0), (6.1, 0), (0, 0), "it goes on with the hand"),
        ((10, 0), (5.9, 0), (0, 0), "it is 12 px right of its place"),
        ((7.5, 0), (7.5, 0), (0, 0), "it is 15 px right of its place"),
        ((0, 0), (0, 3.9), (0, 10), "it stays where it was let go"),
        ((0, 0), (0, 4.1), (0, 10), "it is 12 px above its place"),
        ((0, 0), (0, 1), (0, 3), "it is 4 px above its place"),
        ((0, 0), (-4, 3), (0, 0), "it is 8 px left of its place"),
        ((0, 0), (3, 4), (0, 0), "it is 8 px below its place"),
    ],
)
def test_a_misplaced_object_is_told_by_what_it_does(hand: Any, own: Any, expected: Any, said: str) -> None:
    """Held up to frame 5 where it should be; after it hand, object and simulated object have gone so many working px."""
    phases = ["held"] * 6 + ["settled"] * 6
    share = np.array([0, 0, 0, 0, 0, 0, 0.1, 0.2, 1, 1, 1, 1])[
        :, None
    ]  # most of the time where they come to in the end
    before = np.where(np.arange(FRAMES) < 4, -30.0, 0.0)[:, None]
    centroid = truth().centroid
    centroid[:, 0] += share * np.array(hand) + before
    place = np.array([20.0, 15.0]) + before
    one = track(found=place + share * np.array(own), expected=place + share * np.array(expected))
    rows = np.array([p == "settled" for p in phases])
    assert objects.behaviour(one, truth(centroid=centroid), rows, phases) == said
    centroid[:, 0] = np.nan
    alone = objects.behaviour(one, truth(centroid=centroid), rows, phases)
    assert ("px" in alone) == (max(np.abs(own)) + max(np.abs(expected)) > 0)
    assert objects.behaviour(one, truth(), rows & False, phases) == "it is not found"


def test_the_nearest_hand_is_the_one_that_an_object_goes_with() -> None:
    phases, later = ["held"] * 6 + ["settled"] * 6, slice(6, FRAMES)
    centroid = np.tile([[24.0, 15.0], [20.0, 15.0], [200.0, 15.0]], (FRAMES, 1, 1))
    centroid[later, 0] += (0.0, 12.0)
    one = track(found=moved(later, (0, 12)), expected=moved(later, (0, 0)))
    rows = np.array([p == "settled" for p in phases])
    two = truth(centroid=centroid, robot_parts=[2, 0])
    assert objects.behaviour(one, two, rows, phases) == "it goes on with the hand"


@pytest.mark.parametrize("rim", [0, 1, 2, 3])
@pytest.mark.parametrize("share", [0.2, 0.49, 0.5, 0.9])
def test_half_of_an_object_at_the_border_has_no_outline_of_its_own(rim: int, share: float) -> None:
    labels = np.zeros((2, 40, 60), np.uint8)
    labels[:, 20:30, 20:30] = 2
    labels[1, 5 : 5 + rim, 59] = 2
    labels[1, 39, 1 : 1 + rim // 3] = 2
    poses = np.tile(np.eye(4), (2, 2, 1, 1))
    poses[:, :, 2, 3] = 1.0
    area = np.array([[0, 100.0], [0, 100.0 * share]])
    given = {"T_world_part": poses, "T_camera_world": np.tile(np.eye(4), (2, 1, 1))}
    found = objects.cropped(truth(labels=labels, area=area, **given), 1)
    assert found.tolist() == [False, rim > 1 and share < 0.5]
    poses[1, :, 2, 3] = 1.5  # as seen from one distance it is 2.25 times as large
    found = objects.cropped(truth(labels=labels, area=area, **given), 1)
    assert found.tolist() == [False, rim > 1 and share < 0.5 / 2.25]


def contours(points: float, scores: np.ndarray) -> Any:
    weight = np.full((FRAMES, 2), points)
    return SimpleNamespace(points=weight, shift_scores=np.tile(scores.astype(np.float32), (FRAMES, 2, 1, 1)))


@pytest.mark.parametrize(
    ("points", "height", "told"), [(10, 5.0, True), (9.9, 5.0, False), (10, 1.85, True), (10, 1.75, False)]
)
def test_where_colours_do_not_tell_contours_may(points: float, height: float, told: bool) -> None:
    """Of 60 points in a phase of six frames; the best place must be 1.8 times the mean of 121 places."""
    scores = np.full((11, 11), 1.0)
    scores[5 + 2, 5 + 1] = (120 * height) / (121 - height)
    phases = ["before"] * 3 + ["held"] * 6 + ["released"] * 0 + ["settled"] * 3
    found = {m.name: m for m in objects._by_contour("dull", contours(points, scores), truth(), 1, phases, SETTINGS)}
    held = found["object_held"]
    assert (held.value is not None) == told
    assert held.applies
    assert found["object_before"].value is None
    assert not found["object_released"].applies
    if told:
        assert held.value == pytest.approx(PX * np.hypot(1, 2), abs=0.05)
        assert held.worst_frame == 3
    rest = [found[name] for name in ("object_present", "object_unique", "object_shape")]
    assert all((m.value, m.applies) == (None, not told) for m in rest)


def test_a_mask_is_the_largest_likely_piece_near_where_the_object_was_found() -> None:
    likelihood = np.zeros((FRAMES, 20, 30), np.float32)
    likelihood[0, 6:9, 8:12] = 0.9
    likelihood[0, 6:8, 14:15] = 0.9
    likelihood[0, 2:18, 24:30] = 0.9
    reference = np.zeros((20, 30), np.uint8)
    reference[6:9, 8:12] = 1
    one = track(likelihood=likelihood, found=np.tile([19.5, 14.5], (FRAMES, 1)))
    assert objects._mask(one, 0, reference).tolist() == (reference > 0).tolist()
    assert not objects._mask(one, 1, reference).any()
    # It reaches 7 px from column 10 and row 7, (20 + 0.5)/2 − 0.5 of the half-size picture: 1.5 times the root of 12, and 2.
    likelihood[0, 6:9, 8:12] = 0
    likelihood[0, :, 17:] = 0.9
    cut = objects._mask(one, 0, reference)
    assert np.argwhere(cut).min(0).tolist() == [0, 17]
    assert np.argwhere(cut).max(0).tolist() == [14, 17]


def test_masks_apart_by_two_px_have_the_published_distances() -> None:
    """A square of 4 x 4 small px found 2 to the right: half of both is in common, columns lie 0, 0, 1 and 2 px away."""
    likelihood = np.zeros((FRAMES, 20, 30), np.float32)
    likelihood[:4, 8:12, 12:16] = 0.9
    labels = np.zeros((FRAMES, 40, 60), np.uint8)
    labels[:, 16:24, 20:28] = 2
    best = np.full(FRAMES, 0.8)
    best[0] = np.nan
    phases = ["before"] * 6 + ["held"] * 3 + ["unknown"] * 3
    found = objects.pisa(
        track(likelihood=likelihood, best=best, found=np.tile([27.5, 19.5], (FRAMES, 1))), truth(labels=labels), phases
    )
    s = 1 / (np.sqrt(2) * 20)
    assert found["object_before_l2"] == pytest.approx(s * 1)
    assert found["object_before_cd"] == pytest.approx(s * 2 * 0.75, rel=0.1)
    assert found["object_before_iou"] == pytest.approx(8 / 24)
    assert found["object_before_vanish_rate"] == pytest.approx(2 / 5)
    assert (found["object_held_l2"], found["object_held_vanish_rate"]) == (None, 1.0)
    assert (found["object_settled_iou"], found["object_settled_vanish_rate"]) == (None, None)


def test_an_object_is_at_home_from_a_contrast_of_a_half_and_two_fifths_of_its_colours_on() -> None:
    contrast, here = np.full(FRAMES, 0.5), np.full(FRAMES, 2.0)
    contrast[:3], here[3:6] = (0.4999, 0.5, np.nan), (1.9999, 2.0, np.nan)
    found = objects.at_home(track(here=here, reference=5.0), body(contrast=contrast), SETTINGS)
    assert np.flatnonzero(~found).tolist() == [0, 2, 3, 5]


def test_a_silhouette_stands_within_four_px_before_what_is_no_scenery() -> None:
    contrast, apart, behind = np.full(FRAMES, 0.28), np.full(FRAMES, 4.0), np.full(FRAMES, 0.5)
    contrast[:2], apart[2:4], behind[4:6] = (0.2799, np.nan), (4.0001, np.nan), (0.5001, np.nan)
    one = body(contrast=contrast, behind=behind)
    assert np.flatnonzero(~objects.stands(one, apart, SETTINGS)).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(objects.stands(one, apart, SETTINGS, 0.4999)).tolist() == [5]


def test_the_weaker_a_sighting_is_the_less_must_what_stands_there_differ_from_the_scenery() -> None:
    best = np.array([0.74, 0.75, 0.6, 0.5, 0.499, 0.499, 0.499, np.nan] * 2)[:FRAMES] * 4
    behind = np.array([0.5, 0.5, 0.51, 0.8, 0.8, 0.801, 0.5, 0.1] * 2)[:FRAMES]
    found = objects.doubted(track(best=best, reference=4.0), body(behind=behind), np.zeros(FRAMES), SETTINGS)
    assert found.tolist() == ([True, False, False, False, True, False, True, False] * 2)[:FRAMES]


def measured(one: Any, other: Any, phases: list[str], **given: Any) -> dict[str, Any]:
    other = replace(other, pixels={t: np.full((4, 3), 90, np.uint8) for t in range(FRAMES)})
    found = objects.measure_object(one, other, contours(0, np.ones((11, 11))), truth(**given), phases, SETTINGS)
    assert tuple(m.name for m in found) == objects.NAMES
    return {m.name: m for m in found}


PHASE = ["before"] * 3 + ["held"] * 3 + ["released"] * 3 + ["settled"] * 3


def test_a_silhouette_in_its_place_tells_how_far_beside_it_an_object_is() -> None:
    """Less what its first frames show, and no farther than its colours are; where these do not show in its place the whole
    picture is asked."""
    offset = np.tile([0.3, 0.4], (FRAMES, 1))
    offset[4:6], offset[9:] = (1.5, 2.0), (3.3, 4.4)
    found = measured(track(found=moved(slice(4, FRAMES), (4.8, 3.6))), body(offset=offset), PHASE)
    assert [found[name].value for name in objects.NAMES[:4]] == pytest.approx([0, 4, 0, 10])
    assert found["object_settled"].note == "3 frames; it is 10 px right of its place"
    here = np.full(FRAMES, 0.8)
    here[9:] = 0.3
    away = track(here=here, found=moved(slice(9, FRAMES), (6.0, 8.0)))
    told = measured(away, body(offset=offset), PHASE)["object_settled"]
    assert told.value == pytest.approx(20)
    looked = np.arange(FRAMES) != 10
    hidden = measured(away, body(offset=offset, looked=looked), PHASE)["object_settled"]
    assert np.isnan(hidden.series).tolist() == [True] * 9 + [False, True, False]


@pytest.mark.parametrize("reference", [0.3, 0.8])
def test_an_outline_alone_does_not_say_that_an_object_is_elsewhere(reference: float) -> None:
    """Fingers that a painter draws wider leave less of it, and its colours are where they were: beside a clear object its outline
    may be a working px farther than these."""
    offset = np.zeros((FRAMES, 2))
    offset[4:, 1] = 4.0
    here = np.full(FRAMES, reference)
    for by in (0.0, 1.0, 5.0):
        value = 2 * min(by + (reference > SETTINGS.clear), 4.0)
        one = track(found=moved(slice(4, FRAMES), (0.0, by)), reference=reference, here=here, best=here)
        found = measured(one, body(offset=offset), PHASE)
        assert [found[f"object_{name}"].value for name in ("held", "settled")] == pytest.approx([value, value])


@pytest.mark.parametrize(("beside", "said"), [(2.9, False), (3.1, True)])
def test_what_an_object_does_instead_is_said_from_half_of_near_on(beside: float, said: bool) -> None:
    """6 px, 3 working px, after it was let go."""
    offset = np.zeros((FRAMES, 2))
    offset[4:, 0] = beside
    found = measured(track(found=moved(slice(4, FRAMES), (beside, 0.0))), body(offset=offset), PHASE)
    for name in ("object_released", "object_settled"):
        assert ("it is" in found[name].note) == said
    assert "it is" not in found["object_held"].note


def test_a_doubted_sighting_is_told_by_neither_unless_the_silhouette_is_farther_away() -> None:
    best, here = np.full(FRAMES, 0.55), np.where(np.arange(FRAMES) < 9, 0.55, 0.3)
    away = track(here=here, best=best, found=moved(slice(9, FRAMES), (6.0, 8.0)))
    assert measured(away, body(), PHASE)["object_settled"].value is None
    clear = replace(away, best=np.full(FRAMES, 0.65))
    assert measured(clear, body(), PHASE)["object_settled"].value == pytest.approx(20)
    scenery = body(behind=np.full(FRAMES, 0.6))
    assert measured(away, scenery, PHASE)["object_settled"].value == pytest.approx(20)


@pytest.mark.parametrize(("reference", "told"), [(0.25, True), (0.2499, False)])
def test_colours_tell_an_object_from_a_quarter_of_contrast_on(reference: float, told: bool) -> None:
    found = measured(track(reference=reference), body(), PHASE)["object_held"]
    assert (found.value is not None) == told
    unseen = objects.measure_object(None, body(), contours(0, np.ones((11, 11))), truth(), PHASE, SETTINGS)
    assert "first frame" in unseen[0].note


@pytest.mark.parametrize(("contrast", "told"), [(0.75, True), (0.7499, False)])
def test_a_shape_needs_three_quarters_of_contrast_and_a_place_within_four_px(contrast: float, told: bool) -> None:
    one = body(contrast=np.full(FRAMES, contrast))
    assert (measured(track(), one, PHASE)["object_shape"].value is not None) == told
    for beside, near in ((4.0, told), (4.001, False)):
        offset = np.full((FRAMES, 2), (beside, 0.0))
        assert (measured(track(), replace(one, offset=offset), PHASE)["object_shape"].value is not None) == near


def test_a_travelling_camera_searches_every_other_frame_for_a_copy() -> None:
    second = np.zeros(FRAMES)
    second[2:9:2] = 0.4
    assert measured(track(second=second), body(), PHASE)["object_unique"].value == 0
    moving = measured(track(second=second), body(), PHASE, static_camera=False)
    assert moving["object_unique"].value == pytest.approx(0.5)


def test_an_object_is_on_its_way_within_the_reach_of_where_it_is_let_go_and_lands() -> None:
    """It falls by 10 px a frame from frame 4 on and lies still from frame 7 on; frames 5 and 6 fall."""
    expected = np.tile([20.0, 10.0], (FRAMES, 1))
    expected[5:, 1] += np.minimum(10.0 * np.arange(1, FRAMES - 4), 30)
    falling = np.isin(np.arange(FRAMES), (5, 6))
    found = expected.copy()
    for places, told in (
        (((24, 10), (20, 44)), (True, True)), (((24.1, 20), (20, 44.1)), (False, False)), (((20, 5.9), (16, 33)), (False, True)),
        (((np.nan, 10), (20, 10)), (False, True)),
    ):  # fmt: skip
        found[5:7] = places
        on = objects.on_path(track(found=found, expected=expected), falling, 4.0)
        assert on.tolist() == [t in (5, 6) and told[t - 5] for t in range(FRAMES)]
    assert not objects.on_path(track(), falling & False, 4.0).any()
    expected[:] = np.nan
    assert not objects.on_path(track(expected=expected), falling, 4.0).any()
    first = objects.on_path(track(), np.arange(FRAMES) == 0, 0.0)
    assert first.tolist() == [True] + [False] * (FRAMES - 1)


def test_what_is_as_far_up_as_aside_is_aside() -> None:
    rows = np.array([p == "settled" for p in PHASE])
    for by, said in (((3, -3), "6 px right"), ((-3, 3), "6 px left"), ((2, -3), "6 px above"), ((0, 0), "0 px right")):
        one = track(found=moved(slice(9, FRAMES), by))
        assert said in objects.behaviour(one, truth(), rows, ["before"] * FRAMES)


def test_the_hand_that_is_nearest_to_a_held_object_is_the_one_it_may_go_with() -> None:
    """Of two the one that is where the object was held, not the one across from it."""
    phases, later = ["held"] * 6 + ["settled"] * 6, slice(6, FRAMES)
    centroid = np.tile([[26.0, 15.0], [20.0, 15.0], [-20.0, -15.0]], (FRAMES, 1, 1))
    centroid[later, 0] += (0.0, 12.0)
    one = track(found=moved(later, (0, 12)), expected=moved(later, (0, 0)))
    rows = np.array([p == "settled" for p in phases])
    for hands in ([2, 0], [0, 2]):
        assert (
            objects.behaviour(one, truth(centroid=centroid, robot_parts=hands), rows, phases)
            == "it goes on with the hand"
        )


@pytest.mark.parametrize(("t", "value"), [(7, 20.0), (4, 0.0), (10, 0.0)])
def test_a_single_frame_is_wrong_where_an_object_falls(t: int, value: float) -> None:
    """Found 10 working px back on its way: too late if it falls there, no place of its own before and after."""
    expected = np.tile([20.0, 15.0], (FRAMES, 1))
    expected[6:, 1] += np.minimum(10.0 * np.arange(FRAMES - 6), 20)
    found, here, contrast = expected.copy(), np.full(FRAMES, 0.8), np.full(FRAMES, 0.9)
    found[t, 1], here[t], contrast[t] = expected[t, 1] - 10, 0.1, 0.1
    one = track(found=found, expected=expected, here=here)
    values = measured(one, body(contrast=contrast), PHASE)
    assert values[f"object_{PHASE[t]}"].value == pytest.approx(value)
    # Of one that hardly differs from its scenery half may not show in one frame.
    for reference, told in ((0.75, value), (0.7499, 0.0)):
        dull = measured(replace(one, reference=reference), body(contrast=contrast), PHASE)
        assert dull[f"object_{PHASE[t]}"].value == pytest.approx(told)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(1, 9), slice(20, 30)),
        (slice(31, 39), slice(20, 30)),
        (slice(9, 19), slice(1, 9)),
        (slice(9, 19), slice(51, 59)),
    ],
)
def test_an_object_a_pixel_away_from_the_border_is_whole(rows: slice, columns: slice) -> None:
    labels = np.zeros((FRAMES, 40, 60), np.uint8)
    labels[:, 10:30, 20:40] = 2
    labels[1] = 0
    labels[1, rows, columns] = 2
    one = truth(labels=labels, area=np.stack([(labels == k).sum((1, 2)) for k in (1, 2)], 1).astype(float))
    assert not objects.cropped(one, 1).any()
