# SPDX-License-Identifier: Apache-2.0
"""Is one instance the same thing in two cameras? Its co-visible pixels are compared as distributions of colour, over several
moments together: a camera far away shows few of them at a time, and highlights come and go while a thing stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retake.core.array_types import Float32
from retake.core.verdicts.view_colours import LUMA, lab

LAMP = np.array([[1, 0.4, 0.1], [0.45, 1, 0.45], [0.45, 0.45, 1]], np.float32)
"""Least shares of a lamp's strongest channel (row) that its channels have, linear: a glowing body of 2500 K, the sun above the
horizon, comes down to 0.4 green and 0.1 blue; nothing that shines green or blue is as pure."""
WEIGHT = np.array([0.5, 1, 1], np.float32)
"""Of lightness and chroma: cameras differ in exposure across their pictures before they differ in hue."""
NOTICED_LAB = 2.3
"""Just noticeable difference of colours."""
ALIKE = 4
"""Distinct pixels next to each other that show the same: of so many one counts when it is asked what chance explains."""
MOST = 400
"""Pixels of an instance at one moment that are looked at, spread evenly."""
CHANCE = 2.0
"""Standard errors that chance is given."""


@dataclass(frozen=True, eq=False)
class Sight:
    """An instance at one moment, where both cameras see it."""

    t: int
    first: Float32[np.ndarray, "N 3"]
    """Linear light, after the gain."""
    second: Float32[np.ndarray, "N 3"]


@dataclass(frozen=True)
class Unlike:
    """How unlike an instance looks, at worst."""

    value: float
    frame: int
    series: tuple[tuple[int, float], ...]
    """(frame, the same of that moment alone)."""


def sight(t: int, first: np.ndarray, second: np.ndarray) -> Sight:
    """Of all pixels that both see, at most `MOST`."""
    step = -(-len(first) // MOST)
    return Sight(t, first[::step], second[::step])


def compare_instance(sights: Sequence[Sight], *, together: int, least: int, moments: int) -> Unlike | None:
    """How unlike an instance looks in the worst `together` moments in a row (more where they show less than `least` pixels);
    None where it is seen at fewer than `moments` or in too few pixels. Lab, beyond what chance explains."""
    if len(sights) < moments:
        return None
    counts = np.array([len(sight.first) for sight in sights])
    found = []
    for start in range(len(sights)):
        ends = [e for e in range(min(start + together, len(sights)), len(sights) + 1) if counts[start:e].sum() >= least]
        if ends and (start == 0 or ends[0] - start >= together):
            found.append((unlike(sights[start : ends[0]]), start, ends[0]))
    if not found:
        return None
    series = tuple((sight.t, unlike([sight])) for sight in sights)
    value, start, end = max(found)
    return Unlike(value, max(series[start:end], key=lambda row: row[1])[0], series)


def unlike(sights: Sequence[Sight]) -> float:
    """Lab distance of the distributions beyond chance: as they are, or without gloss, whichever explains more."""
    as_it_is = [(lab(s.first), lab(s.second)) for s in sights]
    without = [(lab(a), lab(b)) for a, b in (matte(s.first, s.second) for s in sights)]
    return min(_beyond_chance(as_it_is), _beyond_chance(without))


def _beyond_chance(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    a, b = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    apart = (a - b) * WEIGHT
    # What stands still before cameras that stand still shows the same pixels again at every moment: they count once.
    distinct = len(np.unique(_numbered(np.hstack([a, b]))))
    chance = float(np.sqrt(apart.var(0).sum() / max(distinct / ALIKE, 1)))
    return max(distance(a, b) - CHANCE * chance, 0.0)


def _numbered(colours: Float32[np.ndarray, "N 6"]) -> np.ndarray:
    """One number for each combination of colours that are told apart."""
    steps = np.round(colours / NOTICED_LAB).astype(np.int64) + 128
    return steps @ (1 << np.arange(0, 60, 10, dtype=np.int64))


def distance(a: Float32[np.ndarray, "N 3"], b: Float32[np.ndarray, "N 3"]) -> float:
    """Earth mover's distance of two distributions of Lab colours, axis by axis; lightness by half."""
    moved = np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean(0) * WEIGHT
    return float(np.linalg.norm(moved))


def matte(
    a: Float32[np.ndarray, "N 3"], b: Float32[np.ndarray, "N 3"]
) -> tuple[Float32[np.ndarray, "N 3"], Float32[np.ndarray, "N 3"]]:
    """Both without the light that either has more of: a highlight lies where one camera alone sees it, and adds its lamp's
    colour to that of the surface. A lamp is no paint: its channels have at least the shares `LAMP` of the strongest."""
    more = (a - b) @ LUMA
    out = []
    for x, other, sign in ((a, b, 1), (b, a, -1)):
        gloss = np.maximum(sign * more, 0)[:, None]
        lamp = np.where(gloss > 0, x - other, 0).sum(0)
        lamp = np.maximum(lamp, LAMP[int(lamp.argmax())] * max(float(lamp.max()), 1e-6))
        out.append(np.maximum(x - gloss * (lamp / (lamp @ LUMA)), 0).astype(np.float32))
    return out[0], out[1]
