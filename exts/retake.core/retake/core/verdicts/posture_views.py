# SPDX-License-Identifier: Apache-2.0
"""What single frames say of an object's posture: evidence around its silhouette, and what every other posture explains of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.bodies import signed_distance
from retake.core.verdicts.posture_evidence import MIN_AREA, NEAR, Earlier, Evidence
from retake.core.verdicts.posture_shapes import POSTURES, silhouettes
from retake.core.verdicts.truth import Truth

PHASES = ("before", "held", "settled")
_FRAMES = 5
"""Frames that are asked per phase."""
_SHIFT = 1
"""Working px by which every posture may be shifted."""
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
_BLED, _DRAWN_WIDER, _MIN_BEYOND = 1.4, 2.4, 0.2
"""Working px from the outline up to which colours bleed over it, up to which a painter may draw any object larger or smaller
(3 px of 640) besides, and the share of the pixels in which a posture differs that must lie farther away: the others say as
much of a codec as of a posture. Another size is told from beyond the second, another stand from beyond the first."""
_MIN_SURE, _MIN_REACH = 0.3, 0.3
"""Mean evidence of the pixels in which a posture differs, and the difference it must make per such pixel, to be asked."""


def phase_views(
    evidence: Evidence, phases: list[str], hull: Float64[np.ndarray, "N 3"]
) -> dict[str, tuple[list[int], list[View]]]:
    """Frames and views per phase, in the later two thirds of each; of what rests from the start before a standing camera in
    the first third. Its colours are those of the first frames, until a shadow that moves over it or goes away changes them;
    and that it stays where it is, others judge (`object_before`, `still_objects`)."""
    truth, part, out = evidence.truth, evidence.part, {}
    for phase in PHASES:
        rows = [t for t, p in enumerate(phases) if p == phase and truth.area[t, part] >= MIN_AREA and t > 0]
        if len(rows) >= 3:
            earlier = evidence.earlier(phases, phase)
            resting = at_rest(truth, part, rows) if truth.static_camera and phase == PHASES[0] else []
            first, last = (0, max(len(resting) // 3, 2)) if len(resting) >= 3 else (len(rows) // 3, len(rows) - 1)
            asked = resting if len(resting) >= 3 else rows
            rows = [asked[k] for k in np.unique(np.linspace(first, last, _FRAMES).astype(int))]
            seen = [view for t in rows if (view := _view(evidence, t, hull, earlier)) is not None]
            if len(seen) >= 2:
                out[phase] = (rows, seen)
    return out


_RESTING_M = 2e-3
"""By which an object may move in a simulation that has it at rest."""


def at_rest(truth: Truth, part: int, rows: list[int]) -> list[int]:
    """Those of the frames in which the object is where it is in most of them."""
    place = truth.T_world_part[rows, part, :3, 3]
    away = np.abs(place - np.median(place, axis=0)).max(1)
    return [t for t, off in zip(rows, away, strict=True) if off < _RESTING_M]


def width_of(views: dict[str, tuple[list[int], list[View]]]) -> int | None:
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


@dataclass(frozen=True, eq=False)
class View:
    """One frame's evidence around the object, with the postures' silhouettes."""

    field: Float32[np.ndarray, "h w"]
    free: Bool[np.ndarray, "h w"]
    whole: UInt8[np.ndarray, "h w"]
    others: list[UInt8[np.ndarray, "h w"]]
    told: bool
    """The object's middle and what surrounds all postures are told apart: otherwise the pixels between say nothing."""
    doubted: Float32[np.ndarray, "h w"] | None = None
    """The evidence if places of the object that no earlier frame has shown had the colours of the others."""


def _view(evidence: Evidence, t: int, hull: Float64[np.ndarray, "N 3"], earlier: Earlier) -> View | None:
    """None where the hull does not stand for the object, or too little of it is free. earlier: frames that have shown it."""
    truth, part = evidence.truth, evidence.part
    drawn = silhouettes(truth, t, part, hull)
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
    return View(field, free, whole, others, bool(told), doubted)


@dataclass(frozen=True, eq=False)
class Gain:
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


def gain_of(view: View, girth: int | None, first: bool = False) -> Gain:
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
    return Gain(found, own, full, changed, strength)


def shares_of(gains: list[Gain], girth: int | None) -> dict[str, float | None]:
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
