# SPDX-License-Identifier: Apache-2.0
"""Things that simulation keeps still (trays, fixtures, shut drawers, objects nobody touches): do they stay in the take?

The take's own first frames are the template; correlation without mean and gain is searched around its place in later
frames. What moves in front says nothing. A moving camera has no such places: see camera_motion.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.verdicts.alignment import vertex
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth

NAME = "still_objects"
REACH = 16
"""Working px."""
_RIM, _NEAR = 3, 3
_MIN_AREA, _MIN_SHARE = 80, 0.4


def measure_stills(footage: Footage, truth: Truth, settings: StabilitySettings) -> Measurement:
    """still_objects: largest displacement that lasts, px, of anything that the simulation keeps still."""
    if not truth.static_camera:
        return Measurement(NAME, None, "the camera moves", applies=False)
    places = _places(truth)
    if not places:
        return Measurement(NAME, None, "nothing that stands still is recorded as an object", applies=False)
    times = list(range(settings.still_step, len(footage), settings.still_step))
    moving = _moving(truth, [name for name, _ in places], [0, *times])
    template = np.mean([_detail(frame) for frame in footage.frames[:3]], axis=0).astype(np.float32)
    greys = {t: _detail(footage.frames[t]) for t in times}
    series, worst, where, frame, judged = np.full(len(footage), np.nan), 0.0, "", None, 0
    for name, mask in places:
        found = {t: _displacement(template, greys[t], mask, moving[0] | moving[t], settings) for t in times}
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


def _places(truth: Truth) -> list[tuple[str, Bool[np.ndarray, "H W"]]]:
    """Name and mask (all frames together) of everything that stands still and is large enough to tell."""
    out = [(name, truth.still_labels == k + 1) for k, name in enumerate(truth.stills)]
    for index, part in enumerate(truth.parts):
        if truth.is_still(index) and truth.area[:, index].max() >= _MIN_AREA:
            out.append((part.name, (truth.labels == index + 1).any(0)))
    return [(name, mask) for name, mask in out if mask.sum() >= _MIN_AREA]


def _moving(truth: Truth, still: list[str], times: list[int]) -> dict[int, Bool[np.ndarray, "H W"]]:
    """What moves in front of everything in some frames, grown."""
    table = np.zeros(256, np.uint8)
    for index, part in enumerate(truth.parts):
        table[index + 1] = part.name not in still
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
    if best > settings.still_match and best - here > max(settings.still_gain, settings.still_share * (1 - here)):
        return float(
            np.hypot(column - REACH + vertex(score[row], column), row - REACH + vertex(score[:, column], row))
        )  # fmt: skip
    return float(REACH) if here < settings.still_lost else 0.0
