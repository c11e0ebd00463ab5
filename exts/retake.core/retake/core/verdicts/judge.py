# SPDX-License-Identifier: Apache-2.0
"""judge(): one take against its episode. Pixels in, Verdict out; no disk except what the episode reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.episode.events import ObjectEvents, object_events
from retake.core.errors import VerdictError
from retake.core.progress import CheckCancel, never
from retake.core.verdicts.alignment import Alignment, align
from retake.core.verdicts.clip import COARSEST, Clip, open_clip
from retake.core.verdicts.following import arm_size, link_offsets, measure_following, motion_px
from retake.core.verdicts.footage import Footage, make_footage, shrink
from retake.core.verdicts.geometry import measure_geometry
from retake.core.verdicts.gripper import find_fingers, measure_gripper
from retake.core.verdicts.objects import NAMES as OBJECT_NAMES
from retake.core.verdicts.objects import measure_object, pisa
from retake.core.verdicts.records import Check, Measurement, Status, Verdict
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.verdicts.stability import first_frame_error, measure_stability
from retake.core.verdicts.trackers import measure_tracked
from retake.core.verdicts.tracking import Track, track
from retake.core.verdicts.truth import Truth, read_truth

Frames = Iterable[UInt8[np.ndarray, "H W 3"]]


@dataclass(frozen=True, eq=False)
class Judged:
    """A verdict with what it was measured from, for pictures and tests."""

    verdict: Verdict
    truth: Truth
    footage: Footage
    alignment: Alignment
    tracks: dict[str, Track]
    measurements: tuple[Measurement, ...]
    clip: Clip | None = None
    """The file that was judged; None for frames in memory."""


def judge(
    video: Path | str | Frames,
    episode: Episode,
    camera: str,
    *,
    first_frame: UInt8[np.ndarray, "H W 3"] | None = None,
    start: int = 0,
    frames: int | None = None,
    config: VerdictSettings | None = None,
    fps: float | None = None,
    check_cancel: CheckCancel = never,
) -> Verdict:
    """Judge a take: a file or folder (see `clip`), or its RGB frames. Take frame k shows episode frame `start` + k.

    `frames` is the length of the window that was asked for; without it a take must reach as far as the episode, or one
    window of a video model. Files whose rate is not the episode's are compared by their presentation times.
    The simulator's colours are never read. Raises VerdictError when nothing can be compared (no frames, a camera
    without instance ids, `start` outside the episode), InputError for an unreadable file, EpisodeError for an unknown
    camera, Cancelled when asked to stop.
    """
    return examine(
        video, episode, camera, first_frame=first_frame, start=start, frames=frames, config=config, fps=fps,
        check_cancel=check_cancel,
    ).verdict  # fmt: skip


def examine(
    video: Path | str | Frames,
    episode: Episode,
    camera: str,
    *,
    first_frame: UInt8[np.ndarray, "H W 3"] | None = None,
    start: int = 0,
    frames: int | None = None,
    config: VerdictSettings | None = None,
    fps: float | None = None,
    check_cancel: CheckCancel = never,
) -> Judged:
    """`judge`, keeping what the verdict was measured from."""
    settings = config or load_settings()
    spec = episode.header.camera(camera)
    if not 0 <= start < len(episode):
        raise VerdictError(f"start frame {start} is outside the episode, which has frames 0..{len(episode) - 1}")
    if frames is not None and frames < 1:
        raise VerdictError(f"a window of {frames} frames was asked for; expected at least one")
    rate, clip, source = float(episode.header.fps), None, video
    if isinstance(video, str | Path):
        clip = open_clip(Path(video), rate)
        source = clip.frames(rate)
        fps = (clip.fps or None) if fps is None else fps
    width = min(settings.working_width, spec.size[0])
    size = (width, round(spec.size[1] * width / spec.size[0]))
    offered = len(episode) - start
    pictures, total, take_size = _take(source, size, offered, check_cancel)  # type: ignore[arg-type]
    truth = read_truth(episode, camera, start, len(pictures), settings.working_width)
    check_cancel()
    measured = [
        _length(total, offered, frames, clip, settings), _size(take_size, spec.size), _rate(fps, rate, clip, frames is not None),
        first_frame_error(pictures[0], first_frame, size),
    ]  # fmt: skip
    footage = make_footage(pictures, truth)
    alignment = align(footage, truth, settings.following.radius, settings.following.max_lag, settings.following.step)
    check_cancel()
    measured += measure_following(alignment, truth, settings.following)
    measured.append(measure_gripper(alignment, truth, find_fingers(episode, truth), settings.following))
    events = [e for e in object_events(episode) if any(p.name == e.object and not p.robot for p in truth.parts)]
    tracks, found, metrics = _objects(footage, alignment, truth, events, settings)
    measured += found
    check_cancel()
    measured += measure_stability(footage, truth, motion_px(truth), settings.stability)
    measured += measure_geometry(footage, truth, episode, camera, settings.stability)
    measured.append(measure_tracked(footage, truth, episode, camera, settings.tracker))
    checks = tuple(_check(m, settings) for m in measured)
    severities = [
        settings.threshold(m.name).severity(m.value)
        for m in measured
        if m.value is not None and np.isfinite(m.value)
    ]  # fmt: skip
    verdict = Verdict(
        overall=_overall(checks),
        probability=_probability(checks, max(severities, default=1.0), settings),
        calibration=settings.calibration.data,
        checks=checks,
        camera=camera,
        start=start,
        frames=total,
        fps=float(fps if fps is not None else rate),
        size=take_size,
        episode_sha256=episode.content_sha256,
        video_sha256=clip.sha256 if clip else "",
        series={m.name: _series(m.series) for m in measured if m.series is not None},
        events=_events(events, start, len(pictures)),
        metrics={**metrics, **_reprojection(measured, truth), **link_offsets(alignment, truth, settings.following)},
    )
    return Judged(verdict, truth, footage, alignment, tracks, tuple(measured), clip)


def _take(
    source: Frames, size: tuple[int, int], offered: int, check_cancel: CheckCancel
) -> tuple[UInt8[np.ndarray, "T H W 3"], int, tuple[int, int]]:
    """Working-size frames (no more than the episode offers), number of frames in all, size of the take."""
    kept, total, take_size = [], 0, (0, 0)
    iterator = iter(source)
    for frame in islice(iterator, offered):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise VerdictError(f"take frame {total} is {frame.shape} {frame.dtype}; expected (H, W, 3) uint8 RGB")
        take_size = (frame.shape[1], frame.shape[0])
        kept.append(shrink(frame, size))
        total += 1
        if total % 16 == 0:
            check_cancel()
    total += sum(1 for _ in iterator)
    if not kept:
        raise VerdictError("the take has no frames; nothing can be judged")
    return np.stack(kept), total, take_size


def _length(total: int, offered: int, frames: int | None, clip: Clip | None, settings: VerdictSettings) -> Measurement:
    """Frames beyond what was asked for (or what the episode offers), or missing to it."""
    window = min(frames, offered) if frames else min(offered, settings.window)
    slack = 1 if clip and clip.timed else 0
    surplus = max(total - (window if frames else offered) - slack, 0)
    missing = max(window - total - slack, 0)
    note = f"{total} frames; the episode offers {offered} from there on"
    if frames or missing:
        note += f", a take has {window}"
    if total < settings.min_frames:
        note += f"; at least {settings.min_frames} are needed to judge motion"
        return Measurement("length", float(missing) if missing else None, note)
    frame = window - 1 if surplus else total - 1 if missing else None
    return Measurement("length", float(surplus or missing), note, frame)


def _size(take_size: tuple[int, int], size: tuple[int, int]) -> Measurement:
    aspect = (take_size[0] / take_size[1]) / (size[0] / size[1])
    note = f"{take_size[0]}x{take_size[1]}, camera {size[0]}x{size[1]}"
    return Measurement("size", abs(float(np.log(aspect))), note)


def _rate(fps: float | None, expected: float, clip: Clip | None, asked: bool) -> Measurement:
    """fps: a take that was asked for has the episode's rate; any other file is compared by its presentation times."""
    if fps is None or fps <= 0:
        return Measurement("fps", None, "the take states no rate; frames are compared one to one", applies=False)
    note = f"{fps:.3g} per second, episode {expected:.3g}"
    if clip is None or not clip.timed or asked:
        return Measurement("fps", abs(fps / expected - 1), note)
    if fps < COARSEST * expected:
        return Measurement("fps", None, f"{note}: too far apart to be compared frame by frame")
    return Measurement("fps", 0.0, f"{note}; compared by presentation times")


def _objects(
    footage: Footage, alignment: Alignment, truth: Truth, events: list[ObjectEvents], settings: VerdictSettings
) -> tuple[dict[str, Track], list[Measurement], dict[str, float | None]]:
    """Checks of all movable objects; with several, each check reports the worst of them."""
    if not events:
        why = "no object in the task"
        return {}, [Measurement(name, None, why, applies=False) for name in OBJECT_NAMES], {}
    tracks, every, metrics = {}, [], {}
    for event in events:
        part = next(i for i, p in enumerate(truth.parts) if not p.robot and p.name == event.object)
        phases = [event.phase(truth.start + t) for t in range(len(truth))]
        if not truth.area[:, part].any():
            why = f"object {event.object!r} is never visible to this camera"
            every.append([Measurement(name, None, why, applies=False) for name in OBJECT_NAMES])
            continue
        found = track(footage, truth, part)
        every.append(measure_object(found, alignment, truth, part, phases, settings.object))
        if found is not None:
            tracks[event.object] = found
            values = pisa(found, truth, phases)
            metrics |= values if len(events) == 1 else {f"{event.object}.{k}": v for k, v in values.items()}
    worst = []
    for column in zip(*every, strict=True):
        worst.append(max(column, key=lambda m: (m.value is not None, m.value or 0.0, m.applies)))
    return tracks, worst, metrics


def _check(measurement: Measurement, settings: VerdictSettings) -> Check:
    threshold = settings.threshold(measurement.name)
    value, status = measurement.value, "unsure"
    if value is None or not np.isfinite(value):
        value, status = None, "unsure" if measurement.applies else "skipped"
    else:
        status = "fail" if threshold.fails(value) else "unsure" if threshold.doubtful(value) else "pass"
    return Check(
        measurement.name, status, value, threshold.limit, threshold.unit, threshold.source, measurement.note,
        measurement.worst_frame,
    )  # fmt: skip


def _probability(checks: tuple[Check, ...], severity: float, settings: VerdictSettings) -> float:
    """The calibrated one; where something could not be told, no more than an even chance.

    The calibration weighs faultless and faulty takes alike, so one half is what is known about an unjudged property.
    """
    known = settings.calibration.probability(severity)
    return min(known, 0.5) if any(check.status == "unsure" for check in checks) else known


def _overall(checks: tuple[Check, ...]) -> Status:
    found = {check.status for check in checks}
    return "fail" if "fail" in found else "unsure" if "unsure" in found else "pass"


def _series(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if not np.isfinite(v) else float(v) for v in values)


def _events(events: list[ObjectEvents], start: int, frames: int) -> dict[str, int | None]:
    if not events:
        return {}

    def inside(frame: int | None) -> int | None:
        return None if frame is None or not 0 <= frame - start < frames else frame - start

    first = events[0]
    return {"grasp": inside(first.grasp), "release": inside(first.release), "settled": inside(first.settled)}


def _reprojection(measured: list[Measurement], truth: Truth) -> dict[str, float | None]:
    """Median arm offset over time (the recovery accuracy), px and as a share of the arm's size in the image."""
    for m in measured:
        if m.name == "arm_offset" and m.series is not None and not np.isnan(m.series).all():
            median = float(np.nanmedian(m.series))
            size = arm_size(truth) * truth.px
            return {"reprojection_median_px": median, "reprojection_median_share": median / size if size else None}
    return {}
