# SPDX-License-Identifier: Apache-2.0
"""judge(): one take against its episode. Pixels in, Verdict out; no disk except what the episode reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.episode.events import ObjectEvents, object_events
from retake.core.errors import VerdictError
from retake.core.progress import CheckCancel, never
from retake.core.verdicts.additions import measure_additions
from retake.core.verdicts.alignment import Alignment, align
from retake.core.verdicts.assess import check_of, overall_of, probability_of, series_of
from retake.core.verdicts.bodies import bodies
from retake.core.verdicts.clip import Clip, open_clip
from retake.core.verdicts.following import arm_size, link_offsets, measure_following, motion_px
from retake.core.verdicts.footage import Footage, make_footage
from retake.core.verdicts.form import Frames, length, rate_of, size_of, take_frames
from retake.core.verdicts.geometry import measure_geometry
from retake.core.verdicts.gripper import find_fingers, measure_events, measure_gripper
from retake.core.verdicts.objects import NAMES as OBJECT_NAMES
from retake.core.verdicts.objects import measure_object, pisa
from retake.core.verdicts.records import Measurement, Verdict
from retake.core.verdicts.scene import Scene, open_scene
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.verdicts.stability import first_frame_error, measure_stability
from retake.core.verdicts.stills import measure_stills
from retake.core.verdicts.trackers import measure_tracked
from retake.core.verdicts.tracking import Track, track
from retake.core.verdicts.truth import Truth, read_truth


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
    without instance ids: see `recorded`, `start` outside the episode), InputError for an unreadable file, EpisodeError
    for an unknown camera, Cancelled when asked to stop.
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
    pictures, total, take_size = take_frames(source, size, offered, check_cancel)  # type: ignore[arg-type]
    truth = read_truth(episode, camera, start, len(pictures), settings.working_width)
    check_cancel()
    measured = [
        length(total, offered, frames, clip, settings),
        size_of(take_size, spec.size),
        rate_of(fps, rate, clip, frames is not None),
        first_frame_error(pictures[0], first_frame, size),
    ]
    footage = make_footage(pictures, truth)
    alignment = align(footage, truth, settings.following.radius, settings.following.max_lag, settings.following.step)
    check_cancel()
    measured += measure_following(alignment, truth, settings.following)
    fingers = find_fingers(episode, truth)
    measured.append(measure_gripper(alignment, truth, fingers, settings.following))
    measured.append(measure_events(alignment, truth, fingers, settings.following))
    events = [e for e in object_events(episode) if any(p.name == e.object and not p.robot for p in truth.parts)]
    scene = open_scene(episode, camera, truth) if events else None
    tracks, found, metrics = _objects(footage, alignment, truth, scene, events, settings)
    measured += found
    check_cancel()
    measured += measure_stability(footage, truth, motion_px(truth), settings.stability)
    measured += measure_additions(footage, truth, settings.stability)
    measured.append(measure_stills(footage, truth, settings.stability))
    measured += measure_geometry(footage, truth, episode, camera, settings.stability)
    measured.append(measure_tracked(footage, truth, episode, camera, settings.tracker))
    checks = tuple(check_of(m, settings) for m in measured)
    severities = [
        settings.threshold(m.name).severity(m.value)
        for m in measured
        if m.value is not None and np.isfinite(m.value)
    ]  # fmt: skip
    verdict = Verdict(
        overall=overall_of(checks),
        probability=probability_of(checks, max(severities, default=1.0), settings),
        calibration=settings.calibration.data,
        checks=checks,
        camera=camera,
        start=start,
        frames=total,
        fps=float(fps if fps is not None else rate),
        size=take_size,
        episode_sha256=episode.content_sha256,
        video_sha256=clip.sha256 if clip else "",
        series={m.name: series_of(m.series) for m in measured if m.series is not None},
        events=_events(events, start, len(pictures)),
        metrics={**metrics, **_reprojection(measured, truth), **link_offsets(alignment, truth, settings.following)},
    )
    return Judged(verdict, truth, footage, alignment, tracks, tuple(measured), clip)


def _objects(
    footage: Footage,
    alignment: Alignment,
    truth: Truth,
    scene: Scene | None,
    events: list[ObjectEvents],
    settings: VerdictSettings,
) -> tuple[dict[str, Track], list[Measurement], dict[str, float | None]]:
    """Checks of all movable objects; with several, each check reports the worst of them."""
    if not events:
        why = "no object in the task"
        return {}, [Measurement(name, None, why, applies=False) for name in OBJECT_NAMES], {}
    tracks, every, metrics = {}, [], {}
    for event in events:
        part = next(i for i, p in enumerate(truth.parts) if not p.robot and p.name == event.object)
        if len(events) > 1 and truth.is_still(part):
            continue  # a bystander: still_objects judges it where the camera stands still
        phases = [event.phase(truth.start + t) for t in range(len(truth))]
        if not truth.area[:, part].any():
            why = f"object {event.object!r} is never visible to this camera"
            every.append([Measurement(name, None, why, applies=False) for name in OBJECT_NAMES])
            continue
        found = track(footage, truth, part, scene)
        # A fall lasts a few frames, and each of them tells.
        body = bodies(footage, truth, part, [t for t, phase in enumerate(phases) if t % 2 == 0 or phase == "released"])
        every.append(measure_object(found, body, alignment, truth, phases, settings.object))
        if found is not None:
            tracks[event.object] = found
            values = pisa(found, truth, phases)
            metrics |= values if len(events) == 1 else {f"{event.object}.{k}": v for k, v in values.items()}
    if not every:
        why = "no object moves in these frames"
        return {}, [Measurement(name, None, why, applies=False) for name in OBJECT_NAMES], {}
    worst = []
    for column in zip(*every, strict=True):
        worst.append(max(column, key=lambda m: (m.value is not None, m.value or 0.0, m.applies)))
    return tracks, worst, metrics


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
