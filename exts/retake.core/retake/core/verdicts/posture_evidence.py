# SPDX-License-Identifier: Apache-2.0
"""What a pixel says of an object: −1 shows what surrounds it … 1 shows the object, 0 says nothing.

The object's colours are those of the take's first frames, the surroundings' those of the same frame and of the frames that
show the scenery behind. A pixel says no more than it can tell. A place of the body is known by what earlier frames have
shown of it: where that looks like the surroundings, only the very scenery behind speaks against the object, and where no
frame has shown it yet (a lid under the hand), nothing does. And where the surroundings nearby look like the object, nothing
speaks for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.colours import SAME_SIDE, views_of
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.truth import Truth

MIN_AREA = 60.0
NEAR = 2
"""Working px around robot and other objects that say nothing."""
_DARK = 12.0
_TONE, _TONES = 0.08, 20
"""Width and number (to each side) of the bins of log colour ratios."""
_LUMA, _LUMAS = 0.15, 45
_SPREAD = 0.1
"""Log colour ratio by which scenery varies with light, at least."""
_FLOOR = 1e-4
_SAME_TONE, _SAME_LUMA = 0.06, (0.12, 0.3)
"""Log colour ratio, and log brightness (entirely, not at all), by which a pixel shows the very scenery behind it."""
_SHADED = (-0.9, -0.5, 0.15, 0.3), (0.0, 1.0, 1.0, 0.0)
"""The same in a shadow: log brightness against that of the scenery behind, and how much it then looks like it."""
_OWN_TONE, _OWN_LUMA = 0.1, (0.25, 0.5)
"""The same for the object's own place as earlier frames show it, whose light another posture may have changed."""
_MOVED = 4.0
"""Working px from which on a body is elsewhere in the picture: what lies behind it and how it is lit have changed."""
_KNOWN = 0.5
"""Evidence of a place as earlier frames show it from which on its looks are known."""
_CLEAR = 0.85
"""Evidence against an unseen place of the object from which on it counts."""
_EARLIER = 4
"""Frames before a phase that tell what the body looks like, beside the first ones."""
_LIKE, _LIKE_SHARE, _LIKE_REACH = -0.15, (0.2, 0.6), 5.0
"""Evidence from which on a pixel of the surroundings looks like the object; share of such pixels nearby from which on, and
at which, nothing there speaks for the object; reach of nearby, working px."""


_AROUND = 4
"""Working px around an object that its window of a frame has: what is drawn beside it and what a blur reaches."""


Split = tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w"]]
Box = tuple[slice, slice]
Reader = Callable[[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w"]], Float32[np.ndarray, "h w"]]
"""Evidence of pixels by their tone and brightness."""
Earlier = dict[int, bool]
"""Earlier frames, and whether the object is where it is simulated there for certain: one that falls may already stand
otherwise, and what shows in its place says nothing of its looks unless it has its colours."""


@dataclass(frozen=True, eq=False)
class Colours:
    """How likely the object's tone and brightness are, per bin."""

    tone: Float32[np.ndarray, "B B"]
    luma: Float32[np.ndarray, "L"]


def split(image: np.ndarray) -> Split:
    """Two log colour ratios, and log brightness."""
    log = np.log(cv2.GaussianBlur(image.astype(np.float32), (3, 3), 0) + _DARK)
    return log[..., ::2] - log[..., 1:2], (log[..., 0] + log[..., 1] + log[..., 2]) / 3


def _sum(both: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "h w"]:
    """Of the last axis; numpy's own sum takes several times as long over so few."""
    return both[..., 0] + both[..., 1]


def _bins(tone: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    code = np.clip(np.floor(tone / _TONE + _TONES), 0, 2 * _TONES - 1).astype(int)
    return code[..., 0], code[..., 1], np.clip(luma / _LUMA, 0, _LUMAS - 1).astype(int)


def _shaded(lit: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """How much (0..1) a change of log brightness is one of light, see `_SHADED`."""
    (dark, dim, bright, glare), _ = _SHADED
    rising, falling = (lit - np.float32(dark)) / np.float32(dim - dark), (glare - lit) / np.float32(glare - bright)
    return np.clip(np.minimum(rising, falling), 0, 1)


def early_frames(truth: Truth, part: int) -> list[int]:
    """The first three frames that show the object; none where it comes into view late."""
    shown = np.flatnonzero(truth.area[:, part] >= MIN_AREA)
    return [] if len(shown) < 3 or shown[2] > len(truth) // 3 else [int(t) for t in shown[:3]]


def colours_of(footage: Footage, truth: Truth, part: int) -> Colours | None:
    """From the first frames' inner pixels, and with less weight from the middle of the silhouette later on."""
    tones, lumas = np.zeros((2 * _TONES,) * 2), np.zeros(_LUMAS)
    shown, early = np.flatnonzero(truth.area[:, part] >= MIN_AREA), early_frames(truth, part)
    if not early:
        return None
    later = [int(t) for t in shown[np.linspace(3, len(shown) - 1, 8).astype(int)]] if len(shown) > 11 else []
    for t in (*early, *later):
        mask = cv2.inRange(truth.labels[t], part + 1, part + 1)  # type: ignore[call-overload]
        box = _around(mask)
        depth = cv2.distanceTransform(mask[box], cv2.DIST_L2, 3)
        inner = depth > (1.5 if t in early else 0.6 * depth.max())
        if not inner.any():
            continue
        a, b, c = _bins(*(x[inner] for x in split(footage.frames[t][box])))
        weight = (1.0 / len(early) if t in early else 0.5 / len(later)) / len(a)
        np.add.at(tones, (a, b), weight)
        np.add.at(lumas, c, weight)
    if not tones.any():
        return None
    tones = cv2.GaussianBlur(tones, (0, 0), 1.0)
    lumas = cv2.GaussianBlur(lumas[None], (0, 0), 1.6)[0]
    return Colours((tones / tones.sum()).astype(np.float32), (lumas / lumas.sum()).astype(np.float32))


def _around(mask: UInt8[np.ndarray, "H W"]) -> Box:
    """The window of a mask, with two pixels to spare."""
    x, y, width, height = cv2.boundingRect(mask)
    return np.s_[max(y - 2, 0) : y + height + 2, max(x - 2, 0) : x + width + 2]


class Evidence:
    """Evidence around one object in any frame of a take."""

    def __init__(self, footage: Footage, truth: Truth, part: int, colours: Colours) -> None:
        self.footage, self.truth, self.part, self.colours = footage, truth, part, colours
        self.early = early_frames(truth, part)
        self.directions = views_of(truth, part)[0]
        self._seen: dict[int, tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"], tuple[int, int]]] = {}

    def earlier(self, phases: list[str], phase: str) -> Earlier:
        """Frames that tell what the body looks like in a phase: the first ones and some before the phase."""
        shown = np.flatnonzero(self.truth.area[: phases.index(phase), self.part] >= MIN_AREA)
        later = shown[shown > self.early[-1]]
        picked = later[np.unique(np.linspace(0, len(later) - 1, _EARLIER).astype(int))] if len(later) else []
        return {t: phases[t] != "released" for t in (*self.early[::2], *map(int, picked))}

    def field(
        self, t: int, box: Box, whole: Bool[np.ndarray, "h w"], outside: Bool[np.ndarray, "h w"],
        free: Bool[np.ndarray, "h w"], body: Float64[np.ndarray, "N 3"], earlier: Earlier,
    ) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:  # fmt: skip
        """Frame t's evidence in a window, see the module; and what it would be if places of the body that no earlier frame
        has shown had the colours that the others have.

        whole: the body as simulated. outside: what no posture covers. free: pixels that anything can be told of. body:
        points of the object, its axes, m. earlier: frames that show what it looks like.
        """
        here = split(self.footage.frames[t][box])
        read = self._reader(box, here, outside)
        found = read(*here)
        behind, other = self._behind(box, here)
        shown, alike, carried = self._shown(t, box, body, earlier, read, here)
        # Of a place that was hidden in all views of this side nothing is known. Where no frame has shown this side at all,
        # the very scenery behind counts, and before a camera that moves colours that the object has nowhere else.
        known = any(sure and self._same_side(t, r) for r, sure in earlier.items())
        against = (behind if self.truth.static_camera else np.ones_like(behind)) * (found <= -_CLEAR)
        least = np.where(whole, 0.0 if known and self.truth.static_camera else against, 1.0)
        floor = -np.where(np.isnan(shown), least, np.maximum(behind, shown))
        doubted = np.where(whole & ~(shown > _KNOWN), found, np.maximum(found, floor))
        # A place that looks as it did, and as what lies behind it, shows either; and one that looks as it did before the body
        # moved is no evidence against it, whatever else has such colours.
        unlike, changed = (np.where(whole, 1 - share, 1) for share in (alike, carried))
        floor = -np.where(np.isnan(shown), least, np.maximum(behind * unlike, shown) * changed)
        found = np.maximum(found, floor)
        found = np.where(whole & ~(shown >= 0) & (behind < 0.5), np.maximum(found, other), found)
        like = ((found > _LIKE) & outside).astype(np.float32)
        near, there = (cv2.GaussianBlur(x, (0, 0), _LIKE_REACH) for x in (like, outside.astype(np.float32)))
        low, high = _LIKE_SHARE
        share = np.clip((high - near / np.maximum(there, 1e-6)) / (high - low), 0, 1)
        sure, doubted = ((np.where(x > 0, x * share, x) * free).astype(np.float32) for x in (found, doubted))
        return sure, doubted

    def _behind(self, box: Box, here: Split) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """0..1 each: how surely a pixel shows the very scenery that other frames show there, and how surely something else;
        neither where no frame shows it."""
        known = self.footage.known[box]
        tone, luma = split(self.footage.scenery[box])
        like = np.zeros(known.shape, np.float32)
        # A px beside is the same scenery, drawn a little otherwise.
        for shift in itertools.product((-1, 0, 1), repeat=2):
            away = here[0] - np.roll(tone, shift, (0, 1))
            apart = (away[..., 0] ** 2 + away[..., 1] ** 2) / np.float32(_SAME_TONE**2)
            like = np.maximum(like, np.exp(-0.5 * apart) * _shaded(here[1] - np.roll(luma, shift, (0, 1))))
        apart = _sum(np.square((here[0] - tone) / _SAME_TONE))
        same = np.exp(-0.5 * apart) * np.interp(np.abs(here[1] - luma), _SAME_LUMA, (1.0, 0.0))
        other = np.clip(1 - 2 * like, 0, 1)
        return np.where(known, same, 0).astype(np.float32), np.where(known, other, 0).astype(np.float32)

    def _reader(self, box: Box, here: Split, outside: Bool[np.ndarray, "h w"]) -> Reader:
        """What pixels of the window read as with these surroundings, by their tone and brightness."""
        near, bright = np.zeros((2 * _TONES,) * 2), np.zeros(_LUMAS)
        if outside.any():
            a, b, c = _bins(here[0][outside], here[1][outside])
            np.add.at(near, (a, b), 1.0 / len(a))
            np.add.at(bright, c, 1.0 / len(a))
            near, bright = cv2.GaussianBlur(near, (0, 0), 1.0), cv2.GaussianBlur(bright[None], (0, 0), 1.6)[0]
        known = self.footage.known[box]
        tone_b, luma_b = split(self.footage.scenery[box]) if known.any() else here

        def read(tone: Float32[np.ndarray, "h w 2"], luma: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
            a, b, c = _bins(tone, luma)
            of_object = self.colours.tone[a, b] * self.colours.luma[c]
            of_rest = (near[a, b] * bright[c]).astype(np.float32)
            if known.any():
                apart = _sum(np.square((tone - tone_b) / _SPREAD))
                like = _TONE**2 / (2 * np.pi * _SPREAD**2) * np.exp(-0.5 * apart)
                darker = luma - luma_b
                # Shadows darken what lies behind; hardly anything brightens it.
                lit = (_LUMA / 1.2) * np.clip(np.minimum((darker + 1.2) / 0.3, (0.3 - darker) / 0.15), 0, 1)
                of_rest = np.where(known, 0.8 * like * lit + 0.2 * of_rest, of_rest)
            ratio = np.log((of_object + _FLOOR) / (of_rest + _FLOOR))
            return (np.clip(ratio, -2, 2) / 2).astype(np.float32)

        return read

    def _shown(
        self, t: int, box: Box, body: Float64[np.ndarray, "N 3"], earlier: Earlier, read: Reader, here: Split
    ) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """What the body's own places there, as earlier frames show them, would read as in this window, as the most
        telling frame and pixel beside it do, NaN of places that no frame has shown; how much (0..1) a pixel looks as
        its place did, or one beside it; and the same of frames in which the body was elsewhere in the picture."""
        y0, x0 = box[0].start, box[1].start
        shape = (box[0].stop - y0, box[1].stop - x0)
        best, alike, carried = (np.full(shape, value, np.float32) for value in (np.nan, 0, 0))
        middle = np.array([x0 + shape[1] / 2, y0 + shape[0] / 2, 1])
        v, u = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
        for r, sure in earlier.items():
            if not self._same_side(t, r):
                continue
            M = self._carried(body, t, r)
            if M is None:
                continue
            channels, mine, corner = self._frame(r)
            x, y = (
                ((u + x0) * M[k, 0] + (v + y0) * M[k, 1] + (M[k, 2] - corner[k])).astype(np.float32) for k in range(2)
            )
            valid = cv2.remap(mine.astype(np.uint8), x, y, cv2.INTER_NEAREST, borderValue=0) > 0
            there = cv2.remap(channels, x, y, cv2.INTER_LINEAR)
            said = np.where(valid, read(there[..., :2], there[..., 2]), -9.0).astype(np.float32)
            # The rim's own pixels are mixed with what lay beside it there.
            said = cv2.dilate(said, np.ones((3, 3)))
            if not sure:
                valid &= said > 0
            best = np.where(valid, np.fmax(best, said), best)
            apart = _sum(np.square((here[0] - there[..., :2]) / _OWN_TONE))
            same = np.exp(-0.5 * apart) * np.interp(np.abs(here[1] - there[..., 2]), _OWN_LUMA, (1.0, 0.0))
            same = cv2.dilate(np.where(valid, same, 0).astype(np.float32), np.ones((3, 3), np.uint8))
            alike = np.maximum(alike, same)
            if np.hypot(*(M @ middle - middle[:2])) > _MOVED:
                carried = np.maximum(carried, same)
        # A painter may draw it a little wider: what lies beside the outline is known by what lies within.
        beside = cv2.erode(np.where(np.isnan(best), 9.0, best).astype(np.float32), np.ones((3, 3)))
        return np.where(np.isnan(best) & (beside < 9.0), beside, best), alike, carried

    def _same_side(self, t: int, r: int) -> bool:
        """Whether two frames show much the same side of the object."""
        return bool(self.directions[r] @ self.directions[t] >= np.cos(SAME_SIDE))

    def _frame(self, r: int) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"], tuple[int, int]]:
        """Tone and brightness of a frame around the object, where it shows it, away from what hides it, and the column and row
        of that window."""
        if r not in self._seen:
            labels = self.truth.labels[r]
            x, y, width, height = cv2.boundingRect((labels == self.part + 1).astype(np.uint8))
            left, top = max(x - _AROUND, 0), max(y - _AROUND, 0)
            box = np.s_[top : y + height + _AROUND, left : x + width + _AROUND]
            tone, luma = split(self.footage.frames[r][box])
            mine, other = labels[box] == self.part + 1, (labels[box] > 0) & (labels[box] != self.part + 1)
            hidden = cv2.dilate(other.astype(np.uint8), np.ones((2 * NEAR + 1,) * 2, np.uint8))
            self._seen[r] = np.dstack([tone, luma]), mine & (hidden == 0), (left, top)
        return self._seen[r]

    def _carried(self, body: Float64[np.ndarray, "N 3"], t: int, r: int) -> Float64[np.ndarray, "2 3"] | None:
        """The affine map of the body's near side from frame t to frame r, working px (index coordinates)."""
        places = []
        for frame in (t, r):
            T = self.truth.T_camera_world[frame] @ self.truth.T_world_part[frame, self.part]
            p, K = body @ T[:3, :3].T + T[:3, 3], self.truth.K[frame]
            if (p[:, 2] < 0.02).any():
                return None
            uv = np.stack([K[0, 0] * p[:, 0] / p[:, 2] + K[0, 2], K[1, 1] * p[:, 1] / p[:, 2] + K[1, 2]], 1) - 0.5
            places.append((self.truth.seen(frame, uv), p[:, 2]))
        side = places[0][1] <= np.median(places[0][1])
        A = np.column_stack([places[0][0][side], np.ones(side.sum())])
        return np.linalg.lstsq(A, places[1][0][side], rcond=None)[0].T if side.sum() >= 4 else None
