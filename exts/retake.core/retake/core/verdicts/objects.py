# SPDX-License-Identifier: Apache-2.0
"""Object physics: did it stay, come along, fall and land as simulated? Errors per phase, presence, duplicates, PISA.

Published drop-physics measures (L2, CD, IoU of masks) are reported beside the checks, in their own normalisation.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from retake.core.array_types import Bool, Float64
from retake.core.verdicts.alignment import Alignment, peak
from retake.core.verdicts.bodies import Body
from retake.core.verdicts.colours import NAME as COLOUR
from retake.core.verdicts.colours import lasting, measure_colour, views_of
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import ObjectSettings, VerdictSettings
from retake.core.verdicts.tracking import MIN_AREA, SEARCHED, Track
from retake.core.verdicts.truth import Truth

PHASES: tuple[str, ...] = ("before", "held", "released", "settled")
NAMES = (*(f"object_{phase}" for phase in PHASES), "object_present", "object_unique", "object_shape", COLOUR)

_WHOLE = 0.5
"""Share of an object's largest silhouette, as seen from one distance, that the border of the picture must leave."""
_NEXT = 4
"""Frames within which a measured frame is the next one."""
PLACED = 4.0
"""Working px within which an object is in its place and can be asked about its silhouette and colours."""


def measure_object(
    track: Track | None, body: Body, alignment: Alignment, truth: Truth, phases: list[str], settings: ObjectSettings
) -> list[Measurement]:
    """All object checks of one object. `phases` names the phase of every frame."""
    part = body.part
    if track is None:
        why = "the object is not visible in the take's first frame, so its looks cannot be learned"
        return _by_contour(why, alignment, truth, part, phases, settings)
    if track.reference < settings.min_reference:
        why = f"the object's colours do not tell it from the scene (contrast {track.reference:.2f})"
        return _by_contour(why, alignment, truth, part, phases, settings)
    error = position_error(track, truth, settings)
    sure = at_home(track, body, settings)
    apart = np.linalg.norm(body.offset - _start(body, sure), axis=1)
    apart[cropped(truth, part)] = np.nan
    # Fingers that a painter draws wider leave less of an object's outline than of its colours; and before ground of its colours
    # it ends where a shadow or its own dark side does. Then both must say so.
    by_colour = np.linalg.norm(track.found - track.expected, axis=1)
    by_colour += _BEYOND_COLOURS if track.reference >= settings.clear else 0.0
    near = np.where(np.isfinite(by_colour), np.minimum(apart, by_colour), apart) * truth.px
    error[doubted(track, body, apart, settings) & (error > near)] = np.nan
    error = np.where(sure & np.isfinite(near), near, np.where(body.looked, error, np.nan))
    shown = truth.area[:, part] >= MIN_AREA
    falls = on_path(track, np.array([p == "released" for p in phases]), settings.near_px / truth.px)
    # Half of one that hardly differs from its scenery may not show in a frame: it is elsewhere only if the next one says so.
    falls &= track.reference >= settings.plain
    out = []
    for phase in PHASES:
        rows = np.array([p == phase for p in phases])
        found = _phase(f"object_{phase}", error, rows, shown, falls, settings)
        if phase in ("released", "settled") and (found.value or 0.0) > settings.near_px / 2:
            found = replace(found, note=f"{found.note}; {behaviour(track, truth, rows, phases)}")
        out.append(found)
    out.append(_presence(track, truth, settings))
    out.append(_unique(track, settings, 1 if truth.static_camera else SEARCHED))
    placed = sure & (np.nan_to_num(np.linalg.norm(body.offset, axis=1), nan=np.inf) <= PLACED)
    out.append(_shape(body, truth, placed & (np.nan_to_num(body.contrast) >= settings.told_shape)))
    out.append(measure_colour(body, placed, truth))
    return out


def in_doubt(check: Measurement, track: Track, settings: VerdictSettings) -> bool:
    """Whether a check that fails an object which moves by itself, held by no robot, is a doubt: its colours are those of the side
    that it showed at first, in the light of its first place, and where they hardly differ from the scenery's, what looks like it
    elsewhere, or beside it, may be shadow or tray."""
    if check.name not in ("object_before", "object_unique", "object_posture") or check.value is None:
        return False
    return track.reference < settings.object.plain and check.value > settings.threshold(check.name).limit


def at_home(track: Track, body: Body, settings: ObjectSettings) -> Bool[np.ndarray, "T"]:
    """Frames in which the object's own colours show in its place and differ from what surrounds it."""
    told = np.nan_to_num(body.contrast) >= settings.told
    return told & (np.nan_to_num(track.here) >= settings.at_home * track.reference)


def stands(
    body: Body, apart: Float64[np.ndarray, "T"], settings: ObjectSettings, behind: float | None = None
) -> Bool[np.ndarray, "T"]:
    """Frames in which a silhouette like the object's stands out in its place, whatever its colours. apart: working px by
    which it fits beside it. behind: share of it that may look like the very scenery behind.

    An object that turned shows another side, and what has the colours of the first one may then be anything: where its
    silhouette says that it is here and its colours that it is elsewhere, neither is told.
    """
    told = np.nan_to_num(body.contrast) >= settings.stands
    return (
        told
        & (np.nan_to_num(apart, nan=np.inf) <= PLACED)
        & ~(body.behind > (settings.behind if behind is None else behind))
    )


def doubted(
    track: Track, body: Body, apart: Float64[np.ndarray, "T"], settings: ObjectSettings
) -> Bool[np.ndarray, "T"]:
    """Frames in which a sighting of the object beside its place is too weak for what stands in its place: the weaker it is,
    the less need that differ from the scenery behind."""
    out = np.zeros(len(apart), bool)
    for believed, behind in ((settings.plain, settings.behind), (settings.sighted, settings.behind_sighted)):
        out |= (track.best < believed * track.reference) & stands(body, apart, settings, behind)
    return out


def cropped(truth: Truth, part: int) -> Bool[np.ndarray, "T"]:
    """Frames in which the border of the picture leaves less than half of an object: the rest has no outline of its own."""
    size = truth.area[:, part] * np.square(views_of(truth, part)[1])
    rim = np.ones(truth.labels.shape[1:], bool)
    rim[1:-1, 1:-1] = False
    touches = (truth.labels[:, rim] == part + 1).sum(1) > 1
    return touches & (size < _WHOLE * size.max())


_BEYOND_COLOURS = 1.0
"""Working px by which a clear object's outline may be farther beside its place than its colours are."""
SIDE = 20.0
"""Working px."""
START = 2.0
"""Working px by which the take's own first frames may show an object beside its place: a painter that draws it wider on one
side is no motion."""


def _start(body: Body, sure: Bool[np.ndarray, "T"]) -> Float64[np.ndarray, "2"]:
    """Offset of the first three frames that tell one, at most START long."""
    rows = np.flatnonzero(sure & np.isfinite(body.offset).all(1))[:3]
    if len(rows) < 3 or rows[-1] > len(sure) // 3:
        return np.zeros(2)
    offset = np.median(body.offset[rows], axis=0)
    return offset * min(1.0, START / max(float(np.hypot(*offset)), 1e-9))


def _shape(body: Body, truth: Truth, sure: Bool[np.ndarray, "T"]) -> Measurement:
    """Change of the silhouette against the first frames', share of the mask; three frames in a row at least.

    What is missing and extra where the mask fits best; one that sinks or turns is told by `postures`.
    """
    name = "object_shape"
    rows = np.flatnonzero(sure & np.isfinite(body.silhouette))
    if len(rows) < 4:
        return Measurement(name, None, f"its silhouette can be told in {len(rows)} frames, 4 needed", applies=False)
    start = float(np.median(body.silhouette[rows[:3]]))
    series = np.full(len(sure), np.nan)
    # A pixel more on every side is a larger share of a small object: shares are those of one SIDE px wide and high.
    # Video stores colour at half resolution: in a recording no wider than the working image, an outline is twice as vague.
    small = np.minimum(np.sqrt(body.area) / SIDE, 1.0) * min(truth.px / 2, 1.0)
    series[rows] = ((body.silhouette - start) * small)[rows].clip(0)
    k, value = lasting(series, rows)
    t = int(rows[k])
    note = f"missing {body.missing[t]:.2f}, extra {body.extra[t]:.2f} of its area"
    if np.isfinite(body.turn[t]) and body.turn[t] > 0.26:
        note += f", turned by {np.degrees(body.turn[t]):.0f}°"
    return Measurement(name, value, note, t, series=series)


_NO_PHASE = "the episode has no such phase in these frames"


def _by_contour(
    why: str, alignment: Alignment, truth: Truth, part: int, phases: list[str], settings: ObjectSettings
) -> list[Measurement]:
    """Where colours cannot tell, contours may: a phase is judged if they clearly fit near the simulator's place."""
    out = []
    for phase in PHASES:
        name = f"object_{phase}"
        rows = np.array([p == phase for p in phases])
        if not rows.any():
            out.append(Measurement(name, None, _NO_PHASE, applies=False, absent=True))
            continue
        weight = alignment.points[rows, part]
        if weight.sum() < settings.min_contour_points:
            out.append(Measurement(name, None, why))
            continue
        surfaces = alignment.shift_scores[rows, part].astype(np.float64)
        score = np.einsum("t,tij->ij", weight, surfaces) / weight.sum()
        dx, dy, _ = peak(score, settings.contour_prior)
        if score.max() < settings.min_contour_support * max(float(score.mean()), 1e-6):
            out.append(Measurement(name, None, f"{why}; neither do its contours"))
            continue
        note = "by contours: " + why
        out.append(Measurement(name, float(np.hypot(dx, dy)) * truth.px, note, int(np.flatnonzero(rows)[0])))
    judged = any(m.value is not None for m in out)
    return [*out, *(Measurement(n, None, why, applies=not judged) for n in NAMES[len(PHASES) :])]


def position_error(track: Track, truth: Truth, settings: ObjectSettings) -> Float64[np.ndarray, "T"]:
    """Distance of the found from the simulated centroid, px.

    A far place counts only when it explains the colours clearly better than the simulator's place: a neighbour of the
    same colour must not pull the track away. What a place nearby gains in the first frame already, where the object is
    known to be, is discounted in all. Frames in which the object is found nowhere are NaN (see presence).
    """
    distance = np.linalg.norm(track.found - track.expected, axis=1) * truth.px
    # One that hardly differs from its scenery has a small contrast, of which a passing shadow is a large share.
    scale = max(track.reference, settings.clear)
    gain = track.best - track.here
    if distance[0] < settings.near_px:
        gain = gain - settings.known * max(float(gain[0]), 0.0)
    prefer = (gain > settings.margin * scale) | (distance < settings.near_px)
    sure = np.clip(gain / (settings.sure * scale), 0.0, 1.0)
    error = np.where(prefer, distance * sure, 0.0)
    nowhere = ~(track.best > settings.present * track.reference)
    error[nowhere | np.isnan(track.best)] = np.nan
    # What looks half like it somewhere else, while it is not to be seen in its place, is no sighting.
    error[prefer & (distance >= settings.near_px) & (track.best < settings.sighted * track.reference)] = np.nan
    return error


def behaviour(track: Track, truth: Truth, rows: Bool[np.ndarray, "T"], phases: list[str]) -> str:
    """What a misplaced object does instead, in words, over the frames of one phase after its release."""
    seen = rows & np.isfinite(track.found).all(1) & np.isfinite(track.expected).all(1)
    held = np.flatnonzero(np.array([p == "held" for p in phases]) & np.isfinite(track.found).all(1))
    if not seen.any():
        return "it is not found"
    gap = np.median(track.found[seen] - track.expected[seen], axis=0) * truth.px
    if len(held):
        last, now = int(held[-1]), np.flatnonzero(seen)
        hands = [p for p in truth.robot_parts if np.isfinite(truth.centroid[[last, now[-1]], p]).all()]
        if hands:
            hand = min(hands, key=lambda p: np.hypot(*(truth.centroid[last, p] - track.found[last])))
            way = (truth.centroid[now[-1], hand] - truth.centroid[last, hand]) * truth.px
            own = (track.found[now[-1]] - track.found[last]) * truth.px
            if np.hypot(*way) > 15 and np.hypot(*(own - way)) < 0.4 * np.hypot(*way):
                return "it goes on with the hand"
            fall = np.hypot(*(track.expected[now[-1]] - track.expected[last])) * truth.px
            if fall > 6 and np.hypot(*own) < 0.4 * fall:
                return "it stays where it was let go"
    if abs(gap[1]) > abs(gap[0]):
        return f"it is {abs(gap[1]):.0f} px {'above' if gap[1] < 0 else 'below'} its place"
    return f"it is {abs(gap[0]):.0f} px {'left' if gap[0] < 0 else 'right'} of its place"


def on_path(track: Track, falling: Bool[np.ndarray, "T"], reach: float) -> Bool[np.ndarray, "T"]:
    """Falling frames whose object is found within `reach` (working px) of the way it falls along in the simulation, from where
    it was let go to where it lands."""
    rows = np.flatnonzero(falling)
    out = np.zeros(len(falling), bool)
    if not len(rows):
        return out
    way = track.expected[max(rows[0] - 1, 0) : rows[-1] + 2]
    way = way[np.isfinite(way).all(1)]
    for t in rows[np.isfinite(track.found[rows]).all(1)]:
        out[t] = len(way) > 0 and _distance(track.found[t], way) <= reach
    return out


def _distance(point: Float64[np.ndarray, "2"], way: Float64[np.ndarray, "N 2"]) -> float:
    """From a point to the nearest place on a line through points."""
    begin, step = way[:-1], np.diff(way, axis=0)
    if not len(begin):
        return float(np.hypot(*(point - way[0])))
    share = np.clip(((point - begin) * step).sum(1) / np.maximum((step**2).sum(1), 1e-12), 0.0, 1.0)
    return float(np.hypot(*(point - begin - share[:, None] * step).T).min())


def _phase(
    name: str, error: np.ndarray, rows: np.ndarray, shown: np.ndarray, falls: np.ndarray, settings: ObjectSettings
) -> Measurement:
    """The error of one phase; `falls`: frames that count alone, for a fall at the wrong speed is wrong for a frame or two."""
    if not rows.any():
        return Measurement(name, None, _NO_PHASE, applies=False, absent=True)
    series = np.where(rows, error, np.nan)
    valid = np.flatnonzero(~np.isnan(series))
    if not len(valid):
        if (rows & shown).sum() < settings.min_phase_frames:
            return Measurement(name, None, "the simulation hides the object in this phase", applies=False)
        return Measurement(name, None, "the object shows in this phase, but nothing tells where it is")
    if len(valid) == 1:
        return Measurement(name, float(series[valid[0]]), "one frame", int(valid[0]), series=series)
    # A wrong place must hold for two measured frames in a row: single ones suffer from occlusion edges, and no object is
    # elsewhere for a moment. On the way it falls along it may be too early or too late for one.
    later = np.where(np.diff(valid) <= _NEXT, np.minimum(series[valid[1:]], series[valid[:-1]]), 0.0)
    pairs = np.maximum(np.append(later, 0.0), np.append(0.0, later))
    worst = np.where(falls[valid], series[valid], pairs)
    k = int(np.argmax(worst))
    return Measurement(name, float(worst[k]), f"{len(valid)} frames", int(valid[k]), series=series)


_IN_FLIGHT = 1.0
"""Sizes of itself by which an object moves from frame to frame where it is not asked whether it shows: a blurred streak in other
light has not the colours of the first frame. One that a hand lets go falls by a third."""


def _presence(track: Track, truth: Truth, settings: ObjectSettings) -> Measurement:
    """Longest time (frames) for which the object is found nowhere although the simulation shows it."""
    moved = np.nan_to_num(np.linalg.norm(np.diff(track.expected, axis=0), axis=1))
    fast = np.maximum(np.append(moved, 0.0), np.append(0.0, moved)) > _IN_FLIGHT * np.sqrt(truth.area[:, track.part])
    measured = ~np.isnan(track.best) & ~fast
    if not measured.any():
        return Measurement("object_present", None, "it moves too fast to be asked", applies=False)
    gone = measured & ~(track.best > settings.present * track.reference)
    longest, frame, run = 0, None, 0
    for t in np.flatnonzero(measured):
        run = run + 1 if gone[t] else 0
        if run > longest:
            longest, frame = run, int(t)
    series = np.where(measured, track.best / track.reference, np.nan)
    note = f"visible in {int(measured.sum())} frames, weakest {np.nanmin(series):.2f} of the first frame's contrast"
    return Measurement("object_present", float(longest), note, frame, series=series)


def _unique(track: Track, settings: ObjectSettings, step: int) -> Measurement:
    """Contrast of a second copy, relative to the first frame's, that lasts for three frames; of those that were searched, every
    `step`th.

    An object that hardly differs from its scenery has a small contrast, and a shadow that passes over that scenery may
    reach it: then the copy is compared with `settings.clear` instead.
    """
    strength = np.where(np.isnan(track.second), 0.0, track.second) / max(track.reference, settings.clear)
    if len(strength) < 1 + 2 * step:
        return Measurement("object_unique", float(strength.min()), "", None)
    lasting = np.minimum(np.minimum(strength[: -2 * step], strength[step:-step]), strength[2 * step :])
    k = int(np.argmax(lasting))
    return Measurement(
        "object_unique", float(max(lasting[k], 0.0)), "strength of a second copy", k + step, series=strength
    )


def pisa(track: Track, truth: Truth, phases: list[str]) -> dict[str, float | None]:
    """L2, CD and IoU of object masks per phase, and the share of frames without a mask.

    L2 = s · mean |Δcentroid| over frames and both coordinates, CD = s · mean of both nearest-neighbour distances,
    s = 1/(√2 H): the released evaluation of PISA (arXiv 2503.09595), in half working pixels here (s scales with H).
    """
    rows: dict[str, list[tuple[float, float, float]]] = {phase: [] for phase in PHASES}
    empty = dict.fromkeys(PHASES, 0)
    half = (truth.size[0] // 2, truth.size[1] // 2)
    s = 1 / (np.sqrt(2) * half[1])
    for t in range(len(truth)):
        if np.isnan(track.best[t]) or phases[t] not in rows:
            continue
        reference = cv2.resize((truth.labels[t] == track.part + 1).astype(np.uint8), half, interpolation=cv2.INTER_AREA)
        found = _mask(track, t, reference)
        if not reference.any():
            continue
        if not found.any():
            empty[phases[t]] += 1
            continue
        x, y, width, height = cv2.boundingRect(reference | found.astype(np.uint8))
        box = np.s_[y : y + height, x : x + width]
        reference, found = reference[box], found[box]
        a, b = np.argwhere(reference), np.argwhere(found)
        l2 = s * float(np.abs(a.mean(0) - b.mean(0)).mean())
        to_reference = cv2.distanceTransform((1 - reference).astype(np.uint8), cv2.DIST_L2, 5)
        to_found = cv2.distanceTransform((~found).astype(np.uint8), cv2.DIST_L2, 5)
        cd = s * float(to_reference[found].mean() + to_found[reference > 0].mean())
        iou = float((found & (reference > 0)).sum() / (found | (reference > 0)).sum())
        rows[phases[t]].append((l2, cd, iou))
    out: dict[str, float | None] = {}
    for phase in PHASES:
        values = np.array(rows[phase])
        for k, name in enumerate(("l2", "cd", "iou")):
            out[f"object_{phase}_{name}"] = float(values[:, k].mean()) if len(values) else None
        total = len(values) + empty[phase]
        out[f"object_{phase}_vanish_rate"] = empty[phase] / total if total else None
    return out


def _mask(track: Track, t: int, reference: np.ndarray) -> np.ndarray:
    """Pixels of the object around the place where it was found."""
    likely = track.likelihood[t] > 0.5
    centre = np.round((track.found[t] + 0.5) / 2 - 0.5).astype(int)
    reach = int(1.5 * np.sqrt(reference.sum())) + 2
    out = np.zeros_like(likely)
    x, y = int(centre[0]), int(centre[1])
    box = np.s_[max(y - reach, 0) : max(y + reach + 1, 0), max(x - reach, 0) : max(x + reach + 1, 0)]
    if not likely[box].any():
        return out
    _, labels, stats, _ = cv2.connectedComponentsWithStats(likely[box].astype(np.uint8))
    out[box] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return out
