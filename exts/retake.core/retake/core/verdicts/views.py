# SPDX-License-Identifier: Apache-2.0
"""Do the cameras of a take show one world? Each pair of cameras is compared where both see the same point, over time.

All figures hold after one gain of brightness per camera: an exposure of its own is no fault, another colour is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from retake.core.array_types import Bool, Float32, UInt8
from retake.core.episode import Episode
from retake.core.episode.mounts import mount_of
from retake.core.progress import CheckCancel, never
from retake.core.variants.base import MAPS, source_frame
from retake.core.variants.correspond import Correspondence, View, correspond, view_at
from retake.core.variants.roles import BACKGROUND, find_roles
from retake.core.verdicts.records import Measurement
from retake.core.verdicts.view_colours import BRIGHT, LINEAR, LUMA, graded, lab, lightness
from retake.core.verdicts.view_instances import Sight, compare_instance, sight

KEPT_VIEWS = 120
"""Views held in memory, about one megabyte each."""
VIEWS_VERSION = "3"
"""Of these estimators alone: raised whenever the same pair of cameras may get another value. Verdicts of single takes have
one of their own."""
NAMES = ("view_colour", "view_instances", "view_structure", "view_lag")


@dataclass(frozen=True)
class ViewSettings:
    """How cameras are compared."""

    moments: int = 14
    """Frames of a take that are compared, spread evenly."""
    min_points: int = 250
    """Co-visible pixels below which a moment says nothing."""
    few: int = 8
    """Of one instance, below which a moment says nothing of it."""
    min_instance: int = 60
    """Of one instance, in the moments that are taken together."""
    together: int = 5
    """Moments in a row that tell of an instance together: a third of the take."""
    min_textured: int = 250
    """Pixels with texture that structure is judged by."""
    texture: float = 1.0
    """Standard deviation of lightness (Lab) in a window that counts as texture: the grain of steel and rubber, which an
    encoder still keeps."""
    least_alike: float = 25
    """Of the windows' correlations the percentile that counts: shadows and edges agree in worlds of two seeds, grain does
    not."""
    window: int = 13
    """Side of that window, working px."""
    least_moments: int = 3
    lags: tuple[int, ...] = (-1, 1)


@dataclass(frozen=True, eq=False)
class PairFigures:
    """What one pair of cameras measures."""

    first: str
    second: str
    measurements: tuple[Measurement, ...]
    gain: float
    """Brightness of the first over the second."""


def compare_views(
    episode: Episode,
    films: Mapping[str, Sequence[UInt8[np.ndarray, "H W 3"]]],
    start: int = 0,
    *,
    working_width: int = 320,
    settings: ViewSettings | None = None,
    geometry: ViewGeometry | None = None,
    check_cancel: CheckCancel = never,
) -> list[PairFigures]:
    """Every pair of cameras among `films` (camera → RGB frames of any size, all of one length, from episode frame `start`).

    A camera without depth or instance ids has no exact correspondences: its pairs say so.
    """
    settings = settings or ViewSettings()
    count = min(len(film) for film in films.values())
    order = [spec.name for spec in episode.header.cameras if spec.name in films]
    moments = np.unique(np.linspace(0, count - 1, settings.moments).astype(int))
    known = {name: set(episode.header.camera(name).channels) >= {"depth", "instances"} for name in order}
    moving = {name: mount_of(episode, name).moves for name in order}
    robot = [i.id for i in episode.header.instances if i.owner.startswith("robot:")]
    pairs = [
        _Pair(a, b, moving[a], moving[b], settings, robot) for a, b in combinations(order, 2) if known[a] and known[b]
    ]
    geometry = geometry or ViewGeometry(episode, start, working_width)
    for t in moments:
        check_cancel()
        pictures = {name: _picture(films[name][t], geometry.size(name)) for name in order if known[name]}
        for pair in pairs:
            pair.see(int(t), count, pictures, geometry)
    return [pair.figures(count) for pair in pairs] + [
        PairFigures(a, b, tuple(Measurement(n, None, _blind(a, b, known), applies=False) for n in NAMES), 1.0)
        for a, b in combinations(order, 2)
        if not (known[a] and known[b])
    ]


def _blind(a: str, b: str, known: Mapping[str, bool]) -> str:
    blind = ", ".join(name for name in (a, b) if not known[name])
    return f"camera {blind} recorded no depth or ids: where its pixels are in the other camera is not known"


class ViewGeometry:
    """Views of an episode's cameras, each read once; comparisons of several films of one episode may share it."""

    def __init__(self, episode: Episode, start: int, width: int) -> None:
        self.episode, self.start, self.width = episode, start, width
        self._known: dict[tuple[str, int], View] = {}
        self._far = _background_of(episode)

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) that a camera is compared at."""
        width, height = self.episode.header.camera(name).size
        return min(width, self.width), round(height * min(width, self.width) / width)

    def at(self, name: str, t: int) -> View:
        """A camera's view of take frame t; the background has id 0, which corresponds to nothing: a world shows another
        one, whose depth nobody recorded."""
        if (name, t) not in self._known:
            if len(self._known) >= KEPT_VIEWS:
                self._known.clear()
            view = view_at(self.episode, name, self.start + t, self.size(name))
            self._known[name, t] = replace(view, ids=np.where(self._far[view.ids], 0, view.ids).astype(np.uint16))
        return self._known[name, t]

    def between(self, first: str, t: int, second: str, u: int) -> Correspondence:
        """Where a camera's pixels of take frame t are in another camera as it was at frame u."""
        return correspond(self.at(first, t), self.at(second, u))

    def holds(self, t: int) -> bool:
        """Whether the episode has that take frame."""
        return 0 <= self.start + t < len(self.episode)


def _background_of(episode: Episode) -> Bool[np.ndarray, "65536"]:
    """Which instance ids a world replaces (floor, walls); none where no camera recorded what roles are told from."""
    camera = next((spec.name for spec in episode.header.cameras if set(spec.channels) >= MAPS), None)
    if camera is None:
        return np.zeros(65536, bool)
    return find_roles(source_frame(episode, camera, 0)).role == BACKGROUND


def _picture(frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> Float32[np.ndarray, "h w 3"]:
    """Linear light of a frame at working size."""
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if frame.shape[1::-1] != size else frame
    return np.asarray(LINEAR[np.asarray(small, np.uint8)])


class _Pair:
    """Figures of one pair, moment by moment. The camera with the finer pixels is looked up from the other one."""

    def __init__(
        self, first: str, second: str, first_moves: bool, second_moves: bool, settings: ViewSettings,
        robot: Sequence[int],
    ) -> None:  # fmt: skip
        self.first, self.second, self.settings, self.robot = first, second, settings, robot
        self.moves = [(first, second, 1)] * first_moves + [(second, first, -1)] * second_moves
        self.samples: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        """(frame, linear light of both at co-visible points, instance ids, which points are graded)."""
        self.structure: list[tuple[int, float]] = []
        self.lags: dict[int, list[float]] = {lag: [] for lag in (0, *settings.lags)}

    def see(self, t: int, count: int, pictures: Mapping[str, np.ndarray], geometry: ViewGeometry) -> None:
        """One moment."""
        own = geometry.at(self.first, t)
        found = geometry.between(self.first, t, self.second, t)
        if found.seen.sum() < self.settings.min_points:
            return
        a, b = _aligned(pictures[self.first], pictures[self.second], found)
        # Clipped highlights and blacks have lost their colour: nothing can be said of them.
        on = found.seen & graded(a) & graded(b)
        if on.sum() < self.settings.min_points:
            return
        self.samples.append((t, a[found.seen], b[found.seen], own.ids[found.seen], on[found.seen]))
        score = likeness(a, b, on, self.settings)
        if score is not None:
            self.structure.append((t, 1 - score))
        if not self.moves or not all(geometry.holds(t + lag) for lag in self.settings.lags):
            return
        here = likeness(a, b, on, self.settings, either=True)
        if here is None:
            return
        scores = {0: here}
        mover, still, _ = self.moves[-1]
        for lag in self.settings.lags:
            # Had the moving camera shown another frame, its pixels would be where they are then.
            late = geometry.between(mover, t + lag, still, t)
            if late.seen.sum() < self.settings.min_points:
                return
            pair = _aligned(pictures[mover], pictures[still], late)
            value = likeness(*pair, late.seen, self.settings, either=True)
            if value is None:
                return
            scores[lag] = value
        if mover != self.first:
            there = geometry.between(mover, t, still, t)
            pair = _aligned(pictures[mover], pictures[still], there)
            value = likeness(*pair, there.seen, self.settings, either=True)
            if value is None:
                return
            scores[0] = value
        for lag, value in scores.items():
            self.lags[lag].append(value)

    def figures(self, count: int) -> PairFigures:
        """The measurements over all moments."""
        s = self.settings
        if len(self.samples) < s.least_moments:
            why = f"{self.first} and {self.second} see too little of the same in {len(self.samples)} moments"
            return PairFigures(
                self.first, self.second, tuple(Measurement(n, None, why, applies=False) for n in NAMES), 1.0
            )
        ratio = np.concatenate([
            np.log(np.maximum(a[on] @ LUMA, 1e-3) / np.maximum(b[on] @ LUMA, 1e-3)) for _, a, b, _, on in self.samples
        ])  # fmt: skip
        gain = float(np.exp(np.median(ratio)))
        # Half of the gain to each: neither is pushed into the other's shadows or highlights.
        half = np.sqrt(gain, dtype=np.float32)
        # What clips in one camera may shine in the other: both end where the first of them does.
        top = LINEAR[BRIGHT] * min(half, 1 / half)
        colour = np.full(count, np.nan)
        by_instance: dict[int, list[Sight]] = {}
        for t, a, b, ids, on in self.samples:
            a, b = a / half, b * half
            colour[t] = float(np.median(np.linalg.norm(lab(a[on]) - lab(b[on]), axis=1)))
            a, b = np.minimum(a, top), np.minimum(b, top)
            for one in np.unique(ids):
                mine = ids == one
                # Of a robot's links two cameras see few pixels, lit as they are turned; each take's own `robot_identity`
                # judges it.
                if one not in self.robot and mine.sum() >= s.few:
                    by_instance.setdefault(int(one), []).append(sight(t, a[mine], b[mine]))
        return PairFigures(
            self.first, self.second,
            (self._colour(colour), self._instances(by_instance, count), self._structure(count), self._lag()), gain,
        )  # fmt: skip

    def _colour(self, series: np.ndarray) -> Measurement:
        value, frame = _worst(series)
        return Measurement("view_colour", value, f"{self.first} against {self.second}", frame, series=series)

    def _instances(self, found: Mapping[int, list[Sight]], count: int) -> Measurement:
        name, s = "view_instances", self.settings
        series = np.full(count, np.nan)
        best: tuple[float, int, int] | None = None
        for instance, sights in found.items():
            told = compare_instance(sights, together=s.together, least=s.min_instance, moments=s.least_moments)
            if told is None:
                continue
            for t, value in told.series:
                series[t] = np.fmax(series[t], value)
            best = max(best or (-1.0, 0, 0), (told.value, instance, told.frame))
        if best is None:
            return Measurement(name, None, "no instance is seen large enough by both", applies=False)
        value, which, frame = best
        return Measurement(name, value, f"instance {which}, {self.first} against {self.second}", frame, series=series)

    def _structure(self, count: int) -> Measurement:
        name = "view_structure"
        if len(self.structure) < self.settings.least_moments:
            return Measurement(name, None, "what both see has no texture", applies=False)
        series = np.full(count, np.nan)
        for t, value in self.structure:
            series[t] = value
        value, frame = _worst(series)
        return Measurement(name, value, f"{self.first} against {self.second}", frame, series=series)

    def _lag(self) -> Measurement:
        name = "view_lag"
        if not self.moves:
            why = "both cameras stand still: each take's own lag is judged"
            return Measurement(name, None, why, applies=False, absent=True)
        if len(self.lags[0]) < self.settings.least_moments:
            return Measurement(name, None, "too few moments show the moving camera's way", applies=False)
        means = {lag: float(np.mean(values)) for lag, values in self.lags.items()}
        best = max((lag for lag in means if lag), key=lambda lag: means[lag])
        note = f"{self.moves[-1][0]} fits frame {best:+d} best" if means[best] > means[0] else ""
        return Measurement(name, means[best] - means[0], note)


def _aligned(
    own: Float32[np.ndarray, "h w 3"], other: Float32[np.ndarray, "H W 3"], found: Correspondence
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w 3"]]:
    """Both pictures on the first one's grid, at one sharpness: that of the coarser pixels."""
    scale = float(np.median(found.scale[found.seen]))
    a, b = _softened(own, scale), _softened(other, 1 / max(scale, 1e-3))
    return a, cv2.remap(b, found.place[..., 0], found.place[..., 1], cv2.INTER_LINEAR)


def displacement(
    own: UInt8[np.ndarray, "h w 3"],
    other: UInt8[np.ndarray, "H W 3"],
    found: Correspondence,
    window: int = 24,
    reach: int = 3,
) -> Float32[np.ndarray, "N"]:
    """How far what the first picture shows is from where the second one shows it, px of the first: per window with texture
    in two directions, the subpixel shift at which both correlate best, after the second was laid over the first by depth.
    """
    if not found.seen.any():
        return np.zeros(0, np.float32)
    a, b = (lightness(x) for x in _aligned(_picture(own, own.shape[1::-1]), _picture(other, other.shape[1::-1]), found))
    gx, gy = cv2.Sobel(a, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(a, cv2.CV_32F, 0, 1, scale=0.125)
    out = []
    for y in range(reach, a.shape[0] - window - reach, window // 2):
        for x in range(reach, a.shape[1] - window - reach, window // 2):
            box = np.s_[y : y + window, x : x + window]
            around = np.s_[y - reach : y + window + reach, x - reach : x + window + reach]
            if not found.seen[around].all():
                continue
            sums = [float((p[box] * q[box]).mean()) for p, q in ((gx, gx), (gy, gy), (gx, gy))]
            least = (sums[0] + sums[1]) / 2 - np.hypot((sums[0] - sums[1]) / 2, sums[2])
            if least < 0.25:
                continue
            score = np.asarray(
                cv2.matchTemplate(np.ascontiguousarray(b[around]), np.ascontiguousarray(a[box]), cv2.TM_CCOEFF_NORMED),
                np.float32,
            )
            row, column = (int(v) for v in np.unravel_index(int(score.argmax()), score.shape))
            if score[row, column] < 0.7:
                continue
            shift = [row - reach + _peak(score[:, column], row), column - reach + _peak(score[row], column)]
            out.append(float(np.linalg.norm(shift)))
    return np.array(out, np.float32)


def _peak(line: np.ndarray, k: int) -> float:
    """Subpixel offset of a maximum: the vertex of the parabola through it and its neighbours."""
    if not 0 < k < len(line) - 1:
        return 0.0
    low, mid, high = (float(v) for v in line[k - 1 : k + 2])
    bend = low - 2 * mid + high
    return 0.0 if bend > -1e-9 else float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))


def _softened(image: Float32[np.ndarray, "h w 3"], coarser: float) -> Float32[np.ndarray, "h w 3"]:
    """The picture as pixels `coarser` times as large would show it, and a little softer in any case."""
    sigma = np.sqrt(0.6 + (0.5 * 0.5 * max(coarser * coarser - 1, 0)))
    return cv2.GaussianBlur(image, (0, 0), float(min(sigma, 8.0)))


def likeness(
    a: Float32[np.ndarray, "h w 3"],
    b: Float32[np.ndarray, "h w 3"],
    seen: Bool[np.ndarray, "h w"],
    settings: ViewSettings,
    *,
    either: bool = False,
) -> float | None:
    """Correlation of lightness in windows that show texture, that of the least alike quarter; None where too few do.

    Texture counts where both pictures show it: what one alone shows may be too fine for the other, or the fall-off of its
    lens. Moments are told apart by what `either` shows, so that all of them are judged by the same windows.
    """
    la, lb = lightness(a), lightness(b)
    k, mask = (settings.window, settings.window), seen.astype(np.float32)
    weight = cv2.boxFilter(mask, -1, k)

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(x * mask, -1, k) / np.maximum(weight, 1e-6)

    ma, mb = mean(la), mean(lb)
    va, vb, cov = mean(la * la) - ma * ma, mean(lb * lb) - mb * mb, mean(la * lb) - ma * mb
    textured = (np.maximum if either else np.minimum)(va, vb) > settings.texture**2
    use = seen & (weight > 0.6) & textured
    if use.sum() < settings.min_textured:
        return None
    floor = 0.25 * settings.texture**2
    value = cov[use] / np.sqrt((np.maximum(va[use], 0) + floor) * (np.maximum(vb[use], 0) + floor))
    return float(np.percentile(value, settings.least_alike))


def _worst(series: np.ndarray) -> tuple[float | None, int | None]:
    """The worst three moments in a row agree on: a fault lasts, a single moment may be hidden or blurred."""
    valid = np.flatnonzero(~np.isnan(series))
    if not len(valid):
        return None, None
    values = series[valid]
    if len(values) < 3:
        return float(np.median(values)), int(valid[int(np.argmax(values))])
    smooth = np.array([np.median(values[max(k - 1, 0) : k + 2]) for k in range(len(values))])
    k = int(np.argmax(smooth))
    return float(smooth[k]), int(valid[k])
