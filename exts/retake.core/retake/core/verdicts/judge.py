# SPDX-License-Identifier: Apache-2.0
"""examine(): one take against its episode. Pixels in, Verdict out; no disk except what the episode reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.episode.events import ObjectEvents, object_events
from retake.core.progress import CheckCancel, never
from retake.core.verdicts.additions import measure_additions
from retake.core.verdicts.alignment import Alignment, align
from retake.core.verdicts.assess import assess, series_of
from retake.core.verdicts.bodies import bodies
from retake.core.verdicts.clip import Clip
from retake.core.verdicts.closeups import close_up, watch_fingers
from retake.core.verdicts.control import NOT_SHOWN, measure_leak
from retake.core.verdicts.falls import NAME as FALL
from retake.core.verdicts.falls import falls, measure_fall
from retake.core.verdicts.fingers import measure_fingers
from retake.core.verdicts.following import arm_size, link_offsets, measure_following, motion_px
from retake.core.verdicts.footage import Footage, make_footage
from retake.core.verdicts.form import Frames, open_film
from retake.core.verdicts.geometry import measure_geometry
from retake.core.verdicts.gripper import measure_events, measure_gripper
from retake.core.verdicts.gripper_parts import find_fingers
from retake.core.verdicts.novelty import measure_novelty
from retake.core.verdicts.objects import NAMES as BODY_NAMES
from retake.core.verdicts.objects import PHASES, in_doubt, measure_object, pisa
from retake.core.verdicts.postures import NAME as POSTURE
from retake.core.verdicts.postures import measure_posture
from retake.core.verdicts.read_once import read_once
from retake.core.verdicts.records import Measurement, Verdict
from retake.core.verdicts.scene import Scene, open_scene
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.verdicts.stability import measure_stability
from retake.core.verdicts.still_colours import measure_still_colours
from retake.core.verdicts.stills import measure_stills
from retake.core.verdicts.trackers import measure_tracked
from retake.core.verdicts.tracking import Seen, Track, seen_in, track
from retake.core.verdicts.truth import Truth, read_truth
from retake.core.verdicts.wrists import measure_wrist

OBJECT_NAMES = (*BODY_NAMES, POSTURE, FALL)


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
    object_control: str = "",
    check_cancel: CheckCancel = never,
) -> Judged:
    """Judge a take: a file or folder (see `clip`), or its RGB frames. Take frame k shows episode frame `start` + k.

    `object_control` (`Take.object_control`): a take of a model that was shown objects must not show their glyphs.
    `frames` is the length of the window that was asked for; without it a take must reach as far as the episode, or one
    window of a video model. Files whose rate is not the episode's are compared by their presentation times.
    The simulator's colours are read by `redressed` alone. Raises VerdictError when nothing can be compared (no frames, a camera
    without instance ids: see `recorded`, `start` outside the episode), InputError for an unreadable file, EpisodeError
    for an unknown camera, Cancelled when asked to stop.
    """
    settings = config or load_settings()
    episode = read_once(episode)
    watch = watch_fingers(episode, camera, start, settings.working_width)
    film = open_film(
        video, episode, camera, settings, first_frame=first_frame, start=start, frames=frames, fps=fps,
        check_cancel=check_cancel, watch=watch,
    )  # fmt: skip
    pictures, measured = film.pictures, list(film.form)
    truth = read_truth(episode, camera, start, len(pictures), settings.working_width)
    check_cancel()
    footage = make_footage(pictures, truth)
    alignment = align(footage, truth, settings.following.radius, settings.following.max_lag, settings.following.step)
    check_cancel()
    measured += measure_following(alignment, truth, settings.following, footage)
    measured.append(measure_wrist(footage, alignment, truth, episode, camera, settings.following))
    fingers = find_fingers(episode, truth)
    measured.append(measure_gripper(footage, alignment, truth, fingers, settings.following))
    close = None if watch is None else close_up(watch, film.watched, truth)
    measured.append(measure_events(footage, alignment, truth, fingers, settings.following, close))
    events = [e for e in object_events(episode) if any(p.name == e.object and not p.robot for p in truth.parts)]
    scene = open_scene(episode, camera, truth)
    tracks, found, metrics = _objects(episode, camera, footage, alignment, truth, scene, events, settings)
    measured += found
    check_cancel()
    measured += measure_stability(footage, truth, motion_px(truth), settings.stability)
    measured += measure_novelty(footage, truth, episode, camera)
    measured += measure_additions(footage, truth, settings.stability, episode, camera, scene)
    measured.append(measure_fingers(footage, truth, fingers))
    measured.append(measure_stills(footage, truth, settings.stability, scene))
    measured.append(measure_still_colours(footage, truth, settings.stability, episode, camera, scene))
    measured += measure_geometry(footage, truth, episode, camera, settings.stability)
    measured.append(measure_leak(footage, truth, episode, camera) if object_control else NOT_SHOWN)
    measured.append(measure_tracked(footage, truth, episode, camera, settings.tracker))
    verdict = Verdict(
        **assess(measured, settings), **film.identity,
        series={m.name: series_of(m.series) for m in measured if m.series is not None},
        events=_events(events, start, len(pictures)),
        metrics={**metrics, **_reprojection(measured, truth), **link_offsets(alignment, truth, settings.following)},
    )  # fmt: skip
    return Judged(verdict, truth, footage, alignment, tracks, tuple(measured), film.clip)


def _objects(
    episode: Episode,
    camera: str,
    footage: Footage,
    alignment: Alignment,
    truth: Truth,
    scene: Scene | None,
    events: list[ObjectEvents],
    settings: VerdictSettings,
) -> tuple[dict[str, Track], list[Measurement], dict[str, float | None]]:
    """Checks of all movable objects; with several, each check reports the worst of them."""
    if not events:
        # One that the recording has no ids of is there all the same.
        why, none = "no object in the task", not any(spec.movable for spec in episode.header.objects)
        return {}, [Measurement(name, None, why, applies=False, absent=none) for name in OBJECT_NAMES], {}
    tracks, every, metrics = {}, [], {}
    doubts: dict[str, Measurement] = {}
    seen: Seen | None = None
    for event in events:
        part = next(i for i, p in enumerate(truth.parts) if not p.robot and p.name == event.object)
        if len(events) > 1 and truth.is_still(part):
            continue  # a bystander: still_objects and still_colour judge it
        phases = [event.phase(truth.start + t) for t in range(len(truth))]
        if not truth.area[:, part].any():
            why = f"object {event.object!r} is never visible to this camera"
            absent = {f"object_{phase}" for phase in PHASES if phase not in phases}
            absent |= set() if falls(truth, part, phases) else {FALL}
            every.append([Measurement(name, None, why, applies=False, absent=name in absent) for name in OBJECT_NAMES])
            continue
        seen = seen or seen_in(footage, truth)
        found = track(footage, truth, part, scene, seen)
        # A fall lasts a few frames, and each of them tells.
        body = bodies(footage, truth, part, [t for t, phase in enumerate(phases) if t % 2 == 0 or phase == "released"])
        posture = measure_posture(footage, truth, episode, camera, part, phases, settings.object)
        checks = [*measure_object(found, body, alignment, truth, phases, settings.object), posture]
        if found is not None and set(phases) == {"before"}:
            why = f"or scenery looks like {event.object!r}, which no robot holds and whose colours hardly tell it"
            doubted = {c.name: replace(c, value=None, note=why) for c in checks if in_doubt(c, found, settings)}
            checks = [doubted.get(c.name, c) for c in checks]
            doubts |= doubted
        every.append([*checks, measure_fall(found, truth, part, phases)])
        if found is not None:
            tracks[event.object] = found
            values = pisa(found, truth, phases)
            metrics |= values if len(events) == 1 else {f"{event.object}.{k}": v for k, v in values.items()}
    if not every:
        why = "no object moves in these frames"
        return {}, [Measurement(name, None, why, applies=False, absent=True) for name in OBJECT_NAMES], {}
    worst = []
    for column in zip(*every, strict=True):
        most = max(column, key=lambda m: (m.value is not None, m.value or 0.0, m.applies, not m.absent))
        doubt = doubts.get(most.name)
        # What another object passes is no answer to a doubt about this one.
        worst.append(most if doubt is None or (most.value or 0.0) > settings.threshold(most.name).limit else doubt)
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
