# SPDX-License-Identifier: Apache-2.0
"""World stability: scenery that should stand still and look the same, a robot that stays itself, healthy pictures.

All figures are relative to the take's own first frame, so a constant gain or offset of brightness changes none.
"""

from __future__ import annotations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.verdicts.drift import CELL as _CELL
from retake.core.verdicts.drift import explained, fitted_to, motion_of
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.intruders import workspace
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.truth import Truth

NAMES = (
    "background_drift", "flicker", "colour_shift", "seams", "sharpness_loss", "darkness", "frozen", "robot_identity",
)  # fmt: skip


def measure_stability(
    footage: Footage, truth: Truth, motion_px: Float64[np.ndarray, "T"], settings: StabilitySettings
) -> list[Measurement]:
    """Every stability check."""
    scenery, half = _scenery_masks(truth, settings), (truth.size[0] // 2, truth.size[1] // 2)
    greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in footage.frames]
    return [
        _drift(greys, truth, scenery, settings, workspace(truth, half, _GROUND_M) if truth.static_camera else None),
        *_appearance(footage, greys, truth, scenery),
        _darkness(greys),
        _measure_frozen(greys, truth, motion_px, settings),
        _identity(footage, truth, settings),
    ]


def _scenery_masks(truth: Truth, settings: StabilitySettings) -> Bool[np.ndarray, "T H W"]:
    """Pixels away from robot and objects (their shadows and warps included) in each frame."""
    grow = np.ones((2 * settings.margin_px + 1,) * 2, np.uint8)
    return np.stack([cv2.dilate((label > 0).astype(np.uint8), grow) == 0 for label in truth.labels])


_ALL = 0.3
"""Quantile of the cells' motion that counts as drift: seven cells in ten must move at least that far. A shadow, a
highlight, a person or a curtain moves some cells and leaves the others where they are."""
_CELLS = 12
"""Cells with texture that are needed for a vote."""
_WENT = (0.25, 0.5)
"""Share of a drift that the pixels must have gone along for it to be none, and to count as it is: of a faithful film whose
texture swims they went 0.08, of films that drift by 1.6 px and more 0.5 to 1, the same texture over them."""
_GROUND_M, _NEAR_PIXELS, _NEAR_EDGES = 0.4, 400, 20.0
"""How far beyond the places of robot and objects the ground reaches that must drift as well, m; half working pixels of it, and
their gradient, that can tell: a curtain that is most of what has edges is far away."""
_ASKED = 0.5
"""px of drift from which on the scenery's own edges must have moved along: a sheen or a texture that slides over all of it moves
as coherently, and its edges stay."""


def _drift(
    greys: list, truth: Truth, scenery: np.ndarray, settings: StabilitySettings,
    work: Bool[np.ndarray, "h w"] | None = None,
) -> Measurement:  # fmt: skip
    """How far all scenery moves against the first frame, px (static camera). work: the ground around robot and objects, which
    must move as well where it shows enough."""
    name = "background_drift"
    if not truth.static_camera:
        return Measurement(name, None, "the camera moves", applies=False)
    half = (truth.size[0] // 2, truth.size[1] // 2)
    small = [cv2.resize(_levelled(g), half, interpolation=cv2.INTER_AREA) for g in greys[:: settings.drift_step]]
    gx, gy = cv2.Sobel(small[0], cv2.CV_32F, 1, 0), cv2.Sobel(small[0], cv2.CV_32F, 0, 1)
    strength = cv2.GaussianBlur(np.hypot(gx, gy), (0, 0), 1.5)
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    series, voters = np.full(len(greys), np.nan), 0
    first = cv2.resize(scenery[0].astype(np.uint8), half, interpolation=cv2.INTER_NEAREST) > 0
    flow = None
    for k, image in enumerate(small):
        t = k * settings.drift_step
        mask = first & (cv2.resize(scenery[t].astype(np.uint8), half, interpolation=cv2.INTER_NEAREST) > 0)
        if mask.sum() < 400:
            continue
        near = _textured(np.zeros_like(mask) if work is None else mask & work, strength)
        mask &= strength > np.quantile(strength[mask], 0.5)
        if not mask.any():  # the same everywhere, a black picture: no motion can be told
            continue
        flow = flow_of.calc(small[0], image, flow)  # type: ignore[arg-type]
        place, moved = _votes(flow, mask)
        voters = max(voters, len(place))
        if len(place) >= _CELLS:
            drift = _coherent(place, moved) * 2 * truth.px
            if drift > _ASKED:
                fit = fitted_to(place, moved)
                went = explained(small[0], image, mask, fit)
                if near.any():
                    went = min(went, explained(small[0], image, near, fit))
                drift = max(_ASKED, drift * float(np.interp(went, _WENT, (0.0, 1.0))))
            series[t] = drift
    if np.isnan(series).all():
        few = f"{voters} cells of scenery with texture, {_CELLS} needed" if voters else "too little scenery in view"
        return Measurement(name, None, few)
    valid = np.flatnonzero(~np.isnan(series))
    smooth = np.minimum(series[valid[1:]], series[valid[:-1]]) if len(valid) > 1 else series[valid]
    k = int(np.argmax(smooth))
    note = f"motion that seven in ten of {voters} cells share"
    return Measurement(name, float(smooth[k]), note, int(valid[k]), series=series)


def _textured(place: Bool[np.ndarray, "h w"], strength: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The half of a place that has the stronger edges; nothing of one that is small or plain."""
    if place.sum() < _NEAR_PIXELS:
        return np.zeros_like(place)
    return place & (strength > max(float(np.quantile(strength[place], 0.5)), _NEAR_EDGES))


def drift_votes(
    footage: Footage, truth: Truth, t: int, settings: StabilitySettings
) -> tuple[Float64[np.ndarray, "N 2"], Float64[np.ndarray, "N 2"]]:
    """Places and motion since the first frame of the cells that vote on drift at frame t, working px, for pictures."""
    half = (truth.size[0] // 2, truth.size[1] // 2)
    pair = [
        cv2.resize(_levelled(cv2.cvtColor(footage.frames[k], cv2.COLOR_RGB2GRAY)), half, interpolation=cv2.INTER_AREA)
        for k in (0, t)
    ]
    gx, gy = cv2.Sobel(pair[0], cv2.CV_32F, 1, 0), cv2.Sobel(pair[0], cv2.CV_32F, 0, 1)
    strength = cv2.GaussianBlur(np.hypot(gx, gy), (0, 0), 1.5)
    mask = np.ones(strength.shape, bool)
    grow = np.ones((2 * settings.margin_px + 1,) * 2, np.uint8)
    for k in (0, t):
        near = cv2.dilate((truth.labels[k] > 0).astype(np.uint8), grow)
        mask &= cv2.resize(near, half, interpolation=cv2.INTER_NEAREST) == 0
    if not mask.any():
        return np.zeros((0, 2)), np.zeros((0, 2))
    mask &= strength > np.quantile(strength[mask], 0.5)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(pair[0], pair[1], None)  # type: ignore[arg-type]
    place, moved = _votes(flow, mask)
    return 2 * place, 2 * moved


def _votes(
    flow: Float32[np.ndarray, "h w 2"], mask: Bool[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, "N 2"], Float64[np.ndarray, "N 2"]]:
    """Centre and median flow of every cell with texture in the mask, half working px."""
    rows, columns = (-(-side // _CELL) for side in mask.shape)
    padded = np.full((rows * _CELL, columns * _CELL, 2), np.inf, np.float32)
    padded[: mask.shape[0], : mask.shape[1]][mask] = flow[mask]
    cells = padded.reshape(rows, _CELL, columns, _CELL, 2).transpose(0, 2, 4, 1, 3).reshape(-1, 2, _CELL * _CELL)
    counts = np.isfinite(cells[:, 0]).sum(1)
    chosen = np.flatnonzero(counts >= 0.2 * _CELL * _CELL)
    ordered, count = np.sort(cells[chosen], axis=2), counts[chosen, None, None]
    middle = [np.take_along_axis(ordered, k, axis=2)[..., 0] for k in ((count - 1) // 2, count // 2)]
    places = np.stack([chosen % columns, chosen // columns], 1) * float(_CELL) + _CELL / 2
    return places, ((middle[0] + middle[1]) / 2).astype(np.float64)


def _levelled(grey: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Mean 128, standard deviation 48: flow should not see a change of exposure."""
    mean, deviation = cv2.meanStdDev(grey)
    scale = 48 / max(float(deviation[0, 0]), 2.0)
    return cv2.convertScaleAbs(grey.astype(np.float32) * scale + (128 - float(mean[0, 0]) * scale))


def _coherent(place: Float64[np.ndarray, "N 2"], moved: Float64[np.ndarray, "N 2"]) -> float:
    """Motion of the scenery as a whole, px: what a zoom + rotation + translation fitted robustly to the cells moves and
    what nearly all cells move along with it, whichever is less.

    Local warps average out in the fit and stand still somewhere, and a texture that swims goes here one way and there
    another; a camera that creeps does neither.
    """
    fitted = motion_of(fitted_to(place, moved), *place.T)
    length = np.hypot(*fitted)
    along = (moved.T * fitted).sum(0) / np.maximum(length, 1e-9)
    return max(min(float(np.median(length)), float(np.quantile(along, _ALL))), 0.0)


def _appearance(footage: Footage, greys: list, truth: Truth, scenery: np.ndarray) -> list[Measurement]:
    """flicker, colour_shift, seams and sharpness_loss, from small colour images of the scenery."""
    if not truth.static_camera:
        names = ("flicker", "colour_shift", "seams", "sharpness_loss")
        return [Measurement(name, None, "the camera moves", applies=False) for name in names]
    size = (20, 15)
    count = len(footage)
    cells = np.zeros((count, size[1], size[0], 3), np.float32)
    weight = np.zeros((count, size[1], size[0]), np.float32)
    sharp, first = np.full(count, np.nan), scenery[0].astype(np.uint8)
    for t in range(count):
        mask = scenery[t].astype(np.uint8)
        both = mask & first
        weight[t] = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        seen = cv2.copyTo(footage.frames[t], mask).astype(np.float32)
        cells[t] = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
        cells[t] /= np.maximum(weight[t], 1e-6)[..., None]
        pixels = int(cv2.countNonZero(both))
        if pixels > 200:
            detail = cv2.Laplacian(cv2.GaussianBlur(greys[t], (0, 0), 0.8), cv2.CV_16S)
            sharp[t] = cv2.norm(detail, cv2.NORM_L2, both) / np.sqrt(pixels)
    level = _level(cells[0], weight[0])
    return [
        _flicker(cells, weight, level), _colour(cells, weight, level), _seams(cells, weight, level), _sharpness(sharp)
    ]  # fmt: skip


def _level(cells: np.ndarray, weight: np.ndarray) -> float:
    """Spread plus mean of the scenery's grey values: the unit of appearance changes."""
    used = cells[weight > 0.7]
    return max(float(used.mean()), 16.0) if len(used) else 128.0


def _flicker(cells: np.ndarray, weight: np.ndarray, level: float) -> Measurement:
    """Typical brightness jump of the scenery that is undone one frame later, share of its level (80th percentile).

    The median over cells: a band that rolls through the picture or a curtain in the wind is not the light of the scene.
    """
    if len(cells) < 3:
        return Measurement("flicker", None, "fewer than three frames", applies=False)
    both = (weight[:-2] > 0.7) & (weight[1:-1] > 0.7) & (weight[2:] > 0.7)
    grey = cells.mean(-1)
    second = (grey[1:-1] - 0.5 * (grey[:-2] + grey[2:])) / level
    series = np.full(len(cells), np.nan)
    for t in range(len(second)):
        if both[t].sum() > 12:
            series[t + 1] = abs(float(np.median(second[t][both[t]])))
    if np.isnan(series).all():
        return Measurement("flicker", None, "too little scenery in view")
    return Measurement("flicker", float(np.nanquantile(series, 0.8)), "", int(np.nanargmax(series)), series=series)


def _colour(cells: np.ndarray, weight: np.ndarray, level: float) -> Measurement:
    """Largest lasting change of the scenery's mean colour against the first frame, share of its level."""
    series = np.full(len(cells), np.nan)
    for t in range(len(cells)):
        both = (weight[t] > 0.7) & (weight[0] > 0.7)
        if both.sum() > 12:
            # The median over cells: a shadow that wanders over some of them is no change of colour.
            series[t] = np.abs(np.median(cells[t][both] - cells[0][both], axis=0)).max() / level
    if np.isnan(series).all():
        return Measurement("colour_shift", None, "too little scenery in view")
    smooth = _median(series, 5)
    return Measurement("colour_shift", float(np.nanmax(smooth)), "", int(np.nanargmax(smooth)), series=series)


def _seams(cells: np.ndarray, weight: np.ndarray, level: float) -> Measurement:
    """Largest lasting step of brightness or hue that most of the scenery takes: a chained window that begins elsewhere."""
    if len(cells) < 8:
        return Measurement("seams", None, "fewer than eight frames", applies=False)
    series = np.full(len(cells), np.nan)
    for t in range(3, len(cells) - 3):
        both = (weight[t - 3 : t + 3] > 0.7).all(0)
        if both.sum() > 12:
            before, after = np.median(cells[t - 3 : t, both], 0), np.median(cells[t : t + 3, both], 0)
            # Of every colour on its own: a window of another hue is a seam as well.
            series[t] = float(np.abs(np.median(after - before, 0)).max()) / level
    if np.isnan(series).all():
        return Measurement("seams", None, "too little scenery in view")
    return Measurement("seams", float(np.nanmax(series)), "", int(np.nanargmax(series)), series=series)


def _sharpness(sharp: Float64[np.ndarray, "T"]) -> Measurement:
    """Share of the first frames' detail that is lost later."""
    if np.isnan(sharp).all():
        return Measurement("sharpness_loss", None, "too little scenery in view")
    start = float(np.nanmedian(sharp[:3])) if not np.isnan(sharp[:3]).all() else float(np.nanmedian(sharp))
    series = 1 - _median(sharp, 3) / max(start, 1e-6)
    worst = int(np.nanargmax(series))
    return Measurement("sharpness_loss", max(float(np.nanmax(series)), 0.0), "", worst, series=series)


def _darkness(greys: list) -> Measurement:
    """Share of frames that are black: mean grey below 10 of 255, or a tenth of the first frame's."""
    means = np.array([float(g.mean()) for g in greys])
    dark = means < max(10.0, 0.1 * means[0])
    frame = int(np.argmax(dark)) if dark.any() else None
    return Measurement("darkness", float(dark.mean()), f"darkest frame {means.min():.0f} of 255", frame)


def _measure_frozen(
    greys: list, truth: Truth, motion_px: Float64[np.ndarray, "T"], settings: StabilitySettings
) -> Measurement:
    """Longest run of frames in which the picture does not change although the robot should move."""
    grow = np.ones((7, 7), np.uint8)
    longest, frame, run = 0, None, 0
    spread = max(float(greys[0].std()), 4.0)
    series = np.full(len(greys), np.nan)
    for t in range(1, len(greys)):
        if motion_px[t] < settings.frozen_motion_px:
            continue
        area = (truth.labels[t] > 0) | (truth.labels[t - 1] > 0)
        area = cv2.dilate(area.astype(np.uint8), grow)
        if not area.any():
            continue
        change = cv2.absdiff(greys[t], greys[t - 1])
        # The mean of nothing is 0.
        outside = cv2.mean(change, 1 - area)[0] if truth.static_camera else 0.0
        inside = cv2.mean(change, area if truth.static_camera else None)[0]
        series[t] = (inside - outside) / spread
        run = run + 1 if series[t] < settings.frozen_change else 0
        if run > longest:
            longest, frame = run, t
    if np.isnan(series).all():
        why, stands = "the robot never moves in these frames", truth.static_camera and truth.robot_stands
        return Measurement("frozen", None, why, applies=False, absent=stands)
    return Measurement("frozen", float(longest), "frames without the expected change", frame, series=series)


_DARK = 12.0
"""Sum of the channels' levels below which a colour has no hue."""
_LEVELS = 3.0
"""Sum of the channels' levels by which an encoded mean colour may be off, one of 255 each: much of a dark part's chroma."""
_SPILL = (0.0, 0.5, 1.0)
"""How much of what may spill over a part's outline is taken off its colour."""
_HUE_PX = 2
"""Pixels by which hue spills over an outline: video stores it at half the resolution, light at the whole."""


def _identity(footage: Footage, truth: Truth, settings: StabilitySettings) -> Measurement:
    """Change of the links' chroma against their first good view (area-weighted mean over links).

    What lies beside a link shows in its outline, and does so more the smaller and darker it is: of all colours that a link
    may have had then and now, the two that are most alike are compared.
    """
    name = "robot_identity"
    first: dict[int, tuple[np.ndarray, float]] = {}
    series = np.full(len(footage), np.nan)
    for t in range(0, len(footage), 2):
        changes, weights = [], []
        for part in truth.robot_parts:
            if truth.area[t, part] < settings.identity_min_area:
                continue
            colours = part_colours(footage.frames[t], truth.labels[t] == part + 1)
            if colours is None:
                continue
            level = max(float(colours[0].sum()), _DARK)
            chroma = colours / np.maximum(colours.sum(1, keepdims=True), _DARK)
            if part not in first:
                first[part] = (chroma, level)
                continue
            before, level_before = first[part]
            change = float(np.abs(chroma[:, None] - before[None]).sum(2).min())
            changes.append(max(change - _LEVELS / min(level, level_before), 0.0))
            weights.append(truth.area[t, part])
        if changes:
            series[t] = np.average(changes, weights=weights)
    if np.isnan(series).all():
        return Measurement(name, None, "robot never visible long enough", applies=False)
    smooth = _median(series, 5)
    return Measurement(name, float(np.nanmax(smooth)), "", int(np.nanargmax(smooth)), series=series)


def part_colours(frame: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]) -> Float64[np.ndarray, "S 3"] | None:
    """Mean RGB (0..255) of a part as it is seen, with ever more of the hue of what surrounds it taken off, and with ever
    more of all its light: half of every pixel of the outline may show that. None for a part without pixels."""
    shape = mask.astype(np.uint8)
    x, y, width, height = cv2.boundingRect(shape)
    if not width:
        return None
    box = slice(max(y - 2, 0), y + height + 2), slice(max(x - 2, 0), x + width + 2)
    shape, pixels = shape[box], frame[box]
    area = int(shape.sum())
    core, deep = (int(cv2.erode(shape, np.ones((2 * k + 1,) * 2, np.uint8)).sum()) for k in (1, _HUE_PX))
    ring = cv2.dilate(shape, np.ones((5, 5), np.uint8)) - shape
    mean = np.array(cv2.mean(pixels, shape)[:3])
    if not ring.any():
        return np.repeat(mean[None], 2 * len(_SPILL) - 1, 0)
    around, spill = np.array(cv2.mean(pixels, ring)[:3]), np.array(_SPILL)[:, None]
    hue = spill[1:] * (area - deep) / (2 * area) * (around - around.mean())
    share = spill * (area - core) / (2 * area)
    lit = (mean - share * around) / (1 - share)
    return np.clip(np.concatenate([lit[:1], mean - hue, lit[1:]]), 0.0, 255.0)


def _median(series: Float64[np.ndarray, "T"], width: int) -> Float64[np.ndarray, "T"]:
    reach = width // 2
    out = np.full(len(series), np.nan)
    for t in range(len(series)):
        window = series[max(t - reach, 0) : t + reach + 1]
        if not np.isnan(window).all():
            out[t] = np.nanmedian(window)
    return out


def first_frame_error(
    frame: UInt8[np.ndarray, "H W 3"], given: UInt8[np.ndarray, "H W 3"] | None, size: tuple[int, int]
) -> Measurement:
    """1 − correlation of the take's first frame with the given one, after a small blur; skipped without one."""
    name = "first_frame"
    if given is None:
        return Measurement(name, None, "no first frame was given to compare with", applies=False, absent=True)
    pair = []
    for image in (frame, given):
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        pair.append(cv2.GaussianBlur(small, (0, 0), 2.0).astype(np.float64).reshape(-1, 3))
    a, b = (p - p.mean(0) for p in pair)
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if spread < 1e-6:
        same = float(np.abs(pair[0] - pair[1]).mean()) < 3
        return Measurement(name, 0.0 if same else 1.0, "a picture without any contrast", 0)
    return Measurement(name, 1 - float((a * b).sum()) / spread, "", 0)
