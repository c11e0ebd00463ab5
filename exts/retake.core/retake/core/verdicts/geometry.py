# SPDX-License-Identifier: Apache-2.0
"""Temporal geometry of takes whose camera moves: does the scenery shift as the known camera motion says?

`temporal_geometry` is the Sampson error of points followed over a few frames, with the fundamental matrix of the
recorded poses (source: the evaluation recipe of cosmos-cookbook; its bands call below 1 px excellent, 1-3 good, 3-5
fair, more poor). The square root is taken, so the unit is pixels, and a third of the points must be below it, not half:
without their light, pictures have points in shadows and patterns that go another way. A scene that stands still or runs
backwards obeys the same matrix, so `camera_motion` also compares each shift with the one that the recorded depth
predicts. With a camera that stands still the matrix is undefined: see background_drift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, Float64, UInt8
from retake.core.episode import Episode
from retake.core.verdicts.footage import Footage
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.settings import StabilitySettings
from retake.core.verdicts.trackers import follow
from retake.core.verdicts.truth import Truth

NAMES = ("temporal_geometry", "camera_motion")


def measure_geometry(
    footage: Footage, truth: Truth, episode: Episode, camera: str, settings: StabilitySettings
) -> list[Measurement]:
    """temporal_geometry (px) and camera_motion (share of the predicted shift): medians of the pairs.

    A pair's temporal_geometry is the median over the scenery's points, its camera_motion what a third of them stays below:
    shadows of the hand and reflections move otherwise over scenery that is right, and of scenery that is wrong next to no
    point goes where it should. Depth is read only for camera_motion, and may be missing.
    """
    if truth.static_camera:
        why = "the camera stands still: background_drift judges the scenery"
        return [Measurement(name, None, why, applies=False, absent=True) for name in NAMES]
    details = [detail(frame) for frame in footage.frames]
    found = _pairs(details, truth, episode, camera, settings)
    if found.doubts and np.median(found.doubts) > settings.pair_doubt:
        why = f"the scenery's texture repeats: {100 * np.median(found.doubts):.0f} % of its points fit in more than one place"
        return [Measurement(name, None, why) for name in NAMES]
    errors, shares = _upper(NAMES[0], found.errors, settings), _upper(NAMES[1], found.shares, settings)
    if (shares.value or 0.0) > _ASKED:
        # What stays where it is in the picture (the shadow of a hand or of leaves, dirt) may have most of the corners.
        rest = _upper(
            NAMES[1], _pairs(without_standing(details), truth, episode, camera, settings, True).shares, settings
        )
        if rest.value is not None and rest.value < (shares.value or 0.0):
            shares = replace(rest, note=f"{rest.note}; without what stands in the picture")
    return [errors, shares]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """What pairs of frames say: Sampson errors, px, and relative differences (see `NAMES`) per frame; per judged pair, the
    share of points with two places that fit alike."""

    errors: Float64[np.ndarray, "T"]
    shares: Float64[np.ndarray, "T"]
    doubts: list[float]


def _pairs(
    details: list[UInt8[np.ndarray, "H W"]], truth: Truth, episode: Episode, camera: str, settings: StabilitySettings,
    alike: bool = False,
) -> _Pairs:  # fmt: skip
    """Points of pictures followed from frame to frame. alike: only points whose surroundings look the same in both frames;
    pairs of which few do are left out."""
    grow = np.ones((2 * settings.margin_px + 1,) * 2, np.uint8)
    depth_known = "depth" in episode.header.camera(camera).channels
    errors, shares = np.full(len(truth), np.nan), np.full(len(truth), np.nan)
    doubts: list[float] = []
    for t in range(0, len(truth) - settings.pair_frames, 2):
        depth = episode.image(camera, "depth", truth.start + t) if depth_known else None
        u = partner_of(truth, depth, t, settings)
        if u is None:
            continue
        F = fundamental(truth, t, u, settings.pair_baseline_m)
        if F is None:
            continue
        scenery = cv2.dilate((truth.labels[t] > 0).astype(np.uint8), grow) == 0
        corners = cv2.goodFeaturesToTrack(details[t], 250, 0.02, 5, mask=scenery.astype(np.uint8))
        if corners is None:
            continue
        start = corners.reshape(-1, 2).astype(np.float64)
        tracks, seen = follow(details[t : u + 1], start)
        a, b = tracks[0][seen[-1]], tracks[-1][seen[-1]]
        if depth is not None:
            expected = predicted(truth, depth, start, t, u)
            known = np.asarray(np.isfinite(expected).all(1))
            # What the recording has no depth of is far away: a wall that repeats is followed by the camera's turn.
            guess = np.where(known[:, None], expected, far_away(truth, start, t, u))
            place, doubt = nearer(details[t], details[u], start, tracks[-1], seen[-1], guess)
            if alike:
                same = np.asarray(likeness(details[t], details[u], start, place) > _ALIKE)
                if same.sum() < _ALIKE_SHARE * len(start):
                    continue
                place[~same] = np.nan
            place, shift = shown_of(details[t], start, place, guess)
            use = np.isfinite(place).all(1) & known & (shift > settings.pair_shift)
            if use.sum() >= settings.pair_points:
                shares[t] = float(np.quantile(np.linalg.norm(place - expected, axis=1)[use] / shift[use], _FOLLOWING))
                doubts.append(float(doubt[use].mean()))
            good = np.isfinite(place).all(1)
            a, b = start[good], place[good]
        if len(a) >= settings.pair_points:
            error = sampson(truth.ideal(t, a), truth.ideal(u, b), F)
            errors[t] = float(np.quantile(error, _FOLLOWING)) * truth.px
    return _Pairs(errors, shares, doubts)


_ASKED = 0.25
"""camera_motion from which on what stands in the picture is taken off, and the rest asked."""
_ALIKE, _ALIKE_SHARE = 0.7, 0.1
"""Correlation of the surroundings of a point in both frames from which on it is one and the same; share of the points that
must be: noise is not followed, whatever it is near to."""
_STANDING = 15
"""Frames that tell what stands in the picture."""
_FAINTEST = 1.0
"""Grey level of deviation below which surroundings have no pattern."""


def without_standing(details: list[UInt8[np.ndarray, "H W"]]) -> list[UInt8[np.ndarray, "H W"]]:
    """Pictures (see `detail`) without what all of them show in the same place: shadows of the hand and of leaves, dirt."""
    picked = np.unique(np.linspace(0, len(details) - 1, _STANDING).astype(int))
    standing = np.median(np.stack([details[k] for k in picked]), axis=0).astype(np.float32)
    return [np.clip(grey - standing + 128, 0, 255).astype(np.uint8) for grey in details]


def likeness(
    first: UInt8[np.ndarray, "H W"], second: UInt8[np.ndarray, "H W"], start: Float64[np.ndarray, "N 2"],
    place: Float64[np.ndarray, "N 2"],
) -> Float64[np.ndarray, "N"]:  # fmt: skip
    """Correlation of the points' surroundings, of 11 px, in both pictures; −1 of points without a place."""
    known = np.asarray(np.isfinite(place).all(axis=1))
    reach = np.arange(11) - 5.0
    patches = []
    for image, points in ((first, start), (second, np.where(known[:, None], place, 0.0))):
        x = np.repeat(points[:, None, 0] + reach[None], 11, 0).astype(np.float32)
        y = np.broadcast_to((points[:, 1, None] + reach[None]).reshape(-1, 1), x.shape).astype(np.float32)
        seen = cv2.remap(image.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        flat = seen.reshape(len(points), -1)
        patches.append(flat - flat.mean(1, keepdims=True))
    a, b = patches
    spread = [np.sqrt(np.square(patch).mean(1)) for patch in patches]
    found = (a * b).mean(1) / np.maximum(spread[0] * spread[1], _FAINTEST**2)
    return np.where(known, found, -1.0).astype(np.float64)


_FOLLOWING = 1 / 3
"""Share of the scenery's points that must go as the camera says."""
_LIGHT_PX, _GAIN, _DARK = 3.0, 400.0, 8.0
"""Working px over which light and soft shadows change; grey levels of a pixel of twice its surroundings' brightness; grey
levels below which a camera sees noise."""


def detail(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """What a picture shows beside its light: grey over the mean around it. Soft shadows, which a hand takes along over a
    plain table, are nearly gone, and what is printed on the table is as strong inside of them."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) + np.float32(_DARK)
    around = cv2.GaussianBlur(grey, (0, 0), _LIGHT_PX)
    return np.clip(128 + (grey / around - 1) * np.float32(_GAIN), 0, 255).astype(np.uint8)


_FOLLOWED = 24.0
"""Working px over which a point of faithful takes is followed reliably: a camera that whirls loses them."""


def partner_of(
    truth: Truth, depth: Float32[np.ndarray, "H W"] | None, t: int, settings: StabilitySettings
) -> int | None:
    """The frame that t is compared with: as far away as points can be followed. None where even the next is too far."""
    if depth is None:
        return t + settings.pair_frames
    v, u = np.mgrid[0 : truth.size[1] : 24, 0 : truth.size[0] : 24]
    grid = np.stack([u.ravel(), v.ravel()], 1).astype(np.float64)
    for frames in range(settings.pair_frames, 0, -1):
        shift = np.linalg.norm(predicted(truth, depth, grid, t, t + frames) - grid, axis=1)
        # Nothing ahead has a depth: nothing can be said.
        if np.isnan(shift).all() or np.nanmedian(shift) <= _FOLLOWED:
            return t + frames
    return None


_LK = {"winSize": (11, 11), "maxLevel": 1}
_AS_GOOD = 1.25
_APART = 2.0
_BACK = 0.5
"""Working px within which a point that is followed back must return."""


def nearer(
    first: UInt8[np.ndarray, "H W"], second: UInt8[np.ndarray, "H W"], start: Float64[np.ndarray, "N 2"],
    followed: Float64[np.ndarray, "N 2"], seen: Bool[np.ndarray, "N"], expected: Float64[np.ndarray, "N 2"],
) -> tuple[Float64[np.ndarray, "N 2"], Bool[np.ndarray, "N"]]:  # fmt: skip
    """Where every point is in the second picture (NaN: nowhere), and whether two places fit it alike; working px.

    A point is followed from its own place and looked for at the predicted one; a place counts only if the point returns
    from there. Of two places that fit alike (a texture that repeats) the nearer to the prediction is taken; one that fits
    better is taken in any case.
    """
    known = np.asarray(np.isfinite(expected).all(axis=1))
    guess = np.where(known[:, None], expected, start)
    ends, errors = [], []
    for initial, valid in ((followed, seen), (guess, known)):
        there, found, error = _follow(first, second, start, initial)
        back, returned, _ = _follow(second, first, there, there - (initial - start))
        good = valid & found & returned & (np.linalg.norm(back - start, axis=1) < _BACK)
        ends.append(np.where(good[:, None], there, np.nan))
        errors.append(np.where(good, error, np.inf))
    apart = np.linalg.norm(ends[0] - ends[1], axis=1) > _APART
    alike = np.maximum(errors[0], errors[1]) < _AS_GOOD * np.minimum(errors[0], errors[1]) + 1.0
    first_is_better = (errors[0] < errors[1]) & ~(apart & alike)
    place = np.where(first_is_better[:, None], ends[0], ends[1])
    return np.where(np.isfinite(place), place, ends[0]), apart & alike


def _follow(
    first: UInt8[np.ndarray, "H W"], second: UInt8[np.ndarray, "H W"], points: Float64[np.ndarray, "N 2"],
    initial: Float64[np.ndarray, "N 2"],
) -> tuple[Float64[np.ndarray, "N 2"], Bool[np.ndarray, "N"], Float64[np.ndarray, "N"]]:  # fmt: skip
    """Places in the second picture, whether there is one, and how much the patches differ (grey levels); working px.

    OpenCV leaves the difference of a point without texture unwritten, so it is handed zeros to write on: what memory held
    before could be a number that no cast takes.
    """
    there, found, error = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
        first, second, points.astype(np.float32).reshape(-1, 1, 2), initial.astype(np.float32).reshape(-1, 1, 2),
        err=np.zeros((len(points), 1), np.float32), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_LK,
    )  # fmt: skip
    return there.reshape(-1, 2).astype(np.float64), found.ravel() > 0, error.ravel().astype(np.float64)


_EDGE = 0.1
"""Of a patch's contrast across its edges: with less than this along them it is a straight edge. The steps that a slanted
edge has in a picture of pixels stay below; they move along it as the raster has it, not as the scenery does."""
_SOFT = 1.2
"""Working px of the blur that takes these steps off before contrast is measured."""


def shown_of(
    grey: UInt8[np.ndarray, "H W"], start: Float64[np.ndarray, "N 2"], place: Float64[np.ndarray, "N 2"],
    expected: Float64[np.ndarray, "N 2"],
) -> tuple[Float64[np.ndarray, "N 2"], Float64[np.ndarray, "N"]]:  # fmt: skip
    """Where the points are, as far as the picture shows it, and how far it shows them to move if they go to `expected`.

    Nobody sees how far a straight edge moved along itself: of such a point only the part across the edge counts, and it
    is put at the place nearest to the prediction. Working px; `grey` is the picture of `start`.
    """
    soft = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _SOFT)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    at = np.clip(np.round(start).astype(int), 0, np.array(grey.shape[::-1]) - 1)
    xx, xy, yy = (
        cv2.blur(product, _LK["winSize"])[at[:, 1], at[:, 0]].astype(np.float64)  # type: ignore[arg-type]
        for product in (gx * gx, gx * gy, gy * gy)
    )
    half, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    edge = half - spread < _EDGE * (half + spread)
    angle = np.arctan2(2 * xy, xx - yy) / 2
    across = np.stack([np.cos(angle), np.sin(angle)], 1)
    off = ((place - expected) * across).sum(1)
    shift = np.where(edge, np.abs(((expected - start) * across).sum(1)), np.linalg.norm(expected - start, axis=1))
    projected = expected + off[:, None] * across
    return np.where((edge & np.isfinite(off))[:, None], projected, place), shift


def _upper(name: str, series: Float64[np.ndarray, "T"], settings: StabilitySettings) -> Measurement:
    pairs = int((~np.isnan(series)).sum())
    if pairs < settings.pairs:
        why = f"{pairs} pairs of frames show camera motion and scenery with texture, {settings.pairs} needed"
        return Measurement(name, None, why, applies=False)
    value = float(np.nanmedian(series))
    return Measurement(name, value, f"{pairs} pairs of frames", int(np.nanargmax(series)), series=series)


def predicted(
    truth: Truth, depth: Float32[np.ndarray, "H W"], points: Float64[np.ndarray, "N 2"], t: int, u: int
) -> Float64[np.ndarray, "N 2"]:
    """Where points of the still scenery at frame t are at frame u, by recorded depth; NaN where there is none."""
    at = np.clip(np.round((points + 0.5) / truth.scale - 0.5).astype(int), 0, np.array(depth.shape[::-1]) - 1)
    z = depth[at[:, 1], at[:, 0]].astype(np.float64)
    straight = truth.ideal(t, points)
    ray = np.concatenate([straight + 0.5, np.ones((len(points), 1))], 1) @ np.linalg.inv(truth.K[t]).T
    T = truth.T_camera_world[u] @ np.linalg.inv(truth.T_camera_world[t])
    uvw = (ray * z[:, None] @ T[:3, :3].T + T[:3, 3]) @ truth.K[u].T
    good = (z > 0) & (uvw[:, 2] > 0.02)
    out = uvw[:, :2] / np.where(good, uvw[:, 2], 1.0)[:, None] - 0.5
    out = truth.seen(u, out)
    out[~good] = np.nan
    return out


def far_away(truth: Truth, points: Float64[np.ndarray, "N 2"], t: int, u: int) -> Float64[np.ndarray, "N 2"]:
    """Where points of frame t are at frame u if they are so far away that only the camera's turn moves them; NaN behind it."""
    ray = np.concatenate([truth.ideal(t, points) + 0.5, np.ones((len(points), 1))], 1) @ np.linalg.inv(truth.K[t]).T
    R = (truth.T_camera_world[u] @ np.linalg.inv(truth.T_camera_world[t]))[:3, :3]
    uvw = ray @ R.T @ truth.K[u].T
    good = uvw[:, 2] > 0.02
    out = truth.seen(u, uvw[:, :2] / np.where(good, uvw[:, 2], 1.0)[:, None] - 0.5)
    out[~good] = np.nan
    return out


def fundamental(truth: Truth, t: int, u: int, baseline_m: float) -> Float64[np.ndarray, "3 3"] | None:
    """F with x_u' F x_t = 0 in image-index pixels of the working image (of `Truth.ideal` where a lens bends it); None
    when the camera hardly translated."""
    T = truth.T_camera_world[u] @ np.linalg.inv(truth.T_camera_world[t])
    x, y, z = T[:3, 3]
    if np.hypot(np.hypot(x, y), z) < baseline_m:
        return None
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    corner = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    first, second = np.linalg.inv(corner @ truth.K[t]), np.linalg.inv(corner @ truth.K[u])
    F = second.T @ cross @ T[:3, :3] @ first
    return F / np.linalg.norm(F)


def sampson(
    a: Float64[np.ndarray, "N 2"], b: Float64[np.ndarray, "N 2"], F: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "N"]:
    """Sampson distance of matches a <-> b, px: first-order distance to the nearest pair that obeys F."""
    one = np.ones((len(a), 1))
    x, y = np.concatenate([a, one], 1), np.concatenate([b, one], 1)
    Fx, Fty = x @ F.T, y @ F
    slope = Fx[:, 0] ** 2 + Fx[:, 1] ** 2 + Fty[:, 0] ** 2 + Fty[:, 1] ** 2
    return np.abs((y * Fx).sum(1)) / np.sqrt(np.maximum(slope, 1e-18))
