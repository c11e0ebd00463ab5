# SPDX-License-Identifier: Apache-2.0
"""Does an object keep its colours? What it shows is compared with what the take itself has shown of it before.

An object may be painted otherwise behind than in front, so a mean colour alone says little of one that turns. The simulator
says which side is seen. A side that earlier frames have shown must look as it did then, but for what turning it a little,
or uncovering a part, may bring into view. A side that is new is compared with all colours that the object has shown: what
consists of these, or is a highlight on them, is no news; other colours may be its paint or a fault, which is unsure.
"""

from __future__ import annotations

import numpy as np

from retake.core.array_types import Bool, Float32, Float64
from retake.core.geometry import inverse
from retake.core.verdicts.bodies import Body
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.truth import Truth

NAME = "object_colour"

SAME_SIDE = np.radians(25.0)
"""Directions onto an object that are closer than this show much the same of it."""
REFERENCE = 3
"""Frames that make a side known."""
NEW_PAINT = 0.1
"""Mean chroma distance to all colours shown before from which on a new side has colours of its own; other sides of faithful
objects reach 0.016."""
_SLENDER = 2.0
"""How much larger than the side that it looks at an object's next side may be: turning it shows that much more of it."""
_OTHER = 0.1
"""Chroma distance from which on a pixel has another colour."""
_DARK = 24.0
"""Sum of RGB below which chroma is noise."""
BRIGHTER = 1.1
"""Factor of the brightest that was shown from which on a pixel may be a highlight: paint and the white of a lamp."""
HIGHLIGHTS = (0.25, 0.5, 0.75)
"""Shares of white that are tried."""
_KNOWN = 400
"""Pixels of earlier frames that are compared with, evenly spread."""


def measure_colour(body: Body, sure: Bool[np.ndarray, "T"], truth: Truth) -> Measurement:
    """object_colour: change of chroma (L1) in the object's place against what the take has shown of it before.

    Three measured frames in a row; `sure` says in which frames it is in its place.
    """
    placed = np.isfinite(body.colour).all(1) & (np.nan_to_num(body.contrast) > 0)
    placed &= np.nan_to_num(body.missing, nan=1.0) < 0.3
    rows = np.flatnonzero(placed)
    if len(rows) < 4 or not sure[rows[:REFERENCE]].any():
        return Measurement(NAME, None, f"its colours can be told in {len(rows)} frames, 4 needed", applies=False)
    directions, distance = views_of(truth, body.part)
    turn = np.arccos(np.clip(directions[rows] @ directions[rows].T, -1.0, 1.0))
    size = body.area[rows] * np.square(distance[rows])
    changed, new = np.zeros(len(rows)), np.zeros(len(rows))
    for k, row in enumerate(rows[REFERENCE:], REFERENCE):
        same = np.flatnonzero(turn[k, :k] < SAME_SIDE)
        first = same[same < REFERENCE]
        if len(first) or len(same) >= REFERENCE:
            known = np.arange(REFERENCE) if len(first) else same[:REFERENCE]
            shown = np.concatenate([body.pixels[int(t)] for t in rows[known]])
            reveals = revealed(float(turn[k, known].min()), float(size[k]), float(np.median(size[known])))
            changed[k] = change(body.colour[row], body.colour[rows[known]], body.pixels[int(row)], shown, reveals)
        else:
            # What was itself news is not known yet.
            known = [int(rows[j]) for j in range(k) if turn[k, j] >= SAME_SIDE and new[j] < NEW_PAINT]
            if known:
                new[k] = float(
                    to_nearest(body.pixels[int(row)], np.concatenate([body.pixels[t] for t in known])).mean()
                )
    series, fresh = np.full(len(sure), np.nan), np.full(len(sure), np.nan)
    series[rows], fresh[rows] = changed, new
    k, value = lasting(series, rows)
    if value < NEW_PAINT and (found := lasting(fresh, rows))[1] >= NEW_PAINT:
        note = f"it shows a side that no earlier frame shows, in colours that it has not shown ({found[1]:.2f} chroma)"
        return Measurement(NAME, None, note, int(rows[found[0]]), series=series)
    return Measurement(NAME, value, "", int(rows[k]), series=series)


def views_of(truth: Truth, part: int) -> tuple[Float64[np.ndarray, "T 3"], Float64[np.ndarray, "T"]]:
    """Unit vectors from the object to the camera in the object's own axes (which side of it is seen), and distances, m."""
    towards = (inverse(truth.T_world_part[:, part]) @ inverse(truth.T_camera_world))[:, :3, 3]
    distance = np.maximum(np.linalg.norm(towards, axis=1), 1e-9)
    return towards / distance[:, None], distance


def revealed(turn: float, size: float, before: float) -> float:
    """Share (0..1) of what shows that may be other parts of the object than before.

    turn: rad by which the view of it has changed. size, before: visible areas, as seen from one distance.
    """
    beside = _SLENDER * np.tan(min(turn, np.pi / 2 - 1e-3))
    uncovered = 1 - min(size, before) / max(size, before, 1e-9)
    return float(max(beside / (1 + beside), uncovered))


def change(
    mean: Float64[np.ndarray, "3"], before: Float64[np.ndarray, "N 3"], pixels: np.ndarray, shown: np.ndarray,
    reveals: float,
) -> float:  # fmt: skip
    """Change of the mean chroma beyond what parts that came into view, or left it, explain.

    They explain nothing where more than their share of the pixels has colours that were not shown, and nothing need be
    explained of a change that no limit is near to.
    mean: RGB. before: means of the frames that are compared with. pixels, shown: single ones, uint8[N, 3].
    """
    reference = np.median(_chroma(before), axis=0)
    moved = float(np.abs(_chroma(mean[None])[0] - reference).sum())
    if moved < _OTHER / 2 or (to_nearest(pixels, shown) > _OTHER).mean() > reveals:
        return moved
    apart = np.abs(_chroma(np.concatenate([pixels, shown])) - reference).sum(1)
    return max(moved - reveals * float(np.quantile(apart, 0.9)), 0.0)


def to_nearest(pixels: np.ndarray, shown: np.ndarray) -> Float32[np.ndarray, "N"]:
    """Chroma distance (L1) of pixels to the nearest colour that was shown, or to a highlight on it: uint8[N, 3] both."""
    shown = shown[np.linspace(0, len(shown) - 1, min(len(shown), _KNOWN)).astype(int)]
    now, known = _chroma(pixels), _chroma(shown)
    bright = pixels.sum(1, dtype=np.int32) > BRIGHTER * np.quantile(shown.sum(1, dtype=np.int32), 0.95)
    nearest = np.abs(now[:, None] - known[None]).sum(2).min(1)
    for share in HIGHLIGHTS if bright.any() else ():
        paint = (1 - share) * known + share / 3
        distance = np.abs(now[bright][:, None] - paint[None]).sum(2).min(1)
        nearest[bright] = np.minimum(nearest[bright], distance)
    return nearest


def _chroma(rgb: np.ndarray) -> Float32[np.ndarray, "N 3"]:
    values = rgb.astype(np.float32)
    return values / np.maximum(values.sum(1, keepdims=True), _DARK)


def lasting(series: Float64[np.ndarray, "T"], rows: np.ndarray) -> tuple[int, float]:
    """Index into `rows` and value of the largest median of three measured frames in a row."""
    values = series[rows]
    middle = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    k = int(np.argmax(middle))
    return k + 1, float(middle[k])
