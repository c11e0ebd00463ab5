# SPDX-License-Identifier: Apache-2.0
"""An object's posture: does its silhouette fit as simulated better than turned, sunk, lying, larger or smaller?

The object's body is the convex hull of its own recorded depth. Every other posture is drawn at the same place, and only
pixels in which it differs from the simulator's silhouette are asked whether they show the object (its colours in the
take's first frames) or what lies behind it (the take's own scenery; see `posture_evidence`). A warp or a wider outline is
granted to every posture alike. 0: the pixels are as expected of the simulator's posture, 1: as expected of the other one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.geometry import axis_angle, inverse
from retake.core.verdicts.bodies import signed_distance
from retake.core.verdicts.colours import views_of
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.posture_evidence import MIN_AREA, NEAR, Earlier, Evidence, colours_of
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import ObjectSettings
from retake.core.verdicts.truth import Truth

NAME = "object_posture"
PHASES = ("before", "held", "settled")
_FRAMES = 5
"""Frames that are asked per phase."""
_PAD, _SHIFT = 14, 1
"""Working px around the silhouette; shift that is granted to every posture."""
_MIN_CHANGE, _MIN_PIXELS = 0.1, 40.0
"""Share of the silhouette and working px² (over all frames of a phase) by which a posture must differ to be asked."""
_BODY_FIT = 0.8
"""Intersection over union of hull and recorded mask from which on the hull stands for the object."""
_WIDER = 0.004
"""Share of the silhouette's area that another width must explain beyond the simulated one."""
_ALL_ROUND = 0.75
"""Share of the telling pixels beside the outline that must speak for another width."""
_SHARP = 2.0
"""Recorded px per working px from which on an outline's colours are as sharp as the working picture. Video stores colour at
half resolution: below that, the pixels on both sides of an outline show a mixture and count for less."""
_TOLD_AROUND, _TOLD_INSIDE = 0.2, 0.4
"""Mean evidence around all postures, and that of their common middle, from which on a frame is asked. Where only some of what
surrounds the object looks like it, pixels there say nothing and the others decide."""
_BIASED = 0.4
"""Share of the way to another posture that the pictures of the first phase go, up to which it is how they are drawn and is taken
off later phases, and from which on later phases, too, make a posture unsure and fail none. An object that stands otherwise all
along goes the whole way."""
_DOUBTED = 0.7
"""Share of the way to another posture from which on it may be that one, if unseen places have the colours of the others."""
_BLED, _DRAWN_WIDER, _MIN_BEYOND = 1.4, 2.4, 0.2
"""Working px from the outline up to which colours bleed over it, up to which a painter may draw any object larger or smaller
(3 px of 640) besides, and the share of the pixels in which a posture differs that must lie farther away: the others say as
much of a codec as of a posture. Another size is told from beyond the second, another stand from beyond the first."""
_MIN_SURE, _MIN_REACH = 0.3, 0.3
"""Mean evidence of the pixels in which a posture differs, and the difference it must make per such pixel, to be asked."""


@dataclass(frozen=True)
class Posture:
    """One way in which a body may stand other than simulated, in world axes about its middle."""

    name: str
    turn: Float64[np.ndarray, "3 3"]
    scale: tuple[float, float] = (1.0, 1.0)
    """Across and upwards."""
    sink_m: float = 0.0


def _turned(axis: tuple[float, ...], degrees: float) -> Float64[np.ndarray, "3 3"]:
    return axis_angle(np.array(axis, np.float64), np.float64(np.radians(degrees)))


POSTURES = (
    *(Posture(f"turned by {abs(a)}°", _turned((0, 0, 1), a)) for a in (30, -30, 45, -45, 60, -60, 75, -75, 90)),
    *(Posture("lying", _turned(axis, 90)) for axis in ((1, 0, 0), (0, 1, 0))),
    *(Posture(f"sunk by {100 * d:g} cm", np.eye(3), sink_m=d) for d in (0.02, 0.03, 0.045)),
    Posture("wider", np.eye(3), (1.4, 1.0)), Posture("narrower", np.eye(3), (0.65, 1.0)),
    Posture("taller", np.eye(3), (1.0, 1.35)), Posture("lower", np.eye(3), (1.0, 0.7)),
)  # fmt: skip


def measure_posture(
    footage: Footage, truth: Truth, episode: Episode, camera: str, part: int, phases: list[str],
    settings: ObjectSettings,
) -> Measurement:  # fmt: skip
    """object_posture: how far the pixels go from the simulator's posture (0) to another (1), in any phase."""
    if "depth" not in episode.header.camera(camera).channels:
        return Measurement(NAME, None, "no depth was recorded, so the object's body is unknown", applies=False)
    hull = body_hull(truth, episode, camera, part)
    if hull is None:
        return Measurement(NAME, None, "the object shows too little of its body", applies=False)
    colours = colours_of(footage, truth, part)
    if colours is None:
        return Measurement(NAME, None, "the object's colours cannot be learned from the first frames", applies=False)
    views = phase_views(Evidence(footage, truth, part, colours), phases, hull)
    girth = width_of(views)
    worst, note, frame = None, "", None
    untold, doubt, drawn = False, "", None
    drawn_so: dict[str, float] = {}
    for phase, (rows, seen) in views.items():
        asked = [view for view in seen if view.told]
        first = drawn is None
        gains = [_gain(view, girth, first) for view in asked]
        shares = _shares(gains, girth)
        if truth.static_camera and phase == PHASES[0] and len(_resting(truth, part, rows)) == len(rows):
            shares = _in_every(shares, [_shares([gain], girth) for gain in gains])
        if first:
            drawn_so = {name: min(max(share, 0.0), _BIASED) for name, share in shares.items() if share is not None}
        else:
            shares = {name: _beyond(share, drawn_so.get(name, 0.0)) for name, share in shares.items()}
        for name, share in shares.items():
            untold |= share is None
            if share is not None and (worst is None or share > worst):
                worst, note, frame = share, f"{name}, {phase}", rows[len(rows) // 2]
        if drawn is None:
            drawn = worst or 0.0
        elif _BIASED <= drawn < _DOUBTED <= (worst or 0.0):
            return Measurement(NAME, None, f"{note}: or it is drawn so, for in its first place it looks so too", frame)
        doubted = [replace(v, field=v.doubted) for v in asked if v.doubted is not None]
        for name, share in _shares([_gain(view, girth, first) for view in doubted], girth).items():
            if share is not None and share > _DOUBTED:
                doubt = f"{name}, {phase}: or an end of it that no earlier frame has shown looks like what surrounds it"
    if doubt and (worst is None or worst < _DOUBTED):
        return Measurement(NAME, None, doubt)
    if worst is None and any(seen for _, seen in views.values()):
        like = untold or any(not view.told for _, seen in views.values() for view in seen)
        why = "scenery around it has its colours" if like else "it looks the same in every posture"
        return Measurement(NAME, None, why, applies=like)
    if worst is None:
        return Measurement(NAME, None, "hidden, or no body of its own can be seen", applies=False)
    return Measurement(NAME, max(worst, 0.0), note, frame)


def _beyond(share: float | None, drawn: float) -> float | None:
    """How far pixels go to another posture beyond what they do where the object stands as simulated."""
    return None if share is None else (share - drawn) / (1 - drawn)


def _in_every(shares: dict[str, float | None], single: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Of what rests, how far every frame by itself goes to a posture: it has but one, and light that changes changes its
    colours in some frames only."""
    out = dict(shares)
    for name, share in shares.items():
        told = [found[name] for found in single if found.get(name) is not None]
        if share is not None and len(told) >= 2:
            out[name] = min(share, *(value for value in told if value is not None))
    return out


def width_of(views: dict[str, tuple[list[int], list[_View]]]) -> int | None:
    """Working px by which the painter draws the object wider, from the first phase: what it draws wider it draws so to
    the end. None where only the last phase shows."""
    first = next((seen for phase, (_, seen) in views.items() if phase != PHASES[-1]), None)
    if first is None:
        return None
    found = {0: (0.0, 1.0)}
    for girth in (-1, 1):
        gained, ring = 0.0, []
        for view in first:
            moved, own, other = _moved_fields(view.field), view.whole.ravel(), _wider(view.whole, girth).ravel()
            shift = int(np.argmax(moved @ other.astype(np.float32)))
            gained += float(moved[shift] @ other.astype(np.float32)) - float(_explained(moved, [view.whole])[0])
            ring.append(girth * moved[shift][own != other])
        said = np.concatenate(ring)
        found[girth] = gained, float((said > 0).sum() / max((said != 0).sum(), 1))
    # Another width must be clearly better, and so on most sides: evidence at the rim is mixed, and hues bleed on dark ground.
    area = sum(float(v.whole.sum()) for v in first)
    good = [g for g, (gained, sides) in found.items() if gained >= _WIDER * area * abs(g) and sides >= _ALL_ROUND]
    return max(good, key=lambda girth: found[girth][0])


def phase_views(
    evidence: Evidence, phases: list[str], hull: Float64[np.ndarray, "N 3"]
) -> dict[str, tuple[list[int], list[_View]]]:
    """Frames and views per phase, in the later two thirds of each; of what rests from the start before a standing camera in
    the first third. Its colours are those of the first frames, until a shadow that moves over it or goes away changes them;
    and that it stays where it is, others judge (`object_before`, `still_objects`)."""
    truth, part, out = evidence.truth, evidence.part, {}
    for phase in PHASES:
        rows = [t for t, p in enumerate(phases) if p == phase and truth.area[t, part] >= MIN_AREA and t > 0]
        if len(rows) >= 3:
            earlier = evidence.earlier(phases, phase)
            resting = _resting(truth, part, rows) if truth.static_camera and phase == PHASES[0] else []
            first, last = (0, max(len(resting) // 3, 2)) if len(resting) >= 3 else (len(rows) // 3, len(rows) - 1)
            asked = resting if len(resting) >= 3 else rows
            rows = [asked[k] for k in np.unique(np.linspace(first, last, _FRAMES).astype(int))]
            seen = [view for t in rows if (view := _view(evidence, t, hull, earlier)) is not None]
            if len(seen) >= 2:
                out[phase] = (rows, seen)
    return out


_RESTING_M = 2e-3
"""By which an object may move in a simulation that has it at rest."""


def _resting(truth: Truth, part: int, rows: list[int]) -> list[int]:
    """Those of the frames in which the object is where it is in most of them."""
    place = truth.T_world_part[rows, part, :3, 3]
    away = np.abs(place - np.median(place, axis=0)).max(1)
    return [t for t, off in zip(rows, away, strict=True) if off < _RESTING_M]


def body_hull(truth: Truth, episode: Episode, camera: str, part: int) -> Float64[np.ndarray, "N 3"] | None:
    """Corners of the convex hull of what depth shows of an object, m, object frame; None where it shows too little."""
    seen = shows_body(truth.area[:, part], views_of(truth, part)[1])
    points = []
    for t in seen[np.unique(np.linspace(0, len(seen) - 1, 5).astype(int))] if len(seen) else ():
        depth = cv2.resize(
            np.asarray(episode.image(camera, "depth", truth.start + int(t)), np.float32), truth.size,
            interpolation=cv2.INTER_NEAREST,
        )  # fmt: skip
        rows, columns = np.nonzero((truth.labels[t] == part + 1) & (depth > 0))
        if len(rows) < 0.5 * MIN_AREA:
            continue
        K, z = truth.K[t], depth[rows, columns].astype(np.float64)
        uv = truth.ideal(int(t), np.stack([columns, rows], 1).astype(np.float64)) + 0.5
        p = np.stack([(uv[:, 0] - K[0, 2]) / K[0, 0] * z, (uv[:, 1] - K[1, 2]) / K[1, 1] * z, z], 1)
        T = inverse(truth.T_camera_world[t] @ truth.T_world_part[t, part])
        body = p @ T[:3, :3].T + T[:3, 3]
        away = np.linalg.norm(body - np.median(body, axis=0), axis=1)
        body = body[away < 3 * np.median(away)]
        points.append(body[:: max(1, len(body) // 1500)])
    if not points:
        return None
    every = np.concatenate(points)
    # The extreme points in many directions are the hull, near enough.
    k = np.arange(200) + 0.5
    polar, round_ = np.arccos(1 - 2 * k / 200), np.pi * (1 + 5**0.5) * k
    ways = np.stack([np.cos(round_) * np.sin(polar), np.sin(round_) * np.sin(polar), np.cos(polar)], 1)
    return every[np.unique(np.ascontiguousarray(ways @ every.T).argmax(1))]


def shows_body(area: Float64[np.ndarray, "T"], distance: Float64[np.ndarray, "T"]) -> np.ndarray:
    """Frames that show most of a body: as seen from one distance, for a near view that the border cuts is larger than a
    whole one from afar. area: visible working px²; distance: m."""
    size, enough = area * np.square(distance), area >= MIN_AREA
    return np.flatnonzero(enough & (size >= 0.5 * size.max(where=enough, initial=0.0)))


@dataclass(frozen=True, eq=False)
class _View:
    """One frame's evidence around the object, with the postures' silhouettes."""

    field: Float32[np.ndarray, "h w"]
    free: Bool[np.ndarray, "h w"]
    whole: UInt8[np.ndarray, "h w"]
    others: list[UInt8[np.ndarray, "h w"]]
    told: bool
    """The object's middle and what surrounds all postures are told apart: otherwise the pixels between say nothing."""
    doubted: Float32[np.ndarray, "h w"] | None = None
    """The evidence if places of the object that no earlier frame has shown had the colours of the others."""


def _view(evidence: Evidence, t: int, hull: Float64[np.ndarray, "N 3"], earlier: Earlier) -> _View | None:
    """None where the hull does not stand for the object, or too little of it is free. earlier: frames that have shown it."""
    truth, part = evidence.truth, evidence.part
    drawn = _silhouettes(truth, t, part, hull)
    if drawn is None:
        return None
    box, whole, others = drawn
    labels = truth.labels[t][box]
    other = ((labels > 0) & (labels != part + 1)).astype(np.uint8)
    free = cv2.dilate(other, np.ones((2 * NEAR + 1,) * 2, np.uint8)) == 0
    mask = labels == part + 1
    union = ((mask | (whole > 0)) & free).sum()
    if union < 0.5 * MIN_AREA or (mask & (whole > 0) & free).sum() < _BODY_FIT * union:
        return None
    # Where the hull is no body (it was never seen whole), a posture that differs there is none either.
    apart = (mask != (whole > 0)).astype(np.uint8)
    free &= cv2.dilate(cv2.erode(apart, np.ones((2, 2), np.uint8)), np.ones((5, 5), np.uint8)) == 0
    union = np.max([whole, *others], axis=0)
    near = cv2.dilate(union, np.ones((5, 5), np.uint8)) > 0
    field, doubted = evidence.field(t, box, whole > 0, ~near & free, free, hull, earlier)
    ring = (cv2.dilate(union, np.ones((13, 13), np.uint8)) > 0) & ~near & free
    # What every posture covers, but those that leave the place altogether.
    core = (np.mean([whole, *others], axis=0) > 0.8) & free
    told = ring.any() and core.any() and field[ring].mean() < -_TOLD_AROUND and field[core].mean() > _TOLD_INSIDE
    if truth.px < _SHARP:
        rim = np.where(np.abs(signed_distance(whole > 0)) < 1, truth.px / _SHARP, 1.0).astype(np.float32)
        field, doubted = field * rim, doubted * rim
    return _View(field, free, whole, others, bool(told), doubted)


@dataclass(frozen=True, eq=False)
class _Gain:
    """What one frame says of every posture, in units of evidence."""

    found: Float64[np.ndarray, "P"]
    """By how much it explains the pixels better than the simulator's."""
    own: Float64[np.ndarray, "P"]
    """The same of pixels of the simulator's posture, as certain as the take's."""
    full: Float64[np.ndarray, "P"]
    """The same of pixels of that posture."""
    changed: Float64[np.ndarray, "P"]
    """Pixels in which it differs."""
    strength: Float64[np.ndarray, "P"]
    """Certainty of these."""


def _gain(view: _View, girth: int | None, first: bool = False) -> _Gain:
    """What a frame says of every posture. `girth`: how the painter draws the object, see `width_of`. `first`: in the phase
    that it is known from."""
    found, own, full, changed, strength = (np.zeros(len(POSTURES)) for _ in range(5))
    drawn = [_wider(mask, girth or 0) for mask in (view.whole, *view.others)]
    # Only what some silhouette covers counts.
    covered = np.flatnonzero(np.max(drawn, axis=0))
    width = view.field.shape[1]
    row, column = np.divmod(covered, width)
    shifts = range(2 * _SHIFT + 1)
    places = np.stack([(row + y) * (width + 2 * _SHIFT) + column + x for y in shifts for x in shifts])
    inside = np.stack([mask.ravel()[covered] for mask in drawn], 1).astype(np.float32)

    def explained(field: Float32[np.ndarray, "h w"], masks: Float32[np.ndarray, "N M"]) -> Float32[np.ndarray, "M"]:
        padded = cv2.copyMakeBorder(field, _SHIFT, _SHIFT, _SHIFT, _SHIFT, cv2.BORDER_CONSTANT, value=0.0)
        return (padded.ravel()[places] @ masks).max(0)

    # Pixels that say little (a highlight, an outline of mixed colours) would say as little of another posture.
    certain = np.abs(view.field)
    away = np.abs(signed_distance(view.whole > 0))
    seen = explained(view.field, inside)
    expected = explained(np.where(drawn[0] > 0, certain, -certain), inside)
    beyond = {far: away > far for far in (_BLED, _DRAWN_WIDER)}
    for k, other in enumerate(view.others):
        apart = (other != view.whole) & view.free
        pixels = np.count_nonzero(apart)
        if pixels < _MIN_CHANGE * np.count_nonzero(view.whole):
            continue
        far = beyond[_DRAWN_WIDER if first and POSTURES[k].scale != (1.0, 1.0) else _BLED]
        if np.count_nonzero(apart & far) < _MIN_BEYOND * pixels:
            continue
        both = explained(np.where(drawn[k + 1] > 0, certain, -certain), inside[:, [0, k + 1]])
        found[k] = seen[k + 1] - seen[0]
        own[k] = expected[k + 1] - expected[0]
        full[k] = both[1] - both[0]
        changed[k] = pixels
        strength[k] = certain[apart].sum()
    return _Gain(found, own, full, changed, strength)


def _shares(gains: list[_Gain], girth: int | None) -> dict[str, float | None]:
    """Per posture: how far the pixels of some frames are from the simulator's (0) to that posture (1), by what each explains;
    None where its pixels could show anything.

    What either would explain is computed with the same shifts granted; a posture that they make as good as the
    simulator's cannot be asked. How large an object is can be asked only where its width in earlier phases is known; in the
    first one, beyond what a painter may draw it larger or smaller all along.
    """
    out: dict[str, float | None] = {}
    if not gains:
        return out
    found, own, full, changed, strength = (
        np.sum([getattr(gain, name) for gain in gains], axis=0)
        for name in ("found", "own", "full", "changed", "strength")
    )
    for k, posture in enumerate(POSTURES):
        if changed[k] < _MIN_PIXELS * len(gains) or (girth is None and posture.scale != (1.0, 1.0)):
            continue
        sure, reach = strength[k] / changed[k], (full[k] - own[k]) / max(strength[k], 1e-9)
        if sure < _MIN_SURE:
            out.setdefault(posture.name, None)
        elif reach >= _MIN_REACH:
            share, known = float((found[k] - own[k]) / (full[k] - own[k])), out.get(posture.name)
            out[posture.name] = share if known is None else max(share, known)
    return out


def _silhouettes(
    truth: Truth, t: int, part: int, hull: Float64[np.ndarray, "N 3"]
) -> tuple[tuple[slice, slice], UInt8[np.ndarray, "h w"], list[UInt8[np.ndarray, "h w"]]] | None:
    """A window, the body as simulated, and in every other posture."""
    T = truth.T_world_part[t, part]
    world = hull @ T[:3, :3].T + T[:3, 3]
    low, high = world.min(0), world.max(0)
    middle = (low + high) / 2
    outlines: list[Float64[np.ndarray, "N 2"] | None] = [_outline(truth, t, world)]
    for posture in POSTURES:
        moved = (world - middle) @ posture.turn.T
        moved[:, :2] *= posture.scale[0]
        # What stands stays on its ground.
        moved[:, 2] = (moved[:, 2] - moved[:, 2].min()) * posture.scale[1] + (low - middle)[2] - posture.sink_m
        outlines.append(_outline(truth, t, moved + middle))
    seen = [o for o in outlines if o is not None]
    if len(seen) < len(outlines):
        return None
    shown = np.concatenate(seen)
    x0, y0 = np.maximum(np.floor(shown.min(0)).astype(int) - _PAD, 0)
    x1, y1 = np.minimum(np.ceil(shown.max(0)).astype(int) + _PAD, truth.size)
    if x1 - x0 < 8 or y1 - y0 < 8 or max(x1 - x0, y1 - y0) > 200:
        return None
    drawn = []
    fine = 4 if max(x1 - x0, y1 - y0) < 100 else 2
    for outline in seen:
        # Drawn finer and counted by half pixels: drawn at this size, a polygon would own all pixels that its edge touches.
        left, top = np.maximum(np.floor(outline.min(0)).astype(int) - 1, (x0, y0))
        right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, (x1, y1))
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        drawn.append(mask)
        if right <= left or bottom <= top:
            continue
        image = np.zeros((fine * (bottom - top), fine * (right - left)), np.uint8)
        place = fine * (cv2.convexHull(outline.astype(np.float32))[:, 0] - [left, top] + 0.5) - 0.5
        cv2.fillConvexPoly(image, np.round(place * 16).astype(np.int32), 255, shift=4)
        coarse = cv2.resize(image, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_AREA)
        mask[top - y0 : bottom - y0, left - x0 : right - x0] = coarse > 127
    whole = drawn[0]
    # The part below its ground is hidden by it.
    return np.s_[y0:y1, x0:x1], whole, [
        image & whole if posture.sink_m else image for image, posture in zip(drawn[1:], POSTURES, strict=True)
    ]  # fmt: skip


def outline_of(
    truth: Truth, episode: Episode, camera: str, part: int, t: int, name: str
) -> Float32[np.ndarray, "N 2"] | None:
    """Outline (working px) of the first posture of that name at frame t, for pictures; None where it cannot be drawn."""
    hull = body_hull(truth, episode, camera, part)
    number = next((k for k, posture in enumerate(POSTURES) if posture.name == name), None)
    drawn = None if hull is None or number is None else _silhouettes(truth, t, part, hull)
    if drawn is None or number is None:
        return None
    box, _, others = drawn
    contours, _ = cv2.findContours(others[number], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    return max(contours, key=len)[:, 0].astype(np.float32) + np.array([box[1].start, box[0].start], np.float32)


def _outline(truth: Truth, t: int, world: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N 2"] | None:
    """Working pixels (index coordinates) of points; None behind the camera."""
    T, K = truth.T_camera_world[t], truth.K[t]
    p = world @ T[:3, :3].T + T[:3, 3]
    if (p[:, 2] < 0.02).any():
        return None
    uv = np.stack([K[0, 0] * p[:, 0] / p[:, 2] + K[0, 2], K[1, 1] * p[:, 1] / p[:, 2] + K[1, 2]], 1) - 0.5
    return truth.seen(t, uv)


def _wider(mask: UInt8[np.ndarray, "h w"], girth: int) -> UInt8[np.ndarray, "h w"]:
    """A silhouette drawn wider by −1, 0 or 1 working px."""
    kernel = np.ones((3, 3), np.uint8)
    return mask if girth == 0 else cv2.dilate(mask, kernel) if girth > 0 else cv2.erode(mask, kernel)


def _moved_fields(field: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "S N"]:
    """The evidence at every granted shift, flat."""
    padded = cv2.copyMakeBorder(
        field.astype(np.float32), _SHIFT, _SHIFT, _SHIFT, _SHIFT, cv2.BORDER_CONSTANT, value=0.0
    )
    height, width = field.shape
    shifts = range(2 * _SHIFT + 1)
    return np.stack([padded[y : y + height, x : x + width].ravel() for y in shifts for x in shifts])


def _explained(moved: Float32[np.ndarray, "S N"], drawn: list[UInt8[np.ndarray, "h w"]]) -> Float32[np.ndarray, "M"]:
    """Sum of the evidence inside each silhouette, at its best shift."""
    return (moved @ np.stack([d.ravel() for d in drawn], 1).astype(np.float32)).max(0)
