# SPDX-License-Identifier: Apache-2.0
"""Everything a judge can be told: estimator settings, thresholds with their sources, and the calibration behind them.

Defaults come from config/verdicts.yaml, never from the logic; a file of one's own replaces single values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from retake.core.codec import merged
from retake.core.config import config_path, load_yaml
from retake.core.errors import InputError, unknown_name


@dataclass(frozen=True)
class FollowingSettings:
    """Action following."""

    radius: int = 12
    """Largest shift searched, working px."""
    max_lag: int = 8
    step: int = 2
    """Every step-th frame of the take is aligned (against every frame of the simulation)."""
    window: int = 11
    """Frames that are judged together where one link or one moment is concerned."""
    lag_window: int = 17
    lag_alike: float = 0.3
    """Share of a lag's gain by which another one may be worse and still be as good: before a camera on the hand, whose
    outlines hardly move, several are."""
    min_points: float = 200.0
    """Contour points (summed over a window) below which the robot counts as not visible."""
    prior: float = 1e-4
    """Score a hypothesis must gain per squared working px of shift."""
    link_prior: float = 6e-4
    """The same for a few links: fewer contours, more ways to fit something else."""
    link_gain: float = 1.1
    """Gain another place must have, in standard deviations of the score over all shifts. Camouflaged links of faithful
    takes reached 0.7 and widened ones 1.05, the misplaced ones of the tuning split 1.1 to 4."""
    link_share: float = 0.13
    """The same as a share of that place's score (0.12, and 0.15 to 0.5)."""
    link_rival: float = 0.5
    """Share of a far peak's height at which a peak in the right place is believed instead (a striped belt behind a
    faithful gripper left 0.6; a displaced one leaves none)."""
    min_gain: float = 0.03
    """Mean edge response by which another hypothesis must beat the simulator's."""
    lag_own_px: float = 3.0
    """Working px that a part of the robot must move in the picture of a moving camera, in one window, to show a lag."""
    min_motion_px: float = 8.0
    """Image motion inside a window below which no lag can be told, px."""
    gripper_window: int = 21
    gripper_min_gain: float = 0.08
    gripper_share: float = 0.22
    """Share of the best opening's response by which it must beat the simulator's."""
    gripper_lasting: int = 4
    """Windows in a row in which an opening must be wrong."""
    gripper_clear: float = 0.2
    """Only frames in which the gripper is open or shut up to this share are judged."""
    gripper_min_frames: int = 6
    gripper_event_reach: int = 7
    """Frames by which the gripper's opening or closing is searched early and late."""
    gripper_event_gain: float = 0.03
    """Mean edge response by which another moment must beat the simulator's."""
    gripper_event_share: float = 0.05
    """The same as a share of that moment's response."""
    gripper_event_area: float = 18.0
    """Visible working px² of a finger: one 12 px long and 6 px wide in a 640 px wide picture."""
    gripper_event_travel_px: float = 10.0
    """Image motion of a finger from closed to open that a moment can be told from, px."""
    finger_min_area: float = 12.0
    """Visible working px² of a finger."""
    finger_min_outline: float = 0.4
    """Share of a finger's contour that must border on scenery."""
    finger_min_travel_px: float = 2.5
    """Working px between closed and open."""


@dataclass(frozen=True)
class ObjectSettings:
    """Object physics."""

    min_reference: float = 0.25
    """Contrast in the first frame below which colours do not tell the object."""
    margin: float = 0.2
    """Share of that contrast by which another place must beat the simulator's."""
    known: float = 1.5
    """Gains up to this many times the first frame's are discounted: there the object is known to be in its place, so
    what another place nearby gains is the scenery's likeness, not a displacement."""
    sure: float = 0.25
    """Share of that contrast from which on a small displacement is taken as it is; less counts in proportion."""
    sighted: float = 0.5
    """Share of that contrast from which on the object counts as seen far from its place."""
    plain: float = 0.75
    """Share of that contrast from which on a sighting beside its place is believed whatever stands in its place."""
    stands: float = 0.28
    """Contrast of a silhouette in the object's place from which on something of its outline stands there."""
    behind: float = 0.5
    """Share of its place that shows the very scenery behind from which on nothing stands there."""
    behind_sighted: float = 0.8
    """The same where the object is but half seen beside its place: grey sides before a grey wall look like it, and a place
    that the object has left shows nothing else."""
    present: float = 0.25
    """Share of that contrast below which the object is not there."""
    clear: float = 0.6
    """Contrast of an object that its colours tell clearly: what a second one has is compared with no less than this."""
    min_contour_points: float = 60.0
    """Contour points of a phase that are needed to judge it where colours cannot tell."""
    min_contour_support: float = 1.8
    """Best fit of the contours over their mean fit, 1 is chance."""
    contour_prior: float = 6e-4
    near_px: float = 12.0
    """px within which the best place is taken as it is."""
    min_phase_frames: int = 3
    """Frames of a phase in which the simulation shows the object; a phase with fewer is not asked about."""
    told: float = 0.5
    """Contrast between the colours inside and around the mask from which on a silhouette can be judged."""
    told_shape: float = 0.75
    """The same for its shape, which needs every pixel."""
    at_home: float = 0.4
    """Share of the first frame's colours that an object in its place must show for its silhouette to be judged."""


@dataclass(frozen=True)
class StabilitySettings:
    """World stability."""

    margin_px: int = 8
    """Working px around robot and objects that do not count as scenery (warps, shadows)."""
    drift_step: int = 3
    still_step: int = 6
    """Every so many frames what should stand still is looked for."""
    still_contrast: float = 2.0
    """Standard deviation of the detail that a place must have, grey values."""
    still_match: float = 0.6
    """Correlation from which on another place is the same thing."""
    still_gain: float = 0.03
    """Correlation by which it must beat the thing's own place."""
    still_share: float = 0.15
    """The same as a share of what its own place lacks: shadows that cross it cost correlation everywhere."""
    still_lost: float = 0.2
    """Correlation below which it is no longer there."""
    new_tone: float = 0.3
    """Log ratio of colours by which a place must differ from its first views, beyond what the scenery differs anyway."""
    near_robot_px: int = 4
    """Working px around robot and objects in which nothing counts as added."""
    work_pixels: int = 300
    """Half-size pixels of ground that must be seen."""
    texture_frames: int = 4
    """Frames from one view of the links' surfaces to the next, at least; some 13 views are compared."""
    texture_area: float = 150.0
    """Working px² of a link that can be asked."""
    texture_points: int = 30
    texture_turn: float = 0.12
    """rad by which a link may turn between views whose surfaces are compared, where no depth was recorded."""
    frozen_motion_px: float = 1.5
    frozen_change: float = 0.02
    identity_min_area: float = 40.0
    pair_frames: int = 4
    """Distance of the frames whose points are compared with a moving camera's motion."""
    pair_baseline_m: float = 0.008
    """Camera motion between them below which points say nothing."""
    pair_points: int = 8
    """Points whose place is known that a pair of frames needs."""
    pair_shift: float = 3.0
    """Working px that a point must shift to be compared with its prediction."""
    pair_doubt: float = 0.5
    """Share of points with two places that fit alike from which on the scenery says nothing."""
    pairs: int = 5


@dataclass(frozen=True)
class RecordedSettings:
    """A take's motion against a recording's (`motion`)."""

    cell: int = 8
    """Working px per cell of a motion map."""
    max_lag: int = 10
    """Frames searched either way."""
    max_shift: float = 0.2
    """Share of the width searched either way."""
    window: int = 31
    """Frames that must agree together; the worst window is judged."""
    moving: float = 0.25
    """Share of the typical motion (upper quartile) from which on a frame of the recording counts as moving."""
    still: float = 0.12
    """Share of the motion that the recording shows there below which a take's frame counts as frozen."""
    min_moving: int = 12
    """Moving frames that are needed to judge."""


@dataclass(frozen=True)
class TrackerSettings:
    """An optional point tracker as a second opinion."""

    name: str = ""
    """`lucas_kanade` or one that another package adds; empty = none."""
    points: int = 12
    """Points per part."""
    horizon: int = 10
    """Frames each point is followed."""
    min_samples: int = 20
    """Followed points (summed over a span's frames) that a part needs to be judged."""


@dataclass(frozen=True)
class Threshold:
    """When a check fails."""

    limit: float
    unit: str = ""
    source: str = ""
    unsure: float | None = None
    """Between this and the limit the check is unsure."""
    worse: Literal["above", "below"] = "above"
    """Which side of the limit fails: `above` or `below`."""
    base: float = 0.0
    """For `below`: the value of a take that has nothing to do with the simulation."""
    exact: bool = False
    """A definition: the same at every operating point."""

    def fails(self, value: float) -> bool:
        """Whether a value is beyond the limit."""
        return value < self.limit if self.worse == "below" else value > self.limit

    def doubtful(self, value: float) -> bool:
        """Whether a value is not beyond the limit, but beyond the bound of doubt."""
        if self.unsure is None or self.fails(value):
            return False
        return value < self.unsure if self.worse == "below" else value > self.unsure

    def scaled(self, factor: float) -> Threshold:
        """The same threshold, sharper (factor below 1) or blunter."""
        if self.exact or factor == 1:
            return self
        move = (lambda x: self.base + (x - self.base) / factor) if self.worse == "below" else (lambda x: x * factor)
        return replace(self, limit=move(self.limit), unsure=None if self.unsure is None else move(self.unsure))

    def severity(self, value: float) -> float:
        """How bad a value is: 0 is perfect, 1 is the limit, comparable over checks."""
        if self.worse == "below":
            return min((self.limit - self.base) / max(value - self.base, 1e-6), 50.0)
        return max(value, 0.0) / max(self.limit, 1e-9)


@dataclass(frozen=True)
class Calibration:
    """From the worst check's severity s to the probability that a take is faultless: 1 / (1 + exp(slope·ln s + bias))."""

    data: str = "uncalibrated"
    slope: float = 4.0
    bias: float = 0.0

    def probability(self, severity: float) -> float:
        """Probability that a take with this worst severity is faultless."""
        x = self.slope * math.log(max(severity, 1e-3)) + self.bias
        return 1 / (1 + math.exp(min(max(x, -60.0), 60.0)))


@dataclass(frozen=True)
class OperatingPoint:
    """How sharp a judge is, and what that means on videos whose painter tuned nothing."""

    scale: float = 1.0
    """Factor of all limits that are no definitions."""
    clean_passed: float | None = None
    """Share of faithful takes that pass, measured; None where it was not."""
    clean_failed: float | None = None
    """Share of faithful takes that fail (false alarms); the rest is unsure."""
    faulty_passed: float | None = None
    """Share of faulty takes that pass."""
    data: str = ""
    """What was measured."""


GENERATED = "generated"
"""Takes of video models; of whatever is judged without saying who made it, too."""


@dataclass(frozen=True)
class Family:
    """Takes that look alike because the same kind of backend makes them (`Take.domain`)."""

    data: str = ""
    """What its limits were set from."""
    limits: dict[str, float] = field(default_factory=dict)
    """Check -> its limit for these takes; a bound of doubt keeps its share. Others have the general limit."""


@dataclass(frozen=True)
class VerdictSettings:
    """All settings of a judge."""

    working_width: int = 320
    min_frames: int = 9
    window: int = 81
    """Frames of a take whose window nobody states, or all that the episode offers where that is less."""
    following: FollowingSettings = FollowingSettings()
    object: ObjectSettings = ObjectSettings()
    stability: StabilitySettings = StabilitySettings()
    tracker: TrackerSettings = TrackerSettings()
    recorded: RecordedSettings = RecordedSettings()
    calibration: Calibration = Calibration()
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    recording_thresholds: dict[str, Threshold] = field(default_factory=dict)
    """Of takes of recorded episodes."""
    operating_points: dict[str, OperatingPoint] = field(default_factory=dict)
    operating_point: str = "balanced"
    """The one in use; `at` changes it."""
    families: dict[str, Family] = field(default_factory=dict)
    family: str = GENERATED
    """The one in use; `of` changes it."""
    required: tuple[str, ...] = ()
    """Checks that must be told: one that exists in these frames and that these pictures or recordings cannot show is unsure
    instead of skipped. `requiring` adds some."""

    @property
    def calibrated_on(self) -> str:
        """Names of the data behind probability and limits."""
        own = self.families.get(self.family, Family()).data
        return f"{self.calibration.data}; limits of {self.family} takes: {own}" if own else self.calibration.data

    def threshold(self, name: str) -> Threshold:
        """The threshold of a check. Raises InputError naming the known ones."""
        known = {**self.thresholds, **self.recording_thresholds}
        if name not in known:
            raise InputError(f"config/verdicts.yaml: {unknown_name('threshold', name, known)}")
        return known[name]

    def requiring(self, names: Iterable[str]) -> VerdictSettings:
        """The same settings with further checks that must be told. Raises InputError naming the known ones."""
        required, known = sorted({*self.required, *names}), {**self.thresholds, **self.recording_thresholds}
        if unknown := [name for name in required if name not in known]:
            raise InputError(unknown_name("required check", unknown[0], known))
        return replace(self, required=tuple(required))

    def of_domain(self, domain: str) -> VerdictSettings:
        """The settings with the limits of a take's own family, where its domain has some."""
        return self.of(domain) if domain in self.families else self

    def of(self, family: str) -> VerdictSettings:
        """The same settings for takes of a family. Raises InputError naming the known ones."""
        if family == self.family or (family == GENERATED and not self.families):
            return self
        if self.family != GENERATED:
            raise InputError(f"limits are those of {self.family} takes already; start from the general ones")
        if family not in self.families:
            raise InputError(unknown_name("family of takes", family, self.families))
        factor = self.operating_points.get(self.operating_point, OperatingPoint()).scale
        thresholds = dict(self.thresholds)
        for check, limit in self.families[family].limits.items():
            known = self.threshold(check)
            doubt = None if known.unsure is None else known.unsure * Threshold(limit).scaled(factor).limit / known.limit
            thresholds[check] = replace(known, limit=Threshold(limit).scaled(factor).limit, unsure=doubt)
        return replace(self, thresholds=thresholds, family=family)

    def at(self, name: str) -> VerdictSettings:
        """The same settings at another operating point. Raises InputError naming the known ones."""
        if name not in self.operating_points:
            raise InputError(unknown_name("operating point", name, self.operating_points))
        now = self.operating_points.get(self.operating_point, OperatingPoint()).scale
        factor = self.operating_points[name].scale / now
        every, recorded = (
            {check: threshold.scaled(factor) for check, threshold in thresholds.items()}
            for thresholds in (self.thresholds, self.recording_thresholds)
        )
        return replace(self, thresholds=every, recording_thresholds=recorded, operating_point=name)


def load_settings(
    path: Path | None = None, operating_point: str | None = None, require: Iterable[str] = ()
) -> VerdictSettings:
    """Settings of config/verdicts.yaml, then those of `path`, at an operating point (limits in files are `balanced`). `require`:
    names of further checks that must be told, also several in one text with commas between them.

    Raises InputError for unknown or malformed values.
    """
    settings = _apply(VerdictSettings(), config_path("verdicts.yaml"))
    settings = settings if path is None else _apply(settings, path)
    settings = settings.requiring(name.strip() for text in require for name in text.split(",") if name.strip())
    return settings if operating_point is None else settings.at(operating_point)


def _apply(settings: VerdictSettings, path: Path) -> VerdictSettings:
    data: Any = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(data).__name__}")
    chosen = data.get("operating_point")
    changed = merged(settings, {key: value for key, value in data.items() if key != "operating_point"}, str(path))
    try:
        changed = changed.requiring(())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return changed if chosen is None else changed.at(str(chosen))
