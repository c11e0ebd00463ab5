# SPDX-License-Identifier: Apache-2.0
"""Things that simulation keeps still (trays, fixtures, shut drawers, objects nobody touches): do they stay in the take?

The take's own first frames are the template; correlation without mean and gain is searched around its place in later
frames. What moves in front says nothing. A moving camera has no such places: see camera_motion.

What opens towards the camera or turns is nowhere as it was before, and correlation has no place for it: there the thing's edges
tell (`_Edges`). A shadow that comes leaves the edges of before where they are, one that goes has brought none; only what moves
loses the old ones and shows new ones.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.verdicts.alignment import vertex
from retake.core.verdicts.footage import DARK, Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.scene import Scene, at_working_size
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth, working_robots

NAME = "still_objects"
REACH = 16
"""Working px."""
_RIM, _NEAR = 3, 3
_MIN_AREA, _MIN_SHARE = 80, 0.4
_SMALLER = 0.5
"""Size of a thing in an earlier frame, as a share of its size now, below which the earlier shows too little of it."""
_RIM_PX = 40
"""Pixels of an outline that can tell."""
_ON_EDGES = 0.9
"""Share of the best place's edges, within REACH, from which on a thing's own place has them as well."""
_IN_PLACE = 0.985
"""The same from which on it stands where it stood, though its edges are others: of a tray that hard shadows move over .99 to 1,
of drawers opened and trays moved .98 at most."""
_RELIT = 0.25
"""Log level by which most of a thing is brighter or darker than at first from which on its light is another and its edges say
nothing: of a cube that a shadow left .41, of drawers that open .1 at most."""
_EDGES_TELL = 1.2
"""How much more edges it must have than places near have on the whole: a busy texture has them everywhere."""
_CHANGED = 0.2
"""Share of a thing's strong edges that are gone, and of those it has instead that are new, from which on it is another view of
it: of faithful films .10 at most, of drawers opened by 5 cm .32 and more."""
_STRONG = 60.0
"""Percentile of a thing's gradients from which on they are edges."""
_LASTING = 3
"""Looks in a row, the last among them, in which it is."""
_BETWEEN = 2
"""Looks between the two that are compared, at least: what moves has moved by then."""


def measure_stills(
    footage: Footage, truth: Truth, settings: StabilitySettings, scene: Scene | None = None
) -> Measurement:
    """still_objects: largest displacement that lasts, px, of anything that the simulation keeps still. scene: of a camera that
    moves."""
    if not truth.static_camera:
        if scene is None:
            why = "the camera moves, and no depth tells where things are"
            return Measurement(NAME, None, why, applies=False, absent=not _anything(truth))
        return _on_the_way(footage, truth, settings, scene)
    places = _places(truth)
    if not places:
        why = "nothing that stands still is recorded as an object"
        return Measurement(NAME, None, why, applies=False, absent=not _anything(truth))
    times = list(range(settings.still_step, len(footage), settings.still_step))
    moving = _moving(truth, [0, *times])
    template = np.mean([_detail(frame) for frame in footage.frames[:3]], axis=0).astype(np.float32)
    greys = {t: _detail(footage.frames[t]) for t in times}
    edges = _Edges(footage)
    series, worst, where, frame, judged = np.full(len(footage), np.nan), 0.0, "", None, 0
    for name, mask in places:
        found = {t: _displacement(template, greys[t], mask, moving[0] | moving[t], settings) for t in times}
        found |= {t: 0.0 for t in times if found[t] and edges.stands(mask, moving[0] | moving[t], t)}
        found |= edges.changed(mask, {t: moving[0] | moving[t] for t in times if found[t] == 0.0})
        seen = [t for t in times if found[t] is not None]
        judged += bool(seen)
        for a, b in zip(seen, seen[1:] or seen, strict=False):
            value = min(found[a] or 0.0, found[b] or 0.0) * truth.px
            series[a] = max(value, np.nan_to_num(series[a]))
            if value > worst:
                worst, where, frame = value, name, a
    if not judged:
        why = f"{', '.join(name for name, _ in places)}: hidden or without contrast"
        return Measurement(NAME, None, why, applies=False)
    return Measurement(NAME, worst, where or f"{judged} still", frame, series=series)


def _detail(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
    """Brightness without what varies slowly (shading, soft shadows), which correlates with itself far away."""
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), 0.8).astype(np.float32)
    return grey - cv2.GaussianBlur(grey, (0, 0), 4.0)


def _anything(truth: Truth) -> bool:
    """Whether anything stands still, however little of it shows."""
    return bool(truth.stills) or bool(_standing(truth))


def _places(truth: Truth) -> list[tuple[str, Bool[np.ndarray, "H W"]]]:
    """Name and mask (all frames together) of everything that stands still and is large enough to tell."""
    out = [(name, truth.still_labels == k + 1) for k, name in enumerate(truth.stills)]
    for index in _standing(truth):
        if truth.area[:, index].max() >= _MIN_AREA:
            out.append((truth.parts[index].name, (truth.labels == index + 1).any(0)))
    return [(name, mask) for name, mask in out if mask.sum() >= _MIN_AREA]


def _standing(truth: Truth) -> list[int]:
    """Parts that stand still by themselves. The foot of a robot that works is judged with its arm: shadows of the arm lie on it,
    and the arm covers it."""
    working = working_robots(truth)
    return [k for k, part in enumerate(truth.parts) if truth.is_still(k) and part.robot not in working]


def _moving(truth: Truth, times: list[int]) -> dict[int, Bool[np.ndarray, "H W"]]:
    """What moves in front of everything in some frames, grown."""
    table = np.zeros(256, np.uint8)
    for index in range(len(truth.parts)):
        table[index + 1] = not truth.is_still(index)
    grow = np.ones((2 * _NEAR + 1,) * 2, np.uint8)
    return {t: cv2.dilate(cv2.LUT(truth.labels[t], table), grow) > 0 for t in times}


def _displacement(
    template: np.ndarray, image: np.ndarray, mask: Bool[np.ndarray, "H W"], hidden: Bool[np.ndarray, "H W"],
    settings: StabilitySettings,
) -> float | None:  # fmt: skip
    """Working px by which the template is elsewhere; None where it is hidden or shows nothing."""
    if (mask & ~hidden).sum() < max(_MIN_AREA, _MIN_SHARE * mask.sum()):
        return None
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _RIM + 1,) * 2, np.uint8)) > 0
    use = (rim & ~hidden).astype(np.float32)
    rows, columns = np.flatnonzero(use.any(1)), np.flatnonzero(use.any(0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    patch, weight = template[y0:y1, x0:x1], use[y0:y1, x0:x1]
    if float(patch[weight > 0].std()) < settings.still_contrast:
        return None
    field = cv2.copyMakeBorder(image, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
    window = field[y0 : y1 + 2 * REACH, x0 : x1 + 2 * REACH]
    score = cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED, mask=weight)
    score = np.where(np.isfinite(score), score, -1.0)
    here = float(score[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2].max())
    row, column = divmod(int(np.argmax(score)), score.shape[1])
    best = float(score[row, column])
    # What fits best at the rim of what is searched fits better still beyond it, or is a slope: no place of the thing. A shadow
    # that lay on it at first finds another shadow there.
    inside = 0 < row < 2 * REACH and 0 < column < 2 * REACH
    gain = max(settings.still_gain, settings.still_share * (1 - here))
    if inside and best > settings.still_match and best - here > gain:
        return float(
            np.hypot(column - REACH + vertex(score[row], column), row - REACH + vertex(score[:, column], row))
        )  # fmt: skip
    return float(REACH) if here < settings.still_lost else 0.0


def _outlined(
    mask: Bool[np.ndarray, "H W"], frame: UInt8[np.ndarray, "H W 3"], hidden: Bool[np.ndarray, "H W"]
) -> float:
    """How well the outline that the simulation has of a thing lies on edges of a frame, as a share of the best place near (0..1):
    where it does, the thing stands there, whatever else fits or is gone of what showed of it earlier. 0 where edges are
    everywhere, or too little of it shows."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # In a shadow an outline is as strong as beside it: levels are logarithms.
    soft = np.log(cv2.GaussianBlur(grey, (0, 0), 0.8) + DARK)
    edge = np.hypot(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    edge /= edge + max(float(edge.mean()), 1e-5)
    whole, cross = mask.astype(np.uint8), np.ones((3, 3), np.uint8)
    rim = cv2.dilate(whole, cross) - cv2.erode(whole, cross, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    seen = rim.astype(bool) & ~hidden
    seen[:_RIM] = seen[-_RIM:] = seen[:, :_RIM] = seen[:, -_RIM:] = False
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if seen.sum() < _RIM_PX:
        return 0.0
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    field = cv2.copyMakeBorder(edge, REACH, REACH, REACH, REACH, cv2.BORDER_CONSTANT, value=0)
    window = field[y0 : y1 + 2 * REACH, x0 : x1 + 2 * REACH]
    score = cv2.matchTemplate(window, seen[y0:y1, x0:x1].astype(np.float32), cv2.TM_CCORR)
    here = score[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2].max()
    return float(here / score.max()) if here > _EDGES_TELL * np.median(score) else 0.0


class _Edges:
    """Edges of the take's first frames and of later ones, before a camera that stands still."""

    def __init__(self, footage: Footage) -> None:
        self.footage = footage
        self.start = np.mean(footage.frames[:3], axis=0).astype(np.float32)
        self.first = _gradients(self.start)
        self.later: dict[int, Float32[np.ndarray, "H W 6"]] = {}
        self.light: dict[int, Float32[np.ndarray, "H W"]] = {}

    def changed(
        self, mask: Bool[np.ndarray, "H W"], hidden: dict[int, Bool[np.ndarray, "H W"]]
    ) -> dict[int, float]:  # fmt: skip
        """Looks up to the last (hidden: those that are asked, and what is hidden in them) since which a thing has shown another
        view of itself, -> working px. A shadow that passes is gone before the end."""
        out: dict[int, float] = {}
        for t in sorted(hidden, reverse=True):
            gone = self._gone(mask, hidden[t], t)
            # A hard shadow that moves takes old edges away and brings new ones, and leaves the outline; one that comes or goes
            # as a whole leaves another light.
            if (
                not gone
                or self._relit(mask & ~hidden[t], t) > _RELIT
                or _outlined(mask, self.footage.frames[t], hidden[t]) > _IN_PLACE
            ):
                break
            out[t] = REACH * gone
        return out if len(out) >= _LASTING else {}

    def stands(self, mask: Bool[np.ndarray, "H W"], hidden: Bool[np.ndarray, "H W"], t: int) -> bool:
        """Whether a thing is in another light than at first, and its outline in its place: the border of a shadow that lay on it
        fits wherever another one is."""
        return self._relit(mask & ~hidden, t) > _RELIT and _outlined(mask, self.footage.frames[t], hidden) > _IN_PLACE

    def _relit(self, shown: Bool[np.ndarray, "H W"], t: int) -> float:
        """Log level by which most of what shows of a thing is brighter or darker in frame t than at first, beyond what most of
        the picture is: another exposure is none of its light."""
        if not shown.any():
            return 0.0
        if t not in self.light:
            before, now = (np.log(image + DARK).mean(-1) for image in (self.start, self.footage.frames[t]))
            self.light[t] = now - before - np.median(now - before)
        return float(abs(np.median(self.light[t][shown])))

    def _gone(self, mask: Bool[np.ndarray, "H W"], hidden: Bool[np.ndarray, "H W"], t: int) -> float:
        """Share of a thing's edges (mask) that frame t lacks, or of those of frame t that are new, whichever is less; 0 where it
        is so little that light and codecs explain it."""
        if t not in self.later:
            self.later[t] = _gradients(self.footage.frames[t].astype(np.float32))
        rim = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _RIM + 1,) * 2, np.uint8)) > 0
        rows, columns = np.flatnonzero(rim.any(1)), np.flatnonzero(rim.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        use, before, now = (rim & ~hidden)[box], self.first[box], self.later[t][box]
        gone = 1 - max(_kept(before, now, use), _kept(now, before, use))
        return gone if gone >= _CHANGED else 0.0


def _gradients(image: Float32[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 6"]:
    soft = cv2.GaussianBlur(image, (0, 0), 0.8)
    return np.concatenate([cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)], axis=2)


def _kept(
    edges: Float32[np.ndarray, "h w 6"], other: Float32[np.ndarray, "h w 6"], use: Bool[np.ndarray, "h w"]
) -> float:
    """Share (0..1, weighted by strength) of strong edges that another picture has within a pixel, in direction and hue and at
    least half as strong."""
    strength = np.linalg.norm(edges, axis=2)
    if not use.any():
        return 1.0
    strong = use & (strength >= np.percentile(strength[use], _STRONG))
    best = np.zeros(strength.shape, np.float32)
    grown = cv2.copyMakeBorder(other, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    height, width = strength.shape
    for dy in range(3):
        for dx in range(3):
            near = grown[dy : dy + height, dx : dx + width]
            size = np.linalg.norm(near, axis=2)
            alike = np.clip((edges * near).sum(2) / np.maximum(strength * size, 1e-3), 0, 1)
            best = np.maximum(best, alike * np.minimum(size / np.maximum(0.5 * strength, 1e-3), 1))
    weight = np.where(strong, strength, 0.0)
    return float((weight * best).sum() / max(float(weight.sum()), 1e-3))


def _on_the_way(footage: Footage, truth: Truth, settings: StabilitySettings, scene: Scene) -> Measurement:
    """still_objects of a camera that moves, against where an earlier frame says that things stand."""
    looks = _Looks(footage, truth, settings, scene)
    if not looks.names:
        why = "nothing that stands still is recorded as an object"
        return Measurement(NAME, None, why, applies=False, absent=True)
    series, worst, where, frame, judged = np.full(len(footage), np.nan), 0.0, "", None, 0
    for number, name in enumerate(looks.names, 1):
        found = {t: value for t in looks.times if (value := looks.displaced(number, t)) is not None}
        seen = list(found)
        judged += bool(seen)
        for a, b in zip(seen, seen[1:] or seen, strict=False):
            value = min(found[a], found[b]) * truth.px
            series[a] = max(value, np.nan_to_num(series[a]))
            if value > worst:
                worst, where, frame = value, name, a
    if not judged:
        why = f"{', '.join(looks.names)}: never seen whole from two places, or without contrast"
        return Measurement(NAME, None, why, applies=False)
    return Measurement(NAME, worst, where or f"{judged} still", frame, series=series)


class _Looks:
    """Frames in which things that stand still are looked for."""

    def __init__(self, footage: Footage, truth: Truth, settings: StabilitySettings, scene: Scene) -> None:
        self.truth, self.settings, self.scene = truth, settings, scene
        standing = _standing(truth)
        self.standing = frozenset(k for k in range(len(truth.parts)) if truth.is_still(k))
        self.names = [*(truth.parts[k].name for k in standing), *truth.stills]
        self.times = list(range(0, len(footage), settings.still_step)) if self.names else []
        numbers, moving = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
        moving[1 : len(truth.parts) + 1] = 1
        for k in self.standing:
            moving[k + 1] = 0
        for number, k in enumerate(standing, 1):
            numbers[k + 1] = number
        grow = np.ones((2 * _NEAR + 1,) * 2, np.uint8)
        self.shown: dict[int, UInt8[np.ndarray, "H W"]] = {}
        """Frame -> 0, or 1 + index into `names`."""
        self.hidden: dict[int, UInt8[np.ndarray, "H W"]] = {}
        """Frame -> 1 where something that moves is, grown."""
        self.details: dict[int, Float32[np.ndarray, "H W"]] = {}
        for t in self.times:
            labels = truth.labels[t]
            self.shown[t] = cv2.LUT(labels, numbers)
            if truth.stills:
                own = truth.stills_of(scene.episode, scene.camera, t)
                fixed = (own > 0) & (labels == 0)
                self.shown[t][fixed] = own[fixed] + len(standing)
            self.hidden[t] = cv2.dilate(cv2.LUT(labels, moving), grow)
            self.details[t] = _detail(footage.frames[t])
        self.frames = footage.frames

    def displaced(self, number: int, t: int) -> float | None:
        """Working px by which a thing is beside the place where the earliest frame that shows it says it stands; None where it
        cannot be told."""
        if not self._whole(number, t):
            return None
        mask = self.shown[t] == number
        for r in self.times[: max(self.times.index(t) - _BETWEEN + 1, 0)]:
            if not self._whole(number, r):
                continue
            template, hidden = self._as_seen(r, t, mask)
            value = _displacement(template, self.details[t], mask, hidden, self.settings)
            if value is not None:
                return 0.0 if value and _outlined(mask, self.frames[t], self.hidden[t] > 0) > _ON_EDGES else value
        return None

    def _whole(self, number: int, t: int) -> bool:
        """Whether enough of a thing shows to tell, and no more than a side of it is cut off by the border of the picture."""
        mask = self.shown[t] == number
        area = int(mask.sum())
        if area < _MIN_AREA:
            return False
        rim = int(mask[0].sum() + mask[-1].sum() + mask[1:-1, 0].sum() + mask[1:-1, -1].sum())
        return rim < np.sqrt(area)

    def _as_seen(
        self, r: int, t: int, mask: Bool[np.ndarray, "H W"]
    ) -> tuple[Float32[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
        """What frame r shows of the places that frame t shows, and where it shows none of them, or one of the two something that
        moves; nowhere where r shows a thing (mask, in t) much smaller."""
        X, Y, known = at_working_size(self.scene.same_place(t, r, self.standing), self.truth.size)
        template = cv2.remap(self.details[r], X, Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if np.median(np.hypot(np.diff(X, axis=1), np.diff(Y, axis=1))[mask[:, 1:]]) < _SMALLER:
            known[:] = False
        covered = cv2.remap(self.hidden[r], X, Y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1) > 0
        return template, (self.hidden[t] > 0) | covered | ~known
