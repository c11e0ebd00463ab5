# SPDX-License-Identifier: Apache-2.0
"""Gripper openness from the pixels: which opening of the fingers explains their contours best."""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Float64
from retake.core.verdicts.alignment import Alignment
from retake.core.verdicts.closeups import CloseUp
from retake.core.verdicts.finger_moments import TOLD_FRAMES, early_by, own_place
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.gripper_parts import Fingers, changes
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import FollowingSettings
from retake.core.verdicts.truth import Truth

_STEPS = np.linspace(-1.0, 1.0, 21)
"""Openness errors tried."""


_BELIEVED = 4.0
"""Frames; a moment further away is no evidence, what lies beside the hand fits as well."""
_BY_CONTOURS = 1.5
"""Frames up to which contours alone tell a moment before a camera that stands still; beyond they tell nothing."""
_AROUND = 5
"""Frames before and after a change that tell its moment."""
_LARGE = 0.3
"""Change of openness (0..1) whose moment contours can tell."""


def measure_gripper(
    footage: Footage, alignment: Alignment, truth: Truth, fingers: list[Fingers], settings: FollowingSettings
) -> Measurement:
    """gripper_openness: largest openness error (0..1) of any window that the pixels clearly prefer to no error.

    Contours tell it. Those of small fingers lie on much that is none of theirs (moved by its own width, a finger's one side
    lies on its other, and before a shelf of books the rest lies on books), so known scenery is asked as well.
    """
    name = "gripper_openness"
    if not any(gripper.parts for gripper in fingers):
        why = "no gripper with visible moving fingers in the episode"
        return Measurement(name, None, why, applies=False, absent=not fingers)
    worst, frame, series, seen, most = 0.0, None, np.full(len(truth), np.nan), 0, 0
    for gripper in fingers:
        scores, weights = _scores(alignment, truth, gripper, settings)
        usable = weights > 0
        count = int(usable.sum())
        if count < settings.gripper_min_frames:  # frames of another gripper say nothing about the fingers of this one
            most = max(most, count)
            continue
        seen += count
        reach = settings.gripper_window // 2
        for t in np.flatnonzero(usable):
            window = slice(max(t - reach, 0), t + reach + 1)
            if usable[window].sum() < 2:
                continue
            error = _best_error(scores[window], weights[window], settings)
            if error is None:
                continue
            if error:
                frames = [int(u) for u in np.flatnonzero(usable) if window.start <= u < window.stop]
                if own_place(footage, truth, gripper.parts, gripper.travel, np.array([error]), frames)[0]:
                    error = 0.0
            series[t] = max(abs(error), np.nan_to_num(series[t]))
    judged = np.flatnonzero(~np.isnan(series))
    lasting = settings.gripper_lasting
    for k in range(len(judged) - lasting + 1):
        error = float(series[judged[k : k + lasting]].min())
        if error > worst:
            worst, frame = error, int(judged[k])
    if not seen:
        why = f"fingers visible and distinguishable in {most} frames, {settings.gripper_min_frames} needed"
        return Measurement(name, None, why, applies=False)
    return Measurement(name, worst, f"judged in {seen} frames", frame, series=series)


def measure_events(
    footage: Footage, alignment: Alignment, truth: Truth, fingers: list[Fingers], settings: FollowingSettings,
    close: CloseUp | None = None,
) -> Measurement:  # fmt: skip
    """gripper_event: frames by which the gripper opens or closes too early or late, at its worst event. What the fingers cover of
    the scenery tells it, as large as the take shows them; where that cannot, their contours do."""
    name = "gripper_event"
    worst, frame, note, judged, doubtful = 0.0, None, "", 0, None
    every = [(gripper, *change) for gripper in fingers for change in changes(gripper.openness)]
    seen, of, px = (footage, truth, 1.0) if close is None else (close.footage, close.truth, close.px)
    for gripper, begin, end in every:
        if not gripper.parts:
            continue
        early = early_by(
            seen, of, gripper.parts, px * gripper.travel, gripper.openness, begin, end, settings.gripper_event_reach, px
        )
        if early is None and abs(gripper.openness[end] - gripper.openness[begin]) >= _LARGE:
            early = _early(alignment, truth, gripper, begin, end, settings)
            if truth.static_camera and early is not None and (np.isnan(early) or abs(early) > _BY_CONTOURS):
                # Known scenery beside the fingers says nothing of this moment, and edges of shadows and of what is held lie
                # beside theirs: one in twenty faithful videos was in doubt by them, and no more of those with early grippers.
                early = None
        elif early is not None and abs(early) > _BELIEVED:
            early = float("nan")
        if early is None:
            continue
        judged += 1
        if np.isnan(early):
            doubtful = begin
        elif abs(early) > worst:
            opening = gripper.openness[min(end, len(truth) - 1)] > gripper.openness[begin]
            when = "early" if early > 0 else "late"
            worst, frame = abs(early), begin
            note = f"{'opens' if opening else 'closes'} {abs(early):.1f} frames {when}"
    if not judged:
        why = f"no opening or closing whose fingers show enough to tell {TOLD_FRAMES} frames from none"
        return Measurement(name, None, why, applies=False, absent=not every)
    if doubtful is not None and worst == 0.0:
        why = f"around frame {doubtful} the fingers fit another moment as well, or something more than {_BELIEVED:g} frames away"
        return Measurement(name, None, why, doubtful)
    return Measurement(name, worst, note or f"{judged} events", frame)


def _early(
    alignment: Alignment, truth: Truth, gripper: Fingers, begin: int, end: int, settings: FollowingSettings
) -> float | None:
    """Frames by which one change comes early (negative: late): the moment that explains the fingers' contours best; None where a
    change TOLD_FRAMES frames off would fit about as well."""
    reach, radius = settings.gripper_event_reach, alignment.radius
    shifts = np.linspace(-reach, reach, 4 * reach + 1)
    total, weight = np.zeros(len(shifts)), 0.0
    times = np.arange(len(truth), dtype=np.float64)
    for t in range(max(begin - _AROUND, 0), min(end + _AROUND, len(truth) - 1) + 1):
        moved = np.interp(t + shifts, times, gripper.openness) - gripper.openness[t]
        for k, part in enumerate(gripper.parts):
            travel, n = gripper.travel[t, k], alignment.points[t, part]
            if truth.area[t, part] < settings.gripper_event_area or n < 12 or not np.isfinite(travel).all():
                continue
            if np.hypot(*travel) * truth.px < settings.gripper_event_travel_px:
                continue
            total += n * _bilinear(alignment.shift_scores[t, part], moved[:, None] * travel[None, :] + radius)
            weight += n
    if weight < settings.min_points / 2:
        return None
    curve = total / weight
    index, middle = int(np.argmax(curve)), len(shifts) // 2
    if curve[index] - curve[middle] < max(settings.gripper_event_gain, settings.gripper_event_share * curve[index]):
        # That no other moment fits better says something where another one would have been told.
        lost = curve[middle] - max(curve[middle - 2 * TOLD_FRAMES], curve[middle + 2 * TOLD_FRAMES])
        told = lost >= max(settings.gripper_event_gain, settings.gripper_event_share * curve[middle])
        return 0.0 if told else None
    # Fingers that fit ever better the further away show no moment: something else lies in their way.
    if abs(shifts[index]) > _BELIEVED:
        return float("nan")
    return float(shifts[index])


def _scores(
    alignment: Alignment, truth: Truth, gripper: Fingers, settings: FollowingSettings
) -> tuple[Float64[np.ndarray, "T E"], Float64[np.ndarray, "T"]]:
    """Response of the finger contours for every openness error; NaN where the opening would leave 0..1."""
    frames, radius = len(truth), alignment.radius
    scores, weights = np.full((frames, len(_STEPS)), np.nan), np.zeros(frames)
    for t in range(frames):
        # A hand that holds something is no evidence: the object's edges are where closed fingers would be.
        if settings.gripper_clear < gripper.openness[t] < 1 - settings.gripper_clear:
            continue
        opening = gripper.openness[t] + _STEPS
        allowed = (opening > -0.051) & (opening < 1.051)
        total, weight = np.zeros(len(_STEPS)), 0.0
        for k, part in enumerate(gripper.parts):
            travel, n = gripper.travel[t, k], alignment.points[t, part]
            if truth.area[t, part] < settings.finger_min_area or n < 12:
                continue
            # Before another link, whose colour may be the same, an outline need not show, and the one finger that does
            # show fits the other's.
            mine = truth.contours[t].part == part
            if float(truth.contours[t].silhouette[mine].mean()) < settings.finger_min_outline:
                weight = 0.0
                break
            if not np.isfinite(travel).all() or np.hypot(*travel) < settings.finger_min_travel_px:
                continue
            places = _STEPS[:, None] * travel[None, :] + radius
            inside = ((places >= 0) & (places <= 2 * radius)).all(1)
            allowed &= inside
            surface = alignment.shift_scores[t, part]
            total += n * _bilinear(surface, places)
            weight += n
        if weight:
            scores[t, allowed] = total[allowed] / weight
            weights[t] = weight
    return scores, weights


def _bilinear(surface: np.ndarray, places: Float64[np.ndarray, "E 2"]) -> Float64[np.ndarray, "E"]:
    maps = places.astype(np.float32)
    return cv2.remap(surface, maps[None, :, 0], maps[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def _best_error(scores: np.ndarray, weights: np.ndarray, settings: FollowingSettings) -> float | None:
    usable = weights > 0
    valid = np.asarray(~np.isnan(scores[usable]).any(axis=0))
    middle = len(_STEPS) // 2
    if not valid[middle] or valid.sum() < 3:
        return None
    curve = np.where(valid, np.average(np.nan_to_num(scores[usable]), axis=0, weights=weights[usable]), -np.inf)
    index = int(np.argmax(curve))
    if curve[index] - curve[middle] < max(settings.gripper_min_gain, settings.gripper_share * curve[index]):
        return 0.0
    return float(_STEPS[index])
